"""What MLflow holds that nobody will ask for: versions, packages and runs that may go.

Kept are, of each model: versions that have an alias, that were ever champion, or that a person
named; those that another home registered; and the latest of the others. Of packages (MLflow's
logged models): those of kept versions, and those so young that a run may be about to register them.
Of runs: those that kept versions, stored fits or the latest gallery refer to, those these are filed
under, and young ones. The log of who was champion is never shortened.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

from tasks.registry import audit_anchor, audit_history, audit_log
from tasks.registry.promotion import decided
from tasks.registry.versions import aliases_of, every_version, project_models
from tasks.store.artifacts import artifacts
from tasks.store.clock import steady_now
from tasks.store.retention import days_to_keep, versions_to_keep
from tasks.tracking.deletion import remove_packages, remove_runs, remove_version
from tasks.tracking.mlflow_client import old_runs, our_packages, outages_named

HOURS_TO_BE_REGISTERED = 24.0
"""How old a package without a version must be: a run registers it some seconds after it is made."""

Kind = Literal["version", "package", "run"]


@dataclass(frozen=True, kw_only=True, slots=True)
class Surplus:
    """Something of MLflow's that may go."""

    kind: Kind
    name: str
    """For people: `digits-vae version 3`, a run's name, a package's id."""
    reason: str
    model: str = ""
    """A version's model."""
    key: str
    """A version's number, a package's id, a run's id."""


def find_surplus(now: float | None = None) -> list[Surplus]:
    """Everything that may go. now: seconds since 1970, by default this moment."""
    now = steady_now() if now is None else now
    with outages_named():
        versions = every_version()
        names = project_models()
        gone = {
            (name, each.version)
            for name in names
            for each in _spare([v for v in versions if v.name == name], name, now)
        }
        kept = [each for each in versions if (each.name, each.version) not in gone]
        # A version read back has no package's id, but names its package as its source.
        packages = {str(each.source).removeprefix("models:/") for each in kept}
        return [
            *(_version(name, number) for name, number in sorted(gone)),
            *_spare_packages(packages, now),
            *_spare_runs(kept, now),
        ]


def kept_contents(surplus: Iterable[Surplus]) -> set[str]:
    """The content digests of all versions but those that may go."""
    with outages_named():
        gone = {(each.model, each.key) for each in surplus if each.kind == "version"}
        return {
            str(version.tags["content_digest"])
            for version in every_version()
            if "content_digest" in version.tags and (version.name, str(version.version)) not in gone
        }


def delete(surplus: Iterable[Surplus]) -> int:
    """Remove what was found, versions before their packages and runs; returns how much it was."""
    found = list(surplus)
    for name in sorted({each.model for each in found if each.kind == "version"}):
        spare = {int(e.key) for e in found if e.kind == "version" and e.model == name}
        decided(name, partial(_remove_versions, name, spare))
    remove_packages(each.key for each in found if each.kind == "package")
    remove_runs(each.key for each in found if each.kind == "run")
    return len(found)


def _remove_versions(name: str, spare: set[int]) -> None:
    """Remove versions of a model, but for those that were named since; under the model's lock."""
    numbers = sorted(spare - _named(name))
    if untold := sorted(set(numbers) - audit_history.pruned_versions(audit_log.entries_of(name))):
        # First, so that nobody misses them; what a kill leaves goes the next time.
        audit_anchor.note_gone(name, untold, "never champion, and no longer kept", "prune")
    for number in numbers:
        remove_version(name, number)


def _named(name: str) -> set[int]:
    """The versions of a model that have an alias, or that its log names for good."""
    return aliases_of(name) | audit_history.lasting_versions(audit_log.entries_of(name))


def _spare(versions: list[Any], name: str, now: float) -> Iterator[Any]:
    """The versions of a model that may go; one that is being registered may not.

    Nor one of which the log here does not tell: another home registered it, and may name it.
    """
    named, entries = _named(name), audit_log.entries_of(name)
    told, pruned = audit_history.contents_by_number(entries), audit_history.pruned_versions(entries)
    # Of these a kill left no digest, so that they would not count as ours below.
    half_removed = [v for v in versions if "content_digest" not in v.tags]
    yield from (v for v in half_removed if v.version in pruned - named)
    ours = [v for v in versions if told.get(v.version) == v.tags.get("content_digest", "")]
    others = sorted(
        (each for each in ours if each.version not in named),
        key=lambda each: each.version,
    )
    for each in others[: -versions_to_keep()]:
        if now - each.creation_timestamp / 1000 > HOURS_TO_BE_REGISTERED * 3600:
            yield each


def _version(name: str, number: int) -> Surplus:
    return Surplus(
        kind="version",
        name=f"{name} version {number}",
        reason=f"never champion, and not among the latest {versions_to_keep()}",
        model=name,
        key=str(number),
    )


def _spare_packages(kept: set[str], now: float) -> Iterator[Surplus]:
    for package in our_packages():
        age = now - package.creation_timestamp / 1000
        if package.model_id not in kept and age > HOURS_TO_BE_REGISTERED * 3600:
            yield Surplus(
                kind="package",
                name=f"package {package.model_id}",
                reason="no version is made of it",
                key=package.model_id,
            )


def _spare_runs(kept: list[Any], now: float) -> Iterator[Surplus]:
    older_than = now - days_to_keep() * 86_400
    referred = set(_runs_of(kept)) | set(_runs_of_fits())
    runs, latest_gallery = old_runs(older_than)
    parents = {run.run_id: run.parent for run in runs}
    referred.add(latest_gallery)
    referred |= {parents[run_id] for run_id in referred if run_id in parents}
    for run in runs:
        if run.run_id not in referred and run.status != "RUNNING":
            yield Surplus(
                kind="run",
                name=f"run {run.name} ({run.run_id[:8]})",
                reason=f"older than {days_to_keep()} days, and no version refers to it",
                key=run.run_id,
            )


def _runs_of(versions: list[Any]) -> Iterator[str]:
    for version in versions:
        yield str(version.run_id)
        yield version.tags.get("scorecard_run_id", "")
        yield version.tags.get("comparison", "").partition(" ")[0]


def _runs_of_fits() -> Iterator[str]:
    """The runs that have the curves of fits that are stored here."""
    for fit in artifacts("models"):
        yield str(fit.record.get("run_id", ""))
