"""Which playgrounds of a home run: those that were ended, killed, or run elsewhere are none."""

from dataclasses import asdict
from pathlib import Path

import pytest

from atelier.services import playgrounds
from atelier.services.playgrounds import Playground
from tasks.runtime.processes import this_process
from tasks.store.files import write_json


def test_one_is_known_while_it_runs_and_the_latest_comes_first(atelier_home: Path) -> None:
    assert playgrounds.running() == []
    with playgrounds.noted(5050) as first:
        assert first.url == "http://127.0.0.1:5050"
        with playgrounds.noted(40123) as second:
            assert playgrounds.running() == [second, first]
        assert playgrounds.running() == [first]
    assert playgrounds.running() == []


def test_one_that_ends_by_an_error_is_known_no_more(atelier_home: Path) -> None:
    with pytest.raises(KeyboardInterrupt), playgrounds.noted(5050):
        raise KeyboardInterrupt
    assert playgrounds.running() == []


def test_the_killed_and_those_elsewhere_are_left_out(atelier_home: Path) -> None:
    host, pid, mark = this_process().rsplit(":", 2)
    boot, namespace, ticks = mark.split(".")
    killed = f"{host}:{pid}:{boot}.{namespace}.{int(ticks) - 1}"
    elsewhere = f"another-{this_process()}"
    records = [Playground(process, 5050) for process in (killed, elsewhere)]
    write_json(playgrounds.record_path(), [asdict(each) for each in records])

    with playgrounds.noted(40123) as alive:
        assert playgrounds.running() == [alive]
        told = playgrounds.record_path().read_text()

    assert "another-" in told  # whether that one lives nobody here can look
    assert killed not in told


@pytest.mark.parametrize("content", ["", "{", '[{"port": 1}]', '{"process": 1}'])
def test_a_damaged_record_counts_as_none_and_is_kept_aside(
    content: str, atelier_home: Path
) -> None:
    atelier_home.mkdir()
    playgrounds.record_path().write_text(content)

    with playgrounds.noted(5050) as alive:
        assert playgrounds.running() == [alive]

    assert len(list(atelier_home.glob("playgrounds.json.damaged-*"))) == 1
