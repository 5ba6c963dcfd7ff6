"""What is shown in the Prefect UI, and what happens when its server is away or in trouble."""

import logging
from collections.abc import Callable

import httpx
import pytest
from prefect.exceptions import PrefectHTTPStatusError

from tasks.data.ingestion import ImageSet
from tasks.evaluation.scorecard import Scorecard, publish
from tasks.runtime import progress as reporting
from tasks.runtime.progress import WAITS_FOR_PREFECT, Progress, show, with_progress
from tasks.samples import lineage, sampling
from tasks.store.files import home


def answered(status: int) -> Exception:
    request = httpx.Request("POST", "http://127.0.0.1:1/api/artifacts/")
    return PrefectHTTPStatusError(
        "x", request=request, response=httpx.Response(status, request=request)
    )


class Server:
    """Fails as often as it is told, and then shows what it is asked to."""

    def __init__(self, error: Exception, times: int) -> None:
        self.error, self.times = error, times
        self.num_asked = 0

    def create(self, *_: object, **__: object) -> None:
        self.num_asked += 1
        if self.num_asked <= self.times:
            raise self.error


class Clock:
    """Time that passes only while somebody sleeps."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def monotonic(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """In a task run, in a time of its own."""
    made = Clock()
    monkeypatch.setattr(reporting, "time", made)
    monkeypatch.setattr(reporting, "in_task_run", lambda: True)
    return made


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The lines that a person hears."""
    lines: list[str] = []
    monkeypatch.setattr(logging.getLogger("atelier"), "info", lines.append)
    return lines


AWAY = [httpx.ConnectError("x"), httpx.ReadTimeout("x"), answered(500), answered(503)]


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_a_server_that_comes_back_shows_what_it_was_asked_to(
    error: Exception, clock: Clock, told: list[str]
) -> None:
    server = Server(error, times=3)

    show("gallery", server.create)

    assert server.num_asked == 4
    assert clock.slept == list(WAITS_FOR_PREFECT[:3])
    assert told == []


@pytest.mark.parametrize("error", AWAY, ids=repr)
def test_the_work_goes_on_without_one_that_stays_away(
    error: Exception, clock: Clock, told: list[str]
) -> None:
    server = Server(error, times=1000)

    show("gallery", server.create)

    assert clock.slept == list(WAITS_FOR_PREFECT)
    assert 100 < sum(clock.slept) < 140
    assert told == [f"gallery: not shown in Prefect, which is away: {type(error).__name__}"]


def test_the_patience_of_the_client_itself_counts(clock: Clock, told: list[str]) -> None:
    """Prefect's client waits for four minutes before it raises, where it had connected once."""
    server = Server(httpx.ConnectError("x"), times=1000)

    def create() -> None:
        clock.now += 254
        server.create()

    show("gallery", create)

    assert server.num_asked == 1
    assert clock.slept == []
    assert len(told) == 1


@pytest.mark.parametrize("error", [ValueError("x"), TypeError("x"), answered(422)], ids=repr)
def test_an_error_of_ours_is_raised_at_once(error: Exception, clock: Clock) -> None:
    server = Server(error, times=1)

    with pytest.raises(type(error)):
        show("gallery", server.create)

    assert server.num_asked == 1


def test_a_long_walk_over_items_tells_how_far_it_is(
    clock: Clock, told: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporting, "in_task_run", lambda: False)
    given = []
    for item in with_progress(range(100, 110), "read pictures"):
        given.append(item)
        clock.now += 2

    assert given == list(range(100, 110))
    assert told == [
        "read pictures: 3/10  14 s left",
        "read pictures: 6/10  8 s left",
        "read pictures: 9/10  2 s left",
        "read pictures: 10/10  done in 20 s",
    ]


def test_a_short_walk_is_silent(clock: Clock, told: list[str]) -> None:
    assert list(with_progress(range(1000), "read pictures")) == list(range(1000))
    assert list(with_progress([], "read pictures")) == []
    assert told == []


def test_outside_a_task_run_nothing_is_shown() -> None:
    server = Server(ValueError("x"), times=1)

    show("gallery", server.create)

    assert server.num_asked == 0


def publish_scorecard(images: ImageSet, run_id: str) -> None:
    measured = Scorecard(
        name="digits-vae",
        run_id=run_id,
        main_metric="test_loss",
        main_value=1.0,
        metrics={"test_loss": 1.0},
        failed_checks=(),
        data_digest="d",
        judge_digest="",
        data_title="digits",
        data_licence="",
        example="",
    )
    publish(measured, images)


def publish_gallery(images: ImageSet, run_id: str) -> None:
    sampling.publish_gallery.fn([], str(home() / "gallery" / "one"), run_id)


def publish_lineage(images: ImageSet, run_id: str) -> None:
    lineage.publish_lineage.fn([], "page.html", run_id)


@pytest.mark.parametrize(
    ("creates", "does"),
    [
        ("tasks.evaluation.scorecard.create_table_artifact", publish_scorecard),
        ("tasks.samples.sampling.create_markdown_artifact", publish_gallery),
        ("tasks.samples.lineage.create_markdown_artifact", publish_lineage),
    ],
)
def test_nothing_that_is_published_fails_while_prefect_is_away(
    creates: str,
    does: Callable[[ImageSet, str], None],
    images: ImageSet,
    run_id: str,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    server = Server(httpx.ConnectError("x"), times=1000)
    monkeypatch.setattr(creates, server.create)

    does(images, run_id)

    assert server.num_asked == len(WAITS_FOR_PREFECT) + 1


def test_that_a_step_is_complete_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "atelier")
    progress = Progress("training tale", 10)

    progress.report(5, {"loss": 2.0})
    progress.report(10, {"loss": 1.0})
    progress.report(10, {})

    said = [record.getMessage().partition("  ")[0] for record in caplog.records]
    assert said == ["training tale: 5/10", "training tale: 10/10"]
