"""Names: what is let in, and what a file's own name becomes."""

import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tasks.store.files import BadInput, inside
from tasks.store.locks import file_lock
from tasks.store.names import MAX_NAME_BYTES, artifact_key, checked_name, derived_name

RIGHT_TO_LEFT, NO_WIDTH, FILLER = "\u202e", "\u200b", "\u3164"


@pytest.mark.parametrize(
    "name",
    [
        "digits-vae",
        "a",
        "9-lives",
        "my_pets",
        "书1-ngram",
        "λόγος",
        "हिन्दी",
        "data-0a1b2c",
        "x" * 180,
    ],
)
def test_good_names_pass_unchanged(name: str) -> None:
    assert checked_name("model", name) == name


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("", "is empty"),
        ("../x", "holds '.'"),
        ("../../../../x", "holds '.'"),
        ("a/b", "holds '/'"),
        ("/etc/passwd", "holds '/'"),
        ("a\\b", "holds '\\\\'"),
        (".", "holds '.'"),
        ("..", "holds '.'"),
        (".hidden", "holds '.'"),
        ("-rf", "begins with '-'"),
        ("_x", "begins with '_'"),
        ("a b", "holds ' '"),
        ("a\nb", r"holds '\n'"),
        ("a\0b", r"holds '\x00'"),
        ("a\x1b[31mb", r"holds '\x1b'"),
        ("it's", 'holds "\'"'),
        ("a' or name like '%", 'holds "\'"'),
        ("a`b", "holds '`'"),
        ("a:b", "holds ':'"),
        ("a%2fb", "holds '%'"),
        (f"a{RIGHT_TO_LEFT}b", "RIGHT-TO-LEFT OVERRIDE"),
        (f"a{NO_WIDTH}b", "ZERO WIDTH SPACE"),
        (f"a{FILLER}b", "HANGUL FILLER"),
        ("a\ufe0f", "VARIATION SELECTOR-16"),
        ("a\ud800", r"\ud800"),
        ("\u0301a", "begins with '\\u0301' (COMBINING ACUTE ACCENT)"),
        ("Pets", "'pets' would do"),
        (unicodedata.normalize("NFD", "café"), "NFC"),
        ("con", "Windows"),
        ("com1", "Windows"),
        ("x" * 181, "181 bytes"),
        ("书" * 61, "183 bytes"),
        (None, "NoneType"),
        (7, "int 7"),
        (["a"], "list"),
    ],
)
def test_bad_names_are_refused_with_the_reason(name: object, complaint: str) -> None:
    with pytest.raises(BadInput) as refused:
        checked_name("model", name)

    message = str(refused.value)
    assert complaint in message
    assert "model" in message
    assert message.isprintable()  # what was given cannot steer a terminal


@pytest.mark.parametrize(
    ("original", "name"),
    [
        ("My Pictures", "my-pictures"),
        ("set.2024", "set-2024"),
        ("my book (2)", "my-book-2"),
        ("书1", "书1"),
        ("文1", "文1"),
        ("Ωδή", "ωδή"),
        ("हिन्दी", "हिन्दी"),
        ("É t", "é-t"),
        (unicodedata.normalize("NFD", "É t"), "é-t"),
        ("digits", "own-digits"),
        ("con", "own-con"),
    ],
)
def test_a_files_name_stays_readable(original: str, name: str) -> None:
    assert derived_name(original, taken=["digits"]) == name


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("书1", "文1"),
        ("C", "C#"),
        ("C++", "C#"),
        ("😀book", "😎book"),
        ("😀", "😎"),
        ("a&b", "a b"),
        (f"a{NO_WIDTH}b", "ab"),
        (f"a{FILLER}b", "ab"),
        (f"{RIGHT_TO_LEFT}a", "a"),
        ("x" * 250, "x" * 249 + "y"),
        ("书" * 80, "书" * 79 + "文"),
        ("\udcff1", "\udcfe1"),
        ("\u0301a", "a"),
    ],
)
def test_two_files_keep_two_names(one: str, other: str) -> None:
    assert derived_name(one) != derived_name(other)


@given(st.text(max_size=300))
def test_every_derived_name_passes_the_check(original: str) -> None:
    name = derived_name(original, taken=["digits"])

    # what flows put behind it must fit, too
    assert checked_name("model", f"{name}-characters")
    assert checked_name("data set", name) == name
    assert inside(Path("home"), name) == Path("home") / name
    assert len(name.encode()) < MAX_NAME_BYTES - 40


@given(st.text(max_size=300))
def test_every_name_has_an_artifact_key(name: str) -> None:
    key = artifact_key(name)

    assert key
    assert set(key) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert len(key) <= 310


def test_artifact_keys_tell_names_apart() -> None:
    assert artifact_key("digits-vae-scorecard") == "digits-vae-scorecard"
    assert artifact_key("书1") != artifact_key("文1")
    assert artifact_key("a_b") != artifact_key("a-b")


@pytest.mark.parametrize("name", ["../x", "../../../../x", "/tmp/x", "a/b", "../", "a\0b"])
def test_a_lock_stays_in_its_folder(atelier_home: Path, tmp_path: Path, name: str) -> None:
    precious = tmp_path / "x.lock"
    precious.write_text("precious")

    with pytest.raises(BadInput, match="not a path"), file_lock(name):
        pass

    assert precious.read_text() == "precious"
    assert not (atelier_home / "locks").exists()
