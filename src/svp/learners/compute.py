"""Where tensors live and in what precision products are taken: decided once a run, by measurement, and remembered."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from svp.config import ComputeConfig
from svp.data.base import available_memory
from svp.errors import SettingError
from svp.learners.compiled import has_compiler
from svp.machine import n_cores

# bf16 must beat fp32 by this much on a small convolution to be worth its rounding.
WORTHWHILE = 1.3


@dataclass(frozen=True)
class Compute:
    """The switches that a result depends on by rounding.

    device         as torch names it
    precision      "fp32" or "bf16"
    channels_last  memory layout of images
    threads        of the CPU
    compile        "on", "off", or "auto": each training that is long enough to repay it
    processes      that score; no result depends on it
    """

    device: str
    precision: str
    channels_last: bool
    threads: int
    compile: str = "off"
    processes: int = 1

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[Any]:
        """Products in bf16 where that was chosen; weights and sums stay float32."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run a block with this number of CPU threads and, on a GPU, with convolutions that give the same twice.

        torch's own switches and its random state (of the CPU and this device) are left as they were.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        device = torch.device(self.device)
        try:
            with (
                torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type=device.type),
                torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
            ):
                yield
        finally:
            torch.set_num_threads(before)

    def safe_for(self, model: nn.Module) -> Self:
        """The same but for the layout, where the model cannot have this one: torch refuses it to weights of volumes (Conv3d), and
        it would let some convolutions write outside their memory.

        oneDNN takes the weight gradient of a strided 1x1 convolution of less than 16 channels, in float32 and channels last,
        in a workspace that is too small for it (its issue 6035): the process crashes, or goes on with a damaged heap.
        """
        narrow = any(
            isinstance(conv, nn.Conv2d)
            and conv.kernel_size == (1, 1)
            and conv.stride != (1, 1)
            and conv.in_channels // conv.groups < 16
            for conv in model.modules()
        )
        harmed = narrow and self.precision == "fp32" and torch.device(self.device).type == "cpu"
        tensors = chain(model.parameters(), model.buffers())
        volumes = any(not nn.parameter.is_lazy(tensor) and tensor.ndim == 5 for tensor in tensors)
        return replace(self, channels_last=self.channels_last and not (harmed or volumes))

    def place(self, model: nn.Module) -> nn.Module:
        """Move a model here, its convolution weights in the chosen layout."""
        return model.to(self.device, memory_format=self.memory_format)  # type: ignore[call-overload, no-any-return]

    def facts(self) -> dict[str, Any]:
        """What a result depends on, by rounding."""
        return {name: value for name, value in asdict(self).items() if name != "processes"}


def decide(config: ComputeConfig) -> Compute:
    """Turn "auto" into facts about this machine. Takes about a tenth of a second on a CPU."""
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    require_device(device)
    threads = config.threads or n_cores()
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if _bf16_is_faster(device) else "fp32"
    can_compile = torch.device(device).type == "cpu" and has_compiler()  # elsewhere when asked for
    compiling = "off" if config.compile == "auto" and not can_compile else config.compile
    return Compute(device, precision, config.channels_last, threads, compiling, config.processes)


def free_memory(device: str) -> int | None:
    """Bytes that tensors may still take there; None where that cannot be known."""
    where = torch.device(device)
    return torch.cuda.mem_get_info(where)[0] if where.type == "cuda" else available_memory()


def require_device(device: str, instead: str = "use auto or cpu") -> None:
    """SettingError unless tensors can be put there. instead: what can be done then."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise SettingError(f"compute.device {device!r} cannot be used here ({first_line}); {instead}") from None


def _bf16_is_faster(device: str) -> bool:
    """Time one small training convolution both ways, in turn; the best of several runs each.

    On a CPU in one thread and in its CPU time: how busy the machine is must not decide. On Windows in the time of the wall, since
    that of a thread ticks there 64 times a second, once in several runs.
    """
    kind = torch.device(device).type
    if kind not in ("cpu", "cuda") or (kind == "cuda" and not torch.cuda.is_bf16_supported(including_emulation=False)):
        return False
    with Compute(device, "fp32", channels_last=True, threads=1).active():  # with the switches of a training
        conv = nn.Conv2d(32, 32, 3, padding=1, bias=False).to(device)
        x = torch.ones(64, 32, 16, 16, device=device).contiguous(memory_format=torch.channels_last)
        seconds = [(_seconds(conv, x, bf16=False), _seconds(conv, x, bf16=True)) for _ in range(6)]
        fp32, bf16 = np.min(seconds, axis=0)
        return bool(fp32 > WORTHWHILE * bf16)


def _seconds(conv: nn.Module, x: Tensor, *, bf16: bool) -> float:
    clock = time.thread_time if x.device.type == "cpu" and os.name == "posix" else time.perf_counter
    begin = clock()
    with torch.autocast(x.device.type, dtype=torch.bfloat16, enabled=bf16):
        out = conv(x)
    (gradient,) = torch.autograd.grad(out.float().sum(), list(conv.parameters()))
    float(gradient.sum())  # waits for the device
    return clock() - begin
