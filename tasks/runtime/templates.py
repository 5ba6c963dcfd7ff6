"""Pages from templates: each value that a template prints is escaped for the place it goes to.

Jinja2's own escaping is HTML's alone; an MLflow page and a Prefect page want others (see
`tasks.runtime.markup`). So every value passes through the function of its place, but Markup: what
a macro made, a filter of ours, or a template's `safe`, which is for our own text and addresses.
Only the filters below exist, since Jinja2's others may join escaped and other text.
Templates lie beside the modules that fill them, and are named from `tasks/` on.
"""

import html
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from tasks.runtime.markup import code, fenced, markdown, registry_markdown

_FOLDER = Path(__file__).parents[1]


def html_page(template: str, **values: Any) -> str:
    """A page for a browser."""
    return _environment(html.escape).get_template(template).render(values)


def prefect_page(template: str, **values: Any) -> str:
    """Markdown for Prefect's pages, which may be put among other text: no newline at its end."""
    return _environment(markdown).get_template(template).render(values).rstrip("\n")


def registry_page(template: str, **values: Any) -> str:
    """Markdown for the registry's pages."""
    return _environment(registry_markdown).get_template(template).render(values)


@lru_cache
def _environment(escape: Callable[[str], str]) -> Environment:
    def escaped(value: Any) -> Any:
        return value if hasattr(value, "__html__") else Markup(escape(str(value)))

    made = Environment(
        loader=FileSystemLoader(_FOLDER),
        autoescape=True,  # Jinja2 escapes after `finalize`, and leaves Markup alone
        finalize=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    made.filters = {
        "code": lambda value: Markup(code(value)),
        "fenced": lambda value: Markup(fenced(value)),
        "number": lambda value, form: Markup(format(float(value), form)),
        "safe": Markup,
    }
    return made
