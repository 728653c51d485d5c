"""Does a second look find wrong labels? Sessions whose answers are wrong for one example in five, drawn by lot.

    python -m benchmarks.run label_noise --data DIR --work DIR [--only digits]   the units; DIR holds cifar10/
    python -m benchmarks.label_noise                                             the table, of the result files

A unit asks by margin, round by round, as people would be asked, tells the answers with their flips, and then asks for a second
look without a limit. Precision: the share of the offered that are flipped; recall: the share of the flipped that are offered.
Beside it, what other ways to find them would have given on the same labels, each at as many examples as are flipped (there
precision is recall).
"""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import svp
from benchmarks.run import RESULTS, Unit
from svp.chance import shuffled, uniform
from svp.config import ComputeConfig, SessionConfig, TrainConfig
from svp.data.base import Dataset
from svp.files import read_array
from svp.separation import auc
from svp.workflows import judging
from svp.workflows.session import Session

FLIPPED = 0.2
COMPUTE = ComputeConfig(device="cpu", precision="bf16", channels_last=True, threads=1)
PROXIES = {
    "logistic": TrainConfig(model="logistic"),
    "linear": TrainConfig(model="linear", epochs=40, batch_size=32),
    "preact8": TrainConfig(model="preact8", epochs=15, batch_size=32, min_steps=400),  # as `svp session new` has it
}


def digits(data: Path) -> Dataset:
    return svp.load_dataset("digits")


def cifar10(data: Path) -> Dataset:
    return svp.load_dataset("cifar10", root=data / "cifar10")


def unit(
    name: str, load: Callable[[Path], Dataset], model: str, totals: tuple[int, ...], seed: int, data: Path, work: Path
) -> dict[str, Any]:
    """Label up to the last of `totals`, and look at what is offered for a second look."""
    dataset = load(data)
    said = with_flips(dataset, seed)
    proxy = PROXIES[model]
    config = SessionConfig(
        dataset=dataset.name,
        classes=dataset.classes,
        proxy=proxy,
        target=proxy,
        seed=seed,
        diverse=False,
        compute=COMPUTE,
    )
    with Session.create(work / name, config, dataset.without_labels(), show=show) as session:
        for total in totals:
            while (missing := total - session.status()["labelled"]) > 0:
                asked = session.ask(missing).ids
                answers = said[dataset.positions(asked)].tolist()
                session.tell(dict(zip(asked.tolist(), answers, strict=True)), who="ann")
        ids, labels = session.labelled()
        assert dataset.labels is not None
        flipped = labels != dataset.labels[dataset.positions(ids)]
        offered = session.review(len(ids))
        assert offered is not None
        found = np.isin(ids, offered.ids)
        return {
            "model": model,
            "labels": len(ids),
            "flipped": int(flipped.sum()),
            "offered": int(found.sum()),
            "precision": float(flipped[found].mean()),
            "recall": float(found[flipped].mean()),
            "ways": {way: rated(scores, flipped) for way, scores in ways(session, ids, labels).items()},
        }


def with_flips(dataset: Dataset, seed: int) -> NDArray[np.int64]:
    """(n,) labels, FLIPPED of them another class: which and what belongs to the id."""
    assert dataset.labels is not None
    n_classes = len(dataset.classes)
    wrong = uniform(dataset.ids, seed, "is flipped") < FLIPPED
    by = 1 + np.floor(uniform(dataset.ids, seed, "flipped by") * (n_classes - 1)).astype(np.int64)
    return np.where(wrong, (dataset.labels + by) % n_classes, dataset.labels)


def ways(session: Session, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """(m,) scores by each way of doubting the same labels, higher = more doubtful."""
    (doubted,) = session.folder.glob("doubts/*")
    found = {"folds": judging.led(read_array(doubted / "probs.npy"), labels)}
    fitted = session.rounds.whole(ids, labels)
    if "signals" in fitted.gives:
        signals = fitted.signals().kinds()
        found |= {way: svp.score(way, signals=signals) for way in ("aum", "forgetting", "el2n")}
        found["p_true"] = -np.nanmean(np.asarray(signals["p_true"], np.float64), axis=0)
        ranks = [np.argsort(np.argsort(found[way])) for way in ("aum", "folds")]
        found["aum and folds"] = np.mean(ranks, axis=0)
    found["chance"] = shuffled(ids, 0, "chance").astype(np.float64)
    return found


def rated(scores: NDArray[np.float64], flipped: NDArray[np.bool_]) -> dict[str, float]:
    first = np.argsort(-scores, kind="stable")[: int(flipped.sum())]
    return {"precision": float(flipped[first].mean()), "auc": auc(scores, flipped, ~flipped)}


def show(what: str, done: int, total: int, note: str = "") -> None:
    if not done:
        print(what, flush=True)


def _unit(load: Callable[[Path], Dataset], model: str, step: int, seed: int) -> Unit:
    """Five rounds of `step` labels."""
    name = f"{load.__name__}-{model}-seed{seed}"
    return Unit(name, partial(unit, name, load, model, tuple(range(step, 5 * step + 1, step)), seed))


UNITS = [_unit(digits, model, 100, seed) for model in PROXIES for seed in (0, 1, 2)]
UNITS += [_unit(cifar10, "preact8", 1000, seed) for seed in (0, 1, 2)]


def main() -> None:
    """The table of docs/results.md."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted((RESULTS / "label_noise").glob("*.json"))}
    print("| data, proxy, seed | labels | flipped | offered | precision | recall | AUM | forgetting | EL2N | folds |")
    print("|---|---|---|---|---|---|---|---|---|---|")
    for name, found in results.items():
        others = (found["ways"].get(way) for way in ("aum", "forgetting", "el2n", "folds"))
        cells = [f"{found[key]:,}" for key in ("labels", "flipped", "offered")]
        cells += [f"{found[key]:.0%}" for key in ("precision", "recall")]
        cells += ["–" if way is None else f"{way['precision']:.0%}" for way in others]
        print(f"| {name} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
