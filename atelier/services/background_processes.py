"""Processes that outlive the command that starts them: how they are started, and stopped.

Imports neither prefect nor mlflow; see `atelier.services.process_settings`.
"""

import fcntl
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import psutil

from atelier.services import own_processes
from atelier.services.private_home import OWNER_ONLY
from atelier.services.server_records import Server
from tasks.runtime.disk_space import lack_of_room
from tasks.runtime.processes import name_of
from tasks.store.files import home


class StackError(RuntimeError):
    """A server cannot be started or reached; the message says what to do."""


def start(
    name: str,
    arguments: list[str],
    url: str,
    port: int,
    environment: dict[str, str] | None,
    *sockets: int,
) -> Server:
    """Start a Python process that outlives this one, with its output in a file of its name.

    sockets: which it inherits.
    Raises StackError where nothing can be written, and where such a process runs already.
    """
    if lack := lack_of_room(home(), try_it=True):
        raise StackError(f"the {name} process cannot be started: {lack}")
    with (
        open(log_path(name), "ab", opener=_private_file) as log,
        open(own_processes.held_path(name), "w", opener=_private_file) as held,
    ):
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise StackError(
                f"a {name} process of this home still runs that servers.json does not list: a"
                f" second one would work on the same data; `fuser {held.name}` names it, end it"
                " and try again"
            ) from None
        process = subprocess.Popen(
            [sys.executable, *arguments],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            cwd=home(),
            env=environment,
            umask=OWNER_ONLY,
            # The lock is held for as long as the process lives, wherever one asks.
            pass_fds=[held.fileno(), *sockets],
            preexec_fn=_restore_interrupts if _ignores_interrupts() else None,  # noqa: PLW1509
        )
    return Server(name, url, port, process.pid, process=name_of(process.pid))


def stop(server: Server, *, with_family: bool = False) -> None:
    """Ask a process to end, and insist on it and its children after ten seconds.

    with_family: ask the children as well, which a server does itself.
    Raises StackError for a process of another machine or container.
    """
    if not server.is_running():
        return
    if server.is_elsewhere:
        raise StackError(f"{server.name} runs elsewhere, as {server.process}: stop it there")
    parent = psutil.Process(server.pid)
    family = [parent, *parent.children(recursive=True)]
    for process in family if with_family else [parent]:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
    _, alive = psutil.wait_procs(family, timeout=10)
    for process in alive:
        with suppress(psutil.NoSuchProcess):
            process.kill()


def log_path(name: str) -> Path:
    """Where a process's output goes."""
    path = home() / "logs" / f"{name}{'' if name == 'worker' else '-server'}.log"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def _private_file(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _ignores_interrupts() -> bool:
    """Whether a shell started us in its background; children would inherit that.

    Prefect's worker stops by sending itself an interrupt, so that it would never end.
    """
    return signal.getsignal(signal.SIGINT) == signal.SIG_IGN


def _restore_interrupts() -> None:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
