"""A registered version as a folder: verified before, and running without this project after."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tasks.packaging.files import PackageChanged
from tasks.registry.exporting import export_version
from tasks.registry.loading import loaded
from tasks.store.files import BadInput
from tasks.tracking.mlflow_client import client
from tests.tasks.conftest import Studio


def test_an_exported_version_writes_what_the_registered_one_writes(
    studio: Studio, tmp_path: Path
) -> None:
    files = export_version(studio.name, "champion", tmp_path / "export")

    assert {"load.py", "tables.npz", "export.json", "tokenizer.json"} <= set(files)
    facts = json.loads((tmp_path / "export" / "export.json").read_text())
    version = client().get_model_version_by_alias(studio.name, "champion")
    assert facts["version"] == int(version.version)
    assert facts["digest"] == version.tags["content_digest"]
    assert facts["main_value"] == version.tags["main_value"]
    with loaded(studio.name) as model:
        (text,) = model.write_texts(1, 5, prompt="the", num_tokens=60)
    loader = str(tmp_path / "export" / "load.py")
    done = subprocess.run(
        [sys.executable, "-I", loader, "--prompt", "the", "--tokens", "60", "--seed", "5"],
        capture_output=True,
        text=True,
        check=False,
        cwd="/",
    )
    assert (done.returncode, done.stdout) == (0, f"the{text}\n"), done.stderr


def test_a_version_that_is_not_what_was_registered_is_not_exported(
    studio: Studio, tmp_path: Path
) -> None:
    (studio.package(2) / "served_model.py").write_text("print('other code')")

    with pytest.raises(PackageChanged, match=r"served_model\.py was changed"):
        export_version(studio.name, "2", tmp_path / "export")
    assert not (tmp_path / "export").exists()


def test_a_version_of_an_unknown_family_is_refused(studio: Studio, tmp_path: Path) -> None:
    client().set_model_version_tag(studio.name, "2", "family", "newer")

    with pytest.raises(BadInput, match="version 2 is of no family that is known here"):
        export_version(studio.name, "2", tmp_path / "export")
