"""What our raw requests bring along, and what they make of an answer."""

import json
import threading
from base64 import b64encode
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from atelier.services.server_requests import AccessRefused, ask_prefect, check_access, is_healthy

CREDENTIALS = ("AUTH_STRING", "KEY")


class Service(ThreadingHTTPServer):
    """Stands for either server; keeps what it was asked, and may want things."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.asked: list[tuple[str, dict[str, str], bytes]] = []
        self.wants_csrf = False
        self.authorization: str | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Service

    def answer(self, status: int, body: Any) -> None:
        content = body.encode() if isinstance(body, str) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def do_GET(self) -> None:
        self.server.asked.append((self.path, dict(self.headers), b""))
        if self.path.startswith("/api/csrf-token?client="):
            self.answer(200, {"token": "T-" + self.path.partition("=")[2]})
        else:
            known = {"/health": (200, "OK"), "/api/health": (200, "true")}
            self.answer(*known.get(self.path, (404, "not here")))

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.asked.append((self.path, dict(self.headers), body))
        token, client = (self.headers.get(f"Prefect-Csrf-{each}") for each in ("Token", "Client"))
        if self.server.authorization not in (None, self.headers.get("Authorization")):
            self.answer(401, {"exception_message": "Unauthorized"})
        elif self.server.wants_csrf and token != f"T-{client}":
            self.answer(403, {"detail": "Missing CSRF token."})
        else:
            self.answer(200, [1])

    def log_message(self, *_: object) -> None:
        """Be silent."""


@pytest.fixture
def service(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    for name in ("PREFECT_API_AUTH_STRING", "PREFECT_API_KEY", "MLFLOW_TRACKING_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
        monkeypatch.delenv(name, raising=False)
    with Service() as started:
        threading.Thread(target=started.serve_forever, daemon=True).start()
        yield started
        started.shutdown()


def basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"


def test_a_question_is_json_and_knows_no_proxy(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)

    assert ask_prefect(service.url, "flow_runs/filter", {"limit": 1}) == [1]

    ((path, headers, body),) = service.asked
    assert (path, body) == ("/api/flow_runs/filter", b'{"limit": 1}')
    assert headers["Content-Type"] == "application/json"
    assert "Authorization" not in headers


def test_prefects_credentials_go_along(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    service.authorization = basic("somebody:s3cret:with colon")
    with pytest.raises(AccessRefused, match="PREFECT_API_AUTH_STRING"):
        ask_prefect(service.url, "x", {})
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "somebody:s3cret:with colon")
    assert ask_prefect(service.url, "x", {}) == [1]

    service.authorization = "Bearer pnu_1"
    monkeypatch.delenv("PREFECT_API_AUTH_STRING")
    monkeypatch.setenv("PREFECT_API_KEY", "pnu_1")
    assert ask_prefect(service.url, "x", {}) == [1]


def test_a_csrf_token_is_fetched_where_one_is_wanted(service: Service) -> None:
    service.wants_csrf = True

    assert ask_prefect(service.url, "x", {}) == [1]

    assert [path.partition("?")[0] for path, _, _ in service.asked] == [
        "/api/x",
        "/api/csrf-token",
        "/api/x",
    ]


def test_mlflows_credentials_come_from_the_environment_or_the_address(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    service.authorization = basic("somebody:p@ss word")
    with pytest.raises(AccessRefused, match="MLFLOW_TRACKING_PASSWORD"):
        check_access("mlflow", service.url)
    with_password = service.url.replace("//", "//somebody:p%40ss%20word@")
    check_access("mlflow", with_password)
    assert is_healthy("mlflow", with_password)
    with pytest.raises(AccessRefused) as refused:
        check_access("mlflow", with_password.replace("somebody", "nobody"))
    assert "p%40ss" not in str(refused.value)

    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", "somebody")
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", "p@ss word")
    check_access("mlflow", service.url)


def test_prefects_credentials_are_not_sent_to_mlflow(
    service: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "somebody:secret")

    check_access("mlflow", service.url)

    assert "Authorization" not in service.asked[0][1]


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_a_server_that_is_gone_or_odd_is_not_healthy(service: Service, name: str) -> None:
    assert is_healthy(name, service.url)
    for url in ("http://127.0.0.1:9", "http://127.0.0.1:x", "http://[::1", "sqlite:///x", "x"):
        assert not is_healthy(name, url)
    other = {"prefect": "/health", "mlflow": "/api/health"}[name]
    assert not is_healthy(name, service.url + other)
