"""Chance, but with each class's share of it."""

import heapq
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import tie_keys
from svp.select.geometry import grouped
from svp.select.table import Ints


def stratified_random(
    labels: NDArray[Any], already: Ints, candidates: Ints, budget: int, *, ids: Ints, seed: int
) -> Ints:
    """Uniform inside each class, and of each class in proportion to what there is of it.

    labels      (n,) class numbers; those without one (-1) are a class of their own
    already     positions that count as chosen: a class that has more than its share waits until the others have caught up
    candidates  positions to choose from
    budget      how many, at most all candidates
    returns     positions in order of choice; the first k are the answer for budget k. Where nothing is chosen already, each
                class is less than 1 away from its exact share in each of these answers. There are no gains (NaN)
    cost        n operations, and log c for each pick; 48 n bytes

    The j-th of a class with n_c of n examples has a time in which the class stays less than 1 from its share: after
    (j - 1) n / n_c picks at the earliest, by pick j n / n_c at the latest. Who has to be done first goes first, and that
    meets all times (Baruah et al. 1996, "Proportionate progress: a notion of fairness in resource allocation").
    """
    candidates = candidates[np.argsort(tie_keys(ids[candidates], seed))]
    classes = labels[np.concatenate([already, candidates])]
    _, class_ = np.unique(classes, return_inverse=True)
    total = np.bincount(class_).tolist()
    had = np.bincount(class_[: len(already)], minlength=len(total)).tolist()
    count = had.copy()
    n, own = len(classes), class_[len(already) :]
    queues = grouped(own, len(total))  # those of each class, by their place in the list of candidates

    waiting: list[tuple[int, int]] = []  # (first pick it may be, class)
    ready: list[tuple[int, int, int]] = []  # (last pick it may be, place in the list of candidates, class)

    def wait(c: int) -> None:
        if count[c] < total[c]:
            heapq.heappush(waiting, (count[c] * n // total[c] + 1, c))

    for c in range(len(total)):
        wait(c)
    places = []
    for pick in range(len(already) + 1, len(already) + budget + 1):
        while waiting and waiting[0][0] <= pick:
            _, c = heapq.heappop(waiting)
            heapq.heappush(ready, (-(-(count[c] + 1) * n // total[c]), int(queues[c][count[c] - had[c]]), c))
        _, place, c = heapq.heappop(ready)
        places.append(place)
        count[c] += 1
        wait(c)
    return candidates[np.array(places, np.int64)]
