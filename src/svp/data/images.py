"""Photos in a folder of class folders: decoded once, scaled to one size and kept in memory as uint8."""

import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from svp.data.base import TEST_SHARE, Dataset, OnError, Progress, check_memory, hold_out, printable
from svp.errors import DataError, SettingError, SvpWarning

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
TEST_FOLDERS = ("test", "val", "valid")  # the first that has class folders is the test part
_LITTER = ("thumbs.db", "desktop.ini")  # what systems leave in folders of images
_OTHER_PARTS = ("training", "testing", "validation")  # what people call parts too

_BLOCK = 32  # images that a thread decodes at a time


@dataclass(frozen=True)
class _Files:
    """Image files in order of id: (n,) ids, paths relative to the root in posix form, and (n,) labels."""

    ids: NDArray[np.int64]
    keys: tuple[str, ...]
    labels: NDArray[np.int64]

    def where(self, chosen: NDArray[np.bool_]) -> "_Files":
        return _Files(self.ids[chosen], tuple(self.keys[i] for i in np.flatnonzero(chosen)), self.labels[chosen])


def load(
    root: str | os.PathLike[str],
    image_size: int = 64,
    on_error: OnError = "refuse",
    test_share: float = TEST_SHARE,
    progress: Progress | None = None,
) -> Dataset:
    """A dataset from `root/CLASS/*.jpg`, or from `root/train/CLASS/` and `root/{test,val,valid}/CLASS/`.

    image_size  images become (image_size, image_size, 3): the short side is scaled to it (bicubic) and the centre is
                cut out. They are turned as their camera says, transparency becomes white, 16 bits become 8, and an
                animation is its first frame
    on_error    "refuse" a folder in which an image cannot be read; or "skip" such images and name them in `problems`
    test_share  how much of each class is held out where there is no test folder
    progress    called with ("reading images", done, total)

    ids         rank of the image's path relative to root, in bytes, among all files of its part, broken ones included:
                skipping one changes no other's id, nor who is held out. keys are these paths
    classes     names of the class folders of the training part, sorted; images may lie in folders below them

    Parts may be spelled in any case (Train/, TEST/). Where both test/ and val/ have class folders, val/ is left alone. Without
    train/, a folder `test`, and any other folder of folders that is called like a part, is refused: it is no class.
    Hidden files and files outside of class folders are not looked at. What else is left out (skipped images, files with other
    suffixes than those of SUFFIXES) stands in `problems`, and a SvpWarning says how much it is.
    Raises DataError naming what is empty, broken, too large for the memory, or a class only in the test part.
    Memory: 3 n image_size^2 bytes; threads share the decoding.
    """
    root = Path(root)
    if not 1 <= image_size <= 4096:
        raise SettingError(f"image_size (--image-size) is {image_size}; give a number of pixels from 1 to 4096")
    train_folder, test_folder = _parts(root)
    classes = _class_names(train_folder)
    files, strangers = _list(root, train_folder, classes)
    if test_folder is None:
        in_test = np.zeros(len(files.ids), bool)
        in_test[hold_out(files.labels, files.ids, test_share)] = True
        files, test_files = files.where(~in_test), files.where(in_test)
    else:
        if test_share != TEST_SHARE:
            raise SettingError(
                f"{root}: test_share (--test-share) means nothing here; {test_folder.name}/ is the test part"
            )
        if extra := [name for name in _folders(test_folder) if name not in classes]:
            raise DataError(f"{test_folder} has classes that {train_folder} lacks: {_some(extra)}")
        test_files, test_strangers = _list(root, test_folder, classes)
        strangers += test_strangers
    keys = files.keys + test_files.keys
    what = f"{root}: {len(keys):,} images of {image_size} x {image_size}"
    check_memory(3 * len(keys) * image_size**2, what, "a smaller image_size (--image-size), ")

    images, broken = _decode(root, keys, image_size, progress)
    if broken and on_error == "refuse":
        named = [f"{printable(keys[i])} ({reason})" for i, reason in sorted(broken.items())]
        raise DataError(
            f"{root}: {len(broken)} of {len(keys)} images cannot be read: {_some(named)}; "
            "repair or remove them, or leave them out with on_error='skip' (--on-error skip)"
        )
    n = len(files.ids)
    kept = set(np.delete(files.labels, [i for i in broken if i < n]).tolist())
    if gone := [name for label, name in enumerate(classes) if label not in kept]:
        raise DataError(f"{root}: no image of these classes can be read: {_some(gone)}")
    name = printable(root.resolve().name)
    broken_tests = {i - n: reason for i, reason in broken.items() if i >= n}
    test = _part(f"{name} (test)", images[n:], test_files, broken_tests, classes)
    data = _part(name, images[:n], files, {i: reason for i, reason in broken.items() if i < n}, classes, test)
    data = replace(data, problems=(*data.problems, *_by_suffix(strangers)))
    if data.problems:
        left_out = _counted(len(broken) + len(strangers))
        warnings.warn(f"{root}: {left_out} left out: {_some(data.problems)}", SvpWarning, stacklevel=2)
    return data


# --- finding the files


def listing(root: Path) -> tuple[str, ...]:
    """Paths relative to `root` of its images in order of id: those `load` gives ids, or of a folder without classes all.

    Held-out images are among them; a test folder beside train/ is not.
    """
    folder, _ = _parts(root)
    places = [folder / name for name in _folders(folder)] or [folder]
    images = (path for place in places for path in _visible(place) if path.suffix.lower() in SUFFIXES)
    found = sorted(os.fsencode(path.relative_to(root).as_posix()) for path in images)
    return tuple(os.fsdecode(path) for path in found)


def _parts(root: Path) -> tuple[Path, Path | None]:
    """The folders of the training and of the test part: folders in `train/` make it a part, not a class."""
    parts = {name: _spelled(root, name) for name in ("train", *TEST_FOLDERS)}
    if (train := parts["train"]) is not None:
        return train, next((folder for name in TEST_FOLDERS if (folder := parts[name]) is not None), None)
    for name in _folders(root):
        called = name.lower()
        if called == "test" or (called in (*TEST_FOLDERS, *_OTHER_PARTS) and _folders(root / name)):
            raise DataError(
                f"{root}: {name} looks like a part of the data and not like a class; put the class folders to train on into "
                f"{root / 'train'} and those to test on into {root / 'test'}, or rename {name} if it is a class"
            )
    return root, None


def _spelled(root: Path, part: str) -> Path | None:
    """The folder of folders that is called `part`, in any case of letters; None where there is none."""
    found = [name for name in _folders(root) if name.lower() == part and _folders(root / name)]
    if len(found) > 1:
        raise DataError(f"{root} has {' and '.join(found)}; rename one of them, so that one part is called {part}")
    return root / found[0] if found else None


def _folders(folder: Path) -> list[str]:
    """Names of the visible folders in a folder, in order of their bytes."""
    try:
        with os.scandir(folder) as entries:
            return sorted((e.name for e in entries if e.is_dir() and not e.name.startswith(".")), key=os.fsencode)
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error


def _visible(folder: Path) -> Iterator[Path]:
    """All files in a folder and in the folders below it, but for hidden ones."""

    def refuse(error: OSError) -> None:
        raise DataError(f"{error.filename} cannot be read: {error.strerror}") from error

    for place, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(place, name) for name in files if not name.startswith("."))


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(_folders(folder))
    if len(names) < 2:
        what = f"has only the folder {names[0]}" if names else "has no folders" if any(folder.iterdir()) else "is empty"
        raise DataError(f"{folder} {what}; give a folder with a folder of images for each class, at least two")
    if unclear := [printable(name) for name in names if name != printable(name)]:
        raise DataError(f"{folder} has class folders whose names are not UTF-8: {_some(unclear)}; rename them")
    return names


def _list(root: Path, folder: Path, classes: tuple[str, ...]) -> tuple[_Files, list[str]]:
    """The images of one part in order of id, and the paths of files that are none by their suffix."""
    found, strangers = [], []
    for name in _folders(folder):
        for path in _visible(folder / name):
            key = path.relative_to(root).as_posix()
            if path.suffix.lower() in SUFFIXES:
                found.append((os.fsencode(key), classes.index(name)))
            elif path.name.lower() not in _LITTER:
                strangers.append(key)
    found.sort()
    labels = np.array([label for _, label in found], np.int64)
    if empty := [name for name in _folders(folder) if not (labels == classes.index(name)).any()]:
        raise DataError(
            f"{folder} has class folders without images: {_some(empty)}; remove them, or add images "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    return _Files(np.arange(len(found)), tuple(os.fsdecode(key) for key, _ in found), labels), strangers


def _by_suffix(paths: list[str]) -> list[str]:
    """What is left out for its suffix, a line each."""
    named: dict[str, list[str]] = {}
    for path in sorted(paths):
        named.setdefault(printable(os.path.splitext(path)[1].lower()), []).append(printable(path))
    return [
        f"{_counted(len(some))} {f'ending in {suffix}' if suffix else 'without a suffix'}, which is not read here ({_some(some)})"
        for suffix, some in named.items()
    ]


# --- reading the files


def _decode(
    root: Path, keys: tuple[str, ...], size: int, progress: Progress | None
) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Images (n, size, size, 3), and the reasons why some rows of them are empty."""
    images = np.zeros((len(keys), size, size, 3), np.uint8)
    broken: dict[int, str] = {}

    def block(start: int) -> None:
        for i in range(start, min(start + _BLOCK, len(keys))):
            try:
                if keys[i] != printable(keys[i]):
                    raise ValueError("its name is not UTF-8")
                images[i] = _image(root / keys[i], size)
            except MemoryError:
                raise
            except Exception as error:  # a damaged image can raise anything
                broken[i] = _reason(error)

    Image.init()  # the readers of all formats, before threads ask for them
    pool = ThreadPoolExecutor(min(8, os.cpu_count() or 1))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow can read, it may frown upon
            for n_blocks, _ in enumerate(pool.map(block, range(0, len(keys), _BLOCK)), 1):
                if progress is not None:
                    progress("reading images", min(n_blocks * _BLOCK, len(keys)), len(keys))
    finally:
        pool.shutdown(cancel_futures=True)
    return images, broken


def _image(path: Path, size: int) -> NDArray[np.uint8]:
    """(size, size, 3): the centre of an image, upright and in colour. Pillow refuses more than 179 million pixels."""
    with Image.open(path) as file:
        file.draft(None, (2 * size, 2 * size))  # JPEG is decoded at a half, quarter or eighth where that is enough
        image = ImageOps.exif_transpose(file)
    if image.mode == "F":
        raise ValueError("float pixels have no agreed range; save it with 8 or 16 bits")
    if image.mode.startswith("I"):
        image = Image.fromarray(np.rint(np.clip(np.asarray(image), 0, 65535) / 257).astype(np.uint8))
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    side = min(image.size)
    left, top = (image.width - side) / 2, (image.height - side) / 2
    square = (left, top, left + side, top + side)
    return np.asarray(image.convert("RGB").resize((size, size), Image.Resampling.BICUBIC, square))


def _part(
    name: str,
    images: NDArray[np.uint8],
    files: _Files,
    broken: dict[int, str],
    classes: tuple[str, ...],
    test: Dataset | None = None,
) -> Dataset:
    """The images that could be read; the training part repeats the problems of the test part."""
    problems = tuple(f"{printable(files.keys[i])}: {reason}" for i, reason in sorted(broken.items()))
    if broken:
        whole = np.ones(len(images), bool)
        whole[list(broken)] = False
        images, files = images[whole], files.where(whole)
    return Dataset(
        name,
        images,
        files.labels,
        classes,
        files.ids,
        files.keys,
        test if test is not None and len(test) else None,
        "crop_flip",
        problems + (test.problems if test is not None else ()),
    )


def _reason(error: Exception) -> str:
    """An error in one line, without the path that stands beside it."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image that Pillow knows"
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(text.split()) or type(error).__name__


def _counted(n: int) -> str:
    return f"{n:,} {'file' if n == 1 else 'files'}"


def _some(names: Sequence[str]) -> str:
    """The first three names."""
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
