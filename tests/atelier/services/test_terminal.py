"""Lines where nobody watches, bars where a person does, nothing where nothing was wanted."""

import io
import logging
import re
from contextlib import redirect_stdout

import pytest
from rich.console import Console

from atelier.services.terminal import LineHandler, Rows, has_a_watcher, heard, live, quiet_if, say
from tasks.runtime import watching
from tasks.runtime.progress import Progress, log, log_on_page, with_progress
from tasks.runtime.watching import Reading


class Screen(io.StringIO):
    """A terminal that keeps what is written to it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Screen:
    """A terminal of 120 columns, to be standard output: `redirect_stdout`."""
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.delenv("CI", raising=False)
    return Screen()


def test_a_pipe_gets_plain_lines(capsys: pytest.CaptureFixture[str]) -> None:
    with live():
        assert not watching.is_watched()
        say("a line with [brackets]")

    assert capsys.readouterr().out == "a line with [brackets]\n"


@pytest.mark.parametrize(("name", "value"), [("CI", "true"), ("TERM", "dumb")])
def test_bars_are_for_terminals_that_can_draw_them(
    screen: Screen, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    with redirect_stdout(screen):
        assert has_a_watcher()
        monkeypatch.setenv(name, value)
        assert not has_a_watcher()


def test_a_quiet_command_says_nothing_and_draws_nothing(screen: Screen) -> None:
    with redirect_stdout(screen), quiet_if(True), live():
        say("a line")
        watching.moved(Reading(what="training", done=1, total=2))

    assert screen.getvalue() == ""


def test_lines_go_by_above_the_bars_as_they_are(screen: Screen) -> None:
    with redirect_stdout(screen), live():
        assert watching.is_watched()
        say("a line with [brackets] and :x:, and " + "long " * 40 + "words")

    assert "a line with [brackets] and :x:, and " + "long " * 40 + "words\n" in screen.getvalue()
    assert "\x1b[?25l" not in screen.getvalue()  # a killed process could not show the cursor again


def test_the_log_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    handler = LineHandler()
    handler.setFormatter(logging.Formatter("<%(message)s>"))
    handler.handle(logging.makeLogRecord({"msg": "trained in %d s", "args": (3,)}))

    assert capsys.readouterr().out == "<trained in 3 s>\n"


@pytest.fixture
def rows() -> Rows:
    return Rows(Console(file=io.StringIO(), force_terminal=True, width=120))


def drawn(rows: Rows) -> list[str]:
    """The rows as they stand, without colours."""
    console = Console(file=io.StringIO(), width=120)
    console.print(rows.progress.get_renderable())
    assert isinstance(console.file, io.StringIO)
    return [line for line in console.file.getvalue().splitlines() if line.strip()]


def test_a_bar_has_its_numbers_until_it_ends(rows: Rows) -> None:
    rows.moved(Reading(what="training digits-vae", done=250, total=1000, numbers={"loss": 22.5}))
    rows.moved(Reading(what="training digits-vae", done=260, total=1000))

    (line,) = drawn(rows)
    assert line.startswith("training digits-vae ")
    assert "260/1000" in line
    assert "loss 22.5" in line
    rows.ended("training digits-vae")
    assert drawn(rows) == []


@pytest.mark.parametrize(
    ("width", "told"),
    [
        (50, "300/1800  5/s"),
        (80, "300/1800  5/s  300 s left"),
        (100, "300/1800  5/s  300 s left  generator_loss 0.8168"),
        (120, "300/1800  5/s  300 s left  generator_loss 0.8168  discriminator_loss 0.8377"),
    ],
)
def test_a_narrow_terminal_shows_a_bar_and_whole_numbers(width: int, told: str) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=width)
    rows, now = Rows(console), [0.0]
    rows.progress.get_time = lambda: now[0]
    numbers = {"generator_loss": 0.8168, "discriminator_loss": 0.83771}
    for _ in range(3):
        now[0] += 10.0
        done = int(now[0] * 5) + 150
        rows.moved(
            Reading(what="training digits-diffusion", done=done, total=1800, numbers=numbers)
        )

    console.print(rows.progress.get_renderable())

    assert isinstance(console.file, io.StringIO)
    (line,) = [each for each in console.file.getvalue().splitlines() if each.strip()]
    assert len(line) <= width
    name, bar, numbers_told = re.split(r" (?=━)|(?<=[━╸ ]) +(?=[0-9])", line.rstrip(), maxsplit=2)
    assert (name, numbers_told) == ("training digits-diffusion", told)
    assert set(bar.strip()) <= set("━╸")


def test_work_of_unknown_length_is_shown_while_no_bar_is(rows: Rows) -> None:
    rows.began("train digits-vae")
    assert [line.split("  ")[0].split(" ━")[0] for line in drawn(rows)] == ["train digits-vae"]

    rows.moved(Reading(what="training digits-vae", done=1, total=10))
    assert [line.split(" ")[0] for line in drawn(rows)] == ["training"]

    rows.ended("training digits-vae")
    assert [line.split(" ")[0] for line in drawn(rows)] == ["train"]
    rows.ended("train digits-vae")
    rows.ended("train digits-vae")  # and once more than it began
    assert drawn(rows) == []


def test_names_of_files_are_no_markup(rows: Rows) -> None:
    rows.began("read [red]pets[/red]\x1b[2J")

    (line,) = drawn(rows)
    assert "[red]pets[/red]" in line
    assert "\x1b" not in line


class Notes:
    """A watcher that keeps what it was told."""

    def __init__(self) -> None:
        self.told: list[str] = []

    def began(self, what: str) -> None:
        self.told.append(f"began {what}")

    def moved(self, reading: Reading) -> None:
        numbers = "".join(f" {name} {value}" for name, value in reading.numbers.items())
        self.told.append(f"{reading.what} {reading.done}/{reading.total}{numbers}")

    def ended(self, what: str) -> None:
        self.told.append(f"ended {what}")


def test_lines_of_progress_give_way_to_the_bar(caplog: pytest.LogCaptureFixture) -> None:
    notes = Notes()
    caplog.set_level(logging.INFO)
    with watching.watched_by(notes):
        progress = Progress("training", 10)
        progress.report(4, {"loss": 2.0})
        progress.report(10, {"loss": 1.0})
        progress.close()

    assert notes.told == ["training 4/10 loss 2.0", "ended training"]
    lines = [record.message for record in caplog.records if record.name == "atelier"]
    assert [line.split("  ")[0] for line in lines] == ["training: 10/10"]


def test_without_a_watcher_every_report_is_a_line(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = Progress("training", 10)
    progress.report(4, {"loss": 2.0})
    progress.advance(5)

    assert [record.message.split("  ")[0] for record in caplog.records] == ["training: 4/10"]


def test_a_bar_moves_between_reports_but_not_too_often(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("tasks.runtime.progress.time.monotonic", lambda: now[0])
    notes = Notes()
    with watching.watched_by(notes):
        progress = Progress("training", 100)
        for step in range(1, 5):
            progress.advance(step)
            now[0] += 0.06

    assert notes.told == ["training 1/100", "training 3/100"]


def test_a_bar_over_items_ends_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [100.0]
    monkeypatch.setattr("tasks.runtime.progress.time.monotonic", lambda: now[0])
    notes = Notes()
    with watching.watched_by(notes):
        for _ in with_progress([1, 2, 3], "look at files"):
            now[0] += 6.0

    assert notes.told == ["look at files 1/3", "look at files 2/3", "ended look at files"]
    assert not watching.is_watched()


def test_a_task_run_is_told_of(prefect: object, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect import flow, task

    from tasks.runtime.retries import LOCAL

    @task(name="judge", task_run_name="judge {name}", **LOCAL)
    def judge(name: str) -> None:
        if name == "b":
            raise ValueError("bad")

    @flow(name="judging")
    def judging() -> None:
        judge("a")
        judge("b")

    notes = Notes()
    with watching.watched_by(notes), pytest.raises(ValueError, match="bad"):
        judging()

    assert notes.told == ["began judge a", "ended judge a", "began judge b", "ended judge b"]


def test_the_log_is_said_where_prefect_is_not_imported(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    logger = logging.getLogger("atelier")
    monkeypatch.setattr(logger, "handlers", [])
    monkeypatch.setattr(logger, "level", logging.NOTSET)
    with heard():
        log("a \x1b line")
        log_on_page("for a page")
        with quiet_if(True):
            log("not wanted")
        with heard():  # a command inside a command, as in tests
            log("another")
    log("too late")

    lines = capsys.readouterr().out.splitlines()
    assert [line[8:] for line in lines] == [r"  a \x1b line", "  another"]
    assert all(re.fullmatch(r"\d\d:\d\d:\d\d", line[:8]) for line in lines)
    assert (logger.handlers, logger.level) == ([], logging.NOTSET)


def test_handlers_that_prefect_brings_meanwhile_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    logger = logging.getLogger("atelier")
    monkeypatch.setattr(logger, "handlers", [])
    with heard():
        logger.handlers = [LineHandler()]
        logger.setLevel(logging.INFO)
        prefects = list(logger.handlers)

    assert (logger.handlers, logger.level) == (prefects, logging.INFO)
