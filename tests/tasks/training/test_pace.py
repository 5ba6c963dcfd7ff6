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
from tasks.training.pace import Pace, pace_of, steps_in

SMALL = {"vae.model.base_width": 4, "vae.model.hidden_size": 8, "vae.training.batch_size": 8}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The families whose pace was measured: always 12.3 ms a step, and two seconds besides."""
    found: list[str] = []

    def known(_data: Any, plan: Any) -> Pace:
        found.append(plan.family)
        return Pace(seconds_per_step=0.0123, seconds_besides=2.0)

    monkeypatch.setattr(pace, "_pace", known)
    return found


def test_a_time_is_so_many_steps_and_measured_once(images: ImageSet, measured: list[str]) -> None:
    plan = planned(FAMILIES["vae"], images, "quick", 0, {})

    assert steps_in.fn(images, plan, 10) == 650  # (10 - 2) / 0.0123 to two digits
    assert steps_in.fn(images, plan, 10) == 650
    assert steps_in.fn(images, plan, 3) == 81
    assert len(measured) == 1


def test_what_decides_no_pace_is_not_measured_anew(images: ImageSet, measured: list[str]) -> None:
    """Seeds that are compared must be trained for as many steps."""
    vae = FAMILIES["vae"]
    others = [
        planned(vae, images, "quick", 7, {}),
        planned(vae, images, "quick", 0, {"vae.training.learning_rate": 0.1}),
        planned(vae, images, "quick", 0, {"vae.training.warmup_steps": 3}),
    ]
    for plan in (planned(vae, images, "quick", 0, {}), *others):
        assert steps_in.fn(images, plan, 10) == 650
    assert len(measured) == 1

    wider = planned(vae, images, "quick", 0, {"vae.model.base_width": 8})
    larger = planned(vae, images, "quick", 0, {"vae.training.batch_size": 8})
    assert steps_in.fn(images, wider, 10) == steps_in.fn(images, larger, 10) == 650
    assert len(measured) == 3


def test_other_processes_are_another_pace(images: ImageSet, measured: list[str]) -> None:
    plan = planned(FAMILIES["vae"], images, "quick", 0, {"vae.training.shards": 4})

    for processes in (1, 2, 2, 4):
        steps_in.fn(images, replace(plan, processes=processes), 10)

    assert len(measured) == 3


def test_what_steps_wait_for_is_time_besides() -> None:
    times = [0.5, *[0.01] * 57, 0.21, 0.21]  # a start, and two validations
    found = pace_of(times)
    part = pace_of([0.01, 0.01, 0.11])  # of sixty, as far as there was time

    assert len(times) == pace.NUM_TIMED_STEPS
    assert found.seconds_per_step == part.seconds_per_step == 0.01
    assert found.seconds_besides == pytest.approx(0.49 + 0.2 + 0.2)
    assert part.seconds_besides == pytest.approx(0.1 * 20)
    assert found.steps_in(10) == 910
    with pytest.raises(BadInput, match=r"0\.5 s are too short: .* about 0\.9 s here; .* least 1$"):
        found.steps_in(0.5)


@pytest.mark.slow
def test_a_short_training_is_timed_and_thrown_away(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock that ticks once for each look at it: every step takes one second."""
    now = iter(range(10_000))
    plan = planned(FAMILIES["vae"], images, "quick", 0, SMALL)
    monkeypatch.setattr(pace, "MAX_SECONDS_TIMED", 1000.0)
    monkeypatch.setattr(pace.time, "monotonic", lambda: float(next(now)))

    assert pace._pace(images, plan) == Pace(seconds_per_step=1.0, seconds_besides=0.0)
    assert next(now) == pace.NUM_TIMED_STEPS + 1


def test_slow_steps_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter(range(0, 100_000, 7))
    monkeypatch.setattr(pace.time, "monotonic", lambda: float(next(now)))

    class Told:
        def numbers(self) -> dict[str, float]:
            return {}

    def steps() -> Iterator[Any]:
        while True:
            yield Told()

    assert list(pace._times(steps())) == [7.0] * 2  # of at most twelve seconds


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


def test_the_training_that_is_measured_is_the_plans_own(
    images: ImageSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []

    class Made:
        def __init__(self, _data: Any, _device: Any, *, model: Any, training: Any) -> None:
            made.append((model, training))

        def steps(self) -> Iterator[Any]:
            return iter([])

    monkeypatch.setattr(pace, "resolve_name", lambda _: Made)
    monkeypatch.setattr(pace, "pace_of", lambda times: Pace(seconds_per_step=1, seconds_besides=0))
    plan = planned(FAMILIES["vae"], images, "quick", 3, SMALL)

    pace._pace(images, plan)

    training = replace(plan.settings["training"], steps=pace.NUM_TIMED_STEPS)
    assert made == [(plan.settings["model"], training)]
