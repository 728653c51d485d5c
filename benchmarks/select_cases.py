"""What `benchmarks.select` measures: each case makes its inputs as files and has sides that work on the same ones."""

import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

import svp
from svp.select import METHODS
from svp.select.inputs import NO_SIGNAL

Arrays = dict[str, NDArray[Any]]
BLOCK = 64 << 20  # bytes of one read


@dataclass(frozen=True)
class Side:
    """One contender.

    run     (arrays, folder) -> {"picks": positions in order} or nothing, and "seconds_compiling" not to be counted; this is
            what is timed
    module  what it needs beside svp; skipped where that is not installed
    method  the row of METHODS it needs; skipped where there is none
    before  prepares the files just before the clock starts: reads them once, or drops them from the page cache
    warm    run once on few examples, so that compiling is not timed
    """

    run: Callable[[Arrays, Path], dict[str, Any]]
    module: str | None = None
    method: str | None = None
    before: Callable[[Path], None] | None = None
    warm: Callable[[], Any] | None = None


@dataclass(frozen=True)
class Case:
    """One question: inputs, contenders, and the figure that was aimed at.

    make       (folder, scale, features) writes the inputs as .npy files; scale 1 is the case as it is called
    objective  (arrays, picks) -> how good a choice is, by one formula for all sides; not timed
    mapped     inputs stay on disk
    alone      only run when it is named: it takes very long
    """

    summary: str
    make: Callable[[Path, float, Path | None], None]
    sides: dict[str, Side]
    target: str = "none"
    objective: Callable[[Arrays, NDArray[np.int64]], float] | None = None
    mapped: bool = False
    alone: bool = False


def scaled(number: int, scale: float) -> int:
    return max(1, int(number * scale))


def features(n: int, d: int, centres: int, seed: int = 0) -> NDArray[np.float32]:
    """(n, d) max(0, c[k] + noise), centres and noise N(0, 1): as the last layer's features of a network look."""
    rng = np.random.default_rng(seed)
    c = rng.standard_normal((centres, d), np.float32)
    found: NDArray[np.float32] = np.maximum(
        c[rng.integers(centres, size=n)] + rng.standard_normal((n, d), np.float32), 0
    )
    return found


def probabilities(n: int, c: int, seed: int = 0) -> NDArray[np.float32]:
    """(n, c) softmax of N(0, 2)."""
    logits = 2 * np.random.default_rng(seed).standard_normal((n, c), np.float32)
    powers = np.exp(logits - logits.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


# --- k-center ------------------------------------------------------------------------------------------------------------


def make_k_center(folder: Path, scale: float, given_features: Path | None) -> None:
    n = scaled(50_000, scale)
    x = features(n, 64, 10) if given_features is None else np.load(given_features)[:n].astype(np.float32)
    np.save(folder / "embeddings.npy", x)
    np.save(folder / "already.npy", np.random.default_rng(1).permutation(len(x))[: scaled(1_000, scale)])
    np.save(folder / "budget.npy", scaled(24_000, scale))


def k_center(arrays: Arrays, folder: Path) -> dict[str, Any]:
    chosen = svp.select("k_center", int(arrays["budget"]), embeddings=arrays["embeddings"], already=arrays["already"])
    return {"picks": chosen.ids}


def one_row_per_pick(arrays: Arrays, folder: Path) -> dict[str, Any]:
    """Greedy k-center as one would write it well: the running minimum, and one BLAS distance row for each centre."""
    x, already, budget = arrays["embeddings"], arrays["already"], int(arrays["budget"])
    squares = np.einsum("ij,ij->i", x, x)
    lowest = np.full(len(x), np.inf, np.float32)
    row = np.empty(len(x), np.float32)
    picks = np.empty(budget, np.int64)
    for step in range(len(already) + budget):
        i = int(already[step]) if step < len(already) else int(lowest.argmax())
        if step >= len(already):
            picks[step - len(already)] = i
        np.dot(x, x[i], out=row)
        row *= -2
        row += squares
        row += squares[i]
        np.minimum(lowest, row, out=lowest)
        lowest[i] = -np.inf
    return {"picks": picks}


def make_k_center_vast(folder: Path, scale: float, given_features: Path | None) -> None:
    n, d = scaled(1_281_167, scale), 512
    rng = np.random.default_rng(0)
    c = rng.standard_normal((1_000, d), np.float32)
    x = open_memmap(folder / "embeddings.npy", "w+", np.float32, (n, d))
    for start in range(0, n, 1 << 14):
        rows = x[start : start + (1 << 14)]
        rows[:] = np.maximum(c[rng.integers(1_000, size=len(rows))] + rng.standard_normal(rows.shape, np.float32), 0)
    x.flush()
    np.save(folder / "already.npy", np.zeros(0, np.int64))
    np.save(folder / "budget.npy", scaled(128_000, scale))


def products_alone(arrays: Arrays, folder: Path) -> dict[str, Any]:
    """The matrix products of every point with every centre, in blocks, and nothing else: what no exact way falls under."""
    x, budget = arrays["embeddings"], int(arrays["budget"])
    out = np.empty((8192, 1024), np.float32)
    for first in range(0, budget, 1024):
        centres = np.array(x[first : min(first + 1024, budget)])
        for start in range(0, len(x), 8192):
            rows = x[start : start + 8192]
            np.dot(rows, centres.T, out=out[: len(rows), : len(centres)]) if len(centres) == 1024 else rows @ centres.T
    return {}


# --- facility location ---------------------------------------------------------------------------------------------------


def make_facility_location(n: int, budget: int) -> Callable[[Path, float, Path | None], None]:
    def make(folder: Path, scale: float, given_features: Path | None) -> None:
        np.save(folder / "embeddings.npy", features(scaled(n, scale), 64, 10))
        np.save(folder / "budget.npy", scaled(budget, scale))

    return make


def facility_location(arrays: Arrays, folder: Path) -> dict[str, Any]:
    return {"picks": svp.select("facility_location", int(arrays["budget"]), embeddings=arrays["embeddings"]).ids}


def apricot(x: NDArray[Any], budget: int) -> dict[str, Any]:
    """apricot's lazy greedy. Its metric "cosine" squares the cosine, so it is handed the matrix, which it needs anyway.

    It compiles anew at every fit: that is told apart, and not counted.
    """
    from apricot import FacilityLocationSelection
    from sklearn.metrics.pairwise import cosine_similarity

    class Timed(FacilityLocationSelection):  # type: ignore[misc]
        def _initialize(self, *args: Any, **kwargs: Any) -> None:
            begin = time.perf_counter()
            super()._initialize(*args, **kwargs)
            self.seconds_compiling = time.perf_counter() - begin

    selector = Timed(budget, metric="precomputed", optimizer="lazy")
    selector.fit(cosine_similarity(x))
    return {"picks": np.asarray(selector.ranking, np.int64), "seconds_compiling": selector.seconds_compiling}


def coverage(arrays: Arrays, picks: NDArray[np.int64]) -> float:
    """The sum over all examples of the largest cosine with a chosen one."""
    x = arrays["embeddings"].astype(np.float64)
    x /= np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-300)
    return float(sum((x[start : start + 256] @ x[picks].T).max(axis=1).sum() for start in range(0, len(x), 256)))


# --- margin over a file, badge -------------------------------------------------------------------------------------------


def make_margin(folder: Path, scale: float, given_features: Path | None) -> None:
    n = scaled(20_000_000, scale)
    probs = open_memmap(folder / "probs.npy", "w+", np.float32, (n, 10))
    for part, start in enumerate(range(0, n, 1 << 20)):
        probs[start : start + (1 << 20)] = probabilities(min(1 << 20, n - start), 10, seed=part)
    probs.flush()


def margin(arrays: Arrays, folder: Path) -> dict[str, Any]:
    return {"picks": svp.select("margin", "1%", probs=arrays["probs"]).ids}


def read(folder: Path) -> None:
    with open(folder / "probs.npy", "rb", buffering=0) as file:
        block = bytearray(BLOCK)
        while file.readinto(block):
            pass


def read_alone(arrays: Arrays, folder: Path) -> dict[str, Any]:
    read(folder)
    return {}


def drop(folder: Path) -> None:
    """Ask the system to forget the file's pages; written ones first go to the disk."""
    with open(folder / "probs.npy", "rb") as file:
        os.fsync(file.fileno())
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def make_badge(folder: Path, scale: float, given_features: Path | None) -> None:
    n = scaled(50_000, scale)
    np.save(folder / "embeddings.npy", features(n, 64, 10))
    np.save(folder / "probs.npy", probabilities(n, 10))
    np.save(folder / "budget.npy", scaled(5_000, scale))


def badge(arrays: Arrays, folder: Path) -> dict[str, Any]:
    chosen = svp.select("badge", int(arrays["budget"]), embeddings=arrays["embeddings"], probs=arrays["probs"])
    return {"picks": chosen.ids}


# --- growth --------------------------------------------------------------------------------------------------------------

WIDTH, CLASSES, EPOCHS = 64, 10, 20


def make_growth(method: str, n: int) -> Callable[[Path, float, Path | None], None]:
    def make(folder: Path, scale: float, given_features: Path | None) -> None:
        for need, array in everything(method, n).items():
            np.save(folder / f"{need}.npy", array)

    return make


def everything(method: str, n: int) -> Arrays:
    """Whatever the method reads, of n examples."""
    rng = np.random.default_rng(0)
    return {need: MADE.get(need, made_signal)(n, rng) for need in METHODS[method].reads or ("ids",)}


def made_signal(n: int, rng: np.random.Generator) -> NDArray[Any]:
    return rng.random((EPOCHS, n), np.float32)


MADE: dict[str, Callable[[int, np.random.Generator], NDArray[Any]]] = {
    "ids": lambda n, rng: np.arange(n),
    "embeddings": lambda n, rng: features(n, WIDTH, CLASSES),
    "similarity": lambda n, rng: features(n, WIDTH, CLASSES),  # made of embeddings by the method
    "probs": lambda n, rng: probabilities(n, CLASSES),
    "labels": lambda n, rng: rng.integers(CLASSES, size=n),
    "scores": lambda n, rng: rng.random(n),
    "correct": lambda n, rng: rng.integers(2, size=(EPOCHS, n), dtype=np.uint8),
}


def growth(method: str) -> Callable[[Arrays, Path], dict[str, Any]]:
    def run(arrays: Arrays, folder: Path) -> dict[str, Any]:
        named = {"embeddings" if need == "similarity" else need: array for need, array in arrays.items()}
        own: dict[str, Any] = {name: array for name, array in named.items() if name == "ids" or name in NO_SIGNAL}
        signals = {kind: array for kind, array in named.items() if kind not in own}
        svp.select(method, 0.1, **own, signals=signals)
        return {}

    return run


def growth_case(method: str, n: int) -> Case:
    """The first call, on few examples, imports what the method imports."""
    side = Side(growth(method), warm=lambda: growth(method)(everything(method, 64), Path()))
    return Case(f"{method}, {n:,} examples, 10 %", make_growth(method, n), {"svp": side})


CASES = {
    "k_center": Case(
        "k_center, 50,000 x 64 network features, 1,000 given, 24,000 picks",
        make_k_center,
        {"svp": Side(k_center), "one BLAS distance row per pick": Side(one_row_per_pick)},
        target="8 times as fast, the same picks, under 400 MB beyond the input",
    ),
    "k_center_vast": Case(
        "k_center, 1,281,167 x 512 memory-mapped, 128,000 picks",
        make_k_center_vast,
        {"svp": Side(k_center), "the matrix products alone": Side(products_alone)},
        target="at most 1.5 times the matrix products, peak under 4 GB with mapped pages",
        mapped=True,
        alone=True,
    ),
    "facility_location": Case(
        "facility_location, 10,000 x 64, cosine, 1,000 picks",
        make_facility_location(10_000, 1_000),
        {
            "svp": Side(facility_location, method="facility_location"),
            "apricot, lazy greedy": Side(
                lambda arrays, folder: apricot(arrays["embeddings"], int(arrays["budget"])),
                module="apricot",
                warm=lambda: apricot(features(50, 4, 2), 5),
            ),
        },
        target="8 times as fast, a quarter of the memory, the same objective",
        objective=coverage,
    ),
    "facility_location_large": Case(
        "facility_location, 50,000 x 64, cosine, 25,000 picks",
        make_facility_location(50_000, 25_000),
        {"svp": Side(facility_location, method="facility_location")},
        target="under 2 minutes, under 4 GB",
    ),
    "margin": Case(
        "margin, 20,000,000 x 10 probabilities on disk, top 1 %",
        make_margin,
        {
            "svp": Side(margin, before=read),
            "reading alone": Side(read_alone, before=read),
            "svp, cold": Side(margin, before=drop),
            "reading alone, cold": Side(read_alone, before=drop),
        },
        target="at most 4 times reading the file in blocks of 64 MB, page cache warm",
        mapped=True,
    ),
    "badge": Case(
        "badge, 50,000 x 64 x 10 classes, 5,000 picks",
        make_badge,
        {"svp": Side(badge, method="badge")},
        target="under 30 s, under 1 GB",
    ),
}


def find_case(name: str) -> Case:
    """A name of CASES, or growth/METHOD/N."""
    if name in CASES:
        return CASES[name]
    _, method, n = name.split("/")
    return growth_case(method, int(n))
