"""Keeps the desk supplied: more is chosen before people run out, and the proxy is trained when there is something to learn."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from svp.engine import Worker
from svp.errors import FolderInUse, SvpError
from svp.serve.behind import Found, Learned, Result, Wanted, Where
from svp.serve.desk import Desk

T = TypeVar("T")
FEW = 5  # free examples: when there are fewer, more are chosen
REST_SECONDS = 15.0  # before what has failed is tried again


class Supply:
    """Two processes behind the page: one chooses, one trains. `look` starts what is due, and returns at once.

    at_desk  runs a function of the desk in the desk's own thread
    n        examples of the first question; the proxy is trained again after as many answers
    scores   the method ranks: more can be chosen while the proxy is trained. Else each choice needs a training of its own
    unread   the data are to be read as soon as the first examples are shown; else when there is something to learn
    """

    def __init__(
        self,
        at_desk: Callable[[Callable[[Desk], Any]], Awaitable[Any]],
        where: Where,
        n: int,
        *,
        scores: bool,
        unread: bool,
    ) -> None:
        self.result: Result | None = None
        self._at_desk, self._n, self._scores, self._unread = at_desk, n, scores, unread
        self._chooser = Helper("svp.serve.behind:chooser", where)
        self._learner = Helper("svp.serve.behind:learner", where)
        self._learned = -1  # answers at this desk when the last training began; -1: none has
        self._learning = ""  # which work the learner has
        self._n_labels = 0  # that it learns from now
        self._learned_from = 0  # labels of the last training that was finished here
        self._may_stop: tuple[str, ...] = ()
        self._since = 0.0
        self._begun = False  # the first examples were chosen
        self._finish_wanted = False  # until it is done, or has failed for another reason than that the folder is in use

    def state(self) -> dict[str, Any]:
        """What is going on, in plain values."""
        return {
            "choosing": self._chooser.busy,
            "learning": self._learning,
            "learns_from": self._n_labels,
            "learned_from": self._learned_from,
            "seconds": round(time.monotonic() - self._since) if self._learning else 0,
            "may_stop": self._may_stop,
            "finish_wanted": self._finish_wanted,
            "trouble": self._learner.trouble or self._chooser.trouble,
            "result": None if self.result is None else vars(self.result),
        }

    async def look(self) -> None:
        """Start whatever is due."""
        free, told, labelled, open_, lacking, exhausted = await self._at_desk(
            lambda desk: (desk.n_free, desk.told, desk.labelled, desk.open, desk.lacking, desk.exhausted)
        )
        if not self._begun:
            self._chooser.begin(self._choose(Wanted(self._n, open_, hindsight=True)))
        elif lacking:
            self._chooser.begin(self._choose(Wanted(0, open_, lacking)))
        elif not exhausted and free < max(FEW, self._n // 4):
            # Half as many as before: what is asked while the proxy is trained does not know of it yet.
            self._chooser.begin(self._choose(Wanted(max(FEW, self._n // 2), open_)))
        n_labels, two_classes = sum(labelled), sum(map(bool, labelled)) > 1
        if self._finish_wanted:
            self._learner.begin(self._finish(n_labels))
            return
        if self._begun and self._unread:
            self._learner.begin(self._learn("read", n_labels, None))
            return
        enough = n_labels >= self._n if self._learned < 0 else told - self._learned >= self._n
        if self._begun and self._scores and two_classes and enough:
            self._learner.begin(self._learn("train", n_labels, told))
        elif self._begun and not self._scores and not open_ and not lacking and not exhausted:
            self._learner.begin(self._learn("ask", n_labels, told))

    def finish(self, n_labels: int) -> None:
        """Have the target trained on what is labelled, as soon as the learner is free."""
        if not self._finish_wanted:
            self._finish_wanted = True
            self._learner.forgive()
            self._learner.begin(self._finish(n_labels), wait=True)

    async def end(self) -> None:
        """No process is left. What was being trained goes on with the next start."""
        await asyncio.gather(self._chooser.end(), self._learner.end())

    async def _choose(self, wanted: Wanted) -> None:
        news = await self._at_desk(lambda desk: desk.news)
        found: Found = await self._chooser.ask(wanted)

        def put(desk: Desk) -> None:
            desk.put(found.cards, wanted.lacking)
            desk.exhausted = found.exhausted and desk.news == news  # else: look again
            if wanted.hindsight:
                desk.right = {**found.right, **desk.right}

        await self._at_desk(put)
        self._begun = True

    async def _finish(self, n_labels: int) -> None:
        try:
            await self._learn("finish", n_labels, None)
        except FolderInUse:  # `look` tries it again
            raise
        except SvpError:
            self._finish_wanted = False
            raise
        self._finish_wanted = False

    async def _learn(self, what: str, n_labels: int, told: int | None) -> None:
        self._learning, self._n_labels, self._since = what, n_labels, time.monotonic()
        try:
            result: Result | Learned = await self._learner.ask((what, self._n))
        finally:
            self._learning = ""
        if told is not None:
            self._learned, self._learned_from = told, n_labels
        self._unread = False  # whatever it did, it has read the data first
        if isinstance(result, Learned):
            self._may_stop = result.may_stop
        else:
            self.result = result


class Helper:
    """A process that does one thing after the other, started when there is something to do, and anew where it has died."""

    def __init__(self, start: str, where: Where) -> None:
        self.trouble = ""  # why the last thing failed; "" where it did not
        self.rest_until = 0.0
        self._start, self._where = start, where
        self._worker: Worker | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._ended = False

    @property
    def busy(self) -> bool:
        return any(not task.done() for task in self._tasks)

    def forgive(self) -> None:
        """Try at once what has failed."""
        self.trouble, self.rest_until = "", 0.0

    def begin(self, work: Any, *, wait: bool = False) -> None:
        """Do this now; not at all where something else is being done, unless it may `wait`, or where that failed just now."""
        if self._ended or (self.busy and not wait) or time.monotonic() < self.rest_until:
            work.close()
            return
        before = [task for task in self._tasks if not task.done()]
        self._tasks = [*before, asyncio.create_task(self._do(work, before))]

    async def _do(self, work: Awaitable[None], before: list["asyncio.Task[None]"]) -> None:
        if before:
            await asyncio.wait(before)
        try:
            await work
            self.trouble = ""
        except SvpError as error:
            if not self._ended:
                self.trouble, self.rest_until = str(error), time.monotonic() + REST_SECONDS

    async def ask(self, item: Any) -> Any:
        """What the process makes of it. Raises its named error."""
        if self._worker is None:
            self._worker = Worker(self._start, self._where)
        worker = self._worker
        try:
            return await asyncio.to_thread(worker.ask, item)
        except SvpError:  # after an error as it was opened it would take the next item for another opening
            self._worker = None
            _close(worker)
            raise

    async def end(self) -> None:
        self._ended = True
        worker = self._worker
        if worker is not None:
            worker.kill()
        if self._tasks:
            await asyncio.wait(self._tasks)
        if worker is not None:
            _close(worker)


def _close(worker: Worker) -> None:
    worker.kill()
    worker.wait()
    worker.close()
