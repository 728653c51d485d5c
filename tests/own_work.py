"""Work for processes of the engine, in a module that is imported quickly."""

import os
import signal
import sys
from collections.abc import Callable

from svp.errors import SettingError, UnknownName


def adder(setting: int) -> Callable[[int], tuple[int, int]]:
    """Adds the setting to an item, and says who did; some items lead to no good."""

    def add(item: int) -> tuple[int, int]:
        print("a net may print")
        if item == 13:
            raise UnknownName("number", "13", ["12", "14"])
        if item == 14:
            raise ValueError("an odd\nvalue")
        if item == 15:
            print("no memory left", file=sys.stderr, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        if item == 16:
            signal.pause()  # for ever
        return setting + item, os.getpid()

    if setting < 0:
        raise SettingError("no such setting")
    return add
