"""Pre-activation residual nets for small images (He et al. 2016, "Identity mappings in deep residual networks")."""

import re
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from svp.errors import SettingError

STAGE_CHANNELS = (16, 32, 64)


class Block(nn.Module):
    """Norm, ReLU, convolution, as often as there are convolutions; beside them the input, projected where its shape changes."""

    def __init__(self, n_in: int, n_out: int, stride: int, convolutions: list[tuple[int, int, int]]) -> None:
        """convolutions: (channels, kernel size, stride) of each."""
        super().__init__()
        channels = [n_in, *(c for c, _, _ in convolutions)]
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in channels[:-1])
        self.convs = nn.ModuleList(
            nn.Conv2d(c, c_next, size, step, padding=size // 2, bias=False)
            for c, (c_next, size, step) in zip(channels, convolutions, strict=False)
        )
        changes_shape = stride != 1 or n_in != n_out
        self.shortcut = nn.Conv2d(n_in, n_out, 1, stride, bias=False) if changes_shape else None

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.norms[0](x), inplace=True)
        shortcut = x if self.shortcut is None else self.shortcut(out)
        out = self.convs[0](out)
        for norm, conv in zip(self.norms[1:], self.convs[1:], strict=True):
            out = conv(F.relu(norm(out), inplace=True))
        return cast(Tensor, out + shortcut)


def basic(n_in: int, channels: int, stride: int) -> Block:
    return Block(n_in, channels, stride, [(channels, 3, stride), (channels, 3, 1)])


def bottleneck(n_in: int, channels: int, stride: int) -> Block:
    return Block(n_in, 4 * channels, stride, [(channels, 1, 1), (channels, 3, stride), (4 * channels, 1, 1)])


class PreActResNet(nn.Module):
    """(n, c, h, w) images to (n, num_classes) logits: three stages of `n_blocks`, halving the side between them.

    `features` gives the (n, d) input of `head`: after the last ReLU and the average over the image.
    """

    def __init__(self, n_blocks: int, expansion: int, num_classes: int, n_channels: int, width: float) -> None:
        super().__init__()
        make = bottleneck if expansion == 4 else basic
        widths = [max(1, round(c * width)) for c in STAGE_CHANNELS]
        self.stem = nn.Conv2d(n_channels, widths[0], 3, padding=1, bias=False)
        blocks, n_in = [], widths[0]
        for stage, channels in enumerate(widths):
            for i in range(n_blocks):
                blocks.append(make(n_in, channels, stride=2 if stage and i == 0 else 1))
                n_in = channels * expansion
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(n_in)
        self.head = nn.Linear(n_in, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def features(self, x: Tensor) -> Tensor:
        out = F.relu(self.norm(self.blocks(self.stem(x))), inplace=True)
        return out.mean(dim=(2, 3))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def preact(name: str, num_classes: int, example: Tensor, *, width: float = 1.0) -> nn.Module:
    """`preact20`, `preact164`, `preact164-basic`: any depth of 6n + 2 (basic) or 9n + 2 (bottleneck).

    Without a suffix, a depth of 9n + 2 from 164 up is built of bottlenecks, as in the paper, any other of basic blocks where
    6n + 2 fits. Raises SettingError naming the nearest depths that can be built.
    """
    match = re.fullmatch(r"preact(\d+)(?:-(basic|bottleneck))?", name)
    if match is None:
        raise SettingError(
            f"{name!r} is no pre-activation net; write preact and a depth, such as preact20 or preact164-basic"
        )
    if example.ndim != 3:
        raise SettingError(
            f"{name} takes images (channels, height, width); one example here has shape {tuple(example.shape)}"
        )
    depth, kind = int(match[1]), match[2]
    fits = {"basic": depth >= 8 and (depth - 2) % 6 == 0, "bottleneck": depth >= 11 and (depth - 2) % 9 == 0}
    if kind is None:
        kind = "bottleneck" if fits["bottleneck"] and (depth >= 164 or not fits["basic"]) else "basic"
    if not fits[kind]:
        step = 6 if kind == "basic" else 9
        below = max(1, (depth - 2) // step)
        raise SettingError(
            f"{name}: {kind} blocks make a depth of {step}n + 2; the nearest are {step * below + 2} and {step * (below + 1) + 2}"
        )
    expansion, step = (1, 6) if kind == "basic" else (4, 9)
    return PreActResNet((depth - 2) // step, expansion, num_classes, example.shape[0], width)


def count_parameters(model: nn.Module) -> int:
    """Numbers that training moves."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)
