"""A session's questions and answers in files: what is written of an example, and whom a row of a file means."""

import json
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from svp.config import SessionConfig
from svp.data.unlabelled import are_photos
from svp.errors import DataError, LabelError, SettingError, StorageError, SvpError, shortened
from svp.exchange import Asked, Told, read, write
from svp.exchange.tables import csv_of
from svp.files import make_folder, write_bytes
from svp.labels import WORDS, Answer, Batch, LabelStore
from svp.runs import STORE
from svp.tables import write_table
from svp.workflows.people import data_of
from svp.workflows.pool import fingerprints_of_texts

if TYPE_CHECKING:
    from svp.workflows.session import Session

# The first line of a history says so, in which version, and with which settings.
_HISTORY, _VERSION = "svp-session-history", 1


def write_question(session: "Session", batch: Batch, path: Path, format: str | None) -> None:
    """Raises as `refuse_untold`."""
    refuse_untold(session, path, format)
    write(path, items_of(session, batch), session.classes, format)


def _outside_the_data(session: "Session", path: Path) -> None:
    root = Path(session.config.dataset).expanduser()
    if root.exists() and path.resolve().is_relative_to(root.resolve()):
        lies = f"lies inside the data ({root}), and would be part of it" if root.is_dir() else "holds the data"
        raise SettingError(f"{path} {lies}; give a place outside (--out)")


def _all_told(session: "Session", path: Path, format: str | None) -> None:
    """What somebody filled in and has not told would be gone, were the next question written over it."""
    way_out = f"tell them first (svp session tell {session.folder} {path}), or give another name (--out)"
    try:
        answers = answers_in(session, path, "", format)
    except SvpError as error:
        raise SettingError(f"{path} exists, and may hold answers that cannot be read ({error}); {way_out}") from None
    stored = {
        (a.id, a.kind, a.label, who)
        for a in (session.store.history() if answers else ())
        if isinstance(a, Answer)
        for who in (a.who, "")  # of some files it is not known whose answers they hold
    }
    if untold := sum((a.id, a.kind, a.label, a.who) not in stored for a in answers):
        raise SettingError(f"{path} holds {untold:,} answers that were not told yet; {way_out}")


def answers_in(session: "Session", path: Path, who: str, format: str | None) -> list[Answer]:
    """Raises LabelError naming the row that means no example or no class of this session."""
    return answers_of(session, read(path, format), who)


def answers_of(session: "Session", told: Sequence[Told], who: str) -> list[Answer]:
    """What was told, as answers; `who` gave those of which it is not said. Raises as `answers_in`."""
    by_name = _by_name(session.classes)
    answers = [_answer(session.store, each, by_name, who) for each in told]
    _refuse_texts_of_others(session.store, answers, told)
    asked = set(session.store.asked().tolist())
    first: dict[tuple[int, str, str | None], tuple[Answer, Told]] = {}
    for answer, row in zip(answers, told, strict=True):
        if answer.id not in asked:
            raise LabelError(
                f"{row.where}: example {answer.id} was never asked; only what was asked can be answered (svp session ask). "
                "Nothing was stored"
            )
        before, other = first.setdefault((answer.id, answer.who, answer.at), (answer, row))
        if (before.kind, before.label) != (answer.kind, answer.label):
            raise LabelError(
                f"{row.where}: {row.said!r}, but {other.where} says {other.said!r} of the same example; keep one of them. "
                "Nothing was stored"
            )
    return answers


def write_labelled(
    session: "Session", path: Path, rows: list[dict[str, Any]], texts: Mapping[int, str] | None = None
) -> int:
    """texts: what the examples say, in a column beside their labels: such a table can be trained on by itself."""
    _outside_the_data(session, path)
    columns = {name: [row[name] for row in rows] for name in ("id", "key", "label", "people", "agree")}
    if texts:
        columns["text"] = [texts.get(row["id"], "") for row in rows]
    write_columns(path, columns)
    return len(rows)


def labelled_rows(session: "Session") -> list[dict[str, Any]]:
    """A row for each labelled example: its id, key and class, how many people said what it is, and how many agree."""
    ids, labels = session.labelled()
    known = _keys(session, ids.tolist())
    said = [(a.id, a.label) for a in session.store.said() if a.kind in ("label", "none")]
    votes, people = Counter(said), Counter(id_ for id_, _ in said)
    return [
        {
            "id": i,
            "key": known[i],
            "label": session.classes[c],
            "people": people[i],
            "agree": votes[i, c],
        }
        for i, c in zip(ids.tolist(), labels.tolist(), strict=True)
    ]


def write_columns(path: Path, columns: Mapping[str, Sequence[Any]]) -> None:
    """As .csv or .tsv that no spreadsheet runs, or as write_table does."""
    if delimiter := {".csv": ",", ".tsv": "\t"}.get(path.suffix.lower()):
        rows = zip(*columns.values(), strict=True)
        write_bytes(path, csv_of(list(columns), (dict(zip(columns, row, strict=True)) for row in rows), delimiter))
        return
    import pyarrow as pa

    write_table(path, pa.table(dict(columns)))


def write_history(session: "Session", path: Path) -> int:
    if not session.ways.grows:
        raise SettingError("this session is a simulation: made again from its configuration, it is the same")
    _outside_the_data(session, path)
    if path.exists() and not _is_history(path):
        raise SettingError(f"{path} exists, and is no history of a session; give another name (--out)")
    first = {
        "format": _HISTORY,
        "version": _VERSION,
        "config": session.config.model_dump(mode="json", exclude_none=True),
    }
    lines = [json.dumps(line, ensure_ascii=False) for line in (first, *session.store.events())]
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())
    return len(lines) - 1


def _is_history(path: Path) -> bool:
    """Whether a file can be written over by another history, because it is one."""
    try:
        first = next(_lines(path), None)
    except SvpError:
        return False
    return isinstance(first, dict) and first.get("format") == _HISTORY


def refuse_untold(session: "Session", path: Path, format: str | None = None) -> None:
    """SettingError for a place among the data, and for a file that holds answers which nobody told yet."""
    _outside_the_data(session, path)
    if path.is_file() and path.stat().st_size:
        _all_told(session, path, format)


def restore(folder: Path, history: Path) -> None:
    """The label store and the settings, from a history; nothing is changed where that cannot be done."""
    lines = _lines(history)
    first = next(lines, None)
    if not isinstance(first, dict) or first.get("format") != _HISTORY:
        raise _no_history(history, "it is empty" if first is None else f"it begins with {shortened(json.dumps(first))}")
    if (version := first.get("version")) != _VERSION:
        raise DataError(
            f"{history} is a history of version {version}, this svp reads {_VERSION}; restore it with its own"
        )
    if not isinstance(settings := first.get("config"), dict):
        raise DataError(f"{history}, line 1 is damaged: it holds no settings; put back a copy of it")
    config = SessionConfig.make(settings)
    store = folder / STORE
    if store.exists():
        raise StorageError(f"{store} exists; move it away first (it may hold answers that the history does not)")
    settings_file, content = folder / "config.toml", config.to_toml().encode()
    if settings_file.exists() and settings_file.read_bytes() != content:
        raise StorageError(
            f"{settings_file} holds other settings than {history}; give another folder, or move it away first"
        )
    make_folder(folder)
    LabelStore.restore(store, lines).close()
    write_bytes(settings_file, content)


def _lines(path: Path) -> Iterator[Any]:
    number, line = 0, ""
    try:
        with path.open(encoding="utf-8") as file:
            for line in file:
                number += 1
                yield json.loads(line)
    except UnicodeDecodeError:
        if number:
            raise DataError(f"{path}, line {number + 1} is damaged: it is no text; put back a copy of it") from None
        raise _no_history(path, "it is no text") from None
    except (ValueError, RecursionError):
        if number > 1:
            raise DataError(f"{path}, line {number} is damaged: it is no JSON; put back a copy of it") from None
        raise _no_history(path, f"it begins with {shortened(line.strip())!r}") from None
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}") from None


def _no_history(path: Path, what: str) -> DataError:
    return DataError(
        f"{path} is no history of a session ({what}); give what svp session export --history wrote (JSON lines)"
    )


def items_of(session: "Session", batch: Batch) -> list[Asked]:
    """What is written of each example of a question."""
    ids = batch.ids.tolist()
    known, texts, guesses = _keys(session, ids), texts_of(session, ids), session.guesses(batch.ids)
    root = Path(session.config.dataset).expanduser()
    scores = [None] * len(ids) if batch.scores is None else batch.scores.tolist()
    items = []
    for id_, score in zip(ids, scores, strict=True):
        file = root / known[id_]
        guess = guesses.get(id_)
        items.append(
            Asked(
                id_,
                known[id_],
                batch.round,
                texts.get(id_),
                file if root.is_dir() and file.is_file() else None,
                None if score is None or np.isnan(score) else score,
                None if guess is None else (session.classes[guess[0]], guess[1]),
            )
        )
    return items


def _keys(session: "Session", ids: list[int]) -> dict[int, str]:
    if session.ways.grows:
        return session.store.keys(ids)
    return {id_: session.dataset.key(id_) for id_ in ids}


def texts_of(session: "Session", ids: list[int]) -> dict[int, str]:
    """What the examples say; nothing of photos and numbers. The folder need not be held for that."""
    if session.is_read:
        data = session.dataset
        rows = data.positions(ids) if data.is_text else np.zeros(0, np.int64)
    elif are_photos(session.config):
        return {}
    else:
        data = data_of(session.config, session.classes)
        if not data.is_text:
            return {}
        row_of = {key: row for row, key in enumerate(data.keys or map(str, data.ids))}
        rows = np.array([row_of.get(key, -1) for key in session.store.keys(ids).values()], np.int64)
        _refuse_what_changed(session, ids, rows, data.inputs)
    return dict(zip(ids, data.inputs[rows].tolist(), strict=True)) if data.is_text else {}


def _refuse_what_changed(session: "Session", ids: list[int], rows: NDArray[np.int64], texts: Any) -> None:
    """DataError where a text is not the one of which the store knows the fingerprint; row -1: there is none."""
    prints = fingerprints_of_texts(texts[rows])
    first_seen = [session.store.print_of(id_) for id_ in ids]
    if lost := [i for i, row in enumerate(rows) if row < 0 or prints[i] != first_seen[i]]:
        raise DataError(
            f"{session.config.dataset}: {len(lost):,} examples of this question are gone or changed since they were first seen, "
            f"such as {ids[lost[0]]}; ask once without --now (now=False): that reads the data, and leaves them out"
        )


# --- whom and what a row means -------------------------------------------------------------------------------------------


def _by_name(classes: Sequence[str]) -> dict[str, tuple[str, int | None]]:
    """What each word stands for; in any case of letters, where that is clear. A class goes before a word."""
    said: dict[str, tuple[str, int | None]] = {word: (word, None) for word in WORDS}
    exact: dict[str, tuple[str, int | None]] = {name: ("label", number) for number, name in enumerate(classes)}
    folded = Counter(_folded(name) for name in classes)
    loose = {_folded(name): what for name, what in exact.items() if folded[_folded(name)] == 1}
    return {**said, **loose, **exact}


def _folded(name: str) -> str:
    """In any case of letters, and with its accents composed: some file systems take them apart."""
    return unicodedata.normalize("NFC", name).casefold()


def _answer(store: LabelStore, told: Told, by_name: Mapping[str, tuple[str, int | None]], who: str) -> Answer:
    said = by_name.get(told.said) or by_name.get(_folded(told.said))
    if said is None:
        known = ", ".join([*store.classes[:20], *WORDS])
        raise LabelError(
            f"{told.where}: {told.said!r} is no class; known are {known}. Correct it, or add the class: "
            "svp session classes add"
        )
    return Answer(_id(store, told), said[1], told.who or who, told.at, said[0], told.round)  # type: ignore[arg-type]


def _id(store: LabelStore, told: Told) -> int:
    """The example that a row means; where it names it twice, both must be the same."""
    by_key = None if told.key is None else store.id_of(told.key)
    if told.id is None:
        if by_key is None:
            raise LabelError(
                f"{told.where}: {told.key!r} is none of the examples of this session; correct it, or take that row out"
            )
        return by_key
    key = store.keys([told.id]).get(told.id)
    other = told.key if told.key is not None and told.key != key else None
    if told.name is not None and key is not None and _folded(PurePosixPath(key).name) != _folded(told.name):
        other = told.name
    if other is not None and key is not None:
        raise LabelError(
            f"{told.where}: example {told.id} is {key}, not {other}; were the rows or names mixed up? Nothing was stored"
        )
    return told.id


def _refuse_texts_of_others(store: LabelStore, answers: Sequence[Answer], told: Sequence[Told]) -> None:
    """LabelError for a row with the text of another example. One that is nobody's is let be: spreadsheets cut and convert."""
    rows = [(row, answer.id) for row, answer in zip(told, answers, strict=True) if row.text]
    prints = fingerprints_of_texts([row.text.encode(errors="replace").decode() for row, _ in rows if row.text])
    strange = [(*row, seen) for row, seen in zip(rows, prints, strict=True) if store.print_of(row[1]) != seen]
    owner = store.with_prints(seen for *_, seen in strange) if strange else {}
    for row, id_, seen in strange:
        if seen in owner:
            raise LabelError(
                f"{row.where}: the text is that of example {owner[seen]}, not of {id_}; were the rows mixed up? Nothing was "
                "stored"
            )
