"""Command-line options for a data set and how its files are read."""

import typer
from typer.testing import CliRunner

from tests.data.data_sets import folder
from tfkd.cli import app
from tfkd.cli.data_options import DIGITS, DataOption, data_options
from tfkd.data.reading import HELP, ReadingOptions, Request


def test_data_options_become_a_request():
    received = []
    one = typer.Typer()

    @one.command()
    @data_options
    def look(model: str, data: DataOption = DIGITS, verbose: bool = False) -> None:
        received.append((model, data, verbose))

    arguments = ["m", "--data", "photos", "--image-size", "96", "64", "--color", "gray", "--crop", "pad", "--verbose"]
    assert CliRunner().invoke(one, arguments).exit_code == 0
    assert CliRunner().invoke(one, ["m"]).exit_code == 0
    options = ReadingOptions(image_size=(96, 64), color="gray", crop="pad")
    assert received == [("m", Request("photos", options), True), ("m", Request("digits"), False)]


def test_each_command_with_a_data_set_has_the_options_of_its_files():
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    found = set()
    for name, command in commands.items():
        options = {option.name: option for option in command.params if option.param_type_name == "option"}
        if {"data", "calibration"} & set(options):
            found.add(name)
            assert {option: options[option].help for option in HELP} == HELP
    assert found >= {"init", "train", "label", "distill", "convert", "validate", "diff", "explain"}


def test_advice_names_the_options(tmp_path):
    folder(tmp_path / "photos")
    folder(tmp_path / "photos" / "class0", sizes=(1,), size=(8, 9))
    train = ["train", "resnet8", "--data", str(tmp_path / "photos"), "--out", str(tmp_path / "m.keras")]
    ran = CliRunner().invoke(app, train)
    assert ran.exit_code == 2
    assert "Pass --image-size 96 96 or another size" in ran.stderr
    ran = CliRunner().invoke(app, [*train, "--crop", "pad"])
    assert "Add --image-size 96 96" in ran.stderr


def test_init_writes_the_options_of_the_data_set(tmp_path):
    out = tmp_path / "recipe.toml"
    arguments = ["init", "--data", "photos", "--image-size", "96", "64", "--teacher", "t.keras", "--out", str(out)]
    assert CliRunner().invoke(app, arguments).exit_code == 0
    assert "\nimage_size = [96, 64]\n" in out.read_text()
