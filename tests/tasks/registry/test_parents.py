"""The version that a training continues: found, checked, verified, and fetched from where it is."""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from atelier.__main__ import main
from atelier.cli import run
from flows.train import planned
from tasks.data.ingestion import ImageSet, ingest_text
from tasks.data.tokenization import TokenSet, load_tokenizer, tokenize_corpus
from tasks.evaluation.text import evaluate_tokens
from tasks.families.table import FAMILIES
from tasks.packaging.files import PackageChanged
from tasks.registry import parents
from tasks.registry.parents import (
    Continued,
    find_parent,
    initial_weights,
    initial_weights_again,
    tell_of_classes,
    unless_it_made_it,
)
from tasks.registry.versions import Version, recorded
from tasks.store.artifacts import artifacts
from tasks.store.files import BadInput, home, read_json, remove, write_json
from tasks.tracking.mlflow_client import client
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.initial_weights import InitialWeights
from tasks.training.parent import Parent
from tasks.training.plan import TrainingPlan
from tasks.training.provenance import provenance_of

pytestmark = pytest.mark.slow

SMALL = {
    **{"gpt.model.context_length": 16, "gpt.model.num_layers": 1, "gpt.model.width": 16},
    **{"gpt.training.steps": 12, "gpt.training.batch_size": 8},
}
STEPS = {"gpt.training.steps": 12, "gpt.training.batch_size": 8}
SOURCE = {"text": "pydocs", "scheme": "characters"}
Register = Callable[..., Version]


def registered(
    admit: Callable[..., Version],
    data: TokenSet,
    family: str = "gpt",
    given: dict[str, Any] | None = None,
    continues: InitialWeights | None = None,
) -> Version:
    """Train, judge, register and promote a version; its receipt."""
    settings = (SMALL if family == "gpt" else {}) if given is None else given
    plan = planned(FAMILIES[family], data, "quick", 0, settings, continues)
    with open_run(family) as run_id:
        fitted = fit_model.fn(data, plan, run_id)
        scorecard = evaluate_tokens.fn(fitted, data, run_id)
    return admit(fitted, scorecard, provenance_of(plan, data, "quick"), data)


def corpus(path: Path) -> TokenSet:
    """The receipt of a text, in characters."""
    return tokenize_corpus.fn(ingest_text.fn(f"file:{path}"))


@dataclass(frozen=True)
class Place:
    """A home and a registry with one GPT, the champion of its data: to be copied."""

    folder: Path
    version: Version


@pytest.fixture(scope="module")
def first_place(
    tmp_path_factory: pytest.TempPathFactory,
    migrated_database: Path,
    written_corpus: Path,
    admit: Callable[..., Version],
) -> Place:
    folder = tmp_path_factory.mktemp("parents")
    shutil.copy(migrated_database, folder / "mlflow.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATELIER_HOME", str(folder / "home"))
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        patch.delenv("ATELIER_DATA", raising=False)
        patch.chdir(folder)
        return Place(folder, registered(admit, corpus(written_corpus)))


@pytest.fixture
def gpt(first_place: Place, tracking_database: str, atelier_home: Path) -> Version:
    """The receipt of `corpus-gpt/1`, champion in this test's home; its package is to be read."""
    shutil.copytree(first_place.folder / "home", atelier_home)
    shutil.copy(first_place.folder / "mlflow.db", tracking_database.removeprefix("sqlite:///"))
    return first_place.version


@pytest.fixture
def tokens(gpt: Version, written_corpus: Path) -> TokenSet:
    """What it was trained on."""
    return corpus(written_corpus)


@pytest.fixture
def register(tokens: TokenSet, admit: Callable[..., Version]) -> Register:
    """Trains, judges, registers and promotes a version; gives its receipt."""

    def register(data: TokenSet = tokens, **settings: Any) -> Version:
        return registered(admit, data, **settings)

    return register


def found(address: str = "corpus-gpt/1", families: Any = ("gpt",), **more: Any) -> Continued:
    given, source = more.get("given", {}), {**SOURCE, **more.get("source", {})}
    return find_parent.fn(address, families, given, preset="quick", source=source)


def test_a_version_is_found_by_alias_number_or_its_models_name(gpt: Version) -> None:
    for address in ("corpus-gpt", "corpus-gpt/1"):
        assert found(address).version.digest == gpt.digest
    client().set_registered_model_alias("corpus-gpt", "mine", "1")
    assert found("corpus-gpt@mine").taken["gpt.model.width"] == 16


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"address": "corpus-gpt/7"}, "corpus-gpt has no version '7'; there are: 1"),
        (
            {"address": "other-gpt"},
            "no model is named 'other-gpt' (did you mean corpus-gpt?); there are: corpus-gpt",
        ),
        ({"address": "Corpus@x"}, "'Corpus' cannot be the name of a model"),
        (
            {"families": ("vae", "gpt")},
            "--continue-from corpus-gpt/1 is for the family gpt, and to be trained are vae, gpt;"
            " add --families gpt",
        ),
        ({"families": ("vae",)}, "is for the family gpt, and to be trained are vae"),
        (
            {"given": {"gpt.model.width": 32}},
            "gpt.model.width is set to 32, and corpus-gpt version",
        ),
        ({"source": {"scheme": "bpe"}}, "is to be bpe, and corpus-gpt version 1"),
    ],
)
def test_what_cannot_be_continued_is_refused(
    asked: dict[str, Any], told: str, gpt: Version
) -> None:
    with pytest.raises(BadInput, match=re.escape(told)):
        found(**asked)


def test_what_counts_says_why_it_cannot_be_continued(register: Register) -> None:
    register(family="ngram")

    with pytest.raises(BadInput, match="corpus-ngram version 1 cannot be continued: its counts"):
        found("corpus-ngram", ("ngram",))


def test_the_command_asks_the_same_before_anything_is_started(
    gpt: Version, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = ["run", "--continue-from", "corpus-gpt@champion", "--preset", "quick"]

    codes = [main([*wanted, "--families", "gpt", "--set", "gpt.model.width=32"])]
    # A second process would take seconds for the same imports.
    monkeypatch.setattr(run, "in_a_process_of_its_own", lambda ask, *given: ask(*given))
    codes += [main([*wanted, "--families", "gpt,ngram"])]

    told = capsys.readouterr().err.splitlines()
    assert codes == [2, 2]
    assert len(told) == 2
    assert "gpt.model.width is set to 32, and corpus-gpt version 1" in told[0]
    assert told[1].endswith("to be trained are ngram, gpt; add --families gpt")
    assert not (home() / "servers.json").exists()


def test_weights_come_from_the_stored_fit_or_else_from_the_package(gpt: Version) -> None:
    stored = initial_weights.fn(found())
    (fit,) = [each for each in artifacts("models") if each.digest == gpt.digest]
    assert stored.folder == str(fit.folder)
    remove(home() / "artifacts" / "models")

    fetched = initial_weights.fn(found())

    assert fetched.parent == stored.parent
    assert fetched.parent.digest == gpt.digest
    assert Path(fetched.folder).is_relative_to(home() / "artifacts" / "initial-weights")
    assert fetched.weights_path.exists()
    assert fetched.tokenizer_path.exists()
    assert initial_weights_again.fn(stored.parent, "gpt", stored.model).folder == fetched.folder


def test_a_damaged_stored_fit_is_left_aside(gpt: Version) -> None:
    (fit,) = [each for each in artifacts("models") if each.digest == gpt.digest]
    (fit.folder / "weights.safetensors").write_bytes(b"damaged")

    assert initial_weights.fn(found()).parent.digest == gpt.digest


def test_nothing_of_a_package_that_was_changed_is_taken(
    gpt: Version, monkeypatch: pytest.MonkeyPatch
) -> None:
    client().set_model_version_tag("corpus-gpt", "1", "package_digest", "0" * 64)
    monkeypatch.setattr(parents, "_stored", lambda *_: pytest.fail("read before it was verified"))

    with pytest.raises(PackageChanged, match="corpus-gpt version 1 is not what was registered"):
        initial_weights.fn(found())


def test_what_was_continued_and_is_gone_cannot_be_had_again(gpt: Version) -> None:
    begins = initial_weights.fn(found())
    remove(home() / "artifacts" / "models")
    client().delete_model_version("corpus-gpt", "1")

    with pytest.raises(BadInput, match="corpus-gpt has no version '1'"):
        initial_weights_again.fn(begins.parent, "gpt", begins.model)


def test_a_child_is_told_apart_and_names_its_parent(register: Register, tmp_path: Path) -> None:
    begins = initial_weights.fn(found())
    other = tmp_path / "other.txt"
    other.write_text("a bird sees the dog and the cat hears a small bird.\n" * 400)

    data = tokenize_corpus.fn(
        ingest_text.fn(f"file:{other}"), tokenizer_file=str(begins.tokenizer_path)
    )
    child = register(data, given=STEPS, continues=begins)

    assert load_tokenizer(data).to_dict() == read_json(begins.tokenizer_path)
    version = client().get_model_version("other-gpt", "1")
    assert version.tags["parent"] == "corpus-gpt/1"
    _, recipe = recorded("other-gpt", "1")
    assert recipe is not None
    assert recipe.continues == begins.parent == child.continues


def test_a_champion_that_the_same_command_made_is_unchanged(
    register: Register, tokens: TokenSet
) -> None:
    """An alias follows promotions: each night would train on what the last one made."""
    begins = initial_weights.fn(found("corpus-gpt/1"))
    child = register(given=STEPS, continues=begins)
    assert child.version == 2
    client().set_registered_model_alias("corpus-gpt", "champion", "2")

    def begun(address: str, **more: Any) -> InitialWeights:
        asked = found(address)
        plan: TrainingPlan = planned(
            FAMILIES["gpt"], tokens, "quick", 0, {**STEPS, **more}, initial_weights.fn(asked)
        )
        return unless_it_made_it(asked, plan, tokens)

    assert begun("corpus-gpt@champion").parent == begins.parent
    assert begun("corpus-gpt/2").parent.digest == child.digest
    longer = begun("corpus-gpt@champion", **{"gpt.training.steps": 13})
    assert longer.parent.digest == child.digest


def test_classes_of_other_names_are_told(
    images: ImageSet, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="atelier")
    parent = Parent(name="pets-gan", version=3, digest="12" * 32)
    begins = InitialWeights(parent=parent, family="gan", model={}, folder=str(tmp_path))

    for names in (["left", "right"], ["left", "up"]):
        write_json(begins.classes_path, names)
        tell_of_classes(begins, images)

    assert [line for line in caplog.messages if "other classes" in line] == [
        "pictures: other classes than pets-gan version 3 knows, taken in their order: up -> right"
    ]
