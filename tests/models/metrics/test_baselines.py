"""A judge that cannot tell rubbish from pictures is found out, and so are samples that are rubbish.

The judge is trained on scikit-learn's digits, with labels and without.
"""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from models.metrics.baselines import MIN_RATIO, rubbish
from models.metrics.classifier import Classifier, ClassifierConfig, make_optimizer
from models.metrics.contrastive import contrast, zoomed
from models.metrics.corruptions import KINDS, damaged
from models.metrics.recipe import classifier_recipe
from models.metrics.sample_quality import features_of, sample_quality, sample_soundness, seen_by
from models.presets import ImageShape
from models.training.batches import ImageBatches
from models.training.loops import likelihood_steps

RANDOM = np.random.default_rng(5)


def digits() -> tuple[np.ndarray, np.ndarray]:
    data = load_digits()
    order = np.random.default_rng(0).permutation(len(data.target))
    return np.round(data.images * 255 / 16).astype(np.uint8)[order, None], data.target[order]


PIXELS, LABELS = digits()
TRAIN, TEST = PIXELS[:1257], PIXELS[1257:]
TEST_LABELS = LABELS[1257:]


@pytest.fixture(scope="module", params=["classes", "no labels"])
def judge(request: pytest.FixtureRequest) -> Classifier:
    shape = ImageShape(1, 8, 8, 10 if request.param == "classes" else 0)
    config, fit = classifier_recipe(shape).values()
    torch.manual_seed(0)
    model = Classifier(config)
    batches = ImageBatches(torch.from_numpy(TRAIN), fit.batch_size, 0)
    labels = torch.from_numpy(LABELS[:1257])

    def batch_at(step: int) -> tuple[torch.Tensor, torch.Tensor]:
        return batches.at(step), labels[batches.indices_at(step)]

    for _ in likelihood_steps(model, make_optimizer(model, fit), batch_at, fit):
        pass
    return model.eval()


def fault_of(judge: Classifier, drawn: np.ndarray) -> str:
    sound = sample_soundness(judge, seen_by(judge, drawn, TRAIN, TEST), TRAIN)
    assert sound.unfitness == ""
    return sound.failed_check()


@pytest.mark.slow
def test_a_trained_judge_puts_all_rubbish_far_from_real_pictures(judge):
    sound = sample_soundness(judge, seen_by(judge, TRAIN, TRAIN, TEST), TRAIN)

    assert sound.unfitness == ""
    assert set(sound.rubbish) == set(rubbish(TRAIN[:4]))
    assert min(sound.rubbish.values()) > 20 * sound.real


def test_real_pictures_that_were_held_out_are_sound(judge):
    assert fault_of(judge, TRAIN[:700]) == ""


@pytest.mark.parametrize("name", list(rubbish(PIXELS[:4])))
def test_rubbish_made_anew_is_unlike_real_pictures(judge, name):
    fault = fault_of(judge, rubbish(TRAIN[600:1200], seed=9)[name])

    assert fault.startswith("unlike real pictures: ")
    assert "(real pictures: " in fault


def test_what_no_kind_of_rubbish_names_is_found_out_too(judge):
    """Coarse checkerboards, one picture for all, few pictures over and over, one class alone."""
    rows, columns = np.mgrid[:8, :8]
    coarse = np.where((rows // 4 + columns // 4) % 2, 230, 20).astype(np.uint8)
    faulty = {
        "coarse checkerboards": np.broadcast_to(coarse, TEST.shape),
        "black": np.zeros_like(TEST),
        "one picture": np.repeat(TEST[:1], 500, axis=0),
        "three pictures": np.resize(TEST[:3], TEST.shape),
        "heavy noise on real ones": np.clip(
            TEST + RANDOM.normal(0, 100, TEST.shape), 0, 255
        ).astype(np.uint8),
    }
    for name, drawn in faulty.items():
        assert fault_of(judge, drawn).startswith("unlike real pictures: "), name


def test_less_wrong_lies_nearer_but_never_as_near_as_real_pictures(judge):
    """Noise on real pictures and a lost class move the distance, by more the more there is."""
    held_out, train = features_of(judge, TEST), features_of(judge, TRAIN)
    assert len(held_out) < len(train)
    distances = []
    for drawn in (
        PIXELS[1257:1500],
        np.clip(TEST + RANDOM.normal(0, 30, TEST.shape), 0, 255).astype(np.uint8),
        np.clip(TEST + RANDOM.normal(0, 60, TEST.shape), 0, 255).astype(np.uint8),
    ):
        distances.append(sample_soundness(judge, seen_by(judge, drawn, TRAIN, TEST), TRAIN).samples)
    assert distances[0] < distances[1] / 2 < distances[2] / 4
    one_class = TEST[TEST_LABELS == 0]
    real = sample_soundness(judge, seen_by(judge, TRAIN, TRAIN, TEST), TRAIN).real
    alone = sample_soundness(judge, seen_by(judge, one_class, TRAIN, TEST), TRAIN).samples
    assert alone > 20 * real


def test_a_judge_that_sees_nothing_but_brightness_is_unfit():
    class Brightness(torch.nn.Module):
        config = ClassifierConfig(num_classes=2)

        def features(self, images: torch.Tensor) -> torch.Tensor:
            return torch.stack([images.mean((1, 2, 3)), images.amax((1, 2, 3))], 1)

    blind = Brightness()
    unfit = sample_soundness(blind, seen_by(blind, TRAIN, TRAIN, TEST), TRAIN)

    assert unfit.unfitness.startswith("the judge is unfit: it puts pictures with shuffled ")
    assert f"wanted at least {MIN_RATIO:g} times as far" in unfit.unfitness


def test_smooth_samples_are_forgiven_where_means_are_drawn(judge):
    blurred = rubbish(TRAIN[600:1200], seed=9)["blurred pictures"]
    seen = seen_by(judge, blurred, TRAIN, TEST)

    sound = sample_soundness(judge, seen, TRAIN)

    assert "from blurred pictures" in sound.failed_check()
    assert "from blurred pictures" not in sound.failed_check(draws_means=True)
    noise = rubbish(TRAIN[600:1200], seed=9)["noise"]
    noisy = sample_soundness(judge, seen_by(judge, noise, TRAIN, TEST), TRAIN)
    assert "from noise" in noisy.failed_check(draws_means=True)


def test_repeated_pictures_are_counted(judge):
    repeated = np.resize(TEST[:5], (1000, 1, 8, 8))
    train, test = (TRAIN, LABELS[:1257]), (TEST, TEST_LABELS)

    quality = sample_quality(judge, repeated, None, train, test)

    assert quality["test_different_samples_share"] == pytest.approx(0.005)
    has_classes = judge.config.num_classes > 0
    assert ("test_classes_drawn" in quality) == has_classes
    assert ("classifier_test_accuracy" in quality) == has_classes


@pytest.mark.parametrize("shape", [(6, 1, 8, 8), (6, 3, 33, 21), (6, 3, 64, 64)])
def test_rubbish_and_damages_keep_shape_and_range(shape):
    real = RANDOM.integers(0, 256, shape, dtype=np.uint8)
    made = rubbish(real)
    assert {each.shape for each in made.values()} == {shape}
    assert {each.dtype for each in made.values()} == {np.dtype(np.uint8)}
    shuffled = made["pictures with shuffled pixels"]
    assert (np.sort(shuffled.reshape(6, -1)) == np.sort(real.reshape(6, -1))).all()
    patches = made["pictures with shuffled patches"]
    assert (np.sort(patches.reshape(6, -1)) == np.sort(real.reshape(6, -1))).all()
    assert not (patches == real).all()

    images = torch.from_numpy(real).float() / 255
    kinds = [0, 1, 2, 3, 4, 0]
    spoilt = damaged(images, kinds)
    assert spoilt.shape == shape
    assert torch.equal(spoilt[[0, 5]], images[[0, 5]])
    for index in range(1, len(KINDS)):
        assert not torch.equal(spoilt[index], images[index])
    assert spoilt.min() >= 0
    assert spoilt.max() <= 1


def test_twins_that_are_found_cost_less_than_chance():
    torch.manual_seed(0)
    first = torch.randn(40, 16)

    assert contrast(first, first + 0.01 * torch.randn(40, 16)) < 1.0
    assert contrast(first, torch.randn(40, 16)) > np.log(79)
    with pytest.raises(ValueError, match="two views of at least 2 pictures"):
        contrast(first[:1], first[:1])


def test_a_zoomed_picture_is_a_part_of_it_and_zoom_1_changes_nothing():
    images = torch.rand(5, 3, 12, 9)

    assert torch.equal(zoomed(images, 1.0), images)
    seen = zoomed(images, 1.5)
    assert seen.shape == images.shape
    assert seen.min() >= images.min() - 1e-5
    assert seen.max() <= images.max() + 1e-5


def test_without_labels_there_are_features_and_no_classes():
    model = Classifier(classifier_recipe(ImageShape(3, 32, 32))["model"])
    images = torch.rand(4, 3, 32, 32)

    assert model.features(images).shape == (4, 32)
    terms = model.losses((images, torch.full((4,), -1)), 0)
    assert {"loss", "accuracy", "damage_loss", "contrast_loss"} == set(terms)
    with pytest.raises(ValueError, match="knows no classes"):
        model(images)
    with pytest.raises(ValueError, match="nothing to learn"):
        ClassifierConfig(num_classes=0)
