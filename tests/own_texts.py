"""Models of somebody's own for texts."""

from typing import Any

from sklearn.feature_extraction.text import TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline


def bag_of_words(C: float = 1.0) -> Any:
    """A pipeline that is given texts."""
    return make_pipeline(TfidfVectorizer(), LogisticRegression(C=C))
