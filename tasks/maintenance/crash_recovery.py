"""Flow runs as Prefect's server sees them: who works on each, and what to do when nobody does.

Prefect learns that a process died from the worker that started it. A run from a terminal has no
worker, and a worker can die with its runs: those stay Running for ever. So each of our runs signs
with its process, and whoever cares can look whether that process still lives: on this machine in
the table of processes, on another by the lease that it holds in the shared store.
"""

import platform
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterParentFlowRunId
from prefect.client.schemas.objects import FlowRun, State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import AwaitingRetry, Cancelled, Cancelling, Crashed, Failed

from tasks.runtime.processes import this_process
from tasks.store.clock import steady_now
from tasks.store.leases import hold_lease, lives, observe

OWNER_LABEL, HOST_LABEL = "atelier.process", "atelier.host"
STATE_LABEL = "atelier.running-state"
"""The id of the Running state that was signed: a run that is begun again has another one."""
RETRY_TAG = "retry-"
MAX_RETRIES = 2
"""How often a crashed run is started again before a person has to look."""

_PAGE = 200  # the most runs that the server gives at once
_LOST_BEFORE_START = timedelta(minutes=10)
_WORTH_A_RETRY = timedelta(days=1)
# A worker reports a crash twice, the second time up to half a minute later; that report would end a
# retry that had begun meanwhile.
_SETTLED = timedelta(seconds=60)
_UNDER_WAY = (StateType.PENDING, StateType.RUNNING, StateType.CANCELLING)


_begun: list[UUID] = []


def begun() -> list[UUID]:
    """The ids of the flow runs that this process has signed."""
    return list(_begun)


def label_with_process(flow: Any, flow_run: FlowRun, state: Any) -> None:
    """Note on a flow run which process works on it; a hook for a flow's `on_running`."""
    _begun.append(flow_run.id)
    hold_lease()
    labels: dict[str, bool | int | float | str] = {
        OWNER_LABEL: this_process(),
        HOST_LABEL: platform.node(),
        STATE_LABEL: str(state.id),
    }
    with get_client(sync_client=True) as client:
        client.update_flow_run_labels(flow_run.id, labels)


def close_dead_flow_runs(*, watches: bool = False) -> list[str]:
    """Close the runs that nobody works on any more, and return their names.

    Dead are: a signed run of this machine whose process is gone, one of another machine whose lease
    has run out, a run inside another that has ended, and a run that was handed to a worker, or
    begun again, and that no process has signed within ten minutes. They become Crashed, or
    Cancelled where that was under way.
    watches: look after the processes of other machines for the time of a lease; else only those
    count as gone whose lease this process has seen run out.
    """
    closed: list[str] = []
    with get_client(sync_client=True) as client:
        if watches:
            observe(str(run.labels.get(OWNER_LABEL, "")) for run in _runs(client, _UNDER_WAY))
        while dead := [run for run in _runs(client, _UNDER_WAY) if _is_dead(client, run)]:
            before = len(closed)
            for run in dead:
                if _close(client, run):
                    closed.append(run.name)
            if len(closed) == before:  # the server refused them all
                break
    return closed


def retry_crashed_runs(besides: str | None = None, settled_for: timedelta = _SETTLED) -> list[str]:
    """Start crashed runs of deployments again, each at most twice, and return their names.

    A crash is a lost process, machine or server; an error in the code makes a run Failed, and that
    is never tried again here. besides: the id of a deployment to leave alone; settled_for: how old
    a crash must be.
    """
    retried: list[str] = []
    now = _now()
    with get_client(sync_client=True) as client:
        for run in _runs(client, (StateType.CRASHED,), ended_after=now - _WORTH_A_RETRY):
            attempts = sum(tag.startswith(RETRY_TAG) for tag in run.tags)
            if str(run.deployment_id) in ("None", str(besides)) or attempts >= MAX_RETRIES:
                continue
            # A crash that is yet to come happened before somebody set the clock back.
            if run.end_time and abs(now - run.end_time) < settled_for:
                continue
            if unknown := _unknown_parameters(client, run):
                client.set_flow_run_state(run.id, Failed(message=unknown), force=True)
                continue
            # The tag first: if this process dies in between, an attempt is lost, not the bound.
            number = attempts + 1
            client.update_flow_run(run.id, tags=[*run.tags, f"{RETRY_TAG}{number}"])
            _again(client, run, f"retry {number} of {MAX_RETRIES} after a crash")
            retried.append(run.name)
    return retried


def _unknown_parameters(client: SyncPrefectClient, run: FlowRun) -> str:
    """What is wrong with a run that gives its flow parameters that it does not have, or nothing.

    Prefect's process of such a run ends before the flow begins, which looks like a crash.
    """
    assert run.deployment_id is not None
    try:
        form = client.read_deployment(run.deployment_id).parameter_openapi_schema or {}
    except ObjectNotFound:
        return ""
    known = form.get("properties", {})
    unknown = [name for name in run.parameters if name not in known]
    if not unknown:
        return ""
    return (
        f"the flow has no parameter {', '.join(map(repr, unknown))}; it has"
        f" {', '.join(known) or 'none'}: start a run without it"
    )


def put_back_interrupted_runs(stop_began: datetime) -> list[str]:
    """Schedule the deployments' runs again that a stop of the worker cut off; returns their names.

    stop_began: runs that crashed since then were cut off by it.
    """
    put_back: list[str] = []
    with get_client(sync_client=True) as client:
        for run in _runs(client, (StateType.CRASHED,), ended_after=stop_began):
            if run.deployment_id:
                _again(client, run, "stopped by `atelier down`; goes on after `atelier up`")
                put_back.append(run.name)
    return put_back


def cancel_older_runs(newer: FlowRun) -> list[str]:
    """Cancel the unfinished runs of the same deployment that were due before; returns their names.

    Those that nobody began yet are Cancelled at once, the others as soon as their worker has
    stopped them.
    """
    cancelled: list[str] = []
    message = f"a newer run has begun: {newer.name}"
    with get_client(sync_client=True) as client:
        for run in _runs(client, (StateType.SCHEDULED, StateType.PENDING, StateType.RUNNING)):
            if run.deployment_id != newer.deployment_id or not _is_older(run, newer):
                continue
            is_waiting = run.state_type == StateType.SCHEDULED
            state_of = Cancelled if is_waiting else Cancelling
            client.set_flow_run_state(run.id, state_of(message=message))
            cancelled.append(run.name)
    return cancelled


def _is_older(run: FlowRun, newer: FlowRun) -> bool:
    if run.id == newer.id or not (run.expected_start_time and newer.expected_start_time):
        return False
    return (run.expected_start_time, str(run.id)) < (newer.expected_start_time, str(newer.id))


def _runs(
    client: SyncPrefectClient, states: Iterable[StateType], ended_after: datetime | None = None
) -> Iterator[FlowRun]:
    wanted = FlowRunFilter.model_validate(
        {
            "state": {"type": {"any_": list(states)}},
            "end_time": {"after_": ended_after} if ended_after else None,
        }
    )
    runs: list[FlowRun] = []
    while True:  # all pages first: what is done to runs moves them between pages
        page = client.read_flow_runs(flow_run_filter=wanted, limit=_PAGE, offset=len(runs))
        runs += page
        if len(page) < _PAGE:
            return iter(runs)


def _is_dead(client: SyncPrefectClient, run: FlowRun) -> bool:
    owner = str(run.labels.get(OWNER_LABEL, ""))
    is_signed = bool(owner) and run.state_type != StateType.PENDING
    if is_signed:
        if _lives(owner, str(run.labels.get(HOST_LABEL, ""))):
            return False
        if not _is_begun_again(run):
            return True
    if run.parent_task_run_id:
        parent_id = client.read_task_run(run.parent_task_run_id).flow_run_id
        parent = client.read_flow_run(parent_id) if parent_id else None
        return bool(parent and parent.state and parent.state.is_final())
    since = run.state.timestamp if run.state else None
    is_awaited = run.state_type == StateType.PENDING and run.deployment_id is not None
    return bool((is_awaited or is_signed) and since and _now() - since > _LOST_BEFORE_START)


def _is_begun_again(run: FlowRun) -> bool:
    """Whether a run is Running anew, and its process has not signed it yet: an attempt before has.

    To take that for the signature would end a run that has just begun.
    """
    if run.state is None or run.state_type != StateType.RUNNING or STATE_LABEL not in run.labels:
        return False
    return str(run.labels[STATE_LABEL]) != str(run.state.id)


def _lives(owner: str, host: str) -> bool:
    pid, is_of_a_version_before, created = owner.partition("@")
    return lives(f"{host}:{pid}:{created}" if is_of_a_version_before else owner)


def _now() -> datetime:
    """This moment, but for jumps ahead of the clock: they would make what is waiting look lost."""
    return datetime.fromtimestamp(steady_now(), UTC)


def _close(client: SyncPrefectClient, run: FlowRun) -> bool:
    message = "its process is gone; closed by housekeeping"
    is_cancelling = run.state_type == StateType.CANCELLING
    state: State[Any] = Cancelled(message=message) if is_cancelling else Crashed(message=message)
    answer = client.set_flow_run_state(run.id, state)
    return answer.state is not None and answer.state.is_final()


def _again(client: SyncPrefectClient, run: FlowRun, message: str) -> None:
    for child in _children(client, run):  # a fresh attempt begins fresh runs inside
        _close(client, child)
    state: State[Any] = AwaitingRetry(message=message)
    client.set_flow_run_state(run.id, state, force=True)


def _children(client: SyncPrefectClient, run: FlowRun) -> list[FlowRun]:
    inside = FlowRunFilter(parent_flow_run_id=FlowRunFilterParentFlowRunId(any_=[run.id]))
    return [
        child
        for child in client.read_flow_runs(flow_run_filter=inside, limit=_PAGE)
        if child.state_type in _UNDER_WAY
    ]
