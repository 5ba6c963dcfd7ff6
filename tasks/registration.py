"""The model registry: versions keyed by their content, aliases, and loading by name.

A version is a pyfunc made of code (`tasks/served_model.py` and `models/`), safetensors and JSON;
nothing in it is pickled. Registering the same content again finds the first version.
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from importlib.metadata import version as library_version
from pathlib import Path
from typing import Any

import mlflow
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from prefect import task

from tasks.reporting import log
from tasks.retries import NETWORKED
from tasks.scorecard import Scorecard, Verdict, beside_the_floor, title
from tasks.storage import exclusive, project_root
from tasks.tracking import artifact_path, client, outages_named, version_url
from tasks.training.loop import Fitted

CHAMPION, CHALLENGER = "champion", "challenger"

FAMILIES = {
    "vae": "A variational auto-encoder: images to points of a latent space, and back.",
    "gan": "A generative adversarial network: two networks in competition.",
    "ngram": "A next-token model by counting: interpolated modified Kneser-Ney.",
    "gpt": "A GPT from scratch: a decoder-only transformer.",
}

_SERVED_LIBRARIES = ("mlflow", "torch", "numpy", "pandas", "pillow", "safetensors", "tokenizers")


@dataclass(frozen=True, kw_only=True, slots=True)
class Version:
    """Receipt of a registered version."""

    name: str
    version: int
    alias: str
    run_id: str
    """The MLflow run that trained it."""
    digest: str
    main_metric: str
    main_value: float
    seconds: float
    """Wall time of its training."""
    is_new: bool
    """Whether this run added the version, rather than finding it."""


@task(
    name="register-version",
    task_run_name="register {fitted.name}",
    **NETWORKED,
)
def register_version(fitted: Fitted, scorecard: Scorecard, verdict: Verdict) -> Version:
    """Register a trained model, unless this content already is; then set its alias.

    The alias is moved last: `champion` when the gate accepted it, else `challenger`.
    """
    with outages_named(), exclusive(fitted.name):
        found = find_version(fitted.name, fitted.digest)
        registered = found or _create_version(fitted, scorecard, verdict)
        version = Version(
            name=fitted.name,
            version=int(registered.version),
            alias=CHAMPION if verdict.accepted else CHALLENGER,
            run_id=registered.run_id or fitted.run_id,
            digest=fitted.digest,
            main_metric=scorecard.main_metric,
            main_value=scorecard.main_value,
            seconds=fitted.seconds,
            is_new=found is None,
        )
        champion = champion_of(fitted.name)
        if champion is not None and champion.version == registered.version:
            log(f"{fitted.name}: version {version.version} is the champion already")
            return Version(**{**_fields(version), "alias": CHAMPION})
        client().set_registered_model_alias(version.name, version.alias, str(version.version))
    log(f"{fitted.name}: version {version.version} is now {version.alias} ({verdict.reason})")
    return version


def _fields(version: Version) -> dict[str, Any]:
    return {name: getattr(version, name) for name in version.__dataclass_fields__}


def find_version(name: str, digest: str) -> ModelVersion | None:
    """The version of a model that has a content digest, if there is one."""
    found = client().search_model_versions(f"name = '{name}' and tags.content_digest = '{digest}'")
    return found[0] if found else None


def champion_of(name: str) -> ModelVersion | None:
    """The version that is called champion, if there is one."""
    try:
        return client().get_model_version_by_alias(name, CHAMPION)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def champions() -> list[str]:
    """The names of our registered models that have a champion; others' models are left alone."""
    with outages_named():
        registry, names, token = client(), [], None
        while True:
            page = registry.search_registered_models(page_token=token)
            names += [
                model.name
                for model in page
                if CHAMPION in model.aliases and model.tags.get("family") in FAMILIES
            ]
            token = page.token
            if not token:
                return sorted(names)


def kept_digests() -> set[str]:
    """The content digests of all versions that have an alias."""
    with outages_named():
        registry = client()
        return {
            str(version.tags["content_digest"])
            for model in registry.search_registered_models(max_results=1000)
            for number in set(model.aliases.values())
            if "content_digest"
            in (version := registry.get_model_version(model.name, str(number))).tags
        }


def _create_version(fitted: Fitted, scorecard: Scorecard, verdict: Verdict) -> ModelVersion:
    registry = client()
    info = Model.log(
        artifact_path=None,
        name="model",
        flavor=mlflow.pyfunc,
        run_id=fitted.run_id,
        python_model=str(project_root() / "tasks" / "served_model.py"),
        code_paths=[str(project_root() / "models")],
        artifacts={Path(name).stem: str(path) for name, path in _files(fitted).items()},
        signature=signature_of(fitted.family),
        pip_requirements=[f"{name}=={library_version(name)}" for name in _SERVED_LIBRARIES],
    )
    _ensure_registered_model(fitted)
    return registry.create_model_version(
        fitted.name,
        source=info.model_uri,
        run_id=fitted.run_id,
        model_id=info.model_id,
        description=_description(fitted, scorecard, verdict),
        tags=_tags(fitted, scorecard, verdict),
        await_creation_for=0,  # otherwise MLflow prints while it waits
    )


def _files(fitted: Fitted) -> dict[str, Path]:
    folder = Path(fitted.folder)
    left_out = ("receipt.json", "checkpoint.safetensors")
    return {
        path.name: path
        for path in sorted(folder.iterdir())
        if path.suffix in (".json", ".safetensors") and path.name not in left_out
    }


def _ensure_registered_model(fitted: Fitted) -> None:
    registry = client()
    try:
        registry.create_registered_model(
            fitted.name,
            tags={"family": fitted.family},
            description=(
                f"{FAMILIES[fitted.family]}\n\n`{CHAMPION}` is the version to use;"
                f" `{CHALLENGER}` is the latest that the gate refused."
            ),
        )
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def signature_of(family: str) -> ModelSignature:
    """What a request may ask of a family, with the defaults."""
    shared = [
        ParamSpec("num_samples", DataType.long, 1),
        ParamSpec("seed", DataType.long, 0),
        ParamSpec("temperature", DataType.double, 1.0),
    ]
    if family in ("vae", "gan"):
        return ModelSignature(
            inputs=Schema([ColSpec("long", "label", required=False)]),
            outputs=Schema([ColSpec("long", "request"), ColSpec("string", "png_base64")]),
            params=ParamSchema([*shared, ParamSpec("label", DataType.long, -1)]),
        )
    extra = [
        ParamSpec("top_k", DataType.long, 0),
        ParamSpec("prompt", DataType.string, ""),
        ParamSpec("num_tokens", DataType.long, 200),
    ]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "prompt", required=False)]),
        outputs=Schema([ColSpec("long", "request"), ColSpec("string", "text")]),
        params=ParamSchema([*shared, *extra]),
    )


def _tags(fitted: Fitted, scorecard: Scorecard, verdict: Verdict) -> dict[str, str]:
    return {
        "content_digest": fitted.digest,
        "data_digest": scorecard.data_digest,
        "judge_digest": scorecard.judge_digest,
        "scorecard_run_id": scorecard.run_id,
        "family": fitted.family,
        "seed": str(fitted.seed),
        "gate": "accepted" if verdict.accepted else "refused",
        "gate_reason": verdict.reason,
        "main_metric": scorecard.main_metric,
        "main_value": repr(scorecard.main_value),
    }


def _description(fitted: Fitted, scorecard: Scorecard, verdict: Verdict) -> str:
    numbers = "\n".join(
        f"| {name} | {value:.5g} | {'' if floor is None else f'{floor:.5g}'} |"
        for name, value, floor in beside_the_floor(scorecard.metrics)
    )
    if fitted.family in ("vae", "gan"):
        picture = artifact_path(scorecard.run_id, "samples/samples.png")
        shown = f"![samples]({picture})"
    else:
        shown = f"```\n{scorecard.example}\n```"
    return (
        f"{FAMILIES[fitted.family]}\n\n{shown}\n\n"
        f"**{title(scorecard.main_metric)}: {scorecard.main_value:.4f}**"
        f" (lower is better; gate: {verdict.reason})\n\n"
        f"* {fitted.num_parameters:,} parameters, trained in {fitted.seconds:.0f} s,"
        f" seed {fitted.seed}\n"
        f"* data: {scorecard.data_title}, digest `{scorecard.data_digest[:12]}`,"
        f" licence: {scorecard.data_licence}\n\n"
        f"| measured on held-out data | this version | real data |\n|---|---|---|\n{numbers}\n\n"
        "```python\nimport mlflow\n"
        f'model = mlflow.pyfunc.load_model("models:/{fitted.name}@{CHAMPION}")\n'
        'model.predict([{}], params={"num_samples": 4, "seed": 1})\n```\n'
    )


@contextmanager
def loaded(name: str, alias_or_version: str = CHAMPION) -> Iterator[Any]:
    """Load a registered version and give its SampleModel.

    Each version brings its own copy of `models/`. It is imported afresh for the time of the block,
    so that a version made by older code runs on that code and leaves ours alone.
    """
    where = f"@{alias_or_version}" if not alias_or_version.isdigit() else f"/{alias_or_version}"
    ours = {key: sys.modules.pop(key) for key in list(sys.modules) if _is_models(key)}
    path = list(sys.path)
    try:
        client()  # points MLflow at the tracking server
        with outages_named():
            model = mlflow.pyfunc.load_model(f"models:/{name}{where}")
        yield model.unwrap_python_model()
    finally:
        sys.path[:] = path
        for key in [key for key in sys.modules if _is_models(key)]:
            del sys.modules[key]
        sys.modules.update(ours)


def _is_models(module_name: str) -> bool:
    return module_name == "models" or module_name.startswith("models.")


def page_of(version: Version) -> str:
    """The version's page in the registry."""
    return version_url(version.name, version.version)


def tags_of(version: ModelVersion) -> Mapping[str, str]:
    """A version's tags."""
    tags: Mapping[str, str] = version.tags
    return tags
