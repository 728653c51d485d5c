"""Selection against named peers, side by side in one run: seconds, memory beyond the inputs, same picks, same objective.

    pip install 'selection-via-proxy[bench]'
    python -m benchmarks.select                        every case but those that take very long
    python -m benchmarks.select k_center --features RUN/proxy/.../embeddings.npy
    python -m benchmarks.select k_center_vast [--scale 0.05]
    python -m benchmarks.select growth                 every method at 1,000 to 30,000 examples (100,000 where time is linear)

Each side of each case is a process of its own, several times, sides alternating; medians are printed with their range. Inputs
are files, made by one more process. Memory is the highest resident size while the side ran over that just before (with its
inputs loaded, and compiled what it compiles). Linux only. Results: benchmarks/results/select/NAME.json; with --scale other
than 1 they are printed and not kept.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.run import RESULTS, clock, company, machine
from benchmarks.select_cases import CASES, CLASSES, EPOCHS, WIDTH, Side, find_case
from svp.select import METHODS
from svp.select.table import Shape

FOLDER = RESULTS / "select"
SIZES = (1_000, 3_000, 10_000, 30_000)
LINEAR_TOO = 100_000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}, or growth")
    parser.add_argument("--scale", type=float, default=1.0, help="sizes times this, to try a case")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--features", type=Path, help="(n, d) embeddings for k_center; default: made up")
    parser.add_argument("--work", type=Path, help="where inputs are put; default: a temporary folder")
    parser.add_argument("--child", nargs=3, metavar=("CASE", "SIDE", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work is not None:
        arguments.work.mkdir(parents=True, exist_ok=True)
    if arguments.child:
        print(json.dumps(child(arguments.child[0], arguments.child[1], Path(arguments.child[2]), arguments)))
        return
    if unknown := [name for name in arguments.cases if name not in CASES and name != "growth"]:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)} and growth")
    for name in arguments.cases or [name for name, case in CASES.items() if not case.alone]:
        begin = clock()
        result = growth(arguments) if name == "growth" else compare(name, arguments)
        had = company(begin, clock())
        print(f"  others, and other machines on this one, took {had['others']} of the CPU time meanwhile")
        result |= {"machine": machine(), **had, "versions": versions(), "scale": arguments.scale}
        if arguments.scale == 1:
            FOLDER.mkdir(parents=True, exist_ok=True)
            (FOLDER / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps({"machine": machine(), "versions": versions()}))


def compare(name: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """All sides of one case on the same inputs."""
    case = CASES[name]
    print(f"{case.summary}{f', scale {arguments.scale:g}' if arguments.scale != 1 else ''}; target: {case.target}")
    sides = {side: lacks(row) for side, row in case.sides.items()}
    for side, lack in sides.items():
        if lack:
            print(f"  {side}: skipped, {lack}")
    result: dict[str, Any] = {"case": case.summary, "target": case.target, "quiet": os.getloadavg()[0] < 0.5}
    result["features"] = "made up" if arguments.features is None else arguments.features.name
    result["sides"] = measure(name, [side for side, lack in sides.items() if not lack], arguments)
    for side, row in result["sides"].items():
        print(f"  {side}: {words(row)}")
    return result


def measure(name: str, sides: list[str], arguments: argparse.Namespace) -> dict[str, Any]:
    """By side: seconds and bytes (least, median, most), its objective, what its picks have in common with the first side's."""
    runs: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
        if sides:
            start(name, "make", folder, arguments)
        for _ in range(arguments.repeats):
            for side in sides:
                runs[side].append(start(name, side, folder, arguments))
        found = {side: summary(rows) for side, rows in runs.items()}
        picks = {side: path for side in sides if (path := picks_file(Path(folder), side)).exists()}
        for side in list(picks)[1:]:
            found[side]["picks_in_common"], found[side]["same_order_up_to"] = agreement(picks[sides[0]], picks[side])
    for side in sides[1:]:
        for kind in ("seconds", "bytes_beyond_inputs"):
            found[side][f"{kind}_over_svp"] = round(found[side][kind][1] / max(found[sides[0]][kind][1], 1e-9), 3)
    return found


def start(name: str, side: str, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    command = [
        sys.executable,
        "-m",
        "benchmarks.select",
        "--scale",
        str(arguments.scale),
        "--child",
        name,
        side,
        folder,
    ]
    if arguments.features is not None:
        command += ["--features", str(arguments.features)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
    return dict(json.loads(done.stdout))


def child(name: str, side: str, folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """In a process of its own: make the inputs, or run one side once."""
    case = find_case(name)
    if side == "make":
        case.make(folder, arguments.scale, arguments.features)
        return {}
    row = case.sides[side]
    if row.warm is not None:
        row.warm()
    arrays = {
        path.stem: np.load(path, mmap_mode="r" if case.mapped else None)
        for path in folder.glob("*.npy")
        if not path.stem.startswith("picks-")
    }
    if row.before is not None:
        row.before(folder)
    before = resident(reset=True)
    begin = time.perf_counter()
    found = row.run(arrays, folder)
    seconds = time.perf_counter() - begin - found.get("seconds_compiling", 0.0)
    peak = resident()
    result = {"seconds": seconds, "bytes_beyond_inputs": peak - before, "bytes_peak": peak}
    if "picks" in found:
        np.save(picks_file(folder, side), found["picks"])
        if case.objective is not None:
            result["objective"] = case.objective(arrays, found["picks"])
    return result


def resident(*, reset: bool = False) -> int:
    """Highest resident bytes of this process (mapped pages count), since the last reset.

    Not `ru_maxrss`: a process inherits that from the one that started it, and nothing lowers it after compiling.
    """
    if reset:
        Path("/proc/self/clear_refs").write_text("5")
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def picks_file(folder: Path, side: str) -> Path:
    return folder / f"picks-{side.replace(' ', '-')}.npy"


def agreement(ours: Path, theirs: Path) -> tuple[float, int]:
    """The share of picks in common, and how many first picks are the same in the same order."""
    a, b = np.load(ours), np.load(theirs)
    different = np.flatnonzero(a != b) if len(a) == len(b) else np.zeros(1, np.int64)
    return round(len(np.intersect1d(a, b)) / max(len(a), 1), 6), int(different[0]) if len(different) else len(a)


def summary(rows: list[dict[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {
        kind: [pick(row[kind] for row in rows) for pick in (min, statistics.median, max)]
        for kind in ("seconds", "bytes_beyond_inputs", "bytes_peak")
    }
    return found | ({"objective": rows[0]["objective"]} if "objective" in rows[0] else {})


def words(row: dict[str, Any]) -> str:
    low, middle, high = row["seconds"]
    parts = [f"median {middle:.3f} s ({low:.3f} to {high:.3f})"]
    parts.append(
        f"{row['bytes_beyond_inputs'][1] / 1e6:.0f} MB beyond the inputs, peak {row['bytes_peak'][1] / 1e6:.0f} MB"
    )
    rest = {name: value for name, value in row.items() if not name.startswith("bytes") or name.endswith("svp")}
    return "; ".join([*parts, *(f"{name} {value}" for name, value in rest.items() if name != "seconds")])


def lacks(side: Side) -> str | None:
    """Why a side cannot run here, None if it can."""
    if side.module is not None and importlib.util.find_spec(side.module) is None:
        return f"{side.module} is not installed (pip install 'selection-via-proxy[bench]')"
    if side.method is not None and side.method not in METHODS:
        return f"there is no method {side.method} yet"
    return None


# --- growth --------------------------------------------------------------------------------------------------------------


def growth(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every method at several sizes, and the exponents of growth: measured, and by the formula of its row."""
    methods: dict[str, Any] = {}
    quiet = os.getloadavg()[0] < 0.5
    for method in METHODS:
        formula = formula_exponent(method)
        sizes = [scaled for n in SIZES if (scaled := int(n * arguments.scale)) >= 20]
        if formula is not None and formula < 1.1:
            sizes.append(int(LINEAR_TOO * arguments.scale))
        rows = [measure(f"growth/{method}/{n}", ["svp"], arguments)["svp"] for n in sizes]
        seconds = [row["seconds"][1] for row in rows]
        methods[method] = {
            "n": sizes,
            "seconds": seconds,
            "bytes_beyond_inputs": [row["bytes_beyond_inputs"][1] for row in rows],
            "exponent": exponent(sizes, seconds),
            "exponent_by_formula": formula,
        }
        print(f"{method}: {json.dumps(methods[method])}", flush=True)
    return {"d": WIDTH, "classes": CLASSES, "epochs": EPOCHS, "budget": "10%", "quiet": quiet, "methods": methods}


def exponent(sizes: list[int], values: list[float]) -> float:
    """The slope of log value over log n between the two largest sizes, where overhead counts least."""
    return round(float(np.log(values[-1] / values[-2]) / np.log(sizes[-1] / sizes[-2])), 2)


def formula_exponent(method: str) -> float | None:
    """The same slope of the operations that the method's row states, None where it states none."""
    sizes, row = [10_000, 30_000], METHODS[method]
    if row.cost is None:
        return None
    return exponent(sizes, [row.cost.operations(Shape(n, CLASSES, WIDTH, EPOCHS, n // 10)) for n in sizes])


def versions() -> dict[str, str]:
    found = {}
    for name in ("selection-via-proxy", "numpy", "scipy", "scikit-learn", "torch", "numba", "apricot-select"):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            found[name] = "not installed"
    threads = os.environ.get("OMP_NUM_THREADS")
    return found | {"OMP_NUM_THREADS": threads or "not set"}


if __name__ == "__main__":
    main()
