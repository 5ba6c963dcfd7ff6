"""Tells Prefect when the home's disk fills, so that an automation can tell a person in time."""

import platform
import shutil
import time

from prefect import task
from prefect.events import emit_event

from tasks.runtime.progress import log
from tasks.runtime.retries import LOCAL
from tasks.store.files import home, remove, write_json

DISK_LOW = "atelier.disk.low"
LOW_SPACE_BYTES = 2_000_000_000
HOURS_BETWEEN_REMINDERS = 24.0


@task(name="watch-disk", **LOCAL)
def watch_disk(low_bytes: int = LOW_SPACE_BYTES) -> bool:
    """Emit `atelier.disk.low` where little space is left, once a day; returns whether it did."""
    free, mark = shutil.disk_usage(home()).free, home() / "disk-low.json"
    if free >= low_bytes:
        remove(mark)
        return False
    log(f"WARNING: {free / 1e6:.0f} MB are free in {home()}")
    if mark.exists() and time.time() - mark.stat().st_mtime < HOURS_BETWEEN_REMINDERS * 3600:
        return False
    emit_event(
        DISK_LOW,
        resource={
            "prefect.resource.id": f"atelier.home.{platform.node()}",
            "prefect.resource.name": platform.node(),
        },
        payload={"free_megabytes": round(free / 1e6), "folder": str(home())},
    )
    write_json(mark, {"free_bytes": free})
    return True
