"""Units that train one arm under one seed by a workflow of svp.

What units share is trained once: each takes from the run folders in --work whatever was made from the same things.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

import svp
from benchmarks.claims import MARGIN, Facts
from benchmarks.run import as_bits
from svp.config import ActiveConfig, CoresetConfig, TrainConfig
from svp.data.base import Dataset
from svp.files import read_array
from svp.runs import Run

# Fixed, not measured: all arms of a seed must round alike, and units of one thread can run two at a time on two cores.
COMPUTE = {"device": "cpu", "precision": "bf16", "channels_last": True, "threads": 1}


@dataclass(frozen=True)
class Scale:
    """How much of everything: a small one shows that all units run."""

    examples: int | None = None  # of each class; None: all
    epochs: float = 1.0

    def train(self, model: str, epochs: int, **settings: Any) -> TrainConfig:
        return TrainConfig.make({"model": model, "epochs": max(1, round(self.epochs * epochs)), **settings})


FULL = Scale()


def cut(dataset: Dataset, scale: Scale) -> Dataset:
    """The first examples of each class, train and test."""
    if scale.examples is None:
        return dataset
    assert dataset.test is not None
    parts = []
    for part in (dataset, dataset.test):
        assert part.labels is not None
        rows = np.sort(
            np.concatenate([np.flatnonzero(part.labels == c)[: scale.examples] for c in range(len(part.classes))])
        )
        parts.append((np.array(part.inputs[rows]), part.labels[rows]))
    (x, y), test = parts
    small = Dataset.from_arrays(
        x, y, classes=dataset.classes, test=test, name=dataset.name, augmentation=dataset.augmentation
    )
    return replace(small, cache=dataset.cache, test=small.test and replace(small.test, cache=dataset.cache))


# --- one unit of each workflow --------------------------------------------------------------------------------------------


class Paused(Exception):
    """A unit ends before the training does; the next one goes on from its checkpoint."""


def show(what: str, done: int, total: int, note: str = "") -> None:
    print(f"  {what} {done}/{total} {note}", flush=True)


def pausing(training: str, epoch: int) -> Callable[..., None]:
    """Shows, and raises Paused once `training` ("training vdcnn9 on 1,000 examples") has had so many epochs, but not all."""

    def shown(what: str, done: int, total: int, note: str = "") -> None:
        show(what, done, total, note)
        if what == training and epoch <= done < total:
            raise Paused

    return shown


def coreset_unit(
    name: str,
    load: Callable[[Path, Scale], Dataset],
    settings: Callable[[Scale], Facts],
    arm: str,
    seed: int,
    data: Path,
    work: Path,
    scale: Scale = FULL,
    show: Callable[..., None] = show,
) -> Facts:
    """Train the target on what `arm` keeps ("proxy": the method's choice)."""
    given = {
        **settings(scale),
        "seed": seed,
        "compute": COMPUTE,
        "margin": MARGIN,
        "control": () if arm == "proxy" else (arm,),
    }
    dataset = load(data, scale)
    config = CoresetConfig.make({"dataset": dataset.name, **given})
    run = svp.coreset(config, dataset, out=work / name, reuse=earlier(work, name), show=show)
    folder = "target/full" if arm == "full" else f"target/{arm}-epochs"
    facts = next(found for found in run.metrics["arms"] if found["arm"] == arm)
    proxies = run.metrics["proxies"]
    return {
        **brief(facts),
        "method": run.metrics["method"],
        "majority_rate": run.metrics["majority_rate"],
        "proxy": brief(proxies[0]) if proxies else None,
        "never_learned": never_learned(run) if arm == "proxy" else None,
        **answers(run, f"{folder}/seed-{seed}/test", dataset),
    }


def active_unit(
    name: str,
    load: Callable[[Path, Scale], Dataset],
    settings: Callable[[Scale], Facts],
    labelled: Sequence[int | str],
    seed: int,
    data: Path,
    work: Path,
    scale: Scale = FULL,
    show: Callable[..., None] = show,
) -> Facts:
    """Label up to the last of `labelled`, and train the target on that; where `evaluate` names more totals, on those too."""
    given = {**settings(scale), "seed": seed, "compute": COMPUTE, "margin": MARGIN, "labelled": labelled}
    dataset = load(data, scale)
    config = ActiveConfig.make({"dataset": dataset.name, **given})
    run = svp.active(config, dataset, out=work / name, reuse=earlier(work, name), show=show)
    facts = max(run.metrics["arms"], key=lambda arm: arm["n"])
    return {
        **brief(facts),
        "method": run.metrics["method"],
        "majority_rate": run.metrics["majority_rate"],
        "accuracies": {str(arm["n"]): arm["accuracy"] for arm in run.metrics["arms"]},
        "selection_seconds": facts["selection_seconds"],
        "labelled": run.metrics["labelled"],
        "n_pool": run.metrics["n"],
        **answers(run, f"target/proxy-{facts['n']}/seed-{seed}/test", dataset),
    }


def until(unit: Callable[..., Facts], training: str, epoch: int, data: Path, work: Path) -> Facts:
    """A unit as far as this epoch of this training: where the whole is longer than a unit may be."""
    with suppress(Paused):
        unit(data, work, show=pausing(training, epoch))
    return {"until": training, "epochs": epoch}


def brief(facts: Facts) -> Facts:
    return {key: facts[key] for key in ("model", "seed", "n", "epochs", "steps", "accuracy", "seconds")}


def never_learned(run: Run) -> float | None:
    """Which share of what is kept the proxy got right in no epoch; None where it recorded no signals."""
    choice = run.metrics["choices"][0]
    return None if choice["never_learned"] is None else round(choice["never_learned"] / choice["n"], 4)


def answers(run: Run, stage: str, dataset: Dataset) -> Facts:
    """Which test examples were right, one bit each, and how many there are."""
    assert dataset.test is not None
    correct = np.asarray(read_array(run.folder / stage / "probs.npy")).argmax(axis=1) == dataset.test.labels
    return {"n_test": len(correct), "correct": as_bits(correct)}


def earlier(work: Path, name: str) -> list[Path]:
    """The finished runs of other units: what they trained is not trained again."""
    return sorted(mark.parent for mark in work.glob("*/metrics.json") if mark.parent.name != name)
