"""Judge token models on held-out text, all on one yardstick: bits per byte."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from prefect import task
from safetensors.torch import load_file

from models.decoding import TokenModel, generate
from models.gpt import Gpt, GptConfig
from models.ngram import NgramConfig, NgramModel
from models.text_metrics import bits_per_byte, distinct_n, longest_copied_span
from models.tokenizer import readable, tokenizer_from_dict
from tasks.ingestion import load_text
from tasks.retries import NETWORKED
from tasks.scorecard import EVALUATION_SEED, Scorecard, not_finite, publish
from tasks.storage import read_json, write_text
from tasks.tokenization import TokenSet, load_tokens
from tasks.tracking import log_file
from tasks.training.loop import Fitted, default_prompt

SAMPLED_TEXTS, SAMPLED_TOKENS = 8, 500


@task(name="evaluate-tokens", task_run_name="evaluate {fitted.name}", **NETWORKED)
def evaluate_tokens(fitted: Fitted, tokens: TokenSet, run_id: str) -> Scorecard:
    """Measure a token model on the test split, and the texts that it writes."""
    model = _token_model(fitted)
    history = load_tokens(tokens, "train")[-model.context_length :]  # the text before the test
    sequence = np.concatenate([history, load_tokens(tokens, "test")]).astype(np.int64)
    log_probs = model.score(torch.from_numpy(sequence), start=len(history)).double()
    nats = -float(log_probs.sum())
    texts, copied = _written(model, tokens)
    metrics = {
        "test_bits_per_byte": bits_per_byte(nats, tokens.corpus.bytes_test),
        "test_nats_per_token": nats / tokens.num_test,
        **{f"test_distinct_{n}": distinct_n(texts, n) for n in (1, 2, 3)},
        "test_longest_copied_characters": float(copied),
    }
    faults = not_finite(metrics)
    if metrics["test_bits_per_byte"] >= 8:
        faults.append("knows nothing: 8 bits per byte or more, as uniform guessing")
    scorecard = Scorecard(
        name=fitted.name,
        run_id=run_id,
        main_metric="test_bits_per_byte",
        main_value=metrics["test_bits_per_byte"],
        metrics=metrics,
        faults=tuple(faults),
        data_digest=tokens.corpus.digest,
        judge_digest="",
        data_title=tokens.corpus.title,
        data_licence=tokens.corpus.licence,
        example=texts[:600],
    )
    folder = Path(fitted.folder) / "texts"
    write_text(folder / "samples.txt", texts)
    log_file(run_id, folder, "samples")
    publish(scorecard, tokens.corpus)
    return scorecard


def _token_model(fitted: Fitted) -> Any:
    config = read_json(fitted.config_path)["config"]
    tensors = load_file(fitted.weights_path)
    if fitted.family == "ngram":
        return NgramModel.from_tensors(NgramConfig(**config), tensors)
    model = Gpt(GptConfig(**config))
    model.load_state_dict(tensors)
    return model.eval()


def _written(model: TokenModel, tokens: TokenSet) -> tuple[str, int]:
    """Texts at temperature 1, and the length of the longest span copied from the training text."""
    tokenizer = tokenizer_from_dict(read_json(tokens.tokenizer_path))
    prompt = torch.from_numpy(tokenizer.encode(default_prompt(tokens)).astype(np.int64))
    drawn = generate(
        model,
        prompt,
        num_tokens=SAMPLED_TOKENS,
        num_sequences=SAMPLED_TEXTS,
        seed=EVALUATION_SEED,
    )
    texts = [readable(tokenizer.decode(row)) for row in drawn.tolist()]
    training = load_text(tokens.corpus, "train")
    return "\n".join(texts), max(longest_copied_span(text, training).length for text in texts)
