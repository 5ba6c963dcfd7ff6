"""Write the pages that only repeat the code: `python docs/reference.py`, as `make docs` does first.

docs/reference/cli.md from the parsers, settings.md from the configurations' dataclasses,
deployments.md from prefect.yaml. None is kept in git, so that none can be out of date.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from atelier.__main__ import _parser
from atelier.cli.help import GROUPS
from atelier.cli.settings import PRESETS, _toml
from models.presets import ImageShape, TextShape
from tasks.data.known_shapes import ASSUMED_TOKENS, ASSUMED_VOCABULARY
from tasks.data.sources import SOURCES
from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.settings.catalogue import Resolved, resolved, settings_of
from tasks.store.files import project_file

FOLDER = Path(__file__).resolve().parent / "reference"
USAGE_WIDTH = 88


def cli_page() -> str:
    """Each command with its options, under the headings of `atelier --help`."""
    parser = _parser()
    commands = parser.commands
    about = {each.dest: each.help for each in commands._choices_actions}
    lines = [
        "# Command line",
        "",
        "Made from the parsers, as `atelier COMMAND --help` is.",
        "Exit codes: 0 done; 1 a step failed; 2 what was asked for cannot be done as given;"
        " 130 stopped.",
        "`atelier --version` prints the version.",
        "A shell completes all of this: see [`atelier completion`](#atelier-completion).",
    ]
    for heading, names in GROUPS.items():
        lines += ["", f"## {heading}"]
        for name in names:
            lines += ["", *_command_lines(commands.choices[name], about[name] or "", 3)]
    return "\n".join(lines) + "\n"


def _command_lines(parser: argparse.ArgumentParser, about: str, level: int) -> Iterator[str]:
    yield f"{'#' * level} {parser.prog}"
    yield ""
    yield f"{about[:1].upper()}{about[1:]}."
    if parser.description:
        yield ""
        yield parser.description
    yield ""
    yield "```text"
    yield _usage(parser)
    yield "```"
    nested: list[Any] = []
    rows: list[str] = []
    for group in parser._action_groups:
        for action in group._group_actions:
            if isinstance(action, argparse._SubParsersAction):
                nested.append(action)
            elif not isinstance(action, argparse._HelpAction):
                rows.append(_option_row(action))
    if rows:
        yield from ("", "| Option | Meaning |", "|---|---|", *rows)
    for action in nested:
        told = {each.dest: each.help or "" for each in action._choices_actions}
        for name, each in action.choices.items():
            yield ""
            yield from _command_lines(each, told[name], level + 1)


def _usage(parser: argparse.ArgumentParser) -> str:
    """Without colours, at one width."""
    formatter = argparse.HelpFormatter(parser.prog, width=USAGE_WIDTH)
    shown = [each for each in parser._actions if not isinstance(each, argparse._HelpAction)]
    formatter.add_usage(parser.usage, shown, parser._mutually_exclusive_groups, prefix="")
    return formatter.format_help().strip().replace("%(prog)s", parser.prog)


def _option_row(action: argparse.Action) -> str:
    names = list(action.option_strings)
    value = "|".join(map(str, action.choices)) if action.choices else action.metavar
    value = str(value or action.dest.upper())
    if names and action.nargs != 0:
        names[-1] += f" [{value}]" if action.nargs == "?" else f" {value}"
    said = (action.help or "") % {**vars(action), "prog": "atelier"}
    if isinstance(action.default, (str, int)) and not isinstance(action.default, bool):
        is_told = "default" in said or action.default == argparse.SUPPRESS
        said += "" if is_told else f" (default: {action.default})"
    shown = ", ".join(f"`{each}`" for each in names or [value])
    return f"| {shown} | {_text(said.strip())} |"


def settings_page() -> str:
    """Each setting of each family, with its defaults by preset on the embedded data."""
    lines = [
        "# Settings",
        "",
        "Made from the dataclasses that the recipes fill; `atelier settings FAMILY` prints the same"
        " for your data, whose shape some defaults follow.",
        "How to set them: [Settings and presets](../guides/settings.md).",
        "Defaults are those of `quick`, `standard` and `full`, for `digits` and for text of"
        " characters; one value stands for all three.",
        "*From* tells that a default follows from other settings, and *tuned* that training finds"
        " it.",
    ]
    for family in FAMILIES.values():
        lines += ["", f"## {family.name}", "", f"{family.purpose}"]
        by_preset = [resolved(family, preset, _shape(family), {}) for preset in PRESETS]
        group = ""
        for name, setting in settings_of(family).items():
            if setting.is_fixed:
                continue
            _, of, _ = name.split(".")
            if of != group:
                group = of
                lines += ["", f"### {family.name}.{group}", ""]
                lines += ["| Setting | Default | May be | Meaning |", "|---|---|---|---|"]
            default = _default([rows[name] for rows in by_preset])
            cells = (f"`{name}`", default, _text(setting.wanted), _text(setting.text))
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def _shape(family: Family) -> ImageShape | TextShape:
    """Of the embedded data; of text nothing is known before it is read."""
    known = SOURCES["digits"].shape
    assert known is not None
    unread = TextShape("characters", ASSUMED_VOCABULARY, ASSUMED_TOKENS)
    return known if family.data == "images" else unread


def _default(rows: list[Resolved]) -> str:
    values = [f"`{_toml(row.chosen.value)}`" for row in rows]
    shown = values[0] if len({*values}) == 1 else ", ".join(values)
    origin = rows[0].origin
    return f"{shown}<br>{_text(origin)}" if origin.startswith("from ") else shown


def deployments_page() -> str:
    """Each deployment of prefect.yaml."""
    lines = [
        "# Deployments",
        "",
        "Made from `prefect.yaml`, the one list of what the Prefect server offers and starts;"
        " `atelier up` makes the server agree with it.",
        "How to change it: [Schedules](../guides/schedules.md).",
    ]
    for each in yaml.safe_load(project_file("prefect.yaml").read_text())["deployments"]:
        lines += ["", f"## {each['name']}", "", " ".join(str(each["description"]).split())]
        facts = {
            "Flow": f"`{each['entrypoint']}`",
            "Runs": ", ".join(map(_when, each.get("schedules", []))) or "when it is asked for",
            "Is started by": ", ".join(map(_trigger, each.get("triggers", []))),
            "Parameters": f"`{json.dumps(each.get('parameters', {}))}`",
            "Queue": f"`{each['work_pool']['work_queue_name']}`",
            "At a time": str(_limit(each)),
        }
        rows = [f"| {name} | {told} |" for name, told in facts.items() if told]
        lines += ["", rows[0], "|---|---|", *rows[1:]]
    return "\n".join(lines) + "\n"


def _when(schedule: dict[str, Any]) -> str:
    off = "" if schedule.get("active", True) else ", switched off"
    if "cron" in schedule:
        return f"`{schedule['cron']}` ({schedule.get('timezone', 'UTC')}{off})"
    return f"every {schedule['interval']} seconds{off}"


def _trigger(trigger: dict[str, Any]) -> str:
    after = trigger.get("schedule_after")
    delay = f", {after} seconds later" if after else ""
    return f"{', '.join(f'`{each}`' for each in trigger['expect'])}{delay}"


def _limit(deployment: dict[str, Any]) -> str:
    limit = deployment.get("concurrency_limit")
    if not isinstance(limit, dict):
        return "" if limit is None else str(limit)
    waits = (
        "others wait" if limit.get("collision_strategy") == "ENQUEUE" else "others are cancelled"
    )
    return f"{limit['limit']}; {waits}"


def _text(text: str) -> str:
    """Prose in a cell: what the code writes in backticks is kept, and nothing else is markup."""
    parts = " ".join(text.split()).split("`")
    for number in range(0, len(parts), 2):
        for mark in "\\*_[|":
            parts[number] = parts[number].replace(mark, f"\\{mark}")
        parts[number] = parts[number].replace("<", "&lt;")
    return "`".join(parts)


PAGES = {"cli": cli_page, "settings": settings_page, "deployments": deployments_page}


def main() -> None:
    """Write all pages."""
    FOLDER.mkdir(exist_ok=True)
    for name, page in PAGES.items():
        (FOLDER / f"{name}.md").write_text(page(), encoding="utf-8")


if __name__ == "__main__":
    main()
