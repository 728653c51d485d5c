"""How fast models are on this machine and these data: each trained on a few hundred examples, in a folder that is thrown away."""

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import shuffled
from svp.config import RunConfig, TrainConfig
from svp.data.base import Dataset
from svp.learners import Learner, find, make_learner
from svp.learners.epochs import n_epochs, shown
from svp.select.forecast import extended
from svp.workflows.check import labels_of
from svp.workflows.features import seen_by, uses_net
from svp.workflows.outcomes import Show

Make = Callable[[TrainConfig, Dataset], Learner]
_FIRST = 512  # examples of the first trial, of a net two batches; each further one has four times as many
_MOST = 16  # times as many in the last
_EMBEDDED = 128  # examples embedded at a time
_SECONDS = 2.0  # a trial that took so long is the last
_TOO_LONG = 10.0  # a training to warm up that took so long is the only trial


@dataclass(frozen=True)
class Times:
    """Seconds of one model: (examples shown, seconds) of its trials in training; of scoring and of embedding one example."""

    config: TrainConfig
    trials: list[tuple[float, float]]
    scored: float
    embedded: float

    def training(self, n: int, config: TrainConfig | None = None) -> float:
        """On `n` examples; config: the same model, trained for other epochs."""
        config = config or self.config
        return extended(self.trials, shown(config, n) * _epochs(config, n))

    def scoring(self, n: int) -> float:
        return n * self.scored

    def embedding(self, n: int) -> float:
        return n * self.embedded


def _epochs(config: TrainConfig, n: int) -> int:
    return n_epochs(config, shown(config, n)) if "epochs" in find(config).uses else 1


def timer(config: RunConfig, dataset: Dataset, show: Show) -> Callable[[TrainConfig], Times]:
    """What times a model, each but once."""
    if any(find(model).is_net or uses_net(model.features) for model in (config.proxy, config.target)):
        from svp.learners.compute import decide

        # Compiling takes longer than what is timed here.
        compute: Any = replace(decide(config.compute), compile="off")
    else:
        compute = None
    known: dict[str, Times] = {}

    def timed(model: TrainConfig) -> Times:
        key = model.model_copy(update={"seeds": 1}).digest()
        if key not in known:
            show(f"timing {model.model} on a few examples", 0, 0)
            known[key] = _timed(
                model, dataset, config.target, lambda net, on: make_learner(net, on, seed=0, compute=compute)
            )
        return known[key]

    return timed


def _timed(config: TrainConfig, dataset: Dataset, target: TrainConfig, make: Make) -> Times:
    first = 2 * config.batch_size if find(config).is_net else _FIRST
    seen, ids, embedded = _seen(config, dataset, _sample(dataset, _MOST * first), target, make)
    # The first training has in it whatever is done but once in a process.
    learner, seconds = _fit(config, seen, ids[:first], make)
    trials = [(float(shown(config, min(first, len(ids)))), seconds)] if seconds > _TOO_LONG else []
    size = first
    while not trials or (trials[-1][1] < _SECONDS and size < len(ids)):
        size = first if not trials else 4 * size
        learner, seconds = _fit(config, seen, ids[:size], make)
        trials.append((float(shown(config, min(size, len(ids)))), seconds))
    asked = np.sort(ids[: 4 * first])
    learner.predict(seen, asked[:1])
    begin = time.perf_counter()
    learner.predict(seen, asked)
    return Times(config, trials, (time.perf_counter() - begin) / len(asked), embedded)


def _fit(config: TrainConfig, seen: Dataset, ids: NDArray[np.int64], make: Make) -> tuple[Learner, float]:
    """The model trained on these for one epoch, and the seconds that took."""
    if "epochs" in find(config).uses:
        config = config.model_copy(update={"epochs": 1, "min_steps": 0})
    learner, ids = make(config, seen), np.sort(ids)
    with tempfile.TemporaryDirectory() as folder:
        begin = time.perf_counter()
        learner.fit(seen, ids, labels_of(seen)[seen.positions(ids)], folder=Path(folder))
        return learner, time.perf_counter() - begin


def _sample(dataset: Dataset, size: int) -> NDArray[np.int64]:
    """Ids drawn at random, at most so many, the first of them of different classes: no classifier learns from one."""
    ids = dataset.ids[shuffled(dataset.ids, 0, "forecast")]
    labels = labels_of(dataset)[dataset.positions(ids)]
    first = np.sort(np.unique(labels, return_index=True)[1])
    return np.concatenate([ids[first], np.delete(ids, first)])[:size]


def _seen(
    config: TrainConfig, dataset: Dataset, ids: NDArray[np.int64], target: TrainConfig, make: Make
) -> tuple[Dataset, NDArray[np.int64], float]:
    """The dataset as the model sees it, which of these ids are in it, and the seconds to embed one.

    Of frozen features it has the first examples alone, as many as can be embedded in a few seconds.
    """
    if config.features.source is None:
        return dataset, ids, 0.0
    source = seen_by(config, dataset, target, lambda net: make(net, dataset), lambda: {"compute.device": "cpu"})
    source.some(dataset, ids[:1])  # what is done but once
    begin, rows = time.perf_counter(), list[NDArray[np.float32]]()
    for start in range(0, len(ids), _EMBEDDED):
        rows.append(source.some(dataset, ids[start : start + _EMBEDDED]))
        if (seconds := time.perf_counter() - begin) > _SECONDS:
            break
    inputs = np.concatenate(rows)
    ids, order = ids[: len(inputs)], np.argsort(ids[: len(inputs)])
    labels = labels_of(dataset)[dataset.positions(ids)]
    seen = Dataset(dataset.name, inputs[order], labels[order], dataset.classes, ids[order])
    return seen, ids, seconds / len(ids)
