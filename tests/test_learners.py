"""Models by name: the table's, a net of one's own, any scikit-learn classifier; and what each can give."""

import json
import math
import pickle
import sys
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from types import FrameType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from svp import learners
from svp.config import ComputeConfig, CoresetConfig, TrainConfig
from svp.data import load_dataset
from svp.data.base import Dataset
from svp.errors import DataError, MissingExtra, MissingInput, SettingError, SvpError, TrainingError, UnknownName
from svp.learners import LEARNERS, check_device, compute, find, make_learner, net, settle, trial
from svp.learners.compute import Compute, _seconds, decide
from svp.select import select
from svp.signals import UNSEEN, Signals
from tests import own_models
from tests.test_imports import ROOT, imports

CPU = Compute("cpu", "fp32", channels_last=False, threads=1)
OWN = "tests.own_models:"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture
def images() -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(60) % 3
    return Dataset.from_arrays(
        (rng.integers(0, 60, (60, 8, 8, 1)) + 60 * labels[:, None, None, None]).astype(np.uint8), labels, name="squares"
    )


@pytest.fixture
def rows() -> Dataset:
    rng = np.random.default_rng(1)
    labels = np.arange(80) % 3
    return Dataset.from_arrays(
        rng.normal(size=(80, 5)) * [1, 1, 1, 1, 1000] + np.eye(3)[labels] @ np.ones((3, 5)) * labels[:, None],
        labels,
        name="rows",
    )


def config(**values: Any) -> TrainConfig:
    return TrainConfig.make({"model": "preact8", "width": 0.25, "epochs": 2, "batch_size": 16, **values})


def own(name: str, **values: Any) -> TrainConfig:
    return TrainConfig.make({"model": OWN + name, "epochs": 2, "batch_size": 16, **values})


def refused(kind: type[SvpError], data: Dataset, train: TrainConfig, *words: str) -> None:
    with pytest.raises(kind) as caught:
        make_learner(train, data, seed=0, compute=CPU)
    assert "\n" not in str(caught.value)
    for word in words:
        assert word in str(caught.value)


def fit(data: Dataset, train: TrainConfig, folder: Path, ids: Any = None, seed: int = 0) -> Any:
    learner = make_learner(train, data, seed=seed, compute=CPU)
    ids = data.ids if ids is None else np.asarray(ids)
    assert data.labels is not None
    folder.mkdir(exist_ok=True)
    learner.fit(data, ids, data.labels[data.positions(ids)], folder=folder)
    return learner


# --- nets -----------------------------------------------------------------------------------------------------------------


def test_a_net_is_kept_in_plain_files_and_comes_back(images: Dataset, tmp_path: Path) -> None:
    learner = fit(images, config(), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "model.safetensors", "signals"]
    assert learner.gives == {"signals", "embeddings"}
    other = make_learner(config(), images, seed=5, compute=CPU)
    other.load(tmp_path)
    for embeddings in (True, False):
        a, b = (x.predict(images, images.ids[::-2], embeddings=embeddings) for x in (learner, other))
        assert a.probs.shape == (30, 3)
        assert a.probs.dtype == np.float32
        assert np.array_equal(a.probs, b.probs)
        assert (a.embeddings is not None) == embeddings
    assert a.probs.sum(axis=1) == pytest.approx(1, abs=1e-5)


def test_all_that_a_training_runs_is_counted(images: Dataset) -> None:
    """The modules of learners that are imported by those that count, but for what other inputs and settings need."""
    code = make_learner(config(), images, seed=0, compute=CPU).code
    bystanders = {"svp.learners", "svp.learners.base"}  # tables and types
    bystanders |= {f"svp.learners.{name}" for name in ("weights", "libraries", "characters", "encoded")}
    files = [ROOT / f"{name.removeprefix('svp.').replace('.', '/')}.py" for name in code if name.startswith("svp.")]
    named = {name for file in files for name in imports(file) if name.startswith("svp.learners")}
    modules = {name for name in named if (ROOT / f"{name.removeprefix('svp.').replace('.', '/')}.py").exists()}
    assert {"svp.learners.loop", "svp.learners.checkpoints"} <= modules
    assert modules - bystanders <= set(code)


def test_all_that_a_training_calls_is_counted(images: Dataset, tmp_path: Path) -> None:
    """The modules of which a function runs in `fit`, but for those that write files and name things."""
    settings = config(model="linear", width=1.0, epochs=1, validation=0.2, min_steps=2)
    learner = make_learner(settings, images, seed=0, compute=CPU)
    fit(images, settings, tmp_path / "first")  # what torch imports when it is first used takes long under a profiler
    called = set()

    def note(frame: FrameType, event: str, _: object) -> None:
        called.add(str(frame.f_globals.get("__name__")))

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        learner.fit(images, images.ids, images.labels, folder=tmp_path / "second")
    finally:
        sys.setprofile(before)
    assert {"svp.learners.loop", "svp.learners.epochs", "svp.signals"} <= called
    bystanders = {"svp.errors", "svp.files", "svp.data.base"}  # the last is counted by the workflows
    assert {name for name in called if name.startswith("svp.")} - bystanders <= set(learner.code)


def test_rows_of_predictions_are_in_the_order_of_the_ids(images: Dataset, tmp_path: Path) -> None:
    learner = fit(images, config(), tmp_path)
    whole = learner.predict(images, images.ids, embeddings=True)
    some = learner.predict(images, np.array([7, 3, 59]), embeddings=True)
    assert np.allclose(some.probs, whole.probs[[7, 3, 59]], atol=1e-6)
    assert np.allclose(some.embeddings, whole.embeddings[[7, 3, 59]], atol=1e-5)
    assert learner.predict(images, np.zeros(0, np.int64)).probs.shape == (0, 3)


def test_the_seed_gives_the_weights_and_two_arms_share_them(images: Dataset, tmp_path: Path) -> None:
    probs = [
        make_learner(config(), images, seed=seed, compute=CPU).predict(images, images.ids).probs for seed in (0, 0, 1)
    ]
    assert np.array_equal(probs[0], probs[1])
    assert not np.array_equal(probs[0], probs[2])


def test_a_training_killed_before_its_mark_is_not_repeated(images: Dataset, tmp_path: Path) -> None:
    fit(images, config(), tmp_path)
    for name in ("checkpoint", "best"):
        (tmp_path / f"{name}.safetensors").write_bytes(b"left by a kill")
    learner = make_learner(config(), images, seed=0, compute=CPU)
    records = learner.fit(
        images, images.ids, images.labels, folder=tmp_path, progress=lambda *_: pytest.fail("trained again")
    )
    assert len(records) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "model.safetensors", "signals"]


def test_one_example_is_not_enough(images: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="cannot be trained on 1 examples"):
        fit(images, config(), tmp_path, [4])
    fit(images, config(epochs=1), tmp_path, [4, 5])


def test_classes_that_are_missing_in_training_do_not_matter(images: Dataset, tmp_path: Path) -> None:
    ids = images.ids[images.labels != 1]
    for i, train in enumerate((config(), TrainConfig(model="logistic"))):
        probs = fit(images, train, tmp_path / str(i), ids).predict(images, images.ids).probs
        assert probs.shape == (60, 3)
        assert probs.sum(axis=1) == pytest.approx(1, abs=1e-5)
    assert (probs[:, 1] == 0).all()


def test_inputs_are_normalised_by_the_whole_training_part(rows: Dataset, tmp_path: Path) -> None:
    # A column a thousand times as large as the others must not swamp them; a subset sees the same numbers as the whole.
    learner = make_learner(own("Headed"), rows, seed=0, compute=CPU)
    assert learner._statistics[0].numpy() == pytest.approx(rows.inputs.mean(axis=0), rel=1e-4, abs=1e-4)  # type: ignore[attr-defined]
    assert learner._statistics[1].numpy() == pytest.approx(rows.inputs.std(axis=0), rel=1e-4)  # type: ignore[attr-defined]
    constant = replace(rows, inputs=np.concatenate([rows.inputs[:, :4], np.full((80, 1), 7, np.float32)], axis=1))
    assert np.isfinite(fit(constant, own("Headed"), tmp_path).predict(constant, constant.ids).probs).all()


# --- nets of one's own ----------------------------------------------------------------------------------------------------


def test_an_own_net_learns_rows(rows: Dataset, tmp_path: Path) -> None:
    learner = fit(rows, own("MLP", epochs=30, lr=0.3, options={"hidden": 16}), tmp_path)
    assert learner.gives == {"signals"}
    probs = learner.predict(rows, rows.ids).probs
    assert (probs.argmax(axis=1) == rows.labels).mean() > 0.9
    assert Signals.open(tmp_path / "signals")["loss"].shape == (30, 80)


def test_a_net_without_features_says_what_is_missing_for_embeddings(rows: Dataset, tmp_path: Path) -> None:
    learner = fit(rows, own("MLP"), tmp_path)
    with pytest.raises(MissingInput, match=r"gives no embeddings: its net has no `features` and `head`"):
        learner.predict(rows, rows.ids, embeddings=True)
    learner = fit(rows, own("Headed"), tmp_path / "headed")
    assert learner.gives == {"signals", "embeddings"}
    assert learner.predict(rows, rows.ids, embeddings=True).embeddings.shape == (80, 5)


def test_a_net_may_live_in_any_module(rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "my_nets.py").write_text(
        "from torch import nn\n\ndef linear(n, example, bias=True):\n    return nn.Linear(len(example), n, bias=bias)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    train = TrainConfig(model="my_nets:linear", options={"bias": False}, epochs=1)
    assert fit(rows, train, tmp_path / "run").predict(rows, rows.ids[:4]).probs.shape == (4, 3)
    assert find(train).code == ("my_nets",)
    assert "my_nets" in make_learner(train, rows, seed=0, compute=CPU).code


@pytest.mark.parametrize(
    ("model", "options", "kind", "words"),
    [
        (OWN + "MPL", {}, UnknownName, ["did you mean 'MLP'"]),
        (OWN + "NOT_CALLABLE", {}, SettingError, ["is 3, not a function or a class"]),
        (OWN + "no_module", {}, SettingError, ["returned str", "torch.nn.Module"]),
        (OWN + "MLP", {"hiden": 3}, SettingError, ["hiden"]),
        (
            OWN + "MLP",
            {"hidden": 0.5},
            SettingError,
            ["cannot make a net of 3 classes", "{'hidden': 0.5}", "TypeError"],
        ),
        (OWN + "raises", {}, SettingError, ["FileNotFoundError: no weights in cache"]),
        (OWN + "lazy", {}, SettingError, ["layers without a size", "example[None]"]),
        (OWN + "frozen", {}, TrainingError, ["depends on no weight that may change", "frozen"]),
        (OWN + "Weightless", {}, TrainingError, ["depends on no weight that may change", "no parameters"]),
        (OWN + "Detached", {}, TrainingError, ["depends on no weight that may change", "detached"]),
        (OWN + "TwoOutputs", {}, TrainingError, ["cannot be trained", "'tuple'"]),
        (OWN + "Sparse", {}, TrainingError, ["cannot be trained", "gradient of table.weight is sparse"]),
        (OWN + "too_many", {}, SettingError, ["logits of shape (2, 4)", "(2, 3)"]),
        (OWN + "wrong_size", {}, SettingError, ["shape (5,)", "cannot be multiplied"]),
        (OWN + "Mapped", {}, SettingError, ["`features` gives shape (2, 1, 5)"]),
        (OWN + "Otherwise", {}, SettingError, ["`forward` does not give `head` of `features`"]),
        ("no_such_package.nets:make", {}, SettingError, ["no_such_package", "PYTHONPATH"]),
        (":make", {}, SettingError, ["package.module:function"]),
        (".own_models:MLP", {}, SettingError, ["package.module:function"]),
        ("__main__:make", {}, SvpError, []),
        ("preact20", {"depth": 3}, SettingError, ["takes no options (depth)"]),
        ("preact8", {}, SettingError, ["takes images"]),
    ],
)
def test_models_that_cannot_be_are_refused_before_training(
    rows: Dataset, model: str, options: dict[str, Any], kind: type[Exception], words: list[str]
) -> None:
    train = TrainConfig(model=model, options=options)
    with pytest.raises(kind) as caught:
        trial(train, rows)
    assert "\n" not in str(caught.value)
    assert train.model in str(caught.value) or kind is not TrainingError
    for word in words:
        assert word in str(caught.value)


def test_a_net_that_fails_in_the_middle_of_training_is_named(rows: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"EvenOnly cannot be trained: ValueError: an odd batch of some size$"):
        fit(rows, own("EvenOnly", batch_size=16), tmp_path, rows.ids[:25])


def test_a_net_too_large_for_any_machine_is_named(images: Dataset, tmp_path: Path) -> None:
    huge = TrainConfig(model="preact8", width=1e12)
    with pytest.raises(
        TrainingError, match=r"preact8 cannot be made: .*; take a narrower one \(width\), or one with fewer"
    ):
        fit(images, huge, tmp_path)


def test_where_memory_runs_out_it_is_said_what_takes_less(rows: Dataset, tmp_path: Path) -> None:
    def hungry(**options: Any) -> TrainConfig:
        return own("Hungry", batch_size=16, options=options)

    with pytest.raises(
        TrainingError, match=r"Hungry cannot be trained: .*; lower batch_size \(a step has 16 examples\)$"
    ):
        fit(rows, hungry(few=8, trained=True), tmp_path / "a")
    scoring = hungry(few=20, trained=False)
    words = r"Hungry cannot score .*; lower compute.scoring_batch \(now 512\), .*--reuse"
    with pytest.raises(TrainingError, match=words):
        fit(rows, scoring, tmp_path / "b").predict(rows, rows.ids)
    with pytest.raises(TrainingError, match=words):
        fit(rows, scoring.model_copy(update={"record": "plain"}), tmp_path / "c")
    few = replace(CPU, scoring_batch=20)
    learner = make_learner(hungry(few=20, trained=False), rows, seed=0, compute=few)
    assert learner.predict(rows, rows.ids).probs.shape == (80, 3)


def test_what_brings_the_examples_counts_as_training(
    rows: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, inputs_of = [0.0], net._inputs

    def slow(*given: Any) -> Any:
        now[0] += 1000
        return inputs_of(*given)

    monkeypatch.setattr("time.perf_counter", lambda: now[0])
    monkeypatch.setattr(net, "_inputs", slow)
    fit(rows, own("MLP"), tmp_path)
    history = json.loads((tmp_path / "history.json").read_text())
    assert [record["seconds"] for record in history] == [1000, 0]
    assert [record["compiled"] for record in history] == [False, False]


def test_a_rehearsal_changes_no_training(images: Dataset, rows: Dataset, tmp_path: Path) -> None:
    state = torch.get_rng_state()
    assert trial(config(), images).gives == {"signals", "embeddings"}
    trial(own("MLP", options={"dropout": 0.5}), rows)
    trial(own("lazy_but_shown"), rows)
    assert torch.equal(torch.get_rng_state(), state)


def test_batches_larger_than_the_set_and_many_steps(rows: Dataset, tmp_path: Path) -> None:
    """A batch is then the whole set; `min_steps` counts those steps, and the rate falls over just as many."""
    train = own("MLP", batch_size=4096, epochs=2, min_steps=5, lr=0.001)
    fit(rows, train, tmp_path, rows.ids[:7])
    records = json.loads((tmp_path / "history.json").read_text())
    assert [record["epoch"] for record in records] == [0, 1, 2, 3, 4]
    assert all(np.isfinite(record["loss"]) for record in records)
    assert (np.asarray(Signals.open(tmp_path / "signals")["correct"]) != 255).all()


def test_a_model_in_the_running_script_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("__main__.make", own_models.MLP, raising=False)
    with pytest.raises(SettingError, match="module of its own"):
        find(TrainConfig(model="__main__:make"))


def test_width_is_for_the_tables_nets(rows: Dataset) -> None:
    refused(SettingError, rows, own("MLP", width=2), "MLP does not use width; width = 2.0 means nothing", "at 1.0")


def test_augmentation_is_for_images(rows: Dataset, images: Dataset) -> None:
    refused(SettingError, rows, own("MLP", augment="crop"), "augment 'crop'", "images", "(5,)")
    make_learner(own("MLP", augment="none"), rows, seed=0, compute=CPU)
    make_learner(config(augment="crop_flip"), images, seed=0, compute=CPU)
    refused(SettingError, replace(rows, augmentation="crop"), own("MLP"), "augment 'crop'")
    refused(
        DataError, replace(images, augmentation="flip"), config(), "squares", "'flip'", "'none', 'crop', 'crop_flip'"
    )  # type: ignore[arg-type]


def test_torch_is_an_extra(rows: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(module: str, extra: str) -> Any:
        raise MissingExtra(f"{module} is not installed; install it with: pip install 'selection-via-proxy[{extra}]'")

    monkeypatch.setattr(learners, "require", missing)
    refused(MissingExtra, rows, own("MLP"), "selection-via-proxy[torch]")
    make_learner(TrainConfig(model="logistic"), rows, seed=0)  # needs none


# --- scikit-learn ---------------------------------------------------------------------------------------------------------


def test_logistic_is_logistic_regression_on_flat_inputs(images: Dataset, tmp_path: Path) -> None:
    learner = fit(images, TrainConfig(model="logistic"), tmp_path)
    assert learner.gives == frozenset()
    x = images.inputs.reshape(60, -1) / 255
    expected = LogisticRegression().fit(x, images.labels).predict_proba(x)
    assert np.allclose(learner.predict(images, images.ids).probs, expected, atol=1e-3)
    with pytest.raises(MissingInput, match="gives no embeddings"):
        learner.predict(images, images.ids, embeddings=True)
    assert learner.predict(images, images.ids[:0]).probs.shape == (0, 3)


def test_logistic_converges_on_digits_without_a_warning(tmp_path: Path) -> None:
    digits = load_dataset("digits")  # warnings are errors here
    probs = fit(digits, TrainConfig(model="logistic"), tmp_path).predict(digits.test, digits.test.ids).probs
    assert (probs.argmax(axis=1) == digits.test.labels).mean() > 0.95


@pytest.mark.parametrize("model", ["logistic", "sklearn.ensemble:RandomForestClassifier", OWN + "CountingClassifier"])
def test_a_classifier_comes_back_without_a_pickle(
    images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    options = {"n_estimators": 5} if "Forest" in model else {}
    train = TrainConfig(model=model, options=options)
    for module in (pickle, __import__("joblib")):
        monkeypatch.setattr(module, "dump", lambda *_, **__: pytest.fail("a pickle was written"))
    learner = fit(images, train, tmp_path, images.ids[::2], seed=3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "ids.npy", "labels.npy"]
    other = make_learner(train, images, seed=3)
    other.load(tmp_path)
    assert np.array_equal(learner.predict(images, images.ids).probs, other.predict(images, images.ids).probs)


def test_a_forest_depends_on_the_seed_and_not_on_the_order_of_rows(images: Dataset, tmp_path: Path) -> None:
    train = TrainConfig(model="sklearn.ensemble:RandomForestClassifier", options={"n_estimators": 3, "max_depth": 2})
    order = np.random.default_rng(0).permutation(60)
    probs = [
        fit(images, train, tmp_path / str(i), ids, seed).predict(images, images.ids).probs
        for i, (ids, seed) in enumerate([(images.ids, 0), (images.ids[order], 0), (images.ids, 1)])
    ]
    assert np.array_equal(probs[0], probs[1])
    assert not np.array_equal(probs[0], probs[2])


def test_progress_of_a_classifier_is_measured_on_a_part(
    images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svp.learners.classifier._MEASURED", 20)
    asked: list[int] = []
    predict = own_models.CountingClassifier.predict

    def counted(self: Any, x: Any) -> Any:
        asked.append(len(x))
        return predict(self, x)

    monkeypatch.setattr(own_models.CountingClassifier, "predict", counted)
    fit(images, own("CountingClassifier").model_copy(update={"epochs": 15, "batch_size": 128}), tmp_path)
    assert asked == [20]
    (record,) = json.loads((tmp_path / "history.json").read_text())
    assert 0 <= record["accuracy"] <= 1


@pytest.mark.parametrize("limit", ["_ROWS", "_BYTES"])
def test_numbers_are_scored_block_by_block(
    images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str
) -> None:
    learner = fit(images, TrainConfig(model="logistic"), tmp_path)
    whole = learner.predict(images, images.ids[::-1]).probs
    asked: list[int] = []
    probs = learner._probs
    monkeypatch.setattr(learner, "_probs", lambda x, n: asked.append(len(x)) or probs(x, n))
    monkeypatch.setattr(f"svp.learners.classifier.{limit}", {"_ROWS": 25, "_BYTES": 25 * 4 * 64 + 1}[limit])
    np.testing.assert_allclose(learner.predict(images, images.ids[::-1]).probs, whole, rtol=1e-5)
    assert asked == [25, 25, 10]


def test_its_own_random_state_wins(images: Dataset, tmp_path: Path) -> None:
    train = TrainConfig(model="sklearn.ensemble:RandomForestClassifier", options={"n_estimators": 3, "random_state": 1})
    learner = make_learner(train, images, seed=0)
    assert learner._classifier.random_state == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("model", "options", "words"),
    [
        ("sklearn.svm:LinearSVC", {}, ["with no options gives no probabilities", "predict_proba"]),
        ("sklearn.svm:SVC", {}, ["with no options gives no probabilities", "the option probability = true"]),
        ("sklearn.linear_model:RidgeClassifier", {"alpha": 2}, ["{'alpha': 2} gives no probabilities"]),
        (OWN + "Unmakeable", {}, ["cannot be made", "OSError: no licence"]),
        ("logistic", {"D": 1}, ["'D'"]),
        ("sklearn.ensemble:RandomForestClassifer", {}, ["did you mean 'RandomForestClassifier'"]),
    ],
)
def test_classifiers_that_cannot_be_are_refused(
    images: Dataset, model: str, options: dict[str, Any], words: list[str]
) -> None:
    refused(
        UnknownName if "mean" in words[0] else SettingError, images, TrainConfig(model=model, options=options), *words
    )


@pytest.mark.parametrize(
    ("options", "words"), [({"C": -1.0}, "'C' parameter"), ({"solver": "best"}, "'solver' parameter")]
)
def test_options_that_only_the_fit_refuses_are_one_line(
    images: Dataset, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    with pytest.raises(SettingError, match=words) as caught:
        fit(images, TrainConfig(model="logistic", options=options), tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["Unfit", "unfit_pipeline"])
def test_a_classifier_whose_fit_raises_is_named(images: Dataset, tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingError, match=f"{name} cannot be fitted with no options: KeyError: 'no such column'"):
        fit(images, TrainConfig(model=OWN + name), tmp_path)
    assert not (tmp_path / "history.json").exists()


@pytest.mark.parametrize("name", ["TooWide", "wide_pipeline"])
def test_a_classifier_with_probabilities_of_another_width_is_named(images: Dataset, tmp_path: Path, name: str) -> None:
    with pytest.raises(SettingError, match=rf"{name}: predict_proba gives shape \(2, 4\) for 2 .* take \(2, 3\)"):
        fit(images, TrainConfig(model=OWN + name), tmp_path)
    assert not (tmp_path / "history.json").exists()


@pytest.mark.parametrize(
    "setting",
    [{"epochs": 3}, {"lr": 0.5}, {"width": 2.0}, {"augment": "crop"}, {"record": "plain"}, {"min_steps": 10}],
    ids=str,
)
def test_a_setting_that_a_classifier_has_no_use_for_is_refused(images: Dataset, setting: dict[str, Any]) -> None:
    ((name, value),) = setting.items()
    default = getattr(TrainConfig(), name)
    for model in ("logistic", OWN + "scaled_logistic"):
        train = TrainConfig.make({"model": model, **setting})
        words = (
            f"uses features, model, options, seeds alone; {name} = {value} means nothing to it, leave it at {default}"
        )
        refused(SettingError, images, train, model, words)


def test_settings_that_are_not_used_make_no_difference() -> None:
    """Proxy and target keep different epochs where only their model is named."""
    usual = CoresetConfig.make({"dataset": "d", "proxy": {"model": "logistic"}, "target": {"model": "logistic"}})
    assert usual.proxy != usual.target
    assert settle(usual.proxy) == settle(usual.target) == TrainConfig(model="logistic")
    given = TrainConfig(model="logistic", options={"C": 0.5}, seeds=3)
    assert settle(given) == given
    for train in (config(), own("MLP", epochs=7, lr=0.5, batch_size=3)):
        assert settle(train) == train


@pytest.mark.parametrize("model", ["fasttext", "vdcnn9"])
def test_a_row_fills_what_nobody_set(model: str) -> None:
    """Beside the class's own defaults and those of the default proxy and target, and never over what somebody set."""
    own = {**next(row for row in LEARNERS.values() if model in row.names).defaults}
    assert own
    usual = CoresetConfig.make({"dataset": "d", "proxy": {"model": model}, "target": {"model": model}})
    assert usual.proxy != usual.target  # 15 epochs and 40, which were meant for nets of images
    alone = settle(TrainConfig(model=model))
    assert settle(usual.proxy) == settle(usual.target) == alone
    assert {name: getattr(alone, name) for name in own} == own
    assert settle(alone) == alone
    chosen = CoresetConfig.make({"dataset": "d", "target": {"model": model, "epochs": 40}}).target
    assert settle(chosen) == alone.model_copy(update={"epochs": 40})
    again = CoresetConfig.make(tomllib.loads(usual.model_copy(update={"proxy": alone}).to_toml()))
    assert settle(again.proxy) == alone
    assert settle(again.target).epochs == 40  # as the file says
    assert settle(CoresetConfig(dataset="d").target).epochs == 40


def test_defaults_of_a_row_are_settings_that_it_uses() -> None:
    for row in LEARNERS.values():
        assert row.defaults.keys() <= row.uses
        made = TrainConfig.make(dict(row.defaults))
        assert {name: getattr(made, name) for name in row.defaults} == dict(row.defaults)


def test_a_classifier_takes_what_it_uses_and_what_nobody_set(images: Dataset) -> None:
    usual = CoresetConfig.make({"dataset": "d", "proxy": {"model": "logistic"}, "target": {"model": "logistic"}})
    for train in (usual.proxy, usual.target, TrainConfig(model="logistic", options={"C": 0.5}, seeds=3)):
        make_learner(train, images, seed=0)


def test_a_function_that_needs_nothing_makes_a_classifier(images: Dataset, tmp_path: Path) -> None:
    for name in ("scaled_logistic", "any_options", "CountingClassifier"):
        found = find(TrainConfig(model=OWN + name))
        assert not found.is_net
        assert found.code == ("tests.own_models",)
    for name in ("MLP", "Headed", "too_many"):
        assert find(TrainConfig(model=OWN + name)).is_net
    learner = fit(images, TrainConfig(model=OWN + "scaled_logistic", options={"C": 0.1}), tmp_path)
    x = images.inputs.reshape(60, -1).astype(np.float32) / np.float32(255)
    ids = np.asarray(np.load(tmp_path / "ids.npy"))  # in the order of the fit
    expected = own_models.scaled_logistic(C=0.1).fit(x[images.positions(ids)], images.labels[images.positions(ids)])
    assert learner.predict(images, images.ids).probs == pytest.approx(expected.predict_proba(x), abs=1e-5)
    assert learner.gives == frozenset()


def test_functions_that_make_no_classifier_are_refused(images: Dataset) -> None:
    refused(SettingError, images, TrainConfig(model=OWN + "no_probabilities"), "no probabilities", "predict_proba")
    refused(
        SettingError,
        images,
        TrainConfig(model=OWN + "scaled_logistic", options={"D": 1}),
        "scaled_logistic",
        "{'D': 1}",
    )


def test_seconds_of_a_classifier_are_those_of_its_fit(
    images: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("svp.learners.classifier.time", SimpleNamespace(perf_counter=lambda: own_models.Ticking.now))
    fit(images, TrainConfig(model=OWN + "Ticking"), tmp_path)
    (record,) = json.loads((tmp_path / "history.json").read_text())
    assert record["seconds"] == 3
    assert own_models.Ticking.now > 1000  # its accuracy was looked at too


def test_probabilities_that_a_classifier_rounds_away_from_1_are_shares_of_their_sum(tmp_path: Path) -> None:
    """Naive Bayes gives [1, 1] where two classes are as far off; what adds up to 1 stays as it is, to the bit."""
    digits = load_dataset("digits")
    learner = fit(digits, TrainConfig(model="sklearn.naive_bayes:GaussianNB"), tmp_path, digits.ids[:40])
    probs = learner.predict(digits, digits.ids).probs
    x = digits.inputs.reshape(len(digits), -1).astype(np.float32) / np.float32(255)
    given = learner._classifier.predict_proba(x)
    off = np.abs(given.sum(axis=1) - 1) > 1e-2
    assert 0 < off.sum() < 10
    assert np.array_equal(probs[~off], given[~off].astype(np.float32))
    assert probs[off] == pytest.approx(given[off] / given[off].sum(axis=1, keepdims=True))
    assert len(select("margin", 10, probs=probs)) == 10


def test_one_class_is_not_enough_for_a_classifier(images: Dataset, tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="two classes at least; the 20 given have 1"):
        fit(images, TrainConfig(model="logistic"), tmp_path, images.ids[images.labels == 1])


def test_a_classifier_that_was_never_fitted_cannot_be_loaded(images: Dataset, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is missing"):
        make_learner(TrainConfig(model="logistic"), images, seed=0).load(tmp_path)


def test_held_out_examples_are_shown_in_no_epoch(images: Dataset, tmp_path: Path) -> None:
    train = config(epochs=2, validation=0.25)
    learner = make_learner(train, images, seed=0, compute=CPU)
    assert learner.gives == {"embeddings"}
    assert images.labels is not None
    learner.fit(images, images.ids, images.labels, folder=tmp_path)
    correct = Signals.open(tmp_path / "signals")["correct"]
    unseen = (correct == UNSEEN).all(axis=0)
    assert unseen.sum() == math.ceil(0.25 * len(images))
    assert (correct[:, ~unseen] != UNSEEN).all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "model.safetensors", "signals"]
    again = make_learner(train, images, seed=0, compute=CPU)
    again.load(tmp_path)
    assert np.array_equal(again.predict(images, images.ids).probs, learner.predict(images, images.ids).probs)


def test_a_training_with_held_out_examples_goes_on_where_it_stopped(images: Dataset, tmp_path: Path) -> None:
    train = config(epochs=4, validation=0.25)
    assert images.labels is not None

    def stop(record: Any, n_epochs: int) -> None:
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    learner = make_learner(train, images, seed=0, compute=CPU)
    with pytest.raises(KeyboardInterrupt):
        learner.fit(images, images.ids, images.labels, folder=tmp_path / "resumed", progress=stop)
    found = [fit(images, train, tmp_path / name).predict(images, images.ids).probs for name in ("whole", "resumed")]
    assert np.array_equal(*found)


def test_two_examples_are_too_few_to_hold_one_out(images: Dataset, tmp_path: Path) -> None:
    fit(images, config(epochs=3, validation=0.5, patience=1), tmp_path, ids=[0, 1])
    assert len(json.loads((tmp_path / "history.json").read_text())) == 3


# --- where it runs --------------------------------------------------------------------------------------------------------


def test_what_is_asked_for_is_what_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("svp.learners.compute._bf16_is_faster", lambda *_: pytest.fail("measured although told"))
    found = decide(ComputeConfig(device="cpu", precision="bf16", channels_last=False, threads=3, compile="on"))
    assert found.facts() == {
        "device": "cpu",
        "precision": "bf16",
        "channels_last": False,
        "threads": 3,
        "compile": "on",
    }
    assert decide(ComputeConfig(precision="fp32")).threads >= 1


@pytest.mark.parametrize(("faster", "precision"), [(2.0, "bf16"), (1.0, "fp32")])
def test_auto_measures(monkeypatch: pytest.MonkeyPatch, faster: float, precision: str) -> None:
    """In one thread, and with the switches of a training: TF32 would make fp32 faster than it is there."""

    def seconds(conv: Any, x: Any, *, bf16: bool) -> float:
        cudnn = torch.backends.cudnn
        assert (torch.get_num_threads(), cudnn.allow_tf32, cudnn.deterministic) == (1, False, True)
        return 1.0 if bf16 else faster

    monkeypatch.setattr("svp.learners.compute._seconds", seconds)
    threads = torch.get_num_threads()
    assert decide(ComputeConfig(device="cpu", threads=1)).precision == precision
    assert torch.get_num_threads() == threads


def test_the_measurement_runs_both_ways() -> None:
    conv = torch.nn.Conv2d(2, 2, 3, padding=1, bias=False)
    x = torch.ones(2, 2, 4, 4)
    seen: list[torch.dtype] = []
    conv.register_forward_hook(lambda module, given, out: seen.append(out.dtype))
    for bf16, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        seen.clear()
        assert _seconds(conv, x, bf16=bf16) > 0
        assert set(seen) == {dtype}
    assert conv.weight.grad is None


@pytest.mark.parametrize("device", ["cuda:99", "mps" if not torch.backends.mps.is_available() else "xpu", "gpu"])
def test_a_device_that_is_not_there_is_named(device: str) -> None:
    with pytest.raises(SettingError, match="cannot be used here") as caught:
        decide(ComputeConfig(device=device))
    assert repr(device) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_device_is_checked_for_whoever_would_use_it() -> None:
    preact, logistic = config(), TrainConfig(model="logistic")
    for device in ("auto", "cpu"):
        check_device(ComputeConfig(device=device), [preact, logistic])
        check_device(ComputeConfig(device=device, processes=3), [logistic])
    for device in ("cuda", "gpu"):
        with pytest.raises(SettingError, match=f"'{device}' is for nets; logistic can use the CPU alone"):
            check_device(ComputeConfig(device=device), [logistic, logistic])
    with pytest.raises(SettingError, match="'cuda:99' cannot be used here"):
        check_device(ComputeConfig(device="cuda:99"), [logistic, preact])


def test_processes_without_room_are_refused_with_what_there_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compute, "n_cores", lambda: 16)
    three = ComputeConfig(device="cpu", processes=3)
    with pytest.raises(
        SettingError, match=r"processes is 3, .* all 16 cores for each; set compute.threads to 5 at most"
    ):
        check_device(three, [config()])
    check_device(three.model_copy(update={"threads": 5}), [config()])
    for name, value in {"is_available": True, "device_count": 2}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    for n, refused in ((2, False), (3, True)):
        with pytest.raises(SettingError, match="there are 2; set it to 2") if refused else nullcontext():
            check_device(ComputeConfig(processes=n), [config()])


# --- texts ----------------------------------------------------------------------------------------------------------------


def test_hashed_linear_learns_texts_and_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200)
    words = [["dull", "poor"], ["fine", "great"]]
    inputs = np.array([f"a {rng.choice(words[y])} thing no {rng.integers(9)}!" for y in labels], object)
    data = Dataset.from_arrays(inputs[:100], labels[:100], test=(inputs[100:], labels[100:]), name="notes")
    train = TrainConfig(model="hashed-linear", options={"buckets": 512, "max_iter": 20})
    learner = fit(data, train, tmp_path)
    assert data.test is not None
    assert (learner.predict(data.test, data.test.ids).probs.argmax(axis=1) == data.test.labels).all()
    other = make_learner(train, data, seed=0)
    other.load(tmp_path)
    order = np.random.default_rng(1).permutation(data.ids)
    again = fit(data, train, tmp_path / "again", order)
    for model in (other, again):
        assert np.array_equal(model.predict(data, data.ids).probs, learner.predict(data, data.ids).probs)
    with pytest.raises(MissingInput, match="gives no embeddings"):
        learner.predict(data, data.ids, embeddings=True)


def test_hashed_linear_is_no_surer_of_few_texts_than_it_may_be(tmp_path: Path) -> None:
    """Each of many words says a little, and one label in ten is the other class."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 1200)
    said = np.where(rng.random((1200, 20)) < 0.7, labels[:, None], 1 - labels[:, None])  # by the words of each text
    words = 2 * rng.integers(100, size=said.shape) + said
    inputs = np.array([" ".join(f"w{word}" for word in row) for row in words], object)
    labels = np.where(rng.random(1200) < 0.1, 1 - labels, labels)
    data = Dataset.from_arrays(inputs[:200], labels[:200], test=(inputs[200:], labels[200:]), name="notes")
    learner = fit(data, TrainConfig(model="hashed-linear"), tmp_path)
    assert data.test is not None
    assert data.test.labels is not None
    probs = learner.predict(data.test, data.test.ids).probs
    given = probs[np.arange(1000), data.test.labels]
    assert -np.log(given).mean() < np.log(2)  # which is what knowing nothing costs


@pytest.mark.parametrize("value", [0, -1.0, "much"])
def test_how_closely_hashed_linear_fits_is_a_number_above_0(value: Any) -> None:
    data = Dataset.from_arrays(np.array(["a", "b"], object), np.array([0, 1]), name="notes")
    refused(SettingError, data, TrainConfig(model="hashed-linear", options={"C": value}), "C is a number above 0")


def test_hashed_linear_is_for_texts(images: Dataset) -> None:
    refused(SettingError, images, TrainConfig(model="hashed-linear"), "takes texts", "squares holds images")
