"""Herding follows the mean: the definition's picks, whatever the blocks and the rounding."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from svp.select import herding, select
from tests import reference
from tests.test_k_center import KINDS, made, scaled

fixed = settings(deadline=None, derandomize=True, max_examples=100)


@fixed
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(2, 30),
    d=st.sampled_from([1, 2, 9, 20]),
    share=st.floats(0, 0.6),
    seed=st.integers(0, 10**6),
)
def test_each_pick_is_the_best_of_the_definition(kind: str, n: int, d: int, share: float, seed: int) -> None:
    points = made(kind, n, d, np.random.default_rng(seed))
    already = np.arange(int(share * n))
    picks = select("herding", n - len(already), embeddings=points, already=already, seed=seed).ids.tolist()
    exact = scaled(points)
    mean, chosen = exact.mean(axis=0), already.tolist()
    for pick in picks:
        distances = reference.herding_distances(exact, chosen, mean)
        best = min(value for i, value in enumerate(distances) if i not in chosen)
        # As good as the best, but for the rounding of the slow version: t + 1 terms of size 1.
        assert distances[pick] <= best * (1 + 1e-9) + 1e-13 * n * d
        chosen.append(pick)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("given_already", [0, 20])
def test_blocks_threads_memory_and_row_order_change_nothing(
    kind: str, given_already: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    points = made(kind, 9000, 17, rng)  # more than 1 MiB in float64
    order = rng.permutation(len(points))

    def run(points: NDArray[Any] = points, ids: Any = None, **how: Any) -> tuple[Any, ...]:
        chosen = select("herding", 20, embeddings=points, ids=ids, already=np.arange(given_already), **how)
        return chosen.ids.tolist(), chosen.gains[1:].tolist()

    first = run()
    with threadpool_limits(1):
        assert run() == first
    assert run(points[order], order) == first
    assert run(np.asfortranarray(points)) == first
    monkeypatch.setattr(herding, "_NUMBERS", 5000)
    assert run(points[order], order, memory="1MiB") == first


def test_equally_good_ones_go_by_chance_and_not_by_row() -> None:
    points = np.tile([[1.0, 0], [-1, 0], [0, 1], [0, -1]], (50, 1))
    firsts = {int(select("herding", 1, embeddings=points, seed=seed).ids[0]) % 4 for seed in range(40)}
    assert firsts == {0, 1, 2, 3}


def test_rows_are_kept_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows in float64, and beside them a few blocks."""
    points = np.random.default_rng(0).normal(size=(20_000, 100)).astype(np.float32)
    monkeypatch.setattr(herding, "_NUMBERS", 1 << 16)
    select("herding", 2, embeddings=points[:100])
    tracemalloc.start()
    select("herding", 2, embeddings=points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1.5 * 8 * points.size


def test_equal_rows_are_compared_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    points = np.ones((50_000, 100), np.float32)
    monkeypatch.setattr(herding, "_NUMBERS", 1 << 16)
    tracemalloc.start()
    select("herding", 2, embeddings=points, memory="1MiB")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < points.nbytes


def test_the_mean_comes_nearer_than_by_chance() -> None:
    for seed in range(10):
        points = np.random.default_rng(seed).normal(size=(300, 8)) + 5

        def away(ids: NDArray[np.int64], points: NDArray[Any] = points) -> float:
            return float(np.linalg.norm(points[ids].mean(axis=0) - points.mean(axis=0)))

        for k in (5, 30, 100):
            own = away(select("herding", k, embeddings=points, seed=seed).ids)
            assert own < 0.5 * away(select("random", k, ids=np.arange(300), seed=seed).ids)


def test_gains_are_what_the_mean_came_nearer() -> None:
    points = np.random.default_rng(0).normal(size=(40, 3))
    chosen = select("herding", 20, embeddings=points, already=[3, 5])
    away = [
        np.linalg.norm(points[[3, 5, *chosen.ids[:k]]].mean(axis=0) - points.mean(axis=0))
        for k in range(len(chosen) + 1)
    ]
    np.testing.assert_allclose(chosen.gains, -np.diff(away), atol=1e-12)
    assert np.isnan(select("herding", 1, embeddings=points).gains[0])


def test_excluded_examples_are_not_in_the_mean() -> None:
    points = np.array([[0.0], [1], [2], [3], [1000]])
    assert select("herding", 1, embeddings=points, exclude=[4]).ids[0] in (1, 2)
    assert select("herding", 1, embeddings=points, already=[4]).ids[0] == 0
