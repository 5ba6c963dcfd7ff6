"""An installed wheel works without the repository."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tasks.families.table import FAMILIES

ROOT = Path(__file__).resolve().parents[2]
SOURCES = ("atelier", "flows", "tasks", "models")
FILES = ("pyproject.toml", "setup.py", "README.md", "LICENSE", "prefect.yaml", "requirements.lock")


@pytest.mark.slow
def test_a_wheel_brings_all_it_reads_and_keeps_its_home_in_the_working_directory(
    tmp_path: Path,
) -> None:
    source, installed, here = (tmp_path / name for name in ("source", "installed", "here"))
    here.mkdir()
    for name in SOURCES:
        ignored = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in FILES:
        shutil.copy(ROOT / name, source / name)
    settings = ("--quiet", "--no-deps", "--no-build-isolation", "--disable-pip-version-check")
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", *settings, "--wheel-dir", str(tmp_path), source],
        check=True,
    )
    wheel = next(tmp_path.glob("atelier-*.whl"))
    with zipfile.ZipFile(wheel) as opened:
        opened.extractall(installed)
        names = set(opened.namelist())
    found = (path for name in SOURCES for path in (ROOT / name).rglob("*"))
    data = {
        path.relative_to(ROOT).as_posix()
        for path in found
        if path.is_file() and path.suffix not in (".py", ".pyc")
    }
    assert {"atelier/services/logging.yml", "tasks/samples/gallery.html"} <= data
    assert {*data, "atelier/project/prefect.yaml"} <= names
    assert not [name for name in names if name.startswith(("tests/", "benchmarks/", "faults/"))]

    kept = {k: v for k, v in os.environ.items() if not k.startswith(("ATELIER_", "PREFECT_"))}
    read = (
        "import tasks, sys\n"
        f"assert tasks.__file__.startswith({str(installed)!r}), tasks.__file__\n"
        "from atelier.__main__ import main\n"
        "from tasks.store.files import home, project_file\n"
        "from atelier.deployment.schema import read_deployments\n"
        "from tasks.registry.model_card import family_page\n"
        "from tasks.samples.html_page import page\n"
        "assert '</html>' in page([]) and 'champion' in family_page('gan', 'x', 1, '', '')\n"
        "print(home(), len(read_deployments(project_file('prefect.yaml'))), flush=True)\n"
        "sys.exit(main(['doctor', '--verbose']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-P", "-c", read],
        cwd=here,
        env={**kept, "PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith(f"{here / '.atelier'} {5 + len(FAMILIES)}\n"), (
        done.stdout + done.stderr
    )
    assert "ok         versions: " in done.stdout, done.stdout
    assert "ok         lock file: " in done.stdout, done.stdout
    assert "FAILED" not in done.stdout, done.stdout
    assert not list(installed.rglob(".atelier"))
