"""Scores that compare an example with the middle of its group; they see all examples at once.

Whatever is added up is added in an order of the ids, so that shuffled rows keep their scores to the last bit.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.chance import hash_ids
from svp.select.clusters import k_means
from svp.select.geometry import BLOCK, float_rows, mean_row, scale_of, split, squared
from svp.select.scores import known_classes
from svp.select.table import Floats, Ints


def moderate(embeddings: NDArray[Any], labels: NDArray[Any], *, ids: Ints, ground: Ints, median: str = "all") -> Floats:
    """How near the example is to the typical distance from its class's centre, the most usual first.

    embeddings  (n, d) one row per example
    labels      (n,) class numbers, known of all that take part
    ground      (g,) positions of those that take part: all that are not excluded
    median      of the distances of "all" examples, as in the paper and its code; or of the example's own "class"
    returns     (g,) minus |d_i - median|, where d_i is the distance to the mean of its class
    cost        n d operations, and sorting n numbers; about 40 n + 8 c d bytes and a few MB of blocks
    Xia et al. 2023, "Moderate coreset: a universal method of data selection for real-world deep learning tasks", ICLR. Its code
    takes the median, coordinate by coordinate, for the centre, where its text has the mean.
    """
    ids = ids[ground]
    classes = known_classes(labels[ground], ids, "moderate")
    # Class by class, and by id inside: the sums must not depend on the order of the rows.
    order = np.lexsort((ids, classes))
    groups = np.split(order, np.flatnonzero(np.diff(classes[order])) + 1) if len(order) else []
    scale = scale_of(embeddings, ground[order])
    distances = np.empty(len(classes))
    for group in groups:
        centre = mean_row(embeddings, ground[group], scale)
        for block in split(group, BLOCK):
            distances[block] = np.sqrt(squared(float_rows(embeddings, ground[block], scale), centre)) / scale
    for group in [order] if median == "all" else groups:
        distances[group] -= np.median(distances[group]) if len(group) else 0
    return np.asarray(-np.abs(distances))


def ssl_prototypes(
    embeddings: NDArray[Any], *, ids: Ints, ground: Ints, seed: int, memory: int, clusters: int = 10
) -> Floats:
    """How far the example is from the nearest prototype, a k-means centre: the least typical first.

    embeddings  (n, d) one row per example, of a model that learned without labels in the paper
    ground      (g,) positions of those that take part: all that are not excluded
    clusters    how many prototypes; the paper takes as many as there are classes, and finds a few times more or less alike
    returns     (g,) Euclidean distances
    cost        that of `clusters.k_means`: about 30 n d operations for each prototype; 4 n (d + 10) bytes and `memory`
    Sorscher et al. 2022, "Beyond neural scaling laws: beating power law scaling via data pruning", NeurIPS. Where data are scarce
    it finds the typical ones the better choice: give the scores with the other sign (method "given").
    """
    distances = np.zeros(len(ground))
    if len(ground):
        order = np.argsort(hash_ids(ids[ground], seed, "ssl_prototypes"))
        distances[order] = k_means(embeddings, ground[order], clusters, seed=seed, memory=memory).distances
    return distances
