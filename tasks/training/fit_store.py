"""Fits on disk: where a fit works, its key, its result and the receipt."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save
from torch import Tensor

from models.training.protocol import Arrays, Tensors
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.runtime.progress import log
from tasks.store.artifacts import OpenArtifact, opened
from tasks.store.files import atomic_file, digest_of, remove, sha256_of, write_json
from tasks.store.fingerprint import cache_key_inputs
from tasks.tracking.metric_queue import MetricQueue
from tasks.tracking.mlflow_client import log_parameters, run_exists
from tasks.training.arrays_file import write_arrays
from tasks.training.device import training_device
from tasks.training.initial_weights import BESIDE, InitialWeights
from tasks.training.plan import TrainingPlan
from tasks.training.stable_phase import StablePhase, stable_phase_of


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
    work: OpenArtifact
    journal: MetricQueue
    stable_phase: StablePhase | None = None
    initial: InitialWeights | None = None
    continued: tuple[str, ...] = ()
    kept_beside: tuple[str, ...] = ()

    @property
    def folder(self) -> Path:
        """Where its files go."""
        return self.work.folder

    @property
    def checkpoint_path(self) -> Path:
        """The state to resume from, while training is under way."""
        return self.folder / "checkpoint.safetensors"

    def say(self, reason: str) -> None:
        """Log why this fit goes as it does, and keep it for `atelier explain`."""
        self.work.say(reason)


def fit_parts(plan: TrainingPlan, data: ImageSet | TokenSet) -> dict[str, Any]:
    """All that a fit's result depends on; see `tasks.store.fingerprint`."""
    settings: dict[str, Any] = plan.plain_settings()
    if isinstance(data, ImageSet) and plan.keeps_class_names:  # no digest has them
        settings["classes"] = {"names": list(data.class_names)}
    if plan.initial is not None and plan.initial.parent.beside:  # no content digest has it
        settings["continues"] = {"beside": plan.initial.parent.beside}
    return cache_key_inputs(settings, inputs_of(plan, data), modules_of(plan), device_of(plan))


def inputs_of(plan: TrainingPlan, data: ImageSet | TokenSet) -> list[str]:
    """The digests of what a fit is made from: its data, and the version that it continues."""
    return [data.digest, *([plan.initial.parent.digest] if plan.initial else [])]


def device_of(plan: TrainingPlan) -> str:
    """The device class of a fit and, on a CPU, the number of threads: last digits depend on it.

    Those of a counted model too: its smoothing is tuned by gradients.
    """
    device = training_device().type if plan.uses_gpu else "cpu"
    if device != "cpu":
        return device
    return f"cpu, {plan.threads_of_a_process or torch.get_num_threads()} threads"


def modules_of(plan: TrainingPlan) -> list[str]:
    """Where the code of a fit begins: the family's, and what all fits share."""
    begins = ["tasks.training.initial_weights"] if plan.initial else []
    return [plan.module, "tasks.training.fit", *begins]


def fit_cache_key(plan: TrainingPlan, data: ImageSet | TokenSet) -> str:
    """The key of a fit: what its folder, its manifest entry and its MLflow run are found by."""
    return digest_of(fit_parts(plan, data))


@contextmanager
def open_fit(plan: TrainingPlan, data: ImageSet | TokenSet, run_id: str) -> Iterator[FitContext]:
    """Give a fit its folder, for itself alone: another process that wants the same fit waits.

    The settings are recorded with the run.
    """
    family, parts = plan.family, fit_parts(plan, data)
    log_parameters(run_id, plan.parameters())
    name = f"{data.name}-{family}"
    inputs = inputs_of(plan, data)
    with opened("models", name, parts, inputs=inputs, can_resume=True) as work:
        place = FitContext(
            family=family,
            name=name,
            run_id=run_id,
            seed=plan.seed,
            data_digest=data.digest,
            work=work,
            journal=MetricQueue(run_id, family, plan.metric_prefix, may_stay_empty=True),
            initial=plan.initial,
            continued=plan.continued,
            kept_beside=plan.kept_beside,
            stable_phase=stable_phase_of(name, parts, plan.settings.get("training"), inputs),
        )
        try:
            yield place
        finally:
            place.journal.close()


def load_cached_fit(place: FitContext) -> TrainedModel | None:
    """The receipt of an earlier run of exactly this fit, if its files are still as it left them."""
    found = place.work.found(TrainedModel)
    if found is None:
        return None
    remove(place.checkpoint_path)  # a process that was killed at its very end left it
    kept = found.as_receipt(TrainedModel, was_stored=True)
    place.say(f"unchanged, trained before in {kept.seconds:.0f} s")
    # Its run has the curves; another tracking server does not know it.
    return kept if run_exists(kept.run_id) else replace(kept, run_id=place.run_id)


def save_fit(
    place: FitContext,
    *,
    tensors: Tensors | Arrays,
    config: Any,
    seconds: float,
    num_parameters: int,
    extra_json: dict[str, Any] | None = None,
    extra_tensors: dict[str, dict[str, Tensor]] | None = None,
) -> TrainedModel:
    """Write weights, configuration and, last, the manifest; then drop the checkpoint.

    extra_json, extra_tensors: what else belongs to the model, such as its tokenizer or example
    images, by file name.
    """
    json_files = {
        "config.json": {"family": place.family, "config": asdict(config)},
        **(extra_json or {}),
    }
    tensor_files: dict[str, Tensors | Arrays] = {
        "weights.safetensors": tensors,
        **(extra_tensors or {}),
    }
    for name, value in json_files.items():
        write_json(place.folder / name, value)
    for name, values in tensor_files.items():
        with atomic_file(place.folder / name) as temporary:
            _write_tensors(temporary, values)
    facts = {
        **{"family": place.family, "name": place.name, "run_id": place.run_id},
        **{"data_digest": place.data_digest, "seed": place.seed},
        **{"seconds": seconds, "num_parameters": num_parameters},
    }
    content = [*json_files, *tensor_files]
    digest = digest_of({name: sha256_of(place.folder / name) for name in sorted(content)})
    beside = [BESIDE] if (place.folder / BESIDE).exists() else []
    made = place.work.commit(facts, digest=digest, files=[*content, *beside])
    remove(place.checkpoint_path)
    log(f"{place.name}: trained in {seconds:.0f} s, {num_parameters:,} parameters")
    return made.as_receipt(TrainedModel)


def _write_tensors(path: Path, values: Tensors | Arrays) -> None:
    arrays = {name: value for name, value in values.items() if isinstance(value, np.ndarray)}
    if arrays:
        write_arrays(path, arrays)
        return
    plain = {
        name: value.detach().cpu().contiguous()
        for name, value in values.items()
        if isinstance(value, Tensor)
    }
    path.write_bytes(save(plain))  # save_file hides a full disk in an error of its own
