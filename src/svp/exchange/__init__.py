"""Questions out, answers in: tables, a folder to sort, and the files of labelling tools. Adding a format is a row of `FORMATS`.

What goes out names each example by its id; what comes in may be a part of it, in any order. Nothing here knows a session:
`Asked` becomes files, and files become `Told`.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from svp.errors import SettingError, UnknownName, if_spreadsheet
from svp.exchange import folder, label_studio, prodigy, tables
from svp.exchange.items import Asked, Told

__all__ = ["FORMATS", "Asked", "Format", "Told", "format_of", "read", "write"]


@dataclass(frozen=True)
class Format:
    """How questions are written and answers are read.

    summary  for people who choose
    write    (path, what is asked, names of the classes)
    read     (path) gives what was told, in the order of the file
    suffixes by which a file is known, where nobody names the format; "" is a folder
    """

    summary: str
    write: Callable[[Path, Sequence[Asked], Sequence[str]], None]
    read: Callable[[Path], list[Told]]
    suffixes: tuple[str, ...] = ()


FORMATS = {
    "csv": Format(
        "a table for spreadsheets: fill in the column label", tables.write_csv, tables.read_csv, (".csv", ".tsv")
    ),
    "jsonl": Format("a JSON object a line", tables.write_jsonl, tables.read_jsonl, (".jsonl",)),
    "parquet": Format("a table for programs", tables.write_parquet, tables.read_parquet, (".parquet",)),
    "folder": Format("links to the files, to be sorted into class folders", folder.write, folder.read, ("",)),
    "label-studio": Format(
        "tasks to import; its exports JSON, JSON_MIN and CSV come back",
        label_studio.write,
        label_studio.read,
        (".json",),
    ),
    "prodigy": Format("a stream for its recipe choice, and what db-out gives", prodigy.write, prodigy.read),
}


def format_of(path: Path, name: str | None = None) -> Format:
    """The format of this name; else that of a file or folder called so. Raises UnknownName or SettingError."""
    if name is not None:
        if name not in FORMATS:
            raise UnknownName("format", name, FORMATS)
        return FORMATS[name]
    suffix = "" if path.is_dir() else path.suffix.lower()
    found = [row for row in FORMATS.values() if suffix in row.suffixes]
    if not found:
        known = ", ".join(word for row in FORMATS.values() for word in row.suffixes if word)
        raise SettingError(
            f"{path}: which format is this? End its name in {known}, give a folder, or name it (--format){if_spreadsheet(suffix)}"
        )
    return FORMATS["prodigy"] if suffix == ".jsonl" and prodigy.is_one(path) else found[0]


def write(path: Path, asked: Sequence[Asked], classes: Sequence[str], name: str | None = None) -> None:
    """Write a question. Raises StorageError where that cannot be done, and what the format refuses."""
    format_of(path, name).write(path, asked, classes)


def read(path: Path, name: str | None = None) -> list[Told]:
    """Read answers. Raises DataError naming the place that cannot be read."""
    return format_of(path, name).read(path)
