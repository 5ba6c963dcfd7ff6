"""The tasks that free space: what MLflow has too much of goes, then what nothing refers to.

What may go is found by `tasks.maintenance.pruning` and `tasks.maintenance.garbage_collection`,
which a command imports without Prefect.
"""

from prefect import task

from tasks.maintenance import garbage_collection, pruning
from tasks.registry.audit_history import lasting_contents
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.store.files import portable


@task(name="remove-surplus", **NETWORKED)
def remove_surplus() -> int:
    """Find what of MLflow's may go and remove it; returns how much there was."""
    found = pruning.find_surplus()
    for each in found:
        log(f"removed {each.name}: {each.reason}")
    return pruning.delete(found)


@task(name="collect-garbage", **NETWORKED)
def collect_garbage() -> int:
    """Find what nothing refers to and throw it away; returns how many bytes that freed."""
    kept = pruning.kept_contents(pruning.find_surplus()) | lasting_contents()
    found = garbage_collection.find_garbage(kept)
    for each in found:
        log(f"freed {each.num_bytes / 1e6:.1f} MB: {portable(each.path)}, {each.reason}")
    return garbage_collection.delete(found)
