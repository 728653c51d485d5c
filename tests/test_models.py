"""The nets of the table: the papers' sizes, one contract for all, weights from files, and the nets of other libraries."""

import pickle
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import svp
from svp.config import CoresetConfig, TrainConfig
from svp.data.base import Dataset
from svp.errors import DataError, MissingExtra, RunChanged, SettingError, UnknownName
from svp.learners import LEARNERS, Learner, find, make_learner
from svp.learners.checkpoints import save_weights
from svp.learners.compute import Compute
from svp.learners.libraries import TorchvisionNet
from svp.learners.resnet import PostBlock, projected
from tests import models_page
from tests.models_page import count_parameters

CPU = Compute("cpu", "fp32", channels_last=False, threads=1)
ROOT = Path(__file__).parents[1]
SIZES = {  # 10 classes, images of 32 pixels: from the papers' code
    "preact8": 77_850,
    "preact14": 175_066,
    "preact20": 272_282,
    "preact56": 855_578,
    "preact110": 1_730_522,
    "preact164": 1_703_258,
    "preact164-basic": 2_605_466,
    "resnet20": 272_474,
    "resnet32": 466_906,
    "resnet44": 661_338,
    "resnet56": 855_770,
    "resnet110": 1_730_714,
    "wrn-16-4": 2_748_890,
    "wrn-40-4": 8_949_210,
    "wrn-16-8": 10_961_370,
    "wrn-28-10": 36_479_194,
    "resnext29-8-64": 34_426_698,
    "resnext29-16-64": 68_155_210,
    "stochastic56": 853_018,
    "stochastic110": 1_727_962,
}
IMAGENET_SIZES = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}  # torchvision's pages
SMALLEST = (
    "preact8",
    "preact11-bottleneck",
    "wrn-10-2",
    "resnet8",
    "resnext11-2-4",
    "stochastic8",
    "resnet18",
    "resnet50-small",
    "patchnet",
)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def net(name: str, classes: int = 10, shape: tuple[int, ...] = (3, 32, 32), **settings: Any) -> nn.Module:
    made: nn.Module = find(TrainConfig(model=name, **settings)).make(classes, torch.zeros(shape))
    return made


def images(n: int = 24, classes: int = 3, side: int = 8) -> Dataset:
    rng = np.random.default_rng(0)
    x = rng.integers(0, 255, (n, side, side, 1), dtype=np.uint8)
    return Dataset.from_arrays(x, np.arange(n) % classes, test=(x[:6], np.arange(6) % classes), name="noise")


def learner(data: Dataset, seed: int = 0, **settings: Any) -> Learner:
    given = {"model": "preact8", "width": 0.25, "epochs": 3, "batch_size": 8, **settings}
    return make_learner(TrainConfig.make(given), data, seed=seed, compute=CPU)


IMAGENET = np.array([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])


def statistics(of: Any) -> Any:
    """(2, c) mean and deviation that it takes from its inputs."""
    return np.stack(of._statistics)


def state(of: Any) -> dict[str, Tensor]:
    found: dict[str, Tensor] = of._model.state_dict()
    return found


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


# --- sizes and names ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "n_parameters"), SIZES.items())
def test_sizes_are_those_of_the_papers(name: str, n_parameters: int) -> None:
    assert models_page.facts(name)[0] == n_parameters


def torchvision_state(depth: int) -> dict[str, tuple[int, ...]]:
    """Names and shapes of torchvision's ResNets of 1,000 classes, written out from its documentation."""
    blocks = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}[depth]
    found: dict[str, tuple[int, ...]] = {}

    def conv_and_norm(conv: str, norm: str, n_in: int, n_out: int, size: int) -> None:
        found[f"{conv}.weight"] = (n_out, n_in, size, size)
        for part in ("weight", "bias", "running_mean", "running_var"):
            found[f"{norm}.{part}"] = (n_out,)
        found[f"{norm}.num_batches_tracked"] = ()

    conv_and_norm("conv1", "bn1", 3, 64, 7)
    n_in = 64
    for layer, n_blocks in enumerate(blocks, 1):
        inner = 32 * 2**layer
        n_out = inner if depth < 50 else 4 * inner
        for i in range(n_blocks):
            at = f"layer{layer}.{i}"
            sizes = [(n_in, inner, 3), (inner, inner, 3)]
            if depth >= 50:
                sizes = [(n_in, inner, 1), (inner, inner, 3), (inner, n_out, 1)]
            for k, (a, b, size) in enumerate(sizes, 1):
                conv_and_norm(f"{at}.conv{k}", f"{at}.bn{k}", a, b, size)
            if i == 0 and (layer > 1 or depth >= 50):
                conv_and_norm(f"{at}.downsample.0", f"{at}.downsample.1", n_in, n_out, 1)
            n_in = n_out
    return {**found, "fc.weight": (1000, n_in), "fc.bias": (1000,)}


@pytest.mark.parametrize("depth", IMAGENET_SIZES)
def test_weights_of_the_nets_for_imagenet_are_called_as_in_torchvision(depth: int) -> None:
    with torch.device("meta"):
        made = net(f"resnet{depth}", 1000, (3, 224, 224))
        assert {key: tuple(value.shape) for key, value in made.state_dict().items()} == torchvision_state(depth)
        assert count_parameters(made) == IMAGENET_SIZES[depth]
        small = net(f"resnet{depth}-small", 1000, (3, 224, 224))
        assert small.state_dict().keys() == made.state_dict().keys()


def test_depth_counts_the_layers_on_the_longest_path() -> None:
    for name, depth in (("resnet20", 20), ("stochastic56", 56), ("resnext29-8-64", 29), ("resnet101", 101)):
        with torch.device("meta"):
            blocks = [module for module in net(name).modules() if isinstance(module, PostBlock)]
        assert 2 + sum(block._n_convolutions for block in blocks) == depth
    with torch.device("meta"):
        convolutions = [m for m in net("wrn-28-10").modules() if isinstance(m, nn.Conv2d)]
    assert (
        sum(conv.kernel_size == (3, 3) for conv in convolutions) + 3 == 28
    )  # with its shortcuts, as its authors count


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("resnet21", ["6n + 2", "20 and 26", "18, 34, 50, 101, 152"]),
        ("resnet2", ["8 and 14"]),
        ("wrn-17-4", ["6n + 4", "16 and 22"]),
        ("wrn-16-0", ["wrn-16-4"]),
        ("resnext30-8-64", ["9n + 2", "29 and 38"]),
        ("resnext29-0-64", ["resnext29-8-64"]),
        ("stochastic57", ["56 and 62"]),
    ],
)
def test_depths_that_cannot_be_built_name_the_nearest(name: str, words: list[str]) -> None:
    with pytest.raises(SettingError) as caught:
        net(name)
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("wrn28-10", "wrn-28-10"),
        ("resnet-20", "resnet20"),
        ("patchnt", "patchnet"),
        ("resnext29-8x64", "resnext29-8-64"),
        ("peact20", "preact20"),
        ("logistics", "logistic"),
    ],
)
def test_unknown_names_name_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"did you mean '{near}'"):
        find(TrainConfig(model=name))


def test_every_name_of_the_table_is_found_by_its_own_row() -> None:
    for row in LEARNERS.values():
        for name in row.names:
            made = find(TrainConfig(model=name)).make
            assert not row.is_net or made.args[0] == row.maker, name


# --- one contract for all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALLEST)
def test_a_net_gives_logits_that_are_the_head_of_its_features_and_every_weight_learns(name: str) -> None:
    torch.manual_seed(0)
    made: Any = net(name, 7, (2, 16, 12), width=0.25)
    x = torch.randn(4, 2, 16, 12)
    made.train()
    for _ in range(2):  # a block left out gives gradients too
        made.zero_grad()
        made(x).square().sum().backward()
        assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
    made.eval()
    with torch.no_grad():
        features = made.features(x)
        assert features.ndim == 2
        assert features.min() >= 0  # after the last ReLU
        assert torch.equal(made(x), made.head(features))
        assert made(x).shape == (4, 7)


@pytest.mark.parametrize("name", SMALLEST)
def test_width_multiplies_every_layer(name: str) -> None:
    def outputs(width: float) -> list[int]:
        with torch.device("meta"):
            return [m.out_channels for m in net(name, width=width).modules() if isinstance(m, nn.Conv2d)]

    assert outputs(2) == [8 * channels for channels in outputs(0.25)]
    assert min(outputs(0.001)) > 0


def test_patches_and_depth_are_options() -> None:
    with torch.device("meta"):
        deep = net("patchnet", options={"depth": 2, "patch": 4})
        assert count_parameters(deep) > count_parameters(net("patchnet", options={"patch": 4}))
        assert deep.body[0](torch.zeros(1, 3, 64, 64)).shape == (1, 32, 16, 16)  # type: ignore[index, operator]
    for options, words in (
        ({"patch": 0}, "patch must be a whole number, 1 or more; got 0"),
        ({"depth": "deep"}, "depth must be a whole number"),
        ({"dept": 1}, "takes the options patch, depth, not 'dept'"),
    ):
        with pytest.raises(SettingError, match=words):
            net("patchnet", options=options)


# --- stochastic depth -----------------------------------------------------------------------------------------------------


def test_blocks_survive_less_the_deeper_they_are() -> None:
    blocks = [module for module in net("stochastic20").modules() if isinstance(module, PostBlock)]
    assert np.allclose([block.survival for block in blocks], 1 - np.arange(1, 10) / 18)


def test_a_block_is_left_out_kept_or_at_rest_counted_by_its_chance() -> None:
    x = torch.randn(2, 2, 4, 4, generator=torch.Generator().manual_seed(0))

    def block(survival: float) -> PostBlock:
        torch.manual_seed(1)
        return PostBlock([nn.Conv2d(2, 4, 3, 2, padding=1)], projected(2, 4, 2), survival)

    whole, never, half = block(1.0), block(1e-9), block(0.5)
    assert torch.equal(never(x), never.downsample(x).relu())  # type: ignore[misc]
    never(x).sum().backward()
    assert all(p.grad is not None for p in never.parameters())
    assert not never.conv1.weight.grad.any()  # type: ignore[union-attr, operator]
    seen = {bool(torch.equal(half(x), whole(x))) for _ in range(30)}
    assert seen == {True, False}
    for b in (half.eval(), whole.eval()):
        b.load_state_dict(block(1.0).state_dict())
    residual = whole.bn1(whole.conv1(x))  # type: ignore[operator]
    assert torch.allclose(half(x), (0.5 * residual + half.downsample(x)).relu())  # type: ignore[misc]


def test_a_compiled_net_of_stochastic_depth_is_one_piece_and_draws_as_a_plain_one() -> None:
    plain = net("stochastic8", width=0.25)
    compiled: Any = torch.compile(plain, backend="eager", fullgraph=True)  # an error where it would fall to pieces
    x, gradients = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(0)), []
    for run in (plain, compiled):
        torch.manual_seed(2)
        plain.zero_grad()
        run(x).square().sum().backward()
        gradients.append([p.grad.clone() for p in plain.parameters() if p.grad is not None])
    assert len(gradients[0]) == len(list(plain.parameters()))
    assert any(not gradient.any() for gradient in gradients[0])  # some block was left out
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(*gradients, strict=True))


class Stop(BaseException):
    pass


def test_stochastic_depth_resumes_to_the_same_weights(tmp_path: Path) -> None:
    data = images()
    assert data.labels is not None

    def interrupt(record: Any, n_epochs: int) -> None:
        raise Stop

    whole, killed, resumed = (learner(data, model="stochastic14") for _ in range(3))
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    whole.fit(data, data.ids, data.labels, folder=tmp_path / "whole")
    with pytest.raises(Stop):
        killed.fit(data, data.ids, data.labels, folder=tmp_path / "killed", progress=interrupt)
    torch.manual_seed(99)  # whatever was drawn between
    resumed.fit(data, data.ids, data.labels, folder=tmp_path / "killed")
    assert same(state(whole), state(resumed))
    assert not same(state(whole), state(killed))


# --- weights from a file --------------------------------------------------------------------------------------------------


def test_weights_begin_where_another_training_ended_but_for_another_head(tmp_path: Path) -> None:
    data, more = images(), images(classes=4)
    before = learner(data, seed=5)
    save_weights(before._model, tmp_path / "w.safetensors")  # type: ignore[attr-defined]
    again = learner(data, weights=tmp_path / "w.safetensors")
    assert same(state(again), state(before))
    assert again.initial_weights is not None
    assert again.initial_weights.startswith("sha256:")
    drawn, other = learner(more), learner(more, weights=tmp_path / "w.safetensors")
    for key, value in state(other).items():
        assert torch.equal(value, state(drawn if key.startswith("head.") else before)[key])
    assert drawn.initial_weights is None


def test_a_file_for_imagenet_fits_other_classes_and_needs_no_head(tmp_path: Path) -> None:
    weights = {k: v for k, v in net("resnet18", 5, (1, 8, 8), width=0.25).state_dict().items() if "fc." not in k}
    counted = [key for key in weights if "num_batches" not in key]  # older files count no batches
    save_file({key: weights[key].contiguous() for key in counted}, tmp_path / "w.safetensors")
    taken = state(learner(images(), model="resnet18", weights=tmp_path / "w.safetensors"))
    assert all(torch.equal(taken[key], weights[key]) for key in counted)


def test_weights_that_do_not_fit_name_what_does_not(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    weights = state(learner(images()))
    lacking = {key: value for key, value in weights.items() if key != "stem.weight"}
    cases = [
        ({**lacking, "conv1.weight": weights["stem.weight"]}, ["lacks stem.weight", "has beside conv1.weight"]),
        ({**weights, "stem.weight": torch.zeros(3, 1, 3, 3)}, ["stem.weight (3, 1, 3, 3) for (4, 1, 3, 3)"]),
        ({"x": torch.zeros(1)}, ["lacks stem.weight, ", " more", "does not fit preact8", "has beside x"]),
    ]
    for tensors, words in cases:
        save_file({key: value.contiguous() for key, value in tensors.items()}, path)
        with pytest.raises(DataError) as caught:
            learner(images(), weights=path)
        for word in (str(path), *words):
            assert word in str(caught.value)
    with pytest.raises(DataError, match=r"cannot read the weights .*No such file"):
        learner(images(), weights=tmp_path / "missing.safetensors")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e300])  # the last as float64, which overflows
def test_weights_that_are_not_finite_are_counted_by_tensor(tmp_path: Path, value: float) -> None:
    path = tmp_path / "w.safetensors"
    weights = {key: value.contiguous() for key, value in state(learner(images())).items()}
    weights["stem.weight"] = weights["stem.weight"].double()
    weights["stem.weight"].view(-1)[[1, 7]] = value
    save_file(weights, path)
    n = weights["stem.weight"].numel()
    with pytest.raises(DataError, match=f"w.safetensors has values that are not finite: stem.weight \\(2 of {n}\\);"):
        learner(images(), weights=path)
    # A head that is left out may hold anything.
    weights = {**weights, "stem.weight": torch.zeros_like(weights["stem.weight"])}
    weights["head.weight"] = torch.full((7, weights["head.weight"].shape[1]), value, dtype=torch.float64)
    save_file(weights, path)
    learner(images(), weights=path)


def test_a_pickle_is_refused_unread(tmp_path: Path) -> None:
    class Bomb:
        def __reduce__(self) -> Any:
            return Path.touch, (tmp_path / "ran",)

    (tmp_path / "w.pth").write_bytes(pickle.dumps(Bomb()))
    torch.save(state(learner(images())), tmp_path / "w.pt")
    for name in ("w.pth", "w.pt"):
        with pytest.raises(DataError, match=r"pickle, which can run code when read; convert it once: safetensors"):
            learner(images(), weights=tmp_path / name)
    assert not (tmp_path / "ran").exists()


def test_a_run_keeps_what_it_began_with_and_refuses_another_file(tmp_path: Path) -> None:
    data, path = images(), tmp_path / "w.safetensors"
    save_weights(learner(data, seed=1)._model, path)  # type: ignore[attr-defined]
    tiny = TrainConfig(model="preact8", width=0.25, epochs=1, batch_size=8)
    began = tiny.model_copy(update={"weights": path})
    config = CoresetConfig(dataset="noise", method="margin", budget=6, proxy=began, target=tiny)
    run = svp.coreset(config, data, out=tmp_path / "run")
    marks = {mark.parent.name: mark.read_text() for mark in (tmp_path / "run").rglob("begun.json")}
    with_weights = [name for name, text in marks.items() if '"initial_weights": "sha256:' in text]
    assert len(with_weights) == 1
    assert svp.coreset(config, data, out=tmp_path / "run").selection.ids.tolist() == run.selection.ids.tolist()
    save_weights(learner(data, seed=2)._model, path)  # type: ignore[attr-defined]
    before = (tmp_path / "run" / "config.toml").read_bytes()
    with pytest.raises(RunChanged, match=r"proxy.weights was sha256:"):
        svp.coreset(config, data, out=tmp_path / "run")
    with pytest.raises(RunChanged, match=r"proxy.weights was sha256:.*, is now not set"):
        svp.coreset(config.model_copy(update={"proxy": tiny}), data, out=tmp_path / "run")
    assert (tmp_path / "run" / "config.toml").read_bytes() == before


def test_a_run_goes_on_with_a_file_of_weights_that_was_moved(tmp_path: Path) -> None:
    data, path = images(), tmp_path / "w.safetensors"
    save_weights(learner(data, seed=1)._model, path)  # type: ignore[attr-defined]
    tiny = {"model": "preact8", "width": 0.25, "epochs": 1, "batch_size": 8}

    def run(weights: Path) -> Any:
        features = {"source": "preact8", "width": 0.25, "weights": weights}
        proxy = {"model": "linear", "features": features, "epochs": 1}
        values = {"dataset": "noise", "method": "margin", "budget": 6, "target": {**tiny, "weights": weights}}
        compute = {"device": "cpu", "precision": "fp32", "threads": 1}
        return svp.coreset(
            CoresetConfig.make({**values, "proxy": proxy, "compute": compute}), data, out=tmp_path / "run"
        )

    run(path)
    moved = path.rename(tmp_path / "elsewhere.safetensors")
    before = {mark: mark.read_bytes() for mark in (tmp_path / "run").rglob("done.json")}
    again = run(moved)
    assert {mark: mark.read_bytes() for mark in (tmp_path / "run").rglob("done.json")} == before
    assert CoresetConfig.load(again.folder / "config.toml").target.weights == moved
    save_weights(learner(data, seed=2)._model, moved)  # type: ignore[attr-defined]
    with pytest.raises(RunChanged, match=r"proxy.features.weights was sha256:.*target.weights was sha256:"):
        run(moved)


def test_inputs_are_normalised_as_those_that_the_weights_learned_from(tmp_path: Path) -> None:
    """Not by the mean and deviation of this data: a net that says so in its file gives the same of the same image."""
    data = images()
    assert data.labels is not None
    before = learner(data, seed=5)
    before.fit(data, data.ids, data.labels, folder=tmp_path)
    darker = replace(data, inputs=data.inputs // 4, test=None)
    began = learner(darker, weights=tmp_path / "model.safetensors")
    assert np.array_equal(began.predict(darker, darker.ids).probs, before.predict(darker, darker.ids).probs)
    own = learner(darker, weights=tmp_path / "model.safetensors", normalize="data")
    assert not np.array_equal(own.predict(darker, darker.ids).probs, before.predict(darker, darker.ids).probs)
    save_weights(before._model, tmp_path / "silent.safetensors")  # type: ignore[attr-defined]
    silent = learner(darker, weights=tmp_path / "silent.safetensors")
    assert np.array_equal(silent.predict(darker, darker.ids).probs, own.predict(darker, darker.ids).probs)


def test_inputs_can_be_normalised_as_those_of_imagenet() -> None:
    rng = np.random.default_rng(0)
    photos = rng.integers(0, 255, (12, 8, 8, 3), dtype=np.uint8)
    of_bytes = Dataset.from_arrays(photos, np.arange(12) % 3)
    of_floats = Dataset.from_arrays(photos.astype(np.float32) / 255, np.arange(12) % 3)
    assert statistics(learner(of_bytes, normalize="imagenet")) == pytest.approx(255 * IMAGENET)
    assert statistics(learner(of_floats, normalize="imagenet")) == pytest.approx(IMAGENET)
    a, b = (learner(data, normalize="imagenet").predict(data, data.ids).probs for data in (of_bytes, of_floats))
    assert np.allclose(a, b, atol=1e-5)
    with pytest.raises(SettingError, match=r"normalize = imagenet is for images of 3 channels; .* noise have 1"):
        learner(images(), normalize="imagenet")


def test_classifiers_take_no_weights(tmp_path: Path) -> None:
    with pytest.raises(SettingError, match="weights"):
        learner(images(), model="logistic", width=1.0, epochs=40, batch_size=128, weights=tmp_path / "w.safetensors")


# --- other libraries: stand-ins with the functions that these document --------------------------------------------------------


class Foreign(nn.Module):
    """A net as timm and torchvision make them."""

    def __init__(self, num_classes: int = 1000, in_chans: int = 1, fc: bool = True) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_chans, 4, 3)
        if fc:
            self.fc = nn.Linear(4, num_classes)

    def forward_features(self, x: Tensor) -> Tensor:
        out: Tensor = self.conv(x)
        return out

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        pooled = x.mean(dim=(2, 3))
        return pooled if pre_logits else self.get_classifier()(pooled)

    def get_classifier(self) -> nn.Module:
        return self.fc

    def forward(self, x: Tensor) -> Tensor:
        pooled = self.conv(x).mean(dim=(2, 3))
        return self.fc(pooled) if hasattr(self, "fc") else pooled[:, :3]


def create_model(name: str, pretrained: bool = False, **arguments: Any) -> nn.Module:
    if name != "foreign":
        raise RuntimeError(f"Unknown model ({name})")
    return Foreign(**arguments)


SEEN = {"mean": (0.5, 0.4, 0.3), "std": (0.1, 0.2, 0.3)}  # of the images that their weights learned from
PRESET = SimpleNamespace(transforms=lambda: SimpleNamespace(**SEEN))
TIMM = SimpleNamespace(
    create_model=create_model, data=SimpleNamespace(resolve_model_data_config=lambda net: {"input_size": 8, **SEEN})
)


def get_model(name: str, weights: str | None = None, **arguments: Any) -> nn.Module:
    return Foreign(**arguments)


@pytest.mark.parametrize("library", ["timm", "torchvision"])
def test_a_library_that_cannot_be_imported_is_one_line(library: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(
        MissingExtra, match=f"{library}:resnet18 needs {library}, which cannot be imported here"
    ) as caught:
        learner(images(), model=f"{library}:resnet18", width=1.0)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "header", ["mean 0.5", "[[0.5]]", "[[0.5], [1, 2]]", '[["a"], [1]]', "[[0], [NaN]]", "3", "[1, 2]"]
)
def test_what_a_foreign_header_says_of_inputs_is_checked(header: str, tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    save_file({k: v.contiguous() for k, v in state(learner(images())).items()}, path, {"svp.statistics": header})
    with pytest.raises(DataError, match=r"w\.safetensors: the entry svp\.statistics of its header is not two lists"):
        learner(images(), weights=path)


@pytest.mark.parametrize(
    ("library", "pretrained"), [("timm", {"pretrained": True}), ("torchvision", {"weights": "DEFAULT"})]
)
def test_nets_of_libraries_split_train_and_say_what_they_began_with(
    library: str, pretrained: dict[str, Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    models = SimpleNamespace(get_model=get_model, get_model_weights=lambda name: {"DEFAULT": PRESET})
    monkeypatch.setitem(sys.modules, "timm", TIMM)
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    data = images()
    assert data.labels is not None
    plain = learner(data, model=f"{library}:foreign", width=1.0)
    assert plain.gives == {"signals", "embeddings"}
    assert plain.initial_weights is None
    plain.fit(data, data.ids, data.labels, folder=tmp_path)
    outputs = plain.predict(data, data.ids, embeddings=True)
    assert outputs.probs.shape == (24, 3)
    assert outputs.embeddings is not None
    assert outputs.embeddings.shape == (24, 4)
    told = learner(data, model=f"{library}:foreign", width=1.0, options=pretrained)
    assert told.initial_weights is not None
    assert told.initial_weights.startswith(f"{library}:foreign ")
    assert state(told)["net.fc.weight"].shape == (3, 4)
    assert np.array_equal(statistics(told), statistics(plain))  # one channel, where the library knows of three
    photos = Dataset.from_arrays(np.tile(data.inputs, 3), data.labels)
    options = {**pretrained, "in_chans": 3}
    told = learner(photos, model=f"{library}:foreign", width=1.0, options=options)
    assert statistics(told) == pytest.approx(255 * np.array([SEEN["mean"], SEEN["std"]]))
    drawn = learner(photos, model=f"{library}:foreign", width=1.0, options={"in_chans": 3})
    own = learner(photos, model=f"{library}:foreign", width=1.0, options=options, normalize="data")
    for made in (drawn, own):
        assert statistics(made) == pytest.approx(np.stack(photos.statistics), rel=1e-5)
    save_file({k.removeprefix("net."): v.contiguous() for k, v in state(plain).items()}, tmp_path / "w.safetensors")
    began = learner(data, model=f"{library}:foreign", width=1.0, weights=tmp_path / "w.safetensors")
    assert same(state(began), state(plain))
    with pytest.raises(SettingError, match="width is for the nets of svp"):
        learner(data, model=f"{library}:foreign")
    with pytest.raises(SettingError, match="TypeError"):
        learner(data, model=f"{library}:foreign", width=1.0, options={"colour": "red"})


def test_a_net_of_torchvision_without_a_linear_layer_gives_no_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    models = SimpleNamespace(get_model=lambda name, num_classes: Foreign(fc=False))
    monkeypatch.setitem(sys.modules, "torchvision", SimpleNamespace(models=models))
    monkeypatch.setitem(sys.modules, "torchvision.models", models)
    made = learner(images(), model="torchvision:squeezed", width=1.0)
    assert not isinstance(made._model, TorchvisionNet)  # type: ignore[attr-defined]
    assert made.gives == {"signals"}


# --- the page -------------------------------------------------------------------------------------------------------------


def test_the_page_of_models_is_true() -> None:
    page = models_page.PAGE.read_text(encoding="utf-8")
    assert page == models_page.filled(page), "write it anew: python -m tests.models_page"


def test_the_page_of_models_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    for block in models_page.examples():
        exec(compile(block, "models.md", "exec"), names)
    assert names["run"].selection.ids.shape == (60,)
