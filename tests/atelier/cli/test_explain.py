import copy
from pathlib import Path

import pytest

from atelier.__main__ import main
from tasks.store.steps import recorded

PARTS = {"settings": {"fit": {"steps": 900}}, "inputs": ["abc"], "code": {"models.vae.model": "1"}}


@pytest.fixture
def changed() -> dict[str, object]:
    parts = copy.deepcopy(PARTS)
    parts["settings"]["fit"]["steps"] = 1500  # type: ignore[index]
    parts["code"]["models.vae.model"] = "2"  # type: ignore[index]
    return parts


def test_what_changed_since_the_time_before_is_told(
    atelier_home: Path, changed: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded("digits-vae", PARTS):
        pass
    with recorded("digits-vae", changed):
        pass

    assert main(["explain", "digits-vae"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert told[0].split()[0] == "digits-vae"
    assert "made" in told[0]
    assert told[-2:] == ["  code.models.vae.model: edited", "  settings.fit.steps: 1500, was 900"]


def test_an_unchanged_step_says_so_with_its_reasons(
    atelier_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded("digits-vae", PARTS):
        pass
    with recorded("digits-vae", PARTS) as record:
        record.state = "unchanged"
        record.reasons.append("unchanged, trained before in 30 s")

    assert main(["explain", "digits-vae"]) == 0
    told = capsys.readouterr().out
    assert "  unchanged, trained before in 30 s\n" in told
    assert told.endswith(": the same all 2 times\n")


def test_going_back_to_older_settings_is_a_change(
    atelier_home: Path, changed: dict[str, object], capsys: pytest.CaptureFixture[str]
) -> None:
    for parts in (PARTS, changed, PARTS, PARTS):
        with recorded("digits-vae", parts):
            pass

    assert main(["explain", "digits-vae"]) == 0
    told = capsys.readouterr().out.splitlines()
    assert "as in the previous run" in told[-3]
    assert told[-1] == "  settings.fit.steps: 900, was 1500"


def test_a_new_step_has_nothing_before_it(
    atelier_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded("digits-vae", PARTS):
        pass

    assert main(["explain", "digits-vae"]) == 0
    assert "the first time" in capsys.readouterr().out


def test_without_a_name_all_steps_are_listed(
    atelier_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for step in ("digits-vae", "pydocs-gpt"):
        with recorded(step, PARTS):
            pass

    assert main(["explain"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == ["step", "digits-vae", "pydocs-gpt"]


def test_an_unknown_step_is_refused_with_the_known_ones(
    atelier_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with recorded("digits-vae", PARTS):
        pass

    assert main(["explain", "digits-va"]) == 2
    assert "there are: digits-vae" in capsys.readouterr().err
