"""When to stop labelling: how accuracy grows with the labels, what the next ones would add, whether answers still change.

Functions on arrays. `judging.py` trains the models whose answers they are given.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import generator, hash_ids
from svp.evaluate import CONFIDENCE

MORE = 100  # labels whose gain is predicted
LEAST_POINTS = 4  # of a learning curve, so that a law with three numbers says something of the next
_LAW = 3  # numbers that are fitted
APART = (
    1.3  # how many times the labels of one point of a curve the next has at least: points side by side tell no exponent
)
KAPPA, STEADY = 0.99, 3  # answers have settled where so many pairs of successive rounds agree so far
LEAST_STEP = 10  # labels between two rounds whose answers are compared: after one label more nothing changes
_EXPONENTS = np.linspace(0.1, 2.0, 39)
_RESAMPLES = 1000


@dataclass(frozen=True)
class Share:
    """A share with its 95 % interval."""

    mean: float
    low: float
    high: float


@dataclass(frozen=True)
class Gain:
    """Points of accuracy that `more` labels are predicted to add, with the 95 % interval."""

    more: int
    points: float
    low: float
    high: float

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def share(n_right: int, n: int) -> Share:
    """The share of right ones among `n` that were drawn, 1 at least (Wilson 1927: it holds near 0 and 1, and for few)."""
    z = NormalDist().inv_cdf(0.5 + CONFIDENCE / 2)
    p, room = n_right / n, z * z / n
    middle = (p + room / 2) / (1 + room)
    half = (z / (1 + room)) * (p * (1 - p) / n + room / (4 * n)) ** 0.5
    return Share(p, max(0.0, middle - half), min(1.0, middle + half))


def fold_of(ids: NDArray[np.int64], n_folds: int, seed: int) -> NDArray[np.int64]:
    """(n,) the fold of each example. It belongs to the id: what is labelled later moves no other."""
    return (hash_ids(ids, seed, "folds") % np.uint64(n_folds)).astype(np.int64)


def predicted_gain(
    sizes: Sequence[int], correct: NDArray[np.bool_], n: int, seed: int = 0, more: int = MORE
) -> Gain | None:
    """What `more` labels beside `n` would add, by a power law through the learning curve; None with fewer than 4 points.

    sizes    (r,) how many labels each point was trained on, rising
    correct  (r, m) which of the same m examples each point has right
    The law is error = floor + scale * size^-exponent, none of them below 0 (Cortes et al. 1994, "Learning curves: asymptotic
    values and rate of convergence"), fitted by least squares. The interval comes of fits to resampled examples, with noise added
    to each point: what another training would give. How large it is the distances of r points from the law tell with r - 3
    degrees of freedom, so it is drawn by Student's t; it is no smaller than the error of a difference between two points that
    answer alike but for one example won and one lost, for a few examples cannot claim certainty. Time: 40,000 fits of two
    numbers.
    """
    if len(sizes) < LEAST_POINTS or not correct.shape[1]:
        return None
    x = np.asarray(sizes, np.float64)
    m = correct.shape[1]
    rng = generator(seed, "predicted gain")
    patterns, counts = np.unique(correct, axis=1, return_counts=True)  # 2^r at most, however many examples there are
    drawn = rng.multinomial(m, counts / m, _RESAMPLES)
    resampled = 1 - drawn @ patterns.T / m
    best, missed = _law(x, 1 - correct.mean(axis=1)[None], n, more)
    least = np.sqrt(2 / ((m + 1) * (m + 2)))  # of m zeros, 1 and -1: the standard error of their mean
    noise = np.maximum(np.sqrt(missed[0] / rng.chisquare(len(x) - _LAW, (_RESAMPLES, 1))), least)
    gains, _ = _law(x, resampled + noise * rng.normal(size=resampled.shape), n, more)
    tail = 100 * (1 - CONFIDENCE) / 2
    low, high = np.percentile(gains, [tail, 100 - tail])
    return Gain(more, 100 * float(best[0]), 100 * float(low), 100 * float(high))


def points_of(sizes: Sequence[int], most: int) -> list[int]:
    """Which of the rising sizes make the points of a curve: each APART times the one before, counted from the first; the last.

    At most `most`, those with the most labels. Counted so, they stay the same while sizes are added at the end.
    """
    found: list[int] = []
    for i, size in enumerate(sizes[:-1]):
        if size * APART <= sizes[-1] and (not found or size >= APART * sizes[found[-1]]):
            found.append(i)
    return [*found, len(sizes) - 1][-most:] if sizes else []


def _law(
    sizes: NDArray[np.float64], errors: NDArray[np.float64], n: int, more: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(b,) by how much the error falls from n labels to n + more, and squares left over, for each row of (b, r) errors."""
    falls, squares = [], []
    for exponent in _EXPONENTS:
        t = (sizes / sizes[0]) ** -exponent
        middle = t - t.mean()
        scale = np.maximum(0.0, errors @ middle / (middle @ middle))
        floor = errors.mean(axis=1) - scale * t.mean()
        below = floor < 0
        scale = np.where(below, np.maximum(0.0, errors @ t / (t @ t)), scale)
        floor = np.where(below, 0.0, floor)
        squares.append(np.square(errors - floor[:, None] - scale[:, None] * t).sum(axis=1))
        ends = (np.array([n, n + more]) / sizes[0]) ** -exponent
        falls.append(scale * (ends[0] - ends[1]))
    best = np.argmin(squares, axis=0)
    rows = np.arange(len(errors))
    return np.stack(falls)[best, rows], np.stack(squares)[best, rows]


def kappa(answers: NDArray[np.int64], others: NDArray[np.int64]) -> float:
    """How far two models agree on (n,) examples beyond chance: 1 wholly, 0 as chance would (Cohen 1960).

    From 0.99 on, two successive models differ by 0.04 in F1 at most (4 (1 - kappa) / kappa; Bloodgood and Grothendieck 2013).
    """
    n = max(int(answers.max(initial=0)), int(others.max(initial=0))) + 1
    same = float((answers == others).mean())
    by_chance = float(np.bincount(answers, minlength=n) @ np.bincount(others, minlength=n)) / len(answers) ** 2
    return 1.0 if by_chance == 1 else (same - by_chance) / (1 - by_chance)


def settled(kappas: Sequence[float]) -> bool:
    """Have the answers settled: are the last STEADY pairs of rounds KAPPA alike, or more?

    "Stabilizing predictions", Bloodgood and Vijay-Shanker 2009; here strictly: each pair, not their mean.
    """
    return len(kappas) >= STEADY and min(kappas[-STEADY:]) >= KAPPA


def reasons_to_stop(gain: Gain | None, margin: float, kappas: Sequence[float], unasked: int) -> list[str]:
    """Why labelling may stop, in sentences; none where nothing says so.

    margin  points of accuracy: a smaller gain counts as none
    """
    reasons = []
    if gain is not None and gain.high < margin:
        reasons.append(
            f"the next {gain.more:,} labels are predicted to add {gain.points:.2f} points to the proxy's accuracy "
            f"({gain.low:.2f} to {gain.high:.2f}), less than {margin:g}"
        )
    if settled(kappas):
        said = ", ".join(f"{value:.3f}" for value in kappas[-STEADY:])
        reasons.append(
            f"the proxy's answers about the rest hardly change any more (Cohen's kappa of successive rounds {said}, "
            f"{KAPPA} asked for)"
        )
    if unasked <= 0:
        reasons.append("everything was asked")
    return reasons
