"""fastText's classifier, as a learner of our own (Joulin et al. 2016, "Bag of tricks for efficient text classification").

A text is the average of the vectors of its words and word n-grams; a linear layer and a softmax make probabilities of it. The
n-grams share a fixed number of vectors by their hash. It learns by one step of SGD a text, with a rate that falls to 0 in a
straight line. Words are split as the authors of fastText prepare these data: ASCII letters in lower case, ' . , ( ) ! ? words of
their own, ; and : and <br /> gaps, " nothing; every text ends with the word </s>.

Beside fastText's own program: probabilities are exact (its first version rounds them to one of 512), training records signals,
and the same seed gives the same model: one thread trains, and initial vectors and the order of an epoch are hashes of word and
id.
"""

import json
import math
import time
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svp.chance import shuffled, spawn_seed
from svp.config import TrainConfig
from svp.data.base import Dataset, check_memory
from svp.data.texts import joined
from svp.errors import DataError, SettingError, TrainingError, one_line, require
from svp.files import read_json, write_bytes, write_json
from svp.learners.base import EpochRecord, Outputs, Progress, in_blocks
from svp.learners.encoded import Encoded, encoded
from svp.machine import each, n_cores
from svp.signals import KINDS, Signals

WORDS = "words-1"  # name of this way to split and hash: another number where it gives other words
WORTH_KEEPING = 5.0  # seconds of training: less is sooner done again than written down
_AT_A_TIME = 1 << 16  # texts trained on, between two looks at the keyboard
_SCORED_AT_A_TIME = 1 << 13
CORRECT, LOSS = list(KINDS).index("correct"), list(KINDS).index("loss")


@dataclass(frozen=True)
class Size:
    """The options of `fasttext`.

    Memory: 4 bytes x dim x (buckets + words); the paper's 10,000,000 buckets take 400 MB. To score, 4 bytes x classes x
    (buckets + words) more where there are no more classes than dim; to write the model, up to three times what the vectors that
    training has moved take.
    """

    dim: int = 10
    ngrams: int = 2
    buckets: int = 2_000_000
    min_count: int = 1  # words that training shows less often have no vector

    @classmethod
    def of(cls, options: dict[str, Any]) -> Self:
        known = [field.name for field in fields(cls)]
        if strange := [name for name in options if name not in known]:
            raise SettingError(f"fasttext takes the options {', '.join(known)}, not {strange[0]!r}")
        for name, value in options.items():
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise SettingError(f"fasttext: the option {name} is a whole number, 1 or more; got {value!r}")
        return cls(**options)


@dataclass
class Model:
    """What training moves.

    words   (v,) int32 hashes of the words that have a vector, ascending
    rows    (v + buckets, dim) float32 vectors: of the words, then of the buckets
    output  (c, dim) float32
    seen    (buckets,) which of these training moves: the others stay as they were drawn, and are not kept in files
    table   where the vector of a word stands, for the kernels
    """

    words: NDArray[np.int32]
    rows: NDArray[np.float32]
    output: NDArray[np.float32]
    seen: NDArray[np.bool_]
    table: NDArray[np.int32]

    @classmethod
    def begin(cls, words: NDArray[np.int32], seen: NDArray[np.bool_], size: Size, n_classes: int, seed: int) -> Self:
        """Every vector is drawn from the seed and its word or bucket alone: two arms share those of what both have seen."""
        from svp.learners import kernels

        keys = np.concatenate([words.astype(np.int64), np.arange(len(seen)) + (1 << 32)]).astype(np.uint64)
        rows = np.empty((len(keys), size.dim), np.float32)
        kernels.draw_rows(rows, keys, np.uint64(spawn_seed(seed, "init")))
        table = _empty_table(len(words))
        kernels.fill_table(table, words, np.arange(len(words), dtype=np.int32))
        return cls(words, rows, np.zeros((n_classes, size.dim), np.float32), seen, table)

    @cached_property
    def logits(self) -> NDArray[np.float32]:
        """(v + buckets, c) the logits of each vector by itself, of a model that is trained no more."""
        from svp.learners import kernels

        logits = np.empty((len(self.rows), len(self.output)), np.float32)
        kernels.project(logits, self.rows, self.output)
        return logits

    def to_bytes(self, records: list[EpochRecord]) -> bytes:
        """A safetensors file, the records of the epochs in its header."""
        buckets = np.flatnonzero(self.seen)
        moved = np.concatenate([self.rows[: len(self.words)], self.rows[len(self.words) + buckets]])
        tensors = {"words": self.words, "buckets": buckets, "rows": moved, "output": self.output}
        data: bytes = require("safetensors.numpy", "text").save(tensors, {"records": json.dumps(records)})
        return data

    @classmethod
    def read(cls, path: Path, size: Size, n_classes: int, seed: int) -> tuple[Self, list[EpochRecord]]:
        """What `to_bytes` wrote; raises DataError where it is damaged, or of another model."""
        safetensors = require("safetensors", "text")
        try:
            with safetensors.safe_open(path, framework="np") as file:
                words, buckets, moved, output = (
                    file.get_tensor(name) for name in ("words", "buckets", "rows", "output")
                )
                records = json.loads((file.metadata() or {})["records"])
            if moved.shape != (len(words) + len(buckets), size.dim) or output.shape != (n_classes, size.dim):
                raise ValueError(f"it holds vectors of shape {moved.shape}, and {output.shape} for the classes")
            if not (np.isfinite(moved).all() and np.isfinite(output).all()):
                raise ValueError("its vectors are not finite")
            seen = np.zeros(size.buckets, bool)
            seen[buckets] = True
        except (OSError, KeyError, ValueError, IndexError, safetensors.SafetensorError) as error:
            raise DataError(
                f"cannot take the model from {path}: {one_line(error)}; remove the folder {path.parent} to have it made again"
            ) from None
        model = cls.begin(words, seen, size, n_classes, seed)
        model.rows[: len(words)] = moved[: len(words)]
        model.rows[len(words) + buckets] = moved[len(words) :]
        model.output[:] = output
        return model, records


class FastTextLearner:
    """`fasttext` as a `Learner`. Files: model.safetensors, history.json, signals/; while training, checkpoint.safetensors.

    Uses of its settings: epochs, lr (the rate that it begins with), options (`Size`), seeds.
    """

    gives = frozenset({"signals", "embeddings"})
    initial_weights: str | None = None
    code: tuple[str, ...] = tuple(
        f"svp.{name}" for name in ("chance", "signals", "learners.fasttext", "learners.kernels", "learners.encoded")
    )

    def __init__(self, config: TrainConfig, dataset: Dataset, seed: int) -> None:
        require("numba", "text")
        require("safetensors", "text")
        self._config, self._seed, self._n_classes = config, seed, len(dataset.classes)
        self._size = Size.of(config.options)
        check_memory(
            4 * self._size.dim * self._size.buckets,
            f"{self._size.buckets:,} buckets",
            "fewer of them (options.buckets), ",
        )
        self._model: Model | None = None

    def fit(
        self,
        dataset: Dataset,
        ids: NDArray[np.int64],
        labels: NDArray[np.int64],
        *,
        folder: Path,
        progress: Progress | None = None,
    ) -> list[EpochRecord]:
        if not len(ids):
            raise TrainingError(f"{self._config.model} cannot be trained on no examples")
        checkpoint = folder / "checkpoint.safetensors"
        if (folder / "history.json").exists():  # killed between the end of training and the done-mark
            self.load(folder)
            finished: list[EpochRecord] = read_json(folder / "history.json")
            checkpoint.unlink(missing_ok=True)
            return finished
        begin = time.perf_counter()
        positions = dataset.positions(ids)
        texts = words_of(dataset)
        if checkpoint.exists():
            self._model, records = Model.read(checkpoint, self._size, self._n_classes, self._seed)
        else:
            self._model, records = self._begin(texts, positions), []
        signals = Signals.create(folder / "signals", self._config.epochs, len(ids))
        signals.refuse_gaps(len(records), checkpoint)
        since = begin  # the last checkpoint; preparing belongs to the first epoch
        for epoch in range(len(records), self._config.epochs):
            seen = self._epoch(texts, positions, labels, shuffled(ids, self._seed, "order", epoch), epoch)
            record = {"epoch": epoch, "loss": float(seen[LOSS].mean()), "accuracy": float(seen[CORRECT].mean())}
            sound = math.isfinite(record["loss"]) and np.isfinite(self._model.output).all()
            if sound and epoch + 1 == self._config.epochs:  # what breaks here is met by no later epoch
                sound = np.isfinite(self._model.rows).all()
            if not sound:
                raise TrainingError(
                    f"training {self._config.model} diverged in epoch {epoch + 1} of {self._config.epochs} (the loss or a vector "
                    f"is no longer a number); lower lr (now {self._config.lr:g}), in another folder (--out; --reuse takes over "
                    "what is finished)"
                )
            signals.write_epoch(epoch, dict(zip(KINDS, seen, strict=True)))
            now = time.perf_counter()
            records.append({**record, "seconds": now - begin})
            begin = now
            if now - since > WORTH_KEEPING and epoch + 1 < self._config.epochs:
                write_bytes(checkpoint, self._model.to_bytes(records))
                since = begin = time.perf_counter()
            if progress is not None:
                progress(records[-1], self._config.epochs)
        write_bytes(folder / "model.safetensors", self._model.to_bytes(records))
        write_json(folder / "history.json", records)
        checkpoint.unlink(missing_ok=True)
        return records

    def predict(self, dataset: Dataset, ids: NDArray[np.int64], *, embeddings: bool = False) -> Outputs:
        """A text that shares no word and no n-gram with what training showed has the probabilities of the drawn vectors."""
        model, texts, positions = self._fitted(), words_of(dataset), dataset.positions(ids)
        if self._n_classes > self._size.dim:
            probs, hidden = self._scored(model.rows, model.output, texts, positions)
            return Outputs(probs, hidden if embeddings else None)
        # The logits of an average are the average of the logits, and these take less memory to walk through.
        own = np.eye(self._n_classes, dtype=np.float32)
        probs, _ = self._scored(model.logits, own, texts, positions)
        return Outputs(probs, self._scored(model.rows, model.output, texts, positions)[1] if embeddings else None)

    def _scored(
        self, rows: NDArray[np.float32], output: NDArray[np.float32], texts: Encoded, positions: NDArray[np.int64]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """(n, c) probabilities and (n, d) averages of texts, for the (r, d) vectors of their words and n-grams."""
        from svp.learners import kernels

        model = self._fitted()
        probs = np.empty((len(positions), len(output)), np.float32)
        hidden = np.empty((len(positions), rows.shape[1]), np.float32)
        longest = _longest(texts, positions)

        def score(start: int) -> None:
            part = slice(start, start + _SCORED_AT_A_TIME)
            kernels.score(
                *(rows, output, texts.values, texts.offsets, positions[part], model.table),
                *(len(model.words), self._size.ngrams, longest, probs[part], hidden[part]),
            )

        for _ in each(score, range(0, len(positions), _SCORED_AT_A_TIME), n_cores()):
            pass  # each text by itself: how many threads there are changes nothing
        return probs, hidden

    stream = in_blocks

    def load(self, folder: Path) -> None:
        self._model, _ = Model.read(folder / "model.safetensors", self._size, self._n_classes, self._seed)

    def _fitted(self) -> Model:
        """The model; before any training, one without a word."""
        if self._model is None:
            nothing = np.zeros(0, np.int32), np.zeros(self._size.buckets, bool)
            self._model = Model.begin(*nothing, self._size, self._n_classes, self._seed)
        return self._model

    def _begin(self, texts: Encoded, positions: NDArray[np.int64]) -> Model:
        from svp.learners import kernels

        words = vocabulary(texts, positions, self._size.min_count)
        seen = np.zeros(self._size.buckets, bool)
        longest = _longest(texts, positions)
        kernels.mark_buckets(seen, texts.values, texts.offsets, positions, self._size.ngrams, longest)
        return Model.begin(words, seen, self._size, self._n_classes, self._seed)

    def _epoch(
        self,
        texts: Encoded,
        positions: NDArray[np.int64],
        labels: NDArray[np.int64],
        order: NDArray[np.int64],
        epoch: int,
    ) -> NDArray[np.float32]:
        """Show every text once; (kinds, m) signals of the forward before its step."""
        from svp.learners import kernels

        model = self._fitted()
        seen = np.empty((len(KINDS), len(order)), np.float32)
        n_words = int(texts.lengths(positions).sum())
        shown, longest = epoch * n_words, _longest(texts, positions)
        for start in range(0, len(order), _AT_A_TIME):
            part = order[start : start + _AT_A_TIME]
            signals = np.empty((len(KINDS), len(part)), np.float32)
            shown = kernels.train(
                *(model.rows, model.output, texts.values, texts.offsets, positions[part], labels[part], model.table),
                *(len(model.words), self._size.ngrams, self._config.lr, shown, n_words * self._config.epochs, longest),
                signals,
            )
            seen[:, part] = signals
        return seen


def words_of(dataset: Dataset) -> Encoded:
    """The words of every text as 32-bit hashes (int32), from the cache. Time: about 2 seconds a million short texts."""
    from svp.learners import kernels

    codes = _codes()
    end_of_text = kernels.hash_words(*joined([b"</s>"]), codes, 0)[0][0]

    def encode(text: NDArray[np.uint8], ends: NDArray[np.int64]) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
        words, counts = kernels.hash_words(text, ends, codes, end_of_text)
        return words, counts

    return encoded(dataset, WORDS, encode, np.int32)


def vocabulary(texts: Encoded, positions: NDArray[np.int64], min_count: int) -> NDArray[np.int32]:
    """The words that these texts have at least so often, ascending. Time: one pass over the texts; memory: 32 bytes a word."""
    from svp.learners import kernels

    table, n = _empty_table(0), 0
    for start in range(0, len(positions), _AT_A_TIME):
        part = positions[start : start + _AT_A_TIME]
        room = n + int(texts.lengths(part).sum())
        if room > len(table) // 2:
            known = table[table[:, 1] > 0]
            table = _empty_table(room)
            kernels.fill_table(table, np.ascontiguousarray(known[:, 0]), np.ascontiguousarray(known[:, 1]))
        n += kernels.count_words(table, texts.values, texts.offsets, part)
    return np.sort(table[table[:, 1] >= min_count, 0])


def _empty_table(n: int) -> NDArray[np.int32]:
    """A table with room for n words: half of it, at least, stays empty."""
    from svp.learners import kernels

    return np.full((1 << max(4, (2 * n).bit_length()), 2), kernels.EMPTY, np.int32)


def _longest(texts: Encoded, positions: NDArray[np.int64]) -> int:
    """Words of the longest of these texts."""
    return int(texts.lengths(positions).max(initial=1))


def _codes() -> NDArray[np.uint64]:
    """(256,) what each byte is to a word, as `kernels.hash_words` wants it: ASCII letters in lower case, bytes as signed."""
    from svp.learners import kernels

    lower = np.arange(256, dtype=np.uint8)
    lower[ord("A") : ord("Z") + 1] += 32
    codes = lower.view(np.int8).astype(np.uint32).astype(np.uint64)
    kinds = (
        (b" \t\n\v\f\r\0;:", kernels.GAP),
        (b"'.,()!?", kernels.ALONE),
        (b'"', kernels.DROPPED),
        (b"<", kernels.BREAK),
    )
    for marks, kind in kinds:
        codes[list(marks)] |= np.uint64(kind << 32)
    return codes
