"""Look for better settings: trials on the validation split, then the best one before the gate."""

import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, wait
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any, Literal

from prefect import flow
from pydantic import Field

from flows.device_slot import released_slot, training_slot
from flows.parameters import (
    Glob,
    ImageSide,
    ImageSource,
    Seed,
    Settings,
    TextSource,
    run_name,
)
from flows.prepare_data import prepare_corpus, prepare_images
from flows.train import planned, train_model
from models.presets import Preset
from tasks.data.ingestion import ImageSet
from tasks.data.kinds import Scheme
from tasks.data.tokenization import TokenSet
from tasks.families.family import Family
from tasks.families.table import FAMILIES, names
from tasks.maintenance.crash_recovery import label_with_process
from tasks.runtime.progress import log
from tasks.runtime.stopping import unless_stopped
from tasks.search.asked import checked_search
from tasks.search.exploration import (
    Ground,
    Scoreboard,
    open_trials,
    record_of_search,
    run_trial,
)
from tasks.search.halving import Pruning
from tasks.search.outcome import Outcome
from tasks.search.records import (
    Finding,
    FreshSeed,
    begin,
    keep_finding,
    outcomes_of,
    proposals_of,
    results_of,
)
from tasks.search.report import close_pruned_runs, publish_search, told_labels
from tasks.search.runners import (
    MAX_CPUS,
    MAX_GPUS,
    RunnerName,
    TrialRunner,
    checked_place,
    runner_at,
)
from tasks.search.study import SamplerName, best_of
from tasks.search.trial import TrialRequest
from tasks.settings.values import checked
from tasks.tracking.runs import recover_from_crashes, task_run
from tasks.training.fit import fit_model
from tasks.training.plan import TrainingPlan, feature_extractor_plan

if TYPE_CHECKING:
    FamilyName = str
else:
    FamilyName = Literal[names()]

Vary = Annotated[
    dict[str, Any],
    Field(examples=[{"vae.training.learning_rate": "log:1e-4..1e-2"}]),
]
"""What is varied: specs by the full names of settings."""

SECONDS_BETWEEN_LOOKS = 0.5
FIRST_FAMILY = names()[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class _Course:
    """How far a search goes this time."""

    trials: int
    workers: int
    board: Scoreboard


@flow(
    name="search",
    flow_run_name=run_name("{family}, {trials} trials, seed {seed}"),
    on_running=[label_with_process],
)
def search(  # noqa: PLR0913 - each is a field of the form in the Prefect UI
    *,
    family: FamilyName = FIRST_FAMILY,
    vary: Vary | None = None,
    images: ImageSource = "digits",
    text: TextSource = "pydocs",
    trials: Annotated[int, Field(ge=1, le=10_000)] = 20,
    workers: Annotated[int, Field(ge=1, le=64)] | None = None,
    seed: Seed = 0,
    name: str | None = None,
    budget_seconds: Annotated[int, Field(ge=1)] | None = None,
    sampler: SamplerName = "tpe",
    prune: Pruning = "none",
    preset: Preset = "standard",
    settings: Settings | None = None,
    fresh_seeds: Annotated[int, Field(ge=0, le=20)] = 3,
    threads: Annotated[int, Field(ge=1, le=256)] = 1,
    image_size: ImageSide | None = None,
    tokenizer: Scheme = "characters",
    glob: Glob | None = None,
    rehash: bool = False,
    runner: RunnerName = "processes",
    trial_cpus: Annotated[int, Field(ge=1, le=MAX_CPUS)] | None = None,
    trial_gpus: Annotated[float, Field(ge=0, le=MAX_GPUS)] | None = None,
) -> Finding:
    """Try settings of one family out, and put the best one, trained anew, before the gate.

    Args:
        family: whose settings are varied.
        vary: specs by the names of settings: "log:1e-4..1e-2", "0.1..0.5", "8..32:4" or
            "8,12,16"; `atelier settings` lists the names.
        images: for a family of images: a data set such as digits, or folder:PATH.
        text: for a family of text: a data set such as pydocs, file:PATH or folder:PATH.
        trials: how many settings are tried; the first is the present recipe.
        workers: how many are tried at a time; they change nothing of what is tried. None: one, or
            with Ray as many of a batch of four as there is room for.
        seed: 0 to 2147483647, of the proposals, and of the training of all trials.
        name: of the search, by which it is gone on with; none: one is made of what it is.
        budget_seconds: after so many seconds no further trial begins.
        sampler: tpe (it learns from the trials) or random.
        prune: halving trains with the schedule wsd, and ends trials at a ninth and at a third of
            their steps that are not among the best third of those before them.
        preset: how much work a trial is: quick, standard or full.
        settings: what all trials have set beside the preset.
        fresh_seeds: with how many other seeds the best setting is trained again; the first of them
            is the candidate. 0: nothing is registered.
        threads: of PyTorch, in each trial.
        image_size: side in pixels, 8 to 64, to which your own images are cropped and resized.
        tokenizer: one token per character, or byte-level BPE.
        glob: which files of your own folder of text are read.
        rehash: read your own files again even if their names, sizes and times are unchanged.
        runner: where trials are tried: processes of this machine, ray (Ray, started here for the
            search) or ray:auto (the cluster that this machine is a node of). It changes nothing of
            what is found.
        trial_cpus: with Ray: how many CPUs a trial takes of a node. None: as many as threads.
        trial_gpus: with Ray: how many GPUs, or what part of one, such as 0.5. None: one where the
            search computes on a GPU.
    """
    ends_at = None if budget_seconds is None else time.monotonic() + budget_seconds
    record = FAMILIES[family]
    asked = checked_search(
        record,
        vary or {},
        checked(settings or {}, [family]),
        prune=prune,
        name=name,
        preset=preset,
        seed=seed,
        sampler=sampler,
        threads=threads,
    )
    place = checked_place(
        runner, threads=threads, workers=workers, trial_cpus=trial_cpus, trial_gpus=trial_gpus
    )
    recover_from_crashes()
    with training_slot(), runner_at(place) as at_work:
        data: ImageSet | TokenSet
        if record.data == "images":
            data = unless_stopped(prepare_images(images, image_size, rehash))
            source: dict[str, Any] = {"images": images, "image_size": image_size}
        else:
            data = unless_stopped(prepare_corpus(text, tokenizer, glob=glob, rehash=rehash))
            source = {"text": text, "tokenizer": tokenizer, "glob": glob}
        plan_for = partial(_planned, record, data, preset, threads)
        found = begin(
            record_of_search(
                record,
                data,
                plan_for,
                space=asked.space,
                given=asked.given,
                preset=preset,
                seed=seed,
                sampler=sampler,
                prune=prune,
                threads=threads,
                name=name,
                source=source,
            )
        )
        with task_run(
            f"search {found.name}", found.key, None, while_waiting=released_slot
        ) as run_id:
            judge = None
            if isinstance(data, ImageSet) and not record.likelihood:
                judge = fit_model(data, feature_extractor_plan(data), run_id)
            ground = Ground(
                search=found,
                data=data,
                judge=judge,
                likelihood=record.likelihood,
                plan_for=plan_for,
                parent_run_id=run_id,
                told=told_labels(run_id),
            )
            board = Scoreboard(search=found, trials=trials, workers=place.workers, ends_at=ends_at)
            course = _Course(trials=trials, workers=place.workers, board=board)
            _explore(ground, at_work, course)
            finding = _found(ground, at_work, course, record, fresh_seeds)
            publish_search(found, finding, run_id)
    return finding


def _planned(
    family: Family,
    data: ImageSet | TokenSet,
    preset: Preset,
    threads: int,
    given: dict[str, Any],
    seed: int,
) -> TrainingPlan:
    return replace(planned(family, data, preset, seed, given), threads=threads)


def _explore(ground: Ground, runner: TrialRunner, course: _Course) -> None:
    """Batch after batch, until all trials are done or time is up."""
    log(f"search {ground.search.name}: {course.board.line()}")
    while not course.board.is_time_up and (batch := open_trials(ground, course.trials)):
        _tried(ground, runner, course, [ground.request_of(each) for each in batch])
        if ground.search.halving is not None:
            close_pruned_runs(ground.search, ground.parent_run_id)
        if course.board.is_time_up:
            log("the time is up: no further trial begins")


def _tried(
    ground: Ground, runner: TrialRunner, course: _Course, requests: Sequence[TrialRequest]
) -> dict[str, Outcome]:
    """Try trials out in their order, so many at a time; those that time allows, by label."""
    futures: dict[str, Any] = {}
    for request in requests:
        while len(running := [f for f in futures.values() if not f.wrapped_future.done()]) >= (
            course.workers
        ):
            wait(
                [each.wrapped_future for each in running],
                timeout=SECONDS_BETWEEN_LOOKS,
                return_when=FIRST_COMPLETED,
            )
        if course.board.is_time_up or any(_has_failed(each) for each in futures.values()):
            break
        futures[request.label] = run_trial.submit(request, runner, course.board)
    outcomes: dict[str, Outcome] = {}
    for label, future in futures.items():
        outcomes[label] = future.result()
        ground.told.add(label)
    return outcomes


def _has_failed(future: Any) -> bool:
    """Whether a trial has ended in an error: the wrapped future gives the state it ended in."""
    inner = future.wrapped_future
    return bool(inner.done() and (inner.exception() or not inner.result().is_completed()))


def _found(
    ground: Ground, runner: TrialRunner, course: _Course, family: Family, fresh_seeds: int
) -> Finding:
    """The best trial, and, if it is not the present recipe, what it is worth with fresh seeds."""
    search, outcomes = ground.search, outcomes_of(ground.search)
    best = best_of(results_of(outcomes))
    common: dict[str, Any] = {"search": search.key, "trials": len(outcomes)}
    if not best:
        return keep_finding(
            search, Finding(**common, best=None, decision="no trial could be measured"), ""
        )
    common["best"] = best[0]
    digest = outcomes[best[0]].fit
    if best[0] == 0:
        said = "nothing better than the present recipe was found"
        return keep_finding(search, Finding(**common, decision=said), digest)
    if not fresh_seeds:
        said = "not trained with fresh seeds, and not registered"
        return keep_finding(search, Finding(**common, decision=said), digest)
    values = proposals_of(search)[best[0]].proposal.values
    number = fresh_seeds if family.seed_spreads else 1  # counting knows no chance
    seeds = [(search.spec.seed + 1 + index) % 2**31 for index in range(number)]
    known = {each: ground.told_outcome(f"seed {each}", values, each) for each in seeds}
    requests = [
        ground.request(f"seed {each}", values, each) for each in seeds if known[each] is None
    ]
    unlimited = _Course(
        trials=course.trials,
        workers=course.workers,
        board=Scoreboard(
            search=search, trials=course.trials, workers=course.workers, is_of_trials=False
        ),
    )
    tried = _tried(ground, runner, unlimited, requests)
    fresh = tuple(_fresh(each, known[each] or tried[f"seed {each}"]) for each in seeds)
    common["fresh"] = fresh
    if fresh[0].value is None:
        said = f"with seed {seeds[0]} it failed: {fresh[0].reason}; nothing is registered"
        return keep_finding(search, Finding(**common, decision=said), digest)
    version = unless_stopped(
        train_model(
            family.name,
            ground.data,
            preset=search.preset,
            seed=seeds[0],
            parent_run_id=ground.parent_run_id,
            settings={**search.given, **values},
            threads=search.threads,
        )
    )
    finding = Finding(
        **common,
        version=version.version,
        accepted=version.alias == "champion",
        decision=f"version {version.version} is {version.alias}",
    )
    return keep_finding(search, finding, digest)


def _fresh(seed: int, outcome: Outcome) -> FreshSeed:
    return FreshSeed(seed=seed, state=outcome.state, value=outcome.value, reason=outcome.reason)
