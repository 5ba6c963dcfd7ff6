"""Two commands of one home at the same moment: each ends with a sentence, none with a traceback."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
SECONDS_TO_WAIT = 240

pytestmark = pytest.mark.soak


def begun(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    kept = ("ATELIER_", "PREFECT_", "MLFLOW_", "PYTHONWARNINGS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    return subprocess.Popen(
        [sys.executable, "-m", "atelier", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        env={**clean, "ATELIER_HOME": str(home), "PYTHONPATH": str(ROOT)},
    )


def ended(process: "subprocess.Popen[str]") -> tuple[int, str]:
    printed, _ = process.communicate(timeout=2 * SECONDS_TO_WAIT)
    return process.returncode, printed


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "home"
    ended(begun(tmp_path / "home", "down"))


def test_down_waits_for_the_end_of_up_and_a_second_up_too(home: Path) -> None:
    up = begun(home, "up")
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not (home / "servers.json").exists():  # the servers have been started
        assert time.monotonic() < deadline
        assert up.poll() is None
        time.sleep(0.1)

    others = [begun(home, "up"), begun(home, "down")]

    codes, lines = zip(*map(ended, [up, *others]), strict=True)
    assert set(codes) == {0}, lines
    assert not [text for text in lines if "Traceback" in text]
    assert any("is at work; waiting" in text for text in lines)
    assert any("stopped: worker, mlflow, prefect" in text for text in lines)
    code, printed = ended(begun(home, "down"))  # the second `up` may have been the last of them
    assert code == 0
    assert printed in ("stopped: worker, mlflow, prefect\n", "stopped: nothing was up\n")
