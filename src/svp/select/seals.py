"""SEALS: look only at the neighbours of what is labelled, and take the most uncertain of them."""

import numpy as np
from numpy.typing import NDArray

from svp.errors import UnknownName
from svp.select.geometry import split
from svp.select.neighbors import nearest
from svp.select.options import whole
from svp.select.scores import entropy, least_confidence, margin
from svp.select.table import Ints, Picks, Shape

_SCORES = {"margin": margin, "entropy": entropy, "least_confidence": least_confidence}
# Examples scored together: they decide the speed.
_BLOCK = 4096


def check(shape: Shape, *, score: str, n_neighbors: int) -> None:
    """Whether these options can be."""
    if score not in _SCORES:
        raise UnknownName("score", score, _SCORES)
    whole("n_neighbors", n_neighbors, 1)


def seals(
    probs: NDArray[np.generic],
    embeddings: NDArray[np.generic],
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ground: Ints,
    memory: int,
    score: str = "margin",
    n_neighbors: int = 100,
) -> Picks:
    """The most uncertain of the nearest neighbours of what is chosen already (Euclidean).

    probs        (n, c) class probabilities
    embeddings   (n, d) one row per example, finite
    already      positions that count as chosen: whose neighbours are looked at
    candidates   positions to choose from; of equally uncertain ones the earlier in this list goes first
    budget       how many, at most all candidates
    ground       positions among which neighbours are looked for: everything that is not excluded
    score        what uncertain means: "margin", "entropy" or "least_confidence", as the methods of these names
    n_neighbors  of each, chosen ones counted among them: so the pool grows by at most so many with each pick that comes back
                 as `already`
    returns      positions, the most uncertain first; its score is the gain. Where the neighbours are fewer than the budget
                 the other candidates follow after them by the same score; where nothing is chosen already all are looked at.
                 The first k are the answer for budget k
    cost         time: m n d operations in matrix products for m already chosen, n c for the scores. Memory: 16 m n_neighbors
                 bytes, 30 n, and `memory`
    Coleman et al. 2022, "Similarity search for efficient active learning and search of rare concepts", AAAI. There the
    neighbours come from an approximate index; here they are exact.
    """
    near = np.zeros(len(embeddings), bool)
    k = max(0, min(n_neighbors, len(ground) - 1))
    for part in split(already, max(1, memory // (64 * (k + 1)))):
        found, _ = nearest(embeddings, part, ground, k, memory=memory // 2)
        near[found] = True
    uncertain = np.empty(len(candidates))
    for places in split(np.arange(len(candidates)), _BLOCK):
        uncertain[places] = _SCORES[score](probs[candidates[places]])
    order = np.lexsort((-uncertain, ~near[candidates]))[:budget]
    return Picks(candidates[order], uncertain[order])
