"""Herding: keep the mean of what is chosen at the mean of everything."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from svp.select.geometry import BLOCK, float_rows, mean_row, scale_of, split, squared
from svp.select.table import Floats, Ints, Picks, Shape

# Numbers in a block of rows, at most; the blocks are made again for each pick, where memory does not hold all rows.
_NUMBERS = 1 << 22
_BYTES = 24  # a number of a block: as it comes, in float64, and its square


def herding(
    embeddings: NDArray[np.generic], already: Ints, candidates: Ints, budget: int, *, ground: Ints, memory: int
) -> Picks:
    """Follow the mean: the example that brings the sum of the chosen nearest to as many times the mean of all.

    embeddings  (n, d) one row per example, finite
    already     positions that count as chosen
    candidates  positions to choose from; of equally good ones the earlier in this list goes first
    budget      how many, at most all candidates
    returns     positions in order of choice, each the least |(t + 1) mu - sum of the t chosen - e_i|, where mu is the mean of
                all that is not excluded; the first k are the answer for budget k. The gain of a pick is by how much it brought
                the mean of the chosen nearer to mu: below 0 where it did not, NaN for the very first
    cost        n d operations for each pick; 8 n d bytes where `memory` allows, and blocks of 100 MB or half of `memory` at
                most, made again for each pick where it does not
    Welling 2009, "Herding dynamical weights to learn", ICML; Chen, Welling and Smola 2010, "Super-samples from kernel herding",
    UAI; without replacement.
    """
    # The lists come in an order that does not depend on the order of the rows, and so the sums do not.
    scale = scale_of(embeddings, ground)
    mean = mean_row(embeddings, ground, scale)
    points = _Points(embeddings, candidates, scale, mean, memory)
    excess = np.zeros(len(mean))  # sum of the chosen minus as many times the mean
    for block in split(already, BLOCK):
        excess += (float_rows(embeddings, block, scale) - mean).sum(axis=0)
    places: list[int] = []
    away = [_length(excess) / len(already) if len(already) else np.nan]
    for t in range(len(already) + 1, len(already) + budget + 1):
        place, row = points.take_nearest(-excess)
        places.append(place)
        excess += row
        away.append(_length(excess) / t)
    return Picks(candidates[np.array(places, np.int64)], -np.diff(away) / scale)


def room(s: Shape) -> float:
    """About the bytes that herding takes where it may: a block, and all rows where they fit beside it."""
    size, all_held = _blocks(s.n, s.d, s.memory)
    return _BYTES * min(size, s.n) * s.d + (8.0 * s.n * s.d if all_held else 0.0)


def _blocks(n: int, d: int, memory: int) -> tuple[int, bool]:
    """Rows in a block, and whether all are held."""
    size = max(1, min(_NUMBERS, memory // (2 * _BYTES)) // d)
    return size, 8 * n * d + _BYTES * min(size, n) * d <= memory


class _Points:
    """The candidates, centred at the mean. Which is nearest is decided by the formula `squared` and, of equals, by their order.

    Matrix-vector products only say which candidates can be: they know |u_i - x|^2 - |x|^2 = |u_i|^2 - 2 u_i.x up to a rounding of
    (d + 8) eps (|u_i|^2 + |x|^2) at most, whatever the order of additions; 4 of these cover the formula's own and those made on
    the way.
    """

    def __init__(
        self, embeddings: NDArray[np.generic], candidates: Ints, scale: float, mean: Floats, memory: int
    ) -> None:
        self.embeddings, self.candidates, self.scale, self.mean = embeddings, candidates, scale, mean
        n, d = len(candidates), len(mean)
        size, all_held = _blocks(n, d, memory)
        self.blocks = split(np.arange(n), size)
        self.slack = 4 * (d + 8) * float(np.finfo(np.float64).eps)
        self.rows: Floats | None = np.empty((n, d)) if all_held else None
        self.squares, self.taken = np.empty(n), np.zeros(n, bool)
        for block in self.blocks:
            rows = self._centred(block)
            self.squares[block] = (rows * rows).sum(axis=1)
            if self.rows is not None:
                self.rows[block] = rows

    def take_nearest(self, x: Floats) -> tuple[int, Floats]:
        """The place of the candidate nearest to x, which is out from now on, and its centred row."""
        products = np.empty(len(self.candidates))
        for block, rows in self._all():
            products[block] = rows @ x
        value = self.squares - 2 * products
        value[self.taken] = np.inf
        slack = self.slack * (self.squares + x @ x) + 2.0**-1000  # above all that can underflow
        able = np.flatnonzero(value - slack <= (value + slack).min())
        place, row, least = -1, x, np.inf
        for block in split(able, len(self.blocks[0])):  # all of them, where all are equal
            rows = self._centred(block)
            distances = squared(rows, x)
            first = int(distances.argmin())
            if place < 0 or distances[first] < least:
                place, row, least = int(block[first]), rows[first].copy(), distances[first]
        self.taken[place] = True
        return place, row

    def _all(self) -> Iterator[tuple[Ints, Floats]]:
        if self.rows is not None:
            yield np.arange(len(self.rows)), self.rows
            return
        for block in self.blocks:
            yield block, self._centred(block)

    def _centred(self, places: Ints) -> Floats:
        rows = float_rows(self.embeddings, self.candidates[places], self.scale)
        rows -= self.mean
        return rows


def _length(x: Floats) -> float:
    return float(np.sqrt((x * x).sum()))
