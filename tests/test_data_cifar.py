"""CIFAR-10's layout: read without running it, checked, fetched. Small sets stand in for the real one."""

import hashlib
import http.client
import pickle
import struct
import subprocess
import sys
import tarfile
import urllib.error
from pathlib import Path

import numpy as np
import pytest

from svp.data import cifar, load_dataset
from svp.errors import DataError, StorageError

SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"


def python2_batch(images: np.ndarray, labels: list[int]) -> bytes:
    """A batch as Python 2 wrote it: byte strings as keys, an array from numpy.core."""

    def text(value: bytes) -> bytes:
        return b"U" + bytes([len(value)]) + value

    raw = images.transpose(0, 3, 1, 2).tobytes()
    array = (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + b"(K\x01J" + struct.pack("<i", len(images)) + b"M\x00\x0c\x86"
        + b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        + b"\x89T" + struct.pack("<i", len(raw)) + raw + b"tb"
    )  # fmt: skip
    numbers = b"](" + b"".join(b"K" + bytes([label]) for label in labels) + b"e"
    return b"\x80\x02}(" + text(b"labels") + numbers + text(b"data") + array + b"u."


def write_layout(root: Path, n: int = 4, classes: tuple[str, ...] = ("cat", "dog", "owl"), seed: int = 0) -> Path:
    """A folder `cifar-10-batches-py` under root, with n random images in each of its six batches."""
    rng = np.random.default_rng(seed)
    folder = root / cifar.FOLDER
    folder.mkdir(parents=True)
    for name in (*cifar.TRAIN, cifar.TEST):
        images = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        (folder / name).write_bytes(python2_batch(images, rng.integers(0, len(classes), n).tolist()))
    (folder / cifar.META).write_bytes(pickle.dumps({"label_names": list(classes)}, protocol=2))
    return folder


def make_official(monkeypatch: pytest.MonkeyPatch, folder: Path) -> None:
    """Let the files of a small set be the official ones."""
    table = {}
    for name in cifar.NAMES:
        content = (folder / name).read_bytes()
        table[name] = (len(content), hashlib.md5(content).hexdigest())
    monkeypatch.setattr(cifar, "OFFICIAL", table)


def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """A small set as the official one, and its archive as what the internet has: (its folder, the archive)."""
    folder = write_layout(tmp_path / "published")
    make_official(monkeypatch, folder)
    archive = tmp_path / "web" / cifar.ARCHIVE
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, cifar.FOLDER)
    monkeypatch.setattr(cifar, "URL", archive.as_uri())
    monkeypatch.setattr(cifar, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    return folder, archive


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Nothing here reaches the internet, or the user's own data."""
    monkeypatch.setattr(cifar, "URL", (tmp_path / "offline" / cifar.ARCHIVE).as_uri())
    monkeypatch.setenv("SVP_DATA", str(tmp_path / "default"))


# --- reading


@pytest.mark.shared_data
def test_the_real_cifar10(tmp_path):
    if not (SHARED / "prepare.py").exists():
        pytest.skip("the shared data sets do not lie beside the project (../shared/data)")
    subprocess.run([sys.executable, SHARED / "prepare.py", tmp_path, "cifar10"], check=True, capture_output=True)
    data = load_dataset("cifar10", root=tmp_path / "cifar10")
    assert data.test is not None
    assert data.inputs.shape == (50_000, 32, 32, 3)
    assert data.test.inputs.shape == (10_000, 32, 32, 3)
    assert data.inputs.dtype == np.uint8
    assert data.inputs.flags.c_contiguous
    assert np.bincount(data.labels).tolist() == [5000] * 10
    assert np.bincount(data.test.labels).tolist() == [1000] * 10
    assert data.ids.tolist() == list(range(50_000))
    assert data.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    assert data.labels[:5].tolist() == [6, 9, 9, 4, 1]  # a frog, two trucks, a deer and a car, as is well known
    assert data.inputs[0, 0, 0].tolist() == [59, 62, 63]
    assert data.augmentation == "crop_flip"


@pytest.mark.parametrize("inside", [False, True])
def test_a_small_set_in_the_layout_needs_no_checksums(tmp_path, inside):
    folder = write_layout(tmp_path, n=4, seed=3)
    data = load_dataset("svp.data.cifar:read_batches", root=folder if inside else tmp_path)
    rng = np.random.default_rng(3)
    for batch in range(5):
        rows = slice(4 * batch, 4 * batch + 4)
        assert np.array_equal(data.inputs[rows], rng.integers(0, 256, (4, 32, 32, 3), np.uint8))
        assert np.array_equal(data.labels[rows], rng.integers(0, 3, 4))
    assert data.classes == ("cat", "dog", "owl")
    assert data.test is not None
    assert data.test.ids.tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("protocol", [2, 3, 4])
def test_batches_that_python_3_wrote(tmp_path, protocol):
    folder = write_layout(tmp_path)
    before = cifar.read_batches(tmp_path)
    for name in (*cifar.TRAIN, cifar.TEST):
        images, labels = cifar._batch(folder / name, None, 3)
        raw = images.transpose(0, 3, 1, 2).reshape(-1, 3072).copy()
        (folder / name).write_bytes(pickle.dumps({"data": raw, "labels": labels.tolist()}, protocol))
    if protocol == 2:  # the bytes themselves are then made by a function, and none is run
        with pytest.raises(DataError, match=r"_codecs\.encode"):
            cifar.read_batches(tmp_path)
    else:
        assert cifar.read_batches(tmp_path).fingerprint == before.fingerprint


# --- files that are not what they should be


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[:-100], r"data_batch_3 is truncated: [\d,]+ bytes with md5 \w{32}, not [\d,]+ bytes"),
        (
            lambda content: content[:-9] + b"\x00" + content[-8:],
            r"data_batch_3 is altered: .* with md5 \w{32}, not .* md5",
        ),
        (lambda content: b"", "data_batch_3 is truncated: 0 bytes"),
    ],
)
def test_a_file_with_another_checksum_is_refused(tmp_path, monkeypatch, damage, message):
    folder = write_layout(tmp_path)
    make_official(monkeypatch, folder)
    load_dataset("cifar10", root=tmp_path)
    file = folder / "data_batch_3"
    file.write_bytes(damage(file.read_bytes()))
    with pytest.raises(DataError, match=message):
        load_dataset("cifar10", root=tmp_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("data_batch_2", b"", "truncated or no pickle"),
        ("data_batch_2", b"PK\x03\x04 surely a zip", "truncated or no pickle"),
        ("data_batch_2", python2_batch(np.zeros((2, 32, 32, 3), np.uint8), [0, 1])[:-50], "truncated or no pickle"),
        ("data_batch_2", pickle.dumps([1, 2]), "holds a list, not the dict"),
        ("data_batch_2", pickle.dumps({"labels": [1]}), "no array data"),
        ("data_batch_2", pickle.dumps({"data": np.zeros((2, 9), np.uint8), "labels": [0, 1]}, 4), "no array data"),
        ("data_batch_2", pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}, 4), "no array data"),
        ("data_batch_2", python2_batch(np.zeros((2, 32, 32, 3), np.uint8), [0]), "one number for each of its 2 images"),
        ("test_batch", python2_batch(np.zeros((2, 32, 32, 3), np.uint8), [0, 3]), r"labels outside 0 \.\. 2.* 3"),
        ("batches.meta", pickle.dumps({"label_names": 3}), "no list label_names"),
    ],
)
def test_a_file_that_does_not_fit_the_layout_is_named(tmp_path, name, content, message):
    (write_layout(tmp_path) / name).write_bytes(content)
    with pytest.raises(DataError, match=f"{name} .*{message}"):
        cifar.read_batches(tmp_path)


class _Touch:
    """Makes a file when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.parametrize("name", ["data_batch_1", "test_batch", "batches.meta"])
@pytest.mark.parametrize("kind", ["os.system", "protocol 2", "protocol 4", "builtins", "numpy", "extension"])
def test_no_code_in_a_pickle_is_executed(tmp_path, name, kind):
    mark = tmp_path / "executed"
    evil = {
        "os.system": f"cos\nsystem\n(S'touch {mark}'\ntR.".encode(),
        "builtins": f"cbuiltins\nexec\n(S'open({str(mark)!r}, \"w\")'\ntR.".encode(),
        "numpy": b"cnumpy\nload\n(S'" + str(tmp_path / "inner").encode() + b"'\nNI01\ntR.",
        "extension": b"\x80\x02\x82\x01.",
        "protocol 2": pickle.dumps({"data": _Touch(mark)}, 2),
        "protocol 4": pickle.dumps({"data": _Touch(mark)}, 4),
    }[kind]
    (tmp_path / "inner").write_bytes(pickle.dumps(_Touch(mark)))
    (write_layout(tmp_path) / name).write_bytes(evil)
    with pytest.raises(DataError, match=name):
        cifar.read_batches(tmp_path)
    assert not mark.exists()


def test_a_refused_pickle_says_what_it_asked_for(tmp_path):
    (write_layout(tmp_path) / "test_batch").write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    with pytest.raises(DataError, match=r"test_batch is refused: it asks for os\.system.* was not run"):
        cifar.read_batches(tmp_path)


# --- files that are not there


def test_missing_files_are_named_and_where_to_put_them(tmp_path, monkeypatch):
    folder = write_layout(tmp_path)
    make_official(monkeypatch, folder)
    (folder / "data_batch_4").unlink()
    message = r"data_batch_4 is not in .*cifar-10-batches-py, and file:.* cannot be read .*put the unpacked files there"
    with pytest.raises(DataError, match=message) as error:
        load_dataset("cifar10", root=tmp_path)
    assert "\n" not in str(error.value)
    with pytest.raises(DataError, match="data_batch_4 is not there"):
        cifar.read_batches(tmp_path)


def test_without_a_network_nothing_is_left_behind(tmp_path):
    with pytest.raises(DataError, match=r"data_batch_1, data_batch_2.* are not in"):
        load_dataset("cifar10", root=tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("below", ["", "sub"])
def test_a_file_where_a_folder_is_expected(tmp_path, monkeypatch, below):
    publish(monkeypatch, tmp_path)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError if below else DataError, match=r"is a file|cannot be written"):
        load_dataset("cifar10", root=tmp_path / "file" / below)


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    publish(monkeypatch, tmp_path)
    write = Path.write_bytes

    def full(path, content):
        write(path, content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="cannot be written: No space left on device"):
        load_dataset("cifar10", root=tmp_path / "new")
    assert list((tmp_path / "new" / cifar.FOLDER).iterdir()) == []


def test_a_missing_set_is_fetched_once(tmp_path, monkeypatch):
    folder, archive = publish(monkeypatch, tmp_path)
    calls = []
    data = load_dataset("cifar10", root=tmp_path / "new", progress=lambda *call: calls.append(call))
    assert data.fingerprint == cifar.read_batches(folder).fingerprint
    assert sorted(file.name for file in (tmp_path / "new" / cifar.FOLDER).iterdir()) == sorted(cifar.NAMES)
    assert calls[-1] == (f"fetching {cifar.ARCHIVE}", archive.stat().st_size, archive.stat().st_size)
    archive.unlink()
    assert load_dataset("cifar10", root=tmp_path / "new").fingerprint == data.fingerprint


def test_the_default_place_is_the_environments(tmp_path, monkeypatch):
    publish(monkeypatch, tmp_path)
    load_dataset("cifar10")
    assert (tmp_path / "default" / cifar.FOLDER / "test_batch").is_file()


def test_only_what_is_missing_is_written(tmp_path, monkeypatch):
    folder, _ = publish(monkeypatch, tmp_path)
    (folder / "test_batch").unlink()
    before = (folder / "data_batch_1").stat().st_mtime_ns
    load_dataset("cifar10", root=folder)
    assert (folder / "data_batch_1").stat().st_mtime_ns == before


def test_an_archive_that_lies_there_is_used(tmp_path, monkeypatch):
    folder, archive = publish(monkeypatch, tmp_path)
    monkeypatch.setattr(cifar, "URL", "file:///nowhere")
    assert load_dataset("cifar10", root=archive.parent).fingerprint == cifar.read_batches(folder).fingerprint


@pytest.mark.parametrize("local", [True, False])
def test_an_archive_with_another_checksum_is_refused(tmp_path, monkeypatch, local):
    _, archive = publish(monkeypatch, tmp_path)
    archive.write_bytes(archive.read_bytes()[:-10])
    root = archive.parent if local else tmp_path / "new"
    with pytest.raises(DataError, match=r"is truncated or altered: [\d,]+ bytes with md5 \w+, not md5 \w+"):
        load_dataset("cifar10", root=root)
    assert not (root / cifar.FOLDER).exists()


def test_an_archive_is_not_trusted_beyond_its_files(tmp_path, monkeypatch):
    _, archive = publish(monkeypatch, tmp_path)
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo(f"{cifar.FOLDER}/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    monkeypatch.setattr(cifar, "ARCHIVE_MD5", hashlib.md5(archive.read_bytes()).hexdigest())
    with pytest.raises(DataError, match="does not hold cifar-10-batches-py as published"):
        load_dataset("cifar10", root=tmp_path / "new")


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (urllib.error.URLError(OSError(-3, "Temporary failure in name resolution")), "Temporary failure"),
        (TimeoutError("timed out"), "timed out"),
        (http.client.IncompleteRead(b"abc", 10), "IncompleteRead"),
    ],
)
def test_a_network_that_fails_is_one_line(tmp_path, monkeypatch, error, reason):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr("urllib.request.urlopen", fail)
    with pytest.raises(DataError, match=reason) as raised:
        load_dataset("cifar10", root=tmp_path)
    assert "\n" not in str(raised.value)
