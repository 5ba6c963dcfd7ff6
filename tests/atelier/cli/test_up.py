"""The machine that works by itself: `atelier up`, schedules, events, and what dies on the way."""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import psutil
import pytest
from prefect.blocks.notifications import CustomWebhookNotificationBlock
from prefect.client.orchestration import get_client
from prefect.events import emit_event
from prefect.settings import PREFECT_API_URL, temporary_settings

from atelier.deployment.automations import NAMES, apply_automations
from tasks.families.table import FAMILIES
from tasks.maintenance.crash_recovery import MAX_RETRIES, STATE_LABEL, retry_crashed_runs
from tasks.store.files import BadInput

ROOT = Path(__file__).resolve().parents[3]
Ask = Callable[..., Any]
SECONDS_TO_WAIT = 240  # for any one thing, on a machine that is busy with others

pytestmark = pytest.mark.soak


def environment(home: Path) -> dict[str, str]:
    kept = ("ATELIER_", "PREFECT_", "MLFLOW_", "PYTHONWARNINGS")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(kept)}
    return {**clean, "ATELIER_HOME": str(home), "PYTHONPATH": str(ROOT)}


def atelier(home: Path, *arguments: str) -> str:
    """What the command prints; its worker must import this checkout."""
    done = subprocess.run(
        [sys.executable, "-m", "atelier", *arguments],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(home),
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout


def wait_for(what: str, found: Callable[[], Any]) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + SECONDS_TO_WAIT
    while not (answer := found()):
        assert time.monotonic() < deadline, f"waited in vain for {what}"
        time.sleep(0.5)
    return answer


@dataclass(frozen=True)
class Stack:
    """What `atelier up` started."""

    home: Path
    printed: str
    text: Path
    service: Ask

    @property
    def processes(self) -> dict[str, dict[str, Any]]:
        records: dict[str, dict[str, Any]] = json.loads((self.home / "servers.json").read_text())
        return records

    @property
    def api(self) -> str:
        return f"{self.processes['prefect']['url']}/api"

    def ask(self, path: str, body: object = None, method: str = "POST") -> Any:
        """The Prefect server's answer."""
        return self.service(f"{self.api}/{path}", body, method)

    def deployments(self) -> dict[str, Any]:
        return {each["name"]: each for each in self.ask("deployments/filter", {})}

    def declared(self) -> dict[str, Any]:
        """The deployments without what the server notes on them when a worker asks for work."""
        noted = {"updated", "last_polled", "status"}
        return {
            name: {key: value for key, value in each.items() if key not in noted}
            for name, each in self.deployments().items()
        }

    def runs(self, **wanted: Any) -> list[Any]:
        """Flow runs, the latest first."""
        body = {"flow_runs": wanted, "sort": "EXPECTED_START_TIME_DESC"}
        found: list[Any] = self.ask("flow_runs/filter", body)
        return found

    def run(self, run_id: str) -> Any:
        return self.ask(f"flow_runs/{run_id}", method="GET")

    def order(self, deployment: str, **parameters: Any) -> str:
        """Order a run now, as the form in the UI does; returns its id."""
        found = self.deployments()[deployment]
        body = {"parameters": {**found["parameters"], **parameters}}
        return str(self.ask(f"deployments/{found['id']}/create_flow_run", body)["id"])

    def order_unchecked(self, deployment: str, parameters: dict[str, Any]) -> str:
        """The same with parameters that the server is told not to check."""
        found = self.deployments()[deployment]
        body = {"parameters": parameters, "enforce_parameter_schema": False}
        return str(self.ask(f"deployments/{found['id']}/create_flow_run", body)["id"])

    def set_state(self, run_id: str, state: str, name: str) -> None:
        now = datetime.now(UTC).isoformat()
        details = {"scheduled_time": now} if state == "SCHEDULED" else {}
        body = {"state": {"type": state, "name": name, "state_details": details}, "force": True}
        self.ask(f"flow_runs/{run_id}/set_state", body)

    def ended(self, run_id: str) -> Any:
        """A run, once it has come to an end."""
        final = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
        return wait_for(
            f"the end of run {run_id}",
            lambda: (run := self.run(run_id))["state_type"] in final and run,
        )


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory, ask: Ask) -> Iterator[Stack]:
    """Servers, worker and deployments; all is stopped at the end."""
    home = tmp_path_factory.mktemp("stack")
    text = home / "tale.txt"
    text.write_text("\n".join(f"the cat sees bird number {n * n % 97}." for n in range(600)) + "\n")
    try:
        yield Stack(home, atelier(home, "up"), text, ask)
    finally:
        records = json.loads((home / "servers.json").read_text())
        stopped = atelier(home, "down")
    assert "stopped: worker, mlflow, prefect" in stopped, stopped
    assert not [each for each in records.values() if psutil.pid_exists(each["pid"])]


def test_up_starts_all_three_and_deploys_what_the_file_says(stack: Stack) -> None:
    assert set(stack.processes) == {"prefect", "mlflow", "worker"}
    names = {"nightly", "samples", "search", "smoke", "housekeeping"}
    names |= {f"retrain-{family}" for family in FAMILIES}
    assert set(stack.deployments()) == names
    assert all(f"/{name}\n" in stack.printed for name in names)
    seed = stack.deployments()["nightly"]["parameter_openapi_schema"]["properties"]["seed"]
    assert (seed["minimum"], seed["maximum"]) == (0, 2**31 - 1)
    assert "same weights" in seed["description"]


def test_status_tells_what_is_up_and_what_runs_next(stack: Stack) -> None:
    wait_for("the runs of the schedules", lambda: stack.runs(tags={"all_": ["nightly"]}))

    status = atelier(stack.home, "status")

    for name in ("prefect", "mlflow", "worker"):
        assert re.search(rf"^{name} +http://127\.0\.0\.1:\S+ +healthy", status, re.MULTILINE)
    due = status.partition("what runs next")[2]
    # With seconds if that is today, and in the machine's own time zone.
    assert re.search(r"\d\d:\d\d(:00)? +nightly .*Scheduled", due)


def test_a_second_up_changes_nothing_that_a_person_or_the_first_did(stack: Stack) -> None:
    schedule = stack.deployments()["samples"]["schedules"][0]
    path = f"deployments/{stack.deployments()['samples']['id']}/schedules/{schedule['id']}"
    stack.ask(path, {"active": False}, "PATCH")
    before = (stack.processes, stack.declared())

    printed = atelier(stack.home, "up")

    assert "everything was up already; nothing has changed" in printed
    assert (stack.processes, stack.declared()) == before
    assert not stack.deployments()["samples"]["schedules"][0]["active"]


def test_a_schedule_starts_a_run_that_completes(stack: Stack) -> None:
    """By the server's scheduler and the worker alone; some SQLAlchemy versions break that."""
    deployment = stack.deployments()["housekeeping"]["id"]
    # Every half minute: a scheduler that is late on a busy machine still finds a time to come.
    schedule = {"interval": 30, "anchor_date": datetime.now(UTC).isoformat()}
    (made,) = stack.ask(
        f"deployments/{deployment}/schedules", [{"schedule": schedule, "active": True}]
    )
    soon = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    wanted = {
        "expected_start_time": {"before_": soon},
        "tags": {"all_": ["auto-scheduled"]},
        "deployment_id": {"any_": [deployment]},
    }
    found = wait_for("a scheduled run", lambda: stack.runs(**wanted))
    run = min(found, key=lambda each: each["expected_start_time"])

    ended = stack.ended(run["id"])

    stack.ask(f"deployments/{deployment}/schedules/{made['id']}", method="DELETE")
    assert ended["state_name"] == "Completed"
    assert ended["created_by"]["type"] == "SCHEDULE"


def test_promotions_are_followed_by_one_run_of_samples(stack: Stack) -> None:
    events = [
        {
            "event": "atelier.model.promoted",
            "id": f"00000000-0000-4000-8000-00000000000{number}",
            "occurred": datetime.now(UTC).isoformat(),
            "resource": {"prefect.resource.id": f"atelier.model.{name}"},
        }
        for number, name in enumerate(("tale-ngram", "tale-gpt"))
    ]
    samples = {"deployment_id": {"any_": [stack.deployments()["samples"]["id"]]}}
    before = {run["id"] for run in stack.runs(**samples)}

    stack.ask("events", events)

    def triggered() -> list[Any]:
        return [run for run in stack.runs(**samples) if run["id"] not in before]

    (run,) = wait_for("a run of samples", triggered)
    assert run["created_by"]["type"] == "AUTOMATION"
    waits = datetime.fromisoformat(run["expected_start_time"]) - datetime.now(UTC)
    assert timedelta(seconds=60) < waits <= timedelta(seconds=120)
    stack.set_state(run["id"], "SCHEDULED", "Scheduled")  # now, so that the test is shorter
    assert stack.ended(run["id"])["state_name"] == "Completed"
    assert len(triggered()) == 1


def test_a_form_refuses_what_its_flow_would_and_orders_the_rest(page: Any, stack: Stack) -> None:
    deployment = stack.deployments()["retrain-ngram"]["id"]
    of_deployment = {"deployment_id": {"any_": [deployment]}}
    address = f"{stack.processes['prefect']['url']}/v2/deployments/deployment/{deployment}/run"
    before = stack.runs(**of_deployment)
    text = stack.home / "letters.txt"
    text.write_text("\n".join(f"dear number {n * n % 89}, how are you?" for n in range(600)) + "\n")

    page.goto(address)
    page.get_by_text("pydocs, tinyshakespeare, file:PATH, folder:PATH").first.wait_for()
    page.locator("textarea").first.fill("nowhere")
    page.get_by_role("button", name="Submit").click()

    page.get_by_text("'nowhere' does not match").first.wait_for()
    assert stack.runs(**of_deployment) == before

    page.goto(address)  # the message that tells of the error lies on the button
    page.locator("textarea").first.fill(f"file:{text}")
    page.get_by_text("standard", exact=True).first.click()
    choices = page.get_by_role("option")
    choices.first.wait_for()
    assert choices.all_inner_texts() == ["quick", "standard", "full"]
    choices.first.click()
    page.get_by_role("button", name="Submit").click()

    ordered = wait_for(
        "the run that was ordered",
        lambda: [run for run in stack.runs(**of_deployment) if run not in before],
    )[0]
    assert ordered["parameters"]["text"] == f"file:{text}"
    assert ordered["parameters"]["preset"] == "quick"
    ended = stack.ended(ordered["id"])
    assert (ended["state_type"], ended["name"]) == ("COMPLETED", "letters-ngram, quick")


def test_training_runs_take_turns_and_the_second_finds_nothing_new(stack: Stack) -> None:
    """The two are in different queues: what keeps them apart is the slot of the device."""
    source = f"file:{stack.text}"
    ids = [
        stack.order("retrain-ngram", text=source, preset="quick"),
        stack.order("smoke", text=source, models=["ngram"]),
    ]

    first, second = sorted((stack.ended(each) for each in ids), key=lambda run: run["end_time"])

    assert {first["state_name"], second["state_name"]} == {"Completed", "Unchanged"}
    assert second["state_name"] == "Unchanged"
    assert "unchanged data and code: tale-ngram version 1" in second["state"]["message"]
    inside = stack.runs(parent_flow_run_id={"any_": [second["id"]]})  # retrain-* has none
    flows = {"id": {"any_": [run["id"] for run in (second, *inside)]}}
    worked = stack.ask("task_runs/filter", {"flow_runs": flows})
    began = min(datetime.fromisoformat(run["start_time"]) for run in worked if run["start_time"])
    assert began >= datetime.fromisoformat(first["end_time"]) - timedelta(seconds=5)


def test_a_newer_smoke_run_cancels_the_older_one(stack: Stack) -> None:
    older = stack.order("smoke", text=f"file:{stack.text}", models=["gpt"], preset="standard")
    wait_for(
        "the older run to train",
        lambda: [
            run
            for run in stack.runs(parent_flow_run_id={"any_": [older]})
            if run["name"].startswith("tale-gpt")
        ],
    )
    newer = stack.order("smoke", text=f"file:{stack.text}", models=["ngram"])

    assert stack.ended(older)["state_name"] == "Cancelled"
    assert stack.ended(newer)["state_type"] == "COMPLETED"
    inside = stack.runs(parent_flow_run_id={"any_": [older]})
    wait_for("the runs inside", lambda: not [r for r in inside if not r["end_time"]])


def test_a_run_whose_process_was_killed_is_found_and_closed(stack: Stack) -> None:
    """`up` looks for them, as after a reboot, and housekeeping does every hour."""
    command = [sys.executable, "-m", "atelier", "run", "--models", "gpt", "--seed", "5"]
    command += ["--text", f"file:{stack.text}"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=environment(stack.home), stdout=subprocess.DEVNULL
    )
    named = {"name": {"like_": "seed 5"}, "state": {"type": {"any_": ["RUNNING"]}}}
    wait_for("both flows to run", lambda: len(stack.runs(**named)) == 2)
    process.send_signal(signal.SIGKILL)
    process.wait()

    printed = atelier(stack.home, "up")

    closed = stack.runs(name={"like_": "seed 5"})
    assert [run["state_name"] for run in closed] == ["Crashed", "Crashed"]
    assert {run["state"]["message"] for run in closed} == {
        "its process is gone; closed by housekeeping"
    }
    assert printed.count("its process is gone") == 2


def test_a_crashed_run_is_started_again_twice_and_no_more(stack: Stack) -> None:
    deployment = stack.deployments()["samples"]
    queue = f"work_queues/{deployment['work_queue_id']}"
    stack.ask(queue, {"is_paused": True}, "PATCH")  # the worker must not be faster than the test
    run_id = stack.order("samples")
    seen = []
    with temporary_settings({PREFECT_API_URL: stack.api}):
        for _ in range(MAX_RETRIES + 1):
            stack.set_state(run_id, "CRASHED", "Crashed")
            assert retry_crashed_runs() == []  # not before the worker's reports have settled
            retry_crashed_runs(settled_for=timedelta(0))
            seen.append((stack.run(run_id)["state_name"], sorted(stack.run(run_id)["tags"])[2:]))
    stack.ask(f"flow_runs/{run_id}", method="DELETE")
    stack.ask(queue, {"is_paused": False}, "PATCH")

    assert seen == [
        ("AwaitingRetry", ["samples"]),
        ("AwaitingRetry", ["retry-2", "samples"]),
        ("Crashed", ["retry-2", "samples"]),
    ]


def test_an_unknown_parameter_is_refused_before_there_is_a_run(stack: Stack) -> None:
    before = len(stack.runs())

    with pytest.raises(urllib.error.HTTPError) as refused:
        stack.order("samples", sede=3)

    assert refused.value.code == 409
    assert "'sede' was unexpected" in refused.value.read().decode()
    assert len(stack.runs()) == before


@pytest.mark.parametrize(
    ("deployment", "parameters", "message"),
    [
        ("samples", {"seed": "many"}, "seed: Input should be a valid integer"),
        ("samples", {"names": ["../../x"]}, "cannot be the name of a model"),
        ("samples", {"names": None, "seed": None}, "seed: Input should be a valid integer"),
        ("retrain-ngram", {"text": 7}, "text: Input should be a valid string"),
        ("retrain-ngram", {"text": "nonsense"}, "text: String should match pattern"),
        ("retrain-ngram", {"text": "file:/no/where"}, "/no/where is not a file"),
    ],
)
def test_a_bad_parameter_is_an_error_and_no_crash(
    stack: Stack, deployment: str, parameters: dict[str, Any], message: str
) -> None:
    """As a client gives it that has the server's own check switched off."""
    run = stack.ended(stack.order_unchecked(deployment, parameters))

    assert run["state_name"] == "Failed"
    assert message in run["state"]["message"]


def test_an_unknown_parameter_that_slips_in_ends_as_an_error_too(stack: Stack) -> None:
    """Prefect's process ends before the flow begins, which the worker takes for a crash."""
    run_id = stack.order_unchecked("samples", {"sede": 3})
    assert stack.ended(run_id)["state_name"] == "Crashed"

    with temporary_settings({PREFECT_API_URL: stack.api}):
        assert retry_crashed_runs(settled_for=timedelta(0)) == []

    run = stack.run(run_id)
    assert run["state_name"] == "Failed"
    assert "the flow has no parameter 'sede'; it has names, seed" in run["state"]["message"]


def test_failures_and_events_are_told_through_the_block_that_a_person_named(
    stack: Stack, monkeypatch: pytest.MonkeyPatch
) -> None:
    heard: list[str] = []

    class Listener(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            heard.append(self.rfile.read(int(self.headers["Content-Length"])).decode())
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Be silent."""

    monkeypatch.setenv("ATELIER_NOTIFY_BLOCK", "custom-webhook/of-the-test")
    names = list(stack.deployments())
    with (
        HTTPServer(("127.0.0.1", 0), Listener) as listener,
        temporary_settings({PREFECT_API_URL: stack.api}),
        get_client(sync_client=True) as client,
    ):
        Thread(target=listener.serve_forever, daemon=True).start()
        with pytest.raises(BadInput, match="has no such block"):
            apply_automations(client, names)
        CustomWebhookNotificationBlock(
            name="of-the-test",
            url=f"http://127.0.0.1:{listener.server_port}/",
            json_data={"text": "{{subject}}: {{body}}"},
        ).save("of-the-test")
        automations = [f"automation {name}" for name in NAMES]
        assert apply_automations(client, names) == (automations, [])
        assert apply_automations(client, names) == ([], [])
        run_id = stack.order("samples")
        stack.set_state(run_id, "FAILED", "Failed")
        told = wait_for("the notification", lambda: heard)[0]
        for event, payload in (
            ("atelier.model.promoted", {"version": 7, "reason": "better by far"}),
            ("atelier.model.stalled", {"in_a_row": 5, "reason": "not better"}),
            ("atelier.disk.low", {"free_megabytes": 12, "folder": "the home"}),
        ):
            kind = "home" if "disk" in event else "model"
            named = {"prefect.resource.id": f"atelier.{kind}.of-the-test"}
            named["prefect.resource.name"] = f"{kind}-of-the-test"
            emit_event(event, resource=named, payload=payload)
        of_events = " ".join(wait_for("four notifications", lambda: heard[3:] and heard))
        monkeypatch.delenv("ATELIER_NOTIFY_BLOCK")
        assert apply_automations(client, names) == ([], automations)
        listener.shutdown()

    assert "samples" in told
    assert "Failed" in told
    assert f"/runs/flow-run/{run_id}" in told
    assert "model-of-the-test has a new champion: version 7: better by far" in of_events
    assert (
        "model-of-the-test finds no better version: 5 versions in a row were refused" in of_events
    )
    assert "home-of-the-test runs out of disk space: 12 MB are free in the home" in of_events


def test_after_down_up_goes_on_with_what_was_cut_off_and_removes_what_the_file_lost(
    stack: Stack,
) -> None:
    flow_id = stack.deployments()["nightly"]["flow_id"]
    for name, tags in (("of-old", ["atelier"]), ("of-another", ["theirs"])):
        body = {"name": name, "flow_id": flow_id, "tags": tags, "work_pool_name": "atelier"}
        stack.ask("deployments/", body)
    if not list(stack.home.glob("ledger/*.jsonl")):  # no champion yet: this test runs alone
        stack.ended(stack.order("smoke", text=f"file:{stack.text}", models=["ngram"]))
    run_id = stack.order("samples", seed=23)  # one that has to be drawn first
    wait_for("the run to begin", lambda: stack.run(run_id)["state_type"] == "RUNNING")
    signed = wait_for(
        "its signature", lambda: STATE_LABEL in (run := stack.run(run_id))["labels"] and run
    )
    assert signed["labels"][STATE_LABEL] == signed["state_id"]

    stopped, started = atelier(stack.home, "down"), atelier(stack.home, "up")

    assert re.search(r"^gallery, seed 23: goes on after the next `atelier up`$", stopped, re.M)
    ended = stack.ended(run_id)
    assert (ended["state_name"], ended["run_count"]) == ("Completed", 2), ended["state"]
    assert re.findall(r"^(?:created|changed|removed|closed).*", started, re.MULTILINE) == [
        "removed deployment full-run/of-old"
    ]
    kept = stack.deployments()
    assert "of-another" in kept
    assert "of-old" not in kept
    stack.ask(f"deployments/{kept['of-another']['id']}", method="DELETE")


def test_a_schedule_of_ones_own_is_at_work_at_once_and_starts_runs(stack: Stack) -> None:
    """The last of them: it promotes a model, which is followed by samples."""
    text = stack.home / "yarn.txt"
    text.write_text(stack.text.read_text().replace("cat", "dog"))
    run = ("run", "--families", "ngram", "--preset", "quick", "--text", f"file:{text}")

    made = atelier(stack.home, "schedule", "* * * * *", "--name", "tales", "--", *run)

    assert made.endswith("\ncreated deployment full-run/tales\n")
    first = wait_for(
        "the first run",
        lambda: stack.runs(tags={"all_": ["own-schedule", "auto-scheduled"]}),
    )[-1]
    ended = stack.ended(first["id"])
    assert (ended["state_type"], ended["created_by"]["type"]) == ("COMPLETED", "SCHEDULE")
    assert re.search(r"^tales .* 20\d\d-", atelier(stack.home, "schedule", "--list"), re.M)
    gone = atelier(stack.home, "schedule", "--remove", "tales")
    assert gone.endswith("\nremoved deployment full-run/tales\n")
    assert "tales" not in stack.deployments()
