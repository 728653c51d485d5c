"""How long a choice will take and how much memory, before it is made: formulas of the table, and a few examples timed."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from inspect import signature
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.errors import SvpError
from svp.machine import one_blas_thread
from svp.select.budget import Budget, resolve_budget
from svp.select.classes import as_numbers
from svp.select.inputs import SHAPES, Inputs, as_ids
from svp.select.limits import as_costs, resolve_spend
from svp.select.methods import find_method, with_sampler
from svp.select.similarity import as_indexable, is_sparse, stored
from svp.select.table import Method, Shape, sized

_FIRST = 256  # examples in the first trial; each further one has four times as many
_MADE_UP = 1 << 14  # examples that are made up at most
_PIECES = 8  # from so many places: files are often sorted by class
_SECONDS = 0.3
_TILE = 256  # rows of a product that stays in a core's cache


@dataclass(frozen=True)
class Forecast:
    """What a choice will take; None where the method's row has no formula for it, or there are no examples.

    seconds   measured on a few thousand examples at most and scaled by the formula: right within a factor, not a per cent.
              Where there are restarts it is for all of them: an upper bound
    at_worst  seconds where the data spare nothing of the work; None where the formula knows
    bytes     at the highest, beside the arrays
    restarts  how often at most the method begins again, from what it has chosen, because a class is full or its minimum met.
              What becomes too dear with costs is not counted: nobody knows how often that is
    """

    seconds: float | None
    bytes: int | None
    restarts: int = 0
    at_worst: float | None = None


def forecast(method: str | Callable[..., Any], budget: Budget, **arguments: Any) -> Forecast:
    """What `svp.select(method, budget, **arguments)` will take.

    Raises what `select` would raise for the budget, an unknown method, and arrays of the wrong shape or kind; values that are
    wrong are not looked for. Cost: about 0.3 s at most, and a look at all ids, costs and named labels.
    """
    from svp.select import select

    name, row = find_method(method)
    _, row = with_sampler(name, row, arguments.get("sampler"))
    if arguments.get("labels") is not None:
        arguments["labels"] = as_numbers(arguments["labels"])[0]  # a part has not all the names
    if row.cost is None or not (shape := _shape(budget, arguments)).n:
        return Forecast(None, None)
    try:
        options = row.settle(
            name, {key: arguments[key] for key in arguments.keys() - signature(select).parameters.keys()}
        )
        row.refuse(
            options, replace(shape, limited=any(arguments.get(key) is not None for key in ("per_class", "costs")))
        )
    except SvpError:  # select itself will say
        return Forecast(None, None)
    shape = first = sized(row, replace(shape, options=options))
    restarts = 0 if row.fixed_order else _restarts(arguments)
    # What a restart begins with lies between the two: nothing of the budget chosen yet, and all of it.
    last = replace(first, already=shape.already + shape.budget, budget=0) if restarts else first
    n_bytes = int(max(row.cost.peak(first), row.cost.peak(last)))
    operations = row.cost.operations(first) + restarts * (row.cost.operations(first) + row.cost.operations(last))
    if arguments.get("similarity") is not None:
        try:
            arguments["similarity"] = as_indexable(arguments["similarity"])
        except SvpError:  # select itself will say
            return Forecast(None, n_bytes, restarts)
    largest = _largest_trial(shape, arguments.get("similarity"))
    seconds = _timed(method, row, largest, operations, lambda n: _part(arguments, shape, n))
    if seconds is None or row.cost.at_worst is None:
        return Forecast(seconds, n_bytes, restarts)
    products = row.cost.at_worst(first) + restarts * row.cost.at_worst(last)
    return Forecast(seconds, n_bytes, restarts, max(seconds, products * _seconds_a_product(shape.d)))


def _seconds_a_product(d: int) -> float:
    """Seconds of a product of two numbers here: in matrix products of rows of d, each entry looked at, by one thread."""
    left, right = np.ones((_TILE, d), np.float32), np.ones((d, 4 * _TILE), np.float32)
    taken = []
    with one_blas_thread:
        for _ in range(5):
            begin = time.perf_counter()
            np.count_nonzero(left @ right < 0)
            taken.append(time.perf_counter() - begin)
    return min(taken) / (4 * d * _TILE**2)


def _largest_trial(shape: Shape, similarity: Any) -> int:
    """Examples in a trial at most: what it copies of the arrays takes an eighth of the memory that the choice itself may."""
    n, is_square = shape.n, similarity is not None and not is_sparse(similarity)
    while n > _FIRST and 8 * n * (shape.c + shape.d + shape.n_epochs + is_square * n) > shape.memory // 8:
        n //= 2
    return n


def forecast_of_sizes(method: str, shape: Shape, *, sampler: str | None = None, **options: Any) -> Forecast:
    """The same before there are any arrays: what `method` takes for these sizes, timed on made-up ones.

    shape  n, c, d, n_epochs and budget
    """
    _, row = with_sampler(method, find_method(method)[1], sampler)
    if row.cost is None:
        return Forecast(None, None)
    shape = sized(row, replace(shape, options=row.settle(method, options)))
    operations, own = row.cost.operations(shape), {"sampler": sampler, **options}
    seconds = _timed(method, row, min(shape.n, _MADE_UP), operations, lambda n: _made_up(row, shape, n, own))
    return Forecast(seconds, int(row.cost.peak(shape)))


def _timed(
    method: str | Callable[..., Any],
    row: Method,
    n_all: int,
    operations: float,
    part: Callable[[int], tuple[dict[str, Any], Shape]],
) -> float | None:
    """Seconds for so many operations, by trials of ever more examples, n_all at most; None where a trial is refused.

    part  part(n) gives the arguments and the sizes of a trial of n examples
    """
    assert row.cost is not None
    trials: list[tuple[float, float]] = []  # operations, seconds
    begin = time.perf_counter()
    n = min(_FIRST, n_all)
    try:
        _seconds(method, *part(n))  # whatever is imported and compiled but once
        while True:
            arguments, size = part(n)
            trials.append((row.cost.operations(size), min(_seconds(method, arguments, size) for _ in range(2))))
            # Four times the examples are sixteen times the work at most.
            if n == n_all or (n > _FIRST and time.perf_counter() - begin + 8 * trials[-1][1] > _SECONDS):
                break
            n = min(4 * n, n_all)
    except SvpError:  # too few examples for an option, or wrong inputs: select itself will say
        return None
    return extended(trials, operations)


def _restarts(arguments: Mapping[str, Any]) -> int:
    """How often limits per class can interrupt a method: when a class is full, and while, and after, only minimums count."""
    per_class, labels = arguments.get("per_class"), arguments.get("labels")
    if not isinstance(per_class, Mapping) or labels is None:
        return 0
    n_classes = len(np.unique(np.asarray(labels)))

    def bound(limit: str) -> int:
        given = per_class.get(limit, 0 if limit == "min" else {})
        return len(given) if isinstance(given, Mapping) else n_classes * bool(given or limit == "max")

    if "share" in per_class:
        return n_classes + 2
    return bound("max") + (bound("min") + 2 if bound("min") else 0)


def _seconds(method: str | Callable[..., Any], part: dict[str, Any], size: Shape) -> float:
    from svp.select import select

    begin = time.perf_counter()
    select(method, size.budget, **part)
    return time.perf_counter() - begin


def extended(trials: list[tuple[float, float]], operations: float) -> float:
    """Seconds for so many operations. What every call takes is no part of the growth: two trials tell them apart."""
    work, seconds = trials[-1]
    slope = seconds / max(work, 1.0)
    if len(trials) > 1 and (less := trials[-2])[1] < seconds and less[0] < work:
        slope = (seconds - less[1]) / (work - less[0])
    # Less than the last trial takes its share of it at least, however the trials differ by chance.
    return max(seconds + slope * (operations - work), seconds * min(1.0, operations / max(work, 1.0)))


def _shape(budget: Budget, arguments: Mapping[str, Any]) -> Shape:
    """The sizes of a call of `select`; DataError for arrays of which it could make nothing."""
    named = ("ids", "signals", "similarity", "neighbors", "memory", *SHAPES)
    inputs = Inputs.of(**{name: arguments.get(name) for name in named})
    n = len(inputs)
    already, excluded = (len(as_ids(arguments.get(name, ()), name)) for name in ("already", "exclude"))
    there = max(0, n - already - excluded)
    if arguments.get("costs") is None:
        size = resolve_budget(budget, there) if n else 0
    else:
        costs = as_costs(arguments["costs"], n, inputs.ids)
        size = int(min(there, resolve_spend(budget, costs) / max(float(costs.mean()) if n else 1.0, 1e-300)))
    return inputs.shape(size, already)


def _part(arguments: Mapping[str, Any], shape: Shape, n: int) -> tuple[dict[str, Any], Shape]:
    """The same call for n of the examples, everything else in proportion; limits and costs of examples are left out."""
    rows = _rows(shape.n, n)
    part = {
        name: value
        for name, value in arguments.items()
        if name not in ("ids", "exclude", "per_class", "costs", "already", "signals", "similarity")
    }
    for name in SHAPES:
        if part.get(name) is not None:
            part[name] = np.asarray(part[name])[rows]
    if arguments.get("signals"):
        part["signals"] = {kind: np.asarray(values)[:, rows] for kind, values in arguments["signals"].items()}
    if (similarity := arguments.get("similarity")) is not None:
        part["similarity"] = similarity[rows][:, rows] if is_sparse(similarity) else similarity[np.ix_(rows, rows)]
    already = min(n, shape.already * n // max(shape.n, 1))
    budget = min(n - already, -(-shape.budget * n // max(shape.n, 1)))
    entries = stored(part.get("similarity"), part.get("neighbors"), n)
    size = replace(shape, n=n, budget=budget, already=already, entries=entries)
    return {**part, "ids": np.arange(n), "already": np.arange(already)}, size


def _made_up(row: Method, shape: Shape, n: int, options: Mapping[str, Any]) -> tuple[dict[str, Any], Shape]:
    """A call for n examples that nobody has: clouds of embeddings, one a class, everything else at random."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, shape.c, n)
    given: dict[str, Any] = {"ids": np.arange(n), **options}
    for need in row.reads:
        if need in ("embeddings", "similarity"):
            clouds = rng.normal(size=(shape.c, shape.d))[labels]
            given["embeddings"] = (clouds + rng.normal(size=(n, shape.d))).astype(np.float32)
        elif need == "probs":
            given["probs"] = rng.dirichlet(np.ones(shape.c), n).astype(np.float32)
        elif need == "labels":
            given["labels"] = labels
        elif need == "scores":
            given["scores"] = rng.random(n)
        else:
            kind = rng.integers(0, 2, (shape.n_epochs, n)).astype(np.uint8 if need == "correct" else np.float16)
            given.setdefault("signals", {})[need] = kind
    budget = min(n, -(-shape.budget * n // shape.n))
    return given, replace(shape, n=n, budget=budget)


def _rows(n: int, size: int) -> NDArray[np.int64]:
    """`size` of n rows, in a few pieces spread over them: single rows of a mapped file would each read a page."""
    if size >= n or size % _PIECES:
        return np.arange(size)
    piece = size // _PIECES
    return np.concatenate([np.arange(piece) + k * (n - piece) // (_PIECES - 1) for k in range(_PIECES)])
