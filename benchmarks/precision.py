"""Does bf16 cost accuracy? preact20 once in bf16 and once in fp32 under each seed: on 4,000 images of CIFAR-10 for 10 epochs,
and on all of the digits of scikit-learn for 40.

    python -m benchmarks.run precision --data DIR --work DIR
    python -m benchmarks.precision

Many short trainings tell more than a few long ones: under one seed the two differ as two seeds do, by a point or so, and the mean
of twelve is known to a third of that. A unit is one training: the same images, order, augmentation and initial weights in both
precisions of a seed. *No worse* is the rule of docs/concepts.md with the margin of one point.
"""

import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import svp
from benchmarks.claims import against, results
from benchmarks.run import Unit, as_bits
from svp.chance import shuffled
from svp.config import TrainConfig
from svp.learners import make_learner
from svp.learners.compute import Compute

SEEDS = range(12)
# Of each dataset how many examples are trained on, and for how many epochs.
SIZES = {"digits": (None, 40), "cifar10": (4_000, 10)}


def train(seed: int, precision: str, name: str, data: Path, work: Path) -> dict[str, Any]:
    """Train, score the test part once, say which of its images were right (one bit each)."""
    dataset = svp.load_dataset(name, root=data if name == "cifar10" else None)
    assert dataset.labels is not None
    assert dataset.test is not None
    n, epochs = SIZES[name]
    ids = np.sort(dataset.ids[shuffled(dataset.ids, seed, "precision")[:n]])
    compute = Compute("cpu", precision, channels_last=True, threads=1, compile="off")
    folder = work / f"precision-{name}-{seed}-{precision}"
    learner = make_learner(TrainConfig(model="preact20", epochs=epochs), dataset, seed=seed, compute=compute)
    records = learner.fit(dataset, ids, dataset.labels[dataset.positions(ids)], folder=folder, progress=None)
    right = learner.predict(dataset.test, dataset.test.ids).probs.argmax(axis=1) == dataset.test.labels
    shutil.rmtree(folder)
    return {
        "seed": seed,
        "precision": precision,
        "n": len(ids),
        "epochs": epochs,
        "n_test": len(right),
        "accuracy": float(right.mean()),
        "train_accuracy": records[-1]["accuracy"],
        "correct": as_bits(right),
    }


UNITS = [
    Unit(f"{name}-seed{seed}-{kind}", partial(train, seed, kind, name))
    for name in SIZES
    for seed in SEEDS
    for kind in ("bf16", "fp32")
]


def main() -> None:
    """Print the accuracies, and bf16 minus fp32 over the seeds that both have."""
    found = results("precision")
    for arm, by_seed in found.items():
        for seed, result in by_seed.items():
            print(f"{arm}, seed {seed}: {100 * result['accuracy']:.2f} %")
    for name in SIZES:
        said = against(found.get(f"{name}-bf16", {}), found.get(f"{name}-fp32", {}), "no worse")
        print(f"{name}, bf16 minus fp32, points: {said}")


if __name__ == "__main__":
    main()
