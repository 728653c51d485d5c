"""What is refused before anything is trained: settings, models and data that cannot come to a good end."""

import os
import warnings

import numpy as np
from numpy.typing import NDArray

from svp.config import PREVIOUS, RunConfig
from svp.data.base import Dataset
from svp.errors import DataError, MissingInput, SettingError, SvpWarning
from svp.learners import Learner, check_device, trial
from svp.select import Rank, find_method
from svp.select.table import Shape
from svp.signals import KINDS
from svp.workflows.features import stand_in

# What a proxy has to give for a need of another name.
KIND_OF = {**dict.fromkeys(KINDS, "signals"), "similarity": "embeddings"}
# Scores of difficulty, and the share below which their highest do worse than chance (Guo et al. 2022, DeepCore; docs/results.md).
HARDEST_FIRST = frozenset(("forgetting", "el2n", "grand", "aum", "entropy", "margin", "least_confidence"))
FEW = 0.3


def check_arguments(what: str, kind: type[RunConfig], config: object, dataset: object) -> None:
    """SettingError unless `what` is called with settings of its own kind, and a dataset or none, and once."""
    if (n := os.environ.get("WORLD_SIZE", "")).isdigit() and int(n) > 1 and "RANK" in os.environ:
        raise SettingError(
            f"{what} was started {n} times (WORLD_SIZE): one process trains; start it once, without torchrun. "
            "Several can score: compute.processes"
        )
    if type(config) is not kind:
        raise SettingError(
            f"{what} takes a svp.{kind.__name__}, not {type(config).__name__}; make one of the same settings"
        )
    if not isinstance(dataset, Dataset | None):
        raise SettingError(
            f"the dataset is a {type(dataset).__name__}; make it a svp.Dataset (svp.load_dataset, svp.Dataset.from_arrays), or "
            "leave it out, so that the one is loaded that the settings name"
        )


def check(config: RunConfig, dataset: Dataset, *, chooses: bool = True, judges: bool = True) -> None:
    """Refuse before training what cannot end well.

    chooses  a proxy is trained (an earlier selection needs none)
    judges   targets are trained and tested
    """
    labels = labels_of(dataset)
    if not len(dataset):
        raise DataError(f"{dataset.name} has no examples; give a dataset that has some")
    counts = np.bincount(labels, minlength=len(dataset.classes))
    if missing := [name for name, count in zip(dataset.classes, counts, strict=True) if not count]:
        raise DataError(
            f"{dataset.name}: {len(missing)} of {len(dataset.classes)} classes have no training example, the first: "
            f"{', '.join(missing[:3])}; add some, or take these classes out"
        )
    if single := [name for name, count in zip(dataset.classes, counts, strict=True) if count == 1]:
        warnings.warn(
            f"{dataset.name}: {len(single)} of {len(dataset.classes)} classes have one training example each, the first: "
            f"{', '.join(single[:3])}; is that a class?",
            SvpWarning,
            stacklevel=4,
        )
    if judges:
        test_part(dataset)
    _, method = find_method(config.method)
    method.settle(config.method, config.options)
    asked = [config.proxy] if chooses and method.asks_model else []
    check_device(config.compute, [*asked, *([config.target] if judges else [])])
    if config.target.features.source == PREVIOUS:
        raise SettingError(f"target.features {PREVIOUS!r} is for proxies: the target is what they are made by")
    if judges:
        trial(config.target, stand_in(config.target, dataset, config.target, tested=True))
    if not chooses:
        return
    check_needs(config, dataset)
    if config.proxy.seeds > 1 and method.asks_model and not isinstance(method, Rank):
        raise SettingError(f"{config.method} gives no scores to average over several proxies; set proxy.seeds to 1")


def warn_of_the_hardest(config: RunConfig, n: int, budget: int) -> None:
    """SvpWarning where so few of n are kept by a score of difficulty alone."""
    if (
        config.method in HARDEST_FIRST and config.options.get("keep") != "easy" and budget < int(FEW * n)
    ):  # as a share is rounded
        warnings.warn(
            f"{config.method} keeps the hardest alone: less than {FEW:.0%} of these usually teaches less than chance does; "
            "svp advise says what else to try, and --control random what chance does",
            SvpWarning,
            stacklevel=5,
        )


def refuse_options(config: RunConfig, n: int, budget: int = 0) -> None:
    """SettingError for options of the method that can come to no good where `budget` of n are chosen."""
    _, method = find_method(config.method)
    method.refuse(method.settle(config.method, config.options), Shape(n=n, budget=budget))


def check_needs(config: RunConfig, dataset: Dataset, *, trained_on_all: bool = True) -> None:
    """MissingInput unless the proxy gives what the method reads; unlabelled examples have neither signals nor labels.

    DataError where nothing says what the classes are.
    """
    if not dataset.classes:
        raise DataError(
            f"{dataset.name} has no labels and names no classes; say what can be answered: "
            "Dataset.from_arrays(..., classes=['cat', 'dog']), or an array classes in the .npz file"
        )
    if len(dataset.classes) < 2:
        raise DataError(
            f"{dataset.name} has only the class {dataset.classes[0]}, so there is nothing to tell apart; bring examples of two "
            "classes at least"
        )
    _, method = find_method(config.method)
    method = method.under(method.settle(config.method, config.options))
    if not method.reads:
        return
    gives = {"probs", "labels", *(_tried(config, dataset).gives if method.asks_model else ())}
    hidden = set() if trained_on_all else {"labels", "signals"}
    kinds = {need: KIND_OF.get(need, need) for need in method.reads}
    if unmet := [need for need, kind in kinds.items() if kind not in gives - hidden]:
        kind = kinds[unmet[0]]
        proxy = (
            f"{config.proxy.model} with validation = {held:g}"
            if (held := config.proxy.validation)
            else config.proxy.model
        )
        lacks = "unlabelled examples do not have" if kind in hidden else f"{proxy} does not give"
        named = kind if kind == unmet[0] else f"{kind} ({', '.join(unmet)})"
        raise MissingInput(
            f"{config.method} needs {named}, which {lacks}; choose another method (svp list methods), or another proxy"
        )


def _tried(config: RunConfig, dataset: Dataset) -> Learner:
    """The proxy, made to be looked at."""
    return trial(
        config.proxy,
        stand_in(config.proxy, dataset, config.target, tested=config.workflow == "coreset" and has_test(dataset)),
    )


def labels_of(dataset: Dataset) -> NDArray[np.int64]:
    """The labels, or a DataError that says there are none."""
    if dataset.labels is None:
        raise DataError(
            f"{dataset.name} has no labels, which this workflow needs: give each example one; "
            "where people are to label it, use svp.Session, with classes= in Dataset.from_arrays"
        )
    return dataset.labels


def has_test(dataset: Dataset) -> bool:
    """Whether there is a labelled test part."""
    return dataset.test is not None and len(dataset.test) > 0 and dataset.test.labels is not None


def test_part(dataset: Dataset) -> Dataset:
    """The labelled test part, or a DataError that says there is none."""
    if dataset.test is None or not has_test(dataset):
        raise DataError(
            f"{dataset.name} has no labelled test part to measure on; bring one (a folder test/, arrays x_test and y_test, or "
            "test=), or have one held out of the labelled examples (test_share, --test-share)"
        )
    return dataset.test
