"""What the guard before both servers lets pass, by raw requests to a real server behind it."""

import os
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import uvicorn

from atelier.services import background_processes, local_servers, server_records
from atelier.services.origin_guard import (
    HOSTS_VARIABLE,
    OriginGuard,
    allowed,
    origin_of,
    page_policy,
)
from tasks.store.files import BadInput

JSON = ("Content-Type", "application/json")
UPGRADE = (
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
)
Header = tuple[str, str]


async def application(scope: Any, receive: Any, send: Any) -> None:
    """Says what it was asked, and takes every web socket."""
    if scope["type"] == "websocket":
        await receive()
        await send({"type": "websocket.accept"})
        await send({"type": "websocket.close"})
    elif scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": scope["method"].encode()})


class Server:
    """A guarded server in a thread, whose parser is that of both servers."""

    def __init__(self, further: str = "", **wanted: bool) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        hosts = allowed(self.port, further)
        wanted = {"wants_json": True, **wanted}
        app = OriginGuard(application, hosts, page_policy(hosts.origins), **wanted)
        config = uvicorn.Config(
            app, port=self.port, loop="asyncio", http="h11", lifespan="off", log_level="critical"
        )
        self.server = uvicorn.Server(config)
        self.thread = threading.Thread(target=self.server.run, daemon=True)

    def __enter__(self) -> "Server":
        self.thread.start()
        while not self.server.started:
            time.sleep(0.01)
        return self

    def __exit__(self, *_: object) -> None:
        self.server.should_exit = True
        self.thread.join()

    def status(
        self, method: str, *headers: Header, body: bytes = b"", host: str = "", path: str = "/"
    ) -> int:
        """The status of the answer to a raw request; its Host is ours unless another is given."""
        host = host or f"127.0.0.1:{self.port}"
        lines = [f"{method} {path} HTTP/1.1", f"Host: {host}"]
        lines += [f"{name}: {value.format(port=self.port)}" for name, value in headers]
        if body:
            lines.append(f"Content-Length: {len(body)}")
        with socket.create_connection(("127.0.0.1", self.port), timeout=10) as connection:
            connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
            answer = connection.recv(4096)
        return int(answer.split()[1])


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server() as started:
        yield started


OURS = ["127.0.0.1:{port}", "localhost:{port}", "[::1]:{port}", "LOCALHOST:{port}", "localhost:9"]
FOREIGN = [
    *("evil.example", "evil.example:{port}", "10.evil.example", "192.168.evil.example", "0.0.0.0"),
    *("localhost.evil.example", "evil.example/127.0.0.1", "127.0.0.1@evil.example", "127.0.0.1:x"),
    *(
        "[::1].evil.example",
        "[::1",
        "localhost:{port}:{port}",
        "evil.example#127.0.0.1",
        "10.0.0.5",
    ),
]


@pytest.mark.parametrize("host", OURS)
def test_the_names_of_loopback_are_ours(server: Server, host: str) -> None:
    assert server.status("GET", host=host.format(port=server.port)) == 200


@pytest.mark.parametrize("host", FOREIGN)
@pytest.mark.parametrize("method", ["GET", "POST", "websocket"])
def test_a_foreign_host_is_refused(server: Server, method: str, host: str) -> None:
    """A name of the attacker's that resolves to 127.0.0.1 makes our server one of his origin."""
    kind: tuple[Header, ...] = UPGRADE if method == "websocket" else (JSON,)
    asked = "GET" if method == "websocket" else method

    status = server.status(asked, *kind, host=host.format(port=server.port))

    assert status in (400, 403)


@pytest.mark.parametrize("first", ["127.0.0.1:{port}", "evil.example"])
def test_two_host_headers_are_refused(server: Server, first: str) -> None:
    second = {"127.0.0.1:{port}": "evil.example", "evil.example": "127.0.0.1:{port}"}[first]

    status = server.status("GET", ("Host", second), host=first.format(port=server.port))

    assert status == 400


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("credentials", "status"),
    [
        ((), 200),  # the server behind asks for some
        (("Basic dTpw",), 200),
        (("basic dTpw",), 200),
        (("Bearer token",), 401),
        (("Digest username=u",), 401),
        (("",), 401),
        (("Basic dTpw", "Bearer token"), 401),
    ],
)
def test_before_accounts_only_a_users_password_passes(
    credentials: tuple[str, ...], status: int, method: str
) -> None:
    headers = [("Authorization", each) for each in credentials]

    with Server(wants_password=True) as guarded:
        assert guarded.status(method, JSON, *headers) == status


def test_without_accounts_any_credentials_pass(server: Server) -> None:
    assert server.status("GET", ("Authorization", "Bearer token")) == 200


STRANGERS = [
    *("https://evil.example", "http://evil.example:{port}", "null", "http://127.0.0.1:1"),
    *("http://localhost", "https://127.0.0.1:{port}", "http://127.0.0.1:{port}.evil.example"),
    *("file://", "chrome-extension://abcdefgh", "http://127.0.0.1:{port}@evil.example"),
]


@pytest.mark.parametrize("origin", STRANGERS)
@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"])
def test_a_page_of_another_origin_gets_nothing(server: Server, method: str, origin: str) -> None:
    assert server.status(method, JSON, ("Origin", origin), body=b"{}") == 403


@pytest.mark.parametrize("origin", STRANGERS)
def test_a_page_of_another_origin_opens_no_web_socket(server: Server, origin: str) -> None:
    assert server.status("GET", *UPGRADE, ("Origin", origin)) == 403


def test_web_sockets_of_clients_and_of_our_pages_are_taken(server: Server) -> None:
    assert server.status("GET", *UPGRADE) == 101
    assert server.status("GET", *UPGRADE, ("Origin", "http://localhost:{port}")) == 101
    assert server.status("GET", *UPGRADE, ("Sec-Fetch-Site", "cross-site")) == 403


def test_a_second_origin_does_not_hide_behind_the_first(server: Server) -> None:
    ours, theirs = ("Origin", "http://127.0.0.1:{port}"), ("Origin", "https://evil.example")

    assert server.status("POST", JSON, ours, theirs) == 403
    assert server.status("POST", JSON, theirs, ours) == 403


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_a_page_of_another_site_changes_nothing(server: Server, method: str, site: str) -> None:
    """A page on another port of this machine is of the same site."""
    own = ("Origin", "http://127.0.0.1:{port}")

    assert server.status(method, JSON, ("Sec-Fetch-Site", site)) == 403
    assert server.status(method, JSON, ("Sec-Fetch-Site", site), own) == 403
    assert server.status("GET", ("Sec-Fetch-Site", site)) == 200  # a link, or a picture


@pytest.mark.parametrize("site", ["cross-site", "same-site", "elsewhere"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_page_of_another_site_asks_the_api_nothing(
    server: Server, method: str, site: str
) -> None:
    """As a picture or a link it would: MLflow's server calls the address that such a GET names."""
    asks = (
        "/ajax-api/3.0/mlflow/assistant/providers/ollama/models?base_url=http://127.0.0.1:9",
        "//ajax-api/2.0/mlflow/gateway-proxy",
        "/%61jax-api/3.0/mlflow/assistant/providers/claude_code/health",
        *("/api/collections/views/demo-flows", "/gateway/mlflow/v1/models", "/graphql"),
    )
    of_a_page, own = ("Sec-Fetch-Site", site), ("Origin", "http://localhost:{port}")
    for path in asks:
        assert server.status(method, of_a_page, path=path) == 403
        assert server.status(method, of_a_page, ("Sec-Fetch-Dest", "image"), path=path) == 403
        assert server.status(method, path=path) == 200  # a program
        for ours in ("same-origin", "none"):
            assert server.status(method, ("Sec-Fetch-Site", ours), path=path) == 200
        assert server.status(method, of_a_page, own, path=path) == 200
    for path in ("/", "/get-artifact?path=x&run_uuid=y", "/runs", "/apis"):
        assert server.status(method, of_a_page, path=path) == 200


def test_our_own_pages_may_change_things(server: Server) -> None:
    for site in ("same-origin", "none"):
        own = ("Origin", "http://127.0.0.1:{port}")
        assert server.status("POST", JSON, own, ("Sec-Fetch-Site", site), body=b"{}") == 200
    # A page that was opened at localhost asks the API at 127.0.0.1.
    other = ("Origin", "http://localhost:{port}")
    assert server.status("POST", JSON, other, ("Sec-Fetch-Site", "cross-site"), body=b"{}") == 200


@pytest.mark.parametrize(
    "kind", ["text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "", "json"]
)
def test_bodies_of_other_types_are_refused_where_json_is_wanted(kind: str) -> None:
    headers = (("Content-Type", kind),)
    with Server() as strict, Server(wants_json=False) as lenient:
        for method in ("POST", "PUT", "PATCH", "DELETE"):
            assert strict.status(method, *headers, body=b"{}") == 415
            assert strict.status(method, body=b"{}") == 415  # no type at all
            assert strict.status(method, JSON, *headers, body=b"{}") == 415
            assert strict.status(method, ("Transfer-Encoding", "chunked")) == 415
            assert lenient.status(method, *headers, body=b"{}") == 200


def test_requests_without_a_body_need_no_type(server: Server) -> None:
    """Prefect's own client sends such: to set a schedule, to resume a run."""
    for method in ("POST", "DELETE", "PATCH"):
        assert server.status(method) == 200
        assert server.status(method, ("Content-Length", "0")) == 200
    json_of_a_kind = ("Content-Type", "Application/JSON; charset=utf-8")
    assert server.status("POST", json_of_a_kind, body=b"{}") == 200


def test_further_hosts_count_as_host_and_as_origin() -> None:
    with Server("atelier.example.org, 10.0.0.5:4200") as server:
        for host in ("atelier.example.org", "Atelier.Example.Org:443", "10.0.0.5:4200"):
            assert server.status("GET", host=host) == 200
        for host in ("10.0.0.5", "10.0.0.5:4201", "x.atelier.example.org"):
            assert server.status("GET", host=host) == 400
        for origin in (
            *("https://atelier.example.org", "http://atelier.example.org"),
            *("http://atelier.example.org:{port}", "http://10.0.0.5:4200"),
        ):
            assert server.status("POST", JSON, ("Origin", origin), body=b"{}") == 200
        for origin in ("https://atelier.example.org:8443", "http://10.0.0.5"):
            assert server.status("POST", JSON, ("Origin", origin), body=b"{}") == 403


@pytest.mark.parametrize("further", ["https://x.org", "*", "a b", "x.org:99999", "x.org:", "a/b"])
def test_what_is_no_host_is_refused_by_name(further: str) -> None:
    with pytest.raises(BadInput, match=HOSTS_VARIABLE):
        allowed(4200, further)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of MLflow's own, at its import
def test_mlflows_own_check_lets_pass_what_the_guard_does() -> None:
    from mlflow.server.security_utils import is_allowed_host_header

    hosts = allowed(5000, "atelier.example.org,10.0.0.5:4200,[fd00::1]:4200")
    patterns = sorted(hosts.patterns())

    for host in (
        *("127.0.0.1:5000", "localhost:5000", "[::1]:5000", "atelier.example.org", "10.0.0.5:4200"),
        *("atelier.example.org:443", "[fd00::1]:4200"),
    ):
        assert hosts.is_addressed(host)
        assert is_allowed_host_header(patterns, host), host
    assert not is_allowed_host_header(patterns, "10.evil.example")


def test_origins_of_addresses_hold_no_password() -> None:
    assert origin_of("http://someone:secret@127.0.0.1:5000/x?y") == "http://127.0.0.1:5000"
    assert origin_of("https://mlflow.example.org") == "https://mlflow.example.org"
    assert origin_of("http://[::1]:5000/") == "http://[::1]:5000"
    assert origin_of("sqlite:///mlflow.db") is None
    assert origin_of("") is None


def test_both_servers_are_started_behind_the_guard(
    atelier_home: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[tuple[list[str], dict[str, str]]] = []

    def start(name: str, arguments: list[str], url: str, port: int, environment: Any) -> Any:
        started.append((arguments, environment))
        return server_records.Server(name, url, port, os.getpid(), 0.0)

    monkeypatch.setattr(background_processes, "start", start)
    monkeypatch.setenv(HOSTS_VARIABLE, "atelier.example.org")
    for name in ("prefect", "mlflow"):
        local_servers._start(name, 4321)

    assert [arguments[-3:] for arguments, _ in started] == [
        ["atelier.services.guarded_server", "prefect", "4321"],
        ["atelier.services.guarded_server", "mlflow", "4321"],
    ]
    environment = started[1][1]
    assert "atelier.example.org" in environment["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    for name in ("MLFLOW_SERVER_CORS_ALLOWED_ORIGINS", "PREFECT_SERVER_CORS_ALLOWED_ORIGINS"):
        assert "https://atelier.example.org" in environment[name].split(",")
