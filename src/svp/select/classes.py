"""Classes by name: labels that are text are numbered in the order of the sorted names."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from svp.errors import SettingError

Names = tuple[str, ...]


def as_numbers(labels: ArrayLike) -> tuple[NDArray[Any], Names | None]:
    """Labels as numbers, and the names of the classes; numbers as they are, and None.

    labels   (n,) numbers, or text; of text None, NaN and "" are unknown
    returns  (n,) class numbers, -1 where unknown; the names sorted, so that "cat" is below "dog" whatever the order of the rows
    """
    values = np.asarray(labels)
    if values.dtype.kind not in "UTO" or values.ndim != 1:
        return values, None
    words = values.tolist()
    if any(not (word is None or isinstance(word, str) or word != word) for word in words):
        return values, None
    names = tuple(sorted({word for word in words if isinstance(word, str) and word}))
    number: dict[Any, int] = {name: c for c, name in enumerate(names)}
    return np.fromiter((number.get(word, -1) for word in words), np.int64, len(words)), names


def numbered(per_class: Any, names: Names) -> Any:
    """Limits per class with the numbers of the classes that they name."""
    if not isinstance(per_class, Mapping):
        return per_class

    def number_of(name: Any) -> int:
        if str(name) not in names:
            raise SettingError(f"per_class: there is no class {name!r}; labels has {', '.join(names)}")
        return names.index(str(name))

    return {
        limit: {number_of(name): value for name, value in given.items()} if isinstance(given, Mapping) else given
        for limit, given in per_class.items()
    }
