"""Which method for which data: facts in; two or three methods out, each with its reason, its cost and what it has to beat.

The table of `rules` is read from the top: a row counts where all its conditions hold and where the facts have what its method
reads.
"""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from svp.errors import BudgetError, MissingInput, SettingError, UnknownName
from svp.rules import LABEL, NOTES, RULES, TRAIN, Condition, Facts, Rule, signal_kinds
from svp.select import METHODS, resolve_budget
from svp.select.budget import Budget
from svp.select.docstrings import said
from svp.select.forecast import forecast_of_sizes
from svp.select.options import number, whole
from svp.select.table import Shape
from svp.words import seconds

ANSWERS = 3
_CLASSES = 10  # for the costs alone, where nothing is said


@dataclass(frozen=True)
class Cost:
    """What a method takes here: its formula in words; memory where its row gives it, and seconds where they were asked for."""

    words: str
    memory: float | None = None  # bytes beside the arrays
    seconds: float | None = None  # on this machine


@dataclass(frozen=True)
class Answer:
    """One method worth trying: how it is called (a line of Python, or of the command line), which conditions led to it, why, who
    found that, what it costs here."""

    method: str
    call: str
    because: tuple[str, ...]
    why: str
    source: str
    cost: Cost


@dataclass(frozen=True)
class Advice:
    """Two or three answers, the best bet first; the controls they have to beat; what to mind."""

    facts: Facts
    answers: tuple[Answer, ...]
    beat: tuple[str, ...]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain values, as JSON takes them."""
        return asdict(self)

    def lines(self) -> list[str]:
        facts = self.facts
        lines = [
            f"{facts.budget:,} of {facts.n:,} examples ({facts.share:.2g}), {LABEL.says if LABEL.holds(facts) else TRAIN.says}; "
            f"at hand: {', '.join(sorted(facts.available))}"
        ]
        for place, answer in enumerate(self.answers, 1):
            lines += [
                f"{place}. {answer.method}: {answer.why} ({answer.source})",
                *([f"   because: {'; '.join(answer.because)}"] if answer.because else []),
                f"   call: {answer.call}",
                f"   cost: {_cost_line(answer.cost)}",
            ]
        lines.append(
            f"Costs are for d = {facts.d} numbers an embedding, c = {facts.classes or _CLASSES} classes, {facts.epochs} epochs"
        )
        lines.append(f"To beat: {' and '.join(self.beat)}, at the same budget and with several seeds")
        lines.append("All this is from the papers named, and was not measured on your data")
        return [*lines, *(f"Note: {note}" for note in self.notes)]


class DatasetLike(Protocol):
    """What facts are read from."""

    @property
    def labels(self) -> NDArray[np.int64] | None: ...

    @property
    def classes(self) -> tuple[str, ...]: ...

    def __len__(self) -> int: ...


def facts_of(dataset: DatasetLike) -> dict[str, Any]:
    """The facts that a dataset tells by itself: arguments of `advise`."""
    facts: dict[str, Any] = {"n": len(dataset), "classes": len(dataset.classes) if len(dataset.classes) > 1 else None}
    if dataset.labels is not None and len(dataset.labels):
        counts = np.bincount(dataset.labels)
        facts |= {"labels": True, "imbalance": float(counts.max() / counts[counts > 0].min())}
    return facts


def advise(n: int, budget: Budget, *, dataset: Sequence[str] = (), timed: bool = False, **known: Any) -> Advice:
    """Two or three methods for these facts (see `Facts`), and what they have to beat.

    budget  a number of examples, or a share such as 0.1 or "10%"
    dataset how the command line names the data, ["photos"] say: where a proxy is all else there is, the answers are commands, and
            only what a workflow can do is advised
    timed   say how long each takes here, by trials on made-up arrays of a few thousand rows: up to a second an answer
    known   the other facts, as they are called in `Facts`; goal by default "train" where there are labels, else "label"
    Nothing is computed from data: the answer is a table's, its sources named. It promises nothing about your data; a random
    control beside the choice does.
    Raises SettingError, UnknownName and BudgetError for facts that cannot be, MissingInput where nothing is at hand to choose by.
    """
    whole("n", n, 1)
    for name in known:
        if name not in (names := [f.name for f in fields(Facts)]):
            raise UnknownName("fact", name, names)
    goal: Any = known.pop("goal", None) or ("train" if known.get("labels") else "label")
    signals = tuple(known.pop("signals", ()))
    facts = Facts(n, resolve_budget(budget, n), goal, signals=signals, **known)
    _check(facts)
    least = 2 if facts.goal == "train" else 3  # with fewer a run has nothing to train on, or to ask for
    runs = (
        bool(dataset)
        and facts.proxy
        and not (facts.embeddings or facts.probs or facts.signals)
        and facts.budget >= least
    )
    return Advice(
        facts,
        tuple(_answer(rule, facts, dataset if runs else (), timed) for rule in rules_for(facts, runs=runs)),
        ("random", "stratified_random") if "labels" in facts.available else ("random",),
        tuple(
            f"{note.says} ({note.source})"
            for note in NOTES
            if _all_hold(note.when, facts) and not (runs and note.of_arrays)
        ),
    )


def rules_for(facts: Facts, *, runs: bool = False) -> list[Rule]:
    """The first rows of RULES that hold, each method once. runs: those alone that a workflow can follow (it has no samplers)."""
    found: dict[str, Rule] = {}
    for rule in RULES:
        row = METHODS[rule.method]
        if runs and not row.options.keys() >= rule.options(facts).keys():
            continue
        if _all_hold(rule.when, facts) and facts.available.issuperset(row.reads):
            found.setdefault(rule.method, rule)
    return list(found.values())[:ANSWERS]


def _all_hold(conditions: tuple[Condition, ...], facts: Facts) -> bool:
    return all(condition.holds(facts) for condition in conditions)


def _answer(rule: Rule, facts: Facts, dataset: Sequence[str], timed: bool) -> Answer:
    options = rule.options(facts)
    return Answer(
        rule.method,
        _command(rule.method, facts, options, dataset) if dataset else _call(rule, facts.budget, options),
        tuple(condition.says for condition in rule.when),
        rule.why,
        rule.source,
        cost_of(rule.method, facts, options if timed else None),
    )


def _call(rule: Rule, budget: int, options: Mapping[str, Any]) -> str:
    """The line of Python that makes the choice."""
    reads = dict.fromkeys("embeddings" if need == "similarity" else need for need in METHODS[rule.method].reads)
    arrays = [need for need in reads if need not in signal_kinds()]
    kinds = [need for need in reads if need in signal_kinds()]
    arguments = [f"{name}={name}" for name in arrays]
    if kinds:
        arguments.append(f"signals={{{', '.join(f'{kind!r}: {kind}' for kind in kinds)}}}")
    if not arguments:
        arguments.append("ids=ids")
    if rule.goes_on:
        arguments.append("already=already")
    arguments += [f"{name}={value!r}" for name, value in options.items()]
    return f"svp.select({rule.method!r}, {budget}, {', '.join(arguments)})"


def _command(method: str, facts: Facts, options: Mapping[str, Any], dataset: Sequence[str]) -> str:
    """The command that makes the choice and holds it against chance: of labelled data, or asked for in rounds."""
    chosen = [
        "--method",
        method,
        *(word for name, value in options.items() for word in (f"--options.{name}", str(value))),
    ]
    chance = ["random"] if method != "random" else []
    if facts.goal == "train":
        how = ["coreset", *dataset, *chosen, "--budget", str(facts.budget), "--control", *chance, "full"]
    else:
        totals = [str(max(2, facts.budget // 2)), str(facts.budget)]  # the first is drawn at random
        how = ["active", *dataset, *chosen, "--labelled", *totals, *(["--control", *chance] if chance else [])]
    return shlex.join(["svp", *how, "--seeds", "3"])


def cost_of(method: str, facts: Facts, timed_with: Mapping[str, Any] | None = None) -> Cost:
    """What the row of `method` says it costs here: the only place that knows how a row says it.

    timed_with  the options with which it is timed; None: it is not
    """
    row = METHODS[method]
    words = said(row, "cost")
    if row.cost is None:
        return Cost(words)
    shape = Shape(facts.n, facts.classes or _CLASSES, facts.d, facts.epochs, facts.budget)
    memory = float(row.cost.peak(shape))
    return Cost(words, memory, None if timed_with is None else forecast_of_sizes(method, shape, **timed_with).seconds)


def _cost_line(cost: Cost) -> str:
    if cost.memory is None:
        return cost.words
    time = "" if cost.seconds is None else f"about {seconds(cost.seconds)} on this machine, "
    memory = f"about {cost.memory / 1e6:,.1f} MB" if cost.memory >= 1e5 else "next to nothing"
    return f"{time}{memory} beside the arrays ({cost.words})"


# --- facts that cannot be -------------------------------------------------------------------------------------------------


def _check(facts: Facts) -> None:
    if facts.goal not in ("label", "train"):
        raise SettingError(f"goal={facts.goal!r}; give 'label' (choose what people label) or 'train' (what to keep)")
    if not 0 < facts.budget < facts.n:
        raise BudgetError(
            f"Budget {facts.budget} of {facts.n} examples leaves nothing to choose; give 1 to {facts.n - 1}"
        )
    if facts.classes is not None:
        whole("classes", facts.classes, 2)
    whole("d", facts.d, 1)
    whole("epochs", facts.epochs, 1)
    number("imbalance", facts.imbalance, 1)
    number("noise", facts.noise, 0, 1)
    for kind in facts.signals:
        if kind not in signal_kinds():
            raise UnknownName("signal", kind, sorted(signal_kinds()), hint="kinds that some method reads")
    if facts.goal == "train" and not facts.labels:
        for name in ("signals", "proxy", "noise"):
            if getattr(facts, name):
                raise SettingError(
                    f"{name} without labels: to train there have to be labels; say labels too, or goal='label'"
                )
    if not facts.available:
        raise MissingInput(
            "Nothing is at hand to choose by, so random is all there is; say what you have or could get: embeddings (a frozen "
            "encoder), probs, a trainable proxy, or labels with goal='train'"
        )
