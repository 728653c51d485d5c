"""Run an experiment as a list of units, each of at most 40 minutes on a quiet machine, each leaving one small JSON file.

    python -m benchmarks.run cifar10_coreset --data DIR --work DIR [--only seed0]

Units whose result file stands under benchmarks/results/NAME/ are skipped; a unit that was stopped goes on where it was (its run
folder is in --work). Accuracies and counts are what a unit records; seconds of a unit that shared its machine mean nothing, which
is why `quiet` says whether anything else was running.
"""

import argparse
import importlib
import json
import os
import platform
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True)
class Unit:
    """One piece of an experiment: its name, and what computes its result from (data folder, work folder)."""

    name: str
    run: Callable[[Path, Path], dict[str, Any]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("experiment", help="a module of benchmarks with UNITS")
    parser.add_argument("--data", type=Path, required=True, help="folder with the data set")
    parser.add_argument("--work", type=Path, required=True, help="folder for run folders, kept between calls")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where result files stand")
    parser.add_argument("--only", default="", help="units whose name contains this")
    arguments = parser.parse_args()
    units: list[Unit] = importlib.import_module(f"benchmarks.{arguments.experiment}").UNITS
    folder = arguments.results / arguments.experiment
    folder.mkdir(parents=True, exist_ok=True)
    for unit in units:
        path = folder / f"{unit.name}.json"
        if path.exists() or arguments.only not in unit.name:
            continue
        print(f"{unit.name} ...", flush=True)
        load = os.getloadavg()[0]
        result = {**unit.run(arguments.data, arguments.work), "machine": machine(), "quiet": load < 0.5}
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(result, indent=1) + "\n")
        temporary.replace(path)
        print(f"{unit.name} done", flush=True)


def machine() -> dict[str, Any]:
    """What a figure has to be read beside."""
    from svp.runs import _processor

    return {"processor": _processor(), "cores": os.cpu_count(), "python": platform.python_version()}


if __name__ == "__main__":
    main()
