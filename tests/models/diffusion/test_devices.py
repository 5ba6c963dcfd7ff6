"""The diffusion model puts all of its tensors where it is: on a GPU that is only imagined."""

from dataclasses import replace

from models.diffusion.model import Diffusion
from models.diffusion.recipe import diffusion_recipe
from models.diffusion.sampling import sample
from tests.models.test_devices import SHAPE, check_on_gpu, gpu, labelled_batch, on_gpu


def test_diffusion() -> None:
    config = diffusion_recipe("quick", SHAPE, 0)["model"]
    model = Diffusion(replace(config, augment_probability=0.5))
    with gpu():
        losses = on_gpu(model).losses(labelled_batch(), 0)
        check_on_gpu(*losses.values(), sample(model.average, 5, seed=0))
