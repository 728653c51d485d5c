"""Where work runs: in processes of this machine. One verb, `map`."""

from svp.engine.processes import map

__all__ = ["map"]
