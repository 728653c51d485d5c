"""Slow, obvious versions of the methods, written from their papers: one example, one number, one line at a time."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray


def least_confidence(probs: NDArray[np.float64]) -> list[float]:
    return [1 - max(float(p) for p in row) for row in probs]


def margin(probs: NDArray[np.float64]) -> list[float]:
    values = []
    for row in probs:
        first, second, *_ = sorted([float(p) for p in row] + [0.0], reverse=True)
        values.append(-(first - second))
    return values


def entropy(probs: NDArray[np.float64]) -> list[float]:
    return [-math.fsum(float(p) * math.log(p) for p in row if p > 0) for row in probs]


def forgetting(correct: NDArray[np.uint8]) -> list[float]:
    values = []
    for history in correct.T:
        seen = [int(shown) for shown in history if shown != 255]
        events = sum(before == 1 and after == 0 for before, after in pairwise(seen))
        values.append(float(events if 1 in seen else len(history)))
    return values


def squared(a: NDArray[np.float64], b: NDArray[np.float64]) -> float:
    return float(((a - b) ** 2).sum())


def k_center(
    points: NDArray[np.float64], chosen: Sequence[int], candidates: Sequence[int], budget: int
) -> tuple[list[int], list[float]]:
    """Positions and gains; `chosen` is not empty; of equally far candidates the earlier in the list goes first."""
    chosen, left = list(chosen), list(candidates)
    picks, gains = [], []
    for _ in range(budget):
        distances = [min(squared(points[i], points[c]) for c in chosen) for i in left]
        farthest = distances.index(max(distances))
        gains.append(math.sqrt(distances[farthest]))
        picks.append(left.pop(farthest))
        chosen.append(picks[-1])
    return picks, gains


def radius(points: NDArray[np.float64], chosen: Sequence[int]) -> float:
    """The largest distance of a point to its nearest chosen one: what k-center makes small."""
    return math.sqrt(max(min(squared(p, points[c]) for c in chosen) for p in points))


def coverage(similarity: Sequence[Sequence[float]], ground: Sequence[int], chosen: Sequence[int]) -> float:
    """What facility location maximises."""
    return math.fsum(max([0.0, *(similarity[v][s] for s in chosen)]) for v in ground)


def cut(similarity: Sequence[Sequence[float]], ground: Sequence[int], chosen: Sequence[int], lambda_: float) -> float:
    """What graph cut maximises."""
    represented = math.fsum(similarity[v][s] for v in ground for s in chosen)
    return lambda_ * represented - math.fsum(similarity[s][t] for s in chosen for t in chosen)


def greedy(
    value: Callable[[Sequence[int]], float], chosen: Sequence[int], candidates: Sequence[int], budget: int
) -> tuple[list[int], list[float]]:
    """Positions and gains: what adds most to `value`, again and again; of equals the earlier candidate goes first."""
    chosen, left = list(chosen), list(candidates)
    picks, gains = [], []
    for _ in range(budget):
        now = value(chosen)
        added = [value([*chosen, c]) - now for c in left]
        best = added.index(max(added))
        gains.append(added[best])
        picks.append(left.pop(best))
        chosen.append(picks[-1])
    return picks, gains
