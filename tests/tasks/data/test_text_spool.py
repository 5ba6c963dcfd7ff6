"""Texts a part at a time come to what they come to as strings."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tasks.data import text_files, text_spool
from tasks.data.ingestion import ingest_text
from tasks.data.splits import load_text
from tasks.data.text_files import read_own_text_file, read_text_file, read_text_folder
from tasks.data.text_spool import (
    JoinedText,
    TextRange,
    TextSpool,
    digest_of_texts,
    normalised_pieces,
    shared_lines,
    written,
)
from tasks.store.files import BadInput, DiskFull, digest_of

pytestmark = pytest.mark.usefixtures("atelier_home")
TEXTS = st.text(alphabet='ab \n\ré☃𝄞"\\\x00', max_size=60)


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks so small that any character may lie across two of them."""
    monkeypatch.setattr(text_spool, "BYTES_AT_ONCE", 3)
    monkeypatch.setattr(text_files, "BYTES_AT_ONCE", 5)
    monkeypatch.setattr(text_files, "_BEGINNING", 7)


def in_file(folder: Path, name: str, text: str) -> TextRange:
    return written(folder / name, [text])


@given(st.lists(TEXTS, max_size=6))
def test_normalising_pieces_is_normalising_the_whole(parts: list[str]) -> None:
    whole = "".join(parts).replace("\r\n", "\n").replace("\r", "\n")

    found = "".join(normalised_pieces(parts))

    assert found == (whole if whole.endswith("\n") or not whole else whole + "\n")


@given(st.lists(TEXTS, min_size=1, max_size=5))
@settings(deadline=None)
def test_a_spool_gives_back_each_text_and_their_join(parts: list[str]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_spool, "BYTES_AT_ONCE", 3)
        spool = TextSpool()
        texts = [spool.append([part[:2], part[2:]]) for part in parts]

        assert ["".join(text) for text in texts] == parts
        assert [text.length for text in texts] == [len(part) for part in parts]
        assert [text.is_blank for text in texts] == [not part.strip() for part in parts]
        assert "".join(JoinedText(tuple(texts))) == "\n".join(parts)


def test_of_a_text_that_ends_with_an_error_a_spool_keeps_nothing() -> None:
    def broken() -> Iterator[str]:
        yield "lost"
        raise ValueError("broken")

    spool = TextSpool()
    first = spool.append(["first"])
    with pytest.raises(ValueError, match="broken"):
        spool.append(broken())
    second = spool.append(["second"])

    assert "".join(JoinedText((first, second))) == "first\nsecond"


@pytest.mark.parametrize("place", ["in-the-buffer", "at-the-next-text"])
def test_a_full_disk_is_no_fault_of_a_text(place: str) -> None:
    """What is small waits in a buffer; the error must come with the text, and by its name."""
    spool = TextSpool()
    spool._file.close()
    spool._file = Path("/dev/full").open("r+b")  # noqa: SIM115 - the spool closes it
    if place == "at-the-next-text":
        spool._file.write(b"before")

    with pytest.raises(DiskFull, match="no space is left"):
        spool.append(["small"])

    with suppress(OSError):  # its buffer can go nowhere
        spool._file.close()


@given(TEXTS, TEXTS, TEXTS)
@settings(deadline=None)
def test_the_digest_of_texts_is_that_of_their_strings(
    tmp_path_factory: pytest.TempPathFactory, train: str, validation: str, test: str
) -> None:
    folder = tmp_path_factory.mktemp("texts")
    texts = {"train": train, "validation": validation, "test": test}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_spool, "BYTES_AT_ONCE", 3)
        ranges = {name: in_file(folder, name, text) for name, text in texts.items()}

        assert digest_of_texts(ranges) == digest_of(texts)
        assert [each.num_bytes for each in ranges.values()] == [
            len(t.encode()) for t in texts.values()
        ]


@given(TEXTS, st.integers(0, 60), st.integers(0, 60))
@settings(deadline=None)
def test_a_range_is_cut_at_characters(
    tmp_path_factory: pytest.TempPathFactory, text: str, first: int, second: int
) -> None:
    second = min(second, len(text))
    first = min(first, second)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_spool, "BYTES_AT_ONCE", 3)
        whole = in_file(tmp_path_factory.mktemp("text"), "whole", text)
        before, end = whole.cut(second)
        start, middle = before.cut(first)

        found = ["".join(each.pieces()) for each in (start, middle, end)]
        assert found == [text[:first], text[first:second], text[second:]]
        assert [each.length for each in (start, middle, end)] == list(map(len, found))


@given(
    st.lists(st.text(alphabet="aé", max_size=8), max_size=12),
    st.lists(st.text(alphabet="aé", max_size=8), max_size=12),
    st.integers(1, 5),
)
@settings(deadline=None)
def test_shared_lines_are_those_of_a_set(
    tmp_path_factory: pytest.TempPathFactory, train: list[str], test: list[str], length: int
) -> None:
    folder = tmp_path_factory.mktemp("lines")
    long_lines = [line for line in "\n".join(test).split("\n") if len(line) >= length]
    known = set("\n".join(train).split("\n"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(text_spool, "BYTES_AT_ONCE", 3)

        found = shared_lines(
            in_file(folder, "train", "\n".join(train)),
            in_file(folder, "test", "\n".join(test)),
            length,
        )

    assert found == sum(line in known for line in long_lines) / max(1, len(long_lines))


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_file_is_decoded_across_its_blocks(tmp_path: Path, encoding: str) -> None:
    text = "naïve ☃ and 𝄞\r\n" * 9
    (tmp_path / "a.txt").write_bytes(text.encode(encoding))

    assert read_text_file(tmp_path / "a.txt") == text
    assert read_own_text_file(tmp_path / "a.txt").text == text


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"0123456789" * 3 + b"\xff" + b"0" * 9, "not UTF-8 text: byte 30 is 0xff"),
        (b"0123456789" * 3 + b"caf\xc3", "not UTF-8 text: byte 33 is 0xc3"),
        (b"0123456" + b"\xe2\x98" + b"0" * 9, "not UTF-8 text: byte 7 is 0xe2"),
        (b"\xef\xbb\xbf0123456789\xff", "not UTF-8 text: byte 13 is 0xff"),
        (b"0123456789\0 0123456789", "a binary file: it holds NUL bytes"),
        (b"0123456789\0 \xff", "not UTF-8 text: byte 12 is 0xff"),
        ("ab\0 cdefgh".encode("utf-16"), "a binary file: it holds NUL bytes"),
        (b"   \n" * 20, "an empty file"),
    ],
)
def test_what_is_no_text_is_told_wherever_it_shows(
    tmp_path: Path, content: bytes, reason: str
) -> None:
    (tmp_path / "a.txt").write_text("first")
    (tmp_path / "b.txt").write_bytes(content)
    (tmp_path / "c.txt").write_text("last")

    raw = read_text_folder(tmp_path)

    assert {each.id: each.reason for each in raw.set_aside} == {"b.txt": reason}
    assert raw.text == "first\nlast"
    if reason != "an empty file":
        with pytest.raises(BadInput, match="b.txt is " + reason):
            read_text_file(tmp_path / "b.txt")


@pytest.mark.usefixtures("small_blocks")
def test_an_old_macs_line_end_before_the_next_file_is_one_line_end(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"first\r" * 1000)
    (tmp_path / "b.txt").write_bytes(b"second\r\n" * 1000)

    corpus = ingest_text.fn(f"folder:{tmp_path}")

    whole = "".join(load_text(corpus, split) for split in ("validation", "train", "test"))
    assert whole == "first\n" * 1000 + "second\n" * 1000  # "\r" and the join's "\n" are one


def test_nothing_of_a_text_stays_beside_the_data_set(tmp_path: Path, atelier_home: Path) -> None:
    (tmp_path / "a.txt").write_text("some words\n" * 1000)

    ingest_text.fn(f"file:{tmp_path / 'a.txt'}")

    assert not [p for p in atelier_home.rglob("*") if "partial" in p.name]
