"""Do two commits of this project make the same? Weights, samples and metrics, by their digests.

python -m benchmarks.golden OLD NEW [--preset quick] [--seed 0] [--models vae,ngram]

Each commit is checked out into a folder of its own and trains in a fresh home, with the libraries
of this environment: bits depend on the processor and on the libraries, so both run here, in one
call. "." as a commit is the working tree, as it is. Prints a row per model and file; exit code 1
where anything differs.
"""

import argparse
import hashlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
TAGS = ("content_digest", "main_metric", "main_value")
FACTS = ("data_digest", "main_low", "main_high")
"""What a version says of itself that no code may change by being moved."""


@contextmanager
def checked_out(commit: str, below: Path) -> Iterator[Path]:
    """A folder with the files of a commit."""
    if commit == ".":
        yield ROOT
        return
    folder = below / f"at-{commit.replace('/', '-')}"
    subprocess.run(
        ["git", "worktree", "add", "--quiet", "--detach", str(folder), commit], cwd=ROOT, check=True
    )
    try:
        yield folder
    finally:
        subprocess.run(["git", "worktree", "remove", "--force", str(folder)], cwd=ROOT, check=True)


def free_ports() -> tuple[int, int]:
    """Two ports that nobody listens on."""
    with socket.socket() as first, socket.socket() as second:
        for probe in (first, second):
            probe.bind(("127.0.0.1", 0))
        return first.getsockname()[1], second.getsockname()[1]


def trained(tree: Path, home: Path, options: argparse.Namespace) -> dict[str, str]:
    """What `atelier run` makes there: digests by model and file."""
    project = tomllib.loads((tree / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    module = project["scripts"]["atelier"].partition(":")[0].removesuffix(".__main__")
    kept = ("ATELIER_", "PREFECT_", "MLFLOW_")
    environment = {k: v for k, v in os.environ.items() if not k.startswith(kept)}
    environment |= {"ATELIER_HOME": str(home), "PYTHONPATH": str(tree)}
    if data := os.environ.get("ATELIER_DATA"):
        environment["ATELIER_DATA"] = data

    def atelier(*arguments: str) -> None:
        command = [sys.executable, "-m", module, *arguments]
        done = subprocess.run(
            command, cwd=tree, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(f"{' '.join(command)} in {tree}:\n{done.stdout}{done.stderr}")

    prefect, mlflow = free_ports()
    started_at = time.monotonic()
    try:
        atelier(
            *("run", "--preset", options.preset, "--seed", str(options.seed)),
            *("--models", options.models),
            *("--prefect-port", str(prefect), "--mlflow-port", str(mlflow)),
        )
    finally:
        atelier("down")
    print(f"{tree.name}: {time.monotonic() - started_at:.0f} s", flush=True)
    return {**registered(home), **samples(home)}


def registered(home: Path) -> dict[str, str]:
    """Of every version: its trained files, its metrics, and what its tags say of both."""
    os.environ["MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"] = "false"
    from mlflow import MlflowClient
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    from tasks.registry.version_tags import recorded_facts

    address = f"sqlite:///{home / 'mlflow.db'}"
    client = MlflowClient(address, registry_uri=address)
    found: dict[str, str] = {}
    for version in client.search_model_versions():
        of = f"{version.name} {version.version}"
        found |= {f"{of}: {tag}": version.tags[tag] for tag in TAGS}
        found |= {f"{of}: {fact}": recorded_facts(version)[fact] for fact in FACTS}
        for metric, value in json.loads(version.tags["metrics"]).items():
            found[f"{of}: {metric}"] = repr(value)
        model = client.get_logged_model(version.source.rpartition("/")[2])
        place = model.artifact_location.replace("mlflow-artifacts:", str(home / "mlartifacts"), 1)
        with tempfile.TemporaryDirectory() as folder:
            get_artifact_repository(place).download_artifacts("artifacts", folder)
            for path in sorted(Path(folder).rglob("*")):
                if path.is_file():
                    found[f"{of}: {path.name}"] = sha256_of(path)
    return found


def samples(home: Path) -> dict[str, str]:
    """Of every champion: the pictures and texts in its gallery."""
    places = ("gallery/*/works.json", "artifacts/samples/gallery/*/works.json")  # before, and now
    galleries = [path.parent for place in places for path in home.glob(place)]
    if len(galleries) != 1:
        sys.exit(f"{home}: {len(galleries)} galleries, wanted: 1")
    return {
        f"gallery: {path.relative_to(galleries[0]).as_posix()}": sha256_of(path)
        for path in sorted(galleries[0].rglob("*"))
        if path.suffix in (".png", ".txt")
    }


def sha256_of(path: Path) -> str:
    """The sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def compared(old: dict[str, str], new: dict[str, str]) -> list[tuple[str, str, str]]:
    """Rows of (what, old, new) where the two are not the same."""
    missing = "missing"
    rows = [(k, old.get(k, missing), new.get(k, missing)) for k in sorted({*old, *new})]
    return [row for row in rows if row[1] != row[2]]


def main(arguments: list[str]) -> int:
    """Train with both commits and compare; returns 1 where they differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--preset", default="quick")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--models", default="vae,gan,ngram,gpt")
    options = parser.parse_args(arguments)
    made: list[dict[str, str]] = []
    with tempfile.TemporaryDirectory(prefix="golden-") as place:
        for index, commit in enumerate((options.old, options.new)):
            with checked_out(commit, Path(place) / str(index)) as tree:
                made.append(trained(tree, Path(place) / f"home-{index}", options))
    old, new = made
    differing = compared(old, new)
    kinds: dict[str, Any] = {}
    for what in sorted({*old, *new}):
        kinds.setdefault(what.partition(":")[0], []).append(what)
    for kind, of_kind in kinds.items():
        same = sum(old.get(what) == new.get(what) for what in of_kind)
        print(f"{kind}: {same} of {len(of_kind)} the same")
    for what, before, after in differing:
        print(f"  {what}: {before[:24]} -> {after[:24]}")
    print(f"{len(old)} values of {options.old}, {len(new)} of {options.new}: ", end="")
    print(f"{len(differing)} differ" if differing else "all the same")
    return 1 if differing or not old else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
