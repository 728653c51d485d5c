"""Examples to passages: how a text begins, and which of its words speak for its class."""

import re
from collections import Counter

import numpy as np
from numpy.typing import NDArray

from svp.chance import hash_ids
from svp.data.base import Dataset
from svp.report.facts import Example

LENGTH = 300  # characters that are shown
SAMPLE = 2000  # texts from which it is taken what is typical of a class
MARKED = 8  # words of a passage, at most
TYPICAL = 2.0  # times as common in texts of the class as in others

Passage = list[tuple[str, bool]]  # parts in order, and whether they speak for the class
_WORD = re.compile(r"[^\W\d_]{3,}")


def passages(dataset: Dataset, examples: list[Example]) -> list[Passage]:
    """The beginning of each text, cut into marked words and what stands between them. Time: SAMPLE texts are read."""
    if not examples:
        return []
    pos = dataset.positions([example.id for example in examples])
    texts = dataset.inputs[pos]
    if dataset.labels is None:
        return [[(_beginning(text), False)] for text in texts]
    typical = _typical(dataset)
    return [
        _marked(_beginning(text), typical.get(label, {}))
        for text, label in zip(texts, dataset.labels[pos].tolist(), strict=True)
    ]


def _beginning(text: str) -> str:
    words = " ".join(text[: 2 * LENGTH].split())
    return words if len(words) <= LENGTH else words[:LENGTH].rpartition(" ")[0] + " …"


def _marked(text: str, weights: dict[str, float]) -> Passage:
    found = [(weights.get(match[0].lower(), 0.0), match) for match in _WORD.finditer(text)]
    best = sorted((pair for pair in found if pair[0] >= TYPICAL), key=lambda pair: -pair[0])[:MARKED]
    parts: Passage = []
    end = 0
    for match in sorted((match for _, match in best), key=lambda match: match.start()):
        parts += [(text[end : match.start()], False), (match[0], True)]
        end = match.end()
    return [part for part in [*parts, (text[end:], False)] if part[0]]


def _typical(dataset: Dataset) -> dict[int, dict[str, float]]:
    """For each class, how many times as common a word is among its texts as among the others."""
    assert dataset.labels is not None
    drawn: NDArray[np.int64] = np.argsort(hash_ids(dataset.ids, 0, "typical words"), kind="stable")[:SAMPLE]
    labels = dataset.labels[drawn]
    words_of: dict[int, Counter[str]] = {int(c): Counter() for c in np.unique(labels)}
    for text, label in zip(dataset.inputs[drawn], labels.tolist(), strict=True):
        words_of[label].update(set(_WORD.findall(text.lower())))
    everywhere = sum(words_of.values(), Counter[str]())
    n_texts = Counter(labels.tolist())
    return {
        label: {word: _times(n, n_texts[label], everywhere[word], len(drawn)) for word, n in words.items() if n > 2}
        for label, words in words_of.items()
        if n_texts[label] < len(drawn)
    }


def _times(n: int, of: int, n_all: int, of_all: int) -> float:
    """Share of texts of the class with a word, over that of the others; both get ten usual texts more."""
    usual = 10 * n_all / of_all
    return ((n + usual) / (of + 10)) / ((n_all - n + usual) / (of_all - of + 10))
