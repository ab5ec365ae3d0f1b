"""What an examination finds, and how a training is refused because of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Literal

from tfkd.errors import InputError


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


def refuse(findings: Sequence[Finding], what: str, advice: str) -> None:
    """Refuses to train because of the errors among findings.

    Args:
        findings: The findings.
        what: Beginning of the message, a sentence.
        advice: End of the message, a sentence.

    Raises:
        InputError: There is an error among them.
    """
    errors = [str(finding) for finding in findings if finding.severity == "error"]
    if errors:
        raise InputError("\n".join([what, *errors, advice]))


def refuse_teacher(
    findings: Sequence[Finding],
    *,
    allowed: bool,
    on_note: Callable[[str], None],
    remedy: str = "set allow_bad_teacher = true in [distillation]",
) -> None:
    """Refuses to train with a bad teacher, and reports what else was found about it.

    Args:
        findings: The findings on the teacher.
        allowed: Whether the training goes on in spite of errors.
        on_note: Called with each finding that does not stop the training.
        remedy: What permits the teacher; by default the key of a recipe.

    Raises:
        InputError: There is an error among the findings, and it is not allowed.
    """
    for finding in findings:
        if allowed or finding.severity == "warning":
            on_note(str(finding))
    if not allowed:
        refuse(
            findings,
            "The teacher is refused before the training of the student.",
            f"Correct that, or {remedy} to train with this teacher.",
        )
