"""Encoders of texts as frozen features: from a folder, made once, known by their content, refused in one line."""

import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import svp
from svp.config import CoresetConfig, FeaturesConfig
from svp.data.base import Dataset
from svp.errors import DataError, MissingExtra, SettingError
from svp.files import read_array
from svp.learners import encoders
from svp.learners.encoders import ENCODERS, TextEncoder
from svp.workflows.coreset import coreset
from svp.workflows.features import source_of
from svp.workflows.model import load_model

WORDS = ["good", "fine", "bad", "poor", "the", "a", "film"]


@pytest.fixture(scope="module")
def vectors() -> Any:
    return np.random.default_rng(0).normal(size=(len(WORDS) + 1, 5)).astype(np.float32)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, vectors: Any) -> Path:
    """A model of model2vec, as that saves it: a vector a word."""
    model2vec = pytest.importorskip("model2vec")
    tokenizers = pytest.importorskip("tokenizers")
    vocabulary = {word: i for i, word in enumerate([*WORDS, "[UNK]"])}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    place = tmp_path_factory.mktemp("static") / "model"
    model2vec.StaticModel(vectors, tokenizer).save_pretrained(place)
    return place


def reviews(n: int = 60) -> Dataset:
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 2, n)
    texts = [" ".join(rng.permutation([*rng.choice(WORDS[4:], 3), WORDS[2 * y + rng.integers(2)]])) for y in labels]
    return Dataset.from_arrays(texts[20:], labels[20:], test=(texts[:20], labels[:20]), name="reviews")


def config(source: str, **settings: Any) -> CoresetConfig:
    features = {"source": source, **settings}
    return CoresetConfig.make(
        {
            "dataset": "reviews",
            "method": "margin",
            "budget": 20,
            "proxy": {"model": "logistic", "features": features},
            "target": {"model": "tests.own_texts:bag_of_words"},
        }
    )


def test_features_are_the_averages_of_word_vectors(folder: Path, vectors: Any, tmp_path: Path) -> None:
    data, place = reviews(), shutil.copytree(folder, tmp_path / "model")
    run = coreset(config(f"model2vec:{place}"), data, out=tmp_path / "run")
    (made,) = run.folder.rglob("embeddings.npy")
    wanted = [vectors[[WORDS.index(word) for word in text.split()]].mean(axis=0) for text in data.inputs]
    np.testing.assert_allclose(read_array(made), wanted, atol=1e-6)
    assert read_array(made.with_name("test.npy")).shape == (20, 5)
    assert run.metrics["proxies"][0]["accuracy"] > 0.8
    assert run.metrics["saw"]["proxy"]["features"]["initial_weights"].startswith("sha256:")
    assert "So the proxy saw other data than the target" in " ".join(run.verdict)
    assert data.test is not None
    again = load_model(run.folder, "proxy", trained_on=data).predict(list(data.test.inputs))
    np.testing.assert_array_equal(again.probs, read_array(run.folder / "proxy/seed-0/test/probs.npy"))
    (place / "more.txt").write_text("another")
    with pytest.raises(DataError, match=r"weights of model2vec:.* are others"):
        load_model(run.folder, "proxy", trained_on=data)


def test_a_model_is_known_by_its_content_and_options(folder: Path, tmp_path: Path) -> None:
    moved, other = tmp_path / "moved", tmp_path / "other"
    for copy in (moved, other):
        shutil.copytree(folder, copy)
    (other / "README.md").write_text("another")
    data = reviews()
    sources = [
        source_of(FeaturesConfig(source=f"model2vec:{place}", options=options), data, pytest.fail, dict)
        for place, options in ((folder, {}), (moved, {}), (other, {}), (folder, {"normalize": True}))
    ]
    assert sources[0].made_from == sources[1].made_from
    assert len({str(source.made_from) for source in sources}) == 3
    rows = next(sources[3].blocks("embeddings", data, 0))
    np.testing.assert_allclose(np.linalg.norm(rows, axis=1), 1, rtol=1e-5)


def test_what_is_refused_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(error: type[Exception], match: str, source: str, data: Dataset, **settings: Any) -> None:
        with pytest.raises(error, match=match) as raised:
            coreset(config(source, **settings), data, out=tmp_path / "run")
        assert "\n" not in str(raised.value)

    data, photos = reviews(), svp.load_dataset("digits")
    refused(DataError, "holds no model of model2vec; .* nothing is fetched", f"model2vec:{tmp_path / 'none'}", data)
    refused(DataError, "somebody/model holds no model", "sentence-transformers:somebody/model", data)
    (tmp_path / "model.safetensors").write_bytes(b"no tensors")
    (tmp_path / "config.json").write_text("{}")
    source = f"model2vec:{tmp_path}"
    refused(SettingError, "of its settings only features.options", source, data, width=0.5)
    with pytest.raises(SettingError, match="embeds texts, and digits holds none"):
        source_of(FeaturesConfig(source=source), photos, pytest.fail, dict)
    monkeypatch.setitem(sys.modules, "model2vec", None)
    refused(MissingExtra, r"selection-via-proxy\[model2vec\]", source, data)
    broken = SimpleNamespace(StaticModel=SimpleNamespace(from_pretrained=lambda *_, **__: 1 / 0))
    monkeypatch.setitem(sys.modules, "model2vec", broken)
    refused(SettingError, "cannot be loaded with no options: ZeroDivisionError", source, data)


@pytest.mark.parametrize("library", ENCODERS)
def test_libraries_are_asked_for_what_lies_on_this_machine(
    library: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a stand-in for each, which takes the arguments of the real one."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    asked: list[Any] = []

    class StaticModel:
        @classmethod
        def from_pretrained(cls, path: Path, normalize: bool | None = None) -> "StaticModel":
            asked.append((str(path), normalize))
            return cls()

        def encode(self, sentences: list[str], *, use_multiprocessing: bool) -> Any:
            assert not use_multiprocessing
            return np.array([[len(text), 1.0] for text in sentences])

    class SentenceTransformer:
        def __init__(self, path: str, *, local_files_only: bool, device: str, normalize: bool | None = None) -> None:
            assert local_files_only
            assert device == "cuda:1"
            asked.append((path, normalize))

        def encode(self, sentences: list[str], *, show_progress_bar: bool, convert_to_numpy: bool) -> Any:
            assert convert_to_numpy
            assert not show_progress_bar
            return np.array([[len(text), 1.0] for text in sentences])

    stand_in = SimpleNamespace(StaticModel=StaticModel, SentenceTransformer=SentenceTransformer)
    monkeypatch.setitem(sys.modules, ENCODERS[library].module, stand_in)  # type: ignore[arg-type]
    encoder = TextEncoder.load(f"{library}:{tmp_path}", {"normalize": True}, "cuda:1")
    assert asked == [(str(tmp_path), True)]
    assert encoder.encode(["ab", "", "c"]).tolist() == [[2, 1], [0, 1], [1, 1]]


@pytest.mark.parametrize(
    ("file", "content"),
    [
        (
            "modules.json",
            [{"idx": 0, "path": "", "type": "sentence_transformers.models.Transformer"}, {"type": "mine.Net"}],
        ),
        ("config.json", {"auto_map": {"AutoModel": "modeling.Net"}}),
        ("config.json", {"auto_map": {"AutoTokenizer": [None, "somebody/model--modeling.Net"]}}),
        ("2_Dense/config.json", {"in_features": 4, "activation_function": "mine.run"}),
        ("router_config.json", {"types": {"query": "mine.Net"}}),
    ],
)
def test_a_folder_that_brings_code_is_refused_before_anything_is_imported(
    file: str, content: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text(json.dumps(content))
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(DataError, match=f"{file} names code of its own") as raised:
        TextEncoder.load(f"sentence-transformers:{tmp_path}", {})
    assert "\n" not in str(raised.value)


def test_what_comes_with_the_libraries_is_no_code_of_a_folder(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    (folder / "2_Dense").mkdir(parents=True)
    (folder / "model.safetensors").write_bytes(b"")
    for file, content in {
        "modules.json": [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}],
        "2_Dense/config.json": {"activation_function": "torch.nn.modules.activation.Tanh"},
        "tokenizer_config.json": {"tokenizer_class": "BertTokenizer", "model_max_length": 512},
        "tokenizer.json": {"model": {"type": "WordPiece", "vocab": {"e.g.": 1}}, "added_tokens": [{"content": "a.b"}]},
    }.items():
        (folder / file).write_text(json.dumps(content))
    encoders._refuse_code(folder, {"normalize": True})
    for options in ({"trust_remote_code": True}, {"model_kwargs": {"trust_remote_code": True}}):
        with pytest.raises(SettingError, match="trust_remote_code would run code"):
            encoders._refuse_code(folder, options)


def test_an_encoder_knows_its_device_where_that_matters(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text("{}")
    asked: list[str] = []
    made = SimpleNamespace(SentenceTransformer=lambda path, *, local_files_only, device: asked.append(device))
    monkeypatch.setitem(sys.modules, "sentence_transformers", made)  # type: ignore[arg-type]
    source = FeaturesConfig(source=f"sentence-transformers:{tmp_path}")
    found = source_of(source, reviews(), pytest.fail, lambda: {"compute.device": "cuda:1"})
    assert asked == ["cuda:1"]
    assert found.made_from["device"] == "cuda:1"
    assert (
        "device" not in source_of(FeaturesConfig(source=f"model2vec:{folder}"), reviews(), pytest.fail, dict).made_from
    )
