"""Texts as characters, one number each, as character-level nets take them (Zhang et al. 2015; Conneau et al. 2017).

67 characters are known: a-z (capitals are read as these), 0-9, 30 punctuation marks and the space. Numbers: 0 behind the end of a
text, 1 for any other character, 2 and up for those known.
"""

import numpy as np
from numpy.typing import NDArray

from svp.data.base import Dataset
from svp.learners.encoded import Encoded, encoded

ALPHABET = "abcdefghijklmnopqrstuvwxyz0123456789-,;.!?:'\"/|_#$%^&*~`+=<>()[]{} "
N_CHARACTERS = len(ALPHABET) + 2
LENGTH = 1014  # characters of a text that are looked at
STEP = 64
HOW = f"characters-1-{LENGTH}"  # name of this way to encode: another number where it gives others

_UNKNOWN, _INSIDE = 1, 255
_NUMBERS = np.full(256, _UNKNOWN, np.uint8)
_NUMBERS[list(ALPHABET.encode())] = np.arange(len(ALPHABET)) + 2
_NUMBERS[ord("A") : ord("Z") + 1] = _NUMBERS[ord("a") : ord("z") + 1]
_NUMBERS[0x80:0xC0] = _INSIDE  # a byte that goes on with a character of UTF-8


def characters_of(dataset: Dataset) -> Encoded:
    """The first LENGTH characters of every text as numbers (uint8), from the cache. Time: a second or two for 100 MB."""
    return encoded(dataset, HOW, _encode, np.uint8)


def widths_of(lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """To which length texts of these lengths may be cut: one of 16, enough for three halvings and what is kept after them."""
    return np.clip(-(-lengths // STEP) * STEP, STEP, LENGTH)


def _encode(text: NDArray[np.uint8], ends: NDArray[np.int64]) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    numbers = _NUMBERS[text]
    kept = numbers != _INSIDE  # bytes with which a character begins
    n_bytes = np.diff(ends, prepend=0)
    for i in np.flatnonzero(n_bytes > LENGTH):
        inside = kept[ends[i] - n_bytes[i] : ends[i]]
        inside[np.flatnonzero(inside)[LENGTH:]] = False
    if kept.all():
        return numbers, n_bytes
    left_out = np.searchsorted(np.flatnonzero(~kept), ends)  # up to the end of each text
    return numbers[kept], n_bytes - np.diff(left_out, prepend=0)
