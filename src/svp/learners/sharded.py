"""Scoring by several processes: each takes shards of the rows, and the answers are those of one process, bit for bit.

Shards begin at multiples of the loop's batch, so every batch holds the rows that it would hold anyway. Each process makes the
model from its settings, as a resumed run does, and reads its weights from a file.
"""

import mmap
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from itertools import islice
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from svp import engine
from svp.config import TrainConfig
from svp.data.base import Dataset
from svp.learners import checkpoints, inference, make_learner
from svp.learners.base import Outputs
from svp.learners.compute import Compute
from svp.machine import n_cores

START_SECONDS = 10.0  # that processes take to begin, on the safe side: to import torch and make the net
_FLOPS, _FLOPS_A_THREAD = {"cuda": 1e13}, 1e11  # a second: of a GPU, of a thread of a CPU
_SHARDS = 4  # for each process, so that none waits long for a slower one
_SHARD_BYTES = 32 << 20  # of inputs, at most (one batch at least): a shard is all that is held twice


@dataclass(frozen=True)
class Recipe:
    """What a fitted net is made from again: its settings, its seed, data of its kind without rows, and where it lives."""

    config: TrainConfig
    like: Dataset
    seed: int
    compute: Compute

    @classmethod
    def of(
        cls, config: TrainConfig, dataset: Dataset, statistics: Sequence[Tensor | None], seed: int, compute: Compute
    ) -> Self | None:
        """None for inputs that are no array of numbers: these are scored by one process.

        statistics  mean and deviation of the inputs, as the net takes them
        """
        if not isinstance(dataset.inputs, np.ndarray) or dataset.inputs.dtype.kind not in "uif":
            return None
        rows = np.empty((0, *dataset.inputs.shape[1:]), dataset.inputs.dtype)
        like = replace(dataset, inputs=rows, labels=None, ids=dataset.ids[:0], keys=None, test=None, problems=())
        # Where the property keeps those of all rows.
        vars(like)["statistics"] = tuple(np.asarray(values, np.float64) for values in statistics)
        return cls(config.model_copy(update={"weights": None, "normalize": "data"}), like, seed, compute)


@dataclass(frozen=True)
class MappedFile:
    """A mapped array as another process can map it."""

    path: str
    offset: int
    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @classmethod
    def of(cls, array: NDArray[Any]) -> Self | None:
        """None for what lies in memory, or is no range of rows of a file that has a name."""
        if not isinstance(array, np.memmap) or array.mode not in ("r", "r+") or not array.flags.c_contiguous:
            return None
        if array.filename is None or not os.path.exists(array.filename) or not array.size:
            return None
        # A range of an array keeps the offset of the whole in `offset`: it is counted from the beginning of the map.
        begin = np.frombuffer(array._mmap, np.uint8).ctypes.data  # type: ignore[attr-defined]
        offset = array.offset // mmap.ALLOCATIONGRANULARITY * mmap.ALLOCATIONGRANULARITY + array.ctypes.data - begin
        return cls(os.path.abspath(array.filename), offset, array.dtype, array.shape)

    def open(self) -> NDArray[Any]:
        return np.memmap(self.path, self.dtype, "r", self.offset, self.shape)


@dataclass(frozen=True)
class _Task:
    """What one process is told: the net and its weights, where the rows are (None: they are sent), what is wanted of them."""

    recipe: Recipe
    weights: Path
    file: MappedFile | None
    embeddings: bool


def repays(model: nn.Module, x: Tensor, n: int, compute: Compute) -> bool:
    """Whether scoring n examples like those of x is work enough to save the seconds that processes take to start.

    Estimated from products alone, never timed. Leaves the model in evaluation mode.
    """
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        inference.forward(model, x, compute)
    speed = _FLOPS.get(torch.device(compute.device).type, _FLOPS_A_THREAD * compute.threads)
    seconds = counter.get_total_flops() / len(x) * n / speed
    return bool(seconds * (1 - 1 / len(spread(compute))) > START_SECONDS)


def stream(
    model: nn.Module,
    recipe: Recipe,
    inputs: NDArray[Any],
    positions: NDArray[np.int64],
    size: int,
    *,
    embeddings: bool,
) -> Iterator[Outputs]:
    """What `inference.predict` gives for the rows of `inputs` at `positions`, for `size` of them at a time.

    A mapped file is sent as its path; rows in memory go through pipes, a shard at a time. Cost beside the scoring: in every
    process the seconds that importing torch and making the net take. Raises what scoring raises, or WorkerError.
    """
    file, places, batch = MappedFile.of(inputs), spread(recipe.compute), recipe.compute.scoring_batch
    batch_bytes = batch * inputs.dtype.itemsize * int(np.prod(inputs.shape[1:]))
    blocks = [positions[start : start + size] for start in range(0, len(positions), size)]
    shards = [list(_shards(block, len(places), batch, batch_bytes)) for block in blocks]
    with TemporaryDirectory(prefix="svp-") as folder:
        checkpoints.save_weights(model, Path(folder) / "model.safetensors")
        tasks = [
            _Task(replace(recipe, compute=one), Path(folder), file, embeddings)
            for one in places[: sum(map(len, shards))]
        ]
        sent = (shard if file else np.ascontiguousarray(inputs[shard]) for block in shards for shard in block)
        # Closed before the folder is: who reads no further leaves no process behind that looks for the weights in it.
        with closing(engine.map("svp.learners.sharded:scorer", tasks, sent)) as found:
            for block in shards:
                yield _joined(list(islice(found, len(block))))


def _joined(found: Sequence[Outputs]) -> Outputs:
    rows = [outputs.embeddings for outputs in found if outputs.embeddings is not None]
    return Outputs(np.concatenate([outputs.probs for outputs in found]), np.concatenate(rows) if rows else None)


def scorer(task: _Task) -> Callable[[NDArray[Any]], Outputs]:
    """In a process of its own: what scores a shard, given as rows of the mapped file or as inputs."""
    like = task.recipe.like
    learner = make_learner(task.recipe.config, like, seed=task.recipe.seed, compute=task.recipe.compute)
    learner.load(task.weights)
    mapped = None if task.file is None else task.file.open()

    def score(shard: NDArray[Any]) -> Outputs:
        inputs = shard if mapped is None else mapped[shard]
        data = replace(like, inputs=inputs, ids=np.arange(len(inputs)))
        return learner.predict(data, data.ids, embeddings=task.embeddings)

    return score


def spread(compute: Compute) -> list[Compute]:
    """One for each process that there is room for: "cuda" gives each a GPU of its own, "cpu" the cores that its threads take; any
    other device has work for one.
    """
    room = {"cuda": torch.cuda.device_count(), "cpu": n_cores() // compute.threads}.get(compute.device, 1)
    n = max(1, min(room, compute.processes))
    devices = [f"cuda:{i}" if compute.device == "cuda" else compute.device for i in range(n)]
    return [replace(compute, device=device, processes=1) for device in devices]


def _shards(positions: NDArray[np.int64], processes: int, batch: int, batch_bytes: int) -> Iterator[NDArray[np.int64]]:
    """Runs of whole batches, about _SHARDS for each process."""
    n_batches = ceil(len(positions) / batch)
    size = batch * max(1, min(ceil(n_batches / (_SHARDS * processes)), _SHARD_BYTES // batch_bytes))
    for start in range(0, len(positions), size):
        yield positions[start : start + size]
