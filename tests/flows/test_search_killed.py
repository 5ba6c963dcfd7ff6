"""A search that is killed again and again, by real commands, ends as the unkilled one."""

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tasks.store.files import project_root

SEARCH = [
    *("search", "vae", "--images", "digits", "--preset", "quick", "--trials", "6"),
    *("--set", "vae.training.steps=60", "--fresh-seeds", "0", "--name", "killed"),
    *("--vary", "vae.training.learning_rate=log:1e-4..1e-2"),
    *("--vary", "vae.model.latent_size=8,12,16"),
]
KILLS = 5


def command(home: Path, *arguments: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "atelier", *arguments],
        env={**os.environ, "ATELIER_HOME": str(home), "PYTHONPATH": str(project_root())},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def done(home: Path, *arguments: str) -> str:
    running = command(home, *arguments)
    told, _ = running.communicate(timeout=900)
    assert running.returncode == 0, told
    return told


def tells_of_a_trial(running: "subprocess.Popen[str]") -> bool:
    """Wait until a search tells of a trial's end; whether it did."""
    assert running.stdout is not None
    return any(re.search(r"  trial \d+: ", line) for line in running.stdout)


def whole(home: Path) -> list[Any]:
    """The whole study but for times and ids of runs."""
    told = json.loads(done(home, "search", "--show", "killed", "--json"))
    for trial in told["trials"]:
        for name in ("seconds", "run_id"):
            del trial["outcome"][name]
    return list(told["trials"])


@pytest.mark.soak
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_killed_search_is_the_unkilled_one(workers: str, tmp_path: Path) -> None:
    dice = random.Random(int(workers))
    homes = tmp_path / "killed", tmp_path / "whole"
    try:
        killed = 0
        for _ in range(KILLS):
            running = command(homes[0], *SEARCH, "--workers", workers)
            if not tells_of_a_trial(running):  # all were tried before
                running.communicate()
                break
            time.sleep(dice.uniform(0.0, 0.5))
            running.send_signal(signal.SIGKILL)
            running.communicate()
            killed += 1
        done(homes[0], *SEARCH, "--workers", workers)
        done(homes[1], *SEARCH)

        assert killed >= 2
        assert whole(homes[0]) == whole(homes[1])
        assert len(whole(homes[0])) == 6
    finally:
        for home in homes:
            command(home, "down").communicate(timeout=120)
