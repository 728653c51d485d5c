"""Bounds of sums over columns: from nearly right entries, which take far less time than exact ones.

Bounds say which sums need not be known. Those that decide are added up exactly (see `compared`), so that neither blocks nor
threads nor the rounding here can change a choice.
"""

from collections.abc import Callable

import numpy as np

from svp.machine import each
from svp.select.compared import BITS, Csr, DenseColumns, Nearly, Places, Rough, Units, csr, pieces
from svp.select.table import Floats, Ints

# Sizes of one block: in smaller ones threads wait for each other more than they work. They decide the speed, never the answer.
_ROWS = 1024
_COLUMNS = 1024
_BYTES = 8  # for each entry of a block, with what is found in it
_TILES = 4  # for each thread, if there is to be more than one


class Bounded:
    """Columns, and what is known of their sums where adding up takes long.

    memory  bytes for blocks: as many threads as there is room for
    """

    def __init__(self, columns: DenseColumns, rough: Rough, memory: int) -> None:
        self.columns = columns
        self.rough = rough
        self.n_threads = memory // (_BYTES * _ROWS * _COLUMNS)

    def between(self, c: Ints, v: Ints, low: Units, high: Units | None = None) -> tuple[Floats, Floats]:
        """For each column of c about the sum over rows v of min(max(x, low), high) - low, and how wrong that may be."""
        room = None if high is None else (high - low).astype(np.float32)
        rows = [(own, self.rough.above(v[own], low[own])) for own in pieces(len(v), _ROWS)]

        def add(tile: tuple[slice, tuple[slice, Callable[[Places], Nearly]]]) -> Nearly:
            part, (own, above) = tile
            over = above(c[part])
            np.maximum(over, np.float32(0), out=over)
            if room is not None:
                np.minimum(over, room[own], out=over)
            return np.asarray(over @ np.ones(over.shape[1], np.float32))

        total = np.zeros(len(c))
        tiles = [(part, own) for part in pieces(len(c), _COLUMNS) for own in rows]
        for (part, _), added in zip(tiles, each(add, tiles, min(self.n_threads, len(tiles) // _TILES)), strict=True):
            total[part] += added
        # Adding up _ROWS numbers costs as many roundings at most, in any order; 1 is far above those in float64.
        return total, self.rough.slack * len(v) + _ROWS * 2.0**-23 * total + 1

    def above(self, low: Units, limit: int) -> Csr | None:
        """The entries above low (m,), (m, k) int32; None if there are more than `limit`."""

        def collect(tile: tuple[slice, slice]) -> tuple[Units, Units, Units]:
            own, part = tile
            over = self.rough.above(own, low[own])(part)
            c, v = np.divmod(np.flatnonzero(over >= 1 - self.rough.slack), over.shape[1])
            v += own.start
            c += part.start
            values = self.rough.exact(v, c)
            sure = values > low[v]
            return v[sure].astype(np.int32), c[sure].astype(np.int32), values[sure]

        shape = len(low), self.columns.width
        found = []
        tiles = [(own, part) for own in pieces(shape[0], _ROWS) for part in pieces(shape[1], _COLUMNS)]
        for entries in each(collect, tiles, min(self.n_threads, len(tiles) // _TILES)):
            found.append(entries)
            if (limit := limit - len(entries[0])) < 0:
                return None
        rows, columns, values = (np.concatenate([part[i] for part in found]) for i in range(3))
        del found
        return csr((values, (rows, columns)), shape=shape)


class Single:
    """Inner products in float32.

    left   (m, d) float32 rows of all examples
    right  (k, d + 1) float32 rows of the columns, and -1: what entries are compared with is taken off within the product
    slack  rounding both factors, d + 1 products and their sum costs (d + 4) 2^-24 of the sum of absolute products, in any
           order; that is at most 2^23 units: 2^22 of two rows no longer than 1, and 2^22 of what is taken off. Half a
           unit more for the rounding of the entry itself, and another half for lengths that are rounded, too
    """

    def __init__(self, left: Callable[[Places], Floats], right: Callable[[Places], Floats], size: int, s: Ints) -> None:
        self.rows = left
        self.columns = right
        self.s = s
        d = right(s[:0]).shape[1]
        self.left = np.empty((size, d), np.float32)
        for v in pieces(size, _ROWS):
            self.left[v] = left(v)
        self.right = np.full((len(s), d + 1), -1, np.float32)
        for part in pieces(len(s), _ROWS):
            self.right[part, :-1] = right(s[part])
        self.slack = (d + 4) * 2.0 ** (BITS - 23) + 1

    def above(self, v: Places, low: Units) -> Callable[[Places], Nearly]:
        rows = np.column_stack([self.left[v], low.astype(np.float32)]).T
        return lambda c: np.asarray(self.right[c] @ rows)

    def exact(self, v: Ints, c: Ints) -> Units:
        values = np.empty(len(v))
        for part in pieces(len(v), _ROWS):
            np.einsum("ij,ij->i", self.rows(v[part]), self.columns(self.s[c[part]]), out=values[part])
        return np.rint(values).astype(np.int32)

    def at_most(self, low: Units) -> Floats:
        """Of max(z, 0) = (z + |z|) / 2, where by Cauchy the sum of |z| is at most the root of m times the sum of z^2.

        Both sums follow from the sums of the rows and of their products with each other: (m + k) d^2 operations.
        """
        (m, d), k = self.left.shape, len(self.s)
        total, squares, against = np.zeros(d), np.zeros((d, d)), np.zeros(d)
        for v in pieces(m, _ROWS):
            rows = self.rows(v)
            total += rows.sum(axis=0)
            squares += rows.T @ rows
            against += low[v] @ rows
        own, own_squares = float(low.sum(dtype=np.int64)), float((low.astype(np.float64) ** 2).sum())
        bounds = np.empty(k)
        for part in pieces(k, _ROWS):
            columns = self.columns(self.s[part])
            first = columns @ total - own
            second = ((columns @ squares) * columns).sum(axis=1) - 2 * (columns @ against) + own_squares
            bounds[part] = (first + np.sqrt(np.maximum(m * second, first * first))) / 2
        # Entries are rounded to units; and these sums, which may be far larger than what is left of them, to 1e-5 of all.
        return bounds + m * (1 + 2.0**BITS * 1e-5)
