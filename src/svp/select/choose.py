"""From a row of the table and checked inputs to positions: what `select` and `score` do once the arguments are in order."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import DataError, MissingInput
from svp.select.budget import Budget, resolve_budget
from svp.select.classes import numbered
from svp.select.inputs import NO_SIGNAL, Inputs
from svp.select.limits import Choose, Limits, PerClass, as_costs, limits_of, resolve_spend
from svp.select.table import Cover, Floats, Ints, Method, Picks, Rank, room_for

# Values looked at to guess which are among the highest; the guess decides the speed, never the answer.
_SAMPLE = 1 << 16


@dataclass(frozen=True)
class Chooser:
    """A method with everything it reads.

    choose       turns (already, candidates, size) into picks
    fixed_order  what it takes does not depend on what was taken before (see `Sampler`)
    never        positions that it would never take
    """

    choose: Choose
    fixed_order: bool = False
    never: Ints = field(default_factory=lambda: np.zeros(0, np.int64))


def choose_by(
    name: str,
    row: Method,
    inputs: Inputs,
    seed: int,
    options: dict[str, Any],
    order: Callable[[Ints], Ints],
    barred: NDArray[np.bool_],
) -> Chooser:
    """What makes the choice, for everything that is not barred."""

    def by_order(candidates: Ints) -> Ints:
        return candidates[np.argsort(order(candidates))]

    def given_to(function: Method) -> dict[str, Any]:
        """What it names of GIVEN; the ground set is sorted only for those that do."""
        values = function.given(ids=inputs.ids, seed=seed, ground=barred)
        return {**values, "ground": by_order(np.flatnonzero(~barred))} if "ground" in values else values

    def room(function: Method, already: Ints, size: int) -> dict[str, Any]:
        return function.given(memory=_room(row, inputs, options, size, len(already)))

    if not isinstance(row, Rank):
        arrays = [
            _scores_for(name, row, inputs, seed, barred) if need == "scores" else inputs.whole(need)
            for need in row.needs
        ]
        theirs = given_to(row)

        def cover(already: Ints, candidates: Ints, size: int) -> Picks:
            candidates = by_order(candidates)
            memory = room(row, already, size)
            picks = row.function(*arrays, already, candidates, size, **memory, **theirs, **options)
            return _as_picks(name, picks, candidates, size)

        return Chooser(cover, row.fixed_order)
    sampler = row.sampler
    if "scores" in inputs.arrays:
        values = inputs.whole("scores").astype(np.float64)
    else:
        values = scores_of(name, row, inputs, seed, row.own(options), barred)
    if sampler is None:

        def top(already: Ints, candidates: Ints, size: int) -> Picks:
            pos = _top(values, candidates, size, order)
            return Picks(pos, values[pos])

        return Chooser(top, row.fixed_order)
    arrays = [inputs.whole(need) for need in sampler.needs]
    own = {key: options[key] for key in sampler.options}
    theirs = {**given_to(sampler), **own}

    def sample(already: Ints, candidates: Ints, size: int) -> Picks:
        candidates = by_order(candidates)
        memory = room(sampler, already, size)
        pos = sampler.function(values, *arrays, already, candidates, size, **memory, **theirs)
        return replace(_as_picks(name, pos, candidates, size), gains=values[pos])

    if sampler.never is None:
        return Chooser(sample, row.fixed_order)
    return Chooser(sample, row.fixed_order, sampler.never(values, by_order(np.flatnonzero(~barred)), **own))


def scores_of(
    name: str,
    row: Rank,
    inputs: Inputs,
    seed: int,
    options: Mapping[str, Any],
    barred: NDArray[np.bool_] | None = None,
) -> Floats:
    """(n,) scores, in chunks of examples where the method allows. What is barred takes no part, and has 0."""
    values = np.zeros(len(inputs))
    ground = None if barred is None or not barred.any() else np.flatnonzero(~barred)
    given: dict[str, Any] = {"ids": inputs.ids, "seed": seed, "memory": _room(row, inputs, options)}

    def put(rows: slice | Ints, arrays: list[Any], **more: Any) -> None:
        ids = inputs.ids[rows]
        result = np.asarray(row.function(*arrays, **row.given(**{**given, "ids": ids, **more}), **options))
        if result.shape != ids.shape or result.dtype.kind not in "fiub":
            raise DataError(
                f"Method {name!r} gave shape {result.shape}, type {result.dtype} for {len(ids)} examples; "
                "it has to give one number for each"
            )
        values[rows] = result

    def fill(rows: slice) -> None:
        keep = None if ground is None else ~barred[rows]  # type: ignore[index]
        arrays = [inputs.part(need, rows, keep) for need in row.needs]
        put(rows if keep is None else np.flatnonzero(keep) + rows.start, arrays)

    def fill_all() -> None:
        arrays = [inputs.whole(need) for need in row.needs]
        pos = np.arange(len(inputs)) if ground is None else ground
        if row.given(ground=pos):
            put(pos, arrays, ground=pos, ids=inputs.ids)
        else:  # a function of somebody's own sees those alone that take part
            put(pos, arrays if ground is None else [inputs.of_examples(need, ground) for need in row.needs])

    if row.per_example:  # one chunk after the other: operations on one are too short to share among threads
        for rows in inputs.chunks(row.needs):
            fill(rows)
    else:
        fill_all()
    finite = np.isfinite(values)
    if not finite.all():
        bad = inputs.ids[~finite]
        hint = "; leave out what training never showed" if any(need not in NO_SIGNAL for need in row.needs) else ""
        raise DataError(
            f"Method {name!r} gave {len(bad)} scores that are not finite, the first ids: {bad[:3].tolist()}{hint}"
        )
    return values


def _room(row: Method, inputs: Inputs, options: Mapping[str, Any], size: int = 0, n_already: int = 0) -> int:
    return room_for(row, replace(inputs.shape(size, n_already), options=options))


def _scores_for(name: str, row: Method, inputs: Inputs, seed: int, barred: NDArray[np.bool_]) -> Floats:
    """(n,) the scores that a method of sets starts from: those given, or those of the ranking that its row names."""
    if "scores" in inputs.arrays or not isinstance(row, Cover) or row.scored_by is None:
        return np.asarray(inputs.whole("scores"), np.float64)
    return scores_of(name, row.scored_by, inputs, seed, row.scored_by.options, barred)


def _top(values: Floats, candidates: Ints, size: int, order: Callable[[Ints], Ints]) -> Ints:
    """Positions of the `size` candidates with the highest values, in descending order; equals by their key."""
    own = values if len(candidates) == len(values) else values[candidates]
    if 0 < size < len(candidates):
        # Sorting only what can be in: first those above a guess from a sample, then those at or above the last that is.
        sample = own[:: max(1, len(own) // _SAMPLE)]
        guess = np.quantile(sample, max(0.0, 1 - 1.1 * size / len(own) - 3 / len(sample)), method="lower")
        likely = np.flatnonzero(own >= guess)
        if len(likely) >= size:
            candidates, own = candidates[likely], own[likely]
        likely = np.flatnonzero(own >= np.partition(own, len(own) - size)[len(own) - size])
        candidates, own = candidates[likely], own[likely]
    return candidates[np.lexsort((order(candidates), -own))[:size]]


def _as_picks(name: str, picks: Picks | ArrayLike, candidates: Ints, size: int) -> Picks:
    """What a set method returned, if it is what was asked for; bare positions get gains of NaN."""
    if not isinstance(picks, Picks):
        pos = np.asarray(picks, np.int64)
        picks = Picks(pos, np.full(pos.shape, np.nan))
    if picks.pos.shape != (size,) or len(np.unique(picks.pos)) != size or not np.isin(picks.pos, candidates).all():
        raise DataError(
            f"Method {name!r} had to give {size} distinct candidates; it gave {picks.pos.shape}, or repeats, or others"
        )
    return picks


class Terms:
    """What a choice must keep to: how many examples, or how much money, and so many of each class.

    amount  examples, or where they have costs money
    """

    def __init__(
        self,
        inputs: Inputs,
        budget: Budget,
        per_class: PerClass | None,
        costs: ArrayLike | None,
        given: NDArray[np.bool_],
        candidates: Ints,
    ) -> None:
        if per_class is not None and "labels" not in inputs.arrays:
            raise MissingInput(
                "per_class needs labels; pass labels=, an (n,) array of classes (predicted ones will do)"
            )
        self.classes = inputs.classes or ()
        self.per_class, self.given = numbered(per_class, self.classes) if self.classes else per_class, given
        self.labels = inputs.arrays["labels"].astype(np.int64) if per_class is not None else None
        self.costs = None if costs is None else as_costs(costs, len(inputs), inputs.ids)
        self.amount = (
            resolve_budget(budget, len(candidates))
            if self.costs is None
            else resolve_spend(budget, self.costs[candidates])
        )

    @property
    def size(self) -> int | None:
        """How many examples; None where costs decide."""
        return int(self.amount) if self.costs is None else None

    @property
    def limited(self) -> bool:
        """Whether there is more to keep to than the size."""
        return self.per_class is not None or self.costs is not None

    def limits(self, candidates: Ints) -> Limits:
        """The limits as they are for these candidates; BudgetError where they cannot be met."""
        return limits_of(
            self.per_class, self.labels, self.costs, self.given, candidates, self.size, self.amount, self.classes
        )
