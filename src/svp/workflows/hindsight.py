"""What a session has done, for whoever judges it afterwards: what was asked in which order, by what, and what that took."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import takewhile
from numbers import Integral
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from svp.config import PREVIOUS
from svp.errors import BudgetError
from svp.files import read_array
from svp.labels import Answer, Batch, LabelStore, moment
from svp.runs import PARTS
from svp.select import Selection, find_method
from svp.workflows.features import Features
from svp.workflows.finished import SCORED, in_order
from svp.workflows.outcomes import Fitted
from svp.workflows.people import AT_RANDOM

if TYPE_CHECKING:
    from svp.workflows.session import Session


def asked(session: "Session", n: int) -> Selection:
    """The first `n` examples asked for, in order. Raises BudgetError where there are fewer."""
    batches = list(_questions(session.store))
    total = sum(map(len, batches))
    if not (isinstance(n, Integral) and 0 <= n <= total):
        raise BudgetError(
            f"{session.folder} has asked for {total:,} examples so far; give a number up to that, not {n!r}"
        )
    gains = [np.full(len(b), np.nan) if b.scores is None else b.scores for b in batches]
    return Selection(
        ids=np.concatenate([np.zeros(0, np.int64), *(b.ids for b in batches)])[:n],
        gains=np.concatenate([np.zeros(0), *gains])[:n],
        weights=np.ones(n),
        method=session.config.method,
        options=session.config.options,
        seed=session.config.seed,
    )


def target(session: "Session", n: int) -> Fitted | None:
    """The target on the first `n` labels, where a proxy on its features has had it trained; else None."""
    with session.rounds.held("a look back"):
        return session.rounds.target(*session.labelled(n))


def features(session: "Session") -> Features | None:
    """The frozen features by which the last question was chosen; None where it was drawn, or the proxy sees the inputs."""
    method = session.config.method
    chosen = [r for r in session.store.rounds() if r.origin == method]
    if not chosen or not find_method(method)[1].asks_model:
        return None
    with session.rounds.held("a look back"):
        return session.rounds.features(chosen[-1].round)


def drawn(session: "Session") -> NDArray[np.int64]:
    """Ids that were asked for by no model."""
    chosen = {r.round for r in session.store.rounds() if r.origin == session.config.method}
    batches = [b.ids for b in session.store.history() if isinstance(b, Batch) and b.round not in chosen]
    return np.concatenate([np.zeros(0, np.int64), *batches])


def selection_seconds(session: "Session", n: int) -> dict[str, float]:
    """Seconds to train, score and select up to `n` labels, counted as Coleman et al. 2020 do: without the training that
    would follow the last answer. A target that made features counts where a question was chosen by them."""
    folder, total = session.folder, 0
    stages: dict[Path, None] = {}  # each once, in order
    for question in session.store.rounds():
        if total >= n:
            break
        total += question.asked
        own = [s for s in folder.glob(f"rounds/{question.round:03d}-*/*") if s.name not in ("target", "features")]
        if own:
            stages |= dict.fromkeys([*_makers_of_features(session, question.round), *own])
    seconds = dict.fromkeys(PARTS.values(), 0.0)
    for stage in stages:
        for part, took in session.rounds.work.run.seconds(str(stage.relative_to(folder))).items():
            seconds[part] += took
    return seconds


def _makers_of_features(session: "Session", round_: int) -> list[Path]:
    """The stages behind what a round's proxy saw in place of the inputs."""
    if session.config.proxy.features.source == PREVIOUS:
        before = session.folder / session.rounds.before(round_)[0]
        return [before / "target", before / "features"]
    return sorted(session.folder.glob("features/*"))


def _questions(store: LabelStore) -> Iterator[Batch]:
    """What was asked, in order, each example once: when it was first asked."""
    seen = np.zeros(0, np.int64)
    for entry in store.history():
        if isinstance(entry, Batch):
            new = ~np.isin(entry.ids, seen)
            scores = None if entry.scores is None else entry.scores[new]
            yield entry if new.all() else replace(entry, ids=entry.ids[new], scores=scores)
            seen = np.concatenate([seen, entry.ids])


def asked_in(store: LabelStore, rounds: Sequence[int]) -> NDArray[np.int64]:
    """Ids that were asked in these rounds."""
    batches = [b.ids for b in store.history() if isinstance(b, Batch) and b.round in rounds]
    return np.concatenate([np.zeros(0, np.int64), *batches])


def random(store: LabelStore) -> NDArray[np.int64]:
    """Ids that were drawn before any were chosen: as good or bad as the pool. What is drawn later lacks what was chosen."""
    asked = (question for question in _questions(store) if len(question))
    drawn = [q.ids for q in takewhile(lambda question: question.origin.startswith(AT_RANDOM), asked)]
    return np.concatenate([np.zeros(0, np.int64), *drawn])


def first_guesses(folder: Path, ids: NDArray[np.int64]) -> dict[int, tuple[int, float]]:
    """What the last proxy that scored an example, so before it was asked, took it for, with its probability.

    Only of methods that score by probabilities. Cost: a lookup for each example and training, until all are found.
    """
    found: dict[int, tuple[int, float]] = {}
    for stage in (s for s in reversed(in_order(folder, SCORED)) if (s / "probs-0.npy").exists()):
        probs, scored = read_array(stage / "probs-0.npy"), read_array(stage / "ids.npy")
        rows = np.minimum(np.searchsorted(scored, ids), len(scored) - 1)
        here = scored[rows] == ids
        for id_, row in zip(ids[here].tolist(), probs[rows[here]], strict=True):
            found[id_] = int(row.argmax()), float(row.max())
        if not len(ids := ids[~here]):
            break
    return found


def right_before(folder: Path, store: LabelStore) -> dict[int, bool]:
    """Was the proxy right about each example before it was asked, by what the first of its people said? In order of time."""
    said = [answer for answer in store.said() if answer.kind == "label"]
    first: dict[int, Answer] = {}
    for answer in sorted(said, key=lambda answer: moment(str(answer.at)) or 0.0):
        first.setdefault(answer.id, answer)
    guesses = first_guesses(folder, np.array(list(first), np.int64))
    return {id_: guesses[id_][0] == answer.label for id_, answer in first.items() if id_ in guesses}
