"""Every setting of a family: its type, limits, default for a preset and data, and what it means.

The text is that which stands below the field in its configuration's class, so it cannot rot.
Nothing here imports PyTorch.
"""

import ast
import inspect
import textwrap
import types
from collections.abc import Mapping
from dataclasses import dataclass, fields
from functools import cache
from pkgutil import resolve_name
from typing import Any, Literal, Union, get_args, get_origin

from models.presets import ImageShape, Preset, TextShape
from models.settings import Chosen, Limits, Recipe, limits_of
from tasks.families.family import Family


@dataclass(frozen=True, kw_only=True, slots=True)
class Setting:
    """One setting of a family."""

    name: str
    """`family.group.field`."""
    type: Any
    """As its class declares it."""
    limits: Limits
    text: str
    """What it means."""

    @property
    def wanted(self) -> str:
        """Its type and limits, in words."""
        return _wanted(self.type, self.limits)

    @property
    def is_fixed(self) -> bool:
        """Whether something else than a person decides it."""
        return bool(self.limits.fixed_by)


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A setting with its value for a preset and data."""

    setting: Setting
    chosen: Chosen

    @property
    def origin(self) -> str:
        """Where the value comes from, in words."""
        family = self.setting.name.partition(".")[0]
        words = {
            "set": "set",
            "preset": "preset",
            "class": "default",
            "fixed": f"by {self.setting.limits.fixed_by}",
            "derived": f"from {', '.join(f'{family}.{each}' for each in self.chosen.of)}",
        }
        return words[self.chosen.origin]


def recipe_of(family: Family) -> Recipe:
    """What chooses the defaults of a family's settings."""
    recipe: Recipe = resolve_name(family.recipe)
    return recipe


def settings_of(family: Family) -> dict[str, Setting]:
    """All settings of a family by their full names, in the order of their classes."""
    return _settings_of(family.name, family.recipe)


@cache
def _settings_of(family: str, recipe: str) -> dict[str, Setting]:
    found = {}
    for group, kind in resolve_name(recipe).classes.items():
        texts = _texts(kind)
        for each in fields(kind):
            name = f"{family}.{group}.{each.name}"
            found[name] = Setting(
                name=name, type=each.type, limits=limits_of(each), text=texts[each.name]
            )
    return found


def resolved(
    family: Family,
    preset: Preset,
    shape: ImageShape | TextShape,
    given: Mapping[str, Any],
    seed: int = 0,
) -> dict[str, Resolved]:
    """Each setting with its value; given: what a person set, by full names, others' left out."""
    known = settings_of(family)
    own = own_settings(family, given)
    chosen = recipe_of(family).chosen(preset, shape, seed, own)
    return {
        f"{family.name}.{name}": Resolved(setting=known[f"{family.name}.{name}"], chosen=value)
        for name, value in chosen.items()
    }


def own_settings(family: Family, given: Mapping[str, Any]) -> dict[str, Any]:
    """What was set of one family, by `group.field`."""
    prefix = f"{family.name}."
    return {
        name.removeprefix(prefix): value for name, value in given.items() if name.startswith(prefix)
    }


def _wanted(kind: Any, limits: Limits) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(str, get_args(kind)))}"
    if get_origin(kind) in (Union, types.UnionType):
        plain = [each for each in get_args(kind) if each is not type(None)]
        return f"{_wanted(plain[0], limits)}, or none"
    if get_origin(kind) is tuple:
        return f"{len(get_args(kind))} numbers in a list"
    names = {int: "a whole number", float: "a number", bool: "true or false", str: "text"}
    return " ".join(filter(None, [names[kind], str(limits)]))


def _texts(kind: type) -> dict[str, str]:
    """What stands below each field of a dataclass, on one line."""
    (declared,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(declared, ast.ClassDef)
    texts: dict[str, str] = {}
    for line, following in zip(declared.body, [*declared.body[1:], None], strict=True):
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            said = following.value if isinstance(following, ast.Expr) else None
            text = said.value if isinstance(said, ast.Constant) else ""
            texts[line.target.id] = " ".join(str(text).split())
    return texts
