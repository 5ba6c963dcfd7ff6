"""Text from data, models and people cannot become markup, wherever it is shown."""

import logging
import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from markdown_it.token import Token

from tasks.evaluation.scorecard import PromotionDecision, Scorecard, _table_description
from tasks.registry.model_card import MAX_REASON_CHARACTERS, card, family_page
from tasks.runtime import progress
from tasks.runtime.markup import (
    WORD_JOINER,
    PlainFormatter,
    code,
    fenced,
    markdown,
    plain,
    plain_lines,
    registry_markdown,
)
from tasks.runtime.play_address import play_url
from tasks.samples import html_page
from tasks.samples.html_page import Challenger, ChampionSamples
from tasks.samples.lineage import Node, table
from tasks.samples.sampling import _markdown
from tasks.training.fit_store import TrainedModel
from tasks.training.provenance import TrainingProvenance

EVIL = "http://evil.example/x.png"
HOSTILE = [
    f"````\n\n![]({EVIL})\n<img src={EVIL}>\n\n````",
    f"`````` \n# gone\n![x]({EVIL})",
    f"~~~\n~~~~~~~~\n<img src='{EVIL}'>",
    f"\r````\r![x]({EVIL})\r",
    f"[click]({EVIL}) <{EVIL}> <script>alert(1)</script>",
    f"| a | ![x]({EVIL}) |\n|---|---|\n",
    f"**bold** _it_ `code` ~~gone~~ ![x][1]\n\n[1]: {EVIL}",
    f"<!-- \n<div><iframe src={EVIL}></iframe>",
    f"&lt;img src={EVIL}&gt; &#60;img src={EVIL}&#62;",
    f'" onerror="x" <svg onload=x> <a href="{EVIL}">',
    f"$$\\href{{{EVIL}}}{{x}}$$",
    "\x1b[31mred\x1b]8;;http://evil.example\x07link\x1b]8;;\x07 \u202egnp.evil\u202c\x00\x07",
    "- a\n- b\n\n1. c\n> d\n# e\n---\n    f",
]


def parsed(page: str) -> list[Token]:
    """All nodes of a page, those inside of lines too, in the dialect with tables."""
    tokens = MarkdownIt("commonmark").enable("table").parse(page)
    return [each for token in tokens for each in (token, *(token.children or ()))]


def foreign(page: str) -> list[str]:
    """What a browser would fetch or run that is none of ours."""
    nodes = parsed(page)
    raw = [node.content for node in nodes if node.type in ("html_block", "html_inline")]
    images = [str(node.attrs["src"]) for node in nodes if node.type == "image"]
    links = [str(node.attrs["href"]) for node in nodes if node.type == "link_open"]
    return raw + [address for address in images + links if "evil" in address]


def text_of(page: str) -> str:
    kinds = ("text", "text_special")
    text = "".join(node.content for node in parsed(page) if node.type in kinds)
    return text.replace(WORD_JOINER, "")


@pytest.mark.parametrize("text", HOSTILE)
def test_a_line_of_markdown_shows_the_text_itself(text: str) -> None:
    for line in (markdown(text), registry_markdown(text)):
        for page in (line, f"# {line}", f"a **{line}** b"):
            assert foreign(page) == []
            assert plain(text).strip() in text_of(page)
            assert not {node.type for node in parsed(page)} & {
                *{"bullet_list_open", "ordered_list_open", "blockquote_open", "code_block", "hr"},
                *{"fence", "table_open", "em_open", "code_inline", "link_open", "image"},
            }


@given(st.text(max_size=80))
def test_any_text_stays_text_in_a_line(text: str) -> None:
    for line in (markdown(text), registry_markdown(text)):
        for page, before in ((f"x {line}", "x "), (line, "")):
            assert text_of(page) == f"{before}{plain(text).strip()}".strip()
            assert {node.type for node in parsed(page)} <= {
                *{"paragraph_open", "inline", "text", "paragraph_close"},
            }


@given(st.text(alphabet="`~\n a<", max_size=60))
def test_nothing_closes_a_fence(text: str) -> None:
    nodes = parsed(f"{fenced(text)}\n\nafter")

    (fence,) = [node for node in nodes if node.type == "fence"]
    assert fence.content == f"{text}\n"
    assert nodes[-2].content == "after"


@given(st.text(alphabet="`*\n a<\\", min_size=1, max_size=40).filter(lambda t: plain(t).strip()))
def test_nothing_closes_a_span_of_code(text: str) -> None:
    nodes = parsed(f"x {code(text)} y")

    (span,) = [node for node in nodes if node.type == "code_inline"]
    assert span.content.strip() == plain(text).strip()
    assert text_of(f"x {code(text)} y") == "x  y"


@pytest.mark.parametrize("text", HOSTILE)
def test_a_fence_shows_hostile_text_and_ends_where_we_end_it(text: str) -> None:
    page = f"{fenced(text)}\n\nafter"

    assert foreign(page) == []
    assert text_of(page) == "after"


@pytest.mark.parametrize("text", HOSTILE)
def test_nothing_steers_a_terminal(text: str, caplog: pytest.LogCaptureFixture) -> None:
    assert plain(text).isprintable()
    assert plain_lines(text).replace("\n", "").isprintable()
    with caplog.at_level(logging.INFO, logger="atelier"):
        progress.log(text)
    record = logging.LogRecord("library", logging.ERROR, "", 1, "%s", (text,), None)
    assert PlainFormatter("%(message)s").format(record).replace("\n", "").isprintable()


def test_prefects_newer_pages_find_no_bare_address() -> None:
    """They look for one in the text of a page that was read already, as GitHub's dialect does."""
    for address in (EVIL, EVIL.upper(), "https://evil.example", "www.evil.example"):
        (paragraph,) = [node for node in parsed(f"x {markdown(address)}") if node.children]
        text = "".join(child.content for child in paragraph.children or ())
        assert not re.search(r"(https?://|www(?=\.))[-.\w]+", text, re.IGNORECASE), text


def test_what_people_write_stays_readable() -> None:
    for text in ("digits-vae", "बुक, हिन्दी", "می‌خواهم", "1.1875 against 12.3528", "a b", "👩‍👩‍👧"):
        assert plain(text) == text
        assert markdown(text) == registry_markdown(text) == text
    assert plain("a\x1b[31mb\u202e") == "a\\x1b[31mb\\u202e"
    assert plain("one\ntwo") == "one two"


def test_a_line_is_cut_after_it_is_escaped() -> None:
    assert registry_markdown("<" * 1000, max_characters=100) == "&#60;" * 20 + "…"
    assert registry_markdown("x" * 99, max_characters=100) == "x" * 99


# The pages --------------------------------------------------------------------------------------


def hostile_scorecard(text: str) -> Scorecard:
    return Scorecard(
        name="book-gpt",
        run_id="r",
        main_metric="test_bits_per_byte",
        main_value=1.0,
        metrics={"test_bits_per_byte": 1.0, f"recall of {text}": 0.5},
        failed_checks=(),
        data_digest="d",
        judge_digest="",
        data_title=text,
        data_licence=text,
        example=text,
    )


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Addresses of pages without a server."""
    for module in ("registry.model_card", "samples.sampling", "evaluation.scorecard"):
        name = f"tasks.{module}."
        for function in ("run_page", "run_url", "artifact_url"):
            monkeypatch.setattr(name + function, lambda *_: "/ours", raising=False)
    monkeypatch.setattr("tasks.registry.model_card.run_tags", lambda _: {})


@pytest.mark.parametrize("text", HOSTILE)
def test_a_card_keeps_its_form(text: str, offline: None) -> None:
    fitted = TrainedModel(
        family="gpt",
        name="book-gpt",
        run_id="r",
        folder="",
        digest="0" * 64,
        data_digest="d",
        seed=0,
        seconds=1.0,
        num_parameters=1,
    )
    recipe = TrainingProvenance(
        family="gpt",
        source=f"file:{text}",
        image_size=None,
        scheme="characters",
        vocabulary_size=0,
        preset="quick",
        seed=0,
        settings={},
        data_digest="d",
        data_size=text,
        code={},
        libraries={},
        device="cpu",
        machine=text,
    )

    decision = PromotionDecision(accepted=True, reason=text)
    page = card(fitted, hostile_scorecard(text), decision, recipe, None, number=1)

    assert foreign(page) == []
    kinds = [node.type for node in parsed(page)]
    assert kinds.count("fence") == 2  # the example, and how to load it
    assert kinds.count("table_open") == 1
    assert kinds.count("tr_open") == 3
    assert "Limits." in text_of(page)
    assert "Load it" in text_of(page)
    assert kinds.count("heading_open") == 0


@pytest.mark.parametrize("text", [*HOSTILE, "<" * 5000])
def test_the_page_of_a_model_keeps_its_form(text: str) -> None:
    page = family_page("gpt", "book-gpt", 3, "2026-11-26", text)

    assert foreign(page) == []
    assert len(page) < 5000 - MAX_REASON_CHARACTERS
    assert "tells who was champion when" in text_of(page)


@pytest.mark.parametrize("text", HOSTILE)
def test_prefects_pages_keep_their_form(text: str, tmp_path: Path, offline: None) -> None:
    (tmp_path / "a.txt").write_text(text)
    work = work_of(tmp_path, text)
    refused = Challenger(
        name=text,
        family="gpt",
        version=2,
        champion=1,
        main_metric="test_bits_per_byte",
        main_value=1.0,
        reason=text,
        scorecard_run_id="r",
    )

    gallery = _markdown([work], [refused], "r")
    assert foreign(gallery) == []
    kinds = Counter(node.type for node in parsed(gallery))
    assert (kinds["fence"], kinds["heading_open"]) == (1, 2)
    assert not kinds & Counter(["bullet_list_open", "blockquote_open", "table_open", "hr"])
    lineage = table([Node(kind="images", name=text, facts=(text,), made_from=(text,))])
    assert foreign(lineage) == []
    assert [node.type for node in parsed(lineage)].count("td_open") == 5
    assert foreign(_table_description(hostile_scorecard(text))) == []


def work_of(folder: Path, caption: str) -> ChampionSamples:
    return ChampionSamples(
        name="book-gpt",
        family="gpt",
        version=1,
        run_id="r",
        scorecard_run_id="r",
        main_metric="test_bits_per_byte",
        main_value=1.0,
        folder=str(folder),
        pictures=(),
        differences=(),
        texts=(("a.txt", caption),),
    )


@pytest.mark.parametrize("text", [*HOSTILE, "{{yardstick}} {{sections}}"])
def test_the_gallery_shows_text_as_text(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a.txt").write_text(text)
    nothing: dict[str, Any] = {}
    monkeypatch.setattr(html_page, "run_exists", lambda _: True)
    monkeypatch.setattr(html_page, "metric_history", lambda *_: [])
    monkeypatch.setattr(html_page, "run_metrics", lambda _: nothing)

    page = html_page.page([work_of(tmp_path, text)])

    without_rules = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    to_play = f'<a href="{play_url("book-gpt", 1)}">'
    assert without_rules.count(to_play) == 1
    without_rules = re.sub(f"{re.escape(to_play)}[^<]*</a>", "", without_rules)
    tags = set(re.findall(r"<\s*/?\s*([a-zA-Z]+)", without_rules))
    assert not tags & {"img", "script", "iframe", "svg", "a"}
    assert page.count("<section") == 1
    assert "default-src 'none'" in page
