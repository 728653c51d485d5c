"""Prodigy: a stream of tasks for the interface `choice` out, and what `db-out` gives in. Rejected is none of the classes."""

import base64
import json
import mimetypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svp.errors import DataError
from svp.exchange.items import Asked, Told, id_in, opened, time_of, understood, word
from svp.files import write_bytes

_ANSWERS = {"ignore": "skip", "reject": "none"}


def write(path: Path, asked: Sequence[Asked], classes: Sequence[str]) -> None:
    """Photos are written into the file, since Prodigy shows no other files of this machine."""
    options = [{"id": name, "text": name} for name in (*classes, "unsure")]
    lines = [
        json.dumps({**_shown(item), "options": options, "meta": _meta(item)}, ensure_ascii=False) for item in asked
    ]
    write_bytes(path, "".join(f"{line}\n" for line in lines).encode())


def read(path: Path) -> list[Told]:
    found = []
    for number, line in enumerate(opened(path).split("\n"), 1):
        if not line.strip():
            continue
        where = f"{path.name}, line {number}"
        with understood(where, "answer of Prodigy to a task that svp wrote"):
            told = _of_line(line, where)
        if told is not None:
            found.append(told)
    return found


def _of_line(line: str, where: str) -> Told | None:
    """None for a task as svp wrote it."""
    task = json.loads(line)
    meta, answer, accepted = task["meta"], task.get("answer"), task.get("accept", [])
    id_, key = id_in(meta, "svp_id", where), word(meta.get("svp_key")) or None
    if answer is None:
        return None
    said = _ANSWERS.get(answer)
    if said is None:
        if len(accepted) != 1:
            raise DataError(f"{where}: {len(accepted)} classes are chosen; choose one, or ignore the task")
        said = word(accepted[0])
    who = word(task.get("_annotator_id") or task.get("_session_id")) or None
    return Told(where, said, id_, key, who=who, at=time_of(task.get("_timestamp"), where))


def is_one(path: Path) -> bool:
    """Is the first line of this file an answer of Prodigy?"""
    try:
        with path.open(encoding="utf-8-sig") as file:
            first = json.loads(file.readline())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(first, dict) and "answer" in first and "meta" in first


def _shown(item: Asked) -> dict[str, Any]:
    if item.file is None:
        return {"text": item.key if item.text is None else item.text}
    kind = mimetypes.guess_type(item.file.name)[0] or "image/jpeg"
    try:
        content = base64.b64encode(item.file.read_bytes()).decode()
    except OSError as error:
        raise DataError(f"{item.file} cannot be read: {error.strerror or error}; ask again") from None
    return {"image": f"data:{kind};base64,{content}"}


def _meta(item: Asked) -> dict[str, Any]:
    meta: dict[str, Any] = {"svp_id": item.id, "svp_key": item.key, "round": item.round}
    if item.score is not None:
        meta["score"] = item.score
    if item.guess is not None:
        meta["guess"], meta["guess_probability"] = item.guess
    return meta
