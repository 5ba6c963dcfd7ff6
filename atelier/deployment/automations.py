"""Automations that no single deployment owns: who is told when something needs to be known.

Those that start a deployment (samples after a promotion, housekeeping after a crash) are triggers
in prefect.yaml.
"""

import os
from collections.abc import Iterator
from typing import Any
from uuid import UUID

from prefect.client.orchestration import SyncPrefectClient
from prefect.events import AutomationCore, EventTrigger, ResourceSpecification
from prefect.events.actions import SendNotification
from prefect.exceptions import ObjectNotFound

from tasks.maintenance.disk_watch import DISK_LOW
from tasks.registry.promotion import PROMOTED, STALLED
from tasks.runtime.markup import WORD_JOINER
from tasks.store.files import BadInput

NOTIFY_BLOCK_VARIABLE = "ATELIER_NOTIFY_BLOCK"
"""Names a saved notification block as TYPE/NAME, such as slack-webhook/ops; unset: nobody is told,
and failed runs are seen in the UI and in `atelier status`."""

TELL_OF_FAILURES = "atelier: tell of failed runs"
TELL_OF_PROMOTIONS = "atelier: tell of promotions"
TELL_OF_REFUSALS = "atelier: tell of refusals in a row"
TELL_OF_DISKS = "atelier: tell of a disk that fills"
NAMES = (TELL_OF_FAILURES, TELL_OF_PROMOTIONS, TELL_OF_REFUSALS, TELL_OF_DISKS)

_DISARMED = (("<", "\u2039"), (">", "\u203a"), ("@", f"@{WORD_JOINER}"), ("](", f"]{WORD_JOINER}("))


def _shown(expression: str) -> str:
    """A place in a message for text from people, data and errors, which stays text.

    In whatever chat it ends, it calls nobody (`<!channel>`, `@everyone`) and hides no address
    (`<http://...|x>`, `[x](http://...)`). Escapes would not do: the library that sends to Slack
    turns `&lt;!channel&gt;` back. So the marks become others that look like them.
    """
    filters = "".join(f"|replace({ours!r}, '{theirs}')" for ours, theirs in _DISARMED)
    return f"{{{{ ({expression})|string{filters} }}}}"


_MESSAGE = _shown("flow_run.state.message or 'no message'")
_FAILURE = f"{_shown('flow_run.name')}: {_MESSAGE}\n{{{{ flow_run|ui_url }}}}"
_PROMOTION = f"version {_shown('event.payload.version')}: {_shown('event.payload.reason')}"
_REFUSALS = (
    f"{_shown('event.payload.in_a_row')} versions in a row were refused, the last for:"
    f" {_shown('event.payload.reason')}"
)
_DISK = (
    f"{_shown('event.payload.free_megabytes')} MB are free in {_shown('event.payload.folder')};"
    " free some, or set ATELIER_HOME to a folder on another disk"
)


def apply_automations(
    client: SyncPrefectClient, deployments: list[str]
) -> tuple[list[str], list[str]]:
    """Create the automations that tell a person, or remove them; returns (created, removed).

    deployments: the names of those whose failed runs count. Raises BadInput for a block that is not
    there.
    """
    block = os.environ.get(NOTIFY_BLOCK_VARIABLE)
    wanted = {each.name: each for each in _wanted(client, block, deployments)} if block else {}
    created, removed = [], []
    for name in NAMES:
        existing = client.read_automations_by_name(name)
        automation = wanted.get(name)
        if automation and [_content(each) for each in existing] == [_content(automation)]:
            continue
        for each in existing:
            client.delete_automation(each.id)
        if automation is not None:
            client.create_automation(automation)
            created.append(f"automation {name}")
        elif existing:
            removed.append(f"automation {name}")
    return created, removed


def _wanted(
    client: SyncPrefectClient, block: str, deployments: list[str]
) -> Iterator[AutomationCore]:
    type_slug, _, name = block.partition("/")
    try:
        document = client.read_block_document_by_name(name, type_slug)
    except ObjectNotFound as error:
        raise BadInput(
            f"{NOTIFY_BLOCK_VARIABLE}={block}: the Prefect server has no such block; wanted"
            " TYPE/NAME as `prefect block ls` shows it; save one, or unset the variable"
        ) from error
    failures = EventTrigger(
        expect={"prefect.flow-run.Failed", "prefect.flow-run.Crashed"},
        match=ResourceSpecification({"prefect.resource.id": "prefect.flow-run.*"}),
        match_related=ResourceSpecification(
            {"prefect.resource.role": "deployment", "prefect.resource.name": deployments}
        ),
        threshold=1,
    )
    subject = f"Atelier: {_shown('deployment.name')} {_shown('flow_run.state.name')}"
    yield _telling(TELL_OF_FAILURES, block, document.id, failures, subject, _FAILURE)
    for name, event, resource, what, body in (
        (TELL_OF_PROMOTIONS, PROMOTED, "atelier.model.*", "has a new champion", _PROMOTION),
        (TELL_OF_REFUSALS, STALLED, "atelier.model.*", "finds no better version", _REFUSALS),
        (TELL_OF_DISKS, DISK_LOW, "atelier.home.*", "runs out of disk space", _DISK),
    ):
        trigger = EventTrigger(
            expect={event},
            match=ResourceSpecification({"prefect.resource.id": resource}),
            threshold=1,
        )
        subject = f"Atelier: {_shown('event.resource.name')} {what}"
        yield _telling(name, block, document.id, trigger, subject, body)


def _telling(
    name: str, block: str, block_id: UUID, trigger: EventTrigger, subject: str, body: str
) -> AutomationCore:
    return AutomationCore(
        name=name,
        description=f"Through the block {block}, which {NOTIFY_BLOCK_VARIABLE} named.",
        trigger=trigger,
        actions=[SendNotification(block_document_id=block_id, subject=subject, body=body)],
    )


def _content(automation: AutomationCore) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    # Not as JSON: the events that a trigger expects are a set, whose JSON is in no fixed order.
    trigger = automation.trigger.model_dump(exclude={"id"})
    return trigger, [each.model_dump() for each in automation.actions]
