"""How many steps do nets want that begin with few labels? preact8 and preact20 on 100, 400 and 1,600 images of CIFAR-10, in
batches of 32, for the epochs of the labelling settings and for as many as `min_steps` makes of them.

    python -m benchmarks.run min_steps --data DIR --work DIR
    python -m benchmarks.min_steps

A unit is one net, one number of images and one `min_steps`, three seeds (which images, and the model), tested on 10,000 images.
"""

import json
import shutil
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import svp
from benchmarks.run import RESULTS, Unit
from svp.chance import shuffled
from svp.config import LabellingConfig, TrainConfig
from svp.learners import make_learner
from svp.learners.compute import Compute

SEEDS = range(3)
LABELS = (100, 400, 1_600)
STEPS = (0, 200, 400, 1_200, 3_600)
MODELS: dict[str, TrainConfig] = {
    config.model: config for config in (LabellingConfig.model_fields[name].default for name in ("proxy", "target"))
}


def train(model: str, n: int, min_steps: int, data: Path, work: Path) -> dict[str, Any]:
    dataset = svp.load_dataset("cifar10", root=data)
    assert dataset.labels is not None
    assert dataset.test is not None
    config = MODELS[model].model_copy(update={"min_steps": min_steps})
    compute = Compute("cpu", "bf16", channels_last=True, threads=1, compile="off")
    accuracies, epochs = [], 0
    for seed in SEEDS:
        ids = np.sort(dataset.ids[shuffled(dataset.ids, seed, "min_steps")[:n]])
        folder = work / f"min-steps-{model}-{n}-{min_steps}-{seed}"
        learner = make_learner(config, dataset, seed=seed, compute=compute)
        records = learner.fit(dataset, ids, dataset.labels[dataset.positions(ids)], folder=folder, progress=None)
        right = learner.predict(dataset.test, dataset.test.ids).probs.argmax(axis=1) == dataset.test.labels
        accuracies.append(float(right.mean()))
        epochs = len(records)
        shutil.rmtree(folder)
    steps = epochs * -(-n // config.batch_size)
    return {"model": model, "n": n, "min_steps": min_steps, "epochs": epochs, "steps": steps, "accuracy": accuracies}


UNITS = [
    Unit(f"{model}-{n}-{min_steps}", partial(train, model, n, min_steps))
    for n in LABELS
    for model in MODELS
    for min_steps in STEPS
]


def main() -> None:
    """Print a row for each net and number of images: mean accuracy and range by `min_steps`."""
    print(f"| net, images | {' | '.join(map(str, STEPS))} |\n|{'---|' * (len(STEPS) + 1)}")
    for model in MODELS:
        for n in LABELS:
            cells = []
            for min_steps in STEPS:
                path = RESULTS / "min_steps" / f"{model}-{n}-{min_steps}.json"
                found = [100 * a for a in json.loads(path.read_text())["accuracy"]] if path.exists() else []
                cells.append(f"{sum(found) / len(found):.1f} ({min(found):.1f} to {max(found):.1f})" if found else "")
            print(f"| {model}, {n:,} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
