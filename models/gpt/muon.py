"""Muon for the matrices of a network and Adam for the rest, in one optimizer.

Muon replaces the momentum of a matrix by the nearest orthogonal matrix, so that every direction
learns at the same speed. The orthogonalisation runs in float32 on a CPU (one without bfloat16 units
would be many times slower in bfloat16), in bfloat16 on a GPU, and is batched over all matrices of
equal shape.

References: Jordan et al. 2024, "Muon: an optimizer for hidden layers in neural networks"; Amsel et
al. 2025, "The Polar Express" (one polynomial per round); Kingma & Ba 2015 (Adam).
"""

import math
from collections.abc import Iterable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Rate: TypeAlias = float | Tensor

ROUNDS = (
    (8.3837, -24.7659, 18.3571),
    (4.0434, -3.0114, 0.5695),
    (3.5056, -2.6267, 0.5257),
    (2.4901, -1.8343, 0.4368),
)
"""Odd polynomials a x + b x^3 + c x^5, each the one closest to 1 where the last one ends.

Together they take every singular value between 0.003 and 1 to between 0.80 and 1.20.
"""


class MuonWithAdam(Optimizer):
    """Muon for `matrices`, each (..., rows, columns); Adam for `others`, tensors of any shape.

    matrix_rate, other_rate: learning rates. Weight decay, per unit of learning rate, acts on the
    matrices only. `momentum` is Muon's; `betas` are Adam's. `tables`: those of the others that are
    updated row by row, as all are whose gradient is sparse.

    Rates and the count of updates may be scalars on the device (models/training/captured.py);
    while `found_inf`, on the device too, is 1, no weight changes.
    """

    found_inf: Tensor | None = None

    def __init__(
        self,
        matrices: Iterable[nn.Parameter],
        others: Iterable[nn.Parameter],
        *,
        matrix_rate: float,
        other_rate: float,
        weight_decay: float = 0.0,
        momentum: float = 0.95,
        betas: tuple[float, float] = (0.9, 0.95),
        tables: Iterable[nn.Parameter] = (),
    ) -> None:
        self._tables = {id(table) for table in tables}
        groups = [
            {"params": list(matrices), "lr": matrix_rate, "kind": "muon"},
            {"params": list(others), "lr": other_rate, "kind": "adam"},
        ]
        shared = {"weight_decay": weight_decay, "momentum": momentum, "betas": list(betas)}
        super().__init__([group for group in groups if group["params"]], shared | {"updates": 0})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update every parameter that has a gradient."""
        for group in self.param_groups:
            group["updates"] += 1
            pairs = [(p, p.grad) for p in group["params"] if p.grad is not None]
            if group["kind"] == "adam" and pairs:
                self._adam_step(pairs, group)
                continue
            for shape in dict.fromkeys(p.shape[-2:] for p, _ in pairs):
                self._muon_step([pair for pair in pairs if pair[0].shape[-2:] == shape], group)

    def _muon_step(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        """One update of matrices that share a shape."""
        momentum = group["momentum"]
        directions = []
        for parameter, gradient in pairs:
            slot = self._slot(parameter, "momentum").lerp_(gradient, 1 - momentum)
            direction = gradient.lerp(slot, momentum)  # Nesterov
            directions.append(direction.view(-1, *direction.shape[-2:]))
        rows, columns = directions[0].shape[-2:]
        scale, rate = max(1.0, rows / columns) ** 0.5, self._rate_of(group)
        together = self._cleared(torch.cat(directions))
        updates = torch.split(orthogonalised(together), [len(d) for d in directions])
        for (parameter, _), update in zip(pairs, updates, strict=True):
            parameter.mul_(1 - rate * group["weight_decay"])
            _add(parameter, update.reshape(parameter.shape), -rate * scale)

    def _adam_step(self, pairs: list[tuple[Tensor, Tensor]], group: dict[str, Any]) -> None:
        """One bias-corrected Adam update."""
        first, second = group["betas"]
        first_correction = 1 - _power(first, group["updates"])
        second_correction = 1 - _power(second, group["updates"])
        for parameter, gradient in pairs:
            if gradient.is_sparse:
                self._row_step(parameter, gradient.coalesce(), group)
                continue
            if id(parameter) in self._tables:
                self._dense_row_step(parameter, gradient, group)
                continue
            mean = self._slot(parameter, "mean").lerp_(gradient, 1 - first)
            square = self._slot(parameter, "square").mul_(second)
            square.addcmul_(gradient, gradient, value=1 - second)
            deviation = (square / second_correction).sqrt_().add_(1e-10)
            step = -self._rate_of(group) / first_correction
            if isinstance(step, Tensor):
                parameter.add_(self._cleared(mean / deviation) * step)
            else:
                parameter.addcdiv_(mean, deviation, value=step)

    def _row_step(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """Update only the rows of a table that have a gradient: Adam without its mean.

        A mean would go on moving a row after its gradient is gone, which takes all rows each time.
        """
        rows, values = gradient.indices()[0], gradient.values()
        squares = self._slot(table, "square")
        touched = torch.lerp(squares[rows], values.square(), 1 - group["betas"][1])
        squares[rows] = touched
        rate = self._rate_of(group)
        step = self._cleared(values / (touched.sqrt() + 1e-10))
        if isinstance(rate, Tensor):
            table.index_add_(0, rows, step * -rate)
        else:
            table.index_add_(0, rows, step, alpha=-rate)

    def _dense_row_step(self, table: Tensor, gradient: Tensor, group: dict[str, Any]) -> None:
        """The same update from a gradient of all rows: a row that is zero was not touched."""
        gradient = self._cleared(gradient)
        squares = self._slot(table, "square")
        is_touched = (gradient != 0).any(dim=1, keepdim=True)
        squares.lerp_(gradient.square(), is_touched * (1 - group["betas"][1]))
        _add(table, gradient / (squares.sqrt() + 1e-10), -self._rate_of(group))

    def _rate_of(self, group: dict[str, Any]) -> Rate:
        rate: Rate = group["lr"]
        return rate if self.found_inf is None else rate * (1 - self.found_inf)

    def _cleared(self, values: Tensor) -> Tensor:
        """Zeros instead, while `found_inf` is 1: nothing times NaN would be NaN."""
        return values if self.found_inf is None else values.masked_fill(self.found_inf > 0, 0)

    def _slot(self, parameter: Tensor, name: str) -> Tensor:
        """A running value that starts at zero."""
        state = self.state[parameter]
        if name not in state:
            state[name] = torch.zeros_like(parameter)
        slot: Tensor = state[name]
        return slot


def orthogonalised(matrices: Tensor) -> Tensor:
    """Nearly orthogonal matrices with the singular vectors of the given ones: (n, r, c).

    Each round applies an odd polynomial to all singular values at once.
    """
    is_tall = matrices.shape[-2] > matrices.shape[-1]
    x = matrices.mT if is_tall else matrices
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-10)
    x = x.bfloat16() if x.is_cuda else x
    for a, b, c in ROUNDS:
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x.mT if is_tall else x


def _power(base: float, exponent: int | Tensor) -> float | Tensor:
    if isinstance(exponent, Tensor):
        return (exponent * math.log(base)).exp()
    return float(base**exponent)


def _add(parameter: Tensor, update: Tensor, factor: Rate) -> None:
    if isinstance(factor, Tensor):
        parameter.add_(update * factor)
    else:
        parameter.add_(update, alpha=factor)
