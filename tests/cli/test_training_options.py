"""Command-line options of a training."""

from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from tfkd.cli import app
from tfkd.cli.training_options import DEFAULTS, augment_options, training_options
from tfkd.distillation.training_config import TrainingConfig
from tfkd.errors import InputError


def test_training_options_become_a_configuration():
    received = []
    one = typer.Typer()

    @one.command()
    @training_options
    def fit(model: str, config: TrainingConfig = DEFAULTS, verbose: bool = False) -> None:
        received.append((model, config, verbose))

    arguments = "m --augment rotation --augment mixup --augment-option rotation.degrees=10 --epochs 3 --ema 0.9 "
    arguments += "--class-weights cat=2,a=b=0.5 --metric m:a --metric m:b --callback m:c --verbose"
    assert CliRunner().invoke(one, arguments.split()).exit_code == 0
    assert CliRunner().invoke(one, ["m"]).exit_code == 0
    expected = TrainingConfig(
        augment=["rotation", "mixup"],
        augment_options={"rotation": {"degrees": 10}},
        epochs=3,
        ema=0.9,
        class_weights={"cat": 2.0, "a=b": 0.5},
        metrics=["m:a", "m:b"],
        callbacks=["m:c"],
    )
    assert received == [("m", expected, True), ("m", DEFAULTS, False)]


def test_every_setting_is_an_option_of_train_and_distill():
    group: Any = typer.main.get_command(app)
    for name in ("train", "distill"):
        options = {option.name for option in group.commands[name].params}
        assert set(TrainingConfig.model_fields) - options == {"padding", "flip"}


def test_wrong_class_weights_are_refused(tmp_path):
    arguments = ["train", "digits_student", "--out", str(tmp_path / "a.keras"), "--class-weights"]
    for weights, message in (("cat", "must be balanced, or NAME=WEIGHT"), ("cat=2", "Received: 'cat'. Classes: 0, 1")):
        ran = CliRunner().invoke(app, [*arguments, weights])
        assert ran.exit_code == 2
        assert message in ran.stderr


def test_wrong_augment_option_is_refused():
    for setting in ("degrees=1", "rotation.degrees", "rotation.degrees=x"):
        with pytest.raises(InputError, match="must be NAME.OPTION=VALUE"):
            augment_options([setting])


def test_train_logs_to_tensorboard(tmp_path):
    arguments = ["train", "digits_student", "--out", str(tmp_path / "student.keras"), "--tensorboard"]
    more = ["--epochs", "1", "--early-stopping", "1", "--ema", "0.9", "--precision", "mixed_bfloat16"]
    ran = CliRunner().invoke(app, [*arguments, str(tmp_path / "logs"), *more])
    assert ran.exit_code == 0, ran.output
    assert {file.parent.name for file in (tmp_path / "logs" / "student").rglob("events.*")} == {"train", "validation"}
    assert (tmp_path / "student.keras").is_file()
