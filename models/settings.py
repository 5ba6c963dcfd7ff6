"""Settings: fields of frozen dataclasses with limits, and recipes that choose them for a preset.

A configuration declares each field by `setting`, with its limits, and says below it what it means;
`check_limits` refuses values outside them. A recipe gives defaults by group ("model", "training")
for a preset and data; what a person sets takes their place, and what follows from other settings is
computed afterwards.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_origin

Origin = Literal["set", "preset", "derived", "class", "fixed"]
"""Where a value comes from: a person, the recipe, other settings, the dataclass's own default, or
what no person sets."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What a field may be; None is no limit."""

    ge: float | None = None
    gt: float | None = None
    le: float | None = None
    lt: float | None = None
    fixed_by: str = ""
    """What decides the field where a person does not: the data, the run's seed, tuning."""

    def __str__(self) -> str:
        """In words, after "must be"; empty without limits."""

        def told(bound: float) -> str:
            return f"{int(bound):,}" if float(bound).is_integer() else f"{bound:g}"

        if self.ge is not None and self.le is not None:
            return f"between {told(self.ge)} and {told(self.le)}"
        bounds = (
            ("at least", self.ge),
            ("above", self.gt),
            ("at most", self.le),
            ("below", self.lt),
        )
        return " and ".join(
            f"{words} {told(bound)}" for words, bound in bounds if bound is not None
        )

    def admit(self, value: float) -> bool:
        """Whether a number lies within; one that is not finite never does."""
        return (
            math.isfinite(value)
            and (self.ge is None or value >= self.ge)
            and (self.gt is None or value > self.gt)
            and (self.le is None or value <= self.le)
            and (self.lt is None or value < self.lt)
        )


def setting(
    default: Any,
    *,
    ge: float | None = None,
    gt: float | None = None,
    le: float | None = None,
    lt: float | None = None,
    fixed_by: str = "",
) -> Any:
    """A field of a configuration, with limits (greater than or equal, greater than, ...)."""
    limits = Limits(ge=ge, gt=gt, le=le, lt=lt, fixed_by=fixed_by)
    return field(default=default, metadata={"limits": limits})


def limits_of(declared: Any) -> Limits:
    """The limits of a dataclass's field."""
    limits: Limits = declared.metadata.get("limits", Limits())
    return limits


def check_limits(config: Any) -> None:
    """Raise ValueError for the first field outside its limits, or not among its choices."""
    for each in fields(config):
        value, limits = getattr(config, each.name), limits_of(each)
        if get_origin(each.type) is Literal:
            if value not in (choices := get_args(each.type)):
                raise ValueError(f"{each.name} must be one of {', '.join(choices)}, got {value!r}")
        elif isinstance(value, (int, float)) and not limits.admit(value):
            raise ValueError(f"{each.name} must be {limits or 'finite'}, got {value}")


@dataclass(frozen=True, slots=True)
class Derived:
    """A default that follows from other settings of its family, named `group.field`."""

    of: tuple[str, ...]
    by: Callable[..., Any]
    """Called with their values, in this order."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """The value of one setting."""

    value: Any
    origin: Origin
    of: tuple[str, ...] = ()
    """The settings that it was derived from."""


Groups = Mapping[str, Mapping[str, Any]]
"""Values, or `Derived`, by group and field."""


class Recipe:
    """What a family trains: called with (preset, shape, seed), gives configurations by group."""

    def __init__(
        self,
        classes: Mapping[str, type],
        defaults: Callable[..., Groups],
        check: Callable[..., None] | None = None,
    ) -> None:
        """classes: the dataclass of each group. defaults: called with (preset, shape).

        check: called with (shape, **configurations), raises ValueError for what does not fit the
        data.
        """
        self.classes, self._defaults, self._check = dict(classes), defaults, check

    def __call__(
        self, preset: str, shape: Any, seed: int = 0, given: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """The configurations by group; given: what a person set, by `group.field`.

        Raises ValueError for values that contradict each other or lie outside their limits.
        """
        chosen = self.chosen(preset, shape, seed, given)
        made = {}
        for group, kind in self.classes.items():
            values = {each.name: chosen[f"{group}.{each.name}"].value for each in fields(kind)}
            made[group] = kind(**values)
        if self._check is not None:
            self._check(shape, **made)
        return made

    def chosen(
        self, preset: str, shape: Any, seed: int = 0, given: Mapping[str, Any] | None = None
    ) -> dict[str, Chosen]:
        """The value of each setting, by `group.field`, and where it comes from."""
        given = given or {}
        defaults = self._defaults(preset, shape)
        chosen: dict[str, Chosen] = {}
        waiting: dict[str, Derived] = {}
        for group, kind in self.classes.items():
            for each in fields(kind):
                name = f"{group}.{each.name}"
                default = defaults.get(group, {}).get(each.name, each.default)
                if name in given:
                    chosen[name] = Chosen(given[name], "set")
                elif name == "training.seed":
                    chosen[name] = Chosen(seed, "fixed")
                elif isinstance(default, Derived):
                    waiting[name] = default
                elif limits_of(each).fixed_by:
                    chosen[name] = Chosen(default, "fixed")
                else:
                    is_own = each.name in defaults.get(group, {})
                    chosen[name] = Chosen(default, "preset" if is_own else "class")
        while waiting:
            ready = [name for name, each in waiting.items() if chosen.keys() >= {*each.of}]
            assert ready, f"these derive from each other or from nothing: {sorted(waiting)}"
            for name in ready:
                rule = waiting.pop(name)
                value = rule.by(*(chosen[other].value for other in rule.of))
                chosen[name] = Chosen(value, "derived", rule.of)
        return {
            f"{group}.{each.name}": _as_declared(each.type, chosen[f"{group}.{each.name}"])
            for group, kind in self.classes.items()
            for each in fields(kind)
        }


def _as_declared(kind: Any, chosen: Chosen) -> Chosen:
    """100 for a float is 100.0, whoever says it: one value, one cache key."""
    is_whole = kind is float and type(chosen.value) is int
    return replace(chosen, value=float(chosen.value)) if is_whole else chosen
