"""Questions at once, for people who answer one by one while another process trains: nothing is trained, no folder is held."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svp.config import SessionConfig
from svp.errors import LabelError
from svp.files import read_array
from svp.labels import Batch
from svp.runs import DONE
from svp.select import select
from svp.workflows.outcomes import Ranked, kind_of
from svp.workflows.people import best, last_scores
from svp.workflows.session import Session


def ask_more(session: Session, n: int) -> Batch | None:
    """A further question, also while one is open: of `n` examples, or of all that are left; None where nothing is.

    Examples on which people are divided come first, once more, unless they are asked already. The others are chosen by the last
    finished scores; at random where there are none, and with a method that chooses sets, which would need a training first.
    `origin` says which. Reads the data, if that has not been done. Cost: a pass over the ids of the pool, and over the answers.
    """
    store, config = session.store, session.config
    pool = np.setdiff1d(session.dataset.ids, store.asked(), assume_unique=True)
    rule = config.rule if isinstance(config, SessionConfig) else "majority"
    elsewhere = {waiting.id for waiting in store.waiting()} | set(store.left_out())
    ties = [s.id for s in store.standings(rule) if s.kind == "tie" and s.id not in elsewhere]
    n = min(n, len(pool))
    if not n and not ties:
        return None
    round_ = len(store.rounds())
    chosen, gains, origin = _chosen(session, pool, n)
    try:
        return store.ask(chosen, round=round_, scores=gains, origin=origin, again=ties)
    except LabelError:
        if len(store.rounds()) == round_:
            raise
        return ask_more(session, n)  # somebody asked at the same moment


def _chosen(
    session: Session, pool: NDArray[np.int64], n: int
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None, str]:
    """What to ask of the pool, its scores, and how it was chosen."""
    config = session.config
    if not n:
        return pool[:0], None, "people are divided"
    last = last_scores(session.folder) if kind_of(config.method) == "rank" else None
    if last is not None:
        ranked = Ranked.read(last[0])
        scored = np.intersect1d(pool, ranked.ids, assume_unique=True)
        if len(scored):
            diverse = isinstance(config, SessionConfig) and config.diverse
            chosen, gains = best(config, ranked, scored, min(n, len(scored)), session.dataset if diverse else None)
            return chosen, gains, f"{config.method}, by the scores of round {last[1]}"
    return select("random", n, ids=pool, seed=config.seed).ids, None, "random, as no model has scored them yet"


def first_guesses(folder: Path, ids: NDArray[np.int64]) -> dict[int, tuple[int, float]]:
    """What the last proxy that scored an example, so before it was asked, took it for, with its probability.

    Only of methods that score by probabilities. Cost: a lookup for each example and training, until all are found.
    """
    found: dict[int, tuple[int, float]] = {}
    marks = sorted(folder.glob(f"rounds/*/selection/{DONE}"), key=lambda mark: mark.stat().st_mtime_ns)
    for stage in (mark.parent for mark in marks[::-1] if (mark.parent / "probs-0.npy").exists()):
        probs, scored = read_array(stage / "probs-0.npy"), read_array(stage / "ids.npy")
        rows = np.minimum(np.searchsorted(scored, ids), len(scored) - 1)
        here = scored[rows] == ids
        for id_, row in zip(ids[here].tolist(), probs[rows[here]], strict=True):
            found[id_] = int(row.argmax()), float(row.max())
        if not len(ids := ids[~here]):
            break
    return found


def hindsight(session: Session) -> dict[int, bool]:
    """Was the proxy right about each example before it was asked, by what the first of its people said? In order of time."""
    said = [answer for answer in session.store.said() if answer.kind == "label"]
    first = {answer.id: answer for answer in sorted(said, key=lambda answer: str(answer.at), reverse=True)}
    guesses = first_guesses(session.folder, np.array(list(first), np.int64))
    return {id_: guesses[id_][0] == answer.label for id_, answer in reversed(first.items()) if id_ in guesses}
