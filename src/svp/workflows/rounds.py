"""What is trained and chosen in the rounds of a session: stages in its folder, each named by what was known when it was made."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svp.config import PREVIOUS, RunConfig
from svp.data.base import Dataset
from svp.files import digest
from svp.labels import LabelStore
from svp.runs import DONE
from svp.select import Cover, find_method, select
from svp.workflows.check import refuse_options
from svp.workflows.features import Features
from svp.workflows.outcomes import Fitted, Ranked, kind_of
from svp.workflows.people import AT_RANDOM, SECOND_LOOK, Ways, known
from svp.workflows.ranking import How, Pool
from svp.workflows.stopping import fold_of
from svp.workflows.work import Work, model_seed


class Rounds:
    """The models of one session and what they choose, on the data as they are now."""

    def __init__(self, work: Work, config: RunConfig, ways: Ways, store: LabelStore) -> None:
        self.work = work
        self._config, self._ways, self._store = config, ways, store

    @property
    def dataset(self) -> Dataset:
        return self.work.dataset

    @property
    def folder(self) -> Path:
        return self.work.run.folder

    @contextmanager
    def held(self, doing: str) -> Iterator[None]:
        """Nobody else trains in the folder meanwhile; classes that another process has added are known.

        Raises FolderInUse, with what is being done, where somebody does.
        """
        with self.work.run.held(doing):
            if self._ways.grows and self.dataset.classes != (classes := self._store.classes):
                self.work = self.work.on(replace(self.dataset, classes=classes))
            yield

    def labels(self, round_: int | None = None) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """What can be learned now; or of what was asked up to a round."""
        return known(self._store, self._ways.rule, round_)

    def unasked(self) -> NDArray[np.int64]:
        """Ids of what is here and was never asked, ascending."""
        return np.setdiff1d(self.dataset.ids, self._store.asked(), assume_unique=True)

    @property
    def next(self) -> int:
        """The number of the round that would be asked now; a second look at labels is none."""
        return sum(r.origin != SECOND_LOOK for r in self._store.rounds())

    def digest(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
        """What was known: where the pool may grow, it and the classes count too."""
        return digest(ids, labels, *((self.dataset.fingerprint,) if self._ways.grows else ()))

    def name(self, round_: int, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> str:
        """Where a round is trained and chosen; other labels (a correction, one more answer) make it another folder."""
        return f"rounds/{round_:03d}-{self.digest(ids, labels)[:8]}"

    # --- choosing ------------------------------------------------------------------------------------------------------------

    def start(
        self, budget: int, pool: NDArray[np.int64], labels: NDArray[np.int64], round_: int
    ) -> tuple[NDArray[np.int64], str]:
        """What to ask while no model can be trained, and how that was chosen."""
        origin = f"{AT_RANDOM} start"
        if len(labels):
            origin = f"{AT_RANDOM}, as all {len(labels):,} labels so far are {self.dataset.classes[labels[0]]}"
            self.work.run.event("drawn at random", round=round_, why=origin)
            self.work.show(f"asking for {budget:,} at {origin}", 0, 0)
        method = self._ways.start
        features = None if method == "random" or not budget else self._start_features()
        if features is None:
            return select("random", budget, ids=pool, seed=self._config.seed).ids, origin
        method = "typiclust" if method == "auto" else method
        asked = np.setdiff1d(self.dataset.ids, pool, assume_unique=True)
        inputs = features.seen.inputs
        first = select(method, budget, embeddings=inputs, ids=self.dataset.ids, already=asked, seed=self._config.seed)
        return first.ids, f"{method}, as two classes have no labels yet"

    def _start_features(self) -> Features | None:
        """Embeddings that are there before anything is trained; None where there are none."""
        none = self._config.proxy.features.source in (None, PREVIOUS)
        return None if none else self.work.features(self._config.proxy)

    def ranked(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> Ranked:
        """Stage: scores of all that was not asked, by the proxy trained on these labels."""
        return self.chosen(ids, labels, self.unasked(), 1)

    def chosen(self, ids: NDArray[np.int64], labels: NDArray[np.int64], pool: NDArray[np.int64], budget: int) -> Ranked:
        """Stage: what the configured method takes from the pool, by the proxy trained on these labels."""
        refuse_options(self._config, len(pool), budget)
        _, row = find_method(self._config.method)
        covers = isinstance(row, Cover)
        # People may ask for another number when they were interrupted.
        own = f"-{budget}" if self._ways.at_once and kind_of(self._config.method) != "rank" else ""
        return self.work.choose(
            f"{self.name(self.next, ids, labels)}/selection{own}",
            self.fit(self.next, ids, labels, self._config.proxy.seeds) if row.asks_model else [],
            Pool(np.union1d(pool, ids), already=ids) if covers else Pool(pool),
            How(self._config.method, self._config.options, budget, self._config.seed),
        )

    # --- training ------------------------------------------------------------------------------------------------------------

    def fit(self, round_: int, ids: NDArray[np.int64], labels: NDArray[np.int64], n_models: int) -> list[Fitted]:
        """Stages: the proxies of a round."""
        return self._fit(self.name(round_, ids, labels), round_, ids, labels, n_models)

    def _fit(
        self, folder: str, round_: int, ids: NDArray[np.int64], labels: NDArray[np.int64], n_models: int
    ) -> list[Fitted]:
        proxy, seed = self._config.proxy, self._config.seed
        features = self._previous(round_) if proxy.features.source == PREVIOUS else None
        return [
            self.work.train(f"{folder}/model-{i}", proxy, ids, labels, model_seed(seed, i), features)
            for i in range(n_models)
        ]

    def whole(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> Fitted:
        """Stage: the proxy on what was labelled after some round: that of a round, if one was trained on the same or is to be."""
        after = range(1, self.next + 1)
        names = [self.name(round_, ids, labels) for round_ in after]
        trained = [r for r, name in zip(after, names, strict=True) if (self.folder / name / "model-0" / DONE).exists()]
        if trained or digest(ids, labels) == digest(*self.labels()):
            return self.fit((trained or after)[-1], ids, labels, 1)[0]
        # Not among the rounds, where it would be the newest.
        return self._fit(f"points/{self.digest(ids, labels)[:8]}", after[-1], ids, labels, 1)[0]

    def without_fold(self, fold: int, n_folds: int, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> Fitted:
        """Stage: the proxy on these labels but for those of one fold."""
        keep = fold_of(ids, n_folds, self._config.seed) != fold
        name = f"folds/{self.digest(ids, labels)[:8]}/{fold}-of-{n_folds}"
        return self.work.train(name, self._config.proxy, ids[keep], labels[keep], self._config.seed)

    def features(self, round_: int) -> Features | None:
        """The frozen features that a round's proxy saw; None where it saw the inputs."""
        if self._config.proxy.features.source == PREVIOUS:
            return self._previous(round_)
        return self.work.features(self._config.proxy)

    def before(self, round_: int) -> tuple[str, NDArray[np.int64], NDArray[np.int64]]:
        """Where the target of the round before stands, and the labels that it is trained on.

        These are those that were known when the question before was asked, so that it can be trained while people still answer
        that. Where there was none before, or its labels were of one class, they are the first labels that are of two.
        """
        for asked in range(max(0, round_ - 2), round_):
            ids, labels = self.labels(asked)
            if len(np.unique(labels)) > 1:
                break
        return self.name(asked + 1, ids, labels), ids, labels

    def _previous(self, round_: int) -> Features:
        """Features of the target as it was a round before."""
        folder, ids, labels = self.before(round_)
        target = self._target(f"{folder}/target", ids, labels)
        return self.work.features_of(f"{folder}/features", target)

    def target(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> Fitted | None:
        """The target on these labels, where a proxy on its features has had it trained; else None."""
        folders = {self.name(asked.round + 1, ids, labels) for asked in self._store.rounds()}
        done = [folder for folder in folders if (self.folder / folder / "target" / DONE).exists()]
        return self._target(f"{done[0]}/target", ids, labels) if done else None

    def final(self, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> Fitted:
        """Stage: the target on these labels, wanted for itself."""
        return self._target(f"final/{self.digest(ids, labels)[:8]}/target", ids, labels)

    def _target(self, name: str, ids: NDArray[np.int64], labels: NDArray[np.int64]) -> Fitted:
        return self.work.train(name, self._config.target, ids, labels, self._config.seed)
