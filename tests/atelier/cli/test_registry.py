"""History, rollback, approval and serving as a person meets them: the command, real servers."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.registry.audit_log import append

ROOT = Path(__file__).resolve().parents[3]
NAME = "tale-ngram"
Ask = Callable[..., Any]
Command = Callable[..., "subprocess.CompletedProcess[str]"]


def environment(home: Path) -> dict[str, str]:
    kept = ("ATELIER_", "PREFECT_", "MLFLOW_", "PYTHONWARNINGS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    return {**clean, "ATELIER_HOME": str(home)}


def atelier(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own, with a home of its own."""
    return subprocess.run(
        [sys.executable, "-m", "atelier", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(home),
    )


@dataclass(frozen=True)
class Place:
    """A home with running servers, and a text."""

    home: Path
    text: Path
    ask: Ask

    def url(self, server: str) -> str:
        return str(json.loads((self.home / "servers.json").read_text())[server]["url"])

    def paused(self) -> dict[str, Any]:
        """The flow run that waits for a person, once the form can be filled in."""
        wanted = {"flow_runs": {"state": {"type": {"any_": ["PAUSED"]}}}}
        deadline = time.monotonic() + 240
        while time.monotonic() < deadline:
            try:
                api = f"{self.url('prefect')}/api/flow_runs"
                for run in self.ask(f"{api}/filter", wanted):
                    form = run["state"]["state_details"]["run_input_keyset"]["schema"]
                    self.ask(f"{api}/{run['id']}/input/{form}", method="GET")
                    return dict(run)
            except OSError:
                pass  # the server is starting, or the form is not stored yet
            time.sleep(0.5)
        raise AssertionError("no flow run is paused")

    def run_with_approval(self, answer: dict[str, str], *more: str) -> str:
        """Run until the pause, answer, and return what was printed."""
        command = [sys.executable, "-m", "atelier", "run", "--approve", "--preset", "quick"]
        command += ["--models", "ngram", "--text", f"file:{self.text}", *more]
        with subprocess.Popen(
            command, cwd=ROOT, env=environment(self.home), stdout=subprocess.PIPE, text=True
        ) as process:
            try:
                run = self.paused()  # before the address, which is known when the server is up
                resume = f"{self.url('prefect')}/api/flow_runs/{run['id']}/resume"
                nonsense = self.ask(resume, {"run_input": {"decision": "perhaps"}})
                assert nonsense["status"] == "REJECT"
                assert self.ask(resume, {"run_input": answer})["status"] == "ACCEPT"
                printed, _ = process.communicate(timeout=300)
            finally:
                process.kill()  # nothing where it has ended; leaving would wait for it for ever
        assert process.returncode == 0, printed
        return printed


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("place")
    random = np.random.default_rng(0)
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    lines = [" ".join(random.choice(words, size=9)) + "." for _ in range(320)]
    (folder / "tale.txt").write_text("\n".join(lines) + "\n")
    try:
        yield Place(folder / "home", folder / "tale.txt", ask)
    finally:
        atelier(folder / "home", "down")


def test_without_a_registry_the_commands_say_so_in_one_line(tmp_path: Path, call: Command) -> None:
    for arguments in (
        ("history",),
        ("rollback", NAME),
        ("promote", NAME, "--to", "1", "--reason", "why not"),
        ("reproduce", f"{NAME}@champion"),
    ):
        done = call(tmp_path / "home", *arguments)

        assert done.returncode == 2
        assert done.stderr == (
            "atelier: no model is registered yet: train some with `atelier run`\n"
        )
        assert not (tmp_path / "home" / "servers.json").exists()


def test_promote_wants_a_version_and_a_reason(tmp_path: Path, call: Command) -> None:
    for arguments, message in (
        (("--to", "1"), "the following arguments are required: --reason"),
        (("--to", "zero", "--reason", "x"), "a version is a whole number"),
        (("--to", "1", "--reason", " "), "--reason must not be empty"),
    ):
        done = call(tmp_path / "home", "promote", NAME, *arguments)

        assert done.returncode == 2
        assert message in done.stderr


@pytest.mark.soak
def test_a_person_is_asked_and_the_answer_is_kept(place: Place) -> None:
    """One model is accepted, after an answer that the form refuses; another is refused."""
    printed = place.run_with_approval({"decision": "accept", "reason": "reads well"})

    assert "is awaiting manual approval in the Prefect UI" in printed
    assert f"{NAME}  1        champion" in printed
    history = atelier(place.home, "history", NAME)
    assert history.returncode == 0, history.stderr
    assert "promote  none -> 1" in history.stdout
    assert "accepted manually: reads well" in history.stdout

    (place.text.parent / "saga.txt").write_text(place.text.read_text().replace("cat", "wolf"))
    saga = replace(place, text=place.text.parent / "saga.txt")
    refused = saga.run_with_approval({"decision": "refuse", "reason": "no wolves"})

    assert "saga-ngram  1        challenger" in refused
    assert "refused manually: no wolves" in atelier(place.home, "history", "saga-ngram").stdout
    events = place.ask(
        f"{place.url('prefect')}/api/events/filter",
        {"filter": {"event": {"prefix": ["atelier.model"]}}},
    )["events"]
    assert {(event["event"], event["resource"]["prefect.resource.id"]) for event in events} == {
        ("atelier.model.promoted", f"atelier.model.{NAME}"),
        ("atelier.model.refused", "atelier.model.saga-ngram"),
    }


@pytest.mark.soak
def test_without_an_answer_in_time_no_version_becomes_champion(place: Place) -> None:
    text = place.text.parent / "fable.txt"
    text.write_text(place.text.read_text().replace("cat", "fox"))
    arguments = ["--preset", "quick", "--models", "ngram", "--text", f"file:{text}"]

    done = atelier(place.home, "run", "--approve", "3", *arguments)

    assert done.returncode == 0, done.stdout + done.stderr
    assert "fable-ngram  1        challenger" in done.stdout
    kept = atelier(place.home, "history", "fable-ngram").stdout
    assert "nobody approved it within 3 s; the champion stays" in kept
    again = atelier(place.home, "run", *arguments)
    assert "fable-ngram  1        champion" in again.stdout


@pytest.mark.soak
def test_code_appended_to_a_champion_in_the_store_is_named_and_never_run(
    place: Place, tmp_path: Path
) -> None:
    """The gallery shows the other champions; whoever verifies hears of the file."""
    for name, word in (("myth", "fox"), ("epic", "king")):
        text = place.text.parent / f"{name}.txt"
        text.write_text(place.text.read_text().replace("cat", word))
        arguments = ["--preset", "quick", "--models", "ngram", "--text", f"file:{text}"]
        done = atelier(place.home, "run", *arguments)
        assert f"{name}-ngram  1        champion" in done.stdout, done.stdout + done.stderr
    mark = tmp_path / "executed"
    with closing(sqlite3.connect(place.home / "mlflow.db")) as registry:
        sources = "SELECT source FROM model_versions WHERE name = 'myth-ngram'"
        ((source,),) = registry.execute(sources).fetchall()
    (package,) = (place.home / "mlartifacts").glob(f"*/models/{Path(source).name}/artifacts")
    with (package / "served_model.py").open("a") as opened:
        opened.write(f"\nopen({str(mark)!r}, 'w').close()\n")

    sampled = atelier(place.home, "sample", "myth-ngram", "epic-ngram", "--seed", "9")

    assert sampled.returncode == 1, sampled.stdout + sampled.stderr
    told = "myth-ngram version 1 is not what was registered, and nothing of it is loaded:"
    assert f"{told} served_model.py was changed" in sampled.stdout
    page = (place.home / "gallery" / "index.html").read_text()
    assert "epic-ngram" in page
    verified = atelier(place.home, "verify", "myth-ngram@champion")
    assert verified.returncode == 2
    assert verified.stderr.startswith(f"atelier: {told}")
    assert atelier(place.home, "verify", "epic-ngram").returncode == 0
    assert not mark.exists()


@pytest.mark.parametrize("arguments", [("history",), ("gc",), ("history", NAME)])
def test_a_server_that_is_down_is_named_in_one_line(
    tmp_path: Path, arguments: tuple[str, ...], call: Command
) -> None:
    with socket.socket() as taken:  # bound and not listening: nobody answers there
        taken.bind(("127.0.0.1", 0))
        uri = f"http://127.0.0.1:{taken.getsockname()[1]}"
        settings = {"MLFLOW_TRACKING_URI": uri, "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0"}
        done = call(tmp_path / "home", *arguments, **settings)

    assert done.returncode == 1
    assert done.stderr.startswith(f"atelier: MLflow at {uri} does not answer: ")
    assert done.stderr.count("\n") == 1


def test_space_is_not_freed_while_the_registry_is_out_of_reach(
    tmp_path: Path, call: Command
) -> None:
    logs = tmp_path / "home" / "ledger"
    logs.mkdir(parents=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_HOME", str(tmp_path / "home"))
        append(NAME, "refused", action="refuse", to_version=1, digests={"content": "abc"})

    done = call(tmp_path / "home", "gc", "--yes")

    assert done.returncode == 2
    assert "the registry cannot be reached; start its server with `atelier up`" in done.stderr
    assert not (tmp_path / "home" / "mlflow.db").exists()
