"""Fit the GPT: next-token prediction on random windows, the best validated weights kept."""

import torch
from prefect import task

from models.gpt.model import Gpt, GptConfig, make_optimizer
from models.training.batches import INITIAL_STREAM, TokenBatches, seed_at
from models.training.checkpoint import BestWeights, TrainingState, num_parameters
from models.training.loops import FitConfig, likelihood_steps
from tasks.data.tokenization import TokenSet, load_tokens
from tasks.runtime.retries import TRAINING
from tasks.store.files import read_json
from tasks.training.checkpointing import checkpointed_steps
from tasks.training.device import training_device
from tasks.training.examples import default_prompt
from tasks.training.fit_store import FitContext, TrainedModel, load_cached_fit, open_fit, save_fit

NUM_VALIDATIONS = 10
VALIDATION_TOKENS = 16_384


@task(
    name="fit-gpt",
    task_run_name="fit {tokens.name}-gpt",
    **TRAINING,
)
def fit_gpt(tokens: TokenSet, config: GptConfig, fit: FitConfig, run_id: str) -> TrainedModel:
    """Train the GPT on the training split; a retry or a new process resumes where it stopped."""
    settings = {"gpt": config, "fit": fit}
    with open_fit("gpt", tokens, settings, seed=fit.seed, run_id=run_id) as place:
        return load_cached_fit(place) or _train(place, tokens, config, fit)


def _train(place: FitContext, tokens: TokenSet, config: GptConfig, fit: FitConfig) -> TrainedModel:
    device = training_device()
    torch.manual_seed(seed_at(fit.seed, 0, INITIAL_STREAM))
    model = Gpt(config).to(device)
    optimizer = make_optimizer(model, fit)
    best = BestWeights(model)
    state = TrainingState({"model": model, "best": best.model}, {"all": optimizer}, {"best": best})
    train = torch.from_numpy(load_tokens(tokens, "train").astype("int64")).to(device)
    held_out = load_tokens(tokens, "validation")[:VALIDATION_TOKENS].astype("int64")
    validation = torch.from_numpy(held_out).to(device)
    batches = TokenBatches(train, config.context_length, fit.batch_size, fit.seed)
    validate_every = max(1, fit.steps // NUM_VALIDATIONS)
    for step in checkpointed_steps(
        lambda start: likelihood_steps(model, optimizer, batches.at, fit, start),
        state,
        place,
        num_steps=fit.steps,
    ):
        if step.step % validate_every == 0 or step.step == fit.steps:
            loss = -float(model.score(validation, start=1).mean())
            place.journal.add(step.step, {"validation_nats_per_token": loss})
            best.offer(step.step, loss, model)
    place.say(f"the weights of step {best.step} did best on the validation split")
    return save_fit(
        place,
        tensors=best.model.state_dict(),
        config=config,
        seconds=state.seconds,
        num_parameters=num_parameters(model),
        extra_json={
            "tokenizer.json": read_json(tokens.tokenizer_path),
            "sampling.json": {"prompt": default_prompt(tokens.corpus)},
        },
    )
