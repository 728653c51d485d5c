"""Images as bytes in Parquet: one file, or a folder of shards, as the Hugging Face hub and many others keep them."""

import json
import os
from collections.abc import Callable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.data import decode
from svp.data.base import TEST_SHARE, Dataset, OnError, Progress
from svp.data.photos import IMAGE_SIZE, Files, dataset_of, some
from svp.data.pixels import stamp
from svp.data.shards import divided, known_by
from svp.errors import DataError, SettingError

IMAGES = ("image", "img", "jpg", "png", "bytes")  # how columns of images are called, and those of labels
LABELS = ("label", "labels", "class", "target", "fine_label")


def load(
    source: str | os.PathLike[str],
    image_size: int = IMAGE_SIZE,
    short_side: int | None = None,
    image_column: str | None = None,
    label_column: str | None = None,
    on_error: OnError = "refuse",
    test_share: float = TEST_SHARE,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """A dataset from the rows of a Parquet file, or of a folder of them (those in data/ and in folders below are found).

    image_column  of bytes, or of structures {bytes, path}; default: image, img, jpg, png or bytes
    label_column  of class numbers or names; default: label, labels, class, target or fine_label. The names of numbers are
                  taken from the Hugging Face metadata of the file where there are any

    Shards are divided by how their name or folder begins (train-00000-of-00008.parquet, test/0.parquet; training and testing are
    the same): the first of test, validation, valid, val and dev with labels (no row below 0) is the test part; else
    test_share of each class is held out.
    ids are row numbers through the training part's shards in order of their path's bytes; keys are SHARD:ROW.
    The other arguments, errors and costs are those of `images.load`; a row group is held in memory at a time.
    """
    source = Path(source)
    train, tests = divided(source, (".parquet",))
    shards = train, next((part for part in tests if _is_labelled(part, label_column)), [])
    columns = [_columns(shard, image_column, label_column) for shard in shards[0] + shards[1]]
    if other := next((c for c in columns if c[:2] != columns[0][:2] or c[2] != columns[0][2]), None):
        raise DataError(f"{source}: its shards differ in their columns or names of classes: {columns[0]}, {other}")
    image, label, names = columns[0]
    labels = [[_labels(shard, label) for shard in part] for part in shards]
    classes = names or _classes([values for part in labels for values in part])
    parts = tuple(
        _files(source, image, some_shards, values, classes) for some_shards, values in zip(shards, labels, strict=True)
    )
    files, test = parts
    if not shards[1]:
        files, test = files.divided(test_share)
    elif test_share != TEST_SHARE:
        raise SettingError(f"{source}: test_share (--test-share) means nothing here; it has shards of a test part")
    rows = _Rows(image, shards[0] + shards[1])
    wheres = [*files.ids.tolist(), *(test.ids if not shards[1] else test.ids + len(files.ids)).tolist()]
    return dataset_of(
        source,
        (files, test),
        classes,
        lambda positions: [rows[wheres[i]] for i in positions],
        image_size=image_size,
        short_side=short_side,
        on_error=on_error,
        cache=cache,
        progress=progress,
    )


def is_source(path: Path) -> bool:
    """Whether a path is a Parquet file, or a folder of them."""
    if path.is_dir():
        return bool(known_by(path, (".parquet",)))
    return path.suffix.lower() == ".parquet"


def is_labelled(source: Path, label_column: str | None = None) -> bool:
    """Whether its training part has a column of labels, and none below 0."""
    train, _ = divided(source, (".parquet",))
    named = label_column is not None or not set(LABELS).isdisjoint(_schema(train[0]).names)
    return named and _is_labelled(train, label_column)


def unsorted(
    source: Path, image_column: str | None, *, tested: bool
) -> tuple[Files, Callable[[list[int]], list[decode.Item]]]:
    """The rows of the training part, or where they are to be `tested` of a test part, as of one class; and what reads them."""
    train, tests = divided(source, (".parquet",))
    shards = tests[0] if tested and tests else train
    image = _images(shards[0], image_column)
    files = _files(source, image, shards, [np.zeros(_n_rows(shard), np.int64) for shard in shards], ("images",))
    rows = _Rows(image, shards)
    return files, lambda positions: [rows[i] for i in positions]


# --- shards and their columns


def _is_labelled(shards: list[Path], label: str | None) -> bool:
    """Whether no label is below 0, as they are where nobody may know them."""
    for shard in shards:
        values = _labels(shard, _column(shard, _schema(shard).names, label, LABELS, "labels"))
        if values.dtype.kind in "iu" and (values < 0).any():
            return False
    return True


def _columns(shard: Path, image: str | None, label: str | None) -> tuple[str, str, tuple[str, ...]]:
    """The columns of images and of labels, and the names of the classes, if the file has any."""
    schema, image = _schema(shard), _images(shard, image)
    label = _column(shard, schema.names, label, LABELS, "labels")
    return image, label, names_of_classes(schema, label)


def _images(shard: Path, image: str | None) -> str:
    """The column of images."""
    schema = _schema(shard)
    image = _column(shard, schema.names, image, IMAGES, "images")
    kind = schema.field(image).type
    fields = {kind.field(i).name for i in range(kind.num_fields)}
    if "binary" not in str(kind) or (fields and "bytes" not in fields):
        raise DataError(
            f"{shard}: column {image} holds {kind}, not the bytes of image files; name another (--image-column)"
        )
    return image


def names_of_classes(schema: Any, label: str) -> tuple[str, ...]:
    """What the Hugging Face metadata of a Parquet file call the classes, if there are any."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(features[label]["names"])
    except (KeyError, TypeError, ValueError):  # nobody has to write any
        return ()


def _column(shard: Path, names: Sequence[str], given: str | None, usual: Sequence[str], what: str) -> str:
    flag = {"images": "image_column (--image-column)", "labels": "label_column (--label-column)"}[what]
    if given is not None and given not in names:
        raise DataError(f"{shard} has no column {given!r}; it has {', '.join(names)}")
    found = given or next((name for name in usual if name in names), None)
    if found is None:
        raise DataError(
            f"{shard} has no column of {what} called {', '.join(usual)}; name one of {', '.join(names)} with {flag}"
        )
    return found


def _n_rows(shard: Path) -> int:
    with _open(shard) as file:
        return int(file.metadata.num_rows)


def _schema(shard: Path) -> Any:
    with _open(shard) as file:
        return file.schema_arrow


def _open(shard: Path) -> Any:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return pq.ParquetFile(shard)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shard} cannot be read: {' '.join(str(error).split())}") from error


def _labels(shard: Path, column: str) -> NDArray[Any]:
    """(n,) numbers or names."""
    import pyarrow as pa

    try:
        with _open(shard) as file:
            values = file.read(columns=[column]).column(column)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shard} cannot be read: {' '.join(str(error).split())}") from error
    if values.null_count:
        raise DataError(f"{shard}: {values.null_count} rows have no {column}; remove them")
    if pa.types.is_integer(values.type):
        return np.asarray(values.to_numpy(), np.int64)
    if pa.types.is_dictionary(values.type) or pa.types.is_string(values.type) or pa.types.is_large_string(values.type):
        return np.array(values.to_pylist(), np.str_)
    raise DataError(f"{shard}: column {column} holds {values.type}; labels are whole numbers or names (--label-column)")


def _classes(labels: list[NDArray[Any]]) -> tuple[str, ...]:
    """Names in order, or numbers in words."""
    if labels[0].dtype.kind == "U":
        return tuple(np.unique(np.concatenate(labels)).tolist())
    return tuple(str(i) for i in range(max((int(values.max()) + 1 for values in labels if len(values)), default=0)))


def _files(source: Path, image: str, shards: list[Path], labels: list[NDArray[Any]], classes: tuple[str, ...]) -> Files:
    numbers: list[int] = []
    keys: list[str] = []
    stamps: list[bytes] = []
    known = {name: i for i, name in enumerate(classes)}
    for shard, values in zip(shards, labels, strict=True):
        of_names = values.dtype.kind == "U"
        if of_names and (unknown := sorted(set(values.tolist()) - set(known))):
            raise DataError(f"{shard} has classes that the names of the file lack: {some(unknown)}")
        if not of_names and len(values) and not 0 <= values.min() <= values.max() < len(classes):
            raise DataError(
                f"{shard} has labels from {values.min()} to {values.max()}, and {len(classes)} classes are named"
            )
        numbers += [known[name] for name in values.tolist()] if of_names else values.tolist()
        name, facts = shard.relative_to(source).as_posix() if shard != source else shard.name, shard.stat()
        beside = _beside(shard, image)
        keys += [f"{name}:{row}" for row in range(len(values))]
        stamps += [
            stamp(f"{name}:{image}", facts.st_size, facts.st_mtime_ns, row, *beside.get(row, ()))
            for row in range(len(values))
        ]
    return Files(np.arange(len(numbers)), np.array(numbers, np.int64), tuple(keys), tuple(stamps), {})


def _beside(shard: Path, image: str) -> dict[int, tuple[int, int]]:
    """By row, size and time of change of the file beside a shard that its path names, where not every row brings its bytes."""
    import pyarrow as pa

    try:
        with _open(shard) as file:
            kind = file.schema_arrow.field(image).type
            if not pa.types.is_struct(kind) or kind.get_field_index("path") < 0 or _all_given(file, f"{image}.bytes"):
                return {}
            images = file.read(columns=[f"{image}.path"]).column(image).combine_chunks()
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{shard} cannot be read: {' '.join(str(error).split())}") from error
    found = {}
    for row, path in enumerate(images.field("path").to_pylist()):
        if path and (shard.parent / path).is_file():
            facts = (shard.parent / path).stat()
            found[row] = facts.st_size, facts.st_mtime_ns
    return found


def _all_given(file: Any, leaf: str) -> bool:
    """Whether the statistics of a file say that no row lacks a value in this column."""
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    columns = [group.column(i) for group in groups for i in range(group.num_columns)]
    facts = [column.statistics for column in columns if column.path_in_schema == leaf]
    return all(of is not None and of.has_null_count and of.null_count == 0 for of in facts)


# --- rows


class _Rows:
    """The image files in a column, by row through all shards; they are read in order, a row group at a time."""

    def __init__(self, column: str, shards: list[Path]) -> None:
        self._column = column
        self._groups: list[tuple[Path, int]] = []
        starts = [0]
        for shard in shards:
            with _open(shard) as file:
                for group in range(file.num_row_groups):
                    self._groups.append((shard, group))
                    starts.append(starts[-1] + file.metadata.row_group(group).num_rows)
        self._starts = np.array(starts)
        self._group = lru_cache(maxsize=1)(self._read)

    def __getitem__(self, row: int) -> decode.Item:
        group = int(np.searchsorted(self._starts, row, side="right")) - 1
        value = self._group(group)[row - int(self._starts[group])].as_py()
        if isinstance(value, dict):
            path = value.get("path")
            value = value["bytes"]
            if value is None and path:  # a file that lies beside its shard
                return str(self._groups[group][0].parent / path)
        return value or b""  # nothing is no image

    def _read(self, group: int) -> Any:
        import pyarrow as pa

        shard, number = self._groups[group]
        try:
            with _open(shard) as file:
                return file.read_row_group(number, columns=[self._column]).column(self._column).combine_chunks()
        except (pa.ArrowException, OSError) as error:
            raise DataError(f"{shard} cannot be read: {' '.join(str(error).split())}") from error
