"""What grows by mere working: records of steps, lock files, logs of servers, leases."""

import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from prefect import task

from tasks.runtime.progress import log
from tasks.runtime.retries import LOCAL
from tasks.store.artifacts import KINDS, folders
from tasks.store.clock import steady_now
from tasks.store.files import home
from tasks.store.leases import forget_ended
from tasks.store.locks import remove_unused_lock
from tasks.store.retention import days_to_keep
from tasks.store.shared import StoreAway
from tasks.store.steps import forget_older, steps

RECORDS_TO_KEEP = 50
"""How many times that a step ran are kept whatever their age."""
DAYS_FOR_LOCKS = 7.0
DAYS_FOR_LEASES = 7.0
MAX_BYTES_OF_A_LOG, BYTES_OF_A_LOG_TO_KEEP = 20_000_000, 2_000_000


@task(name="trim-home", **LOCAL)
def trim_home() -> None:
    """Shorten records and logs, and remove locks that nobody holds."""
    before = steady_now() - days_to_keep() * 86_400
    there = {path.name for kind in KINDS for path in folders(kind)}
    forgotten = sum(forget_older(step, before, RECORDS_TO_KEEP, there) for step in steps())
    locks = sum(map(remove_unused_lock, _old_locks()))
    shortened = sum(map(_shortened, sorted((home() / "logs").glob("*.log"))))
    with suppress(StoreAway):
        forget_ended(DAYS_FOR_LEASES)
    if forgotten or locks or shortened:
        log(f"forgot {forgotten} old times of steps, {locks} locks; shortened {shortened} logs")


def _old_locks() -> Iterator[Path]:
    for path in sorted((home() / "locks").glob("*.lock")):
        try:
            age = steady_now() - path.stat().st_mtime
        except FileNotFoundError:
            continue
        if age > DAYS_FOR_LOCKS * 86_400:
            yield path


def _shortened(path: Path) -> bool:
    """Keep the end of a server's log; the server goes on writing at the end of what is left."""
    if path.stat().st_size <= MAX_BYTES_OF_A_LOG:
        return False
    with path.open("r+b") as file:
        file.seek(-BYTES_OF_A_LOG_TO_KEEP, os.SEEK_END)
        end = file.read()
        file.seek(0)
        file.truncate()
        file.write(end)
    return True
