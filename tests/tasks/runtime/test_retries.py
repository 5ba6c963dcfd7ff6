from typing import Any

import httpx
import pytest

from models.training.loops import Diverged
from tasks.data.ingestion import ingest_images, ingest_text
from tasks.data.sources import Unreachable
from tasks.registry.registration import register_version
from tasks.runtime.retries import is_transient
from tasks.store.files import BadInput, ChecksumMismatch, DiskFull
from tasks.tracking.mlflow_client import TrackingUnavailable
from tasks.training.fit import fit_model


class FailedWith:
    """A task state that ended in an error."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    def result(self) -> Any:
        """Raise the error, as Prefect's states do."""
        raise self.error


@pytest.mark.parametrize(
    "error",
    [
        *[Unreachable("x"), TrackingUnavailable("x"), TimeoutError(), ConnectionResetError()],
        *[httpx.ConnectError("x"), httpx.ReadTimeout("x"), httpx.RemoteProtocolError("x")],
    ],
)
def test_what_may_pass_is_tried_again(error: Exception) -> None:
    assert is_transient(None, None, FailedWith(error))


@pytest.mark.parametrize(
    "error",
    [
        *[BadInput("x"), Diverged("x"), ChecksumMismatch("x"), DiskFull(28, "x"), ValueError("x")],
        httpx.TooManyRedirects("x"),
    ],
)
def test_what_will_not_pass_is_not(error: Exception) -> None:
    assert not is_transient(None, None, FailedWith(error))


def test_each_task_has_the_retries_its_nature_needs() -> None:
    assert [task.retries for task in (ingest_images, ingest_text, register_version)] == [3, 3, 3]
    assert fit_model.retries == 1
