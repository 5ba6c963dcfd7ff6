"""Does luck with the seed promote? Train one recipe with 20 seeds, and let the gate decide on each.

Run as `python -m benchmarks.gate_noise [vae gan gpt ngram]`: quick recipes on the embedded data, a
registry of its own, the whole way from fit to alias. Prints what every seed gave and what the gate
said; records the spread between seeds (the source of `tasks.gate.KNOWN_SPREADS`), the promotions
after the first, and how many there would have been under simpler rules.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from flows import local_stack

SEEDS = tuple(range(20))
FAMILIES = ("ngram", "gpt", "vae", "gan")


def main(families: list[str]) -> None:
    """Measure each family in a home of its own."""
    for family in families or FAMILIES:
        with tempfile.TemporaryDirectory(prefix="atelier-gate-") as folder:
            os.environ["ATELIER_HOME"] = folder
            os.environ.pop("MLFLOW_TRACKING_URI", None)
            os.environ.pop("PREFECT_API_URL", None)
            local_stack.apply_settings()
            os.chdir(folder)  # MLflow makes a folder in the working directory
            _measure(family)
            os.chdir("/")


def _measure(family: str) -> None:
    from benchmarks.measured import record
    from tasks.scorecard import Scorecard

    scorecards: list[Scorecard] = []
    aliases: list[str] = []
    started_at = time.monotonic()
    for seed in SEEDS:
        scorecard, alias, reason = _one(family, seed)
        scorecards.append(scorecard)
        aliases.append(alias)
        print(f"{family} seed {seed}: {scorecard.main_value:.4f} {alias}: {reason}", flush=True)
    seconds = (time.monotonic() - started_at) / len(SEEDS)
    values = [scorecard.main_value for scorecard in scorecards]
    spread = statistics.stdev(values) / statistics.fmean(values)
    promotions = aliases.count("champion") - 1 if family != "ngram" else 0
    lucky, significant = _simpler_rules(scorecards)
    reference = f"any better value: {lucky}; a better interval alone"
    record(
        f"gate_noise_{family}_promotions",
        promotions,
        "promotions after the first",
        seeds=SEEDS,
        seconds=seconds,
        reference=reference,
        reference_value=significant,
    )
    record(f"gate_noise_{family}_spread", spread, "standard deviation over mean", seeds=SEEDS)


def _one(family: str, seed: int) -> tuple[Any, str, str]:
    """One training on its whole way; the model's scorecard, its alias and the gate's reason."""
    from tasks.gate import gate
    from tasks.incumbent import evaluate_champion
    from tasks.promotion import settle_alias
    from tasks.recipe import recipe_of
    from tasks.registration import register_version
    from tasks.tracking import open_run

    with open_run(f"{family}-{seed}") as run_id:
        data, judge, fitted, scorecard, settings = _trained(family, seed, run_id)
        incumbent = evaluate_champion.fn(fitted.name, data, judge)
        verdict = gate.fn(fitted, scorecard, incumbent)
        recipe = recipe_of(family, data, "quick", seed, **settings)
        version = register_version.fn(fitted, scorecard, verdict, recipe, incumbent)
        return scorecard, settle_alias.fn(version, verdict).alias, verdict.reason


def _trained(family: str, seed: int, run_id: str) -> tuple[Any, Any, Any, Any, dict[str, Any]]:
    from models import recipes
    from tasks.image_evaluation import evaluate_images
    from tasks.ingestion import ingest_images, ingest_text
    from tasks.text_evaluation import evaluate_tokens
    from tasks.tokenization import tokenize_corpus
    from tasks.training.classifier import fit_classifier
    from tasks.training.gan import fit_gan
    from tasks.training.gpt import fit_gpt
    from tasks.training.ngram import fit_ngram
    from tasks.training.vae import fit_vae

    if family in ("ngram", "gpt"):
        tokens = tokenize_corpus.fn(ingest_text.fn("pydocs"))
        if family == "ngram":
            config, tuning = recipes.ngram_recipe("quick", tokens.scheme)
            fitted = fit_ngram.fn(tokens, config, tuning, seed, run_id)
            settings = {"config": config, "tuning": tuning}
        else:
            size = tokens.vocabulary_size, tokens.num_train
            shape, fit = recipes.gpt_recipe("quick", *size, seed)
            fitted = fit_gpt.fn(tokens, shape, fit, run_id)
            settings = {"config": shape, "fit": fit}
        return tokens, None, fitted, evaluate_tokens.fn(fitted, tokens, run_id), settings
    images = ingest_images.fn("digits")
    size3, num_classes = (images.channels, images.height, images.width), len(images.class_names)
    judge = fit_classifier.fn(images, *recipes.classifier_recipe(*size3, num_classes), run_id)
    if family == "vae":
        network, fit = recipes.vae_recipe("quick", *size3, seed)
        fitted = fit_vae.fn(images, network, fit, run_id)
    else:
        network, fit = recipes.gan_recipe("quick", size3, num_classes, seed)
        fitted = fit_gan.fn(images, network, fit, run_id)
    scorecard = evaluate_images.fn(fitted, images, judge, run_id)
    return images, judge, fitted, scorecard, {"config": network, "fit": fit}


def _simpler_rules(scorecards: list[Any]) -> tuple[int, int]:
    """Promotions after the first: of any better value, and of any wholly better interval."""
    from tasks.gate import difference_interval

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
    print(f"written to {Path('benchmarks/results.json')}")
