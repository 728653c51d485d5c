"""What all commands of `svp session` share: their flags, the session that they open, and how they say what came of it."""

import getpass
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter

from svp.cli.flags import Common, flags_of
from svp.cli.progress import progress
from svp.config import SessionConfig
from svp.errors import SettingError
from svp.workflows.session import Session

# What means nothing here, and what `--data` says.
SessionFlags = flags_of(
    SessionConfig, without=("dataset", "data", "seeds", "test_share", "image_column", "label_column")
)
Flag = Annotated[bool, Parameter(negative=())]


@Parameter(name="*")
@dataclass(frozen=True)
class Said:
    """Flags of all these commands.

    Parameters
    ----------
    json
        print what came of it as JSON
    quiet
        show no progress
    """

    json: Flag = False
    quiet: Flag = False


@Parameter(name="*")
@dataclass(frozen=True)
class Trains(Said):
    """Flags of those that may train.

    Parameters
    ----------
    accept_code_change
        go on although the code of svp, or the machine, has changed since; both are recorded
    """

    accept_code_change: Flag = False


@contextmanager
def opened(folder: Path, said: Said) -> Iterator[Session]:
    """The session of people in a folder. Raises SettingError for another."""
    accept = isinstance(said, Trains) and said.accept_code_change
    with (
        progress(Common(quiet=said.quiet)) as show,
        Session.open(folder, accept_code_change=accept, show=show) as session,
    ):
        if not session.ways.grows:
            raise SettingError(
                f"{folder} is a session of a simulation or of your own code; these commands are for people's"
            )
        yield session


def say(said: Said, facts: dict[str, Any], *lines: str) -> None:
    """Print facts as JSON where that was asked for, else the lines."""
    print(json.dumps(facts, ensure_ascii=False) if said.json else "\n".join(lines))


def user() -> str:
    """What the system calls whoever is at this machine; "" where it has no name, as for a bare number in a container."""
    try:
        return getpass.getuser()
    except (KeyError, ImportError, OSError):
        return ""


def held_out(n: int) -> list[str]:
    """That the data hold more than can be asked about."""
    line = f"Held out: {n:,} more are the test part of these data, which are labelled; nobody is asked about them"
    return [line] if n else []
