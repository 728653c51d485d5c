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

from svp import cli
from svp.errors import ServerError, SettingError
from svp.exchange.label_studio_server import Server
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
    ],
)
def test_a_server_that_refuses_or_is_another_is_said(
    status: int, body: str, words: str, session: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with Fake(status, body) as server:
        assert words in fails(capsys, "push", str(session), server.url)
        assert server.asked[-1][1] == f"Token {TOKEN}"


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
    "url", ["127.0.0.1:8080", "ftp://127.0.0.1", "http://", "http://user:word@127.0.0.1", "file:///etc/passwd"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    with pytest.raises(SettingError, match="is no address of a server"):
        Server(url, TOKEN)
