"""Questions as tables with an empty column `label`, a row an example; and any table with `label` and `id` or `key` back.

Spreadsheets run a cell that begins with = + - @, a tab or a carriage return as a formula. In CSV such a text gets an apostrophe
before it, which is taken away when it comes back; so does one that has apostrophes before such a sign, so that every text is read
as it was (OWASP, "CSV Injection"). Who cuts the rows elsewhere, at semicolons say, gets other cells, which nothing here makes
harmless.
"""

import csv
import io
import json
from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from svp.errors import DataError
from svp.exchange.items import Asked, Told, annotator, id_in, opened, time_of, understood, word
from svp.files import write_bytes
from svp.tables import WRITERS

_FORMULA = ("=", "+", "-", "@", "\t", "\r")
_COLUMNS = ("id", "key", "text", "file", "round", "score", "guess", "guess_probability", "label")
_OF_LABEL_STUDIO = {"id": "svp_id", "key": "svp_key", "at": "updated_at"}
_LABELS = ("label", "choice", "class")


def write_csv(path: Path, asked: Sequence[Asked], classes: Sequence[str]) -> None:
    """With a byte order mark: without it some spreadsheets take UTF-8 for something else."""
    rows = _rows(asked)
    write_bytes(path, csv_of(list(rows[0]) if rows else list(_COLUMNS), rows, "\t" if path.suffix == ".tsv" else ","))


def write_jsonl(path: Path, asked: Sequence[Asked], classes: Sequence[str]) -> None:
    write_bytes(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in _rows(asked)).encode())


def write_parquet(path: Path, asked: Sequence[Asked], classes: Sequence[str]) -> None:
    import pyarrow as pa

    write_bytes(path, WRITERS[".parquet"](pa.Table.from_pylist(_rows(asked))))


def read_csv(path: Path) -> list[Told]:
    text = opened(path)
    header = text.partition("\n")[0]
    delimiter = max(",;\t", key=header.count)  # spreadsheets write the one of their country
    try:
        table = csv.DictReader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        rows = list(table)
    except csv.Error as error:
        raise DataError(f"{path} is no CSV: {error}; is a quote opened and never closed?") from None
    plain = [
        {name: _restored(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows
    ]
    if any(None in row for row in plain):
        row = next(number for number, row in enumerate(plain) if None in row)
        raise DataError(f"{path}, row {row + 2}: it has more cells than the header; quote what has {delimiter!r} in it")
    return _told(path, enumerate(plain, 2), [name for name in table.fieldnames or () if name.strip()])


def read_jsonl(path: Path) -> list[Told]:
    rows = []
    for number, line in enumerate(opened(path).split("\n"), 1):
        if line.strip():
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                raise DataError(f"{path}, line {number}: this is no JSON ({error})") from None
            if not isinstance(row, dict):
                raise DataError(f"{path}, line {number}: this is no JSON object")
            rows.append((number, row))
    return _told(path, rows, rows[0][1] if rows else ())


def read_parquet(path: Path) -> list[Told]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path} cannot be read: {' '.join(str(error).split())}") from None
    return _told(path, enumerate(table.to_pylist()), table.column_names)


def csv_of(columns: Sequence[str], rows: Iterable[Mapping[str, Any]], delimiter: str = ",") -> bytes:
    """A table as CSV that no spreadsheet runs."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, delimiter=delimiter, lineterminator="\r\n")
    writer.writerow(columns)
    for row in rows:
        values = [row.get(name) for name in columns]
        writer.writerow(["" if v is None else _neutral(v) if isinstance(v, str) else v for v in values])
    return b"\xef\xbb\xbf" + out.getvalue().encode()


def _neutral(text: str) -> str:
    return "'" + text if text.lstrip("'").startswith(_FORMULA) else text


def _restored(text: str) -> str:
    return text[1:] if text.startswith("'") and text.lstrip("'").startswith(_FORMULA) else text


def _rows(asked: Sequence[Asked]) -> list[dict[str, Any]]:
    """A row an example; columns that say nothing of any of them are left out."""
    rows = [
        {
            "id": item.id,
            "key": None if item.key == str(item.id) else item.key,
            "text": item.text,
            "file": None if item.file is None else str(item.file),
            "round": item.round,
            "score": item.score,
            "guess": item.guess and item.guess[0],
            "guess_probability": item.guess and item.guess[1],
            "label": item.label,
        }
        for item in asked
    ]
    used = [name for name in _COLUMNS if any(row[name] is not None for row in rows)]
    return [{name: row[name] for name in used} for row in rows]


def _told(path: Path, rows: Iterable[tuple[int, Mapping[str, Any]]], columns: Collection[str]) -> list[Told]:
    """The rows with a label. columns: of the table; of JSON lines, which may differ, those of the first."""
    if not columns:
        raise DataError(f"{path} is empty; it needs a column label, and one called id or key")
    _names(path, columns)
    found = []
    for number, row in rows:
        names, label = _names(path, row)
        where = f"{path.name}, row {number}"
        if said := _one(row[label], where):
            who = annotator(row.get("annotator")) if names is _OF_LABEL_STUDIO else word(row.get("who")) or None
            at = time_of(row.get(names["at"]), where)
            key, text = word(row.get(names["key"])) or None, row.get("text")
            text = text if isinstance(text, str) else None
            id_, round_ = id_in(row, names["id"], where), id_in(row, "round", where)
            found.append(Told(where, said, id_, key, who=who, at=at, text=text, round=round_))
    return found


def _names(path: Path, columns: Collection[str]) -> tuple[Mapping[str, str], str]:
    """What the columns with id, key and time are called, and that with labels; DataError where there are none."""
    names = _OF_LABEL_STUDIO if "svp_id" in columns else {name: name for name in _OF_LABEL_STUDIO}
    label = next((name for name in _LABELS if name in columns), None)
    if label is None or not {names["id"], names["key"]} & set(columns):
        raise DataError(f"{path} has the columns {', '.join(map(str, columns))}; it needs label, and id or key")
    return names, label


def _one(value: Any, where: str) -> str:
    """The class in a cell; Label Studio writes several choices as JSON."""
    text = word(value)
    if text.startswith("{"):
        try:
            choices = json.loads(text)["choices"]
        except (ValueError, KeyError, TypeError):
            return text
        with understood(where, "list of classes, as Label Studio writes it"):
            if len(choices) != 1:
                raise DataError(f"{where}: {len(choices)} classes are chosen; choose one")
            return word(choices[0])
    return text
