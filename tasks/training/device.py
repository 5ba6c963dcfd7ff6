"""Where a training runs."""

import torch

from models.training.device import make_repeatable


def training_device() -> torch.device:
    """The GPU where there is one, set to give the same bits again, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    make_repeatable()  # `atelier.services.process_settings.apply_settings` sets what it needs
    return torch.device("cuda")
