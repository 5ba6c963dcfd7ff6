"""What a result depends on, as digests: code, library versions, device.

The code of a step is the import closure of its modules within this project, each reduced to its
syntax tree without docstrings: a change in a helper counts, a comment or a blank line does not.
(Prefect's TASK_SOURCE sees only the decorated function's own text.)
"""

import ast
import hashlib
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.store.files import digest_of, project_root

PROJECT_PACKAGES = ("atelier", "flows", "tasks", "models")
LIBRARIES = ("torch", "numpy", "tokenizers")
"""The libraries whose version can change a trained model."""
EXCLUDED_FROM_CACHE_KEY = {
    *{
        "tasks.tracking.mlflow_client",
        "tasks.tracking.runs",
        "tasks.tracking.metric_queue",
        "tasks.store.steps",
    },
    *{
        "tasks.runtime.progress",
        "tasks.runtime.retries",
        "tasks.runtime.processes",
        "tasks.tracking.system_metrics",
    },
    *{
        "tasks.data.sources",
        "tasks.data.source_address",
        "tasks.store.names",
        "tasks.data.image_folder",
    },
    *{
        "tasks.data.text_files",
        "tasks.data.own_files",
        "tasks.data.manifests",
        "tasks.data.folder_fingerprint",
    },
    *{"tasks.data.stored_data", "tasks.runtime.markup"},
}
"""Modules that cannot change a fit: they tell of it, or made its data, whose digest counts."""


def cache_key(settings: object, inputs: list[str], modules: list[str], device: str) -> str:
    """The key of a step: equal keys mean equal results, on the same machine."""
    return digest_of(cache_key_inputs(settings, inputs, modules, device))


def cache_key_inputs(
    settings: object, inputs: list[str], modules: list[str], device: str
) -> dict[str, Any]:
    """All that a step's result depends on, as JSON.

    settings: a JSON value; inputs: digests of the data it reads; modules: dotted names of the
    project's modules that do the work; device: "cpu" or "cuda".
    """
    return {
        "settings": settings,
        "inputs": inputs,
        "code": module_digests(modules),
        "libraries": {name: version(name) for name in LIBRARIES},
        "device": device,
    }


def code_digest(modules: list[str], root: Path | None = None) -> str:
    """The digest of some modules and of every project module that they import, directly or not."""
    return digest_of(module_digests(modules, root))


def module_digests(modules: list[str], root: Path | None = None) -> dict[str, str]:
    """The sha256 of each of these modules, by dotted name: what tells which one changed."""
    closure = import_closure(modules, root or project_root())
    return {
        name: hashlib.sha256(_normalised(tree).encode()).hexdigest()
        for name, tree in closure.items()
    }


def import_closure(modules: list[str], root: Path) -> dict[str, ast.Module]:
    """The syntax trees of modules and of all they import within the project, by dotted name."""
    found: dict[str, ast.Module] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or name in EXCLUDED_FROM_CACHE_KEY:
            continue
        found[name] = ast.parse(_module_path(name, root).read_text(encoding="utf-8"))
        waiting += _project_imports(found[name], root)
    return found


def _module_path(name: str, root: Path) -> Path:
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _project_imports(tree: ast.AST, root: Path) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] in PROJECT_PACKAGES and _module_path(name, root).is_file():
                yield name


def _normalised(tree: ast.Module) -> str:
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            kept = [item for item in body if not _is_bare_string(item)]
            node.body = kept or [ast.Pass()]  # type: ignore[attr-defined]
    return ast.dump(tree, include_attributes=False)


def _is_bare_string(node: ast.AST) -> bool:
    return (
        isinstance(node, ast.Expr)
        and isinstance(node.value, ast.Constant)
        and isinstance(node.value.value, str)
    )
