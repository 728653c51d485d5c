"""Images of any source (folders, Parquet) become a dataset: read through the cache, broken ones refused or left out."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from svp.data import decode
from svp.data.base import Dataset, OnError, Progress, hold_out, printable
from svp.data.pixels import decoded
from svp.errors import DataError, SettingError, SvpWarning

IMAGE_SIZE = 64  # pixels a side, where nobody says another


@dataclass(frozen=True)
class Files:
    """Images of one part in order of id, before they are read.

    ids, labels  (n,)
    keys         what users call them: paths relative to the root in posix form
    stamps       what the cache knows them by
    unreadable   by position, why some need not be looked at
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64]
    keys: tuple[str, ...]
    stamps: tuple[bytes, ...]
    unreadable: dict[int, str]

    def where(self, chosen: NDArray[np.bool_]) -> "Files":
        rows = np.flatnonzero(chosen).tolist()
        return Files(
            self.ids[chosen],
            self.labels[chosen],
            tuple(self.keys[i] for i in rows),
            tuple(self.stamps[i] for i in rows),
            {new: self.unreadable[i] for new, i in enumerate(rows) if i in self.unreadable},
        )

    def divided(self, test_share: float) -> "tuple[Files, Files]":
        """What remains, and what is held out of each class."""
        in_test = np.zeros(len(self.ids), bool)
        in_test[hold_out(self.labels, self.ids, test_share)] = True
        return self.where(~in_test), self.where(in_test)


def dataset_of(
    source: Path,
    parts: tuple[Files, Files],
    classes: tuple[str, ...],
    items: Callable[[list[int]], list[decode.Item]],
    *,
    image_size: int,
    short_side: int | None,
    on_error: OnError,
    cache: str | os.PathLike[str] | None,
    progress: Progress | None,
    strangers: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Dataset:
    """The dataset of a training and a test part, read through the cache.

    source       the file or folder: what errors and the cache call it
    items        gives the paths or contents of the images at these positions, counted through both parts
    strangers    paths of files of the source that are not looked at, by the reason
    The other arguments, errors and costs are those of `images.load`.
    """
    short_side = short_side_of(image_size, short_side)
    files, test_files = parts
    n, stamps = len(files.ids), files.stamps + test_files.stamps
    broken = files.unreadable | {n + i: reason for i, reason in test_files.unreadable.items()}
    look = [i for i in range(len(stamps)) if i not in broken]
    read = decoded(
        source,
        [stamps[i] for i in look],
        lambda positions: items([look[i] for i in positions]),
        size=image_size,
        short_side=short_side,
        cache=cache,
        progress=progress,
    )
    broken |= {look[i]: reason for i, reason in read.broken.items()}
    keys = files.keys + test_files.keys
    named = [f"{printable(keys[i])} ({reason})" for i, reason in sorted(broken.items())]
    if broken and on_error == "refuse":
        raise DataError(
            f"{source}: {len(broken)} of {len(keys)} images cannot be read: {some(named)}; "
            "repair or remove them, or leave them out with on_error='skip' (--on-error skip)"
        )
    if len(broken) == len(keys):
        raise DataError(f"{source}: no image can be read: {some(named)}")
    lost = set(files.labels.tolist()) - set(np.delete(files.labels, [i for i in broken if i < n]).tolist())
    if gone := [name for label, name in enumerate(classes) if label in lost]:
        raise DataError(f"{source}: no image of these classes can be read: {some(gone)}")
    name = printable(source.resolve().name)
    broken_tests = {i - n: reason for i, reason in broken.items() if i >= n}
    broken_here = {i: reason for i, reason in broken.items() if i < n}
    border = n - len(broken_here)
    test = _part(f"{name} (test)", read.part(border, len(read.images)), test_files, broken_tests, classes)
    data = _part(name, read.part(0, border), files, broken_here, classes, test)
    unseen = [f"{_counted(len(paths))} {why} ({some(paths)})" for why, paths in strangers.items()]
    data = replace(data, problems=(*data.problems, *unseen))
    if data.problems:
        left_out = _counted(len(broken) + sum(map(len, strangers.values())))
        warnings.warn(f"{source}: {left_out} left out: {some(data.problems)}", SvpWarning, stacklevel=3)
    return data


def short_side_of(image_size: int, short_side: int | None) -> int:
    """To how many pixels the short side is scaled: image_size, where nobody says it. SettingError for sizes that are none."""
    short_side = image_size if short_side is None else short_side
    for name, value in (("image_size", image_size), ("short_side", short_side)):
        if not 1 <= value <= 4096:
            raise SettingError(
                f"{name} (--{name.replace('_', '-')}) is {value}; give a number of pixels from 1 to 4096"
            )
    if short_side < image_size:
        raise SettingError(f"short_side (--short-side) is {short_side}; give image_size ({image_size}) or more")
    return short_side


def _part(
    name: str,
    images: NDArray[np.uint8],
    files: Files,
    broken: dict[int, str],
    classes: tuple[str, ...],
    test: Dataset | None = None,
) -> Dataset:
    """One part: the images are those of its files that could be read. The training part repeats the test part's problems."""
    problems = tuple(f"{printable(files.keys[i])}: {reason}" for i, reason in sorted(broken.items()))
    whole = np.ones(len(files.ids), bool)
    whole[list(broken)] = False
    files = files if whole.all() else files.where(whole)
    return Dataset(
        name,
        images,
        files.labels,
        classes,
        files.ids,
        files.keys,
        test if test is not None and len(test) else None,
        "crop_flip",
        problems + (test.problems if test is not None else ()),
    )


def _counted(n: int) -> str:
    return f"{n:,} {'file' if n == 1 else 'files'}"


def some(names: Sequence[str]) -> str:
    """The first three names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
