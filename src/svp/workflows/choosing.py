"""What to ask next: a draw, what the proxy wants most, or, while one is being trained, what the last one wanted."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from svp.errors import BudgetError, SettingError
from svp.files import read_array
from svp.labels import Batch
from svp.select import resolve_budget, select
from svp.select.limits import PerClass
from svp.workflows import hindsight, judging
from svp.workflows.outcomes import Ranked
from svp.workflows.people import AT_RANDOM, SECOND_LOOK, best, last_scores, to_ask_again

if TYPE_CHECKING:
    from svp.workflows.session import Session

REVIEWED = 50  # labels looked at again at a time


@dataclass(frozen=True)
class Choice:
    """What to ask: ids in order with their gains, how they were chosen, and ids that are to be looked at once more."""

    ids: NDArray[np.int64]
    gains: NDArray[np.float64] | None
    origin: str
    again: list[int]


def trained(session: "Session", n: int | str, per_class: PerClass | None = None) -> Choice:
    """By the proxy, trained on all labels; at random (or by `start`) until two classes have some. The folder must be held."""
    rounds, ways, config = session.rounds, session.ways, session.config
    ids, labels = session.labelled()
    pool = rounds.unasked()
    divided = to_ask_again(session.store, ways.rule, n_left=len(pool))
    budget = _budget(session, n, pool, may_be_none=bool(divided))
    if not budget:
        return Choice(pool[:0], None, "people are divided", divided)
    if len(np.unique(labels)) < 2:
        if per_class is not None:
            raise SettingError(
                "per_class goes by what the proxy takes examples for, and there is none until two classes have labels; ask "
                "without it first"
            )
        drawn, origin = rounds.start(budget, pool, labels, rounds.next)
        return Choice(drawn, None, origin, divided)
    if per_class is not None and not session.ranks:
        raise SettingError(
            f"per_class: {config.method} chooses sets; make the session with a method that ranks (margin)"
        )
    if session.ranks and ways.at_once:
        ranked = rounds.ranked(ids, labels)
        if per_class is None:
            taken, gains = best(config, ranked, pool, budget, session.dataset if ways.diverse else None)
        else:
            stage = rounds.folder / rounds.name(rounds.next, ids, labels) / "selection"
            taken, gains = _within(session, ranked, stage, pool, budget, per_class)
    else:
        selection = rounds.chosen(ids, labels, pool, budget).selection
        taken, gains = selection.ids, selection.gains
    return Choice(taken, gains, config.method, divided)


def meanwhile(session: "Session", n: int | str, per_class: PerClass | None = None) -> Choice | None:
    """By the last finished scores, without a training and without holding the folder; None where there are no scores."""
    last = last_scores(session.folder, session.labelled()) if session.ranks else None
    if last is None:
        return None
    store, config = session.store, session.config
    ranked, out = Ranked.read(last[0]), list(store.left_out())
    pool = np.setdiff1d(np.asarray(ranked.ids), np.union1d(store.asked(), out), assume_unique=True)
    divided = to_ask_again(store, session.ways.rule, n_left=len(pool))
    budget = _budget(session, n, pool, may_be_none=bool(divided))
    diverse = session.ways.diverse and session.is_read
    if per_class is None:
        taken, gains = best(config, ranked, pool, budget, session.dataset if diverse else None)
    else:
        taken, gains = _within(session, ranked, last[0], pool, budget, per_class)
    return Choice(taken, gains, f"{config.method}, by the scores of round {last[1]}", divided)


def untrained(session: "Session", n: int | str, per_class: PerClass | None = None) -> Choice:
    """As `meanwhile`, and at random where there are no scores, or the method chooses sets, which a trained model has to do."""
    if (choice := meanwhile(session, n, per_class)) is not None:
        return choice
    if per_class is not None:
        raise SettingError(
            "per_class goes by what the proxy takes examples for, and nothing is scored yet; ask without it, or when the "
            "training is done"
        )
    pool = session.unasked()
    divided = to_ask_again(session.store, session.ways.rule, n_left=len(pool))
    return _drawn(session, pool, _budget(session, n, pool, may_be_none=bool(divided)), divided)


def at_once(session: "Session", n: int) -> Choice | None:
    """As `meanwhile`, of all that is left where that is less; at random where there are no scores. None where nothing is left.

    Examples on which people are divided come again unless they wait for an answer already.
    """
    store, pool = session.store, session.unasked()
    waiting = {each.id for each in store.waiting()}
    divided = [id_ for id_ in to_ask_again(store, session.ways.rule, n_left=len(pool)) if id_ not in waiting]
    n = min(n, len(pool))
    if not n:
        return Choice(pool, None, "people are divided", divided) if divided else None
    try:
        choice = meanwhile(session, n)
    except BudgetError:  # the rest of the pool came after the last scores
        choice = None
    return _drawn(session, pool, n, divided) if choice is None else replace(choice, again=divided)


def _drawn(session: "Session", pool: NDArray[np.int64], n: int, divided: list[int]) -> Choice:
    """So many at random, for want of scores."""
    drawn = select("random", n, ids=pool, seed=session.config.seed).ids
    why = "no model has scored them yet" if session.ranks else f"{session.config.method} has to train a model first"
    return Choice(drawn, None, f"{AT_RANDOM}, as {why}", divided)


def second_look(session: "Session", n: int | None) -> Choice | None:
    """Labels that look wrong and were not offered again before, the worst first. The folder must be held."""
    if n is not None and n < 1:
        raise BudgetError(f"a second look at {n} labels is none; give 1 at least, or leave it out")
    doubts = judging.doubts(session)
    wrong = doubts.ids[: doubts.wrong]
    fresh = wrong[~np.isin(wrong, hindsight.asked_in(session.store, _looks(session)))][: n or REVIEWED]
    return Choice(wrong[:0], None, SECOND_LOOK, fresh.tolist()) if len(fresh) else None


def open_look(session: "Session") -> Batch | None:
    """What is left of the last second look; None where nothing is."""
    looks = _looks(session)
    return session.store.left_of(looks[-1]) if looks else None


def _looks(session: "Session") -> list[int]:
    return [r.round for r in session.store.rounds() if r.origin == SECOND_LOOK]


def _within(
    session: "Session", ranked: Ranked, stage: Path, pool: NDArray[np.int64], budget: int, per_class: PerClass
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The best of the pool within limits per class: of what the proxy takes examples for, what is labelled already counted."""
    if not (stage / "probs-0.npy").exists():
        raise SettingError(
            f"per_class goes by what the proxy takes examples for, and {session.config.method} asks it for no probabilities; "
            "make the session with margin, entropy or least_confidence"
        )
    here = np.isin(ranked.ids, pool)
    taken_for = np.asarray(read_array(stage / "probs-0.npy")).argmax(axis=1)[here]
    ids, labels = session.labelled()
    names = np.array(session.classes)
    taken = select(
        session.config.method,
        budget,
        scores=np.concatenate([np.asarray(ranked.scores)[here], np.zeros(len(ids))]),
        ids=np.concatenate([np.asarray(ranked.ids)[here], ids]),
        already=ids,
        labels=names[np.concatenate([taken_for, labels])],
        per_class=per_class,
        seed=session.config.seed,
    )
    return taken.ids, taken.gains


def _budget(session: "Session", n: int | str, pool: NDArray[np.int64], *, may_be_none: bool) -> int:
    if may_be_none and not len(pool):
        return 0
    try:
        budget = resolve_budget(n, len(pool))
    except BudgetError as error:
        n_labelled, n_all = len(session.labelled()[0]), session.n_examples
        way_out = f"ask for {len(pool)} at most (-n {len(pool)})" if len(pool) else "everything was asked"
        raise BudgetError(f"{error} ({n_labelled:,} of {n_all:,} are labelled already); {way_out}") from None
    if not budget:
        raise BudgetError(f"ask for one example at least; {len(pool):,} are unlabelled")
    return budget
