"""Questions out and answers in: every format, filled in as its people and tools fill it in."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from svp.errors import DataError, SettingError, SvpError, UnknownName
from svp.exchange import FORMATS, Asked, Told, format_of, read, write
from svp.exchange.tables import csv_of, read_csv

CLASSES = ("cat", 'a "dog" & co')
ASKED = [
    Asked(12, "a.jpg", 3, text="=1+1", score=-0.5, guess=("cat", 0.75)),
    Asked(7, "sub/b.jpg", 3, text="plain"),
    Asked(900, "c.jpg", 3, text='\'-quoted, "twice"\nand over lines'),
]
SAID = {12: "cat", 7: CLASSES[1]}  # 900 is not answered


def saw(told: list[Told]) -> dict[int | None, str]:
    return {one.id: one.said for one in told}


def filled_csv(path: Path) -> Path:
    rows = list(csv.DictReader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline="")))
    for row in rows:
        row["label"] = SAID.get(int(row["id"]), " ")
    out = io.StringIO(newline="")
    writer = csv.DictWriter(out, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    path.write_text(out.getvalue(), encoding="utf-8", newline="")
    return path


def filled_jsonl(path: Path) -> Path:
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps({**row, "label": SAID.get(row["id"])}) + "\n" for row in rows[::-1]))
    return path


def filled_parquet(path: Path) -> Path:
    rows = pq.read_table(path).to_pylist()
    pq.write_table(pa.Table.from_pylist([{**row, "label": SAID.get(row["id"])} for row in rows]), path)
    return path


def label_studio(path: Path) -> list[dict[str, Any]]:
    """What its JSON export holds of tasks that were imported: here ann has answered, somebody else skipped."""
    tasks = json.loads(path.read_text())
    for number, task in enumerate(tasks, 1):
        said = SAID.get(task["data"]["svp_id"])
        choice = {"type": "choices", "from_name": "label", "to_name": "text", "value": {"choices": [said]}}
        task |= {"id": number, "annotations": []}
        if said:
            common = {"id": number, "created_at": "2026-01-01T00:00:00Z", "updated_at": "2026-01-02T00:00:00Z"}
            task["annotations"] = [
                {**common, "completed_by": 4, "result": [choice], "was_cancelled": False},
                {**common, "completed_by": {"id": 5, "email": "bob@x"}, "result": [], "was_cancelled": True},
            ]
    return tasks  # type: ignore[no-any-return]


def exported_json(path: Path) -> Path:
    path.write_text(json.dumps(label_studio(path)))
    return path


def rows_of_json_min(path: Path) -> list[dict[str, Any]]:
    """One row an annotation that was not skipped; tasks without one are absent."""
    return [
        {**task["data"], "id": task["id"], "label": note["result"][0]["value"]["choices"][0], "annotator": 4,
         "annotation_id": 1, "created_at": note["created_at"], "updated_at": note["updated_at"], "lead_time": 1.5}
        for task in label_studio(path)
        for note in task["annotations"]
        if not note["was_cancelled"]
    ]  # fmt: skip


def exported_json_min(path: Path) -> Path:
    path.write_text(json.dumps(rows_of_json_min(path)))
    return path


def exported_csv(path: Path) -> Path:
    rows = rows_of_json_min(path)
    path = path.with_suffix(".csv")
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, sorted({name for row in rows for name in row}))
        writer.writeheader()
        writer.writerows(rows)
    return path


def of_prodigy(path: Path) -> Path:
    tasks = [json.loads(line) for line in path.read_text().splitlines()]
    answers = []
    for task in tasks:
        said = SAID.get(task["meta"]["svp_id"])
        answer = {"answer": "accept", "accept": [said]} if said else {"answer": "ignore", "accept": []}
        assert {option["id"] for option in task["options"]} == {*CLASSES, "unsure"}
        answers.append({**task, **answer, "_annotator_id": "ann", "_timestamp": 1767225600})
    path.write_text("".join(json.dumps(answer) + "\n" for answer in answers))
    return path


@pytest.mark.parametrize(
    ("name", "file", "fill", "who"),
    [
        ("csv", "b.csv", filled_csv, None),
        ("jsonl", "b.jsonl", filled_jsonl, None),
        ("parquet", "b.parquet", filled_parquet, None),
        ("label-studio", "b.json", exported_json, "annotator 4"),
        ("label-studio", "b.json", exported_json_min, "annotator 4"),
        ("label-studio", "b.json", exported_csv, "annotator 4"),
        ("prodigy", "b.jsonl", of_prodigy, "ann"),
    ],
)
def test_what_was_asked_comes_back_with_its_answers(
    name: str, file: str, fill: Callable[[Path], Path], who: str | None, tmp_path: Path
) -> None:
    path = tmp_path / file
    write(path, ASKED, CLASSES, name)
    told = read(fill(path))  # the format is known by the file
    answers = [one for one in told if one.said != "skip"]
    assert saw(answers) == SAID
    assert {one.who for one in answers} == {who}
    assert {one.key for one in answers} == {"a.jpg", "sub/b.jpg"}
    assert all(one.at for one in answers) == (who is not None)
    skips = {(one.id, one.who) for one in told if one.said == "skip"}
    assert skips == {"annotator 4": set(), "ann": {(900, "ann")}, None: set()}[who] | (
        {(12, "bob@x"), (7, "bob@x")} if fill is exported_json else set()
    )


def test_a_folder_is_sorted_into_its_classes(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    items = [Asked(i, f"x/{i % 2}.jpg", 0, file=photos / f"{i % 2}{i}.jpg") for i in range(4)]
    for item in items:
        assert item.file is not None
        item.file.write_text(str(item.id))
    write(tmp_path / "out", items, ("cat", "dog"))
    places = {int(path.name[:6]): path for path in (tmp_path / "out").glob("0*")}
    assert {i: path.read_text() for i, path in places.items()} == {i: str(i) for i in range(4)}
    assert read(tmp_path / "out") == []
    for i, to in ((0, "cat"), (1, "dog/and below"), (2, "none")):
        (tmp_path / "out" / to).mkdir(exist_ok=True)
        places[i].rename(tmp_path / "out" / to / places[i].name)
    (tmp_path / "out/cat/Thumbs.db").touch()
    (tmp_path / "out/cat/.DS_Store").touch()
    told = read(tmp_path / "out")
    assert saw(told) == {0: "cat", 1: "dog", 2: "none"}
    assert {one.name for one in told} == {"00.jpg", "11.jpg", "02.jpg"}
    assert len(list(photos.iterdir())) == 4
    (tmp_path / "out/cat/mine.jpg").touch()
    with pytest.raises(DataError, match=r"mine.jpg was not put there by svp"):
        read(tmp_path / "out")


@pytest.mark.parametrize(
    ("items", "classes", "error", "words"),
    [
        ([Asked(1, "a", 0, text="a")], ("cat",), SettingError, "no file that could be sorted"),
        ([], ("a/b",), SettingError, "cannot be the name of a folder"),
        ([Asked(1, "a", 0, file=Path("nowhere.jpg"))], ("cat",), DataError, "has gone"),
    ],
)
def test_what_cannot_be_sorted(
    items: list[Asked], classes: tuple[str, ...], error: type[SvpError], words: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=words):
        write(tmp_path / "out", items, classes)


CELLS = st.text(st.sampled_from("=+-@\t\r'\"a,;\n "), max_size=6)


@given(st.lists(CELLS, min_size=1, max_size=4))
def test_any_text_is_neutral_in_a_spreadsheet_and_comes_back_as_it_was(texts: list[str]) -> None:
    """Read by a plain CSV reader no cell begins a formula; what `read_csv` restores is the text."""
    from svp.exchange.tables import _restored

    content = csv_of(["id", "text"], [{"id": i, "text": text} for i, text in enumerate(texts)]).decode("utf-8-sig")
    cells = [row[1] for row in csv.reader(io.StringIO(content, newline=""))][1:]
    assert not [cell for cell in cells if cell.startswith(("=", "+", "-", "@", "\t", "\r"))]
    assert [_restored(cell) for cell in cells] == texts


def test_keys_with_formulas_come_back(tmp_path: Path) -> None:
    path = tmp_path / "b.csv"
    items = [Asked(1, "=x.jpg", 0), Asked(2, "'-y.jpg", 0, label="-1")]
    path.write_bytes(csv_of(["key", "label"], [{"key": item.key, "label": item.label or "+"} for item in items]))
    assert [(one.key, one.said) for one in read_csv(path)] == [("=x.jpg", "+"), ("'-y.jpg", "-1")]


def test_tasks_for_label_studio_have_an_interface_that_offers_the_classes(tmp_path: Path) -> None:
    photo = tmp_path / "my pets" / "sub" / "a b.jpg"
    write(tmp_path / "t.json", [Asked(1, "sub/a b.jpg", 2, file=photo, guess=("cat", 0.75))], CLASSES)
    (task,) = json.loads((tmp_path / "t.json").read_text())
    assert task["data"]["image"] == "/data/local-files/?d=my%20pets/sub/a%20b.jpg"
    (guess,) = task["predictions"]
    assert (guess["score"], guess["result"][0]["value"]) == (0.75, {"choices": ["cat"]})
    view = ElementTree.fromstring((tmp_path / "t.xml").read_text())
    assert [choice.get("value") for choice in view.iter("Choice")] == [*CLASSES, "unsure", "none"]
    choices = next(view.iter("Choices"))
    assert (choices.get("name"), choices.get("toName")) == (
        guess["result"][0]["from_name"],
        guess["result"][0]["to_name"],
    )


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("a.csv", "", "is empty"),
        ("a.csv", "id,text\n1,x\n", "needs label"),
        ("a.csv", 'id,label\n1,"x\n', "is no CSV"),
        ("a.csv", "id,label\n1,x,y\n", "row 2: it has more cells"),
        ("a.csv", b"id,label\n1,\xff\n", "UTF-8"),
        ("a.jsonl", "{}\nx\n", "line 2"),
        ("a.jsonl", '{"id": 1.5, "label": "x"}', "the id is '1.5'"),
        ("a.csv", "id,label\n9223372036854775808,x\n", "row 2: the id is '9223372036854775808'"),
        ("a.jsonl", '{"id": 1, "label": "x", "at": 1767225600000000}', "row 1: the time is 1767225600000000"),
        ("a.jsonl", '{"answer": "ignore", "meta": {"svp_id": 1}, "_timestamp": 1e300}', "line 1: the time is 1e"),
        ("a.parquet", "x", "cannot be read"),
        ("a.json", "x", "is no JSON"),
        ("a.json", "{}", "no list of tasks"),
        ("a.json", '[{"data": {"text": "x"}}]', "no svp_id"),
        ("a.json", '[{"svp_id": 1, "label": {"choices": ["a", "b"]}}]', "2 classes are chosen"),
        ("a.jsonl", '{"answer": "accept", "meta": {"svp_id": 1}, "accept": ["a", "b"]}', "2 classes are chosen"),
    ],
)
def test_files_that_cannot_be_read(name: str, content: str | bytes, words: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=words) as caught:
        read(path)
    assert "\n" not in str(caught.value)


def without_rows(path: Path, columns: list[str]) -> Path:
    """A table of these columns without a row; JSON lines have no columns then."""
    if path.suffix == ".parquet":
        pq.write_table(pa.table({name: pa.array([], pa.string()) for name in columns}), path)
    else:
        path.write_text(",".join(columns) if path.suffix == ".csv" else "")
    return path


@pytest.mark.parametrize("name", ["a.csv", "a.parquet", "a.jsonl"])
def test_a_table_without_rows_is_read_as_one_with_rows_is(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    with pytest.raises(DataError, match="is empty; it needs a column label, and one called id or key"):
        read(without_rows(path, []))
    if name == "a.jsonl":
        return
    for columns in (["id", "text"], ["label", "text"]):
        with pytest.raises(DataError, match=f"has the columns {', '.join(columns)}; it needs label, and id or key"):
            read(without_rows(path, columns))
    assert read(without_rows(path, ["id", "label"])) == read(without_rows(path, ["key", "label"])) == []


@pytest.mark.parametrize("name", ["csv", "jsonl", "parquet", "label-studio", "prodigy"])
def test_a_question_as_it_was_written_holds_no_answers_under_the_name_it_was_given(name: str, tmp_path: Path) -> None:
    write(tmp_path / "batch", ASKED, CLASSES, name)
    assert {path.name for path in tmp_path.iterdir()} - {"batch.xml"} == {"batch"}
    assert read(tmp_path / "batch", name) == []


def test_a_format_is_known_by_its_name_or_asked_for(tmp_path: Path) -> None:
    assert format_of(tmp_path) is format_of(Path("new")) is FORMATS["folder"]
    assert format_of(Path("a.TSV")) is FORMATS["csv"]
    with pytest.raises(SettingError, match="which format is this"):
        format_of(Path("a.xlsx"))
    with pytest.raises(UnknownName, match="did you mean 'label-studio'"):
        format_of(Path("a.json"), "labelstudio")


def test_links_of_the_pool_are_sorted_as_files(tmp_path: Path) -> None:
    """A hard link of a relative link would lead nowhere from another folder."""
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos/a.jpg").write_text("a")
    link = tmp_path / "photos/b.jpg"
    link.symlink_to("a.jpg")
    write(tmp_path / "out", [Asked(1, "b.jpg", 0, file=link)], ("cat", "dog"))
    (place,) = (path for path in (tmp_path / "out").iterdir() if path.name.endswith("b.jpg"))
    assert place.read_text() == "a"
    place.rename(tmp_path / "out/cat" / place.name)
    assert saw(read(tmp_path / "out")) == {1: "cat"}
    (tmp_path / "out/dog/000002-c.jpg").symlink_to("nowhere.jpg")
    with pytest.raises(DataError, match=r"000002-c.jpg leads to no file"):
        read(tmp_path / "out")


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.json", '[{"data": {"svp_id": 1}, "annotations": null}]'),
        ("a.json", '[{"data": {"svp_id": 1}, "annotations": [{"result": null}]}]'),
        ("a.json", '[{"data": 5}]'),
        ("a.json", "[" * 100_000),
        ("a.csv", 'id,label\n1,"{""choices"": null}"\n'),
        ("a.jsonl", "[" * 100_000),
        ("p.jsonl", '{"meta": {"svp_id": 1}, "answer": "accept", "accept": null}'),
        ("p.jsonl", '{"meta": {"svp_id": 1}, "answer": ["x"]}'),
    ],
)
def test_values_of_another_kind_are_named(name: str, content: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=name):
        read(tmp_path / name, "prodigy" if name == "p.jsonl" else None)
