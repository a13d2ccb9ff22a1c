"""What reaches the page's server: only requests of the page itself, and none that is too large.

A server on 127.0.0.1 is within reach of every page that its user's browser shows, by forms and by
names that resolve to this address.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from vpd.serve.limits import Limits

__all__ = ["Guard"]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

_API = "/gradio_api"
# What the page's scripts ask for. Nothing else is answered.
_READ = ("/", "/config", "/theme.css", "/favicon.ico", "/manifest.json", "/robots.txt",
         f"{_API}/info", f"{_API}/startup-events", f"{_API}/queue/data",
         f"{_API}/upload_progress")  # fmt: skip
_READ_BELOW = ("/assets/", "/static/", "/svelte/", f"{_API}/heartbeat/", f"{_API}/file=")
_UPLOAD, _JOIN = f"{_API}/upload", f"{_API}/queue/join"
_WRITE = (_UPLOAD, _JOIN, f"{_API}/reset", f"{_API}/cancel")
_FORM = 10_000  # bytes of an upload besides its file
_KEPT = 10  # largest files that may lie in the cache at a time


class Guard:
    """An ASGI application before another one.

    Args:
        app: The other one.
        limits: Of a picture and of a text.
        folder: Where uploads lie.
    """

    def __init__(self, app: Any, limits: Limits, folder: Path) -> None:
        self._app, self._limits, self._folder = app, limits, folder

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers a request, or passes it on."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refusal = (404, "no such page") if scope["type"] != "http" else self._refusal(scope)
        if refusal is None and _path(scope) == _JOIN:
            body = await _body(receive)
            refusal = _foreign(body)
            receive = _again(body, receive)
        if refusal is None:
            await self._app(scope, receive, send)
        elif scope["type"] == "http":
            await _refuse(send, *refusal)
        else:
            await send({"type": "websocket.close", "code": 1008})

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason, before the body is read."""
        headers = {name.lower(): value.decode("latin-1") for name, value in scope["headers"]}
        port = scope["server"][1]
        hosts = (f"127.0.0.1:{port}", f"localhost:{port}")
        if headers.get(b"host") not in hosts:
            return 403, "this server answers to 127.0.0.1 only"
        if headers.get(b"origin", f"http://{hosts[0]}") not in {f"http://{host}" for host in hosts}:
            return 403, "this server answers to its own page only"
        path, method = _path(scope), scope["method"]
        if method in ("GET", "HEAD"):
            known = path in _READ or path.startswith(_READ_BELOW)
            return None if known and "://" not in path else (404, "no such page")
        if method != "POST" or path not in _WRITE:
            return 404, "no such page"
        return self._too_large(path, headers.get(b"content-length", ""))

    def _too_large(self, path: str, length: str) -> tuple[int, str] | None:
        if not length.isdecimal():
            return 411, "the length of a request must be told"
        limits = self._limits
        # A text may take four bytes a character and six more as JSON escapes it.
        most = limits.max_bytes + _FORM if path == _UPLOAD else 12 * limits.max_text + _FORM
        if int(length) > most:
            return 413, f"expected at most {most} bytes"
        if path == _UPLOAD and self._kept() + int(length) > _KEPT * limits.max_bytes:
            return 507, "too many pictures lie here, try again in some minutes"
        return None

    def _kept(self) -> int:
        sizes = 0
        for path in self._folder.rglob("*"):
            try:
                sizes += path.stat().st_size if path.is_file() else 0
            except FileNotFoundError:  # deleted meanwhile
                continue
        return sizes


def _path(scope: Message) -> str:
    path = unquote(scope["path"])
    return path if path == "/" else path.rstrip("/")


async def _body(receive: Receive) -> bytes:
    parts = []
    more = True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message["type"] == "http.request" and message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """``receive`` with a body that was read before."""
    waiting: list[Message] = [{"type": "http.request", "body": body, "more_body": False}]

    async def replay() -> Message:
        return waiting.pop() if waiting else await receive()

    return replay


def _foreign(body: bytes) -> tuple[int, str] | None:
    """Refuses files that would have to be fetched from elsewhere."""
    try:
        found = json.loads(body)
    except (ValueError, RecursionError):
        return 400, "expected JSON"
    stack = [found]
    while stack:
        one = stack.pop()
        if isinstance(one, dict):
            place = one.get("path")
            if isinstance(place, str) and "://" in place:
                return 403, "this server fetches nothing"
            stack += one.values()
        elif isinstance(one, list):
            stack += one
    return None


async def _refuse(send: Send, status: int, reason: str) -> None:
    body = json.dumps({"detail": reason}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
