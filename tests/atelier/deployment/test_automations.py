"""Who is told of what: the automations' definitions, without a server."""

import uuid
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.events import AutomationCore
from prefect.exceptions import ObjectNotFound

from atelier.deployment.automations import (
    NAMES,
    TELL_OF_DISKS,
    TELL_OF_FAILURES,
    TELL_OF_PROMOTIONS,
    TELL_OF_REFUSALS,
    apply_automations,
)
from tasks.store.files import BadInput

BLOCK = uuid.uuid4()


@dataclass
class Server:
    """What a Prefect server keeps of automations, and one block."""

    kept: list[Any] = field(default_factory=list)

    def read_automations_by_name(self, name: str) -> list[Any]:
        return [each for each in self.kept if each.name == name]

    def read_block_document_by_name(self, name: str, type_slug: str) -> Any:
        if (type_slug, name) != ("slack-webhook", "ops"):
            raise ObjectNotFound(http_exc=Exception("404"))
        return SimpleNamespace(id=BLOCK)

    def create_automation(self, automation: AutomationCore) -> None:
        self.kept.append(
            SimpleNamespace(id=uuid.uuid4(), **{n: getattr(automation, n) for n in FIELDS})
        )

    def delete_automation(self, automation_id: uuid.UUID) -> None:
        self.kept = [each for each in self.kept if each.id != automation_id]

    def named(self, name: str) -> Any:
        (found,) = self.read_automations_by_name(name)
        return found


FIELDS = ("name", "description", "trigger", "actions")


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    monkeypatch.setenv("ATELIER_NOTIFY_BLOCK", "slack-webhook/ops")
    return Server()


def apply(server: Server) -> tuple[list[str], list[str]]:
    return apply_automations(server, ["nightly", "samples"])  # type: ignore[arg-type]


def test_without_a_block_nobody_is_told(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    apply(server)
    monkeypatch.delenv("ATELIER_NOTIFY_BLOCK")

    assert apply(server) == ([], [f"automation {name}" for name in NAMES])
    assert server.kept == []
    assert apply(server) == ([], [])


def test_what_agrees_is_left_alone_and_what_differs_is_made_anew(server: Server) -> None:
    assert apply(server) == ([f"automation {name}" for name in NAMES], [])
    assert apply(server) == ([], [])
    server.named(TELL_OF_DISKS).actions[0].body = "changed by somebody"
    assert apply(server) == ([f"automation {TELL_OF_DISKS}"], [])
    assert len(server.kept) == 4


def test_a_block_that_is_not_there_is_named(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ATELIER_NOTIFY_BLOCK", "slack-webhook/nobody")
    with pytest.raises(BadInput, match="slack-webhook/nobody: the Prefect server has no such"):
        apply(server)


@pytest.mark.parametrize(
    ("name", "event", "resource", "words"),
    [
        (TELL_OF_PROMOTIONS, "atelier.model.promoted", "atelier.model.*", "event.payload.reason"),
        (TELL_OF_REFUSALS, "atelier.model.stalled", "atelier.model.*", "event.payload.in_a_row"),
        (TELL_OF_DISKS, "atelier.disk.low", "atelier.home.*", "event.payload.free_megabytes"),
    ],
)
def test_each_event_of_ours_has_words_of_its_own(
    server: Server, name: str, event: str, resource: str, words: str
) -> None:
    apply(server)
    made = server.named(name)

    assert made.trigger.expect == {event}
    assert made.trigger.match.root == {"prefect.resource.id": resource}
    assert made.trigger.threshold == 1
    (action,) = made.actions
    assert action.block_document_id == BLOCK
    assert "event.resource.name" in action.subject
    assert words in action.body


def test_failures_and_crashes_of_our_deployments_are_told(server: Server) -> None:
    apply(server)
    trigger = server.named(TELL_OF_FAILURES).trigger

    assert trigger.expect == {"prefect.flow-run.Failed", "prefect.flow-run.Crashed"}
    assert trigger.match_related.root["prefect.resource.name"] == ["nightly", "samples"]
