"""A small net for the matrix units of today's processors, as a cheap proxy for images of 32 to 64 pixels.

Much of the time of a small ResNet goes into norms and sums of thin, large maps, which wait for memory. Here the first convolution
makes each patch of pixels one pixel of 32 channels: all others work on maps of a quarter of the size, with channels in multiples
of 32, as the tiles of these units want them, and there are five norms in all.
"""

from itertools import pairwise
from typing import cast

from torch import Tensor, nn

from svp.errors import SettingError
from svp.learners.resnet import check_images, scaled

CHANNELS = (32, 64, 128)  # of the stem and the two stages


class Added(nn.Module):
    """What a part makes of its input, added to it."""

    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, x + self.part(x))


class PatchNet(nn.Module):
    """(n, c, h, w) images to (n, num_classes) logits. `features` gives the (n, d) input of `head`, none below 0.

    A stage: a convolution that doubles the channels, a maximum that halves the side, `depth` convolutions with a shortcut each.
    """

    def __init__(self, num_classes: int, n_channels: int, channels: list[int], patch: int, depth: int) -> None:
        super().__init__()
        parts: list[nn.Module] = [_unit(nn.Conv2d(n_channels, channels[0], patch, patch, bias=False))]
        for n_in, n_out in pairwise(channels):
            # ceil_mode: a side of 1 stays 1
            parts += [_unit(_conv(n_in, n_out)), nn.MaxPool2d(2, ceil_mode=True)]
            parts += [Added(_unit(_conv(n_out, n_out))) for _ in range(depth)]
        self.body = nn.Sequential(*parts)
        self.head = nn.Linear(channels[-1], num_classes)

    def features(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.body(x).mean(dim=(2, 3)))

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(x))
        return logits


def patchnet(
    name: str, num_classes: int, example: Tensor, *, width: float = 1.0, patch: int = 2, depth: int = 1
) -> nn.Module:
    """`patchnet`: patches of `patch` pixels a side (4 for images of 64), `depth` convolutions with a shortcut a stage.

    Pixels that fill no patch at the right and lower edge are not seen. Raises SettingError for numbers that make no net.
    """
    check_images(name, example)
    for option, value, least in (("patch", patch, 1), ("depth", depth, 0)):
        if not isinstance(value, int) or value < least:
            raise SettingError(f"{name}: the option {option} must be a whole number, {least} or more; got {value!r}")
    return PatchNet(num_classes, example.shape[0], scaled(CHANNELS, width), patch, depth)


def _conv(n_in: int, n_out: int) -> nn.Conv2d:
    return nn.Conv2d(n_in, n_out, 3, padding=1, bias=False)


def _unit(conv: nn.Conv2d) -> nn.Sequential:
    return nn.Sequential(conv, nn.BatchNorm2d(conv.out_channels), nn.ReLU(inplace=True))
