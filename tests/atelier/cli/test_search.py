"""`atelier search`: what is refused before anything is started, and what is shown of records."""

import json
import subprocess
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

import pytest

from atelier.__main__ import _parser, main
from atelier.cli import search as command
from tasks.families.table import FAMILIES
from tasks.search import records, runners
from tasks.search.outcome import Outcome
from tasks.search.records import (
    Finding,
    Proposed,
    SearchRecord,
    asked_parts,
    begin,
    best_settings,
    keep,
    keep_finding,
)
from tasks.search.runners import Place
from tasks.search.space import plain_space, space_for
from tasks.search.study import Proposal, StudySpec
from tasks.settings.values import checked, flattened
from tasks.store.files import BadInput
from tasks.store.steps import steps

RATE, SIZE = "vae.training.learning_rate", "vae.model.latent_size"
VARY = ["--vary", f"{RATE}=log:1e-4..1e-2"]


def test_the_command_line_is_read_without_prefect() -> None:
    """What imports it early misses the addresses of the servers."""
    code = "import sys, atelier.__main__ as m; m._parser(); import tasks.search.records"
    code += "; print('prefect' in sys.modules)"

    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert told.stdout.strip() == "False"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vea", *VARY], "wants a family of"),
        ([*VARY], "wants a family of"),
        (["vae"], "wants --vary NAME=SPEC"),
        (["vae", "--vary", RATE], "--vary wants NAME=SPEC"),
        (["vae", *VARY, *VARY], "varied twice"),
        (["vae", "--vary", "vae.training.learning_rat=1,2"], "did you mean"),
        (["vae", "--vary", "gpt.training.steps=10,20"], "only vae"),
        (["vae", "--vary", "vae.training.seed=1,2"], "--seed sets it"),
        (["vae", "--vary", "vae.model.channels=1,3"], "cannot be set"),
        (["vae", "--vary", f"{SIZE}=8..4"], "first end must be the lower"),
        (["vae", "--vary", f"{SIZE}=0..4"], "must be a whole number"),
        (["vae", "--vary", f"{SIZE}=8"], "1 choice"),
        (["vae", *VARY, "--set", f"{RATE}=0.1"], "is set to 0.1, and varied"),
        (["vae", *VARY, "--set", "vae.training.seed=3"], "cannot be set"),
        (["vae", *VARY, "--prune", "halving", "--set", "vae.training.schedule=cosine"], "wsd"),
        (["vae", "--vary", "vae.training.steps=9,90", "--prune", "halving"], "which is varied"),
        (["ngram", "--vary", "ngram.model.order=2,3", "--prune", "halving"], "ngram has no steps"),
        (["vae", *VARY, "--budget", "soon"], "--budget wants a time"),
        (["vae", *VARY, "--budget", "0m"], "--budget wants a time"),
        (["vae", *VARY, "--name", "Big One"], "cannot be the name of a search"),
        (["vae", *VARY, "--config", "nothing.toml"], "cannot be read"),
        (["--show", "nothing"], "there is no search called nothing; known: none yet"),
        (["vae", *VARY, "--images", "nowhere"], "'nowhere' is not a known source of images"),
        (["gpt", "--vary", "gpt.training.steps=10,20", "--text", "digits"], "not a source of text"),
        (["vae", *VARY, "--budget", "\u0663m"], "--budget wants a time"),
        (["vae", *VARY, "--prune", "halving", "--set", "vae.training.steps=8"], "9 steps or more"),
        (["vae", *VARY, "--set", "vae.training.shards=3"], "multiple of shards, got 64 and 3"),
        (
            ["gpt", "--vary", "gpt.model.num_heads=2,4", "--set", "gpt.model.width=126"],
            "num_heads = 8, so that each head has an even number of dimensions to rotate, got 126",
        ),
        (["v\nae", *VARY], r"got 'v\nae'"),
        (["vae", "--vary", f"{SIZE}=8..\n9"], r"got '8..\n9'"),
        (["vae", "--vary", "a\n.seed=8..9"], r"got 'a\n.seed=8..9'"),
        (["--show", "a\nb"], r"'a\nb' cannot be the name of a search"),
        (["--show", ""], "'' cannot be the name of a search: it is empty"),
        (["--show", "mine", "--trials", "20"], "--show only looks at searches; leave out --trials"),
        (["--show", "mine", *VARY], "--show only looks at searches; leave out --vary"),
        (["vae", "--list"], "--list only looks at searches; leave out 'vae'"),
        (["--list", "--json"], "--json is about one search"),
        (["--list", "--save-preset", "mine"], "--save-preset is about one search"),
        (["--show", "mine", "--json", "--save-preset", "good"], "give one of them"),
        (["--save-preset", ""], "--save-preset is about a search that was made"),
        (["--save-preset", "mine"], "--save-preset is about a search that was made"),
        (["vae", *VARY, "--json"], "wants --show NAME"),
        (
            ["vae", *VARY, "--trial-cpus", "2"],
            "--trial-cpus says what a trial takes of Ray's nodes",
        ),
        (
            ["vae", *VARY, "--trial-gpus", "0"],
            "--trial-gpus says what a trial takes of Ray's nodes",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_line_and_nothing_is_started(
    arguments: list[str],
    said: str,
    atelier_home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(command, "start_servers", lambda *_: pytest.fail("servers were started"))

    assert main(["search", *arguments]) == 2

    told = capsys.readouterr().err
    assert said in told
    assert told.count("\n") == 1
    assert steps() == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["vae", *VARY, "--workers", "65"], "a number of workers is a whole number from 1 to 64"),
        (["vae", *VARY, "--threads", "0"], "a number of threads is a whole number from 1 to 256"),
        (["vae", *VARY, "--trials", "\u0663"], "a number of trials is a whole number from 1"),
        (["vae", *VARY, "--trials", "0"], "a number of trials is a whole number from 1 to 10000"),
        (["--list", "--show", "first"], "not allowed with"),
        (["vae", *VARY, "--runner", "dask"], "invalid choice: 'dask'"),
        (["vae", *VARY, "--trial-cpus", "0"], "a number of trial cpus is a whole number from 1"),
        (["vae", *VARY, "--trial-gpus", "-1"], "a number of GPUs is from 0 to 64, got '-1'"),
    ],
)
def test_numbers_beyond_what_the_flow_takes_are_refused_as_options(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["search", *arguments])

    assert said in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("trials = 'many'", "trials is of the type int, got str"),
        ("trails = 3", "unknown 'trails'"),
        ("sampler = 'grid'", "sampler is one of tpe, random"),
        ("family =", "is not TOML"),
        ("workers = 65", "a number of workers is a whole number from 1 to 64"),
        ("trials = 0", "a number of trials is a whole number from 1 to 10000"),
        ("runner = 'dask'", "runner is one of processes, ray, ray:auto"),
        ("trial_gpus = 'all'", "trial_gpus is of the type float, got str"),
        ("trial_gpus = 65", "a number of GPUs is from 0 to 64"),
        ("seed = -4", "a seed is a whole number from 0 to 2147483647, got '-4'"),
        ("seed = 4294967296", "a seed is a whole number from 0 to 2147483647"),
    ],
)
def test_a_wrong_file_is_named(
    content: str,
    said: str,
    tmp_path: Path,
    atelier_home: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    path = tmp_path / "search.toml"
    path.write_text(content)

    assert main(["search", "--config", str(path)]) == 2

    assert said in capsys.readouterr().err


def test_a_file_says_what_options_do_and_options_go_before_it(
    tmp_path: Path, atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "search.toml"
    path.write_text(
        'family = "vae"\ntrials = 7\nbudget = "2m"\nname = "mine"\nprune = "halving"\n'
        "[vary.vae.model]\nlatent_size = [8, 12]\n[set]\n'vae.training.steps' = 60\n"
    )
    called: list[dict[str, object]] = []
    monkeypatch.setattr(command, "start_servers", lambda *_: {})
    monkeypatch.setattr(command, "flow_result", lambda _, **given: called.append(given))

    assert main(["search", "--config", str(path), "--trials", "9", *VARY]) == 1

    (given,) = called
    assert given["vary"] == {SIZE: [8, 12], RATE: "log:1e-4..1e-2"}
    assert given["settings"] == {"vae.training.steps": 60}
    assert (given["trials"], given["budget_seconds"], given["name"]) == (9, 120, "mine")
    assert given["prune"] == "halving"


def test_an_option_goes_before_the_file_also_with_the_value_that_it_has_by_default(
    tmp_path: Path, atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "search.toml"
    path.write_text('family = "gan"\ntrials = 7\nseed = 3\nthreads = 2\npreset = "quick"\n')
    called: list[dict[str, object]] = []
    monkeypatch.setattr(command, "start_servers", lambda *_: {})
    monkeypatch.setattr(command, "flow_result", lambda _, **given: called.append(given))
    typed = ["vae", "--trials", "20", "--seed", "0", "--preset", "standard"]

    assert main(["search", "--config", str(path), *typed, *VARY]) == 1

    (given,) = called
    assert (given["family"], given["trials"], given["seed"]) == ("vae", 20, 0)
    assert (given["preset"], given["threads"]) == ("standard", 2)


@pytest.mark.parametrize("runner", ["ray", "ray:auto"])
def test_a_runner_that_is_not_installed_is_refused_with_its_extra(
    runner: str,
    atelier_home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(runners, "find_spec", lambda _: None)
    monkeypatch.setattr(command, "start_servers", lambda *_: pytest.fail("servers were started"))

    assert main(["search", "vae", *VARY, "--runner", runner]) == 2

    assert "pip install 'ray>=2.60,<3'" in capsys.readouterr().err


def test_a_cluster_is_asked_for_room_before_servers_start(
    atelier_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Place] = []

    def refusing(ask: object, place: Place) -> None:
        assert ask is runners.check_cluster
        asked.append(place)
        raise BadInput("no node of the Ray cluster has that")

    monkeypatch.setattr(runners, "find_spec", lambda _: object())
    monkeypatch.setattr(command, "in_a_process_of_its_own", refusing)
    monkeypatch.setattr(command, "start_servers", lambda *_: pytest.fail("servers were started"))
    on_ray = ["--runner", "ray:auto", "--trial-cpus", "3", "--trial-gpus", "0.5", "--threads", "2"]

    assert main(["search", "vae", *VARY, *on_ray]) == 2

    assert capsys.readouterr().err == "atelier: no node of the Ray cluster has that\n"
    assert asked == [Place(runner="ray:auto", workers=4, threads=2, cpus=3, gpus=0.5)]


def test_a_file_names_the_runner_and_what_a_trial_takes(
    tmp_path: Path, atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "search.toml"
    path.write_text('family = "vae"\nrunner = "ray"\ntrial_cpus = 2\ntrial_gpus = 1\n')
    called: list[dict[str, object]] = []
    monkeypatch.setattr(runners, "find_spec", lambda _: object())
    monkeypatch.setattr(command, "in_a_process_of_its_own", lambda *_: None)
    monkeypatch.setattr(command, "start_servers", lambda *_: {})
    monkeypatch.setattr(command, "flow_result", lambda _, **given: called.append(given))

    assert main(["search", "--config", str(path), *VARY]) == 1

    (given,) = called
    assert {name: given[name] for name in ("runner", "trial_cpus", "trial_gpus", "workers")} == {
        **{"runner": "ray", "trial_cpus": 2, "trial_gpus": 1},
        "workers": None,
    }


def test_the_flow_takes_all_that_the_command_gives_it(atelier_home: Path) -> None:
    """The form and schedules have the same names."""
    from flows.search import search

    options = _parser().parse_args(["search", "vae", *VARY])

    assert {*command._parameters(options)} <= {*search.parameters.properties}


@pytest.fixture
def kept(atelier_home: Path) -> SearchRecord:
    """A search on record whose second trial contradicts itself."""
    spec = StudySpec(
        space={
            SIZE: {
                "name": "IntDistribution",
                "attributes": {"low": 4, "high": 8, "step": 1, "log": False},
            }
        },
        first={SIZE: 6},
        seed=0,
        sampler="tpe",
    )
    search = begin(record(spec))
    first = Proposal(number=0, values={SIZE: 6}, params={SIZE: 6})
    second = Proposal(number=1, values={SIZE: 7}, params={SIZE: 7})
    keep(search, Proposed(search=search.key, proposal=first, trial="0" * 64))
    keep(search, Proposed(search=search.key, proposal=second, trial="", problem="6 is not 7"))
    return search


def record(spec: StudySpec, **parts: object) -> SearchRecord:
    return SearchRecord(
        name="mine",
        family="vae",
        model="digits-vae",
        source={"images": "digits"},
        data_title="digits",
        data_digest="0" * 64,
        preset="quick",
        given={},
        threads=1,
        spec=spec,
        parts={"seed": spec.seed, **parts},
    )


def test_searches_are_listed_and_shown_from_their_records(
    kept: SearchRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["search", "--list"]) == 0
    assert "not ended" in capsys.readouterr().out
    keep_finding(kept, Finding(search=kept.key, trials=1, best=None, decision="none"), "")

    assert main(["search", "--show", "mine"]) == 0
    assert "6 is not 7" in capsys.readouterr().out
    assert main(["search", "--show", "mine", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)

    assert [each["values"] for each in told["trials"]] == [{SIZE: 6}, {SIZE: 7}]
    assert told["trials"][0]["outcome"] is None
    assert told["trials"][1]["outcome"]["state"] == "failed"
    assert told["finding"]["decision"] == "none"


def test_the_same_search_goes_on_and_another_of_its_name_is_refused(kept: SearchRecord) -> None:
    assert begin(record(kept.spec)) == kept

    with pytest.raises(BadInput, match=r"mine is another one .*threads: 2, was nothing.*--name"):
        begin(record(kept.spec, threads=2))


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--seed", "1"], "seed: 1, was 0"),
        (["--preset", "standard"], "preset: standard, was quick"),
        (["--set", "vae.training.steps=50"], "vae.training.steps: 50, was nothing"),
        (["--vary", f"{SIZE}=4..9"], "high: 9, was 8"),
        (["--prune", "halving"], "vae.training.schedule: wsd, was nothing"),
    ],
)
def test_another_search_of_a_name_is_refused_before_anything_is_started(
    more: list[str],
    said: str,
    atelier_home: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    space = space_for(FAMILIES["vae"], {SIZE: "4..8"})
    spec = StudySpec(space=plain_space(space), first={SIZE: 6}, seed=0, sampler="tpe")
    asked = asked_parts(
        family="vae", preset="quick", given={}, space=space, seed=0, sampler="tpe", threads=1
    )
    begin(replace(record(spec), parts=asked))
    same = ["search", "vae", "--preset", "quick", "--name", "mine"]
    same += [] if "--vary" in more else ["--vary", f"{SIZE}=4..8"]
    started: list[object] = []
    monkeypatch.setattr(command, "start_servers", lambda *given: started.append(given))
    monkeypatch.setattr(command, "flow_result", lambda *_, **__: None)

    assert main([*same, *more]) == 2
    told = capsys.readouterr().err
    assert "a search called mine is another one" in told
    assert said in told
    assert not started
    if "--vary" not in more:
        assert main(same) == 1  # goes on with the one that is there
        assert started


def test_nothing_measured_is_nothing_to_train(
    kept: SearchRecord, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(BadInput, match="no trial that could be measured"):
        best_settings("mine")
    assert main(["search", "--show", "mine", "--save-preset", "good"]) == 2


def test_a_run_takes_what_a_search_found_best(
    kept: SearchRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    from atelier.cli import run

    outcome = Outcome(state="complete", value=1.0)
    search = replace(kept, source={"images": "digits", "image_size": None})
    called: list[dict[str, object]] = []
    monkeypatch.setattr(records, "search_called", lambda _: search)
    monkeypatch.setattr(records, "outcomes_of", lambda _: {1: outcome})
    monkeypatch.setattr(run, "start_servers", lambda *_: {})
    monkeypatch.setattr(run, "flow_result", lambda _, **given: called.append(given))

    assert main(["run", "--from-search", "mine", "--set", "vae.training.steps=60"]) == 1

    (given,) = called
    assert (given["models"], given["preset"], given["images"]) == (("vae",), "quick", "digits")
    assert given["settings"] == {SIZE: 7, "vae.training.steps": 60}


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--families", "gpt"], "the search mine is of --families vae; leave --families out"),
        (["--preset", "standard"], "the search mine is of --preset quick; leave --preset out"),
        (["--images", "mnist"], "the search mine is of --images digits; leave --images out"),
        (["--image-size", "16"], "the search mine has no --image-size; leave --image-size out"),
    ],
)
def test_what_a_search_decides_is_not_asked_for_otherwise_beside_it(
    more: list[str],
    said: str,
    kept: SearchRecord,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from atelier.cli import run

    search = replace(kept, source={"images": "digits", "image_size": None})
    monkeypatch.setattr(records, "search_called", lambda _: search)
    monkeypatch.setattr(records, "outcomes_of", lambda _: {1: Outcome(state="complete", value=1.0)})
    monkeypatch.setattr(run, "start_servers", lambda *_: {})
    monkeypatch.setattr(run, "flow_result", lambda *_, **__: None)

    assert main(["run", "--from-search", "mine", *more]) == 2

    assert said in capsys.readouterr().err
    same = ["--families", "vae", "--preset", "quick", "--images", "digits"]
    assert main(["run", "--from-search", "mine", *same]) == 1  # as far as the flow


def test_a_search_without_a_name_is_no_run_of_all_families(
    atelier_home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from atelier.cli import run

    monkeypatch.setattr(run, "start_servers", lambda *_: pytest.fail("servers were started"))

    assert main(["run", "--from-search", ""]) == 2

    assert "'' cannot be the name of a search" in capsys.readouterr().err


def test_the_best_setting_becomes_a_preset_that_a_run_takes(
    kept: SearchRecord, monkeypatch: pytest.MonkeyPatch, atelier_home: Path
) -> None:
    monkeypatch.setattr(records, "outcomes_of", lambda _: {1: Outcome(state="complete", value=1.0)})

    assert main(["search", "--show", "mine", "--save-preset", "good"]) == 0

    written = tomllib.loads((atelier_home / "presets" / "good.toml").read_text())
    assert flattened(written) == {SIZE: 7}
    assert main(["search", "--show", "mine", "--save-preset", "good"]) == 2


def test_no_preset_of_ones_own_is_called_like_one_of_the_program(
    kept: SearchRecord,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    atelier_home: Path,
) -> None:
    monkeypatch.setattr(records, "outcomes_of", lambda _: {1: Outcome(state="complete", value=1.0)})

    assert main(["search", "--show", "mine", "--save-preset", "quick"]) == 2

    assert "quick is a preset of the program" in capsys.readouterr().err
    assert not (atelier_home / "presets").exists()


def test_a_setting_that_was_found_best_without_a_value_is_written_so(
    kept: SearchRecord, monkeypatch: pytest.MonkeyPatch, atelier_home: Path
) -> None:
    """TOML has no null, and what is left out is the recipe's."""
    found = {"ngram.model.sentence_end": None, "ngram.model.order": 3}
    monkeypatch.setattr(records, "best_settings", lambda _: (kept, found))

    assert main(["search", "--show", "mine", "--save-preset", "good"]) == 0

    written = tomllib.loads((atelier_home / "presets" / "good.toml").read_text())
    assert checked(written) == found
