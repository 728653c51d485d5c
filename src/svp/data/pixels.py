"""Images decoded and scaled once, kept on disk as one memory map, and read from there the next time.

A cache folder belongs to one source and one way of scaling. In it, for each list of files that was decoded:

    NAME.stamps   16 bytes a file: a hash of its key, size and time of change
    NAME.pixels   the images that can be read, one after the other: (size, size, 3) bytes each
    NAME.journal  JSON lines: how many files are through, and which of those could not be read; only what it counts is trusted
    NAME.facts    JSON: digest and channel statistics of ranges of images

A pass that was stopped goes on behind the last line of its journal. Where the list of files has changed, images of files that are
the same are copied from the earlier map, and it is removed when the new one is complete. Deleting any of this costs time alone.
"""

import hashlib
import json
import os
import queue
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from svp.data import decode
from svp.data.base import Facts, MappedImages, Progress, facts_of, silent
from svp.data.cache import cache_folder, check_outside, check_space, flush, held, storage_errors
from svp.engine import Program
from svp.errors import WorkerError
from svp.files import replace
from svp.machine import n_cores

_VERSION = 1  # of how an image is made of a file: raise it when `decode.square` gives other pixels
_BLOCK = 32  # files that a worker decodes at a time
_WHAT = "decoded images"
_MARK = 1024  # files between two lines of the journal: what a kill can cost

Items = Callable[[list[int]], list[decode.Item]]
Images = NDArray[np.uint8]
Blocks = Iterator[tuple[int, Images, dict[int, str]]]


def stamp(key: str, size: int, changed: int, *more: int) -> bytes:
    """16 bytes that change when a file does: its key, its size in bytes, and its time of change in nanoseconds."""
    return hashlib.blake2b(
        f"{key}\0{size}\0{changed}\0{more}".encode("utf-8", "surrogateescape"), digest_size=16
    ).digest()


@dataclass(frozen=True)
class Decoded:
    """A complete pass: (m, size, size, 3) images that can be read, in the order of the files, and why the others cannot."""

    images: Images
    broken: dict[int, str]  # by position among the files
    facts: Path

    def part(self, start: int, stop: int) -> Images:
        """A range of the images, whose digest and statistics are known: computed once, read from the cache afterwards."""
        name, images = f"{start}:{stop}", self.images[start:stop]
        if not isinstance(images, MappedImages):
            return images  # there are none
        try:
            known = json.loads(self.facts.read_text())
        except (OSError, ValueError):  # there is none yet, or somebody damaged it
            known = {}
        if name not in known:
            facts = facts_of(images)
            known[name] = [facts.sha256, facts.mean.tolist(), facts.deviation.tolist()]
            with storage_errors(self.facts.parent, _WHAT):
                replace(self.facts, json.dumps(known).encode())
        sha256, mean, deviation = known[name]
        images.facts = Facts(sha256, np.array(mean), np.array(deviation))
        return images


def decoded(
    source: Path,
    stamps: list[bytes],
    items: Items,
    *,
    size: int,
    short_side: int,
    cache: str | os.PathLike[str] | None = None,
    progress: Progress | None = None,
) -> Decoded:
    """Decode the images of a source, or read what an earlier call has decoded.

    source    the folder or file they come from: each has a cache folder of its own, for each size
    stamps    (n,) one a file, from `stamp`
    items     gives the paths or contents of the files at these positions
    progress  called with ("reading images", done, total)

    Files that could not be read are tried again by each call. A second process waits until the first is through. Raises
    StorageError where the cache cannot be written or is too small. Time: what Pillow takes, in one process a core.
    """
    place = hashlib.sha256(json.dumps([str(source.absolute()), size, short_side, _VERSION]).encode("utf-8")).hexdigest()
    name = source.absolute().name.encode("utf-8", "replace").decode()
    folder = cache_folder(cache, "images") / f"{name}-{size}-{place[:12]}"
    check_outside(folder, source)
    with held(folder, _WHAT, progress or silent):
        return _Cache(folder, stamps, items, size, short_side, progress or silent).decoded()


@dataclass
class _Pass:
    """One list of files and what has been made of it: `files` are through, and of these the ones in `broken` gave no image."""

    path: Path  # without suffix
    size: int
    files: int = 0
    broken: dict[int, str] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path, size: int) -> "_Pass":
        """As far as its journal and its pixels go."""
        found = cls(path, size)
        try:
            for line in path.with_suffix(".journal").read_text().splitlines(keepends=True):
                entry = json.loads(line) if line.endswith("\n") else {}
                if not entry:
                    break  # a line that was cut off
                found.files = entry["files"]
                found.broken |= {int(i): reason for i, reason in entry["broken"].items()}
            if path.with_suffix(".pixels").stat().st_size < found.n_bytes:
                return cls(path, size)
        except (OSError, ValueError, KeyError):
            return cls(path, size)
        return found

    @property
    def number(self) -> int:
        """How often broken files of this list turned out to be readable after all."""
        return int(self.path.name.partition("-")[2])

    @property
    def n_images(self) -> int:
        return self.files - len(self.broken)

    @property
    def n_bytes(self) -> int:
        return 3 * self.size**2 * self.n_images

    def images(self) -> Images:
        shape = (self.n_images, self.size, self.size, 3)
        if not self.n_images:  # nothing cannot be mapped
            return np.zeros(shape, np.uint8)
        return MappedImages(self.path.with_suffix(".pixels"), np.uint8, "r", 0, shape)

    def rows(self) -> dict[bytes, int]:
        """Where the image of each stamp stands."""
        try:
            stamps = self.path.with_suffix(".stamps").read_bytes()
        except OSError:
            return {}
        if len(stamps) < 16 * self.files:
            return {}
        whole = (stamps[16 * i : 16 * i + 16] for i in range(self.files) if i not in self.broken)
        return {stamp: row for row, stamp in enumerate(whole)}

    def remove(self) -> None:
        for suffix in (".journal", ".pixels", ".stamps", ".facts"):  # the journal first: without it nothing is trusted
            self.path.with_suffix(suffix).unlink(missing_ok=True)


class _Cache:
    """One cache folder, held by this process alone, and the files that are wanted from it."""

    def __init__(
        self, folder: Path, stamps: list[bytes], items: Items, size: int, short_side: int, progress: Progress
    ) -> None:
        self.folder, self.stamps, self.items, self.progress = folder, stamps, items, progress
        self.size, self.short_side = size, short_side

    def decoded(self) -> Decoded:
        name = hashlib.sha256(b"".join(self.stamps)).hexdigest()[:16]
        passes = [_Pass.read(path.with_suffix(""), self.size) for path in sorted(self.folder.glob("*.journal"))]
        mine = [p for p in passes if p.path.name.startswith(name)] or [_Pass(self.folder / f"{name}-0", self.size)]
        found = max(mine, key=lambda p: p.number)
        if found.files == len(self.stamps) and found.broken and self._can_be_read(sorted(found.broken)):
            found = _Pass(self.folder / f"{name}-{found.number + 1}", self.size)
        earlier = [p for p in passes if p.path != found.path]
        if found.files < len(self.stamps):
            self._finish(found, earlier)
        for other in earlier:
            other.remove()
        return Decoded(found.images(), found.broken, found.path.with_suffix(".facts"))

    def _can_be_read(self, positions: list[int]) -> bool:
        """Whether one of the files that were broken is no longer."""
        with _workers(1) as (submit, _):
            return any(len(submit(self.items([i]), self.size, self.short_side).result()[0]) for i in positions)

    def _finish(self, found: _Pass, earlier: list[_Pass]) -> None:
        n = len(self.stamps)
        check_space(
            self.folder,
            3 * (n - found.files) * self.size**2,
            f"{n - found.files:,} images of {self.size} x {self.size}",
            ", or a smaller image_size (--image-size)",
        )
        found.path.with_suffix(".facts").unlink(missing_ok=True)
        replace(found.path.with_suffix(".stamps"), b"".join(self.stamps))
        replace(found.path.with_suffix(".journal"), _line(found.files, found.broken))
        with (
            found.path.with_suffix(".pixels").open("ab") as pixels,
            found.path.with_suffix(".journal").open("ab") as journal,
        ):
            pixels.truncate(found.n_bytes)
            marked = found.files
            fresh: dict[int, str] = {}
            for files, images, broken in self._blocks(found.files, earlier):
                pixels.write(images.data)
                found.files = files
                found.broken |= broken
                fresh |= broken
                if files == n or files >= marked + _MARK:
                    flush(pixels)
                    journal.write(_line(files, fresh))
                    flush(journal)
                    marked, fresh = files, {}
                self.progress("reading images", files, n)

    def _blocks(self, start: int, earlier: list[_Pass]) -> Blocks:
        """(files that are through, images, broken) of one block of files after the other, decoded in worker processes."""
        known = [(p.images(), p.rows()) for p in earlier]
        n = len(self.stamps)
        starts = range(start, n, _BLOCK)
        with _workers(min(n_cores(), len(starts)) if len(starts) > 2 else 0) as (submit, n_ahead):
            waiting: deque[tuple[list[int], dict[int, Images], list[int], Future[Any]]] = deque()

            def take() -> tuple[int, Images, dict[int, str]]:
                block, images, new, answer = waiting.popleft()
                made, reasons = answer.result()
                broken = {new[i]: reason for i, reason in reasons.items()}
                images |= dict(zip([i for i in new if i not in broken], made, strict=True))
                whole = [images[i] for i in block if i in images]
                empty = np.zeros((0, self.size, self.size, 3), np.uint8)
                return block[-1] + 1, np.stack(whole) if whole else empty, broken

            for first in starts:
                block = list(range(first, min(first + _BLOCK, n)))
                copies = {i: old[rows[self.stamps[i]]] for i in block for old, rows in known if self.stamps[i] in rows}
                new = [i for i in block if i not in copies]
                waiting.append((block, copies, new, submit(self.items(new), self.size, self.short_side)))
                if len(waiting) > n_ahead:  # what is decoded waits in memory: no more of it than keeps all workers busy
                    yield take()
            while waiting:
                yield take()


# --- worker processes


class _Decoder:
    """A process that decodes. If a file kills it, that file is broken, and another process takes over."""

    def __init__(self) -> None:
        self._program: Program | None = None

    def __call__(self, files: list[decode.Item], size: int, short_side: int) -> tuple[Images, dict[int, str]]:
        if not files or (self._program is None and not self._start()):
            return decode.squares(files, size, short_side)
        try:
            return cast(tuple[Images, dict[int, str]], cast(Program, self._program).ask((files, size, short_side)))
        except WorkerError:
            status = self.close()
        if len(files) == 1:
            return decode.squares([], size, short_side)[0], {0: f"its reader died ({status})"}
        parts = [self([file], size, short_side) for file in files]
        return np.concatenate([images for images, _ in parts]), {i: b[0] for i, (_, b) in enumerate(parts) if b}

    def _start(self) -> bool:
        """Whether a process of this Python answers; where there can be none, this one decodes."""
        self._program = Program(decode.__file__, OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")
        try:
            self._program.ask(([], 1, 1))
        except WorkerError:
            self.close()
            return False
        return True

    def close(self) -> int:
        """End the process; returns its exit status."""
        program, self._program = self._program, None
        return 0 if program is None else program.close()


@contextmanager
def _workers(n: int) -> Iterator[tuple[Callable[..., "Future[tuple[Images, dict[int, str]]]"], int]]:
    """What takes a question to one of n processes (0: this one answers), and how many questions should be under way."""
    if not n:

        def answer(*question: Any) -> "Future[tuple[Images, dict[int, str]]]":
            future: Future[tuple[Images, dict[int, str]]] = Future()
            future.set_result(decode.squares(*question))
            return future

        yield answer, 0
        return
    workers = [_Decoder() for _ in range(n)]
    idle: queue.SimpleQueue[_Decoder] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def ask(*question: Any) -> tuple[Images, dict[int, str]]:
        worker = idle.get()
        try:
            return worker(*question)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(n)  # a thread for each process: it waits for the answer
    try:
        yield lambda *question: pool.submit(ask, *question), 3 * n
    finally:
        pool.shutdown(cancel_futures=True)
        for worker in workers:
            worker.close()


def _line(files: int, broken: dict[int, str]) -> bytes:
    return json.dumps({"files": files, "broken": broken}).encode() + b"\n"
