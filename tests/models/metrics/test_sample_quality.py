import numpy as np
import pytest
import torch
from torch import nn

from models.metrics.classifier import ClassifierConfig
from models.metrics.sample_quality import bytes_of, evenly_chosen, sample_quality, seen_by


class BrightHalf(nn.Module):
    """A judge whose rule is known: class 0 is brighter on the left, class 1 on the right."""

    config = ClassifierConfig(num_classes=2)

    def features(self, images: torch.Tensor) -> torch.Tensor:
        return torch.stack([images[..., :4].mean((1, 2, 3)), images[..., 4:].mean((1, 2, 3))], 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.features(images)


def halves(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images with a bright half whose brightness varies, and which half it is."""
    generator = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    pixels = np.zeros((count, 1, 8, 8), dtype=np.uint8)
    bright = generator.integers(100, 250, size=(count, 1, 8, 4))
    pixels[labels == 0, :, :, :4] = bright[labels == 0]
    pixels[labels == 1, :, :, 4:] = bright[labels == 1]
    return pixels, labels


def test_new_images_of_the_same_kind_score_as_the_real_data_does():
    train, test, drawn = halves(200, 0), halves(60, 1), halves(100, 2)

    quality = sample_quality(BrightHalf(), drawn[0], drawn[1], train, test)

    assert quality["test_class_fidelity"] == 1
    assert quality["classifier_test_accuracy"] == 1
    assert quality["test_exact_copy_rate"] == 0
    assert quality["test_classes_drawn"] == 2
    assert quality["test_within_class_variance_ratio"] == pytest.approx(1, abs=0.1)
    assert quality["test_nearest_neighbour_ratio"] == pytest.approx(1, abs=0.1)
    assert quality["test_coverage"] > 0.85
    assert quality["real_data_coverage"] > 0.85


def test_copies_of_one_class_are_found_out():
    train, test = halves(200, 0), halves(60, 1)
    copies = np.repeat(train[0][:1], 100, axis=0)

    quality = sample_quality(BrightHalf(), copies, np.arange(100) % 2, train, test)

    assert quality["test_exact_copy_rate"] == 1
    assert quality["test_class_fidelity"] == 0.5
    assert quality["test_classes_drawn"] == 1
    assert quality["test_class_entropy_nats"] == 0
    assert quality["test_coverage"] < 0.2
    assert quality["test_frechet_distance"] > 10 * quality["real_data_frechet_distance"]


def test_without_requested_classes_nothing_is_said_about_fidelity():
    quality = sample_quality(BrightHalf(), halves(60, 2)[0], None, halves(90, 0), halves(60, 1))

    assert "test_class_fidelity" not in quality
    assert "test_frechet_distance" in quality


def test_the_distance_is_taken_to_all_held_out_images_and_copies_of_the_training_set_have_none():
    train, test, validation = halves(200, 0), halves(60, 1), halves(60, 3)[0]
    judge = BrightHalf()
    seen = seen_by(judge, train[0], train[0], test[0], validation)

    quality = sample_quality(judge, train[0], None, train, test, seen)

    assert len(seen.held_out) == 120
    assert quality["test_frechet_distance"] == quality["real_data_frechet_distance"]
    assert quality["test_exact_copy_rate"] == 1
    assert quality["test_different_samples_share"] == 1


def test_a_choice_from_all_over_keeps_both_ends():
    assert evenly_chosen(10, 4).tolist() == [0, 3, 6, 9]
    assert evenly_chosen(3, 100).tolist() == [0, 1, 2]


def test_bytes_are_rounded_and_bounded():
    assert bytes_of(torch.tensor([-1.0, 0.5, 0.999, 2.0])).tolist() == [0, 128, 255, 255]
