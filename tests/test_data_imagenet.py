"""ImageNet's layouts, on generated files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from svp.data import load_dataset
from svp.errors import DataError, StorageError

WNIDS = ("n02000002", "n01000001", "n03000003")  # by number in the development kit, which does not go by name
VAL = (2, 3, 1, 1)  # the numbers of the validation images


def jpeg(path: Path, value: int) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (20, 16), (value,) * 3).save(path)


def train(root: Path) -> Path:
    for c, wnid in enumerate(WNIDS):
        for i in range(3):
            jpeg(root / "train" / wnid / f"{wnid}_{i}.JPEG", 60 * c + 10 * i)
    return root


def flat(root: Path) -> Path:
    for i in range(1, len(VAL) + 1):
        jpeg(root / "val" / f"ILSVRC2012_val_{i:08d}.JPEG", 200 + i)
    return root


def kaggle(folder: Path) -> None:
    rows = [f"ILSVRC2012_val_{i:08d},{WNIDS[VAL[i - 1] - 1]} 85 1 499 272 {WNIDS[0]} 1 2 3 4 " for i in (3, 1, 4, 2)]
    (folder / "LOC_val_solution.csv").write_text("\n".join(["ImageId,PredictionString", *rows]) + "\n")


def devkit(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "ILSVRC2012_validation_ground_truth.txt").write_text("".join(f"{number}\n" for number in VAL))
    kinds = [("ILSVRC2012_ID", "i4"), ("WNID", "O"), ("words", "O")]
    synsets = np.array([(i, wnid, f"thing {i}") for i, wnid in enumerate((*WNIDS, "n00000000"), 1)], kinds)
    savemat(folder / "meta.mat", {"synsets": synsets})


def test_validation_images_in_folders(tmp_path):
    train(tmp_path)
    for wnid in WNIDS[:2]:
        jpeg(tmp_path / "val" / wnid / "ILSVRC2012_val_00000001.JPEG", 7)
    jpeg(tmp_path / "test" / "ILSVRC2012_test_00000001.JPEG", 7)
    data = load_dataset("imagenet", root=tmp_path, image_size=8)
    assert (data.name, data.test.name, data.classes) == ("imagenet", "imagenet (test)", tuple(sorted(WNIDS)))
    assert (len(data), len(data.test)) == (9, 2)
    assert data.key(0) == "train/n01000001/n01000001_0.JPEG"


@pytest.mark.parametrize(
    "lists",
    [
        lambda root: kaggle(root),
        lambda root: kaggle(root / "val"),
        lambda root: devkit(root / "ILSVRC2012_devkit_t12" / "data"),
        lambda root: devkit(root),
    ],
)
@pytest.mark.parametrize("name", ["imagenet", None])
def test_validation_images_in_one_folder(tmp_path, lists, name):
    lists(flat(train(tmp_path)))
    data = load_dataset(name or tmp_path, root=tmp_path if name else None, image_size=8)
    assert data.test.inputs[:, 0, 0, 0].tolist() == [201, 202, 203, 204]
    assert [data.classes[label] for label in data.test.labels] == [WNIDS[number - 1] for number in VAL]
    assert data.test.keys[2] == "val/ILSVRC2012_val_00000003.JPEG"
    assert data.problems == ()


def test_the_layout_of_the_competition_site(tmp_path):
    flat(train(tmp_path / "ILSVRC" / "Data" / "CLS-LOC"))
    kaggle(tmp_path)
    assert len(load_dataset("imagenet", root=tmp_path, image_size=8).test) == 4


def test_flat_images_without_lists_say_what_to_do(tmp_path):
    flat(train(tmp_path))
    for name in ("imagenet", str(tmp_path)):
        with pytest.raises(DataError, match=r"4 validation images in one folder.*LOC_val_solution.csv.*or sort .*WNID"):
            load_dataset(name, root=tmp_path if name == "imagenet" else None)
    kaggle(tmp_path)
    jpeg(tmp_path / "val" / "ILSVRC2012_val_00000009.JPEG", 7)
    with pytest.raises(DataError, match=r"says nothing of 1 images in .*, the first: ILSVRC2012_val_00000009.JPEG"):
        load_dataset(tmp_path)
    (tmp_path / "LOC_val_solution.csv").write_text("a,b\n1,2\n")
    with pytest.raises(DataError, match=r"LOC_val_solution.csv is not as published"):
        load_dataset(tmp_path)
    (tmp_path / "LOC_val_solution.csv").unlink()
    devkit(tmp_path)
    (tmp_path / "meta.mat").write_bytes(b"MATLAB 5.0")
    with pytest.raises(DataError, match=r"meta.mat are not as published"):
        load_dataset(tmp_path)


def test_a_class_of_the_lists_that_was_not_trained_on(tmp_path):
    kaggle(flat(train(tmp_path)))
    for path in (tmp_path / "train" / WNIDS[2]).iterdir():
        path.unlink()
    (tmp_path / "train" / WNIDS[2]).rmdir()
    with pytest.raises(DataError, match=r"val has classes that .*train lacks: n03000003"):
        load_dataset(tmp_path)


@pytest.mark.parametrize("missing", ["train", "val"])
def test_without_the_folders_it_says_how_to_come_by_them(tmp_path, missing):
    for part in {"train", "val"} - {missing}:
        (tmp_path / part).mkdir()
    with pytest.raises(DataError, match=rf"has no folder {missing}, and ImageNet cannot be fetched: .*--data") as error:
        load_dataset("imagenet", root=tmp_path)
    assert "\n" not in str(error.value)


def test_224_pixels_are_cut_out_of_256(tmp_path):
    image = Image.new("RGB", (512, 768), (200, 0, 0))
    image.paste((0, 0, 200), (32, 160, 480, 608))  # what the middle 224 of 256 is, twice as large
    for part in ("train", "val"):
        for wnid in WNIDS[:2]:
            (tmp_path / part / wnid).mkdir(parents=True)
            image.save(tmp_path / part / wnid / "a.png")
    data = load_dataset("imagenet", root=tmp_path)
    assert data.inputs.shape == (2, 224, 224, 3)
    assert (data.inputs[:, 2:-2, 2:-2] == (0, 0, 200)).all()  # the filter looks a little beyond the edge
    plain = load_dataset(tmp_path, image_size=224)
    assert not (plain.inputs[:, 2:-2, 2:-2] == (0, 0, 200)).all()
    assert np.array_equal(load_dataset(tmp_path, image_size=224, short_side=256).inputs, data.inputs)


def test_the_real_size_is_forecast(tmp_path, monkeypatch):
    monkeypatch.setattr("svp.data.cache.shutil.disk_usage", lambda folder: type("Usage", (), {"free": 1000}))
    kaggle(flat(train(tmp_path)))
    with pytest.raises(StorageError, match=r"13 images of 224 x 224 take 1.9 MiB in the cache, .*smaller image_size"):
        load_dataset("imagenet", root=tmp_path)
