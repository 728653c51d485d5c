"""A labelling server as people start it, in a process of its own, and somebody who speaks to it without a browser."""

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SVP = [sys.executable, "-c", "from svp.cli import main; main()"]
FAST = ["--proxy.model", "logistic", "--target.model", "logistic"]


class Server:
    """`svp session serve` with these arguments; `link` opens its page."""

    def __init__(self, folder: str | Path, *arguments: str, cwd: Path | None = None) -> None:
        self.process = subprocess.Popen(
            [*SVP, "session", "serve", str(folder), *arguments, "--no-browser", "--json", "--quiet"],
            cwd=cwd,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise AssertionError(self.process.communicate()[1])
        self.facts: dict[str, Any] = json.loads(line)
        self.link: str = self.facts["link"]

    @property
    def origin(self) -> str:
        return self.link.partition("/?")[0]

    def kill(self) -> None:
        """As the power does: nothing can be done about it. What runs behind it ends by itself."""
        self.process.kill()
        self.process.communicate()

    def stop(self) -> str:
        """As Ctrl-C does; returns what it said on the way."""
        self.process.send_signal(signal.SIGINT)
        return "".join(self.process.communicate(timeout=30))


@contextmanager
def served(folder: Path, *arguments: str) -> Iterator[Server]:
    server = Server(folder, *arguments)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            os.kill(server.process.pid, signal.SIGINT)
        server.process.communicate(timeout=30)


class Caller:
    """Sends what it is told to, in whatever way: a browser would refuse half of it."""

    def __init__(self, server: Server) -> None:
        self.address = urlsplit(server.link)
        self.host = self.address.netloc
        self.cookie = ""
        self.form = ""

    def enter(self) -> "Caller":
        """By the link, as a browser does: take the cookie, open the page, find its form token."""
        status, headers, _ = self.get(f"/?{self.address.query}")
        assert status == 200
        self.cookie = headers["Set-Cookie"].partition(";")[0]
        status, _, page = self.get("/")
        assert status == 200
        self.form = page.decode().partition('name="svp-form" content="')[2].partition('"')[0]
        return self

    def get(self, path: str, **headers: str) -> tuple[int, Any, bytes]:
        return self.send("GET", path, None, headers)

    def say(self, path: str, said: Any, **headers: str) -> tuple[int, Any]:
        """POST as the page does, but for headers given; "" leaves one out. Returns the status, and what it was answered."""
        usual = {"Content-Type": "application/json", "Origin": f"http://{self.host}", "X-SVP-Form": self.form}
        body = said if isinstance(said, bytes) else json.dumps(said).encode()
        status, _, answer = self.send("POST", path, body, {**usual, **headers})
        return status, json.loads(answer) if answer[:1] == b"{" else answer.decode()

    def send(self, method: str, path: str, body: bytes | None, headers: dict[str, str]) -> tuple[int, Any, bytes]:
        connection = http.client.HTTPConnection(self.address.hostname or "", self.address.port, timeout=30)
        given = {"Host": self.host, "Cookie": self.cookie, **{k.replace("_", "-"): v for k, v in headers.items()}}
        try:
            connection.putrequest(method, path, skip_host=True, skip_accept_encoding=True)
            for name, value in given.items():
                if value:
                    connection.putheader(name, value)
            if body is not None:
                connection.putheader("Content-Length", str(len(body)))
            connection.endheaders(body)
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()
