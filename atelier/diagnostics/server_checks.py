"""What can be wrong with the two servers and with what they remember of runs.

Each check asks, and mends nothing. It asks by plain requests: importing Prefect and MLflow takes
most of ten seconds, and their clients would rather start a server than ask none.
"""

import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from atelier.services.finding import Finding
from atelier.services.server_records import Server
from tasks.runtime.processes import is_alive, is_elsewhere

HEARTBEATS_UNTIL_STUCK = 3
OWNER_TAG = "atelier.process"

Ask = Callable[[str, object], Any]
"""Asks a server: a path of its API and the body of the request; returns the JSON of its answer."""

_AT_WORK = ("RUNNING", "CANCELLING", "PENDING")


def servers(recorded: Sequence[tuple[Server, bool]], home: str) -> Finding:
    """What this home started answers."""
    silent = [server for server, is_healthy in recorded if not is_healthy]
    if silent:
        return Finding(
            name="servers",
            state="failed",
            what="; ".join(
                f"{server.name}, process {server.pid}, does not answer at {server.url}"
                for server in silent
            ),
            to_do=f"read {home}/logs/{silent[0].name}-server.log; `atelier down`, `atelier up`",
        )
    if not recorded:
        return Finding(name="servers", state="ok", what="none is up; `atelier up` starts them")
    what = ", ".join(f"{server.name} at {server.url}" for server, _ in recorded)
    return Finding(name="servers", state="ok", what=what)


def dead_tracking_runs(mlflow: Ask) -> Finding:
    """No MLflow run is open whose process is gone."""
    experiment = _experiment(mlflow)
    dead = []
    if experiment is not None:
        chosen = {
            "experiment_ids": [experiment["experiment_id"]],
            "filter": "attributes.status = 'RUNNING'",
            "max_results": 1000,
        }
        for run in mlflow("runs/search", chosen).get("runs", []):
            tags = {tag["key"]: tag["value"] for tag in run["data"].get("tags", [])}
            if OWNER_TAG in tags and not is_alive(tags[OWNER_TAG]):
                dead.append(str(run["info"].get("run_name", run["info"]["run_id"])))
    if not dead:
        return Finding(name="MLflow runs", state="ok", what="none is open without a process")
    return Finding(
        name="MLflow runs",
        state="attention",
        what=f"{len(dead)} still RUNNING, but their process is gone: {', '.join(dead[:5])}",
        to_do="the next `atelier run` closes them, and goes on where its own stopped",
    )


def experiment(mlflow: Ask) -> Finding:
    """Nobody has deleted the MLflow experiment that our runs and versions belong to."""
    found = _experiment(mlflow)
    if found is None or found["lifecycle_stage"] == "active":
        what = "not made yet" if found is None else f"{found['name']!r} is there"
        return Finding(name="MLflow experiment", state="ok", what=what)
    return Finding(
        name="MLflow experiment",
        state="attention",
        what=f"{found['name']!r} was deleted, and with it the files of registered versions will go",
        to_do="the next `atelier run` restores it, with its runs; or now:"
        f" `mlflow experiments restore --experiment-id {found['experiment_id']}`",
    )


def _experiment(mlflow: Ask) -> dict[str, Any] | None:
    chosen = {"filter": "name = 'atelier'", "view_type": "ALL", "max_results": 10}
    found = mlflow("experiments/search", chosen).get("experiments", [])
    return next((each for each in found), None)


def stuck_flow_runs(prefect: Ask, silence: timedelta | None = None) -> Finding:
    """Every flow run that Prefect calls Running has shown a sign of life lately.

    prefect: asks its API. silence: after which a run counts as dead; by default some
    heartbeats, which every run sends.
    """
    silence = _some_heartbeats() if silence is None else silence
    now = datetime.now(UTC)
    stuck = [
        f"{run['name']} ({run['id']})"
        for run in _flow_runs(prefect, ("RUNNING",))
        if now - datetime.fromisoformat(run["start_time"] or run["created"]) > silence
        and not _is_signed_by_the_living(run)
        and not _shows_life(prefect, run["id"], now - silence)
    ]
    if not stuck:
        return Finding(name="Prefect runs", state="ok", what="none is Running without a process")
    return Finding(
        name="Prefect runs",
        state="attention",
        what=f"{len(stuck)} Running, without a sign of life: {', '.join(stuck[:3])}",
        to_do="set them to Crashed on their pages, or delete them:"
        " `prefect flow-run delete ID`; parents and children alike",
    )


def _is_signed_by_the_living(run: dict[str, Any]) -> bool:
    """Whether the process that works on a run can be seen to live, whatever the clock says."""
    signature = str((run.get("labels") or {}).get("atelier.process", ""))
    return signature.count(":") >= 2 and not is_elsewhere(signature) and is_alive(signature)


def _some_heartbeats() -> timedelta:
    told = os.environ.get("PREFECT_FLOWS_HEARTBEAT_FREQUENCY", "")
    is_number = told.isdecimal() and len(told) < 8
    return timedelta(seconds=HEARTBEATS_UNTIL_STUCK * (int(told) if is_number else 180))


def _flow_runs(prefect: Ask, states: Sequence[str]) -> list[Any]:
    chosen = {"flow_runs": {"state": {"type": {"any_": list(states)}}}}
    return list(prefect("flow_runs/filter", chosen))


def _shows_life(prefect: Ask, run_id: str, since: datetime) -> bool:
    """Whether an event of a flow run came after a moment."""
    chosen = {
        "occurred": {"since": since.isoformat()},
        "resource": {"id": [f"prefect.flow-run.{run_id}"]},
    }
    return bool(prefect("events/filter", {"filter": chosen, "limit": 1})["events"])


def orphan_slots(prefect: Ask) -> Finding:
    """No concurrency slot is held when nobody is there to hold it."""
    at_work = _flow_runs(prefect, _AT_WORK)
    limits = prefect("v2/concurrency_limits/filter", {})
    orphans = []
    for limit in limits:
        holders = len(at_work)
        if limit["name"].startswith("deployment:"):
            deployment = limit["name"].partition(":")[2]
            holders = sum(run["deployment_id"] == deployment for run in at_work)
        if limit["active_slots"] > holders:
            orphans.append((limit["name"], limit["active_slots"], holders))
    if not orphans:
        return Finding(name="slots", state="ok", what=f"{len(limits)} limits, no orphan slot")
    return Finding(
        name="slots",
        state="attention",
        what="; ".join(f"{name}: {held} held, {runs} runs" for name, held, runs in orphans),
        to_do=" and ".join(
            f"`prefect gcl update {name} --active-slots {runs}`" for name, _, runs in orphans
        ),
    )
