"""Texts in tables: what is read is what was written, what cannot be used is counted, and all of it stays on disk."""

import csv
import io
import json
import os
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp.config import SessionConfig
from svp.data import Dataset, load_dataset, text, text_cache, text_csv, text_jsonl, text_parquet, unlabelled
from svp.data.texts import Texts, utf8_of
from svp.errors import DataError, SettingError, StorageError, SvpWarning
from tests.characters import CONTROL, PLAIN

TRY = settings(derandomize=True, deadline=None, max_examples=12)


def write(path: Path, content: str, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content.encode(encoding))
    return path


def rows(n: int, start: int = 0) -> str:
    return "".join(f"{'no' if i % 2 else 'yes'},text {i}\n" for i in range(start, start + n))


def table(path: Path, values: list[tuple[Any, Any]]) -> Path:
    """Labels and texts in the kind of file that the suffix says."""
    labels, texts = map(list, zip(*values, strict=True))
    if path.suffix == ".parquet":
        pq.write_table(pa.table({"label": labels, "text": texts}), path, row_group_size=7)
    elif path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"label": y, "text": x}) + "\n" for y, x in values))
    else:
        with path.open("w", newline="") as file:
            writer = csv.writer(file, delimiter="\t" if path.suffix == ".tsv" else ",")
            writer.writerows([("label", "text"), *values])
    return path


# --- what is read --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
@TRY
@given(
    values=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", "c d"]),
            st.text(PLAIN + CONTROL.translate({0: None, 13: None}), min_size=1, max_size=12).filter(str.strip),
        ),
        min_size=1,
        max_size=30,
        unique_by=lambda value: value[1],
    )
)
def test_every_kind_gives_what_was_written(tmp_path_factory, suffix, values):
    file = table(tmp_path_factory.mktemp("t") / f"t{suffix}", values)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_parquet, "_BLOCK_ROWS", 4)
        data = load_dataset(file, test_share=0, cache=file.parent)
    assert data.inputs[:].tolist() == [text for _, text in values]
    assert [data.classes[y] for y in data.labels] == [label for label, _ in values]
    assert data.ids.tolist() == list(range(len(values)))


def test_quotes_newlines_and_blocks(tmp_path, monkeypatch):
    monkeypatch.setattr(text_csv, "BLOCK_BYTES", 4096)
    values = [(i % 3, f'{i} says "no",\nand "" goes\r\non ' + "é€😀" * (i % 40)) for i in range(500)]
    data = load_dataset(table(tmp_path / "t.csv", values), test_share=0)
    assert len(data.inputs._batches) > 10
    assert data.inputs[:].tolist() == [text for _, text in values]
    assert data.labels.tolist() == [label for label, _ in values]


@pytest.mark.parametrize("at", [0, 120, 199])
def test_a_row_longer_than_a_block(tmp_path, monkeypatch, at):
    """The file is then read in larger blocks; no row comes twice or is lost, and those left out keep their numbers."""
    monkeypatch.setattr(text_csv, "BLOCK_BYTES", 512)
    monkeypatch.setattr(text_csv, "ROW_BYTES", 1 << 16)
    lines = [f"{'ab'[i % 2]},text {i}\n" for i in range(200)]
    lines[at] = f"a,{'long' * 400}\n"
    lines[30:30] = ["too,many,fields\n"]
    lines[190:190] = ["a,\n"]
    with pytest.warns(SvpWarning, match=r"2 rows left out: .*empty text \(row 190\).*fields \(row 30\)"):
        data = load_dataset(write(tmp_path / "t.csv", "label,text\n" + "".join(lines)), on_error="skip", test_share=0)
    kept = [i for i in range(202) if i not in (30, 190)]
    assert data.ids.tolist() == kept
    assert data.inputs[:].tolist() == [lines[i].strip().split(",")[1] for i in kept]


def test_texts_behave_like_an_array_and_stay_on_disk(tmp_path, monkeypatch):
    monkeypatch.setattr(text_parquet, "_BLOCK_ROWS", 8)
    wanted = np.array([f"text {i}" for i in range(100)], object)
    data = load_dataset(table(tmp_path / "t.parquet", [("a", text) for text in wanted]), test_share=0)
    texts = data.inputs
    assert isinstance(texts, Texts)
    assert (len(texts), texts.shape, texts.ndim, texts.dtype, data.is_text) == (100, (100,), 1, np.dtype(object), True)
    for index in (7, -1, np.int64(3)):
        assert texts[index] == wanted[index]
        assert isinstance(texts[index], str)
    mask = np.arange(100) % 3 == 0
    positions = np.random.default_rng(0).integers(0, 100, 300)
    for index in (slice(5, 90, 7), slice(None), positions, mask, [4, 4, 1], slice(0, 0)):
        assert isinstance(texts[index], np.ndarray)
        assert texts[index].tolist() == wanted[index].tolist()
        assert texts.part(index)[:].tolist() == wanted[index].tolist()
    assert texts.part(positions).part(mask[:300].nonzero()[0])[2] == wanted[positions][6]
    with pytest.raises(IndexError):
        texts[100]
    with pytest.raises(SettingError, match=r"holds texts, which have no mean.*svp list models"):
        _ = data.statistics


def test_columns_are_found_by_name(tmp_path):
    file = write(tmp_path / "t.csv", "Stars, Review ,id,title\n1,good,7,A\n2,bad,8,\n")
    assert load_dataset(file, test_share=0).inputs[:].tolist() == ["good", "bad"]
    data = load_dataset(file, text_column=["title", " Review ", "id"], label_column="Stars", test_share=0)
    assert data.inputs[:].tolist() == ["A good 7", "bad 8"]
    assert load_dataset(write(tmp_path / "two.csv", "words,label\nx,1\ny,2\n"), test_share=0).inputs[1] == "y"
    with pytest.raises(SettingError, match=r"no column 'txt'; it has Stars,  Review , id, title"):
        load_dataset(file, text_column="txt")
    with pytest.raises(
        SettingError, match=r"no column of labels called label.* one of a, b, c with label_column.*without"
    ):
        load_dataset(write(tmp_path / "none.csv", "a,b,c\n1,2,3\n"))
    with pytest.raises(SettingError, match="named for labels and for texts"):
        load_dataset(file, text_column="id", label_column="id")


@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_a_csv_of_any_country_is_read(tmp_path, delimiter):
    """Spreadsheets write semicolons where the comma stands in numbers; texts may hold any of the signs."""
    texts = ["plain", "with, a comma", "with; a semicolon", "two\nlines"] * 5
    lines = [delimiter.join(["text", "label"])]
    lines += [delimiter.join([f'"{text}"', "yes" if i % 2 else "no"]) for i, text in enumerate(texts)]
    write(tmp_path / "a.csv", "\n".join(lines))
    with pytest.warns(SvpWarning, match="repeat"):
        data = load_dataset(tmp_path / "a.csv", test_share=0)
    assert data.inputs[:].tolist() == texts
    assert data.classes == ("no", "yes")


def by_tabs(path: Path, values: list[tuple[str, ...]]) -> Path:
    """As GLUE and many exports have it: tabs between fields, and quotes are letters."""
    return write(path, "".join("\t".join(row) + "\n" for row in values))


@pytest.mark.parametrize("order", [(0, 1), (1, 0), (2, 0, 1), (1, 0, 3)])
@pytest.mark.parametrize(("first", "second"), [(3, 20), (3, 4), (39, None)])
@pytest.mark.parametrize("suffix", [".tsv", ".csv"])
def test_rows_within_quotes_are_not_swallowed(tmp_path, order, first, second, suffix):
    """Wherever the column stands that quotes open in; an empty one beside it is as good as others."""
    values = [["no" if i % 2 else "yes", f"text {i}", f"id {i}", ""] for i in range(40)]
    for i in {first, second} - {None}:
        values[i][1] = f'"Great" ends "text {i}' if i == second else f'"text {i}'
    table = (
        [("label", "text", "id", "star"), *values] if second else [("label", "text", "id", "star"), *values, values[0]]
    )
    file = by_tabs(tmp_path / f"t{suffix}", [tuple(row[i] for i in order) for row in table])
    for on_error in ("refuse", "skip"):
        with pytest.raises(DataError, match=rf"t{suffix}: row {first} has lines within quotes .*--no-quotes.*--quotes"):
            load_dataset(file, on_error=on_error)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SvpWarning)  # the row that comes twice
        data = load_dataset(file, quotes=False, test_share=0)
        assert data.inputs[:].tolist() == [row[1] for row in table[1:]]
        assert len(load_dataset(file, quotes=True, on_error="skip", test_share=0)) < len(table) - 1


@TRY
@given(
    texts=st.lists(
        st.text("ab ,;.\n\"'-", min_size=1, max_size=30).filter(str.strip), min_size=2, max_size=20, unique=True
    ),
    first=st.booleans(),
)
def test_quotes_that_enclose_prose_are_no_doubt(tmp_path_factory, texts, first):
    """Line breaks, quotes and delimiters within them are read as they stand, whatever is between the fields."""
    root = tmp_path_factory.mktemp("q")
    for suffix, delimiter in ((".csv", ","), (".csv", ";"), (".tsv", "\t")):
        values = [("label", "text"), *((("no", "yes")[i % 2], words) for i, words in enumerate(texts))]
        with (root / f"t{suffix}").open("w", newline="") as file:
            writer = csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL)
            writer.writerows(values if first else [row[::-1] for row in values])
        read = [load_dataset(root / f"t{suffix}", quotes=q, test_share=0, cache=root) for q in (None, True)]
        assert [data.inputs[:].tolist() for data in read] == [texts, texts]


def test_indented_lines_and_tables_within_quotes_are_no_rows(tmp_path):
    code = [f"def f{i}():\n\treturn {i}\n\nprint()\nx\ty\nz\t{i}" for i in range(4)]
    for order in (("label", "text"), ("text", "label")):
        of = {"label": ["a", "b", "a", "b"], "text": code}
        with (tmp_path / "t.tsv").open("w", newline="") as file:
            csv.writer(file, delimiter="\t").writerows([order, *zip(*(of[name] for name in order), strict=True)])
        assert load_dataset(tmp_path / "t.tsv", test_share=0).inputs[:].tolist() == code


def test_a_row_with_too_many_fields_and_others_within_its_quotes(tmp_path):
    file = by_tabs(tmp_path / "t.tsv", [("label", "text"), ("a", '"x'), ("b", "y"), ("a", 'z" w', "v"), ("b", "u")])
    with pytest.raises(DataError, match=r"row 0 has lines within quotes that look like rows.*--no-quotes"):
        load_dataset(file, on_error="skip")


def test_texts_alone_are_read_without_quotes_where_these_are_letters(tmp_path):
    file = by_tabs(tmp_path / "t.tsv", [("text", "id"), ('"one', "1"), ("two", "2"), ('"three', "3")])
    config = SessionConfig(dataset=str(file), classes=("no", "yes"))
    with pytest.raises(DataError, match="--no-quotes"):
        unlabelled.load(config, config.classes)
    data = unlabelled.load(config.model_copy(update={"quotes": False}), config.classes)
    assert data.inputs[:].tolist() == ['"one', "two", '"three']


@pytest.mark.parametrize("n", [1, 2, 30])
def test_a_comma_in_one_name_separates_nothing(tmp_path, n):
    """What separates fields does so alike in all lines; the last that is looked at may be a part of one."""
    lines = ["label;text;note, more", *(f'{"no" if i % 2 else "yes"};"text {i}\n; on";n' for i in range(n))]
    data = load_dataset(write(tmp_path / "a.csv", "\n".join(lines)), test_share=0)
    assert data.inputs[:].tolist() == [f"text {i}\n; on" for i in range(n)]


def test_commas_separate_where_some_rows_are_wrong(tmp_path):
    file = write(tmp_path / "a.csv", "label,text\n" + rows(3) + "no,too,many\nno;few\n" + rows(3, 5))
    with pytest.warns(SvpWarning, match="2 rows left out"):
        assert load_dataset(file, on_error="skip", test_share=0).ids.tolist() == [0, 1, 2, 5, 6, 7]


def test_texts_alone_are_not_cut_at_their_semicolons(tmp_path):
    write(tmp_path / "a.csv", "text\n" + "\n".join(f"one; two {i}" for i in range(9)))
    data = unlabelled.load(SessionConfig(dataset=str(tmp_path / "a.csv"), classes=("no", "yes")), ("no", "yes"))
    assert data.inputs[:2].tolist() == ["one; two 0", "one; two 1"]


def test_a_header_in_the_middle_is_no_example(tmp_path):
    """As cat a.csv b.csv makes it."""
    write(tmp_path / "a.csv", "label,text\n" + rows(4) + "label,text\n" + rows(4, 10))
    with pytest.raises(DataError, match=r"a.csv: 1 row that repeats the header \(row 4\)"):
        load_dataset(tmp_path / "a.csv")
    with pytest.warns(SvpWarning, match="repeats the header"):
        data = load_dataset(tmp_path / "a.csv", on_error="skip", test_share=0)
    assert (data.classes, len(data)) == (("no", "yes"), 8)


def test_without_a_header_columns_have_numbers(tmp_path):
    file = write(tmp_path / "t.csv", '2,"",first\n1,title,second\n1,x\n2,y,third\n')
    with pytest.warns(SvpWarning, match=r"1 row left out: t.csv: 1 row with too few fields \(row 2\)"):
        data = load_dataset(file, label_column="1", text_column=["2", "3"], test_share=0, on_error="skip")
    assert data.inputs[:].tolist() == ["first", "title second", "y third"]
    assert (data.labels.tolist(), data.classes, data.ids.tolist()) == ([1, 0, 1], ("1", "2"), [0, 1, 3])
    with pytest.raises(SettingError, match="no column 4; its first row has 3"):
        load_dataset(file, label_column="4", text_column="1")
    with pytest.raises(SettingError, match="both are needed"):
        load_dataset(file, label_column="1")


@pytest.mark.parametrize(("encoding", "given"), [("utf-8-sig", "utf-8"), ("utf-16", "utf-16"), ("cp1252", "cp1252")])
@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
def test_encodings(tmp_path, suffix, encoding, given):
    head = "label,text\n" if suffix == ".csv" else ""
    line = "{},{}\n" if suffix == ".csv" else '{{"label": "{}", "text": "{}"}}\n'
    file = write(tmp_path / f"t{suffix}", head + line.format("ä", "é – “x”") + line.format("b", "y"), encoding)
    data = load_dataset(file, test_share=0, encoding=given)
    assert (data.inputs[0], data.classes) == ("é – “x”", ("b", "ä"))


def test_a_wrong_encoding_is_named(tmp_path):
    file = write(tmp_path / "t.csv", "label,text\na,plain\na,é\nb,plain\n", "latin-1")
    with pytest.raises(
        DataError, match=r"1 row cannot be used: t.csv: 1 row not in the encoding \(name.*--encoding\) \(row 1\)"
    ):
        load_dataset(file)
    with pytest.raises(DataError, match=r"not in the encoding 'ascii'.*--encoding"):
        load_dataset(file, encoding="ascii")
    with pytest.raises(SettingError, match=r"encoding .*'utf-9', which Python does not know"):
        load_dataset(file, encoding="utf-9")


def test_numbers_are_labels_alike_in_every_kind(tmp_path):
    for suffix, values in (
        (".csv", ["10", "9"]),
        (".jsonl", [10, 9.0]),
        (".parquet", [10, 9]),
        (".parquet", [10.0, 9.0]),
    ):
        data = load_dataset(table(tmp_path / f"t{suffix}", list(zip(values, "xy", strict=True))), test_share=0)
        assert (data.classes, data.labels.tolist()) == (("9", "10"), [1, 0])


def test_labels_that_are_the_same_number_are_in_order_of_their_words(tmp_path):
    """And not in that of a set, which is another in each process."""
    words = ["0" * i + "1" for i in range(8)]
    data = load_dataset(table(tmp_path / "t.csv", [(word, f"text {word}") for word in words]), test_share=0)
    assert data.classes == tuple(words[::-1])


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("value", [2.0, 2.5])
def test_no_number_is_no_label(tmp_path, suffix, value):
    values = [(1.0, "a"), (float("nan"), "b"), (value, "c"), (1.0, "d")]
    with pytest.warns(SvpWarning, match=r"1 row without a label \(row 1\)"):
        data = load_dataset(table(tmp_path / f"t{suffix}", values), on_error="skip", test_share=0)
    assert (data.classes, data.ids.tolist()) == (("1", f"{value:g}"), [0, 2, 3])


def test_no_number_is_no_text(tmp_path):
    for suffix in (".jsonl", ".parquet"):
        with pytest.raises(DataError, match=r"1 row with an empty text \(row 1\)"):
            load_dataset(table(tmp_path / f"t{suffix}", [("a", 1.5), ("b", float("nan"))]))


@pytest.mark.parametrize("suffix", [".csv", ".jsonl", ".parquet"])
def test_true_and_false_are_labels_alike(tmp_path, suffix):
    values = [("true" if suffix == ".csv" else True, "x"), ("false" if suffix == ".csv" else False, "y")]
    data = load_dataset(table(tmp_path / f"t{suffix}", values), test_share=0)
    assert (data.classes, data.labels.tolist()) == (("false", "true"), [1, 0])


def test_the_hub_names_its_classes(tmp_path):
    features = {"features": {"label": {"names": ["neg", "pos"], "_type": "ClassLabel"}}}
    content = pa.table({"text": ["a", "b", "c"], "label": [1, 1, -1]})
    content = content.replace_schema_metadata({"huggingface": json.dumps({"info": features})})
    pq.write_table(content, tmp_path / "t.parquet")
    with pytest.warns(
        SvpWarning, match=r"1 row with the label '-1', which is none of neg, pos|1 row with the label '-1'"
    ):
        data = load_dataset(tmp_path, test_share=0, on_error="skip")
    assert (data.classes, data.labels.tolist()) == (("neg", "pos"), [1, 1])


# --- what cannot be used -------------------------------------------------------------------------------------------------


BAD = {  # a row of CSV and a line of JSON, and how it is counted
    "with too few fields": ("a", None),
    "with too many fields": ("a,x,y", None),
    "not in the encoding": (b"a,\xff", b'{"label": "a", "text": "\xff"}'),
    "without a label": (",x", '{"label": null, "text": "x"}'),
    "with an empty text": ("a,  ", '{"label": "a", "text": " "}'),
    "with a NUL character": ("a,x\0y", '{"label": "a", "text": "x\\u0000y"}'),
    "that are no JSON objects": (None, '{"label": "a", '),
    "neither text nor a number": (None, '{"label": "a", "text": ["x"]}'),
}


@pytest.mark.parametrize("suffix", [".csv", ".jsonl"])
@pytest.mark.parametrize("reason", BAD)
def test_rows_that_cannot_be_used_are_counted_and_move_no_id(tmp_path, suffix, reason):
    bad = BAD[reason][suffix == ".jsonl"]
    if bad is None:
        pytest.skip("cannot be in this kind of file")
    bad = bad if isinstance(bad, bytes) else bad.encode()
    good = [f"b,text {i}" if suffix == ".csv" else f'{{"label": "b", "text": "text {i}"}}' for i in range(6)]
    lines = [line.encode() for line in good]
    lines[2:2], lines[5:5] = [bad], [bad, b""]  # blank lines are no rows
    file = tmp_path / f"t{suffix}"
    file.write_bytes(b"\n".join([*([b"label,text"] if suffix == ".csv" else []), *lines]))
    with pytest.raises(DataError, match=rf"2 rows cannot be used: t{suffix}: 2 rows .*{reason}.*on_error='skip'"):
        load_dataset(file)
    with pytest.warns(SvpWarning, match=rf"2 rows left out: t{suffix}: 2 rows .*\(rows 2, 5\)"):
        data = load_dataset(file, on_error="skip", test_share=0)
    assert data.ids.tolist() == [0, 1, 3, 4, 6, 7]
    assert data.inputs[:].tolist() == [f"text {i}" for i in range(6)]
    assert len(data.problems) == 1
    assert "2 rows" in data.problems[0]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary()])
def test_bytes_in_parquet_that_are_in_no_encoding_are_skipped(tmp_path, kind):
    texts = pa.array([b"one", b"\xff", "é".encode()], kind)
    pq.write_table(pa.table({"label": ["a", "b", "b"], "text": texts}), tmp_path / "t.parquet")
    with pytest.warns(SvpWarning, match=r"1 row not in the encoding .*\(row 1\)"):
        data = load_dataset(tmp_path / "t.parquet", on_error="skip", test_share=0)
    assert (data.inputs[:].tolist(), data.ids.tolist()) == (["one", "é"], [0, 2])


def test_a_source_without_a_row_is_refused(tmp_path):
    with pytest.raises(DataError, match="no row can be used"):
        load_dataset(write(tmp_path / "t.csv", "label,text\n"))
    with pytest.raises(DataError, match="cannot be read: Empty CSV file"):
        load_dataset(write(tmp_path / "e.csv", ""))
    with pytest.raises(DataError, match=r"a row is longer than 8 MiB; is a quote opened"):
        load_dataset(write(tmp_path / "q.csv", 'label,text\na,"' + "x\n" * (9 << 20)), cache=tmp_path / "c")
    with pytest.raises(DataError, match="holds list"):
        load_dataset(table(tmp_path / "l.parquet", [("a", ["x"])]))


def test_a_column_of_numbers_is_none_of_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(text_cache, "_MANY", 10)
    with pytest.raises(DataError, match=r"column label has more than 10 different labels.*--label-column"):
        load_dataset(table(tmp_path / "t.csv", [(i / 7, f"x{i}") for i in range(12)]))


# --- parts ---------------------------------------------------------------------------------------------------------------


def test_a_test_file_is_the_test_part(tmp_path):
    write(tmp_path / "train.csv", "label,text\n" + rows(10))
    write(tmp_path / "test.csv", "label,text\n" + rows(4, 20))
    write(tmp_path / "classes.txt", "no\nyes\n")
    data = load_dataset(tmp_path)
    assert (len(data), len(data.test), data.classes, data.keys) == (10, 4, ("no", "yes"), None)
    assert data.test.inputs[:].tolist() == [f"text {i}" for i in range(20, 24)]
    assert (data.test.ids.tolist(), data.test.labels.tolist()) == ([0, 1, 2, 3], [1, 0, 1, 0])
    with pytest.raises(SettingError, match=r"test_share .* means nothing here"):
        load_dataset(tmp_path, test_share=0.5)


def test_shards_count_through(tmp_path):
    for i, name in enumerate(("train-0.jsonl", "train-1.jsonl", "test-0.jsonl")):
        lines = [json.dumps({"text": f"{name} {j}", "label": j % 2}) + "\n" for j in range(4 + i)]
        write(tmp_path / "data" / name, "".join([*lines[:2], "broken\n", *lines[2:]]))
    with pytest.warns(SvpWarning, match="3 rows left out"):
        data = load_dataset(tmp_path, on_error="skip")
    assert data.ids.tolist() == [0, 1, 3, 4, 5, 6, 8, 9, 10]
    assert data.keys[:3] == ("data/train-0.jsonl:0", "data/train-0.jsonl:1", "data/train-0.jsonl:3")
    assert data.keys[4] == "data/train-1.jsonl:0"
    assert data.inputs[4] == "train-1.jsonl 0"
    assert (len(data.test), data.test.keys) == (6, None)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl", ".parquet"])
def test_a_shard_that_ends_in_rows_that_cannot_be_used_moves_no_id(tmp_path, suffix):
    """The next shard's rows have the ids that they have where these are repaired."""
    good = [("yes" if i % 2 else "no", f"text {i}") for i in range(20)]
    table(tmp_path / f"train-0{suffix}", [*good[:8], ("no", ""), ("", "text 9")])
    table(tmp_path / f"train-1{suffix}", good[10:])
    with pytest.warns(SvpWarning, match="2 rows left out"):
        data = load_dataset(tmp_path, on_error="skip", test_share=0)
    assert data.ids.tolist() == [*range(8), *range(10, 20)]
    assert data.inputs[:].tolist() == [words for i, (_, words) in enumerate(good) if i not in (8, 9)]


def test_a_shard_that_ends_in_a_row_with_too_few_fields_moves_no_id(tmp_path):
    write(tmp_path / "train-0.csv", "label,text\n" + rows(4) + "no\n")
    write(tmp_path / "train-1.csv", "label,text\nno,\nlabel,text\nno\nno\n")  # four, of no use at all
    write(tmp_path / "train-2.csv", "label,text\n" + rows(4, 20))
    with pytest.warns(SvpWarning, match="5 rows left out"):
        data = load_dataset(tmp_path, on_error="skip", test_share=0)
    assert data.ids.tolist() == [*range(4), *range(9, 13)]


@pytest.mark.parametrize(
    ("unknown", "lack"), [("text\nwho knows\n", "column label"), ("label,text\n-1,a\n-1,b\n", "known label")]
)
def test_a_part_without_labels_is_left_alone_and_named(tmp_path, unknown, lack):
    write(tmp_path / "train.csv", "label,text\n" + rows(20))
    write(tmp_path / "test.csv", unknown)
    said = f"test.csv has no {lack} and is not used"
    with pytest.warns(SvpWarning, match=said):
        data = load_dataset(tmp_path)
    assert (len(data), len(data.test)) == (16, 4)
    assert data.problems == (f"{said}; 20 % of each class are held out of the training part in its place",)
    write(tmp_path / "dev.csv", "label,text\n" + rows(2, 30))
    with pytest.warns(SvpWarning, match=said):
        data = load_dataset(tmp_path)
    assert data.test.inputs[:].tolist() == ["text 30", "text 31"]
    assert data.problems == (said,)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("label,text\nneg,a\npos,b\n", "1 row with the label 'neg', which is none of no, yes"),
        ("label,text\nyes,\nno, \n", "2 rows with an empty text"),
        ("label,text\n,a\n,b\n", "2 rows without a label"),
        ("label,text\n", "there is none"),
    ],
)
def test_a_test_part_of_which_no_row_can_be_used_is_refused(tmp_path, content, reason):
    """Rows of the training part take its place only where it has no labels."""
    write(tmp_path / "train.csv", "label,text\n" + rows(20))
    write(tmp_path / "test.csv", content)
    for on_error in ("refuse", "skip"):
        with pytest.raises(DataError, match=reason):
            load_dataset(tmp_path, on_error=on_error)


def test_a_label_of_the_test_part_alone_is_a_problem(tmp_path):
    write(tmp_path / "train.csv", "label,text\n" + rows(4))
    write(tmp_path / "test.csv", "label,text\nyes,a\nmaybe,b\nno,c\n")
    with pytest.raises(DataError, match=r"test.csv: 1 row with the label 'maybe', which is none of no, yes \(row 1\)"):
        load_dataset(tmp_path)
    with pytest.warns(SvpWarning, match="maybe"):
        assert load_dataset(tmp_path, on_error="skip").test.inputs[:].tolist() == ["a", "c"]


def test_rows_of_both_parts_are_left_out_of_the_test_and_repeats_are_reported(tmp_path):
    write(tmp_path / "train.csv", "label,text\n" + rows(6) + rows(2))
    write(tmp_path / "test.csv", "label,text\nyes,new\nyes,text 3\nno,newer\nno,text 1\n")
    with pytest.warns(SvpWarning, match="2 of 4 test rows have a text of the training part"):
        data = load_dataset(tmp_path)
    assert data.test.inputs[:].tolist() == ["new", "newer"]
    assert data.test.ids.tolist() == [0, 2]
    assert len(data) == 8
    assert [line.partition(" have")[0].partition(" repeat")[0] for line in data.problems] == [
        "2 of 4 test rows",
        "2 of 8 training rows",
    ]
    write(tmp_path / "test.csv", "label,text\nyes,text 3\n")
    with pytest.raises(DataError, match="nothing is left to test on"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("together", [1, 7, 1 << 20])
def test_repeats_among_many_rows_are_counted_as_among_few(tmp_path, monkeypatch, together):
    """However many hashes are held against each other at once."""
    monkeypatch.setattr(text, "_TOGETHER", together)
    rng = np.random.default_rng(0)
    train, test = ([f"text {i}" for i in rng.integers(0, 60, n)] for n in (90, 30))
    for name, texts in (("train", train), ("test", test)):
        table(tmp_path / f"{name}.parquet", [("yes" if i % 2 else "no", words) for i, words in enumerate(texts)])
    with pytest.warns(SvpWarning):
        data = load_dataset(tmp_path)
    assert data.test.inputs[:].tolist() == [words for words in test if words not in train]
    assert f"{len(train) - len(set(train))} of 90 training rows repeat" in data.problems[1]


def test_files_of_several_kinds_are_refused(tmp_path):
    write(tmp_path / "train.csv", "label,text\n" + rows(4))
    write(tmp_path / "test.jsonl", "{}")
    with pytest.raises(DataError, match=r"several kinds \(.csv, .jsonl\)"):
        load_dataset(tmp_path)


def test_what_systems_and_editors_leave_is_no_shard(tmp_path):
    """The shadow that macOS makes of each file, an editor's checkpoints: hidden, and no table."""
    table(tmp_path / "train.parquet", [("yes" if i % 2 else "no", f"text {i}") for i in range(20)])
    for name in ("._train.parquet", ".a.csv", ".ipynb_checkpoints/old.jsonl"):
        write(tmp_path / name, "no table")
    assert len(load_dataset(tmp_path, test_share=0)) == 20


def test_folders_of_images_stay_folders_of_images(tmp_path):
    write(tmp_path / "labels.csv", "file,label\na.jpg,cat\n")
    (tmp_path / "cat").mkdir()
    with pytest.raises(DataError, match="has only the folder cat"):
        load_dataset(tmp_path)


# --- Amazon --------------------------------------------------------------------------------------------------------------


def test_the_folder_of_polarity_is_none_of_stars(tmp_path):
    for name in ("train", "test"):
        write(tmp_path / f"{name}.csv", f'"1","Bad","{name} one"\n"2","Good","{name} two"\n')
    with pytest.raises(
        DataError, match=r"train.csv has no review of 3, 4, 5; .*amazon_review_full_csv.*amazon-polarity"
    ):
        load_dataset("amazon-full", root=tmp_path)


def test_amazon_reviews_in_their_publishers_files(tmp_path):
    folder = tmp_path / "amazon_review_polarity_csv"
    write(
        folder / "train.csv", '"2","","It ""works"""\n"1","Bad","First line\\nsecond, ""quoted"" line"\n"2","T","x"\n'
    )
    write(folder / "test.csv", '"1","Never","again"\n')
    for root in (tmp_path, folder):
        data = load_dataset("amazon-polarity", root=root)
        assert (data.name, data.test.name) == ("amazon-polarity", "amazon-polarity (test)")
        assert data.inputs[:].tolist() == ['It "works"', 'Bad First line\nsecond, "quoted" line', "T x"]
        assert (data.classes, data.labels.tolist()) == (("negative", "positive"), [1, 0, 1])
        assert (data.test.inputs[0], data.test.labels.tolist()) == ("Never again", [0])
    with pytest.raises(DataError, match=r"no amazon_review_full_csv/train.csv; unpack .*tar.gz.*--data"):
        load_dataset("amazon-full", root=tmp_path / "elsewhere")
    with pytest.raises(SettingError, match=r"test_share .*means nothing here"):
        load_dataset("amazon-polarity", root=tmp_path, test_share=0.5)
    write(folder / "test.csv", '"1","Never","again"\n"3","So","so"\n')
    with pytest.raises(DataError, match=r"1 row with the label '3', which is none of 1, 2 \(row 1\)"):
        load_dataset("amazon-polarity", root=tmp_path)
    write(folder / "test.csv", '"neg","Never","again"\n')
    with pytest.raises(DataError, match=r"test.csv: 1 row with the label 'neg'"):
        load_dataset("amazon-polarity", root=tmp_path)


@TRY
@given(data=st.data())
def test_bytes_are_read_as_they_lie(data, tmp_path_factory):
    """Of all rows, and of some with gaps, over several files and batches: the bytes of the texts that indexing gives."""
    root = tmp_path_factory.mktemp("bytes")
    (root / "data").mkdir()
    texts = data.draw(st.lists(st.text(PLAIN, min_size=1, max_size=5).filter(str.strip), min_size=3, max_size=20))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_jsonl, "BLOCK_BYTES", 64)
        for i in range(2):
            table(root / "data" / f"train-{i}.jsonl", [("ab"[j % 2], text) for j, text in enumerate(texts)])
        with pytest.warns(SvpWarning):
            read = load_dataset(root / "data", cache=root / "cache", test_share=0).inputs
    rows = data.draw(st.lists(st.integers(0, 2 * len(texts) - 1), unique=True).map(sorted))
    for some in (read, read.part(np.array(rows, int))):
        part = slice(*sorted(data.draw(st.tuples(st.integers(0, 40), st.integers(0, 40)))))
        whole, ends = utf8_of(some, part)
        assert [bytes(piece) for piece in np.split(whole, ends)[:-1]] == [text.encode() for text in some[part]]
        for got, wanted in zip(utf8_of(np.array(some[:]), part), (whole, ends), strict=True):
            np.testing.assert_array_equal(got, wanted)


def test_numbers_of_many_rows_are_mapped_and_the_same(tmp_path, monkeypatch):
    """Skipped rows, repeats within and across the parts, and a part that is held out: as with all of it in memory."""
    monkeypatch.setattr(text_csv, "BLOCK_BYTES", 256)
    write(tmp_path / "d" / "train.csv", "label,text\n" + rows(60) + "no,\n" + rows(30, 40) + "yes,\n" + rows(9, 100))
    write(tmp_path / "d" / "test.csv", "label,text\n" + rows(9, 55) + rows(9, 200))

    def read(source: Path) -> Dataset:
        with pytest.warns(SvpWarning):
            return load_dataset(source, on_error="skip", cache=tmp_path / "c")

    sources = [tmp_path / "d", tmp_path / "d" / "train.csv"]
    in_memory = [read(source) for source in sources]
    monkeypatch.setattr(text_cache, "_IN_MEMORY", 0)
    for found, wanted in zip(map(read, sources), in_memory, strict=True):
        assert isinstance(found.labels.base, np.memmap)
        assert isinstance(found.test.ids.base, np.memmap)
        assert (found.fingerprint, found.problems) == (wanted.fingerprint, wanted.problems)
        assert (found.inputs[:].tolist(), found.ids.tolist()) == (wanted.inputs[:].tolist(), wanted.ids.tolist())
    assert "9 of 18 test rows" in " ".join(in_memory[0].problems)
    assert "20 of 99 training rows" in " ".join(in_memory[0].problems)


def test_reading_ahead_keeps_order_and_errors():
    def numbers():
        yield from range(3)
        raise DataError("no more")

    ahead = text_cache.ahead(numbers())
    assert [next(ahead) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(DataError, match="no more"):
        next(ahead)


# --- the cache -----------------------------------------------------------------------------------------------------------


def counted(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the files that are read from now on."""
    seen: list[str] = []
    read = text_cache.rows_of

    def spy(file: Path, *rest: Any) -> Any:
        seen.append(file.name)
        return read(file, *rest)

    monkeypatch.setattr(text_cache, "rows_of", spy)
    return seen


def test_a_file_is_read_once_until_it_changes(tmp_path, monkeypatch):
    seen = counted(monkeypatch)
    cache = tmp_path / "cache"
    data = tmp_path / "data"
    for name in ("train-0.csv", "train-1.csv"):
        write(data / name, f"label,text\n{name},x {name}\nb,{name} x\n")
    first = load_dataset(data, cache=cache, test_share=0)
    assert seen == ["train-0.csv", "train-1.csv"]
    again = load_dataset(data, cache=cache, test_share=0)
    assert len(seen) == 2
    assert again.fingerprint == first.fingerprint
    write(data / "train-1.csv", "label,text\nb,changed\nb 2,too\n")
    os.utime(data / "train-1.csv", ns=(1, 1))
    changed = load_dataset(data, cache=cache, test_share=0)
    assert seen[2:] == ["train-1.csv"]
    assert changed.inputs[:].tolist() == ["x train-0.csv", "train-0.csv x", "changed", "too"]
    assert changed.fingerprint != first.fingerprint
    assert len(list(cache.rglob("*.arrow"))) == 2  # what it was made of before is gone
    with pytest.warns(SvpWarning, match="1 of 4 training rows repeat"):
        load_dataset(data, cache=cache, test_share=0, label_column="text", text_column="label")
    assert len(seen) == 5  # other columns are another reading


@pytest.mark.parametrize("how", ["written within a tick of the clock", "put in its place"])
def test_a_file_of_the_same_size_and_time_is_told_from_another(tmp_path, how):
    file, cache = write(tmp_path / "t.csv", "label,text\nyes,one\nno,two\n"), tmp_path / "cache"
    if how == "put in its place":  # an old file by another
        os.utime(file, ns=(10**18, 10**18))
    before = file.stat()
    load_dataset(file, cache=cache, test_share=0)
    other = write(tmp_path / "new.csv", "label,text\nyes,ten\nno,six\n")
    if how == "put in its place":
        other.replace(file)
    else:
        file.write_bytes(other.read_bytes())
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    for _ in range(2):
        assert load_dataset(file, cache=cache, test_share=0).inputs[:].tolist() == ["ten", "six"]


@pytest.mark.parametrize("damage", ["killed", "no mark", "cut", "no json"])
def test_what_was_cut_short_is_begun_again(tmp_path, monkeypatch, damage):
    file, cache = write(tmp_path / "t.csv", "label,text\n" + rows(9)), tmp_path / "cache"
    if damage == "killed":
        with monkeypatch.context() as patch:
            patch.setattr(text_cache, "replace", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                load_dataset(file, cache=cache)
    else:
        load_dataset(file, cache=cache)
        arrow, mark = next(cache.rglob("*.arrow")), next(cache.rglob("*.json"))
        if damage == "no mark":
            mark.unlink()
        elif damage == "cut":
            arrow.write_bytes(arrow.read_bytes()[:-10])
        else:
            mark.write_text("{")
    seen = counted(monkeypatch)
    data = load_dataset(file, cache=cache, test_share=0)
    assert seen == ["t.csv"]
    assert data.inputs[:].tolist() == [f"text {i}" for i in range(9)]


def test_a_full_disk_is_named_and_leaves_nothing_half_made(tmp_path, monkeypatch):
    file, cache = write(tmp_path / "t.csv", "label,text\n" + rows(9)), tmp_path / "cache"
    usage = shutil.disk_usage(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=10))
        with pytest.raises(StorageError, match=r"the texts of t.csv take .* in the cache.*--cache"):
            load_dataset(file, cache=cache)

    class Full(io.FileIO):
        def write(self, content: Any) -> int:
            raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        opened = Path.open
        patch.setattr(
            Path, "open", lambda p, mode="r", *a, **k: Full(p, "wb") if mode == "wb" else opened(p, mode, *a, **k)
        )
        with pytest.raises(
            StorageError, match=r"the cache of texts .* cannot be written: No space left on device.*--cache"
        ):
            load_dataset(file, cache=cache)
    assert not list(cache.rglob("*.part"))
    assert len(load_dataset(file, cache=cache, test_share=0)) == 9


def test_the_fingerprint_is_of_the_content(tmp_path, monkeypatch):
    values = [("a", "one"), ("b", "two"), ("a", "three")]
    csv_, parquet = table(tmp_path / "t.csv", values), table(tmp_path / "t.parquet", values)
    first = load_dataset(csv_, test_share=0)
    monkeypatch.setattr(text_parquet, "_BLOCK_ROWS", 1)
    assert load_dataset(parquet, test_share=0, cache=tmp_path).fingerprint == first.fingerprint
    arrays = Dataset.from_arrays(["one", "two", "three"], [0, 1, 0], classes=["a", "b"])
    assert arrays.fingerprint == first.fingerprint
    other = Dataset.from_arrays(["one", "two", "thre"], [0, 1, 0], classes=["a", "b"])
    assert other.fingerprint != first.fingerprint


# --- texts in memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [list, tuple, np.array, lambda x: np.array(x, object), pa.array])
def test_texts_in_memory(kind):
    texts = ["one", "", "three"]
    data = Dataset.from_arrays(kind(texts), [1, 0, 1], ids=[5, 2, 9], test=(["x"], [0]))
    assert data.is_text
    assert data.inputs.dtype == object
    assert data.inputs.tolist() == ["", "one", "three"]
    assert all(type(text) is str for text in data.inputs)
    assert data.test.is_text
    with pytest.raises(SettingError, match="holds texts"):
        _ = data.statistics


@pytest.mark.parametrize("bad", [None, 1.5, "half \ud800"])
def test_what_is_no_text_is_named(bad):
    with pytest.raises(DataError, match=r"1 of 3 texts are no text .* rows \[1\]"):
        Dataset.from_arrays(["a", bad, "c"])
    with pytest.raises(DataError, match="must agree"):
        Dataset.from_arrays(["a", "b"], [0, 1], test=(np.zeros((2, 3)), [0, 1]))
