"""Training by likelihood with validation now and then: the weights that did best in it are kept."""

from collections.abc import Callable, Iterator
from typing import Any, Generic

from torch.optim import Optimizer

from models.training.checkpoint import BestWeights, Model, TrainingState, num_parameters
from models.training.config import FitConfig
from models.training.loops import Step, likelihood_steps
from models.training.protocol import Trained


class ValidatedFit(Generic[Model]):
    """A model, its optimizer and its best weights, with the state that resumes all three."""

    def __init__(self, model: Model, optimizer: Optimizer, fit: FitConfig) -> None:
        self.model, self.fit = model, fit
        self._optimizer = optimizer
        self.best = BestWeights(model)
        self.state = TrainingState(
            {"model": model, "best": self.best.model}, {"all": optimizer}, {"best": self.best}
        )

    def steps(
        self,
        batch_at: Callable[[int], Any],
        validate: Callable[[Step], Step],
        num_validations: int,
    ) -> Iterator[Step]:
        """Updates from `state.step` on; so many of them, and the last one, pass through `validate`.

        validate: measures the model, offers it to `best`, and adds to the step what it found.
        """
        steps = self.fit.steps
        every = max(1, steps // num_validations)
        for step in likelihood_steps(
            self.model, self._optimizer, batch_at, self.fit, self.state.step
        ):
            is_due = step.step % every == 0 or step.step == steps
            yield validate(step) if is_due else step

    def kept(self) -> Trained:
        """The weights that validated best."""
        return Trained(
            tensors=self.best.model.state_dict(),
            config=self.model.config,
            num_parameters=num_parameters(self.model),
            remarks=(f"the weights of step {self.best.step} did best on the validation split",),
        )
