"""Texts as a dataset holds them: an array of `str` in memory, or `Texts`, which reads them from disk row by row."""

import hashlib
from collections.abc import Iterable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.errors import DataError

Ints = NDArray[np.int64]
BLOCK = 1 << 16  # rows whose numbers are in memory at once


class Texts:
    """(n,) texts in Arrow IPC files, mapped and never all in memory; `texts[positions]` gives an array of `str`.

    To whoever reads it like a one-dimensional array of dtype object: len, shape, ndim, dtype, and indexing by an int (a `str`),
    by a slice, or by an array of positions or of true and false (an object array in memory). `part` stays on disk.

    files  each with columns `text` and `hash` (uint64, of `text_hash`); their rows count through them
    rows   which of these rows, in order; default all, which takes no memory
    """

    dtype = np.dtype(object)
    ndim = 1

    def __init__(self, files: Iterable[Path], rows: Ints | None = None) -> None:
        self._batches = [batch for file in files for batch in _batches(file)]
        self._starts = np.cumsum([0, *(batch.num_rows for batch in self._batches)])
        self._rows = rows

    @property
    def shape(self) -> tuple[int]:
        return (len(self),)

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._rows is None else len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        rows = self._chosen(index)
        return self._read("text", rows) if rows.ndim else self._read("text", rows[None])[0]

    def part(self, index: Any) -> "Texts":
        """Some of the texts, in this order, still on disk."""
        some = Texts((), self._chosen(index))
        some._batches, some._starts = self._batches, self._starts
        return some

    def hashes(self) -> Iterator[NDArray[np.uint64]]:
        """`text_hash` of the texts as it stands in the files, block by block."""
        for start in range(0, len(self), BLOCK):
            yield self._read("hash", self._chosen(slice(start, start + BLOCK)))

    def numbers(self, name: str) -> Iterator[NDArray[Any]]:
        """Numbers that stand beside all rows of the files, not of these texts alone, block by block."""
        for batch in self._batches:
            yield batch.column(name).to_numpy()

    def _chosen(self, index: Any) -> Ints:
        """The rows of the files that an index means, as of an array of them."""
        rows: Ints
        if self._rows is not None:
            rows = self._rows[index]
            return rows
        if isinstance(index, slice):
            return np.arange(*index.indices(len(self)))
        given = np.asarray(index)
        if given.dtype == bool or not given.size:
            rows = np.arange(len(self))[index]
            return rows
        if given.min() < -len(self) or given.max() >= len(self):
            raise IndexError(f"there are {len(self)} texts; the index goes from {given.min()} to {given.max()}")
        return np.where(given < 0, given + len(self), given).astype(np.int64)

    def utf8(self, index: slice) -> "Joined":
        """Some of the texts as UTF-8, read as they lie: of rows that follow each other without a copy, and without any `str`."""
        rows = self._chosen(index)
        batch_of = np.searchsorted(self._starts, rows, side="right") - 1
        runs = []
        for start, stop in pairwise(np.flatnonzero(np.diff(batch_of, prepend=-1, append=-1))):
            here, column = (
                rows[start:stop] - self._starts[batch_of[start]],
                self._batches[batch_of[start]].column("text"),
            )
            gaps = here[-1] - here[0] != len(here) - 1 or (np.diff(here) != 1).any()
            runs.append(bytes_of(column.take(_array(here)) if gaps else column.slice(int(here[0]), len(here))))
        if len(runs) == 1:
            return runs[0]
        return _joined([data for data, _ in runs], [np.diff(ends, prepend=0) for _, ends in runs])

    def _read(self, name: str, rows: Ints) -> NDArray[Any]:
        """A column at rows of the files, batch by batch: each is looked up once, however the rows lie."""
        found = np.empty(len(rows), object if name == "text" else np.uint64)
        batch_of = np.searchsorted(self._starts, rows, side="right") - 1
        order = np.argsort(batch_of, kind="stable")
        bounds = np.flatnonzero(np.diff(batch_of[order], prepend=-1, append=-1))
        for start, stop in pairwise(bounds):
            here = order[start:stop]
            number = int(batch_of[here[0]])
            chosen = self._batches[number].column(name).take(_array(rows[here] - self._starts[number]))
            found[here] = chosen.to_numpy(zero_copy_only=False)
        return found


# Texts as UTF-8: all their bytes, read-only, and where each text ends.
Joined = tuple[NDArray[np.uint8], Ints]


def utf8_of(texts: Any, part: slice) -> Joined:
    """Texts of a dataset as UTF-8, from memory or from disk."""
    if isinstance(texts, Texts):
        return texts.utf8(part)
    return joined([text.encode() for text in texts[part]])


def joined(texts: list[bytes]) -> Joined:
    """Texts one after the other."""
    return _joined([np.frombuffer(b"".join(texts), np.uint8)], [np.array([len(text) for text in texts], np.int64)])


def _joined(data: list[NDArray[np.uint8]], lengths: list[Ints]) -> Joined:
    whole = np.concatenate([np.zeros(0, np.uint8), *data])
    whole.flags.writeable = False
    return whole, np.cumsum(np.concatenate([np.zeros(0, np.int64), *lengths]))


def bytes_of(column: Any) -> Joined:
    """An Arrow array of strings, its bytes where they lie."""
    _, offsets, data = column.buffers()
    if not len(column):
        return joined([])
    ends = np.frombuffer(offsets, np.int32)[column.offset : column.offset + len(column) + 1].astype(np.int64)
    whole = np.frombuffer(b"" if data is None else data, np.uint8)
    return whole[ends[0] : ends[-1]], ends[1:] - ends[0]


def text_hash(text: bytes | memoryview) -> bytes:
    """8 bytes that two texts share by chance once in 2**64: of the text as UTF-8."""
    return hashlib.blake2b(text, digest_size=8).digest()


def hashes_of(texts: Any) -> Iterator[NDArray[np.uint64]]:
    """`text_hash` of each, block by block. Time: a pass, or none for `Texts`, which know."""
    if isinstance(texts, Texts):
        yield from texts.hashes()
        return
    for start in range(0, len(texts), BLOCK):
        made = b"".join(text_hash(text.encode()) for text in texts[start : start + BLOCK])
        yield np.frombuffer(made, np.uint64)


def column_hashes(column: Any) -> NDArray[np.uint64]:
    """(n,) of `text_hash` of an Arrow array of strings."""
    data, ends = bytes_of(column)
    view, bounds = data.data, [0, *ends.tolist()]
    return np.frombuffer(b"".join([text_hash(view[start:stop]) for start, stop in pairwise(bounds)]), np.uint64)


def digest_of(texts: Any) -> bytes:
    """SHA-256 of the texts in order, by their hashes: the same in memory and on disk."""
    digest = hashlib.sha256()
    for block in hashes_of(texts):
        digest.update(block.astype("<u8").data)
    return digest.digest()


def as_texts(values: Any, name: str) -> NDArray[np.object_] | None:
    """Texts as a one-dimensional array of `str`; None where the first value is none. DataError where another is not."""
    if isinstance(values, Texts):
        return values  # type: ignore[return-value]  # to whoever reads it, it is one
    if isinstance(values, list | tuple):
        if not values or not isinstance(values[0], str):
            return None
        x = np.empty(len(values), object)
        x[:] = values
    else:
        x = np.asarray(values)
        if x.ndim != 1 or not (x.dtype.kind in "UT" or (x.dtype.kind == "O" and len(x) and isinstance(x[0], str))):
            return None
        x = x.astype(object)
    if bad := [i for i, value in enumerate(x) if not _is_text(value)]:
        raise DataError(
            f"{name}: {len(bad)} of {len(x)} texts are no text (None, a number, broken Unicode), first in rows {bad[:3]}; "
            "give a str for each example"
        )
    return x


def _is_text(value: Any) -> bool:
    try:
        return isinstance(value, str) and value.encode() is not None
    except UnicodeEncodeError:
        return False


def _batches(file: Path) -> list[Any]:
    import pyarrow as pa

    with pa.ipc.open_file(pa.memory_map(str(file))) as opened:  # the batches keep the map
        return [opened.get_batch(i) for i in range(opened.num_record_batches)]


def _array(rows: Ints) -> Any:
    import pyarrow as pa

    return pa.array(rows)
