"""A file of events that only grows: one SQLite database, each change a transaction, all changes sealed.

Nothing is updated or deleted (triggers refuse it). A change that has returned is on the disk; one that was interrupted has left
nothing. Several processes may use one file at once.

An event's seal is the SHA-256 of the seal before it and of the event's own rows, as JSON. `open` checks the whole chain, so a
file whose contents have changed is refused, also where SQLite itself sees nothing wrong. The file is in WAL mode: while it is
open the newest changes are in `NAME-wal` beside it, and a copy needs both; the last process to close it folds them into one.
Damage in that log is refused, too (`write_ahead.py`).

A large file is not checked as a whole each time: `.NAME.checked` beside it holds the SHA-256 of the file and the last event that
was checked. A file with exactly these bytes is checked behind that event alone. Whoever closes a file writes it, where the bytes
were until then those that were checked or what SQLite has made of them since; where that cannot be told (another process has the
file open, one was killed, the file was changed by anything else), the next `open` checks everything. It may be deleted.

The bytes are read while this process has no connection to the file, and at no other time: whoever closes a file loses all locks
that the process holds on it, on POSIX those of SQLite too, and another process would take the log away from under a connection
(SQLite, "How To Corrupt An SQLite Database File", 2.2).
"""

import hashlib
import json
import os
import sqlite3
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, ClassVar, Self
from weakref import WeakSet

from svp.errors import DataError, StorageError, shortened
from svp.files import replace
from svp.write_ahead import is_damaged

BUSY_SECONDS = 30.0  # how long one process waits for another's transaction, of milliseconds

_EVENTS = """
CREATE TABLE events (
    event    INTEGER PRIMARY KEY,
    verb     TEXT NOT NULL,
    at       TEXT NOT NULL,
    seal     TEXT NOT NULL
);
"""

_BACK = "put back a copy of it, or move it away and make it anew from its exported history (svp session restore)"
_NEXT_STEP = {
    sqlite3.SQLITE_FULL: "is on a full disk; free some space and repeat the command (what was stored before is intact)",
    sqlite3.SQLITE_BUSY: "is in use by another process; repeat the command when that one has finished",
    sqlite3.SQLITE_READONLY: "cannot be written; allow writing to the file and its folder, or copy them elsewhere",
    sqlite3.SQLITE_PERM: "cannot be written; allow writing to the file and its folder, or copy them elsewhere",
    sqlite3.SQLITE_CANTOPEN: "cannot be opened; check that it is a file, and that its folder may be written",
    sqlite3.SQLITE_IOERR: "cannot be read or written; check the disk and repeat the command",
    sqlite3.SQLITE_CORRUPT: f"is damaged; {_BACK}",
    sqlite3.SQLITE_NOTADB: f"is damaged or is not a label store; name another file, or {_BACK}",
}


@dataclass(frozen=True)
class Insert:
    """One statement for each of some rows; it knows the columns by name, and :event and :rank (the row's number).

    where  which rows. Not a WHERE of the statement: SQLite takes three times as long for `INSERT ... SELECT ... WHERE`
    """

    statement: str
    where: Callable[[Mapping[str, Any]], bool] = lambda row: True


@dataclass(frozen=True)
class Verb:
    """One kind of event: the columns of its rows, how they are read and how they are written.

    select   of the rows of event ?1, in order: what its seal covers
    inserts  run in turn
    """

    columns: tuple[str, ...]
    select: str
    inserts: tuple[Insert, ...]


class SealedFile:
    """What all such files share. One object belongs to one thread.

    WHAT         what messages call it
    APPLICATION  number in the file's header
    FORMAT       raised when an older svp could no longer read what is written
    SCHEMA       tables by the format that they came with
    VERBS        kinds of events
    REMEMBERED   bytes from which it is remembered what was checked
    All methods raise StorageError where the file cannot be read or written.
    """

    WHAT: ClassVar[str]
    APPLICATION: ClassVar[int]
    FORMAT: ClassVar[int]
    SCHEMA: ClassVar[Mapping[int, str]]
    VERBS: ClassVar[Mapping[str, Verb]]
    REMEMBERED: ClassVar[int] = 4 << 20

    def __init__(
        self, path: Path, db: sqlite3.Connection, stat: tuple[int, ...] = (), content: str | None = None
    ) -> None:
        self.path = path
        self._open_db: sqlite3.Connection | None = db
        self._stat = stat  # the file when it was opened
        self._content = content  # its SHA-256 then; None: small, in use, or with changes beside it
        self._checked = 0, ""  # number and seal of the last event that was checked

    @property
    def _db(self) -> sqlite3.Connection:
        if self._open_db is None:
            raise StorageError(f"{self.path} is closed; open it again")
        return self._open_db

    @classmethod
    def _make(cls, path: Path, events: Iterable[Mapping[str, Any]]) -> Self:
        """A new file with these first events; it appears complete or not at all.

        events  verb and rows (by the names of its columns); with at and seal, as `events` gives them, these must come out again
        """
        try:
            with tempfile.TemporaryDirectory(prefix=f".{path.name}-", suffix=".tmp", dir=path.parent) as folder:
                draft = Path(folder) / path.name
                # Not yet in WAL mode: there the file is whole only once `close` has folded the log into it, and on a full
                # disk `close` fails without a word.
                with _named(path), closing(_connect(draft, "rwc")) as db:
                    db.executescript(_EVENTS + "".join(cls.SCHEMA.values()) + only_grows("events"))
                    db.execute(f"PRAGMA application_id = {cls.APPLICATION}")
                    db.execute(f"PRAGMA user_version = {cls.FORMAT}")
                    for event in events:
                        cls(path, db)._put_again(event)
                _place(draft, path)
        except FileExistsError as error:
            raise StorageError(f"{path} exists; open it, or give another name to a new {cls.WHAT}") from error
        except OSError as error:
            reason = error.strerror or error
            raise StorageError(f"{path} cannot be created ({reason}); check its folder and the space left") from error
        return cls.open(path)

    @classmethod
    def open(cls, path: str | os.PathLike[str]) -> Self:
        """An existing file, checked as a whole: about 5 microseconds a row; of what was checked before, a SHA-256 of its bytes.

        Raises StorageError for a file that is missing, damaged, of another kind, or of a newer format.
        """
        path = Path(path)
        if not path.exists():
            raise StorageError(f"There is no {cls.WHAT} at {path}; create it first, or check the name")
        with _named(path):
            with _HASHING:
                _refuse_damaged_log(path)
                stat = _stat(path)
                in_use = _in_use(stat)
                if not in_use:
                    _refuse_cut_off(path)
                content = None if in_use else _content(path, cls.REMEMBERED)
                store = cls(path, _connect(path, "rw"), stat, content)
                _OPEN.add(store)
            try:
                store._check()
                _keep_a_log(store._db)
                store._bring_up_to_date()
            except BaseException:
                store._close()
                raise
        return store

    def close(self) -> None:
        """Close the file. Nothing depends on it being called: what was acknowledged is stored."""
        if self._open_db is None:
            return
        with _HASHING:
            # Only what was checked, and what SQLite makes of it as it closes, may count as checked.
            sound = self._content is not None and _stat(self.path) == self._stat
            self._close()
            if sound and not _in_use(self._stat) and (content := _content(self.path, 0)) is not None:
                _remember(self.path, content, *self._checked)

    def _close(self) -> None:
        self._db.close()
        self._open_db = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def events(self) -> Iterator[dict[str, Any]]:
        """Everything that the file holds, event by event: event, verb, at, rows (by the names of their columns), seal."""
        for event, verb, at, seal in self._read("SELECT event, verb, at, seal FROM events ORDER BY event"):
            kind = self.VERBS[verb]
            rows = [dict(zip(kind.columns, row, strict=True)) for row in self._read(kind.select, event)]
            yield {"event": event, "verb": verb, "at": at, "rows": rows, "seal": seal}

    @contextmanager
    def one_moment(self) -> Iterator[None]:
        """What is read in this block was true at one moment, whatever others store meanwhile; nothing is stored in it."""
        with _named(self.path):
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")

    def newest(self) -> int:
        """The number of the newest event."""
        return int(self._read("SELECT max(event) FROM events")[0][0])

    @contextmanager
    def _event(self, verb: str, at: str | None = None) -> Iterator[tuple[int, str]]:
        """One transaction: gives the number and time of a new event, and seals it once the block has stored its rows.

        A block that raises leaves nothing behind; one that stores no rows makes no event.
        """
        db, at = self._db, at or utc_now()
        with _named(self.path):
            try:
                db.execute("BEGIN IMMEDIATE")
                last, seal = db.execute(_LAST).fetchone() or (0, "")
                event = last + 1
                yield event, at
                if rows := db.execute(self.VERBS[verb].select, (event,)).fetchall():
                    seal = _seal(seal, event, verb, at, rows)
                    db.execute("INSERT INTO events VALUES (?, ?, ?, ?)", (event, verb, at, seal))
                db.execute("COMMIT")
            except BaseException:
                with suppress(sqlite3.Error):  # after a full disk SQLite may have rolled back by itself
                    db.execute("ROLLBACK")
                raise

    def _put(self, verb: str, event: int, rows: Iterable[Mapping[str, Any]]) -> None:
        """Write the rows of an event, within its transaction."""
        named = [{**row, "event": event, "rank": rank} for rank, row in enumerate(rows)]
        for insert in self.VERBS[verb].inserts:
            self._db.executemany(insert.statement, [row for row in named if insert.where(row)])

    def _put_again(self, given: Mapping[str, Any]) -> None:
        """An event as `events` gave it, or a new one. DataError where it is not as it was."""
        try:
            with self._event(given["verb"], given.get("at")) as (event, _):
                self._put(given["verb"], event, given["rows"])
            (made,) = self._db.execute("SELECT seal FROM events ORDER BY event DESC LIMIT 1").fetchone()
            whole = given.get("seal", made) == made
        except (LookupError, TypeError, ValueError, AttributeError, OverflowError):
            whole = False
        except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
            whole = False
        if not whole:
            number = given.get("event") if isinstance(given, Mapping) else None
            raise DataError(f"the history is damaged: its event {number} is not as it was written; {_BACK}")

    def _read(self, sql: str, *values: Any) -> list[Any]:
        with _named(self.path):
            return self._db.execute(sql, values).fetchall()

    def _check(self) -> None:
        """Refuse a file that is not ours, newer than this code, or not as it was written."""
        db = self._db
        (application,) = db.execute("PRAGMA application_id").fetchone()
        version = self._version()
        if application != self.APPLICATION:
            raise StorageError(f"{self.path} is not a {self.WHAT}; name another file, or put back a copy of it")
        if version > self.FORMAT:
            raise StorageError(
                f"{self.path} was written by a newer svp (format {version}, this one reads {self.FORMAT}); "
                f"upgrade with: pip install -U selection-via-proxy"
            )
        known = _remembered(self.path, self._content)
        since, seal = known if db.execute(_SEALED, known).fetchone() else (0, "")
        verdict = "ok" if since else db.execute("PRAGMA integrity_check(1)").fetchone()[0]
        event = since
        for event, verb, at, sealed in db.execute(_SINCE, (since,)).fetchall():
            rows = db.execute(self.VERBS[verb].select, (event,)).fetchall() if verb in self.VERBS else []
            seal = _seal(seal, event, verb, at, rows)
            if sealed != seal:
                verdict = f"change {event} is not as it was written"
                break
        if verdict != "ok" or not seal:
            reason = shortened(verdict) if verdict != "ok" else "it is empty"
            raise StorageError(f"{self.path} is damaged ({reason}); {_BACK}")
        self._checked = event, seal

    def _version(self) -> int:
        return int(self._db.execute("PRAGMA user_version").fetchone()[0])

    def _bring_up_to_date(self) -> None:
        """Give an older file the tables that came since; what it holds stays as it is."""
        if self._version() == self.FORMAT:
            return
        db = self._db
        try:
            db.execute("BEGIN IMMEDIATE")
            for number in range(self._version() + 1, self.FORMAT + 1):  # none where another process was first
                for statement in _statements(self.SCHEMA[number]):
                    db.execute(statement)
            db.execute(f"PRAGMA user_version = {self.FORMAT}")
            db.execute("COMMIT")
        except BaseException:
            with suppress(sqlite3.Error):
                db.execute("ROLLBACK")
            raise


_OPEN: WeakSet[SealedFile] = WeakSet()  # in this process, some of them closed by now
_HASHING = threading.Lock()  # nobody opens a file while another thread reads its bytes

_SEALED = "SELECT 1 FROM events WHERE event = ? AND seal = ?"
_SINCE = "SELECT event, verb, at, seal FROM events WHERE event > ? ORDER BY event"
_LAST = "SELECT event, seal FROM events ORDER BY event DESC LIMIT 1"


def only_grows(*tables: str) -> str:
    """Triggers that refuse any other change of these tables."""
    return "".join(
        f"CREATE TRIGGER {table}_no_{verb} BEFORE {verb} ON {table} BEGIN SELECT RAISE(ABORT, '{table} only grows'); END;\n"
        for table in tables
        for verb in ("update", "delete")
    )


def _statements(script: str) -> Iterator[str]:
    """The statements of a script, one by one: `executescript` would end the transaction."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def _stat(path: Path) -> tuple[int, ...]:
    """Which file this is, then what changes as it is written to; nothing where it cannot be told."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns


def _in_use(stat: tuple[int, ...]) -> bool:
    """Has this process a connection to this file, by whatever name?"""
    return any(store._stat[:2] == stat[:2] for store in _OPEN if store._open_db is not None)


def _refuse_damaged_log(path: Path) -> None:
    """SQLite drops what is behind damage in its log, without a word. To be called before it connects."""
    log = Path(f"{os.path.realpath(path)}-wal")
    if is_damaged(log):
        raise StorageError(
            f"{path} is damaged (its newest changes, in {log.name}, are not as they were written); put back a copy of both"
        )


def _refuse_cut_off(path: Path) -> None:
    """SQLite takes what is missing at the end for zeros, and notices it only where zeros are wrong."""
    with suppress(OSError), path.open("rb") as file:
        head = file.read(100)
        # SQLite file format, 1.3: bytes of a page, and pages. The size is looked at last: without a log nobody is writing.
        n_bytes = int.from_bytes(head[16:18], "big") * int.from_bytes(head[28:32], "big")
        if head.startswith(b"SQLite format 3\0") and not _has_log(path) and path.stat().st_size < n_bytes:
            raise StorageError(f"{path} is damaged (its end is missing); {_BACK}")


def _has_log(path: Path) -> bool:
    """Do changes lie beside the file?"""
    wal = path.with_name(f"{path.name}-wal")
    return wal.exists() and wal.stat().st_size > 0


def _content(path: Path, least: int) -> str | None:
    """SHA-256 of a file that is all there is: None where changes lie beside it, or it has fewer bytes than `least`."""
    try:
        if _has_log(path) or path.stat().st_size < least:
            return None
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return None


def _remembered(path: Path, content: str | None) -> tuple[int, str]:
    """Number and seal of the last event that was checked in a file with this content; 0 where that is not known."""
    try:
        found = json.loads(_mark(path).read_text())
        return (found["event"], found["seal"]) if content and found["sha256"] == content else (0, "")
    except (OSError, ValueError, KeyError, TypeError):
        return 0, ""


def _remember(path: Path, content: str, event: int, seal: str) -> None:
    if _remembered(path, content) != (event, seal):
        with suppress(OSError):  # then everything is checked the next time
            replace(_mark(path), json.dumps({"sha256": content, "event": event, "seal": seal}).encode())


def _mark(path: Path) -> Path:
    return path.with_name(f".{path.name}.checked")


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


def _keep_a_log(db: sqlite3.Connection) -> None:
    """WAL mode. While another process turns it on at this very moment, SQLite says so at once, and waits for nobody."""
    until = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > until:
                raise
            time.sleep(0.01)


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
        raise StorageError(f"{path} {step} ({shortened(error)})") from error


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
