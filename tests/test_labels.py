"""The label store, against a slow model, a killed process, a second process, and damage to its file."""

import contextlib
import errno
import functools
import os
import resource
import shutil
import signal
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from svp import labels
from svp.errors import LabelError, SettingError, StorageError, SvpError
from svp.labels import Answer, Batch, LabelStore

ANIMALS = ("cat", "dog", "owl")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[LabelStore]:
    with LabelStore.create(path, ANIMALS) as store:
        yield store


@contextlib.contextmanager
def refused(kind: type[SvpError], *words: str) -> Iterator[None]:
    with pytest.raises(kind) as caught:
        yield
    message = str(caught.value)
    assert "\n" not in message
    for word in words:
        assert word in message


def current(store: LabelStore) -> dict[int, int]:
    ids, known = store.labels()
    assert ids.dtype == known.dtype == np.int64
    assert (np.diff(ids) > 0).all()
    return dict(zip(ids.tolist(), known.tolist(), strict=True))


def content(store: LabelStore) -> list[Any]:
    """All that a reader can see, in a form that compares."""
    plain = [
        (*x.ids.tolist(), x.round, None if x.scores is None else x.scores.tolist(), x.origin, x.at)
        if isinstance(x, Batch)
        else x
        for x in store.history()
    ]
    return [store.classes, store.rounds(), current(store), plain]


# What it does


def test_a_question_is_stored_with_its_order_scores_and_origin(store: LabelStore) -> None:
    asked = store.ask(np.array([7, 3, 5], np.int32), round=0, scores=[0.5, 0.25, -0.0], origin="margin")
    with LabelStore.open(store.path) as other:
        stored = other.open_question()
    for batch in (asked, stored):
        assert batch is not None
        assert (batch.ids.tolist(), batch.ids.dtype, batch.round, batch.origin) == ([7, 3, 5], np.int64, 0, "margin")
        assert batch.scores is not None
        assert batch.scores.tolist() == [0.5, 0.25, 0.0]
        assert len(batch) == 3
    assert asked.at == stored.at  # type: ignore[union-attr]


def test_answers_come_in_part_in_any_order_and_again(store: LabelStore) -> None:
    store.ask([7, 3, 5], round=0, origin="random")
    assert store.tell({5: 1}) == 1
    remains = store.open_question()
    assert remains is not None
    assert remains.ids.tolist() == [7, 3]
    assert remains.scores is None
    assert store.tell({np.int64(3): np.int64(0), 5: 1}) == 1  # type: ignore[dict-item]
    assert store.tell({3: 0, 5: 1}) == 0
    assert store.tell({7: 2}) == 1
    assert store.open_question() is None
    assert current(store) == {3: 0, 5: 1, 7: 2}
    assert [x.id for x in store.history() if isinstance(x, Answer)] == [5, 3, 7]


def test_a_different_answer_of_the_same_person_needs_replace_and_keeps_the_old_one(store: LabelStore) -> None:
    store.ask([1, 2], round=0, origin="random")
    store.tell({1: 0}, who="ann")
    with refused(LabelError, "Example 1", "ann", "cat", "dog", "replace"):
        store.tell({2: 0, 1: 1}, who="ann")
    assert current(store) == {1: 0}  # nothing of the refused tell
    assert store.tell({2: 0, 1: 1}, who="ann", replace=True) == 2
    assert current(store) == {1: 1, 2: 0}
    assert [(x.id, x.label) for x in store.history() if isinstance(x, Answer)] == [(1, 0), (2, 0), (1, 1)]
    assert store.tell({1: 1}, who="ann") == 0
    with refused(LabelError, "Example 1"):
        store.tell({1: 0}, who="ann")


def test_a_tell_that_contradicts_itself_is_refused(store: LabelStore) -> None:
    store.ask([1], round=0, origin="random")
    twice = [Answer(1, 0, "ann"), Answer(1, 0, "ann"), Answer(1, 2, "ann")]
    with refused(LabelError, "Example 1"):
        store.tell(twice)
    assert store.tell(twice, replace=True) == 2
    assert current(store) == {1: 2}


def test_several_people_are_several_answers_and_the_latest_is_the_label(store: LabelStore) -> None:
    store.ask([1], round=0, origin="random")
    earlier = "2020-01-01T00:00:00+00:00"
    assert store.tell([Answer(1, 0, "ann"), Answer(1, 1, "bob", earlier)]) == 2
    assert store.tell({1: 0}, who="ann") == 0
    assert current(store) == {1: 1}
    told = [x for x in store.history() if isinstance(x, Answer)]
    assert [(x.who, x.label) for x in told] == [("ann", 0), ("bob", 1)]
    assert told[1].at == earlier


@pytest.mark.parametrize("order", [[0, 1, 2, 3], [3, 1, 0, 2]])
def test_labels_after_a_round_do_not_depend_on_the_order_of_answers(store: LabelStore, order: list[int]) -> None:
    store.ask([3, 0], round=0, origin="random")
    store.ask([2, 1], round=1, origin="margin")
    for id_ in order:
        store.tell({id_: id_ % 2})
    first, second = store.labelled_after(0), store.labelled_after(np.int64(1))  # type: ignore[arg-type]
    assert [a.tolist() for a in first] == [[0, 3], [0, 1]]
    assert [a.tolist() for a in second] == [[0, 1, 2, 3], [0, 1, 0, 1]]
    assert [a.tolist() for a in store.labels()] == [a.tolist() for a in second]


def test_rounds_say_how_far_they_are_and_when(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter("abcdefg")
    monkeypatch.setattr(labels, "utc_now", lambda: next(clock))
    assert store.rounds() == []
    store.ask([1, 2], round=0, origin="random")
    store.tell({2: 0})
    store.ask([5], round=4, origin="margin")
    store.tell({1: 0})
    store.tell({1: 1}, replace=True)  # a correction does not finish a round again
    assert store.rounds() == [
        labels.Round(0, 2, 2, "random", "a", "d"),
        labels.Round(4, 1, 0, "margin", "c", None),
    ]
    remains = store.open_question()
    assert remains is not None
    assert (remains.ids.tolist(), remains.at) == ([5], "c")


def test_an_older_question_is_open_before_a_newer_one(store: LabelStore) -> None:
    store.ask([1, 2], round=0, origin="random")
    store.ask([3, 4], round=1, origin="margin")
    store.tell({3: 0, 1: 0})
    for expected in ([2], [4]):
        remains = store.open_question()
        assert remains is not None
        assert remains.ids.tolist() == expected
        store.tell(dict.fromkeys(expected, 0))


def test_history_told_again_gives_the_same_store(store: LabelStore, tmp_path: Path) -> None:
    store.ask([4, 2], round=0, scores=[2.0, 1.0], origin="margin")
    store.tell({2: 1, 4: 0}, who="ann")
    store.tell({2: 2}, who="bob")
    store.ask([9], round=1, origin="random")
    store.tell({4: 1}, who="ann", replace=True)
    with LabelStore.create(tmp_path / "again.sqlite", store.classes) as again:
        for x in store.history():
            if isinstance(x, Batch):
                again.ask(x.ids, round=x.round, scores=x.scores, origin=x.origin)
            else:
                again.tell([x], replace=True)
        assert current(again) == current(store) == {2: 2, 4: 1}
        answers = [[x for x in s.history() if isinstance(x, Answer)] for s in (store, again)]
        assert answers[0] == answers[1]
        assert again.open_question().ids.tolist() == [9]  # type: ignore[union-attr]


def test_writing_while_the_history_is_read(store: LabelStore) -> None:
    store.ask([1, 2], round=0, origin="random")
    for x in store.history():
        assert isinstance(x, Batch)
        store.tell({1: 0})
    assert current(store) == {1: 0}


# What it refuses


def test_questions_that_do_not_fit(store: LabelStore) -> None:
    store.ask([1, 2], round=3, origin="random")
    store.tell({1: 0})
    before = content(store)
    for words, ids, more in [
        (("Example 1", "was answered", "round 3"), [8, 1], {}),
        (("Example 2", "not answered yet", "round 3"), [8, 2], {}),
        (("Example 8", "twice"), [8, 9, 8], {}),
        (("Round 3", "next one is 4"), [8], {"round": 3}),
        (("round is -1",), [8], {"round": -1}),
        (("nothing to ask",), [], {}),
        (("-4",), [8, -4], {}),
        (("float",), [8.0], {}),
        (("shape (1, 2)",), [[8, 9]], {}),
        (("Scores", "finite"), [8], {"scores": [float("nan")]}),
        (("Scores", "2 ids"), [8, 9], {"scores": [1.0]}),
    ]:
        with refused(LabelError, *words):
            store.ask(ids, **{"round": 4, "origin": "margin", **more})
    assert content(store) == before


def test_answers_that_do_not_fit_store_nothing(store: LabelStore) -> None:
    store.ask([1, 2], round=0, origin="random")
    before = content(store)
    for words, answers in [
        (("Example 8", "never asked"), {1: 0, 8: 0, 9: 0}),
        (("Example 2", "3 is not", "0 cat, 1 dog, 2 owl"), {1: 0, 2: 3}),
        (("Example 2", "-1"), {1: 0, 2: -1}),
        (("Example 2", "'cat'", "classes"), {1: 0, 2: "cat"}),
        (("Example 2", "None"), [Answer(1, 0), Answer(2, None)]),
        (("Example 2", "''"), [Answer(1, 0), Answer(2, 0, who="")]),
        (("id", "'1'"), {1: 0, "1": 0}),
        (("id", str(2**63)), {1: 0, 2**63: 0}),
    ]:
        with refused(LabelError, *words):
            store.tell(answers)  # type: ignore[arg-type]
    assert content(store) == before
    assert store.tell({}) == store.tell([]) == 0
    assert content(store) == before


def test_a_closed_store_says_so(store: LabelStore) -> None:
    store.ask([1], round=0, origin="random")
    store.close()
    store.close()
    for use in (
        lambda: store.classes,
        lambda: store.ask([2], round=1, origin="random"),
        lambda: store.tell({1: 0}),
        store.open_question,
        store.labels,
        store.rounds,
        lambda: list(store.history()),
    ):
        with refused(StorageError, str(store.path), "is closed", "open it again"):
            use()


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ([(1, 0)], "(1, 0) is no answer; give class numbers by id, such as {12: 0}"),
        ([1], "1 is no answer"),
        ([None], "None is no answer"),
        (None, "None is no answer"),
        (3, "3 is no answer"),
        ("cat", "'c' is no answer"),
        ([{1: 0}], "is no answer"),
        ([Answer(2, 0), ["a"] * 1000], "is no answer"),
        ({1: "cat"}, "'cat' is not a class number"),
        ([Answer(1, 0, who="\udcff")], "gives no answers"),
        ([Answer(1, 0, at=3)], "3 is no time"),  # type: ignore[arg-type]
        ([Answer(1, 0, at="\udcff")], "is no time"),
    ],
)
def test_what_is_no_answer_stores_nothing(store: LabelStore, answers: Any, words: str) -> None:
    store.ask([1, 2], round=0, origin="random")
    before = content(store)
    with refused(LabelError, words):
        store.tell(answers)
    assert content(store) == before


@pytest.mark.parametrize("classes", ["cat", [], ["cat", ""], ["cat", "dog", "cat"], [0, 1]])
def test_classes_that_do_not_fit(path: Path, classes: Any) -> None:
    with refused(SettingError):
        LabelStore.create(path, classes)
    assert not path.exists()


def test_many_classes_are_listed_in_part(path: Path) -> None:
    with LabelStore.create(path, [f"c{i}" for i in range(1000)]) as store:
        store.ask([1], round=0, origin="random")
        with refused(LabelError, "19 c19 and 980 more"):
            store.tell({1: 1000})


def test_rows_only_grow(store: LabelStore) -> None:
    store.ask([1], round=0, origin="random")
    store.tell({1: 0})
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        for table in ("events", "classes", "questions", "asked", "answers"):
            column = db.execute(f"SELECT * FROM {table}").description[0][0]
            for change in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
                with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                    db.execute(change)
            db.rollback()


# Against a slow model

IDS = st.integers(0, 7)
PEOPLE = st.sampled_from(["ann", "bob"])
ANSWERS = st.lists(st.builds(Answer, IDS, st.integers(0, 3), PEOPLE, st.just("2026-01-01")), max_size=6)


class Against(RuleBasedStateMachine):
    """The store and a dictionary are told the same."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = LabelStore.create(self.folder / "labels.sqlite", ANIMALS)
        self.asked: list[tuple[int, list[int], list[float] | None]] = []
        self.answers: list[Answer] = []

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    @rule(ids=st.lists(IDS, max_size=4), step=st.integers(0, 2), scored=st.booleans())
    def ask(self, ids: list[int], step: int, scored: bool) -> None:
        round = (self.asked[-1][0] if self.asked else 0) + step
        before = {id_ for _, batch, _ in self.asked for id_ in batch}
        good = ids and len(set(ids)) == len(ids) and not before & set(ids) and (step or not self.asked)
        scores = [id_ / 8 for id_ in ids] if scored else None
        if good:
            self.store.ask(ids, round=round, scores=scores, origin="x")
            self.asked.append((round, ids, scores))
        else:
            with refused(LabelError):
                self.store.ask(ids, round=round, scores=scores, origin="x")

    @rule(answers=ANSWERS, replace=st.booleans())
    def tell(self, answers: list[Answer], replace: bool) -> None:
        known = {id_ for _, ids, _ in self.asked for id_ in ids}
        said = {(a.id, a.who): a.label for a in self.answers}
        good, new = True, []
        for a in answers:
            key = (a.id, a.who)
            good &= a.id in known and a.label in (0, 1, 2)
            if said.get(key) != a.label:
                good &= key not in said or replace
                new.append(a)
            said[key] = a.label
        if good:
            assert self.store.tell(answers, replace=replace) == len(new)
            self.answers += new
        else:
            with refused(LabelError):
                self.store.tell(answers, replace=replace)

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = LabelStore.open(self.store.path)

    @invariant()
    def agree(self) -> None:
        latest = {a.id: a.label for a in self.answers}
        for last in range(-1, 8):
            wanted = sorted((i, latest[i]) for r, ids, _ in self.asked if r <= last for i in ids if i in latest)
            assert list(zip(*(a.tolist() for a in self.store.labelled_after(last)), strict=True)) == wanted
        assert current(self.store) == latest
        history = list(self.store.history())
        assert [x for x in history if isinstance(x, Answer)] == self.answers
        questions = [(x.round, x.ids.tolist(), x.scores) for x in history if isinstance(x, Batch)]
        assert [(r, ids, None if s is None else s.tolist()) for r, ids, s in questions] == self.asked
        assert [(r.round, r.asked, r.answered) for r in self.store.rounds()] == [
            (r, len(ids), sum(i in latest for i in ids)) for r, ids, _ in self.asked
        ]
        assert all((r.finished_at is not None) == (r.asked == r.answered) for r in self.store.rounds())
        remains = [rest for _, ids, _ in self.asked if (rest := [i for i in ids if i not in latest])]
        batch = self.store.open_question()
        assert (batch.ids.tolist() if batch else []) == (remains[0] if remains else [])


Against.TestCase.settings = settings(
    max_examples=30, stateful_step_count=20, deadline=None, derandomize=True, database=None
)
test_it_agrees_with_a_dictionary = Against.TestCase


# Killed processes: a forked child dies just after the k-th thing it asks of SQLite or the folder, or within it.

QUESTIONS = [[4, 2, 9], [30, 20, 10, 5]]
TELLS = [[[2], [9, 4]], [[10, 5, 30], [10, 20]]]

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="kills forked processes")


def script(path: Path, acknowledge: Callable[[str], None]) -> None:
    """A little session, which goes on where it was left."""
    with LabelStore.open(path) if path.exists() else LabelStore.create(path, ANIMALS) as store:
        acknowledge("created")
        for round, (ids, tells) in enumerate(zip(QUESTIONS, TELLS, strict=True)):
            if round >= len(store.rounds()):
                store.ask(ids, round=round, scores=np.arange(len(ids)), origin="x")
            acknowledge(f"asked {round}")
            for told in tells:
                store.tell({id_: id_ % 3 for id_ in told})
                acknowledge(f"told {' '.join(map(str, told))}")


def forked(run: Callable[[Callable[[str], None]], None]) -> tuple[int, Callable[[], list[str]]]:
    """Start `run(say)` in a child; returns its process id, and what waits for its end and gives all that it said."""
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:
        say = lambda line: os.write(writer, f"{line}\n".encode())  # noqa: E731
        try:
            run(say)
        except BaseException as error:
            say(f"failed: {error!r}")
        finally:
            os._exit(0)
    os.close(writer)

    def finish() -> list[str]:
        with os.fdopen(reader) as pipe:
            said = pipe.read().splitlines()
        _, status = os.waitpid(pid, 0)
        assert os.WIFSIGNALED(status) or (said and said[-1] == "done"), said
        return said

    return pid, finish


def killed(path: Path, at: int, within: bool, say: Callable[[str], None]) -> None:
    """Run the script and die at point `at`: between calls, or `within` SQLite's work on a statement."""
    points = 0

    def tick() -> None:
        nonlocal points
        if (points := points + 1) == at:
            os.kill(os.getpid(), signal.SIGKILL)

    def ticking(call: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(call)
        def ticked(*args: Any, **more: Any) -> Any:
            result = call(*args, **more)
            tick()
            return result

        return ticked

    connect = sqlite3.connect

    class Counted(sqlite3.Connection):
        execute = ticking(sqlite3.Connection.execute)
        executemany = ticking(sqlite3.Connection.executemany)
        executescript = ticking(sqlite3.Connection.executescript)
        close = ticking(sqlite3.Connection.close)

    def connect_within(*args: Any, **more: Any) -> sqlite3.Connection:
        db = connect(*args, **more)
        db.set_progress_handler(tick, 60)  # every 60 instructions of SQLite's machine
        return db

    if within:
        sqlite3.connect = connect_within  # type: ignore[assignment]
    else:
        sqlite3.connect = functools.partial(connect, factory=Counted)  # type: ignore[assignment]
        os.link, os.fsync = ticking(os.link), ticking(os.fsync)
    script(path, say)
    say(f"points {points}")
    say("done")


def run_killed(path: Path, at: int, within: bool) -> list[str]:
    return forked(functools.partial(killed, path, at, within))[1]()


@needs_fork
@pytest.mark.parametrize("within", [False, True], ids=["between calls", "within a call"])
def test_a_kill_at_any_point_loses_nothing_that_was_acknowledged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, within: bool
) -> None:
    monkeypatch.setattr(labels, "utc_now", lambda: "now")
    whole = tmp_path / "whole.sqlite"
    points = int(run_killed(whole, -1, within)[-2].removeprefix("points "))
    with LabelStore.open(whole) as store:
        expected = content(store)
    assert points >= 20
    for at in range(1, points + 1):
        path = tmp_path / f"{at}.sqlite"
        said = run_killed(path, at, within)
        assert "done" not in said
        if said:
            with LabelStore.open(path) as store:
                told = [x.id for x in store.history() if isinstance(x, Answer)]
                asked = [x.round for x in store.history() if isinstance(x, Batch)]
                assert len(set(told)) == len(told)
                for line in said:
                    verb, *numbers = line.split()
                    assert verb in ("created", "asked", "told"), line
                    assert {*map(int, numbers)} <= {*(told if verb == "told" else asked)}, (at, line)
            with contextlib.closing(sqlite3.connect(path)) as db:
                assert db.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        script(path, lambda _: None)
        with LabelStore.open(path) as store:
            assert content(store) == expected, at


def race(*runs: Callable[[Callable[[str], None]], None]) -> list[list[str]]:
    """Run all at once in processes of their own; what each said."""
    gate, opener = os.pipe()

    def behind_gate(run: Callable[[Callable[[str], None]], None], say: Callable[[str], None]) -> None:
        os.close(opener)
        os.read(gate, 1)  # returns when the parent opens the gate
        run(say)
        say("done")

    children = [forked(functools.partial(behind_gate, run)) for run in runs]
    os.close(gate)
    os.close(opener)
    return [finish() for _, finish in children]


@needs_fork
def test_two_processes_that_tell_at_once_lose_nothing(path: Path) -> None:
    LabelStore.create(path, ANIMALS).close()
    with LabelStore.open(path) as store:
        store.ask(range(60), round=0, origin="random")

    def tell(who: str, ids: range, say: Callable[[str], None]) -> None:
        with LabelStore.open(path) as store:
            for id_ in ids:
                say(str(store.tell({id_: id_ % 3}, who=who)))

    said = race(functools.partial(tell, "ann", range(40)), functools.partial(tell, "bob", range(20, 60)))
    assert said == [["1"] * 40 + ["done"]] * 2
    with LabelStore.open(path) as store:
        told = [(x.who, x.id) for x in store.history() if isinstance(x, Answer)]
        assert sorted(told) == [("ann", i) for i in range(40)] + [("bob", i) for i in range(20, 60)]
        assert current(store) == {i: i % 3 for i in range(60)}
        assert store.open_question() is None


@needs_fork
def test_of_two_processes_that_create_or_ask_the_same_one_wins(path: Path) -> None:
    def create_and_ask(say: Callable[[str], None]) -> None:
        with contextlib.suppress(StorageError):
            LabelStore.create(path, ANIMALS).close()
            say("created")
        with LabelStore.open(path) as store, contextlib.suppress(LabelError):
            store.ask([1, 2], round=0, origin="random")
            say("asked")

    said = race(create_and_ask, create_and_ask)
    assert sorted(said[0] + said[1]) == ["asked", "created", "done", "done"]
    assert [p.name for p in path.parent.iterdir()] == [path.name]


# Damage, and files that cannot be used


@pytest.fixture
def written(path: Path) -> tuple[bytes, list[Any]]:
    with LabelStore.create(path, ANIMALS) as store:
        store.ask(range(60), round=0, scores=np.linspace(0, 1, 60), origin="margin")
        store.tell({i: i % 3 for i in range(60)})
        store.ask([100, 90], round=1, origin="random")
        store.tell({90: 1}, who="ann")
        seen = content(store)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    return path.read_bytes(), seen


def test_flipped_bytes_are_detected_or_do_not_matter(path: Path, written: tuple[bytes, list[Any]]) -> None:
    good, seen = written
    reasons: list[str] = []
    for k in range(0, len(good), 131):
        bad = bytearray(good)
        bad[k] ^= 1 << (k % 8)
        path.write_bytes(bad)
        try:
            with LabelStore.open(path) as store:
                assert content(store) == seen, k
        except StorageError as error:
            reasons.append(str(error))
    assert len(reasons) > 20
    assert all(str(path) in reason and "\n" not in reason for reason in reasons)


def test_a_changed_label_is_detected_where_sqlite_sees_nothing(path: Path, written: tuple[bytes, list[Any]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("DROP TRIGGER answers_no_update")
        db.execute("UPDATE answers SET label = 2 WHERE id = 7")
    with refused(StorageError, str(path), "damaged", "change 3", "copy"):
        LabelStore.open(path)


@pytest.mark.parametrize("left", [0, 10, 100, 4096, 10_000, -4096, -1])
def test_a_truncated_file_is_detected(path: Path, written: tuple[bytes, list[Any]], left: int) -> None:
    path.write_bytes(written[0][:left])
    with refused(StorageError, str(path), "copy"):
        LabelStore.open(path)


def test_other_files_are_refused(path: Path, written: tuple[bytes, list[Any]]) -> None:
    path.write_bytes(b"garbage\n" * 20 + written[0][160:])
    with refused(StorageError, str(path), "not a label store", "copy"):
        LabelStore.open(path)
    path.unlink()
    with contextlib.closing(sqlite3.connect(path)) as db, db:
        db.execute("CREATE TABLE answers (id)")
    with refused(StorageError, str(path), "not a label store"):
        LabelStore.open(path)


def test_a_newer_format_is_refused_untouched(path: Path, written: tuple[bytes, list[Any]]) -> None:
    with contextlib.closing(sqlite3.connect(path)) as db:
        db.execute(f"PRAGMA user_version = {labels.FORMAT + 1}")
    newer = path.read_bytes()
    with refused(StorageError, str(path), "newer svp", "pip install -U"):
        LabelStore.open(path)
    assert path.read_bytes() == newer


def test_missing_existing_and_misplaced_files(tmp_path: Path, path: Path, store: LabelStore) -> None:
    with refused(StorageError, "no label store", "nothing.sqlite", "create"):
        LabelStore.open(tmp_path / "nothing.sqlite")
    assert not (tmp_path / "nothing.sqlite").exists()
    with refused(StorageError, str(path), "exists"):
        LabelStore.create(path, ANIMALS)
    with refused(StorageError, str(tmp_path), "is a file"):
        LabelStore.open(tmp_path)
    with refused(StorageError, "no", "cannot be created"):
        LabelStore.create(tmp_path / "no" / "labels.sqlite", ANIMALS)
    with refused(StorageError, "cannot be created"):
        LabelStore.create(path / "labels.sqlite", ANIMALS)


def test_a_full_disk_stores_nothing_and_can_be_got_over(store: LabelStore) -> None:
    store.ask(range(5000), round=0, origin="random")
    store.tell({0: 0})
    before = content(store)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    for _ in range(2):
        with refused(StorageError, str(store.path), "full", "free some space"):
            store.tell(dict.fromkeys(range(1, 5000), 1))
    assert content(store) == before
    store._db.execute("PRAGMA max_page_count = 1000000")
    assert store.tell(dict.fromkeys(range(1, 5000), 1)) == 4999


def test_a_full_disk_at_creation(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(labels, "_place", full)
    with refused(StorageError, str(path), "No space left"):
        LabelStore.create(path, ANIMALS)
    assert list(path.parent.iterdir()) == []


def test_a_disk_that_fills_up_during_creation_leaves_a_whole_store_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the `at`-th call of SQLite on nothing can be written, also not by `close`, which tells nobody that it failed."""
    before, calls, at = resource.getrlimit(resource.RLIMIT_FSIZE), 0, 0

    def filling(call: Callable[..., Any]) -> Callable[..., Any]:
        def filled(*args: Any, **more: Any) -> Any:
            nonlocal calls
            if (calls := calls + 1) == at:
                resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
            return call(*args, **more)

        return filled

    class Filling(sqlite3.Connection):
        execute = filling(sqlite3.Connection.execute)
        executemany = filling(sqlite3.Connection.executemany)
        executescript = filling(sqlite3.Connection.executescript)
        close = filling(sqlite3.Connection.close)

    while calls >= at:  # until it is through before its disk is full
        calls, at = 0, at + 1
        path = tmp_path / f"{at}.sqlite"
        with monkeypatch.context() as patch, contextlib.suppress(StorageError):
            patch.setattr(sqlite3, "connect", functools.partial(sqlite3.connect, factory=Filling))
            try:
                LabelStore.create(path, ANIMALS).close()
            finally:
                resource.setrlimit(resource.RLIMIT_FSIZE, before)
        if not path.exists():
            LabelStore.create(path, ANIMALS).close()
        with LabelStore.open(path) as store:
            assert store.classes == ANIMALS
            store.ask([1], round=0, origin="random")
    assert at > 10


@pytest.mark.parametrize("mode", ["ro", "ro&immutable=1"])
def test_a_read_only_file_can_be_read(
    path: Path, written: tuple[bytes, list[Any]], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    connect = labels._connect
    monkeypatch.setattr(labels, "_connect", lambda path, _: connect(path, mode))
    with LabelStore.open(path) as store:
        with refused(StorageError, str(path), "cannot be written", "allow writing"):
            store.tell({100: 1})
        assert content(store) == written[1]


def test_a_file_that_another_process_keeps_busy(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(labels, "BUSY_SECONDS", 0)
    store.ask([1], round=0, origin="random")
    with LabelStore.open(store.path) as other:
        store._db.execute("BEGIN IMMEDIATE")
        with refused(StorageError, str(store.path), "in use by another process"):
            other.tell({1: 0})
        assert current(other) == {}  # readers do not wait
        store._db.execute("ROLLBACK")
        assert other.tell({1: 0}) == 1
    assert current(store) == {1: 0}


def test_an_interrupt_in_the_middle_stores_nothing(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: Any) -> str:
        raise KeyboardInterrupt

    store.ask([1, 2], round=0, origin="random")
    before = content(store)
    with monkeypatch.context() as patch:
        patch.setattr(labels, "_seal", interrupt)  # the rows are written, the transaction is open
        for write in (lambda: store.tell({1: 0}), lambda: store.ask([3], round=1, origin="random")):
            with pytest.raises(KeyboardInterrupt):
                write()
    assert content(store) == before
    assert store.tell({1: 0}) == 1


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (sqlite3.SQLITE_IOERR_WRITE, "check the disk"),
        (sqlite3.SQLITE_READONLY_DBMOVED, "cannot be written"),
        (sqlite3.SQLITE_CORRUPT_INDEX, "damaged"),
        (None, "cannot be used"),
    ],
)
def test_what_sqlite_says_comes_with_a_next_step(path: Path, code: int | None, words: str) -> None:
    error = sqlite3.OperationalError("it says\nso")
    if code is not None:
        error.sqlite_errorcode = code
    with refused(StorageError, str(path), words, "it says so"), labels._named(path):
        raise error


def test_file_systems_without_hard_links(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: Any) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", no_links)
    LabelStore.create(path, ANIMALS).close()
    with refused(StorageError, "exists"):
        LabelStore.create(path, ANIMALS)


def test_ten_thousand_answers_in_one_tell_are_few_statements(store: LabelStore) -> None:
    n = 10_000
    store.ask(np.arange(n)[::-1], round=0, scores=np.arange(n), origin="margin")
    statements: list[str] = []
    store._db.set_trace_callback(statements.append)
    assert store.tell({i: i % 3 for i in range(n)}) == n
    assert sum(s.startswith("COMMIT") for s in statements) == 1
    assert len(statements) < 3 * n + 20
    assert current(store) == {i: i % 3 for i in range(n)}
