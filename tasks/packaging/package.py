"""What a registered version is made of, and how it is loaded.

A package is a pyfunc made of code (`tasks/packaging/served_model.py` and `models/`), safetensors
and JSON; nothing in it is pickled.
"""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema

from tasks.packaging.bundled_code import code_files, written_code
from tasks.packaging.files import SERVED_LIBRARIES, Files, files_of
from tasks.packaging.served_model import SampleModel
from tasks.store.files import sha256_of
from tasks.store.storage import MANIFEST
from tasks.tracking.mlflow_client import client
from tasks.training.fit_store import TrainedModel
from tasks.training.initial_weights import BESIDE


@dataclass(frozen=True, kw_only=True, slots=True)
class Package:
    """What was stored for a version that is about to be registered."""

    model_uri: str
    model_id: str
    artifact_path: str
    files: Files
    """Listed where they were written, before they were sent anywhere."""


class _Witness:
    """MLflow's pyfunc flavor, which also lists what it has written."""

    def __init__(self) -> None:
        self.files: dict[str, tuple[int, str]] = {}

    def save_model(self, path: str, mlflow_model: Model | None = None, **settings: Any) -> None:
        described = mlflow_model or Model()
        mlflow.pyfunc.save_model(path=path, mlflow_model=described, **settings)
        _leave_out_places(described.flavors["python_function"])
        described.save(str(Path(path) / "MLmodel"))
        found = files_of(Path(path))  # MLflow drops the compiled files next
        self.files = {k: v for k, v in found.items() if "__pycache__" not in k.split("/")}


def _leave_out_places(flavor: dict[str, Any]) -> None:
    """Take out where the files lay on this machine, which MLflow notes and nobody reads."""
    for artifact in flavor["artifacts"].values():
        artifact["uri"] = artifact["path"]
    flavor["model_code_path"] = Path(flavor["model_code_path"]).name


def log_package(fitted: TrainedModel, kind: str) -> Package:
    """Store a version's files with the run that trained it; kind: it makes "images" or "text".

    MLflow by itself would put them into the experiment that happens to be the ambient one.
    """
    witness = _Witness()
    run = client().get_run(fitted.run_id)
    made = client().create_logged_model(
        run.info.experiment_id, "model", fitted.run_id, params=run.data.params
    )
    with _contents(fitted, kind) as contents:
        info = Model.log(
            artifact_path=None,
            model_id=made.model_id,
            flavor=witness,
            flavor_name="mlflow.pyfunc",
            run_id=fitted.run_id,
            **contents,
        )
    return Package(
        model_uri=info.model_uri,
        model_id=info.model_id,
        artifact_path=info.artifact_path,
        files=witness.files,
    )


def write_package(fitted: TrainedModel, kind: str, folder: Path) -> Files:
    """Write the same files into a folder that is not there yet, and nothing anywhere else."""
    witness = _Witness()
    with _contents(fitted, kind) as contents:
        witness.save_model(str(folder), **contents)
    return witness.files


@contextmanager
def _contents(fitted: TrainedModel, kind: str) -> Iterator[dict[str, Any]]:
    """What MLflow is to write; the code lies there for the time of the block."""
    with written_code() as (code, served_model):
        yield {
            "python_model": str(served_model),
            "code_paths": [str(code)],
            "artifacts": {Path(n).stem: path.as_uri() for n, path in _files(fitted).items()},
            "signature": signature_of(kind),
            "pip_requirements": [f"{n}=={library_version(n)}" for n in SERVED_LIBRARIES],
        }


def expected_files(fitted: TrainedModel) -> dict[str, str]:
    """The sha256 of what a version brings: of this fit and of this project, as they are now."""
    files = {f"artifacts/{name}": sha256_of(path) for name, path in _files(fitted).items()}
    code = code_files()
    return files | {name: hashlib.sha256(content).hexdigest() for name, content in code.items()}


def _files(fitted: TrainedModel) -> dict[str, Path]:
    folder = Path(fitted.folder)
    left_out = (MANIFEST, "checkpoint.safetensors", BESIDE)
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix in (".json", ".safetensors") and path.name not in left_out
    }


def signature_of(kind: str) -> ModelSignature:
    """What a request may ask of a model of "images" or "text", with the defaults.

    Rows have no schema: MLflow would drop the columns that one does not name, and rows without any
    of those that it does; `tasks/packaging/served_model.py` checks them.
    """
    shared = [
        ParamSpec("num_samples", DataType.long, 1),
        ParamSpec("seed", DataType.long, 0),
        ParamSpec("temperature", DataType.double, 1.0),
    ]
    if kind == "images":
        return ModelSignature(
            outputs=Schema([ColSpec("long", "request"), ColSpec("string", "png_base64")]),
            params=ParamSchema(
                [
                    *shared,
                    ParamSpec("label", DataType.long, -1),
                    ParamSpec("class_name", DataType.string, ""),
                ]
            ),
        )
    extra = [
        ParamSpec("top_k", DataType.long, 0),
        ParamSpec("top_p", DataType.double, 1.0),
        ParamSpec("min_p", DataType.double, 0.0),
        ParamSpec("prompt", DataType.string, ""),
        ParamSpec("num_tokens", DataType.long, 200),
    ]
    return ModelSignature(
        outputs=Schema([ColSpec("long", "request"), ColSpec("string", "text")]),
        params=ParamSchema([*shared, *extra]),
    )


def rebuilt_from(fitted: TrainedModel) -> SampleModel:
    """The model that a version of these files would be."""
    subject = SampleModel()
    subject.restore({path.stem: path for path in _files(fitted).values()})
    return subject


@contextmanager
def rebuilt(fitted: TrainedModel) -> Iterator[SampleModel]:
    """The same for a block, as `loaded` gives a registered version."""
    yield rebuilt_from(fitted)
