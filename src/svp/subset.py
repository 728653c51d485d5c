"""What was chosen, as a data set of its own: a folder of images, a table or an array, cut down to the chosen examples.

Nothing is read into another form: images are copied or linked, lines of CSV and JSONL are taken as they stand, Parquet keeps
its schema. The source is only read. Everything is written under a temporary name and renamed when it is whole.
"""

import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from svp.columns import ARGUMENTS, Source, read_names, sha256_of
from svp.data.base import Dataset
from svp.errors import DataError, SettingError
from svp.files import storage_errors, sync
from svp.forms import FOLDER, Form, Ints, Layout, files_of, form_of, sizes_of
from svp.select import Selection


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
    header: bool | None = None,
    quotes: bool | None = None,
) -> Applied:
    """Write the chosen examples of `source` to `out`.

    selection  or the path of a saved one
    source     a folder of images; .csv .tsv .jsonl .parquet .arrow .feather, a row an example; .npy, rows along the first
               axis; .npz with arrays as `svp.load_dataset` reads them, or all of one length; a folder of such files, all of
               one kind, whose rows count through them by name (of a run's selection through those of the training part, and
               no others are written)
    out        must not exist. Of a folder a folder; of a file a name with the same ending, or a folder that will hold it
    order      of the rows: as in the source, or as chosen. Chosen order holds the chosen rows in memory, the other a block
    rest       write what was not chosen in place of what was
    link       hard links to images in place of copies; across file systems copies all the same
    ids        column of the table that holds the ids, or the users' keys; default: ids are row numbers. Where the selection
               has keys they decide, also those that look like numbers; whole numbers are ids where no key looks like one.
               Keys need no column where the source has the rows it was chosen from: it is one of those files, or the keys
               are FILE:ROW, as runs call the rows of several files
    header     whether the first row of a .csv or .tsv names the columns; by default it does, and where it has a number in it,
               that is asked
    quotes     whether quotes in .csv and .tsv enclose fields, or are letters (False), as what was chosen from was read

    First it is made sure that the selection fits: every id is there, keys are the same where both know them, and where the
    selection was made from this very file, its SHA-256. Raises DataError where it does not, SettingError for an `out` that
    exists; then nothing has been written. Time: one pass, two where rows have to be counted.
    """
    source, out = Path(source), Path(out)
    selection = selection if isinstance(selection, Selection) else Selection.load(selection)
    layout = Layout(header, quotes)
    form = form_of(source, layout, whole=bool(selection.inputs.keys() - {"dataset"}) or ids is not None)
    _check(source, out, form, order, rest, link, ids)
    _check_same_file(selection, source)
    n, rows = _rows(selection, source, form, ids, layout)
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
        copied = form.write(source, target, rows, link)
    return Applied(out, len(rows), n, copied)


# --- whether it fits -----------------------------------------------------------------------------------------------------


def _check(source: Path, out: Path, form: Form, order: str, rest: bool, link: bool, ids: str | None) -> None:
    """SettingError for settings that make no sense, or an `out` that would harm something."""
    if order not in ("source", "chosen"):
        raise SettingError(f"order={order!r}; give 'source' or 'chosen'")
    if order == "chosen" and (rest or source.is_dir()):
        raise SettingError(
            "order='chosen': files of a folder, and what was not chosen, have no such order; leave it out"
        )
    if link and form is not FOLDER:
        raise SettingError(f"link: rows of {source} cannot be linked, only the images of a folder; leave it out")
    if ids is not None and not form.columns(source):
        raise SettingError(f"ids={ids!r} (--ids): {source} is no table and has no columns; leave it out")
    if out.exists() or out.is_symlink():
        raise SettingError(f"{out} exists and is not overwritten; give another name, or remove it")
    if not out.absolute().parent.is_dir():
        raise SettingError(f"{out}: the folder {out.parent} does not exist; make it first")
    if source.is_dir() and out.resolve().is_relative_to(source.resolve()):
        raise SettingError(f"{out} lies inside {source}, and would be part of it; give a place outside")
    if source.is_file() and out.suffix and out.suffix.lower() != source.suffix.lower():
        raise SettingError(f"{out}: rows are kept as they are; give a name that ends in {source.suffix}, or a folder")


def _check_same_file(selection: Selection, source: Path) -> None:
    """DataError if the selection was made from this very file when it had another content."""
    known = [file for files in selection.inputs.values() for file in files if "sha256" in file]
    for file in files_of(source):
        before = {earlier["sha256"] for earlier in known if _is_there(earlier, file)}
        if before and sha256_of(file) not in before:
            raise DataError(f"{file} has changed since the selection was made from it; select again, or give that file")


def _check_same_table(selection: Selection, source: Path) -> None:
    """DataError if a run chose rows, which have numbers alone, of another table than this."""
    for earlier in selection.inputs.get("dataset", ()):
        if source.suffix.lower() == Path(earlier["path"]).suffix.lower() and sha256_of(source) != earlier["sha256"]:
            raise DataError(
                f"{source} is not the table that was chosen from ({earlier['path']}), or has changed since, and its rows have "
                "numbers alone; give that table, or name a column of ids, ids= (--ids)"
            )


def _is_there(recorded: dict[str, Any], file: Path) -> bool:
    """Whether a file stands where this one stood."""
    return file.resolve() == Path(recorded.get("absolute", recorded["path"])).resolve()


def _was_chosen_from(selection: Selection, source: Path) -> bool:
    """Whether the source is one of the files that had a row an example, by its place or by its content."""
    files = files_of(source)
    return any(
        len(files) == len(recorded)
        and all(
            _is_there(earlier, file) or ("sha256" in earlier and earlier["sha256"] == sha256_of(file))
            for earlier, file in zip(recorded, files, strict=True)
        )
        for name, recorded in selection.inputs.items()
        if name in ("ids", *ARGUMENTS)
    )


def _rows(selection: Selection, source: Path, form: Form, column: str | None, layout: Layout) -> tuple[int, Ints]:
    """How many examples there are, and the rows of the chosen ones in the order chosen; DataError unless all fit."""
    if column is not None:
        where = Source(source, files_of(source), column)
        by_key = selection.keys is not None and any(key.isdecimal() for key in selection.keys)
        names = read_names(where, 1 << 30, "keys" if by_key else "ids")
        if not isinstance(names, np.ndarray):
            return len(names), _rows_of_keys(selection, names.to_pylist(), source)
        n, ids, keys = len(names), names, None
    else:
        n, ids, keys = form.names(source)
        _check_same_table(selection, source)
        if selection.keys and keys is None and not _was_chosen_from(selection, source):
            _check_places(selection.keys, selection.ids, source, layout)
    ids = np.arange(n) if ids is None else ids
    order = np.argsort(ids, kind="stable")
    if len(repeated := ids[order][1:][np.diff(ids[order]) == 0]):
        raise DataError(f"{source}: {len(repeated)} ids are repeated, the first: {repeated[:3].tolist()}")
    named = None if keys is None else tuple(keys[i] for i in order)
    # Of its data nothing is known here but the rows: they stand in for the inputs.
    known = Dataset(str(source), order[:, None], None, (), ids[order], named)
    replace(selection, fingerprint=None).verify(known)
    return n, known.inputs[known.positions(selection.ids), 0]


def _check_places(keys: Sequence[str], ids: Ints, source: Path, layout: Layout) -> None:
    """DataError unless keys are FILE:ROW of the source, as runs call the rows of several files, and ids are these rows."""
    starts: dict[str, int] = {}
    n = 0
    for name, size in sizes_of(source, layout):
        starts[name] = n
        n += size
    for key, id_ in zip(keys, ids.tolist(), strict=True):
        name, _, row = key.rpartition(":")
        if name not in starts or not row.isdecimal():
            raise DataError(
                f"{source} does not say what its rows are called, and they were chosen by key, such as {key!r}; name the "
                "column of keys, ids= (--ids), or give a file that they were chosen from"
            )
        if starts[name] + int(row) != id_:
            raise DataError(
                f"{source}: {key} is its row {starts[name] + int(row)}, and was id {id_} when it was chosen; give the files "
                "as they were"
            )


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
        for written in (*temporary.rglob("*"), temporary):
            sync(written)
        os.replace(temporary, out)
        sync(out.parent)
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        else:
            temporary.unlink(missing_ok=True)
