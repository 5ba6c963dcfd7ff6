"""What can be set of each family, and where a value comes from."""

import subprocess
import sys
from dataclasses import fields
from typing import Any

import pytest

from models.presets import ImageShape, TextShape
from tasks.families.family import Family
from tasks.families.table import FAMILIES
from tasks.settings.catalogue import recipe_of, resolved, settings_of
from tasks.store.files import project_root

RECORDS = pytest.mark.parametrize("family", FAMILIES.values(), ids=FAMILIES)
SHAPES: dict[str, Any] = {
    "images": ImageShape(1, 8, 8, 10),
    "text": TextShape("characters", 90, 10_000),
}


@RECORDS
def test_every_field_is_a_setting_with_a_meaning_and_limits(family: Family) -> None:
    settings = settings_of(family)

    assert list(settings) == [
        f"{family.name}.{group}.{each.name}"
        for group, kind in recipe_of(family).classes.items()
        for each in fields(kind)
    ]
    for setting in settings.values():
        assert setting.text.endswith("."), setting.name
        assert len(setting.text) > 5
        assert setting.wanted
        # a number without limits could ask for more memory than there is
        if setting.type in (int, float):
            assert str(setting.limits), setting.name


@RECORDS
def test_defaults_lie_within_the_limits(family: Family) -> None:
    for preset in ("quick", "standard", "full"):
        rows = resolved(family, preset, SHAPES[family.data], {})  # type: ignore[arg-type]
        for name, row in rows.items():
            if isinstance(row.chosen.value, (int, float)):
                assert row.setting.limits.admit(row.chosen.value), name


def test_where_a_value_comes_from_is_told() -> None:
    rows = resolved(FAMILIES["vae"], "quick", SHAPES["images"], {"vae.training.steps": 80})

    told = {name: (row.chosen.value, row.origin) for name, row in rows.items()}
    assert told["vae.training.steps"] == (80, "set")
    assert told["vae.training.warmup_steps"] == (
        *(10, "from vae.training.steps, vae.training.schedule"),
    )
    assert told["vae.model.channels"] == (1, "by the images")
    assert told["vae.training.seed"] == (0, "by --seed")
    assert told["vae.model.latent_size"] == (12, "preset")
    assert told["vae.model.dropout"] == (0.0, "default")


def test_what_is_set_of_another_family_changes_nothing() -> None:
    vae = FAMILIES["vae"]

    assert resolved(vae, "quick", SHAPES["images"], {"gan.training.steps": 80}) == resolved(
        vae, "quick", SHAPES["images"], {}
    )


def test_the_catalogue_is_read_without_torch() -> None:
    program = """
import sys
from tasks.families.table import FAMILIES
from tasks.settings.catalogue import settings_of
assert all(settings_of(family) for family in FAMILIES.values())
print([name for name in ("torch", "prefect", "mlflow", "pandas") if name in sys.modules])
"""
    run = [sys.executable, "-c", program]
    told = subprocess.run(run, cwd=project_root(), capture_output=True, text=True, check=True)

    assert told.stdout == "[]\n"
