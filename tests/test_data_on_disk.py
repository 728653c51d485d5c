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
    rows_of = net.OnDisk.__getitem__
    monkeypatch.setattr(net.OnDisk, "__getitem__", lambda self, rows: read.append(1) or rows_of(self, rows))
    monkeypatch.setattr(net, "available_memory", lambda: 1000)
    after = trained(photos, tmp_path / "disk")
    assert read
    assert before[0] == after[0]
    assert np.array_equal(before[1], after[1])
    assert np.array_equal(before[2], after[2])


def test_arrays_in_memory_and_small_maps_are_not_read_batch_by_batch(photos, monkeypatch):
    torch = pytest.importorskip("torch")
    assert isinstance(photos.inputs, MappedImages)
    in_memory = Dataset.from_arrays(np.array(photos.inputs), photos.labels)
    for free, data in ((1 << 30, photos), (None, photos), (1000, in_memory)):
        monkeypatch.setattr(net, "available_memory", lambda free=free: free)
        inputs = net._inputs(data, data.ids[[5, 2]], "cpu")
        assert isinstance(inputs, torch.Tensor)
        assert np.array_equal(inputs.numpy(), np.array(data.inputs)[[5, 2]])


def test_rows_are_read_by_slices_and_numbers(photos):
    torch = pytest.importorskip("torch")
    wanted = np.array([7, 3, 3, 0, 9])
    inputs = net.OnDisk(photos.inputs, wanted, "cpu")
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
