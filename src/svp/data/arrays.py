"""Arrays in an `.npz` file, as `numpy.savez` writes it. Nothing in it is ever unpickled."""

import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from svp.data.base import TEST_SHARE, Dataset, check_memory, with_held_out_test
from svp.errors import DataError, SettingError

NAMES = {  # what an array is: what it may be called
    "inputs": ("x", "X", "inputs", "x_train", "X_train"),
    "labels": ("y", "Y", "labels", "y_train", "Y_train"),
    "test inputs": ("x_test", "X_test", "inputs_test"),
    "test labels": ("y_test", "Y_test", "labels_test"),
    "ids": ("ids",),
    "keys": ("keys",),
    "classes": ("classes",),
}


def load(path: str | os.PathLike[str], test_share: float = TEST_SHARE) -> Dataset:
    """A dataset from arrays by name.

    x (or X, inputs, x_train)   (n, ...) uint8 images or rows of numbers; required
    y (or Y, labels, y_train)   (n,) class numbers; without them the dataset is unlabelled
    x_test, y_test              the test part; without it test_share of each class is held out
    ids, keys, classes          as in `Dataset.from_arrays`: (n,) integers, (n,) names of rows, (c,) names of classes

    Raises DataError naming the array that is missing, unknown, made of Python objects or of the wrong shape.
    Memory: the arrays, once; twice while a test part is held out.
    """
    path = Path(path)
    arrays = _arrays(path)
    if ("test inputs" in arrays) != ("test labels" in arrays):
        raise DataError(f"{path} has one of x_test and y_test; give both, or neither to have a part held out")
    test = (arrays["test inputs"], arrays["test labels"]) if "test inputs" in arrays else None
    if test is not None and test_share != TEST_SHARE:
        raise SettingError(f"{path}: test_share (--test-share) means nothing here; the file brings its own test part")
    data = Dataset.from_arrays(
        arrays["inputs"],
        arrays.get("labels"),
        classes=_words(path, arrays.get("classes")),
        ids=arrays.get("ids"),
        keys=_words(path, arrays.get("keys")),
        test=test,
        name=path.stem,
    )
    if data.labels is None and test_share != TEST_SHARE:
        raise SettingError(f"{path}: test_share (--test-share) means nothing here; without labels nothing is held out")
    return data if test is not None else with_held_out_test(data, test_share)


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays by what they are; the inputs are among them."""
    roles = {name: role for role, names in NAMES.items() for name in names}
    arrays: dict[str, NDArray[Any]] = {}
    try:
        if not zipfile.is_zipfile(path):
            raise DataError(
                f"{path} is no .npz file, or a truncated one; write it with numpy.savez, or give a folder of images"
            )
        with zipfile.ZipFile(path) as file:
            check_memory(sum(member.file_size for member in file.infolist()), str(path))
        with np.load(path, allow_pickle=False) as file:
            present = ", ".join(file.files) or "nothing"
            if unknown := [name for name in file.files if name not in roles]:
                raise DataError(f"{path} has unknown arrays: {', '.join(unknown)}; known are {', '.join(roles)}")
            for name in file.files:
                if roles[name] in arrays:
                    raise DataError(f"{path} has two arrays of {roles[name]}; it has {present}")
                arrays[roles[name]] = _array(path, file, name)
            if "inputs" not in arrays:
                raise DataError(f"{path} has no array x (or {', '.join(NAMES['inputs'][1:])}); it has {present}")
    except DataError:
        raise
    except Exception as error:  # a damaged zip can raise anything
        raise DataError(f"{path} cannot be read: {error}") from error
    return arrays


def _array(path: Path, file: Any, name: str) -> NDArray[Any]:
    try:
        array = file[name]
    except ValueError as error:
        if "allow_pickle" not in str(error):
            raise
        raise DataError(
            f"{path}: array {name} holds Python objects, which only a pickle could bring back; "
            "save it as numbers or as strings of fixed width"
        ) from None
    if not isinstance(array, np.ndarray):
        raise DataError(f"{path}: {name} is no array; write the file with numpy.savez")
    return array


def _words(path: Path, array: NDArray[Any] | None) -> list[str] | None:
    """Names from an array of strings, bytes or numbers."""
    if array is None:
        return None
    if array.ndim != 1:
        raise DataError(f"{path}: names of classes or keys have shape {array.shape}; give a flat array of strings")
    return [value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value) for value in array.tolist()]
