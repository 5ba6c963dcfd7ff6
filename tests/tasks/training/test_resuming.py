"""Killed and started again: the same weights as if nothing had happened."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.store.files import home, remove

PROGRAM = """
import sys
from pathlib import Path
from models.training.loops import FitConfig
from models.gan.networks import GanConfig
from models.gpt.model import GptConfig
from models.vae.model import VaeConfig
from tasks.data.ingestion import ingest_images, ingest_text
from tasks.data.tokenization import tokenize_corpus
from tasks.tracking.runs import open_run
from tasks.training import checkpointing as loop
from tasks.training.gan import fit_gan
from tasks.training.gpt import fit_gpt
from tasks.training.vae import fit_vae

loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0
family, pictures, text = sys.argv[1:]
shape = {"channels": 1, "height": 8, "width": 8}
fit = FitConfig(steps=120, batch_size=8, learning_rate=1e-3, warmup_steps=10)
with open_run(family) as run_id:
    if family == "vae":
        config = VaeConfig(**shape, latent_size=2, base_width=4, hidden_size=8, dropout=0.1)
        fitted = fit_vae.fn(ingest_images.fn(pictures), config, fit, run_id)
    elif family == "gan":
        config = GanConfig(**shape, num_classes=2, latent_size=4, base_width=8, dense_width=16)
        fitted = fit_gan.fn(ingest_images.fn(pictures), config, fit, run_id)
    else:
        tokens = tokenize_corpus.fn(ingest_text.fn(text))
        config = GptConfig(vocabulary_size=tokens.vocabulary_size, context_length=16,
                           num_layers=1, num_heads=2, width=16, dropout=0.1)
        fitted = fit_gpt.fn(tokens, config, fit, run_id)
print("digest", fitted.digest)
"""


def start(family: str, images: ImageSet, tokens: TokenSet) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, family, images.source, tokens.corpus.source],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[3])},
    )


def checkpoints() -> list[Path]:
    return list((home() / "artifacts" / "models").rglob("checkpoint.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vae", "gan", "gpt"])
def test_a_killed_fit_resumes_bit_for_bit(
    family: str, images: ImageSet, tokens: TokenSet, tracking_database: str
) -> None:
    whole, _ = start(family, images, tokens).communicate()
    expected = re.findall(r"digest (\w{64})", whole)
    assert expected, whole
    remove(home() / "artifacts" / "models")

    killed = start(family, images, tokens)
    deadline = time.monotonic() + 120
    while not checkpoints():
        assert killed.poll() is None, killed.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    assert len(checkpoints()) == 1
    resumed, _ = start(family, images, tokens).communicate()

    assert re.search(r"resumed at step [1-9]", resumed), resumed
    assert re.findall(r"digest (\w{64})", resumed) == expected
    assert checkpoints() == []


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_training_starts_again(
    images: ImageSet, tokens: TokenSet, tracking_database: str
) -> None:
    whole, _ = start("vae", images, tokens).communicate()
    (weights,) = (home() / "artifacts" / "models").rglob("weights.safetensors")
    for path in weights.parent.iterdir():
        remove(path)
    (weights.parent / "checkpoint.safetensors").write_bytes(b"half a checkpoint")

    again, _ = start("vae", images, tokens).communicate()

    assert "the checkpoint is damaged" in again
    assert re.findall(r"digest \w{64}", again) == re.findall(r"digest \w{64}", whole)
