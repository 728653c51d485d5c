"""What a trained model is asked about: a dataset, a path, a name or an array, made a dataset of the kind it was trained on."""

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svp.columns import NAMES, Source, read_labels, read_names
from svp.columns import read_array as read_column
from svp.config import DataConfig
from svp.data import load_test, parquet, takes, unlabelled
from svp.data.base import Dataset, as_inputs, check_memory
from svp.data.images import SHORT_SIDES
from svp.data.images import SUFFIXES as IMAGES
from svp.data.shards import known_by
from svp.data.text import LABELS
from svp.data.text_files import SUFFIXES, names_of
from svp.errors import DataError
from svp.exchange.items import word
from svp.files import Json, read_array
from svp.tables import TABLES
from svp.workflows.features import MEMORY
from svp.workflows.outcomes import Show

_LOOKED_AT = 1 << 14  # rows of an array that are checked at a time
_HELD = 5  # bytes of a number that is made float32, and looked at whether it is finite


@dataclass(frozen=True)
class Kind:
    """What one example is: the shape and type of an array of numbers; of a text () and "object"."""

    shape: tuple[int, ...]
    dtype: str

    @classmethod
    def of(cls, dataset: Dataset) -> Self:
        return cls(tuple(dataset.inputs.shape[1:]), dataset.inputs.dtype.name)

    @classmethod
    def known(cls, facts: Json) -> Self:
        """What `facts` gave."""
        return cls(tuple(facts["shape"]), facts["dtype"])

    def facts(self) -> Json:
        return {"shape": list(self.shape), "dtype": self.dtype}

    @property
    def is_text(self) -> bool:
        return self.dtype == "object"

    @property
    def size(self) -> int | None:
        """The side in pixels of square images; else None."""
        return self.shape[0] if len(self.shape) == 3 and self.shape[0] == self.shape[1] else None

    def __str__(self) -> str:
        if self.is_text:
            return "texts"
        if len(self.shape) == 1:
            return f"rows of {self.shape[0]:,} numbers ({self.dtype})"
        if len(self.shape) == 3:
            height, width, channels = self.shape
            return f"images of {height} x {width} pixels in {channels} channel{'s' * (channels > 1)} ({self.dtype})"
        return f"arrays of shape {self.shape} ({self.dtype})"

    def like(self, classes: Sequence[str], statistics: Any = None) -> Dataset:
        """A dataset of this kind without a row, for a model to be made for.

        statistics  mean and deviation of the inputs that the model is to take
        """
        inputs = np.zeros((0, *self.shape), self.dtype)
        made = Dataset("its training data", inputs, None, tuple(classes), np.zeros(0, np.int64))
        if statistics is not None:  # where the property keeps those of all rows
            vars(made)["statistics"] = tuple(np.asarray(values, np.float64) for values in statistics)
        return made


def facts_of(dataset: Dataset, *, embedded: bool) -> Json:
    """What the done-mark of a training keeps of its examples, so that the model can be used where these are not.

    embedded  it sees features that a net of ours makes, and that may take from the inputs the mean and deviation of all
    """
    statistics = {"statistics": [values.tolist() for values in dataset.statistics]} if embedded else {}
    return {"classes": list(dataset.classes), "takes": Kind.of(dataset).facts(), **statistics}


@dataclass(frozen=True)
class Reading:
    """How new files are read, where that is not said by those of the training; as in `svp.load_dataset`.

    labels  whether folders of photos and a column of labels count as classes
    """

    labels: bool = True
    image_column: str | None = None
    text_column: tuple[str, ...] = ()
    label_column: str | None = None
    encoding: str | None = None
    quotes: bool | None = None
    on_error: str | None = None
    cache: Path | None = None


def as_dataset(data: Any, kind: Kind, config: DataConfig, reading: Reading, show: Show) -> Dataset:
    """The examples that are meant, with their labels where they have any.

    kind, config  what the model was trained on, and how that was read
    """
    if isinstance(data, Dataset):
        return data if reading.labels else data.without_labels()
    if isinstance(data, str | os.PathLike):
        return _read(os.fspath(data), kind, config, reading, show)
    return _of_array(data, "the array given")


def labels_in(dataset: Dataset, classes: Sequence[str]) -> NDArray[np.int64] | None:
    """(n,) the labels as numbers of `classes`; None where there are none. DataError for a class that is none of these."""
    if dataset.labels is None:
        return None
    used = np.unique(dataset.labels).tolist()
    if strange := [dataset.classes[c] for c in used if dataset.classes[c] not in classes]:
        known = ", ".join(classes[:20]) + (" ..." if len(classes) > 20 else "")
        raise DataError(
            f"{dataset.name} has the class {strange[0]!r}, which the model does not know ({known}); rename or remove it, or "
            "ask without labels (svp predict --no-labels, labels=False)"
        )
    number = {name: c for c, name in enumerate(classes)}
    return np.array([number.get(name, -1) for name in dataset.classes], np.int64)[dataset.labels]


# --- arrays and tables of numbers ---------------------------------------------------------------------------------------


def _of_array(array: Any, name: str) -> Dataset:
    """Examples by the number of their row. What is mapped from a file stays there."""
    if not (isinstance(array, np.memmap) and array.dtype in (np.uint8, np.float32) and array.ndim > 1):
        if isinstance(array, np.memmap):
            check_memory(_HELD * array.size, name)
        return Dataset.from_arrays(array, name=name)
    for start in range(0, len(array), _LOOKED_AT):
        as_inputs(array[start : start + _LOOKED_AT], f"{name}, from row {start:,} on")
    inputs = array[..., None] if array.ndim == 3 and array.dtype == np.uint8 else array
    return Dataset(name, inputs, None, (), np.arange(len(array)))


def _of_table(name: str, *, labels: bool) -> Dataset:
    """Rows of numbers, with their keys and, if wanted, labels where the table has such columns."""
    source = Source.of(name)
    numbers = read_column(source, "embeddings", MEMORY)
    check_memory(_HELD * numbers.size, str(source.path))
    columns = {name.lower(): name for name in source.column_names()}
    named = {role: [columns[name] for name in NAMES[role] if name in columns][:1] for role in ("ids", "labels")}
    keys = [read_names(replace(source, columns=name), MEMORY, "keys").to_pylist() for name in named["ids"]]
    words = [_words(replace(source, columns=name)) for name in named["labels"] if labels]
    classes = sorted(set(words[0])) if words and words[0] else None
    return Dataset.from_arrays(
        np.asarray(numbers, np.float32),
        None if classes is None else np.searchsorted(classes, words[0]),
        classes=classes,
        keys=keys[0] if keys else None,
        name=source.path.stem,
    )


def _words(source: Source) -> list[str]:
    """The labels in words; none where no row has one. DataError where some have, and others not."""
    words = ["" if value == -1 else word(value) for value in read_labels(source, MEMORY).tolist()]
    lacking = [row for row, said in enumerate(words) if not said]
    if 0 < len(lacking) < len(words):
        raise DataError(
            f"{source.path}: {len(lacking):,} of {len(words):,} rows have no {source.columns}, the first: {lacking[:3]}; fill "
            "them in, or ask without labels (svp predict --no-labels, labels=False)"
        )
    return [] if lacking else words


# --- files ----------------------------------------------------------------------------------------------------------------


def _read(name: str, kind: Kind, config: DataConfig, reading: Reading, show: Show) -> Dataset:
    name = os.path.expanduser(name)
    path = Path(name)
    if path.suffix.lower() == ".npy" and path.is_file():
        return _of_array(read_array(path), path.name)
    left = Path(name.rpartition(":")[0])
    table = path if path.is_file() else left if left.is_file() else None
    if table is not None and len(kind.shape) == 1 and table.suffix.lower() in TABLES:
        return _of_table(name, labels=reading.labels)
    config = _settings(name, kind, config, reading)
    if reading.labels and (labelled := _labelled(path, config, said=reading.label_column is not None)) is not None:
        return load_test(labelled, show)
    return unlabelled.load(config.model_copy(update={"label_column": None}), (), show, tested=True)


def _settings(name: str, kind: Kind, config: DataConfig, reading: Reading) -> DataConfig:
    """How this source is read: as the training data were, where nobody says another way, in what means something to it."""
    own: Json = {
        "image_size": kind.size,
        "short_side": config.short_side or SHORT_SIDES.get((config.dataset, kind.size or 0)),
        "image_column": reading.image_column or config.image_column,
        "text_column": config.text_column,
        "encoding": config.encoding,
        "quotes": config.quotes,
        "label_column": config.label_column,
        "on_error": config.on_error,
        "cache": config.cache,
    }
    if kind.is_text:
        own |= {"image_size": None, "short_side": None, "image_column": None}
    # A column of images makes images of a table that holds texts, too.
    given = {"image_column": own["image_column"]} if own["image_column"] else {}
    meant = {option: value for option, value in own.items() if value not in (None, ()) and takes(name, option, given)}
    if config.data is not None and takes(name, "root"):
        meant["data"] = config.data
    said = {
        option: value for option, value in asdict(reading).items() if option != "labels" and value not in (None, ())
    }
    return DataConfig.make({"dataset": name, **meant, **said})


def _labelled(path: Path, config: DataConfig, *, said: bool) -> DataConfig | None:
    """How to read it with its labels; None where it has none: no class folders, or photos beside them; no column of labels.

    said  somebody has named the column for this source. Of other sources it is found out when they are read.
    """
    if not path.exists():
        return config  # a name, or what is refused where it is read
    texts = unlabelled.are_texts(config)
    if texts or parquet.is_source(path):
        file = path if path.is_file() else known_by(path, SUFFIXES)[0]
        names = names_of(file, config.encoding, config.quotes)
        column = config.label_column
        if said or column in names or (column is not None and column.isdecimal()):
            return config
        usual = any(name.strip().lower() in (LABELS if texts else parquet.LABELS) for name in names)
        return config.model_copy(update={"label_column": None}) if usual else None
    if path.is_dir():
        seen = [entry for entry in path.iterdir() if not entry.name.startswith(".")]
        loose = any(entry.suffix.lower() in IMAGES and entry.is_file() for entry in seen)
        return config if any(entry.is_dir() for entry in seen) and not loose else None
    return config
