"""The cache of decoded images: made once, gone on with after a kill, made anew only for what changed."""

import os
import shutil
import signal
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from svp.data import decode, load_dataset, pixels
from svp.data.base import Dataset, MappedImages, facts_of, silent
from svp.data.cache import held
from svp.errors import DataError, SettingError, StorageError, SvpWarning


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    return tmp_path / "xdg" / "svp" / "images"


@pytest.fixture
def looked_at(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that this process decodes."""
    names: list[str] = []
    square = decode.square

    def spy(file, size, short_side):
        names.append(Path(file).name)
        return square(file, size, short_side)

    monkeypatch.setattr(decode, "square", spy)
    return names


def photos(root: Path, n: int = 5) -> Path:
    """n images of either class, each of its own grey."""
    for c, name in enumerate(("ant", "bee")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(n):
            grey(root / name / f"{name}{i:02}.png" if n > 10 else root / name / f"{name}{i}.png", 100 * c + i)
    return root


def grey(path: Path, value: int) -> None:
    Image.new("L", (9, 7), value).save(path)


def load(root: Path, **options) -> Dataset:
    return load_dataset(root, image_size=4, test_share=0, **options)


def greys(data: Dataset) -> list[int]:
    return data.inputs[:, 0, 0, 0].tolist()


def test_a_second_load_decodes_nothing_and_gives_the_same(tmp_path, cache, looked_at):
    root = photos(tmp_path / "set")
    first = load(root)
    assert len(looked_at) == 10
    looked_at.clear()
    second = load(root)
    assert looked_at == []
    assert np.array_equal(first.inputs, second.inputs)
    assert greys(second) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    assert first.fingerprint == second.fingerprint
    assert [folder.name[:6] for folder in cache.iterdir()] == ["set-4-"]


def test_the_inputs_are_mapped_and_their_facts_are_those_of_the_pixels(tmp_path, cache, monkeypatch):
    root = photos(tmp_path / "set", n=10)
    for _ in range(2):
        data = load_dataset(root, image_size=4)
        for part in (data, data.test):
            assert part is not None
            assert isinstance(part.inputs, MappedImages)
            assert not part.inputs.flags.writeable
            pixels_ = np.array(part.inputs)
            # What is chosen or computed is in memory.
            assert {type(a) for a in (part.inputs[[0, 1]], part.inputs + 1, part.inputs == 3)} == {np.ndarray}
            assert isinstance(part.inputs.max(), np.uint8)
            plain = Dataset.from_arrays(pixels_, part.labels)
            assert all(np.array_equal(a, b) for a, b in zip(part.statistics, plain.statistics, strict=True))
            facts = part.inputs.facts
            assert facts is not None
            assert facts.sha256 == facts_of(pixels_).sha256
            # Nothing of it is read again, also by those who were given it without its labels.
            monkeypatch.setattr("svp.data.base._blocks", None)
            assert part.without_labels().statistics[0].tolist() == part.statistics[0].tolist()
            assert part.without_labels().fingerprint != part.fingerprint
            monkeypatch.undo()
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))


def test_one_pixel_changes_the_fingerprint(tmp_path, cache):
    root = photos(tmp_path / "set")
    before = load(root).fingerprint
    grey(root / "bee" / "bee3.png", 104)
    changed = load(root).fingerprint
    grey(root / "bee" / "bee3.png", 103)
    assert before == load(root).fingerprint != changed


def test_only_what_changed_is_decoded_again(tmp_path, cache, looked_at):
    root = photos(tmp_path / "set")
    load(root)
    looked_at.clear()
    grey(root / "ant" / "ant2.png", 77)
    grey(root / "bee" / "a_new.png", 88)
    (root / "bee" / "bee4.png").unlink()
    data = load(root)
    assert sorted(looked_at) == ["a_new.png", "ant2.png"]
    assert greys(data) == [0, 1, 77, 3, 4, 88, 100, 101, 102, 103]
    looked_at.clear()
    assert greys(load(root)) == greys(data)
    assert looked_at == []
    assert len(list(next(cache.iterdir()).glob("*.pixels"))) == 1  # of the earlier list nothing is left


def test_another_division_is_copied(tmp_path, cache, looked_at):
    root = photos(tmp_path / "set", n=10)
    whole = load(root)
    looked_at.clear()
    divided = load_dataset(root, image_size=4, test_share=0.3)
    assert looked_at == []
    for part in (divided, divided.test):
        assert part is not None
        assert np.array_equal(part.inputs, whole.inputs[whole.positions(part.ids)])
    assert np.array_equal(whole.inputs[0], load(root).inputs[0])  # its file is gone, and still mapped


def test_a_file_of_the_same_size_written_at_another_time_is_another(tmp_path, cache, looked_at):
    root = photos(tmp_path / "set")
    load(root)
    looked_at.clear()
    os.utime(root / "ant" / "ant0.png", ns=(1, 1))
    load(root)
    assert looked_at == ["ant0.png"]


@pytest.mark.parametrize("options", [{"image_size": 5}, {"image_size": 4, "short_side": 6}])
def test_other_sizes_have_a_folder_of_their_own(tmp_path, cache, options):
    root = photos(tmp_path / "set")
    load(root)
    load_dataset(root, test_share=0, **options)
    assert len(list(cache.iterdir())) == 2


# --- passes that were stopped


class Stopped(Exception):
    pass


def stop_after(n: int):
    def progress(what: str, done: int, total: int) -> None:
        if done >= n:
            raise Stopped

    return progress


@pytest.mark.parametrize("torn", ["", '{"files": 9', '{"files": 99, "broken": {"'])
def test_a_pass_goes_on_where_it_was_stopped(tmp_path, cache, looked_at, monkeypatch, torn):
    monkeypatch.setattr(pixels, "_BLOCK", 2)
    monkeypatch.setattr(pixels, "_MARK", 4)
    monkeypatch.setattr(pixels, "n_cores", lambda: 1)
    monkeypatch.setattr(pixels, "_workers", in_this_process)
    root = photos(tmp_path / "set")
    (root / "ant" / "ant1.png").write_bytes(b"")
    with pytest.raises(Stopped):
        load(root, on_error="skip", progress=stop_after(6))
    assert len(looked_at) == 6
    (journal,) = cache.glob("*/*.journal")
    with journal.open("a") as file:
        file.write(torn)
    (mapped,) = cache.glob("*/*.pixels")
    with mapped.open("ab") as file:
        file.write(b"half an image")
    looked_at.clear()
    with pytest.warns(SvpWarning, match=r"ant1.png: not an image"):
        data = load(root, on_error="skip")
    assert looked_at == ["bee0.png" if i == 5 else f"{'ant' if i < 5 else 'bee'}{i % 5}.png" for i in range(4, 10)]
    assert greys(data) == [0, 2, 3, 4, 100, 101, 102, 103, 104]
    shutil.rmtree(cache)
    with pytest.warns(SvpWarning):
        assert load(root, on_error="skip").fingerprint == data.fingerprint


def in_this_process(n: int):
    return WORKERS(0)


WORKERS = pixels._workers


@pytest.mark.parametrize("suffix", ["pixels", "journal", "facts", "stamps"])
@pytest.mark.parametrize("damage", ["removed", "emptied", "overwritten"])
def test_a_damaged_cache_costs_time_alone(tmp_path, cache, suffix, damage):
    root = photos(tmp_path / "set")
    before = load(root).fingerprint
    (file,) = cache.glob(f"*/*.{suffix}")
    if damage == "removed":
        file.unlink()
    else:
        file.write_bytes(b"" if damage == "emptied" else b"?\n" * (file.stat().st_size // 2))
    if (suffix, damage) == ("pixels", "overwritten"):
        return  # of the right size: nobody could tell without reading all of it
    grey(root / "bee" / "bee0.png", 100)  # written anew, so that the earlier pass is read for its rows
    assert load(root).fingerprint == before


KILLED = """
import os, signal, sys
from svp.data import load_dataset, pixels
pixels._BLOCK = pixels._MARK = 8

def progress(what, done, total):
    if done >= 40:
        os.kill(os.getpid(), signal.SIGKILL)

load_dataset(sys.argv[1], image_size=4, test_share=0, progress=progress)
"""


def test_a_kill_loses_what_was_not_in_the_journal(tmp_path, cache, looked_at):
    root = photos(tmp_path / "set", n=40)
    done = subprocess.run([sys.executable, "-c", KILLED, str(root)], check=False, stderr=subprocess.PIPE)
    assert done.returncode == -signal.SIGKILL, done.stderr
    calls = []
    data = load(root, progress=lambda *call: calls.append(call))
    assert calls[0][1] > 40  # it begins behind the 40 that were through
    assert greys(data) == [*range(40), *range(100, 140)]


def test_two_processes_at_once_give_the_same(tmp_path, cache):
    root = photos(tmp_path / "set", n=40)
    code = "import sys; from svp.data import load_dataset; print(load_dataset(sys.argv[1], image_size=4).fingerprint)"
    both = [
        subprocess.Popen([sys.executable, "-c", code, str(root)], stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    (first, _), (second, _) = (process.communicate() for process in both)
    assert first == second == load_dataset(root, image_size=4).fingerprint + "\n"


# --- files that cannot be read


def test_broken_files_are_named_on_a_second_look_too(tmp_path, cache, looked_at):
    root = photos(tmp_path / "set")
    (root / "ant" / "ant1.png").write_bytes(b"")
    for _ in range(2):
        with pytest.raises(DataError, match=r"1 of 10 images cannot be read: ant/ant1.png \(not an image"):
            load(root)
    assert looked_at.count("ant0.png") == 1
    with pytest.warns(SvpWarning, match=r"1 file left out: ant/ant1.png: not an image"):
        assert greys(load(root, on_error="skip")) == [0, 2, 3, 4, 100, 101, 102, 103, 104]
    grey(root / "ant" / "ant1.png", 1)
    assert greys(load(root)) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    assert looked_at.count("ant0.png") == 1


def test_a_file_that_can_be_read_after_all_comes_back(tmp_path, cache, monkeypatch):
    """Its size and time are as before: the disk, or the rights, were at fault."""
    root = photos(tmp_path / "set")
    with monkeypatch.context() as patch:
        patch.setattr(decode, "square", fail_for("ant1.png"))
        with pytest.warns(SvpWarning, match=r"ant/ant1.png: Input/output error"):
            assert len(load(root, on_error="skip")) == 9
    assert greys(load(root)) == [0, 1, 2, 3, 4, 100, 101, 102, 103, 104]
    assert len(list(cache.glob("*/*.pixels"))) == 1


def fail_for(name: str):
    square = decode.square

    def failing(file, size, short_side):
        if Path(file).name == name:
            raise OSError(5, "Input/output error", file)
        return square(file, size, short_side)

    return failing


def test_broken_files_of_every_kind(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(pixels, "n_cores", lambda: 2)
    root = photos(tmp_path / "set", n=40)  # enough for worker processes
    ant = root / "ant"
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    Image.fromarray(noise).save(ant / "x.jpg")
    half = (ant / "x.jpg").read_bytes()[:2000]
    Image.fromarray(noise).save(ant / "misnamed.png", "JPEG")  # read for what it is
    (ant / "cut.jpg").write_bytes(half)
    (ant / "empty.jpg").touch()
    (ant / "text.jpg").write_text("no image")
    bomb = bytearray((ant / "ant00.png").read_bytes())
    bomb[16:24] = (50_000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    (ant / "bomb.png").write_bytes(bomb)
    (ant / "gone.png").symlink_to("nowhere")
    (ant / "folder.png").mkdir()
    os.mkfifo(ant / "pipe.png")
    with pytest.warns(SvpWarning, match="6 files left out"):
        data = load(root, on_error="skip")
    reasons = dict(problem.removeprefix("ant/").split(": ", 1) for problem in data.problems)
    assert reasons.keys() == {"cut.jpg", "empty.jpg", "text.jpg", "bomb.png", "gone.png", "pipe.png"}
    assert "truncated" in reasons["cut.jpg"]
    assert "2500000000 pixels" in reasons["bomb.png"]
    assert reasons["gone.png"] == "No such file or directory"
    assert "pipe" in reasons["pipe.png"]
    assert len(data) == 82
    with pytest.raises(DataError, match="6 of 88 images cannot be read"):
        load(root)


def test_a_file_that_kills_its_reader_is_named(tmp_path, monkeypatch):
    """The process dies, the run goes on."""
    root = photos(tmp_path / "set", n=2)
    deadly = tmp_path / "deadly.py"
    source = Path(decode.__file__).read_text()
    trap = '    if b"ant1" in str(file).encode():\n        os.kill(os.getpid(), signal.SIGSEGV)\n    with Image.open('
    deadly.write_text(source.replace("    with Image.open(", trap, 1))
    monkeypatch.setattr(decode, "__file__", str(deadly))
    files = [str(root / name) for name in ("ant/ant0.png", "ant/ant1.png", "bee/bee0.png")]
    worker = pixels._Decoder()
    for _ in range(2):
        images, broken = worker(files, 4, 4)
        assert images[:, 0, 0, 0].tolist() == [0, 100]
        assert broken == {1: f"its reader died ({-signal.SIGSEGV})"}
    assert worker.close() == 0


def test_where_no_process_can_be_started_this_one_decodes(tmp_path, monkeypatch, cache):
    root = photos(tmp_path / "set", n=40)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "no python"))
    assert greys(load(root)) == [*range(40), *range(100, 140)]


def test_processes_give_the_pixels_of_this_one(tmp_path):
    root = photos(tmp_path / "set", n=2)
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (300, 200, 3), np.uint8)).save(root / "ant" / "large.jpg")
    files = [str(path) for path in sorted(root.rglob("*.*"))]
    worker = pixels._Decoder()
    try:
        for items in (files, [Path(file).read_bytes() for file in files]):
            images, broken = worker(items, 8, 9)
            assert np.array_equal(images, decode.squares(files, 8, 9)[0])
            assert broken == {}
    finally:
        worker.close()


# --- where the cache lies


def test_the_place_of_the_cache_can_be_named(tmp_path, cache):
    root = photos(tmp_path / "set")
    data = load(root, cache=tmp_path / "mine")
    assert not cache.exists()
    assert len(list((tmp_path / "mine").glob("set-4-*/*.pixels"))) == 1
    assert load(root).fingerprint == data.fingerprint
    with pytest.raises(SettingError, match=r"digits: cache \(--cache\) means nothing here"):
        load_dataset("digits", cache=tmp_path)


def test_nothing_is_written_beside_the_data(tmp_path, cache):
    root = photos(tmp_path / "set")
    before = sorted(root.rglob("*"))
    for path in (root, *root.iterdir()):
        path.chmod(0o555)
    try:
        load(root)
    finally:
        for path in (root, *root.iterdir()):
            path.chmod(0o755)
    assert sorted(root.rglob("*")) == before


def test_a_cache_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"file/.* cannot be written: Not a directory; name another place .*--cache"):
        load(photos(tmp_path / "set"), cache=tmp_path / "file")


def test_a_disk_that_fills_up_keeps_what_is_done(tmp_path, cache, monkeypatch):
    monkeypatch.setattr(pixels, "_BLOCK", 2)
    monkeypatch.setattr(pixels, "_MARK", 2)
    monkeypatch.setattr(pixels, "_workers", in_this_process)
    root, flush, flushes = photos(tmp_path / "set"), pixels.flush, []

    def full(file):
        flushes.append(file)
        if len(flushes) == 5:
            raise OSError(28, "No space left on device")
        flush(file)

    with monkeypatch.context() as patch:
        patch.setattr(pixels, "flush", full)
        with pytest.raises(StorageError, match=r"cannot be written: No space left on device; .* is kept"):
            load(root)
    calls = []
    assert len(load(root, progress=lambda *call: calls.append(call[1]))) == 10
    assert calls == [6, 8, 10]


def test_a_source_that_vanishes_while_it_is_read_is_not_said_to_be_the_caches_fault(tmp_path):
    folder = tmp_path / "cache" / "here"
    with (
        pytest.raises(DataError, match=r"cannot read .*photo\.png: No such file.*; put it back"),
        held(folder, "images", silent),
    ):
        (tmp_path / "photos" / "photo.png").stat()
    with pytest.raises(StorageError, match="the cache of images"), held(folder, "images", silent):
        (folder / "no" / "map").touch()
    with pytest.raises(StorageError, match="the cache of images"), held(folder, "images", silent):
        raise OSError(28, "No space left on device")
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match="the cache of images"), held(tmp_path / "file" / "here", "images", silent):
        pytest.fail("held")
