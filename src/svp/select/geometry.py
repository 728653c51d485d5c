"""Distances, by the two formulas that every method of distances shares.

What is nearer is decided by one float64 formula, `squared`. Matrix products in float32 only say which distances need not be
computed: each gives a lower bound of the formula's value, from which the rounding has been taken off. So blocks, threads and
memory decide the speed, never the answer.
"""

import numpy as np
from numpy.typing import NDArray

from svp.select.table import Floats, Ints

# Rows added up together for the mean: a constant, since it decides the last bit of the sum.
BLOCK = 1024

Factors = NDArray[np.float32]


class Space:
    """The points as the two formulas want them: exactly scaled float64 rows, and centred float32 rows.

    scale   a power of two that brings every coordinate below 1, so that squares neither overflow nor vanish
    mean    (d,) about the mean of the points; subtracted before the matrix products, where it lowers the rounding. It
            is summed over pieces of a fixed size in the order given, so that no other setting can change its last bit
    slack   relative rounding of a matrix product of centred rows, as a share of |x|^2 + |c|^2: rounding both rows to
            float32 costs 2 eps, a dot product of d + 2 terms (d + 2) eps whatever the order of its additions, the
            squared norms half an eps
    basis   (d, k) orthonormal directions that the matrix products look along, or None for all coordinates: rows are no
            farther apart along some directions, so the products are narrower and their lower bounds lower. Set it
            before the first product
    """

    def __init__(self, embeddings: NDArray[np.generic], already: Ints, candidates: Ints) -> None:
        self.embeddings = embeddings
        self.scale = scale_of(embeddings, already, candidates)
        self.mean = mean_row(embeddings, candidates, self.scale)
        self.slack = (embeddings.shape[1] + 8) * float(np.finfo(np.float32).eps)
        self.basis: Floats | None = None

    @property
    def width(self) -> int:
        """Columns of a factor."""
        return 2 + (len(self.mean) if self.basis is None else self.basis.shape[1])

    def rows(self, pos: Ints) -> Floats:
        """(k, d) float64 rows at these positions."""
        return float_rows(self.embeddings, pos, self.scale)

    def left(self, rows: Floats) -> Factors:
        """(k, width) float32 such that left(x) @ right(c).T is a lower bound of squared(x, c)."""
        centred = rows - self.mean
        along = centred if self.basis is None else centred @ self.basis
        # |x - c|^2 = |x|^2 + |c|^2 - 2 x.c, each square lowered by the slack of the whole row, which covers that the
        # directions were multiplied in float64 as well; 2^-100 stands above all that can underflow.
        squares = np.einsum("ij,ij->i", along, along) - self.slack * np.einsum("ij,ij->i", centred, centred) - 2.0**-100
        out = np.empty((len(rows), self.width), np.float32)
        out[:, :-2] = along
        out[:, -2] = squares
        out[:, -1] = 1
        return out

    def right(self, rows: Floats) -> Factors:
        """(k, width) float32, the other factor."""
        return turned(self.left(rows))


def turned(left: Factors) -> Factors:
    """The right factor of rows whose left one is at hand."""
    out = left * np.float32(-2)
    out[:, -2], out[:, -1] = 1, left[:, -2]
    return out


def scale_of(embeddings: NDArray[np.generic], *parts: Ints) -> float:
    """A power of two that brings every coordinate at these positions below 1, so that squares neither overflow nor vanish."""
    biggest = 0.0
    for part in parts:
        for block in split(part, BLOCK):
            biggest = max(biggest, float(np.abs(embeddings[block].astype(np.float64)).max()))
    return 2.0 ** -int(np.clip(np.frexp(biggest)[1], -1000, 1000)) if biggest else 1.0


def float_rows(embeddings: NDArray[np.generic], pos: Ints, scale: float = 1.0) -> Floats:
    """(k, d) scaled float64 rows at these positions, each in one piece: sums along rows go in an order that d sets."""
    return np.asarray(np.multiply(embeddings[pos], scale, dtype=np.float64, order="C"))


def mean_row(embeddings: NDArray[np.generic], pos: Ints, scale: float = 1.0) -> Floats:
    """(d,) mean of the scaled rows, summed over pieces of a fixed size in the order given."""
    mean = np.zeros(embeddings.shape[1])
    for block in split(pos, BLOCK):
        mean += float_rows(embeddings, block, scale).sum(axis=0) / len(pos)
    return mean


def squared(a: Floats, b: Floats) -> Floats:
    """(k,) squared distances of rows: the formula that decides. Rows are summed one by one, in an order set by d."""
    difference = a - b
    difference *= difference
    return np.asarray(difference.sum(axis=1))


def grouped(labels: Ints, n: int) -> list[Ints]:
    """For each of n groups the places of its members, ascending; labels (k,) says which group each is in, from 0."""
    order = np.argsort(labels, kind="stable")
    sizes = np.bincount(labels, minlength=n)
    return [order[end - size : end] for end, size in zip(np.cumsum(sizes), sizes, strict=True)]


def split(array: Ints, size: int) -> list[Ints]:
    return [array[i : i + size] for i in range(0, len(array), size)]
