"""How tasks are run: which failures are worth another try, and when; who watches is told of each.

Networks and servers recover; bad data, a diverged loss and a failed gate do not.
No policy lets Prefect cache a result: what is unchanged is known by `tasks.store.fingerprint`.
"""

from typing import Any

from prefect.cache_policies import NO_CACHE
from prefect.exceptions import PrefectHTTPStatusError

from tasks.runtime import watching


def is_transient(task: Any, task_run: Any, state: Any) -> bool:
    """Prefect's retry condition: yes to lost connections and time-outs, no to everything else."""
    try:
        state.result()
    except (ConnectionError, TimeoutError):
        return True
    except Exception as error:
        return _is_of_transport(error)
    return False


def is_prefect_away(error: BaseException) -> bool:
    """Whether a call failed because Prefect's server is out of reach or in trouble itself."""
    in_trouble = isinstance(error, PrefectHTTPStatusError) and error.response.status_code >= 500
    return in_trouble or _is_of_transport(error)


def _is_of_transport(error: BaseException) -> bool:
    """Whether Prefect's client could not reach the server or lost it.

    Such an error is no ConnectionError. It is known by its name, because no task may import httpx,
    with which it could go around the doors to the network.
    """
    kinds = type(error).__mro__
    return any((kind.__module__, kind.__name__) == ("httpx", "TransportError") for kind in kinds)


def _began(task: Any, task_run: Any, state: Any) -> None:
    watching.began(task_run.name)


def _ended(task: Any, task_run: Any, state: Any) -> None:
    watching.ended(task_run.name)


LOCAL: dict[str, Any] = {
    **{"cache_policy": NO_CACHE, "retries": 0},
    **{"on_running": [_began], "on_completion": [_ended], "on_failure": [_ended]},
}
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
