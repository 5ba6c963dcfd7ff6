"""What differs between two versions of a model: what made them, and how they score on one test.

Both sides are read from the registry and the store: nothing is loaded, trained or measured here.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tasks.evaluation.result import title
from tasks.registry.version_tags import digest_tag, number_tag, record_tag, text_tag
from tasks.registry.versions import (
    CHALLENGER,
    CHAMPION,
    champion_of,
    named_version,
    project_models,
    versions_of,
)
from tasks.runtime.suggestions import did_you_mean
from tasks.store.artifacts import artifact_folder, read_manifest, step_of
from tasks.store.files import BadInput, digest_of
from tasks.store.records import DamagedRecord
from tasks.store.steps import history
from tasks.tracking.home_database import RegisteredVersion
from tasks.tracking.mlflow_client import client, outages_named
from tasks.training.provenance import TrainingProvenance

LATEST = "latest"
"""The version with the highest number."""
Section = Literal["settings", "data", "code", "libraries"]
SECTIONS: tuple[Section, ...] = ("settings", "data", "code", "libraries")


@dataclass(frozen=True, kw_only=True, slots=True)
class Side:
    """One of the two versions."""

    version: int
    aliases: tuple[str, ...]
    run_id: str
    digest: str
    """Of its content."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Change:
    """One thing that differs; an empty side does not have it."""

    section: Section
    what: str
    """Of settings, the dotted name: `vae.model.latent_size`."""
    first: str
    second: str


@dataclass(frozen=True, kw_only=True, slots=True)
class MetricPair:
    """A metric of both, as each was evaluated last; or by one evaluation, where they share one."""

    name: str
    title: str
    first: float | None
    second: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class PairedDifference:
    """The main metric on the same held-out items: below 0, the second version is the better one."""

    metric: str
    title: str
    first: float
    second: float
    difference: float
    """The second value minus the first."""
    low: float
    """The paired 95 % interval of the difference over the held-out items; seeds are not in it."""
    high: float
    num_scores: int
    are_resamples: bool
    """Whether the scores are those of resampled images, for a metric that is no mean of items."""


@dataclass(frozen=True, kw_only=True, slots=True)
class VersionComparison:
    """All that is known to differ."""

    name: str
    first: Side
    second: Side
    is_same_content: bool
    """Whether both hold the same weights and settings."""
    changes: tuple[Change, ...]
    unknown: str = field(default="")
    """Why what made them cannot be compared; empty where it can."""
    metrics: tuple[MetricPair, ...]
    paired: PairedDifference | None
    unpaired: str = field(default="")
    """Why there is no paired difference, and how to get one; empty where there is one."""


def compare_versions(name: str, first: str = "", second: str = "") -> VersionComparison:
    """Compare two versions of a model, by their numbers or aliases, or `latest`.

    first: by default the champion; second: by default the challenger, or where there is none, the
    latest version. Where one is given, the champion is compared with it. Raises BadInput for what
    is not there.
    """
    with outages_named():
        if name not in (known := project_models()):
            raise BadInput(f"no model is named {name!r}{did_you_mean(name, known)}")
        one, other = _chosen(name, first, second)
        aliases: Mapping[str, str] = client().get_registered_model(name).aliases
    changes, unknown = _changes(one, other)
    pair = _common_evaluation(one, other)
    return VersionComparison(
        name=name,
        first=_side(one, aliases),
        second=_side(other, aliases),
        is_same_content=text_tag(one, "content_digest") == text_tag(other, "content_digest"),
        changes=changes,
        unknown=unknown,
        metrics=_metrics(one, other, pair),
        paired=None if pair is None else _paired(*pair),
        unpaired="" if pair is not None else _why_unpaired(one, other),
    )


def _chosen(name: str, first: str, second: str) -> tuple[RegisteredVersion, RegisteredVersion]:
    if first and second:
        one, other = _version(name, first), _version(name, second)
    elif first:
        one, other = _version(name, CHAMPION), _version(name, first)
    else:
        one = _version(name, CHAMPION) if champion_of(name) else _version(name, LATEST)
        other = named_version(name, CHALLENGER) or _version(name, LATEST)
        if one.version == other.version:
            other = _before(name, one.version)
            one, other = other, one
    if one.version == other.version:
        raise BadInput(f"{name}: version {one.version} is on both sides; name two versions")
    return one, other


def _version(name: str, which: str) -> RegisteredVersion:
    complete = versions_of(name)
    found = complete[-1] if which == LATEST and complete else named_version(name, which)
    if found is None:
        numbers = ", ".join(str(each.version) for each in complete) or "none"
        raise BadInput(f"{name} has no version {which!r}; there are: {numbers}")
    return found


def _before(name: str, number: int) -> RegisteredVersion:
    """The version before one, where that is both champion and the latest."""
    earlier = [each for each in versions_of(name) if each.version < number]
    if not earlier:
        raise BadInput(f"{name} has one version, and two are compared; train another first")
    return earlier[-1]


def _side(version: RegisteredVersion, aliases: Mapping[str, str]) -> Side:
    number = version.version
    return Side(
        version=number,
        aliases=tuple(sorted(alias for alias, n in aliases.items() if int(n) == number)),
        run_id=version.run_id,
        digest=text_tag(version, "content_digest"),
    )


# What made them ------------------------------------------------------------------------------


def _changes(one: RegisteredVersion, other: RegisteredVersion) -> tuple[tuple[Change, ...], str]:
    """What differs in how they were made, and why that is not known, where it is not."""
    records = []
    for version in (one, other):
        if "recipe" not in version.tags:
            return (), f"version {version.version} has no record of how it was made"
        try:
            records.append(record_tag(version, "recipe", TrainingProvenance))
        except DamagedRecord as error:
            return (), str(error)
    first, second = records
    parts = {
        "settings": (settings_by_name(first), settings_by_name(second)),
        "data": (_data(first), _data(second)),
        "code": (_code(first), _code(second)),
        "libraries": (_libraries(first), _libraries(second)),
    }
    return tuple(
        Change(section=section, what=what, first=before.get(what, ""), second=after.get(what, ""))
        for section in SECTIONS
        for before, after in [parts[section]]
        for what in sorted({*before, *after})
        if before.get(what) != after.get(what)
    ), ""


def settings_by_name(recipe: TrainingProvenance) -> dict[str, str]:
    """The settings of a record as words, by `FAMILY.GROUP.FIELD`."""
    named = {
        f"{recipe.family}.{group}.{name}": _word(value)
        for group, values in recipe.settings.items()
        for name, value in values.items()
    }
    return {
        **named,
        "preset": recipe.preset,
        "seed": str(recipe.seed),
        **({"continues": f"{recipe.continues}"} if recipe.continues else {}),
        **({"tokenizer": recipe.scheme} if recipe.scheme else {}),
        **({"vocabulary_size": str(recipe.vocabulary_size)} if recipe.vocabulary_size else {}),
    }


def _word(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_word, value))
    return "none" if value is None else str(value)


def _data(recipe: TrainingProvenance) -> dict[str, str]:
    return {
        "source": recipe.source,
        "content": recipe.data_digest[:12],
        "size": recipe.data_size,
        "image_size": _word(recipe.image_size),
        "glob": _word(recipe.glob),
    }


def _code(recipe: TrainingProvenance) -> dict[str, str]:
    """The modules that trained it, each with the beginning of its digest."""
    return {name: digest[:12] for name, digest in recipe.code.items()}


def _libraries(recipe: TrainingProvenance) -> dict[str, str]:
    return {**recipe.libraries, "device": recipe.device, "machine": recipe.machine}


# How they score ------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True, slots=True)
class _Evaluation:
    """A stored evaluation of one version."""

    setting: str
    """Digest of data, judge, code and libraries: equal ones make numbers comparable."""
    data_digest: str
    judge_digest: str
    folder: Path
    main_metric: str
    metrics: dict[str, float]


def _evaluations(version: RegisteredVersion) -> list[_Evaluation]:
    """The stored evaluations of a version, the latest first."""
    digest = text_tag(version, "content_digest")
    found: dict[str, _Evaluation] = {}
    for record in reversed(history(step_of("evaluations", version.name))):
        if record.key in found or record.parts.get("model") != digest:
            continue
        folder = artifact_folder("evaluations", version.name, record.key)
        compared = {part: value for part, value in record.parts.items() if part != "model"}
        data, judge = (*compared.get("inputs", []), "", "")[:2]
        try:
            kept = read_manifest(folder).record
            found[record.key] = _Evaluation(
                setting=digest_of(compared),
                data_digest=data,
                judge_digest=judge,
                folder=folder,
                main_metric=kept["main_metric"],
                metrics=kept["metrics"],
            )
        except (OSError, ValueError, LookupError):  # not made, freed or damaged
            continue
    return list(found.values())


def _common_evaluation(
    one: RegisteredVersion, other: RegisteredVersion
) -> tuple[_Evaluation, _Evaluation] | None:
    """The latest evaluations of both on the same items, by the same judge and code."""
    first = {each.setting: each for each in reversed(_evaluations(one))}
    for second in _evaluations(other):
        if second.setting in first:
            return first[second.setting], second
    return None


def _metrics(
    one: RegisteredVersion,
    other: RegisteredVersion,
    pair: tuple[_Evaluation, _Evaluation] | None,
) -> tuple[MetricPair, ...]:
    """The main one first, then all others; what real data score stands in neither."""
    if pair is not None:
        first, second = pair[0].metrics, pair[1].metrics
    else:
        first, second = told_metrics(one), told_metrics(other)
    main = [text_tag(each, "main_metric") for each in (one, other)]
    names = dict.fromkeys([*main, *first, *second])
    return tuple(
        MetricPair(name=name, title=title(name), first=first.get(name), second=second.get(name))
        for name in names
        if not name.startswith("floor_")
    )


def told_metrics(version: RegisteredVersion) -> dict[str, float]:
    """As its tags tell its last evaluation."""
    told = {text_tag(version, "main_metric"): number_tag(version, "main_value")}
    if "metrics" in version.tags:
        with suppress(DamagedRecord):  # the main value has a tag of its own
            told |= record_tag(version, "metrics", dict[str, float])
    return told


def _paired(first: _Evaluation, second: _Evaluation) -> PairedDifference:
    # They import PyTorch and SciPy, which are not needed where nothing pairs.
    from tasks.evaluation.cache import scores_in
    from tasks.registry.promotion_policy import difference_bounds

    metric = second.main_metric
    before, after = first.metrics[metric], second.metrics[metric]
    theirs, are_resamples = scores_in(first.folder)
    ours, _ = scores_in(second.folder)
    low, high = difference_bounds(ours, theirs, are_resamples, after - before, confidence=0.975)
    return PairedDifference(
        metric=metric,
        title=title(metric),
        first=before,
        second=after,
        difference=after - before,
        low=low,
        high=high,
        num_scores=len(ours),
        are_resamples=are_resamples,
    )


def _why_unpaired(one: RegisteredVersion, other: RegisteredVersion) -> str:
    """Why nothing pairs, and what to do."""
    first, second = f"{one.name}/{one.version}", f"{other.name}/{other.version}"
    both = f"`atelier step evaluate {first}` and `atelier step evaluate {second}`"
    of_one, of_other = _evaluations(one), _evaluations(other)
    lost = [str(v.version) for v, found in ((one, of_one), (other, of_other)) if not found]
    if digest_tag(one, "data") != digest_tag(other, "data"):
        return (
            "they were evaluated on other data; to measure the older one on the data of the newer:"
            f" {_on_the_newer(one, other)}"
        )
    if lost:
        return (
            f"no evaluation of version {' and '.join(lost)} is stored in this home any more; to"
            f" measure again: {both}"
        )
    is_same_judge = digest_tag(one, "judge") == digest_tag(other, "judge")
    by = "code or libraries" if is_same_judge else "judges"
    return f"they were evaluated by different {by}; to measure both as today: {both}"


def _on_the_newer(one: RegisteredVersion, other: RegisteredVersion) -> str:
    older, newer = sorted((one, other), key=lambda version: version.version)
    evaluate = f"atelier step evaluate {one.name}"
    return (
        f"`{evaluate}/{older.version} --data-of {newer.version}` and `{evaluate}/{newer.version}`"
    )
