"""Sessions with people, driven as people drive them: by commands and files."""

import csv
import fcntl
import io
import json
import os
import shutil
import signal
import sqlite3
import sys
import tempfile
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import svp
from svp import cli
from svp.data.base import Dataset
from svp.labels import Answer, Batch, LabelStore
from svp.workflows.files import write_columns
from svp.workflows.outcomes import Ranked
from svp.workflows.people import best
from svp.workflows.pool import distinct, distinct_of, join, vectors_of
from svp.workflows.session import Session

FAST = ["--proxy.model", "logistic", "--target.model", "logistic", "--quiet"]
NET = ["preact8", "--proxy.width", "0.25", "--proxy.epochs", "1", "--proxy.batch-size", "8", "--proxy.min-steps", "9"]
SHADES = {"dark": 40, "mid": 120, "light": 200}


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))


def photo(path: Path, shade: int, seed: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    noise = np.random.default_rng(seed).integers(0, 50, (8, 8, 3))
    Image.fromarray((noise + shade).astype(np.uint8)).save(path)


@pytest.fixture
def photos() -> Path:
    """36 photos of three shades, unsorted, some in folders."""
    for i in range(36):
        name = list(SHADES)[i % 3]
        photo(Path("photos") / ("more" if i % 4 == 0 else "") / f"{name}{i}.png", SHADES[name], i)
    return Path("photos")


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """What a command says as JSON."""
    cli.main(["session", *arguments, "--quiet", "--json"])
    return json.loads(capsys.readouterr().out)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main(["session", *arguments, "--quiet"])
    assert left.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


def begin(capsys: pytest.CaptureFixture[str], *more: str) -> Any:
    return run(
        capsys, "new", "s", "--data", "photos", "--classes", "dark,mid,light", "--image-size", "8", *FAST[:-1], *more
    )


def table(path: str) -> list[dict[str, str]]:
    text = Path(path).read_text(encoding="utf-8-sig")
    return list(csv.DictReader(io.StringIO(text), delimiter=";" if ";" in text.partition("\n")[0] else ","))


def fill(path: str, label: Callable[[dict[str, str]], str]) -> None:
    """A person with a spreadsheet."""
    rows = table(path)
    with open(path, "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(rows[0]), delimiter=";")  # as those of some countries write it
        writer.writeheader()
        writer.writerows({**row, "label": label(row)} for row in rows)


def shade(row: dict[str, str]) -> str:
    return next(name for name in SHADES if name in row["key"])


def questions(store: Path) -> list[tuple[list[int], str]]:
    with LabelStore.open(store) as opened:
        return [(x.ids.tolist(), x.origin) for x in opened.history() if isinstance(x, Batch)]


# --- the same ids as the simulation ---------------------------------------------------------------------------------------


def sorted_photos() -> Path:
    """The same shades, labelled and divided."""
    for part, n in (("train", 45), ("test", 12)):
        for i in range(n):
            name = list(SHADES)[i % 3]
            photo(Path("sorted") / part / name / f"{i}.png", SHADES[name], 100 * n + i)
    return Path("sorted")


@pytest.mark.parametrize(
    ("proxy", "method"),
    [
        (["logistic"], "margin"),
        (NET, "entropy"),
        (NET, "k_center"),
    ],
)
def test_driven_through_files_it_asks_for_what_the_simulation_asks_for(
    proxy: list[str], method: str, capsys: pytest.CaptureFixture[str]
) -> None:
    root = sorted_photos()
    settings = ["--proxy.model", *proxy, "--target.model", "logistic", "--method", method, "--image-size", "8"]
    if proxy[0] != "logistic":
        settings += ["--compute.precision", "fp32", "--compute.threads", "1"]
    cli.main(["active", str(root), *settings, "--labelled", "9", "15", "19", "--out", "a", "--quiet"])
    capsys.readouterr()
    expected = questions(Path("a/sessions/proxy-seed-0/labels.sqlite"))
    unsorted = ["--data", str(root / "train"), "--classes", "dark,light,mid", "--no-diverse"]
    assert run(capsys, "new", "s", *unsorted, *settings)["n"] == 45
    for n in (9, 6, 4):
        run(capsys, "ask", "s", "-n", str(n), "--out", "batch.csv")
        fill("batch.csv", lambda row: row["key"].split("/")[0])
        told = run(capsys, "tell", "s", "batch.csv", "--who", "ann")
        assert (told["new"], told["open"]) == (n, 0)
    assert questions(Path("s/labels.sqlite")) == expected
    assert [origin for _, origin in expected] == ["random start", method, method]


# --- a session from end to end --------------------------------------------------------------------------------------------


def test_photos_are_labelled_by_sorting_them(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    asked = run(capsys, "ask", "s", "-n", "9", "--out", "sort")
    links = list(Path("sort").glob("0*"))
    assert len(links) == 9
    for path in links[:6]:
        path.rename(path.parent / next(name for name in SHADES if name in path.name) / path.name)
    links[6].rename(Path("sort/unsure") / links[6].name)
    told = run(capsys, "tell", "s", "sort", "--who", "ann")
    assert (told["new"], told["given"], told["labelled"], told["open"]) == (7, 7, 6, 2)
    again = run(capsys, "tell", "s", "sort", "--who", "ann")
    assert (again["new"], again["labelled"]) == (0, 6)
    rest = run(capsys, "ask", "s", "-n", "9")
    assert len(rest["ids"]) == 2
    assert set(rest["ids"]) <= set(asked["ids"])
    status = run(capsys, "status", "s")
    assert status["people"] == {"ann": {"label": 6, "skip": 0, "unsure": 1, "none": 0}}
    assert status["undecided"] == 1


def test_a_column_is_filled_in_and_a_model_comes_out(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    for n in ("12", "4"):
        run(capsys, "ask", "s", "-n", n, "--out", "batch.csv")
        fill("batch.csv", shade)
        run(capsys, "tell", "s", "batch.csv", "--who", "ann")
    done = run(capsys, "finish", "s")
    assert (done["n_labelled"], done["n_predicted"]) == (16, 20)
    assert {row["label"] == shade(row) for row in table(done["labelled"])} == {True}
    assert sum(row["predicted"] == shade(row) for row in table(done["predicted"])) >= 18
    assert {row["key"] for name in ("labelled", "predicted") for row in table(done[name])} == {
        path.relative_to(photos).as_posix() for path in photos.rglob("*.png")
    }
    assert (Path(done["target"]) / "done.json").exists()
    run(capsys, "export", "s", "--out", "labels.parquet")
    assert sorted(pq.read_table("labels.parquet")["id"].to_pylist()) == sorted(
        int(r["id"]) for r in table(done["labelled"])
    )


def test_texts_are_labelled_in_a_table_whose_formulas_are_harmless(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["=1+1", "-good", "@bad", "'=quoted", "plain good", "so bad", '+good, "very"', "bad\nlines"]
    with open("t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    begun = run(capsys, "new", "s", "--data", "t.csv", "--classes", "good", "bad")
    assert (begun["proxy"], begun["target"]) == ("hashed-linear", "hashed-linear")  # nobody said which
    run(capsys, "ask", "s", "-n", "8", "--out", "b.csv")
    cells = {int(row["id"]): row["text"] for row in table("b.csv")}
    assert {cell[0] for cell in cells.values()} <= set("'psbad")
    run(capsys, "ask", "s", "--out", "b.jsonl")
    plain = {row["id"]: row["text"] for row in map(json.loads, Path("b.jsonl").read_text().splitlines())}
    assert plain == dict(enumerate(texts))
    fill("b.csv", lambda row: "GOOD" if "good" in row["text"] else "bad" if "bad" in row["text"] else "none")
    told = run(capsys, "tell", "s", "b.csv")
    assert (told["new"], told["labelled"]) == (8, 6)
    assert run(capsys, "finish", "s")["n_predicted"] == 0  # the other two are of none of the classes
    labelled = {int(row["id"]): (row["text"], row["label"]) for row in table("s/labelled.csv")}
    assert labelled == {i: (cell, "good" if "good" in cell else "bad") for i, cell in cells.items() if i not in (0, 3)}
    data = svp.load_dataset("s/labelled.csv", test_share=0)  # a data set of its own
    assert (len(data), data.classes) == (6, ("bad", "good"))


def test_texts_are_printed_with_their_question_each_on_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["short", "two\nlines", "\x1b[2Jcleared", "word " * 50, "字" * 300]
    with open("t.jsonl", "w", encoding="utf-8") as file:
        file.writelines(json.dumps({"text": text}) + "\n" for text in texts)
    run(capsys, "new", "s", "--data", "t.jsonl", "--classes", "good,bad")
    for _ in range(2):  # a new question, and what is left of it
        cli.main(["session", "ask", "s", "-n", "5", "--quiet"])
        lines = dict(line.split("\t")[::2] for line in capsys.readouterr().out.splitlines() if line[0].isdigit())
        assert lines["0"] == "short"
        assert lines["1"] == "two lines"
        assert "\x1b" not in lines["2"]
        assert all(lines[i].startswith(texts[int(i)][:80]) and lines[i].endswith(" ...") for i in "34")
        assert max(map(len, lines.values())) <= 100
    asked = run(capsys, "ask", "s")
    assert asked["texts"] == [texts[i] for i in asked["ids"]]


@pytest.mark.parametrize("column", ["label", "note"])
def test_labels_that_a_table_has_and_that_are_not_read_are_said(
    column: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text(f"text,{column}\n" + "".join(f"text {i},good\n" for i in range(9)))
    cli.main(["session", "new", "s", "--data", "t.csv", "--classes", "good,bad", "--quiet"])
    assert ("The column label is not read" in capsys.readouterr().out) is (column == "label")


def test_a_text_in_the_row_of_another_example_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    texts = ["so good", "so bad", "=quite good", "so good", "very bad\nindeed"]
    with open("t.csv", "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([["text"], *([text] for text in texts)])
    run(capsys, "new", "s", "--data", "t.csv", "--classes", "good,bad")
    run(capsys, "ask", "s", "-n", "5", "--out", "b.csv")
    fill("b.csv", lambda row: "good" if "good" in row["text"] else "bad")
    rows = sorted(table("b.csv"), key=lambda row: int(row["id"]))

    def written(path: str, texts: list[str]) -> str:
        """The rows with these texts, as after a column was sorted by itself."""
        kept = [{**row, "text": text} for row, text in zip(rows, texts, strict=True)]
        if path.endswith(".parquet"):
            pq.write_table(pa.Table.from_pylist(kept), path)
        else:
            Path(path).write_text("".join(json.dumps(row) + "\n" for row in kept))
        return path

    for path in ("b.jsonl", "b.parquet"):
        line = fails(capsys, "tell", "s", written(path, [texts[i] for i in (0, 1, 4, 3, 2)]))
        assert f"{path}, row {3 if path == 'b.jsonl' else 2}: the text is that of example 4, not of 2" in line
    assert run(capsys, "status", "s")["labelled"] == 0
    cut = [
        *texts[:3],
        "\ud800",
        "very bad",
    ]  # some spreadsheet has lost what came after the line end: it is nobody else's text
    assert run(capsys, "tell", "s", written("c.jsonl", cut))["new"] == 5
    assert run(capsys, "tell", "s", "b.csv")["given"] == 5


def test_people_disagree_and_are_asked_again(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    first = run(capsys, "ask", "s", "-n", "9", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv", "--who", "ann")
    odd = first["ids"][0]
    fill("b.csv", lambda row: ("mid" if shade(row) != "mid" else "dark") if int(row["id"]) == odd else shade(row))
    assert "ann answered" in fails(capsys, "tell", "s", "b.csv", "--who", "ann")
    told = run(capsys, "tell", "s", "b.csv", "--who", "bob")
    assert (told["labelled"], told["ties"]) == (8, 1)
    status = run(capsys, "status", "s")
    assert status["agreement"]["examples"] == 9
    assert status["agreement"]["observed"] == pytest.approx(8 / 9)
    assert 0 < status["agreement"]["alpha"] < 1
    second = run(capsys, "ask", "s", "-n", "3")
    assert second["ids"][0] == odd
    assert len(second["ids"]) == 4
    with Session.open("s") as session:
        assert session.tell({odd: 2}, who="cyd") == 1
        session.add_classes(["pitch"])
        session.tell({second["ids"][1]: 3}, who="ann")
        assert session.undo("cyd").n == 1
        assert session.status()["ties"] == 1
        assert session.status()["per_class"]["pitch"] == 1
        session.tell(dict.fromkeys(second["ids"][2:], 0), who="ann")
        assert session.ask(2).origin == "margin"  # a proxy of four classes
        assert len(session.ask(2)) == 2  # the tie was asked again already


@pytest.mark.parametrize("out", ["b.csv", "b.jsonl", "b.parquet", "b"])
def test_an_old_file_told_again_takes_no_correction_back(
    out: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    first = run(capsys, "ask", "s", "-n", "8", "--out", out)
    names = dict(zip(first["ids"], map(Path, first["keys"]), strict=True))
    said = {id_: shade({"key": str(names[id_])}) for id_ in first["ids"]}
    if out.endswith(".csv"):
        fill(out, shade)
    elif out.endswith(".jsonl"):
        rows = [json.loads(line) for line in Path(out).read_text().splitlines()]
        Path(out).write_text("".join(json.dumps({**row, "label": said[row["id"]]}) + "\n" for row in rows))
    elif out.endswith(".parquet"):
        rows = pq.read_table(out).to_pylist()
        pq.write_table(pa.Table.from_pylist([{**row, "label": said[row["id"]]} for row in rows]), out)
    else:
        for id_, name in names.items():
            (link,) = Path(out).glob(f"*{id_}-{name.name}")
            link.rename(Path(out) / said[id_] / link.name)
    assert run(capsys, "tell", "s", out, "--who", "ann")["new"] == 8
    odd = first["ids"][0]
    corrected, other = [i for i in range(3) if list(SHADES)[i] != said[odd]]
    with Session.open("s") as session:
        session.tell({odd: corrected}, who="ann", replace=True)
        session.tell({odd: other}, who="bob")
    assert odd in run(capsys, "ask", "s", "-n", "3")["ids"]  # they are divided on it
    assert f"Example {odd}: ann answered" in fails(capsys, "tell", "s", out, "--who", "ann")
    with Session.open("s") as session:
        assert {a.label for a in session.store.said() if a.id == odd and a.who == "ann"} == {corrected}


@pytest.mark.parametrize("they_look_again", [True, False])
def test_those_on_whom_people_stay_divided_come_again_once_and_when_nothing_else_is_left(
    photos: Path, they_look_again: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    with Session.open("s") as session:
        keys = session.dataset.keys or ()

        def ask(n: int) -> list[int]:
            """What is asked; ann answers what is new, and both say what they said of what is not, or nothing."""
            before, ids = {a.id for a in session.store.said()}, session.ask(n).ids.tolist()
            session.tell({i: list(SHADES).index(shade({"key": keys[i]})) for i in ids if i not in before}, who="ann")
            if they_look_again:
                for who, label in (("ann", 0), ("bob", 1)):
                    session.tell(dict.fromkeys(before.intersection(ids), label), who=who)
            return ids

        first = ask(6)
        odd = first[3]
        for who, label in (("ann", 0), ("bob", 1)):
            session.tell({odd: label}, who=who, replace=True)
        assert ask(10)[0] == odd
        assert [odd in ask(n) for n in (5, 10)] == [False, False]
        session.ask_more(5)
        assert {each.id for each in session.store.waiting()}.isdisjoint([odd])
        assert odd not in ask(5)
        assert ask(1) == [odd]
        assert ask(1) == [odd]
        session.tell({odd: 1}, who="cyd")
        assert "everything was asked" in fails(capsys, "ask", "s", "-n", "1")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda rows: [{**rows[0], "label": "cat"}], "row 2: 'cat' is no class; known are dark, mid, light, skip"),
        (lambda rows: [{**rows[0], "key": rows[1]["key"], "label": "mid"}], "were the rows or names mixed up"),
        (lambda rows: [{"key": "no.png", "label": "mid"}], "'no.png' is none of the examples"),
        (
            lambda rows: [{**rows[2], "label": "dark"}],
            "row 3: 'mid', but bad.csv, row 2 says 'dark' of the same example",
        ),
        (lambda rows: [{"id": "99", "label": "mid"}], "row 2: example 99 was never asked"),
        (lambda rows: [{"id": "x", "label": "mid"}], "the id is 'x'"),
        (lambda rows: [{"id": rows[0]["id"], "class of it": "mid"}], "it needs label, and id or key"),
    ],
)
def test_a_file_that_does_not_fit_stores_nothing(
    photos: Path, change: Any, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    run(capsys, "ask", "s", "-n", "4", "--out", "b.csv")
    rows = table("b.csv")
    good = {**rows[2], "label": "mid"}
    bad = change(rows)
    kept = [good, *bad] if set(bad[0]) == set(good) else bad
    with open("bad.csv", "w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, list(kept[0]))
        writer.writeheader()
        writer.writerows(kept[::-1])
    assert words in fails(capsys, "tell", "s", "bad.csv")
    assert run(capsys, "status", "s")["labelled"] == 0


def test_rows_of_numbers_are_labelled_all_of_them(capsys: pytest.CaptureFixture[str]) -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    np.savez("rows.npz", x=x)
    begun = run(capsys, "new", "s", "--data", "rows.npz", "--classes", "below", "above", "--target.model", "linear")
    models = {"proxy": "logistic", "target": "linear"}
    assert begun == {"folder": "s", "n": 40, "classes": ["below", "above"], "held_out": 0, **models}
    ids = run(capsys, "ask", "s", "-n", "10")["ids"]
    with Session.open("s") as session:
        session.tell({i: int(x[i, 0] > 0) for i in ids})
    assert set(run(capsys, "ask", "s", "-n", "30")["ids"]) == set(range(40)) - set(ids)


def test_a_test_part_that_is_held_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    x, y = np.random.default_rng(0).normal(size=(40, 3)), np.arange(40) % 2
    np.savez("labelled.npz", x=x, y=y)
    np.savez("plain.npz", x=x)
    for data, n_test in (("labelled", 8), ("plain", 0)):
        words = ["new", data, "--data", f"{data}.npz", "--classes", "a,b", "--quiet"]
        cli.main(["session", *words])
        said = capsys.readouterr().out.splitlines()
        assert f"{data}: {40 - n_test} examples" in said[0]
        line = "Held out: 8 more are the test part of these data, which are labelled; nobody is asked about them"
        assert (line in said) == bool(n_test)
        assert run(capsys, *words[:-1])["held_out"] == run(capsys, "status", data)["held_out"] == n_test
        cli.main(["session", "status", data])
        assert (line in capsys.readouterr().out.splitlines()) == bool(n_test)


# --- files come and go ----------------------------------------------------------------------------------------------------


def test_files_added_join_and_what_changed_or_went_is_left_out(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    first = run(capsys, "ask", "s", "-n", "12", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv", "--who", "ann")
    gone, changed = first["keys"][0], first["keys"][1]
    kept = (photos / gone).read_bytes()
    (photos / gone).unlink()
    photo(photos / changed, 5, 999)
    photo(photos / "a-new-dark.png", SHADES["dark"], 1000)
    asked = run(capsys, "ask", "s", "-n", "25")  # of 24 that were there, and the new one
    assert asked["notes"][:3] == [
        "1 new in the data: a-new-dark.png", f"1 changed, left out: {changed}", f"1 gone, left out: {gone}"
    ]  # fmt: skip
    assert dict(zip(asked["ids"], asked["keys"], strict=True))[36] == "a-new-dark.png"
    assert not {gone, changed} & set(asked["keys"])
    status = run(capsys, "status", "s")
    assert (status["labelled"], status["unlabelled"], status["gone"], status["changed"]) == (10, 25, [gone], [changed])
    (photos / gone).write_bytes(kept)
    run(capsys, "train", "s")
    status = run(capsys, "status", "s")
    assert (status["labelled"], status["gone"]) == (11, [])
    with Session.open("s") as session:
        assert session.labelled()[0].tolist() == sorted({*first["ids"]} - {first["ids"][1]})


def test_a_question_about_a_file_that_went_keeps_nobody_waiting(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    first = run(capsys, "ask", "s", "-n", "3")
    for key in first["keys"]:
        (photos / key).unlink()
    second = run(capsys, "ask", "s", "-n", "3")
    assert not set(second["ids"]) & set(first["ids"])


@settings(max_examples=60, deadline=None)
@given(
    pools=st.lists(
        st.lists(st.tuples(st.sampled_from("abcde"), st.integers(0, 1)), min_size=1, unique_by=lambda row: row[0]),
        min_size=1,
        max_size=4,
    )
)
def test_examples_keep_the_numbers_and_the_content_with_which_they_were_first_seen(
    pools: list[list[tuple[str, int]]],
) -> None:
    """Against a dictionary of what was met. Each pool comes twice: the second time nothing has changed."""
    met: dict[str, tuple[int, int]] = {}  # key: number, content
    with tempfile.TemporaryDirectory() as folder, LabelStore.create(Path(folder) / "labels.sqlite", ["x"]) as store:
        for i, pool in enumerate(pool for pool in pools for _ in range(2)):
            raw = Dataset.from_arrays([[float(content)] for _, content in pool], keys=[key for key, _ in pool])
            found, noticed = join(raw, store)
            new = [key for key, _ in pool if key not in met]
            met |= {key: (len(met) + j, dict(pool)[key]) for j, key in enumerate(new)}
            here = sorted((met[key][0], key, content) for key, content in pool if met[key][1] == content)
            rows = zip(found.ids.tolist(), found.keys or (), found.inputs[:, 0].tolist(), strict=True)
            assert list(rows) == here
            assert list(noticed.get("new in the data", ())) == (new if i else [])
            kept, left = {key for _, key, _ in here}, {key for key, _ in pool}
            assert set(noticed.get("changed, left out", ())) == left - kept
            assert set(noticed.get("gone, left out", ())) == met.keys() - left
            assert {key for _, key, _, state in store.examples() if state == "here"} == kept


def test_an_unchanged_pool_is_not_compared_and_a_changed_one_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pool(*contents: float) -> Dataset:
        return Dataset.from_arrays([[content] for content in contents], keys=[str(i) for i in range(len(contents))])

    with LabelStore.create(tmp_path / "labels.sqlite", ["x"]) as store:
        join(pool(1, 2, 3), store)
        with monkeypatch.context() as patch:
            patch.setattr(LabelStore, "examples", lambda store: pytest.fail("compared"))
            found, noticed = join(same := pool(1, 2, 3), store)
        assert found is same
        assert not noticed
        assert join(pool(1, 5, 3), store)[1]["changed, left out"] == ("1",)
        assert join(pool(1, 5, 3), store)[1]["changed, left out"] == ("1",)  # said each time
        found, noticed = join(pool(1, 2, 3), store)  # as it was
        assert found.ids.tolist() == [0, 1, 2]
        assert not any(noticed.values())
        assert not store.left_out()


def test_rows_appended_to_a_table_join(capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.csv").write_text("text\ngood one\nbad one\ngood two\nbad two\n")
    words = ["--proxy.model", "hashed-linear", "--target.model", "hashed-linear"]
    run(capsys, "new", "s", "--data", "t.csv", "--classes", "good,bad", *words)
    run(capsys, "ask", "s", "-n", "2")
    Path("t.csv").write_text("text\ngood one\nbad ONE\ngood two\nbad two\nbad three\n")
    with Session.open("s") as session:
        assert session.dataset.ids.tolist() == [0, 2, 3, 4]
        assert dict(session.noticed) == {"new in the data": ("4",), "changed, left out": ("1",), "gone, left out": ()}
        assert session.dataset.inputs[:].tolist() == ["good one", "good two", "bad two", "bad three"]


@pytest.mark.parametrize("later", ["text\ngood one\nbad one\n", "text\ngood one\nbad one\ngood 2\nbad two\n"])
def test_a_table_whose_rows_went_or_changed_is_said_where_it_is_not_read_anew(
    later: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("t.csv").write_text("text\ngood one\nbad one\ngood two\nbad two\n")
    words = ["--proxy.model", "hashed-linear", "--target.model", "hashed-linear"]
    run(capsys, "new", "s", "--data", "t.csv", "--classes", "good,bad", *words)
    run(capsys, "ask", "s", "-n", "4", "--now")
    Path("t.csv").write_text(later)
    for more in ((), ("--out", "b.csv")):
        said = fails(capsys, "ask", "s", "--now", *more)
        assert "gone or changed since they were first seen" in said
        assert "without --now" in said
    assert 2 in Session.open("s").store.asked()
    assert 2 not in run(capsys, "ask", "s")["ids"]
    assert 2 not in run(capsys, "ask", "s", "--now")["ids"]


def test_classes_that_differ_in_capitals_alone_are_refused(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    line = fails(capsys, "new", "t", "--data", "photos", "--classes", "cat,dog,Cat")
    assert "'cat' and 'Cat' differ in capitals alone" in line
    begin(capsys)
    assert "'mid' and 'MID'" in fails(capsys, "classes", "add", "s", "MID")
    assert run(capsys, "status", "s")["per_class"] == {"dark": 0, "mid": 0, "light": 0}


@pytest.mark.parametrize("name", ["Skip", "none"])
def test_no_class_is_called_like_an_answer(photos: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    assert "is an answer already" in fails(capsys, "classes", "add", "s", name)


def test_what_stands_in_the_configuration_is_what_is_trained(capsys: pytest.CaptureFixture[str]) -> None:
    """A model's own defaults hold for the target as for the proxy, also when the session is opened again."""
    Path("t.csv").write_text("text\ngood one\nbad one\n")
    model = ["--proxy.model", "fasttext", "--target.model", "fasttext"]
    run(capsys, "new", "s", "--data", "t.csv", "--classes", "good,bad", *model)
    with Session.open("s") as session:
        assert session.config.target == session.config.proxy
        assert session.config.target.epochs == 5


# --- while a proxy is trained ---------------------------------------------------------------------------------------------


def test_while_another_process_trains_people_tell_and_ask_by_the_last_scores(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    run(capsys, "ask", "s", "-n", "9", "--out", "b.csv")
    fill("b.csv", shade)
    with open("s/.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # what a process that trains holds
        run(capsys, "tell", "s", "b.csv", "--who", "ann")
        asked = run(capsys, "ask", "s", "-n", "3", "--out", "a.csv")
        assert asked["origin"] == "random, as no model has scored them yet"
        assert not any("Chosen" in note for note in asked["notes"])  # as the first ones were
        fill("a.csv", shade)
        run(capsys, "tell", "s", "a.csv", "--who", "ann")
    assert run(capsys, "train", "s")["trained"]
    with open("s/.lock") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        asked = run(capsys, "ask", "s", "-n", "3", "--out", "c.csv")
        assert asked["origin"] == "margin, by the scores of round 2"
        fill("c.csv", shade)
        run(capsys, "tell", "s", "c.csv", "--who", "ann")
        more = run(capsys, "ask", "s", "-n", "3")
        assert more["origin"] == "margin, by the scores of round 2"
    ids = [*asked["ids"], *more["ids"]]
    assert len(set(ids)) == 6
    # In the order of those scores, by somebody who reads them from the folder.
    (stage,) = Path("s/rounds").glob("002-*/selection")
    order = np.load(stage / "ids.npy")[np.argsort(-np.load(stage / "scores.npy"), kind="stable")]
    with Session.open("s") as session:
        close = vectors_of(session.dataset, order)
    assert set(ids) <= set(order[: 6 + int(((close @ close.T) > 0.97).sum() - len(order))].tolist())


@pytest.mark.parametrize(
    ("method", "why"),
    [("margin", "no model has scored them yet"), ("k_center", "k_center has to train a model first")],
)
def test_who_asks_now_waits_for_no_training(
    method: str, why: str, photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    models = ["--proxy.model", *NET, "--target.model", "logistic", "--method", method]
    run(capsys, "new", "s", "--data", "photos", "--classes", "dark,mid,light", "--image-size", "8", *models)
    run(capsys, "ask", "s", "-n", "9", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv")
    asked = run(capsys, "ask", "s", "-n", "5", "--now")
    assert asked["origin"] == f"random, as {why}"
    assert len(asked["ids"]) == 5
    assert not list(Path("s").rglob("done.json"))


def test_who_comes_while_another_process_finishes_is_told_so(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    run(capsys, "ask", "s", "-n", "9", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv", "--who", "ann")
    lines: list[str] = []

    def meanwhile(what: str, done: int, total: int, note: str = "") -> None:
        if what.startswith("training") and not lines:
            lines.extend(fails(capsys, command, "s") for command in ("finish", "curve"))

    with Session.open("s", show=meanwhile) as session:
        session.finish()
    assert (
        lines == ["svp: s is in use by another process (finish); wait until that has ended, and repeat the command"] * 2
    )
    assert run(capsys, "finish", "s")["n_labelled"] == 9


def test_after_an_undo_and_in_a_copy_the_scores_are_those_of_the_labels_as_they_are(tmp_path: Path) -> None:
    """File times say neither: what an undo brought back was trained before, and a copy has the times of copying."""
    x = np.random.default_rng(0).normal(size=(60, 2)).astype(np.float32)
    pool = Dataset.from_arrays(x, classes=["in", "out"], name="plane")
    logistic = svp.TrainConfig(model="logistic")
    config = svp.SessionConfig(
        dataset="plane", classes=("in", "out"), proxy=logistic, target=logistic, diverse=False, method="margin"
    )

    def scored(session: Session) -> str:
        batch = session.ask_more(1)
        assert batch is not None
        return batch.origin

    with Session.create("s", config, pool) as session:
        for n in (20, 10):
            session.tell({int(i): int(x[i, 0] > 0) for i in session.ask(n).ids}, who="ann")
            session.train()
        assert scored(session) == "margin, by the scores of round 2"
        session.undo()
        assert scored(session) == "margin, by the scores of round 1"
    shutil.copytree("s", "copy")
    for i, mark in enumerate(sorted(Path("copy").rglob("done.json"), reverse=True)):
        os.utime(mark, (1e9 + i, 1e9 + i))
    with Session.create("copy", config, pool) as session:
        assert scored(session) == "margin, by the scores of round 1"
        session.tell({int(i): int(x[i, 1] > 0) for i in session.ask(5).ids}, who="bob")  # other labels: no round fits
        assert scored(session) == "margin, by the scores of round 2"


def test_what_was_trained_is_there_for_the_next_question(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    assert not run(capsys, "train", "s")["trained"]
    run(capsys, "ask", "s", "-n", "9", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv")
    run(capsys, "train", "s")
    made = sorted(Path("s/rounds").rglob("done.json"))
    asked = run(capsys, "ask", "s", "-n", "5")
    assert asked["notes"] == ["Chosen otherwise than the round before (random start): margin"]
    assert sorted(Path("s/rounds").rglob("done.json")) == made


# --- the first question, near-duplicates ----------------------------------------------------------------------------------


def test_with_frozen_features_the_first_question_is_typical(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    keys = sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))
    centre = {"dark": 0.0, "mid": 10.0, "light": 20.0}
    rng = np.random.default_rng(0)
    np.save("emb.npy", np.array([rng.normal((centre[shade({"key": key})], 0)) for key in keys], np.float32))
    begin(capsys, "--proxy.features.source", "emb.npy")
    first = run(capsys, "ask", "s", "-n", "3", "--out", "b.csv")
    assert first["origin"] == "typiclust, as two classes have no labels yet"
    assert {shade(row) for row in table("b.csv")} == set(SHADES)
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv")
    assert run(capsys, "ask", "s", "-n", "3")["notes"] == [
        f"Chosen otherwise than the round before ({first['origin']}): margin"
    ]


@pytest.mark.filterwarnings("always::svp.errors.SvpWarning")
def test_embeddings_that_are_a_row_off_after_the_pool_has_grown_are_said(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def order() -> list[str]:
        return sorted(path.relative_to(photos).as_posix() for path in photos.rglob("*.png"))

    old = order()
    rows = np.random.default_rng(0).normal(size=(len(old) + 1, 8)).astype(np.float32)
    row_of = dict(zip([*old, "aaa.png"], rows, strict=True))
    np.save("emb.npy", rows[:-1])
    begin(capsys, "--proxy.features.source", "emb.npy")
    run(capsys, "ask", "s", "-n", "9", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv")
    run(capsys, "train", "s")
    photo(photos / "aaa.png", 90, 5)
    shutil.copytree("s", "t")
    for session, keys, warned in (("s", [*old, "aaa.png"], False), ("t", order(), True)):  # as numbered; by their names
        np.save("emb.npy", np.stack([row_of[key] for key in keys]))
        cli.main(["session", "train", session, "--json"])
        said = capsys.readouterr().err
        assert ("have other embeddings than it gave them before" in said) == warned, said


def test_a_start_that_needs_embeddings_says_so(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "needs embeddings" in fails(
        capsys, "new", "s", "--data", "photos", "--classes", "dark,light", "--start", "k_center"
    )
    assert not Path("s").exists()


def test_near_duplicates_in_a_question_are_skipped(capsys: pytest.CaptureFixture[str]) -> None:
    for i in range(24):
        photo(Path("photos") / f"{'dark' if i % 2 else 'light'}{i}.png", 60 if i % 2 else 180, i)
    for copy in range(20):
        photo(Path("photos") / f"dark-copy{copy}.png", 100, 77)  # the same picture; and the one that margin wants most
    begin(capsys)
    run(capsys, "ask", "s", "-n", "10", "--out", "b.csv")
    fill("b.csv", lambda row: "skip" if "copy" in row["key"] else "light" if "light" in row["key"] else "dark")
    run(capsys, "tell", "s", "b.csv")
    shutil.copytree("s", "t")
    config = Path("t/config.toml").read_text().replace("diverse = true", "diverse = false")
    Path("t/config.toml").write_text(config)
    settings = json.loads(Path("t/environment.json").read_text())
    settings["settings"]["diverse"] = False
    Path("t/environment.json").write_text(json.dumps(settings))
    copies = [sum("copy" in key for key in run(capsys, "ask", of, "-n", "5")["keys"]) for of in ("s", "t")]
    assert copies[0] <= 1 < copies[1]


def test_near_duplicates_are_skipped_however_many_come_before_the_others(tmp_path: Path) -> None:
    """Two clouds, and 100 copies of one point between them, which margin wants before all others."""
    axis = np.eye(16)[:1]
    clouds = np.random.default_rng(0).normal(size=(60, 16)) + np.repeat([-3, 3], 30)[:, None] * axis
    x = np.concatenate([clouds, np.repeat(0.0 * axis, 100, axis=0)]).astype(np.float32)
    pool = Dataset.from_arrays(x, classes=["left", "right"], name="clouds")
    logistic = svp.TrainConfig(model="logistic")
    config = svp.SessionConfig(dataset="clouds", classes=("left", "right"), proxy=logistic, target=logistic)
    with Session.create(tmp_path / "s", config, pool) as session:
        first = session.ask(40).ids
        session.tell({int(i): int(x[i, 0] > 0) if i < 60 else "skip" for i in first})
        second = session.ask(10)
    assert second.origin == "margin"
    assert (second.ids >= 60).sum() == 1


@settings(deadline=None, derandomize=True, max_examples=60)
@given(st.data())
def test_a_question_by_stored_scores_is_that_of_the_whole_ranking(data: st.DataObject) -> None:
    """However many near-duplicates stand before the others, and however many scores are equal."""
    n = data.draw(st.integers(1, 60))
    angles = data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n))
    scores = np.array(data.draw(st.lists(st.integers(0, 3), min_size=n, max_size=n)), np.float64)
    ids = np.sort(np.array(data.draw(st.lists(st.integers(0, 999), min_size=n, max_size=n, unique=True))))
    pool = np.sort(np.array(data.draw(st.lists(st.sampled_from(ids.tolist()), min_size=1, unique=True))))
    budget = data.draw(st.integers(0, len(pool)))
    x = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    dataset = Dataset.from_arrays(x, ids=ids, classes=["a", "b"], name="angles")
    here = np.isin(ids, pool)
    whole = svp.select("margin", len(pool), scores=scores[here], ids=ids[here], seed=0)
    ranked = Ranked(whole, ids, scores)
    taken, gains = best(svp.SessionConfig(dataset="angles"), ranked, pool, budget, dataset)
    kept = distinct_of(dataset, pool, lambda k: whole.ids[:k], budget)
    assert taken.tolist() == whole.ids[kept].tolist()
    assert gains.tolist() == whole.gains[kept].tolist()


def test_distinct_keeps_the_order_and_fills_up() -> None:
    vectors = np.array([[1, 0], [1, 0.01], [0, 1], [1, 0]], np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    for n, found in ((2, [0, 2]), (3, [0, 2, 1]), (9, [0, 2, 1, 3])):
        assert distinct(lambda start, stop: vectors[start:stop], 4, n).tolist() == found


def test_distinct_reads_in_blocks_however_many_are_wanted() -> None:
    sizes: list[int] = []

    def ready(start: int, stop: int) -> np.ndarray:
        sizes.append(stop - start)
        return np.eye(1000, dtype=np.float32)[start:stop]

    assert distinct(ready, 1000, 900).tolist() == list(range(900))
    assert max(sizes) <= 256


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=80), st.integers(1, 30))
def test_distinct_makes_no_more_rows_ready_than_it_takes(angles: list[int], n: int) -> None:
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    asked: list[int] = []

    def ready(start: int, stop: int) -> np.ndarray:
        asked.extend(range(start, stop))
        return vectors[start:stop]

    first = [i for i, angle in enumerate(angles) if angle not in angles[:i]]
    rest = [i for i in range(len(angles)) if i not in first]
    assert distinct(ready, len(angles), n).tolist() == [*first, *rest][:n]
    assert asked == list(range(len(asked)))
    if len(first) >= n:
        assert len(asked) <= first[n - 1] + 1 + max(n, 16)


def test_a_session_whose_device_is_not_here_says_what_helps(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = ["--classes", "dark,mid,light", "--image-size", "8", "--target.model", "logistic", "--proxy.model", *NET]
    words = ["new", "s", "--data", "photos", *settings, "--compute.device"]
    run(capsys, *words, "cpu")
    run(capsys, "ask", "s", "-n", "9", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv")
    for path, before, after in (
        ("config.toml", 'device = "cpu"', 'device = "cuda:99"'),
        ("environment.json", '"compute.device": "cpu"', '"compute.device": "cuda:99"'),
    ):
        text = Path("s", path).read_text()
        assert before in text
        Path("s", path).write_text(text.replace(before, after))
    line = fails(capsys, "ask", "s", "-n", "3")
    assert "'cuda:99' cannot be used here" in line
    assert "s was begun there: go on where it can be used, or begin anew in another folder" in line
    assert "use auto" not in line
    line = fails(capsys, *words, "cuda:99")
    assert "use auto or cpu for what is new; what was begun there goes on where it can be used" in line


# --- what is refused ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["new", "s", "--data", "photos", *FAST[:-1]], "--classes cat,dog"),
        (["new", "s", "--data", "photos", "--classes", "cat", *FAST[:-1]], "two classes at least"),
        (["new", "s", "--data", "photos", "--classes", "cat,none", *FAST[:-1]], "'none' is an answer already"),
        (["new", "photos/s", "--data", "photos", "--classes", "cat,dog", *FAST[:-1]], "lies inside the data"),
        (["new", "s", "--data", "nowhere/x", "--classes", "cat,dog", *FAST[:-1]], "does not exist"),
        (["new", "s", "--data", "photos", "--classes", "cat,dog", *FAST[:-1], "--method", "forgetting"], "signals"),
        (["ask", "nowhere"], "holds no session (labels.sqlite is missing); svp session new makes one"),
        (["tell", "nowhere", "b.csv"], "holds no session"),
    ],
)
def test_what_cannot_end_well_is_one_line(
    photos: Path, arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert words in fails(capsys, *arguments)


def test_a_question_is_not_written_into_the_data(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    assert "lies inside the data" in fails(capsys, "ask", "s", "-n", "3", "--out", "photos/sort")
    assert "not empty" in fails(capsys, "ask", "s", "-n", "3", "--out", "s")


def test_who_asks_for_more_than_is_left_is_told_how_many(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    assert fails(capsys, "ask", "s").endswith("ask for 36 at most (-n 36)")
    run(capsys, "ask", "s", "-n", "36", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv")
    assert fails(capsys, "ask", "s").endswith("everything was asked")


def test_what_is_left_of_a_question_is_said_to_be_that(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    assert run(capsys, "ask", "s", "-n", "6", "--out", "b.csv")["notes"] == []
    left = run(capsys, "ask", "s", "-n", "3", "--out", "b.csv")
    assert len(left["ids"]) == 6
    assert left["notes"] == ["Still open: 6 of round 0; -n counts for the question after it"]
    left = run(capsys, "ask", "s", "-n", "3", "--per-class", "equal")
    assert left["notes"] == ["Still open: 6 of round 0; -n and --per-class count for the question after it"]
    assert "Budget 'abc' is no number" in fails(capsys, "ask", "s", "-n", "abc")


def test_what_a_terminal_obeys_is_not_printed_of_a_key(capsys: pytest.CaptureFixture[str]) -> None:
    for i, name in enumerate(("a  b", "\x1b[2Jcleared", "line\nline", "c" * 150)):
        photo(Path("photos") / f"{name}.png", 100, i)
    begin(capsys)
    cli.main(["session", "ask", "s", "-n", "4", "--quiet"])
    printed = capsys.readouterr().out
    assert "\x1b" not in printed
    assert {line.partition("\t")[2] for line in printed.splitlines()} == {
        "a  b.png", " [2Jcleared.png", "line line.png", f"{'c' * 150}.png"
    }  # fmt: skip


def test_what_is_none_of_the_classes_is_taken_for_none(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    asked = run(capsys, "ask", "s", "-n", "12", "--out", "b.csv")
    said = dict(zip(map(str, asked["ids"]), ("none", "unsure", "skip"), strict=False))
    fill("b.csv", lambda row: said.get(row["id"]) or shade(row))
    run(capsys, "tell", "s", "b.csv")
    done = run(capsys, "finish", "s")
    assert (done["n_labelled"], done["n_predicted"]) == (9, 26)
    labelled, predicted = ({row["id"] for row in table(f"s/{name}.csv")} for name in ("labelled", "predicted"))
    none, *others = said
    assert none not in labelled | predicted
    assert set(others) <= predicted


@pytest.mark.parametrize(
    ("out", "words"),
    [("b.csv", "b.csv holds no answer yet: fill in the labels"), ("sort", "sort holds no answer yet: move each file")],
)
def test_who_tells_what_nobody_has_answered_is_told_what_is_missing(
    photos: Path, out: str, words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    run(capsys, "ask", "s", "-n", "4", "--out", out)
    cli.main(["session", "tell", "s", out])
    stored, missing = capsys.readouterr().out.splitlines()
    assert stored.startswith("Stored 0 new of 0 answers")
    assert missing.startswith(words)


@pytest.mark.parametrize("command", [["ask", "s", "-n", "3"], ["report", "s"]])
def test_data_that_are_not_where_the_command_is_given_are_named(
    photos: Path, command: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    photos.rename("elsewhere")
    assert f"photos, the data of this session, is not in {tmp_path}; go to the folder" in fails(capsys, *command)
    assert run(capsys, "status", "s")["labelled"] == 0


def test_a_class_folder_whose_accents_the_file_system_took_apart_is_that_class(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    composed = unicodedata.normalize("NFC", "Käfer")
    run(capsys, "new", "s", "--data", "photos", "--classes", f"{composed},mid", "--image-size", "8", *FAST[:-1])
    run(capsys, "ask", "s", "-n", "1", "--out", "sort")
    taken_apart = Path("sort") / unicodedata.normalize("NFD", composed)
    taken_apart.mkdir(exist_ok=True)
    (file,) = Path("sort").glob("*.png")
    file.rename(taken_apart / file.name)
    run(capsys, "tell", "s", "sort")
    assert run(capsys, "status", "s")["per_class"] == {composed: 1, "mid": 0}


def test_labels_of_photos_that_are_gone_are_missed_aloud(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    run(capsys, "ask", "s", "-n", "12", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv")
    gone = table("b.csv")[0]["key"]
    (photos / gone).unlink()
    cli.main(["session", "finish", "s", "--quiet"])
    assert f"Left out, gone or unreadable: {gone}" in capsys.readouterr().out.splitlines()
    cli.main(["session", "export", "s", "--out", "labels.csv"])
    assert capsys.readouterr().out.splitlines() == [
        "Wrote 11 labelled examples to labels.csv",
        f"Left out, gone or unreadable: {gone}",
    ]


def test_answers_that_were_not_told_are_not_written_over(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    ask = ("ask", "s", "-n", "6", "--out", "b.csv")
    run(capsys, *ask)
    run(capsys, *ask)  # nothing was filled in
    fill("b.csv", shade)
    filled = Path("b.csv").read_bytes()
    assert "b.csv holds 6 answers that were not told yet; tell them first" in fails(capsys, *ask)
    assert Path("b.csv").read_bytes() == filled
    run(capsys, "tell", "s", "b.csv")
    run(capsys, *ask)
    assert not any(row["label"] for row in table("b.csv"))
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv", "--who", "ann")
    rows = Path("b.csv").read_text().splitlines()
    Path("bob.csv").write_text("".join(f"{row};{'bob' if i else 'who'}\n" for i, row in enumerate(rows)))
    assert "bob.csv holds 6 answers that were not told" in fails(capsys, "ask", "s", "-n", "6", "--out", "bob.csv")
    run(capsys, "tell", "s", "bob.csv")
    run(capsys, "ask", "s", "-n", "6", "--out", "bob.csv")
    fill("b.csv", lambda row: "no such class")
    assert "'no such class' is no class" in fails(capsys, *ask)
    Path("notes.csv").write_text("milk,eggs\n1,6\n")
    assert "notes.csv exists" in fails(capsys, "ask", "s", "-n", "6", "--out", "notes.csv")
    assert Path("notes.csv").read_text() == "milk,eggs\n1,6\n"


@pytest.mark.parametrize("command", [["ask", "s", "-n", "3"], ["export", "s"], ["export", "s", "--history"]])
def test_the_table_that_is_labelled_is_never_written_over(
    command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    texts = "text\n" + "".join(f"so many words {i}\n" for i in range(9))
    Path("texts.csv").write_text(texts)
    model = "hashed-linear"
    run(capsys, "new", "s", "--data", "texts.csv", "--classes", "a,b", "--proxy.model", model, "--target.model", model)
    assert "texts.csv holds the data" in fails(capsys, *command, "--out", "texts.csv")
    assert Path("texts.csv").read_text() == texts


def test_a_session_is_taken_up_by_the_same_settings_alone(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert begin(capsys) == begin(capsys)
    run(capsys, "ask", "s", "-n", "3")
    assert "method was" in fails(
        capsys, "new", "s", "--data", "photos", "--classes", "dark,mid,light", "--image-size", "8", *FAST[:-1],
        "--method", "entropy",
    )  # fmt: skip


def test_what_is_told_while_the_target_trains_is_in_neither_of_its_files_twice(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    pool = Dataset.from_arrays(x, classes=["in", "out"], name="plane")
    logistic = svp.TrainConfig(model="logistic")
    config = svp.SessionConfig(dataset="plane", classes=("in", "out"), proxy=logistic, target=logistic)
    untold: dict[int, int] = {}

    def show(what: str, *_: Any) -> None:
        if what.startswith("training") and untold:
            with LabelStore.open("s/labels.sqlite") as another:
                another.tell(untold, who="bob")
            untold.clear()

    with Session.create("s", config, pool, show=show) as session:
        ids = session.ask(20).ids.tolist()
        session.tell({i: int(x[i, 0] > 0) for i in ids[:15]}, who="ann")
        untold |= {i: int(x[i, 0] > 0) for i in ids[15:]}
        done = session.finish()
        assert len(session.labelled()[0]) == 20  # kept, for the next time
    labelled, predicted = ([int(row["id"]) for row in table(f"s/{name}.csv")] for name in ("labelled", "predicted"))
    assert sorted(labelled) == sorted(ids[:15])
    assert sorted([*labelled, *predicted]) == list(range(40))
    assert (done.n_labelled, done.n_predicted) == (15, 25)


# --- nothing is lost ------------------------------------------------------------------------------------------------------


def test_a_lost_store_is_restored_from_the_history(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    run(capsys, "ask", "s", "-n", "9", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv", "--who", "ann")
    run(capsys, "classes", "add", "s", "pitch")
    run(capsys, "undo", "s")
    run(capsys, "tell", "s", "b.csv", "--who", "bob")
    run(capsys, "export", "s", "--history", "--out", "h.jsonl")
    assert "exists; move it away" in fails(capsys, "restore", "s", "h.jsonl")
    before = run(capsys, "status", "s")
    Path("s/labels.sqlite").write_bytes(Path("s/labels.sqlite").read_bytes()[:5000])
    assert "damaged" in fails(capsys, "status", "s")
    Path("s/labels.sqlite").unlink()
    for folder in ("s", "elsewhere"):
        run(capsys, "restore", folder, "h.jsonl")
        assert run(capsys, "status", folder) == before
    assert run(capsys, "ask", "s", "-n", "4")["ids"] == run(capsys, "ask", "elsewhere", "-n", "4")["ids"]
    text = Path("h.jsonl").read_text()
    Path("h2.jsonl").write_text(text.replace('"bob"', '"eve"'))
    assert "is not as it was written" in fails(capsys, "restore", "third", "h2.jsonl")
    lines = text.splitlines()
    Path("h3.jsonl").write_text("\n".join([*lines[:2], "{", *lines[3:]]))
    assert "h3.jsonl, line 3 is damaged" in fails(capsys, "restore", "fourth", "h3.jsonl")
    for folder in ("third", "fourth"):
        assert not list(Path(folder).iterdir())


def test_a_history_is_not_restored_over_other_settings(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    run(capsys, "export", "s", "--history", "--out", "h.jsonl")
    Path("run").mkdir()
    Path("run/config.toml").write_text("seed = 3\n")
    assert "run/config.toml holds other settings" in fails(capsys, "restore", "run", "h.jsonl")
    assert [path.name for path in Path("run").iterdir()] == ["config.toml"]
    assert Path("run/config.toml").read_text() == "seed = 3\n"


def test_a_tsv_is_harmless_in_a_spreadsheet_too(tmp_path: Path) -> None:
    for suffix in ("csv", "tsv"):
        write_columns(path := tmp_path / f"labels.{suffix}", {"id": [1], "key": ["=1+1"]})
        assert "'=1+1" in path.read_text(encoding="utf-8-sig")


def test_a_spreadsheet_is_to_be_saved_as_csv(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("t.xlsx").write_bytes(b"PK\x03\x04")
    assert "save it as CSV" in fails(capsys, "new", "no", "--data", "t.xlsx", "--classes", "a,b")
    begin(capsys)
    assert "save it as CSV" in fails(capsys, "tell", "s", "t.xlsx")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"PK\x03\x04\xff\xfe\x00", "is no history of a session (it is no text)"),
        (b"", "is no history of a session (it is empty)"),
        (b"[1]", "is no history of a session (it begins with [1])"),
        (b"id,label\n1,cat\n", "is no history of a session (it begins with 'id,label')"),
        (b'{"format": "svp-session-history", "version": 2}', "of version 2, this svp reads 1"),
        (b'{"format": "svp-session-history", "version": 1}', "it holds no settings"),
        (b'{"format": "svp-session-history", "version": 1, "config": 3}', "it holds no settings"),
        (b"[" * 100_000, "is no history of a session (it begins with"),
        (b'CONFIG\n{"verb": "dance", "rows": []}', "the history is damaged"),
        (b'CONFIG\n{"verb": "create", "rows": [{"number": 1e300, "name": "\\ud800"}]}', "the history is damaged"),
        (
            b'CONFIG\n{"verb": "create", "rows": [{"number": 99999999999999999999, "name": "a"}]}',
            "the history is damaged",
        ),
    ],
)
def test_what_is_no_history_is_named(content: bytes, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    config = svp.SessionConfig(dataset="photos", classes=("cat", "dog")).model_dump(mode="json", exclude_none=True)
    first = {"format": "svp-session-history", "version": 1, "config": config}
    Path("h.jsonl").write_bytes(content.replace(b"CONFIG", json.dumps(first).encode()))
    assert said in fails(capsys, "restore", "s", "h.jsonl")
    assert Path("s").exists() == (b"CONFIG" in content)  # what is damaged further down is found by the store


def test_a_session_begun_wrongly_is_begun_anew_until_somebody_was_asked(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    new = ("new", "s", "--data", "photos", "--image-size", "8", *FAST[:-1], "--classes")
    run(capsys, *new, "black,white")
    assert list(run(capsys, "status", "s")["per_class"]) == ["black", "white"]
    run(capsys, "ask", "s", "-n", "3")
    said = fails(capsys, *new, "dark,mid,light")
    assert "choose another folder" in said
    assert "--out" not in said
    assert list(run(capsys, "status", "s")["per_class"]) == ["black", "white"]


def test_classes_that_another_process_adds_are_learned_by_an_open_session(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(40, 2)).astype(np.float32)
    pool = Dataset.from_arrays(x, classes=["in", "out"], name="plane")
    logistic = svp.TrainConfig(model="logistic")
    config = svp.SessionConfig(dataset="plane", classes=("in", "out"), proxy=logistic, target=logistic)
    with Session.create("s", config, pool) as session:
        ids = session.ask(20).ids.tolist()
        with LabelStore.open("s/labels.sqlite") as another:
            another.add_classes(["far"])
            another.tell({i: n % 3 for n, i in enumerate(ids)}, who="bob")
        assert session.train()
        assert len(session.ask(5)) == 5
        session.finish()
    assert {row["label"] for row in table("s/labelled.csv")} == {"in", "out", "far"}


def test_more_is_asked_at_once_while_another_holds_the_folder(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    with open("s/.lock") as lock, Session.open("s") as session:
        fcntl.flock(lock, fcntl.LOCK_EX)
        more = session.ask_more(4)
        assert more is not None
        assert len(more) == 4


def test_a_lost_record_of_the_surroundings_loses_no_labels(photos: Path, capsys: pytest.CaptureFixture[str]) -> None:
    begin(capsys)
    run(capsys, "ask", "s", "-n", "9", "--out", "b.csv")
    fill("b.csv", shade)
    run(capsys, "tell", "s", "b.csv")
    run(capsys, "train", "s")
    before = run(capsys, "status", "s")
    environment = Path("s/environment.json")
    environment.write_text("{")
    assert "remove this one file" in fails(capsys, "ask", "s", "-n", "3")
    environment.unlink()
    assert len(run(capsys, "ask", "s", "-n", "3")["ids"]) == 3
    assert environment.exists()
    assert run(capsys, "status", "s")["labelled"] == before["labelled"] == 9


def effort(acknowledge: Callable[[str], None]) -> None:
    """A little labelling by files, which goes on where it was left. What is acknowledged is what people were told is safe."""
    config = svp.SessionConfig(
        dataset="photos",
        classes=tuple(SHADES),
        image_size=8,
        proxy=svp.TrainConfig(model="logistic"),
        target=svp.TrainConfig(model="logistic"),
    )
    Session.create("s", config).close()
    acknowledge("new")
    for total in (6, 9):
        with Session.open("s") as session:
            while (missing := total - session.status()["labelled"]) > 0:
                batch = session.ask(missing)
                acknowledge(f"asked {batch.round} {' '.join(map(str, batch.ids))}")
                keys = session.store.keys(batch.ids.tolist())
                for part in (batch.ids[:2], batch.ids[2:]):
                    said = {int(i): list(SHADES).index(shade({"key": keys[int(i)]})) for i in part}
                    session.tell(said, who="ann")
                    acknowledge(f"told {' '.join(map(str, said))}")


def forked(point: str, nth: int) -> tuple[list[str], dict[str, int]]:
    """What a child acknowledged until it was killed at the nth time that it came to a point; and how often it came to each."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(reader)
        counts: dict[str, int] = {}

        def reached(name: str) -> None:
            counts[name] = counts.get(name, 0) + 1
            if name == point and counts[name] == nth:
                os.kill(os.getpid(), signal.SIGKILL)

        class Watched(sqlite3.Connection):
            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                if sql == "COMMIT":
                    reached("before a commit")
                cursor = super().execute(sql, *args)
                if sql == "COMMIT":
                    reached("after a commit")
                return cursor

        connect, replace = sqlite3.connect, os.replace

        def watched(*args: Any) -> None:
            reached("before a rename")
            replace(*args)
            reached("after a rename")

        sqlite3.connect = lambda *args, **given: connect(*args, **given, factory=Watched)  # type: ignore[assignment, call-overload, misc]
        os.replace = watched  # type: ignore[assignment]
        os.fsync = lambda fd: None
        code = 1
        try:
            effort(lambda line: os.write(writer, f"{line}\n".encode()))
            os.write(writer, (json.dumps(counts) + "\n").encode())
            code = 0
        finally:
            os._exit(code)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        said = pipe.read().splitlines()
    _, status = os.waitpid(pid, 0)
    if os.WIFSIGNALED(status):
        return said, {}
    assert os.waitstatus_to_exitcode(status) == 0, said
    return said[:-1], json.loads(said[-1])


def answers(folder: str) -> list[tuple[int, int | None]]:
    with LabelStore.open(Path(folder) / "labels.sqlite") as store:
        return [(x.id, x.label) for x in store.history() if isinstance(x, Answer)]


def test_a_kill_at_any_point_loses_and_doubles_no_answer(photos: Path) -> None:
    said, counts = forked("", 0)
    expected = questions(Path("s/labels.sqlite")), sorted(answers("s"))
    assert len(expected[1]) == 9
    points = [
        (name, nth) for name, count in counts.items() for nth in range(1, count + 1, 5 if "rename" in name else 1)
    ]
    assert len(points) > 20
    for point, nth in points:
        shutil.rmtree("s")
        said, _ = forked(point, nth)
        told = [int(i) for line in said if line.startswith("told") for i in line.split()[1:]]
        if told:
            assert set(told) <= {i for i, _ in answers("s")}, (point, nth)
        forked("", 0)
        assert (questions(Path("s/labels.sqlite")), sorted(answers("s"))) == expected, (point, nth)


def test_two_processes_ask_and_tell_at_once(photos: Path) -> None:
    config = svp.SessionConfig(
        dataset="photos", classes=tuple(SHADES), image_size=8,
        proxy=svp.TrainConfig(model="logistic"), target=svp.TrainConfig(model="logistic"),
    )  # fmt: skip
    with Session.create("s", config) as ann, Session.open("s") as bob:
        batch = ann.ask(6)
        assert bob.ask(6).ids.tolist() == batch.ids.tolist()
        ann.tell(dict.fromkeys(batch.ids[:3].tolist(), 0), who="ann")
        bob.tell(dict.fromkeys(batch.ids[3:].tolist(), 1), who="bob")
        second = bob.ask(4)
        assert ann.ask(4).ids.tolist() == second.ids.tolist()
        assert set(ann.status()["people"]) == {"ann", "bob"}


def test_no_export_takes_the_place_of_answers_or_of_the_session(
    photos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(capsys)
    run(capsys, "ask", "s", "-n", "4", "--out", "batch.csv")
    fill("batch.csv", shade)
    assert "answers that were not told yet" in fails(capsys, "export", "s", "--out", "batch.csv")
    run(capsys, "tell", "s", "batch.csv", "--who", "ann")
    run(capsys, "export", "s", "--out", "batch.csv")
    store = Path("s/labels.sqlite")
    assert "is no history" in fails(capsys, "export", "s", "--history", "--out", str(store))
    for _ in range(2):  # its own is written anew
        run(capsys, "export", "s", "--history", "--out", "h.jsonl")
    assert run(capsys, "status", "s")["labelled"] == 4


def test_who_has_no_name_here_says_one(
    photos: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    begin(capsys)
    run(capsys, "ask", "s", "-n", "2", "--out", "batch.csv")
    fill("batch.csv", shade)
    monkeypatch.setattr("getpass.getuser", lambda: {}["uid"])  # as in a container, for a number without a name
    assert "--who" in fails(capsys, "tell", "s", "batch.csv")
    assert run(capsys, "tell", "s", "batch.csv", "--who", "ann")["new"] == 2
