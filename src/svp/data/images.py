"""Photos in a folder of class folders: decoded and scaled once, kept on disk as uint8 (`pixels.py`)."""

import os
import stat
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from svp.data import decode, imagenet
from svp.data.base import TEST_SHARE, Dataset, OnError, Progress, printable
from svp.data.cache import data_folder
from svp.data.photos import IMAGE_SIZE, Files, dataset_of, some
from svp.data.pixels import stamp
from svp.errors import DataError, SettingError

SUFFIXES = frozenset((".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"))
TEST_FOLDERS = ("test", "val", "valid")  # the first that has class folders is the test part
# Pixels to which the short side is scaled where nobody says it, by named dataset and image_size; others: image_size itself.
SHORT_SIDES = {("imagenet", 224): 256}
_LITTER = ("thumbs.db", "desktop.ini")  # what systems leave in folders of images
_OTHER_PARTS = ("training", "testing", "validation")  # what people call parts too


def load(
    root: str | os.PathLike[str],
    image_size: int = IMAGE_SIZE,
    short_side: int | None = None,
    on_error: OnError = "refuse",
    test_share: float = TEST_SHARE,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """A dataset from `root/CLASS/*.jpg`, or from `root/train/CLASS/` and `root/{test,val,valid}/CLASS/`.

    image_size  images become (image_size, image_size, 3): the short side is scaled to it (bicubic, antialiased) and the centre is
                cut out. They are turned as their camera says, transparency becomes white, 16 bits become 8, and an
                animation is its first frame
    short_side  scale the short side to this many pixels instead, and cut image_size out of the middle (256 for 224, say)
    on_error    "refuse" a folder in which an image cannot be read; or "skip" such images and name them in `problems`
    test_share  how much of each class is held out where there is no test folder
    cache       folder for decoded images; default `$XDG_CACHE_HOME/svp/images`, else `~/.cache/svp/images`
    progress    called with ("reading images", done, total)

    ids         rank of the image's path relative to root, in bytes, among all files of its part, broken ones included:
                skipping one changes no other's id, nor who is held out. keys are these paths
    classes     names of the class folders of the training part, sorted; images may lie in folders below them
    inputs      a memory map of the cache (`pixels.py`)

    Parts may be spelled in any case (Train/, TEST/). Where both test/ and val/ have class folders, val/ is left alone. Without
    train/, a folder `test`, and any other folder of folders that is called like a part, is refused: it is no class. ImageNet's
    validation images may lie in one flat folder val/ where its lists say of which class they are (`imagenet.py`).
    Hidden files are not looked at, and outside of class folders nothing but images. What is left out (skipped images, images in
    no class folder, files in class folders with other suffixes than those of SUFFIXES) stands in `problems`, and a SvpWarning
    says how much it is.
    Raises DataError naming what is empty, broken, or a class only in the test part; StorageError where the cache has no room.
    Disk: 3 n image_size^2 bytes. Time: each image is decoded once, in one process a core; then seconds for a million files.
    """
    root = Path(root)
    train_folder, test_folder = _parts(root)
    classes = _class_names(train_folder)
    files, strangers = _list(root, train_folder, classes)
    if test_folder is None:
        files, test_files = files.divided(test_share)
    else:
        if test_share != TEST_SHARE:
            raise SettingError(
                f"{root}: test_share (--test-share) means nothing here; {test_folder.name}/ is the test part"
            )
        test_files, test_strangers = _list(root, test_folder, classes, train_folder)
        strangers += test_strangers
    keys = files.keys + test_files.keys

    def paths(positions: list[int]) -> list[decode.Item]:
        return [os.path.join(root, keys[i]) for i in positions]

    return dataset_of(
        root,
        (files, test_files),
        classes,
        paths,
        image_size=image_size,
        short_side=short_side,
        on_error=on_error,
        cache=cache,
        progress=progress,
        strangers=_by_reason(strangers, _stray(root, train_folder, test_folder)),
    )


def load_imagenet(
    root: str | os.PathLike[str] | None = None,
    image_size: int = 224,
    short_side: int | None = None,
    on_error: OnError = "refuse",
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Dataset:
    """ImageNet (ILSVRC 2012): train/WNID/*.JPEG and val/, in folders or flat, as `load` reads them; val/ is the test part.

    root        the folder that holds train/ and val/, or one above it; default as `svp.data.cache.data_folder` says
    short_side  default 256 for 224 pixels, as papers test it; for other sizes the image_size itself

    1,281,167 and 50,000 images take 187 GiB in the cache at 224 pixels, 15 GiB at 64.
    """
    base = imagenet.base_of(data_folder(root))
    short_side = short_side or SHORT_SIDES.get(("imagenet", image_size))
    data = load(base, image_size, short_side, on_error, cache=cache, progress=progress)
    test = data.test and replace(data.test, name="imagenet (test)")
    return replace(data, name="imagenet", test=test)


# --- finding the files


def listing(root: Path) -> tuple[str, ...]:
    """Paths relative to `root` of its images in order of id: those `load` gives ids, or of a folder without classes all.

    Held-out images are among them; a test folder beside train/ is not.
    """
    folder, _ = _parts(root)
    places = [folder / name for name in _folders(folder)] or [folder]
    images = (entry for place in places for entry in _visible(place) if _is_image(entry.name))
    found = sorted(os.fsencode(_key(root, entry)) for entry in images)
    return tuple(os.fsdecode(key) for key in found)


def test_folder(root: Path) -> Path | None:
    """The folder of the test part beside train/; None where there is none."""
    return None if _spelled(root, "train") is None else _parts(root)[1]


def unsorted(root: Path, part: Path | None = None) -> tuple[Files, dict[str, list[str]]]:
    """All images in a folder and below it, as of one class, and the paths of files that are none, by the reason.

    part  a folder in it, of which alone they are wanted
    """
    found, strangers = [], []
    for entry in _visible(part or root):
        key = _key(root, entry)
        if _is_image(entry.name):
            found.append((os.fsencode(key), *_state(key, entry)))
        elif entry.name.lower() not in _LITTER:
            strangers.append(key)
    found.sort()
    return Files(
        np.arange(len(found)),
        np.zeros(len(found), np.int64),
        tuple(os.fsdecode(key) for key, _, _ in found),
        tuple(stamp for _, stamp, _ in found),
        {i: reason for i, (_, _, reason) in enumerate(found) if reason},
    ), _by_reason(strangers, [])


def _parts(root: Path) -> tuple[Path, Path | None]:
    """The folders of the training and of the test part: folders in `train/` make it a part, not a class."""
    parts = {name: _spelled(root, name) for name in ("train", *TEST_FOLDERS)}
    if (train := parts["train"]) is not None:
        test = next((folder for name in TEST_FOLDERS if (folder := parts[name]) is not None), None)
        flat = root / "val"
        return train, flat if test is None and flat.is_dir() and _flat_labels(flat) else test
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


def _visible(folder: Path | str, *, deep: bool = True) -> Iterator[os.DirEntry[str]]:
    """All files in a folder, but for hidden ones; deep: and in the folders below it."""
    below = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    below.append(entry.path)
                elif not (entry.is_symlink() and entry.is_dir()):
                    yield entry
    except OSError as error:
        raise DataError(f"{folder} cannot be read: {error.strerror}") from error
    for place in below if deep else ():
        yield from _visible(place)


def _is_image(name: str) -> bool:
    return os.path.splitext(name)[1].lower() in SUFFIXES


def _key(root: Path, entry: os.DirEntry[str]) -> str:
    """The path of a file below root, relative to it, in posix form."""
    key = entry.path[len(str(root)) :] if str(root) != "." else entry.path
    return key.replace(os.sep, "/").lstrip("/")


def _flat_labels(val: Path) -> dict[str, str]:
    """The class of each of ImageNet's validation images that lie in one folder; {} for any other folder."""
    if _folders(val):
        return {}
    return imagenet.flat_labels(val, [entry.name for entry in _visible(val) if _is_image(entry.name)])


def _class_names(folder: Path) -> tuple[str, ...]:
    names = tuple(_folders(folder))
    if len(names) < 2:
        what = f"has only the folder {names[0]}" if names else "has no folders" if any(folder.iterdir()) else "is empty"
        raise DataError(f"{folder} {what}; give a folder with a folder of images for each class, at least two")
    if unclear := [printable(name) for name in names if name != printable(name)]:
        raise DataError(f"{folder} has class folders whose names are not UTF-8: {some(unclear)}; rename them")
    return names


def _list(root: Path, folder: Path, classes: tuple[str, ...], like: Path | None = None) -> tuple[Files, list[str]]:
    """The images of one part in order of id, and the paths of files that are none by their suffix.

    like: the training part, whose classes are all that a test part may have
    """
    number = {name: label for label, name in enumerate(classes)}
    flat = {} if like is None else _flat_labels(folder)
    names = set(flat.values()) if flat else _folders(folder)
    if extra := sorted(set(names) - set(classes)):
        raise DataError(f"{folder} has classes that {like} lacks: {some(extra)}")
    entries = (
        ((flat[entry.name], entry) for entry in _visible(folder) if entry.name in flat)
        if flat
        else ((name, entry) for name in names for entry in _visible(folder / name))
    )
    found, strangers = [], []
    for name, entry in entries:
        key = _key(root, entry)
        if _is_image(entry.name):
            found.append((os.fsencode(key), number[name], *_state(key, entry)))
        elif entry.name.lower() not in _LITTER:
            strangers.append(key)
    found.sort()
    labels = np.array([label for _, label, _, _ in found], np.int64)
    counts = np.bincount(labels, minlength=len(classes))
    if empty := [name for name in sorted(names, key=os.fsencode) if not counts[number[name]]]:
        raise DataError(
            f"{folder} has class folders without images: {some(empty)}; remove them, or add images "
            f"({', '.join(sorted(SUFFIXES))})"
        )
    unreadable = {i: reason for i, (_, _, _, reason) in enumerate(found) if reason}
    keys = tuple(os.fsdecode(key) for key, _, _, _ in found)
    return Files(np.arange(len(found)), labels, keys, tuple(row[2] for row in found), unreadable), strangers


def _stray(root: Path, *parts: Path | None) -> list[str]:
    """Images that lie in no class folder: in the root, or in a part that has class folders."""
    places = {folder for folder in (root, *parts) if folder is not None and _folders(folder)}
    entries = (entry for folder in places for entry in _visible(folder, deep=False))
    return [_key(root, entry) for entry in entries if _is_image(entry.name)]


def _by_reason(strangers: list[str], stray: list[str]) -> dict[str, list[str]]:
    """Files that are not looked at, by the reason."""
    reasons: dict[str, list[str]] = {}
    for path in sorted(strangers):
        suffix = printable(os.path.splitext(path)[1].lower())
        why = f"{f'ending in {suffix}' if suffix else 'without a suffix'}, which is not read here"
        reasons.setdefault(why, []).append(printable(path))
    if stray:
        reasons["beside the class folders, which say no class"] = [printable(path) for path in sorted(stray)]
    return reasons


def _state(key: str, entry: os.DirEntry[str]) -> tuple[bytes, str]:
    """The stamp of a file, and why it need not be looked at, if so."""
    if key != printable(key):
        return b"", "its name is not UTF-8"
    try:
        facts = entry.stat()
    except OSError as error:
        return b"", error.strerror or str(error)
    if not stat.S_ISREG(facts.st_mode):
        return b"", "no file but a pipe, a socket or a device"
    return stamp(key, facts.st_size, facts.st_mtime_ns), ""
