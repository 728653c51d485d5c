"""The adviser: every rule can be reached and carried out; advice is two or three methods that the facts allow."""

import json
import shlex
from collections.abc import Iterator
from inspect import Parameter
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import svp
from svp import cli
from svp.adviser import ANSWERS, advise, facts_of, rules_for
from svp.errors import BudgetError, MissingInput, SettingError, SvpError, UnknownName
from svp.rules import NOTES, RULES, Facts, signal_kinds
from svp.select import METHODS
from svp.select.forecast import forecast_of_sizes
from svp.select.table import Shape

fixed = settings(deadline=None, derandomize=True, max_examples=100)


def test_every_rule_names_a_method_of_the_table() -> None:
    assert {rule.method for rule in RULES} <= set(METHODS)


def grid() -> Iterator[Facts]:
    """Facts of every kind that a condition asks about."""
    sizes = [(2_000_000, 100, 20_000), (2_000_000, 100, 900_000), (50_000, 10, 90), (50_000, 10, 5_000), (900, 10, 400)]
    sizes += [(50_000, None, 90), (50_000, None, 20_000), (900, 100, 50), (900, 2, 50)]
    parts = [{"labels": True}, {"embeddings": True}, {"probs": True}, {"proxy": True}]
    parts += [{"signals": (kind,), "labels": True} for kind in sorted(signal_kinds())]
    hands = [{**a, **b} for a, b in product(parts, parts)]
    for (n, classes, budget), goal, hand, noise, imbalance in product(
        sizes, ["label", "train"], hands, [0.0, 0.1], [1.0, 5.0]
    ):
        facts = Facts(n, budget, goal, classes=classes, noise=noise, imbalance=imbalance, **hand)  # type: ignore[arg-type]
        if facts.available and (facts.labels or facts.goal == "label"):
            yield facts


@pytest.fixture(scope="module")
def reached() -> set[int]:
    return {RULES.index(rule) for facts in grid() for rule in rules_for(facts)}


@pytest.mark.parametrize("number", range(len(RULES)), ids=[f"{i}-{rule.method}" for i, rule in enumerate(RULES)])
def test_every_rule_is_reached(number: int, reached: set[int]) -> None:
    assert number in reached


def test_every_note_is_reached() -> None:
    said = {note for facts in grid() for note in NOTES if all(condition.holds(facts) for condition in note.when)}
    assert said == set(NOTES)


@st.composite
def some_facts(draw: st.DrawFn, largest: int = 3_000_000) -> dict[str, Any]:
    """Arguments of `advise` that make sense together."""
    n = draw(st.integers(2, largest))
    facts: dict[str, Any] = {"n": n, "budget": draw(st.integers(1, n - 1))}
    facts["goal"] = draw(st.sampled_from(["label", "train", None]))
    facts |= {name: draw(st.booleans()) for name in ("embeddings", "probs")}
    facts["labels"] = labels = draw(st.booleans())
    if labels or facts["goal"] != "train":
        facts["proxy"] = draw(st.booleans())
        facts["noise"] = draw(st.sampled_from([0.0, 0.04, 0.3, 0.9]))
    if labels:
        facts["signals"] = tuple(draw(st.sets(st.sampled_from(sorted(signal_kinds())))))
        facts["imbalance"] = draw(st.sampled_from([1.0, 2, 50.0]))
    facts["classes"] = draw(st.none() | st.integers(2, 1000))
    return facts


def something_is_at_hand(facts: dict[str, Any]) -> bool:
    trains = facts["goal"] == "train" or (facts["goal"] is None and facts["labels"])
    return bool(facts["embeddings"] or facts["probs"] or facts.get("proxy") or (facts["labels"] and trains))


@fixed
@given(some_facts())
def test_advice_is_two_or_three_methods_whose_needs_are_met_and_a_control(facts: dict[str, Any]) -> None:
    if not something_is_at_hand(facts):
        with pytest.raises(MissingInput, match="random is all there is"):
            advise(**facts)
        return
    advice = advise(**facts)
    methods = [answer.method for answer in advice.answers]
    assert 2 <= len(methods) == len(set(methods)) <= ANSWERS
    for answer in advice.answers:
        assert advice.facts.available.issuperset(METHODS[answer.method].reads)
        assert answer.why
        assert answer.source
        assert answer.cost.words
    assert advice.beat[0] == "random"
    assert ("stratified_random" in advice.beat) == (advice.facts.goal == "train" and facts["labels"])
    assert json.loads(json.dumps(advice.as_dict()))["answers"][0]["method"] == methods[0]
    assert all(method in "\n".join(advice.lines()) for method in methods)


@fixed
@given(some_facts(largest=60), st.integers(0, 3))
def test_what_is_advised_can_be_done(facts: dict[str, Any], seed: int) -> None:
    """Each answer's own line of Python runs on arrays that the facts say are there, and takes the budget."""
    if not something_is_at_hand(facts):
        return
    n, rng = facts["n"], np.random.default_rng(seed)
    there: dict[str, Any] = {kind: rng.random((5, n), np.float32) for kind in signal_kinds()}
    there["correct"] = rng.integers(0, 2, (5, n), dtype=np.uint8)
    there |= {"ids": np.arange(n), "labels": rng.integers(0, 3, n), "embeddings": rng.normal(size=(n, 4))}
    there |= {"probs": rng.dirichlet(np.ones(3), size=n), "already": [int(rng.integers(n))]}
    for answer in advise(**facts).answers:
        chosen = eval(answer.call, {"svp": svp, **there})
        assert len(chosen) == facts["budget"]


def test_what_it_costs_here_is_timed_where_that_is_wanted(capsys: pytest.CaptureFixture[str]) -> None:
    facts: dict[str, Any] = {"n": 40_000, "classes": 7, "budget": "2%", "embeddings": True, "probs": True, "d": 16}
    assert {answer.cost.seconds for answer in advise(**facts).answers} == {None}
    assert all(answer.cost.seconds and answer.cost.seconds > 0 for answer in advise(**facts, timed=True).answers)
    cli.main(["advise", "--n", "40000", "--budget", "2%", "--embeddings", "--d", "16"])
    lines = [line for line in capsys.readouterr().out.splitlines() if "cost:" in line]
    assert len(lines) >= 2
    assert all("on this machine, " in line for line in lines)


@pytest.mark.parametrize("method", [name for name, row in METHODS.items() if row.cost is not None])
def test_every_method_can_be_timed_on_sizes_alone(method: str) -> None:
    options = {name: 3 for name, value in METHODS[method].options.items() if value is Parameter.empty}
    found = forecast_of_sizes(method, Shape(600, c=3, d=4, n_epochs=5, budget=60), **options)
    assert found.seconds is not None
    assert found.seconds > 0


@pytest.mark.parametrize(
    ("facts", "first"),
    [
        ({"n": 50_000, "budget": 10, "classes": 10, "embeddings": True}, "typiclust"),
        ({"n": 50_000, "budget": 5_000, "classes": 10, "proxy": True}, "badge"),
        ({"n": 50_000, "budget": 50, "classes": 2, "probs": True}, "margin"),
        ({"n": 50_000, "budget": "10%", "classes": 10, "labels": True, "proxy": True}, "moderate"),
        ({"n": 50_000, "budget": "50%", "classes": 10, "labels": True, "proxy": True}, "forgetting"),
    ],
)
def test_what_wins_where(facts: dict[str, Any], first: str) -> None:
    assert advise(**facts).answers[0].method == first


@fixed
@given(some_facts())
def test_with_noise_nothing_that_takes_the_wrong_labels_first_is_advised(facts: dict[str, Any]) -> None:
    if not facts["labels"] or facts["goal"] == "label":
        return
    methods = {answer.method for answer in advise(**{**facts, "noise": 0.2}).answers}
    assert not methods & {"forgetting", "el2n", "grand", "entropy", "margin", "least_confidence"}


GOOD: dict[str, Any] = {"n": 100, "budget": 10, "embeddings": True}


@pytest.mark.parametrize(
    ("facts", "error", "words"),
    [
        ({"n": 0}, SettingError, "n=0"),
        ({"n": 2.5}, SettingError, "whole"),
        ({"n": True}, SettingError, "n=True"),
        ({"budget": 0}, BudgetError, "1 to 99"),
        ({"budget": 100}, BudgetError, "nothing to choose"),
        ({"budget": 101}, BudgetError, "100 candidates"),
        ({"budget": "lots"}, BudgetError, "no number"),
        ({"goal": "win"}, SettingError, "'label'"),
        ({"classes": 1}, SettingError, "classes=1"),
        ({"noise": 1.0}, SettingError, "below 1"),
        ({"noise": float("nan")}, SettingError, "noise=nan"),
        ({"imbalance": 0.5}, SettingError, "imbalance=0.5"),
        ({"d": 0}, SettingError, "d=0"),
        ({"epochs": -1}, SettingError, "epochs=-1"),
        ({"labels": True, "signals": ("corect",)}, UnknownName, "'correct'"),
        ({"goal": "train", "proxy": True}, SettingError, "proxy without labels"),
        ({"goal": "train", "noise": 0.1}, SettingError, "noise without labels"),
        ({"goal": "train", "signals": ("correct",)}, SettingError, "signals without labels"),
        ({"embeddings": False}, MissingInput, "frozen"),
    ],
)
def test_facts_that_cannot_be_are_refused_by_name(facts: dict[str, Any], error: type[SvpError], words: str) -> None:
    with pytest.raises(error, match=words):
        advise(**{**GOOD, **facts})


def test_what_takes_days_is_not_advised_nor_what_needs_labels_without_them() -> None:
    vast = {"n": 5_000_000, "budget": "1%", "classes": 1000, "probs": True, "embeddings": True}
    answers = {answer.method: answer.call for answer in advise(**vast).answers}
    assert "badge" not in answers
    assert "already=already" in answers["seals"]
    tiny = advise(5_000_000, "1%", embeddings=True)
    assert not any("frozen encoder" in answer.why for answer in tiny.answers)  # it is there


def test_facts_are_read_from_a_dataset() -> None:
    inputs, labels = np.zeros((10, 3), np.float32), np.array([0] * 8 + [2] * 2)
    dataset = svp.Dataset.from_arrays(inputs, labels, classes=["a", "b", "c"])
    assert facts_of(dataset) == {"n": 10, "classes": 3, "labels": True, "imbalance": 4.0}
    assert facts_of(svp.Dataset.from_arrays(inputs)) == {"n": 10, "classes": None}


def test_the_command_reads_a_dataset_and_flags_overrule_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez("mine.npz", x=np.zeros((400, 2), np.float32), y=np.repeat([0, 1], [300, 100]))
    cli.main(["advise", "mine.npz", "--budget", "10%", "--proxy", "--json"])
    facts = json.loads(capsys.readouterr().out)["facts"]
    assert (facts["n"], facts["classes"], facts["goal"], facts["budget"]) == (320, 2, "train", 32)
    assert facts["imbalance"] == pytest.approx(3)
    cli.main(["advise", "mine.npz", "--budget", "10%", "--proxy", "--goal", "label", "--imbalance", "1"])
    printed = capsys.readouterr().out
    assert printed.startswith("32 of 320 examples (0.1), to be labelled")
    assert "To beat: random, at the same budget" in printed
    assert not any(tmp_path.glob("runs*"))


@pytest.mark.filterwarnings("default::svp.errors.SvpWarning")
def test_the_command_reads_a_table_as_the_others_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its columns named, a row that cannot be read skipped, which is said in one line; what is advised names them too."""
    pytest.importorskip("pyarrow")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    rows = "".join(f"{'good' if i % 3 else 'bad'};text number {i}\n" for i in range(60))
    Path("reviews.csv").write_text(f"verdict;what they say\n{rows};nobody said\n")
    columns = ["--text-column", "what they say", "--label-column", "verdict", "--on-error", "skip"]
    cli.main(["advise", "reviews.csv", "--budget", "50%", "--proxy", "--quiet", *columns])
    printed, said = capsys.readouterr()
    assert printed.startswith("24 of 48 examples")
    (call,) = {line.partition(" --method")[0] for line in printed.splitlines() if "call: " in line}
    assert shlex.split(call.partition("call: ")[2]) == ["svp", "coreset", "reviews.csv", *columns]
    assert said.startswith("svp: reviews.csv: 1 row left out: ")
    assert said.count("\n") == 1


def test_how_data_are_read_needs_data(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        cli.main(["advise", "--n", "100", "--budget", "10", "--labels", "--no-quotes"])
    assert "--no-quotes says how data are read, and no dataset is named" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "runs"),
    [
        ("--budget 10% --noise 0.1", ["ccs --options.drop 0.1", "moderate", "aum --options.keep easy"]),
        (
            "--budget 10% --goal label",
            ["badge", "cluster_margin", "margin"],
        ),  # margin by its scores: no run has samplers
    ],
)
def test_with_a_dataset_and_a_proxy_advice_is_commands_that_can_be_pasted(
    words: str, runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("torch")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("svp.report.page._library", lambda: "")
    cli.main(["advise", "digits", "--proxy", "--imbalance", "4", *words.split()])
    printed = capsys.readouterr().out
    calls = [line.partition("call: ")[2] for line in printed.splitlines() if "call: " in line]
    assert [
        call.partition("--method ")[2].partition(" --budget")[0].partition(" --labelled")[0] for call in calls
    ] == runs
    assert "svp.select(" not in printed
    assert "per_class" not in printed
    small = "--proxy.model linear --proxy.epochs 1 --proxy.min-steps 0 --target.model logistic --compute.threads 1"
    first = calls[0].removesuffix(" --seeds 3")  # what more seeds show is no matter here
    assert first != calls[0]
    cli.main([*shlex.split(first)[1:], *small.split(), "--out", "run", "--quiet"])
    assert len(svp.Selection.load("run/selection.parquet").ids) == 134
    assert svp.advise(100, 2, proxy=True, dataset=["my photos"]).answers[0].call.startswith("svp.select(")
    assert "svp active 'my photos' --method" in svp.advise(100, 3, proxy=True, dataset=["my photos"]).answers[0].call


def test_the_command_says_what_it_lacks(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        cli.main(["advise", "--budget", "10"])
    assert "name a dataset, or give --n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--n 100.7", "svp: --n: give a whole number; got '100.7'"),
        ("--n 100 --classes 2.5", "svp: --classes: give a whole number; got '2.5'"),
        ("--n 100 --noise much", "svp: --noise: give a number; got 'much'"),
        ("--n 100 --goal win", "svp: --goal: give 'label' or 'train'; got 'win'"),
    ],
)
def test_a_flag_that_cannot_be_is_one_line_of_ours(words: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="1"):
        cli.main(["advise", "--budget", "10", "--labels", *words.split()])
    assert capsys.readouterr().err == f"{said}\n"


def test_the_facts_are_listed_once(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(UnknownName, match="Unknown fact 'nois'; did you mean 'noise'"):
        advise(1000, 10, embeddings=True, nois=0.1)
    cli.main(["advise", "--help"])
    said = capsys.readouterr().out
    for name in ("--n", "--goal", "--labels", "--signals", "--classes", "--noise", "--imbalance", "--d ", "--epochs"):
        assert name in said
    assert "--no-labels" not in said
