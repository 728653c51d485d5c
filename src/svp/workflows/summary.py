"""A session in numbers and words, for its report: who said what, how long it took, where people disagree, the last question."""

from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from typing import TYPE_CHECKING

import numpy as np

from svp.files import Json, read_array
from svp.labels import Answer, Batch, LabelStore, Round, moment
from svp.runs import SUMMARY_FORMAT
from svp.select import find_method
from svp.workflows import hindsight
from svp.workflows.people import SECOND_LOOK, last_scores

if TYPE_CHECKING:
    from svp.workflows.session import Session

SHOWN = 40  # examples of a list
PAUSE = 300.0  # seconds for an answer: longer ones were spent on something else
LEAST_GAPS = 5  # with fewer the time for an answer is not told

Said = dict[int, list[Answer]]  # what each person says of an example


def of(session: "Session") -> Json:
    """What session.json holds: `status`, and what the report shows beside it. Cost: passes over the answers."""
    store = session.store
    said: Said = {}
    for answer in store.said():
        said.setdefault(answer.id, []).append(answer)
    divided = [id_ for id_, answers in said.items() if len({_vote(a) for a in answers if _is_vote(a)}) > 1]
    return {
        "format": SUMMARY_FORMAT,
        "data": session.config.dataset,
        "method": session.config.method,
        "asks_model": find_method(session.config.method)[1].asks_model,
        "margin": session.config.margin,
        "n": session.n_examples,
        **session.status(),
        "rounds": [_round(r) for r in store.rounds()],
        "said_by": _said_by(said, session.classes),
        "seconds_by": _seconds_by(store),
        "taken_for": _taken_for(session),
        "batch": _last_batch(session, said),
        "divided": {"n": len(divided), "examples": _examples(session, divided[:SHOWN], said)},
        "second_looks": _second_looks(store),
    }


def _vote(answer: Answer) -> tuple[str, int | None]:
    return answer.kind, answer.label


def _is_vote(answer: Answer) -> bool:
    return answer.kind in ("label", "none")


def _word(answer: Answer, classes: Sequence[str]) -> str:
    return answer.kind if answer.label is None else classes[answer.label]


def _said_by(said: Said, classes: Sequence[str]) -> dict[str, dict[str, int]]:
    """How often each person says each word, those most said first."""
    counts: dict[str, Counter[str]] = {}
    for answers in said.values():
        for answer in answers:
            counts.setdefault(answer.who, Counter())[_word(answer, classes)] += 1
    return {who: dict(of.most_common()) for who, of in sorted(counts.items())}


def _seconds_by(store: LabelStore) -> dict[str, float | None]:
    """Median seconds that an answer takes a person; None where there is too little to go by.

    That is the time since the answer before, pauses left out. Answers of one instant (a file without times was told) share it.
    """
    times: dict[str, list[float]] = {}
    for who, when in store.times():
        if (at := moment(when)) is not None:
            times.setdefault(who, []).append(at)
    found: dict[str, float | None] = {}
    for who, of in sorted(times.items()):
        instants, together = np.unique(of, return_counts=True)
        each = np.diff(instants) / together[1:]
        each = each[each <= PAUSE]
        found[who] = float(np.median(each)) if len(each) >= LEAST_GAPS else None
    return found


def _round(asked: Round) -> Json:
    """A question, and the seconds from asking it until it was wholly answered, pauses and all."""
    took = None
    if asked.finished_at is not None:
        took = (datetime.fromisoformat(asked.finished_at) - datetime.fromisoformat(asked.asked_at)).total_seconds()
    return {
        "round": asked.round,
        "asked": asked.asked,
        "answered": asked.answered,
        "origin": asked.origin,
        "at": asked.asked_at,
        "seconds": took,
    }


def _taken_for(session: "Session") -> dict[str, int] | None:
    """Of each class, how many of those never asked the last finished proxy takes for it; None where it gave no probabilities."""
    last = last_scores(session.folder, session.labelled()) if session.ranks else None
    if last is None or not (last[0] / "probs-0.npy").exists():
        return None
    left = ~np.isin(read_array(last[0] / "ids.npy"), session.store.asked())
    taken_for = np.asarray(read_array(last[0] / "probs-0.npy")).argmax(axis=1)[left]
    counts = np.bincount(taken_for, minlength=len(session.classes))
    return dict(zip(session.classes, counts.tolist(), strict=True))


def _last_batch(session: "Session", said: Said) -> Json | None:
    """The last question that was no second look; None where nothing was asked."""
    asked = [b for b in session.store.history() if isinstance(b, Batch) and b.origin != SECOND_LOOK]
    if not asked:
        return None
    last = asked[-1]
    examples = _examples(session, last.ids[:SHOWN].tolist(), said)
    return {"round": last.round, "origin": last.origin, "n": len(last), "examples": examples}


def _examples(session: "Session", ids: list[int], said: Said) -> list[Json]:
    keys, guesses = session.store.keys(ids), session.guesses(np.array(ids, np.int64))
    return [
        {
            "id": id_,
            "key": keys[id_],
            "said": [[a.who, _word(a, session.classes)] for a in said.get(id_, [])],
            "guess": [session.classes[guesses[id_][0]], guesses[id_][1]] if id_ in guesses else None,
        }
        for id_ in ids
    ]


def _second_looks(store: LabelStore) -> Json:
    """How many labels were offered again, how many of these somebody has looked at since, and how many have changed by that."""
    looks = {r.round for r in store.rounds() if r.origin == SECOND_LOOK}
    offered = hindsight.asked_in(store, sorted(looks))
    open_ = [left.ids for round_ in looks if (left := store.left_of(round_)) is not None]
    before: dict[tuple[int, str], tuple[str, int | None]] = {}
    again: set[int] = set()
    changed: set[int] = set()
    for entry in store.history():
        if isinstance(entry, Batch):
            again |= set(entry.ids.tolist()) if entry.round in looks else set()
            continue
        key = (entry.id, entry.who)
        if entry.id in again and before.get(key, _vote(entry)) != _vote(entry):
            changed.add(entry.id)
        before[key] = _vote(entry)
    n_left = sum(map(len, open_))
    return {"offered": len(offered), "looked_at": len(offered) - n_left, "changed": len(changed)}
