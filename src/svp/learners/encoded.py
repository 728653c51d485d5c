"""Texts as numbers: encoded once, kept on disk, and read from there by every training and scoring pass.

A cache folder belongs to one list of texts and one way to encode them. It holds `values` (the numbers of all texts, one after
the other, without a header) and `offsets.npy` (where each text begins), and appears whole or not at all. Deleting it costs time
alone.
"""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.data.base import Dataset
from svp.data.cache import cache_folder
from svp.data.texts import utf8_of
from svp.errors import DataError, StorageError
from svp.machine import each, n_cores

_BLOCK = 4096  # texts encoded at a time by a thread

# (bytes of texts, where each ends) -> (values of all, how many of each)
Encode = Callable[[NDArray[np.uint8], NDArray[np.int64]], tuple[NDArray[Any], NDArray[np.int64]]]


@dataclass(frozen=True)
class Encoded:
    """Numbers of n texts, mapped from disk: text i is `values[offsets[i] : offsets[i + 1]]`.

    values   (total,)
    offsets  (n + 1,) int64
    """

    values: NDArray[Any]
    offsets: NDArray[np.int64]

    def lengths(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """How many numbers these texts have."""
        return self.offsets[positions + 1] - self.offsets[positions]

    def padded(self, positions: NDArray[np.int64], width: int) -> NDArray[Any]:
        """(b, width) the first numbers of these texts, filled up with zeros."""
        rows = np.zeros((len(positions), width), self.values.dtype)
        lengths = np.minimum(self.lengths(positions), width).tolist()
        for row, start, length in zip(rows, self.offsets[positions].tolist(), lengths, strict=True):
            row[:length] = self.values[start : start + length]
        return rows


def encoded(dataset: Dataset, how: str, encode: Encode, dtype: type[np.generic]) -> Encoded:
    """The texts of a dataset as `encode` makes them, from the cache where an earlier call has left them.

    how  names the way to encode, with all that it depends on: raise a number in it when `encode` gives others
    Time: a pass over the texts to encode them; later one over their hashes (of texts in memory over these) for each dataset, to
    know them again.
    Memory: a few blocks of texts a core, and 8 bytes a text. Raises StorageError where the cache cannot be written.
    """
    parent = cache_folder(dataset.cache, "encoded")
    folder = parent / f"{how}-{dataset.texts_digest.hex()[:24]}"
    if not folder.is_dir():
        building = folder.with_name(f".{folder.name}.{os.getpid()}")
        try:
            building.mkdir(parents=True, exist_ok=True)
            _write(building, dataset.inputs, encode, dtype)
            _rename(building, folder)
        except OSError as error:
            raise StorageError(
                f"the cache of encoded texts {parent} cannot be written: {error.strerror or error}; "
                "name another place with cache (--cache), or with the environment variable XDG_CACHE_HOME"
            ) from error
        finally:
            shutil.rmtree(building, ignore_errors=True)
    return _read(folder, len(dataset.inputs), dtype)


def _read(folder: Path, n: int, dtype: type[np.generic]) -> Encoded:
    try:
        offsets = np.load(folder / "offsets.npy", mmap_mode="r", allow_pickle=False)
        total = (folder / "values").stat().st_size // np.dtype(dtype).itemsize
        if offsets.shape != (n + 1,) or total != offsets[-1]:
            raise ValueError("its files do not belong together")
        # Nothing cannot be mapped.
        values = np.memmap(folder / "values", dtype, "r") if total else np.zeros(0, dtype)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"the cache {folder} is damaged ({error}); remove it to have it made again") from None
    return Encoded(np.asarray(values), np.asarray(offsets))


def _write(folder: Path, inputs: Any, encode: Encode, dtype: type[np.generic]) -> None:
    lengths = [np.zeros(1, np.int64)]
    with (folder / "values").open("wb") as file:
        blocks = [slice(start, start + _BLOCK) for start in range(0, len(inputs), _BLOCK)]
        for values, n_values in each(lambda block: encode(*utf8_of(inputs, block)), blocks, n_cores()):
            file.write(np.ascontiguousarray(values, dtype).data)
            lengths.append(n_values)
        file.flush()
        os.fsync(file.fileno())
    np.save(folder / "offsets.npy", np.cumsum(np.concatenate(lengths)))


def _rename(building: Path, folder: Path) -> None:
    try:
        building.rename(folder)
    except OSError:
        if not folder.is_dir():  # else another process was faster, with the same content
            raise
