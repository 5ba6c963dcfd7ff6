"""What keeps the house in order without a person: dead runs, crashed runs, what nobody needs."""

from dataclasses import dataclass

from prefect import flow
from prefect.runtime import deployment

from tasks.disk_watch import watch_disk
from tasks.flow_runs import close_dead_flow_runs, retry_crashed_runs, sign
from tasks.garbage import collect_garbage
from tasks.reporting import log
from tasks.runs import clear_up_after_crashes
from tasks.surplus import remove_surplus
from tasks.trimming import trim_home


@dataclass(frozen=True, kw_only=True, slots=True)
class Housekeeping:
    """What was found and done."""

    closed: tuple[str, ...]
    retried: tuple[str, ...]
    removed: int
    """Versions, packages and runs that left MLflow."""
    freed_bytes: int


@flow(name="housekeeping", flow_run_name="housekeeping", on_running=[sign])
def housekeeping(*, frees_space: bool = True) -> Housekeeping:
    """Close runs whose process died, start crashed ones again, free what nobody refers to.

    Args:
        frees_space: remove what `atelier gc` would; no version that stays and no job needs it.
    """
    closed = close_dead_flow_runs()
    retried = retry_crashed_runs(besides=deployment.id)
    clear_up_after_crashes()
    removed = remove_surplus() if frees_space else 0
    freed = collect_garbage() if frees_space else 0
    trim_home()
    watch_disk()
    log(
        f"closed {len(closed)} dead runs, started {len(retried)} crashed ones again, removed"
        f" {removed} things of MLflow's, freed {freed / 1e6:.1f} MB"
    )
    return Housekeeping(
        closed=tuple(closed), retried=tuple(retried), removed=removed, freed_bytes=freed
    )
