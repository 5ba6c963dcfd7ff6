"""The ways out of a disagreement between audit log and registry; each writes to the log.

None is gone unless a person names it.
"""

from tasks.families.table import FAMILIES
from tasks.packaging.files import digest_of_files
from tasks.registry import audit_anchor, audit_history, audit_log
from tasks.registry.consistency import WAYS, all_models
from tasks.registry.promotion import by_hand, move_back, reconcile
from tasks.registry.registration import note_package
from tasks.registry.verification import PACKAGE_TAG, unlisted_files
from tasks.registry.version_tags import whole
from tasks.registry.versions import (
    champion_of,
    contents_of,
    get_version,
    versions_of,
)
from tasks.runtime.suggestions import did_you_mean
from tasks.store.files import BadInput, keep_aside
from tasks.tracking.home_database import RegisteredVersion
from tasks.tracking.mlflow_client import client


def repair(name: str, way: str) -> str:
    """Go one of WAYS for a model; returns what was done, in a line. Raises BadInput."""
    what, _, text = way.partition(":")
    number = whole(text)
    if what not in WAYS or (text and (number is None or what not in ("adopt", "discard"))):
        raise BadInput(
            f"no way is called {way!r}; there are: {', '.join(WAYS)}, adopt:N, discard:N"
        )
    if name not in (known := all_models()):
        raise BadInput(f"no model is named {name!r}{did_you_mean(name, known)}")
    ways = {"begin": _begin, "accept": _accept, "restore": _restore, "join": _join}
    with by_hand(name):
        if what in ways:
            return ways[what](name)
        return _adopt(name, number) if what == "adopt" else _discard(name, number)


def _begin(name: str) -> str:
    """A new log: the old one is kept aside, and what was withdrawn stays withdrawn."""
    withdrawn = audit_history.withdrawn_contents(audit_log.readable_entries(name))
    aside = audit_log.set_aside(name)
    tags = audit_anchor.model_tags(name) or {}
    kept = f"the one before is kept as {aside}" if aside else "the one before is not here"
    audit_log.begin_anew(
        name,
        "repair",
        action="begin",
        why=f"a new log by hand; {kept}",
        evidence={"withdrawn": withdrawn, "anchors": sorted(audit_anchor.anchors(tags))},
    )
    champion = champion_of(name)
    if champion is not None:
        audit_log.append(
            name,
            "outside",
            action="accept",
            to_version=champion.version,
            why="taken over from the registry with the new log",
            digests={"content": champion.tags.get("content_digest", "")},
        )
    audit_anchor.anchor(name, begins=True)
    return f"{name}: a new audit log begins; {kept}"


def _join(name: str) -> str:
    """Give up the log that this home had before it shared a store; it is kept under another name.

    What persons withdrew by it goes on. Versions that only it tells of are to be adopted.
    """
    own = audit_log.own_log(name)
    if not audit_log.lines_of_its_own(name):
        raise BadInput(f"{name}: this home has no audit log of its own beside the shared one")
    reconcile(name)
    withdrawn = audit_history.withdrawn_contents(list(own.entries))
    audit_anchor.append(
        name,
        "repair",
        action="join",
        why=f"a home's own log of {len(own.entries)} lines gave way to this one, by hand",
        evidence={"withdrawn": withdrawn, "anchors": [own.name]},
    )
    aside = keep_aside(audit_log.log_path(name))
    return f"{name}: the shared audit log counts; this home's own one is kept as {aside.name}"


def _accept(name: str) -> str:
    reconcile(name)
    entries, contents = audit_log.entries_of(name), contents_of(name)
    live = audit_history.live_versions(entries)
    gone = sorted(number for number, content in live.items() if contents.get(number) != content)
    anchors = audit_anchor.anchors(audit_anchor.model_tags(name) or {})
    others = sorted(anchors.keys() - {audit_log.read(name).name})
    why = "the registry was taken as it is, by hand"
    audit_anchor.append(
        name, "repair", action="accept", why=why, evidence={"gone": gone, "anchors": others}
    )
    return f"{name}: the audit log says now what the registry says"


def _restore(name: str) -> str:
    reconcile(name)
    entries = audit_log.entries_of(name)
    if (audit_anchor.model_tags(name) or {}).get("family") not in FAMILIES:
        return _restore_family(name)
    last = audit_history.last_move_without_us(entries)
    if last is None:
        raise BadInput(f"{name}: the audit log and the registry name the same champion")
    before = audit_history.champion_by(audit_history.answered(entries))
    target = None if before is None else get_version(name, before)
    told = audit_history.contents_by_number(entries).get(before or 0)
    if target is None or target.tags.get("content_digest") != told:
        raise BadInput(f"{name}: the registry does not have the champion of the log, {before}")
    move_back(target, "restored by hand after a move without this program")
    return f"{name}: version {before} is champion again"


def _restore_family(name: str) -> str:
    """Every name of ours ends in its family."""
    family = name.rpartition("-")[2]
    if family not in FAMILIES:
        raise BadInput(
            f"{name} is no model of ours: its name ends in none of {', '.join(FAMILIES)}"
        )
    client().set_registered_model_tag(name, "family", family)
    audit_anchor.append(
        name, "repair", action="restore", why=f"its tag family is {family} again, by hand"
    )
    return f"{name}: its tag family is {family} again"


def _adopt(name: str, number: int | None) -> str:
    """Keep the digests of versions whose files are what their tags and the log say."""
    reconcile(name)
    entries = audit_log.entries_of(name)
    told = audit_history.contents_by_number(entries)
    versions = [
        version
        for version in versions_of(name)
        if version.version == number
        or (
            number is None
            and audit_history.registration_of(entries, version.version) is None
            and told.get(version.version) == version.tags.get("content_digest")
        )
    ]
    if not versions:
        raise BadInput(f"{name} has no version to adopt")
    for version in versions:
        files = unlisted_files(version)
        digest = digest_of_files(files)
        client().set_model_version_tag(name, str(version.version), PACKAGE_TAG, digest)
        note_package(version, files, "adopt", "adopted by hand, after a look into its files")
    numbers = ", ".join(str(version.version) for version in versions)
    return f"{name}: the audit log knows the packages of {numbers} from now on"


def _discard(name: str, number: int | None) -> str:
    reconcile(name)
    champion = champion_of(name)
    target = champion if number is None else get_version(name, number)
    if target is None:
        raise BadInput(f"{name} has no such version to discard")
    is_champion = champion is not None and champion.version == target.version
    # The log first: a champion that vanished without a word would count as left by a person.
    _note_discarded(name, target, is_champion)
    client().delete_model_version(name, str(target.version))
    return f"{name}: version {target.version} is out of the registry; its files stay in the store"


def _note_discarded(name: str, target: RegisteredVersion, is_champion: bool) -> None:
    number, why = target.version, "discarded by hand; its content is not withdrawn"
    if not is_champion:
        audit_anchor.note_gone(name, [number], why)
        return
    audit_anchor.append(
        name,
        "outside",
        action="discard",
        from_version=number,
        why=why,
        evidence={"gone": [number]},
    )
