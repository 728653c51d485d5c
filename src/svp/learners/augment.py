"""Random crops and flips of whole batches, in memory; used by `fit` alone.

What happens to an example is a hash of its id, the seed and the epoch, so two arms that share a seed see their common examples
cropped and flipped alike, whatever else is in their batches.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from svp.chance import hash_ids
from svp.data.base import Augmentation


def draw(ids: NDArray[np.int64], seed: int, epoch: int, kind: Augmentation = "crop_flip") -> Tensor:
    """What is drawn for each of n examples in an epoch, on the CPU, as `augment` takes it for this kind.

    (n, 4) int64 numbers of 16 bits: row, column, flip (its lowest bit) and shape; of resized crops the (n, 2, 3) float32 maps
    from places in the result to places in the image that are made of these.
    """
    bits = hash_ids(ids, seed, "augment", epoch)
    parts = [(bits >> np.uint64(shift)) & np.uint64(0xFFFF) for shift in (0, 16, 32, 48)]
    drawn = torch.from_numpy(np.stack(parts, axis=1).astype(np.int64))
    return _maps(drawn) if kind == "resized_crop_flip" else drawn


def augment(images: Tensor, drawn: Tensor, kind: Augmentation) -> Tensor:
    """(b, h, w, c) images, as seen in training; drawn: their rows of `draw`, on the same device.

    crop               shifted by up to an eighth of the side, black beyond the edge
    crop_flip          the same, and every second one mirrored
    resized_crop_flip  a part of 8 to 100 % of the area and 3:4 to 4:3 in shape, brought back to the size of the whole, and
                       every second one mirrored (Szegedy et al. 2015); these are float
    """
    if kind == "none":
        return images
    if kind == "resized_crop_flip":
        return _resized_crop(images, drawn)
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


def _maps(drawn: Tensor) -> Tensor:
    """In float64, which not every device has."""
    row, column, flip, shape = ((drawn.double() + 0.5) / 65536).unbind(dim=1)  # between 0 and 1
    area = 0.08 + 0.92 * (flip * 32768).floor() / 32768  # the bits above the lowest, which mirrors
    root_of_ratio = (0.75 ** (2 * shape - 1)).sqrt()
    height, width = ((area.sqrt() * side).clamp(max=1) for side in (root_of_ratio, 1 / root_of_ratio))
    mirror = 1 - 2 * (drawn[:, 2] % 2)
    zero = torch.zeros_like(area)
    return torch.stack([
        torch.stack([width * mirror, zero, (1 - width) * (2 * column - 1)], dim=1),
        torch.stack([zero, height, (1 - height) * (2 * row - 1)], dim=1),
    ], dim=1).float()  # fmt: skip


def _resized_crop(images: Tensor, maps: Tensor) -> Tensor:
    b, h, w, c = images.shape
    grid = F.affine_grid(maps, [b, c, h, w], align_corners=False)
    pixels = images.float().permute(0, 3, 1, 2)
    # A part is only ever enlarged, so plain bilinear weights alias nothing.
    return F.grid_sample(pixels, grid, padding_mode="border", align_corners=False).permute(0, 2, 3, 1).contiguous()
