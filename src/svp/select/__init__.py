"""Arrays in, selections out: `select`, `score`, and the table of methods.

Knows numpy, scipy and (to save) pyarrow; no torch, no dataset, no file but the selection's own. A method is one
function and one row of METHODS: nothing else in the package asks for a method by its name.
"""

import operator
import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.chance import hash_ids
from svp.errors import DataError, MissingInput, SettingError, UnknownName
from svp.select import k_center, samplers
from svp.select import scores as score_functions
from svp.select.budget import Budget, Memory, resolve_budget
from svp.select.inputs import Inputs
from svp.select.limits import Choose, Limits, PerClass, as_costs, choose_within, limits_of, resolve_spend
from svp.select.selection import Selection
from svp.select.table import Cost, Cover, Floats, Ints, Method, Picks, Rank, Sampler, load_function, method_of, path_of

__all__ = [
    "METHODS",
    "SAMPLERS",
    "Cover",
    "Method",
    "Picks",
    "Rank",
    "Sampler",
    "Selection",
    "find_method",
    "resolve_budget",
    "score",
    "select",
]

SAMPLERS: dict[str, Sampler] = {
    "temperature": Sampler(samplers.temperature),
    "strata": Sampler(samplers.strata),
}

METHODS: dict[str, Method] = {
    "random": Rank(score_functions.random, needs=(), cost=Cost(lambda s: s.n, lambda s: 24 * s.n)),
    "least_confidence": Rank(score_functions.least_confidence, needs=("probs",), cost=Cost(lambda s: s.n * s.c)),
    "margin": Rank(score_functions.margin, needs=("probs",), cost=Cost(lambda s: s.n * s.c)),
    "entropy": Rank(score_functions.entropy, needs=("probs",), cost=Cost(lambda s: s.n * s.c)),
    "forgetting": Rank(score_functions.forgetting, needs=("correct",), cost=Cost(lambda s: s.n * s.n_epochs)),
    "k_center": Cover(
        k_center.k_center,
        needs=("embeddings",),
        cost=Cost(
            # At worst n d (already + budget). Bounds spare most of it: measured on normal rows, n 4,000 to 400,000.
            lambda s: s.d * (2 * s.n + (s.n * s.budget) ** 0.7 + 4e-4 * s.n * s.already),
            lambda s: 50 * s.n + 4 * (s.already + s.budget) * (s.d + 30) + 8 * s.already * s.d,
        ),
    ),
}


def select(
    method: str | Callable[..., Any],
    budget: Budget,
    *,
    probs: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    signals: Mapping[str, ArrayLike] | None = None,
    labels: ArrayLike | None = None,
    similarity: Any = None,
    scores: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    already: ArrayLike = (),
    exclude: ArrayLike = (),
    per_class: PerClass | None = None,
    costs: ArrayLike | None = None,
    sampler: str | None = None,
    neighbors: int | None = None,
    memory: Memory | None = None,
    seed: int = 0,
    tie_break: Literal["hash", "id"] = "hash",
    **options: Any,
) -> Selection:
    """Choose `budget` new examples by `method`.

    method      a name of METHODS, "package.module:function", or a function (see `table.method_of`)
    budget      a number of examples, or a share of the candidates such as 0.1 or "10%" (see `resolve_budget`); with `costs` a
                total cost, or a share of what all candidates cost (see `limits.resolve_spend`)
    probs       (n, c) class probabilities
    embeddings  (n, d) features
    signals     by kind, (n_epochs, n) what training recorded: {"correct": uint8, 255 where not shown}
    labels      (n,) class numbers, -1 where unknown
    similarity  (n, n) dense or scipy-sparse, higher = more alike, for the methods that compare examples; default: made of
                embeddings (cosine)
    scores      (n,) scores that exist already, in place of those that a method that ranks would compute
    ids         (n,) distinct whole numbers that name the examples; default: the row numbers
    already     ids that count as chosen (distances, coverage, classes), and are never returned
    exclude     ids that are neither chosen nor returned
    per_class   {"min": 5}, {"max": {0: 10}}, both, or {"share": "equal" | "natural" | {0: 0.7, 1: 0.3}}: how many of each of
                `labels`, what was chosen already counted. Shares are rounded down, what is left goes to the largest
                remainders; "equal" comes as near to it as the classes allow
    costs       (n,) what each example costs, 0 or more. The order of the method is followed; what no longer fits is skipped
    sampler     how scored examples are chosen: "top" (the default), or a name of SAMPLERS
    neighbors   keep only so many of the most similar of each example (similarity only)
    memory      bytes a method may take beside its arrays where it can choose, such as "2GB"; default 1 GiB
    seed        decides chance and ties; the same seed, the same ids
    tie_break   equals go by a seeded hash of their id ("hash"), or the lower id first ("id")
    options     of the method and of the sampler

    Shuffling the rows (with their ids), threads, memory and chunk sizes never change the ids chosen.
    Raises UnknownName, SettingError, MissingInput, DataError and BudgetError, each saying what is wrong with which
    argument. Cost: that of the method; a ranking adds n log n operations at most, and 17 n bytes.
    """
    name, row = find_method(method)
    row = _with_sampler(name, row, sampler)
    options = row.settle(name, options)
    seed = _as_seed(seed)
    if tie_break not in ("hash", "id"):
        raise SettingError(f"tie_break={tie_break!r}; give 'hash' or 'id'")
    inputs = Inputs.of(
        ids=ids,
        probs=probs,
        embeddings=embeddings,
        labels=labels,
        scores=scores,
        signals=signals,
        similarity=similarity,
        neighbors=neighbors,
        memory=memory,
    )
    inputs.require(name, row.reads if scores is None or not isinstance(row, Rank) else row.reads[len(row.needs) :])
    if scores is not None and not isinstance(row, Rank):
        raise SettingError(
            f"scores: method {name!r} chooses sets and uses no scores; leave them out, or choose one that ranks"
        )
    if labels is not None:
        inputs.check("labels")
    given, barred = inputs.mask(already, "already"), inputs.mask(exclude, "exclude")
    if len(both := inputs.ids[given & barred]):
        raise SettingError(
            f"{len(both)} ids are in already and in exclude, the first: {both[:3].tolist()}; give each in one"
        )

    def order(pos: Ints) -> Ints:
        """Which of equals goes first: a key for each position."""
        own = inputs.ids[pos]
        return own if tie_break == "id" else hash_ids(own, seed, "ties").view(np.int64)

    candidates = np.flatnonzero(~(given | barred))
    limits, amount = _limits(inputs, budget, per_class, costs, given, candidates)
    choose, fixed_order = _choose(name, row, inputs, seed, options, order)
    chosen = np.flatnonzero(given)
    chosen = chosen[np.argsort(order(chosen))]
    if limits is None:
        picks = choose(chosen, candidates, int(amount))
    else:
        picks = choose_within(choose, limits, chosen, candidates, amount, fixed_order=fixed_order)
    return Selection(
        ids=inputs.ids[picks.pos],
        gains=picks.gains,
        weights=np.ones(len(picks.pos)),
        method=name,
        options=options,
        seed=seed,
        tie_break=tie_break,
        sampler=sampler,
        labels=None if labels is None else inputs.arrays["labels"][picks.pos].astype(np.int64),
        nearest=None if picks.nearest is None else np.where(picks.nearest < 0, -1, inputs.ids[picks.nearest]),
        distances=picks.distances,
        per_class=None if per_class is None else dict(per_class),
        with_costs=costs is not None,
    )


def score(
    method: str | Callable[..., Any],
    *,
    probs: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    signals: Mapping[str, ArrayLike] | None = None,
    labels: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    memory: Memory | None = None,
    seed: int = 0,
    **options: Any,
) -> Floats:
    """One float64 per example, (n,), finite; higher = taken first. Arguments as for `select`.

    Raises SettingError for a method that chooses sets: what an example adds there depends on what was chosen before it.
    """
    name, row = find_method(method)
    if not isinstance(row, Rank):
        raise SettingError(f"Method {name!r} chooses sets and has no score of one example; call svp.select")
    options = row.settle(name, options)
    inputs = Inputs.of(ids=ids, probs=probs, embeddings=embeddings, labels=labels, signals=signals, memory=memory)
    inputs.require(name, row.needs)
    return _scores(name, row, inputs, _as_seed(seed), options)


def _with_sampler(name: str, row: Method, sampler: str | None) -> Method:
    """The row with the sampler asked for; SettingError where there is nothing to sample, or another one already."""
    if sampler is None:
        return row
    if sampler != "top" and sampler not in SAMPLERS:
        raise UnknownName("sampler", sampler, ["top", *SAMPLERS])
    if not isinstance(row, Rank):
        raise SettingError(
            f"sampler={sampler!r}: method {name!r} chooses sets; samplers choose by scores, leave it out"
        )
    if row.sampler is not None:
        raise SettingError(f"sampler={sampler!r}: method {name!r} has its own; choose a method that only ranks")
    return row if sampler == "top" else replace(row, sampler=SAMPLERS[sampler])


def _limits(
    inputs: Inputs,
    budget: Budget,
    per_class: PerClass | None,
    costs: ArrayLike | None,
    given: NDArray[np.bool_],
    candidates: Ints,
) -> tuple[Limits | None, float]:
    """What a choice must keep to, None where that is its size alone; and how many examples or how much money."""
    if per_class is None and costs is None:
        return None, resolve_budget(budget, len(candidates))
    if per_class is not None and "labels" not in inputs.arrays:
        raise MissingInput(
            "per_class needs labels; pass labels=, an (n,) array of class numbers (predicted ones will do)"
        )
    labels = inputs.arrays["labels"].astype(np.int64) if per_class is not None else None
    if costs is None:
        size = resolve_budget(budget, len(candidates))
        return limits_of(per_class, labels, None, given, candidates, size, 0.0), size
    values = as_costs(costs, len(inputs), inputs.ids)
    spend = resolve_spend(budget, values[candidates])
    return limits_of(per_class, labels, values, given, candidates, None, spend), spend


def _choose(
    name: str, row: Method, inputs: Inputs, seed: int, options: dict[str, Any], order: Callable[[Ints], Ints]
) -> tuple[Choose, bool]:
    """What turns (already, candidates, size) into picks, and whether it is a fixed order, whatever was taken before."""
    chance = {"ids": inputs.ids, "seed": seed, "memory": inputs.memory}

    def by_order(candidates: Ints) -> Ints:
        return candidates[np.argsort(order(candidates))]

    if not isinstance(row, Rank):
        arrays = [inputs.whole(need) for need in row.needs]

        def cover(already: Ints, candidates: Ints, size: int) -> Picks:
            candidates = by_order(candidates)
            picks = row.function(*arrays, already, candidates, size, **row.given(**chance), **options)
            return _as_picks(name, picks, candidates, size)

        return cover, False
    sampler = row.sampler
    own = {key: value for key, value in options.items() if sampler is None or key not in sampler.options}
    values = inputs.whole("scores") if "scores" in inputs.arrays else _scores(name, row, inputs, seed, own)
    if sampler is None:

        def top(already: Ints, candidates: Ints, size: int) -> Picks:
            pos = _top(values, candidates, size, order)
            return Picks(pos, values[pos])

        return top, True
    arrays = [inputs.whole(need) for need in sampler.needs]
    theirs = {key: options[key] for key in sampler.options}

    def sample(already: Ints, candidates: Ints, size: int) -> Picks:
        candidates = by_order(candidates)
        pos = sampler.function(values, *arrays, already, candidates, size, **sampler.given(**chance), **theirs)
        return replace(_as_picks(name, pos, candidates, size), gains=values[pos])

    return sample, False


def find_method(method: str | Callable[..., Any]) -> tuple[str, Method]:
    """The name that records use, and the row: from the table, from "package.module:function", or made of a function."""
    if callable(method):
        return path_of(method), method_of(method)
    if method in METHODS:
        return method, METHODS[method]
    if ":" in method:
        return method, method_of(load_function(method))
    raise UnknownName("method", method, METHODS, hint="svp list methods")


def _scores(name: str, row: Rank, inputs: Inputs, seed: int, options: Mapping[str, Any]) -> Floats:
    """(n,) scores, in chunks of examples where the method allows."""
    n = len(inputs)
    values = np.empty(n)
    for rows in inputs.chunks(row.needs) if row.per_example else [slice(0, n)]:
        arrays = [inputs.part(need, rows) if row.per_example else inputs.whole(need) for need in row.needs]
        chance = row.given(ids=inputs.ids[rows], seed=seed, memory=inputs.memory)
        result = np.asarray(row.function(*arrays, **chance, **options))
        if result.shape != (rows.stop - rows.start,) or result.dtype.kind not in "fiub":
            raise DataError(
                f"Method {name!r} gave shape {result.shape}, type {result.dtype} for {len(inputs.ids[rows])} examples; "
                "it has to give one number for each"
            )
        values[rows] = result
    if len(bad := inputs.ids[~np.isfinite(values)]):
        raise DataError(
            f"Method {name!r} gave {len(bad)} scores that are not finite, the first ids: {bad[:3].tolist()}"
        )
    return values


def _top(values: Floats, candidates: Ints, size: int, order: Callable[[Ints], Ints]) -> Ints:
    """Positions of the `size` candidates with the highest values, in descending order; equals by their key."""
    if 0 < size < len(candidates):
        # Sorting only what can be in: those at or above the last value that is.
        own = values[candidates]
        candidates = candidates[own >= np.partition(own, len(own) - size)[len(own) - size]]
    return candidates[np.lexsort((order(candidates), -values[candidates]))[:size]]


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


def _as_seed(seed: int) -> int:
    try:
        return operator.index(seed)
    except TypeError:
        raise SettingError(f"seed={seed!r}; give a whole number") from None


class _Package(ModuleType):
    """Importing this package binds the name `svp.select` to it; so it can be called, as its main function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Selection:
        return select(*args, **kwargs)


sys.modules[__name__].__class__ = _Package
