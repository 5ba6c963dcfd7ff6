"""Who is told of what: the automations' definitions, without a server."""

import json
import re
import uuid
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from apprise.plugins.slack import NotifySlack
from prefect.events import AutomationCore
from prefect.exceptions import ObjectNotFound
from prefect.server.utilities.user_templates import (
    render_user_template_sync,
    validate_user_template,
)

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


def test_the_order_in_which_the_server_tells_expected_events_is_no_difference(
    server: Server,
) -> None:
    apply(server)
    trigger = server.named(TELL_OF_FAILURES).trigger
    trigger.expect = _in_another_order(trigger.expect)

    assert apply(server) == ([], [])


def _in_another_order(names: set[str]) -> set[str]:
    """An equal set that tells its members in another order: its table is of another size."""
    for power in range(3, 20):
        others = set(range(2**power))
        equal: set[Any] = names | others
        for each in others:
            equal.remove(each)  # one by one: the table keeps its size
        if list(equal) != list(names):
            return equal
    raise AssertionError(names)


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


HOSTILE = [
    "<!channel> look",
    "&lt;!channel&gt;",
    "!channel>",
    "<@U0123|boss>",
    "<http://evil.example|our server>",
    "[our server](http://evil.example)",
    "@everyone @channel @here",
    "{{ event.id }} {% raw %}",
]


def rendered(template: str, **context: Any) -> str:
    validate_user_template(template)
    return render_user_template_sync(template, context)


def sent_to_slack(body: str, as_markdown: bool) -> str:
    """What Slack is given: the library that sends escapes a body, and takes some of it back."""
    sent: list[str] = []
    token = {"token_a": "T1JJ3T3L2", "token_b": "A1BRTD4JD", "token_c": "TIiajkdnlazkcOXrIdevi7FQ"}
    slack = NotifySlack(**token)
    slack._send = lambda url, payload, **_: sent.append(json.dumps(payload)) or {"ok": True}
    told = "markdown" if as_markdown else "text"
    slack.send(body=body, title="a title", body_format=told, body_passthrough=as_markdown)
    (payload,) = sent
    return payload


@pytest.mark.parametrize("text", HOSTILE)
@pytest.mark.parametrize("name", NAMES)
def test_what_people_and_data_say_calls_nobody_and_hides_no_address(
    server: Server, name: str, text: str
) -> None:
    apply(server)
    (action,) = server.named(name).actions
    payload = {
        **dict.fromkeys(("reason", "folder"), text),
        **dict.fromkeys(("version", "in_a_row", "free_megabytes"), 3),
    }
    event = SimpleNamespace(payload=payload, resource=SimpleNamespace(name=text))
    state = SimpleNamespace(message=text, name="Failed")
    flow_run = SimpleNamespace(name=text, state=state)
    context = {"event": event, "flow_run": flow_run, "deployment": SimpleNamespace(name=text)}
    body = action.body.replace("{{ flow_run|ui_url }}", "http://127.0.0.1:4200/runs/1")

    for said in (rendered(action.subject, **context), rendered(body, **context)):
        assert "channel" not in text or "channel" in said
        for as_markdown in (True, False):
            assert not re.search(r"<[!@#h]", sent_to_slack(said, as_markdown))
        assert "](" not in said
        assert not re.search("@(everyone|channel|here)", said)
