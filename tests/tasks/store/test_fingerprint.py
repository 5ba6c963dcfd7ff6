from pathlib import Path

import pytest

from tasks.families.table import FAMILIES
from tasks.store.files import project_root
from tasks.store.fingerprint import cache_key, code_digest, import_closure

MODEL = (
    '"""A model."""\nfrom models import layers\n\n\ndef f(x):\n    """Add."""\n    return x + 1\n'
)


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """Two modules, of which one imports the other, and one apart."""
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "__init__.py").write_text("")
    (tmp_path / "models" / "vae.py").write_text(MODEL)
    (tmp_path / "models" / "layers.py").write_text("WIDTH = 3\n")
    (tmp_path / "models" / "gpt.py").write_text("HEADS = 4\n")
    return tmp_path


def test_comments_blank_lines_and_docstrings_do_not_count(project: Path) -> None:
    before = code_digest(["models.vae"], project)

    text = MODEL.replace("Add.", "Add one.").replace("return", "# why\n\n    return")
    (project / "models" / "vae.py").write_text(text)

    assert code_digest(["models.vae"], project) == before


def test_a_changed_number_counts(project: Path) -> None:
    before = code_digest(["models.vae"], project)

    (project / "models" / "vae.py").write_text(MODEL.replace("x + 1", "x + 2"))

    assert code_digest(["models.vae"], project) != before


def test_a_change_in_an_imported_module_counts_and_in_another_does_not(project: Path) -> None:
    before = code_digest(["models.vae"], project)

    (project / "models" / "gpt.py").write_text("HEADS = 8\n")
    assert code_digest(["models.vae"], project) == before

    (project / "models" / "layers.py").write_text("WIDTH = 4\n")
    assert code_digest(["models.vae"], project) != before


def test_what_only_a_type_checker_imports_does_not_count(project: Path) -> None:
    (project / "models" / "vae.py").write_text(
        "from typing import TYPE_CHECKING\n\nif TYPE_CHECKING:\n    from models import layers\n"
        "else:\n    from models import gpt\n"
    )

    assert set(import_closure(["models.vae"], project)) == {"models", "models.vae", "models.gpt"}


@pytest.mark.parametrize("family", ["classifier", *FAMILIES])
def test_a_fit_depends_on_its_own_family_and_not_on_reports_or_other_families(family: str) -> None:
    training = {"classifier": "models.metrics.classifier_training"}.get(
        family, f"models.{family}.training"
    )
    closure = set(import_closure([training, "tasks.training.fit"], project_root()))

    others = set(FAMILIES) - {family}
    own = {"classifier": "models.metrics.classifier"}.get(family, f"models.{family}.model")
    assert {own, training, "tasks.training.fit"} <= closure
    assert not {name for name in closure if name.startswith(tuple(f"models.{o}." for o in others))}
    if family in ("classifier", "vae", "gan"):
        assert not closure & {"tasks.data.tokenization", "models.text.tokenizer"}
    assert not closure & {
        "tasks.tracking.mlflow_client",
        "tasks.runtime.progress",
        "tasks.data.sources",
        "models.presets",
    }


@pytest.mark.parametrize(
    "change", [{"settings": {"a": 2}}, {"inputs": ["y"]}, {"device": "cuda"}], ids=str
)
def test_each_part_of_a_key_counts(change: dict[str, object]) -> None:
    parts = {
        "settings": {"a": 1},
        "inputs": ["x"],
        "modules": ["models.training.batches"],
        "device": "cpu",
    }

    assert cache_key(**parts) == cache_key(**parts)  # type: ignore[arg-type]
    assert cache_key(**parts) != cache_key(**{**parts, **change})  # type: ignore[arg-type]
