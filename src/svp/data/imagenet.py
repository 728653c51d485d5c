"""ImageNet (ILSVRC 2012) as published: where its parts lie, and of which class the validation images in one flat folder are."""

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

from svp.errors import DataError

BASES = ("", "imagenet", "ILSVRC2012", "ILSVRC/Data/CLS-LOC")  # where train/ lies below what people call the root
FLAT = "ILSVRC2012_val_"  # how the names of flat validation images begin
SOLUTION, TRUTH, META = "LOC_val_solution.csv", "ILSVRC2012_validation_ground_truth.txt", "meta.mat"
_BESIDE = ("", "data", "ILSVRC2012_devkit_t12/data")  # where the lists lie, below or above the images


def base_of(root: Path) -> Path:
    """The folder that holds train/ and val/. Raises DataError that says how to come by them."""
    found = next((root / base for base in BASES if (root / base / "train").is_dir()), None)
    if found is None or not (found / "val").is_dir():
        raise DataError(
            f"imagenet: {found or root} has no folder {'train' if found is None else 'val'}, and ImageNet cannot be fetched: "
            "unpack ILSVRC2012_img_train.tar to train/WNID/*.JPEG and ILSVRC2012_img_val.tar to val/, and name their "
            "folder with root (--data)"
        )
    return found


def flat_labels(val: Path, names: Iterable[str]) -> dict[str, str]:
    """The WNID of each validation image in one flat folder, by file name; {} where the names are not ImageNet's.

    Taken from LOC_val_solution.csv (Kaggle), or from ILSVRC2012_validation_ground_truth.txt and meta.mat (development kit), in
    the folder itself, one of the four above it, or data/ or ILSVRC2012_devkit_t12/data/ below those. DataError if there is none.
    """
    wanted = [name for name in names if name.startswith(FLAT)]
    if not wanted:
        return {}
    places = [above / beside for above in (val, *val.absolute().parents[:4]) for beside in _BESIDE]
    if (solution := _first(places, SOLUTION)) is not None:
        known = dict(_solution(solution))
    elif (truth := _first(places, TRUTH)) is not None and (meta := _first(places, META)) is not None:
        known = dict(_truth(truth, meta))
    else:
        raise DataError(
            f"{val} holds {len(wanted):,} validation images in one folder, and nothing says of which class each is; "
            f"put {SOLUTION}, or {TRUTH} and {META} of the development kit, into {val.parent}, "
            f"or sort the images into {val / 'WNID'}"
        )
    if missing := [name for name in wanted if name.partition(".")[0] not in known]:
        raise DataError(
            f"{solution or truth} says nothing of {len(missing):,} images in {val}, the first: {missing[0]}"
        )
    return {name: known[name.partition(".")[0]] for name in wanted}


def _first(places: list[Path], name: str) -> Path | None:
    return next((place / name for place in places if (place / name).is_file()), None)


def _solution(path: Path) -> Iterator[tuple[str, str]]:
    """ImageId,PredictionString: the string begins with the WNID, a box follows."""
    try:
        with path.open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                yield row["ImageId"], row["PredictionString"].split()[0]
    except (OSError, UnicodeDecodeError, csv.Error, KeyError, AttributeError, IndexError) as error:
        raise DataError(
            f"{path} is not as published: it has no columns ImageId and PredictionString ({error})"
        ) from error


def _truth(path: Path, meta: Path) -> Iterator[tuple[str, str]]:
    """Line i is the number of image i's class; meta.mat has the WNID of each number."""
    from scipy.io import loadmat

    try:
        synsets = loadmat(meta, squeeze_me=True, variable_names=["synsets"])["synsets"]
        wnid = {int(number): str(name) for number, name in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
        for i, line in enumerate(path.read_text(encoding="utf-8").split(), 1):
            yield f"{FLAT}{i:08d}", wnid[int(line)]
    except Exception as error:  # a damaged file can raise anything
        raise DataError(f"{path} and {meta} are not as published: {error!r}") from error
