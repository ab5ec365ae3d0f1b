"""The page of the Python API has every public name."""

from __future__ import annotations

import re
import types
from pathlib import Path

import pytest

import tfkd
import tfkd.data

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "api.md").read_text()
DOCUMENTED = set(re.findall(r"^\.\. auto(?:function|class):: tfkd\.([\w.]+)$", PAGE, re.MULTILINE))
PUBLIC = [name for name in tfkd.__all__ if not isinstance(getattr(tfkd, name), types.ModuleType | str)]


@pytest.mark.parametrize("name", [*PUBLIC, *(f"data.{name}" for name in tfkd.data.__all__ if name != "NAMES")])
def test_public_name_is_documented(name):
    assert name in DOCUMENTED
