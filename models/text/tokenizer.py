"""Tokenizers: text to token ids and back, by characters or by byte-level byte-pair encoding.

Both are lossless for every Python string: `decode(encode(text)) == text`, also for characters that
the training text lacked and for lone surrogates, because both can fall back to single bytes of
UTF-8. A tokenizer is rebuilt from its `to_dict()`, which holds nothing but JSON.

Reference for byte-level BPE: Radford et al. 2019, "Language models are unsupervised multitask
learners", section 2.2. Training and encoding are done by the `tokenizers` library.
"""

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Protocol

import numpy as np
import tokenizers
from numpy.typing import NDArray

TokenIds = NDArray[np.uint32]
BYTES = [bytes([value]) for value in range(256)]


class Tokenizer(Protocol):
    """What every tokenizer can do."""

    @property
    def vocabulary_size(self) -> int:
        """Ids run from 0 to vocabulary_size - 1."""
        ...

    def encode(self, text: str) -> TokenIds:
        """The ids of a text: (N,) uint32."""
        ...

    def decode(self, ids: Iterable[int]) -> str:
        """The text of any ids; bytes that are not UTF-8 show as U+FFFD."""
        ...

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that one id stands for."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """All that `tokenizer_from_dict` needs, as JSON."""
        ...


class CharacterTokenizer:
    """One id per character of the training text, then 256 ids for the bytes of all others.

    Ids below `num_characters` are the characters in code point order; id `num_characters + b`
    stands for the byte b.
    """

    def __init__(self, code_points: Iterable[int]) -> None:
        alphabet = np.unique(np.fromiter(code_points, np.uint32))
        self.num_characters = len(alphabet)
        self._alphabet = alphabet
        self._bytes = [_utf8_of(chr(point)) for point in alphabet] + BYTES
        # One id per code point, up to the largest known one; 0 in front means "not known".
        self._id_plus_one = np.zeros(int(alphabet.max(initial=0)) + 1, np.uint32)
        self._id_plus_one[alphabet] = np.arange(1, len(alphabet) + 1)

    @classmethod
    def fit(cls, text: str) -> "CharacterTokenizer":
        """The tokenizer whose alphabet is the characters of `text`."""
        return cls(ord(character) for character in set(text))

    @property
    def vocabulary_size(self) -> int:
        """The alphabet and the 256 bytes."""
        return self.num_characters + 256

    def encode(self, text: str) -> TokenIds:
        """The ids of a text: (N,) uint32, one per known character, one per byte of any other."""
        points = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4")
        in_range = np.minimum(points, len(self._id_plus_one) - 1)
        found = np.where(points == in_range, self._id_plus_one[in_range], 0).astype(np.uint32)
        known = found > 0
        if known.all():
            return found - np.uint32(1)
        others = points[~known]
        num_bytes = 1 + (others >= 0x80) + (others >= 0x800) + (others >= 0x10000)
        num_ids = np.ones(len(points), np.int64)
        num_ids[~known] = num_bytes
        is_character = np.repeat(known, num_ids)
        utf8 = _utf8_of(others.tobytes().decode("utf-32-le", "surrogatepass"))
        ids = np.empty(len(is_character), np.uint32)
        ids[is_character] = found[known] - np.uint32(1)
        ids[~is_character] = np.frombuffer(utf8, np.uint8) + np.uint32(self.num_characters)
        return ids

    def decode(self, ids: Iterable[int]) -> str:
        """The text of any ids; bytes that are not UTF-8 show as U+FFFD."""
        return _decoded(self._bytes, ids)

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that one id stands for."""
        return self._bytes[token]

    def to_dict(self) -> dict[str, Any]:
        """The alphabet as code points: as characters, two surrogates would merge into one."""
        return {"kind": "characters", "code_points": self._alphabet.tolist()}

    def to_hugging_face(self) -> str | None:
        """The same as the `tokenizers` library writes it; None where it holds half of a pair.

        A scheme of its own: pairs that are never merged, and a byte for what is not known.
        """
        alphabet = [chr(point) for point in self._alphabet]
        if any(_SURROGATES.match(character) for character in alphabet):
            return None
        vocabulary = [*alphabet, *(f"<0x{byte:02X}>" for byte in range(256))]
        ids = {word: index for index, word in enumerate(vocabulary)}
        library = tokenizers.Tokenizer(
            tokenizers.models.BPE(vocab=ids, merges=[], byte_fallback=True)
        )
        library.decoder = tokenizers.decoders.Sequence(
            [tokenizers.decoders.ByteFallback(), tokenizers.decoders.Fuse()]
        )
        return str(library.to_str(pretty=True))


class BpeTokenizer:
    """Byte-level byte-pair encoding: ids 0 to 255 are the bytes, each merge adds one id.

    merges: pairs of ids in the order they were learned, each of which becomes one new token.
    """

    def __init__(self, merges: Iterable[tuple[int, int]]) -> None:
        self._merges = [(int(left), int(right)) for left, right in merges]
        self._bytes = list(BYTES)
        known = {token: index for index, token in enumerate(self._bytes)}
        for left, right in self._merges:
            token = self._bytes[left] + self._bytes[right]
            if token not in known:  # two different pairs can spell the same token
                known[token] = len(self._bytes)
                self._bytes.append(token)
        letters = _byte_letters()
        spelled = ["".join(letters[byte] for byte in token) for token in self._bytes]
        self._library = tokenizers.Tokenizer(
            tokenizers.models.BPE(
                vocab={word: index for index, word in enumerate(spelled)},
                merges=[(spelled[left], spelled[right]) for left, right in self._merges],
            )
        )
        self._library.pre_tokenizer = _pre_tokenizer()

    @classmethod
    def fit(cls, text: str | Iterable[str], vocabulary_size: int) -> "BpeTokenizer":
        """Learn merges from `text`, whole or in parts, until there are `vocabulary_size` ids.

        A short text may hold fewer pairs that occur twice; the vocabulary is then smaller.
        """
        if vocabulary_size < 256:
            raise ValueError(
                f"vocabulary_size must be at least 256, one id per byte, got {vocabulary_size}"
            )
        letters = _byte_letters()
        learner = tokenizers.Tokenizer(tokenizers.models.BPE())
        learner.pre_tokenizer = _pre_tokenizer()
        trainer = tokenizers.trainers.BpeTrainer(
            vocab_size=vocabulary_size,
            min_frequency=2,
            initial_alphabet=sorted(letters),
            show_progress=False,
        )
        parts = [text] if isinstance(text, str) else text
        known = (_SURROGATES.sub("", part) for part in parts)
        learner.train_from_iterator(_without_long_words(known), trainer)
        learned = json.loads(learner.to_str())["model"]["merges"]
        ids = {letter: index for index, letter in enumerate(letters)}
        merges = []
        for left, right in learned:
            merges.append((ids[left], ids[right]))
            ids.setdefault(left + right, len(ids))
        return cls(merges)

    @property
    def vocabulary_size(self) -> int:
        """The 256 bytes and the merged tokens."""
        return len(self._bytes)

    def encode(self, text: str) -> TokenIds:
        """The ids of a text: (N,) uint32."""
        parts = [np.empty(0, np.uint32)]
        for part in _SURROGATES.split(text):
            if _SURROGATES.match(part):  # the library takes valid UTF-8 only
                parts.append(np.frombuffer(_utf8_of(part), np.uint8).astype(np.uint32))
                continue
            for piece in pieces([part]):
                (encoding,) = self._library.encode_batch_fast([piece])  # needs no offsets
                parts.append(np.array(encoding.ids, np.uint32))
        return np.concatenate(parts)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of any ids; bytes that are not UTF-8 show as U+FFFD."""
        return _decoded(self._bytes, ids)

    def token_bytes(self, token: int) -> bytes:
        """The UTF-8 bytes that one id stands for."""
        return self._bytes[token]

    def to_dict(self) -> dict[str, Any]:
        """The merges, in the order they were learned."""
        return {"kind": "bpe", "merges": [list(pair) for pair in self._merges]}

    def to_hugging_face(self) -> str:
        """The same as the `tokenizers` library writes it."""
        library = tokenizers.Tokenizer.from_str(self._library.to_str())
        library.decoder = tokenizers.decoders.ByteLevel()
        return str(library.to_str(pretty=True))


def tokenizer_from_dict(record: dict[str, Any]) -> CharacterTokenizer | BpeTokenizer:
    """The tokenizer that a `to_dict()` describes."""
    if record.get("kind") == "characters":
        return CharacterTokenizer(record["code_points"])
    if record.get("kind") == "bpe":
        return BpeTokenizer(record["merges"])
    raise ValueError(
        f"the tokenizer's kind must be 'characters' or 'bpe', got {record.get('kind')!r}"
    )


_SURROGATES = re.compile(r"([\ud800-\udfff]+)")
_PIECE_LENGTH, _LONG_LINE = 1 << 16, 1 << 20
_LONG_WORD = re.compile(r"\S{4096}|\s{4096}")


def readable(text: str) -> str:
    """Text that can be written as UTF-8: lone surrogates, which a model may sample, become "?"."""
    return text.encode("utf-8", "replace").decode("utf-8")


def pieces(parts: Iterable[str]) -> Iterator[str]:
    """Cut a long text before newlines, and a long line before blanks, after a visible character.

    No token can span such a place, so the pieces have the tokens of the whole, while the library,
    which keeps much besides the ids, holds one piece at a time. parts: the text, cut anywhere.
    """
    more, text, start = iter(parts), "", 0
    wanted, is_all = _LONG_LINE, False
    while True:
        read = [text[start:]]
        length = len(read[0])
        while not is_all and length < wanted:
            if (part := next(more, None)) is None:
                is_all = True
            else:
                read.append(part)
                length += len(part)
        text, start, wanted = "".join(read), 0, _LONG_LINE
        while is_all or len(text) - start >= wanted:
            if start == len(text):
                return
            first, last = start + _PIECE_LENGTH, start + _LONG_LINE
            end = _cut(text, "\n", first, last) or _cut(text, " ", first, last)
            end = end or _cut(text, "\n", first, len(text))
            if end is None and not is_all:  # the line goes on
                wanted = 2 * (len(text) - start)
                break
            end = end or len(text)
            yield text[start:end]
            start, wanted = end, _LONG_LINE


def _without_long_words(parts: Iterable[str]) -> Iterator[str]:
    """The pieces to learn from, cut within what has no blank, or nothing else, for 4096 characters.

    Learning takes time with the square of a word's length: minutes for the digits of a number or
    for a genome in one line. Any other text is learned from as a whole.
    """
    for piece in pieces(parts):
        start = 0
        for found in _LONG_WORD.finditer(piece):
            yield piece[start : found.end()]
            start = found.end()
        if start < len(piece):
            yield piece[start:]


def _cut(text: str, mark: str, first: int, last: int) -> int | None:
    """Where a mark that follows a visible character stands, from `first` on and before `last`."""
    place = text.find(mark, first, last)
    while place > 0 and text[place - 1].isspace():
        place = text.find(mark, place + 1, last)
    return place if place > 0 else None


def _pre_tokenizer() -> tokenizers.pre_tokenizers.ByteLevel:
    """GPT-2's: bytes written as letters, words with their leading space apart."""
    return tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True)


def _byte_letters() -> list[str]:
    """The letter that stands for each byte in the library: visible ones for themselves."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in set(visible)]
    letters = {byte: chr(byte) for byte in visible}
    letters |= {byte: chr(256 + rank) for rank, byte in enumerate(hidden)}
    return [letters[byte] for byte in range(256)]


def _utf8_of(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")


def _decoded(table: list[bytes], ids: Iterable[int]) -> str:
    tokens = np.asarray(ids if isinstance(ids, np.ndarray) else list(ids), np.int64)
    if len(tokens) and not 0 <= tokens.min() <= tokens.max() < len(table):
        raise ValueError(
            f"token ids must lie between 0 and {len(table) - 1},"
            f" got {tokens.min()} to {tokens.max()}"
        )
    utf8 = b"".join([table[token] for token in tokens.tolist()])
    try:
        return utf8.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:  # freely sampled bytes need not be UTF-8
        return utf8.decode("utf-8", "replace")
