"""Text of the C of sensors from its templates."""

from __future__ import annotations

import functools
from collections.abc import Mapping

import jinja2


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader(__package__, "."),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=jinja2.StrictUndefined,
        autoescape=False,  # C
    )


def rendered(template: str, variables: Mapping[str, object]) -> str:
    """The text of a template of this package."""
    return _environment().get_template(template).render(variables)
