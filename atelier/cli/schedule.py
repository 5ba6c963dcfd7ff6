"""`atelier schedule`: commands that run by themselves, kept in the home beside prefect.yaml."""

import argparse
import os
from typing import TYPE_CHECKING, Any

from atelier.cli.options import Commands, FlowCall
from atelier.cli.services import alone, applied_lines
from atelier.cli.tables import print_table
from atelier.services import local_servers
from atelier.services.server_requests import ask_prefect
from tasks.data.source_address import source_address
from tasks.runtime.markup import plain
from tasks.store.files import BadInput

if TYPE_CHECKING:
    from atelier.deployment.schema import DeploymentEntry

_USAGE = "wanted: atelier schedule CRON --name NAME -- COMMAND ..., --list, or --remove NAME"
_NOT_UP = "`atelier up` puts it to work"


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    schedule = commands.add_parser(
        "schedule",
        usage="atelier schedule CRON --name NAME [--timezone TZ] -- COMMAND ...\n"
        "       atelier schedule --list | --remove NAME",
        help="let a command run by itself: atelier schedule '0 3 * * *' --name pets -- run ...",
        description="What follows `--` is a command, run, search or sample, with its options; it is"
        " checked as if it were run now. The schedule is written into schedules.yaml of the home,"
        " which `atelier up` applies beside prefect.yaml. Where it is up, that is done at once.",
    )
    schedule.keeps_rest = True
    schedule.add_argument(
        "cron",
        nargs="?",
        metavar="CRON",
        help="minute, hour, day, month and weekday, in quotation marks, or @hourly, @daily, ...",
    )
    schedule.add_argument(
        "--name", metavar="NAME", help="of the deployment; one of yours of that name is replaced"
    )
    schedule.add_argument(
        "--timezone",
        metavar="TZ",
        help="in which CRON is meant, such as Europe/Berlin (default: this machine's; UTC where it"
        " has no name)",
    )
    what = schedule.add_mutually_exclusive_group()
    what.add_argument("--list", action="store_true", help="your schedules, and when they run next")
    what.add_argument("--remove", metavar="NAME", help="take one of your schedules away")
    schedule.set_defaults(command=_schedule, commands=commands.choices)


def _schedule(options: argparse.Namespace) -> int:
    adds = [each for each in (options.cron, options.name, options.timezone, options.rest) if each]
    if options.list or options.remove is not None:
        if adds:
            raise BadInput(f"--list and --remove go alone; {_USAGE}")
        return _list() if options.list else _remove(options.remove)
    missing = [
        what
        for what, value in (
            ("CRON", options.cron),
            ("--name NAME", options.name),
            ("-- COMMAND", options.rest),
        )
        if not value
    ]
    if missing:
        raise BadInput(f"{' and '.join(missing)} missing; {_USAGE}")
    return _add(options)


def _add(options: argparse.Namespace) -> int:
    call, parameters, sources = _parsed(options.rest, options.commands)
    words = [_with_sources(word, sources) for word in options.rest]
    url = _get_ready()
    from atelier.deployment.own_schedules import checked_timing, command_of, keep, new_entry, when

    timing = checked_timing(options.cron, options.timezone)
    with alone():
        entry = new_entry(
            options.name,
            timing,
            words,
            entrypoint=call.entrypoint,
            parameters=parameters,
            tags=call.tags,
            queue=call.queue,
        )
        before = keep(entry)
        if before is not None and before != entry:
            print(plain(f"replaced: {before.name}, {when(before)}, {command_of(before)}"))
        print(plain(f"{entry.name}: {when(entry)}, next {_next(entry)}, {command_of(entry)}"))
        _apply(url)
    return 0


def _parsed(
    words: list[str], commands: dict[str, argparse.ArgumentParser]
) -> tuple[FlowCall, dict[str, Any], dict[str, str]]:
    """The flow of a command, its parameters, and their sources as given by what they are now."""
    known = {name: each.get_default("flow") for name, each in commands.items()}
    call = known.get(words[0])
    if call is None:
        can = ", ".join(name for name, flow in known.items() if flow)
        raise BadInput(f"{words[0]!r:.80} cannot be scheduled; wanted, after --, one of: {can}")
    given = commands[words[0]].parse_args(words[1:])
    for name in ("prefect_port", "mlflow_port"):
        if getattr(given, name, None) is not None:
            flag = f"--{name.replace('_', '-')}"
            raise BadInput(f"{flag} is for servers that a command starts; give it to `atelier up`")
    parameters = call.parameters(given)
    absolute = {
        key: str(source_address(value))  # the worker runs in another folder
        for key, value in parameters.items()
        if key in ("images", "text") and isinstance(value, str)
    }
    sources = {getattr(given, key): value for key, value in absolute.items()}
    return call, {**parameters, **absolute}, sources


def _with_sources(word: str, sources: dict[str, str]) -> str:
    """A word of a command line that names data, as one that does so from every folder."""
    option, equals, value = word.partition("=")
    if word in sources:
        return sources[word]
    return f"{option}={sources[value]}" if equals and value in sources else word


def _get_ready() -> str:
    """The address of the Prefect server, if one is up; before anything of Prefect is imported."""
    url = local_servers.address_of("prefect")
    if url:
        os.environ["PREFECT_API_URL"] = f"{url}/api"
    return url


def _apply(url: str) -> None:
    """Let the server know at once, where `atelier up` has been; else say who does."""
    from atelier.deployment.own_schedules import all_entries
    from atelier.deployment.sync import is_applied

    if not url or not is_applied():
        print(f"not at work yet: {_NOT_UP}")
        return
    for line in applied_lines(all_entries()):
        print(plain(line), flush=True)


def _remove(name: str) -> int:
    url = _get_ready()
    from atelier.deployment.own_schedules import command_of, drop, when

    with alone():
        entry = drop(name)
        print(plain(f"removed {entry.name}: {when(entry)}, {command_of(entry)}"))
        if url:
            _apply(url)
    return 0


def _list() -> int:
    url = _get_ready()
    from atelier.deployment.own_schedules import command_of, own_entries, when

    entries = own_entries()
    if not entries:
        print("no schedules of your own; those of the project are in prefect.yaml")
        return 0
    at_work = _paused_ones(url, entries) if url else {}
    rows = [("name", "when", "next run", "command")]
    for entry in entries:
        state = at_work.get(entry.name)
        due = _NOT_UP if state is None else "paused in the Prefect UI" if state else _next(entry)
        rows.append((entry.name, when(entry), due, command_of(entry)))
    print_table(rows)
    return 0


def _paused_ones(url: str, entries: "list[DeploymentEntry]") -> dict[str, bool]:
    """Of those that the server knows, whether a person paused the deployment or its schedules."""
    body = {"deployments": {"name": {"any_": [entry.name for entry in entries]}}}
    found = ask_prefect(url, "deployments/filter", body)
    return {
        each["name"]: each["paused"] or not any(one["active"] for one in each["schedules"])
        for each in found
        if "atelier" in each["tags"]
    }


def _next(entry: "DeploymentEntry") -> str:
    """In the machine's own time, as `atelier status` tells it."""
    from atelier.deployment.own_schedules import next_run

    due = next_run(entry)
    return "not by itself" if due is None else due.astimezone().strftime("%Y-%m-%d %H:%M")
