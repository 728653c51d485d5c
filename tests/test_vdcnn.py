"""Character nets: how texts become numbers, the nets themselves, and batches that are cut to their longest text."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from svp.config import TrainConfig
from svp.data import load_dataset
from svp.data.base import Dataset
from svp.data.texts import joined
from svp.errors import SettingError
from svp.learners import find, inference, loop, make_learner
from svp.learners.characters import ALPHABET, HOW, LENGTH, N_CHARACTERS, _encode, characters_of, widths_of
from svp.learners.compute import Compute
from svp.learners.net import NetLearner
from svp.learners.vdcnn import k_max_pool
from svp.signals import Signals
from tests.models_page import count_parameters

CPU = Compute("cpu", "fp32", channels_last=True, threads=1)
EXAMPLE = torch.zeros(LENGTH, dtype=torch.int64)
SIZES = {  # 2 classes: shared/paper.md
    "vdcnn9": 14_171_986,
    "vdcnn9-conv": 14_171_986,
    "vdcnn9-kmaxpool": 14_171_986,
    "vdcnn9-lite": 889_618,
    "vdcnn17-maxpool": 16_264_786,
    "vdcnn29-conv": 16_635_730,
    "vdcnn49": 19_764_306,
    "vdcnn9-shortcut": 14_344_018,
    "vdcnn17-conv-shortcut": 16_436_818,
    "vdcnn29-kmaxpool-shortcut": 16_807_762,
    "vdcnn49-maxpool-shortcut": 19_936_338,
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net(name: str, classes: int = 2, **settings: Any) -> Any:
    torch.manual_seed(0)
    return find(TrainConfig(model=name, **settings)).make(classes, EXAMPLE)


def texts(n: int = 24, longest: int = 90) -> Dataset:
    rng = np.random.default_rng(0)
    labels = np.arange(n) % 2
    x = np.array([("good! " if y else "bad, ") * rng.integers(1, longest // 6) for y in labels], object)
    return Dataset.from_arrays(x, labels, name="texts")


def config(**values: Any) -> TrainConfig:
    given = {"model": "vdcnn9-lite", "width": 0.25, "epochs": 2, "batch_size": 8, "lr": 0.01, **values}
    return TrainConfig.make(given)


def fit(data: Dataset, folder: Path, **values: Any) -> NetLearner:
    learner = make_learner(config(**values), data, seed=0, compute=CPU)
    folder.mkdir(exist_ok=True)
    assert data.labels is not None
    learner.fit(data, data.ids, data.labels, folder=folder)
    assert isinstance(learner, NetLearner)
    return learner


# --- characters -----------------------------------------------------------------------------------------------------------


def slowly(text: str) -> list[int]:
    numbers = {c: i + 2 for i, c in enumerate(ALPHABET)} | {c.upper(): i + 2 for i, c in enumerate(ALPHABET[:26])}
    return [numbers.get(c, 1) for c in text[:LENGTH]]


ANY = ALPHABET + "AZ\\@\n\0\x7f\x80éßİ日\uffff\U0001f600\U0010ffff"  # characters of one to four bytes


def test_characters_are_kept_where_the_texts_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "usual"))
    rows = "".join(f"{'ab'[i % 2]},text {i}\n" for i in range(20))
    (tmp_path / "mine.csv").write_text(f"label,text\n{rows}")
    data = load_dataset(tmp_path / "mine.csv", cache=tmp_path / "cache")
    assert data.test is not None
    for part in (data, data.without_labels(), data.test):
        characters_of(part)
    assert len(list((tmp_path / "cache").glob(f"{HOW}-*"))) == 2
    assert not (tmp_path / "usual").exists()
    characters_of(load_dataset(tmp_path / "mine.csv"))
    assert len(list((tmp_path / "usual/svp/encoded").iterdir())) == 1
    assert data.fingerprint == load_dataset(tmp_path / "mine.csv").fingerprint


@given(st.lists(st.text(ANY, max_size=20), max_size=6))
def test_characters_are_numbered_as_one_by_one(some: list[str]) -> None:
    values, lengths = _encode(*joined([text.encode() for text in some]))
    parts = np.split(values, np.cumsum(lengths)[:-1]) if some else []
    assert [part.tolist() for part in parts] == [slowly(text) for text in some]


def test_there_are_67_characters_and_texts_are_cut_at_1014() -> None:
    assert len(set(ALPHABET)) == 67
    assert N_CHARACTERS == 69
    data = Dataset.from_arrays(np.array(["é" * 3000, "", "aB", "x" * LENGTH], object), [0, 1, 0, 1])
    encoded = characters_of(data)
    assert encoded.lengths(np.arange(4)).tolist() == [LENGTH, 0, 2, LENGTH]
    rows = encoded.padded(np.array([2, 0, 1]), 5)
    assert rows.tolist() == [[2, 3, 0, 0, 0], [1] * 5, [0] * 5]
    assert rows.dtype == np.uint8


# --- nets -----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_parameters"), SIZES.items())
def test_sizes_are_those_of_the_paper(name: str, n_parameters: int) -> None:
    with torch.device("meta"):
        assert count_parameters(net(name)) == n_parameters


def plainly(made: Any, x: Tensor, *, halving: str, blocks: list[int], shortcut: bool) -> Tensor:
    """The same net on sequences, written out."""

    def conv(layer: nn.Conv2d, x: Tensor) -> Tensor:
        weight = layer.weight[:, :, 0]
        return F.conv1d(x, weight, stride=layer.stride[1], padding=weight.shape[2] // 2)

    def norm(layer: nn.BatchNorm2d, x: Tensor) -> Tensor:
        return F.batch_norm(x, layer.running_mean, layer.running_var, layer.weight, layer.bias)

    out, stages = conv(made.stem, made.embedding(x).transpose(1, 2)), np.repeat(np.arange(4), blocks)
    for i, block in enumerate(made.blocks):
        if i and stages[i] > stages[i - 1]:
            length = out.shape[2]
            if halving == "maxpool":
                out = F.max_pool1d(out, 3, 2, 1)
            if halving == "kmaxpool":
                out = torch.stack([row[row.topk(length // 2).indices.sort().values] for row in out.flatten(0, 1)])
                out = out.reshape(len(x), -1, length // 2)
        before = out
        out = norm(block.norm2, conv(block.conv2, norm(block.norm1, conv(block.conv1, out)).relu()))
        if shortcut:
            out = out + (before if isinstance(block.shortcut, nn.Identity) else conv(block.shortcut, before))
        out = out.relu()
    out = torch.stack([row[row.topk(8).indices.sort().values] for row in out.flatten(0, 1)]).reshape(len(x), -1)
    return made.head(made.fc2(made.fc1(out).relu()).relu())  # type: ignore[no-any-return]


@pytest.mark.parametrize("halving", ["conv", "maxpool", "kmaxpool"])
@pytest.mark.parametrize("shortcut", [False, True])
@torch.no_grad()
def test_a_net_is_what_its_paper_says(halving: str, shortcut: bool) -> None:
    made = net(f"vdcnn29-{halving}-lite" + "-shortcut" * shortcut, width=0.25).eval()
    x = torch.randint(0, N_CHARACTERS, (3, 200))
    expected = plainly(made, x, halving=halving, blocks=[5, 5, 2, 2], shortcut=shortcut)
    assert torch.allclose(made(x), expected, atol=1e-4, rtol=1e-4)
    assert torch.equal(made.head(made.features(x)), made(x))


def test_the_largest_keep_their_order() -> None:
    assert k_max_pool(torch.tensor([[[3.0, 9, 1, 7, 5]]]), 3).tolist() == [[[9, 7, 5]]]


def test_initial_weights_are_scaled_by_what_comes_in() -> None:
    weight = net("vdcnn9").blocks[3].conv1.weight.detach()  # 256 channels of 3 characters come in
    assert float(weight.std()) == pytest.approx((2 / (256 * 3)) ** 0.5, rel=0.01)


@pytest.mark.parametrize("name", ["vdcnn9-conv-lite", "vdcnn9-lite-shortcut", "vdcnn17-kmaxpool-lite"])
def test_a_net_learns_texts(name: str, tmp_path: Path) -> None:
    learner = fit(texts(), tmp_path, model=name, epochs=3)
    assert learner.gives == {"signals", "embeddings"}
    outputs = learner.predict(texts(), np.array([5, 1, 20]), embeddings=True)
    assert outputs.probs.shape == (3, 2)
    assert outputs.embeddings is not None
    assert outputs.embeddings.shape == (3, 128)
    losses = np.asarray(Signals.open(tmp_path / "signals")["loss"], float).mean(axis=1)
    assert losses[-1] < losses[0]


@pytest.mark.parametrize(
    ("name", "words"), [("vdcnn10", "Unknown model 'vdcnn10'"), ("vdcnn9-avgpool", "did you mean 'vdcnn9")]
)
def test_other_names_are_unknown(name: str, words: str) -> None:
    with pytest.raises(Exception, match=words):
        find(TrainConfig(model=name))


def test_what_it_cannot_be_is_refused() -> None:
    numbers = Dataset.from_arrays(np.zeros((4, 8, 8, 1), np.uint8), [0, 1, 0, 1], name="squares")
    with pytest.raises(SettingError, match="vdcnn9-lite takes texts, and squares holds images"):
        make_learner(config(), numbers, seed=0, compute=CPU)
    with pytest.raises(SettingError, match="takes the options cut, not 'length'"):
        make_learner(config(options={"length": 5}), texts(), seed=0, compute=CPU)
    with pytest.raises(SettingError, match="augment 'crop' is for images"):
        make_learner(config(augment="crop"), texts(), seed=0, compute=CPU)


def test_a_net_of_ones_own_is_shown_characters(tmp_path: Path) -> None:
    learner = fit(texts(), tmp_path, model="tests.own_models:Characters", width=1.0)
    assert learner.predict(texts(), texts().ids).probs.shape == (24, 2)


# --- cut to the longest ---------------------------------------------------------------------------------------------------


def test_widths_are_few_and_long_enough() -> None:
    lengths = np.arange(LENGTH + 1)
    widths = widths_of(lengths)
    assert (widths >= lengths).all()
    assert widths.min() == 64
    assert widths.max() == LENGTH
    assert len(np.unique(widths)) == 16


def test_batches_are_of_like_length_and_hold_every_text_once(monkeypatch: pytest.MonkeyPatch) -> None:
    data = texts(400, longest=1000)
    shapes: dict[bool, list[tuple[int, ...]]] = {}
    orders = []
    for cut in (False, True):
        learner = make_learner(config(options={"cut": cut}), data, seed=0, compute=CPU)
        assert isinstance(learner, NetLearner)
        assert data.labels is not None
        plan = loop._Plan(learner._examples(data, data.ids, data.labels), config(), 0, "none", CPU)
        batches = list(plan.batches(epoch=1))
        assert np.array_equal(np.sort(torch.cat([rows for rows, _, _ in batches])), data.ids)
        shapes[cut] = [tuple(x.shape) for _, x, _ in batches]
        orders.append(torch.cat([rows for rows, _, _ in plan.batches(0)]).tolist())
        again = torch.cat([rows for rows, _, _ in plan.batches(0)]).tolist()
        assert again == orders[-1]
    assert set(shapes[False]) == {(8, LENGTH)}
    assert sum(width for _, width in shapes[True]) < 0.6 * sum(width for _, width in shapes[False])
    widths = [width for _, width in shapes[True]]
    assert widths != sorted(widths)  # short ones do not come first


def test_how_a_text_is_cut_depends_on_itself_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = texts(40, longest=400)
    learner = fit(data, tmp_path, options={"cut": True})
    learner._compute = replace(CPU, scoring_batch=3)
    monkeypatch.setattr(inference, "ALIKE", 4)
    whole = learner.predict(data, data.ids, embeddings=True)
    for i in (0, 17, 39):
        alone = learner.predict(data, np.array([i]), embeddings=True)
        assert np.allclose(alone.probs[0], whole.probs[i], atol=1e-5)
        assert alone.embeddings is not None
        assert whole.embeddings is not None
        assert np.allclose(alone.embeddings[0], whole.embeddings[i], atol=1e-4)
