"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009) in their official layout: a folder of Python pickles, `LAYOUTS` says which.

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
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.data.base import Dataset, Progress
from svp.data.cache import data_folder
from svp.errors import DataError, StorageError, one_line
from svp.files import reading_errors


@dataclass(frozen=True)
class Layout:
    """Where the parts of one dataset stand.

    folder             what the archive unpacks to
    archive, md5, url  the archive's name, its checksum, and where it is published
    train, test, meta  names of the files with images to train on, to test on, and of the file with the names of the classes
    files              the md5 of each of them
    labels, classes    by which key a batch holds its labels, and meta the names of the classes
    """

    folder: str
    archive: str
    md5: str
    url: str
    train: tuple[str, ...]
    test: str
    meta: str
    files: Mapping[str, str]
    labels: str
    classes: str

    @property
    def names(self) -> tuple[str, ...]:
        return (*self.train, self.test, self.meta)


LAYOUTS = {
    "cifar10": Layout(
        folder="cifar-10-batches-py",
        archive="cifar-10-python.tar.gz",
        md5="c58f30108f718f92721af3b95e74349a",
        url="https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",
        train=tuple(f"data_batch_{i}" for i in range(1, 6)),
        test="test_batch",
        meta="batches.meta",
        files={
            "data_batch_1": "c99cafc152244af753f735de768cd75f",
            "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
            "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
            "data_batch_4": "634d18415352ddfa80567beed471001a",
            "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
            "test_batch": "40351d587109b95175f43aff81a1287e",
            "batches.meta": "5ff9c542aee3614f3951f8cda6e48888",
        },
        labels="labels",
        classes="label_names",
    ),
    "cifar100": Layout(
        folder="cifar-100-python",
        archive="cifar-100-python.tar.gz",
        md5="eb9058c3a382ffc7106e4002c42a8d85",
        url="https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",
        train=("train",),
        test="test",
        meta="meta",
        files={
            "train": "16019d7e3df5f24257cddd939b257f8d",
            "test": "f0ef6b0ae62326f3e7ffdfab6717acfc",
            "meta": "7973b15100ade9c7d40fb424638fde48",
        },
        labels="fine_labels",
        classes="fine_label_names",
    ),
}
LAYOUTS["cifar100-coarse"] = replace(LAYOUTS["cifar100"], labels="coarse_labels", classes="coarse_label_names")


def load(
    name: str = "cifar10", root: str | os.PathLike[str] | None = None, progress: Progress | None = None
) -> Dataset:
    """An official dataset: 50,000 images (32, 32, 3), uint8, and 10,000 to test; every file is checked by its md5.

    name       cifar10, cifar100 (100 classes) or cifar100-coarse (the same images in 20 classes of five)
    root       the folder of the layout, such as `cifar-10-batches-py`, or the one that holds it; default as
               `svp.data.cache.data_folder` says. Files that are not there are taken from the official archive if that lies
               in root, else fetched
    progress   called with ("fetching ...", bytes so far, bytes in all)
    ids        0 .. 49,999 in the official order; the test part counts from 0 again

    Raises DataError naming the file that is missing, truncated or altered. About 1 s; 0.2 GB, at its peak 0.4.
    """
    layout = LAYOUTS[name]
    folder = _folder(data_folder(root), layout)
    if missing := _missing(folder, layout):
        _unpack(_archive(folder, missing, layout, progress), missing, folder, layout)
    return _read_all(folder, name, layout.files)


def read_batches(root: str | os.PathLike[str]) -> Dataset:
    """Any data in CIFAR-10's layout: the same seven files with images and classes of your own, taken as they are.

    root       the folder `cifar-10-batches-py`, or the one that holds it

    As this needs only root, `load_dataset("svp.data.cifar:read_batches", root=DIR)` loads such data.
    Raises DataError naming the file that is missing or cannot be read. Memory: the images, twice at the peak.
    """
    layout = LAYOUTS["cifar10"]
    folder = _folder(root, layout)
    if missing := _missing(folder, layout):
        raise DataError(f"{folder}: {_listed(missing)} not there; this layout has {', '.join(layout.names)}")
    return _read_all(folder, "cifar10", None)


def _read_all(folder: Path, name: str, md5s: Mapping[str, str] | None) -> Dataset:
    """md5s: of each file; None: files are taken as they are."""
    layout = LAYOUTS[name]
    checked = None if md5s is None else dict(md5s)
    classes = _classes(folder / layout.meta, checked, layout.classes)
    parts = [_batch(folder / file, checked, layout.labels, len(classes)) for file in layout.train]
    images, labels = parts[0] if len(parts) == 1 else (np.concatenate(arrays) for arrays in zip(*parts, strict=True))
    return Dataset.from_arrays(
        images,
        labels,
        classes=classes,
        test=_batch(folder / layout.test, checked, layout.labels, len(classes)),
        name=name,
        augmentation="crop_flip",
    )


def _folder(root: str | os.PathLike[str], layout: Layout) -> Path:
    """The folder of the files, which need not be there yet."""
    path = Path(root).expanduser()
    with reading_errors(path):
        if path.exists() and not path.is_dir():
            raise DataError(f"{path} is a file; give the folder {layout.folder}, or the one that holds it")
    # `train` and `test` may be folders of anything else: of CIFAR-100 they are files.
    here = path.name == layout.folder or len(_missing(path, layout)) < len(layout.names)
    return path if here else path / layout.folder


def _missing(folder: Path, layout: Layout) -> list[str]:
    with reading_errors(folder):
        return [name for name in layout.names if not (folder / name).is_file()]


def _listed(names: list[str]) -> str:
    return f"{', '.join(names)} {'is' if len(names) == 1 else 'are'}"


# --- reading

_ANEW = "put a whole copy of this file there"


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


def _read(path: Path, md5s: Mapping[str, str] | None) -> dict[str, Any]:
    """The dict that a file holds, keys as str; other strings of Python 2 stay bytes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; mend that, or {_ANEW}") from error
    if md5s is not None and (actual := hashlib.md5(content, usedforsecurity=False).hexdigest()) != md5s[path.name]:
        raise DataError(
            f"{path} is truncated or altered: {len(content):,} bytes with md5 {actual}, not md5 {md5s[path.name]}; "
            "delete it to have it fetched again"
        )
    try:
        loaded = _Reader(io.BytesIO(content), encoding="bytes").load()
    except DataError as error:
        raise DataError(f"{path} is refused: {error}; {_ANEW}") from None
    except Exception as error:  # a broken pickle can raise anything
        raise DataError(f"{path} is truncated or no pickle ({one_line(error)}); {_ANEW}") from error
    if not isinstance(loaded, dict):
        raise DataError(f"{path} holds a {type(loaded).__name__}, not the dict that this layout has; {_ANEW}")
    return {_text(key): value for key, value in loaded.items()}


def _classes(path: Path, md5s: Mapping[str, str] | None, key: str) -> tuple[str, ...]:
    names = _read(path, md5s).get(key)
    if not isinstance(names, list) or not all(isinstance(name, str | bytes) for name in names):
        raise DataError(f"{path} has no list {key} of class names; write one there")
    return tuple(_text(name) for name in names)


def _batch(
    path: Path, md5s: Mapping[str, str] | None, key: str, n_classes: int
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Images (n, 32, 32, 3), contiguous, and labels (n,)."""
    batch = _read(path, md5s)
    raw, labels = _pixels(batch.get("data")), batch.get(key)
    if raw is None:
        raise DataError(
            f"{path} has no array data of bytes (n, 3072); write the images there, planes of red, green and blue"
        )
    if not isinstance(labels, list) or len(labels) != len(raw):
        raise DataError(f"{path} has no list {key} with one number for each of its {len(raw)} images; write one there")
    if wrong := [label for label in labels if type(label) is not int or not 0 <= label < n_classes]:
        raise DataError(
            f"{path} has {key} outside 0 .. {n_classes - 1}, the first: {wrong[0]!r}; correct them, or name more classes"
        )
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


def _archive(folder: Path, missing: list[str], layout: Layout, progress: Progress | None) -> bytes:
    """The official archive, from beside the folder or from the internet, held against its checksum."""
    places = (folder.parent / layout.archive, folder / layout.archive)
    local = next((path for path in places if path.is_file()), None)
    try:
        content = _download(layout, progress) if local is None else local.read_bytes()
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise DataError(
            f"{_listed(missing)} not in {folder}, and {local or layout.url} cannot be read ({reason}); "
            f"put the unpacked files there, or {layout.archive} into {folder.parent}"
        ) from error
    actual = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if actual != layout.md5:
        raise DataError(
            f"{local or layout.url} is truncated or altered: {len(content):,} bytes with md5 {actual}, "
            f"not md5 {layout.md5}; {'delete it' if local else 'try again later'}"
        )
    return content


def _download(layout: Layout, progress: Progress | None) -> bytes:
    content = bytearray()
    with urllib.request.urlopen(layout.url, timeout=30) as response:
        total = int(response.headers.get("Content-Length") or 0)
        while block := response.read(1 << 20):
            content += block
            if progress is not None:
                progress(f"fetching {layout.archive}", len(content), max(total, len(content)))
    return bytes(content)


def _unpack(archive: bytes, names: list[str], folder: Path, layout: Layout) -> None:
    """Write the named files of the archive, each complete or not at all; no path in the archive is ever followed."""
    try:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            contents = {}
            for name in names:
                member = tar.extractfile(f"{layout.folder}/{name}")
                if member is None:
                    raise KeyError(f"{name} is no file")
                contents[name] = member.read()
    except (tarfile.TarError, KeyError, EOFError) as error:
        raise DataError(f"{layout.archive} does not hold {layout.folder} as published: {error}") from error
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
            f"{folder} cannot be written: {error.strerror}; name another folder with root (--data)"
        ) from error
