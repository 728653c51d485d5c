"""Text: what selection by fastText saves and what it costs, on Amazon reviews by polarity and by stars.

    python -m benchmarks.run text --data DIR --work DIR [--only polarity-active]    the units; DIR holds amazon/
    python -m benchmarks.text                                            tables for docs/results.md, of the result files
    pip install --no-deps --target WORK/fasttext-ng fasttext-ng==0.9.3   first, for the units with fasttext-ng in their name

A unit is one training of a target under one seed, or a part of one: at most 40 minutes where one thread trains vdcnn9 at 80
texts a second and vdcnn29 at 27. What units share is trained once. Speed-ups of selection are reckoned from counts of texts and
the rates of the units named `rates`, which want the machine to themselves (one core is enough); where all units of an arm had it,
too, those that were timed stand beside.
"""

import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray

import svp
from benchmarks import fasttext_ng
from benchmarks.arms import COMPUTE, FULL, Scale, active_unit, coreset_unit, cut, until
from benchmarks.claims import Facts, Found, against, line, results, speed_up, table
from benchmarks.run import RESULTS, Unit, as_bits
from svp.chance import shuffled
from svp.config import ComputeConfig, TrainConfig, read_toml
from svp.data.base import Dataset
from svp.learners import find, make_learner
from svp.select import resolve_budget
from svp.words import NEAR

RECIPES = Path(svp.__file__).parent / "recipes"
SEEDS, MANY_SEEDS = (0, 1, 2), (0, 1, 2, 3, 4)
ROWS = {
    "polarity": 66_576,
    "full": 20_191,
}  # about, of the shared data: units are cut by them, nothing is measured with them
TEXTS_A_UNIT = {"vdcnn9": 160_000, "vdcnn29-conv": 56_000}  # that one thread trains in 35 minutes
SCORING = 1 / 3  # of the time that training takes
LINEAR = "hashed-linear"
ASKERS = ("random", "target", "fasttext")
# (data, target): totals, the first drawn at random; seeds. As the shorter recipes: one epoch at each rate of the paper.
ACTIVE: dict[tuple[str, str], tuple[tuple[str, ...], tuple[int, ...]]] = {
    ("polarity", "vdcnn9"): (("10%", "20%", "40%"), SEEDS),
    ("full", "vdcnn9"): (("20%", "40%"), SEEDS),
    ("polarity", "vdcnn29-conv"): (("10%", "20%", "40%"), SEEDS[:1]),
}
# (data, target): shares kept, by fastText's entropy; seeds.
KEPT: dict[tuple[str, str], tuple[tuple[str, ...], tuple[int, ...]]] = {
    ("polarity", LINEAR): (("80%", "60%"), MANY_SEEDS),
    ("full", LINEAR): (("80%", "60%"), MANY_SEEDS),
    ("full", "vdcnn9"): (("80%",), SEEDS[:1]),
    ("polarity", "vdcnn9"): (("80%",), SEEDS[:1]),
}


def load(kind: str, data: Path, scale: Scale) -> Dataset:
    return cut(svp.load_dataset(f"amazon-{kind}", root=data / "amazon"), scale)


def asking(kind: str, model: str, asker: str, scale: Scale) -> Facts:
    """As the shorter recipe has it, but for who asks. The target asking for itself is tested at the first total, too."""
    recipe = read_toml(RECIPES / f"amazon-{kind}-active-short.toml")
    target, proxy = scale.train(**{**recipe["target"], "model": model}), scale.train(**recipe["proxy"])
    if asker == "random":
        return {"method": "random", "proxy": proxy, "target": target}
    return {"method": recipe["method"], "proxy": {"target": target, "fasttext": proxy}[asker], "target": target}


def keeping(kind: str, model: str, share: str, scale: Scale) -> Facts:
    recipe = read_toml(RECIPES / f"amazon-{kind}-coreset-short.toml")
    target = TrainConfig(model=LINEAR) if model == LINEAR else scale.train(**{**recipe["target"], "model": model})
    return {"method": recipe["method"], "budget": share, "proxy": scale.train(**recipe["proxy"]), "target": target}


# --- fastText beside fasttext-ng, and rates -------------------------------------------------------------------------------


def fasttext_unit(kind: str, seed: int, data: Path, work: Path, scale: Scale = FULL) -> Facts:
    """Ours, trained on everything."""
    dataset, config = load(kind, data, scale), _fasttext(kind, scale)
    assert dataset.labels is not None
    assert dataset.test is not None
    with TemporaryDirectory(dir=work) as folder:
        learner = make_learner(config, dataset, seed=seed)
        learner.fit(dataset, dataset.ids, dataset.labels, folder=Path(folder))
    return _tested(dataset, config, seed, learner.predict(dataset.test, dataset.test.ids).probs)


def fasttext_ng_unit(kind: str, seed: int, data: Path, work: Path, scale: Scale = FULL) -> Facts:
    """Theirs, with the same settings, from a file in an order drawn by the seed."""
    dataset, config = load(kind, data, scale), _fasttext(kind, scale)
    assert dataset.labels is not None
    assert dataset.test is not None
    package = fasttext_ng.module(work)
    with TemporaryDirectory(dir=work) as folder:
        order, path = shuffled(dataset.ids, seed, "order"), Path(folder) / "train.txt"
        fasttext_ng.write(path, dataset.inputs[order], dataset.labels[order])
        model = fasttext_ng.train(package, path, config, seed)
    prepared = [fasttext_ng.words(text) for text in dataset.test.inputs[:]]
    return _tested(dataset, config, seed, fasttext_ng.predict(model, prepared, len(dataset.classes)))


def _fasttext(kind: str, scale: Scale) -> TrainConfig:
    return scale.train(**read_toml(RECIPES / f"amazon-{kind}-active-short.toml")["proxy"])


def _tested(dataset: Dataset, config: TrainConfig, seed: int, probs: NDArray[np.float32]) -> Facts:
    assert dataset.test is not None
    correct = probs.argmax(axis=1) == dataset.test.labels
    facts = {"model": config.model, "seed": seed, "n": len(dataset), "epochs": config.epochs}
    return {**facts, "accuracy": float(correct.mean()), "n_test": len(correct), "correct": as_bits(correct)}


def rates_unit(model: str, data: Path, work: Path, scale: Scale = FULL) -> Facts:
    """Texts a second of Review Polarity that one thread tokenises, trains (a net: after its first epoch) and scores."""
    from svp.learners.compiled import may_repay
    from svp.learners.compute import decide

    dataset = load("polarity", data, scale)
    config = scale.train(**{**asking("polarity", model, "target", scale)["target"].model_dump(), "epochs": 2})
    if model == "fasttext":
        config = _fasttext("polarity", scale)
    net, compiling = find(config).is_net, "on" if may_repay() else "off"  # as the long trainings of the units are
    learner = make_learner(config, dataset, seed=0, compute=decide(ComputeConfig(**{**COMPUTE, "compile": compiling})))
    assert dataset.labels is not None
    ids = np.sort(dataset.ids[shuffled(dataset.ids, 0, "rates")[: min(len(dataset), 2048 if net else 20_000)]])
    learner.predict(dataset, ids[:600])  # whatever is made when it is first asked for
    with TemporaryDirectory(dir=work) as folder:
        tokenise = _seconds(lambda: _tokenised(dataset, config, Path(folder) / "cache"))
        begin = time.perf_counter()
        records = learner.fit(dataset, ids, dataset.labels[dataset.positions(ids)], folder=Path(folder))
        train = records[-1]["seconds"] if net else (time.perf_counter() - begin) / len(records)
    pool = ids if net else dataset.ids
    score = _seconds(lambda: learner.predict(dataset, pool))
    return {
        "model": model,
        "texts_a_second": {
            "tokenise": len(dataset) / tokenise,
            "train": len(ids) / train,
            "score": len(pool) / score,
        },
    }


def _tokenised(dataset: Dataset, config: TrainConfig, cache: Path) -> object:
    """Made anew, in a cache of its own."""
    from svp.learners.characters import characters_of
    from svp.learners.fasttext import words_of

    return (characters_of if find(config).is_net else words_of)(replace(dataset, cache=cache))


def _seconds(work: Callable[[], object]) -> float:
    begin = time.perf_counter()
    work()
    return time.perf_counter() - begin


# --- which units ----------------------------------------------------------------------------------------------------------


def units(scale: Scale = FULL) -> list[Unit]:
    """All of them, cheap ones first, in an order in which later ones find what earlier ones trained."""
    cheap = [*_fasttexts(scale), *_rates(scale)]
    return [*cheap, *_coreset(scale), *_active(scale)]


def _fasttexts(scale: Scale) -> Iterator[Unit]:
    for kind in ROWS:
        for seed in MANY_SEEDS:
            for name, function in (("fasttext", fasttext_unit), ("fasttext-ng", fasttext_ng_unit)):
                yield Unit(f"{kind}-{name}-seed{seed}", partial(function, kind, seed, scale=scale))


def _rates(scale: Scale) -> Iterator[Unit]:
    for model in ("fasttext", *TEXTS_A_UNIT):
        yield Unit(f"rates-{model}", partial(rates_unit, model, scale=scale))


def _coreset(scale: Scale) -> Iterator[Unit]:
    for (kind, model), (shares, seeds) in KEPT.items():
        for seed in seeds:
            for share, arm in [*((share, arm) for share in shares for arm in ("proxy", "random")), (shares[0], "full")]:
                of = (kind, model) if arm == "full" else (kind, model, share.rstrip("%"))
                name = "-".join([kind, "coreset", *of[1:], arm, f"seed{seed}"])
                unit = partial(
                    coreset_unit,
                    name,
                    partial(load, kind),
                    partial(keeping, kind, model, share),
                    arm,
                    seed,
                    scale=scale,
                )
                trained = [] if model == LINEAR else ["100%" if arm == "full" else share]
                yield from _in_parts(name, unit, kind, model, trained, scores=False, scale=scale)


def _active(scale: Scale) -> Iterator[Unit]:
    for (kind, model), (totals, seeds) in ACTIVE.items():
        for seed in seeds:
            for asker in ASKERS:
                for i in range(1, len(totals)):
                    name = arm_name(kind, model, asker, totals[i]) + f"-seed{seed}"
                    settings = partial(_evaluated, partial(asking, kind, model, asker), totals[: i + 1], asker)
                    unit = partial(active_unit, name, partial(load, kind), settings, totals[: i + 1], seed, scale=scale)
                    own = asker == "target"
                    trained = list(totals[:2] if own and i == 1 else totals[i : i + 1])
                    yield from _in_parts(name, unit, kind, model, trained, scores=own, scale=scale)


def arm_name(kind: str, model: str, asker: str, total: str) -> str:
    return f"{kind}-active-{model}-{asker}-{total.rstrip('%')}"


def _evaluated(settings: Callable[[Scale], Facts], totals: Sequence[str], asker: str, scale: Scale) -> Facts:
    """Where the target asks, its accuracy at the first total says whether it knew anything to ask by."""
    return {**settings(scale), "evaluate": [totals[0], totals[-1]] if asker == "target" else [totals[-1]]}


def _in_parts(
    name: str, unit: Callable[..., Facts], kind: str, model: str, trained: Sequence[str], *, scores: bool, scale: Scale
) -> Iterator[Unit]:
    """The unit, and before it as many parts as keep each under 40 minutes. trained: the target's trainings, by their share."""
    shares = [float(share.rstrip("%")) / 100 for share in trained]
    ends = stops(shares, ROWS[kind], TEXTS_A_UNIT[model], scores) if trained else []
    for number, (i, epoch) in enumerate(ends, 1):
        part = partial(_part, unit, kind, model, trained[i], epoch, scale)
        yield Unit(f"{name}-part{number}", part)
    yield Unit(name, unit)


def stops(shares: Sequence[float], n: int, limit: int, scores: bool, epochs: int = 5) -> list[tuple[int, int]]:
    """Where to stop so that no part trains more than `limit` texts, if one epoch does not: (number of the training, its epochs).

    shares  of the n texts in each training
    scores  the model scores the rest of the pool before each training but the first, and before one alone
    """
    done, points = 0.0, []
    for i, share in enumerate(shares):
        done += SCORING * n if scores and (i or len(shares) == 1) else 0.0
        for epoch in range(epochs):  # the end of the last one is the beginning of the next training
            points.append((done, (i, epoch)))
            done += share * n
    ends, before = [], 0.0
    for (cost, stop), following in zip(points, [*(cost for cost, _ in points[1:]), done], strict=True):
        if following - before > limit and cost > before:
            ends.append(stop)
            before = cost
    return ends


def _part(
    unit: Callable[..., Facts], kind: str, model: str, share: str, epoch: int, scale: Scale, data: Path, work: Path
) -> Facts:
    n = resolve_budget(share, len(load(kind, data, scale)))
    return until(unit, f"training {model} on {n:,} examples", epoch, data, work)


UNITS = units()

# --- tables ---------------------------------------------------------------------------------------------------------------


def tables() -> None:
    """The tables of docs/results.md."""
    found = results("text")
    for (kind, model), (totals, _) in ACTIVE.items():
        for total in totals[1:]:
            _active_table(found, kind, model, total)
    for (kind, model), (shares, _) in KEPT.items():
        _coreset_table(found, kind, model, shares)
    for kind in ROWS:
        _fasttext_table(found, kind)


def _active_table(found: Found, kind: str, model: str, total: str) -> None:
    arms = {asker: arm_name(kind, model, asker, total) for asker in ASKERS}
    asked = {asker: found.get(arm, {}) for asker, arm in arms.items()}
    target = _alone(arms["target"], asked["target"])
    lines = [
        line(
            asker,
            by_seed,
            against(by_seed, asked["random"], "better"),
            against(by_seed, asked["target"], "no worse"),
            speed_up(target, _alone(arms[asker], by_seed)),
        )
        for asker, by_seed in asked.items()
        if by_seed
    ]
    heads = ["minus random", "minus the target's own", "selection, times faster as timed"]
    table(f"Amazon Review {kind.capitalize()}, {model}, {total} labelled by least confidence", heads, lines)
    for seed, own in sorted(asked["target"].items()):
        print(informed(own, f"{model}, seed {seed}"))
    for own in list(asked["target"].values())[:1]:
        print(reckoned(own, rates(model), rates("fasttext"), model))


def _coreset_table(found: Found, kind: str, model: str, shares: Sequence[str]) -> None:
    full = found.get(f"{kind}-coreset-{model}-full", {})
    lines = [line("everything", full, "", "")] if full else []
    for share in shares:
        name = f"{kind}-coreset-{model}-{share.rstrip('%')}"
        chosen, chance = found.get(f"{name}-proxy", {}), found.get(f"{name}-random", {})
        lines += [
            line(f"{share} {how}", by_seed, against(by_seed, chance, "better"), against(by_seed, full, "no worse"))
            for how, by_seed in (("by fastText", chosen), ("at random", chance))
            if by_seed
        ]
    table(f"Amazon Review {kind.capitalize()}, core-sets for {model}", ["minus random", "minus everything"], lines)


def _fasttext_table(found: Found, kind: str) -> None:
    arms = {name: found.get(f"{kind}-{name}", {}) for name in ("fasttext", "fasttext-ng")}
    lines = [line(name, s, against(s, arms["fasttext-ng"], "no worse")) for name, s in arms.items() if s]
    table(f"Amazon Review {kind.capitalize()}, fastText trained on everything", ["minus fasttext-ng"], lines)


def _alone(arm: str, by_seed: dict[int, Facts]) -> dict[int, Facts]:
    """With `quiet` of all parts of each unit."""
    return {seed: {**result, "quiet": _quiet(f"{arm}-seed{seed}", result)} for seed, result in by_seed.items()}


def _quiet(unit: str, result: Facts) -> bool:
    parts = [json.loads(path.read_text()) for path in (RESULTS / "text").glob(f"{unit}-part*.json")]
    return all(part.get("quiet") for part in (result, *parts))


def informed(own: Facts, who: str) -> str:
    """Did the target know anything when it first asked?"""
    first, rate = min(own["accuracies"], key=int), own["majority_rate"]
    accuracy = own["accuracies"][first]
    said = (
        f"{who}: {100 * accuracy:.2f} % with the first {int(first):,} labels, the most common class {100 * rate:.2f} %"
    )
    if accuracy < rate + NEAR:
        return f"{said}: its own selection carries no information."
    return f"{said}."


def rates(model: str) -> Facts | None:
    path = RESULTS / "text" / f"rates-{model}.json"
    return json.loads(path.read_text()) if path.exists() else None


def reckoned(own: Facts, target: Facts | None, proxy: Facts | None, model: str) -> str:
    """Seconds of selection from counts of texts and rates, by stage, and how many times fewer they are with fastText."""
    if target is None or proxy is None:
        return f"Speed-up: not reckoned, the units rates-{model} and rates-fasttext are needed."
    sides = {name: selection(own, side["texts_a_second"]) for name, side in ((model, target), ("fastText", proxy))}
    said = "; ".join(
        f"{name} {sum(parts.values()):,.0f} s ({', '.join(f'{part} {s:,.1f}' for part, s in parts.items())})"
        for name, parts in sides.items()
    )
    busy = "" if target.get("quiet") and proxy.get("quiet") else "; the rates were taken on a busy machine: not a claim"
    ratio = sum(sides[model].values()) / sum(sides["fastText"].values())
    return f"Selection up to {own['labelled'][-1]:,} labels, by counts and rates: {said}: {ratio:.1f} times{busy}."


def selection(own: Facts, rate: dict[str, float], epochs: int = 5) -> dict[str, float]:
    """Seconds by stage of asking up to the last total: the trainings and passes over the pool before it; texts are read once."""
    before, n = own["labelled"][:-1], own["n_pool"]
    return {
        "tokenising": n / rate["tokenise"],
        "training": epochs * sum(before) / rate["train"],
        "scoring": sum(n - total for total in before) / rate["score"],
    }


if __name__ == "__main__":
    tables()
