"""What the one flow of all families hands to its tasks."""

from typing import Any

import pytest

from flows import train
from flows.train import train_model
from tasks.data.ingestion import ImageSet
from tasks.training.plan import TrainingPlan


class Asked(Exception):
    """A judge was asked for, with this plan; the flow ends here."""


def judge_of(
    monkeypatch: pytest.MonkeyPatch, family: str, images: ImageSet, **settings: Any
) -> tuple[str, TrainingPlan]:
    """The data and the plan of the judge that the flow asks for, before it trains anything."""

    def ask(data: ImageSet, plan: TrainingPlan, _: str) -> None:
        raise Asked(data.digest, plan)

    monkeypatch.setattr(train, "fit_model", ask)
    with pytest.raises(Asked) as asked:
        train_model.fn(family, images, **settings)
    digest, plan = asked.value.args
    return digest, plan


def test_one_judge_serves_all_families_presets_and_seeds(
    images: ImageSet, tracking_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of two judges could not be compared."""
    judges = [
        judge_of(monkeypatch, family, images, **settings)
        for family, settings in (
            ("vae", {"preset": "quick", "seed": 0}),
            ("vae", {"preset": "standard", "seed": 3}),
            ("gan", {"preset": "quick", "seed": 4}),
            ("gan", {"preset": "full", "seed": 0, "settings": {"gan.model.loss": "hinge"}}),
        )
    ]

    digest, plan = judges[0]
    assert digest == images.digest
    assert plan.family == "classifier"
    assert not plan.is_generative
    assert all(judge == judges[0] for judge in judges[1:])
