"""What a served version answers, and what it refuses by name."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc.scoring_server import invocations
from PIL import Image

from flows.train import planned
from models.gan.config import GanConfig
from models.ngram.config import NgramConfig
from models.training.config import FitConfig
from tasks.data.ingestion import ImageSet, ingest_images, ingest_text
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.families.table import FAMILIES
from tasks.packaging.package import log_package
from tasks.packaging.served_model import READ_AS_MISSING
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel, fit_cache_key
from tasks.training.plan import TrainingPlan

FIT = FitConfig(steps=5, batch_size=16, learning_rate=3e-3, warmup_steps=1)
SMALL = GanConfig(
    channels=1, height=8, width=8, num_classes=2, latent_size=4, base_width=8, dense_width=16
)


@dataclass(frozen=True)
class Served:
    """A model as MLflow's server holds it."""

    model: Any

    def ask(self, body: str, content_type: str = "application/json") -> list[dict[str, Any]]:
        """The rows of an answer; raises what the server answers with an error of 400."""
        schema = self.model.metadata.get_input_schema()
        answer = invocations(body, content_type, self.model, schema)
        assert answer.status == 200, answer.response
        rows = json.loads(answer.response)
        return list(rows["predictions"] if isinstance(rows, dict) else rows)


def plan_of(family: str, data: ImageSet | TokenSet, **settings: Any) -> TrainingPlan:
    return replace(planned(FAMILIES[family], data, "quick", 0, {}), settings=settings)


def game_plan(images: ImageSet) -> TrainingPlan:
    return plan_of("gan", images, model=SMALL, training=FIT)


def served(fitted: TrainedModel) -> Served:
    package = log_package(fitted, FAMILIES[fitted.family].data)
    return Served(mlflow.pyfunc.load_model(package.model_uri))


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path
) -> Iterator[tuple[Served, Served]]:
    """A GAN of the classes `left` and `right`, and an n-gram model; made once for all tests."""
    folder = tmp_path_factory.mktemp("served")
    shutil.copy(migrated_database, folder / "mlflow.db")
    random = np.random.default_rng(0)
    for name, columns in (("left", slice(0, 4)), ("right", slice(4, 8))):
        (folder / "sides" / name).mkdir(parents=True)
        for index in range(60):
            pixels = random.integers(0, 60, (8, 8), dtype=np.uint8)
            pixels[:, columns] += 150
            Image.fromarray(pixels).save(folder / "sides" / name / f"{index}.png")
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    lines = [" ".join(random.choice(words, size=9)) + "." for _ in range(320)]
    (folder / "tale.txt").write_text("\n".join(lines) + "\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.chdir(folder)
        images = ingest_images.fn(f"folder:{folder / 'sides'}")
        tokens = tokenize_corpus.fn(ingest_text.fn(f"file:{folder / 'tale.txt'}"))
        with open_run("test") as run_id:
            game = served(fit_model.fn(images, game_plan(images), run_id))
        with open_run("test") as run_id:
            counting = plan_of("ngram", tokens, model=NgramConfig(order=3), tuning=None)
            counts = served(fit_model.fn(tokens, counting, run_id))
    yield game, counts


@pytest.fixture
def gan(place: tuple[Served, Served]) -> Served:
    return place[0]


@pytest.fixture
def ngram(place: tuple[Served, Served]) -> Served:
    return place[1]


def requests_in(rows: list[dict[str, Any]]) -> list[int]:
    return [row["request"] for row in rows]


EMPTY_ROWS = [
    '{"dataframe_records": [{}, {}, {}]}',
    '{"dataframe_records": [{"COLUMN": null}, {}, {}]}',
    '{"dataframe_split": {"columns": [], "data": [[], [], []]}}',
    '{"dataframe_split": {"columns": [], "index": [0, 1, 2], "data": []}}',
    '{"dataframe_split": {"columns": ["COLUMN"], "data": [[null], [null], [null]]}}',
    '{"inputs": [{}, {}, {}]}',
    '{"inputs": {"COLUMN": [null, null, null]}}',
    '{"inputs": [null, null, null]}',
]


@pytest.mark.parametrize("body", EMPTY_ROWS)
def test_every_row_is_answered_even_an_empty_one(gan: Served, ngram: Served, body: str) -> None:
    assert requests_in(gan.ask(body.replace("COLUMN", "label"))) == [0, 1, 2]
    assert requests_in(ngram.ask(body.replace("COLUMN", "prompt"))) == [0, 1, 2]


def test_python_callers_are_answered_row_by_row_too(gan: Served) -> None:
    for asked in (
        [{}, {}, {}],
        pd.DataFrame([{}, {}, {}]),
        pd.DataFrame(index=range(3)),
        pd.DataFrame({"label": [0, None, 1]}),
        {"label": np.array([0, 1, 1])},
        np.array([0, 1, 1]),
        pd.Series(["left", "right", "left"]),
    ):
        assert list(gan.model.predict(asked)["request"]) == [0, 1, 2]
    assert list(gan.model.predict({"label": "left"})["request"]) == [0]
    assert list(gan.model.predict({})["request"]) == [0]


def test_a_class_is_asked_for_by_name_or_by_index(gan: Served) -> None:
    by_index = gan.ask('{"dataframe_records": [{"label": 0}, {"label": 1}, {"label": -1}]}')
    by_name = gan.ask('{"dataframe_records": [{"label": "left"}, {"label": "right"}, {}]}')
    mixed = gan.ask('{"dataframe_records": [{"label": "left"}, {"label": 1}, {"label": null}]}')
    as_floats = gan.ask('{"dataframe_records": [{"label": 0}, {"label": 1}, {}]}')
    as_csv = gan.ask("label\nleft\nright\n", "text/csv")

    assert by_index == by_name == mixed == as_floats
    assert as_csv == by_index[:2]
    assert by_index[0]["png_base64"] != by_index[1]["png_base64"]


@pytest.mark.parametrize("name", sorted(READ_AS_MISSING))
def test_a_class_that_csv_cannot_name_is_refused_and_no_other_drawn_in_its_place(
    gan: Served, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = gan.model.unwrap_python_model()
    named = json.dumps({"dataframe_records": [{"label": name}]})
    by_index = '{"dataframe_records": [{"label": 1}]}'
    assert gan.ask('label\n""\n', "text/csv")  # any class, where all can be named
    monkeypatch.setattr(model, "class_names", ["left", name])

    with pytest.raises(MlflowException, match=r"label is missing, .* in CSV: name it in JSON"):
        gan.ask(f"label\n{name}\n", "text/csv")

    assert gan.ask(named) == gan.ask(by_index) == gan.ask("label\n1\n", "text/csv")
    assert gan.ask('{"dataframe_records": [{}]}')


def test_a_parameter_names_the_class_of_all_rows_without_one(gan: Served) -> None:
    by_name = gan.ask(
        '{"dataframe_records": [{}, {"label": 0}], "params": {"class_name": "right"}}'
    )
    by_index = gan.ask('{"dataframe_records": [{}, {"label": 0}], "params": {"label": 1}}')

    assert by_name == by_index
    with pytest.raises(MlflowException, match="give one of them"):
        gan.ask('{"inputs": [{}], "params": {"class_name": "right", "label": 1}}')


KNOWN = "this model knows the classes 'left', 'right', or their indices from 0 to 1"
BAD_LABELS = ['"frog"', '"LEFT"', '"0"', '""', "2", "-2", "0.5", "true", "[0]", '{"a": 1}', "1e400"]


@pytest.mark.parametrize("label", [*BAD_LABELS, "1" + "0" * 400])
def test_a_label_that_is_not_known_is_refused_with_the_known_ones(gan: Served, label: str) -> None:
    with pytest.raises(MlflowException) as refused:
        gan.ask(f'{{"dataframe_records": [{{"label": {label}}}]}}')

    assert "label" in refused.value.message
    assert KNOWN in refused.value.message
    assert refused.value.get_http_status_code() == 400


def test_nothing_is_drawn_before_all_rows_are_read(gan: Served) -> None:
    with pytest.raises(MlflowException, match="label 'frog' is not known"):
        gan.ask('{"inputs": [{}, {"label": "frog"}]}')


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        ('{"dataframe_records": [{"colour": "red"}]}', "unknown column 'colour'"),
        ('{"dataframe_records": [{"colour": null}]}', "unknown column 'colour'"),
        ('{"dataframe_records": [{"label": 0, "colour": 1}]}', "unknown column 'colour'"),
        ('{"dataframe_records": [{"label": 0}, {"Label": 0}]}', "unknown column 'Label'"),
        ('{"inputs": {"colour": [1, 2]}}', "unknown column 'colour'"),
        ('{"instances": [{"colour": 1}]}', "unknown column 'colour'"),
        ('{"dataframe_split": {"data": [[1]]}}', "unknown column 0"),
        ('{"dataframe_records": [{"seed": 1}]}', "give 'seed' among the params"),
        ('{"dataframe_records": []}', "at least one row"),
        ('{"inputs": {"label": [0], "x": [0, 1]}}', "different lengths"),
        ('{"dataframe_split": {"columns": ["label", "label"], "data": [[0, 1]]}}', "one name"),
        ('{"inputs": [{}], "params": {"lable": 1}}', "unknown parameters ['lable']"),
        ('{"inputs": [{}], "params": {"label": 2}}', KNOWN),
        ('{"inputs": [{}], "params": {"label": 0.5}}', "label"),
        ('{"inputs": [{}], "params": {"label": true}}', "label"),
        ('{"inputs": [{}], "params": {"class_name": "frog"}}', KNOWN),
        ('{"inputs": [{}], "params": {"num_samples": 1.5}}', "num_samples"),
        ('{"inputs": [{}], "params": {"temperature": NaN}}', "temperature must lie between"),
        ('{"inputs": [{}], "params": {"seed": [1]}}', "seed"),
        ('{"inputs": [{}], "params": 7}', "must be a dictionary"),
    ],
)
def test_bad_requests_are_refused_by_name(gan: Served, body: str, complaint: str) -> None:
    with pytest.raises(MlflowException) as refused:
        gan.ask(body)

    assert complaint in refused.value.message
    assert refused.value.get_http_status_code() == 400


def test_a_null_parameter_is_one_that_was_not_given(gan: Served) -> None:
    empty = gan.ask('{"inputs": [{}]}')

    nulls = '{"num_samples": null, "seed": null, "temperature": null, "label": null}'
    assert gan.ask(f'{{"inputs": [{{}}], "params": {nulls}}}') == empty


@pytest.mark.parametrize("prompt", ["5", "true", '["a"]', '{"a": "b"}', '"\\ud800"'])
def test_a_prompt_is_text(ngram: Served, prompt: str) -> None:
    with pytest.raises(MlflowException, match="prompt") as refused:
        ngram.ask(f'{{"inputs": [{{"prompt": {prompt}}}]}}')

    assert refused.value.get_http_status_code() == 400


def test_a_prompt_may_come_in_every_form(ngram: Served) -> None:
    wanted = ngram.ask('{"dataframe_records": [{"prompt": "the cat "}]}')

    assert ngram.ask('{"inputs": ["the cat "]}') == wanted
    assert ngram.ask('{"inputs": {"prompt": ["the cat "]}}') == wanted
    assert ngram.ask('{"instances": [{"prompt": "the cat "}]}') == wanted
    assert ngram.ask('prompt\n"the cat "\n', "text/csv") == wanted
    assert ngram.ask('{"prompt": "the cat "}') == wanted


def test_a_prompt_is_bounded(ngram: Served) -> None:
    with pytest.raises(MlflowException, match="characters long"):
        ngram.model.predict([{"prompt": "a" * 100_001}])


def test_another_name_of_a_class_is_another_fit(
    images: ImageSet, image_folder: Path, run_id: str
) -> None:
    (image_folder / "left").rename(image_folder / "cat")
    (image_folder / "right").rename(image_folder / "frog")
    renamed = ingest_images.fn(f"folder:{image_folder}")
    assert renamed.digest == images.digest  # the same pictures, in the same order of classes
    with open_run("before") as before:
        fit_model.fn(images, game_plan(images), before)

    before_and_after = [fit_cache_key(game_plan(each), each) for each in (images, renamed)]
    assert before_and_after[0] != before_and_after[1]
    model = served(fit_model.fn(renamed, game_plan(renamed), run_id))
    assert requests_in(model.ask('{"inputs": [{"label": "frog"}]}')) == [0]
