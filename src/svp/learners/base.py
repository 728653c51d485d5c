"""What can be fitted: the protocol that proxies and targets share, and what they give."""

from collections.abc import Callable, Generator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from svp.data.base import Dataset

EpochRecord = dict[str, float]
Progress = Callable[[EpochRecord, int], None]  # called after each epoch with its record and the number of epochs


@dataclass(frozen=True)
class Outputs:
    """What a fitted model says of a pool of n examples: probs (n, c) float32, embeddings (n, d) float32 or None."""

    probs: NDArray[np.float32]
    embeddings: NDArray[np.float32] | None = None


class Learner(Protocol):
    """One model: made from a `TrainConfig` for one dataset, fitted once, then asked.

    gives            what it can give a method beside probs: "embeddings", "signals"
    code             the modules whose code its results depend on
    initial_weights  what it began with, such as "sha256:..." of a file: it has seen other data; None where the seed drew it all
    """

    gives: frozenset[str]
    code: tuple[str, ...]
    initial_weights: str | None

    def fit(
        self,
        dataset: Dataset,
        ids: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        folder: Path,
        progress: Progress | None = None,
    ) -> list[EpochRecord]:
        """Train on (m,) ids with their labels; keep checkpoints, signals and the fitted model in `folder`.

        Called again with the same arguments after a kill, it continues from the last checkpoint and ends in the same model.
        Returns one record an epoch: epoch, loss, accuracy, seconds.
        """
        ...

    def predict(self, dataset: Dataset, ids: NDArray[np.int64], *, embeddings: bool = False) -> Outputs:
        """Score (n,) ids plainly: no augmentation, rows in the order of `ids`."""
        ...

    def stream(
        self, dataset: Dataset, ids: NDArray[np.int64], size: int, *, embeddings: bool = False
    ) -> Generator[Outputs, None, None]:
        """What `predict` says, `size` rows at a time: for a pass whose answers are not to be held all at once."""
        ...

    def load(self, folder: Path) -> None:
        """Take the fitted model that `fit` left in `folder`."""
        ...


def in_blocks(
    self: Learner, dataset: Dataset, ids: NDArray[np.int64], size: int, *, embeddings: bool = False
) -> Generator[Outputs, None, None]:
    """The `stream` of a learner to which a pass as a whole is no more than its blocks."""
    for start in range(0, len(ids), size):
        yield self.predict(dataset, ids[start : start + size], embeddings=embeddings)
