"""How fast a model trains here: measured once, so that a time can be asked for instead of steps."""

import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from pkgutil import resolve_name
from statistics import median
from typing import Any

from prefect import task

from models.training.loops import Step
from models.training.protocol import Training
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.runtime.progress import log
from tasks.runtime.retries import TRAINING
from tasks.store.artifacts import get_or_create
from tasks.training.device import training_device
from tasks.training.examples import splits_of
from tasks.training.fit_store import fit_parts
from tasks.training.plan import TrainingPlan

NUM_WARMUP_STEPS, NUM_TIMED_STEPS = 5, 25
MAX_SECONDS_TIMED = 5.0
SIGNIFICANT_DIGITS = 2


@task(name="measure-pace", task_run_name="measure {data.name}-{plan.family}", **TRAINING)
def steps_in(data: ImageSet | TokenSet, plan: TrainingPlan, seconds: int) -> int:
    """How many steps of a training take about so many seconds on this machine, to two digits.

    The rate of the first steps is kept in the home: asked again, the same time is the same number
    of steps, and so the same cache key. Validation and pictures come on top, some per cent.
    """
    parts = fit_parts(plan, data)
    settings = dict(parts["settings"])
    settings["training"] = {k: v for k, v in settings["training"].items() if k != "steps"}
    name = f"{data.name}-{plan.family}"

    def measure(_folder: Path) -> dict[str, Any]:
        return {"seconds_per_step": _seconds_per_step(data, plan)}

    found = get_or_create(
        "paces", name, {**parts, "settings": settings}, measure, inputs=[data.digest]
    )
    pace = float(found.record["seconds_per_step"])
    steps = max(1, int(float(f"{seconds / pace:.{SIGNIFICANT_DIGITS}g}")))
    log(f"{name}: {steps:,} steps in about {seconds} s, at {pace * 1000:.3g} ms a step")
    return steps


def _seconds_per_step(data: ImageSet | TokenSet, plan: TrainingPlan) -> float:
    """The median of the first steps, but for those in which memory is laid out."""
    device = training_device() if plan.uses_gpu else "cpu"
    training: Training = resolve_name(plan.training)(splits_of(data), device, **plan.settings)
    steps = training.steps()
    for _ in islice(steps, NUM_WARMUP_STEPS):
        pass
    times = list(_times(steps))
    if not times:
        raise ValueError(
            f"a training of {training.num_steps} steps is too short to be measured; wanted more"
            f" than {NUM_WARMUP_STEPS}"
        )
    return median(times)


def _times(steps: Iterator[Step]) -> Iterator[float]:
    began = since = time.monotonic()
    for step in islice(steps, NUM_TIMED_STEPS):
        step.numbers()  # on a GPU this waits for the update
        now = time.monotonic()
        yield now - since
        since = now
        if now - began > MAX_SECONDS_TIMED:
            return
