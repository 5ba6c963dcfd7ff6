"""Which failures are worth another try, and when: one policy for each nature of task.

Networks and servers recover; bad data, a diverged loss and a failed gate do not.
No policy lets Prefect cache a result: what is unchanged is known by `tasks.provenance`.
"""

from typing import Any

from prefect.cache_policies import NO_CACHE


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Prefect's retry condition: yes to lost connections and time-outs, no to everything else."""
    try:
        state.result()
    except (ConnectionError, TimeoutError):
        return True
    except Exception:
        return False
    return False


LOCAL: dict[str, Any] = {"cache_policy": NO_CACHE}
"""For what only this machine's disk and processor can fail: never tried again."""

NETWORKED: dict[str, Any] = {
    **LOCAL,
    "retries": 3,
    "retry_delay_seconds": [2, 8, 30],
    "retry_condition_fn": is_transient,
}
"""For what talks to the network or the tracking server: three more tries, with growing waits."""

TRAINING: dict[str, Any] = {**NETWORKED, "retries": 1, "retry_delay_seconds": [10]}
"""For fits: one more try, which resumes from the last checkpoint."""
