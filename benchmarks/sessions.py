"""A session of many rows: how long `ask` and `tell` take in an open `Session` with stored scores, and the commands for the same.

    python -m benchmarks.sessions [--rows 1000000] [--runs 10]

Rows of 8 numbers in three classes, a logistic proxy, margin. 100 labels, one `ask` that trains and scores the pool; from then on
`ask(200)` by the stored scores, as it is done while another process trains, and `tell` of 1,000 answers. The commands `svp
session ask --now` and `svp session tell` answer a question each, from the start of Python on. Seconds count on a quiet machine:
`others` is the share of it that others had.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.run import clock, company, machine
from svp.config import SessionConfig, TrainConfig
from svp.workflows.session import Batch, Session

CLASSES = 3
ASKED, TOLD = 200, 1_000


def answers(batch: Batch) -> dict[int, int]:
    return {id_: id_ % CLASSES for id_ in batch.ids.tolist()}


def seconds(work: Callable[[], Any]) -> tuple[float, Any]:
    begin = time.perf_counter()
    result = work()
    return time.perf_counter() - begin, result


def measure(folder: Path, rows: int, runs: int) -> dict[str, list[float]]:
    """Seconds of each kind of call."""
    x = np.random.default_rng(0).normal(size=(rows, 8)).astype(np.float32)
    x[:, 0] += 3 * (np.arange(rows) % CLASSES)  # what the id says is what can be learned
    np.savez(folder / "pool.npz", x=x)
    config = SessionConfig(
        dataset=str(folder / "pool.npz"),
        classes=("a", "b", "c"),
        method="margin",
        proxy=TrainConfig(model="logistic"),
        target=TrainConfig(model="logistic"),
    )
    taken: dict[str, list[float]] = {}

    def note(what: str, call: Callable[[], Any]) -> Any:
        spent, result = seconds(call)
        taken.setdefault(what, []).append(spent)
        return result

    with Session.create(folder / "s", config) as session:
        session.tell(answers(session.ask(100)), who="ann")
        session.tell(answers(note("ask(200), training and scoring the pool", lambda: session.ask(ASKED))), who="ann")
        for _ in range(runs):
            batch = note("ask(200) by stored scores", lambda: session.ask(ASKED, now=True))
            session.tell(answers(batch), who="ann")
            said = answers(session.ask(TOLD, now=True))
            note("tell of 1,000 answers", lambda said=said: session.tell(said, who="ann"))  # type: ignore[misc]
    svp = [str(Path(sys.executable).with_name("svp")), "session"]
    for i in range(runs):
        table = folder / f"{i}.jsonl"
        ask = [*svp, "ask", str(folder / "s"), "-n", str(TOLD), "--now", "--out", str(table)]
        note("svp session ask --now, 1,000", lambda ask=ask: subprocess.run(ask, check=True, capture_output=True))  # type: ignore[misc]
        asked = [json.loads(line) for line in table.read_text().splitlines()]
        table.write_text("".join(json.dumps({**row, "label": "abc"[row["id"] % CLASSES]}) + "\n" for row in asked))
        tell = [*svp, "tell", str(folder / "s"), str(table)]
        note("svp session tell, 1,000", lambda tell=tell: subprocess.run(tell, check=True, capture_output=True))  # type: ignore[misc]
        note("svp --help", lambda: subprocess.run([svp[0], "--help"], check=True, capture_output=True))
    return taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--runs", type=int, default=10)
    given = parser.parse_args()
    begin = clock()
    with tempfile.TemporaryDirectory() as folder:
        taken = measure(Path(folder), given.rows, given.runs)
    for what, spent in taken.items():
        print(f"{what}: {statistics.median(spent):.3f} s ({min(spent):.3f} to {max(spent):.3f}, {len(spent)} runs)")
    print(json.dumps(machine() | company(begin, clock())))


if __name__ == "__main__":
    main()
