"""Run folders: stages, done-marks, resume.

A stage is a folder. Its `begun.json` says what it is made from (settings, inputs, a digest of the code it runs) and is written
first; its `done.json` is written last. A stage that is done and made from the same things is read, not run; one that was begun
continues from whatever its own checkpoint holds; one that was made from anything else is refused with what changed. The
done-mark holds size and SHA-256 of every file beside it: a finished stage is read only where these still hold.
"""

import hashlib
import importlib
import json
import os
import shutil
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

from svp.config import BY_CONTENT, CHANGES_NOTHING, RunConfig, changes, read_toml
from svp.data.base import Dataset, printable
from svp.errors import DataError, FolderInUse, RunChanged, StorageError
from svp.files import ELSEWHERE, Json, digest, make_folder, read_record, storage_errors, sweep, write_bytes, write_json
from svp.provenance import code_digest, code_digests, contents, environment, surroundings

try:
    import fcntl
except ImportError:  # Windows has no such lock: there, nothing stops a second process in the same folder
    fcntl = None  # type: ignore[assignment]

FORMAT = 1
_OR_ACCEPT = "or accept the change, which is recorded (accept_code_change, --accept-code-change)"
BEGUN, DONE = "begun.json", "done.json"
STORE = "labels.sqlite"  # questions and answers of a session
SIMULATED = "sessions"  # folder of a run in which sessions lie that an oracle answers
SUMMARY, SUMMARY_FORMAT = "session.json", 1  # what the report of a session is made of, written anew for each
METRICS_FORMAT = 4  # of metrics.json, which is written anew whenever a run is called again
# What a stage that is not done goes on from: a training's last checkpoint or, at its end, its records; marks of `fill_array`.
RESUMABLE = ("checkpoint.safetensors", "history.json", ".*.json")
# What a done-mark calls the parts of a stage that are timed, and what they are called elsewhere.
PARTS = {"embed_seconds": "embed", "seconds": "train", "inference_seconds": "score", "ranking_seconds": "select"}


@dataclass(frozen=True)
class Stage:
    """One folder of a run: what it was made from, other code that was accepted since it was begun, and whether it is complete.

    also  what else its done-mark records: machine and packages, and of a session the newest event of its label store when the
          stage was taken up
    """

    name: str
    folder: Path
    made_from: Json
    code_accepted: tuple[str, ...] = ()
    also: Json = field(default_factory=dict)

    @property
    def done(self) -> bool:
        return (self.folder / DONE).exists()

    @property
    def origin(self) -> str:
        """Digest of everything that it was made from, by which others name it."""
        return digest(json.dumps(self.made_from, sort_keys=True))

    @property
    def facts(self) -> Json:
        """What `finish` was told: seconds and the like."""
        facts: Json = read_record(self.folder / DONE, "facts")["facts"]
        return facts

    def finish(self, **facts: Any) -> None:
        """Mark the stage complete. Nothing in it changes after this. Cost: its files are read once."""
        accepted = {"code_accepted": list(self.code_accepted)} if self.code_accepted else {}
        with storage_errors(self.folder):
            files = {path.relative_to(self.folder).as_posix(): _file_facts(path) for path in _results(self.folder)}
        made = {
            "format": FORMAT,
            "made_from": self.made_from,
            **accepted,
            **self.also,
            "finished": round(time.time(), 3),
        }
        mark = {**made, "facts": facts, "files": files}
        write_json(self.folder / DONE, mark)


def check_files(stage: Path) -> None:
    """DataError that names the first file of a finished stage that is not as its done-mark says.

    Marks of earlier versions name no files: there nothing is checked. Cost: the files are read once.
    """
    for name, facts in read_record(stage / DONE).get("files", {}).items():
        try:
            damage = "" if _file_facts(stage / name) == facts else "its content is not what the stage wrote"
        except OSError as error:
            damage = error.strerror or str(error)
        if damage:
            raise DataError(
                f"{stage / name} is damaged ({damage}); remove the folder {stage} and repeat the command: "
                "that stage is then made again"
            )


def _results(stage: Path) -> list[Path]:
    """What the done-mark of a stage vouches for: all visible files but the marks themselves."""
    marks = {stage / BEGUN, stage / DONE}
    return sorted(
        path for path in stage.rglob("*") if path.is_file() and path not in marks and not path.name.startswith(".")
    )


def _file_facts(path: Path) -> Json:
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


class Run:
    """A folder on disk that holds everything about one run, and can be moved.

    Files are listed in docs/run_folder.md. `Run.open` reads a finished or interrupted one; the workflows start them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = Path(folder)
        self._accept_code_change = False
        self._elsewhere = ELSEWHERE
        self.reuse: tuple[Path, ...] = ()
        self.siblings: tuple[Path, ...] = ()
        self.newest_event: Callable[[], int] | None = None  # of a session's label store
        self._never_asked: Callable[[Path], bool] = lambda store: False
        self._lock: int | None = None

    @classmethod
    def open(cls, folder: str | Path) -> Self:
        """An existing run, for reading. Raises DataError if the folder holds none."""
        run = cls(Path(folder))
        _ = run.environment
        return run

    @classmethod
    def start(
        cls,
        folder: Path,
        config: RunConfig,
        dataset: Dataset | None,
        *,
        may_vary: Sequence[str] = (),
        reuse: Sequence[Path] = (),
        siblings: Sequence[Path] = (),
        accept_code_change: bool = False,
        may_grow: bool = False,
        never_asked: Callable[[Path], bool] = lambda store: False,
    ) -> Self:
        """Make a run folder, or take up an interrupted one.

        dataset   None: it is not read yet; the environment is written when it is
        may_grow  the dataset may be another than it was: whoever calls looks after its examples one by one
        never_asked  does this label store hold no question? Then no answer either
        may_vary  settings that say which of the arms are wanted now (such as "control"): what is there stays, what is not is made
        reuse     other run folders: stages made from exactly the same things are linked from there, not run again
        siblings  the same, of run folders that nobody named: a damaged stage there is left alone, where it would be refused
        Raises RunChanged with every setting that differs, StorageError if the folder is in use or cannot be written. A folder
        that holds nothing to read or to go on from is begun anew by other settings.
        """
        run = cls(folder)
        if may_grow:  # its commands name the folder without a flag
            run._elsewhere = "choose another folder"
        run._never_asked = never_asked
        run._accept_code_change, run.reuse, run.siblings = accept_code_change, tuple(reuse), tuple(siblings)
        if strangers := [other for other in reuse if not (other / "environment.json").exists()]:
            raise DataError(f"{strangers[0]} holds no run to reuse; name a folder that svp coreset or svp active made")
        if (name := str(folder)) != printable(name):
            raise StorageError(f"cannot write {printable(name)}: this name is no valid Unicode; {run._elsewhere}")
        with storage_errors(folder):
            is_file = folder.is_file()
        if is_file:
            raise StorageError(f"cannot write {folder}: it is a file; {run._elsewhere}")
        make_folder(folder)
        run._take_lock()
        try:
            run._check_settings(config, dataset, may_vary, may_grow)
            sweep(folder)
            write_bytes(folder / "config.toml", config.to_toml().encode())
        except BaseException:
            run.close()
            raise
        return run

    def _check_settings(
        self, config: RunConfig, dataset: Dataset | None, may_vary: Sequence[str], may_grow: bool
    ) -> None:
        path, written = self.folder / "environment.json", self.folder / "config.toml"
        settings = config.flat()
        files = contents(settings)
        found = {} if dataset is None else environment(dataset)
        now = {"format": FORMAT, **found, **({"contents": files} if files else {})}
        if path.exists():
            before = self.environment
        else:
            leftovers = [p.name for p in self.folder.iterdir() if not p.name.startswith(".")]
            # A session is the label store: this file may be lost, and a restored one has none yet.
            if leftovers and not (may_grow and STORE in leftovers):
                raise StorageError(
                    f"{self.folder} holds other files ({', '.join(sorted(leftovers)[:3])}); {self._elsewhere}"
                )
            known = type(config).make(read_toml(written)).flat() if leftovers and written.exists() else settings
            before = {**now, "settings": known}
        if before["format"] != FORMAT:
            raise RunChanged(
                f"{self.folder} has run-folder format {before['format']}, this version reads {FORMAT}; {self._elsewhere}"
            )
        free = [*may_vary, *CHANGES_NOTHING, *BY_CONTENT]
        changed = changes(
            {**_drop(before["settings"], free), **before.get("contents", {})}, {**_drop(settings, free), **files}
        )
        if not may_grow and before["dataset"]["fingerprint"] != now["dataset"]["fingerprint"]:
            differs = _data_changes(before["dataset"], now["dataset"])
            changed.append(f"dataset {now['dataset']['name']} is another ({differs})")
        moved = [] if dataset is None else changes(surroundings(before), surroundings(now))
        if (changed or (moved and not self._accept_code_change)) and not self._holds_work():
            self._clear()
            self.event("begun anew", changed=changed + moved)
            self._write_environment(now, settings)
            return
        if changed:
            raise RunChanged(
                f"{self.folder} was made with other settings: {'; '.join(changed)}; undo that, or {self._elsewhere}"
            )
        if moved:
            self.accept(moved)
            before = {**before, **{name: now[name] for name in ("packages", "machine", "python")}}
        if moved or before["settings"] != settings or not path.exists():
            self._write_environment(before, settings)

    def _write_environment(self, facts: Json, settings: Json) -> None:
        """Once the data are known."""
        if "dataset" in facts:
            write_json(self.folder / "environment.json", {**facts, "settings": settings})

    def accept(self, moved: list[str]) -> None:
        """Go on in surroundings that have changed, where that is accepted: it is recorded. Else RunChanged."""
        if not self._accept_code_change:
            raise RunChanged(
                f"{self.folder} was made in another environment: {'; '.join(moved)}; {self._elsewhere}, {_OR_ACCEPT}"
            )
        self.event("accepted environment", changed=moved)

    def _holds_work(self) -> bool:
        """Is there a finished stage, one that can go on from where it stopped, or a label store that people were asked by?"""
        stores = [path for path in self.folder.rglob(STORE) if path.relative_to(self.folder).parts[0] != SIMULATED]
        begun = [mark.parent for mark in self.folder.rglob(BEGUN)]
        resumable = any(any(stage.glob(pattern)) for stage in begun for pattern in RESUMABLE)
        return resumable or any(self.folder.rglob(DONE)) or not all(map(self._never_asked, stores))

    def _clear(self) -> None:
        """Remove the stages that were begun here, the sessions of a simulation, and a label store without a question; files of
        anybody else stay."""
        marks = [*self.folder.glob(f"*/**/{BEGUN}"), *self.folder.glob(f"{SIMULATED}/*/environment.json")]
        with storage_errors(self.folder):
            for folder in {mark.parent for mark in marks}:
                if folder.exists():  # it may have been inside another
                    shutil.rmtree(folder)
            for name in (STORE, f"{STORE}-wal", f"{STORE}-shm"):
                (self.folder / name).unlink(missing_ok=True)

    def _take_lock(self, doing: str = "") -> None:
        with storage_errors(self.folder):
            self._lock = os.open(self.folder / ".lock", os.O_CREAT | os.O_RDWR)
            if fcntl is None:
                return
            try:
                fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.ftruncate(self._lock, 0)
                os.pwrite(self._lock, doing.encode(), 0)
            except BlockingIOError:
                other = os.pread(self._lock, 100, 0).decode(errors="replace")
                self.close()
                way_out = f" ({other}); wait until that has ended, and repeat the command"
                raise FolderInUse(
                    f"{self.folder} is in use by another process{way_out if other else f'; wait for it, or {self._elsewhere}'}"
                ) from None
            except OSError:  # a file system that knows no locks
                self.close()
                raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Let other processes work in this folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    @contextmanager
    def held(self, doing: str = "") -> Iterator[None]:
        """Work in this folder alone, for as long as that takes. Raises FolderInUse where another process does.

        doing  what others are told is going on here; "" where they may take another folder
        """
        if self._lock is not None:
            yield
            return
        self._take_lock(doing)
        try:
            yield
        finally:
            self.close()

    @property
    def environment(self) -> Json:
        return read_record(self.folder / "environment.json", "dataset", "settings", "packages", "machine")

    @property
    def metrics(self) -> Json:
        """Accuracy per arm and seed, seconds per stage, comparisons, agreement: numbers and one-word verdicts."""
        return read_record(self.folder / "metrics.json")

    @property
    def verdict(self) -> list[str]:
        """What the metrics say, in sentences."""
        said: list[str] = importlib.import_module("svp.words").verdict(self.metrics)
        return said

    @property
    def selection(self) -> Any:
        """The selection of the first seed (`svp.Selection`)."""
        from svp.select import Selection

        return Selection.load(self.folder / "selection.parquet")

    def report(self, dataset: Dataset | None = None) -> Path:
        """Write report.html and return its path. Needs the extra `report`; dataset: that of the run, where it is at hand."""
        return Path(importlib.import_module("svp.report").write(self.folder, dataset))

    def remember(self, name: str, decide: Callable[[], Json]) -> Json:
        """A decision that must stay the same when the run is resumed (such as a measured precision)."""
        known = self.environment
        if name not in known:
            known[name] = decide()
            write_json(self.folder / "environment.json", known)
        decided: Json = known[name]
        return decided

    def stage(self, name: str, made_from: Mapping[str, Any], code: Sequence[str]) -> Stage:
        """The stage `name`, new, begun or done; raises RunChanged if it was made from other things.

        made_from  everything its result depends on, as flat JSON values
        code       the modules (packages whole) that it runs
        """
        made = {**json.loads(json.dumps(dict(made_from))), "code": code_digest(tuple(code))}
        digests = code_digests(tuple(code))
        here = self.environment
        also = {name: here[name] for name in ("machine", "packages")}
        if self.newest_event is not None:
            also["event"] = self.newest_event()
        stage = Stage(name, self.folder / name, made, also=also)
        mark = stage.folder / BEGUN
        if mark.exists() or stage.done:
            record = read_record(mark, "made_from")
            before, accepted, known = record["made_from"], record.get("code_accepted", []), record.get("modules", {})
            changed = changes(_drop(before, ["code"]), _drop(made, ["code"]))
            if changed:
                raise RunChanged(
                    f"stage {name} of {self.folder} was made from other things: {'; '.join(changed)}; {self._elsewhere}"
                )
            if made["code"] not in (before["code"], *accepted):
                edited = [
                    module for module in digests.keys() | known.keys() if digests.get(module) != known.get(module)
                ]
                if not self._accept_code_change:
                    raise RunChanged(
                        f"the code of stage {name} of {self.folder} has changed ({_some(edited)}); "
                        f"{self._elsewhere}, {_OR_ACCEPT}"
                    )
                self.event(
                    "accepted code change",
                    stage=name,
                    before=before["code"],
                    after=made["code"],
                    modules=sorted(edited),
                )
                accepted = [*accepted, made["code"]]
                write_json(mark, {**record, "code_accepted": accepted, "modules": digests})
            # As it was begun: later stages were made from that, and stay valid.
            stage = Stage(name, stage.folder, before, tuple(accepted), also)
            if stage.done:
                check_files(stage.folder)
            else:
                sweep(stage.folder)
            return stage
        if any(self._link(stage, other / name) for other in self.reuse):
            return stage
        if any(self._link_if_sound(stage, other / name) for other in self.siblings):
            return stage
        sweep(make_folder(stage.folder))
        write_json(mark, {"format": FORMAT, "made_from": made, "modules": digests})
        self.event("begun", stage=name)
        return stage

    def seconds(self, name: str) -> dict[str, float]:
        """What the parts of the finished stage `name` took, over all attempts; none where there is no such stage."""
        stage = Stage(name, self.folder / name, {})
        return {part: stage.facts[fact] for fact, part in PARTS.items() if fact in stage.facts} if stage.done else {}

    def machines(self) -> list[str]:
        """On what the stages whose seconds are known were made, in words; those of earlier versions do not say it."""
        marks = [read_record(mark, "facts") for mark in self.folder.rglob(DONE)]
        made_on = [mark["machine"] for mark in marks if "machine" in mark and PARTS.keys() & mark["facts"].keys()]
        return sorted({f"{m['processor']}, {m['cores']} cores, {m['platform']}" for m in made_on})

    def _link(self, stage: Stage, other: Path) -> bool:
        """Take a finished stage of another run, if it is made from the same things: hard links, or copies across disks."""
        if not (other / DONE).exists():
            return False
        done = read_record(other / DONE, "made_from")
        if done["made_from"] != stage.made_from or done.get("code_accepted"):
            return False
        check_files(other)
        make_folder(stage.folder.parent)
        temporary = stage.folder.with_name(f".{stage.folder.name}.tmp")
        with storage_errors(stage.folder):
            shutil.rmtree(temporary, ignore_errors=True)
            try:
                shutil.copytree(other, temporary, copy_function=os.link)
            except (OSError, shutil.Error):
                shutil.rmtree(temporary, ignore_errors=True)
                shutil.copytree(other, temporary)
            shutil.rmtree(stage.folder, ignore_errors=True)
            os.replace(temporary, stage.folder)
        self.event("reused", stage=stage.name, origin=str(other))
        return True

    def _link_if_sound(self, stage: Stage, other: Path) -> bool:
        """The same of a run that nobody named, whose damage does not stop this one."""
        try:
            return self._link(stage, other)
        except DataError as error:
            self.event("not reused", stage=stage.name, why=str(error))
            return False

    def event(self, what: str, **facts: Any) -> None:
        """Append one line to events.jsonl: a diary for people, read by nothing."""
        line = json.dumps({"at": time.strftime("%Y-%m-%dT%H:%M:%S%z"), "event": what, **facts}, ensure_ascii=False)
        with storage_errors(self.folder), open(self.folder / "events.jsonl", "a", encoding="utf-8") as file:
            file.write(printable(line) + "\n")


def _drop(settings: Json, names: Sequence[str]) -> Json:
    return {name: value for name, value in settings.items() if name not in names}


def _data_changes(before: Json, now: Json) -> str:
    """What of a data set is another, as far as its numbers tell: arguments are `environment(...)["dataset"]`."""
    said = [
        f"{before[count]:,} {what} were there, now {now[count]:,}"
        for count, what in (("n", "examples"), ("n_test", "test examples"))
        if before[count] != now[count]
    ]
    counts, counts_now = (dict(zip(d["classes"], d["class_counts"] or (), strict=False)) for d in (before, now))
    if gone := [name for name in before["classes"] if name not in now["classes"]]:
        said.append(f"gone: class {_some(gone)}")
    if new := [name for name in now["classes"] if name not in before["classes"]]:
        said.append(f"new: class {_some(new)}")
    if other := [
        f"{name}: {n:,}, now {counts_now[name]:,}" for name, n in counts.items() if counts_now.get(name, n) != n
    ]:
        said.append(f"of class {_some(other)}")
    return "; ".join(said or ["the same numbers of examples, of which some are others"])


def _some(names: Collection[str]) -> str:
    """Three of them, and how many more."""
    first = sorted(names)[:3]
    return ", ".join(first) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
