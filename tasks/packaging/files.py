"""The files of a package: listed, compared with what was registered, and what MLflow may read.

Loading a version executes its code, so every file counts, MLflow's own descriptions too: `MLmodel`
names the code that is run, the environment's files name what is installed. A listing gives each
file's size in bytes and sha256 by its path in the package.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from tasks.store.files import ChecksumMismatch, digest_of, sha256_of

Files = Mapping[str, Sequence[Any]]

BROUGHT = ("artifacts/", "code/", "served_model.py")
"""What is ours in a package; by this alone the digests of earlier times were made."""
DESCRIPTIONS = ("MLmodel", "conda.yaml", "python_env.yaml", "requirements.txt")
"""What MLflow writes beside it."""
MLFLOWS_OWN_NOTE = "registered_model_meta"
"""MLflow writes it anew into whatever it has fetched; it counts for nothing, and is left out."""
SERVED_LIBRARIES = ("mlflow", "torch", "numpy", "pandas", "pillow", "safetensors", "tokenizers")

_MODEL_FILE_FIELDS = {
    *{"artifact_path", "flavors", "is_signature_from_type_hint", "mlflow_version", "model_id"},
    *{"model_size_bytes", "model_uuid", "prompts", "run_id", "signature"},
    *{"type_hint_from_example", "utc_time_created"},
}
_MAX_SHOWN = 3


class PackageChanged(ChecksumMismatch):
    """A package is not the one that was registered: nothing of it may be executed."""


class PackageUnknown(ChecksumMismatch):
    """The audit log does not tell what the package of a version is: nothing may be executed."""


def files_of(folder: Path) -> dict[str, tuple[int, str]]:
    """The listing of a folder; raises PackageChanged for a link, a pipe or a device in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            raise PackageChanged(f"{name} is neither a file nor a folder")
        if path.is_file() and name != MLFLOWS_OWN_NOTE:
            found[name] = (path.stat().st_size, sha256_of(path))
    return found


def digest_of_files(files: Files) -> str:
    """One sha256 for a listing."""
    return digest_of({name: [size, sha] for name, (size, sha) in files.items()})


def digest_of_brought(files: Files) -> str:
    """The package digest of earlier times: of what is ours alone, by path and sha256."""
    return digest_of({name: sha for name, (_, sha) in files.items() if name.startswith(BROUGHT)})


def content_of_files(files: Files) -> str:
    """The content digest that the trained files of a package have, as `finished` makes it."""
    folder = "artifacts/"
    return digest_of(
        {n.removeprefix(folder): sha for n, (_, sha) in files.items() if n.startswith(folder)}
    )


def brought(files: Files) -> dict[str, str]:
    """The sha256 of each file that is ours."""
    return {name: sha for name, (_, sha) in files.items() if name.startswith(BROUGHT)}


def difference(found: Files, registered: Files) -> str:
    """Which files are others than were registered, in words; nothing when none is."""
    told = [
        *(f"{name} was added" for name in sorted(found.keys() - registered.keys())),
        *(f"{name} is missing" for name in sorted(registered.keys() - found.keys())),
        *(
            f"{name} was changed ({_how(found[name], registered[name])})"
            for name in sorted(found.keys() & registered.keys())
            if list(found[name]) != list(registered[name])
        ),
    ]
    more = f" and {len(told) - _MAX_SHOWN} more" if len(told) > _MAX_SHOWN else ""
    return ", ".join(told[:_MAX_SHOWN]) + more


def _how(found: Sequence[Any], registered: Sequence[Any]) -> str:
    (size, sha), (size_then, sha_then) = found, registered
    if size != size_then:
        return f"{size} bytes, registered were {size_then}"
    return f"sha256 {sha[:12]}, registered was {sha_then[:12]}"


def check_descriptions(folder: Path) -> None:
    """Raise PackageChanged unless MLflow's descriptions say what they say of every package of ours.

    For packages whose listing was not kept when they were made. Whatever can make MLflow execute,
    unpickle or install something has to be as `packaging.log_package` leaves it.
    """
    for name in sorted(files_of(folder)):
        if not name.startswith(BROUGHT) and name not in DESCRIPTIONS:
            raise PackageChanged(f"{name} is no part of a package")
        if "__pycache__" in name.split("/") or name.endswith((".pyc", ".so", ".pth")):
            raise PackageChanged(f"{name} is no source code")
    try:
        _check_meanings(folder)
    except (TypeError, AttributeError) as error:
        raise PackageChanged(
            "MLmodel, or a file of its environment, is of another shape"
        ) from error


def _check_meanings(folder: Path) -> None:
    _check_model_file(folder)
    lines = _text(folder / "requirements.txt").split()
    for line in lines:
        _check_requirement(line, "requirements.txt")
    for name in ("conda.yaml", "python_env.yaml"):
        for line in _requirements_in(_yaml(folder / name), name):
            if line not in ("-r requirements.txt", *lines):
                _check_requirement(line, name, ("python", "pip", "setuptools", "wheel"))


def _check_model_file(folder: Path) -> None:
    described = _yaml(folder / "MLmodel")
    if unknown := sorted(described.keys() - _MODEL_FILE_FIELDS):
        raise PackageChanged(f"MLmodel has {', '.join(unknown)}, which no package of ours has")
    flavors = described.get("flavors", {})
    flavor = dict(flavors.get("python_function", {})) if isinstance(flavors, dict) else {}
    artifacts = flavor.pop("artifacts", None) or {}
    wanted = {
        "loader_module": "mlflow.pyfunc.loaders.code_model",
        "code": "code",
        "model_code_path": "served_model.py",
        "env": {"conda": "conda.yaml", "virtualenv": "python_env.yaml"},
    }
    for name, value in wanted.items():
        got = flavor.pop(name, None)
        if name == "model_code_path":
            got = Path(str(got)).name  # the place where it lay; MLflow takes the name alone
        if got != value:
            raise PackageChanged(f"MLmodel has {name}: {got}, wanted {value}")
    for name in ("cloudpickle_version", "python_version", "streamable"):  # read, and not run
        flavor.pop(name, None)
    if flavor or set(flavors) != {"python_function"}:
        extra = sorted({*flavor, *flavors} - {"python_function"})
        raise PackageChanged(f"MLmodel has {', '.join(extra)}, which no package of ours has")
    for name, artifact in artifacts.items():
        path = str(artifact.get("path"))
        if not re.fullmatch(rf"artifacts/{re.escape(name)}\.(json|safetensors)", path):
            raise PackageChanged(f"MLmodel takes the artifact {name} from {path}")


def _check_requirement(line: str, where: str, besides: tuple[str, ...] = ()) -> None:
    pattern = r"([A-Za-z0-9_-]+)(?:(?:==|=|<=)[A-Za-z0-9_.+!-]+)?"
    matched = re.fullmatch(pattern, line.strip())
    if not matched or matched[1].lower() not in (*SERVED_LIBRARIES, *besides):
        raise PackageChanged(f"{where} asks for {json.dumps(line)}")


def _requirements_in(described: Any, name: str) -> list[str]:
    """Whatever an environment's file asks for."""
    if name == "python_env.yaml":
        if not set(described) <= {"python", "build_dependencies", "dependencies"}:
            raise PackageChanged(f"{name} has more than python and dependencies")
        lists = [described.get("build_dependencies", []), described.get("dependencies", [])]
        return [str(line) for each in lists for line in each]
    if not set(described) <= {"channels", "dependencies", "name"}:
        raise PackageChanged(f"{name} has more than channels and dependencies")
    if not set(described.get("channels", [])) <= {"conda-forge"}:
        raise PackageChanged(f"{name} takes packages from {described['channels']}")
    found: list[Any] = []
    for line in described.get("dependencies", []):
        found += line.get("pip", []) if isinstance(line, dict) else [line]
    return [str(line) for line in found]


def _yaml(path: Path) -> dict[str, Any]:
    try:
        value = yaml.safe_load(_text(path))
    except yaml.YAMLError as error:
        raise PackageChanged(f"{path.name} is no YAML") from error
    if not isinstance(value, dict):
        raise PackageChanged(f"{path.name} is no table of names and values")
    return value


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise PackageChanged(f"{path.name} is missing, or is no text") from error
