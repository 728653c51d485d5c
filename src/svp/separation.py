"""Do frozen features tell the classes apart, and if not, would more labels help? A model on them learns nothing else."""

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import combinations
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.chance import shuffled

HALF_WAY = 0.75  # between chance (0.5) and perfect (1): a pair whose limit lies below counts as not told apart
LEAST = 20  # labelled examples of a class, scored ones too: with fewer nothing is said of it
MOST = 10_000  # examples looked at
MOST_CLASSES = MOST // LEAST  # that can have labels enough; where there are more, the rest count as one
MOST_PAIRS = 2000  # of classes, those most often confused
FOLDS = 5
NEIGHBORS = 10
CONFIDENCE = 0.95

Probe = Callable[[NDArray[np.float64], NDArray[np.int64], NDArray[np.float64], int], NDArray[np.float64]]


@dataclass(frozen=True)
class Pair:
    """Two classes that the features do not tell apart.

    auc    chance that an example of each is put in the right order, with the labels that there are (0.5: none better than a coin)
    limit  upper end of what more labels could make of it
    """

    classes: tuple[int, int]
    auc: float
    limit: float


@dataclass(frozen=True)
class Separation:
    """What probes reach on features.

    accuracy  share of the examples they had not seen that the better of the two probes gets right; None: too few to score
    chance    share of the largest class
    n         examples scored
    judged    pairs of classes with labels enough to be looked at
    pairs     those of them that are not told apart, and that more labels would not help
    """

    accuracy: float | None
    chance: float
    n: int
    judged: int
    pairs: tuple[Pair, ...]

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def separation(
    embeddings: NDArray[Any], labels: NDArray[np.int64], ids: NDArray[np.int64], scored: NDArray[np.bool_] | None = None
) -> Separation:
    """Cross-validate a linear and a nearest-neighbour probe on (n, d) features with (n,) labels and ids.

    scored  (n,) which of them may be scored: not those that a model asked for, which are hard because they were chosen so;
            default: all

    What more labels can still gain is bounded by what they have gained. The error above its limit falls with the number of labels
    m as m^-1/2 or faster (the rate of a linear rule's excess error; simple cases fall as 1/m), so four times the labels halve it
    at least, and no more is left to gain than was gained from a quarter of the labels to all. A pair is named when that limit, at
    95 % confidence for all pairs together (Bonferroni; variances after DeLong et al. 1988), stays below half way between chance
    and perfect for both probes. Where labels are few the bound is wide, and nothing is named. The failure is that of Wen et al.
    2024 (ASVP, arXiv 2403.01101): features from before the labels cannot tell labelled categories apart, and a proxy on them goes
    on asking for what it could not learn from.
    Of more than 500 classes those with the most labels are looked at, and the rest count as one.
    Time: 10 solutions of a d x d system and 10 searches among at most 10,000 examples; memory: 10,000 (d + 2,000) numbers.
    """
    rows = np.sort(shuffled(ids, 0, "separation")[:MOST])
    x = np.asarray(embeddings[rows], np.float64)
    y, ids = labels[rows], ids[rows]
    may = np.ones(len(rows), bool) if scored is None else scored[rows]
    classes, y = np.unique(y, return_inverse=True)
    rank = _rank_in_class(y, ids)
    classes, y = _common(classes, y, may)
    counts, chance = np.bincount(y[may], minlength=len(classes)), np.bincount(y[may]).max(initial=0) / max(may.sum(), 1)
    if len(classes) < 2 or may.sum() < 2 * FOLDS:
        return Separation(None, float(chance), int(may.sum()), 0, ())
    fold, in_quarter = rank % FOLDS, (rank // FOLDS) % 4 == 0
    found = [_out_of_fold(probe, x, y, fold, in_quarter) for probe in (_linear, _neighbors)]
    accuracy = max(float((whole.argmax(axis=1) == y)[may].mean()) for whole, _ in found)
    enough = list(combinations(np.flatnonzero((counts >= LEAST) & (classes >= 0)).tolist(), 2))
    looked = _most_confused(enough, found[0][0], y, may)
    z = NormalDist().inv_cdf(1 - (1 - CONFIDENCE) / max(len(looked), 1))
    pairs = []
    for a, b in looked:
        of = [may & (y == c) for c in (a, b)]
        bounds = [
            _bounds(whole[:, a] - whole[:, b], quarter[:, a] - quarter[:, b], of, fold, z) for whole, quarter in found
        ]
        auc, limit = max(auc for auc, _ in bounds), max(limit for _, limit in bounds)
        if limit < HALF_WAY:
            pairs.append(Pair((int(classes[a]), int(classes[b])), auc, limit))
    return Separation(accuracy, float(chance), int(may.sum()), len(looked), tuple(pairs))


def auc(scores: ArrayLike, first: NDArray[np.bool_], second: NDArray[np.bool_]) -> float:
    """Chance that an example of the first class scores higher than one of the second, equals counting half; NaN without both."""
    s = np.asarray(scores, np.float64)
    return float(_placements(s[first], s[second]).mean()) if first.any() and second.any() else float("nan")


def _rank_in_class(y: NDArray[np.int64], ids: NDArray[np.int64]) -> NDArray[np.int64]:
    """(n,) a random place of each example within its class: folds and quarters have all classes alike."""
    rank = np.empty(len(y), np.int64)
    order = shuffled(ids, 1, "separation")
    sizes = np.bincount(y)
    rank[order[np.argsort(y[order], kind="stable")]] = np.arange(len(y)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return rank


def _common(
    classes: NDArray[np.int64], y: NDArray[np.int64], may: NDArray[np.bool_]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The classes with the most examples that may be scored, and last, as -1, all others as one; and the number of each row's."""
    if len(classes) <= MOST_CLASSES:
        return classes, y
    kept = np.sort(np.argsort(-np.bincount(y[may], minlength=len(classes)), kind="stable")[:MOST_CLASSES])
    number = np.full(len(classes), MOST_CLASSES)
    number[kept] = np.arange(MOST_CLASSES)
    return np.append(classes[kept], -1), number[y]


def _out_of_fold(
    probe: Probe, x: NDArray[np.float64], y: NDArray[np.int64], fold: NDArray[np.int64], quarter: NDArray[np.bool_]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(n, c) scores of each example by a probe that was not shown it: fitted on the other folds, and on a quarter of them."""
    n_classes = int(y.max()) + 1
    whole, part = np.zeros((len(y), n_classes)), np.zeros((len(y), n_classes))
    for k in range(FOLDS):
        left_out = fold == k
        for scores, shown in ((whole, ~left_out), (part, ~left_out & quarter)):
            if shown.any() and left_out.any():
                scores[left_out] = probe(x[shown], y[shown], x[left_out], n_classes)
    return whole, part


def _linear(
    x: NDArray[np.float64], y: NDArray[np.int64], new: NDArray[np.float64], n_classes: int
) -> NDArray[np.float64]:
    """Ridge regression to the classes, its penalty one variance a feature: little where examples are many, much where few."""
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    deviation[deviation < 1e-6 * max(deviation.max(), 1e-30)] = np.inf  # a constant carries nothing
    x, new = (x - mean) / deviation, (new - mean) / deviation
    one_hot = np.eye(n_classes)[y]
    weights = np.linalg.solve(x.T @ x + x.shape[1] * np.eye(x.shape[1]), x.T @ (one_hot - one_hot.mean(axis=0)))
    return np.asarray(new @ weights + one_hot.mean(axis=0))


def _neighbors(
    x: NDArray[np.float64], y: NDArray[np.int64], new: NDArray[np.float64], n_classes: int
) -> NDArray[np.float64]:
    """Votes of the nearest examples."""
    k = min(NEIGHBORS, len(x))
    votes = np.zeros((len(new), n_classes))
    squares = np.square(x).sum(axis=1)
    for start in range(0, len(new), 1000):
        distance = squares - 2 * new[start : start + 1000] @ x.T
        nearest = np.argpartition(distance, k - 1, axis=1)[:, :k]
        for column in nearest.T:
            votes[start + np.arange(len(column)), y[column]] += 1
    return votes


def _most_confused(
    pairs: list[tuple[int, int]], scores: NDArray[np.float64], y: NDArray[np.int64], may: NDArray[np.bool_]
) -> list[tuple[int, int]]:
    if len(pairs) <= MOST_PAIRS:
        return pairs
    n_classes = scores.shape[1]
    confused = np.bincount(y[may] * n_classes + scores[may].argmax(axis=1), minlength=n_classes**2).reshape(
        n_classes, -1
    )
    return sorted(pairs, key=lambda pair: (-(confused[pair] + confused[pair[::-1]]), pair))[:MOST_PAIRS]


def _bounds(
    whole: NDArray[np.float64],
    quarter: NDArray[np.float64],
    of: list[NDArray[np.bool_]],
    fold: NDArray[np.int64],
    z: float,
) -> tuple[float, float]:
    """AUC of a pair with all labels, and the upper bound of what more could make of it.

    Scores of one fold are compared with each other only: another fold's are another fit's. Each example counts by its
    placement, the share of the other class that it is on the right side of; the variance is that of the placements' means.
    """
    sides: list[list[NDArray[np.float64]]] = [[], []]
    for k in range(FOLDS):
        a, b = (rows & (fold == k) for rows in of)
        if a.any() and b.any():
            for side, (one, other, sign) in zip(sides, ((a, b, 1), (b, a, -1)), strict=True):
                placed = [_placements(sign * s[one], sign * s[other]) for s in (whole, quarter)]
                side.append(np.stack(placed))
    if not sides[0]:
        return 0.5, 1.0
    first, second = (np.concatenate(side, axis=1) for side in sides)  # (2, n): by all labels, by a quarter
    n_a, n_b = first.shape[1], second.shape[1]
    least = (n_a + n_b + 1) / (12 * n_a * n_b)  # variance of chance itself: equal placements are no certainty
    upper = []
    for weights in ((1.0, 0.0), (2.0, -1.0)):  # all labels; all, and once more what they gained over a quarter
        a, b = np.array(weights) @ first, np.array(weights) @ second
        variance = max(a.var(ddof=1) / n_a + b.var(ddof=1) / n_b, least)
        upper.append(a.mean() + z * variance**0.5)
    return float(first[0].mean()), float(max(upper))


def _placements(mine: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(n,) share of the others that each is above, equals counting half."""
    others = np.sort(others)
    below, up_to = np.searchsorted(others, mine, "left"), np.searchsorted(others, mine, "right")
    return np.asarray((below + up_to) / (2 * len(others)))
