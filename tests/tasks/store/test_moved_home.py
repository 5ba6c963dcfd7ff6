"""A home that was moved, copied or restored: nothing names its place, nothing is made again."""

import shutil
from pathlib import Path

import pytest
from PIL import Image

from atelier.__main__ import main
from flows.train import plan_of
from models.ngram.config import NgramConfig
from tasks.data.ingestion import ImageSet, ingest_images, ingest_text
from tasks.data.tokenization import tokenize_corpus
from tasks.evaluation.scorecard import Scorecard
from tasks.evaluation.text import evaluate_tokens
from tasks.families.table import FAMILIES
from tasks.store.files import home
from tasks.store.steps import history, steps
from tasks.tracking.metric_queue import MetricQueue, flush_run
from tasks.tracking.mlflow_client import fetch_artifacts
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel


def run(pictures: Path, text: Path) -> tuple[ImageSet, TrainedModel, Scorecard]:
    """Data of a person's own, a fit, and its evaluation."""
    images = ingest_images.fn(f"folder:{pictures}")
    tokens = tokenize_corpus.fn(ingest_text.fn(f"file:{text}"))
    with open_run("tale", key="tale") as run_id:
        settings = {"model": NgramConfig(order=3), "tuning": None}
        fitted = fit_model.fn(tokens, plan_of(FAMILIES["ngram"], settings, 0), run_id)
        return images, fitted, evaluate_tokens.fn(fitted, tokens, run_id)


@pytest.fixture
def moved(
    tracking_database: str,
    atelier_home: Path,
    tmp_path: Path,
    image_folder: Path,
    text_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Path:
    """A home in which something was made, in another place; its old place is empty."""
    run(image_folder, text_file)
    assert records_that_name(atelier_home) == []
    moved = tmp_path / "elsewhere" / "home"
    moved.parent.mkdir()
    shutil.move(atelier_home, moved)
    monkeypatch.setenv("ATELIER_HOME", str(moved))
    return moved


def records_that_name(place: Path) -> list[Path]:
    found = [path for path in home().rglob("*") if path.suffix in (".json", ".jsonl")]
    assert len(found) > 10
    return [path for path in found if str(place) in path.read_text(encoding="utf-8")]


def test_nothing_is_made_again_in_a_home_that_was_moved(
    moved: Path, image_folder: Path, text_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images, fitted, scorecard = run(image_folder, text_file)

    states = {step: [record.state for record in history(step)] for step in steps()}
    assert all(states[step] == ["made", "unchanged"] for step in steps())
    assert set(states) == {
        *("pictures-images", "corpus-text", "corpus-characters"),
        *("corpus-ngram", "corpus-ngram-evaluation"),
    }
    for receipt in (images, fitted, scorecard):
        assert Path(receipt.folder).is_relative_to(moved)
    assert main(["explain", "corpus-ngram"]) == 0
    assert "made from tokens corpus-characters" in capsys.readouterr().out
    assert main(["gc"]) == 0
    assert "nothing to delete" in capsys.readouterr().out
    assert not (moved.parents[1] / "home" / "artifacts").exists()


def test_pictures_that_wait_for_the_server_are_sent_from_the_new_place(
    run_id: str, atelier_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    picture = home() / "artifacts" / "step-1.png"
    picture.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (2, 2)).save(picture)
    kept = MetricQueue(run_id)
    kept.add_picture(1, "samples", picture, "progress")
    kept._sender = object()  # type: ignore[assignment] # nobody sends it yet
    kept.flush()
    shutil.move(atelier_home, tmp_path / "moved")
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "moved"))

    flush_run(run_id)

    assert (fetch_artifacts(run_id, "progress", tmp_path) / "step-1.png").exists()
