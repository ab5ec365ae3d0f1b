"""Tests of the part of the Android app without Android: Maven runs them on the desktop with the app's own LiteRT."""

import random
import xml.etree.ElementTree as ElementTree

import desktop_app
import keras
import numpy as np
import pytest
import system_packages
from ai_edge_litert import schema_py_generated as schema

import tfkd
from tests import random_graph
from tfkd import targets
from tfkd.conversion.tflite import TFLiteModel

CORE = desktop_app.CORE
MISSING = desktop_app.unable() or system_packages.skip_reason("maven") or system_packages.skip_reason("javac")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.android,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]
CLASSES = sorted(path.stem for path in CORE.glob("src/test/java/dev/tfkd/bench/*Test.java"))


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The finished Maven process and the folder of its reports. The tests use models and outputs that are made here."""
    folder = tmp_path_factory.mktemp("core")
    splits = tfkd.data.load("digits")
    keras.utils.set_random_seed(0)
    # The dense layer has a scale per channel: an engine that used the first scale for all would differ widely.
    student = keras.Sequential(
        [keras.Input((8, 8, 1)), keras.layers.Rescaling(1 / 255), keras.layers.Flatten(), keras.layers.Dense(10)]
    )
    kernel, bias = student.layers[-1].get_weights()
    student.layers[-1].set_weights([kernel * np.geomspace(0.1, 3, 10), bias])
    for mode in ("full_int8", "float32"):
        model = tfkd.convert(student, folder / f"{mode}.tflite", mode=mode, calibration=splits.train)
        x = model.quantize_input(splits.test.x)
        run = targets.get("host:reference").run(model, x, latency=False)
        np.save(folder / f"{mode}_x.npy", x)
        np.save(folder / f"{mode}_y.npy", run.outputs[0])
        assert len(np.unique(run.outputs[0])) > 20
    for name, model in stateful_models(folder).items():
        shape = (120, *model.inputs[0].shape[1:])
        x = np.random.default_rng(0).normal(size=shape).astype(model.inputs[0].dtype)
        run = targets.get("host:reference").run(model, x, latency=False)
        np.save(folder / f"{name}_x.npy", x)
        np.save(folder / f"{name}_y.npy", run.outputs[0])
        model.save(folder / f"{name}.tflite", overwrite=True)
    desktop_app.litert(folder)
    done = desktop_app.test(CORE, folder)
    return done, folder / "target" / "surefire-reports"


def stateful_models(folder):
    """A model for each form in which LiteRT holds a state, from Keras but for the random generator."""

    def converted(name, layer):
        inputs = keras.Input((4, 3), batch_size=1)
        keras.utils.set_random_seed(0)
        return tfkd.convert(keras.Model(inputs, layer(inputs)), folder / f"{name}.tflite", mode="float32")

    net = random_graph.Net(random.Random(0))
    net.input((1, 3))
    output = net.tensor((1, 3), "float32")
    net.op("RANDOM_UNIFORM", [net.ints([1, 3])], [output], schema.RandomOptionsT(seed=1, seed2=2))
    return {
        "variable_tensors": converted("variable_tensors", keras.layers.LSTM(5)),
        "resource_variables": converted("resource_variables", keras.layers.GRU(5, stateful=True)),
        "random_generator": TFLiteModel(net.bytes(output)),
    }


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
