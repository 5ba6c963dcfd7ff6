"""What tuning gathers, from what follows the contexts of the held-out text alone."""

import numpy as np
import pytest
import torch

from models.ngram import tuning
from models.ngram.backoff import BackoffModel
from models.ngram.config import NUM_FEATURES, NgramConfig, TuningConfig
from models.ngram.counting import UNKNOWN
from models.ngram.external_sort import ExternalSortConfig
from models.ngram.keys import BEGIN
from models.ngram.model import NgramModel
from models.ngram.smoothing import ContextCounts
from models.ngram.training import NgramTraining
from models.ngram.tuning import gather, tune
from models.training.protocol import TextData


def text(length: int, num_words: int, seed: int = 0) -> np.ndarray:
    random = np.random.default_rng(seed)
    return (random.zipf(1.3, length) % num_words).astype(np.uint16)


def gathered_from_whole_tables(
    model: BackoffModel, tokens: np.ndarray, start: int
) -> dict[str, torch.Tensor]:
    """The same evidence by its definition: every order's sums over all contexts, then a look-up."""
    symbols = model.symbols(tokens, is_beginning=False)
    places = np.flatnonzero(symbols != BEGIN)[start:]
    shares, token_classes, classes, features, seen = [], [], [], [], []
    num_contexts = 1
    for k, context_ranks, ranks in model.ranked(symbols):
        contexts, grams = context_ranks[places], ranks[places]
        parts = []
        for counts in (model.adjusted_counts(k), model.occurrences(k)):
            sums = ContextCounts.of(counts, model.contexts(k), num_contexts)
            totals = np.maximum(np.append(sums.totals, 0)[contexts], 1).astype(np.float32)
            count = np.append(counts, 0)[grams]
            of_context = np.append(sums.classes, np.zeros((3, 1)), axis=1)[:, contexts]
            is_class = np.minimum(count, 3) == np.array([[1], [2], [3]])
            parts.append((count / totals, is_class / totals, of_context / totals))
        for found, columns in zip(
            (shares, token_classes, classes), zip(*parts, strict=True), strict=True
        ):
            found.append(np.stack(columns).astype(np.float32))
        whole = np.append(sums.features(), np.zeros((NUM_FEATURES, 1)), axis=1)
        features.append(whole[:, contexts].astype(np.float32))
        seen.append(np.append(sums.totals, 0)[contexts] > 0)
        num_contexts = len(model.tables[k - 1].keys)
    named = {"shares": shares, "token_class": token_classes, "classes": classes}
    named |= {"features": features, "is_seen": seen}
    return {name: torch.from_numpy(np.stack(each)) for name, each in named.items()}


@pytest.mark.parametrize("at_once", [1, 7, 1 << 20])
@pytest.mark.parametrize("sentence_end", [None, 2])
@pytest.mark.parametrize("order", [1, 2, 5])
def test_evidence_is_that_of_the_whole_tables(
    order: int, sentence_end: int | None, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tuning, "FOLLOWERS_AT_ONCE", at_once)
    tokens = text(3000, 40)
    tokens[-5] = 43  # a token that the counted text lacks
    config = NgramConfig(order=order, sentence_end=sentence_end)
    model = NgramModel.fit(tokens[:2500], 50, config)
    held_out = tokens[2490:].astype(np.int64)

    found = gather(model, held_out, 10)

    for name, wanted in gathered_from_whole_tables(model, held_out, 10).items():
        assert torch.equal(getattr(found, name), wanted), name


def test_evidence_of_a_text_shorter_than_the_order() -> None:
    model = NgramModel.fit(np.array([0, 1]), 4, NgramConfig(order=4))
    tokens = np.array([1, 1, 0])

    found = gather(model, tokens, 0)

    for name, wanted in gathered_from_whole_tables(model, tokens, 0).items():
        assert torch.equal(getattr(found, name), wanted), name


def test_counts_of_some_ngrams_are_those_of_all() -> None:
    model = NgramModel.fit(text(3000, 40), 50, NgramConfig(order=3, sentence_end=2))
    for order in (1, 2, 3):
        ranks = np.append(np.arange(len(model.tables[order - 1].keys)), UNKNOWN)

        neighbours, occurrences = model.counts_at(order, ranks)

        assert occurrences.tolist() == [*model.occurrences(order), 0]
        assert neighbours.tolist() == [*model.adjusted_counts(order), 0]


def test_a_spilled_training_gives_the_same_bits(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tuned and counted within a megabyte, from a map, or all in memory."""
    tokens = text(60_000, 500)
    np.save(tmp_path / "tokens.npy", tokens)
    mapped = np.load(tmp_path / "tokens.npy", mmap_mode="r")
    config, tuning_config = NgramConfig(order=5), TuningConfig(num_iterations=5)

    def trained(train: np.ndarray):
        data = TextData(train=train, validation=train[:9], vocabulary_size=500)
        return NgramTraining(data, torch.device("cpu"), config, tuning_config).finish(str(tmp_path))

    whole = trained(tokens)
    monkeypatch.setattr(
        "models.ngram.training.ExternalSortConfig",
        lambda folder: ExternalSortConfig(folder=folder, memory_bytes=1 << 20),
    )
    spilled = trained(mapped)

    assert spilled.config == whole.config
    assert spilled.num_parameters == whole.num_parameters
    assert spilled.tensors.keys() == whole.tensors.keys()
    assert isinstance(spilled.tensors["keys_5"].base, np.memmap)
    for name, array in whole.tensors.items():
        assert array.dtype == spilled.tensors[name].dtype
        assert (array == spilled.tensors[name]).all(), name


def test_tuning_leaves_no_file(tmp_path) -> None:
    spill = ExternalSortConfig(folder=str(tmp_path), memory_bytes=1 << 20)

    tune(text(60_000, 500), 500, NgramConfig(order=5), TuningConfig(num_iterations=2), spill)

    assert list(tmp_path.iterdir()) == []
