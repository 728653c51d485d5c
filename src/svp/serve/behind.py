"""What runs behind the page, each in a process of its own (`svp.engine`), so that the page stays fast while models train.

They share the session's folder with the server and with whoever works in it by commands: what is chosen is stored as a question,
what is trained as stages. Nothing is lost with a process.
"""

import os
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from svp.errors import BudgetError, MissingExtra
from svp.serve.cards import Card, cards_of
from svp.workflows.begin import patiently
from svp.workflows.hindsight import right_before
from svp.workflows.judging import advice
from svp.workflows.session import Session

_MOST = 200  # cards at a time: a question asked by a command may be of any size


@dataclass(frozen=True)
class Where:
    """A session's folder, and whether to go on in it although code has changed."""

    folder: Path
    accept_code_change: bool = False


@dataclass(frozen=True)
class Wanted:
    """`n` examples to show and the `lacking` ones, beside those that are shown already; and with `hindsight` what was before."""

    n: int
    known: frozenset[int]
    lacking: frozenset[int] = frozenset()
    hindsight: bool = False


@dataclass(frozen=True)
class Found:
    """Cards in order of asking; whether nothing is left that was not asked; and was the proxy right about what is answered?"""

    cards: tuple[Card, ...]
    exhausted: bool
    right: dict[int, bool]


@dataclass(frozen=True)
class Learned:
    """Why labelling may stop now, in sentences (`judging.advice`)."""

    may_stop: tuple[str, ...]


@dataclass(frozen=True)
class Result:
    """What `finish` left."""

    folder: str
    files: tuple[str, ...]
    n_labelled: int
    n_predicted: int


def chooser(where: Where) -> Callable[[Wanted], Found]:
    """Shows what waits for an answer, and asks for more where that is less than is wanted. It trains nothing."""
    _end_with_the_server()
    session = Session.open(where.folder, accept_code_change=where.accept_code_change)

    def find(wanted: Wanted) -> Found:
        while True:
            waiting = [each for each in session.store.waiting() if each.id not in wanted.known]
            waiting.sort(key=lambda each: each.id not in wanted.lacking)  # stable: the others in order of asking
            cards = cards_of(session, waiting[: max(wanted.n, _MOST)])
            if len(cards) >= wanted.n or not _asked(session, wanted.n - len(cards)):
                exhausted = not len(session.unasked())
                return Found(
                    tuple(cards), exhausted, right_before(session.folder, session.store) if wanted.hindsight else {}
                )

    return find


def _asked(session: Session, n: int) -> bool:
    """Ask for `n` more, if that can be done without a training. False where nothing is left, or a training has to come first."""
    if not session.store.rounds() and not session.store.has_unread():
        session.ask(min(n, len(patiently(lambda: session.dataset))))
        return True
    at_once = session.ranks or not session.store.rounds()  # of photos that were only listed the first are drawn
    return at_once and session.ask_more(n) is not None


def learner(where: Where) -> Callable[[tuple[str, int]], Result | Learned]:
    """Reads the data, then trains: ("train", _) the proxy, ("ask", n) the proxy to choose a set with it, ("finish", _) the
    target; ("read", _) nothing."""
    _end_with_the_server()
    session = Session.open(where.folder, accept_code_change=where.accept_code_change)
    patiently(lambda: session.dataset)
    if hasattr(os, "nice"):
        os.nice(5)  # people are waited for, not models

    return lambda work: _WORK[work[0]](session, work[1])


def _known(session: Session, _: int) -> Learned:
    return Learned(tuple(advice(session)["may_stop"]))


def _train(session: Session, n: int) -> Learned:
    session.train()
    return _known(session, n)


def _ask(session: Session, n: int) -> Learned:
    left = len(session.unasked())
    with suppress(BudgetError):  # nothing is left to ask
        session.ask(max(1, min(n, left)))
    return _known(session, n)


def _finish(session: Session, _: int) -> Result:
    done = session.finish()
    files = [done.labelled, done.predicted]
    with suppress(MissingExtra):
        files.append(session.report())
    places = tuple(str(file.resolve()) for file in files)
    return Result(str(session.folder.resolve()), places, done.n_labelled, done.n_predicted)


_WORK: dict[str, Callable[[Session, int], Result | Learned]] = {
    "read": _known,
    "train": _train,
    "ask": _ask,
    "finish": _finish,
}


def _end_with_the_server() -> None:
    """Killed, it cannot say so, and a training would hold the folder until it is finished."""
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()
