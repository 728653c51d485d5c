"""A session's questions to a Label Studio server, and its answers back."""

from svp.exchange.label_studio_server import Pushed, Server
from svp.labels import Batch
from svp.workflows.files import answers_of, items_of
from svp.workflows.session import Session


def push(session: Session, batch: Batch, server: Server) -> Pushed:
    """Have the server ask what is asked: a project of this session, a task an example, in order, with the proxy's guesses.

    What is there already stays as it is, so that a second push changes nothing. Raises ServerError.
    """
    return server.push(session.folder.resolve().name, _mark(session), items_of(session, batch), session.classes)


def pull(session: Session, server: Server) -> tuple[int, int]:
    """Store what its annotators say now, all of it or none: how many answers are new, and how many there are.

    Somebody who has changed an annotation since the last pull is taken at the later word; the earlier stays in the history.
    Raises ServerError, and what `Session.tell` does.
    """
    answers = answers_of(session, server.pull(_mark(session)), "annotator")
    return session.tell(answers, replace=True), len(answers)


def _mark(session: Session) -> str:
    """What no other session has: the seal of the first event of its store, and of a copy of it the same."""
    return f"svp session {next(session.store.events())['seal'][:16]}"
