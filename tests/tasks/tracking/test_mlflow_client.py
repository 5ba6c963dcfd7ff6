"""How long MLflow's client waits while it hands a file to a server."""

import http.client
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from tasks.tracking.mlflow_client import SECONDS_OF_A_LARGE_FILE, large_files

LIMIT = "MLFLOW_HTTP_REQUEST_TIMEOUT"
SIZE = 1_000_000
BYTES_OF_A_PIECE = 16_384


class Handler(BaseHTTPRequestHandler):
    """Stands for MLflow's server: it takes files."""

    def do_PUT(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"{}")

    def log_message(self, *_: object) -> None:
        """Keep the tests' output free of its lines."""


@pytest.fixture
def upload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Uploads a file; returns the bytes of each piece, and all limits that their sockets had."""
    pieces: list[int] = []
    limits: set[float | None] = set()
    send, answer = http.client.HTTPConnection.send, http.client.HTTPConnection.getresponse

    def sent(self: Any, data: Any) -> None:
        send(self, data)
        pieces.append(len(data))
        limits.add(self.sock.gettimeout())

    def answered(self: Any) -> Any:
        limits.add(self.sock.gettimeout())
        return answer(self)

    monkeypatch.setattr(http.client.HTTPConnection, "send", sent)
    monkeypatch.setattr(http.client.HTTPConnection, "getresponse", answered)
    monkeypatch.delenv(LIMIT, raising=False)
    (tmp_path / "weights").write_bytes(bytes(SIZE))
    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"

        def upload() -> tuple[list[int], set[float | None]]:
            pieces.clear()
            limits.clear()
            repository = get_artifact_repository("mlflow-artifacts:/1", tracking_uri=address)
            repository.log_artifact(str(tmp_path / "weights"))
            return pieces, limits

        yield upload
        server.shutdown()


def test_the_limit_is_of_each_piece_and_not_of_the_whole_file(upload: Any) -> None:
    """A slow line that goes on is no fault: a socket's limit begins anew with each piece."""
    pieces, limits = upload()

    assert sum(pieces) > SIZE
    assert max(pieces) <= BYTES_OF_A_PIECE
    assert limits == {120}


def test_the_answer_to_a_large_file_is_waited_for_longer(upload: Any) -> None:
    with large_files():
        _, limits = upload()
    assert limits == {SECONDS_OF_A_LARGE_FILE}
    assert LIMIT not in os.environ


def test_a_persons_own_limit_wins_and_stays(upload: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(LIMIT, "7")
    with large_files():
        _, limits = upload()
    assert limits == {7}
    assert os.environ[LIMIT] == "7"
