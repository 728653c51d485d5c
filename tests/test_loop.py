"""The one training loop: against a slow obvious one, at the edges of its schedule, and across interruptions."""

import json
import math
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from svp.chance import shuffled, spawn_seed
from svp.config import TrainConfig
from svp.data.base import Augmentation
from svp.errors import DataError, TrainingError
from svp.learners import checkpoints, inference, loop
from svp.learners.augment import augment, draw
from svp.learners.compute import Compute
from svp.learners.epochs import n_epochs
from svp.learners.resnet import preact
from svp.signals import KINDS, Signals

FP32 = Compute("cpu", "fp32", channels_last=False, threads=1)
TRY = settings(derandomize=True, deadline=None, max_examples=40)


@pytest.fixture(autouse=True)
def one_thread() -> Any:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_examples(n: int = 45, n_classes: int = 3, seed: int = 0, ids: np.ndarray | None = None) -> inference.Examples:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, n_classes, n)
    images = rng.integers(0, 90, (n, 8, 8, 3)) + 50 * labels[:, None, None, None]
    x = torch.from_numpy(images.astype(np.uint8))
    flat = x.float().reshape(-1, 3)
    return inference.Examples(
        x, torch.from_numpy(labels), np.arange(n) if ids is None else ids, flat.mean(0), flat.std(0)
    )


def part(examples: inference.Examples, rows: np.ndarray) -> inference.Examples:
    return replace(examples, inputs=examples.inputs[rows], labels=examples.labels[rows], ids=examples.ids[rows])


def make_net(n_classes: int = 3, seed: int = 1) -> nn.Module:
    torch.manual_seed(seed)
    return preact("preact8", n_classes, torch.zeros(3, 8, 8), width=0.25)


class Dropping(nn.Module):
    """A net that draws while it trains, and has no features."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(5)
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(192, 16), nn.ReLU(), nn.Dropout(0.5), nn.Linear(16, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


def config(**values: Any) -> TrainConfig:
    return TrainConfig.make({"model": "preact8", "epochs": 3, "batch_size": 16, "lr": 0.4, "augment": "none", **values})


def fit(
    folder: Path, model: nn.Module, examples: inference.Examples, settings_: TrainConfig, **given: Any
) -> tuple[list[Any], Signals]:
    signals = Signals.create(folder / "signals", n_epochs(settings_, len(examples.ids)), len(examples.ids))
    given = {"seed": 0, "augmentation": "none", "compute": FP32, **given}
    records = loop.train(
        model, examples, settings_, signals=signals, checkpoint=folder / "checkpoint.safetensors", **given
    )
    return records, signals


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def plain(records: list[Any]) -> list[Any]:
    return [{name: value for name, value in record.items() if name != "seconds"} for record in records]


# --- against a slow obvious loop ------------------------------------------------------------------------------------------


def obvious(
    model: nn.Module, examples: inference.Examples, c: TrainConfig, seed: int
) -> tuple[list[float], np.ndarray]:
    """Momentum SGD with weight decay, one-cycle, written out; returns losses an epoch and (5, epochs, n) signals."""
    n = len(examples.ids)
    x = ((examples.inputs.float() - examples.mean) / examples.std).permute(0, 3, 1, 2).contiguous()
    per_epoch = -(-n // c.batch_size)
    n_steps, step, momenta = c.epochs * per_epoch, 0, {}
    seen, losses = np.zeros((5, c.epochs, n)), []
    model.train()
    for epoch in range(c.epochs):
        order = shuffled(examples.ids, seed, "order", epoch)
        epoch_losses = np.zeros(n)
        for rows in np.array_split(order, per_epoch):
            rise = c.warmup * n_steps
            rate = 0.1 + 0.9 * step / rise if step < rise else (n_steps - step) / (n_steps - rise)
            lr = rate * c.lr * c.batch_size / 128
            logits = model(x[rows])
            y = examples.labels[rows]
            loss = nn.functional.cross_entropy(logits, y)
            grads = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for parameter, grad in zip(model.parameters(), grads, strict=True):
                    g = grad + c.weight_decay * parameter
                    momenta[parameter] = c.momentum * momenta[parameter] + g if parameter in momenta else g
                    parameter -= lr * momenta[parameter]
            z = logits.detach().double().numpy()
            for row, label, logit in zip(rows, y.tolist(), z, strict=True):
                p = np.exp(logit - logit.max()) / np.exp(logit - logit.max()).sum()
                margin = logit[label] - np.delete(logit, label).max()
                onehot = np.eye(len(p))[label]
                seen[:, epoch, row] = [margin > 0, -np.log(p[label]), p[label], margin, np.linalg.norm(p - onehot)]
                epoch_losses[row] = -np.log(p[label])
            step += 1
        losses.append(epoch_losses.mean())
    return losses, seen


def test_weights_and_signals_are_those_of_the_obvious_loop(tmp_path: Path) -> None:
    c, examples = config(epochs=4), make_examples()
    net, slow = make_net(), make_net()
    records, signals = fit(tmp_path, net, examples, c, seed=3)
    losses, seen = obvious(slow, examples, c, seed=3)
    for (name, a), b in zip(net.state_dict().items(), slow.state_dict().values(), strict=True):
        assert torch.allclose(a.double(), b.double(), rtol=2e-3, atol=2e-4), name
    assert [r["loss"] for r in records] == pytest.approx(losses, rel=1e-3)
    assert [r["accuracy"] for r in records] == pytest.approx(seen[0].mean(axis=1).tolist(), abs=0.03)
    for i, kind in enumerate(KINDS):
        if kind == "correct":
            clear = np.abs(seen[3]) > 0.01
            assert clear.mean() > 0.9
            assert np.array_equal(signals[kind][clear], seen[i][clear])
        else:
            assert np.allclose(signals[kind].astype(float), seen[i], rtol=5e-3, atol=5e-3), kind
    assert [r["epoch"] for r in records] == [0, 1, 2, 3]
    assert all(r["seconds"] > 0 for r in records)


def test_plain_signals_are_those_of_the_net_after_the_epoch(tmp_path: Path) -> None:
    examples, shown = make_examples(), []
    c = config(record="plain", epochs=2)
    net = make_net()
    signals = Signals.create(tmp_path / "signals", 2, len(examples.ids))

    def after_epoch(record: Any, n_epochs: int) -> None:
        probs = inference.predict(net, examples, FP32, embeddings=False).probs
        shown.append(probs[np.arange(len(examples.ids)), examples.labels.numpy()])

    loop.train(
        net,
        examples,
        c,
        seed=0,
        augmentation="crop_flip",
        compute=FP32,
        signals=signals,
        checkpoint=tmp_path / "c",
        progress=after_epoch,
    )
    for epoch in range(2):
        assert np.allclose(signals["p_true"][epoch].astype(float), shown[epoch], atol=1e-3)
    train = make_net()
    fit(tmp_path / "train", train, examples, config(epochs=2), augmentation="crop_flip")
    assert same(state(net), state(train))  # recording changes no weight


def test_signals_by_hand() -> None:
    logits = torch.tensor([[2.0, 0.0, 1.0], [0.0, 3.0, 3.0], [-1.0, -2.0, 5.0]])
    labels = torch.tensor([0, 1, 0])
    rows = dict(zip(KINDS, inference.signal_values(logits, labels).numpy(), strict=True))
    p = np.exp(logits.double().numpy())
    p /= p.sum(axis=1, keepdims=True)
    mine = p[np.arange(3), labels.numpy()]
    assert rows["correct"].tolist() == [1, 0, 0]  # level with another is not right
    assert rows["loss"] == pytest.approx(-np.log(mine), rel=1e-5)
    assert rows["p_true"] == pytest.approx(mine, rel=1e-5)
    assert rows["logit_margin"] == pytest.approx([1, 0, -6])
    assert rows["el2n"] == pytest.approx(np.linalg.norm(p - np.eye(3)[labels.numpy()], axis=1), rel=1e-5)


def test_a_single_class_is_always_right_and_finite() -> None:
    values = inference.signal_values(torch.tensor([[3.0], [-2.0]]), torch.zeros(2, dtype=torch.int64)).numpy()
    rows = dict(zip(KINDS, values, strict=True))
    assert rows["correct"].tolist() == rows["p_true"].tolist() == [1, 1]
    assert rows["el2n"].tolist() == [0, 0]
    assert np.isfinite(values.astype(np.float16)).all()


# --- the schedule ---------------------------------------------------------------------------------------------------------


def test_the_papers_schedule_changes_exactly_between_epochs() -> None:
    c = TrainConfig(schedule="piecewise", epochs=181, lr=0.1, batch_size=128)
    steps_per_epoch = 391
    rates = [
        [loop.learning_rate(c, e * steps_per_epoch + s, 181 * steps_per_epoch) for s in range(steps_per_epoch)]
        for e in range(181)
    ]
    assert all(len(set(epoch)) == 1 for epoch in rates)
    assert [epoch[0] for epoch in rates] == pytest.approx([0.01] + 90 * [0.1] + 45 * [0.01] + 45 * [0.001])


@TRY
@given(
    n_steps=st.integers(1, 300),
    warmup=st.floats(0, 0.9),
    batch=st.sampled_from([32, 128, 512]),
)
def test_one_cycle_rises_once_and_falls_towards_zero(n_steps: int, warmup: float, batch: int) -> None:
    c = TrainConfig(warmup=warmup, lr=0.2, batch_size=batch)
    highest = 0.2 * batch / 128
    rates = np.array([loop.learning_rate(c, step, n_steps) for step in range(n_steps)])
    assert (rates > 0).all()
    assert rates.max() <= highest * (1 + 1e-12)
    top = int(rates.argmax())
    assert (np.diff(rates[: top + 1]) >= 0).all()
    assert (np.diff(rates[top:]) <= 0).all()
    if warmup * n_steps >= 1:
        assert rates[0] == pytest.approx(highest / 10)
    if warmup == 0:
        assert rates == pytest.approx(highest * (1 - np.arange(n_steps) / n_steps))
    # In a straight line: the last step is one line-step above zero.
    assert rates[-1] <= highest / max(1, (1 - warmup) * n_steps) + 1e-12 or n_steps == 1


@TRY
@given(
    phases=st.lists(st.tuples(st.integers(1, 50), st.floats(0.01, 2)), min_size=1, max_size=4),
    epochs=st.integers(1, 30),
)
def test_phases_are_stretched_to_fit(phases: list[tuple[int, float]], epochs: int) -> None:
    c = TrainConfig(schedule="piecewise", phases=tuple(phases), lr=0.1)
    n_steps = epochs * sum(length for length, _ in phases)
    expected = [0.1 * factor for length, factor in phases for _ in range(length * epochs)]
    assert [loop.learning_rate(c, step, n_steps) for step in range(n_steps)] == pytest.approx(expected)


def test_min_steps_raises_the_epochs(tmp_path: Path) -> None:
    records, signals = fit(tmp_path, make_net(), make_examples(20), config(epochs=1, min_steps=5))
    assert len(records) == 3  # of 2 steps each
    assert signals["loss"].shape == (3, 20)


@pytest.mark.parametrize(
    ("n", "batch", "sizes"),
    [(45, 16, [15, 15, 15]), (17, 16, [9, 8]), (16, 16, [16]), (5, 16, [5]), (9, 2, [2, 2, 2, 2, 1])],
)
def test_batches_are_of_nearly_equal_size(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, n: int, batch: int, sizes: list[int]
) -> None:
    seen, real = [], loop.augment

    def counted(images: Tensor, drawn: Tensor, kind: Any) -> Tensor:
        seen.append(len(images))
        return real(images, drawn, kind)

    monkeypatch.setattr(loop, "augment", counted)
    fit(tmp_path, make_net(), make_examples(n), config(epochs=2, batch_size=batch))
    assert seen == sizes * 2


def test_labels_are_smoothed_for_learning_alone(tmp_path: Path) -> None:
    examples, c = make_examples(), config(label_smoothing=0.3, epochs=1, batch_size=45)
    net, slow = make_net(), make_net()
    _, signals = fit(tmp_path, net, examples, c)
    x = inference.prepare(examples.inputs, examples, FP32)
    logits = slow.train()(x)
    wanted = 0.7 * nn.functional.one_hot(examples.labels, 3) + 0.1
    loss = -(wanted * logits.log_softmax(dim=1)).sum(dim=1).mean()
    gradients = torch.autograd.grad(loss, list(slow.parameters()))
    rate = loop.learning_rate(c, 0, 1)
    for after, before, gradient in zip(net.parameters(), slow.parameters(), gradients, strict=True):
        assert torch.allclose(after, before - rate * (gradient + c.weight_decay * before), atol=1e-5)
    plain = nn.functional.cross_entropy(logits, examples.labels, reduction="none").detach().numpy()
    assert np.allclose(signals["loss"][0].astype(float), plain, rtol=2e-3)


# --- held-out examples ----------------------------------------------------------------------------------------------------


def fit_with_some_held_out(folder: Path, net: nn.Module, c: TrainConfig, **given: Any) -> list[Any]:
    """Thirty examples to learn from; of the fifteen held out the labels are false, so that accuracy on them falls."""
    shown, held_out = make_examples(30), make_examples(15, seed=7)
    held_out = replace(held_out, labels=(held_out.labels + 1) % 3)
    return fit(folder, net, shown, c, held_out=held_out, **given)[0]


def test_the_epoch_that_is_best_on_the_held_out_examples_is_kept(tmp_path: Path) -> None:
    c = config(epochs=6, validation=0.3)
    net, seen = make_net(), []
    records = fit_with_some_held_out(tmp_path, net, c, progress=lambda record, n_epochs: seen.append(state(net)))
    assert len(records) == 6
    best = max(range(6), key=lambda e: (records[e]["held_out_accuracy"], -records[e]["held_out_loss"]))
    assert best < 5
    assert same(state(net), seen[best])
    assert not same(state(net), seen[5])


@pytest.mark.parametrize("patience", [1, 2])
def test_patience_ends_a_training_that_gets_no_better(tmp_path: Path, patience: int) -> None:
    whole = fit_with_some_held_out(tmp_path / "whole", make_net(), config(epochs=8, validation=0.3))
    records = fit_with_some_held_out(
        tmp_path / "short", make_net(), config(epochs=8, validation=0.3, patience=patience)
    )
    keys = [(record["held_out_accuracy"], -record["held_out_loss"]) for record in whole]
    end = next((e for e in range(8) if e - keys.index(max(keys[: e + 1])) >= patience), 7)
    assert end < 7
    assert len(records) == end + 1


def test_held_out_examples_survive_an_interruption(tmp_path: Path) -> None:
    c = config(epochs=5, validation=0.3, patience=3)
    whole, resumed = make_net(), make_net()
    expected = fit_with_some_held_out(tmp_path / "whole", whole, c)

    def stop(record: Any, n_epochs: int) -> None:
        if record["epoch"] == 1:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit_with_some_held_out(tmp_path / "resumed", make_net(), c, progress=stop)
    found = fit_with_some_held_out(tmp_path / "resumed", resumed, c)
    assert same(state(whole), state(resumed))
    assert [r["held_out_loss"] for r in found] == [r["held_out_loss"] for r in expected]


# --- augmentation ---------------------------------------------------------------------------------------------------------


def legal(image: np.ndarray, kind: str) -> dict[bytes, tuple[int, int, bool]]:
    """Every shift and flip of the padded image, by brute force."""
    h, w, _ = image.shape
    ph, pw = h // 8, w // 8
    padded = np.pad(image, ((ph, ph), (pw, pw), (0, 0)))
    flips = (False, True) if kind == "crop_flip" else (False,)
    return {
        np.ascontiguousarray(window[:, ::-1] if flip else window).tobytes(): (i, j, flip)
        for i in range(2 * ph + 1)
        for j in range(2 * pw + 1)
        for window in [padded[i : i + h, j : j + w]]
        for flip in flips
    }


@pytest.mark.parametrize("kind", ["crop", "crop_flip"])
@pytest.mark.parametrize("shape", [(8, 8, 1), (16, 8, 3), (33, 20, 3), (5, 5, 1)])
def test_every_result_is_a_legal_shift_or_flip_and_all_of_them_come(kind: Any, shape: tuple[int, int, int]) -> None:
    image = np.random.default_rng(0).integers(1, 255, shape).astype(np.uint8)
    n = 60 * len(legal(image, kind))
    n = min(n, 4000)
    batch = torch.from_numpy(np.broadcast_to(image, (n, *shape)).copy())
    made = augment(batch, draw(np.arange(n), 0, 0), kind).numpy()
    allowed = legal(image, kind)
    counts: dict[tuple[int, int, bool], int] = dict.fromkeys(allowed.values(), 0)
    for result in made:
        counts[allowed[result.tobytes()]] += 1  # KeyError: not legal
    assert min(counts.values()) > 0.25 * n / len(counts)
    assert max(counts.values()) < 2.5 * n / len(counts)


def test_resized_crops_are_parts_of_the_whole_brought_to_its_size() -> None:
    """Read off images whose pixels are their own coordinates."""
    n, h, w = 3000, 32, 48
    rows, columns = np.meshgrid(np.arange(h) + 0.5, np.arange(w) + 0.5, indexing="ij")
    images = torch.from_numpy(np.stack([rows / h, columns / w], axis=2)).float().expand(n, h, w, 2)
    made = augment(images, draw(np.arange(n), 0, 0, "resized_crop_flip"), "resized_crop_flip").double().numpy()
    assert made.shape == (n, h, w, 2)
    height = (made[:, 20, 0, 0] - made[:, 12, 0, 0]) * h / 8  # of the part, by its slope well inside
    width = (made[:, 0, 28, 1] - made[:, 0, 20, 1]) * w / 8
    middle = np.stack([made[:, 15:17, 0, 0].mean(axis=1), made[:, 0, 23:25, 1].mean(axis=1)], axis=1)
    mirrored, width = width < 0, np.abs(width)
    for side, centre in ((height, middle[:, 0]), (width, middle[:, 1])):
        assert side.max() <= 1 + 1e-4
        assert (centre - side / 2).min() >= -1e-4
        assert (centre + side / 2).max() <= 1 + 1e-4
    area, ratio = height * width, width / height
    whole = (height > 1 - 1e-4) | (width > 1 - 1e-4)  # cut off at the edge: another area and shape
    assert area.min() >= 0.08 - 1e-4
    assert 0.75 - 1e-3 <= ratio[~whole].min() < 0.78
    assert 1.29 < ratio[~whole].max() <= 4 / 3 + 1e-3
    assert area[~whole].min() < 0.1
    assert area.max() > 0.9
    assert 0.45 < mirrored.mean() < 0.55
    assert abs(np.corrcoef(mirrored, area)[0, 1]) < 0.05
    for slopes in (np.diff(made[:, 8:24, 0, 0], axis=1), np.diff(made[:, 0, 8:40, 1], axis=1)):
        assert np.allclose(slopes, slopes[:, :1], atol=1e-4)  # in a straight line: no pixel is left out


class NoFloat64(TorchDispatchMode):
    """A device without float64, as mps is."""

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = operation(*args, **(kwargs or {}))
        assert all(t.dtype != torch.float64 for t in tree_leaves(made) if isinstance(t, Tensor)), operation
        return made


@pytest.mark.parametrize("kind", get_args(Augmentation))
def test_what_runs_on_the_device_needs_no_float64(kind: Any) -> None:
    examples = make_examples(20)
    drawn = draw(examples.ids, 3, 1, kind)  # on the CPU, whatever the device
    with NoFloat64():
        inference.prepare(augment(examples.inputs[:], drawn, kind), examples, FP32)


def test_no_augmentation_is_none() -> None:
    images = torch.ones(3, 8, 8, 1)
    assert augment(images, draw(np.arange(3), 0, 0), "none") is images


def test_floats_are_augmented_as_bytes_are() -> None:
    images, drawn = make_examples(20).inputs, draw(np.arange(20), 3, 1)
    assert torch.equal(augment(images, drawn, "crop_flip").float(), augment(images.float(), drawn, "crop_flip"))


def test_what_happens_to_an_example_is_its_own() -> None:
    ids = np.array([3, 14, 15, 92, 65, 35])
    drawn = draw(ids, 1, 2)
    assert torch.equal(draw(ids[[4, 1]], 1, 2), drawn[[4, 1]])
    assert not torch.equal(draw(ids, 1, 3), drawn)
    assert not torch.equal(draw(ids, 2, 2), drawn)


def spied(monkeypatch: pytest.MonkeyPatch, run: Callable[[], Any]) -> list[dict[int, bytes]]:
    """What each example looked like, step by step: its first pixel carries its id."""
    seen, real = [], loop.augment

    def spy(images: Tensor, drawn: Tensor, kind: Any) -> Tensor:
        made = real(images, drawn, kind)
        seen.append({int(image[3, 3, 0]): result.numpy().tobytes() for image, result in zip(images, made, strict=True)})
        return made

    monkeypatch.setattr(loop, "augment", spy)
    run()
    monkeypatch.setattr(loop, "augment", real)
    return seen


def test_a_subset_meets_its_examples_in_the_same_order_and_the_same_crops(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = make_examples(40)
    whole.inputs[:, 3, 3, 0] = torch.arange(40)
    rows = np.random.default_rng(1).permutation(40)[:23]
    c = config(epochs=2, batch_size=4)
    seen = [
        spied(monkeypatch, lambda e=examples, f=folder: fit(f, make_net(), e, c, augmentation="crop_flip"))  # type: ignore[misc]
        for examples, folder in ((whole, tmp_path / "whole"), (part(whole, np.sort(rows)), tmp_path / "part"))
    ]
    for epoch in range(2):
        steps = [seen[0][10 * epoch : 10 * epoch + 10], seen[1][6 * epoch : 6 * epoch + 6]]
        merged = [[(id_, image) for step in part_ for id_, image in step.items()] for part_ in steps]
        assert merged[1] == [(id_, image) for id_, image in merged[0] if id_ in set(rows.tolist())]


def test_rows_shuffled_with_their_ids_train_the_same_net(tmp_path: Path) -> None:
    examples = make_examples(40, ids=np.arange(40) * 3)
    rows = np.random.default_rng(2).permutation(40)
    c, nets, found = config(), [make_net(), make_net()], []
    for i, e in enumerate((examples, part(examples, rows))):
        found.append(fit(tmp_path / str(i), nets[i], e, c, augmentation="crop_flip"))
    assert same(state(nets[0]), state(nets[1]))
    for kind in KINDS:
        assert np.array_equal(found[0][1][kind][:, rows], found[1][1][kind])


def test_scoring_is_plain(monkeypatch: pytest.MonkeyPatch) -> None:
    examples, net = make_examples(), make_net()
    first = inference.predict(net, examples, FP32, embeddings=True)
    monkeypatch.setattr(loop, "augment", lambda *_: pytest.fail("augmented while scoring"))
    again = inference.predict(net.train(), examples, FP32, embeddings=True)
    assert np.array_equal(first.probs, again.probs)
    assert not net.training  # batch statistics are not those of the pool
    with torch.no_grad():
        x = ((examples.inputs.float() - examples.mean) / examples.std).permute(0, 3, 1, 2)
        assert np.allclose(first.probs, net(x).softmax(1).numpy(), atol=1e-5)
        assert first.embeddings is not None
        assert np.allclose(first.embeddings, net.features(x).numpy(), atol=1e-4)  # type: ignore[operator]


def test_a_row_is_scored_alike_whatever_else_is_in_the_pool() -> None:
    few = replace(FP32, scoring_batch=16)
    examples, net = make_examples(45), make_net()
    whole = inference.predict(net, examples, few, embeddings=True)
    rows = np.random.default_rng(0).permutation(45)[:31]
    some = inference.predict(net, part(examples, rows), few, embeddings=True)
    assert whole.embeddings is not None
    assert some.embeddings is not None
    # By rounding: sums inside a batch may be ordered otherwise for a batch of another size.
    assert np.allclose(whole.probs[rows], some.probs, atol=1e-6)
    assert np.allclose(whole.embeddings[rows], some.embeddings, atol=1e-5)


# --- interruptions --------------------------------------------------------------------------------------------------------


class Stop(BaseException):
    pass


def stop(record: Any, n_epochs: int) -> None:
    raise Stop


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a training of two epochs leaves that was stopped after the first."""
    folder = tmp_path_factory.mktemp("interrupted")
    with pytest.raises(Stop):
        fit(folder, make_net(), make_examples(), config(epochs=2), progress=stop)
    return folder


@pytest.mark.parametrize(("make", "momentum"), [(make_net, 0.9), (Dropping, 0.0)])
def test_resuming_from_any_epoch_is_the_same_training(
    tmp_path: Path, make: Callable[[], nn.Module], momentum: float
) -> None:
    examples, c = make_examples(), config(epochs=4, momentum=momentum)
    net = make()
    records, signals = fit(tmp_path / "whole", net, examples, c, augmentation="crop_flip")
    for stop in range(4):
        folder = tmp_path / f"stopped{stop}"

        def interrupt(record: Any, n_epochs: int, stop: int = stop) -> None:
            if record["epoch"] == stop:
                raise Stop

        with pytest.raises(Stop):
            fit(folder, make(), examples, c, augmentation="crop_flip", progress=interrupt)
        torch.manual_seed(99)  # whatever was drawn between
        other = make()
        for parameter in other.parameters():
            nn.init.ones_(parameter)  # all of it must come from the checkpoint
        epochs: list[float] = []
        again, resumed = fit(
            folder,
            other,
            examples,
            c,
            augmentation="crop_flip",
            progress=lambda r, n, epochs=epochs: epochs.append(r["epoch"]),
        )
        assert epochs == list(range(stop + 1, 4))
        assert same(state(net), state(other))
        assert plain(again) == plain(records)
        for kind in KINDS:
            assert np.array_equal(resumed[kind], signals[kind], equal_nan=kind != "correct")


def test_dropout_depends_on_the_seed_and_not_on_what_ran_before(tmp_path: Path) -> None:
    examples, c = make_examples(), config(epochs=2)
    states = []
    for i, (seed, noise) in enumerate([(0, 1), (0, 2), (1, 1)]):
        net = Dropping()
        torch.manual_seed(noise)
        fit(tmp_path / str(i), net, part(examples, np.arange(45)), c, seed=seed)
        states.append(state(net))
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_training_that_diverges_says_so(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match=r"diverged in epoch \d of 3 .*lower lr \(now 1e\+30\)"):
        fit(tmp_path, make_net(), make_examples(), config(lr=1e30))


def test_a_last_step_that_diverges_is_noticed(tmp_path: Path) -> None:
    examples = make_examples(12)
    with pytest.raises(TrainingError, match="diverged in epoch 1 of 1"):
        fit(tmp_path, make_net(), examples, config(lr=1e39, epochs=1, warmup=0, batch_size=128))
    assert not (tmp_path / "checkpoint.safetensors").exists()


@pytest.mark.parametrize("where", ["parameter", "buffer"])
def test_a_net_that_is_no_longer_finite_is_no_result(
    where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training may look well while evaluation is broken: running statistics overflow before losses do."""

    class Overflows(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make_net()
            self.register_buffer("running", torch.zeros(2))
            self.unused = nn.Parameter(torch.zeros(2))
            self.epochs = 0

        def forward(self, x: Tensor) -> Tensor:
            if self.training and x.shape[0] == 45:  # one step an epoch
                self.epochs += 1
                if self.epochs == 3:
                    (self.running if where == "buffer" else self.unused.data)[0] = math.inf
            return self.net(x)

    with pytest.raises(TrainingError, match="diverged in epoch 3 of 4") as caught:
        fit(tmp_path, Overflows(), make_examples(), config(epochs=4, batch_size=64))
    # The last good state is kept, and the message says where.
    said = str(caught.value)
    assert f"the state after epoch 2 is kept in {tmp_path / 'checkpoint.safetensors'}" in said
    assert "\n" not in said
    kept = load_file(tmp_path / "checkpoint.safetensors")
    assert all(bool(value.isfinite().all()) for value in kept.values())


def test_only_settings_that_have_an_effect_are_proposed(tmp_path: Path) -> None:
    with pytest.raises(TrainingError, match="raise warmup"):
        fit(tmp_path / "a", make_net(), make_examples(), config(lr=1e30))
    with pytest.raises(TrainingError, match="lower lr") as caught:
        fit(tmp_path / "b", make_net(), make_examples(), config(lr=1e30, schedule="piecewise"))
    assert "warmup" not in str(caught.value)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def rewrite(change: Callable[[dict[str, Tensor]], Any] | None = None, records: Any = None) -> Callable[[Path], None]:
    """The same checkpoint, whole by itself, with other tensors or other records in it."""

    def damage(path: Path) -> None:
        tensors = load_file(path)
        with safe_open(path, framework="pt") as file:
            header = dict(file.metadata())
        if change is not None:
            change(tensors)
        save_file(tensors, path, header if records is None else {"records": json.dumps(records)})

    return damage


def without_records(path: Path) -> None:
    save_file(load_file(path), path)


def other_model(path: Path) -> None:
    fit(path.parent / "other", make_net(n_classes=5), make_examples(n_classes=5), config(epochs=1))
    (path.parent / "other" / path.name).replace(path)


FIRST = {"epoch": 0, "loss": 1.0, "accuracy": 0.5, "seconds": 1.0}


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (lambda path: path.write_bytes(b""), ""),
        (lambda path: path.write_bytes(path.read_bytes()[:100]), ""),
        (cut, ""),
        (lambda path: path.write_bytes(b"\xff" * 4000), ""),
        (without_records, "no records"),
        (rewrite(records={}), "no records"),
        (rewrite(records=[]), "no records"),
        (rewrite(records=[FIRST] * 9), "no records"),
        (rewrite(records=[{**FIRST, "epoch": 1}]), "no records"),
        (rewrite(records=[{**FIRST, "loss": "low"}]), "no records"),
        (rewrite(records=[3]), "no records"),
        (rewrite(records=[{"epoch": 0}]), "no records"),
        (rewrite(lambda tensors: tensors.pop("momentum.3")), "it lacks momentum.3"),
        (rewrite(lambda tensors: tensors.pop("model.head.weight")), "it lacks model.head.weight"),
        (rewrite(lambda tensors: tensors.update(more=torch.ones(1))), "more belongs to another model"),
        (
            rewrite(lambda tensors: tensors.update({"momentum.0": torch.ones(1)})),
            r"momentum.0 has shape \(1,\), not \(4, 3, 3, 3\)",
        ),
        (
            rewrite(lambda tensors: tensors.update({"model.head.bias": torch.ones(3).double()})),
            r"model.head.bias holds float64, not float32",
        ),
        (rewrite(lambda tensors: tensors["model.head.bias"].fill_(math.nan)), "model.head.bias is not finite"),
        (other_model, r"model.head.bias has shape \(5,\), not \(3,\)"),
    ],
)
def test_a_damaged_checkpoint_is_named(
    damage: Callable[[Path], Any], words: str, interrupted: Path, tmp_path: Path
) -> None:
    """And nothing of it is taken: neither the model nor the file is changed."""
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    path = tmp_path / "checkpoint.safetensors"
    damage(path)
    damaged, net = path.read_bytes(), make_net(seed=2)
    before = state(net)
    with pytest.raises(DataError, match=f"checkpoint {path} is damaged .*{words}.*; remove it to begin") as caught:
        fit(tmp_path, net, make_examples(), config(epochs=2))
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == damaged
    assert same(before, state(net))


@pytest.mark.parametrize("kind", KINDS)
def test_signals_that_were_lost_beside_a_checkpoint_are_noticed(interrupted: Path, tmp_path: Path, kind: str) -> None:
    """The epochs before it are not trained again: forgetting, or the area under the margin, would be counted without them."""
    shutil.copytree(interrupted, tmp_path, dirs_exist_ok=True)
    (tmp_path / "signals" / f"{kind}.npy").unlink()
    with pytest.raises(DataError, match=r"signals .* of the epochs before .* remove .*checkpoint.safetensors"):
        fit(tmp_path, make_net(), make_examples(), config(epochs=2))
    (tmp_path / "checkpoint.safetensors").unlink()
    records, _ = fit(tmp_path, make_net(), make_examples(), config(epochs=2))  # as it says
    assert len(records) == 2


def test_a_net_of_which_some_is_never_used_resumes(tmp_path: Path) -> None:
    """What has no gradient has no momentum: frozen weights, and those that no output depends on."""

    class Partly(Dropping):
        def __init__(self) -> None:
            super().__init__()
            self.frozen, self.unused = nn.Linear(2, 2).requires_grad_(False), nn.Linear(2, 2)

    examples, c = make_examples(), config(epochs=2)
    whole = Partly()
    fit(tmp_path / "whole", whole, examples, c)
    with pytest.raises(Stop):
        fit(tmp_path / "stopped", Partly(), examples, c, progress=stop)
    resumed = Partly()
    fit(tmp_path / "stopped", resumed, examples, c)
    assert same(state(whole), state(resumed))


def test_weights_come_back_from_their_file(tmp_path: Path) -> None:
    net, other = make_net(seed=1), make_net(seed=2)
    fit(tmp_path, net, make_examples(), config(epochs=1))
    checkpoints.save_weights(net, tmp_path / "model.safetensors")
    checkpoints.load_weights(other, tmp_path / "model.safetensors")
    assert same(state(net), state(other))
    with pytest.raises(DataError, match="cannot take weights"):
        checkpoints.load_weights(make_net(n_classes=4), tmp_path / "model.safetensors")
    with pytest.raises(DataError, match="cannot take weights"):
        checkpoints.load_weights(net, tmp_path / "none.safetensors")


class Tied(nn.Module):
    """One weight under two names."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(192, 192), nn.Linear(192, 192)
        self.b.weight = self.a.weight
        self.out = nn.Linear(192, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.b(self.a(x.flatten(1)).relu()))


def test_a_net_may_use_one_weight_twice(tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Tied()
    fit(tmp_path, net, make_examples(), config(epochs=1, lr=0.01))
    checkpoints.save_weights(net, tmp_path / "model.safetensors")
    other = Tied()
    checkpoints.load_weights(other, tmp_path / "model.safetensors")
    assert same(state(net), state(other))


# --- precision and layout -------------------------------------------------------------------------------------------------


def test_the_switches_change_results_by_rounding_only(tmp_path: Path) -> None:
    examples, c, found = make_examples(), config(epochs=2, lr=0.1), {}
    for name, compute in {
        "plain": FP32,
        "channels_last": replace(FP32, channels_last=True),
        "bf16": replace(FP32, precision="bf16"),
    }.items():
        net = make_net()
        compute.place(net)
        _, signals = fit(tmp_path / name, net, examples, c, compute=compute)
        assert all(p.dtype == torch.float32 for p in net.parameters())
        outputs = inference.predict(net, examples, compute, embeddings=True)
        assert outputs.probs.dtype == np.float32
        assert outputs.embeddings is not None
        assert outputs.embeddings.dtype == np.float32
        found[name] = signals["loss"][0].astype(float)
        stem = net.stem.weight  # type: ignore[union-attr]
        assert stem.is_contiguous(memory_format=compute.memory_format)  # type: ignore[operator]
    assert np.allclose(found["plain"], found["channels_last"], atol=0.02)
    assert np.allclose(found["plain"], found["bf16"], atol=0.3)
    assert not np.array_equal(found["plain"], found["bf16"])  # the switch does something


def test_logits_of_a_net_with_a_head_are_not_rounded_to_bf16() -> None:
    net, examples = make_net(), make_examples()
    compute = replace(FP32, precision="bf16")
    logits = torch.cat([found for _, found, _ in inference.score(net, examples, compute)])
    assert not torch.equal(logits, logits.bfloat16().float())


def test_nothing_of_torchs_own_state_is_left_changed() -> None:
    torch.manual_seed(7)
    before, threads = torch.random.get_rng_state(), torch.get_num_threads()
    with replace(FP32, threads=2).active():
        assert torch.get_num_threads() == 2
        torch.manual_seed(spawn_seed(0, "x"))
        torch.rand(3)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.get_num_threads() == threads


def test_scores_stay_finite_for_sure_nets() -> None:
    logits = torch.tensor([[1e9, -1e9], [0.0, 5000.0]])
    labels = torch.tensor([1, 0])
    values = inference.signal_values(logits, labels)
    assert torch.isfinite(values).all()
    assert math.isclose(float(values[4, 0]), math.sqrt(2), rel_tol=1e-6)
