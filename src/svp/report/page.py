"""Facts to one HTML page that needs nothing else: style, pictures, charts and the chart library are inside."""

import base64
import hashlib
from collections.abc import Sequence
from functools import cache
from importlib import resources
from typing import Any

import altair as alt
import jinja2
import vl_convert
from markupsafe import Markup

from svp import words
from svp.files import Json
from svp.report import charts, passages, pictures, tables
from svp.report.facts import Example, Facts


def render(context: Json, template: str) -> str:
    """The page. Whatever users named (classes, keys, datasets, people, texts) is escaped by the template."""
    script = Markup(_library() + "\n" + _text("page.js"))  # ours and the chart library's: no user's word is in it
    fingerprint = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return _template(template).render(
        **context,
        style=Markup(_text("page.css")),
        script=script,
        # The browser itself refuses whatever is not in this file, and any script but this one.
        policy=f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'sha256-{fingerprint}'",
    )


def context(facts: Facts) -> Json:
    """What the template fills in."""
    metrics = facts.metrics
    arms, comparisons, costs = tables.arms(metrics), tables.comparisons(metrics), tables.costs(metrics)
    balance = tables.balance(facts)
    curve = len({row["n"] for row in arms}) > 1 and metrics["workflow"] == "active"
    specs = {
        "accuracy": (charts.learning_curve(arms) if curve else charts.accuracy(arms)) if arms else None,
        "differences": charts.differences(comparisons, metrics["margin"]) if comparisons else None,
        "costs": charts.costs(costs) if arms else None,
        "balance": charts.balance(balance) if balance else None,
    }
    return {
        "story": tables.story(facts),
        "answer": tables.answer(metrics),
        "arms": arms,
        "curve": curve,
        "digits": tables.digits(facts.environment["dataset"]["n_test"]),
        "comparisons": comparisons,
        "costs": costs,
        "stages": tables.stages(metrics),
        "agreement": tables.agreement(metrics),
        "balance": balance,
        "balance_drawn": len(charts.most_moved(balance)),
        "classes": tables.classes(facts),
        "shown": _shown(facts),
        "missing": facts.missing,
        "settings": tables.settings(facts),
        "machine": tables.machine(facts),
        "fingerprint": facts.environment["dataset"]["fingerprint"],
        "problems": facts.environment["dataset"]["problems"],
        "specs": {name: spec for name, spec in specs.items() if spec is not None},
    }


def _shown(facts: Facts) -> Json:
    """Chosen and left-out examples, with pictures or texts where there are any."""
    shown, dataset = facts.shown, facts.dataset
    images = pictures.are_images(dataset)
    texts = dataset is not None and dataset.is_text

    def rows(examples: list[Example]) -> list[Json]:
        drawn: Sequence[Any] = [None] * len(examples)
        if dataset is not None and (images or texts):
            drawn = (pictures.thumbnails if images else passages.passages)(dataset, examples)
        return [{"example": example, "drawn": each} for example, each in zip(examples, drawn, strict=True)]

    return {
        "chosen": rows(shown.chosen),
        "rest": rows(shown.rest),
        "pool": shown.pool,
        "taken": shown.taken,
        "round": shown.round,
        "ranked": shown.ranked,
        "by_lot": shown.by_lot,
        "images": images,
        "texts": texts,
        "tiny": dataset is not None and images and pictures.are_tiny(dataset),
    }


@cache
def _library() -> str:
    """The chart library, once for all charts; it takes seconds to put together."""
    version = ".".join(alt.SCHEMA_VERSION.lstrip("v").split(".")[:2])
    code: str = vl_convert.javascript_bundle(vl_version=version)  # type: ignore[call-arg]  # its stub is wrong
    # Nothing in it may end the element that it stands in, and line ends must be those that the browser counts.
    return code.replace("\r", "").replace("</script", r"<\/script").replace("<!--", r"<\!--")


def _template(name: str) -> jinja2.Template:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("svp.report", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(signed=tables.signed, seconds=words.seconds, times=words.times, value=_value)
    environment.policies["json.dumps_kwargs"] = {}  # keys in their order
    return environment.get_template(name)


def _value(score: float | None) -> str:
    """A score to three digits that count."""
    return "" if score is None else f"{score:.3g}".replace("-", "−")


def _text(name: str) -> str:
    return resources.files("svp.report").joinpath(name).read_text(encoding="utf-8")
