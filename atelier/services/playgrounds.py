"""Which playgrounds of this home run, and where: `playgrounds.json`.

They run in somebody's terminal, several at once perhaps, so they are no servers that `up` starts
and `down` stops.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from atelier.services import credentials
from tasks.runtime.processes import is_alive, is_elsewhere, this_process
from tasks.store.files import home, set_aside, write_json
from tasks.store.locks import file_lock
from tasks.store.records import DamagedRecord, read_record


@dataclass(frozen=True, slots=True)
class Playground:
    """A process that serves the playground's pages."""

    process: str
    """Its name: see `tasks.runtime.processes`."""
    port: int

    @property
    def url(self) -> str:
        """Its address for people."""
        return f"http://127.0.0.1:{self.port}"


def record_path() -> Path:
    """The file that tells."""
    return home() / "playgrounds.json"


def running() -> list[Playground]:
    """Those that live and can be asked from here, the latest first."""
    return [each for each in _recorded() if not is_elsewhere(each.process)]


@contextmanager
def noted(port: int) -> Iterator[Playground]:
    """Let this process be known as a playground for the time of a block."""
    mine = Playground(this_process(), port)
    with file_lock("playgrounds"):
        _record([mine, *_recorded()])
    try:
        yield mine
    finally:
        with file_lock("playgrounds"):
            _record([each for each in _recorded() if each != mine])


def how_to_log_in() -> str | None:
    """A line for people, or None where the pages ask nobody who they are."""
    found = credentials.secret(creates=False)
    if found is None:
        return None
    return f"as {found.user}, with what follows the colon in {credentials.secret_path()}"


def _recorded() -> list[Playground]:
    """Those that live, as far as can be known from here; leftovers of killed ones are dropped."""
    try:
        found = read_record(record_path(), list[Playground])
    except FileNotFoundError:
        return []
    except DamagedRecord as error:
        set_aside(record_path(), str(error))
        return []
    return [each for each in found if is_alive(each.process)]


def _record(those: list[Playground]) -> None:
    write_json(record_path(), [asdict(each) for each in those])
