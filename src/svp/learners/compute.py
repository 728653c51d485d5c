"""Where tensors live and in what precision products are taken: decided once a run, and remembered."""

import os
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, replace
from itertools import chain
from typing import Any, Self

import numpy as np
import torch
from torch import Tensor, nn

from svp.config import ComputeConfig
from svp.data.base import available_memory
from svp.errors import SettingError
from svp.learners.compiled import may_repay
from svp.machine import n_cores

# On a CPU bf16 must beat fp32 by this much on a small convolution to be worth its rounding.
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
    scoring_batch  examples scored at a time: fixed, since how scores round must not depend on the memory of the machine
    gpu            the GPU and its libraries, in words; "" for a CPU
    """

    device: str
    precision: str
    channels_last: bool
    threads: int
    compile: str = "off"
    processes: int = 1
    scoring_batch: int = 512
    gpu: str = ""

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[Any]:
        """Products in bf16 where that was chosen; weights and sums stay float32."""
        kind = torch.device(self.device).type
        return torch.autocast(kind, dtype=torch.bfloat16, enabled=self.precision == "bf16")

    @contextmanager
    def active(self) -> Iterator[None]:
        """Run a block with this number of CPU threads and, on a GPU, with operations that give the same twice.

        torch's own switches and its random state (of the CPU and this device) are left as they were.
        """
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        device = torch.device(self.device)
        try:
            with (
                torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], device_type=device.type),
                torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False),
                repeatable() if device.type == "cuda" else nullcontext(),
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
        """What a training depends on, by rounding."""
        without = {"processes", "scoring_batch", *([] if self.gpu else ["gpu"])}
        return {name: value for name, value in asdict(self).items() if name not in without}


@contextmanager
def repeatable() -> Iterator[None]:
    """Operations of a GPU in the way that gives the same twice; torch warns of one that has none.

    Torch's switches are left as found; what cuBLAS reads when it is first used stays in the environment.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    enabled, warn_only = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    memory: Any = torch.utils.deterministic  # its switch is a property of the module
    filled = memory.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    memory.fill_uninitialized_memory = False  # nothing here reads what it has not written
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(enabled, warn_only=warn_only)
        memory.fill_uninitialized_memory = filled


def decide(config: ComputeConfig) -> Compute:
    """Turn "auto" into facts about this machine. Takes about a tenth of a second on a CPU."""
    device = _device(config)
    require_device(device)
    threads = config.threads or n_cores()
    precision = config.precision
    if precision == "auto":
        precision = "bf16" if _bf16_pays(device) else "fp32"
    may_compile = torch.device(device).type == "cpu" and may_repay()  # elsewhere when asked for
    compiling = "off" if config.compile == "auto" and not may_compile else config.compile
    return Compute(
        device,
        precision,
        config.channels_last,
        threads,
        compiling,
        config.processes,
        config.scoring_batch,
        gpu_of(device),
    )


def _device(config: ComputeConfig) -> str:
    """Where nets live, as torch names it."""
    if config.device != "auto":
        return config.device
    return "cuda" if torch.cuda.is_available() else "cpu"


def gpu_of(device: str) -> str:
    """The GPU and its libraries, such as "NVIDIA A100-SXM4-80GB, CUDA 12.8, cuDNN 91002"; "" for what is no GPU of CUDA."""
    if torch.device(device).type != "cuda":
        return ""
    cudnn = torch.backends.cudnn.version()  # type: ignore[no-untyped-call]
    return f"{torch.cuda.get_device_name(device)}, CUDA {torch.version.cuda}, cuDNN {cudnn}"


def free_memory(device: str) -> int | None:
    """Bytes that tensors may still take there; None where that cannot be known."""
    where = torch.device(device)
    if where.type != "cuda":
        return available_memory()
    kept = torch.cuda.memory_reserved(where) - torch.cuda.memory_allocated(where)  # by torch, for tensors to come
    return torch.cuda.mem_get_info(where)[0] + kept


def require_device(device: str, instead: str = "use auto or cpu") -> None:
    """SettingError unless tensors can be put there. instead: what can be done then."""
    try:
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        first_line = str(error).splitlines()[0]
        raise SettingError(f"compute.device {device!r} cannot be used here ({first_line}); {instead}") from None


def require_room(config: ComputeConfig) -> None:
    """SettingError unless each process that is to score has a GPU of its own, or was told how many threads it takes."""
    device, wanted = _device(config), config.processes
    if device == "cuda" and wanted > (n_gpus := torch.cuda.device_count()):
        raise SettingError(
            f"compute.processes is {wanted}, and each takes a GPU of its own, of which there are {n_gpus}; set it to {n_gpus}"
        )
    if device == "cpu" and wanted > 1 and not config.threads:
        raise SettingError(
            f"compute.processes is {wanted}, and compute.threads 0 means all {n_cores()} cores for each; "
            f"set compute.threads to {max(1, n_cores() // wanted)} at most"
        )


def _bf16_pays(device: str) -> bool:
    """On a GPU wherever it has units for bf16: what a small product takes there is the time to launch it. On a CPU as timed."""
    kind = torch.device(device).type
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return kind == "cpu" and _bf16_is_faster()


def _bf16_is_faster() -> bool:
    """Time one small training convolution both ways, in turn; the best of several runs each.

    In one thread and in its CPU time: how busy the machine is must not decide. On Windows in the time of the wall, since
    that of a thread ticks there 64 times a second, once in several runs.
    """
    with Compute("cpu", "fp32", channels_last=True, threads=1).active():
        conv = nn.Conv2d(32, 32, 3, padding=1, bias=False)
        x = torch.ones(64, 32, 16, 16).contiguous(memory_format=torch.channels_last)
        seconds = [(_seconds(conv, x, bf16=False), _seconds(conv, x, bf16=True)) for _ in range(6)]
        fp32, bf16 = np.min(seconds, axis=0)
        return bool(fp32 > WORTHWHILE * bf16)


def _seconds(conv: nn.Module, x: Tensor, *, bf16: bool) -> float:
    clock = time.thread_time if os.name == "posix" else time.perf_counter
    begin = clock()
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        out = conv(x)
    torch.autograd.grad(out.float().sum(), list(conv.parameters()))
    return clock() - begin
