"""The command line: one module per command, no logic.

A new command is one new module, whose function `application.command` registers, and one line in the import below.
"""

# In the order of the pipeline, which `tfkd --help` shows: whole recipes first, then one command per stage.
from tfkd.cli import (  # noqa: F401  # isort: skip
    init,
    doctor,
    run,
    search,
    split,
    train,
    label,
    distill,
    convert,
    validate,
    verdict,
    serve,
    diff,
    explain,
    benchmark,
    export_c,
    export_web,
    npu,
    report,
)
from tfkd.cli.application import app

__all__ = ["app", "main"]


def main() -> None:
    """The entry point of the `tfkd` command."""
    app()
