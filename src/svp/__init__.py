"""svp: which of this data should I label, or train on, and is it worth it?

A small, cheap proxy model chooses for a large target model (selection via proxy, Coleman et al. 2020), and what that was worth is
measured on your own data. Everything public is here; nothing heavy is imported before it is used.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from svp.adviser import Advice, advise
    from svp.config import ActiveConfig, CoresetConfig, RunConfig, SessionConfig, TrainConfig
    from svp.data import load_dataset
    from svp.data.base import Dataset
    from svp.errors import SvpError
    from svp.labels import Answer
    from svp.runs import Run
    from svp.select import Selection, score, select
    from svp.select.forecast import forecast
    from svp.select.representatives import stands_for
    from svp.subset import apply
    from svp.workflows.active import active
    from svp.workflows.coreset import coreset
    from svp.workflows.forecast import forecast_run
    from svp.workflows.model import load_model
    from svp.workflows.session import Session

__version__ = "0.1.0"

_WHERE = {
    "Advice": "svp.adviser",
    "ActiveConfig": "svp.config",
    "Answer": "svp.labels",
    "CoresetConfig": "svp.config",
    "Dataset": "svp.data.base",
    "Run": "svp.runs",
    "RunConfig": "svp.config",
    "Selection": "svp.select",
    "Session": "svp.workflows.session",
    "SessionConfig": "svp.config",
    "SvpError": "svp.errors",
    "TrainConfig": "svp.config",
    "active": "svp.workflows.active",
    "advise": "svp.adviser",
    "apply": "svp.subset",
    "coreset": "svp.workflows.coreset",
    "forecast": "svp.select.forecast",
    "forecast_run": "svp.workflows.forecast",
    "load_dataset": "svp.data",
    "load_model": "svp.workflows.model",
    "score": "svp.select",
    "select": "svp.select",
    "stands_for": "svp.select.representatives",
}

__all__ = [
    "ActiveConfig",
    "Advice",
    "Answer",
    "CoresetConfig",
    "Dataset",
    "Run",
    "RunConfig",
    "Selection",
    "Session",
    "SessionConfig",
    "SvpError",
    "TrainConfig",
    "active",
    "advise",
    "apply",
    "coreset",
    "forecast",
    "forecast_run",
    "load_dataset",
    "load_model",
    "score",
    "select",
    "stands_for",
]


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'svp' has no attribute {name!r}")
    module = importlib.import_module(_WHERE[name])
    # svp.select is the package and, called, its main function: the same object whether it was imported before or not.
    return module if name == "select" else getattr(module, name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
