"""Greedy k-center: take the point farthest from everything chosen, again and again.

Which point is farthest is decided by the formula of `geometry`, and among equals by the order of the candidates.
"""

import numpy as np
from numpy.typing import NDArray

from svp.chance import hash_ids
from svp.select.geometry import Factors, Space, split, squared
from svp.select.table import Floats, Ints, Picks

# Points refreshed together, and sizes of one matrix product. They decide the speed, never the answer.
_BLOCK = 1024
_ROWS = 512
_COLUMNS = 4096
_PAIR_NUMBERS = 1 << 20


def k_center(
    embeddings: NDArray[np.generic],
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ids: Ints,
    seed: int,
    start: int = 1,
) -> Picks:
    """Cover the embedding space: the example farthest from all chosen ones, repeatedly (Euclidean).

    embeddings  (n, d) one row per example, finite
    already     positions that count as chosen
    candidates  positions to choose from; of equally far ones the earlier in this list goes first
    budget      how many, at most all candidates
    start       where nothing is chosen already: so many random candidates come first, counted in the budget. 1 takes
                the candidate nearest to the mean of the candidates
    returns     positions in order of choice; the first k are the answer for budget k. The gain of a pick is its
                distance to the nearest chosen example at the time it was picked; NaN for the very first where nothing
                was chosen already
    guarantee   the largest distance to a chosen example is at most twice the least possible (for start=1)
    cost        time: at most n (m + budget) d operations for m already chosen, nearly all of them in matrix products,
                and usually far fewer; brute-force speed where very many distances are equal. Memory beside the
                embeddings: about 50 n + 4 (m + budget) (d + 30) bytes, a copy of the m rows while repeats among them
                are looked for, and a few MB of blocks
    Gonzalez 1985, "Clustering to minimize the maximum intercluster distance"; used for active learning by Sener and
    Savarese 2018, "Active learning for convolutional neural networks: a core-set approach", algorithm 1.

    The minimum distance of a point only falls as centres are added, so a minimum that has not seen the latest centres
    is an upper bound. Only the block of points with the highest bounds is brought up to date; inside it picks are made
    for as long as the best of them is above every bound outside.
    """
    space = Space(embeddings, already, candidates)
    minima = _Minima(space, candidates, capacity=len(already) + budget)
    if len(already):
        rows = np.ascontiguousarray(embeddings[already])
        # Centres that repeat an earlier one change nothing, except that all their distances would tie.
        _, first = np.unique(rows.view(np.dtype((np.void, rows[0].nbytes))).ravel(), return_index=True)
        minima.add_centres(already[np.sort(first)])
    elif start == 1:
        minima.take(np.array([_most_central(space, candidates)])[:budget])
    else:
        by_chance = np.argsort(hash_ids(ids[candidates], seed, "start"), kind="stable")
        for block in split(by_chance[: min(start, budget)], _BLOCK):
            minima.take(block)
    for block in split(np.arange(len(candidates)), _BLOCK):
        minima.refresh(block, fence=np.inf)  # a first bound for every point, from the first centres
    while len(minima.picks) < budget:
        minima.take_farthest(budget - len(minima.picks))
    return minima.result()


class _Minima:
    """For each candidate the exact squared distance to the nearest of the first `seen` centres: an upper bound for all
    centres.

    Points are numbered by their place in `candidates`, so the lower number wins among equals; centres by their order of
    arrival.

    lowest   (n,) the minima; -1 for points that are picked
    seen     (n,) how many centres each minimum accounts for
    nearest  (n,) the first centre that attains the minimum, -1 where none has been seen
    """

    def __init__(self, space: Space, candidates: Ints, capacity: int) -> None:
        self.space = space
        self.candidates = candidates
        self.lowest = np.full(len(candidates), np.inf)
        self.seen = np.zeros(len(candidates), np.int64)
        self.nearest = np.full(len(candidates), -1)
        self.centres = np.empty(capacity, np.int64)
        self.factors = np.empty((capacity, len(space.mean) + 2), np.float32)
        self.n_centres = 0
        self.n_factors = 0
        self.picks: list[int] = []
        self.gains: list[float] = []

    def add_centres(self, pos: Ints) -> None:
        """These positions count as chosen from now on."""
        self.centres[self.n_centres : self.n_centres + len(pos)] = pos
        self.n_centres += len(pos)

    def refresh(self, block: Ints, fence: float) -> None:
        """Account for all centres, except where a minimum falls below `fence` on the way: those are out."""
        for new in split(np.arange(self.n_factors, self.n_centres), _BLOCK):
            self.factors[new] = self.space.right(self.space.rows(self.centres[new]))
        self.n_factors = self.n_centres
        block = block[np.argsort(self.seen[block], kind="stable")]
        for points in split(block, _ROWS):
            rows = self.space.rows(self.candidates[points])
            left = self.space.left(rows)
            first = int(self.seen[points].min())
            while first < self.n_centres and len(points):
                stop = min(first + _COLUMNS, self.n_centres)
                self._lower(points, rows, left, first, stop)
                self.seen[points] = np.maximum(self.seen[points], stop)
                keep = self.lowest[points] >= fence
                points, rows, left, first = points[keep], rows[keep], left[keep], stop

    def _lower(self, points: Ints, rows: Floats, left: Factors, first: int, stop: int) -> None:
        """Let k points see the centres first .. stop - 1."""
        bounds = left @ self.factors[first:stop].T
        best = bounds.argmin(axis=1)
        place = np.arange(len(points))
        least = bounds[place, best].astype(np.float64)
        able = least < self.lowest[points]
        if not able.any():
            return
        # The nearest centre has a lower bound no higher than an upper bound of the one that looks best. A lower bound
        # is at most 2 slack (|x|^2 + |c|^2) under its value; 4 covers that the squares at hand are lowered and rounded
        # themselves.
        squares = left[:, -2].astype(np.float64) + self.factors[first + best, -1]
        ceiling = np.minimum(least + 4 * self.space.slack * squares + 2.0**-96, self.lowest[points])
        ceiling = np.nextafter(ceiling.astype(np.float32), np.float32(np.inf))
        # Nearly always the one that looks best is the only one below the ceiling; looking for others row by row costs more.
        bounds[place, best] = np.inf
        several = able & (bounds.min(axis=1) <= ceiling)
        bounds[place, best] = least
        alone = np.flatnonzero(able & ~several)
        point, centre = alone, best[alone]
        if len(crowded := np.flatnonzero(several)):
            row, other = np.nonzero(bounds[crowded] <= ceiling[crowded, None])
            point, centre = np.concatenate([alone, crowded[row]]), np.concatenate([centre, other])
        centre += first
        exact = np.empty(len(point))
        for pairs in split(np.arange(len(point)), max(1, _PAIR_NUMBERS // rows.shape[1])):
            exact[pairs] = squared(rows[point[pairs]], self.space.rows(self.centres[centre[pairs]]))
        if len(crowded):
            order = np.lexsort((centre, exact, point))  # of equally near centres the first
            order = order[np.flatnonzero(np.diff(point[order], prepend=-1))]
            point, centre, exact = point[order], centre[order], exact[order]
        nearer = exact < self.lowest[points[point]]
        self.lowest[points[point[nearer]]] = exact[nearer]
        self.nearest[points[point[nearer]]] = centre[nearer]

    def take(self, points: Ints) -> None:
        """Pick these points in this order, whatever their distances."""
        self.refresh(points, fence=-np.inf)
        block = _Block(self, points)
        for i in range(len(points)):
            block.pick(i)
        block.close()

    def take_farthest(self, budget: int) -> None:
        """Bring the block of the highest minima up to date, and pick what is surely farthest."""
        points, rival = _top(self.lowest, _BLOCK)
        fence = -np.inf if rival is None else float(self.lowest[rival])
        self.refresh(points, fence)
        block = _Block(self, points[self.lowest[points] >= fence])
        while budget and len(block.points):
            i = int(block.lowest.argmax())  # the first of equals
            highest = block.lowest[i]
            if highest < fence or (highest == fence and rival is not None and rival < block.points[i]):
                break
            block.pick(i)
            budget -= 1
        block.close()

    def result(self) -> Picks:
        picks = np.array(self.picks, np.int64)
        squares = np.array(self.gains)
        gains = np.where(np.isfinite(squares), np.sqrt(np.maximum(squares, 0)), np.nan) / self.space.scale
        nearest = self.nearest[picks]
        return Picks(self.candidates[picks], gains, np.where(nearest < 0, -1, self.centres[nearest]), gains)


class _Block:
    """Points whose minima are up to date, and stay so while some of them are picked."""

    def __init__(self, minima: _Minima, points: Ints) -> None:
        self.minima, self.points = minima, points
        self.lowest, self.nearest = minima.lowest[points], minima.nearest[points]
        space = minima.space
        self.rows = space.rows(minima.candidates[points])
        # (k, k) lower bounds of the distances from each point, as a centre, to all: most picks come nearer to few.
        self.bounds = space.right(self.rows) @ space.left(self.rows).T

    def pick(self, i: int) -> None:
        minima, gain = self.minima, self.lowest[i]
        minima.picks.append(int(self.points[i]))
        minima.gains.append(float(gain))
        self.lowest[i] = -1
        if gain == 0:
            return  # an equal centre is there already
        able = np.flatnonzero(self.bounds[i] < self.lowest)
        exact = squared(self.rows[able], self.rows[i])
        nearer = exact < self.lowest[able]
        able = able[nearer]
        self.lowest[able] = exact[nearer]
        self.nearest[able] = minima.n_centres
        minima.add_centres(minima.candidates[self.points[i] : self.points[i] + 1])

    def close(self) -> None:
        """Hand what was learned back."""
        self.minima.lowest[self.points] = self.lowest
        self.minima.nearest[self.points] = self.nearest
        self.minima.seen[self.points] = self.minima.n_centres


def _top(values: Floats, size: int) -> tuple[Ints, int | None]:
    """Places of the `size` highest values, lower places first among equals; and the place of the next highest."""
    if size >= len(values):
        return np.arange(len(values)), None
    threshold = np.partition(values, len(values) - size)[len(values) - size]
    above, level = np.flatnonzero(values > threshold), np.flatnonzero(values == threshold)
    block = np.sort(np.concatenate([above, level[: size - len(above)]]))
    others = values.copy()
    others[block] = -np.inf
    return block, int(others.argmax())


def _most_central(space: Space, candidates: Ints) -> int:
    """The place of the candidate nearest to the mean of the candidates."""
    if not len(candidates):
        return 0
    return int(np.concatenate([squared(space.rows(block), space.mean) for block in split(candidates, _BLOCK)]).argmin())
