"""Arrays in an .npz file."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svp.data import Dataset, load_dataset
from svp.data.arrays import NAMES
from svp.errors import DataError, SettingError

X, Y = np.arange(40, dtype=np.float32).reshape(20, 2), np.repeat([0, 1], 10)


def save(folder: Path, **arrays) -> Path:
    np.savez(folder / "my set.npz", **arrays)
    return folder / "my set.npz"


@pytest.mark.parametrize("x", NAMES["inputs"])
def test_inputs_by_each_of_their_names(tmp_path, x):
    data = load_dataset(save(tmp_path, **{x: X}))
    assert np.array_equal(data.inputs, X)
    assert (data.labels, data.test, data.name) == (None, None, "my set")


@pytest.mark.parametrize("y", NAMES["labels"])
def test_a_part_is_held_out_and_keeps_its_rows(tmp_path, y):
    path = save(tmp_path, x=X, **{y: Y})
    data = load_dataset(str(path))
    assert data.test is not None
    assert np.bincount(data.labels).tolist() == [8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    for part in (data, data.test):
        assert np.array_equal(part.inputs, X[part.ids])
        assert np.array_equal(part.labels, Y[part.ids])
    assert load_dataset(path).fingerprint == data.fingerprint
    assert len(load_dataset(path, test_share=0.5)) == 10
    assert load_dataset(path, test_share=0).test is None


def test_everything_a_file_can_have(tmp_path):
    ids, keys, classes = np.arange(20)[::-1] * 10, [f"row {i}" for i in range(20)], np.array([b"no", b"yes"])
    data = load_dataset(save(tmp_path, X=X, Y=Y, X_test=X[:3], y_test=Y[:3], ids=ids, keys=keys, classes=classes))
    same = Dataset.from_arrays(X, Y, test=(X[:3], Y[:3]), ids=ids, keys=keys, classes=["no", "yes"])
    assert data.fingerprint == same.fingerprint
    assert data.key(0) == "row 19"


@given(st.permutations(range(20)))
def test_the_order_of_rows_is_not_part_of_the_dataset(tmp_path_factory, order):
    folder = tmp_path_factory.mktemp("npz")
    plain = load_dataset(save(folder, x=X, y=Y, ids=np.arange(20)))
    assert load_dataset(save(folder, x=X[order], y=Y[order], ids=order)).fingerprint == plain.fingerprint


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"y": Y}, "has no array x .*; it has y"),
        ({}, "has no array x .*; it has nothing"),
        ({"x": X, "y": Y, "z": Y, "w": Y}, "unknown arrays: z, w; known are x, X, inputs"),
        ({"x": X, "X": X}, "two arrays of inputs; it has x, X"),
        ({"x": X, "y": Y, "x_test": X}, "one of x_test and y_test"),
        ({"x": X, "y": Y, "y_test": Y}, "one of x_test and y_test"),
        ({"x": np.array([{"a": 1}, None]), "y": [0, 1]}, "array x holds Python objects"),
        ({"x": X, "y": np.array([0, "a"] * 10, object)}, "array y holds Python objects"),
        ({"x": X, "y": Y, "classes": np.array("a")}, "flat array of strings"),
        ({"x": np.where(X == 6, np.nan, X), "y": Y}, r"1 inputs have NaN .*\[3\]"),
        (
            {"x": X, "y": np.where(Y == 1, np.nan, Y)},
            "10 of 20 labels .* first nan in row 10; leave out rows without a label",
        ),
        ({"x": X, "y": Y - 1}, "labels go down to -1"),
        ({"x": X, "y": Y, "classes": ["a"]}, "only 1 classes are named"),
        ({"x": X, "y": Y, "ids": Y}, "ids are repeated"),
        ({"x": X, "y": Y[:5]}, "one class number per input"),
    ],
)
def test_what_does_not_fit_is_named(tmp_path, arrays, message):
    with pytest.raises(DataError, match=f"my set.*{message}") as error:
        load_dataset(save(tmp_path, **arrays))
    assert "\n" not in str(error.value)


def test_a_test_share_beside_a_test_part_is_refused(tmp_path):
    path = save(tmp_path, x=X, y=Y, x_test=X, y_test=Y)
    with pytest.raises(SettingError, match=r"test_share .* means nothing here"):
        load_dataset(path, test_share=0.5)
    with pytest.raises(
        SettingError,
        match=r"root .*, image_size .* means nothing here; this dataset takes test_share \(--test-share\)",
    ):
        load_dataset(path, root=tmp_path, image_size=8)
    with pytest.raises(SettingError, match="without labels nothing is held out"):
        load_dataset(save(tmp_path, x=X), test_share=0.5)


def test_damaged_files_and_other_files_are_named(tmp_path):
    path = save(tmp_path, x=X, y=Y)
    content = path.read_bytes()
    for damaged in (b"", content[:100], content[: len(content) // 2], content[:150] + b"\xff" * 20 + content[170:]):
        path.write_bytes(damaged)
        with pytest.raises(DataError, match=r"my set\.npz (is no \.npz file|cannot be read)"):
            load_dataset(path)
    (tmp_path / "rows.txt").write_text("1,2,3\n")
    with pytest.raises(DataError, match=r"rows\.txt is no \.npz file"):
        load_dataset(tmp_path / "rows.txt")
    np.save(tmp_path / "one.npy", X)
    with pytest.raises(DataError, match=r"one\.npy is no \.npz file"):
        load_dataset(tmp_path / "one.npy")


def test_more_than_the_memory_is_refused_before_it_is_read(tmp_path, monkeypatch):
    path = save(tmp_path, x=X, y=Y)
    monkeypatch.setattr("svp.data.base.available_memory", lambda: 300)
    with pytest.raises(DataError, match="GiB are free"):
        load_dataset(path)
