"""One number per example; higher = taken first, always finite.

These are the bare formulas: `svp.score` and `svp.select` check the arrays first and feed them in chunks of examples, so
that an array on disk is never in memory whole. Each is computed in float64 from one example alone, in an order of
operations that depends neither on its row nor on the chunk: shuffled rows keep their scores to the last bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import hash_ids
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
