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
    """

    def __init__(self, embeddings: NDArray[np.generic], already: Ints, candidates: Ints) -> None:
        self.embeddings = embeddings
        self.scale = scale_of(embeddings, already, candidates)
        self.mean = mean_row(embeddings, candidates, self.scale)
        self.slack = (embeddings.shape[1] + 8) * float(np.finfo(np.float32).eps)

    def rows(self, pos: Ints) -> Floats:
        """(k, d) float64 rows at these positions."""
        return float_rows(self.embeddings, pos, self.scale)

    def left(self, rows: Floats) -> Factors:
        """(k, d + 2) float32 such that left(x) @ right(c).T is a lower bound of squared(x, c)."""
        return self._extended(rows, 1.0, flip=False)

    def right(self, rows: Floats) -> Factors:
        """(k, d + 2) float32, the other factor."""
        return self._extended(rows, -2.0, flip=True)

    def _extended(self, rows: Floats, factor: float, *, flip: bool) -> Factors:
        out = np.empty((len(rows), rows.shape[1] + 2), np.float32)
        centred = out[:, :-2]
        np.subtract(rows, self.mean, out=centred, casting="same_kind")
        # |x - c|^2 = |x|^2 + |c|^2 - 2 x.c, each square lowered by the slack; 2^-100 stands above all that can
        # underflow.
        squares = (centred.astype(np.float64) ** 2).sum(axis=1) * (1 - self.slack) - 2.0**-100
        centred *= factor
        out[:, -2], out[:, -1] = (1.0, squares) if flip else (squares, 1.0)
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
    return np.ascontiguousarray(embeddings[pos], np.float64) * scale


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


def split(array: Ints, size: int) -> list[Ints]:
    return [array[i : i + size] for i in range(0, len(array), size)]
