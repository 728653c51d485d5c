"""The command `svp advise`: what is known of the data as flags, two or three methods as lines."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, create_model

from svp.adviser import advise as advise_by
from svp.adviser import facts_of
from svp.errors import SettingError
from svp.rules import Facts
from svp.select.docstrings import parts


def _flags() -> type[BaseModel]:
    """The facts as flags that may all be left out; with a dataset n, classes, labels and imbalance are read from it."""
    kinds, says = get_type_hints(Facts), parts(Facts)
    flags: dict[str, Any] = {}
    for name in (f.name for f in fields(Facts) if f.name != "budget"):
        how = Parameter(negative=(), consume_multiple=name == "signals", show_default=False)
        flags[name] = (Annotated[kinds[name] | None, how], Field(None, description=says[name]))
    return create_model("FactFlags", __config__=ConfigDict(extra="forbid"), **flags)


FactFlags = _flags()


def advise(
    dataset: str | None = None,
    /,
    *,
    budget: str,
    facts: Annotated[FactFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    data: Path | None = None,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Print `svp.advise`.

    Parameters
    ----------
    dataset
        a name from `svp list datasets`, a folder of class folders, a .npz file, or package.module:function; or leave it out
        and give --n
    budget
        how many to choose: a count or a share (0.1, 10%)
    data
        folder that holds the files of a named dataset
    json_
        print as JSON
    """
    known: dict[str, Any] = {}
    if dataset is not None:
        from svp.data import load_dataset

        known = facts_of(load_dataset(dataset, root=data))
    known |= {name: value for name, value in vars(facts or FactFlags()).items() if value is not None}
    if "n" not in known:
        raise SettingError("advise: nothing says how many examples there are; name a dataset, or give --n")
    advice = advise_by(budget=budget, **known)
    print(json.dumps(advice.as_dict(), indent=1) if json_ else "\n".join(advice.lines()))
