"""Which processes of a home live, beyond what their names tell: locks, ports, older records.

Imports neither prefect nor mlflow; see `atelier.services.process_settings`.
"""

import fcntl
from pathlib import Path

import psutil

from tasks.store.files import home


def held_path(name: str) -> Path:
    """The file that a process of a name holds a lock on for as long as it lives."""
    path = home() / "locks" / f"process-{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    return path


def is_held(name: str) -> bool:
    """Whether some process of that name, which may be out of sight, has hold of this home."""
    try:
        with (home() / "locks" / f"process-{name}.lock").open("rb") as held:
            fcntl.flock(held, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def is_running_since_before(name: str, pid: int, created_at: float) -> bool:
    """Whether the process of a record that a version before made lives.

    Its time moves when the clock is set; what the process is, and where it works, do not.
    """
    try:
        process = psutil.Process(pid)
        if process.status() == psutil.STATUS_ZOMBIE:
            return False
        if abs(process.create_time() - created_at) < 1.0:
            return True
        words = process.cmdline()
        works_as = next((each for each in ("worker", "mlflow", "prefect") if each in words), "")
        return works_as == name and Path(process.cwd()) == home()
    except psutil.Error:
        return False


def listens(pid: int, port: int) -> bool:
    """Whether it is this very process, or a child of it, that answers at a port.

    Two homes that are started at once find the same port free, and only one of them gets it: the
    other would work on a stranger's database.
    """
    try:
        parent = psutil.Process(pid)
        return any(
            each.status == psutil.CONN_LISTEN and each.laddr.port == port
            for process in (parent, *parent.children(recursive=True))
            for each in process.net_connections("tcp")
        )
    except psutil.AccessDenied:  # this system does not tell
        return True
    except psutil.Error:
        return False
