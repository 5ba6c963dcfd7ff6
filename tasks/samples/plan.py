"""What a gallery is to show: every champion, with the seed of what it makes."""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

from prefect import task

from tasks.families.table import FAMILIES
from tasks.registry import audit_history, audit_log
from tasks.registry.version_tags import references_tag
from tasks.registry.versions import (
    champion_of,
    champions,
    project_models,
    tags_of,
)
from tasks.runtime.progress import log
from tasks.runtime.retries import NETWORKED
from tasks.runtime.suggestions import nearest
from tasks.samples.cache import shown_works, taken_over
from tasks.samples.drawing import modules
from tasks.samples.html_page import ChampionSamples
from tasks.store.files import BadInput
from tasks.store.fingerprint import cache_key
from tasks.tracking.home_database import RegisteredVersion
from tasks.tracking.mlflow_client import outages_named

SHOWN_BESIDES = 1
"""Raised where a gallery wants more of a work than earlier pages kept: champions then draw anew."""
EVERYBODYS_SEED = 0
"""With which a champion draws unless somebody asks for another: runs and schedules agree."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Piece:
    """One model's place in the gallery."""

    name: str
    family: str
    version: int
    seed: int
    key: str
    """Of what it makes: equal keys mean equal files."""
    scorecard_run_id: str
    main_metric: str
    main_value: float
    references: dict[str, float] = field(default_factory=dict)
    lost: str = ""
    """Why the registry cannot be asked for it any more; its last works are shown."""


@task(name="plan-gallery", task_run_name="look for champions", **NETWORKED)
def plan_gallery(names: Collection[str] | None, seed: int) -> list[Piece]:
    """All champions, in the order of the page.

    names: the models that are to draw with the seed; None means all. The others stay as the page
    shows them. Raises BadInput for a name that has no champion.
    A champion of the audit log that the registry does not know any more, as after a lost database,
    keeps its place with what it made last.
    """
    with outages_named():
        found = {name: champion_of(name) for name in champions()}
    present = {name: version for name, version in found.items() if version is not None}
    check_names(names or (), present)
    shown = shown_works()
    pieces = []
    for name, version in present.items():
        before = shown.get(name)
        is_asked = not names or name in names
        is_same = before is not None and before.version == version.version
        own = before.seed if is_same and before is not None else EVERYBODYS_SEED
        pieces.append(_piece(version, seed if is_asked else own))
    known = project_models()  # one that is known and has no champion has lost it on purpose
    gone = [work for name, work in shown.items() if name not in present and name not in known]
    return pieces + [_lost(work) for work in gone if _is_missed(work)]


def check_names(names: Collection[str], known: Collection[str]) -> None:
    """Raise BadInput unless every name is a known champion's; near ones are suggested."""
    unknown = sorted(set(names) - set(known))
    if not unknown:
        return
    there = ", ".join(sorted(known)) or "none yet: train some with `atelier run`"
    near = nearest(unknown[0], known)
    hint = f" (did you mean {near}?)" if near else ""
    if unknown[0] in project_models():
        hint = f" (there is such a model: `atelier history {unknown[0]}` tells why it has none)"
    raise BadInput(f"no champion named {', '.join(unknown)}{hint}; there are: {there}")


def kept_work(piece: Piece, folder: str) -> ChampionSamples | None:
    """What a model made for the last page, where it would make the same now, or never again."""
    work = shown_works().get(piece.name)
    if work is None or (not piece.lost and (work.key != piece.key or work.remark)):
        return None
    if piece.lost:
        return taken_over(work, folder, remark=piece.lost)
    return taken_over(
        work,
        folder,
        scorecard_run_id=piece.scorecard_run_id,
        main_metric=piece.main_metric,
        main_value=piece.main_value,
        references=piece.references,
    )


def drawn_from(piece: Piece, work: ChampionSamples) -> ChampionSamples:
    """A fresh work, with the key by which later pages know it."""
    return replace(work, key=piece.key)


def last_work(piece: Piece, folder: str, reason: str) -> ChampionSamples:
    """What stands on the page for a model that cannot draw: its last works, marked, or a remark."""
    failed = f"version {piece.version} cannot draw: {reason}"
    work = shown_works().get(piece.name)
    if work is not None and (work.pictures or work.texts):
        return taken_over(
            work, folder, remark=f"{failed}. These are its last works, of version {work.version}."
        )
    return ChampionSamples(
        name=piece.name,
        family=piece.family,
        version=piece.version,
        run_id="",
        scorecard_run_id=piece.scorecard_run_id,
        main_metric=piece.main_metric,
        main_value=piece.main_value,
        references=piece.references,
        folder=f"{folder}/{piece.name}",
        pictures=(),
        texts=(),
        differences=(),
        seed=piece.seed,
        remark=failed,
    )


def _piece(version: RegisteredVersion, seed: int) -> Piece:
    tags, number = tags_of(version), version.version
    family = tags.get("family") or version.name.rpartition("-")[2]
    content = tags.get("content_digest", "unknown")
    extras = FAMILIES[family].gallery_extras if family in FAMILIES else ()
    settings = {"seed": seed, "version": number, "comparison": tags.get("comparison", "")}
    settings["besides"] = SHOWN_BESIDES
    return Piece(
        name=version.name,
        family=family,
        version=number,
        seed=seed,
        key=cache_key(settings, [content], modules(extras), "cpu"),
        scorecard_run_id=tags.get("scorecard_run_id", ""),
        main_metric=tags.get("main_metric", ""),
        main_value=_number(tags, "main_value"),
        references=references_tag(version),
    )


def _number(tags: Mapping[str, str], name: str) -> float:
    try:
        return float(tags[name])
    except (KeyError, ValueError):
        return 0.0


def _is_missed(work: ChampionSamples) -> bool:
    """Whether the audit log still calls a model champion that the registry has lost."""
    try:
        return audit_history.champion_by(audit_log.entries_of(work.name)) is not None
    except BadInput:  # a damaged log is no reason to forget the model
        return True


def _lost(work: ChampionSamples) -> Piece:
    remark = (
        f"the registry does not know its champion any more, but the audit log does; these are the"
        f" last works, of version {work.version}"
    )
    log(f"WARNING: {work.name}: {remark}")
    return Piece(
        name=work.name,
        family=work.family,
        version=work.version,
        seed=work.seed,
        key=work.key,
        scorecard_run_id=work.scorecard_run_id,
        main_metric=work.main_metric,
        main_value=work.main_value,
        references=work.references,
        lost=remark,
    )
