"""Suggests the known name that is closest to a mistyped one."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def suggestion(name: str, known: Iterable[str]) -> str:
    """A sentence that names the closest match, or an empty string.

    >>> suggestion("hots", ["host", "tflm"])
    " Did you mean 'host'?"
    """
    closest = difflib.get_close_matches(name, known, n=1)
    return f" Did you mean {closest[0]!r}?" if closest else ""
