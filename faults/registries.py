"""A small registry in a home of its own, without servers; each deed in a process that can end."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from faults.fits import inspected

NAME = "tale-ngram"
_WORDS = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]


def make_registry(home: Path, empty: Path) -> None:
    """Two versions, each champion once; the second is it now."""
    shutil.rmtree(home, ignore_errors=True)
    home.mkdir(parents=True)
    shutil.copy(empty, home / "mlflow.db")
    lines = [" ".join(_WORDS[(i * k + k) % 10] for k in range(1, 10)) + "." for i in range(320)]
    (home.parent / "tale.txt").write_text("\n".join(lines) + "\n")
    for deed in (admit_1, admit_3):
        done_in(home, deed)


def copied(home: Path, to: Path) -> Path:
    """The same registry, to be damaged; the files of its packages are shared."""
    shutil.rmtree(to, ignore_errors=True)
    shutil.copytree(home, to)
    return to


def done_in(home: Path, deed: Callable[[], Any]) -> Any:
    """What a deed returns in a process that has entered a home."""
    return inspected(home, deed)


def admit_1() -> Any:
    """An n-gram model of order 1, judged, registered and named."""
    return admitted(1)


def admit_2() -> Any:
    """The same of order 2."""
    return admitted(2)


def admit_3() -> Any:
    """The same of order 3."""
    return admitted(3)


def admit_4() -> Any:
    """A better model than the others."""
    return admitted(4)


def admitted(order: int) -> Any:
    """The number and alias that an n-gram model gets, or the error."""
    from flows.train import plan_of
    from models.ngram.config import NgramConfig
    from tasks.data.ingestion import ingest_text
    from tasks.data.tokenization import tokenize_corpus
    from tasks.evaluation.text import evaluate_tokens
    from tasks.families.table import FAMILIES
    from tasks.registry import registration, verdicts
    from tasks.registry.champion import evaluate_champion
    from tasks.registry.promotion_policy import gate
    from tasks.store.files import home
    from tasks.tracking.runs import open_run
    from tasks.training.fit import fit_model
    from tasks.training.provenance import provenance_of

    registration.check_loads = lambda *_, **__: None  # its process would outlive this one
    try:
        tokens = tokenize_corpus.fn(ingest_text.fn(f"file:{home().parent / 'tale.txt'}"))
        family = FAMILIES["ngram"]
        plan = plan_of(family, {"model": NgramConfig(order=order), "tuning": None}, 0)
        with open_run(f"order {order}") as run_id:
            fitted = fit_model.fn(tokens, plan, run_id)
            scorecard = evaluate_tokens.fn(fitted, tokens, run_id)
        incumbent = evaluate_champion.fn(fitted.name, tokens, family)
        verdict = gate.fn(fitted, scorecard, incumbent)
        recipe = provenance_of(plan, tokens, "quick")
        register = registration.register_version.fn
        version = register(fitted, scorecard, verdict, recipe, incumbent)
        settled = verdicts.apply_decision.fn(version, verdict)
        return settled.version, settled.alias
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def packages() -> dict[int, str]:
    """Where the files of each version lie."""
    from tasks.tracking.mlflow_client import client

    found = {}
    for version in client().search_model_versions(f"name = '{NAME}'"):
        model = client().get_logged_model(version.source.rpartition("/")[2])
        found[int(version.version)] = model.artifact_location.removeprefix("file://")
    return found


def problems() -> list[tuple[str, tuple[str, ...]]]:
    """What is told of the registry, and the ways out."""
    from tasks.registry.consistency import problems_of

    return [(problem.what, problem.ways) for problem in problems_of(NAME)]


def load() -> str:
    """Load the champion; returns why it was refused, or nothing."""
    from tasks.registry.loading import loaded

    try:
        with loaded(NAME) as model:
            model.write_texts(1, num_tokens=5)
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return ""
