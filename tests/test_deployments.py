"""prefect.yaml, read strictly: Prefect itself ignores unknown keys and unfit parameters."""

import copy
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import yaml
from prefect.client.schemas.schedules import construct_schedule

ROOT = Path(__file__).resolve().parent.parent
TOP_KEYS = {"name", "pull", "definitions", "deployments"}
DEPLOYMENT_KEYS = {
    *{"name", "entrypoint", "description", "tags", "version", "concurrency_limit"},
    *{"parameters", "schedules", "work_pool"},
}
SCHEDULE_KEYS = {"cron", "interval", "timezone", "active", "parameters", "slug"}


def read() -> dict[str, Any]:
    content: dict[str, Any] = yaml.safe_load((ROOT / "prefect.yaml").read_text())
    return content


def check(content: dict[str, Any]) -> None:
    """Raise AssertionError, ValueError or ImportError for what would fail later, or never."""
    assert set(content) <= TOP_KEYS
    names = [deployment["name"] for deployment in content["deployments"]]
    assert len(names) == len(set(names))
    for deployment in content["deployments"]:
        assert set(deployment) <= DEPLOYMENT_KEYS, set(deployment) - DEPLOYMENT_KEYS
        assert deployment["description"]
        assert deployment["work_pool"]["name"] == "atelier"
        module, _, function = deployment["entrypoint"].rpartition(".")
        assert "/" not in module
        flow = getattr(import_module(module), function)
        flow.validate_parameters(deployment.get("parameters", {}))
        for schedule in deployment.get("schedules", []):
            assert set(schedule) <= SCHEDULE_KEYS, set(schedule) - SCHEDULE_KEYS
            timing = {k: schedule[k] for k in ("cron", "interval", "timezone") if k in schedule}
            construct_schedule(**timing)


def test_every_deployment_would_run() -> None:
    check(read())


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("tag", ["typo"]),
        ("entrypoint", "flows.full_run.ful_run"),
        ("entrypoint", "flows.nowhere.full_run"),
        ("parameters", {"sed": 1}),
        ("parameters", {"preset": "fastest"}),
        ("parameters", {"models": ["diffusion"]}),
        ("schedules", [{"cron": "61 3 * * *"}]),
        ("schedules", [{"crn": "1 3 * * *"}]),
        ("work_pool", {"name": "elsewhere"}),
    ],
    ids=str,
)
def test_a_mistake_in_a_deployment_is_found(key: str, value: object) -> None:
    content = copy.deepcopy(read())
    content["deployments"][0][key] = value

    with pytest.raises(Exception):  # noqa: B017  (each library has its own)
        check(content)
