"""A registered model belongs to one data set: looked at before training and when registering."""

import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from flows.train import planned
from models.ngram.config import NgramConfig
from tasks.data.ingestion import Corpus, ImageSet, ingest_images, ingest_text
from tasks.data.tokenization import tokenize_corpus
from tasks.evaluation.text import evaluate_tokens
from tasks.families.table import FAMILIES
from tasks.registry.data_owner import DATA_SET, OtherData, check_data, data_before
from tasks.registry.versions import Version, versions_of
from tasks.runtime.markup import registry_markdown
from tasks.tracking.mlflow_client import client
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.provenance import provenance_of

pytestmark = pytest.mark.usefixtures("tracking_database")

Lines = Callable[[], list[str]]
Registered = Callable[..., Version]


def book(path: Path, seed: int) -> str:
    """Write a text of 35 kB; returns its source."""
    random = np.random.default_rng(seed)
    words = ["the", "cat", "dog", "sees", "hears", "a", "small", "bird", "and", "sleeps"]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(" ".join(random.choice(words, size=9)) + ".\n" for _ in range(800)))
    return f"file:{path}"


@pytest.fixture(scope="session")
def registered(admit: Callable[..., Version]) -> Registered:
    """Train, judge, register and promote an n-gram model, as the flows do."""

    def by_flow(corpus: Corpus, order: int = 2) -> Version:
        tokens = tokenize_corpus.fn(corpus)
        settings = {"model": NgramConfig(order=order), "tuning": None}
        plan = replace(planned(FAMILIES["ngram"], tokens, "quick", 0, {}), settings=settings)
        with open_run(f"order {order}") as run_id:
            fitted = fit_model.fn(tokens, plan, run_id)
            scorecard = evaluate_tokens.fn(fitted, tokens, run_id)
        recipe = provenance_of(plan, tokens, "quick")
        return admit(fitted, scorecard, recipe, tokens)

    return by_flow


@pytest.fixture(scope="module")
def first_place(
    tmp_path_factory: pytest.TempPathFactory, migrated_database: Path, registered: Registered
) -> Path:
    """A home and a registry with one champion, of the book a/book.txt: to be copied."""
    place = tmp_path_factory.mktemp("owner")
    shutil.copy(migrated_database, place / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_HOME", str(place / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{place / 'mlflow.db'}")
        patch.chdir(place)
        registered(ingest_text.fn(book(place / "a" / "book.txt", 1)))
    return place


@pytest.fixture
def champions_book(first_place: Path, tracking_database: str, atelier_home: Path) -> str:
    """The source of a book whose model is champion in this test's home and registry."""
    shutil.copytree(first_place / "home", atelier_home)
    shutil.copy(first_place / "mlflow.db", tracking_database.removeprefix("sqlite:///"))
    return f"file:{first_place / 'a' / 'book.txt'}"


def untagged(name: str) -> None:
    """As a model was before there were these tags."""
    client().delete_registered_model_tag(name, DATA_SET)


@pytest.fixture
def lines(caplog: pytest.LogCaptureFixture) -> Lines:
    """What was said so far."""
    caplog.set_level(logging.INFO, "atelier")
    return lambda: [record.getMessage() for record in caplog.records]


def test_another_book_of_the_same_name_is_refused_before_training_with_the_way_out(
    tmp_path: Path, champions_book: str
) -> None:
    second = book(tmp_path / "b" / "book.txt", 2)
    other = ingest_text.fn(second)

    with pytest.raises(OtherData) as refusal:
        check_data.fn(other)

    message = str(refusal.value)
    assert message.startswith("book-ngram belongs to other data: it was trained on")
    assert champions_book in message
    assert f"--text NAME={second} (in a form: NAME={second})" in message
    check_data.fn(ingest_text.fn(f"greek={second}"))
    check_data.fn(ingest_text.fn(champions_book))


def test_a_name_stands_for_one_data_set_in_all_families(
    tmp_path: Path, champions_book: str
) -> None:
    client().rename_registered_model("book-ngram", "book-gpt")

    with pytest.raises(OtherData, match="book-gpt belongs to other data"):
        check_data.fn(ingest_text.fn(book(tmp_path / "b" / "book.txt", 2)))


@pytest.mark.slow
def test_of_two_rivals_the_first_to_register_has_the_name(
    tmp_path: Path, registered: Registered
) -> None:
    """Both looked before either was registered."""
    first = ingest_text.fn(book(tmp_path / "a" / "book.txt", 1))
    second = ingest_text.fn(book(tmp_path / "b" / "book.txt", 2))
    check_data.fn(first)
    check_data.fn(second)

    registered(second)
    with pytest.raises(OtherData):
        registered(first)

    assert len(versions_of("book-ngram")) == 1
    kept = data_before("book-ngram")
    assert kept is not None
    assert kept.digest == second.digest


@pytest.mark.slow
def test_a_grown_text_is_taken_and_the_card_says_how_it_changed(
    tmp_path: Path, lines: Lines, registered: Registered
) -> None:
    source = book(tmp_path / "book.txt", 1)
    registered(ingest_text.fn(source))
    before = (tmp_path / "book.txt").read_text()
    more = book(tmp_path / "more.txt", 2)
    (tmp_path / "book.txt").write_text(before + Path(more.removeprefix("file:")).read_text())
    grown = ingest_text.fn(source)

    check_data.fn(grown)
    registered(grown, order=3)
    registered(grown, order=1)

    told = f"since version 1: {grown.num_characters:,} characters, {len(before):,} before"
    assert any(f"book-ngram: the data changed {told}" in line for line in lines())
    first, second, third = versions_of("book-ngram")
    shown = registry_markdown(told)
    assert f"**The data changed** {shown}" in second.description
    assert "The data changed" not in first.description + third.description
    kept = data_before("book-ngram")
    assert kept is not None
    assert (kept.digest, kept.version) == (grown.digest, 2)


@pytest.mark.slow
def test_a_moved_folder_is_followed(tmp_path: Path, registered: Registered) -> None:
    source = book(tmp_path / "a" / "book.txt", 1)
    registered(ingest_text.fn(source))
    moved = tmp_path / "b" / "book.txt"
    moved.parent.mkdir()
    (tmp_path / "a" / "book.txt").replace(moved)

    check_data.fn(ingest_text.fn(f"file:{moved}"))
    registered(ingest_text.fn(f"file:{moved}"))
    kept = data_before("book-ngram")

    assert kept is not None
    assert kept.place == f"file:{moved}"


@pytest.mark.parametrize("is_kept_here", [True, False], ids=["data here", "data gone"])
def test_a_model_from_before_these_tags_is_adopted_by_its_record(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    lines: Lines,
    is_kept_here: bool,
    registered: Registered,
    champions_book: str,
) -> None:
    untagged("book-ngram")
    if not is_kept_here:
        monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "another home"))
    same = ingest_text.fn(champions_book)

    with pytest.raises(OtherData, match="book-ngram belongs to other data"):
        check_data.fn(ingest_text.fn(book(tmp_path / "b" / "book.txt", 2)))
    check_data.fn(same)

    assert any("by its record it was trained on file:" in line for line in lines())
    registered(same)
    kept = data_before("book-ngram")
    assert kept is not None
    assert kept.version == 1
    assert kept.contents != ""
    assert DATA_SET in client().get_registered_model("book-ngram").tags


def test_a_model_of_an_embedded_data_set_is_never_anothers(
    tmp_path: Path, champions_book: str
) -> None:
    client().rename_registered_model("book-ngram", "pydocs-ngram")

    with pytest.raises(OtherData, match="rename the registered model"):
        check_data.fn(ingest_text.fn("pydocs"))
    # a file of that name is called otherwise
    assert ingest_text.fn(book(tmp_path / "pydocs.txt", 2)).name == "own-pydocs"


def test_a_champion_of_another_image_size_is_told_of_before_training(
    images: ImageSet, image_folder: Path, lines: Lines
) -> None:
    registry = client()
    registry.create_registered_model("pictures-vae", tags={"family": "vae"})
    config = {"config": {"channels": 1, "height": 8, "width": 8}}
    recipe = json.dumps({"family": "vae", "source": images.source, "settings": config})
    tags = {"state": "complete", "recipe": recipe, "data_digest": images.digest}
    registry.create_model_version(
        "pictures-vae", source="file:///nowhere", tags=tags, await_creation_for=0
    )
    registry.set_registered_model_alias("pictures-vae", "champion", "1")

    check_data.fn(images)
    assert not any("WARNING" in line for line in lines())
    check_data.fn(ingest_images.fn(f"folder:{image_folder}", 16))

    (warning,) = [line for line in lines() if "WARNING" in line]
    assert "makes images of 8x8x1, and these are 16x16x1" in warning
    assert "`atelier promote pictures-vae --to N`" in warning
    assert f"--images NAME=folder:{image_folder}" in warning


BROKEN = ["x", "[]", "{}", '{"family": 5}', '{"family": "ngram", "source": 5}', "[" * 4000]


@pytest.mark.parametrize("recipe", BROKEN, ids=lambda recipe: recipe[:20])
def test_a_record_of_another_shape_tells_nothing_of_the_data(
    recipe: str, champions_book: str
) -> None:
    untagged("book-ngram")
    client().set_model_version_tag("book-ngram", "1", "recipe", recipe)

    check_data.fn(ingest_text.fn(champions_book))

    assert data_before("book-ngram") is None


def test_a_place_that_is_none_here_is_no_traceback(champions_book: str) -> None:
    untagged("book-ngram")
    recipe = json.dumps({"family": "ngram", "source": "file:~nobody99/x"})
    client().set_model_version_tag("book-ngram", "1", "recipe", recipe)

    assert data_before("book-ngram") is not None


@pytest.mark.parametrize("tag", ["x", '{"place": 5}', "[]"])
def test_a_tag_that_somebody_changed_gives_way_to_the_record(
    tmp_path: Path, tag: str, champions_book: str
) -> None:
    client().set_registered_model_tag("book-ngram", DATA_SET, tag)

    with pytest.raises(OtherData, match="book-ngram belongs to other data"):
        check_data.fn(ingest_text.fn(book(tmp_path / "b" / "book.txt", 2)))
