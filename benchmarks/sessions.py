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
from svp.labels import Batch
from svp.workflows.session import Session

CLASSES = 3
ASKED, TOLD = 200, 1_000


def answers(batch: Batch) -> dict[int, int]:
    return {id_: id_ % CLASSES for id_ in batch.ids.tolist()}


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
    svp, where = str(Path(sys.executable).with_name("svp")), str(folder / "s")

    def note(what: str, call: Callable[..., Any], *given: Any, **named: Any) -> Any:
        begin = time.perf_counter()
        result = call(*given, **named)
        taken.setdefault(what, []).append(time.perf_counter() - begin)
        return result

    def command(what: str, *words: str) -> None:
        note(what, subprocess.run, [svp, *words], check=True, capture_output=True)

    with Session.create(folder / "s", config) as session:
        session.tell(answers(session.ask(100)), who="ann")
        session.tell(answers(note("ask(200), training and scoring the pool", session.ask, ASKED)), who="ann")
        for _ in range(runs):
            batch = note("ask(200) by stored scores", session.ask, ASKED, now=True)
            session.tell(answers(batch), who="ann")
            said = answers(session.ask(TOLD, now=True))
            note("tell of 1,000 answers", session.tell, said, who="ann")
    for i in range(runs):
        table = folder / f"{i}.jsonl"
        command("svp session ask --now, 1,000", "session", "ask", where, "-n", str(TOLD), "--now", "--out", str(table))
        asked = [json.loads(line) for line in table.read_text().splitlines()]
        table.write_text("".join(json.dumps({**row, "label": "abc"[row["id"] % CLASSES]}) + "\n" for row in asked))
        command("svp session tell, 1,000", "session", "tell", where, str(table))
        command("svp --help", "--help")
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
