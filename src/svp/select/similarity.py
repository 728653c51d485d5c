"""How alike the examples are: a matrix of the caller's, or one made of embeddings block by block.

Every similarity is a whole number of one unit, a power of two (see `compared`). Those of embeddings come from matrix products
of whole numbers that stay below 2^53, which float64 holds exactly: they depend neither on the shape of a product nor on the
library or the threads that compute it.
"""

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from svp.errors import DataError, SettingError, UnknownName
from svp.select.bounded import Single
from svp.select.compared import BITS, Blocks, Compared, Csr, Dense, Places, Rough, Sparse, by_rows, csr, pieces
from svp.select.options import is_whole
from svp.select.table import Floats, Ints

# A coordinate has 2^25 steps from 0 to 1, so that |x|^2 + |y|^2 + 2 |x y| stays below 2^53 squared steps, whatever is
# added first. Rounding to steps moves a cosine by about 2e-8, and by sqrt(d) 3e-8 at most.
_STEP_BITS = 25
_CHECKED = 1 << 20  # numbers of a matrix checked at a time
_ROUNDED = 1 << 16  # numbers of a sparse one rounded at a time


class Similarity:
    """How alike n examples are, as a method is given it; `among` compares those that take part.

    neighbors  each example keeps its similarity to so many of the most similar, itself one of them; the rest counts as
               0. None: all are kept

    What `neighbors` leaves out of a row is at most t(v), the least it keeps of others. So what facility location
    maximises over the kept, sum_v covered(v), is a lower bound of the sum over all, and too low by at most
    sum_v max(0, t(v) - covered(v)) for neighbors of 2 or more: nothing is lost of an example that is covered by t(v) already.
    """

    def __init__(self, source: "_Source", neighbors: int | None) -> None:
        self.source = source
        self.neighbors = neighbors
        self._last: tuple[str, Ints, Compared] | None = None

    @classmethod
    def given(cls, matrix: Any, ids: Ints, neighbors: int | None) -> Self:
        """Of an (n, n) matrix, dense (on disk too) or scipy-sparse, whose entry (i, j) says how well j stands for i.

        Any finite numbers, higher = more alike; they are rounded to 2^-22 of the power of two at or above the largest,
        so that what is below half of that counts as 0. It need not be symmetric. What a
        sparse matrix does not hold is 0. Raises DataError for another shape or type, and with the number of examples
        and the first ids for values that are not finite.
        """
        return cls(_Given(as_matrix(matrix), ids), neighbors)

    @classmethod
    def made(cls, embeddings: NDArray[Any], neighbors: int | None) -> Self:
        """Of (n, d) finite embeddings, compared by a kernel of KERNELS."""
        return cls(_Made(embeddings), neighbors)

    @property
    def negative(self) -> bool:
        """Whether no value is above 0, and not all are 0: of distances with a minus sign, say."""
        return self.source.negative

    def among(self, ground: Ints, kernel: str, memory: int) -> Compared:
        """The examples at these m positions compared with each other, by their places in `ground`.

        Of equally similar neighbours the earlier in `ground` is kept. The last answer is remembered. Cost of `neighbors`:
        m^2 d operations (the nearest are found exactly), 8 k m bytes that are kept, and up to `memory` while they are found.
        """
        if self._last is None or self._last[0] != kernel or not np.array_equal(self._last[1], ground):
            compared = self.source.among(ground, kernel)
            if self.neighbors is not None:
                compared = compared.nearest(min(self.neighbors, len(ground)), memory)
            self._last = (kernel, ground, compared)
        return self._last[2]


class _Source(Protocol):
    negative: bool

    def among(self, ground: Ints, kernel: str) -> Compared: ...


def as_matrix(matrix: Any) -> Any:
    """A matrix of numbers as it came, scipy's or numpy's; DataError for what is no square of numbers."""
    if not is_sparse(matrix):
        matrix = np.asarray(matrix)
    if len(matrix.shape) != 2 or matrix.shape[0] != matrix.shape[1]:
        raise DataError(f"similarity: shape {matrix.shape}; give (n, n), every example against every example")
    if matrix.dtype.kind not in "fiub":
        raise DataError(f"similarity: type {matrix.dtype} is not numbers; give floats or whole numbers")
    return matrix


def as_indexable(matrix: Any) -> Any:
    """The same, where rows can be taken from: not every kind of scipy's can."""
    matrix = as_matrix(matrix)
    return matrix.tocsr() if is_sparse(matrix) else matrix


def is_sparse(matrix: Any) -> bool:
    return hasattr(matrix, "tocsr")


def stored(matrix: Any, neighbors: int | None, n: int) -> int:
    """How many similarities of n examples are held; 0 where all are computed or read when they are asked for."""
    if neighbors is not None and (not is_whole(neighbors) or neighbors < 1):
        raise SettingError(
            f"neighbors={neighbors!r}; give a whole number of similar examples to keep, 1 or more (itself is one)"
        )
    if is_sparse(matrix):
        return int(matrix.nnz)
    return 0 if neighbors is None else n * min(neighbors, n)


class _Given:
    """A matrix of the caller's, left where it is; of a sparse one the entries in units, 4 bytes each and 4 or 8 for a place."""

    def __init__(self, matrix: Any, ids: Ints) -> None:
        self.matrix = _canonical(matrix) if is_sparse(matrix) else matrix
        highest, lowest = -math.inf, math.inf
        bad: list[Ints] = []
        for first, part in self._parts():
            values = part.data if is_sparse(part) else part
            if not values.size:
                continue
            high, low = float(values.max()), float(values.min())  # NaN where there is one
            if not math.isfinite(high) or not math.isfinite(low):
                row = np.repeat(np.arange(part.shape[0]), np.diff(part.indptr)) if is_sparse(part) else None
                where = ~np.isfinite(values)
                bad.append(first + (np.flatnonzero(where.any(axis=1)) if row is None else np.unique(row[where])))
            highest, lowest = max(highest, high), min(lowest, low)
        if bad:
            found = ids[np.concatenate(bad)]
            raise DataError(
                f"similarity: {len(found)} examples have NaN or infinite values, the first ids: {found[:3].tolist()}"
            )
        self.negative = highest <= 0 and lowest < 0
        self.unit = 2.0 ** (_exponent(max(highest, -lowest, 0.0)) - BITS)
        if is_sparse(self.matrix):
            self.matrix = self._in_units()

    def _in_units(self) -> Csr:
        units = np.empty(self.matrix.nnz, np.int32)
        for part in pieces(len(units), _ROUNDED):
            units[part] = np.rint(np.divide(self.matrix.data[part], self.unit, dtype=np.float64))
        return by_rows(units, self.matrix.indices, self.matrix.indptr, self.matrix.shape)

    def among(self, ground: Ints, kernel: str) -> Compared:
        if kernel != "cosine":
            raise SettingError(f"kernel={kernel!r} compares embeddings; leave it out where similarity= is given")
        if is_sparse(self.matrix):
            return Sparse(self.matrix[ground][:, ground], self.unit)

        def blocks(s: Ints) -> Blocks:
            columns = ground[s]
            return lambda v, part: np.divide(self.matrix[np.ix_(ground[v], columns[part])], self.unit, dtype=np.float64)

        return Dense(len(ground), self.unit, blocks, symmetric=False)

    def _parts(self) -> Iterator[tuple[int, Any]]:
        if is_sparse(self.matrix):
            return iter([(0, self.matrix)])
        n = self.matrix.shape[0]
        size = max(1, _CHECKED // max(1, n))
        return ((first, self.matrix[first : first + size]) for first in range(0, n, size))


def _canonical(matrix: Any) -> Csr:
    """The same by rows, each sorted and without an entry twice: the caller's own arrays where they are so already."""
    rows = csr(matrix)
    if not rows.has_canonical_format:
        rows = rows.copy()
        rows.sum_duplicates()
    return rows


class _Made:
    """Compares embeddings."""

    negative = False

    def __init__(self, embeddings: NDArray[Any]) -> None:
        self.embeddings = embeddings

    def among(self, ground: Ints, kernel: str) -> Compared:
        if kernel not in KERNELS:
            raise UnknownName("kernel", kernel, KERNELS)
        product = KERNELS[kernel](self.embeddings, ground)

        def blocks(s: Ints) -> Blocks:
            right = product.right(s)
            return lambda v, part: product.finish(product.left(v) @ right[part].T)

        def single(s: Ints) -> Rough:
            return Single(product.left, product.right, len(ground), s)

        return Dense(len(ground), product.unit, blocks, symmetric=True, rough=single if product.inner else None)


@dataclass(frozen=True)
class _Product:
    """A kernel as a matrix product: entry (v, s) is finish(left(v) @ right(s).T), in units.

    inner  nothing is done to the product, which is of rows no longer than 1
    """

    unit: float
    left: Callable[[Places], Floats]
    right: Callable[[Places], Floats]
    finish: Callable[[Floats], Floats] = lambda block: block
    inner: bool = False


def cosine(embeddings: NDArray[Any], ground: Ints) -> _Product:
    """x.y / (|x| |y|); a row of zeros is like nothing: 0."""
    steps = _rows(embeddings, ground)
    for part in _parts(len(steps)):
        rows = steps[part]
        rows *= 2.0 ** -_exponents(_peaks(rows))[:, None]
        norms = _norms(rows)
        rows *= 2.0**_STEP_BITS / np.where(norms, norms, 1.0)[:, None]
        np.rint(rows, out=rows)
    return _inner(steps, 2.0**-BITS)


def dot(embeddings: NDArray[Any], ground: Ints) -> _Product:
    """x.y."""
    steps, scale = _steps(embeddings, ground)
    if not 2.0**-500 < scale < 2.0**500:
        raise DataError(
            f"embeddings: the longest has a length of about {scale:g}; scale them to about 1 for kernel='dot'"
        )
    return _inner(steps, scale * scale * 2.0**-BITS)


def rbf(embeddings: NDArray[Any], ground: Ints) -> _Product:
    """exp(-|x - y|^2 / m), where m is the mean of |x - y|^2 over all pairs that take part, chosen already or to choose from."""
    steps, _ = _steps(embeddings, ground)
    # Whole numbers, so these sums are exact and know no order of rows; fsum rounds once.
    squares = np.concatenate([(steps[part] ** 2).sum(axis=1) for part in _parts(len(steps))] or [np.zeros(0)])
    n = max(1, len(steps))
    mean = 2 * (math.fsum(squares) / n - math.fsum((steps.sum(axis=0) / n) ** 2))
    rate = -1 / mean if mean > 0 else 0.0

    def left(v: Places) -> Floats:
        return np.column_stack([steps[v], squares[v], np.ones_like(squares[v])])

    def right(s: Places) -> Floats:
        return np.column_stack([-2 * steps[s], np.ones_like(squares[s]), squares[s]])

    def finish(block: Floats) -> Floats:
        block *= rate
        np.exp(block, out=block)
        block *= 2.0**BITS
        return block

    return _Product(2.0**-BITS, left, right, finish)


KERNELS: dict[str, Callable[[NDArray[Any], Ints], _Product]] = {"cosine": cosine, "dot": dot, "rbf": rbf}


def _inner(steps: Floats, unit: float) -> _Product:
    """Inner products of rows given in steps, in units: 2^BITS of them where two rows of length 1 agree."""
    down = 2.0 ** (BITS - 2 * _STEP_BITS)
    return _Product(unit, lambda v: steps[v] * down, lambda s: steps[s], inner=True)


def _steps(embeddings: NDArray[Any], ground: Ints) -> tuple[Floats, float]:
    """(m, d) rows in whole steps of the power of two next above the longest; and that power."""
    rows = _rows(embeddings, ground)
    scale = 1.0
    for length in (_peaks, _norms):  # first the largest number, so that no square overflows, then the longest row
        power = 2.0 ** _exponent(max((float(length(rows[part]).max()) for part in _parts(len(rows))), default=0.0))
        rows /= power
        scale *= power
    rows *= 2.0**_STEP_BITS
    return np.rint(rows, out=rows), scale


def _rows(embeddings: NDArray[Any], ground: Ints) -> Floats:
    """(m, d) float64, one row after the other in memory whatever the layout of the source: then rows add up alike."""
    rows = np.empty((len(ground), embeddings.shape[1]))
    for part in _parts(len(ground)):
        rows[part] = embeddings[ground[part]]
    return rows


def _peaks(rows: Floats) -> Floats:
    return np.asarray(np.abs(rows).max(axis=1))


def _norms(rows: Floats) -> Floats:
    return np.asarray(np.sqrt((rows * rows).sum(axis=1)))


def _parts(size: int) -> Iterator[slice]:
    return (slice(start, min(start + 1024, size)) for start in range(0, size, 1024))


def _exponent(value: float) -> int:
    """The least e with value <= 2^e, within what can be computed with; 0 for 0."""
    return int(_exponents(np.array([value]))[0])


def _exponents(values: Floats) -> NDArray[np.float64]:
    mantissa, exponent = np.frexp(values)
    return np.where(values > 0, np.clip(exponent - (mantissa == 0.5), -1000, 1000), 0).astype(np.float64)
