"""Scoring by several processes: the answers of one, bit for bit, wherever the inputs lie; and errors in one line."""

import os
import pickle
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("torch")
import torch

import svp
from svp import engine
from svp.config import ComputeConfig, CoresetConfig, TrainConfig
from svp.data.base import Dataset, MappedImages
from svp.errors import SettingError, UnknownName, WorkerError
from svp.learners import make_learner, sharded
from svp.learners.base import Outputs
from svp.learners.compute import Compute, decide
from svp.learners.resnet import preact
from svp.names import resolve
from svp.workflows.coreset import coreset

ONE = Compute("cpu", "fp32", channels_last=True, threads=1)
TWO = replace(ONE, processes=2)
N = 2 * ONE.scoring_batch + 37  # the last batch is a short one
NET = TrainConfig(model="preact8", width=0.25, epochs=1, batch_size=64)


def images(n: int = N) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (n, 8, 8, 3), np.uint8)


def dataset(inputs: np.ndarray) -> Dataset:
    return Dataset("squares", inputs, np.arange(len(inputs)) % 3, ("a", "b", "c"), 2 * np.arange(len(inputs)))


def predicted(data: Dataset, compute: Compute, folder: Path, config: TrainConfig = NET, **wanted: Any) -> Outputs:
    """Of a model that was trained a little, all but three rows, not in their order."""
    learner = make_learner(config, data, seed=1, compute=compute)
    folder.mkdir(exist_ok=True)
    assert data.labels is not None
    learner.fit(data, data.ids[:90], data.labels[:90], folder=folder)
    return learner.predict(data, np.roll(data.ids, 700)[3:], **wanted)


def test_processes_normalise_as_the_one_does(tmp_path: Path) -> None:
    data = dataset(images(6))
    for normalize in (None, "imagenet"):
        config = NET.model_copy(update={"normalize": normalize})
        one = make_learner(config, data, seed=1, compute=TWO)
        recipe = one._recipe  # type: ignore[attr-defined]
        other = make_learner(recipe.config, recipe.like, seed=1, compute=ONE)
        for mine, theirs in zip(one._statistics, other._statistics, strict=True):  # type: ignore[attr-defined]
            assert mine.tolist() == theirs.tolist()


@pytest.fixture(autouse=True)
def short_scoring_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    """As if there were cores enough, too."""
    monkeypatch.setattr(sharded, "START_SECONDS", 0)
    monkeypatch.setattr(sharded, "n_cores", lambda: 64)


def test_short_scoring_is_done_by_one_process(tmp_path: Path, sent: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """The same answers, and no seconds in which processes start."""
    monkeypatch.setattr(sharded, "START_SECONDS", 10)
    data = dataset(images())
    one = predicted(data, TWO, tmp_path / "one")
    assert not sent
    monkeypatch.setattr(sharded, "START_SECONDS", 0)
    assert np.array_equal(predicted(data, TWO, tmp_path / "two").probs, one.probs)
    assert sent


def test_what_scoring_repays_grows_with_its_work_and_falls_with_threads_and_on_a_gpu(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sharded, "START_SECONDS", 10)
    monkeypatch.setattr(sharded, "n_cores", lambda: 128)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    x = torch.zeros(2, 3, 32, 32)
    small, large = preact("preact8", 10, x[0]), preact("preact56", 10, x[0])
    n = 70_000  # x 25 MFLOP and 250 MFLOP
    assert [sharded.repays(net, x, n, TWO) for net in (small, large)] == [False, True]
    assert not sharded.repays(large, x, n // 100, TWO)
    assert not sharded.repays(large, x, n, replace(TWO, threads=64))
    assert not sharded.repays(large, x, n, replace(TWO, device="cuda"))
    assert sharded.repays(large, x, 100 * n, replace(TWO, device="cuda"))


@pytest.fixture
def mapped(tmp_path: Path) -> MappedImages:
    """Rows of a file that begins with others, as a test part of decoded images does."""
    (tmp_path / "images.bin").write_bytes(images(N + 5).tobytes())
    whole = np.memmap(tmp_path / "images.bin", np.uint8, "r", 0, (N + 5, 8, 8, 3)).view(MappedImages)
    part: MappedImages = whole[5:]
    return part


@pytest.fixture
def sent(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What went to the processes, which are played by this one; their settings go through a pipe's pickle."""
    items_sent: list[Any] = []

    def played(start: str, settings: Any, items: Any) -> Iterator[Any]:
        work = [resolve(start)(pickle.loads(pickle.dumps(setting))) for setting in settings]
        for i, item in enumerate(items):
            items_sent.append(item)
            yield work[i % len(work)](item)

    monkeypatch.setattr(sharded, "engine", SimpleNamespace(map=played))
    return items_sent


@pytest.mark.parametrize("kind", ["in memory", "mapped", "floats in columns"])
def test_shards_say_what_the_whole_says(kind: str, mapped: MappedImages, tmp_path: Path, sent: list[Any]) -> None:
    inputs = {"in memory": images(), "mapped": mapped, "floats in columns": np.asfortranarray(images() / np.float32(3))}
    data = dataset(inputs[kind])
    one = predicted(data, ONE, tmp_path / "one", embeddings=True)
    assert not sent
    two = predicted(data, TWO, tmp_path / "two", embeddings=True)
    assert len(sent) == 3
    assert np.array_equal(one.probs, two.probs)
    assert one.embeddings is not None
    assert two.embeddings is not None
    assert np.array_equal(one.embeddings, two.embeddings)
    assert two.probs.dtype == np.float32


def test_a_pass_in_blocks_starts_processes_once(
    mapped: MappedImages, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And is judged as a whole; a block begins with a batch of its own, as where one process scores it."""
    data = dataset(mapped)
    one, two = (make_learner(NET, data, seed=1, compute=compute) for compute in (ONE, TWO))
    played, starts = sharded.engine.map, []
    monkeypatch.setattr(sharded.engine, "map", lambda *given: starts.append(1) or played(*given))
    monkeypatch.setattr(sharded, "repays", lambda model, x, n, compute: n > 700)
    wanted = [one.predict(data, data.ids[i : i + 600], embeddings=True) for i in range(0, N, 600)]
    found = list(two.stream(data, data.ids, 600, embeddings=True))
    assert starts == [1]
    for mine, theirs in zip(found, wanted, strict=True):
        assert np.array_equal(mine.probs, theirs.probs)
        assert np.array_equal(mine.embeddings, theirs.embeddings)  # type: ignore[arg-type]


def test_a_map_is_sent_as_its_path_and_memory_a_shard_at_a_time(
    mapped: MappedImages, tmp_path: Path, sent: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever goes through the pipes: of a map numbers of rows, of memory one batch where batches are large."""
    monkeypatch.setattr(sharded, "_SHARD_BYTES", 1)
    predicted(dataset(mapped), TWO, tmp_path / "a")
    assert {item.dtype for item in sent} == {np.dtype(np.int64)}
    sent.clear()
    predicted(dataset(images()), TWO, tmp_path / "b")
    assert [item.shape[1:] for item in sent] == [(8, 8, 3)] * 3
    assert max(len(item) for item in sent) == ONE.scoring_batch


def test_a_file_is_found_again_from_any_range_of_it(mapped: MappedImages) -> None:
    for part in (mapped, mapped[7:], mapped[3:9]):
        file = sharded.MappedFile.of(part)
        assert file is not None
        assert np.array_equal(file.open(), part)
    assert sharded.MappedFile.of(np.array(mapped)) is None
    assert sharded.MappedFile.of(mapped[::2]) is None
    with tempfile.TemporaryFile() as unnamed:
        unnamed.write(bytes(100))
        unnamed.flush()
        assert sharded.MappedFile.of(np.memmap(unnamed, np.uint8, "r", shape=(10, 10))) is None
    os.unlink(mapped.filename)
    assert sharded.MappedFile.of(mapped) is None


def test_shards_are_whole_batches_in_order_and_bounded() -> None:
    for n in (1, 512, 513, 40_000):
        for processes in (2, 3):
            for batch_bytes in (1, sharded._SHARD_BYTES // 3, 10**12):
                shards = list(sharded._shards(np.arange(n), processes, ONE.scoring_batch, batch_bytes))
                assert np.concatenate(shards).tolist() == list(range(n))
                assert all(shard[0] % ONE.scoring_batch == 0 for shard in shards)
                assert all(
                    len(s) <= ONE.scoring_batch or len(s) / ONE.scoring_batch * batch_bytes <= sharded._SHARD_BYTES
                    for s in shards
                )


def test_what_is_no_array_of_numbers_is_for_one_process() -> None:
    statistics = (torch.zeros(3), torch.ones(3))
    assert sharded.Recipe.of(NET, dataset(images(3)), statistics, 0, TWO) is not None
    texts = dataset(np.array(["some", "texts", "here"]))
    assert sharded.Recipe.of(NET, texts, (None, None), 0, TWO) is None


def test_a_gpu_for_each_process_and_no_more_than_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    gpus = replace(ONE, device="cuda", processes=3)
    for n_gpus, devices in ((4, ["cuda:0", "cuda:1", "cuda:2"]), (2, ["cuda:0", "cuda:1"])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda n_gpus=n_gpus: n_gpus)
        assert [one.device for one in sharded.spread(gpus)] == devices
    assert [one.device for one in sharded.spread(replace(gpus, device="cuda:1"))] == ["cuda:1"]  # all would share it
    assert {one.processes for one in sharded.spread(gpus)} == {1}


@pytest.mark.parametrize(("cores", "threads", "n"), [(16, 1, 3), (16, 8, 2), (16, 16, 1), (4, 16, 1)])
def test_processes_share_the_cores(cores: int, threads: int, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sharded, "n_cores", lambda: cores)
    spread = sharded.spread(replace(ONE, threads=threads, processes=3))
    assert [(one.device, one.threads) for one in spread] == [("cpu", threads)] * n
    net, x = preact("preact8", 10, torch.zeros(3, 8, 8)), torch.zeros(2, 3, 8, 8)
    assert sharded.repays(net, x, N, replace(ONE, threads=threads, processes=3)) == (n > 1)


def test_the_number_of_processes_is_no_part_of_what_a_result_depends_on() -> None:
    decided = decide(ComputeConfig(device="cpu", precision="fp32", threads=1, compile="off", processes=3))
    assert decided.processes == 3
    assert "processes" not in decided.facts()


OWN = TrainConfig(model="tests.own_models:MLP", epochs=1, options={"hidden": 4})


def rows() -> Dataset:
    x = np.random.default_rng(0).normal(size=(N, 5)).astype(np.float32)
    return Dataset.from_arrays(x, np.arange(N) % 3, test=(x[:9], np.arange(9) % 3), name="rows")


def test_two_processes_say_what_one_says(tmp_path: Path) -> None:
    """Real processes, with a net of one's own."""
    one, two = (predicted(rows(), compute, tmp_path / str(compute.processes), OWN) for compute in (ONE, TWO))
    assert np.array_equal(one.probs, two.probs)


def test_a_run_may_go_on_with_another_number_of_processes(tmp_path: Path, sent: list[Any]) -> None:
    data = rows()

    def chosen(processes: int, out: Path) -> Any:
        compute = ComputeConfig(device="cpu", precision="fp32", threads=1, compile="off", processes=processes)
        settings = {"dataset": "rows", "method": "entropy", "proxy": OWN, "target": OWN, "budget": 30}
        run = coreset(CoresetConfig(**settings, compute=compute), data, out=out)
        return run.selection.ids.tolist(), np.load(run.folder / "selection/seed-0/probs-0.npy").tobytes()

    two = chosen(2, tmp_path / "two")
    assert sent
    assert two == chosen(1, tmp_path / "one")
    assert two == chosen(1, tmp_path / "two")


# --- engine.map -----------------------------------------------------------------------------------------------------------


ADDER = "tests.own_work:adder"


def test_results_stand_in_the_order_of_items_and_come_from_other_processes() -> None:
    found = list(engine.map(ADDER, [100, 100], range(13)))
    assert [result for result, _ in found] == list(range(100, 113))
    assert os.getpid() not in {pid for _, pid in found}
    assert len({pid for _, pid in found}) <= 2


@pytest.mark.parametrize(
    ("setting", "item", "kind", "words"),
    [
        (0, 13, UnknownName, "Unknown number '13'; known: 12, 14"),
        (0, 14, WorkerError, r"failed: ValueError: an odd value; compute\.processes = 1 shows where"),
        (0, 15, WorkerError, r"ended before its work did \(signal 9: no memory left\).*compute\.processes"),
        (-1, 0, SettingError, "no such setting"),
    ],
)
def test_what_goes_wrong_there_is_one_named_line_here(setting: int, item: int, kind: type, words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        list(engine.map(ADDER, [setting, setting], [0, item, 1, 2]))
    assert "\n" not in str(caught.value)


def test_items_are_taken_as_they_are_needed() -> None:
    taken = []
    results = engine.map(ADDER, [0, 0], (taken.append(i) or i for i in range(9)))  # type: ignore[func-returns-value]
    next(results)
    assert len(taken) == 3
    results.close()  # and nobody waits for the rest


SCRIPT = """
import sys
sys.path.insert(0, {root!r})
from svp import engine
done = engine.map("tests.own_work:adder", [0, 0], [1, 2, 16, 16, 16])
print(next(done)[1], next(done)[1], flush=True)
{then}
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of a terminal")
@pytest.mark.parametrize("then", ["next(done)", "import signal; signal.pause()", "pass"])
def test_ctrl_c_or_the_end_of_a_script_ends_all_and_it_needs_no_guard(tmp_path: Path, then: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(root=str(Path(__file__).parents[1]), then=then))
    environment = {**os.environ, "PYTHONPATH": str(Path(svp.__file__).parents[1])}
    process = subprocess.Popen(
        [sys.executable, str(script)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment, process_group=0
    )
    assert process.stdout is not None
    workers = [int(pid) for pid in process.stdout.readline().split()]
    assert workers
    if then != "pass":
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to all of the group
    _, said = process.communicate(timeout=120)
    assert (b"KeyboardInterrupt" in said) == (then != "pass")
    for pid in workers:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)
