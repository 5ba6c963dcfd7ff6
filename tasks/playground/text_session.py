"""What a page asks of a text model: tokens as they are written, their rivals, why, and copies.

Used in the process that holds the version (`tasks/playground/version_worker.py`). Everything that
is answered is JSON. Token ids, not characters, say where a text branches: `forced` gives the token
at some places, and all others are the ones that the seed draws there, as `atelier generate` does.
"""

import codecs
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from models.text.decoding import DecodingConfig, filtered_log_probs, generated
from models.text.tokenizer import readable
from tasks.playground.copies import MIN_CHARACTERS, copied_spans
from tasks.store.files import BadInput

NUM_RIVALS = 10
MAX_BITS = 99.0
"""Told of a token that the model holds impossible, as one that a person chose may be."""
Answer = dict[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class WriteRequest:
    """What is to be written; the filters are those of `DecodingConfig`."""

    prompt: str = ""
    """What the text begins with; an empty one takes the version's own."""
    num_tokens: int = 300
    seed: int = 0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    forced: Mapping[int, int] = field(default_factory=dict)
    """Tokens that a person chose, by their place in what is written, from 0."""

    @property
    def decoding(self) -> DecodingConfig:
        """The filters."""
        return DecodingConfig(
            temperature=self.temperature, top_k=self.top_k, top_p=self.top_p, min_p=self.min_p
        )


class TextSession:
    """A text model of a version, and the text that it learned from where that is stored."""

    def __init__(
        self,
        model: Any,
        *,
        explains: bool = False,
        training: Callable[[], Iterable[str]] | None = None,
    ) -> None:
        """model: a SampleModel of text. explains: whether its model has `explain`.

        training: the training text in pieces, each time it is called; None where it is not stored.
        """
        self._model = model
        self._explains = explains and hasattr(model.model, "explain")
        self._training = training

    def facts(self) -> Answer:
        """What a page needs to know before it asks anything."""
        return {
            "data": "text",
            "prompt": readable(self._model.prompt),
            "vocabulary_size": self._model.tokenizer.vocabulary_size,
            "context_length": self._model.model.context_length,
            "explains": self._explains,
            "has_training": self._training is not None,
        }

    def write(self, request: WriteRequest) -> Iterator[Answer]:
        """The prompt, then each token as it is written.

        Each token's text is whole characters: of one that ends within a character it is empty, and
        the token that ends that character has it. "bits" is its surprise under the model as it is,
        before temperature and filters; "rank" counts from 1.
        """
        size = self._model.tokenizer.vocabulary_size
        if wrong := [token for token in request.forced.values() if not 0 <= token < size]:
            raise BadInput(f"a token is a number from 0 to {size - 1}, got {wrong[0]}")
        prompt = self._prompt_ids(request.prompt)
        yield {"prompt": readable(request.prompt or self._model.prompt), "length": len(prompt)}
        steered = _Steered(self._model.model, request.forced)
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        tokens = generated(
            steered,
            torch.from_numpy(prompt),
            num_tokens=request.num_tokens,
            config=request.decoding,
            seed=request.seed,
        )
        for place, drawn in enumerate(tokens):
            token = int(drawn)
            text = decoder.decode(self._model.tokenizer.token_bytes(token))
            is_last = place == request.num_tokens - 1
            log_probs = steered.told
            assert log_probs is not None, "a token comes after its distribution"
            yield {
                "place": place,
                "token": token,
                "text": text + (decoder.decode(b"", final=True) if is_last else ""),
                "bits": _bits(log_probs[token]),
                "rank": int((log_probs > log_probs[token]).sum()) + 1,
                "forced": place in request.forced,
            }

    def rivals(self, request: WriteRequest, written: list[int], token: int) -> Answer:
        """What else might have come after the prompt and some tokens, and what spoke for `token`.

        "before" and "after" are the probabilities before and after temperature and filters.
        """
        prompt = self._prompt_ids(request.prompt).tolist()
        past = [*prompt, *written]
        log_probs, allowed = self._distributions(prompt, written, request.decoding)
        chosen = log_probs.argsort(descending=True, stable=True)[:NUM_RIVALS].tolist()
        rank = int((log_probs > log_probs[token]).sum()) + 1
        if token not in chosen:
            chosen.append(token)
        return {
            "rivals": [
                {
                    "token": each,
                    "text": self._spelled_alone(each),
                    "before": float(log_probs[each].exp()),
                    "after": float(allowed[each].exp()),
                }
                for each in chosen
            ],
            "rank": rank,
            "bits": _bits(log_probs[token]),
            "num_left": int((allowed > -math.inf).sum()),
            "levels": self._levels(past, token) if self._explains else [],
        }

    def copies(self, text: str) -> Answer:
        """The spans of a text that stand in the training text, and from which length they count."""
        if self._training is None:
            raise BadInput("the training text of this version is not stored here any more")
        return {"spans": copied_spans(text, self._training()), "min_characters": MIN_CHARACTERS}

    def _prompt_ids(self, prompt: str) -> np.ndarray:
        ids: np.ndarray = self._model.tokenizer.encode(prompt or self._model.prompt)
        return ids.astype(np.int64)

    @torch.inference_mode()
    def _distributions(
        self, prompt: list[int], written: list[int], config: DecodingConfig
    ) -> tuple[Tensor, Tensor]:
        """Of the token after all others, as the model says and as it is drawn: (V,), (V,).

        A stream that has no more room forgets the older half. So that it forgets where the writing
        did, it gets the prompt, then what fits, and then the token that no longer does.
        """
        stream = self._model.model.stream(1)
        log_probs = stream.feed(torch.tensor([prompt]))
        fed = 0
        while fed < len(written):
            room = len(written)
            if hasattr(stream, "visible"):  # models of counts look at the last few tokens only
                room = max(1, self._model.model.context_length - stream.visible.shape[1])
            log_probs = stream.feed(torch.tensor([written[fed : fed + room]]))
            fed += room
        return log_probs[0], filtered_log_probs(log_probs, config)[0]

    def _levels(self, past: list[int], token: int) -> list[Answer]:
        """What each order of a model of counts added to a token's probability, the highest first.

        The last is order 0: the rest, which all tokens share evenly.
        """
        levels = self._model.model.explain(past, token)
        found = [
            {
                "order": level.order,
                "context": self._spelled(*level.context),
                "context_length": len(level.context),
                "occurrences": level.occurrences,
                "left_to_it": level.weight,
                "part": level.weight * level.share,
                "backoff": level.backoff,
            }
            for level in reversed(levels)
        ]
        rest = max(0.0, levels[-1].probability - sum(level["part"] for level in found))
        lowest = levels[0].weight * levels[0].backoff
        uniform = {"order": 0, "context": "", "context_length": 0, "occurrences": 0}
        return [*found, {**uniform, "left_to_it": lowest, "part": rest, "backoff": 0.0}]

    def _spelled_alone(self, token: int) -> str:
        """A token's text; empty where its bytes are no more than a part of a character."""
        text = self._spelled(token)
        is_whole = text.encode() == self._model.tokenizer.token_bytes(token)
        return text if is_whole else text.strip("\N{REPLACEMENT CHARACTER}")

    def _spelled(self, *tokens: int) -> str:
        return readable(self._model.tokenizer.decode(list(tokens)))


class _Steered:
    """A token model whose last distribution can be looked at, and some of whose tokens are given.

    So the loop that draws is the one of `models.text.decoding`, with its numbers.
    """

    def __init__(self, model: Any, forced: Mapping[int, int]) -> None:
        self.vocabulary_size: int = model.vocabulary_size
        self.context_length: int = model.context_length
        self.told: Tensor | None = None
        """The natural log-probabilities of the token that was drawn last, of all tokens: (V,)."""
        self._model, self._forced = model, forced

    def score(self, tokens: Tensor, start: int = 0) -> Tensor:
        """As the model's own."""
        found: Tensor = self._model.score(tokens, start)
        return found

    def stream(self, num_sequences: int) -> "_SteeredStream":
        """A stream of one text."""
        return _SteeredStream(self, self._model.stream(num_sequences), self._forced)


class _SteeredStream:
    def __init__(self, told_to: _Steered, stream: Any, forced: Mapping[int, int]) -> None:
        self._told_to, self._stream, self._forced, self._place = told_to, stream, forced, 0

    def feed(self, tokens: Tensor) -> Tensor:
        """The model's log-probabilities (1, V), or all on the token that is given here."""
        log_probs: Tensor = self._stream.feed(tokens)
        self._told_to.told = log_probs[0]
        token = self._forced.get(self._place)
        self._place += 1
        if token is None:
            return log_probs
        only = torch.full_like(log_probs, -math.inf)
        only[0, token] = 0.0
        return only


def _bits(log_prob: Tensor) -> float:
    return min(MAX_BITS, max(0.0, -float(log_prob) / math.log(2)))
