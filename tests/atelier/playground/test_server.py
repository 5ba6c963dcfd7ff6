"""The playground's server: what its guard lets pass, whose scripts run, and how it is started."""

import asyncio
import os
import re
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import uvicorn

pytest.importorskip("nicegui", reason="the extra `play` is not installed")

from nicegui import app
from nicegui.testing.general import nicegui_reset_globals

from atelier.playground import server
from atelier.playground.own import MAX_BYTES
from atelier.playground.server import ScriptNonces
from tests.atelier.playground.conftest import Shelf
from tests.imports import HEAVY, imported_by

ROOT = Path(__file__).resolve().parents[3]
UPGRADE = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
SOCKET = "/_nicegui_ws/socket.io/?EIO=4&transport=websocket"


@pytest.fixture(scope="module")
def port(migrated_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """Of a server of `atelier play` on a registry without models."""
    home = tmp_path_factory.mktemp("play") / "home"
    home.mkdir(mode=0o700)
    (home / "mlflow.db").write_bytes(migrated_database.read_bytes())
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        free = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, "-m", "atelier", "play", "--port", str(free)],
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env={**os.environ, "ATELIER_HOME": str(home), "MLFLOW_TRACKING_URI": ""},
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        assert said == f"playground  http://127.0.0.1:{free}\n"
        yield free
    finally:
        process.terminate()
        assert process.wait(30) == 0
        process.communicate()


def answer(port: int, path: str, *headers: str, host: str = "", method: str = "GET") -> str:
    """The head of an answer to a raw request."""
    lines = [f"{method} {path} HTTP/1.1", f"Host: {host or f'127.0.0.1:{port}'}", *headers]
    with socket.create_connection(("127.0.0.1", port), timeout=30) as connection:
        connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        return connection.recv(65536).decode(errors="replace")


def status(*arguments: Any, **named: Any) -> int:
    return int(answer(*arguments, **named).split()[1])


@pytest.mark.slow
def test_only_this_machine_and_its_own_pages_are_answered(port: int) -> None:
    assert status(port, "/text", "Connection: close") == 200
    assert status(port, "/text", "Connection: close", host=f"localhost:{port}") == 200
    for path in ("/", "/text", "/images", "/_nicegui/3/static/nicegui.js"):
        assert status(port, path, host="evil.example") == 400
        assert status(port, path, "Host: 127.0.0.1") == 400  # a second one
        assert status(port, path, "Origin: http://evil.example") == 403
    upgrade = UPGRADE.strip().split("\r\n")
    assert status(port, SOCKET, *upgrade, f"Origin: http://127.0.0.1:{port}") == 101
    assert status(port, SOCKET, *upgrade, "Origin: http://evil.example") == 403
    assert status(port, SOCKET, *upgrade, "Origin: null") == 403
    assert status(port, SOCKET, *upgrade, f"Origin: http://127.0.0.1:{port + 1}") == 403
    assert status(port, SOCKET, *upgrade, host="evil.example") == 403
    polling = SOCKET.replace("websocket", "polling")
    assert status(port, polling, "Sec-Fetch-Site: cross-site") == 403
    assert status(port, "/docs") == status(port, "/openapi.json") == 404


@pytest.mark.slow
def test_a_body_is_refused_before_it_is_read(port: int) -> None:
    path, same = "/_nicegui/client/x/upload/1", "Sec-Fetch-Site: same-origin"
    for length, wanted in ((MAX_BYTES, 404), (MAX_BYTES + 100_000, 413), (10**15, 413)):
        # Nothing is sent of it: who waits for all of it does not answer.
        assert status(port, path, same, f"Content-Length: {length}", method="POST") == wanted
    assert status(port, path, same, "Transfer-Encoding: chunked", method="POST") == 411
    assert status(port, path, "Origin: http://evil.example", method="POST") == 403


@pytest.mark.slow
def test_a_pages_scripts_bear_its_nonce_and_no_other_host_is_named(port: int) -> None:
    def page() -> tuple[str, str]:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/text") as found:
            return found.read().decode(), found.headers["Content-Security-Policy"]

    text, policy = page()
    (nonce,) = re.findall(r"script-src 'nonce-([\w-]+)'", policy)
    scripts = re.findall(r"<script[^>]*>", text)
    assert scripts and all(f'nonce="{nonce}"' in script for script in scripts)
    assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
    assert nonce not in page()[0]
    addresses = set(re.findall(r"(?:https?:)?//[\w.-]+\.\w+", text))
    assert addresses <= {"//www.w3.org"}, addresses  # the name of SVG


def test_what_is_no_page_passes_as_it_is() -> None:
    sent: list[Any] = []

    async def application(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]})
        await send({"type": "http.response.body", "body": b"<script", "more_body": True})
        await send({"type": "http.response.body", "body": b">"})

    async def send(message: Any) -> None:
        sent.append(message)

    asyncio.run(ScriptNonces(application)({"type": "http"}, None, send))  # type: ignore[arg-type]
    assert [each.get("body") for each in sent] == [None, b"<script", b">"]


def test_loop_and_parser_are_named(shelf: Shelf, monkeypatch: pytest.MonkeyPatch) -> None:
    """NiceGUI brings uvloop and httptools, whose parser lets two Host headers pass."""
    configs: list[uvicorn.Config] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: configs.append(self.config))
    with nicegui_reset_globals(), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server.serve(listener)
    (config,) = configs
    assert (config.loop, config.http, config.host) == ("asyncio", "h11", "127.0.0.1")


def test_a_busy_machine_does_not_make_pages_begin_anew(
    shelf: Shelf, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of itself NiceGUI gives a page up after two silent seconds, and its text is written again."""
    waited: list[float] = []
    monkeypatch.setattr(
        uvicorn.Server, "run", lambda *_, **__: waited.append(app.config.reconnect_timeout)
    )
    with nicegui_reset_globals(), socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server.serve(listener)
    assert waited == [30]


def test_whoever_serves_pages_holds_no_weights() -> None:
    imported, _ = imported_by("import atelier.playground.server", [*HEAVY, "safetensors"])

    assert imported == []
