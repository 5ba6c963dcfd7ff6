"""What the command line does with the store that several homes share."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.store.shared import SharedStore
from tasks.store.storage import STORE_VARIABLE

Command = Callable[..., "subprocess.CompletedProcess[str]"]


def test_the_shared_store_is_swept_only_when_that_is_asked_for(
    tmp_path: Path, call: Command
) -> None:
    home, root = tmp_path / "home", tmp_path / "store"
    root.mkdir()
    store = SharedStore(f"file://{root}")
    shared = {STORE_VARIABLE: store.address}
    store.create("claims/models/digits-vae/0123/00000001.claim", b"")
    (claim,) = root.rglob("*.claim")
    os.utime(claim, (0, 0))

    assert call(home, "gc", "--yes", **shared).stdout.startswith("nothing to delete")
    told = call(home, "gc", "--shared", **shared)
    assert "claims/models/digits-vae/0123" in told.stdout
    assert "`atelier gc --shared --yes` frees them, for all who share the store" in told.stdout
    assert claim.exists()
    freed = call(home, "gc", "--shared", "--yes", **shared)
    assert f"of {store.address}" in freed.stdout
    assert not claim.exists()
    assert "or too young to go" in call(home, "gc", "--shared", **shared).stdout
    root.rename(tmp_path / "away")
    away = call(home, "gc", "--shared", **shared)
    assert (away.returncode, away.stderr.count("\n")) == (1, 1)
    assert "there is no such folder; mount or make it" in away.stderr
    unset = call(home, "gc", "--shared")
    assert (unset.returncode, "ATELIER_STORE is not set" in unset.stderr) == (2, True)


def test_an_address_that_no_store_has_ends_every_command_at_once(
    tmp_path: Path, call: Command
) -> None:
    done = call(tmp_path / "home", "history", **{STORE_VARIABLE: "gs://bucket"})

    assert done.returncode == 2
    assert done.stderr.startswith("atelier: ATELIER_STORE='gs://bucket': wanted s3://BUCKET")
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("address", ["gs://bucket", "bucket", "s3://key:secret@bucket"])
@pytest.mark.parametrize(
    ("command", "answer"),
    [
        ("status", "no servers are up; `atelier up` starts them"),
        ("down", "stopped: nothing was up"),
    ],
)
def test_what_is_up_is_shown_and_stopped_without_a_store(
    tmp_path: Path, call: Command, command: str, answer: str, address: str
) -> None:
    done = call(tmp_path / "home", command, **{STORE_VARIABLE: address})

    assert (done.returncode, done.stderr) == (0, "")
    told, last = done.stdout.splitlines()
    assert told.startswith(f"ATELIER_STORE='{address}': wanted s3://BUCKET")
    assert told.endswith("; this command goes on without it")
    assert last == answer
