"""How long things are kept, and when a person is told: settings, read from the environment."""

import os

from tasks.store.files import BadInput

KEEP_DAYS_VARIABLE = "ATELIER_KEEP_DAYS"
"""For how many days runs are kept that nothing refers to, in MLflow and in Prefect."""
KEEP_VERSIONS_VARIABLE = "ATELIER_KEEP_VERSIONS"
"""How many versions of a model are kept that were never champion, and that no person named."""

REFUSALS_VARIABLE = "ATELIER_TELL_AFTER_REFUSALS"
"""After how many refused versions in a row a person is told."""

_DEFAULTS = {KEEP_DAYS_VARIABLE: 30, KEEP_VERSIONS_VARIABLE: 10, REFUSALS_VARIABLE: 5}


def days_to_keep() -> int:
    """$ATELIER_KEEP_DAYS, by default 30; raises BadInput for what is no whole number above 0."""
    return _positive(KEEP_DAYS_VARIABLE)


def versions_to_keep() -> int:
    """$ATELIER_KEEP_VERSIONS, by default 10; raises BadInput as `days_to_keep` does."""
    return _positive(KEEP_VERSIONS_VARIABLE)


def refusals_before_alert() -> int:
    """$ATELIER_TELL_AFTER_REFUSALS, by default 5; raises BadInput as `days_to_keep` does."""
    return _positive(REFUSALS_VARIABLE)


def _positive(variable: str) -> int:
    text = os.environ.get(variable, "").strip()
    if not text:
        return _DEFAULTS[variable]
    if not (text.isascii() and text.isdecimal() and 0 < int(text) <= 36_500):
        raise BadInput(f"{variable}={text}: wanted a whole number from 1 to 36500")
    return int(text)
