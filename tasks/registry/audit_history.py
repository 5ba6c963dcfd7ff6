"""What the entries of an audit log say: who is champion, what a person left, what is unsettled.

Functions of the entries that `tasks.registry.audit_log` reads; only `lasting_contents` reads by
itself, the logs of all models.
"""

from collections.abc import Mapping, Sequence

from tasks.registry.audit_log import Entry, entries_of
from tasks.registry.log_storage import known_models

_NEW_LOGS = ("begin", "join")
"""What a log goes on with, of one that gave way to it."""


def unsettled(entries: list[Entry]) -> Entry | None:
    """The intent whose outcome is not known, if there is one."""
    settled = {entry.settles for entry in entries}
    waiting = [e for e in entries if e.kind == "intent" and e.number not in settled]
    return waiting[-1] if waiting else None


def moves(entries: list[Entry]) -> list[Entry]:
    """What happened, oldest first: moves that took effect, and refusals."""
    done = {entry.settles for entry in entries if entry.kind == "done"}
    return [
        entry
        for entry in entries
        if entry.kind in ("refused", "outside") or (entry.kind == "intent" and entry.number in done)
    ]


def told(entries: list[Entry]) -> list[Entry]:
    """What a reader of the history wants to know: moves, refusals, and repairs of the records.

    Not that versions were removed which were never champion: that happens every night.
    """
    shown = {entry.number for entry in moves(entries)}
    return [
        entry
        for entry in entries
        if entry.number in shown
        or entry.action == "adopt"
        or (entry.kind == "repair" and entry.action != "prune")
    ]


def live_versions(entries: Sequence[Entry]) -> dict[int, str]:
    """The versions that the registry must have by the log, and the content digest of each."""
    found: dict[int, str] = {}
    for entry in entries:
        found |= contents_by_number([entry])
        for number in entry.evidence.get("gone", ()):
            found.pop(number, None)
    return found


def pruned_versions(entries: Sequence[Entry]) -> set[int]:
    """The versions that housekeeping removed, or was about to remove when it was killed."""
    pruned = {n for e in entries if e.action == "prune" for n in e.evidence.get("gone", ())}
    return pruned - live_versions(entries).keys()


def champion_by(entries: list[Entry]) -> int | None:
    """The version that the last move made champion."""
    champions = [entry.to_version for entry in moves(entries) if entry.kind != "refused"]
    return champions[-1] if champions else None


def lasting_versions(entries: list[Entry]) -> set[int]:
    """The versions that were champion, and those that a person named: kept as long as the log.

    One that the gate refused is not among them.
    """
    kept = [e for e in moves(entries) if e.kind != "refused" or e.action == "decline"]
    return {v for entry in kept for v in (entry.from_version, entry.to_version) if v is not None}


def lasting_contents() -> set[str]:
    """The content digests of all versions that were champion, or that a person named."""
    found = set()
    for model in known_models(is_sure=True):
        entries = entries_of(model)
        lasting = lasting_versions(entries)
        told = [entry for entry in entries if entry.to_version in lasting]
        found |= {e.digests["content"] for e in told if e.digests.get("content")}
    return found


def refusals_by_champion(entries: list[Entry]) -> list[Entry]:
    """What was refused since the champion last changed, oldest first."""
    refusals: list[Entry] = []
    for entry in reversed(moves(entries)):
        if entry.kind != "refused":
            break
        refusals.insert(0, entry)
    return refusals


def contents_by_number(entries: Sequence[Entry]) -> dict[int, str]:
    """The content digest of each version, as the log last told it."""
    return {
        entry.to_version: entry.digests["content"]
        for entry in entries
        if entry.to_version is not None and entry.digests.get("content")
    }


def withdrawal_reason(
    entries: list[Entry], content: str, elsewhere: Mapping[int, str] | None = None
) -> str:
    """Why a person left or declined a content, unless it was made champion again; or nothing.

    A move without this program counts as a person's, whoever made it: what lost the name there
    shall not take it back by itself. What was lost with its database was not left by anybody, and
    what an older database names champion again was not made champion by anybody, until a person
    accepts it; one who restores the log's champion instead has left nothing.
    Versions are told apart by content: after a loss their numbers begin again.
    elsewhere: the contents of versions, by number, of which the log never told.
    """
    contents, why = dict(elsewhere or {}), ""
    is_lost, named_by_loss = False, None
    taking_effect = {(entry.number, entry.kind) for entry in moves(entries)}
    for entry in entries:
        left = contents.get(entry.from_version or 0)
        contents |= contents_by_number([entry])
        if (entry.number, entry.kind) not in taking_effect:
            if entry.action in _NEW_LOGS:
                why = entry.evidence.get("withdrawn", {}).get(content, why)
            if entry.action == "accept" and is_lost and named_by_loss == content:
                why = ""
            continue
        arrived = contents.get(entry.to_version or 0)
        if entry.action == "lost":
            is_lost, named_by_loss = True, arrived
            continue
        if entry.kind != "refused" and arrived == content:
            why = ""
        by_hand = entry.action in ("rollback", "override", "outside") or (
            entry.action == "restore" and not is_lost
        )
        is_lost = is_lost and entry.kind == "refused"
        if by_hand and left == content and arrived != content:
            why = entry.why
        if entry.action == "decline" and arrived == content:
            why = entry.why
    return why


def withdrawn_contents(entries: list[Entry]) -> dict[str, str]:
    """All contents that persons left or declined, and why."""
    begun = [entry.evidence.get("withdrawn", {}) for entry in entries if entry.action in _NEW_LOGS]
    contents = {*contents_by_number(entries).values(), *(c for each in begun for c in each)}
    contents |= {e.digests["content"] for e in entries if e.digests.get("content")}
    found = {content: withdrawal_reason(entries, content) for content in contents}
    return {content: why for content, why in found.items() if why}


def answered(entries: list[Entry]) -> list[Entry]:
    """The entries up to the last decision of this program or of a person."""
    for index in range(len(entries), 0, -1):
        last = entries[index - 1]
        gave_up = last.kind == "outside" and last.action == "discard"  # the champion
        if last.kind == "done" or last.action in ("accept", "begin") or gave_up:
            return entries[:index]
    return []


def last_move_without_us(entries: list[Entry]) -> Entry | None:
    """A move that this program did not make, or a loss, if nobody has answered it since."""
    later = entries[len(answered(entries)) :]
    found = [e for e in later if e.kind == "outside" and e.action in ("outside", "lost")]
    return found[-1] if found else None


def registrations(entries: Sequence[Entry]) -> dict[int, Entry]:
    """The entry that tells what the package of each version is; the latest, for a number again."""
    return {e.to_version: e for e in entries if e.kind == "registered" and e.to_version is not None}


def registration_of(entries: Sequence[Entry], number: int) -> Entry | None:
    """The entry that tells what the package of a version is."""
    return registrations(entries).get(number)
