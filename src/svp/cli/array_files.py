"""The files that a command line names, as arguments of `svp.select`."""

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from cyclopts import Parameter, Token
from numpy.typing import NDArray

from svp.cli.flags import value_of
from svp.columns import ARGUMENTS, Source, check_out, read_array, read_labels, read_names
from svp.errors import DataError, SettingError
from svp.select import select as select_arrays
from svp.select.budget import resolve_memory

Switch = Annotated[bool, Parameter(negative=())]


def _whole(_: Any, tokens: Sequence[Token]) -> int:
    """The number that a flag is given; SettingError where it is not whole (cyclopts itself would round it)."""
    (token,) = tokens
    try:
        return int(token.value)
    except ValueError:
        raise SettingError(f"{token.keyword}: give a whole number; got {token.value!r}") from None


Whole = Annotated[int, Parameter(converter=_whole)]
LIBRARIES = 24 << 20  # bytes that reading and writing files load
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
    seed: Whole = 0
    memory: str | None = None
    hash: Annotated[bool, Parameter(negative="--no-hash")] = True
    out: Path | None = None
    json: Switch = False
    quiet: Switch = False


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
        arguments["memory"] = max(memory - held(arguments) - LIBRARIES, 1 << 20)
        return keys, arguments

    def origin(self) -> dict[str, Any]:
        return {name: source.describe(digests=self.how.hash) for name, source in self.sources.items()}

    def _check_lengths(self, arguments: Mapping[str, Any]) -> None:
        """DataError naming the files, where they hold different numbers of examples."""
        lengths = {}
        signals = {f"signals.{kind}": array for kind, array in arguments.get("signals", {}).items()}
        for name, array in {**arguments, **signals}.items():
            if name in self.sources and name not in ("already", "exclude"):
                source = self.sources[name]
                if not array.ndim:
                    raise DataError(f"{source.path} holds a single number; give one for each example")
                lengths[source.path] = array.shape[-1 if name in signals else 0]
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


def held(arguments: Mapping[str, Any]) -> int:
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
