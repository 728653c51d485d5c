"""Does the proxy rank like the target? Does it pay?"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from svp.chance import hash_ids
from svp.evaluate import Verdict


@dataclass(frozen=True)
class Agreement:
    """How alike two models rank the same examples.

    spearman  rank correlation, ties sharing their mean rank; None where one side ranks all alike
    overlap   share of one side's first `budget` that the other side's first `budget` holds too
    chance    the overlap that two unrelated rankings would have
    """

    spearman: float | None
    overlap: float
    chance: float
    n: int
    budget: int

    def facts(self) -> dict[str, Any]:
        return asdict(self)


def agreement(scores: ArrayLike, other: ArrayLike, budget: int, *, ids: ArrayLike | None = None, seed: int = 0) -> Agreement:
    """Compare two (n,) rankings, higher = taken first. Ties at the edge of the budget go by the hash of the id, as in selection."""
    a, b = np.asarray(scores, float), np.asarray(other, float)
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"both rankings must be of the same examples; got shapes {a.shape} and {b.shape}")
    n = len(a)
    spearman = None
    if n > 1 and np.ptp(a) > 0 and np.ptp(b) > 0:
        spearman = float(stats.spearmanr(a, b).statistic)
    ties = hash_ids(np.arange(n) if ids is None else ids, seed, "ties").astype(np.int64)  # signed, as svp.select orders them
    tops = [np.lexsort((ties, -values))[:budget] for values in (a, b)]
    overlap = len(np.intersect1d(*tops)) / budget if budget else 1.0
    return Agreement(spearman, overlap, budget / n if n else 1.0, n, budget)


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
        verdict = "does not pay"
    else:
        verdict = "pays" if no_worse == "shown" else "not shown"
    return Payment(seconds, full_seconds, ratio, verdict)


def words(metrics: dict[str, Any]) -> list[str]:
    """The verdict of a run in sentences, from its metrics; what was not measured is not mentioned."""
    said = [_outcome(metrics)]
    said += [_comparison(metrics, found) for found in metrics["comparisons"] if found["arm"] != "proxy model"]
    said += _ranking(metrics["agreement"])
    said += _time(metrics)
    for found in metrics["comparisons"]:
        if found["arm"] == "proxy model" and found["verdict"] == "shown":
            said.append("The proxy itself is no less accurate than the target: you may not need the target at all.")
    return said


def _outcome(metrics: dict[str, Any]) -> str:
    """Accuracies by arm, averaged over seeds."""
    reached: dict[tuple[str, str, int], list[float]] = {}
    for arm in metrics["arms"]:
        reached.setdefault((arm["arm"], arm["equal"], arm["n"]), []).append(100 * arm["accuracy"])
    parts = []
    for (arm, equal, n), accuracies in reached.items():
        times = ", equal steps" if equal == "steps" else ""
        parts.append(f"{np.mean(accuracies):.2f} % on {n:,} examples ({ARMS[metrics['workflow']].get(arm, arm)}{times})")
    n_seeds = max(len(values) for values in reached.values())
    model = metrics["arms"][0]["model"]
    return f"Accuracy of {model}, mean of {n_seeds} seed{'s' if n_seeds > 1 else ''}: {'; '.join(parts)}."


ARMS = {
    "coreset": {"proxy": "chosen by the proxy", "random": "chosen at random", "full": "everything", "selection": "an earlier selection"},
    "active": {"proxy": "asked by the proxy", "random": "asked at random", "target": "asked by the target itself", "selection": "an earlier selection"},
}


def _comparison(metrics: dict[str, Any], found: dict[str, Any]) -> str:
    names = ARMS[metrics["workflow"]]
    at = f" at {found['n_labelled']:,} labels" if "n_labelled" in found else " at equal steps" if found["equal"] == "steps" else ""
    if found["low"] is None:
        spread = (
            f"one seed; other test rows alone could make it {found['rows_low']:+.2f} to {found['rows_high']:+.2f}, "
            "and what other seeds could do is unknown: repeat with --seeds 3"
        )
    else:
        spread = (
            f"95 % interval {found['low']:+.2f} to {found['high']:+.2f}; "
            f"{found['n_seeds']} seeds and {found['n_test']:,} test rows could show {found['smallest']:.2f}"
        )
    margin = f" by more than {metrics['margin']:g}" if found["question"] == "no worse" else ""
    claim = {"better": "better", "no worse": "no worse" + margin}[found["question"]]
    verdict = {"shown": f"{claim} is shown", "not shown": f"{claim} is not shown", "refuted": f"{claim} is refuted"}[found["verdict"]]
    return (
        f"What was {names.get(found['arm'], found['arm'])} against what was {names.get(found['against'], found['against'])}{at}: "
        f"{found['mean']:+.2f} points ({spread}): {verdict}."
    )


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
        said.append(f"{who} alike to this degree: {rank}{overlap:.0%} of the choice in common (chance: {found[0]['chance']:.0%}).")
    return said


def _time(metrics: dict[str, Any]) -> list[str]:
    if metrics.get("payment"):
        p = metrics["payment"]
        return [f"End to end {p['seconds']:.0f} s against {p['full_seconds']:.0f} s for everything, {p['ratio']:.2f} times as fast: {p['verdict']}."]
    return [
        f"Selecting {s['n_labelled']:,} took the proxy {s['seconds']:.0f} s and the target {s['target_seconds']:.0f} s: {s['ratio']:.1f} times as fast."
        for s in metrics.get("speed_up", [])
    ]
