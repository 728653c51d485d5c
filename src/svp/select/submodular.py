"""Greedy choices by how alike examples are: facility location and graph cut.

Similarities are whole numbers of one unit (see `similarity`), and so are gains: they add up exactly in every order.
"""

from contextlib import nullcontext
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from svp.errors import DataError
from svp.machine import one_blas_thread
from svp.select.bounded import Bounded
from svp.select.compared import Compared, Csr, DenseColumns, SparseColumns, Units, compared_bytes, stretches
from svp.select.similarity import Similarity
from svp.select.table import Floats, Ints, Picks, Shape

# Entries above the coverage are worth holding where they are fewer than one in so many.
_SPARSE = 20
_HELD = 4  # all entries are held where that takes at most one in so many of the bytes there are
_WORKED = 4  # threads get as many of them for their blocks where it takes more
_BYTES_PER_ENTRY = 48  # while they are collected and sorted by row and by column
BYTES_STORED, _BYTES_FOUND = 32, 8  # for each entry that is stored: at the highest, and while the nearest are found
_LEFT = 1 / 80  # of all entries, on features of networks, when those above the coverage are collected
_FEW = 64  # bounds brought up to date at first, before those that are still in the way
_NOTED = 8  # rises remembered, in rows for each row there is
_AHEAD = 32  # rows computed in one product, of those that are likely to be picked next


def facility_location(
    similarity: Similarity,
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ground: Ints,
    memory: int,
    kernel: str = "cosine",
) -> Picks:
    """Represent every example by a similar one: maximise sum_v max_s sim(v, s), greedily.

    similarity  (n, n), or made of embeddings by `kernel`; what is below 0 counts as 0: the sum starts from 0
    already     positions that count as chosen: what they cover needs no cover
    candidates  positions to choose from; of equal gains the earlier in this list goes first
    budget      how many, at most all candidates
    ground      v runs over these positions: all that are not excluded, chosen or not. What is excluded represents
                nobody and need not be represented
    kernel      how embeddings are compared: "cosine", "dot", or "rbf", exp(-d^2 / the mean d^2)
    returns     positions in order of choice; the first k are the answer for budget k. The gain of a pick is by how much
                the sum grew
    guarantee   at least 1 - 1/e (63%) of the greatest sum there is; no method does better in polynomial time
    cost        m examples, c candidates: time about (1 + p) m c d, where p is how often the coverage of an example rises
                before most entries are out of the race, 2 to 4 on features of networks. Memory: `memory` bytes, and
                28 m d for embeddings; with a sparse similarity or neighbors=k time of its entries (beside the m^2 d that finding
                neighbours takes) and 32 bytes for each
    Nemhauser, Wolsey and Fisher 1978, "An analysis of approximations for maximizing submodular set functions"; Minoux
    1978 for using that gains only fall; Wei, Iyer and Bilmes 2015, "Submodularity in data subset selection".

    Gains only fall, so those of the past are upper bounds. Where they are in the way they are brought up to date, by the rows
    alone whose coverage rose since, in float32 with its error; what may be the best is then added up exactly. An entry
    at or below the coverage of its row never counts again, so that soon nearly all of them are out; the few that remain
    are then collected once, and the rest of the choice takes next to no time.
    """
    if similarity.negative:
        raise DataError("similarity: no value is above 0, from where facility_location counts; add a constant to all")
    compared = similarity.among(ground, kernel, memory)
    place = _places(ground)
    coverage = compared.columns(place[already]).highest()
    race = _race(compared, place[candidates], coverage, memory)
    picks, values = np.empty(budget, np.int64), np.empty(budget, np.int64)
    # The threads of `Bounded` and those of BLAS, which wait by spinning, would be in each other's way.
    with one_blas_thread if isinstance(race, _Lazy) else nullcontext():
        for i in range(budget):
            race = race.thinned(budget - i)
            picks[i], values[i] = race.take()
    return Picks(candidates[picks], (values * compared.unit).astype(np.float64))


def stored_bytes(s: Shape) -> float:
    """What the entries of a sparse similarity, or of neighbors=k, take at the highest."""
    return float(BYTES_STORED * s.entries)


def finding(s: Shape) -> float:
    """What finding the nearest takes beside, where it may."""
    return max(0.0, (compared_bytes(s.n) if s.d else 0) - float((BYTES_STORED - _BYTES_FOUND) * s.entries))


def room(s: Shape) -> float:
    """About the bytes that facility_location takes where it may: all entries, or those above the coverage when few are."""
    if s.entries:
        return finding(s)
    held = 4.0 * s.n * s.n
    if held <= s.memory // _HELD:
        return 1.25 * held + (64 << 20)
    return _LEFT * _BYTES_PER_ENTRY * s.n * s.n + (16 << 20)


def _race(compared: Compared, candidates: Ints, coverage: Units, memory: int) -> "_Race":
    columns = compared.columns(candidates)
    if isinstance(columns, SparseColumns):
        entries = columns.above(coverage)
        del columns  # a copy, where it is a part
        return _Thin(entries, coverage)
    held = columns.keep(memory // _HELD)
    limit = (memory - held) // _BYTES_PER_ENTRY
    if held or columns.rough is None:
        return _Eager(columns, coverage, columns.sums(coverage), limit)
    return _Lazy(Bounded(columns, columns.rough(), memory // _WORKED), coverage, limit)


class _Race(Protocol):
    """The candidates while coverage grows, by their place: of equal gains the lower wins."""

    def take(self) -> tuple[int, int]:
        """The best candidate and its gain; it is taken."""

    def thinned(self, left: int) -> "_Race":
        """The same race without what is out of it, if that pays for `left` more picks."""


class _Dense:
    """A race among entries that are computed, or read, until few enough are left to be collected.

    source    what collects them
    coverage  (m,) the highest entry of each row in the columns that are chosen
    taken     (c,) which candidates are out
    limit     the most entries to hold
    """

    def __init__(self, source: DenseColumns | Bounded, coverage: Units, width: int, limit: int) -> None:
        self.source = source
        self.coverage = coverage
        self.taken = np.zeros(width, bool)
        self.limit = limit
        self.n_risen = 0  # rows that rose since thinning was tried in vain
        self.last = len(coverage)  # and by the last pick: about how many entries a column has above the coverage

    def rise(self, column: Units) -> tuple[Ints, Units, Units]:
        """A column is chosen: the rows whose coverage rises, and their coverage before and after."""
        v = np.flatnonzero(column > self.coverage)
        before, after = self.coverage[v], column[v]
        self.coverage[v] = after
        self.last = len(v)
        self.n_risen += len(v)
        return v, before, after

    def thin(self, left: int) -> "_Thin | None":
        """The entries that still count, if collecting them pays for `left` more picks."""
        m, n_entries = len(self.coverage), self.last * len(self.taken)
        pays = self.n_risen >= m and self.last * _SPARSE <= m <= self.last * left and n_entries <= self.limit
        if not pays:
            return None
        self.n_risen = 0
        entries = self.source.above(self.coverage, self.limit)
        return None if entries is None else _Thin(entries, self.coverage, self.taken)


class _Eager(_Dense):
    """Every entry in the rows of the examples whose coverage rose is looked at."""

    def __init__(self, columns: DenseColumns, coverage: Units, gains: Ints, limit: int) -> None:
        super().__init__(columns, coverage, len(gains), limit)
        self.columns = columns
        self.gains = gains

    def take(self) -> tuple[int, int]:
        best = int(self.gains.argmax())
        gain = int(self.gains[best])
        self.gains[best] = -1
        self.taken[best] = True
        if gain:
            v, before, after = self.rise(self.columns.column(best))
            self.gains -= self.columns.sums(before, after, v)
        return best, gain

    def thinned(self, left: int) -> _Race:
        return self.thin(left) or self


class _Lazy(_Dense):
    """Gains only fall, so an old one is an upper bound: bounds are renewed where they are above what is surely the best gain.

    highest  (c,) no gain is above it; -1 where taken
    lowest   (c,) what the gain was not below when `seen` rises were accounted for
    seen     (c,) how many of the rises are accounted for; -1: nothing is
    settled  (c,) whether the gain is known exactly; it is kept so
    rises    for each pick that raised any coverage the rows, and their coverage before and after
    """

    def __init__(self, bounds: Bounded, coverage: Units, limit: int) -> None:
        super().__init__(bounds, coverage, bounds.columns.width, limit)
        self.bounds = bounds
        self.all = np.arange(len(coverage))
        self.highest = bounds.rough.at_most(coverage)
        self.lowest = np.zeros(len(self.highest))
        self.seen = np.full(len(self.highest), -1)
        self.settled = np.zeros(len(self.highest), bool)
        self.rises: list[tuple[Ints, Units, Units]] = []
        self.n_noted = 0  # rows in `rises`

    def take(self) -> tuple[int, int]:
        width = _FEW
        while not self.settled[best := int(self.highest.argmax())]:
            self._narrow(width)
            width *= 4
        gain = int(self.highest[best])
        self.highest[best] = self.lowest[best] = -1
        self.settled[best] = False
        self.taken[best] = True
        if gain:
            self._raise(self.bounds.columns.column(best))
        return best, gain

    def _narrow(self, width: int) -> None:
        """Bring bounds up to date, and where they are settle gains, of the `width` highest of those that may be the best."""
        current = self.seen == len(self.rises)
        rivals = np.flatnonzero((self.highest >= self.lowest[current].max(initial=0)) & ~self.settled)
        old = rivals[~current[rivals]]
        if len(old):
            self._renew(old[_top(self.highest[old], width)])
        else:
            c = rivals[_top(self.highest[rivals], width)]
            self.highest[c] = self.lowest[c] = self.bounds.columns.sums(self.coverage, c=c)
            self.settled[c] = True

    def _renew(self, c: Ints) -> None:
        if len(new := c[self.seen[c] < 0]):
            gains, error = self.bounds.between(new, self.all, self.coverage)
            self.highest[new] = np.minimum(self.highest[new], gains + error)
            self.lowest[new] = gains - error
            self.seen[new] = len(self.rises)
        for i in range(int(self.seen[c].min()), len(self.rises)):
            own = c[self.seen[c] <= i]
            lost, error = self.bounds.between(own, *self.rises[i])
            self.highest[own] -= np.maximum(lost - error, 0)
            self.lowest[own] -= lost + error
        self.seen[c] = len(self.rises)

    def _raise(self, column: Units) -> None:
        v, before, after = self.rise(column)
        self.rises.append((v, before, after))
        self.n_noted += len(v)
        if self.n_noted > _NOTED * len(self.coverage):
            self.rises.clear()
            self.seen[:] = -1
            self.n_noted = 0
        c = np.flatnonzero(self.settled)
        self.highest[c] = self.lowest[c] = self.highest[c] - self.bounds.columns.sums(before, after, v, c)
        self.seen[c] = len(self.rises)

    def thinned(self, left: int) -> _Race:
        return self.thin(left) or self


class _Thin:
    """Only the entries above the coverage are held, by row and by column; all gains are exact."""

    def __init__(self, entries: Csr, coverage: Units, taken: NDArray[np.bool_] | None = None) -> None:
        self.rows = entries
        self.by_column = entries.tocsc()
        self.coverage = coverage
        self.gains = np.zeros(entries.shape[1], np.int64)
        for part, row in stretches(entries):
            np.add.at(self.gains, entries.indices[part], entries.data[part].astype(np.int64) - coverage[row])
        if taken is not None:
            self.gains[taken] = -1

    def take(self) -> tuple[int, int]:
        best = int(self.gains.argmax())
        gain = int(self.gains[best])
        self._raise(slice(*self.by_column.indptr[best : best + 2]))
        self.gains[best] = -1
        return best, gain

    def _raise(self, column: slice) -> None:
        v, high = self.by_column.indices[column], self.by_column.data[column]
        risen = high > self.coverage[v]
        v, high = v[risen], high[risen]
        low = self.coverage[v]
        self.coverage[v] = high
        first = self.rows.indptr[v].astype(np.int64)
        length = self.rows.indptr[v + 1] - first
        # The rows v one after the other: entry j of row i stands at first[i] + j.
        entry = np.arange(length.sum()) + np.repeat(first - (np.cumsum(length) - length), length)
        lost = np.minimum(self.rows.data[entry], np.repeat(high, length)) - np.repeat(low, length)
        fewer = lost > 0
        np.subtract.at(self.gains, self.rows.indices[entry[fewer]], lost[fewer].astype(np.int64))

    def thinned(self, left: int) -> _Race:
        return self


def graph_cut(
    similarity: Similarity,
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ground: Ints,
    memory: int,
    lambda_: float = 2.0,
    kernel: str = "cosine",
) -> Picks:
    """Represent all examples by ones that differ: maximise lambda sum_v,s sim - sum_s,s' sim, greedily.

    similarity  (n, n), or made of embeddings by `kernel`
    already     positions that count as chosen
    candidates  positions to choose from; of equal gains the earlier in this list goes first
    budget      how many, at most all candidates
    ground      v runs over these positions: all that are not excluded, chosen or not
    lambda_     what representing counts beside repeating, 0 or more: v runs over all, s and s' over the chosen, each over
                every pair twice and over itself. From 2 on no gain is below 0 where the similarity is symmetric and
                nowhere below 0 (the objective is monotone). Other libraries put lambda on the second term: theirs is 1 / lambda_
    kernel      how embeddings are compared: "cosine", "dot", or "rbf", exp(-d^2 / the mean d^2)
    returns     positions in order of choice; the first k are the answer for budget k. The gain of a pick is by how much
                the objective grew, which may be less than nothing
    guarantee   for lambda_ of 2 or more and a symmetric similarity, none below 0: at least 1 - 1/e of the greatest value
                there is
    cost        m examples, c candidates, a already: m c d + (a + budget) c d operations; about 30 c bytes, at most `memory`
                bytes of similarities (of a sparse one, or with neighbors=k, 32 for each entry), and 16 m d for embeddings
    Iyer and Bilmes 2013, "Submodular optimization with submodular cover and submodular knapsack constraints"; Iyer,
    Khargonkar, Bilmes and Asnani 2021, "Submodular combinatorial information measures", for its use in selection.
    """
    compared = similarity.among(ground, kernel, memory)
    place = _places(ground)
    chosen, open_ = place[already], place[candidates]
    repeats = _Repeats(compared, open_, memory)
    represented = compared.columns(open_).sums()
    against = compared.own()[open_].astype(np.int64)
    for start in range(0, len(chosen), repeats.ahead):
        against += compared.cross(chosen[start : start + repeats.ahead], open_).sum(axis=0)
    picks, values = np.empty(budget, np.int64), np.empty(budget)
    taken = np.zeros(len(open_), bool)
    for i in range(budget):
        gains: Floats = np.multiply(represented, lambda_, dtype=np.float64) - against
        gains[taken] = -np.inf
        best = int(gains.argmax())
        picks[i], values[i] = best, gains[best]
        taken[best] = True
        against += repeats.of(best, gains)
    return Picks(candidates[picks], values * compared.unit)


class _Repeats:
    """What a pick adds to the second term for every candidate: a row of the comparison, computed many at a time."""

    def __init__(self, compared: Compared, candidates: Ints, memory: int) -> None:
        self.compared = compared
        self.candidates = candidates
        self.ahead = max(1, min(_AHEAD, memory // (64 * max(1, len(candidates)))))
        self.rows: dict[int, Units] = {}

    def of(self, best: int, gains: Floats) -> Units:
        """(c,) for the pick `best`; with it come the rows of those whose gains are highest now."""
        if best not in self.rows:
            if len(self.rows) > 2 * self.ahead:
                self.rows.clear()
            likely = np.argpartition(-gains, min(self.ahead, len(gains) - 1))[: self.ahead]
            wanted = [best, *(i for i in likely.tolist() if i != best and i not in self.rows)][: self.ahead]
            rows = self.compared.cross(self.candidates[wanted], self.candidates)
            self.rows.update(zip(wanted, rows, strict=True))
        return self.rows.pop(best)


def _top(values: Floats, k: int) -> Ints:
    """Where the k highest stand, in no order; all if there are fewer."""
    return np.argpartition(values, len(values) - k)[-k:] if k < len(values) else np.arange(len(values))


def _places(ground: Ints) -> Ints:
    """(n,) the place of each position in `ground`; of no meaning for others."""
    place = np.zeros(int(ground.max(initial=-1)) + 1, np.int64)
    place[ground] = np.arange(len(ground))
    return place
