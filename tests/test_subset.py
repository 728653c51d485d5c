"""The chosen part of a data set: exactly the chosen rows, as they stood, whole or not at all."""

import csv
import errno
import io
import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from svp import cli
from svp.columns import Source
from svp.data import load_dataset
from svp.errors import DataError, SettingError, StorageError, SvpWarning
from svp.select import Selection
from svp.subset import apply
from svp.tables import write_table

N = 20
PICKS = [7, 3, 19, 0, 11]


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def picks(ids: Any = PICKS, **more: Any) -> Selection:
    return Selection(np.array(ids, np.int64), np.ones(len(ids)), np.ones(len(ids)), "own", **more)


def rows_of(path: str | Path) -> list[dict[str, Any]]:
    """All rows, by another reader than the one under test."""
    path = Path(path)
    if path.suffix == ".parquet":
        return list(pq.read_table(path).to_pylist())
    if path.suffix in (".arrow", ".feather"):
        return list(pa.ipc.open_file(path.read_bytes()).read_all().to_pylist())
    if path.suffix == ".jsonl":
        return [json.loads(line) for line in path.read_text().splitlines()]
    with path.open(newline="") as file:
        return list(csv.DictReader(file, delimiter="\t" if path.suffix == ".tsv" else ","))


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet", ".arrow", ".feather"])
def test_rows_of_a_table(suffix: str) -> None:
    table = pa.table({"number": np.arange(N) * 10, "text": [f'{i}, "quoted"\n{i}' for i in range(N)]})
    if suffix == ".parquet":
        pq.write_table(table, "t.parquet", row_group_size=6)
    else:
        write_table(Path(f"t{suffix}"), table)
    before, rows = Path(f"t{suffix}").read_bytes(), rows_of(f"t{suffix}")
    done = apply(picks(), f"t{suffix}", f"part{suffix}")
    assert (done.n, done.n_source) == (5, N)
    assert rows_of(f"part{suffix}") == [rows[i] for i in sorted(PICKS)]
    apply(picks(), f"t{suffix}", f"chosen{suffix}", order="chosen")
    assert rows_of(f"chosen{suffix}") == [rows[i] for i in PICKS]
    apply(picks(), f"t{suffix}", f"rest{suffix}", rest=True)
    assert rows_of(f"rest{suffix}") == [rows[i] for i in range(N) if i not in PICKS]
    apply(picks([]), f"t{suffix}", f"none{suffix}")
    assert rows_of(f"none{suffix}") == []
    apply(picks(), f"t{suffix}", "folder")
    assert rows_of(f"folder/t{suffix}") == [rows[i] for i in sorted(PICKS)]
    assert Path(f"t{suffix}").read_bytes() == before


@settings(deadline=None, derandomize=True, max_examples=60)
@given(data=st.data())
def test_records_of_text_are_kept_to_the_byte(data: st.DataObject) -> None:
    field = st.text(st.sampled_from('ab,";\t é'), max_size=6) | st.just("two\nlines") | st.just("two\r\nlines")
    records = data.draw(st.lists(st.tuples(field, field), min_size=1, max_size=8))
    buffer = io.StringIO(newline="")
    end = data.draw(st.sampled_from(["\n", "\r\n"]))
    writer = csv.writer(buffer, lineterminator=end, quoting=data.draw(st.sampled_from([0, 1])))
    lines = []
    for record in [("a", "b"), *records]:
        start = buffer.tell()
        writer.writerow(record)
        lines.append(buffer.getvalue()[start:])
    Path("t.csv").write_text("".join(lines), encoding="utf-8-sig", newline="")
    chosen = data.draw(st.lists(st.integers(0, len(records) - 1), unique=True))
    shutil.rmtree("out", ignore_errors=True)
    apply(picks(chosen), "t.csv", "out", order="chosen")
    expected = "".join([lines[0], *(lines[1 + i] for i in chosen)])
    assert Path("out/t.csv").read_bytes() == expected.encode("utf-8-sig")


@pytest.mark.parametrize("layout", [";", "\t"])
def test_a_csv_of_any_country_is_cut_where_it_is_read(layout: str) -> None:
    lines = [f'"{i}"{layout}"text, {i}\nand on"\n' for i in range(N)]
    Path("t.csv").write_text(f"a{layout}b\n" + "".join(lines), newline="")
    apply(picks(), "t.csv", "out")
    assert Path("out/t.csv").read_text() == f"a{layout}b\n" + "".join(lines[i] for i in sorted(PICKS))


def test_rows_of_shards_of_which_one_ends_in_rows_that_were_skipped() -> None:
    """Ids are the same to who reads and to who cuts."""
    Path("d").mkdir()
    for name, lines in (("train-0.csv", ["yes,a", "no,b", "no,", "yes"]), ("train-1.csv", ["no,c", "yes,d", "no,e"])):
        Path("d", name).write_text("\n".join(["label,text", *lines]))
    with pytest.warns(SvpWarning, match="2 rows left out"):
        data = load_dataset("d", on_error="skip", test_share=0)
    chosen = np.array([0, 3])
    assert data.keys is not None
    for number, keys in enumerate((tuple(data.keys[i] for i in chosen), None)):
        apply(picks(data.ids[chosen], keys=keys), "d", f"out{number}")
        texts = [row["text"] for name in ("train-0.csv", "train-1.csv") for row in rows_of(f"out{number}/{name}")]
        assert texts == ["a", "d"]


def test_quotes_that_are_letters_take_in_no_rows() -> None:
    quote = {1: '"', 4: '"'}
    lines = [f"{i}\t{quote.get(i, '')}text {i}\n" for i in range(N)]
    Path("t.tsv").write_text("a\tb\n" + "".join(lines))
    with pytest.raises(DataError, match=r"row 1 has lines within quotes.*--no-quotes"):
        apply(picks(), "t.tsv", "out")
    apply(picks(), "t.tsv", "out", quotes=False)
    assert Path("out/t.tsv").read_text() == "a\tb\n" + "".join(lines[i] for i in sorted(PICKS))


def test_rows_are_the_rows_that_select_counted(capsys: pytest.CaptureFixture[str]) -> None:
    """Empty lines and quoted ones: who reads and who cuts count alike."""
    Path("t.csv").write_text('p0,p1,name\n0.9,0.1,"a\nb"\n\n0.5,0.5,"c,d"\n0.8,0.2,e')
    cli.main(["select", "margin", "--probs", "t.csv:p*", "--budget", "1", "--out", "picks.parquet", "--quiet"])
    cli.main(["apply", "picks.parquet", "--data", "t.csv", "--out", "part.csv"])
    assert [row["name"] for row in rows_of("part.csv")] == ["c,d"]
    assert capsys.readouterr().out == "part.csv: 1 of 3 examples\n"


def test_parquet_keeps_its_schema() -> None:
    schema = pa.schema(
        [
            pa.field("d", pa.dictionary(pa.int8(), pa.string()), metadata={"k": "v"}),
            pa.field("l", pa.list_(pa.float32()), nullable=False),
            pa.field("t", pa.timestamp("us", "UTC")),
        ],
        metadata={"mine": "yes"},
    )
    rows = [{"d": "ab"[i % 2], "l": [float(i)], "t": None} for i in range(N)]
    pq.write_table(pa.Table.from_pylist(rows, schema), "t.parquet", row_group_size=7, compression="zstd")
    for order in ("source", "chosen"):
        apply(picks(), "t.parquet", f"{order}.parquet", order=order)  # type: ignore[arg-type]
        part = pq.ParquetFile(f"{order}.parquet")
        assert part.schema_arrow.equals(pq.ParquetFile("t.parquet").schema_arrow, check_metadata=True)
        assert part.metadata.row_group(0).column(0).compression == "ZSTD"


def test_arrays() -> None:
    x = np.random.default_rng(0).normal(size=(N, 2, 3)).astype(np.float32)
    np.save("x.npy", np.asfortranarray(x))
    apply(picks(), "x.npy", "part.npy", order="chosen")
    np.testing.assert_array_equal(np.load("part.npy"), x[PICKS])
    assert np.load("part.npy").dtype == np.float32
    classes = np.array(["a", "b", "c"])
    for save in (np.savez, np.savez_compressed):
        save("d.npz", x=x, y=np.arange(N), x_test=x[:4], y_test=np.arange(4), classes=classes)
        shutil.rmtree("out", ignore_errors=True)
        apply(picks(), "d.npz", "out")
        with np.load("out/d.npz") as part:
            np.testing.assert_array_equal(part["x"], x[sorted(PICKS)])
            np.testing.assert_array_equal(part["y"], sorted(PICKS))
            np.testing.assert_array_equal(part["x_test"], x[:4])
            assert part["classes"].tolist() == ["a", "b", "c"]
    np.savez("odd.npz", x=x, weights=np.ones(3))
    with pytest.raises(DataError, match="weights of shape"):
        apply(picks(), "odd.npz", "odd-part.npz")
    np.savez("uneven.npz", a=x, b=np.ones(3))
    with pytest.raises(DataError, match="differ in length"):
        apply(picks(), "uneven.npz", "uneven-part.npz")
    assert not [path for path in Path().iterdir() if "-part" in path.name]


def test_ids_of_an_npz_are_its_own() -> None:
    np.savez("d.npz", x=np.arange(4.0)[:, None], ids=np.array([40, 10, 30, 20]), keys=np.array(list("dacb")))
    apply(picks([30, 40], keys=("c", "d")), "d.npz", "part.npz", order="chosen")
    assert np.load("part.npz")["x"].ravel().tolist() == [2, 0]
    with pytest.raises(DataError, match="other keys"):
        apply(picks([30], keys=("b",)), "d.npz", "wrong.npz")


def photos(root: str = "photos", n: int = 6) -> Path:
    rng = np.random.default_rng(0)
    for name in ("cat", "dog"):
        Path(root, name, "deep").mkdir(parents=True)
        for i in range(n):
            place = Path(root, name, "deep" if i % 2 else "", f"{i}.png")
            Image.fromarray(rng.integers(0, 255, (9, 9, 3), dtype=np.uint8)).save(place)
    Path(root, "readme.txt").write_text("no image")
    return Path(root)


def files_of(root: Path) -> dict[str, bytes]:
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in root.rglob("*") if path.is_file()}


def test_photos_are_copied_with_their_folders() -> None:
    root = photos()
    data = load_dataset(root, image_size=8, test_share=0)
    before = files_of(root)
    chosen = picks(data.ids[[5, 0, 9]]).of(data)
    assert apply(chosen, root, "kept").n == 3
    assert files_of(Path("kept")) == {key: before[key] for key in chosen.keys or ()}
    apply(chosen, root, "rest", rest=True)
    assert files_of(Path("kept")) | files_of(Path("rest")) == {k: v for k, v in before.items() if k.endswith("png")}
    assert files_of(root) == before
    held_out = load_dataset(root, image_size=8)  # ids are the same whether or not some are held out
    assert apply(picks(held_out.ids[:2]).of(held_out), root, "again").n == 2


def test_photos_are_linked_where_that_can_be(monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos()
    assert apply(picks([0, 3]), root, "linked", link=True).copied == 0
    for key in files_of(Path("linked")):
        assert Path("linked", key).samefile(root / key)

    def elsewhere(*_: Any) -> None:
        raise OSError(errno.EXDEV, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", elsewhere)
    assert apply(picks([0, 3]), root, "copied", link=True).copied == 2
    assert files_of(Path("copied")) == files_of(Path("linked"))
    assert not any(Path("copied", key).samefile(root / key) for key in files_of(Path("copied")))


def test_a_folder_without_classes_and_one_with_parts() -> None:
    photos("parts/train")
    photos("parts/test")
    apply(picks([0]), "parts", "part")
    assert list(files_of(Path("part"))) == ["train/cat/0.png"]
    flat = photos() / "cat" / "deep"
    apply(picks([1]), flat, "flat")
    assert list(files_of(Path("flat"))) == ["3.png"]


def test_photos_that_moved_are_noticed() -> None:
    root = photos()
    chosen = picks([5, 0]).of(load_dataset(root, image_size=8, test_share=0))
    shutil.copy(root / "cat/0.png", root / "cat/1.png")
    with pytest.raises(DataError, match="other keys"):
        apply(chosen, root, "kept")
    assert not Path("kept").exists()


def test_keys_and_ids_in_a_column() -> None:
    table = pa.table({"id": [5, 3, 9], "name": ["e", "c", "i"], "x": [0.0, 1.0, 2.0]})
    for suffix in (".csv", ".parquet"):
        write_table(Path(f"t{suffix}"), table)
        apply(picks([9, 5]), f"t{suffix}", f"ids{suffix}", ids="id", order="chosen")
        assert [float(row["x"]) for row in rows_of(f"ids{suffix}")] == [2, 0]
        apply(picks([0, 1], keys=("i", "c")), f"t{suffix}", f"keys{suffix}", ids="name", order="chosen")
        assert [float(row["x"]) for row in rows_of(f"keys{suffix}")] == [2, 1]
    for chosen, column, words in (
        (picks([4]), "id", "not in the dataset"),
        (picks([0], keys=("z",)), "name", r"1 chosen keys are not in it, the first: \['z'\]"),
        (picks([0]), "name", "the selection knows no keys"),
        (picks([0]), "nam", "did you mean 'name'"),
    ):
        with pytest.raises(Exception, match=words):
            apply(chosen, "t.csv", "no.csv", ids=column)


def test_keys_that_look_like_numbers_are_keys() -> None:
    table = pa.table({"key": ["2", "0", "1"], "x": [0.0, 1.0, 2.0]})
    chosen = picks([0], keys=("2",))  # row 0, called "2"
    for suffix, column in ((".csv", table["key"]), (".parquet", table["key"]), (".feather", pa.array([2, 0, 1]))):
        write_table(Path(f"t{suffix}"), table.set_column(0, "key", column))
        apply(chosen, f"t{suffix}", f"part{suffix}", ids="key")
        assert [float(row["x"]) for row in rows_of(f"part{suffix}")] == [0]
    with pytest.raises(DataError, match=r"1 chosen keys are not in it, the first: \['7'\]"):
        apply(picks([0], keys=("7",)), "t.csv", "no.csv", ids="key")
    # Keys of which none is a number cannot be what a column of numbers holds.
    apply(picks([1], keys=("photos/b.png",)), "t.csv", "by-id.csv", ids="key")
    assert [float(row["x"]) for row in rows_of("by-id.csv")] == [2]


def test_rows_called_by_keys_are_not_taken_by_number() -> None:
    """Row 1 of the embeddings is "b"; in the reviews "b" stands first."""
    write_table(Path("emb.parquet"), pa.table({"e0": [0.0, 9.0, 1.0], "name": ["a", "b", "c"]}))
    write_table(Path("reviews.csv"), pa.table({"name": ["b", "c", "a"], "text": ["two", "three", "one"]}))
    np.save("x.npy", np.arange(3))
    command = "select k_center --embeddings emb.parquet:e0 --ids emb.parquet:name --budget 1 --out p.parquet --quiet"
    Path("labelled.csv").write_text("key\na\n")
    cli.main([*command.split(), "--already", "labelled.csv"])
    for source in ("reviews.csv", "x.npy"):
        with pytest.raises(DataError, match=r"chosen by key, such as 'b'.*ids="):
            apply("p.parquet", source, Path("no").with_suffix(Path(source).suffix))
    apply("p.parquet", "reviews.csv", "part.csv", ids="name")
    assert rows_of("part.csv") == [{"name": "b", "text": "two"}]
    # The files it was chosen from have its rows, wherever they are now.
    apply("p.parquet", "emb.parquet", "again.parquet")
    Path("emb.parquet").rename("moved.parquet")
    apply("p.parquet", "moved.parquet", "moved-part.parquet")
    for part in ("again.parquet", "moved-part.parquet"):
        assert [row["name"] for row in rows_of(part)] == ["b"]


def test_rows_called_by_file_and_number_are_those_of_the_file() -> None:
    """As runs call the rows of several files."""
    Path("shards").mkdir()
    for shard in range(2):
        Path(f"shards/{shard}.csv").write_text("x\n" + "".join(f"{10 * shard + i}\n" for i in range(3)))
    chosen = picks([4, 0], keys=("1.csv:1", "0.csv:0"))
    apply(chosen, "shards", "part")
    assert [row["x"] for shard in range(2) for row in rows_of(f"part/{shard}.csv")] == ["0", "11"]
    Path("shards/0.csv").write_text("x\n1\n")
    with pytest.raises(DataError, match=r"1\.csv:1.* row 2, .*id 4"):
        apply(chosen, "shards", "no")
    with pytest.raises(DataError, match="ids="):
        apply(picks([4], keys=("2.csv:1",)), "shards", "no")


@pytest.mark.parametrize("suffix", [".csv", ".parquet", ".jsonl", ".npy"])
def test_shards_of_a_folder_are_one_data_set(suffix: str) -> None:
    Path("shards").mkdir()
    for shard, start in enumerate((0, 8, 8, 15)):
        values = np.arange(start, (8, 8, 15, N)[shard])
        if suffix == ".npy":
            np.save(f"shards/{shard}.npy", values)
        else:
            write_table(Path(f"shards/{shard}{suffix}"), pa.table({"number": values, "id": N - 1 - values}))

    def numbers(folder: str) -> list[list[int]]:
        shards = sorted(Path(folder).iterdir())
        assert [shard.name for shard in shards] == [f"{i}{suffix}" for i in range(4)]
        if suffix == ".npy":
            return [np.load(shard).tolist() for shard in shards]
        return [[int(row["number"]) for row in rows_of(shard)] for shard in shards]

    done = apply(picks(), "shards", "kept")
    assert (done.n, done.n_source) == (5, N)
    assert numbers("kept") == [[0, 3, 7], [], [11], [19]]
    apply(picks(), "shards", "left", rest=True)
    assert sorted(i for shard in numbers("left") for i in shard) == [i for i in range(N) if i not in PICKS]
    if suffix != ".npy":
        apply(picks([0, 19]), "shards", "by-id", ids="id")
        assert numbers("by-id") == [[0], [], [], [19]]
    for how, words in (({"order": "chosen"}, "have no such order"), ({"link": True}, "only the images of a folder")):
        with pytest.raises(SettingError, match=words):
            apply(picks(), "shards", "no", **how)  # type: ignore[arg-type]
    chosen = picks([1], inputs={"scores": Source.of("shards").describe(digests=True)})
    Path(f"shards/2{suffix}").write_bytes(Path(f"shards/0{suffix}").read_bytes())
    with pytest.raises(DataError, match=f"2{suffix} has changed since"):
        apply(chosen, "shards", "no")
    assert not Path("no").exists()


def test_a_file_that_changed_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    np.save("e.npy", np.eye(4))
    chosen = picks([1], inputs={"embeddings": Source.of("e.npy").describe(digests=True)})
    apply(chosen, "e.npy", "part.npy")
    np.save("e.npy", np.eye(4) + 1)
    with pytest.raises(DataError, match="has changed since"):
        apply(chosen, "e.npy", "again.npy")
    Path("below").mkdir()
    monkeypatch.chdir("below")
    with pytest.raises(DataError, match="has changed since"):
        apply(chosen, "../e.npy", "again.npy")
    monkeypatch.chdir("..")
    Path("raw").mkdir()
    np.save("raw/e.npy", np.ones((4, 2)))  # another array of the same examples may be called the same
    apply(chosen, "raw/e.npy", "raw-part.npy")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"source": "nowhere.csv"}, "does not exist"),
        ({"source": "t.txt"}, "unknown kind of file '.txt'"),
        ({"source": "bare"}, "has no images"),
        ({"out": "there"}, "exists and is not overwritten"),
        ({"out": "no/where.csv"}, "make it first"),
        ({"out": "part.parquet"}, "ends in .csv"),
        ({"source": "photos", "out": "photos/kept"}, "lies inside"),
        ({"source": "photos", "order": "chosen", "out": "kept"}, "have no such order"),
        ({"rest": True, "order": "chosen"}, "have no such order"),
        ({"order": "up"}, "give 'source' or 'chosen'"),
        ({"link": True}, "only the images of a folder"),
        ({"source": "photos", "ids": "id", "out": "kept"}, "no table"),
        ({"selection": picks([99])}, "1 ids are not in the dataset"),
        ({"selection": picks([-1])}, "1 ids are not in the dataset"),
        ({"source": "broken.parquet", "out": "p.parquet"}, "cannot be read"),
        ({"source": "broken.npz", "out": "p.npz"}, "cannot be read"),
        ({"source": "broken.feather", "out": "p.feather"}, "cannot be read"),
        ({"source": "one.npy", "out": "p.npy"}, "holds one number"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_written(change: dict[str, Any], words: str) -> None:
    photos()
    Path("t.csv").write_text("a\n" + "1\n" * N)
    Path("t.txt").touch()
    Path("bare").mkdir()
    Path("there").mkdir()
    np.save("one.npy", np.float64(1))
    for suffix in ("parquet", "npz", "feather"):
        Path(f"broken.{suffix}").write_bytes(b"nothing")
    before = sorted(Path().rglob("*"))
    arguments = {"selection": picks(), "source": "t.csv", "out": "part.csv", **change}
    with pytest.raises((DataError, SettingError), match=words) as caught:
        apply(**arguments)
    assert "\n" not in str(caught.value)
    assert sorted(Path().rglob("*")) == before


def test_cut_off_in_the_middle_nothing_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    root = photos()
    copy, done = shutil.copy2, []

    def full(source: Any, place: Any) -> Any:
        if len(done) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        done.append(place)
        return copy(source, place)

    before = sorted(Path().iterdir())
    monkeypatch.setattr(shutil, "copy2", full)
    with pytest.raises(StorageError, match="disk is full"):
        apply(picks([0, 1, 2, 3]), root, "kept")
    assert sorted(Path().iterdir()) == before


def test_what_appears_is_on_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Before the rename every file and folder of it, after it the folder that it appears in."""
    root, synced, rename = photos(), set[int](), os.replace

    def renamed(source: Path, place: Path) -> None:
        assert {path.stat().st_ino for path in (source, *Path(source).rglob("*"))} <= synced
        synced.clear()
        rename(source, place)

    monkeypatch.setattr(os, "fsync", lambda file: synced.add(os.fstat(file).st_ino))
    monkeypatch.setattr(os, "replace", renamed)
    np.save("x.npy", np.arange(4))
    for source, out in ((root, "kept"), ("x.npy", "kept.npy")):
        apply(picks([0, 3]), source, out)
        assert synced == {Path().stat().st_ino}


def test_on_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    root = photos()
    picks([0, 3]).save("picks.parquet")
    cli.main(["apply", "picks.parquet", "--data", str(root), "--out", "rest", "--rest", "--link", "--json"])
    assert json.loads(capsys.readouterr().out) == {"out": "rest", "n": 10, "n_source": 12, "copied": 0}
    with pytest.raises(SystemExit) as left:
        cli.main(["apply", "picks.parquet", "--data", str(root), "--out", "rest"])
    assert left.value.code == 1
    assert "exists and is not overwritten" in capsys.readouterr().err
