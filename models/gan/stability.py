"""Control of an adversarial training: see what goes wrong, name it, go back, play more gently.

A monitor looks at the game every few updates. When a fault lasts, training returns to the last
state that looked healthy, with a lower learning rate and a stronger penalty; after a stated number
of returns it gives up with a diagnosis. All of it (the healthy state too) is part of the training
state, so a run that is killed and resumed takes the same decisions as one that is not.
"""

import copy
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.optim import Optimizer

from models.gan.model import Gan
from models.gan.networks import sample
from models.metrics.images import frechet_distance
from models.training.adversarial import adversarial_steps
from models.training.batches import seed_at
from models.training.checkpoint import TrainingState
from models.training.config import FitConfig
from models.training.loops import Diverged, Step

MONITOR_STREAM = 7  # apart from the streams of data and noise
MIN_USUAL_GRADIENT = 0.1  # growth from nearly nothing is recovery, not explosion
NETWORKS = ("generator", "discriminator", "average")
REMEMBERED = (
    "learning_rate_scale",
    "penalty_scale",
    "diagnoses",
    "streaks",
    "usual_gradients",
    "best_distance",
    "last_good_record",
)


@dataclass(frozen=True, kw_only=True, slots=True)
class ControlConfig:
    """When the monitor looks, what it takes for a fault, and what it does then."""

    check_interval: int = 25
    """Updates between two looks."""
    patience: int = 3
    """A fault that is seen at so many looks in a row makes training go back."""
    grace_steps: int = 250
    """Updates before the samples are judged, as no generator starts out good; until then the
    state to go back to is the one at the start."""
    num_samples: int = 200
    """Images drawn for a look."""
    smallest_diversity: float = 0.1
    """Least spread of the samples, as a share of the real images' spread."""
    largest_diversity: float = 2.5
    """Samples that vary more than this, as a share again, are noise."""
    largest_distance_growth: float = 2.5
    """Samples so many times as far from the real images as the best ones so far: something that
    was learned is lost. Between two looks of a healthy run the distance moves by up to 1.7."""
    smallest_entropy: float = 0.6
    """Least entropy of the classes of the samples, as a share of the real images' entropy, where
    the discriminator was taught classes."""
    largest_accuracy: float = 0.995
    """A discriminator that is right more often than this on both sides overwhelms..."""
    smallest_gradient_share: float = 0.05
    """...when also the generator's gradient is below this share of its usual size."""
    largest_gradient_growth: float = 100.0
    """A gradient norm so many times its usual size explodes."""
    smallest_gradient: float = 1e-3
    """A generator whose gradient norm is below this has stopped learning."""
    learning_rate_factor: float = 0.25
    """Every return multiplies the learning rate by this."""
    penalty_factor: float = 1.5
    """Every return multiplies the gradient penalty by this."""
    max_rollbacks: int = 5

    def __post_init__(self) -> None:
        for name in ("check_interval", "patience"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        for name in ("grace_steps", "max_rollbacks"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if self.num_samples < 2:
            raise ValueError(f"num_samples must be at least 2, got {self.num_samples}")
        if not 0 < self.learning_rate_factor < 1:
            raise ValueError(
                f"learning_rate_factor must lie between 0 and 1, got {self.learning_rate_factor}"
            )
        if not self.penalty_factor >= 1:
            raise ValueError(f"penalty_factor must be at least 1, got {self.penalty_factor}")


class LastGood(nn.Module):
    """Tensors of the last healthy state, dressed as a module so that checkpoints carry them."""

    def __init__(self) -> None:
        super().__init__()
        self.tensors: dict[str, Tensor] = {}

    def state_dict(self, *_: Any, **__: Any) -> dict[str, Any]:  # type: ignore[override]
        """The tensors by name."""
        return dict(self.tensors)

    def load_state_dict(self, state_dict: Mapping[str, Any], *_: Any, **__: Any) -> Any:
        """Take over such tensors."""
        self.tensors = dict(state_dict)


class StabilityMonitor:
    """Judges a game from a few numbers; knows the last healthy state and how often it was needed.

    reference: real images (N, C, H, W) in [0, 1] and their labels (N,) or None, to compare with.
    """

    def __init__(self, config: ControlConfig, reference: tuple[Tensor, Tensor | None]) -> None:
        self.config = config
        self.real_spread = spread_within_classes(*reference)
        self.real_thumbnails = thumbnails(reference[0])
        self.real_images = reference[0][:: max(1, len(reference[0]) // config.num_samples)]
        self.learning_rate_scale = 1.0
        self.penalty_scale = 1.0
        self.diagnoses: list[str] = []
        self.streaks: dict[str, int] = {}
        self.usual_gradients: dict[str, float] = {}
        self.best_distance: float | None = None
        self.last_good = LastGood()
        self.last_good_record: dict[str, Any] | None = None

    @property
    def num_rollbacks(self) -> int:
        """How often training went back."""
        return len(self.diagnoses)

    def is_due(self, step: int) -> bool:
        """Whether the monitor looks after this many updates."""
        return step % self.config.check_interval == 0

    def observe(self, step: int, numbers: Mapping[str, float]) -> str | None:
        """Take in the numbers of one look; gives the diagnosis of a fault that has lasted.

        numbers: the terms of the step, with `diversity`, and perhaps `distance` and
        `class_entropy_share`.
        """
        faults = self._faults(step, numbers)
        self.streaks = {name: self.streaks.get(name, 0) + 1 for name in faults}
        for name, description in faults.items():
            if name == "non-finite" or self.streaks[name] >= self.config.patience:
                return f"step {step}: {name}: {description}"
        if not faults:
            self._learn_gradients(numbers)
            if step > self.config.grace_steps and "distance" in numbers:
                self.best_distance = min(numbers["distance"], self.best_distance or math.inf)
        return None

    def is_healthy(self, step: int) -> bool:
        """Whether the state after a look deserves to be kept: samples were judged, no fault."""
        return step > self.config.grace_steps and not self.streaks

    def measures(self, gan: Gan, seed: int, step: int) -> dict[str, float]:
        """Diversity of the generator's samples, distance from the real images, class entropy.

        The entropy, a share of that of real images, only where the discriminator knows classes.
        """
        num_classes, num_samples = gan.config.num_classes, self.config.num_samples
        labels = torch.arange(num_samples) % num_classes if num_classes else None
        images = sample(gan.generator, num_samples, seed_at(seed, step, MONITOR_STREAM), labels)
        found = {
            "diversity": spread_within_classes(images, labels) / self.real_spread,
            "distance": self._distance(images),
        }
        if gan.config.class_weight > 0:
            real_entropy = entropy_of(classes_seen(gan, self.real_images))
            if real_entropy > 0:  # an untaught network may see one class everywhere
                found["class_entropy_share"] = entropy_of(classes_seen(gan, images)) / real_entropy
        return found

    def _distance(self, images: Tensor) -> float:
        """Frechet distance of the samples from the real images, both as thumbnails."""
        seen = thumbnails(images)
        return frechet_distance(self.real_thumbnails, seen) if seen.isfinite().all() else math.nan

    def _faults(self, step: int, numbers: Mapping[str, float]) -> dict[str, str]:
        """What is wrong at one look: a sentence by the name of the fault."""
        config, faults = self.config, {}
        broken = [name for name, value in numbers.items() if not math.isfinite(value)]
        if broken:
            faults["non-finite"] = f"{', '.join(broken)} stopped being finite"
        for name, usual in self.usual_gradients.items():
            growth = numbers[name] / max(usual, MIN_USUAL_GRADIENT)
            if growth > config.largest_gradient_growth:
                faults["exploding gradients"] = (
                    f"{name} is {growth:.0f} times its usual {usual:.3g}"
                )
        left = numbers["generator_gradient_norm"]
        if left < config.smallest_gradient:
            faults["vanishing gradients"] = f"generator_gradient_norm is {left:.2g}"
        if step <= config.grace_steps:
            return faults
        right = min(numbers[f"discriminator_accuracy_{side}"] for side in ("real", "fake"))
        usual = self.usual_gradients.get("generator_gradient_norm", 0.0)
        vanishing = config.smallest_gradient_share * usual
        if right > config.largest_accuracy and left <= vanishing:
            faults["discriminator overwhelms"] = (
                f"it is right on {right:.1%} of both sides, and the generator's gradient is"
                f" {left:.3g} after a usual {usual:.3g}"
            )
        growth = numbers.get("distance", 0.0) / (self.best_distance or math.inf)
        if growth > config.largest_distance_growth:
            faults["relapse"] = (
                f"samples are {growth:.1f} times as far from the real images as the best so far"
            )
        diversity, entropy = numbers["diversity"], numbers.get("class_entropy_share", 1.0)
        if diversity < config.smallest_diversity:
            faults["collapse"] = f"samples vary {diversity:.3f} times as much as real images"
        elif diversity > config.largest_diversity:
            faults["noise"] = f"samples vary {diversity:.1f} times as much as real images"
        elif entropy < config.smallest_entropy:
            faults["collapse"] = (
                f"the classes of the samples have {entropy:.2f} of the entropy of real images'"
            )
        return faults

    def _learn_gradients(self, numbers: Mapping[str, float]) -> None:
        """Follow the usual size of each gradient norm, as a slow geometric mean."""
        for name in ("discriminator_gradient_norm", "generator_gradient_norm"):
            norm = max(numbers[name], 1e-12)
            self.usual_gradients[name] = self.usual_gradients.get(name, norm) ** 0.9 * norm**0.1

    def keep(self, state: TrainingState) -> None:
        """Remember this state as the one to go back to."""
        self.last_good.tensors, self.last_good_record = _game_of(state).snapshot()

    def roll_back(self, state: TrainingState, diagnosis: str) -> None:
        """Go back to the last healthy state and play more gently from there.

        Raises Diverged with every diagnosis once `max_rollbacks` returns have not helped.
        """
        assert self.last_good_record is not None, "roll_back before keep"
        self.diagnoses.append(diagnosis)
        if self.num_rollbacks > self.config.max_rollbacks:
            raise Diverged(
                f"training failed {self.num_rollbacks} times, at learning rates down to"
                f" {self.learning_rate_scale:.2g} and penalties up to {self.penalty_scale:.2g}"
                f" times the recipe's. Diagnoses: {'; '.join(self.diagnoses)}. Lower the learning"
                " rate, raise the penalty, or look at the data"
            )
        # an optimiser adopts the tensors that it loads, and would then change the kept ones
        tensors = {name: tensor.clone() for name, tensor in self.last_good.tensors.items()}
        game = _game_of(state)
        game.restore(tensors, copy.deepcopy(self.last_good_record))
        state.step = game.step
        self.streaks, self.usual_gradients = {}, {}
        self.learning_rate_scale *= self.config.learning_rate_factor
        self.penalty_scale *= self.config.penalty_factor

    def state_dict(self) -> dict[str, Any]:
        """All that the monitor remembers beside the tensors of `last_good`, as JSON."""
        return copy.deepcopy({name: getattr(self, name) for name in REMEMBERED})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take over such a memory."""
        for name in REMEMBERED:
            setattr(self, name, copy.deepcopy(state[name]))


def controlled_state(
    gan: Gan, optimizers: Mapping[str, Optimizer], monitor: StabilityMonitor
) -> TrainingState:
    """All that a controlled training must remember, for checkpoints and for returns."""
    modules = {name: getattr(gan, name) for name in NETWORKS}
    return TrainingState(
        {**modules, "last_good": monitor.last_good}, optimizers, {"monitor": monitor}
    )


def controlled_steps(
    gan: Gan,
    state: TrainingState,
    batch_at: Callable[[int], Any],
    config: FitConfig,
    monitor: StabilityMonitor,
) -> Iterator[Step]:
    """`adversarial_steps` under a monitor, from `state.step` on; `state` is kept up to date.

    state: of `controlled_state`. After a return the steps count on from the healthy state, so a
    step number can come twice. Every step tells `rollbacks`; those with a look, its measures.
    Raises Diverged when the monitor gives up.
    """
    if monitor.last_good_record is None:
        monitor.keep(state)
    while state.step < config.steps:
        diagnosis = None
        steps = adversarial_steps(gan, state.optimizers, batch_at, config, state.step, monitor)
        try:
            for step in steps:
                state.step = step.step
                extra = {"rollbacks": float(monitor.num_rollbacks)}
                if monitor.is_due(step.step):
                    extra |= monitor.measures(gan, config.seed, step.step)
                    diagnosis = monitor.observe(step.step, step.numbers() | extra)
                    if diagnosis is not None:
                        break
                    if monitor.is_healthy(step.step):
                        monitor.keep(state)
                terms = {name: torch.tensor(value) for name, value in extra.items()}
                yield Step(step.step, step.terms | terms)
        except Diverged as error:
            diagnosis = f"step {state.step + 1}: non-finite: {error}"
        if diagnosis is not None:
            monitor.roll_back(state, diagnosis)


def spread_within_classes(images: Tensor, labels: Tensor | None) -> float:
    """Mean squared distance of images (N, C, H, W) from the mean of their class (labels (N,)).

    This is half the mean squared distance between two images of one class. Classes with a single
    image are passed over; without labels all images are one class.
    """
    points = images.flatten(1).double()
    if labels is None:
        labels = torch.zeros(len(points), dtype=torch.long)
    labels = labels.to(points.device)
    parts = [points[labels == label] for label in torch.unique(labels)]
    spreads = [part.var(dim=0).sum() for part in parts if len(part) > 1]
    if not spreads:
        raise ValueError(f"{len(points)} images with no two of one class have no spread")
    return float(torch.stack(spreads).mean())


def thumbnails(images: Tensor) -> Tensor:
    """Images (N, C, H, W) averaged down to at most 8x8 pixels, flat: (N, D)."""
    size = min(8, images.shape[2]), min(8, images.shape[3])
    return F.adaptive_avg_pool2d(images, size).flatten(1)


@torch.no_grad()
def classes_seen(gan: Gan, images: Tensor) -> Tensor:
    """The class that the discriminator sees in each image (N, C, H, W) in [0, 1]: (N,).

    It means something where `class_weight` has taught it the classes of real images.
    """
    return gan.discriminator.scores(images * 2 - 1).argmax(dim=1)


def entropy_of(classes: Tensor) -> float:
    """Entropy of a histogram of classes (N,) int64, in nats."""
    share = torch.bincount(classes).double() / len(classes)
    return float(-torch.xlogy(share, share).sum())


def _game_of(state: TrainingState) -> TrainingState:
    """The same training without the memory of its control."""
    game = TrainingState({name: state.modules[name] for name in NETWORKS}, state.optimizers)
    game.step = state.step
    return game
