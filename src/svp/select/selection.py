"""What was selected, in which order, why and from what: the portable record."""

import hashlib
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import BudgetError, DataError, require
from svp.select.table import Floats, Ints

FORMAT = "svp-selection"
FORMAT_VERSION = 2  # 2: classes by name, neighbors, with_similarity; what 1 has not is read as None


class DatasetLike(Protocol):
    """What a selection asks of a dataset."""

    @property
    def name(self) -> str: ...

    @property
    def labels(self) -> NDArray[np.int64] | None: ...

    @property
    def keys(self) -> tuple[str, ...] | None: ...

    @property
    def fingerprint(self) -> str: ...

    def positions(self, ids: ArrayLike, /) -> Ints: ...


@cache
def _version() -> str:
    from importlib import metadata

    try:
        return metadata.version("selection-via-proxy")
    except metadata.PackageNotFoundError:
        return "unknown"


@dataclass(frozen=True, eq=False)
class Selection:
    """Chosen examples in order: where the method allows, the first k are the selection for budget k.

    ids          (k,) int64 ids of the chosen examples, the first chosen first
    gains        (k,) the score of each, or what it added to the objective when it was chosen
    weights      (k,) how much each counts: 1, of every method here. For what chooses elsewhere and weighs; no training of ours
                 reads them, and `svp.coreset` refuses a selection in which they differ from 1
    method       a name of the table of methods, or "package.module:function"
    options      every option of the method, defaults too
    seed         what chance and ties were decided by, with tie_break
    sampler      how scored examples were chosen, where it was asked for; or None: the method's own way
    labels       (k,) class numbers, -1 where unknown; or None
    classes      names of all classes, by number, where labels were given as names; or None
    keys         (k,) the users' own names; or None
    nearest      (k,) id of the nearest example that was chosen or given before this one, -1 where none was; or None
    distances    (k,) how far that is, NaN where none was; or None
    stands_for   (k,) how many unchosen examples each is nearest to (`svp.stands_for`), -1 where unknown; or None
    fingerprint  of the dataset it was chosen from; or None
    per_class    the limits per class it was chosen under; or None
    with_costs   whether examples had costs
    with_similarity  whether a similarity matrix was given; else a method that wants one made it of embeddings
    neighbors    of how many of the most similar each example kept its similarity; None: of all
    inputs       the files it was chosen from, for each its path, size and SHA-256: by argument, or of a run the table `dataset`
    version      of svp
    """

    ids: Ints
    gains: Floats
    weights: Floats
    method: str
    options: dict[str, Any] = field(default_factory=dict)
    seed: int = 0
    tie_break: str = "hash"
    sampler: str | None = None
    labels: Ints | None = None
    classes: tuple[str, ...] | None = None
    keys: tuple[str, ...] | None = None
    nearest: Ints | None = None
    distances: Floats | None = None
    stands_for: Ints | None = None
    fingerprint: str | None = None
    per_class: dict[str, Any] | None = None
    with_costs: bool = False
    with_similarity: bool = False
    neighbors: int | None = None
    inputs: dict[str, Any] = field(default_factory=dict)
    version: str = field(default_factory=_version)

    def __post_init__(self) -> None:
        for name, values in self._columns().items():
            if values is not None and len(values) != len(self.ids):
                raise DataError(
                    f"A selection of {len(self.ids)} ids has {len(values)} {name}; it needs one of each per id"
                )

    def __len__(self) -> int:
        return len(self.ids)

    def head(self, k: int) -> Self:
        """The first k choices; how many others each stands for is another question for them, and left out."""
        if not 0 <= k <= len(self):
            raise BudgetError(f"The first {k} of a selection of {len(self)}: give 0 to {len(self)}")
        columns: dict[str, Any] = {
            name: None if column is None else column[:k] for name, column in self._columns().items()
        }
        return replace(self, **{**columns, "stands_for": None})

    def of(self, dataset: DatasetLike) -> Self:
        """The same choices with what `dataset` knows of them: keys, labels and its fingerprint."""
        pos = dataset.positions(self.ids)
        return replace(
            self,
            keys=None if dataset.keys is None else tuple(dataset.keys[i] for i in pos),
            labels=self.labels if dataset.labels is None else dataset.labels[pos],
            classes=self.classes if dataset.labels is None else None,
            fingerprint=dataset.fingerprint,
        )

    def verify(self, dataset: DatasetLike) -> None:
        """DataError unless the selection fits `dataset`: its fingerprint where one is known, and every id and key."""
        if self.fingerprint is not None and self.fingerprint != dataset.fingerprint:
            raise DataError(
                f"The selection was made from another state of the data than {dataset.name}: "
                f"fingerprint {self.fingerprint[:12]}, not {dataset.fingerprint[:12]}; select again, or load that data"
            )
        pos = dataset.positions(self.ids)
        if self.keys is not None and dataset.keys is not None:
            moved = [key for key, i in zip(self.keys, pos, strict=True) if dataset.keys[i] != key]
            if moved:
                raise DataError(
                    f"{dataset.name}: {len(moved)} ids have other keys than in the selection, the first: {moved[:3]}"
                )

    def subset(self, dataset: Any) -> Any:
        """The chosen examples, in the order chosen, as a `torch.utils.data.Subset` of `dataset`.

        dataset  a `svp.Dataset` (checked by `verify`; its items are pairs of input and class number), or anything with
                 `len` and items by number, ids being these numbers
        Raises DataError for ids that it has not, MissingExtra without torch.
        """
        data = require("torch", "torch").utils.data
        if hasattr(dataset, "positions"):
            self.verify(dataset)
            return data.Subset(dataset, dataset.positions(self.ids).tolist())
        if len(outside := self.ids[(self.ids < 0) | (self.ids >= len(dataset))]):
            raise DataError(
                f"{len(outside)} ids are not among the {len(dataset)} items, the first: {outside[:3].tolist()}; "
                "give the dataset that was chosen from"
            )
        return data.Subset(dataset, self.ids.tolist())

    def table(self) -> Any:
        """A pyarrow table with a row per choice.

        Columns: rank (from 0), id, gain (the score where the method scores), weight, and where known key, label, class (its
        name), nearest, distance, stands_for; null for what a row has not.
        """
        import pyarrow as pa

        columns: dict[str, Any] = {
            "rank": pa.array(np.arange(len(self))),
            "id": pa.array(self.ids),
            "gain": pa.array(self.gains, from_pandas=True),
            "weight": pa.array(self.weights),
        }
        if self.keys is not None:
            columns["key"] = pa.array(self.keys, pa.string())
        if self.labels is not None:
            columns["label"] = pa.array(self.labels, mask=self.labels < 0)
            if self.classes is not None:
                columns["class"] = pa.array([self.classes[c] if c >= 0 else None for c in self.labels], pa.string())
        if self.nearest is not None:
            columns["nearest"] = pa.array(self.nearest, mask=self.nearest < 0)
        if self.distances is not None:
            columns["distance"] = pa.array(self.distances, from_pandas=True)
        if self.stands_for is not None:
            columns["stands_for"] = pa.array(self.stands_for, mask=self.stands_for < 0)
        return pa.table(columns)

    def save(self, path: str | Path) -> None:
        """Write `table()` as a Parquet file, then its origin beside it as `<path>.json`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from svp.files import write_bytes

        path = Path(path)
        sink = pa.BufferOutputStream()
        pq.write_table(self.table(), sink)
        content = sink.getvalue().to_pybytes()
        origin = {
            "format": FORMAT,
            "format_version": FORMAT_VERSION,
            "method": self.method,
            "options": self.options,
            "seed": self.seed,
            "tie_break": self.tie_break,
            "sampler": self.sampler,
            "per_class": _with_keys(self.per_class, str),
            "with_costs": self.with_costs,
            "with_similarity": self.with_similarity,
            "neighbors": self.neighbors,
            "classes": self.classes,
            "n": len(self),
            "fingerprint": self.fingerprint,
            "inputs": self.inputs,
            "svp_version": self.version,
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        write_bytes(path, content)
        # Last: a file without its origin, or with that of an earlier one, is not taken for a selection.
        said = json.dumps(_plain(origin), indent=2, allow_nan=False, default=str)
        write_bytes(origin_path(path), (said + "\n").encode())

    @classmethod
    def load(cls, path: str | Path) -> Self:
        """Read what `save` wrote; DataError if it is missing, broken or of a version this svp does not know."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        path = Path(path)
        content, origin = _read(path), _read_origin(origin_path(path))
        if hashlib.sha256(content).hexdigest() != origin["sha256"]:
            raise DataError(
                f"{path} is not the file that {origin_path(path).name} describes: broken, or half saved; save it again"
            )
        try:
            table = pq.read_table(pa.BufferReader(content))
            read = {name: table.column(name) for name in table.column_names}
            classes = origin.get("classes")
            return cls(
                ids=read["id"].to_numpy(),
                gains=_floats(read["gain"]),
                weights=_floats(read["weight"]),
                method=origin["method"],
                options=_numbers(origin["options"]),
                seed=origin["seed"],
                tie_break=origin["tie_break"],
                sampler=origin.get("sampler"),
                labels=_ints(read["label"]) if "label" in read else None,
                keys=tuple(read["key"].to_pylist()) if "key" in read else None,
                nearest=_ints(read["nearest"]) if "nearest" in read else None,
                distances=_floats(read["distance"]) if "distance" in read else None,
                stands_for=_ints(read["stands_for"]) if "stands_for" in read else None,
                fingerprint=origin["fingerprint"],
                classes=None if classes is None else tuple(classes),
                per_class=_with_keys(origin.get("per_class"), str if classes else _class_number),
                with_costs=origin.get("with_costs", False),
                with_similarity=origin.get("with_similarity", False),
                neighbors=origin.get("neighbors"),
                inputs=origin.get("inputs", {}),
                version=origin["svp_version"],
            )
        except (pa.ArrowException, KeyError, ValueError) as error:
            raise DataError(f"{path} is no selection: {error}; save it again") from error

    def _columns(self) -> dict[str, Sequence[Any] | NDArray[Any] | None]:
        return {
            name: getattr(self, name)
            for name in ("ids", "gains", "weights", "labels", "keys", "nearest", "distances", "stands_for")
        }


def origin_path(path: Path) -> Path:
    """Where the origin of a saved selection stands: `picks.parquet.json` beside `picks.parquet`."""
    return path.with_name(path.name + ".json")


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        reason = "does not exist" if isinstance(error, FileNotFoundError) else f"cannot be read: {error.strerror}"
        raise DataError(
            f"{path} {reason}; a selection is a Parquet file with its origin beside it, <name>.json"
        ) from error


def _read_origin(path: Path) -> dict[str, Any]:
    try:
        origin = json.loads(_read(path))
    except ValueError as error:
        raise DataError(f"{path} is not JSON: {error}; save the selection again") from error
    if not isinstance(origin, dict) or origin.get("format") != FORMAT:
        raise DataError(f"{path} is not the origin of a selection; save the selection again")
    if origin.get("format_version") not in range(1, FORMAT_VERSION + 1):
        raise DataError(
            f"{path} has format version {origin.get('format_version')}, this svp reads up to {FORMAT_VERSION}; "
            "install the svp that wrote it"
        )
    expected = ("method", "options", "seed", "tie_break", "fingerprint", "svp_version", "sha256")
    if missing := [name for name in expected if name not in origin]:
        raise DataError(f"{path} lacks {', '.join(missing)}; save the selection again")
    return origin


def _plain(value: Any) -> Any:
    """What JSON has no word for: numbers and arrays of numpy as plain ones, what is not finite as text."""
    if isinstance(value, (np.generic, np.ndarray)):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {name: _plain(each) for name, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(each) for each in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value


def _numbers(value: Any) -> Any:
    """Numbers that are not finite, which `_plain` has made text."""
    if isinstance(value, dict):
        return {name: _numbers(each) for name, each in value.items()}
    if isinstance(value, list):
        return [_numbers(each) for each in value]
    return float(value) if value in ("inf", "-inf", "nan") else value


def _with_keys(limits: Any, key: Callable[[Any], Any]) -> Any:
    """Limits per class with other keys: JSON has only words for them, `select` wants numbers for classes."""
    if not isinstance(limits, Mapping):
        return limits
    return {key(name): _with_keys(value, key) for name, value in limits.items()}


def _class_number(word: str) -> Any:
    return int(word) if word.isdecimal() else word


def _ints(column: Any) -> Ints:
    return np.asarray(column.fill_null(-1).to_numpy(), np.int64)


def _floats(column: Any) -> Floats:
    return np.asarray(column.to_numpy(), np.float64)
