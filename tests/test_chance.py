"""Where chance comes from: hashes of ids and streams by name."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from svp.chance import generator, hash_ids, shuffled, spawn_seed, uniform
from svp.errors import SettingError
from tests.characters import CONTROL, PLAIN

TRY = settings(derandomize=True, deadline=None, max_examples=30)
SEEDS = st.integers(0, 2**63 - 1)
PATHS = st.lists(st.integers(0, 2**32) | st.text(PLAIN + CONTROL, max_size=5), max_size=3).map(tuple)
IDS = st.lists(st.integers(0, 2**63 - 1), unique=True, max_size=60).map(lambda ids: np.array(ids, np.int64))
MASK = 2**64 - 1


def splitmix(value: int) -> int:
    """Steele, Lea and Flood 2014, in whole numbers."""
    z = (value + 0x9E3779B97F4A7C15) & MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
    return z ^ (z >> 31)


@TRY
@given(IDS, SEEDS, PATHS)
def test_a_hash_is_splitmix_of_the_keyed_id(ids: np.ndarray, seed: int, path: tuple[int | str, ...]) -> None:
    hashes = hash_ids(ids, seed, *path)
    key = int(hash_ids([0], seed, *path)[0])
    assert hashes.dtype == np.uint64
    # The key is not public; it is whatever the hash of 0 says, and the other hashes must follow from it.
    assert len(np.unique(hashes)) == len(ids)
    if len(ids):
        unmixed = _unmix(key)
        assert [splitmix(int(i) ^ unmixed) for i in ids] == hashes.tolist()


def _unmix(z: int) -> int:
    """The inverse of `splitmix`."""
    for multiplier, shift in ((None, 31), (0x94D049BB133111EB, 27), (0xBF58476D1CE4E5B9, 30)):
        if multiplier is not None:
            z = (z * pow(multiplier, -1, 2**64)) & MASK
        x = z
        for _ in range(64 // shift + 1):
            x = z ^ (x >> shift)
        z = x
    return (z - 0x9E3779B97F4A7C15) & MASK


def test_ranges_have_no_collisions_and_are_uniform() -> None:
    hashes = hash_ids(np.arange(300_000), 7, "order", 3)
    assert len(np.unique(hashes)) == 300_000
    for shift in (0, 16, 32, 56):  # each part that somebody draws from
        counts = np.bincount(((hashes >> np.uint64(shift)) & np.uint64(0xFF)).astype(int), minlength=256)
        assert stats.chisquare(counts).pvalue > 1e-4
    # Neighbouring ids must not have related hashes: their ranks are uncorrelated.
    ranks = np.argsort(np.argsort(hashes))
    assert abs(np.corrcoef(ranks[:-1], ranks[1:])[0, 1]) < 0.01


@TRY
@given(IDS, SEEDS, PATHS, st.data())
def test_the_order_of_a_subset_is_the_subset_of_the_order(
    ids: np.ndarray, seed: int, path: tuple[int | str, ...], data: st.DataObject
) -> None:
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(ids), max_size=len(ids))), bool)
    whole = ids[shuffled(ids, seed, *path)]
    part = ids[keep][shuffled(ids[keep], seed, *path)]
    assert part.tolist() == [i for i in whole.tolist() if i in set(ids[keep].tolist())]
    rows = np.random.default_rng(0).permutation(len(ids))
    assert ids[rows][shuffled(ids[rows], seed, *path)].tolist() == whole.tolist()


def test_every_word_of_the_path_matters() -> None:
    ids = np.arange(50)
    paths: list[tuple[int | str, ...]] = [
        *[(word,) for word in ("a", "b", "ab", "ba", "order", "ties", "random", "init", "hold out")],
        *[("augment", epoch) for epoch in range(3)],
        *[("epoch", epoch) for epoch in range(3)],
        *[("a", "b"), ("b", "a"), (1, "a"), ("model", 1), ("model", 2)],
    ]
    for make in (
        lambda seed, *path: tuple(hash_ids(ids, seed, *path).tolist()),
        spawn_seed,
        lambda seed, *path: tuple(generator(seed, *path).integers(0, 2**62, 4).tolist()),
    ):
        made = [make(seed, *path) for seed in (0, 1) for path in paths]
        assert len(set(made)) == len(made)
        assert made == [make(seed, *path) for seed in (0, 1) for path in paths]


def test_recorded_values_have_not_moved() -> None:
    # Chosen ids of every run depend on these: changing them is a release note.
    assert spawn_seed(0, "init") == 7290039654019473914
    assert hash_ids([0, 1, 2], 0, "ties").tolist() == [13955570434479466448, 8566685702441753665, 6639669343511603536]
    assert shuffled(np.arange(8), 0, "order", 0).tolist() == [5, 2, 7, 1, 0, 6, 3, 4]


@TRY
@given(SEEDS, PATHS)
def test_spawned_seeds_fit_torch(seed: int, path: tuple[int | str, ...]) -> None:
    assert 0 <= spawn_seed(seed, *path) < 2**63


def test_zeros_at_the_end_of_a_path_are_nothing() -> None:
    # numpy's seeding pads with zeros. Nobody uses a path both bare and numbered for things that must differ.
    assert spawn_seed(3, "a", 0) == spawn_seed(3, "a")
    assert spawn_seed(3, 0, "a") != spawn_seed(3, "a")


@pytest.mark.parametrize("seed", [-1, 2**64, -(2**64), 0.5, "1", None])
def test_no_seed_is_taken_for_another(seed: Any) -> None:
    assert spawn_seed(2**64 - 1) != spawn_seed(0)
    for draw in (lambda: spawn_seed(seed), lambda: generator(seed, "x"), lambda: hash_ids([1], seed)):
        with pytest.raises(SettingError, match=r"seed=.*; give a whole number from 0 to 2\^64 - 1"):
            draw()


def test_uniform_numbers_belong_to_ids_and_are_never_0_or_1(monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.arange(10_000)
    values = uniform(ids, 3, "x")
    assert uniform(ids[::-1], 3, "x").tolist() == values[::-1].tolist()
    assert uniform(ids, 3, "y").tolist() != values.tolist()
    # Kolmogorov-Smirnov: above 2.2 / sqrt(n) once in 10,000.
    assert abs(np.sort(values) - (ids + 0.5) / len(ids)).max() < 2.2 / 100
    extremes = np.array([0, 2**64 - 1], np.uint64)
    monkeypatch.setattr("svp.chance.hash_ids", lambda *_: extremes)
    low, high = uniform([0, 1], 0)
    assert 0 < low < high < 1
