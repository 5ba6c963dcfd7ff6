"""What the benchmark of waits reads from a run and from a home."""

import json
from itertools import chain
from pathlib import Path

from benchmarks.command_times import COMMANDS, seconds_of_trainings, waits_of

LINES = [
    "starting the prefect server and the mlflow server ...\n",
    "21:06:43  digits: 1259 / 269 / 269 images\n",
    "21:06:46  pydocs: 376428 characters\n",
    "\n",
    "model       version\n",
]


def test_the_wait_before_work_ends_with_the_first_line_of_a_step() -> None:
    clock = chain([10.0, 13.0, 20.0])

    waits = waits_of(LINES, lambda: next(clock))

    assert (waits.before_work, waits.total) == (3.0, 10.0)


def test_a_run_without_a_line_of_work_was_all_waiting() -> None:
    clock = chain([4.0])

    waits = waits_of(LINES[:1], lambda: next(clock), began=1.0)

    assert (waits.before_work, waits.total) == (3.0, 3.0)


def test_the_seconds_of_trainings_are_those_of_the_stored_fits(tmp_path: Path) -> None:
    for kind, name, seconds in (("models", "a", 1.5), ("models", "b", 2.0), ("corpora", "c", 9.0)):
        folder = tmp_path / "artifacts" / kind / name / "key"
        folder.mkdir(parents=True)
        (folder / "manifest.json").write_text(json.dumps({"record": {"seconds": seconds}}))

    assert seconds_of_trainings(tmp_path) == 3.5


def test_each_command_can_be_typed() -> None:
    from atelier.__main__ import _parser

    for words, _ in COMMANDS.values():
        _parser(words[0]).parse_args(words)
