"""Requests as hostile pages make them, against the running servers: all must be refused."""

import json
import socket
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from atelier.services.server_requests import ask_prefect
from faults.servers import Studio
from faults.tally import Tally

Headers = list[tuple[str, str]]
REFUSALS = (400, 403, 415)
JSON = ("Content-Type", "application/json")
UPGRADE = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ("Sec-WebSocket-Protocol", "prefect"),
]
EXPERIMENT = {"name": "hostile"}


def attack(studio: Studio, tally: Tally) -> None:
    """Send what pages of others, and names that lead here, could send; count the refusals."""
    studio.run("up", "--no-worker")
    urls = {name: studio.server(name)["url"] for name in ("prefect", "mlflow")}
    before = _state(urls)
    tally.pages += 1  # whether anything is other than it was
    for name, method, path, headers, body in _requests(urls, _automation(urls["prefect"])):
        tally.pages += 1
        port = urlsplit(urls[name]).port
        status = _status(port, method, path, headers, body)
        if status in REFUSALS:
            tally.pages_refused += 1
        else:
            tally.note(f"{name} answered {status} to {method} {path} with {headers}")
    if _state(urls) == before:
        tally.pages_refused += 1
    else:
        tally.note(f"a page changed something: {_state(urls)}, not {before}")
    print(f"  hostile pages: {tally.pages - 1} requests", flush=True)


def _automation(prefect: str) -> bytes:
    """An automation that would run a command of the page's choice."""
    deployment, *_ = ask_prefect(prefect, "deployments/filter", {"limit": 1})
    action = {
        "type": "run-deployment",
        "source": "selected",
        "deployment_id": deployment["id"],
        "job_variables": {"command": "false"},
    }
    trigger = {"type": "event", "posture": "Reactive", "threshold": 1, "within": 0}
    return json.dumps({"name": "hostile", "trigger": trigger, "actions": [action]}).encode()


def _state(urls: dict[str, str]) -> list[Any]:
    from mlflow.tracking import MlflowClient

    kinds = ("automations", "deployments")
    found = [ask_prefect(urls["prefect"], f"{kind}/filter", {}) for kind in kinds]
    experiments = MlflowClient(urls["mlflow"]).search_experiments()
    rows = [sorted(each["id"] for each in rows) for rows in found]
    return [*rows, sorted(each.name for each in experiments)]


def _requests(
    urls: dict[str, str], automation: bytes
) -> Iterator[tuple[str, str, str, Headers, bytes]]:
    """Server, method, path, headers, body."""
    experiment = json.dumps(EXPERIMENT).encode()
    changes = [
        ("prefect", "POST", "/api/automations/", automation),
        ("prefect", "POST", "/api/flow_runs/filter", b"{}"),
        ("mlflow", "POST", "/api/2.0/mlflow/experiments/create", experiment),
        ("mlflow", "POST", "/ajax-api/2.0/mlflow/experiments/create", experiment),
        ("mlflow", "PUT", "/api/2.0/mlflow-artifacts/artifacts/hostile.txt", b"x"),
    ]
    for name, method, path, body in changes:
        host = ("Host", urlsplit(urls[name]).netloc)
        for headers in _of_pages(urls[name]):
            yield name, method, path, [host, *headers], body
        for hosts in _of_names(urls[name]):
            yield name, method, path, [*hosts, JSON], body
    for kind in ([], [("Content-Type", "text/plain")], [("Content-Type", "multipart/form-data")]):
        host = ("Host", urlsplit(urls["prefect"]).netloc)
        yield "prefect", "POST", "/api/automations/", [host, *kind], automation
    for name, path in (("prefect", "/"), ("prefect", "/api/health"), ("mlflow", "/health")):
        for hosts in _of_names(urls[name]):
            yield name, "GET", path, hosts, b""
    for path in ("/api/events/in", "/api/events/out", "/api/logs/out"):
        host = ("Host", urlsplit(urls["prefect"]).netloc)
        for headers in _of_pages(urls["prefect"]):
            yield "prefect", "GET", path, [host, *UPGRADE, *headers], b""
        for hosts in _of_names(urls["prefect"]):
            yield "prefect", "GET", path, [*hosts, *UPGRADE], b""


def _of_pages(url: str) -> list[Headers]:
    """What browsers add to a request of another page: on another port, of another site, hidden."""
    host = urlsplit(url).hostname
    origins = [f"http://{host}:1", "http://localhost:1", "https://evil.example", "null"]
    pages: list[Headers] = [[JSON, ("Origin", origin)] for origin in origins]
    pages += [[("Origin", origin)] for origin in origins]
    pages += [[JSON, ("Sec-Fetch-Site", site)] for site in ("cross-site", "same-site")]
    pages += [[JSON, ("Origin", url), ("Sec-Fetch-Site", "cross-site")]]
    pages += [[JSON, ("Origin", url), ("Origin", "https://evil.example")]]
    return pages


def _of_names(url: str) -> list[Headers]:
    """Host headers of names that were made to lead to this machine, and of two at once."""
    ours = urlsplit(url).netloc
    names = [f"evil.example:{urlsplit(url).port}", "10.evil.example", "localhost.evil.example"]
    return [*([("Host", name)] for name in names), [("Host", ours), ("Host", "evil.example")]]


def _status(port: int | None, method: str, path: str, headers: Headers, body: bytes) -> int:
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers)]
    if body:
        lines.append(f"Content-Length: {len(body)}")
    with socket.create_connection(("127.0.0.1", port), timeout=60) as connection:
        connection.sendall("\r\n".join([*lines, "", ""]).encode() + body)
        return int(connection.recv(4096).split()[1])
