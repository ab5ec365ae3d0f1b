"""The part of the Android app that needs no phone, by Maven on the desktop with a real TensorFlow Lite."""

import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import keras
import numpy as np
import pytest

import tfkd

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import system_packages

CORE = Path(__file__).parents[1] / "android_demo" / "core"
MISSING = system_packages.skip_reason("maven") or system_packages.skip_reason("javac")
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))
CLASSES = sorted(path.stem for path in CORE.glob("src/test/java/dev/tfkd/bench/*Test.java"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """What Maven's tests say, by class; they run on models and outputs made here."""
    folder = tmp_path_factory.mktemp("core")
    splits = tfkd.data.load("digits")
    # No dense layer: the desktop's interpreter is of 2021 and takes the scale of a dense layer's first channel for all.
    layers = [keras.layers.Conv2D(16, 3, strides=2), keras.layers.ReLU(), keras.layers.Conv2D(10, 1)]
    student = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), *layers, keras.layers.GlobalAveragePooling2D()]
    )
    for mode in ("full_int8", "float32"):
        model = tfkd.convert(student, folder / f"{mode}.tflite", mode=mode, calibration=splits.train)
        x = model.quantize_input(splits.test.x)
        run = tfkd.targets.get("host:plain").run(model, x, latency=False)
        np.save(folder / f"{mode}_x.npy", x)
        np.save(folder / f"{mode}_y.npy", run.outputs[0])
    done = subprocess.run(
        ["mvn", "-q", "-B", "test", f"-Dtfkd.models={folder}", f"-DbuildDirectory={folder}/target"],
        cwd=CORE, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    return done, folder / "target" / "surefire-reports"


def test_core_builds_and_passes(built):
    done, _ = built
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", CLASSES)
def test_core_class_ran(built, name):
    _, reports = built
    suite = ElementTree.parse(reports / f"TEST-dev.tfkd.bench.{name}.xml").getroot()
    assert int(suite.get("tests")) > 0
    assert [suite.get(key) for key in ("failures", "errors", "skipped")] == ["0", "0", "0"]


def test_core_needs_no_android():
    sources = list(CORE.glob("src/main/java/**/*.java"))
    assert sources
    for source in sources:
        assert "import android" not in source.read_text(), source
