"""Text of C and of the files of projects, from templates."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jinja2


@functools.cache
def _environment(package: str) -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader(package, "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # C, YAML and Markdown
    )


def rendered(package: str, template: str, variables: Mapping[str, object]) -> str:
    """The text of a template that lies in a package."""
    return _environment(package).get_template(template).render(variables)
