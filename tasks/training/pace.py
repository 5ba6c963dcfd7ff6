"""How fast a model trains here: measured once, so that a time can be asked for instead of steps."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from pkgutil import resolve_name
from statistics import median

from prefect import task

from models.training.loops import Step
from models.training.protocol import Training
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.runtime.progress import log
from tasks.runtime.retries import TRAINING
from tasks.store.artifacts import get_or_create
from tasks.store.files import BadInput
from tasks.training.device import computing_threads, training_device
from tasks.training.examples import splits_of
from tasks.training.fit_store import fit_parts
from tasks.training.plan import TrainingPlan
from tasks.training.ranks import Ranks

NUM_TIMED_STEPS = 60
"""Of a training that is measured: it validates as often as a long one, and most steps do not."""
MAX_SECONDS_TIMED = 12.0
"""Where steps are slow, fewer are timed; the rest is taken to go on like these."""
SIGNIFICANT_DIGITS = 2
DECIDE_NO_PACE = (
    *("steps", "seed", "learning_rate", "warmup_steps", "weight_decay", "gradient_clip"),
    *("schedule", "decay_fraction", "final_learning_rate_fraction"),
)
"""Settings of a training that a step takes no time for: other seeds are to have as many steps."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Pace:
    """What a training's time is made of, in seconds."""

    seconds_per_step: float
    seconds_besides: float
    """For validation, and until the first steps run as fast as the others."""

    def steps_in(self, seconds: float) -> int:
        """So many steps take about that time, to two digits; raises BadInput for too short one."""
        steps = (seconds - self.seconds_besides) / self.seconds_per_step
        if steps < 1:
            least = math.ceil(self.seconds_besides + self.seconds_per_step)
            raise BadInput(
                f"{seconds:g} s are too short: starting and validating alone take about"
                f" {self.seconds_besides:.1f} s here; wanted at least {least}"
            )
        return int(float(f"{steps:.{SIGNIFICANT_DIGITS}g}"))


@task(name="measure-pace", task_run_name="measure {data.name}-{plan.family}", **TRAINING)
def steps_in(data: ImageSet | TokenSet, plan: TrainingPlan, seconds: int) -> int:
    """How many steps of a training take about so many seconds on this machine, to two digits.

    The pace of a short training is kept in the home: asked again, with another seed too, the same
    time is the same number of steps. Pictures and checkpoints come on top.
    """
    plan = replace(plan, initial=None)  # the weights decide no pace
    parts = fit_parts(plan, data)
    settings = dict(parts["settings"])
    training = settings["training"]
    settings["training"] = {k: v for k, v in training.items() if k not in DECIDE_NO_PACE}
    parts = {**parts, "settings": settings}
    if plan.processes > 1:  # they decide no result, but how long it takes
        parts["processes"] = plan.processes
    name = f"{data.name}-{plan.family}"

    def measure(_folder: Path) -> Pace:
        return _pace(data, plan)

    found = get_or_create("paces", name, parts, measure, inputs=[data.digest], record=Pace)
    pace = Pace(**found.record)
    steps = pace.steps_in(seconds)
    log(
        f"{name}: {steps:,} steps in about {seconds} s, at {pace.seconds_per_step * 1000:.3g} ms a"
        f" step and {pace.seconds_besides:.1f} s besides"
    )
    return steps


def _pace(data: ImageSet | TokenSet, plan: TrainingPlan) -> Pace:
    """Train for a few steps, and throw the result away."""
    short = replace(plan.settings["training"], steps=NUM_TIMED_STEPS)
    device = training_device() if plan.uses_gpu else "cpu"
    plan = replace(plan, settings={**plan.settings, "training": short})
    with computing_threads(plan.threads_of_a_process), Ranks(plan, data) as ranks:
        training: Training = resolve_name(plan.training)(splits_of(data), device, **plan.settings)
        ranks.begin(training)
        return pace_of(list(_times(training.steps())))


def pace_of(times: Sequence[float]) -> Pace:
    """The pace that steps had.

    times: of the first steps of a training of NUM_TIMED_STEPS, what each waited for included.
    """
    each = median(times)
    besides = max(0.0, sum(times) - each * len(times))
    return Pace(seconds_per_step=each, seconds_besides=besides * NUM_TIMED_STEPS / len(times))


def _times(steps: Iterator[Step]) -> Iterator[float]:
    began = since = time.monotonic()
    for step in steps:
        step.numbers()  # on a GPU this waits for the update
        now = time.monotonic()
        yield now - since
        since = now
        if now - began > MAX_SECONDS_TIMED:
            return
