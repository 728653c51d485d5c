"""The command `svp advise`: what is known of the data as flags, two or three methods as lines."""

import json
from dataclasses import fields
from typing import Annotated, Any, get_type_hints

from cyclopts import Parameter
from pydantic import Field, create_model

from svp.adviser import advise as advise_by
from svp.adviser import facts_of
from svp.cli.flags import Common, as_words, flags_of
from svp.cli.progress import progress
from svp.config import Config, DataConfig
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
DataFlags = flags_of(DataConfig, without=("dataset",))


def advise(
    dataset: str | None = None,
    /,
    *,
    budget: str,
    facts: Annotated[FactFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    read: Annotated[DataFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
    quiet: Annotated[bool, Parameter(negative=())] = False,
) -> None:
    """Print `svp.advise`.

    Parameters
    ----------
    dataset
        a name from `svp list datasets`, a folder of class folders, a table of texts, a .npz file, or package.module:function; or
        leave it out and give --n
    budget
        how many to choose: a count or a share (0.1, 10%)
    json_
        print as JSON
    quiet
        show no progress
    """
    said: set[str] = set() if read is None else read.model_fields_set
    how = {name: getattr(read, name) for name in DataFlags.model_fields if name in said}
    known: dict[str, Any] = {}
    if dataset is not None:
        from svp.data import load

        with progress(Common(quiet=quiet)) as show:
            known = facts_of(load(DataConfig.make({"dataset": dataset, **how}, flags=True), show))
    elif how:
        raise SettingError(
            f"advise: {as_words(how)[0]} says how data are read, and no dataset is named; name one, or leave it out"
        )
    given: dict[str, Any] = {} if facts is None else {name: getattr(facts, name) for name in facts.model_fields_set}
    known |= SomeFacts.make(given, flags=True).model_dump(exclude_unset=True)
    if "n" not in known:
        raise SettingError("advise: nothing says how many examples there are; name a dataset, or give --n")
    words = [] if dataset is None else [dataset, *as_words(how)]
    advice = advise_by(budget=budget, dataset=words, timed=True, **known)
    print(json.dumps(advice.as_dict(), indent=1) if json_ else "\n".join(advice.lines()))
