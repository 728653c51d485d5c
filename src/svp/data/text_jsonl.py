"""Rows of .jsonl: an object a line, numbers and true or false as words."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from svp.data.text_rows import BLOCK_BYTES, NOT_ENCODED, Block, Columns, Problems, plain
from svp.errors import DataError, one_line

BROKEN = "that are no JSON objects"
NO_STRING = "whose text or label is neither text nor a number"


def names(file: Path, columns: Columns) -> list[str]:
    """The fields of the first row."""
    first, _ = next(_lines(file, columns.encoding), ("{}", 0))
    try:
        row = json.loads(first or "")
    except ValueError as error:
        raise DataError(f"{file}: its first row is no JSON: {one_line(error)}") from None
    if not isinstance(row, dict):
        raise DataError(f'{file}: its first row is no JSON object; give {{"label": ..., "text": ...}} in each')
    return list(row)


def blocks(file: Path, columns: Columns, problems: Problems, progress: Callable[[float], object]) -> Iterator[Block]:
    """Rows as they stand in a file; `problems` is told of lines that hold none."""
    import pyarrow as pa

    size = max(1, file.stat().st_size)
    rows: list[int] = []
    values: list[list[str | None]] = []

    def block() -> Block:
        return columns.block(
            np.array(rows, np.int64), [pa.array(column, pa.string()) for column in zip(*values, strict=True)]
        )

    given = 0
    for row, (line, n_read) in enumerate(_lines(file, columns.encoding)):
        found = _fields(line, columns.named)
        if isinstance(found, str):
            problems.add(found, [row])
        else:
            rows.append(row)
            values.append(found)
        if n_read > given + BLOCK_BYTES and rows:
            yield block()
            progress(n_read / size)
            rows, values, given = [], [], n_read
    if rows:
        yield block()


def _lines(file: Path, encoding: str) -> Iterator[tuple[str | None, int]]:
    """Lines that are not blank, None where one is no UTF-8, and how many bytes (of other encodings characters) have been read."""
    n_read = 0
    if plain(encoding) != "utf8":
        with file.open(encoding=encoding, newline="\n") as words:
            for line in words:
                n_read += len(line)
                if line.strip():
                    yield line, n_read
        return
    with file.open("rb") as opened:
        for number, raw in enumerate(opened):
            n_read += len(raw)
            line_bytes = raw if number else raw.removeprefix(b"\xef\xbb\xbf")
            if line_bytes.strip():
                try:
                    yield line_bytes.decode(), n_read
                except UnicodeDecodeError:
                    yield None, n_read


def _fields(line: str | None, names: tuple[str, ...]) -> list[str | None] | str:
    """The label and the texts of one line (None where they are missing), or why it cannot be used."""
    if line is None:
        return NOT_ENCODED
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        return BROKEN
    if not isinstance(row, dict):
        return BROKEN
    found = [_word(row.get(name)) for name in names]
    return found if all(isinstance(word, str | None) for word in found) else NO_STRING


def _word(value: Any) -> Any:
    """A number as its digits, 1.0 as 1; no number (NaN) as nothing; what is no text stays what it is."""
    if isinstance(value, str):
        try:
            value.encode()
        except UnicodeEncodeError:  # half of a pair that JSON escapes
            return False
        return value
    if isinstance(value, bool):
        return str(value).lower()  # as pyarrow has it
    if not isinstance(value, int | float):
        return value
    if value != value:  # NaN
        return None
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
