"""What ran and what runs next, as the Prefect server tells it without Prefect being imported."""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from atelier.services.server_requests import ask_prefect

_TOP_LEVEL = {"parent_task_run_id": {"is_null_": True}}


@dataclass(frozen=True, slots=True)
class RunLine:
    """One flow run in words: when, what, on what, how it went."""

    when: str
    deployment: str
    name: str
    state: str


def last_runs(prefect_url: str, number: int = 8) -> list[RunLine]:
    """The runs that began last, the newest first; raises OSError without an answer."""
    wanted = {**_TOP_LEVEL, "start_time": {"is_null_": False}}
    runs = _runs(prefect_url, wanted, "START_TIME_DESC", number)
    return _lines(prefect_url, runs, "start_time")


def next_runs(prefect_url: str, number: int = 5) -> list[RunLine]:
    """The runs that are due next, one for each deployment, the soonest first."""
    wanted = {**_TOP_LEVEL, "state": {"type": {"any_": ["SCHEDULED"]}}}
    runs = _runs(prefect_url, wanted, "EXPECTED_START_TIME_ASC", 200)
    soonest: dict[Any, Any] = {}
    for run in runs:
        soonest.setdefault(run["deployment_id"], run)
    return _lines(prefect_url, list(soonest.values())[:number], "expected_start_time")


def _runs(prefect_url: str, wanted: dict[str, Any], sort: str, number: int) -> list[Any]:
    body = {"flow_runs": wanted, "sort": sort, "limit": number}
    found: list[Any] = ask_prefect(prefect_url, "flow_runs/filter", body)
    return found


def _lines(prefect_url: str, runs: list[Any], moment: str) -> list[RunLine]:
    ids = sorted({run["deployment_id"] for run in runs if run["deployment_id"]})
    body = {"deployments": {"id": {"any_": ids}}}
    names = {
        each["id"]: each["name"] for each in ask_prefect(prefect_url, "deployments/filter", body)
    }
    return [
        RunLine(
            _local(run[moment]),
            names.get(run["deployment_id"], "by hand"),
            run["name"],
            run["state_name"] or "",
        )
        for run in runs
    ]


def _local(moment: str) -> str:
    local = datetime.fromisoformat(moment).astimezone()
    is_today = local.date() == datetime.now(UTC).astimezone().date()
    return local.strftime("%H:%M:%S" if is_today else "%Y-%m-%d %H:%M")
