"""What training records: files that are continued after a kill, and never half of something."""

import errno
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import svp
from svp import signals
from svp.errors import DataError, StorageError
from svp.signals import KINDS, UNSEEN, Signals


def values(n: int, seed: int = 0) -> dict[str, Any]:
    rng = np.random.default_rng(seed)
    return {
        kind: rng.integers(0, 2, n) if kind == "correct" else rng.normal(size=n).astype(np.float32) for kind in KINDS
    }


def test_all_is_unseen_at_first(tmp_path: Path) -> None:
    made = Signals.create(tmp_path / "new", 3, 5)
    assert set(made.kinds()) == {"correct", "loss", "p_true", "logit_margin", "el2n"}
    for kind, array in made.kinds().items():
        assert array.shape == (3, 5)
        assert array.dtype == (np.uint8 if kind == "correct" else np.float16)
        assert (array == UNSEEN).all() if kind == "correct" else np.isnan(array).all()


def test_an_epoch_written_is_an_epoch_read(tmp_path: Path) -> None:
    made, first, third = Signals.create(tmp_path, 3, 5), values(5, 1), values(5, 3)
    made.write_epoch(0, first)
    made.write_epoch(2, values(5, 2))
    made.write_epoch(2, third)  # again replaces
    read = Signals.open(tmp_path)
    for kind, dtype in KINDS.items():
        assert read[kind][0].tolist() == first[kind].astype(dtype).tolist()
        assert read[kind][2].tolist() == third[kind].astype(dtype).tolist()
        assert (read[kind][1] == UNSEEN).all() or np.isnan(read[kind][1]).all()
        with pytest.raises(ValueError, match="read-only"):
            read[kind][0] = 0


def test_forgetting_reads_them_as_they_are(tmp_path: Path) -> None:
    made = Signals.create(tmp_path, 4, 3)
    for epoch, correct in enumerate([[1, 0, 1], [0, 0, 1], [1, 0, 1], [0, 0, 1]]):
        made.write_epoch(epoch, {**values(3), "correct": np.array(correct)})
    assert svp.score("forgetting", signals=Signals.open(tmp_path).kinds()).tolist() == [2, 4, 0]


def test_files_of_the_same_shape_are_continued(tmp_path: Path) -> None:
    Signals.create(tmp_path, 3, 5).write_epoch(0, values(5))
    again = Signals.create(tmp_path, 3, 5)
    assert (again["correct"][0] != UNSEEN).all()
    again.write_epoch(1, values(5))
    assert not np.isnan(Signals.open(tmp_path)["loss"][:2]).any()
    other = Signals.create(tmp_path, 2, 5)  # other epochs: nothing of the old
    assert np.isnan(other["loss"]).all()


@pytest.mark.parametrize("length", [0, 5, 60, 128, 130])
def test_a_file_that_a_kill_cut_off_is_made_again(tmp_path: Path, length: int) -> None:
    Signals.create(tmp_path, 3, 5)
    path = tmp_path / "el2n.npy"
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(DataError, match=r"cannot read .*el2n\.npy"):
        Signals.open(tmp_path)
    made = Signals.create(tmp_path, 3, 5)
    assert made["el2n"].shape == (3, 5)
    assert np.isnan(made["el2n"]).all()


def test_recording_holds_one_epoch_in_memory_and_reading_none(tmp_path: Path) -> None:
    """200 epochs of 10,000 are 2 MB in the smallest file; numpy tells tracemalloc of whatever it allocates."""
    n_epochs, n = 200, 10_000
    epoch = values(n)
    tracemalloc.start()
    made = Signals.create(tmp_path, n_epochs, n)
    for e in range(0, n_epochs, 40):
        made.write_epoch(e, epoch)
    read = Signals.open(tmp_path).kinds()
    again = Signals.create(tmp_path, n_epochs, n)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < n_epochs * n / 4
    assert all(isinstance(array, np.memmap) for array in (*read.values(), *again.kinds().values()))
    assert read["correct"][160].tolist() == epoch["correct"].tolist()
    assert (read["correct"][161] == UNSEEN).all()


@pytest.mark.skipif(not Path("/proc/self/smaps").exists(), reason="Linux says which pages of which file are in memory")
def test_no_page_of_the_files_stays_in_the_process_that_records(tmp_path: Path) -> None:
    made = Signals.create(tmp_path, 4, 50_000)

    def resident() -> list[int]:
        """Kilobytes of each map of a file of these."""
        lines = Path("/proc/self/smaps").read_text().splitlines()
        maps = [i for i, line in enumerate(lines) if line.endswith(".npy") and str(tmp_path) in line]
        return [next(int(line.split()[1]) for line in lines[i:] if line.startswith("Rss:")) for i in maps]

    for epoch in range(4):
        made.write_epoch(epoch, values(50_000))
    assert resident() == [0] * len(KINDS)
    assert (made["correct"] != UNSEEN).all()
    assert sum(resident()) > 0  # the test can see them


def test_a_full_disk_while_recording_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where files are copied when they are written to, space that was taken may be gone."""
    made = Signals.create(tmp_path, 2, 2)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(signals.os, "fsync", full)
    with pytest.raises(StorageError, match=r"correct\.npy: the disk is full"):
        made.write_epoch(0, values(2))


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*signals: Not a directory"):
        Signals.create(tmp_path / "file" / "signals", 2, 2)


def test_no_signals_is_a_named_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot read .*correct\.npy: No such file"):
        Signals.open(tmp_path)


@settings(derandomize=True, deadline=None, max_examples=50)
@given(st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=6))
def test_what_is_kept_is_finite_and_near(tmp_path_factory: pytest.TempPathFactory, losses: list[float]) -> None:
    made = Signals.create(tmp_path_factory.mktemp("signals"), 1, len(losses))
    made.write_epoch(0, {**values(len(losses)), "loss": np.array(losses, np.float32)})
    kept = made["loss"][0].astype(float)
    assert np.isfinite(kept).all()
    within = np.clip(losses, -65504, 65504)
    assert np.allclose(kept, within, rtol=2**-11, atol=2**-25)


def test_a_full_disk_is_said_and_does_not_kill(tmp_path: Path) -> None:
    # /dev/full takes a write and says that there is no space; a mapped file would have killed the process instead.
    (tmp_path / "loss.npy").symlink_to("/dev/full")
    with pytest.raises(StorageError, match="disk is full") as caught:
        Signals.create(tmp_path, 100, 1000)
    assert "loss.npy" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_space_is_taken_before_training_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(signals.os, "fsync", full)
    with pytest.raises(StorageError, match="disk is full"):
        Signals.create(tmp_path, 2, 2)
    monkeypatch.undo()
    made = Signals.create(tmp_path, 50, 10_000)
    assert (tmp_path / "loss.npy").stat().st_blocks * 512 >= made["loss"].nbytes  # no holes
