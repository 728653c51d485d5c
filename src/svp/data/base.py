"""What a dataset is: raw inputs with ids, and perhaps labels. No model, no split but train and test."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import DataError

Augmentation = Literal["none", "crop", "crop_flip"]


@dataclass(frozen=True)
class Dataset:
    """Examples by id.

    name          what reports call it
    inputs        (n, ...) raw values, one row per example: uint8 images (n, h, w, c), or float rows (n, d)
    labels        (n,) int64 class numbers, or None where nothing is labelled
    classes       the name of each class number
    ids           (n,) int64, ascending; the row number unless the source says otherwise
    keys          the users' own name of each row (a path, a row key), or None: then the id in words
    test          the held-out examples, read once at the end; or None
    augmentation  what training may do to these inputs unless it is told otherwise
    problems      examples that could not be read and were left out, each with its reason
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

        inputs  (n, ...) uint8 or finite floats; integers of other widths are taken as floats
        labels  (n,) class numbers 0 .. c-1, or None
        ids     (n,) distinct integers >= 0; default: the row numbers. Rows are kept in ascending order of id.
        Raises DataError naming what does not fit. Time and memory: one pass; uint8 and float32 inputs are not copied.
        """
        x = as_inputs(inputs, name)
        order, row_ids = _as_ids(ids, len(x), name)
        y = None if labels is None else as_labels(labels, len(x), name)
        if keys is not None and len(keys) != len(x):
            raise DataError(f"{name}: {len(keys)} keys for {len(x)} inputs; give one key per input")
        test_part = None
        if test is not None:
            x_test = as_inputs(test[0], f"{name} (test)")
            if x_test.shape[1:] != x.shape[1:]:
                raise DataError(f"{name}: test inputs have shape {x_test.shape[1:]}, train inputs {x.shape[1:]}; they must agree")
            y_test = as_labels(test[1], len(x_test), f"{name} (test)")
        known = [y] if y is not None else []
        if test is not None:
            known.append(y_test)
        n_classes = max((int(part.max()) + 1 for part in known if len(part)), default=0)
        if classes is None:
            classes = [str(c) for c in range(n_classes)]
        elif len(classes) < n_classes:
            raise DataError(f"{name}: a label is {n_classes - 1}, but only {len(classes)} classes are named")
        if test is not None:
            test_part = cls(f"{name} (test)", x_test, y_test, tuple(classes), np.arange(len(x_test)))
        if order is not None:
            x, y = x[order], None if y is None else y[order]
            keys = None if keys is None else [keys[i] for i in order]
        return cls(name, x, y, tuple(classes), row_ids, None if keys is None else tuple(keys), test_part, augmentation)

    def __len__(self) -> int:
        return len(self.ids)

    def positions(self, ids: ArrayLike) -> NDArray[np.int64]:
        """Rows of this dataset that hold `ids`: the one place where ids become positions."""
        wanted = np.asarray(ids, np.int64)
        if not len(self.ids):
            pos = np.zeros(len(wanted), np.int64)
            found = np.zeros(len(wanted), bool)
        else:
            pos = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
            found = self.ids[pos] == wanted
        if not found.all():
            missing = wanted[~found]
            raise DataError(f"{self.name}: {len(missing)} ids are not in the dataset, the first: {missing[:3].tolist()}")
        return pos

    def key(self, id_: int) -> str:
        """The users' name of one example."""
        return str(id_) if self.keys is None else self.keys[int(self.positions([id_])[0])]

    def without_labels(self) -> Self:
        """The same examples with nothing to peek at: what an active-learning session is given."""
        return replace(self, labels=None)

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of everything a result depends on: inputs, labels, classes, ids, keys, and the test part. One pass over the data."""
        digest = hashlib.sha256()
        for part in (self, self.test):
            if part is None:
                continue
            for array in (part.inputs, part.ids, part.labels):
                if array is not None:
                    digest.update(f"{array.shape}{array.dtype.str}".encode())
                    digest.update(np.ascontiguousarray(array).data)
            digest.update("\0".join((*part.classes, "", *(part.keys or ()))).encode())
        return digest.hexdigest()


def as_inputs(values: ArrayLike, name: str) -> NDArray[Any]:
    """Check inputs: uint8 stays, everything else becomes finite float32."""
    x = np.asarray(values)
    if x.ndim < 2:
        raise DataError(f"{name}: inputs have shape {x.shape}; give one row per example, (n, d) or (n, h, w, c)")
    if x.dtype != np.uint8:
        try:
            x = x.astype(np.float32, copy=False)
        except (TypeError, ValueError) as error:
            raise DataError(f"{name}: inputs of type {x.dtype} are not numbers") from error
        bad = ~np.isfinite(x).reshape(len(x), -1).all(axis=1)
        if bad.any():
            raise DataError(f"{name}: {int(bad.sum())} inputs have NaN or infinite values, the first rows: {np.flatnonzero(bad)[:3].tolist()}")
    return x


def as_labels(values: ArrayLike, n: int, name: str) -> NDArray[np.int64]:
    """Check labels: (n,) whole numbers from 0."""
    y = np.asarray(values)
    if y.shape != (n,):
        raise DataError(f"{name}: labels have shape {y.shape} for {n} inputs; give one class number per input")
    if y.dtype.kind not in "iub" and not (y.dtype.kind == "f" and np.array_equal(y, np.floor(y))):
        raise DataError(f"{name}: labels of type {y.dtype} are not class numbers; map names to 0 .. c-1 and pass classes=")
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
        raise DataError(f"{name}: ids have shape {given.shape} and type {given.dtype} for {n} inputs; give one integer per input")
    order = np.argsort(given, kind="stable")
    row_ids = given[order].astype(np.int64)
    if n and row_ids[0] < 0:
        raise DataError(f"{name}: ids go down to {row_ids[0]}; they start at 0")
    if (repeated := row_ids[1:][np.diff(row_ids) == 0]).size:
        raise DataError(f"{name}: {len(repeated)} ids are repeated, the first: {repeated[:3].tolist()}")
    return order, row_ids
