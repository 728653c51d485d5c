"""Arrays that stay on disk: mapped from .npy and .npz files, or gathered block by block into an unnamed file."""

import io
import tempfile
import zipfile
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.errors import DataError, UnknownName

_BLOCK_ROWS = 8192
_BLOCK_BYTES = 8 << 20


def npy(file: Path) -> NDArray[Any]:
    """The array in a .npy file, mapped."""
    try:
        array: NDArray[Any] = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(f"{file} cannot be read: {_no_pickle(error)}") from None
    return array


def npz(file: Path, name: str | None, memory: int) -> NDArray[Any]:
    """One array of an .npz: mapped where it lies in the file as it is, else unpacked, on disk where it is large."""
    try:
        with zipfile.ZipFile(file) as archive:
            known = [member.removesuffix(".npy") for member in archive.namelist()]
            if name is None and len(known) > 1:
                raise DataError(f"{file} has several arrays; name one: {file.name}:NAME, of {', '.join(known)}")
            if name is not None and name not in known:
                raise UnknownName(f"array of {file.name}", name, known)
            member = archive.getinfo(archive.namelist()[0 if name is None else known.index(name)])
            with archive.open(member) as opened:
                shape, fortran, dtype = _header(opened)
                if dtype.hasobject:
                    raise ValueError("allow_pickle")
                order: Any = "F" if fortran else "C"
                if member.compress_type == zipfile.ZIP_STORED and np.prod(shape):
                    with file.open("rb") as raw:  # the header of the member, then that of the array, then the numbers
                        raw.seek(member.header_offset + 26)
                        name_size, extra = np.frombuffer(raw.read(4), "<u2").tolist()
                        raw.seek(member.header_offset + 30 + name_size + extra)
                        _header(raw)
                        return np.memmap(file, dtype, "r", raw.tell(), shape, order)
                blocks = (np.frombuffer(block, np.uint8) for block in iter(lambda: opened.read(_BLOCK_BYTES), b""))
                return joined(blocks, memory // 8, file).view(dtype).reshape(shape, order=order)
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile) as error:
        raise DataError(f"{file} cannot be read: {_no_pickle(error)}") from None


def _header(opened: Any) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(opened)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    return read(opened)


def _no_pickle(error: Exception) -> str:
    text = " ".join(str(error).split())
    return (
        "it holds Python objects; save numbers, or strings of fixed width"
        if "allow_pickle" in text or "Python objects" in text
        else text
    )


def joined(blocks: Iterable[NDArray[Any]], limit: int, where: Path, *, folder: Path | None = None) -> NDArray[Any]:
    """One array of blocks of rows: in memory up to `limit` bytes, beyond that mapped from an unnamed file on disk.

    where   what messages name
    folder  where the unnamed file lies; default: where temporary files do
    """
    dtype, tail, n = np.dtype(np.uint8), (0,), 0
    with ExitStack() as open_files:
        file: Any = io.BytesIO()
        for block in blocks:
            if not n:
                dtype, tail = block.dtype, block.shape[1:]
            if len(block) and (block.dtype != dtype or block.shape[1:] != tail):
                raise DataError(
                    f"{where}: its parts differ: {dtype} rows of shape {tail}, {block.dtype} rows of shape {block.shape[1:]}"
                )
            if isinstance(file, io.BytesIO) and file.tell() + block.nbytes > limit:
                disk = open_files.enter_context(tempfile.TemporaryFile(dir=folder))
                disk.write(file.getbuffer())
                file = disk
            n += len(block)
            for start in range(0, len(block), _BLOCK_ROWS):  # a mapped block is never copied whole
                file.write(np.ascontiguousarray(block[start : start + _BLOCK_ROWS]).data)
        file.flush()
        if not n or not np.prod(tail):
            return np.zeros((n, *tail), dtype)
        if isinstance(file, io.BytesIO):
            return np.frombuffer(file.getbuffer(), dtype).reshape(n, *tail)
        return np.memmap(file, dtype, "r", shape=(n, *tail))  # keeps the file when it is closed
