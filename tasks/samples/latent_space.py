"""What an image model with a latent space shows: images through it, and the ways between them."""

from typing import Any

import numpy as np

from tasks import plots
from tasks.samples.drawing import COLUMNS, Keep


def reconstructions_and_interpolations(model: Any, _seed: int, keep: Keep) -> None:
    """Held-out images above what is left of them after z, and walks from one to another.

    model: a SampleModel with `reconstruct` and `interpolate`; the images are those it carries.
    """
    real = model.examples.numpy()[:COLUMNS]
    pairs = np.concatenate([real, model.reconstruct(real)])
    keep("reconstructions.png", plots.grid(pairs, COLUMNS), "held-out, reconstructed")
    ways = [model.interpolate(real[i], real[i + 1], COLUMNS) for i in range(0, 6, 2)]
    keep(
        "interpolation.png",
        plots.grid(np.concatenate(ways), COLUMNS),
        "from one held-out image to another, through the latent space",
    )
