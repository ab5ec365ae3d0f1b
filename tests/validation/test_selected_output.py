"""Models with several outputs, of which one is judged."""

import concurrent.futures
import json
import queue
import re
import subprocess
from importlib import resources

import jsonschema
import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import tfkd
from tests.browser_client import Page, node_modules
from tfkd import cli, targets
from tfkd.conversion.signatures import outputs_in_order
from tfkd.data import as_split
from tfkd.errors import InputError, ModelError
from tfkd.report import console
from tfkd.report.page import markdown
from tfkd.validation import golden, several_outputs, visits
from tfkd.validation.difference import compare

SCHEMA = json.loads(resources.files("tfkd.report").joinpath("schema.json").read_text())
RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 4)).astype("float32")
KIND, VALUE = np.arange(60) % 3, X[:, :2] * 2


def heads(structure):
    """A dictionary whose order differs from that of the layers, or a list; the last op is a sigmoid."""
    inputs = keras.Input((4,))
    kind, value = keras.layers.Dense(3, name="kind")(inputs), keras.layers.Dense(2, name="value")(inputs)
    low = keras.layers.Dense(1, activation="sigmoid", name="low")(inputs)
    named = {"value": value, "kind": kind, "low": low}
    return keras.Model(inputs, named if structure is dict else list(named.values()))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Keras models and their files, by structure."""
    keras.utils.set_random_seed(0)
    folder, found = tmp_path_factory.mktemp("heads"), {}
    for structure in (dict, list):
        model = heads(structure)
        model.get_layer("kind").set_weights([np.eye(4, 3) * 3, np.zeros(3)])
        found[structure] = (model, tfkd.convert(model, folder / f"{structure.__name__}.tflite", mode="float32"))
    return found


@pytest.mark.parametrize("structure", [dict, list])
def test_accuracy_is_that_of_the_named_output(models, structure):
    model, file = models[structure]
    outputs = model(X)
    logits = outputs["kind"] if structure is dict else outputs[1]
    accuracy = float((np.argmax(logits, axis=1) == KIND).mean())
    contract = tfkd.Contract(min_accuracy=20)
    found = tfkd.validate(file, (X, KIND), output="kind", reference=model, targets=["host"], contract=contract)
    reference, row = found.rows
    assert (reference.accuracy, row.accuracy, row.agreement) == (accuracy, accuracy, 1.0)
    assert row.bytes == file.size_bytes
    assert reference.parameters == model.count_params()
    record = found.to_json()
    assert record["output"] == "kind"
    assert [len(one["outputs"]) for one in record["models"].values()] == [3]
    jsonschema.validate(json.loads(json.dumps(record)), SCHEMA)
    assert "Only the output kind was judged." in markdown(record)
    assert console.summary(record).startswith("Output: kind; the others are not judged")


@pytest.fixture
def phone(tmp_path):
    return targets.get("browser:wait,address=127.0.0.1", litert_js=str(node_modules(tmp_path)), timeout_s=60)


def shown_accuracy(url, file):
    """What the page of a phone shows that answers as the host."""
    page = Page(url, file, X, list(targets.get("host").run(file.content, X, latency=False).outputs))
    status, shown = page.send(page.record())
    assert (status, shown["verdict"]) == (200, "Same answers")
    return dict(shown["facts"])["Accuracy"]


def test_page_of_a_phone_shows_the_accuracy_of_the_named_output(models, phone, monkeypatch):
    model, file = models[list]
    lines = queue.Queue()
    monkeypatch.setattr("tfkd.targets.browser.say", lines.put)
    options = {"output": "kind", "reference": model, "targets": [phone]}
    with concurrent.futures.ThreadPoolExecutor() as pool:
        run = pool.submit(tfkd.validate, file, (X, KIND), **options)
        while not (url := re.search(r"http://[\w.:]+/[\w-]+/", lines.get(timeout=60))):
            pass
        shown = shown_accuracy(url[0], file)
        reference, row = run.result(timeout=60).rows
    assert row.accuracy == reference.accuracy
    assert shown == f"{100 * row.accuracy:.2f} %"


def test_served_page_shows_the_accuracy_of_the_named_output(models, phone):
    file, test, urls = models[list][1], as_split((X, KIND), "test"), queue.Queue()
    (name,) = (
        one for one, tensor in zip(outputs_in_order(file.content), file.outputs, strict=True) if tensor.shape[-1] == 3
    )
    with concurrent.futures.ThreadPoolExecutor() as pool:
        start = {"output": name, "most": 1, "on_start": lambda devices, live: urls.put(devices)}
        run = pool.submit(visits.serve, file, test, phone, **start)
        shown = shown_accuracy(urls.get(timeout=60), file)
        found = visits.validate_visits(file, test, run.result(timeout=60), output=name)
    accuracy = float(shown.removesuffix(" %")) / 100
    assert [row.accuracy for row in found.rows] == pytest.approx([accuracy] * 2, abs=1e-4)


def test_values_are_those_of_the_named_output(models):
    model, file = models[dict]
    expected = float(np.abs(model(X)["value"] - VALUE).mean())
    found = tfkd.validate(file, (X, VALUE), output="value", reference=model, targets=["host"])
    assert [row.result.metrics["mae"].value for row in found.rows] == pytest.approx([expected, expected], rel=1e-5)


def test_threshold_is_that_of_the_activation_of_the_named_output(models):
    model, file = models[dict]
    low = (model(X)["low"].numpy()[:, 0] > 0.5).astype("int64")
    found = tfkd.validate(file, (X, low), output="low", reference=model, targets=["host"], task="binary")
    assert [row.result.metrics["f1"].value for row in found.rows] == [100, 100]


def test_difference_is_that_of_the_named_output(models, tmp_path):
    other = heads(dict)
    other.set_weights(models[dict][0].get_weights())
    kernel, bias = other.get_layer("kind").get_weights()
    other.get_layer("kind").set_weights([-kernel, bias])
    second = tfkd.convert(other, tmp_path / "b.tflite", mode="float32")
    found = compare(models[dict][1], second, as_split((X, KIND), "test"), output="kind")
    (one,) = found.comparisons
    before, after = (np.argmax(model(X)["kind"], axis=1) == KIND for model in (models[dict][0], other))
    assert (len(one.regressed), len(one.fixed)) == ((before & ~after).sum(), (~before & after).sum())
    assert json.loads(json.dumps(found.to_json()))["a"]["outputs"][2]["shape"] == [1, 2]


PROGRAM = """
#include <stdio.h>
#include "m.h"
int main(void) {
  for (int i = 0; i < M_SAMPLES; ++i)
    for (int k = 0; k < M_OUTPUT_2_SIZE; ++k) printf("%.9g ", (double)m_output_2[i][k]);
  printf("%.9g", (double)M_TOLERANCE_2);
}
"""


def test_golden_vectors_hold_every_output(models, tmp_path):
    model, file = models[dict]
    vectors = golden.record(file, as_split((X, KIND), "test"), samples=3)
    expected = model(vectors.raw)
    for name, values in zip(("kind", "low", "value"), (vectors.output, *vectors.others), strict=True):
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-6)
    other = targets.get("host").run(file, vectors.input, latency=False).outputs
    assert vectors.other_tolerances == tuple(np.abs(other[i] - vectors.others[i - 1]).max() for i in (1, 2))
    vectors.save(tmp_path / "m")
    np.testing.assert_array_equal(np.load(tmp_path / "m.npz")["output_2"], vectors.others[1])
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["shapes"]["output_1"] == [3, 1]
    np.testing.assert_array_equal([one["output_1"] for one in record["samples"]], vectors.others[0])
    (tmp_path / "main.c").write_text(PROGRAM)
    subprocess.run(["cc", "-std=c99", "-Wno-unused", "-o", tmp_path / "main", tmp_path / "main.c"], check=True)
    printed = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout
    assert np.array_equal(np.float32(printed.split()), [*vectors.others[1].ravel(), vectors.other_tolerances[1]])


@pytest.mark.parametrize("structure", [dict, list])
def test_signature_has_the_names_of_the_outputs(models, structure):
    model, file = models[structure]
    names = outputs_in_order(file.content)
    assert names == (["kind", "low", "value"] if structure is dict else ["value", "kind", "low"])
    expected = model(X[:1])
    found = targets.get("host").run(file, X[:1], latency=False).outputs
    for name, values in zip(names, found, strict=True):
        of_keras = expected[name] if structure is dict else expected[names.index(name)]
        np.testing.assert_allclose(values, of_keras, rtol=1e-5, atol=1e-6)


def judged(file, output, labels, task=None, **limits):
    return tfkd.validate(
        file, (X, labels), output=output, targets=["host:plain"], task=task, contract=tfkd.Contract(**limits)
    )


@pytest.fixture(scope="module")
def validations(models):
    """The validation of each output of the file of a list, whose contract holds."""
    model, file = models[list]
    value, kind, low = (one.numpy() for one in model(X))
    return {
        "kind": judged(file, "kind", np.where(np.arange(60) % 4, kind.argmax(1), KIND), min_accuracy=60),
        "value": judged(file, "value", value, max_mae=1.0),
        "low": judged(file, "low", (low[:, 0] > np.median(low)).astype("int64"), task="binary", min_roc_auc=90),
    }


def test_model_ships_where_the_contract_of_every_output_holds(models, validations, tmp_path):
    found = several_outputs.judge([*validations.values()])
    assert (found.status, found.ok, found.missing) == ("SHIP", True, ())
    assert list(found.validations) == ["value", "kind", "low"]
    part = several_outputs.judge([validations["kind"], validations["low"]])
    assert (part.status, part.ok, part.missing) == ("UNKNOWN", False, ("value",))
    broken = judged(models[list][1], "value", VALUE + 9, max_mae=1.0)
    assert several_outputs.judge([validations["kind"], broken]).status == "NO"
    paths = [tfkd.write_report(one, tmp_path / f"{name}.json") for name, one in validations.items()]
    shipped, lacking = (CliRunner().invoke(cli.app, ["verdict", *map(str, some)]) for some in (paths, paths[1:]))
    assert (shipped.exit_code, lacking.exit_code) == (0, 1)
    assert "kind (classification, on host:plain): SHIP." in shipped.stdout
    assert "kind: not judged" in lacking.stdout
    assert "Verdict on all outputs: UNKNOWN" in lacking.stdout
    assert "Only the output" not in shipped.stdout
    assert json.loads(CliRunner().invoke(cli.app, ["verdict", str(paths[0]), "--json"]).stdout)["missing"]


def test_reports_of_other_files_or_of_no_named_output_are_no_verdict(models, validations, digits_int8, splits):
    other = judged(models[dict][1], "value", VALUE, max_mae=1.0)
    renamed = {**validations["value"].to_json(), "output": "output_0", "outputs": ["output_0", "output_1", "output_2"]}
    for some, message in (
        ([validations["kind"], other], "all of one file. Received: reports of kind, value, and files of the SHA-256"),
        ([validations["kind"]] * 2, "one report for each output.*Received: reports of kind, kind"),
        ([], "Received: reports of no output"),
        ([validations["kind"], renamed], "same names.*Received: output_0, output_1, output_2; and value, kind, low"),
        ([validations["kind"], {"schema": "another"}], "Received: as number 2 the output None"),
        ([tfkd.validate(digits_int8, splits.test.sample(20), targets=["host:plain"])], "a named output.*--output-name"),
    ):
        with pytest.raises(InputError, match=message):
            several_outputs.judge(some)


def test_output_that_is_not_named_or_not_there_is_refused(models):
    model, file = models[list]
    with pytest.raises(ModelError, match="one input and one output.*--output-name NAME"):
        tfkd.validate(file, (X, KIND), targets=["host"])
    with pytest.raises(InputError, match="one of value, kind, low. Received: 'sort'.*is the reference"):
        tfkd.validate(file, (X, KIND), output="sort", targets=["host"])
    with pytest.raises(InputError, match="one of value, kind, low. Received: 'sort'"):
        tfkd.validate(file, (X, KIND), output="sort", reference=model, targets=["host"])
    teacher = keras.Model(model.inputs, {"sort": model.outputs[1]})
    with pytest.raises(InputError, match="output must be one of sort"):
        tfkd.validate(file, (X, KIND), output="kind", reference=model, teacher=teacher, targets=["host"])
