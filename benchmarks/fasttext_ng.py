"""fasttext-ng, the C++ fastText that ours stands beside: from a folder of its own, because it shares its name with others.

    pip install --no-deps --target WORK/fasttext-ng fasttext-ng==0.9.3      from source: a minute or two

It is given the words that ours makes of a text, in a file as its authors prepare one. Lists are predicted: for one text its
`predict` asks numpy 2 for an array without a copy, which that refuses.
"""

import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from benchmarks.run import peer
from svp.config import TrainConfig
from svp.learners.fasttext import Size

NAME = "fasttext-ng"
BREAK = re.compile(r"<br />", re.IGNORECASE)
ALONE = re.compile(r"(['.,()!?])")
GAPS = re.compile("[ \t\n\v\f\r\0;:]+")
LOWER = str.maketrans({chr(c): chr(c + 32) for c in range(ord("A"), ord("Z") + 1)} | {'"': None})


def module(work: Path) -> Any:
    return peer(work, f"{NAME}==0.9.3", "fasttext")


def words(text: str) -> str:
    """The words of a text with a space between them; the end of the line is the word </s>."""
    return GAPS.sub(" ", ALONE.sub(r" \1 ", BREAK.sub(" ", text.translate(LOWER)))).strip(" ")


def write(path: Path, texts: Iterable[str], labels: ArrayLike) -> None:
    """A line a text, as fastText trains on them."""
    with path.open("w", encoding="utf-8", newline="\n") as file:
        for text, label in zip(texts, np.asarray(labels).tolist(), strict=True):
            file.write(f"__label__{label} {words(text)}\n")


def train(fasttext: Any, path: Path, config: TrainConfig, seed: int) -> Any:
    """Its model of the same settings, trained by one thread."""
    size = Size.of(config.options)
    return fasttext.train_supervised(
        input=str(path),
        dim=size.dim,
        wordNgrams=size.ngrams,
        bucket=size.buckets,
        minCount=size.min_count,
        epoch=config.epochs,
        lr=config.lr,
        thread=1,
        seed=seed,
        verbose=0,
    )


def predict(model: Any, prepared: list[str], n_classes: int) -> NDArray[np.float32]:
    """(n, n_classes) probabilities of texts as `words` gives them."""
    probs = np.zeros((len(prepared), n_classes), np.float32)
    named, given = model.predict(prepared, k=n_classes)
    for row, (names, values) in enumerate(zip(named, given, strict=True)):
        probs[row, [int(name.removeprefix("__label__")) for name in names]] = values
    return probs
