"""The code inside a version: under a name of its own, so that two versions work side by side."""

import ast
import sys
from pathlib import Path

import pytest

from tasks.packaging import bundled_code
from tasks.packaging.bundled_code import code_files, renamed, written_code


def test_every_import_of_models_is_renamed_and_nothing_else_changes() -> None:
    files = code_files()
    (name,) = {Path(path).parts[1] for path in files if path.startswith("code/")}
    assert name.startswith("models_")

    for path, content in files.items():
        for node in ast.walk(ast.parse(content)):
            if isinstance(node, ast.Import):
                imported = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                imported = [node.module or ""]
            else:
                continue
            assert not {each.partition(".")[0] for each in imported} & {"models", "tasks"}, path
    text = b'"""models are imported."""\nfrom models.a import b\nimport models\nmodels.b()\n'
    turned = text.replace(b"from models.a", b"from models_1.a")
    turned = turned.replace(b"import models\n", b"import models_1 as models\n")
    assert renamed(text, "models_1") == turned


def test_other_code_has_another_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "models" / "tiny").mkdir(parents=True)
    for each in ("", "tiny/"):
        (tmp_path / "models" / each / "__init__.py").write_text("")
    module = tmp_path / "models" / "tiny" / "serving.py"
    monkeypatch.setattr(bundled_code, "project_root", lambda: tmp_path)
    names = set()
    for value in (1, 2):
        module.write_text(f"VALUE = {value}\n")
        bundled_code._project_code.cache_clear()
        with written_code() as (code, served_model):
            names.add(code.name)
            assert served_model.is_file()
            assert (code / "tiny" / "serving.py").read_text() == f"VALUE = {value}\n"
    bundled_code._project_code.cache_clear()

    assert len(names) == 2
    assert not names & {each.partition(".")[0] for each in sys.modules}
