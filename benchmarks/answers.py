"""Kill whoever stores answers at random moments, and count what was acknowledged and is not there, or is there twice.

    python -m benchmarks.answers [--answers 10000] [--kills 200] [--seed 0]

Half of the kills fall on a process that tells one answer at a time, half on one that tells a thousand. Each takes up what is left
of the question, and prints ids once `tell` has returned. The suite kills at enumerated points (test_labels.py, test_session.py).
"""

import argparse
import json
import platform
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from svp.labels import Answer, LabelStore


def answer(path: Path, size: int) -> None:
    """In the child: answer what is left, `size` at a time, and acknowledge each tell."""
    with LabelStore.open(path) as store:
        question = store.open_question()
        ids = [] if question is None else question.ids.tolist()
        for start in range(0, len(ids), size):
            part = ids[start : start + size]
            store.tell({id_: id_ % 3 for id_ in part}, who="ann")
            print(*part, flush=True)


def kill_over_and_over(path: Path, n: int, size: int, kills: int, chance: random.Random) -> dict[str, Any]:
    """All answers, in spite of so many kills: what was acknowledged and lost, and what was stored twice."""
    with LabelStore.create(path, ["a", "b", "c"]) as store:
        store.ask(range(n), round=0, origin="random")
    acknowledged: list[int] = []
    done, cut = 0, 0  # kills that fell, and those that fell while there was still something to answer
    while True:
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.answers", "--child", str(path), "--size", str(size)],
            stdout=subprocess.PIPE,
            text=True,
        )
        if done < kills:
            time.sleep(chance.uniform(0.05, 1.0))
            cut += child.poll() is None
            child.kill()
            done += 1
        said, _ = child.communicate()
        acknowledged += [
            int(word) for line in said.splitlines(keepends=True) if line.endswith("\n") for word in line.split()
        ]
        if done == kills and child.returncode == 0:
            break
    with LabelStore.open(path) as store:
        told = Counter(x.id for x in store.history() if isinstance(x, Answer))
    return {
        "tell": size,
        "kills": kills,
        "kills_at_work": cut,
        "answers": len(told),
        "lost": len(set(acknowledged) - set(told)),
        "doubled": sum(count > 1 for count in told.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--answers", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--size", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child is not None:
        answer(given.child, given.size)
        return
    chance = random.Random(given.seed)
    print(json.dumps({"machine": platform.platform(), "python": platform.python_version()}))
    with tempfile.TemporaryDirectory() as folder:
        for size in (1, 1000):
            path = Path(folder) / f"{size}.sqlite"
            print(json.dumps(kill_over_and_over(path, given.answers, size, given.kills // 2, chance)), flush=True)


if __name__ == "__main__":
    main()
