"""Train, judge and register one model: the same lines for every family."""

from dataclasses import replace
from typing import Any

from prefect import flow

from flows.champion_challenger import evaluate_and_promote
from flows.device_slot import released_slot
from models.presets import Preset
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.evaluation.images import evaluate_images
from tasks.evaluation.result import reference_words, title
from tasks.evaluation.scorecard import Scorecard
from tasks.evaluation.text import evaluate_tokens
from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.registry.versions import Version
from tasks.runtime.progress import log_on_page
from tasks.settings.catalogue import own_settings, settings_of
from tasks.settings.inherited import inherited
from tasks.settings.values import Given, settled
from tasks.store.files import BadInput
from tasks.tracking.runs import describe_run, task_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel, fit_cache_key
from tasks.training.initial_weights import InitialWeights
from tasks.training.pace import steps_in
from tasks.training.plan import TrainingPlan, feature_extractor_plan, shape_of
from tasks.training.provenance import provenance_of

_MAX_TOLD = 2  # of the settings that a person set, in a run's name


@flow(name="train-model", flow_run_name="{data.name}-{family}, {preset}, seed {seed}")
def train_model(  # noqa: PLR0913 - the flow's parameters
    family: str,
    data: ImageSet | TokenSet,
    *,
    preset: Preset = "standard",
    seed: int = 0,
    parent_run_id: str | None = None,
    settings: dict[str, Any] | None = None,
    continues: InitialWeights | None = None,
    threads: int | None = None,
    processes: int = 1,
    approve_within: int | None = None,
) -> Version:
    """Fit a model, judge it on held-out data, register it.

    Args:
        family: a name in the table of families.
        data: the receipt of an image set or of a tokenized corpus, whichever it learns from.
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; the same seed gives the same weights on the same machine.
        parent_run_id: the MLflow run under which this one is filed.
        settings: what takes the place of the preset's values, by full names; others' are left out.
        continues: the version whose weights it begins with; none: random ones.
        threads: of PyTorch, while it is fitted on a CPU; none: as many as the process has.
        processes: that share the shards of its batches, where settings cut them into some.
        approve_within: seconds to wait for a person's consent to a promotion; none: do not ask.
    """
    record = FAMILIES[family]
    plan = planned(record, data, preset, seed, settings or {}, continues)
    plan = replace(plan, threads=threads, processes=processes)
    key, recipe = fit_cache_key(plan, data), provenance_of(plan, data, preset)
    with task_run(
        f"{data.name}-{family}",
        key,
        parent_run_id,
        while_waiting=released_slot,
        title=run_title(record, data, preset, plan),
        tags={"data": data.name, **recipe.filters},
    ) as run_id:
        judge = None
        if isinstance(data, ImageSet):
            judge = fit_model(data, feature_extractor_plan(data), run_id)
        fitted = fit_model(data, plan, run_id)
        scorecard = evaluated(record, fitted, data, judge, run_id)
        main = f"{scorecard.main_value:.4g} {title(scorecard.main_metric)}"
        describe_run(run_id, tags={"main_metric": main})
        return evaluate_and_promote(
            fitted,
            scorecard,
            recipe,
            data,
            record,
            judge=judge,
            approve_within=approve_within,
        )


def run_title(family: Family, data: ImageSet | TokenSet, preset: str, plan: TrainingPlan) -> str:
    """What the run of a training is called on MLflow's pages: short, and what tells it apart."""
    told = [f"{data.name}-{family.name}", preset]
    if isinstance(data, TokenSet) and data.scheme != "characters":
        told.append(data.scheme)
    told += [f"{name.rpartition('.')[2]} {value}" for name, value in plan.given.items()][:_MAX_TOLD]
    if len(plan.given) > _MAX_TOLD:
        told.append(f"and {len(plan.given) - _MAX_TOLD} more")
    if family.seed_spreads:  # counting knows none
        told.append(f"seed {plan.seed}")
    if plan.initial is not None:
        told.append(f"continues {plan.initial.parent.address}")
    return ", ".join(told)


def planned(
    family: Family,
    data: ImageSet | TokenSet,
    preset: Preset,
    seed: int,
    given: Given,
    continues: InitialWeights | None = None,
) -> TrainingPlan:
    """What a family's recipe makes of a preset, data and what a person set.

    continues: the version that it begins with, whose model it takes over. Raises BadInput for
    settings that contradict each other, the data or that version.
    """
    shape, taken = shape_of(data), {}
    if continues is not None:
        whose = str(continues.parent)
        taken = inherited(family, preset, shape, continues.model, given, whose)
    settings = settled(family, preset, shape, seed, {**taken, **given})
    plan = plan_of(family, settings, seed, continues)
    return replace(plan, given=own_settings(family, given))


def within_seconds(
    family: Family,
    data: ImageSet | TokenSet,
    preset: Preset,
    seed: int,
    given: Given,
    seconds: int | None,
    *,
    continues: InitialWeights | None = None,
    processes: int = 1,
) -> Given:
    """What a person set, with the steps that take about so many seconds, where there are steps."""
    steps = f"{family.name}.training.steps"
    if seconds is None or steps not in settings_of(family):
        return given
    if steps in given:
        raise BadInput(f"{steps} is set to {given[steps]}, and a time would choose it; give one")
    plan = replace(planned(family, data, preset, seed, given, continues), processes=processes)
    return {**given, steps: steps_in(data, plan, seconds)}


def plan_of(
    family: Family, settings: dict[str, Any], seed: int, continues: InitialWeights | None = None
) -> TrainingPlan:
    """A training of a family with settings (configurations by name)."""
    return TrainingPlan(
        family=family.name,
        training=family.training,
        settings=settings,
        seed=seed,
        uses_gpu=family.uses_gpu,
        initial=continues,
        continued=family.continued,
        kept_beside=family.kept_beside,
    )


def report_version(version: Version) -> None:
    """Give the page of a flow run one line for a model: what became of it."""
    state = version.alias if version.is_new else f"{version.alias}, unchanged"
    metric = f"{title(version.main_metric)} {version.main_value:.4f}"
    metric += f" ({reference_words(version.references)})" if version.references else ""
    log_on_page(f"{version.name} version {version.version}: {state}, {metric}")


def evaluated(
    family: Family,
    fitted: TrainedModel,
    data: ImageSet | TokenSet,
    judge: TrainedModel | None,
    run_id: str,
) -> Scorecard:
    """A candidate's scorecard; judge: the feature extractor of images."""
    if isinstance(data, TokenSet):
        return evaluate_tokens(fitted, data, run_id)
    assert judge is not None, "images are measured by a classifier"
    return evaluate_images(
        fitted,
        data,
        judge,
        run_id,
        likelihood=family.likelihood,
        draws_means=family.draws_means,
    )
