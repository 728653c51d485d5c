"""The layouts of CIFAR-10 and CIFAR-100: read without running it, checked, fetched. Small sets stand in for the real one."""

import hashlib
import http.client
import pickle
import struct
import subprocess
import sys
import tarfile
import urllib.error
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from svp.data import cifar, load_dataset
from svp.errors import DataError, StorageError

CIFAR10 = cifar.LAYOUTS["cifar10"]
SHARED = Path(__file__).parents[1] / ".." / "shared" / "data"


def python2_batch(images: np.ndarray, labels: dict[str, list[int]]) -> bytes:
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
    lists = [
        text(key.encode()) + b"](" + b"".join(b"K" + bytes([label]) for label in numbers) + b"e"
        for key, numbers in labels.items()
    ]
    return b"\x80\x02}(" + b"".join(lists) + text(b"data") + array + b"u."


def write_layout(
    root: Path, n: int = 4, classes: tuple[str, ...] = ("cat", "dog", "owl"), seed: int = 0, name: str = "cifar10"
) -> Path:
    """The folder of a layout under root, with n random images in each of its batches. Coarse labels are half the fine ones."""
    rng = np.random.default_rng(seed)
    layout = cifar.LAYOUTS[name]
    folder = root / layout.folder
    folder.mkdir(parents=True)
    for file in (*layout.train, layout.test):
        images = rng.integers(0, 256, (n, 32, 32, 3), np.uint8)
        labels = rng.integers(0, len(classes), n)
        fine = {"cifar10": "labels"}.get(name, "fine_labels")
        batch = {fine: labels.tolist(), "coarse_labels": (labels // 2).tolist()}
        (folder / file).write_bytes(python2_batch(images, batch))
    coarse = [f"{'-'.join(classes[i : i + 2])}" for i in range(0, len(classes), 2)]
    meta = {layout.classes: list(classes), "fine_label_names": list(classes), "coarse_label_names": coarse}
    (folder / layout.meta).write_bytes(pickle.dumps(meta, protocol=2))
    return folder


def change(monkeypatch: pytest.MonkeyPatch, name: str, **changes) -> None:
    """Let the facts of a layout be others."""
    monkeypatch.setitem(cifar.LAYOUTS, name, replace(cifar.LAYOUTS[name], **changes))


def make_official(monkeypatch: pytest.MonkeyPatch, folder: Path, *names: str) -> None:
    """Let the files of a small set be the official ones."""
    for name in names or ("cifar10",):
        files = {file: hashlib.md5((folder / file).read_bytes()).hexdigest() for file in cifar.LAYOUTS[name].names}
        change(monkeypatch, name, files=files)


def publish(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Path, Path]:
    """A small set as the official one, and its archive as what the internet has: (its folder, the archive)."""
    folder = write_layout(tmp_path / "published")
    make_official(monkeypatch, folder)
    archive = tmp_path / "web" / CIFAR10.archive
    archive.parent.mkdir()
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, CIFAR10.folder)
    md5 = hashlib.md5(archive.read_bytes()).hexdigest()
    change(monkeypatch, "cifar10", url=archive.as_uri(), md5=md5)
    return folder, archive


@pytest.fixture(autouse=True)
def offline(monkeypatch, tmp_path):
    """Nothing here reaches the internet, or the user's own data."""
    for name, layout in list(cifar.LAYOUTS.items()):
        change(monkeypatch, name, url=(tmp_path / "offline" / layout.archive).as_uri())
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
    for name in (*CIFAR10.train, CIFAR10.test):
        images, labels = cifar._batch(folder / name, None, "labels", 3)
        raw = images.transpose(0, 3, 1, 2).reshape(-1, 3072).copy()
        (folder / name).write_bytes(pickle.dumps({"data": raw, "labels": labels.tolist()}, protocol))
    if protocol == 2:  # the bytes themselves are then made by a function, and none is run
        with pytest.raises(DataError, match=r"_codecs\.encode"):
            cifar.read_batches(tmp_path)
    else:
        assert cifar.read_batches(tmp_path).fingerprint == before.fingerprint


@pytest.mark.parametrize("inside", [False, True])
def test_cifar100_has_fine_and_coarse_labels(tmp_path, monkeypatch, inside):
    classes = tuple(f"class {i}" for i in range(100))
    folder = write_layout(tmp_path, n=60, classes=classes, seed=5, name="cifar100")
    make_official(monkeypatch, folder, "cifar100", "cifar100-coarse")
    fine, coarse = (load_dataset(name, root=folder if inside else tmp_path) for name in ("cifar100", "cifar100-coarse"))
    rng = np.random.default_rng(5)
    for part, other in ((fine, coarse), (fine.test, coarse.test)):
        assert np.array_equal(part.inputs, rng.integers(0, 256, (60, 32, 32, 3), np.uint8))
        assert np.array_equal(other.inputs, part.inputs)
        labels = rng.integers(0, 100, 60)
        assert np.array_equal(part.labels, labels)
        assert np.array_equal(other.labels, labels // 2)
    assert (fine.classes, len(coarse.classes), coarse.classes[1]) == (classes, 50, "class 2-class 3")
    assert (fine.name, coarse.name, fine.augmentation, fine.inputs.flags.c_contiguous) == (
        "cifar100",
        "cifar100-coarse",
        "crop_flip",
        True,
    )


@pytest.mark.parametrize("name", ["cifar100", "cifar100-coarse"])
def test_cifar100_is_fetched_and_held_against_its_checksums(tmp_path, monkeypatch, name):
    folder = write_layout(tmp_path / "published", name="cifar100")
    make_official(monkeypatch, folder, name)
    archive = tmp_path / "cifar-100-python.tar.gz"
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(folder, folder.name)
    change(monkeypatch, name, url=archive.as_uri())
    with pytest.raises(DataError, match=r"not md5 eb9058c3a382ffc7106e4002c42a8d85"):
        load_dataset(name, root=tmp_path / "new")
    change(monkeypatch, name, md5=hashlib.md5(archive.read_bytes()).hexdigest())
    assert len(load_dataset(name, root=tmp_path / "new")) == 4
    file = tmp_path / "new" / folder.name / "meta"
    file.write_bytes(pickle.dumps({"data": _Touch(tmp_path / "executed")}, 2))
    with pytest.raises(DataError, match="meta is truncated or altered"):
        load_dataset(name, root=tmp_path / "new")
    change(monkeypatch, name, files={**cifar.LAYOUTS[name].files, "meta": hashlib.md5(file.read_bytes()).hexdigest()})
    with pytest.raises(DataError, match=r"meta is refused: it asks for .*was not run"):
        load_dataset(name, root=tmp_path / "new")
    assert not (tmp_path / "executed").exists()


# --- files that are not what they should be


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (
            lambda content: content[:-100],
            r"data_batch_3 is truncated or altered: [\d,]+ bytes with md5 \w{32}, not md5 \w{32}",
        ),
        (
            lambda content: content[:-9] + b"\x00" + content[-8:],
            r"data_batch_3 is truncated or altered: .* delete it",
        ),
        (lambda content: b"", "data_batch_3 is truncated or altered: 0 bytes"),
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
        (
            "data_batch_2",
            python2_batch(np.zeros((2, 32, 32, 3), np.uint8), {"labels": [0, 1]})[:-50],
            "truncated or no pickle",
        ),
        ("data_batch_2", pickle.dumps([1, 2]), "holds a list, not the dict"),
        ("data_batch_2", pickle.dumps({"labels": [1]}), "no array data"),
        ("data_batch_2", pickle.dumps({"data": np.zeros((2, 9), np.uint8), "labels": [0, 1]}, 4), "no array data"),
        ("data_batch_2", pickle.dumps({"data": np.zeros((2, 3072)), "labels": [0, 1]}, 4), "no array data"),
        (
            "data_batch_2",
            python2_batch(np.zeros((2, 32, 32, 3), np.uint8), {"labels": [0]}),
            "one number for each of its 2 images",
        ),
        (
            "test_batch",
            python2_batch(np.zeros((2, 32, 32, 3), np.uint8), {"labels": [0, 3]}),
            r"labels outside 0 \.\. 2.* 3",
        ),
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


@pytest.mark.parametrize("read", [cifar.load, cifar.read_batches])
def test_a_place_that_cannot_be_looked_at_is_named(tmp_path, read):
    place = tmp_path / ("x" * 300)
    with pytest.raises(DataError, match=r"cannot read .*xxx.*: File name too long; .*name another place"):
        read(root=place)


def test_a_full_disk_leaves_no_half_file(tmp_path, monkeypatch):
    publish(monkeypatch, tmp_path)
    write = Path.write_bytes

    def full(path, content):
        write(path, content[:10])
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(StorageError, match="cannot be written: No space left on device"):
        load_dataset("cifar10", root=tmp_path / "new")
    assert list((tmp_path / "new" / CIFAR10.folder).iterdir()) == []


def test_a_missing_set_is_fetched_once(tmp_path, monkeypatch):
    folder, archive = publish(monkeypatch, tmp_path)
    calls = []
    data = load_dataset("cifar10", root=tmp_path / "new", progress=lambda *call: calls.append(call))
    assert data.fingerprint == cifar.read_batches(folder).fingerprint
    assert sorted(file.name for file in (tmp_path / "new" / CIFAR10.folder).iterdir()) == sorted(CIFAR10.names)
    assert calls[-1] == (f"fetching {CIFAR10.archive}", archive.stat().st_size, archive.stat().st_size)
    archive.unlink()
    assert load_dataset("cifar10", root=tmp_path / "new").fingerprint == data.fingerprint


def test_the_default_place_is_the_environments(tmp_path, monkeypatch):
    publish(monkeypatch, tmp_path)
    load_dataset("cifar10")
    assert (tmp_path / "default" / CIFAR10.folder / "test_batch").is_file()


def test_only_what_is_missing_is_written(tmp_path, monkeypatch):
    folder, _ = publish(monkeypatch, tmp_path)
    (folder / "test_batch").unlink()
    before = (folder / "data_batch_1").stat().st_mtime_ns
    load_dataset("cifar10", root=folder)
    assert (folder / "data_batch_1").stat().st_mtime_ns == before


def test_an_archive_that_lies_there_is_used(tmp_path, monkeypatch):
    folder, archive = publish(monkeypatch, tmp_path)
    change(monkeypatch, "cifar10", url="file:///nowhere")
    assert load_dataset("cifar10", root=archive.parent).fingerprint == cifar.read_batches(folder).fingerprint


@pytest.mark.parametrize("local", [True, False])
def test_an_archive_with_another_checksum_is_refused(tmp_path, monkeypatch, local):
    _, archive = publish(monkeypatch, tmp_path)
    archive.write_bytes(archive.read_bytes()[:-10])
    root = archive.parent if local else tmp_path / "new"
    with pytest.raises(DataError, match=r"is truncated or altered: [\d,]+ bytes with md5 \w+, not md5 \w+"):
        load_dataset("cifar10", root=root)
    assert not (root / CIFAR10.folder).exists()


def test_an_archive_is_not_trusted_beyond_its_files(tmp_path, monkeypatch):
    _, archive = publish(monkeypatch, tmp_path)
    with tarfile.open(archive, "w:gz") as tar:
        link = tarfile.TarInfo(f"{CIFAR10.folder}/data_batch_1")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        tar.addfile(link)
    change(monkeypatch, "cifar10", md5=hashlib.md5(archive.read_bytes()).hexdigest())
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
