"""What a choice must keep to beside its size: so many of each class, and a total cost.

One rule for every method: its own order is followed for as long as the minimums can still be met; from then on only classes
that lack are open; a class at its maximum is closed, and so is an example that what is left of the money does not buy. For a
ranking that is the best choice there is under minimums and maximums (they form a matroid). Where the next choice depends on those
before, the method goes on from them whenever something closes, as a greedy algorithm does that skips what it may not take.
"""

import bisect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import cycle
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from svp.errors import BudgetError, DataError, SettingError
from svp.select.options import is_whole, unmasked
from svp.select.table import Floats, Ints, Picks

PerClass = Mapping[str, Any]
Choose = Callable[[Ints, Ints, int], Picks]  # (already, candidates, size) -> picks

_ROUNDING = 1e-9  # of an amount of money: sums of prices are not exact
_DEAREST = 1e300  # what all together may cost
_CLASSES = 1 << 24  # that limits are kept for: a few numbers each, whether it has examples or not
_AT_ONCE = 1 << 16  # examples looked at as plain numbers at a time

_FORMS = '{"min": 5}, {"max": {0: 10, 1: 20}}, {"share": "equal"}, {"share": "natural"} or {"share": {0: 0.7, 1: 0.3}}'


@dataclass(frozen=True)
class Limits:
    """How many more of each class may be chosen, and what each example costs.

    classes  (n,) class of each example, -1 where unknown: such examples belong to no class, and no limit holds for them
    least    (c,) at least so many more
    most     (c,) at most so many more
    costs    (n,) what each costs; or None: they are counted
    """

    classes: Ints
    least: Ints
    most: Ints
    costs: Floats | None = None


def as_costs(costs: Any, n: int, ids: Ints) -> Floats:
    """(n,) float64 costs, 0 or more."""
    unmasked("costs", costs)
    try:
        values = np.asarray(costs, np.float64)
    except (TypeError, ValueError):
        raise DataError("costs: values that are no numbers; give one cost for each example") from None
    if values.shape != (n,):
        raise DataError(f"costs: shape {values.shape} for {n} examples; give one cost for each")
    if len(bad := ids[~(np.isfinite(values) & (values >= 0))]):
        raise DataError(
            f"costs: {len(bad)} examples have a cost that is below 0 or not finite, the first ids: {bad[:3].tolist()}"
        )
    if n and values.max() > _DEAREST / n:
        raise DataError(f"costs: one of {values.max():g} among {n} examples is too much to add up; give a smaller unit")
    return values


def resolve_spend(budget: Any, costs: Floats) -> float:
    """The total cost that `budget` means for candidates of these costs: an amount, or a share of their total ("10%").

    An amount above the total buys everything. Raises BudgetError for less than nothing or what is no number.
    """
    text = str(budget).strip()
    total = math.fsum(costs)  # exact, so that the order of the rows does not decide the last bit
    try:
        if isinstance(budget, (bool, np.bool_)):
            raise ValueError
        amount = float(text.removesuffix("%"))
    except ValueError:
        raise BudgetError(
            f"Budget {budget!r} is no number; with costs= give a total cost, or a share of all such as '10%' "
            f"(everything costs {total:g})"
        ) from None
    if text.endswith("%"):
        if amount > 100:
            raise BudgetError(f"Budget {text} is a share above 100%; everything costs {total:g}")
        amount *= total / 100
    if not amount >= 0:
        raise BudgetError(f"Budget {text} is less than nothing; everything costs {total:g}")
    return min(amount, total)


def limits_of(
    per_class: PerClass | None,
    labels: Ints | None,
    costs: Floats | None,
    already: NDArray[np.bool_],
    candidates: Ints,
    size: int | None,
    spend: float,
    names: tuple[str, ...] = (),
) -> Limits:
    """Check `per_class` against what there is: SettingError for what makes no sense, BudgetError for what cannot be met.

    size   how many new examples; None where costs decide
    names  of the classes, where they have any: for errors alone
    """
    if per_class is None:
        return Limits(np.full(len(already), -1), np.zeros(0, np.int64), np.zeros(0, np.int64), costs)
    assert labels is not None
    if not isinstance(per_class, Mapping) or not per_class or not per_class.keys() <= {"min", "max", "share"}:
        raise SettingError(f"per_class={per_class!r}; give one such as {_FORMS}")
    n_classes = int(labels.max(initial=-1)) + 1
    if n_classes > _CLASSES:
        raise DataError(
            f"labels: class {n_classes - 1}, but limits per class count from 0 to {_CLASSES - 1} at most; "
            "number the classes from 0, or give their names as text"
        )
    have = np.bincount(labels[already & (labels >= 0)], minlength=n_classes)
    there = np.bincount(labels[candidates][labels[candidates] >= 0], minlength=n_classes)
    if "share" in per_class:
        if len(per_class) > 1:
            raise SettingError("per_class: share says how many of each class; give it without min and max")
        if size is None:
            raise SettingError(
                "per_class: a share counts examples, but with costs nobody knows how many; give min or max"
            )
        if len(unknown := candidates[labels[candidates] < 0]):
            raise SettingError(
                f"per_class: {len(unknown)} candidates have no class and so no share; exclude them, or give min or max"
            )
        quota = _quotas(per_class["share"], size, have, there, names)
        return Limits(labels, quota, quota)
    low = _counts("min", per_class.get("min", 0), have + there > 0)
    high = _counts("max", per_class.get("max", np.iinfo(np.int64).max), have + there > 0)
    if len(bad := np.flatnonzero(low > high)):
        raise SettingError(f"per_class: class {_called(bad[0], names)} has min {low[bad[0]]} above max {high[bad[0]]}")
    least, most = np.maximum(low - have, 0), np.maximum(high - have, 0)
    if len(short := np.flatnonzero(least > there)):
        c = short[0]
        raise BudgetError(
            f"per_class: min {low[c]} of class {_called(c, names)} cannot be met: {have[c]} are chosen already and {there[c]} "
            "are candidates; ask for fewer"
        )
    limits = Limits(labels, least, most, costs)
    if size is not None:
        free = int((labels[candidates] < 0).sum())
        if least.sum() > size:
            raise BudgetError(f"per_class: the minimums want {least.sum()} examples, the budget is {size}; raise it")
        if (able := int(np.minimum(most, there).sum()) + free) < size:
            raise BudgetError(f"per_class: the maximums leave {able} examples, the budget is {size}; lower it")
    elif (dues := _dues(limits, least, candidates)) > spend:
        raise BudgetError(f"per_class: the minimums cost {dues:g} at least, the budget is {spend:g}; raise it")
    return limits


def choose_within(
    choose: Choose, limits: Limits, already: Ints, candidates: Ints, budget: float, *, fixed_order: bool
) -> Picks:
    """Follow `choose` within `limits`; `budget` is a number of examples, or where there are costs a total.

    fixed_order  what `choose` takes does not depend on what was taken before: it is asked once, and what is closed is passed over
    """
    tally = _Tally(limits, candidates, budget)
    if fixed_order:
        picks = choose(already, candidates, len(candidates))
        return _at(picks, _passing_over(picks.pos, tally))
    parts: list[Picks] = []
    while len(open_ := candidates[tally.is_open(candidates)]):
        picks = choose(already, open_, tally.n_likely(open_))
        taken = tally.take(picks.pos, skip=False)
        parts.append(_at(picks, taken))
        already = np.concatenate([already, picks.pos[taken]])
        # Where nothing was taken the first would eat up what the minimums still cost: it never fits again.
        candidates = candidates[~np.isin(candidates, picks.pos[taken] if len(taken) else picks.pos[:1])]
    return _joined(parts)


def _passing_over(order: Ints, tally: "_Tally") -> Ints:
    """Places in `order` of those taken: down the order, and down what is left of it once the minimums are met."""
    left, taken = np.arange(len(order)), [np.zeros(0, np.int64)]
    while len(open_ := left[tally.is_open(order[left])]):
        now = open_[tally.take(order[open_], skip=True)]
        if not len(now):  # what was passed over is too dear for good
            break
        taken.append(now)
        left = left[~np.isin(left, now)]
    return np.concatenate(taken)


class _Tally:
    """What is left of budget and limits while a choice grows."""

    def __init__(self, limits: Limits, candidates: Ints, budget: float) -> None:
        self.limits = limits
        self.least, self.most = limits.least.copy(), limits.most.copy()
        # Sums of prices round: what is over by so little is not over.
        self.left = budget if limits.costs is None else budget * (1 + _ROUNDING)
        # Of each class that lacks, where costs count: the prices of its candidates in order, and what its minimum costs.
        self.prices: dict[int, list[float]] = {}
        self.dues: dict[int, float] = {}
        if limits.costs is not None:
            for c in np.flatnonzero(limits.least).tolist():
                self.prices[c] = sorted(limits.costs[candidates[limits.classes[candidates] == c]].tolist())
                self.dues[c] = math.fsum(self.prices[c][: limits.least[c]])
        # Asked for with every example that is looked at: not added up anew each time.
        self.due = math.fsum(self.dues.values())
        self.owed = int(self.least.sum())

    def is_open(self, pos: Ints) -> NDArray[np.bool_]:
        """(k,) which of these may come next."""
        classes, costs = self.limits.classes[pos], self.limits.costs
        mine = classes >= 0
        open_ = np.full(len(pos), self.left >= 1) if costs is None else costs[pos] <= self.left
        open_[mine] &= self.most[classes[mine]] > 0
        if self._must():
            open_ &= mine
            open_[mine] &= self.least[classes[mine]] > 0
        return open_

    def n_likely(self, candidates: Ints) -> int:
        """How many of the open candidates to ask for: all that the budget takes, or about as many as it buys."""
        costs = self.limits.costs
        if costs is None:
            wanted = self.owed if self._must() else int(self.left)
        else:
            mean = math.fsum(costs[candidates]) / len(candidates)
            wanted = math.ceil(self.left / mean * (1 - 2 * _ROUNDING)) if mean else len(candidates)
        return max(1, min(wanted, len(candidates)))

    def take(self, pos: Ints, *, skip: bool) -> Ints:
        """Places in `pos` of those taken, in order; what may not be taken ends it, or is passed over with `skip`.

        It ends, too, when the minimums are met: then others are open again.
        """
        taken: list[int] = []
        must = self._must()
        for start in range(0, len(pos), _AT_ONCE):
            block = pos[start : start + _AT_ONCE]
            classes = self.limits.classes[block].tolist()
            prices = [1.0] * len(block) if self.limits.costs is None else self.limits.costs[block].tolist()
            for place, (c, price) in enumerate(zip(classes, prices, strict=True), start):
                if not self._may(c, price, must):
                    if skip:
                        continue
                    return np.array(taken, np.int64)
                taken.append(place)
                self._pay(c, price)
                if must != (must := self._must()) and not must:
                    return np.array(taken, np.int64)
                if self.limits.costs is None and self.left < 1:
                    return np.array(taken, np.int64)
        return np.array(taken, np.int64)

    def _may(self, c: int, price: float, must: bool) -> bool:
        """Whether one of this class and price can be taken, so that the cheapest way to meet the minimums still fits."""
        if must and (c < 0 or self.least[c] <= 0):
            return False
        if c >= 0 and self.most[c] <= 0:
            return False
        return price + self.due - self._saved(c, price) <= self.left

    def _saved(self, c: int, price: float) -> float:
        """By how much the dues fall with one of this class and price."""
        return (
            min(price, self.prices[c][self.least[c] - 1]) if self.dues.get(c) is not None and self.least[c] > 0 else 0.0
        )

    def _pay(self, c: int, price: float) -> None:
        if self.dues.get(c) is not None and self.least[c] > 0:
            self.dues[c] -= (saved := self._saved(c, price))
            self.due -= saved
            self.prices[c].pop(bisect.bisect_left(self.prices[c], price))
            if self.least[c] == 1:
                del self.dues[c]
                self.due = math.fsum(self.dues.values())
        if c >= 0:
            self.owed -= int(self.least[c] > 0)
            self.least[c] = max(0, self.least[c] - 1)
            self.most[c] -= 1
        self.left -= price

    def _must(self) -> bool:
        """Whether only classes below their minimum are open: at once where costs count, else when the rest is theirs."""
        return self.owed > 0 and (self.limits.costs is not None or self.owed >= self.left)


def _dues(limits: Limits, least: Ints, candidates: Ints) -> float:
    """The least that these minimums can cost."""
    assert limits.costs is not None
    classes = limits.classes[candidates]
    return float(
        sum(np.sort(limits.costs[candidates[classes == c]])[: least[c]].sum() for c in np.flatnonzero(least > 0))
    )


def _counts(name: Literal["min", "max"], given: Any, occurs: NDArray[np.bool_]) -> Ints:
    """(c,) the number for each class: one for all that occur, or those named (the rest unlimited)."""
    n_classes = len(occurs)
    counts = np.full(n_classes, 0 if name == "min" else np.iinfo(np.int64).max)
    pairs = given.items() if isinstance(given, Mapping) else [(c, given) for c in np.flatnonzero(occurs).tolist()]
    for c, count in pairs:
        if not is_whole(count) or count < 0:
            raise SettingError(f"per_class: {name} {count!r}; give a whole number of examples, 0 or more")
        counts[_class(c, n_classes)] = count
    return counts


def _called(c: Any, names: tuple[str, ...]) -> str:
    return names[c] if names else str(c)


def _quotas(share: Any, size: int, have: Ints, there: Ints, names: tuple[str, ...]) -> Ints:
    """(c,) how many more of each class, together `size`, so that all chosen ones come as near to the shares as can be."""
    n_classes = len(there)
    if share == "equal":
        weights = (have + there > 0).astype(np.float64)
    elif share == "natural":
        weights = (have + there).astype(np.float64)
    elif isinstance(share, Mapping):
        weights = np.zeros(n_classes)
        for c, weight in share.items():
            try:
                weights[_class(c, n_classes)] = float(weight)
            except (TypeError, ValueError):
                weights[:] = np.nan
        if not (np.isfinite(weights).all() and (weights >= 0).all() and abs(weights.sum() - 1) < 1e-6):
            raise SettingError(f"per_class: share {dict(share)!r}; give each class a share from 0 to 1, together 1")
    else:
        raise SettingError(f"per_class: share {share!r}; give one such as {_FORMS}")
    total = int(have.sum()) + size
    wanted = _apportion(total, weights, have, have + there)
    if isinstance(share, Mapping):
        exact = _apportion(total, weights, np.zeros_like(have), np.full_like(have, total))
        if len(off := np.flatnonzero((exact > have + there) | (exact < have))):
            c = off[0]
            raise BudgetError(
                f"per_class: class {_called(c, names)} should have {exact[c]} of {total}; {have[c]} are chosen already and "
                f"{there[c]} are candidates; change its share, or lower the budget"
            )
    return wanted - have


def _apportion(total: int, weights: Floats, low: Ints, high: Ints) -> Ints:
    """(c,) whole numbers from low to high, together `total`, in proportion to `weights` as far as the bounds allow.

    Rounded down; what is left goes one each to the largest remainders, of equal ones to the lower class.
    """
    if (most := np.where(weights > 0, high, low)).sum() <= total:
        return most
    below, above = 0.0, (total + 1.0) / max(weights[weights > 0].min(initial=np.inf), 1e-300) if total else 1.0
    for _ in range(200):
        middle = (below + above) / 2
        below, above = (middle, above) if np.clip(middle * weights, low, high).sum() < total else (below, middle)
    exact = np.clip(above * weights, low, high)
    counts = np.floor(exact + 1e-9).astype(np.int64)
    order = np.lexsort((np.arange(len(counts)), -np.round(exact - counts, 9)))
    for c in cycle(order.tolist()):
        if counts.sum() >= total:
            break
        counts[c] += counts[c] < high[c] and weights[c] > 0
    return counts


def _class(c: Any, n_classes: int) -> int:
    if not is_whole(c) or not 0 <= c < n_classes:
        raise SettingError(f"per_class: there is no class {c!r}; labels has the classes 0 to {n_classes - 1}")
    return int(c)


def _at(picks: Picks, places: Ints) -> Picks:
    return Picks(
        picks.pos[places],
        picks.gains[places],
        None if picks.nearest is None else picks.nearest[places],
        None if picks.distances is None else picks.distances[places],
    )


def _joined(parts: list[Picks]) -> Picks:
    if not parts:
        return Picks(np.zeros(0, np.int64), np.zeros(0))

    def joined(columns: list[Any]) -> Any:
        return None if any(column is None for column in columns) else np.concatenate(columns)

    return Picks(
        np.concatenate([p.pos for p in parts]),
        np.concatenate([p.gains for p in parts]),
        joined([p.nearest for p in parts]),
        joined([p.distances for p in parts]),
    )
