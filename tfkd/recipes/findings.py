"""One finding of the doctor."""

from __future__ import annotations

import dataclasses
from typing import Literal


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong, or may be.

    Args:
        severity: `error`: the run would fail or its result would be meaningless; `warning`: check it first.
        what: The finding, in a sentence.
        evidence: What was observed.
        remedy: What to do.
    """

    severity: Literal["error", "warning"]
    what: str
    evidence: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.severity}: {self.what}\n  observed: {self.evidence}\n  to do: {self.remedy}"
