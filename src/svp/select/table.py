"""What a row of the table of methods is, and how a function outside the table becomes one."""

import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svp.errors import SettingError

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

# What a function may ask for by keyword beside its own options: the (n,) ids, the seed, the bytes it may take beside its
# arrays; a set method or sampler also the ground set, the positions of all that are not excluded, in the order of `candidates`,
# and so may a ranking that sees all examples at once: positions ascending, for each of which it gives a score.
GIVEN = ("ids", "seed", "memory", "ground")


LEAST_ROOM = 1 << 22  # bytes that every method works with
# Numbers per chunk: what a method makes of them stays in a processor's cache, and memory is not asked for anew each time.
CHUNK_NUMBERS = 1 << 18
# Bytes an example that `select` itself takes at the highest, measured: ids, masks, candidates, their order.
_BYTES_RANK, _BYTES_COVER = 52, 44
_BYTES_NUMBER = 24  # a number of a chunk of examples, in float64, with what a score makes of it


@dataclass(frozen=True)
class Shape:
    """The sizes that the cost of a method is a formula of.

    n  examples; c  classes; d  numbers per embedding, 0 where a sparse similarity stands for them; n_epochs  rows of a signal;
    budget  how many are chosen; already  how many count as chosen; entries  similarities that are stored (`similarity.stored`);
    memory  bytes a choice may take where it can choose; held  those of them that `select` itself takes (see `sized`);
    limited  whether limits per class or costs may make it begin again from what it has chosen; options  settled ones of the
    method and its sampler, where known
    """

    n: int
    c: int = 1
    d: int = 1
    n_epochs: int = 1
    budget: int = 0
    already: int = 0
    entries: int = 0
    memory: int = 1 << 30
    held: int = 0
    limited: bool = False
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Cost:
    """What a method takes, for a forecast.

    operations  in a unit of the method's own: time is measured on a few examples and grows in proportion
    bytes       what the function holds beside its arrays and what it returns, at the highest, whatever memory it may take
    room        what it takes beside that where it may, because it is faster so; `memory` is then what there is for it alone
    at_worst    products of two numbers, in matrix products, where what the data spare is most of the work and cannot be told from
                a few of them: `operations` say what they usually leave
    """

    operations: Callable[[Shape], float]
    bytes: Callable[[Shape], float] = lambda s: 0.0
    room: Callable[[Shape], float] = lambda s: 0.0
    at_worst: Callable[[Shape], float] | None = None

    def peak(self, s: Shape) -> float:
        """Bytes at the highest when `s.memory` may be taken."""
        left = self.left(s)
        return s.held + self.bytes(s) + min(self.room(replace(s, memory=left)), left)

    def then(self, other: "Cost") -> "Cost":
        """Of one thing after the other."""
        return Cost(
            lambda s: self.operations(s) + other.operations(s),
            lambda s: max(self.bytes(s), other.bytes(s)),
            lambda s: max(self.room(s), other.room(s)),
        )

    def left(self, s: Shape) -> int:
        """What of `s.memory` the function may take beside what `select` and it hold in any case."""
        return max(s.memory - s.held - int(self.bytes(s)), min(s.memory, LEAST_ROOM))


# check(shape, **options): SettingError for options that can come to no good at these sizes.
Check = Callable[..., None]


@dataclass(frozen=True)
class Method:
    """One way of selecting: a function over arrays, and which arrays it reads.

    function  takes the arrays of `needs` in that order, then by keyword its options, and what it names of GIVEN
    needs     "probs", "embeddings", "labels", "scores", "similarity" (made of embeddings where it is not given), or a kind
              of signal such as "correct"
    cost      formulas of time and memory; None: no forecast
    needs_by  where it depends on options what is read: settled options -> needs; `needs` are those of the defaults
    check     what refuses options before anything is computed (see `options`); None: nothing, or the function itself
    The one-line summary is the first line of the function's docstring; its options are its keyword-only parameters.
    """

    function: Callable[..., Any]
    needs: tuple[str, ...] = ("probs",)
    cost: Cost | None = None
    check: Check | None = None
    needs_by: Callable[[Mapping[str, Any]], tuple[str, ...]] | None = None

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.function) or "").partition("\n")[0]

    @property
    def reads(self) -> tuple[str, ...]:
        """Everything that a choice by this method reads: what a workflow has to compute."""
        return self.needs

    @property
    def fixed_order(self) -> bool:
        """Whether what comes next does not depend on what was taken."""
        return False

    @property
    def asks_model(self) -> bool:
        """Whether it reads anything that a model has to give: labels are there without one."""
        return any(need != "labels" for need in self.reads)

    @property
    def modules(self) -> set[str]:
        """Where the code of this package stands that decides, and the function's own module."""
        return _modules_of(self.function.__module__)

    @property
    def options(self) -> dict[str, Any]:
        """Each option with its default (`inspect.Parameter.empty` where it has none)."""
        return {name: default for name, default in self._keywords().items() if name not in GIVEN}

    def settle(self, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
        """The options in full: those given, and defaults for the rest; SettingError for one it does not have."""
        known = self.options
        if unknown := [option for option in options if option not in known]:
            allowed = f"its options: {', '.join(known)}" if known else "it takes none"
            raise SettingError(f"Method {name!r} has no option {unknown[0]!r}; {allowed}")
        settled = {**known, **options}
        if missing := [option for option, value in settled.items() if value is inspect.Parameter.empty]:
            raise SettingError(f"Method {name!r} needs the option {missing[0]!r}; pass {missing[0]}=")
        return settled

    def under(self, options: Mapping[str, Any]) -> Self:
        """The row as it is with these settled options: it needs what they need."""
        return self if self.needs_by is None else replace(self, needs=self.needs_by(options), needs_by=None)

    def refuse(self, options: Mapping[str, Any], shape: Shape) -> None:
        """SettingError for settled options that can come to no good at these sizes; before anything is computed."""
        if self.check is not None:
            self.check(shape, **options)

    def given(self, **values: Any) -> dict[str, Any]:
        """Those of the values of GIVEN that the function names."""
        keywords = self._keywords()
        return {name: value for name, value in values.items() if name in keywords}

    def _keywords(self) -> dict[str, Any]:
        parameters = inspect.signature(self.function).parameters.values()
        return {p.name: p.default for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY}


@dataclass(frozen=True)
class Sampler(Method):
    """A way from scores to a choice: function(scores, *needs, already, candidates, budget, ...) -> positions, in order.

    never        which it would never take: function(scores, ground, **options) -> positions. Limits and costs reckon without them
    fixed_order  what comes next does not depend on what was taken: limits then pass over what is closed in the one order
    """

    needs: tuple[str, ...] = ()
    never: Callable[..., Ints] | None = None
    fixed_order: bool = False


@dataclass(frozen=True)
class Rank(Method):
    """A method that gives every example a score: function(*needs, ...) -> (n,) finite, higher = taken first.

    per_example  each score depends on its own example alone, so that the arrays may be fed in chunks of examples
    sampler      how the scored examples are chosen, where the method is known for another way than the highest first; `cost` is
                 that of both
    """

    per_example: bool = True
    sampler: Sampler | None = None

    @property
    def summary(self) -> str:
        if self.sampler is None:
            return super().summary
        return f"{self.sampler.summary.removesuffix('.')} (scores: {self.function.__name__})."

    @property
    def fixed_order(self) -> bool:
        return self.sampler is None or self.sampler.fixed_order

    @property
    def reads(self) -> tuple[str, ...]:
        return self.needs if self.sampler is None else (*self.needs, *self.sampler.needs)

    @property
    def modules(self) -> set[str]:
        return super().modules if self.sampler is None else super().modules | self.sampler.modules

    @property
    def options(self) -> dict[str, Any]:
        return super().options if self.sampler is None else {**super().options, **self.sampler.options}

    def own(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """Those of the settled options that the scores take; the others are the sampler's."""
        return {name: options[name] for name in super().options}

    def refuse(self, options: Mapping[str, Any], shape: Shape) -> None:
        super().refuse(self.own(options), shape)
        if self.sampler is not None:
            self.sampler.refuse({name: options[name] for name in self.sampler.options}, shape)


@dataclass(frozen=True)
class Cover(Method):
    """A method that chooses a set: function(*needs, already, candidates, budget, ...) -> Picks.

    already     positions that count as chosen, never to be returned; in the order of the same hash
    candidates  positions that may be returned; of equals the earlier in this list goes first. The list is in the order
                of a seeded hash of the ids, so whoever works through it in order does not depend on the order of the
                rows
    budget      how many of the candidates to return, at most all
    scored_by   where it needs "scores": the ranking that makes them of what it reads, unless they are given
    fixed_order  as of a `Sampler`
    """

    needs: tuple[str, ...] = ("embeddings",)
    scored_by: Rank | None = None
    fixed_order: bool = False

    @property
    def reads(self) -> tuple[str, ...]:
        if self.scored_by is None:
            return self.needs
        return (*self.scored_by.reads, *(need for need in self.needs if need not in ("scores", *self.scored_by.reads)))

    @property
    def modules(self) -> set[str]:
        return super().modules if self.scored_by is None else super().modules | self.scored_by.modules


@dataclass(frozen=True)
class Picks:
    """What a set method chose, in order; positions, not ids.

    pos      (k,) chosen positions
    gains    (k,) what each added to the objective when it was chosen
    nearest  (k,) position of the chosen example nearest to it at that time, -1 where none was; or None: the method does
             not know
    distances (k,) how far that was, NaN where none was; or None
    """

    pos: Ints
    gains: Floats
    nearest: Ints | None = None
    distances: Floats | None = None


def method_of(function: Callable[..., Any]) -> Method:
    """A row for somebody's own function.

    Its attributes say what the table says of ours: `needs` (default ("probs",), or ("embeddings",) of a set method),
    `kind` ("rank", the default, or "cover"), `per_example` (default False: the function sees all examples at once) and
    `check` (default: none).
    """
    kind = getattr(function, "kind", "rank")
    if kind not in ("rank", "cover"):
        raise SettingError(f"{path_of(function)} has kind {kind!r}; it can be 'rank' or 'cover'")
    needs = getattr(function, "needs", ("probs",) if kind == "rank" else ("embeddings",))
    needs = (needs,) if isinstance(needs, str) else tuple(needs)
    check = getattr(function, "check", None)
    if kind == "cover":
        return Cover(function, needs, check=check)
    return Rank(function, needs, check=check, per_example=bool(getattr(function, "per_example", False)))


def sized(row: Method, s: Shape) -> Shape:
    """The sizes with what `select` itself holds for this row: ids, masks, candidates in order, and a chunk of examples."""
    in_chunk = min(CHUNK_NUMBERS, s.memory // 64, s.n * (s.c + s.d + s.n_epochs))
    own = _BYTES_COVER if isinstance(row, Cover) else _BYTES_RANK
    return replace(s, held=own * s.n + _BYTES_NUMBER * in_chunk)


def room_for(row: Method, s: Shape) -> int:
    """The bytes that the row's function may take where it can choose: what a choice hands it as `memory`."""
    return (row.cost or Cost(lambda s: 0.0)).left(sized(row, s))


def sampler_of(function: Callable[..., Any]) -> Sampler:
    """A row for somebody's own sampler: its attributes `needs` (beside the scores; default: nothing), `check` and `never`."""
    needs = getattr(function, "needs", ())
    needs = (needs,) if isinstance(needs, str) else tuple(needs)
    return Sampler(function, needs, check=getattr(function, "check", None), never=getattr(function, "never", None))


def path_of(function: Callable[..., Any]) -> str:
    """What records call a function that was handed over as such."""
    return f"{getattr(function, '__module__', '?')}:{getattr(function, '__qualname__', type(function).__name__)}"


def _modules_of(name: str) -> set[str]:
    """The module, and those beside this one whose functions and classes it uses, and so on."""
    found, left = {name}, [name]
    package = __name__.rpartition(".")[0] + "."
    while left:
        module = sys.modules.get(left.pop())
        values = vars(module).values() if module is not None else ()
        used = {str(getattr(value, "__module__", "")) for value in values}
        new = {module for module in used if module.startswith(package)} - found
        found |= new
        left += new
    return found
