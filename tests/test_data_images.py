"""Folders of class folders of images."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svp.data import load_dataset
from svp.errors import DataError, SettingError, StorageError, SvpWarning

RED, BLUE = (200, 30, 40), (10, 60, 220)


def write(path: Path, colour=RED, size=(20, 16), mode="RGB", **options) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).convert(mode, palette=Image.Palette.ADAPTIVE).save(path, **options)
    return path


def photos(root: Path, n: int = 5, classes: tuple[str, ...] = ("ant", "bee")) -> Path:
    """n images a class, each of its own grey."""
    for c, name in enumerate(classes):
        for i in range(n):
            write(root / name / f"{i}.png", (100 * c + 10 * i,) * 3)
    return root


def one(folder: Path, size: int = 8) -> np.ndarray:
    """The image that lies in `folder`/a, decoded, whatever its format; b is there for company."""
    write(folder / "b" / "b.png")
    return load_dataset(folder, image_size=size, test_share=0).inputs[0]


def close(pixels: np.ndarray, colour, within: int = 3) -> bool:
    return bool((np.abs(pixels.astype(int) - colour) <= within).all())


# --- what is found, and what it is called


def test_ids_are_ranks_of_paths_and_keys_are_the_paths(tmp_path):
    photos(tmp_path / "set", classes=("b", "a", "Z"))
    write(tmp_path / "set" / "a" / "more" / "10.jpg")
    data = load_dataset(tmp_path / "set", image_size=4, test_share=0)
    paths = sorted(path.relative_to(tmp_path / "set").as_posix() for path in (tmp_path / "set").rglob("*.*"))
    assert data.keys == tuple(paths)
    assert data.ids.tolist() == list(range(16))
    assert data.classes == ("Z", "a", "b")
    assert [data.classes[label] for label in data.labels] == [path.split("/")[0] for path in paths]
    assert (data.inputs.shape, data.inputs.dtype, data.augmentation) == ((16, 4, 4, 3), np.uint8, "crop_flip")
    assert (data.name, data.test, data.problems) == ("set", None, ())


def test_paths_are_ranked_by_their_bytes(tmp_path):
    names = ["Zebra.png", "apple.png", "z.png", "\u00e9.png", "e\u0301.png", "\uffee.png", "\U0001f41d.png"]
    for name in names:
        write(tmp_path / "a" / name)
    write(tmp_path / "b" / "x.png")
    data = load_dataset(tmp_path, image_size=4, test_share=0)
    assert data.keys is not None
    assert [key.encode() for key in data.keys] == [*sorted(f"a/{name}".encode() for name in names), b"b/x.png"]


def test_a_part_is_held_out_where_no_test_folder_is(tmp_path):
    photos(tmp_path, n=10)
    data = load_dataset(tmp_path, image_size=4)
    assert data.test is not None
    assert np.bincount(data.labels).tolist() == [8, 8]
    assert np.bincount(data.test.labels).tolist() == [2, 2]
    whole = load_dataset(tmp_path, image_size=4, test_share=0)
    assert whole.keys is not None
    for part in (data, data.test):
        rows = whole.positions(part.ids)
        assert np.array_equal(part.inputs, whole.inputs[rows])
        assert part.keys == tuple(whole.keys[i] for i in rows)
    assert load_dataset(tmp_path, image_size=4).fingerprint == data.fingerprint


@pytest.mark.parametrize("name", ["test", "val", "valid"])
def test_a_folder_for_each_part(tmp_path, name):
    photos(tmp_path / "train", n=3)
    photos(tmp_path / name, n=2)
    data = load_dataset(tmp_path, image_size=4)
    assert data.test is not None
    assert (len(data), len(data.test)) == (6, 4)
    assert data.keys is not None
    assert data.test.keys is not None
    assert (data.keys[0], data.test.keys[0]) == ("train/ant/0.png", f"{name}/ant/0.png")
    with pytest.raises(SettingError, match=f"test_share .* means nothing here; {name}/ is the test part"):
        load_dataset(tmp_path, test_share=0.5)


def test_which_folder_is_the_test_part(tmp_path):
    photos(tmp_path / "train", n=5)
    photos(tmp_path / "val", n=2)
    unsorted = write(tmp_path / "test" / "unsorted.png")  # as ImageNet has it: images without labels
    for n_test in (4, 6):
        data = load_dataset(tmp_path, image_size=4)
        assert data.test is not None
        assert len(data.test) == n_test
        unsorted.unlink(missing_ok=True)
        photos(tmp_path / "test", n=3)


def test_train_alone_is_divided_and_a_class_may_be_called_train(tmp_path):
    photos(tmp_path / "one" / "train")
    data = load_dataset(tmp_path / "one", image_size=4)
    assert data.test is not None
    assert (len(data), len(data.test)) == (8, 2)
    assert load_dataset(photos(tmp_path / "two", classes=("bus", "train")), image_size=4).classes == ("bus", "train")


@pytest.mark.parametrize(
    ("train", "test"), [("Train", "Test"), ("TRAIN", "Val"), ("train", "VALID"), ("Train", "test")]
)
def test_parts_may_be_spelled_in_any_case(tmp_path, train, test):
    photos(tmp_path / train, n=3)
    photos(tmp_path / test, n=2)
    data = load_dataset(tmp_path, image_size=4)
    assert data.classes == ("ant", "bee")
    assert data.test is not None
    assert (len(data), len(data.test)) == (6, 4)
    assert data.key(0) == f"{train}/ant/0.png"


@pytest.mark.parametrize("names", [("train", "Train"), ("train", "test", "Test")])
def test_a_part_under_two_spellings_is_refused(tmp_path, names):
    for name in names:
        photos(tmp_path / name, n=2)
    with pytest.raises(DataError, match=f"has {names[-1]} and {names[-2]}; rename one of them"):
        load_dataset(tmp_path, image_size=4)


@pytest.mark.parametrize(
    "stray", ["test/ant/0.png", "Test/0.png", "val/bee/0.png", "VALID/ant/0.png", "validation/bee/0.png"]
)
def test_a_part_beside_class_folders_is_not_taken_for_a_class(tmp_path, stray):
    photos(tmp_path)
    write(tmp_path / stray)
    name = stray.split("/")[0]
    with pytest.raises(DataError, match=f"{name} looks like a part of the data .*train.* or rename {name}") as error:
        load_dataset(tmp_path, image_size=4)
    assert "\n" not in str(error.value)


def test_parts_of_other_names_are_not_taken_for_classes(tmp_path):
    photos(tmp_path / "training")
    photos(tmp_path / "testing")
    with pytest.raises(DataError, match="testing looks like a part of the data"):
        load_dataset(tmp_path, image_size=4)


def test_a_class_of_images_may_be_called_valid(tmp_path):
    photos(tmp_path, classes=("invalid", "valid"))
    assert load_dataset(tmp_path, image_size=4).classes == ("invalid", "valid")


def test_what_is_no_image_is_not_looked_at(tmp_path):
    photos(tmp_path, n=2)
    before = load_dataset(tmp_path, image_size=4, test_share=0).fingerprint
    for name in ("Thumbs.db", ".DS_Store", "._0.png", ".ipynb_checkpoints/0.png"):
        (tmp_path / "ant" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "ant" / name).write_text("no image")
    photos(tmp_path / ".cache")
    assert load_dataset(tmp_path, image_size=4, test_share=0).fingerprint == before


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_files_of_other_suffixes_are_left_out_and_counted(tmp_path, parts):
    for part in parts:
        photos(tmp_path / part, n=5)
    before = load_dataset(tmp_path, image_size=4)
    for name in ("ant/a.heic", "ant/more/b.HEIC", "bee/c.heic", "bee/d.heic", "bee/README", "bee/e.txt"):
        write(tmp_path / parts[-1] / "ant" / "more" / "0.png").unlink()
        (tmp_path / parts[-1] / name).write_text("no image that is read here")
    with pytest.warns(SvpWarning) as warned:
        after = load_dataset(tmp_path, image_size=4)
    assert (after.fingerprint, len(after.problems)) == (before.fingerprint, 3)
    (said,) = (str(warning.message) for warning in warned)
    folder = f"{parts[-1]}/" if parts[-1] else ""
    assert said.startswith(f"{tmp_path}: 6 files left out: ")
    assert f"4 files ending in .heic, which is not read here ({folder}ant/a.heic, {folder}ant/more/b.HEIC, " in said
    assert all(problem in said for problem in after.problems)
    assert "\n" not in said


@pytest.mark.parametrize("parts", [("",), ("train", "test")])
def test_images_beside_the_class_folders_are_left_out_and_counted(tmp_path, parts):
    for part in parts:
        photos(tmp_path / part, n=5)
    (tmp_path / "README.txt").write_text("what this is")
    before = load_dataset(tmp_path, image_size=4)
    assert before.problems == ()
    stray = sorted({*parts, ""})
    for part in stray:
        write(tmp_path / part / "cover.JPG")
    write(tmp_path / ".cover.jpg")
    with pytest.warns(SvpWarning) as warned:
        after = load_dataset(tmp_path, image_size=4)
    assert (after.fingerprint, len(after.problems)) == (before.fingerprint, 1)
    files = "1 file" if len(stray) == 1 else f"{len(stray)} files"
    named = ", ".join(sorted(f"{part}/cover.JPG".lstrip("/") for part in stray))
    assert str(warned[0].message) == (
        f"{tmp_path}: {files} left out: {files} beside the class folders, which say no class ({named})"
    )


def test_no_cache_is_made_inside_the_data(tmp_path):
    folder = photos(tmp_path / "set")
    for cache in (folder, folder / "ant"):
        with pytest.raises(StorageError, match=r"inside the data .*--cache"):
            load_dataset(folder, image_size=8, cache=cache)
    assert len(load_dataset(folder, image_size=8, cache=tmp_path / "set-cache").inputs) == 8


def test_progress_is_told(tmp_path):
    calls = []
    load_dataset(photos(tmp_path, n=40), image_size=4, progress=lambda *call: calls.append(call))
    assert calls[-1] == ("reading images", 80, 80)
    assert [done for _, done, _ in calls] == sorted({done for _, done, _ in calls})


def test_the_name_of_the_folder_is_the_name_of_the_dataset(tmp_path, monkeypatch):
    monkeypatch.chdir(photos(tmp_path / "insects"))
    assert load_dataset(".", image_size=4).name == "insects"


# --- how an image becomes a square of bytes


def test_the_centre_is_cut_out(tmp_path):
    image = Image.new("RGB", (300, 100), BLUE)
    image.paste(RED, (100, 0, 200, 100))
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "wide.png")
    assert close(one(tmp_path, 10)[:, 2:-2], RED)
    image.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "a" / "wide.png")
    assert close(one(tmp_path, 10)[2:-2], RED)


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 1), (7, 5), (640, 480)])
def test_every_shape_of_image(tmp_path, size):
    write(tmp_path / "a" / "a.png", size=size)
    assert close(one(tmp_path), RED)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("a.jpg", "RGB"), ("a.JPEG", "CMYK"), ("a.png", "P"), ("a.gif", "P"), ("a.webp", "RGB"), ("a.webp", "RGBA"),
        ("a.bmp", "RGB"), ("a.tif", "CMYK"), ("a.tiff", "RGB"), ("a.ppm", "RGB"),
    ],
)  # fmt: skip
def test_every_format_of_colour(tmp_path, name, mode):
    write(tmp_path / "a" / name, mode=mode)
    assert close(one(tmp_path), RED, within=8)


@pytest.mark.parametrize(
    ("name", "mode"), [("a.png", "1"), ("a.png", "L"), ("a.jpg", "L"), ("a.png", "LA"), ("a.pgm", "L")]
)
def test_grey_becomes_colour(tmp_path, name, mode):
    write(tmp_path / "a" / name, (255, 255, 255), mode=mode)
    assert close(one(tmp_path), 255)


@pytest.mark.parametrize("suffix", ["png", "tif"])
def test_sixteen_bits_become_eight(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    Image.fromarray(np.full((9, 9), 150 * 257, np.uint16)).save(tmp_path / "a" / f"a.{suffix}")
    assert close(one(tmp_path), 150, within=0)


def test_transparency_becomes_white(tmp_path):
    (tmp_path / "a").mkdir()
    image = Image.new("RGBA", (40, 20), (0, 0, 0, 0))
    image.paste((*RED, 255), (20, 0, 40, 20))
    for name, saved in (("a.png", image), ("a.gif", image), ("a.webp", image)):
        saved.save(tmp_path / "a" / name, **({"lossless": True} if name.endswith("webp") else {}))
        pixels = one(tmp_path, 10)
        assert close(pixels[:, :4], 255), name
        assert close(pixels[:, -4:], RED, within=20), name
        (tmp_path / "a" / name).unlink()


@pytest.mark.parametrize("mode", ["RGB", "L", "P"])
def test_a_transparent_colour_becomes_white(tmp_path, mode):
    image = Image.new(mode, (20, 20), 0)
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "a.png", transparency=(0, 0, 0) if mode == "RGB" else 0)
    assert close(one(tmp_path), 255)


def test_an_image_is_turned_as_its_camera_says(tmp_path):
    image = Image.new("RGB", (40, 40), BLUE)
    image.paste(RED, (0, 0, 40, 20))  # red above
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown a quarter turn clockwise: red to the right
    (tmp_path / "a").mkdir()
    image.save(tmp_path / "a" / "a.jpg", exif=exif, quality=95)
    pixels = one(tmp_path, 10)
    assert close(pixels[:, :4], BLUE, 12)
    assert close(pixels[:, -4:], RED, 12)


@pytest.mark.parametrize("suffix", ["gif", "webp", "png"])
def test_an_animation_is_its_first_frame(tmp_path, suffix):
    (tmp_path / "a").mkdir()
    frames = [Image.new("RGB", (10, 10), colour) for colour in (RED, BLUE, BLUE)]
    frames[0].save(tmp_path / "a" / f"a.{suffix}", save_all=True, append_images=frames[1:])
    assert close(one(tmp_path), RED, within=8)


def test_a_large_photo_is_scaled_as_without_the_short_cut(tmp_path):
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (6, 6, 3), np.uint8)).resize((600, 600), Image.Resampling.BICUBIC)
    (tmp_path / "a").mkdir()
    coarse.save(tmp_path / "a" / "a.jpg", quality=95)
    plain = np.asarray(Image.open(tmp_path / "a" / "a.jpg").resize((32, 32), Image.Resampling.BICUBIC))
    assert close(one(tmp_path, 32), plain.astype(int), within=4)


# --- images that cannot be read


def break_some(root: Path) -> dict[str, str]:
    """Three broken images of both classes, and what is wrong with each."""
    photos(root, n=10)
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(root / "ant" / "3.png")
    content = (root / "ant" / "3.png").read_bytes()
    (root / "ant" / "3.png").write_bytes(content[: len(content) // 2])
    (root / "bee" / "0.png").write_bytes(b"")
    (root / "bee" / "9.png").unlink()
    (root / "bee" / "9.png").symlink_to("nowhere")
    return {"ant/3.png": "truncated", "bee/0.png": "not an image", "bee/9.png": "No such file"}


def test_broken_images_are_counted_and_named_and_refuse_the_folder(tmp_path):
    broken = break_some(tmp_path)
    with pytest.raises(DataError) as error:
        load_dataset(tmp_path, image_size=4)
    message = str(error.value)
    assert "3 of 20 images cannot be read" in message
    assert "--on-error skip" in message
    assert all(key in message and reason in message for key, reason in broken.items())
    assert "\n" not in message


def test_skipped_images_leave_the_other_ids_and_the_test_part_alone(tmp_path):
    photos(tmp_path, n=10)
    before = load_dataset(tmp_path, image_size=4)
    broken = break_some(tmp_path)
    with pytest.warns(SvpWarning, match=r"3 files left out: .*ant/3.png: image file is truncated.*bee/0.png"):
        after = load_dataset(tmp_path, image_size=4, on_error="skip")
    assert before.test is not None
    assert after.test is not None
    assert [problem.split(": ")[0] for problem in sorted(after.problems)] == list(broken)
    assert set(after.test.problems) < set(after.problems)
    for old, new in ((before, after), (before.test, after.test)):
        assert set(new.ids) == {id_ for id_ in old.ids if old.key(id_) not in broken}
        assert all(new.key(id_) == old.key(id_) for id_ in new.ids)
        assert np.array_equal(new.inputs, old.inputs[old.positions(new.ids)])


def test_a_class_of_broken_images_alone_is_an_error(tmp_path):
    photos(tmp_path, n=2)
    for path in (tmp_path / "bee").iterdir():
        path.write_bytes(b"GIF89a")
    with pytest.raises(DataError, match="no image of these classes can be read: bee"):
        load_dataset(tmp_path, on_error="skip", test_share=0)


def test_many_broken_images_stay_one_line(tmp_path):
    photos(tmp_path, n=10)
    for path in tmp_path.rglob("*.png"):
        path.write_bytes(b"")
    with pytest.raises(DataError, match=r"20 of 20 images cannot be read: ant/0.png \(.*ant/2.png \(.* and 17 more;"):
        load_dataset(tmp_path)


def test_a_decompression_bomb_is_not_decoded(tmp_path, monkeypatch):
    photos(tmp_path, n=3)
    write(tmp_path / "ant" / "0.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 4000)
    with pytest.raises(DataError, match=r"1 of 6 .* ant/0.png \(Image size \(10000 pixels\) exceeds limit"):
        load_dataset(tmp_path)


def test_pillows_frowns_are_no_problem(tmp_path, monkeypatch):
    photos(tmp_path, n=3)
    write(tmp_path / "ant" / "0.png", size=(100, 100))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 6000)  # Pillow warns above it and refuses above its double
    assert load_dataset(tmp_path, image_size=4).problems == ()


def test_float_pixels_are_named(tmp_path):
    photos(tmp_path, n=3)
    Image.fromarray(np.ones((4, 4), np.float32)).save(tmp_path / "ant" / "f.tif")
    with pytest.raises(DataError, match=r"1 of 7 images .*f\.tif \(float pixels have no agreed range"):
        load_dataset(tmp_path)


@pytest.mark.skipif(os.name != "posix", reason="only there are names bytes")
def test_a_file_name_that_is_no_text_is_named(tmp_path):
    photos(tmp_path, n=3)
    content = (tmp_path / "ant" / "0.png").read_bytes()
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/ant/\xff.png")).write_bytes(content)
    with pytest.raises(DataError, match=r"ant/\\udcff.png \(its name is not UTF-8\)"):
        load_dataset(tmp_path)
    with pytest.warns(SvpWarning, match=r"1 file left out: ant/\\udcff.png: its name is not UTF-8"):
        assert len(load_dataset(tmp_path, on_error="skip", test_share=0)) == 6


@pytest.mark.skipif(os.name != "posix", reason="only there are names bytes")
def test_a_folder_whose_name_is_no_text_has_one_that_can_be_written(tmp_path):
    root = tmp_path / os.fsdecode(b"ph\xff")
    assert load_dataset(photos(root), image_size=4).name == r"ph\udcff"


# --- folders that are not what they should be


def test_an_empty_folder(tmp_path):
    with pytest.raises(DataError, match="is empty; give a folder with a folder of images for each class"):
        load_dataset(tmp_path)


def test_a_folder_without_class_folders(tmp_path):
    write(tmp_path / "a.png")
    with pytest.raises(DataError, match="has no folders; give a folder with a folder"):
        load_dataset(tmp_path)


def test_a_single_class_folder(tmp_path):
    photos(tmp_path / "above" / "below")
    with pytest.raises(DataError, match=r"has only the folder below; .* at least two"):
        load_dataset(tmp_path / "above")


def test_a_class_without_images(tmp_path):
    photos(tmp_path)
    (tmp_path / "cow").mkdir()
    (tmp_path / "cow" / "cow.heic").write_text("")
    with pytest.raises(DataError, match=r"class folders without images: cow; .*\.jpg"):
        load_dataset(tmp_path)


def test_a_class_in_the_test_part_alone(tmp_path):
    photos(tmp_path / "train")
    photos(tmp_path / "val", classes=("ant", "cow"))
    with pytest.raises(DataError, match=r"val has classes that .*train lacks: cow"):
        load_dataset(tmp_path)


def test_a_test_part_without_one_of_the_classes_is_fine(tmp_path):
    photos(tmp_path / "train", classes=("ant", "bee", "cow"))
    photos(tmp_path / "val", classes=("cow",))
    data = load_dataset(tmp_path, image_size=4)
    assert data.test is not None
    assert data.test.labels is not None
    assert set(data.test.labels.tolist()) == {2}


def test_a_folder_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    photos(tmp_path)
    scan = os.scandir

    def denied(path):
        if Path(path).name == "bee":
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", denied)
    with pytest.raises(DataError, match="bee cannot be read: Permission denied"):
        load_dataset(tmp_path)


def test_more_than_the_disk_is_refused_before_it_is_read(tmp_path, monkeypatch):
    photos(tmp_path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=100 << 20))
    with pytest.raises(
        StorageError, match=r"10 images of 4096 x 4096 take 480.0 MiB in the cache, and .* has 100.0 MiB free"
    ):
        load_dataset(tmp_path, image_size=4096)


@pytest.mark.parametrize(
    ("sizes", "message"),
    [
        ({"image_size": 0}, r"image_size \(--image-size\) is 0; give a number of pixels from 1 to 4096"),
        ({"image_size": 4097}, r"image_size \(--image-size\) is 4097"),
        ({"image_size": 8, "short_side": 7}, r"short_side \(--short-side\) is 7; give image_size \(8\) or more"),
    ],
)
def test_sizes_that_make_no_sense(tmp_path, sizes, message):
    with pytest.raises(SettingError, match=message):
        load_dataset(photos(tmp_path), **sizes)
