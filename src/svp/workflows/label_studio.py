"""A session's questions to a Label Studio server, and its answers back."""

from dataclasses import dataclass

from svp.exchange.label_studio_server import Pushed, Server
from svp.labels import Answer, Batch
from svp.workflows.files import answers_of, items_of
from svp.workflows.session import Session


def push(session: Session, batch: Batch, server: Server) -> Pushed:
    """Have the server ask what is asked: a project of this session, a task an example, in order, with the proxy's guesses.

    What is there already stays as it is, so that a second push changes nothing. Raises ServerError.
    """
    return server.push(session.folder.resolve().name, _mark(session), items_of(session, batch), session.classes)


@dataclass(frozen=True)
class Stored:
    """What a pull came to: answers that are new, of how many; and how many were withdrawn."""

    new: int
    given: int
    withdrawn: int


def pull(session: Session, server: Server) -> Stored:
    """Store what its annotators say now, all of it or none.

    Somebody who has changed an annotation since the last pull is taken at the later word; one that was deleted, while its task is
    still there, is withdrawn. The history keeps both. Raises ServerError, and what `Session.tell` does.
    """
    earlier = session.store.pulled()  # before the server is asked: what another pull stores meanwhile was not deleted
    found = server.pull(_mark(session))
    answers = answers_of(session, found.told, "annotator")
    deleted = earlier - {(answer.id, answer.who) for answer in answers}
    withdrawn = [Answer(id_, None, who, kind="withdrawn") for id_, who in sorted(deleted) if id_ in found.ids]
    new, n_withdrawn = session.store.pull([*answers, *withdrawn])
    return Stored(new, len(answers), n_withdrawn)


def _mark(session: Session) -> str:
    """What no other session has: the seal of the first event of its store, and of a copy of it the same."""
    return f"svp session {next(session.store.events())['seal'][:16]}"
