"""Where a network is held while it draws; the GPU is a stand-in that notes what goes to it."""

from typing import Any

import pytest
import torch

from tasks.training.device import on_training_device


class Noted(torch.nn.Module):
    """Notes where it is sent."""

    def __init__(self) -> None:
        super().__init__()
        self.places: list[str] = []

    def to(self, device: Any) -> "Noted":  # type: ignore[override]
        self.places.append(torch.device(device).type)
        return self


def test_a_network_draws_on_the_gpu_and_comes_back_whatever_happens(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("tasks.training.device.training_device", lambda: torch.device("cuda"))
    network = Noted()
    with pytest.raises(RuntimeError), on_training_device(network):
        assert network.places == ["cuda"]
        raise RuntimeError("out of memory")

    assert network.places == ["cuda", "cpu"]


def test_without_a_gpu_it_stays_where_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tasks.training.device.training_device", lambda: torch.device("cpu"))
    network = Noted()
    with on_training_device(network):
        pass

    assert network.places == []
