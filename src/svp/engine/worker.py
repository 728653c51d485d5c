"""A process that works for another: it is told once what to do, then answers item after item until the pipe is closed.

A plain program, started anew (nothing is forked), so that a user's script needs no `__main__` guard and is not run again.
"""

import os
import pickle
import signal
import sys
from typing import Any

from svp.errors import SvpError, one_line
from svp.names import resolve

Failure = tuple[str, str]  # the named error's class ("" for any other) and its message in one line


def serve() -> None:
    """Answer (failure or None, result) to everything on standard input: first (start, setting), then items."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the process that asks decides when to stop
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a net prints is no answer
    work: Any = None
    while True:
        try:
            item = pickle.load(sys.stdin.buffer)  # written by our own process
        except EOFError:
            return
        failure: Failure | None = None
        result = None
        try:
            if work is None:
                start, setting = item
                work = resolve(start)(setting)
            else:
                result = work(item)
        except SvpError as error:
            failure = (type(error).__name__, str(error))
        except Exception as error:  # whatever a net of somebody's own may raise
            failure = ("", one_line(error))
        answers.write(pickle.dumps((failure, result), protocol=5))
        answers.flush()


if __name__ == "__main__":
    serve()
