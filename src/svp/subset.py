"""What was chosen, as a data set of its own: a folder of images, a table or an array, cut down to the chosen examples.

Nothing is read into another form: images are copied or linked, lines of CSV and JSONL are taken as they stand, Parquet keeps
its schema. The source is only read. Everything is written under a temporary name and renamed when it is whole.
"""

import csv
import errno
import os
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from svp.columns import Source, read_names, sha256_of
from svp.data.arrays import NAMES
from svp.data.base import Dataset
from svp.data.images import listing
from svp.errors import DataError, SettingError
from svp.runs import storage_errors
from svp.select import Selection

Ints = NDArray[np.int64]
_ROWS = 8192  # of an array, copied at a time
_PER_ROW = [name for role in ("inputs", "labels", "ids", "keys") for name in NAMES[role]]
_KEPT = [name for role in ("test inputs", "test labels", "classes") for name in NAMES[role]]


@dataclass(frozen=True)
class Applied:
    """What was written: where, how many of how many examples, and how many of them could not be linked and were copied."""

    out: Path
    n: int
    n_source: int
    copied: int = 0


def apply(
    selection: Selection | str | Path,
    source: str | Path,
    out: str | Path,
    *,
    order: Literal["source", "chosen"] = "source",
    rest: bool = False,
    link: bool = False,
    ids: str | None = None,
) -> Applied:
    """Write the chosen examples of `source` to `out`.

    selection  or the path of a saved one
    source     a folder of images; .csv .tsv .jsonl .parquet .arrow .feather, a row an example; .npy, rows along the first
               axis; .npz with arrays as `svp.load_dataset` reads them, or all of one length
    out        must not exist. Of a folder a folder; of a file a name with the same ending, or a folder that will hold it
    order      of the rows: as in the source, or as chosen. Chosen order holds the chosen rows in memory, the other a block
    rest       write what was not chosen in place of what was
    link       hard links to images in place of copies; across file systems copies all the same
    ids        column of the table that holds the ids, or the users' keys; default: ids are row numbers

    First it is made sure that the selection fits: every id is there, keys are the same where both know them, and where the
    selection was made from this very file, its SHA-256. Raises DataError where it does not, SettingError for an `out` that
    exists; then nothing has been written. Time: one pass, two where rows have to be counted.
    """
    source, out = Path(source), Path(out)
    selection = selection if isinstance(selection, Selection) else Selection.load(selection)
    kind = _kind_of(source)
    _check(source, out, kind, order, rest, link, ids)
    _check_same_file(selection, source)
    n, rows = _rows(selection, source, kind, ids)
    if rest:
        left = np.ones(n, bool)
        left[rows] = False
        rows = np.flatnonzero(left)
    elif order == "source":
        rows = np.sort(rows)
    with storage_errors(out), _whole(out) as temporary:
        target = temporary
        if source.is_file() and not out.suffix:
            temporary.mkdir()
            target = temporary / source.name
        copied = kind.write(source, target, rows, link)
    return Applied(out, len(rows), n, copied)


# --- whether it fits -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Kind:
    """One form of data. names(source) -> number of examples, their ids and keys (None: not known); write(source, target,
    rows in order, link) -> how many could not be linked."""

    names: Callable[[Path], tuple[int, Any, Any]]
    write: Callable[[Path, Path, Ints, bool], int]


def _kind_of(source: Path) -> _Kind:
    if source.is_dir():
        return _FOLDER
    if not source.exists():
        raise DataError(f"{source} does not exist; give a folder of images, or a file ({', '.join(_FILES)})")
    if source.suffix.lower() not in _FILES:
        raise DataError(f"{source}: unknown kind of file {source.suffix!r}; known are {', '.join(_FILES)}, and folders")
    return _FILES[source.suffix.lower()]


def _check(source: Path, out: Path, kind: _Kind, order: str, rest: bool, link: bool, ids: str | None) -> None:
    """SettingError for settings that make no sense, or an `out` that would harm something."""
    if order not in ("source", "chosen"):
        raise SettingError(f"order={order!r}; give 'source' or 'chosen'")
    if order == "chosen" and (rest or kind is _FOLDER):
        raise SettingError(
            "order='chosen': files of a folder, and what was not chosen, have no such order; leave it out"
        )
    if link and kind is not _FOLDER:
        raise SettingError(f"link: {source} is one file, only those of a folder can be linked; leave it out")
    if ids is not None and (kind is _FOLDER or source.suffix.lower() in (".npy", ".npz")):
        raise SettingError(f"ids={ids!r}: {source} is no table and has no columns; leave it out")
    if out.exists() or out.is_symlink():
        raise SettingError(f"{out} exists and is not overwritten; give another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise SettingError(f"{out}: the folder {out.parent} does not exist; make it first")
    if kind is _FOLDER and out.resolve().is_relative_to(source.resolve()):
        raise SettingError(f"{out} lies inside {source}, and would be part of it; give a place outside")
    if kind is not _FOLDER and out.suffix and out.suffix.lower() != source.suffix.lower():
        raise SettingError(f"{out}: rows are kept as they are; give a name that ends in {source.suffix}, or a folder")


def _check_same_file(selection: Selection, source: Path) -> None:
    """DataError if the selection was made from a file of this name with another content."""
    for files in selection.inputs.values():
        for file in files:
            if (
                source.is_file()
                and file["name"] == source.name
                and "sha256" in file
                and file["sha256"] != sha256_of(source)
            ):
                raise DataError(
                    f"{source} has changed since the selection was made from it; select again, or give that file"
                )


def _rows(selection: Selection, source: Path, kind: _Kind, column: str | None) -> tuple[int, Ints]:
    """How many examples there are, and the rows of the chosen ones in the order chosen; DataError unless all fit."""
    if column is not None:
        names = read_names(Source(source, (source,), column), 1 << 30)
        if not isinstance(names, np.ndarray):
            return len(names), _rows_of_keys(selection, names.to_pylist(), source)
        n, ids, keys = len(names), names, None
    else:
        n, ids, keys = kind.names(source)
    ids = np.arange(n) if ids is None else ids
    order = np.argsort(ids, kind="stable")
    if len(repeated := ids[order][1:][np.diff(ids[order]) == 0]):
        raise DataError(f"{source}: {len(repeated)} ids are repeated, the first: {repeated[:3].tolist()}")
    named = None if keys is None else tuple(keys[i] for i in order)
    # Of its data nothing is known here but the rows: they stand in for the inputs.
    known = Dataset(str(source), order[:, None], None, (), ids[order], named)
    replace(selection, fingerprint=None).verify(known)
    return n, known.inputs[known.positions(selection.ids), 0]


def _rows_of_keys(selection: Selection, keys: list[str], source: Path) -> Ints:
    if selection.keys is None:
        raise DataError(f"{source}: its ids are keys, and the selection knows no keys; give a column of whole numbers")
    rows = {key: row for row, key in enumerate(keys)}
    if len(rows) < len(keys):
        raise DataError(f"{source}: {len(keys) - len(rows)} keys are repeated; each example has its own")
    if missing := [key for key in selection.keys if key not in rows]:
        raise DataError(f"{source}: {len(missing)} chosen keys are not in it, the first: {missing[:3]}")
    return np.array([rows[key] for key in selection.keys], np.int64)


@contextmanager
def _whole(out: Path) -> Iterator[Path]:
    """A temporary name beside `out` that becomes `out` if all goes well, and nothing if not."""
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    try:
        yield temporary
        if out.exists():
            raise SettingError(f"{out} was made by somebody else meanwhile; give another name")
        os.replace(temporary, out)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)


# --- folders -------------------------------------------------------------------------------------------------------------


def _folder_names(source: Path) -> tuple[int, Any, Any]:
    keys = listing(source)
    if not keys:
        raise DataError(f"{source} has no images; give a folder of images, or a file ({', '.join(_FILES)})")
    return len(keys), None, keys


def _write_folder(source: Path, target: Path, rows: Ints, link: bool) -> int:
    keys = listing(source)
    target.mkdir()
    copied = 0
    for row in rows.tolist():
        place = target / keys[row]
        place.parent.mkdir(parents=True, exist_ok=True)
        if link and not copied and _linked(source / keys[row], place):
            continue
        shutil.copy2(source / keys[row], place)
        copied += link
    return copied


def _linked(file: Path, place: Path) -> bool:
    """Whether a hard link could be made; not across file systems, nor where there are none."""
    try:
        os.link(os.path.realpath(file), place)
    except OSError as error:
        if error.errno in (errno.EXDEV, errno.EPERM, errno.ENOTSUP, errno.EMLINK):
            return False
        raise
    return True


# --- lines ---------------------------------------------------------------------------------------------------------------


def _csv_records(source: Path) -> Iterator[bytes]:
    """The header, then each record, as they stand in the file: a record may go over several lines."""
    csv.field_size_limit(sys.maxsize)
    # latin-1 gives each byte a letter and back: no byte is changed, whatever the encoding, and commas stay commas.
    with source.open(encoding="latin-1", newline="") as file:
        lines: list[str] = []

        def kept() -> Iterator[str]:
            for line in file:
                lines.append(line)
                yield line

        try:
            for record in csv.reader(kept(), delimiter="\t" if source.suffix.lower() == ".tsv" else ","):
                if record:
                    yield "".join(lines).encode("latin-1")
                lines.clear()
        except csv.Error as error:
            raise DataError(f"{source} cannot be read: {error}") from None


def _jsonl_records(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        yield from (line for line in file if line.strip())


def _lines(records: Callable[[Path], Iterator[bytes]], header: bool) -> _Kind:
    """Text: records are taken as they stand."""

    def names(source: Path) -> tuple[int, Any, Any]:
        return max(0, sum(1 for _ in records(source)) - header), None, None

    def write(source: Path, target: Path, rows: Ints, link: bool) -> int:
        found = records(source)
        with target.open("wb") as file:
            first = next(found, b"") if header else b""
            file.write(_ended(first) if first else b"")
            file.writelines(map(_ended, _taken(found, rows)))
        return 0

    return _Kind(names, write)


def _taken(records: Iterable[bytes], rows: Ints) -> Iterator[bytes]:
    """The records of these rows, in this order: one by one where it rises, else those wanted are held."""
    if (np.diff(rows) > 0).all():
        wanted = iter(rows.tolist())
        next_row = next(wanted, -1)
        for row, record in enumerate(records):
            if row == next_row:
                yield record
                next_row = next(wanted, -1)
        return
    chosen = set(rows.tolist())
    held = {row: record for row, record in enumerate(records) if row in chosen}
    yield from (held[row] for row in rows.tolist())


def _ended(record: bytes) -> bytes:
    return record if record.endswith((b"\n", b"\r")) else record + b"\n"


# --- tables and arrays ---------------------------------------------------------------------------------------------------


def _write_tables(tables: Iterable[Any], writer: Any, rows: Ints) -> None:
    """The rows of a table that comes in pieces, through a pyarrow writer: piece by piece where they rise."""
    import pyarrow as pa

    rises = (np.diff(rows) > 0).all()
    ascending = np.sort(rows)
    start, held = 0, []
    for table in tables:
        low, high = np.searchsorted(ascending, (start, start + table.num_rows))
        piece = table.take(pa.array(ascending[low:high] - start))
        start += table.num_rows
        if rises and piece.num_rows:
            writer.write_table(piece)
        held += [] if rises else [piece]
    if held:
        # held is in rising order: where each row of the wanted order stands in it
        writer.write_table(pa.concat_tables(held).take(pa.array(np.searchsorted(ascending, rows))))


def _parquet_names(source: Path) -> tuple[int, Any, Any]:
    with _parquet(source) as file:
        return file.metadata.num_rows, None, None


def _parquet(source: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(source)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{source} cannot be read: {' '.join(str(error).split())}") from None


def _write_parquet(source: Path, target: Path, rows: Ints, link: bool) -> int:
    import pyarrow.parquet as pq

    with _parquet(source) as file:
        groups = file.metadata.num_row_groups
        codec = (
            file.metadata.row_group(0).column(0).compression.lower()
            if groups and file.metadata.num_columns
            else "snappy"
        )
        codec = "none" if codec == "uncompressed" else codec
        with pq.ParquetWriter(target, file.schema_arrow, compression=codec) as writer:
            _write_tables((file.read_row_group(group) for group in range(groups)), writer, rows)
    return 0


@contextmanager
def _ipc(source: Path) -> Iterator[Any]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(source)) as mapped, pa.ipc.open_file(mapped) as file:
            yield file
    except pa.ArrowException as error:
        raise DataError(f"{source} cannot be read: {' '.join(str(error).split())}") from None


def _ipc_names(source: Path) -> tuple[int, Any, Any]:
    with _ipc(source) as file:
        return sum(file.get_batch(i).num_rows for i in range(file.num_record_batches)), None, None


def _write_ipc(source: Path, target: Path, rows: Ints, link: bool) -> int:
    import pyarrow as pa

    with _ipc(source) as file, pa.ipc.new_file(str(target), file.schema) as writer:
        batches = (file.get_batch(i) for i in range(file.num_record_batches))
        _write_tables((pa.Table.from_batches([batch]) for batch in batches), writer, rows)
    return 0


def _npy(source: Path) -> NDArray[Any]:
    try:
        array: NDArray[Any] = np.load(source, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{source} cannot be read: {error}") from None
    if not array.ndim:
        raise DataError(f"{source} holds one number, not one for each example")
    return array


def _npy_names(source: Path) -> tuple[int, Any, Any]:
    return len(_npy(source)), None, None


def _write_npy(source: Path, target: Path, rows: Ints, link: bool) -> int:
    array = _npy(source)
    with target.open("wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False}
        np.lib.format.write_array_header_2_0(file, {**header, "shape": (len(rows), *array.shape[1:])})
        for start in range(0, len(rows), _ROWS):
            file.write(np.ascontiguousarray(array[rows[start : start + _ROWS]]).tobytes())
    return 0


def _npz(source: Path) -> tuple[int, dict[str, NDArray[Any]]]:
    """How many examples, and every array."""
    try:
        with np.load(source, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
    except Exception as error:  # a damaged zip can raise anything
        raise DataError(f"{source} cannot be read: {' '.join(str(error).split())}") from None
    inputs = next((arrays[name] for name in NAMES["inputs"] if name in arrays), None)
    if inputs is not None:
        return len(inputs), arrays
    lengths = {name: array.shape[0] if array.ndim else 0 for name, array in arrays.items() if name not in _KEPT}
    if len(set(lengths.values())) != 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items()) or "nothing"
        raise DataError(
            f"{source}: its arrays differ in length ({listed}); call the examples x, or give arrays of one length"
        )
    return next(iter(lengths.values())), arrays


def _npz_names(source: Path) -> tuple[int, Any, Any]:
    n, arrays = _npz(source)
    keys = arrays.get("keys")
    return n, arrays.get("ids"), None if keys is None else [str(key) for key in keys.tolist()]


def _write_npz(source: Path, target: Path, rows: Ints, link: bool) -> int:
    """Arrays of one row an example are cut down; classes and the test part stay as they are."""
    n, arrays = _npz(source)
    named = any(name in arrays for name in NAMES["inputs"])
    with zipfile.ZipFile(source) as archive:
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
    if odd := [
        name for name, array in arrays.items() if named and name not in _PER_ROW + _KEPT and array.shape[:1] != (n,)
    ]:
        raise DataError(
            f"{source}: whether {odd[0]} of shape {arrays[odd[0]].shape} goes by example, nobody can tell; remove it"
        )
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED) as archive:
        for name, array in arrays.items():
            with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
                np.lib.format.write_array(file, array if name in _KEPT else array[rows], allow_pickle=False)
    return 0


_FOLDER = _Kind(_folder_names, _write_folder)
_FILES = {
    ".csv": _lines(_csv_records, header=True),
    ".tsv": _lines(_csv_records, header=True),
    ".jsonl": _lines(_jsonl_records, header=False),
    ".parquet": _Kind(_parquet_names, _write_parquet),
    ".arrow": _Kind(_ipc_names, _write_ipc),
    ".feather": _Kind(_ipc_names, _write_ipc),
    ".npy": _Kind(_npy_names, _write_npy),
    ".npz": _Kind(_npz_names, _write_npz),
}
