"""The life of an MLflow run: opened, gone on with after a crash, and closed whatever happens.

One logical task is one run. What a task is about is told by its key, a tag: a retry, a second
process and a second night find the run of their key and go on with it. A run names the process
that works on it, so that one left behind by a crash is known and closed.
"""

import errno
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tasks.runtime.disk_space import lack_of_room, watch
from tasks.runtime.messages import one_line
from tasks.runtime.processes import this_process
from tasks.runtime.progress import log
from tasks.runtime.stopping import stopped_by
from tasks.store.files import DiskFull, home, left_by_the_killed, remove
from tasks.store.leases import hold_lease, lives, observe
from tasks.store.locks import file_lock
from tasks.store.names import artifact_key
from tasks.tracking.metric_queue import discard, flush_run, pending_runs
from tasks.tracking.mlflow_client import (
    TrackingRefused,
    TrackingUnavailable,
    client,
    end_run,
    log_metrics,
    log_parameters,
    outages_named,
    run_exists,
    run_tags,
    set_tags,
    tracking_experiment,
)

KEY, OWNER, ATTEMPTS = "atelier.key", "atelier.process", "atelier.attempts"
TASK = "atelier.task"
"""The tag of a task's name, which is found again however its run is called on MLflow's pages."""
TRACKING_TIMEOUT_SECONDS = 300.0
"""How long a flow waits for a tracking server that has gone away."""

Result = TypeVar("Result")


@contextmanager
def open_run(
    name: str,
    *,
    key: str | None = None,
    parent_run_id: str | None = None,
    parameters: Mapping[str, Any] | None = None,
    tags: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Open a run, give its id, and close it as FINISHED, FAILED (an error) or KILLED (a stop).

    key: what the run is about; an unfinished run of that key is opened again. tags: facts of it
    that people look for in a table of runs.
    """
    watch([Path(tempfile.gettempdir()), home()], log)  # of one disk, the home is named
    run_id = _retry_until_available(
        lambda: _found_or_created(
            name, key, parent_run_id, parameters=parameters or {}, facts=tags or {}
        )[0]
    )
    with _closed_at_the_end(run_id):
        yield run_id


@contextmanager
def task_run(
    name: str,
    key: str,
    parent_run_id: str | None = None,
    *,
    while_waiting: Callable[[], AbstractContextManager[None]],
    title: str = "",
    tags: Mapping[str, str] | None = None,
) -> Iterator[str]:
    """Open the one run of a logical task, and close it like `open_run`.

    title: what the run is called on MLflow's pages, by default as the task; tags: facts of it that
    people look for in a table of runs.

    A finished run of the key is used too, and stays finished: what is unchanged adds nothing to it,
    and the parent's tags say so. Another process at the same task is waited for, inside
    `while_waiting`: it may itself be waiting for what this process holds, so every caller has to
    say what it gives up (`nullcontext`: nothing).
    """
    waiting = partial(log, f"{name}: another run holds this task's lock; waiting for its result")
    with file_lock(f"task-{key[:16]}", waiting, while_waiting):
        run_id, is_finished = _retry_until_available(
            lambda: _found_or_created(
                name, key, parent_run_id, even_finished=True, title=title, facts=tags or {}
            )
        )
        if not is_finished:
            with _closed_at_the_end(run_id):
                yield run_id
            return
        yield run_id
        _retry_until_available(lambda: flush_run(run_id))
        if parent_run_id:
            _retry_until_available(
                lambda: set_tags(parent_run_id, {f"atelier.unchanged.{artifact_key(name)}": run_id})
            )


def describe_run(
    run_id: str,
    *,
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
) -> None:
    """Tell facts and numbers of a run in MLflow's tables and charts; repeating changes nothing."""

    def set_new() -> None:
        known = run_tags(run_id)
        set_tags(run_id, {k: v for k, v in (tags or {}).items() if known.get(k) != v})

    _retry_until_available(set_new)
    if metrics:
        _retry_until_available(lambda: log_metrics(run_id, metrics))


@contextmanager
def _closed_at_the_end(run_id: str) -> Iterator[None]:
    status = "KILLED"
    try:
        yield
        status = "FINISHED"
    except Exception:  # a stop may show as any of them
        status = "KILLED" if stopped_by() else "FAILED"
        raise
    finally:
        if status == "KILLED":
            _close_at_once(run_id)
        else:
            _retry_until_available(lambda: _close(run_id, status))


def _close_at_once(run_id: str) -> None:
    """Close a run that was stopped; whoever stopped it shall not wait for a server."""
    try:
        _close(run_id, "KILLED")
    except Exception as error:  # a request that was cut off may have left its session unusable
        log(f"its MLflow run is closed by the next command: {one_line(error)}")


def _retry_until_available(ask: Callable[[], Result]) -> Result:
    """Ask the tracking server again and again for some minutes."""
    deadline = time.monotonic() + TRACKING_TIMEOUT_SECONDS
    while True:
        try:
            return ask()
        except TrackingUnavailable as error:
            lack = lack_of_room(home())
            if time.monotonic() > deadline:
                if lack:
                    raise DiskFull(
                        errno.ENOSPC, f"MLflow cannot write: {lack}", str(home())
                    ) from error
                raise
            log(
                f"MLflow cannot write; retrying: {lack}"
                if lack
                else "MLflow is unreachable; retrying"
            )
            time.sleep(5.0)


def _found_or_created(
    name: str,
    key: str | None,
    parent_run_id: str | None,
    *,
    even_finished: bool = False,
    parameters: Mapping[str, Any] | None = None,
    title: str = "",
    facts: Mapping[str, str] | None = None,
) -> tuple[str, bool]:
    """The id of the run to work on, and whether it is finished already."""
    hold_lease()
    with outages_named(), file_lock("runs"):
        runs = client()
        experiment_id = tracking_experiment()
        # A task's key tells its data, which may bear two names; a model has runs of its own name.
        only = name if even_finished else None
        found = _run_of(key, experiment_id, even_finished, only) if key else None
        if found is not None and found.info.status == "FINISHED":
            return str(found.info.run_id), True
        tags = {"mlflow.runName": title or name, OWNER: this_process(), **_prefect_tags()}
        tags |= {TASK: name, **(facts or {})}
        if key:
            tags[KEY] = key
        if parent_run_id:
            tags["mlflow.parentRunId"] = parent_run_id
        if found is None:
            run_id = str(runs.create_run(experiment_id, tags=tags).info.run_id)
        else:
            run_id = str(found.info.run_id)
            attempts = found.data.tags.get(ATTEMPTS, "1")
            is_number = attempts.isdecimal() and len(attempts) < 10
            tags[ATTEMPTS] = str((int(attempts) if is_number else 1) + 1)
            for tag, value in tags.items():
                runs.set_tag(run_id, tag, value)
            runs.update_run(run_id, status="RUNNING")
            log(f"{name}: resuming MLflow run, attempt {tags[ATTEMPTS]}")
        log_parameters(run_id, parameters or {})
    return run_id, False


def _run_of(key: str, experiment_id: str, even_finished: bool, name: str | None) -> Any:
    """The latest run of a key, and of a name where one is given, that nobody works on, or None."""
    found = client().search_runs([experiment_id], f"tags.`{KEY}` = '{key}'", max_results=100)
    for run in found:  # the latest first
        if name is not None and run.data.tags.get(TASK, run.info.run_name) != name:
            continue
        if run.info.status == "FINISHED" and even_finished:
            return run
        if run.info.status in ("FAILED", "KILLED") or _is_abandoned(run):
            return run
    return None


def _is_abandoned(run: Any) -> bool:
    """Whether a run is open, and the process that opened it is gone."""
    if run.info.status != "RUNNING" or OWNER not in run.data.tags:
        return False
    try:
        return not lives(run.data.tags[OWNER])
    except (ValueError, OverflowError):  # not a name that we give: somebody else's run
        return False


def _close(run_id: str, status: str) -> None:
    flush_run(run_id)
    try:
        end_run(run_id, status)
    except TrackingRefused as error:  # somebody deleted it: there is nothing left to close
        log(f"MLflow run {run_id} cannot be closed: {error}")


def recover_from_crashes(*, watches: bool = False) -> None:
    """Close what dead processes left open, and remove what they left half-written.

    watches: see `close_dead_runs`.
    """
    for name in close_dead_runs(watches=watches):
        log(f"{name}: its process is gone; its MLflow run was closed")
    for path in left_by_the_killed():
        remove(path)


def close_dead_runs(*, watches: bool = False, retries: bool = True) -> list[str]:
    """Close as KILLED the runs whose process is gone, send what they still had to say.

    watches: look after those of other machines for the time of a lease; else only those are closed
    whose lease this process has seen run out. retries: ask a server that is away for some minutes;
    else raise TrackingUnavailable at once. Returns their names.
    """
    if not retries:
        return _close_dead_runs()
    if watches:
        observe(run.data.tags.get(OWNER, "") for run in _retry_until_available(_open_runs))
    return _retry_until_available(_close_dead_runs)


def _open_runs() -> list[Any]:
    with outages_named():
        experiment = [tracking_experiment()]
        wanted = "attributes.status = 'RUNNING'"
        return list(client().search_runs(experiment, wanted, max_results=1000))


def _close_dead_runs() -> list[str]:
    closed = []
    with outages_named(), file_lock("runs"):
        open_ones = _open_runs()
        for run in filter(_is_abandoned, open_ones):
            _close(run.info.run_id, "KILLED")
            closed.append(str(run.info.run_name))
        at_work = {run.info.run_id for run in open_ones if not _is_abandoned(run)}
        for run_id in pending_runs():
            if run_id not in at_work:
                _deliver_or_forget(run_id)
    return closed


def _deliver_or_forget(run_id: str) -> None:
    """Send what a run left behind, unless the server never knew it: then nobody will ask for it."""
    if run_exists(run_id):
        flush_run(run_id)
    else:
        discard(run_id)


def _prefect_tags() -> dict[str, str]:
    from prefect.context import FlowRunContext
    from prefect.settings import PREFECT_UI_URL

    context = FlowRunContext.get()
    if context is None or context.flow_run is None:
        return {}
    flow_run = context.flow_run
    tags = {"prefect.flow_run_id": str(flow_run.id), "prefect.flow_run_name": flow_run.name}
    if PREFECT_UI_URL.value():
        tags["prefect.url"] = f"{PREFECT_UI_URL.value()}/runs/flow-run/{flow_run.id}"
    return tags
