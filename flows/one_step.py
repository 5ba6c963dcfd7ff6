"""One step of a version alone, by today's code on its stored inputs; nothing is promoted."""

from contextlib import AbstractContextManager, nullcontext

from prefect import flow

from flows.device_slot import training_slot
from flows.parameters import Alias, ModelName, Seed
from flows.reproduce import begins_again, data_again, family_of, plan_again
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.family import Family
from tasks.maintenance.crash_recovery import label_with_process
from tasks.registry.champion import evaluate_champion, evaluate_version
from tasks.registry.promotion_policy import gate
from tasks.registry.rehearsal import (
    StepEvaluation,
    StepFit,
    StepRegistration,
    candidate_of,
    fresh_folder_for_samples,
    recorded_metrics,
    rehearse_package,
    stored_data,
)
from tasks.registry.reproduction import at_home, compare_with_record, read_record, scratch_home
from tasks.runtime.progress import log
from tasks.samples.html_page import ChampionSamples
from tasks.samples.sampling import draw_samples
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel
from tasks.training.initial_weights import InitialWeights
from tasks.training.plan import feature_extractor_plan
from tasks.training.provenance import TrainingProvenance


@flow(name="step-fit", flow_run_name="fit {name}@{which}", on_running=[label_with_process])
def step_fit(name: ModelName, which: Alias = "champion", *, fresh: bool = False) -> StepFit:
    """Train a version again by its record's settings; a fit of unchanged code is found.

    Args:
        name: a registered model.
        which: an alias or a version's number.
        fresh: train even if nothing changed, and keep nothing of it.
    """
    version, recipe = read_record(name, which)
    family = family_of(version, recipe)
    with training_slot(), _run_of("fit", name, version.version) as run_id:
        begins = begins_again(recipe)
        data = _data_of(name, family, recipe, begins)
        plan = plan_again(family, recipe, begins)
        with scratch_home() as empty:
            with at_home(empty) if fresh else nullcontext():
                fitted = fit_model(data, plan, run_id)
            told = compare_with_record(version, recipe, plan, fitted, None, data)
    return StepFit(fitted=fitted, comparison=told)


@flow(
    name="step-evaluate", flow_run_name="evaluate {name}@{which}", on_running=[label_with_process]
)
def step_evaluate(
    name: ModelName,
    which: Alias = "champion",
    *,
    data_of: Alias | None = None,
    fresh: bool = False,
) -> StepEvaluation:
    """Measure a version's registered weights by today's code; its tags and card stay.

    Args:
        name: a registered model.
        which: an alias or a version's number.
        data_of: measure it on the data of this other version of the model.
        fresh: measure even if nothing changed, and keep nothing of it.
    """
    version, recipe = read_record(name, which)
    family = family_of(version, recipe)
    _, of_data = (version, recipe) if data_of is None else read_record(name, data_of)
    with _run_of("evaluate", name, version.version) as run_id:
        data = _data_of(name, family, of_data)
        judge = _judge_of(data, run_id)
        with scratch_home() as empty:
            scorecard = evaluate_version(
                name, version.version, data, family, judge, empty if fresh else None
            )
    return StepEvaluation(
        version=version,
        scorecard=scorecard,
        recorded=recorded_metrics(version),
        is_kept=not fresh,
    )


@flow(name="step-sample", flow_run_name="sample {name}@{which}", on_running=[label_with_process])
def step_sample(name: ModelName, which: Alias = "champion", seed: Seed = 0) -> ChampionSamples:
    """Let a version draw as for the gallery, which stays as it is.

    Args:
        name: a registered model.
        which: an alias or a version's number.
        seed: the same seed gives the same samples.
    """
    version, _ = read_record(name, which)
    return draw_samples(name, fresh_folder_for_samples(name), seed, version.version)


@flow(
    name="step-register", flow_run_name="register {name}@{which}", on_running=[label_with_process]
)
def step_register(name: ModelName, which: Alias = "challenger") -> StepRegistration:
    """Rehearse the registration of a version's model: gate, packing and load check of today.

    Args:
        name: a registered model.
        which: an alias or a version's number.
    """
    version, recipe = read_record(name, which)
    family = family_of(version, recipe)
    with _run_of("register", name, version.version) as run_id:
        data = _data_of(name, family, recipe)
        judge = _judge_of(data, run_id)
        scorecard = evaluate_version(name, version.version, data, family, judge)
        candidate = candidate_of(version, recipe)
        incumbent = evaluate_champion(name, data, family, judge)
        decision = gate(candidate, scorecard, incumbent, recipe.preset)
        loads, told = rehearse_package(candidate, scorecard, family)
    return StepRegistration(version=version, decision=decision, package=told, loads=loads)


def _run_of(step: str, name: str, version: int) -> AbstractContextManager[str]:
    return open_run(f"{name}, step {step}", parameters={"step": step, "of": f"{name}/{version}"})


def _data_of(
    name: str, family: Family, recipe: TrainingProvenance, begins: InitialWeights | None = None
) -> ImageSet | TokenSet:
    """A version's data as stored; where they are not any more, as their source is now."""
    found = stored_data(name, recipe, family.data)
    if found is not None:
        return found
    log(f"{name}: its data are not stored any more; they are read again from {recipe.source}")
    data = data_again(family, recipe, begins or begins_again(recipe))
    if data.digest != recipe.data_digest:
        log(f"WARNING: {name}: the data in {recipe.source} are no longer those of its record")
    return data


def _judge_of(data: ImageSet | TokenSet, run_id: str) -> TrainedModel | None:
    """The feature extractor of images."""
    if isinstance(data, TokenSet):
        return None
    return fit_model(data, feature_extractor_plan(data), run_id)
