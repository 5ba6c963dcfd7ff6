"""Which failures are worth another try, and when.

Networks and servers recover; bad data, a diverged loss and a failed gate do not.
"""

from typing import Any

DELAYS_SECONDS: list[float] = [2, 8, 30]
"""Waits before the first, second and third retry of a task that talks to the network."""


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Prefect's retry condition: yes to lost connections and time-outs, no to everything else."""
    try:
        state.result()
    except (ConnectionError, TimeoutError):
        return True
    except Exception:
        return False
    return False
