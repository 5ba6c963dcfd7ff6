import pytest
import torch

from models.gan.model import Gan, labelled_batches, optimizers_of
from models.gan.networks import GanLoss, sample
from models.gpt.model import Gpt
from models.gpt.model import make_optimizer as gpt_optimizer
from models.metrics.classifier import Classifier
from models.metrics.classifier import make_optimizer as classifier_optimizer
from models.presets import (
    Preset,
    classifier_recipe,
    gan_recipe,
    gpt_recipe,
    ngram_recipe,
    plain_classifier_recipe,
    vae_recipe,
)
from models.training.batches import ImageBatches, TokenBatches
from models.training.loops import adversarial_steps, likelihood_steps
from models.vae.model import Vae
from models.vae.model import make_optimizer as vae_optimizer

SHAPES = [(1, 8, 8), (3, 17, 30), (3, 32, 32), (1, 64, 64)]
PRESETS: tuple[Preset, ...] = ("quick", "standard", "full")


def pictures(shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.randint(256, (6, *shape), dtype=torch.uint8)


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_image_recipes_train_on_any_shape(shape: tuple[int, int, int]) -> None:
    images = pictures(shape)
    labels = torch.arange(6) % 3

    config, fit = vae_recipe("quick", *shape, seed=0)
    vae, batches = Vae(config), ImageBatches(images, 6, seed=0)
    step = next(likelihood_steps(vae, vae_optimizer(vae, fit), batches.at, fit))
    assert {"reconstruction", "kl", "negative_elbo"} <= set(step.terms)
    assert vae.sample(2).shape == (2, *shape)

    game_config, game_fit = gan_recipe("quick", shape, 3, seed=0)
    gan = Gan(game_config)
    optimizers = optimizers_of(gan, game_fit.learning_rate)
    turns = adversarial_steps(gan, optimizers, labelled_batches(batches, labels), game_fit)
    assert {"generator_loss", "discriminator_loss"} <= set(next(turns).terms)

    judge_config, judge_fit = classifier_recipe(*shape, num_classes=3)
    judge = Classifier(judge_config)
    optimizer = classifier_optimizer(judge, judge_fit)
    seen = next(likelihood_steps(judge, optimizer, lambda i: (batches.at(i), labels), judge_fit))
    assert 0 <= float(seen.terms["accuracy"]) <= 1


@pytest.mark.parametrize("loss", ["relativistic", "hinge", "wasserstein"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_the_gan_recipe_trains_without_classes(shape: tuple[int, int, int], loss: GanLoss) -> None:
    config, fit = gan_recipe("quick", shape, 0, seed=0, loss=loss)
    gan = Gan(config)
    batches = labelled_batches(ImageBatches(pictures(shape), 6, seed=0), None)
    optimizers = optimizers_of(gan, fit.learning_rate)

    step = next(adversarial_steps(gan, optimizers, batches, fit))

    assert torch.isfinite(step.terms["generator_loss"])
    assert "class_loss" not in step.terms
    assert sample(gan.average, 2, seed=0).shape == (2, *shape)


@pytest.mark.parametrize("preset", PRESETS)
def test_every_preset_gives_valid_configurations(preset: Preset) -> None:
    for shape in SHAPES:
        assert vae_recipe(preset, *shape, seed=3)[1].seed == 3
        assert gan_recipe(preset, shape, 10, seed=3)[1].seed == 3
    assert gpt_recipe(preset, 300, 100_000, seed=3)[1].seed == 3
    assert ngram_recipe(preset, "bpe")[0].order < ngram_recipe(preset, "characters")[0].order


def test_a_judge_learns_damages_always_and_pictures_apart_where_there_are_no_classes() -> None:
    labelled, unlabelled = (classifier_recipe(3, 32, 32, number)[0] for number in (3, 0))

    assert labelled.damage_weight > 0
    assert labelled.contrast_weight == 0
    assert unlabelled.damage_weight > 0
    assert unlabelled.contrast_weight > 0
    plain = plain_classifier_recipe(3, 32, 32, 3)[0]
    assert plain.damage_weight == plain.contrast_weight == plain.augment_light == 0


def test_a_short_text_gets_a_short_context() -> None:
    config, fit = gpt_recipe("quick", 100, 200, seed=0)
    tokens = torch.randint(100, (200,))
    batches = TokenBatches(tokens, config.context_length, fit.batch_size, seed=0)
    model = Gpt(config)

    step = next(likelihood_steps(model, gpt_optimizer(model, fit), batches.at, fit))

    assert config.context_length == 50
    assert torch.isfinite(step.terms["loss"])
