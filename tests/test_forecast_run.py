"""What a run will take, said before it: held against what runs then train."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import svp
from svp.cli import main
from svp.config import ActiveConfig, CoresetConfig, TrainConfig
from svp.data.base import Dataset
from svp.errors import BudgetError, MissingInput, SettingError
from svp.workflows import timing
from svp.workflows.active import active
from svp.workflows.coreset import coreset
from svp.workflows.forecast import forecast_run
from svp.workflows.timing import Times
from tests.test_workflows import LOGISTIC, NET, TARGET, Training, act, core, make_data, trained

__all__ = ["trained"]  # the fixture


@pytest.fixture(scope="module")
def data() -> Dataset:
    return make_data()


@pytest.fixture
def a_second_an_example(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every example that is shown in training takes a second, every other pass none."""

    def timed(config: TrainConfig, *_: Any) -> Times:
        return Times(config, [(1.0, 1.0)], 0.0, 0.0)

    monkeypatch.setattr(timing, "_timed", timed)


CORESETS: dict[str, dict[str, Any]] = {
    "plain": {},
    "controls": {"control": ("random", "full"), "seeds": 2},
    "cut short": {"control": ("short", "full"), "budget": 20, "target": {**TARGET, "epochs": 5}},
    "equal steps": {"control": ("random", "full"), "equal": ("epochs", "steps"), "budget": 10},
    "several proxies": {"proxy": {**NET, "seeds": 3}},
    "held out": {"method": "margin", "proxy": {**NET, "validation": 0.2}, "target": {**TARGET, "validation": 0.1}},
    "few steps": {"proxy": {**NET, "min_steps": 30}, "target": {**TARGET, "min_steps": 20}},
    "itself": {"proxy": NET, "target": NET, "control": ("full",)},
    "chance": {"method": "random"},
}
ACTIVES: dict[str, dict[str, Any]] = {
    "plain": {},
    "controls": {"control": ("random", "target"), "seeds": 2, "evaluate": [20, 28]},
    "itself": {"proxy": NET, "target": NET, "control": ("random", "target"), "evaluate": [12, 28]},
    "several proxies": {"proxy": {**NET, "seeds": 2}},
    "of the round before": {
        "proxy": {"model": "linear", "epochs": 3, "batch_size": 16, "min_steps": 0, "features": {"source": "previous"}},
        "labelled": [12, 16, 20, 24, 28],
        "evaluate": [16, 20, 24, 28],
        "control": ("random",),
    },
    "chance": {"method": "random"},
}


WORKFLOWS = [(coreset, core, name, settings) for name, settings in CORESETS.items()]
WORKFLOWS += [(active, act, name, settings) for name, settings in ACTIVES.items()]


@pytest.mark.parametrize(
    ("go", "make", "settings"),
    [(go, make, settings) for go, make, _, settings in WORKFLOWS],
    ids=[f"{go.__name__}-{name}" for go, _, name, _ in WORKFLOWS],
)
@pytest.mark.usefixtures("a_second_an_example")
def test_a_run_shows_what_was_foreseen(
    go: Any, make: Any, settings: dict[str, Any], data: Dataset, tmp_path: Path, trained: list[Training]
) -> None:
    config = make(**settings)
    expected = forecast_run(config, data)
    assert not trained
    go(config, data, out=tmp_path / "run")
    assert expected.seconds == sum(training.n * training.epochs for training in trained)
    assert sum(part.trainings for part in expected.parts if part.asked) == len(trained)


def test_frozen_features_are_made_once_and_count_on_every_side_that_sees_them(
    data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(timing, "_timed", lambda config, *_: Times(config, [(1.0, 0.0)], 0.0, 1.0))
    np.save(tmp_path / "e.npy", np.zeros((len(data), 5)))
    np.save(tmp_path / "t.npy", np.zeros((24, 5)))
    seen = {"model": "logistic", "features": {"source": str(tmp_path / "e.npy"), "test": str(tmp_path / "t.npy")}}
    for settings, own, against in (
        ({"proxy": seen}, 64, 0),
        ({"proxy": seen, "target": seen}, 64, 64),
        ({"proxy": LOGISTIC, "target": seen}, 64, 64),
    ):
        expected = forecast_run(core(method="margin", seeds=2, **settings), data)
        assert (expected.seconds, expected.own, expected.against) == (64, own, against)


def test_what_is_not_asked_for_is_compared_with_and_not_counted(data: Dataset) -> None:
    alone, controlled = forecast_run(core(), data), forecast_run(core(control=["full"]), data)
    (full,) = [part for part in alone.parts if not part.asked]
    assert full.what.endswith("everything")
    assert alone.against is not None
    assert len(alone.parts) == len(controlled.parts)
    assert all(part.asked for part in controlled.parts)
    assert set(alone.facts()) == {"workflow", "seconds", "own", "against", "parts"}


@pytest.mark.parametrize("features", [None, "file", "headed"])
def test_models_are_timed_as_they_are(features: str | None, data: Dataset, tmp_path: Path) -> None:
    """Classifiers and nets, on the inputs and on frozen features; nothing is written."""
    np.save(tmp_path / "e.npy", np.random.default_rng(0).normal(size=(len(data), 5)))
    np.save(tmp_path / "test.npy", np.random.default_rng(1).normal(size=(24, 5)))
    source: dict[str, Any] = {
        "file": {"features": {"source": str(tmp_path / "e.npy"), "test": str(tmp_path / "test.npy")}},
        "headed": {"model": "linear", "features": {"source": "previous"}, "epochs": 2, "batch_size": 16},
    }
    proxy = source["headed"] if features == "headed" else {**LOGISTIC, **source.get(features or "", {})}
    settings = {"proxy": proxy, "method": "margin"}
    expected = forecast_run(act(**settings) if features == "headed" else core(**settings), data)
    assert all(part.seconds > 0 for part in expected.parts)
    assert not list(tmp_path.glob("runs"))


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: core(budget=65), BudgetError),
        (lambda: act(labelled=[12, 20], evaluate=[14]), SettingError),
        (lambda: core(proxy={"model": "logistic"}), MissingInput),
    ],
)
def test_what_the_run_would_refuse_is_refused(
    make: Callable[[], CoresetConfig | ActiveConfig], named: type[Exception], data: Dataset
) -> None:
    with pytest.raises(named):
        forecast_run(make(), data)


def test_the_command_says_how_long_and_writes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    given = ["coreset", "digits", "--proxy.model", "logistic", "--target.model", "logistic", "--method", "margin"]
    main([*given, "--forecast", "--quiet"])
    printed = capsys.readouterr().out
    assert "In all" in printed
    assert "training on everything" in printed
    main([*given, "--forecast", "--quiet", "--json"])
    facts = json.loads(capsys.readouterr().out)
    assert facts["seconds"] == pytest.approx(sum(part["seconds"] for part in facts["parts"] if part["asked"]))
    assert not list(tmp_path.iterdir())
    assert svp.forecast_run is forecast_run
