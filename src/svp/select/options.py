"""What an option may be: the checks that the rows of the tables share.

A row's `check` is called as check(shape, **options) before anything is computed, by `svp.select` and by workflows before they
train; it raises SettingError for options that can come to no good at these sizes.
"""

import math
from typing import Any

import numpy as np

from svp.errors import DataError, SettingError
from svp.select.table import Check, Shape


def is_whole(value: Any) -> bool:
    """Python's or numpy's whole numbers; True and False are none."""
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whole numbers and floats, of Python or numpy; NaN is none."""
    return is_whole(value) or (isinstance(value, (float, np.floating)) and not math.isnan(value))


def unmasked(name: str, values: Any) -> None:
    """DataError for an array with masked values: numpy would hand on what is under the mask."""
    if np.ma.is_masked(values):
        n = int(np.ma.getmaskarray(values).sum())
        raise DataError(f"{name}: {n} values are masked; leave those examples out, or fill them: .filled(...)")


def whole(name: str, value: Any, least: int) -> None:
    """SettingError unless it is a whole number, `least` or more."""
    if not is_whole(value) or value < least:
        raise SettingError(f"{name}={value!r}; give a whole number, {least} or more")


def number(name: str, value: Any, least: float, below: float = math.inf) -> None:
    """SettingError unless it is a finite number from `least` to under `below`."""
    if not is_number(value) or not least <= value < below:
        upper = "" if below == math.inf else f" and below {below:g}"
        raise SettingError(f"{name}={value!r}; give a number, {least:g} or more{upper}")


def one_of(name: str, value: Any, *known: str) -> None:
    """SettingError unless it is one of these words."""
    if value not in known:
        raise SettingError(f"{name}={value!r}; give {' or '.join(map(repr, known))}")


def wholes(**least: int) -> Check:
    """The check of a row whose options of these names are whole numbers, each with the least it may be."""

    def check(shape: Shape, **options: Any) -> None:
        for name, value in least.items():
            whole(name, options[name], value)

    return check


def words(**known: tuple[str, ...]) -> Check:
    """The check of a row whose options of these names are words, each with those it knows."""

    def check(shape: Shape, **options: Any) -> None:
        for name, value in known.items():
            one_of(name, options[name], *value)

    return check
