"""What stands before the app: who may ask, how much and how long; and the headers of every answer."""

from __future__ import annotations

import re
import secrets
from collections.abc import MutableMapping
from typing import Any

import anyio
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from fakegan.serve.limits import Limits

_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; "
    "connect-src 'self'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
_OPEN = {"/", "/page.css", "/page.js", "/health", "/openapi.json"}  # what needs no token: it tells nothing of the run


class Guard:
    """An ASGI app around the one that answers, which gets only whole requests within the limits."""

    def __init__(
        self,
        app: ASGIApp,
        limits: Limits,
        token: str,  # "": none is asked for, and only the names of this computer are answered to
        host: str,  # the address that is listened at
    ) -> None:
        self.app, self.limits, self.token = app, limits, token
        self.names = {"localhost", "127.0.0.1", "[::1]", f"[{host}]" if ":" in host else host}
        self.busy = 0  # requests that are sent or answered now

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """As ASGI asks for."""
        if scope["type"] != "http":  # the server's own start
            await self.app(scope, receive, send)
            return

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(_HEADERS)
            with anyio.fail_after(self.limits.seconds):  # a client that takes no answer
                await send(message)

        try:
            await self._answered(scope, receive, answer)
        except HTTPException as refused:
            await JSONResponse({"detail": refused.detail}, refused.status_code, refused.headers)(scope, receive, answer)
        except TimeoutError:  # the server closes the connection
            return

    async def _answered(self, scope: Scope, receive: Receive, answer: Send) -> None:
        headers = Headers(scope=scope)
        self._refuse_strangers(scope, headers)
        if scope["method"] != "POST":
            await self.app(scope, receive, answer)
            return
        if self.busy >= self.limits.requests:
            await self._body(receive, keep=False)  # else the client would not read the answer before all is sent
            wait = {"Retry-After": "1", "Connection": "close"}
            raise HTTPException(503, f"{self.busy} requests are being answered: try again in a second", wait)
        self.busy += 1
        try:
            body: list[Message] = [{"type": "http.request", "body": await self._body(receive, headers)}]

            async def once() -> MutableMapping[str, Any]:
                return body.pop() if body else await receive()

            await self.app(scope, once, answer)
        finally:
            self.busy -= 1

    def _refuse_strangers(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "").lower()
        if not self.token and re.sub(r":\d+$", "", host) not in self.names:  # a site that has this computer's address
            raise HTTPException(421, "the page is for this computer: open it as localhost, or start it with --token")
        if scope["method"] == "POST" and headers.get("origin", f"//{host}").lower().partition("//")[2] != host:
            raise HTTPException(403, "another site's page may not send pictures here")
        if self.token and scope["path"] not in _OPEN:
            given = headers.get("authorization", "").removeprefix("Bearer ")
            if not secrets.compare_digest(given.encode(), self.token.encode()):
                raise HTTPException(
                    401, "this needs the token: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"}
                )

    async def _body(self, receive: Receive, headers: Headers | None = None, keep: bool = True) -> bytes:
        """All of a request's body, or nothing of one that is not kept; read no further than twice the limit."""
        most = self.limits.mib * 2**20
        body, length = bytearray(), 0
        try:
            with anyio.fail_after(self.limits.seconds):
                while length <= 2 * most:
                    message = await receive()
                    if message["type"] == "http.disconnect":
                        raise HTTPException(400, "the request ended early")
                    length += len(message.get("body", b""))
                    if keep and length <= most:
                        body += message.get("body", b"")
                    if not message.get("more_body"):
                        break
        except TimeoutError:
            late = f"the request took more than {self.limits.seconds} seconds to arrive (--timeout)"
            raise HTTPException(408, late, {"Connection": "close"}) from None
        if length > most and keep:
            large = f"more than {self.limits.mib} MiB in one request (--max-mib): send fewer or smaller pictures"
            raise HTTPException(413, large, {"Connection": "close"})
        return bytes(body)
