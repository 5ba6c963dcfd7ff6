"""Hostile pages, in a real browser and by raw requests, against the servers that `up` starts."""

import http.client
import io
import json
import re
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
from PIL import Image

from atelier.services.server_records import GUARD

Ask = Callable[..., Any]
Command = Callable[..., "subprocess.CompletedProcess[str]"]
NOWHERE = {
    "HTTP_PROXY": "http://127.0.0.1:9",
    "https_proxy": "http://127.0.0.1:9",
    "ALL_PROXY": "socks5://127.0.0.1:9",
}

pytestmark = pytest.mark.soak


@dataclass(frozen=True)
class Stack:
    """Both servers of a home, started with a proxy in the environment that leads nowhere."""

    prefect: str
    mlflow: str
    home: Path
    ask: Ask

    def deployment(self) -> Any:
        (found,) = self.ask(
            f"{self.prefect}/api/deployments/filter",
            {"deployments": {"name": {"any_": ["housekeeping"]}}},
        )
        return found

    def state(self) -> dict[str, Any]:
        """What a hostile page would change."""
        api = f"{self.prefect}/api"
        tracking = f"{self.mlflow}/api/2.0"
        listed = self.ask(f"{tracking}/mlflow-artifacts/artifacts", method="GET")
        return {
            "automations": self.ask(f"{api}/automations/filter", {}),
            "deployments": sorted(d["id"] for d in self.ask(f"{api}/deployments/filter", {})),
            "variables": self.ask(f"{api}/variables/filter", {}),
            "runs": len(self.ask(f"{api}/flow_runs/filter", {"flow_runs": EVIL})),
            "experiments": self.ask(f"{tracking}/mlflow/experiments/search", {"max_results": 99}),
            "models": self.ask(f"{tracking}/mlflow/registered-models/search", method="GET"),
            "artifacts": listed,
        }


EVIL = {"name": {"any_": ["evil"]}}


@pytest.fixture(scope="module")
def stack(command: Command, ask: Ask, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    home = tmp_path_factory.mktemp("guarded")
    try:
        done = command(home, "up", "--no-worker", **NOWHERE)
        assert done.returncode == 0, done.stdout + done.stderr
        found = dict(re.findall(r"^(Prefect|MLflow) UI +(http://[^/\s]+)", done.stdout, re.M))
        yield Stack(found["Prefect"], found["MLflow"], home, ask)
    finally:
        command(home, "down")


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """The port of a web site of somebody else, on this machine."""
    folder = tmp_path_factory.mktemp("stranger")
    (folder / "index.html").write_text("<!doctype html><title>cats</title><p>cats")

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Be silent."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server.server_port
        server.shutdown()


ATTACK = """async ({prefect, mlflow, deployment}) => {
  const automation = {
    name: "evil", enabled: true,
    trigger: {type: "event", posture: "Reactive", expect: ["x"], threshold: 1, within: 0},
    actions: [{type: "run-deployment", source: "selected", deployment_id: deployment,
               job_variables: {command: "touch /tmp/evil"}}],
  };
  const text = JSON.stringify(automation);
  const run = JSON.stringify({name: "evil", job_variables: {command: "touch /tmp/evil"}});
  const order = `${prefect}/api/deployments/${deployment}/create_flow_run`;
  const json = {"Content-Type": "application/json"};
  const variable = JSON.stringify({name: "evil", value: 1});
  const seen = [];
  const tried = async (name, url, options) => {
    try {
      const answer = await fetch(url, options);
      seen.push([name, answer.type === "opaque" ? "opaque" : answer.status]);
    } catch (error) { seen.push([name, "refused"]); }
  };
  const blind = {method: "POST", mode: "no-cors"};
  await tried("blob", `${prefect}/api/automations/`, {...blind, body: new Blob([text])});
  await tried("text", `${prefect}/api/automations/`, {...blind, body: text});
  await tried("form", `${prefect}/api/variables/`, {...blind, body: new URLSearchParams({a: 1})});
  await tried("json", `${prefect}/api/variables/`, {method: "POST", headers: json, body: variable});
  await tried("order", order, {...blind, body: new Blob([run])});
  await tried("bodiless", order, blind);
  await tried("credentials", order, {...blind, credentials: "include", body: new Blob([run])});
  await tried("delete", `${prefect}/api/deployments/${deployment}`, {method: "DELETE"});
  await tried("read", `${prefect}/api/deployments/${deployment}`, {});
  const experiment = JSON.stringify({name: "evil"});
  const create = `${mlflow}/api/2.0/mlflow/experiments/create`;
  const ajax = `${mlflow}/ajax-api/2.0/mlflow/experiments/create`;
  await tried("experiment", create, {method: "POST", headers: json, body: experiment});
  await tried("ajax", ajax, {method: "POST", headers: json, body: experiment});
  await tried("blind", ajax, {...blind, body: new Blob([experiment])});
  const artifact = `${mlflow}/api/2.0/mlflow-artifacts/artifacts/evil.txt`;
  await tried("artifact", artifact, {method: "PUT", body: "evil"});
  await tried("look", `${mlflow}/ajax-api/2.0/mlflow/experiments/search?max_results=9`, {});
  seen.push(["beacon", navigator.sendBeacon(order, new Blob([run])) && "opaque"]);
  for (const action of [`${prefect}/api/variables/`, order, ajax]) {
    const form = document.createElement("form");
    const frame = document.createElement("iframe");
    frame.name = "sink";
    Object.assign(form, {method: "post", enctype: "text/plain", target: "sink", action});
    const field = document.createElement("input");
    Object.assign(field, {name: '{"name": "evil", "value": "', value: '"}'});
    form.append(field);
    document.body.append(frame, form);
    const loaded = new Promise(done => { frame.onload = done; setTimeout(done, 3000); });
    form.submit();
    await loaded;
    frame.remove();
  }
  for (const path of ["/api/events/in", "/api/events/out", "/api/logs/out"]) {
    const outcome = await new Promise(done => {
      const socket = new WebSocket(prefect.replace("http", "ws") + path, ["prefect"]);
      socket.onopen = () => done("open");
      socket.onerror = () => done("refused");
    });
    seen.push([path, outcome]);
  }
  return seen;
}"""


@pytest.mark.parametrize("site", ["127.0.0.1", "localhost"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_page_of_another_origin_changes_nothing(
    page: Any, stack: Stack, stranger: int, site: str, host: str
) -> None:
    """From the same site on another port, and from another site."""
    page.unroute_all()
    before = stack.state()
    page.goto(f"http://{site}:{stranger}/")

    seen = page.evaluate(
        ATTACK,
        {
            "prefect": stack.prefect.replace("127.0.0.1", host),
            "mlflow": stack.mlflow.replace("127.0.0.1", host),
            "deployment": stack.deployment()["id"],
        },
    )

    assert len(seen) == 18
    assert {outcome for _, outcome in seen} <= {"opaque", "refused"}, seen
    assert stack.state() == before


def test_the_same_requests_of_our_own_page_do_what_they_say(page: Any, stack: Stack) -> None:
    """So that what is refused above is refused for where it came from."""
    page.unroute_all()
    outcome = """async deployment => {
      const ask = async (method, path, body) => {
        const headers = {"Content-Type": "application/json"};
        const answer = await fetch(path, {method, headers, body: JSON.stringify(body)});
        const text = await answer.text();
        return [answer.status, text && JSON.parse(text)];
      };
      const [made, automation] = await ask("POST", "/api/automations/", {
        name: "good", enabled: false,
        trigger: {type: "event", posture: "Reactive", expect: ["x"], threshold: 1, within: 0},
        actions: [{type: "run-deployment", source: "selected", deployment_id: deployment,
                   job_variables: {command: "touch /tmp/evil"}}],
      });
      const [removed] = await ask("DELETE", `/api/automations/${automation.id}`);
      const [variable] = await ask("POST", "/api/variables/", {name: "good", value: 1});
      const [gone] = await ask("DELETE", "/api/variables/name/good");
      const opened = await new Promise(done => {
        const socket = new WebSocket(`ws://${location.host}/api/events/in`, ["prefect"]);
        socket.onopen = () => done("open");
        socket.onerror = () => done("refused");
      });
      return [made, removed, variable, gone, opened];
    }"""

    for host in ("127.0.0.1", "localhost"):
        page.goto(f"{stack.prefect.replace('127.0.0.1', host)}/dashboard")
        done = page.evaluate(outcome, stack.deployment()["id"])
        assert done == [201, 204, 201, 204, "open"]


REBOUND = [
    "evil.example:{port}",
    "10.evil.example",
    "192.168.evil.example:{port}",
    "localhost.evil",
]
ENTRANCES = {
    "prefect": [("GET", "/"), ("GET", "/api/health"), ("POST", "/api/flow_runs/count")],
    "mlflow": [
        *(("GET", "/"), ("GET", "/health"), ("GET", "/version"), ("GET", "/get-artifact")),
        *(
            ("POST", "/api/2.0/mlflow/experiments/search"),
            ("POST", "/ajax-api/2.0/mlflow/runs/search"),
        ),
        ("PUT", "/api/2.0/mlflow-artifacts/artifacts/evil.txt"),
    ],
}


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_a_name_that_was_made_to_lead_here_leads_nowhere(stack: Stack, name: str) -> None:
    """DNS rebinding: the browser believes that our server belongs to evil.example."""
    address = urlsplit(getattr(stack, name))
    assert address.hostname is not None
    for host in REBOUND:
        for method, path in ENTRANCES[name]:
            connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
            headers = {"Host": host.format(port=address.port), "Content-Type": "application/json"}
            connection.request(method, path, None if method == "GET" else b"{}", headers)
            assert connection.getresponse().status == 400, (host, method, path)
            connection.close()


PAGES = {
    "prefect": [
        *("/", "/dashboard", "/runs", "/deployments", "/automations", "/events", "/settings"),
        *("/v2/dashboard", "/v2/runs", "/v2/deployments", "/v2/automations", "/v2/events"),
        *("/v2/work-pools", "/v2/variables", "/docs", "/redoc"),
    ],
    "mlflow": [
        *("/", "/#/experiments", "/#/models", "/#/models?workflowType=machine_learning"),
        *("/#/experiments/0", "/#/prompts", "/#/settings"),
    ],
}


def foreign_requests(page: Any) -> list[str]:
    """Fills with the addresses outside of this machine that a page's requests went out to."""
    went_out: list[str] = []
    page.unroute_all()

    def stopped_by_policy(request: Any) -> bool:
        return "csp" in (request.failure or "").lower()

    def note(request: Any) -> None:
        host = urlsplit(request.url).hostname
        if host not in (None, "127.0.0.1", "localhost") and not stopped_by_policy(request):
            went_out.append(request.url)

    page.on("requestfailed", note)
    page.on("requestfinished", note)
    return went_out


@pytest.mark.parametrize("name", ["prefect", "mlflow"])
def test_no_page_asks_a_foreign_host(page: Any, stack: Stack, name: str) -> None:
    """Prefect's second face calls an analytics service on load, whatever its settings say."""
    went_out = foreign_requests(page)

    for path in PAGES[name]:
        page.goto(getattr(stack, name) + path)
        page.wait_for_timeout(3000)
        if path not in ("/docs", "/redoc"):  # they want scripts of a foreign host
            assert len(page.inner_text("body")) > 20, path

    assert went_out == []


@pytest.fixture
def flow_run(stack: Stack) -> str:
    """The id of a run of a flow that had one task."""
    api = f"{stack.prefect}/api"
    flow = stack.ask(f"{api}/flows/", {"name": "drawn"})["id"]
    running = {"type": "RUNNING", "name": "Running"}
    run = stack.ask(f"{api}/flow_runs/", {"flow_id": flow, "state": running})["id"]
    task = {"flow_run_id": run, "task_key": "step", "dynamic_key": "0", "name": "step"}
    step = stack.ask(f"{api}/task_runs/", {**task, "state": running})["id"]
    for kind, each in (("task_runs", step), ("flow_runs", run)):
        ended = {"state": {"type": "COMPLETED", "name": "Completed"}, "force": True}
        stack.ask(f"{api}/{kind}/{each}/set_state", ended)
    return str(run)


@pytest.mark.parametrize("face", ["", "/v2"])
def test_the_time_line_of_a_run_is_drawn(page: Any, stack: Stack, flow_run: str, face: str) -> None:
    """On a canvas, by a library that compiles text: a policy that forbids it leaves it white."""
    errors: list[str] = []
    page.on("pageerror", lambda error: errors.append(str(error)))

    page.goto(f"{stack.prefect}{face}/runs/flow-run/{flow_run}")
    canvas = page.locator("canvas").first
    canvas.wait_for(timeout=60_000)
    deadline = time.monotonic() + 60
    while not errors and num_colours(canvas.screenshot()) < 4:
        assert time.monotonic() < deadline, "nothing is drawn"
        page.wait_for_timeout(1000)

    assert errors == []


def num_colours(picture: bytes) -> int:
    """Of a PNG file."""
    return len(np.unique(np.asarray(Image.open(io.BytesIO(picture)).convert("L"))))


def test_the_event_feed_is_told_live(page: Any, stack: Stack) -> None:
    """By a web socket of the page, which the guard and the policy let pass."""
    page.goto(f"{stack.prefect}/events")

    told = page.evaluate(
        """() => new Promise(done => {
          const socket = new WebSocket(`ws://${location.host}/api/events/out`, ["prefect"]);
          socket.onopen = () => socket.send(JSON.stringify({type: "auth", token: null}));
          socket.onmessage = message => done(JSON.parse(message.data).type);
          socket.onclose = () => done("closed");
        })"""
    )

    assert told == "auth_success"


def test_policies_name_no_password_and_no_foreign_host(stack: Stack) -> None:
    for url in (stack.prefect, stack.mlflow):
        address = urlsplit(url)
        assert address.hostname is not None
        connection = http.client.HTTPConnection(address.hostname, address.port, timeout=30)
        connection.request("GET", "/")
        answer = connection.getresponse()
        policy = answer.getheader("Content-Security-Policy") or ""
        connection.close()
        hosts = set(re.findall(r"(?:http|ws)s?://([^:/ ;]+)", policy))
        assert hosts == {"127.0.0.1", "localhost"}
        assert "'unsafe-inline'" not in policy.partition("script-src")[2].partition(";")[0]
        assert answer.getheader("X-Content-Type-Options") == "nosniff"


def test_json_is_what_the_home_knows_of_its_servers(stack: Stack) -> None:
    records = json.loads((stack.home / "servers.json").read_text())

    assert {name: record["guard"] for name, record in records.items()} == {
        "prefect": GUARD,
        "mlflow": GUARD,
    }
    assert (stack.home / "servers.json").parent.stat().st_mode & 0o077 == 0
    databases = [*stack.home.glob("*.db*"), *(stack.home / "prefect").glob("*.db*")]
    assert len(databases) >= 2
    assert [path for path in databases if path.stat().st_mode & 0o077] == []
