"""svp select and svp score: files in, the same ids as from arrays, in every format; forecast, origin, one line an error."""

import hashlib
import json
import re
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import scipy.sparse

import svp
from svp import cli
from svp.cli.array_files import LIBRARIES
from svp.select import Selection
from svp.tables import write_table

N = 60


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def examples() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "probs": rng.dirichlet(np.ones(3), N),
        "embeddings": rng.normal(size=(N, 4)),
        "labels": np.arange(N) % 3,
        "correct": rng.integers(0, 2, (5, N)).astype(np.uint8),
        "scores": rng.normal(size=N),
        "costs": rng.uniform(1, 2, N),
    }


def files() -> dict[str, Any]:
    """NAME.npy for each array, and all in one table of every format."""
    arrays = examples()
    for name, values in arrays.items():
        np.save(f"{name}.npy", values)
    table = pa.table(
        {
            "id": np.arange(N) + 100,
            "key": [f"k{i:02}" for i in range(N)],
            **{f"p{c}": arrays["probs"][:, c] for c in range(3)},
            **{f"e{c}": arrays["embeddings"][:, c] for c in range(4)},
            **{f"epoch{c}": row for c, row in enumerate(arrays["correct"])},
            **{name: arrays[name] for name in ("labels", "scores", "costs")},
        }
    )
    for suffix in ("parquet", "csv", "tsv", "jsonl", "feather"):
        write_table(Path(f"t.{suffix}"), table)
    return arrays


def run(capsys: pytest.CaptureFixture[str], line: str) -> dict[str, Any]:
    cli.main([*line.split(), "--json", "--quiet"])
    return json.loads(capsys.readouterr().out)  # type: ignore[no-any-return]


def quietly(line: str) -> None:
    cli.main([*line.split(), "--quiet"])


def fails(capsys: pytest.CaptureFixture[str], line: str) -> str:
    with pytest.raises(SystemExit) as left:
        quietly(line)
    assert left.value.code == 1
    (said,) = capsys.readouterr().err.strip().splitlines()
    return str(said)


@pytest.mark.parametrize("suffix", ["npy", "parquet", "csv", "tsv", "jsonl", "feather"])
def test_files_of_every_kind_choose_as_arrays_do(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = files()
    p, e, c, s, y = (
        ("probs.npy", "embeddings.npy", "correct.npy", "scores.npy", "labels.npy")
        if suffix == "npy"
        else (f"t.{suffix}:p*", f"t.{suffix}:e0,e1,e2,e3", f"t.{suffix}:epoch*", f"t.{suffix}", f"t.{suffix}:labels")
    )
    for line, expected in (
        (f"margin --probs {p}", svp.select("margin", 9, probs=arrays["probs"])),
        (f"k_center --embeddings {e}", svp.select("k_center", 9, embeddings=arrays["embeddings"])),
        (f"forgetting --signals.correct {c}", svp.select("forgetting", 9, signals={"correct": arrays["correct"]})),
        (f"margin --scores {s}", svp.select("margin", 9, scores=arrays["scores"])),
        (
            f"margin --probs {p} --labels {y} --per-class.share equal --seed 3",
            svp.select("margin", 9, probs=arrays["probs"], labels=arrays["labels"], per_class={"share": "equal"}, seed=3),
        ),
    ):  # fmt: skip
        assert run(capsys, f"select {line} --budget 15%")["ids"] == expected.ids.tolist(), line
    cli.main(["score", "entropy", "--probs", p, "--out", "scores-out.npy", "--quiet"])
    np.testing.assert_array_equal(np.load("scores-out.npy"), svp.score("entropy", probs=arrays["probs"]))


def test_every_argument_has_its_flag(capsys: pytest.CaptureFixture[str]) -> None:
    arrays = files()
    np.save("first.npy", [4, 5])
    write_table(Path("out.csv"), pa.table({"id": [6, 7, 8]}))
    done = run(
        capsys,
        "select k_center --embeddings embeddings.npy --labels labels.npy --already first.npy --exclude out.csv "
        "--per-class.max {0=5,1=6} --costs costs.npy --budget 20.5 --seed 7 --memory 200MB --tie-break id "
        "--options.start 3 --out picks.parquet",
    )
    expected = svp.select(
        "k_center",
        20.5,
        embeddings=arrays["embeddings"],
        labels=arrays["labels"],
        already=[4, 5],
        exclude=[6, 7, 8],
        per_class={"max": {0: 5, 1: 6}},
        costs=arrays["costs"],
        seed=7,
        tie_break="id",
        start=3,
    )
    saved = Selection.load("picks.parquet")
    assert saved.ids.tolist() == expected.ids.tolist()
    assert (saved.options, saved.seed, saved.tie_break) == ({"start": 3}, 7, "id")
    assert (saved.per_class, saved.with_costs) == ({"max": {0: 5, 1: 6}}, True)
    assert (done["n"], done["out"]) == (len(expected), "picks.parquet")
    sampled = run(capsys, "select margin --probs probs.npy --budget 9 --sampler temperature --options.temperature 0.5")
    expected = svp.select("margin", 9, probs=arrays["probs"], sampler="temperature", temperature=0.5)
    assert sampled["ids"] == expected.ids.tolist()


def test_numbers_and_keys_name_examples(capsys: pytest.CaptureFixture[str]) -> None:
    arrays = files()
    by_id = run(capsys, "select margin --probs t.csv:p* --ids t.csv:id --budget 5")
    assert by_id["ids"] == svp.select("margin", 5, probs=arrays["probs"], ids=np.arange(N) + 100).ids.tolist()
    quietly("select margin --probs probs.npy --ids t.csv:key --budget 5 --out a.parquet")
    chosen = Selection.load("a.parquet")
    assert chosen.keys == tuple(f"k{i:02}" for i in chosen.ids)
    # The same examples in another order: keys still say which are chosen already.
    pq.write_table(pq.read_table("t.parquet").take(np.arange(N)[::-1]), "r.parquet")
    quietly("select margin --probs r.parquet:p* --ids r.parquet:key --already a.parquet --budget 5")
    more = capsys.readouterr().out.split()
    both = svp.select("margin", 10, probs=arrays["probs"]).ids
    assert {*chosen.keys, *more} == {f"k{i:02}" for i in both}
    write_table(Path("b.csv"), pa.table({"key": list("abcd")}))
    assert "4 keys are not" in fails(capsys, "select random --ids r.parquet:key --already b.csv --budget 5")


@pytest.mark.parametrize("suffix", ["npy", "csv", "jsonl", "parquet", "feather"])
def test_labels_may_be_names(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    arrays = files()
    names = np.array(["owl", "7", "cat"])[arrays["labels"]]
    if suffix == "npy":
        np.save("names.npy", names)
    else:
        missing = None if suffix != "csv" else ""
        write_table(Path(f"names.{suffix}"), pa.table({"label": [*names[:-1].tolist(), missing]}))
        names = np.array([*names[:-1], ""])
    quietly(
        f"select margin --probs probs.npy --labels names.{suffix} --budget 9 --per-class.max {{7=1,cat=2}} --out a.parquet"
    )
    chosen = Selection.load("a.parquet")
    expected = svp.select("margin", 9, probs=arrays["probs"], labels=names, per_class={"max": {"7": 1, "cat": 2}})
    assert chosen.ids.tolist() == expected.ids.tolist()
    assert chosen.classes == ("7", "cat", "owl")
    assert sorted(np.array(chosen.classes)[chosen.labels])[:3] == ["7", "cat", "cat"]


def test_the_record_says_who_stands_for_whom(capsys: pytest.CaptureFixture[str]) -> None:
    arrays = files()
    points = arrays["embeddings"]
    np.save("first.npy", [4, 5])
    quietly("select typiclust --embeddings embeddings.npy --already first.npy --budget 6 --out a.parquet")
    chosen = Selection.load("a.parquet")
    assert chosen.stands_for.tolist() == svp.stands_for(chosen, points, already=[4, 5]).counts.tolist()
    far = np.linalg.norm(points[chosen.ids[0]] - points[[4, 5]], axis=1)
    assert (chosen.nearest[0], chosen.distances[0]) == ([4, 5][far.argmin()], far.min())
    quietly("select margin --probs probs.npy --embeddings embeddings.npy --budget 6 --no-stands-for --out b.parquet")
    assert Selection.load("b.parquet").stands_for is None
    assert "give --embeddings or --similarity" in fails(
        capsys, "select random --scores scores.npy --budget 2 --stands-for"
    )
    assert "recorded in tables" in fails(capsys, "select typiclust --embeddings embeddings.npy --budget 2 --stands-for")
    np.save("s.npy", np.eye(N))
    quietly("select facility_location --similarity s.npy --budget 6 --neighbors 3 --out c.parquet")
    chosen = Selection.load("c.parquet")
    assert (chosen.stands_for.tolist(), chosen.with_similarity, chosen.neighbors) == ([0] * 6, True, 3)


def test_names_in_shards_are_of_one_type(capsys: pytest.CaptureFixture[str]) -> None:
    Path("shards").mkdir()
    for shard, names in {"a": ["x", "y"], "b": [1, 2]}.items():
        pq.write_table(pa.table({"id": names, "score": [1.0, 2.0]}), f"shards/{shard}.parquet")
    said = fails(capsys, "select given --scores shards:score --ids shards:id --budget 1")
    assert "a.parquet holds string, b.parquet int64; give names of one type" in said
    pq.write_table(pa.table({"id": pa.array([3, 4], pa.int32()), "score": [1.0, 3.0]}), "shards/a.parquet")
    assert run(capsys, "select given --scores shards:score --ids shards:id --budget 1")["ids"] == [4]
    pq.write_table(pa.table({"id": pa.array([3, 2**63], pa.uint64()), "score": [1.0, 3.0]}), "shards/a.parquet")
    assert "give whole numbers below 2^63" in fails(
        capsys, "select given --scores shards:score --ids shards:id --budget 1"
    )


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "feather"])
def test_keys_that_look_like_numbers_are_keys(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    pq.write_table(pa.table({"name": [str(100 * (i + 1)) for i in range(N)]}), "ids.parquet")
    write_table(Path(f"labelled.{suffix}"), pa.table({"name": [100, 300]}))
    every = [str(100 * (i + 1)) for i in range(N)]
    quietly(f"select random --ids ids.parquet:name --exclude labelled.{suffix} --budget {N - 2}")
    assert sorted(capsys.readouterr().out.split()) == sorted({*every} - {"100", "300"})
    write_table(Path(f"rows.{suffix}"), pa.table({"name": [1, 3]}))  # rows of examples, and no keys of any
    line = fails(capsys, f"select random --ids ids.parquet:name --exclude rows.{suffix} --budget 5")
    assert "2 keys are not among the examples, the first: ['1', '3']" in line
    np.save("rows.npy", [1, 3])
    assert "holds numbers" in fails(capsys, "select random --ids ids.parquet:name --exclude rows.npy --budget 5")


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet", "feather"])
def test_a_selection_without_keys_names_rows(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    files()
    first = run(capsys, f"select random --ids t.csv:id --budget 5 --out numbers.{suffix}")
    assert first["n"] == 5
    quietly(f"select given --scores scores.npy --budget 5 --out rows.{suffix}")
    rest = run(capsys, f"select random --ids t.csv:key --already rows.{suffix} --budget {N - 5}")["ids"]
    chosen = pq.read_table("rows.parquet") if suffix == "parquet" else None
    if chosen is not None:
        assert {*rest} == {*range(N)} - {*chosen["id"].to_pylist()}
    assert len(rest) == N - 5


def test_a_similarity_dense_or_sparse(capsys: pytest.CaptureFixture[str]) -> None:
    Path("mine.py").write_text(
        "import numpy as np\n\n\ndef central(similarity, already, candidates, budget):\n"
        "    return candidates[:budget]\n\n\ncentral.kind, central.needs = 'cover', 'similarity'\n"
    )
    np.save("s.npy", np.eye(5))
    scipy.sparse.save_npz("s.npz", scipy.sparse.csr_array(np.eye(5)))
    dense = run(capsys, "select mine:central --similarity s.npy --budget 2")
    assert run(capsys, "select mine:central --similarity s.npz --budget 2")["ids"] == dense["ids"]
    assert dense["forecast"] == {
        "seconds": None,
        "bytes": None,
        "restarts": 0,
        "at_worst": None,
    }  # nobody gave a formula


@pytest.mark.parametrize("kind", ["csr", "csc", "coo", "bsr", "dia"])
def test_a_sparse_similarity_of_every_kind_counts_in_the_memory(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    matrix = sum(scipy.sparse.eye_array(1000, k=k, format="csr") for k in range(-20, 21))
    scipy.sparse.save_npz("s.npz", matrix.asformat(kind))
    held = run(capsys, "select facility_location --similarity s.npz --budget 2")["forecast"]["bytes"]
    own = svp.forecast("facility_location", 2, similarity=matrix).bytes
    assert own is not None
    assert held - own >= matrix.data.nbytes + 24 * 2**20


@pytest.mark.parametrize("suffix", ["csv", "tsv", "jsonl", "feather", "npy", "parquet"])
def test_what_is_written_can_be_chosen_from(suffix: str, capsys: pytest.CaptureFixture[str]) -> None:
    files()
    first = run(capsys, "select margin --probs probs.npy --budget 5")["ids"]
    run(capsys, f"select margin --probs probs.npy --budget 5 --out picks.{suffix}")
    run(capsys, f"score margin --probs probs.npy --out values.{suffix}")
    ten = run(capsys, f"select margin --scores values.{suffix} --budget 10")["ids"]
    assert ten[:5] == first
    assert run(capsys, f"select margin --probs probs.npy --budget 5 --already picks.{suffix}")["ids"] == ten[5:]


def test_the_origin_names_the_files(capsys: pytest.CaptureFixture[str]) -> None:
    files()
    run(capsys, "select margin --probs probs.npy --labels t.csv:labels --budget 5 --out picks.parquet")
    inputs = json.loads(Path("picks.parquet.json").read_text())["inputs"]
    sha = hashlib.sha256(Path("probs.npy").read_bytes()).hexdigest()
    place = Path("probs.npy").resolve()
    (recorded,) = inputs["probs"]
    assert recorded == {
        "path": "probs.npy",
        "absolute": place.as_posix(),
        "size": place.stat().st_size,
        "sha256": sha,
    }
    assert inputs["labels"][0]["columns"] == "labels"
    assert Selection.load("picks.parquet").inputs == inputs
    run(capsys, "select margin --probs probs.npy --budget 5 --out quick.parquet --no-hash")
    assert "sha256" not in Selection.load("quick.parquet").inputs["probs"][0]


def test_forecast_and_fact_stand_one_above_the_other(capsys: pytest.CaptureFixture[str]) -> None:
    files()
    cli.main(["select", "margin", "--probs", "probs.npy", "--budget", "5"])
    said = capsys.readouterr()
    assert len(said.out.split()) == 5
    foreseen, took = said.err.splitlines()
    assert foreseen.startswith("forecast: ")
    assert took.startswith("took:     ")
    facts = run(capsys, "select margin --probs probs.npy --budget 5")
    assert facts["forecast"]["seconds"] > 0
    assert facts["forecast"]["bytes"] > 0
    assert facts["took"]["seconds"] > 0


def test_what_does_not_fit_into_the_memory_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    np.lib.format.open_memmap("e.npy", "w+", np.float32, (2_000_000, 1))
    line = fails(capsys, "select k_center --embeddings e.npy --budget 10 --memory 100MB --out p.parquet")
    assert "method 'k_center' takes about" in line
    assert "memory=100MB" in line
    assert not Path("p.parquet").exists()
    line = fails(capsys, "select graph_cut --embeddings e.npy --budget 10 --memory 2GB --neighbors 50 --out p.parquet")
    found = re.search(r"give more memory, neighbors=(\d+) or fewer, or choose", line)
    assert found is not None
    memory, embeddings = 2_000_000_000 - LIBRARIES, np.load("e.npy", "r")
    for neighbors, fits in ((int(found[1]), True), (int(found[1]) + 2, False)):
        expected = svp.forecast("graph_cut", 10, embeddings=embeddings, neighbors=neighbors, memory=memory).bytes
        assert expected is not None
        assert (expected <= memory) == fits


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("select margin --probs nowhere.npy --budget 5", "nowhere.npy does not exist"),
        ("select margin --probs t.csv:q --budget 5", "Unknown column of t.csv 'q'"),
        ("select margin --probs labels.npy --budget 5", "probs: shape (60,); give (n, classes)"),
        ("select margin --probs probs.npy --labels few.npy --budget 5", "probs.npy 60, few.npy 3"),
        ("select margin --probs probs.npy --ids few.npy --budget 5", "probs.npy 60, few.npy 3"),
        ("select margin --probs t.csv:key --budget 5", "row 0 has 'k00'"),
        ("select margin --probs t.parquet:key --budget 5", "column 'key' holds string, in row 0 k00"),
        ("select margin --budget 5", "pass ids= (--ids)"),
        ("select margin --probs probs.xlsx --budget 5", "save it as CSV in the spreadsheet"),
        ("select margin --probs embeddings.npy --budget 5", "no probabilities"),
        ("select margn --probs probs.npy --budget 5", "did you mean 'margin'"),
        ("select margin --probs probs.npy --budget 500", "60 candidates"),
        ("select margin --probs probs.npy --budget 5 --memory lots", "memory='lots'"),
        ("select margin --probs probs.npy --budget 5 --options.start 3", "has no option 'start'"),
        ("select margin --probs probs.npy --budget 5 --options.seed 3", "give --seed"),
        ("select margin --probs probs.npy --budget 5 --out picks.txt", "ends in .parquet"),
        ("select margin --probs probs.npy --budget 5 --out probs.npy", "one of the inputs"),
        ("select margin --probs probs.npy --budget 5 --out no/p.csv", "make it first"),
        ("select margin --probs probs.npy --budget 5 --already t.csv:key", "--ids FILE:COLUMN"),
        ("select margin --probs probs.npy --budget 5 --ids t.csv:kind", "2 keys are repeated, the first: ['a', 'b']"),
        ("select margin --probs probs.npy --budget 5 --per-class.min 5", "per_class needs labels"),
        ("select margin --probs probs.npy --budget 5 --seed 1.5", "--seed: give a whole number; got '1.5'"),
        ("select margin --probs probs.npy --budget 5 --seed -1", "seed=-1; give a whole number from 0 to 2^64 - 1"),
        ("select graph_cut --embeddings embeddings.npy --budget 5 --neighbors 2.6", "--neighbors: give a whole number"),
        ("score margin --probs probs.npy --seed 1e3", "--seed: give a whole number; got '1e3'"),
        ("score k_center --embeddings embeddings.npy", "chooses sets"),
        ("score margin --probs probs.npy --scores scores.npy", "--scores means nothing"),
    ],
)
def test_what_is_wrong_is_one_line(line: str, words: str, capsys: pytest.CaptureFixture[str]) -> None:
    files()
    np.save("few.npy", [0, 1, 2])
    Path("probs.xlsx").write_bytes(b"PK")
    table = pq.read_table("t.parquet")
    write_table(Path("t.csv"), table.append_column("kind", pa.array(list("ab") * (N // 2))))
    before = sorted(Path().iterdir())
    assert words in fails(capsys, line)
    assert sorted(Path().iterdir()) == before


def test_a_budget_that_buys_nothing_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    arrays = files()
    np.save("cheap.npy", [int(i) for i in arrays["costs"].argsort()[:2]])
    dearest = np.sort(arrays["costs"])[2]
    line = "select margin --probs probs.npy --costs costs.npy --exclude cheap.npy --budget"
    said = f"no example was chosen for a budget of 0.5: the cheapest of {N - 2} candidates costs {dearest:g}"
    quietly(f"{line} 0.5")
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("", f"svp: {said}\n")
    assert run(capsys, f"{line} 0.5")["notes"] == [said]
    assert run(capsys, f"{line} 5")["notes"] == []


def test_scores_stream() -> None:
    """40 MB of probabilities: a mapped array is never held whole."""
    p = np.random.default_rng(0).random((100_000, 100), np.float32)
    p /= p.sum(axis=1, keepdims=True)
    np.save("p.npy", p)
    command = ["score", "margin", "--probs", "p.npy", "--memory", "64MB", "--quiet", "--out"]
    peaks = []
    for _ in range(4):  # the least counts: imports of the first run, or of another thread, are not the array
        tracemalloc.start()
        cli.main([*command, "s.npy"])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert min(peaks) < p.nbytes / 2
    np.testing.assert_array_equal(np.load("s.npy"), svp.score("margin", probs=p))


def test_a_method_that_takes_what_it_may_keeps_to_the_memory(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("e.npy", np.random.default_rng(0).normal(size=(3000, 8)).astype(np.float32))
    facts = run(capsys, "select facility_location --embeddings e.npy --budget 5 --memory 64MB")
    assert facts["forecast"]["bytes"] <= 64_000_000
    assert len(facts["ids"]) == 5


def test_what_json_says_was_chosen_is_what_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    files()
    facts = run(capsys, "select random --ids t.csv:key --budget 3")
    quietly("select random --ids t.csv:key --budget 3")
    assert capsys.readouterr().out.split() == facts["keys"]


def test_similarities_choose_and_embeddings_say_who_stands_for_whom(capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    np.save("e.npy", rng.normal(size=(30, 4)))
    np.save("s.npy", similarity := rng.random((30, 30)))
    run(
        capsys, "select facility_location --similarity s.npy --embeddings e.npy --budget 3 --out p.parquet --stands-for"
    )
    chosen = svp.Selection.load("p.parquet")
    assert chosen.ids.tolist() == svp.select("facility_location", 3, similarity=similarity).ids.tolist()
    assert chosen.stands_for is not None


@pytest.mark.parametrize("name", ["e.csv", "e.jsonl", "e.npy"])
def test_nothing_to_choose_from_gives_nothing(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    Path("e.csv").write_text("a,b,c\n")
    Path("e.jsonl").write_text("")
    np.save("e.npy", np.zeros((0, 3)))
    if name == "e.jsonl":
        assert "e.jsonl" in fails(capsys, "select margin --probs e.jsonl --budget 0")
    else:
        assert run(capsys, f"select margin --probs {name} --budget 0")["n"] == 0


def test_a_single_number_is_no_array_of_examples(capsys: pytest.CaptureFixture[str]) -> None:
    np.save("one.npy", np.float64(3))
    for line in ("given --scores one.npy", "forgetting --signals.correct one.npy"):
        assert "one.npy holds a single number" in fails(capsys, f"select {line} --budget 1")
