"""A registry of two n-gram models, each champion once, to be copied and damaged at will."""

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
from mlflow.utils.file_utils import local_file_uri_to_path
from prefect import Task

from flows import champion_challenger
from flows.champion_challenger import evaluate_and_promote
from flows.train import planned
from models.ngram.config import NgramConfig
from tasks.data.ingestion import ingest_text
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.evaluation.scorecard import Scorecard
from tasks.evaluation.text import evaluate_tokens
from tasks.families.table import FAMILIES
from tasks.registry import registration, verdicts
from tasks.registry.versions import Version
from tasks.tracking.mlflow_client import client
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel
from tasks.training.provenance import TrainingProvenance, provenance_of

WORDS = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]


def use(home: Path, patch: pytest.MonkeyPatch) -> None:
    patch.setenv("ATELIER_HOME", str(home))
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
    patch.delenv("PREFECT_API_URL", raising=False)
    patch.chdir(home)


def admit(
    fitted: TrainedModel,
    scorecard: Scorecard,
    recipe: TrainingProvenance,
    data: TokenSet,
    *,
    checks_load: bool = False,
) -> Version:
    """The flows' own way of a candidate, its tasks called as functions: no Prefect is needed.

    checks_load: load it in a clean process first, which takes seconds.
    """
    with pytest.MonkeyPatch.context() as patch:
        for name, value in list(vars(champion_challenger).items()):
            if isinstance(value, Task):
                patch.setattr(champion_challenger, name, value.fn)
        if not checks_load:
            patch.setattr(registration, "check_loads", lambda *_, **__: None)
        family = FAMILIES[fitted.family]
        return evaluate_and_promote(fitted, scorecard, recipe, data, family)


@pytest.fixture(scope="session", name="admit")
def admit_as_fixture() -> Callable[..., Version]:
    """Judge, register and promote a candidate as the flows do."""
    return admit


def admitted(corpus: Path, order: int) -> Version:
    """Train, judge, register and promote an n-gram model; no load check."""
    tokens = tokenize_corpus.fn(ingest_text.fn(f"file:{corpus}"))
    family = FAMILIES["ngram"]
    settings = {"model": NgramConfig(order=order), "tuning": None}
    plan = replace(planned(family, tokens, "quick", 0, {}), settings=settings)
    with open_run(f"order {order}") as run_id:
        fitted = fit_model.fn(tokens, plan, run_id)
        scorecard = evaluate_tokens.fn(fitted, tokens, run_id)
    recipe = provenance_of(plan, tokens, "quick")
    return admit(fitted, scorecard, recipe, tokens)


class Killed(Exception):
    """The process died here, as far as the registry can tell."""


@dataclass(frozen=True)
class Studio:
    """A home with a registry in it."""

    home: Path
    corpus: Path
    name: str = "tale-ngram"

    def admitted(self, order: int) -> Version:
        return admitted(self.corpus, order)

    def registered(self, order: int) -> Version:
        """The same, killed between registering and moving the alias."""

        def die(version: Version, _: object) -> None:
            raise Killed(version)

        with pytest.MonkeyPatch.context() as patch, pytest.raises(Killed) as death:
            patch.setattr(verdicts.apply_decision, "fn", die)
            self.admitted(order)
        version: Version = death.value.args[0]
        return version

    def package(self, number: int) -> Path:
        """Where the files of a version lie in the store."""
        source = client().get_model_version(self.name, str(number)).source
        model = client().get_logged_model(source.rpartition("/")[2])
        return Path(local_file_uri_to_path(model.artifact_location))

    def sql(self, statement: str, *values: Any) -> None:
        """Change the registry's database behind its back."""
        with sqlite3.connect(self.home / "mlflow.db") as database:
            assert database.execute(statement, values).rowcount, statement
        database.close()

    def log_lines(self) -> list[bytes]:
        return self.log.read_bytes().splitlines(keepends=True)

    @property
    def log(self) -> Path:
        return self.home / "ledger" / f"{self.name}.jsonl"


@pytest.fixture(scope="session")
def first_studio(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path
) -> Iterator[Studio]:
    home = tmp_path_factory.mktemp("studio")
    shutil.copy(migrated_database, home / "mlflow.db")
    corpus = tmp_path_factory.mktemp("corpus") / "tale.txt"
    lines = [" ".join(WORDS[(i * k + k) % 10] for k in range(1, 10)) + "." for i in range(320)]
    corpus.write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        use(home, patch)
        for order in (1, 3):
            admitted(corpus, order)
    yield Studio(home, corpus)


@pytest.fixture
def studio(first_studio: Studio, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Studio:
    """A copy of it, artifacts included: versions 1 and 2, of which 2 is champion."""
    home = tmp_path / "studio"
    shutil.copytree(first_studio.home, home)
    use(home, monkeypatch)
    copy = Studio(home, first_studio.corpus)
    with sqlite3.connect(home / "mlflow.db") as database:
        rows = database.execute("SELECT model_id, artifact_location FROM logged_models").fetchall()
    database.close()
    (home / "packages").mkdir()
    for model, location in rows:
        files = home / "packages" / model
        stored = Path(local_file_uri_to_path(location)).relative_to(first_studio.home)
        (home / stored).rename(files)
        statement = "UPDATE logged_models SET artifact_location = ? WHERE model_id = ?"
        copy.sql(statement, str(files), model)
    return copy
