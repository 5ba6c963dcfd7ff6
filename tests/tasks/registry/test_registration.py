"""From a fit to a version that loads anywhere: evaluation, gate, registry, samples, gallery."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from flows.train import planned
from models.gan.config import GanConfig
from models.gpt.config import GptConfig
from models.ngram.config import NgramConfig
from models.training.config import FitConfig
from models.vae.config import VaeConfig
from tasks.data.ingestion import ImageSet, ingest_images, ingest_text
from tasks.data.tokenization import TokenSet, tokenize_corpus
from tasks.evaluation.cache import item_scores
from tasks.evaluation.images import evaluate_images
from tasks.evaluation.scorecard import PromotionDecision, Scorecard
from tasks.evaluation.text import evaluate_tokens
from tasks.families.table import FAMILIES
from tasks.packaging import package
from tasks.packaging.bundled_code import package_name
from tasks.packaging.load_check import LoadCheckFailed
from tasks.registry import registration
from tasks.registry.champion import evaluate_champion
from tasks.registry.loading import loaded
from tasks.registry.promotion_policy import gate
from tasks.registry.registration import register_version
from tasks.registry.verdicts import apply_decision
from tasks.registry.version_tags import RECORD
from tasks.registry.versions import Version, champion_of, champions
from tasks.runtime.play_address import play_url
from tasks.runtime.processes import this_process
from tasks.samples.sampling import draw_samples, publish_gallery
from tasks.store.files import home, read_json
from tasks.tracking.mlflow_client import (
    EXPERIMENT,
    SECONDS_OF_A_LARGE_FILE,
    client,
    tracking_experiment,
)
from tasks.tracking.runs import open_run
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel
from tasks.training.plan import TrainingPlan, feature_extractor_plan
from tasks.training.provenance import TrainingProvenance, provenance_of

pytestmark = pytest.mark.slow

FIT = FitConfig(steps=150, batch_size=16, learning_rate=3e-3, warmup_steps=5)
SHAPE = {"channels": 1, "height": 8, "width": 8}


@dataclass(frozen=True)
class Candidate:
    """A trained and judged model."""

    fitted: TrainedModel
    scorecard: Scorecard
    recipe: TrainingProvenance
    data: ImageSet | TokenSet
    judge: TrainedModel | None = None


def plan_of(family: str, data: ImageSet | TokenSet, seed: int = 0, **settings: Any) -> TrainingPlan:
    return replace(planned(FAMILIES[family], data, "quick", seed, {}), settings=settings)


@pytest.fixture(scope="module")
def shared_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One home for this module: a fit that an earlier test made is found, not made again."""
    return tmp_path_factory.mktemp("home")


@pytest.fixture
def atelier_home(shared_home: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The shared home; each test still has a tracking database and an audit log of its own."""
    monkeypatch.setenv("ATELIER_HOME", str(shared_home))
    shutil.rmtree(shared_home / "ledger", ignore_errors=True)
    return shared_home


@pytest.fixture
def ngram(tokens: TokenSet, run_id: str) -> Candidate:
    """A judged n-gram model."""
    return ngram_of(tokens, run_id, order=3)


@pytest.fixture
def vae(images: ImageSet, run_id: str) -> Candidate:
    """A judged VAE."""
    config = VaeConfig(**SHAPE, latent_size=2, base_width=8, hidden_size=32)
    return images_of("vae", images, run_id, config, FIT)


def images_of(
    family: str, images: ImageSet, run_id: str, config: VaeConfig | GanConfig, fit: FitConfig
) -> Candidate:
    plan = plan_of(family, images, model=config, training=fit)
    judge = fit_model.fn(images, feature_extractor_plan(images), run_id)
    fitted = fit_model.fn(images, plan, run_id)
    record = FAMILIES[family]
    scorecard = evaluate_images.fn(
        fitted,
        images,
        judge,
        run_id,
        likelihood=record.likelihood,
        draws_means=record.draws_means,
    )
    return Candidate(fitted, scorecard, provenance_of(plan, images, "quick"), images, judge)


def ngram_of(tokens: TokenSet, run_id: str, order: int, seed: int = 0) -> Candidate:
    plan = plan_of("ngram", tokens, seed, model=NgramConfig(order=order), tuning=None)
    fitted = fit_model.fn(tokens, plan, run_id)
    recipe = provenance_of(plan, tokens, "quick")
    return Candidate(fitted, evaluate_tokens.fn(fitted, tokens, run_id), recipe, tokens)


def judged(candidate: Candidate) -> PromotionDecision:
    """The gate's verdict; the champion is judged on the candidate's data."""
    family = FAMILIES[candidate.fitted.family]
    incumbent = evaluate_champion.fn(candidate.fitted.name, candidate.data, family, candidate.judge)
    return gate.fn(candidate.fitted, candidate.scorecard, incumbent)


def register(
    candidate: Candidate, verdict: PromotionDecision | None = None, *, checks_load: bool = False
) -> Version:
    """The whole way to an alias; without a verdict the gate gives one.

    checks_load: load it in a clean process first, where the test is about that; a forked process
    does it, which loads and draws for longer than all the rest takes.
    """
    verdict = verdict or judged(candidate)
    with pytest.MonkeyPatch.context() as patch:
        if not checks_load:
            patch.setattr(registration, "check_loads", lambda *_, **__: None)
        version = register_version.fn(
            candidate.fitted, candidate.scorecard, verdict, candidate.recipe
        )
    settled = apply_decision.fn(version, verdict)
    assert settled is not None
    return settled


def test_the_first_sound_version_becomes_champion_and_a_second_time_changes_nothing(
    ngram: Candidate,
) -> None:
    assert register(ngram, checks_load=True).is_new
    assert not register(ngram, checks_load=True).is_new

    versions = MlflowClient().search_model_versions(f"name = '{ngram.fitted.name}'")
    assert [version.version for version in versions] == [1]
    champion = champion_of(ngram.fitted.name)
    assert champion is not None
    assert champion.tags["content_digest"] == ngram.fitted.digest
    assert champion.run_id == ngram.fitted.run_id
    assert "bits per byte" in champion.description


def test_a_worse_model_is_registered_as_challenger_with_the_reason(
    ngram: Candidate, tokens: TokenSet
) -> None:
    register(ngram)
    with open_run("worse") as run_id:
        worse = ngram_of(tokens, run_id, order=1)

    version = register(worse)

    assert version.alias == "challenger"
    name = worse.fitted.name
    challenger = MlflowClient().get_model_version_by_alias(name, "challenger")
    assert challenger.tags["gate_reason"].startswith("not better")
    champion = champion_of(name)
    assert champion is not None
    assert champion.version == 1


def test_a_faulty_model_never_becomes_champion(ngram: Candidate) -> None:
    faulty = replace(ngram.scorecard, failed_checks=("collapsed: draws 1 of 10 classes",))

    verdict = gate.fn(ngram.fitted, faulty, None)

    assert verdict == PromotionDecision(accepted=False, reason="collapsed: draws 1 of 10 classes")


def test_a_refused_first_version_is_a_challenger_and_no_champion_to_show(
    ngram: Candidate,
) -> None:
    refused = PromotionDecision(accepted=False, reason="collapsed")

    version = register(ngram, refused)

    assert version.alias == "challenger"
    assert champions() == []


def test_other_peoples_models_are_not_ours_to_show(ngram: Candidate) -> None:
    registry = MlflowClient()
    registry.create_registered_model("foreign")
    registry.create_model_version("foreign", source="file:///nowhere", await_creation_for=0)
    registry.set_registered_model_alias("foreign", "champion", "1")

    register(ngram)

    assert champions() == [ngram.fitted.name]


def test_a_champion_is_judged_anew_when_the_data_changed(
    ngram: Candidate, tokens: TokenSet, text_file: Path
) -> None:
    """The newer model is not taken for being newer: both answer for the data of today."""
    register(ngram)
    text_file.write_text(text_file.read_text().replace("cat", "owl"))
    changed = tokenize_corpus.fn(ingest_text.fn(f"file:{text_file}"))
    with open_run("worse") as run_id:
        worse = ngram_of(changed, run_id, order=1)

    incumbent = evaluate_champion.fn(worse.fitted.name, changed, FAMILIES["ngram"])

    assert incumbent is not None
    assert incumbent.scorecard is not None
    assert incumbent.scorecard.evaluation_digest == worse.scorecard.evaluation_digest
    assert incumbent.scorecard.evaluation_digest != ngram.scorecard.evaluation_digest
    assert not incumbent.scorecard.was_stored
    verdict = gate.fn(worse.fitted, worse.scorecard, incumbent)
    assert not verdict.accepted
    assert verdict.champion_value == incumbent.scorecard.main_value
    again = evaluate_champion.fn(worse.fitted.name, changed, FAMILIES["ngram"])
    assert again is not None
    assert again.scorecard is not None
    assert again.scorecard.was_stored


def test_a_champion_that_cannot_answer_for_the_data_is_not_replaced_by_itself(
    vae: Candidate, image_folder: Path
) -> None:
    register(vae)
    larger = ingest_images.fn(f"folder:{image_folder}", 16)
    other = replace(vae.fitted, digest="0" * 64)

    incumbent = evaluate_champion.fn(vae.fitted.name, larger, FAMILIES["vae"], vae.judge)

    assert incumbent is not None
    assert incumbent.problem == "it makes images of shape (1, 8, 8), the data's have (1, 16, 16)"
    verdict = gate.fn(other, vae.scorecard, incumbent)
    assert not verdict.accepted
    assert "`atelier promote pictures-vae`" in verdict.reason


def test_an_evaluation_is_found_again_and_a_damaged_one_is_made_anew(
    tokens: TokenSet, run_id: str
) -> None:
    first = ngram_of(tokens, run_id, order=2)

    again = evaluate_tokens.fn(first.fitted, tokens, run_id)

    assert again == replace(first.scorecard, was_stored=True)
    path = Path(again.folder) / "scores.safetensors"
    path.write_bytes(path.read_bytes()[:-8] + b"tampered")
    assert evaluate_tokens.fn(first.fitted, tokens, run_id) == replace(again, was_stored=False)


def test_the_scores_of_items_have_the_main_metric_as_their_mean(
    vae: Candidate, ngram: Candidate
) -> None:
    for candidate, num_items in ((vae, 18), (ngram, 4)):
        scores, are_resamples = item_scores(candidate.scorecard)

        assert not are_resamples
        assert len(scores) >= num_items
        assert scores.mean() == pytest.approx(candidate.scorecard.main_value)
        assert candidate.scorecard.low < candidate.scorecard.main_value < candidate.scorecard.high


def test_the_card_tells_a_person_what_the_version_is(vae: Candidate, ngram: Candidate) -> None:
    for candidate in (vae, ngram):
        register(candidate)
        champion = champion_of(candidate.fitted.name)
        assert champion is not None
        card = champion.description
        for part in (
            "95 % interval",
            "**Trained on** ",
            f"digest `{candidate.scorecard.data_digest[:12]}`",
            "licence: ",
            "**Limits.** ",
            f'mlflow.pyfunc.load_model("models:/{candidate.fitted.name}/{champion.version}")',
            f"/runs/{candidate.fitted.run_id}?",
        ):
            assert part in card
        recipe = json.loads(champion.tags["recipe"])
        assert recipe["settings"]["model"]
    assert "real held-out data" in vae_card(vae)


def vae_card(vae: Candidate) -> str:
    found = champion_of(vae.fitted.name)
    assert found is not None
    return str(found.description)


def test_the_scorecard_holds_what_the_design_promises(vae: Candidate, ngram: Candidate) -> None:
    measured = vae.scorecard.metrics
    assert measured["test_nll_nats"] <= measured["test_negative_elbo_nats"] + 0.5
    assert measured["test_negative_elbo_nats"] == pytest.approx(
        measured["test_reconstruction_nats"] + measured["test_kl_nats"]
    )
    for name in ("frechet_distance", "kernel_distance", "precision", "recall", "coverage"):
        assert {f"test_{name}", f"real_data_{name}"} <= set(measured)
    assert measured["classifier_test_accuracy"] == 1.0  # the two classes are easily told apart
    assert 0 < ngram.scorecard.main_value < 3
    assert ngram.scorecard.main_value == pytest.approx(
        ngram.scorecard.metrics["test_nats_per_token"] / np.log(2)  # one byte per character here
    )


def test_numbers_reach_the_run_with_the_digest_of_the_data(vae: Candidate) -> None:
    run = MlflowClient().get_run(vae.scorecard.run_id)

    assert run.data.metrics["test_nll_nats"] == vae.scorecard.metrics["test_nll_nats"]
    digests = {each.dataset.digest for each in run.inputs.dataset_inputs}
    assert digests == {vae.fitted.data_digest[:12]}
    assert len(run.data.tags["classifier_digest"]) == 64


def test_a_version_is_code_safetensors_and_json_without_a_pickle(
    vae: Candidate,
    tmp_path: Path,
    shared_home: Path,
    scan_for_pickles: Callable[[Path], tuple[int, list[Path]]],
) -> None:
    register(vae, checks_load=True)

    champion = champion_of(vae.fitted.name)
    assert champion is not None
    into = tmp_path / "downloaded"
    folder = Path(mlflow.artifacts.download_artifacts(champion.source, dst_path=str(into)))
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert {path.suffix for path in files} <= {
        *{".py", ".safetensors", ".json", ".yaml", ".txt", ""}
    }
    assert (folder / "MLmodel") in files
    for place, least in ((folder, 20), (shared_home, 20)):  # the version; data, fits, evaluations
        number, pickles = scan_for_pickles(place)
        assert pickles == []
        assert number >= least


def test_a_version_loads_in_a_clean_process_outside_the_project(
    ngram: Candidate, tracking_database: str, tmp_path: Path
) -> None:
    register(ngram, checks_load=True)
    with loaded(ngram.fitted.name) as model:
        (expected,) = model.write_texts(1, seed=3, num_tokens=50)

    program = (
        "import mlflow\n"
        f"mlflow.set_tracking_uri({tracking_database!r})\n"
        f"model = mlflow.pyfunc.load_model('models:/{ngram.fitted.name}@champion')\n"
        "rows = model.predict([{}], params={'seed': 3, 'num_tokens': 50})\n"
        "print(rows.iloc[0]['text'], end='')\n"
    )
    # -I: neither the working directory nor the environment's paths are searched for modules.
    result = subprocess.run(
        [sys.executable, "-I", "-W", "ignore", "-c", program],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
    )

    assert result.returncode == 0, result.stderr
    assert result.stdout == expected


def test_image_requests_are_answered_and_bad_ones_refused(vae: Candidate) -> None:
    register(vae)
    model = mlflow.pyfunc.load_model(f"models:/{vae.fitted.name}@champion")

    rows = model.predict([{}], params={"num_samples": 3, "seed": 5})
    again = model.predict([{}], params={"num_samples": 3, "seed": 5})
    other = model.predict([{}], params={"num_samples": 3, "seed": 6})

    assert list(rows.columns) == ["request", "png_base64"]
    assert rows.equals(again)
    assert not rows.equals(other)
    assert len(set(rows["png_base64"])) == 3
    for wrong in ({"num_samples": -1}, {"num_samples": 10_000_000}, {"temperature": 0.0}):
        with pytest.raises(MlflowException, match="must lie between"):
            model.predict([{}], params=wrong)
    with pytest.raises(MlflowException):
        model.predict([{}], params={"temperature": "hot"})


@pytest.mark.parametrize("one_choice", [{"top_k": 1}, {"top_p": 0.01}, {"min_p": 1.0}])
def test_a_text_request_may_narrow_the_choice_of_tokens(
    ngram: Candidate, one_choice: dict[str, float]
) -> None:
    register(ngram)
    model = mlflow.pyfunc.load_model(f"models:/{ngram.fitted.name}@champion")

    texts = [
        model.predict([{}], params={"seed": seed, **asked})["text"][0]
        for asked in ({}, one_choice)
        for seed in (1, 2)
    ]

    assert texts[0] != texts[1]
    assert texts[2] == texts[3]
    with pytest.raises(MlflowException, match="top_p must lie between"):
        model.predict([{}], params={"top_p": 0.0})


def test_loading_leaves_the_projects_own_modules_in_place(ngram: Candidate) -> None:
    register(ngram)
    before, path = sys.modules["models.ngram.model"], list(sys.path)
    of_version = f"{package_name()}.ngram.model"

    with loaded(ngram.fitted.name) as model:
        assert type(model.model).__module__ == of_version
        assert sys.modules["models.ngram.model"] is before

    assert sys.modules["models.ngram.model"] is before
    assert of_version not in sys.modules
    assert sys.path == path


def test_the_gallery_is_one_self_contained_page(
    vae: Candidate, ngram: Candidate, images: ImageSet
) -> None:
    shape = GanConfig(**SHAPE, num_classes=2, latent_size=4, base_width=8, dense_width=16)
    with open_run("gan") as gan_run:
        gan = images_of("gan", images, gan_run, shape, replace(FIT, steps=20))
    for candidate in (vae, ngram):
        register(candidate)
    register(gan, PromotionDecision(accepted=True, reason="for the test"), checks_load=True)
    with open_run("gallery") as gallery_run:
        folder = str(home() / "gallery" / "one")
        works = [
            draw_samples.fn(vae.fitted.name, folder),
            draw_samples.fn(gan.fitted.name, folder),
            draw_samples.fn(ngram.fitted.name, folder),
        ]

        page = Path(publish_gallery.fn(works, folder, gallery_run))

    assert page == home() / "gallery" / "index.html"
    text = page.read_text()
    shown = {work.family: {file_name for file_name, _ in work.pictures} for work in works}
    # Moments of training are those of the run that trained, for the VAE perhaps another test's.
    assert shown["vae"] >= {"samples.png", "reconstructions.png", "interpolation.png"}
    assert shown["gan"] == {"samples.png", "training.png"}
    sources = re.findall(r'\ssrc="([^"]*)"', text)
    assert len(sources) >= sum(map(len, shown.values()))  # one for each picture of a sheet
    assert all(source.startswith("data:image/png;base64,") for source in sources)
    links = re.findall(r'<a\s[^>]*href="([^"]*)"', text)
    own = [play_url(each.fitted.name, 1) for each in (vae, gan, ngram)]
    assert {link for link in links if not link.startswith("#")} <= {*own}
    assert "http://" not in re.sub("|".join(map(re.escape, own)), "", text)
    assert "{{" not in text
    chosen = read_json(Path(works[2].folder) / "choices.json")
    written = (Path(works[2].folder) / "temperature-0.8.txt").read_text()
    assert "".join(choice["text"] for choice in chosen) in written
    assert len(chosen) > 100
    assert text.count("<span style=") > len(chosen)  # all tokens, and the scale
    for candidate in (vae, gan, ngram):
        assert candidate.fitted.name in text
    stored = MlflowClient().list_artifacts(gallery_run, "gallery")
    assert "gallery/index.html" in {file.path for file in stored}
    again = draw_samples.fn(vae.fitted.name, str(home() / "gallery" / "again"))
    first_picture = Path(works[0].folder) / "samples.png"
    assert (Path(again.folder) / "samples.png").read_bytes() == first_picture.read_bytes()


def test_a_gpt_is_judged_on_the_same_yardstick(tokens: TokenSet, run_id: str) -> None:
    shape = {"context_length": 16, "num_layers": 1, "num_heads": 2, "width": 16}
    config = GptConfig(vocabulary_size=tokens.vocabulary_size, **shape)
    fitted = fit_model.fn(tokens, plan_of("gpt", tokens, model=config, training=FIT), run_id)

    scorecard = evaluate_tokens.fn(fitted, tokens, run_id)

    assert scorecard.main_metric == "test_bits_per_byte"
    assert 0 < scorecard.main_value < 5
    assert scorecard.data_digest == tokens.corpus.digest


def test_versions_and_their_files_go_to_our_experiment_whatever_is_ambient(
    ngram: Candidate, tracking_database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client().delete_experiment("0")  # as in the UI
    monkeypatch.setenv("MLFLOW_EXPERIMENT_ID", "0")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "somebody else's")
    monkeypatch.setenv("MLFLOW_REGISTRY_URI", f"sqlite:///{tmp_path / 'foreign.db'}")
    monkeypatch.setenv("MLFLOW_RUN_ID", "0" * 32)
    monkeypatch.setenv("MLFLOW_ACTIVE_MODEL_ID", "m-0")
    monkeypatch.setenv("MLFLOW_RUN_CONTEXT", '{"mlflow.user": "somebody"}')

    version = register(ngram, checks_load=True)

    found = client().search_logged_models(experiment_ids=[tracking_experiment()])
    assert [model.source_run_id for model in found] == [ngram.fitted.run_id]
    assert [model.status for model in found] == ["READY"]
    assert client().search_experiments(filter_string="name = 'atelier'")
    assert [e.name for e in client().search_experiments()] == ["atelier"]
    assert not (tmp_path / "foreign.db").exists()
    assert version.alias == "champion"
    with loaded(ngram.fitted.name) as subject:
        assert subject.family == "ngram"
    assert not (tmp_path / "foreign.db").exists()


def test_a_package_has_the_time_that_a_large_file_takes(
    ngram: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    limits: list[str | None] = []
    log_package = package.log_package

    def logged(*arguments: Any) -> Any:
        limits.append(os.environ.get("MLFLOW_HTTP_REQUEST_TIMEOUT"))
        return log_package(*arguments)

    monkeypatch.delenv("MLFLOW_HTTP_REQUEST_TIMEOUT", raising=False)
    monkeypatch.setattr(package, "log_package", logged)

    register(ngram)

    assert limits == [str(SECONDS_OF_A_LARGE_FILE)]


def test_a_deleted_experiment_is_restored_with_its_runs_and_that_is_said(
    ngram: Candidate, caplog: pytest.LogCaptureFixture
) -> None:
    register(ngram)
    number = tracking_experiment()
    client().delete_experiment(number)
    found = client().get_experiment_by_name(EXPERIMENT)
    assert found is not None
    assert found.lifecycle_stage == "deleted"

    with caplog.at_level("INFO", logger="atelier"), open_run("again") as run_id:
        assert client().get_run(run_id).info.experiment_id == number

    assert "had been deleted, and is restored" in caplog.text
    assert client().get_run(ngram.fitted.run_id).info.lifecycle_stage == "active"
    assert not register(ngram).is_new


def test_after_the_experiment_was_deleted_for_good_runs_go_on_in_another(
    tracking_database: str,
) -> None:
    """MLflow's garbage collection takes the runs, and their files, away."""
    with open_run("before", key="the same") as before:
        pass
    client().delete_experiment(tracking_experiment())
    script = [sys.executable, "-m", "mlflow", "gc", "--backend-store-uri", tracking_database]
    subprocess.run(script, check=True, capture_output=True)
    assert client().get_experiment_by_name(EXPERIMENT) is None

    with open_run("again", key="the same") as again:
        found = client().get_experiment_by_name(EXPERIMENT)

    assert again != before
    assert found is not None
    assert found.lifecycle_stage == "active"


def test_a_record_that_somebody_damaged_is_whole_again_after_the_next_run(
    ngram: Candidate,
) -> None:
    first = register(ngram)
    number = str(first.version)
    whole = client().get_model_version(first.name, number).tags[RECORD]
    client().set_model_version_tag(first.name, number, RECORD, "{")

    register(ngram)

    assert client().get_model_version(first.name, number).tags[RECORD] == whole


def test_homes_that_share_a_store_see_who_registers_until_it_is_done(
    ngram: Candidate, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = registration._check

    def check(version: Any, *rest: Any) -> None:
        seen.append(client().get_model_version(version.name, version.version).tags["owner"])
        real(version, *rest)

    monkeypatch.setattr(registration, "is_shared", lambda: True)
    monkeypatch.setattr(registration, "_check", check)

    made = register(ngram)

    assert seen == [this_process()]
    assert "owner" not in client().get_model_version(made.name, str(made.version)).tags


def test_an_owner_that_another_home_removed_is_no_error(ngram: Candidate) -> None:
    made = register(ngram)
    registration._forget_owner(client().get_model_version(made.name, str(made.version)))


@pytest.mark.parametrize("is_alone", [True, False])
def test_a_model_that_another_home_has_a_version_of_outlives_a_failed_check(
    ngram: Candidate, monkeypatch: pytest.MonkeyPatch, is_alone: bool
) -> None:
    def fail(version: Any, *_: Any) -> None:
        if not is_alone:
            client().create_model_version(version.name, source=version.source)
        raise LoadCheckFailed("it draws other samples")

    monkeypatch.setattr(registration, "_check", fail)

    with pytest.raises(LoadCheckFailed):
        register(ngram)

    left = client().search_model_versions(f"name = '{ngram.fitted.name}'")
    assert [version.version for version in left] == ([] if is_alone else [2])
    models = [each.name for each in client().search_registered_models()]
    assert (ngram.fitted.name in models) is not is_alone


def pending(owner: str = "", state: str = "pending") -> Any:
    tags = {"state": state, **({"owner": owner} if owner else {})}
    return SimpleNamespace(name="tale-ngram", version=7, tags=tags)


@pytest.mark.parametrize(
    ("seen", "alive", "waits"),
    [
        ([pending("elsewhere"), pending("elsewhere"), pending(state="complete")], True, 2),
        ([pending("elsewhere"), None], True, 1),  # it did not load, and is gone
        ([pending("elsewhere")], False, 0),
        ([pending()], True, 0),
    ],
    ids=["completed", "given-up", "killed", "of-this-home"],
)
def test_a_version_that_another_home_is_registering_is_waited_for(
    monkeypatch: pytest.MonkeyPatch, seen: list[Any], alive: bool, waits: int
) -> None:
    answers, slept = list(seen), []
    monkeypatch.setattr(registration, "find_version", lambda *_: answers.pop(0))
    monkeypatch.setattr(registration, "lives", lambda owner: alive)
    monkeypatch.setattr("time.sleep", slept.append)
    fitted: Any = SimpleNamespace(name="tale-ngram", digest="d")

    found = registration._settled(fitted)

    assert found is seen[-1]
    assert answers == []
    assert len(slept) == waits


def test_one_that_takes_too_long_is_asked_for_again_later(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(registration, "find_version", lambda *_: pending("elsewhere"))
    monkeypatch.setattr(registration, "lives", lambda owner: True)
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr("time.sleep", lambda seconds: now.__setitem__(0, now[0] + 10 * seconds))
    fitted: Any = SimpleNamespace(name="tale-ngram", digest="d")

    with pytest.raises(TimeoutError, match="elsewhere is registering version 7"):
        registration._settled(fitted)
