"""Label Studio: tasks out, and its exports JSON, JSON_MIN and CSV in. No server is needed here.

Beside the tasks `NAME.xml` is written, the labelling interface to paste into the project. Photos are named as local files, by
their path below the folder that LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT says: the one that holds the folder of the photos, since a
server gives out what lies in a storage of the project, and a storage may not be that folder itself. Our id stands in `data`
(`svp_id`), since Label Studio gives tasks numbers of its own. A task that was skipped comes back as skip.
"""

import json
from collections.abc import Sequence
from pathlib import Path, PurePath
from typing import Any
from urllib.parse import quote
from xml.sax.saxutils import quoteattr

from svp.errors import DataError
from svp.exchange.items import Asked, Told, annotator, id_in, opened, time_of, understood, word
from svp.files import write_bytes

_LOCAL = "/data/local-files/?d="
WORDS = ("unsure", "none")  # skip is a button there


def write(path: Path, asked: Sequence[Asked], classes: Sequence[str]) -> None:
    photos = any(item.file is not None for item in asked)
    write_bytes(path, json.dumps(tasks_of(asked, photos), ensure_ascii=False, indent=1).encode())
    write_bytes(path.with_suffix(".xml"), interface_of(classes, photos).encode())


def read(path: Path) -> list[Told]:
    try:
        tasks = json.loads(opened(path))
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON: {error}; export it anew") from None
    if not isinstance(tasks, list) or not all(isinstance(task, dict) for task in tasks):
        raise DataError(f"{path} is no export of Label Studio: it holds no list of tasks")
    return annotations_of(tasks, path.name)


def tasks_of(asked: Sequence[Asked], photos: bool) -> list[dict[str, Any]]:
    """As Label Studio imports them, with predictions where there are guesses."""
    return [_task(item, "image" if photos else "text") for item in asked]


def pool_of(photo: Path, key: str) -> Path:
    """The folder of the photos: this one lies below it by its key."""
    return photo.absolute().parents[len(PurePath(key).parts) - 1]


def address_of(photo: Path, key: str) -> str:
    """Where a server shows a photo."""
    return _LOCAL + quote(f"{pool_of(photo, key).name}/{key}")


def annotations_of(tasks: Sequence[dict[str, Any]], where: str) -> list[Told]:
    """Of an export."""
    found: list[Told] = []
    for number, task in enumerate(tasks):
        with understood(place := f"{where}, task {number}", "task of an export of Label Studio"):
            found += _of_task(task, place)
    return found


def _task(item: Asked, kind: str) -> dict[str, Any]:
    shown = item.text if item.file is None else address_of(item.file, item.key)
    data = {"svp_id": item.id, "svp_key": item.key, kind: item.key if shown is None else shown}
    if item.score is not None:
        data["svp_score"] = item.score
    if item.guess is None:
        return {"data": data}
    name, probability = item.guess
    result = {"from_name": "label", "to_name": kind, "type": "choices", "value": {"choices": [name]}}
    return {
        "data": data,
        "predictions": [{"model_version": f"round {item.round}", "score": probability, "result": [result]}],
    }


def interface_of(classes: Sequence[str], photos: bool) -> str:
    """The labelling interface of a project."""
    tag = "Image" if photos else "Text"
    choices = "\n".join(f"    <Choice value={quoteattr(name)}/>" for name in (*classes, *WORDS))
    return (
        f'<View>\n  <{tag} name="{tag.lower()}" value="${tag.lower()}"/>\n'
        f'  <Choices name="label" toName="{tag.lower()}" choice="single" showInLine="true">\n{choices}\n  </Choices>\n</View>\n'
    )


def _of_task(task: dict[str, Any], where: str) -> list[Told]:
    """The answers of a task: of an export JSON its annotations, of JSON_MIN the one that it is."""
    data = task.get("data", task)
    id_, key = id_in(data, "svp_id", where), word(data.get("svp_key")) or None
    if id_ is None and key is None:
        raise DataError(f"{where}: its data have no svp_id; import the tasks that svp wrote")
    if "data" not in task:
        said = _choice(task.get("label", task.get("choice")), where)
        if not said:
            return []
        return [Told(where, said, id_, key, who=_who(task.get("annotator")), at=time_of(task.get("updated_at"), where))]
    found = []
    for annotation in task.get("annotations", ()):
        results = [r["value"]["choices"] for r in annotation.get("result", ()) if "choices" in r.get("value", {})]
        said = "skip" if annotation.get("was_cancelled") else _choice(results[0] if results else None, where)
        if said:
            who, at = _who(annotation.get("completed_by")), time_of(annotation.get("updated_at"), where)
            found.append(Told(where, said, id_, key, who=who, at=at))
    return found


def _choice(value: Any, where: str) -> str:
    choices = value["choices"] if isinstance(value, dict) and "choices" in value else value
    if isinstance(choices, list):
        if len(choices) > 1:
            raise DataError(f"{where}: {len(choices)} classes are chosen; choose one")
        return word(choices[0]) if choices else ""
    return word(choices)


def _who(person: Any) -> str | None:
    """A number, or a record with an address."""
    return annotator(person.get("email") or person.get("id") if isinstance(person, dict) else person)
