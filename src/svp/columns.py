"""Files to arrays and back: `probs.parquet:p*` names columns of a file, a folder stands for the shards in it.

    .npy                    memory-mapped
    .npz                    `file.npz:name`; memory-mapped where it is not compressed
    .parquet .arrow .feather .csv .tsv .jsonl
                            `file:column`, `file:p0,p1,p2`, `file:p*` (every column that begins so), or a column of lists; a row
                            is an example, and is called by its number, from 0. Read block by block: into memory, or where it
                            is large into an unnamed file on disk (in the folder that TMPDIR names)
    a folder                its files of one of these kinds, in the order of their names, are one array

pyarrow and numpy read; nothing is ever unpickled.
"""

import hashlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from svp.errors import DataError, SettingError, UnknownName, if_spreadsheet
from svp.mapped import joined, npy, npz
from svp.tables import TABLES, WRITERS, NotNumbers, batches, column_types, is_number

# What an array may be called in a file whose columns were not named; the columns of ids and labels are no features.
NAMES = {
    "ids": ("id", "ids", "key", "keys"),
    "labels": ("label", "labels", "y"),
    "scores": ("score", "scores", "gain"),
    "costs": ("cost", "costs"),
}
_NO_FEATURE = {
    *NAMES["ids"],
    *NAMES["labels"],
    "rank",
    "index",
    "__index_level_0__",
    "",
}  # "": what pandas calls its index
# What stands for a missing value, where there is such a thing: an unknown label, an example that was not shown.
_MISSING = {"labels": -1, "correct": 255}
# Arguments of `svp.select` that are arrays with a row an example; any other role is a kind of signal.
ARGUMENTS = ("probs", "embeddings", "labels", "similarity", "scores", "costs")
SUFFIXES = (".npy", ".npz", *TABLES)


@dataclass(frozen=True)
class Source:
    """What one word of a command line names.

    path     as given
    files    that file, or the shards in that folder
    columns  what stands behind the colon; or None
    """

    path: Path
    files: tuple[Path, ...]
    columns: str | None = None

    @classmethod
    def of(cls, word: str) -> "Source":
        """`path` or `path:columns`; DataError where there is no such file, or nobody here can read it."""
        path, columns = Path(word), None
        if not path.exists() and ":" in word:
            left, _, columns = word.rpartition(":")
            path = Path(left)
        if not path.exists():
            raise DataError(f"{path} does not exist; give a file ({', '.join(SUFFIXES)}), or a folder of such files")
        return cls(path, _shards(path) if path.is_dir() else (_known(path),), columns or None)

    @property
    def kind(self) -> str:
        return _suffix(self.files[0])

    def column_names(self) -> list[str]:
        """The columns of a table; none of an array."""
        return [] if self.kind in (".npy", ".npz") else list(column_types(self.files[0]))

    def describe(self, *, digests: bool) -> list[dict[str, Any]]:
        """Path as given and absolute, size and SHA-256 of each file: what an origin records. Time: one pass over the files."""
        return [
            {
                "path": file.as_posix(),
                "absolute": file.resolve().as_posix(),
                **({} if self.columns is None else {"columns": self.columns}),
                "size": file.stat().st_size,
                **({"sha256": sha256_of(file)} if digests else {}),
            }
            for file in self.files
        ]


def read_array(source: Source, role: str, memory: int) -> NDArray[Any]:
    """The numbers of one argument of `svp.select`, as it wants them.

    role    the argument: probs, embeddings, similarity (n, ...); labels, scores, costs (n,); or a kind of signal, which a
            table holds as (n, n_epochs), a row an example, and a .npy as (n_epochs, n), as `svp` itself saves it
    memory  bytes that may be held; what is larger than an eighth of it is put on disk and mapped
    Raises DataError for text, missing values and rows of different lengths, with the first rows where they are.
    """
    flip = role not in ARGUMENTS
    columns = _columns(source, role)
    blocks = (block for file in source.files for block in _arrays(file, source.columns, columns, role, memory))
    first = next(blocks, None)
    if first is None:
        first = np.zeros(0 if role in NAMES else (0, len(columns)))
    second = next(blocks, None)
    whole = first if second is None else joined(itertools.chain((first, second), blocks), memory // 8, source.path)
    return whole.T if flip else whole


def read_names(source: Source, memory: int, role: Literal["ids", "keys"] = "ids") -> Any:
    """Ids, or the users' own keys: (n,) int64, or a pyarrow array of strings.

    role    "ids": numbers where all are whole numbers, else text; "keys": always text, "100" is a key like any other
    """
    import pyarrow as pa

    if source.kind in (".npy", ".npz"):
        array = read_array(source, "scores", memory)
        if array.ndim != 1 or array.dtype.kind not in "iuUS":
            raise DataError(
                f"{source.path}: {array.dtype} of shape {array.shape}; give a flat array of whole numbers or of strings"
            )
        if array.dtype.kind in "iu" and role == "keys":  # of a selection or of a column? The file does not say.
            raise DataError(
                f"{source.path} holds numbers, the examples have keys; give keys, or a selection saved as .parquet"
            )
        return array if array.dtype.kind in "iu" else pa.chunked_array([pa.array(array.astype(str).tolist())])
    column = _names(source, _columns(source, "ids"), ("ids", "keys") if role == "ids" else ("keys", "ids"))
    _refuse_missing(source.path, np.flatnonzero(_is_null(column)))
    if pa.types.is_integer(column.type):
        return column.to_numpy() if role == "ids" else column.cast(pa.string())
    return column


def read_labels(source: Source, memory: int) -> NDArray[Any]:
    """(n,) class numbers, or where they are text the names of the classes, None where unknown."""
    try:
        return read_array(source, "labels", memory)
    except NotNumbers:
        column = _names(source, _columns(source, "labels"), ("keys",)).combine_chunks().dictionary_encode()
    names = np.array([*column.dictionary.to_pylist(), None], object)  # each word is held once
    return np.asarray(names[column.indices.fill_null(len(names) - 1).to_numpy()])


def _names(source: Source, columns: list[str], roles: Sequence[str]) -> Any:
    """The column as whole numbers or as text, read as the first of these roles that fits every row."""
    import pyarrow as pa

    found: dict[Any, Path] = {}
    parts = []
    try:
        for file in source.files:
            for batch in batches(file, columns, roles[0]):
                parts.append(_named(file, batch.column(0)))
                found.setdefault(parts[-1].type, file)
    except NotNumbers:
        if len(roles) == 1:
            raise
        return _names(source, columns, roles[1:])
    if len(found) > 1:
        (kind, first), (other, second) = found.items()
        raise DataError(f"{source.path}: {first.name} holds {kind}, {second.name} {other}; give names of one type")
    return pa.chunked_array(parts, None if parts else pa.int64())


def _named(file: Path, column: Any) -> Any:
    """Whole numbers as int64, text as strings; DataError for anything else."""
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if pa.types.is_null(column.type):
        _refuse_missing(file, np.arange(len(column)))
    kind = pa.int64() if pa.types.is_integer(column.type) else pa.string()
    if kind == pa.string() and not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        raise DataError(f"{file}: {column.type} cannot name examples; give a column of whole numbers or of strings")
    try:
        return column.cast(kind)
    except pa.ArrowInvalid as error:
        raise DataError(f"{file}: {' '.join(str(error).split())}; give whole numbers below 2^63") from None


def check_out(path: Path, sources: Iterable[Source]) -> Path:
    """`path` if it can be written without harm: a known suffix, a folder that is there, and no file that is read."""
    if path.suffix.lower() not in (*WRITERS, ".npy"):
        raise SettingError(f"{path} cannot be written; give a name that ends in {', '.join(WRITERS)} or .npy")
    if not path.absolute().parent.is_dir():
        raise SettingError(f"{path}: the folder {path.parent} does not exist; make it first")
    if path.is_dir():
        raise SettingError(f"{path} is a folder; give the name of a file")
    if path.exists() and any(path.samefile(file) for source in sources for file in source.files):
        raise SettingError(f"{path} is one of the inputs; give another name, nothing was written")
    return path


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


# --- which files, which columns ------------------------------------------------------------------------------------------


def _suffix(path: Path) -> str:
    return path.suffix.lower()


def _known(path: Path) -> Path:
    if _suffix(path) not in SUFFIXES:
        raise DataError(
            f"{path}: unknown kind of file {path.suffix!r}; known are {', '.join(SUFFIXES)}{if_spreadsheet(path.suffix)}"
        )
    return path


def _shards(folder: Path) -> tuple[Path, ...]:
    """The visible files of a folder, all of one known kind, by name."""
    files = sorted(path for path in folder.iterdir() if path.is_file() and not path.name.startswith((".", "_")))
    known = [path for path in files if _suffix(path) in SUFFIXES]
    if not known:
        raise DataError(f"{folder} has no file that can be read; known are {', '.join(SUFFIXES)}")
    if len(kinds := sorted({_suffix(path) for path in known})) > 1:
        raise DataError(
            f"{folder} has files of several kinds ({', '.join(kinds)}); give a folder with one, or name a file"
        )
    return tuple(known)


def _columns(source: Source, role: str) -> list[str]:
    """The columns of the first file that are meant, which all others have too, in whatever order; of arrays none."""
    first, *others = source.files
    if source.kind not in TABLES:
        return []
    chosen = _choose(first, source.columns, role)
    for file in others:
        if not (types := column_types(file)):  # a .jsonl without lines
            continue
        if missing := [name for name in chosen if name not in types]:
            raise UnknownName(f"column of {file.name}", missing[0], list(types), hint=f"{first.name} has it")
        if role in NAMES:
            continue
        more = [name for name in _choose(file, source.columns, role) if name not in chosen and types[name] != "other"]
        if more:
            raise DataError(
                f"{source.path}: {file.name} has the columns {', '.join(more)} beside those of {first.name}; "
                f"name those you mean: {source.path}:{','.join(chosen[:3])}"
            )
    return chosen


def _choose(file: Path, columns: str | None, role: str) -> list[str]:
    """The columns meant, in the order named, else in that of the file."""
    types = column_types(file)
    known = list(types)
    if columns is not None:
        if columns in types:
            return [columns]
        chosen = []
        for word in columns.split(","):
            found = [name for name in known if name.startswith(word[:-1])] if word.endswith("*") else [word]
            if not found or found[0] not in types:
                raise UnknownName(
                    f"column of {file.name}", word, known, hint=f"'{word.rstrip('*')}*' takes all that begin so"
                )
            chosen += found
        return chosen
    for name in (role, *NAMES.get(role, ())):
        if name in types:
            return [name]
    if role in NAMES:
        if len(known) == 1:
            return known
        raise DataError(
            f"{file}: which column holds the {role}? Name it: {file.name}:COLUMN, one of {', '.join(known)}"
        )
    features = [name for name in known if name not in _NO_FEATURE]
    lists = [name for name in features if types[name] == "list"]
    chosen = lists or [name for name in features if types[name] == "number"] or features
    if not chosen or len(lists) > 1:
        raise DataError(f"{file}: which columns hold the {role}? Name them: {file.name}:COLUMN, of {', '.join(known)}")
    return chosen


# --- arrays --------------------------------------------------------------------------------------------------------------


def _arrays(file: Path, word: str | None, names: list[str], role: str, memory: int) -> Iterator[NDArray[Any]]:
    """Blocks of one file, of a table these columns: rows are examples."""
    if _suffix(file) in (".npy", ".npz"):
        if word is not None and _suffix(file) == ".npy":
            raise DataError(f"{file} is one array and has no {word!r}; leave :{word} out")
        array = npy(file) if _suffix(file) == ".npy" else npz(file, word, memory)
        yield array if role in ARGUMENTS or array.ndim < 2 else array.T
        return
    if role in NAMES and len(names) > 1:
        raise DataError(f"{file}: {role} is one column, not {len(names)}; name one")
    missing: list[int] = []
    row, width = 0, None
    for batch in batches(file, names, role):
        block, holes = _numbers(file, batch, role, row)
        missing += (row + holes).tolist()
        if block.ndim == 2 and len(block):
            width = width or block.shape[1]
            if block.shape[1] != width:
                raise DataError(f"{file}: row {row} has {block.shape[1]} numbers of {role}, the first row has {width}")
        row += batch.num_rows
        if not missing:
            yield block
    _refuse_missing(file, np.array(missing))


def _numbers(file: Path, batch: Any, role: str, row: int) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """A batch as an array, and the places in it where a value is missing that may not be."""
    import pyarrow as pa

    holes = np.zeros(batch.num_rows, bool)
    parts = []
    for name, column in zip(batch.schema.names, batch.columns, strict=True):
        parents, width = np.arange(batch.num_rows), None
        if hasattr(column, "flatten") and hasattr(column.type, "value_type"):
            holes |= _is_null(column)
            column, parents, width = _unpacked(file, name, column, row)
        if pa.types.is_decimal(column.type) or pa.types.is_null(column.type):
            column = column.cast(pa.float64())
        if not is_number(column.type):
            first = next((i for i, value in enumerate(column) if value.is_valid), 0)
            raise NotNumbers(
                f"{file}: {role} wants numbers, column {name!r} holds {column.type}, "
                f"in row {row + parents[first]} {column[first]!s:.40}"
            )
        if role in ARGUMENTS and role not in _MISSING:
            holes[parents[_is_null(column)]] = True
        if not holes.any():
            values = _filled(file, column, role).to_numpy(zero_copy_only=False)
            values = values if width is None else values.reshape(-1, width)
            # What text means must not depend on the block: 1 in one and 1.5 in the next.
            parts.append(values.astype(np.float64, copy=False) if _suffix(file) == ".jsonl" else values)
    if holes.any():
        return np.zeros((0, 0)), np.flatnonzero(holes)
    flat = len(parts) == 1 and (role in NAMES or parts[0].ndim == 2)
    return parts[0] if flat else np.column_stack(parts), np.flatnonzero(holes)


def _filled(file: Path, column: Any, role: str) -> Any:
    """Numbers with what stands for a missing one of this role, in a type that no block of them can change."""
    import pyarrow as pa

    if role in ARGUMENTS and role != "labels":
        return column
    whole = role in _MISSING and not pa.types.is_floating(column.type)
    column = column.cast(pa.int64() if whole else pa.float64()).fill_null(_MISSING.get(role, np.nan))
    if role != "correct":
        return column
    try:
        return column.cast(pa.uint8())
    except pa.ArrowInvalid:
        raise DataError(f"{file}: correct has values other than 0 (wrong), 1 (right) and 255 (not shown)") from None


def _unpacked(file: Path, name: str, column: Any, row: int) -> tuple[Any, NDArray[np.int64], int]:
    """A column of lists as its values, the row of each, and how many each list has; lists that are missing have none."""
    import pyarrow.compute as pc

    there = np.flatnonzero(~_is_null(column))
    lengths = pc.list_value_length(column).take(there).to_numpy()
    if len(other := np.flatnonzero(lengths != lengths[:1].repeat(len(lengths)))):
        raise DataError(
            f"{file}: {name!r} has {lengths[other[0]]} numbers in row {row + there[other[0]]}, "
            f"{lengths[0]} in row {row + there[0]}"
        )
    width = int(lengths[0]) if len(lengths) else 0
    # A list of fixed size holds values where it is missing, too.
    return column.take(there).flatten(), there.repeat(width), width


def _is_null(column: Any) -> NDArray[np.bool_]:
    return np.asarray(column.is_null().to_numpy(zero_copy_only=False))


def _refuse_missing(path: Path, rows: NDArray[np.int64]) -> None:
    if len(rows):
        raise DataError(
            f"{path}: {len(rows)} rows have missing values, the first: {rows[:3].tolist()}; fill or drop them"
        )
