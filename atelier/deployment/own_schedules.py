"""Schedules of a person's own: `schedules.yaml` in the home, beside the project's `prefect.yaml`.

Both have the same form and are checked by the same schema. `atelier schedule` writes the one in the
home, and a person may edit it; whoever changes it holds the lock of `atelier up`.
"""

import asyncio
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from datetime import datetime
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from zoneinfo import available_timezones

import yaml
from prefect.server.schemas.schedules import CronSchedule

from atelier.deployment.schema import (
    OUR_TAG,
    DeploymentEntry,
    OwnDeploymentFile,
    check_entry,
    read_deployments,
)
from tasks.data.source_address import source_address
from tasks.data.sources import find_source
from tasks.runtime.markup import code
from tasks.store.files import BadInput, home, project_file, remove, write_text

FILE = "schedules.yaml"
OWN_TAG = "own-schedule"
"""What sets a person's own apart from the project's in the Prefect UI."""

_HEADER = """\
# Schedules of your own, in the form of the project's prefect.yaml. `atelier schedule` writes this
# file anew, so comments do not stay; `atelier up` checks it and applies it.
"""
_OWNER_ONLY = 0o600
_LONGEST_NAME = 60
_WANTED_CRON = (
    "wanted minute, hour, day, month and weekday, such as '0 3 * * *', or a word like @daily"
)


def path_of_file() -> Path:
    """Where they are kept."""
    return home() / FILE


def all_entries() -> list[DeploymentEntry]:
    """The deployments of prefect.yaml, and a person's own; raises BadInput with all mistakes."""
    projects = read_deployments(project_file("prefect.yaml"))
    return [*projects, *own_entries(projects)]


def own_entries(projects: Sequence[DeploymentEntry] | None = None) -> list[DeploymentEntry]:
    """A person's own deployments; raises BadInput with all mistakes.

    projects: those of prefect.yaml, by default as that file has them, whose names nobody else has.
    """
    if not os.path.lexists(path_of_file()):
        return []
    if projects is None:
        projects = read_deployments(project_file("prefect.yaml"))
    return read_deployments(path_of_file(), OwnDeploymentFile, _names(projects))


def new_entry(
    name: str,
    timing: Mapping[str, str],
    words: Sequence[str],
    *,
    entrypoint: str,
    parameters: Mapping[str, Any],
    tags: Sequence[str],
    queue: str,
) -> DeploymentEntry:
    """An entry that runs a command's flow; raises BadInput for what its flow would refuse.

    timing: see `checked_timing`; words: of the command, for people; parameters: of the flow, of
    which those that are its defaults are left out, so that they follow the program.
    """
    if not re.fullmatch(rf"[a-z][a-z0-9-]{{0,{_LONGEST_NAME - 1}}}", name):
        raise BadInput(
            f"a schedule cannot be called {name!r:.80}; wanted a-z, 0-9 and dashes, a letter first,"
            f" at most {_LONGEST_NAME} of them"
        )
    projects = read_deployments(project_file("prefect.yaml"))
    if name in _names(projects):
        raise BadInput(f"prefect.yaml has a deployment {name!r} already; give yours another --name")
    content = {
        "name": name,
        "entrypoint": entrypoint,
        "description": code(shlex.join(["atelier", *words])),
        "tags": [OUR_TAG, *tags, OWN_TAG],
        "version": projects[0].version,
        "concurrency_limit": {"limit": 1, "collision_strategy": "ENQUEUE"},
        "schedules": [{**timing, "active": True}],
        "work_pool": {"name": OUR_TAG, "work_queue_name": queue},
    }
    bare = check_entry(content)
    defaults = {key: each.get("default") for key, each in _form(bare).items()}
    given = {key: _plain(key, value) for key, value in parameters.items()}
    kept = {key: value for key, value in given.items() if value != defaults.get(key)}
    return check_entry({**content, "parameters": kept})


def _form(entry: DeploymentEntry) -> dict[str, Any]:
    properties: dict[str, Any] = entry.flow().parameters.model_dump(mode="json")["properties"]
    return properties


def _plain(name: str, value: Any) -> Any:
    """A parameter as YAML and JSON have it."""
    try:
        str(value).encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            f"{name} is {value!a:.80}, which is not UTF-8; no schedule keeps it"
        ) from error
    return list(value) if isinstance(value, tuple) else value


def command_of(entry: DeploymentEntry) -> str:
    """The command that an entry stands for, or whatever a person described it by."""
    return entry.description.strip("`").strip()


def _names(entries: Sequence[DeploymentEntry]) -> set[str]:
    return {entry.name for entry in entries}


def keep(entry: DeploymentEntry) -> DeploymentEntry | None:
    """Write an entry into the file; returns the one of the same name that it replaces."""
    entries = {each.name: each for each in own_entries()}
    before = entries.get(entry.name)
    entries[entry.name] = entry
    _write(list(entries.values()))
    return before


def drop(name: str) -> DeploymentEntry:
    """Take an entry out of the file and return it; raises BadInput where there is none."""
    entries = {each.name: each for each in own_entries()}
    if name not in entries:
        known = ", ".join(entries) or "none"
        raise BadInput(f"there is no schedule {name!r} of your own; there are: {known}")
    found = entries.pop(name)
    _write(list(entries.values()))
    return found


def _write(entries: Sequence[DeploymentEntry]) -> None:
    """The whole file; without entries there is none."""
    if not entries:
        remove(path_of_file())
        return
    plain = [entry.model_dump(mode="json", exclude_defaults=True) for entry in entries]
    content = {"name": OUR_TAG, "pull": [], "deployments": plain}
    told = yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)
    write_text(path_of_file(), _HEADER + told, _OWNER_ONLY)


# When ----------------------------------------------------------------------------------------


def checked_timing(cron: str, timezone: str | None) -> dict[str, str]:
    """When runs begin, as an entry says it; raises BadInput for what never comes.

    timezone: an IANA name, by default the machine's.
    """
    zone = machine_timezone() if timezone is None else timezone
    if zone not in available_timezones():
        near = get_close_matches(zone, available_timezones(), 3)
        such = ", ".join(near) or "Europe/Berlin, UTC"
        raise BadInput(f"{zone!r:.80} is no timezone; wanted an IANA name, such as {such}")
    words = cron.split()
    if len(words) != (1 if cron.startswith("@") else 5):  # a sixth field would count seconds
        raise BadInput(f"{cron!r:.80} is no cron schedule of five fields; {_WANTED_CRON}")
    told = " ".join(words)
    try:
        _next_of(told, zone)
    except Exception as error:  # croniter, which Prefect brings along, and pydantic have their own
        never = "BadDate" in type(error).__name__
        why = "names a day that never comes" if never else "is no cron schedule"
        raise BadInput(f"{cron!r:.80} {why}; {_WANTED_CRON}") from error
    return {"cron": told, "timezone": zone}


def machine_timezone() -> str:
    """The machine's timezone by its IANA name; UTC where it tells none."""
    told = [os.environ.get("TZ", "").removeprefix(":")]
    local = Path("/etc/localtime")
    if local.exists():
        told.append(str(local.resolve()).rpartition("/zoneinfo/")[2])
    known = available_timezones()
    return next((name for name in told if name in known), "UTC")


def when(entry: DeploymentEntry) -> str:
    """The schedules of an entry in words."""
    return "; ".join(
        f"{each.cron} ({each.timezone})"
        if each.cron
        else f"every {each.interval} s"
        if each.interval
        else f"{each.rrule}"
        for each in entry.schedules
    )


def next_run(entry: DeploymentEntry) -> datetime | None:
    """When the next run is due; None where all is switched off, or no cron says when."""
    times = [
        _next_of(each.cron, each.timezone or "UTC")
        for each in entry.schedules
        if each.cron and each.active
    ]
    return min(times, default=None)


def _next_of(cron: str, timezone: str) -> datetime:
    """By the server's own code, which knows about the nights in which clocks are changed."""
    schedule = CronSchedule(cron=cron, timezone=timezone)
    return asyncio.run(schedule.get_dates(1))[0]


# What they need ------------------------------------------------------------------------------


def missing_sources(entry: DeploymentEntry) -> list[str]:
    """What is wrong now with the data that an entry names."""
    given = entry.parameters
    found = []
    for kind in ("images", "text"):
        source = given.get(kind)
        if isinstance(source, str) and source_address(source).scheme:
            try:
                find_source(source, kind)
            except BadInput as error:
                found.append(f"{entry.name}: {error}")
    return found
