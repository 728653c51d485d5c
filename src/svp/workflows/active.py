"""Active learning with a simulated oracle: how much labelling would have been saved, and what choosing cost.

    sessions/ARM-seed-S/            one labelling effort each (workflows/session.py), a folder that stands alone
    target/ARM-TOTAL/seed-S         the target on the labels that the arm had at that total

(Coleman et al. 2020, sections 3.1 and 4.2.) The loop itself is `Session.ask` and `.tell`; here somebody only plays the people.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from svp.config import PREVIOUS, ActiveConfig, RunConfig
from svp.data.base import Dataset, silent
from svp.errors import BudgetError, SettingError
from svp.evaluate import better, labels_needed, no_worse
from svp.files import Json
from svp.labels import Batch
from svp.runs import SIMULATED, Run, check_files
from svp.select import find_method, resolve_budget
from svp.workflows import hindsight
from svp.workflows.arms import Arm, answers, arm_facts, compare, told_apart
from svp.workflows.begin import begin, brought, chosen_from
from svp.workflows.check import check, check_arguments, check_needs, labels_of, refuse_options
from svp.workflows.outcomes import Ranked, Show
from svp.workflows.session import Session
from svp.workflows.work import Work


class Oracle:
    """Answers questions from known labels, exactly as a person would: through `tell`, and only what was asked."""

    def __init__(self, dataset: Dataset) -> None:
        self._dataset, self._labels = dataset, labels_of(dataset)

    def __call__(self, batch: Batch) -> dict[int, int]:
        """Class numbers by id."""
        labels = self._labels[self._dataset.positions(batch.ids)]
        return dict(zip(batch.ids.tolist(), labels.tolist(), strict=True))


@dataclass(frozen=True)
class Ready:
    """Settings and data as they will be run, looked at.

    load_seconds  what reading the data took; None where they were there
    totals, at    labels after each round, and those of them at which the target is evaluated
    """

    config: ActiveConfig
    dataset: Dataset
    load_seconds: float | None
    totals: list[int]
    at: list[int]


def active(
    config: ActiveConfig,
    dataset: Dataset | None = None,
    *,
    out: str | Path | None = None,
    reuse: str | Path | Sequence[str | Path] = (),
    accept_code_change: bool = False,
    show: Show = silent,
) -> Run:
    """Choose what to label, round by round, and measure what it was worth.

    Every arm (the proxy, and on request chance and the target itself) starts from the same random examples. The target is trained
    on what each arm had labelled at the totals to evaluate; where an arm's own model is the target, that model is the one
    evaluated. Arguments, resuming and errors: as `coreset`.
    """
    ready = prepare(config, dataset, show)
    config, dataset, totals, at = ready.config, ready.dataset, ready.totals, ready.at
    hidden = dataset.without_labels()
    with begin(
        config, dataset, ready.load_seconds, out=out, reuse=reuse, accept_code_change=accept_code_change, show=show
    ) as work:
        efforts = [
            _effort(work, config, hidden, name, own, accept_code_change=accept_code_change)
            for seed in config.run_seeds
            for name, own in _sessions(config, work, seed).items()
        ]
        arms = [arm for effort in efforts for arm in effort.arms]
        seconds = {key: parts for effort in efforts for key, parts in effort.seconds.items()}
        return work.finish(
            config,
            labelled=totals,
            same_model=config.proxy == config.target,
            arms=[
                {**arm_facts(dataset, arm, shared=_shares(config, arm)), "selection_seconds": seconds[_key(arm)]}
                for arm in arms
            ],
            comparisons=_comparisons(config, arms, at),
            by_chance=_by_chance(arms, at),
            drawn_at_random=[round_ for effort in efforts for round_ in effort.drawn],
            agreement=_agreements(work.run, config),
            speed_up=_speed_up(config, {key: sum(parts.values()) for key, parts in seconds.items()}, at),
            separation=[look for effort in efforts for look in effort.separation],
        )


def prepare(config: ActiveConfig, dataset: Dataset | None, show: Show) -> Ready:
    """Read the data, and refuse what cannot come to a good end."""
    check_arguments("svp.active", ActiveConfig, config, dataset)
    config, dataset, load_seconds = brought(config, dataset, show, "proxy", "target")
    labels_of(dataset)  # first of all: without labels there may be no classes either
    check_needs(config, dataset, trained_on_all=False)
    check(config, dataset)
    totals, at = _asked_for(config, len(dataset))
    refuse_options(config, len(dataset), max(b - a for a, b in pairwise(totals)))
    return Ready(config, dataset, load_seconds, totals, at)


@dataclass(frozen=True)
class Effort:
    """What one labelling effort came to.

    arms        the target on the labels at each total to evaluate
    seconds     by (arm, seed, labels), what choosing up to these took, part by part
    drawn       the rounds, but for the first, in which nobody could choose
    separation  of the proxy's own effort, whether the features that it sees tell the classes apart
    """

    arms: list[Arm]
    seconds: dict[tuple[str, int, int], dict[str, float]]
    drawn: list[Json]
    separation: list[Json]


def _effort(
    work: Work, config: ActiveConfig, hidden: Dataset, name: str, own: RunConfig, *, accept_code_change: bool
) -> Effort:
    """One session, told by an oracle up to the last total, and the target on its labels.

    hidden  the data without labels; own: the settings of the session
    """
    run, dataset, seed = work.run, work.dataset, own.seed
    totals, at = _asked_for(config, len(dataset))
    folder = f"{SIMULATED}/{name}-seed-{seed}"
    with Session.create(
        run.folder / folder,
        own,
        hidden,
        reuse=[*_shared(work, config), *_within(run.reuse, folder)],
        siblings=_within(run.siblings, folder),
        accept_code_change=accept_code_change,
        show=work.show,
    ) as session:
        _simulate(session, Oracle(dataset), totals)
        arms = [_evaluate(work, config, session, name, n, seed) for n in at]
        seconds = {_key(arm): hindsight.selection_seconds(session, arm.fitted.n) for arm in arms}
        drawn = [
            {"arm": name, "seed": seed, "round": asked["round"], "why": asked["origin"]}
            for asked in session.status()["rounds"][1:]
            if asked["origin"] != own.method
        ]
        if name != "proxy":
            return Effort(arms, seconds, drawn, [])
        suffix = "" if seed == config.seed else f"-seed{seed}"
        asked = session.asked(totals[-1]).of(dataset)
        replace(asked, inputs=chosen_from(config, run)).save(run.folder / f"selection{suffix}.parquet")
        return Effort(arms, seconds, drawn, _separation(work, session, arms[-1]))


def _within(runs: Sequence[Path], folder: str) -> list[Path]:
    """The sessions of this name in other runs."""
    return [run / folder for run in runs if (run / folder / "environment.json").exists()]


def _shared(work: Work, config: ActiveConfig) -> list[Path]:
    """Run folders that hold what all sessions need: this one, where it has made features, which is done once."""
    asks_model = find_method(config.method)[1].asks_model
    frozen = [model for model in (config.proxy, config.target) if model.features.source not in (None, PREVIOUS)]
    for model in frozen if asks_model else ():
        work.features(model)
    return [work.run.folder] if frozen and asks_model else []


def _shares(config: ActiveConfig, arm: Arm) -> bool:
    """Was what this arm learned asked for by the features that it sees?"""
    asked = find_method(config.method)[1].asks_model
    return asked and (arm.name == "target" or (arm.name == "proxy" and config.proxy.features == config.target.features))


def _key(arm: Arm) -> tuple[str, int, int]:
    return arm.name, arm.seed, arm.fitted.n


def _sessions(config: ActiveConfig, work: Work, seed: int) -> dict[str, RunConfig]:
    """The settings of each arm's session: they differ in who chooses. Precision is decided once, for all of them."""
    common = RunConfig.make(
        {name: value for name, value in config.model_dump().items() if name in RunConfig.model_fields}
    )
    common = common.model_copy(update={"seed": seed, "seeds": 1, "compute": work.decided(config.proxy, config.target)})
    arms = {"proxy": common}
    if "random" in config.control:
        arms["random"] = common.model_copy(update={"method": "random", "options": {}})
    if "target" in config.control and config.target != config.proxy:
        arms["target"] = common.model_copy(update={"proxy": config.target})
    return arms


def _simulate(session: Session, oracle: Oracle, totals: list[int]) -> None:
    """The loop. On a second call it finds what is labelled already and goes on."""
    for total in totals:
        while (missing := total - session.status()["labelled"]) > 0:
            session.tell(oracle(session.ask(missing)))


def _evaluate(work: Work, config: ActiveConfig, session: Session, name: str, n: int, seed: int) -> Arm:
    """The target on the first `n` labels of a session; its own model where that is the same training."""
    if session.config.proxy == config.target and name != "random":
        fitted = session.fit(n)
    elif (trained := hindsight.target(session, n)) is not None:
        fitted = trained
    else:
        ids, labels = session.labelled(n)
        fitted = work.train(f"target/{name}-{n}/seed-{seed}/model", config.target, ids, labels, seed)
    return Arm(name, "epochs", seed, fitted, work.test(f"target/{name}-{n}/seed-{seed}/test", fitted))


def _separation(work: Work, session: Session, last: Arm) -> list[Json]:
    """Do the frozen features by which the last question was chosen tell the classes apart? Beside the target, as trained last."""
    if (features := hindsight.features(session)) is None:
        return []
    ids, labels = session.labelled()
    look = work.separation(
        f"separation/seed-{last.seed}", features, ids, labels, np.isin(ids, hindsight.drawn(session))
    )
    return [told_apart(work.dataset, look, last, last.seed)]


def _comparisons(config: ActiveConfig, arms: list[Arm], at: list[int]) -> list[Json]:
    """What the proxy asked for against chance, and against what the target asked for itself, at each total."""
    found = []
    for n in at:
        own = answers(arms, "proxy", "epochs", n)
        random, target = answers(arms, "random", "epochs", n), answers(arms, "target", "epochs", n)
        if own is None:
            continue
        if random is not None:
            found.append({**compare(("proxy", "random", "epochs"), "better", own, random, better), "n_labelled": n})
        if target is not None:
            judged = compare(
                ("proxy", "target", "epochs"), "no worse", own, target, lambda d: no_worse(d, config.margin)
            )
            found.append({**judged, "n_labelled": n})
    return found


def _by_chance(arms: list[Arm], at: list[int]) -> list[Json]:
    """How many labels chance would need to get as far as what the proxy asked for, at each total (None: infinity)."""
    curve = [rows for n in at if (rows := answers(arms, "random", "epochs", n)) is not None]
    if len(curve) < len(at):
        return []
    found = []
    for n in at:
        if (own := answers(arms, "proxy", "epochs", n)) is None:
            continue
        needed = labels_needed(own, at, curve)
        saves = "shown" if needed["low"] > n else "refuted" if needed["high"] < n else "not shown"
        ends = {name: None if np.isinf(labels) else labels for name, labels in needed.items()}
        found.append({"n_labelled": n, "totals": at, "n_seeds": len(curve[0]), "saves": saves, **ends})
    return found


def _agreements(run: Run, config: ActiveConfig) -> list[Json]:
    """In the first round that is no draw proxy and target have seen the same labels: do they ask for the same examples?"""
    found = []
    if "target" in config.control and config.target != config.proxy:
        for seed in config.run_seeds:
            rankings = [
                sorted(run.folder.glob(f"{SIMULATED}/{name}-seed-{seed}/rounds/*/selection"))[:1]
                for name in ("proxy", "target")
            ]
            if not all(rankings):
                continue
            stages = [stage for (stage,) in rankings]
            for stage in stages:  # of a run taken up again, perhaps not looked at so far
                check_files(stage)
            own, target = (Ranked.read(stage) for stage in stages)
            agreed = own.agreement(target, config.method)
            found.append({"between": "proxy and target", "seeds": [seed, seed], **agreed.facts()})
    return found


def _speed_up(config: ActiveConfig, seconds: dict[tuple[str, int, int], float], at: list[int]) -> list[Json]:
    """Seconds of selection by the target over those by the proxy, mean over seeds, at each total."""
    found = []
    for n in at:
        own = [seconds["proxy", seed, n] for seed in config.run_seeds]
        target = [seconds[key] for key in seconds if key[0] == "target" and key[2] == n]
        if target and sum(own) > 0:
            ratio = float(np.sum(target) / np.sum(own))
            found.append(
                {
                    "n_labelled": n,
                    "seconds": float(np.mean(own)),
                    "target_seconds": float(np.mean(target)),
                    "ratio": ratio,
                }
            )
    return found


def _asked_for(config: ActiveConfig, n: int) -> tuple[list[int], list[int]]:
    """The totals of labels, and those at which the target is evaluated, as counts."""
    totals = _totals(config.labelled, n, "labelled")
    at = _totals(config.evaluate or config.labelled[-1:], n, "evaluate")
    if unknown := sorted(set(at) - set(totals)):
        raise SettingError(
            f"evaluate asks for {unknown[0]:,} labels, which is none of the totals ({', '.join(map(str, totals))})"
        )
    return totals, at


def _totals(asked: tuple[int | float | str, ...], n: int, setting: str) -> list[int]:
    """Totals as counts, rising."""
    totals = []
    for total in asked:
        try:
            totals.append(resolve_budget(total, n))
        except BudgetError as error:
            raise BudgetError(f"{setting}: {error}") from None
    if totals[0] < 2 or any(b <= a for a, b in pairwise(totals)):
        raise BudgetError(f"{setting}: totals must rise, from 2 at least; got {', '.join(map(str, totals))}")
    return totals
