"""Run folders: one process at a time, finished stages that are read and not run, and refusals that say what changed."""

import errno
import fcntl
import json
import os
import platform
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svp import files, provenance, runs
from svp.config import CoresetConfig, TrainConfig
from svp.data.base import Dataset
from svp.errors import DataError, RunChanged, StorageError
from svp.files import digest, fill_array, read_array, read_json, write_array, write_bytes, write_json
from svp.learners import make_learner, settle
from svp.learners.compute import Compute
from svp.runs import Run, Stage
from tests.refused import refused

CODE = ("svp.chance",)


@pytest.fixture
def data() -> Dataset:
    return Dataset.from_arrays(
        np.arange(24, dtype=np.uint8).reshape(6, 4), [0, 1] * 3, test=(np.zeros((2, 4), np.uint8), [0, 1]), name="six"
    )


def config(**values: Any) -> CoresetConfig:
    return CoresetConfig.make({"dataset": "six", **values})


def worked(folder: Path, config: CoresetConfig, data: Dataset, **given: Any) -> None:
    """A run in which something was finished."""
    with Run.start(folder, config, data, **given) as run:
        stage = run.stage("work", {}, CODE)
        if not stage.done:
            stage.finish()


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- folders that cannot be used ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, data: Dataset
) -> None:
    def fail(*_: Any, **__: Any) -> Any:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(files, "open", fail, raising=False)
    with refused(StorageError, "cannot be written", "--out"):
        write_bytes(tmp_path / "file", b"x")
    monkeypatch.undo()
    monkeypatch.setattr(Path, "mkdir", fail)
    with refused(StorageError, "cannot be written", "--out"):
        Run.start(tmp_path / "run", config(), data)
    monkeypatch.undo()
    monkeypatch.setattr(os, "open", fail)
    with refused(StorageError, "cannot be written", "--out"):
        Run.start(tmp_path / "run", config(), data)


def test_a_file_in_place_of_a_folder(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "file").touch()
    with refused(StorageError, "it is a file", "--out"):
        Run.start(tmp_path / "file", config(), data)
    with refused(StorageError, str(tmp_path / "file" / "run")):
        Run.start(tmp_path / "file" / "run", config(), data)
    with refused(StorageError, "File name too long", "--out"):
        Run.start(tmp_path / ("x" * 300) / "run", config(), data)


@pytest.mark.parametrize("content", ["", "{", "[]", "null", "3", '"x"', "{}", '{"format": 1}', "[" * 100_000])
def test_damaged_records_are_named(tmp_path: Path, data: Dataset, content: str) -> None:
    folder = tmp_path / "run"
    with Run.start(folder, config(), data) as run:
        run.stage("begun", {"a": 1}, CODE)
        run.stage("done", {"a": 1}, CODE).finish(seconds=1.0)
    for name in ("begun/begun.json", "done/begun.json", "done/done.json", "environment.json"):
        before = (folder / name).read_text()
        (folder / name).write_text(content)
        with (
            refused(DataError, str(folder / name), "is damaged", "put back a copy", "remove"),
            Run.start(folder, config(), data) as run,
        ):
            _ = run.stage(name.split("/")[0], {"a": 1}, CODE).facts
            pytest.fail(f"{name} was believed")
        (folder / name).write_text(before)
    (folder / "done" / "begun.json").unlink()
    with Run.start(folder, config(), data) as run, refused(DataError, "begun.json is missing"):
        run.stage("done", {"a": 2}, CODE)
    with refused(DataError, "metrics.json"):
        _ = run.metrics["verdict"]


# --- who may work in a folder ---------------------------------------------------------------------------------------------


def test_a_new_run_holds_its_settings_and_surroundings(tmp_path: Path, data: Dataset) -> None:
    with Run.start(tmp_path / "a" / "run", config(budget=3), data) as run:
        assert CoresetConfig.load(run.folder / "config.toml") == config(budget=3)
        assert run.environment["dataset"]["fingerprint"] == data.fingerprint
        assert run.environment["dataset"]["n"] == 6
        assert run.environment["settings"]["budget"] == 3
        assert run.environment["packages"].keys() == set(provenance.PACKAGES)
        assert run.environment["packages"]["numpy"] == np.__version__
        assert run.environment["svp"] == version("selection-via-proxy")
        assert run.environment["machine"]["cores"] == os.cpu_count()
    assert Run.open(run.folder).environment == run.environment


def test_a_second_process_is_refused_until_the_first_is_done(tmp_path: Path, data: Dataset) -> None:
    with Run.start(tmp_path / "run", config(), data) as run:
        with refused(StorageError, "in use by another process"):
            Run.start(run.folder, config(), data)
        code = "import fcntl, sys; fcntl.flock(open(sys.argv[1]), fcntl.LOCK_EX | fcntl.LOCK_NB)"
        other = subprocess.run(
            [sys.executable, "-c", code, str(run.folder / ".lock")], capture_output=True, check=False
        )
        assert b"BlockingIOError" in other.stderr
        Run.open(run.folder)  # reading is free
    with Run.start(run.folder, config(), data), open(run.folder / ".lock") as lock, pytest.raises(BlockingIOError):
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_refused_start_leaves_the_folder_free(tmp_path: Path, data: Dataset) -> None:
    worked(tmp_path / "run", config(), data)
    with refused(RunChanged):
        Run.start(tmp_path / "run", config(seed=1), data)
    Run.start(tmp_path / "run", config(), data).close()


def test_a_start_that_fails_at_its_last_file_leaves_the_folder_free(tmp_path: Path, data: Dataset) -> None:
    Run.start(tmp_path / "run", config(), data).close()
    path = tmp_path / "run" / "config.toml"
    path.unlink()
    path.mkdir()  # in the place of a file
    with refused(StorageError, str(path)):
        Run.start(tmp_path / "run", config(), data)
    path.rmdir()
    Run.start(tmp_path / "run", config(), data).close()


def test_a_file_system_without_locks_is_named(tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    opened = len(os.listdir("/proc/self/fd")) if Path("/proc/self/fd").exists() else None

    def fail(*_: Any) -> None:
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", fail)
    with refused(StorageError, str(tmp_path / "run"), "No locks available", "--out"):
        Run.start(tmp_path / "run", config(), data)
    assert opened is None or len(os.listdir("/proc/self/fd")) == opened


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, data: Dataset) -> None:
    (tmp_path / "thesis.tex").write_text("all")
    (tmp_path / ".notes.tmp").write_text("mine")
    with refused(StorageError, "thesis.tex", "--out"):
        Run.start(tmp_path, config(), data)
    assert (tmp_path / "thesis.tex").read_text() == "all"
    assert (tmp_path / ".notes.tmp").read_text() == "mine"
    assert not (tmp_path / "environment.json").exists()
    with refused(DataError, "run folder"):
        Run.open(tmp_path)


def test_what_a_kill_left_is_swept(tmp_path: Path, data: Dataset) -> None:
    with Run.start(tmp_path / "run", config(), data) as run:
        begun, done = run.stage("begun", {}, CODE), run.stage("done", {}, CODE)
        done.finish()
    for folder in (run.folder, begun.folder, done.folder):
        (folder / ".file.4711.tmp").write_bytes(b"half")
    (done.folder / "kept.npy").touch()
    with Run.start(run.folder, config(), data) as run:
        run.stage("begun", {}, CODE)
        run.stage("done", {}, CODE)
    assert not (run.folder / ".file.4711.tmp").exists()
    assert names(begun.folder) == ["begun.json"]
    assert "kept.npy" in names(done.folder)


# --- what may change, and what not ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"seed": 1}, ["seed was 0, is now 1"]),
        ({"proxy": {"epochs": 3}}, ["proxy.epochs was 15, is now 3"]),
        ({"proxy": {"options": {"depth": 2}}}, ["proxy.options.depth was not set, is now 2"]),
        ({"seed": 1, "method": "margin"}, ["seed was 0", "method was forgetting, is now margin"]),
        ({"budget": "20%"}, ["budget was None, is now 20%"]),
    ],
)
def test_changed_settings_are_refused_by_name(
    tmp_path: Path, data: Dataset, values: dict[str, Any], words: list[str]
) -> None:
    worked(tmp_path / "run", config(), data)
    before = (tmp_path / "run" / "config.toml").read_bytes()
    with refused(RunChanged, *words, "--out"):
        Run.start(tmp_path / "run", config(**values), data)
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


@pytest.mark.parametrize("other", ["settings", "data", "machine"])
def test_a_folder_that_holds_nothing_to_go_on_from_is_begun_anew(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, other: str
) -> None:
    folder = tmp_path / "run"
    with Run.start(folder, config(), data) as run:
        write_bytes(run.stage("proxy/seed-0/model", {"lr": 1.0}, CODE).folder / "half.npy", b"half")
        run.remember("compute", lambda: {"threads": 3})
        # An active run has sessions of its own, which an oracle has answered.
        with Run.start(folder / "sessions" / "proxy-seed-0", config(), data) as session:
            (session.folder / "labels.sqlite").touch()
    (folder / "notes.txt").write_text("mine")
    if other == "machine":
        change_surroundings(monkeypatch, cores=10_000)
    changed = config(seed=1) if other == "settings" else config()
    some = data if other != "data" else Dataset.from_arrays(data.inputs, [1, 0] * 3, name="six")
    with Run.start(folder, changed, some) as run:
        assert run.environment == {"format": runs.FORMAT, **runs.environment(some), "settings": changed.flat()}
        assert CoresetConfig.load(folder / "config.toml") == changed
        assert names(folder / "sessions") == []
        stage = run.stage("proxy/seed-0/model", {"lr": 2.0}, CODE)
        assert names(stage.folder) == ["begun.json"]
        stage.finish()
    assert (folder / "notes.txt").read_text() == "mine"
    assert len(diary(folder, "begun anew")[0]["changed"]) == 1
    with refused(RunChanged, "seed was"):
        Run.start(folder, config(seed=2), some)


def rows_and_then_an_interrupt(start: int, stop: int) -> Any:
    if start:
        raise KeyboardInterrupt
    return np.zeros((stop - start, 2), np.float32)


def fit_linear(data: Dataset, folder: Path, progress: Any = None) -> None:
    net = settle(TrainConfig(model="linear", epochs=3, min_steps=0))
    made = make_learner(net, data, seed=0, compute=Compute("cpu", "fp32", channels_last=False, threads=1))
    made.fit(data, data.ids, data.labels, folder=folder, progress=progress)


def stop_a_stage(what: str, data: Dataset, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Interrupted behind the first epoch of a net, behind the last, or behind the first rows of its answers."""

    def interrupt(epoch: Any = None, n_epochs: int = 0) -> None:
        if epoch is None or epoch["epoch"] == 1:
            raise KeyboardInterrupt

    if what == "scores":
        fill_array(folder / "probs.npy", 4, rows_and_then_an_interrupt, 2)
    elif what == "its records":
        monkeypatch.setattr("svp.learners.checkpoints.remove", lambda path: interrupt())
        fit_linear(data, folder)
    else:
        fit_linear(data, folder, interrupt)


@pytest.mark.parametrize("what", ["a net", "its records", "scores"])
def test_what_a_stage_goes_on_from_is_work(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    """Hours of a killed training are lost to no other setting, dataset or machine."""
    folder = tmp_path / "run"
    with Run.start(folder, config(), data) as run:
        stage = run.stage("proxy/seed-0/model-0", {}, CODE)
        with pytest.raises(KeyboardInterrupt):
            stop_a_stage(what, data, stage.folder, monkeypatch)
    before = {path: path.read_bytes() for path in stage.folder.rglob("*") if path.is_file()}
    other = Dataset.from_arrays(data.inputs, [1, 0] * 3, name="six")
    for changed, some in ((config(seed=1), data), (config(), other)):
        with refused(RunChanged, "was made with other settings", "undo that", "--out"):
            Run.start(folder, changed, some)
    change_surroundings(monkeypatch, cores=10_000)
    with refused(RunChanged, "another environment", "--accept-code-change"):
        Run.start(folder, config(), data)
    assert {path: path.read_bytes() for path in stage.folder.rglob("*") if path.is_file()} == before


@pytest.mark.parametrize("where", [".", "mine"])
def test_a_label_store_is_work_though_no_stage_is_finished(tmp_path: Path, data: Dataset, where: str) -> None:
    Run.start(tmp_path, config(), data).close()
    (tmp_path / where).mkdir(exist_ok=True)
    (tmp_path / where / "labels.sqlite").touch()
    with refused(RunChanged, "seed was 0, is now 1"):
        Run.start(tmp_path, config(seed=1), data)
    assert (tmp_path / where / "labels.sqlite").exists()


@pytest.mark.parametrize(
    ("labels", "classes", "n_test", "words"),
    [
        ([1, 0] * 3, "ab", 2, "the same numbers of examples, of which some are others"),
        ([0, 1] * 2, "ab", 2, "6 examples were there, now 4; of class a: 3, now 2, b: 3, now 2"),
        ([0, 0, 1, 1, 1, 1], "ab", 1, "2 test examples were there, now 1; of class a: 3, now 2, b: 3, now 4"),
        ([0, 1, 2, 3, 4, 5], "bcdefg", 2, "gone: class a; new: class c, d, e and 2 more; of class b: 3, now 1"),
    ],
)
def test_changed_data_are_refused_by_what_is_another(
    tmp_path: Path, data: Dataset, labels: list[int], classes: str, n_test: int, words: str
) -> None:
    test = (data.test.inputs, data.test.labels)
    of = {"test": test, "name": "six"}
    worked(tmp_path / "run", config(), Dataset.from_arrays(data.inputs, data.labels, classes=("a", "b"), **of))
    of["test"] = tuple(part[:n_test] for part in test)
    other = Dataset.from_arrays(data.inputs[: len(labels)], labels, classes=tuple(classes), **of)
    with refused(RunChanged, f"dataset six is another ({words})"):
        Run.start(tmp_path / "run", config(), other)


VARY = ("control", "equal", "seeds")


def test_what_says_which_arms_are_wanted_may_change_back_and_forth(tmp_path: Path, data: Dataset) -> None:
    folder = tmp_path / "run"
    steps: list[dict[str, Any]] = [
        {},
        {"control": ["random"]},
        {"control": ["full", "random"]},
        {"control": ["random", "full"], "seeds": 3, "equal": ["steps", "epochs"]},
        {"control": ["random"], "seeds": 3, "equal": ["steps"]},
        {"seeds": 2},
        {},
    ]
    for values in steps:
        Run.start(folder, config(**values), data, may_vary=VARY).close()
        assert CoresetConfig.load(folder / "config.toml") == config(**values)
        assert Run.open(folder).environment["settings"] == config(**values).flat()


def test_what_may_vary_frees_nothing_else(tmp_path: Path, data: Dataset) -> None:
    worked(tmp_path / "run", config(), data, may_vary=VARY)
    before = {name: (tmp_path / "run" / name).read_bytes() for name in ("config.toml", "environment.json")}
    with refused(RunChanged, "margin was 1.0, is now 2.0"):
        Run.start(tmp_path / "run", config(margin=2.0, seeds=2), data, may_vary=VARY)
    with pytest.raises(RunChanged) as caught:
        Run.start(tmp_path / "run", config(proxy={"seeds": 2}, seeds=2), data, may_vary=VARY)
    assert "proxy.seeds was 1, is now 2" in str(caught.value)  # a name is a whole name
    assert "; seeds was" not in str(caught.value)
    assert {name: (tmp_path / "run" / name).read_bytes() for name in before} == before


def test_nothing_varies_unless_it_may(tmp_path: Path, data: Dataset) -> None:
    worked(tmp_path / "run", config(seeds=2, control=["full"]), data)
    for values, word in (
        ({"seeds": 3, "control": ["full"]}, "seeds was 2, is now 3"),
        ({"seeds": 1, "control": ["full"]}, "seeds was 2, is now 1"),
        ({"seeds": 2}, "control was ['full'], is now []"),
        ({"seeds": 2, "control": ["full"], "equal": ["steps"]}, "equal was ['epochs'], is now ['steps']"),
    ):
        with refused(RunChanged, word):
            Run.start(tmp_path / "run", config(**values), data)


def test_the_data_may_have_moved(tmp_path: Path, data: Dataset) -> None:
    folder = tmp_path / "run"
    for where in (None, tmp_path / "a", tmp_path / "b"):
        worked(folder, config(data=where), data)
        assert CoresetConfig.load(folder / "config.toml").data == where
    with refused(RunChanged, "dataset was six, is now seven"):
        Run.start(folder, config(dataset="seven"), data)


def test_another_format_is_refused(tmp_path: Path, data: Dataset) -> None:
    Run.start(tmp_path / "run", config(), data).close()
    path = tmp_path / "run" / "environment.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    with refused(RunChanged, "format 99", "reads 1"):
        Run.start(tmp_path / "run", config(), data)


def test_a_decision_is_remembered(tmp_path: Path, data: Dataset) -> None:
    with Run.start(tmp_path / "run", config(), data) as run:
        assert run.remember("compute", lambda: {"threads": 3}) == {"threads": 3}
    with Run.start(run.folder, config(seeds=2), data, may_vary=VARY) as run:
        assert run.remember("compute", lambda: pytest.fail("decided twice")) == {"threads": 3}


# --- other surroundings ---------------------------------------------------------------------------------------------------


def change_surroundings(
    monkeypatch: pytest.MonkeyPatch, *, torch: str | None = None, python: str | None = None, **machine: Any
) -> None:
    """As if another version of torch or Python were installed, or this were another machine."""
    real = runs.environment

    def changed(dataset: Dataset) -> dict[str, Any]:
        now = real(dataset)
        packages = now["packages"] if torch is None else {**now["packages"], "torch": torch}
        now = {**now, "packages": packages, "machine": {**now["machine"], **machine}}
        return now if python is None else {**now, "python": python}

    monkeypatch.setattr(runs, "environment", changed)


def diary(folder: Path, what: str) -> list[dict[str, Any]]:
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    return [event for event in events if event["event"] == what]


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"torch": "9.9"}, ["torch was ", "is now 9.9"]),
        ({"processor": "abacus"}, ["processor was ", "is now abacus"]),
        ({"torch": "9.9", "cores": 10_000}, ["torch was ", "cores was ", "is now 10000"]),
        ({"python": "3.99.1"}, ["Python was ", "is now 3.99"]),
        ({"platform": "Windows"}, ["platform was ", "is now Windows"]),
    ],
)
def test_other_surroundings_are_refused_unless_accepted(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, changed: dict[str, Any], words: list[str]
) -> None:
    folder = tmp_path / "run"
    with Run.start(folder, config(), data) as run:
        run.remember("compute", lambda: {"threads": 3})
        run.stage("work", {}, CODE).finish()
    before = (folder / "environment.json").read_bytes()
    change_surroundings(monkeypatch, **changed)
    with refused(RunChanged, "another environment", *words, "--out", "--accept-code-change"):
        Run.start(folder, config(), data)
    assert (folder / "environment.json").read_bytes() == before
    with Run.start(folder, config(), data, accept_code_change=True) as run:
        assert run.environment["packages"]["torch"] == changed.get("torch", version("torch"))
        for name in changed.keys() - {"torch", "python"}:
            assert run.environment["machine"][name] == changed[name]
        # What was decided before stays decided; what the data is has not changed.
        assert run.remember("compute", lambda: pytest.fail("decided twice")) == {"threads": 3}
        assert run.environment["dataset"]["fingerprint"] == data.fingerprint
    (event,) = diary(folder, "accepted environment")
    assert len(event["changed"]) == len(changed)
    assert all(any(word in change for change in event["changed"]) for word in words)
    # Accepted once, it is what the run now has: the way back is a change too.
    Run.start(folder, config(), data).close()
    monkeypatch.undo()
    with refused(RunChanged, "another environment"):
        Run.start(folder, config(), data)


def test_a_corrected_python_is_no_other_environment(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run.start(tmp_path / "run", config(), data).close()
    change_surroundings(monkeypatch, python=".".join(platform.python_version_tuple()[:2]) + ".99")
    Run.start(tmp_path / "run", config(), data).close()


def test_a_new_version_of_svp_is_no_other_environment(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run.start(tmp_path / "run", config(), data).close()
    real = provenance.installed
    monkeypatch.setattr(provenance, "installed", lambda name: "99" if name == "selection-via-proxy" else real(name))
    Run.start(tmp_path / "run", config(), data).close()  # its code counts, stage by stage


def test_a_refused_setting_is_named_before_surroundings_are_accepted(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    worked(tmp_path / "run", config(), data)
    change_surroundings(monkeypatch, torch="9.9")
    with refused(RunChanged, "seed was 0, is now 1"):
        Run.start(tmp_path / "run", config(seed=1), data, accept_code_change=True)
    assert not diary(tmp_path / "run", "accepted environment")
    assert Run.open(tmp_path / "run").environment["packages"]["torch"] != "9.9"


# --- stages ---------------------------------------------------------------------------------------------------------------


def test_a_stage_is_begun_done_and_then_read(tmp_path: Path, data: Dataset) -> None:
    with Run.start(tmp_path / "run", config(), data) as run:
        stage = run.stage("proxy/seed-0", {"lr": 0.1, "ids": "abc"}, CODE)
        assert not stage.done
        assert run.seconds("proxy/seed-0") == {}
        stage.finish(seconds=2.0, inference_seconds=0.5, n=4)
        assert stage.done
    with Run.start(run.folder, config(), data) as run:
        again = run.stage("proxy/seed-0", {"ids": "abc", "lr": 0.1}, CODE)
        assert again.done
        assert again.facts == {"seconds": 2.0, "inference_seconds": 0.5, "n": 4}
        assert run.seconds("proxy/seed-0") == {"train": 2.0, "score": 0.5}
        with refused(RunChanged, "proxy/seed-0", "lr was 0.1, is now 0.2", "--out"):
            run.stage("proxy/seed-0", {"ids": "abc", "lr": 0.2}, CODE)
        with refused(RunChanged, "ids was abc, is now not set"):
            run.stage("proxy/seed-0", {"lr": 0.1}, CODE)


def stage_with_results(run: Run) -> Stage:
    """A finished stage as a net leaves it: files of its own, and a folder of arrays."""
    stage = run.stage("train", {"a": 1}, CODE)
    (stage.folder / "signals").mkdir()
    write_bytes(stage.folder / "model.safetensors", b"weights")
    write_array(stage.folder / "signals" / "loss.npy", np.arange(5.0))
    (stage.folder / ".left.tmp").touch()
    stage.finish(seconds=1.0)
    return stage


@pytest.mark.parametrize("name", ["model.safetensors", "signals/loss.npy"])
@pytest.mark.parametrize("damage", ["changed", "cut", "longer", "gone", "a folder"])
def test_a_damaged_result_is_not_believed(tmp_path: Path, data: Dataset, name: str, damage: str) -> None:
    with Run.start(tmp_path / "run", config(), data) as run:
        stage = stage_with_results(run)
        assert run.stage("train", {"a": 1}, CODE).done
    path = stage.folder / name
    content = path.read_bytes()
    path.unlink()
    if damage == "a folder":
        path.mkdir()
    elif damage != "gone":
        path.write_bytes({"changed": content[:-1] + b"?", "cut": content[:-1], "longer": content + b"?"}[damage])
    words = [str(path), "is damaged", f"remove the folder {stage.folder}", "made again"]
    with Run.start(run.folder, config(), data) as run, refused(DataError, *words):
        run.stage("train", {"a": 1}, CODE)
    with Run.start(tmp_path / "new", config(), data, reuse=[run.folder]) as new, refused(DataError, *words):
        new.stage("train", {"a": 1}, CODE)
    # A run that nobody named does not stop this one.
    with Run.start(tmp_path / "beside", config(), data, siblings=[run.folder]) as beside:
        assert not beside.stage("train", {"a": 1}, CODE).done
        assert str(path) in (beside.folder / "events.jsonl").read_text()
    # The next step helps.
    shutil.rmtree(stage.folder)
    with Run.start(run.folder, config(), data) as run:
        assert not run.stage("train", {"a": 1}, CODE).done
        assert stage_with_results(run).done


def test_marks_of_earlier_versions_vouch_for_nothing(tmp_path: Path, data: Dataset) -> None:
    with Run.start(tmp_path / "run", config(), data) as run:
        stage = stage_with_results(run)
        mark = read_json(stage.folder / "done.json")
        assert sorted(mark["files"]) == ["model.safetensors", "signals/loss.npy"]
        del mark["files"]
        write_json(stage.folder / "done.json", mark)
        (stage.folder / "model.safetensors").unlink()
        assert run.stage("train", {"a": 1}, CODE).done


def change_code(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    for module in (provenance, runs):
        monkeypatch.setattr(module, "code_digests", lambda modules: {"svp.chance": version, "svp.files": "the same"})


@pytest.mark.parametrize("finished", [True, False])
def test_changed_code_is_refused_unless_accepted(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, finished: bool
) -> None:
    folder = tmp_path / "run"
    change_code(monkeypatch, "one")
    with Run.start(folder, config(), data) as run:
        stage = run.stage("train", {}, CODE)
        if finished:
            stage.finish(seconds=1.0)
    change_code(monkeypatch, "two")
    with (
        Run.start(folder, config(), data) as run,
        refused(RunChanged, "the code of stage train", "has changed (svp.chance);", "--accept-code-change"),
    ):
        run.stage("train", {}, CODE)
    with Run.start(folder, config(), data, accept_code_change=True) as run:
        stage = run.stage("train", {}, CODE)
        assert stage.done == finished
        if not finished:
            stage.finish(seconds=1.0)
    # Both are recorded, and what was accepted stays accepted.
    two = provenance.code_digest(CODE)
    record = read_json(folder / "train" / "begun.json")
    assert record["code_accepted"] == [two]
    events = [json.loads(line) for line in (folder / "events.jsonl").read_text().splitlines()]
    (event,) = [e for e in events if e["event"] == "accepted code change"]
    assert (event["before"], event["after"], event["modules"]) == (record["made_from"]["code"], two, ["svp.chance"])
    assert event["before"] != two
    with Run.start(folder, config(), data) as run:
        assert run.stage("train", {}, CODE).done
    change_code(monkeypatch, "three")
    with Run.start(folder, config(), data) as run, refused(RunChanged, "the code of stage train"):
        run.stage("train", {}, CODE)
    with Run.start(folder, config(), data, accept_code_change=True) as run:
        run.stage("train", {}, CODE)
    assert read_json(folder / "train" / "begun.json")["code_accepted"] == [two, provenance.code_digest(CODE)]


def test_an_accepted_change_leaves_later_stages_valid(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"

    def both(run: Run) -> bool:
        first = run.stage("train", {}, CODE)
        if not first.done:
            first.finish()
        second = run.stage("select", {"model": digest(json.dumps(first.made_from))}, CODE)
        done = second.done
        if not done:
            second.finish()
        return done

    change_code(monkeypatch, "one")
    with Run.start(folder, config(), data) as run:
        assert not both(run)
    change_code(monkeypatch, "two")
    with Run.start(folder, config(), data, accept_code_change=True) as run:
        assert both(run)
    with Run.start(folder, config(), data) as run:
        assert both(run)


# --- other folders --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("can_link", [True, False])
def test_identical_stages_are_taken_from_another_run(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch, can_link: bool
) -> None:
    with Run.start(tmp_path / "old", config(), data) as old:
        for name, made_from in (("same", {"a": 1}), ("other", {"a": 1}), ("unfinished", {"a": 1})):
            stage = old.stage(f"s/{name}", made_from, CODE)
            (stage.folder / "deep").mkdir()
            (stage.folder / "deep" / "file").write_text(name)
            if name != "unfinished":
                stage.finish(seconds=7.0)
    if not can_link:
        monkeypatch.setattr(
            os, "link", lambda *a, **k: (_ for _ in ()).throw(OSError(errno.EXDEV, "Invalid cross-device link"))
        )
    with Run.start(tmp_path / "new", config(seed=5), data, reuse=[tmp_path / "old"]) as new:
        same = new.stage("s/same", {"a": 1}, CODE)
        assert same.done
        assert same.facts == {"seconds": 7.0}
        assert (same.folder / "deep" / "file").read_text() == "same"
        assert ((same.folder / "deep" / "file").stat().st_nlink == 2) == can_link
        assert not new.stage("s/other", {"a": 2}, CODE).done
        assert not (tmp_path / "new" / "s" / "other" / "deep").exists()
        assert not new.stage("s/unfinished", {"a": 1}, CODE).done
        assert not new.stage("s/else", {"a": 1}, CODE).done
    assert sorted(names(tmp_path / "new" / "s")) == ["else", "other", "same", "unfinished"]
    # The old run can go.
    shutil.rmtree(tmp_path / "old")
    with Run.start(tmp_path / "new", config(seed=5), data) as new:
        assert new.stage("s/same", {"a": 1}, CODE).done


def test_stages_of_other_or_mixed_code_are_not_taken(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    change_code(monkeypatch, "one")
    with Run.start(tmp_path / "old", config(), data) as old:
        old.stage("mixed", {}, CODE)
        old.stage("old", {}, CODE).finish()
    change_code(monkeypatch, "two")
    with Run.start(tmp_path / "old", config(), data, accept_code_change=True) as old:
        old.stage("mixed", {}, CODE).finish()
    with Run.start(tmp_path / "new", config(), data, reuse=[tmp_path / "old"]) as new:
        assert not new.stage("old", {}, CODE).done
        assert not new.stage("mixed", {}, CODE).done
    change_code(monkeypatch, "one")
    with Run.start(tmp_path / "newer", config(), data, reuse=[tmp_path / "old"]) as new:
        assert new.stage("old", {}, CODE).done
        assert not new.stage("mixed", {}, CODE).done


def test_the_first_run_that_has_a_stage_gives_it(tmp_path: Path, data: Dataset) -> None:
    for i in range(2):
        with Run.start(tmp_path / f"old{i}", config(), data) as old:
            for name in ["both"] if i == 0 else ["both", "second"]:
                old.stage(name, {}, CODE).finish(origin=i)
    with Run.start(tmp_path / "new", config(), data, reuse=[tmp_path / "old0", tmp_path / "old1"]) as new:
        assert new.stage("both", {}, CODE).facts == {"origin": 0}
        assert new.stage("second", {}, CODE).facts == {"origin": 1}


def test_nothing_to_reuse_is_a_named_error(tmp_path: Path, data: Dataset) -> None:
    with refused(DataError, str(tmp_path / "none"), "no run to reuse"):
        Run.start(tmp_path / "new", config(), data, reuse=[tmp_path / "none"])
    assert not (tmp_path / "new").exists()


def test_a_folder_can_be_moved(tmp_path: Path, data: Dataset) -> None:
    with Run.start(tmp_path / "here", config(), data) as run:
        stage = run.stage("a/b", {"x": 1}, CODE)
        write_array(stage.folder / "scores.npy", np.arange(3))
        stage.finish(seconds=1.0)
        write_json(run.folder / "metrics.json", {"verdict": []})
    (tmp_path / "there").mkdir()
    shutil.move(tmp_path / "here", tmp_path / "there" / "run")
    with Run.start(tmp_path / "there" / "run", config(), data) as run:
        stage = run.stage("a/b", {"x": 1}, CODE)
        assert stage.done
        assert read_array(stage.folder / "scores.npy").tolist() == [0, 1, 2]
        assert run.metrics == {"verdict": []}
    text = "".join(path.read_text() for path in run.folder.rglob("*.json*"))
    assert str(tmp_path) not in text
