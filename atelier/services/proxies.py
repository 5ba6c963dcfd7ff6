"""What a proxy in the environment may and may not do: our own loopback traffic never uses one.

Prefect's client and MLflow's read the environment themselves, and so do the processes that we
start: the environment is put right once, before they are imported.
"""

import os
import re
from collections.abc import Mapping, MutableMapping
from importlib.util import find_spec
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from atelier.services.origin_guard import is_loopback

UNUSABLE_PROXIES_VARIABLE = "ATELIER_UNUSABLE_PROXIES"
"""Which unusable proxies a download would have used; `tasks.data.sources` asks for it."""

_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_OF_DOWNLOADS = ("http_proxy", "https_proxy")
_KINDS = (*_OF_DOWNLOADS, "all_proxy", "ws_proxy", "socks_proxy")
_ADDRESSES = ("PREFECT_API_URL", "MLFLOW_TRACKING_URI", "MLFLOW_REGISTRY_URI")


def bypass_proxies(environment: MutableMapping[str, str] = os.environ) -> None:
    """Add loopback to NO_PROXY, and take away proxies that no client of ours can use.

    What a person has set for other hosts stays; downloads go through it. Of a proxy that was taken
    away the name of its variable is kept, so that a download says why it does not begin: to go
    past a proxy in silence is not what its owner wants.
    """
    for name, value in list(environment.items()):
        if name.lower() in _KINDS:  # a blank or a line's end, from a file that was read in
            environment[name] = value.strip()
    _extend_exceptions(environment)
    unusable = unusable_proxies(environment)
    for name in unusable:
        del environment[name]
    of_downloads = sorted(
        name for name in unusable if name.lower() in ("http_proxy", "https_proxy")
    )
    if of_downloads:
        environment[UNUSABLE_PROXIES_VARIABLE] = ", ".join(of_downloads)


def unusable_proxies(environment: Mapping[str, str]) -> list[str]:
    """The variables that name a proxy with which Prefect's client would not even start."""
    return sorted(
        name
        for name, value in environment.items()
        if name.lower() in _KINDS and value.strip() and not _is_usable(value.strip())
    )


def _extend_exceptions(environment: MutableMapping[str, str]) -> None:
    """Both spellings: some clients read the one first, some the other."""
    hosts = [urlsplit(environment.get(name, "")).hostname or "" for name in _ADDRESSES]
    wanted = dict.fromkeys([*_LOOPBACK, *filter(is_loopback, hosts)])
    values = {name: environment.get(name) for name in ("no_proxy", "NO_PROXY")}
    for name, value in values.items():
        kept = value or next(filter(None, values.values()), "")
        if kept.strip() == "*":
            environment[name] = "*"  # all hosts already, and only if it stands alone
            continue
        entries = list(filter(None, map(_exception, re.split(r"[,\s]+", kept))))
        entries += [host for host in wanted if host not in entries]
        environment[name] = ",".join(entries)


def _exception(entry: str) -> str:
    """A host that needs no proxy as all clients take it; empty for what none of them understands.

    Prefect's does not even start with an IPv6 address in brackets, with a range of such addresses,
    or with letters beyond ASCII.
    """
    bare = re.sub(r"^\[([^\]]*)\](:\d*)?$", r"\1", entry)
    try:
        IPv6Address(bare.partition("/")[0])
    except ValueError:
        pass
    else:
        return "" if "/" in bare else bare
    if "://" in entry:
        return entry if entry.isascii() and "[" not in entry else ""
    name, colon, port = entry.partition(":")
    try:
        name = name.encode("idna").decode() if not name.isascii() else name
    except UnicodeError:
        return ""
    is_well = name.isprintable() and (not colon or port.isdecimal()) and not set(name) & set("[]")
    return f"{name}{colon}{port}" if is_well else ""


def _is_usable(address: str) -> bool:
    """Whether httpx, Prefect's client, starts with this proxy in the environment."""
    if not address.isprintable():
        return False
    try:
        parts = urlsplit(address if "://" in address else f"http://{address}")
        has_place = bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        return False
    if parts.scheme in ("socks5", "socks5h"):
        return has_place and find_spec("socksio") is not None
    return has_place and parts.scheme in ("http", "https")
