"""Files that are whole or not there: a temporary name, fsync, rename; and what is said when one cannot be written or read."""

import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import DataError, StorageError

ELSEWHERE = "choose another folder (--out)"
Json = dict[str, Any]


@contextmanager
def storage_errors(path: Path, elsewhere: str = ELSEWHERE) -> Iterator[None]:
    """Say in one line what a failed write means and what to do. elsewhere: how another place is named."""
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            why = "the disk is full; free some space and run the same command again, it continues where it stopped"
        elif error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            why = f"the folder cannot be written; {elsewhere}"
        elif error.errno == errno.EFBIG:
            why = f"no file may become this large here; raise the limit (ulimit -f), or {elsewhere}"
        else:
            why = f"{error.strerror or error}; repeat the command when that is mended, or {elsewhere}"
        raise StorageError(f"cannot write {path}: {why}") from error


@contextmanager
def reading_errors(path: Path) -> Iterator[None]:
    """Say in one line that a place may not be looked at, and what to do."""
    try:
        yield
    except OSError as error:
        raise DataError(
            f"cannot read {error.filename or path}: {error.strerror or error}; mend that, or name another place"
        ) from error


def make_folder(path: Path) -> Path:
    """Create a folder and its parents."""
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)
    return path


def write_bytes(path: Path, data: bytes) -> None:
    """Write a file whole or not at all: after a kill, `path` holds the old content or the new, never a part."""
    with storage_errors(path):
        replace(path, data)


def replace(path: Path, data: bytes) -> None:
    """The same, where whoever calls says what a failed write means."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    sync(path.parent)


def sync(path: Path) -> None:
    """Let a file, or the names in a folder, survive a power cut (folders where they can be opened: not on Windows)."""
    if os.name == "posix" or path.is_file():
        descriptor = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def sweep(folder: Path) -> None:
    """Remove temporary files that a killed process left in a folder that is ours alone."""
    with storage_errors(folder):
        for temporary in folder.glob(".*.tmp"):
            shutil.rmtree(temporary) if temporary.is_dir() else temporary.unlink()


def write_json(path: Path, value: Any) -> None:
    """JSON with a final newline, keys in the order given. ValueError for numbers that JSON has not, NaN and infinity."""
    write_bytes(path, (json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n").encode())


class _Table(Json):
    """A JSON object of a file: what it lacks is said by the name of that file."""

    def __init__(self, path: Path, pairs: Sequence[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self._path = path

    def __missing__(self, name: str) -> Any:
        raise _damaged(self._path, f"it has no {name!r}")


def read_json(path: Path) -> Any:
    """The content of a JSON file that a run wrote; a name that one of its objects lacks is a DataError too."""
    try:
        return json.loads(path.read_text(encoding="utf-8"), object_pairs_hook=lambda pairs: _Table(path, pairs))
    except (FileNotFoundError, NotADirectoryError):
        raise DataError(f"{path} is missing; is this a run folder? (svp coreset and svp active make them)") from None
    except (OSError, ValueError, RecursionError) as error:
        raise _damaged(path, str(error)) from None


def read_record(path: Path, *tables: str) -> Json:
    """The JSON object in a file, in which each of `tables` is an object too."""
    record = read_json(path)
    if not isinstance(record, dict):
        raise _damaged(path, "it holds no JSON object")
    if wrong := [name for name in tables if not isinstance(record[name], dict)]:
        raise _damaged(path, f"{wrong[0]!r} is no JSON object")
    return record


# Files that stand at the root of a run or a session, beside all that was made and answered there, and what may be done where no
# copy is left. Every other file that is read here lies in a stage, which can be made again as a whole.
_AT_THE_ROOT = {
    "environment.json": "of a session with people, remove this one file: it is written again",
    "metrics.json": "remove this one file and give the run's command again, which trains nothing twice",
    "session.json": "remove this one file: svp session report writes it again",
}


def _damaged(path: Path, why: str) -> DataError:
    again = _AT_THE_ROOT.get(path.name, f"remove the folder {path.parent} to have it made again")
    return DataError(f"{path} is damaged: {why}; put back a copy of it, or {again}")


def write_array(path: Path, array: NDArray[Any]) -> None:
    """One .npy file; read it with `read_array`."""
    buffer = BytesIO()
    np.save(buffer, array, allow_pickle=False)
    write_bytes(path, buffer.getvalue())


def read_array(path: Path) -> NDArray[Any]:
    """A .npy file, memory-mapped: nothing is read until it is looked at."""
    try:
        array: NDArray[Any] = np.load(path, mmap_mode="r", allow_pickle=False)
        return array
    except Exception as error:  # a damaged header can raise anything
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise DataError(f"cannot read {path}: {reason}; put back a copy of it") from None


def fill_array(path: Path, n: int, rows_of: Callable[[int, int], NDArray[np.float32]], block: int) -> float:
    """Write an (n, d) float32 .npy file block by block: rows_of(start, stop) gives its rows. Returns the seconds that took.

    A call that finds a part of it (a process was killed) goes on behind the last whole block; the seconds are those of all calls.
    Memory: a block. Written, not mapped: on a full disk a mapped page kills the process, a write says so.
    """
    mark = path.with_name(f".{path.stem}.json")  # hidden: no result of the stage
    state: Json = {"rows": 0, "d": 0, "seconds": 0.0}
    if mark.exists() and path.exists():
        found = read_record(mark)
        if path.stat().st_size >= len(_header_of(n, found["d"])) + 4 * found["rows"] * found["d"]:
            state = found
    with storage_errors(path), open(path, "r+b" if state["rows"] else "wb") as file:
        for start in range(state["rows"], n, block):
            begin = time.perf_counter()
            stop = min(start + block, n)
            rows = np.ascontiguousarray(rows_of(start, stop), "<f4")
            header = _header_of(n, rows.shape[1])
            if not start:
                file.write(header)
            file.seek(len(header) + rows.nbytes // len(rows) * start)
            file.write(rows.data)
            file.flush()
            os.fsync(file.fileno())
            seconds = state["seconds"] + time.perf_counter() - begin
            state = {"rows": stop, "d": rows.shape[1], "seconds": seconds}
            write_json(mark, state)
    return float(state["seconds"])


def _header_of(n: int, d: int) -> bytes:
    buffer = BytesIO()
    np.lib.format.write_array_header_1_0(buffer, {"descr": "<f4", "fortran_order": False, "shape": (n, d)})
    return buffer.getvalue()


def digest(*parts: ArrayLike | str | bytes | None) -> str:
    """16 hexadecimal digits of arrays and words: enough to notice any change."""
    sha = hashlib.sha256()
    for part in parts:
        if isinstance(part, str):
            part = part.encode()
        if isinstance(part, bytes) or part is None:
            sha.update(part or b"\0")
        else:
            array = np.ascontiguousarray(part)
            sha.update(f"{array.shape}{array.dtype.str}".encode())
            sha.update(array.data)
    return sha.hexdigest()[:16]
