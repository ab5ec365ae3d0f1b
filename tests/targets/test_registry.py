"""The registry of targets: lazy imports, what the platform has, and a new target as one module and one line."""

import ast
import subprocess
import sys

import pytest

from tfkd import targets
from tfkd.errors import InputError, ToolMissingError


def in_process_without(modules, script):
    """What a script prints in a process in which some modules cannot be imported."""
    blocked = f"import sys; sys.modules.update(dict.fromkeys({modules!r}))\n"
    done = subprocess.run([sys.executable, "-c", blocked + script], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_defaults_are_registered_names():
    assert set(targets.defaults()) <= set(targets.names())


def test_available_reports_the_reason_of_a_missing_package():
    script = "from tfkd import targets; print(targets.available(['host', 'tflm', 'cortex-m4']))"
    ((host, none), (tflm, no_tflm), (cortex, no_cortex)) = ast.literal_eval(
        in_process_without(["tflite_micro", "unicorn"], script)
    )
    assert (host, none, tflm, cortex) == ("host", None, "tflm", "cortex-m4")
    assert "pip install --pre tflite-micro" in no_tflm
    assert "pip install 'tfkd[mcu]'" in no_cortex


def test_available_with_an_unknown_target_is_refused():
    with pytest.raises(InputError, match="unknown target 'toaster'"):
        targets.available(["host", "toaster"])


def test_get_target_without_its_package_raises_tool_missing(monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    with pytest.raises(ToolMissingError, match="the package tflite-micro is not installed"):
        targets.get("tflm")


def test_get_host_imports_no_other_target():
    script = "from tfkd import targets; targets.get('host'); print([m for m in sys.modules if m.startswith('tfkd.')])"
    loaded = ast.literal_eval(in_process_without([], script))
    others = ("arm64", "foreign_root", "cortex_m", "ssh", "android", "adb", "adb_binary", "tflm")
    assert not {f"tfkd.targets.{name}" for name in others} & set(loaded)
