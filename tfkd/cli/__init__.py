"""The command line: one verb for each arrow of the line, no logic."""

from tfkd.cli import training, shipping, judging, recipes  # isort: skip  # in the order of the line, which --help shows
from tfkd.cli.verb import app

__all__ = ["app", "judging", "main", "recipes", "shipping", "training"]


def main() -> None:
    """The entry point of the `tfkd` command."""
    app()
