"""The documents are true: every Python example runs, and every command of the README does what it says, on a small slice."""

import csv
import io
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from svp import cli
from svp.select import METHODS, SAMPLERS, Selection
from svp.tables import write_table
from tests import methods_page
from tests.test_data_cifar import write_layout

ROOT = Path(__file__).parents[1]

# What a command of the README gets in place of its own values, so that it takes a second: the fewest epochs, the smallest nets.
TINY = {
    "--proxy.epochs": "1",
    "--proxy.min-steps": "2",
    "--proxy.width": "0.25",
    "--target.epochs": "1",
    "--target.min-steps": "2",
    "--target.model": "preact8",
    "--target.width": "0.25",
    "--seeds": "1",
    "--compute.threads": "1",
}


def blocks(path: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", path.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_readme_python_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile("".join(blocks(ROOT / "README.md", "python")), "README.md", "exec"), {})
    printed = capsys.readouterr().out
    assert "on 673 examples (the part the proxy chose)" in printed


def test_concepts_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (block,) = blocks(ROOT / "docs/concepts.md", "python")
    names: dict[str, Any] = {}
    exec(compile(block, "concepts.md", "exec"), names)
    assert (names["status"]["labelled"], names["status"]["open"]) == (30, 0)
    assert [r["origin"] for r in names["status"]["rounds"]] == ["random start", "margin"]
    assert names["labels"].tolist() == names["look"](names["ids"])
    assert names["probs"].shape == (5, 10)
    assert set(Selection.load(tmp_path / "asked.parquet").ids) == set(names["ids"])


def test_adding_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The page is one story: its blocks share their names; the net is put into the file that the text names."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    names: dict[str, object] = {}
    for block in blocks(ROOT / "docs/adding.md", "python"):
        if "def small_net" in block:
            (tmp_path / "mynets.py").write_text(block)
        exec(compile(block, "adding.md", "exec"), names)
    run = names["run"]
    assert len(run.selection.ids) == 60  # type: ignore[attr-defined]


def test_arrays_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One story from top to bottom: each command and each block of Python, on files such as the page speaks of."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    np.save("probs.npy", rng.dirichlet(np.ones(3), 20))
    np.save("correct.npy", rng.integers(0, 2, (4, 20)).astype(np.uint8))
    embeddings = {f"e{i}": rng.normal(size=20) for i in range(4)}
    write_table(tmp_path / "emb.parquet", pa.table({"name": [f"n{i}" for i in range(20)], **embeddings}))
    write_table(tmp_path / "labelled.csv", pa.table({"key": ["n3", "n4"]}))
    write_table(tmp_path / "labels.csv", pa.table({"label": [i % 2 for i in range(20)]}))
    write_table(tmp_path / "table.csv", pa.table({"text": [f"row {i}" for i in range(20)]}))
    for i in range(20):
        place = tmp_path / "photos" / ("cat", "dog")[i % 2]
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(place / f"{i}.png")
    names: dict[str, object] = {}
    blocks = re.findall(r"```(sh|python)\n(.*?)```", (ROOT / "docs/arrays.md").read_text(), flags=re.DOTALL)
    for language, block in blocks:
        if language == "python":
            exec(compile(block, "arrays.md", "exec"), names)
            continue
        for command in block.splitlines():
            cli.main(shlex.split(command)[1:])
    said = capsys.readouterr()
    assert "2 of 20" in said.out
    assert said.err.count("forecast: ") == said.err.count("took: ") == 4
    assert len(list(Path("kept").rglob("*.png"))) == 2
    assert len(list(Path("left").rglob("*.png"))) == 18


def people(out: Path) -> None:
    """They answer what was asked: by the names of the photos, which say what they show."""
    if out.is_dir():
        for photo in list(out.glob("0*")):
            photo.rename(out / ("cat" if "cat" in photo.name else "dog") / photo.name)
        return
    rows = list(csv.DictReader(io.StringIO(out.read_bytes().decode("utf-8-sig"), newline="")))
    with out.open("w", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows({**row, "label": "cat" if "cat" in row["key"] else "dog"} for row in rows)


@pytest.mark.parametrize("page", ["README.md", "docs/sessions.md"])
def test_sessions_run(
    page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From unlabelled photos to a model by the page alone, with small nets; people answer between the commands."""
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    Path("photos").mkdir()
    for i in range(60):
        shade = 150 if i % 2 else 0
        Image.fromarray((rng.integers(0, 90, (8, 8, 3)) + shade).astype(np.uint8)).save(
            Path("photos") / f"{'cat' if i % 2 else 'dog'}{i}.png"
        )
    small = "--image-size 8 --compute.threads 1 --compute.precision fp32"
    for role in ("proxy", "target"):
        small += f" --{role}.model preact8 --{role}.width 0.25 --{role}.epochs 1 --{role}.min-steps 8"
    commands = [line for block in blocks(ROOT / page, "sh") for line in block.splitlines() if "svp session" in line]
    commands = [line for line in commands if " serve " not in line]  # tests/test_serve.py gives those
    commands += [
        line for block in blocks(ROOT / page, "sh") for line in block.splitlines() if "svp predict pets" in line
    ]
    assert len(commands) >= 6
    for command in commands:
        words = shlex.split(re.sub("-n 100", "-n 12", command))[1:]
        cli.main([*words, *(small.split() if "new" in words else []), "--quiet"])
        if "--out" in words and "ask" in words:
            people(Path(words[-1]))
    assert "The target is trained on 24 labels" in capsys.readouterr().out
    assert len(Path("pets/labelled.csv").read_text().splitlines()) == 25
    assert len(Path("pets/predicted.csv").read_text().splitlines()) == 37
    for block in blocks(ROOT / page, "python") if page != "README.md" else ():
        exec(compile(block, page, "exec"), {})
    if page != "README.md":
        assert len(Path("everything.csv").read_text().splitlines()) == 61


def test_run_folder_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What the page says of using a model, from top to bottom."""
    monkeypatch.chdir(tmp_path)
    (commands,) = blocks(ROOT / "docs/run_folder.md", "sh")
    for command in commands.splitlines():
        cli.main([*shlex.split(command)[1:], "--quiet"])
    assert capsys.readouterr().out.count("Accuracy ") >= 3
    assert len(Path("predicted.csv").read_text().splitlines()) == 452
    names: dict[str, Any] = {}
    (block,) = blocks(ROOT / "docs/run_folder.md", "python")
    exec(compile(block, "run_folder.md", "exec"), names)
    assert names["found"].probs.shape == (451, 10)
    cli.main(shlex.split("select margin --probs 'probs.parquet:p_*' --budget 10 --quiet"))
    assert len(capsys.readouterr().out.split()) >= 10


def sections(kind: str) -> dict[str, str]:
    """By name, the text of each section of the page about methods that is made of a row of `kind`."""
    parts = methods_page.PAGE.read_text(encoding="utf-8").split("\n### ")[1:]
    return {part.partition("\n")[0]: part for part in parts if f"<!-- made: {kind} " in part}


@pytest.mark.parametrize(("kind", "table"), [("method", METHODS), ("sampler", SAMPLERS)])
def test_every_row_has_its_section_with_an_example_of_it(kind: str, table: dict[str, Any]) -> None:
    found = sections(kind)
    assert list(found) == list(table)
    for name, text in found.items():
        assert f"<!-- made: {kind} {name} -->" in text
        assert "\nUse " in text, name
        (example,) = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
        assert f'"{name}"' in example


def test_what_the_methods_page_says_of_the_tables_is_true() -> None:
    page = methods_page.PAGE.read_text(encoding="utf-8")
    assert page == methods_page.filled(page), "write it anew: python -m tests.methods_page"
    for name, row in METHODS.items():
        assert row.summary in sections("method")[name]


def test_methods_page_runs(capsys: pytest.CaptureFixture[str]) -> None:
    """The blocks share their names, as on one page; its commands run on digits in place of photos."""
    names: dict[str, object] = {}
    for block in blocks(methods_page.PAGE, "python"):
        exec(compile(block, "methods.md", "exec"), names)
    (commands,) = blocks(methods_page.PAGE, "sh")
    for command in commands.splitlines():
        cli.main(shlex.split(command.replace("photos", "digits"))[1:])
    assert capsys.readouterr().out.count("To beat: random") == 3


def tiny(command: str) -> list[str]:
    """The arguments of a README command: a workflow gets TINY's values, totals of a tiny pool, CIFAR files without checksum."""
    words = shlex.split(command, comments=True)[1:]
    if words[0] not in ("coreset", "active"):
        return words
    command = re.sub(
        r"--labelled [\d ]+", "--labelled 4 8 12 ", re.sub(r"--evaluate [\d ]+", "--evaluate 8 12 ", command)
    )
    for flag in TINY:
        command = re.sub(rf"{re.escape(flag)} \S+", "", command)
    command = re.sub(r"^svp (\w+) +cifar10 ", r"svp \1 svp.data.cifar:read_batches ", command)
    tiny = {} if "reviews.csv" in command else TINY  # texts are for linear models, which are fast as they are
    if "--selection" in command:  # nobody chooses
        tiny = {flag: value for flag, value in tiny.items() if not flag.startswith("--proxy")}
    words = [*shlex.split(command, comments=True)[1:], *(word for pair in tiny.items() for word in pair), "--quiet"]
    return [*words, "--image-size", "16"] if "photos" in words else words


def test_readme_commands_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """One story from top to bottom, but for sessions, which tests of their own run."""
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    for name in [
        *(f"photos/{kind}/{i}" for kind in ("cat", "dog") for i in range(40)),
        *(f"new/{i}" for i in range(5)),
    ]:
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 255, (16, 16, 3), dtype=np.uint8)).save(path)
    write_layout(tmp_path / "DIR")
    rows = [f"{'good' if i % 2 else 'bad'} film number {i},{i % 2}" for i in range(60)]
    (tmp_path / "reviews.csv").write_text("\n".join(["text,label", *rows]))
    np.save("probs.npy", rng.dirichlet(np.ones(3), size=500))
    commands = [line for block in blocks(ROOT / "README.md", "sh") for line in block.splitlines()]
    commands += re.findall(r"`(svp (?:list|advise) [^`]+)`", (ROOT / "README.md").read_text())
    commands = [line for line in commands if line.startswith("svp ") and not line.startswith("svp session ")]
    assert len(commands) >= 6  # the list is not empty by a slip of the pattern
    for command in commands:
        cli.main(tiny(command))
    assert capsys.readouterr().out.count("Accuracy of ") >= 5
    assert len([path for path in (tmp_path / "kept").rglob("*") if path.is_file()]) == 32
    assert len((tmp_path / "predicted.csv").read_text().splitlines()) == 6


@pytest.mark.parametrize(
    "page", sorted([ROOT / "README.md", *(ROOT / "docs").glob("*.md")]), ids=lambda page: page.name
)
def test_every_block_says_what_it_is(page: Path) -> None:
    """Tests run blocks by their kind: one without would be run by nobody."""
    fences = [line for line in page.read_text().splitlines() if line.startswith("```")]
    assert all(fence != "```" for fence in fences[::2])


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main([name, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for words in cli.COMMANDS[name][1:]:
        assert words in printed


@pytest.mark.parametrize("name", cli.SESSION)
def test_every_command_of_a_session_has_help_and_an_example(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    cli.main(["session", name, "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for words in cli.SESSION[name][1:]:
        assert words in printed
