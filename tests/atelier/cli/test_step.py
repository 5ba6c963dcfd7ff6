"""`atelier step`: what it asks for, and how it tells what a step gave."""

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atelier.__main__ import _parser
from atelier.cli import step
from tasks.evaluation.scorecard import PromotionDecision, Scorecard
from tasks.registry.rehearsal import StepEvaluation, StepFit, StepRegistration
from tasks.registry.reproduction import Difference, Reproduction
from tasks.registry.versions import Version
from tasks.samples.html_page import ChampionSamples
from tasks.training.fit_store import TrainedModel

Command = Callable[..., "subprocess.CompletedProcess[str]"]

VERSION = Version(
    name="digits-vae",
    version=3,
    alias="3",
    run_id="",
    digest="d",
    main_metric="test_nll_nats",
    main_value=22.0,
    seconds=1.0,
    is_new=False,
)
CARD = Scorecard(
    name="digits-vae",
    run_id="",
    main_metric="test_nll_nats",
    main_value=21.5,
    low=21.0,
    high=22.0,
    metrics={
        "test_nll_nats": 21.5,
        "test_frechet_distance": 0.2,
        "real_data_frechet_distance": 0.1,
    },
    failed_checks=(),
    data_digest="",
    judge_digest="",
    data_title="digits",
    data_licence="",
    example="",
    folder="/somewhere",
)


@pytest.fixture
def told(
    tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., "subprocess.CompletedProcess[str]"]:
    """What the command prints of what a flow gives."""

    def run(made: Any, *arguments: str) -> "subprocess.CompletedProcess[str]":
        monkeypatch.setattr(step, "_done", lambda *_, **__: made)
        return call(tmp_path, "step", *arguments, "digits-vae/3")

    return run


@pytest.mark.parametrize(
    ("arguments", "chosen"),
    [
        (("fit", "digits-vae"), ("digits-vae", "champion")),
        (("evaluate", "digits-vae/3"), ("digits-vae", "3")),
        (("sample", "digits-vae@best"), ("digits-vae", "best")),
        (("register", "digits-vae"), ("digits-vae", "challenger")),
    ],
)
def test_a_version_is_named_by_alias_or_number(
    arguments: tuple[str, ...], chosen: tuple[str, str]
) -> None:
    assert _parser().parse_args(["step", *arguments]).model == chosen


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fit", "digits-vae"), "no model is registered yet: train some with `atelier run`"),
        (("fit", "No!"), "cannot be the name of a model"),
        (("fit", "digits-vae/../x"), "cannot be the name of a alias"),
        (("fit", "digits-vae/"), "it is empty"),
        (("walk", "digits-vae"), "invalid choice: 'walk'"),
        (("register", "digits-vae", "--fresh"), "unrecognized arguments: --fresh"),
        (("fit",), "the following arguments are required: MODEL[@ALIAS|/N]"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    tmp_path: Path, call: Command, arguments: tuple[str, ...], message: str
) -> None:
    done = call(tmp_path / "home", "step", *arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "home" / "servers.json").exists()


def test_an_evaluation_stands_beside_what_is_on_record(told: Command) -> None:
    made = StepEvaluation(
        version=VERSION, scorecard=CARD, recorded={"test_nll_nats": 22.0}, is_kept=True
    )

    lines = told(made, "evaluate").stdout.splitlines()

    assert [line.split() for line in lines[1:4]] == [
        ["recorded", "now", "real", "data"],
        ["negative", "log-likelihood,", "nats", "per", "image", "22", "21.5"],
        ["Fréchet", "distance", "0.2", "0.1"],
    ]
    assert lines[-2:] == [
        "digits-vae version 3 on digits: 21.5000 (21.0000 to 22.0000, 95 %)",
        "kept in /somewhere",
    ]


@pytest.mark.parametrize("is_identical", [True, False])
def test_a_fit_says_whether_the_weights_are_the_same_and_what_changed(
    told: Command, is_identical: bool
) -> None:
    differences = (Difference(what="code", recorded="a", now="changed: models.vae.model"),)
    fitted = TrainedModel(
        family="vae",
        name="digits-vae",
        run_id="",
        folder="/somewhere",
        digest="d",
        data_digest="",
        seed=0,
        seconds=7.0,
        num_parameters=1,
        was_stored=is_identical,
    )
    comparison = Reproduction(
        name="digits-vae", version=3, is_identical=is_identical, comparisons=differences
    )

    printed = told(StepFit(fitted=fitted, comparison=comparison), "fit").stdout

    assert "code  a         changed: models.vae.model  differs" in printed
    if is_identical:
        assert "version 3: identical weights; found as it was trained, 7 s\n" in printed
        assert "--fresh trains it all the same" in printed
    else:
        assert "version 3: the weights differ; trained, 7 s\nkept in /somewhere\n" in printed


@pytest.mark.parametrize(
    ("accepted", "loads", "code"), [(True, True, 0), (True, False, 1), (False, True, 1)]
)
def test_a_rehearsed_registration_ends_with_what_the_gate_says(
    told: Command, accepted: bool, loads: bool, code: int
) -> None:
    decision = PromotionDecision(accepted=accepted, reason="because")
    made = StepRegistration(version=VERSION, decision=decision, package="packed", loads=loads)

    done = told(made, "register")

    verb = "accept" if accepted else "refuse"
    assert done.returncode == code
    assert done.stdout.splitlines()[1:] == [
        "digits-vae version 3",
        f"  gate     would {verb} it: because",
        "  package  packed",
        "nothing was registered or moved",
    ]


def test_samples_are_named_with_their_paths(told: Command) -> None:
    work = ChampionSamples(
        name="digits-vae",
        family="vae",
        version=3,
        run_id="",
        scorecard_run_id="",
        main_metric="",
        main_value=0.0,
        folder="/drawn/digits-vae",
        pictures=(("samples.png", "samples"),),
        texts=(),
        differences=(),
        seed=5,
    )

    assert told(work, "sample", "--seed", "5").stdout.splitlines()[1:] == [
        "digits-vae version 3, seed 5",
        "  /drawn/digits-vae/samples.png  samples",
    ]


@pytest.mark.parametrize("name", ["fit", "evaluate", "sample", "register"])
def test_a_step_that_failed_ends_with_code_1(told: Command, name: str) -> None:
    done = told(None, name)

    assert (done.returncode, done.stdout) == (1, "")


def test_the_flow_gets_what_was_asked_for(
    tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setattr(step, "_done", lambda _, flow, **given: asked.append((flow, given)))

    call(tmp_path, "step", "evaluate", "digits-vae", "--data-of", "7", "--fresh")
    call(tmp_path, "step", "sample", "digits-vae", "--seed", "9")

    assert asked == [
        ("step_evaluate", {"data_of": "7", "fresh": True}),
        ("step_sample", {"seed": 9}),
    ]
