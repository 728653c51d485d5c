"""D2: difficult and diverse, by passing scores along the edges of a graph of neighbours."""

import heapq
import math

import numpy as np
from numpy.typing import NDArray

from svp.select.neighbors import nearest
from svp.select.options import number, whole
from svp.select.table import Floats, Ints, Picks, Shape


def check(shape: Shape, *, n_neighbors: int, **gammas: float) -> None:
    """Whether these options can be."""
    whole("n_neighbors", n_neighbors, 0)
    for name, gamma in gammas.items():
        if gamma != math.inf:
            number(name, gamma, 0)


def d2(
    scores: NDArray[np.generic],
    embeddings: NDArray[np.generic],
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ground: Ints,
    memory: int,
    n_neighbors: int = 10,
    gamma_f: float = 1.0,
    gamma_r: float = 1.0,
) -> Picks:
    """Difficult but unlike what is chosen: scores gathered over neighbours, then lowered around each pick.

    scores       (n,) difficulty, higher = harder. Where any is below 0 all are raised so that the lowest is 0. A score that
                 picks have lowered below 0 raises those of its neighbours when it is picked itself
    embeddings   (n, d) one row per example, finite
    already      positions that count as chosen: they take from their neighbours before anything is chosen, in this order
    candidates   positions to choose from; of equals the earlier in this list goes first
    budget       how many, at most all candidates
    ground       positions that make the graph: everything that is not excluded
    n_neighbors  edges of each example, to its nearest (Euclidean)
    gamma_f      first each score gains exp(-gamma_f d^2) of the scores of its neighbours, d the length of the edge where the
                 mean length is 1; infinite: the scores stay as they are
    gamma_r      then each pick takes exp(-gamma_r d^2) of its own score from those of its neighbours
    returns      positions in order of choice, the highest score at that time first; that score is the gain. The first k are
                 the answer for budget k
    cost         time: n^2 d operations in matrix products for the graph, then (m + budget) n_neighbors log n for m already
                 chosen. Memory: 32 n n_neighbors bytes, about 200 n for the queue, and `memory`
    Maharana, Yadav and Bansal 2024, "D2 pruning: message passing for balancing diversity and difficulty in data pruning",
    ICLR. There the scores are counts of forgetting (CIFAR) or areas under the margin (ImageNet).
    """
    if not budget:
        return Picks(candidates[:0], np.zeros(0))
    place = np.full(len(embeddings), -1)
    place[ground] = np.arange(len(ground))
    edges, squares = _graph(embeddings, ground, place, min(n_neighbors, len(ground) - 1), memory)
    values = scores[ground].astype(np.float64)
    values -= min(values.min(), 0.0)
    values += (_weights(squares, gamma_f) * values[edges]).sum(axis=1)
    weights = _weights(squares, gamma_r)
    for i in place[already]:
        values[edges[i]] -= weights[i] * values[i]
    picks, gains = _take(values, place[candidates], budget, edges, weights)
    return Picks(ground[picks], np.array(gains))


def _graph(embeddings: NDArray[np.generic], ground: Ints, place: Ints, k: int, memory: int) -> tuple[Ints, Floats]:
    """(g, k) places of the nearest neighbours in the ground, and squared lengths where the mean length is 1."""
    pos, lengths = nearest(embeddings, ground, ground, k, memory=memory)
    mean = float(lengths.mean()) if lengths.size else 0.0
    if mean:
        lengths /= mean
    return place[pos], lengths * lengths


def _weights(squares: Floats, gamma: float) -> Floats:
    if math.isinf(gamma):
        return np.zeros_like(squares)
    return np.asarray(np.exp(-gamma * squares))


def _take(values: Floats, places: Ints, n: int, edges: Ints, weights: Floats) -> tuple[list[int], list[float]]:
    """Take n of these places, the highest value first, each lowering its neighbours; of equals the earlier goes first."""
    rank = np.full(len(values), -1)
    rank[places] = np.arange(len(places))
    queue = list(zip((-values[places]).tolist(), range(len(places)), strict=True))
    heapq.heapify(queue)
    taken: list[int] = []
    gains: list[float] = []
    while len(taken) < n:
        value, r = heapq.heappop(queue)
        i = int(places[r])
        if rank[i] < 0 or -value != values[i]:
            continue  # taken, or lowered since
        rank[i] = -1
        taken.append(i)
        gains.append(-value)
        around = edges[i]
        values[around] += weights[i] * value
        waiting = around[rank[around] >= 0]
        for pair in zip((-values[waiting]).tolist(), rank[waiting].tolist(), strict=True):
            heapq.heappush(queue, pair)
    return taken, gains
