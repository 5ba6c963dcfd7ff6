"""`atelier play`: what it refuses before it serves anything."""

import socket
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from atelier.cli import play
from atelier.services import playgrounds
from atelier.services.playgrounds import Playground

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_without_the_extra_it_says_how_to_install_it(
    tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(play, "find_spec", lambda _: None)

    done = call(tmp_path, "play")

    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr == (
        "atelier: the playground needs NiceGUI, which is not installed here: install Atelier with"
        " its extra `play`, `pip install 'atelier[play]'`\n"
    )


def test_without_a_model_it_says_what_to_do(tmp_path: Path, call: Command) -> None:
    pytest.importorskip("nicegui")
    done = call(tmp_path, "play")
    assert done.returncode == 2
    assert done.stderr == ("atelier: no model is registered yet: train some with `atelier run`\n")


def test_a_port_that_is_taken_is_told(
    tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nicegui")
    monkeypatch.setattr(play, "check_registry", lambda: None)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        done = call(tmp_path, "play", "--port", str(number))
    assert done.returncode == 2
    assert done.stderr == (
        f"atelier: port {number} is taken by another program; choose another with --port, or leave"
        " the option out to get a free one\n"
    )


def test_it_is_known_by_its_address_as_long_as_it_serves(
    tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("nicegui")
    from atelier.playground import server

    while_it_serves: list[Playground] = []

    def stopped(*_: object) -> None:
        while_it_serves.extend(playgrounds.running())
        raise KeyboardInterrupt

    monkeypatch.setattr(server, "serve", stopped)
    monkeypatch.setattr(play, "check_registry", lambda: None)
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))

    done = call(tmp_path, "play")

    (known,) = while_it_serves
    assert done.stdout == f"playground  {known.url}\nCtrl-C stops it\nstopped\n"
    assert playgrounds.running() == []
