"""The `atelier` command line: one parser, and one exit code for each way to end.

Exit codes: 0 done; 1 a step failed; 2 what was asked for cannot be done as given; 130 stopped.
"""

import argparse
import io
import os
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path

from flows import local_stack
from flows.commands import doctor, registry, stack, upkeep, verify, work
from flows.commands.options import complain
from flows.private_home import OWNER_ONLY
from tasks.room import cause_of
from tasks.storage import BadInput, CannotWrite, ChecksumMismatch, home


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    for stream in (sys.stdout, sys.stderr):  # names and texts hold letters of every script
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    options = _parser().parse_args(arguments)
    if not sys.warnoptions:
        warnings.simplefilter("ignore")  # what libraries warn of is for the tests, not for users
    os.umask(OWNER_ONLY)
    try:
        if getattr(options, "applies_settings", True):
            local_stack.apply_settings()
        return int(options.command(options))
    except (BadInput, ChecksumMismatch, local_stack.StackError) as error:
        return complain(str(error), 2)
    except ConnectionError as error:
        return complain(str(error), 1)
    except OSError as error:
        return complain(_about_files(error), 2)
    except KeyboardInterrupt:
        return complain("stopped; run the same command again to go on", 130)
    except Exception as error:
        if not (reason := _of_a_server(error)):
            raise
        return complain(reason, 1)


def _of_a_server(error: Exception) -> str:
    """What a server's client says, in one line; nothing where the error is none of theirs."""
    first_line = (str(error).strip() or type(error).__name__).splitlines()[0]
    library = type(error).__module__.partition(".")[0]  # importing either takes seconds
    if library == "mlflow":
        return f"MLflow refused: {first_line}"
    if library == "httpx":  # Prefect's client
        return (
            f"the Prefect server does not answer: {first_line}; was it stopped meanwhile?"
            " See `atelier status`, and run the same command again"
        )
    return ""


def _about_files(error: OSError) -> str:
    if isinstance(error, CannotWrite):
        is_placed = str(error.filename) in str(error.strerror)
        return str(error.strerror) if is_placed else f"{error.filename}: {error.strerror}"
    place = Path(error.filename) if isinstance(error.filename, str) else home()
    if cause := cause_of(error, place if place.is_dir() else place.parent):
        return f"cannot write {place}: {cause}"
    where = f"{error.strerror or error}: {error.filename or home()}"
    return f"{where}; set ATELIER_HOME to a folder that you may write to"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="atelier", description="A workshop for small generative models."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    for group in (work, registry, verify, stack, upkeep, doctor):
        group.add(commands)
    return parser


if __name__ == "__main__":
    sys.exit(main())
