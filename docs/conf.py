"""Configuration of the documentation: `make docs` builds it without network, and a warning is an error."""

from __future__ import annotations

import importlib.metadata
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "tfkd"
author = "the tfkd developers"
copyright = author
release = version = importlib.metadata.version("tfkd")

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode", "generated_reference"]
source_suffix = {".md": "markdown"}
exclude_patterns = ["_build", "reference/generated"]
html_theme = "furo"
html_title = f"tfkd {release}"
html_static_path = ["_static"]
html_copy_source = False
# Quotes and dashes stay as they are written: `--data` in a help text is an option, not a dash.
smartquotes = False

myst_enable_extensions = ["colon_fence", "deflist"]
myst_heading_anchors = 3

autodoc_typehints = "description"
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = False
napoleon_custom_sections = [("Reference", "References")]
python_use_unqualified_type_names = True

# The docstrings are written in Markdown's habit: `name` is code.
default_role = "code"
