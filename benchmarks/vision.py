"""Vision: what selection by a proxy saves and what it costs, on CIFAR-10, 40 classes of Tiny ImageNet, and Caltech-101.

    python -m benchmarks.run vision --data DIR --work DIR [--only coreset]    the units; DIR: cifar10/, imagenet/, caltech101/
    python -m benchmarks.vision                                               tables for docs/results.md, of the result files
    python -m benchmarks.vision agreement --data DIR --work DIR               docs/agreement.svg: who ranks like whom
    python -m benchmarks.vision recording                                     what recording signals costs

A unit is one training of a target under one seed: at most 40 minutes where one thread trains preact20 at 450 images a second.
What units share is trained once: each takes from the run folders in --work whatever was made from the same things, those of
benchmarks.cifar10_coreset too.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import svp
from benchmarks.arms import COMPUTE, FULL, Paused, Scale, active_unit, coreset_unit, cut, pausing, until
from benchmarks.claims import Facts, Found, against, line, results, speed_up, table
from benchmarks.run import RESULTS, Unit
from svp.config import CoresetConfig, TrainConfig
from svp.data.base import Dataset
from svp.files import read_json

SEEDS = (0, 1, 2)

# --- data -----------------------------------------------------------------------------------------------------------------


def cifar10(data: Path, scale: Scale) -> Dataset:
    return cut(svp.load_dataset("cifar10", root=data / "cifar10"), scale)


def tiny_imagenet(data: Path, scale: Scale) -> Dataset:
    return cut(svp.load_dataset("imagenet", root=data / "imagenet", image_size=64), scale)


def caltech(data: Path, scale: Scale) -> Dataset:
    return cut(svp.load_dataset(str(data / "caltech101"), image_size=64), scale)


def count(n: int, scale: Scale) -> int:
    """A number of CIFAR-10's images, cut as these are: there are 5,000 of each class."""
    return n if scale.examples is None else max(2, n * scale.examples // 5000)


# --- which units ----------------------------------------------------------------------------------------------------------

# Active learning, CIFAR-10: who asks. None: nobody, labels are drawn at random.
ASKERS: dict[str, Callable[[Scale], TrainConfig] | None] = {
    "random": None,
    "target": lambda scale: scale.train("preact56", 30),
    "preact8-30": lambda scale: scale.train("preact8", 30),
    "preact8-10": lambda scale: scale.train("preact8", 10),
    "patchnet-10": lambda scale: scale.train("patchnet", 10),
    "linear-previous": lambda scale: scale.train("linear", 30, features="previous"),  # on features of the round before
}
TOTALS = (1000, 5000, 10_000)


def asking(asker: str) -> Callable[[Scale], Facts]:
    def settings(scale: Scale) -> Facts:
        proxy, target = ASKERS[asker], scale.train("preact56", 30)
        if proxy is None:
            return {"method": "random", "proxy": scale.train("preact8", 10), "target": target}
        return {"method": "entropy", "proxy": proxy(scale), "target": target}

    return settings


# Core-sets of CIFAR-10: (share kept, proxy, its epochs, method) and the seeds.
KEPT: dict[tuple[str, str, int, str], tuple[int, ...]] = {
    ("50%", "preact8", 5, "forgetting"): SEEDS,
    ("50%", "preact8", 10, "forgetting"): SEEDS,
    ("50%", "patchnet", 10, "forgetting"): SEEDS,
    **{("30%", "preact8", 15, method): SEEDS for method in ("forgetting", "ccs-drop10", "random")},
    **{("10%", "preact8", 15, method): SEEDS for method in ("forgetting", "ccs-drop30", "ccs", "random")},
    **{("10%", "preact8", 15, method): SEEDS for method in ("moderate", "facility_location")},
    **{(share, "preact8", 15, method): SEEDS[:1] for share in ("30%", "10%") for method in ("d2", "el2n")},
    ("10%", "preact8", 15, "ccs-drop50"): SEEDS[:1],
}
# CCS without the hardest: Zheng et al. 2023 leave out a tenth where 30 % is kept, and three tenths where 10 % is.
DROPPING = {f"ccs-drop{tenths}0": {"method": "ccs", "options": {"drop": tenths / 10}} for tenths in (1, 3, 5)}


def keeping(share: str, proxy: str, epochs: int, method: str) -> Callable[[Scale], Facts]:
    def settings(scale: Scale) -> Facts:
        return {
            **DROPPING.get(method, {"method": method}),
            "budget": share,
            "proxy": scale.train(proxy, epochs),
            "target": scale.train("preact20", 40),
        }

    return settings


@dataclass(frozen=True)
class Photos:
    """A folder of photos: for how many epochs proxy and target are trained, and the totals of labels.

    The target has a stem for small images, and a quarter of the width for an hour: at half of it one thread trains 40 images a
    second or so.
    """

    load: Callable[[Path, Scale], Dataset]
    epochs: int
    totals: tuple[int, ...]

    def settings(self, scale: Scale, **more: Any) -> Facts:
        target = scale.train("resnet18-small", self.epochs, width=0.25)
        return {"proxy": scale.train("patchnet", self.epochs), "target": target, **more}


PHOTOS = {
    "tiny": Photos(tiny_imagenet, 10, (2000, 5000, 8000)),
    "caltech": Photos(caltech, 40, (600, 1200, 1800)),
}


def units(scale: Scale = FULL) -> list[Unit]:
    """All of them, in an order in which later ones find what earlier ones trained."""
    return [*_active(scale), *_coreset(scale), *_photos(scale), *_whole(scale)]


def _unit(name: str, function: Callable[..., Facts], *given: Any, scale: Scale) -> Unit:
    return Unit(name, partial(function, name, *given, scale=scale))


def _chosen(name: str, unit: Callable[..., Facts], last: str) -> Unit:
    """The unit until its last training begins. Choosing and that training are longer than one unit, and choosing is what wants
    the machine to itself, to be timed."""
    return Unit(f"{name}-chosen", partial(until, unit, last, 0))


def _active(scale: Scale) -> Iterator[Unit]:
    for seed in SEEDS:
        for asker in ASKERS:
            name, counts = f"active-{asker}-seed{seed}", tuple(count(n, scale) for n in TOTALS)
            unit = partial(active_unit, name, cifar10, asking(asker), counts, seed, scale=scale)
            if asker != "random":
                yield _chosen(name, unit, f"training preact56 on {counts[-1]:,} examples")
            yield Unit(name, unit)


def _coreset(scale: Scale) -> Iterator[Unit]:
    for (share, proxy, epochs, method), seeds in KEPT.items():
        for seed in seeds:
            name = f"coreset-{share.rstrip('%')}-{proxy}-{epochs}-{method}-seed{seed}"
            settings = keeping(share, proxy, epochs, method)
            unit = partial(coreset_unit, name, cifar10, settings, "proxy", seed, scale=scale)
            if share == "50%":
                yield _chosen(name, unit, f"training preact20 on {count(25_000, scale):,} examples")
            yield Unit(name, unit)


def _photos(scale: Scale) -> Iterator[Unit]:
    for name, photos in PHOTOS.items():
        half = partial(photos.settings, method="forgetting", budget="50%")
        for arm in ("proxy", "random", "full"):
            yield _unit(f"{name}-coreset-{arm}-seed0", coreset_unit, photos.load, half, arm, 0, scale=scale)
        for method in ("margin", "random"):
            asks = partial(photos.settings, method=method)
            counts = tuple(count(n, scale) for n in photos.totals)
            yield _unit(f"{name}-active-{method}-seed0", active_unit, photos.load, asks, counts, 0, scale=scale)


WHOLE_EPOCHS, WHOLE_PARTS = 12, 2


def whole_unit(name: str, part: int, seed: int, data: Path, work: Path, scale: Scale = FULL) -> Facts:
    """Train preact56 on all images, for `agreement`: longer than one unit, so that each trains a part of the epochs."""
    epochs = scale.train("preact56", WHOLE_EPOCHS).epochs
    last = epochs * part // WHOLE_PARTS
    settings = {
        **keeping("10%", "preact56", WHOLE_EPOCHS, "entropy")(scale),
        "target": scale.train("patchnet", 1),
        "seed": seed,
        "compute": COMPUTE,
    }
    dataset = cifar10(data, scale)
    shown = pausing(f"training preact56 on {len(dataset):,} examples", last)
    with suppress(Paused):
        svp.coreset(CoresetConfig.make({"dataset": dataset.name, **settings}), dataset, out=work / name, show=shown)
    return {"model": "preact56", "seed": seed, "epochs": last, "of": epochs}


def _whole(scale: Scale) -> Iterator[Unit]:
    for seed in SEEDS[:2]:
        for part in range(1, WHOLE_PARTS + 1):
            run = partial(whole_unit, f"whole-preact56-seed{seed}", part, seed, scale=scale)
            yield Unit(f"whole-preact56-seed{seed}-part{part}", run)


UNITS = units()

# --- tables ---------------------------------------------------------------------------------------------------------------


def tables() -> None:
    """The tables of docs/results.md. Seconds stand in them only where the unit had the machine to itself."""
    found, flow = results("vision"), results("cifar10_coreset")
    _active_table(found)
    _coreset_table(found, {"a random half": flow.get("random-epochs", {}), "everything": flow.get("full-epochs", {})})
    for name, title in (("tiny", "Tiny ImageNet, 40 classes"), ("caltech", "Caltech-101")):
        _photos_table(found, name, title)
    _unlearned_table(found)


def _active_table(found: Found) -> None:
    asked = {asker: found.get(f"active-{asker}", {}) for asker in ASKERS}
    rows = [
        line(
            asker,
            by_seed,
            against(by_seed, asked["random"], "better"),
            against(by_seed, asked["target"], "no worse"),
            speed_up(_timed("target", asked["target"]), _timed(asker, by_seed)),
        )
        for asker, by_seed in asked.items()
        if by_seed
    ]
    heads = ["minus random", "minus the target's own", "selection, times faster"]
    table(f"CIFAR-10, active learning up to {TOTALS[-1]:,}", heads, rows)


def _timed(asker: str, by_seed: dict[int, Facts]) -> dict[int, Facts]:
    """With `quiet` of the part that chose: what the last training shared its machine with does not count."""
    paths = {seed: RESULTS / "vision" / f"active-{asker}-seed{seed}-chosen.json" for seed in by_seed}
    quiet = {seed: path.exists() and read_json(path)["quiet"] for seed, path in paths.items()}
    return {seed: {**result, "quiet": quiet[seed]} for seed, result in by_seed.items()}


def _coreset_table(found: Found, halves: Found) -> None:
    kept = {arm: by_seed for arm, by_seed in found.items() if arm.startswith("coreset-")}
    rows = [line(arm, by_seed) + " | |" for arm, by_seed in halves.items() if by_seed]
    for arm, by_seed in kept.items():
        share = arm.split("-")[1]
        chance = halves["a random half"] if share == "50" else found.get(f"coreset-{share}-preact8-15-random", {})
        full = halves["everything"]
        rows.append(line(arm, by_seed, against(by_seed, chance, "better"), against(by_seed, full, "no worse")))
    table("CIFAR-10, core-sets for preact20", ["minus random", "minus everything"], rows)


def _photos_table(found: Found, name: str, title: str) -> None:
    rows = []
    for workflow in ("coreset", "active"):
        arms = {arm: by_seed for arm, by_seed in found.items() if arm.startswith(f"{name}-{workflow}-")}
        chance, full = arms.get(f"{name}-{workflow}-random", {}), found.get(f"{name}-coreset-full", {})
        rows += [line(arm, s, against(s, chance, "better"), against(s, full, "no worse")) for arm, s in arms.items()]
    table(f"{title}, for resnet18-small of a quarter of its width", ["minus random", "minus everything"], rows)


def _unlearned_table(found: Found) -> None:
    """Which share of a choice the proxy got right in no epoch, beside how far the choice is from chance."""
    rows = []
    for arm, by_seed in found.items():
        told = {seed: result for seed, result in by_seed.items() if result.get("never_learned") is not None}
        chance = found.get("tiny-coreset-random" if arm.startswith("tiny") else f"{arm[:10]}-preact8-15-random", {})
        seeds = sorted(told.keys() & chance.keys())
        if seeds and told is not chance:
            shares = ", ".join(f"{100 * told[seed]['never_learned']:.1f}" for seed in seeds)
            gaps = [100 * (told[seed]["accuracy"] - chance[seed]["accuracy"]) for seed in seeds]
            rows.append((gaps, f"| {arm} | {shares} | {', '.join(f'{gap:+.1f}' for gap in gaps)} |"))
    print(
        "\n## What the proxy never got right\n\n| choice | of what is kept, %, by seed | minus random, by seed |\n|---|---|---|"
    )
    print(*(row for _, row in sorted(rows, reverse=True)), sep="\n")


# --- do they rank alike? --------------------------------------------------------------------------------------------------

Rankings = dict[str, NDArray[np.float64]]  # by method, (n,) higher = taken first


def trained_on_all(work: Path, dataset: Dataset) -> Iterator[tuple[str, int, TrainConfig, Path]]:
    """Models of finished stages that saw every example, each once: name, seed, settings, folder."""
    from svp.files import digest

    seen = set()
    for path in sorted(work.glob("*/config.toml")):
        if "labelled" in path.read_text():
            continue
        config = CoresetConfig.load(path)
        for role, pattern in (("proxy", "proxy/seed-*/model-0"), ("target", "target/full/seed-*/model")):
            for mark in sorted(path.parent.glob(f"{pattern}/done.json")):
                made = read_json(mark)["made_from"]
                train: TrainConfig = getattr(config, role)
                key = (train.model, train.epochs, int(next(p for p in mark.parts if p.startswith("seed-"))[5:]))
                if made["ids"] == digest(dataset.ids) and made["dataset"] == dataset.fingerprint and key not in seen:
                    seen.add(key)
                    yield f"{train.model} ({train.epochs})", key[2], train, mark.parent


def rankings(train: TrainConfig, folder: Path, dataset: Dataset) -> Rankings:
    """How one trained model orders all examples, by three methods."""
    from svp.config import ComputeConfig
    from svp.learners import make_learner
    from svp.learners.compute import decide
    from svp.signals import Signals

    learner = make_learner(train, dataset, seed=0, compute=decide(ComputeConfig.make(COMPUTE)))
    learner.load(folder)
    outputs = learner.predict(dataset, dataset.ids, embeddings=True)
    order = svp.select("k_center", len(dataset), embeddings=outputs.embeddings, ids=dataset.ids, seed=0).ids
    place = np.empty(len(dataset))
    place[dataset.positions(order)] = -np.arange(len(dataset))
    return {
        "forgetting": svp.score("forgetting", signals=Signals.open(folder / "signals").kinds()),
        "entropy": svp.score("entropy", probs=outputs.probs),
        "k_center": place,
    }


def agreement(data: Path, work: Path, figure: Path, scale: Scale = FULL) -> list[Facts]:
    """Spearman between every two of the recorded models, by method; two seeds of one model are the ceiling. Draws `figure`."""
    from svp.audit import agreement as agreed

    dataset = cifar10(data, scale)
    found = [
        (name, seed, rankings(train, folder, dataset)) for name, seed, train, folder in trained_on_all(work, dataset)
    ]
    pairs = []
    for (one, seed, own), (another, other_seed, other) in combinations(found, 2):
        ceiling = one == another
        if not ceiling and seed != other_seed:
            continue  # pairs of different models share their seed, as proxy and target of a run do
        for method in own:
            spearman = agreed(own[method], other[method], len(dataset) // 2).spearman
            between = f"{one}: two runs" if ceiling else f"{one} and {another}"
            pairs.append(
                {
                    "method": method,
                    "between": between,
                    "seeds": [seed, other_seed],
                    "ceiling": ceiling,
                    "spearman": spearman,
                }
            )
    if pairs:
        draw(pairs, figure)
    for pair in pairs:
        print(json.dumps(pair))
    return pairs


def draw(pairs: list[Facts], figure: Path) -> None:
    """A point for each pair of trainings, a row for each pair of models (epochs)."""
    import altair as alt

    shown = [{**pair, "kind": "run to run" if pair["ceiling"] else "small and large"} for pair in pairs]
    chart = (
        alt.Chart(alt.Data(values=shown), width=180)  # type: ignore[no-untyped-call]
        .mark_point(filled=True, size=60)
        .encode(
            x=alt.X("spearman:Q", title="Spearman's rank correlation", scale=alt.Scale(zero=True, domainMax=1)),
            y=alt.Y("between:N", title=None, axis=alt.Axis(labelLimit=400)),
            color=alt.Color("kind:N", title=None),
            column=alt.Column("method:N", title=None),
        )
    )
    chart.save(str(figure))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", choices=["tables", "agreement", "recording"], default="tables")
    parser.add_argument("--data", type=Path)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--figure", type=Path, default=RESULTS.parents[1] / "docs" / "agreement.svg")
    arguments, rest = parser.parse_known_args()
    if arguments.what == "recording":
        from benchmarks import recording

        recording.main(rest)
    elif rest:
        parser.error(f"unknown: {' '.join(rest)}")
    elif arguments.what == "tables":
        tables()
    elif arguments.data is None or arguments.work is None:
        parser.error("agreement needs --data and --work")
    else:
        agreement(arguments.data, arguments.work, arguments.figure)


if __name__ == "__main__":
    main()
