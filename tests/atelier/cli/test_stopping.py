"""A command that is stopped: one line, exit code 130, and pages that say so."""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.tracking import MlflowClient

from atelier.services.page_log import PlainErrors
from tasks.runtime.stopping import HOW_TO_GO_ON
from tasks.store.files import BadInput

ROOT = Path(__file__).resolve().parents[3]
LINE = f"atelier: {HOW_TO_GO_ON}\n"
Ask = Callable[..., Any]


def script(body: str) -> "subprocess.CompletedProcess[str]":
    """Run some lines after `stopping` listens, in a process of their own."""
    head = "import os, signal, time\nfrom tasks.runtime import stopping\nstopping.listen()\n"
    head += "def send(number=signal.SIGINT): os.kill(os.getpid(), number)\n"
    return subprocess.run(
        [sys.executable, "-c", head + textwrap.dedent(body)],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        preexec_fn=_with_interrupts,
    )


def _with_interrupts() -> None:
    """Undo what a shell does to programs in its background."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGHUP"])
def test_every_signal_that_asks_for_a_stop_raises_the_same(name: str) -> None:
    done = script(f"""
        try:
            send(signal.{name})
        except KeyboardInterrupt:
            print(stopping.stopped_by())
    """)
    assert (done.stdout, done.stderr, done.returncode) == (f"{name}\n", "", 0)


def test_a_second_press_of_the_key_does_not_cut_the_closing_off() -> None:
    done = script("""
        try:
            send()
        except KeyboardInterrupt:
            send(); send()
            print("closed")
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("closed\n", "", 0)


def test_one_who_insists_is_told_and_then_obeyed() -> None:
    done = script("""
        stopping.SECONDS_OF_ONE_STOP = 0
        try:
            send()
        except KeyboardInterrupt:
            send()
            print("still here", flush=True)
            send()
            print("never")
    """)
    assert (done.stdout, done.returncode) == ("still here\n", 130)
    assert done.stderr.startswith("atelier: still closing")
    assert done.stderr.endswith(LINE)


def test_what_must_not_be_left_half_done_is_finished_first() -> None:
    done = script("""
        try:
            with stopping.deferred():
                send()
                print("recorded")
            print("never")
        except KeyboardInterrupt:
            print("stopped")
    """)
    assert done.stdout == "recorded\nstopped\n"


@pytest.mark.parametrize("place", ["weakref.finalize(it, send)", "it.end = Ends()"])
def test_a_stop_that_python_drops_is_raised_again(place: str) -> None:
    """As one that comes in a callback of the garbage collector, or in a finalizer."""
    done = script(f"""
        import weakref
        class Ends:
            def __del__(self): send()
        class It: pass
        it = It()
        {place}
        try:
            del it
            time.sleep(60)
        except KeyboardInterrupt:
            print("stopped")
            time.sleep(0.2)  # not once more
            print("closed")
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("stopped\nclosed\n", "", 0)


def test_a_dropped_stop_that_was_noticed_meanwhile_does_not_cut_the_closing_off() -> None:
    done = script("""
        class Ends:
            def __del__(self): send()
        try:
            it = Ends()
            del it
            stopping.raise_if_stopped()
            print("never")
        except KeyboardInterrupt:
            time.sleep(0.2)
            print("closed")
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("closed\n", "", 0)


def test_a_dropped_stop_waits_for_the_end_of_what_must_not_be_left_half_done() -> None:
    done = script("""
        class Ends:
            def __del__(self): send()
        try:
            it = Ends()
            del it
            with stopping.deferred():
                time.sleep(0.2)
                print("recorded")
            print("never")
        except KeyboardInterrupt:
            print("stopped")
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("recorded\nstopped\n", "", 0)


def test_other_errors_that_python_drops_are_told_as_ever() -> None:
    done = script("""
        class Ends:
            def __del__(self): raise ValueError("told")
        it = Ends()
        del it
    """)
    assert done.stderr.startswith("Exception ignored in")
    assert "ValueError: told" in done.stderr


def test_a_stop_that_a_library_swallowed_ends_what_asks_for_it() -> None:
    done = script("""
        stopping.raise_if_stopped()
        try:
            send()
        except BaseException:
            pass
        try:
            stopping.raise_if_stopped()
        except KeyboardInterrupt:
            print("stopped")
    """)
    assert (done.stdout, done.returncode) == ("stopped\n", 0)


def test_a_command_whose_stop_shows_as_another_error_ends_as_stopped(tmp_path: Path) -> None:
    done = script(f"""
        import sys
        from atelier import __main__
        os.environ["ATELIER_HOME"] = {str(tmp_path)!r}
        def cut_off(_):
            try:
                send()
            except KeyboardInterrupt:
                raise ImportError("cannot import name 'half' of a module") from None
        __main__._parser = lambda _: type("P", (), {{"parse_args": lambda *_: type(
            "O", (), {{"command": staticmethod(cut_off), "applies_settings": False}})}})
        sys.exit(__main__.main(["settings"]))
    """)
    assert (done.stdout, done.stderr, done.returncode) == ("", LINE, 130)


def test_a_signal_that_a_shell_ignores_stays_ignored() -> None:
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "import os, signal; signal.signal(signal.SIGINT, signal.SIG_IGN)\n"
            "from tasks.runtime import stopping; stopping.listen()\n"
            "os.kill(os.getpid(), signal.SIGINT)\n"
            "print('went on')",
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
    )
    assert done.stdout == "went on\n"


def test_a_stop_while_python_ends_is_silent() -> None:
    done = script("""
        import atexit
        atexit.register(send)
        stopping.leave(130)
    """)
    assert (done.stderr, done.returncode) == ("", 130)


@pytest.mark.parametrize("is_told_first", [True, False])
def test_a_stopped_doctor_waits_for_no_check(is_told_first: bool, tmp_path: Path) -> None:
    """One that asks a server which does not answer, or imports a library, takes its time."""
    done = script(f"""
        import threading
        from atelier.__main__ import main
        from atelier.cli import doctor
        from atelier.services.finding import Finding
        os.environ["ATELIER_HOME"] = {str(tmp_path)!r}
        def waits():
            threading.Timer(0.3, send).start()
            time.sleep(60)
        first = Finding(name="first", state="failed", what="told", to_do="")
        doctor._checks = lambda _: [("first", lambda: first)] * {int(is_told_first)} + [
            ("waits", waits)] * 20
        main(["doctor"])
    """)
    assert (done.stderr, done.returncode) == (LINE, 130)
    assert ("first: told" in done.stdout) is is_told_first


def test_a_page_tells_of_bad_input_without_a_traceback() -> None:
    def told(error: Exception) -> logging.LogRecord:
        try:
            raise error
        except Exception:
            made = logging.LogRecord(
                "prefect.flow_runs", logging.ERROR, "", 1, "Encountered %r", (1,), sys.exc_info()
            )
        assert PlainErrors().filter(made)
        return made

    plain = told(BadInput("too short: give a longer text"))
    assert plain.getMessage() == "too short: give a longer text"
    assert plain.exc_info is None
    assert told(RuntimeError("a bug")).exc_info is not None


def test_the_terminal_hears_of_a_stop_once_and_of_a_crash_always() -> None:
    done = script("""
        import logging
        from atelier.services.page_log import NoStops
        def passes(text):
            made = logging.LogRecord("prefect.engine", logging.ERROR, "", 1, text, (), None)
            return NoStops().filter(made)
        print(passes("Crash detected! Execution was aborted by an interrupt signal."))
        try:
            send()
        except KeyboardInterrupt:
            print(passes("Crash detected! Execution was aborted by an interrupt signal."))
            print(passes("the disk is on fire"))
    """)
    assert done.stdout == "True\nFalse\nTrue\n", done.stderr


@dataclass(frozen=True)
class Workshop:
    """A home with its servers."""

    home: Path
    prefect: str
    mlflow: str
    text: Path
    ask: Ask

    def environment(self) -> dict[str, str]:
        kept = ("ATELIER_", "PREFECT_", "MLFLOW_", "PYTHONWARNINGS")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
        return {**clean, "ATELIER_HOME": str(self.home), "PYTHONUNBUFFERED": "1"}

    def started(self, *arguments: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [sys.executable, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env=self.environment(),
            preexec_fn=_with_interrupts,  # noqa: PLW1509
        )

    def states(self, what: str, **chosen: Any) -> dict[str, str]:
        found = self.ask(f"{self.prefect}/api/{what}/filter", chosen)
        return {run["name"]: run["state_name"] for run in found}


@pytest.fixture(scope="module")
def workshop(tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> Iterator[Workshop]:
    place = tmp_path_factory.mktemp("stopping")
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    lines = [" ".join(words[(i * k + k) % 10] for k in range(1, 10)) + "." for i in range(900)]
    (place / "tale.txt").write_text("\n".join(lines) + "\n")
    made = Workshop(place / "home", "", "", place / "tale.txt", ask)
    first = made.started("-m", "atelier", "sample")  # starts the servers, finds no champion
    first.communicate()
    assert first.returncode == 2
    servers = json.loads((made.home / "servers.json").read_text())
    yield replace(made, prefect=servers["prefect"]["url"], mlflow=servers["mlflow"]["url"])
    last = made.started("-m", "atelier", "down")
    last.communicate()
    assert last.returncode == 0


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_stopped_training_is_cancelled_on_every_page(
    workshop: Workshop, number: signal.Signals
) -> None:
    seed = int(number)
    process = workshop.started(
        *("-m", "atelier", "run", "--models", "gpt", "--preset", "standard"),
        *("--text", f"file:{workshop.text}", "--seed", str(seed)),
    )
    assert process.stdout is not None
    for line in process.stdout:
        if "training tale-gpt:" in line:
            break
    process.send_signal(number)
    _, said = process.communicate()

    assert (said, process.returncode) == (LINE, 130)
    names = {f"tale (gpt), standard, seed {seed}": "Cancelled"}
    names |= {f"tale-gpt, standard, seed {seed}": "Cancelled"}
    runs = workshop.ask(f"{workshop.prefect}/api/flow_runs/filter", {})
    ours = [run for run in runs if run["name"] in names]
    assert {run["name"]: run["state_name"] for run in ours} == names
    assert {run["state"]["message"] for run in ours} == {f"stopped by {number.name}"}
    chosen = {"flow_runs": {"id": {"any_": [run["id"] for run in ours]}}}
    tasks = workshop.states("task_runs", **chosen)
    assert set(tasks.values()) == {"Completed", "Cancelled"}
    assert tasks["fit tale-gpt"] == "Cancelled"
    registry = MlflowClient(workshop.mlflow, registry_uri=workshop.mlflow)
    (experiment,) = registry.search_experiments(filter_string="name = 'atelier'")
    latest = registry.search_runs([experiment.experiment_id], max_results=2)
    assert {run.info.status for run in latest} == {"KILLED"}


@pytest.mark.soak
def test_a_stop_that_prefect_swallows_is_raised_again(workshop: Workshop, tmp_path: Path) -> None:
    """It comes when a flow inside another has its result, and its run is being closed."""
    (tmp_path / "swallowing.py").write_text(
        textwrap.dedent("""
            import os, signal, sys
            from atelier.services import local_servers, process_settings
            from tasks.runtime import stopping
            stopping.listen()
            process_settings.apply_settings()
            local_servers.ensure_servers()
            from prefect import flow
            from atelier.cli.options import flow_result
            from tasks.maintenance.crash_recovery import label_with_process

            def stop(*_): os.kill(os.getpid(), signal.SIGINT)

            @flow(on_completion=[stop])
            def inner(): return 1

            @flow(flow_run_name="swallowing", on_running=[label_with_process])
            def outer(is_checked):
                result = inner()
                print("went on", flush=True)
                return stopping.unless_stopped(result)

            try:
                flow_result(outer, is_checked=True)
            except KeyboardInterrupt:
                sys.exit(130)
        """)
    )
    process = workshop.started(str(tmp_path / "swallowing.py"))
    printed, said = process.communicate()

    assert process.returncode == 130, said
    assert printed == "went on\n"
    assert workshop.states("flow_runs")["swallowing"] == "Cancelled"


@pytest.mark.soak
def test_a_stop_while_a_lock_is_waited_for(workshop: Workshop) -> None:
    import fcntl

    folder = workshop.home / "locks"
    folder.mkdir(exist_ok=True)
    with contextlib.ExitStack() as held:
        lock = held.enter_context((folder / "runs.lock").open("w"))
        fcntl.flock(lock, fcntl.LOCK_EX)
        process = workshop.started(
            *("-m", "atelier", "run", "--models", "ngram", "--text", f"file:{workshop.text}"),
            *("--seed", "77"),
        )
        name = "tale (ngram), standard, seed 77"
        deadline = time.monotonic() + 240
        while workshop.states("flow_runs").get(name) != "Running":
            assert time.monotonic() < deadline, process.poll()
            time.sleep(0.5)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()

    assert (said, process.returncode) == (LINE, 130)
    assert workshop.states("flow_runs")[name] == "Cancelled"


@pytest.mark.soak
def test_the_page_of_a_run_with_bad_input_shows_the_message_alone(workshop: Workshop) -> None:
    short = workshop.home / "short.txt"
    short.write_text("one line\nand another\n")
    process = workshop.started(
        *("-m", "atelier", "run", "--models", "ngram", "--text", f"file:{short}"),
    )
    _, said = process.communicate()

    assert process.returncode == 2
    assert said.startswith("atelier: file:")
    assert said.count("\n") == 1
    logs = workshop.ask(f"{workshop.prefect}/api/logs/filter", {"limit": 200})
    told = [each["message"] for each in logs if str(short) in each["message"]]
    assert told
    assert not any("Traceback" in each["message"] for each in logs)


@pytest.mark.soak
@pytest.mark.parametrize("content", ["[]", "{", '{"mlflow": {"pid": "x"}}', '{"prefect": null}'])
def test_servers_are_found_again_where_their_record_is_damaged(
    workshop: Workshop, content: str
) -> None:
    """A second pair on the same databases would schedule everything twice."""
    record = workshop.home / "servers.json"
    before = json.loads(record.read_text())
    record.write_text(content)

    process = workshop.started("-m", "atelier", "status")
    printed, said = process.communicate()

    assert process.returncode == 0, said
    assert printed.count("healthy, process") == 2
    after = json.loads(record.read_text())
    assert {name: (each["pid"], each["url"]) for name, each in after.items()} == {
        name: (each["pid"], each["url"]) for name, each in before.items()
    }
    assert str(record) in said
    assert list(workshop.home.glob("servers.json.damaged-*"))
