"""Fit the n-gram model: tune its smoothing on a hold-out of the training split, then count."""

import time

from prefect import task

from models.ngram.backoff import NgramConfig
from models.ngram.external_sort import ExternalSortConfig
from models.ngram.model import NgramModel
from models.ngram.tuning import TuningConfig, tune
from tasks.data.tokenization import TokenSet, load_tokens
from tasks.runtime.retries import TRAINING
from tasks.store.files import read_json
from tasks.training.examples import default_prompt
from tasks.training.fit_store import FitContext, TrainedModel, load_cached_fit, open_fit, save_fit


@task(
    name="fit-ngram",
    task_run_name="fit {tokens.name}-ngram",
    **TRAINING,
)
def fit_ngram(
    tokens: TokenSet, config: NgramConfig, tuning: TuningConfig | None, seed: int, run_id: str
) -> TrainedModel:
    """Tune the smoothing on the end of the training split, then count all of it.

    Without tuning it is plain modified Kneser-Ney.
    """
    settings = {"ngram": config, "tuning": tuning}
    with open_fit("ngram", tokens, settings, seed=seed, run_id=run_id) as place:
        return load_cached_fit(place) or _count(place, tokens, config, tuning)


def _count(
    place: FitContext, tokens: TokenSet, config: NgramConfig, tuning: TuningConfig | None
) -> TrainedModel:
    started_at = time.monotonic()
    train = load_tokens(tokens, "train")
    place.folder.mkdir(parents=True, exist_ok=True)
    spill = ExternalSortConfig(
        folder=str(place.folder)
    )  # what the memory cannot hold goes to the disk
    if tuning is not None:
        config = tune(train, tokens.vocabulary_size, config, tuning, spill)
    model = NgramModel.fit(train, tokens.vocabulary_size, config, spill)
    tensors = model.tensors()
    return save_fit(
        place,
        tensors=tensors,
        config=config,
        seconds=time.monotonic() - started_at,
        num_parameters=sum(tensor.numel() for tensor in tensors.values()),
        extra_json={
            "tokenizer.json": read_json(tokens.tokenizer_path),
            "sampling.json": {"prompt": default_prompt(tokens.corpus)},
        },
    )
