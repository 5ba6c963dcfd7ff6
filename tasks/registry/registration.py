"""Registering a trained model as a version, keyed by its content.

Registering the same content again finds the first version. A version is `pending` until it has
passed the load check and has its card; only then it is `complete`, and may be given an alias.
"""

import json
import time
from dataclasses import asdict
from typing import TYPE_CHECKING

from mlflow.exceptions import MlflowException
from prefect import task

from tasks.data.identity import identity_of
from tasks.data.ingestion import Corpus, ImageSet
from tasks.data.tokenization import TokenSet
from tasks.evaluation.result import references
from tasks.evaluation.scorecard import ChampionEvaluation, PromotionDecision, Scorecard
from tasks.families.table import FAMILIES
from tasks.packaging.files import Files, PackageChanged, digest_of_files
from tasks.packaging.load_check import LoadCheckFailed, check_loads
from tasks.registry import audit_anchor, audit_history, audit_log
from tasks.registry.data_owner import DATA_CHANGE, DATA_SET, accepted, data_before, keep_identity
from tasks.registry.log_storage import is_shared, registry_lock
from tasks.registry.model_card import card
from tasks.registry.verification import PACKAGE_TAG, fetched, unlisted_files
from tasks.registry.version_tags import RECORD, recorded_facts
from tasks.registry.versions import Version, all_versions, find_version
from tasks.runtime.processes import this_process
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.store.leases import lives
from tasks.store.names import checked_name
from tasks.tracking.home_database import RegisteredVersion
from tasks.tracking.mlflow_client import client, large_files, outages_named
from tasks.tracking.registry_queries import stored_version
from tasks.training.provenance import TrainingProvenance

if TYPE_CHECKING:
    from tasks.training.fit_store import TrainedModel

SECONDS_OF_A_REGISTRATION = 120.0
"""How long a version that a living process of another home is registering is waited for."""
_OWNER = "owner"
"""The tag of who registers a version, while homes share a store: they share no lock."""


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
    with outages_named(), registry_lock(name):
        before = data_before(name)
        data_change = accepted(name, before, source) if before and source else ""
        found = _known(fitted, scorecard)
        is_new = found is None
        if found is None:
            found = _create_checked(fitted, scorecard, recipe, source, data_change)
        if found is None:  # another home registered the same content meanwhile
            found, is_new = _known(fitted, scorecard), False
        if found is None:
            raise RuntimeError(f"{name}: another home's version of this content did not load")
        _describe(found, fitted, scorecard, verdict, recipe, incumbent)
        if found.tags.get("state") != "complete":
            client().set_model_version_tag(name, str(found.version), "state", "complete")
            if _OWNER in found.tags:
                _forget_owner(found)
        if source is not None:
            keep_identity(name, source, before, found.version)
    return Version(
        name=name,
        version=found.version,
        alias="",
        run_id=found.run_id or fitted.run_id,
        digest=fitted.digest,
        main_metric=scorecard.main_metric,
        main_value=scorecard.main_value,
        seconds=fitted.seconds,
        is_new=is_new,
        references=references(scorecard.main_metric, scorecard.metrics),
        continues=recipe.continues,
    )


def _known(fitted: "TrainedModel", scorecard: Scorecard) -> RegisteredVersion | None:
    """The version of this content, completed where it was left pending; None if none is sound."""
    found = _settled(fitted)
    if found is None or found.tags.get("state") == "complete":
        return found
    return _finished(found, fitted, scorecard)


def _settled(fitted: "TrainedModel") -> RegisteredVersion | None:
    """The version of this content, once nobody of another home is registering it any more.

    Raises TimeoutError, after which a task is tried again.
    """
    deadline = time.monotonic() + SECONDS_OF_A_REGISTRATION
    while True:
        found = find_version(fitted.name, fitted.digest)
        owner = found.tags.get(_OWNER, "") if found is not None else ""
        if found is None or found.tags.get("state") == "complete":
            return found
        if not owner or owner == this_process() or not lives(owner):
            return found
        if time.monotonic() >= deadline:
            raise TimeoutError(f"{fitted.name}: {owner} is registering version {found.version}")
        time.sleep(1.0)


def _forget_owner(version: RegisteredVersion) -> None:
    """Remove the tag; another home that completed what a killed one began may have done so."""
    try:
        client().delete_model_version_tag(version.name, str(version.version), _OWNER)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _create_checked(
    fitted: "TrainedModel",
    scorecard: Scorecard,
    recipe: TrainingProvenance,
    source: ImageSet | Corpus | None,
    data_change: str,
) -> RegisteredVersion | None:
    """A new complete version; on a failed check none, and no model that was not there before.

    Returns None where another home began to register the same content before: of two versions of
    one content the first one stays.
    """
    from tasks.packaging.package import log_package

    with large_files():
        package = log_package(fitted, FAMILIES[fitted.family].data)
    registry = client()
    # Late: a kill shall not leave one without versions.
    is_first = _ensure_registered_model(fitted, source)
    tags = {
        **_made(fitted, recipe),
        **_measured(scorecard),
        RECORD: json.dumps(_record(scorecard, recipe), sort_keys=True),
        PACKAGE_TAG: digest_of_files(package.files),
        "state": "pending",
        **({_OWNER: this_process()} if is_shared() else {}),
    }
    if data_change:
        tags[DATA_CHANGE] = data_change
    made = registry.create_model_version(
        fitted.name,
        source=package.model_uri,
        run_id=fitted.run_id,
        model_id=package.model_id,
        description="Being registered: not to be used yet.",
        tags=tags,
        await_creation_for=0,  # otherwise MLflow prints while it waits
    )
    created = stored_version(made)
    first = find_version(fitted.name, fitted.digest)
    if first is not None and first.version < created.version:
        registry.delete_model_version(fitted.name, str(created.version))
        return None
    try:
        _check(created, fitted, scorecard, package.files)
    except (LoadCheckFailed, PackageChanged):
        registry.delete_model_version(fitted.name, str(created.version))
        if is_first and not all_versions(fitted.name):  # another home may have come in between
            registry.delete_registered_model(fitted.name)
        raise
    log(f"{fitted.name}: version {created.version} loads in a clean process and draws the same")
    return created


def _finished(
    pending: RegisteredVersion, fitted: "TrainedModel", scorecard: Scorecard
) -> RegisteredVersion | None:
    """A version that a killed process left pending, completed; None, and gone, if it is unsound.

    The killed process alone knew all its files: what is ours must be what was trained here, and
    what is MLflow's must say no more than it says of every version.
    """
    from tasks.packaging.package import expected_files

    try:
        files = unlisted_files(pending, expected_files(fitted))
        registry = client()
        registry.set_model_version_tag(
            pending.name, str(pending.version), PACKAGE_TAG, digest_of_files(files)
        )
        _check(pending, fitted, scorecard, files)
    except (LoadCheckFailed, PackageChanged) as error:
        log(f"{fitted.name}: a version left pending is made anew: {error}")
        client().delete_model_version(fitted.name, str(pending.version))
        number = pending.version
        if audit_history.registration_of(audit_log.entries_of(fitted.name), number) is not None:
            audit_anchor.note_gone(fitted.name, [number], f"left pending, and made anew: {error}")
        return None
    log(f"{fitted.name}: version {pending.version}, left pending, loads and is completed")
    return pending


def _check(
    pending: RegisteredVersion, fitted: "TrainedModel", scorecard: Scorecard, files: Files
) -> None:
    """Write a version into the audit log once it is what was trained, and loads cleanly.

    Raises PackageChanged before anything of it is executed, LoadCheckFailed after.
    """
    address = f"models:/{pending.name}/{pending.version}"
    with fetched(pending, files) as folder:
        kind = FAMILIES[fitted.family].data
        check_loads(address, folder, kind, samples=scorecard.samples_digest)
    client().set_model_version_tag(pending.name, str(pending.version), "load_check", "passed")
    note_package(pending, files, "register", "loads in a clean process, and draws the same")


def note_package(
    version: RegisteredVersion, files: Files, action: audit_log.Action, why: str
) -> audit_log.Entry | None:
    """Let the audit log say what a version's files are; the caller holds the model's lock.

    Returns None where it says so already.
    """
    digests = {"content": version.tags["content_digest"], "package": digest_of_files(files)}
    known = audit_history.registration_of(audit_log.entries_of(version.name), version.version)
    if known is not None and known.digests == digests:
        return None
    return audit_anchor.append(
        version.name,
        "registered",
        action=action,
        to_version=version.version,
        why=why,
        digests=digests,
        files=files,
    )


def _describe(
    version: RegisteredVersion,
    fitted: "TrainedModel",
    scorecard: Scorecard,
    verdict: PromotionDecision,
    recipe: TrainingProvenance,
    incumbent: ChampionEvaluation | None,
) -> None:
    """Write the card and the tags, where this evaluation says something new."""
    is_champion = incumbent is not None and incumbent.digest == fitted.digest
    tags, told, now = _measured(scorecard), recorded_facts(version), _measured_record(scorecard)
    if any(told.get(name, "") != value for name, value in now.items()):
        # What a damaged tag lost is known here; what it still tells is as it was registered.
        tags[RECORD] = json.dumps(_record(scorecard, recipe) | told | now, sort_keys=True)
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
        text = card(
            fitted,
            scorecard,
            verdict,
            recipe,
            incumbent,
            number=version.version,
            data_change=version.tags.get(DATA_CHANGE, ""),
        )
        registry.update_model_version(version.name, str(version.version), description=text)
    for name, value in changed.items():
        registry.set_model_version_tag(version.name, str(version.version), name, value)


def _ensure_registered_model(fitted: "TrainedModel", source: ImageSet | Corpus | None) -> bool:
    """Make the model that versions belong to; returns whether it was not there.

    Where another home made it meanwhile, it belongs to that one's data. A log of that name that
    stands already tells of a model that was lost, and goes on.
    """
    registry = client()
    identity = {DATA_SET: identity_of(source).to_json()} if source else {}
    audit_anchor.note_lost_model(fitted.name)
    log_before = audit_log.read(fitted.name)
    if not log_before.is_current:  # this home's copy, which may lack lines, is no anchor
        log_before = audit_log.decided(fitted.name, lambda: audit_log.read_again(fitted.name))
    anchored = dict([audit_anchor.anchor_tag(log_before)]) if log_before.entries else {}
    try:
        registry.create_registered_model(
            fitted.name,
            tags={"family": fitted.family, **anchored, **identity},
            description=f"{FAMILIES[fitted.family].purpose}\n\nNo version is the champion yet.",
        )
        return True
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise
        if source is not None and (before := data_before(fitted.name)) is not None:
            accepted(fitted.name, before, source)
        return False


def _made(fitted: "TrainedModel", recipe: TrainingProvenance) -> dict[str, str]:
    """What stays as it was made, of which people filter by all but the first two."""
    return {
        "content_digest": fitted.digest,
        "recipe": json.dumps(asdict(recipe), sort_keys=True),
        "data": fitted.name.removesuffix(f"-{fitted.family}"),
        **recipe.filters,
    }


def _record(scorecard: Scorecard, recipe: TrainingProvenance) -> dict[str, str]:
    """What machines alone read: the tag RECORD."""
    return {
        "samples_digest": scorecard.samples_digest,
        "code_digest": recipe.code_digest,
        "recipe_digest": recipe.seedless_digest,
        **_measured_record(scorecard),
    }


def _measured_record(scorecard: Scorecard) -> dict[str, str]:
    """Of that, what changes where a version is judged again."""
    return {
        "data_digest": scorecard.data_digest,
        "judge_digest": scorecard.judge_digest,
        "evaluation_digest": scorecard.evaluation_digest,
        "main_low": repr(scorecard.low),
        "main_high": repr(scorecard.high),
    }


def _measured(scorecard: Scorecard) -> dict[str, str]:
    """What the last evaluation said of it."""
    return {
        "metrics": json.dumps(scorecard.metrics, sort_keys=True),
        "scorecard_run_id": scorecard.run_id,
        "sound": "no" if scorecard.failed_checks else "yes",
        "main_metric": scorecard.main_metric,
        "main_value": repr(scorecard.main_value),
    }
