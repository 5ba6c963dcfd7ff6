"""Does luck with the seed promote? Train one recipe with 20 seeds, and let the gate decide on each.

Run as `python -m benchmarks.gate_noise [FAMILY ...]`: quick recipes on the embedded data, a
registry of its own, the whole way from fit to alias. Prints what every seed gave and what the gate
said; records the spread between seeds (the source of `seed_spreads` in `tasks/families/`), the
promotions after the first, and how many there would have been under simpler rules.
"""

import os
import shutil
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atelier.services import process_settings

SEEDS = tuple(range(20))
FAMILIES = ("ngram", "gpt", "vae", "gan", "diffusion")


def main(families: list[str]) -> None:
    """Measure each family in a home of its own; in $ATELIER_HOME a second run finds its fits."""
    process_settings.apply_settings()
    with tempfile.TemporaryDirectory(prefix="atelier-gate-") as folder:
        os.environ.setdefault("ATELIER_HOME", folder)
        os.environ.pop("PREFECT_API_URL", None)
        os.chdir(folder)  # MLflow makes a folder in the working directory
        for family in families or FAMILIES:
            _measure(family, Path(folder))
        os.chdir("/")


def _measure(family: str, folder: Path) -> None:
    from benchmarks.measured import record
    from tasks.tracking.runs import open_run

    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{folder / family}.db"  # an empty registry
    shutil.rmtree(Path(os.environ["ATELIER_HOME"]) / "ledger", ignore_errors=True)
    started_at = time.monotonic()
    trained = []
    for seed in SEEDS:
        with open_run(f"{family}-{seed}") as run_id:
            trained.append(_trained(family, seed, run_id))
        print(f"{family} seed {seed}: {trained[-1].scorecard.main_value:.4f}", flush=True)
    seconds = (time.monotonic() - started_at) / len(SEEDS)
    aliases = [_settled(family, seed, each) for seed, each in zip(SEEDS, trained, strict=True)]
    scorecards = [each.scorecard for each in trained]
    values = [scorecard.main_value for scorecard in scorecards]
    spread = statistics.stdev(values) / statistics.fmean(values)
    lucky, significant = _simpler_rules(scorecards)
    record(
        f"gate_noise_{family}_promotions",
        len({number for number, alias in aliases if alias == "champion"}) - 1,
        "promotions after the first",
        seeds=SEEDS,
        seconds=seconds,
        reference=f"any better value: {lucky}; a better interval alone",
        reference_value=significant,
    )
    record(f"gate_noise_{family}_spread", spread, "standard deviation over mean", seeds=SEEDS)


@dataclass(frozen=True)
class Trained:
    """A judged model, and what it was made of."""

    data: Any
    judge: Any
    plan: Any
    fitted: Any
    scorecard: Any


def _settled(family: str, seed: int, trained: Trained) -> tuple[int, str]:
    """The way from a judged model to its alias; the version's number and the alias."""
    from tasks.families.table import FAMILIES as RECORDS
    from tasks.registry.champion import evaluate_champion
    from tasks.registry.promotion_policy import gate
    from tasks.registry.registration import register_version
    from tasks.registry.verdicts import apply_decision
    from tasks.training.provenance import provenance_of

    fitted, scorecard = trained.fitted, trained.scorecard
    incumbent = evaluate_champion.fn(fitted.name, trained.data, RECORDS[family], trained.judge)
    verdict = gate.fn(fitted, scorecard, incumbent, "quick")
    recipe = provenance_of(trained.plan, trained.data, "quick")
    registered = register_version.fn(fitted, scorecard, verdict, recipe, incumbent)
    version = apply_decision.fn(registered, verdict)
    assert version is not None, "nobody else moves the champion here"
    print(f"{family} seed {seed}: {version.alias}: {verdict.reason}", flush=True)
    return version.version, version.alias


def _trained(family: str, seed: int, run_id: str) -> Trained:
    from tasks.evaluation.images import evaluate_images
    from tasks.evaluation.text import evaluate_tokens
    from tasks.families.table import FAMILIES as RECORDS
    from tasks.training.fit import fit_model
    from tasks.training.plan import feature_extractor_plan

    data, plan, fitted = fitted_with(family, seed, run_id)
    record = RECORDS[family]
    if record.data == "text":
        return Trained(data, None, plan, fitted, evaluate_tokens.fn(fitted, data, run_id))
    judge = fit_model.fn(data, feature_extractor_plan(data), run_id)
    told: dict[str, Any] = {"likelihood": record.likelihood, "draws_means": record.draws_means}
    scorecard = evaluate_images.fn(fitted, data, judge, run_id, **told)
    return Trained(data, judge, plan, fitted, scorecard)


def fitted_with(family: str, seed: int, run_id: str, source: str = "") -> tuple[Any, Any, Any]:
    """Data, by default the embedded ones, the plan of a family's quick recipe, and its fit."""
    from flows.train import planned
    from tasks.data.ingestion import ingest_images, ingest_text
    from tasks.data.tokenization import tokenize_corpus
    from tasks.families.table import FAMILIES as RECORDS
    from tasks.training.fit import fit_model

    record = RECORDS[family]
    data: Any
    if record.data == "text":
        data = tokenize_corpus.fn(ingest_text.fn(source or "pydocs"))
    else:
        data = ingest_images.fn(source or "digits")
    plan = planned(record, data, "quick", seed, {})
    return data, plan, fit_model.fn(data, plan, run_id)


def _simpler_rules(scorecards: list[Any]) -> tuple[int, int]:
    """Promotions after the first: of any better value, and of any wholly better interval."""
    from tasks.registry.promotion_policy import difference_interval

    counts = [0, 0]
    champions = [scorecards[0], scorecards[0]]
    for candidate in scorecards[1:]:
        is_lower = candidate.main_value < champions[0].main_value
        is_significant = difference_interval(candidate, champions[1])[1] < 0
        for rule, promotes in enumerate((is_lower, is_significant)):
            if promotes:
                counts[rule] += 1
                champions[rule] = candidate
    return counts[0], counts[1]


if __name__ == "__main__":
    main(sys.argv[1:])
