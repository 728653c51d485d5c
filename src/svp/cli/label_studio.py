"""`svp session push` and `pull`: Label Studio."""

import getpass
import os
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from svp.cli.opened import Said, Trains, opened, say
from svp.errors import SettingError
from svp.exchange.label_studio_server import Server
from svp.workflows import label_studio

TOKEN = "LABEL_STUDIO_API_KEY"


def push(
    folder: Path,
    url: str,
    /,
    *,
    n: Annotated[str, Parameter(name=("-n", "--n"))] = "100",
    said: Trains = Trains(),
) -> None:
    """Ask, as `svp session ask` does, and import it into a project of the session's own. Given again, it imports what is new.

    The token of the server is taken from LABEL_STUDIO_API_KEY, or asked for; it is kept nowhere.

    Parameters
    ----------
    folder
        of the session
    url
        of the server, such as http://127.0.0.1:8080
    n
        how many: a number or a share (5%); of a question that is open, what is left of it
    """
    server = Server(url, _token())
    with opened(folder, said) as session:
        batch = session.ask(int(n) if n.isdecimal() else n)
        done = label_studio.push(session, batch, server)
    say(
        said,
        {"project": done.project, "url": done.url, "new": done.new, "known": done.known},
        f"{done.new:,} tasks are new, {done.known:,} were there: {done.url}",
        f"When they are annotated: svp session pull {folder} {url}",
    )


def pull(folder: Path, url: str, /, *, said: Said = Said()) -> None:
    """Store the annotations of the session's project as answers of their annotators. Given again, it takes changes, too.

    The token of the server is taken from LABEL_STUDIO_API_KEY, or asked for; it is kept nowhere.

    Parameters
    ----------
    folder
        of the session
    url
        of the server
    """
    server = Server(url, _token())
    with opened(folder, said) as session:
        stored = label_studio.pull(session, server)
        status = session.status()
    deleted = f"withdrew {stored.withdrawn:,} that were deleted there; " if stored.withdrawn else ""
    say(
        said,
        {**asdict(stored), "labelled": status["labelled"], "open": status["open"]},
        f"Stored {stored.new:,} new of {stored.given:,} answers; {deleted}{status['labelled']:,} examples have a label, "
        f"{status['open']:,} are still asked",
    )


def _token() -> str:
    if token := os.environ.get(TOKEN):
        return token
    if not sys.stdin.isatty():
        raise SettingError(f"set {TOKEN} to the token of the server (Account & Settings there)")
    return getpass.getpass("Token of the server: ")
