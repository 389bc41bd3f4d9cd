"""Who may come in, and how much of what may be brought: checked before anything is read."""

import asyncio
import base64
import binascii
import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import suppress
from time import monotonic
from typing import Any

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse

from holdfast.serving.config import TOKEN, is_loopback
from holdfast.serving.metrics import Figures

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

#: What a supervisor asks, who has no token.
_OPEN = ("/health", "/ready")


class Door:
    """Wraps the application: refuses strangers, pages of other sites, and what is too large or too
    slow; counts the rest.

    Without a token only requests that name this machine come in, so that no page of another site
    reaches the service by a name that leads here.

    Args:
        application: what is behind it.
        token: that requests must bear; None: none is needed.
        megabytes: of a request.
        seconds: that one may take to come in.
        figures: where requests are counted.
        paths: that there are; others are counted together.
    """

    def __init__(
        self,
        application: Application,
        token: str | None,
        megabytes: float,
        seconds: float,
        figures: Figures,
        paths: frozenset[str],
    ) -> None:
        self.application, self.figures, self.paths = application, figures, paths
        self._token = None if token is None else token.encode()
        self._most, self._seconds = int(megabytes * 1e6), seconds

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Let a request in, or not."""
        if scope["type"] != "http":
            await self.application(scope, receive, send)
            return
        began, path = monotonic(), scope["path"] if scope["path"] in self.paths else "other"

        async def counted(message: Message) -> None:
            if message["type"] == "http.response.start":
                self.figures.requests.labels(path, str(message["status"])).inc()
                self.figures.latency.labels(path).observe(monotonic() - began)
                message["headers"] = [*message.get("headers", ()), *_HEADERS]
            await send(message)

        refused = self._refused(scope, Headers(scope=scope))
        if refused is not None:
            await refused(scope, receive, counted)
            return
        with suppress(ClientDisconnect):  # nobody is left to answer
            await self.application(scope, self._bounded(receive), counted)

    def _refused(self, scope: MutableMapping[str, Any], headers: Headers) -> JSONResponse | None:
        """The answer to who may not come in."""
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._most:
            return _said(413, f"a request may have {self._most} bytes: send fewer images at once")
        if scope["path"] in _OPEN:
            return None
        if _from_elsewhere(headers):
            return _said(403, "pages of other sites may not ask this service")
        if self._token is None:
            if is_loopback(_name_of(headers.get("host", ""))):
                return None
            return _said(
                403, f"the service is asked by another name than this machine's: set {TOKEN}"
            )
        if hmac.compare_digest(_token_in(headers.get("authorization", "")), self._token):
            return None
        refusal = _said(401, f"the token in {TOKEN} is needed: Authorization: Bearer TOKEN")
        refusal.headers["www-authenticate"] = 'Basic realm="holdfast"'
        return refusal

    def _bounded(self, receive: Receive) -> Receive:
        """The request's body, which is refused where it grows too large or takes too long."""
        seen, deadline = 0, monotonic() + self._seconds
        whole = False

        async def bounded() -> Message:
            nonlocal seen, whole
            if whole:  # what follows is the end of the connection, for which an answer may wait
                return await receive()
            try:
                async with asyncio.timeout(max(0.01, deadline - monotonic())):
                    message = await receive()
            except TimeoutError:
                raise HTTPException(408, "the request took too long to come in") from None
            seen += len(message.get("body", b""))
            whole = not message.get("more_body", False)
            if seen > self._most:
                raise HTTPException(413, f"a request may have {self._most} bytes")
            return message

        return bounded


#: Said with every answer: it is nobody's to keep, to frame or to take for something else.
_HEADERS = (
    (b"cache-control", b"no-store"),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"content-security-policy", b"default-src 'none'; style-src 'unsafe-inline'; img-src data:"),
)


def _said(status: int, detail: str) -> JSONResponse:
    return JSONResponse({"detail": detail}, status)


def _name_of(host: str) -> str:
    """The name in a Host header, without its port."""
    if host.startswith("["):
        return host.partition("]")[0].removeprefix("[")
    return host.partition(":")[0]


def _from_elsewhere(headers: Headers) -> bool:
    """Whether a browser says that another site's page asks."""
    origin = headers.get("origin")
    other = origin is not None and origin.partition("://")[2] != headers.get("host")
    return other or headers.get("sec-fetch-site") == "cross-site"


def _token_in(authorization: str) -> bytes:
    """The token of a header ``Bearer TOKEN``, or of what a browser makes of it as a password."""
    kind, _, value = authorization.partition(" ")
    if kind.lower() == "bearer":
        return value.strip().encode(errors="replace")
    if kind.lower() == "basic":
        try:
            return base64.b64decode(value, validate=True).partition(b":")[2]
        except (binascii.Error, ValueError):
            return b""
    return b""
