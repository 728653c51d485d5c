"""How good a session's proxy is, and which labels look wrong: by models that have not seen what they are asked about."""

from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from svp.chance import hash_ids
from svp.config import PREVIOUS
from svp.data.base import Dataset
from svp.errors import DataError, LabelError, SettingError
from svp.files import Json, digest, read_array, read_record, write_array
from svp.runs import DONE
from svp.select import score
from svp.workflows import hindsight
from svp.workflows.check import labels_of
from svp.workflows.finished import SCORED, Labelled, in_order
from svp.workflows.given import Kind, Reading, as_dataset, labels_in
from svp.workflows.outcomes import Fitted
from svp.workflows.people import known
from svp.workflows.stopping import (
    LEAST_STEP,
    MORE,
    STEADY,
    Gain,
    fold_of,
    kappa,
    points_of,
    predicted_gain,
    reasons_to_stop,
    share,
)

if TYPE_CHECKING:
    from svp.workflows.session import Session

FOLDS = 5
POINTS = 6  # rounds that a curve is made of: each costs FOLDS trainings, once
LEAST_DRAWN = (
    20  # labelled examples that were drawn at random: with fewer all are scored, the hard ones that were asked for too
)
LOOKED_AT = 20_000  # unlabelled examples by which the answers of two rounds are compared
_CODE = ("svp.chance", "svp.workflows.judging", "svp.workflows.stopping")


# --- the learning curve ---------------------------------------------------------------------------------------------------


def curve(session: "Session", holdout: Dataset | None) -> Json:
    """Stage: the accuracy of proxies trained on what was labelled after each of the last rounds, all on the same examples.

    Without `holdout` by cross-validation: an example is judged by the proxy that was trained without its fold. Scored are those
    labelled that were drawn at random, if there are LEAST_DRAWN or no others: what the proxy asked for is harder than the pool.
    """
    _refuse_previous(session)
    ids, labels = session.two_classes("a learning curve")
    points = _points(session, (ids, labels), cross_validated=holdout is None)
    if not points:
        raise LabelError(
            f"{len(ids)} labels are too few for a learning curve: without any fifth of them two classes must be left; label more"
        )
    if holdout is None:
        drawn = np.isin(ids, hindsight.random(session.store))
        like_the_pool = bool(drawn.all()) or drawn.sum() >= LEAST_DRAWN
        scored, on = (drawn, "random") if like_the_pool else (np.ones(len(ids), bool), "asked")
        models = [[session.rounds.without_fold(fold, FOLDS, *point) for fold in range(FOLDS)] for point in points]
        judged, truth = ids[scored], labels[scored]
    else:
        on, models = "holdout", [[session.rounds.whole(*point)] for point in points]
        judged, truth = holdout.ids, labels_of(holdout)
    seed = session.config.seed
    made_from = {
        "models": [f.origin for of in models for f in of],
        "ids": digest(judged),
        "labels": digest(truth),
        "holdout": None if holdout is None else holdout.fingerprint,
        "totals": [len(point[0]) for point in points],
        "seed": seed,
    }
    name = f"curve/{digest(session.rounds.digest(ids, labels), made_from['holdout'] or on)[:8]}"
    stage = session.rounds.work.run.stage(name, made_from, _CODE)
    if not stage.done:
        session.rounds.work.show("judging the proxies", 0, 0)
        right = np.stack([_answers(session, of, judged, holdout) == truth for of in models])
        sizes = [round(float(np.mean([f.n for f in of]))) for of in models]
        write_array(stage.folder / "ids.npy", judged)
        write_array(stage.folder / "correct.npy", right)
        shares = [share(int(row.sum()), len(judged)) for row in right]
        gain = predicted_gain(sizes, right, len(ids), seed)
        stage.finish(
            n=len(ids),
            on=on,
            scored=len(judged),
            folds=None if holdout else FOLDS,
            points=[
                {"n": len(point[0]), "trained_on": size, "accuracy": s.mean, "low": s.low, "high": s.high}
                for point, size, s in zip(points, sizes, shares, strict=True)
            ],
            gain=None if gain is None else gain.facts(),
        )
    return dict(stage.facts)


def holdout_of(session: "Session", given: str | Path | Dataset) -> Dataset:
    """Labelled data for testing alone, its classes numbered as the session's. Raises DataError where it has others."""
    _refuse_previous(session)
    kind = Kind.of(session.dataset)
    data = as_dataset(given, kind, session.config, Reading(), session.rounds.work.show)
    if (of := Kind.of(data)) != kind:
        raise DataError(f"{data.name} holds {of}, the pool {kind}; give data of that kind")
    labels_of(data)  # refuses what has none
    return replace(data, labels=labels_in(data, session.classes), classes=session.classes, test=None)


def last_curve(folder: Path, n: int) -> Json | None:
    """What the last curve of at most `n` labels found: others are of labels that were taken back. None where there is none."""
    curves: list[Json] = [read_record(stage / DONE, "facts")["facts"] for stage in in_order(folder, f"curve/*/{DONE}")]
    return next((facts for facts in reversed(curves) if facts["n"] <= n), None)


def _points(session: "Session", now: Labelled, *, cross_validated: bool) -> list[Labelled]:
    """What was known after each of up to POINTS rounds apart in size, that a model can be trained on; the last: all."""
    found: list[Labelled] = []
    for asked in session.store.rounds()[:-1]:
        point = known(session.store, session.ways.rule, asked.round)
        if len(point[0]) < len(now[0]) and (not found or len(point[0]) > len(found[-1][0])):
            found.append(point)
    fits = [point for point in [*found, now] if _can_be_trained(point, session.config.seed, cross_validated)]
    apart = [fits[i] for i in points_of([len(point[0]) for point in fits], POINTS)]
    return apart if apart and apart[-1] is now else []


def _can_be_trained(point: Labelled, seed: int, cross_validated: bool) -> bool:
    ids, labels = point
    fold = fold_of(ids, FOLDS, seed) if cross_validated else np.full(len(ids), -1)
    return all(len(np.unique(labels[fold != left_out])) > 1 for left_out in range(FOLDS))


def _answers(
    session: "Session", models: list[Fitted], judged: NDArray[np.int64], holdout: Dataset | None
) -> NDArray[np.int64]:
    """(m,) class numbers: of held-out data by the one model, of labelled examples by that without their fold."""
    if holdout is not None:
        outputs = models[0].predict(session.rounds.work.as_seen(session.config.proxy, holdout), judged, as_seen=True)
        models[0].release()
        return np.asarray(outputs.probs.argmax(axis=1))
    return np.asarray(_unseen_probs(session, models, judged).argmax(axis=1))


def _unseen_probs(session: "Session", models: list[Fitted], ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """(m, c) what each example is taken for by the model that was trained without its fold."""
    fold = fold_of(ids, len(models), session.config.seed)
    probs = np.zeros((len(ids), len(session.classes)), np.float32)
    for left_out, fitted in enumerate(models):
        mine = fold == left_out
        if mine.any():
            probs[mine] = _probs(fitted, session.dataset, ids[mine])
    return probs


def _probs(fitted: Fitted, dataset: Dataset, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """(m, c), leaving the device to the next model."""
    probs = fitted.predict(dataset, ids).probs
    fitted.release()
    return probs


# --- do answers still change ----------------------------------------------------------------------------------------------


def kappas(folder: Path, labelled: Labelled) -> list[float]:
    """Cohen's kappa of the answers of each of the last pairs of rounds about what both had left; none without probabilities.

    At most LOOKED_AT examples are compared. Rounds that had fewer than LEAST_STEP labels more than the one before are left out,
    and those that had more than there are now: they were taken back.
    """
    # Of each round the last: a correction has made it anew.
    last = {stage.parent.name.partition("-")[0]: stage for stage in in_order(folder, SCORED, labelled)}
    kept: list[tuple[int, Path]] = []
    for _, stage in sorted(last.items()):
        model = stage.parent / "model-0" / DONE
        if not (stage / "probs-0.npy").exists() or not model.exists():
            continue
        n = int(read_record(model, "facts")["facts"]["n"])
        if n <= len(labelled[0]) and (not kept or n >= kept[-1][0] + LEAST_STEP):
            kept.append((n, stage))
    kept = kept[-STEADY - 1 :]
    stages = [(stage.resolve(), (stage / DONE).stat().st_mtime_ns) for _, stage in kept]
    return [_agreement(first, second) for first, second in pairwise(stages)]


@lru_cache(maxsize=64)  # a finished stage stays as it is, and whoever serves a page asks again and again
def _agreement(first: tuple[Path, int], second: tuple[Path, int]) -> float:
    """Of two stages, each with the time at which it was finished."""
    stages = first[0], second[0]
    ids = [np.asarray(read_array(stage / "ids.npy")) for stage in stages]
    both = np.intersect1d(ids[0], ids[1], assume_unique=True)
    if not len(both):
        return 0.0  # nothing to compare says nothing for stopping
    both = np.sort(both[np.argsort(hash_ids(both, 0, "agreement"), kind="stable")[:LOOKED_AT]])
    answers = [
        np.asarray(read_array(stage / "probs-0.npy")[np.searchsorted(of, both)]).argmax(axis=1)
        for stage, of in zip(stages, ids, strict=True)
    ]
    return kappa(*answers)


def advice(session: "Session") -> Json:
    """Why labelling may stop ("may_stop", sentences), by what was measured last ("curve", "kappas"). Nothing is trained."""
    labelled, store = session.labelled(), session.store
    n = len(labelled[0])
    found, agreed = last_curve(session.folder, n), kappas(session.folder, labelled)
    fresh = found and found["gain"] and n < found["n"] + MORE  # older ones say nothing of what is next
    gain = Gain(**found["gain"]) if found and fresh else None
    unasked = session.n_examples - len(np.setdiff1d(store.asked(), list(store.left_out())))
    reasons = reasons_to_stop(gain, session.config.margin, agreed, unasked)
    return {"curve": found, "kappas": agreed, "may_stop": reasons}


# --- labels that look wrong -----------------------------------------------------------------------------------------------


def _refuse_previous(session: "Session") -> None:
    """SettingError where the proxy's features have seen the labels that it would be judged by."""
    if session.config.proxy.features.source == PREVIOUS:
        raise SettingError(
            f"proxy.features {PREVIOUS!r} have seen the labels that the proxy would be judged by; a curve and a second look need "
            "features from elsewhere, or none"
        )


@dataclass(frozen=True)
class Doubts:
    """Labelled examples, the most doubtful first.

    ids     (m,) those that are labelled
    scores  (m,) how doubtful each is, descending
    wrong   how many of them, from the first on, look wrong
    """

    ids: NDArray[np.int64]
    scores: NDArray[np.float64]
    wrong: int


def doubts(session: "Session") -> Doubts:
    """Stage: which labels look wrong. How many, confident learning counts by cross-validation; which, training has recorded.

    A proxy that records signals is trained on all labels, and these are ranked by how wrong it was about them early on (EL2N).
    The others are ranked by how far another class led in cross-validation. Signals rank better, EL2N best of them, since a net
    that learns wrong labels by heart does so later (benchmarks/label_noise.py); they do not say how many are wrong. Cost: FOLDS
    trainings, those of `curve`, and that of `train`.
    """
    _refuse_previous(session)
    ids, labels = session.two_classes("a second look")
    if not _can_be_trained((ids, labels), session.config.seed, cross_validated=True):
        raise LabelError(
            f"{len(ids)} labels are too few to doubt any: without a fifth of them one class is left; label more"
        )
    models = [session.rounds.without_fold(fold, FOLDS, ids, labels) for fold in range(FOLDS)]
    fitted = session.rounds.whole(ids, labels)
    made_from = {"models": [f.origin for f in [*models, fitted]], "ids": digest(ids), "labels": digest(labels)}
    name = f"doubts/{session.rounds.digest(ids, labels)[:8]}"
    stage = session.rounds.work.run.stage(name, made_from, (*_CODE, "svp.select.scores"))
    if not stage.done:
        probs = _unseen_probs(session, models, ids)
        # Examples that training held out (validation) have no signals.
        recorded = "signals" in fitted.gives and not session.config.proxy.validation
        write_array(stage.folder / "ids.npy", ids)
        write_array(stage.folder / "probs.npy", probs)
        write_array(stage.folder / "scores.npy", by_signals(fitted) if recorded else led(probs, labels))
        stage.finish(n=len(ids), wrong=confidently_wrong(probs, labels), by="signals" if recorded else "folds")
    scores = np.asarray(read_array(stage.folder / "scores.npy"))
    order = np.lexsort((hash_ids(ids, session.config.seed, "doubts"), -scores))
    return Doubts(ids[order], scores[order], int(stage.facts["wrong"]))


def by_signals(fitted: Fitted) -> NDArray[np.float64]:
    """(m,) of the examples it was trained on: the mean norm of the error in the first 10 epochs (Paul et al. 2021)."""
    return score("el2n", signals=fitted.signals().kinds())


def led(probs: NDArray[np.float32], labels: NDArray[np.int64]) -> NDArray[np.float64]:
    """(m,) probability of the best other class minus that of the label."""
    others, own = _others(probs, labels)
    return np.asarray(others.max(axis=1) - own)


def confidently_wrong(probs: NDArray[np.float32], labels: NDArray[np.int64]) -> int:
    """How many labels another class leads, and with no less probability than is usual for it.

    Usual is, as in "confident learning" (Northcutt, Jiang and Chuang 2021: the off-diagonal of its confident joint), what the
    class has on average where it is the label; but a proxy that is often wrong itself is usually sure of nothing, and would
    doubt every other label. The less it agrees with the labels, from three in four to one in four, the more counts in place of
    that average the one of the labels with which it agrees.
    """
    others, own = _others(probs, labels)
    agrees = probs.argmax(axis=1) == labels
    strict = float(np.clip(1.5 - 2 * agrees.mean(), 0, 1)) if len(labels) else 0.0
    usual = np.full(probs.shape[1], np.inf)  # nothing is as sure as a class that no label has
    for c in np.unique(labels):
        of_class = labels == c
        usual[c] = own[of_class].mean()
        if strict:
            right = own[agrees & of_class]
            usual[c] += strict * ((right.mean() if len(right) else np.inf) - usual[c])
    return int(((others >= usual) & (others > own[:, None])).any(axis=1).sum())


def _others(probs: NDArray[np.float32], labels: NDArray[np.int64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(m, c) probabilities with none for the label, and (m,) those of the labels."""
    rows, others = np.arange(len(labels)), probs.astype(np.float64)
    own = others[rows, labels].copy()
    others[rows, labels] = -np.inf
    return others, own
