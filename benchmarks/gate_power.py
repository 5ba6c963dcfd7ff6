"""How large an improvement does the gate see? The other side of benchmarks/gate_noise.py.

Run as `python -m benchmarks.gate_power [FAMILY ...] [--data mnist] [--seeds 20]`: quick recipes, by
default on the embedded data (others need ATELIER_DATA); in $ATELIER_HOME a second run finds its
fits. Every ordered pair of two seeds is a
champion and a candidate, and the candidate's scores are made better by a share of themselves:
their differences from item to item and from seed to seed stay those of real trainings, and by how
much the recipe is better is known. Counting knows no seeds: there the candidate's gain is spread
over the text as that of order 9 over order 6 is, and the held-out text is resampled.

For each family: the power at each improvement, the improvement that is promoted with 80 %
probability, and what the same rule promotes of twenty seeds without any improvement, one after the
other, over random orders. The gate's own functions decide. Images are scored on the held-out
parts and texts on the test: no number of a recipe or of the gate was chosen for these results but
the spread between seeds, which is that of these very seeds.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from atelier.services import process_settings
from benchmarks.measured import record

FAMILIES = ("ngram", "vae", "gan", "gpt", "diffusion")
GOALS = {"vae": 0.005, "gan": 0.25, "gpt": 0.015, "ngram": 0.003, "diffusion": 0.25}
WORDS = {
    "vae": "fewer nats",
    "gan": "lower Fréchet distance",
    "gpt": "fewer bits",
    "ngram": "fewer bits",
    "diffusion": "lower Fréchet distance",
}
STEPS = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0, 1.25, 1.5, 1.75, 2.0, 2.5)
"""Improvements that are tried, in goals."""
MAX_PAIRS, NUM_ORDERS, NUM_TEXTS = 150, 2000, 3000
WANTED = 0.8


@dataclass(frozen=True)
class Scores:
    """One model's main value and its scores by item or resample."""

    value: float
    items: np.ndarray

    def better_by(self, share: float) -> "Scores":
        """The same with all scores lower by a share of themselves."""
        return Scores(self.value * (1 - share), self.items * (1 - share))


Beats = Callable[[Scores, Scores], bool]


def main() -> None:
    """Measure the wanted families, by default all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("families", nargs="*", default=FAMILIES)
    parser.add_argument("--data", default="", help="a source of images or text")
    parser.add_argument("--seeds", type=int, default=20)
    options = parser.parse_args()
    process_settings.apply_settings()
    with tempfile.TemporaryDirectory(prefix="atelier-power-") as folder:
        os.environ.setdefault("ATELIER_HOME", folder)
        os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path(folder) / 'power.db'}"
        os.environ.pop("PREFECT_API_URL", None)
        os.chdir(folder)  # MLflow makes a folder in the working directory
        for family in options.families:
            if family == "ngram":
                _measure_counting(options.data)
            else:
                _measure(family, options.data, tuple(range(options.seeds)))
        os.chdir("/")


def _row(family: str, data: str) -> str:
    """What the names of a family's rows begin with."""
    return "_".join(filter(None, ("gate_power", family, data)))


def _measure(family: str, data: str, seeds: tuple[int, ...]) -> None:
    from tasks.data.sources import known_sources
    from tasks.families.table import FAMILIES as RECORDS
    from tasks.registry.promotion_policy import known_spread

    scores, row = _scores_of(family, data, seeds), _row(family, data)
    values = np.array([each.value for each in scores])
    spread = float(values.std(ddof=1) / values.mean())
    known = known_spread(family, "quick", data or known_sources(RECORDS[family].data)[0])
    beats = _rule(family, known)
    pairs = [(i, j) for i in range(len(seeds)) for j in range(len(seeds)) if i != j]
    chosen = np.random.default_rng(0).permutation(len(pairs))[:MAX_PAIRS]
    curve = {
        step: np.mean(
            [
                beats(scores[pairs[k][0]].better_by(step * GOALS[family]), scores[pairs[k][1]])
                for k in chosen
            ]
        )
        for step in STEPS
    }
    record(f"{row}_spread", spread, "standard deviation over mean", seeds=seeds)
    _told(family, row, curve, seeds)
    record(
        f"{row}_false_promotions",
        _in_turn(family, scores, known, 20),
        "of 20 seeds in succession, after the first, on the average",
        seeds=seeds,
        reference="at most",
        reference_value=1,
    )


def _measure_counting(data: str) -> None:
    """Power over resampled texts, and what is promoted where there is no gain on the whole."""
    champion, gain = _counted(data)
    beats = _rule("ngram", None)
    generator = np.random.default_rng(0)
    texts = generator.integers(len(gain), size=(NUM_TEXTS, len(gain)))

    def promoted(share: float, pattern: np.ndarray) -> float:
        better = champion - share * champion.mean() * pattern
        found = [
            beats(
                Scores(better[text].mean(), better[text]),
                Scores(champion[text].mean(), champion[text]),
            )
            for text in texts
        ]
        return float(np.mean(found))

    row = _row("ngram", data)
    _told("ngram", row, {step: promoted(step * GOALS["ngram"], gain) for step in STEPS}, ())
    record(
        f"{row}_false_promotions",
        promoted(GOALS["ngram"], gain - gain.mean()),
        f"of {NUM_TEXTS} resampled texts on which nothing is gained in all",
        reference="at most",
        reference_value=0.05,
    )


def _told(family: str, row: str, curve: dict[float, Any], seeds: tuple[int, ...]) -> None:
    goal = GOALS[family]
    for step, power in curve.items():
        print(
            f"{family}: {step * goal:.2%} {WORDS[family]} are promoted in {power:.0%}", flush=True
        )
    record(
        f"{row}_at_goal",
        float(curve[1.0]),
        f"of the candidates with {goal:.1%} {WORDS[family]} are promoted",
        seeds=seeds,
        reference="wanted",
        reference_value=WANTED,
    )
    record(
        f"{row}_improvement",
        100 * goal * _reached(curve),
        f"% {WORDS[family]} are promoted four times in five",
        seeds=seeds,
        reference="wanted",
        reference_value=100 * goal,
    )


def _reached(curve: dict[float, Any]) -> float:
    """The step at which the power is 80 %, between the two beside it; NaN where it never is."""
    steps, powers = np.array(list(curve)), np.array(list(curve.values()))
    above = np.flatnonzero(powers >= WANTED)
    if not len(above):
        return float("nan")
    return float(np.interp(WANTED, powers[: above[0] + 1], steps[: above[0] + 1]))


def _rule(family: str, spread: Any) -> Beats:
    """Whether the gate puts one above the other."""
    from tasks.families.table import FAMILIES as RECORDS
    from tasks.registry.promotion_policy import beats, difference_bounds, noise_margin

    level, is_distance = RECORDS[family].luck_level, _is_judged_by_distance(family)

    def decide(candidate: Scores, champion: Scores) -> bool:
        difference = candidate.value - champion.value
        _, high = difference_bounds(candidate.items, champion.items, is_distance, difference)
        margin = 0.0 if spread is None else noise_margin(champion.value, spread, level)
        return beats(difference, high, margin)

    return decide


def _is_judged_by_distance(family: str) -> bool:
    from tasks.families.table import FAMILIES as RECORDS

    return RECORDS[family].data == "images" and not RECORDS[family].likelihood


def _in_turn(family: str, scores: list[Scores], known: Any, length: int) -> float:
    """Promotions after the first of so many seeds, over random orders; seeds may come again.

    As in the registry, what came before adds to what is known of the spread.
    """
    from models.metrics.seed_variance import pooled_spread
    from tasks.families.table import FAMILIES as RECORDS
    from tasks.registry.promotion_policy import beats, difference_bounds, noise_margin

    level, is_distance = RECORDS[family].luck_level, _is_judged_by_distance(family)
    values = np.array([each.value for each in scores])
    highs = np.array(
        [[difference_bounds(a.items, b.items, is_distance, a.value - b.value)[1] for b in scores]
         for a in scores]
    )  # fmt: skip
    generator = np.random.default_rng(0)
    counts = []
    for _ in range(NUM_ORDERS):
        order = (
            generator.permutation(len(scores))
            if len(scores) >= length
            else generator.integers(len(scores), size=length)
        )[:length]
        champion, count = order[0], 0
        for number, candidate in enumerate(order[1:], start=1):
            spread = pooled_spread([values[order[:number]].tolist()], known)
            margin = noise_margin(values[champion], spread, level)
            difference = values[candidate] - values[champion]
            if candidate != champion and beats(difference, highs[candidate, champion], margin):
                champion, count = candidate, count + 1
        counts.append(count)
    return float(np.mean(counts))


def _scores_of(family: str, source: str, seeds: tuple[int, ...]) -> list[Scores]:
    """The main value and the scores of each seed: what its evaluation would store."""
    from benchmarks.gate_noise import fitted_with
    from tasks.evaluation.text_metrics import scored_blocks
    from tasks.packaging.package import rebuilt_from
    from tasks.tracking.runs import open_run

    found, judge = [], None
    for seed in seeds:
        with open_run(f"{family}-{seed}") as run_id:
            data, _, fitted = fitted_with(family, seed, run_id, source)
            if judge is None and _is_judged_by_distance(family):
                judge = _judge(data, run_id)
        subject = rebuilt_from(fitted)
        if family == "gpt":
            bits = scored_blocks(subject, data.corpus)
            found.append(Scores(float(bits.mean()), bits))
        elif family == "vae":
            found.append(_nats(subject, data))
        else:
            found.append(_distances(subject, data, judge))
        print(f"{family} seed {seed}: {found[-1].value:.4f}", flush=True)
    return found


def _judge(images: Any, run_id: str) -> Any:
    from tasks.evaluation.images import judge_of
    from tasks.training.fit import fit_model
    from tasks.training.plan import feature_extractor_plan

    return judge_of(fit_model.fn(images, feature_extractor_plan(images), run_id))


def _nats(subject: Any, images: Any) -> Scores:
    from models.vae.evaluation import likelihood
    from tasks.data.splits import load_images
    from tasks.evaluation.result import EVALUATION_SEED

    found = likelihood(subject.model, load_images(images, "test")[0], EVALUATION_SEED)
    return Scores(found.metrics["test_nll_nats"], found.nats)


def _distances(subject: Any, images: Any, judge: Any) -> Scores:
    from models.metrics.images import frechet_distance
    from models.metrics.sample_quality import seen_by
    from models.metrics.seed_variance import resampled_frechet_distances
    from tasks.data.splits import load_images
    from tasks.evaluation.image_metrics import drawn_by
    from tasks.evaluation.result import EVALUATION_SEED

    train, validation, test = (
        load_images(images, split)[0] for split in ("train", "validation", "test")
    )
    seen = seen_by(judge, drawn_by(subject, images, by_distance=True)[0], train, test, validation)
    scores = resampled_frechet_distances(seen.held_out, seen.drawn, seed=EVALUATION_SEED)
    return Scores(frechet_distance(seen.held_out, seen.drawn), scores)


def _counted(source: str) -> tuple[np.ndarray, np.ndarray]:
    """The quick n-gram model's bits by block, and where order 9 gains on order 6, of mean 1."""
    from dataclasses import replace

    from flows.train import planned
    from tasks.data.ingestion import ingest_text
    from tasks.data.tokenization import tokenize_corpus
    from tasks.evaluation.text_metrics import scored_blocks
    from tasks.families.table import FAMILIES as RECORDS
    from tasks.packaging.package import rebuilt_from
    from tasks.tracking.runs import open_run
    from tasks.training.fit import fit_model

    tokens = tokenize_corpus.fn(ingest_text.fn(source or "pydocs"))
    plan = planned(RECORDS["ngram"], tokens, "quick", 0, {})
    config = plan.settings["model"]
    bits = []
    for order in (config.order, 6):
        with open_run(f"ngram-{order}") as run_id:
            settings = {**plan.settings, "model": replace(config, order=order)}
            fitted = fit_model.fn(tokens, replace(plan, settings=settings), run_id)
            bits.append(scored_blocks(rebuilt_from(fitted), tokens.corpus))
    quick, shorter = bits
    gain = shorter - quick
    return quick, gain / gain.mean()


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
