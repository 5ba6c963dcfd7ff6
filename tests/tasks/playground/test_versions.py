"""What keeps the process of a version from starting, without a process."""

import pytest

from tasks.playground.version_process import VersionFailed, Versions
from tasks.store.files import BadInput
from tasks.store.records import DamagedRecord


@pytest.mark.parametrize(
    "error", [BadInput("no such server"), DamagedRecord("it is cut"), OSError("no room")]
)
def test_what_keeps_a_process_from_starting_is_for_a_person(error: Exception) -> None:
    def environment() -> dict[str, str]:
        raise error

    with pytest.raises(VersionFailed, match=f"tale-gpt version 2 cannot be started: {error}"):
        Versions(environment=environment).get("tale-gpt", 2)
