"""Processes are told apart by what does not move when the clock is set."""

import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tasks.runtime import processes
from tasks.runtime.processes import is_alive, is_elsewhere, name_of, this_process

pytestmark = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="needs /proc")

STEPS = [3.0, -3.0, 7200.0, -7200.0, -1.7e9]
"""Seconds by which the clock is set: a little, by hours, and back to 1970."""


@pytest.fixture
def child() -> Iterator["subprocess.Popen[bytes]"]:
    """A living process that is not this one; it ends with its input."""
    process = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    yield process
    if process.poll() is None:
        process.communicate(b"\n")


def set_clock(monkeypatch: pytest.MonkeyPatch, step: float) -> None:
    """What a process sees after the clock was set: other times of day, other starts."""
    told, began = time.time, psutil.Process.create_time
    monkeypatch.setattr("time.time", lambda: told() + step)
    monkeypatch.setattr(psutil.Process, "create_time", lambda self: began(self) + step)


@pytest.mark.parametrize("step", STEPS)
def test_a_living_process_stays_alive_when_the_clock_is_set(
    step: float, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    mine, other = this_process(), name_of(child.pid)
    set_clock(monkeypatch, step)

    assert is_alive(mine)
    assert is_alive(other)
    assert this_process() == mine
    child.communicate(b"\n")
    assert not is_alive(other)


def test_a_later_process_of_the_same_id_is_another() -> None:
    host, pid, mark = this_process().rsplit(":", 2)
    boot, namespace, ticks = mark.split(".")

    assert not is_alive(f"{host}:{pid}:{boot}.{namespace}.{int(ticks) - 1}")


def test_a_process_that_ended_and_that_nobody_has_asked_for_is_dead() -> None:
    process = subprocess.Popen([sys.executable, "-c", ""], stdin=subprocess.DEVNULL)
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)  # a zombie from here on

    assert not is_alive(name_of(process.pid))
    process.wait()


def test_a_name_of_before_a_restart_of_the_machine_is_dead_and_another_machines_is_not() -> None:
    host, pid, mark = this_process().rsplit(":", 2)
    earlier = mark.replace(mark.split(".")[0], "0123456789ab")

    assert not is_alive(f"{host}:{pid}:{earlier}")
    assert is_alive(f"another-{host}:{pid}:{earlier}")
    assert not is_elsewhere(f"{host}:{pid}:{earlier}")
    assert is_elsewhere(f"another-{host}:{pid}:{mark}")
    assert is_alive("what is this")


@pytest.mark.parametrize(("shares_the_host_name", "lives"), [(True, True), (False, False)])
def test_a_process_of_another_container_is_alive_unless_the_host_name_is_ours_alone(
    shares_the_host_name: bool, lives: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its id says nothing here; a container that was started again keeps its host name."""
    host, pid, mark = this_process().rsplit(":", 2)
    boot, _, ticks = mark.split(".")
    of_the_machine = processes._NAMESPACE_OF_THE_MACHINE
    namespaces = {"pid": "4026532001", "uts": of_the_machine if shares_the_host_name else "7"}
    monkeypatch.setattr(processes, "_number_of_namespace", namespaces.__getitem__)
    other = f"{host}:{pid}:{boot}.4026532999.{ticks}"

    assert is_alive(other) is lives
    assert is_elsewhere(other)


def test_a_program_may_have_spaces_and_parentheses_in_its_name(tmp_path: Path) -> None:
    program = tmp_path / "a ) b (c) 1 2 S"
    program.symlink_to("/bin/cat")
    process = subprocess.Popen([program], stdin=subprocess.PIPE)
    name = name_of(process.pid)

    assert is_alive(name)
    assert int(name.rsplit(".", 1)[1]) >= int(this_process().rsplit(".", 1)[1])
    process.communicate()
    assert not is_alive(name)


@pytest.mark.parametrize("step", STEPS)
def test_names_that_hold_a_time_are_understood_and_kept_alive_when_in_doubt(
    step: float, child: "subprocess.Popen[bytes]", monkeypatch: pytest.MonkeyPatch
) -> None:
    """A version before wrote them, and systems without /proc still do."""
    began = f"{psutil.Process(child.pid).create_time():.0f}"
    name = f"{platform.node()}:{child.pid}:{began}"
    assert is_alive(name)
    set_clock(monkeypatch, step)

    assert is_alive(name)
    child.communicate(b"\n")
    assert not is_alive(name)


def test_without_proc_the_start_as_the_system_tells_it_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "PROC", tmp_path)
    processes._boot_and_namespace.cache_clear()
    try:
        assert this_process().endswith(f":{psutil.Process().create_time():.2f}")
        assert is_alive(this_process())
        assert not is_alive(f"{platform.node()}:{os.getpid()}:1.00")
    finally:
        processes._boot_and_namespace.cache_clear()
