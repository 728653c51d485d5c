"""How a run begins: its settings settled, its data read, its folder taken."""

import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TypeVar

from svp.columns import Source
from svp.config import CHANGES_NOTHING, RunConfig, TrainConfig
from svp.data import DATASETS, load
from svp.data.base import Dataset
from svp.errors import DataError, FolderInUse, SettingError, StorageError, SvpWarning
from svp.files import Json
from svp.learners import settle
from svp.provenance import environment, surroundings
from svp.runs import Run
from svp.select import find_method
from svp.workflows.outcomes import Show
from svp.workflows.work import Work

C = TypeVar("C", bound=RunConfig)
T = TypeVar("T")


def settled(config: C, *roles: str) -> C:
    """The settings as they will be run; roles: "proxy" and "target", if trained here.

    A proxy that its method does not ask is left as it is: it need not even exist.
    """
    asked = find_method(config.method)[1].asks_model
    models = {role: settle(getattr(config, role)) for role in roles if role != "proxy" or asked}
    config = config.model_copy(update=models)
    if config.target.seeds != 1 and config.target != config.proxy:
        raise SettingError("target.seeds is for proxies; use seeds = 3 to repeat the run")
    return config


def fitting(config: C, dataset: Dataset, *roles: str) -> C:
    """With models for the kind of data where nobody named one: the usual ones are for photos.

    Few labels teach linear models most; but a classifier gives probabilities alone, and some methods read more of their proxy.
    """
    if not dataset.is_text and dataset.inputs.ndim != 2:
        return config
    reads_more = not {"probs", "labels"}.issuperset(find_method(config.method)[1].reads)
    linear, giving_more = ("hashed-linear", "fasttext") if dataset.is_text else ("logistic", "linear")
    chosen: dict[str, TrainConfig] = {}
    for role in roles:
        given: TrainConfig = getattr(config, role)
        said = given.model_dump(include=given.model_fields_set) if role in config.model_fields_set else {}
        if "model" not in said and given.features.source is None:
            model = giving_more if role == "proxy" and reads_more else linear
            chosen[role] = TrainConfig.make({"model": model, **said})
    return config.model_copy(update=chosen)


def brought(config: C, dataset: Dataset | None, show: Show, *roles: str) -> tuple[C, Dataset, float | None]:
    """Settings and data as they will be run, and the seconds that reading took; None where the data were there."""
    settled(config, *roles)  # refuses what it can before the data are read
    dataset, seconds = (dataset, None) if dataset is not None else loaded(config, show)
    fit = fitting(config, dataset, *roles)
    if named := [
        f"{getattr(fit, role).model} (--{role}.model)"
        for role in roles
        if getattr(fit, role) is not getattr(config, role)
    ]:
        kind = "texts" if dataset.is_text else "rows of numbers"
        warnings.warn(
            f"{dataset.name} holds {kind}, and no model was named: taking {' and '.join(named)}",
            SvpWarning,
            stacklevel=4,
        )
    return settled(fit, *roles), dataset, seconds


def loaded(config: RunConfig, show: Show) -> tuple[Dataset, float]:
    """The dataset that the settings name, and the seconds that reading and fingerprinting it took."""
    begin = time.perf_counter()
    dataset = load(config, show)
    _ = dataset.fingerprint
    return dataset, time.perf_counter() - begin


def chosen_from(config: RunConfig, run: Run) -> Json:
    """What selections keep of the table that was read, whose rows have numbers alone: by its content it is known again."""
    path = Path(config.dataset).expanduser()
    if not path.is_file() or run.environment["load"]["seconds"] is None:
        return {}
    return run.remember("table", lambda: {"dataset": Source.of(str(path)).describe(digests=True)})


def patiently(do: Callable[[], T]) -> T:
    """Do what takes up a folder; a process that holds it for some seconds is waited for. Raises FolderInUse after that."""
    for seconds in (0.2, 0.5, 1, 2, 4):
        try:
            return do()
        except FolderInUse:
            time.sleep(seconds)
    return do()


@contextmanager
def begin(
    config: RunConfig,
    dataset: Dataset,
    load_seconds: float | None,
    *,
    out: str | Path | None,
    reuse: str | Path | Sequence[str | Path],
    accept_code_change: bool,
    show: Show,
) -> Iterator[Work]:
    """Work in the run folder, new or taken up: as asked, or one that the same settings find again, with its siblings to reuse.

    load_seconds  what reading the data took; None where it was there. The first call's are kept: later ones find it read before
    """
    named, siblings = as_paths(reuse), list[Path]()
    if out is None:
        name = "".join(c if c.isalnum() or c in "-_." else "-" for c in dataset.name)
        kind = f"{name}-{config.workflow}"
        out = Path("runs") / f"{kind}-{config.digest(without=[*config.may_vary, *CHANGES_NOTHING])[:8]}"
        # Another method or budget does not train the same proxy again.
        beside = sorted(mark.parent for mark in Path("runs").glob(f"{kind}-*/environment.json"))
        here = surroundings(environment(dataset))
        siblings = [run for run in beside if run != out and _surroundings_of(run) == here]
    by_path = load_seconds is not None and config.dataset not in DATASETS
    if by_path and Path(out).resolve().is_relative_to(Path(config.dataset).expanduser().resolve()):
        raise StorageError(
            f"{out} lies inside the data ({config.dataset}), where it would be read as a part of them; "
            "choose another folder (--out)"
        )
    with Run.start(
        Path(out),
        config,
        dataset,
        may_vary=config.may_vary,
        reuse=named,
        siblings=siblings,
        accept_code_change=accept_code_change,
    ) as run:
        run.remember("load", lambda: {"seconds": load_seconds})
        yield Work(run, dataset, config.compute, show)


def _surroundings_of(run: Path) -> Json | None:
    """None where they cannot be read: a damaged run that nobody named does not stop this one."""
    try:
        return surroundings(Run.open(run).environment)
    except DataError:
        return None


def as_paths(folders: str | Path | Sequence[str | Path]) -> list[Path]:
    """One folder or several, as paths."""
    return [Path(folders)] if isinstance(folders, str | Path) else [Path(folder) for folder in folders]
