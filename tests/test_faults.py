"""The fault-injection suite itself must not rot: a miniature of it."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.soak
def test_a_few_kills_change_nothing(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "faults", "--kills", "2", "--only", "kills"]
    command += ["--family", "vae"]
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    summary = done.stdout.splitlines()[-1]
    assert re.match(r"2 kills, ([12]) of \1 sequences identical;", summary), summary
    assert summary.endswith("0 orphans; 0 temporary files")
    assert list(tmp_path.glob("atelier-*")) == []


@pytest.mark.soak
def test_hostile_pages_are_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "faults", "--only", "pages"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "TMPDIR": str(tmp_path)},
        check=False,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    told = re.search(r"; (\d+) of \1 hostile requests refused;", done.stdout.splitlines()[-1])
    assert told is not None, done.stdout
    assert int(told[1]) > 100


@pytest.mark.parametrize(
    ("counts", "is_well"),
    [
        ({}, True),
        ({"sequences": 1}, False),
        ({"corruptions": 2, "corruptions_found": 1}, False),
        ({"full_disks": 1}, False),
        ({"no_full_disks": "no right to mount"}, False),
        ({"no_clock_steps": "no C compiler"}, False),
        ({"outages": 1}, False),
        ({"rivals": 1}, False),
        ({"clock_steps": 1}, False),
        ({"pages": 2, "pages_refused": 1}, False),
        ({"tamperings": 2, "tamperings_found": 1}, False),
        ({"losses": 1}, False),
        ({"orphans": 1}, False),
        ({"temporary_files": 1}, False),
        ({"problems": ["one"]}, False),
    ],
)
def test_all_must_hold(counts: dict[str, object], is_well: bool) -> None:
    from faults.tally import Tally

    assert Tally(**counts).all_is_well is is_well


def test_disks_that_cannot_be_filled_are_told_and_not_counted_as_survived(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from faults import damage
    from faults.tally import Tally

    monkeypatch.setattr(damage, "fitted", lambda family, home: None)
    monkeypatch.setattr(damage, "mount", lambda folder, size_kb: False)
    (tmp_path / "empty.db").touch()
    tally = Tally()

    damage.fill_disks(tmp_path, tmp_path / "empty.db", tally)

    assert "; full disks not tested: no right to mount; " in str(tally)
    assert "of 0 full disks" not in str(tally)
    assert not tally.all_is_well


def test_what_cannot_be_tested_can_be_skipped_explicitly(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from faults import __main__ as suite
    from faults.tally import Tally

    injected: list[tuple[str, ...]] = []

    def inject(kinds: tuple[str, ...], *_: object) -> Tally:
        injected.append(kinds)
        return Tally()

    monkeypatch.setenv("ATELIER_HOME", os.environ["ATELIER_HOME"])  # main sets it
    monkeypatch.setattr(suite, "_inject", inject)
    monkeypatch.setattr(sys, "argv", ["faults", "--skip", "disks"])

    assert suite.main() == 0

    kinds = ("kills", "damage", "clocks", "tampering", "databases", "decisions", "commands")
    assert injected == [(*kinds, "outages", "rivals", "pages")]
    monkeypatch.setattr(sys, "argv", ["faults", "--only", "tampering,databases"])
    assert suite.main() == 0
    assert injected[1:] == [("tampering", "databases")]


def test_a_locked_database_counts_where_something_was_asked_for() -> None:
    from faults.servers import locked_requests

    def record(name: str) -> str:
        return (
            f"2026-11-27 02:44:37,058 | ERROR   | {name} - failed\n"
            "Traceback (most recent call last):\n"
            "sqlite3.OperationalError: database is locked\n"
        )

    beat = record("prefect.server.utilities.worker_channel")
    request = record("uvicorn.error")
    other = "2026-11-27 02:44:38,000 | ERROR   | uvicorn.error - something else\n"

    assert locked_requests(beat + other) == []
    assert locked_requests(other + request + beat) == [request]
    assert locked_requests("") == []
