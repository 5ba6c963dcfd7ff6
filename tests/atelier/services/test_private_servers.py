"""A home with a secret: nobody gets anything without it, and every command works with it."""

import http.client
import json
import re
import subprocess
import time
from base64 import b64encode
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from atelier.services.server_requests import ask_prefect

Command = Callable[..., "subprocess.CompletedProcess[str]"]
SECONDS_TO_WAIT = 240
HOST = "atelier.example.org"

pytestmark = pytest.mark.soak


@dataclass(frozen=True)
class Stack:
    """What `up` started with a secret, with Prefect's CSRF tokens, and with one more host."""

    home: Path
    text: Path
    printed: str
    prefect: str
    mlflow: str
    run: Callable[..., "subprocess.CompletedProcess[str]"]

    @property
    def secret(self) -> str:
        return (self.home / "secret").read_text().strip()

    @property
    def password(self) -> str:
        return self.secret.partition(":")[2]

    def status(self, url: str, path: str, credentials: str | None, **headers: str) -> int:
        """The status of an answer to a GET."""
        address = urlsplit(url)
        assert address.hostname is not None
        if credentials is not None:
            headers["Authorization"] = f"Basic {b64encode(credentials.encode()).decode()}"
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=60)
        connection.request("GET", path, headers=headers)
        status = connection.getresponse().status
        connection.close()
        return status


@pytest.fixture(scope="module")
def stack(command: Command, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("private")
    text = home / "tale.txt"
    text.write_text("\n".join(f"the cat sees bird number {n * n % 97}." for n in range(600)) + "\n")
    extra = {"PREFECT_SERVER_CSRF_PROTECTION_ENABLED": "true", "ATELIER_ALLOWED_HOSTS": HOST}

    def run(*arguments: str) -> "subprocess.CompletedProcess[str]":
        return command(home, *arguments, **extra)

    try:
        done = command(home, "up", ATELIER_AUTH="1", **extra)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        found = dict(re.findall(r"^(Prefect|MLflow) UI +(http://[^/\s]+)", done.stdout, re.M))
        yield Stack(home, text, done.stdout, found["Prefect"], found["MLflow"], run)
    finally:
        stopped = run("down")
    assert (stopped.returncode, stopped.stderr) == (0, "")
    assert "stopped: worker, mlflow, prefect" in stopped.stdout


def test_people_are_told_how_to_log_in_and_not_told_the_secret(stack: Stack) -> None:
    assert f"log in      {stack.home / 'secret'}: " in stack.printed
    assert stack.password not in stack.printed
    assert (stack.home / "secret").stat().st_mode & 0o777 == 0o600


CLOSED = {
    "prefect": ["/api/admin/version", "/api/collections/views/aggregate-worker-metadata"],
    "mlflow": [
        *("/", "/version", "/get-artifact?path=x&run_uuid=y", "/graphql", "/signup"),
        *(
            "/api/2.0/mlflow/experiments/get?experiment_id=0",
            "/ajax-api/3.0/mlflow/assistant/config",
        ),
        *("/api/2.0/mlflow-artifacts/artifacts", "/model-versions/get-artifact?name=a&version=1"),
    ],
}


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_without_the_secret_there_is_nothing(stack: Stack, name: str) -> None:
    url = getattr(stack, name)
    wrong = [None, "admin:password1234", "admin:password", "atelier:", f"admin:{stack.password}"]

    for path in CLOSED[name]:
        for credentials in wrong:
            assert stack.status(url, path, credentials) == 401, (path, credentials)
        assert stack.status(url, path, None, Authorization="Bearer token") == 401, path
        assert stack.status(url, path, stack.secret) != 401
    health = {"prefect": "/api/health", "mlflow": "/health"}[name]
    assert stack.status(url, health, None, Host=HOST) == 200
    assert stack.status(url, health, None, Host="evil.example") == 400


def test_every_command_works(stack: Stack) -> None:
    done = stack.run(
        "run", "--preset", "quick", "--models", "ngram", "--text", f"file:{stack.text}"
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert re.search(r"^tale-ngram +1 +champion", done.stdout, re.M)
    for arguments, told in (
        (("status",), "Completed"),
        (("history", "tale-ngram"), "promote  none -> 1"),
        (("sample", "--seed", "3"), "gallery of 1 champion written"),
        (("explain", "tale-ngram"), "made"),
        (("gc",), ""),
        (("reproduce", "tale-ngram@champion"), ""),
        (("up",), "everything was up already"),
    ):
        done = stack.run(*arguments)
        assert done.returncode == 0, (arguments, done.stdout + done.stderr)
        assert told in done.stdout, arguments
        assert "Traceback" not in done.stdout + done.stderr
    for name in ("prefect", "mlflow", "worker"):
        status = stack.run("status").stdout
        assert re.search(rf"^{name} +http://127\.0\.0\.1:\S+ +healthy", status, re.M), status


def test_a_run_of_the_worker_works(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", stack.secret)
    named = {"deployments": {"name": {"any_": ["retrain-ngram"]}}}
    (deployment,) = ask_prefect(stack.prefect, "deployments/filter", named)
    given = {"text": f"file:{stack.text}", "preset": "quick", "seed": 4}
    order = {"parameters": {**deployment["parameters"], **given}}

    ordered = ask_prefect(stack.prefect, f"deployments/{deployment['id']}/create_flow_run", order)

    chosen = {"flow_runs": {"id": {"any_": [ordered["id"]]}}}
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while True:
        (run,) = ask_prefect(stack.prefect, "flow_runs/filter", chosen)
        if run["state_type"] in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED"):
            break
        assert time.monotonic() < deadline, run["state_name"]
        time.sleep(1)
    assert run["state_type"] == "COMPLETED", run["state"]


def test_the_secret_is_in_no_other_file_and_on_no_command_line(stack: Stack) -> None:
    words = [stack.password.encode(), b64encode(stack.secret.encode())]

    found = [
        path
        for path in stack.home.rglob("*")
        if path.is_file() and any(word in path.read_bytes() for word in words)
    ]

    assert found == [stack.home / "secret"]
    records = json.loads((stack.home / "servers.json").read_text())
    parents = [psutil.Process(record["pid"]) for record in records.values()]
    for process in [*parents, *(each for p in parents for each in p.children(recursive=True))]:
        assert stack.password not in " ".join(process.cmdline())


def test_prefects_pages_ask_for_the_secret(page: Any, stack: Stack) -> None:
    for path in ("/dashboard", "/v2/dashboard"):
        page.goto(stack.prefect + path)
        page.evaluate("localStorage.clear()")
        page.goto(stack.prefect + path)
        field = page.locator("input[type=password]")
        field.fill(stack.secret)
        field.press("Enter")
        page.get_by_text("Active Work Pools").first.wait_for()


def test_after_the_secret_was_replaced_the_old_one_is_worth_nothing(stack: Stack) -> None:
    old, new = stack.secret, "atelier:correct-horse-battery-staple"
    (stack.home / "secret").write_text(f"{new}\n")

    done = stack.run("up")

    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    assert "stopping the mlflow server, to start it with the present guard" in done.stdout
    for url, path in (
        (stack.prefect, "/api/admin/version"),
        (stack.mlflow, "/api/2.0/mlflow/experiments/get?experiment_id=0"),
    ):
        assert stack.status(url, path, old) == 401
        assert stack.status(url, path, new) == 200


def test_what_a_person_sets_for_prefect_alone_works(command: Command, tmp_path: Path) -> None:
    """Its server asks for it, its clients are told; raw requests bring it along."""
    home = tmp_path / "home"
    theirs = {"PREFECT_SERVER_API_AUTH_STRING": "ann:her-own-password"}
    try:
        done = command(home, "up", **theirs)
        assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
        found = dict(re.findall(r"^(Prefect|MLflow) UI +(http://[^/\s]+)", done.stdout, re.M))

        stranger = command(home, "status")
        wrong = command(home, "up", PREFECT_API_AUTH_STRING="ann:wrong", **theirs)
        alike = command(home, "status", PREFECT_API_AUTH_STRING="ann:her-own-password")

        assert "does not take our credentials; set PREFECT_API_AUTH_STRING" in stranger.stdout
        assert (wrong.returncode, wrong.stdout) == (1, "")
        assert "does not take our credentials" in wrong.stderr
        assert "what runs next\n  " in alike.stdout
        assert found["Prefect"] in alike.stdout
    finally:
        stopped = command(home, "down")
    assert "stopped: worker, mlflow, prefect" in stopped.stdout
    assert (stopped.returncode, stopped.stderr) == (0, "")
