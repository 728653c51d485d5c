"""What the stages of a run leave for the next: a fitted model, a ranked pool, a tested model."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, Self

import numpy as np
from numpy.typing import NDArray

from svp.audit import Agreement, agreement
from svp.config import TrainConfig
from svp.data.base import Dataset
from svp.errors import MissingInput, TrainingError
from svp.files import read_array, read_json
from svp.learners import Learner, Outputs, find
from svp.runs import Stage
from svp.select import Rank, Selection, find_method
from svp.signals import Signals
from svp.workflows.features import Features


class Show(Protocol):
    """How a workflow tells what it is doing; the command line draws it, a library call passes nothing."""

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None: ...


class Fitted:
    """A trained model: the stage that holds it, and how the learner is made, whose files are read when it is asked.

    learner   one like it, which is kept where it was `trained` just now
    n         training examples
    features  what it sees in place of the inputs
    """

    def __init__(
        self,
        stage: Stage,
        config: TrainConfig,
        make: Callable[[], Learner],
        n: int,
        *,
        learner: Learner,
        trained: bool,
        features: Features | None = None,
    ) -> None:
        self.stage, self.config, self.n, self.features = stage, config, n, features
        self.code, self.gives = learner.code, learner.gives
        self._make = make
        self._learner = learner if trained else None

    @property
    def seconds(self) -> float:
        """Time spent in the epochs that count, over all attempts."""
        return float(self.stage.facts["seconds"])

    @property
    def train_accuracy(self) -> float:
        """Share of its own examples that it got right in the last epoch, as `history.json` counts them."""
        return float(read_json(self.stage.folder / "history.json")[-1]["accuracy"])

    @property
    def origin(self) -> str:
        """Digest of everything the model was made from."""
        return self.stage.origin

    def ready(self) -> Learner:
        """The learner, its files read if that has not been done."""
        if self._learner is None:
            learner = self._make()
            learner.load(self.stage.folder)
            self._learner = learner
        return self._learner

    def release(self) -> None:
        """Leave the model to its files, so that its device has room for another. A classifier stays: it would be fitted again."""
        if find(self.config).makes != "classifier":
            self._learner = None

    def predict(
        self, dataset: Dataset, ids: NDArray[np.int64], *, embeddings: bool = False, as_seen: bool = False
    ) -> Outputs:
        """as_seen: these are what it sees already, its features where it sees such."""
        learner = self.ready()
        dataset = dataset if self.features is None or as_seen else self.features.of(dataset)
        outputs = learner.predict(dataset, ids, embeddings=embeddings)
        if wrong := int((~np.isfinite(outputs.probs).all(axis=1)).sum()):
            raise TrainingError(
                f"{self.config.model} ({self.stage.folder}) gives probabilities that are no numbers for {wrong:,} of "
                f"{len(ids):,} examples: it was trained to no good end; change its settings (a net: lower lr)"
            )
        return outputs

    def signals(self) -> Signals:
        if "signals" not in self.gives:
            raise MissingInput(
                f"{self.config.model} records no signals while it trains; "
                "choose a method that needs none (svp list methods), or a net as proxy"
            )
        return Signals.open(self.stage.folder / "signals")


@dataclass(frozen=True)
class Ranked:
    """What a model made of a pool: the selection, and for each of the pool's ids a value: its score, higher = more wanted, or
    for a method that covers minus the order of choice.
    """

    selection: Selection
    ids: NDArray[np.int64]
    scores: NDArray[np.float64]

    @classmethod
    def read(cls, folder: Path) -> Self:
        """Of a choosing stage's folder."""
        selection = Selection.load(folder / "selection.parquet")
        return cls(
            selection,
            np.asarray(read_array(folder / "ids.npy")),
            np.asarray(read_array(folder / "scores.npy")),
        )

    def agreement(self, other: "Ranked", method: str) -> Agreement:
        """How alike two models rank and choose the same pool."""
        chosen = np.isin(self.ids, self.selection.ids), np.isin(other.ids, other.selection.ids)
        by_score = kind_of(method) == "rank"
        return agreement(self.scores, other.scores, len(self.selection), None if by_score else chosen)


def kind_of(method: str) -> str:
    """ "rank" where the highest scores are what is chosen; "cover" where the choice is more than its scores."""
    _, row = find_method(method)
    return "rank" if isinstance(row, Rank) and row.sampler is None else "cover"


@dataclass(frozen=True)
class Tested:
    """A model's answers about the test part: (n_test,) class numbers, whether they are right, and (n_test, c) probabilities."""

    predicted: NDArray[np.int64]
    correct: NDArray[np.bool_]
    seconds: float
    probs: NDArray[np.float32]
