"""`atelier open`: an address that is told, and a browser that is asked."""

import subprocess
import webbrowser
from collections.abc import Callable
from pathlib import Path

import pytest

from atelier.services import local_servers, playgrounds
from atelier.services.server_records import Server

Command = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that a browser was asked to open."""
    addresses: list[str] = []

    def take(address: str) -> bool:
        addresses.append(address)
        return True

    monkeypatch.setattr(webbrowser, "open", take)
    return addresses


def running(monkeypatch: pytest.MonkeyPatch, *, is_healthy: bool) -> None:
    found = [
        (Server(name, f"http://127.0.0.1:{port}", port, 1, process=""), is_healthy)
        for name, port in (("prefect", 4200), ("mlflow", 5000))
    ]
    monkeypatch.setattr(local_servers, "servers", lambda: found)


def test_the_gallery_is_opened_as_a_file(tmp_path: Path, call: Command, opened: list[str]) -> None:
    page = tmp_path / "gallery" / "index.html"
    page.parent.mkdir()
    page.write_text("page")

    done = call(tmp_path, "open", "gallery")

    assert done.stdout == f"{page.as_uri()}\n"
    assert opened == [page.as_uri()]


@pytest.mark.parametrize(
    ("page", "address"),
    [
        ("prefect", "http://127.0.0.1:4200"),
        ("mlflow", "http://127.0.0.1:5000/#/models?workflowType=machine_learning"),
    ],
)
def test_a_servers_page_is_opened(
    tmp_path: Path,
    call: Command,
    opened: list[str],
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    address: str,
) -> None:
    running(monkeypatch, is_healthy=True)

    done = call(tmp_path, "open", page)

    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0] == address
    assert opened == [address]


def test_a_server_elsewhere_is_opened_where_a_person_says(
    tmp_path: Path, call: Command, opened: list[str]
) -> None:
    call(tmp_path, "open", "mlflow", MLFLOW_TRACKING_URI="http://example.test:5000/")

    assert opened == ["http://example.test:5000/#/models?workflowType=machine_learning"]


def test_without_a_browser_the_address_is_there_to_be_copied(
    tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    running(monkeypatch, is_healthy=True)
    monkeypatch.setattr(webbrowser, "open", lambda _: False)

    done = call(tmp_path, "open", "prefect")

    assert done.returncode == 0
    assert done.stdout.startswith("http://127.0.0.1:4200\n")
    assert "no browser could be started here" in done.stdout


def test_the_playground_that_was_started_last_is_opened(
    tmp_path: Path, call: Command, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    with playgrounds.noted(5050), playgrounds.noted(40123):
        done = call(tmp_path, "open", "play")

    assert done.stdout == "http://127.0.0.1:40123\n"
    assert opened == ["http://127.0.0.1:40123"]


def test_a_playground_says_how_to_log_in(
    tmp_path: Path, call: Command, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    secret = tmp_path / "secret"
    secret.touch(0o600)
    secret.write_text("ann:a long password\n".replace(" ", "-"))
    with playgrounds.noted(5050):
        done = call(tmp_path, "open", "play")

    assert done.stdout == (
        f"http://127.0.0.1:5050\nlog in  as ann, with what follows the colon in {secret}\n"
    )


@pytest.mark.parametrize("page", ["gallery", "play", "prefect", "mlflow"])
def test_what_is_not_there_is_told_with_the_way_to_it(
    tmp_path: Path, call: Command, opened: list[str], page: str
) -> None:
    done = call(tmp_path, "open", page)

    assert (done.returncode, done.stdout, opened) == (2, "", [])
    way = {"gallery": "`atelier run`", "play": "`atelier play`"}.get(page, "`atelier up`")
    assert way in done.stderr
    assert done.stderr.count("\n") == 1


def test_a_server_that_does_not_answer_is_told_so(
    tmp_path: Path, call: Command, opened: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    running(monkeypatch, is_healthy=False)

    done = call(tmp_path, "open", "prefect")

    assert (done.returncode, opened) == (2, [])
    assert "http://127.0.0.1:4200 does not answer; `atelier up` starts it again" in done.stderr
