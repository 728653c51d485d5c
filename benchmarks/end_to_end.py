"""Seconds of the CIFAR-10 core-set (cifar10-coreset) by stage, from files to the report, against training on everything.

    python -m benchmarks.end_to_end --data DIR [--epochs 3] [--whole]

First a run of the recipe with a few epochs, half of the data and everything, in a process of its own. From it a training of as
many epochs as the recipe has is reckoned: its first epoch, with what compiling takes, and the median of the others for each of
the rest. What is neither training nor inference (start-up, reading and fingerprinting, looking at the models, choosing,
checkpoints, files, the report) is the rest of the wall seconds; hardly any of it grows with the epochs, and it should be under
5 % of the whole. With --whole the chosen half is then run with the recipe's epochs, beside what was reckoned: within 10 %, or the
reckoning is wrong. Seconds count on a quiet machine: `others` is the share of it that others had.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import svp
from benchmarks.run import clock, company, machine
from svp.config import CoresetConfig, read_toml

RECIPE = read_toml(Path(svp.__file__).parent / "recipes" / "cifar10-coreset.toml")
TRAININGS = {
    "the proxy": "proxy/seed-0/model-0",
    "the chosen half": "target/proxy-epochs/seed-0/model",
    "everything": "target/full/seed-0/model",
}


@dataclass(frozen=True)
class Measured:
    """Seconds of one run: on the wall, of each epoch by training, of reading the data, of inference, and of choosing."""

    wall: float
    epochs: dict[str, list[float]]
    reading: float
    inference: float
    choosing: float
    company: dict[str, Any]

    @property
    def neither(self) -> float:
        """Seconds that are neither training nor inference."""
        return self.wall - sum(map(sum, self.epochs.values())) - self.inference


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=3, help="of proxy and target in the short run, at least 2")
    parser.add_argument("--whole", action="store_true", help="run the chosen half with all of the recipe's epochs, too")
    arguments = parser.parse_args()
    short = measure(arguments.data, ("full",), arguments.epochs)
    wanted = {name: RECIPE["proxy" if name == "the proxy" else "target"]["epochs"] for name in TRAININGS}
    reckoned = {name: reckon(seconds, wanted[name]) for name, seconds in short.epochs.items()}
    for name, seconds in short.epochs.items():
        first, *others = seconds
        print(
            f"{name}: first epoch {first:.1f} s, then {min(others):.1f} to {max(others):.1f} s;"
            f" {wanted[name]} epochs make {reckoned[name]:.0f} s"
        )
    print(f"reading the data {short.reading:.1f} s, choosing {short.choosing:.2f} s, inference {short.inference:.1f} s")
    chosen = reckoned["the proxy"] + reckoned["the chosen half"] + short.inference + short.neither
    everything = reckoned["everything"] + short.inference + short.neither
    print(f"neither training nor inference: {short.neither:.1f} s, {short.neither / chosen:.1%} of {chosen:.0f} s")
    ratio = everything / chosen
    print(
        f"end to end, reckoned: {chosen:.0f} s by the proxy's half, {everything:.0f} s for everything: {ratio:.2f} times"
    )
    print(json.dumps(machine() | short.company))
    if arguments.whole:
        whole = measure(arguments.data, (), None)
        print(f"the chosen half run whole: {whole.wall:.0f} s, {whole.wall / chosen - 1:+.1%} of what was reckoned")
        for name, seconds in whole.epochs.items():
            print(f"  {name}: {sum(seconds):.0f} s, {sum(seconds) / reckoned[name] - 1:+.1%}")
        print(f"  neither training nor inference: {whole.neither:.1f} s, {whole.neither / whole.wall:.1%}")
        print(json.dumps(machine() | whole.company))


def measure(data: Path, control: tuple[str, ...], epochs: int | None) -> Measured:
    """Run the recipe from the command line, report included. epochs: of each training; None: those of the recipe."""
    settings = {**RECIPE, "data": str(data), "control": control, "equal": ("epochs",), "compute": {"compile": "on"}}
    if epochs is not None:
        settings |= {part: {**RECIPE[part], "epochs": epochs} for part in ("proxy", "target")}
    with tempfile.TemporaryDirectory() as folder:
        recipe, run = Path(folder) / "recipe.toml", Path(folder) / "run"
        recipe.write_text(CoresetConfig.make(settings).to_toml())
        begin = clock()
        command = [str(Path(sys.executable).with_name("svp")), "coreset", "--recipe", str(recipe), "--out", str(run)]
        subprocess.run([*command, "--quiet"], check=True, stdout=subprocess.DEVNULL)
        end = clock()
        facts = {mark.parent.relative_to(run): json.loads(mark.read_text())["facts"] for mark in run.rglob("done.json")}
        trained = {name: run / where / "history.json" for name, where in TRAININGS.items()}
        tests = sum(found["seconds"] for stage, found in facts.items() if stage.name == "test")
        return Measured(
            end.wall - begin.wall,
            {
                name: [epoch["seconds"] for epoch in json.loads(history.read_text())]
                for name, history in trained.items()
                if history.exists()
            },
            json.loads((run / "metrics.json").read_text())["load_seconds"],
            tests + sum(found.get("inference_seconds", 0.0) for found in facts.values()),
            sum(found.get("ranking_seconds", 0.0) for found in facts.values()),
            company(begin, end),
        )


def reckon(seconds: list[float], epochs: int) -> float:
    """Seconds of a training of `epochs` from those of each epoch of a short one."""
    first, *others = seconds
    return first + (epochs - 1) * statistics.median(others)


if __name__ == "__main__":
    main()
