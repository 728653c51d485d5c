"""From scores to a choice: which of the scored examples are taken. The highest ("top") unless a sampler is named.

A sampler sees every score and the candidates in the order of a seeded hash of their ids, so whoever works through them in
order, or draws by a hash of the id, does not depend on the order of the rows.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import uniform
from svp.errors import SettingError
from svp.select.budget import resolve_budget
from svp.select.geometry import float_rows, scale_of
from svp.select.table import Floats, Ints


def temperature(
    scores: Floats, already: Ints, candidates: Ints, budget: int, *, ids: Ints, seed: int, temperature: float = 1.0
) -> Ints:
    """Draw without replacement with chances that grow with the score: exp(score / temperature), scores scaled to deviation 1.

    scores       (n,) higher = more likely
    temperature  towards 0: the highest scores; very large: uniform
    returns      positions in the order drawn; the first k are the draw for budget k
    cost         n operations and one sort
    Gumbel top-k: Kool et al. 2019, "Stochastic beams and where to find them", ICML; for batches of labels Kirsch et al. 2023,
    "Stochastic batch acquisition", TMLR (there with the score's logarithm: "power").
    """
    if isinstance(temperature, (bool, str)) or not 0 < temperature < math.inf:
        raise SettingError(f"temperature={temperature!r}; give a number above 0")
    own = scores[candidates]
    # Sorted before they are added: the sum must not depend on the order of the rows.
    deviation = float(np.sort(own).std()) if len(own) else 0.0
    gumbel = -np.log(-np.log(uniform(ids[candidates], seed, "temperature")))
    keys = ((own - own.max()) / deviation if deviation > 0 else np.zeros(len(own))) + temperature * gumbel
    return candidates[np.argsort(-keys, kind="stable")[:budget]]


def strata(
    scores: Floats, already: Ints, candidates: Ints, budget: int, *, ground: Ints, drop: float = 0.0, bins: int = 50
) -> Ints:
    """Drop the hardest share, cut the range of scores into equal widths, draw alike from each.

    scores   (n,) higher = harder
    drop     share of all examples but the excluded, those with the highest scores, that is never taken, such as 0.1 (rounded
             down): likely mislabelled
    bins     how many strata
    returns  positions in an order by chance. A bin with fewer than its share is taken whole, and what it lacks is shared by
             the larger ones; inside a bin by chance. The first k are not the answer for budget k
    cost     n operations and one sort
    Zheng et al. 2023, "Coverage-centric coreset selection for high pruning rates", ICLR, algorithm 1.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise SettingError(f"bins={bins!r}; give a whole number of strata, 1 or more")
    if isinstance(drop, (bool, str)) or not 0 <= drop < 1:
        raise SettingError(f"drop={drop!r}; give the share of the hardest that is left out, from 0 to below 1")
    n_left = len(ground) - resolve_budget(float(drop), len(ground))
    easy = ground[np.argsort(scores[ground], kind="stable")[:n_left]]
    kept = candidates[np.isin(candidates, easy)]
    if budget > len(kept):
        raise SettingError(
            f"drop={drop} leaves {len(kept)} of {len(candidates)} candidates, fewer than the budget {budget}; "
            "lower one of them"
        )
    taken = np.zeros(len(kept), bool)
    members = sorted(_bins(scores[kept], bins), key=len)  # stable: of equally small bins the one with the lower scores
    for done, own in enumerate(members):
        share = (budget - int(taken.sum())) // (len(members) - done)
        taken[own[:share]] = True  # the candidates come in an order by chance
    return kept[taken]


def round_robin(
    scores: Floats,
    embeddings: NDArray[Any],
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ids: Ints,
    pool: float = 10.0,
    size: float = 10.0,
    largest: int = 10_000,
) -> Ints:
    """Cluster the highest scores by their embeddings, take one of each cluster in turn.

    scores      (n,) higher = first into the pool
    embeddings  (n, d) one row per example; Euclidean distances, average linkage
    pool        how many times the budget is clustered
    size        examples in a cluster on average: the tree is cut into at most pool / size clusters
    largest     at most so many are clustered; a budget above it is refused
    returns     positions, round by round; in each the smallest cluster first, inside a cluster by chance. The first k are
                not the answer for budget k, whose pool is smaller
    cost        m^2 d operations and 8 m^2 bytes for a pool of m (10,000: 0.8 GB)
    Citovsky et al. 2021, "Batch active learning at scale", NeurIPS, algorithm 1. There all data are clustered once, down to a
    distance; here each pool is, down to a number of clusters, which needs no scale.
    """
    for name, value in {"pool": pool, "size": size}.items():
        if isinstance(value, (bool, str)) or not 1 <= value < math.inf:
            raise SettingError(f"{name}={value!r}; give a number, 1 or more")
    if isinstance(largest, bool) or not isinstance(largest, int) or largest < budget:
        raise SettingError(
            f"largest={largest!r} may be clustered, the budget is {budget}; give a whole number above it"
        )
    n_pool = min(len(candidates), largest, math.ceil(pool * budget))
    highest = np.argsort(-scores[candidates], kind="stable")[:n_pool]
    chosen = candidates[np.sort(highest)]
    cluster = _clusters(embeddings, chosen, ids, math.ceil(n_pool / size))
    _, first, sizes = np.unique(cluster, return_index=True, return_counts=True)
    turn = np.empty(len(sizes), np.int64)
    turn[np.lexsort((first, sizes))] = np.arange(len(sizes))
    by_cluster = np.argsort(cluster, kind="stable")
    round_ = np.empty(n_pool, np.int64)
    round_[by_cluster] = np.arange(n_pool) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return chosen[np.lexsort((turn[cluster], round_))[:budget]]


def _clusters(embeddings: NDArray[Any], pos: Ints, ids: Ints, n_clusters: int) -> Ints:
    """(k,) cluster from 0 of each position, by average linkage; equal distances go by the order of the ids."""
    from scipy.cluster.hierarchy import fcluster, linkage

    cluster = np.zeros(len(pos), np.int64)
    if len(pos) > 1:
        by_id = np.argsort(ids[pos])
        rows = float_rows(embeddings, pos[by_id], scale_of(embeddings, pos))
        cluster[by_id] = fcluster(linkage(rows, method="average"), n_clusters, criterion="maxclust")
    return np.unique(cluster, return_inverse=True)[1]


def _bins(values: Floats, bins: int) -> list[Ints]:
    """Places of the values in each bin of equal width that holds any, from the lowest bin up."""
    if not len(values) or (low := values.min()) == (high := values.max()):
        return [np.arange(len(values))]
    number = np.minimum(np.floor((values - low) / (high - low) * bins), bins - 1)
    return [np.flatnonzero(number == b) for b in np.unique(number)]
