"""What `atelier worker` does about errors while it looks for runs without a process."""

import errno
import os
from pathlib import Path
from typing import Any

import pytest
import requests

from atelier.cli import services
from tasks.tracking.mlflow_client import TrackingUnavailable

FULL = OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("error", "said"),
    [(FULL, "No space left on device"), (TrackingUnavailable("MLflow does not answer"), "")],
    ids=["full-disk", "mlflow-away"],
)
def test_what_is_wrong_for_a_while_does_not_end_a_worker(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: OSError,
    said: str,
) -> None:
    def fail() -> list[str]:
        raise error

    monkeypatch.setattr("tasks.maintenance.crash_recovery.close_dead_flow_runs", fail)

    assert services._closed_elsewhere() == []
    printed = capsys.readouterr().out
    assert said in printed
    assert bool(printed) is bool(said)


def test_a_fault_of_the_code_does(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> list[str]:
        raise KeyError("name")

    monkeypatch.setattr("tasks.maintenance.crash_recovery.close_dead_flow_runs", fail)

    with pytest.raises(KeyError):
        services._closed_elsewhere()


def test_a_look_asks_servers_that_are_away_once_and_not_for_long(
    monkeypatch: pytest.MonkeyPatch, atelier_home: Path
) -> None:
    from mlflow.utils import rest_utils
    from prefect.settings import PREFECT_API_REQUEST_TIMEOUT, PREFECT_CLIENT_MAX_RETRIES

    asked: list[tuple[int, float]] = []

    def no_prefect() -> list[str]:
        asked.append((PREFECT_CLIENT_MAX_RETRIES.value(), PREFECT_API_REQUEST_TIMEOUT.value()))
        return []

    def no_answer(
        method: str, url: str, max_retries: int, *_: Any, timeout: float, **__: Any
    ) -> None:
        asked.append((max_retries, timeout))
        raise requests.exceptions.ConnectionError("nobody there")

    def sleep(_: float) -> None:
        raise AssertionError("the look waits")

    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "4")
    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.setattr("tasks.maintenance.crash_recovery.close_dead_flow_runs", no_prefect)
    monkeypatch.setattr(rest_utils, "_get_http_response_with_retries", no_answer)
    monkeypatch.setattr("time.sleep", sleep)

    assert services._closed_elsewhere() == []

    assert asked == [(0, services._SECONDS_OF_A_REQUEST)] * 2
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] == "4"
    assert "MLFLOW_HTTP_REQUEST_TIMEOUT" not in os.environ
    assert services._closed_elsewhere() == []
    assert len(asked) == 4, "the next look asks again"
