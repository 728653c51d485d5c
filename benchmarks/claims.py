"""What the result files of units say of two arms, in words: by the rule of docs/concepts.md, never more than it allows."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.run import RESULTS, from_bits
from svp.evaluate import better, difference, no_worse

Facts = dict[str, Any]
Found = dict[str, dict[int, Facts]]  # results of units by arm (the unit's name without its seed) and seed
MARGIN = 1.0  # points: less of a loss counts as no worse


def results(experiment: str) -> Found:
    """What stands in the result files."""
    found: Found = {}
    for path in sorted((RESULTS / experiment).glob("*.json")):
        result = json.loads(path.read_text())
        if "correct" in result:
            arm = path.stem.replace(f"-seed{result['seed']}", "").replace(f"seed{result['seed']}-", "")
            found.setdefault(arm, {})[result["seed"]] = result
    return found


def correct(result: Facts) -> NDArray[np.uint8]:
    """(n_test,) which test examples were right."""
    return from_bits(result["correct"], result.get("n_test"))


def against(own: dict[int, Facts], other: dict[int, Facts], question: str) -> str:
    """One arm minus another over the seeds that both have, and what may be claimed of it; question: "better" or "no worse"."""
    if own is other:
        return ""
    seeds = sorted(own.keys() & other.keys())
    if not seeds:
        return "not run"
    found = difference([correct(own[s]) for s in seeds], [correct(other[s]) for s in seeds])
    if len(seeds) == 1:
        return f"{found.mean:+.2f} (by rows alone {found.rows_low:+.2f} to {found.rows_high:+.2f}; one seed)"
    verdict = better(found) if question == "better" else no_worse(found, MARGIN)
    return f"{found.mean:+.2f} ({found.low:+.2f} to {found.high:+.2f}), {question}: {verdict}"


def line(arm: str, by_seed: dict[int, Facts], *cells: str) -> str:
    one = next(iter(by_seed.values()))
    accuracies = ", ".join(f"{100 * result['accuracy']:.2f}" for _, result in sorted(by_seed.items()))
    return "| " + " | ".join([arm, f"{one['n']:,}", str(one["epochs"]), accuracies, *cells]) + " |"


def table(title: str, heads: Sequence[str], lines: Sequence[str]) -> None:
    heads = ["arm", "examples", "epochs", "accuracy by seed, %", *heads]
    if lines:
        print(f"\n## {title}\n\n| {' | '.join(heads)} |\n|{'---|' * len(heads)}", *lines, sep="\n")


def speed_up(target: dict[int, Facts], own: dict[int, Facts]) -> str:
    """Seconds of selection by the target over those by this arm, of seeds whose units were alone on the machine."""
    seeds = [s for s in target.keys() & own.keys() if target[s].get("quiet") and own[s].get("quiet")]
    taken = [sum(sum(side[s]["selection_seconds"].values()) for s in seeds) for side in (target, own)]
    return f"{taken[0] / taken[1]:.1f}" if seeds and taken[1] else "not timed alone"
