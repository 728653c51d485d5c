"""The labelling page without a browser: who is asked what, what is stored, who is let in, which files are given out."""

import asyncio
import io
import json
import shlex
import socket
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

pytest.importorskip("starlette")
pytest.importorskip("uvicorn")

import svp
from svp.errors import FolderInUse, LabelError, SvpError, TrainingError
from svp.labels import WORDS, Answer, LabelStore
from svp.serve.behind import Learned, Result, Where
from svp.serve.cards import Card, as_webp, media_type, photo
from svp.serve.desk import IN_HAND, RECENT, Desk, curve
from svp.serve.door import HEADERS, Keys
from svp.serve.supply import Supply
from svp.serve.web import keys_of
from svp.workflows.hindsight import first_guesses, right_before
from svp.workflows.session import Session
from tests.serving import FAST, Caller, Server, served

CLASSES = ("cat", "dog")


def card(id_: int, **more: Any) -> Card:
    return Card(id_, f"{id_}.png", "random", text="?", **more)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def store(tmp_path: Path) -> Iterator[LabelStore]:
    with LabelStore.create(tmp_path / "labels.sqlite", CLASSES) as made:
        yield made


def desk_of(store: LabelStore, n: int, clock: Clock | None = None) -> Desk:
    """A question of n examples, on the desk."""
    store.ask(range(n), round=0, origin="random")
    desk = Desk(store, "majority", clock or Clock())
    desk.put([card(id_) for id_ in range(n)])
    return desk


def asked(desk: Desk, who: str) -> list[int]:
    return [each.id for each in desk.hand(who)]


# --- who is asked what ------------------------------------------------------------------------------------------------------


def test_people_have_different_questions(store: LabelStore) -> None:
    desk = desk_of(store, 20)
    assert asked(desk, "ann") == [0, 1, 2]
    assert asked(desk, "bob") == [3, 4, 5]
    desk.answer("ann", 0, 1)
    desk.answer("bob", 4, "skip")
    assert asked(desk, "ann") == [1, 2, 6]
    assert asked(desk, "bob") == [3, 5, 7]
    assert desk.n_free == 12


def test_what_somebody_left_goes_to_others(store: LabelStore) -> None:
    clock = Clock()
    desk = desk_of(store, 4, clock)
    asked(desk, "ann")
    clock.now = 200
    assert asked(desk, "bob") == [3]
    clock.now = 301
    assert asked(desk, "bob") == [3, 0, 1]
    assert asked(desk, "ann") == [0, 1, 2]  # back again: two people on one example do no harm


def test_the_last_ones_are_shared_once_nothing_else_is_left(store: LabelStore) -> None:
    desk = desk_of(store, 2)
    assert asked(desk, "ann") == [0, 1]
    assert asked(desk, "bob") == []
    desk.exhausted = True
    assert asked(desk, "bob") == [0, 1]
    desk.answer("ann", 0, 0)
    desk.answer("bob", 0, 1)  # both are kept
    assert asked(desk, "ann") == asked(desk, "bob") == [1]
    assert {(a.who, a.label) for a in store.said()} == {("ann", 0), ("bob", 1)}


def test_what_is_asked_again_is_asked_of_whoever_has_not_looked_again(store: LabelStore) -> None:
    desk = desk_of(store, 3)
    store.tell([Answer(0, 0, "ann"), Answer(0, 1, "bob")])
    store.ask([], round=1, origin="people are divided", again=[0])
    desk.exhausted = True
    desk.progress()
    assert not desk.exhausted  # somebody asked by a command: there is something to fetch
    desk.put([card(0, again=True)])
    assert 0 in asked(desk, "ann")
    desk.answer("ann", 0, 1)  # another answer than before, or the same: both are one
    assert desk.labelled == [0, 1]
    assert 0 not in asked(desk, "ann")
    assert 0 not in asked(desk, "bob")


def test_more_is_asked_at_once_by_the_last_scores_until_nothing_is_left(tmp_path: Path) -> None:
    """Also while a question is open: at random before a model has scored, then as `ask` would that trains nothing."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(60, 4)) + 2 * np.eye(4)[np.arange(60) % 2]
    logistic = svp.TrainConfig(model="logistic")
    config = svp.SessionConfig(dataset="rows", proxy=logistic, target=logistic, classes=CLASSES, diverse=False)
    pool = svp.Dataset.from_arrays(x, classes=CLASSES, name="rows")
    with Session.create(tmp_path / "s", config, pool) as session:
        first = session.ask(12)
        second = session.ask_more(6)
        assert second is not None
        assert second.origin == "random, as no model has scored them yet"
        assert not set(first.ids) & set(second.ids)
        assert right_before(session.folder, session.store) == {}
        session.tell({int(id_): int(id_ % 2) for id_ in [*first.ids, *second.ids[:-2]]}, who="ann")
        session.train()
        left = np.setdiff1d(pool.ids, session.store.asked())
        third = session.ask_more(5)
        assert third is not None
        assert third.origin == "margin, by the scores of round 2"
        probs = session.fit().predict(pool, left).probs
        by_margin = left[np.argsort(np.abs(probs[:, 0] - probs[:, 1]), kind="stable")]
        assert third.ids.tolist() == by_margin[:5].tolist()
        guesses = first_guesses(session.folder, third.ids)
        assert {id_: guess[0] for id_, guess in guesses.items()} == {
            int(id_): int(probs[left == id_][0].argmax()) for id_ in third.ids
        }
        session.tell({int(third.ids[0]): guesses[int(third.ids[0])][0], int(third.ids[1]): "skip"}, who="ann")
        session.tell({int(third.ids[2]): 1 - guesses[int(third.ids[2])][0]}, who="ann")
        assert right_before(session.folder, session.store) == {int(third.ids[0]): True, int(third.ids[2]): False}
        divided = int(first.ids[0])
        session.tell({divided: 1 - divided % 2}, who="bob")
        last = session.ask_more(1000)
        assert last is not None
        assert last.ids[0] == divided
        assert len(session.store.asked()) == 60
        assert session.ask_more(1) is None
        assert [each.id for each in session.store.waiting()][:2] == second.ids[-2:].tolist()


# --- what is stored ---------------------------------------------------------------------------------------------------------


def test_an_answer_is_one_however_often_it_is_said(store: LabelStore) -> None:
    desk = desk_of(store, 5)
    for _ in range(3):
        desk.answer("ann", 0, 1)
    assert (desk.told, desk.labelled) == (1, [0, 1])
    with pytest.raises(LabelError, match="answered dog before"):
        desk.answer("ann", 0, 0)
    with pytest.raises(LabelError, match="never asked"):
        desk.answer("ann", 99, 0)
    with pytest.raises(LabelError, match="not a class number"):
        desk.answer("ann", 1, 2)
    assert [(a.id, a.label) for a in store.said()] == [(0, 1)]
    assert asked(desk, "ann") == [1, 2, 3]


def test_an_answer_taken_back_comes_first_again(store: LabelStore) -> None:
    desk = desk_of(store, 9)
    for id_ in asked(desk, "ann"):
        desk.answer("ann", id_, 0)
    assert [desk.undo("ann") for _ in range(2)] == [2, 1]
    assert asked(desk, "ann") == [1, 2, 3]
    desk.answer("ann", 1, 1)
    assert desk.labelled == [1, 1]
    assert desk.undo("ann") == 1
    assert desk.undo("ann") == 0
    with pytest.raises(LabelError, match="nothing to take back of ann"):
        desk.undo("ann")


def test_answers_that_came_in_a_file_are_not_taken_back_by_a_key(store: LabelStore) -> None:
    desk = desk_of(store, 9)
    desk.answer("ann", 0, 0)
    store.tell({1: 0, 2: 1}, who="ann")
    with pytest.raises(LabelError, match="last 2 answers of ann came in a file"):
        desk.undo("ann")
    assert desk.labelled == [2, 1]
    assert asked(desk, "ann") == [3, 4, 5]


def test_an_answer_of_before_the_start_is_asked_again_once_its_card_is_here(store: LabelStore) -> None:
    store.ask(range(9), round=0, origin="random")
    for id_ in range(5):
        store.tell({id_: 0}, who="ann")
    desk = Desk(store, "majority", Clock())
    desk.put([card(id_) for id_ in range(5, 9)])
    assert [desk.undo("ann") for _ in range(2)] == [4, 3]
    assert desk.lacking == {3, 4}
    assert desk.open == {5, 6, 7, 8}  # whoever brings cards brings the others
    desk.put([card(3)], sought=[3, 4])  # the other one is no longer in the pool
    assert asked(desk, "ann") == [3, 5, 6]
    assert (desk.lacking, desk.open) == (set(), {3, 5, 6, 7, 8})


@pytest.mark.parametrize("here", [True, False])
def test_who_differs_on_the_last_one_is_asked_again(store: LabelStore, here: bool) -> None:
    desk = desk_of(store, 2)
    desk.exhausted = True
    desk.answer("ann", 0, 0)
    assert desk.exhausted
    if here:
        desk.answer("bob", 0, 1)
    else:
        store.tell({0: 1}, who="bob")
    assert desk.progress()["others"]["tie"] == 1
    assert not desk.exhausted  # there is something to ask


def test_a_pull_of_several_people_is_not_taken_back_by_a_key(store: LabelStore) -> None:
    desk = desk_of(store, 9)
    asked(desk, "ann")
    store.pull([Answer(0, 0, "ann"), Answer(1, 0, "bob"), Answer(2, 0, "bob")])
    with pytest.raises(LabelError, match="ann's last answers came together with those of bob"):
        desk.undo("ann")
    assert [(a.id, a.who) for a in store.said()] == [(0, "ann"), (1, "bob"), (2, "bob")]


STEP = st.one_of(
    st.tuples(st.just("answer"), st.sampled_from("ab"), st.integers(0, 5), st.sampled_from([0, 1, *WORDS])),
    st.tuples(st.just("undo"), st.sampled_from("ab"), st.just(0), st.just(0)),
    st.tuples(st.just("elsewhere"), st.sampled_from("bc"), st.integers(0, 5), st.sampled_from([0, 1, *WORDS])),
)


@settings(max_examples=15, deadline=None)
@given(steps=st.lists(STEP, max_size=25))
def test_its_counts_are_those_of_the_store(steps: list[Any], tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever people say here, take back, and tell by commands meanwhile."""
    path = tmp_path_factory.mktemp("desk") / "labels.sqlite"
    with LabelStore.create(path, CLASSES) as store, LabelStore.open(path) as other:
        desk = desk_of(store, 6)
        for what, who, id_, said in steps:
            try:
                if what == "answer":
                    desk.answer(who, id_, said)
                elif what == "undo":
                    desk.undo(who)
                else:
                    other.tell({id_: said}, who=who, replace=True)
            except LabelError:
                continue
            desk.hand(who)
        standings = Counter((s.kind, s.label) for s in store.standings())
        progress = desk.progress()
        assert progress["labelled"] == [standings["label", 0], standings["label", 1]]
        assert progress["others"] == {kind: standings[kind, None] for kind in ("none", "open", "tie")}
        for person in "abc":
            held = asked(desk, person)
            assert len(held) == len(set(held)) <= IN_HAND


def test_waiting_is_what_every_open_question_still_asks(store: LabelStore) -> None:
    for round_, ids in enumerate(([5, 3], [8, 1], [7])):
        store.ask(ids, round=round_, origin="random")
    store.tell({3: 0, 8: "skip"}, who="ann")
    assert [each.id for each in store.waiting()] == [5, 1, 7]
    assert store.open_question().ids.tolist() == [5]  # type: ignore[union-attr]
    store.tell({3: 1}, who="bob")
    store.ask([2], round=3, origin="margin", again=[3])
    assert [(each.id, each.again, each.round) for each in store.waiting()][-2:] == [(3, True, 3), (2, False, 3)]
    store.tell({3: 1}, who="cyd")
    assert [each.id for each in store.waiting()] == [5, 1, 7, 2]


@pytest.mark.parametrize("n", [0, 9, 10, 31, 200])
def test_the_curve_is_the_share_over_the_answers_before(n: int) -> None:
    right = (np.random.default_rng(n).random(n) < 0.5).tolist()
    drawn = curve(right)
    assert (len(drawn) > 0) == (n >= 10)
    assert len(drawn) <= 2 * 60
    for end, share in drawn:
        window = right[max(0, end - RECENT) : end]
        assert share == pytest.approx(sum(window) / len(window))
    assert not drawn or drawn[-1][0] == n


def test_classes_that_are_digits_are_their_own_keys() -> None:
    assert keys_of(("cat", "dog")) == ["1", "2"]
    assert keys_of(tuple("abcdefghijkl")) == [*"1234567890", "", ""]
    assert keys_of(tuple("0123456789")) == [*"0123456789"]
    assert keys_of(("0", "10")) == ["1", "2"]


# --- which files are given out ----------------------------------------------------------------------------------------------


def test_no_key_leads_out_of_the_pool(tmp_path: Path) -> None:
    pool, outside = tmp_path / "pool", tmp_path / "pool-secret"
    for folder in (pool / "in", outside):
        folder.mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / "a.png")
    (pool / "link.png").symlink_to(outside / "a.png")
    (pool / "linked").symlink_to(outside)
    (pool / "inner.png").symlink_to(pool / "in" / "a.png")
    (pool / "loop.png").symlink_to(pool / "loop.png")
    (pool / "page.png").write_text("<script>alert(1)</script>")
    (pool / "drawing.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'><script>alert(1)</script></svg>")
    assert photo(pool, "in/a.png") == (pool / "in" / "a.png", "PNG")
    assert photo(pool, "inner.png") == (pool / "in" / "a.png", "PNG")
    out = ["../pool-secret/a.png", str(outside / "a.png"), "link.png", "linked/a.png", "in/../../pool-secret/a.png"]
    for key in [*out, "loop.png", "page.png", "drawing.svg", "in", "", ".", "none.png", "a\0.png"]:
        assert photo(pool, key) is None, key
    assert photo(pool / "in" / "a.png", "") is None


def test_photos_that_browsers_do_not_read_are_made_ones_that_they_do(tmp_path: Path) -> None:
    for suffix, shown in (("jpg", "image/jpeg"), ("gif", "image/gif"), ("tif", None), ("ppm", None)):
        path = tmp_path / f"a.{suffix}"
        Image.new("RGB", (3000, 20), "red").save(path)
        found = photo(tmp_path, path.name)
        assert found is not None
        assert media_type(found[1]) == shown
        made = tmp_path / "made.webp"
        made.write_bytes(as_webp(path))
        with Image.open(made) as image:
            assert (image.format, image.size) == ("WEBP", (1600, 11))


# --- who is let in ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "here"),
    [
        ("127.0.0.1:8765", True),
        ("localhost:8765", True),
        ("LOCALHOST:8765", True),
        ("[::1]:8765", True),
        ("192.168.1.7:8765", True),
        ("lab.example:8765", True),
        ("127.0.0.1:80", False),
        ("127.0.0.1", False),
        ("evil.example:8765", False),
        ("127.0.0.1.evil.example:8765", False),
        ("localhost:8765@evil.example", False),
        ("evil.example/localhost:8765", False),
        ("user@localhost:8765", False),
        ("localhost:x", False),
        ("", False),
    ],
)
def test_the_page_goes_by_addresses_and_its_own_names(host: str, here: bool) -> None:
    assert Keys(8765, ("lab.example",)).is_here(host) is here


def test_a_token_is_the_links_or_one_that_works_once() -> None:
    keys = Keys(1)
    once = keys.once()
    assert keys.admits(keys.token)
    assert keys.admits(keys.token)
    assert keys.admits(once)
    for wrong in (once, "", keys.token[:-1], keys.token + "x", keys.token.swapcase(), keys.cookie, keys.form, "é"):
        assert not keys.admits(wrong)
    assert len({keys.token, keys.cookie, keys.form, once, Keys(1).token}) == 5


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 photos of two shades, one of them a link that leads out."""
    root = tmp_path_factory.mktemp("served")
    rng = np.random.default_rng(0)
    (root / "photos").mkdir()
    for i in range(30):
        pixels = (rng.integers(0, 90, (16, 16, 3)) + 150 * (i % 2)).astype(np.uint8)
        Image.fromarray(pixels).save(root / (f"photos/{CLASSES[i % 2]}{i}.png" if i else "outside.png"))
    (root / "photos" / "cat0.png").symlink_to(root / "outside.png")
    return root


@pytest.fixture(scope="module")
def server(photos: Path) -> Iterator[Server]:
    arguments = ["--data", str(photos / "photos"), "--classes", ",".join(CLASSES), "--image-size", "8", "-n", "30"]
    with served(photos / "session", *arguments, "--port", "0", *FAST) as running:
        yield running


@pytest.fixture
def caller(server: Server) -> Caller:
    return Caller(server).enter()


def cards(caller: Caller, who: str) -> list[dict[str, Any]]:
    """What this person is asked; the first examples take a moment."""
    for _ in range(300):
        status, state = caller.say("/next", {"who": who})
        assert status == 200
        if state["cards"]:
            found: list[dict[str, Any]] = state["cards"]
            return found
        assert not state["behind"]["trouble"]
        time.sleep(0.1)
    raise AssertionError(state)


def test_nobody_gets_in_without_the_token(server: Server) -> None:
    stranger = Caller(server)
    for path in ("/", "/progress", "/image/any/0", "/nothing", "/?token=", "/?token=wrong", "/answer"):
        status, headers, _ = stranger.get(path)
        assert status == 403, path
        assert "Set-Cookie" not in headers
    for path in ("/next", "/answer", "/undo", "/finish", "/"):
        assert stranger.say(path, {"who": "eve"})[0] == 403
    stranger.cookie = f"svp-{stranger.address.port}={'0' * 64}"
    assert stranger.get("/")[0] == 403
    assert stranger.get("/static/page.js")[0] == 200  # of the package, not of the session


def test_the_cookie_is_kept_from_scripts_and_other_sites(server: Server) -> None:
    caller = Caller(server)
    status, headers, body = caller.get(f"/?{caller.address.query}")
    assert status == 200
    assert {"HttpOnly", "SameSite=strict", "Path=/"} <= set(headers["Set-Cookie"].split("; "))
    assert caller.address.query.partition("=")[2] not in headers["Set-Cookie"] + body.decode()


def test_a_forged_request_changes_nothing(server: Server, caller: Caller) -> None:
    asked_first = cards(caller, "ann")[0]["id"]
    said = {"who": "ann", "id": asked_first, "said": 0}
    other = f"http://127.0.0.1:{(caller.address.port or 0) + 1}"  # same site for cookies, another origin
    forged: list[dict[str, str]] = [
        {"X-SVP-Form": ""},
        {"X-SVP-Form": "0" * 64},
        {"Origin": ""},
        {"Origin": "null"},
        {"Origin": other},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ]
    for headers in forged:
        assert caller.say("/answer", said, **headers)[0] == 403, headers
    for kind in ("", "text/plain", "application/x-www-form-urlencoded"):
        assert caller.say("/answer", said, **{"Content-Type": kind})[0] == 415
    rebound = f"evil.example:{caller.address.port}"
    assert caller.say("/answer", said, Host=rebound, Origin=f"http://{rebound}")[0] == 421
    assert caller.get("/", Host=rebound)[0] == 421
    assert caller.get("/answer")[0] == 405
    assert caller.get("/progress")[0] == 200
    with Session.open(server.facts["folder"]) as session:
        assert session.store.said() == []


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("/answer", b"{"),
        ("/answer", b"[]"),
        ("/answer", {"who": "ann"}),
        ("/answer", {"who": "ann", "id": -1, "said": 0}),
        ("/answer", {"who": "ann", "id": "0", "said": 0}),
        ("/answer", {"who": "ann", "id": 0, "said": "withdrawn"}),
        ("/answer", {"who": "ann", "id": 2**70, "said": 0}),
        ("/answer", {"who": "ann", "id": 0, "said": 0, "more": 1}),
        ("/next", {"who": ""}),
        ("/next", {"who": " ann"}),
        ("/next", {"who": "a\nb"}),
        ("/next", {"who": "x" * 61}),
        ("/next", b'{"who": "\\ud800"}'),
        ("/undo", {"who": None}),
    ],
)
def test_what_makes_no_sense_is_refused(path: str, said: Any, caller: Caller) -> None:
    status, answer = caller.say(path, said)
    assert status == 400, answer
    assert answer["error"]


def test_too_much_at_once_is_refused(caller: Caller) -> None:
    assert caller.say("/next", b" " * 5000)[0] == 413


def test_answers_photos_and_undo(server: Server, caller: Caller, photos: Path) -> None:
    mine, theirs = cards(caller, "ann"), cards(caller, "bob")
    assert not {c["id"] for c in mine} & {c["id"] for c in theirs}
    status, headers, content = caller.get(mine[0]["image"])
    assert (status, headers["Content-Type"]) == (200, "image/png")
    if mine[0]["key"] != "cat0.png":
        assert content == (photos / "photos" / mine[0]["key"]).read_bytes()
    assert "no-store" not in headers["Cache-Control"]
    said = {"who": "ann", "id": mine[0]["id"], "said": 1}
    status, state = caller.say("/answer", said)
    assert (status, state["progress"]["labelled"]) == (200, [0, 1])
    assert [c["id"] for c in state["cards"]][:2] == [c["id"] for c in mine[1:]]
    assert caller.say("/answer", said)[1]["progress"]["labelled"] == [0, 1]
    assert "answered dog before" in caller.say("/answer", {**said, "said": 0})[1]["error"]
    with Session.open(server.facts["folder"]) as session:
        assert [(a.id, a.label, a.who) for a in session.store.said()] == [(mine[0]["id"], 1, "ann")]
    status, state = caller.say("/undo", {"who": "ann"})
    assert (status, state["undone"], state["cards"][0]["id"]) == (200, mine[0]["id"], mine[0]["id"])
    assert caller.say("/undo", {"who": "ann"})[0] == 409
    assert state["progress"]["people"] == ["ann", "bob"]


def test_files_of_the_machine_cannot_be_named(server: Server, caller: Caller) -> None:
    cards(caller, "ann")
    outside = [
        "/etc/passwd",
        "/image/../../etc/passwd",
        "/image/any/%2e%2e%2fx",
        "/image/any/-1",
        "/image/any/999",
        "/image/any/0/../1",
    ]
    outside += [
        "/static/../web.py",
        "/static/web.py",
        "/static/%2e%2e/web.py",
        "/static/",
        "//etc/passwd",
        "/image/any/cat1.png",
    ]
    for path in outside:
        status, _, body = caller.get(path)
        assert status == 404, path
        assert b"root:" not in body
    # The one photo that is a link out of the pool is shown as the models see it, not as its file.
    with Session.open(server.facts["folder"]) as session:
        id_ = session.store.id_of("cat0.png")
    status, _, content = caller.get(f"/image/any/{id_}")
    assert status == 200
    with Image.open(io.BytesIO(content)) as image:
        assert image.size == (8, 8)


def test_every_answer_has_the_headers_that_bind_the_browser(caller: Caller, server: Server) -> None:
    policy = HEADERS["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    stranger = Caller(server)
    for who, path in (
        (caller, "/"),
        (caller, "/static/page.js"),
        (caller, "/nothing"),
        (stranger, "/"),
        (caller, "/progress"),
    ):
        _, headers, _ = who.get(path)
        for name, value in HEADERS.items():
            assert headers[name] == value
    _, _, page = caller.get("/")
    assert b"<script>" not in page
    assert b"style=" not in page
    for name in ("page.css", "page.js", "icon.svg"):
        _, _, content = caller.get(f"/static/{name}")
        assert b"//" not in content.replace(b"http://www.w3.org/2000/svg", b"") or name == "page.js"
        assert b"innerHTML" not in content


def test_it_says_what_is_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from svp import cli

    def fails(*words: str) -> str:
        with pytest.raises(SystemExit) as left:
            cli.main(["session", "serve", *words])
        assert left.value.code == 1
        (line,) = capsys.readouterr().err.strip().splitlines()
        return line

    assert "svp session serve" in fails(str(tmp_path / "none"))
    assert "--data" in fails(str(tmp_path / "none"), "--classes", "a,b")
    assert "give 1 or more" in fails(str(tmp_path / "none"), "-n", "0")
    for port in ("-1", "65536"):
        assert "65535" in fails(str(tmp_path / "none"), "--data", "digits", "--port", port)
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize(("error", "tries"), [(FolderInUse("a curve is measured"), 2), (TrainingError("it broke"), 1)])
def test_the_final_model_is_wanted_once_until_it_is_there(
    error: SvpError, tries: int, store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However often that is said, while a proxy trains; and again where the folder was in use."""
    desk, asked_for = desk_of(store, 9), []

    async def at_desk(do: Any) -> Any:
        return do(desk)

    async def scene() -> None:
        supply = Supply(at_desk, Where(Path()), 9, scores=True, unread=False)
        proxy_is_trained = asyncio.Event()

        async def ask(item: tuple[str, int]) -> Any:  # stands for the process behind
            asked_for.append(item[0])
            if item[0] == "train":
                await proxy_is_trained.wait()
                return Learned(())
            if len(asked_for) == 2:
                raise error
            return Result("s", (), 9, 0)

        async def done() -> None:
            while supply._learner.busy:
                await asyncio.sleep(0)

        monkeypatch.setattr(supply._learner, "ask", ask)
        supply._learner.begin(supply._learn("train", 9, 9))
        for _ in range(3):
            supply.finish(9)
            await asyncio.sleep(0)
            assert (supply.state()["learning"], supply.state()["finish_wanted"]) == ("train", True)
        proxy_is_trained.set()
        await done()
        assert supply.state()["finish_wanted"] == (tries == 2)
        assert supply.state()["trouble"] == str(error)
        if tries == 2:
            supply._learner.forgive()  # the rest is over
            supply._begun, desk.exhausted = True, True
            await supply.look()
            await done()
            assert (supply.state()["finish_wanted"], supply.state()["trouble"]) == (False, "")
            assert supply.result is not None

    asyncio.run(scene())
    assert asked_for == ["train", *["finish"] * tries]


def test_photos_are_read_once_the_first_are_shown_and_before_anything_is_learned(
    store: LabelStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk, asked_for = desk_of(store, 9), []

    async def at_desk(do: Any) -> Any:
        return do(desk)

    async def scene() -> None:
        supply = Supply(at_desk, Where(Path()), 3, scores=True, unread=True)

        async def ask(item: Any) -> Any:  # stands for the process behind
            asked_for.append(item[0])
            if len(asked_for) == 1:
                raise TrainingError("the disk is full")
            return Learned(())

        async def look() -> None:
            supply._learner.forgive()  # the rest is over
            await supply.look()
            while supply._learner.busy:
                await asyncio.sleep(0)

        monkeypatch.setattr(supply._learner, "ask", ask)
        supply._begun, desk.exhausted = True, True
        for id_ in range(4):
            desk.answer("ann", id_, id_ % 2)
        await look()
        assert (asked_for, supply.state()["trouble"]) == (["read"], "the disk is full")
        await look()
        await look()
        await look()

    asyncio.run(scene())
    assert asked_for == ["read", "read", "train"]


def test_a_page_for_the_whole_network_is_called_by_the_address_that_leads_here(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(6, 3)))
    words = ["--data", str(tmp_path / "x.npz"), "--classes", "cat,dog", "--host", "0.0.0.0", "--port", "0", *FAST]
    with served(tmp_path / "s", *words) as server:
        caller = Caller(server).enter()  # by the link as it is printed
        assert caller.address.hostname != "0.0.0.0"
        machine = socket.gethostname()
        for name, status in {"127.0.0.1": 200, f"{machine}": 200, f"{machine}.local": 200, "evil.local": 421}.items():
            assert caller.get("/", Host=f"{name}:{caller.address.port}")[0] == status, name


def test_the_last_ones_come_again_taken_back_or_divided(tmp_path: Path) -> None:
    """After a new start the page has no card of what was answered; and nothing is over while people are divided."""
    np.savez(tmp_path / "x.npz", x=np.random.default_rng(0).normal(size=(6, 3)))
    words = ["--data", str(tmp_path / "x.npz"), "--classes", "cat,dog", "-n", "6", "--port", "0", *FAST]
    with served(tmp_path / "s", *words) as first:
        ann = Caller(first).enter()
        for _ in range(6):
            last = cards(ann, "ann")[0]["id"]
            assert ann.say("/answer", {"who": "ann", "id": last, "said": 0})[0] == 200
    with served(tmp_path / "s", "--port", "0") as second:
        ann = Caller(second).enter()
        taken = [ann.say("/undo", {"who": "ann"})[1]["undone"] for _ in range(3)]
        for _ in range(300):
            if len(again := [each["id"] for each in cards(ann, "ann")]) == 3:
                break
            time.sleep(0.1)
        assert (again, taken[0]) == (taken[::-1], last)
        for id_ in taken:
            ann.say("/answer", {"who": "ann", "id": id_, "said": 0})
        ann.say("/answer", {"who": "bob", "id": last, "said": 1})
        assert (cards(ann, "ann")[0]["id"], cards(ann, "ann")[0]["again"]) == (last, True)


def test_the_readmes_command_begins_a_session_and_given_again_goes_on(photos: Path) -> None:
    """Ctrl-C between them, then a kill, whose helpers let the folder go a moment later. Answers are there, the token is another,
    and neither stands in what is printed or kept."""
    readme = (Path(__file__).parents[1] / "README.md").read_text()
    (command,) = [line for line in readme.splitlines() if line.startswith("svp session serve ")]
    words = [*shlex.split(command)[3:], "--image-size", "8", *FAST, "--port", "0"]
    first = Server(*words, cwd=photos)
    caller = Caller(first).enter()
    shown = cards(caller, "ann")[0]
    assert caller.say("/answer", {"who": "ann", "id": shown["id"], "said": 0})[0] == 200
    said = first.stop()
    assert first.process.returncode == 130
    assert "Go on with: svp session serve" in said
    assert "token" not in said
    second = Server(*words, cwd=photos)
    try:
        assert Caller(second).get(f"/?{caller.address.query}")[0] == 403
        again = Caller(second).enter()
        assert shown["id"] not in [c["id"] for c in cards(again, "ann")]
        assert json.loads(again.get("/progress")[2])["progress"]["labelled"] == [1, 0]
    finally:
        second.kill()
    third = Server(*words, cwd=photos)
    third.kill()
    tokens = [server.link.partition("=")[2].encode() for server in (first, second, third)]
    for path in photos.rglob("*"):
        assert not (path.is_file() and any(token in path.read_bytes() for token in tokens))
