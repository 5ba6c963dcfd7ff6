"""Models follow the device of their data, checked without that device.

Fake tensors have a device and a shape, and no numbers: PyTorch's compiler works with them. An
operation on a fake "cuda" tensor and on one that stayed behind on the CPU fails as on a GPU.
Backward passes need a real device; their tensors lie where those of the forward pass do.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode

from models.gan.model import Gan
from models.gan.recipe import gan_recipe
from models.gpt.model import Gpt
from models.gpt.recipe import gpt_recipe
from models.metrics.classifier import Classifier
from models.metrics.recipe import classifier_recipe
from models.metrics.sample_quality import features_of
from models.presets import ImageShape, TextShape
from models.text.decoding import DecodingConfig, filtered_log_probs
from models.training.batches import ImageBatches, TokenBatches
from models.vae.model import Vae
from models.vae.recipe import vae_recipe

SHAPE = ImageShape(1, 8, 8, 10)
Model = TypeVar("Model", bound=nn.Module)


@contextmanager
def gpu() -> Iterator[None]:
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def on_gpu(model: Model) -> Model:
    """`model.to("cuda")`, which cannot turn real tensors into fake ones."""
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = nn.Parameter(
                    torch.empty_like(parameter, device="cuda"), parameter.requires_grad
                )
        for name, buffer in module._buffers.items():
            if buffer is not None:
                module._buffers[name] = torch.empty_like(buffer, device="cuda")
    return model


def labelled_batch() -> tuple[Tensor, Tensor]:
    pixels = torch.zeros(32, 1, 8, 8, dtype=torch.uint8, device="cuda")
    labels = torch.zeros(32, dtype=torch.long, device="cuda")
    batches = ImageBatches(pixels, batch_size=16, seed=0)
    return batches.at(0), labels[batches.indices_at(0)]


def check_on_gpu(*tensors: Tensor) -> None:
    assert {tensor.device.type for tensor in tensors} == {"cuda"}


def test_a_tensor_left_on_the_cpu_is_noticed() -> None:
    with gpu(), pytest.raises(RuntimeError, match="same device"):
        torch.zeros(2, 2, device="cuda") @ torch.zeros(2, 2)


def test_vae() -> None:
    model = Vae(vae_recipe("quick", SHAPE, seed=0)["model"])
    with gpu():
        images, _ = labelled_batch()
        terms = on_gpu(model).losses(images, 0)
        check_on_gpu(terms["loss"], terms["reconstruction"], terms["kl"], model.sample(5, seed=0))


def test_classifier() -> None:
    model = Classifier(classifier_recipe(SHAPE)["model"])
    with gpu():
        check_on_gpu(*on_gpu(model).losses(labelled_batch(), 0).values())


def test_the_judge_sees_images_where_it_is() -> None:
    judge = Classifier(classifier_recipe(SHAPE)["model"])
    with gpu():
        check_on_gpu(features_of(on_gpu(judge), np.zeros((5, 1, 8, 8), dtype=np.uint8)))


def test_gan() -> None:
    model = Gan(gan_recipe("quick", SHAPE, 0)["model"])
    with gpu():
        images, labels = labelled_batch()
        drawn = on_gpu(model).draw((images, labels))
        check_on_gpu(drawn, *model.generator_terms((images, labels), drawn, 0.1).values())


@pytest.mark.filterwarnings("ignore:CUDA is not available")  # says autocast, of lower precision
def test_gpt() -> None:
    model = Gpt(gpt_recipe("quick", TextShape("characters", 65, 10_000), seed=0)["model"])
    with gpu():
        tokens = torch.zeros(1000, dtype=torch.int16, device="cuda")
        batch = TokenBatches(tokens, model.context_length, batch_size=4, seed=0).at(0)
        check_on_gpu(on_gpu(model).losses(batch, 0)["loss"])

        log_probs = model.stream(4).feed(batch[0][:, :3])
        check_on_gpu(filtered_log_probs(log_probs, DecodingConfig(top_k=5, top_p=0.9, min_p=0.1)))
