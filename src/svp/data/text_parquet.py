"""Rows of .parquet: columns of strings, of bytes, or of numbers."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from svp.data.text_rows import Block, Columns, Problems
from svp.errors import DataError

_BLOCK_ROWS = 8192


def names(file: Path, columns: Columns) -> list[str]:
    """The columns of the schema."""
    import pyarrow.parquet as pq

    return list(pq.read_schema(file).names)


def blocks(file: Path, columns: Columns, problems: Problems, progress: Callable[[float], object]) -> Iterator[Block]:
    """Rows as they stand in a file."""
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


def size(file: Path) -> int:
    """Bytes of all columns, unpacked."""
    import pyarrow.parquet as pq

    metadata = pq.read_metadata(file)
    return sum(metadata.row_group(i).total_byte_size for i in range(metadata.num_row_groups))
