"""Data for people to label: what `load_dataset` reads is read alike, and no setting is passed over in silence."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from svp.config import SessionConfig
from svp.data import load_dataset, unlabelled
from svp.data.base import Dataset
from svp.errors import SettingError
from tests.test_data_parquet import write

X, Y = np.arange(40, dtype=np.float32).reshape(20, 2), np.repeat([0, 1], 10)


def load(path: Path, **values: Any) -> Dataset:
    config = SessionConfig.make({"dataset": str(path), "classes": ["cat", "dog"], **values})
    return unlabelled.load(config, config.classes)


@pytest.mark.parametrize("values", [{"text_column": ["text"]}, {"encoding": "latin-1"}, {"image_size": 8}], ids=str)
def test_a_setting_that_means_nothing_is_refused(tmp_path: Path, values: dict[str, Any]) -> None:
    np.savez(tmp_path / "x.npz", x=X)
    with pytest.raises(SettingError, match="means nothing here"):
        load(tmp_path / "x.npz", **values)


def test_labels_are_hidden_and_a_test_part_is_held_out_as_asked(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=X, y=Y)
    data, labelled = load(tmp_path / "x.npz", test_share=0.5), load_dataset(tmp_path / "x.npz", test_share=0.5)
    assert data.labels is None
    assert data.classes == ("cat", "dog")
    assert data.ids.tolist() == labelled.ids.tolist()
    assert len(data) == 10


@pytest.mark.parametrize("on_error", [{}, {"on_error": "skip"}, {"on_error": "refuse"}], ids=str)
def test_where_nothing_can_be_skipped_nothing_has_to_be_said_of_it(tmp_path: Path, on_error: dict[str, Any]) -> None:
    np.savez(tmp_path / "x.npz", x=X)
    assert len(load(tmp_path / "x.npz", **on_error)) == 20
    assert len(load(Path("digits"), classes=[str(i) for i in range(10)], **on_error)) == 1346


@pytest.mark.parametrize("place", ["", "data", "train"])
def test_shards_of_images_are_found_where_they_are_with_labels(tmp_path: Path, place: str) -> None:
    write(tmp_path / place / "a.parquet", list(range(20)), [0, 1] * 10)
    data, labelled = load(tmp_path, image_size=4), load_dataset(tmp_path, image_size=4)
    assert data.labels is None
    assert np.array_equal(data.inputs, labelled.inputs)
