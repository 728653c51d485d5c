"""One number per example; higher = taken first, always finite.

These are the bare formulas: `svp.score` and `svp.select` check the arrays first and feed them in chunks of examples, so
that an array on disk is never in memory whole. Each is computed in float64 from one example alone, in an order of
operations that depends neither on its row nor on the chunk: shuffled rows keep their scores to the last bit. NaN stands
for "no score": examples that training never showed, which `svp.score` then names.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import hash_ids
from svp.errors import DataError
from svp.select.table import Floats, Ints

UNSEEN = 255


def random(*, ids: Ints, seed: int) -> Floats:
    """Uniform without replacement: the control every other method has to beat.

    ids      (n,) what is drawn belongs to the id, so the order of the rows does not matter
    returns  (n,) in [0, 1)
    cost     n operations
    """
    # 53 bits are what a float64 holds; the few pairs that agree in all of them go by the ties' own hash.
    return (hash_ids(ids, seed, "random") >> np.uint64(11)).astype(np.float64) * 2.0**-53


def least_confidence(probs: NDArray[Any]) -> Floats:
    """One minus the probability of the most probable class.

    probs    (n, c) one row per example, each sums to 1
    returns  (n,) 1 - max_c p_c, from 0 (certain) to 1 - 1/c
    cost     n * c operations; n floats beside a chunk
    Lewis and Gale 1994, "A sequential algorithm for training text classifiers", SIGIR.
    """
    return np.asarray(1.0 - probs.max(axis=1).astype(np.float64))


def margin(probs: NDArray[Any]) -> Floats:
    """How little the most probable class leads the second: minus the difference of their probabilities.

    probs    (n, c) one row per example, each sums to 1; with one class the second is 0
    returns  (n,) p_2 - p_1, from -1 (certain) to 0 (two classes level)
    cost     n * c operations; n floats and a copy of a chunk
    Scheffer, Decomain and Wrobel 2001, "Active hidden Markov models for information extraction", IDA.
    """
    if probs.shape[1] == 1:
        return 0.0 - probs[:, 0].astype(np.float64)
    # Class by class over all examples: numpy's own partition would be called once an example, which takes far longer.
    classes = np.ascontiguousarray(probs.T)
    first, second = np.maximum(classes[0], classes[1]), np.minimum(classes[0], classes[1])
    lesser = np.empty_like(first)
    for p in classes[2:]:
        np.minimum(first, p, out=lesser)
        np.maximum(second, lesser, out=second)
        np.maximum(first, p, out=first)
    return np.asarray(second.astype(np.float64) - first)


def entropy(probs: NDArray[Any]) -> Floats:
    """Shannon's entropy of the class probabilities, in nats; 0 log 0 is 0.

    probs    (n, c) one row per example, each sums to 1
    returns  (n,) -sum_c p_c log p_c, from 0 (certain) to log c
    cost     n * c logarithms; n floats and a chunk in float64
    Shannon 1948; Settles 2009, "Active learning literature survey", section 3.1.
    """
    from scipy.special import entr  # here, not above: it would double the time that `import svp.select` takes

    # Summed along the contiguous axis, where numpy adds each row by itself in an order that only c decides. Along the
    # other axis a chunk of one row would be added in another order than a chunk of many.
    terms = entr(np.ascontiguousarray(probs, np.float64))
    return np.asarray(terms.sum(axis=1))


def forgetting(correct: NDArray[Any]) -> Floats:
    """How often training lost the example again: the number of changes from right to wrong.

    correct  (n_epochs, n) 1 where the training forward had the example right, 0 where wrong, 255 where it was not shown
    returns  (n,) changes from 1 to 0 between consecutive showings. An example that was never right, be it never shown,
             has n_epochs, above any possible count: it goes first
    cost     n_epochs * n operations; 4 rows of n beside a chunk
    Toneva et al. 2019, "An empirical study of example forgetting during deep neural network learning", ICLR.
    """
    n_epochs, n = correct.shape
    events = np.zeros(n, np.int64)
    was_right = np.zeros(n, bool)
    learned = np.zeros(n, bool)
    for shown in correct:
        right, wrong = shown == 1, shown == 0
        events += was_right & wrong
        was_right = (was_right | right) & ~wrong  # what was not shown stays as it was
        learned |= right
    return np.where(learned, events, n_epochs).astype(np.float64)


def el2n(el2n: NDArray[Any], *, epochs: int = 10) -> Floats:
    """How wrong training was about the example early on: the mean norm of its error, hard ones first.

    el2n     (n_epochs, n) Euclidean norm of softmax minus one-hot, NaN where the example was not shown
    epochs   how many of the first recorded epochs count; all where there are fewer
    returns  (n,) mean over those of these epochs that showed the example, from 0 (surely right) to sqrt(2) (surely wrong).
             An example that none of them showed has no such mean: DataError
    cost     epochs * n operations; 3 rows of n beside a chunk
    Paul, Ganguli and Dziugaite 2021, "Deep learning on a data diet", NeurIPS: there the mean over about 10 trainings at one
    early epoch. For that give several proxies, whose scores are averaged.
    """
    return _mean_over_epochs(el2n[:epochs])


def aum(logit_margin: NDArray[Any], *, keep: str = "hard") -> Floats:
    """How far other classes led the label while training: minus the area under the margin, hard ones first.

    logit_margin  (n_epochs, n) logit of the label minus the best other, NaN where the example was not shown
    keep          "hard": the lowest areas first; "easy": the highest first, which leaves mislabelled examples to the end
    returns       (n,) minus (plus for "easy") the mean margin over the epochs that showed the example; DataError where none did
    cost          n_epochs * n operations; 3 rows of n beside a chunk
    Pleiss et al. 2020, "Identifying mislabeled data using the area under the margin ranking", NeurIPS.
    """
    return _mean_over_epochs(logit_margin) if keep == "easy" else low_aum(logit_margin)


def low_aum(logit_margin: NDArray[Any]) -> Floats:
    """How far other classes led the label while training: minus the area under the margin, as `aum` with hard ones first.

    logit_margin  (n_epochs, n) as for `aum`
    returns       (n,) minus the mean margin over the epochs that showed the example; DataError where none did
    cost          n_epochs * n operations; 3 rows of n beside a chunk
    """
    return 0.0 - _mean_over_epochs(logit_margin)


def data_map(history: NDArray[Any], *, by: str = "variability") -> Floats:
    """Where the example lies on the map of training: how its label's probability went, ambiguous ones first.

    history  (n_epochs, n) the signal p_true, the probability of the label, NaN where the example was not shown; by
             "correctness" the signal correct, 1 where training had the example right, 0 where wrong, 255 where not shown
    by       "variability": standard deviation of p_true over the epochs (ddof 0), high first; "confidence": its mean, low
             first; "correctness": share of the epochs that were right, low first
    returns  (n,) the deviation, or minus the mean or the share; over the epochs that showed the example. DataError where none
             did
    cost     n_epochs * n operations; 4 rows of n beside a chunk
    Swayamdipta et al. 2020, "Dataset cartography: mapping and diagnosing datasets with training dynamics", EMNLP.
    """
    if by == "correctness":
        return 0.0 - _mean_over_epochs(np.where(history == UNSEEN, np.nan, history.astype(np.float64)))
    mean = _mean_over_epochs(history)
    if by == "confidence":
        return 0.0 - mean
    return np.asarray(np.sqrt(_mean_over_epochs(history, about=mean)))


def grand(probs: NDArray[Any], embeddings: NDArray[Any], labels: NDArray[Any], *, ids: Ints) -> Floats:
    """How much the example would move the last layer: the norm of its loss's gradient there, hard ones first.

    probs       (n, c) one row per example, each sums to 1
    embeddings  (n, d) what the last layer is given
    labels      (n,) class numbers, all known
    returns     (n,) |p - onehot(y)| * sqrt(|e|^2 + 1): the gradient of cross-entropy for the weights and the bias of a linear
                last layer
    cost        n (c + d) operations; n floats and a chunk in float64
    Paul, Ganguli and Dziugaite 2021, "Deep learning on a data diet", NeurIPS: there for all layers, early in training, and
    as a mean over trainings.
    """
    labels = known_classes(labels, ids, "grand")
    if len(labels) and labels.max() >= probs.shape[1]:
        raise DataError(f"labels: class {labels.max()}, but probs has the classes 0 to {probs.shape[1] - 1}")
    error = np.array(probs, np.float64, order="C")
    error[np.arange(len(labels)), labels] -= 1
    rows = np.ascontiguousarray(embeddings, np.float64)
    # Summed along the contiguous axis, as in entropy.
    return np.asarray(np.sqrt((error * error).sum(axis=1)) * np.sqrt((rows * rows).sum(axis=1) + 1))


def given(scores: NDArray[Any]) -> Floats:
    """Your own scores, the highest first.

    scores   (n,) any finite numbers
    returns  (n,) the same
    cost     n operations; n floats
    """
    return np.asarray(scores, np.float64)


def known_classes(labels: NDArray[Any], ids: Ints, method: str) -> Ints:
    """(n,) int64 class numbers; DataError if one is not known."""
    classes = labels.astype(np.int64)
    if len(unknown := ids[classes < 0]):
        raise DataError(
            f"{method}: examples without a label (-1), the first ids: {unknown[:3].tolist()}; leave them out, or choose a "
            "method that needs no labels"
        )
    return classes


def _mean_over_epochs(signal: NDArray[Any], about: Floats | None = None) -> Floats:
    """(n,) mean over the epochs that showed the example, NaN where none did; with `about` of the squared distance to it.

    Added epoch by epoch, so that the order of additions depends on nothing else.
    """
    total, count = np.zeros(signal.shape[1]), np.zeros(signal.shape[1])
    for row in signal:
        values = row.astype(np.float64)
        shown = ~np.isnan(values)
        if about is not None:
            values = (values - about) ** 2
        total[shown] += values[shown]
        count += shown
    return np.asarray(np.divide(total, count, out=np.full(len(total), np.nan), where=count > 0))
