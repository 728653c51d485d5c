"""The report: one page that stands alone, says what the run folder says, and survives what users name things."""

import json
import re
import shutil
import sys
from dataclasses import replace
from functools import cache
from html.parser import HTMLParser
from itertools import pairwise

import numpy as np
import pytest

import svp
from svp import report, words
from svp.errors import DataError, MissingExtra, SvpWarning
from svp.report import charts, facts, tables
from svp.select.table import Picks

pytest.importorskip("altair")
pytest.importorskip("vl_convert")

EVIL = "<script>alert(1)</script>"
SECTIONS = ("verdict", "accuracy", "time", "agreement", "balance", "examples", "classes", "made", "words")


def dataset(shape=(8, 8, 1), n=60, classes=("a", "b", EVIL), keys=True, seed=0):
    """Noise around a level for each class; the first key has quotes in it."""
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % 3

    def inputs(of):
        x = rng.normal(60 + 50 * of.reshape(-1, *[1] * len(shape)), 60, (len(of), *shape))
        return np.clip(x, 0, 255).astype(np.uint8) if len(shape) == 3 else x.astype(np.float32)

    named = ['it\'s "quoted" & <b>bold</b>', *(f"photos/{i}.png" for i in range(1, n))] if keys else None
    held_out = np.arange(45) % 3
    test = (inputs(held_out), held_out)
    return svp.Dataset.from_arrays(inputs(labels), labels, classes=classes, keys=named, test=test, name="tiny")


def logistic(**options):
    return {"model": "logistic", "options": {"max_iter": 200, **options}}


def coreset(out, data, **settings):
    base = {"dataset": "tiny", "proxy": logistic(C=0.01), "target": logistic(), "method": "margin", "budget": 30}
    return svp.coreset(svp.CoresetConfig.make({**base, **settings}), data, out=out)


def active(out, data, **settings):
    base = {"dataset": "tiny", "proxy": logistic(C=0.01), "target": logistic(), "labelled": [12, 20, 28]}
    return svp.active(svp.ActiveConfig.make({**base, **settings}), data, out=out)


@pytest.fixture(scope="module")
def data():
    return dataset()


@pytest.fixture(scope="module")
def folders(tmp_path_factory, data):
    """Run folders by what is special about them."""
    root = tmp_path_factory.mktemp("runs")
    both = ("random", "full")
    coreset(root / "many seeds", data, control=both, seeds=2)
    net = {"model": "preact8", "width": 0.25, "epochs": 2, "batch_size": 16}
    cpu = {"device": "cpu", "precision": "fp32", "threads": 1}
    coreset(root / "equal steps", data, target=net, compute=cpu, control=both, equal=("epochs", "steps"), seeds=2)
    coreset(root / "one seed", data, control=both)
    coreset(root / "alone", data)
    coreset(root / "same model", data, proxy={**logistic(), "epochs": 40}, control=both)
    coreset(root / "set method", data, method=f"{__name__}:first_of_each")
    earlier = root / "many seeds" / "selection.parquet"
    coreset(root / "earlier selection", data, selection=earlier, control=both, budget=None)
    coreset(root / "no model", data, method="random", control=("full",))
    active(root / "active, no model", data, method="random")
    coreset(root / "table", dataset(shape=(5,), keys=False))
    active(root / "active", data, control=("random", "target"), evaluate=[20, 28], seeds=2)
    active(root / "active alone", data)
    return root


def first_of_each(probs, already, candidates, budget):
    """A set method: whatever comes first."""
    return Picks(np.sort(candidates)[:budget], np.ones(budget))


first_of_each.kind = "cover"
first_of_each.needs = ("probs",)


@pytest.fixture(scope="module")
def written(folders, data):
    """The report of a folder, written once."""

    @cache
    def write(name):
        given = dataset(shape=(5,), keys=False) if name == "table" else data
        return report.write(folders / name, given).read_text(encoding="utf-8")

    return write


NAMES = (
    "many seeds",
    "equal steps",
    "one seed",
    "alone",
    "same model",
    "set method",
    "earlier selection",
    "table",
    "active",
    "active alone",
)


class Page(HTMLParser):
    """What a browser would make of a page: elements with attributes, and the words between them."""

    def __init__(self, html):
        super().__init__()
        self.elements, self.words, self.scripts, self._in = [], [], [], None
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_endtag(self, tag):
        self._in = None

    def handle_data(self, words):
        (self.scripts if self._in == "script" else self.words).append(words)

    @property
    def text(self):
        return " ".join(" ".join(self.words).split())

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def drawn(page, chart):
    """The rows that a chart draws, over all its layers."""
    return [row for rows in json.loads(page.scripts[0])[chart]["datasets"].values() for row in rows]


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_of_run_has_a_whole_page(written, folders, name):
    page = Page(written(name))
    metrics = json.loads((folders / name / "metrics.json").read_text())
    assert [attrs["aria-labelledby"] for attrs in page.all("section")] == list(SECTIONS)
    levels = [int(tag[1]) for tag, _ in page.elements if re.fullmatch(r"h\d", tag)]
    assert levels.count(1) == 1
    assert levels[0] == 1
    assert all(b <= a + 1 for a, b in pairwise(levels))
    for claim in words.claims(metrics):
        assert f"{claim.line}." in page.words
        assert tables.typeset(claim.because)[1:] in " ".join(page.words)
    for sentence in words.details(metrics):
        assert tables.typeset(sentence) in page.words
    for arm in metrics["arms"]:
        assert f"{100 * arm['accuracy']:.1f}" in page.text
    # Every chart has its place, every table its heads, every picture its words.
    specs = json.loads(page.scripts[0])
    places = {attrs["id"] for attrs in page.all("div")}
    assert {f"chart-{spec}" for spec in specs} == places
    assert "accuracy" in specs
    assert "costs" in specs
    assert len(page.all("th")) > len(page.all("table"))
    assert all(image["alt"] for image in page.all("img"))


@pytest.mark.parametrize("name", ["many seeds", "active"])
def test_the_page_needs_no_network_and_holds_the_library_once(written, name):
    html = written(name)
    page = Page(html)
    for _, attrs in page.elements:
        for attribute in ("src", "href", "srcset", "action", "data", "poster"):
            assert not (attrs.get(attribute) or "").startswith(("http:", "https:", "//"))
    assert all(image["src"].startswith("data:image/webp;base64,") for image in page.all("img"))
    assert not page.all("link")
    assert len(page.all("script")) == 2
    assert html.count("window.vegaEmbed=") == 1
    assert len(html) < 2_000_000
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style
    assert "@import" not in style
    policy = next(
        meta["content"] for meta in page.all("meta") if "content" in meta and "default-src" in meta["content"]
    )
    assert policy.startswith("default-src 'none'")


def test_what_users_name_is_escaped(written):
    html = written("many seeds")
    page = Page(html)
    assert EVIL not in html
    assert "alert(1)" in page.text  # the class, as words
    assert not any(script.startswith("alert") for script in page.scripts)
    assert EVIL in {row["name"] for row in drawn(page, "balance")}
    assert "<b>bold" not in html
    titles = " ".join(image["title"] for image in page.all("img"))
    assert 'it\'s "quoted" & <b>bold</b>' in titles


def test_images_are_shown_with_class_and_score(written, folders, data):
    page = Page(written("many seeds"))
    images = page.all("img")
    assert len(images) == 60  # 30 chosen, 30 left out
    selection = svp.Selection.load(folders / "many seeds" / "selection.parquet")
    first = images[0]["title"]
    assert data.key(int(selection.ids[0])) in first
    assert data.classes[int(selection.labels[0])] in first
    assert f"{selection.gains[0]:.3g}".replace("-", "−") in first
    read = facts.read(folders / "many seeds", data).shown
    scores = [example.score for example in read.rest]
    assert scores == sorted(scores)
    assert not {e.id for e in read.rest} & set(selection.ids.tolist())


def test_a_set_method_leaves_no_scores_of_the_rest(written):
    page = Page(written("set method"))
    assert "drawn by lot: the method does not choose by score alone" in page.text
    assert len(page.all("img")) == 60


def test_of_a_method_that_samples_the_page_says_nothing_of_equal_scores(tmp_path, data):
    net = {"model": "preact8", "width": 0.25, "epochs": 2, "batch_size": 16}
    cpu = {"device": "cpu", "precision": "fp32", "threads": 1}
    coreset(tmp_path / "sampled", data, method="ccs", proxy=net, compute=cpu, control=("full",))
    found = facts.read(tmp_path / "sampled", data)
    assert (found.metrics["kind"], found.shown.ranked, found.shown.by_lot) == ("cover", False, 0)
    text = Page(report.write(tmp_path / "sampled", data).read_text(encoding="utf-8")).text
    assert "between equal scores" not in text
    assert "between equals" not in text
    assert "drawn by lot: the method does not choose by score alone" in text


def test_other_inputs_than_images_are_listed(written, folders):
    page = Page(written("table"))
    assert not page.all("img")
    selection = svp.Selection.load(folders / "table" / "selection.parquet")
    assert all(str(id_) in page.text for id_ in selection.ids[:12])


def test_the_page_shows_the_seeds_that_were_measured(folders, tmp_path, data):
    """Settings are those of the last call, metrics those of the last that was finished."""
    run = tmp_path / "run"
    shutil.copytree(folders / "one seed", run)
    environment = json.loads((run / "environment.json").read_text())
    environment["settings"]["seeds"] = 3
    (run / "environment.json").write_text(json.dumps(environment))
    found = facts.read(run, data)
    assert len(found.selections) == 1
    assert tables.story(found)["n_seeds"] == 1


def test_without_its_data_the_report_says_so(folders):
    with pytest.warns(SvpWarning, match="report.html has no examples: the data could not be loaded again"):
        page = Page(report.write(folders / "one seed").read_text())
    assert not page.all("img")
    assert "Not shown: the data could not be loaded again" in page.text
    assert "photos/" in page.text  # the selection knows the keys
    assert len(page.all("section")) == len(SECTIONS)


def test_data_that_changed_is_not_shown(folders, tmp_path, data):
    with pytest.raises(DataError, match="other data"):
        report.write(folders / "one seed", dataset(seed=1))
    np.savez(tmp_path / "d.npz", x=data.inputs, y=data.labels, x_test=data.test.inputs, y_test=data.test.labels)
    run = coreset(tmp_path / "run", None, dataset=str(tmp_path / "d.npz"))
    assert len(Page(run.report().read_text()).all("img")) == 60  # loaded as the settings say
    np.savez(tmp_path / "d.npz", x=data.inputs[::-1], y=data.labels, x_test=data.test.inputs, y_test=data.test.labels)
    with pytest.warns(SvpWarning, match="d has changed since the run"):
        page = Page(run.report().read_text())
    assert "has changed since the run" in page.text
    assert not page.all("img")


def test_a_moved_folder_gives_the_same_page(written, folders, tmp_path, data):
    moved = shutil.copytree(folders / "active", tmp_path / "elsewhere", ignore=shutil.ignore_patterns("report.html"))
    assert report.write(moved, data).read_text() == written("active")


def test_one_seed_says_what_it_cannot_say(written):
    assert "One seed says nothing about other seeds" in Page(written("one seed")).text
    many = Page(written("many seeds")).text
    assert "One seed says nothing" not in many
    assert "± is the standard deviation over the seeds" in many


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("alone", "Whether it pays was not measured."),
        ("active alone", "How much faster the proxy chose was not measured."),
        ("active", r"To 28 labels, the proxy chose (no faster than|[\d.]+ times as fast as) the target\."),
        ("one seed", "It pays|It does not pay|Not shown whether it pays"),
        ("same model", "Proxy and target are the same model here"),
        ("earlier selection", "An earlier selection of 30 of the 60 examples"),
        ("active", "12 were drawn at random"),
        (
            "many seeds",
            r"was then trained on these alone\s+and tested on \d+ examples that nothing had seen before\.\s+All of it",
        ),
        ("no model", r"30 of the 60 examples \(50%\) were chosen by random, for which no model is trained."),
        ("active, no model", "Then more were chosen by random, for which no model is trained, until there were 28"),
    ],
)
def test_the_page_says_what_was_measured_and_what_was_not(written, name, said):
    assert re.search(said, Page(written(name)).text)


def test_a_choice_that_nothing_judged_has_a_page_of_what_was_chosen(tmp_path, data):
    alone = replace(data, test=None)
    coreset(tmp_path / "run", alone)
    page = Page(report.write(tmp_path / "run", alone).read_text())
    assert "Chosen, not judged." in page.text
    assert "What was chosen, and what was not" in page.text
    assert "Accuracy by class" not in page.text
    assert "tested on" not in page.text


def test_an_active_run_has_a_learning_curve_over_all_arms(written):
    page = Page(written("active"))
    rows = drawn(page, "accuracy")
    assert {(row["arm"], row["n"]) for row in rows} == {(a, n) for a in ("proxy", "random", "target") for n in (20, 28)}
    assert {row["seed"] for row in rows if "seed" in row} == {0, 1}


def test_what_was_left_out_is_named(folders, tmp_path, data):
    """A line is an example, or all files of one kind: the page counts neither."""
    shutil.copytree(folders / "alone", tmp_path / "run")
    path = tmp_path / "run" / "environment.json"
    environment = json.loads(path.read_text())
    environment["dataset"]["problems"] = [
        f"broken/{EVIL}.png: no image",
        "12 files ending in .txt, which is not read here",
    ]
    path.write_text(json.dumps(environment))
    html = report.write(tmp_path / "run", data).read_text()
    assert EVIL not in html
    said = Page(html).text
    assert "Found when the data was read: broken/<script>" in said
    assert "12 files ending in .txt" in said
    assert "2 examples" not in said


@pytest.mark.parametrize("name", ["alone", "active"])
@pytest.mark.parametrize("file", ["scores.npy", "ids.npy", "selection.parquet"])
def test_a_changed_array_is_noticed(folders, tmp_path, data, name, file):
    shutil.copytree(folders / name, tmp_path / "run", ignore=shutil.ignore_patterns("report.html"))
    path = facts._ranking_stage(tmp_path / "run", 0) / file
    content = bytearray(path.read_bytes())
    content[-9] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"{file} is damaged .*remove the folder"):
        report.write(tmp_path / "run", data)
    assert not (tmp_path / "run" / "report.html").exists()


def test_settings_and_machine_stand_in_it(written, folders):
    page = Page(written("many seeds"))
    environment = json.loads((folders / "many seeds" / "environment.json").read_text())
    assert all(name in page.text for name in environment["settings"])
    assert environment["dataset"]["fingerprint"] in page.text
    assert environment["packages"]["numpy"] in page.text
    assert "svp coreset --recipe config.toml" in page.text


def test_numbers_over_seeds_are_means(folders, data):
    read = facts.read(folders / "many seeds", data)
    for row in tables.arms(read.metrics):
        found = [
            100 * arm["accuracy"]
            for arm in [*read.metrics["arms"], *read.metrics["proxies"]]
            if (arm["arm"], arm["equal"]) == (row["arm"], row["equal"])
        ]
        assert len(found) == 2
        assert row["mean"] == pytest.approx(np.mean(found))
        assert row["spread"] == pytest.approx(np.std(found, ddof=1))
    costs = {row["label"]: row for row in tables.costs(read.metrics)["rows"]}
    (payment,) = read.metrics["payments"]
    assert costs["proxy"]["total"] == pytest.approx(payment["seconds"])
    assert costs["everything"]["total"] == pytest.approx(payment["full_seconds"])
    assert costs["proxy"]["ratio"] == pytest.approx(payment["ratio"])
    balance = tables.balance(read)
    assert sum(row["chosen"] for row in balance) == pytest.approx(30)
    assert sum(row["whole_share"] for row in balance) == pytest.approx(1)


@pytest.mark.parametrize("accuracies", [(0.5, 8.0), (92.0, 99.5)])
def test_the_spread_of_accuracies_ends_where_they_do(accuracies):
    seeds = [{"seed": seed, "accuracy": each} for seed, each in enumerate(accuracies)]
    row = {
        "arm": "proxy",
        "label": "proxy",
        "seeds": seeds,
        "mean": np.mean(accuracies),
        "spread": np.std(accuracies, ddof=1),
    }
    drawn = json.dumps(charts.accuracy([row]))
    ends = [float(end) for end in re.findall(r'"(?:low|high)": ([-\d.]+)', drawn)]
    assert ends
    assert 0 <= min(ends) < max(ends) <= 100


def test_minus_signs_and_per_cents_are_typeset():
    assert tables.typeset("-0.33 points, 95 %, --seeds 3, a-1") == "−0.33 points, 95\u00a0%, --seeds 3, a-1"


def test_every_equal_has_its_own_line_and_ratio(folders, data, written):
    read = facts.read(folders / "equal steps", data)
    ratios = {paid["equal"]: paid["ratio"] for paid in read.metrics["payments"]}
    assert list(ratios) == ["epochs", "steps"]
    costs = {row["label"]: row["ratio"] for row in tables.costs(read.metrics)["rows"]}
    assert costs == {"proxy": ratios["epochs"], "proxy, equal steps": ratios["steps"], "everything": None}
    text = Page(written("equal steps")).text
    assert ", at equal epochs." in text
    assert ", at equal steps." in text


def test_a_set_method_is_known_by_what_the_run_says(folders, data):
    assert facts.read(folders / "set method", data).metrics["kind"] == "cover"
    ranked = facts.read(folders / "alone", data)
    assert ranked.metrics["kind"] == "rank"
    assert ranked.shown.ranked


def test_metrics_of_another_format_are_named(folders, tmp_path, data):
    shutil.copytree(folders / "alone", tmp_path / "run")
    path = tmp_path / "run" / "metrics.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format": 1}))
    with pytest.raises(DataError, match=r"has format 1, this version reads 4; give the run's own command again"):
        report.write(tmp_path / "run", data)


def test_without_the_extra_one_line_says_what_to_install(folders, data, monkeypatch):
    monkeypatch.setitem(sys.modules, "altair", None)
    with pytest.raises(MissingExtra, match=r"selection-via-proxy\[report\]"):
        report.write(folders / "one seed", data)


def test_a_folder_without_a_finished_run_is_named(tmp_path):
    with pytest.raises(DataError, match="is this a run folder"):
        report.write(tmp_path)
