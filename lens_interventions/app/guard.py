"""Who may talk to the explorer: a page of this machine that knows the token in the address.

Another site that is open in the browser can send requests to this machine, and can make a name of
its own point here. So the Host must be a name of this machine, the Origin must be the explorer's
own, and the first part of the path must be the token, which no other site knows.
"""

import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ("127.0.0.1", "localhost")

_HEADERS = {
    # Plotly puts styles into the page; scripts and everything else come only from this server. A
    # notebook may show the page in a frame; a site that does not know the token has nothing to
    # frame.
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data: blob:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}
_STALE = (
    "This address is of another run of the explorer, or incomplete. Open the one that it printed "
    "when it started; what stands after the # of an old address still works there."
)


class Guard:
    """Passes on requests from the explorer's own page, with the token removed from the path."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._token = app, token

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a stranger with status 403, or pass the request on."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        if (reason := self._objection(scope)) is not None:
            await PlainTextResponse(reason, status_code=403)(scope, receive, _with_headers(send))
            return
        start = scope.get("root_path", "") + f"/{self._token}"
        await self._app({**scope, "root_path": start}, receive, _with_headers(send))

    def _objection(self, scope: Scope) -> str | None:
        headers = Headers(scope=scope)
        host = headers.get("host", "")
        if _name(f"//{host}") not in HOSTS:
            return "The explorer answers on this machine only, under 127.0.0.1 or localhost."
        if headers.get("origin", f"http://{host}") != f"http://{host}":
            return "The explorer answers its own page only."
        token = scope["path"].lstrip("/").partition("/")[0]
        if not secrets.compare_digest(token.encode(), self._token.encode()):
            return _STALE
        return None


def _name(address: str) -> str | None:
    try:
        return urlsplit(address).hostname
    except ValueError:
        return None


def _with_headers(send: Send) -> Send:
    async def wrapped(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in _HEADERS.items():
                headers.setdefault(name, value)
        await send(message)

    return wrapped
