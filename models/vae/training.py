"""Training the VAE: both losses and the use of z measured, the best validated weights kept."""

from collections.abc import Iterator
from dataclasses import replace
from typing import ClassVar

import torch
from torch import Tensor

from models.training.batches import INITIAL_STREAM, ImageBatches, seed_at
from models.training.config import FitConfig
from models.training.loops import Step
from models.training.protocol import ImageData, Trained
from models.training.stored_data import rows_of
from models.training.validated import ValidatedFit
from models.vae.config import VaeConfig
from models.vae.elbo import active_units, binarize, collapse_alarm, negative_elbo
from models.vae.latent_mixture import fit_mixture
from models.vae.model import Vae, make_optimizer

NUM_VALIDATIONS = 20
VALIDATION_IMAGES = 1000
GRID_COLUMNS = 10


class VaeTraining:
    """One training of a VAE; see `models.training.protocol.Training`."""

    shown: ClassVar = ("negative_elbo", "reconstruction", "kl")
    grid_title: ClassVar = "held-out - reconstructed - new"

    def __init__(
        self, data: ImageData, device: torch.device, model: VaeConfig, training: FitConfig
    ) -> None:
        torch.manual_seed(seed_at(training.seed, 0, INITIAL_STREAM))
        vae = Vae(model).to(device)
        self._fit = ValidatedFit(vae, make_optimizer(vae, training), training)
        self.num_steps, self.state = training.steps, self._fit.state
        self._train = rows_of(data.train, device)
        self._held_out = torch.from_numpy(data.validation[:VALIDATION_IMAGES].copy())
        self._validation = self._held_out.to(device).float() / 255
        if model.likelihood == "bernoulli":
            self._validation = binarize(self._validation, seed=0)
        self._told: str | None = None

    def steps(self) -> Iterator[Step]:
        """Updates, with losses on the validation images and the use made of z now and then."""
        fit = self._fit.fit
        batches = ImageBatches(self._train, fit.batch_size, fit.seed, fit.shards)
        return self._fit.steps(batches.at, self._validated, NUM_VALIDATIONS)

    def _validated(self, step: Step) -> Step:
        """Losses on the validation images, the use made of z, and the alarm if there is cause."""
        model = self._fit.model.eval()
        losses = negative_elbo(model, self._validation, seed=0)
        loss, kl = (float(losses[name].mean()) for name in ("negative_elbo", "kl"))
        num_active = active_units(model, self._validation)
        alarm = collapse_alarm(kl, num_active, model.config.latent_size)
        measured = {
            "validation_negative_elbo": loss,
            "validation_kl": kl,
            "active_units": float(num_active),
            "collapse_alarm": float(alarm is not None),
        }
        # Before the KL counts in full, losses do not compare; but some weights must be kept.
        counts = step.step > model.config.kl_warmup_steps or step.step == self.num_steps
        if counts:
            self._fit.best.offer(step.step, loss, model)
        remarks: tuple[str, ...] = ()
        if counts:  # told when it changes: it may stand for the rest of a training
            remarks = (f"step {step.step}: {alarm}",) if alarm and alarm != self._told else ()
            self._told = alarm
        return replace(step, measured=measured, remarks=remarks)

    def drawn(self) -> Tensor:
        """Three rows: images never trained on, what is left of them after z, and new ones."""
        model = self._fit.model.eval()
        originals = self._held_out[:GRID_COLUMNS].to(model.mixture_means.device).float() / 255
        rows = (originals, model.reconstruct(originals), model.sample(GRID_COLUMNS, seed=0))
        return torch.cat(rows)

    def finish(self, scratch: str) -> Trained:
        """The weights that validated best, with the mixture that samples are drawn from."""
        del scratch
        fit_mixture(self._fit.best.model.eval(), self._train, seed=self._fit.fit.seed)
        return self._fit.kept()
