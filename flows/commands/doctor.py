"""`atelier doctor`: what is wrong here, and what to do about it."""

import argparse
import os
from collections.abc import Callable, Iterator

from flows import health, local_stack
from flows.commands.options import Commands
from flows.health import Finding
from tasks.messages import one_line
from tasks.storage import BadInput, home, project_root

MARKS = {"ok": "ok       ", "attention": "attention", "failed": "FAILED   "}


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    doctor = commands.add_parser("doctor", help="what is wrong here, and what to do about it")
    doctor.add_argument("--verbose", action="store_true", help="tell what is well, too")
    # It must speak where nothing can be written, and judge the environment as it was found.
    doctor.set_defaults(command=_doctor, applies_settings=False)


def _doctor(options: argparse.Namespace) -> int:
    findings = []
    for finding in _findings():
        findings.append(finding)
        if options.verbose or finding.state != "ok":
            print(f"{MARKS[finding.state]}  {finding.name}: {finding.what}", flush=True)
            if finding.to_do:
                print(f"{'':9}  -> {finding.to_do}", flush=True)
    wrong = sum(finding.state != "ok" for finding in findings)
    print(f"{len(findings)} checks, {wrong or 'none'} of them need{'s' if wrong == 1 else ''} you")
    return 1 if wrong else 0


def _findings() -> Iterator[Finding]:
    """All findings; those that need the home or a server come last, if they can be had."""
    environment = dict(os.environ)
    yield health.python_version()
    for name, check in (
        ("versions", lambda: health.version_bounds(project_root() / "pyproject.toml")),
        ("lock file", lambda: health.lock_drift(project_root() / "requirements.lock")),
    ):
        yield _survived(name, check)
    yield health.threads(environment, health.usable_cores())
    place = health.writable_home(home())
    yield place
    if place.state != "ok":
        return
    yield health.disk_space(home())
    try:
        local_stack.apply_settings()
    except BadInput as error:
        yield Finding(name="settings", state="failed", what=str(error), to_do="correct or unset it")
        return
    except OSError:  # the checks below name it
        pass
    recorded = local_stack.servers()
    ours = [server.pid for server, _ in recorded]
    yield health.port(4200, "Prefect", ours)
    yield health.port(5000, "MLflow", ours)
    for path in (home() / "prefect" / "prefect.db", home() / "mlflow.db"):
        yield health.database(path)
    yield health.half_written(home())
    yield _survived("device", _device)
    yield from _server_findings(recorded)


def _device() -> Finding:
    from tasks.training.loop import training_device

    return health.device(training_device().type)


def _server_findings(recorded: list[tuple[local_stack.Server, bool]]) -> Iterator[Finding]:
    """What only healthy servers can tell, after whether they are healthy."""
    for server, is_healthy in recorded:
        variable = {"prefect": "PREFECT_API_URL", "mlflow": "MLFLOW_TRACKING_URI"}[server.name]
        if is_healthy:
            address = server.url + ("/api" if server.name == "prefect" else "")
            os.environ.setdefault(variable, address)
    from flows import server_health

    yield server_health.servers(recorded, str(home()))
    if "MLFLOW_TRACKING_URI" in os.environ:
        yield _survived("MLflow runs", server_health.dead_tracking_runs)
    if "PREFECT_API_URL" in os.environ:
        from prefect.client.orchestration import get_client

        with get_client(sync_client=True) as prefect:
            yield _survived("Prefect runs", lambda: server_health.stuck_flow_runs(prefect))
            yield _survived("slots", lambda: server_health.orphan_slots(prefect))


def _survived(name: str, check: Callable[[], Finding]) -> Finding:
    """A check's finding; one that cannot be made is a finding too."""
    try:
        return check()
    except Exception as error:
        reason = one_line(error)
        return Finding(
            name=name,
            state="attention",
            what=f"could not be checked: {type(error).__name__}: {reason}",
            to_do="see whether the servers answer: `atelier status`",
        )
