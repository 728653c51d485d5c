"""k-means: each point with its nearest centre, each centre the mean of its points, whatever the rows, blocks and threads."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from threadpoolctl import threadpool_limits

from svp.select import clusters, neighbors
from svp.select.clusters import k_means
from tests import reference
from tests.test_k_center import KINDS, made, scaled

fixed = settings(deadline=None, derandomize=True, max_examples=80)


@fixed
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(0, 40),
    d=st.sampled_from([1, 2, 9]),
    k=st.integers(1, 12),
    seed=st.integers(0, 10**6),
)
def test_each_point_is_with_its_nearest_centre_and_no_cluster_is_empty(
    kind: str, n: int, d: int, k: int, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    points = made(kind, max(n, 1), d, rng)
    pos = rng.permutation(len(points))[:n]
    found = k_means(points, pos, k, seed=seed)
    n_distinct = len(np.unique(points[pos], axis=0))
    assert len(found.centres) <= min(k, n_distinct)
    assert sorted(set(found.labels.tolist())) == list(range(len(found.centres)))
    assert [m.tolist() for m in found.members()] == [
        np.flatnonzero(found.labels == c).tolist() for c in range(len(found.centres))
    ]
    both = scaled(np.concatenate([points[pos].astype(float), found.centres]))
    if n:
        assert found.labels.tolist() == reference.nearest_centre(both[:n], both[n:])
        one = [np.sqrt(reference.squared(both[i], both[n + c])) for i, c in enumerate(found.labels)]
        np.testing.assert_allclose(scaled(np.append(found.distances, 0)), scaled(np.append(one, 0)), rtol=1e-9)


def test_lloyd_stops_where_each_centre_is_the_mean_of_its_points() -> None:
    for seed in range(5):
        points = np.random.default_rng(seed).normal(size=(200, 3))
        found = k_means(points, np.arange(200), 8, seed=seed, iterations=500)
        for c, members in enumerate(found.members()):
            np.testing.assert_allclose(found.centres[c], points[members].mean(axis=0), rtol=1e-12, atol=1e-12)


def test_clusters_that_are_plain_to_see_are_found() -> None:
    rng = np.random.default_rng(0)
    true = np.arange(300) % 6
    points = np.eye(6)[true] * 50 + rng.normal(size=(300, 6))
    for seed in range(5):
        found = k_means(points, np.arange(300), 6, seed=seed)
        assert len({(a, b) for a, b in zip(true.tolist(), found.labels.tolist(), strict=True)}) == 6
    assert len(k_means(np.repeat(np.eye(3), 5, axis=0), np.arange(15), 9, seed=0).centres) == 3


def test_the_seeds_are_drawn_with_chances_as_the_squared_distance() -> None:
    # Two points at 0 and one each at 1 and 3: after a first at 0, 3 comes second in 9 of 10 cases.
    points = np.array([[0.0], [0.0], [1.0], [3.0]])
    space = clusters.Space(points, np.arange(0), np.arange(4))
    drawn = [clusters._seeds(clusters._Points(space, np.arange(4), 1 << 20), 2, seed).tolist() for seed in range(1000)]
    first = np.bincount([pair[0] for pair in drawn], minlength=4)
    assert (abs(first - 250) < 70).all()  # 5 standard deviations
    after = [pair[1] for pair in drawn if pair[0] < 2]
    assert set(after) == {2, 3}
    assert abs(np.mean(np.array(after) == 3) - 0.9) < 0.07


@pytest.mark.parametrize("kind", KINDS)
def test_rows_blocks_memory_and_threads_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    points = made(kind, 120, 9, rng)
    pos, order = rng.permutation(120)[:100], rng.permutation(120)
    moved = np.argsort(order)[pos]  # where the same points stand in points[order]

    def run(points: Any = points, pos: Any = pos, memory: int = 1 << 30) -> tuple[Any, ...]:
        found = k_means(points, pos, 12, seed=1, memory=memory)
        return found.labels.tolist(), found.distances.tolist(), found.centres.tolist()

    first = run()
    assert run(points[order], moved) == first
    assert run(np.asfortranarray(points)) == first
    with threadpool_limits(1):
        assert run() == first
    for size, memory in ((3, 1 << 30), (50, 30_000)):
        monkeypatch.setattr(clusters, "_ROWS", size)
        for name in ("_ROWS", "_COLUMNS", "_FIRST", "_PAIR_NUMBERS"):
            monkeypatch.setattr(neighbors, name, size)
        assert run(points[order], moved, memory) == first


def test_a_cluster_that_empties_begins_again_at_the_farthest_point() -> None:
    points = np.array([[0.0], [1.0], [2.0], [10.0]])
    space = clusters.Space(points, np.arange(0), np.arange(4))
    held = clusters._Points(space, np.arange(4), 1 << 20)
    centres = np.array([[1.0], [50.0], [1.5]]) * space.scale
    labels, squares = held.assign(centres)
    assert labels.tolist() == [0, 0, 2, 2]
    assert (held.means(labels, squares, centres) / space.scale).tolist() == [[0.5], [10.0], [6.0]]
