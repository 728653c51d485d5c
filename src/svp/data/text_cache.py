"""Files of texts, each read once: kept as Arrow IPC, which is mapped into memory from there.

A cache folder belongs to one source and one way of reading it. In it, for each file of that source:

    NAME-STAMP.arrow   rows that can be used: text, label (a number in `words`), row (in the file), hash (of the text)
    NAME-STAMP.json    the words of the labels, and what could not be used; written last: without it nothing is trusted

NAME is a hash of the file's path below the source, STAMP also of its size and time of change. A file whose reading was cut short
is begun again, the others are not. Deleting any of this costs time alone.

Path, size, time of change and inode tell whether a file is the one that was read (as in git's index and in DVC). A file that was
changed less than _FRESH before it was read may change again with the same time: of such a one the content is compared, too.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from svp.data.base import Progress
from svp.data.cache import cache_folder, check_outside, check_space, flush, held, storage_errors
from svp.data.pixels import stamp
from svp.data.text_files import rows_of, size_of
from svp.data.text_rows import Columns, Problems
from svp.data.texts import Texts, column_hashes
from svp.errors import DataError
from svp.files import replace
from svp.mapped import joined

_VERSION = 3  # of what is kept of a file, and how a text is made of a row: raise it when `text_files` gives others
_WHAT = "texts"
_T = TypeVar("_T")
_FRESH = 2_000_000_000  # nanoseconds: no file system counts time in longer steps (FAT does in these)
_IN_MEMORY = 1 << 20  # bytes of one number a row
_MANY = 10_000  # labels that differ: beyond that a column is none of classes


@dataclass(frozen=True)
class Read:
    """What became of one file: where its texts are, the words of its labels in order of their numbers, and its problems."""

    arrow: Path
    words: list[str]
    problems: Problems
    n_rows: int  # of the file, those that cannot be used included


def read(
    source: Path,
    files: Sequence[Path],
    columns: Columns,
    *,
    cache: str | os.PathLike[str] | None,
    progress: Progress,
) -> list[Read]:
    """Read the files of a source, or find what an earlier call has read. A second process waits until the first is through.

    Raises DataError where a file cannot be read at all, StorageError where the cache cannot be written or is too small. Memory:
    a block of a file. Time: one pass over what is new, of about 150 MB a second.
    """
    settings = json.dumps([str(source.absolute()), asdict(columns), _VERSION])
    name = source.absolute().name.encode("utf-8", "replace").decode()
    folder = cache_folder(cache, "texts") / f"{name}-{hashlib.sha256(settings.encode()).hexdigest()[:12]}"
    check_outside(folder, source)
    with held(folder, _WHAT, progress):
        return [_read(source, file, columns, folder, progress) for file in files]


def _read(source: Path, file: Path, columns: Columns, folder: Path, progress: Progress) -> Read:
    name = file.relative_to(source).as_posix() if file != source else file.name
    facts = file.stat()
    prefix = stamp(name, 0, 0).hex()[:12]
    place = f"{prefix}-{stamp(name, facts.st_size, facts.st_mtime_ns).hex()}"
    arrow, done = folder / f"{place}.arrow", folder / f"{place}.json"
    try:
        known = json.loads(done.read_text())
        same = known.get("inode", facts.st_ino) == facts.st_ino and (
            known.get("sha256") is None or known["sha256"] == _sha256(file)
        )
        if same and arrow.stat().st_size == known["n_bytes"]:
            return Read(arrow, known["words"], Problems(**known["problems"]), known["n_rows"])
    except (OSError, ValueError, KeyError, TypeError):  # not yet, or damaged
        pass
    for earlier in folder.glob(f"{prefix}-*"):
        earlier.unlink()
    check_space(folder, size_of(file), f"the texts of {name}")
    problems = Problems()
    fresh = facts.st_mtime_ns > time.time_ns() - _FRESH
    # Before it is read: if it changes meanwhile, it is read again the next time.
    sha256 = _sha256(file) if fresh else None
    part = folder / f".{arrow.name}.part"
    try:
        words, n_rows = _written(part, file, columns, problems, progress)
        part.replace(arrow)
    finally:
        part.unlink(missing_ok=True)
    made = {"words": words, "problems": asdict(problems), "n_rows": n_rows, "n_bytes": arrow.stat().st_size}
    replace(done, json.dumps({**made, "inode": facts.st_ino, "sha256": sha256}).encode())
    return Read(arrow, words, problems, n_rows)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _written(part: Path, file: Path, columns: Columns, problems: Problems, progress: Progress) -> tuple[list[str], int]:
    """Write the rows of a file that can be used; the words of their labels, and how many rows there were."""
    import pyarrow as pa

    numbers: dict[str, int] = {}
    n_rows = 0
    with part.open("wb") as opened, _whole(opened), pa.ipc.new_file(opened, _schema()) as writer:
        for rows, labels, texts in ahead(rows_of(file, columns, problems, _percent(file, progress))):
            each = labels.dictionary_encode()
            words = [numbers.setdefault(word, len(numbers)) for word in each.dictionary.to_pylist()]
            codes = np.array(words, np.int32)[each.indices.to_numpy()]
            if len(numbers) > _MANY:
                raise DataError(
                    f"{file}: column {columns.label} has more than {_MANY:,} different labels, so they are no classes; "
                    "name another (--label-column)"
                )
            n_rows = max([n_rows, *(rows[-1:] + 1)])
            written = [texts, pa.array(codes), pa.array(rows), pa.array(column_hashes(texts))]
            writer.write_batch(pa.record_batch(written, schema=_schema()))
    return list(numbers), max(int(n_rows), problems.n_rows)


def row_ids(found: Sequence[Read]) -> NDArray[np.int64]:
    """(n,) of the rows that can be used: their numbers through all files, one after the other."""
    starts = accumulate((one.n_rows for one in found), initial=0)
    numbers = (
        start + rows for start, one in zip(starts, found, strict=False) for rows in Texts([one.arrow]).numbers("row")
    )
    return gathered(numbers, found[0].arrow.parent)


def gathered(blocks: Iterable[NDArray[np.int64]], folder: Path) -> NDArray[np.int64]:
    """(n,) one number a row: in memory while they are few, else mapped from an unnamed file in the folder of the cache."""
    with storage_errors(folder, _WHAT):
        found = joined(blocks, _IN_MEMORY, folder, folder=folder)
    return found.view(np.ndarray) if len(found) else np.zeros(0, np.int64)


def ahead(items: Iterator[_T]) -> Iterator[_T]:
    """The same items, each made by a thread while the one before it is worked on."""
    with ThreadPoolExecutor(1) as pool:
        following = pool.submit(next, items, None)
        while (item := following.result()) is not None:
            following = pool.submit(next, items, None)
            yield item


def _schema() -> Any:
    import pyarrow as pa

    return pa.schema([("text", pa.string()), ("label", pa.int32()), ("row", pa.int64()), ("hash", pa.uint64())])


@contextmanager
def _whole(opened: Any) -> Iterator[None]:
    """On the disk before anybody relies on it."""
    yield
    flush(opened)


def _percent(file: Path, progress: Progress) -> Any:
    """Told whenever another hundredth has been read."""
    told = -1

    def tell(share: float) -> None:
        nonlocal told
        if (percent := int(100 * min(share, 1))) > told:
            told = percent
            progress(f"reading {file.name}", percent, 100)

    return tell
