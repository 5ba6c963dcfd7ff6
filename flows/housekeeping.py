"""What keeps the house in order without a person: dead runs, crashed runs, leftovers."""

from dataclasses import dataclass
from typing import Annotated

from prefect import flow
from prefect.runtime import deployment
from pydantic import Field

from tasks.flow_runs import close_dead_flow_runs, retry_crashed_runs, sign
from tasks.leftovers import remove_leftovers
from tasks.reporting import log


@dataclass(frozen=True, kw_only=True, slots=True)
class Housekeeping:
    """What was found and done."""

    closed: tuple[str, ...]
    retried: tuple[str, ...]
    removed_files: int
    removed_bytes: int


@flow(name="housekeeping", flow_run_name="housekeeping", on_running=[sign])
def housekeeping(*, keep_days: Annotated[float, Field(ge=0.5, le=365)] = 1.0) -> Housekeeping:
    """Close runs whose process died, start crashed ones again, remove leftovers.

    Args:
        keep_days: age in days, 0.5 to 365, below which temporary files are left alone.
    """
    closed = close_dead_flow_runs()
    retried = retry_crashed_runs(besides=deployment.id)
    removed = remove_leftovers(keep_days)
    log(
        f"closed {len(closed)} dead runs, started {len(retried)} crashed ones again, removed"
        f" {removed.files} leftovers of {removed.num_bytes / 1e6:.1f} MB"
    )
    return Housekeeping(
        closed=tuple(closed),
        retried=tuple(retried),
        removed_files=removed.files,
        removed_bytes=removed.num_bytes,
    )
