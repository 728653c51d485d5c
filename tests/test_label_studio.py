"""What `svp session push` and `pull` do where the server is down, or refuses. With a real one: `make label-studio`."""

import http.server
import json
import socket
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from svp import cli
from svp.errors import ServerError, SettingError
from svp.exchange.label_studio_server import Server
from svp.workflows.session import Session
from tests.serving import FAST

TOKEN = "f00dfeedf00dfeedf00d"


class Fake(http.server.ThreadingHTTPServer):
    """Answers everything in one way, and keeps what it was asked."""

    def __init__(self, status: int, body: str, **headers: str) -> None:
        self.asked: list[tuple[str, str | None]] = []
        fake = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                self.rfile.read(int(self.headers.get("Content-Length") or 0))
                fake.asked.append((self.path, self.headers.get("Authorization")))
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body.encode())

            do_GET = do_POST = do_PATCH = answer

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.serve_forever, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def server_close(self) -> None:
        self.shutdown()
        super().server_close()


class Studio(http.server.ThreadingHTTPServer):
    """As much of Label Studio as push and pull need: one project, its tasks, and what annotators did there."""

    def __init__(self) -> None:
        self.project: dict[str, Any] | None = None
        self.tasks: list[dict[str, Any]] = []
        self.storages: list[dict[str, Any]] = []
        self.refuses = ""
        studio = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def answer(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers.get("Content-Length") or 0)) or b"null")
                path, _, query = self.path.partition("?")
                answer = json.dumps(studio.answer(f"{self.command} {path}", query, body)).encode()
                self.send_response(400 if studio.refuses == f"{self.command} {path}" else 200)
                self.end_headers()
                self.wfile.write(answer)

            do_GET = do_POST = answer

            def log_message(self, *_: Any) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_address[1]}"
        threading.Thread(target=self.serve_forever, daemon=True).start()

    def answer(self, what: str, query: str, body: Any) -> Any:
        if what == "POST /api/projects/":
            self.project = {"id": 1, **body}
            return self.project
        if what == "GET /api/projects/":
            return {"results": [self.project] if self.project else [], "next": None}
        if what == self.refuses:
            return {"validation_errors": "it may not be"}
        if what == "POST /api/storages/localfiles":
            self.storages.append(body)
            return body
        if what == "GET /data/local-files/":
            return "a photo"
        if what == "GET /api/storages/localfiles":
            return [storage for storage in self.storages if query == f"project={storage['project']}"]
        if what == "POST /api/projects/1/import":
            self.tasks += [{"id": len(self.tasks) + i, "annotations": [], **task} for i, task in enumerate(body)]
            return {}
        assert what == "GET /api/projects/1/export"
        return [task for task in self.tasks if task["annotations"] or "download_all_tasks=true" in query]

    def annotate(self, task: int, person: int, choice: str, at: str = "2026-01-02T00:00:00Z") -> None:
        result = [{"type": "choices", "value": {"choices": [choice]}}]
        self.tasks[task]["annotations"].append({"completed_by": person, "result": result, "updated_at": at})

    def server_close(self) -> None:
        self.shutdown()
        super().server_close()


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    cli.main(["session", *words, "--quiet", "--json"])
    return json.loads(capsys.readouterr().out)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A session on 9 rows of numbers."""
    root = tmp_path_factory.mktemp("pushed")
    np.savez(root / "x.npz", x=np.random.default_rng(0).normal(size=(9, 3)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", list(sys.path))
        data = ["--data", str(root / "x.npz"), "--classes", "good,bad"]
        cli.main(["session", "new", str(root / "s"), *data, *FAST, "--quiet"])
    return root / "s"


@pytest.fixture
def session(folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Path]:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    capsys.readouterr()
    yield folder
    for path in folder.parent.rglob("*"):
        assert not (path.is_file() and TOKEN.encode() in path.read_bytes()), path


def fails(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    with pytest.raises(SystemExit) as left:
        cli.main(["session", *words, *(["-n", "9"] if words[0] == "push" else [])])
    assert left.value.code == 1
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
    return said.err.strip().splitlines()[-1]


@pytest.mark.filterwarnings("always::svp.errors.SvpWarning")
def test_the_folder_of_the_photos_becomes_a_storage_there_or_it_is_said_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    monkeypatch.chdir(tmp_path)
    for i in range(6):
        Path("pets", "sub").mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), 30 * i, np.uint8)).save(f"pets/sub/{i}.png")
    run(capsys, "new", "s", "--data", "pets", "--classes", "cat,dog", "--image-size", "8", *FAST)
    with Studio() as studio:
        for studio.refuses in ("POST /api/storages/localfiles", "GET /data/local-files/"):
            cli.main(["session", "push", "s", studio.url, "-n", "3"])
            said = capsys.readouterr().err
            assert f"LABEL_STUDIO_LOCAL_FILES_DOCUMENT_ROOT={tmp_path}," in said
            assert "it may not be" in said
            assert len(studio.tasks) == 3  # nothing of the question is lost
        studio.refuses = ""
        for _ in range(2):
            run(capsys, "push", "s", studio.url, "-n", "3")
            assert [storage["path"] for storage in studio.storages] == [str(tmp_path / "pets")]
        assert {task["data"]["image"].rpartition("/")[0] for task in studio.tasks} == {"/data/local-files/?d=pets/sub"}
        assert len(studio.tasks) == 3


def test_a_server_that_is_down_is_said_and_can_be_tried_again(
    session: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        nobody = f"http://127.0.0.1:{free.getsockname()[1]}"
    for command in ("push", "pull"):
        line = fails(capsys, command, str(session), nobody)
        assert f"{nobody} cannot be reached" in line
        assert "repeat the command" in line


@pytest.mark.parametrize(
    ("status", "body", "words"),
    [
        (401, json.dumps({"detail": f"Invalid token {TOKEN}."}), "refuses the token (401)"),
        (403, "", "refuses the token (403)"),
        (500, f"it broke with {TOKEN}", "answered 500 to GET /api/projects/: it broke with ..."),
        (200, "<html>", "is no Label Studio"),
        (200, "{}", "is no Label Studio"),
        (200, "[]", "is no Label Studio"),
        (200, "7", "is no Label Studio"),
        (200, json.dumps({"results": [None, {"id": 1}], "id": 1}), "no project came"),
    ],
)
def test_a_server_that_refuses_or_is_another_is_said(
    status: int, body: str, words: str, session: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fake(status, body) as server:
        assert words in fails(capsys, "push", str(session), server.url)
        assert server.asked[-1][1] == f"Token {TOKEN}"


@pytest.mark.parametrize("said", [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{", b""])
def test_another_protocol_or_half_an_answer_is_said(
    said: bytes, session: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def answer(listening: socket.socket) -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(9999)
            connection.sendall(said)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        thread = threading.Thread(target=answer, args=(listening,))
        thread.start()
        line = fails(capsys, "pull", str(session), f"http://127.0.0.1:{listening.getsockname()[1]}")
        thread.join()
    assert "cannot be reached, or is no Label Studio" in line


@pytest.mark.parametrize("token", ["secret1\nsecret2", "secret1 secret2", "secret1…", "secret1\x7f"])
def test_what_is_no_token_is_refused_and_not_repeated(token: str) -> None:
    with pytest.raises(SettingError, match="LABEL_STUDIO_API_KEY") as refused:
        Server("http://127.0.0.1:1", token)
    assert "secret" not in str(refused.value)


def test_an_annotation_that_was_deleted_there_is_withdrawn_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("LABEL_STUDIO_API_KEY", TOKEN)
    np.savez("x.npz", x=np.random.default_rng(0).normal(size=(9, 3)))
    run(capsys, "new", "s", "--data", "x.npz", "--classes", "good,bad", *FAST)

    def said() -> dict[tuple[int, str], int | None]:
        with Session.open("s") as session:
            return {(a.id, a.who): a.label for a in session.store.said()}

    with Studio() as studio:
        run(capsys, "push", "s", studio.url, "-n", "4")
        ids = [task["data"]["svp_id"] for task in studio.tasks]
        for task, person, choice in ((0, 4, "good"), (0, 5, "bad"), (1, 4, "bad"), (2, 4, "good")):
            studio.annotate(task, person, choice)
        pulled = run(capsys, "pull", "s", studio.url)
        assert (pulled["new"], pulled["given"], pulled["withdrawn"]) == (4, 4, 0)
        with Session.open("s") as session:  # what did not come from there
            session.tell({ids[0]: 0, ids[3]: 0}, who="annotator 6")
            session.tell({ids[2]: 1}, who="annotator 4", replace=True)
        before = said()

        for task in studio.tasks[:3]:
            del task["annotations"][0]
        cli.main(["session", "pull", "s", studio.url, "--quiet"])
        line = capsys.readouterr().out.splitlines()[0]
        assert line.startswith("Stored 0 new of 1 answers; withdrew 2 that were deleted there; ")
        left = {
            key: label for key, label in before.items() if key not in ((ids[0], "annotator 4"), (ids[1], "annotator 4"))
        }
        assert said() == left
        again = run(capsys, "pull", "s", studio.url)
        assert (again["new"], again["withdrawn"], again["open"]) == (0, 0, 1)

        studio.annotate(1, 4, "good")
        assert run(capsys, "pull", "s", studio.url)["new"] == 1
        assert said() == {**left, (ids[1], "annotator 4"): 0}
        studio.tasks.clear()  # who deletes tasks takes back no answer
        assert run(capsys, "pull", "s", studio.url)["withdrawn"] == 0
        assert said() == {**left, (ids[1], "annotator 4"): 0}
    run(capsys, "undo", "s")  # the last pull that changed something
    assert said() == left
    run(capsys, "undo", "s")
    assert said() == before
    run(capsys, "export", "s", "--history", "--out", "h.jsonl")
    run(capsys, "restore", "t", "h.jsonl")


def test_the_token_is_taken_nowhere_else(session: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with Fake(200, "{}") as elsewhere, Fake(302, "", Location=f"{elsewhere.url}/api/projects/") as server:
        assert "302" in fails(capsys, "pull", str(session), server.url)
        assert elsewhere.asked == []


def test_a_personal_token_is_exchanged_and_not_sent_with_the_rest() -> None:
    with Fake(200, json.dumps({"access": "short-lived", "results": [], "next": None})) as server:
        with pytest.raises(ServerError, match="no project of this session"):
            Server(server.url + "/", "a.b.c").pull("mark")
        paths = [(path.partition("?")[0], authority) for path, authority in server.asked]
        assert paths == [("/api/token/refresh", None), ("/api/projects/", "Bearer short-lived")]


def test_without_a_token_it_is_asked_for(
    session: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("LABEL_STUDIO_API_KEY")
    monkeypatch.setattr("sys.stdin.isatty", lambda: False, raising=False)
    assert "set LABEL_STUDIO_API_KEY" in fails(capsys, "push", str(session), "http://127.0.0.1:1")


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8080",
        "ftp://127.0.0.1",
        "http://",
        "http://user:word@127.0.0.1",
        "file:///etc/passwd",
        "http://127.0.0.1:80a",
        "http://127.0.0.1:99999",
        "http://[::1",
        "http://127.0.0.1:80\n",
    ],
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match="is no address of a server"):
        Server(url, TOKEN)
