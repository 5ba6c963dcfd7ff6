"""Write with an exported text model. Needs PyTorch alone.

On the command line: `python load.py --prompt "The" --tokens 300 --seed 0`. In a program:

    from load import load
    text = load().write("The", num_tokens=300, seed=0)
"""

from pathlib import Path
from typing import Any

import torch

from tasks.packaging.exported.export_tensors import imported, read_tensors
from tasks.packaging.exported.export_tokens import Tokens
from tasks.packaging.exported.export_writing import told_by, write_from_command_line

MODULES = ("{family}.serving", "text.decoding")
"""Of the model's own, which it needs."""
SHARED = ("export_tensors", "export_tokens", "export_writing")


class TextModel:
    """An exported model that writes."""

    def __init__(self, folder: Path) -> None:
        facts, config, vocabulary, sampling = told_by(folder)
        self.tokens = Tokens(vocabulary)
        self.prompt: str = sampling["prompt"]
        package = facts["package"]
        serving, self._decoding = imported(
            folder, f"{package}.{facts['family']}.serving", f"{package}.text.decoding"
        )
        self.model: Any = serving.build(config, read_tensors(folder / "weights.safetensors"))

    def write(
        self,
        prompt: str = "",
        num_tokens: int = 300,
        seed: int = 0,
        temperature: float = 1.0,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> str:
        """A continuation of a prompt, without it; an empty one takes the model's own.

        The same seed gives the same text, on the same machine.
        """
        ids = torch.tensor(self.tokens.encode(prompt or self.prompt))
        config = self._decoding.DecodingConfig(temperature=temperature, top_k=top_k, top_p=top_p)
        (written,) = self._decoding.generate(
            self.model, ids, num_tokens=num_tokens, config=config, seed=seed
        ).tolist()
        return self.tokens.decode(written)


def load(folder: str | Path | None = None) -> TextModel:
    """The model of a folder, by default of the one in which this file lies."""
    return TextModel(Path(folder) if folder is not None else Path(__file__).resolve().parent)


if __name__ == "__main__":
    write_from_command_line(load)
