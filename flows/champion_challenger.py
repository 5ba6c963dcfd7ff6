"""From a judged candidate to its place in the registry: the same steps for every family."""

from dataclasses import replace

from flows.approval import request_approval
from tasks.data.ingestion import ImageSet
from tasks.data.tokenization import TokenSet
from tasks.evaluation.scorecard import Scorecard
from tasks.families.family import Family
from tasks.registry.champion import evaluate_champion
from tasks.registry.promotion_policy import gate
from tasks.registry.registration import register_version
from tasks.registry.verdicts import apply_decision
from tasks.registry.versions import Version
from tasks.runtime.stopping import unless_stopped
from tasks.samples.comparison import show_difference
from tasks.training.fit_store import TrainedModel
from tasks.training.provenance import TrainingProvenance

MAX_JUDGEMENTS = 5
"""How often a candidate is judged when others keep moving the champion."""
APPROVAL_SECONDS = 3600
"""How long `--approve` waits for a person; then the present champion stays."""


def evaluate_and_promote(
    fitted: TrainedModel,
    scorecard: Scorecard,
    recipe: TrainingProvenance,
    data: ImageSet | TokenSet,
    family: Family,
    *,
    judge: TrainedModel | None = None,
    approve_within: int | None = None,
) -> Version:
    """Judge the champion anew, compare, register, check, ask a person if wished, move the alias.

    approve_within: seconds to wait for a person's consent to a promotion; None asks nobody.
    Where another run or a person moves the champion meanwhile, all of it is done again.
    """
    is_new = False
    for _ in range(MAX_JUDGEMENTS):
        incumbent = evaluate_champion(fitted.name, data, family, judge)
        verdict = gate(fitted, scorecard, incumbent, recipe.preset)
        version = register_version(fitted, scorecard, verdict, recipe, incumbent, data)
        is_new = is_new or version.is_new
        is_promotion = verdict.accepted and (
            incumbent is None or incumbent.version != version.version
        )
        if is_promotion and incumbent is not None and not incumbent.problem:
            show_difference(fitted.name, incumbent.version, version.version)
        if is_promotion and approve_within is not None:
            verdict = unless_stopped(request_approval(version, verdict, approve_within))
        settled = apply_decision(version, verdict)
        if settled is not None:
            return replace(settled, is_new=is_new)
    raise RuntimeError(
        f"{fitted.name}: the champion moved {MAX_JUDGEMENTS} times while version"
        f" {version.version} was judged; run the same command again"
    )
