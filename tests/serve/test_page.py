"""The page's server: where it listens, what it answers, what it leaves behind."""

from __future__ import annotations

import http.client
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import cv2
import numpy as np
import pytest

from vpd.serve.answers import Served
from vpd.serve.limits import Limits

ROOT = Path(__file__).parent.parent.parent
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def ask(page, path, body=None, **headers):
    """Status and text of a request."""
    request = urllib.request.Request(page.address + path, body, headers)
    try:
        with urllib.request.urlopen(request, timeout=60) as answer:
            return answer.status, answer.read().decode("utf-8", "replace")
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode("utf-8", "replace")


def upload(page, content, name="a.png"):
    body = (
        f'--x\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n'
        "Content-Type: image/png\r\n\r\n"
    ).encode()
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    return ask(page, "/gradio_api/upload", body + content + b"\r\n--x--\r\n", **kind)


def answer(page, path, *values):
    """What comes of pressing the button: the outputs, or the message of an error."""
    config = json.loads(ask(page, "/config")[1])
    body = {"data": [path, *values], "fn_index": config["dependencies"][0]["id"],
            "session_hash": "s"}  # fmt: skip
    sent = ask(page, "/gradio_api/queue/join", json.dumps(body).encode(),
               **{"Content-Type": "application/json"})  # fmt: skip
    if sent[0] != 200:
        return sent
    events = ask(page, "/gradio_api/queue/data?session_hash=s")[1].split("\n\n")
    last = [json.loads(e[6:]) for e in events if "process_completed" in e][-1]
    return (200, last["output"]["data"]) if last["success"] else (500, last["output"]["error"])


def test_it_listens_on_this_machine_only(page):
    port = int(page.address.rpartition(":")[2])
    assert page.address == f"http://127.0.0.1:{port}"
    own = socket.gethostbyname(socket.gethostname())
    for host in {own, "127.0.0.2"} - {"127.0.0.1"}:
        with pytest.raises(OSError, match="refused"):
            socket.create_connection((host, port), timeout=5)


def test_an_answer_is_the_models(page, tmp_path):
    _, where = upload(page, cv2.imencode(".png", PICTURE[..., ::-1])[1].tobytes())
    (path,) = json.loads(where)
    picture = {"path": path, "meta": {"_type": "gradio.FileData"}}
    status, (shown, more, said) = answer(page, picture, "the red cube", 0)
    assert status == 200
    expected = page.model(PICTURE, "the red cube")
    assert f"{expected.mask.mean():.1%}" in said
    assert [one["caption"] for one in more] == ["mask", "probability", "“the”", "“red”", "“cube”"]
    mask = cv2.imread(more[0]["image"]["path"])[::8, ::8, 0]
    np.testing.assert_array_equal(mask, expected.mask * np.uint8(255))
    assert ask(page, "/gradio_api/file=" + shown["path"])[0] == 200
    assert path.startswith(str(page.folder))
    assert answer(page, picture, " ", 0) == (500, "the sentence is empty: say what to look for")
    assert "at most 2000 characters" in answer(page, picture, "cube " * 500, 0)[1]
    assert answer(page, picture, "a cube", 10**9)[0] == 500
    assert "no picture yet" in answer(page, None, "a cube", 0)[1]


def test_it_reaches_no_file_and_fetches_nothing(page, tmp_path):
    secret = tmp_path / "secret.png"
    cv2.imwrite(str(secret), PICTURE)
    for place in (secret, ROOT / "pyproject.toml", "/etc/passwd"):
        assert ask(page, f"/gradio_api/file={place}")[0] in (403, 404)
        given = {"path": str(place), "meta": {"_type": "gradio.FileData"}}
        status, message = answer(page, given, "a cube", 0)
        assert status == 500
        assert "secret" not in str(message).replace(str(secret), "")
    given = {"path": "http://127.0.0.1:9/a.png", "meta": {"_type": "gradio.FileData"}}
    assert answer(page, given, "a cube", 0)[0] == 403
    assert upload(page, b"x", name="../../../tmp/escaped.png")[0] == 200
    assert not list(Path("/tmp").glob("escaped.png"))
    found = {p.name for p in page.folder.rglob("*") if p.is_file()}
    assert "escaped.png" in found


def test_what_is_too_large_or_no_picture(page):
    connection = http.client.HTTPConnection(page.address.removeprefix("http://"), timeout=60)
    connection.putrequest("POST", "/gradio_api/upload")
    connection.putheader("Content-Length", "1100000")
    connection.endheaders()  # it is refused before it comes
    assert connection.getresponse().status == 413
    connection.close()
    _, where = upload(page, b"no picture")
    given = {"path": json.loads(where)[0], "meta": {"_type": "gradio.FileData"}}
    assert answer(page, given, "a cube", 0)[0] == 500


def test_other_pages_are_refused(page):
    assert ask(page, "/", Origin="https://evil.example")[0] == 403
    assert ask(page, "/", Host="evil.example")[0] == 403
    config = json.loads(ask(page, "/config")[1])
    assert config["analytics_enabled"] is False
    assert ask(page, "/gradio_api/run/answer", b"{}")[0] == 404
    assert "://" not in "".join(config["stylesheets"])


def test_a_port_in_use(page):
    from vpd.serve.page import running

    port = int(page.address.rpartition(":")[2])
    own = [Served("tiny", "refer", page.model)]
    with pytest.raises(OSError, match=f"port {port} .* in use"), running(own, Limits(), port):
        pass
    assert len(list(page.folder.glob("vpd-serve-*"))) == 1
    assert ask(page, "/config")[0] == 200


def test_without_gradio_one_message(monkeypatch):
    from vpd.cli import main
    from vpd.serve.page import check_installed

    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(ImportError, match=r"pip install 'vpd\[serve\]'"):
        check_installed()
    assert main(["serve"]) == 2
    assert main(["serve", "--port", "70000"]) == 2


@pytest.mark.slow
@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM])
def test_the_command_serves_until_it_is_ended(tmp_path, sign):
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("no gradio")
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(tmp_path)}
    words = ["-m", "vpd.cli", "serve", "--model", "vpd-mini-refer", "--port", "0"]
    process = subprocess.Popen(
        [sys.executable, *words], env=environment, cwd=tmp_path, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    try:
        line = process.stderr.readline()
        while line and "http://127.0.0.1:" not in line:
            line = process.stderr.readline()
        address = line.split()[1]
        with urllib.request.urlopen(address, timeout=60) as page:
            assert b"vpd" in page.read()
        assert [path.name[:10] for path in tmp_path.glob("vpd-*")] == ["vpd-serve-"]
        process.send_signal(sign)
        said, _ = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 0
    assert said == "served vpd-mini-refer\n"
    assert list(tmp_path.iterdir()) == []
