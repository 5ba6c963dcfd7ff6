"""Limits of fields, and how a recipe chooses: set, preset, derived, default."""

import math
from dataclasses import dataclass
from typing import Any, Literal

import pytest

from models.settings import Chosen, Derived, Limits, Recipe, check_limits, setting


@dataclass(frozen=True, kw_only=True, slots=True)
class Model:
    size: int = setting(4, ge=1, le=8)
    rate: float = setting(0.5, gt=0, lt=1)
    kind: Literal["a", "b"] = "a"
    channels: int = setting(1, ge=1, fixed_by="the images")

    def __post_init__(self) -> None:
        check_limits(self)
        if self.kind == "b" and self.size == 8:
            raise ValueError(f"kind b needs a size below 8, got {self.size}")


@dataclass(frozen=True, kw_only=True, slots=True)
class Training:
    steps: int = setting(10, ge=1)
    warmup_steps: int = setting(0, ge=0)
    ramp_steps: int = setting(0, ge=0)
    seed: int = setting(0, ge=0, fixed_by="--seed")


def defaults(preset: str, shape: int) -> dict[str, dict[str, Any]]:
    return {
        "model": {"channels": shape, "rate": 0.25},
        "training": {
            # in the wrong order, and one from another
            "ramp_steps": Derived(("training.warmup_steps",), lambda warmup: 2 * warmup),
            "warmup_steps": Derived(("training.steps",), lambda steps: steps // 4),
            "steps": {"quick": 40, "standard": 400}[preset],
        },
    }


RECIPE = Recipe({"model": Model, "training": Training}, defaults)


def test_a_recipe_gives_configurations_of_preset_and_data() -> None:
    made = RECIPE("quick", 3, seed=7)

    assert made["model"] == Model(size=4, rate=0.25, channels=3)
    assert made["training"] == Training(steps=40, warmup_steps=10, ramp_steps=20, seed=7)


def test_what_follows_from_others_follows_from_what_was_set() -> None:
    chosen = RECIPE.chosen("quick", 1, 0, {"training.steps": 80, "model.rate": 0.75})

    assert chosen["training.steps"] == Chosen(80, "set")
    assert chosen["training.warmup_steps"] == Chosen(20, "derived", ("training.steps",))
    assert chosen["training.ramp_steps"].value == 40
    assert chosen["model.rate"] == Chosen(0.75, "set")
    assert chosen["model.size"] == Chosen(4, "class")
    assert chosen["model.channels"] == Chosen(1, "fixed")
    assert chosen["training.seed"] == Chosen(0, "fixed")


def test_what_is_derived_can_be_set_and_others_follow_from_that() -> None:
    made = RECIPE("quick", 1, 0, {"training.warmup_steps": 3})

    assert (made["training"].warmup_steps, made["training"].ramp_steps) == (3, 6)


def test_contradictions_are_refused_with_both_values() -> None:
    with pytest.raises(ValueError, match="kind b needs a size below 8, got 8"):
        RECIPE("quick", 1, 0, {"model.kind": "b", "model.size": 8})


def test_what_does_not_fit_the_data_is_refused() -> None:
    def check(shape: int, model: Model, training: Training) -> None:
        if model.size > shape:
            raise ValueError(f"size is {model.size}, and the data hold {shape} {training.steps}")

    recipe = Recipe({"model": Model, "training": Training}, defaults, check)

    assert recipe("quick", 4)["model"].size == 4
    with pytest.raises(ValueError, match="size is 5, and the data hold 4 40"):
        recipe("quick", 4, 0, {"model.size": 5})


def test_one_number_has_one_form_whoever_says_it() -> None:
    """Or 1 and 1.0 would be two cache keys."""
    recipe = Recipe({"model": Model}, lambda _preset, _shape: {"model": {"rate": 0}})

    (value,) = (each.value for name, each in recipe.chosen("", 1).items() if name == "model.rate")

    assert isinstance(value, float)


def test_a_default_that_derives_from_nothing_known_is_a_fault_of_the_recipe() -> None:
    recipe = Recipe({"model": Model}, lambda *_: {"model": {"size": Derived(("model.no",), int)}})

    with pytest.raises(AssertionError, match=r"\['model\.size'\]"):
        recipe("", 1)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("size", 0, "size must be between 1 and 8, got 0"),
        ("size", 9, "size must be between 1 and 8, got 9"),
        ("rate", 0.0, "rate must be above 0 and below 1, got 0.0"),
        ("rate", 1.0, "rate must be above 0 and below 1, got 1.0"),
        ("rate", math.nan, "rate must be above 0 and below 1, got nan"),
        ("rate", math.inf, "rate must be above 0 and below 1, got inf"),
        ("kind", "c", "kind must be one of a, b, got 'c'"),
        ("channels", 0, "channels must be at least 1, got 0"),
    ],
)
def test_values_outside_their_limits_are_refused(field: str, value: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Model(**{field: value})


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (Limits(), ""),
        (Limits(ge=1), "at least 1"),
        (Limits(gt=0, le=1e9), "above 0 and at most 1,000,000,000"),
        (Limits(ge=0.5, lt=1), "at least 0.5 and below 1"),
        (Limits(ge=1, le=10_000), "between 1 and 10,000"),
    ],
    ids=str,
)
def test_limits_are_told_in_words(limits: Limits, words: str) -> None:
    assert str(limits) == words
