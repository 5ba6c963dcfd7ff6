"""What `atelier worker` does about errors while it looks for runs without a process."""

import errno

import pytest

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
