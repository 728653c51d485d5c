"""Labelling in the browser: one small page, answered into the label store of a session.

    desk      who is asked about what, answers, counts: the only one who tells the store
    cards     what is shown of an example
    behind    other processes, which choose what to ask and train
    supply    has them choose before people run out, and train when there is something to learn
    door      who is let in: the token of the link, and nobody by another site's page
    web       the page and what it asks the server
    server    the process and its port

Nothing here trains, and nothing is written but answers.
"""

from svp.serve.behind import Where
from svp.serve.server import run
from svp.serve.web import Served

__all__ = ["Served", "Where", "run"]
