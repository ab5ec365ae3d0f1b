"""The targets of a command or a recipe, with and without the tools that they need."""

import pytest

from tfkd.errors import ToolMissingError
from tfkd.recipes import target_choice


@pytest.fixture
def no_tflm(monkeypatch):
    def fail(target):
        raise ToolMissingError("tflite-micro is not installed")

    monkeypatch.setattr("tfkd.targets.tflm.TFLM.__post_init__", fail)


def specs(chosen):
    return [one if isinstance(one, str) else one.spec for one in chosen]


def test_default_targets_are_made():
    chosen = target_choice.choose(None, optional=["host:plain", "host"])
    assert specs(chosen) == ["host", "tflm", "host:plain"]
    assert not any(isinstance(one, str) for one in chosen)
    assert target_choice.installed_defaults() == ["host", "tflm"]


def test_default_or_optional_target_may_be_missing(no_tflm):
    assert target_choice.choose(None)[1] == "tflm"
    assert target_choice.choose(["host"], optional=["tflm"])[1] == "tflm"
    assert target_choice.installed_defaults() == ["host"]


def test_named_target_may_not_be_missing(no_tflm):
    with pytest.raises(ToolMissingError, match="not installed"):
        target_choice.choose(["tflm"], optional=["tflm"])


def test_core_of_a_board_may_not_be_missing(monkeypatch):
    def fail(target):
        raise ToolMissingError("ziglang is not installed")

    monkeypatch.setattr("tfkd.targets.cortex_m.CortexM.__post_init__", fail)
    with pytest.raises(ToolMissingError, match="not installed"):
        target_choice.choose(None, board="nrf52840")
