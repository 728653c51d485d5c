"""Processes of this machine: fresh ones, fed through pipes. No shared memory, of which a container may have very little."""

import os
import pickle
import queue
import subprocess
import sys
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from typing import Any, cast

from svp import errors
from svp.engine.worker import Failure
from svp.errors import SvpError, WorkerError


def map(start: str, settings: Sequence[Any], items: Iterable[Any]) -> Iterator[Any]:
    """What each item becomes, in the order of the items.

    start     "package.module:function": called once in every process with its setting, it returns what is called with items
    settings  one a process, so there are as many processes as settings
    items     taken as processes become free, so that at most one more than there are processes is in memory
    Settings, items and results go through pipes (pickled, between our own processes): give paths in place of large arrays.
    Raises the named error that an item led to, or WorkerError. However it ends, also by Ctrl-C, no process is left.
    """
    workers = [_Worker(start, setting) for setting in settings]
    idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def ask(item: Any) -> Any:
        worker = idle.get()
        try:
            return worker.ask(item)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(len(workers))  # a thread for each process: it waits for the answer
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(pool.submit(ask, item))
            if len(waiting) > len(workers):
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.end()
        pool.shutdown()
        for worker in workers:
            worker.close()


def _result(future: Future[Any]) -> Any:
    """Waits in short pieces: a Ctrl-C that comes just before an endless wait begins would not end it."""
    while not wait([future], timeout=0.5).done:
        pass
    return future.result()


class _Worker:
    """One process, started when it is first asked."""

    def __init__(self, start: str, setting: Any) -> None:
        self._told = (start, setting)
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def ask(self, item: Any) -> Any:
        if self._process is None:
            self._begin()
            self._exchange(self._told)
        return self._exchange(item)

    def _begin(self) -> None:
        # Modules are found as they are here: a net of somebody's own may stand beside the script.
        path = os.pathsep.join(place or os.getcwd() for place in sys.path)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `end`)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "svp.engine.worker"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, "PYTHONPATH": path},
            )
        except OSError as error:
            raise WorkerError(
                f"no process can be started here ({error.strerror or error}); set compute.processes to 1"
            ) from error
        if self._ended:  # meanwhile all was called off
            self._process.kill()

    def _exchange(self, item: Any) -> Any:
        process = self._process
        assert process is not None
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(pickle.dumps(item, protocol=5))
            process.stdin.flush()
            failure, result = pickle.load(process.stdout)  # written by our own process
        except (EOFError, OSError, pickle.UnpicklingError):
            raise WorkerError(self._death(process)) from None
        if failure is not None:
            raise _error(failure)
        return result

    def _death(self, process: subprocess.Popen[bytes]) -> str:
        process.kill()
        status = process.wait()
        self._said.seek(0)
        lines = self._said.read().decode(errors="replace").split("\n")
        last = next((line.strip() for line in reversed(lines) if line.strip()), "it said nothing")
        how = f"signal {-status}" if status < 0 else f"status {status}"
        return (
            f"a process of this run ended before its work did ({how}: {last}); where memory ran out, fewer processes take less "
            "(compute.processes)"
        )

    def end(self) -> None:
        """Nothing is lost with a process: it keeps no state."""
        self._ended = True
        if self._process is not None:
            self._process.kill()

    def close(self) -> None:
        """Once no thread uses its pipes."""
        if self._process is None:
            return
        self._process.wait()
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            with suppress(OSError):  # it has died with an item in the pipe
                cast(Any, pipe).close()


def _error(failure: Failure) -> SvpError:
    """The error of a worker, of the same class."""
    name, message = failure
    if not name:
        return WorkerError(f"a process of this run failed: {message}; compute.processes = 1 shows where")
    kind: type[SvpError] = getattr(errors, name)
    error = kind.__new__(kind, message)  # some are made from parts of their message
    error.args = (message,)
    return error
