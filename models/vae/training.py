"""Training the VAE: both losses and the use of z measured, the best validated weights kept."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.checkpoint import BestWeights, TrainingState, num_parameters
from models.training.loops import FitConfig, Step, likelihood_steps
from models.training.protocol import ImageData, Trained
from models.vae.elbo import active_units, binarize, collapse_alarm, negative_elbo
from models.vae.latent_mixture import fit_mixture
from models.vae.model import Vae, VaeConfig, make_optimizer

NUM_VALIDATIONS = 20
VALIDATION_IMAGES = 1000
GRID_COLUMNS = 10


class VaeTraining:
    """One training of a VAE; see `models.training.protocol.Training`."""

    shown: ClassVar = ("negative_elbo", "reconstruction", "kl")
    grid_title: ClassVar = "held-out - reconstructed - new"

    def __init__(
        self, data: ImageData, device: torch.device, config: VaeConfig, fit: FitConfig
    ) -> None:
        torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
        self.num_steps = fit.steps
        self._fit = fit
        self._model = Vae(config).to(device)
        self._optimizer = make_optimizer(self._model, fit)
        self._best = BestWeights(self._model)
        self.state = TrainingState(
            {"model": self._model, "best": self._best.model},
            {"all": self._optimizer},
            {"best": self._best},
        )
        self._train = torch.from_numpy(data.train.copy()).to(device)
        self._held_out = torch.from_numpy(data.validation[:VALIDATION_IMAGES].copy())
        self._validation = self._held_out.to(device).float() / 255
        if config.likelihood == "bernoulli":
            self._validation = binarize(self._validation, seed=0)

    def steps(self) -> Iterator[Step]:
        """Updates, with losses on the validation images and the use made of z now and then."""
        fit, config = self._fit, self._model.config
        batches = ImageBatches(self._train, fit.batch_size, fit.seed)
        validate_every = max(1, fit.steps // NUM_VALIDATIONS)
        for step in likelihood_steps(
            self._model, self._optimizer, batches.at, fit, self.state.step
        ):
            if step.step % validate_every and step.step != fit.steps:
                yield step
                continue
            self._model.eval()
            measured, alarm = self._validated()
            counts = step.step > config.kl_warmup_steps
            if counts:
                self._best.offer(step.step, measured["validation_negative_elbo"], self._model)
            remarks = (f"step {step.step}: {alarm}",) if counts and alarm else ()
            yield replace(step, measured=measured, remarks=remarks)

    def _validated(self) -> tuple[dict[str, float], str | None]:
        """Losses on the validation images, the use made of z, and the alarm if there is cause."""
        losses = negative_elbo(self._model, self._validation, seed=0)
        loss, kl = (float(losses[name].mean()) for name in ("negative_elbo", "kl"))
        num_active = active_units(self._model, self._validation)
        alarm = collapse_alarm(kl, num_active, self._model.config.latent_size)
        measured = {
            "validation_negative_elbo": loss,
            "validation_kl": kl,
            "active_units": float(num_active),
            "collapse_alarm": float(alarm is not None),
        }
        return measured, alarm

    def drawn(self) -> Tensor:
        """Three rows: images never trained on, what is left of them after z, and new ones."""
        model = self._model.eval()
        originals = self._held_out[:GRID_COLUMNS].to(model.mixture_means.device).float() / 255
        rows = (originals, model.reconstruct(originals), model.sample(GRID_COLUMNS, seed=0))
        return torch.cat(rows)

    def finish(self, scratch: str) -> Trained:
        """The weights that validated best, with the mixture that samples are drawn from."""
        del scratch
        model = self._best.model.eval()
        fit_mixture(model, self._train.float() / 255, seed=self._fit.seed)
        return Trained(
            tensors=model.state_dict(),
            config=model.config,
            num_parameters=num_parameters(self._model),
            remarks=(f"the weights of step {self._best.step} did best on the validation split",),
        )
