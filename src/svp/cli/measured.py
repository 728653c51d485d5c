"""What a choice will take, said before it starts; and what it took, measured and said after it."""

import json
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from svp.cli.array_files import LIBRARIES, How, held
from svp.errors import SettingError
from svp.select.budget import resolve_memory
from svp.select.forecast import Forecast, forecast
from svp.select.selection import Selection
from svp.select.similarity import is_sparse
from svp.select.submodular import BYTES_STORED


def foresee(method: str, budget: Any, arguments: Mapping[str, Any], how: How) -> Forecast:
    """Say what it will take, in all that is not mapped; refuse what does not fit into the memory given."""
    expected = forecast(method, budget, **arguments)
    if expected.bytes is not None:
        expected = replace(expected, bytes=expected.bytes + held(arguments) + LIBRARIES)
    if how.memory is not None and expected.bytes is not None and expected.bytes > resolve_memory(how.memory):
        fewer = _fewer(expected.bytes - resolve_memory(how.memory), arguments)
        raise SettingError(
            f"memory={how.memory}: method {method!r} takes about {_size(expected.bytes)} for these examples; "
            f"give more memory, {fewer}or choose a method that takes less"
        )
    # Where nothing could be timed, the choice itself may say why, in one line.
    if expected.seconds is not None:
        worst = expected.at_worst if expected.at_worst and _time(expected.at_worst) != _time(expected.seconds) else None
        what = "forecast: at most" if expected.restarts else "forecast:"
        _say(what, expected.seconds, expected.bytes, how, "" if worst is None else f" (at worst {_time(worst)})")
    return expected


def _fewer(excess: int, arguments: Mapping[str, Any]) -> str:
    """How many neighbours would fit, where that can be said."""
    neighbors, similarity = arguments.get("neighbors"), arguments.get("similarity")
    if not neighbors or is_sparse(similarity):  # what is given takes its room whatever is kept of it
        return ""
    n = len(arguments["embeddings"] if similarity is None else similarity)
    fit = min(neighbors, n) - -(-excess // (BYTES_STORED * n))
    return f"neighbors={fit} or fewer, " if fit > 0 else ""


def _say(what: str, seconds: float | None, n_bytes: int | None, how: How, more: str = "") -> None:
    if not how.quiet:
        print(f"{what:<9} {_time(seconds)}{more}, {_size(n_bytes)}", file=sys.stderr)


class Measured:
    """Seconds since `start`, and the highest memory since it was made: None where the system does not tell."""

    def __init__(self) -> None:
        self.seconds = 0.0
        self.before = self.highest = _anonymous()
        self.start()

    def start(self) -> None:
        self.begun = time.perf_counter()

    @property
    def bytes(self) -> int | None:
        return None if self.highest is None or self.before is None else self.highest - self.before

    def look(self) -> None:
        now = _anonymous()
        if now is not None and self.highest is not None:
            self.highest = max(self.highest, now)


@contextmanager
def measured() -> Iterator[Measured]:
    """Look at the memory of this process fifty times a second: pages of mapped files, which cost nothing, are not counted."""
    took, done = Measured(), threading.Event()

    def watch() -> None:
        while not done.wait(0.02):
            took.look()

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    try:
        yield took
    finally:
        took.look()
        took.seconds = time.perf_counter() - took.begun
        done.set()
        watcher.join()


def _anonymous() -> int | None:
    """Bytes of this process that are not pages of a file (Linux; elsewhere unknown)."""
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon"))
    except (OSError, StopIteration, ValueError):
        return None


def report(expected: Forecast, took: Measured, how: How, facts: dict[str, Any], chosen: Selection | None) -> None:
    """What came out, and what it took beside what was foreseen."""
    if expected.seconds is None:
        _say("forecast:", None, expected.bytes, how)
    _say("took:", took.seconds, took.bytes, how)
    if how.json:
        facts |= {
            "out": None if how.out is None else str(how.out),
            "forecast": asdict(expected),
            "took": {"seconds": took.seconds, "bytes": took.bytes},
        }
        if how.out is None and chosen is not None:
            facts["ids"] = chosen.ids.tolist()
            if chosen.keys is not None:
                facts["keys"] = list(chosen.keys)
        print(json.dumps(facts))


def _time(seconds: float | None) -> str:
    if seconds is None:
        return "time unknown"
    return f"{seconds:.1f} s" if seconds < 100 else f"{seconds / 60:.0f} min"


def _size(n_bytes: int | None) -> str:
    return "memory unknown" if n_bytes is None else f"{n_bytes / 1e6:,.0f} MB of memory"
