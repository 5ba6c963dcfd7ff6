"""What can be wrong with an installation, one check each: what was found, and what to do.

A check looks and never mends. Those of this file read files, processes and the environment, so
they work with no server up; `atelier/diagnostics/server_checks.py` asks the servers.
"""

import os
import re
import sqlite3
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import psutil
from packaging.requirements import Requirement
from packaging.version import Version

from atelier.services.finding import Finding, State
from tasks.store import files
from tasks.store.files import DiskFull, check_space

SPACE_FOR_A_RUN_BYTES = 300_000_000
COMFORTABLE_SPACE_BYTES = 2_000_000_000
SECONDS_TO_WAIT_FOR_A_LOCK = 2.0
_PINNED = re.compile(r"^(?P<requirement>[A-Za-z0-9][^\\#]*==[^\\#]*?)\s*\\?$", re.MULTILINE)
_BOUND = re.compile(r'^\s+"(?P<requirement>[^"]+)",\s*(?:#\s*(?P<why>.*))?$', re.MULTILINE)


def python_version(running: Sequence[int] = sys.version_info[:3]) -> Finding:
    """The interpreter is one that the libraries support."""
    shown = ".".join(map(str, running))
    if tuple(running) < (3, 11):
        to_do = "make a new environment: `make clean`, then `make PYTHON=python3.11 setup`"
        return Finding(name="python", state="failed", what=f"Python {shown}", to_do=to_do)
    return Finding(name="python", state="ok", what=f"Python {shown}")


def version_bounds(pyproject: Path) -> Finding:
    """The installed libraries are within the bounds of pyproject.toml, whose comments say why."""
    listed = pyproject.read_text(encoding="utf-8").partition("\ndependencies = [")[2]
    outside, number = [], 0
    for match in _BOUND.finditer(listed.partition("\n]")[0]):
        number += 1
        wanted, why = Requirement(match["requirement"]), match["why"]
        installed = _installed(wanted.name)
        if installed is None or not wanted.specifier.contains(installed, prereleases=True):
            reason = f" ({why})" if why else ""
            outside.append(f"{wanted.name} {installed or 'missing'}, not {wanted}{reason}")
    if outside:
        to_do = "install the locked versions: `make clean setup`"
        return Finding(name="versions", state="failed", what="; ".join(outside), to_do=to_do)
    return Finding(name="versions", state="ok", what=f"{number} libraries within their bounds")


def lock_drift(lock: Path) -> Finding:
    """What is installed is exactly what the lock file names."""
    different, number = [], 0
    for match in _PINNED.finditer(lock.read_text(encoding="utf-8")):
        pinned = Requirement(match["requirement"])
        if pinned.marker is not None and not pinned.marker.evaluate():
            continue
        number += 1
        (wanted,) = pinned.specifier
        installed = _installed(pinned.name)
        if installed is None or Version(installed).public != Version(wanted.version).public:
            different.append(f"{pinned.name} {installed or 'missing'}, locked {wanted.version}")
    if different:
        more = f" and {len(different) - 5} more" if len(different) > 5 else ""
        return Finding(
            name="lock file",
            state="attention",
            what=f"{len(different)} of {number} differ: {'; '.join(different[:5])}{more}",
            to_do="install the locked versions: `make clean setup`",
        )
    return Finding(name="lock file", state="ok", what=f"all {number} libraries as locked")


def _installed(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def disk_space(home: Path, comfortable_bytes: int = COMFORTABLE_SPACE_BYTES) -> Finding:
    """There is space for a run, and for some more."""
    to_do = "free some space, or set ATELIER_HOME to a folder on another disk"
    for wanted, state in ((SPACE_FOR_A_RUN_BYTES, "failed"), (comfortable_bytes, "attention")):
        try:
            check_space(home, wanted)
        except DiskFull as error:
            what = f"{str(error.strerror).partition(';')[0]}"
            level: State = "failed" if state == "failed" else "attention"
            return Finding(name="disk", state=level, what=what, to_do=to_do)
    existing = next(parent for parent in (home, *home.parents) if parent.is_dir())
    free = psutil.disk_usage(str(existing)).free
    return Finding(name="disk", state="ok", what=f"{free / 1e9:.1f} GB free")


def usable_cores(cpu_max: Path = Path("/sys/fs/cgroup/cpu.max")) -> float:
    """How many cores this process may use: its affinity, or a container's quota if smaller."""
    allowed = getattr(os, "sched_getaffinity", None)
    cores = float(len(allowed(0)) if allowed else os.cpu_count() or 1)
    try:
        quota, period = cpu_max.read_text(encoding="ascii").split()
        return cores if quota == "max" else min(cores, int(quota) / int(period))
    except (OSError, ValueError):
        return cores


def threads(environment: Mapping[str, str], cores: float) -> Finding:
    """Training's threads are not more than the cores, and give way while they wait."""
    wrong, to_do = [], []
    if environment.get("OMP_WAIT_POLICY", "passive").lower() != "passive":
        wrong.append(f"OMP_WAIT_POLICY is {environment['OMP_WAIT_POLICY']}: waiting threads spin")
        to_do.append("unset OMP_WAIT_POLICY")
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
        number = environment.get(name, "")
        if number.isdecimal() and len(number) < 10 and int(number) > cores:
            wrong.append(f"{name} is {number}, and there are {cores:g} cores")
            to_do.append(f"unset {name}")
    affine = getattr(os, "sched_getaffinity", None)
    default = len(affine(0)) if affine else os.cpu_count() or 1
    if "OMP_NUM_THREADS" not in environment and default > cores:
        wrong.append(f"a container gives {cores:g} of {default} cores, which torch cannot see")
        to_do.append(f"set OMP_NUM_THREADS={max(1, int(cores))}")
    if wrong:
        steps = " and ".join(to_do) + ", then start again"
        return Finding(name="threads", state="attention", what="; ".join(wrong), to_do=steps)
    number = environment.get("OMP_NUM_THREADS", f"{default}")
    what = f"{number} threads on {cores:g} cores, passive wait"
    return Finding(name="threads", state="ok", what=what)


def gpus(devices: Path = Path("/dev")) -> list[str]:
    """The names of the machine's NVIDIA GPUs, whether torch uses them or not."""
    return sorted(path.name for path in devices.glob("nvidia[0-9]*"))


def device(trained_on: str, devices: Path = Path("/dev")) -> Finding:
    """If the machine has an NVIDIA GPU, torch uses it. trained_on: "cpu" or "cuda"."""
    present = gpus(devices)
    if present and trained_on == "cpu":
        return Finding(
            name="device",
            state="attention",
            what=f"{', '.join(present)} is there, but torch trains on the CPU",
            to_do="check the driver with `nvidia-smi`, and that CUDA_VISIBLE_DEVICES is not empty",
        )
    return Finding(name="device", state="ok", what=f"training runs on the {trained_on.upper()}")


def port(number: int, whose: str, ours: Iterable[int]) -> Finding:
    """A port that a server prefers is free, or in that server's own hands.

    ours: ids of our servers' processes. A taken port is no fault: another one is taken instead.
    """
    name = f"port {number}"
    try:
        sockets = psutil.net_connections("tcp")
    except psutil.Error:
        return Finding(name=name, state="ok", what="this system does not tell who listens")
    holders = {s.pid for s in sockets if s.status == psutil.CONN_LISTEN and s.laddr.port == number}
    if not holders:
        return Finding(name=name, state="ok", what=f"free for the {whose} server")
    if holders & set(ours):
        return Finding(name=name, state="ok", what=f"our {whose} server")
    by = ", ".join(f"process {pid}" if pid else "a process of someone else" for pid in holders)
    what = f"taken by {by}: the {whose} server listens elsewhere, see `atelier status`"
    return Finding(name=name, state="ok", what=what)


def database(path: Path, seconds: float = SECONDS_TO_WAIT_FOR_A_LOCK) -> Finding:
    """A SQLite file is one, and can be written to within some seconds."""
    name = f"database {path.name}"
    if not path.exists():
        return Finding(name=name, state="ok", what="not made yet")
    try:
        connection = sqlite3.connect(f"{path.as_uri()}?mode=rw", uri=True, timeout=seconds)
        try:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("SELECT count(*) FROM sqlite_master").fetchone()
            connection.rollback()
        finally:
            connection.close()
    except sqlite3.OperationalError as error:
        holders = ", ".join(map(str, _holders(path))) or "none of yours"
        return Finding(
            name=name,
            state="attention",
            what=f"{error} for {seconds:g} s; processes that have it open: {holders}",
            to_do="let what runs finish; if nothing does, `atelier down`, end those processes",
        )
    except sqlite3.DatabaseError as error:
        return Finding(
            name=name,
            state="failed",
            what=f"{path}: {error}",
            to_do="`atelier down`, put a backup in its place or move it away, `atelier up`",
        )
    size = path.stat().st_size / 1e6
    return Finding(name=name, state="ok", what=f"{size:.1f} MB, takes writes")


def _holders(path: Path) -> list[int]:
    found = []
    for process in psutil.process_iter():
        try:
            if any(file.path == str(path) for file in process.open_files()):
                found.append(process.pid)
        except (psutil.Error, OSError):
            continue
    return found


def orphaned_temp_files(home: Path) -> Finding:
    """No temporary file was left behind by a process that died while it wrote."""
    left = [*files.orphaned_temp_files(home), *files.orphaned_scratch()]
    if left:
        return Finding(
            name="half-written files",
            state="attention",
            what=f"{len(left)} of processes that are gone, such as {left[0]}",
            to_do="the next `atelier run` removes them, or `atelier gc --yes` now",
        )
    return Finding(name="half-written files", state="ok", what="none")
