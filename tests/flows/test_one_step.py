"""One step of a version alone: by today's code, on what is stored, and without consequences."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from flows.full_run import full_run
from flows.one_step import step_evaluate, step_fit, step_register, step_sample
from flows.reproduce import reproduce
from tasks.registry.version_comparison import compare_versions
from tasks.registry.version_tags import digest_tag
from tasks.registry.versions import every_version
from tasks.store.artifacts import KINDS, artifacts
from tasks.store.files import BadInput, folder_digests
from tasks.tracking.mlflow_client import client

NAMES = ["pictures-vae", "corpus-ngram"]
SMALL = {"vae.model.base_width": 8, "vae.model.hidden_size": 32, "vae.training.steps": 80}

# Prefect's client leaves the sockets of what it asked to the garbage collector
pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore:unclosed .*socket:ResourceWarning"),
]


@dataclass(frozen=True)
class Workshop:
    """A home with a champion of either kind of data."""

    home: Path
    text: Path

    def run_on(self, text: Path) -> None:
        full_run(text=f"corpus=file:{text}", models=("ngram",), preset="quick")

    def told(self) -> Any:
        """All that people and other programs see of the registry, the log and the gallery."""
        return (
            [(v.name, v.version, v.tags, v.description) for v in every_version()],
            [client().get_registered_model(name).aliases for name in NAMES],
            folder_digests(self.home / "ledger"),
            folder_digests(self.home / "gallery"),
        )


@pytest.fixture(scope="module")
def first_workshop(
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,
    written_pictures: Path,
    written_corpus: Path,
    prefect: Any,
) -> Iterator[Workshop]:
    home = tmp_path_factory.mktemp("workshop")
    shutil.copy(migrated_database, home / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_HOME", str(home))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{home / 'mlflow.db'}")
        patch.chdir(home)
        full_run(
            images=f"folder:{written_pictures}",
            text=f"corpus=file:{written_corpus}",
            models=("vae", "ngram"),
            preset="quick",
            settings=SMALL,
        )
        yield Workshop(home, written_corpus)


@pytest.fixture
def workshop(first_workshop: Workshop) -> Iterator[Workshop]:
    """The same for every test: none of them may change what others see."""
    before = first_workshop.told()
    yield first_workshop
    assert first_workshop.told() == before


def stored() -> set[str]:
    return {str(each.folder) for kind in KINDS for each in artifacts(kind)}


@pytest.mark.parametrize("name", NAMES)
def test_an_evaluation_gives_what_is_on_record(workshop: Workshop, name: str) -> None:
    before = stored()

    found = step_evaluate(name)
    fresh = step_evaluate(name, "1", fresh=True)

    assert found.scorecard.was_stored
    assert not fresh.scorecard.was_stored
    assert found.is_kept
    assert not fresh.is_kept
    assert found.scorecard.metrics == pytest.approx(found.recorded)
    assert fresh.scorecard.metrics == pytest.approx(found.recorded)
    assert (found.version.name, found.version.version) == (name, 1)
    assert stored() == before


@pytest.mark.parametrize("name", NAMES)
def test_a_fit_gives_the_same_weights(workshop: Workshop, name: str) -> None:
    before = stored()

    found, fresh = step_fit(name), step_fit(name, fresh=True)

    assert found.fitted.was_stored
    assert not fresh.fitted.was_stored
    for each in (found, fresh):
        assert each.comparison.is_identical
        assert not [one.what for one in each.comparison.comparisons if not one.is_same]
    assert stored() == before


@pytest.mark.parametrize("is_fresh", [False, True])
def test_a_fit_by_other_settings_says_how_far_the_weights_lie_apart(
    workshop: Workshop, is_fresh: bool
) -> None:
    version = client().get_model_version("pictures-vae", "1")
    recipe = json.loads(version.tags["recipe"])
    training = recipe["settings"].get("training") or recipe["settings"]["fit"]
    training["seed"] += 1
    client().set_model_version_tag("pictures-vae", "1", "recipe", json.dumps(recipe))
    try:
        made = step_fit("pictures-vae", fresh=is_fresh)
        again = reproduce("pictures-vae")
    finally:
        client().set_model_version_tag("pictures-vae", "1", "recipe", version.tags["recipe"])

    for comparison in (made.comparison, again):
        assert not comparison.is_identical
        (weights,) = [each for each in comparison.comparisons if each.what == "weights"]
        assert " apart" in weights.now


@pytest.mark.parametrize("name", NAMES)
def test_a_version_draws_while_the_gallery_stays(workshop: Workshop, name: str) -> None:
    first = step_sample(name, "1", seed=3)
    files = folder_digests(Path(first.folder))
    again = step_sample(name, "champion", seed=3)

    assert Path(first.folder) == workshop.home / "drawn" / name
    assert [*first.pictures, *first.texts]
    assert all(file in files for file, _ in (*first.pictures, *first.texts))
    assert folder_digests(Path(again.folder)) == files


@pytest.mark.parametrize("name", NAMES)
def test_a_registration_is_rehearsed(workshop: Workshop, name: str) -> None:
    packages = len(list((workshop.home / "mlartifacts").glob("**/MLmodel")))

    made = step_register(name, "1")

    assert made.decision.accepted
    assert made.decision.reason == "the same content as the champion"
    assert made.loads
    assert "loads in a clean process, and draws the same" in made.package
    assert len(list((workshop.home / "mlartifacts").glob("**/MLmodel"))) == packages


@pytest.mark.parametrize("kind", ["images", "tokens", "corpora", "models"])
def test_what_is_not_stored_any_more_is_made_again_or_named(
    workshop: Workshop, kind: str, tmp_path: Path
) -> None:
    name = NAMES[0] if kind == "images" else NAMES[1]
    folder = workshop.home / "artifacts" / kind
    shutil.move(folder, tmp_path / kind)
    try:
        if kind != "models":
            assert step_evaluate(name).scorecard.was_stored
        made = step_register(name, "1")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        shutil.move(tmp_path / kind, folder)

    assert made.loads == (kind != "models")
    assert ("not packed: its fit is not stored" in made.package) == (kind == "models")


@pytest.mark.parametrize("step", [step_fit, step_evaluate, step_register, step_sample])
def test_a_version_that_is_not_there_is_refused(workshop: Workshop, step: Any) -> None:
    with pytest.raises(BadInput, match="corpus-ngram has no version '9'; there are: 1"):
        step("corpus-ngram", "9")


def test_an_older_version_is_measured_on_newer_data_and_then_pairs(
    first_workshop: Workshop, tmp_path: Path
) -> None:
    grown = tmp_path / "corpus.txt"
    grown.write_text(
        first_workshop.text.read_text() + "a small dog hears the bird and sleeps.\n" * 9
    )
    first_workshop.run_on(grown)
    data = digest_tag(client().get_model_version("corpus-ngram", "2"), "data")
    first = client().get_model_version("corpus-ngram", "1").tags["content_digest"]
    for each in artifacts("evaluations"):  # by the gate, which found a champion there
        if each.inputs == (first, data):
            shutil.rmtree(each.folder)
    champion = client().get_model_version_by_alias("corpus-ngram", "champion")
    found = compare_versions("corpus-ngram", "1", "2")
    assert found.paired is None
    assert "`atelier step evaluate corpus-ngram/1 --data-of 2`" in found.unpaired

    made = step_evaluate("corpus-ngram", "1", data_of="2")

    assert made.scorecard.data_digest == data
    assert compare_versions("corpus-ngram", "1", "2").paired is not None
    assert client().get_model_version_by_alias("corpus-ngram", "champion") == champion
