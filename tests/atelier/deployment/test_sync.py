"""prefect.yaml, read strictly: Prefect itself ignores unknown keys and unfit parameters."""

import re
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prefect.deployments.runner import RunnerDeployment
from prefect.utilities.callables import parameter_schema

from atelier.deployment import sync
from atelier.deployment.schema import DeploymentEntry, read_deployments
from atelier.services.local_worker import WORK_POOL
from tasks.families.table import FAMILIES
from tasks.store.files import BadInput

PREFECT_YAML = Path(__file__).resolve().parents[3] / "prefect.yaml"
ENTRIES = {entry.name: entry for entry in read_deployments(PREFECT_YAML)}


def test_every_deployment_of_the_project_would_run() -> None:
    retrained = {f"retrain-{family}" for family in FAMILIES}
    assert {"nightly", "samples", "search", "smoke", "housekeeping", *retrained} == set(ENTRIES)
    assert all(entry.work_pool.name == WORK_POOL for entry in ENTRIES.values())
    assert all("atelier" in entry.tags for entry in ENTRIES.values())


def test_deployments_bear_the_version_of_the_project() -> None:
    project = tomllib.loads(PREFECT_YAML.with_name("pyproject.toml").read_text(encoding="utf-8"))

    assert {entry.version for entry in ENTRIES.values()} == {project["project"]["version"]}


GOOD = """\
name: atelier
pull: []
deployments:
  - name: nightly
    entrypoint: flows.full_run.full_run
    description: Everything.
    tags: [atelier]
    version: "1"
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
    parameters:
      preset: quick
      seed: 1
    schedules:
      - {cron: "0 3 * * *", timezone: Europe/Berlin}
    triggers:
      - type: event
        name: after
        description: After something.
        expect: [something]
    work_pool: {name: atelier, work_queue_name: training}
"""


@pytest.mark.parametrize(
    "given",
    ["images: pets=folder:/a/b=c", "text: стихи=file:/a.txt", "text: poems=folder:/a"],
)
def test_data_may_be_named_in_the_file(tmp_path: Path, given: str) -> None:
    path = tmp_path / "prefect.yaml"
    path.write_text(GOOD.replace("preset: quick", given), encoding="utf-8")

    (entry,) = read_deployments(path)

    name, _, source = given.partition(": ")
    assert entry.parameters[name] == source
    entry.flow().validate_parameters(entry.parameters)


MISTAKES = [
    ("    tags: [atelier]", "    tag: [atelier]", 7, "there is no such key"),
    ('    version: "1"\n', "", 4, "version: is missing"),
    ("    tags: [atelier]", "    tags: [work]", 7, "must bear the tag 'atelier'"),
    ("full_run.full_run", "full_run.ful_run", 5, "has no attribute 'ful_run'"),
    ("full_run.full_run", "nowhere.full_run", 5, "No module named 'flows.nowhere'"),
    ("full_run.full_run", "full_run.RunSummary", 5, "RunSummary is not a flow"),
    ("flows.full_run.full_run", "flows/full_run.py:full_run", 5, "should match pattern"),
    (
        "seed: 1",
        "sed: 1",
        12,
        "full-run has no parameter 'sed'; it has approval_seconds, approve, continue_from",
    ),
    ("seed: 1", "seed: -1", 12, "-1 is less than the minimum of 0"),
    ("seed: 1", "seed: one", 12, "'one' is not of type 'integer'"),
    ("preset: quick", "preset: fastest", 11, "'fastest' is not one of"),
    ("preset: quick", "models: [vae, nothing]", 11, "'nothing' is not one of"),
    ("preset: quick", "images: digit", 11, "'digit' does not match"),
    ("preset: quick", "images: =folder:/a", 11, "'=folder:/a' does not match"),
    ("preset: quick", "images: pets=digits", 11, "'pets=digits' does not match"),
    ("preset: quick", "text: a=b=file:/a.txt", 11, "'a=b=file:/a.txt' does not match"),
    ("seed: 1", "image_size: 1000", 12, "1000"),
    ('"0 3 * * *"', '"61 3 * * *"', 14, "no such schedule"),
    ("Europe/Berlin", "Europe/Atlantis", 14, "no such schedule"),
    (", timezone: Europe/Berlin", "", 14, "a cron schedule needs a timezone"),
    ("cron:", "crn:", 14, "there is no such key"),
    ("{cron", "{interval: 60, cron", 14, "exactly one of cron, interval and rrule"),
    ("expect: [something]", "expected: [something]", 19, "there is no such key"),
    (
        "expect: [something]",
        "expect: [something]\n        parameters: {sed: 1}",
        20,
        "full-run has no parameter 'sed'",
    ),
    ("name: atelier, work", "name: elsewhere, work", 20, "Input should be 'atelier'"),
    ("queue_name: training", "queue_name: slow", 20, "got 'slow'"),
    ("ENQUEUE", "CANCEL_OLD", 9, "'ENQUEUE' or 'CANCEL_NEW'"),
    ("limit: 1", "limit: 0", 9, "greater than or equal to 1"),
    ("      seed: 1", "      preset: full", 12, "duplicate key 'preset'"),
    ("pull: []", "pull: [{}]", 2, "at most 0 items"),
    ("name: atelier\n", "name: atelier\nbuild: null\n", 2, "there is no such key"),
    ("    tags: [atelier]", "    tags: [atelier", 8, "is not YAML"),
]


@pytest.mark.parametrize(
    ("good", "bad", "line", "message"), MISTAKES, ids=[bad.strip() for _, bad, _, _ in MISTAKES]
)
def test_a_mistake_is_named_with_its_line(
    tmp_path: Path, good: str, bad: str, line: int, message: str
) -> None:
    path = tmp_path / "prefect.yaml"
    assert GOOD.count(good) >= 1
    path.write_text(GOOD.replace(good, bad, 1))

    with pytest.raises(BadInput) as refused:
        read_deployments(path)

    assert re.search(rf"^prefect\.yaml:{line}: .*{re.escape(message)}", str(refused.value), re.M), (
        str(refused.value)
    )


def test_the_example_without_a_mistake_is_read(tmp_path: Path) -> None:
    path = tmp_path / "prefect.yaml"
    path.write_text(GOOD)

    (entry,) = read_deployments(path)

    assert isinstance(entry, DeploymentEntry)
    assert entry.schedules[0].timing() == {"cron": "0 3 * * *", "timezone": "Europe/Berlin"}


def test_all_mistakes_are_named_at_once_and_names_are_unique(tmp_path: Path) -> None:
    path = tmp_path / "prefect.yaml"
    second = GOOD.partition("deployments:\n")[2].replace("seed: 1", "sed: 1")
    path.write_text(GOOD.replace("0 3", "99 3") + second)

    with pytest.raises(BadInput) as refused:
        read_deployments(path)

    lines = [int(found) for found in re.findall(r"^prefect\.yaml:(\d+):", str(refused.value), re.M)]
    assert lines == [14, 21, 29]
    assert "there is a deployment 'nightly' already" in str(refused.value)


@pytest.mark.parametrize("name", [*ENTRIES])
def test_every_field_of_every_form_has_words_a_default_and_limits(name: str) -> None:
    schema = parameter_schema(ENTRIES[name].flow()).model_dump(mode="json")

    assert schema["required"] == []
    for field, properties in schema["properties"].items():
        assert properties["description"], field
        assert "default" in properties, field
    limits = schema["properties"].get("seed")
    if limits:
        assert (limits["minimum"], limits["maximum"]) == (0, 2**31 - 1)
    if "preset" in schema["properties"]:
        assert schema["properties"]["preset"]["enum"] == ["quick", "standard", "full"]


def test_the_form_of_one_family_asks_nothing_of_the_others() -> None:
    fields = {
        name: set(parameter_schema(ENTRIES[name].flow()).properties)
        for name in ("retrain-vae", "retrain-gan", "retrain-ngram", "retrain-gpt")
    }

    assert fields["retrain-vae"] == {
        *{"images", "preset", "seed", "settings", "continue_from", "image_size", "rehash"}
    }
    assert fields["retrain-gan"] == {*fields["retrain-vae"], "gan_loss"}
    assert fields["retrain-ngram"] == {
        *{"text", "preset", "seed", "settings", "tokenizer", "glob", "rehash"}
    }
    assert fields["retrain-gpt"] == {*fields["retrain-ngram"], "continue_from"}


def test_housekeeping_after_a_crash_is_not_called_by_a_crash_of_its_own() -> None:
    (trigger,) = ENTRIES["housekeeping"].triggers
    called_by = {
        tag.removeprefix("prefect.tag.") for tag in trigger.match_related["prefect.resource.id"]
    }

    assert not called_by & set(ENTRIES["housekeeping"].tags)
    for name in ENTRIES.keys() - {"housekeeping"}:
        assert called_by & set(ENTRIES[name].tags), name


def test_variables_of_the_job_reach_the_deployment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What containers need: the template of their pool has a place for each."""
    path = tmp_path / "prefect.yaml"
    path.write_text(GOOD.replace("training}", "training, job_variables: {gpus: 1}}"))
    (entry,) = read_deployments(path)
    applied: list[RunnerDeployment] = []

    def note(deployment: RunnerDeployment) -> None:
        applied.append(deployment)

    monkeypatch.setattr(RunnerDeployment, "apply", note)

    asked: list[dict[str, Any]] = []
    server = SimpleNamespace(request=lambda *_, json: asked.append(json))
    sync._deploy(server, entry, "1")

    assert [each.job_variables for each in applied] == [{"gpus": 1}]
    assert asked[0]["version"] == "1"
    assert asked[0]["parameter_openapi_schema"]["additionalProperties"] is False
