"""The examples of a session with people: numbered once, by their keys, however files come and go; and which are nearly the same.

The label store holds the numbers (`LabelStore.examples`). A new key gets the next one. What has gone, or has another content than
when it was first seen, is left out until it is back as it was; its answers are kept. Photos of a session that began with
their list (`listed.py`) are first seen when they are read; those that cannot be are gone.
"""

import hashlib
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.data.base import Dataset
from svp.data.texts import Texts, hashes_of
from svp.files import write_json
from svp.labels import LabelStore

_MARK = ".pool.json"
_ALIKE = 0.97  # cosine from which two examples of one question count as nearly the same
_LEAST, _MOST = 16, 256  # candidates made ready at a time, at least and at most
_CENTRE = 4096  # rows of numbers are compared about the mean of so many at least, from all of the pool
_SIDE = 16  # pixels to which images are brought before they are compared
_WORDS = 1 << 12  # columns into which pieces of texts are hashed


def join(raw: Dataset, store: LabelStore) -> tuple[Dataset, dict[str, tuple[str, ...]]]:
    """Give what was read the numbers that the store knows, and the store what is new.

    Returns what is here as it was first seen, and the keys that are "new in the data", "changed, left out" and "gone, left out".
    Example by example is compared only where the fingerprint of the data, or what the store knows of them, is another than when
    they were last found to be the same (`.pool.json` beside the store). Time: a pass over the inputs. Memory: where examples were
    added, changed or removed, images are copied into memory.
    """
    mark = store.path.with_name(_MARK)
    if _read(mark) == {"data": raw.fingerprint, "pool": store.last_pool()}:
        return raw, {}
    found, noticed = _compared(raw, store)
    if found is raw and not any(noticed.values()):
        write_json(mark, {"data": raw.fingerprint, "pool": store.last_pool()})
    return found, noticed


def _read(mark: Path) -> Any:
    try:
        return json.loads(mark.read_text())
    except (OSError, ValueError):
        return None


def _compared(raw: Dataset, store: LabelStore) -> tuple[Dataset, dict[str, tuple[str, ...]]]:
    keys = tuple(map(str, raw.ids)) if raw.keys is None else raw.keys
    prints = fingerprints(raw)
    examples = store.examples()
    if not examples:
        store.number(raw.ids, keys, prints)
        return raw, {}
    numbered, *as_seen = zip(*examples, strict=True)
    if as_seen == [keys, tuple(prints), ("here",) * len(keys)]:  # as nearly always; no million of look-ups then
        return _ordered(raw, keys, np.array(numbered, np.int64)), {}
    known = {key: (id_, seen, state) for id_, key, seen, state in examples}
    here = dict(zip(keys, prints, strict=True))
    now = {
        id_: "gone" if key not in here else "here" if seen in ("", here[key]) else "changed"
        for key, (id_, seen, _) in known.items()
    }
    read = {id_: here[key] for key, (id_, seen, _) in known.items() if not seen and key in here}
    new = [(key, here[key]) for key in keys if key not in known]
    states = {id_: now[id_] for id_, _, state in known.values() if now[id_] != state}
    if read:
        store.read(read)
    first = store.meet(new, states) if new or states else 0
    numbers = {key: first + i for i, (key, _) in enumerate(new)}
    numbers |= {key: id_ for key, (id_, _, _) in known.items() if now[id_] == "here"}
    ids = np.array([numbers.get(key, -1) for key in keys], np.int64)
    of = {word: tuple(key for key, (id_, _, _) in known.items() if now[id_] == word) for word in ("changed", "gone")}
    noticed = {"new in the data": tuple(key for key, _ in new)}
    noticed |= {f"{word}, left out": named for word, named in of.items()}
    return _ordered(raw, keys, ids), noticed


def as_first_seen(raw: Dataset, store: LabelStore) -> Dataset:
    """What was read, numbered as the store knows it, without what is new or changed. Nothing is stored."""
    keys = tuple(map(str, raw.ids)) if raw.keys is None else raw.keys
    known = {key: (id_, seen) for id_, key, seen, _ in store.examples()}
    numbers = [
        known[key][0] if known.get(key, (-1, None))[1] in ("", now) else -1
        for key, now in zip(keys, fingerprints(raw), strict=True)
    ]
    return _ordered(raw, keys, np.array(numbers, np.int64))


def _ordered(raw: Dataset, keys: tuple[str, ...], ids: NDArray[np.int64]) -> Dataset:
    """The rows that have a number, in its order."""
    if np.array_equal(ids, raw.ids):
        return raw
    order = np.argsort(ids, kind="stable")[int((ids < 0).sum()) :]
    inputs = raw.inputs.part(order) if isinstance(raw.inputs, Texts) else raw.inputs[order]
    return replace(raw, inputs=inputs, ids=ids[order], keys=tuple(keys[i] for i in order))


def fingerprints(dataset: Dataset) -> list[str]:
    """(n,) 16 hexadecimal digits of each input as it was read: what changes no pixel and no letter counts as no change."""
    if dataset.is_text:
        return fingerprints_of_texts(dataset.inputs)
    return [hashlib.blake2b(np.ascontiguousarray(row).data, digest_size=8).hexdigest() for row in dataset.inputs]


def fingerprints_of_texts(texts: Any) -> list[str]:
    return [f"{value:016x}" for block in hashes_of(texts) for value in block.tolist()]


def distinct(vectors: Callable[[int, int], NDArray[np.float32]], m: int, n: int) -> NDArray[np.int64]:
    """Positions of `n` of m rows in their order, without those nearly the same as one before; these come last, if needed.

    vectors  vectors(start, stop) gives these rows, of length 1 or 0; `n` at a time (_LEAST to _MOST), until there are enough
    Time: m n d at most. Memory: n d floats, and a block of inputs
    """
    kept: list[int] = []
    twins: list[int] = []
    of_kept = np.zeros((0, 0), np.float32)
    step = min(max(n, _LEAST), _MOST)
    for start in range(0, m, step):
        rows = vectors(start, min(start + step, m))
        if not start:
            of_kept = np.empty((n, rows.shape[1]), np.float32)
        for i, vector in enumerate(rows, start):
            if len(kept) == n:
                return np.array(kept, np.int64)
            if kept and float((of_kept[: len(kept)] @ vector).max()) >= _ALIKE:
                twins.append(i)
            else:
                of_kept[len(kept)] = vector
                kept.append(i)
    return np.array([*kept, *twins][:n], np.int64)


def distinct_of(
    dataset: Dataset, ids: NDArray[np.int64], first: Callable[[int], NDArray[np.int64]], n: int
) -> NDArray[np.int64]:
    """Positions of `n` in a ranking of these (m,) ids: see `distinct`. No more are made ready than it takes.

    first  first(k) gives the first k of the ranking
    """
    centre = None
    if not (dataset.is_text or _are_images(dataset.inputs)):
        centre = _flat(dataset, ids[:: max(1, len(ids) // _CENTRE)]).mean(axis=0)
    return distinct(lambda start, stop: vectors_of(dataset, first(stop)[start:], centre), len(ids), n)


def vectors_of(
    dataset: Dataset, ids: NDArray[np.int64], centre: NDArray[np.float32] | None = None
) -> NDArray[np.float32]:
    """(m, d) float32 of length 1: texts by their pieces, images by light and dark, rows of numbers as they are.

    centre  (d,) of rows of numbers, from which they are seen; None: their mean
    """
    inputs = dataset.inputs[dataset.positions(ids)]
    if dataset.is_text:
        from sklearn.feature_extraction.text import HashingVectorizer

        pieces = HashingVectorizer(analyzer="char_wb", ngram_range=(3, 5), n_features=_WORDS, alternate_sign=False)
        return np.asarray(pieces.transform(inputs).toarray(), np.float32)
    if _are_images(inputs):
        rows = _small(inputs.astype(np.float32).mean(axis=3)).reshape(len(inputs), -1)
        rows -= rows.mean(axis=1, keepdims=True)
    else:
        rows = _flat(dataset, ids)
        rows = rows - (rows.mean(axis=0) if centre is None else centre)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    unit: NDArray[np.float32] = np.divide(rows, lengths, out=np.zeros_like(rows), where=lengths > 0)
    return unit


def _flat(dataset: Dataset, ids: NDArray[np.int64]) -> NDArray[np.float32]:
    """(m, d) rows of numbers."""
    inputs = dataset.inputs[dataset.positions(ids)]
    return np.asarray(inputs.reshape(len(inputs), -1), np.float32)


def _are_images(inputs: Any) -> bool:
    return bool(inputs.dtype == np.uint8 and inputs.ndim == 4)


def _small(grey: NDArray[np.float32]) -> NDArray[np.float32]:
    """(m, h, w) images as means of blocks, about _SIDE of them along each side."""
    steps = [max(1, side // _SIDE) for side in grey.shape[1:]]
    h, w = (side // step * step for side, step in zip(grey.shape[1:], steps, strict=True))
    blocks = grey[:, :h, :w].reshape(len(grey), h // steps[0], steps[0], w // steps[1], steps[1])
    means: NDArray[np.float32] = blocks.mean(axis=(2, 4))
    return means
