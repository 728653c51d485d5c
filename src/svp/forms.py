"""The forms that a data set may have on disk: how many examples it has, what they are called, and a part of it written alike."""

import csv
import errno
import os
import re
import shutil
import sys
import zipfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.columns import Source
from svp.data.arrays import NAMES
from svp.data.images import listing
from svp.data.shards import divided
from svp.data.text_csv import delimiter_of, holds_rows, quoting_of, swallowed
from svp.data.text_files import names_of
from svp.data.text_rows import Columns
from svp.errors import DataError, if_spreadsheet
from svp.mapped import npy
from svp.tables import TABLES

Ints = NDArray[np.int64]
_ROWS = 8192  # of an array, copied at a time
_PER_ROW = [name for role in ("inputs", "labels", "ids", "keys") for name in NAMES[role]]
_KEPT = [name for role in ("test inputs", "test labels", "classes") for name in NAMES[role]]


@dataclass(frozen=True)
class Form:
    """One form of data.

    names  source -> number of examples, their ids and their keys (None: not known)
    write  (source, target, rows in order, link) -> how many could not be linked
    """

    names: Callable[[Path], tuple[int, Any, Any]]
    write: Callable[[Path, Path, Ints, bool], int]

    def columns(self, source: Path) -> bool:
        """Whether it is a table, so that a column can hold the ids."""
        return self is not FOLDER and files_of(source)[0].suffix.lower() in TABLES


@dataclass(frozen=True)
class Layout:
    """How .csv and .tsv are read.

    header  whether the first row names the columns; None: it does, if it looks so
    quotes  whether quotes enclose fields, or are letters; None: they enclose, and where that takes in rows it is refused
    """

    header: bool | None = None
    quotes: bool | None = None


def form_of(source: Path, layout: Layout, *, whole: bool = True) -> Form:
    """The form of a file or a folder; DataError where there is none, or nobody here knows it.

    whole   False: of shards only those of the training part, whose rows are the ids of a run
    """
    if source.is_dir():
        return FOLDER if listing(source) else _shards(_shards_of(source, whole), layout)
    if not source.exists():
        raise DataError(f"{source} does not exist; give a folder of images, or a file ({', '.join(_FILES)})")
    if source.suffix.lower() not in _FILES:
        raise DataError(
            f"{source}: unknown kind of file {source.suffix!r}; known are {', '.join(_FILES)}, and folders"
            f"{if_spreadsheet(source.suffix)}"
        )
    return _form_of_file(source, layout)


def _form_of_file(file: Path, layout: Layout) -> Form:
    suffix = file.suffix.lower()
    return _csv_lines(layout) if suffix in (".csv", ".tsv") else _FILES[suffix]


def files_of(source: Path) -> tuple[Path, ...]:
    """The file, or the shards of a folder by name; none of a folder of images."""
    if not source.is_dir():
        return (source,)
    if listing(source):
        return ()
    if not any(file.suffix.lower() in _FILES for file in source.iterdir()):
        raise DataError(f"{source} has no images, and no file that can be read ({', '.join(_FILES)})")
    return Source.of(str(source)).files


def sizes_of(source: Path, layout: Layout) -> list[tuple[str, int]]:
    """The name of each file of a run's training part, in order, and how many examples it has. Time: one pass over them."""
    files = _shards_of(source, whole=False) if source.is_dir() else (source,)
    return [(file.name, _form_of_file(file, layout).names(file)[0]) for file in files]


# --- folders -------------------------------------------------------------------------------------------------------------


def _folder_names(source: Path) -> tuple[int, Any, Any]:
    keys = listing(source)
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


# --- shards --------------------------------------------------------------------------------------------------------------


def _shards_of(source: Path, whole: bool) -> tuple[Path, ...]:
    files = files_of(source)
    if whole:
        return files
    train, _ = divided(source, {file.suffix.lower() for file in files})
    return tuple(file for file in files if file in train)


def _shards(files: tuple[Path, ...], layout: Layout) -> Form:
    """Shards whose rows count through them: every one is written with its part of the rows, which rise."""
    forms = [_form_of_file(file, layout) for file in files]

    def names(source: Path) -> tuple[int, Any, Any]:
        found = [form.names(file) for form, file in zip(forms, files, strict=True)]
        counts, *parts = zip(*found, strict=True)
        ids, keys = (None if any(part is None for part in each) else np.concatenate(each) for each in parts)
        return sum(counts), ids, keys

    def write(source: Path, target: Path, rows: Ints, link: bool) -> int:
        target.mkdir()
        start = 0
        for form, file in zip(forms, files, strict=True):
            stop = start + form.names(file)[0]
            own = rows[np.searchsorted(rows, start) : np.searchsorted(rows, stop)]
            form.write(file, target / file.name, own - start, link)
            start = stop
        return 0

    return Form(names, write)


# --- lines ---------------------------------------------------------------------------------------------------------------


def _csv_lines(layout: Layout) -> Form:
    return _lines(lambda source: _csv_records(source, layout), layout.header)


def _csv_records(source: Path, layout: Layout) -> Iterator[bytes]:
    """The header, then each record, as they stand in the file: a record may go over several lines."""
    csv.field_size_limit(sys.maxsize)
    delimiter = delimiter_of(source, Columns("", (), encoding="latin-1", quotes=layout.quotes))
    watched = delimiter == "\t" and layout.quotes is None
    row, n_fields = -1 if layout.header is not False else 0, 0
    # latin-1 gives each byte a letter and back: no byte is changed, whatever the encoding, and commas stay commas.
    with source.open(encoding="latin-1", newline="") as file:
        lines: list[str] = []

        def kept() -> Iterator[str]:
            for line in file:
                lines.append(line)
                yield line

        try:
            for record in csv.reader(kept(), delimiter=delimiter, quoting=quoting_of(layout.quotes)):
                if record:
                    text = "".join(lines).encode("latin-1")
                    n_fields = n_fields or len(record)
                    if watched and len(lines) > 1 and holds_rows(text, n_fields):
                        raise swallowed(source, row)
                    yield text
                    row += 1
                lines.clear()
        except csv.Error as error:
            raise DataError(f"{source} cannot be read: {error}") from None


def _jsonl_records(source: Path) -> Iterator[bytes]:
    with source.open("rb") as file:
        yield from (line for line in file if line.strip())


def _lines(records: Callable[[Path], Iterator[bytes]], header: bool | None) -> Form:
    """Text: records are taken as they stand. header: whether the first names the columns; None: it does, if it looks so."""

    def names(source: Path) -> tuple[int, Any, Any]:
        if header is None:
            _refuse_numbers(source)
        return max(0, sum(1 for _ in records(source)) - (header is not False)), None, None

    def write(source: Path, target: Path, rows: Ints, link: bool) -> int:
        found = records(source)
        with target.open("wb") as file:
            first = next(found, b"") if header is not False else b""
            file.write(_ended(first) if first else b"")
            file.writelines(map(_ended, _taken(found, rows)))
        return 0

    return Form(names, write)


def _refuse_numbers(source: Path) -> None:
    """DataError where the first row may name the columns or be an example: nobody is to lose one, or be a row off."""
    names = names_of(source, "latin-1")
    numbers = [name for name in names if re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", name)]
    if numbers and names != [str(i) for i in range(len(names))]:
        raise DataError(
            f"{source} has a number where its header should be ({numbers[0]}); say whether its first row names the columns: "
            "header=True or False (--header, --no-header)"
        )


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


def _rows_npy(source: Path) -> NDArray[Any]:
    array = npy(source)
    if not array.ndim:
        raise DataError(f"{source} holds one number, not one for each example")
    return array


def _npy_names(source: Path) -> tuple[int, Any, Any]:
    return len(_rows_npy(source)), None, None


def _write_npy(source: Path, target: Path, rows: Ints, link: bool) -> int:
    array = _rows_npy(source)
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
        raise DataError(f"{source} cannot be read: {' '.join(str(error).split())}; write it with numpy.savez") from None
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


_FILES = {
    ".csv": _csv_lines(Layout()),
    ".tsv": _csv_lines(Layout()),
    ".jsonl": _lines(_jsonl_records, header=False),
    ".parquet": Form(_parquet_names, _write_parquet),
    ".arrow": Form(_ipc_names, _write_ipc),
    ".feather": Form(_ipc_names, _write_ipc),
    ".npy": Form(_npy_names, _write_npy),
    ".npz": Form(_npz_names, _write_npz),
}
FOLDER = Form(_folder_names, _write_folder)
