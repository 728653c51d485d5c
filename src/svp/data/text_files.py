"""Rows of texts and labels from .csv, .tsv, .jsonl and .parquet files, block by block; what cannot be used is counted.

Rows count from 0, without the header and without blank lines, those that cannot be used included.
"""

import csv as plain_csv
import json
from bisect import bisect_left
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from svp.data.texts import bytes_of
from svp.errors import DataError, one_line

_BLOCK_BYTES = 2 << 20  # of a file, parsed at a time; pyarrow reads up to 32 blocks of a CSV ahead, whoever is waiting
_ROW_BYTES = 8 << 20  # a row of a CSV may have so many: where one is longer than a block, blocks are that large
_BLOCK_ROWS = 8192
_LOOKED_AT = 20  # lines of a CSV by which it is told what separates its fields
_NAMED = 10  # rows that are named of each reason

_SWALLOWED = "with rows within its quotes"
_LONG = "straddling"  # what pyarrow says of a row that is longer than a block

NOT_ENCODED = "not in the encoding (name it with --encoding)"
NO_LABEL = "without a label"
NO_TEXT = "with an empty text"
NUL = "with a NUL character in the text"
BROKEN = "that are no JSON objects"
HEADER = "that repeats the header"
NO_STRING = "whose text or label is neither text nor a number"


@dataclass(frozen=True)
class Columns:
    """How the rows of a file are read.

    label, texts      names of columns; numbers from 1 where the file has no header. No label: rows need none
    header            whether the first row of a .csv or .tsv names them
    encoding          of .csv, .tsv and .jsonl
    newline_as_words  the two characters \\n stand for a line break
    quotes            whether quotes in .csv and .tsv enclose fields, or are letters; None: they do, and a row between tabs that
                      takes in others by them is refused
    """

    label: str
    texts: tuple[str, ...]
    header: bool = True
    encoding: str = "utf-8"
    newline_as_words: bool = False
    quotes: bool | None = None

    @property
    def named(self) -> tuple[str, ...]:
        """The columns that are read."""
        return (self.label, *self.texts) if self.label else self.texts

    def block(self, rows: NDArray[np.int64], values: list[Any]) -> "Block":
        """Rows with the values of the named columns; where no column is one of labels, all have the same."""
        if self.label:
            return Block(rows, values[0], values[1:])
        import pyarrow as pa

        return Block(rows, pa.array(["-"] * len(rows), pa.string()), values)

    @property
    def wanted(self) -> list[str]:
        """The label's column, if there is one, then those of the texts, as pyarrow calls them."""
        names = self.named
        return [name if self.header else f"f{int(name) - 1}" for name in names]


@dataclass
class Problems:
    """Why rows were left out: how many for each reason, the first of them, and how many rows there are up to the last of them."""

    counts: dict[str, int] = field(default_factory=dict)
    first: dict[str, list[int]] = field(default_factory=dict)
    n_rows: int = 0

    def add(self, reason: str, rows: Sequence[int] | NDArray[np.int64]) -> None:
        """Count rows, in order of their numbers."""
        if len(rows):
            self.counts[reason] = self.counts.get(reason, 0) + len(rows)
            named = self.first.setdefault(reason, [])
            named += [int(row) for row in rows[: _NAMED - len(named)]]
            self.n_rows = max(self.n_rows, int(rows[-1]) + 1)

    def lines(self, name: str) -> list[str]:
        """A line for each reason: "train.csv: 2 rows with an empty text (rows 3, 17)"."""
        return [
            f"{name}: {count:,} {'row' if count == 1 else 'rows'} {reason} "
            f"({'row' if count == 1 else 'rows'} {', '.join(map(str, self.first[reason][:3]))}"
            f"{f' and {count - 3:,} more' if count > 3 else ''})"
            for reason, count in self.counts.items()
        ]


@dataclass(frozen=True)
class Block:
    """Rows as they stand in a file: (k,) row numbers, labels and each column of texts, as pyarrow arrays of bytes or strings."""

    rows: NDArray[np.int64]
    labels: Any
    texts: list[Any]


def names_of(file: Path, encoding: str = "utf-8", quotes: bool | None = None) -> list[str]:
    """The columns of a file by its header (of .jsonl by its first row)."""
    with _errors(file, encoding):
        return _KINDS[file.suffix.lower()].names(file, Columns("", (), encoding=encoding, quotes=quotes))


def rows_of(
    file: Path, columns: Columns, problems: Problems, progress: Callable[[float], object]
) -> Iterator[tuple[NDArray[np.int64], Any, Any]]:
    """(row numbers, labels, texts), the latter two as pyarrow arrays of strings, of the rows that can be used, block by block.

    problems  counts the others
    progress  called with the share of the file that has been read
    Raises DataError where the file as a whole cannot be read.
    """
    with _errors(file, columns.encoding):
        for block in _KINDS[file.suffix.lower()].blocks(file, columns, problems, progress):
            yield _cleaned(block, columns, problems)


def size_of(file: Path) -> int:
    """How many bytes the texts of a file take, about."""
    return _KINDS[file.suffix.lower()].size(file)


def _cleaned(block: Block, columns: Columns, problems: Problems) -> tuple[NDArray[np.int64], Any, Any]:
    """The rows of a block that can be used; each other row counts with its first reason."""
    import pyarrow.compute as pc

    labels, broken = _strings(block.labels)
    parts = []
    for column in block.texts:
        part, bad = _strings(column)
        parts.append(part)
        broken |= bad
    text = parts[0] if len(parts) == 1 else _joined(parts)
    if columns.newline_as_words:
        text = pc.replace_substring(text, r"\n", "\n")
    labels = pc.utf8_trim_whitespace(labels)
    usable = np.ones(len(block.rows), bool)
    for reason, bad in (
        (NOT_ENCODED, broken),
        (NO_LABEL, _is_empty(labels)),
        (NO_TEXT, _is_empty(pc.utf8_trim_whitespace(text))),
        (NUL, _with_nul(text)),
        (HEADER, _is_header(labels, text, columns)),
    ):
        problems.add(reason, block.rows[usable & bad])
        usable &= ~bad
    if not usable.all():
        labels, text = (values.filter(_mask(usable)) for values in (labels, text))
    return block.rows[usable], labels, text


def _with_nul(text: Any) -> NDArray[np.bool_]:
    """Which texts hold a NUL. Mostly none does, which one look at all bytes tells."""
    import pyarrow.compute as pc

    if bytes_of(text)[0].all():
        return np.zeros(len(text), bool)
    found: NDArray[np.bool_] = pc.match_substring(text, "\0").to_numpy(zero_copy_only=False)
    return found


def _is_header(labels: Any, text: Any, columns: Columns) -> NDArray[np.bool_]:
    """Which rows name the columns once more: files that were put together one behind the other."""
    import pyarrow.compute as pc

    if not (columns.header and columns.label):
        return np.zeros(len(text), bool)
    same = pc.and_(pc.equal(labels, columns.label), pc.equal(text, " ".join(columns.texts)))
    found: NDArray[np.bool_] = same.to_numpy(zero_copy_only=False)
    return found


def _strings(values: Any) -> tuple[Any, NDArray[np.bool_]]:
    """As strings without nulls, and which of them are no UTF-8 (these are empty)."""
    import pyarrow as pa

    try:
        return values.cast(pa.string()).fill_null(""), np.zeros(len(values), bool)
    except pa.ArrowInvalid:
        words = [_decoded(value) for value in values.to_pylist()]
        bad = np.array([word is None for word in words])
        return pa.array([word or "" for word in words], pa.string()), bad


def _decoded(value: bytes | None) -> str | None:
    try:
        return (value or b"").decode()
    except UnicodeDecodeError:
        return None


def _joined(parts: list[Any]) -> Any:
    """Texts of several columns as one, a space between them; what is empty takes no space."""
    import pyarrow as pa
    import pyarrow.compute as pc

    filled = [pc.if_else(_mask(_is_empty(part)), pa.scalar(None, pa.string()), part) for part in parts]
    return pc.binary_join_element_wise(*filled, " ", null_handling="skip")


def _is_empty(strings: Any) -> NDArray[np.bool_]:
    import pyarrow.compute as pc

    empty: NDArray[np.bool_] = pc.binary_length(strings).to_numpy(zero_copy_only=False) == 0
    return empty


def _mask(values: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.array(values)


@contextmanager
def _errors(file: Path, encoding: str = "utf-8") -> Iterator[None]:
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
        if _LONG in text:
            text = (
                f"a row is longer than {_ROW_BYTES >> 20} MiB; is a quote opened and never closed? "
                'Quotes within a quoted field are doubled ("")'
            )
        raise DataError(f"{file} cannot be read: {text}") from None


# --- CSV -----------------------------------------------------------------------------------------------------------------


def _csv_names(file: Path, columns: Columns) -> list[str]:
    import pyarrow as pa

    try:
        with file.open("rb") as opened, _csv_reader(opened, file, columns, [], [], _BLOCK_BYTES) as reader:
            return list(reader.schema.names)
    except pa.ArrowInvalid as error:
        if _LONG not in str(error):
            raise
    with file.open("rb") as opened, _csv_reader(opened, file, columns, [], [], _ROW_BYTES) as reader:
        return list(reader.schema.names)


def _csv_blocks(
    file: Path, columns: Columns, problems: Problems, progress: Callable[[float], object]
) -> Iterator[Block]:
    import pyarrow as pa

    skipped: list[tuple[int, str]] = []
    given = 0  # rows up to here
    for n_bytes in (_BLOCK_BYTES, _ROW_BYTES):
        skipped.clear()
        try:
            for rows, values in _csv_batches(file, columns, skipped, n_bytes, progress):
                new = int(np.searchsorted(rows, given))
                yield columns.block(rows[new:], [column.slice(new) for column in values])
                given = int(rows[-1]) + 1 if len(rows) else given
            break
        except pa.ArrowInvalid as error:
            if _LONG not in str(error) or n_bytes == _ROW_BYTES:
                raise
    for number, reason in skipped:
        if reason == _SWALLOWED:
            raise swallowed(file, number)
    for reason in dict.fromkeys(reason for _, reason in skipped):
        problems.add(reason, [number for number, why in skipped if why == reason])


def _csv_batches(
    file: Path,
    columns: Columns,
    skipped: list[tuple[int, str]],
    n_bytes: int,
    progress: Callable[[float], object],
) -> Iterator[tuple[NDArray[np.int64], list[Any]]]:
    """Row numbers and the wanted columns, block by block; `skipped` is told of rows that are left out, and why."""
    size, row = max(1, file.stat().st_size), 0
    watched = _watched(file, columns)
    names = list(dict.fromkeys([*watched, *columns.wanted]))
    with file.open("rb") as opened, _csv_reader(opened, file, columns, names, skipped, n_bytes) as reader:
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
    names = _csv_names(file, columns)
    return names if columns.header else [f"f{i}" for i in range(len(names))]


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


def _csv_reader(
    opened: IO[bytes], file: Path, columns: Columns, names: list[str], skipped: list[tuple[int, str]], n_bytes: int
) -> Any:
    """pyarrow's reader of some columns as bytes (none: of all); rows with another number of fields are skipped, and noted."""
    import pyarrow as pa
    from pyarrow import csv

    def skip(row: Any) -> str:
        reason = f"with too {'few' if row.actual_columns < row.expected_columns else 'many'} fields"
        if delimiter == "\t" and columns.quotes is None and holds_rows(row.text.encode(), row.expected_columns):
            reason = _SWALLOWED
        skipped.append((row.number - 1 - columns.header, reason))
        return "skip"

    delimiter = delimiter_of(file, columns)
    return csv.open_csv(
        opened,
        # With threads pyarrow does not say which row is wrong.
        read_options=csv.ReadOptions(
            block_size=n_bytes,
            use_threads=False,
            encoding=_plain(columns.encoding),
            autogenerate_column_names=not columns.header,
        ),
        parse_options=csv.ParseOptions(
            delimiter=delimiter,
            quote_char=False if columns.quotes is False else '"',
            newlines_in_values=True,
            invalid_row_handler=skip,
        ),
        convert_options=csv.ConvertOptions(
            include_columns=names,
            column_types=dict.fromkeys(names, pa.binary()),
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )


def quoting_of(quotes: bool | None) -> Literal[0, 3]:
    """As Python's reader of CSV has it."""
    return plain_csv.QUOTE_NONE if quotes is False else plain_csv.QUOTE_MINIMAL


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
            with suppress(plain_csv.Error):
                widths = {len(row) for row in [*plain_csv.reader(lines, delimiter=delimiter, quoting=quoting)][:end]}
                if len(widths) == 1 and widths.pop() > 1:
                    return delimiter
    return ","


def _numbered(start: int, n: int, skipped: list[int]) -> NDArray[np.int64]:
    """The numbers of n rows from `start` on, without those that were skipped."""
    rows = np.arange(start, start + n + len(skipped))
    return rows[~np.isin(rows, skipped)][:n]


def _plain(encoding: str) -> str:
    """pyarrow reads UTF-8 itself, with a byte order mark or without."""
    return "utf8" if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig") else encoding


# --- JSON lines ----------------------------------------------------------------------------------------------------------


def _jsonl_names(file: Path, columns: Columns) -> list[str]:
    first, _ = next(_lines(file, columns.encoding), ("{}", 0))
    try:
        row = json.loads(first or "")
    except ValueError as error:
        raise DataError(f"{file}: its first row is no JSON: {one_line(error)}") from None
    if not isinstance(row, dict):
        raise DataError(f'{file}: its first row is no JSON object; give {{"label": ..., "text": ...}} in each')
    return list(row)


def _jsonl_blocks(
    file: Path, columns: Columns, problems: Problems, progress: Callable[[float], object]
) -> Iterator[Block]:
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
        if n_read > given + _BLOCK_BYTES and rows:
            yield block()
            progress(n_read / size)
            rows, values, given = [], [], n_read
    if rows:
        yield block()


def _lines(file: Path, encoding: str) -> Iterator[tuple[str | None, int]]:
    """Lines that are not blank, None where one is no UTF-8, and how many bytes (of other encodings characters) have been read."""
    n_read = 0
    if _plain(encoding) != "utf8":
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


# --- Parquet -------------------------------------------------------------------------------------------------------------


def _parquet_names(file: Path, columns: Columns) -> list[str]:
    import pyarrow.parquet as pq

    return list(pq.read_schema(file).names)


def _parquet_blocks(
    file: Path, columns: Columns, problems: Problems, progress: Callable[[float], object]
) -> Iterator[Block]:
    import pyarrow.parquet as pq

    row = 0
    with pq.ParquetFile(file) as opened:
        n = max(1, opened.metadata.num_rows)
        for batch in opened.iter_batches(_BLOCK_ROWS, columns=list(columns.named)):
            values = [_column(file, batch, name) for name in columns.named]
            yield columns.block(np.arange(row, row + batch.num_rows), values)
            row += batch.num_rows
            progress(row / n)


def _column(file: Path, batch: Any, name: str) -> Any:
    """One column as strings: numbers as their digits, 1.0 as 1; no number (NaN) as nothing."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = batch.column(name)
    if pa.types.is_dictionary(values.type):
        values = values.dictionary_decode()
    if pa.types.is_floating(values.type):
        values = pc.if_else(pc.is_nan(values), pa.scalar(None, values.type), values)
        try:
            return values.cast(pa.int64()).cast(pa.string())
        except pa.ArrowInvalid:
            return values.cast(pa.string())
    try:
        of_bytes = pa.types.is_binary(values.type) or pa.types.is_large_binary(values.type)
        return values.cast(pa.binary() if of_bytes else pa.string())
    except (pa.ArrowNotImplementedError, pa.ArrowInvalid):
        raise DataError(
            f"{file}: column {name} holds {values.type}; texts and labels are strings or numbers "
            "(--text-column, --label-column)"
        ) from None


@dataclass(frozen=True)
class _Kind:
    """How one kind of file is read."""

    names: Callable[[Path, Columns], list[str]]
    blocks: Callable[[Path, Columns, Problems, Callable[[float], object]], Iterable[Block]]
    size: Callable[[Path], int]


def _size(file: Path) -> int:
    return file.stat().st_size


def _parquet_size(file: Path) -> int:
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file)
    return sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))


_KINDS = {
    ".csv": _Kind(_csv_names, _csv_blocks, _size),
    ".tsv": _Kind(_csv_names, _csv_blocks, _size),
    ".jsonl": _Kind(_jsonl_names, _jsonl_blocks, _size),
    ".parquet": _Kind(_parquet_names, _parquet_blocks, _parquet_size),
}
SUFFIXES = tuple(_KINDS)
