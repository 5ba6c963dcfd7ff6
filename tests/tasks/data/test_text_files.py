"""Texts as people have them: by content, by pattern, in one line, beside what is no text."""

from pathlib import Path

import pandas as pd
import pytest

from tasks.data.ingestion import ingest_text
from tasks.data.sources import find_source
from tasks.data.splits import load_text
from tasks.data.text_files import read_text_file, read_text_folder, split_by_names
from tasks.store.files import BadInput

pytestmark = pytest.mark.usefixtures("atelier_home")

LONG = "Some words that fill a file. " * 400


@pytest.fixture
def mixed(tmp_path: Path) -> Path:
    """A folder as programs and people leave it: text under many names, and other things."""
    folder = tmp_path / "mixed"
    (folder / "src" / "deep").mkdir(parents=True)
    (folder / "src" / "a.py").write_text("def a():\n    return 1\n" * 300)
    (folder / "src" / "deep" / "b.py").write_bytes(b"\xef\xbb\xbf" + b"b = 2\r\n" * 300)
    (folder / "table.csv").write_text("x,y\n1,2\n" * 300)
    (folder / "LICENSE").write_text("Do what you want. " * 300)
    (folder / "wide.log").write_text("naïve ☃\n" * 300, encoding="utf-16")
    (folder / "empty.txt").touch()
    (folder / "blank.txt").write_text("\n\n  \n")
    (folder / "latin.txt").write_bytes(b"caf\xe9 " * 300)
    (folder / "late.txt").write_bytes(b"words " * 20_000 + b"\xff")
    (folder / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR")
    return folder


def test_any_text_is_read_by_its_content_and_the_rest_is_told(mixed: Path) -> None:
    raw = read_text_folder(mixed)

    names = [name for name, _ in raw.files]
    assert names == ["LICENSE", "src/a.py", "src/deep/b.py", "table.csv", "wide.log"]
    assert {each.id: each.reason for each in raw.set_aside} == {
        "blank.txt": "an empty file",
        "empty.txt": "an empty file",
        "late.txt": "not UTF-8 text: byte 120000 is 0xff",
        "latin.txt": "not UTF-8 text: byte 3 is 0xe9",
        "picture.png": "a binary file: it holds NUL bytes",
    }
    assert "\ufeff" not in raw.text
    assert raw.text.endswith("naïve ☃\n")


def test_the_manifest_and_the_summary_tell_of_every_file(
    mixed: Path, caplog: pytest.LogCaptureFixture
) -> None:
    corpus = ingest_text.fn(f"folder:{mixed}")

    manifest = pd.read_parquet(Path(corpus.folder) / "manifest.parquet").set_index("id")
    assert len(manifest) == 10
    assert manifest.loc["src/deep/b.py", "row"] == 2
    assert manifest.loc["latin.txt", "row"] == -1
    assert corpus.num_files == 5
    assert corpus.set_aside == "2 an empty file, 2 not UTF-8 text, 1 a binary file"
    assert "in 5 files" in caplog.text
    assert f"set aside: {corpus.set_aside}" in caplog.text
    assert "\r" not in "".join(load_text(corpus, split) for split in ("train", "test"))


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("*.py", ["src/a.py", "src/deep/b.py"]),
        ("src/*.py", ["src/a.py", "src/deep/b.py"]),
        ("src/**/*.py", ["src/a.py", "src/deep/b.py"]),
        ("./src/deep/*", ["src/deep/b.py"]),
        ("**/*.csv", ["table.csv"]),
        ("[LM]*", ["LICENSE"]),
        ("?.py", ["src/a.py", "src/deep/b.py"]),
    ],
)
def test_a_pattern_chooses_files(mixed: Path, pattern: str, names: list[str]) -> None:
    raw = read_text_folder(mixed, pattern)

    assert [name for name, _ in raw.files] == names
    assert sum(each.reason == "not named by the pattern" for each in raw.set_aside) == 10 - len(
        names
    )


@pytest.mark.parametrize("pattern", ["*.rs", "/etc/*", "../*", "picture.png"])
def test_a_pattern_that_chooses_no_text_is_refused(mixed: Path, pattern: str) -> None:
    with pytest.raises(BadInput, match=r"holds no text file that fits .*another --glob"):
        read_text_folder(mixed, pattern)


@pytest.mark.parametrize(
    ("source", "kind"), [("pydocs", "text"), ("file:x.txt", "text"), ("folder:.", "images")]
)
def test_a_pattern_is_refused_where_there_is_no_folder_of_text(source: str, kind: str) -> None:
    with pytest.raises(BadInput, match="glob only applies to text of folder:PATH"):
        find_source(source, kind, glob="*.py")  # type: ignore[arg-type]


@pytest.mark.parametrize("pattern", ["", "*" * 201])
def test_a_pattern_of_no_use_is_refused_at_once(mixed: Path, pattern: str) -> None:
    with pytest.raises(BadInput, match=f"1 to 200 characters, got {len(pattern)}"):
        find_source(f"folder:{mixed}", "text", glob=pattern)


def test_another_pattern_is_another_corpus(mixed: Path) -> None:
    (mixed / "src" / "long.py").write_text("c = 3 # more words\n" * 800)

    whole, some = ingest_text.fn(f"folder:{mixed}"), ingest_text.fn(f"folder:{mixed}", "*.py")

    assert some.digest != whole.digest
    assert (some.glob, whole.glob) == ("*.py", None)
    assert ingest_text.fn(f"folder:{mixed}", "*.py") == some


@pytest.mark.parametrize("end", ["", "\n", "\r\n", "\r"])
def test_a_text_in_one_line_is_a_text(tmp_path: Path, end: str) -> None:
    (tmp_path / "line.txt").write_bytes((LONG + end).encode())

    corpus = ingest_text.fn(f"file:{tmp_path / 'line.txt'}")

    assert corpus.num_characters == len(LONG) + 1


def test_a_huge_file_that_is_no_text_is_refused_from_its_beginning(tmp_path: Path) -> None:
    with (tmp_path / "huge.bin").open("wb") as file:
        file.truncate(40_000_000_000)
    with (tmp_path / "long.txt").open("wb") as file:
        file.write(b"words " * 20_000)
        file.truncate(40_000_000_000)

    with pytest.raises(BadInput, match="is a binary file: it holds NUL bytes"):
        read_text_file(tmp_path / "huge.bin")
    with pytest.raises(BadInput, match=r"holds 40.0 GB of text or more; wanted at most 2.1 GB"):
        read_text_file(tmp_path / "long.txt")


def test_a_folder_of_more_text_than_can_be_counted_is_refused(
    mixed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.data.text_files.MAX_BYTES", 12_000)

    with pytest.raises(BadInput, match="GB of text or more; wanted at most"):
        read_text_folder(mixed)


def test_what_is_set_aside_is_no_part_of_the_digest(mixed: Path) -> None:
    before = ingest_text.fn(f"folder:{mixed}")
    (mixed / "more.bin").write_bytes(bytes(100))

    after = ingest_text.fn(f"folder:{mixed}")

    assert (after.digest, after.folder) == (before.digest, before.folder)
    manifest = pd.read_parquet(Path(after.folder) / "manifest.parquet").set_index("id")
    assert "more.bin" in manifest.index


@pytest.mark.parametrize(
    ("train", "validation", "test"),
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
        ("data/train/a.txt", "data/val/a.txt", "data/test/a.txt"),
        ("Training Set/x/a.md", "dev/b.md", "TEST/c.md"),
    ],
)
def test_the_authors_split_of_a_text_is_used(
    tmp_path: Path, train: str, validation: str, test: str
) -> None:
    texts = {train: "to learn ", validation: "to choose ", test: "to judge "}
    for name, words in texts.items():
        (tmp_path / "book" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "book" / name).write_text(words * 600)

    corpus = ingest_text.fn(f"folder:{tmp_path / 'book'}")

    assert load_text(corpus, "train") == "to learn " * 600 + "\n"
    assert load_text(corpus, "validation") == "to choose " * 600 + "\n"
    assert load_text(corpus, "test") == "to judge " * 600 + "\n"
    assert corpus.note == f"the author's split is used: {test}, {train}, {validation}"
    assert ingest_text.fn(f"folder:{tmp_path / 'book'}") == corpus


@pytest.mark.parametrize("held_out", ["val.txt", "test.txt"])
def test_one_held_out_part_of_a_text_is_the_test(tmp_path: Path, held_out: str) -> None:
    (tmp_path / held_out).write_text("held out ")
    (tmp_path / "train.txt").write_text("0123456789" * 1000 + "\n")

    corpus = ingest_text.fn(f"folder:{tmp_path}")

    assert load_text(corpus, "test") == "held out \n"
    assert load_text(corpus, "validation") == "0123456789" * 100
    assert load_text(corpus, "train") == "0123456789" * 900 + "\n"


def test_names_of_other_things_are_no_split() -> None:
    assert split_by_names([("train.py",), ("test.py",), ("model.py",)]) is None
    assert split_by_names([("train.txt",)]) is None
    assert split_by_names([("train_test_split.md",), ("test.md",)]) is None
    assert split_by_names([("val.txt",), ("test.txt",)]) is None
    assert split_by_names([("src", "a.py"), ("tests", "test_a.py")]) is None


def test_what_tells_of_a_split_text_is_no_part_of_it(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("0123456789" * 1000)
    (tmp_path / "test.txt").write_text("abcdefghij" * 1000)
    (tmp_path / "README.md").write_text("what this is")

    corpus = ingest_text.fn(f"folder:{tmp_path}")

    assert corpus.note == "the author's split is used: test.txt, train.txt"
    assert corpus.set_aside == "1 beside the author's split"
    assert corpus.num_files == 2
    assert load_text(corpus, "test") == "abcdefghij" * 1000 + "\n"
