"""What a training of a VAE tells while it runs."""

import numpy as np
import pytest
import torch

from models.training.config import FitConfig
from models.training.protocol import ImageData
from models.vae import training
from models.vae.model import VaeConfig
from models.vae.training import VaeTraining


def test_an_alarm_is_told_when_it_changes_and_not_at_every_validation(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each line of a run would else say the same, up to twenty times."""
    alarms = iter(["before the KL counts", "a", "a", None, "a", "b", "b"])
    monkeypatch.setattr(training, "collapse_alarm", lambda *_: next(alarms))
    monkeypatch.setattr(training, "NUM_VALIDATIONS", 7)
    pixels = np.random.default_rng(0).integers(0, 256, (24, 1, 8, 8), dtype=np.uint8)
    labels = np.full(24, -1)
    data = ImageData(
        train=pixels, train_labels=labels, validation=pixels[:8], validation_labels=labels[:8]
    )
    model = VaeConfig(height=8, width=8, latent_size=2, base_width=4, kl_warmup_steps=1)
    fit = FitConfig(steps=7, batch_size=8, warmup_steps=1)

    steps = VaeTraining(data, torch.device("cpu"), model, fit).steps()

    told = [remark for step in steps for remark in step.remarks]
    assert told == ["step 2: a", "step 5: a", "step 6: b"]
    assert next(alarms, "all were asked for") == "all were asked for"
