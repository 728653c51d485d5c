"""Start-up beside an empty interpreter: `import svp` and `svp --help`, at most 0.3 s over it.

    python -m benchmarks.startup

Whole processes, compiled files written first, alternating with the empty interpreter; median and range of 15 runs each.
"""

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path

from benchmarks.run import machine

COMMANDS = {
    "empty interpreter": [sys.executable, "-c", "pass"],
    "import svp": [sys.executable, "-c", "import svp"],
    "svp --help": [str(Path(sys.executable).with_name("svp")), "--help"],
    "svp list methods": [str(Path(sys.executable).with_name("svp")), "list", "methods"],
}
RUNS = 15


def main() -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    seconds: dict[str, list[float]] = {name: [] for name in COMMANDS}
    for run in range(RUNS + 1):
        for name, command in COMMANDS.items():
            begin = time.perf_counter()
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env=environment)
            if run:  # the first writes compiled files
                seconds[name].append(time.perf_counter() - begin)
    empty = statistics.median(seconds["empty interpreter"])
    for name, values in seconds.items():
        median = statistics.median(values)
        spread = f"{min(values):.3f} to {max(values):.3f}"
        print(f"{name:<18} median {median:.3f} s ({spread}), over empty {median - empty:.3f} s")
    print(json.dumps(machine()))


if __name__ == "__main__":
    main()
