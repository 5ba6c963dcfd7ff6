"""What can be wrong around an installation: proxies, clocks, disks, limits, names of folders.

A check looks and never mends, and makes nothing: no folder, no server, no file that stays.
"""

import os
import resource
import shlex
import time
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import quote, unquote

from atelier.services.finding import Finding
from atelier.services.proxies import unusable_proxies
from tasks.runtime.disk_space import lack_of_room
from tasks.runtime.processes import this_start
from tasks.store.clock import SECONDS_OF_DRIFT, jump_ahead

LOOPBACK = ("127.0.0.1", "localhost")
EARLIEST_YEAR = 2025
MIN_OPEN_FILES = 256
SECONDS_FROM_NOW = 120.0
"""How much younger than now a file may seem before the clock was surely set back."""
_PROXIES = ("http_proxy", "all_proxy", "ws_proxy")


def proxies(environment: Mapping[str, str]) -> Finding:
    """No proxy would be asked for the servers of this machine, and downloads can use each.

    Addresses of proxies are not told: they may hold a password.
    """
    named = sorted(n for n, value in environment.items() if n.lower() in _PROXIES and value)
    spared = environment.get("no_proxy") or environment.get("NO_PROXY") or ""
    caught = [host for host in LOOPBACK if not _is_spared(host, spared)] if named else []
    unusable = unusable_proxies(environment)
    if not caught and not unusable:
        what = f"{', '.join(named)} spares this machine" if named else "none is in the way"
        return Finding(name="proxies", state="ok", what=what)
    found, steps = [], []
    if caught:
        found.append(f"{', '.join(named)} would be asked for the servers at {' and '.join(caught)}")
        hosts = shlex.quote(",".join([*filter(None, [spared]), *caught]))
        steps.append(
            f"export NO_PROXY={hosts} no_proxy={hosts}, for programs that do not go around it by"
            " themselves"
        )
    if unusable:
        found.append(
            f"no client here can use the proxy of {', '.join(unusable)}: nothing is downloaded past"
            " it"
        )
        steps.append("set a http:// or https:// proxy, or ATELIER_DATA to a folder with the data")
    what, to_do = "; ".join(found), "; ".join(steps)
    return Finding(name="proxies", state="attention", what=what, to_do=to_do)


def _is_spared(host: str, spared: str) -> bool:
    """Whether a list of hosts that need no proxy names one, a suffix of it, or all."""
    names = [name.strip().lower().partition(":")[0] for name in spared.split(",")]
    return any(
        name == "*" or (name and f".{host}".endswith(f".{name.lstrip('.')}")) for name in names
    )


def clock(home: Path, now: float | None = None) -> Finding:
    """The clock tells a time that this home can believe. now: seconds since 1970."""
    now = time.time() if now is None else now
    if not this_start():
        what = "this system tells processes apart by the clock only: do not set it while all runs"
        return Finding(name="clock", state="ok", what=what)
    to_do = "see `timedatectl`; set it right, and let it be set from the network"
    if time.gmtime(now).tm_year < EARLIEST_YEAR:
        what = f"it says {time.strftime('%Y-%m-%d', time.gmtime(now))}"
        return Finding(name="clock", state="attention", what=what, to_do=to_do)
    jumped = jump_ahead(now)
    if jumped > SECONDS_OF_DRIFT:
        what = f"it jumped {jumped:.0f} s ahead: for an hour ages are told without the jump"
        return Finding(name="clock", state="attention", what=what, to_do=to_do)
    ahead = _newest(home) - now
    if ahead > SECONDS_FROM_NOW:
        what = f"files of the home are from {ahead:.0f} s after now: it has been set back"
        return Finding(name="clock", state="attention", what=what, to_do=to_do)
    return Finding(name="clock", state="ok", what="as it was when this home last looked")


def _newest(home: Path) -> float:
    """When the latest of the files was written that every run writes."""
    files = [*home.glob("steps/*.jsonl"), *home.glob("locks/*"), *home.glob("*.json")]
    times = []
    for file in files:
        try:
            times.append(file.stat().st_mtime)
        except OSError:
            continue
    return max(times, default=0.0)


def strays(home: Path) -> Finding:
    """Nothing of this home lies beside it, where versions before wrote what they misread."""
    spelled = str(home)
    others = {
        unquote(spelled),
        quote(spelled),
        spelled.partition("?")[0],
        spelled.partition("#")[0],
    }
    marks = ("mlflow.db", "mlartifacts", "prefect.db", "prefect")
    found = [
        other
        for other in sorted(others - {spelled, ""})
        if any((Path(other) / mark).exists() for mark in marks)
    ]
    if not found:
        return Finding(name="strays", state="ok", what="nothing lies beside the home")
    return Finding(
        name="strays",
        state="attention",
        what=f"a version before took {home} for {' and '.join(found)}, and wrote there",
        to_do=f"`atelier down`; move mlflow.db and mlartifacts from there to {home} if they are"
        " not there yet; `atelier up`",
    )


def room(home: Path, temporary: Path) -> Finding:
    """Files can be written: bytes, inodes, quota, and a disk that takes writes."""
    for place in (home, temporary):
        lack = lack_of_room(place, try_it=place.is_dir())
        if lack:
            what, _, to_do = lack.partition(": ")
            return Finding(name="room", state="failed", what=what, to_do=to_do)
    return Finding(name="room", state="ok", what=f"{home} and {temporary} take files")


def open_files(limit: int | None = None) -> Finding:
    """A process may open as many files as a server needs. limit: by default this process's."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[0] if limit is None else limit
    if 0 <= limit < MIN_OPEN_FILES:
        to_do = "`ulimit -n 4096`, and start again"
        what = f"a process may open {limit} of them; the servers need {MIN_OPEN_FILES}"
        return Finding(name="open files", state="attention", what=what, to_do=to_do)
    return Finding(name="open files", state="ok", what=f"up to {limit}" if limit >= 0 else "any")


def is_writable(home: Path) -> Finding:
    """Files can be made in the home folder, or the folder itself can be."""
    existing = next(parent for parent in (home, *home.parents) if parent.exists())
    may = existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
    if may:
        what = str(home) if existing == home else f"{home}, not made yet"
        return Finding(name="home", state="ok", what=what)
    why = "may not be written to" if existing.is_dir() else "is no folder"
    return Finding(
        name="home",
        state="failed",
        what=f"{home}: {existing} {why}",
        to_do="set ATELIER_HOME to a folder that you may write to",
    )
