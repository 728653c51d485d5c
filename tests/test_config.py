"""Settings: frozen values, refused in one line when they make no sense, and the same after a trip through a file."""

import json
import tomllib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp.config import ActiveConfig, Config, CoresetConfig, RunConfig, SessionConfig, TrainConfig, changes, merge
from svp.errors import DataError, SettingError, SvpError, UnknownName
from svp.learners import settle
from svp.learners.epochs import held_out, n_epochs, shown, steps_per_epoch
from tests.characters import CONTROL, PLAIN

TRY = settings(derandomize=True, deadline=None, max_examples=80)


def refusal(kind: type[SvpError], cls: type[Config], **values: Any) -> str:
    with pytest.raises(kind) as caught:
        cls.make(values)
    message = str(caught.value)
    assert "\n" not in message
    return message


# --- to a file and back ---------------------------------------------------------------------------------------------------

TEXT = st.text(PLAIN + CONTROL, max_size=12)
NUMBERS = st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
OPTIONS = st.dictionaries(
    TEXT,
    st.recursive(
        TEXT | NUMBERS | st.booleans(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
        max_leaves=6,
    ),
    max_size=4,
)
POSITIVE = st.floats(1e-12, 1e12)
TRAIN = st.fixed_dictionaries(
    {},
    optional={
        "model": TEXT,
        "options": OPTIONS,
        "width": POSITIVE,
        "epochs": st.integers(1, 10**6),
        "lr": POSITIVE,
        "schedule": st.sampled_from(["one_cycle", "piecewise"]),
        "phases": st.lists(st.tuples(POSITIVE, POSITIVE), min_size=1, max_size=3),
        "momentum": st.floats(0, 0.999),
        "record": st.sampled_from(["train", "plain"]),
    },
)
AMOUNT = st.integers(0, 10**9) | st.floats(0, 1) | st.sampled_from(["10%", "0.5", "2000"])
CORESET = st.fixed_dictionaries(
    {"dataset": TEXT},
    optional={
        "data": TEXT.map(Path),
        "proxy": TRAIN,
        "target": TRAIN,
        "options": OPTIONS,
        "budget": AMOUNT,
        "control": st.lists(st.sampled_from(["random", "full", "short"]), max_size=3, unique=True),
        "seed": st.integers(0, 2**40),
    },
)
ACTIVE = st.fixed_dictionaries(
    {"dataset": TEXT, "labelled": st.lists(AMOUNT, min_size=2, max_size=3)}, optional={"proxy": TRAIN}
)


@TRY
@given(CORESET.map(CoresetConfig.make) | ACTIVE.map(ActiveConfig.make))
def test_a_file_gives_the_same_configuration_back(config: RunConfig) -> None:
    again = type(config).make(tomllib.loads(config.to_toml().encode().decode()))
    assert again == config
    assert again.flat() == config.flat()
    assert again.digest() == config.digest()


def test_whole_numbers_and_shares_stay_what_they_are(tmp_path: Path) -> None:
    # 1 is one example, 1.0 is all of them: a file must not turn one into the other.
    for value in (1, 1.0, "1", "100%"):
        path = tmp_path / "config.toml"
        path.write_text(CoresetConfig.make({"dataset": "d", "budget": value}).to_toml())
        read = CoresetConfig.load(path).budget
        assert (read, type(read)) == (value, type(value))
    totals = ActiveConfig.make({"dataset": "d", "labelled": [1, 1.0, "1%"]}).labelled
    assert [type(total) for total in totals] == [int, float, str]


def test_numbers_of_numpy_are_counts_and_shares_too() -> None:
    import numpy as np

    for number, kept in ((np.int64(30), 30), (np.int32(1), 1), (np.float32(0.5), 0.5)):
        budget = CoresetConfig(dataset="d", budget=number).budget
        assert (budget, type(budget)) == (kept, type(kept))
    for totals in ([20, np.int64(40)], np.array([20, 40])):
        labelled = ActiveConfig(dataset="d", labelled=totals).labelled
        assert labelled == (20, 40)
        assert {type(total) for total in labelled} == {int}


def test_what_was_given_is_told_from_what_was_filled_in() -> None:
    config = CoresetConfig.make({"dataset": "d", "proxy": {"model": "knn", "features": "a.npy"}, "compute": {}})
    assert config.proxy.epochs == 15
    assert config.proxy.model_fields_set == {"model", "features"}
    assert config.compute.model_fields_set == set()
    assert config.model_fields_set == {"dataset", "proxy", "compute"}
    assert CoresetConfig.make({"dataset": "d", "proxy": config.proxy}).proxy.model_fields_set == {"model", "features"}
    assert CoresetConfig(dataset="d", proxy={"epochs": 15}).proxy.model_fields_set == {"epochs"}


def test_overrides_win_table_by_table(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    path.write_text('dataset = "digits"\n[proxy]\nepochs = 3\nlr = 0.5\n')
    config = CoresetConfig.load(path, {"proxy": {"epochs": 7}, "seed": 4})
    assert (config.proxy.epochs, config.proxy.lr, config.seed, config.dataset) == (7, 0.5, 4, "digits")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (None, "No such file or directory; put it back, or name another file"),
        (b"a = ", "not valid TOML: .*; mend that line"),
        (b"\xff\xfe", "cannot read .*; save it as UTF-8"),
        (b"a = 1\na = 2\n", "not valid TOML"),
    ],
)
def test_a_file_that_cannot_be_read_is_named_in_one_line(tmp_path: Path, content: bytes | None, words: str) -> None:
    path = tmp_path / "config.toml"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=words) as caught:
        CoresetConfig.load(path)
    assert str(caught.value).count(str(path)) == 1
    assert "\n" not in str(caught.value)


def test_a_folder_is_no_configuration(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot read the configuration"):
        CoresetConfig.load(tmp_path)


# --- what is refused ------------------------------------------------------------------------------------------------------


def test_unknown_settings_name_the_nearest() -> None:
    assert "did you mean 'epochs'" in refusal(UnknownName, TrainConfig, epoch=3)
    message = refusal(UnknownName, CoresetConfig, dataset="digits", proxy={"epoch": 3})
    assert "'proxy.epoch'" in message
    assert "did you mean 'proxy.epochs'" in message


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"proxy": {"epochs": 0}}, ["'proxy.epochs'", "got 0"]),
        ({"proxy": {"epochs": 2.5}}, ["'proxy.epochs'", "got 2.5"]),
        ({"proxy": {"lr": float("inf")}}, ["'proxy.lr'", "finite"]),
        ({"proxy": {"lr": float("nan")}}, ["'proxy.lr'"]),
        ({"proxy": {"momentum": 1}}, ["'proxy.momentum'", "below 1"]),
        ({"proxy": {"phases": []}}, ["'proxy.phases'", "length and a factor"]),
        ({"proxy": {"phases": [[1, 0]]}}, ["'proxy.phases'", "length and a factor"]),
        ({"proxy": {"schedule": "cosine"}}, ["'proxy.schedule'", "'one_cycle' or 'piecewise'"]),
        ({"proxy": {"options": {"depth": None}}}, ["'proxy.options'", "None", "leave it out"]),
        ({"proxy": {"options": {"x": [float("nan")]}}}, ["'proxy.options'", "nan"]),
        ({"proxy": {"options": {"x": {1: 2}}}}, ["'proxy.options'", "{1: 2}"]),
        ({"options": {"x": object}}, ["'options'", "cannot be kept"]),
        ({"dataset": "\udcff"}, ["'dataset'", "Unicode"]),
        ({"budget": True}, ["'budget'", "count or a share"]),
        ({"budget": [1]}, ["'budget'", "count or a share", "got [1]"]),
        ({"control": ["randon"]}, ["'control': ", "'random', 'full' or 'short'", "got 'randon'"]),
        ({"control": ["random,full"]}, ["'control': ", 'control = ["random", "full"]']),
        ({"control": "random"}, ["'control': give an array", '["random"]']),
        ({"seed": 2**64 - 1, "seeds": 3}, ["seed 18446744073709551615 and the 2 after it (seeds)", "give a lower one"]),
        ({"seed": -1}, ["'seed'", "0 or more", "got -1"]),
        ({"seeds": 2.5}, ["'seeds': give a whole number; got 2.5"]),
        ({"proxy": {"lr": "fast"}}, ["'proxy.lr': give a number; got 'fast'"]),
        ({"proxy": {"lr": 0}}, ["'proxy.lr': give a number above 0; got 0"]),
        ({"proxy": {"phases": [[1, "x"]]}}, ["'proxy.phases': give a number; got 'x'"]),
        ({"proxy": {"phases": [[1]]}}, ["'proxy.phases': give arrays of the right length; got [1]"]),
        ({"proxy": "logistic"}, ["'proxy': give its settings by name, such as proxy.model; got 'logistic'"]),
        ({"compute": {"channels_last": "maybe"}}, ["'compute.channels_last': give true or false"]),
        ({"test_share": 1}, ["'test_share'"]),
        ({"proxy": {"patience": 3}}, ["'proxy.patience'", "set validation too", "got 3"]),
        ({"compute": {"precision": "fp16"}}, ["'compute.precision'", "got 'fp16'"]),
    ],
)
def test_settings_that_make_no_sense_are_refused_by_name(values: dict[str, Any], words: list[str]) -> None:
    message = refusal(SettingError, CoresetConfig, **{"dataset": "digits", **values})
    for word in words:
        assert word in message
    assert "Input should" not in message  # words of the library beneath
    with pytest.raises(SettingError) as called:  # no detour needed: a direct call says the same
        CoresetConfig(**{"dataset": "digits", **values})
    assert str(called.value) == message


def test_a_part_by_itself_is_refused_in_one_line() -> None:
    with pytest.raises(SettingError, match=r"^The setting 'epochs': give 1 or more; got 0$"):
        TrainConfig(epochs=0)
    with pytest.raises(UnknownName, match="did you mean 'epochs'"):
        TrainConfig(epoch=3)  # type: ignore[call-arg]


def test_totals_that_make_no_sense_are_refused() -> None:
    assert "'labelled'" in refusal(SettingError, ActiveConfig, dataset="digits")
    for totals in ([], [10], ["10%"]):
        assert "the first is drawn at random" in refusal(SettingError, ActiveConfig, dataset="digits", labelled=totals)
    assert "count or a share" in refusal(SettingError, ActiveConfig, dataset="digits", labelled=[True, 5])


def test_a_missing_setting_is_described() -> None:
    message = refusal(SettingError, CoresetConfig)
    assert "'dataset' must be given" in message
    assert "svp list datasets" in message


def test_settings_are_values() -> None:
    config = CoresetConfig.make({"dataset": "digits"})
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 3  # type: ignore[misc]
    assert TrainConfig() == TrainConfig()
    assert TrainConfig(epochs=3) != TrainConfig()
    assert config.proxy != config.target
    same = CoresetConfig.make(
        {"dataset": "digits", "proxy": {"model": "preact20", "epochs": 40, "seeds": 3}, "target": {"seeds": 3}}
    )
    assert same.proxy == same.target  # selection by the target itself, averaged over three


# --- what other modules read off them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [20, 100, 400, 5000])
def test_what_nobody_set_trains_few_labels_for_long_enough(n: int) -> None:
    """With people and in a simulation alike; and a model of its own defaults keeps these."""
    active = ActiveConfig.make({"dataset": "d", "labelled": [n, 2 * n]})
    people = SessionConfig.make({"dataset": "d"})
    assert (active.proxy, active.target) == (people.proxy, people.target)
    for train, least in ((active.proxy, 400), (active.target, 1200)):
        assert n_epochs(train, n) * steps_per_epoch(train, n) >= least
    assert TrainConfig().min_steps == CoresetConfig.make({"dataset": "d"}).proxy.min_steps == 0
    text = ActiveConfig.make({"dataset": "d", "labelled": [n, 2 * n], "proxy": {"model": "fasttext"}})
    assert settle(text.proxy) == settle(TrainConfig(model="fasttext"))


@TRY
@given(n=st.integers(1, 500), batch=st.integers(1, 64), epochs=st.integers(1, 20), floor=st.integers(0, 300))
def test_min_steps_raises_the_epochs_just_enough(n: int, batch: int, epochs: int, floor: int) -> None:
    config = TrainConfig(batch_size=batch, epochs=epochs, min_steps=floor)
    steps_per_epoch = len(range(0, n, batch))
    enough = epochs
    while enough * steps_per_epoch < floor:
        enough += 1
    assert n_epochs(config, n) == enough


@TRY
@given(n=st.integers(0, 10**6), hundredths=st.integers(0, 99))
def test_a_share_is_held_out_as_it_is_written(n: int, hundredths: int) -> None:
    config = TrainConfig(validation=hundredths / 100)
    assert held_out(config, n) == max(0, min(-(-hundredths * n // 100), n - 2))
    assert shown(config, n) + held_out(config, n) == n


def test_flat_names_settings_as_the_command_line_does() -> None:
    flat = CoresetConfig.make({"dataset": "digits", "proxy": {"options": {"a": {"b": 1}}}}).flat()
    assert flat["proxy.options.a.b"] == 1
    assert flat["compute.threads"] == 0
    assert flat["dataset"] == "digits"
    json.dumps(flat)


@TRY
@given(CORESET.map(CoresetConfig.make), CORESET.map(CoresetConfig.make))
def test_the_digest_changes_exactly_with_the_settings(a: CoresetConfig, b: CoresetConfig) -> None:
    assert (a.digest() == b.digest()) == (a.flat() == b.flat())
    assert a.digest(without=tuple(a.flat())) == b.digest(without=tuple(b.flat()))


def test_the_digest_can_leave_settings_out() -> None:
    a = CoresetConfig.make({"dataset": "digits", "seeds": 1})
    b = CoresetConfig.make({"dataset": "digits", "seeds": 3})
    assert a.digest() != b.digest()
    assert a.digest(without=("seeds",)) == b.digest(without=("seeds",))


def test_changes_are_told_in_words() -> None:
    before, after = {"a": 1, "b": [1], "c": None}, {"a": 2, "b": [1], "d": "x"}
    assert changes(before, after) == ["a was 1, is now 2", "d was not set, is now x"]
    assert changes(before, before) == []


def test_merge_leaves_its_arguments_alone() -> None:
    base, over = {"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}, "b": {"z": 1}}
    assert merge(base, over) == {"a": {"x": 1, "y": 3}, "b": {"z": 1}}
    assert base == {"a": {"x": 1, "y": 2}, "b": 1}


def test_a_part_given_in_part_keeps_the_rest_of_its_default() -> None:
    config = CoresetConfig.make({"dataset": "d", "proxy": {"epochs": 3}})
    assert config.proxy == TrainConfig(model="preact8", epochs=3)
    assert config.target == CoresetConfig.make({"dataset": "d"}).target


def test_run_seeds_follow_the_first() -> None:
    assert list(CoresetConfig.make({"dataset": "d", "seed": 4, "seeds": 3}).run_seeds) == [4, 5, 6]
