"""The file that MLflow executes to load a registered version: code, safetensors and JSON only.

It travels inside every version beside a copy of `models/`, so it imports nothing else of the
project. Each row of a request asks for `num_samples` samples; parameters hold for all rows.
"""

import base64
import io
import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import torch
from mlflow.pyfunc.model import PythonModel, PythonModelContext
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor

from models import gan_networks, vae
from models.decoding import DecodingConfig, generate
from models.gpt import Gpt, GptConfig
from models.ngram import NgramConfig, NgramModel
from models.tokenizer import readable, tokenizer_from_dict

MOST_SAMPLES, MOST_TOKENS = 10_000, 20_000
MOST_TOKENS_IN_ALL = 1_000_000
"""Samples and tokens that one request may ask for, all rows together."""


class SampleModel(PythonModel):
    """A trained generative model of any family that draws samples on request."""

    def load_context(self, context: PythonModelContext) -> None:
        """Rebuild the model from the version's files, and listen for unknown parameters."""
        self.restore({name: Path(path) for name, path in context.artifacts.items()})
        remarks = logging.getLogger("mlflow.models.utils")
        remarks.setLevel(logging.WARNING)  # whatever $MLFLOW_LOGGING_LEVEL says
        remarks.addFilter(self._refuse_unknown_parameters)

    def restore(self, paths: Mapping[str, Path]) -> None:
        """Rebuild the model from files by name: config, weights, and what its family needs."""
        record = _json(paths["config"])
        self.family: str = record["family"]
        self.config: dict[str, Any] = record["config"]
        tensors = load_file(paths["weights"])
        if self.family in ("vae", "gan"):
            self.examples = load_file(paths["examples"])["examples"]  # (N, C, H, W) uint8
        else:
            self.tokenizer = tokenizer_from_dict(_json(paths["tokenizer"]))
            self.prompt: str = _json(paths["sampling"])["prompt"]
        self.model = _BUILDERS[self.family](self.config, tensors)

    def predict(
        self,
        context: PythonModelContext,
        model_input: pd.DataFrame,
        params: dict[str, Any] | None = None,
    ) -> pd.DataFrame:
        """Samples for each row: PNG pictures in base64, or texts."""
        given = params or {}
        requests = model_input.to_dict("records") or [{}]
        self._check_work(len(requests), given)
        rows = []
        for index, request in enumerate(requests):
            known = {name: value for name, value in request.items() if not pd.isna(value)}
            for sample in self._samples({**given, **known}):
                rows.append({"request": index, **sample})
        return pd.DataFrame(rows)

    def _check_work(self, num_requests: int, given: dict[str, Any]) -> None:
        """Refuse what would keep a server busy for hours, before anything is drawn."""
        num_samples = num_requests * int(given.get("num_samples", 1))
        _check_range("num_samples over all rows", num_samples, 1, MOST_SAMPLES)
        if self.family in ("ngram", "gpt"):
            num_tokens = num_samples * int(given.get("num_tokens", 200))
            _check_range("num_tokens over all samples", num_tokens, 1, MOST_TOKENS_IN_ALL)

    def _refuse_unknown_parameters(self, record: logging.LogRecord) -> bool:
        """Turn MLflow's remark on a parameter that this model does not know into an error.

        MLflow drops unknown parameters before they reach `predict`, and says so in its log only:
        a misspelt "temprature" would be answered as if nothing had been asked. Remarks on other
        models' parameters pass; they name other ones as supported.
        """
        remark = record.getMessage()
        ours = PARAMETERS[self.family]
        if remark.startswith("Unrecognized params") and all(f"'{name}'" in remark for name in ours):
            unknown = remark.removeprefix("Unrecognized params ").partition(" are ignored")[0]
            raise mlflow.exceptions.MlflowException.invalid_parameter_value(
                f"unknown parameters {unknown}; this model knows {', '.join(ours)}"
            )
        return True

    def _samples(self, asked: dict[str, Any]) -> list[dict[str, Any]]:
        num_samples, seed = int(asked.get("num_samples", 1)), int(asked.get("seed", 0))
        temperature = float(asked.get("temperature", 1.0))
        if self.family in ("vae", "gan"):
            label = int(asked.get("label", -1))
            drawn = self.draw_images(num_samples, seed, temperature, label)
            return [{"png_base64": _png_base64(picture)} for picture in drawn]
        texts = self.write_texts(
            num_samples,
            seed,
            temperature,
            top_k=int(asked.get("top_k", 0)),
            top_p=float(asked.get("top_p", 1.0)),
            min_p=float(asked.get("min_p", 0.0)),
            prompt=str(asked.get("prompt", "")),
            num_tokens=int(asked.get("num_tokens", 200)),
        )
        return [{"text": text} for text in texts]

    def draw_images(
        self, num_samples: int, seed: int = 0, temperature: float = 1.0, label: int = -1
    ) -> np.ndarray:
        """New images, (N, C, H, W) uint8; a label of -1 lets a conditional model vary it."""
        _check_range("num_samples", num_samples, 1, MOST_SAMPLES)
        _check_range("seed", seed, 0, 2**31 - 1)
        _check_range("temperature", temperature, 0.01, 10.0)
        if self.family == "vae":
            _check_range("label", label, -1, -1)  # this model knows no classes
            images = self.model.sample(num_samples, seed, temperature, sampler="mixture")
        else:
            _check_range("label", label, -1, self.config["num_classes"] - 1)
            labels = None if label < 0 else torch.full((num_samples,), label)
            images = gan_networks.sample(self.model, num_samples, seed, labels, temperature)
        return _bytes_of(images)

    def reconstruct(self, images: np.ndarray) -> np.ndarray:
        """Images (N, C, H, W) uint8 through the latent point and back; a VAE only."""
        return _bytes_of(self.model.reconstruct(torch.from_numpy(images).float() / 255))

    def interpolate(self, first: np.ndarray, last: np.ndarray, num_steps: int) -> np.ndarray:
        """The images on the way between two, each (C, H, W) uint8; a VAE only."""
        ends = [torch.from_numpy(image).float() / 255 for image in (first, last)]
        return _bytes_of(self.model.interpolate(*ends, num_steps))

    def write_texts(
        self,
        num_samples: int,
        seed: int = 0,
        temperature: float = 1.0,
        *,
        top_k: int = 0,
        top_p: float = 1.0,
        min_p: float = 0.0,
        prompt: str = "",
        num_tokens: int = 200,
    ) -> list[str]:
        """Continuations of a prompt, without the prompt; an empty one takes the version's own."""
        _check_range("num_samples", num_samples, 1, MOST_SAMPLES)
        _check_range("num_tokens", num_tokens, 1, MOST_TOKENS)
        _check_range("seed", seed, 0, 2**31 - 1)
        _check_range("temperature", temperature, 0.01, 10.0)
        _check_range("top_k", top_k, 0, self.model.vocabulary_size)
        _check_range("top_p", top_p, 0.01, 1.0)
        _check_range("min_p", min_p, 0.0, 1.0)
        ids = self.tokenizer.encode(prompt or self.prompt).astype("int64")
        tokens = generate(
            self.model,
            torch.from_numpy(ids),
            num_tokens=num_tokens,
            num_sequences=num_samples,
            config=DecodingConfig(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p),
            seed=seed,
        )
        return [readable(self.tokenizer.decode(row)) for row in tokens.tolist()]


def _vae(config: dict[str, Any], tensors: dict[str, Tensor]) -> vae.Vae:
    model = vae.Vae(vae.VaeConfig(**config))
    model.load_state_dict(tensors)
    return model.eval()


def _gan(config: dict[str, Any], tensors: dict[str, Tensor]) -> gan_networks.Generator:
    model = gan_networks.Generator(gan_networks.GanConfig(**config))
    model.load_state_dict(tensors)
    return model.eval()


def _gpt(config: dict[str, Any], tensors: dict[str, Tensor]) -> Gpt:
    model = Gpt(GptConfig(**config))
    model.load_state_dict(tensors)
    return model.eval()


def _ngram(config: dict[str, Any], tensors: dict[str, Tensor]) -> NgramModel:
    return NgramModel.from_tensors(NgramConfig(**config), tensors)


FILTERS = ("top_k", "top_p", "min_p")
PARAMETERS = {
    **dict.fromkeys(("vae", "gan"), ("num_samples", "seed", "temperature", "label")),
    **dict.fromkeys(
        ("ngram", "gpt"),
        ("num_samples", "seed", "temperature", *FILTERS, "prompt", "num_tokens"),
    ),
}
"""What a request may ask of each family; `tasks/registration.py` states the types."""

_BUILDERS: dict[str, Any] = {"vae": _vae, "gan": _gan, "ngram": _ngram, "gpt": _gpt}


def _json(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def _check_range(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise mlflow.exceptions.MlflowException.invalid_parameter_value(
            f"{name} must lie between {low} and {high}, got {value}"
        )


def _bytes_of(images: Tensor) -> np.ndarray:
    array: np.ndarray = (images * 255).round().clamp(0, 255).to(torch.uint8).cpu().numpy()
    return array


def _png_base64(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    pixels = image[0] if len(image) == 1 else image.transpose(1, 2, 0)
    Image.fromarray(pixels).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode("ascii")


mlflow.models.set_model(SampleModel())
