import dataclasses

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from models.metrics.classifier import Classifier, ClassifierConfig, make_optimizer, shifted
from models.metrics.images import frechet_distance
from models.training.batches import ImageBatches
from models.training.config import FitConfig
from models.training.loops import likelihood_steps

QUICK = FitConfig(steps=250, batch_size=64, learning_rate=3e-3, weight_decay=0.01)


def digits():
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    images = np.round(data.images * 255 / 16).astype(np.uint8)[order, None]
    return torch.tensor(images), torch.tensor(data.target[order])


def fitted(images, labels, fit):
    torch.manual_seed(fit.seed)
    model = Classifier(ClassifierConfig())
    batches = ImageBatches(images, fit.batch_size, fit.seed)

    def batch_at(step):
        return batches.at(step), labels[batches.indices_at(step)]

    for _ in likelihood_steps(model, make_optimizer(model, fit), batch_at, fit):
        pass
    return model


@pytest.fixture(scope="module")
def trained():
    images, labels = digits()
    return fitted(images[:1257], labels[:1257], QUICK)


def test_unseen_digits_are_recognised(trained):
    images, labels = digits()

    with torch.no_grad():
        predicted = trained(images[1257:].float() / 255).argmax(1)

    assert (predicted == labels[1257:]).float().mean() > 0.97


def test_features_see_every_way_of_going_wrong(trained):
    """Noise, a missing class and one picture per class each move the distance well off its floor.

    The floor is the distance of the held-out images from the training images.
    """
    images, labels = digits()
    train, test, test_labels = images[:540], images[1257:], labels[1257:]
    prototypes = torch.stack([test[test_labels == label][0] for label in range(10)])
    noise = torch.randn(test.shape, generator=torch.Generator().manual_seed(0)) * 40

    def distance(fake):
        with torch.no_grad():
            return frechet_distance(
                trained.features(train.float() / 255), trained.features(fake.float() / 255)
            )

    floor = distance(test)
    assert distance((test + noise).clamp(0, 255)) > 2 * floor
    assert distance(test[test_labels != 3]) > 2 * floor
    assert distance(prototypes[test_labels]) > 2 * floor


def test_training_repeats_bit_for_bit():
    images, labels = digits()
    few = dataclasses.replace(QUICK, steps=5)

    first, second = (fitted(images, labels, few).state_dict() for _ in range(2))

    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("channels", "height", "width"), [(1, 8, 8), (3, 8, 64), (1, 28, 28), (3, 33, 21), (3, 64, 64)]
)
def test_any_image_size_has_features_and_logits(channels, height, width):
    config = ClassifierConfig(
        channels=channels, height=height, width=width, num_classes=7, feature_size=24, base_width=4
    )
    model, images = Classifier(config), torch.rand(3, channels, height, width)

    assert model.features(images).shape == (3, 24)
    assert model(images).shape == (3, 7)
    assert model.losses((images, torch.tensor([0, 6, 2])), 0)["loss"].isfinite()


def test_features_lie_on_one_sphere(trained):
    images = torch.cat([torch.rand(5, 1, 8, 8), torch.zeros(1, 1, 8, 8), torch.ones(1, 1, 8, 8)])

    features = trained.features(images)

    torch.testing.assert_close(features.square().mean(1), torch.ones(7))


def test_features_of_an_image_do_not_depend_on_its_batch_or_the_mode(trained):
    images = torch.rand(6, 1, 8, 8)
    together = trained.eval().features(images)

    alone = trained.train().features(images[3:4])

    torch.testing.assert_close(alone[0], together[3])


def test_a_moved_image_is_a_window_of_the_padded_one():
    torch.manual_seed(0)
    image = torch.arange(2 * 9 * 7.0).reshape(1, 2, 9, 7)
    padded = np.pad(image[0].numpy(), ((0, 0), (2, 2), (2, 2)), mode="edge")
    windows = {padded[:, i : i + 9, j : j + 7].tobytes() for i in range(5) for j in range(5)}

    moved = shifted(image.repeat(400, 1, 1, 1), 2)

    assert {each.contiguous().numpy().tobytes() for each in moved} == windows
    assert torch.equal(shifted(image, 0), image)


def test_only_the_wanted_share_of_images_is_moved():
    torch.manual_seed(0)
    images = torch.rand(2000, 1, 8, 8)

    moved = (shifted(images, 2, 0.5) != images).flatten(1).any(1)

    assert moved.float().mean() == pytest.approx(0.5 * 24 / 25, abs=0.03)  # one move in 25 is none


def test_loss_starts_at_chance_and_counts_hits():
    """Before training all classes are about equally likely: log 10 nats, one hit in ten."""
    torch.manual_seed(0)
    images, labels = digits()

    terms = Classifier(ClassifierConfig()).losses((images.float() / 255, labels), 0)

    assert terms["loss"].item() == pytest.approx(np.log(10), abs=0.1)
    assert terms["accuracy"].item() < 0.3


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("channels", 2, r"channels must be 1 \(grey\) or 3 \(colour\), got 2"),
        ("height", 65, "height must be 8 to 64 pixels, got 65"),
        ("num_classes", 1, "num_classes must be at least 2"),
        ("feature_size", 0, "feature_size must be at least 1, got 0"),
        ("augment_shift", 5, "augment_shift must be 0 to 4 pixels, got 5"),
        ("label_smoothing", 1.0, r"label_smoothing must lie in \[0, 1\), got 1.0"),
    ],
)
def test_contradictions_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        ClassifierConfig(**{field: value})
