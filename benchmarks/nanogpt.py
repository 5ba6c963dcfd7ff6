"""nanoGPT's CPU preset, trained beside ours: the reference of the GPT's benchmark.

$NANOGPT_SOURCE names a checkout of github.com/karpathy/nanoGPT, which is copied and left as it is.
The preset is the README's: 2000 iterations of 12 windows of 64 characters, 4 layers of width 128.
nanoGPT keeps the weights of its best evaluation on the last 10 % of the text; ours get no such
choice.
"""

import importlib.util
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.shakespeare import text

PRESET = (
    *("--device=cpu", "--compile=False", "--eval_iters=20", "--log_interval=10"),
    *("--block_size=64", "--batch_size=12", "--n_layer=4", "--n_head=4", "--n_embd=128"),
    *("--max_iters=2000", "--lr_decay_iters=2000", "--dropout=0.0"),
)
TOKENS_PER_ITERATION = 12 * 64


@dataclass(frozen=True, kw_only=True, slots=True)
class NanoGpt:
    """What a run of nanoGPT left."""

    model: nn.Module
    context_length: int
    seconds: float
    """Wall time of the whole process."""
    seconds_per_iteration: float
    """The median of those that it prints; evaluations not counted."""

    def logits(self, inputs: Tensor) -> Tensor:
        """Logits at all positions: (B, T) to (B, T, V)."""
        inputs = inputs.contiguous()
        found: Tensor = self.model(inputs, inputs)[0]  # without targets it gives the last alone
        return found


def run_nanogpt(source: Path) -> NanoGpt:
    """Train the preset in a process of its own."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "nanogpt"
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns(".git", "out*"))
        (folder / "data" / "shakespeare_char" / "input.txt").write_text(text(), encoding="utf-8")
        subprocess.run([sys.executable, "data/shakespeare_char/prepare.py"], cwd=folder, check=True)
        started_at = time.monotonic()
        done = subprocess.run(
            [sys.executable, "train.py", "config/train_shakespeare_char.py", *PRESET],
            cwd=folder,
            check=True,
            capture_output=True,
            text=True,
        )
        seconds = time.monotonic() - started_at
        print("  " + "\n  ".join(re.findall(r"step \d+: .*", done.stdout)), flush=True)
        model, context_length = _loaded(folder)
    times = [float(found) / 1000 for found in re.findall(r"iter \d+: .* time (.*?)ms", done.stdout)]
    return NanoGpt(
        model=model,
        context_length=context_length,
        seconds=seconds,
        seconds_per_iteration=statistics.median(times),
    )


def _loaded(folder: Path) -> tuple[nn.Module, int]:
    """The kept model, by its own code, and its context length."""
    spec = importlib.util.spec_from_file_location("nanogpt_model", folder / "model.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    kept = torch.load(folder / "out-shakespeare-char" / "ckpt.pt", weights_only=True)
    model: nn.Module = module.GPT(module.GPTConfig(**kept["model_args"]))
    model.load_state_dict(kept["model"])
    return model.eval(), kept["model_args"]["block_size"]
