"""Text to token ids and back, as `vocabulary.json` says, with the standard library alone."""

import unicodedata
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any

_BLANKS = frozenset("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(point) for point in range(0x2000, 0x200B)
}
_SHORT_FORMS = ("'s", "'t", "'re", "'ve", "'m", "'ll", "'d")


class Tokens:
    """The tokenizer of an exported model: by characters, or by byte-level byte-pair encoding."""

    def __init__(self, record: dict[str, Any]) -> None:
        """record: `kind`, and `code_points` or `merges`, as `vocabulary.json` has them."""
        single = [bytes([value]) for value in range(256)]
        self._characters: dict[str, int] | None = None
        self._ranks: dict[tuple[int, int], tuple[int, int]] = {}
        if record["kind"] == "characters":
            alphabet = [chr(point) for point in record["code_points"]]
            self._characters = {character: index for index, character in enumerate(alphabet)}
            self.spelled = [_utf8(character) for character in alphabet] + single
            return
        self.spelled = single
        ids = {token: index for index, token in enumerate(single)}
        for rank, (left, right) in enumerate(record["merges"]):
            token = self.spelled[left] + self.spelled[right]
            if token not in ids:
                ids[token] = len(self.spelled)
                self.spelled.append(token)
            self._ranks.setdefault((left, right), (rank, ids[token]))

    def encode(self, text: str) -> list[int]:
        """The ids of a text."""
        if self._characters is not None:
            return [token for character in text for token in self._of_character(character)]
        return [token for word in words(text) for token in self._merged(list(_utf8(word)))]

    def decode(self, ids: Iterable[int]) -> str:
        """The text of any ids; bytes that are not UTF-8 show as U+FFFD."""
        content = b"".join(self.spelled[token] for token in ids)
        try:
            text = content.decode("utf-8", "surrogatepass")
        except UnicodeDecodeError:
            text = content.decode("utf-8", "replace")
        return text.encode("utf-8", "replace").decode("utf-8")

    def _of_character(self, character: str) -> list[int]:
        known = self._characters or {}
        if character in known:
            return [known[character]]
        return [len(known) + byte for byte in _utf8(character)]

    def _merged(self, ids: list[int]) -> list[int]:
        """The earliest learned of all pairs is merged first, and of its places the leftmost."""
        while len(ids) > 1:
            found = [(self._ranks[p], at) for at, p in enumerate(pairwise(ids)) if p in self._ranks]
            if not found:
                break
            (_, token), at = min(found)
            ids[at : at + 2] = [token]
        return ids


def words(text: str) -> Iterator[str]:
    """GPT-2's words: letters, digits or other signs, each with a blank before them; and blanks."""
    at = 0
    while at < len(text):
        end = _end_of_word(text, at)
        yield text[at:end]
        at = end


def _end_of_word(text: str, at: int) -> int:
    for form in _SHORT_FORMS:
        if text.startswith(form, at):
            return at + len(form)
    first = at + 1 if text[at] == " " and at + 1 < len(text) else at
    kind = _kind(text[first])
    if kind != "blank":
        return _end_of_run(text, first, kind)
    end = _end_of_run(text, at, "blank")
    # the last blank of several goes with the word that follows
    return end - 1 if end < len(text) and end - at > 1 else end


def _end_of_run(text: str, at: int, kind: str) -> int:
    while at < len(text) and _kind(text[at]) == kind:
        at += 1
    return at


def _kind(character: str) -> str:
    if character in _BLANKS:
        return "blank"
    category = unicodedata.category(character)
    if category == "Cs":
        return "surrogate"
    return {"L": "letter", "N": "digit"}.get(category[0], "other")


def _utf8(text: str) -> bytes:
    return text.encode("utf-8", "surrogatepass")
