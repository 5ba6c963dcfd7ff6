"""Cards in a terminal: read as text, and steering nothing."""

from atelier.cli.card_text import BOLD, NORMAL, readable_card
from tasks.runtime.markup import fenced, registry_markdown

CARD = """A model of something.

![samples](/get-artifact?path=samples.png)

**bits per byte: 1.5** (lower is better)

| measured | this | that |
| --- | --- | --- |
| one thing | 1 |  |
| another | 22 | 3 |

* [run](/#/experiments/1), [page](http://127.0.0.1:1/x)
* made again by `atelier reproduce tale`

```python
import mlflow  # **not bold**
| no | table |
```
"""


def test_tables_stand_in_columns_and_markup_is_gone() -> None:
    assert readable_card(CARD, 80).splitlines() == [
        "A model of something.",
        "",
        "bits per byte: 1.5 (lower is better)",
        "",
        "measured   this  that",
        "one thing  1",
        "another    22    3",
        "",
        "* run, page http://127.0.0.1:1/x",
        "* made again by `atelier reproduce tale`",
        "",
        "    import mlflow  # **not bold**",
        "    | no | table |",
    ]


def test_what_is_strong_is_bold_on_a_terminal() -> None:
    assert f"{BOLD}bits per byte: 1.5{NORMAL} (lower" in readable_card(CARD, 80, has_styles=True)


def test_long_paragraphs_are_wrapped_and_items_are_indented() -> None:
    lines = readable_card(f"* {'word ' * 30}\n\n{'word ' * 30}", 40).splitlines()

    assert max(map(len, lines)) <= 40
    assert lines[1].startswith("  word")
    assert lines[-1].startswith("word")


def test_escaped_characters_show_as_they_were() -> None:
    original = "a *b* [c](d) <e> & `f` | g \\ #1"

    assert readable_card(registry_markdown(original), 80) == original


def test_an_escape_sequence_of_the_card_is_spelt_out() -> None:
    hostile = "\x1b]0;owned\x07\x00"
    card = f"{hostile}\n\n| a |\n| --- |\n| &#27;[2J |\n\n**{hostile}**\n\n{fenced(hostile)}"

    shown = readable_card(card, 80, has_styles=True)

    assert shown.replace(BOLD, "").replace(NORMAL, "").isascii()
    assert "\x1b" not in shown.replace(BOLD, "").replace(NORMAL, "")
    assert "\x00" not in shown


def test_a_fence_ends_where_its_own_number_of_backticks_stands() -> None:
    shown = readable_card(fenced("```\ninner\n```") + "\n\nafter", 80)

    assert shown.splitlines() == ["    ```", "    inner", "    ```", "", "after"]
