"""The learner around a torch net: makes it, feeds the loop, keeps its files."""

import json
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from svp.chance import shuffled, spawn_seed
from svp.config import TrainConfig
from svp.data.base import Augmentation, Dataset
from svp.errors import DataError, MissingInput, SettingError, TrainingError, one_line
from svp.files import read_json, write_json
from svp.learners import checkpoints, epochs, inference, loop, sharded, weights
from svp.learners.base import EpochRecord, Outputs, Progress
from svp.learners.characters import LENGTH, N_CHARACTERS, characters_of, widths_of
from svp.learners.compute import Compute, free_memory
from svp.learners.encoded import Encoded
from svp.signals import Signals

MakeNet = Callable[[int, Tensor], nn.Module]
_MOVED_BYTES = 32 << 20  # to a device at a time
# Mean and deviation of its channels from 0 to 1, as torchvision has them.
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class NetLearner:
    """A torch net as a `Learner`. Files: model.safetensors, history.json, signals/; while training, a checkpoint."""

    def __init__(
        self, config: TrainConfig, dataset: Dataset, seed: int, compute: Compute, make: MakeNet, code: tuple[str, ...]
    ) -> None:
        """make: (num_classes, example) -> net, the example being zeros (channels, height, width) or (d,), or of a text (length,)
        int64.
        """
        self.code = (
            "svp.chance",
            "svp.learners.net",
            "svp.learners.loop",
            "svp.learners.epochs",
            "svp.learners.inference",
            "svp.learners.checkpoints",
            "svp.learners.compute",
            "svp.learners.compiled",
            "svp.learners.augment",
            "svp.learners.sharded",
            "svp.signals",
            *([] if config.weights is None else ["svp.learners.weights"]),
            *(["svp.learners.characters", "svp.learners.encoded"] if dataset.is_text else []),
            *code,
        )
        self._config, self._seed = config, seed
        self._augmentation = _augmentation(config, dataset)
        self._example = example = _example(dataset)
        with compute.active():
            torch.manual_seed(spawn_seed(seed, "init"))
            with inference.named(config.model, "be made", "take a narrower one (width), or one with fewer layers"):
                model = make(len(dataset.classes), example)
            # A net of timm, or of somebody's own, may begin with weights that it learned elsewhere, and say so.
            self.initial_weights: str | None = getattr(model, "initial_weights", None)
            if config.weights is not None:
                self.initial_weights = weights.take(config.model, model, config.weights)
            self._statistics = _statistics(config, dataset, getattr(model, "input_statistics", None))
            self._compute = compute = compute.safe_for(model)
            self._model = compute.place(model)
            _check_outputs(config.model, self._model, example, len(dataset.classes), compute)
        self._recipe = None
        if compute.processes > 1:
            self._recipe = sharded.Recipe.of(config, dataset, self._statistics, seed, compute)
        # Held-out examples are shown in no epoch: a score made of epochs would say nothing of them.
        can = {"signals": not config.validation, "embeddings": inference.split(self._model) is not None}
        self.gives = frozenset(name for name, given in can.items() if given)

    def rehearse(self) -> None:
        """Raise what the first step of training would. It leaves traces in the model, which is not to be used after it."""
        with self._compute.active():
            self._model.train()
            x = _two_examples(self._example, self._compute)
            labels = torch.zeros(2, dtype=torch.int64, device=x.device)
            loop.learn(self._config.model, self._model, x, labels, partial(loop.losses_of, compute=self._compute))
        if sparse := [name for name, p in self._model.named_parameters() if p.grad is not None and p.grad.is_sparse]:
            raise TrainingError(
                f"{self._config.model} cannot be trained: the gradient of {sparse[0]} is sparse, which the fused step of SGD "
                "does not take; make it dense (sparse=False)"
            )

    def fit(
        self,
        dataset: Dataset,
        ids: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        folder: Path,
        progress: Progress | None = None,
    ) -> list[EpochRecord]:
        begin = time.perf_counter()
        if len(ids) < 2:
            raise TrainingError(f"{self._config.model} cannot be trained on {len(ids)} examples; it takes 2 at least")
        checkpoint = folder / "checkpoint.safetensors"
        if (folder / "history.json").exists():  # killed between the end of training and the done-mark
            self.load(folder)
            finished: list[EpochRecord] = read_json(folder / "history.json")
            checkpoints.remove(checkpoint)
            return finished
        shuffle = shuffled(ids, self._seed, "validation")
        held_out, shown = (np.sort(rows) for rows in np.split(shuffle, [epochs.held_out(self._config, len(ids))]))
        n_epochs = epochs.n_epochs(self._config, len(shown))
        signals = Signals.create(folder / "signals", n_epochs, len(ids), rows=shown)
        with self._compute.active():
            records = loop.train(
                self._model,
                self._examples(dataset, ids[shown], labels[shown]),
                self._config,
                held_out=self._examples(dataset, ids[held_out], labels[held_out]) if len(held_out) else None,
                seed=self._seed,
                augmentation=self._augmentation,
                compute=self._compute,
                signals=signals,
                checkpoint=checkpoint,
                progress=progress,
                begin=begin,
            )
        checkpoints.save_weights(self._model, folder / "model.safetensors", _header(dataset, self._statistics))
        write_json(folder / "history.json", records)
        checkpoints.remove(checkpoint)
        return records

    def predict(self, dataset: Dataset, ids: NDArray[np.int64], *, embeddings: bool = False) -> Outputs:
        if not len(ids):
            return Outputs(np.zeros((0, len(dataset.classes)), np.float32), None)
        (outputs,) = self.stream(dataset, ids, len(ids), embeddings=embeddings)
        return outputs

    def stream(
        self, dataset: Dataset, ids: NDArray[np.int64], size: int, *, embeddings: bool = False
    ) -> Generator[Outputs, None, None]:
        """As `Learner.stream`. By several processes where the whole pass is worth their start: they start once."""
        if embeddings and "embeddings" not in self.gives:
            raise MissingInput(
                f"{self._config.model} gives no embeddings: its net has no `features` and `head`. "
                "Add both (docs/adding.md), or choose a method that needs none (svp list methods)"
            )
        compute = self._compute
        if self._recipe is not None and len(ids) > compute.scoring_batch and self._repays(len(ids)):
            rows = dataset.positions(ids)
            yield from sharded.stream(self._model, self._recipe, dataset.inputs, rows, size, embeddings=embeddings)
            return
        less = inference.LESS.format(compute.scoring_batch)
        for start in range(0, len(ids), size):
            with compute.active(), inference.named(self._config.model, "score these examples", less):
                examples = self._examples(dataset, ids[start : start + size], None)
                outputs = inference.predict(self._model, examples, compute, embeddings=embeddings)
            yield outputs

    def _repays(self, n: int) -> bool:
        """Whether scoring so many is worth the start of processes."""
        with self._compute.active():
            return sharded.repays(self._model, _two_examples(self._example, self._compute), n, self._compute)

    def load(self, folder: Path) -> None:
        checkpoints.load_weights(self._model, folder / "model.safetensors")

    def _examples(
        self, dataset: Dataset, ids: NDArray[np.int64], labels: NDArray[np.int64] | None
    ) -> inference.Examples:
        device = self._compute.device
        cut = bool(getattr(self._model, "cut", False))
        inputs = Characters.of(dataset, ids, device, cut=cut) if dataset.is_text else _inputs(dataset, ids, device)
        numbers = torch.from_numpy(np.zeros(len(ids), np.int64) if labels is None else np.asarray(labels, np.int64))
        mean, std = (None if values is None else values.to(device) for values in self._statistics)
        return inference.Examples(inputs, numbers.to(device), ids, mean, std)


@dataclass(frozen=True)
class ByBatch:
    """Rows of an array, in place of a tensor that would not fit: `inputs[rows]` reads them, to the device of the model.

    array      (n, ...) mapped or in memory
    positions  (m,) which row of it each row of these is
    """

    array: NDArray[Any]
    positions: NDArray[np.int64]
    device: str

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        """Read in the order in which they lie there: a batch is drawn from everywhere."""
        wanted = self.positions[rows if isinstance(rows, slice) else rows.cpu().numpy()]
        order = np.argsort(wanted)
        read = self.array[wanted[order]]
        inputs = np.empty_like(read)
        inputs[order] = read
        return torch.from_numpy(inputs).to(self.device)


@dataclass(frozen=True)
class Characters:
    """Texts as numbers of characters, read from the cache: `inputs[rows]` is (b, LENGTH) int64 on the device of the model.

    widths  (m,) to which length each of these texts may be cut, where the net wants that: then a batch is as long as its widest
    """

    texts: Encoded
    positions: NDArray[np.int64]
    device: str
    widths: NDArray[np.int64] | None

    @classmethod
    def of(cls, dataset: Dataset, ids: NDArray[np.int64], device: str, *, cut: bool) -> Self:
        texts, positions = characters_of(dataset), dataset.positions(ids)
        return cls(texts, positions, device, widths_of(texts.lengths(positions)) if cut else None)

    def __getitem__(self, rows: Tensor | slice) -> Tensor:
        wanted = rows if isinstance(rows, slice) else rows.cpu().numpy()
        width = LENGTH if self.widths is None else int(self.widths[wanted].max())
        characters = self.texts.padded(self.positions[wanted], width)
        return torch.from_numpy(characters.astype(np.int64)).to(self.device)


def _inputs(dataset: Dataset, ids: NDArray[np.int64], device: str) -> inference.Inputs:
    """The inputs of these examples, in memory on the device; of those that would take more than half of what is free there, what
    reads them a batch at a time from where they are.
    """
    positions, free = dataset.positions(ids), free_memory(device)
    n_bytes = len(ids) * dataset.inputs[:1].nbytes
    if free is not None and n_bytes > free / 2:
        return ByBatch(dataset.inputs, positions, device)
    return _moved(dataset.inputs, positions, device)


def _moved(inputs: NDArray[Any], positions: NDArray[np.int64], device: str) -> Tensor:
    """These rows as a tensor on the device. Memory: the tensor there, and elsewhere than on the CPU a block of it here."""
    if torch.device(device).type == "cpu":
        return torch.from_numpy(np.ascontiguousarray(inputs[positions]))
    kind = torch.from_numpy(np.empty(0, inputs.dtype)).dtype
    moved = torch.empty((len(positions), *inputs.shape[1:]), dtype=kind, device=device)
    n_rows = max(1, _MOVED_BYTES // max(1, inputs[:1].nbytes))
    for start in range(0, len(positions), n_rows):
        rows = inputs[positions[start : start + n_rows]]
        moved[start : start + n_rows] = torch.from_numpy(np.ascontiguousarray(rows))
    return moved


def _example(dataset: Dataset) -> Tensor:
    """Zeros in the shape of one example, as a net takes it."""
    if dataset.is_text:
        return torch.zeros(LENGTH, dtype=torch.int64)
    shape = dataset.inputs.shape[1:]
    return torch.zeros((shape[2], shape[0], shape[1]) if len(shape) == 3 else shape)


def _two_examples(example: Tensor, compute: Compute) -> Tensor:
    """(2, *shape of one) values from -1 to 1, or characters."""
    if not example.is_floating_point():
        return (torch.arange(2 * example.numel()) % N_CHARACTERS).reshape(2, *example.shape).to(compute.device)
    return torch.linspace(-1, 1, 2 * example.numel()).reshape(2, *example.shape).to(compute.device)


def _check_outputs(name: str, model: nn.Module, example: Tensor, n_classes: int, compute: Compute) -> None:
    """Refuse a net that cannot be used here before anything is trained: two plain examples must give two rows of logits."""
    x = _two_examples(example, compute)
    model.eval()
    try:
        with torch.no_grad():
            logits, features = inference.forward(model, x, replace(compute, precision="fp32"))
            whole = logits if features is None else model(x)
    except Exception as error:  # whatever a net of somebody's own may raise
        raise SettingError(
            f"{name} cannot take an example of shape {tuple(example.shape)}: {one_line(error)}"
        ) from error
    if logits.shape != (2, n_classes):
        raise SettingError(
            f"{name} gives logits of shape {tuple(logits.shape)} for 2 examples; {n_classes} classes take (2, {n_classes})"
        )
    if features is not None and features.ndim != 2:
        raise SettingError(
            f"{name}: `features` gives shape {tuple(features.shape)} for 2 examples; it must give (2, d), which `head` takes"
        )
    if whole.shape != logits.shape or not torch.allclose(whole, logits, rtol=1e-3, atol=1e-4, equal_nan=True):
        raise SettingError(
            f"{name}: `forward` does not give `head` of `features`; let it, or call one of the two by another name"
        )


def _augmentation(config: TrainConfig, dataset: Dataset) -> Augmentation:
    kind = dataset.augmentation if config.augment == "auto" else config.augment
    if kind not in get_args(Augmentation):
        raise DataError(
            f"{dataset.name} has the augmentation {kind!r}; it can be {', '.join(map(repr, get_args(Augmentation)))}"
        )
    if kind != "none" and dataset.inputs.ndim != 4:
        raise SettingError(
            f"augment {kind!r} is for images; one example of {dataset.name} has shape {dataset.inputs.shape[1:]}"
        )
    return kind


def _statistics(
    config: TrainConfig, dataset: Dataset, learned: tuple[Sequence[float], Sequence[float]] | None
) -> tuple[Tensor | None, Tensor | None]:
    """(c,) mean and deviation of the last axis that are taken from the inputs; none of texts.

    learned  those of the inputs that the net learned its initial weights from, where it says so; they are taken where nothing
             else is set, and the channels are as many. Else those of the whole training part
    """
    if dataset.is_text:
        return None, None
    n_channels = dataset.inputs.shape[-1]
    if config.normalize == "imagenet" and (n_channels != 3 or dataset.inputs.ndim != 4):
        raise SettingError(
            f"normalize = imagenet is for images of 3 channels; the examples of {dataset.name} have {n_channels}"
        )
    known = {"imagenet": IMAGENET, "data": None, None: learned}[config.normalize]
    if known is not None and len(known[0]) == n_channels:
        mean, deviation = (_scale(dataset) * np.asarray(values, np.float64) for values in known)
    else:
        mean, deviation = dataset.statistics
    deviation = np.where(deviation < 1e-6, 1.0, deviation)  # a constant channel carries nothing; do not divide by it
    return torch.from_numpy(mean.astype(np.float32)), torch.from_numpy(deviation.astype(np.float32))


def _scale(dataset: Dataset) -> float:
    """What 1 stands for: statistics that are passed on are those of bytes divided by 255, and of floats as they are."""
    return 255.0 if dataset.inputs.dtype == np.uint8 else 1.0


def _header(dataset: Dataset, statistics: tuple[Tensor | None, Tensor | None]) -> dict[str, str]:
    """What a file of weights says of the inputs that they learned from."""
    known = [(values.double() / _scale(dataset)).tolist() for values in statistics if values is not None]
    return {weights.STATISTICS: json.dumps(known)} if known else {}
