"""What this machine gives to this process."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

T = TypeVar("T")
U = TypeVar("U")


def n_cores() -> int:
    """Cores that this process may run on, and that its container pays for, at least 1."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, cpu_quota() or cores)


def cpu_quota() -> int | None:
    """Cores' worth of time that a container gives, rounded up, as cgroups of version 2 or 1 say; None without a limit."""
    group = Path("/sys/fs/cgroup")
    try:
        quota, period = (group / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            quota, period = ((group / f"cpu/cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        except OSError:
            return None
    try:
        return -(-int(quota) // int(period)) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max"
        return None


def each(work: Callable[[T], U], items: Sequence[T], n_threads: int) -> Iterator[U]:
    """The results in order, from at most so many threads and cores, and two a thread ahead of whoever takes them. Matrix products
    within an item have one thread: they are too small to share.
    """
    n_threads = min(n_cores(), n_threads)
    if n_threads < 2:
        yield from map(work, items)
        return
    with one_blas_thread, ThreadPoolExecutor(n_threads) as pool:
        waiting: deque[Future[U]] = deque()
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > 2 * n_threads:
                yield waiting.popleft().result()
        yield from (waiting.popleft().result() for _ in range(len(waiting)))


class _OneBlasThread:
    """Matrix products have one thread each within it: for products that are too small to share.

    Threads of the caller may be within it at once. The setting is the process's: the first in makes it, the last out undoes it.
    """

    def __init__(self) -> None:
        self._lock = Lock()
        self._within = 0
        self._limit: Any = None

    def __enter__(self) -> None:
        with self._lock:
            if not self._within:
                self._limit = _libraries().limit(limits=1, user_api="blas")
            self._within += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._within -= 1
            if not self._within:
                self._limit.restore_original_limits()


one_blas_thread = _OneBlasThread()


@cache
def _libraries() -> Any:
    from threadpoolctl import ThreadpoolController  # type: ignore[import-untyped]  # only where there is something to share

    return ThreadpoolController()
