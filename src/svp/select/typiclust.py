"""Typical clustering: one typical example of each cluster, for budgets so small that odd examples cannot be afforded."""

import heapq
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from svp.select.clusters import k_means
from svp.select.geometry import grouped
from svp.select.neighbors import mean_distances
from svp.select.table import Ints, Picks

# Clusters of fewer come last, and of how many neighbours typicality is the mean: as in the paper.
_SMALL = 5
_NEIGHBORS = 20


def typiclust(
    embeddings: NDArray[np.generic],
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ground: Ints,
    seed: int,
    memory: int,
    max_clusters: int = 500,
) -> Picks:
    """The most typical example of each cluster, the largest cluster without a chosen one first (Euclidean).

    embeddings    (n, d) one row per example, finite
    already       positions that count as chosen
    candidates    positions to choose from; of equally typical ones the earlier in this list goes first
    budget        how many, at most all candidates
    ground        positions that are clustered: everything that is not excluded
    max_clusters  k-means makes as many clusters as there will be chosen examples, `already` included, but no more than this
    returns       positions in order of choice. Each comes from the largest of the clusters with the fewest chosen: first the
                  clusters without one by size, then those with one, and so on. Clusters of fewer than 5 come when the others
                  have no candidates left. Inside a cluster the most typical goes first: the one with the least mean distance
                  to its min(20, size - 1) nearest neighbours there. The gain is minus that mean distance, NaN where the
                  cluster has no other. The number of clusters depends on the budget, so the first k are not the answer for
                  budget k
    cost          time: that of k-means (30 iterations at most of n c d operations for c clusters) and n^2 d / c in matrix
                  products where the clusters are alike in size. Memory: about 100 n bytes, and `memory`
    Hacohen, Dekel and Weinshall 2022, "Active learning on a budget: opposite strategies suit high and low budgets", ICML.
    Their code does without clusters of 5 too, and measures typicality anew among those not chosen yet, to half a cluster at
    most; here it is the paper's, once for all.
    """
    if not budget:
        return Picks(candidates[:0], np.zeros(0))
    found = k_means(embeddings, ground, min(len(already) + budget, max_clusters), seed=seed, memory=memory)
    cluster = np.full(len(embeddings), -1)
    cluster[ground] = found.labels
    members = [ground[places] for places in found.members()]
    n_chosen = np.bincount(cluster[already], minlength=len(members)).tolist()
    left = [candidates[places] for places in grouped(cluster[candidates], len(members))]
    turns = [(len(pos) < _SMALL, n_chosen[c], -len(pos), c) for c, pos in enumerate(members) if len(left[c])]
    heapq.heapify(turns)
    queues: dict[int, Iterator[tuple[int, float]]] = {}
    picks: list[tuple[int, float]] = []
    while len(picks) < budget:
        small, n, size, c = turns[0]
        if c not in queues:
            queues[c] = _most_typical_first(embeddings, left[c], members[c], memory)
        if (pick := next(queues[c], None)) is None:
            heapq.heappop(turns)
        else:
            picks.append(pick)
            heapq.heapreplace(turns, (small, n + 1, size, c))
    return Picks(np.array([pos for pos, _ in picks], np.int64), np.array([value for _, value in picks], np.float64))


def _most_typical_first(
    embeddings: NDArray[np.generic], left: Ints, members: Ints, memory: int
) -> Iterator[tuple[int, float]]:
    """Candidates of a cluster, each with minus its mean distance: the order of the paper's 1 / mean, but never infinite."""
    k = min(_NEIGHBORS, len(members) - 1)
    if not k:
        return iter([(int(left[0]), np.nan)])
    typicality = -mean_distances(embeddings, left, members, k, memory=memory)
    order = np.argsort(-typicality, kind="stable")
    return zip(map(int, left[order]), map(float, typicality[order]), strict=True)
