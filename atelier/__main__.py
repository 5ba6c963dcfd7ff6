"""The `atelier` command line: one parser, and one exit code for each way to end.

Exit codes: 0 done; 1 a step failed; 2 what was asked for cannot be done as given; 130 stopped.
"""

import atexit
import sys

TYPE_CHECKING = False  # importing `typing` takes time, in which a stop would show as a traceback
if TYPE_CHECKING:
    import argparse
    from collections.abc import Sequence


def main(arguments: "Sequence[str] | None" = None) -> int:
    """Run one command; returns the exit code.

    arguments: by default the program's own; then signals that ask for a stop are listened to.
    """
    if arguments is not None:
        return _run(arguments)
    code = 130
    ended: list[int] = []
    atexit.register(_end, ended)  # the first of all hooks, so it runs when they have run
    try:
        # Nothing is imported above, so that a stop at any time ends in one line.
        from tasks.runtime import stopping

        stopping.listen()
        code = _run(arguments)
        stopping.leave(code)
        ended.append(code)
    except KeyboardInterrupt:
        sys.stderr.write(
            "atelier: stopped; finished steps and checkpoints are kept: run the same command again"
            " to go on\n"
        )
    return code


def _end(ended: list[int]) -> None:
    """End the process as it is: to take each module apart takes a second or two after a run.

    ended: the exit code, where the command came to its end. Threads were waited for, and whoever
    had something to close has closed it.
    """
    import os

    if not ended:
        return
    try:
        for stream in (sys.stdout, sys.stderr):
            if stream is not None:  # closed before the command began
                stream.flush()
    except (OSError, ValueError):  # Python says what it says of that, and by which exit code
        return
    os._exit(ended[0])


def _run(arguments: "Sequence[str] | None") -> int:
    import io
    import os
    import warnings

    from atelier.cli.options import print_error, write_out
    from atelier.services import process_settings, terminal
    from atelier.services.private_home import OWNER_ONLY
    from tasks.runtime import stopping

    for stream in (sys.stdout, sys.stderr):  # names and texts hold letters of every script
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = sys.argv[1:] if arguments is None else list(arguments)
    command = words[0] if words else ""
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries warn of is for the tests, not for users
    os.umask(OWNER_ONLY)
    try:
        if "_ARGCOMPLETE" in os.environ:  # a shell asks what may come next
            from atelier.cli import completion

            completion.answer(_parser(completion.typed_command()))
        _check_command(command)
        options = _parser(command).parse_args(words)
        if getattr(options, "applies_settings", True):
            process_settings.apply_settings(needs_store=getattr(options, "needs_store", True))
        is_quiet = getattr(options, "quiet", False) or getattr(options, "json", False)
        with terminal.quiet_if(is_quiet), terminal.heard():
            code = int(options.command(options))
        write_out("")
    except KeyboardInterrupt:
        return print_error(stopping.HOW_TO_GO_ON, stopping.EXIT_CODE)
    except Exception as error:
        if stopping.stopped_by():  # it may show as any error
            return print_error(stopping.HOW_TO_GO_ON, stopping.EXIT_CODE)
        if (told := _told(error)) is None:
            raise
        return told
    return code


def _told(error: Exception) -> "int | None":
    """Say what went wrong; returns the exit code, or None for what nobody has foreseen."""
    from atelier.cli.options import nobody_reads, print_error
    from atelier.services import ambient_settings
    from atelier.services.background_processes import StackError
    from tasks.store.files import BadInput, ChecksumMismatch
    from tasks.store.records import DamagedRecord

    if isinstance(error, BadInput | ChecksumMismatch | DamagedRecord | StackError):
        return print_error(str(error), 2)
    if isinstance(error, ConnectionError):
        is_over = isinstance(error, BrokenPipeError) and nobody_reads()
        return 0 if is_over else print_error(str(error), 1)
    if isinstance(error, OSError):
        return print_error(_about_files(error), 2)
    if setting := ambient_settings.unreadable(error):
        return print_error(setting, 2)
    if reason := _of_a_server(error):
        return print_error(reason, 1)
    return None


def _of_a_server(error: Exception) -> str:
    """What a server's client says, in one line; nothing where the error is none of theirs."""
    from tasks.runtime.messages import one_line

    library = type(error).__module__.partition(".")[0]  # importing either takes seconds
    if library == "mlflow":
        return f"MLflow refused: {one_line(error)}"
    if library == "httpx":  # Prefect's client
        return (
            f"the Prefect server does not answer: {one_line(error)}; was it stopped meanwhile?"
            " See `atelier status`, and run the same command again"
        )
    return ""


def _about_files(error: OSError) -> str:
    from pathlib import Path

    from tasks.runtime.disk_space import cause_of
    from tasks.store.files import CannotWrite, home

    if isinstance(error, CannotWrite):
        is_placed = str(error.filename) in str(error.strerror)
        return str(error.strerror) if is_placed else f"{error.filename}: {error.strerror}"
    place = Path(error.filename) if isinstance(error.filename, str) else home()
    if cause := cause_of(error, place if place.is_dir() else place.parent):
        return f"cannot write {place}: {cause}"
    where = f"{error.strerror or error}: {error.filename or home()}"
    return f"{where}; set ATELIER_HOME to a folder that you may write to"


COMMANDS = {
    "run": ("run", "sample"),
    "settings": ("settings",),
    "search": ("search",),
    "models": ("models", "show"),
    "generate": ("generate",),
    "play": ("play",),
    "export": ("export",),
    "registry": ("history", "rollback", "promote", "reproduce"),
    "compare": ("compare",),
    "step": ("step",),
    "verify": ("verify",),
    "open_pages": ("open",),
    "services": ("up", "worker", "status", "down"),
    "schedule": ("schedule",),
    "maintenance": ("explain", "gc"),
    "doctor": ("doctor",),
    "completion": ("completion",),
}
"""The modules of `atelier.cli`, and the commands that each adds."""
PARSE_OTHERS = ("schedule",)
"""Commands that parse another command."""


def _module_of_command() -> dict[str, str]:
    return {name: module for module, names in COMMANDS.items() for name in names}


def _check_command(word: str) -> None:
    """Raise BadInput for a first word that is neither a command nor an option."""
    from tasks.runtime.suggestions import nearest
    from tasks.store.files import BadInput

    known = _module_of_command()
    if word and not word.startswith("-") and word not in known:
        meant = nearest(word, known)
        hint = f"did you mean {meant!r}? " if meant else ""
        raise BadInput(f"{word!r} is no command; {hint}`atelier --help` lists them")


def _parser(command: str = "") -> "argparse.ArgumentParser":
    """The parser of one command, or of all: importing all modules takes longer than some of them.

    command: the first word that was typed.
    """
    from importlib import import_module

    from atelier.cli.help import Overview

    parser = Overview(prog="atelier", description="A workshop for small generative models.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    module = _module_of_command().get(command, "")
    is_alone = bool(module) and command not in PARSE_OTHERS
    for name in (module,) if is_alone else COMMANDS:
        import_module(f"atelier.cli.{name}").add(commands)
    if not is_alone:
        parser.add_argument("--version", action="version", version=f"atelier {_version()}")
    return parser


def _version() -> str:
    """Of this program, from the one place that states it."""
    import tomllib

    from tasks.store.files import project_file

    described = tomllib.loads(project_file("pyproject.toml").read_text(encoding="utf-8"))
    return str(described["project"]["version"])


if __name__ == "__main__":
    sys.exit(main())
