"""What the one flow of all families hands to its tasks."""

from dataclasses import replace
from typing import Any

import pytest

from flows import train
from flows.full_run import run_title as title_of_a_whole_run
from flows.train import planned, run_title, train_model
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.families.table import FAMILIES, names, of_data
from tasks.training.plan import TrainingPlan


class Asked(Exception):
    """A judge was asked for, with this plan; the flow ends here."""


def judge_of(
    monkeypatch: pytest.MonkeyPatch, family: str, images: ImageSet, **settings: Any
) -> tuple[str, TrainingPlan]:
    """The data and the plan of the judge that the flow asks for, before it trains anything."""

    def ask(data: ImageSet, plan: TrainingPlan, _: str) -> None:
        raise Asked(data.digest, plan)

    monkeypatch.setattr(train, "fit_model", ask)
    with pytest.raises(Asked) as asked:
        train_model.fn(family, images, **settings)
    digest, plan = asked.value.args
    return digest, plan


def test_one_judge_serves_all_families_presets_and_seeds(
    images: ImageSet, tracking_database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Numbers of two judges could not be compared."""
    judges = [
        judge_of(monkeypatch, family, images, **settings)
        for family, settings in (
            ("vae", {"preset": "quick", "seed": 0}),
            ("vae", {"preset": "standard", "seed": 3}),
            ("gan", {"preset": "quick", "seed": 4}),
            ("gan", {"preset": "full", "seed": 0, "settings": {"gan.model.loss": "hinge"}}),
        )
    ]

    digest, plan = judges[0]
    assert digest == images.digest
    assert plan.family == "classifier"
    assert not plan.is_generative
    assert all(judge == judges[0] for judge in judges[1:])


def test_a_run_is_called_by_what_tells_it_apart(images: ImageSet, tokens: TokenSet) -> None:
    def title(family: str, data: ImageSet | TokenSet, **given: Any) -> str:
        plan = planned(FAMILIES[family], data, "quick", 7, given)
        return run_title(FAMILIES[family], data, "quick", plan)

    pieces = replace(tokens, scheme="bpe")
    many = {"vae.model.latent_size": 5, "vae.training.steps": 9, "vae.training.batch_size": 8}

    assert title("vae", images) == "pictures-vae, quick, seed 7"
    assert title("ngram", tokens) == "corpus-ngram, quick"  # counting knows no chance
    assert title("gpt", pieces) == "corpus-gpt, quick, bpe, seed 7"
    assert title("vae", images, **{"vae.model.latent_size": 5}) == (
        "pictures-vae, quick, latent_size 5, seed 7"
    )
    told = title("vae", images, **many)
    assert told.endswith(", and 1 more, seed 7")


@pytest.mark.parametrize(
    ("models", "wanted"),
    [
        (names(), "digits and book, quick, seed 7"),
        (tuple(family.name for family in of_data("images")), "digits, quick, seed 7"),
        (("vae", "gan"), "digits (vae, gan), quick, seed 7"),
        (("ngram", "gpt"), "book, quick, seed 7"),
        (("vae", "ngram", "gpt"), "digits and book (vae, ngram, gpt), quick, seed 7"),
    ],
)
def test_a_whole_run_is_called_by_the_data_that_it_trains_on(
    models: tuple[str, ...], wanted: str
) -> None:
    given = {"images": "digits", "text": "book=file:/home/her/secret.txt", "preset": "quick"}

    assert title_of_a_whole_run(**given, models=models, seed=7, tokenizer="bpe") == wanted
