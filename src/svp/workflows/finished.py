"""Which finished stage of a session is the one to go by. Never by the times of its files: a copied folder has others."""

from functools import lru_cache
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from svp.files import digest, read_record
from svp.runs import DONE, check_files

Labelled = tuple[NDArray[np.int64], NDArray[np.int64]]  # ids ascending, and their labels
SCORED = f"rounds/*/selection/{DONE}"  # done-marks of what a round's proxy scored


def in_order(folder: Path, marks: str, labelled: Labelled | None = None) -> list[Path]:
    """The stages whose done-marks a pattern names, the one to go by last.

    By the event of the label store that was the newest when a stage was last taken up; where that is the same by the labels that
    it learned from, and then by when it was finished. Marks of earlier versions know no event, and go before all others.
    labelled  what is known now: a stage made from exactly that goes behind all others. After an undo it is an older one
    """
    now = None if labelled is None else tuple(map(digest, labelled))
    order = []
    for mark in folder.glob(marks):
        time = mark.stat().st_mtime_ns
        learned, event, n, finished = _read(mark.parent.resolve(), time)
        order.append((now is not None and learned == now, event, n, finished, mark.parent))
    return [stage for *_, stage in sorted(order)]


def last(folder: Path, marks: str, labelled: Labelled | None = None) -> Path | None:
    """The last of `in_order`, its files checked; None where there is none."""
    stages = in_order(folder, marks, labelled)
    if not stages:
        return None
    _check(stages[-1].resolve(), (stages[-1] / DONE).stat().st_mtime_ns)
    return stages[-1]


@lru_cache(maxsize=4096)  # a finished stage stays as it is, and every question looks at all of them
def _read(stage: Path, time: int) -> tuple[tuple[str | None, str | None], int, int, float]:
    """The digests of the ids and labels that it (a choice: its model) learned from; the event that its mark names, how many
    labels these are, and when it was finished: of a mark that does not say that, the `time` of the file, in ns."""
    mark, model = read_record(stage / DONE, "made_from", "facts"), stage.parent / "model-0" / DONE
    learned = read_record(model, "made_from", "facts") if model.exists() else mark
    made, n = learned["made_from"], int(learned["facts"].get("n", 0))
    return (made.get("ids"), made.get("labels")), int(mark.get("event", 0)), n, mark.get("finished", time / 1e9)


@lru_cache(maxsize=64)  # files of a large pool take a second to read
def _check(stage: Path, _: int) -> None:
    check_files(stage)
