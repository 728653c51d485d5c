"""What a dataset is, and how one is found by name, path or function."""

import tracemalloc
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svp.config import DataConfig
from svp.data import DATASETS, Dataset, hold_out, load, load_dataset
from svp.data.base import available_memory, check_memory, with_held_out_test
from svp.data.cache import data_folder
from svp.errors import DataError, SettingError, UnknownName
from svp.machine import cpu_quota
from svp.names import resolve

distinct_ids = st.lists(st.integers(0, 2**62), min_size=1, max_size=40, unique=True)


def small(**changes) -> Dataset:
    arrays = {
        "inputs": np.arange(60, dtype=np.uint8).reshape(5, 2, 2, 3),
        "labels": [0, 1, 2, 1, 0],
        "classes": ["a", "b", "c"],
        "keys": list("vwxyz"),
        "test": (np.zeros((2, 2, 2, 3), np.uint8), [1, 2]),
    }
    return Dataset.from_arrays(**(arrays | changes))


# --- arrays, ids and positions


def test_from_arrays_keeps_uint8_and_float32_without_a_copy():
    for dtype in (np.uint8, np.float32):
        x = np.ones((4, 3), dtype)
        assert np.shares_memory(Dataset.from_arrays(x).inputs, x)


def test_grey_images_get_a_channel_axis():
    data = Dataset.from_arrays(np.zeros((3, 8, 8), np.uint8), test=(np.zeros((2, 8, 8), np.uint8), [0, 0]))
    assert data.inputs.shape == (3, 8, 8, 1)
    assert data.test is not None
    assert data.test.inputs.shape == (2, 8, 8, 1)


@given(distinct_ids, st.randoms(use_true_random=False))
def test_ids_and_positions_round_trip(ids, random):
    data = Dataset.from_arrays(np.array(ids, np.float64)[:, None], ids=ids)
    assert (np.diff(data.ids) > 0).all()
    wanted = random.choices(ids, k=7)
    assert data.ids[data.positions(wanted)].tolist() == wanted
    absent = next(i for i in range(len(ids) + 1) if i not in ids)
    with pytest.raises(DataError, match="not in the dataset"):
        data.positions([*wanted, absent])


@given(distinct_ids, st.randoms(use_true_random=False))
def test_shuffled_rows_with_their_ids_are_the_same_dataset(ids, random):
    rows = [(id_, np.float32(id_ % 101), id_ % 3, f"key {id_}") for id_ in ids]

    def build(rows):
        ids, x, y, keys = zip(*rows, strict=True)
        return Dataset.from_arrays(np.array(x)[:, None], y, ids=ids, keys=keys, classes=[*"abc"])

    first = build(rows)
    random.shuffle(rows)
    second = build(rows)
    assert first.fingerprint == second.fingerprint
    assert first.keys == second.keys
    assert first.key(ids[0]) == f"key {ids[0]}"
    assert np.array_equal(first.labels, second.labels)


def test_without_labels_leaves_nothing_to_peek_at():
    assert small().without_labels().labels is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": [1, 2, 3]}, "one row per example"),
        ({"inputs": np.full((5, 2), np.nan), "test": None}, r"5 inputs have NaN .* \[0, 1, 2\]"),
        ({"inputs": [[1.0], [np.inf], [0], [0], [0]], "test": None}, r"1 inputs have NaN or infinite values.*\[1\]"),
        ({"inputs": np.full((5, 2), 1e300), "test": None}, "infinite"),
        ({"inputs": np.zeros((5, 0)), "test": None}, r"shape \(5, 0\), so an example has no values"),
        ({"inputs": np.zeros((5, 0, 8, 3), np.uint8), "test": None}, "an example has no values"),
        ({"keys": [*"vwxy", "\udcff"]}, r"1 keys are no valid Unicode, first '\\udcff'"),
        ({"classes": ["a", "b", "\udcff"]}, r"class name '\\udcff' is no valid Unicode"),
        ({"inputs": np.full((5, 2), "1"), "test": None}, "neither numbers nor texts"),
        ({"inputs": [[1, 2], [3]], "test": None}, "no array"),
        ({"inputs": np.zeros((5, 3, 32, 32), np.uint8), "test": None}, "channels first"),
        ({"labels": [0, 1, 2]}, "one class number per input"),
        ({"labels": [0, 1, 2, 1, -1]}, "start at 0"),
        ({"labels": [0, 1, 2, 1, 0.5]}, r"1 of 5 labels are no class numbers .* first 0\.5 in row 4; leave out"),
        ({"labels": [np.nan, 1, 2, np.nan, 0]}, r"2 of 5 labels are no class numbers .* first nan in row 0; leave out"),
        ({"labels": [0, 1, np.inf, 1, 0]}, "first inf in row 2"),
        ({"labels": list("abcab")}, "neither class numbers nor all names"),
        ({"labels": list("abcab"), "test": None, "classes": ["a", "b"]}, "1 labels are none of the classes, first 'c'"),
        ({"labels": ["a", "b", "", "a", "b"], "test": None, "classes": None}, "the label '' is no name of a class"),
        ({"test": np.zeros((2, 2, 2, 3), np.uint8)}, r"test is a ndarray; give a pair, \(inputs, labels\)"),
        ({"test": (np.zeros((2, 2, 2, 3), np.uint8), [0, 1], 0)}, "test is a tuple; give a pair"),
        ({"labels": [0, 1, 2, 1, 3]}, "a label is 3, but only 3 classes"),
        ({"labels": [0, 1, 2, 1, 10**12], "classes": None}, "beyond the number of examples"),
        ({"classes": "abc"}, "classes is the text 'abc'; give a list"),
        ({"classes": ["a", "a", "b"]}, "classes are repeated, first 'a'"),
        ({"keys": ["k"] * 5}, "keys are repeated, first 'k'"),
        ({"keys": ["k"]}, "1 keys for 5 inputs"),
        ({"ids": [0, 1, 2, 2, 1]}, r"2 ids are repeated, first \[1, 2\]"),
        ({"ids": [0, 1, 2, 3, -4]}, "start at 0"),
        ({"ids": np.array([0, 1, 2, 3, 2**63], np.uint64)}, "start at 0"),
        ({"ids": [0.0, 1.0, 2.0, 3.0, 4.0]}, "one integer per input"),
        ({"test": (np.zeros((2, 2)), [0, 1])}, "must agree"),
        ({"test": (np.zeros((2, 2, 2, 3), np.uint8), [1, 3])}, "a label is 3"),
    ],
)
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(DataError, match=message):
        small(**changes)


def test_labels_may_be_names():
    x, words = np.zeros((4, 2)), np.array(["dog", "cat", "dog", "eel"])
    data = Dataset.from_arrays(x, words, test=(x[:2], ["eel", "ape"]))
    assert data.classes == ("ape", "cat", "dog", "eel")
    assert data.labels is not None
    assert data.labels.tolist() == [2, 1, 2, 3]
    assert data.test is not None
    assert data.test.labels is not None
    assert data.test.labels.tolist() == [3, 0]
    named = Dataset.from_arrays(x, words.tolist(), classes=["eel", "dog", "cat"])
    assert (named.classes, named.labels.tolist()) == (("eel", "dog", "cat"), [1, 2, 1, 0])  # type: ignore[union-attr]


def test_named_data_lie_where_caches_do(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ann")
    for name in ("SVP_DATA", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    assert data_folder(None) == Path("/home/ann/.cache/svp")
    monkeypatch.setenv("XDG_CACHE_HOME", "/fast")
    assert data_folder(None) == Path("/fast/svp")
    monkeypatch.setenv("SVP_DATA", "~/data")
    assert data_folder(None) == Path("/home/ann/data")
    assert data_folder("here") == Path("here")


# --- the fingerprint


def test_fingerprint_is_the_same_when_loaded_again_under_another_name():
    assert small().fingerprint == small(name="other").fingerprint


def test_fingerprint_changes_with_everything_a_result_depends_on():
    data = small()
    assert data.test is not None
    pixel = data.inputs.copy()
    pixel[3, 1, 0, 2] ^= 1
    test_pixel = data.test.inputs.copy()
    test_pixel[0, 0, 0, 0] ^= 1
    others = [
        small(inputs=pixel),
        small(inputs=data.inputs.astype(np.float32), test=(data.test.inputs.astype(np.float32), [1, 2])),
        small(labels=[0, 1, 2, 1, 1]),
        small(labels=None),
        small(classes=["a", "b", "d"]),
        small(classes=["a", "b", "c", ""]),
        small(keys=[*"vwxy", "z2"]),
        small(keys=None),
        small(ids=[0, 1, 2, 3, 9]),
        small(augmentation="crop"),
        small(test=None),
        small(test=(test_pixel, [1, 2])),
        small(test=(data.test.inputs, [1, 1])),
        replace(data, classes=("a", "b", "c", ""), keys=None),
    ]
    assert len({data.fingerprint, *(other.fingerprint for other in others)}) == 1 + len(others)


# --- the held-out part


@given(
    st.lists(
        st.tuples(st.integers(0, 2**62), st.integers(0, 3)), min_size=1, max_size=60, unique_by=lambda row: row[0]
    ),
    st.floats(0, 0.99),
    st.randoms(use_true_random=False),
)
def test_hold_out_depends_on_ids_alone_and_leaves_every_class_something_to_train_on(rows, share, random):
    def held_ids(rows):
        ids, labels = zip(*rows, strict=True)
        pos = hold_out(labels, ids, share)
        assert (np.diff(pos) > 0).all()
        return {ids[i] for i in pos}

    try:
        held = held_ids(rows)
    except DataError:
        held = set()
    for label in {label for _, label in rows}:
        of_class = {id_ for id_, other in rows if other == label}
        assert len(held & of_class) == min(int(share * len(of_class) + 0.5), len(of_class) - 1)
    if held:
        random.shuffle(rows)
        assert held_ids(rows) == held


def test_hold_out_of_one_class_does_not_move_when_another_changes():
    labels, ids = np.repeat([0, 1], 20), np.arange(40)
    whole, half = hold_out(labels, ids, 0.3), hold_out(labels[:30], ids[:30], 0.3)
    assert whole[whole < 20].tolist() == half[half < 20].tolist()


def test_hold_out_of_nothing_and_of_too_little():
    assert len(hold_out([0, 0, 1], [0, 1, 2], 0)) == 0
    for labels, share, enough in (([0, 0, 1], 0.1, 0.25), ([0] * 7, 0.05, 0.08), ([1] * 3, 0.1, 0.17)):
        ids = range(len(labels))
        with pytest.raises(DataError, match=rf"raise test_share \(--test-share\) to {enough} at least"):
            hold_out(labels, ids, share)
        assert len(hold_out(labels, ids, enough)) == 1
        with pytest.raises(DataError):
            hold_out(labels, ids, enough - 0.01)
    with pytest.raises(DataError, match=r"no class has two examples, so none .*; add examples, or bring a test part"):
        hold_out([0, 1, 2], [0, 1, 2], 0.2)
    for share in (-0.1, 1.0, float("nan")):
        with pytest.raises(SettingError, match="test_share"):
            hold_out([0, 0], [0, 1], share)


def test_held_out_examples_keep_their_ids_and_keys():
    data = with_held_out_test(small(test=None, labels=[0, 0, 0, 1, 1]), 0.5)
    assert data.test is not None
    assert sorted([*data.ids, *data.test.ids]) == [0, 1, 2, 3, 4]
    assert [data.test.key(i) for i in data.test.ids] == ["vwxyz"[i] for i in data.test.ids]


# --- names, paths and functions


def test_an_empty_name_is_not_the_current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SettingError, match=r"empty name; .*'\.' for this folder"):
        load_dataset("")


def test_statistics_of_large_floats_take_a_block_of_them():
    images = np.broadcast_to(np.float32(3), (700, 128, 128, 3))  # 131 MiB of one number
    data = Dataset("large", images, None, (), np.arange(700))
    tracemalloc.start()
    mean, deviation = data.statistics
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert mean.tolist() == [3] * 3
    assert deviation.tolist() == [0] * 3
    assert peak < 100 << 20


@given(st.integers(0, 9000), st.booleans())
def test_statistics_are_those_of_all_inputs_at_once(n, images):
    rng = np.random.default_rng(n)
    x = rng.integers(0, 256, (n, 2, 1, 3), np.uint8) if images else rng.normal(1e4, 1, (n, 3)).astype(np.float32)
    data = Dataset.from_arrays(x)
    mean, deviation = data.statistics
    assert data.statistics[0] is mean  # once is enough
    assert mean.dtype == deviation.dtype == np.float64
    rows = x.reshape(-1, 3).astype(float)
    assert np.allclose(mean, rows.mean(axis=0) if n else 0)
    assert np.allclose(deviation, rows.std(axis=0) if n else 0, rtol=1e-5)
    assert data.without_labels() is data  # and with it what is known of the inputs


def test_digits():
    data = load_dataset("digits")
    assert data.test is not None
    assert data.inputs.shape == (1346, 8, 8, 1)
    assert data.inputs.dtype == np.uint8
    assert len(data.test) == 451
    assert (data.inputs.min(), data.inputs.max(), len(np.unique(data.inputs))) == (0, 255, 17)
    assert sorted([*data.ids, *data.test.ids]) == list(range(1797))
    assert data.classes == tuple("0123456789")
    assert data.fingerprint == load_dataset("digits").fingerprint


@pytest.mark.parametrize("name", DATASETS)
def test_every_row_of_the_table_can_be_called(name):
    assert callable(resolve(DATASETS[name].load))
    assert DATASETS[name].summary


def test_an_unknown_name_gets_the_nearest_known_one():
    with pytest.raises(UnknownName, match=r"'cifar-10'; did you mean 'cifar10'.*svp list datasets"):
        load_dataset("cifar-10")


@pytest.mark.parametrize("path", ["no/such/folder", "photos.npz", "./digits", Path("digits")])
def test_a_path_that_does_not_exist_is_called_a_path(path):
    with pytest.raises(DataError, match="does not exist; give a folder of class folders"):
        load_dataset(path)


def test_a_broken_link_is_called_a_path(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("photos").symlink_to("nowhere")
    with pytest.raises(DataError, match="does not exist"):
        load_dataset("photos")


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (
            "cifar10",
            {"image_size": 32},
            r"cifar10: image_size \(--image-size\) means nothing here; .* takes root \(--data\)",
        ),
        (
            "cifar10",
            {"on_error": "skip", "test_share": 0.1},
            r"on_error .*, test_share \(--test-share\) means nothing here",
        ),
        ("digits", {"root": "."}, r"digits: root \(--data\) means nothing here; this dataset takes no options"),
        ("digits", {"on_error": "ignore"}, "'refuse' or 'skip', not 'ignore'"),
    ],
)
def test_an_option_without_a_meaning_is_refused(name, options, message):
    with pytest.raises(SettingError, match=message):
        load_dataset(name, **options)


def test_a_place_that_cannot_be_looked_at_is_named():
    with pytest.raises(DataError, match=r"cannot read x+/photos: File name too long; .*name another place"):
        load_dataset("x" * 300 + "/photos")


def test_a_function_of_ones_own(tmp_path, monkeypatch):
    (tmp_path / "my_sets.py").write_text(
        "import svp.data\n"
        "def three(root):\n    return svp.data.Dataset.from_arrays([[1.0], [2.0], [3.0]], name=str(root))\n"
        "def wrong(root):\n    return 3\n"
        "def broken(root):\n    import no_such_package\n"
    )
    (tmp_path / "needs_more.py").write_text("import no_such_package\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert load_dataset("my_sets:three", root="there").name == "there"
    assert load_dataset("my_sets:three").name == "None"
    with pytest.raises(DataError, match="my_sets:wrong returned a int"):
        load_dataset("my_sets:wrong")
    with pytest.raises(UnknownName, match="name in my_sets 'tree'; did you mean 'three'"):
        load_dataset("my_sets:tree")
    with pytest.raises(SettingError, match=r"cannot be imported: .*'my_set'; .*PYTHONPATH"):
        load_dataset("my_set:three")
    with pytest.raises(SettingError, match=r"image_size \(--image-size\) means nothing here"):
        load_dataset("my_sets:three", image_size=3)
    with pytest.raises(SettingError, match=r"needs_more:three cannot be imported: .*no_such_package"):
        load_dataset("needs_more:three")
    said = "my_sets:broken raised ModuleNotFoundError: No module named 'no_such_package'; --debug shows where"
    with pytest.raises(SettingError, match=said) as caught:
        load_dataset("my_sets:broken")
    assert isinstance(caught.value.__cause__, ModuleNotFoundError)


def test_a_function_of_ones_own_that_asks_for_nothing(tmp_path, monkeypatch):
    (tmp_path / "my_plain_sets.py").write_text(
        "import svp.data\n"
        "def two():\n    return svp.data.Dataset.from_arrays([[1.0], [2.0]], name='two')\n"
        "def any_root(*, root=None):\n    return svp.data.Dataset.from_arrays([[1.0], [2.0]], name=str(root))\n"
        "def optional(root='here'):\n    return svp.data.Dataset.from_arrays([[1.0], [2.0]], name=str(root))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert load_dataset("my_plain_sets:two").name == "two"
    with pytest.raises(SettingError, match=r"my_plain_sets:two: root \(--data\) means nothing here") as caught:
        load_dataset("my_plain_sets:two", root=tmp_path)
    assert "\n" not in str(caught.value)
    assert load_dataset("my_plain_sets:optional", root="there").name == "there"


def test_a_configuration_names_its_dataset(tmp_path, monkeypatch):
    (tmp_path / "my_configured_sets.py").write_text(
        "import svp.data\n"
        "def two():\n    return svp.data.Dataset.from_arrays([[1.0], [2.0]], name='two')\n"
        "def three(root):\n    return svp.data.Dataset.from_arrays([[1.0], [2.0], [3.0]], name=str(root))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)

    def config(**values):
        return DataConfig.make(values)

    assert load(config(dataset="digits")).fingerprint == load_dataset("digits").fingerprint
    assert load(config(dataset="my_configured_sets:two")).name == "two"
    assert load(config(dataset="my_configured_sets:three", data="there")).name == "there"
    with pytest.raises(SettingError, match=r"root \(--data\) means nothing here"):
        load(config(dataset="my_configured_sets:two", data="there"))
    with pytest.raises(SettingError, match=r"on_error \(--on-error\) means nothing here"):
        load(config(dataset="my_configured_sets:two", on_error="skip"))
    np.savez(tmp_path / "rows.npz", x=np.arange(20.0).reshape(10, 2), y=np.arange(10) % 2)
    whole = load(config(dataset=str(tmp_path / "rows.npz"), test_share=0))
    assert (len(whole), whole.test) == (10, None)
    assert len(load(config(dataset=str(tmp_path / "rows.npz"), test_share=0.4)).test) == 4


@pytest.mark.parametrize(("limit", "free"), [("max", 8 * 2**30), (str(4 * 2**30), 3 * 2**30), (str(2**40), 8 * 2**30)])
def test_free_memory_knows_a_containers_limit(monkeypatch, limit, free):
    texts = {
        "/proc/meminfo": f"MemTotal: 99999999 kB\nMemAvailable: {8 * 2**20} kB\n",
        "/sys/fs/cgroup/memory.max": f"{limit}\n",
        "/sys/fs/cgroup/memory.current": f"{3 * 2**30}\n",
        "/sys/fs/cgroup/memory.stat": f"anon {2**30}\ninactive_file {2**30}\nactive_file {2**30}\n",
    }
    monkeypatch.setattr(Path, "read_text", lambda path: texts[str(path)])
    assert available_memory() == free


@pytest.mark.parametrize(("limit", "free"), [(2**63 - 4096, 8 * 2**30), (4 * 2**30, 3 * 2**30)])
def test_free_memory_knows_the_limit_of_an_older_container(monkeypatch, limit, free):
    texts = {
        "/proc/meminfo": f"MemAvailable: {8 * 2**20} kB\n",
        "/sys/fs/cgroup/memory/memory.limit_in_bytes": f"{limit}\n",
        "/sys/fs/cgroup/memory/memory.usage_in_bytes": f"{3 * 2**30}\n",
        "/sys/fs/cgroup/memory/memory.stat": f"rss {2**30}\ninactive_file {2**30}\nactive_file {2**30}\n"
        f"total_inactive_file {2**30}\ntotal_active_file {2**30}\n",
    }
    only(monkeypatch, texts)
    assert available_memory() == free


@pytest.mark.parametrize(
    ("files", "cores"),
    [
        ({}, None),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu.max": "200000 100000\n"}, 2),
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "50000 100000\n"}, 1),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "400000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 4),
        ({"cpu.max": "?\n"}, None),
    ],
)
def test_the_share_of_processors_of_a_container_is_known(monkeypatch, files, cores):
    only(monkeypatch, {f"/sys/fs/cgroup/{name}": text for name, text in files.items()})
    assert cpu_quota() == cores


def only(monkeypatch, texts):
    """As if the files of the system were these alone."""

    def read(path):
        if str(path) not in texts:
            raise FileNotFoundError(path)
        return texts[str(path)]

    monkeypatch.setattr(Path, "read_text", read)


def test_what_does_not_fit_into_memory_is_refused(monkeypatch):
    monkeypatch.setattr("svp.data.base.available_memory", lambda: 10 * 2**30)
    check_memory(8 * 2**30, "this")
    with pytest.raises(DataError, match=r"this takes 9.0 GiB in memory, and 10.0 GiB are free"):
        check_memory(9 * 2**30, "this")
    monkeypatch.setattr("svp.data.base.available_memory", lambda: None)
    check_memory(2**60, "this")


def test_train_and_test_of_other_types_are_refused() -> None:
    """One would be scaled as bytes and the other not."""
    x = np.zeros((4, 3), np.uint8)
    with pytest.raises(DataError, match="test inputs are float32, train inputs uint8"):
        Dataset.from_arrays(x, [0, 1, 0, 1], test=(x.astype(float), [0, 1, 0, 1]))


@pytest.mark.parametrize("name", [None, 3, ["digits"], np.zeros(3)])
def test_a_name_of_another_type_is_refused_by_name(name) -> None:
    with pytest.raises(SettingError, match=r"named by a .*svp list datasets.*from_arrays"):
        load_dataset(name)
