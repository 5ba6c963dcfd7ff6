"""What keeps the house in order without a person: dead runs, crashed runs, what nobody needs."""

from dataclasses import dataclass

from prefect import flow
from prefect.runtime import deployment

from tasks.maintenance.crash_recovery import (
    close_dead_flow_runs,
    label_with_process,
    retry_crashed_runs,
)
from tasks.maintenance.disk_watch import watch_disk
from tasks.maintenance.log_trimming import trim_home
from tasks.maintenance.shared_store import send_what_waits
from tasks.maintenance.sweeping import collect_garbage, remove_surplus
from tasks.registry.verdicts import verify_champion
from tasks.registry.versions import champions
from tasks.runtime.progress import log
from tasks.store.files import ChecksumMismatch
from tasks.tracking.runs import recover_from_crashes


@dataclass(frozen=True, kw_only=True, slots=True)
class Housekeeping:
    """What was found and done."""

    closed: tuple[str, ...]
    verified: tuple[str, ...]
    """The champions whose packages are what was registered."""
    retried: tuple[str, ...]
    removed: int
    """Versions, packages and runs that left MLflow."""
    freed_bytes: int


@flow(name="housekeeping", flow_run_name="housekeeping", on_running=[label_with_process])
def housekeeping(*, frees_space: bool = True) -> Housekeeping:
    """Close runs whose process died, start crashed ones again, free what nobody refers to.

    Then verify every champion: one that is not what was registered lets this run fail, so that
    whoever hears of failed runs hears of it.

    Args:
        frees_space: remove what `atelier gc` would; no version that stays and no job needs it.
    """
    closed = close_dead_flow_runs(watches=True)
    retried = retry_crashed_runs(besides=deployment.id)
    recover_from_crashes(watches=True)
    send_what_waits()
    removed = remove_surplus() if frees_space else 0
    freed = collect_garbage() if frees_space else 0
    trim_home()
    watch_disk()
    log(
        f"closed {len(closed)} dead runs, started {len(retried)} crashed ones again, removed"
        f" {removed} things of MLflow's, freed {freed / 1e6:.1f} MB"
    )
    problems = {name: problem for name in champions() if (problem := verify_champion(name))}
    if problems:
        raise ChecksumMismatch("; ".join(problems.values()))
    return Housekeeping(
        closed=tuple(closed),
        verified=tuple(champions()),
        retried=tuple(retried),
        removed=removed,
        freed_bytes=freed,
    )
