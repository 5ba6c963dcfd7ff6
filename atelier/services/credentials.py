"""Who may use the two servers of a home: nobody else on the machine, once a secret is there.

The secret is one line, USER:PASSWORD, in a file of the home that its owner alone may read. It goes
to the servers, the worker and its runs by their environment: arguments can be read by everybody.
"""

import os
import re
import secrets
import stat
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from tasks.store.files import BadInput, digest_of, home, write_text

SWITCH = "ATELIER_AUTH"
TRACKING_ACCOUNTS = "ATELIER_TRACKING_ACCOUNTS"
"""Tells the process of the MLflow server to ask for an account."""
SHORTEST_PASSWORD = 12
_LINE = re.compile(
    rf"(?:(?P<user>[A-Za-z0-9._-]+):)?(?P<password>[!-9;-~]{{{SHORTEST_PASSWORD},500}})"
)
_YES, _NO = ("1", "true", "yes", "on"), ("0", "false", "no", "off")
_SERVER_STRING, _CLIENT_STRING = "PREFECT_SERVER_API_AUTH_STRING", "PREFECT_API_AUTH_STRING"


@dataclass(frozen=True, slots=True)
class Secret:
    """What both servers ask for."""

    user: str
    password: str

    def __str__(self) -> str:
        return f"{self.user}:{self.password}"

    def __repr__(self) -> str:
        return f"Secret({self.user!r}, ...)"


def secret_path() -> Path:
    """Where the secret of this home is, if it has one."""
    return home() / "secret"


def secret(*, creates: bool = True) -> Secret | None:
    """This home's secret, or None without one.

    creates: make one where ATELIER_AUTH=1 asks for it.
    Raises BadInput for a file that others can read or that holds no secret.
    """
    wish = os.environ.get(SWITCH, "").strip().lower()
    if wish and wish not in _YES + _NO:
        raise BadInput(f"{SWITCH} is {wish!r}; wanted 1 or 0, or nothing: then a secret decides")
    if wish in _NO:
        return None
    if creates and wish in _YES and not secret_path().exists():
        _create_once(secret_path(), f"atelier:{secrets.token_urlsafe(32)}\n")
    return _read(secret_path())


def _create_once(path: Path, text: str) -> None:
    """Write a file that its owner alone may read; one that another process made first stays."""
    path.parent.mkdir(parents=True, exist_ok=True)
    own = path.with_name(f".{path.name}-{os.getpid()}-{secrets.token_hex(4)}")
    handle = os.open(own, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w", encoding="ascii") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        os.link(own, path)
    except FileExistsError:
        pass
    finally:
        own.unlink()


def _read(path: Path) -> Secret | None:
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise BadInput(f"{path} is no file of a secret: {error.strerror}; remove it") from error
    found = os.fstat(handle)
    if not stat.S_ISREG(found.st_mode):
        os.close(handle)
        raise BadInput(f"{path} is no file of a secret: it is of another kind; remove it")
    with os.fdopen(handle, "rb") as file:
        if found.st_uid != os.getuid() or stat.S_IMODE(found.st_mode) & 0o077:
            raise BadInput(
                f"{path} has the mode {stat.S_IMODE(found.st_mode):o} and the owner"
                f" {found.st_uid}: others may know it; delete it, and {SWITCH}=1 makes another,"
                " or `chmod 600` it if you know that nobody has read it"
            )
        parsed = _LINE.fullmatch(file.read(1000).decode("ascii", "replace").strip())
    if parsed is None:
        raise BadInput(
            f"{path} holds no secret; wanted one line, USER:PASSWORD, with a password of at least"
            f" {SHORTEST_PASSWORD} visible ASCII characters, no colon among them; delete it, and"
            f" {SWITCH}=1 makes one"
        )
    return Secret(parsed["user"] or "atelier", parsed["password"])


def apply_credentials(own_urls: Collection[str], *, creates: bool = True) -> None:
    """Let the clients of this process, and of those that it starts, say who they are.

    own_urls: of servers that this home started. To a server elsewhere nothing of ours is sent.
    creates: see `secret`.
    """
    found = secret(creates=creates)
    if _is_ours("PREFECT_API_URL", own_urls):
        text = os.environ.get(_SERVER_STRING) or (str(found) if found else None)
        if text:
            os.environ.setdefault(_CLIENT_STRING, text)
    if found and _is_ours("MLFLOW_TRACKING_URI", own_urls):
        os.environ["MLFLOW_TRACKING_USERNAME"] = found.user
        os.environ["MLFLOW_TRACKING_PASSWORD"] = found.password


def _is_ours(variable: str, own_urls: Collection[str]) -> bool:
    named = os.environ.get(variable, "").rstrip("/").removesuffix("/api")
    return not named or named.replace("//localhost:", "//127.0.0.1:") in own_urls


def server_environment(name: str) -> dict[str, str]:
    """What a server that is about to be started must know; empty where anybody may ask it."""
    found = secret()
    if name == "prefect":
        text = _prefect_string(found)
        return {_SERVER_STRING: text} if text else {}
    if found is None:
        return {}
    settings = home() / "mlflow-accounts.ini"
    write_text(settings, _ACCOUNTS)
    return {
        TRACKING_ACCOUNTS: "1",
        "MLFLOW_AUTH_CONFIG_PATH": str(settings),
        "MLFLOW_AUTH_ADMIN_USERNAME": found.user,
        "MLFLOW_AUTH_ADMIN_PASSWORD": found.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": digest_of(["the key of forms", str(found)]),
    }


_ACCOUNTS = """; Written by atelier at each start. The password is not in here.
[mlflow]
default_permission = READ
database_uri = sqlite:///mlflow-accounts.db
auth_cache_ttl_seconds = 300
"""


def _prefect_string(found: Secret | None) -> str | None:
    """What a person has set for the server, or for its clients where a secret is wanted."""
    ours = os.environ.get(_CLIENT_STRING) or str(found) if found else None
    return os.environ.get(_SERVER_STRING) or ours


def access_digest(name: str) -> str:
    """Tells one secret of a server from another; empty where anybody may ask it."""
    found = secret(creates=False)
    text = _prefect_string(found) if name == "prefect" else str(found or "")
    return digest_of(["access", text])[:16] if text else ""


def how_to_log_in() -> str | None:
    """A line for people, or None where the servers of this home ask nobody who they are."""
    found = secret(creates=False)
    if found is None:
        return None
    return (
        f"{secret_path()}: the whole line in Prefect; in MLflow the user {found.user}, and what"
        " follows the colon"
    )
