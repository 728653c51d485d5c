"""Neighbours are exact: those of the slow version, whatever the blocks, the memory and the rounding."""

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from svp.select import neighbors
from tests import reference
from tests.test_k_center import KINDS, made, scaled

fixed = settings(deadline=None, derandomize=True, max_examples=100)
SMALL = {"_ROWS": 3, "_COLUMNS": 7, "_FIRST": 2, "_PAIR_NUMBERS": 6}
TRUE = {name: getattr(neighbors, name) for name in SMALL}


def set_blocks(patch: pytest.MonkeyPatch, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        patch.setattr(neighbors, name, size)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        set_blocks(patch, SMALL)
        yield


def pairs_within(points: NDArray[Any], queries: Any, base: Any, radius: float) -> list[tuple[int, int]]:
    mask = np.zeros((len(queries), len(base)), bool)
    seen = np.zeros(mask.shape, int)
    for rows, columns, tile in neighbors.within(points, queries, base, radius):
        mask[rows, columns] = tile
        seen[rows, columns] += 1
    assert (seen == 1).all()
    return [(int(i), int(j)) for i, j in np.argwhere(mask)]


@fixed
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 40),
    d=st.sampled_from([1, 2, 3, 9, 20]),
    k=st.integers(0, 12),
    seed=st.integers(0, 10**6),
)
def test_the_neighbours_of_the_slow_version(kind: str, n: int, d: int, k: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = made(kind, n, d, rng)
    base = rng.permutation(n)[: rng.integers(0, n + 1)]
    queries = rng.permutation(n)[: rng.integers(0, n + 1)]
    pos, distances = neighbors.nearest(points, queries, base, k)
    expected = reference.neighbors(scaled(points), queries, base, k)
    back = np.frexp(np.abs(points.astype(float)).max())[1]
    for row, far, (names, squares) in zip(pos, distances, expected, strict=True):
        assert row.tolist() == names + [-1] * (k - len(names))
        np.testing.assert_array_equal(far[: len(names)], np.ldexp(np.sqrt(squares), back))
        assert np.isinf(far[len(names) :]).all()


@fixed
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 30),
    d=st.sampled_from([1, 2, 9]),
    pick=st.integers(0, 10**6),
    seed=st.integers(0, 10**6),
)
def test_the_pairs_within_a_radius_are_those_whose_distance_is_at_most_it(
    kind: str, n: int, d: int, pick: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    points = made(kind, n, d, rng)
    base, queries = rng.permutation(n), rng.permutation(n)[: n // 2 + 1]
    pos, distances = neighbors.nearest(points, queries, base, n)
    every = np.sort(distances[np.isfinite(distances)])
    on = float(every[pick % len(every)]) if len(every) else 0.0  # exactly on an edge
    for radius in (0.0, on, math.nextafter(on, 0), math.nextafter(on, math.inf), math.inf):
        far = [
            {int(i): float(x) for i, x in zip(row, xs, strict=True) if i >= 0}
            for row, xs in zip(pos, distances, strict=True)
        ]
        expected = [(i, j) for i in range(len(queries)) for j in range(n) if far[i].get(int(base[j]), 0.0) <= radius]
        assert pairs_within(points, queries, base, radius) == expected


@pytest.mark.parametrize("kind", KINDS)
def test_blocks_memory_and_layout_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    points = made(kind, 40, 12, rng)
    base, queries = rng.permutation(40)[:27], rng.permutation(40)[:20]
    set_blocks(monkeypatch, TRUE)
    first = neighbors.nearest(points, queries, base, 9)
    radius = float(np.median(first[1]))
    pairs = pairs_within(points, queries, base, radius)
    for size, memory in ((2, 1 << 30), (13, 1), (4000, 20_000)):
        set_blocks(monkeypatch, dict.fromkeys(SMALL, size))
        for same in (points, np.asfortranarray(points)):
            pos, distances = neighbors.nearest(same, queries, base, 9, memory=memory)
            assert pos.tolist() == first[0].tolist()
            assert distances.tolist() == first[1].tolist()
        assert pairs_within(points, queries, base, radius) == pairs


@pytest.mark.parametrize("kind", ["one value", "one-hot"])
def test_repeated_points_are_not_compared_with_each_other_for_ever(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks(monkeypatch, TRUE)
    n = 4000
    points = made(kind, n, 3, np.random.default_rng(0))
    rows = 0
    squared = neighbors.squared

    def counted(a: Any, b: Any) -> Any:
        nonlocal rows
        rows += len(a)
        return squared(a, b)

    monkeypatch.setattr(neighbors, "squared", counted)
    everything = np.arange(n)
    pos, distances = neighbors.nearest(points, everything, everything, 5)
    assert (distances == 0).all()
    assert pos[-1].tolist() == [i for i in range(n) if (points[i] == points[-1]).all()][:5]
    assert rows < n * 1100  # the first block alone


def test_far_fewer_distances_than_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks(monkeypatch, TRUE)
    points = np.random.default_rng(0).normal(size=(9000, 16)) + 1000
    rows = 0
    squared = neighbors.squared

    def counted(a: Any, b: Any) -> Any:
        nonlocal rows
        rows += len(a)
        return squared(a, b)

    monkeypatch.setattr(neighbors, "squared", counted)
    everything = np.arange(9000)
    _, distances = neighbors.nearest(points, everything, everything, 10)
    assert rows < 100 * 9000
    rows = 0
    radius = float(np.median(distances))
    sizes = sum(int(tile.sum()) for _, _, tile in neighbors.within(points, everything, everything, radius))
    assert sizes > 4 * 9000
    assert rows < 9000 * 30
