"""Any scikit-learn classifier as a `Learner`: it gives probabilities, and nothing else."""

import inspect
import math
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import shuffled, spawn_seed
from svp.config import TrainConfig
from svp.data.base import Dataset, check_memory
from svp.errors import MissingInput, SettingError, SvpError, TrainingError, one_line
from svp.files import read_array, read_json, write_array, write_json
from svp.learners.base import EpochRecord, Outputs, Progress, in_blocks

_ROWS, _BYTES = 1 << 16, 1 << 30  # scored at a time, at most: a pool need not fit into memory as floats
_MEASURED = 2000  # training examples that the accuracy of a training is taken of: of neighbours, all would be n^2
_STRING = 64  # bytes that a str takes beside its characters
_ROUNDING = 1e-2  # a row may add up to so much more or less than 1: as much as svp.select lets pass


class ClassifierLearner:
    """A scikit-learn classifier, or a pipeline that ends in one. Numbers are flattened, and divided by 255 where they are bytes;
    texts are handed on as they are.

    A fitted classifier is not kept, because its own format is a pickle, which runs code when read. Its training examples are
    kept instead (ids and labels), and `load` fits it again: the same examples and seed give the same classifier.
    Files: ids.npy, labels.npy, history.json.
    """

    gives: frozenset[str] = frozenset()
    initial_weights: str | None = None

    def __init__(
        self, config: TrainConfig, dataset: Dataset, seed: int, make: Callable[..., Any], code: tuple[str, ...]
    ) -> None:
        self.code = ("svp.chance", "svp.learners.classifier", *code)
        self._config, self._dataset, self._seed = config, dataset, seed
        options = dict(config.options)
        with self._errors("made"):
            parameters = inspect.signature(make).parameters
            if "random_state" in parameters:
                options.setdefault("random_state", spawn_seed(seed, "init") % 2**32)
            self._classifier = make(**options)
        if not hasattr(self._classifier, "predict_proba"):
            hint = ", or give it the option probability = true" if "probability" in parameters else ""
            raise SettingError(
                f"{config.model} with {config.options or 'no options'} gives no probabilities; "
                f"choose a classifier with predict_proba{hint}"
            )

    def fit(
        self,
        dataset: Dataset,
        ids: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        folder: Path,
        progress: Progress | None = None,
    ) -> list[EpochRecord]:
        begin = time.perf_counter()
        # By hash of the id: neither the order of the file nor that of the selection decides what a stochastic fit does.
        order = shuffled(ids, self._seed, "order")
        ids, labels = ids[order], labels[order]
        if len(np.unique(labels)) < 2:
            raise TrainingError(
                f"{self._config.model} needs examples of two classes at least; the {len(ids)} given have "
                f"{len(np.unique(labels))}: take a larger budget or start, or another method"
            )
        x = _rows(dataset, ids)
        with self._errors("fitted"):
            self._classifier.fit(x, labels)
            seconds = time.perf_counter() - begin  # what follows is not training
            # They are shuffled: a random part of them.
            accuracy = float((self._classifier.predict(x[:_MEASURED]) == labels[:_MEASURED]).mean())
        self._probs(x[:2], len(dataset.classes))  # before anybody relies on them
        record = {"epoch": 0, "accuracy": accuracy, "seconds": seconds}
        write_array(folder / "ids.npy", ids)
        write_array(folder / "labels.npy", labels)
        write_json(folder / "history.json", [record])
        if progress is not None:
            progress(record, 1)
        return [record]

    def predict(self, dataset: Dataset, ids: NDArray[np.int64], *, embeddings: bool = False) -> Outputs:
        if embeddings:
            raise MissingInput(
                f"{self._config.model} gives no embeddings; choose a method that needs none (svp list methods) or a net as proxy"
            )
        n_classes = len(dataset.classes)
        if not len(ids):
            return Outputs(np.zeros((0, n_classes), np.float32))
        width = 1 if dataset.is_text else 4 * math.prod(dataset.inputs.shape[1:])
        size = max(1, min(_ROWS, _BYTES // max(1, width)))
        blocks = (ids[start : start + size] for start in range(0, len(ids), size))
        return Outputs(np.concatenate([self._probs(_rows(dataset, block), n_classes) for block in blocks]))

    stream = in_blocks

    def load(self, folder: Path) -> None:
        read_json(folder / "history.json")
        ids, labels = np.asarray(read_array(folder / "ids.npy")), np.asarray(read_array(folder / "labels.npy"))
        with self._errors("fitted"):
            self._classifier.fit(_rows(self._dataset, ids), labels)

    def _probs(self, x: NDArray[Any], n_classes: int) -> NDArray[np.float32]:
        """(n, n_classes); classes that were not among the training labels have probability 0."""
        probs = np.zeros((len(x), n_classes), np.float32)
        with self._errors("asked for probabilities"):
            given, seen = np.asarray(self._classifier.predict_proba(x)), self._classifier.classes_
            if given.shape != (len(x), len(seen)):
                raise SettingError(
                    f"{self._config.model}: predict_proba gives shape {given.shape} for {len(x)} examples; "
                    f"its {len(seen)} classes_ take {(len(x), len(seen))}"
                )
            probs[:, seen] = given / _off(given)
        return probs

    @contextmanager
    def _errors(self, done: str) -> Iterator[None]:
        """Whatever a classifier raises, as an error that names it and its options."""
        try:
            yield
        except SvpError:
            raise
        except Exception as error:
            raise SettingError(
                f"{self._config.model} cannot be {done} with {self._config.options or 'no options'}: {one_line(error)}"
            ) from error


def _off(given: NDArray[Any]) -> NDArray[Any]:
    """(n, 1) what rows of probabilities add up to where that is not 1 (naive Bayes rounds what is far from all classes to twice
    1, say); 1 for all others, and for what are no probabilities.
    """
    total = given.sum(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        shares = ((given >= 0) & (given <= 1)).all(axis=1, keepdims=True) & (total > 0)
    return np.where(shares & (np.abs(total - 1) > _ROUNDING), total, 1)


def logistic(*, max_iter: int = 1000, random_state: int | None = None, **options: Any) -> Any:
    """scikit-learn's logistic regression with iterations enough to converge on small images, where its own 100 are not."""
    from sklearn.linear_model import LogisticRegression

    return LogisticRegression(max_iter=max_iter, random_state=random_state, **options)


def hashed_linear(
    *, ngrams: int = 2, buckets: int = 2**18, C: float = 20.0, max_iter: int = 10, random_state: int | None = None
) -> Any:
    """Logistic regression by SGD on the hashed words and word n-grams of texts; weights are averaged over the second half of the
    passes, which takes most of the chance out of them (Polyak and Juditsky 1992).

    ngrams    words of the longest n-gram
    buckets   numbers that the n-grams of a text are hashed to; memory: 24 bytes x buckets x classes
    C         how little weights are drawn to 0, as in scikit-learn's LogisticRegression: beside the sum over all texts, so that
              the probabilities of a few hundred texts are as honest as those of many thousands (docs/log.md, 2026-11-23)
    max_iter  passes over the texts
    """
    from sklearn.feature_extraction.text import HashingVectorizer
    from sklearn.linear_model import SGDClassifier
    from sklearn.pipeline import make_pipeline

    if not (isinstance(C, (int, float)) and C > 0):
        raise SettingError(f"hashed-linear: option C is a number above 0, not {C!r}; the default is 20")

    class Averaged(SGDClassifier):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            n = x.shape[0]
            self.set_params(alpha=1 / (C * n), average=max_iter // 2 * n + 1)  # average: from this example shown on
            return super().fit(x, y)

    # Single characters are words, and so are marks: the split that fastText is given, nearly.
    words = HashingVectorizer(n_features=buckets, ngram_range=(1, ngrams), token_pattern=r"\w+|[^\w\s]")
    # A fixed number of passes: a tolerance would stop at another one for another order of rows.
    return make_pipeline(words, Averaged(loss="log_loss", max_iter=max_iter, tol=None, random_state=random_state))


def knn(*, n_neighbors: int = 10, **options: Any) -> Any:
    """scikit-learn's nearest neighbours, of which a small training set need not have as many as are asked for.

    A probability is a share of votes, so many examples tie (then a hash of the id decides, as everywhere); `weights = "distance"`
    makes finer ones. Which of training examples that are equally far have a vote depends on hashes of their ids, never on the
    order of the file.
    """
    from sklearn.neighbors import KNeighborsClassifier

    class AtMost(KNeighborsClassifier):  # type: ignore[misc]
        def fit(self, x: Any, y: Any) -> Any:
            self.n_neighbors = min(n_neighbors, len(x))
            return super().fit(x, y)

    return AtMost(n_neighbors, **options)


def _rows(dataset: Dataset, ids: NDArray[np.int64]) -> NDArray[Any]:
    """(m, d) float32, or (m,) texts."""
    positions = dataset.positions(ids)
    if dataset.is_text:
        sample = dataset.inputs[positions[:1000]]
        n_bytes = len(ids) * (_STRING + sum(map(len, sample)) // max(1, len(sample)))
        check_memory(n_bytes, f"{len(ids):,} texts")
        return dataset.inputs[positions]
    n_bytes = 4 * len(ids) * math.prod(dataset.inputs.shape[1:])
    check_memory(n_bytes, f"{len(ids):,} examples as rows of floats", "a net, a smaller image_size (--image-size), ")
    inputs = dataset.inputs[positions]
    rows = inputs.reshape(len(inputs), -1).astype(np.float32, copy=False)  # a copy already
    if inputs.dtype == np.uint8:
        rows /= 255
    return rows
