"""Numbers on their way to a tracking server that is there, away, or was killed beside us."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tasks.plots import grid
from tasks.store.files import home, write_bytes
from tasks.tracking import metric_queue
from tasks.tracking.metric_queue import MetricQueue, flush_run, pending_runs
from tasks.tracking.mlflow_client import (
    TrackingUnavailable,
    client,
    last_steps,
    metric_history,
    send_metrics,
)
from tasks.tracking.runs import close_dead_runs, open_run

NOWHERE = "http://127.0.0.1:9"  # the discard port: nothing answers there


def history(run_id: str, name: str = "loss") -> list[tuple[int, float]]:
    return metric_history(run_id, name)


@pytest.fixture
def outage(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """A context that puts the tracking server out of reach, without long waits."""
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    monkeypatch.setattr(metric_queue, "SECONDS_BETWEEN_TRIES", 0.05)
    monkeypatch.setattr(metric_queue, "SECONDS_TO_DELIVER", 0.3)
    return monkeypatch


def cut_off(run_id: str, outage: pytest.MonkeyPatch) -> Path:
    """The journal of a part that ended while the server was away: it has step 1, but not step 2."""
    kept = MetricQueue(run_id)
    kept.add(1, {"loss": 1.0})
    kept.flush()
    for _ in range(500):
        if history(run_id):
            break
        time.sleep(0.02)
    with outage.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", NOWHERE)
        kept.add(2, {"loss": 2.0})
        kept.close()
    assert history(run_id) == [(1, 1.0)]
    (path,) = (home() / "journals" / run_id).glob("*.jsonl")
    return path


def test_numbers_arrive_in_order_and_the_journal_is_gone(run_id: str) -> None:
    kept = MetricQueue(run_id)
    for step in range(1, 2501):  # more than one request may carry
        kept.add(step, {"loss": 1 / step})
    kept.close()

    assert history(run_id) == [(step, 1 / step) for step in range(1, 2501)]
    assert pending_runs() == []


def test_a_training_is_told_now_and_then_and_its_end_at_once(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server works on the processor that trains: every request takes some of it."""
    requests: list[int] = []

    def counted(_: str, rows: Sequence[Mapping[str, Any]]) -> None:
        requests.append(len(rows))
        send_metrics(run_id, rows)

    monkeypatch.setattr(metric_queue, "SECONDS_BETWEEN_SENDINGS", 3600.0)
    monkeypatch.setattr(metric_queue, "send_metrics", counted)
    kept = MetricQueue(run_id)
    for step in range(1, 101):
        kept.add(step, {"loss": 1 / step})
        kept.flush()
    kept.close()

    assert history(run_id) == [(step, 1 / step) for step in range(1, 101)]
    assert len(requests) <= 2
    assert pending_runs() == []


def test_numbers_of_an_outage_are_kept_and_delivered_once(
    run_id: str, outage: pytest.MonkeyPatch
) -> None:
    cut_off(run_id, outage)
    with outage.context() as away:
        away.setenv("MLFLOW_TRACKING_URI", NOWHERE)
        with pytest.raises(TrackingUnavailable):
            flush_run(run_id)
    assert pending_runs() == [run_id]

    flush_run(run_id)
    flush_run(run_id)

    assert history(run_id) == [(1, 1.0), (2, 2.0)]
    assert pending_runs() == []


def test_a_resumed_run_does_not_tell_its_steps_twice(run_id: str) -> None:
    killed = MetricQueue(run_id)
    for step in (1, 2, 3):
        killed.add(step, {"loss": float(step)})
    killed._path.parent.mkdir(parents=True)  # what a killed process leaves: written, not sent
    lines = "".join(json.dumps(line) + "\n" for line in killed._waiting)
    killed._path.write_text(lines + '{"name": "loss", "val')

    resumed = MetricQueue(run_id)
    for step in (2, 3, 4):
        resumed.add(step, {"loss": float(step)})
    resumed.close()

    assert history(run_id) == [(step, float(step)) for step in (1, 2, 3, 4)]


def test_a_result_made_again_adds_nothing_to_a_complete_run(run_id: str) -> None:
    for _ in range(2):
        kept = MetricQueue(run_id)
        kept.add(1, {"loss": 3.0})
        kept.add(2, {"loss": 2.0})
        kept.close()

    assert history(run_id) == [(1, 3.0), (2, 2.0)]


def test_sending_again_after_a_crash_in_between_adds_nothing(run_id: str) -> None:
    kept = MetricQueue(run_id)
    kept.add(1, {"loss": 3.0})
    kept.flush()
    copy = kept._path.read_bytes()
    kept.close()
    write_bytes(kept._path, copy)  # sent, but the process died before it could say so

    flush_run(run_id)

    assert history(run_id) == [(1, 3.0)]


def test_parts_of_a_run_have_names_of_their_own(run_id: str) -> None:
    for prefix in ("", "classifier_"):
        kept = MetricQueue(run_id, part=f"part-{prefix}", prefix=prefix)
        kept.add(1, {"loss": 1.0})
        kept.close()

    assert history(run_id) == history(run_id, "classifier_loss") == [(1, 1.0)]


def test_pictures_wait_with_the_numbers(run_id: str, outage: pytest.MonkeyPatch) -> None:
    png = home() / "step.png"
    write_bytes(png, grid(np.zeros((2, 1, 8, 8), np.uint8), 2))
    with outage.context() as away:
        kept = MetricQueue(run_id)
        away.setenv("MLFLOW_TRACKING_URI", NOWHERE)
        kept.add_picture(1, "latent points", png, "progress")
        kept.add(1, {"loss": 1.0})
        kept.close()
    assert client().list_artifacts(run_id, "progress") == []

    flush_run(run_id)

    (stored,) = client().list_artifacts(run_id, "progress")
    assert Path(stored.path).name == "step.png"
    assert len(client().list_artifacts(run_id, "images")) == 2  # the picture and its thumbnail
    assert history(run_id) == [(1, 1.0)]


def test_what_a_server_never_knew_is_forgotten(tracking_database: str) -> None:
    folder = home() / "journals" / ("0" * 32)
    folder.mkdir(parents=True)
    (folder / "vae.jsonl").write_text('{"name": "loss", "value": 1.0, "time": 1, "step": 1}\n')

    close_dead_runs()

    assert pending_runs() == []


def test_what_a_dead_run_left_is_delivered_when_it_is_closed(tracking_database: str) -> None:
    with open_run("left") as run_id:
        pass
    folder = home() / "journals" / run_id
    folder.mkdir(parents=True)
    (folder / "vae.jsonl").write_text('{"name": "loss", "value": 1.0, "time": 1, "step": 1}\n')

    close_dead_runs()

    assert history(run_id) == [(1, 1.0)]
    assert pending_runs() == []


def test_numbers_that_the_server_refuses_are_set_aside_and_the_run_ends(
    tracking_database: str,
) -> None:
    with open_run("refused") as run_id:
        kept = MetricQueue(run_id)
        kept.add(1, {"loss": 1.0, "no (name)": 2.0})
        kept.close()

    assert client().get_run(run_id).info.status == "FINISHED"
    assert pending_runs() == []
    (aside,) = (home() / "journals" / run_id).iterdir()
    assert aside.name == "training.refused"
    assert [json.loads(line)["value"] for line in aside.read_text().splitlines()] == [1.0, 2.0]
    close_dead_runs()
    assert aside.exists()


@pytest.mark.parametrize(
    "damaged",
    ['{"name": "loss", "step": 1}', '{"name": "loss", "value": "x", "time": 1, "step": 1}'],
)
def test_a_line_without_its_parts_costs_only_itself(run_id: str, damaged: str) -> None:
    folder = home() / "journals" / run_id
    folder.mkdir(parents=True)
    whole = '{"name": "loss", "value": 1.0, "time": 1, "step": 2}'
    (folder / "training.jsonl").write_text(f"{damaged}\n[1]\n{whole}\n")

    flush_run(run_id)

    assert history(run_id) == [(2, 1.0)]
    assert pending_runs() == []


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n and no more"])
def test_a_damaged_picture_costs_only_itself(
    run_id: str, outage: pytest.MonkeyPatch, content: bytes
) -> None:
    png = home() / "runs" / "step-1.png"
    write_bytes(png, content)
    with outage.context() as away:
        kept = MetricQueue(run_id)
        away.setenv("MLFLOW_TRACKING_URI", NOWHERE)
        kept.add(1, {"loss": 1.0})
        kept.add_picture(1, "latent points", png, "progress")
        kept.add(2, {"loss": 2.0})
        kept.close()

    flush_run(run_id)

    assert history(run_id) == [(1, 1.0), (2, 2.0)]
    assert pending_runs() == []
    assert client().list_artifacts(run_id, "images") == []


@pytest.mark.parametrize("content", ["", "{}", "[1", '{"bytes": null}'])
def test_a_damaged_mark_is_as_none_and_the_server_knows_what_it_has(
    run_id: str, outage: pytest.MonkeyPatch, content: str
) -> None:
    path = cut_off(run_id, outage)
    path.with_suffix(".sent").write_text(content)

    flush_run(run_id)

    assert history(run_id) == [(1, 1.0), (2, 2.0)]
    assert pending_runs() == []


def test_a_run_that_somebody_deleted_does_not_stop_the_one_who_closes_it(
    tracking_database: str,
) -> None:
    with open_run("deleted") as deleted:
        client().delete_run(deleted)

    assert client().get_run(deleted).info.lifecycle_stage == "deleted"


def test_a_journal_that_may_stay_empty_asks_the_server_before_its_first_number(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A fit that is found adds none: asking for the curves of its run takes a second."""
    asked: list[str] = []
    monkeypatch.setattr(metric_queue, "last_steps", lambda of: asked.append(of) or last_steps(of))
    MetricQueue(run_id).close()
    assert asked.pop() == run_id
    cut_short = MetricQueue(run_id, may_stay_empty=True)
    cut_short.close()
    assert not asked

    for _ in range(2):
        kept = MetricQueue(run_id, may_stay_empty=True)
        kept.add(1, {"loss": 3.0})
        kept.add(2, {"loss": 2.0})
        kept.close()

    assert asked == [run_id, run_id]
    assert history(run_id) == [(1, 3.0), (2, 2.0)]
