"""The tables of results, made from benchmarks/results.json.

python -m benchmarks.table          the README's: what was promised
python -m benchmarks.table --all    every row: docs/results.md
"""

import sys
from typing import Any

from benchmarks.measured import RESULTS, rows_of

HEAD = "| result | measured | unit | seconds | reference | command |\n|---|---|---|---|---|---|"
HEADLINES = (
    "ngram_char_kneser_ney_nats",
    "ngram_char_tuned_nats",
    "ngram_train_time_ratio_kenlm",
    "ngram_train_peak_mb",
    "ngram_300mb_seconds",
    "ngram_300mb_peak_rss_mb",
    "ngram_sampling_tokens_per_second",
    "gpt_cpu_protocol_a_nats",
    "gpt_cpu_protocol_b_nats",
    "gpt_wall_time_ratio_nanogpt",
    "gpt_ngram_mix_nats",
    "vae_mnist_nll_nats",
    "vae_images_per_second_ratio_pythae",
    "vae_active_units_fraction",
    "vae_nan_seeds",
    "gan_digits_fidelity",
    "gan_digits_variance_ratio",
    "gan_digits_coverage",
    "gan_digits_copies",
    "gan_digits_seconds",
    "gan_digits_seeds_passed",
    "gan_stacked_modes",
    "gan_stacked_kl",
    "gan_sabotage_saved",
    "diffusion_digits_frechet",
    "diffusion_digits_time_ratio",
    "gpt_cuda_protocol_a_nats",
    "gpt_cuda_protocol_b_nats",
    "gpt_cuda_pair_protocol_a_nats",
    "gpt_cuda_pair_protocol_b_nats",
    "gpt_cuda_tokens_per_second",
    "vae_cuda_mnist_nll_nats",
    "gan_cuda_stacked_modes",
    "gan_cuda_stacked_kl",
    "gate_power_vae_improvement",
    "gate_power_vae_at_goal",
    "gate_power_vae_false_promotions",
    "gate_power_gan_improvement",
    "gate_power_gan_at_goal",
    "gate_power_gan_false_promotions",
    "gate_power_gpt_improvement",
    "gate_power_gpt_at_goal",
    "gate_power_gpt_false_promotions",
    "gate_power_ngram_improvement",
    "gate_power_ngram_at_goal",
    "gate_power_ngram_false_promotions",
    "threads_busy_slowdown_passive",
    "metric_logging_processor_share",
    "metric_logging_server_share",
    "search_trials_per_minute",
    "search_trials_ratio_optuna",
    "search_overhead_seconds",
    "search_pruning_time_ratio",
)
"""The rows of the README, in the order in which they are read."""


def table(names: tuple[str, ...] | None = None) -> str:
    """Rows as Markdown, in the order of the names; without names all of them by name."""
    rows = {str(row["name"]): row for row in rows_of(RESULTS)}
    return "\n".join([HEAD, *(_line(rows[name]) for name in names or sorted(rows))])


def _line(row: dict[str, Any]) -> str:
    spread = "" if row["spread"] is None else f" ± {_number(row['spread'], 2)}"
    seeds = f" ({len(row['seeds'])} seeds)" if len(row["seeds"]) > 1 else ""
    beside = row["reference"]
    if row["reference_value"] is not None:
        beside = f"{beside}: {_number(row['reference_value'], 5)}"
    value = f"{_number(row['value'], 5)}{spread}{seeds}"
    seconds = "" if row["seconds"] is None else _number(row["seconds"], 3)
    cells = (f"`{row['name']}`", value, row["unit"], seconds, beside, f"`{row['command']}`")
    return f"| {' | '.join(cells)} |"


def _number(value: float, digits: int) -> str:
    """Thousands with commas, and else so many significant digits."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


if __name__ == "__main__":
    print(table() if "--all" in sys.argv else table(HEADLINES))
