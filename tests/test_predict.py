"""Models that runs and sessions leave, used again: by svp.load_model and svp predict."""

import csv
import json
import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

import svp
from svp import cli
from svp.config import ActiveConfig, CoresetConfig
from svp.data.base import Dataset
from svp.errors import DataError, SettingError, SvpWarning, UnknownName
from svp.learners import LEARNERS
from svp.provenance import code_digests
from svp.tables import write_table
from svp.workflows import model as model_module
from svp.workflows.model import load_model
from tests import own_models
from tests.refused import refused
from tests.test_models import PRESET, TIMM, get_model

COMMON: dict[str, Any] = {
    "method": "random",
    "budget": 40,
    "compute": {"device": "cpu", "precision": "fp32", "threads": 1, "compile": "off"},
}
SMALL = {"width": 0.25, "epochs": 1, "batch_size": 16, "min_steps": 0}
WHOLE = {"epochs": 1, "batch_size": 16, "min_steps": 0}
# A small model of every row.
TINY: dict[str, dict[str, Any]] = {
    "preact": {"model": "preact8", **SMALL},
    "patchnet": {"model": "patchnet", **SMALL},
    "wide": {"model": "wrn-10-1", **SMALL},
    "imagenet": {"model": "resnet18-small", **SMALL, "width": 0.0625},
    "cifar": {"model": "resnet8", **SMALL},
    "resnext": {"model": "resnext11-2-4", **SMALL},
    "stochastic": {"model": "stochastic8", **SMALL},
    "timm": {"model": "timm:foreign", **WHOLE},
    "torchvision": {"model": "torchvision:foreign", **WHOLE},
    "linear": {"model": "linear", **WHOLE},
    "logistic": {"model": "logistic"},
    "knn": {"model": "knn"},
    "vdcnn": {"model": "vdcnn9-lite", **SMALL},
    "fasttext": {"model": "fasttext", "options": {"buckets": 1000}, "min_steps": 0},
    "hashed-linear": {"model": "hashed-linear", "options": {"buckets": 1024}},
}
LOGISTIC, NET, LINEAR = TINY["logistic"], TINY["preact"], TINY["linear"]
NAMES = ["cat", "dog"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def images(side: int = 16) -> Dataset:
    rng = np.random.default_rng(0)
    y = np.arange(70) % 2
    x = (rng.integers(0, 120, (70, side, side, 1)) + 100 * y[:, None, None, None]).astype(np.uint8)
    return Dataset.from_arrays(x[:50], y[:50], test=(x[50:], y[50:]), classes=NAMES, name="squares")


def texts() -> Dataset:
    rng = np.random.default_rng(0)
    words = {0: ["purr", "milk", "mouse"], 1: ["bark", "bone", "stick"]}
    y = np.arange(70) % 2
    x = [f"{rng.choice(words[c])} and {rng.choice(words[c])} {i}" for i, c in enumerate(y.tolist())]
    return Dataset.from_arrays(x[:50], y[:50], test=(x[50:], y[50:]), classes=NAMES, name="sounds")


def trained(data: Dataset, target: dict[str, Any], out: str = "run", **settings: Any) -> Path:
    config = CoresetConfig.make({**COMMON, "dataset": data.name, "target": target, "proxy": target, **settings})
    return svp.coreset(config, data, out=out).folder


def stored(folder: Path) -> Any:
    return np.load(folder / "test/probs.npy")


def held_out(data: Dataset) -> Dataset:
    assert data.test is not None
    return data.test


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main(["predict", *arguments, "--quiet"])
    assert left.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def said(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    cli.main(["predict", *arguments, "--quiet", "--json"])
    return json.loads(capsys.readouterr().out)


# --- every model ----------------------------------------------------------------------------------------------------------


def test_every_row_is_tried() -> None:
    assert set(TINY) == set(LEARNERS)


@pytest.mark.parametrize("name", LEARNERS)
def test_a_loaded_model_says_what_the_run_has_stored(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of nets and fastText without the training data; a classifier of scikit-learn is fitted again from them."""
    models = SimpleNamespace(get_model=get_model, get_model_weights=lambda name: {"DEFAULT": PRESET})
    monkeypatch.setitem(sys.modules, "timm", TIMM)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    data = texts() if LEARNERS[name].texts else images()
    run = trained(data, TINY[name])
    needed = data if LEARNERS[name].makes == "classifier" else None
    model = load_model(run, trained_on=needed)
    assert (model.part, model.classes, model.n, model.config.model) == (
        "target",
        ("cat", "dog"),
        40,
        TINY[name]["model"],
    )
    found = model.predict(held_out(data))
    np.testing.assert_array_equal(found.probs, stored(run / "target/proxy-epochs/seed-0"))
    assert found.labels is not None
    assert found.accuracy == pytest.approx(svp.Run.open(run).metrics["arms"][0]["accuracy"])
    raw = list(held_out(data).inputs) if data.is_text else held_out(data).inputs
    np.testing.assert_array_equal(model.predict(raw).probs, found.probs)
    assert model.predict(raw).accuracy is None


def test_blocks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(1300, 3)).astype(np.float32), np.arange(1300) % 2
    run = trained(Dataset.from_arrays(x[:50], y[:50], test=(x[50:70], y[50:70])), TINY["linear"])
    model = load_model(run)
    whole = model.predict(x).probs
    monkeypatch.setattr(model_module, "_BYTES", 1)
    np.testing.assert_array_equal(model.predict(x).probs, whole)


def test_examples_are_scored_in_the_batches_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    data = images()
    run = trained(data, NET, compute={**COMMON["compute"], "scoring_batch": 7})
    model = load_model(run)
    monkeypatch.setattr(model_module, "_BYTES", 1)
    shown: list[int] = []
    found = model.predict(held_out(data), show=lambda _, done, total: shown.append(done))
    assert shown == [0, 7, 14]
    np.testing.assert_array_equal(found.probs, stored(run / "target/proxy-epochs/seed-0"))


# --- frozen features ------------------------------------------------------------------------------------------------------


def net_in(folder: Path) -> dict[str, Any]:
    save_file(own_models.Headed(7, torch.zeros(64)).state_dict(), folder / "net.safetensors")
    return {"source": "tests.own_models:Headed", "weights": str(folder / "net.safetensors")}


def rows() -> Dataset:
    data = svp.load_dataset("digits")
    few = np.flatnonzero(np.asarray(data.labels) < 2)[:90]
    x, y = data.inputs[few].reshape(len(few), -1).astype(np.float32), np.asarray(data.labels)[few]
    return Dataset.from_arrays(x[:60], y[:60], test=(x[60:], y[60:]), ids=2 * np.arange(60), name="rows")


@pytest.mark.parametrize("of", ["linear", "logistic"])
@pytest.mark.parametrize("source", ["net by name", "trained net", "file"])
def test_features_are_made_by_the_same_source(of: str, source: str, tmp_path: Path) -> None:
    data = rows()
    given: Any = held_out(data)
    if source == "file":
        np.save("train.npy", data.inputs / 2)
        np.save("test.npy", held_out(data).inputs / 2)
        features, given = {"source": "train.npy", "test": "test.npy"}, "test.npy"
    elif source == "trained net":
        headed = {"model": "tests.own_models:Headed", **WHOLE}
        features = {"source": str(trained(data, headed, out="first") / "target/proxy-epochs/seed-0/model")}
    else:
        features = net_in(tmp_path)
    run = trained(data, {**TINY[of], "features": features})
    model = load_model(run, trained_on=data if of == "logistic" else None)
    np.testing.assert_array_equal(model.predict(given).probs, stored(run / "target/proxy-epochs/seed-0"))
    if source == "file":
        with refused(DataError, "takes rows of 64 numbers", "embeddings such as train.npy holds"):
            model.predict(np.zeros((2, 3), np.float32))
    if source == "net by name":
        save_file(own_models.Headed(7, torch.ones(64)).state_dict(), tmp_path / "net.safetensors")
        torch.manual_seed(1)
        with refused(DataError, "weights of tests.own_models:Headed are others"):
            load_model(run, trained_on=data)


def test_features_of_the_round_before(tmp_path: Path) -> None:
    data = rows()
    values = {
        **COMMON,
        "dataset": "rows",
        "method": "margin",
        "proxy": {**TINY["linear"], "features": "previous"},
        "target": {"model": "tests.own_models:Headed", **WHOLE},
        "labelled": [10, 20, 30],
    }
    values.pop("budget")
    svp.active(ActiveConfig.make(values), data, out="run")
    proxy = load_model("run", "proxy")
    rest = proxy.folder.parent / "selection"
    ids = np.load(rest / "ids.npy")
    chosen = Dataset.from_arrays(data.inputs[data.positions(ids)], ids=ids)
    np.testing.assert_allclose(proxy.predict(chosen).probs, np.load(rest / "probs-0.npy"), rtol=1e-5)
    target = load_model("run")
    assert target.n == 30
    np.testing.assert_array_equal(target.predict(held_out(data)).probs, stored(Path("run/target/proxy-30/seed-0")))


# --- which of them --------------------------------------------------------------------------------------------------------


def test_arms_and_seeds_of_a_core_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = images()
    run = trained(data, LINEAR, control=["random", "full"], equal=["epochs", "steps"], seeds=2, method="margin")
    test = held_out(data)
    expected = {
        (None, None): "proxy-epochs/seed-0",
        ("random", None): "random-epochs/seed-0",
        ("proxy-steps", 1): "proxy-steps/seed-1",
        ("full", 1): "full/seed-1",  # the proxy is the target: its own training
    }
    for (arm, seed), place in expected.items():
        probs = load_model(run, arm=arm, seed=seed).predict(test).probs
        np.testing.assert_array_equal(probs, stored(run / "target" / place))
    proxy = load_model(run, "proxy", seed=1)
    assert proxy.folder == run / "proxy/seed-1/model-0"
    np.testing.assert_array_equal(proxy.predict(test).probs, stored(run / "proxy/seed-1"))
    own = load_model(run / "target/random-steps/seed-1/model")
    monkeypatch.chdir(run / "target")
    for near in ("random-steps/seed-1/model", "random-steps/seed-1/model/../model"):
        assert load_model(near).part == own.part == "target"
    monkeypatch.chdir(tmp_path / run / "proxy/seed-1/model-0")
    assert load_model(".").part == "proxy"
    monkeypatch.chdir(tmp_path)
    np.testing.assert_array_equal(own.predict(test).probs, stored(run / "target/random-steps/seed-1"))
    with refused(
        DataError, "no arm 'rondom'", "proxy-epochs (seed 0, 1)", "random-steps (seed 0, 1)", "full (seed 0, 1)"
    ):
        load_model(run, arm="rondom")
    with refused(DataError, "no arm 'proxy' of seed 7"):
        load_model(run, seed=7)
    with refused(SettingError, "neither arms nor seeds"):
        load_model(run / "proxy/seed-1/model-0", seed=1)
    with refused(SettingError, "part is 'judge'", "target and proxy"):
        load_model(run, "judge")  # type: ignore[arg-type]


def test_the_target_of_active_learning_is_that_on_the_most_labels() -> None:
    data = images()
    values = {**COMMON, "dataset": "squares", "method": "margin", "proxy": LOGISTIC, "target": LINEAR}
    values |= {"labelled": [10, 20], "evaluate": [10, 20], "control": ["random", "target"]}
    values.pop("budget")
    svp.active(ActiveConfig.make(values), data, out="run")
    for arm, place in ((None, "proxy-20"), ("random", "random-20"), ("proxy-10", "proxy-10"), ("target", "target-20")):
        probs = load_model("run", arm=arm).predict(held_out(data)).probs
        np.testing.assert_array_equal(probs, stored(Path("run/target") / place / "seed-0"))
    proxy = load_model("run", "proxy", trained_on=data)
    assert (proxy.config.model, proxy.n) == ("logistic", 10)
    assert load_model("run", "proxy", arm="target").config.model == "linear"


# --- sessions -------------------------------------------------------------------------------------------------------------


def photo(path: Path, shade: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 50, (10, 12, 3))
    Image.fromarray((noise + shade).astype(np.uint8)).save(path)


def session(*models: str) -> None:
    """30 photos, some in folders that are no classes; 20 of them answered by their names."""
    for i in range(30):
        name = NAMES[i % 2]
        photo(Path("photos") / ("more" if i % 5 == 0 else "") / f"{name}{i}.png", 150 * (i % 2), i)
    flags = ["--data", "photos", "--classes", "cat,dog", "--image-size", "8", *models]
    cli.main(["session", "new", "pets", *flags, "--quiet"])
    with svp.Session.open("pets") as pets:
        batch = pets.ask(20)
        keys = pets.store.keys(batch.ids.tolist())
        pets.tell({i: int("dog" in key) for i, key in keys.items()})


def of_nets() -> list[str]:
    flags = ["--compute.threads", "1", "--compute.precision", "fp32"]
    for role in ("proxy", "target"):
        flags += [
            f"--{role}.model",
            "preact8",
            f"--{role}.width",
            "0.25",
            f"--{role}.epochs",
            "1",
            f"--{role}.min-steps",
            "4",
        ]
    return flags


@pytest.mark.parametrize("kind", ["logistic", "net"])
def test_the_model_of_a_session(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    session(*(of_nets() if kind == "net" else ["--proxy.model", "logistic", "--target.model", "logistic"]))
    line = fails(capsys, "pets", "photos")
    assert "without a trained target; svp session finish pets trains it" in line
    with svp.Session.open("pets") as pets:
        pets.finish()
    with open("pets/predicted.csv", encoding="utf-8-sig", newline="") as file:
        finished = {row["key"]: (row["predicted"], float(row["probability"])) for row in csv.DictReader(file)}
    facts = said(capsys, "pets", "photos", "--out", "out.parquet", "--probs")
    assert (facts["n"], facts["accuracy"]) == (30, None)
    table = pq.read_table("out.parquet").to_pylist()
    assert list(table[0]) == ["id", "key", "predicted", "probability", "p_cat", "p_dog"]
    found = {row["key"]: (row["predicted"], row["probability"]) for row in table}
    for key, (label, probability) in finished.items():
        assert found[key][0] == label
        assert found[key][1] == pytest.approx(probability, abs=1e-5)
    # The pool grows and the classes do: the model stays what it was.
    photo(Path("photos/a-new-one.png"), 150, 99)
    with svp.Session.open("pets") as pets:
        pets.add_classes(["owl"])
        assert len(pets.dataset) == 31
    again = said(capsys, "pets", "photos", "--out", "again.parquet")
    assert again["n"] == 31
    assert set(again["counts"]) == {"cat", "dog"}
    photo(Path("sorted/cat/x.jpg"), 0, 5)
    photo(Path("sorted/dog/below/y.png"), 150, 6)
    assert said(capsys, "pets", "sorted")["n"] == 2
    assert said(capsys, "pets", "sorted")["accuracy"] is not None
    photo(Path("sorted/emu/z.png"), 150, 7)
    assert "has the class 'emu', which the model does not know (cat, dog)" in fails(capsys, "pets", "sorted")
    assert said(capsys, "pets", "sorted", "--no-labels")["n"] == 3
    if kind == "logistic":
        shutil.move("photos", "elsewhere")
        line = fails(capsys, "pets", "sorted", "--no-labels")
        assert "kept as its training examples" in line
        assert "--trained-on" in line
        assert said(capsys, "pets", "sorted", "--no-labels", "--trained-on", "elsewhere")["n"] == 3
        for path in Path("elsewhere").rglob("*.png"):
            photo(path, 77, 3)
        assert "gone from elsewhere, or changed" in fails(
            capsys, "pets", "sorted", "--no-labels", "--trained-on", "elsewhere"
        )
    with refused(SettingError, "neither arms nor seeds"):
        load_model("pets", seed=0)


def test_the_last_finish_is_told_by_the_labels_and_not_by_file_times() -> None:
    session("--proxy.model", "logistic", "--target.model", "logistic")
    with svp.Session.open("pets") as pets:
        first = pets.finish().target.stage.folder
        batch = pets.ask(5)
        pets.tell({i: int("dog" in key) for i, key in pets.store.keys(batch.ids.tolist()).items()})
        pets.finish()
    os.utime(first / "done.json", (2e9, 2e9))  # as a copy may have it
    assert load_model("pets").n == 25
    with svp.Session.open("pets") as pets:
        pets.undo()
        assert pets.finish().target.stage.folder == first
    os.utime(first / "done.json", (1e9, 1e9))
    assert load_model("pets").n == 20


def test_a_smaller_proxy_trained_for_a_curve_is_not_the_last() -> None:
    session("--proxy.model", "logistic", "--target.model", "logistic")
    with svp.Session.open("pets") as pets:

        def label(n: int) -> None:
            batch = pets.ask_more(n)  # trains nothing
            assert batch is not None
            pets.tell({i: int("dog" in key) for i, key in pets.store.keys(batch.ids.tolist()).items()})

        label(8)
        pets.train()
        for i in range(30, 36):
            photo(Path("held") / NAMES[i % 2] / f"{i}.png", 150 * (i % 2), i)
        assert [point["n"] for point in pets.curve("held")["points"]] == [20, 28]
        label(1)
    assert load_model("pets", "proxy").n == 28


def test_a_model_on_frozen_features_stays_what_it_was(tmp_path: Path) -> None:
    """Whatever is added to the pool and the classes; and a class more embeds nothing anew."""
    save_file(own_models.Headed(2, torch.zeros(1, 8, 8, 3)).state_dict(), tmp_path / "net.safetensors")
    flags = []
    for role in ("proxy", "target"):
        flags += [f"--{role}.model", "logistic", f"--{role}.features.source", "tests.own_models:Headed"]
        flags += [f"--{role}.features.weights", "net.safetensors"]
    session(*flags)
    with svp.Session.open("pets") as pets:
        pets.finish()
    shutil.copytree("photos", "asked")
    before = load_model("pets").predict("asked").probs
    made = set(Path("pets/features").iterdir())
    with svp.Session.open("pets") as pets:
        pets.add_classes(["owl"])
        photo(Path("photos/a-new-one.png"), 150, 99)
    np.testing.assert_array_equal(load_model("pets").predict("asked").probs, before)
    Path("photos/a-new-one.png").unlink()
    with svp.Session.open("pets") as pets:
        pets.finish()
    assert set(Path("pets/features").iterdir()) == made
    assert load_model("pets").classes == ("cat", "dog", "owl")
    shutil.rmtree("photos")
    np.testing.assert_array_equal(load_model("pets").predict("asked").probs[:, :2], before)


# --- data -----------------------------------------------------------------------------------------------------------------


def test_tables_of_texts(capsys: pytest.CaptureFixture[str]) -> None:
    run = trained(texts(), TINY["fasttext"])
    test = held_out(texts())
    named = [NAMES[c] for c in np.asarray(test.labels)]
    write_table(Path("labelled.csv"), pa.table({"label": named, "text": list(test.inputs)}))
    write_table(Path("plain.csv"), pa.table({"id": [f"r{i}" for i in range(20)], "text": list(test.inputs)}))
    found = said(capsys, str(run), "labelled.csv", "--out", "a.csv")
    assert found["accuracy"] == pytest.approx(svp.Run.open(run).metrics["arms"][0]["accuracy"])
    plain = said(capsys, str(run), "plain.csv", "--out", "b.csv")
    assert found["majority_rate"] == 0.5
    assert plain == {**found, "accuracy": None, "macro_f1": None, "majority_rate": None, "out": "b.csv"}
    with open("a.csv", encoding="utf-8-sig", newline="") as a, open("b.csv", encoding="utf-8-sig", newline="") as b:
        left, right = list(csv.DictReader(a)), list(csv.DictReader(b))
    assert list(left[0]) == ["id", "key", "predicted", "probability", "label"]
    assert [row["label"] for row in left] == named
    assert [{name: row[name] for name in right[0]} for row in left] == right
    write_table(Path("odd.csv"), pa.table({"label": ["cow"] * 20, "text": list(test.inputs)}))
    assert "the class 'cow'" in fails(capsys, str(run), "odd.csv")
    assert said(capsys, str(run), "odd.csv", "--no-labels")["n"] == 20
    Path("bare.tsv").write_text("text\tid\n" + "".join(f'"{words}\t{i}\n' for i, words in enumerate(test.inputs)))
    assert "--no-quotes" in fails(capsys, str(run), "bare.tsv")
    assert said(capsys, str(run), "bare.tsv", "--no-quotes")["n"] == 20
    cli.main(["predict", str(run), "labelled.csv", "--quiet"])
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"fasttext ({run}/target/proxy-epochs/seed-0/model) on 20 examples: cat ")
    assert lines[1].startswith("Accuracy ")
    assert lines[1].endswith(" %; always answering their most common class is right for 50.0 %")


def test_arrays_and_tables_of_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    data = rows()
    run = trained(data, LINEAR)
    test = held_out(data)
    probs = stored(run / "target/proxy-epochs/seed-0")
    np.save("x.npy", test.inputs)
    np.savez("x.npz", x=test.inputs)
    np.savez("y.npz", x=test.inputs, y=np.asarray(test.labels))
    columns = {f"e{i:02d}": test.inputs[:, i] for i in range(64)}
    names = {"key": [f"n{i}" for i in range(len(test))], "label": [str(c) for c in np.asarray(test.labels)]}
    write_table(Path("x.parquet"), pa.table({**names, **columns}))
    for suffix in (".csv", ".tsv", ".jsonl", ".feather"):  # the numbers of the classes as numbers
        write_table(Path(f"whole{suffix}"), pa.table({**names, "label": np.asarray(test.labels), **columns}))
    model = load_model(run)
    for suffix in (".csv", ".tsv", ".jsonl", ".feather"):
        np.testing.assert_array_equal(model.predict(f"whole{suffix}").labels, test.labels)
    for source in ("x.npy", "x.npz", "y.npz", "x.parquet", "x.parquet:e*"):
        np.testing.assert_array_equal(model.predict(source).probs, probs)
    assert model.predict("x.npz").labels is None
    assert model.predict("y.npz").accuracy == model.predict("x.parquet").accuracy == model.predict(test).accuracy
    assert model.predict("x.parquet").keys == tuple(names["key"])
    said(capsys, str(run), "x.npy", "--out", "p.npy")
    np.testing.assert_array_equal(np.load("p.npy"), probs)


@pytest.mark.parametrize("labels", [[0, 1], ["0", "1"]])
def test_rows_without_a_label_are_named(labels: list[Any]) -> None:
    model = load_model(trained(rows(), LINEAR))
    columns = {f"e{i:02d}": np.zeros(4, np.float32) for i in range(64)}
    write_table(Path("some.csv"), pa.table({"label": [*labels, None, labels[0]], **columns}))
    write_table(Path("none.csv"), pa.table({"label": pa.nulls(4, pa.string()), **columns}))
    with refused(DataError, "some.csv: 1 of 4 rows have no label, the first: [2]", "--no-labels"):
        model.predict("some.csv")
    assert model.predict("some.csv", labels=False).labels is None
    assert model.predict("none.csv").labels is None


def test_a_table_in_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    model = load_model(trained(rows(), LINEAR))
    write_table(Path("x.csv"), pa.table({f"e{i:02d}": np.zeros(4, np.float32) for i in range(64)}))
    assert len(model.predict("~/x.csv")) == len(model.predict("~/x.csv:e*")) == 4


def test_without_labels_the_same_part_is_asked_about() -> None:
    data = rows()
    test = held_out(data)
    model = load_model(trained(data, LINEAR))
    np.savez("both.npz", x=data.inputs, y=np.asarray(data.labels), x_test=test.inputs, y_test=np.asarray(test.labels))
    np.savez("x.npz", x=test.inputs)
    np.savez("y.npz", x=test.inputs, y=np.asarray(test.labels))
    probs = model.predict("both.npz").probs
    for name in ("both.npz", "x.npz", "y.npz"):
        found = model.predict(name, labels=False)
        np.testing.assert_array_equal(found.probs, probs)
        assert found.labels is None


def test_the_test_part_of_a_folder_is_asked_about_without_its_labels() -> None:
    for i in range(40):
        photo(Path("photos") / ("test" if i > 29 else "train") / NAMES[i % 2] / f"{i}.png", 150 * (i % 2), i)
    data = svp.load_dataset("photos", image_size=8)
    model = load_model(trained(data, LINEAR, dataset="photos", image_size=8, budget=20))
    found = model.predict("photos", labels=False)
    assert (found.keys, found.labels) == (held_out(data).keys, None)
    np.testing.assert_array_equal(found.probs, model.predict("photos").probs)
    of_texts = load_model(trained(texts(), TINY["fasttext"], out="texts"))
    Path("tables").mkdir()
    for part, column in (("train", list(texts().inputs)), ("test", list(held_out(texts()).inputs))):
        write_table(Path(f"tables/{part}.csv"), pa.table({"text": column}))
    np.testing.assert_array_equal(of_texts.predict("tables").probs, of_texts.predict(held_out(texts())).probs)


def test_parquet_of_images_is_read_as_in_training(capsys: pytest.CaptureFixture[str]) -> None:
    """By the column that the run was told, also where there are texts beside it; with labels, without, and unknown ones."""
    images, labels = [], [i % 2 for i in range(20)]
    for i, label in enumerate(labels):
        photo(Path("one.png"), 150 * label, i)
        images.append(Path("one.png").read_bytes())
    table = pa.table({"photo": images, "text": ["a caption"] * 20})
    write_table(Path("labelled.parquet"), table.append_column("label", pa.array(labels)))
    write_table(Path("plain.parquet"), table)
    write_table(Path("unknown.parquet"), table.append_column("label", pa.array([-1] * 20)))
    write_table(Path("other.parquet"), table.rename_columns(["picture", "text"]))
    read = {"image_size": 8, "image_column": "photo"}
    data = svp.load_dataset("labelled.parquet", **read)
    run = trained(data, LINEAR, dataset="labelled.parquet", budget=10, **read)
    model = load_model(run)
    found = model.predict("labelled.parquet")
    assert (len(found), found.labels is None) == (20, False)
    for name in ("plain.parquet", "unknown.parquet"):
        again = model.predict(name, labels=name != "unknown.parquet")
        assert again.labels is None
        np.testing.assert_array_equal(again.probs, found.probs)
    assert said(capsys, str(run), "other.parquet", "--image-column", "picture")["n"] == 20


def test_a_named_dataset_is_looked_for_where_the_run_had_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Path("mine_by_root.py").write_text(
        "import svp\nimport numpy as np\n\n"
        "def load(root):\n    x, y = np.load(f'{root}/x.npy'), np.arange(60) % 2\n"
        "    return svp.Dataset.from_arrays(x[:40], y[:40], test=(x[40:], y[40:]), classes=['cat', 'dog'])\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    Path("there").mkdir()
    np.save("there/x.npy", rows().inputs)
    data = svp.load_dataset("mine_by_root:load", root="there")
    settings = {"dataset": "mine_by_root:load", "data": "there", "budget": 20, "target": LINEAR, "proxy": LINEAR}
    run = svp.coreset(CoresetConfig.make({**COMMON, **settings}), data, out="run").folder
    probs = stored(run / "target/proxy-epochs/seed-0")
    np.testing.assert_array_equal(load_model(run).predict("mine_by_root:load").probs, probs)


def test_photos_are_scaled_as_in_training(capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(40):
        photo(Path("photos") / NAMES[i % 2] / f"{i}.png", 150 * (i % 2), i)
    data = svp.load_dataset("photos", image_size=8, short_side=9)
    run = trained(data, LINEAR, dataset="photos", image_size=8, short_side=9, budget=30)
    held = held_out(data)
    Path("held").mkdir()
    for key in held.keys or ():
        shutil.copy(Path("photos") / key, Path("held") / Path(key).name)
    found = load_model(run).predict("held")
    order = [str(Path(key).name) for key in held.keys or ()]
    by_name = dict(zip(found.keys or (), found.probs, strict=True))
    np.testing.assert_allclose([by_name[name] for name in order], stored(run / "target/proxy-epochs/seed-0"), rtol=1e-5)
    assert found.labels is None
    assert said(capsys, str(run), "photos")["accuracy"] is not None


# --- what is refused ------------------------------------------------------------------------------------------------------


def test_data_of_another_kind_are_named() -> None:
    of_images, of_rows = load_model(trained(images(), LINEAR, out="a")), load_model(trained(rows(), LINEAR, out="b"))
    with refused(DataError, "holds texts", "linear", "takes images of 16 x 16 pixels in 1 channel (uint8)"):
        of_images.predict(["a text"])
    with refused(DataError, "16 pixels in 3 channels"):
        of_images.predict(np.zeros((2, 16, 16, 3), np.uint8))
    with refused(DataError, "(float32)", "give the same numbers in that type (bytes are 0 to 255)"):
        of_images.predict(np.zeros((2, 16, 16, 1), np.float32))
    with refused(DataError, "rows of 63 numbers", "takes rows of 64 numbers (float32)"):
        of_rows.predict(np.zeros((2, 63), np.float32))
    with refused(DataError, "NaN or infinite"):
        of_rows.predict(np.full((2, 64), np.nan, np.float32))
    np.save("nan.npy", np.full((2, 64), np.nan, np.float32))
    with refused(DataError, "nan.npy, from row 0 on", "NaN or infinite"):
        of_rows.predict("nan.npy")
    with refused(UnknownName, "Unknown dataset 'nowhere'"):
        of_rows.predict("nowhere")
    with refused(DataError, "nowhere.npy does not exist"):
        of_rows.predict("nowhere.npy")


def test_another_size_is_taken_where_the_net_can() -> None:
    other = images(side=12).inputs
    model = load_model(trained(images(), NET))
    with pytest.warns(SvpWarning, match="12 x 12 .* takes images of 16 x 16 .*may be worse"):
        assert model.predict(other).probs.shape == (50, 2)
    model = load_model(trained(images(), LINEAR, out="linear"))
    with refused(DataError, "12 x 12", "takes images of 16 x 16", "fit no other size"):
        model.predict(other)


def test_unfinished_and_damaged_folders_are_named(tmp_path: Path) -> None:
    data = images()
    run = trained(data, LINEAR)
    stage = run / "target/proxy-epochs/seed-0/model"
    with refused(DataError, "is no folder"):
        load_model("nothing")
    Path("empty").mkdir()
    with refused(DataError, "is this a run folder?"):
        load_model("empty")
    with refused(DataError, "holds no trained model"):
        load_model(stage.parent / "test")
    weights = stage / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    with refused(DataError, "model.safetensors is damaged", "repeat the command"):
        load_model(run)
    weights.write_bytes(whole)
    (run / "metrics.json").rename(run / "kept")
    with refused(DataError, "a run that is not finished", str(stage)):
        load_model(run)
    assert load_model(stage).n == 40
    (stage / "done.json").unlink()
    with refused(DataError, f"{stage} is not finished"):
        load_model(stage)


def test_training_data_that_changed_are_named() -> None:
    data = images()
    run = trained(data, LOGISTIC)
    with refused(DataError, "logistic", "kept as its training examples", "trained_on="):
        load_model(run)
    other = Dataset.from_arrays(data.inputs[::-1], data.labels, classes=NAMES)
    with refused(DataError, "its content is another"):
        load_model(run, trained_on=other)


def test_a_model_of_ones_own(tmp_path: Path) -> None:
    own = "from tests.own_models import Headed\n\ndef net(n, example):\n    return Headed(n, example)\n"
    Path("mine_to_predict.py").write_text(own)
    sys.path.insert(0, str(tmp_path))
    data = rows()
    run = trained(data, {"model": "mine_to_predict:net", **WHOLE})
    probs = stored(run / "target/proxy-epochs/seed-0")
    np.testing.assert_array_equal(load_model(run).predict(held_out(data)).probs, probs)
    Path("mine_to_predict.py").write_text(own + "\nOTHER = 1\n")
    code_digests.cache_clear()
    with pytest.warns(SvpWarning, match="trained by other code"):
        _ = load_model(run)
    sys.path.remove(str(tmp_path))
    del sys.modules["mine_to_predict"]
    with refused(SettingError, "mine_to_predict:net cannot be imported", "PYTHONPATH"):
        load_model(run)


def test_a_run_of_before_is_read_with_its_data() -> None:
    """Done-marks of earlier versions do not say what the model was shown."""
    data = images()
    run = trained(data, LINEAR)
    mark = run / "target/proxy-epochs/seed-0/model/done.json"
    record = json.loads(mark.read_text())
    for name in ("classes", "takes"):
        del record["facts"][name]
    mark.write_text(json.dumps(record))
    found = load_model(run, trained_on=data).predict(held_out(data))
    np.testing.assert_array_equal(found.probs, stored(run / "target/proxy-epochs/seed-0"))


@pytest.mark.parametrize(
    ("out", "words"),
    [("x.xls", "cannot be written"), ("no/x.csv", "the folder no does not exist"), (".", "is a folder")],
)
def test_where_it_cannot_be_written_is_said_first(
    out: str, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(model_module, "Model", pytest.fail)
    if out == ".":
        Path("x.csv").mkdir()
        out = "x.csv"
    assert words in fails(capsys, "anything", "digits", "--out", out)
