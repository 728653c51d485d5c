"""The label store: what was asked, what was answered, by whom and when, in one file of events that only grows (`sealed.py`).

    classes     the name of each class number (events create, classes)
    questions   what was asked together: its round, and where the choice came from (ask)
    asked       the examples of a question in order of asking, with their scores
    answers     who said what about which example, and to which question (tell, pull, undo)
    undos       which tell or pull an undo took back: its rows in `answers` are what each person said before that
    examples    of a session with people: the number that each key was given when it was first seen (pool)
    prints      and the fingerprints of those that were listed at first, and read later (read)
    states      and which of them were gone, changed, or here again when somebody looked

A person's latest row about an example is that person's answer; nothing older is ever removed. An `ask` or `tell` that has
returned is on the disk; one that was interrupted has left nothing.
"""

import json
import operator
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import LabelError, SettingError, shortened
from svp.label_tables import (
    ALL_SAID,
    ANSWER,
    EARLIER,
    EXAMPLES,
    LAST_ASKED,
    LAST_TELL,
    LEFT,
    OPEN,
    PRINT,
    PULLED,
    ROUNDS,
    SAID,
    SAID_BEFORE,
    SCHEMA,
    STANDINGS,
    STATES,
    TIMES,
    TIMES_ASKED,
    TOLD,
    UNASKED,
    UNREAD,
    UP_TO,
    VERBS,
    WAITING,
    WEIGHT,
    WITH_PRINTS,
)
from svp.sealed import SealedFile

# What a person can say: a class (label), not to be asked about this one (skip), that it cannot be told (unsure), that it is of
# none of the classes (none). An answer that was taken back is withdrawn.
Kind = Literal["label", "skip", "unsure", "none", "withdrawn"]
WORDS: tuple[Kind, ...] = ("skip", "unsure", "none")
# Which answer of several people is the label: what most of them say, or what was said last.
Rule = Literal["majority", "latest"]


@dataclass(frozen=True, eq=False)
class Batch:
    """A question: examples to be labelled.

    ids     (n,) int64, distinct, in order of asking
    round   the ask-and-train step it belongs to
    scores  (n,) float64, why they were chosen, NaN where there was no score; None where there was none at all
    origin  how they were chosen, in words
    at      when they were asked, UTC in ISO form
    """

    ids: NDArray[np.int64]
    round: int
    scores: NDArray[np.float64] | None
    origin: str
    at: str

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True)
class Answer:
    """What one person, or an oracle, says of one example.

    label  a class number; None in any answer of another kind
    at     when, UTC in ISO form; None: when the store is told
    kind   label; or one of WORDS; or in a history and in a pull withdrawn: the person took back what was said
    round  of the question that is answered; None: the last in which the example was asked
    """

    id: int
    label: int | None
    who: str = "oracle"
    at: str | None = None
    kind: Kind = "label"
    round: int | None = None


@dataclass(frozen=True)
class Round:
    """How far a round has come; `finished_at` is when its last example was first answered, None before that."""

    round: int
    asked: int
    answered: int
    origin: str
    asked_at: str
    finished_at: str | None


@dataclass(frozen=True)
class Undone:
    """What an undo took back: how many answers, of whom, told when."""

    n: int
    who: tuple[str, ...]
    at: str


@dataclass(frozen=True)
class Waiting:
    """An example that is asked and not answered: in which round, how it was chosen; `again`: people are divided on it."""

    id: int
    round: int
    origin: str
    again: bool


@dataclass(frozen=True)
class Standing:
    """What the answers about one example come to.

    kind    label, none (of the classes), tie (asked again), or open: nobody has said what it is
    label   the class number; or None
    people  how many said a class, or none of them
    """

    id: int
    kind: Literal["label", "none", "tie", "open"]
    label: int | None
    people: int


class LabelStore(SealedFile):
    """Questions and answers in one file: `with LabelStore.open(path) as store: ...`."""

    WHAT = "label store"
    APPLICATION = 0x7376704C  # "svpL"
    FORMAT = 4
    SCHEMA = SCHEMA
    VERBS = VERBS

    @classmethod
    def create(cls, path: str | os.PathLike[str], classes: Sequence[str]) -> Self:
        """A new store for answers out of `classes`; the file appears complete or not at all.

        Raises SettingError for classes that are none, unnamed or repeated, StorageError where there is a file already.
        """
        rows = [{"number": number, "name": name} for number, name in enumerate(_as_classes(classes))]
        return cls._make(Path(path), [{"verb": "create", "rows": rows}])

    @classmethod
    def restore(cls, path: str | os.PathLike[str], events: Iterable[Mapping[str, Any]]) -> Self:
        """A new store with all that `events` of another gave, to the byte. Raises DataError where that is not as it was."""
        return cls._make(Path(path), events)

    # --- classes and examples ---------------------------------------------------------------------------------------------

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class number."""
        return tuple(name for (name,) in self._read("SELECT name FROM classes ORDER BY number"))

    def add_classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """Classes that nobody thought of before, behind those there are. Returns all. Raises SettingError as `create`."""
        new = _as_classes(names)
        with self._event("classes") as (event, _):
            known = self.classes
            if twice := set(new) & set(known):
                raise SettingError(f"Class {sorted(twice)[0]!r} is there already; the classes are {', '.join(known)}")
            self._put("classes", event, [{"number": len(known) + i, "name": name} for i, name in enumerate(new)])
        return (*known, *new)

    def meet(self, new: Sequence[tuple[str, str]], states: Mapping[int, str]) -> int:
        """Number new examples, (key, fingerprint of the content) each, and note which known ones are `gone`, `changed` or `here`.

        Numbers go on behind the highest; none is given twice. Returns the first of the new ones.
        """
        with self._event("pool") as (event, _):
            (first,) = self._db.execute("SELECT coalesce(max(id) + 1, 0) FROM examples").fetchone()
            rows = [{"state": "new", "id": first + i, "key": key, "print": seen} for i, (key, seen) in enumerate(new)]
            more = [{"state": state, "id": id_, "key": None, "print": None} for id_, state in states.items()]
            self._put("pool", event, rows + more)
        return int(first)

    def number(self, ids: ArrayLike, keys: Sequence[str], prints: Sequence[str]) -> None:
        """The first examples of all, with the ids that their data set gave them; a fingerprint is "" until they are read."""
        rows = zip(np.asarray(ids).tolist(), keys, prints, strict=True)
        with self._event("pool") as (event, _):
            self._put("pool", event, [{"state": "new", "id": i, "key": key, "print": seen} for i, key, seen in rows])

    def read(self, prints: Mapping[int, str]) -> None:
        """The fingerprints of examples that had none until now."""
        with self._event("read") as (event, _):
            self._put("read", event, [{"id": id_, "print": seen} for id_, seen in prints.items()])

    def examples(self) -> list[tuple[int, str, str, str]]:
        """(id, key, fingerprint when first seen, state) of all that were ever numbered, by id; state: here, gone, changed."""
        return self._read(EXAMPLES)

    def last_pool(self) -> str:
        """The seal of the last event about the examples: while it is the same, so is what `examples` gives."""
        found = self._read("SELECT seal FROM events WHERE verb IN ('pool', 'read') ORDER BY event DESC LIMIT 1")
        return str(found[0][0]) if found else ""

    def n_examples(self) -> int:
        """How many examples were ever numbered; 0 in a session that is none of people."""
        return int(self._read("SELECT count(*) FROM examples")[0][0])

    def keys(self, ids: Iterable[int]) -> dict[int, str]:
        """The key of each numbered example."""
        with_key = "SELECT key FROM examples WHERE id = ?"
        return {id_: row[0][0] for id_ in ids if (row := self._read(with_key, int(id_)))}

    def print_of(self, id_: int) -> str | None:
        """The fingerprint with which an example was first seen; None where it was never numbered."""
        found = self._read(PRINT, int(id_))
        return str(found[0][0]) if found else None

    def has_unread(self) -> bool:
        """Are there examples that were listed, and never read?"""
        return bool(self._read(UNREAD)[0][0])

    def with_prints(self, prints: Iterable[str]) -> dict[str, int]:
        """The first example with each of these fingerprints, of those that any has. Cost: a pass over the examples."""
        return dict(self._read(WITH_PRINTS, json.dumps(list(prints))))

    def id_of(self, key: str) -> int | None:
        """The number of the example with this key; None where there is none."""
        found = self._read("SELECT id FROM examples WHERE key = ?", key)
        return int(found[0][0]) if found else None

    def left_out(self) -> dict[int, str]:
        """Which examples were gone or changed when somebody last looked."""
        return {id_: state for id_, state in self._read(STATES) if state != "here"}

    # --- ask ---------------------------------------------------------------------------------------------------------------

    def ask(
        self,
        ids: ArrayLike,
        *,
        round: int,
        scores: ArrayLike | None = None,
        origin: str,
        again: ArrayLike = (),
    ) -> Batch:
        """Store a question; it is on the disk when this returns.

        ids     (n,) distinct integers >= 0 that were never asked before, in order of asking
        round   above the round of every question before
        scores  (n,) finite, or None
        origin  how they were chosen, in words
        again   (m,) ids that were answered before and are to be looked at once more; they come first, n + m >= 1
        Raises LabelError, and stores nothing, for anything else. Cost: n lookups.
        """
        second = np.asarray(again, np.int64).reshape(-1)
        wanted, reasons = _as_question(ids, scores, second)
        why = [None] * len(wanted) if reasons is None else [None if np.isnan(s) else s for s in reasons.tolist()]
        with self._event("ask") as (event, at):
            (free,) = self._db.execute("SELECT coalesce(max(round) + 1, 0) FROM questions").fetchone()
            if (round := _as_int(round, "A round")) < free:
                raise LabelError(f"Round {round} cannot be asked any more; the next one is {free}")
            for i, id_ in enumerate(wanted.tolist()):
                earlier = self._db.execute(EARLIER, (id_,)).fetchone()
                if i < len(second):
                    if not (earlier and earlier[1]):
                        raise LabelError(f"Example {id_} was not answered yet, so it cannot be asked again")
                elif earlier:
                    state = "was answered" if earlier[1] else "is asked and not answered yet"
                    raise LabelError(f"Example {id_} {state} (round {earlier[0]}); ask about others")
            asked = zip(wanted.tolist(), why, strict=True)
            self._put("ask", event, [{"round": round, "origin": origin, "id": i, "score": s} for i, s in asked])
        return Batch(wanted, round, reasons, origin, at)

    def open_question(self) -> Batch | None:
        """What remains of the oldest question that is not wholly answered, in order of asking; None where all are.

        What was asked again remains until somebody says something new, but a question of which nothing else remains counts as
        answered: two people who disagree keep nobody waiting. Cost: a lookup for every example asked before the first open one.
        """
        rows = self._read(OPEN)
        return _batch(rows, rows[0][-1]) if rows else None

    def left_of(self, round: int) -> Batch | None:
        """What remains of the question of a round: not answered since it was asked; None where all is, or there is no such one.

        What was asked again, a second look, counts as answered once somebody has said something of it since.
        """
        rows = self._read(LEFT, round)
        return _batch(rows, rows[0][-1]) if rows else None

    def waiting(self) -> list[Waiting]:
        """What remains of all questions, each example once, in order of asking: what `open_question` gives of the oldest alone.

        Cost: a lookup for every example asked.
        """
        rows = {
            id_: Waiting(id_, round_, origin, bool(again)) for id_, round_, origin, again in self._read(WAITING)[::-1]
        }
        return list(rows.values())[::-1]

    def times_asked(self, id_: int, but: str) -> int:
        """In how many questions an example was, those of the origin `but` not counted."""
        return int(self._read(TIMES_ASKED, id_, but)[0][0])

    def asked(self) -> NDArray[np.int64]:
        """(m,) ids that were ever asked, ascending."""
        rows = self._read("SELECT DISTINCT id FROM asked ORDER BY id")
        return np.array(rows, np.int64).reshape(-1)

    def unasked(self) -> NDArray[np.int64]:
        """(m,) numbered examples that were never asked and are here, ascending. Cost: a pass over them."""
        return np.array(self._read(UNASKED), np.int64).reshape(-1)

    # --- tell --------------------------------------------------------------------------------------------------------------

    def tell(
        self,
        answers: Mapping[int, int | Kind] | Sequence[Answer],
        *,
        who: str = "oracle",
        replace: bool = False,
    ) -> int:
        """Store answers, all or none of them, and return how many were new; they are on the disk when this returns.

        answers  class numbers or WORDS by id, all by `who`; or Answers, each with its own; any part, in any order
        replace  let a person's answer take the place of an older, different one, which stays in the history
        An answer given before changes nothing. Answers of several people are all kept. Where an example was asked again since a
        person answered, what is said now takes the place of that without `replace`, and the same once more says that it was
        looked at again; not where `at` is earlier than that question, or `round` that of one before: then it is the old answer,
        told again.
        Raises LabelError for an example that was never asked, or not in that round, a class that does not exist, and without
        `replace` for a person's second, different answer. Cost: two lookups an answer; 10,000 take about 0.2 s.
        """
        return len(self._put_said("tell", _as_answers(answers, who), WORDS, replace=replace))

    def pull(self, answers: Sequence[Answer]) -> tuple[int, int]:
        """Store what a labelling server says by now, as `tell` with replace does: how many are new, and how many withdrawn.

        answers  those of the kind withdrawn were deleted there
        """
        rows = self._put_said("pull", _as_answers(answers, ""), (*WORDS, "withdrawn"), replace=True)
        withdrawn = sum(row["kind"] == "withdrawn" for row in rows)
        return len(rows) - withdrawn, withdrawn

    def pulled(self) -> set[tuple[int, str]]:
        """(example, person) of the answers that hold and came by a pull. Cost: a pass over the answers."""
        return set(self._read(PULLED))

    def _put_said(
        self, verb: str, given: list[Answer], words: tuple[Kind, ...], *, replace: bool
    ) -> list[dict[str, Any]]:
        """An event of what is new of these answers, and its rows. words: which kinds there may be beside labels."""
        with self._event(verb) as (event, at):
            names = self.classes
            said: dict[tuple[int, str], tuple[str, int | None, int] | None] = {}
            new = []
            for answer in given:
                id_, now = _as_int(answer.id, "The id of an answer"), _as_said(answer, names, words)
                if not _is_text(answer.who):
                    raise LabelError(f"Example {id_}: {answer.who!r} gives no answers; give the name of who does")
                if not (answer.at is None or _is_text(answer.at)):
                    raise LabelError(f"Example {id_}: {answer.at!r} is no time; give it in ISO form, or leave it out")
                question, asked_at = self._question(id_, answer.round)
                key = (id_, answer.who)
                if key not in said:
                    said[key] = self._said(*key)
                before = said[key]
                if before is None and now[0] == "withdrawn":
                    continue
                looks_again = before is not None and before[2] < question and not _is_earlier(answer.at, asked_at)
                if before is not None and now == before[:2] and not looks_again:
                    continue
                if before is not None and not (replace or looks_again):
                    raise LabelError(
                        f"Example {id_}: {answer.who} answered {_in_words(before[:2], names)} before and "
                        f"{_in_words(now, names)} now; to change the answer, tell it with replace (--replace)"
                    )
                # An old answer leaves no later question unanswered.
                question = max(question, before[2] if before else 0)
                said[key] = None if now[0] == "withdrawn" else (*now, question)
                row = (question, id_, answer.who, *now, answer.at or at)
                new.append(dict(zip(ANSWER, row, strict=True)))
            self._put(verb, event, new)
        return new

    def _question(self, id_: int, round_: int | None) -> tuple[int, str]:
        """The question of this round with this example, or the last, and when it was asked; LabelError where there is none."""
        found = self._db.execute(LAST_ASKED, (id_, round_)).fetchone()
        if found is None and round_ is not None and self._db.execute(LAST_ASKED, (id_, None)).fetchone():
            raise LabelError(f"Example {id_} was not asked in round {round_}; correct the round, or leave it out")
        if found is None:
            raise LabelError(f"Example {id_} was never asked; only what was asked can be answered")
        return int(found[0]), str(found[1])

    def last_told(self, who: str) -> list[int]:
        """The examples of this person's last tell; none where there is none."""
        last = self._read(LAST_TELL, who)
        return [id_ for _, id_, person in self._read(TOLD, last[0][0]) if person == who] if last else []

    def undo(self, who: str | None = None) -> Undone:
        """Take back the last tell or pull (of `who`) that was not taken back yet: all answers are again what they were.

        The history keeps everything. Raises LabelError where nothing is left, and where others answered in that of `who`, too.
        """
        with self._event("undo") as (event, at):
            last = self._db.execute(LAST_TELL, (who,)).fetchone()
            if last is None:
                raise LabelError(f"There is nothing to undo{f' of {who}' if who else ''}")
            undone, told_at = last
            told = self._db.execute(TOLD, (undone,)).fetchall()
            people = tuple(sorted({person for *_, person in told}))
            if who is not None and people != (who,):
                others = ", ".join(person for person in people if person != who)
                raise LabelError(
                    f"{who}'s last answers came together with those of {others}, and go together; undo without a name (--who) "
                    "takes back what was told last"
                )
            rows = []
            for question, id_, person in told:
                said = self._db.execute(SAID_BEFORE, (id_, person, undone)).fetchone()
                of, *before = said or (question, "withdrawn", None)
                rows.append(dict(zip(ANSWER, (of, id_, person, *before, at), strict=True)))
            self._put("undo", event, [{"undone": undone, **row} for row in rows])
        return Undone(len(rows), people, told_at)

    def answered(self, id_: int, who: str) -> bool:
        """Has this person said something of this example since it was last asked, that still holds?"""
        said, asked = self._said(id_, who), self._read(LAST_ASKED, id_, None)
        return said is not None and said[2] >= asked[0][0]

    def _said(self, id_: int, who: str) -> tuple[str, int | None, int] | None:
        """What a person says of an example, and to which question; None where nothing, or where it was withdrawn."""
        said: tuple[str, int | None, int] | None = self._db.execute(SAID, (id_, who)).fetchone()
        return None if said is None or said[0] == "withdrawn" else said

    def changes(self, since: int = 0) -> list[tuple[int, str]]:
        """(number, verb) of the events behind event `since`: whether another process has told or asked something."""
        return self._read("SELECT event, verb FROM events WHERE event > ? ORDER BY event", since)

    # --- what it comes to --------------------------------------------------------------------------------------------------

    def labels(self, rule: Rule = "majority") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(m,) ids in ascending order and their (m,) class numbers: what `rule` makes of the answers about each example.

        majority  the class that most people say, where no other is said as often
        latest    what was said last
        """
        return self.labelled_after(2**63 - 1, rule)

    def labelled_after(self, round: int, rule: Rule = "majority") -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same, of the examples first asked in rounds up to and including `round`, whenever the answers came.

        So a round that is trained again sees exactly the examples it saw at first, in the same order, and a correction too.
        """
        last = operator.index(round)
        known = [(s.id, s.label) for s in self.standings(rule) if s.kind == "label"]
        pairs = np.array(known, np.int64).reshape(-1, 2)
        if last < 2**63 - 1:
            first = np.array(self._read(UP_TO, last), np.int64).reshape(-1)
            pairs = pairs[np.isin(pairs[:, 0], first)]
        return pairs[:, 0].copy(), pairs[:, 1].copy()

    def standings(self, rule: Rule = "majority", id_: int | None = None) -> list[Standing]:
        """What the answers come to about every example that somebody answered, by id; or about this one alone.

        Cost: a pass over the answers; of one example a lookup.
        """
        if rule not in WEIGHT:
            raise SettingError(f"The label of several answers is that of the {' or the '.join(WEIGHT)}; got {rule!r}")
        of, values = ("", ()) if id_ is None else ("WHERE id = ?", (id_,))
        return [Standing(*row) for row in self._read(STANDINGS.format(weight=WEIGHT[rule], of=of), *values)]

    def said(self) -> list[Answer]:
        """Each person's answer about each example as it stands, by example and time. Cost: a pass over the answers."""
        return [
            Answer(id_, label, who, at, kind) for id_, who, kind, label, at, _ in self._read(ALL_SAID.format(of=""))
        ]

    def times(self) -> list[tuple[str, str]]:
        """(who, when) of every answer that was told, in the order of telling; those taken back since are among them."""
        return self._read(TIMES)

    def rounds(self) -> list[Round]:
        """What has been asked, and how far each round has come. Cost: a lookup for every example asked."""
        return [Round(*row) for row in self._read(ROUNDS)]

    def history(self) -> Iterator[Batch | Answer]:
        """All questions and answers in the order in which they were stored, replaced ones included.

        Of an undo, what each person says since then. Memory: one `tell` at a time.
        """
        told = "SELECT event, verb, at FROM events WHERE verb IN ('ask', 'tell', 'pull', 'undo') ORDER BY event"
        for event, verb, at in self._read(told):
            rows = self._read(self.VERBS[verb].select, event)
            if verb == "ask":
                yield _batch(rows, at)
            else:
                for _, id_, who, kind, label, when in (row[-len(ANSWER) :] for row in rows if row[-1] is not None):
                    yield Answer(id_, label, who, when, kind)


def _batch(rows: list[Any], at: str) -> Batch:
    """The question in rows of (round, origin, id, score, ...)."""
    scores = None if all(row[3] is None for row in rows) else np.array([row[3] for row in rows], np.float64)
    return Batch(np.array([row[2] for row in rows], np.int64), rows[0][0], scores, rows[0][1], at)


def _as_classes(classes: Sequence[str]) -> list[str]:
    names = [classes] if isinstance(classes, str) else list(classes)
    if isinstance(classes, str) or not names or not all(map(_is_text, names)):
        raise SettingError(f"Classes are a list of names, at least one; got {classes!r}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingError(f"Class {twice!r} is named twice; give each class its own name")
    return names


def _as_question(
    ids: ArrayLike, scores: ArrayLike | None, again: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Check what is to be asked, what is asked again first; copies, so that a batch stays what was stored."""
    given = np.asarray(ids)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise LabelError(f"Ids have shape {given.shape} and type {given.dtype}; give a list of integers")
    if not given.size and not again.size:
        raise LabelError("There is nothing to ask; give at least one id")
    wanted = np.concatenate([again, given.astype(np.int64)])
    if wanted.min() < 0:
        raise LabelError(f"Ids go down to {wanted.min()}; they start at 0")
    values, counts = np.unique(wanted, return_counts=True)
    if len(values) < len(wanted):
        raise LabelError(f"Example {values[counts > 1][0]} is asked twice in one question; ask once")
    if scores is None:
        return wanted, None
    reasons = np.array(scores, np.float64)
    if reasons.shape != given.shape or not np.isfinite(reasons).all():
        raise LabelError(f"Scores have shape {reasons.shape} for {len(given)} ids; give one finite number per id")
    return wanted, np.concatenate([np.full(len(again), np.nan), reasons])


def _index(value: Any) -> int:
    """The whole number that `value` is, else -1; True and False are none, though Python takes them for 1 and 0."""
    try:
        return -1 if isinstance(value, bool | np.bool_) else operator.index(value)
    except TypeError:
        return -1


def _as_int(value: Any, what: str) -> int:
    number = _index(value)
    if not 0 <= number < 2**63:
        raise LabelError(f"{what} is {value!r}; it must be an integer, 0 or more")
    return number


def _as_answers(answers: Any, who: str) -> list[Answer]:
    """Answers by id, or each with its own name, in the latter form."""
    if isinstance(answers, Mapping):
        return [
            Answer(id_, None, who, None, said) if said in WORDS else Answer(id_, said, who)
            for id_, said in answers.items()
        ]
    given = list(answers) if isinstance(answers, Iterable) else [answers]
    if strange := [answer for answer in given if not isinstance(answer, Answer)]:
        raise LabelError(
            f"{shortened(repr(strange[0]))} is no answer; give class numbers by id, such as {{12: 0}}, "
            "or a list of svp.labels.Answer"
        )
    return given


def _is_text(value: Any) -> bool:
    """Some text that can be stored: parts of broken characters (lone surrogates) cannot."""
    return isinstance(value, str) and bool(value) and not any("\ud800" <= char <= "\udfff" for char in value)


def _as_said(answer: Answer, names: tuple[str, ...], words: tuple[Kind, ...]) -> tuple[str, int | None]:
    """The kind and the label of an answer, if it is one that can be given."""
    if answer.kind != "label":
        if answer.kind not in words or answer.label is not None:
            raise LabelError(
                f"Example {answer.id}: {answer.kind!r} with the label {answer.label!r} is no answer; give a class number, or one "
                f"of {', '.join(WORDS)} without a label"
            )
        return answer.kind, None
    number = _index(answer.label)
    if not 0 <= number < len(names):
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(names[:20]))
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        raise LabelError(f"Example {answer.id}: {answer.label!r} is not a class number; the classes are {listed}{more}")
    return "label", number


def moment(at: str) -> float | None:
    """Seconds since 1970 of a time in ISO form, UTC where it names no zone; None where it cannot be read."""
    try:
        time = datetime.fromisoformat(at)
        return (time if time.tzinfo else time.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        return None


def _is_earlier(at: str | None, than: str) -> bool:
    """Is a time, if one is given, before another? One that cannot be read is."""
    given, other = moment(at or than), moment(than)
    return given is None or other is None or given < other


def _in_words(said: tuple[str, int | None], names: tuple[str, ...]) -> str:
    return said[0] if said[1] is None else names[said[1]]
