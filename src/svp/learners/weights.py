"""Initial weights from a file: safetensors alone, since PyTorch's own files are pickles, which can run code when read.

A file that svp wrote says in its header which mean and deviation were taken from the inputs, of bytes after division by 255: a
net that begins with these weights is shown its inputs in the same way.
"""

import hashlib
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from svp.errors import DataError, require
from svp.learners.libraries import TimmNet, TorchvisionNet

# First part of the names of what comes after the features, where the number of classes may be another.
HEADS = ("head", "heads", "fc", "classifier")
SHOWN = 3  # names in an error
STATISTICS = "svp.statistics"  # entry of the header: JSON of two lists


def take(name: str, net: nn.Module, path: Path) -> str:
    """Put the weights of a safetensors file into `net`; returns the digest of the file, as sha256:...

    What the file says of the inputs that they learned from becomes `net.input_statistics`.

    Tensors of the head that the file lacks, or has in another size, stay as they were drawn; everything else must be there, and
    fit. Names are those of the net itself; of a net of timm or torchvision, those of that library.
    Raises DataError, which names the file and the first few tensors that do not fit, or are not finite. `name`: of the model.
    """
    given, header, digest = _read(path)
    own = (net.net if isinstance(net, TimmNet | TorchvisionNet) else net).state_dict()
    fits = {key for key in own.keys() & given.keys() if own[key].shape == given[key].shape}
    unlike = {
        "lacks": [key for key in own if key not in given and not _may_differ(key)],
        "has in another shape": [
            f"{key} {tuple(given[key].shape)} for {tuple(own[key].shape)}"
            for key in own
            if key in given and key not in fits and not _may_differ(key)
        ],
        "has beside": [key for key in given if key not in own],
    }
    if wrong := [f"it {what} {_first(keys)}" for what, keys in unlike.items() if keys]:
        raise DataError(
            f"{path} does not fit {name}: {'; '.join(wrong)}. All but the head must fit: choose the model, width and options "
            "that it was made with"
        )
    cast = {key: given[key].to(own[key].dtype) for key in own if key in fits}
    counts = {key: int((~torch.isfinite(tensor)).sum()) for key, tensor in cast.items()}
    if bad := [f"{key} ({n:,} of {cast[key].numel():,})" for key, n in counts.items() if n]:
        raise DataError(
            f"{path} has values that are not finite: {_first(bad)}; give weights of a training that did not diverge"
        )
    for key, tensor in cast.items():  # the tensors of a state are those of the net
        own[key].copy_(tensor)
    if STATISTICS in header:
        net.input_statistics = _of_channels(path, header[STATISTICS])  # type: ignore[assignment]
    return digest


def _of_channels(path: Path, text: str) -> tuple[list[float], list[float]]:
    """Mean and deviation of the inputs, as a header has them. Anybody may have written it."""
    try:
        mean, deviation = ([float(value) for value in values] for values in json.loads(text))
        if mean and len(mean) == len(deviation) and all(map(math.isfinite, mean + deviation)):
            return mean, deviation
    except (ValueError, TypeError, RecursionError):
        pass
    raise DataError(
        f"{path}: the entry {STATISTICS} of its header is not two lists of as many finite numbers, mean and deviation of each "
        "channel of the inputs; write the file without it, or take weights that svp wrote"
    )


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any], str]:
    """Its tensors, the metadata in its header, its digest."""
    try:
        data = path.expanduser().read_bytes()
    except OSError as error:
        raise DataError(f"cannot read the weights {path}: {error.strerror or error}") from None
    try:
        tensors: dict[str, Tensor] = require("safetensors.torch", "torch").load(data)
    except require("safetensors", "torch").SafetensorError as error:
        raise DataError(
            f"{path} is no safetensors file ({error}). A .pt or .pth file is a pickle, which can run code when read; convert it "
            "once: safetensors.torch.save_file(torch.load('x.pth', weights_only=True), 'x.safetensors')"
        ) from None
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
    return tensors, header, f"sha256:{hashlib.sha256(data).hexdigest()}"


def _may_differ(key: str) -> bool:
    return key.partition(".")[0] in HEADS or key.endswith("num_batches_tracked")  # older files count no batches


def _first(keys: list[str]) -> str:
    more = f" and {len(keys) - SHOWN} more" if len(keys) > SHOWN else ""
    return ", ".join(keys[:SHOWN]) + more
