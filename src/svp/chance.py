"""Where chance comes from: one run seed, and streams spawned from it by name.

Whatever is drawn *per example* is a hash of the example's id, never of its position. So shuffling the rows of a dataset (with
their ids) changes nothing, and a subset trained under the same seed meets its examples in the same order as the whole does:
two arms of an experiment are paired.
"""

import operator
import zlib
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import SettingError

Word = int | str

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def as_seed(value: Any) -> int:
    """A whole number of 64 bits; SettingError for any other, so that no two seeds draw the same."""
    try:
        seed = operator.index(value)
    except TypeError:
        seed = -1
    if not 0 <= seed < 2**64:
        raise SettingError(f"seed={value!r}; give a whole number from 0 to 2^64 - 1")
    return seed


def _words(seed: int, path: tuple[Word, ...]) -> list[int]:
    return [as_seed(seed), *(zlib.crc32(word.encode()) if isinstance(word, str) else word for word in path)]


def generator(seed: int, *path: Word) -> np.random.Generator:
    """The random stream of one stage, round or shard: `generator(0, "start")`, `generator(0, "augment", epoch)`.

    Zeros at the end of a path count for nothing (numpy's seeding pads with them): where ("x", i) is used, ("x",) is not.
    """
    return np.random.default_rng(np.random.SeedSequence(_words(seed, path)))


def spawn_seed(seed: int, *path: Word) -> int:
    """A 63-bit seed for libraries that take a number (torch, scikit-learn take it modulo their own range)."""
    return int(np.random.SeedSequence(_words(seed, path)).generate_state(1, np.uint64)[0] >> np.uint64(1))


def hash_ids(ids: ArrayLike, seed: int, *path: Word) -> NDArray[np.uint64]:
    """(n,) hashes of (n,) ids: SplitMix64 (Steele et al. 2014) keyed by seed and path; distinct ids never collide."""
    key = np.uint64(np.random.SeedSequence(_words(seed, path)).generate_state(1, np.uint64)[0])
    with np.errstate(over="ignore"):
        z = (np.asarray(ids, np.int64).astype(np.uint64) ^ key) + _GOLDEN
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return z ^ (z >> np.uint64(31))


def uniform(ids: ArrayLike, seed: int, *path: Word) -> NDArray[np.float64]:
    """(n,) numbers strictly between 0 and 1 that belong to the ids: the upper 52 bits of their hashes, and a half."""
    return ((hash_ids(ids, seed, *path) >> np.uint64(12)).astype(np.float64) + 0.5) * 2.0**-52


def tie_keys(ids: ArrayLike, seed: int) -> NDArray[np.int64]:
    """(n,) the keys by which equals go, lowest first."""
    return hash_ids(ids, seed, "ties").view(np.int64)


def shuffled(ids: ArrayLike, seed: int, *path: Word) -> NDArray[np.int64]:
    """Positions of `ids` in a random order; the order of a subset is the subset of the order."""
    return np.argsort(hash_ids(ids, seed, *path), kind="stable")
