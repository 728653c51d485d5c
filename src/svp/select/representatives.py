"""What was chosen stands for what was not: each other example belongs to the chosen one nearest to it."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from svp.errors import DataError
from svp.select.budget import Memory
from svp.select.inputs import Inputs
from svp.select.neighbors import nearest
from svp.select.selection import Selection
from svp.select.table import Floats, Ints


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
    selection: Selection, embeddings: ArrayLike, *, ids: ArrayLike | None = None, memory: Memory | None = None
) -> Representatives:
    """For each chosen example the others that are nearer to it than to any other chosen one (Euclidean).

    embeddings  (n, d) one row per example, chosen or not
    ids         (n,) distinct whole numbers that name the rows; default: the row numbers
    memory      bytes that may be taken beside the arrays, such as "2GB"; default 1 GiB
    returns     each other example with its nearest chosen one; of equally near ones the one chosen first
    cost        time: n k d operations for k chosen, nearly all in matrix products. Memory: 50 n bytes, and `memory`
    Raises DataError for chosen ids that have no row, or rows that are not finite.
    """
    inputs = Inputs.of(ids=ids, embeddings=embeddings, memory=memory)
    chosen = inputs.mask(selection.ids, "selection")
    order = np.argsort(inputs.ids)
    base = order[np.searchsorted(inputs.ids, selection.ids, sorter=order)]
    others = order[~chosen[order]]
    pos, distances = nearest(inputs.whole("embeddings"), others, base, 1, memory=inputs.memory)
    by = pos[:, 0]
    return Representatives(
        picks=selection.ids,
        counts=np.bincount(by[by >= 0], minlength=len(inputs))[base],
        ids=inputs.ids[others],
        nearest=np.where(by < 0, -1, inputs.ids[by]) if len(base) else by,
        distances=np.where(by < 0, np.nan, distances[:, 0]),
    )
