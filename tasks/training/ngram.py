"""Fit the n-gram model: count the training split, once."""

import time
from dataclasses import asdict

from prefect import task
from prefect.cache_policies import NO_CACHE

from models.ngram import NgramConfig, NgramModel
from tasks.retries import is_transient
from tasks.storage import read_json
from tasks.tokenization import TokenSet, load_tokens
from tasks.tracking import log_parameters
from tasks.training.loop import Fitted, default_prompt, finished, stored, workplace


@task(
    name="fit-ngram",
    task_run_name="fit {tokens.name}-ngram",
    retries=1,
    retry_condition_fn=is_transient,
    cache_policy=NO_CACHE,
)
def fit_ngram(tokens: TokenSet, config: NgramConfig, seed: int, run_id: str) -> Fitted:
    """Count and smooth the n-grams of the training split."""
    place = workplace(
        family="ngram",
        data_name=tokens.name,
        data_digest=tokens.digest,
        settings={"config": asdict(config)},
        seed=seed,
        run_id=run_id,
        device="cpu",
    )
    log_parameters(run_id, {"ngram": asdict(config)})
    if (earlier := stored(place)) is not None:
        return earlier
    started_at = time.monotonic()
    model = NgramModel.fit(load_tokens(tokens, "train"), tokens.vocabulary_size, config)
    tensors = model.tensors()
    return finished(
        place,
        tensors=tensors,
        config=config,
        seconds=time.monotonic() - started_at,
        num_parameters=sum(tensor.numel() for tensor in tensors.values()),
        extra_json={
            "tokenizer.json": read_json(tokens.tokenizer_path),
            "sampling.json": {"prompt": default_prompt(tokens)},
        },
    )
