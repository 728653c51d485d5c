"""Examples compared with each other, in whole units: dense blocks that are computed as they are wanted, or sparse entries.

Sums of whole numbers are exact: no order of rows, size of blocks or number of threads changes one, and equals tie exactly.
"""

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from itertools import pairwise
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from svp.select.geometry import split
from svp.select.table import Floats, Ints

Units = NDArray[np.int32]
Nearly = NDArray[np.float32]
Places = Ints | slice
Csr = Any  # scipy.sparse.csr_array, which has no types
Blocks = Callable[[Places, Places], Floats]

# The largest similarity has 2^22 units: 2.4e-7 of it each, and 256 of them add up within int32.
BITS = 22
# Sizes of one block. They decide the speed, never the answer.
_ROWS = 256
_COLUMNS = 512
_ENTRIES = 1 << 16
# Where the nearest are looked for: entries of a block at most, and bytes for each of them.
_WIDEST, _BYTES_COMPARED = 1 << 23, 14


class Compared(Protocol):
    """m examples compared with each other: entry (v, s) says how well s stands for v, in units."""

    unit: float

    def columns(self, s: Ints) -> "DenseColumns | SparseColumns":
        """How well each of these stands for all."""

    def cross(self, s: Ints, c: Ints) -> Units:
        """(len(s), len(c)) the entries (s, c) plus the entries (c, s)."""

    def own(self) -> Units:
        """(m,) the entries (v, v)."""

    def nearest(self, k: int, memory: int) -> "Sparse":
        """The k highest entries of each row, the example itself always among them; of equals the earlier place.

        Takes 8 bytes for each entry, and about `memory`.
        """


class Rough(Protocol):
    """Entries of columns that are fast to have and nearly right: what bounds are made of.

    slack  units by which one may be wrong
    """

    slack: float

    def above(self, v: Places, low: Units) -> Callable[[Places], Nearly]:
        """From columns c to (len(c), len(v)) by how many units their entries in rows v are above low (len(v),)."""

    def exact(self, v: Ints, c: Ints) -> Units:
        """(len(v),) the entries at these pairs."""

    def at_most(self, low: Units) -> Floats:
        """(k,) for each column no less than the sum over all rows of max(x, low) - low."""


class Dense:
    """Compared in blocks that are computed, or read, when they are asked for.

    blocks  from columns s to a function (rows v, part of s) -> (len(v), len(part)) float64 in units, not yet rounded
    rough   from columns s to entries that take far less time than blocks, where there are such
    """

    def __init__(
        self,
        size: int,
        unit: float,
        blocks: Callable[[Ints], Blocks],
        symmetric: bool,
        rough: Callable[[Ints], Rough] | None = None,
    ) -> None:
        self.size = size
        self.unit = unit
        self.blocks = blocks
        self.symmetric = symmetric
        self.rough = rough

    def columns(self, s: Ints) -> "DenseColumns":
        whole = self.symmetric and np.array_equal(s, np.arange(self.size))
        rough = None if self.rough is None else partial(self.rough, s)
        return DenseColumns(self.size, len(s), self.blocks(s), mirrored=whole, rough=rough)

    def cross(self, s: Ints, c: Ints) -> Units:
        back = np.ascontiguousarray(self.columns(s).block(c, slice(None)).T)
        return 2 * back if self.symmetric else back + self.columns(c).block(s, slice(None))

    def own(self) -> Units:
        parts = [self.columns(v).block(v, slice(None)).diagonal() for v in split(np.arange(self.size), _ROWS)]
        return np.concatenate(parts or [np.zeros(0, np.int32)])

    def nearest(self, k: int, memory: int) -> "Sparse":
        columns = self.columns(np.arange(self.size))
        places, values = np.empty((self.size, k), np.int32), np.empty((self.size, k), np.int32)
        width = min(memory, compared_bytes(self.size)) // (_BYTES_COMPARED * max(1, self.size))
        for v in split(np.arange(self.size), max(1, width)):
            block = columns.block(v, slice(None))
            kept = _highest(block, v, k)
            places[v] = (np.flatnonzero(kept) % self.size).reshape(-1, k)
            values[v] = block[kept].reshape(-1, k)
        starts = np.arange(self.size + 1) * k
        return Sparse(by_rows(values.ravel(), places.ravel(), starts, (self.size, self.size)), self.unit)


class DenseColumns:
    """Columns that are computed, or read, block by block.

    mirrored  they are all columns of a symmetric matrix, in order
    rough     makes entries that take far less time, where there are such
    """

    def __init__(
        self, size: int, width: int, compute: Blocks, mirrored: bool, rough: Callable[[], Rough] | None
    ) -> None:
        self.size = size
        self.width = width
        self.mirrored = mirrored
        self.compute = compute
        self.rough = rough
        self.kept: Units | None = None

    def keep(self, memory: int) -> int:
        """Hold all entries, 4 bytes each, if they fit in `memory` bytes; returns the bytes this takes."""
        if 4 * self.size * self.width > memory:
            return 0
        kept = np.empty((self.size, self.width), np.int32)
        for v in self._rows():
            # Of a symmetric square the part right of the diagonal, which is written twice.
            for part in self._parts(v.start if self.mirrored else 0):
                kept[v, part] = block = self.block(v, part)
                if self.mirrored:
                    kept[part, v] = block.T
        self.kept = kept
        return kept.nbytes

    def block(self, v: Places, part: Places) -> Units:
        """(len(v), len(part)) entries, not to be written to."""
        if self.kept is not None:
            return self.kept[v, part] if isinstance(part, slice) else self.kept[v][:, part]
        values = self.compute(v, part)
        np.rint(values, out=values)
        return values.astype(np.int32)

    def column(self, c: int) -> Units:
        """(m,) one column."""
        return self.block(slice(0, self.size), slice(c, c + 1))[:, 0]

    def sums(
        self, low: Units | None = None, high: Units | None = None, v: Ints | None = None, c: Ints | None = None
    ) -> Ints:
        """For each column of c (default: all) the sum over rows v (default: all) of min(max(x, low), high) - low, or of x.

        low   (len(v),) 0 or more
        high  (len(v),) above low
        """
        v = np.arange(self.size) if v is None else v
        width = self.width if c is None else len(c)
        total = np.zeros(width, np.int64)

        for part in pieces(width, _COLUMNS):
            for own in pieces(len(v), _ROWS):
                block = self.block(v[own], part if c is None else c[part])
                if low is not None:
                    np.maximum(block, low[own, None], out=block)
                if high is not None:
                    np.minimum(block, high[own, None], out=block)
                total[part] += block.sum(axis=0, dtype=np.int32)  # 256 entries of 2^22 units at most: it fits
        return total if low is None else total - low.sum(dtype=np.int64)

    def highest(self) -> Units:
        """(m,) the highest entry of each row, at least 0."""
        best = np.zeros(self.size, np.int32)
        for v in self._rows():
            for part in self._parts():
                np.maximum(best[v], self.block(v, part).max(axis=1), out=best[v])
        return best

    def above(self, low: Units, limit: int) -> Csr | None:
        """The entries above low (m,), (m, k) int32, and nothing is held any more; None if there are more than `limit`."""
        found: list[tuple[Units, Units, Units]] = []
        for v in self._rows():
            for part in self._parts():
                block = self.block(v, part)
                row, column = np.divmod(at := np.flatnonzero(block > low[v, None]), block.shape[1])
                coordinates = (row + v.start).astype(np.int32), (column + part.start).astype(np.int32)
                found.append((*coordinates, block.ravel()[at] if self.kept is None else block[row, column]))
                if (limit := limit - len(at)) < 0:
                    return None
        self.kept = None
        rows, columns, values = (np.concatenate([part[i] for part in found]) for i in range(3))
        del found
        return csr((values, (rows, columns)), shape=(self.size, self.width))

    def _rows(self) -> Iterator[slice]:
        return (slice(start, min(start + _ROWS, self.size)) for start in range(0, self.size, _ROWS))

    def _parts(self, first: int = 0) -> Iterator[slice]:
        return (slice(start, min(start + _COLUMNS, self.width)) for start in range(first, self.width, _COLUMNS))


def compared_bytes(size: int) -> int:
    """What the blocks take in which the nearest of so many examples are looked for, where memory allows."""
    return _BYTES_COMPARED * min(_ROWS * size, _WIDEST)


def pieces(size: int, length: int) -> Iterator[slice]:
    return (slice(start, min(start + length, size)) for start in range(0, size, length))


def _highest(block: Units, v: Ints, k: int) -> NDArray[np.bool_]:
    """(r, m) the k highest of each row, the row's own place v always among them, of equals the first."""
    keys = block.copy()
    keys[np.arange(len(v)), v] = np.iinfo(np.int32).max
    level = np.partition(keys, keys.shape[1] - k, axis=1)[:, keys.shape[1] - k, None]
    kept = keys >= level
    for row in np.flatnonzero(kept.sum(axis=1) > k):
        equal = np.flatnonzero(keys[row] == level[row])
        kept[row, equal[k - int((keys[row] > level[row]).sum()) :]] = False
    return kept


class Sparse:
    """Compared by an (m, m) matrix of int32 units; what it does not hold is 0."""

    def __init__(self, matrix: Csr, unit: float) -> None:
        self.matrix = matrix
        self.unit = unit

    def columns(self, s: Ints) -> "SparseColumns":
        whole = np.array_equal(s, np.arange(self.matrix.shape[1]))
        return SparseColumns(self.matrix if whole else self.matrix[:, s])

    def cross(self, s: Ints, c: Ints) -> Units:
        return np.asarray(self.matrix[s][:, c].toarray() + self._turned[s][:, c].toarray())

    @cached_property
    def _turned(self) -> Csr:
        return self.matrix.T.tocsr()

    def own(self) -> Units:
        return np.asarray(self.matrix.diagonal())

    def nearest(self, k: int, memory: int) -> "Sparse":
        kept = np.zeros(self.matrix.nnz, bool)
        for part, row in stretches(self.matrix, min(_ENTRIES, memory // 64)):
            column, keys = self.matrix.indices[part], self.matrix.data[part].astype(np.int64)
            keys[row == column] = np.iinfo(np.int64).max
            order = np.lexsort((column, -keys, row))
            place = np.arange(part.start, part.stop) - self.matrix.indptr[row[order]]
            kept[part][order[place < k]] = True
        return Sparse(_only(self.matrix, kept), self.unit)


class SparseColumns:
    """Columns of a sparse matrix."""

    def __init__(self, matrix: Csr) -> None:
        self.matrix = matrix

    def sums(self) -> Ints:
        """(k,) the sum of each column."""
        total = np.zeros(self.matrix.shape[1], np.int64)
        for part in pieces(self.matrix.nnz, _ENTRIES):
            np.add.at(total, self.matrix.indices[part], self.matrix.data[part].astype(np.int64))
        return total

    def highest(self) -> Units:
        """(m,) the highest entry of each row, at least 0."""
        best = np.zeros(self.matrix.shape[0], np.int32)
        for part, row in stretches(self.matrix):
            np.maximum.at(best, row, self.matrix.data[part])
        return best

    def above(self, low: Units) -> Csr:
        """The entries above low (m,), (m, k) int32."""
        kept = np.empty(self.matrix.nnz, bool)
        for part, row in stretches(self.matrix):
            kept[part] = self.matrix.data[part] > low[row]
        return _only(self.matrix, kept)


def stretches(matrix: Csr, size: int = _ENTRIES) -> Iterator[tuple[slice, Ints]]:
    """The entries of whole rows, about so many together, and (k,) the row of each."""
    edges = np.searchsorted(matrix.indptr, np.arange(0, matrix.nnz + size, size).clip(max=matrix.nnz), side="left")
    edges[-1:] = matrix.shape[0]
    for first, last in pairwise(np.unique(edges).tolist()):
        starts = matrix.indptr[first : last + 1]
        yield slice(int(starts[0]), int(starts[-1])), np.repeat(np.arange(first, last), np.diff(starts))


def _only(matrix: Csr, kept: NDArray[np.bool_]) -> Csr:
    """The entries to keep, in their order."""
    starts = np.searchsorted(np.flatnonzero(kept), matrix.indptr)
    return by_rows(matrix.data[kept], matrix.indices[kept], starts, matrix.shape)


def by_rows(values: Units, columns: NDArray[np.integer], starts: NDArray[np.integer], shape: tuple[int, int]) -> Csr:
    """A sparse matrix of the entries of each row; 4 bytes for each place, which scipy allows for less than 2^31 entries."""
    places = np.int32 if len(values) <= np.iinfo(np.int32).max else np.int64
    return csr((values, columns.astype(places, copy=False), starts.astype(places, copy=False)), shape=shape)


def csr(*given: Any, **how: Any) -> Csr:
    """scipy's; loaded when the first is made, because it takes longer to load than all the rest."""
    from scipy import sparse

    return sparse.csr_array(*given, **how)
