"""fastText: the same numbers as a slow obvious version, the same model after a kill, and the contract of every learner."""

import os
import re
import signal
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import svp
from svp import errors
from svp.chance import shuffled, spawn_seed
from svp.config import TrainConfig
from svp.data.base import Dataset
from svp.errors import DataError, MissingExtra, SettingError, TrainingError
from svp.learners import encoded, make_learner
from svp.signals import KINDS, Signals

pytest.importorskip("numba")
from svp.learners import fasttext

GOOD, BAD = ["great", "lovely", "fine", "works"], ["broken", "awful", "poor", "waste"]


def reviews(n: int = 120, classes: int = 2, seed: int = 0) -> Dataset:
    """Texts in which most words say nothing."""
    rng = np.random.default_rng(seed)
    kinds = [GOOD, BAD, [f"meh{i}" for i in range(5)]][:classes]
    labels = rng.integers(0, classes, n)
    texts = [
        " ".join([*rng.choice([f"w{i}" for i in range(40)], rng.integers(3, 9)), *rng.choice(kinds[y], 2)])
        for y in labels
    ]
    half = n // 2
    x = np.array(texts, object)
    return Dataset.from_arrays(x[:half], labels[:half], test=(x[half:], labels[half:]), name="reviews")


def config(**values: Any) -> TrainConfig:
    options = {"buckets": 500, **values.pop("options", {})}
    return TrainConfig.make({"model": "fasttext", "epochs": 5, "lr": 0.5, "options": options, **values})


def fit(data: Dataset, train: TrainConfig, folder: Path, ids: Any = None, seed: int = 0, **more: Any) -> Any:
    learner = make_learner(train, data, seed=seed)
    ids = data.ids if ids is None else np.asarray(ids)
    assert data.labels is not None
    folder.mkdir(exist_ok=True)
    learner.fit(data, ids, data.labels[data.positions(ids)], folder=folder, **more)
    return learner


# --- a slow obvious version -----------------------------------------------------------------------------------------------


def split(text: str) -> list[str]:
    text = re.sub(r"<br />", " ", re.sub("[A-Z]", lambda found: found[0].lower(), text))
    text = re.sub(r"(['.,()!?])", r" \1 ", text.replace('"', ""))
    return [word for word in re.split("[ \t\n\v\f\r\0;:]+", text) if word] + ["</s>"]


def fnv(word: str) -> int:
    h = 2166136261
    for byte in word.encode():
        h = ((h ^ (byte if byte < 128 else byte | 0xFFFFFF00)) * 16777619) % 2**32
    return h - 2**32 if h >= 2**31 else h


def ngram_buckets(words: list[int], ngrams: int, buckets: int) -> list[int]:
    found = []
    for i, first in enumerate(words):
        h = first % 2**64
        for word in words[i + 1 : i + ngrams]:
            h = (h * 116049371 + word) % 2**64
            found.append(h % buckets)
    return found


def drawn(keys: list[int], dim: int, seed: int) -> np.ndarray[Any, Any]:
    rows, mask = np.zeros((len(keys), dim), np.float32), 2**64 - 1
    for i, key in enumerate(keys):
        z = (key % 2**64) ^ spawn_seed(seed, "init")
        for d in range(dim):
            z = (z + 0x9E3779B97F4A7C15) & mask
            bits = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & mask
            bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & mask
            bits ^= bits >> 31
            rows[i, d] = ((bits >> 40) - 2**23) / 2**23 / dim
    return rows


class Slow:
    """fastText in numpy: `rows` by word and bucket, float64."""

    def __init__(self, dim: int = 10, ngrams: int = 2, buckets: int = 500, min_count: int = 1) -> None:
        self.dim, self.ngrams, self.buckets, self.min_count = dim, ngrams, buckets, min_count

    def features(self, text: str) -> list[int]:
        words = [fnv(word) for word in split(text)]
        mine = [self.words.index(word) for word in words if word in self.words]
        return mine + [len(self.words) + b for b in ngram_buckets(words, self.ngrams, self.buckets)]

    def forward(self, text: str) -> tuple[list[int], Any, Any, Any]:
        features = self.features(text)
        hidden = self.rows[features].mean(axis=0) if features else np.zeros(self.dim)
        logits = self.output @ hidden
        exp = np.exp(logits - logits.max())
        return features, hidden, logits, exp / exp.sum()

    def fit(self, data: Dataset, train: TrainConfig, seed: int) -> Any:
        texts, n_classes = data.inputs.tolist(), len(data.classes)
        counts = Counter(fnv(word) for text in texts for word in split(text))
        self.words = sorted(word for word, n in counts.items() if n >= self.min_count)
        keys = self.words + [2**32 + b for b in range(self.buckets)]
        self.rows = drawn(keys, self.dim, seed).astype(np.float64)
        self.output = np.zeros((n_classes, self.dim))
        total, before = train.epochs * sum(len(split(text)) for text in texts), 0
        signals = np.zeros((len(KINDS), train.epochs, len(texts)))
        for epoch in range(train.epochs):
            for i in shuffled(data.ids, seed, "order", epoch):
                features, hidden, logits, probs = self.forward(texts[i])
                y = int(data.labels[i])  # type: ignore[index]
                wrong = probs - np.eye(n_classes)[y]
                margin = logits[y] - np.delete(logits, y).max()
                signals[:, epoch, i] = margin > 0, -np.log(probs[y]), probs[y], margin, np.sqrt((wrong**2).sum())
                rate = train.lr * (1 - before / total)
                before += len(split(texts[i]))
                gradient = -rate * wrong @ self.output / max(len(features), 1)
                self.output -= rate * np.outer(wrong, hidden)
                np.add.at(self.rows, features, gradient)
        return signals


@pytest.mark.parametrize(
    ("options", "classes"),
    [({}, 2), ({"dim": 3, "ngrams": 3, "buckets": 37}, 3), ({"ngrams": 1, "min_count": 2, "dim": 2}, 3)],
    ids=str,
)
def test_it_is_fasttext(tmp_path: Path, options: dict[str, Any], classes: int) -> None:
    data, train = reviews(60, classes), config(options=options, epochs=3)
    slow = Slow(**{"buckets": 500, **options})
    signals = slow.fit(data, train, seed=4)
    learner = fit(data, train, tmp_path, seed=4)
    assert data.test is not None
    for part in (data, data.test):
        outputs = learner.predict(part, part.ids, embeddings=True)
        expected = [slow.forward(text) for text in part.inputs]
        assert np.allclose(outputs.probs, [probs for *_, probs in expected], atol=1e-5)
        assert np.allclose(outputs.embeddings, [hidden for _, hidden, *_ in expected], atol=1e-5)
    found = Signals.open(tmp_path / "signals")
    for kind, values in zip(KINDS, signals, strict=True):
        assert np.allclose(np.asarray(found[kind], float), values, atol=2e-3), kind  # float16 on disk


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Plain",
        "  It's \"quoted\", isn't it?! (Yes; no: perhaps.)  ",
        "line one<br />line two<BR />three < br /> <br/> <br",
        "tab\tnewline\nend\r",
        "Ärger, naïve 日本語 \U0001f600!",
        "a\x00b",
        "<br />",
        "x<br /",
    ],
)
def test_words_are_split_and_hashed_as_the_slow_version_does(text: str) -> None:
    data = Dataset.from_arrays(np.array(["before " + text, text, "after"], object), [0, 1, 0])
    words = fasttext.words_of(data)
    for i, whole in enumerate(data.inputs):
        assert words.values[words.offsets[i] : words.offsets[i + 1]].tolist() == [fnv(word) for word in split(whole)]


def test_it_learns_and_gives_what_every_learner_gives(tmp_path: Path) -> None:
    data = reviews(400)
    assert data.test is not None
    learner = fit(data, config(epochs=15), tmp_path)
    assert (learner.predict(data.test, data.test.ids).probs.argmax(axis=1) == data.test.labels).mean() > 0.9
    assert learner.gives == {"signals", "embeddings"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["history.json", "model.safetensors", "signals"]
    whole = learner.predict(data, data.ids, embeddings=True)
    some = learner.predict(data, np.array([7, 3, 59]), embeddings=True)
    assert np.array_equal(some.probs, whole.probs[[7, 3, 59]])
    assert np.array_equal(some.embeddings, whole.embeddings[[7, 3, 59]])
    assert np.array_equal(some.probs, learner.predict(data, np.array([7, 3, 59])).probs)
    assert learner.predict(data, np.zeros(0, np.int64)).probs.shape == (0, 2)
    other = make_learner(config(epochs=15), data, seed=0)
    other.load(tmp_path)
    assert np.array_equal(other.predict(data, data.ids).probs, whole.probs)


def test_rows_threads_and_blocks_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = reviews(80)
    expected = fit(data, config(), tmp_path / "a").predict(data, data.ids).probs
    order = np.random.default_rng(1).permutation(len(data))
    monkeypatch.setattr(fasttext, "_AT_A_TIME", 7)
    monkeypatch.setattr(fasttext, "_SCORED_AT_A_TIME", 3)
    monkeypatch.setattr(fasttext, "n_cores", lambda: 3)
    shuffled_rows = Dataset.from_arrays(data.inputs[order], data.labels[order], ids=order)  # type: ignore[index]
    for i, (rows, ids) in enumerate([(data, order), (shuffled_rows, shuffled_rows.ids)]):
        assert np.array_equal(fit(rows, config(), tmp_path / str(i), ids).predict(rows, data.ids).probs, expected)
    assert not np.array_equal(fit(data, config(), tmp_path / "b", seed=1).predict(data, data.ids).probs, expected)


def test_a_subset_begins_with_the_vectors_of_the_whole(tmp_path: Path) -> None:
    data = reviews(80)
    slow = config(lr=1e-30, epochs=1)  # nothing moves
    whole = fit(data, slow, tmp_path / "whole").predict(data, data.ids[:10], embeddings=True).embeddings
    part = fit(data, slow, tmp_path / "part", data.ids[:10]).predict(data, data.ids[:10], embeddings=True).embeddings
    assert np.array_equal(whole, part)


@pytest.mark.parametrize("worth", [0.0, 1e9], ids=["a checkpoint an epoch", "none"])
def test_a_killed_training_ends_in_the_same_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, worth: float
) -> None:
    monkeypatch.setattr(fasttext, "WORTH_KEEPING", worth)
    data = reviews(80)
    fit(data, config(), tmp_path / "whole")
    shown: list[int] = []

    def kill(record: dict[str, float], n_epochs: int) -> None:
        if record["epoch"] == 2:
            os.kill(os.getpid(), signal.SIGKILL)

    child = os.fork()
    if not child:
        fit(data, config(), tmp_path / "killed", progress=kill)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    fit(data, config(), tmp_path / "killed", progress=lambda record, _: shown.append(int(record["epoch"])))
    assert shown == ([3, 4] if worth == 0 else [0, 1, 2, 3, 4])
    for name in (f"signals/{kind}.npy" for kind in KINDS):
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "killed" / name).read_bytes()
    models = [
        fasttext.Model.read(tmp_path / name / "model.safetensors", fasttext.Size(buckets=500), 2, 0)[0]
        for name in ("whole", "killed")
    ]
    assert np.array_equal(models[0].rows, models[1].rows)
    assert np.array_equal(models[0].output, models[1].output)
    assert not (tmp_path / "killed/checkpoint.safetensors").exists()
    fit(data, config(), tmp_path / "killed", progress=lambda *_: pytest.fail("trained again"))


def test_signals_that_were_lost_beside_a_checkpoint_are_noticed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a net: forgetting would be counted without the epochs before it."""
    monkeypatch.setattr(fasttext, "WORTH_KEEPING", 0.0)
    data = reviews(40)

    def stop(record: dict[str, float], n_epochs: int) -> None:
        if record["epoch"] == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(data, config(), tmp_path, progress=stop)
    (tmp_path / "signals/correct.npy").unlink()
    with pytest.raises(DataError, match=r"signals .* of the epochs before .* remove .*checkpoint\.safetensors"):
        fit(data, config(), tmp_path)
    (tmp_path / "checkpoint.safetensors").unlink()
    fit(data, config(), tmp_path)  # as it says


def test_files_hold_only_what_training_moved(tmp_path: Path) -> None:
    data = reviews(20)
    fit(data, config(options={"buckets": 1_000_000}), tmp_path)
    assert (tmp_path / "model.safetensors").stat().st_size < 100_000


@pytest.mark.parametrize("damage", [b"no such format", b""], ids=["other", "empty"])
def test_a_damaged_model_is_named(tmp_path: Path, damage: bytes) -> None:
    data = reviews(20)
    learner = fit(data, config(), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(damage)
    with pytest.raises(DataError, match=r"cannot take the model from .*model\.safetensors") as caught:
        learner.load(tmp_path)
    assert "\n" not in str(caught.value)
    fit(data, config(options={"dim": 4}), tmp_path / "other")
    with pytest.raises(DataError, match="vectors of shape"):
        learner.load(tmp_path / "other")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"options": {"wordNgrams": 2}}, "takes the options dim, ngrams, buckets, min_count, not 'wordNgrams'"),
        ({"options": {"dim": 0}}, "dim is a whole number, 1 or more; got 0"),
        ({"options": {"buckets": 1e6}}, "buckets is a whole number"),
        ({"batch_size": 4}, "batch_size = 4 means nothing"),
    ],
)
def test_what_it_cannot_be_is_refused(settings: dict[str, Any], words: str) -> None:
    with pytest.raises(SettingError, match=words):
        make_learner(config(**settings), reviews(20), seed=0)


def test_models_and_data_of_another_kind_are_refused() -> None:
    numbers = Dataset.from_arrays(np.zeros((4, 3), np.float32), [0, 1, 0, 1], name="rows")
    with pytest.raises(
        SettingError, match=r"fasttext takes texts, and rows holds images or rows of numbers; choose of "
    ):
        make_learner(config(), numbers, seed=0)
    for model in ("logistic", "preact8"):
        with pytest.raises(
            SettingError, match=rf"{model} takes images .*, and reviews holds texts; choose of .*fasttext"
        ):
            make_learner(TrainConfig(model=model), reviews(20), seed=0)


def test_a_rate_that_is_too_high_and_no_examples_are_named(tmp_path: Path) -> None:
    data = reviews(40)
    with pytest.raises(TrainingError, match=r"fasttext diverged in epoch . of 5 .*; lower lr \(now 1e\+30\)"):
        fit(data, config(lr=1e30), tmp_path)
    with pytest.raises(TrainingError, match="no examples"):
        fit(data, config(), tmp_path / "none", [])


def test_vectors_that_break_in_the_last_epoch_are_found_by_the_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    epoch_of = fasttext.FastTextLearner._epoch

    def broken(self: Any, *given: Any) -> Any:
        seen = epoch_of(self, *given)
        if given[-1] == 4:
            self._model.rows[0] = np.nan
        return seen

    monkeypatch.setattr(fasttext.FastTextLearner, "_epoch", broken)
    with pytest.raises(TrainingError, match="fasttext diverged in epoch 5 of 5"):
        fit(reviews(40), config(), tmp_path)


def test_numba_is_an_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(f"No module named {name!r}", name=name)

    monkeypatch.setattr(errors.importlib, "import_module", missing)
    with pytest.raises(MissingExtra, match=r"numba is not installed; .*selection-via-proxy\[text\]"):
        fasttext.FastTextLearner(config(), reviews(20), 0)


# --- texts are encoded once -----------------------------------------------------------------------------------------------


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache/svp/encoded"


def test_texts_are_encoded_once_and_others_beside_them(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = reviews(20)
    first = fasttext.words_of(data)
    monkeypatch.setattr(encoded, "_write", lambda *_: pytest.fail("encoded again"))
    again = fasttext.words_of(replace(data, inputs=data.inputs.copy(), labels=None))
    assert np.array_equal(first.values, again.values)
    assert len(list(cache.iterdir())) == 1
    monkeypatch.undo()
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache.parents[1]))
    fasttext.words_of(Dataset.from_arrays(np.array(["b", "a"], object), [0, 1]))
    fasttext.words_of(Dataset.from_arrays(np.array(["ba", ""], object), [0, 1]))
    assert len(list(cache.iterdir())) == 3


def test_a_damaged_cache_is_named(cache: Path) -> None:
    data = reviews(20)
    fasttext.words_of(data)
    (folder,) = cache.iterdir()
    (folder / "values").write_bytes(b"1234")
    with pytest.raises(DataError, match=rf"the cache {folder} is damaged"):
        fasttext.words_of(data)


# --- the workflow ---------------------------------------------------------------------------------------------------------


def test_a_core_set_of_texts_by_forgetting(tmp_path: Path) -> None:
    settings = {"model": "fasttext", "epochs": 4, "lr": 0.5, "options": {"buckets": 500}}
    run = svp.coreset(
        svp.CoresetConfig.make({"dataset": "reviews", "method": "forgetting", "budget": "50%", "proxy": settings,
                                "target": {**settings, "epochs": 6}}),
        reviews(120), out=tmp_path / "run",
    )  # fmt: skip
    assert len(run.selection.ids) == 30
