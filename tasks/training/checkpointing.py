"""What all fits share: where their files go, the watched loop, checkpoints and the receipt."""

import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from models.training.checkpoint import TrainingState
from models.training.device import make_repeatable
from models.training.loops import Step
from tasks import plots
from tasks.data.ingestion import ImageSet, load_images, load_text
from tasks.data.tokenization import TokenSet
from tasks.runtime.progress import Progress, log
from tasks.store.files import (
    ChecksumMismatch,
    atomic_file,
    digest_of,
    file_lock,
    home,
    inside,
    is_whole,
    read_receipt,
    remove,
    remove_orphaned_temp_files,
    set_aside,
    sha256_of,
    write_bytes,
    write_json,
    write_receipt,
)
from tasks.store.fingerprint import cache_key_inputs
from tasks.store.steps import StepRecord, recorded
from tasks.tracking.metric_queue import MetricQueue
from tasks.tracking.mlflow_client import log_parameters, run_exists
from tasks.tracking.system_metrics import SystemMetrics

SECONDS_BETWEEN_CHECKPOINTS = 10.0
NUM_LOGGED_STEPS = 200
GRID_COLUMNS = 10
GRID_FRACTIONS = (0.01, 0.03, 0.1, 0.25, 0.5, 0.75, 1.0)
"""Moments of training, as fractions of its steps, at which the same images are drawn again."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainedModel:
    """Receipt of a trained model."""

    family: str
    name: str
    """The registered model's name, `<dataset>-<family>`."""
    run_id: str
    """The MLflow run that holds its curves."""
    folder: str
    digest: str
    """sha256 of weights and configuration: the identity of what was learned."""
    data_digest: str
    seed: int
    seconds: float
    """Wall time of the training that made the weights."""
    num_parameters: int
    was_stored: bool = field(default=False)
    """Whether an earlier run had already made exactly this model."""

    @property
    def weights_path(self) -> Path:
        """The weights, as safetensors."""
        return Path(self.folder) / "weights.safetensors"

    @property
    def config_path(self) -> Path:
        """The configuration, as JSON."""
        return Path(self.folder) / "config.json"


@dataclass(frozen=True, kw_only=True, slots=True)
class FitContext:
    """Where one fit works, what it is called, and where it tells what it does."""

    family: str
    name: str
    run_id: str
    seed: int
    data_digest: str
    folder: Path
    journal: MetricQueue
    record: StepRecord

    @property
    def checkpoint_path(self) -> Path:
        """The state to resume from, while training is under way."""
        return self.folder / "checkpoint.safetensors"

    def say(self, reason: str) -> None:
        """Log why this fit goes as it does, and keep it for `atelier explain`."""
        log(f"{self.name}: {reason}")
        self.record.reasons.append(reason)


def fit_parts(family: str, data: ImageSet | TokenSet, settings: dict[str, Any]) -> dict[str, Any]:
    """All that a fit's result depends on; see `tasks.store.fingerprint`.

    settings: configurations (dataclasses, or None) by name.
    """
    plain = {key: asdict(value) if value else {} for key, value in settings.items()}
    # Counting needs no GPU, so its result does not depend on one.
    if family == "gan" and isinstance(data, ImageSet):  # they travel inside; no digest has them
        plain["classes"] = {"names": list(data.class_names)}
    device = "cpu" if family == "ngram" else training_device().type
    return cache_key_inputs(plain, [data.digest], [f"tasks.training.{family}"], device)


def fit_cache_key(family: str, data: ImageSet | TokenSet, settings: dict[str, Any]) -> str:
    """The key of a fit: what its folder, its manifest entry and its MLflow run are found by."""
    return digest_of(fit_parts(family, data, settings))


@contextmanager
def open_fit(
    family: str,
    data: ImageSet | TokenSet,
    settings: dict[str, Any],
    *,
    seed: int,
    run_id: str,
    prefix: str = "",
) -> Iterator[FitContext]:
    """Give a fit its folder, for itself alone: another process that wants the same fit waits.

    prefix: put before the names of its metrics. The settings are recorded with the run.
    """
    parts = fit_parts(family, data, settings)
    log_parameters(run_id, parts["settings"])
    name = f"{data.name}-{family}"
    key = digest_of(parts)[:16]
    waiting = partial(log, f"{name}: another run is at this fit; waiting for its result")
    with file_lock(f"{name}-{key}", waiting), recorded(name, parts) as record:
        place = FitContext(
            family=family,
            name=name,
            run_id=run_id,
            seed=seed,
            data_digest=data.digest,
            folder=inside(home() / "runs", name) / key,
            journal=MetricQueue(run_id, family, prefix),
            record=record,
        )
        if place.folder.is_file():
            set_aside(place.folder, "wanted a folder, got a file")
        remove_orphaned_temp_files(place.folder)
        try:
            yield place
        finally:
            place.journal.close()


def load_cached_fit(place: FitContext) -> TrainedModel | None:
    """The receipt of an earlier run of exactly this fit, if its files are still as it left them."""
    if not (place.folder / "receipt.json").exists():
        if (place.folder / "config.json").exists():
            place.say("an earlier fit has no receipt: it was interrupted, or its files are damaged")
        return None
    if not is_whole(place.folder, place.say, TrainedModel):
        return None
    remove(place.checkpoint_path)  # a process that was killed at its very end left it
    kept = read_receipt(place.folder, TrainedModel)
    place.record.state = "unchanged"
    place.say(f"unchanged, trained before in {kept.seconds:.0f} s")
    # Its run has the curves; another tracking server does not know it.
    run_id = kept.run_id if run_exists(kept.run_id) else place.run_id
    return replace(kept, run_id=run_id, was_stored=True)


def checkpointed_steps(
    steps: Callable[[int], Iterator[Step]],
    state: TrainingState,
    place: FitContext,
    *,
    num_steps: int,
    shown: tuple[str, ...] = ("loss",),
) -> Iterator[Step]:
    """Resume where a checkpoint says, then pass the steps on: logged, reported and checkpointed.

    shown: the terms that a progress line tells.
    """
    _resume(state, place)
    progress = Progress(f"training {place.name}", num_steps, done=state.step)
    saved_at, seconds_before = time.monotonic(), state.seconds
    started_at = saved_at
    log_every = max(1, num_steps // NUM_LOGGED_STEPS)
    load = SystemMetrics()
    for step in steps(state.step):
        state.step = step.step
        if step.step % log_every == 0 or step.step == num_steps:
            place.journal.add(step.step, step.numbers())
        yield step
        state.seconds = seconds_before + time.monotonic() - started_at
        if progress.is_due() or step.step == num_steps:
            numbers = step.numbers()
            progress.report(step.step, {name: numbers[name] for name in shown})
            if not place.journal.prefix:  # the names that MLflow knows bear no prefix
                place.journal.add(step.step, load.numbers())
            place.journal.flush()
        if time.monotonic() - saved_at >= SECONDS_BETWEEN_CHECKPOINTS:
            save_checkpoint(state, place)
            saved_at = time.monotonic()
    progress.report(num_steps, {})  # where a checkpoint of the last step left nothing to do


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


def save_fit(
    place: FitContext,
    *,
    tensors: dict[str, Tensor],
    config: Any,
    seconds: float,
    num_parameters: int,
    extra_json: dict[str, Any] | None = None,
    extra_tensors: dict[str, dict[str, Tensor]] | None = None,
) -> TrainedModel:
    """Write weights, configuration and, last, the receipt; then drop the checkpoint.

    extra_json, extra_tensors: what else belongs to the model, such as its tokenizer or example
    images, by file name.
    """
    json_files = {
        "config.json": {"family": place.family, "config": asdict(config)},
        **(extra_json or {}),
    }
    tensor_files = {"weights.safetensors": tensors, **(extra_tensors or {})}
    for name, value in json_files.items():
        write_json(place.folder / name, value)
    for name, values in tensor_files.items():
        with atomic_file(place.folder / name) as temporary:
            plain = {k: v.detach().cpu().contiguous() for k, v in values.items()}
            temporary.write_bytes(save(plain))  # save_file hides a full disk in an error of its own
    files = {name: sha256_of(place.folder / name) for name in [*json_files, *tensor_files]}
    fitted = TrainedModel(
        family=place.family,
        name=place.name,
        run_id=place.run_id,
        folder=str(place.folder),
        digest=digest_of(files),
        data_digest=place.data_digest,
        seed=place.seed,
        seconds=seconds,
        num_parameters=num_parameters,
    )
    write_receipt(place.folder, fitted, files)
    remove(place.checkpoint_path)
    log(f"{place.name}: trained in {seconds:.0f} s, {num_parameters:,} parameters")
    return fitted


def snapshot_steps(num_steps: int) -> set[int]:
    """The steps at which `save_sample_grid` is called for."""
    return {max(1, round(fraction * num_steps)) for fraction in GRID_FRACTIONS}


def save_sample_grid(place: FitContext, step: int, title: str, images: Tensor) -> None:
    """Store what a model draws at a step, on the title's slider of its run's page.

    images: (N, C, H, W) float in [0, 1], in rows of GRID_COLUMNS.
    """
    drawn = (images * 255).round().to(torch.uint8).cpu().numpy()
    path = place.folder / "progress" / f"step-{step:07d}.png"
    if not path.exists():  # after a roll-back a moment comes again: the first picture is told
        write_bytes(path, plots.grid(drawn, GRID_COLUMNS))
    place.journal.add_picture(step, title, path, "progress")


def example_images(images: ImageSet, number: int = 16) -> Tensor:
    """A few held-out images that a version carries along: (N, C, H, W) uint8."""
    pixels, _ = load_images(images, "test")
    chosen = np.linspace(0, len(pixels) - 1, number).astype(int)
    return torch.from_numpy(pixels[chosen].copy())


def default_prompt(tokens: TokenSet, most_characters: int = 40) -> str:
    """The beginning of a held-out line: what a token model continues when nobody asks."""
    text = load_text(tokens.corpus, "validation")
    lines = text.split("\n")[1:] or [text.partition(" ")[2] or text]
    line = next((line for line in lines if len(line) >= most_characters // 2), "\n")
    cut = line[:most_characters]
    return cut if len(line) <= most_characters else cut.rsplit(" ", 1)[0] or cut


def training_device() -> torch.device:
    """The GPU where there is one, set to give the same bits again, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    # `atelier.services.local_servers.apply_settings` sets the variable that it needs.
    make_repeatable()
    return torch.device("cuda")
