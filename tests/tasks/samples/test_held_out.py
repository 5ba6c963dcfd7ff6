"""What stands beside a model's works: data that it never saw, and how it was made."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from flows.train import planned
from tasks.data.ingestion import ImageSet
from tasks.data.splits import load_images, load_text
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES
from tasks.samples.held_out import TEXT_CHARACTERS, in_turn, keep_held_out, making_of
from tasks.samples.html_page import HELD_OUT_PICTURES, HELD_OUT_TEXT
from tasks.samples.tiles import tiles_of
from tasks.training.parent import Parent
from tasks.training.provenance import TrainingProvenance, provenance_of


def recipe_of(family: str, data: ImageSet | TokenSet, **given: Any) -> TrainingProvenance:
    return provenance_of(planned(FAMILIES[family], data, "quick", 7, given), data, "quick")


def kept(folder: Path, name: str, recipe: TrainingProvenance, model: Any) -> set[str]:
    def keep(file_name: str, content: bytes, caption: str = "") -> None:
        assert not caption  # data, which the page reads by the file's name
        (folder / file_name).write_bytes(content)

    keep_held_out(name, recipe, model, keep)
    return {path.name for path in folder.iterdir() if path.name.startswith("held-out")}


def test_held_out_pictures_take_turns_by_class(images: ImageSet, tmp_path: Path) -> None:
    model = SimpleNamespace(examples=torch.zeros(16, 1, 8, 8, dtype=torch.uint8))

    found = kept(tmp_path, f"{images.name}-gan", recipe_of("gan", images), model)

    assert found == {HELD_OUT_PICTURES}
    tiles = tiles_of(tmp_path / HELD_OUT_PICTURES, 10)
    assert tiles is not None
    pixels, _ = load_images(images, "test")
    assert len(tiles.pixels) == len(pixels) // 10 * 10
    is_left = tiles.pixels[:, :, :4].mean((1, 2)) > tiles.pixels[:, :, 4:].mean((1, 2))
    assert is_left.tolist()[:6] == [True, False] * 3


def test_a_look_at_data_fetches_and_hashes_nothing(
    images: ImageSet, tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: Any) -> Any:
        raise AssertionError("whole files are compared, or fetched")

    for name in ("bring", "verify"):
        monkeypatch.setattr(f"tasks.registry.rehearsal.{name}", never)
    picture = SimpleNamespace(examples=torch.zeros(16, 1, 8, 8, dtype=torch.uint8))
    text = SimpleNamespace(tokenizer=None, prompt=load_text(tokens.corpus, "validation")[:30])

    assert kept(tmp_path, f"{images.name}-gan", recipe_of("gan", images), picture)
    tiles = tiles_of(tmp_path / HELD_OUT_PICTURES, 10)
    assert tiles is not None
    assert tiles.pixels.any()  # of the data, and not of the version's own examples
    assert HELD_OUT_TEXT in kept(tmp_path, f"{tokens.name}-gpt", recipe_of("gpt", tokens), text)


def test_a_versions_own_examples_take_the_place_of_data_that_are_gone(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("gan", images)
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "another"))
    random = torch.Generator().manual_seed(0)
    examples = torch.randint(0, 200, (16, 1, 8, 8), dtype=torch.uint8, generator=random)

    kept(tmp_path, f"{images.name}-gan", recipe, SimpleNamespace(examples=examples))

    tiles = tiles_of(tmp_path / HELD_OUT_PICTURES, 10)
    assert tiles is not None
    assert np.array_equal(tiles.pixels, examples[:10, 0])


def test_what_really_follows_a_prompt_is_kept(tokens: TokenSet, tmp_path: Path) -> None:
    text = load_text(tokens.corpus, "validation")
    model = SimpleNamespace(tokenizer=None, prompt=text[100:130])

    assert kept(tmp_path, f"{tokens.name}-gpt", recipe_of("gpt", tokens), model) == {HELD_OUT_TEXT}

    told = json.loads((tmp_path / HELD_OUT_TEXT).read_text())
    start = text.index(model.prompt)
    assert told == {"prompt": model.prompt, "text": text[start : start + TEXT_CHARACTERS]}


def test_text_that_is_gone_leaves_nothing(
    tokens: TokenSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of("gpt", tokens)
    monkeypatch.setenv("ATELIER_HOME", str(tmp_path / "another"))

    assert not kept(
        tmp_path, f"{tokens.name}-gpt", recipe, SimpleNamespace(tokenizer=None, prompt="x")
    )


@pytest.mark.parametrize(
    ("labels", "wanted"),
    [
        ([1, 1, 0, 2, 0], [2, 0, 3, 4, 1]),
        ([-1, -1, -1], [0, 1, 2]),
        ([], []),
        ([0, 0, 1], [0, 2, 1]),
    ],
)
def test_classes_take_turns(labels: list[int], wanted: list[int]) -> None:
    assert in_turn(np.array(labels, np.int64)).tolist() == wanted


def test_how_a_model_was_made_is_told_without_the_place_of_a_persons_data(
    tokens: TokenSet,
) -> None:
    made = making_of(recipe_of("gpt", tokens, **{"gpt.model.width": 16}))

    assert list(made) == ["preset", "seed", "steps", "set by hand", "tokenizer", "data", "machine"]
    assert made["preset"] == "quick"
    assert made["seed"] == "7"
    assert made["set by hand"] == "model.width = 16"
    assert made["tokenizer"] == f"characters, {tokens.vocabulary_size:,} tokens"
    assert not any("/tmp" in told or "corpus.txt" in told for told in made.values())


def test_a_known_data_set_has_the_command_that_trains_the_same(images: ImageSet) -> None:
    recipe = recipe_of("vae", images, **{"vae.model.latent_size": 5})
    recipe = replace(recipe, source="digits")

    assert making_of(recipe)["command"] == (
        "atelier run --families vae --images digits --preset quick --seed 7"
        " --set vae.model.latent_size=5"
    )
    parent = Parent(name="digits-vae", version=2, digest="0" * 64)
    continued = making_of(replace(recipe, continues=parent))
    assert "command" not in continued
    assert continued["began with"] == "digits-vae 2"
