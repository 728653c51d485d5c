"""Who is let in: whoever has the token of the link, and nobody by the page of another site.

The link's token is exchanged for a cookie and leaves the address. Cookies are sent along by whatever site a browser shows, so
whatever changes something must also bring the page's own form token, in a header that no other site may set, and come from the
page's own origin. The Host must be one that the page goes by: a name of somebody else's that was made to point here (DNS
rebinding) is none.
"""

import hashlib
import hmac
import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

FORM_HEADER = "x-svp-form"
OPEN = ("/static/",)  # files of the package: no secret is in them
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


class Keys:
    """The secrets of one server: the token of its link, and what is made of it. None is written anywhere.

    names  hosts that the page goes by, beside those that are IP addresses
    """

    def __init__(self, port: int, names: tuple[str, ...] = ()) -> None:
        self.token, self.port = secrets.token_urlsafe(32), port
        self.cookie_name = f"svp-{port}"  # browsers keep one set of cookies for all ports
        self.cookie, self.form = self._made("cookie"), self._made("form")
        self._once = {secrets.token_urlsafe(32)}
        self._names = {"localhost", *(name.casefold() for name in names)}

    def once(self) -> str:
        """A token that lets in one browser alone: command lines, in which it may stand, are seen by others on the machine."""
        return next(iter(self._once))

    def admits(self, token: str) -> bool:
        """Is this the link's token? Takes as long for any wrong one."""
        if _same(token, self.token):
            return True
        found = {one for one in self._once if _same(token, one)}
        self._once -= found
        return bool(found)

    def knows(self, request: Request) -> bool:
        """Does the browser bring our cookie?"""
        return _same(request.cookies.get(self.cookie_name, ""), self.cookie)

    def is_here(self, host: str) -> bool:
        """May the page be called so? `host` as browsers send it, with the port."""
        try:
            parts = urlsplit(f"//{host}")
            name, port = (parts.hostname or "").casefold(), parts.port
        except ValueError:
            return False
        if parts.netloc != host or parts.username is not None or port != self.port:
            return False
        return name in self._names or _is_address(name)

    def _made(self, what: str) -> str:
        return hmac.new(self.token.encode(), what.encode(), hashlib.sha256).hexdigest()


def _same(given: str, ours: str) -> bool:
    return hmac.compare_digest(given.encode(errors="replace"), ours.encode())


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class Door:
    """Stands before the page: refuses whom it must, and puts HEADERS on every answer."""

    def __init__(self, app: ASGIApp, keys: Keys) -> None:
        self._app, self._keys = app, keys

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return

        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        refusal = self._refusal(Request(scope)) if scope["type"] == "http" else Response(status_code=403)
        await (refusal or self._app)(scope, receive, with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Why this request is not answered; None: it is."""
        host = request.headers.get("host", "")
        if not self._keys.is_here(host):
            return _no(421, "This page does not go by that name; open the link that svp printed")
        if request.url.path.startswith(OPEN) or (request.url.path == "/" and "token" in request.query_params):
            return None
        if not self._keys.knows(request):
            return _no(403, "This page is opened by the link that svp printed (after a new start, the new one)")
        if request.method in ("GET", "HEAD"):
            return None
        own = f"http://{host}"
        if (
            request.headers.get("origin") != own
            or request.headers.get("sec-fetch-site", "same-origin") != "same-origin"
        ):
            return _no(403, "This request comes from another page")
        if not _same(request.headers.get(FORM_HEADER, ""), self._keys.form):
            return _no(403, "This request does not come from the page; reload it")
        return None


def _no(status: int, why: str) -> Response:
    return PlainTextResponse(why + "\n", status)
