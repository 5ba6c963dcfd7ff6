"""The ways out of a disagreement between audit log and registry; each writes to the log.

None is gone unless a person names it.
"""

from tasks import audit, ledger
from tasks.disagreements import WAYS, all_models
from tasks.model_card import FAMILIES
from tasks.package_files import digest_of_files
from tasks.promotion import move_back, reconcile
from tasks.registration import (
    RegisteredVersion,
    champion_of,
    contents_of,
    note_package,
    version_numbered,
    versions_of,
)
from tasks.storage import BadInput, exclusive
from tasks.tracking import client, outages_named
from tasks.verification import PACKAGE_TAG, unlisted_files


def repair(name: str, way: str) -> str:
    """Go one of WAYS for a model; returns what was done, in a line. Raises BadInput."""
    what, _, text = way.partition(":")
    number = int(text) if text.isdigit() else None
    if what not in WAYS or (text and (number is None or what not in ("adopt", "discard"))):
        raise BadInput(
            f"no way is called {way!r}; there are: {', '.join(WAYS)}, adopt:N, discard:N"
        )
    if name not in (known := all_models()):
        raise BadInput(f"no model is named {name!r}; there are: {', '.join(known) or 'none'}")
    with outages_named(), exclusive(f"registry-{name}"):
        if what == "begin":
            return _begin(name)
        if what == "accept":
            return _accept(name)
        if what == "restore":
            return _restore(name)
        return _adopt(name, number) if what == "adopt" else _discard(name, number)


def _begin(name: str) -> str:
    """A new log: the old one is kept aside, and what was withdrawn stays withdrawn."""
    withdrawn = ledger.withdrawn_contents(ledger.readable_entries(name))
    aside = ledger.set_aside(name)
    tags = audit.model_tags(name) or {}
    kept = f"the one before is kept as {aside.name}" if aside else "the one before is not here"
    ledger.append(
        name,
        "repair",
        action="begin",
        why=f"a new log by hand; {kept}",
        evidence={"withdrawn": withdrawn, "anchors": sorted(audit.anchors(tags))},
    )
    champion = champion_of(name)
    if champion is not None:
        ledger.append(
            name,
            "outside",
            action="accept",
            to_version=int(champion.version),
            why="taken over from the registry with the new log",
            digests={"content": champion.tags.get("content_digest", "")},
        )
    audit.anchor(name)
    return f"{name}: a new audit log begins; {kept}"


def _accept(name: str) -> str:
    reconcile(name)
    entries, contents = ledger.entries_of(name), contents_of(name)
    live = ledger.live_versions(entries)
    gone = sorted(number for number, content in live.items() if contents.get(number) != content)
    anchors = audit.anchors(audit.model_tags(name) or {})
    others = sorted(anchors.keys() - {ledger.read(name).name})
    why = "the registry was taken as it is, by hand"
    audit.append(
        name, "repair", action="accept", why=why, evidence={"gone": gone, "anchors": others}
    )
    return f"{name}: the audit log says now what the registry says"


def _restore(name: str) -> str:
    reconcile(name)
    entries = ledger.entries_of(name)
    if (audit.model_tags(name) or {}).get("family") not in FAMILIES:
        return _restore_family(name)
    last = ledger.last_move_without_us(entries)
    if last is None:
        raise BadInput(f"{name}: the audit log and the registry name the same champion")
    before = ledger.champion_by(ledger.answered(entries))
    target = None if before is None else version_numbered(name, before)
    told = ledger.contents_by_number(entries).get(before or 0)
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
    audit.append(name, "repair", action="restore", why=f"its tag family is {family} again, by hand")
    return f"{name}: its tag family is {family} again"


def _adopt(name: str, number: int | None) -> str:
    """Keep the digests of versions whose files are what their tags and the log say."""
    reconcile(name)
    entries = ledger.entries_of(name)
    told = ledger.contents_by_number(entries)
    versions = [
        version
        for version in versions_of(name)
        if int(version.version) == number
        or (
            number is None
            and ledger.registration_of(entries, int(version.version)) is None
            and told.get(int(version.version)) == version.tags.get("content_digest")
        )
    ]
    if not versions:
        raise BadInput(f"{name} has no version to adopt")
    for version in versions:
        files = unlisted_files(version)
        digest = digest_of_files(files)
        client().set_model_version_tag(name, version.version, PACKAGE_TAG, digest)
        note_package(version, files, "adopt", "adopted by hand, after a look into its files")
    numbers = ", ".join(str(version.version) for version in versions)
    return f"{name}: the audit log knows the packages of {numbers} from now on"


def _discard(name: str, number: int | None) -> str:
    reconcile(name)
    champion = champion_of(name)
    target = champion if number is None else version_numbered(name, number)
    if target is None:
        raise BadInput(f"{name} has no such version to discard")
    is_champion = champion is not None and champion.version == target.version
    client().delete_model_version(name, str(target.version))
    _note_discarded(name, target, is_champion)
    return f"{name}: version {target.version} is out of the registry; its files stay in the store"


def _note_discarded(name: str, target: RegisteredVersion, is_champion: bool) -> None:
    number, why = int(target.version), "discarded by hand; its content is not withdrawn"
    if not is_champion:
        audit.note_gone(name, [number], why)
        return
    audit.append(
        name,
        "outside",
        action="discard",
        from_version=number,
        why=why,
        evidence={"gone": [number]},
    )
