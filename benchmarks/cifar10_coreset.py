"""CIFAR-10: the half that preact8 chooses by forgetting, for preact20, against a random half and everything (cifar10-coreset).

A unit is one training of the target (and, first, of the proxy) under one seed, in a run folder of its own that takes what it
needs from those of the units before it. Result: accuracy, steps, seconds, and which test images were right (one bit each), of
which intervals are made. `python -m benchmarks.cifar10_coreset` prints what stands there.
"""

from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import svp
from benchmarks.claims import against, results
from benchmarks.run import Unit, as_bits
from svp.config import CoresetConfig, read_toml
from svp.files import read_array

SEEDS = (0, 1, 2)
# Fixed, not measured: all arms of a seed must round alike, whatever else the machine does. Seed 0 was run so; the units of one
# thread can run two at a time on two cores.
COMPUTE = {"device": "cpu", "precision": "bf16", "channels_last": True, "threads": 1}
# What each unit runs: (arm, equal) -> controls and equals, of which all but one arm stand in an earlier unit's folder.
STEPS = {
    ("proxy", "epochs"): ((), ("epochs",)),
    ("random", "epochs"): (("random",), ("epochs",)),
    ("full", "epochs"): (("random", "full"), ("epochs",)),
    ("proxy", "steps"): (("full",), ("epochs", "steps")),
    ("random", "steps"): (("random", "full"), ("epochs", "steps")),
}


def run_arm(seed: int, arm: str, equal: str, data: Path, work: Path) -> dict[str, Any]:
    """Extend the seed's run by one arm, and report that arm."""
    control, equals = STEPS[arm, equal]
    recipe = Path(svp.__file__).parent / "recipes" / "cifar10-coreset.toml"
    settings = {
        **read_toml(recipe),
        "data": data,
        "seed": seed,
        "compute": COMPUTE,
        "control": control,
        "equal": equals,
    }
    run = svp.coreset(
        CoresetConfig.make(settings), out=work / f"seed{seed}-{arm}-{equal}", reuse=_earlier(work, seed), show=show
    )
    facts = next(a for a in run.metrics["arms"] if (a["arm"], a["equal"]) == (arm, equal))
    folder = "target/full" if arm == "full" else f"target/{arm}-{equal}"
    dataset = svp.load_dataset("cifar10", root=data)
    assert dataset.test is not None
    correct = (
        np.asarray(read_array(run.folder / folder / f"seed-{seed}/test/probs.npy")).argmax(axis=1)
        == dataset.test.labels
    )
    found = {**facts, "correct": as_bits(correct)}
    if arm == "full":
        found["agreement"] = run.metrics["agreement"]
    if (arm, equal) == ("proxy", "epochs"):
        found["proxy"] = run.metrics["proxies"][0]
    return found


def show(what: str, done: int, total: int, note: str = "") -> None:
    print(f"  {what} {done}/{total} {note}", flush=True)


def _earlier(work: Path, seed: int) -> list[Path]:
    """The run folders of the seed's other units: what they trained is not trained again."""
    return sorted(mark.parent for mark in work.glob(f"seed{seed}-*/metrics.json"))


UNITS = [
    Unit(f"seed{seed}-{arm}-{equal}", partial(run_arm, seed, arm, equal)) for seed in SEEDS for arm, equal in STEPS
]


# What the chosen part is held against: (arm, other arm, what is asked of the difference).
COMPARED = [
    ("proxy-epochs", "random-epochs", "better"),
    ("proxy-epochs", "full-epochs", "no worse"),
    ("proxy-steps", "random-steps", "better"),
    ("proxy-steps", "full-epochs", "no worse"),
]


def main() -> None:
    """Print what stands in the result files: accuracies by arm, and differences over the seeds that both arms have."""
    found = results("cifar10_coreset")
    for arm, by_seed in found.items():
        shown = ", ".join(f"{100 * result['accuracy']:.2f} % (seed {seed})" for seed, result in by_seed.items())
        one = next(iter(by_seed.values()))
        print(f"{arm}: {one['n']:,} examples, {one['epochs']} epochs, {one['steps']:,} steps: {shown}")
    for arm, other, question in COMPARED:
        print(f"{arm} minus {other}, points: {against(found.get(arm, {}), found.get(other, {}), question)}")


if __name__ == "__main__":
    main()
