"""k-center is exact: the picks of the slow version, whatever the blocks, the precision and the rounding."""

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from svp.chance import hash_ids
from svp.errors import SettingError
from svp.select import geometry, k_center, select
from tests import reference

fixed = settings(deadline=None, derandomize=True, max_examples=100)


def made(kind: str, n: int, d: int, rng: np.random.Generator) -> NDArray[Any]:
    """Points that are hard to tell apart, each in its own way."""
    if kind == "normal":
        return rng.normal(size=(n, d))
    if kind == "grid":  # exact ties by the thousand
        return rng.integers(3, size=(n, d)).astype(float)
    if kind == "shifted grid":  # exact ties that float32 products far from the origin cannot see
        return rng.integers(3, size=(n, d)) + 10_000.0
    if kind == "near ties":  # distances that differ in the last bits of float32
        return (rng.integers(3, size=(n, d)) + rng.normal(size=(n, d)) * 1e-7).astype(np.float32)
    if kind == "nearer ties":  # ... of float64
        return rng.integers(3, size=(n, d)) + rng.normal(size=(n, d)) * 1e-15
    if kind == "one-hot":
        return np.eye(d)[rng.integers(d, size=n)]
    if kind == "one value":
        return np.full((n, d), 0.1)
    if kind == "outlier":
        points = rng.normal(size=(n, d))
        points[0] *= 1e8
        return points
    if kind == "dust":  # distances whose squares float32 takes for 0, beside large ones
        points = rng.normal(size=(n, d)) * 1e-22
        points[: n // 2 : 2], points[1 : n // 2 : 2] = 1, -1
        return points
    if kind == "near a plane":  # few directions are enough
        return rng.normal(size=(n, 2)) @ rng.normal(size=(2, d)) + rng.normal(size=(n, d)) * 1e-3 + 100
    if kind == "huge":
        return rng.normal(size=(n, d)) * 1e200
    assert kind == "tiny"
    return rng.normal(size=(n, d)) * 1e-200


KINDS = [
    "normal", "grid", "shifted grid", "near ties", "nearer ties", "one-hot", "one value", "outlier", "dust",
    "near a plane", "huge", "tiny",
]  # fmt: skip


SMALL = {"_BLOCK": 5, "_ROWS": 3, "_COLUMNS": 4, "_PAIR_NUMBERS": 6, "_MARKS": 1, "_IN_REACH": 3}
SMALL |= {"_PAYS": 0, "_SAMPLE": 32, "_WIDE": 7, "_KEPT": 200}
TRUE = {name: getattr(k_center, name) for name in SMALL}


def set_blocks(patch: pytest.MonkeyPatch, sizes: dict[str, int]) -> None:
    for name, size in sizes.items():
        patch.setattr(k_center, name, size)


@pytest.fixture(autouse=True, scope="module")
def small_blocks() -> Iterator[None]:
    """Blocks so small that a few dozen points make many rounds."""
    with pytest.MonkeyPatch.context() as patch:
        set_blocks(patch, SMALL)
        yield


def scaled(points: NDArray[Any]) -> NDArray[np.float64]:
    """What the slow version can square: an exact power of two away."""
    points = points.astype(np.float64)
    biggest = np.abs(points).max(initial=0)
    return np.ldexp(points, -np.frexp(biggest)[1]) if biggest else points


@fixed
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(2, 40),
    d=st.sampled_from([1, 2, 3, 9, 20]),
    given_share=st.floats(0, 0.6),
    seed=st.integers(0, 10**6),
)
def test_the_picks_of_the_slow_version(kind: str, n: int, d: int, given_share: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    points = made(kind, n, d, rng)
    ids = rng.permutation(10 * n)[:n]
    already = np.arange(max(1, int(given_share * n)))
    candidates = np.setdiff1d(np.arange(n), already)
    candidates = candidates[np.argsort(hash_ids(ids[candidates], seed, "ties").astype(np.int64))]
    chosen = select("k_center", len(candidates), embeddings=points, ids=ids, already=ids[already], seed=seed)
    picks, gains = reference.k_center(scaled(points), already, candidates, len(candidates))
    assert chosen.ids.tolist() == ids[picks].tolist()
    biggest = np.abs(points.astype(float)).max()
    np.testing.assert_allclose(chosen.gains, np.ldexp(gains, np.frexp(biggest)[1]) if biggest else gains, rtol=1e-12)
    # The nearest one is as near as the gain says, and was chosen before.
    place = {int(i): k for k, i in enumerate(chosen.ids)}
    where = {int(i): k for k, i in enumerate(ids)}
    assert chosen.nearest is not None
    for k, (i, near) in enumerate(zip(chosen.ids.tolist(), chosen.nearest.tolist(), strict=True)):
        assert place.get(near, -1) < k
        assert np.sqrt(reference.squared(*scaled(points)[[where[i], where[near]]])) == gains[k]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("start", "given_already"), [(1, 0), (7, 0), (1, 20)])
def test_blocks_threads_and_row_order_change_nothing(
    kind: str, start: int, given_already: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(3)
    points = made(kind, 50, 6, rng)
    order = rng.permutation(50)

    def run(points: NDArray[Any] = points, ids: Any = None) -> tuple[Any, ...]:
        chosen = select("k_center", 20, embeddings=points, ids=ids, start=start, already=np.arange(given_already))
        assert chosen.nearest is not None
        return chosen.ids.tolist(), chosen.gains[1:].tolist(), chosen.nearest.tolist()

    first = run()
    with threadpool_limits(1):
        assert run() == first
    assert run(points[order], order) == first
    assert run(np.asfortranarray(points)) == first
    for size in (1, 64, 1000):
        set_blocks(monkeypatch, dict.fromkeys(SMALL, size))
        assert run(points[order], order) == first
    set_blocks(monkeypatch, SMALL | {"_BLOCK": 20, "_WIDE": 0})
    assert run() == first


@pytest.mark.parametrize("kind", ["normal", "grid", "near ties"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_precision_of_the_type_changes_nothing(kind: str, dtype: Any) -> None:
    points = made(kind, 100, 8, np.random.default_rng(0)).astype(dtype)
    narrow, wide = (select("k_center", 60, embeddings=p) for p in (points, points.astype(np.float64)))
    assert narrow.ids.tolist() == wide.ids.tolist()
    assert narrow.gains[1:].tolist() == wide.gains[1:].tolist()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 5, 64, 500])
def test_lower_bounds_are_below_and_not_far(kind: str, d: int) -> None:
    points = made(kind, 60, d, np.random.default_rng(1))
    everything = np.arange(60)
    space = geometry.Space(points, everything[:0], everything)
    rows = space.rows(everything)
    left, right = space.left(rows), space.right(rows)
    bounds = (left @ right.T).astype(np.float64)
    exact = np.array([geometry.squared(rows, row) for row in rows])
    squares = left[:, -2].astype(np.float64)[:, None] + right[:, -1].astype(np.float64)
    assert (bounds <= exact).all()
    assert (exact <= bounds + 4 * space.slack * squares + 2.0**-96).all()
    for k in {1, d // 2, d} - {0}:
        space.basis = np.linalg.qr(np.random.default_rng(2).normal(size=(d, d)))[0][:, :k]
        assert (space.left(rows) @ space.right(rows).T <= exact).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("d", [1, 5, 64, 500])
def test_a_ceiling_within_the_product_hides_no_pair_below_it(
    kind: str, d: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    set_blocks(monkeypatch, TRUE)
    points = made(kind, 60, d, np.random.default_rng(1))
    everything = np.arange(60)
    space = geometry.Space(points, everything[:0], everything)
    rows = space.rows(everything)
    left, right = space.left(rows), space.right(rows)
    exact = np.array([geometry.squared(rows, row) for row in rows])
    for ceiling in (exact[0], np.nextafter(exact[:, 1], np.inf), exact.max(axis=1), np.full(60, 4.0 * d)):
        room, below = k_center._Room(), np.zeros(exact.size, bool)
        gaps = room.gaps(left, right, ceiling, space.slack)
        assert (gaps <= exact - ceiling[:, None]).all()
        below[room.marked(gaps, np.float32(0))] = True
        assert below.reshape(exact.shape)[exact < ceiling[:, None]].all()


def test_points_near_a_subspace_are_told_apart_along_few_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks(monkeypatch, TRUE | {"_PAYS": 0})
    rng = np.random.default_rng(0)
    flat = rng.normal(size=(600, 3)) @ rng.normal(size=(3, 40)) + rng.normal(size=(600, 40)) * 0.01 + 1_000
    round_ = rng.normal(size=(600, 3))
    everything = np.arange(600)
    basis = k_center._directions(geometry.Space(flat, everything[:0], everything), everything)
    assert basis is not None
    assert basis.shape[1] < 20
    assert k_center._directions(geometry.Space(round_, everything[:0], everything), everything) is None
    chosen = select("k_center", 500, embeddings=flat, already=[0])
    monkeypatch.setattr(k_center, "_directions", lambda space, candidates: None)
    whole = select("k_center", 500, embeddings=flat, already=[0])
    assert (chosen.ids == whole.ids).all()
    assert (chosen.gains == whole.gains).all()


def test_the_radius_is_at_most_twice_the_best() -> None:
    for seed in range(12):
        rng = np.random.default_rng(seed)
        points = made(KINDS[seed % 2], 9, 2, rng)
        for k in (1, 2, 3):
            greedy = reference.radius(points, select("k_center", k, embeddings=points, seed=seed).ids.tolist())
            best = min(reference.radius(points, chosen) for chosen in itertools.combinations(range(9), k))
            assert greedy <= 2 * best * (1 + 1e-12)


def test_the_first_is_the_nearest_to_the_mean_of_the_candidates() -> None:
    points = np.array([[0.0], [1], [2], [3], [100]])
    chosen = select("k_center", 2, embeddings=points, exclude=[4])
    assert chosen.ids[0] in (1, 2)
    assert np.isnan(chosen.gains[0])
    assert chosen.gains[1] == 2
    assert chosen.nearest is not None
    assert chosen.nearest.tolist() == [-1, chosen.ids[0]]
    for seed in range(5):
        points = np.random.default_rng(seed).normal(size=(50, 4)) + 100 * seed
        first = select("k_center", 1, embeddings=points).ids[0]
        assert first == ((points - points.mean(axis=0)) ** 2).sum(axis=1).argmin()


def test_random_points_first_where_nothing_is_chosen() -> None:
    points = np.random.default_rng(0).normal(size=(200, 3))
    chosen = select("k_center", 30, embeddings=points, start=20, seed=4)
    assert len(chosen) == 30
    by_chance = np.argsort(hash_ids(np.arange(200), 4, "start"))[:20]
    assert chosen.ids[:20].tolist() == by_chance.tolist()
    picks, gains = reference.k_center(points, by_chance.tolist(), np.setdiff1d(np.arange(200), by_chance).tolist(), 10)
    assert chosen.ids[20:].tolist() == picks
    np.testing.assert_allclose(chosen.gains[20:], gains, rtol=1e-12)
    # Their gains are what they added at their turn.
    for k in range(1, 20):
        nearest = min(reference.squared(points[by_chance[k]], points[c]) for c in by_chance[:k])
        assert chosen.gains[k] == pytest.approx(np.sqrt(nearest), rel=1e-12)
    assert select("k_center", 8, embeddings=points, start=20, seed=4).ids.tolist() == chosen.ids[:8].tolist()
    other = select("k_center", 30, embeddings=points, start=20, seed=5)
    assert set(other.ids[:20].tolist()) != set(chosen.ids[:20].tolist())
    # Where something is chosen already, that is the start.
    assert select("k_center", 5, embeddings=points, start=20, already=[0]).ids.tolist() == (
        select("k_center", 5, embeddings=points, already=[0]).ids.tolist()
    )


@pytest.mark.parametrize("start", [0, -1, 1.5, True, "2"])
def test_a_start_that_makes_no_sense(start: Any) -> None:
    with pytest.raises(SettingError, match="start="):
        select("k_center", 1, embeddings=[[0.0]], start=start)


@pytest.mark.parametrize("values", [1, 2, 40])
def test_repeated_points_cost_no_more_than_distinct_ones(values: int, monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks(monkeypatch, TRUE)
    n, given_already = 3000, 500
    points = np.random.default_rng(0).normal(size=(values, 4))[np.arange(n) % values]
    rows = 0
    squared = k_center.squared

    def counted(a: Any, b: Any) -> Any:
        nonlocal rows
        rows += len(a)
        return squared(a, b)

    monkeypatch.setattr(k_center, "squared", counted)
    chosen = select("k_center", 2000, embeddings=points, already=np.arange(given_already))
    assert len(chosen) == 2000
    assert (chosen.gains[max(0, values - given_already) :] == 0).all()
    select("k_center", 2000, embeddings=points)
    select("k_center", 2000, embeddings=points, start=500)
    # A distance for each pair of a point and a chosen one would be millions.
    assert rows < 60 * n


@pytest.mark.parametrize("offset", [0, 10_000])
def test_far_fewer_distances_than_pairs(offset: float, monkeypatch: pytest.MonkeyPatch) -> None:
    set_blocks(monkeypatch, TRUE)
    n, budget = 4000, 400
    points = np.random.default_rng(0).normal(size=(n, 16)) + offset
    rows = 0
    squared = k_center.squared

    def counted(a: Any, b: Any) -> Any:
        nonlocal rows
        rows += len(a)
        return squared(a, b)

    monkeypatch.setattr(k_center, "squared", counted)
    select("k_center", budget, embeddings=points)
    assert rows < 0.25 * n * budget
