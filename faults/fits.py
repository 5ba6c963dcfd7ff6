"""Small real fits of all families, each in a process that can be killed.

The processes are forked from one that has imported everything, so that fifty kills take minutes.
"""

import multiprocessing
import os
import shutil
import signal
import traceback
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

STEPS = {"vae": 150, "gan": 80, "diffusion": 150, "gpt": 150}


@dataclass(frozen=True)
class Outcome:
    """How a fit's process ended: a digest, or the error that a person would see."""

    digest: str = ""
    error: str = ""
    was_stored: bool = False


def spawner() -> Any:
    """Where processes come from: all are forked from one that has imported everything."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["faults.fits_imports"])
    return context


class Fit:
    """One fit of a family in a home, begun and not waited for."""

    def __init__(self, family: str, home: Path, variant: int = 0) -> None:
        receiver, sender = multiprocessing.Pipe(duplex=False)
        self._receiver = receiver
        self.process = spawner().Process(
            target=_run, args=(family, str(home), variant, sender), daemon=True
        )
        self.process.start()
        sender.close()

    def kill(self) -> bool:
        """SIGKILL; returns whether the process was still at work."""
        was_at_work = self.process.is_alive()
        if was_at_work:
            os.kill(self.process.pid, signal.SIGKILL)
        self.process.join()
        return bool(was_at_work and self.process.exitcode == -signal.SIGKILL)

    def wait(self, seconds: float | None = None) -> Outcome | None:
        """How it ended, or None when it has not after so many seconds."""
        if not self._receiver.poll(seconds):
            return None
        try:
            outcome: Outcome = self._receiver.recv()
        except EOFError:
            outcome = Outcome(error="the process died")
        self.process.join()
        return outcome


def fitted(family: str, home: Path, variant: int = 0) -> Outcome:
    """Fit to the end."""
    outcome = Fit(family, home, variant).wait()
    assert outcome is not None
    return outcome


def fresh(home: Path, empty: Path) -> Path:
    """A home with nothing in it but an MLflow database with its tables."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copy(empty, home / "mlflow.db")
    return home


def make_empty_database(path: Path) -> Path:
    """An MLflow database with all tables and no rows."""
    process = spawner().Process(target=_migrate, args=(str(path),))
    process.start()
    process.join()
    return path


def inspected(home: Path, look: Callable[[], Any]) -> Any:
    """What a function sees of a home; it runs in a process of its own."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = spawner().Process(target=_look, args=(str(home), look, sender))
    process.start()
    sender.close()
    try:
        seen = receiver.recv()
    finally:
        process.join()
    return seen


def enter(home: str) -> None:
    """Work in a home from now on, with its own database."""
    os.environ["ATELIER_HOME"] = home
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{home}/mlflow.db"
    os.chdir(home)


def _migrate(path: str) -> None:
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{path}"
    os.chdir(Path(path).parent)
    from tasks.tracking.mlflow_client import client

    client().search_experiments()


def _look(home: str, look: Callable[[], Any], sender: Connection) -> None:
    enter(home)
    sender.send(look())


def _run(family: str, home: str, variant: int, sender: Connection) -> None:
    enter(home)
    try:
        sender.send(fit_here(family, variant))
    except Exception as error:
        detail = "" if isinstance(error, OSError) else traceback.format_exc()
        sender.send(Outcome(error=f"{type(error).__name__}: {error}{detail}"))


def fit_here(family: str, variant: int) -> Outcome:
    """Ingest and train, as the flows do, with a checkpoint every tenth of a second."""
    from flows.train import plan_of
    from models.diffusion.config import DiffusionConfig
    from models.gan.config import GanConfig
    from models.gpt.config import GptConfig
    from models.ngram.config import NgramConfig, TuningConfig
    from models.training.config import FitConfig
    from models.vae.config import VaeConfig
    from tasks.data.ingestion import ingest_images, ingest_text
    from tasks.data.tokenization import tokenize_corpus
    from tasks.families.table import FAMILIES as RECORDS
    from tasks.tracking.runs import recover_from_crashes, task_run
    from tasks.training import checkpointing
    from tasks.training.fit import fit_model
    from tasks.training.fit_store import fit_cache_key

    checkpointing.SECONDS_BETWEEN_CHECKPOINTS = 0.1
    recover_from_crashes()
    shape: dict[str, Any] = {"channels": 1, "height": 8, "width": 8}
    steps = STEPS.get(family, 1)
    fit = FitConfig(steps=steps, batch_size=16, learning_rate=1e-3, warmup_steps=10, seed=variant)
    record = RECORDS[family]
    if record.data == "images":
        data: Any = ingest_images.fn("digits")
    else:
        data = tokenize_corpus.fn(ingest_text.fn("pydocs"))
    vocabulary = getattr(data, "vocabulary_size", 1)
    if family == "vae":
        vae = VaeConfig(**shape, latent_size=2, base_width=4, hidden_size=8, dropout=0.1)
        settings: dict[str, Any] = {"model": vae, "training": fit}
    elif family == "gan":
        gan = GanConfig(**shape, num_classes=10, latent_size=4, base_width=8, dense_width=16)
        settings = {"model": gan, "training": fit}
    elif family == "diffusion":
        widths = {"base_width": 4, "max_width": 8, "dense_width": 8, "embedding_size": 8}
        diffusion = DiffusionConfig(**shape, num_classes=10, **widths, label_dropout=0.1)
        settings = {"model": diffusion, "training": fit}
    elif family == "gpt":
        sizes: dict[str, Any] = {"num_layers": 1, "num_heads": 2, "width": 16, "dropout": 0.1}
        gpt = GptConfig(vocabulary_size=vocabulary, context_length=16, **sizes, ngram_rows=64)
        settings = {"model": gpt, "training": fit}
    else:
        settings = {"model": NgramConfig(order=6), "tuning": TuningConfig(num_iterations=10)}
    plan = plan_of(record, settings, variant)
    with task_run(
        f"{data.name}-{family}", fit_cache_key(plan, data), while_waiting=nullcontext
    ) as run_id:
        made = fit_model.fn(data, plan, run_id)
    return Outcome(digest=made.digest, was_stored=made.was_stored)
