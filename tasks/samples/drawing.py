"""What a champion makes for the gallery: pictures or texts, and what its family shows besides.

This is the code that a gallery's cache keys hold, so it knows neither the registry nor the page.
"""

from collections.abc import Callable, Iterable
from typing import Any, Protocol

from tasks import plots

NUM_SAMPLES, COLUMNS = 60, 10
TEMPERATURES = (0.5, 0.8, 1.0)
TEXT_TOKENS = 400
CHOICES, TEMPERATURE_OF_CHOICES = "choices.json", 0.8
"""In the folder of a model's samples: how each token of one of its texts was chosen, and drawn."""


class Keep(Protocol):
    """Takes over a file for the gallery."""

    def __call__(self, file_name: str, content: bytes, caption: str = "") -> None:
        """Without a caption it is data, which the page reads by the file's name."""
        ...


Extra = Callable[[Any, int, Keep], None]


def writes_text(model: Any) -> bool:
    """Whether a SampleModel, of whatever version, writes text; else it draws images."""
    return hasattr(model, "tokenizer")


def draw(model: Any, seed: int, keep: Keep, extras: Iterable[Extra] = ()) -> None:
    """Let a SampleModel make its samples, and what its family shows besides.

    extras: each is called with (model, seed, keep).
    """
    if writes_text(model):
        for temperature in TEMPERATURES:
            (text,) = model.write_texts(1, seed, temperature, num_tokens=TEXT_TOKENS)
            content = (model.prompt + text + "\n").encode()
            keep(f"temperature-{temperature}.txt", content, f"temperature {temperature}")
    else:
        drawn = model.draw_images(NUM_SAMPLES, seed)
        keep("samples.png", plots.grid(drawn, COLUMNS), f"{NUM_SAMPLES} samples, seed {seed}")
    for extra in extras:
        extra(model, seed, keep)


def modules(extras: Iterable[str]) -> list[str]:
    """Dotted names of the code that draws."""
    return [__name__, *(extra.partition(":")[0] for extra in extras)]
