import pytest
import torch

from models.gpt.model import Gpt, make_optimizer
from models.gpt.recipe import gpt_recipe
from models.presets import Preset, TextShape
from models.training.batches import TokenBatches
from models.training.loops import likelihood_steps


@pytest.mark.parametrize("preset", ["quick", "standard", "full"])
def test_every_preset_gives_valid_configurations(preset: Preset) -> None:
    recipe = gpt_recipe(preset, TextShape("characters", 300, 100_000), seed=3)

    assert recipe["training"].seed == 3
    assert recipe["model"].vocabulary_size == 300


def test_a_short_text_gets_a_short_context() -> None:
    recipe = gpt_recipe("quick", TextShape("characters", 100, 200), seed=0)
    config, fit = recipe["model"], recipe["training"]
    tokens = torch.randint(100, (200,))
    batches = TokenBatches(tokens, config.context_length, fit.batch_size, seed=0)
    model = Gpt(config)

    step = next(likelihood_steps(model, make_optimizer(model, fit), batches.at, fit))

    assert config.context_length == 50
    assert torch.isfinite(step.terms["loss"])
