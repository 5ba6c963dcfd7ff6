"""Train a model of any family: resumed where it stopped, or found as an earlier run made it."""

import time
from pkgutil import resolve_name
from typing import Any

from prefect import task

from models.training.protocol import Draws, Training
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.runtime.retries import TRAINING
from tasks.store.files import read_json
from tasks.training.checkpointing import checkpointed_steps
from tasks.training.device import computing_threads, training_device
from tasks.training.examples import default_prompt, example_images, splits_of
from tasks.training.fit_store import FitContext, TrainedModel, load_cached_fit, open_fit, save_fit
from tasks.training.plan import TrainingPlan
from tasks.training.ranks import Ranks
from tasks.training.snapshots import save_sample_grid, snapshot_steps


@task(name="fit-model", task_run_name="fit {data.name}-{plan.family}", **TRAINING)
def fit_model(data: ImageSet | TokenSet, plan: TrainingPlan, run_id: str) -> TrainedModel:
    """Train on the training split; a retry or a new process resumes where it stopped."""
    with open_fit(plan, data, run_id) as place:
        if (kept := load_cached_fit(place)) is not None:
            return kept
        with computing_threads(plan.threads_of_a_process), Ranks(plan, data) as ranks:
            return _train(place, data, plan, ranks)


def _train(
    place: FitContext, data: ImageSet | TokenSet, plan: TrainingPlan, ranks: Ranks
) -> TrainedModel:
    started_at = time.monotonic()
    device = training_device() if plan.uses_gpu else "cpu"
    make = resolve_name(plan.training)
    training: Training = make(splits_of(data), device, **plan.settings)
    if training.state is not None:
        moments = snapshot_steps(training.num_steps)
        for step in checkpointed_steps(training, place, ranks):
            if isinstance(training, Draws) and step.step in moments:
                save_sample_grid(place, step.step, training.grid_title, training.drawn())
    place.folder.mkdir(parents=True, exist_ok=True)
    trained = training.finish(str(place.folder))
    for remark in trained.remarks:
        place.say(remark)
    resumed = training.state
    return save_fit(
        place,
        tensors=trained.tensors,
        config=trained.config,
        seconds=time.monotonic() - started_at if resumed is None else resumed.seconds,
        num_parameters=trained.num_parameters,
        **_carried(data, plan),
    )


def _carried(data: ImageSet | TokenSet, plan: TrainingPlan) -> dict[str, Any]:
    """What else belongs to a generative model: examples and classes, or tokenizer and prompt."""
    if not plan.is_generative:
        return {}
    if isinstance(data, TokenSet):
        sampling = {"prompt": default_prompt(data.corpus)}
        tokenizer = read_json(data.tokenizer_path)
        return {"extra_json": {"tokenizer.json": tokenizer, "sampling.json": sampling}}
    named = {}
    if plan.keeps_class_names:
        knows_classes = plan.settings["model"].num_classes > 0
        named = {"classes.json": list(data.class_names) if knows_classes else []}
    examples = {"examples.safetensors": {"examples": example_images(data)}}
    return {"extra_json": named, "extra_tensors": examples}
