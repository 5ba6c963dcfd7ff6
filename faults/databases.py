"""Registries lost, replaced, rolled back and emptied while the audit logs stand."""

import shutil
import sqlite3
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from faults.registries import (
    NAME,
    admit_1,
    admit_3,
    admit_4,
    copied,
    done_in,
    load,
    make_registry,
    problems,
)
from faults.tally import Tally


def lose_databases(scratch: Path, empty: Path, tally: Tally) -> None:
    """Each loss must be told in a line, and the same command must work again after it."""
    first = scratch / "registry" / "home"
    make_registry(first, empty)
    for name, lose, told in _losses(empty):
        home = copied(first, scratch / "registry" / "damaged")
        rerun = lose(home)
        tally.losses += 1
        whats = [what for what, _ in done_in(home, problems)]
        done_in(home, withdrawn_by_history)  # a reader settles nothing that a person must know
        still = [what for what, _ in done_in(home, problems)]
        number, alias = _outcome(done_in(home, rerun))
        refused = done_in(home, load)
        left = done_in(home, problems)
        if not whats or told not in whats[0] or any("\n" in what for what in whats):
            tally.note(f"{name}: told was {whats}")
        elif not still:
            tally.note(f"{name}: a reader made it forgotten")
        elif alias != "champion" or refused:
            tally.note(f"{name}: run again: {number} {alias} {refused}")
        elif left:
            tally.note(f"{name}: after a run is left: {left}")
        else:
            tally.losses_explained += 1
    print(f"  databases: {tally.losses} lost or replaced", flush=True)


def _outcome(done: Any) -> tuple[Any, str]:
    return (None, done) if isinstance(done, str) else done


def withdrawn_by_history() -> int:
    """Read the history, as `atelier history` does."""
    from tasks.registry.promotion import history

    return len(history(NAME))


Loss = Callable[[Path], Callable[[], Any]]


def _losses(empty: Path) -> list[tuple[str, Loss, str]]:
    """What is lost, how (returns what is run again), and what must be told."""
    gone, older = "the registry has no such model any more", "does not know the last"
    return [
        ("an empty database", partial(_replaced_by, empty), gone),
        ("the database removed", _removed, gone),
        ("the model deleted", _deleted, gone),
        ("an older database", _older, older),
        ("the anchors lost", _without_anchors, older),
    ]


def _replaced_by(empty: Path, home: Path) -> Callable[[], Any]:
    shutil.copy(empty, home / "mlflow.db")
    return admit_3


def _removed(home: Path) -> Callable[[], Any]:
    (home / "mlflow.db").unlink()
    return admit_1


def _deleted(home: Path) -> Callable[[], Any]:
    done_in(home, _delete_model)
    return admit_3


def _delete_model() -> None:
    from tasks.tracking.mlflow_client import client

    client().delete_registered_model(NAME)


def _older(home: Path) -> Callable[[], Any]:
    """The newest version is of the log alone; made again, it is the same content."""
    shutil.copy(home / "mlflow.db", home / "backup.db")
    done_in(home, admit_4)
    shutil.copy(home / "backup.db", home / "mlflow.db")
    return admit_4


def _without_anchors(home: Path) -> Callable[[], Any]:
    with sqlite3.connect(home / "mlflow.db") as database:
        database.execute("DELETE FROM registered_model_tags WHERE key LIKE 'audit_log.%'")
    database.close()
    return admit_4
