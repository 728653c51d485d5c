"""Random crop and flip on whole batches, in memory; used by `fit` alone.

What happens to an example is a hash of its id, the seed and the epoch, so two arms that share a seed see their common examples
cropped and flipped alike, whatever else is in their batches.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from svp.chance import hash_ids
from svp.data.base import Augmentation


def draw(ids: NDArray[np.int64], seed: int, epoch: int) -> Tensor:
    """(n, 3) int64 random numbers of an epoch: row offset, column offset (any range, taken modulo) and flip."""
    bits = hash_ids(ids, seed, "augment", epoch)
    parts = [(bits >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32)]
    return torch.from_numpy(np.stack(parts, axis=1).astype(np.int64))


def augment(images: Tensor, drawn: Tensor, kind: Augmentation) -> Tensor:
    """(b, h, w, c) images, shifted by up to an eighth of the side (black beyond the edge) and, with "crop_flip", mirrored."""
    if kind == "none":
        return images
    b, h, w, c = images.shape
    pad_h, pad_w = h // 8, w // 8
    padded = images.new_zeros(b, h + 2 * pad_h, w + 2 * pad_w, c)
    padded[:, pad_h : pad_h + h, pad_w : pad_w + w] = images
    rows = (drawn[:, 0] % (2 * pad_h + 1))[:, None] + torch.arange(h, device=images.device)  # (b, h)
    columns = (drawn[:, 1] % (2 * pad_w + 1))[:, None] + torch.arange(w, device=images.device)  # (b, w)
    if kind == "crop_flip":
        mirrored = (drawn[:, 2] % 2 == 1)[:, None]
        columns = torch.where(mirrored, columns.flip(1), columns)
    example = torch.arange(b, device=images.device)[:, None, None]
    return padded[example, rows[:, :, None], columns[:, None, :]]
