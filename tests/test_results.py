"""The README and docs/results.md show what the benchmarks wrote; every promised name is there."""

import json
from pathlib import Path

from benchmarks.measured import RESULTS
from benchmarks.table import HEADLINES, page, table

ROOT = Path(__file__).resolve().parent.parent
PROMISED = {
    *{"ngram_char_kneser_ney_nats", "ngram_char_tuned_nats", "ngram_train_time_ratio_kenlm"},
    *{"gpt_cpu_protocol_a_nats", "gpt_cpu_protocol_b_nats", "gpt_ngram_mix_nats"},
    *{"vae_mnist_nll_nats", "vae_active_units_fraction"},
    *{"gan_digits_fidelity", "gan_digits_coverage", "gan_digits_copies"},
    *{"gan_stacked_modes", "gan_stacked_kl"},
}
FIELDS = {
    *{"name", "value", "unit", "spread", "seeds", "seconds"},
    *{"reference", "reference_value", "command", "machine"},
}


def test_the_readme_shows_the_headlines_and_a_page_every_row() -> None:
    told = (ROOT / "docs" / "results.md").read_text()

    assert len(HEADLINES) == 6
    assert table(HEADLINES) in (ROOT / "README.md").read_text()
    assert page() in told
    for name in {row["name"] for row in json.loads(RESULTS.read_text())} | PROMISED:
        assert told.count(f"| `{name}` |") == 1, name


def test_every_promised_result_was_measured_by_a_benchmark_that_exists() -> None:
    rows = json.loads(RESULTS.read_text())

    assert {row["name"] for row in rows} >= PROMISED
    for row in rows:
        assert set(row) == FIELDS
        module = row["command"].removeprefix("python -m ").split()[0]
        assert (ROOT / f"{module.replace('.', '/')}.py").exists(), row["command"]
