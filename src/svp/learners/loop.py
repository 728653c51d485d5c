"""The one training loop: proxies and targets, images and rows, every net passes through it. The only `.backward()` there is."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svp.chance import generator, shuffled, spawn_seed
from svp.config import TrainConfig
from svp.data.base import Augmentation
from svp.errors import TrainingError
from svp.learners import epochs
from svp.learners.augment import augment, draw
from svp.learners.base import EpochRecord, Progress
from svp.learners.checkpoints import best_path, load_weights, resume, save, save_weights
from svp.learners.compiled import Step, compile_step, repays
from svp.learners.compute import Compute
from svp.learners.inference import LESS, Examples, forward, named, prepare, score, signal_values
from svp.signals import KINDS, Signals

LR_BATCH = 128  # TrainConfig.lr is meant for a batch of this size
LESS_TRAINED = "lower batch_size (a step has {} examples)"
MIXED = 32  # steps among which examples of like width are brought together
CORRECT, LOSS = list(KINDS).index("correct"), list(KINDS).index("loss")


def train(
    model: nn.Module,
    examples: Examples,
    config: TrainConfig,
    *,
    seed: int,
    augmentation: Augmentation,
    compute: Compute,
    signals: Signals,
    checkpoint: Path,
    held_out: Examples | None = None,
    progress: Progress | None = None,
    begin: float | None = None,
) -> list[EpochRecord]:
    """Fit `model` in place; return one record an epoch: epoch, loss, accuracy (both on the training forward), whether its steps
    were compiled, seconds. `begin`, by time.perf_counter: what was done since, to bring the examples here, counts with the first.

    With `held_out` examples each record also has their loss and accuracy, the model is left as it was after the epoch that was
    best on them, and `config.patience` epochs without a better one end the training.
    The order of an epoch and what happens to its examples are drawn from (seed, epoch, id) alone, so there is no random state to
    keep: `checkpoint` holds weights, momentum and records, is written after every epoch, and a call that finds one goes on from
    there to bit-identical weights. The signals of an epoch are on disk before its checkpoint is.
    Raises TrainingError when the loss, a weight or a running statistic is no longer a number: the checkpoint is then that of the
    epoch before. DataError for a checkpoint that is damaged. Memory beside model and examples: about 60 bytes an example.
    """
    begin = time.perf_counter() if begin is None else begin  # so does what compiling takes
    plan = _Plan(examples, config, seed, augmentation, compute)
    # fused: one call updates all weights; with many small convolutions the calls would cost more than the arithmetic.
    optimizer = torch.optim.SGD(
        model.parameters(), lr=config.lr, momentum=config.momentum, weight_decay=config.weight_decay, fused=True
    )
    sound = _finite(model)
    records, compiled = resume(model, optimizer, checkpoint)
    signals.refuse_gaps(len(records), checkpoint)
    take_step, compiled = _step(model, plan, compiled, checkpoint)
    patience = 0 if held_out is None else config.patience
    while len(records) < plan.n_epochs and not (patience and _given_up(records, patience)):
        epoch = len(records)
        seen = _epoch(model, plan, epoch, optimizer, take_step)
        record = {"epoch": epoch, "loss": float(seen[LOSS].mean()), "accuracy": float(seen[CORRECT].mean())}
        if not math.isfinite(record["loss"]) or sound - _finite(model):
            raise TrainingError(_diverged(config, epoch, plan.n_epochs, checkpoint))
        if config.record == "plain":
            seen = _plain_signals(config.model, model, examples, compute)
        signals.write_epoch(epoch, dict(zip(KINDS, seen.cpu().numpy(), strict=True)))
        if held_out is not None:
            seen = _plain_signals(config.model, model, held_out, compute)
            record |= {"held_out_loss": float(seen[LOSS].mean()), "held_out_accuracy": float(seen[CORRECT].mean())}
        records.append({**record, "compiled": compiled, "seconds": time.perf_counter() - begin})
        if held_out is not None and _best(records) == epoch:
            save_weights(model, best_path(checkpoint))
        save(model, optimizer, records, compiled, checkpoint)
        begin = time.perf_counter()
        if progress is not None:
            progress(records[-1], plan.n_epochs)
    if held_out is not None:
        load_weights(model, best_path(checkpoint))
    return records


@dataclass(frozen=True)
class _Plan:
    """What one training shows its net, in which order and at which rate."""

    examples: Examples
    config: TrainConfig
    seed: int
    augmentation: Augmentation
    compute: Compute

    @property
    def n_epochs(self) -> int:
        return epochs.n_epochs(self.config, len(self.examples.ids))

    def batches(self, epoch: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Rows, inputs and labels of each step, of nearly equal size: a short last one would upset the batch statistics."""
        drawn = draw(self.examples.ids, self.seed, epoch, self.augmentation).to(self.examples.labels.device)
        for rows in self.rows(epoch):
            images = augment(self.examples.inputs[rows], drawn[rows], self.augmentation)
            yield rows, prepare(images, self.examples, self.compute), self.examples.labels[rows]

    def rows(self, epoch: int) -> Sequence[Tensor]:
        """What each step shows, in the order of the hashes of the ids. With widths, the examples of MIXED steps are sorted by
        width, and the steps of an epoch shuffled.
        """
        order, widths = shuffled(self.examples.ids, self.seed, "order", epoch), self.examples.widths
        if widths is not None:
            order = order[np.lexsort((widths[order], np.arange(len(order)) // (MIXED * self.config.batch_size)))]
        steps = torch.from_numpy(order).to(self.examples.labels.device).tensor_split(self.steps_per_epoch)
        if widths is None:
            return steps
        return [steps[i] for i in generator(self.seed, "steps", epoch).permutation(len(steps))]

    @property
    def steps_per_epoch(self) -> int:
        return epochs.steps_per_epoch(self.config, len(self.examples.ids))

    def learning_rate(self, epoch: int, step: int) -> float:
        steps = self.steps_per_epoch
        return learning_rate(self.config, epoch * steps + step, self.n_epochs * steps)


def _epoch(model: nn.Module, plan: _Plan, epoch: int, optimizer: torch.optim.Optimizer, take_step: Step) -> Tensor:
    """Show every example once; (kinds, n) signals of the training forward."""
    torch.manual_seed(spawn_seed(plan.seed, "epoch", epoch))  # for layers that draw, such as dropout
    model.train()
    labels = plan.examples.labels
    seen = torch.empty(len(KINDS), len(labels), device=labels.device)
    for step, (rows, x, y) in enumerate(plan.batches(epoch)):
        for group in optimizer.param_groups:
            group["lr"] = plan.learning_rate(epoch, step)
        logits = learn(plan.config.model, model, x, y, take_step)
        with named(plan.config.model, "be trained", LESS_TRAINED.format(len(y))):
            optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        # Before this step's update, on what the net was shown: forgetting is counted so (paper, section 3).
        seen[:, rows] = signal_values(logits, y)
    return seen


def _plain_signals(name: str, model: nn.Module, examples: Examples, compute: Compute) -> Tensor:
    """(kinds, n) signals of a pass in evaluation mode, nothing augmented."""
    with named(name, "score its examples", LESS.format(compute.scoring_batch)):
        scored = score(model, examples, compute)
        return torch.cat([signal_values(logits, examples.labels[rows]) for rows, logits, _ in scored], dim=1)


def _finite(model: nn.Module) -> set[str]:
    """Names of the weights and running statistics that are numbers throughout (a mask with infinities in it never was)."""
    tensors = (*model.named_parameters(), *model.named_buffers())
    return {name for name, value in tensors if bool(value.isfinite().all())}


def _diverged(config: TrainConfig, epoch: int, n_epochs: int, checkpoint: Path) -> str:
    """What happened, what to change, and where the last good state is."""
    remedy = f"lower lr (now {config.lr:g})"
    if config.schedule == "one_cycle":
        remedy += f" or raise warmup (now {config.warmup:g})"
    kept = f"; the state after epoch {epoch} is kept in {checkpoint}" if epoch else ""
    return (
        f"training {config.model} diverged in epoch {epoch + 1} of {n_epochs} (the loss, a weight or a running statistic is no "
        f"longer a number); {remedy}, in another folder (--out; --reuse takes over what is finished){kept}"
    )


def _step(model: nn.Module, plan: _Plan, compiled: bool | None, checkpoint: Path) -> tuple[Step, bool]:
    """What takes the steps, and whether it is compiled: as the training began (`compiled`), or where it is wanted and repays."""
    config, compute = plan.config, plan.compute
    plain = partial(losses_of, compute=compute, label_smoothing=config.label_smoothing)
    # Batches of many lengths would each be compiled for itself.
    if plan.examples.widths is not None or compiled is False or (compiled is None and compute.compile == "off"):
        return plain, False
    _, x, labels = next(plan.batches(0))
    n = len(plan.examples.ids)
    if (
        compiled is None
        and compute.compile == "auto"
        and not repays(plain, model, (x, labels), n * plan.n_epochs, compute.threads)
    ):
        return plain, False
    sizes = [(x, labels), (x[:-1], labels[:-1])] if n % plan.steps_per_epoch else [(x, labels)]
    try:
        return compile_step(plain, model, sizes, partial(learn, config.model)), True
    except TrainingError as error:
        if compiled:
            raise TrainingError(
                f"{error}, and was when this training began; install a C++ compiler, or remove {checkpoint} to begin it again"
            ) from error
        if compute.compile == "on":
            raise TrainingError(f"{error}; set compute.compile to off") from error
        return plain, False


def _given_up(records: list[EpochRecord], patience: int) -> bool:
    """Whether so many epochs have passed since the best."""
    return bool(records) and len(records) - 1 - _best(records) >= patience


def _best(records: list[EpochRecord]) -> int:
    """The epoch with the highest accuracy on the held-out examples, of equals the one with the lowest loss, then the first."""
    return max(range(len(records)), key=lambda e: (records[e]["held_out_accuracy"], -records[e]["held_out_loss"]))


def losses_of(
    model: nn.Module, x: Tensor, labels: Tensor, compute: Compute, label_smoothing: float = 0.0
) -> tuple[Tensor, Tensor]:
    """(b, c) float32 logits and the (b,) loss that each example adds."""
    logits, _ = forward(model, x, compute)
    return logits, F.cross_entropy(logits, labels, reduction="none", label_smoothing=label_smoothing)


def learn(name: str, model: nn.Module, x: Tensor, labels: Tensor, take_step: Step) -> Tensor:
    """Add the gradient of the mean loss to the weights; returns (b, c) float32 logits.

    Raises TrainingError, naming the net, for whatever a net of somebody's own raises here.
    """
    with named(name, "be trained", LESS_TRAINED.format(len(labels))):
        logits, losses = take_step(model, x, labels)
        if not losses.requires_grad:
            raise TrainingError(
                f"{name} cannot be trained: its output depends on no weight that may change; "
                "it has no parameters, all are frozen, or the output is detached from them"
            )
        losses.mean().backward()  # type: ignore[no-untyped-call]
    return logits.detach()


def learning_rate(config: TrainConfig, step: int, n_steps: int) -> float:
    """The rate at `step` (from 0) of `n_steps`.

    one_cycle: in a straight line from a tenth up to the highest within the share `warmup`, then in a straight line towards 0
    (Smith and Topin 2018). piecewise: constant in each phase, the phases stretched to fit.
    """
    highest = config.lr * config.batch_size / LR_BATCH
    if config.schedule == "one_cycle":
        rise = config.warmup * n_steps
        return highest * (0.1 + 0.9 * step / rise if step < rise else (n_steps - step) / (n_steps - rise))
    end, whole = 0.0, sum(length for length, _ in config.phases)
    for length, factor in config.phases:
        end += length
        if step * whole < end * n_steps:
            return highest * factor
    return highest * config.phases[-1][1]
