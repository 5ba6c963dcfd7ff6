"""What is stored for a version holds nothing of the machine that made it."""

import tempfile
from dataclasses import replace
from pathlib import Path

import mlflow
import pytest
from mlflow.models import Model

from flows.train import planned
from models.ngram.config import NgramConfig
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.packaging.files import check_descriptions, files_of
from tasks.packaging.package import log_package, write_package
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel


@pytest.fixture
def fitted(tokens: TokenSet, run_id: str) -> TrainedModel:
    plan = planned(FAMILIES["ngram"], tokens, "quick", 0, {})
    settings = {"model": NgramConfig(order=3), "tuning": None}
    return fit_model.fn(tokens, replace(plan, settings=settings), run_id)


def test_no_file_of_a_package_names_a_place(fitted: TrainedModel, tmp_path: Path) -> None:
    files = write_package(fitted, "text", tmp_path / "package")

    assert files_of(tmp_path / "package") == files
    check_descriptions(tmp_path / "package")
    for name in files:
        content = (tmp_path / "package" / name).read_bytes()
        for place in (str(tmp_path), tempfile.gettempdir()):
            assert place.encode() not in content, (name, place)


def test_what_is_logged_is_what_was_listed_and_loads(fitted: TrainedModel, tmp_path: Path) -> None:
    package = log_package(fitted, "text")
    copy = Path(
        mlflow.artifacts.download_artifacts(package.model_uri, dst_path=str(tmp_path / "copy"))
    )

    assert files_of(copy) == package.files
    described = Model.load(str(copy)).flavors["python_function"]
    assert {each["uri"] for each in described["artifacts"].values()} == {
        name for name in package.files if name.startswith("artifacts/")
    }
    assert described["model_code_path"] == "served_model.py"
    loaded = mlflow.pyfunc.load_model(str(copy))
    (row,) = loaded.predict([{}], params={"num_tokens": 5}).to_dict("records")
    assert row["text"]
