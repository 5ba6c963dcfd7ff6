"""Model cards: what a person reads on the pages of the registry.

MLflow's pages show Markdown, and pictures by the address of a run's artifact.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from tasks.evaluation.result import REAL_DATA, title
from tasks.evaluation.scorecard import (
    ChampionEvaluation,
    PromotionDecision,
    Scorecard,
    beside_main,
    with_baseline,
)
from tasks.families.table import FAMILIES
from tasks.runtime.markup import registry_markdown
from tasks.runtime.play_address import play_url
from tasks.runtime.templates import registry_page
from tasks.tracking.mlflow_client import artifact_path, run_page, run_tags

if TYPE_CHECKING:
    from tasks.training.fit_store import TrainedModel
    from tasks.training.provenance import TrainingProvenance

MAX_SETTINGS_CHARACTERS = 1200
"""Of the settings that a card shows; its run has all of them as parameters."""
MAX_REASON_CHARACTERS = 1000
"""Characters of the reason for a champion that its model's page shows."""


def card(
    fitted: "TrainedModel",
    scorecard: Scorecard,
    verdict: PromotionDecision,
    recipe: "TrainingProvenance",
    incumbent: ChampionEvaluation | None,
    *,
    number: int,
    data_change: str = "",
) -> str:
    """The description of one version, which tells how to use this very one: aliases move.

    number: the version's.
    data_change: how its data differ from those of the version before, in words.
    """
    family = FAMILIES[fitted.family]
    is_text = family.data == "text"
    return registry_page(
        "registry/model_card.md",
        fitted=fitted,
        number=number,
        scorecard=scorecard,
        verdict=verdict,
        recipe=recipe,
        family=family,
        main_title=title(scorecard.main_metric),
        beside=beside_main(scorecard),
        picture=artifact_path(scorecard.run_id, "samples/samples.png") if not is_text else "",
        has_no_labels=not is_text and "classifier_test_accuracy" not in scorecard.metrics,
        rows=with_baseline(scorecard.metrics),
        has_baseline=any(name.startswith(REAL_DATA) for name in scorecard.metrics),
        before=incumbent if incumbent and incumbent.scorecard else None,
        data_change=data_change,
        given=[f"{recipe.family}.{name} = {value}" for name, value in recipe.given.items()],
        settings=settings_in_words(recipe.settings),
        training_page=run_page(fitted.run_id),
        evaluation_page=run_page(scorecard.run_id),
        pipeline_page=run_tags(scorecard.run_id).get("prefect.url", ""),
        is_text=is_text,
        play=play_url(fitted.name, number),
    )


def family_page(family: str, name: str, champion: int | None, since: str, why: str) -> str:
    """The description of a registered model, written whenever its champion changes.

    MLflow's databases keep 5000 characters of it, so a long reason is cut; the audit log has all.
    """
    return registry_page(
        "registry/registered_model.md",
        family=FAMILIES[family],
        name=name,
        champion=champion,
        since=since,
        why=Markup(registry_markdown(why, max_characters=MAX_REASON_CHARACTERS)),
    )


def settings_in_words(settings: Mapping[str, Mapping[str, Any]]) -> str:
    """All that a model was trained with, group by group, without what has no value."""
    told = "; ".join(
        f"{group}: " + ", ".join(f"{k} {v}" for k, v in values.items() if v is not None)
        for group, values in settings.items()
        if values
    )
    most = MAX_SETTINGS_CHARACTERS
    return told if len(told) <= most else f"{told[: most - 4]} ..."
