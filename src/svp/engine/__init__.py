"""Where work runs: in processes of this machine. One verb, `map`; and a `Worker` to keep, where items come over hours."""

from svp.engine.processes import Worker, map

__all__ = ["Worker", "map"]
