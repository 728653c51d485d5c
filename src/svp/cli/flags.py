"""From flags and recipes to settings: every setting is a flag, and a flag overrides the recipe."""

import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, create_model

from svp.config import ActiveConfig, Config, CoresetConfig, TrainConfig, merge, read_toml
from svp.errors import SettingError, UnknownName

C = TypeVar("C", bound=Config)


# What a flag takes of settings that a word alone cannot spell: names with a value each, and arrays, one a word.
SPELLED: dict[Any, Any] = {
    dict[str, Any]: dict[str, str],
    tuple[tuple[float, float], ...]: tuple[str, ...],
}


def flags_of(
    config: type[Config], defaults: Config | None = None, without: Collection[str] = (), *, negated: bool = True
) -> type[BaseModel]:
    """The settings of `config` as flags that may all be left out; help shows the defaults, which stay with `config`.

    negated  switches have a --no- form, too
    """
    fields: dict[str, Any] = {}
    for name, info in config.model_fields.items():
        if name in without:
            continue
        default = getattr(defaults, name) if defaults is not None else info.default
        kind: Any = info.annotation
        if isinstance(kind, type) and issubclass(kind, Config):
            fields[name] = (Annotated[flags_of(kind, default, negated=negated) | None, SkipValidation], None)
            continue
        kind = SPELLED.get(kind, kind)
        known = "" if info.is_required() or default in (None, (), {}) else f" [default: {_plain(default)}]"
        several = str(kind).startswith("tuple[")
        negative = None if negated and kind in (bool, bool | None) else ()  # None: as cyclopts has it
        fields[name] = (
            # Not checked here: `config` itself says what is wrong with a value, in one place for flags, files and calls.
            Annotated[
                kind | None,
                SkipValidation,
                Parameter(consume_multiple=several, negative=negative, show_default=False),
            ],
            Field(None, description=f"{info.description or ''}{known}".strip() or None),
        )
    return create_model(f"{config.__name__}Flags", __config__=ConfigDict(extra="forbid"), **fields)


def _plain(default: Any) -> str:
    return (
        " ".join(map(str, default))
        if isinstance(default, tuple) and not any(isinstance(d, tuple) for d in default)
        else str(default)
    )


@Parameter(name="*")
@dataclass(frozen=True)
class Common:
    """Flags of every command that makes a run folder.

    Parameters
    ----------
    recipe
        a name from `svp list recipes`, or a TOML file; flags override it
    out
        the run folder; default: runs/DATASET-WORKFLOW-DIGEST, so that the same command finds it again
    reuse
        other run folders whose stages to take where they are made from exactly the same things
    accept_code_change
        go on with a run folder although the code of a stage has changed since; both are recorded
    forecast
        say how long it would take and what it can save, and stop: nothing is written
    json
        print the metrics as JSON
    quiet
        show no progress
    """

    recipe: str | None = None
    out: Path | None = None
    reuse: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative=())] = ()
    accept_code_change: Annotated[bool, Parameter(negative=())] = False
    forecast: Annotated[bool, Parameter(negative=())] = False
    json: Annotated[bool, Parameter(negative=())] = False
    quiet: Annotated[bool, Parameter(negative=())] = False


def as_words(given: Mapping[str, Any]) -> list[str]:
    """Settings as the words of the command line that give them."""
    words: list[str] = []
    for name, value in given.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", *map(str, value if isinstance(value, tuple | list) else [value])]
    return words


def configure(kind: type[C], dataset: str | None, settings: BaseModel | None, common: Common) -> C:
    """The configuration: the recipe, over it the flags."""
    given = {} if settings is None else _typed({name: getattr(settings, name) for name in settings.model_fields_set})
    if dataset is not None and given.setdefault("dataset", dataset) != dataset:
        raise SettingError(f"two datasets are named, {dataset!r} and {given['dataset']!r}; name one")
    recipe = {} if common.recipe is None else read_recipe(common.recipe)
    for other in (CoresetConfig, ActiveConfig):
        if recipe.keys() - kind.model_fields and not recipe.keys() - other.model_fields:
            raise SettingError(f"the recipe {common.recipe} is one for svp {other.workflow}; give it to that command")
    return kind.make(merge(_meant_for(given, recipe), given), flags=True)


def _meant_for(given: dict[str, Any], recipe: dict[str, Any]) -> dict[str, Any]:
    """What of a recipe still means something where a flag names another model or method: options belong to what they are of,
    and settings that the new model does not use, or for which only one of the two has a default of its own, were meant for
    the old one.

    Raises SettingError for a flag that its own model does not use, whatever its value.
    """
    kept = dict(recipe)
    if "selection" in given:
        for name in CoresetConfig.choosing:
            kept.pop(name, None)
            if name in given:
                flag = f"{name}.{next(iter(given[name]))}" if isinstance(given[name], dict) and given[name] else name
                raise SettingError(
                    f"--{flag.replace('_', '-')} means nothing beside --selection, which is trained on as it is; leave it out"
                )
    if given.get("method", recipe.get("method")) != recipe.get("method"):
        kept.pop("options", None)
    for role in ("proxy", "target"):
        mine, theirs = given.get(role, {}), recipe.get(role, {})
        if not (isinstance(mine, dict) and isinstance(theirs, dict)):
            continue  # refused where the configuration is made
        model = mine.get("model", theirs.get("model"))
        if not isinstance(model, str) or not mine:
            continue
        from svp.learners import find

        found, before = (find(TrainConfig(model=named)) for named in (model, theirs.get("model", model)))
        uses = found.uses
        if unused := [name for name in mine if name in TrainConfig.model_fields and name not in uses]:
            raise SettingError(f"--{role}.{unused[0].replace('_', '-')} means nothing to {model}; leave it out")
        if "model" in mine:
            own = set() if model == theirs.get("model") else {"options"}
            if found.defaults != before.defaults:
                own |= {*found.defaults, *before.defaults}
            kept[role] = {name: v for name, v in theirs.items() if name in uses and name not in own}
    return kept


def _typed(given: Any, *, of_options: bool = False) -> Any:
    """Words as the values they spell, where these are not plain: options (50, 0.5, true, text), and arrays within arrays."""
    if isinstance(given, dict):
        return {name: _typed(value, of_options=of_options or name == "options") for name, value in given.items()}
    if isinstance(given, list | tuple):
        return [_typed(value) for value in given]
    return value_of(given) if isinstance(given, str) and (of_options or given.startswith("[")) else given


def value_of(text: str) -> Any:
    """What a word of the command line spells in TOML; the word itself where it spells nothing."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def read_recipe(name: str) -> dict[str, Any]:
    """A shipped recipe by name, or a TOML file by path."""
    path = Path(name)
    if path.suffix == ".toml" or path.exists():
        return read_toml(path)
    known = recipes()
    if (plain := name.replace("_", "-")) not in known:
        raise UnknownName("recipe", name, known, hint="svp list recipes, or a file ending in .toml")
    return read_toml(known[plain])


def recipes() -> dict[str, Path]:
    folder = Path(str(resources.files("svp") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}
