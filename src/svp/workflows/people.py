"""What a labelling effort with people has beside the loop (`session.py`): its ways, checks, finished scores, what people said."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svp.config import PREVIOUS, RunConfig, SessionConfig, read_toml
from svp.data import DATASETS, load, unlabelled
from svp.data.base import Dataset
from svp.errors import DataError, SettingError, StorageError, UnknownName
from svp.evaluate import agreement_of
from svp.files import Json, read_array
from svp.labels import WORDS, LabelStore, Rule
from svp.learners import check_device, settle, trial
from svp.runs import DONE
from svp.select import Selection, select
from svp.workflows.begin import fitting
from svp.workflows.features import stand_in
from svp.workflows.finished import SCORED, Labelled, last
from svp.workflows.outcomes import Ranked, Show
from svp.workflows.pool import distinct_of

# How the origins of questions begin that were drawn, and that of labelled examples that look wrong.
AT_RANDOM, SECOND_LOOK = "random", "a second look"
_AHEAD = 4  # times as many are ranked as are looked at, so that few rankings are made


@dataclass(frozen=True)
class Ways:
    """How a session goes about it. Made once of its settings: whether people or an oracle answer is asked nowhere else.

    kind     of its settings
    grows    the pool may: the label store numbers its examples, a round is named by pool and classes too
    at_once  a method that ranks scores all that was not asked, so that questions of any size, and those asked while the next
             proxy is trained, need no other training
    start, diverse, rule   as in SessionConfig
    """

    kind: type[RunConfig] = RunConfig
    grows: bool = False
    at_once: bool = False
    start: str = "random"
    diverse: bool = False
    rule: Rule = "majority"


def ways_of(config: RunConfig) -> Ways:
    """Those of people (a SessionConfig), or of a simulation."""
    if not isinstance(config, SessionConfig):
        return Ways()
    return Ways(SessionConfig, True, True, config.start, config.diverse, config.rule)


def config_in(folder: Path) -> RunConfig:
    """The settings of the session in a folder."""
    values = read_toml(folder / "config.toml")
    return (SessionConfig if "rule" in values else RunConfig).make(values)


def data_of(config: RunConfig, classes: tuple[str, ...], show: Show | None = None) -> Dataset:
    """The data of a session that was begun before, without labels; DataError where they are not where they were."""
    try:
        return unlabelled.load(config, classes, show)
    except (UnknownName, DataError):
        name = config.dataset
        if Path(name).expanduser().exists() or name in DATASETS or ":" in name:
            raise
        raise DataError(
            f"{name}, the data of this session, is not in {Path.cwd()}; go to the folder in which the session was made, or put "
            "it back"
        ) from None


def prepared(folder: Path, config: RunConfig, dataset: Dataset | None, show: Show) -> tuple[RunConfig, Dataset]:
    """The settings and the data without labels. With people the settings have the classes written out; what could not end well
    is refused before anything is made."""
    if not isinstance(config, SessionConfig):
        return config, (load(config, show) if dataset is None else dataset).without_labels()
    if config.start not in ("auto", "random") and config.proxy.features.source in (None, PREVIOUS):
        raise SettingError(
            f"start = {config.start!r} needs embeddings, and the proxy sees the inputs; name some (proxy.features.source), or "
            "leave start at auto"
        )
    if dataset is None:
        refuse_inside(folder, config)
        dataset = unlabelled.load(config, config.classes, show)
    config = fitting(config, dataset, "proxy", "target")
    classes = config.classes or dataset.classes
    if len(classes) < 2:
        raise SettingError(
            "say what can be answered, two classes at least: --classes cat,dog (classes = ['cat', 'dog'])"
        )
    refuse_names(classes)
    config = config.model_copy(update={"classes": classes, "target": settle(config.target)})
    dataset = replace(dataset.without_labels(), classes=classes)
    check_device(config.compute, [config.proxy, config.target])
    if config.target.features.source == PREVIOUS:
        raise SettingError(f"target.features {PREVIOUS!r} is for proxies: the target is what they are made by")
    trial(config.target, stand_in(config.target, dataset, config.target, tested=False))
    return config, dataset


def never_asked(path: Path) -> bool:
    """Does this label store hold no question?"""
    with LabelStore.open(path) as store:
        return not len(store.asked())


def refuse_inside(folder: Path, config: RunConfig) -> None:
    """StorageError where a session would lie among its own data."""
    root = Path(config.dataset).expanduser()
    if root.is_dir() and folder.resolve().is_relative_to(root.resolve()):
        raise StorageError(f"{folder} lies inside the data ({config.dataset}); choose another folder for the session")


def refuse_names(names: Sequence[str], known: Sequence[str] = ()) -> None:
    """SettingError for a new class that is called like another answer, or like another class but for its capitals: a folder or a
    spreadsheet may not tell them apart."""
    if taken := [name for name in names if name.casefold() in WORDS]:
        raise SettingError(f"{taken[0]!r} is an answer already ({', '.join(WORDS)}); give the class another name")
    before = {name.casefold(): name for name in known}
    for name in names:
        if (other := before.setdefault(name.casefold(), name)) != name:
            raise SettingError(f"the classes {other!r} and {name!r} differ in capitals alone; give one another name")


def known(store: LabelStore, rule: Rule, round_: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """What can be learned: the labels (of what was asked up to a round) of examples that are here."""
    ids, labels = store.labels(rule) if round_ is None else store.labelled_after(round_, rule)
    if left_out := store.left_out():
        here = ~np.isin(ids, list(left_out))
        ids, labels = ids[here], labels[here]
    return ids, labels


def to_ask_again(store: LabelStore, rule: Rule, *, n_left: int) -> list[int]:
    """On which examples people are divided, as many saying one thing as another.

    Each once: those on which they stay divided only where none of the others (`n_left`) is left to ask.
    """
    left_out = store.left_out()
    divided = [s.id for s in store.standings(rule) if s.kind == "tie" and s.id not in left_out]
    return [id_ for id_ in divided if not n_left or store.times_asked(id_, but=SECOND_LOOK) == 1]


def best(
    config: RunConfig, ranked: Ranked, pool: NDArray[np.int64], budget: int, dataset: Dataset | None
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The `budget` best of the pool by their scores, and these, the best first.

    dataset  to skip near-duplicates by; None: they are kept
    """
    here = np.isin(ranked.ids, pool)
    ids, scores = np.asarray(ranked.ids)[here], np.asarray(ranked.scores)[here]

    def head(size: int) -> Selection:
        return select(config.method, min(size, len(ids)), scores=scores, ids=ids, seed=config.seed)

    if dataset is None or not budget:
        taken = head(budget)
        return taken.ids, taken.gains
    taken = head(0)

    def first(n: int) -> NDArray[np.int64]:
        """The first n of the ranking. Of it no more is made than is looked at: a larger head begins with the smaller."""
        nonlocal taken
        if n > len(taken):
            taken = head(_AHEAD * n)
        return taken.ids[:n]

    kept = distinct_of(dataset, ids, first, budget)
    return taken.ids[kept], taken.gains[kept]


def last_scores(folder: Path, labelled: Labelled) -> tuple[Path, int] | None:
    """The stage in a session's folder whose scores are the last by what is labelled, and its round; None where there is none."""
    stage = last(folder, SCORED, labelled)
    return None if stage is None else (stage, int(stage.parent.name.partition("-")[0]))


def guesses(folder: Path, ids: NDArray[np.int64], labelled: Labelled) -> dict[int, tuple[int, float]]:
    """What the last finished proxy takes examples for, with its probability: of those that it has scored, and of labelled ones
    were doubted, by a proxy that had not seen their labels."""
    scored, doubted = last_scores(folder, labelled), last(folder, f"doubts/*/{DONE}", labelled)
    found: dict[int, tuple[int, float]] = {}
    for stage, name in ((doubted, "probs.npy"), (scored and scored[0], "probs-0.npy")):
        if stage is None or not (stage / name).exists():
            continue
        probs, of = read_array(stage / name), read_array(stage / "ids.npy")
        known = ids[np.isin(ids, of)]
        rows = probs[np.searchsorted(of, known)]
        found |= {int(i): (int(row.argmax()), float(row.max())) for i, row in zip(known, rows, strict=True)}
    return found


def facts_of(store: LabelStore, rule: Rule) -> Json:
    """Who said how much, how far people agree, and what is left out and why."""
    said, standings, left_out = store.said(), store.standings(rule), store.left_out()
    keys = store.keys(left_out)
    votes = [(a.id, a.who, -1 if a.label is None else a.label) for a in said if a.kind in ("label", "none")]
    counts: dict[str, dict[str, int]] = {a.who: dict.fromkeys(("label", *WORDS), 0) for a in said}
    for answer in said:
        counts[answer.who][answer.kind] += 1
    return {
        "people": dict(sorted(counts.items())),
        "agreement": agreement_of(votes),
        "ties": sum(s.kind == "tie" for s in standings),
        "none": sum(s.kind == "none" for s in standings),
        "undecided": sum(s.kind == "open" for s in standings),
        "gone": [keys[i] for i, state in left_out.items() if state == "gone"],
        "changed": [keys[i] for i, state in left_out.items() if state == "changed"],
    }
