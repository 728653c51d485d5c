"""Images that do not fit into memory are trained on from disk, to the same weights."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

pytest.importorskip("torch")

from svp.config import TrainConfig
from svp.data import load_dataset
from svp.data.base import Dataset, MappedImages
from svp.errors import DataError
from svp.learners import make_learner, net
from svp.learners.compute import Compute

CPU = Compute("cpu", "fp32", channels_last=False, threads=1)


@pytest.fixture
def photos(tmp_path: Path) -> Dataset:
    rng = np.random.default_rng(0)
    for i in range(40):
        path = tmp_path / "set" / "ab"[i % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 128 + 127 * (i % 2), (8, 8, 3), np.uint8)).save(path)
    return load_dataset(tmp_path / "set", image_size=8)


def trained(data: Dataset, folder: Path) -> tuple[list[dict], np.ndarray, np.ndarray]:
    config = TrainConfig(model="preact8", width=0.25, epochs=2, batch_size=8)
    learner = make_learner(config, data, seed=3, compute=CPU)
    records = learner.fit(data, data.ids[::2], data.labels[::2], folder=folder)
    outputs = learner.predict(data, data.ids[::-1], embeddings=True)
    return [{**record, "seconds": 0} for record in records], outputs.probs, outputs.embeddings


def test_training_from_disk_gives_the_same(photos, tmp_path, monkeypatch):
    before = trained(photos, tmp_path / "memory")
    read = []
    rows_of = net.ByBatch.__getitem__
    monkeypatch.setattr(net.ByBatch, "__getitem__", lambda self, rows: read.append(1) or rows_of(self, rows))
    monkeypatch.setattr(net, "free_memory", lambda device: 1000)
    after = trained(photos, tmp_path / "disk")
    assert read
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert np.array_equal(before[2], after[2])


def test_what_fits_is_brought_and_what_does_not_is_read_batch_by_batch(photos, monkeypatch):
    """Mapped, or in memory already: half of what is free holds no second copy of it."""
    torch = pytest.importorskip("torch")
    assert isinstance(photos.inputs, MappedImages)
    for data in (photos, Dataset.from_arrays(np.array(photos.inputs), photos.labels)):
        for free, kind in ((1 << 30, torch.Tensor), (None, torch.Tensor), (700, net.ByBatch)):
            monkeypatch.setattr(net, "free_memory", lambda device, free=free: free)
            inputs = net._inputs(data, data.ids[[5, 2]], "cpu")
            assert isinstance(inputs, kind)
            assert np.array_equal(inputs[slice(None)].numpy(), np.array(data.inputs)[[5, 2]])


def test_rows_are_read_by_slices_and_numbers(photos):
    torch = pytest.importorskip("torch")
    wanted = np.array([7, 3, 3, 0, 9])
    inputs = net.ByBatch(photos.inputs, wanted, "cpu")
    whole = np.array(photos.inputs)[wanted]
    assert np.array_equal(inputs[1:4].numpy(), whole[1:4])
    assert np.array_equal(inputs[torch.tensor([4, 0, 2])].numpy(), whole[[4, 0, 2]])


def test_a_classifier_says_that_it_needs_the_memory(photos, tmp_path, monkeypatch):
    monkeypatch.setattr("svp.data.base.available_memory", lambda: 10_000)
    learner = make_learner(TrainConfig(model="logistic"), photos, seed=0)
    with pytest.raises(
        DataError, match=r"32 examples as rows of floats takes? .* in memory, .*; use a net, a smaller image_size"
    ):
        learner.fit(photos, photos.ids, photos.labels, folder=tmp_path)


def test_on_a_gpu_it_is_its_memory_that_counts(photos, monkeypatch):
    """Not that of the host: neither how much nor how little of it there is."""
    torch = pytest.importorskip("torch")
    asked = []
    in_memory = Dataset.from_arrays(np.array(photos.inputs), photos.labels)
    monkeypatch.setattr("svp.learners.compute.available_memory", lambda: pytest.fail("that is the host's"))
    for free, kind in ((1000, net.ByBatch), (1 << 30, torch.Tensor)):
        monkeypatch.setattr(
            torch.cuda, "mem_get_info", lambda device, free=free: asked.append(device) or (free, 1 << 40)
        )
        monkeypatch.setattr(net, "_moved", lambda inputs, positions, device: torch.zeros(1))  # there is no GPU here
        for data in (photos, in_memory):
            assert isinstance(net._inputs(data, data.ids, "cuda:1"), kind)
    assert asked == [torch.device("cuda:1")] * 4


def test_what_is_moved_to_a_device_is_held_once_there_and_a_block_of_it_here(monkeypatch):
    """The device is played by the CPU."""
    torch = pytest.importorskip("torch")
    inputs, positions = np.random.default_rng(0).integers(0, 256, (50, 4, 4, 3), np.uint8), np.array([7, 3, 3, 49, 0])
    empty, blocks = torch.empty, []
    monkeypatch.setattr(net, "_MOVED_BYTES", 100)  # two rows
    monkeypatch.setattr(torch, "empty", lambda *shape, device, **kind: empty(*shape, **kind))
    for array in (inputs, inputs.astype(np.float32)):
        read = ReadsCounted(array, blocks)
        moved = net._moved(read, positions, "cuda")
        assert np.array_equal(moved.numpy(), array[positions])
        assert moved.numpy().dtype == array.dtype
        assert net._moved(array, positions[:0], "cuda").shape == (0, 4, 4, 3)
    assert blocks == [2, 2, 1] + 5 * [1]


class ReadsCounted:
    """An array whose reads by positions are noted: how many rows each."""

    def __init__(self, array: np.ndarray, reads: list[int]) -> None:
        self.array, self.reads = array, reads
        self.dtype, self.shape = array.dtype, array.shape

    def __getitem__(self, rows):
        if not isinstance(rows, slice):
            self.reads.append(len(rows))
        return self.array[rows]
