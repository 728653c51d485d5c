"""The step of training, compiled by `torch.compile`: whether that repays, and a plain step where it cannot be done."""

import os
import shutil
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from svp.errors import TrainingError, one_line

Step = Callable[[nn.Module, Tensor, Tensor], tuple[Tensor, Tensor]]  # (model, x, labels) -> (b, c) logits, (b,) losses

# For "auto", on the safe side of what was measured on CPUs with matrix units (docs/log.md, 2026-11-22).
_PLAIN_FLOPS = 1e11  # a second and thread, without compiling
_SAVED = 0.3  # share of those seconds that a compiled step saves
_SECONDS_A_LAYER = 2.0  # to compile one layer for both sizes of batch, with nothing cached


def may_repay() -> bool:
    """Whether "auto" may compile steps for this CPU: it has matrix units (AMX) and a compiler.

    Without those units products take most of a step, and fusing the rest was measured to save up to a sixth of it for the
    smallest net and to cost as much for others (docs/log.md, 2026-11-23).
    """
    has_matrix_units: Callable[[], bool] = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    return has_matrix_units() and has_compiler()


def has_compiler() -> bool:
    """Whether a C++ compiler is found, without which nothing can be compiled for a CPU."""
    return any(shutil.which(name) for name in (os.environ.get("CXX"), "g++", "clang++") if name)


def repays(step: Step, model: nn.Module, batch: tuple[Tensor, Tensor], n_seen: int, threads: int) -> bool:
    """Whether `n_seen` examples like those of `batch` are work enough to save the seconds that compiling takes.

    Estimated from products and layers alone, never timed, so that it is the same on every machine with so many threads.
    A model with a part that is `otherwise_compiled`, by more than rounding, never does. Leaves the model in evaluation mode.
    """
    if any(getattr(part, "otherwise_compiled", False) for part in model.modules()):
        return False
    model.eval()
    with torch.no_grad(), FlopCounterMode(display=False) as counter:
        step(model, *batch)
    flops = 3 * counter.get_total_flops() / len(batch[1]) * n_seen  # a backward takes two forwards
    layers = sum(any(True for _ in part.parameters(recurse=False)) for part in model.modules())
    return bool(_SAVED * flops / (_PLAIN_FLOPS * threads) > _SECONDS_A_LAYER * layers)


def compile_step(
    step: Step,
    model: nn.Module,
    batches: Sequence[tuple[Tensor, Tensor]],
    learn: Callable[[nn.Module, Tensor, Tensor, Step], object],
) -> Step:
    """`step`, compiled for the shapes of `batches` by `learn`ing once from each; the model is left as it was.

    Raises TrainingError where that cannot be done. Takes 1 to 2 seconds a layer, a tenth of that where it was compiled before.
    """
    torch._dynamo.reset()  # what other trainings of this process compiled must not decide what this one gets
    # A size of batch is compiled for itself; layers that draw draw as they would in a plain step.
    compiled = torch.compile(step, dynamic=False, options={"fallback_random": True})
    buffers = [buffer.clone() for buffer in model.buffers()]
    model.train()
    try:
        for x, labels in batches:
            learn(model, x, labels, compiled)
    except Exception as error:
        raise TrainingError(f"the training step cannot be compiled here ({one_line(error)})") from error
    finally:
        model.zero_grad(set_to_none=True)
        with torch.no_grad():
            for buffer, before in zip(model.buffers(), buffers, strict=True):
                buffer.copy_(before)
    return compiled
