"""A version's files as a folder that runs without this project: weights, modules, and a loader.

The modules are the version's own copy of `models/`, as far as the loader needs them; the loaders
are the files of `tasks/packaging/exported`. Nothing is pickled.
"""

import ast
import json
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from models.text.tokenizer import tokenizer_from_dict
from tasks.packaging.files import PackageChanged
from tasks.store.files import digest_of, folder_digests, write_json, write_text
from tasks.store.output_folder import new_folder

FORMAT = 1
COUNTS = "load_counts"
"""The loader that reads tables of NumPy instead of weights."""
_LOADERS = "tasks.packaging.exported"
_EACH_OTHER = re.compile(rf"^from {re.escape(_LOADERS)}\.(\w+) import", re.MULTILINE)

_BESIDE = """\
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
"""


def write_export(package: Path, folder: Path, loader: str, facts: Mapping[str, Any]) -> list[str]:
    """Write a version's files into a folder that is empty or not there; returns their names.

    package: a copy of the version's files that was verified. loader: which of
    `tasks.packaging.exported`, such as `load_images`. facts: what `export.json` says of it, `model`
    and `version` among them. Raises BadInput for a folder that holds files.
    """
    artifacts = package / "artifacts"
    record = json.loads((artifacts / "config.json").read_text(encoding="utf-8"))
    code = _code_of(package)
    loading = import_module(f"{_LOADERS}.{loader}")
    starts = [f"{code.name}.{each.format(family=record['family'])}" for each in loading.MODULES]
    name, modules = _under_own_name(code, _with_imports(code.parent, starts))
    with new_folder(folder) as temporary:
        for place, content in modules.items():
            _written(temporary / name / place, content)
        for part in ("load", *loading.SHARED):
            source = Path(str(loading.__file__)) if part == "load" else _source_of(part)
            _written(temporary / f"{part}.py", _standing_alone(source).encode())
        _write_contents(artifacts, temporary, tables=loader == COUNTS)
        write_json(temporary / "config.json", record["config"])
        write_text(temporary / "README.md", _readme(facts, str(loading.__doc__), temporary))
        write_json(
            temporary / "export.json",
            {
                "format": FORMAT,
                **facts,
                "family": record["family"],
                "package": name,
                "trained_with": _libraries(package),
                "sha256": folder_digests(temporary),
            },
        )
        return sorted(path.name for path in temporary.iterdir())


def _code_of(package: Path) -> Path:
    """The version's own copy of `models/`, whatever it is called."""
    found = [path for path in sorted((package / "code").glob("models*")) if path.is_dir()]
    if len(found) != 1:
        raise PackageChanged(f"it has {len(found)} packages of code, wanted one")
    return found[0]


def _under_own_name(code: Path, modules: Iterable[Path]) -> tuple[str, dict[str, bytes]]:
    """Modules by their place in a package that is named by what it holds, and its name.

    So several exports work in one process, each with the modules that it brought.
    """
    contents = {path.relative_to(code).as_posix(): path.read_bytes() for path in modules}
    told = {place: content.decode() for place, content in contents.items()}
    name = f"models_{digest_of(told)[:12]}"
    old = re.compile(rb"^(\s*(?:from|import) )" + code.name.encode() + rb"(?=[. ]|$)", re.MULTILINE)
    return name, {
        place: old.sub(rb"\g<1>" + name.encode(), content) for place, content in contents.items()
    }


def _with_imports(root: Path, modules: Iterable[str]) -> set[Path]:
    """The files of some modules below a folder, and of all that they import there."""
    found: set[Path] = set()
    waiting = list(modules)
    while waiting:
        name = waiting.pop()
        path = root.joinpath(*name.split("."))
        path = path / "__init__.py" if path.is_dir() else path.with_suffix(".py")
        if path in found or not path.is_file():
            continue
        found.add(path)
        if "." in name:
            waiting.append(name.rpartition(".")[0])
        waiting += _imports(path)
    return found


def _imports(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))


def _source_of(name: str) -> Path:
    return Path(str(import_module(f"{_LOADERS}.{name}").__file__))


def _standing_alone(source: Path) -> str:
    """A loader's text, which imports the files beside it, wherever it is run from."""
    text = source.read_text(encoding="utf-8")
    if (first := _EACH_OTHER.search(text)) is None:
        return text
    text = f"{text[: first.start()]}{_BESIDE}{text[first.start() :]}"
    return _EACH_OTHER.sub(r"from \1 import", text)


def _write_contents(artifacts: Path, folder: Path, *, tables: bool) -> None:
    weights = artifacts / "weights.safetensors"
    if tables:
        tables_of: dict[str, Any] = load_file(weights)
        np.savez(folder / "tables.npz", allow_pickle=False, **tables_of)
    else:
        shutil.copyfile(weights, folder / weights.name)
    for name in ("classes.json", "sampling.json"):
        if (artifacts / name).exists():
            shutil.copyfile(artifacts / name, folder / name)
    if (vocabulary := artifacts / "tokenizer.json").exists():
        shutil.copyfile(vocabulary, folder / "vocabulary.json")
        tokenizer = tokenizer_from_dict(json.loads(vocabulary.read_text(encoding="utf-8")))
        if (written := tokenizer.to_hugging_face()) is not None:
            _written(folder / "tokenizer.json", written.encode())


def _written(target: Path, content: bytes) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(content)


def _libraries(package: Path) -> list[str]:
    """What the version was trained with: others may give other samples for the same seed."""
    lines = (package / "requirements.txt").read_text(encoding="utf-8").split()
    return [line for line in lines if line.startswith(("torch==", "numpy=="))]


_FILES = {
    "load.py": "loads the model; its first lines say how",
    "weights.safetensors": "the weights",
    "tables.npz": "the counts, as arrays of NumPy; the first lines of load.py say what they are",
    "config.json": "the model's sizes and settings",
    "classes.json": "the names of the classes, by index",
    "tokenizer.json": "the tokenizer, for Hugging Face's `tokenizers`",
    "vocabulary.json": "the same, as load.py reads it",
    "sampling.json": "what a text begins with where nothing is asked",
    "export.json": "what this is: model, version, digests, libraries it was trained with",
}


def _readme(facts: Mapping[str, Any], how_to: str, folder: Path) -> str:
    there = {*(path.name for path in folder.iterdir()), "export.json"}
    listed = [f"* `{name}`: {what}" for name, what in _FILES.items() if name in there]
    return "\n".join([f"# {facts['model']}, version {facts['version']}", "", how_to, *listed, ""])
