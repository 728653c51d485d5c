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
from contextlib import suppress
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
    """Questions of n answers in spite of so many kills: what was acknowledged and lost, stored wrongly, or twice.

    A kill counts where there was still something to answer; a question that was finished before it gives way to another.
    """
    with LabelStore.create(path, ["a", "b", "c"]):
        pass
    acknowledged: list[int] = []
    at_work, length = 0, 0.0
    while True:
        with LabelStore.open(path) as store:
            if store.open_question() is None:
                asked = len(store.asked())
                store.ask(range(asked, asked + n), round=len(store.rounds()), origin="random")
        begin = time.perf_counter()
        child = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.answers", "--child", str(path), "--size", str(size)],
            stdout=subprocess.PIPE,
            text=True,
        )
        if length and at_work < kills:  # the first shows how long it takes
            with suppress(subprocess.TimeoutExpired):
                child.wait(chance.uniform(0, length))
            child.kill()
        said, _ = child.communicate()
        length = length or time.perf_counter() - begin
        acknowledged += [
            int(word) for line in said.splitlines(keepends=True) if line.endswith("\n") for word in line.split()
        ]
        with LabelStore.open(path) as store:
            left = store.open_question() is not None
        if left:
            at_work += 1
        elif at_work == kills:
            break
    with LabelStore.open(path) as store:
        told = [(x.id, x.label) for x in store.history() if isinstance(x, Answer)]
    counts = Counter(id_ for id_, _ in told)
    return {
        "tell": size,
        "kills": at_work,
        "answers": len(counts),
        "lost": len(set(acknowledged) - set(counts)),
        "wrong": sum(label != id_ % 3 for id_, label in told),
        "doubled": sum(count > 1 for count in counts.values()),
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
