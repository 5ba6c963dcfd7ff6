"""`atelier schedule`: what it writes, what it refuses, and when it says that it is at work."""

import re
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from atelier.deployment import sync
from atelier.deployment.own_schedules import all_entries
from tasks.store.files import home

Command = Callable[..., "subprocess.CompletedProcess[str]"]
NIGHTLY = ("0 3 * * *", "--name", "pets", "--timezone", "UTC")


def test_a_command_is_kept_with_whole_paths_and_told(
    tmp_path: Path, call: Command, image_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(image_folder.parent)
    given = ("run", "--images", f"pets=folder:{image_folder.name}", "--families", "vae", "--seed=3")

    done = call(tmp_path / "home", "schedule", *NIGHTLY, "--", *given)
    listed = call(tmp_path / "home", "schedule", "--list")

    assert (done.returncode, done.stderr) == (0, "")
    told = f"atelier run --images pets=folder:{image_folder} --families vae --seed=3"
    assert f", {told}\n" in done.stdout
    assert done.stdout.startswith("pets: 0 3 * * * (UTC), next 20")
    assert done.stdout.endswith("not at work yet: `atelier up` puts it to work\n")
    assert f"pets  0 3 * * * (UTC)  `atelier up` puts it to work  {told}\n" in listed.stdout
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    own = all_entries()[-1]
    assert own.entrypoint == "flows.full_run.full_run"
    assert own.parameters == {
        "images": f"pets=folder:{image_folder}",
        "models": ["vae"],
        "seed": 3,
    }
    assert own.work_pool.work_queue_name == "training"


def test_champions_may_draw_by_a_schedule_too(tmp_path: Path, call: Command) -> None:
    done = call(tmp_path, "schedule", "@weekly", "--name", "art", "--", "sample", "--seed", "3")

    assert done.returncode == 0, done.stderr
    text = (tmp_path / "schedules.yaml").read_text()
    assert "entrypoint: flows.sample_gallery.sample_gallery" in text
    assert "work_queue_name: light" in text


def test_a_search_may_run_by_a_schedule_too(
    tmp_path: Path, call: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = ("search", "vae", "--vary", "vae.model.latent_size=8,12", "--trials", "5")

    done = call(tmp_path, "schedule", "@weekly", "--name", "better", "--", *given)
    looks = call(tmp_path, "schedule", "@weekly", "--name", "looks", "--", "search", "--list")
    wrong = call(tmp_path, "schedule", "@weekly", "--name", "none", "--", "search", "vae")

    assert (done.returncode, done.stderr) == (0, "")
    assert (looks.returncode, wrong.returncode) == (2, 2)
    assert "schedule a search itself" in looks.stderr
    assert "wants --vary" in wrong.stderr
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path))
    own = all_entries()[-1]
    assert (own.name, own.entrypoint) == ("better", "flows.search.search")
    assert own.parameters["vary"] == {"vae.model.latent_size": "8,12"}
    assert own.parameters["trials"] == 5
    assert own.work_pool.work_queue_name == "training"


def test_replacing_one_tells_what_it_was_and_removing_it_leaves_no_file(
    tmp_path: Path, call: Command
) -> None:
    call(tmp_path, "schedule", *NIGHTLY, "--", "run")

    same = call(tmp_path, "schedule", *NIGHTLY, "--", "run")
    other = call(tmp_path, "schedule", *NIGHTLY, "--", "run", "--preset", "full")
    gone = call(tmp_path, "schedule", "--remove", "pets")

    assert "replaced" not in same.stdout
    assert "replaced: pets, 0 3 * * * (UTC), atelier run\n" in other.stdout
    assert gone.stdout == "removed pets: 0 3 * * * (UTC), atelier run --preset full\n"
    assert not (tmp_path / "schedules.yaml").exists()
    assert "no schedules of your own" in call(tmp_path, "schedule", "--list").stdout


RUN = ("--", "run")
BAD: list[tuple[tuple[str, ...], str]] = [
    ((), "CRON and --name NAME and -- COMMAND missing; wanted: atelier schedule CRON"),
    (("0 3 * * *", *RUN), "--name NAME missing"),
    (NIGHTLY, "-- COMMAND missing"),
    ((*NIGHTLY, "--"), "-- COMMAND missing"),
    (("0 3 * *", "--name", "pets", *RUN), "'0 3 * *' is no cron schedule of five fields"),
    (("0 99 * * *", "--name", "pets", *RUN), "'0 99 * * *' is no cron schedule"),
    ((*NIGHTLY, "--timezone", "Mars", *RUN), "'Mars' is no timezone"),
    (("0 3 * * *", "--name", "nightly", *RUN), "prefect.yaml has a deployment 'nightly' already"),
    (("0 3 * * *", "--name", "My pets", *RUN), "a schedule cannot be called 'My pets'"),
    ((*NIGHTLY, "--", "walk"), "'walk' cannot be scheduled; wanted, after --, one of: run, sample"),
    ((*NIGHTLY, "--", "history"), "'history' cannot be scheduled"),
    ((*NIGHTLY, *RUN, "--images", "digit"), "'digit' is not a known source of images"),
    ((*NIGHTLY, *RUN, "--images", "folder:/no/where"), "/no/where is not a folder"),
    ((*NIGHTLY, *RUN, "--image-size", "4"), "image size must lie between 8 and 64, got 4"),
    ((*NIGHTLY, *RUN, "--seed", "-1"), "a seed is a whole number from 0 to 2147483647, got '-1'"),
    ((*NIGHTLY, *RUN, "--fast"), "atelier run: error: unrecognized arguments: --fast"),
    ((*NIGHTLY, *RUN, "--mlflow-port", "5000"), "--mlflow-port is for servers that a command"),
    ((*NIGHTLY, "--", "sample", "No!"), "cannot be the name of a model"),
    (("--list", *RUN), "--list and --remove go alone"),
    (("--list", "--remove", "pets"), "not allowed with argument --list"),
    (("--remove", "pets"), "there is no schedule 'pets' of your own; there are: none"),
]


@pytest.mark.parametrize(("arguments", "message"), BAD, ids=[each for _, each in BAD])
def test_what_cannot_be_is_refused_and_nothing_is_written(
    tmp_path: Path, call: Command, arguments: tuple[str, ...], message: str
) -> None:
    done = call(tmp_path, "schedule", *arguments)

    assert done.returncode == 2
    assert message in done.stderr
    assert not (tmp_path / "schedules.yaml").exists()


def test_a_damaged_file_stays_and_is_named_by_every_way_in(tmp_path: Path, call: Command) -> None:
    (tmp_path / "schedules.yaml").write_text("name: atelier\npull: [\n")

    for arguments in (("--list",), ("--remove", "pets"), (*NIGHTLY, "--", "run")):
        done = call(tmp_path, "schedule", *arguments)

        assert done.returncode == 2
        assert done.stderr.startswith("atelier: schedules.yaml:3: is not YAML: ")
        assert done.stderr.count("\n") == 1
    assert (tmp_path / "schedules.yaml").read_text() == "name: atelier\npull: [\n"


@pytest.mark.slow
def test_where_up_has_been_a_schedule_is_at_work_at_once(
    atelier_home: Path, call: Command, prefect: Any
) -> None:
    api = str(prefect.api_url).rstrip("/")
    first = call(home(), "schedule", *NIGHTLY, "--", "run", PREFECT_API_URL=api)
    sync.apply(all_entries())

    second = call(home(), "schedule", "@daily", "--name", "birds", "--", "run", PREFECT_API_URL=api)
    found = prefect.read_deployment_by_name("full-run/birds")
    prefect.update_deployment_schedule(found.id, found.schedules[0].id, active=False)
    listed = call(home(), "schedule", "--list", PREFECT_API_URL=api)
    gone = call(home(), "schedule", "--remove", "birds", PREFECT_API_URL=api)

    assert first.stdout.endswith("not at work yet: `atelier up` puts it to work\n")
    assert second.stdout.endswith("\ncreated deployment full-run/birds\n")
    rows = {line.split()[0]: line for line in listed.stdout.splitlines()}
    assert re.search(r"20\d\d-\d\d-\d\d \d\d:\d\d +atelier run$", rows["pets"])
    assert "paused in the Prefect UI" in rows["birds"]
    assert gone.stdout.endswith("\nremoved deployment full-run/birds\n")
    names = [each.name for each in prefect.read_deployments()]
    assert "pets" in names
    assert "birds" not in names
    assert names.count("nightly") == 1
