"""What each command does: settings from recipe and flags, one call, a few lines of print."""

import json
import sys
import time
import tomllib
import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from cyclopts import Parameter
from pydantic import BaseModel, ConfigDict, Field, SkipValidation, create_model

from svp.config import ActiveConfig, Config, CoresetConfig, TrainConfig, merge, read_toml
from svp.errors import MissingExtra, SettingError, SvpWarning, UnknownName, require
from svp.provenance import code_digest
from svp.runs import Run
from svp.words import seconds

C = TypeVar("C", bound=Config)


# --- every setting as a flag ---------------------------------------------------------------------------------------------


# What a flag takes of settings that a word alone cannot spell: names with a value each, and arrays, one a word.
SPELLED: dict[Any, Any] = {
    dict[str, Any]: dict[str, str],
    tuple[tuple[float, float], ...]: tuple[str, ...],
}


def flags_of(config: type[Config], defaults: Config | None = None, without: Collection[str] = ()) -> type[BaseModel]:
    """The settings of `config` as flags that may all be left out; help shows the defaults, which stay with `config`."""
    fields: dict[str, Any] = {}
    for name, info in config.model_fields.items():
        if name in without:
            continue
        default = getattr(defaults, name) if defaults is not None else info.default
        kind: Any = info.annotation
        if isinstance(kind, type) and issubclass(kind, Config):
            fields[name] = (Annotated[flags_of(kind, default) | None, SkipValidation], None)
            continue
        kind = SPELLED.get(kind, kind)
        known = "" if info.is_required() or default in (None, (), {}) else f" [default: {_plain(default)}]"
        several = str(kind).startswith("tuple[")
        fields[name] = (
            # Not checked here: `config` itself says what is wrong with a value, in one place for flags, files and calls.
            Annotated[
                kind | None,
                SkipValidation,
                Parameter(consume_multiple=several, negative=() if kind is not bool else None, show_default=False),
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


CoresetFlags = flags_of(CoresetConfig)
ActiveFlags = flags_of(ActiveConfig)


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
    json
        print the metrics as JSON
    quiet
        show no progress
    """

    recipe: str | None = None
    out: Path | None = None
    reuse: Annotated[tuple[Path, ...], Parameter(consume_multiple=True, negative=())] = ()
    accept_code_change: Annotated[bool, Parameter(negative=())] = False
    json: Annotated[bool, Parameter(negative=())] = False
    quiet: Annotated[bool, Parameter(negative=())] = False


def coreset(
    dataset: str | None = None,
    /,
    *,
    settings: Annotated[CoresetFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    common: Common = Common(),
) -> None:
    """Run `svp.coreset`.

    Parameters
    ----------
    dataset
        a name from `svp list datasets`, a folder of class folders, a .npz file, or package.module:function
    """
    from svp.workflows.coreset import coreset as run_coreset

    _run(run_coreset, configure(CoresetConfig, dataset, settings, common), common)


def active(
    dataset: str | None = None,
    /,
    *,
    settings: Annotated[ActiveFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    common: Common = Common(),
) -> None:
    """Run `svp.active`.

    Parameters
    ----------
    dataset
        a name from `svp list datasets`, a folder of class folders, a .npz file, or package.module:function
    """
    from svp.workflows.active import active as run_active

    _run(run_active, configure(ActiveConfig, dataset, settings, common), common)


def _run(workflow: Callable[..., Run], config: Config, common: Common) -> None:
    with progress(common) as show:
        run = workflow(
            config, out=common.out, reuse=common.reuse, accept_code_change=common.accept_code_change, show=show
        )
    finish(run, common)


def demo(*, out: Path | None = None, quiet: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Run both workflows on scikit-learn's digits, a random control beside each, and write both reports.

    Parameters
    ----------
    out
        where the two run folders go; default: runs/demo-DIGEST of svp's own code
    quiet
        show no progress
    """
    for module, extra in (("torch", "torch,report"), ("safetensors", "torch,report"), ("altair", "torch,report")):
        require(module, extra)
    from svp.workflows.active import active as run_active
    from svp.workflows.coreset import coreset as run_coreset

    begin = time.perf_counter()
    common = Common(quiet=quiet)
    # Another version of svp makes its own folders: what is there is never refused for its code.
    out = out or Path("runs") / f"demo-{code_digest(('svp',))[:8]}"
    print("1 of 2  core-set: a small proxy keeps a part of the digits, the target is trained on that part")
    with progress(common) as show:
        coreset_config = CoresetConfig.make(read_recipe("digits-coreset"))
        kept = run_coreset(coreset_config, out=out / "coreset", accept_code_change=True, show=show)
    print("2 of 2  active learning: a small proxy asks which digits to label, the target is trained on those")
    with progress(common) as show:
        active_config = ActiveConfig.make(read_recipe("digits-active"))
        asked = run_active(active_config, out=out / "active", accept_code_change=True, show=show)
    for title, run in (("Core-set", kept), ("Active learning", asked)):
        print(f"\n{title}")
        for sentence in run.verdict:
            print(f"  {sentence}")
        print(f"  Report: {run.report()}")
    print(
        f"\nDone in {seconds(time.perf_counter() - begin)}. On your own images: svp coreset FOLDER (one folder a class inside)"
    )


def report(run: Path, /) -> None:
    """Write report.html into a run folder and print its path.

    Parameters
    ----------
    run
        a folder that `svp coreset` or `svp active` made
    """
    print(Run.open(run).report())


def list_(
    what: Literal["methods", "models", "datasets", "recipes"],
    /,
    *,
    json_: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> None:
    """Show what is known.

    Parameters
    ----------
    what
        methods, models, datasets or recipes
    json_
        print as JSON
    """
    known = _known(what)
    if json_:
        print(json.dumps(known, indent=1))
        return
    width = max(map(len, known))
    for name, summary in known.items():
        print(f"{name:<{width}}  {summary}")


def _known(what: str) -> dict[str, str]:
    """Names and one line about each."""
    if what == "methods":
        from svp.select import METHODS

        return {
            name: f"{method.summary} (needs {', '.join(method.reads) or 'nothing'})" for name, method in METHODS.items()
        }
    if what == "models":
        from svp.learners import LEARNERS

        return {", ".join(row.names): row.summary for row in LEARNERS.values()}
    if what == "datasets":
        from svp.data import DATASETS

        return {name: source.summary for name, source in DATASETS.items()}
    return {name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in _recipes().items()}


# --- settings, progress, results -----------------------------------------------------------------------------------------


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
    and settings that the new model does not use were meant for the old one.

    Raises SettingError for a flag that its own model does not use, whatever its value.
    """
    kept = dict(recipe)
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

        uses = find(TrainConfig(model=model)).uses
        if unused := [name for name in mine if name in TrainConfig.model_fields and name not in uses]:
            raise SettingError(f"--{role}.{unused[0].replace('_', '-')} means nothing to {model}; leave it out")
        if "model" in mine:
            other = model != theirs.get("model")
            kept[role] = {name: v for name, v in theirs.items() if name in uses and not (other and name == "options")}
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
    known = _recipes()
    if name not in known:
        raise UnknownName("recipe", name, known, hint="svp list recipes, or a file ending in .toml")
    return read_toml(known[name])


def _recipes() -> dict[str, Path]:
    folder = Path(str(resources.files("svp") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.toml"))}


@contextmanager
def progress(common: Common) -> Iterator[Any]:
    """Who is told what is going on: nobody when quiet, else whoever reads stderr.

    What svp itself warns of is a line at once, also when quiet; warnings of libraries wait, and become one line.
    """
    others: list[str] = []

    def heard(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
        line = " ".join(str(message).split())
        if issubclass(category, SvpWarning):
            print(f"svp: {line}", file=sys.stderr)
        else:
            others.append(f"warning: {category.__name__}: {line}")

    with warnings.catch_warnings(), _shown(common.quiet) as show:
        warnings.showwarning = heard
        yield show
    if others and not common.quiet:
        print(others[0] + (f" (and {len(others) - 1} more)" if len(others) > 1 else ""), file=sys.stderr)


@contextmanager
def _shown(quiet: bool) -> Iterator[Any]:
    """A live bar on a terminal; elsewhere a line when a training begins and ends; nothing when quiet. All on stderr."""
    if quiet:
        from svp.workflows.outcomes import silent

        yield silent
        return
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        yield _lines
        return
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.fields[note]}"),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=console,
        transient=True,
    ) as bars:
        task = bars.add_task("starting", total=None, note="")
        shown = ""

        def show(what: str, done: int, total: int, note: str = "") -> None:
            nonlocal shown
            if what != shown:
                bars.reset(task, description=what, total=total or None, note=note)
                shown = what
            bars.update(task, completed=done, note=note)

        yield show


def _lines(what: str, done: int, total: int, note: str = "") -> None:
    """Progress where there is no terminal: about ten lines a training."""
    if not total or done == total or done % max(1, total // 10) == 0:
        print(f"{what}{f' {done}/{total}' if total else ''}{f' {note}' if note else ''}", file=sys.stderr)


def finish(run: Run, common: Common) -> None:
    """Print what came out, and write the report where its extra is installed."""
    if common.json:
        print(
            json.dumps(
                {
                    "folder": str(run.folder),
                    "selection": str(run.folder / "selection.parquet"),
                    "verdict": run.verdict,
                    **run.metrics,
                }
            )
        )
        return
    for sentence in run.verdict:
        print(sentence)
    print(f"Selection: {run.folder / 'selection.parquet'}")
    try:
        require("altair", "report")
    except MissingExtra as error:
        print(f"Report: svp report {run.folder} ({error})")
        return
    print(f"Report: {run.report()}")
