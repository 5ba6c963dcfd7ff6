"""What a person sets: one check for the command line, files, forms, `prefect.yaml` and searches.

Settings are a mapping of full names to values, `{"vae.model.latent_size": 16}`; a nested one, as a
TOML file or a form gives it, means the same.
"""

import difflib
import json
import types
from collections.abc import Collection, Iterable, Mapping
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError, create_model

from models.presets import ImageShape, Preset, TextShape
from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.runtime.messages import shortened
from tasks.settings.catalogue import Setting, own_settings, recipe_of, settings_of
from tasks.store.files import BadInput

Given = dict[str, Any]
"""What a person set, by full names."""


def flattened(nested: Mapping[str, Any], prefix: str = "") -> Given:
    """Nested settings by dotted names; raises BadInput for one that is given twice."""
    flat: Given = {}
    for key, value in nested.items():
        name = f"{prefix}{key}"
        inner = flattened(value, f"{name}.") if isinstance(value, Mapping) else {name: value}
        for each, set_to in inner.items():
            if each in flat:
                raise BadInput(f"{each} is set twice: to {flat[each]!r} and to {set_to!r}")
            flat[each] = set_to
    return flat


def checked(given: Mapping[str, Any], families: Collection[str] | None = None) -> Given:
    """Settings of any form, by full names, with values of the wanted types.

    families: those that are trained; a setting of another one would be without effect. Raises
    BadInput, in one line, for unknown names, wrong types, values outside their limits, and what no
    person sets. What contradicts each other or the data is found by `settled`.
    """
    return {name: _value(_known(name, families), value) for name, value in flattened(given).items()}


def settled(
    family: Family,
    preset: Preset,
    shape: ImageShape | TextShape,
    seed: int,
    given: Mapping[str, Any],
) -> dict[str, Any]:
    """A family's configurations by group; raises BadInput for values that contradict each other."""
    try:
        return recipe_of(family)(preset, shape, seed, own_settings(family, given))
    except ValueError as error:
        raise BadInput(f"settings of {family.name} cannot be used together: {error}") from error


def with_options(given: Mapping[str, Any], options: Mapping[str, Any]) -> Given:
    """Settings together with options, which are short forms of some; see `Family.options`.

    An option's first choice is the recipe's own and sets nothing. Raises BadInput where both say
    different things.
    """
    merged = dict(given)
    for family in FAMILIES.values():
        for name, option in family.options.items():
            value, full = options.get(name), f"{family.name}.{option.setting}"
            if value is None or value == option.choices[0]:
                continue
            if merged.setdefault(full, value) != value:
                raise BadInput(
                    f"{name} is {value!r}, and {full} is set to {merged[full]!r}; give one of them"
                )
    return merged


def check_time(given: Mapping[str, Any], families: Collection[str], seconds: int | None) -> None:
    """Refuse a time to train where steps are set, or where no family is trained by steps.

    given: settings by full names. seconds: None asks for nothing. Raises BadInput, in one line.
    """
    if seconds is None:
        return
    steps = [f"{name}.training.steps" for name in families]
    if fixed := [name for name in steps if name in given]:
        raise BadInput(f"{fixed[0]} is set, and --seconds would choose it; give one of them")
    if not any(name in settings_of(FAMILIES[name.partition(".")[0]]) for name in steps):
        raise BadInput(
            f"--seconds is {seconds}, and {', '.join(families)} is not trained by steps; leave it"
            " out"
        )


def from_words(assignments: Iterable[str]) -> Given:
    """What `--set NAME=VALUE` says, unchecked; the last of equal names counts."""
    given: Given = {}
    for text in assignments:
        name, equals, value = text.partition("=")
        if not (equals and name.strip()):
            raise BadInput(
                f"--set wants NAME=VALUE, such as vae.model.latent_size=16, got {text!r}"
            )
        given[name.strip()] = value.strip()
    return given


def form_of(family: Family) -> type[BaseModel]:
    """A pydantic model of what can be set of a family, by group, for a form; all of it optional."""
    groups: dict[str, dict[str, Any]] = {}
    for setting in settings_of(family).values():
        _, group, field = setting.name.split(".")
        if not setting.is_fixed:
            told = Field(default=None, description=setting.text)
            groups.setdefault(group, {})[field] = (_accepting(setting) | None, told)
    allows = ConfigDict(extra="forbid")
    title = family.name.title()
    parts: dict[str, Any] = {
        group: (
            create_model(f"{title}{group.title()}", __config__=allows, **own) | None,
            Field(default=None, description=f"Settings {family.name}.{group}.*"),
        )
        for group, own in groups.items()
    }
    return create_model(f"{title}Settings", __config__=allows, **parts)


def _known(name: str, families: Collection[str] | None) -> Setting:
    everything = {full: each for f in FAMILIES.values() for full, each in settings_of(f).items()}
    if name not in everything:
        settable = [full for full, each in everything.items() if not each.is_fixed]
        if inside := [each for each in settable if each.startswith(f"{name}.")]:
            raise BadInput(f"{name} is no setting but a group of them; such as {inside[0]}")
        raise BadInput(f"there is no setting {shortened(name)!r}; {_nearest(name, settable)}")
    setting = everything[name]
    if setting.is_fixed:
        raise BadInput(f"{name} is decided by {setting.limits.fixed_by} and cannot be set")
    family = name.partition(".")[0]
    if families is not None and family not in families:
        raise BadInput(f"{name} is set, and of the families only {', '.join(families)} are trained")
    return setting


def _nearest(name: str, known: Collection[str]) -> str:
    """Where a misspelt name may have been meant."""
    name = name.lower()
    parts = name.split(".")
    same_field = [each for each in known if each.rpartition(".")[2] == parts[-1]]
    near = same_field or difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    if not near:
        fields = difflib.get_close_matches(parts[-1], {each.rpartition(".")[2] for each in known})
        near = [each for each in known if each.rpartition(".")[2] in fields]
    if not near:
        return "`atelier settings` lists all"
    return f"did you mean {' or '.join(near[:5])}? `atelier settings` lists all"


def _value(setting: Setting, value: Any) -> Any:
    wanted = f"{setting.name} must be {setting.wanted}"
    is_boolean = setting.type is bool
    if isinstance(value, bool) and not is_boolean:
        raise BadInput(f"{wanted}; got {str(value).lower()}")
    if isinstance(value, str) and get_origin(setting.type) is not Literal:
        value = _from_text(setting.type, value)
    if isinstance(value, list) and any(isinstance(each, bool) for each in value):
        raise BadInput(f"{wanted}; got {shortened(json.dumps(value))}")  # to pydantic, true is 1
    try:
        return TypeAdapter(_accepting(setting)).validate_python(value)
    except ValidationError:
        raise BadInput(f"{wanted}; got {shortened(repr(value))}") from None


def _accepting(setting: Setting) -> Any:
    """A setting's type with its limits, for pydantic."""
    kind, limits = setting.type, setting.limits
    bounds: dict[str, Any] = {
        name: bound
        for name in ("ge", "gt", "le", "lt")
        if (bound := getattr(limits, name)) is not None
    }
    if get_origin(kind) in (Union, types.UnionType):
        plain, *_ = (each for each in get_args(kind) if each is not type(None))
        return Annotated[plain, Field(**bounds)] | None
    if kind is float:
        bounds["allow_inf_nan"] = False
    return Annotated[kind, Field(**bounds)] if bounds else kind


def _from_text(kind: Any, text: str) -> Any:
    """A value as `--set` gives it: lists as in JSON, `none` for nothing."""
    if type(None) in get_args(kind) and text.lower() in ("none", "null", ""):
        return None
    if get_origin(kind) is tuple:
        try:
            return json.loads(text)
        except (ValueError, RecursionError):  # the latter of brackets in brackets
            return text
    return text
