"""A session judged: learning curves, reasons to stop, second looks at labels, quotas, and its report."""

import json
import re
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import cohen_kappa_score

import svp
from svp import cli
from svp.config import ComputeConfig
from svp.errors import BudgetError, DataError, LabelError, SettingError, SvpWarning
from svp.labels import Answer
from svp.workflows.judging import FOLDS
from svp.workflows.session import Session
from svp.workflows.stopping import fold_of

CLASSES = ("ant", "bee", "<b>cat</b>")
LOGISTIC = svp.TrainConfig(model="logistic")


def points(n: int, seed: int = 0, spread: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Three classes of points in a plane; in a pool of 6 or more class 2 is rare."""
    rng = np.random.default_rng(seed)
    y = np.where(np.arange(n) % 10 == 9, 2, np.arange(n) % 2)
    centres = np.array([[0.0, 0.0], [4.0, 0.0], [2.0, 3.5]])
    return (centres[y] + rng.normal(0, spread, (n, 2))).astype(np.float32), y


X, Y = points(300)


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    yield from made(tmp_path / "s")


def made(folder: Path, proxy: svp.TrainConfig = LOGISTIC, **settings: Any) -> Iterator[Session]:
    config = svp.SessionConfig(dataset="points", classes=CLASSES, proxy=proxy, target=LOGISTIC, **settings)
    pool = svp.Dataset.from_arrays(X, classes=CLASSES, keys=[f"p{i} & co" for i in range(len(X))])
    with Session.create(folder, config, pool) as session:
        yield session


def label(session: Session, n: int, times: int = 1, truth: np.ndarray = Y, who: str = "ann") -> None:
    for _ in range(times):
        ids = session.ask(n).ids
        session.tell({int(i): int(truth[i]) for i in ids}, who=who)


def done(session: Session) -> list[Path]:
    return sorted(session.folder.rglob("done.json"))


# --- the learning curve -----------------------------------------------------------------------------------------------


def test_a_curve_is_what_cross_validation_by_hand_finds(session: Session) -> None:
    label(session, 30, 3)
    curve = session.curve()
    assert (curve["on"], curve["n"], curve["scored"]) == ("random", 90, 30)
    assert [p["n"] for p in curve["points"]] == [30, 60, 90]
    assert curve["gain"] is None  # three points
    first = session.asked(30).ids
    ids = session.asked(90).ids
    fold = fold_of(ids, FOLDS, 0)
    right = 0
    for k in range(FOLDS):
        mine = np.isin(ids, first) & (fold == k)
        if mine.any():
            # In the order in which every proxy is given them: sorted, then by hash. The optimum does not depend on it.
            fitted = LogisticRegression(max_iter=1000).fit(X[ids[fold != k]], Y[ids[fold != k]])
            right += int((fitted.predict(X[ids[mine]]) == Y[ids[mine]]).sum())
    assert curve["points"][-1]["accuracy"] == pytest.approx(right / 30)
    last = curve["points"][-1]
    assert last["low"] < last["accuracy"] < last["high"] or last["accuracy"] == 1
    assert last["trained_on"] == 72


def test_few_labels_that_were_all_drawn_are_like_the_pool(session: Session) -> None:
    label(session, 15)
    assert [session.curve()[name] for name in ("on", "scored")] == ["random", 15]
    label(session, 15)
    assert [session.curve()[name] for name in ("on", "scored")] == ["asked", 30]


def test_a_curve_is_measured_once_and_said_from_then_on(session: Session) -> None:
    label(session, 20, 4)
    assert session.status()["curve"] is None
    curve = session.curve()
    before = done(session)
    assert session.curve() == curve
    assert done(session) == before
    assert session.status()["curve"] == curve
    assert curve["gain"]["more"] == 100
    taken_back = session.ask(20).ids
    session.tell(dict.fromkeys(taken_back.tolist(), 0), who="ann")
    session.undo("ann")
    assert session.status()["curve"] == curve
    session.undo("ann")
    assert session.status()["curve"] is None  # it was of labels that are no more
    session.tell({int(i): int(Y[i]) for i in session.asked(80).ids[60:]}, who="ann")
    assert session.status()["curve"] == curve
    label(session, 20)
    again = session.curve()  # of the rounds before only what is new is judged
    assert again["points"][0]["n"] == 20
    assert len({p.parent for p in done(session) if "folds" in p.parts}) == 5 * FOLDS


def test_what_is_drawn_after_others_were_chosen_is_not_like_the_pool(session: Session) -> None:
    from svp.workflows import hindsight

    store = session.store
    store.ask(range(10), round=0, origin="random start")
    store.tell({i: i % 2 for i in range(10)})
    store.ask([], round=1, origin="a second look", again=[3, 4])
    store.ask(range(10, 20), round=2, origin="random, as no model has scored them yet")
    store.ask(range(20, 30), round=3, origin="margin")
    store.ask(range(30, 40), round=4, origin="random, as no model has scored them yet")
    assert hindsight.random(store).tolist() == list(range(20))


def test_without_a_random_part_all_labels_are_judged(tmp_path: Path) -> None:
    np.save(tmp_path / "emb.npy", X)
    seen = svp.TrainConfig.make({"model": "logistic", "features": str(tmp_path / "emb.npy")})
    for session in made(tmp_path / "s", seen):
        label(session, 40, 2)
        curve = session.curve()
        assert (curve["on"], curve["scored"]) == ("asked", 80)
        with pytest.raises(SettingError, match="there are none of the others in arrays; leave"):
            session.curve(svp.Dataset.from_arrays(*points(50, 1), classes=CLASSES))


def test_held_out_photos_are_seen_by_the_net_that_makes_the_features(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    from svp.learners.resnet import preact

    torch.manual_seed(0)
    save_file(preact("preact8", 5, torch.zeros(3, 8, 8), width=0.25).state_dict(), tmp_path / "net.safetensors")
    rng = np.random.default_rng(0)
    y = np.arange(160) % 2
    x = (rng.integers(0, 90, (160, 8, 8, 3)) + 120 * y[:, None, None, None]).astype(np.uint8)
    net = {"source": "preact8", "width": 0.25, "weights": tmp_path / "net.safetensors", "normalize": "data"}
    proxy = svp.TrainConfig.make({"model": "logistic", "features": net})
    compute = ComputeConfig(device="cpu", precision="fp32", threads=1)
    config = svp.SessionConfig(dataset="shades", classes=("dark", "light"), proxy=proxy, target=proxy, compute=compute)
    with Session.create(tmp_path / "s", config, svp.Dataset.from_arrays(x[:100], classes=("dark", "light"))) as session:
        label(session, 30, truth=y)
        session.train()
        # The last of them are in the pool too: they are seen as they are there, though other data are darker on the whole.
        here, others = np.arange(40, 100), np.concatenate([np.arange(40, 100), np.arange(100, 160)[y[100:] == 0]])
        fitted = session.fit()
        in_pool = fitted.predict(session.dataset, session.dataset.ids[here]).probs.argmax(1)
        holdout = svp.Dataset.from_arrays(x[others], y[others], classes=("dark", "light"))
        curve = session.curve(holdout)
        assert (curve["on"], curve["scored"]) == ("holdout", len(others))
        (stage,) = (tmp_path / "s" / "curve").iterdir()
        right = np.load(stage / "correct.npy")[-1]
        assert right[: len(here)].tolist() == (in_pool == y[here]).tolist()
        assert curve["points"][-1]["accuracy"] > 0.9


def test_held_out_data_judge_the_proxies_that_the_rounds_made(session: Session) -> None:
    label(session, 30, 2)
    label(session, 30)
    session.train()
    before = {p for p in done(session) if "curve" not in p.parts}
    x, y = points(200, 7)
    # The classes in another order: they are matched by name.
    names = (CLASSES[2], CLASSES[0], CLASSES[1])
    holdout = svp.Dataset.from_arrays(x, (y + 1) % 3, classes=names)
    curve = session.curve(holdout)
    assert (curve["on"], curve["scored"], curve["folds"]) == ("holdout", 200, None)
    after = {p for p in done(session) if "curve" not in p.parts}
    assert len(after - before) <= 1  # the first round's labels were never trained on alone
    expected = (session.fit().predict(svp.Dataset.from_arrays(x, y, classes=CLASSES), np.arange(200)).probs).argmax(1)
    assert curve["points"][-1]["accuracy"] == pytest.approx(float((expected == y).mean()))
    with pytest.raises(DataError, match="'dog'"):
        session.curve(svp.Dataset.from_arrays(x, y, classes=("ant", "bee", "dog")))
    with pytest.raises(DataError, match="rows of 1 numbers"):
        session.curve(svp.Dataset.from_arrays(x[:, :1], y, classes=CLASSES))
    with pytest.raises(DataError, match="does not exist"):
        session.curve("no/where")


def test_too_few_labels_are_named(session: Session) -> None:
    with pytest.raises(LabelError, match="0 of 3 classes have labels; a learning curve needs two"):
        session.curve()
    label(session, 2)
    session.tell({int(session.asked(2).ids[0]): 0, int(session.asked(2).ids[1]): 1}, replace=True, who="ann")
    for judge in (session.curve, session.review):
        with pytest.raises(LabelError, match="2 labels are too few"):
            judge()


def test_successive_rounds_are_compared_on_what_both_had_left(session: Session) -> None:
    label(session, 20, 4)
    (kappa, *more) = session.status()["kappas"]
    assert len(more) == 1
    stages = sorted(session.folder.glob("rounds/*/selection"))
    ids = [np.load(stage / "ids.npy") for stage in stages[:2]]
    both = np.intersect1d(*ids)
    answers = [np.load(s / "probs-0.npy")[np.isin(of, both)].argmax(1) for s, of in zip(stages, ids, strict=False)]
    assert kappa == pytest.approx(cohen_kappa_score(*answers))


def test_it_says_that_one_may_stop_and_goes_on(session: Session) -> None:
    label(session, 60, 2)
    assert session.status()["may_stop"] == []
    label(session, 40, 4)
    (settled,) = session.status()["may_stop"]
    assert "hardly change any more" in settled
    label(session, 20)
    assert session.status()["may_stop"][-1] == "everything was asked"


# --- a second look ------------------------------------------------------------------------------------------------------


FLIPPED = np.where(np.random.default_rng(5).random(len(Y)) < 0.2, (Y + 1) % 2, Y)


@pytest.fixture(params=["classifier", "net"])
def doubted(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Session]:
    """150 labels, one in five wrong, told by ann."""
    if request.param == "net":
        pytest.importorskip("torch")
    proxy = LOGISTIC if request.param == "classifier" else svp.TrainConfig(model="linear", epochs=15, batch_size=16)
    for session in made(tmp_path / "s", proxy):
        label(session, 75, 2, FLIPPED)
        yield session


def test_what_is_offered_again_is_mostly_wrong(doubted: Session) -> None:
    ids, labels = doubted.labelled()
    wrong = ids[labels != Y[ids]]
    offered = doubted.review()
    assert offered is not None
    found = np.isin(offered.ids, wrong)
    assert found.mean() > 0.6
    assert found.sum() > 0.5 * len(wrong)
    assert offered.origin == "a second look"
    # What it is taken for was said by a proxy that had not seen the label.
    taken_for = np.array([doubted.guesses(offered.ids)[int(i)][0] for i in offered.ids])
    assert (taken_for == Y[offered.ids])[found].mean() > 0.7


def test_a_second_look_is_answered_like_any_question(session: Session) -> None:
    label(session, 75, 2, FLIPPED)
    with pytest.raises(BudgetError, match="give 1 at least"):
        session.review(0)
    offered = session.review(12)
    assert offered is not None
    assert len(offered) == 12
    before = dict(zip(*(x.tolist() for x in session.labelled()), strict=True))
    first, second, *rest = offered.ids.tolist()
    assert session.tell({first: int(Y[first])}, who="ann") == 1  # without replace
    assert session.tell({second: before[second]}, who="ann") == 1  # the same: it was looked at
    assert session.tell({second: before[second]}, who="ann") == 0
    left = session.review()
    assert left is not None
    assert left.ids.tolist() == rest  # in the same order
    session.tell({i: int(Y[i]) for i in rest}, who="ann")
    again = session.review()
    assert again is None or not set(again.ids.tolist()) & set(offered.ids.tolist())
    kept = [x.label for x in session.store.history() if isinstance(x, Answer) and x.id == first]
    assert kept == [FLIPPED[first], Y[first]]
    assert session.ask(5).origin == "margin"  # nobody has to take a second look


def test_an_answer_from_before_is_no_second_look(session: Session) -> None:
    label(session, 75, 2, FLIPPED)
    offered = session.review(3)
    assert offered is not None
    id_ = int(offered.ids[0])
    (was,) = [x for x in session.store.said() if x.id == id_]
    assert session.tell([was]) == 0  # a tool's export, told once more, with its times
    other = Answer(id_, (was.label or 0) ^ 1, was.who, was.at)
    with pytest.raises(LabelError, match="tell it with replace"):
        session.tell([other])
    old = [Answer(id_, label, was.who, round=0) for label in (was.label, other.label)]
    assert session.tell(old[:1]) == 0  # an old table, which says for which question it was
    with pytest.raises(LabelError, match="tell it with replace"):
        session.tell(old[1:])
    assert session.tell([Answer(id_, was.label, was.who)]) == 1
    assert session.undo().n == 1
    assert session.tell([Answer(id_, was.label, was.who, round=offered.round)]) == 1
    assert session.tell(old[1:], replace=True) == 1
    left = session.review()
    assert left is not None
    assert id_ not in left.ids  # it was looked at, whatever is corrected since
    assert session.undo().n == session.undo().n == 1
    left = session.review()
    assert left is not None
    assert left.ids.tolist() == offered.ids.tolist()  # as if it had not been looked at


def test_clean_labels_are_left_in_peace(tmp_path: Path) -> None:
    x, y = points(120, 3, spread=0.3)
    config = svp.SessionConfig(dataset="points", classes=CLASSES, proxy=LOGISTIC, target=LOGISTIC)
    with Session.create(tmp_path / "s", config, svp.Dataset.from_arrays(x, classes=CLASSES)) as session:
        label(session, 60, truth=y)
        assert session.review() is None


# --- quotas ---------------------------------------------------------------------------------------------------------------


def test_quotas_go_by_what_the_proxy_takes_examples_for(session: Session) -> None:
    with pytest.raises(SettingError, match="until two classes have labels"):
        session.ask(9, per_class={"share": "equal"})
    label(session, 40)
    rare = session.status()["per_class"][CLASSES[2]]
    batch = session.ask(20, per_class={"min": {CLASSES[2]: rare + 8}})
    assert [session.guesses(batch.ids)[int(i)][0] for i in batch.ids].count(2) >= 8
    label(session, 20)
    with pytest.raises(BudgetError, match="cannot be met"):
        session.ask(9, per_class={"min": 200})


def test_quotas_need_probabilities(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    for session in made(tmp_path / "s", svp.TrainConfig(model="linear", epochs=2), method="k_center"):
        label(session, 20)
        with pytest.raises(SettingError, match="chooses sets"):
            session.ask(5, per_class={"share": "equal"})


# --- the commands and the report --------------------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    cli.main(["session", *arguments, "--quiet", "--json"])
    return json.loads(capsys.readouterr().out)


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main(["session", *arguments, "--quiet"])
    assert left.value.code == 1
    (line,) = capsys.readouterr().err.strip().splitlines()
    return line


class Page(HTMLParser):
    """Elements and words of a page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self._in = ""
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        self._in = tag

    def handle_data(self, data: str) -> None:
        if self._in not in ("script", "style"):
            self.words += f" {data.strip()}"

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attrs for name, attrs in self.elements if name == tag]


SECTIONS = ["curve", "people", "classes", "last", "divided"]


def test_a_session_of_photos_has_a_whole_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("vl_convert")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    Path("photos").mkdir()
    for i in range(60):
        pixels = np.random.default_rng(i).integers(0, 80, (8, 8, 3)) + 120 * (i % 2)
        Image.fromarray(pixels.astype(np.uint8)).save(f"photos/{'dark' if i % 2 == 0 else 'light'}{i}.png")
    models = ["--proxy.model", "logistic", "--target.model", "logistic", "--image-size", "8"]
    run(capsys, "new", "s", "--data", "photos", "--classes", "dark,light", *models)
    for n in ("24", "6"):
        asked = run(capsys, "ask", "s", "-n", n)
        rows = [f"{i},{re.sub('[0-9]+.png', '', key)}" for i, key in zip(asked["ids"], asked["keys"], strict=True)]
        Path("b.csv").write_text("\n".join(["id,label", *rows]))
        run(capsys, "tell", "s", "b.csv", "--who", "ann <i>")
    odd = asked["ids"][0]
    Path("c.csv").write_text(f"id,label\n{odd},{'light' if 'dark' in asked['keys'][0] else 'dark'}\n")
    run(capsys, "tell", "s", "c.csv", "--who", "bob")
    curve = run(capsys, "curve", "s")
    assert curve["points"][-1]["n"] == 29
    with pytest.raises(DataError, match="svp session report s"):
        svp.Run.open("s").report()
    run(capsys, "review", "s")
    assert "there is no class 'cat'" in fails(capsys, "ask", "s", "--per-class", "cat=3")
    assert "is none; give equal" in fails(capsys, "ask", "s", "--per-class", "some")
    done = run(capsys, "finish", "s")
    page = Page(Path(done["report"]).read_text())
    assert [attrs["aria-labelledby"] for attrs in page.all("section")] == SECTIONS
    assert "ann <i>" in page.words
    assert not page.all("i")
    assert f"{100 * curve['points'][-1]['accuracy']:.1f}" in page.words
    assert "On 1 examples several people have answered" in page.words
    pictures = page.all("img")
    assert len(pictures) == 6 + 1  # the last question, and the one on which they disagree
    assert all(str(image["src"]).startswith("data:image/webp") for image in pictures)
    for _, attrs in page.elements:
        for name in ("src", "href"):
            assert not (attrs.get(name) or "").startswith(("http", "//"))
    charts = {attrs["id"] for attrs in page.all("div")}
    assert charts == {"chart-curve", "chart-classes"}
    # Judged on photos that lie in folders of their classes.
    for photo in sorted(Path("photos").iterdir())[::3]:
        place = Path("held") / ("dark" if "dark" in photo.name else "light")
        place.mkdir(parents=True, exist_ok=True)
        (place / photo.name).write_bytes(photo.read_bytes())
    held = run(capsys, "curve", "s", "--holdout", "held")
    assert (held["on"], held["scored"]) == ("holdout", 20)
    # Without the photos: the numbers stay, and it says why there are no pictures.
    Path("photos").rename("elsewhere")
    with pytest.warns(SvpWarning, match="has no examples"):
        cli.main(["report", "s"])
    page = Page(Path("s/report.html").read_text())
    assert not page.all("img")
    assert "the data could not be read again" in page.words


def test_a_page_before_anything_was_asked_and_of_texts(session: Session, tmp_path: Path) -> None:
    pytest.importorskip("vl_convert")
    page = Page(session.report().read_text())
    assert "Nothing was asked yet." in page.words
    assert "Not measured yet" in page.words
    assert CLASSES[2] in page.words
    texts = ["<script>alert(1)</script> good", "bad & ugly", "so good", "too bad"]
    model = svp.TrainConfig(model="hashed-linear")
    config = svp.SessionConfig(dataset="texts", classes=("good", "bad"), proxy=model, target=model)
    with Session.create(tmp_path / "t", config, svp.Dataset.from_arrays(texts, classes=("good", "bad"))) as of_texts:
        ids = of_texts.ask(4).ids
        at = [f"2026-01-01T10:00:{10 * i:02d}+00:00" for i in range(4)]
        of_texts.tell([Answer(int(i), int(i) % 2, "ann", when) for i, when in zip(ids, at, strict=True)])
        page = Page(of_texts.report().read_text())
    assert texts[0] in page.words
    assert "alert(1)" not in [attrs.get("src") for attrs in page.all("script")]
    assert len(page.all("script")) == 2


def test_answers_told_together_share_the_time_since_those_before(session: Session) -> None:
    from svp.workflows import summary

    ids = session.ask(60).ids.tolist()
    for tell in range(6):  # files of ten, four minutes apart
        at = f"2026-01-01T10:{4 * tell:02d}:00Z"
        session.tell([Answer(i, 0, "ann", at) for i in ids[10 * tell : 10 * tell + 10]])
    assert summary.of(session)["seconds_by"] == {"ann": 24.0}
    session.tell(dict.fromkeys(ids[:10], 1), who="ann", replace=True)
    before = session.store.times()
    session.undo("ann")  # is no answer
    assert session.store.times() == before


def test_large_files_told_an_hour_apart_say_how_long_an_answer_took(session: Session) -> None:
    from svp.workflows import summary

    ids = session.ask(240).ids.tolist()
    for tell, hour in enumerate((0, 1, 2, 3, 4, 5)):
        at = f"2026-01-01T{10 + hour}:00:00Z"
        session.tell([Answer(i, 0, "ann", at) for i in ids[40 * tell : 40 * tell + 40]])
    assert summary.of(session)["seconds_by"] == {"ann": 90.0}


def test_the_time_for_an_answer_is_the_median_between_two(session: Session) -> None:
    ids = session.ask(8).ids.tolist()
    seconds = [0, 4, 8, 13, 17, 21, 20_000, 20_003]  # a night in between
    session.tell([Answer(i, 0, "ann", f"2026-01-01T{10 + s // 3600:02d}:{s // 60 % 60:02d}:{s % 60:02d}Z")
                  for i, s in zip(ids, seconds, strict=True)])  # fmt: skip
    session.tell(dict.fromkeys(ids, 1), who="bob")  # all at once
    from svp.workflows import summary

    facts = summary.of(session)
    assert facts["seconds_by"] == {"ann": 4.0, "bob": None}
    assert facts["divided"]["n"] == 8
    assert facts["said_by"] == {"ann": {"ant": 8}, "bob": {"bee": 8}}
