"""A trial where a Ray node would try it, in this process and without Ray."""

import json
import os
import shutil
import stat
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from tasks.search.ray_node import tried_on_node
from tasks.search.trial import TrialRequest, parts_of, try_out
from tasks.search.workers import outcome_from
from tasks.store.files import BadInput, home
from tasks.training.device import computing_threads

Ask = Callable[..., TrialRequest]


def message(request: TrialRequest, **changed: Any) -> str:
    return json.dumps({"request": asdict(request), "parts": {**parts_of(request), **changed}})


@pytest.fixture(autouse=True)
def same_threads() -> Any:
    with computing_threads(None):
        yield


def test_a_node_gives_what_this_machine_gives(ask: Ask) -> None:
    request = ask(order=3)
    here = try_out(request)

    told = json.loads(tried_on_node(message(request), {"ATELIER_HOME": str(home())}, 0))

    assert outcome_from("trial 0", told["answer"]) == here
    assert told["told"] == []


def test_what_travels_with_a_trial_is_set_before_it_is_tried(
    ask: Ask, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(order=2)
    sent, there = message(request), str(home())
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "elsewhere"))

    told = json.loads(tried_on_node(sent, {"ATELIER_HOME": there}, 0))

    assert told["answer"]["state"] == "complete"
    assert os.environ["ATELIER_HOME"] == there
    assert not (tmp_path / "elsewhere").exists()


def test_what_a_trial_logs_is_in_the_home_for_its_owner_only(ask: Ask) -> None:
    tried_on_node(message(ask(order=2)), {}, 0)

    (path,) = (home() / "logs").glob("search-ray-*.log")
    assert "  trial 0: " in path.read_text(encoding="utf-8")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_what_ray_began_again_is_told_with_who_had_begun_it(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = ask(order=2)

    class Killed(BaseException):
        pass

    def dying(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr("tasks.search.trial.measured_on_validation", dying)
        patch.setattr("tasks.search.trial._curve", dying)
        patch.setattr("tasks.search.trial.rebuilt_from", dying)
        try_out(request)

    told = json.loads(tried_on_node(message(request), {}, 1))

    assert "try 2 is on" in told["told"][0]
    assert f":{os.getpid()}:" in told["told"][1]
    assert "did not end it" in told["told"][1]
    again = json.loads(tried_on_node(message(ask(order=3)), {}, 0))
    assert again["told"] == []  # another trial of the same data and family


def test_a_node_with_other_code_or_another_device_is_refused(ask: Ask) -> None:
    request = ask(order=2)

    told = json.loads(tried_on_node(message(request, device="cuda"), {}, 0))

    with pytest.raises(BadInput, match=r"would make another trial than .*device: cpu.*was cuda"):
        outcome_from("trial 0", told["answer"])


def test_a_node_without_the_home_is_named(ask: Ask) -> None:
    request = ask(order=2)
    sent = message(request)
    shutil.rmtree(request.data["folder"])

    told = json.loads(tried_on_node(sent, {}, 0))

    with pytest.raises(BadInput, match=r"does not see .* need the same home"):
        outcome_from("trial 0", told["answer"])


@pytest.mark.parametrize("store", ["", "file:///nowhere"])
def test_a_node_that_refuses_has_written_nothing(ask: Ask, tmp_path: Path, store: str) -> None:
    request = ask(order=2)
    sent = message(request)
    shutil.rmtree(request.data["folder"])
    environment = {"ATELIER_HOME": str(tmp_path / "node"), "ATELIER_STORE": store}

    told = json.loads(tried_on_node(sent, environment, 0))

    assert "does not see" in told["answer"]["error"]
    assert not (tmp_path / "node").exists()


def test_a_store_that_only_the_node_names_is_not_used(
    ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = message(ask(order=2))
    monkeypatch.setenv("ATELIER_STORE", "file:///nowhere")

    told = json.loads(tried_on_node(sent, {}, 0))

    assert told["answer"]["state"] == "complete"
    assert "ATELIER_STORE" not in os.environ
