"""Where a training runs, and with how many threads."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from models.training.device import make_repeatable


def training_device() -> torch.device:
    """The GPU where there is one, set to give the same bits again, else the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    make_repeatable()  # `atelier.services.process_settings.apply_settings` sets what it needs
    return torch.device("cuda")


@contextmanager
def on_training_device(model: torch.nn.Module) -> Iterator[None]:
    """Hold a network on the GPU meanwhile, where there is one, and on the CPU again afterwards."""
    device = training_device()
    if device.type == "cpu":
        yield
        return
    model.to(device)
    try:
        yield
    finally:
        model.to("cpu")


@contextmanager
def computing_threads(number: int | None) -> Iterator[None]:
    """Let this thread compute with so many threads of PyTorch; None: as it does anyway."""
    before = torch.get_num_threads()
    torch.set_num_threads(number or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)
