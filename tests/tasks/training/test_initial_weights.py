"""A fit that continues from a version begins with its networks, under a key of its own."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flows.train import planned
from models.training.checkpoint import TrainingState
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.maintenance.garbage_collection import find_garbage
from tasks.store.artifacts import read_manifest
from tasks.store.files import BadInput, read_json
from tasks.store.steps import history
from tasks.tracking.mlflow_client import client
from tasks.tracking.runs import open_run
from tasks.training import checkpointing
from tasks.training.fit import fit_model
from tasks.training.fit_store import TrainedModel, fit_cache_key, fit_parts
from tasks.training.initial_weights import BESIDE, InitialWeights
from tasks.training.parent import Parent
from tasks.training.provenance import provenance_of

SMALL = {
    "vae": {"model.latent_size": 2, "model.base_width": 4, "model.hidden_size": 8},
    "gan": {"model.latent_size": 4, "model.base_width": 8, "model.dense_width": 16},
    "diffusion": {"model.base_width": 4, "model.max_width": 8, "model.dense_width": 8},
    "gpt": {"model.context_length": 16, "model.num_layers": 1, "model.width": 16},
}
Data = ImageSet | TokenSet


class Stopped(Exception):
    """The training is not gone on with."""


def given(family: str, **training: Any) -> dict[str, Any]:
    small = {**SMALL[family], "training.batch_size": 8, "training.steps": 12}
    small |= {f"training.{name}": value for name, value in training.items()}
    return {f"{family}.{name}": value for name, value in small.items()}


def fit(
    family: str, data: Data, continues: InitialWeights | None = None, **training: Any
) -> TrainedModel:
    settings = given(family, **training)
    with open_run(family) as run_id:
        plan = planned(FAMILIES[family], data, "quick", 0, settings, continues)
        return fit_model.fn(data, plan, run_id)


def weights_of(fitted: TrainedModel) -> InitialWeights:
    """As `tasks.registry.parents` gives them, of a fit that no registry knows."""
    files = read_manifest(Path(fitted.folder)).files
    parent = Parent(
        name=fitted.name, version=3, digest=fitted.digest, beside=files.get(BESIDE, (0, ""))[1]
    )
    model = read_json(fitted.config_path)["config"]
    return InitialWeights(parent=parent, family=fitted.family, model=model, folder=fitted.folder)


def first_state(
    family: str, data: Data, continues: InitialWeights | None, patch: pytest.MonkeyPatch
) -> dict[str, torch.Tensor]:
    """The networks with which a fit begins, by the names that a checkpoint has them by."""
    seen: list[dict[str, torch.Tensor]] = []

    def look(state: TrainingState, _place: object) -> None:
        seen.append(state.snapshot()[0])
        raise Stopped

    with patch.context() as within:
        within.setattr(checkpointing, "_resume", look)
        with pytest.raises(Stopped):
            fit(family, data, continues, steps=7)
    return seen[0]


def data_of(family: str, images: ImageSet, tokens: TokenSet) -> Data:
    return images if FAMILIES[family].data == "images" else tokens


@pytest.mark.parametrize("family", SMALL)
def test_it_begins_with_all_networks_of_the_version(
    family: str,
    images: ImageSet,
    tokens: TokenSet,
    tracking_database: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = data_of(family, images, tokens)
    before = fit(family, data)
    kept = load_file(before.weights_path)

    begun = first_state(family, data, weights_of(before), monkeypatch)
    at_random = first_state(family, data, None, monkeypatch)

    for name in FAMILIES[family].continued:
        module, _, part = name.partition(".")
        prefix = f"module/{module}/{part}." if part else f"module/{module}/"
        for key, value in kept.items():
            assert torch.equal(begun[f"{prefix}{key}"], value), key
        assert any(not torch.equal(at_random[f"{prefix}{key}"], kept[key]) for key in kept)
    assert not any(key.startswith("optimizer/") for key in begun)


def test_a_gan_keeps_its_discriminator_beside_its_content(
    images: ImageSet, tracking_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = fit("gan", images)
    beside = load_file(Path(before.folder) / BESIDE)

    begun = first_state("gan", images, weights_of(before), monkeypatch)
    lost = replace(weights_of(before).parent, beside="")
    without = first_state("gan", images, replace(weights_of(before), parent=lost), monkeypatch)

    assert {key.partition("/")[0] for key in beside} == {"discriminator"}
    assert all(torch.equal(begun[f"module/{key}"], value) for key, value in beside.items())
    assert any(not torch.equal(without[f"module/{key}"], value) for key, value in beside.items())
    reasons = history("pictures-gan")[-1].reasons
    assert any("discriminator begins at random" in reason for reason in reasons)


def test_what_lies_beside_is_no_part_of_the_content(
    images: ImageSet, tracking_database: str
) -> None:
    settings = given("gan")
    plan = replace(planned(FAMILIES["gan"], images, "quick", 0, settings), kept_beside=())
    with open_run("gan") as run_id:
        without = fit_model.fn(images, plan, run_id)
    files = set(read_manifest(Path(without.folder)).files)
    (Path(without.folder) / "manifest.json").unlink()

    again = fit("gan", images)

    assert set(read_manifest(Path(again.folder)).files) == files | {BESIDE}
    assert again.digest == without.digest


def test_its_key_has_the_versions_content_and_not_its_name(
    images: ImageSet, tracking_database: str
) -> None:
    begins = weights_of(fit("vae", images))
    renamed = replace(begins, parent=replace(begins.parent, name="other-vae", version=9))
    changed = replace(begins, parent=replace(begins.parent, digest="0" * 64))
    lost = replace(begins, parent=replace(begins.parent, beside="1" * 64))

    def key(continues: InitialWeights | None) -> str:
        plan = planned(FAMILIES["vae"], images, "quick", 0, given("vae"), continues)
        return fit_cache_key(plan, images)

    assert key(renamed) == key(begins)
    assert len({key(each) for each in (None, begins, changed, lost)}) == 4
    plan = planned(FAMILIES["vae"], images, "quick", 0, given("vae"))
    parts = fit_parts(plan, images)
    assert parts["inputs"] == [images.digest]
    assert "continues" not in parts["settings"]
    assert "tasks.training.initial_weights" not in parts["code"]


def test_a_seed_more_of_a_continued_training_is_told_from_one_that_began_at_random(
    images: ImageSet, tracking_database: str
) -> None:
    begins = weights_of(fit("vae", images))

    def seedless(seed: int, continues: InitialWeights | None) -> str:
        plan = planned(FAMILIES["vae"], images, "quick", seed, given("vae"), continues)
        return provenance_of(plan, images, "quick").seedless_digest

    assert seedless(0, begins) == seedless(1, begins) != seedless(0, None)


def test_an_unchanged_one_is_found_and_told_in_its_run(
    images: ImageSet, tracking_database: str
) -> None:
    begins = weights_of(fit("vae", images))
    with open_run("continued") as run_id:
        plan = planned(FAMILIES["vae"], images, "quick", 0, given("vae"), begins)
        made = fit_model.fn(images, plan, run_id)
    params = client().get_run(run_id).data.params

    again = fit("vae", images, begins)

    assert again.was_stored
    assert again.digest == made.digest != begins.parent.digest
    assert params["continues"] == "pictures-vae/3"
    assert params["continues_digest"] == begins.parent.digest


def test_a_killed_one_goes_on_to_the_same_bits(
    images: ImageSet, tracking_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    begins = weights_of(fit("vae", images))
    whole = fit("vae", images, begins, steps=30)
    (Path(whole.folder) / "manifest.json").unlink()
    save = checkpointing.save_checkpoint
    monkeypatch.setattr(checkpointing, "SECONDS_BETWEEN_CHECKPOINTS", 0.0)

    def save_and_die(state: TrainingState, place: Any) -> None:
        save(state, place)
        if state.step == 11:
            raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(checkpointing, "save_checkpoint", save_and_die)
        with pytest.raises(Stopped):
            fit("vae", images, begins, steps=30)
    unfinished = Path(whole.folder)
    monkeypatch.setattr("tasks.maintenance.garbage_collection.SECONDS_IN_USE", -1.0)
    assert not {each.path for each in find_garbage([])} & {unfinished, Path(begins.folder)}
    resumed = fit("vae", images, begins, steps=30)

    assert "resumed at step 11" in history("pictures-vae")[-1].reasons
    assert resumed.digest == whole.digest
    assert resumed.folder == str(unfinished)


def test_a_damaged_checkpoint_begins_with_the_version_again(
    images: ImageSet, tracking_database: str
) -> None:
    begins = weights_of(fit("vae", images))
    whole = fit("vae", images, begins)
    (Path(whole.folder) / "manifest.json").unlink()
    (Path(whole.folder) / "checkpoint.safetensors").write_bytes(b"damaged")

    again = fit("vae", images, begins)

    assert again.digest == whole.digest


def test_what_a_continued_fit_began_with_is_no_garbage(
    images: ImageSet, tracking_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = fit("vae", images)
    begins = weights_of(first)
    last = fit("vae", images, begins, steps=9)
    fit("vae", images, steps=8)  # the latest of the step
    monkeypatch.setattr("tasks.maintenance.garbage_collection.SECONDS_IN_USE", -1.0)

    kept = {each.path for each in find_garbage([last.digest])}
    freed = {each.path for each in find_garbage([])}

    assert not kept & {Path(first.folder), Path(last.folder)}
    assert {Path(first.folder), Path(last.folder)} <= freed


def test_weights_of_another_shape_are_refused(images: ImageSet, tracking_database: str) -> None:
    begins = weights_of(fit("vae", images))
    smaller = replace(begins, model={**begins.model, "base_width": 2})

    with pytest.raises(BadInput, match="the weights of pictures-vae version 3 do not fit"):
        plan = planned(FAMILIES["vae"], images, "quick", 0, {"vae.training.steps": 3}, smaller)
        with open_run("vae") as run_id:
            fit_model.fn(images, plan, run_id)
