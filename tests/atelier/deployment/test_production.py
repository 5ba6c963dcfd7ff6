"""What is shipped for clusters: the job template fits the worker type, and holds no secret."""

import copy
import json
import re
import tomllib
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import prefect
import pytest
import yaml
from jsonschema import Draft7Validator
from prefect.server.schemas.actions import WorkPoolCreate

from atelier.__main__ import COMMANDS

ROOT = Path(__file__).resolve().parents[3]
DEPLOY = ROOT / "deploy"
TYPES = "server/api/collections_data/views/aggregate-worker-metadata.json"
BROWSERS = "PREFECT_UI_API_URL"
"""The one address that is not asked from within, but by a browser outside."""
KEYS_OF_A_SERVICE = {
    *("image", "build", "command", "entrypoint", "environment", "configs", "volumes", "ports"),
    *("depends_on", "healthcheck", "restart", "init", "stop_grace_period"),
}
"""As many of the format's as are used."""
VARIABLE = re.compile(r"\{\{ (\w+) \}\}")


@pytest.fixture
def template() -> Any:
    return json.loads((DEPLOY / "kubernetes-job-template.json").read_text())


@pytest.fixture
def shipped() -> Any:
    """The template that the worker type brings, as Prefect's own catalogue has it."""
    catalogue = json.loads((Path(prefect.__file__).parent / TYPES).read_text())
    return catalogue["prefect-kubernetes"]["kubernetes"]["default_base_job_configuration"]


def test_prefect_takes_the_template_and_would_refuse_one_with_an_unknown_variable(
    template: Any,
) -> None:
    pool = {"name": "cluster", "type": "kubernetes", "base_job_template": template}
    assert WorkPoolCreate(**pool).base_job_template == template

    broken = copy.deepcopy(template)
    del broken["variables"]["properties"]["home_claim"]
    with pytest.raises(ValueError, match="home_claim"):
        WorkPoolCreate(**{**pool, "base_job_template": broken})


def test_the_template_adds_to_the_worker_types_own_and_takes_nothing_away(
    template: Any, shipped: Any
) -> None:
    assert template["job_configuration"].keys() == shipped["job_configuration"].keys()
    used = set(VARIABLE.findall(json.dumps(template["job_configuration"])))
    assert used == set(template["variables"]["properties"])
    assert used - set(shipped["variables"]["properties"]) == {"gpus", "secret", "home_claim"}


def test_the_defaults_of_the_form_fit_their_types(template: Any) -> None:
    variables = template["variables"]
    Draft7Validator.check_schema(variables)
    defaults = {k: v["default"] for k, v in variables["properties"].items() if "default" in v}

    assert len(defaults) > 10
    assert not list(Draft7Validator(variables).iter_errors(defaults))
    assert list(Draft7Validator(variables).iter_errors({**defaults, "gpus": "many"}))


def test_a_pod_finds_its_home_where_the_image_has_it_and_runs_without_privileges(
    template: Any,
) -> None:
    pod = template["job_configuration"]["job_manifest"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    home = template["variables"]["properties"]["env"]["default"]["ATELIER_HOME"]
    image = (DEPLOY / "Dockerfile").read_text()

    assert home in {mount["mountPath"] for mount in container["volumeMounts"]}
    assert {m["name"] for m in container["volumeMounts"]} == {v["name"] for v in pod["volumes"]}
    assert f"ATELIER_HOME={home} " in image
    user = pod["securityContext"]["runAsUser"]
    assert f"--uid {user} " in image
    assert pod["securityContext"]["runAsNonRoot"]


def test_the_image_is_given_all_that_it_copies() -> None:
    allowed = (ROOT / ".dockerignore").read_text().splitlines()
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text(), re.MULTILINE)
    sources = [name for names in copied for name in names.split()]

    assert len(sources) == 10
    for name in sources:
        assert (ROOT / name).exists()
        assert f"!{name}" in allowed


def test_no_file_for_deploying_holds_a_secret() -> None:
    files = [*DEPLOY.iterdir(), ROOT / "prefect.yaml"]
    for path in files:
        found = re.search(
            r"(?i)(password|secret|token|auth_string)\w*[=:]\s*[\"']?\w{6,}", path.read_text()
        )
        assert found is None, f"{path.name}: {found}"


@pytest.fixture
def composed() -> Any:
    return yaml.safe_load((DEPLOY / "compose.yaml").read_text())


def test_every_image_is_of_this_version_or_pinned(composed: Any) -> None:
    described = tomllib.loads((ROOT / "pyproject.toml").read_text())
    images = {service["image"] for service in composed["services"].values()}
    template = (DEPLOY / "kubernetes-job-template.json").read_text()

    ours = f"atelier:{described['project']['version']}"
    assert ours in images
    assert f'"default": "{ours}"' in template
    assert all(re.fullmatch(r"[\w/]+:[\d.]+", image) for image in images)


def test_composed_servers_are_published_on_loopback_alone(composed: Any) -> None:
    ports = [port for each in composed["services"].values() for port in each.get("ports", ())]

    assert sorted(ports) == ["127.0.0.1:4200:4200", "127.0.0.1:5000:5000"]


def test_what_composed_services_wait_for_is_there_and_tells_its_state(composed: Any) -> None:
    services = composed["services"]
    for service in services.values():
        waits = service.get("depends_on", {})
        for name, condition in waits.items() if isinstance(waits, dict) else ():
            if condition["condition"] == "service_healthy":
                assert services[name]["healthcheck"]["test"][0] == "CMD"
            else:
                assert services[name]["restart"] in ("no", "on-failure")


def test_composed_commands_are_commands_and_mounts_are_declared(composed: Any) -> None:
    ours = [s for s in composed["services"].values() if s["image"].startswith("atelier:")]
    commands = [service["command"] for service in ours]
    known = {name for names in COMMANDS.values() for name in names}

    assert sorted(c[0] for c in commands) == ["atelier", "atelier", "mlflow", "prefect"]
    assert {command[1] for command in commands if command[0] == "atelier"} <= known
    mounts = [m for s in composed["services"].values() for m in s.get("volumes", ())]
    assert {mount.split(":")[0] for mount in mounts} == set(composed["volumes"])
    used = [c["source"] for s in composed["services"].values() for c in s.get("configs", ())]
    assert set(used) == set(composed["configs"])


def test_composed_services_are_those_that_are_promised_and_find_each_other(composed: Any) -> None:
    """Both servers on PostgreSQL, one object store for all workers; every host is a service."""
    services = composed["services"]
    environments = {name: each.get("environment", {}) for name, each in services.items()}
    prefect, mlflow = environments["prefect"], environments["mlflow"]

    assert prefect["PREFECT_SERVER_DATABASE_CONNECTION_URL"].startswith("postgresql+asyncpg://")
    assert mlflow["MLFLOW_BACKEND_STORE_URI"].startswith("postgresql+psycopg2://")
    assert prefect["PREFECT_SERVER_API_AUTH_STRING"] == "${SECRET}"
    clients = [environments[name] for name in ("worker", "deployments")]
    assert all(each["ATELIER_STORE"].startswith("s3://atelier/") for each in clients)
    addresses = [
        value
        for each in environments.values()
        for name, value in each.items()
        if "://" in value and not value.startswith(("s3:", "file:")) and name != BROWSERS
    ]
    hosts = {urlsplit(address.replace("${PASSWORD}", "word")).hostname for address in addresses}
    assert hosts == {"postgres", "objects", "prefect", "mlflow"}
    assert hosts <= services.keys()


def test_what_composed_services_keep_outlives_them(composed: Any) -> None:
    """Databases, objects and MLflow's files; a worker's home can be made again from the store."""
    volumes = {
        name: [mount.partition(":")[2] for mount in each["volumes"]]
        for name, each in composed["services"].items()
        if "volumes" in each
    }
    mlflow = composed["services"]["mlflow"]["environment"]["MLFLOW_ARTIFACTS_DESTINATION"]

    assert volumes.keys() == {"postgres", "objects", "mlflow"}
    assert volumes["postgres"] == ["/var/lib/postgresql/data"]  # of the image
    assert f"-dir={volumes['objects'][0]}" in composed["services"]["objects"]["command"]
    assert urlsplit(mlflow).path.startswith(f"{volumes['mlflow'][0]}/")


def test_composed_files_have_only_keys_of_the_format(composed: Any) -> None:
    """A misspelt one would be refused only where it is run."""
    known = {"name", "services", "configs", "volumes"}
    assert {name for name in composed if not name.startswith("x-")} <= known
    for name, service in composed["services"].items():
        assert service.keys() <= KEYS_OF_A_SERVICE, name
        assert service.get("healthcheck", {}).keys() <= {"test", "interval", "retries"}, name
    for name, config in composed["configs"].items():
        assert config.keys() == {"content"}, name
