"""Pre-activation ResNets: the sizes of the paper's nets, and what can be built."""

import pytest
import torch
from torch import nn

from svp.config import TrainConfig
from svp.errors import SettingError, UnknownName
from svp.learners import find
from svp.learners.resnet import Block, PreActResNet, count_parameters, preact

IMAGE = torch.zeros(3, 32, 32)
SIZES = {
    "preact8": 77_850,
    "preact14": 175_066,
    "preact20": 272_282,
    "preact56": 855_578,
    "preact110": 1_730_522,
    "preact164": 1_703_258,
    "preact164-basic": 2_605_466,
}


@pytest.mark.parametrize(("name", "n_parameters"), SIZES.items())
def test_sizes_are_those_of_the_paper(name: str, n_parameters: int) -> None:
    assert count_parameters(preact(name, 10, IMAGE)) == n_parameters


def test_depth_counts_the_layers_on_the_longest_path() -> None:
    for name, depth in (
        ("preact8", 8),
        ("preact20", 20),
        ("preact164", 164),
        ("preact164-basic", 164),
        ("preact20-bottleneck", 20),
    ):
        net = preact(name, 10, IMAGE)
        convolutions = [m for block in net.blocks for m in block.convs]
        assert 2 + len(convolutions) == depth  # the stem, and the head


def test_a_thousand_layers_build() -> None:
    with torch.device("meta"):
        net = preact("preact1001", 10, IMAGE)
    assert count_parameters(net) == 10_327_706
    assert len(net.blocks) == 333


def test_a_suffix_overrides_the_kind_of_block() -> None:
    def kinds(name: str) -> set[int]:
        return {len(block.convs) for block in preact(name, 10, IMAGE).blocks}

    assert kinds("preact20") == kinds("preact164-basic") == {2}
    assert kinds("preact164") == kinds("preact20-bottleneck") == kinds("preact29") == kinds("preact11") == {3}


@pytest.mark.parametrize("name", ["preact8", "preact11-bottleneck"])
def test_logits_are_the_head_of_the_features(name: str) -> None:
    net = preact(name, 7, torch.zeros(2, 16, 12), width=0.25).eval()
    x = torch.randn(4, 2, 16, 12, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        features = net.features(x)
        assert features.shape == (4, net.head.in_features)
        assert features.min() >= 0  # after the last ReLU
        assert torch.equal(net(x), net.head(features))
        assert net(x).shape == (4, 7)


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


def test_width_multiplies_every_layer() -> None:
    wide, narrow = preact("preact8", 10, IMAGE, width=2), preact("preact8", 10, IMAGE, width=0.25)
    assert [conv.out_channels for conv in wide.modules() if isinstance(conv, nn.Conv2d)] == [
        8 * conv.out_channels for conv in narrow.modules() if isinstance(conv, nn.Conv2d)
    ]
    assert count_parameters(preact("preact8", 10, IMAGE, width=0.001)) > 0  # never without channels


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


def test_names_beyond_the_table_name_the_nearest() -> None:
    with pytest.raises(UnknownName, match="did you mean 'preact20'"):
        find(TrainConfig(model="peact20"))
    with pytest.raises(UnknownName, match="did you mean 'logistic'"):
        find(TrainConfig(model="logistics"))
    with pytest.raises(UnknownName):
        find(TrainConfig(model="preact20-basics"))
