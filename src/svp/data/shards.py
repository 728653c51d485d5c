"""Which files of a folder are of the training part and which of the test part, by how their name or folder begins."""

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path

from svp.errors import DataError

_PLACES = ("", "data", "train")  # folders below the given one in which shards are looked for to know one by
_PART = re.compile(r"(train|test|validation|valid|val|dev)(ing)?(?![a-z])")
_TESTS = ("test", "validation", "valid", "val", "dev")  # the first that has labels is the test part


def visible(folder: Path) -> Iterator[Path]:
    """All files in a folder and below it, but for hidden ones and those in hidden folders, which systems and editors leave."""
    for path in folder.rglob("*"):
        if not any(name.startswith(".") for name in path.relative_to(folder).parts) and path.is_file():
            yield path


def known_by(folder: Path, suffixes: Collection[str]) -> list[Path]:
    """The visible shards by which it is known what a folder holds: those in itself, in data/ and in train/."""
    found = (file for place in _PLACES for file in sorted((folder / place).glob("[!.]*")))
    return [file for file in found if file.suffix.lower() in suffixes]


def divided(source: Path, suffixes: Collection[str]) -> tuple[list[Path], list[list[Path]]]:
    """The shards to train on in order of their paths' bytes, and those of each part that may be the test part, best first.

    A file is a training part of its own. Of a folder those in folders below count, hidden ones do not.
    """
    if not source.is_dir():
        return [source], []
    found: dict[str, list[Path]] = {}
    shards = (path for path in visible(source) if path.suffix.lower() in suffixes)
    for path in sorted(shards, key=lambda path: os.fsencode(path.relative_to(source))):
        parts = (_PART.match(name.lower()) for name in path.relative_to(source).parts)
        found.setdefault(next((part[1] for part in parts if part), ""), []).append(path)
    train = found.get("train", [])
    if train and "" in found:
        strangers = [path.name for path in found[""]]
        listed = ", ".join(strangers[:3]) + (f" and {len(strangers) - 3} more" if len(strangers) > 3 else "")
        raise DataError(
            f"{source} has shards of a part train, and others that are of no part: {listed}; "
            "move them elsewhere, or let their names begin with train, test or validation"
        )
    train = train or found.get("", [])
    if not train:
        raise DataError(
            f"{source} has no shards to train on, only of {', '.join(found)}; let their names begin with train"
        )
    return train, [found[name] for name in _TESTS if name in found]
