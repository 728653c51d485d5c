"""From scores to a choice: which of the scored examples are taken. The highest ("top") unless a sampler is named.

A sampler sees every score and the candidates in the order of a seeded hash of their ids, so whoever works through them in
order, or draws by a hash of the id, does not depend on the order of the rows.
"""

import math

import numpy as np

from svp.chance import hash_ids
from svp.errors import SettingError
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
    if not (isinstance(temperature, (int, float)) and 0 < temperature < math.inf):
        raise SettingError(f"temperature={temperature!r}; give a number above 0")
    own = scores[candidates]
    # Sorted before they are added: the sum must not depend on the order of the rows.
    deviation = float(np.sort(own).std()) if len(own) else 0.0
    uniform = ((hash_ids(ids[candidates], seed, "temperature") >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    keys = (own / deviation if deviation > 0 else np.zeros(len(own))) / temperature - np.log(-np.log(uniform))
    return candidates[np.argsort(-keys, kind="stable")[:budget]]


def strata(
    scores: Floats, already: Ints, candidates: Ints, budget: int, *, drop: float | str = 0.0, bins: int = 50
) -> Ints:
    """Coverage-centric: drop the hardest share, cut the range of scores into bins of equal width, draw alike from each.

    scores   (n,) higher = harder
    drop     share of the candidates with the highest scores that is never taken, such as 0.1 (rounded down): likely mislabelled
    bins     how many strata
    returns  positions, bin by bin from the smallest: a bin with fewer than its share is taken whole and what it lacks is shared
             by the rest; inside a bin by chance. The first k are not the answer for budget k
    cost     n operations and one sort
    Zheng et al. 2023, "Coverage-centric coreset selection for high pruning rates", ICLR, algorithm 1.
    """
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise SettingError(f"bins={bins!r}; give a whole number of strata, 1 or more")
    if isinstance(drop, str) or not 0 <= drop < 1:
        raise SettingError(f"drop={drop!r}; give the share of the hardest that is left out, from 0 to below 1")
    n_kept = len(candidates) - int(drop * len(candidates))
    if budget > n_kept:
        raise SettingError(
            f"drop={drop} leaves {n_kept} of {len(candidates)} candidates, fewer than the budget {budget}; lower one of them"
        )
    if not budget:
        return candidates[:0]
    kept = candidates[np.sort(np.argsort(scores[candidates], kind="stable")[:n_kept])]
    members = _bins(scores[kept], bins)
    chosen: list[Ints] = []
    left = budget
    # Stable: of equally small bins the one with the lower scores.
    for done, places in enumerate(sorted(members, key=len)):
        share = left // (len(members) - done)
        chosen.append(kept[places[:share]])  # the candidates come in an order by chance
        left -= len(chosen[-1])
    return _with_rest(np.concatenate(chosen), kept, budget)


def _bins(values: Floats, bins: int) -> list[Ints]:
    """Places of the values in each bin of equal width that holds any, from the lowest bin up."""
    low, high = values.min(), values.max()
    if high == low:
        return [np.arange(len(values))]
    number = np.minimum(((values - low) / (high - low) * bins).astype(np.int64), bins - 1)
    return [np.flatnonzero(number == b) for b in np.unique(number)]


def _with_rest(chosen: Ints, kept: Ints, budget: int) -> Ints:
    """What rounding left over goes to whoever comes first by chance."""
    return np.concatenate([chosen, kept[~np.isin(kept, chosen)][: budget - len(chosen)]])
