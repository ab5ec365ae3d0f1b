"""The registry of targets: lazy imports, what the platform has, and a new target as one module and one line."""

import ast
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import tfkd
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


# The whole code of a new target: one module ...
MODULE = '''
import dataclasses

import numpy as np

from tfkd.conversion.tflite import TFLiteModel
from tfkd.targets import target
from tfkd.targets.measurement import Measurement


@dataclasses.dataclass(frozen=True)
class Constant(target.Target):
    """Returns the same value for each output."""

    value: int = 0
    timeout_s: float = 60.0

    @classmethod
    def names(cls):
        return ("constant", "constant:seven")

    @classmethod
    def parse(cls, name, detail):
        return {"value": 7} if detail == "seven" else {}

    @property
    def spec(self):
        return target.described("constant", self, "value")

    def run(self, model, inputs, *, latency=True):
        model = TFLiteModel.load(model)
        (x,) = target.check_inputs(model, inputs, self.spec)
        outputs = tuple(np.full((len(x), *out.shape[1:]), self.value, out.dtype) for out in model.outputs)
        return Measurement(self.spec, model.sha256, model.size_bytes, outputs, {"outputs": "emulated"})
'''
# ... and one line in the registry.
LINE = {"constant": "constant_target:Constant"}


@pytest.fixture
def new_target(tmp_path, monkeypatch):
    (tmp_path / "constant_target.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    for name, place in LINE.items():
        monkeypatch.setitem(targets._TARGETS, name, place)
    yield
    sys.modules.pop("constant_target", None)


def test_new_target_is_one_module_and_one_line(new_target, digits_int8, splits):
    assert targets.names()[-2:] == ("constant", "constant:seven")
    assert targets.get("constant,value=3").spec == "constant,value=3"
    assert targets.available(["constant"]) == [("constant", None)]
    validation = tfkd.validate(digits_int8, splits.test, targets=["host:plain", "constant:seven"])
    host, constant = (row for row in validation.rows if row.target)
    assert constant.target == "constant,value=7"
    assert constant.accuracy == pytest.approx(np.mean(splits.test.y == 0))  # a tie goes to the first class
    assert host.accuracy > 0.8


def test_new_target_has_the_defaults_of_the_protocol(new_target):
    target = targets.get("constant")
    target.check()
    assert target.with_progress(lambda phase, percent: None) is target


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("constant:eight", "unknown target 'constant:eight'. Choose one of constant, constant:seven"),
        ("constant,values=1", "constant has no setting 'values'. Choose one of value, timeout_s. Did you mean 'value'"),
        ("constent", "Did you mean 'constant'"),
    ],
)
def test_new_target_has_the_errors_of_the_others(new_target, spec, message):
    with pytest.raises(InputError, match=message):
        targets.get(spec)


# What Windows and macOS lack.
ABSENT = ["fcntl", "resource", "tflite_micro", "pwd", "grp", "termios"]


def test_import_without_modules_of_unix_works():
    script = "import tfkd; from tfkd import targets; print(targets.available(targets.defaults()))"
    (host, none), (tflm, reason) = ast.literal_eval(in_process_without(ABSENT, script))
    assert (host, none, tflm) == ("host", None, "tflm")
    assert "exists for Linux on x86-64 only" in reason


def test_help_without_modules_of_unix_works():
    assert "validate" in in_process_without(
        ABSENT, "sys.argv = ['tfkd', '--help']\nfrom tfkd.cli import main\ntry: main()\nexcept SystemExit: pass"
    )


def test_host_without_modules_of_unix_runs_a_model(digits_int8):
    script = (
        "import numpy as np\nfrom tfkd import targets\n"
        f"run = targets.get('host').run({str(digits_int8.path)!r}, np.zeros((3, 8, 8, 1), 'int8'), latency=False)\n"
        "print(run.outputs[0].shape)"
    )
    assert in_process_without(ABSENT, script).strip() == "(3, 10)"


def test_targets_import_without_modules_of_unix():
    folder = Path(targets.__file__).parent
    names = [f"tfkd.targets.{path.stem}" for path in folder.glob("*.py") if path.stem != "__init__"]
    script = f"import importlib\nfor name in {names!r}: importlib.import_module(name)"
    in_process_without(ABSENT, script)
