"""Model cards: what a person reads on the pages of the registry.

MLflow's pages show Markdown, and pictures by the address of a run's artifact.
"""

import json
from typing import TYPE_CHECKING, Any

from tasks.evaluation.result import title
from tasks.evaluation.scorecard import ChampionEvaluation, PromotionDecision, Scorecard, beside_main
from tasks.families.table import FAMILIES
from tasks.runtime.markup import fenced, registry_markdown
from tasks.tracking.mlflow_client import artifact_path, run_page, run_tags

if TYPE_CHECKING:
    from tasks.training.fit_store import TrainedModel
    from tasks.training.provenance import TrainingProvenance

MAX_OF_A_REASON = 1000
"""Characters of the reason for a champion that its model's page shows."""


def card(
    fitted: "TrainedModel",
    scorecard: Scorecard,
    verdict: PromotionDecision,
    recipe: "TrainingProvenance",
    incumbent: ChampionEvaluation | None,
    data_change: str = "",
) -> str:
    """The description of one version.

    data_change: how its data differ from those of the version before, in words.
    """
    before = incumbent.scorecard if incumbent else None
    family = FAMILIES[fitted.family]
    sections = [
        family.purpose,
        _shown(fitted, scorecard),
        f"**{title(scorecard.main_metric)}: {scorecard.main_value:.4f}**"
        f" (95 % interval {scorecard.low:.4f} to {scorecard.high:.4f}{beside_main(scorecard)};"
        " lower is better)\n\n"
        f"Gate: {'accepted' if verdict.accepted else 'refused'},"
        f" {registry_markdown(verdict.reason)}",
        *_left_out(fitted, scorecard),
        _numbers(scorecard, before, incumbent.version if incumbent else None),
        _origin(fitted, scorecard, recipe, data_change),
        f"**Limits.** {family.limits}",
        _loading(fitted),
    ]
    return "\n\n".join(sections) + "\n"


def _left_out(fitted: "TrainedModel", scorecard: Scorecard) -> list[str]:
    """What is not measured of images without labels."""
    is_text = FAMILIES[fitted.family].data == "text"
    if is_text or "classifier_test_accuracy" in scorecard.metrics:
        return []
    return [
        "The images have no labels: distances are measured in the features of a network that"
        " learned from the same images without any, and what needs classes (fidelity, classes"
        " drawn, variance within a class) is left out."
    ]


def _shown(fitted: "TrainedModel", scorecard: Scorecard) -> str:
    if FAMILIES[fitted.family].data == "images":
        return f"![samples]({artifact_path(scorecard.run_id, 'samples/samples.png')})"
    return fenced(scorecard.example)


def _numbers(scorecard: Scorecard, before: Scorecard | None, before_version: int | None) -> str:
    old = before.metrics if before else {}
    heads = ["measured on held-out data", "this version"]
    heads += [f"champion before (version {before_version})"] if before else []
    has_floor = any(name.startswith("floor_") for name in scorecard.metrics)
    heads += ["real held-out data"] if has_floor else []
    lines = [" | ".join(heads), " | ".join("---" for _ in heads)]
    for name, value in scorecard.metrics.items():
        if name.startswith("floor_"):
            continue
        floor = scorecard.metrics.get(f"floor_{name.removeprefix('test_')}")
        cells = [registry_markdown(title(name)), f"{value:.5g}"]
        cells += [f"{old[name]:.5g}" if name in old else ""] if before else []
        cells += ["" if floor is None else f"{floor:.5g}"] if has_floor else []
        lines.append(" | ".join(cells))
    return "\n".join(f"| {line} |" for line in lines)


def _origin(
    fitted: "TrainedModel", scorecard: Scorecard, recipe: "TrainingProvenance", data_change: str
) -> str:
    pipeline = run_tags(scorecard.run_id).get("prefect.url")
    links = f"[training run]({run_page(fitted.run_id)}),"
    links += f" [evaluation and data]({run_page(scorecard.run_id)})"
    changed = f"**The data changed** {registry_markdown(data_change)}\n\n" if data_change else ""
    links += f", [pipeline run in Prefect]({pipeline})" if pipeline else ""
    return (
        f"**Trained on** {registry_markdown(scorecard.data_title)}:"
        f" {registry_markdown(recipe.data_size)}"
        f" (train / validation / test), digest `{scorecard.data_digest[:12]}`, licence:"
        f" {registry_markdown(scorecard.data_licence)}\n\n"
        f"{changed}"
        f"* {fitted.num_parameters:,} parameters, {fitted.seconds:.0f} s of training, preset"
        f" {recipe.preset}, seed {recipe.seed}, on {recipe.device}"
        f" ({registry_markdown(recipe.machine)})\n"
        f"* content `{fitted.digest[:12]}`, code `{recipe.code_digest[:12]}`; made again by"
        f" `atelier reproduce {fitted.name}`\n"
        f"* {links}"
    )


def _loading(fitted: "TrainedModel") -> str:
    is_text = FAMILIES[fitted.family].data == "text"
    params: dict[str, Any] = {"num_samples": 4, "seed": 1}
    params |= {"num_tokens": 200} if is_text else {}
    return (
        "**Load it** (code, weights and vocabulary travel inside; nothing is pickled), after"
        f" `atelier verify {fitted.name}@champion`, for loading runs its code:\n\n"
        "```python\nimport mlflow\n"
        f'model = mlflow.pyfunc.load_model("models:/{fitted.name}@champion")\n'
        f"model.predict([{{}}], params={json.dumps(params)})\n```"
    )


def family_page(family: str, name: str, champion: int | None, since: str, why: str) -> str:
    """The description of a registered model, written whenever its champion changes.

    MLflow's databases keep 5000 characters of it, so a long reason is cut; the ledger has it whole.
    """
    now = "No champion" if champion is None else f"Champion: version {champion}"
    shown = registry_markdown(why, most=MAX_OF_A_REASON)
    return (
        f"{FAMILIES[family].purpose}\n\n"
        f"**{now}**, since {since} ({shown})\n\n"
        "`champion` is the version to use, `challenger` the latest that was refused.\n"
        f"`atelier history {name}` tells who was champion when, and why;"
        f" `atelier rollback {name}` goes back to the one before.\n"
    )
