"""Facts to rows: plain dicts of numbers and words, from which charts and tables are drawn alike."""

import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from svp import words
from svp.evaluate import mean_and_spread
from svp.files import Json
from svp.report.facts import Facts
from svp.select import METHODS

# --- numbers as people read them --------------------------------------------------------------------------------------


def signed(points: float, digits: int = 1) -> str:
    """+1.3, and −0.4 with a true minus."""
    return f"{points:+.{digits}f}".replace("-", "−")


def typeset(sentence: str) -> str:
    """The same words with true minus signs, and no line break before a per cent sign."""
    return re.sub(r"(?<![\w-])-(?=\d)", "−", sentence).replace(" %", "\u00a0%")


def digits(n_test: int) -> int:
    """Decimals of a percentage of `n_test` rows: as many as a row's weight deserves."""
    return 1 if n_test < 2000 else 2


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


# --- what was reached -------------------------------------------------------------------------------------------------


def arms(metrics: Json) -> list[Json]:
    """A row per arm (and number of labels): accuracy in percent over the seeds. The proxy's own model comes last."""
    groups: dict[tuple[str, str, int], list[Json]] = {}
    for arm in [*metrics["arms"], *metrics.get("proxies", [])]:
        groups.setdefault((arm["arm"], arm["equal"], arm["n"]), []).append(arm)
    rows = []
    for (name, equal, n), found in groups.items():
        accuracies = [100 * arm["accuracy"] for arm in found]
        mean, spread = mean_and_spread(accuracies)
        rows.append(
            {
                "arm": name,
                "equal": equal,
                "n": n,
                "label": _label(name, equal),
                "model": found[0]["model"],
                "epochs": found[0]["epochs"],
                "seeds": [{"seed": arm["seed"], "accuracy": a} for arm, a in zip(found, accuracies, strict=True)],
                "mean": mean,
                "macro_f1": 100 * _mean(arm["macro_f1"] for arm in found),
                "spread": spread,
            }
        )
    return rows


def _label(name: str, equal: str = "epochs") -> str:
    return words.ARMS[name].short + (", equal steps" if equal == "steps" else "")


def comparisons(metrics: Json) -> list[Json]:
    """A row per comparison; `low` and `high` are None where one seed says nothing of others."""
    rows = []
    for found in metrics["comparisons"]:
        when = (
            f"at {found['n_labelled']:,} labels"
            if "n_labelled" in found
            else "equal steps" * (found["equal"] == "steps")
        )
        label = f"{_label(found['arm'])} − {_label(found['against'])}" + (f", {when}" if when else "")
        rows.append({**found, "label": label, "claim": words.COMPARISONS[found["question"], found["verdict"]]})
    return rows


def classes(facts: Facts) -> Json:
    """Accuracy in percent by class, of the arms at equal epochs and the last number of labels; means over the seeds."""
    metrics = facts.metrics
    last = max(arm["n"] for arm in metrics["arms"]) if metrics["workflow"] == "active" else None
    first = metrics["arms"][0]["equal"] if metrics["arms"] else None
    groups: dict[str, list[list[Any]]] = {}
    for arm in metrics["arms"]:
        if (arm["equal"] == first or arm["arm"] == "full") and last in (None, arm["n"]):
            groups.setdefault(arm["arm"], []).append(arm["class_accuracy"])
    columns = {
        name: [None if None in of_class else 100 * _mean(of_class) for of_class in zip(*found, strict=True)]
        for name, found in groups.items()
    }
    rows = [
        {"name": name, "values": [values[c] for values in columns.values()]} for c, name in enumerate(facts.classes)
    ]
    return {"arms": [_label(name) for name in columns], "rows": rows, "n_labelled": last}


def balance(facts: Facts) -> list[Json]:
    """A row per class: its share of the chosen examples (mean over the seeds) and, where the data is there, of all."""
    n_classes = len(facts.classes)
    known = [s.labels[s.labels >= 0] for s in facts.selections if s.labels is not None]
    if not known:
        return []
    chosen = np.mean([np.bincount(labels, minlength=n_classes) for labels in known], axis=0)
    labels = None if facts.dataset is None else facts.dataset.labels
    whole = None if labels is None else np.bincount(labels, minlength=n_classes)
    return [
        {
            "name": name,
            "chosen": float(chosen[c]),
            "chosen_share": float(chosen[c] / max(chosen.sum(), 1)),
            "whole": None if whole is None else int(whole[c]),
            "whole_share": None if whole is None else float(whole[c] / max(whole.sum(), 1)),
        }
        for c, name in enumerate(facts.classes)
    ]


def agreement(metrics: Json) -> list[Json]:
    """A row per kind of pair: rank correlation and common choice, means over the pairs."""
    rows = []
    for between in dict.fromkeys(found["between"] for found in metrics["agreement"]):
        found = [a for a in metrics["agreement"] if a["between"] == between]
        rhos = [a["spearman"] for a in found if a["spearman"] is not None]
        overlaps = [a["overlap"] for a in found]
        rows.append(
            {
                "between": between if between == "proxy and target" else "target and target, another seed",
                "pairs": len(found),
                "spearman": _mean(rhos) if rhos else None,
                "spearman_range": (min(rhos), max(rhos)) if len(rhos) > 1 else None,
                "overlap": _mean(overlaps),
                "overlap_range": (min(overlaps), max(overlaps)) if len(found) > 1 else None,
                "chance": _mean(a["chance"] for a in found),
                "budget": found[0]["budget"],
                "n": found[0]["n"],
            }
        )
    return rows


# --- what it cost -----------------------------------------------------------------------------------------------------


def costs(metrics: Json) -> Json:
    """Seconds by stage of each way to a trained target, means over the seeds: {"stages": names, "rows": [...]}"""
    return _active_costs(metrics) if metrics["workflow"] == "active" else _coreset_costs(metrics)


def _coreset_costs(metrics: Json) -> Json:
    stages = ["training the proxy", "scoring and choosing", "training the target"]
    proxies = [p["seconds"] for p in metrics["proxies"]]
    selecting = (
        [_mean(p.get("embed", 0.0) + p["train"] for p in proxies), _mean(p["score"] + p["select"] for p in proxies)]
        if proxies
        else [0.0, 0.0]
    )
    ratios = {(paid["arm"], paid["equal"]): paid["ratio"] for paid in metrics["payments"]}
    rows = []
    for row in arms(metrics):
        if row["arm"] in ("proxy", "selection", "short", "full"):
            training = _mean(
                arm["seconds"].get("embed", 0.0) + arm["seconds"]["train"]
                for arm in metrics["arms"]
                if (arm["arm"], arm["equal"]) == (row["arm"], row["equal"])
            )
            cost = _cost(row["label"], [*([0.0, 0.0] if row["arm"] in ("short", "full") else selecting), training])
            rows.append({**cost, "ratio": ratios.get((row["arm"], row["equal"]))})
    return {"stages": stages, "rows": rows, "against": words.ARMS["full"].short}


def _active_costs(metrics: Json) -> Json:
    rows = []
    for row in sorted(arms(metrics), key=lambda row: row["n"]):
        found = [arm for arm in metrics["arms"] if (arm["arm"], arm["n"]) == (row["arm"], row["n"])]
        choosing = _mean(sum(arm["selection_seconds"].values()) for arm in found)
        training = _mean(arm["seconds"].get("embed", 0.0) + arm["seconds"]["train"] for arm in found)
        parts = [choosing, training]
        rows.append(
            {**_cost(f"{row['label']}, {row['n']:,} labels", parts), "ratio": None, "arm": row["arm"], "n": row["n"]}
        )
    by_n = {speed["n_labelled"]: speed["ratio"] for speed in metrics["speed_up"]}
    for row in rows:
        row["ratio"] = by_n.get(row["n"]) if row["arm"] == "proxy" else None
    return {
        "stages": ["choosing, all rounds", "training the target"],
        "rows": rows,
        "against": "choosing by the target",
    }


def stages(metrics: Json) -> list[tuple[str, float]]:
    """What every stage took, means over the seeds; of an active run the stages of all rounds together, up to the last total."""
    rows = [] if metrics["load_seconds"] is None else [("reading the data", metrics["load_seconds"])]
    last = max((arm["n"] for arm in metrics["arms"]), default=0)
    chosen = [("proxy", p["seconds"]) for p in metrics.get("proxies", [])]
    chosen += [
        (a["arm"], a["selection_seconds"]) for a in metrics["arms"] if "selection_seconds" in a and a["n"] == last
    ]
    for name in dict.fromkeys(name for name, _ in chosen):
        found = [seconds for arm, seconds in chosen if arm == name]
        who = "" if name == "proxy" else f" ({_label(name)})"
        model = "the target" if name == "target" else "the proxy"
        parts = {"embed": "making features", "train": f"training {model}", "score": "scoring", "select": "choosing"}
        for part, what in parts.items():
            rows.append((what if part == "train" else what + who, _mean(took.get(part, 0.0) for took in found)))
        if "test" in found[0]:
            rows.append((f"testing {model}", _mean(took["test"] for took in found)))
    for row in arms(metrics):
        found = [a for a in metrics["arms"] if (a["arm"], a["equal"], a["n"]) == (row["arm"], row["equal"], row["n"])]
        for part, what in (
            (("embed", "making features for"), ("train", "training"), ("test", "testing")) if found else ()
        ):
            on = f"{row['label']}, {row['n']:,}"
            rows.append((f"{what} the target on {on}", _mean(a["seconds"].get(part, 0.0) for a in found)))
    return [(what, took) for what, took in rows if took]


def _cost(label: str, parts: list[float]) -> Json:
    return {"label": label, "parts": parts, "total": sum(parts)}


# --- the verdict ------------------------------------------------------------------------------------------------------


def answer(metrics: Json) -> Json:
    """Did it pay: lines to be read from across the room, each with what it rests on, and the other sentences."""
    claims = [
        {"line": f"{claim.line}.", "because": typeset(f"{claim.because[:1].upper()}{claim.because[1:]}.")}
        for claim in words.claims(metrics)
    ]
    return {"claims": claims, "others": [typeset(sentence) for sentence in words.details(metrics)]}


# --- what was done ----------------------------------------------------------------------------------------------------


def story(facts: Facts) -> Json:
    """Names and sizes for the title and the first paragraph."""
    metrics, settings, about = facts.metrics, facts.settings, facts.environment["dataset"]
    method = metrics["method"]
    asked = (metrics.get("saw") or {"proxy": settings})["proxy"] is not None
    return {
        "dataset": about["name"],
        "workflow": {"coreset": "core-set selection", "active": "active learning"}[metrics["workflow"]],
        "kind": metrics["workflow"],
        "method": method,
        "method_summary": METHODS[method].summary if method in METHODS else "",
        "proxy": settings["proxy.model"] if asked else None,  # the method may need no model
        "earlier": bool(settings.get("selection")),
        "proxy_trained": _trained(settings["proxy.model"], metrics.get("proxies", [])),
        "target": settings["target.model"],
        "target_trained": _trained(settings["target.model"], metrics["arms"]),
        "same": trains(facts, "proxy") == trains(facts, "target"),
        "n": metrics["n"],
        "n_test": about["n_test"],
        "majority": 100 * (metrics["majority_rate"] or 0),
        "budget": metrics.get("budget"),
        "labelled": metrics.get("labelled"),
        "n_seeds": metrics.get("seeds", settings["seeds"]),
        "margin": words.points(metrics["margin"]),
    }


def _trained(model: str, found: list[Json]) -> str:
    """A model and, of a net, for how many epochs it was trained (on everything, or else on its first part)."""
    epochs = [arm["epochs"] for arm in sorted(found, key=lambda arm: -arm["n"]) if arm["steps"] is not None]
    return f"{model}, {epochs[0]} epochs" if epochs else model


def trains(facts: Facts, role: str) -> Json:
    """The settings of "proxy" or "target"."""
    return {name.partition(".")[2]: value for name, value in facts.settings.items() if name.startswith(f"{role}.")}


def settings(facts: Facts) -> list[tuple[str, str]]:
    """Every setting by its dotted name, as it was."""
    return [(name, _plain(value)) for name, value in facts.settings.items()]


def _plain(value: Any) -> str:
    if value is None:
        return "–"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return ", ".join(f"({_plain(v)})" if isinstance(v, list) else _plain(v) for v in value) or "none"
    return str(value)


def machine(facts: Facts) -> list[tuple[str, str]]:
    """Where and with what it ran."""
    environment = facts.environment
    rows = [("processor", f"{environment['machine']['processor']}, {environment['machine']['cores']} cores")]
    rows.append(("system", environment["machine"]["platform"]))
    if "compute" in environment:
        compute = environment["compute"]
        layout = ", channels last" if compute["channels_last"] else ""
        compiled = {"on": ", compiled", "auto": ", long trainings compiled"}.get(compute.get("compile", "off"), "")
        where = f"{compute['device']}, {compute['precision']}{layout}{compiled}, {compute['threads']} threads"
        rows.append(("computed on", where))
    rows.append(("Python", environment["python"]))
    return rows + list(environment["packages"].items())
