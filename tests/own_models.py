"""Models of somebody's own, as `package.module:function` names them."""

from typing import Any

import numpy as np
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import LinearSVC
from torch import Tensor, nn

fitted: list[int] = []  # how many examples each training of CountingClassifier saw


class CountingClassifier(ClassifierMixin):
    """Says the share of each class among the training labels, and counts its trainings."""

    def fit(self, x: Any, y: Any) -> "CountingClassifier":
        fitted.append(len(y))
        self.classes_, counts = np.unique(y, return_counts=True)
        self._shares = counts / len(y)
        return self

    def predict_proba(self, x: Any) -> Any:
        return np.tile(self._shares, (len(x), 1))

    def predict(self, x: Any) -> Any:
        return self.classes_[self.predict_proba(x).argmax(axis=1)]


class Logarithmic(CountingClassifier):
    """Finite numbers, the largest of the likeliest class, and no probabilities."""

    def predict_proba(self, x: Any) -> Any:
        return np.log(super().predict_proba(x))


class Undecided(CountingClassifier):
    """No numbers for what is dark."""

    def predict_proba(self, x: Any) -> Any:
        probs = super().predict_proba(x)
        probs[x.mean(axis=1) < 0.3] = np.nan
        return probs


class Ticking(CountingClassifier):
    """Every call takes as long as it says, by a clock of its own."""

    now = 0.0

    def fit(self, x: Any, y: Any) -> "Ticking":
        Ticking.now += 3
        super().fit(x, y)
        return self

    def predict(self, x: Any) -> Any:
        Ticking.now += 1000
        return super().predict(x)


class MLP(nn.Module):
    """For rows, without features and head."""

    def __init__(self, num_classes: int, example: Tensor, hidden: int = 8, dropout: float = 0.0) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Flatten(),
            nn.Linear(example.numel(), hidden),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(hidden, num_classes),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Headed(nn.Module):
    """For rows, with features and head."""

    def __init__(self, num_classes: int, example: Tensor, hidden: int = 5) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(example.numel(), hidden), nn.Linear(hidden, num_classes)

    def features(self, x: Tensor) -> Tensor:
        return self.body(x.flatten(1)).relu()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def too_many(num_classes: int, example: Tensor) -> nn.Module:
    return MLP(num_classes + 1, example)


def wrong_size(num_classes: int, example: Tensor) -> nn.Module:
    return MLP(num_classes, torch.zeros(example.numel() + 1))


class Otherwise(Headed):
    """Its forward does more than head and features."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(2 * self.features(x))


class Mapped(nn.Module):
    """Its features are maps."""

    def __init__(self, num_classes: int, example: Tensor) -> None:
        super().__init__()
        self.features = nn.Unflatten(1, (1, -1))
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(example.numel(), num_classes))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))


def no_module(num_classes: int, example: Tensor) -> str:
    return "a net"


def raises(num_classes: int, example: Tensor) -> nn.Module:
    raise FileNotFoundError("no weights\nin cache")


def lazy(num_classes: int, example: Tensor) -> nn.Module:
    return nn.LazyLinear(num_classes)


def lazy_but_shown(num_classes: int, example: Tensor) -> nn.Module:
    net = nn.LazyLinear(num_classes)
    net(example[None])
    return net


def frozen(num_classes: int, example: Tensor) -> nn.Module:
    return MLP(num_classes, example).requires_grad_(False)


class Weightless(nn.Module):
    def __init__(self, num_classes: int, example: Tensor) -> None:
        super().__init__()
        self.num_classes = num_classes

    def forward(self, x: Tensor) -> Tensor:
        return x[:, : self.num_classes]


class Detached(MLP):
    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x).detach()


class TwoOutputs(MLP):
    """As some nets of the literature: one more output while they are trained."""

    def forward(self, x: Tensor) -> Any:
        return (self.layers(x), x) if self.training else self.layers(x)


class EvenOnly(MLP):
    """Cannot take every batch."""

    def forward(self, x: Tensor) -> Tensor:
        if len(x) % 2:
            raise ValueError("an odd batch\nof some size")
        return self.layers(x)


class Sparse(nn.Module):
    """Its gradients are what a fused step of SGD does not take."""

    def __init__(self, num_classes: int, example: Tensor) -> None:
        super().__init__()
        self.table = nn.EmbeddingBag(4, num_classes, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.table(x.flatten(1).abs().long().clamp(max=3))


class Hungry(MLP):
    """Wants more memory than any machine has for more than `few` examples, while it is trained or scores."""

    def __init__(self, num_classes: int, example: Tensor, few: int, trained: bool) -> None:
        super().__init__(num_classes, example)
        self.few, self.trained = few, trained

    def forward(self, x: Tensor) -> Tensor:
        if self.training == self.trained and len(x) > self.few:
            torch.empty(1 << 50)
        return self.layers(x)


class TooWide(CountingClassifier, BaseEstimator):
    def predict_proba(self, x: Any) -> Any:
        return np.ones((len(x), len(self.classes_) + 1))


class Unfit(CountingClassifier, BaseEstimator):
    def fit(self, x: Any, y: Any) -> "Unfit":
        raise KeyError("no such column")


def unfit_pipeline() -> Any:
    return make_pipeline(StandardScaler(), Unfit())


def wide_pipeline() -> Any:
    return make_pipeline(StandardScaler(), TooWide())


class Unmakeable(CountingClassifier):
    def __init__(self) -> None:
        raise OSError("no licence")


def scaled_logistic(C: float = 1.0) -> Any:
    """A pipeline, as somebody would write it: nothing has to be given."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=C, max_iter=2000))


def any_options(**options: Any) -> Any:
    return LogisticRegression(**options)


def no_probabilities() -> Any:
    return LinearSVC()


NOT_CALLABLE = 3


class Characters(nn.Module):
    """The average of a vector a character."""

    def __init__(self, num_classes: int, example: Tensor) -> None:
        super().__init__()
        self.embedding = nn.Embedding(69, 4)
        self.last = nn.Linear(4, num_classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.last(self.embedding(x).mean(dim=1))
