"""What was reached, and what the numbers can carry: differences between arms that share seeds and test rows."""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

Verdict = Literal["shown", "refuted", "not shown"]
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Difference:
    """Accuracy of one arm minus another, in points (hundredths), over paired seeds and test rows.

    mean       over the seeds
    low, high  95 % interval of the mean, within -100 and 100; infinite where one seed alone says nothing about others
    smallest   the smallest difference that this many seeds and test rows could show: half the interval's length before it is
               cut; above 100 none could be
    rows_low, rows_high  the same interval for these seeds only: what other test rows could change, not other trainings
    """

    mean: float
    low: float
    high: float
    smallest: float
    rows_low: float
    rows_high: float
    n_seeds: int
    n_test: int

    def facts(self) -> dict[str, Any]:
        """As JSON, which has no infinity: an open end is None."""
        return {
            key: None if isinstance(value, float) and not np.isfinite(value) else value
            for key, value in asdict(self).items()
        }


def difference(correct: ArrayLike, other: ArrayLike) -> Difference:
    """Compare two arms by their (s, n) answers: right or wrong on the same n test rows, row i of both from the same seed.

    The seeds give s paired differences, whose spread gives a Student-t half-length; the test rows give another, from the
    spread of the mean answer per row. Seeds share the test rows, so the second does not shrink with s: the two are
    independent and are added in squares. With one seed the first is unknown and the interval has no ends.
    Where few rows differ their spread says too little of those not drawn (none differ: a spread of 0), so one row won and one
    lost are added before it is taken: twice what Agresti and Min 2005 add (half a row to each cell), to be on the safe side.
    Few seeds or rows can make the ends go beyond -100 or 100, where no difference is: there they are cut. The interval loses
    nothing that could be the truth, so it holds the truth exactly as often, and no verdict on a margin below 100 changes.
    """
    a, b = np.atleast_2d(np.asarray(correct, float)), np.atleast_2d(np.asarray(other, float))
    if a.shape != b.shape or a.size == 0:
        raise ValueError(f"arms must share seeds and test rows; got shapes {a.shape} and {b.shape}")
    per_pair = 100 * (a - b)
    n_seeds, n_test = per_pair.shape
    mean = float(per_pair.mean())
    per_row = np.append(per_pair.mean(axis=0), [100.0, -100.0])
    rows = _half_length(per_row)
    seeds = _half_length(per_pair.mean(axis=1)) if n_seeds > 1 else np.inf
    half = float(np.hypot(rows, seeds))
    ends = _ends(mean, half) if n_seeds > 1 else (-np.inf, np.inf)
    return Difference(mean, *ends, half, *_ends(mean, rows), n_seeds, n_test)


def _ends(mean: float, half: float) -> tuple[float, float]:
    return max(-100.0, mean - half), min(100.0, mean + half)


def _half_length(values: NDArray[np.float64]) -> float:
    """Half of the Student-t interval of a mean."""
    # Here, not above: to load it takes as long as a short command does. scipy.stats would take far longer.
    from scipy import special

    t = special.stdtrit(len(values) - 1, 0.5 + CONFIDENCE / 2)
    return float(t * values.std(ddof=1) / np.sqrt(len(values)))


def no_worse(arm_minus_reference: Difference, margin: float) -> Verdict:
    """Is the arm at most `margin` points worse? Shown if even the lower end of the interval is; refuted if not even the upper."""
    if arm_minus_reference.low > -margin:
        return "shown"
    return "refuted" if arm_minus_reference.high < -margin else "not shown"


def better(arm_minus_reference: Difference) -> Verdict:
    """Is the arm better? Shown if the whole interval lies above 0; refuted if it lies below."""
    if arm_minus_reference.low > 0:
        return "shown"
    return "refuted" if arm_minus_reference.high < 0 else "not shown"


def labels_needed(correct: ArrayLike, totals: Sequence[int], curve: Sequence[ArrayLike]) -> dict[str, float]:
    """How many labels of another arm are worth as much as this one's: where its curve, linear between its totals, gets as far.

    correct  (s, n) answers of this arm, as in `difference`; curve: those of the other at each of its totals, which rise
    Returns `mean`, by the means over the seeds (one alone may never get as far); `low` and `high`, the ends of its 95 % interval:
    from the first place of the curve at which this arm is not shown better to the last at which it is not shown worse, by
    `difference`, so that seeds and test rows count (Fieller 1954). 0 stands for somewhere below the first total, infinity for
    somewhere above the last: with one seed `low` and `high` are that.
    """
    points = [np.atleast_2d(np.asarray(answers, float)) for answers in curve]

    def ahead(at: float) -> Difference:
        """This arm less the other, at so many totals along the curve: 1.5 is half way between its second and third."""
        before, share = points[int(at)], at % 1
        return difference(correct, before + share * (points[int(at) + 1] - before) if share else before)

    def first_not(leads: Callable[[Difference], bool]) -> float:
        return _turn(lambda at: leads(ahead(at)), totals)

    return {
        "mean": totals[0] if ahead(0).mean == 0 else first_not(lambda found: found.mean > 0),
        "low": first_not(lambda found: found.low > 0),
        "high": _turn(lambda at: ahead(at).high < 0, totals, backwards=True),
    }


def _turn(holds: Callable[[float], bool], totals: Sequence[int], *, backwards: bool = False) -> float:
    """The number of labels at which `holds`, asked along the totals from the first (or last) on, no longer does.

    It turns at most once between two totals: the ends of an interval of a mixture are concave and convex in its share.
    """
    places = range(len(totals))[:: -1 if backwards else 1]
    turned = next((at for at in places if not holds(at)), None)
    if turned is None:
        return 0.0 if backwards else np.inf
    if turned == places[0]:
        return np.inf if backwards else 0.0
    yes, no = float(turned + (1 if backwards else -1)), float(turned)
    for _ in range(40):
        middle = (yes + no) / 2
        yes, no = (middle, no) if holds(middle) else (yes, middle)
    return float(np.interp(no, np.arange(len(totals)), totals))


def per_class(correct: NDArray[np.bool_], labels: NDArray[np.int64], n_classes: int) -> list[float | None]:
    """Share of right answers for each class; None for a class without test rows."""
    return [float(correct[labels == c].mean()) if (labels == c).any() else None for c in range(n_classes)]


def macro_f1(predicted: NDArray[np.int64], labels: NDArray[np.int64]) -> float:
    """F1 of each class that occurs among labels or predictions, averaged: rare classes count as much as common ones."""
    classes = np.union1d(predicted, labels)
    hits = np.array([(predicted[labels == c] == c).sum() for c in classes])
    told = np.array([(predicted == c).sum() + (labels == c).sum() for c in classes])
    return float((2 * hits / told).mean())


def majority_rate(train_labels: NDArray[np.int64], test_labels: NDArray[np.int64]) -> float:
    """Accuracy of the answer that needs no input: always the most common class of the training part (of equals the first)."""
    return float((test_labels == np.bincount(train_labels).argmax()).mean())


def mean_and_spread(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and standard deviation (None for a single value)."""
    return float(np.mean(values)), float(np.std(values, ddof=1)) if len(values) > 1 else None


def agreement_of(votes: Sequence[tuple[int, str, int]]) -> dict[str, float | int | None]:
    """How far people agree: (example, who, what) each, one vote a person and example.

    examples  on how many examples two people or more have voted
    observed  share of the pairs of votes on one example that are the same, each example counting by its number of people
    alpha     Krippendorff's alpha for names (2011, "Computing Krippendorff's alpha-reliability"): 1 where all agree, 0 where they
              do as chance would; None where there is nothing to compare, or everybody always said the same
    """
    by_example: dict[int, Counter[int]] = {}
    for example, _, what in votes:
        by_example.setdefault(example, Counter())[what] += 1
    shared = [said for said in by_example.values() if said.total() > 1]
    if not shared:
        return {"examples": 0, "observed": None, "alpha": None}
    total: Counter[int] = sum(shared, Counter())
    n = total.total()
    same = sum(sum(k * (k - 1) for k in said.values()) / (said.total() - 1) for said in shared)
    by_chance = sum(k * (k - 1) for k in total.values()) / (n - 1)
    alpha = None if by_chance == n else 1 - (n - same) / (n - by_chance)
    return {"examples": len(shared), "observed": same / n, "alpha": alpha}
