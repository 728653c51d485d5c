"""A labelling effort: ask for labels, be told them, retrain, ask again. The only active-learning loop there is."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svp.config import PREVIOUS, RunConfig, SessionConfig, read_toml
from svp.data import load, unlabelled
from svp.data.base import Dataset
from svp.errors import BudgetError, DataError, FolderInUse, LabelError, SettingError
from svp.files import digest
from svp.labels import Answer, Batch, Kind, LabelStore, Round, Rule, Undone
from svp.runs import DONE, PARTS, Run
from svp.select import Cover, Selection, find_method, resolve_budget, select
from svp.workflows import files
from svp.workflows.begin import settled
from svp.workflows.check import check_arguments, check_needs, refuse_options
from svp.workflows.features import Features
from svp.workflows.outcomes import Fitted, Ranked, Show, kind_of, silent
from svp.workflows.people import best, facts_of, guesses, last_scores, prepared, refuse_words
from svp.workflows.pool import join
from svp.workflows.work import Work, model_seed

STORE = "labels.sqlite"


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
        self.config, self.folder = config, folder
        self.noticed: Mapping[str, tuple[str, ...]] = {}  # keys that are new in the data, or left out, and why
        self._store, self._show, self._accept = store, show, accept_code_change
        self._made: Work | None = None

    @classmethod
    def create(
        cls,
        folder: str | Path,
        config: RunConfig,
        dataset: Dataset | None = None,
        *,
        accept_code_change: bool = False,
        reuse: Sequence[Path] = (),
        show: Show = silent,
    ) -> Self:
        """A new session, or the one that is in `folder` already if it was made with the same settings and data.

        config  a SessionConfig for people, a RunConfig for a simulation
        """
        kind = SessionConfig if isinstance(config, SessionConfig) else RunConfig
        check_arguments("a session", kind, config, dataset)
        folder, config = Path(folder), settled(config, "proxy")
        if isinstance(config, SessionConfig):
            config, dataset = prepared(folder, config, dataset, show)
        dataset = (load(config, show) if dataset is None else dataset).without_labels()
        check_needs(config, dataset, trained_on_all=False)
        refuse_options(config, len(dataset))
        grows = isinstance(config, SessionConfig)
        run = Run.start(folder, config, dataset, reuse=reuse, accept_code_change=accept_code_change, may_grow=grows)
        with run:
            path = folder / STORE
            store = LabelStore.open(path) if path.exists() else LabelStore.create(path, dataset.classes)
            session = cls(folder, config, store, show, accept_code_change=accept_code_change)
            session._take(run, dataset)
        return session

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
            raise DataError(f"{folder} holds no session ({STORE} is missing); Session.create makes one")
        values = read_toml(folder / "config.toml")
        kind = SessionConfig if "rule" in values else RunConfig
        config = kind.make(values)
        if dataset is None and kind is SessionConfig:
            return cls(folder, config, LabelStore.open(folder / STORE), show, accept_code_change=accept_code_change)
        return cls.create(folder, config, dataset, accept_code_change=accept_code_change, show=show)

    def close(self) -> None:
        self._store.close()
        if self._made is not None:
            self._made.run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    # --- the loop ----------------------------------------------------------------------------------------------------------

    def ask(self, n: int | str, *, now: bool = False) -> Batch:
        """Which `n` examples to label next: stored before it is returned. While a question is open, what is left of it.

        The first question is drawn at random (with people and frozen features: by `start`), and so is every one until two classes
        have labels: before that no model can be trained to tell them apart. Later ones are chosen by the proxy, trained on the
        labels so far from scratch; examples on which people are divided come first, once more.
        now  train nothing: choose by the last finished scores, where there are any and the method ranks. While another
             process is training, that is done anyway; `origin` says so
        Raises BudgetError when there are fewer than n left. Cost: a training, a pass over the pool, and the method's own.
        """
        if now and (batch := self._ask_meanwhile(n)) is not None:
            return batch
        try:
            with self._held():
                return self._ask(n)
        except FolderInUse:
            if (batch := self._ask_meanwhile(n)) is None:
                raise
            return batch

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
        """Take back the last tell (of `who`); the history keeps it. What somebody has changed since stays as it is."""
        return self._store.undo(who)

    def add_classes(self, names: Sequence[str]) -> tuple[str, ...]:
        """Classes that nobody thought of before; returns all. Proxies trained from now on know them."""
        refuse_words(names)
        added = self._store.add_classes(names)
        if self._made is not None:
            self._take(self._made.run, self.dataset)
        return added

    def train(self) -> bool:
        """Train the proxy on the labels so far, and score the pool, so that the next `ask` need not. Killed, it goes on.

        Returns whether there was something to train for: labels of two classes, a method that asks a model, a pool.
        """
        with self._held():
            ids, labels = self._labels()
            asks_model = find_method(self.config.method)[1].asks_model
            if len(np.unique(labels)) < 2 or not asks_model or not len(self._unasked()):
                return False
            if self._ranks:
                self._ranked(ids, labels)
            else:
                self._fit(len(self._store.rounds()), ids, labels, self.config.proxy.seeds)
            return True

    def finish(self) -> Finished:
        """Train the target on the labels so far, and write what it makes of everything; the session can go on after it.

        The labelled set goes to `labelled.csv`, what the target takes the rest for to `predicted.csv`, both in the folder. Raises
        LabelError until two classes have labels.
        """
        with self._held():
            ids, labels = self._labels()
            if len(np.unique(labels)) < 2:
                raise LabelError(
                    f"{len(np.unique(labels))} of {len(self.classes)} classes have labels; the target needs two at least"
                )
            name = f"final/{self._digest(ids, labels)[:8]}/target"
            fitted = self._work.train(name, self.config.target, ids, labels, self.config.seed)
            files.write_labelled(self, self.folder / "labelled.csv")
            rest = np.setdiff1d(self.dataset.ids, ids, assume_unique=True)
            files.write_predicted(self, self.folder / "predicted.csv", fitted, rest)
        return Finished(fitted, self.folder / "labelled.csv", self.folder / "predicted.csv", len(ids), len(rest))

    def _ask(self, n: int | str) -> Batch:
        if (open_question := self._store.open_question()) is not None:
            return open_question
        ids, labels = self._labels()
        pool, ties = self._unasked(), self._ties()
        budget = self._budget(n, pool, len(ids), may_be_none=bool(ties))
        round_ = len(self._store.rounds())
        gains = None
        if not budget:
            chosen, origin = pool[:0], "people are divided"
        elif len(np.unique(labels)) < 2:
            chosen, origin = self._start(budget, pool, labels, round_)
        elif self._ranks and isinstance(self.config, SessionConfig):
            ranked = self._ranked(ids, labels)
            chosen, gains = best(self.config, ranked, pool, budget, self.dataset if self.config.diverse else None)
            origin = self.config.method
        else:
            selection = self._chosen(ids, labels, pool, budget).selection
            chosen, gains, origin = selection.ids, selection.gains, self.config.method
        try:
            return self._store.ask(chosen, round=round_, scores=gains, origin=origin, again=ties)
        except LabelError:
            if len(self._store.rounds()) == round_:
                raise
            return self._ask(n)  # somebody asked while this was trained

    def _budget(self, n: int | str, pool: NDArray[np.int64], n_labelled: int, *, may_be_none: bool) -> int:
        if may_be_none and not len(pool):
            return 0
        try:
            budget = resolve_budget(n, len(pool))
        except BudgetError as error:
            n_all = self._n_examples()
            raise BudgetError(f"{error} ({n_labelled:,} of {n_all:,} are labelled already)") from None
        if not budget:
            raise BudgetError(f"ask for one example at least; {len(pool):,} are unlabelled")
        return budget

    def _start(
        self, budget: int, pool: NDArray[np.int64], labels: NDArray[np.int64], round_: int
    ) -> tuple[NDArray[np.int64], str]:
        """What to ask while no model can be trained, and how that was chosen."""
        origin = "random start"
        if len(labels):
            origin = f"random, as all {len(labels):,} labels so far are {self.dataset.classes[labels[0]]}"
            self._run.event("drawn at random", round=round_, why=origin)
            self._show(f"asking for {budget:,} at {origin}", 0, 0)
        method = self.config.start if isinstance(self.config, SessionConfig) else "random"
        features = None if method == "random" or not budget else self._start_features()
        if features is None:
            return select("random", budget, ids=pool, seed=self.config.seed).ids, origin
        method = "typiclust" if method == "auto" else method
        known = np.setdiff1d(self.dataset.ids, pool, assume_unique=True)
        inputs = features.seen.inputs
        first = select(method, budget, embeddings=inputs, ids=self.dataset.ids, already=known, seed=self.config.seed)
        return first.ids, f"{method}, as two classes have no labels yet"

    def _start_features(self) -> Features | None:
        """Embeddings that are there before anything is trained; None where there are none."""
        if self.config.proxy.features.source in (None, PREVIOUS):
            if isinstance(self.config, SessionConfig) and self.config.start != "auto":
                raise SettingError(
                    f"start = {self.config.start!r} needs embeddings, and the proxy sees the inputs; name some "
                    "(proxy.features.source), or leave start at auto"
                )
            return None
        return self._work.features(self.config.proxy)

    def _chosen(
        self, ids: NDArray[np.int64], labels: NDArray[np.int64], pool: NDArray[np.int64], budget: int
    ) -> Ranked:
        """Stage: what the configured method takes from the pool, by the proxy trained on these labels."""
        refuse_options(self.config, len(pool), budget)
        round_ = len(self._store.rounds())
        _, row = find_method(self.config.method)
        covers = isinstance(row, Cover)
        # People may ask for another number when they were interrupted.
        own = f"-{budget}" if isinstance(self.config, SessionConfig) and not self._ranks else ""
        return self._work.choose(
            f"{self._round_folder(round_, ids, labels)}/selection{own}",
            self._fit(round_, ids, labels, self.config.proxy.seeds) if row.asks_model else [],
            np.union1d(pool, ids) if covers else pool,
            None,
            budget,
            method=self.config.method,
            options=self.config.options,
            seed=self.config.seed,
            already=ids if covers else (),
        )

    # --- files ---------------------------------------------------------------------------------------------------------------

    def write(self, batch: Batch, path: str | Path, format: str | None = None) -> None:
        """Write a question to be answered: a table, a folder to sort, the tasks of a labelling tool (`svp.exchange`)."""
        files.write_question(self, batch, Path(path), format)

    def export(self, path: str | Path) -> int:
        """Write the labelled examples as .csv, .jsonl or .parquet; returns how many there are."""
        return files.write_labelled(self, Path(path))

    def export_history(self, path: str | Path) -> int:
        """Write every event as a JSON object a line: what `Session.restore` makes a session of. Returns how many there are."""
        return files.write_history(self, Path(path))

    @classmethod
    def restore(cls, folder: str | Path, history: str | Path) -> Self:
        """A session from what `export_history` wrote, where its folder or its label store is lost; proxies are trained again.

        Raises DataError for a history that is not as it was written, StorageError where there is a label store.
        """
        files.restore(Path(folder), Path(history))
        return cls.open(folder)

    # --- with people -------------------------------------------------------------------------------------------------------

    @property
    def _ranks(self) -> bool:
        """Are the highest scores all there is to the choice?"""
        return kind_of(self.config.method) == "rank"

    def _ranked(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> Ranked:
        """Stage: scores of all that was not asked, by the proxy trained on these labels."""
        return self._chosen(ids, labels, self._unasked(), 1)

    def _unasked(self) -> NDArray[np.int64]:
        """Ids of what is here and was never asked, ascending."""
        return np.setdiff1d(self.dataset.ids, self._store.asked(), assume_unique=True)

    def _ask_meanwhile(self, n: int | str) -> Batch | None:
        """An answer without a training and without holding the folder; None where there are no scores to answer from."""
        if (open_question := self._store.open_question()) is not None:
            return open_question
        last = last_scores(self.folder) if self._ranks else None
        if last is None:
            return None
        ranked, round_ = Ranked.read(last[0]), len(self._store.rounds())
        asked = self._store.asked()
        pool = np.setdiff1d(np.asarray(ranked.ids), np.union1d(asked, list(self._store.left_out())), assume_unique=True)
        ties = self._ties()
        budget = self._budget(n, pool, len(self._labels()[0]), may_be_none=bool(ties))
        diverse = isinstance(self.config, SessionConfig) and self.config.diverse and self.is_read
        chosen, gains = best(self.config, ranked, pool, budget, self.dataset if diverse else None)
        origin = f"{self.config.method}, by the scores of round {last[1]}"
        try:
            return self._store.ask(chosen, round=round_, scores=gains, origin=origin, again=ties)
        except LabelError:
            if len(self._store.rounds()) == round_:
                raise
            return self._ask_meanwhile(n)  # somebody asked at the same moment

    def guesses(self, ids: NDArray[np.int64]) -> dict[int, tuple[int, float]]:
        """What the last finished proxy takes examples for, with its probability; of those alone that it has scored."""
        return guesses(self.folder, ids) if self._ranks else {}

    def _ties(self) -> list[int]:
        """On which examples people are divided, as many saying one thing as another."""
        left_out = self._store.left_out()
        return [s.id for s in self._store.standings(self._rule) if s.kind == "tie" and s.id not in left_out]

    @property
    def _rule(self) -> Rule:
        return self.config.rule if isinstance(self.config, SessionConfig) else "majority"

    # --- the data, read when it is first needed ------------------------------------------------------------------------------

    @property
    def dataset(self) -> Dataset:
        """The pool: of a session with people, all that is here as it was first seen."""
        return self._work.dataset

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
    def _work(self) -> Work:
        if self._made is None:
            assert isinstance(self.config, SessionConfig)
            dataset = unlabelled.load(self.config, self.config.classes, self._show)
            run = Run.start(self.folder, self.config, dataset, accept_code_change=self._accept, may_grow=True)
            with run:
                self._take(run, dataset)
        assert self._made is not None
        return self._made

    @property
    def _run(self) -> Run:
        return self._work.run

    @contextmanager
    def _held(self) -> Iterator[None]:
        with self._run.held():
            yield

    def _take(self, run: Run, dataset: Dataset) -> None:
        """Work on this data from now on: with people, on what of it is as it was first seen, with all classes."""
        if isinstance(self.config, SessionConfig):
            if self._made is None:
                dataset, self.noticed = join(dataset, self._store)
            dataset = replace(dataset, classes=self._store.classes)
        self._made = Work(run, dataset, self.config.compute, self._show)

    def _labels(self, round_: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What can be learned: the labels (known after a round) of examples that are here."""
        rule = self._rule
        ids, labels = self._store.labels(rule) if round_ is None else self._store.labelled_after(round_, rule)
        if left_out := self._store.left_out():
            here = ~np.isin(ids, list(left_out))
            ids, labels = ids[here], labels[here]
        return ids, labels

    def _n_examples(self) -> int:
        known = self._store.n_examples() if isinstance(self.config, SessionConfig) else 0
        return known - len(self._store.left_out()) if known else len(self.dataset)

    def _digest(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
        """What was known: with people the pool and the classes count too, which may grow."""
        grown = (self.dataset.fingerprint,) if isinstance(self.config, SessionConfig) else ()
        return digest(ids, labels, *grown)

    def _round_folder(self, round_: int, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
        """Where a round is trained and chosen; other labels (a correction, one more answer) make it another folder."""
        return f"rounds/{round_:03d}-{self._digest(ids, labels)[:8]}"

    # --- what is known ---------------------------------------------------------------------------------------------------------

    def labelled(self, n: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(m,) ids in ascending order and their labels: all, or those known after the round in which `n` were reached."""
        if n is None:
            return self._labels()
        total = 0
        for asked in self._store.rounds():
            total += asked.asked
            if total == n:
                return self._labels(asked.round)
        raise DataError(f"no round of {self.folder} ended with {n} labels")

    def asked(self, n: int) -> Selection:
        """The first `n` examples asked for, in order, as a selection. Raises BudgetError where there are fewer."""
        batches = list(self._questions())
        total = sum(map(len, batches))
        if not (isinstance(n, Integral) and 0 <= n <= total):
            raise BudgetError(
                f"{self.folder} has asked for {total:,} examples so far; give a number up to that, not {n!r}"
            )
        gains = [np.full(len(b), np.nan) if b.scores is None else b.scores for b in batches]
        return Selection(
            ids=np.concatenate([np.zeros(0, np.int64), *(b.ids for b in batches)])[:n],
            gains=np.concatenate([np.zeros(0), *gains])[:n],
            weights=np.ones(n),
            method=self.config.method,
            options=self.config.options,
            seed=self.config.seed,
        )

    def fit(self, n: int | None = None) -> Fitted:
        """The session's own model, trained on the labels so far or on the first `n`; a round's model where it is the same."""
        ids, labels = self.labelled(n)
        total, round_ = 0, 0
        for asked in self._store.rounds():
            total, round_ = total + asked.asked, asked.round + 1
            if total == len(ids):
                break
        with self._held():
            return self._fit(round_, ids, labels, 1)[0]

    def target(self, n: int) -> Fitted | None:
        """The target on the first `n` labels, where a proxy on its features has had it trained; else None."""
        ids, labels = self.labelled(n)
        folders = {self._round_folder(asked.round + 1, ids, labels) for asked in self._store.rounds()}
        done = [folder for folder in folders if (self.folder / folder / "target" / DONE).exists()]
        if not done:
            return None
        with self._held():
            return self._work.train(f"{done[0]}/target", self.config.target, ids, labels, self.config.seed)

    def features(self) -> Features | None:
        """The frozen features by which the last question was chosen; None where it was drawn, or the proxy sees the inputs."""
        asked = [r for r in self._store.rounds() if r.origin == self.config.method]
        if not asked or not find_method(self.config.method)[1].asks_model:
            return None
        with self._held():
            if self.config.proxy.features.source == PREVIOUS:
                return self._previous(asked[-1].round)
            return self._work.features(self.config.proxy)

    def drawn(self) -> NDArray[np.int64]:
        """Ids that were asked for at random, by no model."""
        chosen = {r.round for r in self._store.rounds() if r.origin == self.config.method}
        batches = [b.ids for b in self._store.history() if isinstance(b, Batch) and b.round not in chosen]
        return np.concatenate([np.zeros(0, np.int64), *batches])

    def selection_seconds(self, n: int) -> dict[str, float]:
        """Seconds to train, score and select up to `n` labels, counted as Coleman et al. 2020 do: without the training that
        would follow the last answer."""
        seconds, total = dict.fromkeys(PARTS.values(), 0.0), 0
        for asked in self._store.rounds():
            if total >= n:
                break
            total += asked.asked
            stages = [*self.folder.glob(f"rounds/{asked.round:03d}-*/*")]
            if stages and not any(seconds.values()):
                stages += self.folder.glob("features/*")  # made once, for the first round that is no draw
            for stage in stages:
                for part, took in self._run.seconds(str(stage.relative_to(self.folder))).items():
                    seconds[part] += took
        return seconds

    def status(self) -> dict[str, Any]:
        """Counts in plain values: labelled, unlabelled, per class, per round, and what is still asked.

        With people also who said how much, how far they agree, and what is left out and why.
        """
        ids, labels = self._labels()
        open_question = self._store.open_question()
        rounds: list[Round] = self._store.rounds()
        return {
            "labelled": len(ids),
            "unlabelled": self._n_examples() - len(ids),
            "open": 0 if open_question is None else len(open_question),
            "per_class": {name: int((labels == c).sum()) for c, name in enumerate(self._store.classes)},
            "rounds": [
                {"round": r.round, "asked": r.asked, "answered": r.answered, "origin": r.origin} for r in rounds
            ],
            **(facts_of(self._store, self._rule) if isinstance(self.config, SessionConfig) else {}),
        }

    def _questions(self) -> Iterator[Batch]:
        """What was asked, in order, each example once: when it was first asked."""
        seen = np.zeros(0, np.int64)
        for entry in self._store.history():
            if isinstance(entry, Batch):
                new = ~np.isin(entry.ids, seen)
                scores = None if entry.scores is None else entry.scores[new]
                yield entry if new.all() else replace(entry, ids=entry.ids[new], scores=scores)
                seen = np.concatenate([seen, entry.ids])

    def _fit(self, round_: int, ids: NDArray[np.int64], labels: NDArray[np.int64], n_models: int) -> list[Fitted]:
        features = self._previous(round_) if self.config.proxy.features.source == PREVIOUS else None
        return [
            self._work.train(
                f"{self._round_folder(round_, ids, labels)}/model-{i}",
                self.config.proxy,
                ids,
                labels,
                model_seed(self.config.seed, i),
                features,
            )
            for i in range(n_models)
        ]

    def _previous(self, round_: int) -> Features:
        """Features of the target as it was a round before: trained on what was labelled when the question before was asked.

        So it can be trained while people still answer that question. Where there was none before, or its labels were of one
        class, it is trained on the first labels that are of two.
        """
        for asked in range(max(0, round_ - 2), round_):
            ids, labels = self._labels(asked)
            if len(np.unique(labels)) > 1:
                break
        folder = self._round_folder(asked + 1, ids, labels)
        target = self._work.train(f"{folder}/target", self.config.target, ids, labels, self.config.seed)
        return self._work.features_of(f"{folder}/features", target)
