"""Every record names what is there, and the table costs nothing to read."""

import inspect
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import is_dataclass, replace
from importlib import import_module
from pkgutil import resolve_name
from typing import Any, get_args, get_type_hints

import pytest
from prefect.utilities.callables import parameter_schema

from atelier.deployment.schema import read_deployments
from flows.retrain import HELP, retrain_flows
from flows.train import planned
from models.presets import ImageShape, Preset, TextShape
from models.training.checkpoint import TrainingState
from models.training.protocol import Draws, ImageData, TextData
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.family import Family
from tasks.families.gan import GAN
from tasks.families.ngram import NGRAM
from tasks.families.table import FAMILIES, names, of_data, options_of_families, purpose_of
from tasks.families.vae import VAE
from tasks.settings.catalogue import recipe_of
from tasks.settings.catalogue import settings_of as all_settings
from tasks.store.files import project_root

RECORDS = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
PRESETS: tuple[Preset, ...] = get_args(Preset)
SHAPES = {"images": ImageShape(1, 8, 8, 2), "text": TextShape("characters", 30, 10_000)}
DEPLOYMENTS = {each.name: each for each in read_deployments(project_root() / "prefect.yaml")}


def settings_of(family: Family, preset: Preset = "quick", seed: int = 3) -> dict[str, Any]:
    settings: dict[str, Any] = resolve_name(family.recipe)(preset, SHAPES[family.data], seed)
    return settings


def parameters_of(function: Any) -> Mapping[str, inspect.Parameter]:
    return inspect.signature(function).parameters


@RECORDS
def test_an_exported_version_has_a_loader(family: Family) -> None:
    loader = import_module(f"tasks.packaging.exported.{family.loader or f'load_{family.data}'}")

    for module in loader.MODULES:
        import_module(f"models.{module.format(family=family.name)}")
    assert callable(loader.load)


@RECORDS
@pytest.mark.parametrize("preset", PRESETS)
def test_a_recipe_gives_settings_of_its_classes(family: Family, preset: Preset) -> None:
    recipe = recipe_of(family)

    settings = settings_of(family, preset)

    assert all(is_dataclass(kind) for kind in recipe.classes.values())
    assert {name: type(value) for name, value in settings.items()} == recipe.classes
    assert "model" in settings  # which a version keeps, and is built from


@RECORDS
def test_an_option_is_a_short_form_of_a_setting_with_the_recipes_own_choice_first(
    family: Family,
) -> None:
    recipe = recipe_of(family)
    default = recipe.chosen("quick", SHAPES[family.data], 0)
    for option in family.options.values():
        assert default[option.setting].value == option.choices[0]
        assert len(set(option.choices)) == len(option.choices) > 1
        assert option.text
        made = [
            recipe("quick", SHAPES[family.data], 0, {option.setting: each})
            for each in option.choices
        ]
        assert all(made.count(each) == 1 for each in made)


@RECORDS
def test_a_training_is_a_class_of_the_protocol(family: Family) -> None:
    training = resolve_name(family.training)

    data, device, *rest = list(parameters_of(training))
    assert (data, device.removeprefix("_")) == ("data", "device")
    assert rest == list(recipe_of(family).classes)
    hints = get_type_hints(training.__init__)
    assert hints["data"] is {"images": ImageData, "text": TextData}[family.data]
    for method in ("steps", "finish"):
        assert callable(getattr(training, method)), method
    assert isinstance(training.shown, tuple)
    assert (
        hasattr(training, "drawn")
        == bool(getattr(training, "grid_title", ""))
        == bool(family.growth)
    )


@RECORDS
def test_what_an_evaluation_and_a_gallery_call_is_there(family: Family) -> None:
    for extra in family.gallery_extras:
        taken = [name.removeprefix("_") for name in parameters_of(resolve_name(extra))]
        assert taken == ["model", "seed", "keep"]
    if family.likelihood:
        assert list(parameters_of(resolve_name(family.likelihood))) == ["model", "pixels", "seed"]


@RECORDS
def test_a_record_has_a_folder_whose_serving_learns_from_the_same_data(family: Family) -> None:
    serving = import_module(f"models.{family.name}.serving")

    assert family.data == serving.DATA
    assert callable(serving.build)
    assert hasattr(serving, "draw") == (family.data == "images")
    for address in filter(None, (family.recipe, family.training, family.likelihood)):
        assert address.startswith(f"models.{family.name}.")


def test_every_folder_that_serves_has_a_record() -> None:
    serving = {path.parent.name for path in (project_root() / "models").glob("*/serving.py")}

    assert set(names()) == serving
    assert all(name == family.name for name, family in FAMILIES.items())
    assert all("-" not in name and name.isidentifier() for name in names())


@RECORDS
def test_a_record_speaks_to_people(family: Family) -> None:
    for text in (family.purpose, family.limits):
        assert text.endswith(".")
        assert not text.startswith(" ")
        assert "\n" not in text
    assert family.title
    assert all(option.text.endswith(".") for option in family.options.values())


@RECORDS
def test_spreads_are_known_for_what_trains_by_chance_and_lean_on_quick(family: Family) -> None:
    changes = settings_of(family, seed=1) != settings_of(family, seed=2)

    assert bool(family.seed_spreads) == changes
    assert set(family.seed_spreads) <= set(PRESETS)
    for relative, degrees_of_freedom in family.seed_spreads.values():
        assert 0 < relative < 1
        assert degrees_of_freedom >= 1
    assert 0.5 < family.luck_level < 1


def test_a_record_with_spreads_of_other_presets_alone_is_refused() -> None:
    with pytest.raises(ValueError, match="seed_spreads has no 'quick'"):
        replace(VAE, seed_spreads={"full": (0.01, 19)})

    assert replace(VAE, seed_spreads={}).seed_spreads == {}


@pytest.mark.parametrize(
    "given", [{"likelihood": "models.vae.evaluation:likelihood"}, {"draws_means": True}], ids=str
)
def test_a_record_of_text_that_is_measured_as_images_are_is_refused(given: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="are of images"):
        replace(NGRAM, **given)


def test_families_are_found_by_their_data_in_the_order_of_the_table() -> None:
    assert [*of_data("images"), *of_data("text")] == sorted(
        FAMILIES.values(), key=lambda family: family.data
    )
    assert of_data("images", ["gan", "ngram"]) == (GAN,)
    assert of_data("text", ["gan"]) == ()
    assert options_of_families() == GAN.options
    assert purpose_of("gan") == GAN.purpose
    assert purpose_of("of a later program") == ""


def test_options_of_two_families_do_not_share_a_name() -> None:
    """They share the command line and the form of a whole run."""
    counted = [name for family in FAMILIES.values() for name in family.options]

    assert len(counted) == len(set(counted)) == len(options_of_families())


def test_the_table_is_read_without_any_library() -> None:
    """Before the command line knows what it is asked, and in diagnostics of a broken machine."""
    program = """
import sys
from tasks.families.table import FAMILIES
assert FAMILIES
foreign = {name.partition(".")[0] for name in sys.modules} - set(sys.stdlib_module_names)
imported = {n for n in sys.modules if n.partition(".")[0] in ("models", "flows", "atelier")}
ours = {n for n in sys.modules if n.startswith("tasks.")} - {"tasks.families"}
print(sorted(foreign - {"tasks", "__main__"}), sorted(imported),
      sorted(n for n in ours if not n.startswith("tasks.families.")))
"""
    told = subprocess.run(
        [sys.executable, "-S", "-c", program],
        cwd=project_root(),
        env={"PYTHONPATH": str(project_root())},
        capture_output=True,
        text=True,
        check=True,
    ).stdout

    assert told == "[] [] []\n"


@RECORDS
def test_each_has_a_flow_whose_form_asks_what_it_takes(family: Family) -> None:
    name = f"retrain_{family.name}"
    flow = retrain_flows[name]

    assert getattr(import_module("flows.retrain"), name) is flow
    assert flow.name == f"retrain-{family.name}"
    fields = parameter_schema(flow).properties
    assert {family.data, "preset", "seed", "rehash", *family.options} <= set(fields)
    others = set(options_of_families()) - set(family.options)
    assert not set(fields) & {*others, *({"images", "text"} - {family.data})}
    told = {**HELP, **{each: option.text for each, option in family.options.items()}}
    assert {field: about["description"] for field, about in fields.items()} == {
        field: told[field] for field in fields
    }
    for option_name, option in family.options.items():
        assert fields[option_name]["enum"] == list(option.choices)
        assert fields[option_name]["default"] == option.choices[0]


@RECORDS
def test_each_has_a_deployment_that_runs_its_flow(family: Family) -> None:
    entry = DEPLOYMENTS[f"retrain-{family.name}"]

    assert entry.entrypoint == f"flows.retrain.retrain_{family.name}"
    assert family.name in entry.tags
    assert family.data in entry.parameters


def test_no_deployment_retrains_what_has_no_record() -> None:
    found = {name.removeprefix("retrain-") for name in DEPLOYMENTS if name.startswith("retrain-")}

    assert found == set(names())


@RECORDS
def test_a_plan_is_made_of_the_record_and_of_its_own_settings_alone(
    family: Family, images: ImageSet, tokens: TokenSet
) -> None:
    data = images if family.data == "images" else tokens
    others = {"ngram.model.order": 3} if family is not NGRAM else {"gan.model.loss": "hinge"}

    plan = planned(family, data, "quick", 3, others)

    assert (plan.family, plan.training, plan.seed) == (family.name, family.training, 3)
    assert plan.uses_gpu == family.uses_gpu
    assert plan.module == family.training.partition(":")[0]
    assert plan.settings == planned(family, data, "quick", 3, {}).settings
    own = {f"{family.name}.{_any_number(family)}": 2}
    assert planned(family, data, "quick", 3, own).settings != plan.settings


def _any_number(family: Family) -> str:
    return next(
        name
        for name in ("training.steps", "model.order")
        if f"{family.name}.{name}" in all_settings(family)
    )


@RECORDS
def test_what_can_be_resumed_has_a_state_and_steps(
    family: Family, images: ImageSet, tokens: TokenSet
) -> None:
    from tasks.training.device import training_device
    from tasks.training.examples import splits_of

    data = images if family.data == "images" else tokens
    plan = planned(family, data, "quick", 0, {})

    training = resolve_name(plan.training)(splits_of(data), training_device(), **plan.settings)

    if training.state is None:
        assert list(training.steps()) == []
        return
    assert isinstance(training.state, TrainingState)
    step = next(training.steps())
    assert (step.step, training.num_steps) == (1, plan.settings["training"].steps)
    assert set(training.shown) <= set(step.numbers())
    if isinstance(training, Draws):
        drawn = training.drawn()
        assert drawn.shape[1:] == (1, 8, 8)
        assert len(drawn) % 10 == 0
        assert 0 <= float(drawn.min()) <= float(drawn.max()) <= 1
