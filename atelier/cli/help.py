"""The first page of the help: all commands, by what a person wants to do."""

import argparse
from typing import Any

from atelier.cli.options import Parser

GROUPS = {
    "Train": ("run", "search", "settings", "step"),
    "Look": ("models", "show", "history", "compare", "explain", "open"),
    "Use": ("generate", "play", "export", "sample"),
    "Decide": ("promote", "rollback", "reproduce", "verify"),
    "Unattended": ("up", "worker", "status", "down", "schedule"),
    "Upkeep": ("doctor", "gc", "completion"),
}
"""The commands under the headings of the help, in its order."""


class Overview(Parser):
    """The parser of all commands, whose help has them under headings."""

    commands: Any = None

    def add_subparsers(self, **kwargs: Any) -> Any:
        """As argparse's own; a command's parser is an ordinary one."""
        self.commands = super().add_subparsers(parser_class=Parser, **kwargs)
        return self.commands

    def format_help(self) -> str:
        """The page."""
        formatter = self._get_formatter()
        formatter.add_usage(self.usage, self._actions, self._mutually_exclusive_groups)
        formatter.add_text(self.description)
        lines = {each.dest: each for each in self.commands._choices_actions}
        for heading, names in GROUPS.items():
            _add_section(formatter, heading, [lines[name] for name in names if name in lines])
        own = [each for each in self._actions if each is not self.commands]
        _add_section(formatter, "Options", own)
        return formatter.format_help()


def _add_section(
    formatter: argparse.HelpFormatter, heading: str, actions: list[argparse.Action]
) -> None:
    formatter.start_section(heading)
    formatter.add_arguments(actions)
    formatter.end_section()
