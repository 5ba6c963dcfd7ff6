"""The settings of a model that another training continues: taken over, and never contradicted."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, get_origin

from models.presets import ImageShape, Preset, TextShape
from models.settings import limits_of
from tasks.families.family import Family
from tasks.settings.catalogue import recipe_of
from tasks.settings.values import Given
from tasks.store.files import BadInput

GROUP = "model"
"""Of a family's settings those that make its weights what they are."""


def inherited(
    family: Family,
    preset: Preset,
    shape: ImageShape | TextShape,
    model: Mapping[str, Any],
    given: Mapping[str, Any],
    whose: str,
    *,
    is_known: bool = True,
) -> Given:
    """What a training takes over of a model's configuration, by full names.

    All but what follows from the training's own settings, such as a warm-up. model: the
    configuration, by field; whose: a version, for messages; given: what a person set; is_known:
    whether the data's shape is more than a guess. Raises BadInput, with both values, for a setting
    or for data that would make other weights.
    """
    recipe = recipe_of(family)
    chosen = recipe.chosen(preset, shape)
    taken: Given = {}
    of_data: dict[str, tuple[Any, Any]] = {}
    for each in fields(recipe.classes[GROUP]):
        now, name = chosen[f"{GROUP}.{each.name}"], f"{family.name}.{GROUP}.{each.name}"
        value = model.get(each.name, each.default)
        if get_origin(each.type) is tuple and value is not None:
            value = tuple(value)
        if limits_of(each).fixed_by:
            of_data[each.name] = (value, now.value)
        elif not any(other.startswith("training.") for other in now.of):
            if name in given and given[name] != value:
                raise BadInput(
                    f"{name} is set to {given[name]}, and {whose}, which is to be continued, has"
                    f" {value}: leave it out, or train without continuing"
                )
            taken[name] = value
    if is_known and (other := {k: pair for k, pair in of_data.items() if pair[0] != pair[1]}):
        theirs = ", ".join(f"{name} {pair[0]}" for name, pair in other.items())
        ours = ", ".join(f"{name} {pair[1]}" for name, pair in other.items())
        raise BadInput(
            f"{whose} cannot be continued on these {family.data}: it has {theirs}, and they have"
            f" {ours}"
        )
    return taken
