"""The label store: what was asked, what was answered, by whom and when, in one SQLite file that only grows.

    events      one row per change and transaction: its number, what it was (create, ask, tell), when, and its seal
    classes     the name of each class number
    questions   what was asked together: its round, and where the choice came from
    asked       the examples of a question in order of asking, with their scores
    answers     who said what (`kind`: so far always "label") about which example of which question

Nothing is updated or deleted (triggers refuse it): a corrected answer is a new row, and the latest row of an example is
its label. An `ask` or `tell` that has returned is on the disk; one that was interrupted has left nothing. Several
processes may use one file at once.

An event's seal is the SHA-256 of the seal before it and of the event's own rows, as JSON. `LabelStore.open` checks the
whole chain, so a file whose contents have changed is refused, also where SQLite itself sees nothing wrong. The file is
in WAL mode: while it is open the newest changes are in `NAME-wal` beside it, and a copy needs both; the last process to
close it folds them into one.
"""

import hashlib
import json
import operator
import os
import sqlite3
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import LabelError, SettingError, StorageError

APPLICATION = 0x7376704C  # "svpL", in the file's header
FORMAT = 1  # raised when an older svp could no longer read what is written
BUSY_SECONDS = 30.0  # how long one process waits for another's transaction, of milliseconds

_SCHEMA = f"""
PRAGMA application_id = {APPLICATION};
PRAGMA user_version = {FORMAT};
CREATE TABLE events (
    event    INTEGER PRIMARY KEY,
    verb     TEXT NOT NULL,
    at       TEXT NOT NULL,
    seal     TEXT NOT NULL
);
CREATE TABLE classes (
    number   INTEGER PRIMARY KEY,
    name     TEXT NOT NULL UNIQUE,
    event    INTEGER NOT NULL REFERENCES events DEFERRABLE INITIALLY DEFERRED
);
CREATE TABLE questions (
    event    INTEGER PRIMARY KEY REFERENCES events DEFERRABLE INITIALLY DEFERRED,
    round    INTEGER NOT NULL,
    origin   TEXT NOT NULL
);
CREATE TABLE asked (
    question INTEGER NOT NULL REFERENCES questions,
    rank     INTEGER NOT NULL,
    id       INTEGER NOT NULL,
    score    REAL,
    PRIMARY KEY (question, rank),
    UNIQUE (id, question)
) WITHOUT ROWID;
CREATE TABLE answers (
    answer   INTEGER PRIMARY KEY,
    event    INTEGER NOT NULL REFERENCES events DEFERRABLE INITIALLY DEFERRED,
    question INTEGER NOT NULL,
    id       INTEGER NOT NULL,
    who      TEXT NOT NULL,
    kind     TEXT NOT NULL,
    label    INTEGER REFERENCES classes,
    at       TEXT NOT NULL,
    CHECK ((kind = 'label') = (label IS NOT NULL)),
    FOREIGN KEY (id, question) REFERENCES asked (id, question)
);
CREATE INDEX answers_by_example ON answers (id, question, who);
CREATE INDEX answers_by_event ON answers (event);
""" + "".join(
    f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{table} only grows'); END;\n"
    for table in ("events", "classes", "questions", "asked", "answers")
    for verb in ("update", "delete")
)

# What belongs to an event: the rows that its seal covers, and that its history is read from.
_ROWS = {
    "create": "SELECT number, name FROM classes WHERE event = ? ORDER BY number",
    "ask": """SELECT round, origin, id, score FROM questions JOIN asked ON question = event
              WHERE event = ? ORDER BY rank""",
    "tell": "SELECT question, id, who, kind, label, at FROM answers WHERE event = ? ORDER BY answer",
}

_NEXT_STEP = {
    sqlite3.SQLITE_FULL: "is on a full disk; free some space and repeat the command (what was stored before is intact)",
    sqlite3.SQLITE_BUSY: "is in use by another process; repeat the command when that one has finished",
    sqlite3.SQLITE_READONLY: "cannot be written; allow writing to the file and its folder, or copy them elsewhere",
    sqlite3.SQLITE_PERM: "cannot be written; allow writing to the file and its folder, or copy them elsewhere",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check that it is a file, and that its folder may be written",
    sqlite3.SQLITE_IOERR: "cannot be read or written; check the disk and repeat the command",
    sqlite3.SQLITE_CORRUPT: "is damaged; put back a copy of it",
    sqlite3.SQLITE_NOTADB: "is damaged or is not a label store; put back a copy of it, or name another file",
}


@dataclass(frozen=True, eq=False)
class Batch:
    """A question: examples to be labelled.

    ids     (n,) int64, distinct, in order of asking
    round   the ask-and-train step it belongs to
    scores  (n,) float64, why they were chosen; None where there was no score
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

    label  a class number; None is kept for answers other than a label, which no store takes yet
    at     when, UTC in ISO form; None: when the store is told
    """

    id: int
    label: int | None
    who: str = "oracle"
    at: str | None = None


@dataclass(frozen=True)
class Round:
    """How far a round has come; `finished_at` is when its last example was first answered, None before that."""

    round: int
    asked: int
    answered: int
    origin: str
    asked_at: str
    finished_at: str | None


class LabelStore:
    """Questions and answers in one file: `with LabelStore.open(path) as store: ...`.

    All methods raise StorageError where the file cannot be read or written. One object belongs to one thread.
    """

    def __init__(self, path: Path, db: sqlite3.Connection) -> None:
        self.path = path
        self._open_db: sqlite3.Connection | None = db

    @property
    def _db(self) -> sqlite3.Connection:
        if self._open_db is None:
            raise StorageError(f"{self.path} is closed; open it again")
        return self._open_db

    @classmethod
    def create(cls, path: str | os.PathLike[str], classes: Sequence[str]) -> Self:
        """A new store for answers out of `classes`; the file appears complete or not at all.

        Raises SettingError for classes that are none, unnamed or repeated, StorageError where there is a file already.
        """
        path, names = Path(path), _as_classes(classes)
        try:
            with tempfile.TemporaryDirectory(prefix=f".{path.name}-", dir=path.parent) as folder:
                draft = Path(folder) / path.name
                # Not yet in WAL mode: there the file is whole only once `close` has folded the log into it, and on a full
                # disk `close` fails without a word.
                with _named(path), closing(_connect(draft, "rwc")) as db:
                    db.executescript(_SCHEMA)
                    with cls(path, db)._event("create") as (event, _):
                        rows = [(number, name, event) for number, name in enumerate(names)]
                        db.executemany("INSERT INTO classes VALUES (?, ?, ?)", rows)
                _place(draft, path)
        except FileExistsError as error:
            raise StorageError(f"{path} exists; open it, or give another name to a new label store") from error
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"{path} cannot be created ({reason}); check its folder and the space left") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """The store in an existing file, checked as a whole: about 5 microseconds an example asked and an answer.

        Raises StorageError for a file that is missing, damaged, not a label store, or of a newer format.
        """
        path = Path(path)
        if not path.exists():
            raise StorageError(f"There is no label store at {path}; create it first, or check the name")
        with _named(path):
            db = _connect(path, "rw")
            try:
                store = cls(path, db)
                store._check()
                db.execute("PRAGMA journal_mode = WAL")
            except BaseException:
                db.close()
                raise
        return store

    def close(self) -> None:
        """Close the file. Nothing depends on it being called: what was acknowledged is stored."""
        if self._open_db is not None:
            self._open_db.close()
        self._open_db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class number."""
        return tuple(name for (name,) in self._read("SELECT name FROM classes ORDER BY number"))

    def ask(self, ids: ArrayLike, *, round: int, scores: ArrayLike | None = None, origin: str) -> Batch:
        """Store a question; it is on the disk when this returns.

        ids     (n,) distinct integers >= 0 that were never asked before, in order of asking, n >= 1
        round   above the round of every question before
        scores  (n,) finite, or None
        origin  how they were chosen, in words
        Raises LabelError, and stores nothing, for anything else. Cost: n lookups.
        """
        wanted, reasons = _as_question(ids, scores)
        why = [None] * len(wanted) if reasons is None else reasons.tolist()
        with self._event("ask") as (event, at):
            (free,) = self._db.execute("SELECT coalesce(max(round) + 1, 0) FROM questions").fetchone()
            if (round := _as_int(round, "A round")) < free:
                raise LabelError(f"Round {round} cannot be asked any more; the next one is {free}")
            for id_ in wanted.tolist():
                if earlier := self._db.execute(_EARLIER, (id_,)).fetchone():
                    state = "was answered" if earlier[1] else "is asked and not answered yet"
                    raise LabelError(f"Example {id_} {state} (round {earlier[0]}); ask about others")
            self._db.execute("INSERT INTO questions VALUES (?, ?, ?)", (event, round, origin))
            rows = [
                (event, rank, id_, score) for rank, (id_, score) in enumerate(zip(wanted.tolist(), why, strict=True))
            ]
            self._db.executemany("INSERT INTO asked VALUES (?, ?, ?, ?)", rows)
        return Batch(wanted, round, reasons, origin, at)

    def open_question(self) -> Batch | None:
        """What remains of the oldest question that is not wholly answered, in order of asking; None where all are.

        Cost: a lookup for every example asked before the first open one.
        """
        rows = self._read(_OPEN)
        return _batch(rows, rows[0][-1]) if rows else None

    def tell(self, answers: Mapping[int, int] | Sequence[Answer], *, who: str = "oracle", replace: bool = False) -> int:
        """Store answers, all or none of them, and return how many were new; they are on the disk when this returns.

        answers  class numbers by id, all by `who`; or Answers, each with its own; any part, in any order
        replace  let a person's answer take the place of an older, different one, which stays in the history
        An answer given before changes nothing. Answers of several people are all kept; the label is the latest.
        Raises LabelError for an example that was never asked, a class that does not exist, and without `replace` for a
        person's second, different answer. Cost: two lookups an answer; 10,000 take about 0.2 s.
        """
        given = _as_answers(answers, who)
        with self._event("tell") as (event, at):
            names = self.classes
            said: dict[tuple[int, int, str], int] = {}
            new = []
            for answer in given:
                id_, label = _as_int(answer.id, "The id of an answer"), _as_label(answer, names)
                if not _is_text(answer.who):
                    raise LabelError(f"Example {id_}: {answer.who!r} gives no answers; give the name of who does")
                if not (answer.at is None or _is_text(answer.at)):
                    raise LabelError(f"Example {id_}: {answer.at!r} is no time; give it in ISO form, or leave it out")
                (question,) = self._db.execute("SELECT max(question) FROM asked WHERE id = ?", (id_,)).fetchone()
                if question is None:
                    raise LabelError(f"Example {id_} was never asked; only what was asked can be answered")
                key = (id_, question, answer.who)
                before = said[key] if key in said else next(iter(self._db.execute(_SAID, key)), (None,))[0]
                if label == before:
                    continue
                if before is not None and not replace:
                    raise LabelError(
                        f"Example {id_}: {answer.who} answered {names[before]} before and {names[label]} now; "
                        f"to change the answer, tell it with replace"
                    )
                said[key] = label
                new.append((event, question, id_, answer.who, label, answer.at or at))
            self._db.executemany("INSERT INTO answers VALUES (NULL, ?, ?, ?, ?, 'label', ?, ?)", new)
        return len(new)

    def labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(m,) ids in ascending order and their (m,) class numbers: the latest answer about each labelled example."""
        return self.labelled_after(2**63 - 1)

    def labelled_after(self, round: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The same, by the answers to the questions of rounds up to and including `round`, whenever they came.

        So a round that is trained again sees exactly the examples it saw at first, in the same order. A correction
        belongs to the question it answers, so that round sees it too.
        """
        pairs = np.array(self._read(_LABELS, operator.index(round)), np.int64).reshape(-1, 2)
        return pairs[:, 0].copy(), pairs[:, 1].copy()

    def rounds(self) -> list[Round]:
        """What has been asked, and how far each round has come. Cost: a lookup for every example asked."""
        return [Round(*row) for row in self._read(_ROUNDS)]

    def history(self) -> Iterator[Batch | Answer]:
        """All questions and answers in the order in which they were stored, replaced ones included.

        Asking and telling them again (with `replace`) gives the same labels. Memory: one `tell` at a time.
        """
        for event, verb, at in self._read("SELECT event, verb, at FROM events WHERE verb <> 'create' ORDER BY event"):
            rows = self._read(_ROWS[verb], event)
            if verb == "ask":
                yield _batch(rows, at)
            else:
                yield from (Answer(id_, label, who, when) for _, id_, who, _, label, when in rows)

    @contextmanager
    def _event(self, verb: str) -> Iterator[tuple[int, str]]:
        """One transaction: gives the number and time of a new event, and seals it once the block has stored its rows.

        A block that raises leaves nothing behind; one that stores no rows makes no event.
        """
        db, at = self._db, utc_now()
        with _named(self.path):
            try:
                db.execute("BEGIN IMMEDIATE")
                last, seal = db.execute(_LAST).fetchone() or (0, "")
                event = last + 1
                yield event, at
                if rows := db.execute(_ROWS[verb], (event,)).fetchall():
                    seal = _seal(seal, event, verb, at, rows)
                    db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (event, verb, at, seal))
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # after a full disk SQLite may have rolled back by itself
                    db.execute("ROLLBACK")
                raise

    def _read(self, sql: str, *values: Any) -> list[Any]:
        with _named(self.path):
            return self._db.execute(sql, values).fetchall()

    def _check(self) -> None:
        """Refuse a file that is not ours, newer than this code, or not as it was written."""
        db = self._db
        (application,) = db.execute("PRAGMA application_id").fetchone()
        (version,) = db.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION:
            raise StorageError(f"{self.path} is not a label store; name another file, or put back a copy of it")
        if version > FORMAT:
            raise StorageError(
                f"{self.path} was written by a newer svp (format {version}, this one reads {FORMAT}); "
                f"upgrade with: pip install -U selection-via-proxy"
            )
        (verdict,) = db.execute("PRAGMA integrity_check(1)").fetchone()
        seal = ""
        for event, verb, at, sealed in db.execute("SELECT event, verb, at, seal FROM events ORDER BY event").fetchall():
            rows = db.execute(_ROWS[verb], (event,)).fetchall() if verb in _ROWS else []
            seal = _seal(seal, event, verb, at, rows)
            if sealed != seal:
                verdict = f"change {event} is not as it was written"
                break
        if verdict != "ok" or not seal:
            reason = _line(verdict) if verdict != "ok" else "it is empty"
            raise StorageError(f"{self.path} is damaged ({reason}); put back a copy of it")


_LAST = "SELECT event, seal FROM events ORDER BY event DESC LIMIT 1"

_EARLIER = """
SELECT round, EXISTS (SELECT 1 FROM answers WHERE answers.id = asked.id AND answers.question = asked.question)
FROM asked JOIN questions ON event = question WHERE id = ? LIMIT 1"""

_SAID = "SELECT label FROM answers WHERE id = ? AND question = ? AND who = ? ORDER BY answer DESC LIMIT 1"

_OPEN = """
WITH open AS (SELECT question, rank, id, score FROM asked WHERE NOT EXISTS (
    SELECT 1 FROM answers WHERE answers.id = asked.id AND answers.question = asked.question))
SELECT round, origin, id, score, at FROM open JOIN questions ON questions.event = question JOIN events USING (event)
WHERE question = (SELECT question FROM open ORDER BY question LIMIT 1) ORDER BY rank"""

_LABELS = """
SELECT id, label FROM (
    SELECT id, kind, label, max(answer) FROM answers JOIN questions ON questions.event = question
    WHERE round <= ? GROUP BY id)
WHERE kind = 'label' ORDER BY id"""

_ROUNDS = """
WITH firsts AS (
    SELECT question, (
        SELECT min(event) FROM answers WHERE answers.id = asked.id AND answers.question = asked.question) AS first
    FROM asked),
counts AS (
    SELECT question, count(*) AS asked, count(first) AS answered, max(first) AS last FROM firsts GROUP BY question)
SELECT round, asked, answered, origin, began.at, CASE WHEN asked = answered THEN ended.at END
FROM counts JOIN questions ON questions.event = question JOIN events AS began ON began.event = question
LEFT JOIN events AS ended ON ended.event = last ORDER BY question"""


def utc_now() -> str:
    """The time of a change: `2026-11-21T10:30:00.123+00:00`."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def _connect(path: Path, mode: str) -> sqlite3.Connection:
    """A connection without hidden transactions; `mode` is rw (the file exists) or rwc (create it)."""
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    db = sqlite3.connect(uri, uri=True, timeout=BUSY_SECONDS, isolation_level=None)
    try:
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA foreign_keys = ON")
    except BaseException:
        db.close()
        raise
    return db


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Put what SQLite says of a file in one line with the next step; errors in how we use SQLite stay as they are."""
    try:
        yield
    except (sqlite3.ProgrammingError, sqlite3.IntegrityError):
        raise
    except (sqlite3.Error, UnicodeDecodeError) as error:  # the latter: SQLite quotes a damaged name in its message
        code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF  # without the extended part
        step = _NEXT_STEP.get(code, "cannot be used; if repeating the command does not help, put back a copy of it")
        raise StorageError(f"{path} {step} ({_line(error)})") from error


def _line(message: object) -> str:
    """What SQLite says, on one line; of a damaged file it may quote pages."""
    return textwrap.shorten(str(message), 100, placeholder=" ...")


def _seal(before: str, event: int, verb: str, at: str, rows: list[Any]) -> str:
    return hashlib.sha256(json.dumps([before, event, verb, at, rows], default=repr).encode()).hexdigest()


def _place(draft: Path, path: Path) -> None:
    """Give a finished file its name, never over another file, so that it stays after a power cut."""
    try:
        os.link(draft, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links: there, two creators at the same instant are not told apart
        if path.exists():
            raise FileExistsError(path) from None
        os.rename(draft, path)
    if os.name == "posix":
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _batch(rows: list[Any], at: str) -> Batch:
    """The question in rows of (round, origin, id, score, ...)."""
    scores = None if rows[0][3] is None else np.array([row[3] for row in rows], np.float64)
    return Batch(np.array([row[2] for row in rows], np.int64), rows[0][0], scores, rows[0][1], at)


def _as_classes(classes: Sequence[str]) -> list[str]:
    names = [classes] if isinstance(classes, str) else list(classes)
    if isinstance(classes, str) or not names or not all(map(_is_text, names)):
        raise SettingError(f"Classes are a list of names, at least one; got {classes!r}")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise SettingError(f"Class {twice!r} is named twice; give each class its own name")
    return names


def _as_question(ids: ArrayLike, scores: ArrayLike | None) -> tuple[NDArray[np.int64], NDArray[np.float64] | None]:
    """Check what is to be asked; copies, so that a batch stays what was stored."""
    given = np.asarray(ids)
    if given.ndim != 1 or (given.size and given.dtype.kind not in "iu"):
        raise LabelError(f"Ids have shape {given.shape} and type {given.dtype}; give a list of integers")
    if not given.size:
        raise LabelError("There is nothing to ask; give at least one id")
    wanted = given.astype(np.int64)
    if wanted.min() < 0:
        raise LabelError(f"Ids go down to {wanted.min()}; they start at 0")
    values, counts = np.unique(wanted, return_counts=True)
    if len(values) < len(wanted):
        raise LabelError(f"Example {values[counts > 1][0]} is asked twice in one question; ask once")
    if scores is None:
        return wanted, None
    reasons = np.array(scores, np.float64)
    if reasons.shape != wanted.shape or not np.isfinite(reasons).all():
        raise LabelError(f"Scores have shape {reasons.shape} for {len(wanted)} ids; give one finite number per id")
    return wanted, reasons


def _as_int(value: Any, what: str) -> int:
    try:
        number = operator.index(value)
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise LabelError(f"{what} is {value!r}; it must be an integer, 0 or more")
    return number


def _as_answers(answers: Any, who: str) -> list[Answer]:
    """Answers by id, or each with its own name, in the latter form."""
    if isinstance(answers, Mapping):
        return [Answer(id_, label, who) for id_, label in answers.items()]
    given = list(answers) if isinstance(answers, Iterable) else [answers]
    if strange := [answer for answer in given if not isinstance(answer, Answer)]:
        raise LabelError(
            f"{_line(repr(strange[0]))} is no answer; give class numbers by id, such as {{12: 0}}, or a list of svp.labels.Answer"
        )
    return given


def _is_text(value: Any) -> bool:
    """Some text that can be stored: parts of broken characters (lone surrogates) cannot."""
    return isinstance(value, str) and bool(value) and not any("\ud800" <= char <= "\udfff" for char in value)


def _as_label(answer: Answer, names: tuple[str, ...]) -> int:
    try:
        number = operator.index(answer.label)  # type: ignore[arg-type]
    except TypeError:
        number = -1
    if not 0 <= number < len(names):
        listed = ", ".join(f"{number} {name}" for number, name in enumerate(names[:20]))
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        raise LabelError(f"Example {answer.id}: {answer.label!r} is not a class number; the classes are {listed}{more}")
    return number
