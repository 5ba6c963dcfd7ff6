"""What a training takes over of the model that it continues, and what is refused."""

from dataclasses import asdict
from typing import Any

import pytest

from models.presets import ImageShape, TextShape
from tasks.families.table import FAMILIES
from tasks.settings.catalogue import recipe_of
from tasks.settings.inherited import inherited
from tasks.settings.values import settled
from tasks.store.files import BadInput

GREY = ImageShape(1, 8, 8, 10)


def model_of(family: str, shape: Any, preset: str = "standard", **given: Any) -> dict[str, Any]:
    set_ones = {f"model.{name}": value for name, value in given.items()}
    return asdict(recipe_of(FAMILIES[family])(preset, shape, 0, set_ones)["model"])


def taken(family: str, shape: Any, model: dict[str, Any], **more: Any) -> dict[str, Any]:
    given = {f"{family}.{k.replace('__', '.')}": v for k, v in more.pop("given", {}).items()}
    return inherited(FAMILIES[family], "quick", shape, model, given, "its version 3", **more)


@pytest.mark.parametrize("family", [name for name, each in FAMILIES.items() if each.continued])
def test_another_preset_trains_the_model_that_it_continues(family: str) -> None:
    shape = GREY if FAMILIES[family].data == "images" else TextShape("characters", 300, 10**6)
    model = model_of(family, shape, "full")

    given = taken(family, shape, model)
    made = asdict(settled(FAMILIES[family], "quick", shape, 0, given)["model"])  # type: ignore[call-overload]

    assert {k: v for k, v in made.items() if k != "kl_warmup_steps"} == {
        k: v for k, v in model.items() if k != "kl_warmup_steps"
    }


def test_what_follows_from_the_trainings_own_settings_begins_anew() -> None:
    given = taken("vae", GREY, model_of("vae", GREY, kl_warmup_steps=7))

    assert "vae.model.kl_warmup_steps" not in given
    assert given["vae.model.latent_size"] == 12


def test_a_setting_that_says_otherwise_is_refused_with_both_values() -> None:
    model = model_of("vae", GREY)

    assert taken("vae", GREY, model, given={"model__latent_size": 12})
    with pytest.raises(BadInput, match=r"latent_size is set to 3, and its version 3.*has 12"):
        taken("vae", GREY, model, given={"model__latent_size": 3})


def test_data_of_another_shape_are_refused_with_both() -> None:
    model = model_of("gan", GREY)

    with pytest.raises(
        BadInput, match="it has channels 1, num_classes 10, and they have channels 3"
    ):
        taken("gan", ImageShape(3, 8, 8, 4), model)
    assert taken("gan", ImageShape(3, 8, 8, 4), model, is_known=False)


def test_a_model_without_classes_takes_images_with_any() -> None:
    assert taken("vae", ImageShape(1, 8, 8, 3), model_of("vae", GREY))


def test_a_record_of_before_a_setting_has_its_default() -> None:
    model = model_of("gpt", TextShape("characters", 300, 10**6))
    del model["max_ngram"]

    assert taken("gpt", TextShape("characters", 300, 10**6), model)["gpt.model.max_ngram"] == 5
