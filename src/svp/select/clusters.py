"""k-means that gives the same clusters whatever the order of the rows, the blocks, the threads and the memory.

Which centre is nearest is decided by the formula of `geometry`, and whatever is added up is added in the order of the points
given: the candidates of a method come in one that does not depend on the rows.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from svp.chance import generator
from svp.select.budget import DEFAULT_MEMORY
from svp.select.geometry import Factors, Space, grouped, split
from svp.select.neighbors import Columns, search
from svp.select.table import Floats, Ints

# Rows of one matrix product: they decide the speed.
_ROWS = 1024


@dataclass(frozen=True)
class Clusters:
    """Points in clusters, none of them empty.

    labels     (n,) number of the cluster of each point, in the order the points were given
    distances  (n,) how far each is from the centre of its own
    centres    (c, d)
    """

    labels: Ints
    distances: Floats
    centres: Floats

    def members(self) -> list[Ints]:
        """For each cluster the places of its points, ascending."""
        return grouped(self.labels, len(self.centres))


def k_means(
    embeddings: NDArray[np.generic],
    pos: Ints,
    k: int,
    *,
    seed: int,
    iterations: int = 30,
    memory: int = DEFAULT_MEMORY,
) -> Clusters:
    """At most k clusters (Euclidean): as many as there are distinct points, where these are fewer.

    embeddings  (n, d) one row per example, finite
    pos         (m,) positions of the points, in an order that does not depend on the rows
    seed        the centres to begin with are drawn one by one with chances as the squared distance to the nearest before it
    iterations  of assigning and averaging, at most; fewer where nothing changes any more. A cluster that loses all its points
                begins again at the point that is farthest from its centre
    returns     each point in the cluster of the nearest centre; of equally near ones the first
    cost        time: (iterations + 1) m k d operations, nearly all in matrix products. Memory: 4 m (d + 10) bytes where
                `memory` has room for them twice (else the seeding takes the points from `embeddings` k times), and `memory`
    Arthur and Vassilvitskii 2007, "k-means++: the advantages of careful seeding", SODA; Lloyd 1982.
    """
    points = _Points(Space(embeddings, pos[:0], pos), pos, memory)
    centres = points.rows(_seeds(points, min(k, len(pos)), seed))
    labels, squares = points.assign(centres)
    for _ in range(iterations):
        centres = points.means(labels, squares, centres)
        before = labels
        labels, squares = points.assign(centres)
        if (labels == before).all():
            break
    used, labels = np.unique(labels, return_inverse=True)
    return Clusters(labels, np.sqrt(squares) / points.space.scale, centres[used] / points.space.scale)


class _Points:
    """The points to be clustered, in the order given: exact rows when asked, float32 factors kept where they fit."""

    def __init__(self, space: Space, pos: Ints, memory: int) -> None:
        self.space = space
        self.pos = pos
        self.memory = memory // 2
        d = len(space.mean)
        size = int(np.clip(self.memory // (128 * (d + 8)), 1, _ROWS))
        self.blocks = split(np.arange(len(pos)), size)

        def left(block: int) -> Factors:
            return space.left(self.rows(self.blocks[block]))

        self.left = cache(left) if 4 * len(pos) * (d + 2) <= self.memory else left

    def rows(self, places: Ints) -> Floats:
        """(k, d) float64 rows of these points, scaled."""
        return self.space.rows(self.pos[places])

    def assign(self, centres: Floats) -> tuple[Ints, Floats]:
        """(m,) the nearest centre of each point, and its squared distance."""
        others = Columns(self.space, lambda places: centres[places], len(centres), self.memory)
        labels, squares = np.empty(len(self.pos), np.int64), np.empty(len(self.pos))
        for i, block in enumerate(self.blocks):
            places, best = search(self.space, self.rows(block), others, 1, left=self.left(i))
            labels[block], squares[block] = places[:, 0], best[:, 0]
        return labels, squares

    def means(self, labels: Ints, squares: Floats, centres: Floats) -> Floats:
        """(k, d) the mean of each cluster; an empty one gets a point that is farthest from its centre, each another."""
        k, d = centres.shape
        sums = np.zeros(k * d)
        for block in self.blocks:
            # One after the other, whatever the blocks.
            np.add.at(sums, (labels[block][:, None] * d + np.arange(d)).ravel(), self.rows(block).ravel())
        sizes = np.bincount(labels, minlength=k)
        means: Floats = sums.reshape(k, d) / np.maximum(sizes, 1)[:, None]
        empty = np.flatnonzero(sizes == 0)
        farthest = np.argsort(-squares, kind="stable")[: len(empty)]
        means[empty] = self.rows(farthest)
        return means


def _seeds(points: _Points, k: int, seed: int) -> Ints:
    """Places of at most k distinct points: k-means++."""
    chance = generator(seed, "k_means").random(k)
    squares = np.full(len(points.pos), np.inf)
    seeds: list[int] = []
    for share in chance:
        if not seeds:
            seeds.append(int(share * len(squares)))
        else:
            # Added one after the other: no setting can change the last bit.
            total = np.cumsum(squares)
            if total[-1] == 0:
                break
            # A draw that rounding moves to the end is the last point that can be drawn.
            place = int(np.searchsorted(total, share * total[-1], side="right"))
            seeds.append(min(place, int(np.flatnonzero(squares)[-1])))
        centre = points.rows(np.array(seeds[-1:]))
        other = Columns(points.space, lambda places, centre=centre: centre[places], 1, points.memory)  # type: ignore[misc]
        right = points.space.right(centre)[0]
        for i, block in enumerate(points.blocks):
            near = np.flatnonzero(points.left(i) @ right < squares[block])
            exact = other.squared(points.rows(block[near]), np.arange(len(near)), np.zeros(len(near), np.int64))
            squares[block[near]] = np.minimum(squares[block[near]], exact)
    return np.array(seeds, np.int64)
