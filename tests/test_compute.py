"""Where tensors live and how products are taken: what a machine's libraries cannot do is not asked of them."""

import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from svp.config import ComputeConfig, TrainConfig
from svp.learners import find
from svp.learners.compute import Compute, decide, free_memory, repeatable

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
from svp.learners.compute import Compute, decide, free_memory, repeatable
rng = np.random.default_rng(0)
images = rng.integers(0, 256, (127, 32, 32, 3), dtype=np.uint8)
data = Dataset.from_arrays(images, np.arange(127) % 3)
compute = Compute("cpu", "fp32", channels_last=True, threads=2)
learner = make_learner(TrainConfig(model="preact8", width=0.25, epochs=1), data, seed=0, compute=compute)
learner.fit(data, data.ids, data.labels, folder=pathlib.Path(tempfile.mkdtemp()))
"""
    assert subprocess.run([sys.executable, "-c", script], check=False).returncode == 0


# --- a GPU, as torch would describe one -----------------------------------------------------------------------------------


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What torch says of a GPU; tensors stay where they are."""
    said: dict[str, Any] = {
        "is_available": True,
        "is_bf16_supported": True,
        "get_device_name": "Abacus 100",
        "mem_get_info": (3000, 10_000),
        "memory_reserved": 6000,
        "memory_allocated": 1500,
    }
    for name in said:
        monkeypatch.setattr(torch.cuda, name, lambda *_, name=name, **__: said[name])
    monkeypatch.setattr("svp.learners.compute.require_device", lambda *_: None)
    return said


@pytest.mark.parametrize(("has", "precision"), [(True, "bf16"), (False, "fp32")])
def test_a_gpu_takes_bf16_wherever_it_has_it(gpu: dict[str, Any], has: bool, precision: str) -> None:
    gpu["is_bf16_supported"] = has
    assert decide(ComputeConfig()).precision == precision
    assert decide(ComputeConfig(precision="fp32")).precision == "fp32"


def test_a_result_names_the_gpu_that_it_depends_on(gpu: dict[str, Any]) -> None:
    facts = decide(ComputeConfig()).facts()
    assert facts["gpu"].startswith("Abacus 100, CUDA ")
    assert "gpu" not in decide(ComputeConfig(device="cpu", precision="fp32")).facts()


def test_what_torch_keeps_for_tensors_to_come_is_free(gpu: dict[str, Any]) -> None:
    assert free_memory("cuda") == 3000 + 6000 - 1500


def test_repeatable_operations_are_asked_for_within_a_block_alone() -> None:
    def switches() -> tuple[bool, ...]:
        return (
            torch.are_deterministic_algorithms_enabled(),
            torch.is_deterministic_algorithms_warn_only_enabled(),
            torch.utils.deterministic.fill_uninitialized_memory,
        )

    before = switches()
    with repeatable():
        assert switches() == (True, True, False)
    assert switches() == before
    with CPU.active():
        assert switches() == before
