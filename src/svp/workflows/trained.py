"""Which trained model is meant by a run folder, a session, or the folder of a model in one: finished trainings, found by name."""

from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from svp.config import RunConfig, TrainConfig, read_toml
from svp.errors import DataError, SettingError
from svp.files import Json, read_record
from svp.labels import LabelStore
from svp.runs import BEGUN, DONE, STORE, Run, Stage, check_files
from svp.workflows.finished import last
from svp.workflows.people import config_in, known, ways_of

Part = Literal["target", "proxy"]


@dataclass(frozen=True)
class Trained:
    """A finished training.

    stage  its folder, whose files are as it left them
    home   the run folder or session whose settings it was made by
    part   which of these settings
    """

    stage: Stage
    home: Path
    part: Part

    @property
    def settings(self) -> RunConfig:
        """Those that every workflow has."""
        values = read_toml(self.home / "config.toml")
        return RunConfig.make({name: value for name, value in values.items() if name in RunConfig.model_fields})

    @property
    def config(self) -> TrainConfig:
        config: TrainConfig = getattr(self.settings, self.part)
        return config

    @property
    def of_people(self) -> bool:
        """Was it trained in a session whose pool may grow?"""
        return "rule" in read_toml(self.home / "config.toml")

    @classmethod
    def at(cls, folder: Path) -> "Trained":
        """The training in a folder of its own. Raises DataError where it is none, is not finished, or damaged."""
        stage = stage_at(folder)
        home = next((up for up in folder.resolve().parents if (up / "config.toml").exists()), None)
        if "train.model" not in stage.made_from or home is None:
            raise DataError(
                f"{folder} holds no trained model of a run; give the run folder or session, or a folder such as "
                "target/proxy-epochs/seed-0/model in it"
            )
        check_files(folder)
        within = folder.resolve().relative_to(home).parts
        asks = within[0] in ("proxy", "folds") or within[-1].startswith("model-")
        return cls(stage, home, "proxy" if asks else "target")


def stage_at(folder: Path) -> Stage:
    """A finished stage; DataError where the folder holds none."""
    if not (folder / DONE).exists():
        raise DataError(f"{folder} is not finished; repeat the command that began it, and it goes on where it stopped")
    return Stage(folder.name, folder, read_record(folder / DONE, "made_from")["made_from"])


def stage_of(home: Path, origin: str, what: str) -> Stage:
    """The stage of a run with this digest, wherever in its folder it lies; DataError where there is none."""
    for mark in sorted(home.rglob(DONE)):
        stage = stage_at(mark.parent)
        if stage.origin == origin:
            return stage
    raise DataError(f"{home} holds no more {what}; repeat the command that made it, and that is made again")


def find_model(folder: str | Path, part: str = "target", *, arm: str | None = None, seed: int | None = None) -> Trained:
    """The training that is meant; DataError or SettingError that names what there is.

    Of a run: part "target" is the one that metrics.json has as `arm` (default: on the choice of the proxy, or on an earlier
    selection; "random", "full", "target"; or as its folder is called: "proxy-steps", "proxy-400") with run seed `seed` (default:
    the first); where several are left, of core-sets the first, of active learning the one with the most labels. Part "proxy" is
    the first proxy of that seed, in active learning of the last round of that arm. Of a session: the target of the last `finish`,
    or the proxy of the last round. Of the folder of a model: that.
    """
    folder = Path(folder)
    if part not in get_args(Part):
        raise SettingError(f"part is {part!r}; a run holds {' and '.join(get_args(Part))}")
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give one that svp coreset, svp active or svp session made")
    alone = (folder / BEGUN).exists() or (folder / DONE).exists()
    if (alone or (folder / STORE).exists()) and (arm is not None or seed is not None):
        raise SettingError(f"{folder} has neither arms nor seeds to choose among; leave arm and seed out")
    if alone:
        return Trained.at(folder)
    if (folder / STORE).exists():
        return _of_session(folder, part)
    return _of_run(folder, part, arm, seed)


def _of_session(folder: Path, part: str) -> Trained:
    pattern = "final/*/target" if part == "target" else "rounds/*/model-0"
    with closing(LabelStore.open(folder / STORE)) as store:
        labelled = known(store, ways_of(config_in(folder)).rule)
    if found := last(folder, f"{pattern}/{DONE}", labelled):
        return Trained.at(found)
    step = f"svp session finish {folder} trains it" if part == "target" else f"svp session train {folder} trains one"
    raise DataError(f"{folder} is a session without a trained {part}; {step}{_there_are(folder)}")


def _of_run(folder: Path, part: str, arm: str | None, seed: int | None) -> Trained:
    run = Run.open(folder)
    if not (folder / "metrics.json").exists():
        raise DataError(
            f"{folder} is a run that is not finished; repeat the command that began it, and it goes on{_there_are(folder)}"
        )
    arms, is_active = run.metrics["arms"], run.metrics["workflow"] == "active"
    first = int(run.environment["settings"]["seed"]) if seed is None else seed
    if not arms:  # chosen, not judged
        if part == "proxy":
            return _proxy(folder, "proxy", first, is_active=is_active)
        raise DataError(f"{folder} had no test data, and so trained no target{_there_are(folder)}")
    named = arm or arms[0]["arm"]
    found = [a for a in arms if a["seed"] == first and named in (a["arm"], _called(a, is_active))]
    if not found:
        raise DataError(f"{folder} has no arm {named!r} of seed {first}; it has {_listed(arms, is_active)}")
    chosen = max(found, key=lambda a: a["n"]) if is_active else found[0]
    if part == "proxy":
        return _proxy(folder, chosen["arm"], first, is_active=is_active)
    test = stage_at(folder / "target" / _called(chosen, is_active) / f"seed-{first}" / "test")
    near = test.folder.parent / "model"
    model = test.made_from["model"]
    if (near / DONE).exists() and stage_at(near).origin == model:
        return Trained.at(near)
    return Trained.at(stage_of(folder, model, f"target of {_called(chosen, is_active)}").folder)


def _proxy(folder: Path, arm: str, seed: int, *, is_active: bool) -> Trained:
    pattern = f"sessions/{arm}-seed-{seed}/rounds/*/model-0" if is_active else f"proxy/seed-{seed}/model-0"
    found = last(folder, f"{pattern}/{DONE}")
    if found is None:
        raise DataError(
            f"{folder} has no proxy of seed {seed}: its method asks none, or an earlier selection was given"
        )
    return Trained.at(found)


def _called(arm: Json, is_active: bool) -> str:
    """The folder of an arm of metrics.json, in target/."""
    if is_active:
        return f"{arm['arm']}-{arm['n']}"
    return "full" if arm["arm"] == "full" else f"{arm['arm']}-{arm['equal']}"


def _listed(arms: list[Json], is_active: bool) -> str:
    seeds = defaultdict(list)
    for arm in arms:
        seeds[_called(arm, is_active)].append(str(arm["seed"]))
    return ", ".join(f"{name} (seed {', '.join(of)})" for name, of in seeds.items())


def _there_are(folder: Path) -> str:
    """The models that can be named by their own folders, in words."""
    found = list(_models(folder))
    if not found:
        return ""
    more = f" and {len(found) - 5} more" if len(found) > 5 else ""
    return f". Finished there, and usable by their own folders, are {', '.join(found[:5])}{more}"


def _models(folder: Path) -> Iterator[str]:
    for mark in sorted(folder.rglob(DONE)):
        if "train.model" in stage_at(mark.parent).made_from:
            yield str(mark.parent)
