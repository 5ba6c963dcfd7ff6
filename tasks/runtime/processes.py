"""Who does a piece of work: processes named so that a later one of the same id is told apart.

A name is `HOST:PID:MARK`. On Linux the mark is `BOOT.NAMESPACE.TICKS`: which start of the machine
it was, whose process ids these are (a container counts its own), and how many ticks after that
start the process began. None of these moves when somebody sets the clock. Elsewhere, and in names
of versions before, the mark is a time in seconds since 1970, as the system tells it: there a
process may begin "anew" when the clock is set, so that a name which disagrees by its time alone is
believed dead only if what runs under its id is no Python program.
"""

import os
import platform
import re
import time
from functools import cache
from pathlib import Path

import psutil

PROC = Path("/proc")
_SECONDS_OF_ROUNDING = 1.5
_ENDED = ("Z", "X", "x")  # a zombie, or on its way out
_MARK = re.compile(r"(?P<boot>[0-9a-f]{12})\.(?P<namespace>[0-9]+)\.(?P<ticks>[0-9]+)")
_NAMESPACE_OF_THE_MACHINE = "4026531838"  # the kernel's own number of the first UTS namespace


def this_process() -> str:
    """A name for this process."""
    return name_of(os.getpid())


def name_of(pid: int) -> str:
    """Such a name for a process of this machine; raises psutil.NoSuchProcess without one."""
    here = _boot_and_namespace()
    if here is None:
        mark = f"{psutil.Process(pid).create_time():.2f}"
    else:
        told = _state_and_ticks(pid)
        if told is None:
            raise psutil.NoSuchProcess(pid)
        mark = f"{'.'.join(here)}.{told[1]}"
    return f"{platform.node()}:{pid}:{mark}"


def is_alive(name: str) -> bool:
    """Whether the named process still runs; of what cannot be known from here, it is taken to.

    That is a process of another machine, one of another container, and what is no name at all.
    """
    try:
        host, pid, mark = name.rsplit(":", 2)
        number = int(pid)
    except ValueError:
        return True
    if host != platform.node():
        return True
    marked = _MARK.fullmatch(mark)
    if marked is None:
        return _is_of_that_time(number, mark)
    here = _boot_and_namespace()
    if here is None or marked["boot"] != here[0]:
        return here is None  # the machine has been started anew since
    if marked["namespace"] != here[1]:
        # A container that was started again has its host's name for itself: what bore it is gone.
        # Several may share the name of the machine, and this one cannot see the others' processes.
        return _number_of_namespace("uts") == _NAMESPACE_OF_THE_MACHINE
    told = _state_and_ticks(number)
    return told is not None and told[0] not in _ENDED and told[1] == int(marked["ticks"])


def is_elsewhere(name: str) -> bool:
    """Whether a process of that name could not be seen from here, alive or not."""
    host, _, mark = name.rsplit(":", 2) if name.count(":") >= 2 else (platform.node(), "", "")
    marked, here = _MARK.fullmatch(mark), _boot_and_namespace()
    is_of_our_start = marked is None or here is None or marked["boot"] == here[0]
    is_of_our_ids = marked is None or here is None or marked["namespace"] == here[1]
    return host != platform.node() or (is_of_our_start and not is_of_our_ids)


def seconds_up() -> float:
    """Seconds since the machine started, sleep included: a clock that nobody sets."""
    return time.clock_gettime(getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC))


def this_start() -> str:
    """A name for the present start of the machine; empty where the system does not tell."""
    here = _boot_and_namespace()
    return here[0] if here else ""


@cache
def _boot_and_namespace() -> tuple[str, str] | None:
    """Which start of the machine this is, and whose process ids; None where nobody tells."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    namespace = _number_of_namespace("pid")
    digits = boot.replace("-", "")[:12]
    return (digits, namespace) if namespace and _state_and_ticks(os.getpid()) else None


def _number_of_namespace(kind: str) -> str:
    try:
        return str((PROC / "self/ns" / kind).readlink()).partition("[")[2].rstrip("]")
    except OSError:
        return ""


def _state_and_ticks(pid: int) -> tuple[str, int] | None:
    """A process's state, and in which tick since the machine's start it began; None without one."""
    try:
        told = (PROC / str(pid) / "stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = told.rpartition(")")[2].split()  # a program's name may hold spaces and parentheses
    return fields[0], int(fields[19])


def _is_of_that_time(pid: int, began: str) -> bool:
    """Whether a process of that id began at that time, or may have, had the clock not been set."""
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if abs(process.create_time() - float(began)) < _SECONDS_OF_ROUNDING:
            return True
        return pid != os.getpid() and "python" in process.name().lower()
    except psutil.AccessDenied:
        return True
    except (psutil.Error, ValueError):
        return False
