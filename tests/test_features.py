"""Frozen features in place of inputs: from where, made once, refused where they do not fit, resumed, said in the report."""

import os
import shutil
import signal
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import save_file

import svp
from svp import words
from svp.config import ActiveConfig, CoresetConfig, FeaturesConfig, TrainConfig
from svp.data.base import Dataset
from svp.errors import DataError, MissingInput, SettingError, SvpError, UnknownName
from svp.files import fill_array, read_array, read_json
from svp.learners import make_learner
from svp.learners.compute import Compute
from svp.report import tables
from svp.workflows import features as features_module
from svp.workflows.active import active
from svp.workflows.coreset import coreset
from svp.workflows.features import source_of
from svp.workflows.session import Session
from tests import own_models

NET = {"model": "tests.own_models:Headed", "epochs": 4, "batch_size": 16, "min_steps": 0}
LINEAR = {"model": "linear", "epochs": 4, "batch_size": 16, "min_steps": 0}
LOGISTIC = {"model": "logistic"}
COMMON: dict[str, Any] = {
    "dataset": "tiny",
    "method": "margin",
    "proxy": LINEAR,
    "target": NET,
    "compute": {"device": "cpu", "precision": "fp32", "threads": 1, "compile": "off"},
}


def core(features: Any, **settings: Any) -> CoresetConfig:
    proxy = {**LINEAR, **settings.pop("proxy", {}), "features": features}
    return CoresetConfig.make({**COMMON, "budget": 40, **settings, "proxy": proxy})


def act(features: Any, **settings: Any) -> ActiveConfig:
    return ActiveConfig.make(
        {**COMMON, "labelled": [16, 28, 40], **settings, "proxy": {**LINEAR, "features": features}}
    )


@pytest.fixture(scope="module")
def tiny() -> Dataset:
    """96 digits of four classes to train on, 40 to test; ids with gaps, and keys."""
    digits = svp.load_dataset("digits")
    assert digits.labels is not None
    rows = np.concatenate([np.flatnonzero(digits.labels == c)[:34] for c in range(4)])
    x, y = digits.inputs[rows].reshape(len(rows), -1).astype(np.float32), digits.labels[rows]
    held = np.arange(len(rows)) % 34 >= 24
    ids = np.flatnonzero(~held) * 2
    keys = [f"digit {i}" for i in ids]
    return Dataset.from_arrays(x[~held], y[~held], test=(x[held], y[held]), ids=ids, keys=keys, name="tiny")


@pytest.fixture(scope="module")
def trained(tiny: Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a small net that another run has trained on everything."""
    out = tmp_path_factory.mktemp("trained") / "run"
    coreset(CoresetConfig.make({**COMMON, "proxy": NET, "budget": 40}), tiny, out=out)
    return out / "proxy/seed-0/model-0"


@pytest.fixture
def files(tiny: Dataset, tmp_path: Path) -> tuple[Path, Path]:
    """Embeddings in the order of the ids: the inputs themselves, halved, so that it can be told who saw what."""
    assert tiny.test is not None
    paths = tmp_path / "train.npy", tmp_path / "test.npy"
    for path, part in zip(paths, (tiny, tiny.test), strict=True):
        np.save(path, part.inputs / 2)
    return paths


def embedded(folder: Path) -> list[Path]:
    """Stages of features in a run, its sessions included."""
    return sorted(folder.rglob("embeddings.npy"))


# --- where they come from ---------------------------------------------------------------------------------------------


def test_features_of_a_trained_net_are_what_it_embeds(tiny: Dataset, trained: Path, tmp_path: Path) -> None:
    run = coreset(core(str(trained)), tiny, out=tmp_path / "run")
    (stage,) = embedded(run.folder)
    made = read_array(stage)
    net = make_learner(
        TrainConfig.make({**NET, "weights": trained / "model.safetensors"}),
        tiny,
        seed=0,
        compute=Compute("cpu", "fp32", channels_last=True, threads=1),
    )
    wanted = net.predict(tiny, tiny.ids, embeddings=True).embeddings
    assert wanted is not None
    assert made.dtype == np.float32
    np.testing.assert_array_equal(made, wanted)
    saw = run.metrics["saw"]["proxy"]["features"]
    assert (saw["kind"], saw["same_data"], saw["n"], saw["d"]) == ("trained", True, 96, 5)
    assert "trained on 96 labelled examples of this same data" in " ".join(run.verdict)
    assert "other data" not in " ".join(run.verdict)
    proxy = run.metrics["proxies"][0]
    assert proxy["seconds"]["embed"] == saw["seconds"]
    assert proxy["accuracy"] > 0.5
    assert (run.folder / "proxy/seed-0/model-0/signals/correct.npy").exists()


def test_a_net_by_name_needs_weights_and_is_said_to_have_seen_other_data(tiny: Dataset, tmp_path: Path) -> None:
    net = own_models.Headed(7, torch.zeros(64))
    save_file(net.state_dict(), tmp_path / "net.safetensors")
    source = {"source": NET["model"], "weights": tmp_path / "net.safetensors"}
    run = coreset(core(source, control=["full"]), tiny, out=tmp_path / "run")
    said = " ".join(run.verdict)
    assert (
        "saw frozen features in place of the inputs: those of tests.own_models:Headed with weights learned on other data"
        in said
    )
    assert "So the proxy saw other data than the target" in said
    # Where the target sees the same, it knows no less.
    both = core(source, control=["full"], target={**LOGISTIC, "features": source})
    run = coreset(both, tiny, out=tmp_path / "both")
    assert "So the proxy saw other data" not in " ".join(run.verdict)
    counted = {found["arm"] for found in [*run.metrics["proxies"], *run.metrics["arms"]] if "embed" in found["seconds"]}
    assert counted == {"proxy model", "full"}  # once on each side
    assert len(embedded(run.folder)) == 1
    with pytest.raises(SettingError, match="knows nothing yet; give its weights"):
        coreset(core(NET["model"]), tiny, out=tmp_path / "none")
    with pytest.raises(SettingError, match="no net"):
        coreset(core("logistic"), tiny, out=tmp_path / "none")
    with pytest.raises(UnknownName, match=r"Unknown model 'preakt8'"):
        coreset(core("preakt8"), tiny, out=tmp_path / "none")


def test_how_inputs_are_normalised_makes_other_features(tiny: Dataset, tmp_path: Path) -> None:
    save_file(own_models.Headed(7, torch.zeros(3, 4, 4)).state_dict(), tmp_path / "net.safetensors")
    photos = replace(tiny, inputs=np.random.default_rng(0).integers(0, 256, (96, 4, 4, 3), np.uint8), test=None)
    sources = [
        source_of(
            FeaturesConfig(source=NET["model"], weights=tmp_path / "net.safetensors", normalize=normalize),
            photos,
            lambda net: make_learner(net, photos, seed=0, compute=Compute("cpu", "fp32", True, 1)),
            dict,
        )
        for normalize in (None, "data", "imagenet")
    ]
    usual, own, imagenet = (next(source.blocks("embeddings", photos, 0)) for source in sources)
    np.testing.assert_array_equal(usual, own)
    assert not np.allclose(usual, imagenet)
    assert sources[0].made_from != sources[2].made_from
    assert "normalize" not in sources[0].made_from


def test_pretrained_weights_of_a_proxy_are_said(tiny: Dataset, trained: Path, tmp_path: Path) -> None:
    proxy = {**NET, "weights": trained / "model.safetensors"}
    run = coreset(CoresetConfig.make({**COMMON, "proxy": proxy, "budget": 40}), tiny, out=tmp_path / "run")
    said = " ".join(run.verdict)
    assert "The proxy began with weights learned on other data (sha256:" in said
    assert "So the proxy saw other data than the target" in said


@pytest.mark.parametrize("model", ["linear", "logistic", "knn"])
def test_every_learner_takes_features_from_a_file(
    tiny: Dataset, files: tuple[Path, Path], tmp_path: Path, model: str
) -> None:
    train, test = map(str, files)
    proxy = LINEAR if model == "linear" else {"model": model, "epochs": 15, "batch_size": 128}
    run = coreset(core({"source": train, "test": test}, proxy=proxy), tiny, out=tmp_path / "run")
    (stage,) = embedded(run.folder)
    np.testing.assert_array_equal(read_array(stage), tiny.inputs / 2)
    assert run.metrics["proxies"][0]["accuracy"] > 0.6
    assert "what made them, from which data and at what cost, is not known here" in " ".join(run.verdict)


def test_a_table_says_by_id_or_key_which_row_is_whose(tiny: Dataset, tmp_path: Path) -> None:
    order = np.random.default_rng(0).permutation(len(tiny))
    rows = [row.tolist() for row in (tiny.inputs[order] * 3)] + [[0.0] * 64]  # one more that nobody asks for
    assert tiny.keys is not None
    names: dict[str, list[Any]] = {
        "id": [*tiny.ids[order].tolist(), 1001],
        "key": [*(tiny.keys[i] for i in order), "another"],
    }
    for column, values in names.items():
        pq.write_table(pa.table({column: values, "e": rows}), tmp_path / f"{column}.parquet")
        found = features_module.FromFile.of(FeaturesConfig(source=str(tmp_path / f"{column}.parquet")), tiny)
        np.testing.assert_array_equal(np.concatenate(list(found.blocks("embeddings", tiny, 0))), tiny.inputs * 3)
    pq.write_table(pa.table({"id": names["id"][1:], "e": rows[1:]}), tmp_path / "less.parquet")
    with pytest.raises(DataError, match=rf"no row for 1 of 96 examples of tiny .* the first: {tiny.ids[order[0]]}"):
        features_module.FromFile.of(FeaturesConfig(source=str(tmp_path / "less.parquet")), tiny)
    pq.write_table(pa.table({"id": [0, 0], "e": rows[:2]}), tmp_path / "twice.parquet")
    with pytest.raises(DataError, match="names an example twice"):
        features_module.FromFile.of(FeaturesConfig(source=str(tmp_path / "twice.parquet")), tiny)


def test_a_stage_of_features_is_a_source_for_the_same_data_alone(tiny: Dataset, trained: Path, tmp_path: Path) -> None:
    run = coreset(core(str(trained)), tiny, out=tmp_path / "run")
    stage = embedded(run.folder)[0].parent
    again = coreset(core(str(stage)), tiny, out=tmp_path / "again")
    np.testing.assert_array_equal(read_array(embedded(again.folder)[0]), read_array(stage / "embeddings.npy"))
    assert again.metrics["proxies"][0]["accuracy"] == run.metrics["proxies"][0]["accuracy"]
    assert tiny.test is not None
    assert tiny.test.labels is not None
    assert tiny.labels is not None
    other = Dataset.from_arrays(tiny.inputs + 1, tiny.labels, test=(tiny.test.inputs, tiny.test.labels))
    with pytest.raises(DataError, match="holds embeddings of other data"):
        coreset(core(str(stage)), other, out=tmp_path / "other")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[:-1], "has 95 rows, tiny 96 examples"),
        (
            lambda x: np.where(np.arange(96)[:, None] == 7, np.nan, x),
            "no finite number, first that of example digit 14",
        ),
        (lambda x: x.astype(np.float64) + 1e300, "no finite number"),
        (lambda x: x[:, :0], "embeddings are"),
        (lambda x: x[:, :5], "5 numbers a row|has 64 numbers a row"),
    ],
)
def test_files_that_do_not_fit_are_refused(
    tiny: Dataset, files: tuple[Path, Path], tmp_path: Path, change: Any, message: str
) -> None:
    np.save(files[0], change(np.load(files[0])))
    with pytest.raises(SvpError, match=message):
        coreset(core({"source": str(files[0]), "test": str(files[1])}), tiny, out=tmp_path / "run")
    assert not list((tmp_path / "run").rglob("model.safetensors")) if (tmp_path / "run").exists() else True


def test_what_makes_no_sense_is_refused_before_anything_is_trained(
    tiny: Dataset, files: tuple[Path, Path], trained: Path, tmp_path: Path
) -> None:
    for config, message in [
        (core({"source": str(files[0])}), "no embeddings of the test part"),
        (core("previous"), "for active learning"),
        (core(str(tmp_path / "no.npy")), "does not exist"),
        (core("no/such/thing"), "does not exist"),
        (core({"source": str(files[0]), "width": 2.0}), "for nets by name"),
        (core({"source": str(trained), "width": 2.0}), "says itself what net it holds"),
        (core(str(trained.parent)), "no file that can be read"),
    ]:
        with pytest.raises(SvpError, match=message):
            coreset(config, tiny, out=tmp_path / "run")
    with pytest.raises(SettingError, match="is for proxies"):
        active(act("previous", target={**NET, "features": "previous"}), tiny, out=tmp_path / "run")
    with pytest.raises(MissingInput, match="gives no embeddings"):
        active(act("previous", target=LOGISTIC), tiny, out=tmp_path / "run")
    with pytest.raises(SettingError, match=r"belongs to features\.source"):
        TrainConfig(features={"test": "x.npy"})
    assert not (tmp_path / "run").exists()


def test_a_source_alone_spells_features_and_files_keep_them() -> None:
    config = CoresetConfig.make({"dataset": "digits", "proxy": {"model": "linear", "features": "x.npy"}})
    assert config.proxy.features == FeaturesConfig(source="x.npy")
    assert CoresetConfig.make(tomllib.loads(config.to_toml())) == config
    assert not [
        name for name, value in TrainConfig().flat().items() if name.startswith("features") and value is not None
    ]


# --- once for all, and again after a kill -----------------------------------------------------------------------------


def counting(patch: pytest.MonkeyPatch, die_at: int | None = None) -> list[str]:
    """The part of each block that a net embeds from now on; at one of them the process is killed."""
    blocks: list[str] = []
    blocks_of = features_module.FromNet.blocks

    def counted(self: Any, part: Any, dataset: Dataset, start: int) -> Any:
        for rows in blocks_of(self, part, dataset, start):
            blocks.append(part)
            if len(blocks) == die_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield rows

    patch.setattr(features_module.FromNet, "blocks", counted)
    return blocks


def test_all_arms_seeds_and_sibling_runs_share_one_pass(
    tiny: Dataset, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes = counting(monkeypatch)
    monkeypatch.chdir(tmp_path)
    run = active(act(str(trained), seeds=2, control=["random", "target"]), tiny)
    assert passes == ["embeddings", "test"]
    stages = embedded(run.folder)
    assert len(stages) == 3
    assert len({path.stat().st_ino for path in stages}) == 1
    embed = run.metrics["saw"]["proxy"]["features"]["seconds"]
    by_arm = {arm["arm"]: arm["selection_seconds"]["embed"] for arm in run.metrics["arms"]}
    assert by_arm == {"proxy": embed, "random": 0.0, "target": 0.0}
    active(act(str(trained), method="entropy"), tiny)
    assert len(passes) == 2
    assert active(act(str(trained), seeds=2, control=["random", "target"]), tiny).metrics == run.metrics


def test_an_embedding_pass_goes_on_where_it_was_killed(
    tiny: Dataset, trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(features_module, "BLOCK", 16)
    whole = coreset(core(str(trained)), tiny, out=tmp_path / "whole")
    n_blocks = 6 + 3
    for last in (0, 3, 7):
        out = tmp_path / f"killed-{last}"
        child = os.fork()
        if not child:
            counting(monkeypatch, die_at=last + 1)
            coreset(core(str(trained)), tiny, out=out)
            os._exit(1)
        assert os.WTERMSIG(os.waitpid(child, 0)[1]) == signal.SIGKILL
        with monkeypatch.context() as patch:
            passes = counting(patch)
            again = coreset(core(str(trained)), tiny, out=out)
        assert len(passes) == n_blocks - last
        for name in ("embeddings.npy", "test.npy"):
            (one,), (other,) = (list(run.folder.rglob(name)) for run in (whole, again))
            assert one.read_bytes() == other.read_bytes()
        assert again.selection.ids.tolist() == whole.selection.ids.tolist()


def test_fill_array_begins_anew_what_is_cut_off(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(size=(10, 3)).astype(np.float32)
    asked: list[tuple[int, int]] = []

    def rows_of(start: int, stop: int) -> Any:
        asked.append((start, stop))
        if (start, stop) == (8, 10) and len(asked) == 3:
            raise KeyboardInterrupt
        return values[start:stop]

    path = tmp_path / "x.npy"
    with pytest.raises(KeyboardInterrupt):
        fill_array(path, 10, rows_of, 4)
    spare = tmp_path / "spare"
    shutil.copytree(tmp_path, spare)
    fill_array(path, 10, rows_of, 4)
    assert asked == [(0, 4), (4, 8), (8, 10), (8, 10)]
    np.testing.assert_array_equal(np.load(path), values)
    cut = spare / "x.npy"
    cut.write_bytes(cut.read_bytes()[:-5])
    fill_array(cut, 10, rows_of, 4)
    assert asked[4:] == [(0, 4), (4, 8), (8, 10)]
    np.testing.assert_array_equal(np.load(cut), values)


# --- the round before ---------------------------------------------------------------------------------------------------


def test_features_of_the_round_before(tiny: Dataset, tmp_path: Path) -> None:
    config = act("previous", evaluate=[16, 28, 40], control=["target", "random"])
    run = active(config, tiny, out=tmp_path / "run")
    rounds = run.folder / "sessions/proxy-seed-0/rounds"
    found = {
        name: [p.parent.name[:3] for p in sorted(rounds.glob(f"*/{name}"))]
        for name in ("target", "features", "model-0")
    }
    # The second question, too, is asked by features of the first labels: those of the last round are still being given.
    assert found == {"target": ["001"], "features": ["001"], "model-0": ["001", "002"]}
    second = read_json(next(rounds.glob("002-*/model-0")) / "begun.json")["made_from"]
    first = read_json(next(rounds.glob("001-*/model-0")) / "begun.json")["made_from"]
    assert second["features"] == first["features"]
    assert second["ids"] != first["ids"]
    # The target on the first labels is trained once: it is the one that is evaluated.
    assert not (run.folder / "target/proxy-16/seed-0/model").exists()
    (whole,) = [arm for arm in run.metrics["arms"] if (arm["arm"], arm["n"]) == ("proxy", 40)]
    spent = whole["selection_seconds"]
    target = read_json(next(rounds.glob("001-*/target")) / "done.json")["facts"]["seconds"]
    assert spent["embed"] > 0
    assert spent["train"] > target
    said = " ".join(run.verdict)
    assert "those of the target as it was a round before" in said
    assert "other data" not in said
    before = run.metrics
    assert active(config, tiny, out=tmp_path / "run").metrics == before


def test_a_target_counts_where_a_question_was_chosen_by_its_features(tiny: Dataset, tmp_path: Path) -> None:
    """Not where it was trained: that of the second question is needed by the third alone."""
    run = active(act("previous", labelled=[16, 28, 40, 52], evaluate=[28, 40, 52]), tiny, out=tmp_path / "run")
    rounds = run.folder / "sessions/proxy-seed-0/rounds"

    def took(*stages: str) -> float:
        marks = [next(rounds.glob(f"{stage[:3]}-*")) / stage[4:] / "done.json" for stage in stages]
        return sum(read_json(mark)["facts"]["seconds"] for mark in marks)

    spent = {arm["n"]: arm["selection_seconds"]["train"] for arm in run.metrics["arms"]}
    first = ["001/target", "001/model-0"]
    assert spent[28] == pytest.approx(took(*first))
    assert spent[40] == pytest.approx(took(*first, "002/model-0"))
    assert spent[52] == pytest.approx(took(*first, "002/model-0", "002/target", "003/model-0"))


def test_a_session_of_people_with_features(tiny: Dataset, files: tuple[Path, Path], tmp_path: Path) -> None:
    """No embeddings of the test part are needed: nothing is tested."""
    assert tiny.labels is not None
    config = svp.RunConfig.make({**COMMON, "proxy": {**LOGISTIC, "features": str(files[0])}})
    pool = tiny.without_labels()

    def answer(ids: Any) -> dict[int, int]:
        assert tiny.labels is not None
        return dict(zip(ids.tolist(), tiny.labels[tiny.positions(ids)].tolist(), strict=True))

    with Session.create(tmp_path / "s", config, pool) as session:
        session.tell(answer(session.ask(20).ids))
        session.tell(answer(session.ask(10).ids))
    with Session.open(tmp_path / "s", pool) as session:
        fitted = session.fit()
        probs = fitted.predict(pool, pool.ids[:7]).probs
        assert probs.shape == (7, 4)
        assert pool.test is not None
        with pytest.raises(MissingInput, match="no embeddings of tiny"):
            fitted.predict(pool.test, pool.test.ids)
        with pytest.raises(DataError, match="knows the examples of tiny alone"):
            fitted.predict(Dataset.from_arrays(tiny.inputs + 1, classes=tiny.classes), pool.ids[:1])


# --- features that cannot tell classes apart ------------------------------------------------------------------------------


def test_classes_that_are_one_in_the_features_are_said(tmp_path: Path) -> None:
    """The inputs tell four classes apart, the features make one of two of them."""
    rng = np.random.default_rng(0)
    y, y_test = np.arange(1600) % 4, np.arange(200) % 4
    centres = 3 * np.eye(4, 6)
    x, x_test = (centres[labels] + rng.normal(size=(len(labels), 6)) * 0.5 for labels in (y, y_test))
    names = ["car", "cat", "dog", "tree"]
    data = Dataset.from_arrays(x.astype(np.float32), y, test=(x_test.astype(np.float32), y_test), classes=names)
    for part, values in (("train", x), ("test", x_test)):
        merged = values.copy()
        merged[:, 1] = merged[:, 2] = values[:, 1] + values[:, 2]
        np.save(tmp_path / f"{part}.npy", np.delete(merged, 2, axis=1) + 0.3 * rng.normal(size=(len(values), 5)))
    features = {"source": str(tmp_path / "train.npy"), "test": str(tmp_path / "test.npy")}
    settings = {"target": LOGISTIC, "proxy": {"model": "logistic", "epochs": 15, "batch_size": 128}}
    run = coreset(core(features, **settings), data, out=tmp_path / "run")
    (look,) = run.metrics["separation"]
    (pair,) = look["pairs"]
    assert pair["names"] == ["cat", "dog"]
    assert pair["target_auc"] > 0.95
    said = " ".join(run.verdict)
    assert "cannot tell these classes apart, and more labels would not mend it: cat and dog (ranked rightly" in said
    assert "the target does; let the proxy see the inputs" in said
    simulated = active(
        ActiveConfig.make(
            {**COMMON, "proxy": {**LOGISTIC, "features": features}, "target": LOGISTIC, "labelled": [1400, 1420]}
        ),
        data,
        out=tmp_path / "active",
    )
    assert simulated.metrics["separation"][0]["n"] == 1400  # those that were drawn
    assert [pair["names"] for pair in simulated.metrics["separation"][0]["pairs"]] == [["cat", "dog"]]
    np.save(tmp_path / "train.npy", x)
    np.save(tmp_path / "test.npy", x_test)
    good = coreset(core(features, **settings), data, out=tmp_path / "good")
    assert "no pair of classes was found that more labels could not tell apart" in " ".join(good.verdict)


def test_too_few_labels_are_said(tiny: Dataset, trained: Path, tmp_path: Path) -> None:
    run = active(act(str(trained)), tiny, out=tmp_path / "run")
    assert run.metrics["separation"][0]["judged"] == 0
    assert "too few labels to say" in " ".join(run.verdict)
    assert "are not counted among those asked for" in " ".join(run.verdict)
    plain = active(ActiveConfig.make({**COMMON, "labelled": [16, 28]}), tiny, out=tmp_path / "plain")
    assert plain.metrics["separation"] == []
    assert "frozen" not in " ".join(plain.verdict)


def test_pairs_beyond_a_few_are_counted() -> None:
    pair = {"auc": 0.5, "limit": 0.6, "target_auc": None}
    pairs = [{**pair, "names": ["a", str(i)], "classes": [0, i]} for i in range(1, 9)]
    look = {"seed": 0, "accuracy": 0.3, "chance": 0.2, "n": 50, "judged": 9, "pairs": pairs, "target_accuracy": 0.5}
    said = " ".join(words._separation([look]))
    assert "and 3 more pairs" in said
    assert "unless these labels are at fault" in said


def test_features_count_on_every_side_that_needs_them(
    tiny: Dataset, trained: Path, files: tuple[Path, Path], tmp_path: Path
) -> None:
    """Those that both see on both sides, those of the target alone in its training."""

    def paid(name: str, of_target: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], Any]:
        target = {**LINEAR, "epochs": 6, "features": of_target}
        run = coreset(core(str(trained), target=target, control=["full"]), tiny, out=tmp_path / name)
        metrics = run.metrics
        (proxy,) = metrics["proxies"]
        arms = {arm["arm"]: arm["seconds"] for arm in metrics["arms"]}
        rows = {row["label"]: row["total"] for row in tables.costs(metrics)["rows"]}
        (payment,) = metrics["payments"]
        assert rows["proxy"] == pytest.approx(payment["seconds"])
        assert rows["everything"] == pytest.approx(payment["full_seconds"])
        return proxy["seconds"], arms, payment

    proxy, arms, payment = paid("shared", {"source": str(trained)})
    chosen = proxy["embed"] + proxy["train"] + proxy["score"] + proxy["select"]
    assert payment["seconds"] == pytest.approx(chosen + arms["proxy"]["train"])
    assert payment["full_seconds"] == pytest.approx(proxy["embed"] + arms["full"]["train"])
    proxy, arms, payment = paid("own", {"source": str(files[0]), "test": str(files[1])})
    own = arms["full"]["embed"]
    assert own == arms["proxy"]["embed"] > 0
    chosen = proxy["embed"] + proxy["train"] + proxy["score"] + proxy["select"]
    assert payment["seconds"] == pytest.approx(chosen + own + arms["proxy"]["train"])
    assert payment["full_seconds"] == pytest.approx(own + arms["full"]["train"])


def test_the_report_counts_the_making_of_features(tiny: Dataset, trained: Path, tmp_path: Path) -> None:
    metrics = coreset(core(str(trained), control=["full"]), tiny, out=tmp_path / "run").metrics
    stages = dict(tables.stages(metrics))
    assert stages["making features"] == metrics["saw"]["proxy"]["features"]["seconds"]
    (proxy, *_) = [row for row in tables.costs(metrics)["rows"] if row["label"] == "proxy"]
    assert proxy["parts"][0] == pytest.approx(stages["making features"] + stages["training the proxy"])
    assert metrics["payments"][0]["seconds"] == pytest.approx(proxy["total"])
