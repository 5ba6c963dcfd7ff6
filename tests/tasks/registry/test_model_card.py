"""The registry's pages, byte for byte; `tests/tasks/runtime/test_markup.py` tries hostile text."""

from dataclasses import replace
from typing import Any

import pytest

from tasks.evaluation.scorecard import ChampionEvaluation, PromotionDecision, Scorecard
from tasks.registry import model_card
from tasks.registry.model_card import MAX_SETTINGS_CHARACTERS, card, family_page, settings_in_words
from tasks.training.fit_store import TrainedModel
from tasks.training.parent import Parent
from tasks.training.provenance import TrainingProvenance


@pytest.fixture(autouse=True)
def tags(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """The tags of the run that judged; no server is asked."""
    found: dict[str, str] = {}
    monkeypatch.setattr(model_card, "run_tags", lambda _: found)
    monkeypatch.setattr(model_card, "run_page", lambda run: f"/runs/{run}")
    monkeypatch.setattr(model_card, "artifact_path", lambda run, path: f"/files/{run}/{path}")
    return found


def fitted(family: str) -> TrainedModel:
    return TrainedModel(
        family=family,
        name=f"my_data-{family}",
        run_id="trained",
        folder="",
        digest="ab" * 32,
        data_digest="",
        seed=3,
        seconds=12.4,
        num_parameters=1234567,
    )


def scorecard(main_metric: str, metrics: dict[str, float], **changed: Any) -> Scorecard:
    return Scorecard(
        name="my_data",
        run_id="judged",
        main_metric=main_metric,
        main_value=metrics[main_metric],
        low=-0.5,
        high=1.25,
        metrics=metrics,
        failed_checks=(),
        data_digest="cd" * 32,
        judge_digest="",
        data_title="my_data",
        data_licence="CC0 (public domain)",
        **{"example": "", **changed},
    )


def provenance(family: str) -> TrainingProvenance:
    return TrainingProvenance(
        family=family,
        source="digits",
        image_size=None,
        scheme="",
        vocabulary_size=0,
        preset="quick",
        seed=3,
        settings={},
        data_digest="",
        data_size="1,000 / 100 / 100 images",
        code={},
        libraries={},
        device="cpu",
        machine="Linux x86_64",
    )


def test_the_card_of_a_model_that_draws(tags: dict[str, str]) -> None:
    tags["prefect.url"] = "http://127.0.0.1:4200/runs/1"
    metrics = {"test_frechet_distance": 0.5, "real_data_frechet_distance": 0.1, "test_self": -3.0}
    champion = ChampionEvaluation(
        version=7,
        digest="",
        scorecard=scorecard("test_frechet_distance", {"test_frechet_distance": 0.75}),
        problem="",
    )
    verdict = PromotionDecision(accepted=True, reason="0.5 against 0.75 [better]")

    shown = card(
        fitted("gan"),
        scorecard("test_frechet_distance", metrics),
        verdict,
        provenance("gan"),
        champion,
        number=5,
        data_change="3 images more",
    )

    assert shown == (
        "A generative adversarial network: two networks in competition.\n\n"
        "![samples](/files/judged/samples/samples.png)\n\n"
        "**Fréchet distance: 0.5000** (95 % interval -0.5000 to 1.2500, real data: 0.1000;"
        " lower is better)\n\n"
        "Gate: accepted, 0.5 against 0.75 &#91;better&#93;\n\n"
        "The images have no labels: distances are measured in the features of a network that"
        " learned from the same images without any, and what needs classes (fidelity, classes"
        " drawn, variance within a class) is left out.\n\n"
        "| measured on held-out data | this version | champion before (version 7)"
        " | real held-out data |\n"
        "| --- | --- | --- | --- |\n"
        "| Fréchet distance | 0.5 | 0.75 | 0.1 |\n"
        "| self | -3 |  |  |\n\n"
        "**Trained on** my&#95;data: 1,000 / 100 / 100 images (train / validation / test), digest"
        " `cdcdcdcdcdcd`, licence: CC0 &#40;public domain&#41;\n\n"
        "**The data changed** 3 images more\n\n"
        "* 1,234,567 parameters, 12 s of training, preset quick, seed 3, on cpu"
        " (Linux x86&#95;64)\n"
        f"* content `abababababab`, code `{provenance('gan').code_digest[:12]}`; made again by"
        " `atelier reproduce my_data-gan/5`\n"
        "* [training run](/runs/trained), [evaluation and data](/runs/judged),"
        " [pipeline run in Prefect](http://127.0.0.1:4200/runs/1)\n\n"
        "**Limits.** Draws only what resembles its training images, and rare kinds less often than"
        " they occur. It gives no likelihood, so nothing says how probable an image is.\n\n"
        "**Play with it** [in a browser](http://127.0.0.1:5050/?version=my_data-gan/5) while"
        " `atelier play` runs on this machine.\n\n"
        "**Load it** (code, weights and vocabulary travel inside; nothing is pickled), after"
        " `atelier verify my_data-gan/5`, for loading runs its code:\n\n"
        "```python\nimport mlflow\n"
        'model = mlflow.pyfunc.load_model("models:/my_data-gan/5")\n'
        'model.predict([{}], params={"num_samples": 4, "seed": 1})\n```\n\n'
        "`my_data-gan@champion` in the place of `my_data-gan/5` is whichever version is champion"
        " then.\n"
    )


def test_the_card_of_a_first_model_that_writes() -> None:
    scored = scorecard("test_bits_per_byte", {"test_bits_per_byte": 1.5}, example="to be\n")
    verdict = PromotionDecision(accepted=False, reason="unsound")

    shown = card(fitted("gpt"), scored, verdict, provenance("gpt"), None, number=2)

    assert "champion" not in shown
    assert shown.startswith(
        "A GPT from scratch: a decoder-only transformer.\n\n````text\nto be\n\n````\n\n"
        "**bits per byte: 1.5000** (95 % interval -0.5000 to 1.2500; lower is better)\n\n"
        "Gate: refused, unsound\n\n"
        "| measured on held-out data | this version |\n| --- | --- |\n| bits per byte | 1.5 |\n\n"
        "**Trained on** "
    )
    assert "\n* [training run](/runs/trained), [evaluation and data](/runs/judged)\n\n" in shown
    assert "The data changed" not in shown
    assert shown.endswith(
        'model.predict([{}], params={"num_samples": 4, "seed": 1, "num_tokens": 200})\n```\n'
    )


@pytest.mark.parametrize(
    ("metric", "is_told"), [("classifier_test_accuracy", False), ("test_recall", True)]
)
def test_the_card_tells_what_is_left_out_of_images_without_labels(
    metric: str, is_told: bool
) -> None:
    scored = scorecard("test_frechet_distance", {"test_frechet_distance": 0.5, metric: 0.9})
    verdict = PromotionDecision(accepted=True, reason="sound")

    shown = card(fitted("gan"), scored, verdict, provenance("gan"), None, number=1)

    assert ("The images have no labels" in shown) is is_told


@pytest.mark.parametrize(
    ("champion", "now", "then"),
    [
        (
            3,
            "Champion: version 3",
            "`champion` is the version to use, `challenger` the latest that was refused.\n"
            "`atelier history my_data-vae` tells who was champion when, and why;"
            " `atelier rollback my_data-vae` goes back to the one before.\n",
        ),
        (
            None,
            "No champion",
            "`challenger` is the latest version that was refused;"
            " `atelier promote my_data-vae --to N` makes version N champion by hand.\n"
            "`atelier history my_data-vae` tells who was champion when, and why.\n",
        ),
    ],
)
def test_the_page_of_a_registered_model(champion: int | None, now: str, then: str) -> None:
    shown = family_page("vae", "my_data-vae", champion, "2026-11-26T17:00+00:00", "it is *better*")

    assert shown == (
        "A variational auto-encoder: images to points of a latent space, and back.\n\n"
        f"**{now}**, since 2026-11-26T17:00+00:00 (it is &#42;better&#42;)\n\n{then}"
    )


def test_settings_are_told_in_words_and_bounded() -> None:
    settings = {"model": {"latent_size": 12, "tuned": None}, "training": {"steps": 9}, "tuning": {}}

    assert settings_in_words(settings) == "model: latent_size 12; training: steps 9"
    long = settings_in_words({"model": {f"field_{n}": n for n in range(1000)}})
    assert len(long) == MAX_SETTINGS_CHARACTERS
    assert long.endswith(" ...")


def test_the_card_names_the_version_that_was_continued() -> None:
    metrics = {"test_bits_per_byte": 1.5}
    parent = Parent(name="my_data-gpt", version=3, digest="12" * 32)
    asked = [fitted("gpt"), scorecard("test_bits_per_byte", metrics)]
    verdict = PromotionDecision(accepted=True, reason="")

    def told(continues: Parent | None) -> str:
        return card(
            *asked, verdict, replace(provenance("gpt"), continues=continues), None, number=4
        )

    line = "* continues `my_data-gpt` version 3 (content `121212121212`): its training began"
    assert line in told(parent)
    assert "continues" not in told(None)
