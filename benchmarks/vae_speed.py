"""Images per second: our training loop against pythae's trainer, on the same networks.

Two networks train on the same binary MNIST digits: our standard one for 28x28 images, and
pythae's own default (dense layers). The contestants take turns, so that a busy machine disturbs
them alike; each turn is one pass over the images. pythae gets our network through its BaseEncoder
and BaseDecoder in plain memory layout, as its users would, and once more in our channels-last
layout, which leaves the trainers' own work as the only difference.
pythae's source is looked for under $PYTHAE_SOURCE (the folder that holds the package); without it
only our own speed is measured. The floor is the time that the network's multiplications take at
the speed of this machine's own matrix product.

    PYTHAE_SOURCE=.../benchmark_VAE/src python -m benchmarks.vae_speed
"""

import importlib
import logging
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measured import record
from models.presets import ImageShape
from models.training.batches import ImageBatches
from models.training.loops import likelihood_steps
from models.vae.model import Vae
from models.vae.recipe import vae_recipe
from tasks.data.sources import read_mnist

NUM_IMAGES, NUM_TURNS, BATCH_SIZE = 6400, 7, 64
MNIST = ImageShape(1, 28, 28)


def our_seconds(model: nn.Module, pixels: Tensor) -> float:
    """One pass over the images with our loop."""
    fit = vae_recipe("standard", MNIST, seed=0)["training"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True)
    steps = likelihood_steps(model, optimizer, ImageBatches(pixels, BATCH_SIZE, 0).at, fit)
    next(steps)  # the first step allocates
    started = time.perf_counter()
    for _ in range(len(pixels) // BATCH_SIZE):
        next(steps)
    return time.perf_counter() - started


def pythae_seconds(model: Any, pixels: Tensor) -> float:
    """One epoch of pythae's BaseTrainer over the same images."""
    trainers: Any = importlib.import_module("pythae.trainers")
    datasets: Any = importlib.import_module("pythae.data.datasets")
    data = datasets.BaseDataset(pixels.float() / 255, torch.zeros(len(pixels)))
    with tempfile.TemporaryDirectory() as folder:
        settings = trainers.BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            per_device_train_batch_size=BATCH_SIZE,
            learning_rate=1e-3,
            optimizer_cls="AdamW",
        )
        trainer = trainers.BaseTrainer(model, data, training_config=settings)
        trainer.prepare_training()
        trainer.callback_handler.callbacks.clear()  # its progress bars would cost it time
        started = time.perf_counter()
        trainer.train_step(1)
        return time.perf_counter() - started


def our_network() -> Vae:
    """The standard network for 28x28 images, in channels-last layout."""
    torch.manual_seed(0)
    return Vae(vae_recipe("standard", MNIST, seed=0)["model"])


def as_pythae(vae: Vae, memory_format: torch.memory_format) -> Any:
    """Our network as a pythae VAE, in a memory layout."""
    models: Any = importlib.import_module("pythae.models")
    size = vae.config.latent_size
    config = models.VAEConfig(input_dim=(1, 28, 28), latent_dim=size, reconstruction_loss="bce")
    return models.VAE(config, *_wrapped(vae.to(memory_format=memory_format)))


def pythae_network() -> Any:
    """pythae's default VAE of dense layers."""
    models: Any = importlib.import_module("pythae.models")
    torch.manual_seed(0)
    return models.VAE(
        models.VAEConfig(input_dim=(1, 28, 28), latent_dim=20, reconstruction_loss="bce")
    )


class AsLikelihoodModel(nn.Module):
    """A pythae model as our loop wants it."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def losses(self, images: Tensor, step: int) -> dict[str, Tensor]:
        """The loss of pythae's own forward pass."""
        return {"loss": self.model({"data": images}).loss}


def _wrapped(vae: Vae) -> tuple[nn.Module, nn.Module]:
    """Our two networks behind pythae's interface, whose likelihood wants probabilities."""
    networks: Any = importlib.import_module("pythae.models.nn")
    output = importlib.import_module("pythae.models.base.base_utils").ModelOutput

    class WrappedEncoder(networks.BaseEncoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = vae.encoder

        def forward(self, images: Tensor) -> Any:
            mean, log_variance = self.network(images)
            return output(embedding=mean, log_covariance=log_variance)

    class WrappedDecoder(networks.BaseDecoder):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self.network = vae.decoder

        def forward(self, z: Tensor) -> Any:
            return output(reconstruction=torch.sigmoid(self.network(z)))

    return WrappedEncoder(), WrappedDecoder()


def floor_seconds() -> float:
    """Seconds per image that the multiplications of one update need at matrix-product speed."""
    config, fit = vae_recipe("standard", MNIST, seed=0).values()
    model, images = Vae(config), torch.rand(fit.batch_size, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        model.losses(images, step=0)["loss"].backward()  # type: ignore[no-untyped-call]
    a, b = torch.randn(1024, 1024), torch.randn(1024, 1024)
    times = []
    for _ in range(20):
        started = time.perf_counter()
        a @ b
        times.append(time.perf_counter() - started)
    flops_per_second = 2 * 1024**3 / min(times)
    print(
        f"{counter.get_total_flops() / fit.batch_size / 1e6:.1f} MFLOP per image and update;"
        f" matrix product {flops_per_second / 1e9:.0f} GFLOP/s"
    )
    return counter.get_total_flops() / fit.batch_size / flops_per_second


def has_pythae() -> bool:
    """Whether pythae can be imported, from $PYTHAE_SOURCE or as installed."""
    if source := os.environ.get("PYTHAE_SOURCE"):
        sys.path.insert(0, source)
    try:
        importlib.import_module("pythae.trainers")
    except ImportError as error:
        print(f"pythae is not here ({error}): no ratio; set PYTHAE_SOURCE to its src folder")
        return False
    for name in list(logging.root.manager.loggerDict):
        if name.startswith("pythae"):  # each has a level and a handler of its own
            logging.getLogger(name).disabled = True
    return True


def contests(pixels: Tensor, with_pythae: bool) -> dict[str, Callable[[], float]]:
    """Seconds of one pass, by contestant."""
    ours = {"ours": lambda: our_seconds(our_network(), pixels)}
    if not with_pythae:
        return ours
    plain, last = torch.contiguous_format, torch.channels_last
    return {
        **ours,
        "pythae": lambda: pythae_seconds(as_pythae(our_network(), plain), pixels),
        "pythae, our layout": lambda: pythae_seconds(as_pythae(our_network(), last), pixels),
        "ours, its network": lambda: our_seconds(AsLikelihoodModel(pythae_network()), pixels),
        "pythae, its network": lambda: pythae_seconds(pythae_network(), pixels),
    }


def main() -> None:
    """Measure in turns, and put the rows into the table (one without pythae)."""
    pixels = torch.from_numpy(read_mnist().pixels[:NUM_IMAGES])
    pixels = (pixels > 127).to(torch.uint8) * 255
    contestants = contests(pixels, has_pythae())
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(NUM_TURNS):
        for name, seconds in contestants.items():
            speeds[name].append(NUM_IMAGES / seconds())
        print("  ".join(f"{name} {found[-1]:.0f}/s" for name, found in speeds.items()), flush=True)
    record(
        "vae_images_per_second",
        statistics.median(speeds["ours"]),
        "images/s",
        reference="bound by the machine's matrix product",
        reference_value=1 / floor_seconds(),
    )
    for suffix, mine, theirs in (
        ("", "ours", "pythae"),
        ("_same_layout", "ours", "pythae, our layout"),
        ("_its_network", "ours, its network", "pythae, its network"),
    ):
        if theirs in speeds:
            pairs = zip(speeds[mine], speeds[theirs], strict=True)
            record(
                f"vae_images_per_second_ratio_pythae{suffix}",
                statistics.median(own / other for own, other in pairs),
                "times as fast",
                reference=f"{theirs}: same network, batch and machine, in turns; images/s",
                reference_value=statistics.median(speeds[theirs]),
            )


if __name__ == "__main__":
    main()
