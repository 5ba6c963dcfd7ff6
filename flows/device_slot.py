"""Whose turn it is: training runs share one machine, so that one works and the others wait."""

import platform
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar
from typing import TypeVar, cast

from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitCreate
from prefect.client.schemas.objects import FlowRun
from prefect.concurrency.sync import concurrency
from prefect.context import FlowRunContext
from prefect.exceptions import ObjectAlreadyExists, ObjectNotFound
from prefect.states import Completed

from tasks.maintenance.crash_recovery import cancel_older_runs
from tasks.registry.versions import Version
from tasks.runtime.progress import log
from tasks.runtime.retries import is_prefect_away
from tasks.store.storage import has_shared_store
from tasks.training.device import training_device

T = TypeVar("T")

SLOT = "atelier-device"
"""The global concurrency limit of the device that models train on; 1 until a person raises it.

Where homes share a store, each machine has one, whose name ends in the machine's.
"""

NEWEST_WINS = "newest-wins"
"""The tag of deployments whose new runs cancel their older ones."""

SECONDS_A_SLOT_OUTLIVES_ITS_HOLDER = 60.0

_held: ContextVar[ExitStack | None] = ContextVar("held", default=None)


@contextmanager
def training_slot() -> Iterator[None]:
    """Wait until the current flow run may train; the slot is given back at the end.

    Runs that a deployment started take a slot always. One from a terminal takes it where there is
    a GPU, whose memory two cannot share; on a CPU the person decides, and nothing waits. Runs
    inside others go with those.
    """
    flow_run = _top_level_run()
    if flow_run and NEWEST_WINS in flow_run.tags:
        for name in cancel_older_runs(flow_run):
            log(f"{name}: cancelled, for a newer run has begun")
    if flow_run and (flow_run.deployment_id or training_device().type == "cuda"):
        with device_slot():
            yield
    else:
        yield


@contextmanager
def device_slot() -> Iterator[None]:
    """Hold a slot of the training device, and wait for it if need be.

    A holder that is killed loses its slot within a minute or so: leases are not renewed by the
    dead. One that cannot renew its lease, as while the server restarts, keeps on working; and one
    that cannot give the slot back has done its work all the same.
    """
    _ensure_limit()
    with ExitStack() as held:
        _take(held)
        mark = _held.set(held)
        try:
            yield
        finally:
            _held.reset(mark)
            _give_back(held)


@contextmanager
def released_slot() -> Iterator[None]:
    """Let others work while a flow run waits for a person or for another run: without its slot.

    It may hold locks while it waits for the slot again. So nobody may wait for a lock of such a
    run with the slot in hand: both would wait for ever.
    """
    held = _held.get()
    if held is not None:
        _give_back(held)
    yield
    if held is not None:  # a cancelled run comes by no more, and must not wait for a slot
        _take(held)


def slot() -> str:
    """The name of this machine's limit."""
    return f"{SLOT}-{platform.node()}" if has_shared_store() else SLOT


def _take(held: ExitStack) -> None:
    held.enter_context(
        concurrency(
            slot(),
            occupy=1,
            strict=True,
            lease_duration=SECONDS_A_SLOT_OUTLIVES_ITS_HOLDER,
            raise_on_lease_renewal_failure=False,
        )
    )


def _give_back(held: ExitStack) -> None:
    """Prefect asks with a new client here, which gives up at once where the server is away."""
    try:
        held.close()
    except Exception as error:
        if not is_prefect_away(error):
            raise
        log(f"{slot()}: not given back, for Prefect is away; it becomes free within a minute or so")


def _ensure_limit() -> None:
    with get_client(sync_client=True) as client:
        try:
            client.read_global_concurrency_limit_by_name(slot())
        except ObjectNotFound:
            try:
                client.create_global_concurrency_limit(
                    GlobalConcurrencyLimitCreate(name=slot(), limit=1)
                )
            except ObjectAlreadyExists:  # another run was faster
                return


def _top_level_run() -> FlowRun | None:
    context = FlowRunContext.get()
    flow_run = context.flow_run if context else None
    return flow_run if flow_run and not flow_run.parent_task_run_id else None


def final_state(result: T, versions: Iterable[Version]) -> T:
    """What a training flow returns: its result, in a state called Unchanged if nothing was new."""
    known = list(versions)
    if not known or any(version.is_new for version in known):
        return result
    shown = ", ".join(f"{version.name} version {version.version}" for version in known)
    message = f"unchanged data and code: {shown}"
    # A flow that returns a state ends in it, and whoever called the flow gets the state's data.
    return cast(T, Completed(name="Unchanged", message=message, data=result))
