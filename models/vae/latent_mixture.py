"""A Gaussian mixture on the codes of a VAE: where in the latent space images really lie.

Points drawn from the prior can fall between the codes, where the decoder never learned anything.
References: Dempster et al. 1977 (expectation maximisation); Arthur and Vassilvitskii 2007
(k-means++, the start); Ghosh et al. 2020 (mixtures on the codes of an auto-encoder).
"""

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor

from models.training.batches import generator_at
from models.vae.model import Vae, in_parts

if TYPE_CHECKING:
    from models.training.stored_data import Rows

MIXTURE_STREAM = 13  # of a seed's randomness, apart from those of training and sampling

MAX_MIXTURE_CODES = 10_000
"""Images that the mixture is fitted on, at most: bounds memory and time."""


@torch.no_grad()
def fit_mixture(model: Vae, images: "Rows", seed: int, num_rounds: int = 50) -> None:
    """Fit the model's Gaussian mixture on the posterior means of images.

    images: (N, C, H, W), floats in [0, 1] or uint8.

    Expectation maximisation with full covariances, in float64, from codes that the seed chooses.
    Means of grey images carry less noise than draws of z for binary ones, and the mixture's samples
    are that much easier to recognise.
    """
    generator = generator_at(seed, 0, MIXTURE_STREAM)
    chosen = torch.randperm(len(images), generator=generator)[:MAX_MIXTURE_CODES]
    parts = (_grey(images[part]) for part in in_parts(chosen.to(images.device)))
    z = torch.cat([model.encode(part)[0] for part in parts]).cpu().double()  # (N, Z)
    components, latent_size = model.mixture_means.shape
    ridge = 1e-3 * torch.eye(latent_size, dtype=z.dtype)  # keeps a component of few codes proper
    nearest = torch.cdist(z, spread_codes(z, components, generator)).argmin(1)
    shares = F.one_hot(nearest, components).to(z).T  # (K, N): who belongs to whom
    for _ in range(num_rounds):
        shares = shares + 1e-8
        totals = shares.sum(1)
        weights, means = totals / totals.sum(), shares @ z / totals[:, None]
        centred = z - means[:, None]  # (K, N, Z)
        scaled = centred * (shares / totals[:, None]).sqrt()[:, :, None]
        factors = torch.linalg.cholesky(scaled.mT @ scaled + ridge)  # (K, Z, Z)
        whitened = torch.linalg.solve_triangular(factors, centred.mT, upper=False)
        log_volume = factors.diagonal(dim1=1, dim2=2).log().sum(1)
        scores = weights.log() - log_volume - whitened.square().sum(1).T / 2  # (N, K)
        shares = scores.softmax(1).T
    model.mixture_weights.copy_(weights)
    model.mixture_means.copy_(means)
    model.mixture_factors.copy_(factors)


def _grey(images: Tensor) -> Tensor:
    return images.float() / 255 if images.dtype == torch.uint8 else images


def spread_codes(codes: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Codes (count, Z) far from each other, each drawn by its squared distance to those before.

    The start of k-means++ (Arthur and Vassilvitskii 2007), from codes (N, Z).
    """
    chosen = codes[:1]
    while len(chosen) < count:
        distances = torch.cdist(codes, chosen).amin(1).square() + 1e-12  # equal codes are allowed
        further = torch.multinomial(distances, 1, generator=generator)
        chosen = torch.cat([chosen, codes[further]])
    return chosen
