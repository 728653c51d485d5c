"""What of a CIFAR-10 core-set run is neither training nor inference: at most 5 %.

    python -m benchmarks.overhead --data DIR [--epochs 2]

Runs `svp coreset cifar10` with few epochs (the share falls with more) in a process of its own, and compares its wall seconds with
those its stages recorded. Start-up, reading and fingerprinting the data, choosing, checkpoints and files are the rest.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.run import machine


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
        begin = time.perf_counter()
        subprocess.run([*command, "--json"], check=True, stdout=subprocess.DEVNULL)
        wall = time.perf_counter() - begin
        counted = 0.0
        for mark in run.rglob("done.json"):
            facts = json.loads(mark.read_text())["facts"]
            counted += sum(value for name, value in facts.items() if name in ("seconds", "inference_seconds"))
    print(
        f"wall {wall:.1f} s, training and inference {counted:.1f} s, the rest {wall - counted:.1f} s = {1 - counted / wall:.1%}"
    )
    print(json.dumps(machine()))


if __name__ == "__main__":
    main()
