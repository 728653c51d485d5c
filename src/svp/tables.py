"""Tables in files: .parquet .arrow .feather .csv .tsv .jsonl, read block by block through pyarrow, written whole."""

import csv as plain_csv
import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from svp.errors import DataError, SettingError, UnknownName
from svp.files import write_bytes

_BLOCK_ROWS = 8192
_BLOCK_BYTES = 8 << 20


class NotNumbers(DataError):
    """Text where numbers should be."""


def column_types(file: Path) -> dict[str, str]:
    """Each column as "number", "list" or "other"."""
    import pyarrow as pa

    def word(kind: Any) -> str:
        t = pa.types
        if t.is_list(kind) or t.is_large_list(kind) or t.is_fixed_size_list(kind):
            return "list"
        return "number" if is_number(kind) or t.is_decimal(kind) else "other"

    schema = _schema(file)
    return {field.name: word(field.type) for field in schema}


def is_number(kind: Any) -> bool:
    """Whether a type of pyarrow is one of numbers."""
    import pyarrow as pa

    return bool(pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind))


def write_table(path: Path, table: Any) -> None:
    """A pyarrow table as .parquet, .arrow, .feather, .csv, .tsv or .jsonl, whole or not at all."""
    if path.suffix.lower() not in WRITERS:
        raise SettingError(f"{path} cannot be written; give a name that ends in {', '.join(WRITERS)} or .npy")
    write_bytes(path, WRITERS[path.suffix.lower()](table))


def batches(file: Path, names: list[str], role: str) -> Iterator[Any]:
    """pyarrow batches of these columns, in the order of the rows; DataError for a damaged file."""
    import pyarrow as pa

    try:
        for batch in TABLES[file.suffix.lower()].read(file, names, role):
            if missing := [name for name in names if name not in batch.schema.names]:
                raise UnknownName(f"column of {file.name}", missing[0], batch.schema.names)
            yield batch.select(names)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        text = " ".join(str(error).split())
        # The header is row 1 of pyarrow's.
        if found := re.search(r"Row #(\d+): CSV conversion error to \w+: invalid value '(.*)'", text):
            raise NotNumbers(f"{file}: {role} wants numbers, row {int(found[1]) - 2} has {found[2]!r}") from None
        if "changed from" in text:
            raise NotNumbers(f"{file}: {role} wants numbers in every row; {text}") from None
        raise DataError(f"{file} cannot be read: {text}") from None


def _schema(file: Path) -> Any:
    import pyarrow as pa

    try:
        return TABLES[file.suffix.lower()].schema(file)
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file} cannot be read: {' '.join(str(error).split())}") from None


def _parquet(file: Path, names: list[str], role: str) -> Iterator[Any]:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        yield from opened.iter_batches(_BLOCK_ROWS, columns=names)


def _parquet_schema(file: Path) -> Any:
    import pyarrow.parquet as pq

    with pq.ParquetFile(file) as opened:
        return opened.schema_arrow


def _ipc(file: Path, names: list[str], role: str) -> Iterator[Any]:
    import pyarrow as pa

    with pa.memory_map(str(file)) as mapped, pa.ipc.open_file(mapped) as opened:
        for i in range(opened.num_record_batches):
            batch = opened.get_batch(i)
            for start in range(0, batch.num_rows, _BLOCK_ROWS):
                yield batch.slice(start, _BLOCK_ROWS)


def _ipc_schema(file: Path) -> Any:
    import pyarrow as pa

    with pa.memory_map(str(file)) as mapped, pa.ipc.open_file(mapped) as opened:
        return opened.schema


def _csv(file: Path, names: list[str] | None, role: str) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    _refuse_semicolons(file)
    kind = pa.string() if role == "keys" else pa.int64() if role == "ids" else pa.float64()
    return csv.open_csv(
        file,
        # With threads pyarrow does not say which row is wrong.
        read_options=csv.ReadOptions(block_size=_BLOCK_BYTES, use_threads=False),
        parse_options=csv.ParseOptions(
            delimiter="\t" if file.suffix.lower() == ".tsv" else ",", newlines_in_values=True
        ),
        convert_options=csv.ConvertOptions(include_columns=names or [], column_types=dict.fromkeys(names or [], kind)),
    )


def _refuse_semicolons(file: Path) -> None:
    """DataError for what a spreadsheet writes where the comma stands in numbers."""
    if file.suffix.lower() != ".csv":
        return
    with file.open(encoding="latin-1") as opened:
        header = opened.readline()
    if "," not in header and ";" in header:
        raise DataError(
            f"{file} is separated by semicolons; save it with commas between columns, and with points in its numbers"
        )


def _csv_schema(file: Path) -> Any:
    with _csv(file, None, "") as opened:
        names = opened.schema.names
    if names != [str(i) for i in range(len(names))] and all(
        re.fullmatch(r"[-+]?[\d.]+(e[-+]?\d+)?", name) for name in names
    ):
        raise DataError(
            f"{file} has numbers where its header should be ({', '.join(names[:3])}); give its columns names"
        )
    if twice := [name for name in dict.fromkeys(names) if names.count(name) > 1]:
        raise DataError(f"{file} has {names.count(twice[0])} columns called {twice[0]!r}; give each a name of its own")
    if len(names) == 1:
        _refuse_gaps(file)
    return opened.schema


def _refuse_gaps(file: Path) -> None:
    """In a file of one column an empty line may be a missing value; left out, all rows behind it would move."""
    # latin-1 reads any bytes; what is no UTF-8 is refused elsewhere.
    with file.open(encoding="latin-1", newline="") as opened:
        records = plain_csv.reader(opened)
        next((record for record in records if record), None)
        empty = 0  # the last empty line seen
        for record in records:
            if record and empty:
                raise DataError(
                    f'{file}: line {empty} is empty, with rows behind it; write "" for a missing value, or remove the line'
                )
            empty = empty if record else records.line_num


def _jsonl(file: Path, names: list[str] | None, role: str) -> Iterator[Any]:
    """Blocks of whole lines, each parsed by pyarrow."""
    import pyarrow as pa
    import pyarrow.json as paj

    wanted = {"keys": pa.string(), "ids": pa.int64()}.get(role)
    schema = None if wanted is None or names is None else pa.schema([(name, wanted) for name in names])
    with file.open("rb") as opened:
        # readlines stops after the line that reaches the size: whole lines, about a block.
        while lines := opened.readlines(_BLOCK_BYTES):
            block = b"".join(lines)
            if block.strip():
                options = paj.ParseOptions(explicit_schema=schema)
                read = paj.ReadOptions(block_size=len(block) + 1)
                yield from paj.read_json(pa.BufferReader(block), read, options).to_batches()


def _jsonl_schema(file: Path) -> Any:
    import pyarrow as pa

    first = next(iter(_jsonl(file, None, "")), None)
    return pa.schema([]) if first is None else first.schema


def _buffered(write: Callable[[Any, Any], Any], table: Any) -> bytes:
    import pyarrow as pa

    sink = pa.BufferOutputStream()
    write(table, sink)
    return bytes(sink.getvalue().to_pybytes())


def _to_parquet(table: Any) -> bytes:
    import pyarrow.parquet as pq

    return _buffered(pq.write_table, table)


def _to_ipc(table: Any) -> bytes:
    from pyarrow import feather

    return _buffered(feather.write_feather, table)


def _to_csv(table: Any, delimiter: str = ",") -> bytes:
    from pyarrow import csv

    options = csv.WriteOptions(delimiter=delimiter, quoting_style="needed")
    return _buffered(lambda table, sink: csv.write_csv(table, sink, options), table)


def _to_jsonl(table: Any) -> bytes:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in table.to_pylist()).encode()


WRITERS: dict[str, Callable[[Any], bytes]] = {
    ".parquet": _to_parquet,
    ".csv": _to_csv,
    ".tsv": lambda table: _to_csv(table, "\t"),
    ".jsonl": _to_jsonl,
    ".arrow": _to_ipc,
    ".feather": _to_ipc,
}


@dataclass(frozen=True)
class _Table:
    """How one kind of table is read."""

    read: Callable[[Path, list[str], str], Iterable[Any]]
    schema: Callable[[Path], Any]


TABLES = {
    ".parquet": _Table(_parquet, _parquet_schema),
    ".arrow": _Table(_ipc, _ipc_schema),
    ".feather": _Table(_ipc, _ipc_schema),
    ".csv": _Table(_csv, _csv_schema),
    ".tsv": _Table(_csv, _csv_schema),
    ".jsonl": _Table(_jsonl, _jsonl_schema),
}
