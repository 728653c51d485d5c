"""A folder of the chosen files, to be moved into class folders with whatever shows files: what lies in `cat/` is a cat.

    OUT/000012-tom.jpg      links to the chosen files (copies where links cannot be made), the id in front
    OUT/cat/, OUT/dog/      a folder a class
    OUT/skip/, unsure/, none/   for those that are not to be asked about, that cannot be told, that are of no class
    OUT/.round              which question it is, so that a folder told once more answers no later one

What was not moved was not answered.
"""

import os
import re
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path

from svp.errors import DataError, SettingError
from svp.exchange.items import Asked, Told, id_in, opened
from svp.files import make_folder, storage_errors, write_bytes

WORDS = ("skip", "unsure", "none")
_NAME = re.compile(r"(\d+)-(.+)", re.DOTALL)
_ROUND = ".round"
_LITTER = ("thumbs.db", "desktop.ini")


def write(path: Path, asked: Sequence[Asked], classes: Sequence[str]) -> None:
    """Raises SettingError for a folder with something in it, DataError for a file that has gone."""
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise SettingError(f"{path} exists and is not empty; give another folder to sort in")
    if strange := [name for name in classes if name in (".", "..") or {"/", "\\", "\0", os.sep} & set(name)]:
        raise SettingError(f"the class {strange[0]!r} cannot be the name of a folder; write a table (--out batch.csv)")
    if without := [item.key for item in asked if item.file is None]:
        raise SettingError(f"{without[0]} is no file that could be sorted; write a table (--out batch.csv)")
    for name in (*classes, *WORDS):
        make_folder(path / name)
    for item in asked[:1]:
        write_bytes(path / _ROUND, f"{item.round}\n".encode())
    width = max([6, *(len(str(item.id)) for item in asked)])
    for item in asked:
        assert item.file is not None
        _link(item.file, path / f"{item.id:0{width}d}-{item.file.name}")


def read(path: Path) -> list[Told]:
    """Raises DataError for a file in a class folder that was not asked about here, by its name."""
    if not path.is_dir():
        raise DataError(f"{path} is no folder; give the one in which the files were sorted")
    found, round_ = [], _round_of(path)
    for folder in sorted(entry for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        for file in _files(folder):
            named = _NAME.fullmatch(file.name)
            where = str(file.relative_to(path.parent))
            if named is None:
                raise DataError(
                    f"{where} was not put there by svp (its name does not begin with a number and a hyphen); move it out"
                )
            found.append(Told(where, folder.name, int(named[1]), name=named[2], round=round_))
    return found


def _round_of(path: Path) -> int | None:
    """None where nobody knows: the folder was written by an earlier version, or copied without hidden files."""
    file = path / _ROUND
    return id_in({"round": opened(file)}, "round", str(file)) if file.is_file() else None


def _files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_dir() or path.name.startswith(".") or path.name.lower() in _LITTER:
            continue
        if not path.is_file():
            raise DataError(f"{path} leads to no file; put the file itself there, or remove it")
        yield path


def _link(file: Path, place: Path) -> None:
    with storage_errors(place):
        try:
            os.link(os.path.realpath(file), place)  # a link of a link that is relative would lead nowhere
        except FileNotFoundError:
            raise DataError(f"{file} has gone since it was asked about; ask again") from None
        except OSError:
            shutil.copy2(file, place)
