"""What in the home nobody refers to any more, so that it may be thrown away.

A reference is a version that stays (see `tasks.maintenance.pruning`), a job at work, the latest
time that a step ran (the next run of the same settings will ask for its result), or any time within
the last hour (a rival run may be judging it). Lineages and comparisons, of which MLflow has a copy,
go by age alone. Data counts as referred to for as long as the process that prepared it lives: a run
prepares all of it first, and may train other models for hours before it reads it. Only kinds of
files that the program can make again are ever named; databases, audit logs, logs and locks are not.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, get_args

from prefect import task

from tasks.data.tokenization import Scheme
from tasks.maintenance.pruning import find_surplus, kept_contents
from tasks.registry.audit_history import lasting_contents
from tasks.runtime.processes import is_alive
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.samples.cache import shown_folder
from tasks.store.clock import steady_now
from tasks.store.files import TEMPORARY_PREFIX, home, orphaned_temp_files, read_receipt, remove
from tasks.store.records import DamagedRecord, read_record, shaped
from tasks.store.steps import StepRecord, history, steps

SECONDS_IN_USE = 3600.0
"""How long after a step its result may still be read by the run that asked for it."""
DAYS_FOR_UNFINISHED = 30.0
"""How long a fit that was interrupted can still be resumed."""
DAYS_FOR_LINEAGE = 30.0
"""How long the page that tells where a run's models come from stays here too."""
DAYS_FOR_COMPARISONS = 30.0
"""How long what two versions made side by side stays here too."""
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


@dataclass(frozen=True, kw_only=True, slots=True)
class _Digested:
    """The one part of a receipt that tells whose it is."""

    digest: str


def find_garbage(kept_digests: Iterable[str], now: float | None = None) -> list[Garbage]:
    """Everything that nothing refers to.

    kept_digests: content digests of the versions that have an alias or stand in an audit log;
    now: seconds since 1970, by default this moment; see `steady_now`.
    """
    now = steady_now() if now is None else now
    kept = set(kept_digests)
    every = {step: history(step) for step in steps()}
    latest = _asked_for(every, now)
    fits = set(_kept_fits(kept, latest, now))
    found = [
        *_old_fits(fits),
        *_old_lineages(now),
        *_old_data(_inputs_of(every, fits, latest), latest),
        *_old_fingerprints(),
        *_old_evaluations(kept | {_digest(folder) for folder in fits}),
        *_old_galleries(latest),
        *_old_comparisons(now),
        *_temporaries(),
    ]
    return [
        Garbage(path=path, num_bytes=_size(path), reason=reason)
        for path, reason in found
        if path.exists()
    ]


@task(name="collect-garbage", **NETWORKED)
def collect_garbage() -> int:
    """Find what nothing refers to and throw it away; returns how many bytes that freed."""
    found = find_garbage(kept_contents(find_surplus()) | lasting_contents())
    for each in found:
        log(f"freed {each.num_bytes / 1e6:.1f} MB: {each.path.relative_to(home())}, {each.reason}")
    return delete(found)


def delete(garbage: Iterable[Garbage]) -> int:
    """Remove what was found; returns how many bytes that freed."""
    freed = 0
    for each in garbage:
        remove(each.path)
        freed += each.num_bytes
    return freed


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


def _kept_fits(kept: set[str], latest: list[StepRecord], now: float) -> Iterator[Path]:
    """The folders of fits that something refers to, or that can be resumed."""
    keys = {record.key[:16] for record in latest}
    for folder in _fits():
        is_finished = (folder / "receipt.json").exists()
        can_resume = not is_finished and _age_days(folder, now) < DAYS_FOR_UNFINISHED
        if folder.name in keys or can_resume or (is_finished and _digest(folder) in kept):
            yield folder


def _old_fits(fits: set[Path]) -> Iterator[tuple[Path, str]]:
    for folder in _fits():
        if folder not in fits:
            is_finished = (folder / "receipt.json").exists()
            yield folder, "an earlier fit" if is_finished else "a fit that was given up"


def _fits() -> list[Path]:
    """The folders of all fits; lineages lie beside them, and are none."""
    return [folder for folder in _folders("runs", "*/*") if folder.parent.name != "lineage"]


def _old_lineages(now: float) -> Iterator[tuple[Path, str]]:
    for folder in _folders("runs/lineage", "*"):
        if _age_days(folder, now) >= DAYS_FOR_LINEAGE:
            yield folder, "the lineage of an earlier run; MLflow has its own copy"


def _inputs_of(
    every: Mapping[str, list[StepRecord]], fits: set[Path], latest: list[StepRecord]
) -> set[str]:
    """The digests of all data that kept fits and latest steps were made from."""
    keys, all_records = {folder.name for folder in fits}, list(chain(*every.values()))
    records = latest + [record for record in all_records if record.key[:16] in keys]
    inputs = {digest for record in records for digest in record.parts.get("inputs", [])}
    # Token sets are made from corpora.
    of_tokens = {_key(folder) for folder in _tokens_of(inputs)}
    for record in all_records:
        if record.key[:12] in of_tokens:
            inputs |= set(record.parts.get("inputs", []))
    return inputs


def _tokens_of(digests: set[str]) -> list[Path]:
    return [folder for folder in _folders("data/tokens", "*") if _digest(folder) in digests]


def _key(folder: Path) -> str:
    return folder.name.rsplit("-", 1)[-1]


def _old_data(inputs: set[str], latest: list[StepRecord]) -> Iterator[tuple[Path, str]]:
    # Tokens are nobody's input yet while their run still trains other models.
    made = {record.key[:12] for record in latest}
    for kind in ("images", "text", "tokens"):
        for folder in _folders(f"data/{kind}", "*"):
            if _digest(folder) not in inputs and _key(folder) not in made:
                yield folder, f"{kind} of which no kept model was made"


def _old_fingerprints() -> Iterator[tuple[Path, str]]:
    for path in (home() / "data" / "fingerprints").glob("*.json"):
        try:
            kept = read_record(path, dict[str, Any])["kept"]
            folder = Path(shaped(kept["receipt"]["folder"], str, str(path)))
        except (OSError, DamagedRecord, KeyError, TypeError):
            yield path, "a damaged fingerprint"
            continue
        if not folder.is_dir():
            yield path, "the fingerprint of data that are gone"


def _old_evaluations(kept: set[str]) -> Iterator[tuple[Path, str]]:
    for folder in _folders("evaluations", "*/*"):
        if _digest(folder) not in kept:
            yield folder, "an evaluation of a model that is not kept"


def _old_galleries(latest: list[StepRecord]) -> Iterator[tuple[Path, str]]:
    keys = {record.key[:16] for record in latest}
    shown = shown_folder()  # the next page is made of what this one shows
    folders = sorted(_folders("gallery", "*"), key=lambda folder: folder.stat().st_mtime)
    for folder in folders[:-1]:
        if folder.name.partition("-")[0] not in keys and folder != shown:
            yield folder, "an earlier gallery; MLflow has its own copy"


def _old_comparisons(now: float) -> Iterator[tuple[Path, str]]:
    for folder in _folders("comparisons", "*/*"):
        if _age_days(folder, now) >= DAYS_FOR_COMPARISONS:
            yield folder, "two versions side by side; MLflow has its own copy"


def _temporaries() -> Iterator[tuple[Path, str]]:
    for path in orphaned_temp_files(home()):
        yield path, "left half-written by a kill"


def _folders(below: str, pattern: str) -> list[Path]:
    found = (home() / below).glob(pattern)
    return [path for path in found if path.is_dir() and not path.name.startswith(TEMPORARY_PREFIX)]


def _digest(folder: Path) -> str:
    """The digest in a folder's receipt; a folder whose receipt says none has its own name."""
    try:
        return read_receipt(folder, _Digested).digest
    except (FileNotFoundError, DamagedRecord):
        return folder.name


def _age_days(path: Path, now: float) -> float:
    """Days since anything in it was written."""
    newest = max(
        (file.lstat().st_mtime for file in [path, *path.rglob("*")]), default=path.lstat().st_mtime
    )
    return (now - newest) / 86_400


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if file.is_file())
