"""Train, judge and register the two next-token models; the same lines for each."""

from prefect import flow

from flows.champion_challenger import evaluate_and_promote
from flows.device_slot import released_slot
from models.presets import Preset, gpt_recipe, ngram_recipe
from tasks.data.tokenization import TokenSet
from tasks.evaluation.text import evaluate_tokens
from tasks.registry.versions import Version
from tasks.tracking.runs import task_run
from tasks.training.fit_store import fit_cache_key
from tasks.training.gpt import fit_gpt
from tasks.training.ngram import fit_ngram
from tasks.training.provenance import provenance_of


@flow(name="train-ngram", flow_run_name="{tokens.name}-ngram, {preset}")
def train_ngram(
    tokens: TokenSet,
    preset: Preset = "standard",
    seed: int = 0,
    parent_run_id: str | None = None,
    approve_within: int | None = None,
) -> Version:
    """Count n-grams, smooth them, judge the model on held-out text, register it.

    Args:
        tokens: the receipt of a tokenized corpus.
        preset: how much work: quick, standard or full.
        seed: seeds the sampled examples; counting itself is not random.
        parent_run_id: the MLflow run under which this one is filed.
        approve_within: seconds to wait for a person's consent to a promotion; none: do not ask.
    """
    config, tuning = ngram_recipe(preset, tokens.scheme)
    key = fit_cache_key("ngram", tokens, {"ngram": config, "tuning": tuning})
    with task_run(f"{tokens.name}-ngram", key, parent_run_id, meanwhile=released_slot) as run_id:
        fitted = fit_ngram(tokens, config, tuning, seed, run_id)
        scorecard = evaluate_tokens(fitted, tokens, run_id)
        recipe = provenance_of("ngram", tokens, preset, seed, config=config, tuning=tuning)
        return evaluate_and_promote(
            fitted, scorecard, recipe, tokens, approve_within=approve_within
        )


@flow(name="train-gpt", flow_run_name="{tokens.name}-gpt, {preset}, seed {seed}")
def train_gpt(
    tokens: TokenSet,
    preset: Preset = "standard",
    seed: int = 0,
    parent_run_id: str | None = None,
    approve_within: int | None = None,
) -> Version:
    """Fit a GPT from scratch, judge it on held-out text, register it.

    Args:
        tokens: the receipt of a tokenized corpus.
        preset: how much work: quick, standard or full.
        seed: 0 to 2147483647; the same seed gives the same weights on the same machine.
        parent_run_id: the MLflow run under which this one is filed.
        approve_within: seconds to wait for a person's consent to a promotion; none: do not ask.
    """
    config, fit = gpt_recipe(preset, tokens.vocabulary_size, tokens.num_train, seed)
    key = fit_cache_key("gpt", tokens, {"gpt": config, "fit": fit})
    with task_run(f"{tokens.name}-gpt", key, parent_run_id, meanwhile=released_slot) as run_id:
        fitted = fit_gpt(tokens, config, fit, run_id)
        scorecard = evaluate_tokens(fitted, tokens, run_id)
        recipe = provenance_of("gpt", tokens, preset, seed, config=config, fit=fit)
        return evaluate_and_promote(
            fitted, scorecard, recipe, tokens, approve_within=approve_within
        )
