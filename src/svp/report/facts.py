"""What a run left behind, read from its folder: numbers, selections, and which examples to show."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svp.chance import hash_ids
from svp.config import ActiveConfig, CoresetConfig, RunConfig
from svp.data import load
from svp.data.base import Dataset
from svp.errors import DataError, SvpError, SvpWarning
from svp.files import Json, read_array, read_record
from svp.runs import DONE, METRICS_FORMAT, check_files
from svp.select import Selection

N_SHOWN = 40


@dataclass(frozen=True)
class Example:
    """One example as the report shows it; `score` is None where the method gives none."""

    id: int
    key: str
    label: str | None
    score: float | None


@dataclass(frozen=True)
class Shown:
    """Some of the chosen and some of the rest.

    pool    how many there were to choose from
    taken   how many of them were chosen
    round   of an active run: the last one, to which all of this belongs; else None
    ranked  whether the scores alone decided: then the rest is shown lowest first, with them; else it is drawn at random
    by_lot  how many of the chosen score no higher than some of the rest, so that a draw decided between them
    """

    chosen: list[Example]
    rest: list[Example]
    pool: int
    taken: int
    round: int | None
    ranked: bool
    by_lot: int


@dataclass(frozen=True)
class Facts:
    """Everything that the page is made of.

    selections  one a run seed
    dataset     None where the data is not there any more; `missing` says why
    """

    metrics: Json
    environment: Json
    selections: list[Selection]
    shown: Shown
    dataset: Dataset | None
    missing: str

    @property
    def settings(self) -> Json:
        settings: Json = self.environment["settings"]
        return settings

    @property
    def classes(self) -> list[str]:
        classes: list[str] = self.environment["dataset"]["classes"]
        return classes


def read(folder: Path, dataset: Dataset | None = None) -> Facts:
    """All facts of a finished run. Raises DataError where there is none, where `dataset` is another, or a file is damaged."""
    environment, metrics = (
        read_record(folder / "environment.json", "dataset", "settings"),
        read_record(folder / "metrics.json"),
    )
    if metrics["format"] != METRICS_FORMAT:
        raise DataError(
            f"{folder / 'metrics.json'} has format {metrics['format']}, this version reads {METRICS_FORMAT}; "
            "give the run's own command again: it trains nothing twice"
        )
    fingerprint, missing = environment["dataset"]["fingerprint"], ""
    if dataset is not None and dataset.fingerprint != fingerprint:
        raise DataError(
            f"{folder} was made from other data than this {dataset.name}: fingerprint {fingerprint[:12]}, "
            f"not {dataset.fingerprint[:12]}; give that data, or none"
        )
    if dataset is None:
        dataset, missing = _load(folder, metrics["workflow"], fingerprint)
    settings = environment["settings"]
    # The settings are those of the last call, which may have been interrupted; metrics of earlier versions do not say it.
    first, n_seeds = (metrics.get(name, settings[name]) for name in ("seed", "seeds"))
    seeds = range(first, first + n_seeds)
    suffixes = ["", *(f"-seed{seed}" for seed in seeds[1:])]
    selections = [Selection.load(folder / f"selection{suffix}.parquet") for suffix in suffixes]
    shown = _shown(_ranking_stage(folder, seeds[0]), selections[0], dataset, environment["dataset"], metrics["kind"])
    return Facts(metrics, environment, selections, shown, dataset, missing)


def _load(folder: Path, workflow: str, fingerprint: str) -> tuple[Dataset | None, str]:
    """The data that the settings name, or why it cannot be had."""
    kind: type[RunConfig] = CoresetConfig if workflow == "coreset" else ActiveConfig
    try:
        with warnings.catch_warnings(action="ignore", category=SvpWarning):  # the run has said it, and the page does
            dataset = load(kind.load(folder / "config.toml"))
    except (SvpError, OSError, ImportError) as error:
        return None, str(error)
    if dataset.fingerprint != fingerprint:
        return None, f"{dataset.name} has changed since the run"
    return dataset, ""


def _ranking_stage(folder: Path, seed: int) -> Path | None:
    """Where the (last) choice of the first run seed stands with its scores; None where nobody scored."""
    rounds = folder / f"sessions/proxy-seed-{seed}/rounds"
    stages = [folder / f"selection/seed-{seed}", *sorted(rounds.glob("*/selection"))]
    done = [stage for stage in stages if (stage / DONE).exists()]
    return done[-1] if done else None


def _shown(stage: Path | None, selection: Selection, dataset: Dataset | None, about: Json, kind: str) -> Shown:
    """The first that were chosen, and of the rest those of the lowest score; equals, and what has no score, by lot."""
    taken = selection
    if stage is not None:
        check_files(stage)
        taken = Selection.load(stage / "selection.parquet")
        ids, scores = np.asarray(read_array(stage / "ids.npy")), np.asarray(read_array(stage / "scores.npy"), float)
    else:
        ids = np.arange(0) if dataset is None else dataset.ids
        scores = np.zeros(len(ids))
    of_taken = scores[np.searchsorted(ids, taken.ids)] if len(ids) else scores
    # Where the choice is more than its scores (by a sampler, or of sets, with minus the order of choice in place of scores),
    # these say nothing of why the rest was left out.
    ranked = stage is not None and kind == "rank"
    scores = scores if ranked else np.zeros(len(ids))
    is_rest = ~np.isin(ids, selection.ids)
    ids, scores = ids[is_rest], scores[is_rest]
    by_lot = int((of_taken <= scores.max()).sum()) if ranked and len(ids) else 0
    order = np.lexsort((hash_ids(ids, taken.seed, "report"), scores))[:N_SHOWN]
    return Shown(
        chosen=_examples(taken.ids[:N_SHOWN], taken.gains, dataset, taken, about["classes"]),
        rest=_examples(ids[order], scores[order] if ranked else None, dataset, None, about["classes"]),
        pool=len(ids) + len(taken) if len(ids) else about["n"],
        taken=len(taken),
        round=int(stage.parent.name.partition("-")[0])
        if stage is not None and stage.parent.parent.name == "rounds"
        else None,
        ranked=ranked,
        by_lot=by_lot,
    )


def _examples(
    ids: NDArray[np.int64],
    scores: NDArray[np.float64] | None,
    dataset: Dataset | None,
    selection: Selection | None,
    classes: list[str],
) -> list[Example]:
    """Names, classes and scores of `ids`: from the data, or else what the selection (it begins with them) knows."""
    labels: NDArray[np.int64] | None = None
    keys: Sequence[str] | None = None
    if dataset is not None:
        pos = dataset.positions(ids)
        labels = None if dataset.labels is None else dataset.labels[pos]
        keys = None if dataset.keys is None else [dataset.keys[i] for i in pos]
    elif selection is not None:
        labels, keys = selection.labels, selection.keys
    return [
        Example(
            id=int(id_),
            key=str(id_) if keys is None else keys[i],
            label=None if labels is None or labels[i] < 0 else classes[int(labels[i])],
            score=None if scores is None or not np.isfinite(scores[i]) else float(scores[i]),
        )
        for i, id_ in enumerate(ids)
    ]
