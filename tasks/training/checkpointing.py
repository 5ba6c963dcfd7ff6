"""The watched loop that all fits share: logged, reported, checkpointed, and resumed."""

import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import closing, suppress

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from models.training.checkpoint import TrainingState
from models.training.loops import Step
from models.training.protocol import Training
from tasks.runtime.progress import Progress
from tasks.runtime.stopping import raise_if_stopped
from tasks.store.files import ChecksumMismatch, atomic_file, remove
from tasks.tracking.system_metrics import SystemMetrics
from tasks.training.fit_store import FitContext
from tasks.training.initial_weights import keep_beside
from tasks.training.ranks import Ranks

SECONDS_BETWEEN_CHECKPOINTS = 10.0
NUM_LOGGED_STEPS = 200


def checkpointed_steps(
    training: Training, place: FitContext, ranks: Ranks | None = None
) -> Iterator[Step]:
    """Resume where a checkpoint says, then pass the steps on: logged, reported and checkpointed.

    ranks: the other processes of this training, if there are any.
    """
    state, num_steps = training.state, training.num_steps
    assert state is not None, "what has no state has no steps"
    place.journal.get_ready()
    _begin(state, place)
    _take_over(place)
    _go_on_from_stable_phase(place)
    _resume(state, place)
    if ranks is not None:
        ranks.begin(training)
    with closing(Progress(f"training {place.name}", num_steps, done=state.step)) as progress:
        yield from _reported_steps(training, place, progress)


def _reported_steps(training: Training, place: FitContext, progress: Progress) -> Iterator[Step]:
    """The steps that are left, each logged, reported and checkpointed when it is time."""
    state, num_steps = training.state, training.num_steps
    assert state is not None, "what has no state has no steps"
    saved_at, seconds_before = time.monotonic(), state.seconds
    started_at = saved_at
    log_every = max(1, num_steps // NUM_LOGGED_STEPS)
    load = SystemMetrics()
    for step in training.steps():
        raise_if_stopped()
        state.step = step.step
        if step.step % log_every == 0 or step.step == num_steps:
            place.journal.add(step.step, step.numbers())
        if step.measured:
            place.journal.add(step.step, step.measured)
        for remark in step.remarks:
            place.say(remark)
        yield step
        state.seconds = seconds_before + time.monotonic() - started_at
        if progress.is_due() or step.step == num_steps:
            numbers = step.numbers()
            progress.report(step.step, {name: numbers[name] for name in training.shown})
            if not place.journal.prefix:  # the names that MLflow knows bear no prefix
                place.journal.add(step.step, load.numbers())
            place.journal.flush()
        progress.advance(step.step)
        ends_phase = (
            place.stable_phase is not None and step.step == place.stable_phase.end < num_steps
        )
        if ends_phase or time.monotonic() - saved_at >= SECONDS_BETWEEN_CHECKPOINTS:
            save_checkpoint(state, place)
            saved_at = time.monotonic()
            if place.work.exchange is not None:
                place.work.exchange.send_checkpoint(place.checkpoint_path, state.step)
        if ends_phase and place.stable_phase is not None:
            place.stable_phase.keep(place.checkpoint_path)
    progress.report(num_steps, {})  # where a checkpoint of the last step left nothing to do
    if place.kept_beside:
        place.folder.mkdir(parents=True, exist_ok=True)
        keep_beside(state, place.kept_beside, place.folder)


def _begin(state: TrainingState, place: FitContext) -> None:
    """Take over what a fit begins with; resumed ones too, whose checkpoint may be damaged."""
    if (initial := place.initial) is None:
        return
    initial.load(state, place.continued)
    place.say(f"continues {initial.parent}, {initial.parent.digest[:12]}")
    if place.kept_beside and not initial.parent.beside:
        at_random = ", ".join(place.kept_beside)
        place.say(f"its {at_random} begins at random: none was kept with {initial.parent}")


def _take_over(place: FitContext) -> None:
    """Get the checkpoint of another home, if that was further than this one."""
    if place.work.exchange is None:
        return
    step, path = -1, place.checkpoint_path
    # There is none, or `_resume` will tell of its damage.
    with suppress(Exception), safe_open(path, framework="pt") as file:
        step = json.loads(file.metadata()["record"])["step"]
    place.work.exchange.fetch_checkpoint(path, step)


def _go_on_from_stable_phase(place: FitContext) -> None:
    """Begin where a shorter training of the same beginning has been, unless this one has begun."""
    if place.stable_phase is None or place.checkpoint_path.exists():
        return
    if (found := place.stable_phase.latest()) is not None:
        step, checkpoint = found
        with atomic_file(place.checkpoint_path) as temporary:
            shutil.copyfile(checkpoint, temporary)
        place.say(f"a training of another length that begins alike was at step {step}")


def save_checkpoint(state: TrainingState, place: FitContext) -> None:
    """Replace the checkpoint, atomically: tensors, and the rest as JSON in the file's header.

    The numbers of the steps so far are kept first: who resumes here does not tell them again.
    """
    place.journal.flush()
    tensors, record = state.snapshot()
    told = json.dumps(record)
    metadata = {"record": told, "sha256": _digest_of_state(tensors, told)}
    with atomic_file(place.checkpoint_path) as temporary:
        temporary.write_bytes(save(tensors, metadata=metadata))


def _digest_of_state(tensors: dict[str, Tensor], record: str) -> str:
    """The sha256 of a training state: a safetensors file does not know when a bit was flipped."""
    digest = hashlib.sha256(record.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
        digest.update(content.numpy().data)
    return digest.hexdigest()


def _resume(state: TrainingState, place: FitContext) -> None:
    if not place.checkpoint_path.exists():
        return
    before = state.snapshot()
    try:
        with safe_open(place.checkpoint_path, framework="pt") as file:
            metadata = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if _digest_of_state(tensors, metadata["record"]) != metadata["sha256"]:
            raise ChecksumMismatch("its sha256 is not the one it was written with")
        state.restore(tensors, json.loads(metadata["record"]))
    except Exception as error:  # safetensors has an error class of its own in Rust
        place.say(
            f"the checkpoint is damaged ({type(error).__name__}: {error}); training starts again"
        )
        remove(place.checkpoint_path)
        state.restore(*before)
        return
    place.say(f"resumed at step {state.step}")
