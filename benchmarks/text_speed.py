"""Reading, encoding and fastText on millions of texts: rows a second, and the most memory that each process had.

    pip install --target WORK/pandas pandas; pip install --no-deps --target WORK/fasttext-ng fasttext-ng==0.9.3    the peers
    python -m benchmarks.text_speed --data DIR --work DIR [CASE ...] [--rows 100000 3600000]

The shared training rows of Amazon Review Polarity (DIR/amazon) are repeated until there are enough. Each side of each case is a
process of its own, several times, sides alternating; median and range are printed. `peak` is anonymous memory, watched from
outside: mapped pages of caches belong to the system. Seconds are those on the wall, `cpu` those of all threads. Linux only. With
the usual numbers of rows results are kept, in benchmarks/results/text_speed/CASE.json.
"""

import argparse
import importlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import fasttext_ng
from benchmarks.run import RESULTS, clock, company, machine, peer

Facts = dict[str, Any]
LAYOUT = "amazon_review_polarity_csv"
BLOCK = 64 << 20  # bytes of one plain read
SMALL, LARGE = 100_000, 3_600_000  # the larger: as many as the published training part has


@dataclass(frozen=True)
class Place:
    """What a side is given: a folder with so many rows in CSV and what is made of them once, one that is its own, and WORK."""

    rows: int
    shared: Path
    own: Path
    work: Path

    @property
    def csv(self) -> Path:
        return self.shared / LAYOUT / "train.csv"

    @property
    def model(self) -> Path:
        return self.work / "fasttext"

    def dataset(self, cache: Path) -> Any:
        import svp

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # repeated rows are meant
            return svp.load_dataset("amazon-polarity", root=self.shared, cache=cache)

    @property
    def ready(self) -> Any:
        """The dataset, read before."""
        return self.dataset(self.shared / "cache")


Side = Callable[[Place], Callable[[], Facts]]  # prepares, and gives what is to be timed


# --- reading --------------------------------------------------------------------------------------------------------------


def read(place: Place) -> Callable[[], Facts]:
    _imported()
    return lambda: {"rows": len(place.dataset(place.own / "cache"))}


def read_again(place: Place) -> Callable[[], Facts]:
    _imported()
    return lambda: {"rows": len(place.ready)}


def _imported() -> None:
    """Nobody's imports are timed."""
    for module in ("svp", "svp.data.text", "pyarrow.csv", "pyarrow.compute"):
        importlib.import_module(module)


def read_by_pandas(place: Place) -> Callable[[], Facts]:
    pandas = peer(place.work, "pandas", "pandas")
    return lambda: {"rows": len(pandas.read_csv(place.csv, header=None, names=["label", "title", "text"]))}


def read_plainly(place: Place) -> Callable[[], Facts]:
    def run() -> Facts:
        with place.csv.open("rb", buffering=0) as file:
            while file.read(BLOCK):
                pass
        return {"rows": place.rows}

    return run


# --- encoding -------------------------------------------------------------------------------------------------------------


def encode_words(place: Place) -> Callable[[], Facts]:
    from svp.learners.fasttext import words_of

    return _encode(place, words_of)


def encode_characters(place: Place) -> Callable[[], Facts]:
    from svp.learners.characters import characters_of

    return _encode(place, characters_of)


def _encode(place: Place, of: Callable[[Any], Any]) -> Callable[[], Facts]:
    from dataclasses import replace

    dataset = replace(place.ready, cache=place.own / "encoded")
    of(_few(dataset, place.own / "few"))  # compiled
    return lambda: {"rows": len(of(dataset).offsets) - 1}


def _few(dataset: Any, cache: Path) -> Any:
    from dataclasses import replace

    import svp

    few = svp.Dataset.from_arrays(dataset.inputs[:100], dataset.labels[:100], classes=dataset.classes)
    return replace(few, cache=cache)


# --- fastText -------------------------------------------------------------------------------------------------------------


def learner(dataset: Any) -> Any:
    from svp.config import TrainConfig
    from svp.learners import make_learner

    return make_learner(TrainConfig(model="fasttext"), dataset, seed=0)


def train(place: Place) -> Callable[[], Facts]:
    """5 epochs from cached hashes, vocabulary, signals and files included."""
    from svp.learners.fasttext import words_of

    dataset = place.ready
    few = _few(dataset, place.own / "few")
    learner(few).fit(few, few.ids, few.labels, folder=_made(place.own / "small"))
    n_words = len(words_of(dataset).values)

    def run() -> Facts:
        epochs = len(learner(dataset).fit(dataset, dataset.ids, dataset.labels, folder=_made(place.own / "model")))
        return {"rows": len(dataset), "words": epochs * n_words}

    return run


def train_by_fasttext_ng(place: Place) -> Callable[[], Facts]:
    """5 epochs from a file of prepared words, which it reads first."""
    from svp.config import TrainConfig
    from svp.learners import settle

    package, prepared = fasttext_ng.module(place.work), place.shared / "prepared.txt"
    config = settle(TrainConfig(model="fasttext"))
    n_words = sum(line.count(" ") + 1 for line in prepared.open(encoding="utf-8"))  # the label's space, and </s>

    def run() -> Facts:
        fasttext_ng.train(package, prepared, config, 0).save_model(str(place.own / "model.bin"))
        return {"rows": place.rows, "words": config.epochs * n_words}

    return run


def score_csv(place: Place) -> Callable[[], Facts]:
    """From a CSV that nobody has read to the probabilities."""
    _warm(place)

    def run() -> Facts:
        dataset = place.dataset(place.own / "cache")
        return _scored(place, dataset)

    return run


def score_cached(place: Place) -> Callable[[], Facts]:
    """From cached hashes of words."""
    from svp.learners.fasttext import words_of

    _warm(place)
    dataset = place.ready
    words_of(dataset)
    return lambda: _scored(place, dataset)


def _warm(place: Place) -> None:
    """Everything compiled."""
    few = _few(place.ready, place.own / "few")
    loaded = learner(few)
    loaded.load(place.model)
    loaded.predict(few, few.ids)


def _scored(place: Place, dataset: Any) -> Facts:
    loaded = learner(dataset)
    loaded.load(place.model)
    return {"rows": len(loaded.predict(dataset, dataset.ids).probs)}


def score_by_fasttext_ng(place: Place) -> Callable[[], Facts]:
    """From a file of prepared words, by 10,000 at a time."""
    package, prepared = fasttext_ng.module(place.work), place.shared / "prepared.txt"
    model = package.load_model(str(place.work / "fasttext-ng.bin"))

    def run() -> Facts:
        with prepared.open(encoding="utf-8") as file:
            lines = [line.rstrip("\n").partition(" ")[2] for line in file]
        for start in range(0, len(lines), 10_000):
            fasttext_ng.predict(model, lines[start : start + 10_000], 2)
        return {"rows": len(lines)}

    return run


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@dataclass(frozen=True)
class Case:
    """One question; the sides that have peers' files are run with few rows alone."""

    summary: str
    sides: dict[str, Side]
    few: tuple[str, ...] = ()


CASES = {
    "read": Case(
        "from CSV to a dataset",
        {"svp": read, "svp, read before": read_again, "pandas": read_by_pandas, "a plain read": read_plainly},
    ),
    "encode": Case("texts as numbers", {"words": encode_words, "characters": encode_characters}),
    "train": Case(
        "fastText trained for 5 epochs",
        {"svp": train, "fasttext-ng": train_by_fasttext_ng},
        few=("svp", "fasttext-ng"),
    ),
    "score": Case(
        "texts scored by fastText",
        {"svp, from CSV": score_csv, "svp, from cached hashes": score_cached, "fasttext-ng": score_by_fasttext_ng},
        few=("fasttext-ng",),
    ),
}


# --- measuring ------------------------------------------------------------------------------------------------------------


def prepare(data: Path, work: Path, rows: int) -> None:
    """Rows in CSV, the dataset and its words in caches, a model, and (of few rows) the peers' files; what is there is kept."""
    from svp.learners.fasttext import words_of

    place = Place(rows, work / f"rows-{rows}", work, work)
    if not (place.shared / "done").exists():
        _repeat(data / "amazon" / LAYOUT, place.shared / LAYOUT, rows)
        words_of(place.ready)
        if rows <= SMALL:
            dataset = place.ready
            fasttext_ng.write(place.shared / "prepared.txt", dataset.inputs[:], dataset.labels)
        (place.shared / "done").touch()
    if not (place.model / "model.safetensors").exists():
        dataset = place.ready
        learner(dataset).fit(dataset, dataset.ids, dataset.labels, folder=_made(place.model))
    if rows <= SMALL and (work / fasttext_ng.NAME).is_dir() and not (work / "fasttext-ng.bin").exists():
        built = train_by_fasttext_ng(place)
        built()
        (work / "model.bin").replace(work / "fasttext-ng.bin")


def _repeat(source: Path, folder: Path, rows: int) -> None:
    """The training rows again and again; the test part as it is."""
    import csv

    lines = (source / "train.csv").read_bytes().splitlines(keepends=True)
    with (source / "train.csv").open(encoding="utf-8", newline="") as file:
        assert sum(1 for _ in csv.reader(file)) == len(lines), "a row of these data is one line"
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "train.csv").open("wb") as file:
        for start in range(0, rows, len(lines)):
            file.write(b"".join(lines[: rows - start]))
    shutil.copy(source / "test.csv", folder)


def measure(case: str, side: str, rows: int, work: Path) -> Facts:
    """One side in a process of its own: what it says, and the most anonymous memory that it had, in megabytes."""
    with tempfile.TemporaryDirectory(dir=work) as own:
        command = [sys.executable, "-m", "benchmarks.text_speed", "--child", case, side, str(rows), own]
        process = subprocess.Popen([*command, "--work", str(work)], stdout=subprocess.PIPE, text=True)
        peak = 0
        while process.poll() is None:
            peak = max(peak, _anonymous(process.pid))
            time.sleep(0.005)
        said = process.communicate()[0]
        if process.returncode:
            raise SystemExit(f"{case}, {side}: ended with {process.returncode}")
    return {**json.loads(said.splitlines()[-1]), "peak_megabytes": round(peak / 1e6)}


def _anonymous(pid: int) -> int:
    """Bytes that a process holds beside pages of files."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon")), 0)


def child(case: str, side: str, rows: int, own: Path, work: Path) -> Facts:
    run = CASES[case].sides[side](Place(rows, work / f"rows-{rows}", own, work))
    wall, cpu = time.perf_counter(), time.process_time()
    found = run()
    return {**found, "seconds": time.perf_counter() - wall, "cpu_seconds": time.process_time() - cpu}


def compare(name: str, rows: list[int], repeats: int, work: Path) -> Facts:
    """All sides of a case, at each number of rows."""
    case = CASES[name]
    result: Facts = {"case": case.summary, "sides": {}}
    print(case.summary, flush=True)
    for n in rows:
        sides = [side for side in case.sides if n <= SMALL or side not in case.few]
        runs: dict[str, list[Facts]] = {side: [] for side in sides}
        for _ in range(repeats):
            for side in sides:
                runs[side].append(measure(name, side, n, work))
        for side, found in runs.items():
            result["sides"].setdefault(side, {})[str(n)] = summary = summarised(found)
            print(f"  {side}, {n:,} rows: {words(summary)}", flush=True)
    return result


def summarised(found: list[Facts]) -> Facts:
    """Least, median and most of everything."""
    numbers = {key: [facts[key] for facts in found] for key in found[0]}
    return {key: [round(pick(values), 3) for pick in (min, statistics.median, max)] for key, values in numbers.items()}


def words(found: Facts) -> str:
    seconds = found["seconds"]
    said = f"{found['rows'][1] / seconds[1]:,.0f} rows a second ({seconds[1]:.2f} s, {seconds[0]:.2f} to {seconds[2]:.2f}; "
    said += f"cpu {found['cpu_seconds'][1]:.2f}), peak {found['peak_megabytes'][1]:,} MB"
    if "words" in found:
        said += f", {found['words'][1] / seconds[1] / 1e6:.2f} million words a second"
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rows", type=int, nargs="+", default=[SMALL, LARGE])
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--child", nargs=4, metavar=("CASE", "SIDE", "ROWS", "FOLDER"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.child:
        case, side, rows, own = arguments.child
        print(json.dumps(child(case, side, int(rows), Path(own), arguments.work)))
        return
    if unknown := [name for name in arguments.cases if name not in CASES]:
        parser.error(f"no case {unknown[0]!r}; there are {', '.join(CASES)}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    for rows in sorted(arguments.rows):
        prepare(arguments.data, arguments.work, rows)
    for name in arguments.cases or CASES:
        begin = clock()
        result = compare(name, arguments.rows, arguments.repeats, arguments.work)
        result |= {"machine": machine(), "versions": versions(), "threads": len(os.sched_getaffinity(0))}
        result |= company(begin, clock())
        if arguments.rows == [SMALL, LARGE]:
            folder = _made(RESULTS / "text_speed")
            (folder / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")


def versions() -> dict[str, str]:
    import numba
    import pyarrow

    return {"numpy": np.__version__, "pyarrow": pyarrow.__version__, "numba": numba.__version__}


if __name__ == "__main__":
    main()
