"""A session and a real Label Studio server: run by `make label-studio`, since the server is 800 MB to install.

The server is SVP_LABEL_STUDIO (default: build/label-studio/bin/label-studio), with SQLite, at 127.0.0.1 alone.
"""

import json
import os
import secrets
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from svp import cli
from svp.workflows.session import Session
from tests.serving import FAST

ROOT = Path(__file__).parents[1]
COMMAND = os.environ.get("SVP_LABEL_STUDIO", str(ROOT / "build" / "label-studio" / "bin" / "label-studio"))


class Studio:
    """A running server, its token, and what annotators do there. root: below it lie photos that it may give out."""

    def __init__(self, folder: Path, root: Path) -> None:
        self.root = root
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.url, self.token = f"http://127.0.0.1:{port}", secrets.token_hex(20)
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"LABEL_STUDIO_ENABLE_LEGACY_API_TOKEN": "true", "collect_analytics": "false"}
        environment |= {"LABEL_STUDIO_LOCAL_FILES_SERVING_ENABLED": "true"}
        environment |= {"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT": str(root)}
        words = [
            "start",
            "--no-browser",
            "--internal-host",
            "127.0.0.1",
            "--port",
            str(port),
            "--data-dir",
            str(folder),
        ]
        words += ["--username", "ann@example.org", "--password", secrets.token_hex(8), "--user-token", self.token]
        with (folder / "log").open("w") as log:
            self.process = subprocess.Popen([COMMAND, *words], env=environment, cwd=folder, stdout=log, stderr=log)
        for _ in range(1100):
            with suppress(OSError):
                urllib.request.urlopen(f"{self.url}/health", timeout=5).close()
                return
            assert self.process.poll() is None, (folder / "log").read_text()[-2000:]
            time.sleep(0.5)
        raise AssertionError("the server does not come up")

    def call(self, method: str, path: str, body: Any = None) -> Any:
        request = urllib.request.Request(
            self.url + path,
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"Token {self.token}", "Content-Type": "application/json"},
            method=method,
        )
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                return json.loads(answer.read() or b"null")
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:500]) from None

    def shown(self, task: Any) -> bytes:
        """The photo of a task, as an annotator's browser fetches it."""
        request = urllib.request.Request(
            self.url + task["data"]["image"], headers={"Authorization": f"Token {self.token}"}
        )
        with urllib.request.urlopen(request, timeout=60) as answer:
            return bytes(answer.read())

    def tasks(self, project: int) -> list[Any]:
        """In the order in which they are shown."""
        found: list[Any] = self.call("GET", f"/api/projects/{project}/export?exportType=JSON&download_all_tasks=true")
        return sorted(found, key=lambda task: task["id"])

    def annotate(self, task: int, choice: str | None) -> int:
        """None: skipped."""
        result = [] if choice is None else [_result(choice)]
        made = self.call("POST", f"/api/tasks/{task}/annotations/", {"result": result, "was_cancelled": choice is None})
        return int(made["id"])

    def change(self, annotation: int, choice: str) -> None:
        self.call("PATCH", f"/api/annotations/{annotation}/", {"result": [_result(choice)]})

    def delete(self, annotation: int) -> None:
        self.call("DELETE", f"/api/annotations/{annotation}/")


def _result(choice: str) -> dict[str, Any]:
    return {"from_name": "label", "to_name": "image", "type": "choices", "value": {"choices": [choice]}}


@pytest.fixture(scope="module")
def studio(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Studio]:
    running = Studio(tmp_path_factory.mktemp("studio"), tmp_path_factory.mktemp("pools"))
    yield running
    running.process.terminate()
    running.process.wait(60)


@pytest.fixture
def session(tmp_path: Path, studio: Studio, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    """24 photos of two shades, the first 12 of them labelled, so that there are guesses."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.token)
    rng = np.random.default_rng(0)
    photos = studio.root / tmp_path.name
    photos.mkdir()
    for i in range(24):
        pixels = (rng.integers(0, 90, (8, 8, 3)) + 150 * (i % 2)).astype(np.uint8)
        Image.fromarray(pixels).save(photos / f"{i:02d}.png")
    words = ["--data", str(photos), "--classes", "dark,light", "--image-size", "8", *FAST]
    cli.main(["session", "new", "s", *words, "--quiet"])
    with Session.open("s") as opened:
        first = opened.ask(12)
        opened.tell({int(id_): int(id_ % 2) for id_ in first.ids}, who="bob")
    capsys.readouterr()
    return "s"


def run(capsys: pytest.CaptureFixture[str], studio: Studio, *words: str) -> Any:
    cli.main(["session", *words, "--quiet", "--json"])
    said = capsys.readouterr()
    assert studio.token not in said.out + said.err
    return json.loads(said.out)


def test_a_session_goes_there_and_its_answers_come_back(
    session: str, studio: Studio, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    pushed = run(capsys, studio, "push", session, studio.url, "-n", "6")
    assert (pushed["new"], pushed["known"]) == (6, 0)
    project = studio.call("GET", f"/api/projects/{pushed['project']}/")
    assert "Sequential" in project["sampling"]
    assert [f'"{name}"' in project["label_config"] for name in ("dark", "light", "unsure", "none")] == [True] * 4
    tasks = studio.tasks(pushed["project"])
    with Session.open(session) as opened:
        question = opened.store.open_question()
        assert question is not None
        assert question.scores is not None
        guesses = opened.guesses(question.ids)
    assert [task["data"]["svp_id"] for task in tasks] == question.ids.tolist()
    for task in tasks:
        assert studio.shown(task) == (studio.root / tmp_path.name / task["data"]["svp_key"]).read_bytes()
    assert [task["data"]["svp_score"] for task in tasks] == pytest.approx(question.scores.tolist())
    for task in tasks:
        (made,) = studio.call("GET", f"/api/predictions/?task={task['id']}")
        number, probability = guesses[task["data"]["svp_id"]]
        assert made["result"][0]["value"]["choices"] == [("dark", "light")[number]]
        assert made["score"] == pytest.approx(probability, abs=1e-5)

    again = run(capsys, studio, "push", session, studio.url, "-n", "6")
    assert (again["project"], again["new"], again["known"]) == (pushed["project"], 0, 6)
    assert len(studio.tasks(pushed["project"])) == 6
    assert run(capsys, studio, "pull", session, studio.url)["new"] == 0

    made = [
        studio.annotate(task["id"], choice)
        for task, choice in zip(tasks, ("dark", "light", None, "unsure"), strict=False)
    ]
    assert run(capsys, studio, "pull", session, studio.url)["new"] == 4
    assert run(capsys, studio, "pull", session, studio.url)["new"] == 0
    studio.change(made[1], "dark")
    studio.annotate(tasks[0]["id"], "light")  # a second annotation of the same person: the later word
    assert run(capsys, studio, "pull", session, studio.url)["new"] == 2
    assert run(capsys, studio, "pull", session, studio.url)["new"] == 0
    with Session.open(session) as opened:
        said = {a.id: (a.kind, a.label) for a in opened.store.said() if a.who != "bob"}
    first, second, third, fourth = question.ids[:4].tolist()
    assert said == {first: ("label", 1), second: ("label", 0), third: ("skip", None), fourth: ("unsure", None)}

    studio.delete(made[3])
    deleted = run(capsys, studio, "pull", session, studio.url)
    assert (deleted["new"], deleted["given"], deleted["withdrawn"]) == (0, 3, 1)
    studio.annotate(tasks[3]["id"], "unsure")
    assert run(capsys, studio, "pull", session, studio.url)["new"] == 1

    rest = run(capsys, studio, "push", session, studio.url, "-n", "6")
    assert (rest["project"], rest["new"], rest["known"]) == (pushed["project"], 0, 2)
    for path in tmp_path.rglob("*"):
        assert not (path.is_file() and studio.token.encode() in path.read_bytes())


def test_a_wrong_token_is_said(
    session: str, studio: Studio, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", "0" * 40)
    with pytest.raises(SystemExit):
        cli.main(["session", "push", session, studio.url, "-n", "6", "--quiet"])
    assert "refuses the token" in capsys.readouterr().err
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", studio.token)
    assert run(capsys, studio, "push", session, studio.url, "-n", "6")["new"] == 6


def test_several_annotators_are_several_people(
    session: str, studio: Studio, capsys: pytest.CaptureFixture[str]
) -> None:
    pushed = run(capsys, studio, "push", session, studio.url, "-n", "6")
    task = studio.tasks(pushed["project"])[0]
    studio.annotate(task["id"], "dark")
    other = studio.annotate(task["id"], "light")
    name = f"cyd-{secrets.token_hex(4)}"
    person = {"email": f"{name}@example.org", "username": name, "password": secrets.token_hex(8)}
    invited = studio.call("POST", "/api/users/", person)
    studio.call("PATCH", f"/api/annotations/{other}/", {"completed_by": invited["id"], "result": [_result("light")]})
    assert run(capsys, studio, "pull", session, studio.url)["new"] == 2
    with Session.open(session) as opened:
        votes = {a.who: a.label for a in opened.store.said() if a.id == task["data"]["svp_id"]}
        assert sorted(votes.values()) == [0, 1]
        assert opened.status()["ties"] == 1
