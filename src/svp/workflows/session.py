"""A labelling effort: ask for labels, be told them, retrain, ask again. The only active-learning loop there is."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svp.config import RunConfig, SessionConfig
from svp.data.base import Dataset, silent
from svp.data.unlabelled import are_photos
from svp.errors import DataError, FolderInUse, LabelError, SettingError
from svp.files import read_record, write_json
from svp.labels import Answer, Batch, Kind, LabelStore, Undone
from svp.runs import STORE, SUMMARY, Run
from svp.select import Selection, find_method
from svp.select.limits import PerClass
from svp.workflows import choosing, files, hindsight, judging, listed, summary
from svp.workflows.begin import settled
from svp.workflows.check import check_arguments, check_needs, refuse_options
from svp.workflows.choosing import Choice
from svp.workflows.outcomes import Fitted, Show, kind_of
from svp.workflows.people import (
    SECOND_LOOK,
    config_in,
    data_of,
    facts_of,
    guesses,
    known,
    never_asked,
    prepared,
    refuse_names,
    ways_of,
)
from svp.workflows.pool import join
from svp.workflows.predictions import Predictions
from svp.workflows.rounds import Rounds
from svp.workflows.work import Work

ENVIRONMENT = "environment.json"


@dataclass(frozen=True)
class Finished:
    """What `finish` leaves: the target, the labelled set, and what the target takes the rest for."""

    target: Fitted
    labelled: Path
    predicted: Path
    n_labelled: int
    n_predicted: int


class Session:
    """A folder with the label store (labels.sqlite) and the models of each round.

    `ask` and `tell` are all there is to the loop; a simulation answers with an oracle, people with their own words. A session
    that was closed or killed goes on where it stopped: an open question is asked again, a round's training continues.
    The dataset is taken without its labels, so nothing here can peek.

    With people (a SessionConfig) the pool may grow, and several people and processes may answer at once: the folder is held
    only while something is trained in it, and what is told meanwhile is stored at once. Opened by its folder alone, such a
    session reads its data when it first has to.
    """

    def __init__(
        self, folder: Path, config: RunConfig, store: LabelStore, show: Show, *, accept_code_change: bool
    ) -> None:
        self.config, self.folder, self.ways = config, folder, ways_of(config)
        self.noticed: Mapping[str, tuple[str, ...]] = {}  # keys that are new in the data, or left out, and why
        self._store, self._show, self._accept = store, show, accept_code_change
        self._made: Rounds | None = None

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: RunConfig,
        dataset: Dataset | None = None,
        *,
        accept_code_change: bool = False,
        reuse: Sequence[Path] = (),
        siblings: Sequence[Path] = (),
        show: Show = silent,
    ) -> Self:
        """A new session, or the one that is in `folder` already if it was made with the same settings and data.

        config  a SessionConfig for people, a RunConfig for a simulation
        reuse, siblings  other sessions to take stages from, as `Run.start` does
        """
        ways = ways_of(config)
        check_arguments("a session", ways.kind, config, dataset)
        folder = Path(folder)
        settled(config, "proxy")  # what is wrong in itself is refused before any data are read
        config, dataset = prepared(folder, config, dataset, show)
        config = settled(config, "proxy")
        check_needs(config, dataset, trained_on_all=False)
        refuse_options(config, len(dataset))
        run = Run.start(
            folder,
            config,
            dataset,
            reuse=reuse,
            siblings=siblings,
            accept_code_change=accept_code_change,
            may_grow=ways.grows,
            never_asked=never_asked,
        )
        with run:
            path = folder / STORE
            store = LabelStore.open(path) if path.exists() else LabelStore.create(path, dataset.classes)
            session = cls(folder, config, store, show, accept_code_change=accept_code_change)
            session._take(run, dataset)
        return session

    @classmethod
    def begin(
        cls,
        folder: str | Path,
        config: SessionConfig,
        *,
        accept_code_change: bool = False,
        show: Show = silent,
    ) -> Self:
        """As `create`, of the data that the settings name; but a folder of photos is only listed, where the first question is
        drawn at random (`ask` with now). They are read when they are first needed, and what cannot be read then is left out as
        gone. Not so where an unreadable photo is to be refused (on_error).
        """
        folder = Path(folder)
        check_arguments("a session", SessionConfig, config, None)
        if (folder / ENVIRONMENT).exists() or not listed.is_enough(config):
            return cls.create(folder, config, accept_code_change=accept_code_change, show=show)
        listed.begin(folder, config, accept_code_change=accept_code_change)
        return cls.open(folder, accept_code_change=accept_code_change, show=show)

    @classmethod
    def open(
        cls,
        folder: str | Path,
        dataset: Dataset | None = None,
        *,
        accept_code_change: bool = False,
        show: Show = silent,
    ) -> Self:
        """The session in `folder`; its own settings say where the data is, unless a dataset is given."""
        folder = Path(folder)
        if not (folder / STORE).exists():
            raise DataError(
                f"{folder} holds no session ({STORE} is missing); svp session new makes one (Session.create)"
            )
        config = config_in(folder)
        if dataset is None and ways_of(config).grows:
            return cls(folder, config, LabelStore.open(folder / STORE), show, accept_code_change=accept_code_change)
        return cls.create(folder, config, dataset, accept_code_change=accept_code_change, show=show)

    @classmethod
    def restore(cls, folder: str | Path, history: str | Path) -> Self:
        """A session from what `export_history` wrote, where its folder or its label store is lost; proxies are trained again.

        Raises DataError for a history that is not as it was written, StorageError where there is a label store.
        """
        files.restore(Path(folder), Path(history))
        return cls.open(folder)

    def close(self) -> None:
        self._store.close()
        if self._made is not None:
            self._made.work.run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- the loop ----------------------------------------------------------------------------------------------------------

    def ask(self, n: int | str, *, now: bool = False, per_class: PerClass | None = None) -> Batch:
        """Which `n` examples to label next: stored before it is returned. While a question is open, what is left of it.

        The first question is drawn at random (with people and frozen features: by `start`), and so is every one until two classes
        have labels: before that no model can be trained to tell them apart. Later ones are chosen by the proxy, trained on the
        labels so far from scratch. Examples on which people are divided come first, once more; those on which they stay divided
        when nothing else is left.
        now  train nothing: choose by the last finished scores, at random where there are none or the method chooses sets. While
             another process is training, that is done anyway; `origin` says so
        per_class  how many of each class, as in `svp.select` (by name): what the proxy takes examples for, and what is labelled
                   already counts. Near-duplicates are not looked for then
        Raises BudgetError when there are fewer than n left, or a quota cannot be met. Cost: a training, a pass over the pool, and
        the method's own.
        """
        left = self._store.open_question
        untrained = partial(choosing.untrained, self, n, per_class)
        if now:
            return self._asked(left, untrained)
        try:
            with self.rounds.held("ask"):
                return self._asked(left, partial(choosing.trained, self, n, per_class))
        except FolderInUse:
            return self._asked(left, untrained)

    def ask_more(self, n: int) -> Batch | None:
        """A further question at once, also while one is open, for people who answer one by one while another process trains.

        By the last finished scores; at random where there are none. Of all that is left where that is less than `n`; None where
        nothing is. Trains nothing, holds no folder, and of people's data reads none.
        """
        return self._stored(lambda: None, partial(choosing.at_once, self, n))

    def tell(
        self, answers: Mapping[int, int | Kind] | Sequence[Answer], *, who: str = "oracle", replace: bool = False
    ) -> int:
        """Store answers, all of them or (on an error) none; returns how many were new. They are safe once this returns."""
        return self._store.tell(answers, who=who, replace=replace)

    def tell_file(
        self, path: str | Path, *, who: str, format: str | None = None, replace: bool = False
    ) -> tuple[int, int]:
        """Store the answers in a file or a sorted folder (`svp.exchange`), all or none: how many are new, and how many there are.

        who  gave those of which the file does not say by whom
        Raises what `tell` does, naming the row, and DataError for a file that cannot be read.
        """
        answers = files.answers_in(self, Path(path), who, format)
        return self._store.tell(answers, replace=replace), len(answers)

    def undo(self, who: str | None = None) -> Undone:
        """Take back the last tell or pull (of `who`, which others had no part in); the history keeps it. Raises LabelError."""
        return self._store.undo(who)

    def add_classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """Classes that nobody thought of before; returns all. Proxies trained from now on know them."""
        refuse_names(names, self.classes)
        added = self._store.add_classes(names)
        if self._made is not None:
            self._take(self._made.work.run, self.dataset)
        return added

    def review(self, n: int | None = None) -> Batch | None:
        """Labelled examples whose labels look wrong, to be looked at once more: stored before it is returned, the worst first.

        Answered as a question of `ask` is; what a person says now takes the place of what that person said before. While such a
        question is open, what is left of it; nothing is offered twice. None where no label looks wrong.
        n  at most so many; default: all that look wrong, up to choosing.REVIEWED
        Raises LabelError with too few labels. Cost: that of `train`, and five trainings more, which `curve` needs too.
        """
        if (left := choosing.open_look(self)) is not None:
            return left
        with self.rounds.held("review"):
            return self._stored(partial(choosing.open_look, self), partial(choosing.second_look, self, n))

    def curve(self, holdout: str | Path | Dataset | None = None) -> dict[str, Any]:
        """How accurate the proxy was after each of the last rounds, with intervals, and what 100 more are predicted to add.

        Without `holdout` by cross-validation, on the labels that were drawn at random, where there are 20 or more: that is its
        accuracy on the pool ("on": "random"). Otherwise on all ("asked"), which were chosen to be hard: on the pool it is higher.
        holdout  labelled data for testing alone: a Dataset, a folder of class folders, a table with labels
        Kept in the folder, where `status` and the report find it. Raises LabelError with too few labels. Cost: five trainings
        of the proxy for each of six rounds at most, each once; with `holdout` one, which the round has made already.
        """
        with self.rounds.held("curve"):
            return judging.curve(self, None if holdout is None else judging.holdout_of(self, holdout))

    def report(self) -> Path:
        """Write report.html into the folder and return its path. Needs the extra `report`, and a session with people."""
        if not self.ways.grows:
            raise SettingError(
                "this session was made without people's settings (svp.SessionConfig); svp report is for runs"
            )
        with self.rounds.held("report"):
            write_json(self.folder / SUMMARY, summary.of(self))
            return self.rounds.work.run.report(self.dataset)

    def train(self) -> bool:
        """Train the proxy on the labels so far, and score the pool, so that the next `ask` need not. Killed, it goes on.

        Returns whether there was something to train for: labels of two classes, a method that asks a model, a pool.
        """
        with self.rounds.held("train"):
            ids, labels = self._labels()
            asks_model = find_method(self.config.method)[1].asks_model
            if len(np.unique(labels)) < 2 or not asks_model or not len(self.rounds.unasked()):
                return False
            if self.ranks:
                self.rounds.ranked(ids, labels)
            else:
                self.rounds.fit(self.rounds.next, ids, labels, self.config.proxy.seeds)
            return True

    def finish(self) -> Finished:
        """Train the target on the labels so far, and write what it makes of everything; the session can go on after it.

        The labelled set goes to `labelled.csv`, texts beside their labels; what the target takes the rest for to `predicted.csv`,
        both in the folder. In neither is what people say is none of the classes. Raises
        LabelError until two classes have labels.
        """
        with self.rounds.held("finish"):
            with self._store.one_moment():
                ids, labels = self.two_classes("the target")
                rows = files.labelled_rows(self)  # before the training: what is told during it, the target has not seen
                none = [s.id for s in self._store.standings(self.ways.rule) if s.kind == "none"]
            fitted = self.rounds.final(ids, labels)
            texts = files.texts_of(self, ids[np.isin(ids, self.dataset.ids)].tolist())
            files.write_labelled(self, self.folder / "labelled.csv", rows, texts)
            rest = np.setdiff1d(self.dataset.ids, [*ids.tolist(), *none], assume_unique=True)
            Predictions.of(fitted, self.dataset, rest).save(self.folder / "predicted.csv")
        return Finished(fitted, self.folder / "labelled.csv", self.folder / "predicted.csv", len(ids), len(rest))

    def _asked(self, left: Callable[[], Batch | None], choose: Callable[[], Choice]) -> Batch:
        """`_stored` of what always finds something."""
        asked = self._stored(left, choose)
        assert asked is not None
        return asked

    def _stored(self, left: Callable[[], Batch | None], choose: Callable[[], Choice | None]) -> Batch | None:
        """What is left of a question that is open, else what is chosen now, stored; None where nothing can be chosen."""
        while True:
            if (open_question := left()) is not None:
                return open_question
            round_ = len(self._store.rounds())
            if (choice := choose()) is None:
                return None
            try:
                return self._store.ask(
                    choice.ids, round=round_, scores=choice.gains, origin=choice.origin, again=choice.again
                )
            except LabelError:
                if len(self._store.rounds()) == round_:
                    raise  # otherwise somebody asked while this was chosen

    @property
    def ranks(self) -> bool:
        """Are the highest scores all there is to the choice?"""
        return kind_of(self.config.method) == "rank"

    def _labels(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        return known(self._store, self.ways.rule)

    def two_classes(self, what: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What can be learned; LabelError that names what cannot be had where no model can be trained on it."""
        ids, labels = self._labels()
        if (n := len(np.unique(labels))) < 2:
            raise LabelError(
                f"{n} of {len(self.classes)} classes have labels; {what} needs two at least: ask and tell some more"
            )
        return ids, labels

    # --- files ---------------------------------------------------------------------------------------------------------------

    def write(self, batch: Batch, path: str | Path, format: str | None = None) -> None:
        """Write a question to be answered: a table, a folder to sort, the tasks of a labelling tool (`svp.exchange`)."""
        files.write_question(self, batch, Path(path), format)

    def export(self, path: str | Path) -> int:
        """Write the labelled examples as .csv, .jsonl or .parquet; returns how many there are.

        SettingError for a file with answers that nobody told yet.
        """
        files.refuse_untold(self, Path(path))
        return files.write_labelled(self, Path(path), files.labelled_rows(self))

    def export_history(self, path: str | Path) -> int:
        """Write every event as a JSON object a line: what `Session.restore` makes a session of. Returns how many there are."""
        return files.write_history(self, Path(path))

    # --- the data, read when it is first needed ------------------------------------------------------------------------------

    @property
    def dataset(self) -> Dataset:
        """The pool: of a session with people, all that is here as it was first seen."""
        return self.rounds.dataset

    @property
    def of_photos(self) -> bool:
        """Are the examples the photos in a folder?"""
        return are_photos(self.config)

    @property
    def is_read(self) -> bool:
        """Have the data been read?"""
        return self._made is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class number; they can grow."""
        return self._store.classes

    @property
    def store(self) -> LabelStore:
        """Questions and answers."""
        return self._store

    @property
    def rounds(self) -> Rounds:
        """What is trained and chosen on the data."""
        if self._made is None:
            dataset = data_of(self.config, self._store.classes, self._show)
            run = Run.start(self.folder, self.config, dataset, accept_code_change=self._accept, may_grow=True)
            with run:
                return self._take(run, dataset)
        return self._made

    def _take(self, run: Run, dataset: Dataset) -> Rounds:
        """Work on this data from now on: with people, on what of it is as it was first seen, with all classes."""
        if self.ways.grows:
            if self._made is None:
                dataset, self.noticed = join(dataset, self._store)
            dataset = replace(dataset, classes=self._store.classes)
        run.newest_event = self._store.newest
        self._made = Rounds(Work(run, dataset, self.config.compute, self._show), self.config, self.ways, self._store)
        return self._made

    def unasked(self) -> NDArray[np.int64]:
        """Ids of what was never asked, ascending: as the label store numbers them, where the data are not read."""
        return self.rounds.unasked() if self.is_read else self._store.unasked()

    @property
    def n_examples(self) -> int:
        """How many there are, asked for or not."""
        numbered = self._store.n_examples()
        return numbered - len(self._store.left_out()) if numbered else len(self.dataset)

    @property
    def n_held_out(self) -> int:
        """How many examples are the test part, which labelled data bring or have held out: nobody is asked about it."""
        place = self.folder / ENVIRONMENT  # missing after a restore, until the data are read
        return int(read_record(place, "dataset")["dataset"]["n_test"]) if place.exists() else 0

    # --- what is known ---------------------------------------------------------------------------------------------------------

    def status(self) -> dict[str, Any]:
        """Counts in plain values: labelled, unlabelled, per class, per round, and what is still asked.

        With people also who said how much, how far they agree, what is left out and why, and whether labelling may stop.
        """
        ids, labels = self._labels()
        open_question = self._store.open_question()
        return {
            "labelled": len(ids),
            "unlabelled": self.n_examples - len(ids),
            "held_out": self.n_held_out,
            "open": 0 if open_question is None else len(open_question),
            "per_class": {name: int((labels == c).sum()) for c, name in enumerate(self._store.classes)},
            "rounds": [
                {"round": r.round, "asked": r.asked, "answered": r.answered, "origin": r.origin}
                for r in self._store.rounds()
            ],
            **(facts_of(self._store, self.ways.rule) if self.ways.grows else {}),
            **(judging.advice(self) if self.ways.grows else {}),
        }

    def guesses(self, ids: NDArray[np.int64]) -> dict[int, tuple[int, float]]:
        """What the last finished proxy takes examples for, with its probability; of those alone that it has scored."""
        return guesses(self.folder, ids, self._labels()) if self.ranks else {}

    def labelled(self, n: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(m,) ids in ascending order and their labels: all, or those known after the round in which `n` were reached."""
        if n is None:
            return self._labels()
        total = 0
        for asked in self._store.rounds():
            total += asked.asked
            if total == n:
                return known(self._store, self.ways.rule, asked.round)
        raise DataError(f"no round of {self.folder} ended with {n} labels")

    def fit(self, n: int | None = None) -> Fitted:
        """The session's own model, trained on the labels so far or on the first `n`; a round's model where it is the same."""
        ids, labels = self.labelled(n)
        total, round_ = 0, 0
        for asked in self._store.rounds():
            if asked.origin == SECOND_LOOK:  # of what was counted before
                continue
            total, round_ = total + asked.asked, round_ + 1
            if total == len(ids):
                break
        with self.rounds.held("fit"):
            return self.rounds.fit(round_, ids, labels, 1)[0]

    def asked(self, n: int) -> Selection:
        """The first `n` examples asked for, in order, as a selection. Raises BudgetError where there are fewer."""
        return hindsight.asked(self, n)
