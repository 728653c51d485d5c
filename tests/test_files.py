"""Files are whole or not there, damaged ones are named, and digests notice any change."""

import errno
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from svp import files
from svp.errors import DataError, StorageError
from svp.files import digest, read_array, read_json, write_array, write_bytes, write_json
from tests.characters import CONTROL, PLAIN
from tests.refused import refused


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it is to be relied on."""


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("step", ["open", "write", "fsync", "replace", "fsync of the folder"])
@pytest.mark.parametrize("existing", [b"old", None])
@pytest.mark.parametrize(
    "failure",
    [Killed(), OSError(errno.ENOSPC, "No space left on device"), OSError(errno.EIO, "Input/output error")],
    ids=["kill", "full", "io"],
)
def test_a_file_is_old_or_new_whatever_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str, existing: bytes | None, failure: BaseException
) -> None:
    path = tmp_path / "file"
    if existing is not None:
        path.write_bytes(existing)
    real_open, real_fsync, synced = open, os.fsync, []

    def fail(*_: Any, **__: Any) -> Any:
        raise failure

    class Broken:
        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> "Broken":
            return self

        def __exit__(self, *_: object) -> None:
            self._file.close()

        def write(self, data: bytes) -> None:
            self._file.write(data[:3])
            raise failure

    def fsync(fd: int) -> None:
        if len(synced) == (1 if step == "fsync of the folder" else 0):
            raise failure
        synced.append(fd)
        real_fsync(fd)

    if step == "open":
        monkeypatch.setattr(files, "open", fail, raising=False)
    elif step == "write":
        monkeypatch.setattr(files, "open", lambda *args: Broken(real_open(*args)), raising=False)
    elif step == "replace":
        monkeypatch.setattr(os, "replace", fail)
    else:
        monkeypatch.setattr(os, "fsync", fsync)
    if isinstance(failure, Killed):
        with pytest.raises(Killed):
            write_bytes(path, b"new content")
    else:
        words = ["disk is full", "free some space"] if failure.errno == errno.ENOSPC else ["Input/output error"]
        with refused(StorageError, str(path), *words):
            write_bytes(path, b"new content")
    monkeypatch.undo()
    replaced = step == "fsync of the folder"
    content = path.read_bytes() if path.exists() else None
    assert content == (b"new content" if replaced else existing)
    assert names(tmp_path) == (["file"] if content is not None else [])


def test_a_real_full_device(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = open
    monkeypatch.setattr(files, "open", lambda path, mode: real("/dev/full", mode), raising=False)
    with refused(StorageError, "disk is full", "it continues where it stopped"):
        write_bytes(tmp_path / "file", b"x" * 10)
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    ("code", "words"), [(errno.EFBIG, "ulimit -f"), (errno.EIO, "Input/output error"), (errno.EMFILE, "Too many open")]
)
def test_every_failed_write_says_what_to_do(code: int, words: str, tmp_path: Path) -> None:
    with refused(StorageError, words, "choose another folder (--out)"), files.storage_errors(tmp_path):
        raise OSError(code, os.strerror(code))


@settings(derandomize=True, deadline=None, max_examples=40)
@given(
    st.recursive(
        st.none()
        | st.booleans()
        | st.integers()
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(PLAIN + CONTROL),
        lambda inner: st.lists(inner) | st.dictionaries(st.text(PLAIN + CONTROL, max_size=3), inner),
        max_leaves=8,
    )
)
def test_json_comes_back(tmp_path_factory: pytest.TempPathFactory, value: Any) -> None:
    path = tmp_path_factory.mktemp("json") / "value.json"
    write_json(path, value)
    assert read_json(path) == value
    assert path.read_bytes().endswith(b"\n")


@pytest.mark.parametrize("name", ["environment.json", "metrics.json", "session.json"])
def test_nobody_is_told_to_remove_a_whole_session_for_one_file(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{")
    with pytest.raises(DataError) as caught:
        read_json(tmp_path / name)
    assert "remove this one file" in str(caught.value)
    assert "folder" not in str(caught.value)
    stage = tmp_path / "proxy"
    stage.mkdir()
    (stage / "done.json").write_text("{")
    with refused(DataError, f"remove the folder {stage} to have it made again"):
        read_json(stage / "done.json")


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_has_not_are_no_json(tmp_path: Path, value: float) -> None:
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(tmp_path / "value.json", {"accuracy": value})
    assert not list(tmp_path.iterdir())


def test_damaged_files_are_named(tmp_path: Path) -> None:
    path = tmp_path / "file"
    with refused(DataError, str(path), "is missing", "run folder"):
        read_json(path)
    for content in (b"", b"{", b"\xff"):
        path.write_bytes(content)
        with refused(DataError, str(path), "is damaged"):
            read_json(path)
    whole = tmp_path / "array.npy"
    write_array(whole, np.arange(10))
    assert isinstance(read_array(whole), np.memmap)
    assert read_array(whole).tolist() == list(range(10))
    for length in (0, 3, 80, 150):
        path.write_bytes(whole.read_bytes()[:length])
        with refused(DataError, f"cannot read {path}"):
            read_array(path)
    content = whole.read_bytes()
    for header in (content[10:40] + b"\xff\n", b"{'descr': (", b"[", b"{'descr': '<i8'}", b"(" * 90):
        path.write_bytes(content[:10] + header.ljust(118) + content[128:])
        with refused(DataError, f"cannot read {path}"):
            read_array(path)
    with pytest.raises(ValueError, match="Object arrays"):
        write_array(path, np.array([{}], object))


def test_digests_notice_any_change() -> None:
    a = np.arange(6)
    others = [
        a[::-1],
        a.reshape(2, 3),
        a.astype(np.int32),
        a.astype(float),
        np.append(a, 6),
        a + (a == 3),
        a[:0],
        "012345",
    ]
    assert len({digest(x) for x in [a, *others]}) == len(others) + 1
    assert digest(a) == digest(a.copy()) == digest(np.repeat(a, 2)[::2])
