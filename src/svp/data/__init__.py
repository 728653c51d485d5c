"""Examples come in: `load_dataset("cifar10", root=DIR)`, a folder of photos, tables of texts, an `.npz`, or your own function.

Adding a source is one function `load(...) -> Dataset` in one file, and a row in `DATASETS`.
"""

import inspect
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from svp.config import DataConfig
from svp.data.base import TEST_SHARE, Dataset, OnError, Progress, hold_out
from svp.errors import DataError, SettingError, UnknownName, if_spreadsheet, own_code
from svp.files import reading_errors
from svp.names import PATH, resolve

__all__ = ["DATASETS", "Dataset", "Source", "hold_out", "load_dataset"]


@dataclass(frozen=True)
class Source:
    """Where a dataset comes from.

    load     import string of the function that reads it, `"package.module:function"`; imported when used
    summary  one line for `svp list datasets`
    args     what the function is given first
    options  which options of `load_dataset` the function takes; any other that is given is refused
    """

    load: str
    summary: str
    options: tuple[str, ...] = ()
    args: tuple[str, ...] = ()


def _cifar(name: str, classes: str) -> Source:
    return Source("svp.data.cifar:load", f"60,000 photos, 32 x 32 RGB, {classes}", ("root", "progress"), (name,))


def _amazon(name: str, size: str, classes: str) -> Source:
    return Source("svp.data.text:load_amazon", f"{size} reviews, {classes}; not fetched", _OF_AMAZON, (name,))


_OF_AMAZON = ("root", "on_error", "cache", "progress")
DATASETS = {
    "digits": Source(
        "svp.data.digits:load", "1,797 handwritten digits, 8 x 8 grey, 10 classes; ships with scikit-learn"
    ),
    "cifar10": _cifar("cifar10", "10 classes"),
    "cifar100": _cifar("cifar100", "100 classes"),
    "cifar100-coarse": _cifar("cifar100-coarse", "the 100 classes of cifar100 in 20"),
    "imagenet": Source(
        "svp.data.images:load_imagenet",
        "1,331,167 photos (ILSVRC 2012), 1,000 classes; not fetched",
        ("root", "image_size", "short_side", "on_error", "cache", "progress"),
    ),
    "amazon-polarity": _amazon("amazon-polarity", "4,000,000", "negative or positive"),
    "amazon-full": _amazon("amazon-full", "3,650,000", "1 to 5 stars"),
}

_NPZ = Source("svp.data.arrays:load", "arrays x and y in an .npz file", ("test_share",))
_FOLDER = Source(
    "svp.data.images:load",
    "a folder of class folders of images",
    ("image_size", "short_side", "on_error", "test_share", "cache", "progress"),
)
_PARQUET = Source(
    "svp.data.parquet:load",
    "images as bytes in Parquet, a file or a folder of shards",
    ("image_size", "short_side", "image_column", "label_column", "on_error", "test_share", "cache", "progress"),
)
_TEXT = Source(
    "svp.data.text:load",
    "texts in .csv, .tsv, .jsonl or .parquet, a file or a folder of shards",
    ("text_column", "label_column", "encoding", "quotes", "on_error", "test_share", "cache", "progress"),
)


def load_dataset(
    name_or_path: str | os.PathLike[str],
    *,
    root: str | os.PathLike[str] | None = None,
    image_size: int | None = None,
    short_side: int | None = None,
    image_column: str | None = None,
    text_column: str | Sequence[str] = (),
    label_column: str | None = None,
    encoding: str = "utf-8",
    quotes: bool | None = None,
    on_error: OnError = "refuse",
    test_share: float = TEST_SHARE,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """Load a dataset by its name, its path, or the function that makes it.

    name_or_path  a name in `DATASETS` (`svp list datasets`); else a path to an `.npz`, a folder of class folders, a file of
                  texts or a Parquet file of images, or a folder of those (`./digits` for one called like a dataset); else
                  `"package.module:function"`, called with root
    root          where a named dataset lies, or is put when it is fetched; default `$SVP_DATA`, else
                  `$XDG_CACHE_HOME/svp`, else `~/.cache/svp`
    image_size    side of the square that photos are scaled to; default 64, of imagenet 224
    short_side    pixels that the short side is scaled to before image_size is cut out of the middle; default image_size, of
                  imagenet at 224 pixels 256
    image_column  column of the image files in Parquet; default image, img, jpg, png or bytes
    text_column   column of texts, or several to be joined by a space; default text, sentence, content, review and more
    label_column  column of class numbers or names; default label, labels, class, target and more
    encoding      of .csv, .tsv and .jsonl
    quotes        whether quotes in .csv and .tsv enclose fields (True) or are letters (False); default: they enclose, and
                  between tabs a row that has rows within its quotes is refused
    on_error      what to do about images and rows that cannot be read: "refuse" the dataset, or "skip" them and name them
                  in `Dataset.problems`
    test_share    how much of each class is held out where the source brings no test part; 0 holds out nothing
    cache         folder for decoded photos, and texts as they were read; default `$XDG_CACHE_HOME/svp/images` (`texts`), else
                  `~/.cache/svp/...`
    progress      called now and then with (what, done, total)

    Raises UnknownName with the nearest known name, DataError naming the file that is missing or broken, SettingError
    for an option that the source has no use for (none is ignored). Memory: all inputs, uint8 or float32; photos and texts
    stay on disk.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise SettingError(
            f"the dataset is named by a {type(name_or_path).__name__}; give a name (svp list datasets) or a path; arrays "
            "become a dataset by svp.Dataset.from_arrays"
        )
    if not os.fspath(name_or_path):
        raise SettingError(
            "the dataset has an empty name; give a name (svp list datasets) or a path ('.' for this folder)"
        )
    if on_error not in ("refuse", "skip"):
        raise SettingError(f"on_error is 'refuse' or 'skip', not {on_error!r}")
    given: dict[str, Any] = {
        option: value
        for option, value, default in (
            ("root", root, None),
            ("image_size", image_size, None),
            ("short_side", short_side, None),
            ("image_column", image_column, None),
            ("text_column", text_column, ()),
            ("label_column", label_column, None),
            ("encoding", encoding, "utf-8"),
            ("quotes", quotes, None),
            ("on_error", on_error, "refuse"),
            ("test_share", test_share, TEST_SHARE),
            ("cache", cache, None),
        )
        if value != default
    }
    source, args = _find(name_or_path, given)
    if extra := [option for option in given if option not in source.options]:
        takes = _spelled(option for option in source.options if option != "progress") or "no options"
        raise SettingError(f"{name_or_path}: {_spelled(extra)} means nothing here; this dataset takes {takes}")
    if progress is not None and "progress" in source.options:
        given["progress"] = progress
    function = resolve(source.load)
    with own_code(source.load if source.load == os.fspath(name_or_path) else ""):
        data = function(*args, **given)
    if not isinstance(data, Dataset):
        raise DataError(f"{source.load} returned a {type(data).__name__}; it must return a svp.Dataset")
    return data


def load(config: DataConfig, progress: Progress | None = None) -> Dataset:
    """The dataset that a configuration names."""
    return load_dataset(
        config.dataset,
        root=config.data,
        image_size=config.image_size,
        short_side=config.short_side,
        image_column=config.image_column,
        text_column=config.text_column,
        label_column=config.label_column,
        encoding=config.encoding,
        quotes=config.quotes,
        on_error=config.on_error,
        test_share=config.test_share,
        cache=config.cache,
        progress=progress,
    )


def load_test(config: DataConfig, progress: Progress | None = None) -> Dataset:
    """The test part, where a source brings one of its own; else all of it."""
    try:
        data = load(config.model_copy(update={"test_share": 0.0}), progress)
    except SettingError:  # it brings one, or knows no labels, so that none can be held out; or something else is wrong
        data = load(config.model_copy(update={"test_share": TEST_SHARE}), progress)
    return data if data.test is None else data.test


def takes(name_or_path: str, option: str, given: Mapping[str, Any] = MappingProxyType({})) -> bool:
    """Whether the source that is meant has a use for this option of `load_dataset`. Raises what that does for a name or path.

    given  other options, which may say what source is meant: a column of images
    """
    return option in _find(name_or_path, dict(given))[0].options


def _find(name_or_path: str | os.PathLike[str], given: dict[str, Any]) -> tuple[Source, tuple[Any, ...]]:
    """The source that is meant, and the arguments that it takes before its options."""
    name = os.fspath(name_or_path)
    if isinstance(name_or_path, str) and name in DATASETS:
        return DATASETS[name], DATASETS[name].args
    path = Path(name).expanduser()
    with reading_errors(path):
        if path.exists():
            return _source_of(path, given), (path,)
    if PATH.fullmatch(name):
        root = given.pop("root", None)
        takes_root = bool(inspect.signature(resolve(name)).parameters)
        if root is not None and not takes_root:
            raise SettingError(f"{name}: {_spelled(['root'])} means nothing here; the function takes no argument")
        return Source(name, "a function of yours", ("root",)), (root,) if takes_root else ()
    if isinstance(name_or_path, os.PathLike) or name != path.name or path.suffix or path.is_symlink():
        raise DataError(
            f"{name} does not exist; give a folder of class folders, a table of texts (.csv, .tsv, .jsonl, .parquet), an .npz "
            "file or a name (svp list datasets)"
        )
    raise UnknownName("dataset", name, DATASETS, "svp list datasets; or a path, or package.module:function")


def _source_of(path: Path, given: dict[str, Any]) -> Source:
    """What reads this file or folder, which exists."""
    from svp.data import parquet, text

    if path.is_file() and (hint := if_spreadsheet(path.suffix)):
        raise DataError(f"{path} is a file of a spreadsheet, which is not read{hint}, and give that")
    if text.is_source(path, given):
        return _TEXT
    return _PARQUET if parquet.is_source(path) else _FOLDER if path.is_dir() else _NPZ


def _spelled(options: Iterable[str]) -> str:
    """Options as a caller and as the command line spells them."""
    flags = {"root": "--data"}
    return ", ".join(f"{option} ({flags.get(option, '--' + option.replace('_', '-'))})" for option in options)
