"""Kill both workflows at random moments, over and over, and see that they end as if nothing had happened.

    python -m benchmarks.kills [--runs 20] [--seed 0]

Each run is killed (SIGKILL) after a random time, up to ten times, then left to end; chosen ids and metrics (but for seconds) must
equal those of a run that was left alone. A kill counts where there was something left to do. The suite kills at enumerated
points (tests/test_resume.py).
"""

import argparse
import hashlib
import json
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.run import machine

TINY = [
    "--proxy.width",
    "0.25",
    "--proxy.epochs",
    "3",
    "--target.model",
    "preact8",
    "--target.epochs",
    "4",
    "--compute.threads",
    "1",
]
WORKFLOWS = {
    "coreset": ["coreset", "digits", *TINY, "--budget", "20%", "--control", "random", "full"],
    "active": ["active", "digits", *TINY, "--labelled", "40", "80", "120", "--control", "random", "target"],
}


def command(workflow: str, out: Path) -> list[str]:
    return [str(Path(sys.executable).with_name("svp")), *WORKFLOWS[workflow], "--out", str(out), "--quiet", "--json"]


def outcome(out: Path) -> str:
    """Digest of the choice and of everything measured but time."""
    metrics = without_seconds(json.loads((out / "metrics.json").read_text()))
    content = (out / "selection.parquet").read_bytes() + json.dumps(metrics, sort_keys=True).encode()
    return hashlib.sha256(content).hexdigest()[:16]


def without_seconds(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            k: without_seconds(v) for k, v in value.items() if k not in ("payments", "speed_up") and "seconds" not in k
        }
    return [without_seconds(item) for item in value] if isinstance(value, list) else value


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = random.Random(arguments.seed)
    kills = different = 0
    with tempfile.TemporaryDirectory() as folder:
        for workflow in WORKFLOWS:
            alone = Path(folder) / workflow
            begin = time.perf_counter()
            subprocess.run(command(workflow, alone), check=True, stdout=subprocess.DEVNULL)
            length = time.perf_counter() - begin
            for i in range(arguments.runs):
                out = Path(folder) / f"{workflow}-{i}"
                for _ in range(rng.randint(1, 10)):
                    process = subprocess.Popen(
                        command(workflow, out), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
                    )
                    try:
                        process.wait(rng.uniform(0, length))
                    except subprocess.TimeoutExpired:
                        process.kill()
                    if process.wait() not in (0, -signal.SIGKILL):
                        sys.exit(f"{out.name} ended by itself, with {process.returncode}")
                    if (out / "metrics.json").exists():
                        break
                    kills += 1
                subprocess.run(command(workflow, out), check=True, stdout=subprocess.DEVNULL)
                different += outcome(out) != outcome(alone)
                print(f"{out.name}: {kills} kills so far, {different} ended differently", flush=True)
    print(json.dumps(machine()))
    print(f"{kills} kills over {2 * arguments.runs} runs, seed {arguments.seed}: {different} ended differently")
    sys.exit(bool(different))


if __name__ == "__main__":
    main()
