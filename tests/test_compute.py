"""Where tensors live and how products are taken: what a machine's libraries cannot do is not asked of them."""

import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn

from svp.config import TrainConfig
from svp.learners import find
from svp.learners.compute import Compute

CPU = Compute("cpu", "fp32", channels_last=True, threads=2)


def net(name: str, width: float) -> nn.Module:
    made: nn.Module = find(TrainConfig(model=name, width=width)).make(10, torch.zeros(3, 32, 32))
    return made


@pytest.mark.parametrize(
    ("model", "safe"),
    [
        (net("preact8", 1.0), True),
        (net("preact8", 0.5), False),  # its shortcuts are strided 1x1 convolutions of 8 and 16 channels
        (nn.Conv2d(15, 32, 1, stride=2), False),
        (nn.Conv2d(16, 32, 1, stride=2), True),
        (nn.Conv2d(32, 32, 1, stride=2, groups=4), False),
        (nn.Conv2d(4, 32, 1), True),
        (nn.Conv2d(4, 32, 3, stride=2), True),
        (nn.Linear(4, 2), True),
    ],
)
def test_narrow_strided_shortcuts_are_not_taken_channels_last_in_float32(model: nn.Module, safe: bool) -> None:
    assert CPU.safe_for(model).channels_last == safe
    assert replace(CPU, precision="bf16").safe_for(model).channels_last
    assert replace(CPU, device="cuda").safe_for(model).channels_last
    assert not replace(CPU, channels_last=False).safe_for(model).channels_last


def test_a_net_with_weights_of_volumes_is_placed_as_it_is() -> None:
    """torch knows channels last of images alone, and refuses to place any other."""
    volumes = nn.Sequential(nn.Unflatten(1, (1, 3)), nn.Conv3d(1, 4, 3, padding=1), nn.Flatten(), nn.LazyLinear(2))
    x = torch.ones(2, 3, 8, 8)
    expected = volumes(x)
    for precision in ("fp32", "bf16"):
        compute = replace(CPU, precision=precision).safe_for(volumes)
        assert torch.equal(compute.place(volumes)(x), expected)


def test_a_narrow_net_trains_in_float32_to_the_end() -> None:
    """In a process of its own: without that care it is killed by SIGSEGV or SIGABRT, as a rule in its first step."""
    script = """
import numpy as np, pathlib, tempfile
from svp import Dataset, TrainConfig
from svp.learners import make_learner
from svp.learners.compute import Compute
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (127, 32, 32, 3), dtype=np.uint8)
data = Dataset.from_arrays(images, np.arange(127) % 3)
compute = Compute("cpu", "fp32", channels_last=True, threads=2)
learner = make_learner(TrainConfig(model="preact8", width=0.25, epochs=1), data, seed=0, compute=compute)
learner.fit(data, data.ids, data.labels, folder=pathlib.Path(tempfile.mkdtemp()))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0
