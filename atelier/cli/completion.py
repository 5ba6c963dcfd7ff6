"""`atelier completion`: lets a shell complete commands, options and names of models."""

import argparse
import os
from contextlib import suppress
from typing import Any

from atelier.cli.options import Commands, logged_models, write_out
from tasks.registry.listing import listed_models

SHELLS = ("bash", "zsh", "fish", "powershell")


def add(commands: Commands) -> None:
    """Add the command to the parser."""
    completion = commands.add_parser(
        "completion",
        help="let your shell complete commands, options and names of models",
        description='For bash and zsh: eval "$(atelier completion bash)" in ~/.bashrc or ~/.zshrc;'
        " for fish: atelier completion fish | source.",
    )
    completion.add_argument("shell", choices=SHELLS, help="yours")
    completion.set_defaults(command=_completion, applies_settings=False)


def _completion(options: argparse.Namespace) -> int:
    from argcomplete.shell_integration import shellcode

    write_out(shellcode(["atelier"], shell=options.shell))
    return 0


def typed_command() -> str:
    """The first word after the program's name on the line that the shell asks about."""
    return next(iter(os.environ.get("COMP_LINE", "").split()[1:2]), "")


def answer(parser: argparse.ArgumentParser) -> None:
    """Tell the shell what may come next, and end."""
    import argcomplete

    completer: Any = completed  # any callable will do
    argcomplete.autocomplete(parser, always_complete_options=False, default_completer=completer)


def completed(*, action: argparse.Action, prefix: str, **_: Any) -> Any:
    """What may stand for an option or argument: a model's name, or else a file's."""
    from argcomplete.completers import FilesCompleter

    if action.metavar == "SOURCE":
        from tasks.data.sources import SOURCES  # with NumPy and pandas

        return [name for name, source in SOURCES.items() if action.dest == source.kind]
    if not str(action.metavar).startswith("MODEL"):
        return FilesCompleter()(prefix)
    with suppress(Exception):  # whatever it is, a shell must not print it into the line
        # A server's answer would take MLflow's import, seconds for each key: its logs are here.
        has_server = os.environ.get("MLFLOW_TRACKING_URI")
        return sorted(logged_models() if has_server else listed_models())
    return []
