"""Probability cover: balls of one radius around few examples that hold as many of the others as can be."""

import math
from collections.abc import Iterator
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from svp.errors import SettingError
from svp.select.clusters import k_means
from svp.select.geometry import Space
from svp.select.k_center import k_center
from svp.select.neighbors import Columns, nearest, tiles_within
from svp.select.options import is_number, whole
from svp.select.table import Ints, Picks, Shape

# One ball in so many may mix clusters: the paper's purity of 95 %.
_IMPURE = 20


def check(shape: Shape, *, radius: float | str, n_classes: int) -> None:
    """Whether these options can be."""
    whole("n_classes", n_classes, 2)
    if radius != "auto" and (not is_number(radius) or not 0 <= radius < math.inf):  # type: ignore[operator]
        raise SettingError(f"radius={radius!r}; give a distance, 0 or more, or 'auto'")


def probcover(
    embeddings: NDArray[np.generic],
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ids: Ints,
    ground: Ints,
    seed: int,
    memory: int,
    radius: float | Literal["auto"] = "auto",
    n_classes: int = 10,
) -> Picks:
    """Cover with balls of one radius: the ball that holds the most uncovered examples, repeatedly (Euclidean).

    embeddings  (n, d) one row per example, finite; the paper has self-supervised ones of length 1
    already     positions that count as chosen: what is in their balls is covered
    candidates  positions to choose from; of equals the earlier in this list goes first
    budget      how many, at most all candidates
    ground      positions that are to be covered: everything that is not excluded
    radius      of the balls, in the embeddings' own unit; a point at exactly this distance is in. "auto": the largest one for
                which at least 95 % of the balls around examples hold one cluster alone, the clusters being those of k-means
    n_classes   how many clusters "auto" makes: the number of classes, 2 or more
    returns     positions in order of choice; the first k are the answer for budget k. The gain of a pick is how many
                uncovered examples its ball held, itself included. When all are covered the rest goes on by `k_center`,
                farthest from everything chosen first, with gain 0
    guarantee   at least 1 - 1/e of what the best balls of this radius would hold
    cost        time: n^2 d operations in matrix products for the pairs within the radius, as much again where these do not
                fit into memory; "auto" as much again, and k-means. Memory: 4 bytes for each pair, and 8 for each row of a tile,
                where they take half of `memory` at most, `memory`, and 20 n bytes beside those of `k_center`
    Yehuda et al. 2022, "Active learning through a covering lens", NeurIPS.
    """
    if not budget:
        return Picks(candidates[:0], np.zeros(0))
    if radius == "auto":
        radius = pure_radius(embeddings, ground, n_classes, seed=seed, memory=memory)
    balls = _Balls(embeddings, ground, radius, memory)
    place = np.full(len(embeddings), -1)
    place[ground] = np.arange(len(ground))
    own = place[candidates]
    balls.cover(place[already])
    picks: list[int] = []
    gains: list[float] = []
    while len(picks) < budget:
        best = int(balls.gains[own].argmax())  # the first of equals
        if not (gain := balls.gains[own[best]]):
            break
        picks.append(best)
        gains.append(float(gain))
        balls.cover(own[best : best + 1])
    pos, left = candidates[picks], budget - len(picks)
    if not left:
        return Picks(pos, np.array(gains))
    del balls  # what follows needs none, and room of its own
    rest = k_center(embeddings, np.concatenate([already, pos]), np.delete(candidates, picks), left, ids=ids, seed=seed)
    return Picks(np.concatenate([pos, rest.pos]), np.concatenate([gains, np.zeros(left)]))


def pure_radius(embeddings: NDArray[np.generic], ground: Ints, n_classes: int, *, seed: int, memory: int) -> float:
    """The largest radius for which at least 95 % of the balls hold one k-means cluster alone; infinite for one cluster.

    A ball is pure for as long as it does not reach the nearest point of another cluster.
    """
    members = k_means(embeddings, ground, n_classes, seed=seed, memory=memory).members()
    reach = np.full(len(ground), np.inf)
    for places in members:
        others = np.delete(ground, places)
        reach[places] = nearest(embeddings, ground[places], others, 1, memory=memory)[1][:, 0]
    return float(np.nextafter(np.sort(reach)[len(ground) // _IMPURE], 0))


class _Balls:
    """The balls around all points of the ground, and how many uncovered points each holds.

    gains  (g,) counts. When a point is covered, each ball that holds it loses one. Every point is covered once, so all
           updates together look at every pair once, be it stored or found again
    tiles  for the first of each run of rows what the radius holds: first place in each row's part, and the places; or None
           where the pairs are too many to be kept
    """

    def __init__(self, embeddings: NDArray[np.generic], ground: Ints, radius: float, memory: int) -> None:
        self.space = Space(embeddings, ground[:0], ground)
        self.points = Columns(self.space, lambda places: self.space.rows(ground[places]), len(ground), memory // 2)
        self.ground, self.radius = ground, radius
        self.uncovered = np.ones(len(ground), bool)
        self.gains = np.zeros(len(ground), np.int64)
        self.first = np.zeros(len(ground), np.int64)  # of the run of rows that each is in
        held = 0  # bytes
        tiles: dict[int, list[tuple[Ints, NDArray[np.int32]]]] | None = {}
        for rows, columns, mask in tiles_within(self.space, ground, self.points, radius):
            counts = mask.sum(axis=1)
            self.gains[rows] += counts
            self.first[rows] = rows.start
            held += 4 * int(counts.sum()) + 8 * (len(counts) + 1)
            if held > memory // 2:
                tiles = None
            if tiles is not None:
                places = (np.flatnonzero(mask) % mask.shape[1] + columns.start).astype(np.int32)
                tiles.setdefault(rows.start, []).append((np.concatenate([[0], np.cumsum(counts)]), places))
        self.tiles = tiles

    def cover(self, places: Ints) -> None:
        """These are chosen: what their balls hold is covered from now on."""
        new: list[NDArray[np.integer]] = []
        for held in self._balls(places):
            new.append(held[self.uncovered[held]])
            self.uncovered[new[-1]] = False
        for around in self._balls(np.concatenate(new)) if new else ():
            self.gains[around] -= 1

    def _balls(self, places: NDArray[np.integer]) -> Iterator[NDArray[np.integer]]:
        """The places that the balls around these hold: each ball in one or more parts."""
        if self.tiles is not None:
            for place in places.tolist():
                first = int(self.first[place])
                for starts, held in self.tiles[first]:
                    yield held[starts[place - first] : starts[place - first + 1]]
        elif len(places):
            for _, columns, mask in tiles_within(self.space, self.ground[places], self.points, self.radius):
                for row in mask:
                    yield np.flatnonzero(row) + columns.start
