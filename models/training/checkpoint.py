"""All that a training run must remember, as tensors and JSON: weights, optimisers, controls, step.

With the loops of `models.training.loops` there is no random state and no data position to save:
both are functions of (seed, step). No pickle: tensors go into a safetensors file, the rest into
JSON.
"""

import copy
import math
from collections.abc import Mapping
from typing import Any, Generic, Protocol, TypeVar

import torch
from torch import Tensor, nn
from torch.optim import Optimizer


class Control(Protocol):
    """Something beside weights that steers training and must survive a restart."""

    def state_dict(self) -> dict[str, Any]:
        """The state as JSON: numbers, strings, lists, dicts."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over such a state."""
        ...


class TrainingState:
    """Named modules, optimisers and controls of one run, and how many updates they have seen.

    A control's state is JSON: numbers, strings, lists, dicts.
    """

    def __init__(
        self,
        modules: Mapping[str, nn.Module],
        optimizers: Mapping[str, Optimizer],
        controls: Mapping[str, Control] | None = None,
    ) -> None:
        self.modules = dict(modules)
        self.optimizers = dict(optimizers)
        self.controls = dict(controls or {})
        self.step = 0
        self.seconds = 0.0
        """Wall time of the updates so far, over all processes that made them."""

    def snapshot(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Copies of every tensor by a flat name, and a JSON-able record of the rest."""
        tensors: dict[str, Tensor] = {}
        record: dict[str, Any] = {"step": self.step, "seconds": self.seconds}
        record |= {"optimizers": {}, "controls": {}}
        for name, module in self.modules.items():
            for key, value in module.state_dict().items():
                tensors[f"module/{name}/{key}"] = _copied(value)
        for name, optimizer in self.optimizers.items():
            state = optimizer.state_dict()
            scalars: dict[str, dict[str, Any]] = {}
            for index, slots in state["state"].items():
                for key, value in slots.items():
                    if isinstance(value, Tensor):
                        tensors[f"optimizer/{name}/{index}/{key}"] = _copied(value)
                    else:
                        scalars.setdefault(str(index), {})[key] = value
            groups = [
                {key: _plain(value) for key, value in group.items()}
                for group in state["param_groups"]
            ]
            record["optimizers"][name] = {"groups": groups, "scalars": scalars}
        for name, control in self.controls.items():
            record["controls"][name] = control.state_dict()
        return tensors, record

    def restore(self, tensors: Mapping[str, Tensor], record: Mapping[str, Any]) -> None:
        """Take over a snapshot of a run with the same modules, optimisers and controls."""
        for name, module in self.modules.items():
            module.load_state_dict(_below(tensors, f"module/{name}/"))
        for name, optimizer in self.optimizers.items():
            saved = record["optimizers"][name]
            slots: dict[int, dict[str, Any]] = {}
            for key, value in _below(tensors, f"optimizer/{name}/").items():
                index, slot = key.split("/", 1)
                slots.setdefault(int(index), {})[slot] = value
            for index, values in saved["scalars"].items():
                slots.setdefault(int(index), {}).update(values)
            optimizer.load_state_dict({"state": slots, "param_groups": saved["groups"]})
            _lay_out_as_parameters(optimizer)
        for name, control in self.controls.items():
            control.load_state_dict(record["controls"][name])
        self.step, self.seconds = record["step"], record["seconds"]


Model = TypeVar("Model", bound=nn.Module)


class BestWeights(Generic[Model]):
    """A copy of a model's weights at the step that validated best; a Control."""

    def __init__(self, model: Model) -> None:
        self.model = copy.deepcopy(model)
        self.step = 0
        self.loss = math.inf

    def offer(self, step: int, loss: float, model: nn.Module) -> None:
        """Take over the weights of a step if its validation loss is the lowest so far."""
        if loss < self.loss:
            self.step, self.loss = step, loss
            self.model.load_state_dict(model.state_dict())

    def state_dict(self) -> dict[str, Any]:
        """Which step was best; the weights are saved as a module."""
        return {"step": self.step, "loss": self.loss if self.step else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over such a state."""
        self.step = state["step"]
        self.loss = math.inf if state["loss"] is None else state["loss"]


def _lay_out_as_parameters(optimizer: Optimizer) -> None:
    """Give restored moments the strides of their parameter.

    Files hold plain row-major tensors, but fused optimisers pair the numbers of a channels-last
    weight with those of its moments by their place in memory.
    """
    for parameter, slots in optimizer.state.items():
        for key, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                slots[key] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def _plain(value: Any) -> Any:
    """A setting as JSON: where updates are recorded, rates and counts lie on the device."""
    return value.item() if isinstance(value, Tensor) else value


def _copied(tensor: Tensor) -> Tensor:
    return tensor.detach().to("cpu", copy=True).contiguous()


def _below(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key[len(prefix) :]: value for key, value in tensors.items() if key.startswith(prefix)}


def num_parameters(module: nn.Module) -> int:
    """How many trainable numbers a module has."""
    return sum(p.numel() for p in module.parameters() if p.requires_grad)
