"""The one place from which raw HTTP requests go to our servers.

Prefect and MLflow take seconds to import, so what is asked before or without them is asked here:
without a proxy on loopback, with what the server wants to know of us, and with an end in sight.
"""

import json
import os
import urllib.error
import urllib.request
import uuid
from base64 import b64encode
from http.client import HTTPException
from typing import Any
from urllib.parse import unquote, urlsplit

from atelier.services.origin_guard import is_loopback

SECONDS_TO_ANSWER = 20.0
SECONDS_TO_BE_HEALTHY = 5.0
_HEALTH = {"prefect": ("/api/health", "true"), "mlflow": ("/health", "OK")}
_CREDENTIALS = {
    "prefect": "PREFECT_API_AUTH_STRING, and PREFECT_SERVER_API_AUTH_STRING for a server of this"
    " home",
    "mlflow": "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD",
}


class AccessRefused(ConnectionError):
    """A server does not take what we say of ourselves; the message says what to set."""


class _Answered(OSError):
    """A server answered with an error."""

    def __init__(self, address: str, status: int, body: str) -> None:
        super().__init__(f"{address} answered {status}: {body[:200]}")
        self.status, self.body = status, body


def ask_prefect(url: str, path: str, body: object) -> Any:
    """What the Prefect server at an address answers to a POST.

    Raises AccessRefused where it does not know us, and another OSError when it does not answer.
    """
    address = f"{url}/api/{path}"
    try:
        text = _post("prefect", address, body, {})
    except _Answered as error:
        if error.status != 403 or "CSRF" not in error.body:
            raise
        text = _post("prefect", address, body, _csrf_headers(url))
    return json.loads(text)


def ask_mlflow(url: str, path: str, body: object) -> Any:
    """The same of an MLflow server."""
    return json.loads(_post("mlflow", f"{url}/api/2.0/mlflow/{path}", body, {}))


def check_access(name: str, url: str) -> None:
    """Raise AccessRefused where a healthy server does not take our credentials."""
    try:
        if name == "prefect":
            ask_prefect(url, "flow_runs/count", {})
        else:
            ask_mlflow(url, "experiments/search", {"max_results": 1})
    except AccessRefused:
        raise
    except (OSError, ValueError):  # busy, or another kind of server: not for us to judge here
        return


def is_healthy(name: str, url: str) -> bool:
    """Whether the server at an address says that it is well; that needs no credentials."""
    path, wanted = _HEALTH[name]
    try:
        return _send(name, url + path, None, {}, SECONDS_TO_BE_HEALTHY) == wanted
    except (OSError, ValueError):
        return False


def _post(name: str, address: str, body: object, headers: dict[str, str]) -> str:
    content = json.dumps(body).encode()
    return _send(name, address, content, {"Content-Type": "application/json", **headers})


def _csrf_headers(url: str) -> dict[str, str]:
    """What a server with PREFECT_SERVER_CSRF_PROTECTION_ENABLED wants beside a change."""
    client = str(uuid.uuid4())
    answer = _send("prefect", f"{url}/api/csrf-token?client={client}", None, {})
    return {"Prefect-Csrf-Token": json.loads(answer)["token"], "Prefect-Csrf-Client": client}


def _send(
    name: str,
    address: str,
    content: bytes | None,
    headers: dict[str, str],
    seconds: float = SECONDS_TO_ANSWER,
) -> str:
    parts = urlsplit(address)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2])
    place = f"{bare.scheme}://{bare.netloc}"
    request = urllib.request.Request(bare.geturl(), content, headers)
    authorization = _authorization(name, parts.username, parts.password)
    if authorization:  # not to where an answer may send us on to
        request.add_unredirected_header("Authorization", authorization)
    proxies = urllib.request.ProxyHandler({} if is_loopback(parts.hostname or "") else None)
    try:
        with urllib.request.build_opener(proxies).open(request, timeout=seconds) as answer:
            text: str = answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            body = error.read().decode(errors="replace")
        if error.code == 401:
            raise AccessRefused(
                f"the {name} server at {place} does not take our credentials;"
                f" set {_CREDENTIALS[name]}"
            ) from None
        raise _Answered(place + parts.path, error.code, body) from None
    except HTTPException as error:
        raise ConnectionError(f"{place}: {error!r}") from error
    return text


def _authorization(name: str, user: str | None, password: str | None) -> str | None:
    """What the clients of Prefect and MLflow would send, from the address or the environment."""
    if user is not None:
        return _basic(f"{unquote(user)}:{unquote(password or '')}")
    if name == "prefect":
        text, key = os.environ.get("PREFECT_API_AUTH_STRING"), os.environ.get("PREFECT_API_KEY")
        return _basic(text) if text else f"Bearer {key}" if key else None
    user, password, token = (
        os.environ.get(f"MLFLOW_TRACKING_{each}") for each in ("USERNAME", "PASSWORD", "TOKEN")
    )
    return (
        _basic(f"{user}:{password}") if user and password else f"Bearer {token}" if token else None
    )


def _basic(text: str) -> str:
    return f"Basic {b64encode(text.encode()).decode()}"
