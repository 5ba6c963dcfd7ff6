"""Make a registered version again, from its record alone, and compare."""

from typing import Any

from prefect import flow

from flows.parameters import Alias, ModelName
from flows.prepare_data import prepare_corpus, prepare_images
from flows.train import evaluated, plan_of
from tasks.data.ingestion import ImageSet
from tasks.data.kinds import Scheme
from tasks.data.tokenization import TokenSet
from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.maintenance.crash_recovery import label_with_process
from tasks.registry.parents import initial_weights_again
from tasks.registry.reproduction import (
    Reproduction,
    at_home,
    compare_with_record,
    read_record,
    scratch_home,
)
from tasks.registry.versions import Version
from tasks.runtime.messages import one_line
from tasks.runtime.stopping import unless_stopped
from tasks.settings.catalogue import recipe_of
from tasks.store.files import BadInput
from tasks.store.records import DamagedRecord
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.initial_weights import InitialWeights
from tasks.training.plan import TrainingPlan, feature_extractor_plan
from tasks.training.provenance import TrainingProvenance


@flow(name="reproduce", flow_run_name="{name}@{which}, again", on_running=[label_with_process])
def reproduce(name: ModelName, which: Alias = "champion") -> Reproduction:
    """Train a version again with what its record says, and compare weights and metrics.

    Nothing is registered. On the machine that made it, and with the same code and libraries, the
    weights are identical; where they are not, the comparison says what changed.

    Args:
        name: a registered model.
        which: an alias or a version's number.
    """
    version, recipe = read_record(name, which)
    family = family_of(version, recipe)
    reproduced = {"reproduces": f"{name}/{version.version}"}
    with open_run(f"{name}, again", parameters=reproduced) as run_id:
        begins = begins_again(recipe)
        data = data_again(family, recipe, begins)
        plan = plan_again(family, recipe, begins)
        judge = None
        if isinstance(data, ImageSet):
            judge = fit_model(data, feature_extractor_plan(data), run_id)
        with scratch_home() as empty:
            with at_home(empty):
                fitted = fit_model(data, plan, run_id)
                scorecard = evaluated(family, fitted, data, judge, run_id)
            return compare_with_record(version, recipe, plan, fitted, scorecard, data)


def family_of(version: Version, recipe: TrainingProvenance) -> Family:
    """The record of a version's family; raises BadInput for one that this program lacks."""
    if recipe.family not in FAMILIES:
        raise BadInput(
            f"{version.name} version {version.version} is of the family {recipe.family!r}; this"
            f" program knows {', '.join(FAMILIES)}"
        )
    return FAMILIES[recipe.family]


def begins_again(recipe: TrainingProvenance) -> InitialWeights | None:
    """With what a version's training began, where it continued another; raises BadInput."""
    if recipe.continues is None:
        return None
    return initial_weights_again(recipe.continues, recipe.family, recipe.settings["model"])


def data_again(
    family: Family, recipe: TrainingProvenance, begins: InitialWeights | None = None
) -> ImageSet | TokenSet:
    """A version's data, read from their source as they are now."""
    if family.data == "images":
        return unless_stopped(prepare_images(recipe.source, recipe.image_size, to_register=False))
    scheme: Scheme = "bpe" if recipe.scheme == "bpe" else "characters"
    size = recipe.vocabulary_size
    return unless_stopped(
        prepare_corpus(
            recipe.source,
            scheme,
            size,
            recipe.glob,
            to_register=False,
            tokenizer_file=str(begins.tokenizer_path) if begins else None,
        )
    )


def plan_again(
    family: Family, recipe: TrainingProvenance, begins: InitialWeights | None = None
) -> TrainingPlan:
    """A version's training by its record's settings; raises DamagedRecord for what are none."""
    classes = recipe_of(family).classes
    settings = {name: _setting(kind, recipe, name) for name, kind in classes.items()}
    return plan_of(family, settings, recipe.seed, begins)


def _setting(kind: type, recipe: TrainingProvenance, name: str) -> Any:
    """A configuration as the record has it, None for an empty one; raises DamagedRecord."""
    try:
        kept = recipe.settings[name]
        return kind(**kept) if kept else None
    except (KeyError, TypeError, ValueError) as error:
        raise DamagedRecord(
            f"the record of this {recipe.family} cannot be used, its part {name!r} is damaged:"
            f" {type(error).__name__}: {one_line(error)}"
        ) from error
