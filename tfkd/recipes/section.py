"""What the tables of a recipe have in common."""

from __future__ import annotations

import pydantic


class Section(pydantic.BaseModel):
    # Strict: a number in quotes is a mistake, not a number.
    model_config = pydantic.ConfigDict(extra="forbid", frozen=True, strict=True)
