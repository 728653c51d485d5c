"""The label store, against a slow model, a killed process, a second process, and damage to its file."""

import contextlib
import errno
import functools
import json
import os
import resource
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from svp import labels, sealed
from svp.errors import DataError, LabelError, SettingError, StorageError
from svp.labels import WORDS, Answer, Batch, LabelStore, Standing
from svp.write_ahead import is_damaged
from tests.refused import refused

ANIMALS = ("cat", "dog", "owl")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "labels.sqlite"


@pytest.fixture
def store(path: Path) -> Iterator[LabelStore]:
    with LabelStore.create(path, ANIMALS) as store:
        yield store


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


def test_several_people_are_several_answers_and_a_rule_makes_one_label_of_them(store: LabelStore) -> None:
    store.ask([1], round=0, origin="random")
    earlier = "2020-01-01T00:00:00+00:00"
    assert store.tell([Answer(1, 0, "ann"), Answer(1, 1, "bob", earlier)]) == 2
    assert store.tell({1: 0}, who="ann") == 0
    assert current(store) == {}
    assert store.standings() == [Standing(1, "tie", None, 2)]
    assert store.standings("latest") == [Standing(1, "label", 1, 2)]
    store.tell({1: 0}, who="cyd")
    assert current(store) == {1: 0}
    told = [x for x in store.history() if isinstance(x, Answer)]
    assert [(x.who, x.label) for x in told] == [("ann", 0), ("bob", 1), ("cyd", 0)]
    assert told[1].at == earlier


def test_who_does_not_say_a_class_takes_the_example_off_the_question_and_gives_no_label(store: LabelStore) -> None:
    store.ask([1, 2, 3, 4], round=0, origin="random")
    assert store.tell({1: "skip", 2: "unsure", 3: "none"}, who="ann") == 3
    assert store.open_question().ids.tolist() == [4]  # type: ignore[union-attr]
    assert current(store) == {}
    assert [(s.id, s.kind, s.people) for s in store.standings()] == [(1, "open", 0), (2, "open", 0), (3, "none", 1)]
    store.tell({1: 0, 2: 0, 3: 0}, who="bob")
    assert current(store) == {1: 0, 2: 0}  # who is unsure has no vote; "none of the classes" is one
    with refused(LabelError, "Example 1", "ann answered skip before and cat now", "replace"):
        store.tell({1: 0}, who="ann")


def test_a_tie_is_asked_again_without_keeping_anybody_waiting(store: LabelStore) -> None:
    store.ask([1, 2], round=0, origin="random")
    store.tell({1: 0, 2: 0}, who="ann")
    store.tell({1: 1}, who="bob")
    batch = store.ask([5], round=1, scores=[0.5], origin="margin", again=[1])
    assert (batch.ids.tolist(), np.isnan(batch.scores).tolist()) == ([1, 5], [True, False])  # type: ignore[arg-type]
    assert store.open_question().ids.tolist() == [1, 5]  # type: ignore[union-attr]
    assert store.tell({1: 0}, who="ann") == 1  # looked at again; it is still a tie
    store.tell({5: 1}, who="ann")
    assert store.open_question() is None
    store.ask([6], round=2, origin="margin", again=[1])
    store.tell({1: 1}, who="cyd")
    assert store.open_question().ids.tolist() == [6]  # type: ignore[union-attr]
    assert current(store) == {1: 1, 2: 0, 5: 1}
    assert [(r.asked, r.answered) for r in store.rounds()] == [(2, 2), (2, 2), (2, 1)]
    with refused(LabelError, "Example 6 was not answered yet"):
        store.ask([], round=3, origin="margin", again=[6])


def test_undo_takes_back_the_last_tell_and_nothing_else(store: LabelStore) -> None:
    store.ask([1, 2, 3], round=0, origin="random")
    store.tell({1: 0, 2: 0}, who="ann")
    store.tell({3: 0}, who="bob")
    store.tell({1: 1}, who="ann", replace=True)
    assert store.undo().n == 1
    assert current(store) == {1: 0, 2: 0, 3: 0}
    assert (store.undo("ann").n, store.undo("bob").who) == (2, ("bob",))
    assert current(store) == {}
    assert store.open_question().ids.tolist() == [1, 2, 3]  # type: ignore[union-attr]
    for who in (None, "ann"):
        with refused(LabelError, "nothing to undo"):
            store.undo(who)
    assert store.tell({1: 0}, who="ann") == 1  # what was taken back can be said again
    told = [(x.id, x.kind, x.label) for x in store.history() if isinstance(x, Answer)]
    assert told[:5] == [(1, "label", 0), (2, "label", 0), (3, "label", 0), (1, "label", 1), (1, "label", 0)]
    assert len(told) == 9


def test_what_an_undo_brings_back_is_as_old_as_it_was(store: LabelStore) -> None:
    store.ask([1, 2], round=0, origin="random")
    store.tell({1: 0, 2: 0}, who="ann")
    store.tell({1: 1}, who="bob")
    store.tell({1: 2}, who="ann", replace=True)
    assert store.labels("latest")[1].tolist() == [2, 0]
    store.undo("ann")
    assert store.labels("latest")[1].tolist() == [1, 0]  # bob's is later than ann's first
    store.tell({1: 0}, who="bob", replace=True)
    store.undo("bob")
    assert store.labels("latest")[1].tolist() == [1, 0]
    store.undo("bob")
    assert store.labels("latest")[1].tolist() == [0, 0]


def test_undo_of_one_person_takes_back_nothing_of_others(store: LabelStore) -> None:
    """A pull, or a file of several people, is one event: it goes as a whole."""
    store.ask([1, 2], round=0, origin="random")
    store.pull([Answer(1, 0, "ann"), Answer(1, 0, "bob"), Answer(2, 0, "bob")])
    for who, others in (("ann", "bob"), ("bob", "ann")):
        with refused(LabelError, f"{who}'s last answers came together with those of {others}", "without a name"):
            store.undo(who)
    store.tell({2: 1}, who="ann")
    assert store.undo("ann").n == 1
    store.tell({1: 1}, who="bob", replace=True)
    with refused(LabelError, "ann's last answers came together with those of bob"):
        store.undo("ann")  # taken back as a whole, bob's 0 would be nothing that a later undo brings back
    assert [store.undo().n for _ in range(2)] == [1, 3]


def test_a_pulled_answer_that_an_undo_brings_back_is_still_a_pulled_one(store: LabelStore) -> None:
    store.ask([1], round=0, origin="random")
    store.pull([Answer(1, 0, "ann")])
    store.tell({1: 1}, who="ann", replace=True)
    assert store.pulled() == set()
    store.undo()
    assert store.pulled() == {(1, "ann")}


def test_classes_are_added_on_the_way(store: LabelStore) -> None:
    store.ask([1], round=0, origin="random")
    assert store.add_classes(["emu"]) == (*ANIMALS, "emu") == store.classes
    store.tell({1: 3})
    with refused(SettingError, "'owl' is there already"):
        store.add_classes(["newt", "owl"])
    with LabelStore.open(store.path) as other:
        assert other.classes == (*ANIMALS, "emu")


def test_examples_keep_their_numbers(store: LabelStore) -> None:
    store.number([3, 4], ["a.jpg", "b.jpg"], ["x", "y"])
    assert store.meet([("c.jpg", "z")], {3: "gone", 4: "changed"}) == 5
    assert store.left_out() == {3: "gone", 4: "changed"}
    store.meet([], {3: "here"})
    assert store.examples() == [(3, "a.jpg", "x", "here"), (4, "b.jpg", "y", "changed"), (5, "c.jpg", "z", "here")]
    assert (store.id_of("c.jpg"), store.id_of("d.jpg"), store.keys([3, 9])) == (5, None, {3: "a.jpg"})


def busy(store: LabelStore) -> None:
    """Some of everything."""
    store.number([4, 2, 9], ["d", "b", "i"], ["x", "y", "z"])
    store.ask([4, 2], round=0, scores=[2.0, 0.1], origin="margin")
    store.tell({2: 1, 4: "unsure"}, who="ann")
    store.tell({2: 2}, who="bob")
    store.add_classes(["emu"])
    store.meet([("j", "w")], {9: "gone"})
    store.ask([10], round=1, origin="random", again=[2])
    store.tell({10: 3, 2: 2}, who="cyd")
    store.undo()
    store.tell({10: 3}, who="cyd")


def test_a_store_is_restored_from_its_events_to_the_seal(store: LabelStore, tmp_path: Path) -> None:
    busy(store)
    lines = [json.dumps(event) for event in store.events()]
    with LabelStore.restore(tmp_path / "again.sqlite", map(json.loads, lines)) as again:
        assert content(again) == content(store)
        assert list(again.events()) == list(store.events())
        assert again.examples() == store.examples()
    for k in range(len(lines)):
        for damaged in (
            lines[k].replace('"ann"', '"eve"').replace("margin", "marvin").replace("cat", "bat"),
            lines[k][:-9] + '0"}',
        ):
            if damaged != lines[k]:
                with refused(DataError, f"event {k + 1} is not as it was written"):
                    LabelStore.restore(tmp_path / "no.sqlite", map(json.loads, [*lines[:k], damaged, *lines[k + 1 :]]))
    assert not (tmp_path / "no.sqlite").exists()


def test_a_store_of_the_first_format_is_taken_up(path: Path) -> None:
    tables = LabelStore.SCHEMA

    class First(LabelStore):
        FORMAT = 1
        SCHEMA: ClassVar = {1: tables[1]}

    with First.create(path, ANIMALS) as first:
        first._db.execute("CREATE INDEX answers_by_example ON answers (id, question, who)")
        first.ask([1, 2], round=0, origin="random")
        first.tell({1: 0})
    for _ in range(2):
        with LabelStore.open(path) as store:
            assert current(store) == {1: 0}
            assert store.open_question().ids.tolist() == [2]  # type: ignore[union-attr]
    with LabelStore.open(path) as store:
        store.undo()
        assert current(store) == {}


def test_a_store_of_the_third_format_is_taken_up_with_its_examples(path: Path) -> None:
    tables = LabelStore.SCHEMA

    class Third(LabelStore):
        FORMAT = 3
        SCHEMA: ClassVar = {number: tables[number] for number in (1, 2, 3)}

    with Third.create(path, ANIMALS) as third:
        third.number([3, 5], ["a", "b"], ["aa", ""])
        third.meet([("c", "cc")], {3: "gone"})
    for _ in range(2):
        with LabelStore.open(path) as store:
            assert store.examples() == [(3, "a", "aa", "gone"), (5, "b", "", "here"), (6, "c", "cc", "here")]
            assert store.has_unread()
    with LabelStore.open(path) as store:
        store.read({5: "bb"})
    with LabelStore.open(path) as store:
        assert store.examples()[1] == (5, "b", "bb", "here")
        assert (store.print_of(5), store.with_prints(["bb"]), store.has_unread()) == ("bb", {"bb": 5}, False)


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
    monkeypatch.setattr(sealed, "utc_now", lambda: next(clock))
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
        assert current(again) == current(store) == {4: 1}  # 2 is a tie
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


def test_what_was_never_asked_is_known_without_the_data(store: LabelStore) -> None:
    store.number([3, 5, 9], ["a", "b", "c"], ["0"] * 3)
    store.meet([("d", "0")], {5: "gone"})
    assert store.unasked().tolist() == [3, 9, 10]
    store.ask([9], round=0, origin="random")
    assert store.unasked().tolist() == [3, 10]


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
        (("Example 2", "True is not a class number", "1 dog"), {1: 0, 2: True}),
        (("Example 2", "False is not"), [Answer(1, 0), Answer(2, False)]),
        (("Example 2", "True"), {1: 0, 2: np.bool_(True)}),
        (("id", "True"), {True: 0}),
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
    busy(store)
    with contextlib.closing(sqlite3.connect(store.path)) as db:
        for table in ("events", "classes", "questions", "asked", "answers", "undos", "examples", "states"):
            column = db.execute(f"SELECT * FROM {table}").description[0][0]
            for change in (f"DELETE FROM {table}", f"UPDATE {table} SET {column} = {column}"):
                with pytest.raises(sqlite3.IntegrityError, match="only grows"):
                    db.execute(change)
            db.rollback()


# Against a slow model

IDS = st.integers(0, 7)
PEOPLE = st.sampled_from(["ann", "bob"])
SAID = st.sampled_from([0, 1, 2, 3, *WORDS])
TOLD = st.lists(st.tuples(IDS, SAID, PEOPLE), max_size=6)


def as_answer(id_: int, said: Any, who: str) -> Answer:
    return Answer(id_, None, who, "2026-01-01", said) if said in WORDS else Answer(id_, said, who, "2026-01-01")


class Against(RuleBasedStateMachine):
    """The store and a list of what happened are told the same; what holds is worked out anew from the whole list."""

    @initialize()
    def start(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.store = LabelStore.create(self.folder / "labels.sqlite", ANIMALS)
        self.asked: list[tuple[int, int, list[int]]] = []  # time, round, ids
        self.tells: list[tuple[int, list[tuple[int, Any, str]]]] = []  # time, what was new in it
        self.rows: list[tuple[int, int, str, Any]] = []  # time, id, who, said (None: withdrawn)
        self.undone: set[int] = set()
        self.pulls: set[int] = set()  # times
        self.time = 0

    def teardown(self) -> None:
        self.store.close()
        shutil.rmtree(self.folder)

    def said(self) -> dict[tuple[int, str], tuple[int, Any]]:
        """What each person says of each example, and since when."""
        last = {(id_, who): (time, said) for time, id_, who, said in self.rows}
        return {key: row for key, row in last.items() if row[1] is not None}

    def answered(self, id_: int, since: int = -1) -> bool:
        return any(key[0] == id_ and time > since for key, (time, _) in self.said().items())

    @rule(ids=st.lists(IDS, max_size=4), again=st.lists(IDS, max_size=1), step=st.integers(0, 2))
    def ask(self, ids: list[int], again: list[int], step: int) -> None:
        round = (self.asked[-1][1] if self.asked else 0) + step
        before = {id_ for _, _, batch in self.asked for id_ in batch}
        wanted = [*again, *ids]
        good = wanted and len(set(wanted)) == len(wanted) and not before & set(ids) and (step or not self.asked)
        if good and all(map(self.answered, again)):
            self.store.ask(ids, round=round, origin="x", again=again)
            self.time += 1
            self.asked.append((self.time, round, wanted))
        else:
            with refused(LabelError):
                self.store.ask(ids, round=round, origin="x", again=again)

    @rule(told=TOLD, replace=st.booleans())
    def tell(self, told: list[tuple[int, Any, str]], replace: bool) -> None:
        known = {id_ for _, _, ids in self.asked for id_ in ids}
        now = {key: said for key, (_, said) in self.said().items()}
        good, new = True, []
        for id_, said, who in told:
            good &= id_ in known and said != 3
            if now.get((id_, who)) != said:
                good &= (id_, who) not in now or replace
                new.append((id_, said, who))
            now[id_, who] = said
        answers = [as_answer(*each) for each in told]
        if not good:
            with refused(LabelError):
                self.store.tell(answers, replace=replace)
            return
        assert self.store.tell(answers, replace=replace) == len(new)
        if new:
            self.time += 1
            self.tells.append((self.time, new))
            self.rows += [(self.time, id_, who, said) for id_, said, who in new]

    @rule(told=TOLD)
    def pull(self, told: list[tuple[int, Any, str]]) -> None:
        """As tell with replace, where 3 is that it was withdrawn."""
        known = {id_ for _, _, ids in self.asked for id_ in ids}
        told = [each for each in told if each[0] in known]
        now = {key: said for key, (_, said) in self.said().items()}
        new: list[tuple[int, Any, str]] = []
        for id_, number, who in told:
            said = None if number == 3 else number
            new += [(id_, said, who)] if now.get((id_, who)) != said else []
            now[id_, who] = said
        answers = [
            Answer(id_, None, who, "2026-01-01", "withdrawn") if said == 3 else as_answer(id_, said, who)
            for id_, said, who in told
        ]
        withdrawn = sum(said is None for _, said, _ in new)
        assert self.store.pull(answers) == (len(new) - withdrawn, withdrawn)
        if new:
            self.time += 1
            self.tells.append((self.time, new))
            self.rows += [(self.time, id_, who, said) for id_, said, who in new]
            self.pulls.add(self.time)

    @rule(who=st.sampled_from([None, "ann", "bob"]))
    def undo(self, who: str | None) -> None:
        left = [
            (time, new)
            for time, new in self.tells
            if time not in self.undone and (who is None or who in {each[2] for each in new})
        ]
        if not left:
            with refused(LabelError, "nothing to undo"):
                self.store.undo(who)
            return
        time, new = left[-1]
        if who is not None and {each[2] for each in new} != {who}:
            with refused(LabelError, "came together with those of"):
                self.store.undo(who)
            return
        keys = {(id_, person) for id_, _, person in new}
        holding = [(when, what) for when, what in self.tells if when not in self.undone]
        before = {(id_, person): said for when, what in holding if when < time for id_, said, person in what}
        assert self.store.undo(who).n == len(keys)
        self.undone.add(time)
        self.time += 1
        self.rows += [(self.time, *key, before.get(key)) for key in keys]

    @rule()
    def reopen(self) -> None:
        self.store.close()
        self.store = LabelStore.open(self.store.path)

    @rule()
    def restore(self) -> None:
        events = list(self.store.events())
        with LabelStore.restore(self.folder / "again.sqlite", events) as again:
            assert content(again) == content(self.store)
        (self.folder / "again.sqlite").unlink()

    @invariant()
    def agree(self) -> None:
        votes: dict[int, dict[Any, list[int]]] = {}  # by id and what is said, when
        for (id_, _), (time, said) in self.said().items():
            if said not in ("skip", "unsure"):
                votes.setdefault(id_, {}).setdefault(said, []).append(time)
        most = {}
        for id_, by in votes.items():
            best = [said for said, times in by.items() if len(times) == max(map(len, by.values()))]
            most[id_] = best[0] if len(best) == 1 else "tie"
        wanted = {id_: said for id_, said in most.items() if isinstance(said, int)}
        assert current(self.store) == wanted
        for last in range(-1, 8):
            of = {i for _, round, ids in self.asked if round <= last for i in ids}
            found = self.store.labelled_after(last)
            assert dict(zip(*(a.tolist() for a in found), strict=True)) == {i: c for i, c in wanted.items() if i in of}
        ties = {s.id for s in self.store.standings() if s.kind == "tie"}
        assert ties == {id_ for id_, said in most.items() if said == "tie"}
        assert {(x.id, x.who): x.label if x.kind == "label" else x.kind for x in self.store.said()} == {
            key: said for key, (_, said) in self.said().items()
        }
        came = {(id_, who): time for time, new in self.tells if time not in self.undone for id_, _, who in new}
        assert self.store.pulled() == {key for key in self.said() if came[key] in self.pulls}
        rest = [(ids, [i for i in ids if not self.answered(i, time)]) for time, _, ids in self.asked]
        assert [(r.asked, r.answered) for r in self.store.rounds()] == [
            (len(ids), len(ids) - len(left)) for ids, left in rest
        ]
        remains = [left for ids, left in rest if any(not self.answered(i) for i in ids)]
        batch = self.store.open_question()
        assert (batch.ids.tolist() if batch else []) == (remains[0] if remains else [])


Against.TestCase.settings = settings(
    max_examples=20, stateful_step_count=20, deadline=None, derandomize=True, database=None
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
    monkeypatch.setattr(sealed, "utc_now", lambda: "now")
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


@pytest.fixture(params=["small", "remembered"])
def written(path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, list[Any]]:
    """A store, of the kind too of which it is remembered that it was checked."""
    with LabelStore.create(path, ANIMALS) as store:
        store.ask(range(60), round=0, scores=np.linspace(0, 1, 60), origin="margin")
        store.tell({i: i % 3 for i in range(60)})
        store.ask([100, 90], round=1, origin="random")
        store.tell({90: 1}, who="ann")
        seen = content(store)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    if request.param == "remembered":
        monkeypatch.setattr(LabelStore, "REMEMBERED", 0)
        LabelStore.open(path).close()
        assert sorted(p.name for p in path.parent.iterdir()) == [f".{path.name}.checked", path.name]
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


@pytest.fixture
def left(path: Path) -> tuple[bytes, int, list[Any]]:
    """The log that a killed process left, where its last transaction but one begins, and all that was stored."""

    def work(say: Callable[[str], None]) -> None:
        store = LabelStore.create(path, ANIMALS)
        store.ask(range(40), round=0, origin="x")
        for i in range(40):
            before = log.stat().st_size
            store.tell({i: i % 3})
            say(str(before))
        os.kill(os.getpid(), signal.SIGKILL)

    log = path.with_name(f"{path.name}-wal")
    begins = forked(work)[1]()
    assert len(begins) == 40
    whole = log.read_bytes()
    kept = path.read_bytes()
    with LabelStore.open(path) as store:
        seen = content(store)
    assert len(seen[-1]) == 41
    path.write_bytes(kept)
    return whole, int(begins[-2]), seen


@needs_fork
def test_flipped_bytes_of_a_log_are_detected_but_in_its_last_transaction(
    path: Path, left: tuple[bytes, int, list[Any]]
) -> None:
    whole, last_but_one, seen = left
    log, kept = path.with_name(f"{path.name}-wal"), path.read_bytes()
    for k in (*range(32), *range(32, last_but_one, 4999)):
        path.write_bytes(kept)
        log.write_bytes(whole[:k] + bytes([whole[k] ^ 1 << k % 8]) + whole[k + 1 :])
        with refused(StorageError, str(path), "damaged", "put back a copy"):
            LabelStore.open(path)
        assert len(log.read_bytes()) == len(whole)  # nothing is dropped
    log.write_bytes(whole)
    with LabelStore.open(path) as store:
        assert content(store) == seen


@needs_fork
def test_a_log_that_a_power_cut_cut_off_is_no_damage(path: Path, left: tuple[bytes, int, list[Any]]) -> None:
    """What was not acknowledged is missing, whatever of it reached the disk; all before is there."""
    whole, _, seen = left
    log, kept = path.with_name(f"{path.name}-wal"), path.read_bytes()
    frame = 24 + 4096
    cut = [whole[:n] for n in (0, 10, 32, 40, 32 + frame, len(whole) - 1, len(whole) - frame, len(whole) - 2 * frame)]
    for torn in (*cut, bytes(len(whole)), whole[: -2 * frame] + bytes(frame) + whole[-frame:]):
        path.write_bytes(kept)
        path.with_name(f"{path.name}-shm").unlink(missing_ok=True)
        log.write_bytes(torn)
        with LabelStore.open(path) as store:
            assert content(store)[-1] == seen[-1][: len(content(store)[-1])]
            if len(torn) >= len(whole) - 2 * frame and any(torn):
                assert len(content(store)[-1]) >= 40


def test_what_an_earlier_generation_left_in_a_log_is_no_damage(path: Path, store: LabelStore) -> None:
    store.ask(range(40), round=0, origin="x")
    for i in range(40):
        store.tell({i: 0})
    log = path.with_name(f"{path.name}-wal")
    size = log.stat().st_size
    store._db.execute("PRAGMA wal_checkpoint(RESTART)")  # the next change is written over the first ones
    store.tell({0: 1}, replace=True)
    assert log.stat().st_size == size
    assert not is_damaged(log)
    with LabelStore.open(path) as other:  # while the first is open
        assert current(other)[0] == 1


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


def test_what_was_checked_is_checked_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Later only what came since; everything where a change lies beside the file, or where nothing is known of its bytes."""
    checked: list[int] = []
    seal = sealed._seal
    monkeypatch.setattr(LabelStore, "REMEMBERED", 0)
    LabelStore.create(path, ANIMALS).close()

    def noted(before: str, event: int, *rest: Any) -> str:
        checked.append(event)
        return seal(before, event, *rest)

    def check() -> list[int]:
        checked.clear()
        with monkeypatch.context() as patch:
            patch.setattr(sealed, "_seal", noted)
            LabelStore.open(path).close()
        return list(checked)

    assert check() == [1]
    assert check() == []
    with LabelStore.open(path) as store:
        store.ask([1, 2], round=0, origin="random")
        store.tell({1: 0})
    assert check() == [2, 3]
    assert check() == []
    with LabelStore.open(path) as other:
        with LabelStore.open(path) as store:
            store.tell({2: 1})
        assert check() == [1, 2, 3, 4]  # the change is not in the file yet
        assert current(other) == {1: 0, 2: 1}
    assert check() in ([4], [1, 2, 3, 4])
    path.with_name(f".{path.name}.checked").write_text("{")
    assert check() == [1, 2, 3, 4]
    shutil.copy(path, elsewhere := path.with_name("copy.sqlite"))
    with LabelStore.open(elsewhere) as store:
        assert current(store) == {1: 0, 2: 1}


def test_a_second_look_at_a_large_file_leaves_the_locks_of_the_first(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else another process takes itself for the last one, and removes the log into which the first still writes."""
    monkeypatch.setattr(LabelStore, "REMEMBERED", 0)
    with LabelStore.create(path, ANIMALS) as store:
        store.ask([1, 2, 3], round=0, origin="random")
    tell = f"from svp.labels import LabelStore\nwith LabelStore.open({str(path)!r}) as store: store.tell({{2: 1}})"
    (link := path.with_name("link.sqlite")).symlink_to(path)
    with LabelStore.open(path) as store:
        assert current(store) == {}
        for name in (path, link):
            LabelStore.open(name).close()
        subprocess.run([sys.executable, "-c", tell], check=True)  # not forked: that would inherit what SQLite knows
        store.tell({3: 2})
        with LabelStore.open(path) as other:
            assert current(other) == current(store) == {2: 1, 3: 2}
    with LabelStore.open(path) as store:
        assert current(store) == {2: 1, 3: 2}


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
        db.execute(f"PRAGMA user_version = {LabelStore.FORMAT + 1}")
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

    monkeypatch.setattr(sealed, "_place", full)
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
    connect = sealed._connect
    monkeypatch.setattr(sealed, "_connect", lambda path, _: connect(path, mode))
    with LabelStore.open(path) as store:
        with refused(StorageError, str(path), "cannot be written", "allow writing"):
            store.tell({100: 1})
        assert content(store) == written[1]


def test_a_file_that_another_process_keeps_busy(store: LabelStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealed, "BUSY_SECONDS", 0)
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
        patch.setattr(sealed, "_seal", interrupt)  # the rows are written, the transaction is open
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
    with refused(StorageError, str(path), words, "it says so"), sealed._named(path):
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
