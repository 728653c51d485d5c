"""Pre-activation ResNets: their blocks and stages, and what can be built; tests/test_models.py holds what every net promises."""

import pytest
import torch
from torch import nn

from svp.errors import SettingError
from svp.learners.resnet import Block, PreActResNet, preact

IMAGE = torch.zeros(3, 32, 32)


def test_depth_counts_the_layers_on_the_longest_path() -> None:
    for name, depth in (
        ("preact8", 8),
        ("preact20", 20),
        ("preact164", 164),
        ("preact164-basic", 164),
        ("preact20-bottleneck", 20),
    ):
        with torch.device("meta"):
            net = preact(name, 10, IMAGE)
        convolutions = [m for block in net.blocks for m in block.convs]
        assert 2 + len(convolutions) == depth  # the stem, and the head


def test_a_suffix_overrides_the_kind_of_block() -> None:
    def kinds(name: str) -> set[int]:
        with torch.device("meta"):
            return {len(block.convs) for block in preact(name, 10, IMAGE).blocks}

    assert kinds("preact20") == kinds("preact164-basic") == {2}
    assert kinds("preact164") == kinds("preact20-bottleneck") == kinds("preact29") == kinds("preact11") == {3}


def test_stages_halve_the_side_and_double_the_channels() -> None:
    net = preact("preact14", 10, IMAGE)
    x, shapes = net.stem(torch.zeros(1, *IMAGE.shape)), []
    for block in net.blocks:
        x = block(x)
        shapes.append(tuple(x.shape[1:]))
    assert shapes == [(16, 32, 32)] * 2 + [(32, 16, 16)] * 2 + [(64, 8, 8)] * 2


def test_a_block_without_change_of_shape_adds_its_input() -> None:
    block = Block(4, 4, 1, [(4, 3, 1), (4, 3, 1)]).eval()
    for conv in block.convs:
        nn.init.zeros_(conv.weight)
    x = torch.randn(2, 4, 5, 5, generator=torch.Generator().manual_seed(1))
    expected = x.clone()
    assert torch.equal(block(x), expected)
    assert torch.equal(x, expected)  # the first ReLU works in place, on a copy that is its own


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("preact21", ["6n + 2", "20 and 26"]),
        ("preact7", ["8 and 14"]),
        ("preact2", ["8 and 14"]),
        ("preact0", ["8 and 14"]),
        ("preact20-bottleneck", None),
        ("preact21-bottleneck", ["9n + 2", "20 and 29"]),
        ("preact165-basic", ["164 and 170"]),
        ("preact2-bottleneck", ["11 and 20"]),
    ],
)
def test_depths_that_cannot_be_built_name_the_nearest(name: str, words: list[str] | None) -> None:
    if words is None:
        assert isinstance(preact(name, 10, IMAGE), PreActResNet)
        return
    with pytest.raises(SettingError) as caught:
        preact(name, 10, IMAGE)
    for word in words:
        assert word in str(caught.value)


def test_every_depth_is_built_or_refused_with_depths_that_build() -> None:
    with torch.device("meta"):
        named = set()
        for suffix in ("", "-basic", "-bottleneck"):
            for depth in range(24):
                try:
                    preact(f"preact{depth}{suffix}", 10, IMAGE)
                except SettingError as error:
                    named |= {
                        f"preact{near}{suffix}" for near in str(error).rsplit("nearest are ", 1)[1].split(" and ")
                    }
        assert len(named) > 6
        for name in named:
            preact(name, 10, IMAGE)


def test_rows_are_no_images() -> None:
    with pytest.raises(SettingError, match=r"takes images .* shape \(64,\)"):
        preact("preact8", 10, torch.zeros(64))
