"""What training recorded of every example, epoch by epoch: one memory-mapped (n_epochs, n) file a kind.

    correct        uint8    1 right, 0 wrong, 255 unseen
    loss           float16  cross-entropy
    p_true         float16  probability of the label
    logit_margin   float16  logit of the label minus the best other
    el2n           float16  Euclidean norm of softmax minus one-hot

A score such as forgetting is a cheap view of these files, so a new method never retrains a proxy. Disk: 9 bytes an example and
epoch (1.28 million examples x 100 epochs: 1.2 GB); memory: one epoch of one kind while recording, what is looked at afterwards.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import DataError
from svp.files import make_folder, read_array, storage_errors

KINDS: dict[str, type[np.generic]] = {
    "correct": np.uint8,
    "loss": np.float16,
    "p_true": np.float16,
    "logit_margin": np.float16,
    "el2n": np.float16,
}
UNSEEN = 255
LARGEST = float(np.finfo(np.float16).max)


class Signals:
    """A recorder while training runs (`create`, `write_epoch`), arrays by kind afterwards (`open`, `signals["correct"]`)."""

    def __init__(
        self, folder: Path, arrays: Mapping[str, NDArray[Any]], rows: NDArray[np.int64] | slice = slice(None)
    ) -> None:
        self.folder = folder
        self._arrays, self._rows = arrays, rows

    @classmethod
    def create(cls, folder: Path, n_epochs: int, n: int, rows: NDArray[np.int64] | slice = slice(None)) -> Self:
        """Files for `n` examples, all unseen; files of the same shape that are already there are continued.

        rows  of the examples that training will show, where it holds some out
        """
        make_folder(folder)
        arrays = {}
        for kind, dtype in KINDS.items():
            path = folder / f"{kind}.npy"
            array = _continued(path, (n_epochs, n), dtype)
            if array is None:
                with storage_errors(path):
                    _write_unseen(path, (n_epochs, n), dtype)
                array = read_array(path)
            arrays[kind] = array
        return cls(folder, arrays, rows)

    @classmethod
    def open(cls, folder: Path) -> Self:
        """The signals a finished training left, read-only."""
        return cls(folder, {kind: read_array(folder / f"{kind}.npy") for kind in KINDS})

    def write_epoch(self, epoch: int, values: Mapping[str, ArrayLike]) -> None:
        """Record one epoch: for each kind a value of every example that is shown; on disk when this returns.

        Writing an epoch again replaces it. Raises StorageError. Written, not mapped: pages that are looked at through a map
        stay in the memory of the process, epoch after epoch.
        """
        for kind, array in self._arrays.items():
            row = _unseen(array.shape[1], array.dtype)
            # Finite in float16: what is beyond its range is kept at the end of it.
            row[self._rows] = np.clip(values[kind], -LARGEST, LARGEST)
            path = self.folder / f"{kind}.npy"
            with storage_errors(path), open(path, "r+b") as file:
                file.seek(-(len(array) - epoch) * row.nbytes, os.SEEK_END)
                file.write(row.data)
                _to_disk(file)

    def refuse_gaps(self, n_epochs: int, checkpoint: Path) -> None:
        """DataError unless the first `n_epochs` of every kind stand there, for all examples that are shown: who goes on from
        `checkpoint` does not show them again.
        """
        epochs = (epoch[self._rows] for array in self._arrays.values() for epoch in array[:n_epochs])
        if any(_is_unseen(epoch).any() for epoch in epochs):
            raise DataError(
                f"the signals in {self.folder} do not hold all of the epochs before the checkpoint; "
                f"remove {checkpoint} to begin this training again"
            )

    def __getitem__(self, kind: str) -> NDArray[Any]:
        return self._arrays[kind]

    def kinds(self) -> dict[str, NDArray[Any]]:
        """All arrays by kind, as `svp.select(signals=...)` takes them."""
        return dict(self._arrays)


def _unseen(n: int, dtype: np.dtype[Any]) -> NDArray[Any]:
    return np.full(n, UNSEEN if dtype == np.uint8 else np.nan, dtype)


def _is_unseen(values: NDArray[Any]) -> NDArray[np.bool_]:
    unseen: NDArray[np.bool_] = np.isnan(values) if values.dtype.kind == "f" else values == UNSEEN
    return unseen


def _write_unseen(path: Path, shape: tuple[int, int], dtype: type[np.generic]) -> None:
    """A file of nothing seen. Written, not mapped: on a full disk a mapped page kills the process, a write says so."""
    row = _unseen(shape[1], np.dtype(dtype))
    with open(path, "wb") as file:
        header = {"descr": np.lib.format.dtype_to_descr(row.dtype), "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(file, header)
        for _ in range(shape[0]):
            file.write(row.data)
        _to_disk(file)


def _to_disk(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _continued(path: Path, shape: tuple[int, int], dtype: type[np.generic]) -> NDArray[Any] | None:
    try:
        array = read_array(path)
    except DataError:  # missing, or cut off by a kill
        return None
    return array if array.shape == shape and array.dtype == dtype else None
