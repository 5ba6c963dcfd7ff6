"""What a search varies: `--vary NAME=SPEC` as Optuna's distributions, and as JSON and back.

A spec is a range `0.1..0.5`, with steps `8..32:4`, by orders of magnitude `log:1e-4..1e-2`, or a
list of choices `8,12,16,20`; what a setting's own type is decides what its numbers are.
"""

import json
import math
import types
from collections.abc import Callable, Mapping
from typing import Any, Literal, Union, get_args, get_origin

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
    json_to_distribution,
)

from tasks.families.family import Family
from tasks.runtime.messages import shortened
from tasks.settings.catalogue import settings_of
from tasks.settings.values import checked
from tasks.store.files import BadInput

Space = dict[str, BaseDistribution]
"""What is varied, by the full names of settings, in the order in which it was given."""
Check = Callable[[str, Any], Any]
"""Called with a setting's name and a value: the value as its type, or BadInput."""

WANTED = "log:LOW..HIGH, LOW..HIGH, LOW..HIGH:STEP or a list of choices A,B,C"
MOST_CHOICES = 100
_LOG = "log:"


def parsed_space(vary: Mapping[str, Any], type_of: Callable[[str], Any], check: Check) -> Space:
    """The space of all that is varied.

    vary: specs by the names of settings; a list, as a TOML file gives it, is one of choices.
    type_of: a setting's declared type. check: whether a setting may have a value. Raises BadInput,
    in one line: which setting, what was got, what was wanted.
    """
    if not vary:
        raise BadInput("a search wants --vary NAME=SPEC, such as vae.model.latent_size=8,12,16")
    return {name: _parsed(name, spec, type_of, check) for name, spec in vary.items()}


def space_for(family: Family, vary: Mapping[str, Any]) -> Space:
    """The space of a family's settings; raises BadInput as `parsed_space` does."""

    def check(name: str, value: Any) -> Any:
        return checked({name: value}, [family.name])[name]

    def type_of(name: str) -> Any:
        known = settings_of(family)
        if name not in known or known[name].is_fixed:
            check(name, "")  # says why
        return known[name].type

    return parsed_space(vary, type_of, check)


def vary_from_words(assignments: list[str]) -> dict[str, str]:
    """What `--vary NAME=SPEC` says, unchecked; raises BadInput for what is none, or twice."""
    vary: dict[str, str] = {}
    for text in assignments:
        name, equals, spec = (part.strip() for part in text.partition("="))
        if not (equals and name and spec and name.isprintable()):
            raise BadInput(f"--vary wants NAME=SPEC, with {WANTED}; got {shortened(repr(text))}")
        if name in vary:
            raise BadInput(f"{name} is varied twice: as {vary[name]!r} and as {spec!r}")
        vary[name] = spec
    return vary


def plain_space(space: Mapping[str, BaseDistribution]) -> dict[str, Any]:
    """A space as JSON."""
    return {name: json.loads(distribution_to_json(each)) for name, each in space.items()}


def space_of(plain: Mapping[str, Any]) -> Space:
    """The space that `plain_space` wrote, in the order of names.

    A sampler draws in the order of the space, and records are written with their keys sorted.
    """
    return {name: json_to_distribution(json.dumps(plain[name])) for name in sorted(plain)}


def holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value could have been proposed."""
    if isinstance(distribution, CategoricalDistribution):
        return any(type(value) is type(each) and value == each for each in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution), "there are no others"
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not distribution.low <= value <= distribution.high:
        return False
    if not distribution.step:
        return True
    steps = (value - distribution.low) / distribution.step
    return abs(steps - round(steps)) < 1e-8


def in_words(distribution: BaseDistribution) -> str:
    """What is varied of one setting, as its spec says it."""
    if isinstance(distribution, CategoricalDistribution):
        return ",".join("none" if each is None else str(each) for each in distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution), "there are no others"
    words = f"{distribution.low:g}..{distribution.high:g}"
    if distribution.log:
        return f"{_LOG}{words}"
    is_stepped = distribution.step not in (None, 1)
    return f"{words}:{distribution.step:g}" if is_stepped else words


def _parsed(name: str, spec: Any, type_of: Callable[[str], Any], check: Check) -> BaseDistribution:
    if name.rpartition(".")[2] == "seed":
        raise BadInput(f"{name} cannot be varied: --seed sets it, for all trials alike")
    kind, takes_none = _plain_type(type_of(name))
    if isinstance(spec, list):
        return _choices(name, spec, check)
    if not isinstance(spec, str) or not spec.isprintable():  # a message is one line
        raise BadInput(f"{name} wants {WANTED}; got {shortened(repr(spec))}")
    if ".." not in spec and not spec.startswith(_LOG):
        words = [word.strip() for word in spec.split(",")]
        is_none = [takes_none and word.lower() in ("none", "null") for word in words]
        pairs = zip(words, is_none, strict=True)
        return _choices(name, [None if none else word for word, none in pairs], check)
    if kind not in (int, float):
        raise BadInput(
            f"{name} has no range, for it is no number; wanted choices A,B,C, got {spec}"
        )
    return _range(name, spec, kind, check)


def _plain_type(kind: Any) -> tuple[Any, bool]:
    """A setting's type without the `None` that it may also be, and whether it may."""
    if get_origin(kind) in (Union, types.UnionType):
        (plain, *_) = (each for each in get_args(kind) if each is not type(None))
        return plain, type(None) in get_args(kind)
    return (str if get_origin(kind) is Literal else kind), False


def _choices(name: str, given: list[Any], check: Check) -> CategoricalDistribution:
    if not 2 <= len(given) <= MOST_CHOICES:
        wanted = f"wanted 2 to {MOST_CHOICES} of them, or a range"
        raise BadInput(f"{name}: {len(given)} choice{'s'[: len(given) != 1]}; {wanted}")
    values = [check(name, value) for value in given]
    for value in values:
        if not isinstance(value, bool | int | float | str | None):
            raise BadInput(f"{name} cannot be varied: {shortened(repr(value))} is not one value")
    for index, value in enumerate(values):
        if value in values[:index]:
            raise BadInput(f"{name}: the choice {value!r} is there twice")
    return CategoricalDistribution(values)


def _range(name: str, spec: str, kind: type, check: Check) -> FloatDistribution | IntDistribution:
    is_log = spec.startswith(_LOG)
    ends, colon, step_word = spec.removeprefix(_LOG).partition(":")
    words = [word.strip() for word in ends.split("..")]
    if len(words) != 2 or not all(words) or (colon and not step_word.strip()):
        raise BadInput(f"{name} wants {WANTED}; got {shortened(spec)}")
    if is_log and colon:
        raise BadInput(f"{name}: a range is either by orders of magnitude or has steps; got {spec}")
    low, high = (check(name, word) for word in words)
    for word, value in zip(words, (low, high), strict=True):
        if value is None:
            raise BadInput(f"{name} wants numbers for ends of its range; got {word} in {spec}")
    if not low < high:
        raise BadInput(f"{name}: the range's first end must be the lower one; got {spec}")
    if is_log and low <= 0:
        raise BadInput(f"{name}: a range by orders of magnitude lies above 0; got {spec}")
    if not colon:
        if kind is int:
            return IntDistribution(low, high, log=is_log)
        return FloatDistribution(low, high, log=is_log)
    return _stepped(name, spec, kind, (low, high), step_word.strip())


def _stepped(
    name: str, spec: str, kind: type, ends: tuple[Any, Any], word: str
) -> FloatDistribution | IntDistribution:
    (low, high), step = ends, _number(word, kind)
    if step is None or not 0 < step <= high - low:
        wanted = "a whole number" if kind is int else "a number"
        raise BadInput(f"{name} wants a step that is {wanted} within the range; got {spec}")
    steps = (high - low) / step
    if abs(steps - round(steps)) > 1e-8:
        last = low + math.floor(steps) * step
        raise BadInput(f"{name}: steps of {word} end at {last:g}, not at {high:g}; got {spec}")
    if kind is int:
        return IntDistribution(low, high, step=int(step))
    return FloatDistribution(low, high, step=step)


def _number(word: str, kind: type) -> float | None:
    """A word as a finite number of a kind, or None."""
    try:
        value = kind(word) if word.isascii() else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None
