"""What a net says of examples: inputs made ready, logits and embeddings, plain passes over many, signals of a step."""

import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol, cast

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from svp.errors import SvpError, TrainingError, one_line
from svp.learners.base import Outputs
from svp.learners.compute import Compute

# What to do where memory does not hold a batch of scoring.
LESS = "lower compute.scoring_batch (now {}), in another folder (--out); --reuse keeps what was trained"
ALIKE = 16  # times as many texts are scored at a time where those of like width are brought together


class Inputs(Protocol):
    """A tensor, or what reads rows of one from disk: `inputs[rows]` is a tensor on the device of the model.

    What has `widths` too, an (n,) array, cuts a batch to its widest example: then examples of like width are shown together.
    """

    def __getitem__(self, rows: Tensor | slice, /) -> Tensor: ...


@dataclass(frozen=True)
class Examples:
    """What a net is shown.

    inputs     (n, h, w, c) uint8 or float images, (n, d) float rows, or (n, length) numbers of characters
    labels     (n,) int64
    ids        (n,) int64: order and augmentation are hashes of these
    mean, std  (c,) or (d,) float32, taken from the whole training part of the dataset: the same for every arm; None of characters
    """

    inputs: Inputs
    labels: Tensor
    ids: NDArray[np.int64]
    mean: Tensor | None
    std: Tensor | None

    @property
    def widths(self) -> NDArray[np.int64] | None:
        """(n,) to which length each example may be cut; None where all are as long."""
        return getattr(self.inputs, "widths", None)


def prepare(images: Tensor, examples: Examples, compute: Compute) -> Tensor:
    """Raw inputs as the net takes them: float32, normalised; images (b, h, w, c) become (b, c, h, w) in the chosen layout.

    Characters stay as they are.
    """
    if examples.mean is None or examples.std is None:
        return images
    x = (images.float() - examples.mean) / examples.std
    if x.ndim == 4:
        x = x.permute(0, 3, 1, 2)  # channels last in memory, as it is
        if not compute.channels_last:
            x = x.contiguous()
    return x


class SplitNet(Protocol):
    """A net that shows its embeddings: `forward(x)` is `head(features(x))`, features being (b, d)."""

    def features(self, x: Tensor) -> Tensor: ...

    def head(self, features: Tensor) -> Tensor: ...


def split(model: nn.Module) -> SplitNet | None:
    """The net as one that gives embeddings, if it is."""
    return cast(SplitNet, model) if hasattr(model, "features") and hasattr(model, "head") else None


def forward(model: nn.Module, x: Tensor, compute: Compute) -> tuple[Tensor, Tensor | None]:
    """(b, c) float32 logits and (b, d) float32 features, if the net has any.

    A net that has takes its last product in float32: bf16 logits tie too often to rank by.
    """
    net = split(model)
    with compute.autocast():
        out = model(x) if net is None else net.features(x)
    if net is None:
        return out.float(), None
    features = out.float()
    return net.head(features), features


def signal_values(logits: Tensor, labels: Tensor) -> Tensor:
    """(5, b) float32 rows in the order of `signals.KINDS`, from (b, c) logits; the loss is that of the label as it is."""
    probs = logits.softmax(dim=1)
    losses = F.cross_entropy(logits, labels, reduction="none")
    mine = labels[:, None]
    p_true = probs.gather(1, mine)[:, 0]
    others = logits.scatter(1, mine, -math.inf).amax(dim=1)
    logit_margin = logits.gather(1, mine)[:, 0] - others
    el2n = (probs.square().sum(dim=1) - p_true.square() + (1 - p_true).square()).clamp(min=0).sqrt()
    # Finite in float16, also for a single class, where no other logit exists.
    return torch.stack([logit_margin > 0, losses, p_true, logit_margin.clamp(-65504, 65504), el2n])


@contextmanager
def named(name: str, doing: str, less: str) -> Iterator[None]:
    """Whatever torch, or a net of somebody's own, raises within this block, as a TrainingError that names the net.

    doing  what it cannot: "be trained"; less: what takes less memory, said where that has run out
    """
    try:
        yield
    except SvpError:
        raise
    except Exception as error:
        full = isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)
        raise TrainingError(f"{name} cannot {doing}: {one_line(error)}{f'; {less}' if full else ''}") from error


@torch.no_grad()
def score(model: nn.Module, examples: Examples, compute: Compute) -> Iterator[tuple[slice, Tensor, Tensor | None]]:
    """Plain passes in evaluation mode: for each slice of rows what `forward` gives.

    With widths an example is scored among those of its own width in the slice: it is cut as if it were alone.
    """
    model.eval()
    n, widths, size = len(examples.ids), examples.widths, compute.scoring_batch
    if widths is None:
        for start in range(0, n, size):
            rows = slice(start, start + size)
            logits, features = forward(model, prepare(examples.inputs[rows], examples, compute), compute)
            yield rows, logits, features
        return
    for start in range(0, n, ALIKE * size):
        part = slice(start, min(start + ALIKE * size, n))
        order = torch.from_numpy(start + np.argsort(widths[part], kind="stable"))
        _, each = np.unique(widths[part], return_counts=True)
        batches = [rows for alike in torch.split(order, each.tolist()) for rows in torch.split(alike, size)]
        given = [forward(model, prepare(examples.inputs[rows], examples, compute), compute) for rows in batches]
        back = torch.cat(batches).argsort()
        embedded = [features for _, features in given if features is not None]
        yield part, torch.cat([logits for logits, _ in given])[back], torch.cat(embedded)[back] if embedded else None


def predict(model: nn.Module, examples: Examples, compute: Compute, *, embeddings: bool) -> Outputs:
    """Probabilities of every example, and its embedding where asked for. No augmentation."""
    probs: list[NDArray[np.float32]] = []
    features: list[NDArray[np.float32]] = []
    for _, logits, embedded in score(model, examples, compute):
        probs.append(logits.softmax(dim=1).cpu().numpy())
        if embeddings and embedded is not None:
            features.append(embedded.cpu().numpy())
    return Outputs(np.concatenate(probs), np.concatenate(features) if features else None)
