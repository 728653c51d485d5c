"""Compiled steps: the same training but for rounding, resumed as it began, and a plain step where compiling cannot be done."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from svp.config import ComputeConfig, TrainConfig
from svp.errors import TrainingError
from svp.learners import inference, loop
from svp.learners.compiled import has_compiler, repays
from svp.learners.compute import Compute, decide
from svp.learners.resnet import cifar, preact, stochastic
from svp.signals import Signals

OFF = Compute("cpu", "fp32", channels_last=False, threads=1)
ON = replace(OFF, compile="on")
AUTO = replace(OFF, compile="auto")
CONFIG = TrainConfig(model="small", epochs=3, batch_size=16, lr=0.2, augment="none")


class Stopped(Exception):
    pass


class Small(nn.Module):
    """Running statistics to keep, random draws to repeat, a head to take in float32."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(48, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.2))
        self.head = nn.Linear(8, 3)

    def features(self, x: Tensor) -> Tensor:
        out: Tensor = self.body(x)
        return out

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.head(self.features(x))
        return out


def examples(n: int = 45) -> inference.Examples:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 3, n)
    images = torch.from_numpy((rng.integers(0, 90, (n, 4, 4, 3)) + 50 * labels[:, None, None, None]).astype(np.uint8))
    flat = images.float().reshape(-1, 3)
    return inference.Examples(images, torch.from_numpy(labels), np.arange(n), flat.mean(0), flat.std(0))


def fit(
    folder: Path, compute: Compute, net: nn.Module, stop_after: int | None = None, n: int = 45
) -> dict[str, Tensor]:
    """Weights after training, stopped and begun again with a new net after so many epochs."""
    given = examples(n)
    signals = Signals.create(folder / "signals", CONFIG.epochs, len(given.ids))

    def stop(record: Any, n_epochs: int) -> None:
        if record["epoch"] + 1 == stop_after:
            raise Stopped

    run = partial(
        loop.train, examples=given, config=CONFIG, seed=0, augmentation="none", compute=compute, signals=signals,
        checkpoint=folder / "checkpoint",
    )  # fmt: skip
    try:
        run(net, progress=stop)
    except Stopped:
        net = type(net)()
        run(net)
    return {name: value.clone() for name, value in net.state_dict().items()}


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> list[Callable[..., Any]]:
    """Compiling without making machine code; the list holds what was compiled."""
    made: list[Callable[..., Any]] = []
    real = torch.compile

    def compile_quickly(step: Callable[..., Any], *, dynamic: bool, options: Any) -> Any:
        made.append(step)
        return real(step, backend="aot_eager", dynamic=dynamic)

    monkeypatch.setattr(torch, "compile", compile_quickly)
    return made


@pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler on this machine")
def test_a_compiled_training_is_the_plain_one_but_for_rounding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Plain machine code: which vector instructions there are is found out by compiling, which takes longer than the rest.
    monkeypatch.setattr("torch._inductor.config.cpp.vec_isa_ok", False)
    monkeypatch.setattr("torch._inductor.config.cpp_cache_precompile_headers", False)  # repays with many kernels
    n = 3 * CONFIG.batch_size  # no smaller last batch, which would be compiled for itself
    plain, compiled = (fit(tmp_path / compute.compile, compute, Small(), n=n) for compute in (OFF, ON))
    for name, value in plain.items():
        assert torch.allclose(value.double(), compiled[name].double(), rtol=1e-3, atol=1e-4), name


def test_a_compiled_training_is_resumed_to_the_last_bit(quick: list[Any], tmp_path: Path) -> None:
    whole = fit(tmp_path / "whole", ON, Small())
    resumed = fit(tmp_path / "resumed", ON, Small(), stop_after=2)
    assert len(quick) == 3
    assert all(torch.equal(value, resumed[name]) for name, value in whole.items())


def test_compiling_beforehand_leaves_no_trace(quick: list[Any], tmp_path: Path) -> None:
    net = Small()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    loop._step(net, loop._Plan(examples(), CONFIG, 0, "none", ON), None, tmp_path)
    assert quick
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())
    assert all(parameter.grad is None for parameter in net.parameters())


@pytest.mark.parametrize("compute", [ON, AUTO])
def test_where_compiling_fails(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compute: Compute) -> None:
    def fail(graph: Any, inputs: Any) -> Any:
        raise OSError("no space for machine code")

    real = torch.compile
    monkeypatch.setattr(torch, "compile", lambda step, *, dynamic, options: real(step, backend=fail, dynamic=dynamic))
    monkeypatch.setattr(loop, "repays", lambda *_: True)
    if compute is ON:
        with pytest.raises(TrainingError, match=r"cannot be compiled here .*no space.*; set compute.compile to off"):
            fit(tmp_path / "asked", ON, Small())
    else:
        plain, fallen_back = fit(tmp_path / "plain", OFF, Small()), fit(tmp_path / "auto", AUTO, Small(), 1)
        assert all(torch.equal(value, fallen_back[name]) for name, value in plain.items())


def test_a_compiled_training_that_can_be_compiled_no_more_says_what_is_left(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Whether steps are compiled is a setting of the run by then: to change it is refused."""

    def fail(graph: Any, inputs: Any) -> Any:
        raise OSError("no compiler")

    real, backends = torch.compile, iter(["aot_eager", fail])
    monkeypatch.setattr(
        torch, "compile", lambda step, *, dynamic, options: real(step, backend=next(backends), dynamic=dynamic)
    )
    monkeypatch.setattr(loop, "repays", lambda *_: True)
    with pytest.raises(
        TrainingError, match=r"no compiler.*, and was when .*; install a C\+\+ compiler, or remove .*checkpoint"
    ):
        fit(tmp_path, AUTO, Small(), stop_after=1)


def test_a_training_goes_on_as_it_began(quick: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whatever would be decided now: half of a training compiled is no training that anybody could repeat."""
    answers = iter([False])
    monkeypatch.setattr(loop, "repays", lambda *_: next(answers))
    fit(tmp_path, AUTO, Small(), stop_after=1)
    assert not quick


def test_a_checkpoint_from_before_steps_were_compiled_goes_on_plain(
    quick: list[Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    plain = fit(tmp_path / "plain", OFF, Small())
    save = loop.save

    def save_as_before(*given: Any) -> None:
        save(*given)
        with safe_open(given[-1], "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            header = {"records": file.metadata()["records"]}
        save_file(tensors, given[-1], header)

    monkeypatch.setattr(loop, "save", save_as_before)
    answers = iter([False, True])
    monkeypatch.setattr(loop, "repays", lambda *_: next(answers))
    resumed = fit(tmp_path / "resumed", AUTO, Small(), stop_after=1)
    assert not quick
    assert all(torch.equal(value, resumed[name]) for name, value in plain.items())


def test_long_trainings_repay_compiling_and_short_ones_do_not() -> None:
    net = preact("preact20", 10, torch.zeros(3, 32, 32))
    batch = (torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))
    step = partial(loop.losses_of, compute=OFF)
    found = [repays(step, net, batch, n_seen, 1) for n_seen in (0, 10_000, 1_000_000)]
    assert found == [False, False, True]
    assert [repays(step, net, batch, 300_000, threads) for threads in (1, 64)] == [True, False]


@pytest.mark.parametrize(
    ("units", "compilers", "expected"), [(True, True, "auto"), (True, False, "off"), (False, True, "off")]
)
def test_nothing_is_compiled_unasked_without_matrix_units_and_a_compiler(
    monkeypatch: pytest.MonkeyPatch, units: bool, compilers: bool, expected: str
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: units, raising=False)
    monkeypatch.setattr("svp.learners.compiled.has_compiler", lambda: compilers)
    assert decide(ComputeConfig(device="cpu", precision="fp32", threads=1)).compile == expected
    assert decide(ComputeConfig(device="cpu", precision="fp32", threads=1, compile="on")).compile == "on"


def test_a_net_that_learns_otherwise_when_compiled_stays_plain_unless_asked() -> None:
    """Of stochastic depth: the running statistics of a compiled one are of steps that left the block out, too."""
    batch = (torch.zeros(4, 3, 32, 32), torch.zeros(4, dtype=torch.int64))
    step = partial(loop.losses_of, compute=OFF)
    example = torch.zeros(3, 32, 32)
    assert repays(step, cifar("resnet20", 10, example), batch, 10**9, 1)
    assert not repays(step, stochastic("stochastic20", 10, example), batch, 10**9, 1)
