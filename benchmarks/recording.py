"""What recording signals costs: at most 3 % of training, and one epoch in memory, whatever their number.

    python -m benchmarks.vision recording [--images 2048] [--epochs 5]

Of one thread's CPU seconds in an epoch of preact20 and patchnet: those of `signal_values` (every batch) and `Signals.write_epoch`
(once an epoch; with few --images its fixed part weighs more than it would). Then an epoch of 1,280,000 examples is recorded
again and again: seconds of each, on the wall, since the disk works too; resident memory of the process after each; bytes on disk.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch

from benchmarks.run import machine
from svp.config import ComputeConfig, TrainConfig
from svp.data.base import Dataset
from svp.learners import loop, make_learner
from svp.learners.compute import decide
from svp.learners.inference import signal_values
from svp.signals import KINDS, Signals

IMAGENET = 1_280_000
STATUS = Path("/proc/self/status")


class Clocked:
    """A function that counts its calls and the CPU seconds spent in it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.function, self.seconds, self.calls = function, 0.0, 0

    def __call__(self, *given: Any, **named: Any) -> Any:
        begin = time.process_time()
        try:
            return self.function(*given, **named)
        finally:
            self.seconds += time.process_time() - begin
            self.calls += 1


def share(model: str, n: int) -> dict[str, float]:
    """CPU seconds of two epochs, and those of recording within them."""
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
    dataset = Dataset.from_arrays(images, rng.integers(0, 10, n), classes=[str(c) for c in range(10)])
    assert dataset.labels is not None
    compute = decide(ComputeConfig(threads=1, compile="off"))
    learner = make_learner(TrainConfig(model=model, epochs=2, augment="crop_flip"), dataset, seed=0, compute=compute)
    values, written = Clocked(signal_values), Clocked(Signals.write_epoch)
    with (
        patch.object(loop, "signal_values", values),
        patch.object(Signals, "write_epoch", lambda *given: written(*given)),
        tempfile.TemporaryDirectory() as folder,
    ):
        begin = time.process_time()
        learner.fit(dataset, dataset.ids, dataset.labels, folder=Path(folder))
        whole = time.process_time() - begin
    recording = values.seconds + written.seconds
    return {
        "steps": values.calls,
        "epochs": written.calls,
        "training_seconds": round(whole - recording, 3),
        "signal_values_seconds": round(values.seconds, 4),
        "write_epoch_seconds": round(written.seconds, 4),
        "share": round(recording / (whole - recording), 5),
    }


def resident() -> dict[str, int]:
    """Megabytes of this process: its own memory, and pages of files; nothing where the system does not say."""
    if not STATUS.exists():
        return {}
    lines = dict(line.split(":", 1) for line in STATUS.read_text().splitlines())
    return {name: int(lines[name].split()[0]) // 1024 for name in ("RssAnon", "RssFile")}


def large(n_epochs: int, n: int) -> dict[str, Any]:
    """Record an epoch of n examples n_epochs times."""
    rng = np.random.default_rng(0)
    values = {kind: rng.random(n, dtype=np.float32) for kind in KINDS}
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        signals = Signals.create(Path(folder), n_epochs, n)
        created, seconds, memory = time.perf_counter() - begin, [], []
        for epoch in range(n_epochs):
            begin = time.perf_counter()
            signals.write_epoch(epoch, values)
            seconds.append(time.perf_counter() - begin)
            memory.append(resident())
        n_bytes = sum(path.stat().st_size for path in Path(folder).iterdir())
    return {
        "examples": n,
        "epochs": n_epochs,
        "create_seconds": round(created, 2),
        "epoch_seconds": [round(min(seconds), 3), round(statistics.median(seconds), 3), round(max(seconds), 3)],
        "megabytes_on_disk": round(n_bytes / 1e6, 1),
        "resident_megabytes_after_each_epoch": memory,
    }


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--examples", type=int, default=IMAGENET)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    found = {"shares": {model: share(model, given.images) for model in ("preact20", "patchnet")}}
    result = {**found, "large": large(given.epochs, given.examples), "machine": machine()}
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1) + "\n")
