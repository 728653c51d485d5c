"""Weights and checkpoints of a net: one safetensors file each, a training's records in the header of its own."""

import json
import math
from pathlib import Path

import torch
from torch import Tensor, nn

from svp.errors import DataError, one_line, require
from svp.files import write_bytes
from svp.learners.base import EpochRecord


def save_weights(model: nn.Module, path: Path, header: dict[str, str] | None = None) -> None:
    """All weights and running statistics, as safetensors; header: what else the file says."""
    safetensors = require("safetensors.torch", "torch")
    write_bytes(path, safetensors.save(_state(model), header))


def load_weights(model: nn.Module, path: Path) -> None:
    """Take the weights of a file that `save_weights` wrote; raises DataError if they do not fit."""
    safetensors = require("safetensors.torch", "torch")
    try:
        found = safetensors.load_file(path)
        damage = _damage(found, _state(model))
    except (OSError, require("safetensors", "torch").SafetensorError) as error:
        damage = one_line(error)
    if damage:
        raise DataError(
            f"cannot take weights from {path}: {damage}; remove the folder {path.parent} to have it made again"
        )
    model.load_state_dict(found)


def best_path(checkpoint: Path) -> Path:
    """Where the weights of the best epoch so far stand, beside the checkpoint."""
    return checkpoint.with_name("best.safetensors")


def remove(checkpoint: Path) -> None:
    """Remove a checkpoint and what stands beside it: the training is kept elsewhere."""
    for path in (checkpoint, best_path(checkpoint)):
        path.unlink(missing_ok=True)


def save(
    model: nn.Module, optimizer: torch.optim.Optimizer, records: list[EpochRecord], compiled: bool, path: Path
) -> None:
    safetensors = require("safetensors.torch", "torch")
    header = {"records": json.dumps(records), "compiled": json.dumps(compiled)}
    write_bytes(path, safetensors.save(_tensors(model, optimizer), header))


def resume(model: nn.Module, optimizer: torch.optim.Optimizer, path: Path) -> tuple[list[EpochRecord], bool | None]:
    """Put model and optimizer where the checkpoint left them; its records, and whether the step was compiled.

    Raises DataError where it is not what `save` writes for this model and optimizer; then nothing of it has been taken.
    """
    if not path.exists():
        return [], None
    safetensors = require("safetensors", "torch")
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (safe_open is no mapping)
            header = file.metadata() or {}
        damage = _damage(tensors, _tensors(model, optimizer))
        records = _records(header.get("records", ""))
        # Checkpoints of earlier versions do not say: their steps were plain.
        compiled = header.get("compiled") == "true"
    except (OSError, safetensors.SafetensorError) as error:
        damage = one_line(error)
    if damage or not records:
        raise DataError(
            f"the checkpoint {path} is damaged ({damage or 'it has no records of its epochs'}); "
            "remove it to begin this training again"
        )
    model.load_state_dict(
        {name.removeprefix("model."): value for name, value in tensors.items() if name.startswith("model.")}
    )
    for i, parameter in enumerate(optimizer.param_groups[0]["params"]):
        if f"momentum.{i}" in tensors:
            # In the layout of the weight itself, which the fused update wants.
            optimizer.state[parameter]["momentum_buffer"] = torch.empty_like(parameter).copy_(tensors[f"momentum.{i}"])
    return records, compiled


def _tensors(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """All that a training goes on from, by name: weights, running statistics, momentum (0 where there has been no gradient)."""
    tensors = {f"model.{name}": value for name, value in _state(model).items()}
    for group in optimizer.param_groups:
        for i, parameter in enumerate(group["params"]):
            if group["momentum"] and parameter.requires_grad:
                momentum = optimizer.state[parameter].get("momentum_buffer")
                tensors[f"momentum.{i}"] = torch.zeros_like(parameter) if momentum is None else momentum
                tensors[f"momentum.{i}"] = tensors[f"momentum.{i}"].detach().contiguous()
    return tensors


def _state(model: nn.Module) -> dict[str, Tensor]:
    """Weights and running statistics, each in memory of its own: a net may use one weight under two names."""
    return {name: value.clone(memory_format=torch.contiguous_format) for name, value in model.state_dict().items()}


def _damage(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> str:
    """How the tensors of a file differ from those wanted, in words: name, shape, type, no numbers; "" if they do not."""
    for name in sorted(found.keys() | wanted.keys()):
        if name not in found:
            return f"it lacks {name}"
        if name not in wanted:
            return f"{name} belongs to another model"
        a, b = found[name], wanted[name]
        if a.shape != b.shape:
            return f"{name} has shape {tuple(a.shape)}, not {tuple(b.shape)}"
        if a.dtype != b.dtype:
            return f"{name} holds {a.dtype}, not {b.dtype}".replace("torch.", "")
        if b.isfinite().all() and not a.isfinite().all():
            return f"{name} is not finite"
    return ""


def _records(text: str) -> list[EpochRecord]:
    """The records of the epochs, in order from the first; [] if this is no such thing."""
    try:
        records: list[EpochRecord] = json.loads(text)
        whole = all(math.isfinite(record[fact]) for record in records for fact in ("loss", "accuracy", "seconds"))
        return records if whole and [record["epoch"] for record in records] == list(range(len(records))) else []
    except (ValueError, TypeError, KeyError):
        return []
