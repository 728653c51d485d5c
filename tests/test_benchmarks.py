"""What the benchmark of selection relies on; nothing here is timed."""

import base64
import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from benchmarks import arms, cifar10_coreset, claims, label_noise, run, text, vision
from benchmarks.select import agreement, exponent, formula_exponent
from benchmarks.select_cases import CASES, everything, features, growth, k_center, one_row_per_pick
from svp.config import ActiveConfig, CoresetConfig
from svp.data.base import Dataset
from svp.select import METHODS

ROOT = Path(__file__).parents[1]


def test_the_peer_picks_what_k_center_picks(tmp_path: Path) -> None:
    arrays = {"embeddings": features(400, 8, 5), "already": np.array([3, 77, 200]), "budget": np.array(120)}
    ours, theirs = (side(arrays, tmp_path)["picks"] for side in (k_center, one_row_per_pick))
    assert ours.tolist() == theirs.tolist()


@pytest.mark.parametrize("method", METHODS)
def test_the_growth_of_every_method_can_be_measured(method: str, tmp_path: Path) -> None:
    """A method that reads something new needs a row in MADE."""
    growth(method)(everything(method, 100), tmp_path)


def test_agreement_counts_what_is_in_common_and_the_same_beginning(tmp_path: Path) -> None:
    for name, picks in (("a", [1, 2, 3, 4]), ("b", [1, 2, 4, 9])):
        np.save(tmp_path / f"{name}.npy", np.array(picks))
    assert agreement(tmp_path / "a.npy", tmp_path / "b.npy") == (0.75, 2)
    assert agreement(tmp_path / "a.npy", tmp_path / "a.npy") == (1.0, 4)


def test_the_exponent_of_a_formula_is_that_of_the_row() -> None:
    assert formula_exponent("margin") == 1
    assert formula_exponent("d2") == 2


def test_the_exponent_is_that_of_a_power() -> None:
    assert exponent([10, 100, 1000], [1.0, 7.0, 700.0]) == 2


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read where Linux keeps it")
def test_a_side_runs_in_a_process_of_its_own(tmp_path: Path) -> None:
    """From inputs to a result, at a tiny scale."""

    def child(side: str) -> dict[str, float]:
        command = [sys.executable, "-m", "benchmarks.select", "--scale", "0.002", "--child", "k_center", side]
        where = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
        done = subprocess.run(
            [*command, str(tmp_path)],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": where},
            stdout=subprocess.PIPE,
            text=True,
            check=True,
        )
        return dict(json.loads(done.stdout))

    assert child("make") == {}
    found = child("svp")
    assert set(found) == {"seconds", "bytes_beyond_inputs", "bytes_peak"}
    assert found["bytes_peak"] > found["bytes_beyond_inputs"] >= 0
    assert len(np.load(tmp_path / "picks-svp.npy")) == 48
    assert set(CASES["k_center"].sides) == {"svp", "one BLAS distance row per pick"}


# --- whether a unit had the machine to itself -----------------------------------------------------------------------------

# user nice system idle iowait irq softirq steal guest guest_nice, in ticks
STAT = "cpu  {user} 0 0 {idle} 0 0 0 {steal} 0 0\ncpu0 1 0 0 1 0 0 0 0 0 0\n"


@pytest.mark.parametrize(
    ("others", "steal", "quiet"), [(0, 0, True), (5, 0, False), (0, 5, False)], ids=["alone", "shared", "stolen"]
)
def test_quiet_is_about_the_whole_unit(
    others: int, steal: int, quiet: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that was idle before the unit, on which others (or other machines) work while it runs."""
    stat = tmp_path / "stat"
    now = {"wall": 100.0, "own": 7.0}
    monkeypatch.setattr(run, "STAT", stat)
    monkeypatch.setattr(run.time, "perf_counter", lambda: now["wall"])
    monkeypatch.setattr(
        run.os, "times", lambda: SimpleNamespace(user=now["own"], system=0, children_user=0, children_system=0)
    )
    monkeypatch.setattr(run.os, "cpu_count", lambda: 2)
    ticks = os.sysconf("SC_CLK_TCK")

    def unit(data: Path, work: Path) -> dict[str, Any]:
        now["wall"] += 10  # twice that in CPU seconds, of which the unit uses 9
        now["own"] += 9
        stat.write_text(STAT.format(user=(40 + 9 + others) * ticks, idle=900, steal=(3 + steal) * ticks))
        return {"accuracy": 0.5}

    stat.write_text(STAT.format(user=40 * ticks, idle=800, steal=3 * ticks))
    monkeypatch.setitem(sys.modules, "benchmarks.fake", SimpleNamespace(UNITS=[run.Unit("one", unit)]))
    folders = ["--data", str(tmp_path), "--work", str(tmp_path), "--results", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", ["run", "fake", *folders])
    run.main()
    result = json.loads((tmp_path / "fake" / "one.json").read_text())
    assert result["accuracy"] == 0.5
    assert (result["others"], result["quiet"]) == ((others + steal) / 20, quiet)


@pytest.mark.parametrize("content", [None, "", "cpu  0 0 0 0 0 0 0 0 0 0\n", "cpu a b\n", "intr 1 2 3 4 5 6 7 8\n"])
def test_where_the_system_does_not_say_nobody_knows(
    content: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "STAT", tmp_path / "stat")
    if content is not None:
        (tmp_path / "stat").write_text(content)
    assert run.company(run.clock(), run.clock()) == {"others": None, "quiet": None}


# --- units of the vision experiment ---------------------------------------------------------------------------------------


def test_units_of_vision_have_names_of_their_own_and_settings_that_hold() -> None:
    names = [unit.name for unit in vision.UNITS]
    assert len(set(names)) == len(names)
    for asker in vision.ASKERS:
        settings = {"dataset": "cifar10", "labelled": list(vision.TOTALS), **vision.asking(asker)(arms.FULL)}
        assert ActiveConfig.make(settings).target.model == "preact56"
    for arm in vision.KEPT:
        assert CoresetConfig.make({"dataset": "cifar10", **vision.keeping(*arm)(arms.FULL)}).target.epochs == 40


def test_the_tables_claim_by_the_rule(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three seeds in which forgetting has 80 % and chance 60 % of 1,000 test images right; nothing else was run."""
    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    (tmp_path / "vision").mkdir()
    for method, share in (("forgetting", 8), ("random", 6)):
        for seed in range(3):
            right = np.arange(1000) % 10 < share
            right[seed] = False
            result = {
                "seed": seed,
                "n": 15_000,
                "epochs": 40,
                "accuracy": right.mean(),
                "correct": base64.b64encode(np.packbits(right).tobytes()).decode(),
            }
            name = f"coreset-30-preact8-15-{method}-seed{seed}.json"
            (tmp_path / "vision" / name).write_text(json.dumps(result))
    vision.tables()
    lines = capsys.readouterr().out.splitlines()
    (forgetting,) = [line for line in lines if line.startswith("| coreset-30-preact8-15-forgetting |")]
    cells = [part.strip() for part in forgetting.strip("|").split("|")]
    assert cells[1:4] == ["15,000", "40", "79.90, 79.90, 79.90"]
    assert cells[4].startswith("+20.00 (")
    assert cells[4].endswith("better: shown")
    assert cells[5] == "not run"
    (chance,) = [line for line in lines if line.startswith("| coreset-30-preact8-15-random |")]
    assert [part.strip() for part in chance.strip("|").split("|")][4] == ""


@pytest.mark.parametrize(("n_seeds", "said"), [(1, "one seed"), (3, "better: shown")])
def test_summaries_are_in_words(
    n_seeds: int, said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same words for every experiment; what was not run is called so."""
    pytest.importorskip("torch")
    from benchmarks import precision

    monkeypatch.setattr(claims, "RESULTS", tmp_path)
    facts = {"n": 25_000, "epochs": 40, "steps": 7840}
    for experiment, shares in (
        ("cifar10_coreset", {"proxy-epochs": 8, "random-epochs": 6, "full-epochs": 8}),
        ("precision", {"digits-bf16": 8, "digits-fp32": 8}),
    ):
        (tmp_path / experiment).mkdir()
        for arm, share in shares.items():
            for seed in range(n_seeds):
                right = np.arange(1000) % 10 < share
                result = {**facts, "seed": seed, "accuracy": right.mean(), "correct": run.as_bits(right)}
                (tmp_path / experiment / f"seed{seed}-{arm}.json").write_text(json.dumps(result))
    cifar10_coreset.main()
    precision.main()
    printed = capsys.readouterr().out
    assert "Difference(" not in printed
    lines = printed.splitlines()
    (chance,) = [line for line in lines if line.startswith("proxy-epochs minus random-epochs, points: +20.00 (")]
    (whole,) = [line for line in lines if line.startswith("proxy-epochs minus full-epochs, points: +0.00 (")]
    (bf16,) = [line for line in lines if line.startswith("digits, bf16 minus fp32, points: +0.00 (")]
    assert said in chance
    for line in (whole, bf16):
        assert ("no worse: shown" if n_seeds > 1 else "one seed") in line
    assert "proxy-steps minus full-epochs, points: not run" in lines
    assert (
        len([line for line in lines if line.startswith("proxy-epochs: 25,000 examples, 40 epochs, 7,840 steps: 80")])
        == 1
    )


def test_a_small_scale_cuts_every_class_and_both_parts() -> None:
    x, y = np.arange(40 * 4, dtype=np.uint8).reshape(40, 2, 2, 1), np.arange(40) % 4
    whole = Dataset.from_arrays(x, y, test=(x[::-1], y[::-1]), augmentation="crop")
    small = arms.cut(whole, arms.Scale(examples=3))
    assert small.labels is not None
    assert small.test is not None
    assert np.bincount(small.labels).tolist() == np.bincount(small.test.labels).tolist() == [3, 3, 3, 3]
    assert small.augmentation == "crop"
    assert arms.cut(whole, arms.FULL) is whole


# --- units of the text experiment -----------------------------------------------------------------------------------------


def test_units_of_text_have_names_of_their_own_and_settings_that_hold() -> None:
    names = [unit.name for unit in text.UNITS]
    assert len(set(names)) == len(names)
    for kind, model in text.ACTIVE:
        for asker in text.ASKERS:
            settings = text.asking(kind, model, asker, arms.FULL)
            config = ActiveConfig.make({"dataset": kind, "labelled": ["10%", "20%"], **settings})
            assert (config.target.model, config.target.epochs) == (model, 5)
            assert (config.proxy == config.target) == (asker == "target")
    for kind, model in text.KEPT:
        config = CoresetConfig.make({"dataset": kind, **text.keeping(kind, model, "80%", arms.FULL)})
        assert (config.proxy.model, config.target.model, config.budget) == ("fasttext", model, "80%")


@pytest.mark.parametrize("scores", [False, True])
@pytest.mark.parametrize("shares", [[0.1, 0.2], [0.4], [1.0]])
@pytest.mark.parametrize("limit", [300, 1000, 2000, 10_000])
def test_no_part_of_a_unit_is_longer_than_it_may_be(limit: int, shares: list[float], scores: bool) -> None:
    """Of 1,000 texts; a training of all of them has epochs that are longer than the lowest limit by themselves."""
    ends = text.stops(shares, 1000, limit, scores)
    assert ends == sorted(set(ends))
    assert (0, 0) not in ends or scores
    length, longest = 0.0, max([1000 * share for share in shares] + [1000 * text.SCORING * scores])
    for i, share in enumerate(shares):
        length += 1000 * text.SCORING if scores and (i or len(shares) == 1) else 0
        for epoch in range(5):
            length = 0.0 if (i, epoch) in ends else length
            length += 1000 * share
            assert length <= max(limit, 2 * longest)
    if limit == 10_000:
        assert not ends


def test_a_unit_stops_at_an_epoch(tmp_path: Path) -> None:
    reached: list[int] = []

    def unit(data: Path, work: Path, show: Any) -> dict[str, Any]:
        reached.clear()
        for epoch in range(6):
            reached.append(epoch)
            show("training net on 10 examples", epoch, 5)
        return {}

    for training, epoch, last in (("net on 10", 2, 2), ("net on 10", 0, 0), ("net on 9", 2, 5), ("net on 10", 5, 5)):
        name = f"training {training} examples"
        assert arms.until(unit, name, epoch, tmp_path, tmp_path) == {"until": name, "epochs": epoch}
        assert reached[-1] == last


def test_the_tables_of_text_say_what_the_target_knew_and_what_choosing_cost(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """fastText as good as the target itself, which knew nothing when it first asked; both better than chance."""
    for module in (claims, text):
        monkeypatch.setattr(module, "RESULTS", tmp_path)
    (tmp_path / "text").mkdir()
    for asker, share in (("random", 6), ("target", 8), ("fasttext", 8)):
        for seed in range(3):
            right = np.arange(1003) % 10 < share
            right[seed] = False
            result = {
                "seed": seed,
                "n": 400,
                "n_pool": 1000,
                "epochs": 5,
                "labelled": [100, 200, 400],
                "accuracy": right.mean(),
                "accuracies": {"100": 0.54, "400": right.mean()},
                "majority_rate": 0.5,
                "n_test": len(right),
                "correct": run.as_bits(right),
                "selection_seconds": {"train": 1.0},
            }
            name = text.arm_name("polarity", "vdcnn9", asker, "40%")
            (tmp_path / "text" / f"{name}-seed{seed}.json").write_text(json.dumps(result))
    for model, rate in (("vdcnn9", 10), ("fasttext", 1000)):
        rates = {"texts_a_second": {"tokenise": 1000.0, "train": rate, "score": rate}, "quiet": True}
        (tmp_path / "text" / f"rates-{model}.json").write_text(json.dumps(rates))
    text.tables()
    said = capsys.readouterr().out
    (row,) = [line for line in said.splitlines() if line.startswith("| fasttext |")]
    cells = [part.strip() for part in row.strip("|").split("|")]
    assert cells[4].endswith("better: shown")
    assert cells[5].startswith("+0.00 (")
    assert cells[5].endswith("no worse: shown")
    assert cells[6] == "not timed alone"
    assert said.count("its own selection carries no information.") == 3
    # 5 epochs of 300 texts, 900 and 800 scored, 1,000 tokenised: 321 s, and 4.2.
    assert "vdcnn9 321 s (tokenising 1.0, training 150.0, scoring 170.0)" in said
    assert "76.4 times." in said


@pytest.mark.parametrize("content", ["Good.  Bad<br />ugly", 'A "quoted" word; it\'s', "ÄA\n\t(x)!?", "<BR />", ""])
def test_fasttext_ng_is_given_our_words(content: str, tmp_path: Path) -> None:
    pytest.importorskip("numba")
    from benchmarks import fasttext_ng
    from svp.learners.fasttext import words_of
    from tests.test_fasttext import fnv

    data = replace(Dataset.from_arrays([content, "x"], [0, 1]), cache=tmp_path)
    words = [*fasttext_ng.words(content).split(), "</s>", *fasttext_ng.words("x").split(), "</s>"]
    assert words_of(data).values.tolist() == [fnv(word) for word in words]


def test_rows_are_repeated_until_there_are_enough(tmp_path: Path) -> None:
    pytest.importorskip("numba")
    from benchmarks import text_speed

    source = tmp_path / "source"
    source.mkdir()
    (source / "train.csv").write_bytes(b"".join(b'"%d","title %d","text"\n' % (i % 2 + 1, i) for i in range(7)))
    (source / "test.csv").write_bytes(b'"1","other","test"\n"2","rows","test"\n')
    text_speed._repeat(source, tmp_path / "rows-17" / text_speed.LAYOUT, 17)
    (tmp_path / "own").mkdir()
    found = {
        side: text_speed.child("read", side, 17, tmp_path / "own", tmp_path)
        for side in ("svp", "svp, read before", "a plain read")
    }
    assert {facts["rows"] for facts in found.values()} == {17}


def test_recording_is_measured_at_a_tiny_scale() -> None:
    pytest.importorskip("torch")
    from benchmarks import recording

    counted = recording.share("preact8", 300)  # 2 epochs of 3 steps
    assert (counted["steps"], counted["epochs"]) == (6, 2)
    found = recording.large(n_epochs=3, n=1000)
    assert found["megabytes_on_disk"] == round((9 * 3 * 1000 + 5 * 128) / 1e6, 1)
    assert len(found["resident_megabytes_after_each_epoch"]) == 3


def test_one_answer_in_five_is_flipped_to_another_class() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 5, 4000)
    dataset = Dataset.from_arrays(rng.normal(size=(4000, 2)), labels)
    said = label_noise.with_flips(dataset, 3)
    assert 0.17 < (said != labels).mean() < 0.23
    assert np.bincount((said - labels)[said != labels] % 5, minlength=5)[1:].min() > 150
    assert label_noise.with_flips(dataset, 3).tolist() == said.tolist()
