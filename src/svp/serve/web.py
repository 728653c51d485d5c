"""The page, and what it asks the server: a handful of routes over the desk and the supply."""

import asyncio
import hashlib
import secrets
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import jinja2
from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, field_validator
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp

from svp.errors import LabelError, SvpError
from svp.labels import LabelStore, Rule
from svp.serve.behind import Where
from svp.serve.cards import Card, as_webp, media_type, photo
from svp.serve.desk import Desk
from svp.serve.door import Door, Keys
from svp.serve.supply import Supply

T = TypeVar("T")
MOST_BYTES = 4096  # of what a page may say at once
STATIC = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
OTHER_KEYS = {"skip": "s", "unsure": "u", "none": "n", "undo": "z"}
_KEEP = {"Cache-Control": "private, max-age=3600"}
_FORGET = {"Cache-Control": "no-store"}


@dataclass(frozen=True)
class Served:
    """What the page says of the session, and how it goes about it.

    name     of the session
    person   who is asked for a name first: the one whose machine this is
    pool     where photos lie, if they do
    n        as in Supply
    n_all    examples in the pool
    scores, unread   as in Supply
    """

    where: Where
    store: Path
    rule: Rule
    name: str
    person: str
    pool: Path
    n: int
    n_all: int
    scores: bool
    unread: bool


class Person(BaseModel):
    """Who says something."""

    model_config = ConfigDict(extra="forbid", strict=True)
    who: Annotated[str, StringConstraints(min_length=1, max_length=60)]

    @field_validator("who")
    @classmethod
    def _one_line(cls, who: str) -> str:
        if not who.isprintable() or who != " ".join(who.split()):
            raise ValueError("a name is one line, without spaces around it")
        return who


class Said(Person):
    """An answer."""

    id: Annotated[int, Field(ge=0, lt=2**63)]
    said: Annotated[int, Field(ge=0)] | Literal["skip", "unsure", "none"]


def keys_of(classes: tuple[str, ...]) -> list[str]:
    """The key of each class: 1 to 9, then 0; "" for those behind. Classes that are a digit each are their own keys."""
    if all(len(name) == 1 and name in "0123456789" for name in classes):
        return list(classes)
    return [*"1234567890", *[""] * len(classes)][: len(classes)]


def app_of(served: Served, keys: Keys) -> ASGIApp:
    """The page as an ASGI application; its desk and its processes live from its start to its end."""
    page = Page(served, keys)
    app = Starlette(
        routes=[
            Route("/", page.index),
            Route("/static/{name}", page.static),
            Route("/image/{mark}/{id:int}", page.image),
            Route("/next", page.next, methods=["POST"]),
            Route("/answer", page.answer, methods=["POST"]),
            Route("/undo", page.undo, methods=["POST"]),
            Route("/finish", page.finish, methods=["POST"]),
            Route("/progress", page.progress),
        ],
        exception_handlers={SvpError: _said, ValidationError: _malformed, HTTPException: _other},
        lifespan=page.lifespan,
    )
    return Door(app, keys)


class Page:
    """The answers to all requests. What the desk does is done in one thread of its own, since a label store belongs to one."""

    def __init__(self, served: Served, keys: Keys) -> None:
        self._served, self._keys = served, keys
        self._start = secrets.token_hex(8)  # stands for this server and its session
        self._thread = ThreadPoolExecutor(1, "desk")
        self._supply = Supply(self._at_desk, served.where, served.n, scores=served.scores, unread=served.unread)
        self._templates = jinja2.Environment(
            loader=jinja2.PackageLoader("svp.serve", "."),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    @asynccontextmanager
    async def lifespan(self, _: Starlette) -> AsyncIterator[None]:
        loop = asyncio.get_running_loop()
        store = await loop.run_in_executor(self._thread, LabelStore.open, self._served.store)
        self._desk = await loop.run_in_executor(self._thread, Desk, store, self._served.rule)
        await self._supply.look()
        try:
            yield
        finally:
            await self._supply.end()
            await loop.run_in_executor(self._thread, store.close)
            self._thread.shutdown()

    async def _at_desk(self, do: Callable[[Desk], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, do, self._desk)

    # --- what is looked at ---------------------------------------------------------------------------------------------------

    async def index(self, request: Request) -> Response:
        token = request.query_params.get("token")
        if token is not None:
            if not self._keys.admits(token):
                return Response("This link is not the one that svp printed\n", 403, media_type="text/plain")
            # Not a redirect: after one the browser would hold back a strict cookie where the link stood on another site.
            response = HTMLResponse(self._templates.get_template("entry.html.jinja").render(), headers=_FORGET)
            response.set_cookie(
                self._keys.cookie_name,
                self._keys.cookie,
                httponly=True,
                samesite="strict",
                path="/",
                max_age=30 * 86400,
            )
            return response
        classes = await self._at_desk(lambda desk: desk.classes)
        page = self._templates.get_template("page.html.jinja").render(
            name=self._served.name,
            person=self._served.person,
            form=self._keys.form,
            classes=list(zip(classes, keys_of(classes), strict=True)),
            columns={3: 3, 4: 4, 5: 5, 6: 3, 7: 4, 8: 4, 9: 5, 10: 5}.get(len(classes)),
            keys=OTHER_KEYS,
            n_all=self._served.n_all,
        )
        return HTMLResponse(page, headers=_FORGET)

    async def static(self, request: Request) -> Response:
        name = request.path_params["name"]
        if name not in STATIC:
            raise HTTPException(404)
        content = resources.files("svp.serve").joinpath(name).read_bytes()
        return Response(content, media_type=STATIC[name], headers={"Cache-Control": "no-cache"})

    async def image(self, request: Request) -> Response:
        """The photo or the pixels of an example that is on the desk: there is no way to name a file.

        The mark before the id is for the browser alone, which keeps images by their addresses.
        """
        id_ = request.path_params["id"]
        card = await self._at_desk(lambda desk: desk.card(id_))
        if card is None or card.text is not None:
            raise HTTPException(404)
        if card.pixels is not None:
            return Response(card.pixels, media_type="image/png", headers=_KEEP)
        found = await run_in_threadpool(photo, self._served.pool, card.key)
        if found is None:
            raise HTTPException(404)
        path, format_ = found
        kind = media_type(format_)
        if kind is not None:
            return FileResponse(path, media_type=kind, headers=_KEEP)
        try:
            return Response(await run_in_threadpool(as_webp, path), media_type="image/webp", headers=_KEEP)
        except Exception:  # a damaged image can raise anything
            raise HTTPException(404) from None

    async def progress(self, _: Request) -> Response:
        await self._supply.look()
        return JSONResponse(await self._at_desk(self._state), headers=_FORGET)

    # --- what is said --------------------------------------------------------------------------------------------------------

    async def next(self, request: Request) -> Response:
        person = Person.model_validate_json(await _body(request))
        return await self._hand(person.who)

    async def answer(self, request: Request) -> Response:
        said = Said.model_validate_json(await _body(request))

        def answer(desk: Desk) -> dict[str, Any]:
            card = desk.card(said.id)
            desk.answer(said.who, said.id, said.said)
            guess = None if card is None or card.guess is None else [desk.classes[card.guess[0]], card.guess[1]]
            return {"guess": guess}

        return await self._hand(said.who, answer)

    async def undo(self, request: Request) -> Response:
        person = Person.model_validate_json(await _body(request))
        return await self._hand(person.who, lambda desk: {"undone": desk.undo(person.who)})

    async def finish(self, request: Request) -> Response:
        Person.model_validate_json(await _body(request))
        self._supply.finish(await self._at_desk(lambda desk: sum(desk.labelled)))
        return JSONResponse(await self._at_desk(self._state), headers=_FORGET)

    async def _hand(self, who: str, first: Callable[[Desk], dict[str, Any]] = lambda _: {}) -> Response:
        """Do this, and say what the person is asked next. In one go, so that nobody comes between."""

        def go(desk: Desk) -> dict[str, Any]:
            return {**first(desk), "cards": [self._shown(card) for card in desk.hand(who)], **self._state(desk)}

        state = await self._at_desk(go)
        await self._supply.look()
        return JSONResponse(state, headers=_FORGET)

    def _state(self, desk: Desk) -> dict[str, Any]:
        return {"progress": desk.progress(), "behind": self._supply.state(), "exhausted": desk.exhausted}

    def _shown(self, card: Card) -> dict[str, Any]:
        return {
            "id": card.id,
            "key": card.key,
            "image": f"/image/{self._mark(card)}/{card.id}" if card.text is None else None,
            "origin": card.origin,
            "again": card.again,
            "text": card.text,
            "letters": card.letters,
            "tiny": card.tiny,
        }

    def _mark(self, card: Card) -> str:
        """Another for each start of a server, as every session counts from 0, and for a photo that has changed."""
        changed = None
        with suppress(OSError, ValueError):  # pixels that lie in no file
            changed = (self._served.pool / card.key).stat().st_mtime_ns
        return hashlib.sha256(repr((self._start, card.key, changed)).encode()).hexdigest()[:16]


async def _body(request: Request) -> bytes:
    """What the page said, of MOST_BYTES at most."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415, "say it as application/json")
    said = b""
    async for chunk in request.stream():
        said += chunk
        if len(said) > MOST_BYTES:
            raise HTTPException(413, "that is too much at once")
    return said


def _said(_: Request, error: Exception) -> Response:
    """What is refused (409), or went wrong here (500): the disk is full."""
    return JSONResponse({"error": str(error)}, 409 if isinstance(error, LabelError) else 500, headers=_FORGET)


def _malformed(_: Request, error: Exception) -> Response:
    assert isinstance(error, ValidationError)
    first = error.errors()[0]
    return JSONResponse({"error": f"{'.'.join(map(str, first['loc']))}: {first['msg']}"}, 400, headers=_FORGET)


def _other(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    return JSONResponse({"error": error.detail}, error.status_code, headers=_FORGET)
