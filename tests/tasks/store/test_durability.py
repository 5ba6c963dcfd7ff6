"""What kills, bad disks and rivals leave behind is known, and does no harm."""

import json
import logging
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch

from flows.train import planned
from models.training.checkpoint import TrainingState
from models.training.loops import Step
from tasks.data.ingestion import ImageSet
from tasks.families.table import FAMILIES
from tasks.runtime import stopping
from tasks.store.files import (
    DiskFull,
    append_lines,
    home,
    orphaned_scratch,
    orphaned_temp_files,
    remove,
    write_bytes,
    write_text,
)
from tasks.store.steps import history, recorded
from tasks.tracking import metric_queue
from tasks.tracking.metric_queue import MetricQueue, flush_run, pending_runs
from tasks.tracking.mlflow_client import client, metric_history
from tasks.tracking.runs import close_dead_runs, open_run, task_run
from tasks.training.checkpointing import _resume, checkpointed_steps, save_checkpoint
from tasks.training.fit_store import FitContext, open_fit

LINE = '{"name": "loss", "value": 1.5, "time": 1, "step": 1}\n'


def flipped(content: bytes, index: int, bit: int) -> bytes:
    changed = bytearray(content)
    changed[index] ^= 1 << bit
    return bytes(changed)


def test_scratch_outside_the_home_is_found_once_its_process_is_gone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", None)
    code = (
        "from tasks.store.files import outside_the_home, scratch_folder\n"
        "with scratch_folder(outside_the_home()) as folder:\n"
        "    print(folder, flush=True)\n    input()"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdout is not None
        left = Path(child.stdout.readline().strip())
        assert left.parent == tmp_path
        assert orphaned_scratch() == []
        child.kill()
    (tmp_path / ".partial-of-somebody-else").mkdir()

    assert orphaned_scratch() == [left]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device /dev/full")
def test_lines_for_a_full_disk_are_named_as_such(tmp_path: Path) -> None:
    (tmp_path / "lines").symlink_to("/dev/full")
    with pytest.raises(DiskFull, match="free some space"):
        append_lines(tmp_path / "lines", ["a line"])


def test_rivals_may_search_and_remove_the_same_folders(tmp_path: Path) -> None:
    folders = [tmp_path / str(number) for number in range(60)]
    for folder in folders:
        (folder / "deep" / "er").mkdir(parents=True)
    problems: list[BaseException] = []

    def clear_up() -> None:
        try:
            for folder in folders:
                orphaned_temp_files(tmp_path)
                remove(folder)
        except BaseException as error:
            problems.append(error)

    rivals = [threading.Thread(target=clear_up) for _ in range(4)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()

    assert problems == []
    assert not any(folder.exists() for folder in folders)


def test_a_manifest_that_lost_lines_still_tells_the_others(atelier_home: Path) -> None:
    for settings in (1, 2, 3):
        with recorded("vae", {"settings": settings}):
            pass
    path = home() / "steps" / "vae.jsonl"
    lines = path.read_bytes().split(b"\n")
    lines[0] = lines[0][:30]  # the first step's beginning; its end stays
    lines[3] = b"\xff" + lines[3]  # the second one's end
    path.write_bytes(b"\n".join(lines))

    assert [record.parts["settings"] for record in history("vae")] == [2, 3]


def test_a_damaged_line_costs_only_itself(run_id: str) -> None:
    path = home() / "journals" / run_id / "training.jsonl"
    write_text(path, LINE + '{"name": "loss", "va{"name": "loss"}\n' + LINE.replace("1}", "3}"))

    MetricQueue(run_id).close()
    flush_run(run_id)

    assert metric_history(run_id, "loss") == [(1, 1.5), (3, 1.5)]
    assert pending_runs() == []


def test_a_mark_without_a_journal_hides_nothing_that_comes_later(run_id: str) -> None:
    mark = home() / "journals" / run_id / "training.sent"
    write_text(mark, json.dumps({"bytes": 10_000}))

    flush_run(run_id)
    kept = MetricQueue(run_id)
    kept.add(1, {"loss": 1.5})
    kept.close()

    assert metric_history(run_id, "loss") == [(1, 1.5)]
    assert pending_runs() == []


def test_a_sender_that_wakes_up_late_adds_nothing(
    run_id: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request of a thread that was given up is answered after all."""
    monkeypatch.setattr(metric_queue, "SECONDS_TO_DELIVER", 0.1)
    kept = MetricQueue(run_id)
    kept.add(1, {"loss": 1.5})
    with metric_queue._sending():  # as if a request hung
        kept.close()
    flush_run(run_id)
    assert kept._sender is not None
    kept._sender.join(10)

    assert not kept._sender.is_alive()
    assert metric_history(run_id, "loss") == [(1, 1.5)]
    assert pending_runs() == []


def test_numbers_of_a_deleted_run_stop_nobody(tracking_database: str) -> None:
    with open_run("unwanted") as run_id:
        pass
    write_text(home() / "journals" / run_id / "vae.jsonl", LINE)
    client().delete_run(run_id)

    close_dead_runs()

    assert pending_runs() == []


def test_rivals_at_one_task_share_its_run(tracking_database: str) -> None:
    found: list[str] = []

    def work() -> None:
        with task_run("vae", "key", while_waiting=nullcontext) as run_id:
            found.append(run_id)
            time.sleep(0.2)

    rivals = [threading.Thread(target=work) for _ in range(3)]
    for rival in rivals:
        rival.start()
    for rival in rivals:
        rival.join()

    assert len(found) == 3
    assert len(set(found)) == 1


@pytest.fixture
def place(images: ImageSet, run_id: str) -> FitContext:
    with open_fit(planned(FAMILIES["vae"], images, "quick", 0, {}), images, run_id) as place:
        return place


def small_state() -> TrainingState:
    model = torch.nn.Linear(4, 4)
    return TrainingState({"model": model}, {"all": torch.optim.Adam(model.parameters())})


def test_numbers_are_safe_before_the_checkpoint_that_leaves_them_behind(place: FitContext) -> None:
    place.journal.add(1, {"loss": 1.5})
    waiting: list[int] = []
    state = small_state()
    snapshot = state.snapshot

    def watched_snapshot() -> Any:
        waiting.append(len(place.journal._waiting))
        return snapshot()

    state.snapshot = watched_snapshot  # type: ignore[method-assign]
    save_checkpoint(state, place)

    assert waiting == [0]
    assert place.checkpoint_path.exists()


def test_a_checkpoint_is_known_as_damaged_wherever_it_was_flipped(place: FitContext) -> None:
    state = small_state()
    state.step = 5
    save_checkpoint(state, place)
    good = place.checkpoint_path.read_bytes()
    resumed = small_state()
    _resume(resumed, place)
    assert resumed.step == 5

    for index in range(0, len(good), 7):
        write_bytes(place.checkpoint_path, flipped(good, index, bit=index % 8))
        again = small_state()
        _resume(again, place)
        assert again.step == 0, index
        assert not place.checkpoint_path.exists()


def test_the_last_line_of_a_training_tells_the_numbers_of_its_last_step(
    place: FitContext, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "atelier")

    class Counting:
        shown, num_steps, state = ("loss",), 100, small_state()

        def steps(self) -> Iterator[Step]:
            for step in range(self.state.step + 1, 101):
                yield Step(step, {"loss": torch.tensor(1.0 / step)})

    training: Any = Counting()
    for _ in checkpointed_steps(training, place):
        pass
    for _ in checkpointed_steps(training, place):  # nothing is left to do
        pass

    said = [record.getMessage().partition("  done in")[0] for record in caplog.records]
    assert said[0] == f"training {place.name}: 100/100  loss 0.01"
    assert said[-1] == f"training {place.name}: 100/100"


def test_a_training_notices_a_stop_that_a_library_swallowed(
    place: FitContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Swallowing:
        shown, num_steps, state = ("loss",), 100, small_state()

        def steps(self) -> Iterator[Step]:
            for step in range(1, 101):
                if step == 7:
                    monkeypatch.setattr(stopping._stops, "came", [signal.SIGTERM])
                yield Step(step, {"loss": torch.tensor(1.0)})

    training: Any = Swallowing()
    with pytest.raises(KeyboardInterrupt):
        for _ in checkpointed_steps(training, place):
            pass

    assert training.state.step == 6


def test_a_result_without_its_manifest_is_told(place: FitContext) -> None:
    from tasks.training.fit_store import load_cached_fit

    write_text(place.folder / "config.json", "{}")

    assert load_cached_fit(place) is None
    assert any("no manifest" in reason for reason in place.work.step.reasons)
    assert (place.folder / "config.json").exists()  # beside it a checkpoint may lie
