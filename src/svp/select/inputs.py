"""What callers hand over, checked at the door: one number of examples, ids, and arrays without holes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import DataError, MissingInput, SettingError
from svp.select.budget import DEFAULT_MEMORY, Memory, resolve_memory
from svp.select.classes import Names, as_numbers
from svp.select.options import unmasked
from svp.select.scores import UNSEEN
from svp.select.selection import Selection
from svp.select.similarity import Similarity, as_matrix, is_sparse, stored
from svp.select.table import CHUNK_NUMBERS, Ints, Shape

# Producers in half precision give rows that sum to 1 within a few thousandths.
SUM_TOLERANCE = 1e-2
_FEW_COLUMNS = 32

# How to hand over each array that is no signal.
NO_SIGNAL = {
    "probs": "probs=, an (n, classes) array of class probabilities",
    "embeddings": "embeddings=, an (n, d) array of features",
    "labels": "labels=, an (n,) array of class numbers or names",
    "scores": "scores=, an (n,) array of numbers, higher = taken first",
    "similarity": "similarity=, an (n, n) matrix, or embeddings=, an (n, d) array of features",
}


@dataclass(frozen=True)
class Inputs:
    """The examples to choose from: ids and what is known of them, all of one length n.

    arrays      by need: "probs" (n, c), "embeddings" (n, d), "labels" and "scores" (n,), each kind of signal (n_epochs, n)
    similarity  (n, n), dense or scipy-sparse, or None: made of embeddings where a method needs it
    neighbors   keep only so many of the most similar of each example; None: all
    memory      bytes that may be taken beside the arrays, where that can be chosen
    classes     names of the classes where the labels were text; or None
    """

    ids: Ints
    arrays: dict[str, NDArray[Any]]
    similarity: Any = None
    neighbors: int | None = None
    memory: int = DEFAULT_MEMORY
    classes: Names | None = None

    @classmethod
    def of(
        cls,
        *,
        ids: ArrayLike | None,
        signals: Mapping[str, ArrayLike] | None = None,
        similarity: Any = None,
        neighbors: int | None = None,
        memory: Memory | None = None,
        **given: ArrayLike | None,
    ) -> Self:
        """Check shapes and ids (contents are checked where they are read). Arrays on disk stay there."""
        if signals is not None and not (
            isinstance(signals, Mapping) and all(isinstance(kind, str) for kind in signals)
        ):
            raise SettingError(
                f"signals: {type(signals).__name__}; give a mapping from kinds, as text, to arrays: "
                '{"correct": an (n_epochs, n) array}'
            )
        for name, values in {**given, **(signals or {}), "similarity": similarity}.items():
            unmasked(name, values)
        classes = None
        if (labels := given.get("labels")) is not None:
            given["labels"], classes = as_numbers(labels)
        arrays = {
            name: _as_array(name, values, len(SHAPES[name])) for name, values in given.items() if values is not None
        }
        for kind, values in (signals or {}).items():
            if kind in NO_SIGNAL:
                raise SettingError(f"A signal cannot be called {kind!r}; pass {NO_SIGNAL[kind]}")
            arrays[kind] = _as_array(kind, values, 2)
        lengths = {name: array.shape[_axis(name)] for name, array in arrays.items()}
        if similarity is not None:
            similarity = as_matrix(similarity)
            lengths["similarity"] = similarity.shape[0]
        if ids is not None:
            lengths["ids"] = len(row_ids := as_ids(ids, "ids"))
            _check_distinct(row_ids)
        if len(set(lengths.values())) > 1:
            listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
            raise DataError(f"The inputs differ in the number of examples: {listed}; give one of each per example")
        if not lengths:
            raise MissingInput("Nothing says which examples there are; pass ids= (--ids), or an array the method reads")
        if ids is None:
            row_ids = np.arange(next(iter(lengths.values())))
        return cls(row_ids, arrays, similarity, neighbors, resolve_memory(memory), classes)

    def __len__(self) -> int:
        return len(self.ids)

    def require(self, method: str, needs: tuple[str, ...]) -> None:
        """MissingInput unless everything that `method` reads was given; DataError if names cannot be columns of probs."""
        for need in needs:
            if need in self.arrays or (
                need == "similarity" and (self.similarity is not None or "embeddings" in self.arrays)
            ):
                continue
            if need in NO_SIGNAL:
                raise MissingInput(f"Method {method!r} needs {need}; pass {NO_SIGNAL[need]}")
            kinds = ", ".join(kind for kind in self.arrays if kind not in NO_SIGNAL) or "none"
            raise MissingInput(
                f"Method {method!r} needs the signal {need!r}; "
                f"pass signals={{{need!r}: an (n_epochs, n) array}} (signals given: {kinds})"
            )
        if self.classes is None or not {"probs", "labels"}.issubset(needs):
            return
        if (n := self.arrays["probs"].shape[1]) != len(self.classes):
            raise DataError(
                f"labels has {len(self.classes)} names, probs {n} columns, and nothing says which is whose; "
                "give labels as numbers of columns"
            )

    def part(self, need: str, rows: slice, keep: NDArray[np.bool_] | None = None) -> NDArray[Any]:
        """The examples `rows` of one array, checked; of them those to `keep`."""
        part = self.arrays[need][(slice(None),) * _axis(need) + (rows,)]
        if need == "probs" and part.shape[1] <= _FEW_COLUMNS:
            part = np.asfortranarray(part)  # checks and scores then run along columns, far longer than rows
        if not is_sound(need, part).all():
            self.check(need)
        return part if keep is None else part[(slice(None),) * _axis(need) + (keep,)]

    def of_examples(self, need: str, pos: Ints) -> NDArray[Any]:
        """A copy of the examples at these positions of one array, not checked."""
        return np.take(self.arrays[need], pos, axis=_axis(need))

    def whole(self, need: str) -> Any:
        """All examples of one array, checked; of "similarity" a `Similarity`."""
        if need == "similarity":
            if self.similarity is not None:
                return Similarity.given(self.similarity, self.ids, self.neighbors)
            return Similarity.made(self.whole("embeddings"), self.neighbors)
        self.check(need)
        return self.arrays[need]

    def check(self, need: str) -> None:
        """DataError with the count and the first ids if any example has something that cannot be."""
        array = self.arrays[need]
        axis = _axis(need)
        sound, finite = np.ones(len(self), bool), np.ones(len(self), bool)
        for rows in self.chunks((need,)):
            part = array[(slice(None),) * axis + (rows,)]
            sound[rows] = is_sound(need, part)
            if array.dtype.kind == "f" and not sound[rows].all():
                # NaN stands for "not shown" in a signal of floats.
                holes = ~np.isfinite(part) if axis == 0 else np.isinf(part)
                finite[rows] = ~np.moveaxis(holes, axis, 0).reshape(holes.shape[axis], -1).any(axis=1)
        if sound.all():
            return
        bad, what = (
            (~sound, UNSOUND.get(need, "values that cannot be"))
            if finite.all()
            else (~finite, "NaN or infinite values")
        )
        raise DataError(f"{need}: {bad.sum()} examples have {what}, the first ids: {self.ids[bad][:3].tolist()}")

    def chunks(self, needs: tuple[str, ...]) -> Iterator[slice]:
        """Slices of examples that hold about CHUNK_NUMBERS numbers of the arrays `needs`."""
        width = sum(self.arrays[need].size // max(len(self), 1) for need in needs)
        size = max(1, min(CHUNK_NUMBERS, self.memory // 64) // max(width, 1))
        return (slice(start, min(start + size, len(self))) for start in range(0, len(self), size))

    def shape(self, budget: int, already: int) -> Shape:
        """The sizes that the cost of a choice depends on."""
        signals = [array.shape[0] for need, array in self.arrays.items() if _axis(need)]
        c, d = (self.arrays[need].shape[1] if need in self.arrays else 1 for need in ("probs", "embeddings"))
        if self.similarity is not None:
            d = 0 if is_sparse(self.similarity) else 1
        entries = stored(self.similarity, self.neighbors, len(self))
        return Shape(len(self), c, d, max(signals, default=1), budget, already, entries, self.memory)

    def mask(self, ids: ArrayLike | Selection, name: str) -> NDArray[np.bool_]:
        """(n,) True where an example is among `ids`, all of which must be there."""
        wanted = as_ids(ids, name)
        if not len(wanted):
            return np.zeros(len(self), bool)
        missing = wanted[~np.isin(wanted, self.ids)]
        if len(missing):
            raise DataError(f"{name}: {len(missing)} ids are not among the examples, the first: {missing[:3].tolist()}")
        return np.isin(self.ids, wanted)


def as_ids(values: ArrayLike | Selection, name: str) -> Ints:
    """(k,) int64 ids, or DataError."""
    if isinstance(values, Selection):
        values = values.ids
    unmasked(name, values)
    ids = np.asarray(values)
    if ids.ndim == 1 and not ids.size:
        return np.empty(0, np.int64)
    if ids.ndim != 1 or ids.dtype.kind not in "iu" or (ids.dtype.kind == "u" and ids.max() > np.iinfo(np.int64).max):
        raise DataError(
            f"{name}: shape {ids.shape} and type {ids.dtype}; give a flat list of whole numbers, the ids of examples"
        )
    return ids.astype(np.int64)


def _check_distinct(ids: Ints) -> None:
    ordered = ids if (np.diff(ids) > 0).all() else np.sort(ids)
    if len(repeated := np.unique(ordered[1:][np.diff(ordered) == 0])):
        raise DataError(
            f"ids: {len(repeated)} ids are repeated, the first: {repeated[:3].tolist()}; each example has its own"
        )


def _as_array(name: str, values: ArrayLike, ndim: int) -> NDArray[Any]:
    array = np.asarray(values)
    if array.dtype.kind not in "fiub":
        raise DataError(f"{name}: type {array.dtype} is not numbers; give floats or whole numbers")
    if array.ndim != ndim:
        raise DataError(
            f"{name}: shape {array.shape}; give ({', '.join(SHAPES.get(name, ('n_epochs', 'n')))}{',' * (ndim == 1)})"
        )
    if name in ("probs", "embeddings") and not array.shape[1]:
        raise DataError(f"{name}: shape {array.shape} has no columns; give at least one number per example")
    return array


# The axes of every array with a row an example; similarity, of pairs, stands apart.
SHAPES = {"probs": ("n", "classes"), "embeddings": ("n", "d"), "labels": ("n",), "scores": ("n",)}


def _axis(need: str) -> int:
    """Which axis of an array counts the examples."""
    return 0 if need in NO_SIGNAL else 1


LARGEST = 1e150  # of scores
UNSOUND = {
    "scores": f"values beyond {LARGEST:g}",
    "probs": "values that are no probabilities (each from 0 to 1, and together 1)",
    "labels": "labels that are no class numbers (whole, from 0; -1 where unknown)",
    "correct": f"values other than 0 (wrong), 1 (right) and {UNSEEN} (not shown)",
}


def is_sound(need: str, part: NDArray[Any]) -> NDArray[np.bool_]:
    """(k,) whether each example of a part is as it should be. Comparisons with NaN are false: NaN is never sound."""
    if need == "probs":
        with np.errstate(invalid="ignore"):
            # A matrix product where there is one: it adds the rows many times faster, and rounding is no matter here.
            ones = np.ones(part.shape[1], part.dtype)
            total = part @ ones if part.dtype in (np.float32, np.float64) else part.sum(axis=1, dtype=np.float64)
            # Nothing below 0 and a sum of 1: then nothing is above 1 either.
            sound = np.abs(total - 1) <= SUM_TOLERANCE
            if part.size and not part.min() >= 0:  # row by row only where there is something to find: it takes longer
                sound &= part.min(axis=1) >= 0
            return np.asarray(sound)
    if need == "embeddings":
        return np.asarray(np.isfinite(part).all(axis=1))
    if need == "scores":
        return np.asarray(
            np.abs(part, dtype=np.float64) <= LARGEST
        )  # a sum of squares or a range of them is a number yet
    if need == "labels":
        return np.asarray((part >= -1) & np.isfinite(part) & (part == np.floor(part)))
    if need == "correct":
        return np.asarray(((part == 0) | (part == 1) | (part == UNSEEN)).all(axis=0))
    return np.asarray(~np.isinf(part).any(axis=0))
