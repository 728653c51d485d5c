"""A labelling effort: ask for labels, be told them, retrain, ask again. The only active-learning loop there is."""

from collections.abc import Mapping, Sequence
from numbers import Integral
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svp.config import PREVIOUS, RunConfig
from svp.data import load
from svp.data.base import Dataset
from svp.errors import BudgetError, DataError
from svp.files import digest
from svp.labels import Answer, Batch, LabelStore, Round
from svp.runs import DONE, PARTS, Run
from svp.select import Cover, Selection, find_method, resolve_budget, select
from svp.workflows.begin import settled
from svp.workflows.check import check_arguments, check_needs, refuse_options
from svp.workflows.features import Features
from svp.workflows.outcomes import Fitted, Show, silent
from svp.workflows.work import Work, model_seed


class Session:
    """A folder with the label store (labels.sqlite) and the models of each round.

    `ask` and `tell` are all there is to the loop; a simulation answers with an oracle, people with their own words. A session
    that was closed or killed goes on where it stopped: an open question is asked again, a round's training continues.
    The dataset is taken without its labels, so nothing here can peek.
    """

    def __init__(self, run: Run, config: RunConfig, dataset: Dataset, store: LabelStore, show: Show) -> None:
        self.config, self.dataset, self._run, self._store = config, dataset, run, store
        self._work = Work(run, dataset, config.compute, show)

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
        """A new session, or the one that is in `folder` already if it was made with the same settings and data."""
        check_arguments("a session", RunConfig, config, dataset)
        config = settled(config, "proxy")
        dataset = (load(config, show) if dataset is None else dataset).without_labels()
        check_needs(config, dataset, trained_on_all=False)
        refuse_options(config, len(dataset))
        run = Run.start(Path(folder), config, dataset, reuse=reuse, accept_code_change=accept_code_change)
        try:
            path = run.folder / "labels.sqlite"
            store = LabelStore.open(path) if path.exists() else LabelStore.create(path, dataset.classes)
        except BaseException:
            run.close()
            raise
        return cls(run, config, dataset, store, show)

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
        path = Path(folder) / "config.toml"
        if not (Path(folder) / "labels.sqlite").exists():
            raise DataError(f"{folder} holds no session (labels.sqlite is missing); Session.create makes one")
        return cls.create(folder, RunConfig.load(path), dataset, accept_code_change=accept_code_change, show=show)

    def close(self) -> None:
        self._store.close()
        self._run.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def ask(self, n: int | str) -> Batch:
        """Which `n` examples to label next: stored before it is returned. While a question is open, what is left of it.

        The first question is drawn at random, and so is every one until two classes have labels: before that no model can be
        trained to tell them apart. Later ones are chosen by the proxy, trained on the labels so far from scratch.
        Raises BudgetError when there are fewer than n left. Cost: a training, a pass over the pool, and the method's own.
        """
        if (open_question := self._store.open_question()) is not None:
            return open_question
        ids, labels = self._store.labels()
        pool = np.setdiff1d(self.dataset.ids, ids, assume_unique=True)
        try:
            budget = resolve_budget(n, len(pool))
        except BudgetError as error:
            raise BudgetError(f"{error} ({len(ids):,} of {len(self.dataset):,} are labelled already)") from None
        if not budget:
            raise BudgetError(f"ask for one example at least; {len(pool):,} are unlabelled")
        round_ = len(self._store.rounds())
        if len(known := np.unique(labels)) < 2:
            origin = "random start"
            if len(known):
                origin = f"random, as all {len(ids):,} labels so far are {self.dataset.classes[known[0]]}"
                self._run.event("drawn at random", round=round_, why=origin)
                self._work.show(f"asking for {budget:,} at {origin}", 0, 0)
            start = select("random", budget, ids=pool, seed=self.config.seed)
            return self._store.ask(start.ids, round=round_, origin=origin)
        refuse_options(self.config, len(pool), budget)
        _, row = find_method(self.config.method)
        covers = isinstance(row, Cover)
        chosen = self._work.choose(
            f"{_round_folder(round_, ids, labels)}/selection",
            self._fit(round_, ids, labels, self.config.proxy.seeds) if row.asks_model else [],
            self.dataset.ids if covers else pool,
            None,
            budget,
            method=self.config.method,
            options=self.config.options,
            seed=self.config.seed,
            already=ids if covers else (),
        )
        return self._store.ask(
            chosen.selection.ids, round=round_, scores=chosen.selection.gains, origin=self.config.method
        )

    def tell(self, answers: Mapping[int, int] | Sequence[Answer], *, who: str = "oracle", replace: bool = False) -> int:
        """Store answers, all of them or (on an error) none; returns how many were new. They are safe once this returns."""
        return self._store.tell(answers, who=who, replace=replace)

    def labelled(self, n: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """(m,) ids in ascending order and their labels: all, or those known after the round in which `n` were reached."""
        if n is None:
            return self._store.labels()
        total = 0
        for asked in self._store.rounds():
            total += asked.asked
            if total == n:
                return self._store.labelled_after(asked.round)
        raise DataError(f"no round of {self._run.folder} ended with {n} labels")

    def asked(self, n: int) -> Selection:
        """The first `n` examples asked for, in order, as a selection. Raises BudgetError where there are fewer."""
        batches = [entry for entry in self._store.history() if isinstance(entry, Batch)]
        total = sum(map(len, batches))
        if not (isinstance(n, Integral) and 0 <= n <= total):
            raise BudgetError(
                f"{self._run.folder} has asked for {total:,} examples so far; give a number up to that, not {n!r}"
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
        return self._fit(round_, ids, labels, 1)[0]

    def target(self, n: int) -> Fitted | None:
        """The target on the first `n` labels, where a proxy on its features has had it trained; else None."""
        ids, labels = self.labelled(n)
        folders = {_round_folder(asked.round + 1, ids, labels) for asked in self._store.rounds()}
        done = [folder for folder in folders if (self._run.folder / folder / "target" / DONE).exists()]
        if not done:
            return None
        return self._work.train(f"{done[0]}/target", self.config.target, ids, labels, self.config.seed)

    def features(self) -> Features | None:
        """The frozen features by which the last question was chosen; None where it was drawn, or the proxy sees the inputs."""
        asked = [r for r in self._store.rounds() if r.origin == self.config.method]
        if not asked or not find_method(self.config.method)[1].asks_model:
            return None
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
            stages = [*self._run.folder.glob(f"rounds/{asked.round:03d}-*/*")]
            if stages and not any(seconds.values()):
                stages += self._run.folder.glob("features/*")  # made once, for the first round that is no draw
            for stage in stages:
                for part, took in self._run.seconds(str(stage.relative_to(self._run.folder))).items():
                    seconds[part] += took
        return seconds

    def status(self) -> dict[str, Any]:
        """Counts in plain values: labelled, unlabelled, per class, per round, and what is still asked."""
        ids, labels = self._store.labels()
        open_question = self._store.open_question()
        rounds: list[Round] = self._store.rounds()
        return {
            "labelled": len(ids),
            "unlabelled": len(self.dataset) - len(ids),
            "open": 0 if open_question is None else len(open_question),
            "per_class": {name: int((labels == c).sum()) for c, name in enumerate(self.dataset.classes)},
            "rounds": [
                {"round": r.round, "asked": r.asked, "answered": r.answered, "origin": r.origin} for r in rounds
            ],
        }

    def _fit(self, round_: int, ids: NDArray[np.int64], labels: NDArray[np.int64], n_models: int) -> list[Fitted]:
        features = self._previous(round_) if self.config.proxy.features.source == PREVIOUS else None
        return [
            self._work.train(
                f"{_round_folder(round_, ids, labels)}/model-{i}",
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
            ids, labels = self._store.labelled_after(asked)
            if len(np.unique(labels)) > 1:
                break
        folder = _round_folder(asked + 1, ids, labels)
        target = self._work.train(f"{folder}/target", self.config.target, ids, labels, self.config.seed)
        return self._work.features_of(f"{folder}/features", target)


def _round_folder(round_: int, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
    """Where a round is trained and chosen; other labels (a correction, one more answer) make it another folder."""
    return f"rounds/{round_:03d}-{digest(ids, labels)[:8]}"
