"""The guard before all servers: who may ask them, and what their pages may ask for.

Any page that is open in a browser on this machine can send requests to a server on loopback. Both
servers are able to run code (an automation starts a command, a model brings its own), so a request
must be addressed to a name of ours, and must not come from a page of somebody else. This is plain
ASGI and imports neither server.
"""

import ipaddress
import os
import re
from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from tasks.store.files import BadInput

HOSTS_VARIABLE = "ATELIER_ALLOWED_HOSTS"
LOOPBACK_NAMES = ("127.0.0.1", "localhost", "[::1]")

_AUTHORITY = re.compile(r"(?P<name>\[[0-9a-f:.]+\]|[a-z0-9_][a-z0-9_.-]*)(?::(?P<port>\d{1,5}))?")
_SAFE_METHODS = ("GET", "HEAD", "OPTIONS")
_QUESTIONS = ("api", "ajax-api", "gateway", "graphql", "_nicegui_ws")
"""Below which paths programs ask. A GET may do something there: MLflow's server calls an address
that the request names, or starts the command line of an assistant; the playground's begins a
session."""
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")
_DEFAULT_PORTS = {"http": "80", "https": "443"}

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
App = Callable[[Message, Receive, Send], Awaitable[None]]


@dataclass(frozen=True, kw_only=True, slots=True)
class Allowed:
    """To which names a request may be addressed, and from whose pages it may come."""

    names: frozenset[str]
    """Host names that are ours on any port."""
    authorities: frozenset[str]
    """host:port pairs that are ours on that port only."""
    origins: frozenset[str]
    """scheme://host or scheme://host:port, as browsers write them."""

    def patterns(self) -> set[str]:
        """The same as MLflow's own check wants it: words, and shell patterns for any port."""
        any_port = {name.replace("[", "[[]", 1) + ":*" for name in self.names}
        return {*self.names, *any_port, *self.authorities}

    def is_addressed(self, host: str) -> bool:
        """Whether a Host header names us."""
        found = _AUTHORITY.fullmatch(host.lower())
        return found is not None and (
            found["name"] in self.names or found.group() in self.authorities
        )


def allowed(port: int, further: str | None = None, origins: Iterable[str] = ()) -> Allowed:
    """Loopback's names, and what a person adds.

    port: where the server listens. further: host or host:port, comma separated; by default what
    ATELIER_ALLOWED_HOSTS says. origins: further ones that a setting of the server names.
    Raises BadInput for an entry that is neither.
    """
    names, authorities = set(LOOPBACK_NAMES), set()
    known = {_origin("http", name, str(port)) for name in LOOPBACK_NAMES}
    for entry in _entries(os.environ.get(HOSTS_VARIABLE, "") if further is None else further):
        found = _AUTHORITY.fullmatch(entry)
        if found is None or int(found["port"] or 0) > 65_535:
            raise BadInput(
                f"{HOSTS_VARIABLE}: {entry!r} is no host; wanted names or addresses, each perhaps"
                " with a port, separated by commas: atelier.example.org,10.0.0.5:4200"
            )
        if found["port"]:
            authorities.add(entry)
            ports: tuple[str, ...] = (found["port"],)
        else:
            names.add(entry)
            ports = ("80", "443", str(port))
        known |= {
            _origin(scheme, found["name"], each) for scheme in _DEFAULT_PORTS for each in ports
        }
    known |= {each.strip().lower().rstrip("/") for each in origins}
    return Allowed(
        names=frozenset(names),
        authorities=frozenset(authorities),
        origins=frozenset(known - {"", "*", "null"}),
    )


def _entries(text: str) -> list[str]:
    return [entry.strip().lower() for entry in text.split(",") if entry.strip()]


def _origin(scheme: str, name: str, port: str) -> str:
    is_default = _DEFAULT_PORTS[scheme] == port
    return f"{scheme}://{name}" if is_default else f"{scheme}://{name}:{port}"


def page_policy(origins: Iterable[str], pictures_from: Iterable[str] = ()) -> str:
    """The Content-Security-Policy of a server's pages: they ask the server, and nobody else.

    origins: the server's own, one of which the page was opened at, and another may be its API's.
    pictures_from: further origins of pictures.

    Scripts may compile text: MLflow's charts and the time line of Prefect's runs do. None may stand
    in a page's text, where a name or a sample could bring one along.
    """
    connections = []
    for origin in sorted(origins):
        if "[" not in origin:  # a policy cannot name IPv6 addresses; 'self' covers the page's own
            connections += [origin, "ws" + origin.removeprefix("http")]
    rules = {
        "default-src": "'self'",
        "base-uri": "'self'",
        "object-src": "'none'",
        "form-action": "'self'",
        "frame-ancestors": "'self'",
        "script-src": "'self' 'unsafe-eval'",
        "style-src": "'self' 'unsafe-inline'",
        "font-src": "'self' data:",
        "img-src": " ".join(["'self' data: blob:", *pictures_from]),
        "media-src": "'self' data: blob:",
        "worker-src": "'self' blob:",
        "frame-src": "'self' data: blob:",
        "connect-src": " ".join(["'self' data: blob:", *connections]),
    }
    return "; ".join(f"{name} {value}".strip() for name, value in rules.items())


def is_loopback(host: str) -> bool:
    """Whether a host name, or an address without brackets, is this machine's own."""
    name = host.lower().rstrip(".")
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return name == "localhost" or name.endswith(".localhost")


def origin_of(address: str) -> str | None:
    """scheme://host:port of an address, without what else it holds; None unless it is HTTP."""
    parts = urlsplit(address)
    if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
        return None
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return _origin(parts.scheme, name, str(parts.port or _DEFAULT_PORTS[parts.scheme]))


class OriginGuard:
    """Refuses what is not addressed to us, or comes from a page that is not ours.

    wants_json: refuse bodies of any other type, which browsers send without asking first.
    wants_password: refuse other credentials than a user's password; MLflow's accounts fail at them.
    """

    def __init__(
        self,
        app: App,
        allowed: Allowed,
        policy: str,
        *,
        wants_json: bool,
        wants_password: bool = False,
    ) -> None:
        self._app = app
        self._allowed = allowed
        self._policy = (b"content-security-policy", policy.encode("latin-1"))
        self._wants_json = wants_json
        self._wants_password = wants_password

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Pass on, or refuse. The server's own start and stop pass through."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
        elif (refusal := self._refusal(scope)) is None:
            await self._app(scope, receive, self._with_policy(send))
        elif scope["type"] == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": refusal[1]})
        else:
            await _answer(send, *refusal)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """Status and reason, or None for a request that is well."""
        headers = _headers(scope)
        hosts = headers.get("host", [])
        if len(hosts) != 1 or not self._allowed.is_addressed(hosts[0]):
            return 400, (
                f"the Host header names no host of this server; {HOSTS_VARIABLE} can add one"
            )
        origins = headers.get("origin", [])
        if not all(origin.lower() in self._allowed.origins for origin in origins):
            return 403, f"a page of another origin may not ask; {HOSTS_VARIABLE} can add its host"
        if self._wants_password and not all(map(_is_password, headers.get("authorization", []))):
            return 401, (
                "a user and a password are wanted: set MLFLOW_TRACKING_USERNAME and"
                " MLFLOW_TRACKING_PASSWORD, and no MLFLOW_TRACKING_TOKEN"
            )
        return self._refused_request(scope, headers)

    def _refused_request(
        self, scope: Message, headers: Mapping[str, list[str]]
    ) -> tuple[int, str] | None:
        """The same of a request to us, of nobody's page or one of ours: by what it asks."""
        origins = headers.get("origin", [])
        is_safe = scope["type"] == "http" and scope["method"] in _SAFE_METHODS
        if is_safe and not _is_question(scope["path"]):  # a link, or a picture
            return None
        is_between_ours = bool(origins) and urlsplit(origins[0]).netloc != headers["host"][0]
        sites = headers.get("sec-fetch-site", [])
        if not is_between_ours and not set(sites) <= {"same-origin", "none"}:
            return 403, "a page of another site may not ask or change anything"
        takes_a_body = scope["type"] == "http" and not is_safe
        if takes_a_body and self._wants_json and not _is_json_or_empty(headers):
            return 415, "the body must be application/json"
        return None

    def _with_policy(self, send: Send) -> Send:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                others = [each for each in message.get("headers", []) if each[0] != _NO_SNIFFING[0]]
                message = {**message, "headers": [*others, _NO_SNIFFING, self._policy]}
            await send(message)

        return send_with_policy


def _headers(scope: Message) -> Mapping[str, list[str]]:
    """All values of each header: one that is sent twice must not hide behind the other."""
    found: dict[str, list[str]] = {}
    for name, value in scope["headers"]:
        found.setdefault(name.decode("latin-1").lower(), []).append(value.decode("latin-1").strip())
    return found


def _is_question(path: str) -> bool:
    """Whether a path is one of the API's, and not of a page or a picture."""
    return path.lstrip("/").partition("/")[0] in _QUESTIONS


def _is_password(authorization: str) -> bool:
    return authorization.partition(" ")[0].lower() == "basic"


def _is_json_or_empty(headers: Mapping[str, list[str]]) -> bool:
    types = headers.get("content-type", [])
    if types:
        return all(each.partition(";")[0].strip().lower() == "application/json" for each in types)
    has_body = "transfer-encoding" in headers or set(headers.get("content-length", ["0"])) != {"0"}
    return not has_body


async def _answer(send: Send, status: int, reason: str) -> None:
    body = reason.encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        (b"connection", b"close"),  # the body of the request is left unread
    ]
    if status == 401:
        headers.append((b"www-authenticate", b'Basic realm="mlflow"'))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
