"""Does the proxy rank like the target? Does it pay?"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from svp.evaluate import Verdict


@dataclass(frozen=True)
class Agreement:
    """How alike two models rank the same examples.

    spearman  rank correlation, ties sharing their mean rank; None where one side ranks all alike
    overlap   share of one side's first `budget` that the other side's first `budget` holds too, as expected where each side
              breaks its own ties by lot: two rankings that tie everything agree by chance, whatever rule they share
    chance    the overlap that two unrelated rankings would have
    """

    spearman: float | None
    overlap: float
    chance: float
    n: int
    budget: int

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def agreement(scores: ArrayLike, other: ArrayLike, budget: int) -> Agreement:
    """Compare two (n,) rankings of the same examples, higher = taken first. Cost: n log n operations, a few rows of n floats."""
    a, b = np.asarray(scores, float), np.asarray(other, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"both rankings must be of the same examples; got shapes {a.shape} and {b.shape}")
    n = len(a)
    spearman = None
    if n > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
        spearman = float(stats.spearmanr(a, b).statistic)
    overlap = float(_taken(a, budget) @ _taken(b, budget)) / budget if budget else 1.0
    return Agreement(spearman, overlap, budget / n if n else 1.0, n, budget)


def _taken(values: NDArray[np.float64], budget: int) -> NDArray[np.float64]:
    """(n,) chance of each to be among the first `budget` (1 to n), when equals are taken by lot."""
    edge = np.partition(values, len(values) - budget)[len(values) - budget]
    above, tied = values > edge, values == edge
    share: float = (budget - above.sum()) / tied.sum()
    return np.where(tied, share, above.astype(float))


@dataclass(frozen=True)
class Payment:
    """End to end: proxy, scoring, choosing and the target on the chosen part, against the target on all data.

    ratio    seconds of the full training over seconds of all that replaces it; above 1 saves time
    verdict  "pays" (faster, and no worse is shown), "does not pay" (not faster, or worse is shown), else "not shown"
    """

    seconds: float
    full_seconds: float
    ratio: float
    verdict: str

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def payment(seconds: float, full_seconds: float, no_worse: Verdict) -> Payment:
    """Judge a selection: time by the ratio, accuracy by the verdict of `evaluate.no_worse`."""
    ratio = full_seconds / seconds if seconds > 0 else float("inf")
    if ratio <= 1 or no_worse == "refuted":
        return Payment(seconds, full_seconds, ratio, "does not pay")
    return Payment(seconds, full_seconds, ratio, "pays" if no_worse == "shown" else "not shown")


def words(metrics: dict[str, Any]) -> list[str]:
    """The verdict of a run in sentences, from its metrics; what was not measured is not mentioned."""
    said = [*_lead(metrics), _outcome(metrics)]
    said += [_comparison(metrics, found) for found in metrics["comparisons"] if found["arm"] != "proxy model"]
    said += _ranking(metrics["agreement"])
    for found in metrics["comparisons"]:
        if found["arm"] == "proxy model" and found["verdict"] == "shown":
            said.append("The proxy itself is no less accurate than the target: you may not need the target at all.")
    return said


def _lead(metrics: dict[str, Any]) -> list[str]:
    """Does it pay? Or, of active learning, how much faster was it?"""
    if metrics["workflow"] == "active":
        return [
            f"The proxy asked for {s['n_labelled']:,} labels {s['ratio']:.1f} times as fast as the target "
            f"({s['seconds']:.0f} s against {s['target_seconds']:.0f} s)."
            for s in reversed(metrics["speed_up"])
        ]
    paid = metrics["payment"]
    if paid is None and any(arm["arm"] == "selection" for arm in metrics["arms"]):
        return ["Whether it pays is not known: what the earlier selection had cost is not part of this run."]
    if paid is None:
        return ["Whether it pays was not measured: add --control full."]
    seconds = f"{paid['seconds']:.0f} s against {paid['full_seconds']:.0f} s"
    times = f"{paid['ratio']:.2f} times as fast end to end as training on everything ({seconds})"
    if paid["verdict"] == "pays":
        return [f"It pays: {times}, and a loss above {_points(metrics)} is excluded."]
    if paid["verdict"] == "not shown":
        return [f"Not shown whether it pays: {times}, but a loss above {_points(metrics)} is not excluded."]
    why = "choosing and training take longer" if paid["ratio"] <= 1 else f"more than {_points(metrics)} is lost"
    return [f"It does not pay: {why}; {times}."]


def _outcome(metrics: dict[str, Any]) -> str:
    """Accuracies by arm, averaged over seeds."""
    reached: dict[tuple[str, str, int], list[float]] = {}
    for arm in metrics["arms"]:
        reached.setdefault((arm["arm"], arm["equal"], arm["n"]), []).append(100 * arm["accuracy"])
    parts = []
    for (arm, equal, n), accuracies in reached.items():
        steps = ", equal steps" if equal == "steps" else ""
        parts.append(
            f"{np.mean(accuracies):.2f} % on {n:,} examples ({ARMS[metrics['workflow']].get(arm, arm)}{steps})"
        )
    n_seeds = max(len(values) for values in reached.values())
    model = metrics["arms"][0]["model"]
    return f"Accuracy of {model}, mean of {n_seeds} seed{'s' if n_seeds > 1 else ''}: {'; '.join(parts)}."


ARMS = {
    "coreset": {
        "proxy": "the part the proxy chose",
        "random": "a random part",
        "full": "everything",
        "selection": "the part of an earlier selection",
    },
    "active": {
        "proxy": "what the proxy asked for",
        "random": "what chance asked for",
        "target": "what the target asked for",
    },
}


def _comparison(metrics: dict[str, Any], found: dict[str, Any]) -> str:
    """One difference, what it can carry, and the claim."""
    names = ARMS[metrics["workflow"]]
    one, other = names.get(found["arm"], found["arm"]), names.get(found["against"], found["against"])
    at = (
        f" at {found['n_labelled']:,} labels"
        if "n_labelled" in found
        else " at equal steps"
        if found["equal"] == "steps"
        else ""
    )
    if found["low"] is None:
        spread = (
            f"one seed; other test rows could make it {found['rows_low']:+.2f} to {found['rows_high']:+.2f}, "
            "what other seeds could do is unknown: repeat with --seeds 3"
        )
    else:
        spread = (
            f"95 % interval {found['low']:+.2f} to {found['high']:+.2f}; "
            f"{found['n_seeds']} seeds and {found['n_test']:,} test rows could show {found['smallest']:.2f}"
        )
    margin = f" (margin {_points(metrics)})" if found["question"] == "no worse" else ""
    claim = f"{found['question'].capitalize()}{margin}: {found['verdict']}."
    return f"{one[0].upper()}{one[1:]} against {other}{at}: {found['mean']:+.2f} points ({spread}). {claim}"


def _points(metrics: dict[str, Any]) -> str:
    return f"{metrics['margin']:g} point{'' if metrics['margin'] == 1 else 's'}"


def _ranking(agreements: list[dict[str, Any]]) -> list[str]:
    """The proxy's agreement with the target, beside that of two targets."""
    said = []
    for between in ("proxy and target", "target and target"):
        found = [a for a in agreements if a["between"] == between]
        if not found:
            continue
        overlap = np.mean([a["overlap"] for a in found])
        rhos = [a["spearman"] for a in found if a["spearman"] is not None]
        rank = f"Spearman {np.mean(rhos):.2f}, " if rhos else ""
        who = "Proxy and target rank" if between == "proxy and target" else "Two seeds of the target rank"
        said.append(
            f"{who} alike to this degree: {rank}{overlap:.0%} of the choice in common (chance: {found[0]['chance']:.0%})."
        )
    return said
