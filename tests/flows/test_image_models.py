"""What the flows of the image models hand to their tasks."""

from typing import Any

import pytest

from flows import image_models
from flows.image_models import train_gan, train_vae
from tasks.data.ingestion import ImageSet


class Asked(Exception):
    """A judge was asked for, with these recipes; the flow ends here."""


def judge_of(monkeypatch: pytest.MonkeyPatch, flow: Any, images: ImageSet, **settings: Any) -> Any:
    """The data and the recipe of the judge that a flow asks for."""

    def ask(data: ImageSet, *recipe: Any) -> None:
        raise Asked(data.digest, recipe[:2])

    monkeypatch.setattr(image_models, "fit_classifier", ask)
    with pytest.raises(Asked) as asked:
        flow.fn(images, **settings)
    return asked.value.args


def test_one_judge_serves_all_families_presets_and_seeds(
    images: ImageSet, tracking_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of two judges could not be compared."""
    judges = [
        judge_of(monkeypatch, flow, images, **settings)
        for flow, settings in (
            (train_vae, {"preset": "quick", "seed": 0}),
            (train_vae, {"preset": "standard", "seed": 3}),
            (train_gan, {"preset": "quick", "seed": 4}),
            (train_gan, {"preset": "full", "seed": 0, "gan_loss": "hinge"}),
        )
    ]

    assert judges[0][0] == images.digest
    assert all(judge == judges[0] for judge in judges[1:])
