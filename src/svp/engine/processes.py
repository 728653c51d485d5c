"""Processes of this machine: fresh ones, fed through pipes. No shared memory, of which a container may have very little."""

import atexit
import os
import pickle
import queue
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, wait
from contextlib import suppress
from typing import Any, cast

from svp import errors
from svp.engine.worker import Failure
from svp.errors import SvpError, WorkerError

_Task = tuple[Any, "Future[Any]"]


def map(start: str, settings: Sequence[Any], items: Iterable[Any]) -> Generator[Any, None, None]:
    """What each item becomes, in the order of the items.

    start     "package.module:function": called once in every process with its setting, it returns what is called with items
    settings  one a process, so there are as many processes as settings
    items     taken as processes become free, so that at most one more than there are processes is in memory
    Settings, items and results go through pipes (pickled, between our own processes): give paths in place of large arrays.
    Raises the named error that an item led to, or WorkerError. However it ends, also by Ctrl-C, no process is left.
    """
    workers = [Worker(start, setting) for setting in settings]
    tasks: queue.SimpleQueue[_Task | None] = queue.SimpleQueue()
    # A thread for each process waits for its answers. Daemons: an interpreter that ends, with this not closed, waits for no item.
    threads = [threading.Thread(target=_serve, args=(worker, tasks), daemon=True) for worker in workers]
    for thread in threads:
        thread.start()

    def end() -> None:
        for worker in workers:
            worker.kill()
        for worker in workers:
            worker.wait()

    atexit.register(end)
    waiting: deque[Future[Any]] = deque()
    try:
        for item in items:
            waiting.append(Future())
            tasks.put((item, waiting[-1]))
            if len(waiting) > len(workers):
                yield _result(waiting.popleft())
        while waiting:
            yield _result(waiting.popleft())
    finally:
        for future in waiting:
            future.cancel()
        end()
        for _ in threads:
            tasks.put(None)
        for thread, worker in zip(threads, workers, strict=True):
            thread.join()
            worker.close()
        atexit.unregister(end)


def _serve(worker: "Worker", tasks: "queue.SimpleQueue[_Task | None]") -> None:
    while (task := tasks.get()) is not None:
        item, future = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            future.set_result(worker.ask(item))
        except BaseException as error:
            future.set_exception(error)


def _result(future: Future[Any]) -> Any:
    """Waits in short pieces: a Ctrl-C that comes just before an endless wait begins would not end it."""
    while not wait([future], timeout=0.5).done:
        pass
    return future.result()


class Program:
    """A process that runs a program of Python and answers one item after the other; started when it is first asked.

    command      what Python is started with
    environment  variables set for it alone
    `kill` may be called by another thread than the one that waits in `ask`, which then raises WorkerError. What was killed or
    closed is not started again.
    """

    def __init__(self, *command: str, **environment: str) -> None:
        self._command, self._environment = command, environment
        self._process: subprocess.Popen[bytes] | None = None
        self._ended = False

    def ask(self, item: Any) -> Any:
        """What the item becomes."""
        if self._process is None:
            self._begin()
        return self._exchange(item)

    def _begin(self) -> None:
        # Modules are found as they are here: a net of somebody's own may stand beside the script.
        path = os.pathsep.join(place or os.getcwd() for place in sys.path)
        self._said = tempfile.TemporaryFile()  # noqa: SIM115  (closed in `close`)
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", *self._command],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._said,
                env={**os.environ, **self._environment, "PYTHONPATH": path},
            )
        except OSError as error:
            self._said.close()
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

    def kill(self) -> None:
        """Nothing is lost with a process: it keeps no state."""
        self._ended = True
        if self._process is not None:
            self._process.kill()

    def wait(self) -> None:
        if self._process is not None:
            self._process.wait()

    def close(self) -> int:
        """Once no thread uses its pipes: without them it ends. Returns its exit status, 0 where it was never asked."""
        if self._process is None:
            return 0
        for pipe in (self._process.stdin, self._process.stdout, self._said):
            with suppress(OSError):  # it has died with an item in the pipe
                cast(Any, pipe).close()
        return self._process.wait()


class Worker(Program):
    """A process that calls `start` with `setting` once, then what that returned with each item: `map`, one item at a time."""

    def __init__(self, start: str, setting: Any) -> None:
        super().__init__("-m", "svp.engine.worker")
        self._told = (start, setting)

    def _begin(self) -> None:
        super()._begin()
        try:
            self._exchange(self._told)
        except WorkerError:
            raise
        except SvpError:  # the next item would be taken for a setting
            self.kill()
            raise


def _error(failure: Failure) -> SvpError:
    """The error of a worker, of the same class."""
    name, message = failure
    if not name:
        return WorkerError(f"a process of this run failed: {message}; compute.processes = 1 shows where")
    kind: type[SvpError] = getattr(errors, name)
    error = kind.__new__(kind, message)  # some are made from parts of their message
    error.args = (message,)
    return error
