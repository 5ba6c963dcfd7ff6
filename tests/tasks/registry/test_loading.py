"""Versions on the code that made them: several at a time, and those of before."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from flows.train import planned
from models.gpt.config import GptConfig
from models.training.config import FitConfig
from tasks.data.ingestion import ingest_text
from tasks.data.tokenization import tokenize_corpus
from tasks.evaluation.text import evaluate_tokens
from tasks.families.table import FAMILIES
from tasks.packaging import bundled_code
from tasks.registry import registration
from tasks.registry.loading import loaded
from tasks.registry.promotion_policy import gate
from tasks.store.files import project_root
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.provenance import provenance_of
from tests.tasks.conftest import Studio

NAME = "tale-gpt"
CONFIG = GptConfig(vocabulary_size=1, context_length=16, num_layers=1, num_heads=1, width=16)


def registered(corpus: Path, seed: int) -> None:
    """A version of a tiny GPT; its load check is left out."""
    tokens = tokenize_corpus.fn(ingest_text.fn(f"file:{corpus}"))
    fit = FitConfig(steps=3, batch_size=4, learning_rate=0.01, seed=seed)
    config = replace(CONFIG, vocabulary_size=tokens.vocabulary_size, ngram_rows=64)
    plan = planned(FAMILIES["gpt"], tokens, "quick", seed, {})
    plan = replace(plan, settings={"model": config, "training": fit})
    with open_run("a GPT") as run_id:
        fitted = fit_model.fn(tokens, plan, run_id)
        scorecard = evaluate_tokens.fn(fitted, tokens, run_id)
    record = provenance_of(plan, tokens, "quick")
    decision = gate.fn(fitted, scorecard, None)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(registration, "check_loads", lambda *_, **__: None)
        registration.register_version.fn(fitted, scorecard, decision, record, None)


def test_two_versions_of_different_code_are_sampled_in_turns(
    studio: Studio, tmp_path: Path
) -> None:
    shutil.copytree(project_root() / "models", tmp_path / "other" / "models")
    with (tmp_path / "other" / "models" / "gpt" / "serving.py").open("a") as serving:
        serving.write("\n\nMANNER = 'shouts'\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(bundled_code, "project_root", lambda: tmp_path / "other")
        registered(studio.corpus, 1)
    registered(studio.corpus, 2)
    before = set(sys.modules)

    with loaded(NAME, "1") as first, loaded(NAME, "2") as second:
        assert [getattr(each._code, "MANNER", "") for each in (first, second)] == ["shouts", ""]
        packages = {type(each.model).__module__.partition(".")[0] for each in (first, second)}
        assert len(packages) == 2
        written = [
            (m.write_texts(1, seed, num_tokens=20)) for seed in (1, 2) for m in (first, second)
        ]
    with loaded(NAME, "2") as second:
        alone = [second.write_texts(1, seed, num_tokens=20) for seed in (1, 2)]

    assert written[1::2] == alone
    assert written[0] != written[1]
    left = {name for name in set(sys.modules) - before if name.partition(".")[0] in packages}
    assert not left


def test_a_version_of_before_which_calls_its_code_models_loads_and_leaves_ours_alone(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, files = bundled_code._project_code(project_root())
    (name,) = {path.split("/")[1] for path in files if path.startswith("code/")}
    plain = {
        path.replace(name, "models"): content.replace(name.encode(), b"models")
        for path, content in files.items()
    }
    monkeypatch.setattr(bundled_code, "_project_code", lambda _: ("models", plain))
    monkeypatch.setattr(bundled_code, "take_out", lambda _: {})  # ours is in use here
    registered(studio.corpus, 3)
    ours = sys.modules["models.gpt.model"]

    with loaded(NAME, "1") as model:
        assert sys.modules["models.gpt.model"] is not ours
        (text,) = model.write_texts(1, 5, num_tokens=20)
        assert text

    assert sys.modules["models.gpt.model"] is ours
