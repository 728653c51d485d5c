"""Rows of texts and labels, block by block, whatever file they come from: which can be used, and what is counted of the others.

Rows count from 0, without the header and without blank lines, those that cannot be used included.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.data.texts import bytes_of

BLOCK_BYTES = 2 << 20  # of a file, parsed at a time; pyarrow reads up to 32 blocks of a CSV ahead, whoever is waiting
_NAMED = 10  # rows that are named of each reason

NOT_ENCODED = "not in the encoding (name it with --encoding)"
NO_LABEL = "without a label"
NO_TEXT = "with an empty text"
NUL = "with a NUL character in the text"
HEADER = "that repeats the header"


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


def usable(block: Block, columns: Columns, problems: Problems) -> tuple[NDArray[np.int64], Any, Any]:
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
    good = np.ones(len(block.rows), bool)
    for reason, bad in (
        (NOT_ENCODED, broken),
        (NO_LABEL, _is_empty(labels)),
        (NO_TEXT, _is_empty(pc.utf8_trim_whitespace(text))),
        (NUL, _with_nul(text)),
        (HEADER, _is_header(labels, text, columns)),
    ):
        problems.add(reason, block.rows[good & bad])
        good &= ~bad
    if not good.all():
        labels, text = (values.filter(_mask(good)) for values in (labels, text))
    return block.rows[good], labels, text


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


def plain(encoding: str) -> str:
    """pyarrow reads UTF-8 itself, with a byte order mark or without."""
    return "utf8" if encoding.lower().replace("_", "-") in ("utf-8", "utf8", "utf-8-sig") else encoding


def _mask(values: NDArray[np.bool_]) -> Any:
    import pyarrow as pa

    return pa.array(values)
