"""Arrays in, selections out: `select`, `score`, and the table of methods.

Knows numpy, scipy and (to save) pyarrow; no torch, no dataset, no file but the selection's own. A method is one
function and one row of METHODS: nothing else in the package asks for a method by its name.
"""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from inspect import Parameter
from types import ModuleType
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike

from svp.chance import as_seed, tie_keys
from svp.errors import SettingError
from svp.select.budget import Budget, Memory, resolve_budget
from svp.select.choose import Terms, choose_by, scores_of
from svp.select.inputs import Inputs
from svp.select.limits import PerClass, choose_within
from svp.select.methods import METHODS, SAMPLERS, find_method, with_sampler
from svp.select.selection import Selection
from svp.select.table import Cost, Cover, Floats, Ints, Method, Picks, Rank, Sampler, Shape

__all__ = [
    "METHODS",
    "SAMPLERS",
    "Cost",
    "Cover",
    "Method",
    "Picks",
    "Rank",
    "Sampler",
    "Selection",
    "Shape",
    "find_method",
    "resolve_budget",
    "score",
    "select",
]


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
    already: ArrayLike | Selection = (),
    exclude: ArrayLike | Selection = (),
    per_class: PerClass | None = None,
    costs: ArrayLike | None = None,
    sampler: str | Callable[..., Any] | None = None,
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
    labels      (n,) class numbers, -1 where unknown; or names, numbered as they sort ("" and None where unknown)
    similarity  (n, n) dense or scipy-sparse, higher = more alike, only for methods that compare examples by it; default: made of
                embeddings (cosine)
    scores      (n,) scores that exist already, in place of those that the method would compute (one that ranks, or "d2"): what
                they are made of, and options of theirs, are refused beside them
    ids         (n,) distinct whole numbers that name the examples; default: the row numbers
    already     ids that count as chosen (distances, coverage, classes), and are never returned; or a Selection, of which
                they are those
    exclude     ids that are neither chosen nor returned; or a Selection. Their rows are checked like all others
    per_class   {"min": 5}, {"max": {0: 10}} (by name where labels are names), both, or {"share": "equal" | "natural" |
                {0: 0.7, 1: 0.3}}: how many of each of `labels`, what was chosen already counted. Shares are rounded down, what
                is left goes to the largest remainders; "equal" comes as near to it as the classes allow
    costs       (n,) what each example costs, 0 or more. The order of the method is followed; what no longer fits is skipped
    sampler     how scored examples are chosen: "top" (the default), a name of SAMPLERS, "package.module:function", or a function
                (see `table.sampler_of`)
    neighbors   keep only so many of the most similar of each example (similarity only)
    memory      bytes that may be taken beside the arrays where there is a choice, such as "2GB"; default 1 GiB. What a method has
                to hold in any case (its `cost`, stored similarities too) it takes all the same: see `svp.forecast`
    seed        decides chance and ties; the same seed, the same ids: a whole number from 0 to 2^64 - 1
    tie_break   equals go by a seeded hash of their id ("hash"), or the lower id first ("id")
    options     of the method and of the sampler

    Shuffling the rows (with their ids), threads, memory and chunk sizes never change the ids chosen.
    Raises UnknownName, SettingError, MissingInput, DataError and BudgetError, each saying what is wrong with which
    argument. Cost: that of the method; a ranking adds n log n operations at most, and 17 n bytes.
    """
    name, row = find_method(method)
    sampled_by, row = with_sampler(name, row, sampler)
    options = row.settle(name, options)
    row = row.under(options)
    seed = as_seed(seed)
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
    if scores is None:
        inputs.require(name, row.reads)
    elif isinstance(row, Rank):
        _refuse_unused(name, row, options)
        _refuse_second_source(name, row, inputs)
        inputs.require(name, row.reads[len(row.needs) :])
    elif "scores" in row.needs:
        inputs.require(name, row.needs)
    else:
        raise SettingError(
            f"scores: method {name!r} chooses sets and uses no scores; leave them out, or choose one that ranks"
        )
    if "similarity" in row.reads and similarity is not None and embeddings is not None:
        raise SettingError(
            f"similarity and embeddings: method {name!r} compares examples by one of the two; leave the other out"
        )
    if "similarity" not in row.reads and (similarity is not None or neighbors is not None):
        given_one = "similarity" if neighbors is None else f"neighbors={neighbors!r}"
        raise SettingError(f"{given_one}: method {name!r} compares no examples by similarity; leave it out")
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
        return own if tie_break == "id" else tie_keys(own, seed)

    candidates = np.flatnonzero(~(given | barred))
    terms = Terms(inputs, budget, per_class, costs, given, candidates)
    row.refuse(options, replace(inputs.shape(terms.size or 0, int(given.sum())), limited=terms.limited))
    if terms.limited:
        terms.limits(candidates)  # what cannot be met is refused before anything is computed
    chooser = choose_by(name, row, inputs, seed, options, order, barred)
    chosen = np.flatnonzero(given)
    chosen = chosen[np.argsort(order(chosen))]
    if terms.limited:
        open_ = np.setdiff1d(candidates, chooser.never)
        picks = choose_within(
            chooser.choose, terms.limits(open_), chosen, open_, terms.amount, fixed_order=chooser.fixed_order
        )
    else:
        picks = chooser.choose(chosen, candidates, int(terms.amount))
    return Selection(
        ids=inputs.ids[picks.pos],
        gains=picks.gains,
        weights=np.ones(len(picks.pos)),
        method=name,
        options=options,
        seed=seed,
        tie_break=tie_break,
        sampler=sampled_by,
        labels=None if labels is None else inputs.arrays["labels"][picks.pos].astype(np.int64),
        classes=inputs.classes,
        nearest=None if picks.nearest is None else np.where(picks.nearest < 0, -1, inputs.ids[picks.nearest]),
        distances=picks.distances,
        per_class=None if per_class is None else dict(per_class),
        with_costs=costs is not None,
        with_similarity=similarity is not None,
        neighbors=None if neighbors is None else int(neighbors),
    )


def score(
    method: str | Callable[..., Any],
    *,
    probs: ArrayLike | None = None,
    embeddings: ArrayLike | None = None,
    signals: Mapping[str, ArrayLike] | None = None,
    labels: ArrayLike | None = None,
    scores: ArrayLike | None = None,
    ids: ArrayLike | None = None,
    memory: Memory | None = None,
    seed: int = 0,
    **options: Any,
) -> Floats:
    """One float64 per example, (n,), finite; higher = taken first. Arguments as for `select`; `scores` is what "given" reads.

    Raises SettingError for a method that chooses sets: what an example adds there depends on what was chosen before it.
    """
    name, row = find_method(method)
    if not isinstance(row, Rank):
        raise SettingError(f"Method {name!r} chooses sets and has no score of one example; call svp.select")
    options = row.settle(name, options)
    row = row.under(options)
    inputs = Inputs.of(
        ids=ids, probs=probs, embeddings=embeddings, labels=labels, scores=scores, signals=signals, memory=memory
    )
    _refuse_second_source(name, row, inputs)
    inputs.require(name, row.needs)
    row.refuse(options, inputs.shape(0, 0))
    return scores_of(name, row, inputs, as_seed(seed), row.own(options))


def _refuse_unused(name: str, row: Rank, options: Mapping[str, Any]) -> None:
    """SettingError for an option of the scores, where these are there already. One without a default must be named anyway."""
    defaults = {key: default for key, default in row.own(row.options).items() if default is not Parameter.empty}
    if unused := [key for key, default in defaults.items() if not np.array_equal(options[key], default)]:
        raise SettingError(
            f"{unused[0]}={options[unused[0]]!r} is for the scores of method {name!r}, and scores= has them already; "
            "leave one of the two out"
        )


def _refuse_second_source(name: str, row: Rank, inputs: Inputs) -> None:
    """SettingError for scores beside what makes them, or where there is nothing that they could stand in for.

    Labels and embeddings may be there for limits and samplers.
    """
    if "scores" not in inputs.arrays or "scores" in row.needs:
        return
    if not row.needs:
        raise SettingError(f"scores: method {name!r} goes by no scores; leave them out, or choose by 'given'")
    if made_of := [need for need in row.needs if need in inputs.arrays and need not in ("labels", "embeddings")]:
        raise SettingError(
            f"scores and {made_of[0]}: the scores of method {name!r} are made of {made_of[0]}; leave one of the two out"
        )


class _Package(ModuleType):
    """Importing this package binds the name `svp.select` to it; so it can be called, as its main function."""

    def __call__(self, *args: Any, **kwargs: Any) -> Selection:
        return select(*args, **kwargs)


sys.modules[__name__].__class__ = _Package
