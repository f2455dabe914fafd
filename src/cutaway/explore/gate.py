"""Who is let in: this machine's own pages that know the token, and nobody else.

The server listens on loopback, but so do web pages reach it from a browser on the same machine.
Three checks keep them out, each answered with 403:

- the Host is the server's own address, so that no foreign name can be pointed at it (DNS
  rebinding);
- the Origin, where a browser sends one, is the server's own;
- whatever asks the model needs the token of this very server, which stands behind the `#` of the
  address that was printed: a browser sends that part to nobody, and the page takes it out of the
  address at once. The page itself and its files hold nothing of the model's and need none.

A body is read up to a limit. Every answer forbids the browser to load, frame or keep anything.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from cutaway.errors import CutawayError

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

LARGEST_BODY = 2**18
"""Bytes of a request."""
TOKEN = b"x-cutaway-token"
"""The header that a page puts the token in."""
_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
}


class Gate:
    """The application behind the checks."""

    def __init__(self, app: App, *, token: str, port: int) -> None:
        self._app, self._token = app, token.encode()
        hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        # A browser leaves out the port that is usual for http.
        self._hosts = {host.removesuffix(":80").encode() for host in hosts}
        self._origins = {b"http://" + host for host in self._hosts}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        assert scope["type"] == "http"
        headers: dict[bytes, bytes] = {}
        for name, value in scope["headers"]:
            # Two of a kind are never a browser's; joined, they match nothing.
            headers[name] = value if name not in headers else headers[name] + b", " + value
        reason = self._refusal(scope["path"], headers)
        if reason is not None:
            await _refuse(_guarded(send), reason)
            return
        await self._app(scope, _limited(receive, headers), _guarded(send))

    def _refusal(self, path: str, headers: dict[bytes, bytes]) -> str | None:
        if headers.get(b"host") not in self._hosts:
            return "This server answers to its own address on loopback only."
        if headers.get(b"origin", min(self._origins)) not in self._origins:
            return "This server answers to its own pages only."
        if path.startswith("/api/") and not hmac.compare_digest(
            headers.get(TOKEN, b""), self._token
        ):
            return "The token is missing or wrong; open the address that cutaway explore printed."
        return None


class TooLargeError(CutawayError):
    """A request with more bytes than anything that is asked here needs."""


def _limited(receive: Receive, headers: dict[bytes, bytes]) -> Receive:
    """The request's messages; `TooLargeError` once they are too large together."""
    announced = headers.get(b"content-length", b"0")
    read = int(announced) if announced.isdigit() else 0
    refusal = TooLargeError(
        f"The request is larger than {LARGEST_BODY // 1024} kB; shorten the prompt."
    )
    too_large = read > LARGEST_BODY
    read = 0

    async def limited() -> Message:
        nonlocal read
        if too_large:
            raise refusal
        message = await receive()
        read += len(message.get("body", b""))
        if read > LARGEST_BODY:
            raise refusal
        return message

    return limited


def _guarded(send: Send) -> Send:
    """Answers with the headers that keep a browser from anything else."""
    fixed = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def guarded(message: Message) -> None:
        if message["type"] == "http.response.start":
            message["headers"] = [*message.get("headers", []), *fixed]
        await send(message)

    return guarded


async def _refuse(send: Send, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"connection", b"close")]
    headers.append((b"content-length", str(len(body)).encode()))
    await send({"type": "http.response.start", "status": 403, "headers": headers})
    await send({"type": "http.response.body", "body": body})
