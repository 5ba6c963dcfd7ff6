"""What a template prints is escaped once, for its place; nothing gets around that by mistake."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from jinja2 import TemplateSyntaxError, UndefinedError
from jinja2.exceptions import TemplateAssertionError

from tasks.runtime import templates
from tasks.runtime.markup import markdown, registry_markdown
from tasks.runtime.templates import html_page, prefect_page, registry_page

HOSTILE = "<b>*it's* [x](http://x) `&` {{ 1 }}"
PLACES = {
    html_page: "&lt;b&gt;*it&#x27;s* [x](http://x) `&amp;` {{ 1 }}",
    prefect_page: markdown(HOSTILE),
    registry_page: registry_markdown(HOSTILE),
}
Page = Callable[..., str]


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], str]]:
    """Makes templates of a folder of the test's own."""
    monkeypatch.setattr(templates, "_FOLDER", tmp_path)
    templates._environment.cache_clear()

    def written(text: str) -> str:
        (tmp_path / "page").write_text(text, encoding="utf-8")
        return "page"

    yield written
    templates._environment.cache_clear()


@pytest.mark.parametrize("page", PLACES)
def test_a_value_is_escaped_once_for_the_place_it_goes_to(
    page: Page, write: Callable[[str], str]
) -> None:
    template = write(
        "{% macro shown(text) %}<{{ text }}>{% endmacro %}"
        "{{ text }} {{ shown(text) }} {% set again %}{{ text }}{% endset %}{{ again }}"
    )

    escaped = PLACES[page]
    assert page(template, text=HOSTILE) == f"{escaped} <{escaped}> {escaped}"


@pytest.mark.parametrize("page", PLACES)
def test_numbers_code_and_our_own_text_are_written_as_they_are(
    page: Page, write: Callable[[str], str]
) -> None:
    template = write('{{ value | number(".2f") }} {{ name | code }} {{ ours | safe }}')

    shown = page(template, value=-1.234, name="a_b ` c", ours="**bold**")

    assert shown == "-1.23 ``a_b ` c`` **bold**"
    with pytest.raises(ValueError, match="could not convert"):
        page(template, value="<b>", name="", ours="")


def test_what_nobody_gave_is_an_error_and_no_blank(write: Callable[[str], str]) -> None:
    with pytest.raises(UndefinedError, match="'name' is undefined"):
        html_page(write("{{ name }}"))


@pytest.mark.parametrize("filter_name", ["join(', ')", "e", "replace('a', 'b')", "format(1)"])
def test_filters_that_could_join_escaped_text_with_other_do_not_exist(
    filter_name: str, write: Callable[[str], str]
) -> None:
    with pytest.raises((TemplateAssertionError, TemplateSyntaxError), match="No filter named"):
        registry_page(write(f"{{{{ text | {filter_name} }}}}"), text="a")
