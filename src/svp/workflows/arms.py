"""Arms of an experiment: one training of the target each; how metrics keep and compare them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from svp.data.base import Dataset
from svp.evaluate import Difference, Verdict, difference, macro_f1, per_class
from svp.files import Json
from svp.learners import find
from svp.learners.epochs import shown, steps_per_epoch
from svp.separation import auc
from svp.workflows.check import labels_of, test_part
from svp.workflows.outcomes import Fitted, Tested


@dataclass(frozen=True)
class Arm:
    """One training of the target: what it was trained on, for how long, and how it went.

    name   who chose the examples: "proxy", "random", "target", "full" and "short" (nobody: all of them), "selection" (an
           earlier one)
    equal  trained for as many "epochs" or as many "steps" as the target on everything
    """

    name: str
    equal: str
    seed: int
    fitted: Fitted
    tested: Tested


def arm_facts(dataset: Dataset, arm: Arm, *, shared: bool = False) -> Json:
    """One arm as metrics.json keeps it; shared: its examples were chosen by the features that it sees, which count there."""
    features = None if shared else arm.fitted.features
    test = test_part(dataset)
    config, epochs = arm.fitted.config, int(arm.fitted.stage.facts["epochs"])
    return {
        "arm": arm.name,
        "equal": arm.equal,
        "seed": arm.seed,
        "model": config.model,
        "n": arm.fitted.n,
        "epochs": epochs,
        "steps": epochs * steps_per_epoch(config, shown(config, arm.fitted.n)) if find(config).is_net else None,
        "train_accuracy": arm.fitted.train_accuracy,
        "accuracy": float(arm.tested.correct.mean()),
        "macro_f1": macro_f1(arm.tested.predicted, labels_of(test)),
        "class_accuracy": per_class(arm.tested.correct, labels_of(test), len(dataset.classes)),
        "seconds": {
            **({} if features is None else {"embed": features.facts["seconds"]}),
            "train": arm.fitted.seconds,
            "test": arm.tested.seconds,
        },
    }


def told_apart(dataset: Dataset, found: Json, arm: Arm, seed: int) -> Json:
    """One look at the features as metrics.json keeps it: beside each pair of classes how well the target tells it apart."""
    labels, pairs = labels_of(test_part(dataset)), []
    log = np.log(np.maximum(np.asarray(arm.tested.probs, np.float64), 1e-30))
    for pair in found["pairs"]:
        a, b = pair["classes"]
        by_target = auc(log[:, a] - log[:, b], labels == a, labels == b)
        names = [dataset.classes[a], dataset.classes[b]]
        pairs.append({**pair, "names": names, "target_auc": None if np.isnan(by_target) else by_target})
    return {"seed": seed, **found, "pairs": pairs, "target_accuracy": float(arm.tested.correct.mean())}


def answers(arms: Sequence[Arm], name: str, equal: str, n: int | None = None) -> NDArray[np.bool_] | None:
    """(seeds, n_test) right or wrong of one arm, in order of seed; None where there is no such arm."""
    rows = [arm.tested.correct for arm in arms if arm.name == name and arm.equal == equal and n in (None, arm.fitted.n)]
    return np.stack(rows) if rows else None


def compare(
    of: tuple[str, str, str],
    question: str,
    own: NDArray[np.bool_],
    reference: NDArray[np.bool_],
    judge: Callable[[Difference], Verdict],
) -> Json:
    """One comparison as metrics.json keeps it; of = (arm, the arm it is held against, equal)."""
    found = difference(own, reference)
    return {
        "arm": of[0],
        "against": of[1],
        "equal": of[2],
        "question": question,
        "verdict": judge(found),
        **found.facts(),
    }
