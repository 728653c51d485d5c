"""What caches share: where they lie, one process at a time, nothing half written, a full disk named."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from svp.data.base import Progress
from svp.errors import DataError, StorageError

try:
    import fcntl
except ImportError:  # Windows has no such lock: there, two processes should not read the same source at once
    fcntl = None  # type: ignore[assignment]

_ELSEWHERE = "name another place with cache (--cache)"


def cache_folder(cache: str | os.PathLike[str] | None, kind: str) -> Path:
    """Where examples of one kind are kept: as given, else `$XDG_CACHE_HOME/svp/KIND`, else `~/.cache/svp/KIND`."""
    if cache is not None:
        return Path(cache).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "svp" / kind


def data_folder(root: str | os.PathLike[str] | None) -> Path:
    """Where a named dataset lies, or is put: as given, else `$SVP_DATA`, else `$XDG_CACHE_HOME/svp`, else `~/.cache/svp`."""
    given = root if root is not None else os.environ.get("SVP_DATA")
    return Path(given).expanduser() if given else cache_folder(None, "")


def check_outside(folder: Path, source: Path) -> None:
    """StorageError for a cache inside the folder of data, where it would be read as a part of them the next time."""
    if folder.resolve().is_relative_to(source.resolve()):
        raise StorageError(
            f"the cache {folder.parent} lies inside the data ({source}), where it would be read as a part of them; {_ELSEWHERE}"
        )


@contextmanager
def held(folder: Path, what: str, progress: Progress) -> Iterator[None]:
    """Make the folder and hold it; wait while another process does. what: "images", for whoever waits."""
    with storage_errors(folder, what):
        folder.mkdir(parents=True, exist_ok=True)
        file = os.open(folder / "lock", os.O_CREAT | os.O_RDWR)
        try:
            if fcntl is not None:
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    progress(f"waiting for another process that reads these {what}", 0, 0)
                    fcntl.flock(file, fcntl.LOCK_EX)
            yield
        finally:
            os.close(file)


@contextmanager
def storage_errors(folder: Path, what: str) -> Iterator[None]:
    """Whatever the disk refuses, as an error that names the cache of `what`; or the file elsewhere that could not be read."""
    try:
        yield
    except OSError as error:
        if isinstance(error.filename, str | bytes):  # errors of writing name no file
            path, place = Path(os.fsdecode(error.filename)).absolute(), folder.absolute()
            if not (path.is_relative_to(place) or place.is_relative_to(path)):
                raise DataError(
                    f"cannot read {path}: {error.strerror or error}; put it back, or repeat the command: it reads what is there"
                ) from error
        raise StorageError(
            f"the cache of {what} {folder} cannot be written: {error.strerror or error}; {_ELSEWHERE}; "
            "what is there already is kept"
        ) from error


def check_space(folder: Path, n_bytes: int, what: str, instead: str = "") -> None:
    """StorageError where the disk has less than n_bytes free. instead: what would take less."""
    free = shutil.disk_usage(folder).free
    if n_bytes > free:
        raise StorageError(
            f"{what} take {_amount(n_bytes)} in the cache, and {folder} has {_amount(free)} free; {_ELSEWHERE}{instead}"
        )


def flush(file: IO[bytes]) -> None:
    """What was written so far stands on the disk."""
    file.flush()
    os.fsync(file.fileno())


def _amount(n_bytes: int) -> str:
    return f"{n_bytes / 2**30:.1f} GiB" if n_bytes >= 2**30 else f"{n_bytes / 2**20:.1f} MiB"
