"""How long things are kept and waited for: settings, read from the environment."""

import os

from tasks.store.files import BadInput

KEEP_DAYS_VARIABLE = "ATELIER_KEEP_DAYS"
"""For how many days runs are kept that nothing refers to, in MLflow and in Prefect."""
KEEP_VERSIONS_VARIABLE = "ATELIER_KEEP_VERSIONS"
"""How many versions of a model are kept that were never champion, and that no person named."""

REFUSALS_VARIABLE = "ATELIER_TELL_AFTER_REFUSALS"
"""After how many refused versions in a row a person is told."""


KEEP_SHARED_DAYS_VARIABLE = "ATELIER_KEEP_SHARED_DAYS"
"""For how many days the shared store keeps what no home refers to."""

LEASE_VARIABLE = "ATELIER_LEASE_SECONDS"
"""After how many seconds without a sign of life another machine takes over what one was making."""

CHECKPOINT_VARIABLE = "ATELIER_CHECKPOINT_SECONDS"
"""How many seconds lie between two checkpoints of a training that go to the shared store."""

_DEFAULTS = {
    **{KEEP_DAYS_VARIABLE: 30, KEEP_VERSIONS_VARIABLE: 10, REFUSALS_VARIABLE: 5},
    **{KEEP_SHARED_DAYS_VARIABLE: 90, LEASE_VARIABLE: 90, CHECKPOINT_VARIABLE: 180},
}


def days_to_keep() -> int:
    """$ATELIER_KEEP_DAYS, by default 30; raises BadInput for what is no whole number above 0."""
    return _positive(KEEP_DAYS_VARIABLE)


def versions_to_keep() -> int:
    """$ATELIER_KEEP_VERSIONS, by default 10; raises BadInput as `days_to_keep` does."""
    return _positive(KEEP_VERSIONS_VARIABLE)


def refusals_before_alert() -> int:
    """$ATELIER_TELL_AFTER_REFUSALS, by default 5; raises BadInput as `days_to_keep` does."""
    return _positive(REFUSALS_VARIABLE)


def days_to_keep_shared() -> int:
    """$ATELIER_KEEP_SHARED_DAYS, by default 90; raises BadInput as `days_to_keep` does."""
    return _positive(KEEP_SHARED_DAYS_VARIABLE)


def lease_seconds() -> int:
    """$ATELIER_LEASE_SECONDS, by default 90; raises BadInput as `days_to_keep` does."""
    return _positive(LEASE_VARIABLE)


def seconds_between_shared_checkpoints() -> int:
    """$ATELIER_CHECKPOINT_SECONDS, by default 180; raises BadInput as `days_to_keep` does."""
    return _positive(CHECKPOINT_VARIABLE)


def _positive(variable: str) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return _DEFAULTS[variable]
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 36_500):
        raise BadInput(f"{variable}={text}: wanted a whole number from 1 to 36500")
    return int(text)
