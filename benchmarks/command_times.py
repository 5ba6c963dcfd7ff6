"""How long a person waits for commands in an ordinary home: after `atelier run --preset quick`.

python -m benchmarks.command_times              makes such a home in a temporary folder
python -m benchmarks.command_times --home DIR   makes it there once, for repeats, and leaves it

Both servers run, as they do after a run; each command is a process of its own. The first run
tells what it waits for beside its trainings, and before its first line of work, with servers that
start on new databases; the second one, in which nothing has changed, what an unchanged run takes.
A third, by another setting, gives a model a second version, so that promote and rollback have a
version to go to.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from benchmarks.large_home import atelier, free_port, measure
from benchmarks.measured import record

NAME = "pydocs-ngram"
RUN = ("run", "--preset", "quick")
REPEATS = 5
COMMANDS = {
    "models": (["models"], 1.0),
    "show": (["show", NAME], 1.0),
    "status": (["status"], 1.0),
    "settings": (["settings"], 1.0),
    "explain": (["explain"], 1.0),
    "history": (["history"], 1.0),
    "gc": (["gc"], 2.0),
    "doctor": (["doctor"], 5.0),
}
"""The words of each command, and the seconds that are wanted at most."""
SECONDS_OF_A_MOVE = 5.0
WANTED_OF_RUNS = {"beyond_trainings": 25.0, "before_work": 12.0, "unchanged": 10.0}
_LINE_OF_WORK = re.compile(r"\d\d:\d\d:\d\d  ")


@dataclass(frozen=True, kw_only=True)
class Waits:
    """What a person waits for in one run, in seconds."""

    total: float
    before_work: float
    """Until the first line that tells of a step; those that say what is started come before."""


def waits_of(
    lines: Iterable[str], now: Callable[[], float] = time.perf_counter, began: float | None = None
) -> Waits:
    """The waits of a run whose lines come in; began: by the same clock, by default now."""
    began = now() if began is None else began
    first: float | None = None
    for line in lines:
        if first is None and _LINE_OF_WORK.match(line):
            first = now() - began
    total = now() - began
    return Waits(total=total, before_work=total if first is None else first)


def run(home: Path, *arguments: str) -> Waits:
    """Run the pipeline; an exit code that tells of an error stops us."""
    began = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-m", "atelier", *RUN, *arguments],
        env={**os.environ, "ATELIER_HOME": str(home)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        waits = waits_of(process.stdout, began=began)
    if process.returncode:
        sys.exit(f"atelier run: exit {process.returncode}")
    return waits


def seconds_of_trainings(home: Path) -> float:
    """What the stored fits of a home took."""
    manifests = (home / "artifacts" / "models").glob("*/*/manifest.json")
    records = [json.loads(path.read_text(encoding="utf-8"))["record"] for path in manifests]
    return sum(float(each["seconds"]) for each in records)


def other_version(home: Path, name: str) -> str:
    """A version of a model that is not its champion."""
    done = subprocess.run(
        [sys.executable, "-m", "atelier", "models", "--json"],
        env={**os.environ, "ATELIER_HOME": str(home)},
        capture_output=True,
        text=True,
        check=True,
    )
    (told,) = [each for each in json.loads(done.stdout) if each["model"] == name]
    return str(next(each for each in told["versions"] if each != told["champion"]))


def measure_runs(home: Path) -> dict[str, float]:
    """The waits of a first and of an unchanged run."""
    ports = ["--prefect-port", str(free_port()), "--mlflow-port", str(free_port())]
    first = run(home, *ports)
    trainings = seconds_of_trainings(home)
    again = run(home)
    run(home, "--models", "ngram", "--set", "ngram.model.order=4")
    return {
        "beyond_trainings": first.total - trainings,
        "before_work": first.before_work,
        "unchanged": again.total,
    }


def measure_all(home: Path) -> None:
    """Measure a home, which is made where it is not there, and put the rows into the table."""
    if not home.exists():
        for name, seconds in measure_runs(home).items():
            reference = "a first run, quick" if name != "unchanged" else "quick, run again"
            record(
                f"run_{name}_seconds",
                seconds,
                "s",
                seconds=seconds,
                reference=f"{reference}; wanted at most",
                reference_value=WANTED_OF_RUNS[name],
            )
    else:
        atelier(home, "up")
    words = {name: command for name, (command, _) in COMMANDS.items()}
    words["promote"] = ["promote", NAME, "--to", other_version(home, NAME), "--reason", "measured"]
    words["rollback"] = ["rollback", NAME]
    for name, seconds in measure(home, words, REPEATS).items():
        wanted = COMMANDS[name][1] if name in COMMANDS else SECONDS_OF_A_MOVE
        record(
            f"command_{name}_seconds",
            seconds,
            "s",
            seconds=seconds,
            reference="a home after one run, quick; wanted at most",
            reference_value=wanted,
        )


def main() -> None:
    """Measure in a temporary folder, or in one that stays."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--home", type=Path)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atelier-commands-") as folder:
        home = options.home.absolute() if options.home else Path(folder) / "home"
        try:
            measure_all(home)
        finally:
            atelier(home, "down")


if __name__ == "__main__":
    main()
