"""Images per second: our training loop against pythae's trainer, on one network and batch size.

Both train the standard network for 28x28 images on the same binary MNIST digits, in turns, so that
a busy machine disturbs both alike; each turn is one pass over the images. pythae gets the network
through its own BaseEncoder and BaseDecoder, in both memory layouts; the ratio is against the
faster. Its source is looked for under $PYTHAE_SOURCE (the folder that holds the package); without
it only our own speed is measured. The floor is the time that the network's multiplications take at
the speed of this machine's own matrix product.

    PYTHAE_SOURCE=.../benchmark_VAE/src python -m benchmarks.vae_speed
"""

import contextlib
import importlib
import io
import logging
import os
import statistics
import sys
import tempfile
import time
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.measured import record
from models.batches import ImageBatches
from models.fitting import likelihood_steps
from models.recipes import vae_recipe
from models.vae import Vae, make_optimizer
from tasks.sources import read_mnist

NUM_IMAGES, NUM_TURNS = 12_800, 5


def our_seconds(pixels: Tensor) -> float:
    """One pass over the images with our loop, from a new model."""
    config, fit = vae_recipe("standard", 1, 28, 28, seed=0)
    torch.manual_seed(0)
    model = Vae(config)
    batches = ImageBatches(pixels, fit.batch_size, seed=0)
    steps = likelihood_steps(model, make_optimizer(model, fit), batches.at, fit)
    next(steps)  # the first step allocates
    started = time.perf_counter()
    for _ in range(len(pixels) // fit.batch_size):
        next(steps)
    return time.perf_counter() - started


def pythae_seconds(pixels: Tensor, memory_format: torch.memory_format) -> float:
    """One epoch of pythae's BaseTrainer over the same images, with the same two networks."""
    models = importlib.import_module("pythae.models")
    trainers = importlib.import_module("pythae.trainers")
    config, fit = vae_recipe("standard", 1, 28, 28, seed=0)
    torch.manual_seed(0)
    ours = Vae(config).to(memory_format=memory_format)
    encoder, decoder = _wrapped(ours)
    model = models.VAE(
        models.VAEConfig(
            input_dim=(1, 28, 28), latent_dim=config.latent_size, reconstruction_loss="bce"
        ),
        encoder,
        decoder,
    )
    with tempfile.TemporaryDirectory() as folder:
        settings = trainers.BaseTrainerConfig(
            output_dir=folder,
            num_epochs=1,
            per_device_train_batch_size=fit.batch_size,
            learning_rate=1e-3,
            optimizer_cls="AdamW",
        )
        data = importlib.import_module("pythae.data.datasets").BaseDataset(
            pixels.float() / 255, torch.zeros(len(pixels))
        )
        trainer = trainers.BaseTrainer(model, data, training_config=settings)
        trainer.prepare_training()
        trainer.callback_handler.callbacks.clear()  # no progress bars: they cost it time
        started = time.perf_counter()
        trainer.train_step(1)
        return time.perf_counter() - started


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
    config, fit = vae_recipe("standard", 1, 28, 28, seed=0)
    model, images = Vae(config), torch.rand(fit.batch_size, 1, 28, 28)
    with FlopCounterMode(display=False) as counter:
        model.training_terms(images, step=0)["loss"].backward()  # type: ignore[no-untyped-call]
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
    logging.getLogger("pythae").setLevel(logging.ERROR)
    return True


def main() -> None:
    """Measure in turns, and put two rows into the table (one without pythae)."""
    pixels = torch.from_numpy(read_mnist().pixels[:NUM_IMAGES])
    binary = (pixels > 127).to(torch.uint8) * 255
    contestants = {"ours": lambda: our_seconds(binary)}
    if has_pythae():
        for name, layout in (
            ("pythae", torch.contiguous_format),
            ("pythae, channels last", torch.channels_last),
        ):
            contestants[name] = lambda layout=layout: pythae_seconds(binary, layout)
    speeds: dict[str, list[float]] = {name: [] for name in contestants}
    for _ in range(NUM_TURNS):
        for name, seconds in contestants.items():
            with contextlib.redirect_stderr(io.StringIO()):
                speeds[name].append(NUM_IMAGES / seconds())
        print("  ".join(f"{name} {found[-1]:.0f}/s" for name, found in speeds.items()), flush=True)
    floor = 1 / floor_seconds()
    record(
        "vae_images_per_second",
        statistics.median(speeds["ours"]),
        "images/s",
        reference="bound by the machine's matrix product",
        reference_value=floor,
    )
    if len(speeds) > 1:
        rivals = [max(pair) for pair in zip(*list(speeds.values())[1:], strict=True)]
        ratios = [mine / theirs for mine, theirs in zip(speeds["ours"], rivals, strict=True)]
        record(
            "vae_images_per_second_ratio_pythae",
            statistics.median(ratios),
            "times as fast",
            reference="pythae's trainer, same network, batch and machine, in turns; images/s",
            reference_value=statistics.median(rivals),
        )


if __name__ == "__main__":
    main()
