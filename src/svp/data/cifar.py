"""CIFAR-10 (Krizhevsky 2009) in its official layout: a folder `cifar-10-batches-py` of seven Python pickles.

A pickle is a program. These are run by a reader that knows no function at all: where a pickle asks for numpy's array or
dtype it is handed a plain record that keeps its arguments, and whatever else it asks for is refused.
"""

import hashlib
import http.client
import io
import os
import pickle
import tarfile
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.data.base import Dataset, Progress
from svp.errors import DataError, StorageError

FOLDER = "cifar-10-batches-py"
TRAIN = tuple(f"data_batch_{i}" for i in range(1, 6))
TEST = "test_batch"
META = "batches.meta"
NAMES = (*TRAIN, TEST, META)

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
ARCHIVE = "cifar-10-python.tar.gz"
ARCHIVE_MD5 = "c58f30108f718f92721af3b95e74349a"
OFFICIAL = {  # name: (bytes, md5)
    "data_batch_1": (31_035_704, "c99cafc152244af753f735de768cd75f"),
    "data_batch_2": (31_035_320, "d4bba439e000b95fd0a9bffe97cbabec"),
    "data_batch_3": (31_035_999, "54ebc095f3ab1f0389bbae665268c751"),
    "data_batch_4": (31_035_696, "634d18415352ddfa80567beed471001a"),
    "data_batch_5": (31_035_623, "482c414d41f54cd18b22e5b47cb7c3cb"),
    "test_batch": (31_035_526, "40351d587109b95175f43aff81a1287e"),
    "batches.meta": (158, "5ff9c542aee3614f3951f8cda6e48888"),
}


def load(root: str | os.PathLike[str] | None = None, progress: Progress | None = None) -> Dataset:
    """The official CIFAR-10: 50,000 images (32, 32, 3), uint8, and 10,000 to test; every file is checked by its md5.

    root      the folder `cifar-10-batches-py`, or the one that holds it; default `$SVP_DATA`, else `~/.cache/svp`.
              Files that are not there are taken from `cifar-10-python.tar.gz` if that lies in root, else fetched
    progress  called with ("fetching ...", bytes so far, bytes in all)
    ids       0 .. 49,999 in the official order; the test part counts from 0 again

    Raises DataError naming the file that is missing, truncated or altered. About 1 s; 0.2 GB, at its peak 0.4.
    """
    folder = _folder(root if root is not None else os.environ.get("SVP_DATA") or "~/.cache/svp")
    if missing := [name for name in NAMES if not (folder / name).is_file()]:
        _unpack(_archive(folder, missing, progress), missing, folder)
    return read_batches(folder, OFFICIAL)


def read_batches(root: str | os.PathLike[str], checksums: Mapping[str, tuple[int, str]] | None = None) -> Dataset:
    """Any data in CIFAR-10's layout: the same seven files with images and classes of your own.

    root       the folder `cifar-10-batches-py`, or the one that holds it
    checksums  (bytes, md5) of each file, as in `OFFICIAL`; None: files are taken as they are

    As this needs only root, `load_dataset("svp.data.cifar:read_batches", root=DIR)` loads such data.
    Raises DataError naming the file that is missing or cannot be read. Memory: the images, twice at the peak.
    """
    folder = _folder(root)
    if missing := [name for name in NAMES if not (folder / name).is_file()]:
        raise DataError(f"{folder}: {_listed(missing)} not there; this layout has {', '.join(NAMES)}")
    checked = None if checksums is None else dict(checksums)
    classes = _classes(folder / META, checked)
    parts = [_batch(folder / name, checked, len(classes)) for name in TRAIN]
    images, labels = (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Dataset.from_arrays(
        images,
        labels,
        classes=classes,
        test=_batch(folder / TEST, checked, len(classes)),
        name="cifar10",
        augmentation="crop_flip",
    )


def _folder(root: str | os.PathLike[str]) -> Path:
    """The folder of the seven files, which need not be there yet."""
    path = Path(root).expanduser()
    if path.exists() and not path.is_dir():
        raise DataError(f"{path} is a file; give the folder {FOLDER}, or the one that holds it")
    here = path.name == FOLDER or any((path / name).exists() for name in NAMES)
    return path if here else path / FOLDER


def _listed(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


# --- reading


class _Record:
    """Stands in for numpy's array, dtype and array type in a pickle: keeps what it was made from, runs nothing."""

    def __init__(self, *args: Any) -> None:
        self.args = args
        self.state: tuple[Any, ...] = ()

    def __setstate__(self, state: Any) -> None:
        self.state = state if isinstance(state, tuple) else (state,)


class _Reader(pickle.Unpickler):
    """Reads numbers, strings, lists, dicts and records of arrays; refuses everything else."""

    known = frozenset(
        {
            ("numpy", "ndarray"),
            ("numpy", "dtype"),
            ("numpy.core.multiarray", "_reconstruct"),
            ("numpy._core.multiarray", "_reconstruct"),
        }
    )

    def find_class(self, module: str, name: str) -> type[_Record]:
        if (module, name) not in self.known:
            raise DataError(
                f"it asks for {module}.{name}, which no data file needs; it may be malicious and was not run"
            )
        return _Record


def _read(path: Path, checksums: Mapping[str, tuple[int, str]] | None) -> dict[str, Any]:
    """The dict that a file holds, keys as str; other strings of Python 2 stay bytes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}") from error
    if checksums is not None:
        size, md5 = checksums[path.name]
        if (actual := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5:
            what = "truncated" if len(content) < size else "altered"
            raise DataError(
                f"{path} is {what}: {len(content):,} bytes with md5 {actual}, not {size:,} bytes with md5 {md5}; "
                "delete it to have it fetched again, or load other data in this layout as svp.data.cifar:read_batches"
            )
    try:
        loaded = _Reader(io.BytesIO(content), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{path} is refused: {error}") from None
    except Exception as error:  # a broken pickle can raise anything
        raise DataError(f"{path} is truncated or no pickle: {type(error).__name__}: {error}") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds a {type(loaded).__name__}, not the dict that this layout has")
    return {_text(key): value for key, value in loaded.items()}


def _classes(path: Path, checksums: Mapping[str, tuple[int, str]] | None) -> tuple[str, ...]:
    names = _read(path, checksums).get("label_names")
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise DataError(f"{path} has no list label_names of class names")
    return tuple(_text(name) for name in names)


def _batch(
    path: Path, checksums: Mapping[str, tuple[int, str]] | None, n_classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 32, 32, 3), contiguous, and labels (n,)."""
    batch = _read(path, checksums)
    raw, labels = _pixels(batch.get("data")), batch.get("labels")
    if raw is None:
        raise DataError(f"{path} has no array data of bytes (n, 3072)")
    if not isinstance(labels, list) or len(labels) != len(raw):
        raise DataError(f"{path} has no list labels with one number for each of its {len(raw)} images")
    if wrong := [label for label in labels if type(label) is not int or not 0 <= label < n_classes]:
        raise DataError(f"{path} has labels outside 0 .. {n_classes - 1}, the first: {wrong[0]!r}")
    images = np.ascontiguousarray(raw.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, np.array(labels, np.int64)


def _pixels(record: Any) -> NDArray[np.uint8] | None:
    """(n, 3072) bytes from the record of an array: its state is (version, shape, dtype, is Fortran order, bytes)."""
    match record:
        case _Record(state=(_, (int(n), 3072), _Record(args=(b"u1" | "u1", *_)), False | 0, bytes(raw))):
            return np.frombuffer(raw, np.uint8).reshape(n, 3072) if len(raw) == n * 3072 else None
    return None


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


# --- fetching


def _archive(folder: Path, missing: list[str], progress: Progress | None) -> bytes:
    """The official archive, from beside the folder or from the internet, held against its checksum."""
    local = next((path for path in (folder.parent / ARCHIVE, folder / ARCHIVE) if path.is_file()), None)
    try:
        content = _download(progress) if local is None else local.read_bytes()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"cifar10: {_listed(missing)} not in {folder}, and {local or URL} cannot be read ({reason}); "
            f"put the unpacked files there, or {ARCHIVE} into {folder.parent}"
        ) from error
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != ARCHIVE_MD5:
        raise DataError(
            f"cifar10: {local or URL} is truncated or altered: {len(content):,} bytes with md5 {actual}, "
            f"not md5 {ARCHIVE_MD5}; {'delete it' if local else 'try again later'}"
        )
    return content


def _download(progress: Progress | None) -> bytes:
    content = bytearray()
    with urllib.request.urlopen(URL, timeout=30) as response:
        total = int(response.headers.get("Content-Length") or 0)
        while block := response.read(1 << 20):
            content += block
            if progress is not None:
                progress(f"fetching {ARCHIVE}", len(content), max(total, len(content)))
    return bytes(content)


def _unpack(archive: bytes, names: list[str], folder: Path) -> None:
    """Write the named files of the archive, each complete or not at all; no path in the archive is ever followed."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            contents = {}
            for name in names:
                member = tar.extractfile(f"{FOLDER}/{name}")
                if member is None:
                    raise KeyError(f"{name} is no file")
                contents[name] = member.read()
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise DataError(f"cifar10: {ARCHIVE} does not hold {FOLDER} as published: {error}") from error
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in contents.items():
            part = folder / f".{name}.{os.getpid()}"
            try:
                part.write_bytes(content)
                part.replace(folder / name)
            finally:
                part.unlink(missing_ok=True)
    except OSError as error:
        raise StorageError(
            f"cifar10: {folder} cannot be written: {error.strerror}; name another folder with root (--data)"
        ) from error
