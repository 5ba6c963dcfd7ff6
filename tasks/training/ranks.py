"""The processes that share one training: each computes some shards of every batch.

Rank 0 is the process that trains in any case: it alone validates for the record, writes checkpoints
and tells of them. The others are its children: they build the same training from the same plan and
data, take over its state, and make the same updates (models/training/sharding.py). They meet in a
file and talk over loopback alone; a child writes nothing, and ends when the pipe from rank 0 does,
however that ended. Where a child is lost the fit fails as a lost connection does, is tried again,
and goes on from its checkpoint, with as many processes as it is then given.

Gradients of a GPU travel through the memory of the CPU. Several machines are not supported.
"""

import json
import os
import subprocess
import sys
import threading
import time
import traceback
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from datetime import timedelta
from pathlib import Path
from pkgutil import resolve_name
from typing import Any

import psutil
import torch
from torch import Tensor, distributed

from models.training.checkpoint import TrainingState
from models.training.protocol import Training
from models.training.sharding import GroupBroken
from tasks.data.ingestion import ImageSet
from tasks.data.sources import Kind
from tasks.data.tokenization import TokenSet
from tasks.runtime.messages import shortened
from tasks.runtime.progress import log
from tasks.store.files import BadInput, make_scratch, outside_the_home, project_root, remove
from tasks.store.records import parsed
from tasks.training.device import computing_threads, training_device
from tasks.training.examples import splits_of
from tasks.training.plan import TrainingPlan, data_from, kind_of, plan_from

GROUP_TIMEOUT = timedelta(minutes=10)
"""How long a process waits for another: rank 0 may be writing a checkpoint to a slow disk."""
SECONDS_TO_TELL = 3.0
"""How long a child that ended may take to be seen ended."""
SECONDS_TO_END = 5.0
LOST_OTHERS = 75
"""The exit code of a child that ended because another process did."""
READY = "ready"


class RankLost(ConnectionError):
    """A process of a training ended before the training did."""


@dataclass(frozen=True, kw_only=True, slots=True)
class RankRequest:
    """What a child is to do, as JSON can say it."""

    rank: int
    processes: int
    meeting: str
    """The file in which the processes find each other."""
    kinds: dict[str, str]
    plan: dict[str, Any]
    data: dict[str, Any]
    data_kind: Kind


class Ranks:
    """The other processes of one training, for the time of a block.

    There are none where it has but one, or where batches are not cut.

    Raises RankLost where one of them ends too early, and BadInput where there are too few GPUs.
    """

    def __init__(self, plan: TrainingPlan, data: ImageSet | TokenSet) -> None:
        self._plan, self._data = plan, data
        self._children: list[subprocess.Popen[str]] = []
        self._folder: Path | None = None

    def __enter__(self) -> "Ranks":
        plan = self._plan
        if plan.processes == 1 or plan.shards == 1:
            return self
        if plan.uses_gpu and torch.cuda.is_available():
            _check_gpus(plan.processes)
        self._folder = make_scratch(outside_the_home())
        try:
            for rank in range(1, plan.processes):  # at once: they import while data are read here
                self._children.append(self._started(rank, self._folder))
        except BaseException:
            self._end()
            raise
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        try:
            if isinstance(error, GroupBroken):
                why = self._who_ended() or f"{error}"
                log(f"{self._data.name}-{self._plan.family}: {why}")  # a retry tells nobody why
                raise RankLost(why) from error
        finally:
            self._end()

    def begin(self, training: Training) -> None:
        """Meet the others, and hand them the state that this process's training goes on from."""
        if not self._children or self._folder is None:
            return
        for child in self._children:
            assert child.stdout is not None
            if child.stdout.readline().strip() != READY:
                raise RankLost(self._who_ended() or "a process of the training does not answer")
        log(f"{self._plan.processes} processes share the {self._plan.shards} shards of each batch")
        _meet(_meeting_in(self._folder), 0, self._plan.processes)
        assert training.state is not None, "what has no state has no steps"
        try:
            _hand_over(training.state)
        except RuntimeError as error:
            raise GroupBroken(str(error)) from error

    def _started(self, rank: int, folder: Path) -> "subprocess.Popen[str]":
        plan, data = self._plan, self._data
        begun = replace(plan, initial=None)  # they take over the state of rank 0, whatever it is
        request = RankRequest(
            rank=rank,
            processes=plan.processes,
            meeting=str(_meeting_in(folder)),
            kinds=plan.kinds(),
            plan={**asdict(begun), "settings": plan.plain_settings()},
            data=asdict(data),
            data_kind=kind_of(data),
        )
        paths = [str(project_root()), os.environ.get("PYTHONPATH", "")]
        threads = plan.threads_of_a_process
        with (folder / f"{rank}.log").open("wb") as output:
            child = subprocess.Popen(
                [sys.executable, "-m", "tasks.training.ranks"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=output,
                text=True,
                env={
                    **os.environ,
                    **({"OMP_NUM_THREADS": str(threads)} if threads else {}),
                    "PYTHONPATH": os.pathsep.join(filter(None, paths)),
                },
                start_new_session=True,  # Ctrl-C reaches rank 0, which ends the others
            )
        assert child.stdin is not None
        with suppress(OSError):  # one that has died is noticed when it should be ready
            child.stdin.write(json.dumps(asdict(request)) + "\n")
            child.stdin.flush()
        return child

    def _who_ended(self) -> str:
        """Which child ended first, and how; empty if all still run, or only followed another."""
        deadline = time.monotonic() + SECONDS_TO_TELL
        while self._children and time.monotonic() < deadline:
            for rank, child in enumerate(self._children, start=1):
                if child.poll() not in (None, LOST_OTHERS):
                    how = self._how(rank, child.returncode)
                    return f"rank {rank} of {self._plan.processes} ended ({how})"
            time.sleep(0.02)
        return ""

    def _how(self, rank: int, code: int) -> str:
        if code < 0:
            return f"killed by signal {-code}"
        assert self._folder is not None
        said = (self._folder / f"{rank}.log").read_text("utf-8", "replace").split("\n")
        last = next((line for line in reversed(said) if line.strip()), "")
        return f"exit code {code}{': ' if last else ''}{shortened(last)}"

    def _end(self) -> None:
        if distributed.is_initialized() and self._children:
            distributed.destroy_process_group()
        for child in self._children:
            with suppress(OSError):
                if child.stdin is not None:
                    child.stdin.close()
        for child in self._children:
            try:
                child.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                child.kill()
                child.wait()
            if child.stdout is not None:
                child.stdout.close()
        self._children.clear()
        if self._folder is not None:
            remove(self._folder)
            self._folder = None


def _check_gpus(processes: int) -> None:
    if processes > (number := torch.cuda.device_count()):
        raise BadInput(f"{processes} processes want a GPU each, and this machine has {number}")


def _meeting_in(folder: Path) -> Path:
    return folder / "meeting"


def _meet(meeting: Path, rank: int, processes: int) -> None:
    """Make torch.distributed's default group, over loopback alone."""
    name = "GLOO_SOCKET_IFNAME"
    before = os.environ.get(name)
    os.environ[name] = _loopback()
    try:
        distributed.init_process_group(
            "gloo",
            store=distributed.FileStore(str(meeting), processes),  # type: ignore[attr-defined]
            rank=rank,
            world_size=processes,
            timeout=GROUP_TIMEOUT,
        )
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before


def _loopback() -> str:
    """The name of this machine's loopback interface."""
    for name, addresses in psutil.net_if_addrs().items():
        if any(each.address == "127.0.0.1" for each in addresses):
            return str(name)
    raise RuntimeError("no network interface has the address 127.0.0.1, over which processes meet")


def _hand_over(state: TrainingState) -> None:
    """Let all processes have the state of rank 0, whose own stays as it is."""
    is_first = distributed.get_rank() == 0
    tensors, record = state.snapshot() if is_first else ({}, {})
    kinds = {
        name: [str(value.dtype).removeprefix("torch."), list(value.shape)]
        for name, value in tensors.items()
    }
    head = torch.frombuffer(bytearray(json.dumps([kinds, record]).encode()), dtype=torch.uint8)
    size = torch.tensor([len(head)])
    distributed.broadcast(size, 0)
    head = head if is_first else torch.empty(int(size), dtype=torch.uint8)
    distributed.broadcast(head, 0)
    kinds, record = json.loads(head.numpy().tobytes())
    received: dict[str, Tensor] = {}
    for name, (kind, shape) in kinds.items():
        value = tensors[name] if is_first else torch.empty(shape, dtype=getattr(torch, kind))
        distributed.broadcast(value, 0)
        received[name] = value
    if not is_first:
        state.restore(received, record)


# In a child ------------------------------------------------------------------------------------


def _end_with_rank_0() -> None:
    sys.stdin.read()
    os._exit(0)  # whatever it still waits for


def serve(line: str) -> None:
    """Make every update of a training together with rank 0; line: a RankRequest."""
    replies = os.fdopen(os.dup(1), "w")  # what libraries print must not mix with our answers
    os.dup2(2, 1)
    request = parsed(line, RankRequest, "a rank's request")
    threading.Thread(target=_end_with_rank_0, daemon=True).start()
    plan = plan_from(request.plan, request.kinds)
    data = data_from(request.data, request.data_kind)
    device = training_device() if plan.uses_gpu else torch.device("cpu")
    if device.type == "cuda":
        torch.cuda.set_device(request.rank)
    with computing_threads(plan.threads_of_a_process):
        training: Training = resolve_name(plan.training)(splits_of(data), device, **plan.settings)
        assert training.state is not None, "what has no state has no steps"
        replies.write(f"{READY}\n")
        replies.flush()
        _meet(Path(request.meeting), request.rank, request.processes)
        _hand_over(training.state)
        for step in training.steps():
            training.state.step = step.step


def main() -> None:
    """A child's life: a request as a line of its input, and then the training."""
    try:
        serve(sys.stdin.readline())
    except GroupBroken:
        os._exit(LOST_OTHERS)
    except Exception:
        traceback.print_exc()
        os._exit(1)  # what ends an interpreter has more to say, and the reason must be the last
    threading.Event().wait()  # rank 0 may still read what was sent last


if __name__ == "__main__":
    main()
