"""Killed and started again: the same weights as if nothing had happened."""

import multiprocessing
import os
import re
import runpy
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.store.files import home, remove

PROGRAM = """
import logging
import os
import sys

os.environ.update(environment)
os.chdir(folder)
sys.stdout = sys.stderr = open(output, "w", buffering=1)
logging.getLogger("atelier").setLevel(logging.INFO)
logging.getLogger("atelier").addHandler(logging.StreamHandler(sys.stdout))

from dataclasses import replace
from flows.train import planned
from models.training.loops import FitConfig
from models.diffusion.networks import DiffusionConfig
from models.gan.networks import GanConfig
from models.gpt.model import GptConfig
from models.vae.model import VaeConfig
from tasks.data.ingestion import ingest_images, ingest_text
from tasks.data.tokenization import tokenize_corpus
from tasks.families.table import FAMILIES
from tasks.tracking.runs import open_run
from tasks.training import checkpointing as loop
from tasks.training.fit import fit_model

if is_to_be_killed:
    loop.SECONDS_BETWEEN_CHECKPOINTS = 0.0
shape = {"channels": 1, "height": 8, "width": 8}
fit = FitConfig(steps=120, batch_size=8, learning_rate=1e-3, warmup_steps=10)
with open_run(family) as run_id:
    data = ingest_images.fn(pictures)
    if family == "vae":
        config = VaeConfig(**shape, latent_size=2, base_width=4, hidden_size=8, dropout=0.1)
    elif family == "gan":
        config = GanConfig(**shape, num_classes=2, latent_size=4, base_width=8, dense_width=16)
    elif family == "diffusion":
        config = DiffusionConfig(**shape, num_classes=2, base_width=4, max_width=8, dense_width=8,
                                 embedding_size=8, dropout=0.1, label_dropout=0.1)
    else:
        data = tokenize_corpus.fn(ingest_text.fn(text))
        config = GptConfig(vocabulary_size=data.vocabulary_size, context_length=16,
                           num_layers=1, num_heads=2, width=16, dropout=0.1)
    plan = replace(planned(FAMILIES[family], data, "quick", 0, {}),
                   settings={"model": config, "training": fit})
    fitted = fit_model.fn(data, plan, run_id)
print("digest", fitted.digest)
"""


class Training:
    """A fit in a process of its own, forked from one that has imported everything already."""

    def __init__(
        self,
        family: str,
        images: ImageSet,
        tokens: TokenSet,
        folder: Path,
        *,
        is_to_be_killed: bool = False,
    ) -> None:
        program = folder / "program.py"
        program.write_text(PROGRAM)
        self.output = folder / f"{time.monotonic_ns()}.log"
        named: dict[str, object] = {"family": family, "is_to_be_killed": is_to_be_killed}
        named |= {"pictures": images.source, "text": tokens.corpus.source}
        named |= {"output": str(self.output), "folder": str(folder)}
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["faults.fits_imports", "flows.train"])
        self.process = context.Process(
            target=runpy.run_path,
            args=(str(program), {**named, "environment": dict(os.environ)}),
            daemon=True,
        )
        self.process.start()

    def kill(self) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()

    def ended(self) -> str:
        """What it printed."""
        self.process.join()
        return self.output.read_text()


Start = Callable[..., Training]


@pytest.fixture
def start(images: ImageSet, tokens: TokenSet, tracking_database: str, tmp_path: Path) -> Start:
    """Begin a fit of a family; one that is to be killed writes a checkpoint after each step."""
    return lambda family, **more: Training(family, images, tokens, tmp_path, **more)


def checkpoints() -> list[Path]:
    return list((home() / "artifacts" / "models").rglob("checkpoint.safetensors"))


@pytest.mark.slow
@pytest.mark.parametrize("family", ["vae", "gan", "diffusion", "gpt"])
def test_a_killed_fit_resumes_bit_for_bit(family: str, start: Start) -> None:
    whole = start(family).ended()
    expected = re.findall(r"digest (\w{64})", whole)
    assert expected, whole
    remove(home() / "artifacts" / "models")

    killed = start(family, is_to_be_killed=True)
    deadline = time.monotonic() + 120
    while not checkpoints():
        assert killed.process.is_alive(), killed.ended()
        assert time.monotonic() < deadline
        killed.process.join(0.01)
    killed.kill()
    assert killed.process.exitcode == -signal.SIGKILL
    assert len(checkpoints()) == 1
    resumed = start(family).ended()

    assert re.search(r"resumed at step [1-9]", resumed), resumed
    assert re.findall(r"digest (\w{64})", resumed) == expected
    assert checkpoints() == []


@pytest.mark.slow
def test_a_damaged_checkpoint_is_told_and_training_starts_again(
    start: Start,
) -> None:
    whole = start("vae").ended()
    (weights,) = (home() / "artifacts" / "models").rglob("weights.safetensors")
    for path in weights.parent.iterdir():
        remove(path)
    (weights.parent / "checkpoint.safetensors").write_bytes(b"half a checkpoint")

    again = start("vae").ended()

    assert "the checkpoint is damaged" in again
    assert re.findall(r"digest \w{64}", again) == re.findall(r"digest \w{64}", whole) != []
