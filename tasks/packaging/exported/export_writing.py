"""What exported models that write have in common: what their folder tells, and a command line."""

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol


class Writes(Protocol):
    """An exported model that writes."""

    def write(
        self,
        prompt: str = "",
        num_tokens: int = 300,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> str:
        """A continuation of a prompt, without it."""
        ...


def told_by(folder: Path) -> tuple[Any, Any, Any, Any]:
    """What the folder tells: the export itself, configuration, vocabulary, and how to sample."""
    export, config, vocabulary, sampling = (
        json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        for name in ("export", "config", "vocabulary", "sampling")
    )
    return export, config, vocabulary, sampling


def write_from_command_line(load: Callable[[], Writes]) -> None:
    """Write to standard output what the program's arguments ask for."""
    parser = argparse.ArgumentParser(description="Write with this model.")
    parser.add_argument("--prompt", default="")
    parser.add_argument("--tokens", type=int, default=300)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--top-k", type=int, default=0)
    parser.add_argument("--top-p", type=float, default=1.0)
    given = parser.parse_args()
    text = load().write(
        given.prompt, given.tokens, given.seed, given.temperature, given.top_k, given.top_p
    )
    sys.stdout.write(f"{given.prompt}{text}\n")
