"""The commands of data sets and run folders: settings from recipe and flags, one call, a few lines of print."""

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from svp.cli.flags import Common, configure, flags_of, read_recipe, recipes
from svp.cli.progress import progress
from svp.config import ActiveConfig, CoresetConfig
from svp.errors import MissingExtra, SvpWarning, require
from svp.provenance import code_digest
from svp.runs import Run
from svp.words import foretold, seconds, undertrained

CoresetFlags = flags_of(CoresetConfig)
ActiveFlags = flags_of(ActiveConfig)


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


def _run(workflow: Callable[..., Run], config: CoresetConfig | ActiveConfig, common: Common) -> None:
    if common.forecast:
        _foretell(config, common)
        return
    with progress(common) as show:
        run = workflow(
            config, out=common.out, reuse=common.reuse, accept_code_change=common.accept_code_change, show=show
        )
        for sentence in undertrained(run.metrics):  # in the verdict too; a warning also where that is read by a program
            warnings.warn(sentence, SvpWarning, stacklevel=2)
    finish(run, common)


def _foretell(config: CoresetConfig | ActiveConfig, common: Common) -> None:
    """Print what the run would take."""
    from svp.workflows.forecast import forecast_run

    with progress(common) as show:
        expected = forecast_run(config, show=show)
    if common.json:
        print(json.dumps(expected.facts()))
        return
    for line in foretold(expected.facts()):
        print(line)


def demo(*, out: Path | None = None, quiet: Annotated[bool, Parameter(negative=())] = False) -> None:
    """Run both workflows on scikit-learn's digits, a random control beside each, and write both reports.

    Parameters
    ----------
    out
        where the two run folders go; default: runs/demo-DIGEST of svp's own code
    quiet
        show no progress
    """
    for module in ("torch", "safetensors", "altair", "vl_convert"):
        require(module, "torch,report")
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
    return {name: path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ") for name, path in recipes().items()}


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
