"""Automations that no single deployment owns: who is told when a run fails.

Those that start a deployment (samples after a promotion, housekeeping after a crash) are triggers
in prefect.yaml.
"""

import os

from prefect.client.orchestration import SyncPrefectClient
from prefect.events import AutomationCore, EventTrigger, ResourceSpecification
from prefect.events.actions import SendNotification
from prefect.exceptions import ObjectNotFound

from tasks.storage import BadInput

NOTIFY_BLOCK_VARIABLE = "ATELIER_NOTIFY_BLOCK"
"""Names a saved notification block as TYPE/NAME, such as slack-webhook/ops; unset: nobody is told,
and failed runs are seen in the UI and in `atelier status`."""

TELL_OF_FAILURES = "atelier: tell of failed runs"

_BODY = """{{ flow_run.name }}: {{ flow_run.state.message or "no message" }}
{{ flow_run|ui_url }}"""


def apply_automations(
    client: SyncPrefectClient, deployments: list[str]
) -> tuple[list[str], list[str]]:
    """Create the automation that tells of failed runs, or remove it; returns (created, removed).

    deployments: the names of those whose runs count. Raises BadInput for a block that is not there.
    """
    block = os.environ.get(NOTIFY_BLOCK_VARIABLE)
    existing = client.read_automations_by_name(TELL_OF_FAILURES)
    wanted = _tell_of_failures(client, block, deployments) if block else None
    if wanted and [_content(each) for each in existing] == [_content(wanted)]:
        return [], []
    for each in existing:
        client.delete_automation(each.id)
    if wanted is None:
        return [], [f"automation {TELL_OF_FAILURES}"] if existing else []
    client.create_automation(wanted)
    return [f"automation {TELL_OF_FAILURES}"], []


def _tell_of_failures(
    client: SyncPrefectClient, block: str, deployments: list[str]
) -> AutomationCore:
    type_slug, _, name = block.partition("/")
    try:
        document = client.read_block_document_by_name(name, type_slug)
    except ObjectNotFound as error:
        raise BadInput(
            f"{NOTIFY_BLOCK_VARIABLE}={block}: the Prefect server has no such block; wanted"
            " TYPE/NAME as `prefect block ls` shows it; save one, or unset the variable"
        ) from error
    return AutomationCore(
        name=TELL_OF_FAILURES,
        description=f"Through the block {block}, which {NOTIFY_BLOCK_VARIABLE} named.",
        trigger=EventTrigger(
            expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
            match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
            match_related=ResourceSpecification(
                {"prefect.resource.role": "deployment", "prefect.resource.name": deployments}
            ),
            threshold=1,
        ),
        actions=[
            SendNotification(
                block_document_id=document.id,
                subject="Atelier: {{ deployment.name }} {{ flow_run.state.name }}",
                body=_BODY,
            )
        ],
    )


def _content(automation: AutomationCore) -> str:
    trigger = automation.trigger.model_dump_json(exclude={"id"})
    return f"{trigger} {[each.model_dump_json() for each in automation.actions]}"
