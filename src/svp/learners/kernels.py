"""What fastText does to words, compiled by numba: `svp.learners.fasttext` says what it is for. One thread, in one order.

A text is the 32-bit hashes of its words. Its features are rows of the input matrix: first those of its words, then those of its
word n-grams, `n_words` + hash modulo `buckets`; words that the vocabulary does not have are left out.
"""

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

# Numba's own arithmetic of uint64 and int64 would be that of floats: everything here is uint64.
_FNV_BASIS, _FNV_PRIME, _WORD = np.uint64(2166136261), np.uint64(16777619), np.uint64(0xFFFFFFFF)
_NGRAM = np.uint64(116049371)
_GOLDEN, _MIX_1, _MIX_2 = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_30, _27, _31, _40 = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(40)
EMPTY = -2  # what belongs to no word: the slot of a table is free

# What a byte is where it is no letter: between words, a word of its own, nothing, or perhaps the begin of "<br />".
GAP, ALONE, DROPPED, BREAK = 1, 2, 3, 4  # 0 and 1 are the most common
_32 = np.uint64(32)


@njit(cache=True, nogil=True)
def hash_words(
    text: NDArray[np.uint8], ends: NDArray[np.int64], codes: NDArray[np.uint64], end_of_text: int
) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """Words of texts that stand one after the other, text i up to ends[i]: their hashes, and how many each text has.

    codes  (256,) the 32 bits that a byte adds to a hash, and above these what it is, 0 for a letter
    The hash is FNV-1a of 32 bits, bytes taken as signed, as fastText's is. Every text ends with the word `end_of_text`.
    """
    words = np.empty(len(text) + len(ends) + 1, np.int32)
    counts = np.empty(len(ends), np.int64)
    n, at = 0, 0
    for i in range(len(ends)):
        # inside: 1 behind a letter. Gaps come as often as words do, and no processor foresees them: there is no branch for them.
        first, end, h, inside = n, ends[i], _FNV_BASIS, 0
        while at < end:
            code = codes[text[at]]
            at += 1
            kind: Any = np.int64(code >> _32)
            if kind == BREAK:
                is_break = at + 5 <= end and _is_break(text, at - 1)
                at, kind = (at + 5, GAP) if is_break else (at, 0)
            if kind <= GAP:
                words[n] = np.int32(h)
                n += kind & inside
                h, inside = _FNV_BASIS if kind else _fnv(h, code), 1 - kind
            elif kind == ALONE:
                words[n] = np.int32(h)
                n += inside
                words[n] = np.int32(_fnv(_FNV_BASIS, code))
                n, h, inside = n + 1, _FNV_BASIS, 0
        words[n] = np.int32(h)
        n += inside
        words[n] = end_of_text
        n += 1
        counts[i] = n - first
    return words[:n].copy(), counts


@njit(inline="always")
def _fnv(h: Any, code: Any) -> Any:
    return ((h ^ (code & _WORD)) * _FNV_PRIME) & _WORD


@njit(inline="always")
def _is_break(text: NDArray[np.uint8], at: int) -> Any:
    return (
        (text[at + 1] | 32) == 98
        and (text[at + 2] | 32) == 114
        and text[at + 3] == 32
        and text[at + 4] == 47
        and text[at + 5] == 62
    )


# --- the vocabulary: a table of (slots, 2) int32, word and what belongs to it, found by the lowest bits of the word


@njit(inline="always")
def _slot(table: NDArray[np.int32], word: Any) -> Any:
    """Where the word stands, or the empty slot where it would."""
    slot = np.int64(word) & (len(table) - 1)
    while table[slot, 1] != EMPTY and table[slot, 0] != word:
        slot = (slot + 1) & (len(table) - 1)
    return slot


@njit(cache=True, nogil=True)
def count_words(
    table: NDArray[np.int32], values: NDArray[np.int32], offsets: NDArray[np.int64], positions: NDArray[np.int64]
) -> int:
    """Count the words of these texts into the table, which must have room; returns how many are new to it."""
    n_new = 0
    for position in positions:
        for at in range(offsets[position], offsets[position + 1]):
            slot = _slot(table, values[at])
            if table[slot, 1] == EMPTY:
                table[slot, 0], table[slot, 1] = values[at], 0
                n_new += 1
            table[slot, 1] += 1
    return n_new


@njit(cache=True, nogil=True)
def fill_table(table: NDArray[np.int32], words: NDArray[np.int32], belonging: NDArray[np.int32]) -> None:
    """Put distinct words, with what belongs to each, into the table, which must have room."""
    for i in range(len(words)):
        slot = _slot(table, words[i])
        table[slot, 0], table[slot, 1] = words[i], belonging[i]


# --- features, and the model


@njit(inline="always")
def _features(
    features: NDArray[np.int64],
    words: NDArray[np.int32],
    table: NDArray[np.int32],
    n_words: int,
    buckets: Any,
    ngrams: int,
) -> int:
    """Write the rows of a text, return how many."""
    n = 0
    for i in range(len(words)):
        row = table[_slot(table, words[i]), 1]
        if row >= 0:
            features[n] = row
            n += 1
    return _ngrams(features, n, words, n_words, buckets, ngrams)


@njit(inline="always")
def _ngrams(
    features: NDArray[np.int64], n: int, words: NDArray[np.int32], first: int, buckets: Any, ngrams: int
) -> int:
    """Write, behind n others, `first` + the bucket of each n-gram of 2 words and more; return how many there are then."""
    for i in range(len(words)):
        h = np.uint64(np.int64(words[i]))
        for j in range(i + 1, min(i + ngrams, len(words))):
            h = h * _NGRAM + np.uint64(np.int64(words[j]))
            features[n] = first + np.int64(h % buckets)
            n += 1
    return n


@njit(inline="always")
def _hidden(hidden: NDArray[np.float32], features: NDArray[np.int64], n: int, rows: NDArray[np.float32]) -> None:
    """The average of the rows; zeros of none. Column by column: what waits for memory is then no chain of additions."""
    for d in range(len(hidden)):
        total = np.float32(0)
        for i in range(n):
            total += rows[features[i], d]
        hidden[d] = total / np.float32(max(n, 1))


@njit(inline="always")
def _logits(logits: NDArray[np.float32], hidden: NDArray[np.float32], output: NDArray[np.float32]) -> None:
    for c in range(len(logits)):
        total = np.float32(0)
        for d in range(len(hidden)):
            total += output[c, d] * hidden[d]
        logits[c] = total


@njit(inline="always")
def _softmax(probs: NDArray[np.float32], logits: NDArray[np.float32]) -> Any:
    """Fills probs; returns the logarithm of the sum of the exponentials."""
    highest = logits[0]
    for c in range(1, len(logits)):
        highest = max(highest, logits[c])
    total = np.float32(0)
    for c in range(len(logits)):
        probs[c] = np.exp(logits[c] - highest)
        total += probs[c]
    for c in range(len(logits)):
        probs[c] /= total
    return highest + np.log(total)


@njit(cache=True, nogil=True)
def draw_rows(rows: NDArray[np.float32], keys: NDArray[np.uint64], seed: Any) -> None:
    """Initial rows: uniform from -1/d to 1/d, each number a hash (SplitMix64) of seed, key of the row, and column."""
    scale = np.float32(2.0**-23 / rows.shape[1])
    for i in range(len(rows)):
        z = keys[i] ^ seed
        for d in range(rows.shape[1]):
            z += _GOLDEN
            bits = (z ^ (z >> _30)) * _MIX_1
            bits = (bits ^ (bits >> _27)) * _MIX_2
            bits ^= bits >> _31
            rows[i, d] = np.float32(np.int64(bits >> _40) - 8388608) * scale  # 24 bits


@njit(cache=True, nogil=True)
def mark_buckets(
    seen: NDArray[np.bool_],
    values: NDArray[np.int32],
    offsets: NDArray[np.int64],
    positions: NDArray[np.int64],
    ngrams: int,
    longest: int,
) -> None:
    """Note which buckets the n-grams of these texts fall into."""
    features = np.empty(longest * ngrams, np.int64)
    for position in positions:
        words = values[offsets[position] : offsets[position + 1]]
        for i in range(_ngrams(features, 0, words, 0, np.uint64(len(seen)), ngrams)):
            seen[features[i]] = True


@njit(cache=True, nogil=True)
def train(
    rows: NDArray[np.float32],
    output: NDArray[np.float32],
    values: NDArray[np.int32],
    offsets: NDArray[np.int64],
    positions: NDArray[np.int64],
    labels: NDArray[np.int64],
    table: NDArray[np.int32],
    n_words: int,
    ngrams: int,
    lr: float,
    words_before: int,
    words_in_all: int,
    longest: int,
    seen: NDArray[np.float32],
) -> int:
    """One step of SGD a text, in this order, as fastText takes it; the rate falls to 0 in a straight line, word by word.

    seen  (5, m) filled with the signals of each text, of the forward before its step, in the order of `signals.KINDS`
    Returns how many words there have been, with those before.
    """
    dim, n_classes = rows.shape[1], len(output)
    features = np.empty(longest * ngrams, np.int64)
    hidden, gradient = np.empty(dim, np.float32), np.empty(dim, np.float32)
    logits, probs = np.empty(n_classes, np.float32), np.empty(n_classes, np.float32)
    buckets = np.uint64(len(rows) - n_words)
    for i in range(len(positions)):
        words = values[offsets[positions[i]] : offsets[positions[i] + 1]]
        label = labels[i]
        n = _features(features, words, table, n_words, buckets, ngrams)
        _hidden(hidden, features, n, rows)
        _logits(logits, hidden, output)
        log_total = _softmax(probs, logits)
        other, squares = -np.float32(np.inf), np.float32(0)
        for c in range(n_classes):
            if c == label:
                squares += (1 - probs[c]) ** 2
            else:
                squares += probs[c] ** 2
                other = max(other, logits[c])
        margin = logits[label] - other
        seen[0, i] = margin > 0
        seen[1, i] = log_total - logits[label]
        seen[2, i] = probs[label]
        seen[3, i] = margin
        seen[4, i] = np.sqrt(squares)
        rate = np.float32(lr * (1.0 - words_before / words_in_all))
        words_before += len(words)
        if n == 0:
            continue
        gradient[:] = 0
        for c in range(n_classes):
            alpha = rate * ((np.float32(1) if c == label else np.float32(0)) - probs[c])
            for d in range(dim):
                gradient[d] += alpha * output[c, d]
                output[c, d] += alpha * hidden[d]
        for d in range(dim):
            gradient[d] /= np.float32(n)
        for k in range(n):
            row = features[k]
            for d in range(dim):
                rows[row, d] += gradient[d]
    return words_before


@njit(cache=True, nogil=True)
def project(projected: NDArray[np.float32], rows: NDArray[np.float32], output: NDArray[np.float32]) -> None:
    """Fill (r, c) with what each row adds to the logits."""
    for i in range(len(rows)):
        _logits(projected[i], rows[i], output)


@njit(cache=True, nogil=True)
def score(
    rows: NDArray[np.float32],
    output: NDArray[np.float32],
    values: NDArray[np.int32],
    offsets: NDArray[np.int64],
    positions: NDArray[np.int64],
    table: NDArray[np.int32],
    n_words: int,
    ngrams: int,
    longest: int,
    probs: NDArray[np.float32],
    hidden: NDArray[np.float32],
) -> None:
    """Fill (m, c) probabilities and (m, d) averaged rows of these texts."""
    features = np.empty(longest * ngrams, np.int64)
    logits = np.empty(len(output), np.float32)
    buckets = np.uint64(len(rows) - n_words)
    for i in range(len(positions)):
        words = values[offsets[positions[i]] : offsets[positions[i] + 1]]
        n = _features(features, words, table, n_words, buckets, ngrams)
        _hidden(hidden[i], features, n, rows)
        _logits(logits, hidden[i], output)
        _softmax(probs[i], logits)
