"""Tables of texts and labels, one row of `KINDS` for each kind of file: they are read block by block."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.data import text_csv, text_jsonl, text_parquet
from svp.data.text_rows import Block, Columns, Problems, usable
from svp.errors import DataError, one_line


def _size(file: Path) -> int:
    return file.stat().st_size


@dataclass(frozen=True)
class Kind:
    """How one kind of file is read: names of columns, rows block by block, and how many bytes the texts take, about."""

    names: Callable[[Path, Columns], list[str]]
    blocks: Callable[[Path, Columns, Problems, Callable[[float], object]], Iterable[Block]]
    size: Callable[[Path], int] = _size


KINDS = {
    ".csv": Kind(text_csv.names, text_csv.blocks),
    ".tsv": Kind(text_csv.names, text_csv.blocks),
    ".jsonl": Kind(text_jsonl.names, text_jsonl.blocks),
    ".parquet": Kind(text_parquet.names, text_parquet.blocks, text_parquet.size),
}
SUFFIXES = tuple(KINDS)


def names_of(file: Path, encoding: str = "utf-8", quotes: bool | None = None) -> list[str]:
    """The columns of a file by its header (of .jsonl by its first row)."""
    with _readable(file, encoding):
        return KINDS[file.suffix.lower()].names(file, Columns("", (), encoding=encoding, quotes=quotes))


def rows_of(
    file: Path, columns: Columns, problems: Problems, progress: Callable[[float], object]
) -> Iterator[tuple[NDArray[np.int64], Any, Any]]:
    """(row numbers, labels, texts), the latter two as pyarrow arrays of strings, of the rows that can be used, block by block.

    problems  counts the others
    progress  called with the share of the file that has been read
    Raises DataError where the file as a whole cannot be read.
    """
    with _readable(file, columns.encoding):
        for block in KINDS[file.suffix.lower()].blocks(file, columns, problems, progress):
            yield usable(block, columns, problems)


def size_of(file: Path) -> int:
    """How many bytes the texts of a file take, about."""
    return KINDS[file.suffix.lower()].size(file)


@contextmanager
def _readable(file: Path, encoding: str = "utf-8") -> Iterator[None]:
    """Whatever pyarrow or the disk says of a file, as a DataError with what to do about it."""
    import pyarrow as pa

    try:
        yield
    except UnicodeError as error:
        raise DataError(
            f"{file} is not in the encoding {encoding!r}: {one_line(error)}; name another (--encoding)"
        ) from None
    except (pa.ArrowException, OSError, EOFError) as error:
        text = " ".join(str(error).split())
        if text_csv.LONG in text:
            text = (
                f"a row is longer than {text_csv.ROW_BYTES >> 20} MiB; is a quote opened and never closed? "
                'Quotes within a quoted field are doubled ("")'
            )
        raise DataError(f"{file} cannot be read: {text}") from None
