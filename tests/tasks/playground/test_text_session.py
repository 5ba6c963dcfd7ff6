"""What a text model answers to a page: the same tokens as elsewhere, and what spoke for them."""

import math
from pathlib import Path

import pytest
import torch

from tasks.playground.text_session import MAX_BITS, TextSession, WriteRequest
from tasks.store.files import BadInput
from tests.tasks.samples.untrained import GREEK, TEXT, untrained

FAMILIES_AND_TOKENIZERS = [(family, kind) for family in TEXT for kind in ("bpe", "characters")]


def session(family: str, folder: Path, kind: str = "bpe", **options: object) -> TextSession:
    model = untrained(family, folder, kind)
    return TextSession(model, explains=True, training=lambda: [GREEK], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(("family", "kind"), FAMILIES_AND_TOKENIZERS)
def test_tokens_are_those_that_a_version_writes(family: str, kind: str, tmp_path: Path) -> None:
    model = untrained(family, tmp_path, kind)
    request = WriteRequest(prompt="αβ", num_tokens=40, seed=5, temperature=0.9, top_k=30)

    begin, *tokens = TextSession(model).write(request)

    (wanted,) = model.write_texts(1, 5, 0.9, top_k=30, prompt="αβ", num_tokens=40)
    assert "".join(token["text"] for token in tokens) == wanted
    assert begin == {"prompt": "αβ", "length": len(model.tokenizer.encode("αβ"))}
    assert [token["place"] for token in tokens] == [*range(40)]
    assert model.tokenizer.decode([token["token"] for token in tokens]) == wanted


def test_surprise_is_of_the_model_as_it_is(tmp_path: Path) -> None:
    model = untrained("gpt", tmp_path)
    _, *tokens = TextSession(model).write(
        WriteRequest(prompt="λ", num_tokens=9, temperature=0.3, top_k=2)
    )
    past = [*model.tokenizer.encode("λ").tolist(), *(token["token"] for token in tokens)]
    scores = model.model.score(torch.tensor(past), len(past) - 9)
    bits = [token["bits"] for token in tokens]
    assert bits == pytest.approx([-score / math.log(2) for score in scores.tolist()], rel=1e-4)


def test_a_chosen_token_stands_and_the_seed_goes_on(tmp_path: Path) -> None:
    asked = session("gpt", tmp_path)
    request = WriteRequest(prompt="λ", num_tokens=12, seed=2, top_k=5)
    _, *free = asked.write(request)
    rivals = asked.rivals(request, [each["token"] for each in free[:4]], free[4]["token"])
    other = next(each for each in rivals["rivals"] if each["token"] != free[4]["token"])

    _, *led = asked.write(
        WriteRequest(prompt="λ", num_tokens=12, seed=2, top_k=5, forced={4: other["token"]})
    )

    assert led[:4] == free[:4]
    assert led[4]["token"] == other["token"] and led[4]["forced"]
    assert led[4]["bits"] == pytest.approx(-math.log2(other["before"]), rel=1e-4)
    assert [each["place"] for each in led if each["forced"]] == [4]
    # what is forced to be what the seed drew changes nothing, so the chance goes on as before
    _, *same = asked.write(
        WriteRequest(prompt="λ", num_tokens=12, seed=2, top_k=5, forced={4: free[4]["token"]})
    )
    assert [each["token"] for each in same] == [each["token"] for each in free]


def test_a_token_that_is_none_is_refused(tmp_path: Path) -> None:
    asked = session("gpt", tmp_path)
    with pytest.raises(BadInput, match="a token is a number from 0 to 299, got 300"):
        next(asked.write(WriteRequest(forced={0: 300})))


@pytest.mark.parametrize("family", TEXT)
def test_rivals_before_and_after_the_filters(family: str, tmp_path: Path) -> None:
    asked = session(family, tmp_path)
    request = WriteRequest(prompt="ἐν ἀρχῇ ", temperature=0.5, top_k=3)
    _, first, *_ = asked.write(WriteRequest(prompt="ἐν ἀρχῇ ", num_tokens=2))

    found = asked.rivals(request, [], first["token"])

    before = [each["before"] for each in found["rivals"][:10]]
    after = [each["after"] for each in found["rivals"][:10]]
    assert len(before) == 10 and before == sorted(before, reverse=True)
    assert found["num_left"] == 3 and after[3:] == [0.0] * 7
    assert sum(after) == pytest.approx(1)
    assert after[0] / after[1] == pytest.approx((before[0] / before[1]) ** 2, rel=1e-3)
    assert found["bits"] == pytest.approx(first["bits"], rel=1e-4)


@pytest.mark.parametrize("family", TEXT)
@pytest.mark.parametrize("prompt", ["λ", "ἐν ἀρχῇ ἦν ὁ λόγος, αβγδαβγδαβγδ"])
def test_rivals_are_those_of_the_context_that_the_writing_had(
    family: str, prompt: str, tmp_path: Path
) -> None:
    model = untrained(family, tmp_path)  # a GPT of 16 tokens, which forgets the older half
    if family == "gpt":
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():  # whose fresh blocks add nothing, so that no context would count
            for weight in model.model.blocks.parameters():
                weight.normal_(std=0.5, generator=generator)
    asked = TextSession(model)
    request = WriteRequest(prompt=prompt, num_tokens=40, seed=3)
    _, *tokens = asked.write(request)
    written = [each["token"] for each in tokens]

    found = [asked.rivals(request, written[:at], token) for at, token in enumerate(written)]

    assert [each["bits"] for each in found] == pytest.approx(
        [each["bits"] for each in tokens], rel=1e-4
    )
    assert [each["rank"] for each in found] == [each["rank"] for each in tokens]


def test_a_token_that_is_no_rival_is_told_beside_the_ten(tmp_path: Path) -> None:
    asked = session("gpt", tmp_path)
    unlikely = next(
        token for token in range(300) if asked.rivals(WriteRequest(), [], token)["rank"] > 200
    )
    found = asked.rivals(WriteRequest(), [], unlikely)
    assert len(found["rivals"]) == 11
    assert found["rivals"][10]["token"] == unlikely


def test_the_orders_of_a_model_of_counts_add_up(tmp_path: Path) -> None:
    asked = session("ngram", tmp_path)
    _, *tokens = asked.write(WriteRequest(prompt="Ἐν", num_tokens=6))
    written = [each["token"] for each in tokens]

    found = asked.rivals(WriteRequest(prompt="Ἐν"), written[:5], written[5])

    levels = found["levels"]
    assert [level["order"] for level in levels] == [2, 1, 0]
    probability = sum(level["part"] for level in levels)
    assert -math.log2(probability) == pytest.approx(found["bits"], rel=1e-6)
    assert levels[0]["context"] and levels[0]["context_length"] == 1
    assert levels[0]["left_to_it"] == 1
    assert levels[1]["left_to_it"] == pytest.approx(levels[0]["backoff"])


def test_a_model_that_explains_nothing_has_no_levels(tmp_path: Path) -> None:
    asked = session("gpt", tmp_path)
    assert asked.rivals(WriteRequest(), [], 0)["levels"] == []
    assert not asked.facts()["explains"]


def test_half_a_character_is_told_with_its_last_byte(tmp_path: Path) -> None:
    model = untrained("gpt", tmp_path)
    one_byte_tokens = model.tokenizer.encode("🦉").tolist()
    tokens = list(
        TextSession(model).write(
            WriteRequest(num_tokens=6, forced=dict(enumerate(one_byte_tokens)))
        )
    )[1:]
    assert len(one_byte_tokens) <= 6
    told = [token["text"] for token in tokens[: len(one_byte_tokens)]]
    assert "".join(told) == "🦉" and told[-1] == "🦉"


def test_a_rival_that_is_a_part_of_a_character_has_no_text(tmp_path: Path) -> None:
    model = untrained("gpt", tmp_path)
    asked = TextSession(model)
    (first, *_) = model.tokenizer.encode("🤖").tolist()
    assert model.tokenizer.token_bytes(first) == b"\xf0\x9f"
    letter = next(each for each in range(300) if model.tokenizer.token_bytes(each) == b"a")
    for token, text in ((first, ""), (letter, "a")):
        rivals = asked.rivals(WriteRequest(), [], token)["rivals"]
        assert next(each["text"] for each in rivals if each["token"] == token) == text


def test_an_impossible_token_has_a_number_of_bits(tmp_path: Path) -> None:
    model = untrained("gpt", tmp_path)
    with torch.no_grad():
        model.model.head[7] = -1e9
    _, first = TextSession(model).write(WriteRequest(num_tokens=1, forced={0: 7}))
    assert 0 <= first["bits"] <= MAX_BITS


def test_copies_are_looked_for_in_the_training_text(tmp_path: Path) -> None:
    asked = session("ngram", tmp_path)
    copied = " λόγος ἦν πρὸς τὸν θεόν"
    assert asked.copies(f"so:{copied}")["spans"] == [(3, len(copied))]
    alone = TextSession(untrained("ngram", tmp_path / "alone"))
    assert not alone.facts()["has_training"]
    with pytest.raises(BadInput, match="not stored here any more"):
        alone.copies("text")
