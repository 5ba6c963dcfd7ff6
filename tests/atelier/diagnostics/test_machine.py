"""What is wrong around an installation is found, and said with what to do."""

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from atelier.__main__ import main
from atelier.diagnostics import machine
from atelier.services import background_processes
from tasks.store import clock
from tasks.store.clock import steady_now


@pytest.mark.parametrize(
    ("environment", "is_caught"),
    [
        ({}, False),
        ({"HTTP_PROXY": ""}, False),
        ({"HTTP_PROXY": "http://u:secret@127.0.0.1:9"}, True),
        ({"http_proxy": "http://proxy:3128", "NO_PROXY": "example.org"}, True),
        ({"ALL_PROXY": "socks5://proxy:1080", "no_proxy": "127.0.0.1"}, True),  # not localhost
        ({"HTTPS_PROXY": "http://proxy:3128"}, False),  # our servers speak plain HTTP
        ({"HTTP_PROXY": "http://proxy", "NO_PROXY": "localhost, 127.0.0.1"}, False),
        ({"HTTP_PROXY": "http://proxy", "NO_PROXY": "*"}, False),
        ({"HTTP_PROXY": "http://proxy", "NO_PROXY": ".localhost,127.0.0.1:4200"}, False),
        ({"HTTP_PROXY": "http://proxy", "NO_PROXY": "7.0.0.1,ocalhost"}, True),
    ],
)
def test_a_proxy_that_would_be_asked_for_our_servers_is_named(
    environment: dict[str, str], is_caught: bool
) -> None:
    finding = machine.proxies(environment)

    assert finding.state == ("attention" if is_caught else "ok")
    if is_caught:
        assert next(iter(environment)) in finding.what
        assert "export NO_PROXY=" in finding.to_do
    assert "secret" not in finding.what + finding.to_do


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({"HTTPS_PROXY": "http://proxy.example.org:3128"}, ""),
        ({"HTTPS_PROXY": "socks5://u:secret@proxy.example.org"}, "the proxy of HTTPS_PROXY: "),
        ({"http_proxy": "ftp://proxy", "no_proxy": "*"}, "the proxy of http_proxy: "),
        (
            {"HTTP_PROXY": "proxy:x", "ALL_PROXY": "http://proxy", "NO_PROXY": "a b;`id`"},
            "ALL_PROXY, HTTP_PROXY would be asked for the servers at 127.0.0.1 and localhost; no"
            " client here can use the proxy of HTTP_PROXY: nothing is downloaded past it",
        ),
    ],
)
def test_one_check_tells_of_all_proxies(environment: dict[str, str], found: str) -> None:
    finding = machine.proxies(environment)

    assert finding.state == ("attention" if found else "ok")
    assert found in finding.what
    assert ("set a http:// or https:// proxy" in finding.to_do) is bool(found)
    assert "secret" not in finding.what + finding.to_do
    if "NO_PROXY" in environment:  # a line that can be pasted into a shell
        assert "export NO_PROXY='a b;`id`,127.0.0.1,localhost' no_proxy='a b;" in finding.to_do


@pytest.mark.parametrize(
    ("step", "said"),
    [(0.0, ""), (5.0, "5 s ahead"), (18_000.0, "18000 s ahead"), (-18_000.0, "set back")],
)
def test_a_clock_that_was_set_is_told(
    step: float, said: str, atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady_now()
    before = sorted((path, path.stat().st_mtime_ns) for path in atelier_home.rglob("*"))

    finding = machine.clock(atelier_home, time.time() + step)

    assert finding.state == ("attention" if said else "ok"), finding.what
    assert said in finding.what
    after = sorted((path, path.stat().st_mtime_ns) for path in atelier_home.rglob("*"))
    assert after == before


def test_a_clock_that_tells_1970_is_told(atelier_home: Path) -> None:
    finding = machine.clock(atelier_home, 60.0)

    assert finding.what == "it says 1970-01-01"
    assert "timedatectl" in finding.to_do


def test_a_system_that_tells_times_only_is_told_so(
    atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "this_start", lambda: "")

    assert "by the clock only" in machine.clock(atelier_home).what


def test_a_jump_counts_only_since_the_machines_start(
    atelier_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steady_now()
    monkeypatch.setattr(clock, "this_start", lambda: "another")

    assert machine.clock(atelier_home, time.time() + 18_000).state == "ok"


@pytest.mark.parametrize(
    ("name", "misread"), [("a%20b", "a b"), ("a b", "a%20b"), ("a?b", "a"), ("a#b", "a")]
)
def test_what_a_version_before_wrote_beside_the_home_is_found(
    name: str, misread: str, tmp_path: Path
) -> None:
    (tmp_path / name).mkdir()
    assert machine.strays(tmp_path / name).state == "ok"
    (tmp_path / misread / "mlartifacts").mkdir(parents=True)

    finding = machine.strays(tmp_path / name)

    assert finding.state == "attention"
    assert str(tmp_path / misread) in finding.what
    assert machine.strays(tmp_path / "plain").state == "ok"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small disk of one's own, with one inode left."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m,nr_inodes=2", "tmpfs", str(folder)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("no right to mount")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def remount(disk: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", disk], check=True)


def test_a_disk_without_inodes_fails_although_it_has_space(disk: Path, tmp_path: Path) -> None:
    assert machine.room(tmp_path, tmp_path).state == "ok"
    (disk / "last").touch()

    for home, temporary in ((disk, tmp_path), (tmp_path, disk)):
        finding = machine.room(home, temporary)
        assert finding.state == "failed"
        assert f"though there is space at {disk}" in finding.what
        assert finding.to_do == "remove files that nobody needs"


def test_a_disk_that_can_only_be_read_fails(disk: Path, tmp_path: Path) -> None:
    remount(disk, "ro")

    finding = machine.room(disk, tmp_path)

    assert finding.state == "failed"
    assert finding.what.startswith(f"the disk can only be read at {disk}")
    assert finding.to_do == "mount it so that it can be written to"


@pytest.mark.parametrize("arguments", [["up"], ["run"], ["sample"]])
def test_a_command_on_a_disk_that_takes_nothing_says_so(
    arguments: list[str],
    disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    remount(disk, "ro")
    monkeypatch.setenv("ATELIER_HOME", str(disk / "home"))

    assert main(arguments) == 2

    said = capsys.readouterr().err
    assert "the disk can only be read at" in said
    assert "mount it so that it can be written to" in said
    assert len(said.splitlines()) == 1


def test_no_server_is_started_on_a_full_disk(disk: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    remount(disk, "nr_inodes=100")
    monkeypatch.setenv("ATELIER_HOME", str(disk))
    with pytest.raises(OSError, match="No space"), (disk / "filler").open("wb") as file:
        while True:
            file.write(b"\0" * 65_536)
            file.flush()

    with pytest.raises(
        background_processes.StackError, match=f"no space is left at {disk}.*free some"
    ):
        background_processes.start("mlflow", ["-c", ""], "url", 1, None)


def test_too_few_open_files_are_told() -> None:
    finding = machine.open_files(64)

    assert finding.state == "attention"
    assert "ulimit -n" in finding.to_do
    assert machine.open_files(1024).state == "ok"
    assert machine.open_files(-1).state == "ok"  # no limit


def test_a_home_that_is_not_made_yet_is_not_made_by_looking(tmp_path: Path) -> None:
    assert machine.is_writable(tmp_path / "a" / "b").state == "ok"
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").touch()
    assert machine.is_writable(tmp_path / "file" / "b").state == "failed"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_home_of_somebody_else_fails(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)

    assert machine.is_writable(tmp_path).state == "failed"
