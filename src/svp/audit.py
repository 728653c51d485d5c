"""Does the proxy rank like the target? Does it pay?"""

from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.evaluate import Verdict


@dataclass(frozen=True)
class Agreement:
    """How alike two models rank the same examples.

    spearman  rank correlation, ties sharing their mean rank; None where one side ranks all alike
    overlap   share of one side's choice of `budget` that the other side's holds too. Where the highest scores are chosen, as
              expected when each side breaks its own ties by lot: two rankings that tie everything agree by chance,
              whatever rule they share
    chance    the overlap that two unrelated rankings would have
    """

    spearman: float | None
    overlap: float
    chance: float
    n: int
    budget: int

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def agreement(
    scores: ArrayLike, other: ArrayLike, budget: int, chosen: tuple[NDArray[np.bool_], NDArray[np.bool_]] | None = None
) -> Agreement:
    """Compare two (n,) rankings of the same examples, higher = taken first. Cost: n log n operations, a few rows of n floats.

    chosen  which each side took, (n,) twice, where that is not its highest scores: then these are what is in common. Two
            sides that draw by the same seed draw alike, so that they may share more than their scores do.
    """
    a, b = np.asarray(scores, float), np.asarray(other, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"both rankings must be of the same examples; got shapes {a.shape} and {b.shape}")
    n = len(a)
    spearman = None
    if n > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
        from scipy.stats import spearmanr  # here, not above: it takes longer to load than all the rest

        spearman = float(spearmanr(a, b).statistic)
    overlap = 1.0
    if budget:
        one, two = (_taken(a, budget), _taken(b, budget)) if chosen is None else (side.astype(float) for side in chosen)
        overlap = float(one @ two) / budget
    return Agreement(spearman, overlap, budget / n if n else 1.0, n, budget)


def tied(scores: ArrayLike, chosen: NDArray[np.bool_]) -> int:
    """How many of those chosen, the highest, have the score of some that were not: chance, not the ranking, told these apart."""
    values = np.asarray(scores, float)
    if not chosen.any() or chosen.all():
        return 0
    edge = values[chosen].min()
    return int((values[chosen] == edge).sum()) if (values[~chosen] == edge).any() else 0


def _taken(values: NDArray[np.float64], budget: int) -> NDArray[np.float64]:
    """(n,) chance of each to be among the first `budget` (1 to n), when equals are taken by lot."""
    edge = np.partition(values, len(values) - budget)[len(values) - budget]
    above, tied = values > edge, values == edge
    share: float = (budget - above.sum()) / tied.sum()
    return np.where(tied, share, above.astype(float))


@dataclass(frozen=True)
class Payment:
    """End to end: proxy, scoring, choosing and the target on the chosen part, against the target on all data.

    seconds, full_seconds  means over the seeds
    ratio     full_seconds over seconds; above 1 saves time
    n_faster  how many of the n_seeds seeds took less time than their full training
    no_worse  whether the accuracy is shown to be no worse
    """

    seconds: float
    full_seconds: float
    ratio: float
    n_faster: int
    n_seeds: int
    no_worse: Verdict
    verdict: Literal["pays", "does not pay", "not shown"]

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def payment(seconds: ArrayLike, full_seconds: ArrayLike, no_worse: Verdict) -> Payment:
    """Judge a selection by its (s,) seconds, beside those of the full training of the same seeds, and by `evaluate.no_worse`.

    It pays if every seed took less time and no worse is shown; it does not if the mean took no less, or worse is shown.
    """
    own, full = np.asarray(seconds, float), np.asarray(full_seconds, float)
    if own.shape != full.shape or own.ndim != 1:
        raise ValueError(f"both must be of the same seeds; got shapes {own.shape} and {full.shape}")
    n_faster = int((own < full).sum())
    verdict: Literal["pays", "does not pay", "not shown"] = "not shown"
    if own.mean() >= full.mean() or no_worse == "refuted":
        verdict = "does not pay"
    elif n_faster == len(own) and no_worse == "shown":
        verdict = "pays"
    return Payment(
        float(own.mean()), float(full.mean()), float(full.mean() / own.mean()), n_faster, len(own), no_worse, verdict
    )
