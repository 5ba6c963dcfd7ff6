"""A time instead of steps: measured once, so that asked again it is the same training."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from flows.train import planned, within_seconds
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.store.files import BadInput
from tasks.training import pace
from tasks.training.pace import steps_in


def test_a_time_is_so_many_steps_and_measured_once(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[str] = []

    def seconds_per_step(_data: Any, plan: Any) -> float:
        measured.append(plan.family)
        return 0.0123

    monkeypatch.setattr(pace, "_seconds_per_step", seconds_per_step)
    plan = planned(FAMILIES["vae"], images, "quick", 0, {})

    assert steps_in.fn(images, plan, 10) == 810  # 813 to two digits
    assert steps_in.fn(images, plan, 10) == 810
    assert steps_in.fn(images, plan, 1) == 81
    assert len(measured) == 1
    longer = planned(FAMILIES["vae"], images, "quick", 0, {"vae.training.steps": 7000})
    wider = planned(FAMILIES["vae"], images, "quick", 0, {"vae.model.base_width": 8})
    # warm-ups follow from the steps, so another number of steps may be measured anew
    assert steps_in.fn(images, longer, 10) == steps_in.fn(images, wider, 10) == 810
    assert len(measured) == 3


@pytest.mark.slow
def test_the_rate_is_that_of_steps_that_were_done(images: ImageSet) -> None:
    given = {"vae.model.base_width": 4, "vae.model.hidden_size": 8, "vae.training.batch_size": 8}

    steps = steps_in.fn(images, planned(FAMILIES["vae"], images, "quick", 0, given), 60)

    assert 100 < steps < 1_000_000  # between 0.6 s and 0.06 ms a step


def test_the_first_steps_do_not_count(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(1000))
    monkeypatch.setattr(pace.time, "monotonic", lambda: float(next(now)))

    class Told:
        def numbers(self) -> dict[str, float]:
            return {}

    def steps() -> Iterator[Any]:
        while True:
            yield Told()

    assert list(pace._times(steps())) == [1.0] * 6  # and no more than five seconds


def test_a_time_sets_the_steps_of_families_that_have_some(
    images: ImageSet, tokens: TokenSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flows.train.steps_in", lambda _data, _plan, seconds: 100 * seconds)

    vae = within_seconds(FAMILIES["vae"], images, "quick", 0, {"vae.model.dropout": 0.1}, 7)
    counted = within_seconds(FAMILIES["ngram"], tokens, "quick", 0, {}, 7)

    assert vae == {"vae.model.dropout": 0.1, "vae.training.steps": 700}
    assert counted == {}
    assert within_seconds(FAMILIES["vae"], images, "quick", 0, {}, None) == {}
    with pytest.raises(BadInput, match=r"vae\.training\.steps is set to 9, and a time"):
        within_seconds(FAMILIES["vae"], images, "quick", 0, {"vae.training.steps": 9}, 7)


def test_a_training_too_short_to_be_measured_says_so(images: ImageSet) -> None:
    plan = planned(FAMILIES["vae"], images, "quick", 0, {})
    short = replace(plan.settings["training"], steps=3)

    with pytest.raises(ValueError, match="a training of 3 steps is too short"):
        pace._seconds_per_step(images, replace(plan, settings={**plan.settings, "training": short}))
