"""A small convolutional classifier: the space in which generated images are measured.

It is trained on the same data as the generative models, so distances between its features see what
tells these images apart; they cannot be compared across data sets or across classifiers. It learns
up to three lessons at once: the classes, where the data have some; how a picture is damaged
(models/metrics/corruptions.py), so that it sees noise and blur whatever tells the classes apart;
and, without classes, which views show the same picture (models/metrics/contrastive.py). The network
has neither dropout nor batch statistics: one image gives the same features in any batch, whether
training or not.

References: LeCun et al. 1998 (the network's shape); Ba et al. 2016 and Zhang and Sennrich 2019
(normalisation by layer, by root mean square).
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.metrics.contrastive import contrast, zoomed
from models.metrics.corruptions import KINDS, damaged
from models.training.config import FitConfig

PROJECTED = 32
"""Numbers in which views are compared."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ClassifierConfig:
    """The shape of a classifier."""

    channels: int = 1
    height: int = 8
    width: int = 8
    num_classes: int = 10
    """0 for pictures without labels: features alone, no logits."""
    feature_size: int = 32
    """Features per image."""
    base_width: int = 32
    """Feature maps of the first level; every further level has twice as many, at most 4 times."""
    head_size: int = 64
    """Units between the features and the logits."""
    augment_shift: int = 1
    """Training images are moved by up to so many pixels along both axes."""
    augment_probability: float = 0.5
    """Share of the training images that are moved."""
    augment_light: float = 0.0
    """Contrast of training images changes by up to this share, brightness by half of it."""
    augment_zoom: float = 1.0
    """Views that are to be told from others are seen up to so many times as large."""
    label_smoothing: float = 0.05
    """Share of the target's probability that is spread over all classes."""
    damage_weight: float = 0.0
    """What telling damages counts in the loss, against 1 for classes; 0 leaves it out."""
    contrast_weight: float = 0.0
    """What telling pictures apart counts in the loss; 0 leaves it out."""

    def __post_init__(self) -> None:
        if self.channels not in (1, 3):
            raise ValueError(f"channels must be 1 (grey) or 3 (colour), got {self.channels}")
        for name in ("height", "width"):
            if not 8 <= getattr(self, name) <= 64:
                raise ValueError(f"{name} must be 8 to 64 pixels, got {getattr(self, name)}")
        for name in ("feature_size", "base_width", "head_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.augment_shift <= 4:
            raise ValueError(f"augment_shift must be 0 to 4 pixels, got {self.augment_shift}")
        if not 0 <= self.augment_probability <= 1:
            raise ValueError(
                f"augment_probability must lie in [0, 1], got {self.augment_probability}"
            )
        if not 1 <= self.augment_zoom <= 2:
            raise ValueError(f"augment_zoom must lie in [1, 2], got {self.augment_zoom}")
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(f"label_smoothing must lie in [0, 1), got {self.label_smoothing}")
        self._check_lessons()

    def _check_lessons(self) -> None:
        if self.num_classes != 0 and self.num_classes < 2:
            raise ValueError(
                f"num_classes must be at least 2 (one class leaves nothing to tell apart), or 0"
                f" for pictures without labels, got {self.num_classes}"
            )
        for name in ("augment_light", "damage_weight", "contrast_weight"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}")
        if not (self.num_classes or self.damage_weight or self.contrast_weight):
            raise ValueError(
                "nothing to learn: without classes give a damage_weight or a contrast_weight"
            )

    @property
    def num_levels(self) -> int:
        """How often an image is halved: until its larger side is at most 7."""
        return math.ceil(math.log2(max(self.height, self.width) / 7))


class Level(nn.Module):
    """Convolve, halve, normalise each image over its feature maps."""

    def __init__(self, incoming: int, outgoing: int) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(incoming, outgoing, 3, padding=1)
        self.norm = nn.GroupNorm(1, outgoing)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C', H / 2, W / 2), halves rounded up."""
        return F.silu(self.norm(F.max_pool2d(self.convolution(x), 2, ceil_mode=True)))


class Classifier(nn.Module):
    """Images to features to logits.

    The features are a linear map of the last feature maps, scaled to a root mean square of 1: all
    lie on one sphere, so no stray image can dominate a Frechet distance, distances between them
    are at most 2 sqrt(feature_size), and x.y / feature_size in the kernel distance lies in
    [-1, 1]. Moving half of the training images keeps the features from shrinking to one point per
    class, where they could not see a model that draws one kind of each digit; the hidden layer
    between features and logits makes up for what that costs in accuracy.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        widths = [config.base_width * min(2**level, 4) for level in range(config.num_levels)]
        self.levels = nn.Sequential(
            *(
                Level(incoming, outgoing)
                for incoming, outgoing in zip([config.channels, *widths], widths, strict=False)
            )
        )
        scale = 2**config.num_levels
        cells = math.ceil(config.height / scale) * math.ceil(config.width / scale)
        self.to_features = nn.Linear(widths[-1] * cells, config.feature_size)
        if config.num_classes:
            self.head = self._head_of(config.num_classes)
        if config.damage_weight:
            self.damage_head = self._head_of(len(KINDS))
        if config.contrast_weight:
            self.contrast_head = self._head_of(PROJECTED)

    def _head_of(self, num_outputs: int) -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(self.config.feature_size, self.config.head_size),
            nn.SiLU(),
            nn.Linear(self.config.head_size, num_outputs),
        )

    def features(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to (B, feature_size), each row of mean square 1."""
        maps = self.levels(images * 2 - 1)  # (B, C', h, w)
        x = self.to_features(maps.flatten(1))
        return F.rms_norm(x, (x.shape[-1],))

    def forward(self, images: Tensor) -> Tensor:
        """(B, C, H, W) in [0, 1] to logits (B, num_classes). Raises ValueError without classes."""
        if not self.config.num_classes:
            raise ValueError("it was trained without labels and knows no classes")
        logits: Tensor = self.head(self.features(images))
        return logits

    def losses(self, batch: tuple[Tensor, Tensor], step: int) -> dict[str, Tensor]:
        """The lessons' losses in nats per image, their weighted sum, and hits at the classes.

        batch: images (B, C, H, W) in [0, 1] and labels (B,) int64, which count where there are
        classes. Without classes "accuracy" is that of telling damages.
        """
        images, labels = batch
        config, number = self.config, len(images)
        shown = [self._view(images)]
        if config.contrast_weight:
            shown.append(self._view(images))
        kinds: list[int] = []
        if config.damage_weight:  # half as many spoilt ones, beside the first view's good ones
            kinds = [1 + index % (len(KINDS) - 1) for index in range(max(1, number // 2))]
            shown.append(damaged(self._view(images[: len(kinds)]), kinds))
        features = self.features(torch.cat(shown))
        good, spoilt = features[:number], features[len(features) - len(kinds) :]
        terms: dict[str, Tensor] = {"loss": features.new_zeros(())}
        if config.num_classes:
            logits = self.head(good)
            loss = F.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            terms |= {"loss": loss, "accuracy": _hits(logits, labels)}
        if config.damage_weight:
            wanted = torch.tensor([0] * number + kinds, device=images.device)
            logits = self.damage_head(torch.cat([good, spoilt]))
            terms["damage_loss"] = F.cross_entropy(logits, wanted)
            terms["loss"] = terms["loss"] + config.damage_weight * terms["damage_loss"]
            terms.setdefault("accuracy", _hits(logits, wanted))
        if config.contrast_weight:
            views = self.contrast_head(features[: 2 * number])
            terms["contrast_loss"] = contrast(*views.split(number))
            terms["loss"] = terms["loss"] + config.contrast_weight * terms["contrast_loss"]
            terms.setdefault("accuracy", terms["loss"].new_zeros(()))
        return terms

    def _view(self, images: Tensor) -> Tensor:
        """The images as training shows them: moved, and in another light."""
        config = self.config
        moved = zoomed(images, config.augment_zoom) if config.contrast_weight else images
        return relit(
            shifted(moved, config.augment_shift, config.augment_probability), config.augment_light
        )


def _hits(logits: Tensor, wanted: Tensor) -> Tensor:
    return (logits.argmax(1) == wanted).float().mean()


def relit(images: Tensor, most: float) -> Tensor:
    """Images (N, C, H, W) with contrast changed by up to `most`, each channel's light by half.

    Draws from torch's global generator.
    """
    if most == 0:
        return images
    contrasts = 1 + most * (2 * torch.rand(len(images), 1, 1, 1) - 1)
    lights = most / 2 * (2 * torch.rand(*images.shape[:2], 1, 1) - 1)
    means = images.mean((2, 3), keepdim=True)
    return (images - means) * contrasts.to(images.device) + means + lights.to(images.device)


def shifted(images: Tensor, largest: int, probability: float = 1.0) -> Tensor:
    """Images, each moved with a probability by up to `largest` whole pixels along both axes.

    Draws from torch's global generator. What enters repeats the border: (B, C, H, W) to the same.
    """
    if largest == 0 or probability == 0:
        return images
    B, _, H, W = images.shape
    moves = torch.randint(2 * largest + 1, (2, B, 1))
    moves = torch.where(torch.rand(B, 1) < probability, moves, largest)  # `largest` stays put
    offsets = moves.to(images.device)
    rows = offsets[0] + torch.arange(H, device=images.device)  # (B, H)
    columns = offsets[1] + torch.arange(W, device=images.device)  # (B, W)
    padded = F.pad(images, (largest,) * 4, mode="replicate")
    which = torch.arange(B, device=images.device)
    moved = padded[which[:, None, None], :, rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
    return moved.permute(0, 3, 1, 2)


def make_optimizer(model: Classifier, fit: FitConfig) -> torch.optim.Optimizer:
    """AdamW; weight decay acts on weights, not on biases and scales."""
    weights = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim <= 1]
    groups = [
        {"params": weights, "weight_decay": fit.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=fit.learning_rate, betas=(0.9, 0.99), fused=True)
