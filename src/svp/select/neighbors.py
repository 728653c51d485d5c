"""Exact nearest neighbours and pairs within a radius, Euclidean, block by block.

Equally near ones go by their place in `base`: a caller who lists `base` in an order that does not depend on the rows (the
candidates of a method come so) gets an answer that does not either. Blocks, threads and memory decide the speed alone.
"""

import math
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from svp.select.budget import DEFAULT_MEMORY
from svp.select.geometry import Factors, Space, split, squared
from svp.select.table import Floats, Ints

# The most rows and columns of one matrix product, and the columns of the first of a row of them. They decide the speed.
_ROWS = 1024
_COLUMNS = 8192
_FIRST = 1024
_PAIR_NUMBERS = 1 << 20


def nearest(
    embeddings: NDArray[np.generic], queries: Ints, base: Ints, k: int, *, memory: int = DEFAULT_MEMORY
) -> tuple[Ints, Floats]:
    """The k nearest of `base` to each of `queries`, itself excepted.

    embeddings  (n, d) one row per example, finite
    queries     (q,) positions
    base        (b,) distinct positions; of equally near ones the earlier in this list is nearer
    returns     (q, k) positions, the nearest first, and (q, k) distances; -1 and infinity where base has fewer than k others
    cost        time: q b d operations, nearly all of them in matrix products, and about q k log(b) single distances; brute
                force where very many distances are equal, and not 0. Memory: 16 q k bytes for the answer, and `memory`
    """
    pos, distances = np.full((len(queries), k), -1), np.full((len(queries), k), np.inf)
    if k and len(base):
        for part, places, lengths in _parts(embeddings, queries, base, k, memory):
            pos[part], distances[part] = np.where(places < 0, -1, base[places]), lengths
    return pos, distances


def mean_distances(
    embeddings: NDArray[np.generic], queries: Ints, base: Ints, k: int, *, memory: int = DEFAULT_MEMORY
) -> Floats:
    """(q,) mean distance to the k `nearest` of `base`, of which there are so many. Memory: 8 q bytes, and `memory`."""
    mean = np.empty(len(queries))
    for part, _, lengths in _parts(embeddings, queries, base, k, memory):
        mean[part] = lengths.mean(axis=1)
    return mean


def _parts(
    embeddings: NDArray[np.generic], queries: Ints, base: Ints, k: int, memory: int
) -> Iterator[tuple[Ints, Ints, Floats]]:
    """Places in queries, and of each its k nearest: (part, k) places in base and distances."""
    space = Space(embeddings, queries, base)
    others = Columns(space, lambda places: space.rows(base[places]), len(base), memory)
    for part in split(np.arange(len(queries)), others.n_rows):
        places, squares = search(space, space.rows(queries[part]), others, k, own=(queries[part], base))
        yield part, places, np.sqrt(squares) / space.scale


def within(
    embeddings: NDArray[np.generic], queries: Ints, base: Ints, radius: float, *, memory: int = DEFAULT_MEMORY
) -> Iterator[tuple[slice, slice, NDArray[np.bool_]]]:
    """Which of `base` are no farther than `radius` from which of `queries`, tile by tile; each from itself is 0.

    yields  places in queries, places in base, and the (rows, columns) mask of them: `np.argwhere(mask)` are the pairs. The
            tiles come row by row and cover all pairs once
    cost    time: q b d operations in matrix products, and a single distance for each pair within rounding of the radius.
            Memory: `memory`
    A pair is in where the distance that `nearest` reports is at most the radius.
    """
    space = Space(embeddings, queries, base)
    others = Columns(space, lambda places: space.rows(base[places]), len(base), memory)
    yield from tiles_within(space, queries, others, radius)


def tiles_within(
    space: Space, queries: Ints, others: "Columns", radius: float
) -> Iterator[tuple[slice, slice, NDArray[np.bool_]]]:
    """`within` for one who asks again and again of the same others: they are prepared once."""
    for first in range(0, len(queries), others.n_rows):
        rows = space.rows(queries[first : first + others.n_rows])
        left = space.left(rows)
        for block in others.blocks():
            mask = _within(space, rows, left, others, block, radius)
            yield slice(first, first + len(rows)), slice(block.start, block.stop), mask


class Columns:
    """Points that others are compared with: float64 rows when asked, float32 factors in blocks, kept where they fit.

    rows     (k, d) float64 rows of the points at these places, scaled as those of the space are
    n        how many points
    memory   bytes for everything: half for the factors, half for what is done with one block of them
    n_rows   how many rows to compare with them at a time
    """

    def __init__(self, space: Space, rows: Callable[[Ints], Floats], n: int, memory: int) -> None:
        self.rows = rows
        self.n = n
        d = len(space.mean)
        # Tiles stay wider than high where memory is short: whoever goes through them row by row meets fewer.
        self.n_rows = int(np.clip(min(memory // (128 * (d + 8)), math.isqrt(memory // 512)), 1, _ROWS))
        # In the worst case every pair of a tile is looked at: its mask, its numbers, its distance, and their order.
        self.width = int(np.clip(memory // (128 * self.n_rows), 1, _COLUMNS))
        self.n_numbers = max(d, min(_PAIR_NUMBERS, memory // 64))

        def right(start: int, stop: int) -> Factors:
            out = np.empty((stop - start, d + 2), np.float32)
            for places in split(np.arange(start, stop), self.n_rows):
                out[places - start] = space.right(rows(places))
            return out

        self._right = cache(right) if 4 * n * (d + 2) <= memory // 2 else right

    def right(self, block: range) -> Factors:
        """(k, d + 2) right factors of the points of a block."""
        return self._right(block.start, block.stop)

    def blocks(self, first: int | None = None) -> Iterator[range]:
        """Places, in order; from `first` on each block is as large as all before it together, while that fits."""
        start, size = 0, self.width if first is None else min(first, self.width)
        while start < self.n:
            yield range(start, min(start + size, self.n))
            start += size
            size = min(max(start, size), self.width)

    def squared(self, rows: Floats, row: Ints, place: Ints) -> Floats:
        """(k,) squared distances of pairs: rows[row] and the point at each place."""
        out = np.empty(len(row))
        for pairs in split(np.arange(len(row)), self.n_numbers // rows.shape[1]):
            out[pairs] = squared(rows[row[pairs]], self.rows(place[pairs]))
        return out


def search(
    space: Space,
    rows: Floats,
    others: Columns,
    k: int,
    *,
    own: tuple[Ints, Ints] | None = None,
    left: Factors | None = None,
) -> tuple[Ints, Floats]:
    """(q, k) places in `others`, and (q, k) squared distances, of the nearest to each of (q, d) rows; -1, infinity: none.

    own   names of the rows and of the others: who has the same name is no neighbour
    left  (q, d + 2) left factors of the rows, where they are at hand
    """
    left = space.left(rows) if left is None else left
    places, best = np.full((len(rows), k), -1), np.full((len(rows), k), np.inf)
    for block in others.blocks(max(_FIRST, 2 * k)):
        right = others.right(block)
        bounds = left @ right.T
        last = best[:, -1]
        limit = np.where(last > 0, last, -np.inf)  # of equally near ones the earlier is there already
        if np.isinf(last).any():
            limit = np.minimum(limit, _ceiling(space, bounds, left, right, k + (own is not None)))
        row, place = np.nonzero(bounds <= _up(limit)[:, None])
        place += block.start
        if own is not None:
            other = own[0][row] != own[1][place]
            row, place = row[other], place[other]
        exact = others.squared(rows, row, place)
        better = exact < last[row]
        _merge(places, best, row[better], place[better], exact[better])
    return places, best


def _ceiling(space: Space, bounds: Factors, left: Factors, right: Factors, k: int) -> Floats:
    """(q,) what the k-th nearest of a block is no farther than, squared: any k of it will do, those that look nearest best.

    A lower bound is at most 2 slack (|x|^2 + |c|^2) under its value; 4 covers that the squares at hand are lowered and
    rounded themselves.
    """
    if bounds.shape[1] < k:
        return np.full(len(bounds), np.inf)
    likely = bounds.argmin(axis=1)[:, None] if k == 1 else np.argpartition(bounds, k - 1, axis=1)[:, :k]
    squares = left[:, -2:-1].astype(np.float64) + right[likely, -1]
    highest: Floats = (np.take_along_axis(bounds, likely, axis=1) + 4 * space.slack * squares + 2.0**-96).max(axis=1)
    return highest


def _merge(places: Ints, best: Floats, row: Ints, place: Ints, exact: Floats) -> None:
    """Let later places in where they are nearer than what is there."""
    touched = np.unique(row)
    k = best.shape[1]
    # Those that are there come first and the sort is stable: among equals the earlier place stays ahead.
    rows = np.concatenate([np.repeat(touched, k), row])
    values = np.concatenate([best[touched].ravel(), exact])
    names = np.concatenate([places[touched].ravel(), place])
    order = np.lexsort((values, rows))
    starts = np.searchsorted(rows[order], touched)
    keep = order[starts[:, None] + np.arange(k)]
    places[touched], best[touched] = names[keep], values[keep]


def _within(
    space: Space, rows: Floats, left: Factors, others: Columns, block: range, radius: float
) -> NDArray[np.bool_]:
    """(q, c) whether each of a block is within the radius of each row."""
    right = others.right(block)
    bounds = left @ right.T
    limit = (radius * space.scale) * (radius * space.scale)
    mask = bounds <= _up(np.array(limit * (1 + 2.0**-40)))
    # What is this much below is in for sure (see `_ceiling`): so many single distances less.
    squares = left[:, -2].astype(np.float64) + float(right[:, -1].max())
    sure = limit * (1 - 2.0**-40) - 4 * space.slack * np.maximum(squares, 0) - 2.0**-96
    row, column = np.nonzero(mask & (bounds >= -_up(-sure)[:, None]))
    exact = others.squared(rows, row, column + block.start)
    mask[row, column] = np.sqrt(exact) / space.scale <= radius
    return mask


def _up(values: Floats) -> Factors:
    """The values in float32, none of them lower."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))
