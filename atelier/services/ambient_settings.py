"""Settings of MLflow and Prefect that lie about in a shell or a folder, and would change results.

Three kinds: what this project's guarantees rest on is set whatever was there before; what would
redirect a call that names its own place, or send our servers astray, is dropped; the rest is a
person's to set, and stays. Which of them were found is what `atelier doctor` tells.
"""

import re
import ssl
import tempfile
import tomllib
from collections.abc import Mapping, MutableMapping
from pathlib import Path

from atelier.services.finding import Finding
from tasks.store.files import BadInput, home, sqlite_address

SET = {
    # What is unchanged is known by `tasks.store.fingerprint`; a policy of `tasks.runtime.retries`
    # says the rest.
    "PREFECT_FLOWS_DEFAULT_RETRIES": "0",
    "PREFECT_TASKS_DEFAULT_RETRIES": "0",
    "PREFECT_RESULTS_PERSIST_BY_DEFAULT": "false",
    "PREFECT_TASKS_DEFAULT_PERSIST_RESULT": "false",
    "PREFECT_RESULTS_DEFAULT_SERIALIZER": "json",
    # Without an address Prefect starts a server of its own, on the database of ours.
    "PREFECT_SERVER_EPHEMERAL_ENABLED": "false",
    # A number counts as told when MLflow has it, and not when a thread means to send it.
    "MLFLOW_ENABLE_ASYNC_LOGGING": "false",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    # What a version needs is what `tasks.packaging.package` lists; both would look for more.
    "MLFLOW_LOCK_MODEL_DEPENDENCIES": "false",
    "MLFLOW_UV_AUTO_DETECT": "false",
}
"""What is set, whatever it was."""

_ALIASES = {
    "PREFECT_FLOW_DEFAULT_RETRIES": "PREFECT_FLOWS_DEFAULT_RETRIES",
    "PREFECT_TASK_DEFAULT_RETRIES": "PREFECT_TASKS_DEFAULT_RETRIES",
    "PREFECT_SERVER_ALLOW_EPHEMERAL_MODE": "PREFECT_SERVER_EPHEMERAL_ENABLED",
}
"""Older names that Prefect still reads."""

DROPPED = {
    **dict.fromkeys(
        ("MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"),
        "all runs and models go to the experiment 'atelier'",
    ),
    "MLFLOW_REGISTRY_URI": "versions are kept where the runs are",
    **dict.fromkeys(
        ("MLFLOW_RUN_ID", "MLFLOW_ACTIVE_MODEL_ID", "_MLFLOW_ACTIVE_MODEL_ID"),
        "every number names its own run",
    ),
    "MLFLOW_RUN_CONTEXT": "runs have the tags that we give them",
    **dict.fromkeys(
        ("PREFECT_RESULTS_DEFAULT_STORAGE_BLOCK", "PREFECT_DEFAULT_RESULT_STORAGE_BLOCK"),
        "Prefect stores no results",
    ),
    **dict.fromkeys(("PREFECT_TEST_MODE", "PREFECT_TESTING_TEST_MODE"), "this is no test"),
    "PREFECT_PROFILE": "this home has its own profiles",
    **dict.fromkeys(
        (
            *("MLFLOW_ARTIFACTS_ONLY", "MLFLOW_DEFAULT_ARTIFACT_ROOT", "MLFLOW_SERVE_ARTIFACTS"),
            *("MLFLOW_STATIC_PREFIX", "MLFLOW_UVICORN_OPTS", "MLFLOW_GUNICORN_OPTS"),
            *("MLFLOW_HOST", "MLFLOW_PORT", "MLFLOW_REGISTRY_STORE_URI"),
            *("MLFLOW_READ_REPLICA_BACKEND_STORE_URI", "MLFLOW_WORKSPACE_STORE_URI"),
            *("PREFECT_SERVER_API_BASE_PATH", "PREFECT_UI_SERVE_BASE"),
            *("PREFECT_SERVER_UI_SERVE_BASE", "PREFECT_SERVER_API_HOST", "PREFECT_SERVER_API_PORT"),
        ),
        "the servers are started by this program, at addresses of its own",
    ),
}
"""What is taken out of the environment, and why it must not count."""

_WORKSPACES = ("MLFLOW_ENABLE_WORKSPACES", "MLFLOW_WORKSPACE")
"""Meant for a server of a person's own: ours has none, and would put all into another place."""

_MODEL_CODE = "MLFLOW_ALLOW_MODEL_CODE_EXECUTION"
"""MLflow 3.18's: where it is false, no pyfunc is loaded, and every version of ours is one."""

_SERVICE = re.compile("PREFECT_(SERVER|API)_SERVICES_.*_ENABLED")

_PLAIN_TEMPORARY = "/tmp"
_DATABASE_PARTS = ("CONNECTION_URL", "DRIVER", "HOST", "NAME")
_FILES = (".env", "prefect.toml", "pyproject.toml")
_CERTIFICATES = ("SSL_CERT_FILE", "PREFECT_API_SSL_CERT_FILE")
_KEY_LOG = "SSLKEYLOGFILE"


def settle(environment: MutableMapping[str, str]) -> None:
    """Set what must be set in an environment, and drop what must not count."""
    unwanted = {*DROPPED, *_ALIASES, *SET, *_stray_workspaces(environment)}
    for name in [each for each in environment if _read_as(each) in unwanted]:
        del environment[name]
    environment.update(SET)
    if _is_misread(environment):
        environment["TMPDIR"] = _PLAIN_TEMPORARY
        tempfile.tempdir = None  # it may have been looked up already


def check_files(environment: Mapping[str, str]) -> None:
    """Raise BadInput for a file that Prefect's client reads at its start, and cannot.

    Whom a person trusts is not ours to decide, so such a setting is not dropped.
    """
    for name, why in unusable_files(environment).items():
        raise BadInput(f"{name} is {environment[name]!r}: {why}; correct it, or unset it")


def unusable_files(environment: Mapping[str, str]) -> dict[str, str]:
    """The variables with whose files Prefect's client would not start, each with the reason.

    It reads them whatever it asks, a server on loopback too.
    """
    found = {}
    for name in filter(environment.get, _CERTIFICATES):
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(environment[name])
        except OSError as error:
            found[name] = f"no file of certificates ({error.strerror or error})"
    if environment.get(_KEY_LOG) and not Path(environment[_KEY_LOG]).parent.is_dir():
        found[_KEY_LOG] = "its folder is not there"
    return found


def settings(environment: Mapping[str, str], folder: Path) -> Finding:
    """No setting of MLflow's or Prefect's lies about that this program has to overrule.

    environment: as it was found; folder: the working directory, whose files Prefect reads.
    """
    overruled = [
        f"{name} ({why})" for name in sorted(environment) if (why := DROPPED.get(_read_as(name)))
    ]
    for name, value in sorted(environment.items()):
        wanted = SET.get(_ALIASES.get(_read_as(name), _read_as(name)))
        if wanted is not None and value.strip().lower() not in (wanted, _as_digit(wanted)):
            overruled.append(f"{name}={value} (it is always {wanted} here)")
    if _is_misread(environment):
        reason = f"MLflow takes its %.. for another character, so {_PLAIN_TEMPORARY} is used"
        overruled.append(f"TMPDIR={environment['TMPDIR']} ({reason})")
    read = [f"{folder / name} ({what})" for name in _FILES if (what := _said_in(folder / name))]
    overruled += [f"{name} (our servers have none)" for name in _stray_workspaces(environment)]
    off = _services_off(environment)
    refuses = _is_false(environment.get(_MODEL_CODE, ""))
    if not overruled and not read and not off and not refuses:
        return Finding(name="settings", state="ok", what="no stray one of MLflow or Prefect")
    found, steps = [], []
    if overruled:
        found.append(f"not heeded: {', '.join(overruled)}")
        steps.append("unset them, so that nobody expects them to count")
    if off:
        found.append(f"a part of Prefect's server is off: {', '.join(off)}")
        steps.append("unset what turns it off, and restart it")
    if refuses:
        found.append(f"{_MODEL_CODE}={environment[_MODEL_CODE]}: MLflow 3.18 loads no version then")
        steps.append("unset it: the files of a version are compared before its code is run")
    if read:
        found.append(f"Prefect reads {', '.join(read)}")
        steps.append("start `atelier` in another folder, or take them out")
    what, to_do = "; ".join(found), "; ".join(steps)
    return Finding(name="settings", state="attention", what=what, to_do=to_do)


def unreadable(error: Exception) -> str:
    """What keeps Prefect or MLflow from reading a setting, by their error and without its value.

    Empty where the error is of another kind.
    """
    to_do = "correct it, or unset it: `atelier doctor` names the files that are read, too"
    if type(error).__module__.startswith("pydantic") and getattr(error, "title", "").endswith(
        "Settings"
    ):
        first = error.errors()[0]  # type: ignore[attr-defined]
        name = " ".join(map(str, first["loc"]))
        return f"Prefect's setting {name} ({error.title}) cannot be: {first['msg']}; {to_do}"  # type: ignore[attr-defined]
    found = re.search(r" for (MLFLOW_\w+)(: .*)?$", str(error))
    if isinstance(error, ValueError) and found:
        return f"{found[1]} has a value that MLflow cannot read; {to_do}"
    return ""


def prefect_database(environment: Mapping[str, str]) -> dict[str, str]:
    """Where Prefect's server keeps its tables, unless a person says so in one of several ways.

    Its own default is the same file, but in an address in which no character is escaped.
    """
    ways = [f"PREFECT_{of}_DATABASE_{part}" for of in ("SERVER", "API") for part in _DATABASE_PARTS]
    if any(environment.get(name) for name in ways):
        return {}
    file = Path(environment.get("PREFECT_HOME", home() / "prefect")) / "prefect.db"
    address = sqlite_address(file, "sqlite+aiosqlite")
    return {"PREFECT_SERVER_DATABASE_CONNECTION_URL": address}


def _read_as(name: str) -> str:
    """The name by which a library knows a variable: Prefect reads them in any case."""
    return name.upper() if name.upper().startswith("PREFECT_") else name


def _stray_workspaces(environment: Mapping[str, str]) -> list[str]:
    """The settings of workspaces, where no server of a person's own is named."""
    names = () if environment.get("MLFLOW_TRACKING_URI") else _WORKSPACES
    return [name for name in names if environment.get(name)]


def _services_off(environment: Mapping[str, str]) -> list[str]:
    """The settings that stop a part of Prefect's server: schedules, triggers, records of tasks."""
    return [
        name
        for name, value in sorted(environment.items())
        if _SERVICE.fullmatch(_read_as(name)) and _is_false(value)
    ]


def _is_false(value: str) -> bool:
    return value.strip().lower() in ("false", "0", "no", "off", "f")


def _is_misread(environment: Mapping[str, str]) -> bool:
    """Whether MLflow would look elsewhere for what it has put into the temporary folder."""
    return re.search("%[0-9A-Fa-f]{2}", environment.get("TMPDIR", "")) is not None


def _as_digit(truth: str) -> str:
    """How else a false value may be spelled."""
    return {"false": "0", "0": "0"}.get(truth, truth)


def _said_in(path: Path) -> str:
    """What a file tells Prefect, in a few words; nothing where it tells none."""
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError):
        return ""
    if path.name == ".env":
        names = [
            line.partition("=")[0].removeprefix("export ").strip() for line in text.split("\n")
        ]
        return ", ".join(name for name in names if name.upper().startswith("PREFECT_"))
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError:
        return "damaged" if path.name == "prefect.toml" else ""
    told = table if path.name == "prefect.toml" else table.get("tool", {}).get("prefect", {})
    return ", ".join(_dotted(told))


def _dotted(table: Mapping[str, object], prefix: str = "") -> list[str]:
    found = []
    for name, value in table.items():
        inner = isinstance(value, Mapping)
        found += _dotted(value, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]  # type: ignore[arg-type]
    return found
