"""Models of every family as a version brings them: real files, of networks that learned nothing."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from models.diffusion.config import DiffusionConfig
from models.diffusion.networks import VelocityNetwork
from models.gan.config import GanConfig
from models.gan.networks import Generator
from models.gpt.config import GptConfig
from models.gpt.model import Gpt
from models.ngram.config import NgramConfig
from models.ngram.model import NgramModel
from models.text.tokenizer import BpeTokenizer, CharacterTokenizer
from models.vae.config import VaeConfig
from models.vae.model import Vae
from tasks.packaging.served_model import SampleModel

IMAGES, TEXT = ("vae", "gan", "diffusion"), ("ngram", "gpt")
CLASSES = ["cat", "dog", "bird"]
GREEK = "Ἐν ἀρχῇ ἦν ὁ λόγος, καὶ ὁ λόγος ἦν πρὸς τὸν θεόν. 🦉🏺 αβγδ 🧑‍🚀!\n" * 40


def untrained_files(family: str, folder: Path, tokenizer: str = "bpe") -> dict[str, Path]:
    """The files of a version's artifacts, by name."""
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    config, tensors = _text(folder, family, tokenizer) if family in TEXT else _images(family)
    if family in IMAGES:
        save_file(
            {"examples": torch.zeros(1, 1, 8, 8, dtype=torch.uint8)},
            folder / "examples.safetensors",
        )
        _write(folder / "classes.json", CLASSES)
    save_file(
        {name: each.contiguous() for name, each in tensors.items()}, folder / "weights.safetensors"
    )
    _write(folder / "config.json", {"family": family, "config": asdict(config)})
    return {path.stem: path for path in sorted(folder.iterdir())}


def untrained(family: str, folder: Path, tokenizer: str = "bpe") -> SampleModel:
    """The SampleModel of such files."""
    model = SampleModel()
    model.restore(untrained_files(family, folder, tokenizer))
    return model


def _images(family: str) -> tuple[Any, dict[str, torch.Tensor]]:
    if family == "vae":
        vae = VaeConfig(base_width=4, hidden_size=8, latent_size=3)
        return vae, Vae(vae).state_dict()
    if family == "gan":
        gan = GanConfig(num_classes=len(CLASSES))
        return gan, Generator(gan).state_dict()
    diffusion = DiffusionConfig(
        num_classes=len(CLASSES), base_width=8, max_width=8, dense_width=8, sampling_steps=2,
        embedding_size=8,
    )  # fmt: skip
    network = VelocityNetwork(diffusion)
    with torch.no_grad():
        for weight in network.parameters():  # else its velocity is zero
            weight.add_(torch.randn_like(weight) * 0.1)
    return diffusion, network.state_dict()


def _text(folder: Path, family: str, kind: str) -> tuple[Any, dict[str, torch.Tensor]]:
    tokenizer: Any = CharacterTokenizer.fit("αβγ") if kind == "characters" else None
    tokenizer = tokenizer or BpeTokenizer.fit(GREEK, 300)
    _write(folder / "tokenizer.json", tokenizer.to_dict())
    _write(folder / "sampling.json", {"prompt": "\n"})
    size = tokenizer.vocabulary_size
    if family == "ngram":
        ngram = NgramConfig(order=2)
        ids = tokenizer.encode(GREEK).astype(np.int64)
        return ngram, NgramModel.fit(ids, size, ngram).tensors()
    gpt = GptConfig(vocabulary_size=size, context_length=16, num_layers=1, num_heads=2, width=16)
    model = Gpt(gpt)
    with torch.no_grad():
        model.head.normal_(std=0.3)  # a model that learned nothing gives every token the same
    return gpt, model.state_dict()


def _write(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value))
