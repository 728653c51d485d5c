"""Rows of .csv and .tsv: what separates fields, rows that are broken, longer than a block, or hidden within quotes."""

import csv
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from svp.data.text_rows import BLOCK_BYTES, Block, Columns, Problems, plain
from svp.errors import DataError

ROW_BYTES = 8 << 20  # a row may have so many: where one is longer than a block, blocks are that large
LONG = "straddling"  # what pyarrow says of a row that is longer than a block
_LOOKED_AT = 20  # lines by which it is told what separates the fields
_SWALLOWED = "with rows within its quotes"


def names(file: Path, columns: Columns) -> list[str]:
    """The columns by the header; f0, f1 and so on where there is none."""
    import pyarrow as pa

    try:
        with file.open("rb") as opened, _reader(opened, file, columns, [], [], BLOCK_BYTES) as reader:
            return list(reader.schema.names)
    except pa.ArrowInvalid as error:
        if LONG not in str(error):
            raise
    with file.open("rb") as opened, _reader(opened, file, columns, [], [], ROW_BYTES) as reader:
        return list(reader.schema.names)


def blocks(file: Path, columns: Columns, problems: Problems, progress: Callable[[float], object]) -> Iterator[Block]:
    """Rows as they stand in a file; `problems` is told of those with too few or too many fields."""
    import pyarrow as pa

    skipped: list[tuple[int, str]] = []
    given = 0  # rows up to here
    for n_bytes in (BLOCK_BYTES, ROW_BYTES):
        skipped.clear()
        try:
            for rows, values in _batches(file, columns, skipped, n_bytes, progress):
                new = int(np.searchsorted(rows, given))
                yield columns.block(rows[new:], [column.slice(new) for column in values])
                given = int(rows[-1]) + 1 if len(rows) else given
            break
        except pa.ArrowInvalid as error:
            if LONG not in str(error) or n_bytes == ROW_BYTES:
                raise
    for number, reason in skipped:
        if reason == _SWALLOWED:
            raise swallowed(file, number)
    for reason in dict.fromkeys(reason for _, reason in skipped):
        problems.add(reason, [number for number, why in skipped if why == reason])


def _batches(
    file: Path,
    columns: Columns,
    skipped: list[tuple[int, str]],
    n_bytes: int,
    progress: Callable[[float], object],
) -> Iterator[tuple[NDArray[np.int64], list[Any]]]:
    """Row numbers and the wanted columns, block by block; `skipped` is told of rows that are left out, and why."""
    size, row = max(1, file.stat().st_size), 0
    watched = _watched(file, columns)
    read = list(dict.fromkeys([*watched, *columns.wanted]))
    with file.open("rb") as opened, _reader(opened, file, columns, read, skipped, n_bytes) as reader:
        for batch in reader:
            # What was skipped is known for this block and further, because parsing is ahead of what is given.
            ahead = skipped[bisect_left(skipped, (row, "")) :]
            rows = _numbered(row, batch.num_rows, [number for number, _ in ahead])
            row = int(rows[-1]) + 1 if len(rows) else row
            if watched:
                _check_quotes(file, rows, batch, columns)
            yield rows, [batch.column(name) for name in columns.wanted]
            progress(opened.tell() / size)


def _watched(file: Path, columns: Columns) -> list[str]:
    """All columns of a file between tabs, where nobody has said whether quotes enclose its fields; else none."""
    if columns.quotes is not None or delimiter_of(file, columns) != "\t":
        return []
    found = names(file, columns)
    return found if columns.header else [f"f{i}" for i in range(len(found))]


def _check_quotes(file: Path, rows: NDArray[np.int64], batch: Any, columns: Columns) -> None:
    """DataError for a row that took in others by its quotes: tables between tabs are often written without heed of quotes."""
    import pyarrow.compute as pc

    held = np.zeros(len(rows), bool)
    for column in batch.columns:  # a tab in a field has come there by quotes
        held |= pc.match_substring(column, "\t").to_numpy(zero_copy_only=False)
    if not held.any():
        return
    label = batch.schema.names.index(columns.wanted[0]) if columns.label else 0
    labels = set(pc.unique(batch.column(label)).to_pylist() if columns.label else ())
    for position in np.flatnonzero(held):
        text = b"\t".join(column[position].as_py() for column in batch.columns)
        if holds_rows(text, batch.num_columns, label, labels):
            raise swallowed(file, int(rows[position]))


def holds_rows(text: bytes, n_fields: int, at: int = 0, labels: Collection[bytes] = ()) -> bool:
    """Whether several lines of a row are rows: of as many fields between tabs, the first not empty, and with a known label.

    at, labels  in which field the label stands, and those of other rows; none: any will do
    """
    lines = [line.split(b"\t") for line in text.splitlines()]
    whole = [line for line in lines if len(line) == n_fields and line[0].strip()]
    return sum(not labels or line[at] in labels for line in whole) > 1


def swallowed(file: Path, row: int) -> DataError:
    """What to say of a row that holds others."""
    return DataError(
        f"{file}: row {row} has lines within quotes that look like rows themselves; if quotes are letters of the texts, say "
        "quotes=False (--no-quotes); if they enclose fields, quotes=True (--quotes)"
    )


def _reader(
    opened: IO[bytes], file: Path, columns: Columns, wanted: list[str], skipped: list[tuple[int, str]], n_bytes: int
) -> Any:
    """pyarrow's reader of some columns as bytes (none: of all); rows with another number of fields are skipped, and noted."""
    import pyarrow as pa
    import pyarrow.csv as arrow_csv

    def skip(row: Any) -> str:
        reason = f"with too {'few' if row.actual_columns < row.expected_columns else 'many'} fields"
        if delimiter == "\t" and columns.quotes is None and holds_rows(row.text.encode(), row.expected_columns):
            reason = _SWALLOWED
        skipped.append((row.number - 1 - columns.header, reason))
        return "skip"

    delimiter = delimiter_of(file, columns)
    return arrow_csv.open_csv(
        opened,
        # With threads pyarrow does not say which row is wrong.
        read_options=arrow_csv.ReadOptions(
            block_size=n_bytes,
            use_threads=False,
            encoding=plain(columns.encoding),
            autogenerate_column_names=not columns.header,
        ),
        parse_options=arrow_csv.ParseOptions(
            delimiter=delimiter,
            quote_char=False if columns.quotes is False else '"',
            newlines_in_values=True,
            invalid_row_handler=skip,
        ),
        convert_options=arrow_csv.ConvertOptions(
            include_columns=wanted,
            column_types=dict.fromkeys(wanted, pa.binary()),
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )


def quoting_of(quotes: bool | None) -> Literal[0, 3]:
    """As Python's reader of CSV has it."""
    return csv.QUOTE_NONE if quotes is False else csv.QUOTE_MINIMAL


def delimiter_of(file: Path, columns: Columns) -> str:
    """What separates the fields: in .tsv a tab; in .csv the first of comma, semicolon and tab of which the first rows all have as
    many (spreadsheets write the one of their country); else a comma.
    """
    if file.suffix.lower() == ".tsv":
        return "\t"
    with file.open(encoding=columns.encoding, errors="replace", newline="") as opened:
        lines = [line for line in islice(opened, _LOOKED_AT) if line.strip()]
    quoting = quoting_of(columns.quotes)
    for end in (None, -1):  # the last line may be a part of its row
        for delimiter in ",;\t":
            with suppress(csv.Error):
                widths = {len(row) for row in [*csv.reader(lines, delimiter=delimiter, quoting=quoting)][:end]}
                if len(widths) == 1 and widths.pop() > 1:
                    return delimiter
    return ","


def _numbered(start: int, n: int, skipped: list[int]) -> NDArray[np.int64]:
    """The numbers of n rows from `start` on, without those that were skipped."""
    rows = np.arange(start, start + n + len(skipped))
    return rows[~np.isin(rows, skipped)][:n]
