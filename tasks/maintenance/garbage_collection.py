"""What in the home nobody refers to any more, so that it may be thrown away: mark and sweep.

Marked are, with all that they were made from: the contents of versions that stay (see
`tasks.maintenance.pruning`), the results of jobs at work, of the latest time that each step ran
(the next run of the same settings will ask for it) and of any time within the last hour (a rival
run may be judging it), and what the latest gallery shows. An evaluation goes with its model. Data
is marked for as long as the process that prepared it lives: a run prepares all of it first, and may
train other models for hours before it reads it. Only artifacts are ever swept, and what a version
of before left in places of its own; databases, audit logs, logs and locks are not.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import get_args

from tasks.data.kinds import SHARDS, Scheme
from tasks.runtime.processes import is_alive
from tasks.samples.shown import shown_folder
from tasks.store.artifacts import (
    FOLDERS_OF_BEFORE,
    KEY_DIGITS,
    KINDS,
    Artifact,
    Kind,
    artifact_folder,
    folders,
)
from tasks.store.clock import steady_now
from tasks.store.files import home, left_by_the_killed, read_json, remove
from tasks.store.graph import Graph
from tasks.store.records import shaped
from tasks.store.steps import StepRecord, history, steps

SECONDS_IN_USE = 3600.0
"""How long after a step its result may still be read by the run that asked for it."""
DAYS_FOR_UNFINISHED = 30.0
"""How long a fit that was interrupted can still be resumed."""
DAYS_OF_A_RUN = 30.0
"""How long a run is taken to work at most: of one on another machine nobody knows if it lives."""

_KINDS_OF_DATA = ("images", "text", *get_args(Scheme))
"""What the names of steps that prepare data end in."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Garbage:
    """A file or folder that may go."""

    path: Path
    num_bytes: int
    reason: str


@dataclass(frozen=True, slots=True)
class _Named:
    """What a data set's artifact is found by."""

    name: str
    digest: str


_REASONS: dict[Kind, str] = {
    **{"images": "images of which no kept model was made", "models": "an earlier fit"},
    **{"initial-weights": "the weights of a version that no kept model continues"},
    **{"stable-phases": "a state that longer trainings could have gone on from"},
    **{"corpora": "text of which no kept model was made"},
    **{"tokens": "tokens of which no kept model was made"},
    **{"evaluations": "an evaluation of a model that is not kept"},
    **{"samples": "an earlier gallery; MLflow has its own copy"},
    **{"comparisons": "two versions side by side; MLflow has its own copy"},
    **dict.fromkeys(
        ("searches", "proposals", "trials", "findings", "paces"), "a record that was not finished"
    ),
}
RECORDS: tuple[Kind, ...] = ("searches", "proposals", "trials", "findings", "paces")
"""Kinds that are a manifest and little else."""
_GIVEN_UP = "a fit that was given up"


def find_garbage(kept_digests: Iterable[str], now: float | None = None) -> list[Garbage]:
    """Everything that nothing refers to.

    kept_digests: content digests of the versions that have an alias or stand in an audit log;
    now: seconds since 1970, by default this moment; see `steady_now`.
    """
    now = steady_now() if now is None else now
    graph, every = Graph.of_home(), {step: history(step) for step in steps()}
    finished = {artifact.folder: artifact for artifact in graph}
    every_folder = [(kind, folder) for kind in KINDS for folder in folders(kind)]
    keys = {record.key[:KEY_DIGITS] for record in _asked_for(every, now)}
    in_use = {
        folder
        for kind, folder in every_folder
        if folder.name.partition("-")[0] in keys
        or (kind == "models" and folder not in finished and _can_be_resumed(folder, now))
    }
    # What is being made, or can be resumed, has no manifest yet that would name its inputs.
    keys |= {folder.name for folder in in_use}
    at_work = [each for each in chain(*every.values()) if each.key[:KEY_DIGITS] in keys]
    inputs = {digest for record in at_work for digest in record.parts.get("inputs", [])}
    used = [finished[folder] for folder in in_use if folder in finished]
    inputs |= {digest for artifact in used for digest in artifact.inputs}
    marked, shown = graph.reachable({*kept_digests, *inputs, *_fits_of_searches()}), shown_folder()
    models = marked | {artifact.digest for artifact in used}
    found = [
        *(
            (folder, _REASONS[kind] if folder in finished or kind != "models" else _GIVEN_UP)
            for kind, folder in every_folder
            if folder not in in_use
            and not (kind in RECORDS and folder in finished)
            and folder != shown
            and not _is_marked(finished.get(folder), marked, models)
        ),
        *_old_fingerprints(),
        *_abandoned_shards(now),
        *_of_earlier_versions(shown),
        *((path, "left half-written by a kill") for path in left_by_the_killed()),
    ]
    return [
        Garbage(path=path, num_bytes=_size(path), reason=reason)
        for path, reason in found
        if path.exists()
    ]


def _fits_of_searches() -> set[str]:
    """The digests of fits that searches keep; where there is none, Optuna is not imported."""
    if not folders("searches"):
        return set()
    from tasks.search.records import kept_fits

    return kept_fits()


def delete(garbage: Iterable[Garbage]) -> int:
    """Remove what was found; returns how many bytes that freed."""
    freed = 0
    for each in garbage:
        remove(each.path)
        freed += each.num_bytes
    return freed


def _is_marked(artifact: Artifact | None, marked: Collection[str], models: Collection[str]) -> bool:
    """Whether something refers to an artifact; one without a manifest is nobody's.

    models: the contents of those that stay for any reason: their evaluations stay with them.
    """
    if artifact is None:
        return False
    if artifact.kind == "evaluations" and artifact.inputs:
        return artifact.inputs[0] in models
    return artifact.digest in marked


def _asked_for(every: Mapping[str, list[StepRecord]], now: float) -> list[StepRecord]:
    """What each step did last, what is being done, what was just done, and living runs' data."""
    found = []
    for records in every.values():
        found += records[-1:]
        for record in records[:-1]:
            age = record.seconds_since_its_end(now)
            is_in_use = record.state == "running" or age < SECONDS_IN_USE
            if is_in_use or _may_be_read_later(record, age):
                found.append(record)
    return found


def _may_be_read_later(record: StepRecord, age: float) -> bool:
    """Whether it prepared data for a run that is still at work; age: seconds since it ended."""
    if record.step.rpartition("-")[2] not in _KINDS_OF_DATA:
        return False
    return age < DAYS_OF_A_RUN * 86_400 and is_alive(record.owner)


def _can_be_resumed(folder: Path, now: float) -> bool:
    """Whether anything in an unfinished folder was written in the last month."""
    newest = max(file.lstat().st_mtime for file in [folder, *folder.rglob("*")])
    return (now - newest) / 86_400 < DAYS_FOR_UNFINISHED


def _old_fingerprints() -> Iterator[tuple[Path, str]]:
    for path in (home() / "data" / "fingerprints").glob("*.json"):
        try:
            kept = shaped(read_json(path)["kept"]["receipt"], _Named, str(path))
            kind: Kind = "images" if path.name.startswith("images-") else "corpora"
            folder = artifact_folder(kind, kept.name, kept.digest)
        except (OSError, ValueError, KeyError, TypeError):
            yield path, "a damaged fingerprint"
            continue
        if not folder.is_dir():
            yield path, "the fingerprint of data that are gone"


def _abandoned_shards(now: float) -> Iterator[tuple[Path, str]]:
    for folder in (home() / "data" / SHARDS).glob("*"):
        if not _can_be_resumed(folder, now):
            yield folder, "pictures that were read for a data set that was never finished"


def _of_earlier_versions(shown: Path | None) -> Iterator[tuple[Path, str]]:
    """What the version before kept in places of its own, but for what the latest page shows."""
    galleries = [path for path in (home() / "gallery").glob("*") if path.is_dir() and path != shown]
    for path in (*(home() / name for name in FOLDERS_OF_BEFORE), *galleries):
        yield path, "made by an earlier version; this one does not read it"


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
