"""What the pages of a run say of an error: the message alone, where it is meant for a person.

Prefect logs every error of a run with its traceback, and an interrupt as a crash. For bad input, a
full disk or a file that is not the expected one the traceback only hides what to do.
`atelier/services/logging.yml` puts this filter before what goes to the pages.
"""

import logging

from tasks.runtime.messages import one_line
from tasks.runtime.stopping import stopped_by
from tasks.store.files import BadInput, ChecksumMismatch, DiskFull
from tasks.store.records import DamagedRecord

FOR_PEOPLE = (BadInput, ChecksumMismatch, DamagedRecord, DiskFull)
"""Errors whose message says what was wrong and what to do."""


class PlainErrors(logging.Filter):
    """Take the traceback off errors that are for people; call a stop a stop."""

    def filter(self, record: logging.LogRecord) -> bool:
        """Change a record where it must be; all go on."""
        error = record.exc_info[1] if record.exc_info else None
        if isinstance(error, FOR_PEOPLE):
            record.msg, record.args = one_line(error), ()
            record.exc_info = record.exc_text = None
        elif _calls_a_stop_a_crash(record):
            record.msg, record.args = f"stopped by {stopped_by()}", ()
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


class NoStops(logging.Filter):
    """Keep from the terminal that the engine calls a stop a crash: the command tells of it itself.

    Mostly the engine says so to a run's own logger, but to its own while the run is being opened.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Drop that one line."""
        return not _calls_a_stop_a_crash(record)


def _calls_a_stop_a_crash(record: logging.LogRecord) -> bool:
    return bool(stopped_by()) and str(record.msg).startswith("Crash detected!")
