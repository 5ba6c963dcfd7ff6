"""One check for all that a person sets, with one line for each way to be wrong."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from models.presets import ImageShape, TextShape
from tasks.families.gan import GAN
from tasks.families.gpt import GPT
from tasks.families.ngram import NGRAM
from tasks.families.table import FAMILIES, names
from tasks.families.vae import VAE
from tasks.settings.catalogue import recipe_of, resolved, settings_of
from tasks.settings.values import (
    check_time,
    checked,
    flattened,
    form_of,
    from_words,
    settled,
    with_options,
)
from tasks.store.files import BadInput

SHAPES: dict[str, Any] = {
    "images": ImageShape(1, 8, 8, 10),
    "text": TextShape("characters", 90, 10_000),
}


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("vae.model.latent_size", "16", 16),
        ("vae.model.latent_size", "16.0", 16),
        ("vae.training.learning_rate", "1e-3", 0.001),
        ("gan.model.loss", "hinge", "hinge"),
        ("gan.model.per_channel_branches", "true", True),
        ("ngram.model.sentence_end", "none", None),
        ("ngram.model.sentence_end", "7", 7),
        ("ngram.model.fallback_discounts", "[0.4, 1, 1.5]", (0.4, 1.0, 1.5)),
    ],
)
def test_a_value_is_read_from_text_and_as_it_is(name: str, text: str, value: Any) -> None:
    (found,) = checked({name: text}).values()

    assert found == value
    assert type(found) is type(value)
    assert checked({name: value}) == {name: value}


def test_a_nested_setting_is_the_same_as_a_dotted_one() -> None:
    nested = {"vae": {"model": {"latent_size": 16}, "training.steps": 80}}

    assert checked(nested) == {"vae.model.latent_size": 16, "vae.training.steps": 80}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"vae.model.latent_sise": 1},
            "there is no setting 'vae.model.latent_sise'; did you mean vae.model.latent_size",
        ),
        (
            {"latent_size": 1},
            "no setting 'latent_size'; did you mean vae.model.latent_size or gan.model.latent_size",
        ),
        ({"VAE.Model.Dropout": 1}, "'VAE.Model.Dropout'; did you mean vae.model.dropout"),
        ({"nothing.like.it": 1}, "no setting 'nothing.like.it'; `atelier settings` lists all"),
        ({"vae.model": 1}, "vae.model is no setting but a group of them; such as vae.model."),
        ({"vae": 1}, "vae is no setting but a group of them; such as vae.model.latent_size"),
        ({"vae.training": 1}, "group of them; such as vae.training.steps"),
        ({"vae.model.latent_size": "many"}, "between 1 and 4,096; got 'many'"),
        ({"vae.model.latent_size": 0}, "must be a whole number between 1 and 4,096; got 0"),
        ({"vae.model.latent_size": 1.5}, "must be a whole number between 1 and 4,096; got 1.5"),
        ({"vae.model.latent_size": True}, "must be a whole number between 1 and 4,096; got true"),
        ({"vae.model.latent_size": None}, "must be a whole number between 1 and 4,096; got None"),
        ({"vae.model.latent_size": [1]}, "between 1 and 4,096; got [1]"),
        ({"vae.training.learning_rate": "nan"}, "a number above 0 and at most 10; got 'nan'"),
        ({"vae.training.learning_rate": float("inf")}, "above 0 and at most 10; got inf"),
        ({"gan.model.loss": "hing"}, "one of relativistic, hinge, wasserstein; got 'hing'"),
        ({"gan.model.per_channel_branches": "maybe"}, "must be true or false; got 'maybe'"),
        ({"ngram.model.fallback_discounts": "[1, 2]"}, "3 numbers in a list; got [1, 2]"),
        ({"ngram.model.fallback_discounts": "[" * 10_000}, "3 numbers in a list; got '[[["),
        ({"ngram.model.fallback_discounts": "[true, 2, 3]"}, "in a list; got [true, 2, 3]"),
        ({"ngram.model.fallback_discounts": [0.5, 1, False]}, "in a list; got [0.5, 1, false]"),
        ({"ngram.model.sentence_end": -1}, "a whole number at least 0, or none; got -1"),
        ({"gpt.training.seed": 3}, "gpt.training.seed is decided by --seed and cannot be set"),
        ({"vae.model.channels": 3}, "vae.model.channels is decided by the images"),
        ({"gpt.model.vocabulary_size": 3}, "is decided by the tokenizer"),
        ({"ngram.model.tuned": "none"}, "ngram.model.tuned is decided by tuning"),
        (
            {"vae.model.latent_size": 4, "vae": {"model": {"latent_size": 5}}},
            "vae.model.latent_size is set twice: to 4 and to 5",
        ),
    ],
    ids=str,
)
def test_what_is_wrong_is_told_in_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(BadInput) as refused:
        checked(settings)

    assert message in str(refused.value)
    assert "\n" not in str(refused.value)


def test_a_setting_of_a_family_that_is_not_trained_is_refused() -> None:
    with pytest.raises(BadInput, match=r"gpt\.training\.steps is set, and of the families only"):
        checked({"gpt.training.steps": 3}, ["vae", "gan"])


@pytest.mark.parametrize(
    ("family", "settings", "message"),
    [
        (GPT, {"gpt.model.num_heads": 7}, "multiple of 2 * num_heads = 14"),
        (GPT, {"gpt.model.context_length": 20_000}, "the training text has 10,000 tokens"),
        (NGRAM, {"ngram.model.sentence_end": 90}, "token id 90, and the vocabulary has 90 tokens"),
        (
            VAE,
            {"vae.model.free_bits_nats": 0.5, "vae.model.num_importance_samples": 5},
            "got 0.5 with 5 samples",
        ),
        (GAN, {"gan.model.num_packed": 2}, "got 0.1 with 10 classes and 2 packed"),
    ],
    ids=str,
)
def test_contradictions_are_told_with_both_values(
    family: Any, settings: dict[str, Any], message: str
) -> None:
    with pytest.raises(BadInput) as refused:
        settled(family, "standard", SHAPES[family.data], 0, checked(settings))

    assert message in str(refused.value)
    assert family.name in str(refused.value)


def test_settings_are_what_a_family_is_made_of() -> None:
    made = settled(VAE, "quick", SHAPES["images"], 5, {"vae.model.latent_size": 3})

    assert made["model"].latent_size == 3
    assert made["training"].seed == 5
    assert made == recipe_of(VAE)("quick", SHAPES["images"], 5, {"model.latent_size": 3})


def test_an_option_is_a_short_form_and_its_first_choice_sets_nothing() -> None:
    assert with_options({}, {"gan_loss": "relativistic"}) == {}
    assert with_options({}, {"gan_loss": "hinge"}) == {"gan.model.loss": "hinge"}
    assert with_options({"gan.model.loss": "hinge"}, {"gan_loss": "hinge"}) == {
        "gan.model.loss": "hinge"
    }
    with pytest.raises(
        BadInput, match=r"gan_loss is 'hinge', and gan\.model\.loss is set to 'wass"
    ):
        with_options({"gan.model.loss": "wasserstein"}, {"gan_loss": "hinge"})


def test_a_time_chooses_steps_and_nothing_else_does() -> None:
    check_time({"vae.training.steps": 9}, ["vae"], None)
    check_time({"vae.model.latent_size": 9}, ["vae", "ngram"], 5)

    with pytest.raises(BadInput, match=r"vae\.training\.steps is set, and --seconds"):
        check_time({"vae.training.steps": 9}, ["ngram", "vae"], 5)
    with pytest.raises(BadInput, match="--seconds is 5, and ngram is not trained by steps"):
        check_time({}, ["ngram"], 5)


def test_assignments_are_taken_apart_at_the_first_equals_sign() -> None:
    assert from_words(["a.b.c=1", "d.e.f = x=y", "a.b.c=2"]) == {"a.b.c": "2", "d.e.f": "x=y"}
    for wrong in ("vae.model.latent_size", "=3", ""):
        with pytest.raises(BadInput, match="--set wants NAME=VALUE"):
            from_words([wrong])


@pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
def test_a_form_offers_what_can_be_set_and_nothing_else(family: Any) -> None:
    form = form_of(family)
    settable = [name for name, each in settings_of(family).items() if not each.is_fixed]

    offered = [
        f"{family.name}.{group}.{field}"
        for group, part in form.model_fields.items()
        for field in part.annotation.__args__[0].model_fields  # type: ignore[union-attr]
    ]

    assert offered == settable
    assert form().model_dump(exclude_none=True) == {}
    with pytest.raises(ValidationError):
        form.model_validate({"model": {"seed": 3}})
    with pytest.raises(ValidationError):
        form.model_validate({"modell": {}})


def test_a_form_holds_the_limits() -> None:
    form = form_of(VAE)

    filled = form.model_validate({"model": {"latent_size": 16}})

    assert checked(flattened({"vae": filled.model_dump(exclude_none=True)})) == {
        "vae.model.latent_size": 16
    }
    with pytest.raises(ValidationError):
        form.model_validate({"model": {"latent_size": 0}})


@given(st.data())
def test_whatever_is_within_the_limits_passes_and_comes_back_the_same(data: st.DataObject) -> None:
    family = FAMILIES[data.draw(st.sampled_from(names()))]
    settable = [each for each in settings_of(family).values() if not each.is_fixed]
    setting = data.draw(st.sampled_from([each for each in settable if each.type is int]))
    low, high = setting.limits.ge, setting.limits.le
    value = data.draw(st.integers(int(low or 0), int(high or 1_000_000)))

    assert checked({setting.name: str(value)}) == {setting.name: value}
    rows = resolved(family, "quick", SHAPES[family.data], {setting.name: value})
    assert rows[setting.name].chosen.value == value
