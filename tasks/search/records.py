"""A search on disk: what it is, what it proposed, what came of that, and what was found.

There is no database and no heartbeat. What a search is stands in a manifest of its own, under its
name; each proposal in one that is written before it is tried; a trial's outcome belongs to all
searches that come by it. A search that was killed is read from these, and goes on.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from models.presets import Preset
from tasks.search.halving import Halving, Standing, standings
from tasks.search.outcome import Outcome
from tasks.search.space import Space, plain_space
from tasks.search.study import Proposal, Result, SamplerName, StudySpec, best_of
from tasks.store.artifacts import (
    Artifact,
    Kind,
    artifact_folder,
    folders,
    get_or_create,
    read_manifest,
)
from tasks.store.files import BadInput, digest_of, write_json
from tasks.store.names import checked_name
from tasks.store.records import DamagedRecord, shaped
from tasks.store.steps import changes

Record = TypeVar("Record")

KEPT_TRIALS = 3
"""Of so many of the best the weights are kept; of the others the record only."""
_MOST_DIFFERENCES = 4


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchRecord:
    """What a search is."""

    name: str
    family: str
    model: str
    """The registered model's name, `<data set>-<family>`."""
    source: dict[str, Any]
    """Where its data come from, as the flow's parameters say it."""
    data_title: str
    data_digest: str
    preset: Preset
    given: dict[str, Any]
    """What all trials have set beside the preset, by the full names of settings."""
    threads: int
    """Of torch, in each trial."""
    spec: StudySpec
    parts: dict[str, Any]
    """All that decides its course, with code and libraries: what it is known by."""
    halving: Halving | None = None
    """After how many steps trials are pruned; None: never."""

    @property
    def key(self) -> str:
        """Equal for searches that take the same course."""
        return digest_of(self.parts)


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One of the trainings of a trial that may be pruned: up to a rung, or the whole one."""

    steps: int
    new_steps: int
    """Of these, those that the trainings before have not made: each goes on from the one before."""
    trial: str
    """The key of its outcome."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Proposed:
    """A proposal, and where its outcome will be found."""

    search: str
    """The key of the search."""
    proposal: Proposal
    trial: str
    """The key of the outcome; empty where the settings contradict each other."""
    problem: str = ""
    """How they do."""
    stages: tuple[Stage, ...] = ()
    """Its trainings, the shortest first and the whole one last, where it may be pruned."""

    @property
    def number(self) -> int:
        """Of the trial, from 0 on."""
        return self.proposal.number


@dataclass(frozen=True, kw_only=True, slots=True)
class FreshSeed:
    """The best setting, trained once more."""

    seed: int
    state: str
    value: float | None
    reason: str = ""


@dataclass(frozen=True, kw_only=True, slots=True)
class Finding:
    """What a search found, after so many trials."""

    search: str
    trials: int
    best: int | None
    """The best trial's number; 0 is the present recipe."""
    fresh: tuple[FreshSeed, ...] = field(default=())
    """The best setting with other seeds; the first is the candidate."""
    version: int | None = field(default=None)
    """Under which it was registered."""
    accepted: bool = field(default=False)
    decision: str = field(default="")
    """Of the gate, in words."""


# What a search is -----------------------------------------------------------------------------


def named(name: str) -> list[SearchRecord]:
    """The search of a name; none or one."""
    return [each for each in searches() if each.name == name]


def searches() -> list[SearchRecord]:
    """All searches of this home, by name."""
    found = [_shaped(each, SearchRecord) for each in _manifests("searches")]
    return sorted(filter(None, found), key=lambda each: each.name)


def asked_parts(
    *,
    family: str,
    preset: Preset,
    given: Mapping[str, Any],
    space: Space,
    seed: int,
    sampler: SamplerName,
    threads: int,
) -> dict[str, Any]:
    """Of what decides a search's course all that is known before its data are read."""
    return {
        **{"family": family, "preset": preset, "given": {**given}, "vary": plain_space(space)},
        **{"seed": seed, "sampler": sampler, "threads": threads},
    }


def check_name(name: str, asked: Mapping[str, Any]) -> None:
    """Refuse the name of a search that was asked for differently; asked: see `asked_parts`.

    Raises BadInput, with what differs.
    """
    for other in named(name):
        before = {each: value for each, value in other.parts.items() if each in asked}
        if differences := changes(before, asked):
            raise _is_another(name, differences)


def _is_another(name: str, differences: Sequence[str]) -> BadInput:
    told = "; ".join(differences[:_MOST_DIFFERENCES])
    more = len(differences) - _MOST_DIFFERENCES
    told += f"; and {more} more" if more > 0 else ""
    return BadInput(
        f"a search called {name} is another one ({told}); give this one another --name: points that"
        " were tried cost nothing again"
    )


def begin(record: SearchRecord) -> SearchRecord:
    """Put a search on record, or go on with the same one.

    Raises BadInput where another search has its name.
    """
    for other in named(record.name):
        if other.key != record.key:
            raise _is_another(record.name, changes(other.parts, record.parts))
    made = get_or_create(
        "searches", record.name, record.parts, _writing(record), record=SearchRecord
    )
    return _known(made, SearchRecord)


def search_called(name: str) -> SearchRecord:
    """The search of a name; raises BadInput without one, and for what is no name."""
    found = named(checked_name("search", name))
    if not found:
        known = ", ".join(each.name for each in searches()) or "none yet"
        raise BadInput(f"there is no search called {name}; known: {known}")
    return found[0]


def best_settings(name: str) -> tuple[SearchRecord, dict[str, Any]]:
    """A search, and what its best trial has set, by full names; raises BadInput without one."""
    search = search_called(name)
    best = best_of(results_of(outcomes_of(search)))
    if not best:
        raise BadInput(f"the search {name} has no trial that could be measured")
    values = proposals_of(search)[best[0]].proposal.values if best[0] else {}
    return search, {**search.given, **values}


# What it proposed -----------------------------------------------------------------------------


def keep(search: SearchRecord, proposed: Proposed) -> Proposed:
    """Put a proposal on record before it is tried; one that stands there already is returned."""
    parts = {"search": search.key, "number": proposed.number}
    made = get_or_create("proposals", search.name, parts, _writing(proposed), record=Proposed)
    return _known(made, Proposed)


def proposals_of(search: SearchRecord) -> list[Proposed]:
    """What a search has proposed so far, in order; what follows a damaged one is proposed again."""
    found = {
        each.number: each
        for manifest in _manifests("proposals", search.name)
        if (each := _shaped(manifest, Proposed)) is not None and each.search == search.key
    }
    whole = 0
    while whole in found:
        whole += 1
    return [found[number] for number in range(whole)]


# What came of it ------------------------------------------------------------------------------


def measured_of(search: SearchRecord, proposed: Proposed) -> list[Outcome | None]:
    """What came of a trial's trainings, the shortest first; mostly it is one."""
    if proposed.problem:
        return [Outcome(state="failed", value=None, reason=proposed.problem)]
    keys = [each.trial for each in proposed.stages] or [proposed.trial]
    return [known_outcome(search.model, key) for key in keys]


def standings_of(search: SearchRecord, proposals: Sequence[Proposed]) -> list[Standing]:
    """How far trials are; proposals: of the search, all from the first one on."""
    return _standings([measured_of(search, each) for each in proposals])


def _standings(measured: Sequence[Sequence[Outcome | None]]) -> list[Standing]:
    return standings(
        [[each.as_result() if each else None for each in outcomes] for outcomes in measured]
    )


def known_outcome(model: str, key: str) -> Outcome | None:
    """The outcome of a key, or None where there is none, or a damaged one."""
    try:
        return _shaped(read_manifest(artifact_folder("trials", model, key)), Outcome)
    except (OSError, ValueError):
        return None


def outcomes_of(
    search: SearchRecord, proposals: Sequence[Proposed] | None = None
) -> dict[int, Outcome]:
    """How the trials of a search ended, by number; those under way are left out.

    proposals: all of it from the first one on, where they are known.
    """
    known = proposals_of(search) if proposals is None else proposals
    measured = [measured_of(search, each) for each in known]
    return {
        each.number: _whole(each, outcomes, how)
        for each, outcomes, how in zip(known, measured, _standings(measured), strict=True)
        if how.is_over
    }


def _whole(proposed: Proposed, measured: Sequence[Outcome | None], how: Standing) -> Outcome:
    """A trial's outcome, of all of its trainings."""
    reached = [each for each in measured[: len(how.reached)] if each is not None]
    last, stages = reached[-1], proposed.stages
    if not stages:
        return last
    curve: list[tuple[int, float]] = []
    for each in reversed(reached):  # each began where the one before began to decay
        curve = [point for point in each.curve if not curve or point[0] < curve[0][0]] + curve
    rungs = {
        str(stage.steps): each.value
        for stage, each in zip(stages[:-1], reached, strict=False)
        if each.value is not None
    }
    whole = replace(last, curve=curve, rungs=rungs)
    if not how.place:
        return whole
    at = f"pruned at {stages[len(reached) - 1].steps} of {stages[-1].steps} steps"
    return replace(
        whole, state="pruned", reason=f"{at}, {how.place}. of {how.of}: {last.value:.5g}"
    )


def steps_of(search: SearchRecord) -> tuple[int, int] | None:
    """The steps of all trials that were pruned or complete, and of as many whole trainings.

    None where no trial may be pruned.
    """
    if search.halving is None:
        return None
    proposals = proposals_of(search)
    ended = {n: o for n, o in outcomes_of(search, proposals).items() if o.state != "failed"}
    trained = 0
    for number, outcome in ended.items():
        reached = len(outcome.rungs) + (outcome.state == "complete")
        trained += sum(stage.new_steps for stage in proposals[number].stages[:reached])
    return trained, len(ended) * search.halving.steps


def results_of(outcomes: Mapping[int, Outcome]) -> dict[int, Result]:
    """The same as the study is told it."""
    return {number: outcome.as_result() for number, outcome in outcomes.items()}


# What was found -------------------------------------------------------------------------------


def keep_finding(search: SearchRecord, finding: Finding, best_trial: str) -> Finding:
    """Put on record what was found; best_trial: the digest of the best trial's fit."""
    parts = {"search": search.key, **asdict(finding)}
    made = get_or_create(
        *("findings", search.name),
        parts,
        _writing(finding),
        inputs=[best_trial],
        record=Finding,
    )
    return _known(made, Finding)


def finding_of(search: SearchRecord) -> Finding | None:
    """What was found last: after the most trials."""
    found = [_shaped(each, Finding) for each in _manifests("findings", search.name)]
    own = [each for each in found if each is not None and each.search == search.key]
    return max(own, key=lambda each: (each.trials, len(each.fresh)), default=None)


def kept_fits() -> set[str]:
    """The digests of fits whose weights stay: those of each search's best trials."""
    kept = set()
    for search in searches():
        outcomes = outcomes_of(search)
        best = best_of(results_of(outcomes))[:KEPT_TRIALS]
        kept |= {outcomes[number].fit for number in best}
    return kept - {""}


def _manifests(kind: Kind, name: str | None = None) -> Iterator[Artifact]:
    """The readable manifests of a kind, and of a name."""
    for folder in folders(kind):
        if name is None or folder.parent.name == name:
            yield from _readable(folder)


def _readable(folder: Path) -> Iterator[Artifact]:
    try:
        yield read_manifest(folder)
    except (OSError, ValueError):
        return


def _writing(record: Any) -> Callable[[Path], Any]:
    """Makes an artifact of a record, as a file besides: by its content the artifact is known."""

    def make(folder: Path) -> Any:
        write_json(folder / "record.json", record)
        return record

    return make


def _known(artifact: Artifact, kind: type[Record]) -> Record:
    made: Record = shaped(artifact.record, kind, str(artifact.folder))
    return made


def _shaped(artifact: Artifact, kind: type[Record]) -> Record | None:
    try:
        return _known(artifact, kind)
    except DamagedRecord:
        return None
