"""Images as bytes in Parquet."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from svp.data import load_dataset
from svp.errors import DataError, SettingError, SvpWarning


def png(value: int) -> bytes:
    buffer = io.BytesIO()
    Image.new("L", (6, 5), value).save(buffer, "PNG")
    return buffer.getvalue()


def write(
    path: Path, greys: list[int], labels: list[Any], *, names: list[str] | None = None, image: str = "image", **options
) -> Path:
    """As the hub writes it: structures {bytes, path}, class numbers, names of classes in the metadata."""
    path.parent.mkdir(parents=True, exist_ok=True)
    images = [{"bytes": png(value), "path": f"{value}.png"} for value in greys]
    table = pa.table({"n": greys, image: images, options.get("label", "label"): labels})
    if names is not None:
        features = {"label": {"names": names, "_type": "ClassLabel"}}
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    pq.write_table(table, path, row_group_size=options.get("group", 3))
    return path


def greys(data) -> list[int]:
    return data.inputs[:, 0, 0, 0].tolist()


def test_one_file_is_divided(tmp_path):
    file = write(tmp_path / "a.parquet", list(range(20)), [0, 1] * 10, names=["cat", "dog"])
    whole = load_dataset(file, image_size=4, test_share=0)
    assert (greys(whole), whole.labels.tolist(), whole.classes) == (list(range(20)), [0, 1] * 10, ("cat", "dog"))
    assert (whole.keys[:2], whole.augmentation, whole.inputs.shape) == (
        ("a.parquet:0", "a.parquet:1"),
        "crop_flip",
        (20, 4, 4, 3),
    )
    data = load_dataset(file, image_size=4)
    assert (len(data), len(data.test)) == (16, 4)
    for part in (data, data.test):
        assert greys(part) == part.ids.tolist()
        assert part.labels.tolist() == [i % 2 for i in part.ids]


@pytest.mark.parametrize("place", ["", "data", "train"])
def test_shards_are_read_in_order_and_divided_by_their_names(tmp_path, place):
    names = ["cat", "dog", "owl"]
    for shard in (1, 0):
        file = tmp_path / place / f"train-0000{shard}-of-00002.parquet"
        write(file, [10 * shard + i for i in range(5)], [0, 1, 2, 1, 0], names=names)
    write(tmp_path / "validation" / "0.parquet", [50, 51], [2, 1], names=names)
    write(tmp_path / "test-00000.parquet", [60, 61], [-1, -1], names=names)  # as ImageNet's: nobody may know
    data = load_dataset(tmp_path, image_size=4)
    assert greys(data) == [0, 1, 2, 3, 4, 10, 11, 12, 13, 14]
    assert (greys(data.test), data.test.labels.tolist(), data.test.ids.tolist()) == ([50, 51], [2, 1], [0, 1])
    assert data.key(5).endswith("train-00001-of-00002.parquet:0")
    with pytest.raises(SettingError, match="it has shards of a test part"):
        load_dataset(tmp_path, test_share=0.5)


def test_shards_called_testing_are_not_trained_on(tmp_path):
    write(tmp_path / "training-0.parquet", [0, 1], [0, 1])
    write(tmp_path / "testing-0.parquet", [60, 61], [1, 0])
    data = load_dataset(tmp_path, image_size=4)
    assert (greys(data), greys(data.test)) == ([0, 1], [60, 61])


def test_names_as_labels_and_bytes_in_a_column_of_another_name(tmp_path):
    table = pa.table({"photo": [png(i) for i in range(6)], "kind": ["b", "a", "b", "a", "a", "b"]})
    pq.write_table(table, tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column of images called image, img.*one of photo, kind with image_column"):
        load_dataset(tmp_path / "a.parquet")
    with pytest.raises(DataError, match=r"no column of labels called label.*with label_column \(--label-column\)"):
        load_dataset(tmp_path / "a.parquet", image_column="photo")
    with pytest.raises(DataError, match=r"has no column 'pic'; it has photo, kind"):
        load_dataset(tmp_path / "a.parquet", image_column="pic")
    data = load_dataset(tmp_path, image_size=4, test_share=0, image_column="photo", label_column="kind")
    assert (data.classes, data.labels.tolist(), greys(data)) == (("a", "b"), [1, 0, 1, 0, 0, 1], list(range(6)))


def test_another_column_is_another_image(tmp_path):
    table = pa.table(
        {"image": [png(i) for i in range(4)], "img": [png(90 + i) for i in range(4)], "label": [0, 1, 0, 1]}
    )
    pq.write_table(table, tmp_path / "a.parquet")
    for column, first in (("image", 0), ("img", 90), ("image", 0)):
        assert greys(load_dataset(tmp_path, image_size=4, test_share=0, image_column=column))[0] == first


def test_rows_that_cannot_be_read(tmp_path):
    images = [{"bytes": b, "path": None} for b in (png(0), b"", None, png(3)[:20], png(4), png(5))]
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1, 0, 1]}), tmp_path / "a.parquet", row_group_size=2)
    with pytest.raises(DataError, match=r"3 of 6 images cannot be read: a.parquet:1 \(not an image .*a.parquet:2 .*:3"):
        load_dataset(tmp_path, image_size=4, test_share=0)
    with pytest.warns(SvpWarning, match="3 files left out: a.parquet:1: "):
        data = load_dataset(tmp_path, image_size=4, test_share=0, on_error="skip")
    assert (greys(data), data.ids.tolist()) == ([0, 4, 5], [0, 4, 5])


def test_a_file_beside_its_shard(tmp_path):
    (tmp_path / "7.png").write_bytes(png(7))
    images = [{"bytes": png(i), "path": ""} for i in range(3)] + [{"bytes": None, "path": "7.png"}]
    pq.write_table(pa.table({"image": images, "label": [0, 1, 0, 1]}), tmp_path / "a.parquet")
    assert greys(load_dataset(tmp_path, image_size=4, test_share=0)) == [0, 1, 2, 7]
    (tmp_path / "7.png").write_bytes(png(200))  # its shard is as it was
    assert greys(load_dataset(tmp_path, image_size=4, test_share=0)) == [0, 1, 2, 200]
    (tmp_path / "7.png").unlink()
    with pytest.raises(DataError, match=r"1 of 4 images cannot be read: a.parquet:3 \(No such file"):
        load_dataset(tmp_path, image_size=4, test_share=0)


def test_many_rows_go_through_processes_and_small_groups(tmp_path):
    file = write(tmp_path / "a.parquet", [i % 250 for i in range(130)], [i % 2 for i in range(130)], group=7)
    assert greys(load_dataset(file, image_size=4, test_share=0)) == [i % 250 for i in range(130)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"image": [1, 2], "label": [0, 1]}, "column image holds int64, not the bytes of image files"),
        ({"image": [b"", b""], "label": [0.5, 1.0]}, "column label holds double; labels are whole numbers or names"),
        ({"image": [b"", b""], "label": [0, None]}, "1 rows have no label"),
        ({"image": [b"", b""], "label": [0, -1]}, "labels from -1 to 0, and 1 classes are named"),
    ],
)
def test_columns_that_are_something_else(tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError, match=message):
        load_dataset(tmp_path)


def test_shards_that_do_not_belong_together(tmp_path):
    write(tmp_path / "a.parquet", [1, 2], [0, 1], names=["x", "y"])
    write(tmp_path / "b.parquet", [1, 2], [0, 1], names=["y", "x"])
    with pytest.raises(DataError, match="shards differ in their columns or names of classes"):
        load_dataset(tmp_path)
    (tmp_path / "b.parquet").rename(tmp_path / "train-0.parquet")
    with pytest.raises(DataError, match=r"others that are of no part: a.parquet; move them elsewhere"):
        load_dataset(tmp_path)
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "train-0.parquet").rename(tmp_path / "test-0.parquet")
    with pytest.raises(DataError, match="no shards to train on, only of test"):
        load_dataset(tmp_path)
    (tmp_path / "test-0.parquet").write_bytes(b"PAR1")
    (tmp_path / "test-0.parquet").rename(tmp_path / "0.parquet")
    with pytest.raises(DataError, match=r"0.parquet cannot be read"):
        load_dataset(tmp_path)


def test_labels_beyond_the_named_classes(tmp_path):
    write(tmp_path / "a.parquet", [1, 2, 3], [0, 1, 2], names=["x", "y"])
    with pytest.raises(DataError, match="labels from 0 to 2, and 2 classes are named"):
        load_dataset(tmp_path)


def test_what_is_the_same_as_a_folder_of_files(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for i in range(8):
        path = tmp_path / "folder" / "ab"[i % 2] / f"{i}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (90, 70, 3), np.uint8)).save(path)
    files = sorted((tmp_path / "folder").rglob("*.jpg"))
    rows = {"image": [file.read_bytes() for file in files], "label": [file.parent.name for file in files]}
    pq.write_table(pa.table(rows), tmp_path / "rows.parquet")
    folder, parquet = (load_dataset(tmp_path / name, image_size=16) for name in ("folder", "rows.parquet"))
    assert np.array_equal(folder.inputs, parquet.inputs)
    assert np.array_equal(folder.test.inputs, parquet.test.inputs)
    assert (folder.classes, folder.labels.tolist()) == (parquet.classes, parquet.labels.tolist())
