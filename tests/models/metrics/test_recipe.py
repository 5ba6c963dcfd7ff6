import pytest
import torch

from models.metrics.classifier import Classifier, make_optimizer
from models.metrics.recipe import classifier_recipe, plain_classifier_recipe
from models.presets import ImageShape
from models.training.batches import ImageBatches
from models.training.loops import likelihood_steps

SHAPES = [
    *(ImageShape(1, 8, 8, 3), ImageShape(3, 17, 30, 3)),
    *(ImageShape(3, 32, 32, 3), ImageShape(1, 64, 64, 3)),
]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_judge_trains_on_any_shape(shape: ImageShape) -> None:
    size = shape.channels, shape.height, shape.width
    batches = ImageBatches(torch.randint(256, (6, *size), dtype=torch.uint8), 6, seed=0)
    labels = torch.arange(6) % 3
    recipe = classifier_recipe(shape)
    judge = Classifier(recipe["model"])

    optimizer = make_optimizer(judge, recipe["training"])
    seen = next(
        likelihood_steps(judge, optimizer, lambda i: (batches.at(i), labels), recipe["training"])
    )

    assert 0 <= float(seen.terms["accuracy"]) <= 1


def test_the_judge_is_the_same_whatever_the_run() -> None:
    assert classifier_recipe(ImageShape(1, 8, 8, 10)) == classifier_recipe(ImageShape(1, 8, 8, 10))
    assert classifier_recipe(ImageShape(1, 8, 8, 10))["training"].seed == 0


def test_a_judge_learns_damages_always_and_pictures_apart_where_there_are_no_classes() -> None:
    labelled, unlabelled = (
        classifier_recipe(ImageShape(3, 32, 32, number))["model"] for number in (3, 0)
    )

    assert labelled.damage_weight > 0
    assert labelled.contrast_weight == 0
    assert unlabelled.damage_weight > 0
    assert unlabelled.contrast_weight > 0
    plain = plain_classifier_recipe(ImageShape(3, 32, 32, 3))["model"]
    assert plain.damage_weight == plain.contrast_weight == plain.augment_light == 0
