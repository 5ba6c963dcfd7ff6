"""Processes that try trials out: the same outcome in any of them, and none left behind."""

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import psutil
import pytest

from tasks.data.ingestion import ImageSet, ingest_images, ingest_text
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.runtime import stopping
from tasks.search import workers
from tasks.search.trial import TrialRequest, try_out
from tasks.search.workers import TrialError, WorkerDied, Workers
from tasks.store.files import project_root
from tasks.tracking.mlflow_client import client
from tasks.tracking.runs import open_run
from tasks.training.device import computing_threads

pytestmark = pytest.mark.slow

Ask = Callable[..., TrialRequest]
LONG = {"steps": 100_000, "warmup_steps": 2, "kl_warmup_steps": 2}


def until(what: Callable[[], Any], seconds: float = 60.0) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := what():
            return found
        time.sleep(0.05)
    raise AssertionError("it did not come about in time")


def children() -> list[psutil.Process]:
    return [
        each
        for each in psutil.Process().children(recursive=True)
        if "tasks.search.workers" in each.cmdline()
    ]


def runs(parent: str) -> list[Any]:
    experiment = client().get_run(parent).info.experiment_id
    return list(client().search_runs([experiment], f"tags.mlflow.parentRunId = '{parent}'"))


@dataclass(frozen=True)
class Bench:
    """A home with data of either kind, and one process that tries trials out in it."""

    home: Path
    pool: Workers
    images: ImageSet
    tokens: TokenSet


@pytest.fixture(scope="module")
def bench(
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,
    written_pictures: Path,
    written_corpus: Path,
) -> Iterator[Bench]:
    """One for several tests, since each process imports for seconds; any of them may kill it.

    No two tests ask for the same trial: its outcome is stored and would be found.
    """
    home = tmp_path_factory.mktemp("bench")
    shutil.copy(migrated_database, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
        patch.delenv("ATELIER_DATA", raising=False)
        patch.chdir(home)
        with Workers(1, threads=1) as pool:
            images = ingest_images.fn(f"folder:{written_pictures}")
            tokens = tokenize_corpus.fn(ingest_text.fn(f"file:{written_corpus}"))
            yield Bench(home, pool, images, tokens)
    (last,) = pool._processes.values()
    assert last.process.returncode == 0
    assert children() == []


def until_it_trains(parent: str) -> None:
    """Wait until the trial has told its first numbers, and is busy with the steps that follow.

    One that is stopped while it writes into a bare database may find it locked by its own request,
    and leaves its run to the next command.
    """
    until(lambda: [run for run in runs(parent) if "loss" in run.data.metrics])


def test_a_killed_process_is_replaced_and_the_trial_goes_on_in_the_same_run(
    bench: Bench, request_for: Ask
) -> None:
    (before,) = children()
    before.kill()
    before.wait()

    with open_run("killed") as parent:
        outcome = bench.pool.try_out(request_for(bench.tokens, "ngram", parent, order=2))

    assert outcome.state == "complete"
    assert [each for each in children() if each != before]
    assert [run.info.status for run in runs(parent)] == ["FINISHED"]


def test_a_trial_in_a_process_of_its_own_is_the_trial_in_this_one(
    bench: Bench, request_for: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = {"steps": 30, "warmup_steps": 2, "kl_warmup_steps": 2}
    with open_run("two") as parent:
        request = request_for(bench.images, "vae", parent, **settings)
        longer = {**settings, "steps": 31}
        other = request_for(bench.images, "vae", parent, "first", 1, **longer)
        found = [bench.pool.try_out(each) for each in (request, other)]
        monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "elsewhere"))

        with computing_threads(1):  # also the objective's bits depend on it
            here = try_out(request)

    assert (here.value, here.fit) == (found[0].value, found[0].fit)
    assert found[1].value != found[0].value


def test_what_is_not_the_settings_fault_is_raised_and_the_process_lives_on(
    bench: Bench, request_for: Ask
) -> None:
    with open_run("strange") as parent:
        good = request_for(bench.tokens, "ngram", parent, number=1, order=4)
        strange = replace(good, plan={**good.plan, "training": "models.ngram.training:Nothing"})
        before = children()
        with pytest.raises(TrialError, match="trial 1: AttributeError"):
            bench.pool.try_out(strange)

        assert bench.pool.try_out(good).state == "complete"
    assert children() == before


def test_processes_that_die_again_and_again_are_told(
    ask: Ask, run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers.sys, "executable", "/bin/true")

    with Workers(1, threads=1) as pool, pytest.raises(WorkerDied, match="trial 0: its process"):
        pool.try_out(ask())


def test_a_stop_ends_the_processes_and_closes_their_runs(
    images: ImageSet, run_id: str, request_for: Ask
) -> None:
    request = request_for(images, "vae", run_id, **LONG)
    before = children()
    pool = Workers(1, threads=1)
    errors: list[BaseException] = []

    def try_it() -> None:
        try:
            pool.try_out(request)
        except WorkerDied as error:
            errors.append(error)

    with pytest.raises(KeyboardInterrupt), pool:
        trying = threading.Thread(target=try_it)
        trying.start()
        until_it_trains(run_id)
        raise KeyboardInterrupt

    trying.join(10)
    assert len(errors) == 1
    assert children() == before
    assert [run.info.status for run in runs(run_id)] == ["KILLED"]


def test_a_stop_that_shows_as_another_error_is_not_an_answer(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The search would take it for an error of the trial, and end with it."""
    line = json.dumps(asdict(replace(ask(), data_kind="nothing")))
    assert "error" in workers.answer_to(line)

    monkeypatch.setattr(stopping._stops, "came", [signal.SIGTERM])
    with pytest.raises(KeyboardInterrupt):
        workers.answer_to(line)


def test_nobody_to_answer_ends_a_process_in_the_middle_of_its_trial(
    images: ImageSet, run_id: str, request_for: Ask
) -> None:
    """As when the search itself is killed."""
    before = children()
    pool = Workers(1, threads=1)
    with pool:
        (child,) = [each for each in children() if each not in before]
        request = request_for(images, "vae", run_id, **LONG)

        def try_it() -> None:
            with pytest.raises(WorkerDied):
                pool.try_out(request)

        trying = threading.Thread(target=try_it)
        trying.start()
        until_it_trains(run_id)
        pool._is_closing = True
        pool._processes[0].process.stdin.close()

        assert child.wait(30) == 130
        trying.join(10)
    assert [run.info.status for run in runs(run_id)] == ["KILLED"]


def test_an_idle_process_ends_with_its_input(atelier_home: Path) -> None:
    """The libraries are left out, which take seconds: nobody asks for a trial here."""
    code = (
        "import sys, types; sys.modules['tasks.search.trial'] = types.SimpleNamespace("
        "use_threads=lambda n: print('threads:', n)); "
        "from tasks.search.workers import main; main()"
    )

    done = subprocess.run(
        [sys.executable, "-c", code, "1"],
        input="",
        text=True,
        capture_output=True,
        timeout=120,
        check=False,
        env={**os.environ, "PYTHONPATH": str(project_root())},
    )

    assert (done.returncode, done.stdout) == (0, "")
    assert "threads: 1\n" in done.stderr  # what libraries print is kept apart from answers


def test_a_signal_ends_a_process_that_imports(atelier_home: Path) -> None:
    child = subprocess.Popen(
        [sys.executable, "-m", "tasks.search.workers", "1"],
        stdin=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(project_root())},
    )
    time.sleep(1.0)
    child.send_signal(signal.SIGTERM)

    assert child.stdin is not None
    child.stdin.close()
    assert child.wait(60) != 0
