"""Files to arrays and back: every format gives the same array, large ones stay on disk, and what is wrong is named."""

import hashlib
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp.columns import ARGUMENTS, Source, check_out, read_array, read_names
from svp.errors import DataError, SettingError, SvpError, UnknownName
from svp.select.inputs import NO_SIGNAL
from svp.tables import write_table
from tests.characters import PLAIN

MEMORY = 1 << 30
TABLES = [".parquet", ".arrow", ".feather", ".csv", ".tsv", ".jsonl"]
WITH_LISTS = [".parquet", ".arrow", ".feather", ".jsonl"]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def array(word: str, role: str = "probs", memory: int = MEMORY) -> Any:
    return read_array(Source.of(word), role, memory)


def names(word: str) -> Any:
    return read_names(Source.of(word), MEMORY)


def write(name: str, **columns: Any) -> str:
    write_table(Path(name), pa.table(columns))
    return name


def fails(word: str, role: str = "probs") -> str:
    with pytest.raises(SvpError) as caught:
        (names if role == "ids" else lambda word: array(word, role))(word)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(deadline=None, derandomize=True, max_examples=25)
@given(
    rows=st.lists(
        st.tuples(
            st.floats(-1e300, 1e300),
            st.floats(-1, 1, width=32),
            st.integers(-(2**62), 2**62),
            # What CSV cannot tell apart is no key: pyarrow reads an empty line as nothing.
            st.text(PLAIN, min_size=1, max_size=9).map(lambda key: f"k{key}"),
        ),
        min_size=1,
        max_size=20,
    ),
    suffix=st.sampled_from(TABLES),
)
def test_what_is_written_is_what_is_read(rows: list[Any], suffix: str) -> None:
    first, second, ids, keys = (list(column) for column in zip(*rows, strict=True))
    word = write(f"t{suffix}", p0=first, p1=second, id=ids, key=keys)
    np.testing.assert_array_equal(array(word), np.column_stack([first, second]))
    assert names(word).tolist() == ids
    assert names(f"{word}:key").to_pylist() == keys


@pytest.mark.parametrize("suffix", TABLES)
def test_columns_are_named_listed_or_begin_alike(suffix: str) -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 10)
    word = write(f"t{suffix}", id=np.arange(10), p0=p[:, 0], p1=p[:, 1], q=p[:, 2], label=np.arange(10) % 3)
    np.testing.assert_array_equal(array(word), p)  # without ids and labels
    np.testing.assert_array_equal(array(f"{word}:p*"), p[:, :2])
    np.testing.assert_array_equal(array(f"{word}:q,p0"), p[:, [2, 0]])
    np.testing.assert_array_equal(array(word, "labels"), np.arange(10) % 3)
    np.testing.assert_array_equal(array(f"{word}:q", "scores"), p[:, 2])
    assert array(f"{word}:q", "embeddings").shape == (10, 1)


@pytest.mark.parametrize("suffix", WITH_LISTS)
def test_a_column_of_lists_is_a_matrix(suffix: str) -> None:
    e = np.random.default_rng(0).normal(size=(9, 4))
    word = write(f"t{suffix}", id=np.arange(9), vector=e.tolist(), extra=np.arange(9))
    np.testing.assert_array_equal(array(word, "embeddings"), e)
    ragged = write(f"r{suffix}", vector=[[1.0, 2.0], [3.0, 4.0], [5.0]])
    assert "'vector' has 1 numbers in row 2, 2 in row 0" in fails(ragged)
    assert "2 rows have missing values, the first: [1, 2]" in fails(write(f"n{suffix}", v=[[1.0], None, [None]]))


def test_half_precision_and_fixed_lists_keep_their_type() -> None:
    e = np.random.default_rng(0).normal(size=(6, 4)).astype(np.float32)
    write("t.parquet", v=pa.FixedSizeListArray.from_arrays(pa.array(e.ravel()), 4))
    read = array("t.parquet", "embeddings")
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, e)


def test_arrays_stay_in_their_files() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 1000)
    np.save("p.npy", p)
    np.savez("flat.npz", other=np.arange(3), p=np.asfortranarray(p))
    np.savez_compressed("packed.npz", p=p, q=np.asfortranarray(p))
    for word, mapped in (("p.npy", True), ("flat.npz:p", True), ("packed.npz:p", False), ("packed.npz:q", False)):
        read = array(word)
        np.testing.assert_array_equal(read, p)
        assert isinstance(read, np.memmap) == mapped, word
    assert "name one: flat.npz:NAME, of other, p" in fails("flat.npz")
    assert "did you mean 'other'" in fails("flat.npz:othr")


def test_shards_are_one_array_by_name() -> None:
    p = np.random.default_rng(0).dirichlet(np.ones(3), 30)
    for kind in ("npy", "parquet", "csv"):
        Path(kind).mkdir()
        for i in (2, 0, 1):
            rows = p[10 * i : 10 * (i + 1)]
            if kind == "npy":
                np.save(f"npy/part-{i}.npy", rows)
            else:
                write(f"{kind}/part-{i}.{kind}", **{f"p{c}": rows[:, c] for c in range(3)}, id=np.arange(10) + 10 * i)
        Path(kind, "_SUCCESS").touch()
        np.testing.assert_array_equal(array(kind), p)
    np.testing.assert_array_equal(array("parquet:p2", "scores"), p[:, 2])
    assert names("csv").tolist() == list(range(30))
    np.save("npy/part-3.npy", p.astype(np.float32))
    assert "its parts differ" in fails("npy")
    np.save("parquet/part-3.npy", p)
    assert "files of several kinds (.npy, .parquet)" in fails("parquet")


@pytest.mark.parametrize("suffix", TABLES)
def test_columns_mean_the_same_in_every_shard(suffix: str) -> None:
    Path("a").mkdir()
    write(f"a/0{suffix}", p0=[0.1, 0.2], p1=[0.9, 0.8], key=["a", "b"])
    write(f"a/1{suffix}", key=["c"], p1=[0.7], p0=[0.3])
    expected = [[0.1, 0.9], [0.2, 0.8], [0.3, 0.7]]
    for word in ("a:p*", "a", "a:p0,p1"):
        assert array(word).tolist() == expected, word
    assert names("a").to_pylist() == ["a", "b", "c"]
    write(f"a/2{suffix}", p0=[0.3], q1=[0.7], key=["d"])
    for word in ("a:p*", "a"):
        assert f"column of 2{suffix} 'p1'" in fails(word), word
    write(f"a/2{suffix}", p0=[0.3], p1=[0.6], p2=[0.1], key=["d"])
    for word in ("a:p*", "a"):
        assert f"2{suffix} has the columns p2 beside those of 0{suffix}" in fails(word), word
    assert array("a:p0,p1").tolist() == [*expected, [0.3, 0.6]]


def test_a_shard_without_rows_has_no_types() -> None:
    Path("a").mkdir()
    Path("a/0.csv").write_text("p0,p1,kind\n0.5,0.5,cat\n")
    Path("a/1.csv").write_text("p0,p1,kind\n")
    assert array("a").tolist() == [[0.5, 0.5]]


def test_names_of_two_kinds_are_refused() -> None:
    Path("t.jsonl").write_text('{"id": 1}\n{"id": "a"}\n')
    assert "changed from number to string" in fails("t.jsonl", "ids")


def test_the_arrays_are_those_of_select() -> None:
    assert {*ARGUMENTS} == {*NO_SIGNAL, "costs"}


def test_signals_are_epochs_by_examples() -> None:
    correct = np.random.default_rng(0).integers(0, 2, (4, 7)).astype(np.uint8)
    np.save("c.npy", correct)
    write("c.parquet", seen=correct.T.tolist())
    write("c.csv", **{f"epoch{i}": row for i, row in enumerate(correct)})
    for word in ("c.npy", "c.parquet", "c.csv"):
        np.testing.assert_array_equal(array(word, "correct"), correct)
    Path("shards").mkdir()
    np.save("shards/0.npy", correct[:, :3])
    np.save("shards/1.npy", correct[:, 3:])
    np.testing.assert_array_equal(array("shards", "correct"), correct)


@pytest.mark.parametrize("suffix", TABLES)
def test_what_is_missing(suffix: str) -> None:
    holes = write(f"t{suffix}", a=[1.0, None, 3.0, None], b=[1, 2, 3, 4], label=[0, None, 1, 2], c=[1, None, 0, 1])
    assert "2 rows have missing values, the first: [1, 3]" in fails(f"{holes}:a,b")
    assert array(holes, "labels").tolist() == [0, -1, 1, 2]  # nobody knows
    assert array(f"{holes}:c", "correct").tolist() == [[1, 255, 0, 1]]  # not shown
    np.testing.assert_array_equal(array(f"{holes}:a", "loss"), [[1, np.nan, 3, np.nan]])
    assert "missing" in fails(f"{holes}:label", "ids")


@pytest.fixture(params=[1, 2])
def cores(request: pytest.FixtureRequest) -> Iterator[None]:
    """pyarrow reads otherwise, and says less of an error, where it may use several threads."""
    before = pa.cpu_count()
    pa.set_cpu_count(request.param)
    yield
    pa.set_cpu_count(before)


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("suffix", TABLES)
def test_keys_are_read_on_any_machine(suffix: str) -> None:
    assert names(write(f"t{suffix}", key=["a", "b", "7"])).to_pylist() == ["a", "b", "7"]


@pytest.mark.usefixtures("cores")
@pytest.mark.parametrize("suffix", TABLES)
def test_text_where_numbers_should_be(suffix: str) -> None:
    word = write(f"t{suffix}", p0=[0.5] * 3, kind=["cat", "dog", "cat"])
    line = fails(f"{word}:kind")
    assert word in line
    assert "row 0" in line
    assert "cat" in line
    assert "labels wants numbers" in fails(f"{word}:kind", "labels")


@pytest.mark.parametrize(
    ("word", "role", "error", "words"),
    [
        ("nowhere.npy", "probs", DataError, "nowhere.npy does not exist"),
        ("nowhere.npz:x", "probs", DataError, "nowhere.npz does not exist"),
        ("t.txt", "probs", DataError, "unknown kind of file '.txt'; known are .npy, .npz, .parquet"),
        ("empty", "probs", DataError, "has no file that can be read"),
        ("t.parquet:iid", "probs", UnknownName, "did you mean 'id'?"),
        ("t.parquet:z*", "probs", UnknownName, "known: id, p0, p1"),
        ("t.parquet:p0,", "probs", UnknownName, "known: id, p0, p1"),
        ("t.parquet", "scores", DataError, "which column holds the scores? Name it: t.parquet:COLUMN, one of id, p0, p1"),
        ("t.parquet:p*", "scores", DataError, "scores is one column, not 2"),
        ("t.npy:p0", "probs", DataError, "is one array and has no 'p0'"),
        ("broken.parquet", "probs", DataError, "broken.parquet cannot be read"),
        ("broken.arrow", "probs", DataError, "broken.arrow cannot be read"),
        ("broken.npy", "probs", DataError, "broken.npy cannot be read"),
        ("broken.npz", "probs", DataError, "broken.npz cannot be read"),
        ("empty.csv", "probs", DataError, "empty.csv cannot be read"),
        ("ragged.csv", "probs", DataError, "ragged.csv cannot be read"),
        ("objects.npy", "probs", DataError, "it holds Python objects"),
        ("objects.npz", "probs", DataError, "it holds Python objects"),
        ("t.parquet:p0", "ids", DataError, "double cannot name examples"),
        ("t.npy", "ids", DataError, "float64 of shape (2, 2)"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(word: str, role: str, error: type[SvpError], words: str) -> None:
    write("t.parquet", id=[0, 1], p0=[0.5, 0.5], p1=[0.5, 0.5])
    np.save("t.npy", np.eye(2))
    Path("empty").mkdir()
    for name in ("t.txt", "empty.csv"):
        Path(name).touch()
    for suffix in ("parquet", "arrow", "npy", "npz"):
        Path(f"broken.{suffix}").write_bytes(b"PAR1 and nothing more")
    Path("ragged.csv").write_text("a,b\n1,2\n1,2,3\n")
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez("objects.npz", a=np.array([{}], object))
    line = fails(word, role)
    assert words in line
    with pytest.raises(error):
        (names if role == "ids" else lambda word: array(word, role))(word)


def test_a_number_written_late_in_a_csv_is_read() -> None:
    """What a column is must not be guessed from its first block."""
    with Path("t.csv").open("w") as file:
        file.write("a,b\n")
        file.writelines("1,1\n" for _ in range(3_000_000))
        file.write("0.5,0.25\n")
    read = array("t.csv")
    assert read.shape == (3_000_001, 2)
    assert read[-1].tolist() == [0.5, 0.25]


def test_what_is_missing_late_changes_no_type() -> None:
    """Blocks of a file have one type, wherever the first hole is."""
    n = 20_000
    holes = [1] * (n - 1) + [None]
    word = write("t.parquet", label=holes, a=pa.array(holes, pa.int8()), b=pa.array(holes, pa.float32()))
    for role, column, last in (("labels", "label", -1), ("correct", "a", 255), ("correct", "b", 255)):
        read = array(f"{word}:{column}", role)
        assert read.ravel().tolist() == [1] * (n - 1) + [last]
        assert read.dtype == (np.int64 if role == "labels" else np.uint8)
    assert np.isnan(array(f"{word}:b", "loss")[0, -1])
    assert "other than 0" in fails(write("u.parquet", c=[300, 1]), "correct")


def test_what_a_csv_means_is_not_guessed() -> None:
    Path("semi.csv").write_text("p0;p1\n0,4;0,6\n")
    assert "separated by semicolons; save it with commas" in fails("semi.csv:p*")
    Path("twice.csv").write_text("id,p0,p0\n1,0.4,0.6\n")
    assert "2 columns called 'p0'" in fails("twice.csv:p*")


def test_a_csv_without_a_header_loses_no_row() -> None:
    Path("t.csv").write_text("0.5,0.5\n0.1,0.9\n")
    assert "numbers where its header should be (0.5, 0.5)" in fails("t.csv")
    Path("pandas.csv").write_text(",0,1\n0,0.5,0.5\n1,0.1,0.9\n")  # to_csv of unnamed columns
    assert array("pandas.csv").tolist() == [[0.5, 0.5], [0.1, 0.9]]
    Path("plain.csv").write_text("0,1\n0.5,0.5\n")
    assert array("plain.csv").tolist() == [[0.5, 0.5]]


def test_what_is_large_goes_to_disk() -> None:
    """32 MB of numbers with 16 MB allowed: an eighth of that is held, the rest mapped."""
    e = np.random.default_rng(0).normal(size=(250_000, 16))
    pq.write_table(pa.table({"e": pa.FixedSizeListArray.from_arrays(pa.array(e.ravel()), 16)}), "t.parquet")
    tracemalloc.start()
    read = array("t.parquet", "embeddings", 16 << 20)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(read, np.memmap)
    assert peak < 8 << 20
    np.testing.assert_array_equal(read, e)


def test_the_origin_of_files() -> None:
    write("t.csv", p0=[0.5])
    (facts,) = Source.of("t.csv:p*").describe(digests=True)
    content = Path("t.csv").read_bytes()
    assert facts == {
        "path": "t.csv",
        "absolute": Path("t.csv").resolve().as_posix(),
        "columns": "p*",
        "size": len(content),
        "sha256": hashlib.sha256(content).hexdigest(),
    }
    assert "sha256" not in Source.of("t.csv").describe(digests=False)[0]


def test_an_output_that_would_harm_is_refused() -> None:
    source = Source.of(write("t.csv", p0=[0.5]))
    for name, words in (
        ("t.txt", "ends in .parquet"),
        ("no/t.csv", "make it first"),
        ("t.csv", "one of the inputs"),
    ):
        with pytest.raises(SettingError, match=words):
            check_out(Path(name), [source])
    Path("folder.csv").mkdir()
    with pytest.raises(SettingError, match="is a folder"):
        check_out(Path("folder.csv"), [source])
    assert check_out(Path("new.npy"), [source]) == Path("new.npy")


@pytest.mark.parametrize("ending", ["\n", "\r\n"])
def test_an_empty_line_in_a_file_of_one_column_moves_no_row(ending: str) -> None:
    for name, role in (("scores", "scores"), ("label", "labels"), ("name", "keys")):
        Path("t.csv").write_text(ending.join([name, "1", "", "3", ""]))
        assert "line 3 is empty" in fails("t.csv", role)
    # Before and after the rows it means nothing.
    Path("t.csv").write_text(ending.join(["", "scores", "1", "3", "", ""]))
    assert array("t.csv", "scores").tolist() == [1, 3]
    Path("t.csv").write_text(ending.join(["label", "1", '""', "3", ""]))
    assert array("t.csv", "labels").tolist() == [1, -1, 3]
