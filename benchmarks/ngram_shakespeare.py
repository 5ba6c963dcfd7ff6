"""The n-gram model on tiny Shakespeare, characters, nanoGPT's split, beside KenLM.

Needs $ATELIER_DATA/tinyshakespeare/input.txt. KenLM runs beside it where KENLM_BIN names a folder
with its lmplz and query (`benchmarks.ngram_work.kenlm` tells how to build them).

The split: the first 90 % of the characters train, the rest is held out. KenLM's protocol: each part
is one sentence with a beginning and an end; nats are summed over the held-out characters and the
end, and divided by the number of characters.
"""

import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import torch

from benchmarks.measured import record
from benchmarks.ngram_work import kenlm
from benchmarks.ngram_work.process import EvaluationResult, measured
from models.ngram.config import NgramConfig, TuningConfig
from models.ngram.model import NgramModel
from models.ngram.tuning import tune
from models.text.decoding import generate

ORDER = 7  # the best of KenLM's on this text
PUBLISHED = 1.5167
TUNED_ORDERS = (8, 9, 10, 11)
TUNING = TuningConfig(max_held_out=100_000, num_iterations=100)
ROUNDS = 7
UNK, END = 0, 1


def main() -> None:
    """Measure and record all rows."""
    text = _text()
    split = len(text) * 9 // 10
    train, held_out = text[:split], text[split:]
    print(f"{len(train)} characters train, {len(held_out)} are held out")
    with tempfile.TemporaryDirectory() as folder:
        _plain(train, held_out, Path(folder))
        _train_time(train, Path(folder))
    model = _tuned(train, held_out)
    _sampling(model)


def _text() -> str:
    path = Path(os.environ.get("ATELIER_DATA", "")) / "tinyshakespeare" / "input.txt"
    if not path.is_file():
        sys.exit("not run: needs $ATELIER_DATA/tinyshakespeare/input.txt")
    return path.read_text(encoding="utf-8")


def _plain(train: str, held_out: str, folder: Path) -> None:
    """Modified Kneser-Ney as it is, character by character beside KenLM."""
    ids = {character: index for index, character in enumerate(sorted(set(train)), END + 1)}
    tokens = np.array([*(ids[character] for character in train), END])
    model = NgramModel.fit(tokens, len(ids) + 2, NgramConfig(order=ORDER))
    scored = [*(ids.get(character, UNK) for character in held_out), END]
    ours = model.score(torch.tensor(scored)).numpy()
    reference, theirs = "KenLM order 7, published", PUBLISHED
    if (binaries := kenlm.binaries()) is None:
        print("KENLM_BIN is not set: KenLM was not run, its number is the published one")
    else:
        path = folder / "train.txt"
        path.write_text(kenlm.spelled(train), encoding="utf-8")
        measured(kenlm.lmplz(binaries, path, ORDER, kenlm.FASTEST_MEMORY))
        scores = kenlm.scores(binaries, path.with_suffix(".arpa"), kenlm.spelled(held_out))
        reference, theirs = "KenLM order 7, same run", -scores.sum() / len(held_out)
        print(
            f"{len(scores)} log-probabilities of KenLM beside ours: at most"
            f" {np.abs(scores - ours).max():.2g} nats apart (it stores single precision)"
        )
    record(
        "ngram_char_kneser_ney_nats",
        -float(ours.sum()) / len(held_out),
        "nats/char",
        reference=reference,
        reference_value=theirs,
    )


def _train_time(train: str, folder: Path) -> None:
    """Both as whole processes, in turns, from a text file to a model file.

    Ours starts an interpreter, reads characters and writes tables of counts; the estimates are
    computed too. lmplz reads characters that are spaced out already, and writes an ARPA file.
    """
    text = folder / "characters.txt"
    text.write_text(train, encoding="utf-8")
    command = [sys.executable, "-m", "benchmarks.ngram_work.train", str(text), f"{folder}/model"]
    commands = {"ours": [*command, str(ORDER)]}
    if (binaries := kenlm.binaries()) is not None:
        path = folder / "train.txt"
        for memory in (None, "1G", kenlm.FASTEST_MEMORY, "50M"):
            commands[f"lmplz -S {memory or '80%'}"] = kenlm.lmplz(binaries, path, ORDER, memory)
    runs: dict[str, list[EvaluationResult]] = {name: [] for name in commands}
    for _ in range(ROUNDS):
        for name, each in commands.items():
            runs[name].append(measured(each))
    seconds = {name: statistics.median(r.seconds for r in each) for name, each in runs.items()}
    peaks = {name: max(r.peak_mb for r in each) for name, each in runs.items()}
    for name in commands:
        print(f"{name}: {seconds[name]:.2f} s (median of {ROUNDS}), peak {peaks[name]:.0f} MB")
    ours, _ = seconds.pop("ours"), peaks.pop("ours")
    _in_process(train)
    if not seconds:
        print("KENLM_BIN is not set: no training time beside KenLM's")
        return
    fastest = min(seconds, key=lambda name: seconds[name])
    record(
        "ngram_train_time_ratio_kenlm",
        ours / seconds[fastest],
        "of its time",
        seconds=ours,
        reference=f"{fastest}, its fastest setting here, {seconds[fastest]:.2f} s",
        reference_value=1.0,
    )
    peak = max(run.peak_mb for run in runs["ours"])
    record(
        "ngram_train_peak_mb",
        peak,
        "MB",
        reference=f"{fastest}",
        reference_value=peaks[fastest],
    )


def _in_process(train: str) -> None:
    tokens = np.frombuffer(train.encode("ascii"), np.uint8)
    seconds = []
    for _ in range(ROUNDS):
        started_at = time.perf_counter()
        model = NgramModel.fit(tokens, 256, NgramConfig(order=ORDER))
        for k in range(1, ORDER + 1):
            model.backoffs(k)
        seconds.append(time.perf_counter() - started_at)
    print(f"ours without interpreter, files and imports: {statistics.median(seconds):.3f} s")


def _tuned(train: str, held_out: str) -> NgramModel:
    """The order, too, is chosen on the end of the training part that tuning holds out."""
    ids = {character: index for index, character in enumerate(sorted(set(train + held_out)))}
    tokens = np.array([ids[character] for character in train])
    started_at = time.perf_counter()
    known = len(tokens) - TUNING.max_held_out
    nats = {}
    for order in TUNED_ORDERS:
        config = tune(tokens, len(ids), NgramConfig(order=order), TUNING)
        fitted = NgramModel.fit(tokens[:known], len(ids), config)
        nats[config] = -float(fitted.score(torch.from_numpy(tokens), known).mean())
        print(f"order {order}: {nats[config]:.4f} nats/char of the training part's end")
    best = min(nats, key=lambda config: nats[config])
    model = NgramModel.fit(tokens, len(ids), best)
    seconds = time.perf_counter() - started_at
    scored = model.score(torch.tensor([ids[character] for character in held_out]))
    record(
        "ngram_char_tuned_nats",
        -float(scored.mean()),
        "nats/char",
        seconds=seconds,
        reference="KenLM order 7, published",
        reference_value=PUBLISHED,
    )
    return model


def _sampling(model: NgramModel) -> None:
    """256 texts side by side, from the tuned model as it is."""
    num_texts, num_tokens, prompt = 256, 400, torch.tensor([0])
    rates = []
    for seed in range(5):
        started_at = time.perf_counter()
        generate(model, prompt, num_tokens=num_tokens, num_sequences=num_texts, seed=seed)
        rates.append(num_texts * num_tokens / (time.perf_counter() - started_at))
    record(
        "ngram_sampling_tokens_per_second",
        rates,
        "tokens/s",
        seeds=range(5),
        reference="at least",
        reference_value=100_000,
    )


if __name__ == "__main__":
    main()
