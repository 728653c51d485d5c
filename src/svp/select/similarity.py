"""How alike the examples are: a matrix of the caller's, or one made of embeddings block by block."""

from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from svp.select.table import Ints


class Similarity:
    """(n, n) similarities, finite."""

    def __init__(self, matrix: NDArray[Any]) -> None:
        self.matrix = matrix

    @classmethod
    def given(cls, matrix: Any, ids: Ints, neighbors: int | None, memory: int) -> Self:
        return cls(np.asarray(matrix))

    @classmethod
    def made(cls, embeddings: NDArray[Any], neighbors: int | None, memory: int) -> Self:
        rows = embeddings.astype(np.float64)
        return cls(rows @ rows.T)
