"""Guard in front of the service: token, origin, size, time and number of requests, and their count.

It is plain ASGI, so that a request is refused before its body is read.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any, TypeAlias

from fastapi import HTTPException
from fastapi.responses import JSONResponse

from .limits import Limits
from .metrics import Metrics

Message: TypeAlias = "MutableMapping[str, Any]"
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
App: TypeAlias = "Callable[[Message, Receive, Send], Awaitable[None]]"

STATIC = "/docs/static"  # scripts of the page that describes the service
# paths that ask for no token: they tell nothing of images
OPEN = ("/healthz", "/docs", "/openapi.json", f"{STATIC}/swagger-ui-bundle.js", f"{STATIC}/swagger-ui.css")
OTHER = "other"  # name of all unknown paths in the metrics
RETRY = {"Retry-After": "1"}


class Guard:
    """Middleware that passes on the requests that the limits allow. token: None where none is asked for."""

    def __init__(self, app: App, limits: Limits, metrics: Metrics, token: str | None, paths: frozenset[str]) -> None:
        self.app, self.limits, self.metrics, self.paths = app, limits, metrics, paths
        self._token = None if token is None else token.encode()
        self._open_requests = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = _Guarded(receive, send, self.limits)
        began = time.perf_counter()
        try:
            if (refusal := self._refusal(scope)) is not None:
                await refusal(scope, request.receive, request.send)
            else:
                await self._answer(scope, request)
        finally:
            path = scope["path"] if scope["path"] in self.paths else OTHER
            self.metrics.answered(path, request.status, time.perf_counter() - began)

    async def _answer(self, scope: Message, request: _Guarded) -> None:
        self._open_requests += 1
        try:
            await asyncio.wait_for(self.app(scope, request.receive, request.send), self.limits.seconds)
        except asyncio.TimeoutError:
            if request.status:  # its answer has begun
                raise
            status, what = (503, "is not answered") if request.complete else (408, "did not arrive")
            reason = f"the request {what} within {self.limits.seconds} s"
            await refused(status, reason, RETRY)(scope, request.receive, request.send)
        finally:
            self._open_requests -= 1

    def _refusal(self, scope: Message) -> JSONResponse | None:
        """Return the answer to a request that is not let in, None for others."""
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        if self._token is not None and scope["path"] not in OPEN and not self._has_token(headers):
            return refused(401, "a token is asked for: Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})
        if "origin" in headers and headers["origin"].partition("://")[2] != headers.get("host"):
            return refused(403, "pages of other sites are not answered")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()) or len(length) > 18:
            return refused(400, "the header Content-Length is no number of bytes")
        if int(length) > self.limits.size:
            return refused(413, too_large(self.limits), {"Connection": "close"})
        if self._open_requests >= self.limits.requests and scope["path"] not in OPEN:
            return refused(429, f"{self.limits.requests} requests are being answered: send it again later", RETRY)
        return None

    def _has_token(self, headers: dict[str, str]) -> bool:
        kind, _, given = headers.get("authorization", "").partition(" ")
        assert self._token is not None
        return kind.lower() == "bearer" and hmac.compare_digest(given.strip().encode("utf-8", "replace"), self._token)


class _Guarded:
    """Both directions of a request, measured. status: of the answer, 0 before it. complete: whether all has arrived."""

    def __init__(self, receive: Receive, send: Send, limits: Limits) -> None:
        self._receive, self._send, self._limits = receive, send, limits
        self._size, self.status, self.complete = 0, 0, False

    async def receive(self) -> Message:
        message = await self._receive()
        if message["type"] == "http.disconnect" and not self.complete:
            raise HTTPException(400, "the request broke off")
        self._size += len(message.get("body", b""))
        if self._size > self._limits.size:
            raise HTTPException(413, too_large(self._limits), {"Connection": "close"})
        self.complete = self.complete or not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
        await self._send(message)


def refused(status: int, reason: str, headers: dict[str, str] | None = None) -> JSONResponse:
    """Return an answer with a reason, in the form of the service's other errors."""
    return JSONResponse({"detail": reason}, status, headers)


def too_large(limits: Limits) -> str:
    """Return the sentence for a request of too many bytes."""
    return f"a request has at most {limits.size:,} bytes: send fewer or smaller images"
