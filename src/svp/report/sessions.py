"""The page about a labelling session: session.json and pictures to what the template fills in."""

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from svp.config import SessionConfig
from svp.data import unlabelled
from svp.data.base import Dataset
from svp.errors import DataError, SvpError, SvpWarning
from svp.files import Json, read_record
from svp.report import charts, passages, pictures
from svp.report.facts import Example
from svp.report.tables import typeset
from svp.runs import SUMMARY, SUMMARY_FORMAT
from svp.words import learning

UNSURE = ("skip", "unsure", "none")  # answers that are no class


def context(folder: Path, dataset: Dataset | None = None) -> Json:
    """What the template fills in. `dataset`: the session's, where it is at hand; else it is read again, if it is still there.

    Raises DataError for facts of another version.
    """
    facts = read_record(folder / SUMMARY)
    if facts.get("format") != SUMMARY_FORMAT:
        raise DataError(
            f"{folder / SUMMARY} has format {facts.get('format')}, this version reads {SUMMARY_FORMAT}; svp session report"
        )
    missing = ""
    if dataset is None:
        dataset, missing = _load(folder)
    curve = facts["curve"]
    classes = _classes(facts)
    specs = {"classes": charts.counts(classes)}
    if curve:
        specs["curve"] = charts.session_curve(curve)
    return {
        "asks_model": True,  # facts of earlier versions do not say it
        **facts,
        "learned": [typeset(line) for line in learning(curve)] if curve else [],
        "may_stop": [typeset(line) for line in facts["may_stop"]],
        "counts": classes,
        "rows_of_people": _people(facts),
        "missing": missing,
        "images": pictures.are_images(dataset),
        "tiny": dataset is not None and pictures.are_images(dataset) and pictures.are_tiny(dataset),
        "texts": dataset is not None and dataset.is_text,
        "last": _drawn(facts["batch"]["examples"] if facts["batch"] else [], dataset),
        "divided_rows": _drawn(facts["divided"]["examples"], dataset),
        "specs": specs,
    }


def _load(folder: Path) -> tuple[Dataset | None, str]:
    """The pool as the settings name it, or why it cannot be had."""
    try:
        with warnings.catch_warnings(action="ignore", category=SvpWarning):
            config = SessionConfig.load(folder / "config.toml")
            return unlabelled.load(config, config.classes), ""
    except (SvpError, OSError, ImportError) as error:
        return None, str(error)


def _classes(facts: Json) -> list[Json]:
    """A row a class: labels, their share, and how many of the rest the proxy takes for it."""
    total, taken_for = max(facts["labelled"], 1), facts["taken_for"]
    rest = sum(taken_for.values()) if taken_for else 0
    return [
        {
            "name": name,
            "labels": n,
            "share": n / total,
            "taken_for": taken_for.get(name) if taken_for else None,
            "taken_for_share": taken_for.get(name, 0) / rest if rest else None,
        }
        for name, n in facts["per_class"].items()
    ]


def _people(facts: Json) -> list[Json]:
    """A row a person: what they said how often, and how long an answer takes them."""
    return [
        {
            "who": who,
            "answers": sum(said.values()),
            "classes": [(word, n) for word, n in said.items() if word not in UNSURE],
            "others": [(word, n) for word, n in said.items() if word in UNSURE],
            "seconds": facts["seconds_by"].get(who),
        }
        for who, said in facts["said_by"].items()
    ]


def _drawn(examples: Sequence[Json], dataset: Dataset | None) -> list[Json]:
    """Each example with its picture, or how its text begins, where the data still have it."""
    row_of: dict[str, int] = {}
    if dataset is not None:
        wanted = {e["key"] for e in examples}
        keys = enumerate(dataset.keys or map(str, dataset.ids.tolist()))
        row_of = {key: row for row, key in keys if key in wanted}
    here = [e for e in examples if e["key"] in row_of]
    drawn: dict[str, Any] = {}
    if dataset is not None and here and (pictures.are_images(dataset) or dataset.is_text):
        shown = [Example(int(dataset.ids[row_of[e["key"]]]), e["key"], None, None) for e in here]
        draw = passages.passages if dataset.is_text else pictures.thumbnails
        drawn = dict(zip([e["key"] for e in here], draw(dataset, shown), strict=True))
    return [{**e, "drawn": drawn.get(e["key"])} for e in examples]
