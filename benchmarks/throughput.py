"""Training throughput of the loop against a plain loop of the same net: fp32, channels first, one batch after another.

    python -m benchmarks.throughput [--pairs 5] [--only preact8] [--compile on off] [--json FILE]

Both train the same net on the same random images, with crop and flip in ours and none in the plain loop (which has the lighter
work); or on the same random texts of 1,014 characters. Epochs of the two alternate; printed is the median rate of each with its
range, and the median ratio. Compiled steps are timed after they are compiled; what compiling took stands beside them. Rates are
given as shares of the machine's bf16 product rate, too, which is measured first: a step counts as three forward passes, and of
these the products that PyTorch counts. Nets with `cut` are cases of their own: their batches are cut to the longest text, which
spares work, and makes another model; they are never compiled.
"""

import argparse
import json
import statistics
import tempfile
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.run import machine
from svp.config import ComputeConfig, TrainConfig
from svp.data.base import Dataset
from svp.learners import find, make_learner
from svp.learners.characters import LENGTH, characters_of
from svp.learners.compute import Compute, decide


@dataclass(frozen=True)
class Case:
    """One net: examples a step and an epoch; images of so many pixels a side, or of none: texts."""

    name: str
    batch_size: int
    side: int | None
    n: int
    cut: bool = False

    @property
    def config(self) -> TrainConfig:
        augment = {"augment": "none" if self.side is None else "crop_flip"}
        settings = {"model": self.name, "epochs": 2, "batch_size": self.batch_size, **augment}
        return TrainConfig.make({**settings, "options": {"cut": True} if self.cut else {}})

    def dataset(self, share: float) -> Dataset:
        n = max(2 * self.batch_size, int(share * self.n))
        return made_up_texts(n) if self.side is None else made_up(n, self.side)

    def net(self) -> nn.Module:
        example = torch.zeros(LENGTH, dtype=torch.int64) if self.side is None else torch.zeros(3, self.side, self.side)
        made: nn.Module = find(self.config).make(10, example)
        return made

    def step_flops(self) -> float:
        """Floating-point operations of one example's step: a forward pass, and a backward one of twice as many."""
        model = self.net().eval()
        x = torch.zeros(1, LENGTH, dtype=torch.int64) if self.side is None else torch.zeros(1, 3, self.side, self.side)
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            model(x)
        return 3.0 * float(counter.get_total_flops())


CASES = [
    Case("preact8", 128, 32, 8192),
    Case("preact20", 128, 32, 4096),
    Case("preact20", 512, 32, 4096),
    Case("preact164", 128, 32, 512),
    Case("preact164", 512, 32, 512),
    Case("wrn-16-4", 128, 32, 1024),
    Case("resnet18", 128, 64, 1024),
    Case("patchnet", 128, 32, 8192),
    Case("vdcnn9", 128, None, 1024),
    Case("vdcnn29", 128, None, 512),
    Case("vdcnn9", 128, None, 4096, cut=True),
    Case("vdcnn29", 128, None, 4096, cut=True),
]


def product_rate(threads: int, dtype: torch.dtype = torch.bfloat16, side: int = 4096) -> float:
    """Floating-point operations a second of a square matrix product, the best of several."""
    torch.set_num_threads(threads)
    a = torch.ones(side, side, dtype=dtype)
    best = float("inf")
    for _ in range(5):
        begin = time.perf_counter()
        a @ a
        best = min(best, time.perf_counter() - begin)
    return 2 * side**3 / best


def plain_rate(case: Case, dataset: Dataset) -> float:
    """Examples a second of a loop as one would write it without a thought about speed; one warm-up step is left out."""
    torch.manual_seed(0)
    assert dataset.labels is not None
    model = case.net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
    x, y = plain_inputs(dataset), torch.from_numpy(dataset.labels)
    begin = 0.0
    for step, rows in enumerate([torch.arange(case.batch_size), *torch.split(torch.arange(len(x)), case.batch_size)]):
        if step == 1:
            begin = time.perf_counter()
        loss = F.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return len(x) / (time.perf_counter() - begin)


def plain_inputs(dataset: Dataset) -> Tensor:
    """All of them, ready: (n, 3, side, side) float32, or (n, LENGTH) characters."""
    if dataset.is_text:
        with tempfile.TemporaryDirectory() as cache:
            texts = characters_of(replace(dataset, cache=Path(cache)))
            return torch.from_numpy(texts.padded(np.arange(len(dataset)), LENGTH).astype(np.int64))
    return torch.from_numpy(dataset.inputs).permute(0, 3, 1, 2).contiguous().float() / 255


def our_rate(case: Case, dataset: Dataset, compute: Compute) -> tuple[float, float]:
    """Examples a second of the second epoch, as the loop itself records it, signals, augmentation and all; and how many seconds
    longer the first one took, in which a step is compiled.
    """
    with tempfile.TemporaryDirectory() as folder:
        dataset = replace(dataset, cache=Path(folder) / "cache")
        assert dataset.labels is not None
        learner = make_learner(case.config, dataset, seed=0, compute=compute)
        records = learner.fit(dataset, dataset.ids, dataset.labels, folder=Path(folder))
    return len(dataset) / records[1]["seconds"], records[0]["seconds"] - records[1]["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--only", default="", help="nets whose name contains this")
    parser.add_argument(
        "--images", type=float, default=1.0, help="share of the examples: a small one shows that all runs"
    )
    parser.add_argument("--compile", nargs="+", choices=["on", "off"], default=["off", "on"])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    decided = {kind: decide(ComputeConfig(compile=kind)) for kind in arguments.compile}
    compute = next(iter(decided.values()))
    products = product_rate(compute.threads)
    found = []
    for case in CASES:
        if arguments.only not in case.name:
            continue
        row = measure(case, case.dataset(arguments.images), decided, arguments.pairs)
        row["share_of_products"] = {
            kind: round(rate[1] * case.step_flops() / products, 3) for kind, rate in row["images_a_second"].items()
        }
        found.append(row)
        print(json.dumps(row), flush=True)
    result = {
        "cases": found,
        "bf16_product_teraflops": round(products / 1e12, 3),
        "fp32_product_teraflops": round(product_rate(compute.threads, torch.float32) / 1e12, 3),
        "precision": compute.precision,
        "threads": compute.threads,
        "torch": torch.__version__,
        "machine": machine(),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(result, indent=1) + "\n")


def made_up(n: int, side: int) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (n, side, side, 3), dtype=np.uint8)
    return Dataset.from_arrays(images, rng.integers(0, 10, n), classes=[str(c) for c in range(10)])


def made_up_texts(n: int) -> Dataset:
    """Random letters, as long as reviews are: half of them under 370 characters, one in seven above the 1,014 looked at."""
    rng = np.random.default_rng(0)
    letters = rng.integers(ord("a"), ord("z") + 1, (n, 4 * LENGTH), dtype=np.uint8)
    lengths = np.clip(370 * np.exp(0.95 * rng.standard_normal(n)), 20, letters.shape[1]).astype(int)
    texts = [row[:length].tobytes().decode() for row, length in zip(letters, lengths, strict=True)]
    return Dataset.from_arrays(texts, rng.integers(0, 10, n), classes=[str(c) for c in range(10)])


def measure(case: Case, dataset: Dataset, decided: dict[str, Compute], pairs: int) -> dict[str, Any]:
    """One net: the plain loop and ours, compiled and not, in turn; lowest, median and highest."""
    decided = {kind: compute for kind, compute in decided.items() if not (case.cut and kind == "on")}
    rates: dict[str, list[float]] = {"plain": [], **{f"compile {kind}": [] for kind in decided}}
    compiling = []
    for _ in range(pairs):
        rates["plain"].append(plain_rate(case, dataset))
        for kind, compute in decided.items():
            rate, more = our_rate(case, dataset, compute)
            rates[f"compile {kind}"].append(rate)
            if kind == "on":
                compiling.append(more)
    ratios = {
        kind: [a / b for a, b in zip(rate, rates["plain"], strict=True)]
        for kind, rate in rates.items()
        if kind != "plain"
    }
    return {
        "net": f"{case.name}, cut" if case.cut else case.name,
        "batch": case.batch_size,
        "images_a_second": {kind: spread(rate, 0) for kind, rate in rates.items()},
        "ratio": {kind: spread(ratio, 2) for kind, ratio in ratios.items()},
        "compiling_seconds": [round(seconds, 1) for seconds in compiling],  # the first with nothing cached, perhaps
    }


def spread(values: list[float], digits: int) -> list[float]:
    return [round(value, digits) for value in (min(values), statistics.median(values), max(values))]


if __name__ == "__main__":
    main()
