"""The rules of the structure, read from the code: four floors, arrows only down."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tasks.families.table import FAMILIES
from tasks.samples.drawing import modules as drawing_modules
from tasks.store.fingerprint import import_closure

ROOT = Path(__file__).resolve().parent.parent
FLOORS = ("atelier", "flows", "tasks", "models")
SOURCES = sorted(path for floor in FLOORS for path in (ROOT / floor).rglob("*.py"))

MODELS_MAY_IMPORT = {"torch", "numpy", "tokenizers", "models"}
MLFLOW_DOORS = {
    *{
        "tasks/tracking/mlflow_client.py",
        "tasks/registry/registration.py",
        "tasks/packaging/package.py",
    },
    *{
        "tasks/packaging/served_model.py",
        "tasks/packaging/load_worker.py",
        "tasks/tracking/server_app.py",
    },
    "tasks/registry/verification.py",  # files before they are loaded
    *{"tasks/tracking/deletion.py", "tasks/registry/loading.py"},
}
NETWORK_DOORS = {
    *{"tasks/data/sources.py", "atelier/services/server_requests.py"},
    *{
        "atelier/services/local_servers.py",
        "atelier/services/guarded_server.py",
        "atelier/playground/server.py",
    },  # the sockets of our own servers
    "tasks/search/ray_trials.py",  # a knock at a cluster's address before Ray asks there
}
NO_NAMES = {"utils", "helpers", "common", "misc", "base", "core", "manager"}


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}: relative import"
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def top_level(path: Path) -> set[str]:
    return {name.split(".")[0] for name in imports(path)}


def test_there_is_something_to_check() -> None:
    assert {"flows/full_run.py", "tasks/store/files.py", "models/vae/model.py"} <= set(
        map(name_of, SOURCES)
    )


@pytest.mark.parametrize("path", sorted((ROOT / "models").rglob("*.py")), ids=name_of)
def test_models_import_only_torch_numpy_tokenizers_and_a_quiet_standard_library(path: Path) -> None:
    third_party = {name for name in top_level(path) if name not in sys.stdlib_module_names}
    assert third_party <= MODELS_MAY_IMPORT
    assert not top_level(path) & {"logging", "pathlib", "os", "urllib", "socket", "subprocess"}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if name_of(p).startswith(("atelier/", "flows/"))], ids=name_of
)
def test_flows_leave_torch_and_mlflow_to_the_floors_below(path: Path) -> None:
    assert not top_level(path) & {"torch", "mlflow", "numpy", "pandas"}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_effects_have_one_door_each(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    if name_of(path) not in MLFLOW_DOORS:
        assert "mlflow" not in top_level(path)
    if name_of(path) not in NETWORK_DOORS:
        assert not top_level(path) & {"urllib.request", "requests", "socket", "httpx"}
        assert "urllib.request" not in set(imports(path))
    if name_of(path) != "tasks/store/shared.py":
        assert "obstore" not in top_level(path)
    if name_of(path) != "tasks/store/files.py":
        assert not any(
            call in source for call in ("os.replace", "os.rename", ".rename(", "temporary.replace(")
        )


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_no_module_has_a_name_that_says_nothing(path: Path) -> None:
    assert not NO_NAMES & {path.stem, *path.relative_to(ROOT).parts}


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_nothing_is_pickled_and_nothing_prints_but_the_command_line(path: Path) -> None:
    assert not top_level(path) & {"pickle", "cloudpickle", "joblib", "dill"}
    calls = {
        node.func.id
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
    }
    assert "print" not in calls or name_of(path).startswith("atelier/cli/")


def own_family(path: Path) -> str:
    """The family whose own code a file is, or nothing."""
    parts = path.relative_to(ROOT).parts
    return parts[1] if parts[0] == "models" and parts[1] in FAMILIES else ""


def family_names_in(source: str) -> set[str]:
    """The families that a module names in a string, alone or among other words.

    Docstrings may name them: they are read by people. So may addresses, such as `models.vae.model`.
    """
    tree = ast.parse(source)
    told = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    strings = [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in told
    ]
    names = re.compile(rf"(?<![\w.])({'|'.join(FAMILIES)})(?!\w|\.\w)")
    return {name for text in strings for name in names.findall(text)}


@pytest.mark.parametrize(
    "path", [p for p in SOURCES if not name_of(p).startswith("tasks/families/")], ids=name_of
)
def test_only_records_and_a_familys_own_code_know_its_name(path: Path) -> None:
    """Whoever would ask for a name asks the record for what differs."""
    named = family_names_in(path.read_text(encoding="utf-8"))

    assert named <= {own_family(path)}


@pytest.mark.parametrize(
    "source", ['x == "vae"', 'x in ("a", "gpt")', 'f"{x}-ngram"', 'x = "any of vae,gan"']
)
def test_a_familys_name_in_code_is_noticed(source: str) -> None:
    assert family_names_in(source)
    assert not family_names_in(f'"""Of a vae."""\nf("models.vae:name", "gang")\n#{source}')


KEYED = {
    **{f"{name}: training": [f.training, "tasks.training.fit"] for name, f in FAMILIES.items()},
    **{f"{name}: likelihood": [f.likelihood] for name, f in FAMILIES.items() if f.likelihood},
    **{f"{name}: samples": drawing_modules(f.gallery_extras) for name, f in FAMILIES.items()},
    "classifier": ["models.metrics.classifier_training", "tasks.training.fit"],
    "images": ["tasks.evaluation.image_metrics"],
    "text": ["tasks.evaluation.text_metrics"],
    "tokens": ["models.text.tokenizer"],
}


@pytest.mark.parametrize("starts", KEYED.values(), ids=KEYED)
def test_no_cache_key_holds_the_table_of_families(starts: list[str]) -> None:
    """Or a word on one family's card would train all others again."""
    modules = [start.partition(":")[0] for start in starts]

    closure = import_closure(modules, ROOT)

    assert set(modules) <= set(closure)
    assert not [name for name in closure if name.startswith("tasks.families")]


def test_floors_rooms_and_families_import_only_what_lies_below() -> None:
    """The contracts of pyproject.toml."""
    done = subprocess.run(
        [
            *(sys.executable, "-c", "from importlinter.cli import lint_imports_command as c; c()"),
            *("--no-cache", "--config", str(ROOT / "pyproject.toml")),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Contracts: [5-9] kept, 0 broken", done.stdout)


@pytest.mark.parametrize("folder", [*FLOORS, "tests", "benchmarks", "faults"])
def test_what_is_imported_is_declared(folder: str) -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    declared = project["project"]["dependencies"]
    for extra in project["project"]["optional-dependencies"].values():
        declared = declared + extra
    if folder not in FLOORS:
        declared = declared + project["dependency-groups"]["dev"]
    known = {canonicalize_name(Requirement(each).name) for each in declared}
    found: dict[str, str] = {}
    for path in (ROOT / folder).rglob("*.py"):
        found |= {name: name_of(path) for name in top_level(path)}
    ours = {*FLOORS, "benchmarks", "faults", "tests"}
    foreign = {n: f for n, f in found.items() if n not in sys.stdlib_module_names | ours}
    sold_as = packages_distributions()
    undeclared = {
        name: file
        for name, file in foreign.items()
        if not known & {canonicalize_name(each) for each in sold_as.get(name, [name])}
    }
    assert not undeclared
