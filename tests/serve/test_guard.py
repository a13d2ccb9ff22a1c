"""Requests that reach the page's server, and those that do not."""

from __future__ import annotations

import asyncio
import json

import pytest

from vpd.serve.guard import Guard
from vpd.serve.limits import Limits

LIMITS = Limits(max_mb=1, max_text=100)
JOIN, UPLOAD = "/gradio_api/queue/join", "/gradio_api/upload"
TYPED = {"data": [{"path": "/tmp/x/a.png", "url": "http://127.0.0.1:7860/a.png"}, "a cube", 0]}


def ask(folder, method="GET", path="/", body=b"", host="127.0.0.1:7860", **headers):
    """Status of a request, and what the application behind the guard got of it."""
    got, sent = [], []

    async def app(scope, receive, send):
        message = await receive()
        got.append(message["body"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    parts = [body[: len(body) // 2], body[len(body) // 2 :]]
    messages = [
        {"type": "http.request", "body": part, "more_body": more}
        for part, more in zip(parts, (True, False), strict=True)
    ]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    if method == "POST":
        headers = {"content-length": str(len(body))} | headers
    pairs = [(b"host", host.encode())]
    pairs += [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    scope = {
        "type": "http", "method": method, "path": path, "headers": pairs,
        "server": ("127.0.0.1", 7860),
    }  # fmt: skip
    asyncio.run(Guard(app, LIMITS, folder)(scope, receive, send))
    return sent[0]["status"], got


def test_the_page_itself(tmp_path):
    for path in ("/", "/config", "/assets/index.js", "/gradio_api/queue/data", "/theme.css"):
        assert ask(tmp_path, path=path)[0] == 200
    assert ask(tmp_path, host="localhost:7860", origin="http://127.0.0.1:7860")[0] == 200
    body = json.dumps(TYPED).encode()
    status, got = ask(tmp_path, "POST", JOIN, body, origin="http://127.0.0.1:7860")
    assert (status, got) == (200, [body])
    assert ask(tmp_path, "POST", UPLOAD, b"x" * 1000)[0] == 200


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (403, {"host": "evil.example:7860"}),  # a name that resolves to this machine
        (403, {"host": "127.0.0.1:7861"}),
        (403, {"origin": "https://evil.example"}),  # a form of another page
        (403, {"origin": "null"}),
        (403, {"origin": "http://127.0.0.1:8000"}),
        (404, {"path": "/gradio_api/run/predict"}),
        (404, {"path": "/gradio_api/proxy=http://a.example"}),
        (404, {"path": "/gradio_api/file=https://a.example/x.png"}),
        (404, {"path": "/gradio_api/file=https:%2F%2Fa.example/x.png"}),
        (404, {"path": "/monitoring"}),
        (404, {"path": "/docs"}),
        (404, {"method": "PUT", "path": "/"}),
        (404, {"method": "POST", "path": "/gradio_api/vibe-edit", "body": b"{}"}),
        (404, {"method": "POST", "path": "/gradio_api/run/answer", "body": b"{}"}),
        (413, {"method": "POST", "path": UPLOAD, "body": b"x" * 1_020_000}),
        (413, {"method": "POST", "path": JOIN, "body": b"x" * 20_000}),
        (411, {"method": "POST", "path": JOIN, "content-length": ""}),
        (400, {"method": "POST", "path": JOIN, "body": b"{"}),
        (400, {"method": "POST", "path": JOIN, "body": b"[" * 9000}),
        (403, {"method": "POST", "path": JOIN, "body": b'{"data": [{"path": "http://a/b.png"}]}'}),
        (403, {"method": "POST", "path": JOIN, "body": b'[{"x": {"path": "file:///etc/passwd"}}]'}),
    ],
)
def test_others(tmp_path, status, request_):
    found, got = ask(tmp_path, **request_)
    assert found == status
    assert got == []


def test_the_cache_does_not_grow_without_end(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "big").write_bytes(b"x" * 9_999_500)
    assert ask(tmp_path, "POST", UPLOAD, b"x" * 400)[0] == 200
    assert ask(tmp_path, "POST", UPLOAD, b"x" * 600)[0] == 507


def test_start_and_end_pass_and_other_kinds_do_not(tmp_path):
    seen, sent = [], []

    async def app(scope, receive, send):
        seen.append(scope["type"])

    async def send(message):
        sent.append(message["type"])

    for kind in ("lifespan", "websocket"):
        asyncio.run(Guard(app, LIMITS, tmp_path)({"type": kind}, None, send))
    assert (seen, sent) == (["lifespan"], ["websocket.close"])
