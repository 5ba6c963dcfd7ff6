"""A text as it is written: token by token, and never half a character."""

import codecs
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from models.text.decoding import DecodingConfig, generated
from models.text.tokenizer import readable


@dataclass(frozen=True, kw_only=True, slots=True)
class TextRequest:
    """What a text model is asked for; the filters are those of `DecodingConfig`."""

    prompt: str = ""
    """What the text begins with; an empty one takes the version's own, which is not written."""
    num_tokens: int = 300
    """At most; a stop may come before."""
    stop: str = ""
    """The text ends before this, wherever it comes after the prompt; empty never stops."""
    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0


def written(model: Any, request: TextRequest) -> Iterator[str]:
    """The prompt, and then its continuation in pieces of whole characters.

    model: a SampleModel of text, of whatever version. The continuation is the one that its
    `write_texts` writes with the same seed, up to the stop.
    """
    ids = model.tokenizer.encode(request.prompt or model.prompt).astype(np.int64)
    tokens = generated(
        model.model,
        torch.from_numpy(ids),
        num_tokens=request.num_tokens,
        config=DecodingConfig(
            temperature=request.temperature, top_k=request.top_k, top_p=request.top_p
        ),
        seed=request.seed,
    )
    if request.prompt:
        yield readable(request.prompt)
    spelled = (model.tokenizer.token_bytes(int(token)) for token in tokens)
    yield from until(characters(spelled), request.stop)


def characters(pieces: Iterable[bytes]) -> Iterator[str]:
    """Bytes of UTF-8 as text, each character once its last byte is there.

    What is no UTF-8 shows as U+FFFD, half a character at the end too; nothing empty is given.
    """
    decoder = codecs.getincrementaldecoder("utf-8")("replace")
    for piece in pieces:
        if text := decoder.decode(piece):
            yield text
    if rest := decoder.decode(b"", final=True):
        yield rest


def until(pieces: Iterable[str], stop: str) -> Iterator[str]:
    """Pieces of a text up to where `stop` begins, wherever the pieces are cut; all if it is empty.

    What may turn out to be the beginning of the stop is held back as long as that is not known.
    """
    held = ""
    for piece in pieces:
        held += piece
        if stop and (place := held.find(stop)) >= 0:
            held = held[:place]
            break
        kept = _begun(held, stop)
        if shown := held[: len(held) - kept]:
            yield shown
        held = held[len(held) - kept :]
    if held:
        yield held


def _begun(text: str, stop: str) -> int:
    """How many characters at the end of a text begin the stop."""
    longest = min(len(stop) - 1, len(text))
    return next((n for n in range(longest, 0, -1) if stop.startswith(text[-n:])), 0)
