"""What several commands share: kinds of option, the servers they need, how they complain."""

import argparse
import os
import select
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from importlib import import_module
from multiprocessing import get_context
from typing import Any, NoReturn, TypeVar

from rich_argparse import RichHelpFormatter

from atelier.services import local_servers, terminal
from tasks.runtime import stopping, watching
from tasks.runtime.disk_space import lack_of_room
from tasks.runtime.markup import plain_lines
from tasks.runtime.messages import one_line, shortened
from tasks.store.files import BadInput, CannotWrite, ChecksumMismatch, home
from tasks.store.names import What, checked_name, is_name, version_address
from tasks.store.records import DamagedRecord
from tasks.tracking.home_database import is_served_at

Result = TypeVar("Result")

Commands = Any
"""argparse's collection of sub-commands, whose class has no public name."""
Arguments = Any
"""A parser, or a group of its arguments, whose class has none either."""


class HelpFormatter(RichHelpFormatter):
    """Coloured where a terminal has colours."""

    help_markup = text_markup = False  # a metavar such as MODEL[@ALIAS] is none
    group_name_formatter = str.capitalize


class Parser(argparse.ArgumentParser):
    """Quotes what it refuses only so far as a page goes."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, **kwargs})

    keeps_rest = False
    """Whether what follows `--` is another command, which is kept as `rest` and not looked at."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's own, but for what `keeps_rest` says."""
        if not self.keeps_rest or args is None:
            return super().parse_known_args(args, namespace)
        words = list(args)
        at = words.index("--") if "--" in words else len(words)
        found, unknown = super().parse_known_args(words[:at], namespace)
        found.rest = words[at + 1 :]
        return found, unknown

    def error(self, message: str) -> NoReturn:
        """Say what is wrong, and exit."""
        super().error(plain_lines(shortened(message)))


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowCall:
    """The flow that a command runs: with `set_defaults(flow=...)` it can be scheduled, too."""

    entrypoint: str
    """`module.function`, as deployments name it."""
    parameters: Callable[[argparse.Namespace], dict[str, Any]]
    """What the flow is called with; raises BadInput for what the command would refuse."""
    tags: tuple[str, ...]
    """Of its deployment, besides those that all bear."""
    queue: str
    """Of the work pool; see `atelier.deployment.schema.QUEUES`."""


class _Noting(argparse.Action):
    """Stores a value as argparse does, and notes that it was given."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: Any,
        option_string: str | None = None,
    ) -> None:
        setattr(namespace, self.dest, values)
        if option_string is not None:  # argparse calls it for a positional that is not there, too
            namespace.given = namespace.given | {self.dest}


def note_given(parser: argparse.ArgumentParser) -> None:
    """Let `given` hold the names of options that a person wrote, be it with their default's value.

    Called before options are added; those that are lists or flags are not noted.
    """
    parser.register("action", None, _Noting)
    parser.set_defaults(given=frozenset())


MAX_SEED = 2**31 - 1
NOTHING_YET = "no model is registered yet: train some with `atelier run`"


def seed(text: str) -> int:
    """A seed for argparse."""
    return whole_number("a seed", text, 0, MAX_SEED)


def port(text: str) -> int:
    """A TCP port for argparse."""
    return whole_number("a port", text, 1, 65_535)


def model(text: str) -> str:
    """A registered model's name for argparse."""
    return _name("model", text)


def model_and_version(text: str, default: str = "champion") -> tuple[str, str]:
    """MODEL, MODEL@ALIAS or MODEL/N for argparse: the name, and an alias or a version's number."""
    try:
        return version_address(text, default)
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def version_of_model(text: str) -> str:
    """The same, as it was written: flows take it so."""
    model_and_version(text)
    return text


def alias(text: str) -> str:
    """An alias of a model, or a version's number, for argparse."""
    return _name("alias", text)


def step(text: str) -> str:
    """A step's name for argparse."""
    return _name("step", text)


def _name(what: What, text: str) -> str:
    try:
        return checked_name(what, text)
    except BadInput as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def whole_number(what: str, text: str, low: int, high: int) -> int:
    """A whole number from low to high; raises argparse's error for anything else."""
    try:
        number = int(text) if text.isascii() else low - 1
    except ValueError:
        number = low - 1
    if not low <= number <= high:
        raise argparse.ArgumentTypeError(
            f"{what} is a whole number from {low} to {high}, got {text!r}"
        )
    return number


def add_ports(parser: Arguments) -> None:
    """The options that say where the servers listen."""
    for name, preferred in (("prefect", 4200), ("mlflow", 5000)):
        parser.add_argument(
            f"--{name}-port",
            type=port,
            metavar="PORT",
            help=f"default: {preferred}, or a free one",
        )


def add_quiet(parser: Arguments) -> None:
    """The option of commands that work for a while."""
    parser.add_argument(
        "--quiet",
        action="store_true",
        help="nothing but the result, and what went wrong",
    )


def start_servers(options: argparse.Namespace, module: str = "flows.full_run") -> dict[str, str]:
    """The addresses of both servers, which are started if need be.

    module: what the command works with; its imports, which take seconds, go on meanwhile.
    """

    def import_module_of_command() -> None:
        import_module(module)

    with terminal.live(), watching.underway("look for the servers"):
        return local_servers.ensure_servers(
            options.prefect_port,
            options.mlflow_port,
            report=lambda line: terminal.say(f"{line} ..."),
            while_waiting=import_module_of_command,
        )


def find_registry() -> bool:
    """Read the registry through its server where one is up, else from its database.

    What only asks reads the database of this home in either case, where that is the server's, too.
    Returns whether there is one: nothing may have been registered yet, or its server is down.
    """
    if os.environ.get("MLFLOW_TRACKING_URI"):
        return True
    os.environ.update(found := registry_environment())
    return bool(found) or (home() / "mlflow.db").exists()


def registry_environment() -> dict[str, str]:
    """What tells a process where the registry's server is: nothing where none of ours is up."""
    for server, is_healthy in local_servers.servers():
        if server.name == "mlflow" and is_healthy:
            if server.is_read_at_home:
                is_served_at(server.url)
            return {"MLFLOW_TRACKING_URI": server.url}
    return {}


def in_a_process_of_its_own(ask: Callable[..., Result], *arguments: Any) -> Result:
    """What a function of a module says that imports Prefect, which this process shall not yet.

    Prefect keeps the settings that it finds when it is imported, and before the servers run these
    lack their addresses. What the function raises is raised.
    """
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(ask, *arguments).result()


def logged_models() -> list[str]:
    """The models that have an audit log here; asking that module would import Prefect first.

    Of a shared log a copy is here.
    """
    logs = home() / "ledger"
    names = {path.stem for path in logs.glob("*.jsonl")}
    names |= {path.name.partition(".")[0] for path in logs.glob("shared/*/*.jsonl")}
    return sorted(name for name in names if is_name(name))


def nothing_there() -> str:
    """Why there is no registry: nothing was registered yet, or it was lost while its logs stand."""
    names = logged_models()
    if not names:
        return NOTHING_YET
    where = os.environ.get("MLFLOW_TRACKING_URI") or home() / "mlflow.db"
    return (
        f"the registry was lost: {where} is not there, or empty, while the audit"
        f" logs of {', '.join(names)} stand; put a backup in its place, or train again with"
        " `atelier run`: the logs go on, and say what was lost"
    )


def check_registry() -> None:
    """Raise BadInput where nothing was ever registered, before any server is started."""
    if not os.environ.get("MLFLOW_TRACKING_URI") and not (home() / "mlflow.db").exists():
        raise BadInput(nothing_there())


def _cancel(signal: str) -> None:
    from tasks.maintenance.crash_recovery import begun
    from tasks.runtime.stopped_runs import cancel_stopped_runs

    cancel_stopped_runs(begun(), f"stopped by {signal}")


def write_out(text: str) -> None:
    """Write to standard output at once, with all that was printed before.

    Raises BadInput where it cannot take that, and BrokenPipeError where nobody reads it.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        raise
    except OSError as error:
        _discard_output()
        raise BadInput(f"cannot write to standard output: {error.strerror or error}") from error


def nobody_reads() -> bool:
    """Whether standard output is a pipe whose reader has left, as `head` does.

    What is still to be written, also by the interpreter at its end, then goes nowhere.
    """
    with suppress(OSError, ValueError):  # there may be no such file
        waiting = select.poll()
        waiting.register(sys.stdout.fileno(), 0)
        if any(event & select.POLLERR for _, event in waiting.poll(0)):
            _discard_output()
            return True
    return False


def _discard_output() -> None:
    with suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)


def print_error(message: str, code: int) -> int:
    """Say what is wrong, and return the exit code."""
    with suppress(OSError):  # the terminal may be gone
        print(f"atelier: {plain_lines(shortened(message))}", file=sys.stderr, flush=True)
    return code


def flow_result(flow: Any, **parameters: Any) -> Any:
    """What a flow returns, or None after one line on how it failed."""
    try:
        with terminal.live():
            return flow(**parameters)
    except BaseException as error:  # a stop may show as any of them
        if signal := stopping.stopped_by():
            _cancel(signal)
            raise KeyboardInterrupt from None
        plain = (BadInput, ChecksumMismatch, DamagedRecord, CannotWrite)
        if isinstance(error, plain) or not isinstance(error, Exception):
            raise
        if lack := lack_of_room(home(), try_it=True):  # whatever a server made of it
            again = "then run the same command again: finished steps are kept"
            print_error(f"{lack}, {again}\nwhat it led to: {type(error).__name__}", 2)
            return None
        reason = one_line(error)
        where = os.environ["PREFECT_API_URL"].removesuffix("/api")
        print_error(f"{type(error).__name__}: {reason}\ndetails: {where}/runs", 1)
        return None
