"""Where work runs: in processes of this machine. `map` is the verb; a `Worker` is kept where items come over hours."""

from svp.engine.processes import Program, Worker, map

__all__ = ["Program", "Worker", "map"]
