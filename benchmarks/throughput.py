"""Training throughput of the loop against a plain loop of the same net: fp32, channels first, one batch after another.

    python -m benchmarks.throughput [--pairs 5] [--json FILE]

Both train the same net on the same CIFAR-shaped random images with crop and flip in ours and none in the plain loop (which
has the lighter work). Epochs of the two alternate; printed is the median rate of each with its range, and the median ratio.
"""

import argparse
import json
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from benchmarks.run import machine
from svp.config import ComputeConfig, TrainConfig
from svp.data.base import Dataset
from svp.learners import make_learner
from svp.learners.compute import decide
from svp.learners.resnet import preact

CASES = [("preact20", 128), ("preact20", 512), ("preact164", 128), ("preact164", 512)]
N_IMAGES = {"preact20": 4096, "preact164": 512}


def plain_rate(name: str, batch_size: int, dataset: Dataset) -> float:
    """Images a second of a loop as one would write it without a thought about speed; one warm-up step is left out."""
    torch.manual_seed(0)
    assert dataset.labels is not None
    model = preact(name, 10, torch.zeros(3, 32, 32))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    x = torch.from_numpy(dataset.inputs).permute(0, 3, 1, 2).contiguous().float() / 255
    y = torch.from_numpy(dataset.labels)
    begin = 0.0
    for step, rows in enumerate([torch.arange(batch_size), *torch.arange(len(x)).split(batch_size)]):
        if step == 1:
            begin = time.perf_counter()
        loss = F.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return len(x) / (time.perf_counter() - begin)


def our_rate(name: str, batch_size: int, dataset: Dataset) -> float:
    """Images a second of the second epoch, as the loop itself records it: signals, augmentation and all."""
    assert dataset.labels is not None
    compute = decide(ComputeConfig())
    config = TrainConfig(model=name, epochs=2, batch_size=batch_size, augment="crop_flip")
    with tempfile.TemporaryDirectory() as folder:
        learner = make_learner(config, dataset, seed=0, compute=compute)
        records = learner.fit(dataset, dataset.ids, dataset.labels, folder=Path(folder))
    return len(dataset) / records[1]["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rng = np.random.default_rng(0)
    found = []
    for name, batch_size in CASES:
        n = N_IMAGES[name]
        images = rng.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)
        dataset = Dataset.from_arrays(images, rng.integers(0, 10, n), classes=[str(c) for c in range(10)])
        rates: dict[str, list[float]] = {"plain": [], "ours": []}
        for _ in range(arguments.pairs):
            rates["plain"].append(plain_rate(name, batch_size, dataset))
            rates["ours"].append(our_rate(name, batch_size, dataset))
        ratios = [a / b for a, b in zip(rates["ours"], rates["plain"], strict=True)]
        row = {
            "net": name,
            "batch": batch_size,
            "images_a_second": {
                kind: [round(min(r)), round(statistics.median(r)), round(max(r))] for kind, r in rates.items()
            },
            "ratio": [round(value, 2) for value in (min(ratios), statistics.median(ratios), max(ratios))],
        }
        found.append(row)
        print(json.dumps(row), flush=True)
    result = {
        "cases": found,
        "precision": decide(ComputeConfig()).precision,
        "torch": torch.__version__,
        "machine": machine(),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
