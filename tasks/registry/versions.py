"""The model registry: versions keyed by their content.

Registering the same content again finds the first version. A version is `pending` until it has
passed the load check and has its card; only then it is `complete`, and may be given an alias.
"""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, TypeAlias

from mlflow.entities.model_registry import ModelVersion, RegisteredModel
from mlflow.exceptions import MlflowException
from prefect import task

from tasks.data.identity import identity_of
from tasks.data.ingestion import Corpus, ImageSet
from tasks.data.tokenization import TokenSet
from tasks.evaluation.result import beside
from tasks.evaluation.scorecard import ChampionEvaluation, PromotionDecision, Scorecard
from tasks.packaging.files import Files, PackageChanged, digest_of_files
from tasks.packaging.load_check import LoadCheckFailed, check_loads
from tasks.registry import audit_anchor, audit_log
from tasks.registry.data_owner import DATA_CHANGE, DATA_SET, accepted, data_before, keep_identity
from tasks.registry.model_card import FAMILIES, card
from tasks.registry.verification import MAX_VERSION, PACKAGE_TAG, fetched, unlisted_files
from tasks.registry.version_tags import beside_tag, number_tag, record_tag, text_tag
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.store.files import BadInput
from tasks.store.locks import file_lock
from tasks.store.names import checked_name, is_name
from tasks.tracking.mlflow_client import client, outages_named, version_url
from tasks.training.provenance import TrainingProvenance

if TYPE_CHECKING:  # commands that only read the registry need no PyTorch
    from tasks.training.fit_store import TrainedModel

CHAMPION, CHALLENGER = "champion", "challenger"

RegisteredVersion: TypeAlias = ModelVersion
"""MLflow's description of a version: its number, tags and run."""


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
    beside: str = ""
    """What is told beside the main value, such as the distance of real data."""


@task(name="register-version", task_run_name="register {fitted.name}", **NETWORKED)
def register_version(
    fitted: "TrainedModel",
    scorecard: Scorecard,
    verdict: PromotionDecision,
    recipe: TrainingProvenance,
    incumbent: ChampionEvaluation | None = None,
    data: ImageSet | TokenSet | None = None,
) -> Version:
    """Register a trained model, unless this content already is, and check that it loads anywhere.

    data: what it was trained on. Where the model belongs to another data set, as to one of a rival
    run, OtherData is raised and nothing registered.
    No alias moves here. A version that fails the load check is removed again, and LoadCheckFailed
    raised; one that a killed process left pending is checked now, or made anew.
    """
    name = checked_name("model", fitted.name)
    source = data.corpus if isinstance(data, TokenSet) else data
    with outages_named(), file_lock(f"registry-{name}"):
        before = data_before(name)
        data_change = accepted(name, before, source) if before and source else ""
        found = find_version(name, fitted.digest)
        if found is not None and found.tags.get("state") != "complete":
            found = _finished(found, fitted, scorecard)
        is_new = found is None
        found = found or _create_checked(fitted, scorecard, recipe, source, data_change)
        _describe(found, fitted, scorecard, verdict, recipe, incumbent)
        if found.tags.get("state") != "complete":
            client().set_model_version_tag(name, found.version, "state", "complete")
        if source is not None:
            keep_identity(name, source, before, int(found.version))
    return Version(
        name=name,
        version=int(found.version),
        alias="",
        run_id=found.run_id or fitted.run_id,
        digest=fitted.digest,
        main_metric=scorecard.main_metric,
        main_value=scorecard.main_value,
        seconds=fitted.seconds,
        is_new=is_new,
        beside=beside(scorecard.main_metric, scorecard.metrics),
    )


def _create_checked(
    fitted: "TrainedModel",
    scorecard: Scorecard,
    recipe: TrainingProvenance,
    source: ImageSet | Corpus | None,
    data_change: str,
) -> ModelVersion:
    """A new complete version; on a failed check none, and no model that was not there before."""
    from tasks.packaging.package import log_package

    registry, package = client(), log_package(fitted)
    # Late: a kill shall not leave one without versions.
    is_first = _ensure_registered_model(fitted, source)
    tags = {
        **_made(fitted, scorecard, recipe),
        **_measured(scorecard),
        PACKAGE_TAG: digest_of_files(package.files),
        "state": "pending",
    }
    if data_change:
        tags[DATA_CHANGE] = data_change
    created = registry.create_model_version(
        fitted.name,
        source=package.model_uri,
        run_id=fitted.run_id,
        model_id=package.model_id,
        description="Being registered: not to be used yet.",
        tags=tags,
        await_creation_for=0,  # otherwise MLflow prints while it waits
    )
    try:
        _check(created, fitted, scorecard, package.files)
    except (LoadCheckFailed, PackageChanged):
        registry.delete_model_version(fitted.name, created.version)
        if is_first:
            registry.delete_registered_model(fitted.name)
        raise
    log(f"{fitted.name}: version {created.version} loads in a clean process and draws the same")
    return created


def _finished(
    pending: ModelVersion, fitted: "TrainedModel", scorecard: Scorecard
) -> ModelVersion | None:
    """A version that a killed process left pending, completed; None, and gone, if it is unsound.

    The killed process alone knew all its files: what is ours must be what was trained here, and
    what is MLflow's must say no more than it says of every version.
    """
    from tasks.packaging.package import expected_files

    try:
        files = unlisted_files(pending, expected_files(fitted))
        registry = client()
        registry.set_model_version_tag(
            pending.name, pending.version, PACKAGE_TAG, digest_of_files(files)
        )
        _check(pending, fitted, scorecard, files)
    except (LoadCheckFailed, PackageChanged) as error:
        log(f"{fitted.name}: a version left pending is made anew: {error}")
        client().delete_model_version(fitted.name, pending.version)
        number = int(pending.version)
        if audit_log.registration_of(audit_log.entries_of(fitted.name), number) is not None:
            audit_anchor.note_gone(fitted.name, [number], f"left pending, and made anew: {error}")
        return None
    log(f"{fitted.name}: version {pending.version}, left pending, loads and is completed")
    return pending


def _check(
    pending: ModelVersion, fitted: "TrainedModel", scorecard: Scorecard, files: Files
) -> None:
    """Write a version into the audit log once it is what was trained, and loads cleanly.

    Raises PackageChanged before anything of it is executed, LoadCheckFailed after.
    """
    address = f"models:/{pending.name}/{pending.version}"
    with fetched(pending, files) as folder:
        check_loads(address, folder, fitted.family, samples=scorecard.samples_digest)
    client().set_model_version_tag(pending.name, pending.version, "load_check", "passed")
    note_package(pending, files, "register", "loads in a clean process, and draws the same")


def note_package(
    version: ModelVersion, files: Files, action: audit_log.Action, why: str
) -> audit_log.Entry | None:
    """Let the audit log say what a version's files are; the caller holds the model's lock.

    Returns None where it says so already.
    """
    digests = {"content": version.tags["content_digest"], "package": digest_of_files(files)}
    known = audit_log.registration_of(audit_log.entries_of(version.name), int(version.version))
    if known is not None and known.digests == digests:
        return None
    return audit_anchor.append(
        version.name,
        "registered",
        action=action,
        to_version=int(version.version),
        why=why,
        digests=digests,
        files=files,
    )


def _describe(
    version: ModelVersion,
    fitted: "TrainedModel",
    scorecard: Scorecard,
    verdict: PromotionDecision,
    recipe: TrainingProvenance,
    incumbent: ChampionEvaluation | None,
) -> None:
    """Write the card and the tags, where this evaluation says something new."""
    is_champion = incumbent is not None and incumbent.digest == fitted.digest
    tags = _measured(scorecard)
    if not is_champion:  # a champion keeps what the gate said when it became one
        tags |= {
            "gate": "accepted" if verdict.accepted else "refused",
            "gate_reason": verdict.reason,
        }
    changed = {name: value for name, value in tags.items() if version.tags.get(name) != value}
    if version.tags.get("state") == "complete" and not changed.keys() - {"scorecard_run_id"}:
        return
    registry = client()
    if not is_champion:
        data_change = version.tags.get(DATA_CHANGE, "")
        text = card(fitted, scorecard, verdict, recipe, incumbent, data_change)
        registry.update_model_version(version.name, version.version, description=text)
    for name, value in changed.items():
        registry.set_model_version_tag(version.name, version.version, name, value)


def find_version(name: str, digest: str) -> ModelVersion | None:
    """The version of a model that has a content digest, if there is one."""
    wanted = f"{_named(name)} and tags.content_digest = '{digest}'"
    found = client().search_model_versions(wanted)
    return found[0] if found else None


def champion_of(name: str) -> ModelVersion | None:
    """The version that is called champion, if there is one."""
    return _found(name, CHAMPION)


def champions() -> list[str]:
    """The names of our registered models that have a champion; others' models are left alone."""
    with outages_named():
        registry, names, token = client(), [], None
        while True:
            page = registry.search_registered_models(page_token=token)
            names += [each.name for each in page if CHAMPION in each.aliases and _is_ours(each)]
            token = page.token
            if not token:
                return sorted(names)


def versions_of(name: str) -> list[ModelVersion]:
    """All complete versions of a model, oldest first; those being made are left out."""
    return [version for version in all_versions(name) if version.tags.get("state") == "complete"]


def contents_of(name: str) -> dict[int, str]:
    """The content digest of each version of a model by its number, of those being made too."""
    return {int(v.version): v.tags.get("content_digest", "") for v in all_versions(name)}


def all_versions(name: str) -> list[ModelVersion]:
    """All versions of a model, oldest first, those being made too."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client().search_model_versions(_named(name), page_token=token)
        found += page
        token = page.token
        if not token:
            return sorted(found, key=lambda version: int(version.version))


def every_version() -> list[ModelVersion]:
    """All versions of all models, others' and those being made among them."""
    found: list[ModelVersion] = []
    token = None
    while True:
        page = client().search_model_versions(page_token=token)
        found += page
        token = page.token
        if not token:
            return found


def aliases_of(name: str) -> set[int]:
    """The numbers of a model's versions that have an alias."""
    return {int(number) for number in client().get_registered_model(name).aliases.values()}


def _named(name: str) -> str:
    """The registry's filter for a model's versions; a checked name holds no quotation mark."""
    return f"name = '{checked_name('model', name)}'"


def _ensure_registered_model(fitted: "TrainedModel", source: ImageSet | Corpus | None) -> bool:
    """Make the model that versions belong to; returns whether it was not there.

    Where another home made it meanwhile, it belongs to that one's data. A log of that name that
    stands already tells of a model that was lost, and goes on.
    """
    registry = client()
    identity = {DATA_SET: identity_of(source).to_json()} if source else {}
    audit_anchor.note_lost_model(fitted.name)
    log_before = audit_log.read(fitted.name)
    anchored = dict([audit_anchor.anchor_tag(log_before)]) if log_before.entries else {}
    try:
        registry.create_registered_model(
            fitted.name,
            tags={"family": fitted.family, **anchored, **identity},
            description=f"{FAMILIES[fitted.family]}\n\nNo version is the champion yet.",
        )
        return True
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        if source is not None and (before := data_before(fitted.name)) is not None:
            accepted(fitted.name, before, source)
        return False


def _made(
    fitted: "TrainedModel", scorecard: Scorecard, recipe: TrainingProvenance
) -> dict[str, str]:
    """The machine-readable part of a version's card: what stays as it was made."""
    return {
        "content_digest": fitted.digest,
        "samples_digest": scorecard.samples_digest,
        "code_digest": recipe.code_digest,
        "recipe_digest": recipe.seedless_digest,
        "recipe": json.dumps(asdict(recipe), sort_keys=True),
        "family": fitted.family,
        "seed": str(fitted.seed),
    }


def _measured(scorecard: Scorecard) -> dict[str, str]:
    """What the last evaluation said of it."""
    return {
        "data_digest": scorecard.data_digest,
        "judge_digest": scorecard.judge_digest,
        "evaluation_digest": scorecard.evaluation_digest,
        "metrics": json.dumps(scorecard.metrics, sort_keys=True),
        "scorecard_run_id": scorecard.run_id,
        "sound": "no" if scorecard.faults else "yes",
        "main_metric": scorecard.main_metric,
        "main_value": repr(scorecard.main_value),
        "main_low": repr(scorecard.low),
        "main_high": repr(scorecard.high),
    }


def get_version(name: str, number: int) -> ModelVersion | None:
    """A complete version of a model, if there is one of that number."""
    if number > MAX_VERSION:
        return None
    try:
        found = client().get_model_version(name, str(number))
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None
    return found if found.tags.get("state") == "complete" else None


def recorded(name: str, which: str) -> tuple[Version, TrainingProvenance | None]:
    """A version by its alias or number, and the record of how it was made, if it has one.

    Raises BadInput for what is not there.
    """
    with outages_named():
        found = _found(name, which)
    if found is None:
        raise BadInput(f"{name} has no version {which!r}")
    version = Version(
        name=name,
        version=int(found.version),
        alias=which,
        run_id=found.run_id or "",
        digest=text_tag(found, "content_digest"),
        main_metric=text_tag(found, "main_metric"),
        main_value=number_tag(found, "main_value"),
        seconds=0.0,
        is_new=False,
        beside=beside_tag(found),
    )
    return version, record_tag(
        found, "recipe", TrainingProvenance
    ) if "recipe" in found.tags else None


def _found(name: str, which: str) -> RegisteredVersion | None:
    checked_name("model", name)
    if checked_name("alias", which).isdecimal():
        return get_version(name, int(which))
    try:
        return client().get_model_version_by_alias(name, which)
    except MlflowException as error:
        if error.error_code not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        return None


def project_models() -> list[str]:
    """The names of all registered models that this project made.

    One that somebody gave a name that none of ours can have is left out: see `misnamed`.
    """
    return sorted(model.name for model in _registered_models() if _is_ours(model))


def misnamed() -> list[str]:
    """The registered models of our families whose names none of ours can have."""
    found = [each for each in _registered_models() if each.tags.get("family") in FAMILIES]
    return sorted(each.name for each in found if not is_name(each.name))


def _is_ours(model: RegisteredModel) -> bool:
    return model.tags.get("family") in FAMILIES and is_name(model.name)


def _registered_models() -> list[RegisteredModel]:
    with outages_named():
        return list(client().search_registered_models(max_results=1000))


def page_of(version: Version) -> str:
    """The version's page in the registry."""
    return version_url(version.name, version.version)


def tags_of(version: ModelVersion) -> Mapping[str, str]:
    """A version's tags."""
    tags: Mapping[str, str] = version.tags
    return tags
