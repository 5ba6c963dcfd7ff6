"""What is varied: specs, the values that they allow, and what is said of wrong ones."""

import json
from typing import Any, Literal

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tasks.search.space import (
    holds,
    in_words,
    parsed_space,
    plain_space,
    space_of,
    vary_from_words,
)
from tasks.store.files import BadInput

TYPES: dict[str, Any] = {
    "f.training.learning_rate": float,
    "f.model.size": int,
    "f.model.loss": Literal["hinge", "wasserstein"],
    "f.model.is_tied": bool,
    "f.model.clip": float | None,
    "f.model.betas": tuple[float, float],
    "f.training.seed": int,
}


def check(name: str, value: Any) -> Any:
    """As the settings do: words become values of the type, and sizes are positive."""
    kind = TYPES[name]
    if value is None and name == "f.model.clip":
        return None
    try:
        if kind is bool:
            return {"true": True, "false": False}[str(value).lower()]
        if kind == tuple[float, float]:
            return json.loads(value) if isinstance(value, str) else value
        if kind == Literal["hinge", "wasserstein"]:
            return {"hinge": "hinge", "wasserstein": "wasserstein"}[value]
        found = (int if kind is int else float)(value)
    except (KeyError, ValueError):
        raise BadInput(f"{name} must be {kind}; got {value}") from None
    if found < 0:
        raise BadInput(f"{name} must be at least 0; got {value}")
    return found


def one(name: str, spec: Any) -> Any:
    return parsed_space({name: spec}, TYPES.__getitem__, check)[name]


@pytest.mark.parametrize(
    ("name", "spec", "wanted"),
    [
        ("f.training.learning_rate", "log:1e-4..1e-2", FloatDistribution(1e-4, 1e-2, log=True)),
        ("f.training.learning_rate", "0.1..0.5", FloatDistribution(0.1, 0.5)),
        ("f.training.learning_rate", "0.1..0.5:0.1", FloatDistribution(0.1, 0.5, step=0.1)),
        ("f.training.learning_rate", "1e-3,2e-3", CategoricalDistribution([0.001, 0.002])),
        ("f.model.size", "8..32", IntDistribution(8, 32)),
        ("f.model.size", "8..32:4", IntDistribution(8, 32, step=4)),
        ("f.model.size", "log:8..512", IntDistribution(8, 512, log=True)),
        ("f.model.size", " 8, 12 ,16,20 ", CategoricalDistribution([8, 12, 16, 20])),
        ("f.model.size", [8, 12], CategoricalDistribution([8, 12])),
        ("f.model.loss", "hinge,wasserstein", CategoricalDistribution(["hinge", "wasserstein"])),
        ("f.model.is_tied", "true,false", CategoricalDistribution([True, False])),
        ("f.model.clip", "none,1,2.5", CategoricalDistribution([None, 1.0, 2.5])),
        ("f.model.clip", "1..2", FloatDistribution(1.0, 2.0)),
    ],
)
def test_a_spec_is_read_by_the_type_of_its_setting(name: str, spec: Any, wanted: Any) -> None:
    found = one(name, spec)

    assert found == wanted
    assert type(getattr(found, "low", 0.0)) is type(getattr(wanted, "low", 0.0))


@pytest.mark.parametrize(
    ("name", "spec", "said"),
    [
        ("f.training.seed", "1,2,3", "--seed sets it"),
        ("f.model.size", "8", "1 choice; wanted 2 to 100"),
        ("f.model.size", "", "1 choice; wanted 2 to 100"),
        ("f.model.size", "8..", "wants log:LOW..HIGH"),
        ("f.model.size", "8..16..32", "wants log:LOW..HIGH"),
        ("f.model.size", "8..16:", "wants log:LOW..HIGH"),
        ("f.model.size", "8..16.5", "must be"),
        ("f.model.size", "16..8", "first end must be the lower"),
        ("f.model.size", "8..8", "first end must be the lower"),
        ("f.model.size", "8..16:0", "wants a step that is a whole number"),
        ("f.model.size", "8..16:1.5", "wants a step that is a whole number"),
        ("f.model.size", "8..16:16", "within the range"),
        ("f.model.size", "8..16:\u0662", "wants a step that is a whole number"),
        ("f.model.size", "8..16\n", r"got '8..16\n'"),
        ("f.model.size", "8..16:3", "steps of 3 end at 14, not at 16"),
        ("f.model.size", "log:8..16:2", "either by orders of magnitude or has steps"),
        ("f.model.size", "log:0..16", "lies above 0"),
        ("f.model.size", "-1..16", "at least 0"),
        ("f.model.size", "8,8", "8 is there twice"),
        ("f.model.size", "8,x", "must be"),
        ("f.model.size", 8, "wants log:LOW..HIGH"),
        ("f.model.size", [8], "1 choice; wanted"),
        ("f.model.loss", "a..b", "it is no number; wanted choices"),
        ("f.model.loss", "hinge,hnige", "must be"),
        ("f.model.clip", "none..2", "must be"),
        ("f.model.betas", ["[0.1, 0.9]", "[0.2, 0.9]"], "is not one value"),
        ("f.training.learning_rate", "0.1..0.5:nan", "wants a step that is a number"),
        ("f.training.learning_rate", "log:", "wants log:LOW..HIGH"),
    ],
)
def test_a_wrong_spec_names_the_setting_what_was_got_and_what_was_wanted(
    name: str, spec: Any, said: str
) -> None:
    with pytest.raises(BadInput) as error:
        one(name, spec)

    assert name in str(error.value)
    assert said in str(error.value)
    assert "\n" not in str(error.value)


def test_nothing_to_vary_is_no_search() -> None:
    with pytest.raises(BadInput, match="wants --vary"):
        parsed_space({}, TYPES.__getitem__, check)


def test_words_of_the_command_line_are_names_and_specs() -> None:
    assert vary_from_words(["a.b=log:1..2", " c.d = 1,2 "]) == {"a.b": "log:1..2", "c.d": "1,2"}


@pytest.mark.parametrize("words", [["a.b"], ["=1,2"], ["a.b="], ["a.b=1,2", "a.b=3,4"]])
def test_words_that_are_none_or_twice_are_refused(words: list[str]) -> None:
    with pytest.raises(BadInput):
        vary_from_words(words)


SPACE = {
    "f.training.learning_rate": "log:1e-4..1e-2",
    "f.model.size": "8..32:4",
    "f.model.loss": "hinge,wasserstein",
    "f.model.clip": "none,1",
}


def test_a_space_survives_json_and_has_one_order_however_it_was_written() -> None:
    space = parsed_space(SPACE, TYPES.__getitem__, check)

    again = space_of(json.loads(json.dumps(plain_space(space))))

    assert again == space
    assert list(again) == sorted(SPACE)


def test_a_space_is_told_as_it_was_given() -> None:
    space = parsed_space(SPACE, TYPES.__getitem__, check)

    told = {name: in_words(each) for name, each in space.items()}

    assert told == {
        **SPACE,
        "f.training.learning_rate": "log:0.0001..0.01",
        "f.model.clip": "none,1.0",
    }


@pytest.mark.parametrize(
    ("spec", "inside", "outside"),
    [
        ("8..32:4", [8, 12, 32], [9, 36, 4, "8", None, True]),
        ("8..32", [8, 9, 32], [7, 33]),
        ("8,12", [8, 12], [10, "8", True, 8.0]),
    ],
)
def test_what_could_have_been_proposed_is_known(
    spec: str, inside: list[Any], outside: list[Any]
) -> None:
    distribution = one("f.model.size", spec)

    assert all(holds(distribution, value) for value in inside)
    assert not any(holds(distribution, value) for value in outside)
