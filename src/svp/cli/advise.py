"""The command `svp advise`: what is known of the data as flags, two or three methods as lines."""

import json
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter
from pydantic import Field, create_model

from svp.adviser import advise as advise_by
from svp.adviser import facts_of
from svp.cli.flags import flags_of
from svp.config import Config
from svp.errors import SettingError
from svp.rules import Facts
from svp.select.docstrings import parts


def _some_facts() -> type[Config]:
    """The facts, any of them left out; with a dataset n, classes, labels and imbalance are read from it."""
    kinds, says = get_type_hints(Facts), parts(Facts)
    names = [f.name for f in fields(Facts) if f.name != "budget"]
    facts: dict[str, Any] = {name: (kinds[name] | None, Field(None, description=says[name])) for name in names}
    return create_model("SomeFacts", __base__=Config, **facts)


SomeFacts = _some_facts()
FactFlags = flags_of(SomeFacts, negated=False)


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
    given: dict[str, Any] = {} if facts is None else {name: getattr(facts, name) for name in facts.model_fields_set}
    known |= SomeFacts.make(given, flags=True).model_dump(exclude_unset=True)
    if "n" not in known:
        raise SettingError("advise: nothing says how many examples there are; name a dataset, or give --n")
    words = [] if dataset is None else [dataset, *([] if data is None else ["--data", str(data)])]
    advice = advise_by(budget=budget, dataset=words, timed=True, **known)
    print(json.dumps(advice.as_dict(), indent=1) if json_ else "\n".join(advice.lines()))
