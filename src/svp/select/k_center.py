"""Greedy k-center: take the point farthest from everything chosen, again and again.

Which point is farthest is decided by the formula of `geometry`, and among equals by the order of the candidates.
"""

from contextlib import nullcontext
from heapq import heapify, heappop, heappush

import numpy as np
from numpy.typing import NDArray

from svp.chance import hash_ids
from svp.errors import SettingError
from svp.machine import one_blas_thread
from svp.select.geometry import Factors, Space, split, squared, turned
from svp.select.options import whole
from svp.select.table import Floats, Ints, Picks, Shape

# Points refreshed together, and sizes of one matrix product, whose result stays in a core's second cache. They decide the
# speed, never the answer, as all numbers here.
_BLOCK = 2048
_ROWS = 256
_COLUMNS = 1024
# Columns of a factor from which the cores share a product: sharing narrower ones gains a fifth where nothing else runs, and takes
# twice the time where something does. Threads of our own gain nothing: between products too much holds Python's lock.
_WIDE = 256
_PAIR_NUMBERS = 1 << 15
# Left factors are held for all points where they are no more numbers than this (64 MB).
_KEPT = 1 << 24
# Where more marks than this fall on each point of a product, a first distance each thins them out; where each point of a
# block has more others in reach than this, their distances are computed when it is picked.
_MARKS = 2
_IN_REACH = 16
# Directions are looked for among so many points, and where pairs are more than so many times d^2: else it cannot pay. A
# distance by the formula costs as much as so many columns of a product, for each coordinate.
_SAMPLE = 1024
_PAYS = 50_000
_FORMULA = 100


def check(shape: Shape, *, start: int) -> None:
    """Whether this option can be."""
    whole("start", start, 1)
    if start > 1 and shape.limited and not shape.already:
        raise SettingError(
            f"start={start}: under per_class or costs the choice begins again from what is chosen, and the random start would be "
            f"cut off; draw it first, with method 'random', and give it as already"
        )


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
                embeddings: about 50 n + 4 (m + budget) (d + 30) bytes, 4 n (d + 2) more where that is at most 64 MB, a
                copy of the m rows while repeats among them are looked for, and a few MB of blocks
    Gonzalez 1985, "Clustering to minimize the maximum intercluster distance"; used for active learning by Sener and
    Savarese 2018, "Active learning for convolutional neural networks: a core-set approach", algorithm 1.

    The minimum distance of a point only falls as centres are added, so a minimum that has not seen the latest centres
    is an upper bound. Only the block of points with the highest bounds is brought up to date; inside it picks are made
    for as long as the best of them is above every bound outside. Matrix products say which distances need not be computed;
    where the points lie near a subspace, so do far narrower ones, along the leading principal directions.
    """
    space = Space(embeddings, already, candidates)
    if len(candidates) * (len(already) + budget) > _PAYS * max(_SAMPLE // 8, len(space.mean)) ** 2:
        space.basis = _directions(space, candidates)
    minima = _Minima(space, candidates, capacity=len(already) + budget)
    if len(already):
        rows = np.ascontiguousarray(embeddings[already])
        # Centres that repeat an earlier one change nothing, except that all their distances would tie.
        _, first = np.unique(rows.view(np.dtype((np.void, rows[0].nbytes))).ravel(), return_index=True)
        for pos in split(already[np.sort(first)], _BLOCK):
            minima.add_centres(pos, space.right(space.rows(pos)))
    elif start == 1:
        minima.take(np.array([_most_central(space, candidates)])[:budget])
    else:
        by_chance = np.argsort(hash_ids(ids[candidates], seed, "start"), kind="stable")
        for block in split(by_chance[: min(start, budget)], _BLOCK):
            minima.take(block)
    with nullcontext() if space.width >= _WIDE else one_blas_thread:
        minima.refresh(np.arange(len(candidates)), fence=np.inf)  # a first bound for each, from the first centres
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
        self.factors = np.empty((capacity, space.width), np.float32)
        self.n_centres = 0
        self.picks: list[int] = []
        self.gains: list[float] = []
        self.room = _Room()
        self.few = True  # whether the last product had few marks
        self.kept: Factors | None = None
        if len(candidates) * space.width <= _KEPT:
            self.kept = np.empty((len(candidates), space.width), np.float32)
            for block in split(np.arange(len(candidates)), _BLOCK):
                self.kept[block] = space.left(space.rows(candidates[block]))

    def add_centres(self, pos: Ints, right: Factors) -> None:
        """These positions, with their right factors, count as chosen from now on."""
        new = slice(self.n_centres, self.n_centres + len(pos))
        self.centres[new], self.factors[new] = pos, right
        self.n_centres = new.stop

    def left(self, points: Ints) -> Factors:
        """The left factors of these points, a copy."""
        return self.space.left(self.space.rows(self.candidates[points])) if self.kept is None else self.kept[points]

    def refresh(self, block: Ints, fence: float) -> None:
        """Account for all centres, except where a minimum falls below `fence` on the way: those are out."""
        block = block[np.argsort(self.seen[block], kind="stable")]
        unseen = self.n_centres - int(self.seen[block[0]]) if len(block) else 0
        for tile in split(block, min(_BLOCK, max(_ROWS, _ROWS * _COLUMNS // max(1, unseen)))):
            self._see(tile, fence)

    def _see(self, points: Ints, fence: float) -> None:
        """The same for points of a tile."""
        first = int(self.seen[points].min())
        if first == self.n_centres:
            return
        left = self.left(points)
        while first < self.n_centres and len(points):
            stop = min(first + _COLUMNS, self.n_centres)
            self._lower(points, left, first, stop)
            self.seen[points] = np.maximum(self.seen[points], stop)
            keep = self.lowest[points] >= fence
            points, left, first = points[keep], left[keep], stop

    def _lower(self, points: Ints, left: Factors, first: int, stop: int) -> None:
        """Let k points see the centres first .. stop - 1."""
        lowest = self.lowest[points]
        ceiling = np.where(np.isinf(lowest), 0, lowest)
        gaps = self.room.gaps(left, self.factors[first:stop], ceiling, self.space.slack)
        if self.few and np.isfinite(lowest).all():
            place = self.room.marked(gaps, np.float32(0))
            self.few = len(place) <= _MARKS * len(points)
            if self.few:
                self._settle(points[place // (stop - first)], first + place % (stop - first))
                return
        # What looks nearest lowers the ceiling, so that few others are left.
        best = gaps.argmin(axis=1)
        rows = np.arange(len(points))
        able = np.flatnonzero(gaps[rows, best] < lowest - ceiling)
        self.few = len(able) < len(points) // 2
        self._settle(points[able], first + best[able])
        gaps[rows, best] = np.inf
        above = _up(self.lowest[points] - ceiling)
        crowded = np.flatnonzero(gaps.min(axis=1) < above)
        point, centre = np.divmod(self.room.marked(gaps[crowded], above[crowded, None]), stop - first)
        self._settle(points[crowded[point]], first + centre)

    def _settle(self, points: Ints, centres: Ints) -> None:
        """Compute the distances of these pairs, sorted, and keep what is less, or as much but from an earlier centre."""
        exact = self._exact(points, centres)
        lowest = self.lowest[points]
        nearer = (exact < lowest) | ((exact == lowest) & (centres < self.nearest[points]))
        points, centres, exact = points[nearer], centres[nearer], exact[nearer]
        np.minimum.at(self.lowest, points, exact)
        # Of equally near centres the first, which is written last.
        last = np.flatnonzero(exact == self.lowest[points])[::-1]
        self.nearest[points[last]] = centres[last]

    def _exact(self, points: Ints, centres: Ints) -> Floats:
        """(p,) squared distances of pairs of a point and a centre."""
        exact = np.empty(len(points))
        for pairs in _pieces(len(points), len(self.space.mean)):
            rows = self.space.rows(self.candidates[points[pairs]])
            exact[pairs] = squared(rows, self.space.rows(self.centres[centres[pairs]]))
        return exact

    def take(self, points: Ints) -> None:
        """Pick these points in this order, whatever their distances."""
        self.refresh(points, fence=-np.inf)
        block = _Block(self, points)
        for i in range(len(points)):
            block.pick(i)
        block.close()

    def take_farthest(self, budget: int) -> None:
        """Bring the block of the highest minima up to date, and pick what is surely farthest."""
        # Large blocks are brought up to date less often, but are in vain where few points or picks are left.
        size = min(_BLOCK, max(_BLOCK // 4, min(budget, len(self.lowest) // 16)))
        points, rival = _top(self.lowest, max(1, size))
        fence = -np.inf if rival is None else float(self.lowest[rival])
        self.refresh(points, fence)
        block = _Block(self, points[self.lowest[points] >= fence])
        block.pick_farthest(budget, (-fence, -1 if rival is None else rival))
        block.close()

    def result(self) -> Picks:
        picks = np.array(self.picks, np.int64)
        squares = np.array(self.gains)
        gains = np.where(np.isfinite(squares), np.sqrt(np.maximum(squares, 0)), np.nan) / self.space.scale
        nearest = self.nearest[picks]
        return Picks(self.candidates[picks], gains, np.where(nearest < 0, -1, self.centres[nearest]), gains)


class _Room:
    """Room for one product of points and centres and the marks on it: new memory each time would cost more than the product."""

    def __init__(self) -> None:
        self.numbers = np.empty(_COLUMNS * _ROWS, np.float32)
        self.flags = np.zeros(_COLUMNS * _ROWS + 8, bool)

    def gaps(self, left: Factors, right: Factors, ceiling: Floats, slack: float) -> Factors:
        """(k, m) no more than the distances of k points and m centres exceed the ceiling (k,) of the point."""
        # Taken off within the product: comparing with one number takes a third of the time. The ceiling is part of a sum
        # that is rounded, as the squares are, hence the slack.
        size = len(left) * len(right)
        squares = left[:, -2].copy()
        left[:, -2] = squares - ceiling * (1 + slack)
        found = np.matmul(left, right.T, out=self.numbers[:size].reshape(len(left), len(right)))
        left[:, -2] = squares
        return found

    def marked(self, gaps: Factors, above: Factors | np.float32) -> Ints:
        """Where gaps, read row by row, are less."""
        flags = self.flags[: -(-gaps.size // 8) * 8]
        np.less(gaps, above, out=flags[: gaps.size].reshape(gaps.shape))
        flags[gaps.size :] = False
        eights = np.flatnonzero(flags.view(np.uint64) != 0)
        one, place = np.nonzero(flags.reshape(-1, 8)[eights])
        return np.asarray(eights[one] * 8 + place)


class _Block:
    """Points whose minima are up to date, and stay so while some of them are picked."""

    def __init__(self, minima: _Minima, points: Ints) -> None:
        self.minima, self.points = minima, points
        self.lowest, self.nearest = minima.lowest[points], minima.nearest[points]
        self.rows = minima.space.rows(minima.candidates[points])
        left = minima.left(points)
        self.right = turned(left)
        # (k, k) lower bounds of the distances from each point, as a centre, to all: most picks come nearer to few.
        self.bounds = self.right @ left.T
        self.chosen: list[int] = []

    def pick(self, i: int) -> None:
        """Pick a point, and compute the distances to those in its reach."""
        gain = self.lowest[i]
        self._record(i, float(gain))
        self.lowest[i] = -1
        if gain == 0:
            return  # an equal centre is there already
        able = np.flatnonzero(self.bounds[i] < self.lowest)
        exact = squared(self.rows[able], self.rows[i])
        nearer = exact < self.lowest[able]
        able = able[nearer]
        self.lowest[able] = exact[nearer]
        self.nearest[able] = self.minima.n_centres + len(self.chosen)
        self.chosen.append(i)

    def pick_farthest(self, budget: int, limit: tuple[float, int]) -> None:
        """Pick the farthest for as long as it comes before `limit`: a key (-minimum, point), earlier picks have smaller ones."""
        if (near := self._near()) is not None:
            self._pick_knowing(near, budget, limit)
            return
        while budget and len(self.points):
            i = int(self.lowest.argmax())  # the first of equals
            if (-self.lowest[i], self.points[i]) > limit:
                break
            self.pick(i)
            budget -= 1

    def _near(self) -> list[list[tuple[int, float]]] | None:
        """For each point the others in reach, with their distances; None where they are many."""
        if not len(self.points):
            return None
        above = np.nextafter(np.float32(self.lowest.max()), np.float32(np.inf))
        close = self.bounds < above
        if np.count_nonzero(close) > _IN_REACH * len(self.points):
            return None
        one, other = np.divmod(np.flatnonzero(close), len(self.points))
        one, other = one[one < other], other[one < other]
        near: list[list[tuple[int, float]]] = [[] for _ in self.points]
        for pairs in _pieces(len(one), self.rows.shape[1]):
            exact = squared(self.rows[one[pairs]], self.rows[other[pairs]]).tolist()
            for i, j, distance in zip(one[pairs].tolist(), other[pairs].tolist(), exact, strict=True):
                near[i].append((j, distance))
                near[j].append((i, distance))
        return near

    def _pick_knowing(self, near: list[list[tuple[int, float]]], budget: int, limit: tuple[float, int]) -> None:
        """The same picks, without a call of numpy for each."""
        places, lowest, nearest = self.points.tolist(), self.lowest.tolist(), self.nearest.tolist()
        heap = [(-low, i) for i, low in enumerate(lowest)]
        heapify(heap)
        while heap and budget and (heap[0][0], places[heap[0][1]]) < limit:
            negative, i = heappop(heap)
            if -negative != lowest[i]:
                continue  # it fell since, and is in the heap once more
            self._record(i, lowest[i])
            budget -= 1
            if lowest[i] > 0:
                number = self.minima.n_centres + len(self.chosen)
                self.chosen.append(i)
                for j, distance in near[i]:
                    if distance < lowest[j]:
                        lowest[j], nearest[j] = distance, number
                        heappush(heap, (-distance, j))
            lowest[i] = -1.0
        self.lowest, self.nearest = np.array(lowest), np.array(nearest)

    def _record(self, i: int, gain: float) -> None:
        self.minima.picks.append(int(self.points[i]))
        self.minima.gains.append(gain)

    def close(self) -> None:
        """Hand what was learned back."""
        self.minima.lowest[self.points] = self.lowest
        self.minima.nearest[self.points] = self.nearest
        self.minima.add_centres(self.minima.candidates[self.points[self.chosen]], self.right[self.chosen])
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


def _up(values: Floats) -> Factors:
    """float32 above these float64."""
    return np.nextafter(values.astype(np.float32), np.float32(np.inf))


def _pieces(n: int, d: int) -> list[slice]:
    """Pairs of rows whose distances are computed together."""
    size = max(1, _PAIR_NUMBERS // d)
    return [slice(start, start + size) for start in range(0, n, size)]


def _directions(space: Space, candidates: Ints) -> Floats | None:
    """(d, k) as many leading principal directions as make the search cheapest, None where all coordinates do.

    Each column of a product costs, and so does each distance that a product along few directions does not rule out. How
    many those are is counted among a sample, where a point's minimum is its distance to the nearest other one.
    """
    d = len(space.mean)
    centred = space.rows(candidates[:: -(-len(candidates) // _SAMPLE)]) - space.mean
    axes = np.linalg.eigh(centred.T @ centred)[1][:, ::-1]
    along = (centred @ axes).astype(np.float32)

    part = -(-len(along) // 8)  # from an eighth of the sample to all of it

    def squares(k: int) -> Factors:
        some = along[:, :k]
        lengths = np.einsum("ij,ij->i", some, some)
        return np.asarray(lengths[:part, None] + lengths - 2 * some[:part] @ some.T)

    lowest = squares(d)
    np.fill_diagonal(lowest, np.inf)
    lowest = lowest.min(axis=1, keepdims=True)
    costs = {k: k + _FORMULA * d * float((squares(k) < lowest).mean()) for k in (*range(4, d, max(4, d // 8)), d)}
    best = min(costs, key=costs.__getitem__)
    return None if best == d else axes[:, :best].copy()


def _most_central(space: Space, candidates: Ints) -> int:
    """The place of the candidate nearest to the mean of the candidates."""
    if not len(candidates):
        return 0
    return int(np.concatenate([squared(space.rows(block), space.mean) for block in split(candidates, _BLOCK)]).argmin())
