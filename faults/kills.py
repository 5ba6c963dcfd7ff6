"""SIGKILL at random moments, several times in a row; then the same work, run to its end."""

import random
import time
from pathlib import Path
from typing import Any

from faults.fits import Fit, fitted, fresh, inspected
from faults.tally import Tally


def kill_fits(
    family: str, num_kills: int, dice: random.Random, scratch: Path, empty: Path, tally: Tally
) -> None:
    """Kill fits of a family so many times, in sequences of one to five, and compare each end."""
    whole = fresh(scratch / f"{family}-whole", empty)
    started_at = time.monotonic()
    expected = fitted(family, whole)
    duration = time.monotonic() - started_at
    if expected.error:
        tally.note(f"{family}: the uninterrupted fit failed: {expected.error}")
        return
    curves = inspected(whole, curves_of_all_runs)
    left = num_kills
    while left:
        home = fresh(scratch / f"{family}-killed", empty)
        wanted, moments = min(left, dice.randint(1, 5)), []
        for _ in range(wanted):
            fit = Fit(family, home)
            moment = dice.uniform(0.0, duration)
            if fit.wait(moment) is not None:
                break  # it was done before
            if fit.kill():
                moments.append(f"{moment:.2f}")
        tally.kills += len(moments)
        left -= len(moments)
        if not moments:
            continue
        tally.sequences += 1
        end = fitted(family, home)
        when = f"{family} killed after {', '.join(moments)} s"
        if end.digest != expected.digest:
            tally.note(f"{when}: {end.error or 'other weights'}")
        elif (told := inspected(home, curves_of_all_runs)) != curves:
            tally.note(f"{when}: {_difference(curves, told)}")
        else:
            tally.identical += 1
        count_leftovers(home, tally)
    print(f"  {family}: {num_kills} kills within {duration:.1f} s of work each", flush=True)


def curves_of_all_runs() -> list[Any]:
    """Each run's name, how it ended, and every point of its curves, without times.

    Readings of the machine are left out: no two runs have the same.
    """
    from tasks.tracking.mlflow_client import client, metric_history, tracking_experiment

    runs = client().search_runs([tracking_experiment()])
    return sorted(
        [
            run.info.run_name,
            run.info.status,
            [[name, metric_history(run.info.run_id, name)] for name in _names(run)],
        ]
        for run in runs
    )


def _names(run: Any) -> list[str]:
    return sorted(name for name in run.data.metrics if not name.startswith("system/"))


def _difference(expected: list[Any], told: list[Any]) -> str:
    """Where two lists of runs part, in a line."""
    if [run[:2] for run in expected] != [run[:2] for run in told]:
        return f"{[run[:2] for run in told]} instead of {[run[:2] for run in expected]}"
    for before, after in zip(expected, told, strict=True):
        for (name, points), (_, others) in zip(before[2], after[2], strict=False):
            if points != others:
                return f"{name}: {len(others)} points {others[:3]}, not {len(points)} {points[:3]}"
    return f"other metrics: {[[metric[0] for metric in run[2]] for run in told]}"


def open_runs() -> int:
    """How many MLflow runs are open."""
    from tasks.tracking.mlflow_client import client, tracking_experiment

    return len(client().search_runs([tracking_experiment()], "attributes.status = 'RUNNING'"))


def undelivered_journals() -> int:
    """How many runs have numbers that the tracking server lacks."""
    from tasks.tracking.metric_queue import pending_runs

    return len(pending_runs())


def count_leftovers(home: Path, tally: Tally) -> None:
    """Count what no finished work may leave."""
    tally.orphans += inspected(home, open_runs)
    tally.count_temporary_files(home)
    if inspected(home, undelivered_journals):
        tally.note(f"{home.name}: a journal was not delivered")
