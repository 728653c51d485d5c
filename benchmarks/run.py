"""Run an experiment as a list of units, each of at most 40 minutes on a quiet machine, each leaving one small JSON file.

    python -m benchmarks.run cifar10_coreset --data DIR --work DIR [--only seed0]

Units whose result file stands under benchmarks/results/NAME/ are skipped; a unit that was stopped goes on where it was (its run
folder is in --work). Accuracies and counts are what a unit records; seconds of a unit that shared its machine mean nothing: hence
`others`, the share of the machine's CPU time that other processes took meanwhile, and `quiet`, whether that was next to none.
"""

import argparse
import base64
import importlib
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

RESULTS = Path(__file__).parent / "results"
STAT = Path("/proc/stat")
QUIET = 0.02  # others may take this share of the machine's CPU time: what the system itself does now and then


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
        begin = clock()
        result = {**unit.run(arguments.data, arguments.work), "machine": machine()}
        result |= company(begin, clock())
        temporary = path.with_suffix(".tmp")
        temporary.write_text(json.dumps(result, indent=1) + "\n")
        temporary.replace(path)
        print(f"{unit.name} done", flush=True)


@dataclass(frozen=True)
class Clock:
    """Seconds so far: on the wall; of CPU time, that of all cores (None where the system does not say), and our part of it."""

    wall: float
    busy: float | None
    own: float


def clock() -> Clock:
    """Read it now. Children count as ours once they have ended and been waited for."""
    times = os.times()
    own = times.user + times.system + times.children_user + times.children_system
    return Clock(time.perf_counter(), _busy(), own)


def _busy() -> float | None:
    """CPU seconds of the whole machine, with what a hypervisor gave to other machines (steal), since it was started."""
    try:
        name, *ticks = STAT.read_text().splitlines()[0].split()
        user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, ticks[:8])
        # Guests are counted within user and nice. A sandbox that shows the file but no times in it does not say.
        total = user + nice + system + irq + softirq + steal
        return total / os.sysconf("SC_CLK_TCK") if name == "cpu" and total else None
    except (OSError, ValueError, IndexError):
        return None


def company(begin: Clock, end: Clock) -> dict[str, Any]:
    """The share of the machine's CPU time that others took in between, and whether seconds taken there count; None: unknown."""
    if begin.busy is None or end.busy is None:
        return {"others": None, "quiet": None}
    others = (end.busy - begin.busy) - (end.own - begin.own)
    share = max(0.0, others / ((end.wall - begin.wall) * (os.cpu_count() or 1)))
    return {"others": round(share, 4), "quiet": share < QUIET}


def as_bits(correct: ArrayLike) -> str:
    """Which test rows were right, (n,), as text of n / 6 letters: intervals are made of these."""
    return base64.b64encode(np.packbits(np.asarray(correct, bool)).tobytes()).decode()


def from_bits(text: str, n: int | None = None) -> NDArray[np.uint8]:
    """(n,) zeros and ones, as `as_bits` was given them. n: how many; without it a multiple of 8."""
    return np.unpackbits(np.frombuffer(base64.b64decode(text), np.uint8), count=n)


def peer(work: Path, requirement: str, module: str) -> Any:
    """A package that is no part of svp's environment, from a folder of its own; SystemExit with how to put it there.

    What both bring (numpy) is that of svp's environment.
    """
    folder = work / requirement.partition("==")[0]
    if not folder.is_dir():
        raise SystemExit(f"pip install --target {folder} {requirement}")
    if str(folder) not in sys.path:
        sys.path.append(str(folder))
    return importlib.import_module(module)


def machine() -> dict[str, Any]:
    """What a figure has to be read beside."""
    from svp.provenance import processor

    return {"processor": processor(), "cores": os.cpu_count(), "python": platform.python_version()}


if __name__ == "__main__":
    main()
