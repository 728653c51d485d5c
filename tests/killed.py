"""A process that runs tiny workflows in forked children and kills them where it is told: `python -m tests.killed`.

Reads one JSON line a command and answers with one. Everything is imported once, before the forks; one thread, so that forking is
safe. The child is patched, the product code has no hooks.
"""

import json
import os
import signal
import sqlite3
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

import svp
import svp.labels
from svp.config import ActiveConfig, CoresetConfig
from svp.signals import Signals
from svp.workflows.active import active
from svp.workflows.coreset import coreset

KILLED, INTERRUPTED = "killed", "interrupted"


def tiny() -> svp.Dataset:
    """96 digits of four classes to train on, 40 to test."""
    digits = svp.load_dataset("digits")
    assert digits.labels is not None
    rows = np.concatenate([np.flatnonzero(digits.labels == c)[:34] for c in range(4)])
    x, y = digits.inputs[rows], digits.labels[rows]
    held = np.arange(len(rows)) % 34 >= 24
    return svp.Dataset.from_arrays(x[~held], y[~held], test=(x[held], y[held]), name="tiny")


# The first draws, too.
DROPPING = {"model": "tests.own_models:MLP", "options": {"dropout": 0.2}, "epochs": 3, "batch_size": 32, "min_steps": 0}
# Convolutions, running statistics, momentum: what a training of a real net has to bring back when it is resumed.
CONVOLUTIONAL = {"model": "preact8", "width": 0.25, "epochs": 2, "batch_size": 32, "min_steps": 0, "augment": "crop"}
COMMON = {
    "dataset": "tiny",
    "proxy": DROPPING,
    "target": CONVOLUTIONAL,
    "compute": {"device": "cpu", "precision": "fp32", "threads": 1},
}
RUNS: dict[str, Callable[[svp.Dataset, Path], Any]] = {
    "coreset": lambda data, out: coreset(
        CoresetConfig.make({**COMMON, "method": "forgetting", "budget": 40, "control": ["random", "full"]}),
        data,
        out=out,
    ),
    "active": lambda data, out: active(
        ActiveConfig.make({**COMMON, "method": "margin", "labelled": [16, 28, 40], "control": ["random"]}),
        data,
        out=out,
    ),
}


def watch(reached: Callable[[str], None]) -> None:
    """Have `reached` called before and after each rename, each commit, and each epoch's signals (its checkpoint comes later)."""
    replace, write_epoch = os.replace, Signals.write_epoch

    def watched_replace(*args: Any) -> None:
        reached("before a rename")
        replace(*args)
        reached("after a rename")

    def watched_epoch(self: Signals, *args: Any) -> None:
        reached("before an epoch")
        write_epoch(self, *args)
        reached("after an epoch")

    class Watched(sqlite3.Connection):
        def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
            if sql == "COMMIT":
                reached("before a commit")
            cursor = super().execute(sql, *args)
            if sql == "COMMIT":
                reached("after a commit")
            return cursor

    connect = sqlite3.connect
    sqlite3.connect = lambda *args, **given: connect(*args, **given, factory=Watched)  # type: ignore[assignment, call-overload, misc]
    os.replace = watched_replace  # type: ignore[assignment]
    Signals.write_epoch = watched_epoch  # type: ignore[method-assign, assignment]


def run(data: svp.Dataset, command: dict[str, Any]) -> None:
    """In the child: one workflow, ended at the `nth` time that `point` is reached; or to its end, counting all points."""
    counts: dict[str, int] = {}

    def reached(point: str) -> None:
        counts[point] = counts.get(point, 0) + 1
        if point == command.get("point") and counts[point] == command["nth"]:
            if command["how"] == INTERRUPTED:
                raise KeyboardInterrupt
            os.kill(os.getpid(), signal.SIGKILL)

    watch(reached)
    RUNS[command["workflow"]](data, Path(command["out"]))
    Path(command["out"] + ".counts").write_text(json.dumps(counts))


def main() -> None:
    torch.set_num_threads(1)
    # What was written survives a killed process without it (a power cut is another matter), and it is what takes longest here.
    os.fsync = lambda fd: None
    data = tiny()
    with tempfile.TemporaryDirectory() as folder:  # whatever is imported or measured late is so before the forks
        for workflow, go in RUNS.items():
            go(data, Path(folder) / workflow)
    for line in sys.stdin:
        command = json.loads(line)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                run(data, command)
                code = 0
            except KeyboardInterrupt:
                code = 130
            except BaseException:
                traceback.print_exc()
            finally:
                sys.stderr.flush()
                os._exit(code)
        _, status = os.waitpid(child, 0)
        ended = (
            KILLED
            if os.WIFSIGNALED(status)
            else {0: "finished", 130: INTERRUPTED}.get(os.waitstatus_to_exitcode(status), "failed")
        )
        print(json.dumps(ended), flush=True)


if __name__ == "__main__":
    main()
