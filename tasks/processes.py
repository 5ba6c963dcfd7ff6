"""Who does a piece of work: processes named so that a later one of the same id is told apart."""

import os
import platform

import psutil


def this_process() -> str:
    """A name for this process: host, process id, and when it began in whole seconds since 1970."""
    return name_of(psutil.Process(os.getpid()))


def name_of(process: psutil.Process) -> str:
    """Such a name for any process of this machine."""
    return f"{platform.node()}:{process.pid}:{process.create_time():.0f}"


def is_alive(name: str) -> bool:
    """Whether the named process still runs; one of another machine is taken to.

    Raises ValueError for what is no such name.
    """
    host, pid, created_at = name.rsplit(":", 2)
    if host != platform.node():
        return True
    try:
        process = psutil.Process(int(pid))
        is_same = bool(abs(process.create_time() - float(created_at)) < 1.5)
        return is_same and process.status() != psutil.STATUS_ZOMBIE
    except psutil.Error:
        return False
