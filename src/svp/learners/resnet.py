"""Residual nets for images, with the parameters of their papers. Two kinds of block make them all:

pre-activation   norm, ReLU, convolution, as often as there are convolutions: `preact*` and the wide `wrn-*`
post-activation  convolution, norm, ReLU, the last ReLU after the sum: `resnet*`, `resnext*`, `stochastic*`

Every net is (n, c, h, w) images to (n, num_classes) logits, and gives by `features` the (n, d) input of its `head`: the average
over the image after the last ReLU. `width` multiplies the channels of every layer.
"""

import re
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from svp.errors import SettingError

STAGE_CHANNELS = (16, 32, 64)  # of the nets for CIFAR
# ResNets for ImageNet (He et al. 2015, table 1): blocks in each of the four stages; from 50 layers on they are bottlenecks.
IMAGENET_BLOCKS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
LAST_SURVIVAL = 0.5  # of the last block of a net of stochastic depth (Huang et al. 2016)


# --- pre-activation: He et al. 2016, "Identity mappings in deep residual networks" ------------------------------------------


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
    """A stem and three stages of `n_blocks` pre-activation blocks, halving the side between them."""

    def __init__(
        self, n_blocks: int, expansion: int, num_classes: int, n_channels: int, stem: int, stages: Sequence[int]
    ) -> None:
        """stem, stages: channels of the first convolution and inside the blocks of a stage, which give `expansion` times it."""
        super().__init__()
        make = bottleneck if expansion == 4 else basic
        self.stem = nn.Conv2d(n_channels, stem, 3, padding=1, bias=False)
        blocks, n_in = [], stem
        for stage, channels in enumerate(stages):
            for i in range(n_blocks):
                blocks.append(make(n_in, channels, stride=2 if stage and i == 0 else 1))
                n_in = channels * expansion
        self.blocks = nn.Sequential(*blocks)
        self.norm = nn.BatchNorm2d(n_in)
        self.head = nn.Linear(n_in, num_classes)
        _draw_convolutions(self)

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
    depth_given, kind = _parts(r"preact(\d+)(?:-(basic|bottleneck))?", name, "preact20 or preact164-basic")
    check_images(name, example)
    depth = int(depth_given)
    if not kind:
        fits_basic, fits_bottleneck = depth >= 8 and (depth - 2) % 6 == 0, depth >= 11 and (depth - 2) % 9 == 0
        kind = "bottleneck" if fits_bottleneck and (depth >= 164 or not fits_basic) else "basic"
    expansion, step = (1, 6) if kind == "basic" else (4, 9)
    n_blocks = _blocks_a_stage(name, f"{kind} blocks", depth, step, 2)
    stem, *stages = scaled((STAGE_CHANNELS[0], *STAGE_CHANNELS), width)
    return PreActResNet(n_blocks, expansion, num_classes, example.shape[0], stem, stages)


def wide(name: str, num_classes: int, example: Tensor, *, width: float = 1.0) -> nn.Module:
    """`wrn-28-10`: 28 layers (any 6n + 4), the stages 10 times as wide; without dropout.

    Zagoruyko and Komodakis 2016, "Wide residual networks". Raises SettingError naming the nearest depths that can be built.
    """
    depth, factor = map(int, _parts(r"wrn-(\d+)-(\d+)", name, "wrn-16-4"))
    check_images(name, example)
    n_blocks = _blocks_a_stage(name, "wide ResNets", depth, 6, 4)
    if not factor:
        raise SettingError(
            f"{name}: the last number multiplies the channels; it must be 1 or more, such as wrn-{depth}-4"
        )
    stem, *stages = scaled((STAGE_CHANNELS[0], *(factor * c for c in STAGE_CHANNELS)), width)
    return PreActResNet(n_blocks, 1, num_classes, example.shape[0], stem, stages)


# --- post-activation: He et al. 2015, "Deep residual learning for image recognition" ----------------------------------------


class PostBlock(nn.Module):
    """Convolution, norm, ReLU; the last ReLU after the sum with the input, which `downsample` brings to the new shape.

    survival  chance that a training step runs the convolutions at all; at rest they always run, and count by so much
    Names of weights are torchvision's: conv1, bn1, conv2, bn2, ..., downsample.0, downsample.1.
    """

    def __init__(self, convolutions: Sequence[nn.Conv2d], downsample: nn.Module | None, survival: float = 1.0) -> None:
        super().__init__()
        for i, conv in enumerate(convolutions, 1):
            self.add_module(f"conv{i}", conv)
            self.add_module(f"bn{i}", nn.BatchNorm2d(conv.out_channels))
        self.downsample = downsample
        self.survival = survival
        self.otherwise_compiled = survival < 1  # see below: read by svp.learners.compiled
        self._n_convolutions = len(convolutions)

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        # From torch's own generator, which the loop seeds each epoch.
        kept = torch.rand(()) < self.survival if self.training and self.survival < 1 else None
        # A compiled step takes no branches: it runs what is left out, and multiplies it by 0. So the running statistics of its
        # norms are of all steps; of plain steps they are of those that kept the block.
        if kept is not None and not torch.compiler.is_compiling() and not kept:
            # Nothing, from every weight: gradients of zeros, so that decay and momentum go on as in the authors' code.
            nothing = torch.stack([0 * parameter.sum() for parameter in self.parameters()]).sum()
            return F.relu(shortcut + nothing)
        out = x
        for i in range(1, self._n_convolutions + 1):
            out = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(out))
            if i < self._n_convolutions:
                out = F.relu(out, inplace=True)
        if self.survival < 1:
            out = out * (self.survival if kept is None else kept)
        return F.relu(out + shortcut, inplace=True)


class Padded(nn.Module):
    """A shortcut without weights: every `stride`-th pixel, and zeros for the channels that are new."""

    def __init__(self, n_in: int, n_out: int, stride: int) -> None:
        super().__init__()
        self.n_new, self.stride = n_out - n_in, stride

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, 0, self.n_new))


def projected(n_in: int, n_out: int, stride: int) -> nn.Module:
    """A shortcut with weights: a 1x1 convolution and a norm."""
    return nn.Sequential(nn.Conv2d(n_in, n_out, 1, stride, bias=False), nn.BatchNorm2d(n_out))


class ResNet(nn.Module):
    """A stem and stages of post-activation blocks. Names of weights are torchvision's: conv1, bn1, layer1.0.conv1, ..., fc."""

    def __init__(self, stem: nn.Conv2d, pool: nn.Module, stages: Sequence[nn.Sequential], head: nn.Linear) -> None:
        super().__init__()
        self.conv1, self.bn1, self.maxpool = stem, nn.BatchNorm2d(stem.out_channels), pool
        for i, stage in enumerate(stages, 1):
            self.add_module(f"layer{i}", stage)
        self._n_stages = len(stages)
        self.fc = head
        _draw_convolutions(self)

    def features(self, x: Tensor) -> Tensor:
        out = self.maxpool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        for i in range(1, self._n_stages + 1):
            out = getattr(self, f"layer{i}")(out)
        return cast(Tensor, out.mean(dim=(2, 3)))

    def head(self, features: Tensor) -> Tensor:
        logits: Tensor = self.fc(features)
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def cifar(name: str, num_classes: int, example: Tensor, *, width: float = 1.0) -> nn.Module:
    """`resnet20`, `resnet110`, `resnet1202`: any depth of 6n + 2 but those that ImageNet's nets have (50 and 152).

    Raises SettingError naming the nearest depths that can be built.
    """
    (depth,) = _parts(r"resnet(\d+)", name, "resnet20")
    check_images(name, example)
    others = ", ".join(map(str, IMAGENET_BLOCKS))
    n_blocks = _blocks_a_stage(name, f"apart from ImageNet's {others}, basic blocks", int(depth), 6, 2)
    return _of_basic_blocks(n_blocks, num_classes, example, width, projected)


def stochastic(name: str, num_classes: int, example: Tensor, *, width: float = 1.0) -> nn.Module:
    """`stochastic110`: a ResNet for CIFAR whose blocks are left out at random while it is trained, later ones more often.

    The chance to stay falls in a straight line from 1 at the input to 0.5 in the last block; shortcuts have no weights.
    Huang et al. 2016, "Deep networks with stochastic depth". Raises SettingError naming the nearest depths that can be built.
    """
    (depth,) = _parts(r"stochastic(\d+)", name, "stochastic56")
    check_images(name, example)
    n_blocks = _blocks_a_stage(name, "basic blocks", int(depth), 6, 2)
    return _of_basic_blocks(n_blocks, num_classes, example, width, Padded, LAST_SURVIVAL)


def resnext(name: str, num_classes: int, example: Tensor, *, width: float = 1.0) -> nn.Module:
    """`resnext29-8-64`: 29 layers (any 9n + 2), 8 groups, 64 channels a group in the first stage.

    Xie et al. 2017, "Aggregated residual transformations for deep neural networks"; `width` multiplies the channels a group and
    around the blocks, never the groups. Raises SettingError naming the nearest depths that can be built.
    """
    depth, groups, a_group = map(int, _parts(r"resnext(\d+)-(\d+)-(\d+)", name, "resnext29-8-64"))
    check_images(name, example)
    n_blocks = _blocks_a_stage(name, "ResNeXts for CIFAR", depth, 9, 2)
    if not groups or not a_group:
        raise SettingError(f"{name}: groups and channels a group must be 1 or more, such as resnext{depth}-8-64")
    stem, *around = scaled((64, 256, 512, 1024), width)
    inner = [groups * channels for channels in scaled((a_group, 2 * a_group, 4 * a_group), width)]

    def convolutions(stage: int, n_in: int, stride: int) -> list[nn.Conv2d]:
        return _bottleneck(n_in, inner[stage], around[stage], stride, groups)

    stages = _stages([n_blocks] * 3, stem, convolutions, projected)
    return ResNet(_conv(example.shape[0], stem, 3), nn.Identity(), stages, nn.Linear(around[-1], num_classes))


def imagenet(name: str, num_classes: int, example: Tensor, *, width: float = 1.0) -> nn.Module:
    """`resnet18`, 34, 50, 101, 152: torchvision's nets, weight for weight, so that its weight files fit.

    With `-small` the same net for small images: a 3x3 convolution in place of the 7x7 one that halves the side, and no pooling
    after it. A bottleneck halves the side in its 3x3 convolution, as torchvision's do.
    """
    depth, small = _parts(r"resnet(\d+)(-small)?", name, "resnet18")
    check_images(name, example)
    blocks = IMAGENET_BLOCKS[int(depth)]
    channels = scaled((64, 128, 256, 512), width)
    expansion = 4 if int(depth) >= 50 else 1

    def convolutions(stage: int, n_in: int, stride: int) -> list[nn.Conv2d]:
        if expansion == 1:
            return _basic(n_in, channels[stage], stride)
        return _bottleneck(n_in, channels[stage], expansion * channels[stage], stride)

    stages = _stages(blocks, channels[0], convolutions, projected)
    head = nn.Linear(expansion * channels[-1], num_classes)
    if small:
        return ResNet(_conv(example.shape[0], channels[0], 3), nn.Identity(), stages, head)
    return ResNet(_conv(example.shape[0], channels[0], 7, 2), nn.MaxPool2d(3, 2, padding=1), stages, head)


# --- what they share --------------------------------------------------------------------------------------------------------


def _of_basic_blocks(
    n_blocks: int,
    num_classes: int,
    example: Tensor,
    width: float,
    shortcut: Callable[[int, int, int], nn.Module],
    last_survival: float = 1.0,
) -> ResNet:
    """The ResNet for CIFAR: three stages of 16, 32 and 64 channels."""
    channels = scaled(STAGE_CHANNELS, width)

    def convolutions(stage: int, n_in: int, stride: int) -> list[nn.Conv2d]:
        return _basic(n_in, channels[stage], stride)

    stages = _stages([n_blocks] * 3, channels[0], convolutions, shortcut, last_survival)
    return ResNet(_conv(example.shape[0], channels[0], 3), nn.Identity(), stages, nn.Linear(channels[-1], num_classes))


def _stages(
    blocks: Sequence[int],
    n_in: int,
    convolutions: Callable[[int, int, int], list[nn.Conv2d]],
    shortcut: Callable[[int, int, int], nn.Module],
    last_survival: float = 1.0,
) -> list[nn.Sequential]:
    """Stages of so many blocks, each but the first begun by halving the side.

    convolutions   of a block: (stage, n_in, stride) -> list
    shortcut       where the shape changes: (n_in, n_out, stride) -> module
    last_survival  of the last block; those before it have more, in a straight line from 1
    """
    stages, n_before = [], 0
    for stage, n_blocks in enumerate(blocks):
        row = []
        for i in range(n_blocks):
            stride = 2 if stage and i == 0 else 1
            inside = convolutions(stage, n_in, stride)
            n_out = inside[-1].out_channels
            n_before += 1
            survival = 1 - n_before / sum(blocks) * (1 - last_survival)
            row.append(
                PostBlock(inside, shortcut(n_in, n_out, stride) if stride > 1 or n_in != n_out else None, survival)
            )
            n_in = n_out
        stages.append(nn.Sequential(*row))
    return stages


def _basic(n_in: int, channels: int, stride: int) -> list[nn.Conv2d]:
    return [_conv(n_in, channels, 3, stride), _conv(channels, channels, 3)]


def _bottleneck(n_in: int, inner: int, n_out: int, stride: int, groups: int = 1) -> list[nn.Conv2d]:
    return [_conv(n_in, inner, 1), _conv(inner, inner, 3, stride, groups), _conv(inner, n_out, 1)]


def _conv(n_in: int, n_out: int, size: int, stride: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, size, stride, padding=size // 2, groups=groups, bias=False)


def _draw_convolutions(net: nn.Module) -> None:
    """Initial weights of the convolutions: normal, scaled by what goes out (He et al. 2015)."""
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def scaled(channels: Sequence[int], width: float) -> list[int]:
    """Channels times `width`, at least one each."""
    return [max(1, round(c * width)) for c in channels]


def _parts(pattern: str, name: str, such_as: str) -> tuple[str, ...]:
    """What stands between the letters of a name."""
    match = re.fullmatch(pattern, name)
    if match is None:
        raise SettingError(f"{name!r} names no net of this family; write it like {such_as}")
    return match.groups()


def check_images(name: str, example: Tensor) -> None:
    """SettingError unless an example is an image."""
    if example.ndim != 3:
        raise SettingError(
            f"{name} takes images (channels, height, width); one example here has shape {tuple(example.shape)}"
        )


def _blocks_a_stage(name: str, what: str, depth: int, step: int, rest: int) -> int:
    """n of a depth of step * n + rest."""
    n, left = divmod(depth - rest, step)
    if n < 1 or left:
        below = max(1, n)
        near = f"{step * below + rest} and {step * (below + 1) + rest}"
        raise SettingError(f"{name}: {what} make a depth of {step}n + {rest}; the nearest are {near}")
    return n
