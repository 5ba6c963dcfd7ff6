"""Generative adversarial network: a generator against a discriminator, kept on a leash.

The default game is the relativistic pairing with a gradient penalty on real and on generated
images at every step (RpGAN + R1 + R2), which converges locally where the classic game need not;
networks without normalisation layers, residual blocks that start as the identity, an averaged
generator. Huang et al. 2024, "The GAN is dead; long live the GAN!" (R3GAN).
Also: hinge loss with spectral normalisation (Miyato et al. 2018), Wasserstein loss with a
two-sided penalty between the images (Gulrajani et al. 2017), packing (Lin et al. 2018),
differentiable augmentation (Zhao et al. 2020), a discriminator that learns the classes of real
images besides (Chen et al. 2021, ECGAN).
"""

import copy
import math
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim import Adam, Optimizer

from models.gan.config import GanConfig
from models.gan.networks import Discriminator, Generator
from models.training.batches import ImageBatches


class Gan(nn.Module):
    """The two networks and the averaged generator, with the rules by which they play.

    A batch is a pair: images (B, C, H, W) float in [0, 1], and labels (B,) int64 or None.
    """

    is_capturable = True

    def __init__(self, config: GanConfig) -> None:
        super().__init__()
        self.config = config
        self.discriminator_updates = config.discriminator_updates
        self.generator = Generator(config)
        self.discriminator = Discriminator(config)
        self.average = copy.deepcopy(self.generator).requires_grad_(False)

    def draw(self, batch: tuple[Tensor, Tensor | None]) -> Tensor:
        """One generated image for each real one, of the same class: (B, C, H, W) in [-1, 1]."""
        real, labels = batch
        latents = torch.randn(len(real), self.config.latent_size, device=real.device)
        fake: Tensor = self.generator(latents, labels)
        return fake

    def discriminator_terms(
        self,
        batch: tuple[Tensor, Tensor | None],
        fake: Tensor,
        progress: float | Tensor,
        scale: float | Tensor,
    ) -> dict[str, Tensor]:
        """What the discriminator minimises, and its parts; `scale` multiplies the penalty."""
        real = self._augmented(batch[0] * 2 - 1, progress)
        fake = self._augmented(fake.detach(), progress)
        floor = self.config.final_penalty_fraction
        angle = math.pi * progress
        cosine = torch.cos(angle) if isinstance(angle, Tensor) else math.cos(angle)
        fading = floor + (1 - floor) * 0.5 * (1 + cosine)
        penalty = self.config.penalty * fading * scale
        return discriminator_terms(
            self.discriminator,
            real,
            fake,
            batch[1],
            self.config.loss,
            penalty,
            class_weight=self.config.class_weight,
        )

    def generator_terms(
        self, batch: tuple[Tensor, Tensor | None], fake: Tensor, progress: float | Tensor
    ) -> dict[str, Tensor]:
        """What the generator minimises."""
        real = self._augmented(batch[0] * 2 - 1, progress)
        fake = self._augmented(fake, progress)
        return generator_terms(self.discriminator, real, fake, batch[1], self.config.loss)

    def average_decay_at(self, step: int) -> float:
        """How much of the averaged generator stays at one step (counted from 0)."""
        half_life = max(1.0, self.config.ema_half_life_fraction * step)
        return 0.5 ** (1 / half_life) if step > 0 else 0.0

    def _augmented(self, images: Tensor, progress: float | Tensor) -> Tensor:
        """Shift some images, more of them as training goes on; differentiable."""
        config = self.config
        if config.augment_probability == 0 or config.augment_shift == 0:
            return images
        num_images, device = len(images), images.device
        chosen = torch.rand(num_images, 2, device=device) < config.augment_probability * progress
        reach = config.augment_shift
        offsets = torch.randint(-reach, reach + 1, (num_images, 2), device=device) * chosen + reach
        rows = offsets[:, :1] + torch.arange(config.height, device=device)  # (B, H)
        columns = offsets[:, 1:] + torch.arange(config.width, device=device)  # (B, W)
        padded = F.pad(images, (reach,) * 4, value=-1.0).permute(0, 2, 3, 1)
        which = torch.arange(num_images, device=device)[:, None, None]
        return padded[which, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def discriminator_terms(
    discriminator: Discriminator,
    real: Tensor,
    fake: Tensor,
    labels: Tensor | None,
    loss: str,
    penalty: float | Tensor,
    *,
    class_weight: float = 0.0,
) -> dict[str, Tensor]:
    """Loss of the discriminator on (B, C, H, W) images in [-1, 1], with its parts."""
    images = torch.cat([real, fake]).detach().requires_grad_(loss == "relativistic")
    by_class = discriminator.scores(images)
    scores = discriminator.chosen(by_class, None if labels is None else labels.repeat(2))
    on_real, on_fake = scores.chunk(2)
    terms = {"discriminator_loss": _discriminator_loss(on_real, on_fake, loss)}
    if class_weight > 0:
        assert labels is not None, "this discriminator is class-conditional: labels are needed"
        terms["class_loss"] = F.cross_entropy(by_class[: len(real)], labels)
        terms["discriminator_loss"] = (
            terms["discriminator_loss"] + class_weight * terms["class_loss"]
        )
    if loss == "relativistic":
        r1, r2 = (half.mean() for half in _squared_gradient(scores, images).chunk(2))
        terms["discriminator_loss"] = terms["discriminator_loss"] + penalty / 2 * (r1 + r2)
        terms |= {"r1": r1, "r2": r2}
    elif loss == "wasserstein":
        terms["gradient_penalty"] = _slope_penalty(discriminator, real, fake, labels)
        terms["discriminator_loss"] = (
            terms["discriminator_loss"] + penalty * terms["gradient_penalty"]
        )
    return terms | _accuracies(on_real.detach(), on_fake.detach())


def generator_terms(
    discriminator: Discriminator, real: Tensor, fake: Tensor, labels: Tensor | None, loss: str
) -> dict[str, Tensor]:
    """Loss of the generator on (B, C, H, W) images in [-1, 1]; gradients pass through `fake`."""
    on_fake = discriminator(fake, labels)
    if loss == "relativistic":
        with torch.no_grad():
            on_real = discriminator(real, labels)
        return {"generator_loss": F.softplus(on_real - on_fake).mean()}
    return {"generator_loss": -on_fake.mean()}


def _discriminator_loss(on_real: Tensor, on_fake: Tensor, loss: str) -> Tensor:
    if loss == "relativistic":
        return F.softplus(on_fake - on_real).mean()
    if loss == "hinge":
        return F.relu(1 - on_real).mean() + F.relu(1 + on_fake).mean()
    return on_fake.mean() - on_real.mean()


def _squared_gradient(scores: Tensor, images: Tensor) -> Tensor:
    """Squared norm of each score's gradient at its image, or pack of images: (B / packed,)."""
    (gradient,) = torch.autograd.grad(scores.sum(), images, create_graph=True)
    return gradient.reshape(len(scores), -1).square().sum(dim=1)


def _slope_penalty(
    discriminator: Discriminator, real: Tensor, fake: Tensor, labels: Tensor | None
) -> Tensor:
    """How far the slope is from one, at random points between real and generated images."""
    share = torch.rand(len(real), 1, 1, 1, device=real.device)
    between = torch.lerp(real, fake, share).detach().requires_grad_(True)
    slope = (_squared_gradient(discriminator(between, labels), between) + 1e-12).sqrt()
    return (slope - 1).square().mean()


def _accuracies(on_real: Tensor, on_fake: Tensor) -> dict[str, Tensor]:
    """Shares of scores on the right side of the middle between the two means.

    Relativistic and Wasserstein scores have no absolute zero, so the middle stands for it.
    """
    middle = (on_real.mean() + on_fake.mean()) / 2
    return {
        "discriminator_accuracy_real": (on_real > middle).float().mean(),
        "discriminator_accuracy_fake": (on_fake < middle).float().mean(),
    }


def optimizers_of(gan: Gan, learning_rate: float) -> dict[str, Optimizer]:
    """Adam without momentum for both networks: in a game, momentum is what starts to swing."""
    return {
        name: Adam(network.parameters(), lr=learning_rate, betas=(0.0, 0.99), fused=True)
        for name, network in (("generator", gan.generator), ("discriminator", gan.discriminator))
    }


def labelled_batches(
    batches: ImageBatches, labels: Tensor | None
) -> Callable[[int], tuple[Tensor, Tensor | None]]:
    """Batches of images with their labels (N,) int64, each sorted by class.

    In this order packs hold images of one class, or nearly, and show how much a class varies.
    """

    def at(step: int) -> tuple[Tensor, Tensor | None]:
        if labels is None:
            return batches.at(step), None
        chosen = labels[batches.indices_at(step)]
        order = chosen.argsort(stable=True)
        return batches.at(step)[order], chosen[order]

    return at
