"""What a model takes examples for: probabilities, counts, accuracy, and a table of them."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svp.data.base import Dataset
from svp.evaluate import macro_f1, majority_rate
from svp.files import write_array
from svp.workflows.files import write_columns
from svp.workflows.outcomes import Fitted


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a model says of n examples.

    ids, keys  (n,) as the data have them; keys None: the ids in words
    probs      (n, c) float32
    classes    (c,) names
    labels     (n,) the class numbers that the data bring; None where they bring none
    """

    ids: NDArray[np.int64]
    keys: tuple[str, ...] | None
    probs: NDArray[np.float32]
    classes: tuple[str, ...]
    labels: NDArray[np.int64] | None = None

    @classmethod
    def of(cls, fitted: Fitted, dataset: Dataset, ids: NDArray[np.int64]) -> Self:
        """What a model that was trained on this dataset says of some of its examples."""
        keys = None if dataset.keys is None else tuple(dataset.keys[i] for i in dataset.positions(ids))
        probs = fitted.predict(dataset, ids).probs if len(ids) else np.zeros((0, len(dataset.classes)), np.float32)
        return cls(ids, keys, probs, dataset.classes)

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def predicted(self) -> NDArray[np.int64]:
        """(n,) the number of the likeliest class."""
        return np.asarray(self.probs.argmax(axis=1), np.int64)

    @property
    def counts(self) -> dict[str, int]:
        """How many are taken for each class."""
        return dict(zip(self.classes, np.bincount(self.predicted, minlength=len(self.classes)).tolist(), strict=True))

    @property
    def accuracy(self) -> float | None:
        """The share that is right; None without labels."""
        return None if self.labels is None or not len(self) else float((self.predicted == self.labels).mean())

    @property
    def macro_f1(self) -> float | None:
        """F1 of each class, averaged; None without labels."""
        return None if self.labels is None or not len(self) else macro_f1(self.predicted, self.labels)

    @property
    def majority_rate(self) -> float | None:
        """Accuracy of the answer that needs no input: always the most common of the labels; None without any."""
        return None if self.labels is None or not len(self) else majority_rate(self.labels, self.labels)

    def save(self, path: str | Path, *, probs: bool = False) -> None:
        """Write a row an example: id, key, predicted, probability, and label where the data bring one.

        path   .csv, .jsonl, .parquet, .tsv, .arrow or .feather; or .npy for the (n, c) probabilities alone
        probs  and a column p_CLASS for the probability of each class
        """
        path = Path(path)
        if path.suffix.lower() == ".npy":
            write_array(path, self.probs)
            return
        names = np.array(self.classes, object)
        columns: dict[str, Any] = {
            "id": self.ids,
            "key": list(map(str, self.ids.tolist()) if self.keys is None else self.keys),
            "predicted": names[self.predicted],
            "probability": self.probs.max(axis=1),
        }
        if self.labels is not None:
            columns["label"] = names[self.labels]
        if probs:
            columns |= {f"p_{name}": of for name, of in zip(self.classes, self.probs.T, strict=True)}
        write_columns(path, columns)
