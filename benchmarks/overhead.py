"""What of a CIFAR-10 core-set run is neither training nor inference: at most 5 %.

    python -m benchmarks.overhead --data DIR [--epochs 2]

Runs `svp coreset cifar10` with few epochs (the share falls with more) in a process of its own, report included, and compares its
wall seconds with those of training and inference that its stages recorded. The rest is start-up, reading and fingerprinting the
data, looking at the models and measuring the precision before the first stage, choosing, checkpoints, files and the report.
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from benchmarks.run import clock, company, machine


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=2)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        command = [str(Path(sys.executable).with_name("svp")), "coreset", "cifar10", "--data", str(arguments.data)]
        command += [
            "--proxy.epochs",
            str(arguments.epochs),
            "--target.epochs",
            str(arguments.epochs),
            "--out",
            str(run),
            "--quiet",
        ]
        begin = clock()
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        end = clock()
        wall = end.wall - begin.wall
        marks = [json.loads(mark.read_text())["facts"] for mark in run.rglob("done.json")]
        counted = sum(facts.get(part, 0.0) for facts in marks for part in ("seconds", "inference_seconds"))
        loading = json.loads((run / "metrics.json").read_text())["load_seconds"]
        choosing = sum(facts.get("ranking_seconds", 0.0) for facts in marks)
    rest = wall - counted
    print(f"wall {wall:.1f} s, training and inference {counted:.1f} s, the rest {rest:.1f} s = {rest / wall:.1%}")
    print(
        f"of the rest: reading the data {loading:.1f} s, choosing {choosing:.2f} s, all else {rest - loading - choosing:.1f} s"
    )
    print(json.dumps(machine() | company(begin, end)))


if __name__ == "__main__":
    main()
