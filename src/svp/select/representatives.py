"""What was chosen stands for what was not: each other example belongs to the chosen one nearest to it."""

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import DataError
from svp.select.budget import Memory
from svp.select.geometry import float_rows, scale_of, split, squared
from svp.select.inputs import Inputs, as_ids
from svp.select.neighbors import nearest
from svp.select.selection import Selection
from svp.select.similarity import as_indexable
from svp.select.table import Floats, Ints

SOON = 2e10  # operations, n k d, that take seconds: so many `svp select` does without being asked
_FEW = 32  # picks compared one with another
_ROWS = 1024  # of a similarity matrix, looked at together at most
_BYTES_PER_KEY = 32  # a similarity as it is, in float64, with the other sign, and whether it is above 0


@dataclass(frozen=True, eq=False)
class Representatives:
    """Who stands for whom.

    picks      (k,) ids of the chosen examples, in order of choice
    counts     (k,) how many others each stands for; `dataclasses.replace(selection, stands_for=counts)` keeps them with it
    ids        (m,) ids of the others, ascending
    nearest    (m,) id of the chosen example that stands for each, -1 where nothing was chosen
    distances  (m,) how far that is, NaN where nothing was chosen
    """

    picks: Ints
    counts: Ints
    ids: Ints
    nearest: Ints
    distances: Floats

    def of(self, pick: int) -> Ints:
        """The ids that the chosen example `pick` stands for, the nearest first."""
        if pick not in self.picks:
            raise DataError(f"{pick} is not among the {len(self.picks)} chosen ids; give one of them")
        mine = np.flatnonzero(self.nearest == pick)
        return self.ids[mine[np.argsort(self.distances[mine], kind="stable")]]


def stands_for(
    selection: Selection,
    embeddings: ArrayLike | None = None,
    *,
    similarity: Any = None,
    ids: ArrayLike | None = None,
    already: ArrayLike | Selection = (),
    exclude: ArrayLike | Selection = (),
    memory: Memory | None = None,
) -> Representatives:
    """For each chosen example the others that are nearer to it than to any other chosen one (Euclidean).

    embeddings  (n, d) one row per example, chosen or not
    similarity  (n, n) in place of embeddings: each other example belongs to the chosen one it is most similar to, and to none
                where no similarity is above 0. The distances are NaN
    ids         (n,) distinct whole numbers that name the rows; default: the row numbers
    already     ids that were chosen before: what is nearest to one of them nobody of this selection stands for
    exclude     ids that take no part
    memory      bytes that may be taken beside the arrays, such as "2GB"; default 1 GiB
    returns     each other example with its nearest chosen one; of equally near ones the one chosen first: the lower id of
                `already`, then the earlier of the selection
    cost        time: n k d operations for k chosen, nearly all in matrix products; of a matrix n k. Memory: 50 n bytes, and
                `memory`
    Raises DataError for chosen ids that have no row, or rows that are not finite (of a matrix, where they are looked at);
    MissingInput without either array.
    """
    inputs = Inputs.of(ids=ids, embeddings=embeddings, similarity=similarity, memory=memory)
    return _Chosen(inputs, selection, already).stand_for(exclude)


def described(
    selection: Selection,
    embeddings: ArrayLike | None = None,
    *,
    similarity: Any = None,
    ids: ArrayLike | None = None,
    already: ArrayLike | Selection = (),
    exclude: ArrayLike | Selection = (),
    memory: Memory | None = None,
) -> Selection:
    """The selection with `stands_for`, and with `nearest` and `distances` where its method did not say them.

    Arguments, errors and cost as for `stands_for`; (m + k) k d operations more for m in `already`. `nearest` is the nearest of
    those chosen before, in `already` or earlier in the selection; of equally near ones the lower id of `already`, then the
    one chosen first. Of a similarity matrix there are no distances.
    """
    inputs = Inputs.of(ids=ids, embeddings=embeddings, similarity=similarity, memory=memory)
    chosen = _Chosen(inputs, selection, already)
    counts = chosen.stand_for(exclude).counts
    if selection.nearest is not None:
        return replace(selection, stands_for=counts)
    earlier = _Earlier(chosen.measure, chosen.picks, chosen.before)
    return replace(
        selection,
        stands_for=counts,
        nearest=chosen.named(earlier.nearest),
        distances=None if similarity is not None else np.where(earlier.nearest < 0, np.nan, earlier.far),
    )


class _Chosen:
    """A selection among its examples, by their positions.

    order   (n,) all, by their ids
    picks   (k,) those chosen, in order of choice
    before  those that were chosen before, by their ids
    """

    def __init__(self, inputs: Inputs, selection: Selection, already: ArrayLike | Selection) -> None:
        self.inputs, self.ids = inputs, selection.ids
        self.order = np.argsort(inputs.ids)
        self.picks = self._rows("selection", selection.ids)
        self.before = self._rows("already", np.sort(as_ids(already, "already")))
        self.measure = _measure(inputs)

    def stand_for(self, exclude: ArrayLike | Selection) -> Representatives:
        """Who stands for whom, but for the ids to exclude."""
        apart = np.zeros(len(self.inputs), bool)
        apart[np.concatenate([self.picks, self.before, self._rows("exclude", exclude)])] = True
        others = self.order[~apart[self.order]]
        by, far = self.measure.nearest(others, np.concatenate([self.before, self.picks]))
        return Representatives(
            picks=self.ids,
            counts=np.bincount(by[by >= 0], minlength=len(self.inputs))[self.picks],
            ids=self.inputs.ids[others],
            nearest=self.named(by),
            distances=np.full(len(by), np.nan) if self.inputs.similarity is not None else np.where(by < 0, np.nan, far),
        )

    def named(self, pos: Ints) -> Ints:
        """The ids at these positions, -1 where there is none."""
        return np.where(pos < 0, -1, self.inputs.ids[pos]) if len(self.inputs) else pos

    def _rows(self, name: str, ids: ArrayLike | Selection) -> Ints:
        """The positions of these ids, in their order; DataError for one that has no row."""
        self.inputs.mask(ids, name)
        return self.order[np.searchsorted(self.inputs.ids, as_ids(ids, name), sorter=self.order)]


class _Earlier:
    """For each pick who was chosen before it and is nearest, and how far that is; -1 and infinity: nobody.

    The later half of the picks is compared with the earlier, then each half within itself, and so on: large blocks alone.
    """

    def __init__(self, measure: "_Euclidean | _Similar", picks: Ints, before: Ints) -> None:
        self.measure, self.picks = measure, picks
        self.nearest, self.far = measure.nearest(picks, before)
        self._compare(0, len(picks))

    def _compare(self, start: int, stop: int) -> None:
        own = self.picks[start:stop]
        if len(own) > _FEW:
            middle = (start + stop) // 2
            self._lower(slice(middle, stop), *self.measure.nearest(self.picks[middle:stop], self.picks[start:middle]))
            self._compare(start, middle)
            self._compare(middle, stop)
        elif len(own):
            far = np.where(np.tri(len(own), k=-1, dtype=bool), self.measure.pairs(own), np.inf)
            best = far.argmin(axis=1)  # of equals the first
            self._lower(slice(start, stop), own[best], far[np.arange(len(own)), best])

    def _lower(self, part: slice, nearest: Ints, far: Floats) -> None:
        nearer = far < self.far[part]
        self.nearest[part][nearer], self.far[part][nearer] = nearest[nearer], far[nearer]


class _Euclidean:
    """Distances of rows."""

    def __init__(self, embeddings: NDArray[Any], memory: int) -> None:
        self.embeddings, self.memory = embeddings, memory

    def nearest(self, queries: Ints, base: Ints) -> tuple[Ints, Floats]:
        """(q,) the nearest of the base, of equals the first, and how far it is; -1 and infinity where there is none."""
        pos, distances = nearest(self.embeddings, queries, base, 1, memory=self.memory)
        return pos[:, 0], distances[:, 0]

    def pairs(self, pos: Ints) -> Floats:
        """(k, k) how far each is from each."""
        scale = scale_of(self.embeddings, pos)
        rows = float_rows(self.embeddings, pos, scale)
        return np.sqrt(np.stack([squared(rows, row) for row in rows])) / scale


class _Similar:
    """Similarities above 0 of a matrix, with the other sign: lower = nearer."""

    def __init__(self, matrix: Any, ids: Ints, memory: int) -> None:
        self.matrix, self.ids, self.memory = matrix, ids, memory

    def nearest(self, queries: Ints, base: Ints) -> tuple[Ints, Floats]:
        pos, far = np.full(len(queries), -1), np.full(len(queries), np.inf)
        size = min(_ROWS, max(1, self.memory // (_BYTES_PER_KEY * max(1, len(base)))))
        for part in split(np.arange(len(queries)), size) if len(base) else ():
            keys = self._keys(queries[part], base)
            best = keys.argmin(axis=1)
            far[part] = keys[np.arange(len(part)), best]
            pos[part] = np.where(np.isinf(far[part]), -1, base[best])
        return pos, far

    def pairs(self, pos: Ints) -> Floats:
        return self._keys(pos, pos)

    def _keys(self, queries: Ints, base: Ints) -> Floats:
        if isinstance(self.matrix, np.ndarray):
            similar = self.matrix[np.ix_(queries, base)]
        else:
            similar = self.matrix[queries][:, base].toarray()
        similar = similar.astype(np.float64)
        if not (finite := np.isfinite(similar).all(axis=1)).all():
            bad = self.ids[queries[~finite]]
            raise DataError(
                f"similarity: {len(bad)} examples have NaN or infinite values, the first ids: {bad[:3].tolist()}"
            )
        return np.where(similar > 0, -similar, np.inf)


def _measure(inputs: Inputs) -> _Euclidean | _Similar:
    if inputs.similarity is None:
        inputs.require("stands_for", ("embeddings",))
        return _Euclidean(inputs.whole("embeddings"), inputs.memory)
    return _Similar(as_indexable(inputs.similarity), inputs.ids, inputs.memory)
