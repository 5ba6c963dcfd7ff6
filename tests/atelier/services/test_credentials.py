"""The secret of a home: how it is made, who may read it, where it goes; and the home's privacy."""

import os
import stat
import subprocess
import sys
import threading
from base64 import b64encode
from pathlib import Path

import pytest

from atelier.diagnostics import access_checks
from atelier.services import background_processes, credentials, local_servers, process_settings
from atelier.services.credentials import (
    SWITCH,
    Secret,
    access_digest,
    apply_credentials,
    secret,
    secret_path,
    server_environment,
)
from atelier.services.private_home import make_private, open_to_others
from atelier.services.server_records import GUARD, Server
from tasks.store.files import BadInput

ROOT = Path(__file__).resolve().parents[3]
OURS = "http://127.0.0.1:4200"
CREDENTIALS = (
    *("PREFECT_API_AUTH_STRING", "PREFECT_SERVER_API_AUTH_STRING"),
    *("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD", SWITCH),
    *("PREFECT_API_URL", "MLFLOW_TRACKING_URI"),
)


@pytest.fixture(autouse=True)
def nothing_set(atelier_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.setenv(name, "")  # so that what a test changes is put back
        monkeypatch.delenv(name)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_without_a_wish_there_is_no_secret(atelier_home: Path) -> None:
    assert secret() is None
    assert server_environment("prefect") == server_environment("mlflow") == {}
    assert access_digest("prefect") == access_digest("mlflow") == ""
    assert credentials.how_to_log_in() is None


@pytest.mark.parametrize("wish", ["1", "true", "YES", "on"])
def test_a_secret_is_made_once_and_found_afterwards(
    wish: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = os.umask(0)
    try:
        monkeypatch.setenv(SWITCH, wish)
        made = secret()
    finally:
        os.umask(old)

    assert made is not None
    assert len(made.password) >= 40
    assert mode(secret_path()) == 0o600
    assert secret() == made
    monkeypatch.delenv(SWITCH)
    assert secret() == made
    monkeypatch.setenv(SWITCH, "0")
    assert secret() is None
    assert made.password not in repr(made)


def test_two_commands_that_begin_together_agree_on_a_secret(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(SWITCH, "1")
    found: list[Secret | None] = []
    threads = [threading.Thread(target=lambda: found.append(secret())) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(found) == 16
    assert len({str(each) for each in found}) == 1
    assert [path.name for path in secret_path().parent.iterdir()] == ["secret"]


def test_a_wish_that_is_neither_yes_nor_no_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(SWITCH, "maybe")

    with pytest.raises(BadInput, match="ATELIER_AUTH is 'maybe'"):
        secret()


def put(text: str, permissions: int = 0o600) -> None:
    secret_path().parent.mkdir(exist_ok=True)
    secret_path().write_text(text)
    secret_path().chmod(permissions)


@pytest.mark.parametrize("permissions", [0o644, 0o640, 0o604, 0o622, 0o601])
def test_a_secret_that_others_may_know_is_none(permissions: int) -> None:
    put("atelier:a long enough".replace(" ", "-"), permissions)

    with pytest.raises(BadInput, match="others may know it"):
        secret()


@pytest.mark.parametrize(
    "text",
    ["", "\n", "short", "atelier:short", "atelier:with some spaces", "a b:longenoughpassword"],
)
def test_a_secret_must_be_one(text: str) -> None:
    put(text)

    with pytest.raises(BadInput, match="holds no secret"):
        secret()


def test_a_secret_of_a_persons_own_is_used() -> None:
    put("ann:correct-horse-battery\n")
    assert secret() == Secret("ann", "correct-horse-battery")

    put("ann.smith-2:correct-horse-battery")
    assert secret() == Secret("ann.smith-2", "correct-horse-battery")

    put("correct-horse-battery")
    assert secret() == Secret("atelier", "correct-horse-battery")


@pytest.mark.parametrize("kind", ["link", "pipe", "folder"])
def test_what_is_no_file_is_no_secret(kind: str, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("atelier:correct-horse-battery\n")
    secret_path().parent.mkdir()
    if kind == "link":
        secret_path().symlink_to(tmp_path / "elsewhere")
    elif kind == "pipe":
        os.mkfifo(secret_path(), 0o600)
    else:
        secret_path().mkdir(0o700)

    with pytest.raises(BadInput, match="is no file of a secret"):
        secret()


def test_the_clients_of_our_own_servers_say_who_they_are() -> None:
    put("ann:correct-horse-battery")

    apply_credentials([])

    assert os.environ["PREFECT_API_AUTH_STRING"] == "ann:correct-horse-battery"
    assert os.environ["MLFLOW_TRACKING_USERNAME"] == "ann"
    assert os.environ["MLFLOW_TRACKING_PASSWORD"] == "correct-horse-battery"


@pytest.mark.parametrize("address", [OURS, f"{OURS}/", "http://localhost:4200"])
def test_so_they_do_where_a_person_names_the_address_of_ours(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    put("ann:correct-horse-battery")
    monkeypatch.setenv("PREFECT_API_URL", address.rstrip("/") + "/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)

    apply_credentials([OURS])

    assert "PREFECT_API_AUTH_STRING" in os.environ
    assert "MLFLOW_TRACKING_PASSWORD" in os.environ


def test_the_secret_is_not_sent_to_servers_of_others(monkeypatch: pytest.MonkeyPatch) -> None:
    put("ann:correct-horse-battery")
    monkeypatch.setenv("PREFECT_API_URL", "https://prefect.example.org/api")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "https://mlflow.example.org")

    apply_credentials([OURS])

    assert "PREFECT_API_AUTH_STRING" not in os.environ
    assert "MLFLOW_TRACKING_PASSWORD" not in os.environ


@pytest.mark.parametrize("with_secret", [False, True])
def test_what_a_person_sets_for_prefect_stays(
    with_secret: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if with_secret:
        put("ann:correct-horse-battery")
    monkeypatch.setenv("PREFECT_SERVER_API_AUTH_STRING", "bob:theirs")

    apply_credentials([])

    assert os.environ["PREFECT_API_AUTH_STRING"] == "bob:theirs"
    assert server_environment("prefect") == {"PREFECT_SERVER_API_AUTH_STRING": "bob:theirs"}


def test_what_a_person_sets_for_prefects_clients_the_server_asks_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("PREFECT_API_AUTH_STRING", "bob:theirs")
    assert server_environment("prefect") == {}

    put("ann:correct-horse-battery")
    apply_credentials([])

    assert os.environ["PREFECT_API_AUTH_STRING"] == "bob:theirs"
    assert server_environment("prefect") == {"PREFECT_SERVER_API_AUTH_STRING": "bob:theirs"}


def test_mlflow_gets_an_account_and_a_file_without_a_password(atelier_home: Path) -> None:
    put("ann:correct-horse-battery")

    environment = server_environment("mlflow")

    assert environment["MLFLOW_AUTH_ADMIN_USERNAME"] == "ann"
    assert environment["MLFLOW_AUTH_ADMIN_PASSWORD"] == "correct-horse-battery"
    key = environment["MLFLOW_FLASK_SERVER_SECRET_KEY"]
    assert len(key) == 64
    assert "correct" not in Path(environment["MLFLOW_AUTH_CONFIG_PATH"]).read_text()


def server(name: str, **fields: str) -> Server:
    return Server(name, OURS, 4200, os.getpid(), 0.0, **fields)


def test_a_server_that_asks_nobody_is_replaced_once_a_secret_is_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    as_wanted = local_servers._serves_as_wanted
    for name in ("prefect", "mlflow"):
        assert as_wanted(server(name, guard=GUARD), None)
        assert as_wanted(server(name, guard=GUARD), 4200)
        assert not as_wanted(server(name, guard=GUARD), 4201)
        assert not as_wanted(server(name), None)  # an older version's
        assert as_wanted(server(name, guard=GUARD, access="x"), None)  # asks for more than we know
    put("ann:correct-horse-battery")
    for name in ("prefect", "mlflow"):
        assert not as_wanted(server(name, guard=GUARD), None)
        assert not as_wanted(server(name, guard=GUARD, access="another"), None)
        assert as_wanted(server(name, guard=GUARD, access=access_digest(name)), None)
    monkeypatch.setenv("ATELIER_ALLOWED_HOSTS", "atelier.example.org")
    found = server("prefect", guard=GUARD, access=access_digest("prefect"))
    assert not as_wanted(found, None)


def test_a_home_that_others_could_read_is_made_private(atelier_home: Path) -> None:
    (atelier_home / "prefect").mkdir(parents=True, mode=0o755)
    (atelier_home / "logs").mkdir()
    names = ("mlflow.db", "mlflow.db-wal", "prefect/prefect.db", "logs/mlflow-server.log")
    for name in names:
        (atelier_home / name).write_text("x")
        (atelier_home / name).chmod(0o644)
    atelier_home.chmod(0o775)
    assert access_checks.private_home(atelier_home).state == "attention"

    process_settings.apply_settings()

    assert [mode(atelier_home / name) for name in names] == [0o600] * 4
    assert mode(atelier_home) == mode(atelier_home / "prefect") == 0o700
    assert access_checks.private_home(atelier_home).state == "ok"


def test_a_new_home_is_private_from_its_first_moment(tmp_path: Path) -> None:
    old = os.umask(0)
    try:
        make_private(tmp_path / "a" / "home")
    finally:
        os.umask(old)

    assert mode(tmp_path / "a" / "home") == 0o700
    assert open_to_others(tmp_path / "a" / "home") == []


def test_a_place_that_others_use_keeps_its_mode(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as /tmp as the home: its mode is not ours to take away."""
    shared, own = tmp_path / "shared", tmp_path / "person"
    shared.mkdir()
    shared.chmod(0o1777)
    own.mkdir()
    own.chmod(0o755)
    monkeypatch.setenv("HOME", str(own))

    for place, before in ((shared, 0o1777), (own, 0o755)):
        make_private(place)
        assert mode(place) == before
        assert access_checks.private_home(place).state == "attention"


def test_what_is_started_makes_files_for_its_owner_only(atelier_home: Path) -> None:
    process_settings.apply_settings()
    made = atelier_home / "made"
    code = f"open({str(made)!r}, 'w').close()"
    script = (
        "import os; from contextlib import suppress; from atelier.services import"
        " background_processes\n"
        "with suppress(ChildProcessError):  # it may have ended, and been waited for, before\n"
        f" os.waitpid(background_processes.start('mlflow', ['-c', {code!r}], '', 0, None).pid, 0)"
    )
    subprocess.run([sys.executable, "-c", script], check=True, cwd=ROOT)

    assert mode(made) == 0o600
    assert mode(background_processes.log_path("mlflow")) == 0o600


def test_each_of_doctors_checks_can_fail() -> None:
    assert access_checks.guarded_servers([server("prefect", guard=GUARD)]).state == "ok"
    put("ann:correct-horse-battery")
    unasked = access_checks.guarded_servers([server("prefect", guard=GUARD)])
    assert (unasked.state, unasked.what.split(":")[0]) == ("attention", "prefect")
    secret_path().unlink()
    old = access_checks.guarded_servers([server("prefect", guard=GUARD), server("mlflow")])
    assert (old.state, old.what.split(":")[0]) == ("failed", "mlflow")

    assert access_checks.secret_file().state == "ok"
    put("ann:correct-horse-battery", 0o644)
    with pytest.raises(BadInput):
        access_checks.secret_file()


def test_prefects_client_and_ours_say_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.client.orchestration import get_client
    from prefect.settings import PREFECT_API_URL, temporary_settings

    put("ann:correct-horse-battery")
    apply_credentials([])

    with (
        temporary_settings({PREFECT_API_URL: f"{OURS}/api"}),
        get_client(sync_client=True) as client,
    ):
        sent = client._client.headers["Authorization"]

    assert sent == f"Basic {b64encode(b'ann:correct-horse-battery').decode()}"
