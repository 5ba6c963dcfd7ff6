"""Make a registered version again, from its record alone, and compare."""

from typing import Any

from prefect import flow

from flows.parameters import Alias, ModelName
from flows.prepare_data import prepare_corpus, prepare_images
from flows.train import evaluated, plan_of
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import Scheme, TokenSet
from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.maintenance.crash_recovery import label_with_process
from tasks.registry.reproduction import Reproduction, compare_with_record, read_record, scratch_home
from tasks.runtime.messages import one_line
from tasks.runtime.stopping import unless_stopped
from tasks.settings.catalogue import recipe_of
from tasks.store.files import BadInput
from tasks.store.records import DamagedRecord
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
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
    if recipe.family not in FAMILIES:
        raise BadInput(
            f"{name} version {version.version} is of the family {recipe.family!r}; this program"
            f" knows {', '.join(FAMILIES)}"
        )
    family = FAMILIES[recipe.family]
    reproduced = {"reproduces": f"{name}/{version.version}"}
    with open_run(f"{name}, again", parameters=reproduced) as run_id:
        data = _data_again(family, recipe)
        plan = _plan_again(family, recipe)
        judge = None
        if isinstance(data, ImageSet):
            judge = fit_model(data, feature_extractor_plan(data), run_id)
        with scratch_home():
            fitted = fit_model(data, plan, run_id)
            scorecard = evaluated(family, fitted, data, judge, run_id)
        return compare_with_record(version, recipe, plan, fitted, scorecard, data)


def _data_again(family: Family, recipe: TrainingProvenance) -> ImageSet | TokenSet:
    if family.data == "images":
        return unless_stopped(prepare_images(recipe.source, recipe.image_size, to_register=False))
    scheme: Scheme = "bpe" if recipe.scheme == "bpe" else "characters"
    size = recipe.vocabulary_size
    return unless_stopped(
        prepare_corpus(recipe.source, scheme, size, recipe.glob, to_register=False)
    )


def _plan_again(family: Family, recipe: TrainingProvenance) -> TrainingPlan:
    classes = recipe_of(family).classes
    settings = {name: _setting(kind, recipe, name) for name, kind in classes.items()}
    return plan_of(family, settings, recipe.seed)


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
