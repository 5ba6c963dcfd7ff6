"""What a result depends on, as digests: code, library versions, device.

The code of a step is the import closure of its modules within this project, each reduced to its
syntax tree without docstrings: a change in a helper counts, a comment or a blank line does not.
(Prefect's TASK_SOURCE sees only the decorated function's own text.)
"""

import ast
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tasks.store.files import digest_of, project_root

PROJECT_PACKAGES = ("atelier", "flows", "tasks", "models")
LIBRARIES = ("torch", "numpy", "tokenizers")
"""The libraries whose version can change a trained model."""
EXCLUDED_FROM_CACHE_KEY = (
    *("tasks.runtime", "tasks.store", "tasks.data", "tasks.tracking"),
    *("tasks.training.plan", "tasks.training.fit_store"),
    *("tasks.training.checkpointing", "tasks.training.snapshots"),
    *("tasks.training.stable_phase", "tasks.training.ranks"),
    *("models.ngram.attribution", "models.ngram.stream"),
)
"""Rooms and modules that cannot change a result: they say what is wanted, store, show or query it,
or made the data, whose digest counts."""
INCLUDED_ALL_THE_SAME = "tasks.data.splits"
"""Of the data's room, what hands the data on."""


def cache_key(settings: object, inputs: list[str], modules: list[str], device: str) -> str:
    """The key of a step: equal keys mean equal results, on the same machine."""
    return digest_of(cache_key_inputs(settings, inputs, modules, device))


def cache_key_inputs(
    settings: object, inputs: list[str], modules: list[str], device: str
) -> dict[str, Any]:
    """All that a step's result depends on, as JSON.

    settings: a JSON value; inputs: digests of the data it reads; modules: dotted names of the
    project's modules that do the work; device: "cpu", "cpu, 2 threads" or "cuda".
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
    return {name: summary.sha256 for name, summary in closure.items()}


@dataclass(frozen=True, slots=True)
class ModuleSummary:
    """A module of the project, without docstrings and comments."""

    sha256: str
    """Of its syntax tree."""
    imports: tuple[str, ...]
    """The modules of the project that it imports."""


def import_closure(modules: list[str], root: Path) -> dict[str, ModuleSummary]:
    """Modules and all that they import within the project, by dotted name."""
    found: dict[str, ModuleSummary] = {}
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        if name in found or _is_excluded(name):
            continue
        path = _module_path(name, root)
        state = path.stat()
        found[name] = _summary(path, root, state.st_mtime_ns, state.st_size)
        waiting += found[name].imports
    return found


@cache  # parsing takes a second for all that a key holds, and a process asks for dozens of keys
def _summary(path: Path, root: Path, _mtime_ns: int, _size: int) -> ModuleSummary:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imports = tuple(_project_imports(tree, root))
    return ModuleSummary(hashlib.sha256(_normalised(tree).encode()).hexdigest(), imports)


def _is_excluded(name: str) -> bool:
    if name == INCLUDED_ALL_THE_SAME:
        return False
    return any(name == each or name.startswith(f"{each}.") for each in EXCLUDED_FROM_CACHE_KEY)


def _module_path(name: str, root: Path) -> Path:
    path = root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _project_imports(tree: ast.AST, root: Path) -> Iterator[str]:
    for node in _run(tree):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            if name.split(".")[0] in PROJECT_PACKAGES and _module_path(name, root).is_file():
                yield name


def _run(tree: ast.AST) -> Iterator[ast.AST]:
    """All nodes but those that only a type checker reads: what they import changes no result."""
    waiting = [tree]
    while waiting:
        node = waiting.pop()
        yield node
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            waiting += node.orelse
        else:
            waiting += ast.iter_child_nodes(node)


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
