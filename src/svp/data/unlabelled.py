"""Examples that nobody has labelled: photos in a folder, however they lie there, and texts in tables without labels."""

import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from svp.config import DataConfig
from svp.data import decode, load_test, parquet, takes, text_cache
from svp.data import load as load_labelled
from svp.data.base import Dataset, Progress, printable, silent
from svp.data.images import test_folder, unsorted
from svp.data.photos import IMAGE_SIZE, Files, dataset_of, short_side_of, some
from svp.data.shards import divided
from svp.data.text import LABELS, columns_of_texts, is_source, kind_of, row_keys
from svp.data.text_files import names_of
from svp.data.texts import Texts
from svp.errors import DataError, SettingError, SvpWarning


def load(
    config: DataConfig, classes: tuple[str, ...], progress: Progress | None = None, *, tested: bool = False
) -> Dataset:
    """The examples that a configuration names, without labels, which are to be some of `classes`.

    A folder of photos: all images in it and below it; keys are their paths. A table of texts, or a folder of such tables: all
    rows; keys are row numbers, of several files FILE:ROW. So Parquet of images, where it has no labels. Anything else as
    `svp.load_dataset` reads it, its labels hidden.
    tested  a model is to be asked about them: where there is a test part, that alone. No labels are read then
    Errors and costs are those of `svp.load_dataset`.
    """
    path = Path(config.dataset).expanduser()
    if are_texts(config):
        return _texts(path, config, classes, progress or silent, tested=tested)
    if are_photos(config):
        return _photos(path, config, classes, progress, tested=tested)
    if parquet.is_source(path) and (tested or not parquet.is_labelled(path, config.label_column)):
        return _rows(path, config, classes, progress, tested=tested)
    # A session skips unless told otherwise; here is nothing to be skipped.
    if not takes(config.dataset, "on_error"):
        config = config.model_copy(update={"on_error": "refuse"})
    data = (load_test if tested else load_labelled)(config, progress)
    return replace(data.without_labels(), classes=classes or data.classes)


def unread_labels(config: DataConfig) -> str | None:
    """The column of labels that a table of texts has, if one is called so: of it nothing is read."""
    if not are_texts(config):
        return None
    path = Path(config.dataset).expanduser()
    train, _ = divided(path, (kind_of(path),))
    names = names_of(train[0], config.encoding, config.quotes)
    return next((name for name in names if name.strip().lower() in LABELS and name not in config.text_column), None)


def are_photos(config: DataConfig) -> bool:
    """Whether a configuration names a folder of photos, told without reading one."""
    path = Path(config.dataset).expanduser()
    return path.is_dir() and not are_texts(config) and not parquet.is_source(path)


def are_texts(config: DataConfig) -> bool:
    """Whether a configuration names a table of texts, or a folder of them, told by its columns."""
    path = Path(config.dataset).expanduser()
    columns = {"text_column": config.text_column, "image_column": config.image_column}
    return path.exists() and is_source(path, {name: value for name, value in columns.items() if value})


def listed(config: DataConfig) -> Files:
    """The photos in a folder with the ids and keys that `load` gives them, those among them that turn out to be unreadable.

    Errors are those of `load`, as far as they show without reading a photo. Cost: a look at the size and time of each file.
    """
    files, _ = _listed(Path(config.dataset).expanduser(), config, tested=False)
    short_side_of(config.image_size or IMAGE_SIZE, config.short_side)
    return files


def _listed(root: Path, config: DataConfig, *, tested: bool) -> tuple[Files, dict[str, list[str]]]:
    """The photos in a folder and below it, and the paths of files that are none, by the reason."""
    if config.text_column or config.image_column or config.data:
        raise SettingError(f"{root} is a folder of photos; it has no columns, and no other folder of data")
    files, strangers = unsorted(root, test_folder(root) if tested else None)
    if not len(files.ids):
        raise DataError(f"{root} has no photos in it; give the folder that holds them")
    return files, strangers


def _photos(
    root: Path, config: DataConfig, classes: tuple[str, ...], progress: Progress | None, *, tested: bool
) -> Dataset:
    files, strangers = _listed(root, config, tested=tested)

    def paths(positions: list[int]) -> list[decode.Item]:
        return [os.path.join(root, files.keys[i]) for i in positions]

    return _images(root, files, paths, config, classes, progress, strangers)


def _rows(
    source: Path, config: DataConfig, classes: tuple[str, ...], progress: Progress | None, *, tested: bool
) -> Dataset:
    if config.text_column or config.data:
        raise SettingError(f"{source} holds images; text_column and data mean nothing here")
    files, items = parquet.unsorted(source, config.image_column, tested=tested)
    return _images(source, files, items, config, classes, progress)


def _images(
    source: Path,
    files: Files,
    items: Callable[[list[int]], list[decode.Item]],
    config: DataConfig,
    classes: tuple[str, ...],
    progress: Progress | None,
    strangers: Mapping[str, Sequence[str]] = MappingProxyType({}),
) -> Dataset:
    data = dataset_of(
        source,
        (files, files.where(np.zeros(len(files.ids), bool))),
        ("photos",),
        items,
        image_size=config.image_size or IMAGE_SIZE,
        short_side=config.short_side,
        on_error=config.on_error,
        cache=config.cache,
        progress=progress,
        strangers=strangers,
    )
    return replace(data, labels=None, classes=classes)


def _texts(source: Path, config: DataConfig, classes: tuple[str, ...], progress: Progress, *, tested: bool) -> Dataset:
    if config.image_size or config.image_column or config.data:
        raise SettingError(f"{source} holds texts; image_size, image_column and data mean nothing here")
    train, tests = divided(source, (kind_of(source),))
    files = tests[0] if tested and tests else train
    columns = columns_of_texts(files[0], config.text_column, config.encoding, config.quotes)
    found = text_cache.read(source, files, columns, cache=config.cache, progress=progress)
    texts = Texts([one.arrow for one in found])
    names = [printable(file.relative_to(source).as_posix() if file != source else file.name) for file in files]
    problems = [line for name, one in zip(names, found, strict=True) for line in one.problems.lines(name)]
    if problems and config.on_error == "refuse":
        raise DataError(
            f"{source}: rows cannot be used: {some(problems)}; repair or remove them, or leave them out with on_error='skip' "
            "(--on-error skip)"
        )
    if not len(texts):
        raise DataError(f"{source}: no row can be used: {some(problems) or 'there is none'}")
    if problems:
        warnings.warn(f"{source}: rows left out: {some(problems)}", SvpWarning, stacklevel=3)
    ids = text_cache.row_ids(found)
    keys = row_keys(source, files, found) if len(files) > 1 else None
    name = printable(source.resolve().stem if source.is_file() else source.resolve().name)
    inputs = cast(NDArray[Any], texts)  # to whoever reads it, it is such an array
    return Dataset(name, inputs, None, classes, ids, keys, problems=tuple(problems))
