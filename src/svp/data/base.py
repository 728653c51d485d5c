"""What a dataset is: raw inputs with ids, and perhaps labels. No model, no split but train and test.

Inputs are arrays of numbers, or texts: then `inputs` is one-dimensional, (n,), of dtype object, and `inputs[positions]` (or a
slice) is an array of `str`. It is such an array in memory, or a `Texts`, which reads from disk what it is asked for: whoever
works through many texts takes them in blocks. `Dataset.is_text` tells.
"""

import hashlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp import chance
from svp.data.texts import Texts, as_texts, digest_of
from svp.errors import DataError, SettingError

Augmentation = Literal["none", "crop", "crop_flip", "resized_crop_flip"]
OnError = Literal["refuse", "skip"]
Progress = Callable[[str, int, int], object]  # (what is being done, how much is done, of how much)

TEST_SHARE = 0.2  # how much of each class is held out, unless told otherwise
_HOLD_OUT_SEED = 0  # a held-out test part belongs to the dataset: no run's seed changes it
_FILE_CACHE = ("inactive_file ", "active_file ")  # counted as used by a container, and given back when asked for
# Limit, use and facts of the memory of a container, by cgroups of version 2 and of version 1.
_CONTAINER = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


def silent(what: str, done: int, total: int, note: str = "") -> None:
    """Show nothing."""


@dataclass(frozen=True, eq=False)
class Facts:
    """What is known of images without reading them: SHA-256 of their bytes, (c,) mean and deviation of their channels."""

    sha256: str
    mean: NDArray[np.float64]
    deviation: NDArray[np.float64]


class MappedImages(np.memmap[Any, np.dtype[np.uint8]]):
    """(n, h, w, c) bytes on disk, and what is known of all of them; what is chosen of them is an array in memory."""

    facts: Facts | None = None

    def __getitem__(self, index: Any) -> Any:
        chosen = super().__getitem__(index)
        in_memory = isinstance(chosen, MappedImages) and chosen._mmap is None  # type: ignore[attr-defined]
        return chosen.view(np.ndarray) if in_memory else chosen

    def __array_wrap__(self, array: Any, *more: Any) -> Any:
        """What is computed of images is a plain array, or a number."""
        plain = np.asarray(array)
        return plain if plain.ndim else plain[()]


def facts_of(images: NDArray[np.uint8]) -> Facts:
    """Time: two passes over the images; memory: a block of them."""
    digest = hashlib.sha256()
    for block in _blocks(images):
        digest.update(np.ascontiguousarray(block).data)
    return Facts(digest.hexdigest(), *_moments(images))


@dataclass(frozen=True, eq=False)
class Dataset:
    """Examples by id.

    name          what reports call it
    inputs        (n, ...) raw values, one row per example: uint8 images (n, h, w, c), float rows (n, d), or texts (n,)
    labels        (n,) int64 class numbers, or None where nothing is labelled
    classes       the name of each class number
    ids           (n,) int64, ascending; the row number unless the source says otherwise, and not always without gaps
    keys          the users' own name of each row (a path, a row key), or None: then the id in words
    test          the held-out examples, read once at the end; or None
    augmentation  what training may do to these inputs unless it is told otherwise
    problems      what was left out when the source was read, with its reason (an example each, or files or rows of one kind), or
                  stands out: texts that come twice
    cache         folder for what is made of texts; None: the usual one
    """

    name: str
    inputs: NDArray[Any]
    labels: NDArray[np.int64] | None
    classes: tuple[str, ...]
    ids: NDArray[np.int64]
    keys: tuple[str, ...] | None = None
    test: "Dataset | None" = None
    augmentation: Augmentation = "none"
    problems: tuple[str, ...] = field(default=(), repr=False)
    cache: Path | None = field(default=None, repr=False)

    @classmethod
    def from_arrays(
        cls,
        inputs: ArrayLike,
        labels: ArrayLike | None = None,
        *,
        classes: Sequence[str] | None = None,
        ids: ArrayLike | None = None,
        keys: Sequence[str] | None = None,
        test: tuple[ArrayLike, ArrayLike] | None = None,
        name: str = "arrays",
        augmentation: Augmentation = "none",
    ) -> Self:
        """A dataset from arrays in memory: `Dataset.from_arrays(X, y, test=(X_test, y_test))`.

        inputs  (n, ...) uint8 or finite floats; numbers of other widths become float32; grey images (n, h, w) of uint8
                become (n, h, w, 1). Or (n,) texts: a list or an array of str
        labels  (n,) class numbers 0 .. c-1, or names: of `classes`, else numbered in the order of the alphabet; or None
        test    inputs and labels of the test part
        ids     (n,) distinct integers >= 0; default: the row numbers. Rows are kept in ascending order of id
        keys    (n,) distinct names
        Raises DataError naming what does not fit. Time and memory: one pass; uint8 and float32 inputs are not copied.
        """
        name = printable(name)
        if test is not None and not (isinstance(test, tuple | list) and len(test) == 2):
            raise DataError(f"{name}: test is a {type(test).__name__}; give a pair, (inputs, labels)")
        if isinstance(classes, str):
            raise DataError(f"{name}: classes is the text {classes!r}; give a list of names")
        x = as_inputs(inputs, name)
        order, row_ids = _as_ids(ids, len(x), name)
        (labels, labels_test), classes = _numbered([labels, None if test is None else test[1]], classes, name)
        y = None if labels is None else as_labels(labels, len(x), name)
        row_keys = None if keys is None else _as_keys(keys, len(x), name)
        x_test, y_test = None, None
        if test is not None:
            x_test = as_inputs(test[0], f"{name} (test)")
            if x_test.shape[1:] != x.shape[1:]:
                raise DataError(
                    f"{name}: inputs are {x.shape[1:]} each, test inputs {x_test.shape[1:]}; they must agree"
                )
            if x_test.dtype != x.dtype:
                raise DataError(
                    f"{name}: test inputs are {x_test.dtype}, train inputs {x.dtype}; give both as uint8 or both as floats"
                )
            y_test = as_labels(labels_test, len(x_test), f"{name} (test)")
        named = _as_classes(classes, [part for part in (y, y_test) if part is not None], name)
        test_part = None
        if x_test is not None:
            test_part = cls(f"{name} (test)", x_test, y_test, named, np.arange(len(x_test)))
        if order is not None:
            x, y = x[order], None if y is None else y[order]
            row_keys = None if row_keys is None else tuple(row_keys[i] for i in order)
        return cls(name, x, y, named, row_ids, row_keys, test_part, augmentation)

    def __len__(self) -> int:
        return len(self.ids)

    def __getitem__(self, pos: int) -> tuple[NDArray[Any], int]:
        """The input at one position and its class number, -1 where there is none: what torch calls a map-style dataset."""
        return self.inputs[pos], -1 if self.labels is None else int(self.labels[pos])

    @property
    def is_text(self) -> bool:
        """Whether the inputs are texts, (n,) of `str`; they have no `statistics`."""
        return self.inputs.dtype == object

    def positions(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Rows of this dataset that hold `ids`: the one place where ids become positions. Time: m log n."""
        wanted = np.asarray(ids, np.int64)
        if not len(self.ids):
            pos = np.zeros(len(wanted), np.int64)
            found = np.zeros(len(wanted), bool)
        else:
            pos = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
            found = self.ids[pos] == wanted
        if not found.all():
            missing = wanted[~found]
            raise DataError(f"{self.name}: {len(missing)} ids are not in the dataset, first {missing[:3].tolist()}")
        return pos

    def key(self, id_: int) -> str:
        """The users' name of one example."""
        return str(id_) if self.keys is None else self.keys[int(self.positions([id_])[0])]

    def without_labels(self) -> Self:
        """The same examples with nothing to peek at: what an active-learning session is given."""
        return self if self.labels is None else replace(self, labels=None)

    @cached_property
    def statistics(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """(c,) mean and standard deviation of the inputs along their last axis (channels, or numbers of a row).

        Time: one pass, in whole numbers for bytes and in float64 for floats, or none for images whose source knows them; memory:
        a block of rows. Raises SettingError for texts.
        """
        if self.is_text:
            raise SettingError(
                f"{self.name} holds texts, which have no mean and deviation; choose a model for texts (svp list models)"
            )
        if isinstance(self.inputs, MappedImages) and self.inputs.facts is not None:
            return self.inputs.facts.mean, self.inputs.facts.deviation
        return _moments(self.inputs)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of all that a result depends on: inputs, labels, classes, ids, keys, augmentation, and the test part.

        The name, the cache, and what could not be read, are no part of it. Mapped images count with the digest that their
        source knows. Time: one pass over the data, but for those, and for texts on disk.
        """
        digest = hashlib.sha256()
        for part in (self, self.test):
            if part is None:
                continue
            facts = (part.labels is not None, part.classes, part.keys, part.augmentation)
            digest.update(f"{facts!r}".encode())
            for array in (part.inputs, part.ids, part.labels):
                if array is not None:
                    digest.update(f"{array.shape}{array.dtype.str}".encode())
                    digest.update(part.texts_digest if array.dtype == object else _content(array))
        return digest.hexdigest()

    @cached_property
    def texts_digest(self) -> bytes:
        """SHA-256 of the texts in order, by which what was made of them is found again. Time: a pass over them."""
        return digest_of(self.inputs)


def _content(array: NDArray[Any]) -> Any:
    """The bytes that an array of numbers holds, or a digest of them."""
    known = array.facts if isinstance(array, MappedImages) else None
    return np.ascontiguousarray(array).data if known is None else known.sha256.encode()


def _moments(inputs: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(c,) mean and standard deviation along the last axis."""
    n_channels = inputs.shape[-1]
    total, squares, count = np.zeros(n_channels), np.zeros(n_channels), inputs.size // n_channels
    for block in _blocks(inputs):
        for part in _sums_of_bytes(block) if block.dtype == np.uint8 else _sums_of_floats(block):
            total += part[0]
            squares += part[1]
    mean = total / max(count, 1)
    return mean, np.sqrt(np.maximum(squares / max(count, 1) - mean**2, 0))


def _sums_of_bytes(block: NDArray[np.uint8]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    """(c,) sums and sums of squares, exact: down long columns, which is fast; 4,096 squares of bytes stay under 2**32."""
    n_channels, rows = block.shape[-1], block.reshape(len(block), -1)
    width = n_channels * max(1, (1 << 22) // (n_channels * len(rows)))
    for start in range(0, rows.shape[1], width):
        part = rows[:, start : start + width]
        sums = part.sum(axis=0, dtype=np.uint32), np.square(part, dtype=np.uint16).sum(axis=0, dtype=np.uint32)
        yield sums[0].reshape(-1, n_channels).sum(axis=0), sums[1].reshape(-1, n_channels).sum(axis=0, dtype=np.uint64)


def _sums_of_floats(block: NDArray[Any]) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
    columns = block.reshape(-1, block.shape[-1]).astype(np.float64)
    yield columns.sum(axis=0), np.square(columns).sum(axis=0)


def _blocks(inputs: NDArray[Any]) -> Iterator[NDArray[Any]]:
    """Blocks of rows: 4,096 of them, fewer of images: a block stays under 32 MiB, of floats as float64."""
    n_bytes = math.prod(inputs.shape[1:]) * (1 if inputs.dtype == np.uint8 else 8)
    n_rows = max(1, min(4096, (1 << 25) // n_bytes))
    for start in range(0, len(inputs), n_rows):
        yield inputs[start : start + n_rows]


def hold_out(labels: ArrayLike, ids: ArrayLike, share: float) -> NDArray[np.int64]:
    """Positions, ascending, of a test part: `share` of each class (rounded, but never the whole class).

    labels, ids  (n,) class numbers and distinct ids. An example is drawn by a hash of its id within its class, so
                 neither the order of rows nor a change in another class moves it
    share        0 <= share < 1; 0 holds out nothing
    Raises DataError if every class is too small to give one example.
    """
    if not 0 <= share < 1:
        raise SettingError(f"test_share (--test-share) is {share}; give a share from 0 up to, not including, 1")
    y, row_ids = np.asarray(labels), np.asarray(ids, np.int64)
    chosen = [np.zeros(0, np.int64)]
    for label in np.unique(y):
        rows = np.flatnonzero(y == label)
        n_test = min(int(share * len(rows) + 0.5), len(rows) - 1)
        chosen.append(rows[chance.shuffled(row_ids[rows], _HOLD_OUT_SEED, "hold out")[:n_test]])
    pos = np.sort(np.concatenate(chosen))
    if share > 0 and len(y) and not len(pos):
        largest = int(np.unique(y, return_counts=True)[1].max())
        if largest == 1:
            raise DataError(
                "no class has two examples, so none can be held out for testing; add examples, or bring a test part"
            )
        enough = math.ceil(50 / largest) / 100  # half an example is rounded up to one
        raise DataError(
            f"{share:.0%} of the largest class ({largest} examples) is none to hold out for testing; raise test_share "
            f"(--test-share) to {enough:.2f} at least, add examples, or bring a test part"
        )
    return pos


def with_held_out_test(data: Dataset, share: float) -> Dataset:
    """The same dataset with `share` of each class moved to its test part, where an example keeps its id and key."""
    if data.labels is None:
        return data
    in_test = np.zeros(len(data), bool)
    in_test[hold_out(data.labels, data.ids, share)] = True
    if not in_test.any():
        return data
    return replace(
        _rows(data, ~in_test), test=replace(_rows(data, in_test), name=f"{data.name} (test)", augmentation="none")
    )


def check_memory(n_bytes: int, what: str, instead: str = "") -> None:
    """Refuse to start reading what will not fit: more than 80 % of the memory that is free now. instead: what would be less."""
    available = available_memory()
    if available is not None and n_bytes > 0.8 * available:
        raise DataError(
            f"{what} takes {n_bytes / 2**30:.1f} GiB in memory, and {available / 2**30:.1f} GiB are free; "
            f"use {instead}fewer examples or a larger machine"
        )


def available_memory() -> int | None:
    """Bytes that this process may still take, as Linux and its container limit say; None elsewhere."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    except (OSError, StopIteration):
        return None
    for names in _CONTAINER:
        try:
            limit, used, facts = ((Path("/sys/fs/cgroup") / name).read_text().strip() for name in names)
            cached = sum(int(line.split()[1]) for line in facts.splitlines() if line.startswith(_FILE_CACHE))
            return free if limit == "max" else min(free, int(limit) - int(used) + cached)
        except (OSError, ValueError):
            continue
    return free


def as_inputs(values: ArrayLike, name: str) -> NDArray[Any]:
    """Check inputs: uint8 and texts stay, other numbers become finite float32."""
    if (texts := as_texts(values, name)) is not None:
        return texts
    try:
        x = np.asarray(values)
    except ValueError as error:
        raise DataError(f"{name}: inputs are no array: {error}") from error
    if x.dtype.kind not in "biuf":
        raise DataError(f"{name}: inputs of type {x.dtype} are neither numbers nor texts")
    if x.ndim < 2:
        raise DataError(f"{name}: inputs have shape {x.shape}; give one row per example, (n, d) or (n, h, w, c)")
    if 0 in x.shape[1:]:
        raise DataError(f"{name}: inputs have shape {x.shape}, so an example has no values; give one at least")
    if x.ndim == 4 and x.shape[1] in (1, 3) and x.shape[3] not in (1, 2, 3, 4):
        raise DataError(
            f"{name}: inputs {x.shape} have their channels first; give (n, h, w, c): x.transpose(0, 2, 3, 1)"
        )
    if x.dtype == np.uint8:
        return x[..., None] if x.ndim == 3 else x
    with np.errstate(over="ignore"):
        x = x.astype(np.float32, copy=False)
    bad = np.flatnonzero(~np.isfinite(x).reshape(len(x), -1).all(axis=1)) if x.size else np.zeros(0, np.int64)
    if len(bad):
        what = "NaN or infinite values, or such as float32 cannot hold (beyond 3.4e38)"
        raise DataError(
            f"{name}: {len(bad)} inputs have {what}, first in rows {bad[:3].tolist()}; leave them out, or mend them"
        )
    return x


def _numbered(labels: list[Any], classes: Sequence[str] | None, name: str) -> tuple[list[Any], Sequence[str] | None]:
    """Names of classes as their numbers, those of both parts alike, and the classes; anything else as it is."""
    named = [np.asarray(part) for part in labels if part is not None]
    if not named or any(part.dtype.kind not in "UTO" or part.ndim != 1 for part in named):
        return labels, classes
    words = {word for part in named for word in part.tolist()}
    if strange := [word for word in words if not isinstance(word, str) or not word]:
        raise DataError(f"{name}: the label {strange[0]!r} is no name of a class; leave out rows without a label")
    known = sorted(words) if classes is None else [str(each) for each in classes]
    if unknown := sorted(words.difference(known)):
        raise DataError(
            f"{name}: {len(unknown)} labels are none of the classes, first {unknown[0]!r}; name them in classes, too"
        )
    number = {word: i for i, word in enumerate(known)}
    return [None if part is None else [number[word] for word in np.asarray(part).tolist()] for part in labels], known


def as_labels(values: ArrayLike, n: int, name: str) -> NDArray[np.int64]:
    """Check labels: (n,) whole numbers from 0."""
    y = np.asarray(values)
    if y.shape != (n,):
        raise DataError(f"{name}: labels have shape {y.shape} for {n} inputs; give one class number per input")
    if y.dtype.kind not in "iubf":
        raise DataError(
            f"{name}: labels of type {y.dtype} are neither class numbers nor all names; give numbers 0 .. c-1, or text"
        )
    if y.dtype.kind == "f" and len(bad := np.flatnonzero(~np.isfinite(y) | (y != np.floor(y)))):
        raise DataError(
            f"{name}: {len(bad)} of {n} labels are no class numbers but NaN, infinite or fractions, first {y[bad[0]]} in row "
            f"{bad[0]}; leave out rows without a label, and map the others to 0 .. c-1"
        )
    y = y.astype(np.int64)
    if len(y) and y.min() < 0:
        raise DataError(f"{name}: labels go down to {y.min()}; class numbers start at 0")
    return y


def _as_ids(ids: ArrayLike | None, n: int, name: str) -> tuple[NDArray[np.int64] | None, NDArray[np.int64]]:
    """Ids in ascending order, and the order that makes them so (None: they were)."""
    if ids is None:
        return None, np.arange(n)
    given = np.asarray(ids)
    if given.shape != (n,) or given.dtype.kind not in "iu":
        raise DataError(f"{name}: ids are {given.dtype} {given.shape} for {n} inputs; give one integer per input")
    given = given.astype(np.int64)
    order = np.argsort(given, kind="stable")
    row_ids = given[order]
    if n and row_ids[0] < 0:
        raise DataError(f"{name}: ids go down to {row_ids[0]}; they start at 0")
    if (repeated := row_ids[1:][np.diff(row_ids) == 0]).size:
        raise DataError(f"{name}: {len(repeated)} ids are repeated, first {repeated[:3].tolist()}")
    return None if np.array_equal(row_ids, given) else order, row_ids


def _as_keys(keys: Sequence[str], n: int, name: str) -> tuple[str, ...]:
    """(n,) distinct names."""
    if len(keys) != n:
        raise DataError(f"{name}: {len(keys)} keys for {n} inputs; give one key per input")
    named = tuple(str(key) for key in keys)
    if broken := [printable(key) for key in named if key != printable(key)]:
        raise DataError(f"{name}: {len(broken)} keys are no valid Unicode, first '{broken[0]}'; give others")
    if repeated := _repeated(named):
        raise DataError(f"{name}: keys are repeated, first {repeated!r}; each names one example")
    return named


def _as_classes(classes: Sequence[str] | None, labels: list[NDArray[np.int64]], name: str) -> tuple[str, ...]:
    """A distinct name for each class number that occurs; by default the number in words."""
    n_classes = max((int(part.max()) + 1 for part in labels if len(part)), default=0)
    if classes is None:
        if n_classes > max(1000, sum(map(len, labels))):
            raise DataError(
                f"{name}: labels go up to {n_classes - 1}, beyond the number of examples; map them to 0 .. c-1"
            )
        return tuple(str(label) for label in range(n_classes))
    named = tuple(str(label) for label in classes)
    if len(named) < n_classes:
        raise DataError(f"{name}: a label is {n_classes - 1}, but only {len(named)} classes are named")
    if broken := [printable(label) for label in named if label != printable(label)]:
        raise DataError(f"{name}: the class name '{broken[0]}' is no valid Unicode; give another")
    if repeated := _repeated(named):
        raise DataError(f"{name}: classes are repeated, first {repeated!r}; each has a name of its own")
    return named


def printable(text: str) -> str:
    """The same text, if it can be written as UTF-8; else with its broken characters (of a file's name, say) spelled out."""
    return text.encode("utf-8", "backslashreplace").decode()


def _repeated(names: tuple[str, ...]) -> str | None:
    """The first name that comes a second time."""
    seen: set[str] = set()
    return next((name for name in names if name in seen or seen.add(name)), None)  # type: ignore[func-returns-value]


def _rows(data: Dataset, chosen: NDArray[np.bool_]) -> Dataset:
    """The examples that a mask marks, without a test part. Texts on disk stay there."""
    return replace(
        data,
        inputs=data.inputs.part(chosen) if isinstance(data.inputs, Texts) else data.inputs[chosen],
        labels=None if data.labels is None else data.labels[chosen],
        ids=data.ids[chosen],
        keys=None if data.keys is None else tuple(data.keys[i] for i in np.flatnonzero(chosen)),
        test=None,
    )
