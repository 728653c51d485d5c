"""What docs/models.md takes from the table of models: `python -m tests.models_page` writes it anew, a test holds it.

It stands between `<!-- made: NAME -->` and `<!-- end -->`; the rest of the page is written by hand.
"""

import re
from functools import cache
from pathlib import Path

import torch
from torch import Tensor, nn

from svp.config import TrainConfig
from svp.learners import LEARNERS, find

PAGE = Path(__file__).parents[1] / "docs/models.md"
MADE = re.compile(r"(<!-- made: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
SMALL = (3, 32)  # channels and side of an image
NAMES = {  # row of the table: (how its names are written, where the net is from, channels and side of an image, classes)
    "preact": ("`preactD`, `preactD-basic`, `preactD-bottleneck`", "He et al. 2016, arXiv 1603.05027", SMALL, 10),
    "patchnet": ("`patchnet`", "svp itself", SMALL, 10),
    "wide": ("`wrn-D-K`", "Zagoruyko and Komodakis 2016, arXiv 1605.07146", SMALL, 10),
    "imagenet": ("`resnetD`, `resnetD-small`", "He et al. 2015, arXiv 1512.03385", (3, 224), 1000),
    "cifar": ("`resnetD`", "He et al. 2015, arXiv 1512.03385", SMALL, 10),
    "resnext": ("`resnextD-G-C`", "Xie et al. 2017, arXiv 1611.05431", SMALL, 10),
    "stochastic": ("`stochasticD`", "Huang et al. 2016, arXiv 1603.09382", SMALL, 10),
}


def filled(page: str) -> str:
    """The page with its made parts as the table of models has them now."""
    parts = {"models": table, "defaults": defaults}
    return MADE.sub(lambda found: f"{found[1]}{parts[found[2]]()}\n{found[3]}", page)


def examples() -> list[str]:
    return re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL)


def table() -> str:
    lines = [
        "| names | example | image, classes | parameters | MACs | features | source |",
        "|---|---|---|---|---|---|---|",
    ]
    for row, (written, source, image, classes) in NAMES.items():
        shown = [
            name for name in LEARNERS[row].names if not name.endswith(("1001", "1202"))
        ]  # these take long to count
        for i, name in enumerate(shown):
            # The stem for small images is for these.
            shape, n = (SMALL, 10) if name.endswith("-small") else (image, classes)
            parameters, macs, features = facts(name, n, shape)
            numbers = f"{parameters:,} | {macs / 1e6:,.1f}M | {features}"
            lines.append(
                f"| {'' if i else written} | `{name}` | {shape[1]} px, {n} | {numbers} | {'' if i else source} |"
            )
    return "\n".join(lines)


def defaults() -> str:
    """What a model is trained with where nothing else is set, as a recipe spells it."""
    lines = ["| names | defaults of its own |", "|---|---|"]
    for row in LEARNERS.values():
        if row.defaults:
            toml = TrainConfig.make(dict(row.defaults)).to_toml().splitlines()
            own = ", ".join(f"`{line}`" for line in toml if line.partition(" ")[0] in row.defaults)
            lines.append(f"| {', '.join(f'`{name}`' for name in row.names)} | {own} |")
    return "\n".join(lines)


@cache
def facts(name: str, classes: int = 10, image: tuple[int, int] = SMALL) -> tuple[int, int, int]:
    """Parameters, multiplications of one forward pass and size of the features; image: (channels, side)."""
    with torch.device("meta"):
        example = torch.zeros(image[0], image[1], image[1])
        net = find(TrainConfig(model=name)).make(classes, example)
        return count_parameters(net), *_measured(net, example)


def count_parameters(model: nn.Module) -> int:
    """Numbers that training moves."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def _measured(net: nn.Module, example: Tensor) -> tuple[int, int]:
    """Multiplications of one forward pass in convolutions and linear layers, and the size of the features."""
    macs, features = 0, 0

    def count(layer: nn.Module, given: tuple[Tensor, ...], out: Tensor) -> None:
        nonlocal macs, features
        macs += out[0].numel() * layer.weight[0].numel()  # type: ignore[union-attr, index, operator]
        if isinstance(layer, nn.Linear):
            features = layer.in_features

    for layer in net.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            layer.register_forward_hook(count)
        elif isinstance(layer, nn.BatchNorm2d):
            layer.forward = lambda x: x  # type: ignore[method-assign]  # multiplies nothing that counts here, and takes long
    net.eval()(example[None])
    return macs, features


if __name__ == "__main__":
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
