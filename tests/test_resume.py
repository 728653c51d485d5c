"""Both workflows, killed at enumerated points and run again: the same files, ids and metrics as without the kill."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

from svp.labels import LabelStore
from svp.runs import Run
from tests.killed import INTERRUPTED, KILLED

TIMES = {"seconds", "selection_seconds", "load_seconds", "payments", "speed_up"}  # what a clock says
EXACT = {".npy", ".safetensors", ".parquet", ".toml"}


class Server:
    """Runs a workflow in a process that may be killed; see tests/killed.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.killed"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=Path(__file__).parents[1],
        )

    def run(self, workflow: str, out: Path, **how: Any) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps({"workflow": workflow, "out": str(out), **how}) + "\n")
        self._process.stdin.flush()
        ended: str = json.loads(self._process.stdout.readline())
        return ended

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server()
    yield server
    server.close()


@pytest.fixture(scope="module")
def whole(server: Server, tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[dict[str, Any], dict[str, int]]]:
    """By workflow: what an uninterrupted run leaves, and how often each point is reached."""
    found = {}
    for workflow in ("coreset", "active"):
        out = tmp_path_factory.mktemp("whole") / workflow
        assert server.run(workflow, out) == "finished"
        found[workflow] = (left(out), json.loads(Path(f"{out}.counts").read_text()))
    return found


def without_times(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: without_times(item) for name, item in value.items() if name not in TIMES}
    return [without_times(item) for item in value] if isinstance(value, list) else value


def left(out: Path) -> dict[str, Any]:
    """All that a run leaves, but for times: every array, weight and selection to the byte, every fact."""
    found: dict[str, Any] = {}
    for path in sorted(out.rglob("*")):
        name = str(path.relative_to(out))
        if "/.labels.sqlite-" in name:
            continue  # a store that was never given its name: the draft of a killed process
        if path.suffix in EXACT:
            found[name] = path.read_bytes()
        elif path.name == "labels.sqlite":
            with LabelStore.open(path) as store:
                found[name] = (
                    [array.tolist() for array in store.labels()],
                    [(r.round, r.asked, r.origin) for r in store.rounds()],
                )
        elif path.name == "done.json":
            facts = json.loads(path.read_text())
            facts["facts"] = {name: value for name, value in facts["facts"].items() if not name.endswith("seconds")}
            facts["files"].pop("history.json", None)  # it has seconds in it
            del facts["finished"]
            found[name] = facts
        elif path.suffix == ".json":
            found[name] = without_times(json.loads(path.read_text()))
        elif (
            path.is_file() and path.name not in {"events.jsonl", ".lock"} and not path.name.startswith("labels.sqlite-")
        ):
            found[name] = "a file"
    return found


POINTS = [
    *[("coreset", "before a rename", at) for at in (0.0, 0.1, 0.45, 1.0)],
    *[("coreset", "after a rename", at) for at in (0.05, 0.37, 0.7)],
    *[("coreset", "before an epoch", at) for at in (0.0, 0.5)],
    *[("coreset", "after an epoch", at) for at in (0.2, 1.0)],
    *[("active", "before a rename", at) for at in (0.0, 0.3, 0.65)],
    *[("active", "after a rename", at) for at in (0.15, 0.45, 1.0)],
    *[("active", "before a commit", at) for at in (0.0, 0.15, 0.7)],
    *[("active", "after a commit", at) for at in (0.0, 0.55, 1.0)],
    *[("active", "before an epoch", at) for at in (0.3, 1.0)],
    *[("active", "after an epoch", at) for at in (0.0, 0.6)],
]


@pytest.mark.parametrize(("workflow", "point", "at"), POINTS)
def test_a_killed_run_ends_as_if_it_had_not_been(
    server: Server,
    whole: dict[str, tuple[dict[str, Any], dict[str, int]]],
    tmp_path: Path,
    workflow: str,
    point: str,
    at: float,
) -> None:
    expected, counts = whole[workflow]
    out = tmp_path / "run"
    nth = 1 + round(at * (counts[point] - 1))
    assert server.run(workflow, out, point=point, nth=nth, how=KILLED) == KILLED
    assert server.run(workflow, out) == "finished"
    assert_same(left(out), expected)


@pytest.mark.parametrize("workflow", ["coreset", "active"])
def test_a_run_killed_again_and_again_ends_the_same(
    server: Server, whole: dict[str, tuple[dict[str, Any], dict[str, int]]], tmp_path: Path, workflow: str
) -> None:
    expected, counts = whole[workflow]
    out = tmp_path / "run"
    deaths = 0
    while server.run(workflow, out, point="after a rename", nth=12, how=KILLED) == KILLED:
        deaths += 1
        assert deaths < counts["after a rename"]
    assert deaths >= 4
    assert_same(left(out), expected)


# The proxy's second epoch and the target's; of `active` the last of its second proxy and of its first target.
@pytest.mark.parametrize(("workflow", "nth"), [("coreset", 2), ("coreset", 5), ("active", 6), ("active", 8)])
def test_an_interrupt_at_an_epoch_leaves_what_resumes(
    server: Server, whole: dict[str, tuple[dict[str, Any], dict[str, int]]], tmp_path: Path, workflow: str, nth: int
) -> None:
    out = tmp_path / "run"
    assert server.run(workflow, out, point="after an epoch", nth=nth, how=INTERRUPTED) == INTERRUPTED
    assert Run.open(out).environment["dataset"]["name"] == "tiny"
    assert not list(out.rglob("*.tmp"))
    (checkpoint,) = out.rglob("checkpoint.safetensors")
    momentum = [value for name, value in load_file(checkpoint).items() if name.startswith("momentum.")]
    assert any(value.any() for value in momentum)  # in the middle of a training: to lose it would be seen
    assert server.run(workflow, out) == "finished"
    assert_same(left(out), whole[workflow][0])
    epochs = json.loads(Path(f"{out}.counts").read_text())["after an epoch"]
    assert epochs == whole[workflow][1]["after an epoch"] - (nth - 1)  # only the interrupted epoch was repeated


def assert_same(found: dict[str, Any], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name] == value, name


def test_the_points_are_spread_over_the_whole_run(whole: dict[str, tuple[dict[str, Any], dict[str, int]]]) -> None:
    chosen = {(workflow, point, round(at * (whole[workflow][1][point] - 1))) for workflow, point, at in POINTS}
    assert len(chosen) == len(POINTS) >= 20
    assert whole["active"][1]["after a commit"] >= 10
