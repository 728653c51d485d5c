"""Arrays in, selections out: `select`, `score`, and the table of methods.

Knows numpy, scipy and (to save) pyarrow; no torch, no dataset, no file but the selection's own. A method is one
function and one row of METHODS: nothing else in the package asks for a method by its name.
"""

import operator
import sys
from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from svp.chance import hash_ids
from svp.errors import DataError, SettingError, UnknownName
from svp.names import resolve
from svp.select import k_center, scores
from svp.select.budget import Budget, resolve_budget
from svp.select.inputs import Inputs
from svp.select.selection import Selection
from svp.select.table import Cover, Floats, Ints, Method, Picks, Rank, method_of, path_of

__all__ = [
    "METHODS",
    "Cover",
    "Method",
    "Picks",
    "Rank",
    "Selection",
    "find_method",
    "resolve_budget",
    "score",
    "select",
]

METHODS: dict[str, Method] = {
    "random": Rank(scores.random, needs=()),
    "least_confidence": Rank(scores.least_confidence, needs=("probs",)),
    "margin": Rank(scores.margin, needs=("probs",)),
    "entropy": Rank(scores.entropy, needs=("probs",)),
    "forgetting": Rank(scores.forgetting, needs=("correct",)),
    "k_center": Cover(k_center.k_center, needs=("embeddings",)),
}


def select(
    method: str | Callable[..., Any],
    budget: Budget,
    *,
    probs: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    signals: Mapping[str, ArrayLike] | None = None,
    labels: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    already: ArrayLike = (),
    exclude: ArrayLike = (),
    seed: int = 0,
    tie_break: Literal["hash", "id"] = "hash",
    **options: Any,
) -> Selection:
    """Choose `budget` new examples by `method`.

    method      a name of METHODS, "package.module:function", or a function (see `table.method_of`)
    budget      a number of examples, or a share of the candidates such as 0.1 or "10%" (see `resolve_budget`)
    probs       (n, c) class probabilities
    embeddings  (n, d) features
    signals     by kind, (n_epochs, n) what training recorded: {"correct": uint8, 255 where not shown}
    labels      (n,) class numbers, -1 where unknown
    ids         (n,) distinct whole numbers that name the examples; default: the row numbers
    already     ids that count as chosen, and are never returned
    exclude     ids that are neither chosen nor returned
    seed        decides chance and ties; the same seed, the same ids
    tie_break   equals go by a seeded hash of their id ("hash"), or the lower id first ("id")
    options     of the method

    Shuffling the rows (with their ids), threads and chunk sizes never change the ids chosen.
    Raises UnknownName, SettingError, MissingInput, DataError and BudgetError, each saying what is wrong with which
    argument. Cost: that of the method; a ranking adds n log n operations at most, and 17 n bytes.
    """
    name, row = find_method(method)
    options = row.settle(name, options)
    seed = _as_seed(seed)
    if tie_break not in ("hash", "id"):
        raise SettingError(f"tie_break={tie_break!r}; give 'hash' or 'id'")
    inputs = Inputs.of(ids=ids, probs=probs, embeddings=embeddings, labels=labels, signals=signals)
    inputs.require(name, row.needs)
    if labels is not None:
        inputs.check("labels")
    given, barred = inputs.mask(already, "already"), inputs.mask(exclude, "exclude")
    if len(both := inputs.ids[given & barred]):
        raise SettingError(
            f"{len(both)} ids are in already and in exclude, the first: {both[:3].tolist()}; give each in one"
        )
    candidates = np.flatnonzero(~(given | barred))
    size = resolve_budget(budget, len(candidates))

    def order(pos: Ints) -> Ints:
        """Which of equals goes first: a key for each position."""
        own = inputs.ids[pos]
        return own if tie_break == "id" else hash_ids(own, seed, "ties").view(np.int64)

    if isinstance(row, Rank):
        values = _scores(name, row, inputs, seed, options)
        pos = _top(values, candidates, size, order)
        picks = Picks(pos, values[pos])
    else:
        arrays = [inputs.whole(need) for need in row.needs]
        chosen = np.flatnonzero(given)
        chosen, candidates = chosen[np.argsort(order(chosen))], candidates[np.argsort(order(candidates))]
        picks = row.function(*arrays, chosen, candidates, size, **row.given(inputs.ids, seed), **options)
        picks = _as_picks(name, picks, candidates, size)
    return Selection(
        ids=inputs.ids[picks.pos],
        gains=picks.gains,
        weights=np.ones(size),
        method=name,
        options=options,
        seed=seed,
        tie_break=tie_break,
        labels=None if labels is None else inputs.arrays["labels"][picks.pos].astype(np.int64),
        nearest=None if picks.nearest is None else np.where(picks.nearest < 0, -1, inputs.ids[picks.nearest]),
        distances=picks.distances,
    )


def score(
    method: str | Callable[..., Any],
    *,
    probs: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    signals: Mapping[str, ArrayLike] | None = None,
    labels: ArrayLike | None = None,
    ids: ArrayLike | None = None,
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
    inputs = Inputs.of(ids=ids, probs=probs, embeddings=embeddings, labels=labels, signals=signals)
    inputs.require(name, row.needs)
    return _scores(name, row, inputs, _as_seed(seed), options)


def find_method(method: str | Callable[..., Any]) -> tuple[str, Method]:
    """The name that records use, and the row: from the table, from "package.module:function", or made of a function."""
    if callable(method):
        return path_of(method), method_of(method)
    if method in METHODS:
        return method, METHODS[method]
    if ":" in method:
        return method, method_of(resolve(method))
    raise UnknownName("method", method, METHODS, hint="svp list methods")


def _scores(name: str, row: Rank, inputs: Inputs, seed: int, options: Mapping[str, Any]) -> Floats:
    """(n,) scores, in chunks of examples where the method allows."""
    n = len(inputs)
    values = np.empty(n)
    for rows in inputs.chunks(row.needs) if row.per_example else [slice(0, n)]:
        arrays = [inputs.part(need, rows) if row.per_example else inputs.whole(need) for need in row.needs]
        result = np.asarray(row.function(*arrays, **row.given(inputs.ids[rows], seed), **options))
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
