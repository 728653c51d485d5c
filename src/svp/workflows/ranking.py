"""From what models say to a choice: scores averaged over models, and which of the pool are candidates.

The code of every choice counts this file.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from inspect import Parameter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.errors import SettingError
from svp.select import Method, Rank, Selection, score, select


@dataclass(frozen=True)
class Pool:
    """What is chosen from.

    ids      (n,) ascending
    labels   (n,) for methods that read them; None where nobody may know them
    already  those of the ids that count as chosen, for a method that covers (k-center); one that ranks is shown candidates only
    """

    ids: NDArray[np.int64]
    labels: NDArray[np.int64] | None = None
    already: Sequence[int] | NDArray[np.int64] = ()


@dataclass(frozen=True)
class How:
    """By which method, with its options and seed, and how many."""

    method: str
    options: dict[str, Any]
    budget: int
    seed: int


def candidates(pool: Pool) -> NDArray[np.bool_]:
    """(n,) which of the pool can be chosen."""
    return ~np.isin(pool.ids, pool.already)


def choose(row: Method, arrays: list[dict[str, Any]], pool: Pool, how: How) -> tuple[Selection, NDArray[np.float64]]:
    """The selection, and (n,) values that rank the whole pool: scores, or for a method that covers minus the order of choice."""
    method, ids = how.method, pool.ids
    asked: dict[str, Any] = {"ids": ids, "already": pool.already, "seed": how.seed}
    if isinstance(row, Rank):
        settled = row.settle(method, how.options)
        own = row.own(settled)
        scores = np.mean([score(method, ids=ids, seed=how.seed, **given, **own) for given in arrays], axis=0)
        # The options of the scores have been used: `select` is given their defaults. What a sampler reads (clusters of
        # embeddings) is that of the first model.
        left = {
            **settled,
            **{key: default for key, default in row.own(row.options).items() if default is not Parameter.empty},
        }
        beside = {"labels", *(() if row.sampler is None else row.sampler.needs)}
        given = {name: array for name, array in arrays[0].items() if name in beside}
        if row.needs:  # chance draws the same again
            given["scores"] = scores
        selection = select(method, how.budget, **asked, **given, **left)
        return replace(selection, options=settled), scores
    if len(arrays) > 1:
        raise SettingError(f"{method} gives no scores to average over several proxies; set proxy.seeds to 1")
    selection = select(method, how.budget, **asked, **arrays[0], **how.options)
    order = np.full(len(ids), -float(len(ids)))
    order[np.searchsorted(ids, selection.ids)] = -np.arange(len(selection.ids), dtype=float)
    return selection, order
