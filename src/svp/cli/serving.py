"""`svp session serve`: the labelling page."""

import json
import sys
import threading
import webbrowser
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter
from pydantic import BaseModel

from svp.cli.flags import Common, configure
from svp.cli.opened import Flag, SessionFlags, Trains, held_out, opened, user
from svp.cli.progress import progress
from svp.config import SessionConfig
from svp.errors import SettingError, require
from svp.runs import STORE
from svp.workflows.begin import patiently
from svp.workflows.session import Session


def serve(
    folder: Path,
    /,
    *,
    data: str | None = None,
    settings: Annotated[SessionFlags | None, Parameter(name="*")] = None,  # type: ignore[valid-type]
    recipe: str | None = None,
    n: Annotated[int, Parameter(name=("-n", "--n"))] = 20,
    host: str = "127.0.0.1",
    port: int | None = None,
    no_browser: Flag = False,
    said: Trains = Trains(),
) -> None:
    """Call `svp.serve.run`. It goes on until Ctrl-C; every answer is stored when the page says so.

    Parameters
    ----------
    folder
        of the session; where there is none yet, --data and --classes begin one, as `svp session new` does; photos are read while
        the first are labelled
    data
        what to label: a folder of photos, a table of texts, a .npz file, or a name from `svp list datasets`
    recipe
        a TOML file with settings; flags override it
    n
        how many are asked first; the model learns again after as many answers
    host
        the address to listen at; by default this machine alone can open the page. Others need the link with its token, and what
        they do is not encrypted on the way: 0.0.0.0 is for a network that you trust
    port
        default: 8765, or any that is free
    no_browser
        print the link, open nothing
    """
    for module in ("starlette", "uvicorn"):
        require(module, "serve")
    from svp.serve import Served, Where, run

    if n < 1:
        raise SettingError(f"-n is {n}; give 1 or more")
    if port is not None and not 0 <= port < 2**16:
        raise SettingError(f"--port is {port}; give 0 (any that is free) to 65535")
    _begin(folder, data, settings, recipe, said)
    with opened(folder, said) as session:
        served = Served(
            Where(folder, said.accept_code_change),
            session.store.path,
            session.ways.rule,
            folder.resolve().name,
            user() or "me",
            Path(session.config.dataset).expanduser(),
            n,
            session.n_examples,
            session.ranks,
            session.of_photos,
        )
        classes, n_held_out = session.classes, session.n_held_out

    def ready(link: str, once: str) -> None:
        facts = {"folder": str(folder), "link": link, "n": served.n_all, "classes": list(classes)}
        lines = [
            f"{folder}: {served.n_all:,} examples, to be told apart as {', '.join(classes)}",
            *held_out(n_held_out),
            f"Label them here: {link}",
            "Every answer is stored at once. Stop with Ctrl-C.",
        ]
        print(json.dumps(facts, ensure_ascii=False) if said.json else "\n".join(lines))
        sys.stdout.flush()
        if not no_browser:
            threading.Thread(target=webbrowser.open, args=(once,), daemon=True).start()

    run(served, host, port, ready)


def _begin(folder: Path, data: str | None, settings: BaseModel | None, recipe: str | None, said: Trains) -> None:
    """Make the session, where there is none; where there is one, it must be of the same data and settings, if these are given."""
    if data is not None or recipe is not None:
        config = configure(SessionConfig, data, settings, Common(recipe=recipe))
        with progress(Common(quiet=said.quiet)) as show:
            # A server that was killed lets its folder go a moment later.
            patiently(
                lambda: Session.begin(folder, config, accept_code_change=said.accept_code_change, show=show)
            ).close()
    elif settings is not None and settings.model_fields_set:
        raise SettingError("settings are for a new session: name its data too (--data)")
    elif not (folder / STORE).exists():
        raise SettingError(
            f"{folder} holds no session; to begin one, say what to label and as what: "
            f"svp session serve {folder} --data photos --classes cat,dog"
        )
