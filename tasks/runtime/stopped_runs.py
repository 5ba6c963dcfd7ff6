"""Flow runs that a stop cut off, in Prefect: Cancelled, with all that ran inside them.

Prefect's engine calls a run that ends by a signal Crashed, as it calls one whose machine died. What
a person stopped is no crash: nobody shall be told, and nothing is started again for it.
"""

import time
from collections.abc import Iterable
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterParentFlowRunId,
    TaskRunFilter,
    TaskRunFilterFlowRunId,
)
from prefect.client.schemas.objects import FlowRun, State, StateType, TaskRun
from prefect.states import Cancelled

from tasks.runtime.progress import log
from tasks.runtime.retries import is_prefect_away

SECONDS_FOR_LATE_NEWS = 1.5
"""How long the states of task runs travel: the server hears of them as events."""
MAX_SECONDS_FOR_LATE_NEWS = 10.0
_SECONDS_BETWEEN_LOOKS = 0.5
_PAGE = 200
_DONE = (StateType.COMPLETED, StateType.FAILED, StateType.CANCELLED)


def cancel_stopped_runs(flow_run_ids: Iterable[UUID], why: str) -> None:
    """Make runs that this process began and left, and all within them, Cancelled.

    why: told on their pages. Where the server is away nothing happens: housekeeping closes them.
    """
    state: State = Cancelled(message=why)
    try:
        with get_client(sync_client=True) as client:
            for flow_run_id in flow_run_ids:
                _cancel(client, flow_run_id, state)
    except Exception as error:
        if not is_prefect_away(error):
            raise
        log("Prefect is away: its pages show the stopped run as Running until it is cleared up")


def _cancel(client: SyncPrefectClient, flow_run_id: UUID, state: State) -> None:
    top = client.read_flow_run(flow_run_id)
    family = [*_inside(client, [flow_run_id]), top]  # the inner ones first
    for run in family:
        if run.state_type not in _DONE:
            client.set_flow_run_state(run.id, state, force=True)
    began = heard = time.monotonic()
    while (now := time.monotonic()) - began < MAX_SECONDS_FOR_LATE_NEWS:
        for task_run in _tasks(client, family):
            if task_run.state_type not in _DONE:
                client.set_task_run_state(task_run.id, state, force=True)
                heard = now
        if now - heard > SECONDS_FOR_LATE_NEWS:
            return
        time.sleep(_SECONDS_BETWEEN_LOOKS)


def _inside(client: SyncPrefectClient, parents: list[UUID]) -> list[FlowRun]:
    """The flow runs inside some, at any depth, the innermost first."""
    wanted = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=parents))
    children = client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE)
    if not children:
        return []
    return [*_inside(client, [child.id for child in children]), *children]


def _tasks(client: SyncPrefectClient, family: list[FlowRun]) -> list[TaskRun]:
    ids = [run.id for run in family]
    wanted = TaskRunFilter(flow_run_id=TaskRunFilterFlowRunId(any_=ids))
    return client.read_task_runs(task_run_filter=wanted, limit=_PAGE)
