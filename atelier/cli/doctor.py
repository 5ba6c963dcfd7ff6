"""`atelier doctor`: what is wrong here, and what to do about it."""

import argparse
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from atelier.cli import repair
from atelier.cli.options import Commands
from atelier.diagnostics import access_checks, installation, machine, server_checks, shared_store
from atelier.services import ambient_settings, local_servers, process_settings, server_records
from atelier.services.finding import Finding
from atelier.services.private_home import check_place
from atelier.services.server_requests import ask_mlflow, ask_prefect
from tasks.runtime import stopping
from tasks.runtime.markup import plain
from tasks.runtime.messages import one_line
from tasks.store.files import BadInput, home, project_file

MARKS = {"ok": "ok       ", "attention": "attention", "failed": "FAILED   "}

Found = Finding | list[Finding] | None
Check = tuple[str, Callable[[], Found]]
"""A check's name, and how to make it; it gives None where it cannot be made without a server."""


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    doctor = commands.add_parser("doctor", help="what is wrong here, and what to do about it")
    doctor.add_argument("--verbose", action="store_true", help="tell what is well, too")
    doctor.add_argument(
        "--repair",
        nargs="*",
        metavar="MODEL=WAY",
        help="what registry and audit logs disagree in: list the ways out, or go those named",
    )
    # It must speak where nothing can be written, and judge the environment as it was found.
    doctor.set_defaults(command=_doctor, applies_settings=False)


def _doctor(options: argparse.Namespace) -> int:
    check_place()  # without one no check can be made
    if options.repair is not None:
        process_settings.apply_settings()
        return repair.repair(options.repair)
    findings: list[Finding] = []
    left_out = []
    try:
        for name, found in _made(_checks(dict(os.environ))):
            if found is None:
                left_out.append(name)
                continue
            findings += found
            for finding in found:
                _print_finding(finding, options.verbose)
    except KeyboardInterrupt:
        stopping.end_at_once()  # a check that waits for a server need not be waited for
    wrong = sum(finding.state != "ok" for finding in findings)
    print(_last_line(len(findings), wrong, left_out))
    return 1 if wrong else 0


def _print_finding(finding: Finding, is_verbose: bool) -> None:
    if is_verbose or finding.state != "ok":
        print(f"{MARKS[finding.state]}  {finding.name}: {plain(finding.what)}", flush=True)
        if finding.to_do:
            print(f"{'':9}  -> {plain(finding.to_do)}", flush=True)


def _last_line(number: int, wrong: int, left_out: list[str]) -> str:
    """What there is to do, and what nobody has looked at."""
    needs = f"{wrong or 'none'} need{'' if wrong > 1 else 's'} attention"
    if not left_out:
        return f"{number} checks, {needs}"
    return (
        f"{number} checks, {needs}; not made, for the servers do not answer: {', '.join(left_out)}"
    )


def _made(checks: list[Check]) -> Iterator[tuple[str, list[Finding] | None]]:
    """What the checks find, in their order; they are made side by side, for most of them wait."""
    pool = ThreadPoolExecutor(max_workers=8)
    names = [name for name, _ in checks]
    yield from zip(names, pool.map(lambda each: _run_check(*each), checks), strict=True)
    pool.shutdown()


def _checks(environment: dict[str, str]) -> list[Check]:
    """All checks: of the machine, of the home, and of what the servers know."""
    place = home()
    checks: list[Check] = [
        ("values", _settings()),
        ("python", installation.python_version),
        ("versions", lambda: installation.version_bounds(project_file("pyproject.toml"))),
        ("lock file", lambda: installation.lock_drift(project_file("requirements.lock"))),
        ("threads", lambda: installation.threads(environment, installation.usable_cores())),
        ("settings", lambda: ambient_settings.settings(environment, Path.cwd())),
        ("proxies", lambda: machine.proxies(environment)),
        ("open files", machine.open_files),
        ("home", lambda: machine.is_writable(place)),
        ("device", _device),
    ]
    if machine.is_writable(place).state != "ok":
        return checks
    return [
        *checks,
        ("home's privacy", lambda: access_checks.private_home(place)),
        ("secret", access_checks.secret_file),
        ("disk", lambda: installation.disk_space(place)),
        ("room", lambda: machine.room(place, Path(tempfile.gettempdir()))),
        ("clock", lambda: machine.clock(place)),
        ("strays", lambda: machine.strays(place)),
        ("schedules", _schedules),
        (shared_store.NAME, shared_store.shared_store),
        ("half-written files", lambda: installation.orphaned_temp_files(place)),
        *_database_checks(place),
        ("servers", lambda: server_checks.servers(local_servers.servers(), str(place))),
        ("guard", _guard),
        ("port 4200", lambda: installation.port(4200, "Prefect", _our_processes())),
        ("port 5000", lambda: installation.port(5000, "MLflow", _our_processes())),
        ("MLflow experiment", partial(_of_mlflow, server_checks.experiment)),
        ("MLflow runs", partial(_of_mlflow, server_checks.dead_tracking_runs)),
        ("Prefect runs", partial(_of_prefect, server_checks.stuck_flow_runs)),
        ("slots", partial(_of_prefect, server_checks.orphan_slots)),
        ("audit logs", _audit_logs),
    ]


def _settings() -> Callable[[], Found]:
    """Make the settings; what is looked at must not be asked for through a proxy, nor elsewhere."""
    finding = Finding(name="values", state="ok", what="every setting of ours can be")
    try:
        process_settings.apply_settings(makes_files=False)
    except BadInput as error:
        finding = Finding(
            name="values", state="failed", what=str(error), to_do="correct it, or unset it"
        )
        for name in ambient_settings.unusable_files(os.environ):  # other checks go on without
            del os.environ[name]
    except OSError:  # other checks name it
        pass
    return lambda: finding


def _database_checks(place: Path) -> list[Check]:
    files = (place / "prefect" / "prefect.db", place / "mlflow.db")
    return [(f"database {path.name}", partial(installation.database, path)) for path in files]


def _our_processes() -> list[int]:
    return [server.pid for server in server_records.recorded().values()]


def _guard() -> Finding:
    return access_checks.guarded_servers(server for server, _ in local_servers.servers())


def _audit_logs() -> list[Finding] | None:
    """From the registry's server where one is named or up, else from its database."""
    if local_servers.named_address("mlflow") and not local_servers.address_of("mlflow"):
        return None
    return list(repair.disagreements())


def _schedules() -> Finding:
    """A person's own can be read, and so can the data that they name."""
    if not os.path.lexists(home() / "schedules.yaml"):
        return Finding(name="schedules", state="ok", what="none of your own")
    from atelier.deployment.own_schedules import missing_sources, own_entries

    try:
        entries = own_entries()
    except BadInput as error:
        return Finding(
            name="schedules",
            state="failed",
            what=str(error),
            to_do=f"correct {home() / 'schedules.yaml'}, or remove it; `atelier up` does not begin"
            " with it as it is",
        )
    if wrong := [line for entry in entries for line in missing_sources(entry)]:
        to_do = "put the data back, or `atelier schedule --remove NAME`"
        return Finding(name="schedules", state="attention", what="; ".join(wrong), to_do=to_do)
    return Finding(name="schedules", state="ok", what=f"{len(entries)} of your own can run")


def _device() -> Finding:
    if installation.gpus():  # importing torch takes seconds, and without one it has no choice
        from tasks.training.device import training_device

        return installation.device(training_device().type)
    return installation.device("cpu")


def _of_mlflow(check: Callable[[server_checks.Ask], Finding]) -> Finding | None:
    address = local_servers.address_of("mlflow")
    return check(partial(ask_mlflow, address)) if address else None


def _of_prefect(check: Callable[[server_checks.Ask], Finding]) -> Finding | None:
    address = local_servers.address_of("prefect")
    return check(partial(ask_prefect, address)) if address else None


def _run_check(name: str, check: Callable[[], Found]) -> list[Finding] | None:
    """A check's findings; that it cannot be made is a finding too."""
    try:
        found = check()
        return [found] if isinstance(found, Finding) else found
    except Exception as error:
        reason = one_line(error)
        finding = Finding(
            name=name,
            state="attention",
            what=f"could not be checked: {type(error).__name__}: {reason}",
            to_do="see whether the servers answer: `atelier status`",
        )
        return [finding]
