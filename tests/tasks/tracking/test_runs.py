"""The life of MLflow runs, with real processes that die."""

import signal
import subprocess
import sys
from contextlib import nullcontext
from typing import Any

import pytest

from tasks.runtime import stopping
from tasks.runtime.processes import is_alive, this_process
from tasks.tracking.mlflow_client import (
    client,
    log_metrics,
    run_metrics,
    set_tags,
    tracking_experiment,
)
from tasks.tracking.runs import OWNER, close_dead_runs, describe_run, open_run, task_run


def run(run_id: str) -> Any:
    return client().get_run(run_id)


def dead_process() -> str:
    """The name of a process that has ended."""
    code = "from tasks.runtime.processes import this_process; print(this_process())"
    return subprocess.check_output([sys.executable, "-c", code], text=True, cwd=".").strip()


@pytest.fixture
def dead(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.chdir(request.config.rootpath)
    return dead_process()


def left_open(key: str, owner: str) -> str:
    """A run as a killed process leaves it: RUNNING, in the name of that process."""
    with open_run("left", key=key) as run_id:
        pass
    set_tags(run_id, {OWNER: owner})
    client().update_run(run_id, status="RUNNING")
    return run_id


def test_a_process_is_alive_until_it_ends(dead: str) -> None:
    assert is_alive(this_process())
    assert not is_alive(dead)
    assert is_alive("another-machine:1:0")


def test_a_run_ends_as_finished_failed_or_killed(tracking_database: str) -> None:
    with open_run("well") as well:
        assert run(well).info.status == "RUNNING"
    with pytest.raises(ValueError, match="no"), open_run("badly") as badly:
        raise ValueError("no")
    with pytest.raises(KeyboardInterrupt), open_run("stopped") as stopped:
        raise KeyboardInterrupt

    ends = [run(run_id).info.status for run_id in (well, badly, stopped)]
    assert ends == ["FINISHED", "FAILED", "KILLED"]


def test_a_stop_that_shows_as_another_error_is_a_stop(
    tracking_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the signal came in the middle of an import, or of a request."""
    monkeypatch.setattr(stopping._stops, "came", [signal.SIGTERM])

    with pytest.raises(ImportError), open_run("stopped") as stopped:
        raise ImportError("cut off")

    assert run(stopped).info.status == "KILLED"


def test_a_stop_stays_one_where_its_run_cannot_be_closed(
    tracking_database: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refused(*_: str) -> None:
        raise RuntimeError("this session is in a state of its own")

    monkeypatch.setattr("tasks.tracking.runs.end_run", refused)
    with pytest.raises(KeyboardInterrupt), open_run("stopped"):
        raise KeyboardInterrupt

    said = "closed by the next command: this session is in a state of its own"
    assert said in capsys.readouterr().out


def test_a_failed_task_goes_on_in_its_run(tracking_database: str) -> None:
    with (
        pytest.raises(ValueError, match="once"),
        task_run("vae", "key", while_waiting=nullcontext) as first,
    ):
        raise ValueError("once")
    with task_run("vae", "key", while_waiting=nullcontext) as second:
        pass
    with task_run("vae", "another key", while_waiting=nullcontext) as third:
        pass

    assert second == first != third
    assert run(first).info.status == "FINISHED"
    assert run(first).data.tags["atelier.attempts"] == "2"


def test_a_run_of_a_dead_process_is_gone_on_with_and_one_of_a_living_is_not(
    tracking_database: str, dead: str
) -> None:
    left = left_open("key", dead)
    with open_run("again", key="key") as again:
        assert run(again).data.tags[OWNER] == this_process()
        with open_run("at the same time", key="key") as beside:
            pass

    assert again == left
    assert beside != left


def test_a_finished_task_is_used_again_and_its_parent_tells(tracking_database: str) -> None:
    with task_run("vae", "key", while_waiting=nullcontext) as first:
        pass
    ended_at = run(first).info.end_time
    with (
        open_run("tonight") as parent,
        task_run("vae", "key", parent, while_waiting=nullcontext) as second,
    ):
        pass

    assert second == first
    assert run(first).info.end_time == ended_at
    assert run(parent).data.tags["atelier.unchanged.vae"] == first


def test_the_same_data_under_two_names_have_a_run_each(tracking_database: str) -> None:
    with task_run("book-ngram", "key", while_waiting=nullcontext) as first:
        pass
    with task_run("poems-ngram", "key", while_waiting=nullcontext) as second:
        pass
    with task_run("book-ngram", "key", while_waiting=nullcontext) as again:
        pass

    assert again == first != second
    assert run(second).info.run_name == "poems-ngram"


def test_a_task_is_found_again_however_its_run_is_called(tracking_database: str) -> None:
    with task_run("book-gpt", "key", while_waiting=nullcontext) as before:  # as of old
        client().delete_tag(before, "atelier.task")
    with task_run("book-gpt", "key", while_waiting=nullcontext, title="book-gpt, quick") as again:
        pass
    facts = {"preset": "quick", "seed": "7"}
    asked: Any = {"while_waiting": nullcontext, "tags": facts}
    with task_run("poems-gpt", "key", title="poems-gpt, quick", **asked) as first:
        pass
    client().update_run(first, name="my favourite")
    with task_run("poems-gpt", "key", title="poems-gpt, full", **asked) as second:
        pass

    assert again == before != first
    assert second == first
    assert run(first).info.run_name == "my favourite"
    assert facts.items() <= run(first).data.tags.items()


def test_facts_and_numbers_of_a_run_are_told_and_the_latest_count(tracking_database: str) -> None:
    with open_run("night", tags={"preset": "quick"}) as opened:
        describe_run(opened, tags={"main_metric": "vae 2"}, metrics={"vae_nats": 2.0})
        describe_run(opened, tags={"main_metric": "vae 1"}, metrics={"vae_nats": 1.0})

    told = run(opened).data
    assert (told.tags["preset"], told.tags["main_metric"]) == ("quick", "vae 1")
    assert told.metrics == {"vae_nats": 1.0}


def test_what_a_run_tells_already_is_not_written_again(
    tracking_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[dict[str, str]] = []
    with open_run("night", tags={"preset": "quick", "seed": "7"}) as opened:
        monkeypatch.setattr("tasks.tracking.runs.set_tags", lambda _, tags: written.append(tags))
        describe_run(opened, tags={"preset": "quick", "seed": "8"})

    assert written == [{"seed": "8"}]


def test_a_finished_flow_is_not_gone_on_with(tracking_database: str) -> None:
    with open_run("night", key="same settings") as first:
        pass
    with open_run("night", key="same settings") as second:
        pass

    assert first != second


def test_a_child_moves_to_the_parent_that_finishes_it(tracking_database: str) -> None:
    with open_run("first night") as first_parent:
        with (
            pytest.raises(ValueError, match="no"),
            task_run("vae", "key", first_parent, while_waiting=nullcontext) as child,
        ):
            raise ValueError("no")
        with (
            open_run("second night") as second_parent,
            task_run("vae", "key", second_parent, while_waiting=nullcontext),
        ):
            pass

    assert run(child).data.tags["mlflow.parentRunId"] == second_parent


def test_runs_of_dead_processes_are_closed_and_others_left_alone(
    tracking_database: str, dead: str
) -> None:
    left = left_open("left", dead)
    foreign = client().create_run(tracking_experiment()).info.run_id
    with open_run("mine") as mine:
        assert close_dead_runs() == ["left"]
        assert run(mine).info.status == "RUNNING"

    assert run(left).info.status == "KILLED"
    assert run(foreign).info.status == "RUNNING"
    log_metrics(left, {"loss": 1.0})
    assert run_metrics(left) == {"loss": 1.0}
