"""Rows to Vega-Lite specifications.

Colours are variables of the page's style sheet, so that charts follow light, dark and print by themselves.
"""

from collections.abc import Sequence

import altair as alt

from svp.files import Json
from svp.words import ARMS, seconds

ROW = 30  # pixels
LABEL = 128  # pixels that the names beside a chart may take: it has to fit a phone
N_CLASSES = 24  # more are not all drawn

COLOURS = {
    "proxy": "var(--proxy)",
    "selection": "var(--proxy)",
    "proxy model": "var(--soft)",
    "random": "var(--random)",
    "full": "var(--target)",
    "short": "var(--soft)",
    "target": "var(--target)",
}
STAGES = ("var(--proxy)", "var(--choosing)", "var(--target)")
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Helvetica Neue', Arial, sans-serif"


def accuracy(rows: list[Json]) -> Json:
    """For each arm a dot per seed and, over several, a bar at their mean with its standard deviation."""
    labels = _distinct(rows)
    dots = [
        {"row": label, "arm": row["arm"], "accuracy": each["accuracy"], "seed": each["seed"]}
        for label, row in zip(labels, rows, strict=True)
        for each in row["seeds"]
    ]
    means = [
        {
            "row": label,
            "arm": row["arm"],
            "mean": row["mean"],
            "low": max(0.0, row["mean"] - row["spread"]),
            "high": min(100.0, row["mean"] + row["spread"]),
        }
        for label, row in zip(labels, rows, strict=True)
        if row["spread"] is not None
    ]
    y, colour = _rows_axis(labels), _colour(rows)
    ends = [each[end] for each in means for end in ("low", "high")] + [each["accuracy"] for each in dots]
    pad = max(0.05 * (max(ends) - min(ends)), 0.1)
    scale = alt.Scale(domain=[min(ends) - pad, min(100.0, max(ends) + pad)], nice=False, zero=False)
    x = alt.X("accuracy:Q", title="test accuracy, %", scale=scale, axis=alt.Axis(tickCount=6))
    drawn = (
        alt.Chart(_data(dots))
        .mark_circle(size=60, opacity=0.75)
        .encode(
            x=x,
            y=y,
            color=colour,
            tooltip=[
                alt.Tooltip("row:N", title="arm"),
                alt.Tooltip("seed:N"),
                alt.Tooltip("accuracy:Q", format=".2f", title="accuracy, %"),
            ],
        )
    )
    spread = (
        alt.Chart(_data(means))
        .mark_rule(strokeWidth=1.5, clip=True)
        .encode(x=alt.X("low:Q", scale=scale), x2="high:Q", y=y, color=colour)
    )
    mean = (
        alt.Chart(_data(means))
        .mark_tick(thickness=3, size=18)
        .encode(
            x=alt.X("mean:Q", scale=scale),
            y=y,
            color=colour,
            tooltip=[alt.Tooltip("row:N", title="arm"), alt.Tooltip("mean:Q", format=".2f", title="mean, %")],
        )
    )
    return _finish(
        spread + mean + drawn if means else drawn, "Test accuracy of every arm, a dot for each seed", len(labels)
    )


def learning_curve(rows: list[Json]) -> Json:
    """Accuracy against labels: a line through the means of each arm, a dot for each seed."""
    dots = [
        {"n": row["n"], "arm": row["arm"], "name": row["label"], "accuracy": each["accuracy"], "seed": each["seed"]}
        for row in rows
        for each in row["seeds"]
    ]
    means = [{"n": row["n"], "arm": row["arm"], "mean": row["mean"]} for row in rows]
    totals = sorted({row["n"] for row in rows})
    x = alt.X(
        "n:Q",
        title="labels",
        axis=alt.Axis(values=totals, format=",d"),
        scale=alt.Scale(zero=False, nice=False, padding=24),
    )
    y = alt.Y("accuracy:Q", title="test accuracy, %", scale=alt.Scale(zero=False, nice=True))
    line = (
        alt.Chart(_data(means))
        .mark_line(strokeWidth=2)
        .encode(x=x, y=alt.Y("mean:Q"), color=_colour(rows), strokeDash=_dash(rows))
    )
    dot = (
        alt.Chart(_data(dots))
        .mark_point(filled=True, size=55, opacity=0.85)
        .encode(
            x=x,
            y=y,
            color=_colour(rows),
            shape=alt.Shape("arm:N", legend=None),
            tooltip=[
                alt.Tooltip("name:N", title="asked by"),
                alt.Tooltip("n:Q", format=",", title="labels"),
                alt.Tooltip("seed:N"),
                alt.Tooltip("accuracy:Q", format=".2f", title="accuracy, %"),
            ],
        )
    )
    return _finish(line + dot, "Test accuracy of the target against the number of labels, a line for each arm", 8)


def session_curve(curve: Json) -> Json:
    """Accuracy of a session's proxy against the labels that it was trained on, with its interval."""
    rows = [
        {"n": point["trained_on"], **{name: 100 * point[name] for name in ("accuracy", "low", "high")}}
        for point in curve["points"]
    ]
    x = alt.X(
        "n:Q",
        title="labels trained on",
        axis=alt.Axis(format=",d", tickCount=6),
        scale=alt.Scale(zero=False, nice=False, padding=24),
    )
    scale = alt.Scale(zero=False, nice=True)
    tooltip = [
        alt.Tooltip("n:Q", format=",", title="labels trained on"),
        *(alt.Tooltip(f"{name}:Q", format=".1f", title=f"{name}, %") for name in ("accuracy", "low", "high")),
    ]
    base = alt.Chart(_data(rows))
    band = base.mark_area(opacity=0.2, color="var(--proxy)").encode(
        x=x, y=alt.Y("low:Q", title="right, %", scale=scale), y2="high:Q"
    )
    line = base.mark_line(strokeWidth=2, color="var(--proxy)").encode(x=x, y=alt.Y("accuracy:Q", scale=scale))
    span = base.mark_rule(strokeWidth=1.5, color="var(--proxy)").encode(x=x, y="low:Q", y2="high:Q")
    dot = base.mark_circle(size=70, opacity=1, color="var(--proxy)").encode(x=x, y="accuracy:Q", tooltip=tooltip)
    return _finish(
        band + span + line + dot, "Accuracy of the proxy against the number of labels, with its 95 % interval", 8
    )


def counts(rows: list[Json]) -> Json:
    """The share of each class among the labels (bars), and among the rest as the proxy takes it (ticks)."""
    data = [{"name": row["name"], "chosen_share": row["share"], "whole_share": row["taken_for_share"]} for row in rows]
    return balance(
        data, ("of the labels", "of the rest, by the proxy"), "Share of each class among the labels and in the rest"
    )


def differences(rows: list[Json], margin: float) -> Json:
    """Each difference with its interval, against 0 and, where the question is "no worse", against the margin."""
    data = [
        {
            "row": _two_lines(row["label"]),
            "mean": row["mean"],
            "low": row["low"] if row["low"] is not None else row["rows_low"],
            "high": row["high"] if row["high"] is not None else row["rows_high"],
            "kind": "one seed" if row["low"] is None else "interval",
            "claim": row["claim"],
        }
        for row in rows
    ]
    lines = [{"x": 0.0, "what": "none"}]
    if any(row["question"] == "no worse" for row in rows):
        lines.append({"x": -margin, "what": "margin"})
    y = _rows_axis([row["row"] for row in data])
    tooltip = [
        alt.Tooltip("row:N", title="compared"),
        *(alt.Tooltip(f"{name}:Q", format="+.2f") for name in ("mean", "low", "high")),
        alt.Tooltip("claim:N", title="verdict"),
    ]
    dash = alt.StrokeDash(
        "kind:N", scale=alt.Scale(domain=["interval", "one seed"], range=[[1, 0], [3, 3]]), legend=None
    )
    mark = alt.StrokeDash("what:N", scale=alt.Scale(domain=["none", "margin"], range=[[1, 0], [5, 4]]), legend=None)
    base = alt.Chart(_data(data))
    zero = alt.Chart(_data(lines)).mark_rule(color="var(--soft)").encode(x="x:Q", strokeDash=mark)
    span = base.mark_rule(strokeWidth=2, color="var(--proxy)").encode(
        x=alt.X("low:Q", title="difference in accuracy, points", axis=alt.Axis(tickCount=6)),
        x2="high:Q",
        y=y,
        strokeDash=dash,
        tooltip=tooltip,
    )
    dot = base.mark_circle(size=70, opacity=1, color="var(--proxy)").encode(x="mean:Q", y=y, tooltip=tooltip)
    chart = alt.layer(zero, span, dot).resolve_scale(strokeDash="independent")
    return _finish(chart, "Differences in accuracy with their 95 % intervals", len(rows), step=40)


def costs(table: Json) -> Json:
    """Stacked seconds, a bar for each way to a trained target."""
    stages = table["stages"]
    data = [
        {"row": row["label"], "stage": stage, "order": i, "seconds": value, "time": seconds(value)}
        for row in table["rows"]
        for i, (stage, value) in enumerate(zip(stages, row["parts"], strict=True))
    ]
    colours = STAGES if len(stages) == len(STAGES) else (STAGES[0], STAGES[2])
    chart = (
        alt.Chart(_data(data))
        .mark_bar(size=18)
        .encode(
            x=alt.X("seconds:Q", title="seconds", stack="zero", axis=alt.Axis(tickCount=6)),
            y=_rows_axis([row["label"] for row in table["rows"]]),
            color=alt.Color("stage:N", scale=alt.Scale(domain=stages, range=list(colours)), legend=None),
            order=alt.Order("order:Q"),
            tooltip=[
                alt.Tooltip("row:N", title="way"),
                alt.Tooltip("stage:N"),
                alt.Tooltip("time:N"),
            ],
        )
    )
    return _finish(chart, "Seconds by stage, for each way to a trained target", len(table["rows"]))


def balance(
    rows: list[Json],
    titles: tuple[str, str] = ("of the chosen", "of the whole"),
    description: str = "Share of each class among the chosen examples and in the whole",
) -> Json:
    """The share of each class among the chosen (bars) and in the whole (ticks)."""
    data = most_moved(rows)
    y = _rows_axis([row["name"] for row in data], field="name")
    tooltip = [
        alt.Tooltip("name:N", title="class"),
        alt.Tooltip("chosen_share:Q", format=".1%", title=titles[0]),
        alt.Tooltip("whole_share:Q", format=".1%", title=titles[1]),
    ]
    base = alt.Chart(_data(data))
    bar = base.mark_bar(size=12, color="var(--proxy)").encode(
        x=alt.X("chosen_share:Q", title="share of the examples", axis=alt.Axis(format=".0%", tickCount=6)),
        y=y,
        tooltip=tooltip,
    )
    tick = base.mark_tick(thickness=2.5, size=20, opacity=1, color="var(--ink)").encode(
        x="whole_share:Q", y=y, tooltip=tooltip
    )
    known = any(row["whole_share"] is not None for row in data)
    return _finish(
        bar + tick if known else bar,
        description,
        len(data),
        step=24,
    )


def most_moved(rows: list[Json]) -> list[Json]:
    """All classes, or of very many those whose share among the chosen differs most from the whole."""
    if len(rows) <= N_CLASSES:
        return rows
    moved = sorted(rows, key=lambda row: (row["whole_share"] or 0.0) - row["chosen_share"])
    return moved[: N_CLASSES // 2] + moved[-(N_CLASSES // 2) :]


# --- what all charts share --------------------------------------------------------------------------------------------


def _data(rows: list[Json]) -> alt.InlineData:
    return alt.InlineData(values=rows)


def _distinct(rows: list[Json]) -> list[str]:
    """Row names of an accuracy chart: with the number of labels where the arms differ in nothing else."""
    names = [row["label"] for row in rows]
    return names if len(set(names)) == len(names) else [f"{row['label']}, {row['n']:,}" for row in rows]


def _two_lines(label: str) -> str:
    """What is compared, and under which terms below; or a long comparison in two halves."""
    what, comma, terms = label.partition(", ")
    return f"{what}\n{terms}" if comma else label if len(label) < 22 else label.replace(" − ", "\n− ")


def _rows_axis(names: Sequence[str], field: str = "row") -> alt.Y:
    axis = alt.Axis(labelLimit=LABEL, labelPadding=8, ticks=False, domain=False)
    if any("\n" in name for name in names):
        axis.labelExpr = "split(datum.label, '\\n')"
    return alt.Y(f"{field}:N", sort=list(names), title=None, axis=axis)


def _colour(rows: list[Json]) -> alt.Color:
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    return alt.Color("arm:N", scale=alt.Scale(domain=arms, range=[COLOURS[arm] for arm in arms]), legend=None)


def _dash(rows: list[Json]) -> alt.StrokeDash:
    """Arms differ in more than colour."""
    arms = [arm for arm in ARMS if any(row["arm"] == arm for row in rows)]
    patterns = {"random": [2, 3], "target": [7, 3]}
    return alt.StrokeDash(
        "arm:N", scale=alt.Scale(domain=arms, range=[patterns.get(arm, [1, 0]) for arm in arms]), legend=None
    )


def _finish(chart: alt.Chart | alt.LayerChart, description: str, n_rows: int, step: int = ROW) -> Json:
    """As wide as the page, as high as its rows; drawn in the page's own ink."""
    finished = (
        chart.properties(
            width="container", height=max(2, n_rows) * step, description=description, background="transparent"
        )
        .configure(font=FONT, autosize=alt.AutoSizeParams(type="fit-x", contains="padding"))
        .configure_view(stroke=None)
        .configure_axis(
            labelColor="var(--ink)",
            titleColor="var(--soft)",
            gridColor="var(--line)",
            domainColor="var(--line)",
            tickColor="var(--line)",
            labelFontSize=12,
            titleFontSize=12,
            titleFontWeight="normal",
        )
    )
    spec: Json = finished.to_dict()
    return spec
