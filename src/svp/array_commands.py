"""Arrays in, ids out, and what is done with a selection: the commands `svp select`, `svp score` and `svp apply`."""

import inspect
import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
from cyclopts import Parameter
from numpy.typing import NDArray

from svp.columns import ARGUMENTS, Source, check_out, read_array, read_labels, read_names
from svp.commands import value_of
from svp.errors import DataError, SettingError
from svp.runs import write_array
from svp.select import Rank, Selection, find_method
from svp.select import score as score_arrays
from svp.select import select as select_arrays
from svp.select.budget import resolve_memory
from svp.select.forecast import Forecast, forecast
from svp.select.representatives import SOON, described
from svp.tables import write_table

Switch = Annotated[bool, Parameter(negative=())]
_LIBRARIES = 24 << 20  # bytes that reading and writing files load
_DESCRIBING = 64 << 20  # bytes for who stands for whom
_SPARSE = ("data", "indices", "indptr", "row", "col", "offsets")  # arrays of the kinds that load_npz knows
_SAVED = {"rank", "id", "gain", "weight"}  # columns of every saved selection


@Parameter(name="*")
@dataclass(frozen=True)
class Files:
    """The arrays, each a FILE, FILE:COLUMN, FILE:COLUMN,COLUMN, FILE:PREFIX*, FILE.npz:NAME, or a FOLDER of shards.

    Parameters
    ----------
    probs
        class probabilities, a row an example
    embeddings
        features, a row an example
    labels
        class numbers, -1 or nothing where unknown; or names of classes
    signals
        what training recorded, by kind: --signals.correct FILE; .npy files are (epochs, n), tables a row an example
    similarity
        n x n similarities, higher = more alike; .npz files of scipy.sparse too
    scores
        scores that exist already, higher = taken first
    ids
        the number or the key of each example; default: its row, from 0
    """

    probs: str | None = None
    embeddings: str | None = None
    labels: str | None = None
    signals: dict[str, str] = field(default_factory=dict)
    similarity: str | None = None
    scores: str | None = None
    ids: str | None = None


@Parameter(name="*")
@dataclass(frozen=True)
class How:
    """Flags of every command that reads arrays.

    Parameters
    ----------
    options
        options of the method or sampler: --options.start 1000
    seed
        decides chance and ties
    memory
        what may be held beside mapped files, such as 500MB or 2GiB; what cannot be kept to is refused before it starts
    hash
        record the SHA-256 of every input file
    out
        where to; the ending says how: .parquet .csv .tsv .jsonl .arrow .feather .npy
    json
        print what was done as JSON
    quiet
        say nothing of time and memory
    """

    options: dict[str, str] = field(default_factory=dict)
    seed: int = 0
    memory: str | None = None
    hash: Annotated[bool, Parameter(negative="--no-hash")] = True
    out: Path | None = None
    json: Switch = False
    quiet: Switch = False


def select(
    method: str,
    /,
    *,
    budget: str,
    files: Files = Files(),
    already: str | None = None,
    exclude: str | None = None,
    per_class: dict[str, str] | None = None,
    costs: str | None = None,
    sampler: str | None = None,
    neighbors: int | None = None,
    tie_break: Literal["hash", "id"] = "hash",
    stands_for: Annotated[bool | None, Parameter(negative="--no-stands-for")] = None,
    how: How = How(),
) -> None:
    """Run `svp.select` on files.

    Parameters
    ----------
    method
        a name from `svp list methods`, or package.module:function
    budget
        how many new examples, or a share such as 10%; with costs a total cost
    already
        file of ids or keys that count as chosen; a saved selection is one
    exclude
        file of ids or keys that are not to be chosen
    per_class
        limits per class: --per-class.min 5, --per-class.max "{0 = 10}" (or "{cat = 10}"), --per-class.share equal
    costs
        what each example costs
    sampler
        how scored examples are chosen: top, a name of svp.select.SAMPLERS, or package.module:function
    neighbors
        keep only so many of the most similar of each example
    tie_break
        which of equals goes first: by a seeded hash of the id, or the lower id
    stands_for
        record how many others each chosen example stands for and which earlier one is nearest [default: where embeddings or
        similarities are given and it is done in seconds]
    """
    if stands_for and not (files.embeddings or files.similarity):
        raise SettingError("--stands-for wants something to compare examples by; give --embeddings or --similarity")
    if stands_for and not _is_table(how.out):
        raise SettingError("--stands-for is recorded in tables; give --out with a name such as picks.parquet")
    given = Given.of(files, how, costs=costs, already=already, exclude=exclude)
    with measured() as took:
        keys, arguments = given.arrays()
        arguments |= {"sampler": sampler, "neighbors": neighbors, "tie_break": tie_break}
        if per_class is not None:
            arguments["per_class"] = {name: _by_class(value_of(text)) for name, text in per_class.items()}
        expected = foresee(method, budget, arguments, how)
        took.start()
        chosen = select_arrays(method, budget, **arguments)
    chosen = replace(
        chosen, inputs=given.origin(), keys=None if keys is None else tuple(keys.take(chosen.ids).to_pylist())
    )
    if how.out is not None:
        _save(_described(chosen, arguments, how, wanted=stands_for), how.out)
    elif not how.json:
        print("\n".join(map(str, chosen.ids.tolist() if chosen.keys is None else chosen.keys)))
    report(expected, took, how, {"method": chosen.method, "n": len(chosen)}, chosen.ids)


def _is_table(out: Path | None) -> bool:
    return out is not None and out.suffix.lower() != ".npy"


def _described(chosen: Selection, arguments: Mapping[str, Any], how: How, *, wanted: bool | None) -> Selection:
    """With who stands for whom and who is nearest, where that can be said; in table files, which have columns for it."""
    names = ("embeddings", "similarity", "ids", "already", "exclude", "memory")
    given = {name: arguments[name] for name in names if name in arguments}
    compared = given.get("similarity", given.get("embeddings"))
    if compared is None or wanted is False or not _is_table(how.out):
        return chosen
    if "embeddings" in given:
        compared = given["embeddings"]
        given.pop("similarity", None)
    operations = float(len(chosen)) * compared.shape[0] * (compared.shape[1] if "embeddings" in given else 1)
    if wanted is None and operations > SOON:
        if not how.quiet:
            print(
                f"nearest and stands_for are left out ({operations:.0e} operations); --stands-for fills them",
                file=sys.stderr,
            )
        return chosen
    given["memory"] = min(given["memory"], _DESCRIBING)
    return described(chosen, given.pop("embeddings", None), **given)


def score(method: str, /, *, files: Files = Files(), how: How = How()) -> None:
    """Run `svp.score` on files.

    Parameters
    ----------
    method
        a name from `svp list methods`, or package.module:function
    """
    given = Given.of(files, how)
    with measured() as took:
        keys, arguments = given.arrays()
        if unused := [name for name in ("similarity", "scores") if arguments.pop(name, None) is not None]:
            raise SettingError(f"--{unused[0]} means nothing to svp score; leave it out")
        name, row = find_method(method)
        expected = foresee(method, 0, arguments, how) if isinstance(row, Rank) else Forecast(None, None)
        took.start()
        values = score_arrays(method, **arguments)
    if how.out is not None and how.out.suffix.lower() == ".npy":
        write_array(how.out, values)
    elif how.out is not None:
        import pyarrow as pa

        ids = arguments.get("ids", np.arange(len(values)))
        write_table(how.out, pa.table({"id": ids, **({} if keys is None else {"key": keys}), "score": values}))
    elif not how.json:
        print("\n".join(map(repr, values.tolist())))
    report(expected, took, how, {"method": name, "n": len(values)}, None)


def apply(
    selection: Path,
    /,
    *,
    data: Path,
    out: Path,
    order: Literal["source", "chosen"] = "source",
    rest: Switch = False,
    link: Switch = False,
    ids: str | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Run `svp.apply`.

    Parameters
    ----------
    selection
        a saved selection, such as picks.parquet
    data
        folder of images, or file (.csv .tsv .jsonl .parquet .arrow .feather .npy .npz); only read
    out
        what to make: of a folder a folder, of a file a file with the same ending, or a folder that will hold it
    order
        rows as in the source, or as chosen
    rest
        write what was not chosen
    link
        hard links to images in place of copies
    ids
        column of the table with ids or keys; default: ids are row numbers
    json_
        print what was done as JSON
    """
    from svp.subset import apply as apply_selection

    done = apply_selection(selection, data, out, order=order, rest=rest, link=link, ids=ids)
    if json_:
        print(json.dumps({"out": str(done.out), "n": done.n, "n_source": done.n_source, "copied": done.copied}))
        return
    print(f"{done.out}: {done.n:,} of {done.n_source:,} examples")
    if done.copied:
        print(f"{done.copied:,} were copied: no hard link could be made there", file=sys.stderr)


# --- files in ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Given:
    """The files named on a command line, by the argument of `svp.select` that they are; signals as "signals.KIND"."""

    sources: dict[str, Source]
    how: How

    @classmethod
    def of(cls, files: Files, how: How, **more: str | None) -> "Given":
        words = {f.name: getattr(files, f.name) for f in fields(files) if f.name != "signals"} | more
        words |= {f"signals.{kind}": word for kind, word in files.signals.items()}
        sources = {name: Source.of(word) for name, word in words.items() if word is not None}
        if how.out is not None:
            check_out(how.out, sources.values())
        return cls(sources, how)

    def arrays(self) -> tuple[Any, dict[str, Any]]:
        """The users' keys, or None; and arguments for `svp.select`."""
        memory = resolve_memory(self.how.memory)
        arguments: dict[str, Any] = {"seed": self.how.seed, "memory": memory}
        options = {name: value_of(text) for name, text in self.how.options.items()}
        if taken := [name for name in options if name in inspect.signature(select_arrays).parameters]:
            raise SettingError(f"--options.{taken[0]}: {taken[0]} is no option of a method; give --{taken[0]}")
        arguments |= options
        for name in ARGUMENTS:
            if name in self.sources:
                arguments[name] = _read(self.sources[name], name, memory)
        signals = {name: source for name, source in self.sources.items() if name.startswith("signals.")}
        if signals:
            kinds = {name.removeprefix("signals."): source for name, source in signals.items()}
            arguments["signals"] = {kind: read_array(source, kind, memory) for kind, source in kinds.items()}
        self._check_lengths(arguments)
        keys = None
        if "ids" in self.sources:
            names = read_names(self.sources["ids"], memory)
            keys = None if isinstance(names, np.ndarray) else names
            arguments["ids"] = names if keys is None else _distinct(names, self.sources["ids"])
            self._check_lengths(arguments)
        for name in ("already", "exclude"):
            if name in self.sources:
                arguments[name] = _ids(self.sources[name], keys, memory)
        # The choice may take what arrays and libraries leave.
        arguments["memory"] = max(memory - _held(arguments) - _LIBRARIES, 1 << 20)
        return keys, arguments

    def origin(self) -> dict[str, Any]:
        return {name: source.describe(digests=self.how.hash) for name, source in self.sources.items()}

    def _check_lengths(self, arguments: Mapping[str, Any]) -> None:
        """DataError naming the files, where they hold different numbers of examples."""
        lengths = {}
        for name, source in self.sources.items():
            if name in arguments and name not in ("already", "exclude"):
                lengths[source.path] = arguments[name].shape[0]
            elif name.startswith("signals."):
                lengths[source.path] = arguments["signals"][name.removeprefix("signals.")].shape[-1]
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{path} {n}" for path, n in lengths.items())
            raise DataError(f"The files differ in the number of examples: {listed}; give files of the same examples")


def _read(source: Source, name: str, memory: int) -> Any:
    if name == "labels":
        return read_labels(source, memory)
    if name == "similarity" and source.kind == ".npz" and source.columns is None:
        import scipy.sparse

        try:
            return scipy.sparse.load_npz(source.files[0])
        except (OSError, ValueError, KeyError):
            pass  # a dense one, then
    return read_array(source, name, memory)


def _distinct(keys: Any, source: Source) -> NDArray[np.int64]:
    """The row of each key, as its id."""
    import pyarrow.compute as pc

    counts = pc.value_counts(keys)
    if len(repeated := counts.filter(pc.greater(counts.field("counts"), 1))):
        raise DataError(
            f"{source.path}: {len(repeated)} keys are repeated, the first: {repeated.field('values')[:3].to_pylist()}; "
            "each example has its own"
        )
    return np.arange(len(keys))


def _ids(source: Source, keys: Any, memory: int) -> NDArray[np.int64]:
    """Ids from ids; or, where all examples have `keys`, from keys, and from ids only of a saved selection."""
    if keys is None:
        names = read_names(source, memory)
        if isinstance(names, np.ndarray):
            return names
        raise DataError(f"{source.path} holds keys; say which example has which: --ids FILE:COLUMN")
    columns = source.column_names()
    if source.columns is None and "key" in columns:
        source = replace(source, columns="key")
    elif source.columns in (None, "id") and _SAVED.issubset(columns):
        return np.asarray(read_names(source, memory))
    import pyarrow.compute as pc

    names = read_names(source, memory, "keys")
    found = pc.index_in(names, value_set=keys.combine_chunks())
    if found.null_count:
        missing = names.filter(pc.is_null(found))
        raise DataError(
            f"{source.path}: {len(missing)} keys are not among the examples, the first: {missing[:3].to_pylist()}"
        )
    return np.asarray(found.to_numpy(), np.int64)


def _by_class(limit: Any) -> Any:
    """Limits as `svp.select` wants them: class numbers are text in TOML."""
    return {int(c) if c.isdecimal() else c: value for c, value in limit.items()} if isinstance(limit, dict) else limit


# --- forecast and fact ---------------------------------------------------------------------------------------------------


def foresee(method: str, budget: Any, arguments: Mapping[str, Any], how: How) -> Forecast:
    """Say what it will take, in all that is not mapped; refuse what does not fit into the memory given."""
    expected = forecast(method, budget, **arguments)
    if expected.bytes is not None:
        expected = replace(expected, bytes=expected.bytes + _held(arguments) + _LIBRARIES)
    if how.memory is not None and expected.bytes is not None and expected.bytes > resolve_memory(how.memory):
        raise SettingError(
            f"memory={how.memory}: method {method!r} takes about {_size(expected.bytes)} for these examples; "
            "give more memory, or choose a method that takes less"
        )
    # Where nothing could be timed, the choice itself may say why, in one line.
    if expected.seconds is not None:
        _say("forecast: at most" if expected.restarts else "forecast:", expected.seconds, expected.bytes, how)
    return expected


def _say(what: str, seconds: float | None, n_bytes: int | None, how: How) -> None:
    if not how.quiet:
        print(f"{what:<9} {_time(seconds)}, {_size(n_bytes)}", file=sys.stderr)


def _held(arguments: Mapping[str, Any]) -> int:
    """Bytes of the arrays that are in memory, not mapped from a file."""
    arrays = (*arguments.values(), *arguments.get("signals", {}).values())
    parts = [part for array in arrays for part in _parts(array)]
    return sum(part.nbytes for part in parts if not _mapped(part))


def _parts(array: Any) -> list[NDArray[Any]]:
    """An array itself; of a matrix of scipy.sparse the arrays it is made of."""
    own = [getattr(array, name, None) for name in _SPARSE] if hasattr(array, "tocsr") else [array]
    return [part for part in own if isinstance(part, np.ndarray)]


def _mapped(array: Any) -> bool:
    while isinstance(array, np.ndarray) and not isinstance(array, np.memmap):
        array = array.base
    return isinstance(array, np.memmap)


class Measured:
    """Seconds since `start`, and the highest memory since it was made: None where the system does not tell."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.before = self.highest = _anonymous()
        self.start()

    def start(self) -> None:
        self.begun = time.perf_counter()

    @property
    def bytes(self) -> int | None:
        return None if self.highest is None or self.before is None else self.highest - self.before

    def look(self) -> None:
        now = _anonymous()
        if now is not None and self.highest is not None:
            self.highest = max(self.highest, now)


@contextmanager
def measured() -> Iterator[Measured]:
    """Look at the memory of this process fifty times a second: pages of mapped files, which cost nothing, are not counted."""
    took, done = Measured(), threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            took.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield took
    finally:
        took.look()
        took.seconds = time.perf_counter() - took.begun
        done.set()
        watcher.join()


def _anonymous() -> int | None:
    """Bytes of this process that are not pages of a file (Linux; elsewhere unknown)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
    except (OSError, StopIteration, ValueError):
        return None


def report(expected: Forecast, took: Measured, how: How, facts: dict[str, Any], ids: Any) -> None:
    """What came out, and what it took beside what was foreseen."""
    if expected.seconds is None:
        _say("forecast:", None, expected.bytes, how)
    _say("took:", took.seconds, took.bytes, how)
    if how.json:
        facts |= {
            "out": None if how.out is None else str(how.out),
            "forecast": {"seconds": expected.seconds, "bytes": expected.bytes, "restarts": expected.restarts},
            "took": {"seconds": took.seconds, "bytes": took.bytes},
        }
        if how.out is None and ids is not None:
            facts["ids"] = ids.tolist()
        print(json.dumps(facts))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _size(n_bytes: int | None) -> str:
    return "memory unknown" if n_bytes is None else f"{n_bytes / 1e6:,.0f} MB of memory"


# --- files out -----------------------------------------------------------------------------------------------------------


def _save(selection: Selection, out: Path) -> None:
    """The selection as its suffix says: .parquet with its origin, .npy the ids alone, else its table."""
    if out.suffix.lower() == ".parquet":
        selection.save(out)
    elif out.suffix.lower() == ".npy":
        write_array(out, selection.ids)
    else:
        write_table(out, selection.table())
