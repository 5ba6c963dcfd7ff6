"""Settings that lie about: what is set, what is dropped, and what the doctor tells of them."""

import os
import subprocess
import sys
from pathlib import Path

import certifi
import pytest

from atelier.__main__ import main
from atelier.services import ambient_settings, background_processes, local_servers

ROOT = Path(__file__).resolve().parents[3]

STRAYS = {
    "MLFLOW_EXPERIMENT_ID": "0",
    "MLFLOW_EXPERIMENT_NAME": "other",
    "MLFLOW_REGISTRY_URI": "databricks-uc",
    "MLFLOW_RUN_ID": "0" * 32,
    "MLFLOW_STATIC_PREFIX": "/mlflow",
    "MLFLOW_REGISTRY_STORE_URI": "sqlite:///elsewhere.db",
    "MLFLOW_WORKSPACE": "somebody's",
    "MLFLOW_ENABLE_ASYNC_LOGGING": "true",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "true",
    "PREFECT_TASK_DEFAULT_RETRIES": "5",
    "PREFECT_FLOWS_DEFAULT_RETRIES": "2",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "true",
    "PREFECT_SERVER_API_BASE_PATH": "/somewhere",
    "PREFECT_PROFILE": "work",
    "TMPDIR": "/var/tmp/%41b",
    "prefect_test_mode": "true",  # Prefect reads names in any case
    "Prefect_Results_Default_Storage_Block": "local-file-system/x",
    "prefect_flow_default_retries": "3",
}


@pytest.mark.parametrize("name", STRAYS)
def test_each_stray_setting_is_told_and_does_not_count(name: str, tmp_path: Path) -> None:
    environment = {name: STRAYS[name], "HOME": "/root"}

    finding = ambient_settings.settings(environment, tmp_path)
    ambient_settings.settle(environment)

    assert finding.state == "attention"
    assert name in finding.what
    assert "unset them" in finding.to_do
    assert environment.get(name) in (None, ambient_settings.SET.get(name), "/tmp")
    assert ambient_settings.settings(environment, tmp_path).state == "ok"


def test_what_a_person_may_set_is_left_alone_and_not_told(tmp_path: Path) -> None:
    environment = {
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:5000",
        "MLFLOW_TRACKING_TOKEN": "secret",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "False",
        "PREFECT_LOGGING_LEVEL": "DEBUG",
        "PREFECT_TASKS_DEFAULT_RETRIES": "0",
    }
    before = dict(environment)

    assert ambient_settings.settings(environment, tmp_path).state == "ok"
    ambient_settings.settle(environment)
    assert {name: environment[name].lower() for name in before} == {
        name: value.lower() for name, value in before.items()
    }


def test_workspaces_of_a_server_of_ones_own_stay(tmp_path: Path) -> None:
    environment = {"MLFLOW_TRACKING_URI": "https://mlflow.example.org", "MLFLOW_WORKSPACE": "w"}

    assert ambient_settings.settings(environment, tmp_path).state == "ok"
    ambient_settings.settle(environment)
    assert environment["MLFLOW_WORKSPACE"] == "w"


@pytest.mark.parametrize(
    ("name", "value", "is_off"),
    [
        ("PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED", "false", True),
        ("PREFECT_API_SERVICES_TRIGGERS_ENABLED", "0", True),
        ("PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED", "true", False),
        ("PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS", "0", False),
    ],
)
def test_a_part_of_the_server_that_is_off_is_told_and_stays_a_persons_choice(
    name: str, value: str, is_off: bool, tmp_path: Path
) -> None:
    environment = {name: value}

    finding = ambient_settings.settings(environment, tmp_path)
    ambient_settings.settle(environment)

    assert finding.state == ("attention" if is_off else "ok")
    assert (name in finding.what) is is_off
    assert (finding.to_do == "unset what turns it off, and restart it") is is_off
    assert environment[name] == value


@pytest.mark.parametrize(
    ("said", "is_told"), [("true", False), (None, False), ("false", True), ("0", True)]
)
def test_a_ban_on_the_code_of_models_is_told_and_stays_a_persons_choice(
    said: str | None, is_told: bool, tmp_path: Path
) -> None:
    name = "MLFLOW_ALLOW_MODEL_CODE_EXECUTION"
    environment = {name: said} if said is not None else {}

    finding = ambient_settings.settings(environment, tmp_path)
    ambient_settings.settle(environment)

    assert environment.get(name) == said
    assert finding.state == ("attention" if is_told else "ok")
    assert (f"{name}={said}: MLflow 3.18 loads no version then" == finding.what) is is_told
    assert finding.to_do.startswith("unset it: ") is is_told


@pytest.mark.parametrize(
    ("name", "content", "told"),
    [
        (".env", "PATH=x\nexport PREFECT_API_KEY=secret\n", "PREFECT_API_KEY"),
        ("prefect.toml", '[api]\nurl = "http://elsewhere/api"\n', "api.url"),
        ("prefect.toml", "[api\n", "damaged"),
        ("pyproject.toml", "[tool.prefect.tasks]\ndefault_retries = 3\n", "tasks.default_retries"),
    ],
)
def test_files_that_prefect_reads_are_told_without_their_values(
    name: str, content: str, told: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)

    finding = ambient_settings.settings({}, tmp_path)

    assert finding.state == "attention"
    assert f"{tmp_path / name} ({told})" in finding.what
    assert "secret" not in finding.what
    assert "another folder" in finding.to_do


@pytest.mark.parametrize("content", ["", "A=1\n", "[project]\nname = 'x'\n", b"\xff\xfe"])
def test_files_that_tell_prefect_nothing_are_no_matter(
    content: str | bytes, tmp_path: Path
) -> None:
    for name in (".env", "pyproject.toml"):
        raw = content if isinstance(content, bytes) else content.encode()
        (tmp_path / name).write_bytes(raw)

    assert ambient_settings.settings({}, tmp_path).state == "ok"


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"),
        ("MLFLOW_TRACKING_URI", "databricks"),
        ("MLFLOW_TRACKING_URI", "./mlruns"),
        ("PREFECT_API_URL", "127.0.0.1:4200/api"),
    ],
)
def test_an_address_that_is_none_is_refused_before_anything_is_started(
    variable: str, value: str, atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(local_servers, "_start", lambda *_: pytest.fail("a server was started"))

    with pytest.raises(background_processes.StackError, match=f"{variable} is .*unset it"):
        local_servers.ensure_servers()


def test_addresses_may_end_in_slashes_or_blanks(
    atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []
    monkeypatch.setenv("PREFECT_API_URL", " http://127.0.0.1:1/api/ ")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:2/")
    monkeypatch.setattr(local_servers, "is_healthy", lambda *each: bool(asked.append(each)) or True)

    urls = local_servers.ensure_servers()

    assert urls == {"prefect": "http://127.0.0.1:1", "mlflow": "http://127.0.0.1:2"}
    assert set(asked) == set(urls.items())
    assert os.environ["PREFECT_API_URL"] == "http://127.0.0.1:1/api"
    assert os.environ["MLFLOW_TRACKING_URI"] == "http://127.0.0.1:2"


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("SSL_CERT_FILE", "/not/there", "No such file"),
        ("SSL_CERT_FILE", "/etc/hostname", "no certificate"),
        ("PREFECT_API_SSL_CERT_FILE", "/", "Is a directory"),
        ("SSLKEYLOGFILE", "/not/there/keys", "its folder is not there"),
    ],
)
def test_a_file_without_which_no_client_starts_is_named_and_the_doctor_goes_on(
    name: str,
    value: str,
    why: str,
    atelier_home: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Prefect's client reads it whatever it asks; what came of it blamed the home."""
    monkeypatch.setenv(name, value)

    assert main(["status"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"atelier: {name} is '{value}': ")
    assert why in said
    assert len(said.splitlines()) == 1

    assert main(["doctor"]) == 1
    told = capsys.readouterr()
    assert f"FAILED     values: {name} is '{value}'" in told.out
    assert "Traceback" not in told.err


def test_certificates_that_can_be_read_are_no_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    environment = {"SSL_CERT_FILE": certifi.where(), "SSLKEYLOGFILE": "keys"}

    assert ambient_settings.unusable_files(environment) == {}
    assert ambient_settings.unusable_files({"SSL_CERT_FILE": ""}) == {}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("PREFECT_LOGGING_LEVEL", "LOUD", "Prefect's setting level (LoggingSettings) cannot be: "),
        ("MLFLOW_HTTP_REQUEST_TIMEOUT", "soon", "MLFLOW_HTTP_REQUEST_TIMEOUT has a value that "),
    ],
)
def test_a_setting_that_a_library_cannot_read_is_told_without_a_traceback(
    name: str, value: str, said: str, tmp_path: Path
) -> None:
    script = (
        "import sys\nfrom atelier import __main__ as m\n"
        "def look():\n"
        "    import flows.full_run\n    from mlflow import MlflowClient\n"
        "    MlflowClient('http://127.0.0.1:9').search_experiments()\n"
        "import atelier.cli.services as s\n"
        "s._status = lambda _: look()\n"
        "sys.exit(m.main(['status']))\n"
    )
    environment = {**os.environ, name: value, "ATELIER_HOME": str(tmp_path / "home")}

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        check=False,
    )

    assert done.returncode == 2, done.stderr
    assert done.stderr.splitlines()[-1].startswith(f"atelier: {said}")
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_what_the_libraries_read_is_what_was_set(tmp_path: Path) -> None:
    """Under other names, from files, and with a profile that does not exist."""
    (tmp_path / "prefect.toml").write_text("[tasks]\ndefault_retries = 3\n")
    (tmp_path / ".env").write_text("PREFECT_FLOWS_DEFAULT_RETRIES=4\n")
    script = (
        "from atelier.services import process_settings; process_settings.apply_settings()\n"
        "from prefect.settings import get_current_settings\n"
        "s = get_current_settings()\n"
        "print(s.tasks.default_retries, s.flows.default_retries, s.results.persist_by_default)\n"
        "print(s.server.ephemeral.enabled, s.results.default_serializer)\n"
        "from prefect.client.orchestration import get_client\n"
        "try:\n    get_client(sync_client=True)\n"
        "except ValueError as error:\n    print(error)\n"
    )
    ours = ("ATELIER_", "PREFECT_", "MLFLOW_")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    environment = {**clean, **STRAYS, "ATELIER_HOME": str(tmp_path / "home")}

    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**environment, "PYTHONPATH": str(ROOT)},
        check=False,
    )

    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[:2] == ["0 0 False", "False json"]
    assert "No Prefect API URL provided" in lines[2]
