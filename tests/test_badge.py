"""BADGE draws what k-means++ on the gradients themselves draws, without making them."""

import tracemalloc
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from svp.chance import hash_ids, uniform
from svp.select import badge, select
from tests import reference

fixed = settings(deadline=None, derandomize=True, max_examples=80)
SMALL = {"_ROWS": 3, "_COLUMNS": 4, "_RENEW": 2}


def made(kind: str, n: int, c: int, d: int, rng: np.random.Generator) -> tuple[NDArray[Any], NDArray[Any]]:
    probs, points = rng.dirichlet(np.full(c, 0.5), size=n), rng.normal(size=(n, d))
    if kind == "repeats":
        rows = rng.integers(max(1, n // 4), size=n)
        return probs[rows], points[rows]
    if kind == "grid":
        return np.eye(c)[rng.integers(c, size=n)] * 0.5 + 0.5 / c, rng.integers(3, size=(n, d)).astype(float)
    if kind == "certain":
        probs[::2] = np.eye(c)[0]
    if kind == "huge":
        return probs, points * 1e200
    if kind == "near ties":
        return probs[np.zeros(n, int)], points[np.zeros(n, int)] + rng.normal(size=(n, d)) * 1e-14
    return probs, points


KINDS = ["normal", "repeats", "grid", "certain"]


@fixed
@given(
    kind=st.sampled_from(KINDS),
    n=st.integers(1, 30),
    c=st.integers(1, 5),
    d=st.integers(1, 6),
    share=st.floats(0, 0.5),
    seed=st.integers(0, 10**6),
    small=st.booleans(),
)
def test_the_picks_of_the_slow_version(kind: str, n: int, c: int, d: int, share: float, seed: int, small: bool) -> None:
    rng = np.random.default_rng(seed)
    probs, points = made(kind, n, c, d, rng)
    ids = rng.permutation(10 * n)[:n]
    already = np.arange(int(share * n))
    candidates = np.setdiff1d(np.arange(n), already)
    candidates = candidates[np.argsort(hash_ids(ids[candidates], seed, "ties").astype(np.int64))]
    with pytest.MonkeyPatch.context() as patch:
        for name, size in SMALL.items() if small else ():
            patch.setattr(badge, name, size)
        chosen = select(
            "badge", len(candidates), probs=probs, embeddings=points, ids=ids, already=ids[already], seed=seed
        )
    picks, gains = reference.badge(
        probs, points, already.tolist(), candidates.tolist(), len(candidates), lambda t: uniform(ids, seed, "badge", t)
    )
    assert chosen.ids.tolist() == ids[picks].tolist()
    # What the two formulas lose to rounding is of the size of the squared lengths.
    np.testing.assert_allclose(chosen.gains**2, np.square(gains), rtol=1e-9, atol=1e-12)
    assert np.isnan(chosen.gains[:1]).all() == (not len(already))


@pytest.mark.parametrize("kind", [*KINDS, "near ties", "huge"])
@pytest.mark.parametrize("given_already", [0, 15])
def test_blocks_threads_and_row_order_change_nothing(
    kind: str, given_already: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(1)
    probs, points = made(kind, 50, 4, 6, rng)
    order = rng.permutation(50)

    def run(probs: Any = probs, points: Any = points, ids: Any = None) -> tuple[Any, ...]:
        chosen = select("badge", 25, probs=probs, embeddings=points, ids=ids, already=np.arange(given_already), seed=2)
        assert chosen.nearest is not None
        return chosen.ids.tolist(), chosen.gains[1:].tolist(), chosen.nearest.tolist()

    first = run()
    with threadpool_limits(1):
        assert run() == first
    assert run(np.asfortranarray(probs), np.asfortranarray(points)) == first
    for size in (1, 7, 1000):
        for name in SMALL:
            monkeypatch.setattr(badge, name, size)
        assert run(probs[order], points[order], order) == first


@pytest.mark.parametrize("kind", [*KINDS, "near ties", "huge"])
@pytest.mark.parametrize(("c", "d"), [(1, 1), (3, 5), (40, 300)])
def test_bounds_are_above_and_not_far(kind: str, c: int, d: int) -> None:
    probs, points = made(kind, 200, c, d, np.random.default_rng(4))
    already, candidates = np.arange(60), np.arange(60, 200)
    gradients = badge._Gradients(probs, points, already, candidates)
    race = badge._Race(gradients, already, candidates, 0)
    race._renew()
    upper = race.bound.copy()
    for place in range(140):
        race._measure(place)
    assert (race.exact <= upper).all()
    largest = np.concatenate([race.squares, race.lengths]).max()
    assert (upper <= race.exact + 1e-11 * largest + 2.0**-999).all()


def test_a_draw_has_chances_in_proportion_to_the_squared_distance() -> None:
    # Errors (-1/2, 1/2), so a gradient is e / sqrt(2) long: distances 1, 2 and 3 to the one that is chosen.
    points, probs = np.array([[0.0], [1], [2], [3]]), np.full((4, 2), 0.5)
    seeds, counts = 400, np.zeros(4)
    for seed in range(seeds):
        counts[select("badge", 1, probs=probs, embeddings=points, already=[0], seed=seed).ids] += 1
    expected = seeds * np.array([1, 4, 9]) / 14
    # Chi-squared with 2 degrees of freedom: above 18.4 once in 10,000.
    assert counts[0] == 0
    assert ((counts[1:] - expected) ** 2 / expected).sum() < 18.4


def test_to_choose_on_is_to_have_chosen_more() -> None:
    probs, points = made("normal", 80, 3, 5, np.random.default_rng(0))
    whole = select("badge", 40, probs=probs, embeddings=points, seed=3).ids.tolist()
    head = select("badge", 25, probs=probs, embeddings=points, seed=3).ids.tolist()
    rest = select("badge", 15, probs=probs, embeddings=points, already=head, seed=3).ids.tolist()
    assert head + rest == whole


def test_the_nearest_is_as_near_as_the_gain_says() -> None:
    probs, points = made("normal", 60, 3, 4, np.random.default_rng(0))
    chosen = select("badge", 50, probs=probs, embeddings=points, already=[0, 1])
    assert chosen.nearest is not None
    gradients = [np.outer(p, e) for p, e in zip(probs - np.eye(3)[probs.argmax(axis=1)], points, strict=True)]
    earlier = {0, 1}
    for i, near, gain in zip(chosen.ids.tolist(), chosen.nearest.tolist(), chosen.gains, strict=True):
        assert near in earlier
        assert np.linalg.norm(gradients[i] - gradients[near]) == pytest.approx(gain, rel=1e-9)
        earlier.add(i)


def test_what_repeats_the_chosen_goes_last() -> None:
    probs, points = np.full((30, 2), 0.5), np.repeat(np.arange(1.0, 4), 10)[:, None]
    chosen = select("badge", 30, probs=probs, embeddings=points)
    assert sorted(points[chosen.ids[:3], 0]) == [1, 2, 3]
    assert (chosen.gains[3:] == 0).all()


def test_gradients_are_never_made() -> None:
    n, c, d = 20_000, 20, 50
    rng = np.random.default_rng(0)
    probs, points = rng.dirichlet(np.ones(c), size=n).astype(np.float32), rng.normal(size=(n, d)).astype(np.float32)
    select("badge", 2, probs=probs[:9], embeddings=points[:9])  # imports are not what is measured
    tracemalloc.start()
    select("badge", 130, probs=probs, embeddings=points)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 110 * n + 8 * 130 * (c + d) + 8000 * (c + d + 3000)
    assert peak < 8 * n * c * d / 5
