"""VDCNN, very deep convolutional nets on the characters of a text (Conneau et al. 2017, arXiv 1606.01781).

    vdcnn9 vdcnn17 vdcnn29 vdcnn49         convolutions, with the embedding of characters one layer less
    -conv -maxpool (the default) -kmaxpool  how the length is halved between the four stages
    -lite                                   a quarter of the channels everywhere
    -shortcut                               the input of a block is added to what it gives

A net is (n, length) numbers of characters to (n, num_classes) logits, and gives by `features` the (n, 2048) input of its `head`.
Inside, a text is an image one pixel high, (n, c, 1, length): so it can lie in memory with its channels last, as kernels for
matrix units want it.
"""

import re
from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor, nn

from svp.errors import SettingError
from svp.learners.characters import LENGTH, N_CHARACTERS
from svp.learners.resnet import scaled

BLOCKS = {9: (1, 1, 1, 1), 17: (2, 2, 2, 2), 29: (5, 5, 2, 2), 49: (8, 8, 5, 3)}
CHANNELS, HIDDEN, EMBEDDED = (64, 128, 256, 512), 2048, 16
KEPT = 8  # values of each channel that the head is shown: what is left of 64 characters, halved three times


def k_max_pool(x: Tensor, k: int) -> Tensor:
    """(..., k) the k largest of (..., l), in the order in which they stand."""
    return x.gather(-1, x.topk(k, dim=-1).indices.sort(dim=-1).values)


def _conv(n_in: int, n_out: int, size: int, stride: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, (1, size), (1, stride), padding=(0, size // 2), bias=False)


class KMaxPool(nn.Module):
    """Keep the larger half."""

    def forward(self, x: Tensor) -> Tensor:
        return k_max_pool(x, x.shape[-1] // 2)


class Block(nn.Module):
    """Two convolutions of 3 characters, each with norm and ReLU, after whatever halves the length."""

    def __init__(self, n_in: int, n_out: int, halving: nn.Module | None, stride: int, *, shortcut: bool) -> None:
        super().__init__()
        self.halving = halving
        self.conv1 = _conv(n_in, n_out, 3, stride)
        self.conv2 = _conv(n_out, n_out, 3)
        self.norm1, self.norm2 = nn.BatchNorm2d(n_out), nn.BatchNorm2d(n_out)
        self.shortcut: nn.Module | None = None
        if shortcut:
            same = n_in == n_out and stride == 1
            self.shortcut = nn.Identity() if same else _conv(n_in, n_out, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        if self.halving is not None:
            x = self.halving(x)
        out = F.relu(self.norm1(self.conv1(x)), inplace=True)
        out = self.norm2(self.conv2(out))
        if self.shortcut is not None:
            out = out + self.shortcut(x)
        return F.relu(out, inplace=True)


# How a stage halves the length before its first block, and the stride of the first convolution.
HALVINGS: dict[str, tuple[Callable[[], nn.Module | None], int]] = {
    "conv": (lambda: None, 2),
    "maxpool": (lambda: nn.MaxPool2d((1, 3), (1, 2), padding=(0, 1)), 1),
    "kmaxpool": (KMaxPool, 1),
}


class VDCNN(nn.Module):
    """An embedding of characters, a convolution, four stages of blocks, the largest values of each channel, three linear layers.

    cut  batches are made of texts of like length, and cut to it: read by the loop
    """

    def __init__(self, depth: int, halving: str, num_classes: int, width: float, *, shortcut: bool, cut: bool) -> None:
        super().__init__()
        self.cut = cut
        channels, (hidden,) = scaled(CHANNELS, width), scaled([HIDDEN], width)
        make, stride = HALVINGS[halving]
        self.embedding = nn.Embedding(N_CHARACTERS, EMBEDDED)
        self.stem = _conv(EMBEDDED, channels[0], 3)
        blocks, n_in = [], channels[0]
        for stage, (n_blocks, n_out) in enumerate(zip(BLOCKS[depth], channels, strict=True)):
            for i in range(n_blocks):
                first = stage > 0 and i == 0
                blocks.append(Block(n_in, n_out, make() if first else None, stride if first else 1, shortcut=shortcut))
                n_in = n_out
        self.blocks = nn.Sequential(*blocks)
        self.fc1, self.fc2 = nn.Linear(KEPT * n_in, hidden), nn.Linear(hidden, hidden)
        self.head = nn.Linear(hidden, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in")

    def features(self, x: Tensor) -> Tensor:
        out = self.stem(self.embedding(x).transpose(1, 2)[:, :, None])
        out = k_max_pool(self.blocks(out), KEPT).flatten(1)
        return F.relu(self.fc2(F.relu(self.fc1(out))))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def vdcnn(name: str, num_classes: int, example: Tensor, *, width: float = 1.0, cut: bool = False) -> nn.Module:
    """`vdcnn29-conv`, `vdcnn9-maxpool-lite`: see the head of this file.

    cut  whether batches are cut to their longest text, and made of texts of like length so that this saves something. What is
         padded changes what a net of this kind says, so the setting has to be the same for all that is compared
    """
    match = re.fullmatch(r"vdcnn(\d+)(?:-(conv|maxpool|kmaxpool))?(-lite)?(-shortcut)?", name)
    if match is None or int(match[1]) not in BLOCKS:
        raise SettingError(
            f"{name!r} names no VDCNN; there are those of {', '.join(map(str, BLOCKS))} layers, such as vdcnn9"
        )
    if example.shape != (LENGTH,):
        raise SettingError(f"{name} takes {LENGTH} characters; one example here has shape {tuple(example.shape)}")
    depth, halving, lite, shortcut = match.groups()
    return VDCNN(
        int(depth), halving or "maxpool", num_classes, width / 4 if lite else width, shortcut=bool(shortcut), cut=cut
    )
