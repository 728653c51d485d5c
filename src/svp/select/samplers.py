"""From scores to a choice: which of the scored examples are taken. The highest ("top") unless a sampler is named.

A sampler sees every score and the candidates in the order that equals go by, which does not depend on that of the rows. Chance
it takes from a hash of the ids, never from that order: `tie_break="id"` decides ties alone.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import tie_keys, uniform
from svp.errors import SettingError
from svp.select.budget import resolve_budget
from svp.select.geometry import float_rows, scale_of
from svp.select.options import is_number, number, whole
from svp.select.table import Floats, Ints, Shape


def check_temperature(shape: Shape, *, temperature: float) -> None:
    """Whether this option can be."""
    if not is_number(temperature) or not 0 < temperature < math.inf:
        raise SettingError(f"temperature={temperature!r}; give a number above 0")


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
    own = scores[candidates]
    # Sorted before they are added: the sum must not depend on the order of the rows.
    deviation = float(np.sort(own).std()) if len(own) else 0.0
    gumbel = -np.log(-np.log(uniform(ids[candidates], seed, "temperature")))
    keys = ((own - own.max()) / deviation if deviation > 0 else np.zeros(len(own))) + temperature * gumbel
    return candidates[np.argsort(-keys, kind="stable")[:budget]]


def check_strata(shape: Shape, *, drop: float, bins: int) -> None:
    """Whether these options can be, and leave enough for the budget."""
    whole("bins", bins, 1)
    if not is_number(drop) or not 0 <= drop < 1:
        raise SettingError(f"drop={drop!r}; give the share of the hardest that is left out, from 0 to below 1")
    _refuse_drop(drop, shape.n - resolve_budget(float(drop), shape.n), shape.n, shape.budget)


def strata(
    scores: Floats,
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ids: Ints,
    seed: int,
    ground: Ints,
    drop: float = 0.0,
    bins: int = 50,
) -> Ints:
    """Drop the hardest share, cut the range of scores into equal widths, draw alike from each.

    scores   (n,) higher = harder
    already  positions that count as chosen: each is one of its bin's share, those dropped of nobody's
    drop     share of all examples but the excluded, those with the highest scores, that is never taken, such as 0.1 (rounded
             down): likely mislabelled. Under limits and costs they are no candidates either
    bins     how many strata
    returns  positions in an order by chance. A bin with fewer than its share is taken whole, and what it lacks is shared by
             the larger ones; inside a bin by chance. The first k are not the answer for budget k
    cost     n operations and one sort
    Zheng et al. 2023, "Coverage-centric coreset selection for high pruning rates", ICLR, algorithm 1.
    """
    easy = np.zeros(len(scores), bool)
    easy[ground] = True
    easy[hardest(scores, ground, drop=drop)] = False
    kept, have = candidates[easy[candidates]], already[easy[already]]
    kept = kept[np.argsort(tie_keys(ids[kept], seed))]
    _refuse_drop(drop, len(kept), len(candidates), budget)
    number = _bins(scores[np.concatenate([have, kept])], scores[easy], bins)
    had, own = number[: len(have)], number[len(have) :]
    sizes = np.bincount(number)
    chosen = np.bincount(had, minlength=len(sizes))
    wanted = _spread(budget + len(have), sizes, chosen) - chosen
    return kept[_place_in(own) < wanted[own]]


def hardest(scores: Floats, ground: Ints, *, drop: float, bins: int = 1) -> Ints:
    """The positions that `strata` never takes: the share `drop` with the highest scores, of equals the last in `ground`."""
    n_left = len(ground) - resolve_budget(float(drop), len(ground))
    return ground[np.argsort(scores[ground], kind="stable")[n_left:]]


def check_round_robin(shape: Shape, *, pool: float, size: float, largest: int) -> None:
    """Whether these options can be, and what has to be clustered may be."""
    number("pool", pool, 1)
    number("size", size, 1)
    whole("largest", largest, 1)
    _refuse_larger(largest, shape.already, shape.budget)


def round_robin(
    scores: Floats,
    embeddings: NDArray[Any],
    already: Ints,
    candidates: Ints,
    budget: int,
    *,
    ids: Ints,
    seed: int,
    pool: float = 10.0,
    size: float = 10.0,
    largest: int = 10_000,
) -> Ints:
    """Cluster the highest scores by their embeddings, take one of each cluster in turn.

    scores      (n,) higher = first into the pool
    embeddings  (n, d) one row per example; Euclidean distances, average linkage
    already     positions that count as chosen: they are clustered with the pool, and each has had a turn of its cluster
    pool        how many times the budget is clustered
    size        examples in a cluster on average: the tree is cut into at most so many clusters as there are times this
    largest     at most so many are clustered, those chosen already counted; where these and the budget are more, it is refused
    returns     positions, round by round; in each the smallest cluster first, inside a cluster by chance. The first k are
                not the answer for budget k, whose pool is smaller
    cost        m^2 d operations and 8 m^2 bytes for m clustered (10,000: 0.8 GB)
    Citovsky et al. 2021, "Batch active learning at scale", NeurIPS, algorithm 1. There all data are clustered once, down to a
    distance, and what was labelled before has had no turn (for that give it as `exclude`); here each pool is, down to a number
    of clusters, which needs no scale.
    """
    _refuse_larger(largest, len(already), budget)
    n_pool = min(len(candidates), largest - len(already), math.ceil(pool * budget))
    highest = np.argsort(-scores[candidates], kind="stable")[:n_pool]
    chosen = candidates[highest]
    chosen = chosen[np.argsort(tie_keys(ids[chosen], seed))]
    clustered = np.concatenate([already, chosen])
    cluster = _clusters(embeddings, clustered, ids, math.ceil(len(clustered) / size))
    sizes = np.bincount(cluster)
    had, own = cluster[: len(already)], cluster[len(already) :]
    first = np.full(len(sizes), n_pool)
    np.minimum.at(first, own, np.arange(n_pool))
    turn = np.empty(len(sizes), np.int64)
    turn[np.lexsort((first, sizes))] = np.arange(len(sizes))
    round_ = _place_in(own) + np.bincount(had, minlength=len(sizes))[own]
    return chosen[np.lexsort((turn[own], round_))[:budget]]


def _refuse_drop(drop: float, n_left: int, n: int, budget: int) -> None:
    if budget > n_left:
        raise SettingError(
            f"drop={drop} leaves {n_left} of {n} candidates, fewer than the budget {budget}; lower one of them"
        )


def _refuse_larger(largest: int, n_already: int, budget: int) -> None:
    if largest < n_already + budget:
        already = f", {n_already} are chosen already" if n_already else ""
        raise SettingError(
            f"largest={largest} may be clustered, the budget is {budget}{already}; give a larger number (8 bytes for each "
            "pair), a smaller budget, or what is chosen already as exclude"
        )


def _clusters(embeddings: NDArray[Any], pos: Ints, ids: Ints, n_clusters: int) -> Ints:
    """(k,) cluster from 0 of each position, by average linkage; equal distances go by the order of the ids."""
    from scipy.cluster.hierarchy import fcluster, linkage

    cluster = np.zeros(len(pos), np.int64)
    if len(pos) > 1:
        by_id = np.argsort(ids[pos])
        rows = float_rows(embeddings, pos[by_id], scale_of(embeddings, pos))
        cluster[by_id] = fcluster(linkage(rows, method="average"), n_clusters, criterion="maxclust")
    return np.unique(cluster, return_inverse=True)[1]


def _bins(values: Floats, range_: Floats, bins: int) -> Ints:
    """(k,) bin of each value, in bins of equal width over a range of values; numbered from 0, without empty ones."""
    if not len(values) or (low := range_.min()) == (high := range_.max()):
        return np.zeros(len(values), np.int64)
    number = np.minimum(np.floor((values - low) / (high - low) * bins), bins - 1)
    return np.unique(number, return_inverse=True)[1]


def _spread(total: int, sizes: Ints, have: Ints) -> Ints:
    """(b,) how many of each bin there shall be, together `total`: as alike as can be, none below what it has, or its size.

    From the smallest bin up, of equally small ones first that with the lower scores. A bin that has more than its share
    keeps it, and the others share the rest.
    """
    wanted, open_ = have.copy(), np.argsort(sizes, kind="stable")
    while True:
        left = total
        for done, b in enumerate(open_.tolist()):
            wanted[b] = min(left // (len(open_) - done), sizes[b])
            left -= int(wanted[b])
        over = wanted[open_] < have[open_]
        if not over.any():
            return wanted
        total -= int(have[open_[over]].sum())
        wanted[open_[over]] = have[open_[over]]
        open_ = open_[~over]


def _place_in(group: Ints) -> Ints:
    """(k,) how many of the same group come before each."""
    sizes = np.bincount(group)
    place = np.empty(len(group), np.int64)
    place[np.argsort(group, kind="stable")] = np.arange(len(group)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return place
