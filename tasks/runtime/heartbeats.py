"""The heartbeats of flows inside a flow: a run does not wait for them to end.

Each flow has a thread that tells Prefect's server from time to time that it is at work. Between two
looks at whether its flow has ended it sleeps for a second, and Prefect waits at the end of a flow
until it has woken up: half a second on average, for each of the dozen flows of a run. It tells
nothing any more by then. So the end of a flow inside another is not waited for, as Prefect's own
asynchronous flows never do; that of the outermost one is, since the interpreter may end behind it.
"""

from contextlib import AbstractContextManager
from typing import Any

from prefect import flow_engine

_prefects: Any = getattr(flow_engine, "_send_heartbeats", None)


def _sent(engine: Any, join_on_exit: bool = True) -> AbstractContextManager[None]:
    """As Prefect's own, but for what the module says."""
    is_outermost = engine.flow_run.parent_task_run_id is None
    context: AbstractContextManager[None] = _prefects(engine, join_on_exit and is_outermost)
    return context


def end_without_waiting() -> None:
    """Let flows that begin from now on end so; a Prefect that does it otherwise stays as it is."""
    if _prefects is not None:
        flow_engine._send_heartbeats = _sent  # type: ignore[assignment]
