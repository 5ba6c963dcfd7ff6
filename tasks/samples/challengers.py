"""Refused versions, as the gallery tells of them: what they made, and why none is champion.

Nothing of such a version is loaded: what it made is in the run that judged it.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from prefect import task

from tasks.registry import audit_history, audit_log
from tasks.registry.version_tags import number_tag, references_tag, text_tag
from tasks.registry.versions import (
    CHALLENGER,
    CHAMPION,
    aliases_by_model,
    get_version,
)
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.samples.html_page import Challenger
from tasks.store.files import inside, scratch_folder, write_bytes
from tasks.store.records import DamagedRecord
from tasks.tracking.home_database import RegisteredVersion
from tasks.tracking.mlflow_client import fetch_artifacts, outages_named, run_exists

FOLDER = "challengers"
"""Of a gallery's folder; a model's name has a hyphen, so none is called so."""
_SAMPLES = ("samples.png", "samples.txt")


@task(name="find-challengers", task_run_name="look for challengers", **NETWORKED)
def find_challengers() -> list[Challenger]:
    """The version of each model that is called challenger, in the order of names."""
    found = []
    with outages_named():
        for name, aliases in aliases_by_model().items():
            number, champion = aliases.get(CHALLENGER), aliases.get(CHAMPION)
            version = None if number is None else get_version(name, number)
            if version is None or number == champion:
                continue
            try:
                # One that was refused before the present champion came was held against another.
                if refusal := _refusal_by_champion(name, number):
                    found.append(_challenger(version, champion, refusal.why))
            except (DamagedRecord, audit_log.AuditLogDamaged) as error:
                log(f"gallery: a challenger is left out: {error}")
    return found


def _refusal_by_champion(name: str, number: int | None) -> audit_log.Entry | None:
    refusals = audit_history.refusals_by_champion(audit_log.entries_of(name))
    return next((entry for entry in reversed(refusals) if entry.to_version == number), None)


def _challenger(version: RegisteredVersion, champion: int | None, reason: str) -> Challenger:
    return Challenger(
        name=version.name,
        family=version.tags.get("family", ""),
        version=version.version,
        champion=champion,
        main_metric=text_tag(version, "main_metric"),
        main_value=number_tag(version, "main_value"),
        reason=reason,
        scorecard_run_id=version.tags.get("scorecard_run_id", ""),
        references=references_tag(version),
    )


def with_samples(challengers: Sequence[Challenger], folder: str) -> list[Challenger]:
    """The same, with what each made copied into a gallery's folder."""
    return [_with_sample(each, Path(folder) / FOLDER) for each in challengers]


def _with_sample(challenger: Challenger, into: Path) -> Challenger:
    run_id = challenger.scorecard_run_id
    if not run_id or not run_exists(run_id):
        return challenger
    with scratch_folder() as scratch:
        try:
            stored = fetch_artifacts(run_id, "samples", scratch)
        except FileNotFoundError:
            return challenger
        for name in _SAMPLES:
            if (stored / name).is_file():
                target = inside(into, challenger.name) / name
                write_bytes(target, (stored / name).read_bytes())
                return replace(challenger, sample=str(target))
    return challenger
