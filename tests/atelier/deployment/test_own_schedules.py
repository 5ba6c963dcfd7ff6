"""Schedules of one's own: the file in the home, when they are due, what the server is told."""

import os
import re
import stat
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import yaml

from atelier.deployment import own_schedules, sync
from atelier.deployment.own_schedules import (
    all_entries,
    checked_timing,
    drop,
    keep,
    machine_timezone,
    missing_sources,
    new_entry,
    next_run,
    own_entries,
    path_of_file,
    when,
)
from atelier.deployment.schema import DeploymentEntry, read_deployments
from tasks.store.files import BadInput, project_file

DAILY = {"cron": "0 3 * * *", "timezone": "UTC"}


def entry(name: str = "pets", timing: dict[str, str] = DAILY, **parameters: Any) -> DeploymentEntry:
    return new_entry(
        name,
        timing,
        ["run", "--preset", "quick"],
        entrypoint="flows.full_run.full_run",
        parameters={"preset": "quick", **parameters},
        tags=("train",),
        queue="training",
    )


def test_what_is_kept_is_read_again_and_only_its_owner_may(atelier_home: Path) -> None:
    pets, birds = entry(), entry("birds", {"cron": "@weekly", "timezone": "Asia/Tokyo"}, seed=3)

    assert keep(pets) is None
    assert keep(birds) is None

    assert own_entries() == [pets, birds]
    assert stat.S_IMODE(path_of_file().stat().st_mode) == 0o600
    assert [path.name for path in atelier_home.iterdir()] == ["schedules.yaml"]
    assert when(birds) == "@weekly (Asia/Tokyo)"
    assert pets.tags == ["atelier", "train", "own-schedule"]
    assert pets.description == "`atelier run --preset quick`"


def test_the_file_has_the_form_of_the_projects_own(atelier_home: Path, tmp_path: Path) -> None:
    keep(entry(seed=3))
    copy = tmp_path / "prefect.yaml"
    copy.write_text(path_of_file().read_text())

    assert read_deployments(copy) == own_entries()
    ours = yaml.safe_load(project_file("prefect.yaml").read_text())["deployments"][0]
    (own,) = yaml.safe_load(path_of_file().read_text())["deployments"]
    assert own.keys() <= ours.keys()


def test_parameters_that_are_the_flows_defaults_follow_the_program(atelier_home: Path) -> None:
    made = entry(images="digits", seed=0, models=("vae", "gpt"), glob=None, tokenizer="bpe")

    assert made.parameters == {"preset": "quick", "models": ["vae", "gpt"], "tokenizer": "bpe"}


def test_one_of_the_same_name_is_replaced_and_returned(atelier_home: Path) -> None:
    first, second = entry(), entry(seed=7)
    keep(first)
    keep(entry("birds"))

    assert keep(second) == first

    assert [each.name for each in own_entries()] == ["pets", "birds"]
    assert own_entries()[0].parameters["seed"] == 7


def test_one_that_is_dropped_is_gone_and_the_last_one_takes_the_file_along(
    atelier_home: Path,
) -> None:
    keep(entry())
    keep(entry("birds"))

    assert drop("pets").name == "pets"
    with pytest.raises(BadInput, match=r"no schedule 'pets' of your own; there are: birds"):
        drop("pets")
    assert drop("birds").name == "birds"

    assert not path_of_file().exists()
    with pytest.raises(BadInput, match="there are: none"):
        drop("birds")


def test_both_files_are_applied_together_and_a_name_stands_once(atelier_home: Path) -> None:
    projects = read_deployments(project_file("prefect.yaml"))
    assert all_entries() == projects
    pets = entry()
    keep(pets)

    assert all_entries() == [*projects, pets]

    with pytest.raises(BadInput, match=r"prefect\.yaml has a deployment 'nightly' already"):
        entry("nightly")
    text = path_of_file().read_text().replace("name: pets", "name: nightly")
    path_of_file().write_text(text)
    line = 1 + text[: text.index("name: nightly")].count("\n")
    with pytest.raises(
        BadInput, match=rf"^schedules\.yaml:{line}: .*there is a deployment 'nightly' already"
    ):
        all_entries()


@pytest.mark.parametrize(
    "name", ["", "Pets", "pets!", "1pets", "-pets", "pets/../x", "p" * 61, "pé", "a b"]
)
def test_a_name_that_cannot_be_is_refused(atelier_home: Path, name: str) -> None:
    with pytest.raises(BadInput, match=r"a schedule cannot be called .*; wanted a-z, 0-9 and dash"):
        entry(name)


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"seed": -1}, "parameters.seed: -1 is less than the minimum of 0"),
        ({"sed": 1}, "full-run has no parameter 'sed'"),
        ({"images": "digit"}, "'digit' does not match"),
        ({"glob": "\udce9"}, "glob is '\\\\udce9', which is not UTF-8"),
    ],
)
def test_what_the_flow_would_refuse_is_not_kept(
    atelier_home: Path, parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput, match=message):
        entry(**parameters)


DAMAGES: list[tuple[Callable[[str], bytes], str]] = [
    (lambda _: b"", r"schedules\.yaml:1: Input should be a valid dictionary"),
    (lambda text: text[:200].encode() + b"\xff", r"schedules\.yaml: is not UTF-8"),
    (lambda text: text.replace("cron: ", "crn: ").encode(), r"schedules\.yaml:20: .*no such key"),
    (lambda text: text.replace("0 3 *", "61 3 *").encode(), r"schedules\.yaml:20: .*no such sched"),
    (
        lambda text: text.replace("quick\n  sch", "slow\n  sch").encode(),
        r":18: .*'slow' is not one",
    ),
    (lambda text: text.replace("full_run.full", "full_run.ful").encode(), r":7: .*ful_run"),
    (lambda text: (text + "  - [").encode(), r"schedules\.yaml:\d+: is not YAML"),
    (lambda text: text.encode() + b"\x00", r"schedules\.yaml:25: is not YAML"),
    (lambda _: b"[" * 5000, r"schedules\.yaml: is nested too deeply"),
    (lambda _: b"a: &a [*a]", r"schedules\.yaml: is nested too deeply"),
    (lambda _: b"just words", r"schedules\.yaml:1: Input should be a valid dictionary"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[each for _, each in DAMAGES])
def test_a_damaged_file_is_named_and_stays(
    atelier_home: Path, damage: Callable[[str], bytes], message: str
) -> None:
    keep(entry())
    content = damage(path_of_file().read_text())
    path_of_file().write_bytes(content)

    for use in (all_entries, lambda: keep(entry("birds")), lambda: drop("pets")):
        with pytest.raises(BadInput, match=message):
            use()

    assert path_of_file().read_bytes() == content


def test_a_folder_or_a_broken_link_in_its_place_is_named(atelier_home: Path) -> None:
    path_of_file().mkdir(parents=True)
    with pytest.raises(BadInput, match=r"schedules\.yaml: cannot be read: Is a directory"):
        all_entries()

    path_of_file().rmdir()
    path_of_file().symlink_to(atelier_home / "nowhere")
    with pytest.raises(BadInput, match=r"schedules\.yaml: cannot be read: No such file"):
        all_entries()


@pytest.mark.parametrize(
    "cron",
    ["61 3 * * *", "0 3 * *", "0 3 * * * *", "R * * * *", "nightly", "@never", "", "@daily x"],
)
def test_a_bad_cron_is_refused_with_what_is_wanted(cron: str) -> None:
    with pytest.raises(BadInput, match=rf"^'{re.escape(cron)}' is no cron schedule.*; wanted minu"):
        checked_timing(cron, "UTC")


def test_a_day_that_never_comes_is_refused() -> None:
    with pytest.raises(BadInput, match=r"'0 0 30 2 \*' names a day that never comes"):
        checked_timing("0 0 30 2 *", "UTC")


def test_a_bad_timezone_is_refused_with_near_ones() -> None:
    with pytest.raises(BadInput, match=r"'Europe/Berln' is no timezone; .*such as Europe/Berlin"):
        checked_timing("0 3 * * *", "Europe/Berln")
    with pytest.raises(BadInput, match=r"'' is no timezone; wanted an IANA name, such as Europe"):
        checked_timing("0 3 * * *", "")


def test_the_timezone_is_the_machines_unless_one_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", ":Asia/Tokyo")

    assert machine_timezone() == "Asia/Tokyo"
    assert checked_timing(" 0  3 * * *", None) == {"cron": "0 3 * * *", "timezone": "Asia/Tokyo"}
    assert checked_timing("@daily", "UTC") == {"cron": "@daily", "timezone": "UTC"}

    monkeypatch.setenv("TZ", "CET-1CEST")  # a rule, and no name
    local = os.path.realpath("/etc/localtime").rpartition("/zoneinfo/")[2]
    assert machine_timezone() in (local, "UTC")


def test_the_next_run_is_in_the_timezone_of_the_schedule(atelier_home: Path) -> None:
    tokyo = next_run(entry(timing={"cron": "30 6 * * *", "timezone": "Asia/Tokyo"}))
    off = entry().model_copy(deep=True)
    off.schedules[0].active = False

    assert tokyo is not None
    assert tokyo.astimezone(UTC).strftime("%H:%M") == "21:30"
    assert tokyo > datetime.now(UTC)
    assert next_run(off) is None


def test_data_that_have_gone_are_named(atelier_home: Path, image_folder: Path) -> None:
    made = entry(images=f"pets=folder:{image_folder}")
    assert missing_sources(made) == []

    image_folder.rename(image_folder.with_name("elsewhere"))

    (line,) = missing_sources(made)
    assert line.startswith(f"pets: {image_folder} is not a folder")


@pytest.mark.slow
def test_the_server_gets_what_is_kept_leaves_the_rest_and_loses_what_is_dropped(
    atelier_home: Path, prefect: Any
) -> None:
    assert not sync.is_applied()
    sync.apply(all_entries())
    keep(entry())
    keep(entry("birds"))

    assert sync.apply(all_entries()).created == [
        "deployment full-run/pets",
        "deployment full-run/birds",
    ]

    found = prefect.read_deployment_by_name("full-run/pets")
    assert set(found.tags) == {"atelier", "train", "own-schedule"}
    assert found.description == "`atelier run --preset quick`"
    assert found.parameters == {"preset": "quick"}
    assert found.parameter_openapi_schema["additionalProperties"] is False
    (schedule,) = found.schedules
    assert (schedule.schedule.cron, schedule.schedule.timezone) == ("0 3 * * *", "UTC")
    assert sync.is_applied()

    prefect.update_deployment_schedule(found.id, schedule.id, active=False)
    keep(entry("birds", seed=9))
    applied = sync.apply(all_entries())
    assert (applied.created, applied.changed) == ([], ["deployment full-run/birds"])
    assert not prefect.read_deployment_by_name("full-run/pets").schedules[0].active

    drop("pets")
    applied = sync.apply(all_entries())
    assert (applied.created, applied.changed) == ([], [])
    assert applied.removed == ["deployment full-run/pets"]
    assert not sync.apply(all_entries())


@pytest.mark.slow
def test_more_deployments_than_the_server_gives_at_a_time_are_all_known(
    atelier_home: Path, prefect: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sync, "_PAGE", 3)
    sync.apply(all_entries())

    assert not sync.apply(all_entries())
    assert own_schedules.own_entries() == []
    removed = sync.apply(all_entries()[:1]).removed
    assert len([each for each in removed if each.startswith("deployment")]) == (
        len(all_entries()) - 1
    )
