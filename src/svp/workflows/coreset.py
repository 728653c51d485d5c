"""Core-set selection: train the proxy on everything, keep what it finds worth keeping, train the target on that.

    proxy/seed-S/model-I        the proxy (I counts proxy.seeds), with signals
    selection/seed-S            what it chose
    target/ARM-EQUAL/seed-S     the target on the chosen part, on a random part, on everything

(Coleman et al. 2020, sections 3.2 and 4.3.)
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import combinations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svp import audit
from svp.config import PREVIOUS, CoresetConfig, TrainConfig
from svp.data.base import Dataset, silent
from svp.errors import BudgetError, DataError, MissingInput, SettingError, SvpWarning
from svp.evaluate import better, no_worse
from svp.files import Json
from svp.learners import find
from svp.learners.epochs import n_epochs, shown, steps_per_epoch
from svp.runs import Run
from svp.select import Selection, find_method, resolve_budget, select
from svp.words import unlearned
from svp.workflows.arms import Arm, answers, arm_facts, compare, told_apart
from svp.workflows.begin import begin, brought, chosen_from
from svp.workflows.check import check, check_arguments, has_test, labels_of, refuse_options, warn_of_the_hardest
from svp.workflows.outcomes import Fitted, Ranked, Show, Tested, kind_of
from svp.workflows.ranking import How, Pool
from svp.workflows.work import Work, model_seed


@dataclass(frozen=True)
class Chosen:
    """The proxies of one run seed, what they chose, and how the first of them does on the test part.

    A method that needs no model (random) has no proxies, and nothing to test; nor has data without a test part.
    facts  what speaks for and against the choice, for metrics.json
    """

    proxies: list[Fitted]
    ranked: Ranked
    tested: Tested | None
    facts: Json


@dataclass(frozen=True)
class Ready:
    """Settings and data as they will be run, looked at.

    load_seconds  what reading the data took; None where they were there
    earlier       the selection that is trained on in place of a choice
    budget        how many examples to keep
    judges        are targets trained and tested?
    """

    config: CoresetConfig
    dataset: Dataset
    load_seconds: float | None
    earlier: Selection | None
    budget: int
    judges: bool


def coreset(
    config: CoresetConfig,
    dataset: Dataset | None = None,
    *,
    out: str | Path | None = None,
    reuse: str | Path | Sequence[str | Path] = (),
    accept_code_change: bool = False,
    show: Show = silent,
) -> Run:
    """Choose what to keep of labelled data, and measure what it was worth.

    dataset  in place of the one that `config` names. Without a labelled test part the choice is not judged: no target is trained
    out      the run folder; default runs/DATASET-coreset-DIGEST, so that the same settings find the same folder
    reuse    other run folders, to take stages from that were made from exactly the same things
    Called again after an interruption, it continues inside the stage and ends in the same ids and metrics.
    Cost: the trainings. Files: docs/run_folder.md. Raises the errors of svp.errors, before anything is trained where it can.
    """
    ready = prepare(config, dataset, show)
    config, dataset, budget = ready.config, ready.dataset, ready.budget
    with begin(
        config, dataset, ready.load_seconds, out=out, reuse=reuse, accept_code_change=accept_code_change, show=show
    ) as work:
        chosen: dict[int, Chosen] = {}
        arms: list[Arm] = []
        for seed in config.run_seeds:
            if ready.earlier is None:
                chosen[seed] = _select(work, config, budget, seed)
                selection = chosen[seed].ranked.selection
                for doubt in unlearned([chosen[seed].facts]):  # before targets are trained on it
                    warnings.warn(doubt, SvpWarning, stacklevel=2)
            else:
                selection = ready.earlier.head(budget)
            if ready.judges:
                itself = chosen[seed].proxies[0] if _is_own_proxy(config) else None
                arms += _train_targets(work, config, selection, seed, itself)
            suffix = "" if seed == config.seed else f"-seed{seed}"
            inputs = selection.inputs or chosen_from(config, work.run)
            replace(selection, inputs=inputs).save(work.run.folder / f"selection{suffix}.parquet")
        return work.finish(config, chooses=ready.earlier is None, **_measured(work, config, budget, chosen, arms))


def prepare(config: CoresetConfig, dataset: Dataset | None, show: Show) -> Ready:
    """Read the data, and refuse what cannot come to a good end."""
    check_arguments("svp.coreset", CoresetConfig, config, dataset)
    if config.selection is not None:  # nobody chooses: what says how is no part of this run
        config = config.model_copy(update={name: CoresetConfig.model_fields[name].default for name in config.choosing})
    roles = ("target",) if config.selection else ("proxy", "target")
    config, dataset, load_seconds = brought(config, dataset, show, *roles)
    if config.proxy.features.source == PREVIOUS:
        raise SettingError(f"proxy.features {PREVIOUS!r} is for active learning; here there is no round before")
    judges = has_test(dataset) or bool(config.control) or config.selection is not None
    check(config, dataset, chooses=config.selection is None, judges=judges)
    if not find(config.target).is_net and ("steps" in config.equal or "short" in config.control):
        raise SettingError(
            f"{config.target.model} does not learn in steps; leave equal at epochs, and short out of control"
        )
    earlier = None if config.selection is None else _earlier(config.selection)
    budget = _budget(config, dataset, earlier)
    for seed in config.run_seeds if "random" in config.control else ():
        _refuse_one_class(dataset, "random", select("random", budget, ids=dataset.ids, seed=seed).ids)
    if earlier is None:
        refuse_options(config, len(dataset), budget)
        warn_of_the_hardest(config, len(dataset), budget)
    return Ready(config, dataset, load_seconds, earlier, budget, judges)


def _select(work: Work, config: CoresetConfig, budget: int, seed: int) -> Chosen:
    """Train the proxies of one run seed on everything, and let them choose."""
    ids, labels = work.dataset.ids, labels_of(work.dataset)
    n_models = config.proxy.seeds if find_method(config.method)[1].asks_model else 0
    fitted = [
        work.train(f"proxy/seed-{seed}/model-{i}", config.proxy, ids, labels, model_seed(seed, i))
        for i in range(n_models)
    ]
    ranked = _rank(work, config, f"selection/seed-{seed}", fitted, budget, seed)
    tests = fitted and has_test(work.dataset)
    tested = work.test(f"proxy/seed-{seed}/test", fitted[0]) if tests else None
    return Chosen(fitted, ranked, tested, _choice_facts(config, seed, fitted, ranked))


def _choice_facts(config: CoresetConfig, seed: int, proxies: list[Fitted], ranked: Ranked) -> Json:
    """What speaks for and against a choice before anything is trained on it: ties, and examples that no epoch got right.

    never_learned  of those kept and of all, by the first proxy; None where it recorded no signals
    """
    kept = np.isin(ranked.ids, ranked.selection.ids)
    facts: Json = {
        "seed": seed,
        "n": int(kept.sum()),
        "n_all": len(kept),
        "ties": None,
        "never_learned": None,
        "never_learned_of_all": None,
    }
    if kind_of(config.method) == "rank":
        facts["ties"] = audit.tied(ranked.scores, kept)
    if proxies and "signals" in proxies[0].gives:
        never = np.ones(len(kept), bool)
        for epoch in proxies[0].signals()["correct"]:  # an epoch at a time: they need not fit into memory
            never &= epoch != 1
        facts |= {"never_learned": int(never[kept].sum()), "never_learned_of_all": int(never.sum())}
    return facts


def _train_targets(
    work: Work, config: CoresetConfig, selection: Selection, seed: int, itself: Fitted | None
) -> list[Arm]:
    """Train and test the target of one run seed on every part that was asked for.

    itself  the proxy, where it is the target: then the target on everything stands already, and costs nothing
    """
    ids, labels = work.dataset.ids, labels_of(work.dataset)
    parts = {_first_arm(config): np.sort(selection.ids)}
    if "random" in config.control:
        parts["random"] = np.sort(select("random", len(selection), ids=ids, seed=seed).ids)
    arms = []
    for name, part in parts.items():
        _refuse_one_class(work.dataset, name, part)
        for equal in config.equal:
            train = config.target if equal == "epochs" else as_many_steps(config.target, len(part), len(ids))
            folder = f"target/{name}-{equal}/seed-{seed}"
            fitted = work.train(f"{folder}/model", train, part, labels[work.dataset.positions(part)], seed)
            arms.append(Arm(name, equal, seed, fitted, work.test(f"{folder}/test", fitted)))
    if "short" in config.control:
        train = as_many_steps(config.target, len(ids), len(selection))
        fitted = work.train(f"target/short-epochs/seed-{seed}/model", train, ids, labels, seed)
        arms.append(Arm("short", "epochs", seed, fitted, work.test(f"target/short-epochs/seed-{seed}/test", fitted)))
    if itself or "full" in config.control:
        fitted = itself or work.train(f"target/full/seed-{seed}/model", config.target, ids, labels, seed)
        arms.append(Arm("full", "epochs", seed, fitted, work.test(f"target/full/seed-{seed}/test", fitted)))
    return arms


def _refuse_one_class(dataset: Dataset, name: str, part: NDArray[np.int64]) -> None:
    """BudgetError for a part from which nothing can be learned."""
    who = {"random": "chance", "proxy": "the proxy", "selection": "the earlier selection"}[name]
    if len(there := np.unique(labels_of(dataset)[dataset.positions(part)])) < 2:
        raise BudgetError(
            f"the {len(part):,} examples of {dataset.name} that {who} keeps are all {dataset.classes[there[0]]}, one of "
            f"{len(dataset.classes)} classes, and a model learns nothing from these; keep more (--budget)"
        )


def as_many_steps(config: TrainConfig, n_part: int, n_whole: int) -> TrainConfig:
    """The same training with as many steps on `n_part` examples as it has on `n_whole`, to the nearest epoch, one at least."""
    part, whole = shown(config, n_part), shown(config, n_whole)
    n_steps = n_epochs(config, whole) * steps_per_epoch(config, whole)
    epochs = max(1, round(n_steps / steps_per_epoch(config, part)))
    return config.model_copy(update={"epochs": epochs, "min_steps": 0})


# --- what it was worth ----------------------------------------------------------------------------------------------------


def _measured(work: Work, config: CoresetConfig, budget: int, chosen: dict[int, Chosen], arms: list[Arm]) -> Json:
    """What metrics.json keeps of this workflow."""
    measured: Json = {
        "method": config.method if chosen else "an earlier selection",
        "budget": budget,
        "proxies": [_proxy_facts(work, seed, made, made.tested) for seed, made in chosen.items() if made.tested],
        "choices": [made.facts for made in chosen.values()],
        "arms": [arm_facts(work.dataset, arm, shared=_shares(config, chosen, arm)) for arm in arms],
        "comparisons": _comparisons(config, chosen, arms),
        "agreement": _agreements(work, config, budget, chosen, arms),
    }
    return {**measured, "payments": _payments(measured), "separation": _separation(work, config, chosen, arms)}


def _separation(work: Work, config: CoresetConfig, chosen: dict[int, Chosen], arms: list[Arm]) -> list[Json]:
    """Do the frozen features of the proxy tell the classes apart? One look: features and labels are the same for all seeds."""
    features = chosen[config.seed].proxies[0].features if chosen and chosen[config.seed].proxies else None
    if features is None or not arms:
        return []
    found = work.separation("separation", features, work.dataset.ids, labels_of(work.dataset))
    of_seed = sorted((arm for arm in arms if arm.seed == config.seed), key=lambda arm: arm.name != "full")
    return [told_apart(work.dataset, found, of_seed[0], config.seed)]


def _shares(config: CoresetConfig, chosen: dict[int, Chosen], arm: Arm) -> bool:
    """Was this arm chosen by a proxy that sees the same features?"""
    asked = arm.seed in chosen and bool(chosen[arm.seed].proxies)
    return asked and arm.name == "proxy" and config.proxy.features == config.target.features


def _proxy_facts(work: Work, seed: int, made: Chosen, tested: Tested) -> Json:
    facts = arm_facts(work.dataset, Arm("proxy model", "epochs", seed, made.proxies[0], tested))
    facts["seconds"] |= {
        "train": sum(f.seconds for f in made.proxies),
        **work.run.seconds(f"selection/seed-{seed}"),
        "test": tested.seconds,
    }
    return facts


def _comparisons(config: CoresetConfig, chosen: dict[int, Chosen], arms: list[Arm]) -> list[Json]:
    """The chosen part against chance and against everything; and the proxy itself against the target."""
    first = _first_arm(config)
    full, short = answers(arms, "full", "epochs"), answers(arms, "short", "epochs")
    unharmed = partial(no_worse, margin=config.margin)
    found = []
    for equal in config.equal:
        own, random = answers(arms, first, equal), answers(arms, "random", equal)
        if own is None:
            continue
        if random is not None:
            found.append(compare((first, "random", equal), "better", own, random, better))
        if short is not None and equal == "epochs":  # as many steps as these
            found.append(compare((first, "short", equal), "better", own, short, better))
        if full is not None:
            found.append(compare((first, "full", equal), "no worse", own, full, unharmed))
    itself = [made.tested.correct for made in chosen.values() if made.tested]
    if full is not None and itself and config.proxy != config.target:
        proxy_itself = np.stack(itself)
        found.append(compare(("proxy model", "full", "epochs"), "no worse", proxy_itself, full, unharmed))
    return found


def _agreements(
    work: Work, config: CoresetConfig, budget: int, chosen: dict[int, Chosen], arms: list[Arm]
) -> list[Json]:
    """Does the proxy rank as the target would; and, where there are two targets, as a second target would?"""
    rankings: dict[int, Ranked] = {}
    for arm in arms:
        if arm.name != "full" or not chosen or not chosen[arm.seed].proxies:
            continue
        if _is_own_proxy(config):  # the proxy's own ranking is the target's
            rankings[arm.seed] = chosen[arm.seed].ranked
            continue
        try:
            rankings[arm.seed] = _rank(
                work, config, f"target/full/seed-{arm.seed}/ranking", [arm.fitted], budget, arm.seed
            )
        except MissingInput:
            return []  # a target that cannot rank by this method has no ranking to agree with
    found = []
    if config.proxy != config.target:
        for seed, ranking in rankings.items():
            agreed = chosen[seed].ranked.agreement(ranking, config.method)
            found.append({"between": "proxy and target", "seeds": [seed, seed], **agreed.facts()})
    for (seed, ranking), (other, another) in combinations(rankings.items(), 2):
        agreed = ranking.agreement(another, config.method)
        found.append({"between": "target and target", "seeds": [seed, other], **agreed.facts()})
    return found


def _payments(measured: Json) -> list[Json]:
    """Seconds end to end against the full training, for each way of training on the proxy's choice.

    Features count on each side that needs them, once. None of an earlier selection: what that had cost is not known here.
    """
    counted = ("embed", "train", "score", "select")
    selecting = {p["seed"]: sum(p["seconds"].get(part, 0.0) for part in counted) for p in measured["proxies"]}
    training = {
        (a["arm"], a["equal"], a["seed"]): a["seconds"].get("embed", 0.0) + a["seconds"]["train"]
        for a in measured["arms"]
    }
    found = []
    for judged in measured["comparisons"]:
        if (judged["arm"], judged["against"]) == ("proxy", "full"):
            seeds = [seed for arm, _, seed in training if arm == "full"]
            own = [selecting.get(seed, 0.0) + training["proxy", judged["equal"], seed] for seed in seeds]
            full = [training["full", "epochs", seed] for seed in seeds]
            paid = audit.payment(own, full, judged["verdict"])
            found.append({"arm": "proxy", "equal": judged["equal"], **paid.facts()})
    return found


def _rank(work: Work, config: CoresetConfig, name: str, fitted: list[Fitted], budget: int, seed: int) -> Ranked:
    pool = Pool(work.dataset.ids, labels_of(work.dataset))
    return work.choose(name, fitted, pool, How(config.method, config.options, budget, seed))


def _is_own_proxy(config: CoresetConfig) -> bool:
    """Does the target choose for itself?"""
    return config.proxy == config.target and config.selection is None and find_method(config.method)[1].asks_model


def _first_arm(config: CoresetConfig) -> str:
    return "proxy" if config.selection is None else "selection"


def _earlier(path: Path) -> Selection:
    """The selection saved there; DataError where it weighs its examples."""
    selection = Selection.load(path)
    if len(weighed := selection.ids[selection.weights != 1]):
        raise DataError(
            f"{path}: {len(weighed)} of its weights are not 1, the first ids: {weighed[:3].tolist()}; training counts every "
            "example alike, so save it with weights of 1"
        )
    return selection


def _budget(config: CoresetConfig, dataset: Dataset, earlier: Selection | None) -> int:
    """How many to keep; at least the two that a training takes."""
    if earlier is not None:
        earlier.verify(dataset)
        budget = len(earlier) if config.budget is None else resolve_budget(config.budget, len(dataset))
        if budget > len(earlier):
            raise BudgetError(
                f"{config.budget} of {len(dataset):,} examples is {budget:,}, and {config.selection} holds {len(earlier):,}; "
                "give fewer, or leave budget out to keep them all"
            )
    else:
        budget = resolve_budget("50%" if config.budget is None else config.budget, len(dataset))
    if budget < 2:
        raise BudgetError(
            f"a budget of {budget} leaves nothing to train on; {dataset.name} has {len(dataset):,} examples, keep 2 at least"
        )
    return budget
