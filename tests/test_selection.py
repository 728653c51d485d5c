"""Budgets, and what a selection is: in order, on disk, against its dataset."""

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp import files
from svp.data.base import Dataset
from svp.errors import BudgetError, DataError, MissingExtra, SettingError
from svp.select import METHODS, Selection, resolve_budget, select
from svp.select.selection import origin_path


@pytest.mark.parametrize(
    ("budget", "n", "expected"),
    [
        (1, 10, 1), (1.0, 10, 10), ("1", 10, 1), ("1.0", 10, 10), ("100%", 10, 10), (10, 10, 10), ("1_0", 10, 10),
        (0, 10, 0), (0.0, 10, 0), ("0", 0, 0), ("0%", 10, 0), ("1e-999999999", 9, 0),
        ("10%", 99, 9), ("10 %", 99, 9), (" 10% ", 99, 9), (0.1, 99, 9), ("0.5", 7, 3), ("25000", 50_000, 25_000),
        (0.29, 100, 29), (np.float32(0.29), 100, 29), ("29%", 100, 29), (0.57, 100, 57), (np.int64(3), 10, 3),
        (1e-3, 1000, 1), ("1e-3", 1000, 1), (0.1, 1_281_167, 128_116), (0.9999999, 10, 9), ("0.5%", 1000, 5),
        ("0." + "9" * 40, 10, 9),
    ],
)  # fmt: skip
def test_a_budget_is_a_number_or_a_share(budget: Any, n: int, expected: int) -> None:
    assert resolve_budget(budget, n) == expected


@pytest.mark.parametrize(
    "budget",
    [
        -1, 11, 1.5, 11.0, -0.1, float("nan"), float("inf"), True, False, np.True_, None, [1], 1 + 0j, "", "abc",
        "-3", "11", "101%", "-1%", "nan", "inf", "ten", "%", "1/2", "1e999999999", "9" * 5000,
    ],
)  # fmt: skip
def test_a_budget_that_is_none_says_how_many_there_are(budget: Any) -> None:
    with pytest.raises(BudgetError, match="10 candidates"):
        resolve_budget(budget, 10)


@settings(deadline=None, derandomize=True)
@given(n=st.integers(0, 10**7), percent=st.integers(0, 100))
def test_every_way_to_write_a_share_means_the_same(n: int, percent: int) -> None:
    expected = n * percent // 100
    assert resolve_budget(percent / 100, n) == expected
    assert resolve_budget(f"{percent}%", n) == expected
    assert resolve_budget(f"{percent / 100:.2f}", n) == expected


def dataset(**changes: Any) -> Dataset:
    fields: dict[str, Any] = {"keys": list("abcde"), "ids": [10, 11, 12, 13, 14], **changes}
    return Dataset.from_arrays(np.arange(10, dtype=np.float32).reshape(5, 2), [0, 1, 0, 1, 0], **fields)


def chosen(**changes: Any) -> Selection:
    return select("k_center", 3, embeddings=dataset().inputs, ids=dataset().ids, seed=5, **changes)


def same(a: Selection, b: Selection) -> None:
    for name in ("ids", "gains", "weights", "labels", "nearest", "distances", "stands_for"):
        one, two = getattr(a, name), getattr(b, name)
        assert (one is None) == (two is None), name
        if one is not None:
            assert one.dtype == two.dtype, name
            np.testing.assert_array_equal(one, two, err_msg=name)
    for name in (
        "method", "options", "seed", "tie_break", "sampler", "keys", "fingerprint", "version",
        "per_class", "with_costs", "inputs",
    ):  # fmt: skip
        assert getattr(a, name) == getattr(b, name), name


@pytest.mark.parametrize(
    "selection",
    [
        chosen(),
        chosen().of(dataset()),
        chosen(labels=[0, -1, 2, -1, -1]),
        chosen(already=[10], tie_break="id").head(1),
        select("random", 0, ids=[1, 2]),
        select("margin", 2, probs=np.eye(3)).of(dataset(ids=[0, 1, 2, 3, 4], keys=None)),
        select("margin", 2, probs=np.eye(3), labels=[0, 1, 0], per_class={"max": {0: 1, 1: 2}}, costs=[1, 1, 1]),
        select("margin", 2, probs=np.eye(3), labels=[0, 1, 0], per_class={"share": "equal"}, sampler="temperature"),
        replace(chosen(), options={"gamma_f": np.inf, "of": [-np.inf, 1.5], "by": {"inf": "word"}}),
        replace(chosen(), stands_for=np.array([3, -1, 0]), inputs={"probs": [{"path": "p.npy", "size": 3}]}),
    ],
)
def test_what_is_saved_is_what_is_loaded(selection: Selection, tmp_path: Path) -> None:
    selection.save(tmp_path / "picks.parquet")
    same(Selection.load(tmp_path / "picks.parquet"), selection)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["picks.parquet", "picks.parquet.json"]


def test_the_files_can_be_read_without_svp(tmp_path: Path) -> None:
    selection = chosen(start=2).of(dataset())
    selection.save(tmp_path / "picks.parquet")
    rows = pq.read_table(tmp_path / "picks.parquet").to_pylist()
    assert [row["rank"] for row in rows] == [0, 1, 2]
    assert [row["id"] for row in rows] == selection.ids.tolist()
    assert [row["key"] for row in rows] == ["abcde"[i - 10] for i in selection.ids]
    assert [row["label"] for row in rows] == [(i - 10) % 2 for i in selection.ids]
    assert [row["weight"] for row in rows] == [1.0, 1.0, 1.0]
    # Nothing was chosen before the first: no number stands for that.
    assert rows[0]["gain"] is rows[0]["nearest"] is rows[0]["distance"] is None
    assert [row["gain"] for row in rows[1:]] == [row["distance"] for row in rows[1:]] == selection.gains[1:].tolist()
    origin = json.loads((tmp_path / "picks.parquet.json").read_text())
    replace(selection, options={"gamma_f": np.float64(np.inf)}).save(tmp_path / "infinite.parquet")
    said = (tmp_path / "infinite.parquet.json").read_text()
    json.loads(said, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))
    assert (origin["format"], origin["format_version"]) == ("svp-selection", 2)
    assert (origin["method"], origin["options"], origin["seed"], origin["n"]) == ("k_center", {"start": 2}, 5, 3)
    assert origin["fingerprint"] == dataset().fingerprint


def test_options_of_any_kind_can_be_saved(tmp_path: Path) -> None:
    options = {"a": np.float32(0.5), "b": np.arange(2), "c": Path("x")}
    Selection(np.arange(1), np.ones(1), np.ones(1), "own", options).save(tmp_path / "p.parquet")
    assert Selection.load(tmp_path / "p.parquet").options == {"a": 0.5, "b": [0, 1], "c": "x"}


def test_a_save_cut_off_between_its_files_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "p.parquet"
    chosen().save(path)
    write = files.write_bytes

    def fail_on_origin(target: Path, data: bytes) -> None:
        if target.suffix == ".json":
            raise KeyboardInterrupt
        write(target, data)

    monkeypatch.setattr(files, "write_bytes", fail_on_origin)
    with pytest.raises(KeyboardInterrupt):
        chosen().head(1).save(path)
    with pytest.raises(DataError, match="half saved"):
        Selection.load(path)


def _spoil(path: Path, change: str) -> None:
    origin = json.loads(origin_path(path).read_text())
    if change == "missing":
        path.unlink()
    elif change == "no origin":
        origin_path(path).unlink()
    elif change == "truncated":
        path.write_bytes(path.read_bytes()[:-9])
    elif change == "not JSON":
        origin_path(path).write_text("{")
    elif change == "not ours":
        origin_path(path).write_text('["a"]')
    elif change == "later version":
        origin_path(path).write_text(json.dumps({**origin, "format_version": 3}))
    elif change == "lacks seed":
        del origin["seed"]
        origin_path(path).write_text(json.dumps(origin))
    else:
        import hashlib

        if change == "not Parquet":
            path.write_bytes(b"PAR1 and then nothing")
        else:
            pq.write_table(pa.table({"x": [1]}), path)
        origin_path(path).write_text(json.dumps({**origin, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("missing", "does not exist"),
        ("no origin", "p.parquet.json does not exist"),
        ("truncated", "is not the file that"),
        ("not JSON", "is not JSON"),
        ("not ours", "not the origin of a selection"),
        ("later version", "format version 3, this svp reads up to 2"),
        ("lacks seed", "lacks seed"),
        ("not Parquet", "is no selection"),
        ("other columns", "is no selection"),
    ],
)
def test_files_that_are_no_selection(change: str, words: str, tmp_path: Path) -> None:
    path = tmp_path / "p.parquet"
    chosen().save(path)
    _spoil(path, change)
    with pytest.raises(DataError, match=words) as caught:
        Selection.load(path)
    assert "\n" not in str(caught.value)


def test_a_selection_fits_the_dataset_it_is_of() -> None:
    selection = chosen().of(dataset())
    selection.verify(dataset())
    with pytest.raises(DataError, match=r"another state of the data.*fingerprint"):
        selection.verify(dataset(name="other", classes=["x", "y"]))
    bare = chosen()
    bare.verify(dataset(keys=None))
    with pytest.raises(DataError, match="not in the dataset"):
        bare.verify(dataset(ids=[0, 1, 2, 3, 4]))
    with pytest.raises(DataError, match="not in the dataset"):
        bare.of(dataset(ids=[0, 1, 2, 3, 4]))
    keyed = Selection(np.array([11]), np.ones(1), np.ones(1), "own", keys=("b",))
    keyed.verify(dataset())
    with pytest.raises(DataError, match=r"1 ids have other keys.*\['b'\]"):
        keyed.verify(dataset(keys=list("abcde")[::-1]))


def test_the_head_keeps_everything_of_its_rows() -> None:
    selection = chosen().of(dataset())
    head = selection.head(2)
    assert len(head) == 2
    assert head.ids.tolist() == selection.ids[:2].tolist()
    assert head.keys == (selection.keys or ())[:2]
    assert head.nearest is not None
    assert head.nearest.tolist() == [-1, selection.ids[0]]
    assert (head.fingerprint, head.options) == (selection.fingerprint, selection.options)
    for k in (-1, 4):
        with pytest.raises(BudgetError, match="3"):
            selection.head(k)


def test_a_selection_is_a_subset_of_a_dataset_of_torch() -> None:
    data = pytest.importorskip("torch").utils.data
    selection = chosen()
    subset = selection.subset(dataset())
    assert isinstance(subset, data.Subset)
    examples = dataset()
    for (x, y), i in zip(subset, selection.ids, strict=True):
        np.testing.assert_array_equal(x, examples.inputs[i - 10])
        assert y == (i - 10) % 2
    with pytest.raises(DataError, match="another state"):
        selection.of(dataset()).subset(dataset(classes=["x", "y"]))
    assert [y for _, y in selection.subset(dataset().without_labels())] == [-1] * 3
    rows = select("random", 3, ids=np.arange(5))
    assert list(rows.subset(list("abcde"))) == ["abcde"[i] for i in rows.ids]
    with pytest.raises(DataError, match=r"1 ids are not among the 4 items, the first: \[4\]"):
        select("random", 5, ids=np.arange(5)).subset(list("abcd"))


def test_a_subset_without_torch_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingExtra, match=r"selection-via-proxy\[torch\]"):
        chosen().subset(dataset())


def test_columns_of_other_lengths_are_refused() -> None:
    with pytest.raises(DataError, match="2 ids has 3 gains"):
        Selection(np.arange(2), np.ones(3), np.ones(2), "own")


def test_the_code_of_a_choice_is_all_that_it_runs() -> None:
    def files(method: str) -> set[str]:
        return {module.removeprefix("svp.select.") for module in METHODS[method].modules}

    assert files("margin") == {"scores"}
    assert {"samplers", "scores", "geometry"} <= files("ccs")
    assert {"d2", "scores", "neighbors", "geometry"} <= files("d2")  # the scores that its row names, too
    assert {"typiclust", "clusters", "neighbors", "geometry"} <= files("typiclust")
    assert "badge" not in files("herding")


def test_what_was_saved_in_the_first_format_is_read(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    select("random", 2, ids=[4, 5, 6]).save(path)
    origin = json.loads(origin_path(path).read_text())
    for name in ("classes", "neighbors", "with_similarity"):
        del origin[name]
    origin_path(path).write_text(json.dumps({**origin, "format_version": 1}))
    loaded = Selection.load(path)
    assert (loaded.classes, loaded.neighbors, loaded.with_similarity) == (None, None, False)


def test_the_origin_says_how_examples_were_compared(tmp_path: Path) -> None:
    embeddings = np.random.default_rng(0).normal(size=(9, 3))
    made = select("facility_location", 3, embeddings=embeddings, neighbors=np.int64(4))
    given_ = select("facility_location", 3, similarity=np.eye(9))
    for selection, expected in ((made, (4, False)), (given_, (None, True))):
        selection.save(tmp_path / "a.parquet")
        loaded = Selection.load(tmp_path / "a.parquet")
        assert (loaded.neighbors, loaded.with_similarity) == expected


def test_classes_by_name_are_numbered_as_they_sort_and_keep_their_names(tmp_path: Path) -> None:
    words = np.array(["dog", "cat", "", "owl", "dog", "cat"])
    scores = np.arange(6.0)
    expected = select("given", 3, scores=scores, labels=[1, 0, -1, 2, 1, 0], per_class={"min": 1})
    for labels in (words, words.tolist(), np.where(words == "", None, words), words.astype(object)):
        chosen = select("given", 3, scores=scores, labels=labels, per_class={"min": {"cat": 1, "dog": 1, "owl": 1}})
        assert chosen.ids.tolist() == expected.ids.tolist()
        assert chosen.labels.tolist() == expected.labels.tolist()
        assert chosen.classes == ("cat", "dog", "owl")
    chosen.save(tmp_path / "a.parquet")
    loaded = Selection.load(tmp_path / "a.parquet")
    assert loaded.classes == chosen.classes
    assert loaded.per_class == {"min": {"cat": 1, "dog": 1, "owl": 1}}
    assert loaded.table()["class"].to_pylist() == [chosen.classes[c] for c in chosen.labels]
    with pytest.raises(SettingError, match="no class 'bat'; labels has cat, dog, owl"):
        select("given", 3, scores=scores, labels=words, per_class={"max": {"bat": 1}})
    with pytest.raises(BudgetError, match="min 3 of class cat cannot be met"):
        select("given", 3, scores=scores, labels=words, per_class={"min": {"cat": 3}})
    with pytest.raises(DataError, match="labels: type object is not numbers"):
        select("given", 3, scores=scores, labels=np.array(["a", 1, 2, 3, 4, 5], object))


def test_names_are_columns_of_probs_only_where_there_are_as_many() -> None:
    probs = np.random.default_rng(0).dirichlet(np.ones(3), size=4)
    arrays = {"probs": probs, "embeddings": np.ones((4, 2))}
    named = select("grand", 2, **arrays, labels=["b", "a", "c", "a"])
    assert named.ids.tolist() == select("grand", 2, **arrays, labels=[1, 0, 2, 0]).ids.tolist()
    with pytest.raises(DataError, match="labels has 2 names, probs 3 columns"):
        select("grand", 2, **arrays, labels=["b", "a", "a", "a"])
