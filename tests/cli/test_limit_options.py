"""Command-line options for the limits of a contract."""

import typer
from typer.testing import CliRunner

from tfkd.cli import app
from tfkd.cli.limit_options import NO_LIMITS, limit_options
from tfkd.validation.contract import Contract
from tfkd.validation.limits import LIMITS


def test_limit_options_become_a_contract():
    received = []
    one = typer.Typer()

    @one.command()
    @limit_options
    def judge(model: str, contract: Contract = NO_LIMITS, verbose: bool = False) -> None:
        received.append((model, contract, verbose))

    ran = CliRunner().invoke(one, ["m", "--max-bytes", "5", "--min-accuracy", "50", "--confident", "--verbose"])
    assert ran.exit_code == 0
    assert received == [("m", Contract(max_bytes=5, min_accuracy=50, confident=True), True)]


def test_validate_and_diff_have_every_limit_as_an_option():
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    for name in ("validate", "diff"):
        options = {option.name: option for option in commands[name].params}
        for limit in LIMITS.values():
            assert options[limit.name].help == limit.help
            assert f"--{limit.name.replace('_', '-')}" in options[limit.name].opts
