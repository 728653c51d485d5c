"""Texts from a file of the user's own to the report and the chosen rows, by the command line."""

import csv
import json
import warnings
from pathlib import Path

import numpy as np
import pytest

import svp
from svp import cli
from svp.config import read_toml
from svp.data import load_dataset
from svp.errors import DataError, SvpWarning
from svp.learners import LEARNERS, classifier, make_learner
from svp.report import passages
from svp.report.facts import Example
from svp.select import Selection
from svp.workflows.begin import fitting

WORDS = {"sour": ["lemon", "vinegar", "grapefruit"], "sweet": ["honey", "sugar", "caramel"]}
EVIL = "<script>alert(1)</script>"
MODELS = ["--proxy.model", "tests.own_texts:bag_of_words", "--target.model", "tests.own_texts:bag_of_words"]


def made(n: int, seed: int = 0) -> list[tuple[str, str]]:
    """Labels, and distinct texts of several lines in which words of the class stand, and a tag."""
    rng = np.random.default_rng(seed)
    labels = rng.permutation(np.repeat(list(WORDS), n // 2))
    return [
        (
            label,
            f'{rng.choice(WORDS[label])}, "{" ".join(rng.choice([*WORDS["sour"], *WORDS["sweet"], "and"], 1))}"\n{EVIL} {i}',
        )
        for i, label in enumerate(labels)
    ]


def write(path: Path, rows: list[tuple[str, ...]], header: bool = True) -> Path:
    path.parent.mkdir(exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([*([("label", "text")] if header else []), *rows])
    return path


def read(path: Path) -> list[list[str]]:
    with path.open(newline="") as file:
        return list(csv.reader(file))


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.filterwarnings("default::svp.errors.SvpWarning")
def test_from_a_csv_to_the_chosen_rows(tmp_path, capsys):
    rows = made(120)
    write(tmp_path / "mine.csv", [*rows[:7], ("sour", ""), *rows[7:]])
    command = [
        "coreset",
        "mine.csv",
        *MODELS,
        "--proxy.options.C",
        "0.1",
        "--method",
        "margin",
        "--budget",
        "20",
        "--control",
    ]
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "random", "--out", "run"])
    assert ended.value.code == 1
    assert "1 row cannot be used: mine.csv: 1 row with an empty text (row 7)" in capsys.readouterr().err
    cli.main([*command, "random", "--on-error", "skip", "--out", "run", "--json"])
    metrics = json.loads(capsys.readouterr().out)
    assert metrics["majority_rate"] == 0.5
    assert all(0 < arm["macro_f1"] <= 1 for arm in metrics["arms"])
    cli.main(["apply", "run/selection.parquet", "--data", "mine.csv", "--out", "kept.csv"])
    # Moved, it is that table; sorted otherwise, its rows are others.
    (tmp_path / "moved.csv").write_bytes((tmp_path / "mine.csv").read_bytes())
    assert svp.apply("run/selection.parquet", "moved.csv", "again.csv").n == svp.Run.open("run").metrics["budget"]
    head, *lines = (tmp_path / "mine.csv").read_text().splitlines()
    (tmp_path / "sorted.csv").write_text("\n".join([head, *sorted(lines)]))
    with pytest.raises(DataError, match=r"sorted.csv is not the table that was chosen from"):
        svp.apply("run/selection.parquet", "sorted.csv", "wrong.csv")
    ids = np.sort(Selection.load("run/selection.parquet").ids)
    assert read(Path("kept.csv"))[1:] == [read(Path("mine.csv"))[1 + i] for i in ids]


@pytest.mark.parametrize("given", [[], ["--target.epochs", "3"]])
def test_fasttext_alone_takes_its_own_epochs_and_rate(tmp_path, capsys, given):
    """And two that are named alike are one model: nothing is trained twice."""
    pytest.importorskip("numba")
    write(tmp_path / "mine.csv", made(80))
    models = ["--proxy.model", "fasttext", "--target.model", "fasttext", *given]
    small = ["--proxy.options.buckets", "500", "--target.options.buckets", "500"]
    cli.main(["coreset", "mine.csv", *models, *small, "--method", "margin", "--budget", "20", "--out", "run", "--json"])
    metrics = json.loads(capsys.readouterr().out)
    stored = svp.CoresetConfig.load(Path("run/config.toml"))
    assert (stored.proxy.epochs, stored.proxy.lr) == (LEARNERS["fasttext"].defaults["epochs"], stored.target.lr)
    assert stored.proxy.lr == LEARNERS["fasttext"].defaults["lr"]
    assert (stored.proxy == stored.target) == (not given)
    assert len(json.loads(Path("run/proxy/seed-0/model-0/history.json").read_text())) == stored.proxy.epochs
    assert {arm["arm"] for arm in metrics["arms"]} == ({"proxy"} if given else {"proxy", "full"})


def test_models_that_nobody_named_fit_texts_and_are_said_and_kept(tmp_path, capsys):
    """The proxy of a method that reads signals records some; what else was given is kept."""
    pytest.importorskip("numba")
    write(tmp_path / "mine.csv", made(80))
    said, models = [], []
    with warnings.catch_warnings(action="default", category=SvpWarning):
        for command in (
            ["coreset", "--budget", "20", "--proxy.options.buckets", "500"],
            ["active", "--labelled", "20", "40"],
        ):
            cli.main([command[0], "mine.csv", *command[1:], "--out", command[0], "--json", "--quiet"])
            said.append(capsys.readouterr().err)
            stored = read_toml(Path(command[0]) / "config.toml")
            models.append((stored["proxy"]["model"], stored["target"]["model"], stored["proxy"]["options"]))
    assert models == [("fasttext", "hashed-linear", {"buckets": 500}), ("hashed-linear", "hashed-linear", {})]
    for lines, (proxy, target, _) in zip(said, models, strict=True):
        line = lines.splitlines()[0]  # of choices like these a warning may follow
        taking = f"no model was named: taking {proxy} (--proxy.model) and {target} (--target.model)"
        assert line.startswith("svp: mine")
        assert line.endswith(f" holds texts, and {taking}")


def test_models_fit_the_kind_of_data_where_nobody_named_them():
    y = np.arange(8) % 2
    rows = svp.Dataset.from_arrays(np.zeros((8, 5)), y)
    photos = svp.Dataset.from_arrays(np.zeros((8, 4, 4, 3), np.uint8), y)

    def models(dataset, **given):
        fit = fitting(svp.CoresetConfig.make({"dataset": "d", **given}), dataset, "proxy", "target")
        return fit.proxy.model, fit.target.model

    assert models(rows) == ("linear", "logistic")  # forgetting reads signals
    assert models(rows, method="margin") == ("logistic", "logistic")
    assert models(rows, method="k_center") == ("linear", "logistic")  # reads embeddings
    assert models(rows, method="margin", target={"model": "knn"}) == ("logistic", "knn")
    assert models(rows, proxy={"epochs": 3}) == ("linear", "logistic")
    assert models(photos) == ("preact8", "preact20")


def test_active_on_a_folder_with_a_test_file(tmp_path, capsys):
    rows = made(80)
    write(tmp_path / "set" / "train.csv", rows[:60])
    write(tmp_path / "set" / "test.csv", rows[60:])
    cli.main(["active", "set", *MODELS, "--labelled", "20", "40", "--method", "entropy", "--out", "run", "--json"])
    capsys.readouterr()
    cli.main(["apply", "run/selection.parquet", "--data", "set", "--out", "part"])
    ids = np.sort(Selection.load("run/selection.parquet").ids)
    assert [path.name for path in Path("part").iterdir()] == ["train.csv"]
    assert read(Path("part/train.csv"))[1:] == [list(rows[i]) for i in ids]


def test_the_chosen_rows_of_a_file_without_a_header(tmp_path, capsys):
    rows = [("2" if label == "sweet" else "1", "", text) for label, text in made(60)]
    write(tmp_path / "amazon_review_polarity_csv" / "train.csv", rows[:40], header=False)
    write(tmp_path / "amazon_review_polarity_csv" / "test.csv", rows[40:], header=False)
    cli.main(
        [
            "coreset",
            "amazon-polarity",
            "--data",
            ".",
            *MODELS,
            "--method",
            "margin",
            "--budget",
            "10",
            "--out",
            "run",
            "--json",
        ]
    )
    capsys.readouterr()
    source = "amazon_review_polarity_csv"
    with pytest.raises(DataError, match=r"a number where its header should be \([12]\).*--no-header"):
        svp.apply("run/selection.parquet", f"{source}/train.csv", "kept.csv")
    cli.main(["apply", "run/selection.parquet", "--data", source, "--no-header", "--out", "part"])
    ids = np.sort(Selection.load("run/selection.parquet").ids)
    assert read(Path("part/train.csv")) == [list(rows[i]) for i in ids]


def test_quotes_that_are_letters_are_said_by_a_flag(tmp_path):
    lines = [f'{label}\t"{label} {i}' for i, (label, _) in enumerate(made(40))]
    (tmp_path / "mine.tsv").write_text("\n".join(["label\ttext", *lines]))
    given = ["coreset", "mine.tsv", *MODELS, "--method", "random", "--budget", "16", "--out", "run", "--json"]
    with pytest.raises(DataError, match="--no-quotes"):
        load_dataset("mine.tsv")
    cli.main([*given, "--no-quotes"])
    assert svp.Run.open("run").metrics["n"] == 32


def test_the_report_shows_texts_escaped_and_marks_typical_words(tmp_path, monkeypatch):
    pytest.importorskip("altair")
    pytest.importorskip("vl_convert")
    monkeypatch.setattr("svp.report.page._library", lambda: "")  # the charts' code, which takes seconds to put together
    write(tmp_path / "mine.csv", made(120))
    model = {"model": "tests.own_texts:bag_of_words"}
    config = svp.CoresetConfig(dataset="mine.csv", proxy=model, target=model, method="margin", budget=20)
    page = svp.coreset(config, out="run").report().read_text()
    assert EVIL not in page
    assert "&lt;script&gt;" in page
    assert any(f"<b>{word}</b>" in page for word in WORDS["sweet"])


def test_passages_are_the_beginning_of_the_text(tmp_path):
    long = "word " * 200
    data = svp.Dataset.from_arrays([*(text for _, text in made(40)), long, ""], [*[0, 1] * 20, 0, 1])
    texts = [
        "".join(part for part, _ in p)
        for p in passages.passages(data, [Example(i, str(i), None, None) for i in range(42)])
    ]
    assert texts[:40] == [" ".join(text.split()) for _, text in made(40)]
    assert texts[40].endswith("word …")
    assert len(texts[40]) <= passages.LENGTH + 2
    assert texts[41] == ""
    assert passages.passages(data.without_labels(), [Example(40, "40", None, None)]) == [[(texts[40], False)]]


def test_a_pool_of_texts_is_scored_in_blocks(tmp_path, monkeypatch):
    data = load_dataset(write(tmp_path / "t.csv", made(60)), test_share=0)
    learner = make_learner(svp.TrainConfig(model="tests.own_texts:bag_of_words"), data, seed=0)
    learner.fit(data, data.ids[::2], data.labels[::2], folder=tmp_path)
    whole = learner.predict(data, data.ids).probs
    monkeypatch.setattr(classifier, "_ROWS", 7)
    np.testing.assert_array_equal(learner.predict(data, data.ids).probs, whole)


def test_a_model_for_numbers_says_that_these_are_texts(tmp_path):
    pytest.importorskip("torch")
    write(tmp_path / "mine.csv", made(40))
    net = svp.TrainConfig(model="preact8")
    config = svp.CoresetConfig(dataset="mine.csv", budget=10, proxy=net, target=net)
    with pytest.raises(svp.SvpError, match="mine holds texts"):
        svp.coreset(config, out="run")
