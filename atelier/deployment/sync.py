"""Makes the Prefect server agree with prefect.yaml and with schedules of one's own.

Pool, queues, deployments, automations.

What agrees already is left alone, so that a schedule that a person has switched off in the UI stays
off until its entry changes.
"""

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.actions import (
    DeploymentScheduleCreate,
    WorkPoolCreate,
    WorkPoolUpdate,
)
from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags
from prefect.client.schemas.objects import ConcurrencyLimitConfig
from prefect.client.schemas.responses import DeploymentResponse
from prefect.client.schemas.schedules import construct_schedule
from prefect.client.schemas.sorting import DeploymentSort
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import ObjectNotFound
from prefect.types.entrypoint import EntrypointType
from prefect.utilities.callables import parameter_schema
from prefect.workers.process import ProcessWorker

from atelier.deployment.automations import apply_automations
from atelier.deployment.schema import OUR_TAG, QUEUES, DeploymentEntry
from atelier.services.local_worker import WORK_POOL
from tasks.store.files import digest_of

Key = tuple[str, str]
"""A flow's name and a deployment's."""

_PAGE = 200
"""How many deployments the server gives out at a time."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Applied:
    """What was made, changed and removed; all empty when the server agreed already."""

    created: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    removed: list[str] = field(default_factory=list)

    def __bool__(self) -> bool:
        """Whether anything was done."""
        return bool(self.created or self.changed or self.removed)


def is_applied() -> bool:
    """Whether the server has our work pool: `atelier up` has been there."""
    with get_client(sync_client=True) as client:
        try:
            client.read_work_pool(WORK_POOL)
        except ObjectNotFound:
            return False
    return True


def apply(entries: list[DeploymentEntry]) -> Applied:
    """Make the server agree with the entries of all files, and with our automations."""
    applied = Applied()
    with get_client(sync_client=True) as client:
        _apply_pool(client, applied)
        existing = _existing(client)
        wanted: dict[Key, DeploymentEntry] = {
            (str(entry.flow().name), entry.name): entry for entry in entries
        }
        for key in existing.keys() - wanted.keys():
            _remove(client, existing[key])
            applied.removed.append(f"deployment {'/'.join(key)}")
        for key, entry in wanted.items():
            version = _version(entry)
            if key in existing and existing[key].version == version:
                continue
            _deploy(client, entry, version)
            list_of_kind = applied.changed if key in existing else applied.created
            list_of_kind.append(f"deployment {'/'.join(key)}")
        created, removed = apply_automations(client, [entry.name for entry in entries])
        applied.created.extend(created)
        applied.removed.extend(removed)
    return applied


def _apply_pool(client: SyncPrefectClient, applied: Applied) -> None:
    try:
        client.read_work_pool(WORK_POOL)
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        client.create_work_pool(
            WorkPoolCreate(name=WORK_POOL, type="process", base_job_template=template)
        )
        description = "Runs of this project, as processes of the worker that `atelier up` starts."
        client.update_work_pool(WORK_POOL, WorkPoolUpdate(description=description))
        applied.created.append(f"work pool {WORK_POOL}")
    queues = {queue.name for queue in client.read_work_queues(work_pool_name=WORK_POOL)}
    for name, limit in QUEUES.items():
        if name not in queues:
            client.create_work_queue(name, concurrency_limit=limit, work_pool_name=WORK_POOL)
            applied.created.append(f"work queue {name}")


def _existing(client: SyncPrefectClient) -> dict[Key, DeploymentResponse]:
    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[OUR_TAG]))
    found = [each for each in _all_deployments(client, ours) if each.work_pool_name == WORK_POOL]
    return {(client.read_flow(each.flow_id).name, each.name): each for each in found}


def _all_deployments(
    client: SyncPrefectClient, wanted: DeploymentFilter
) -> list[DeploymentResponse]:
    """Page by page, as the server gives them out."""
    found: list[DeploymentResponse] = []
    while True:
        page = client.read_deployments(
            deployment_filter=wanted,
            limit=_PAGE,
            offset=len(found),
            sort=DeploymentSort.CREATED_DESC,
        )
        found += page
        if len(page) < _PAGE:
            return found


def _version(entry: DeploymentEntry) -> str:
    """The entry's version and, after a plus, which content of entry and form it stands for."""
    content: dict[str, Any] = {
        "entry": entry.model_dump(mode="json"),
        "form": _strict_form(entry),
    }
    return f"{entry.version}+{digest_of(content)[:8]}"


def _strict_form(entry: DeploymentEntry) -> dict[str, Any]:
    """The schema of a flow's parameters, which allows no other ones."""
    form: dict[str, Any] = parameter_schema(entry.flow()).model_dump(mode="json")
    return {**form, "additionalProperties": False}


def _deploy(client: SyncPrefectClient, entry: DeploymentEntry, version: str) -> None:
    """Create a deployment, or replace the one of the same name with its schedules and triggers.

    The version comes last, with the form: after a kill in between it is done again.
    """
    limit = entry.concurrency_limit.model_dump()
    triggers = [DeploymentEventTrigger.model_validate(each.model_dump()) for each in entry.triggers]
    deployment = entry.flow().to_deployment(
        name=entry.name,
        description=entry.description,
        tags=entry.tags,
        parameters=entry.parameters,
        concurrency_limit=ConcurrencyLimitConfig.model_validate(limit),
        schedules=list(_schedules(entry)),
        triggers=list(triggers),
        work_pool_name=entry.work_pool.name,
        work_queue_name=entry.work_pool.work_queue_name,
        job_variables=entry.work_pool.job_variables,
        entrypoint_type=EntrypointType.MODULE_PATH,
    )
    assert isinstance(deployment, RunnerDeployment)  # not a coroutine: nothing here is async
    # Prefect's client has no word for a form that refuses unknown parameters; its server does, and
    # without it they would end the run's process before the flow could say what is wrong.
    client.request(
        "PATCH",
        f"/deployments/{deployment.apply()}",  # type: ignore[arg-type]
        json={"version": version, "parameter_openapi_schema": _strict_form(entry)},
    )


def _schedules(entry: DeploymentEntry) -> Iterable[DeploymentScheduleCreate]:
    for each in entry.schedules:
        schedule = construct_schedule(**each.timing())
        yield DeploymentScheduleCreate(schedule=schedule, active=each.active, slug=each.slug)


def _remove(client: SyncPrefectClient, deployment: DeploymentResponse) -> None:
    client.delete_resource_owned_automations(f"prefect.deployment.{deployment.id}")
    client.delete_deployment(deployment.id)
