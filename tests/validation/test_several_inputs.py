"""Data of models with several inputs, which are found by their names, from `as_split` to the report."""

import concurrent.futures
import json
import pickle
import queue
import subprocess
from importlib import resources

import jsonschema
import keras
import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

import tfkd
from tests.browser_client import Page, node_modules
from tfkd import cli, data, targets
from tfkd.conversion import calibration, file_inputs, signatures
from tfkd.data.model_inputs import ModelInput
from tfkd.data.named_arrays import NamedArrays
from tfkd.errors import InputError, ModelError
from tfkd.validation import golden, visits
from tfkd.validation.difference import compare

RNG = np.random.default_rng(0)
COUNT = 60
# Two inputs of the same shape, a column of a table, and ids. Neither this order nor the alphabet is that of the model.
X = {
    "right": RNG.normal(size=(COUNT, 4)).astype("float32"),
    "user id": RNG.integers(0, 9, COUNT),
    "age": RNG.uniform(20, 60, COUNT).astype("float32"),
    "left": RNG.normal(size=(COUNT, 4)).astype("float32"),
}
ORDER = ("user id", "right", "left", "age")
FIRST = {name: array[:40] for name, array in X.items()}
LAST = {name: array[40:] for name, array in X.items()}


def joined():
    """The inputs in an order that is not alphabetical, and a layer that tells them apart."""
    user = keras.Input((), dtype="int32", name="user id")
    right, left = (keras.Input((4,), name=name) for name in ("right", "left"))
    age = keras.Input((1,), name="age")
    parts = [keras.layers.Embedding(9, 2, name="users")(user), right, 3 * left, age / 20.0]
    return [user, right, left, age], keras.layers.Concatenate(name="joined")(parts)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    inputs, x = joined()
    return keras.Model(inputs, keras.layers.Dense(3, name="kind")(x))


@pytest.fixture(scope="module")
def logits(model):
    """What the model returns for arrays in its order."""
    return model.predict([X[name] for name in ORDER], verbose=0)


@pytest.fixture(scope="module")
def y(logits):
    """Labels of which the model has every fourth wrong."""
    return (logits.argmax(1) + (np.arange(COUNT) % 4 == 0)) % 3


@pytest.fixture(scope="module")
def splits(y):
    return data.from_arrays((FIRST, y[:40]), (LAST, y[40:]), name="pairs")


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return tfkd.convert(model, tmp_path_factory.mktemp("inputs") / "m.tflite", mode="float32")


@pytest.fixture(scope="module")
def heads(tmp_path_factory, splits):
    """A model with several inputs and outputs, and its int8 file."""
    keras.utils.set_random_seed(1)
    inputs, x = joined()
    dense = {name: keras.layers.Dense(size, name=name)(x) for name, size in (("value", 2), ("kind", 3))}
    model = keras.Model({tensor.name: tensor for tensor in inputs}, dense)
    path = tmp_path_factory.mktemp("heads") / "heads.tflite"
    return model, tfkd.convert(model, path, mode="full_int8", calibration=splits.train)


FORMS = {
    "arrays": lambda x, y: (x, y),
    "batches": lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)).batch(7),
    "single samples": lambda x, y: tf.data.Dataset.from_tensor_slices((x, y)),
    "Stream": lambda x, y: data.Stream(lambda: iter([(x, y)]), samples=20),
}


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_data_become_a_split(form, y):
    split = data.as_split(FORMS[form](LAST, y[40:]), "test")
    assert split.x.shapes == {"right": (4,), "user id": (), "age": (), "left": (4,)}
    for name, array in LAST.items():
        np.testing.assert_array_equal(split.x.arrays[name], array)
        assert split.x.arrays[name].dtype == array.dtype
    np.testing.assert_array_equal(split.y, y[40:])


def test_split_of_several_inputs_behaves_like_one(splits, y):
    train = splits.train
    part = train.take(np.array([3, 1]))
    np.testing.assert_array_equal(part.x.arrays["left"], train.x.arrays["left"][[3, 1]])
    assert part.overlap(train).tolist() == part.ids.tolist()
    assert not len(train.overlap(splits.test))
    again = pickle.loads(pickle.dumps(train))
    assert again.content_hash == train.content_hash
    with pytest.raises(ValueError, match="read-only"):
        again.x.arrays["age"][0] = 1
    exchanged = {**FIRST, "left": FIRST["right"], "right": FIRST["left"]}
    assert (
        data.as_split((exchanged, y[:40]), "train").content_hash != data.as_split((FIRST, y[:40]), "train").content_hash
    )
    (x, _), *_ = train.batches(4).as_numpy_iterator()
    assert {name: array.dtype.name for name, array in x.items()} == {
        "right": "float32", "user id": "int64", "age": "float32", "left": "float32"
    }  # fmt: skip
    np.testing.assert_array_equal(x["user id"], train.x.arrays["user id"][:4])


def change(name, array):
    return {**LAST, name: array}


WRONG = {
    "lengths": (change("left", X["left"][:3]), "20 of 'right', 20 of 'user id', 20 of 'age', 3 of 'left'"),
    "NaN": (change("age", np.full(20, np.nan)), "input 'age': must be finite. Received: NaN or infinity in 20 rows"),
    "texts": (change("user id", np.array(["a"] * 20)), "input 'user id': must be numbers.*Received: texts"),
    "list": ([*LAST.values()], "of several inputs a dict of arrays by their names. Received: list"),
    "missing": ({name: LAST[name] for name in ("right", "age", "user id")}, "and none of 'left' of shape"),
    "name": ({**{name: LAST[name] for name in ("right", "age", "left")}, "user": LAST["user id"]}, "none of 'user_id'"),
    "shape": (change("left", X["left"][40:, :3]), r"the shape of the input 'left' of shape \(4,\). Received: \(3,\)"),
    "fractions": (change("user id", LAST["user id"] + 0.5), "values that int32 holds for the input 'user_id'"),
    "too large": (change("user id", LAST["user id"] + 2**40), "values that int32 holds for the input 'user_id'"),
    "two": ({**LAST, "user_id": LAST["user id"]}, "one array must be that of the input 'user_id'.*'user id' and"),
    "one array": (LAST["left"], "m.* must have one input.*Received: input shape"),
}


@pytest.mark.parametrize("form", WRONG)
def test_wrong_data_are_refused_by_the_name_of_the_input(form, file, y):
    x, message = WRONG[form]
    with pytest.raises((InputError, ModelError), match=message):
        tfkd.validate(file, (x, y[40:]), targets=["host"])


@pytest.mark.parametrize("target", ["host", "host:plain", "host:reference", "tflm"])
def test_accuracy_is_that_of_the_named_inputs(target, file, model, splits, logits):
    found = tfkd.validate(file, splits.test, reference=model, teacher=model, targets=[target])
    expected = (logits[40:].argmax(1) == splits.test.y).mean()
    assert [row.accuracy for row in found.rows] == [expected] * len(found.rows)
    assert found.rows[-1].agreement == 1
    if target == "host":
        record = json.loads(json.dumps(found.to_json()))
        assert record["test"]["input_shape"] == {"right": [4], "user id": [], "age": [], "left": [4]}
        jsonschema.validate(record, json.loads(resources.files("tfkd.report").joinpath("schema.json").read_text()))


def test_keras_model_with_other_names_is_refused(file, splits):
    named = [keras.Input((4,), name=name) for name in ("a", "left")]
    other = keras.Model(named, keras.layers.Dense(3)(keras.layers.Add()(named)))
    with pytest.raises(InputError, match="model 'teacher' has the inputs 'a' of shape.*and none of 'a'"):
        tfkd.validate(file, splits.test, teacher=other, targets=["host"])


def test_model_of_one_input_takes_its_array_from_several(splits, y, tmp_path):
    """A teacher may see more than its student."""
    left = keras.Input((4,), name="left")
    student = keras.Model(left, keras.layers.Dense(3)(left))
    train = data.as_split((FIRST, y[:40]), "train")
    found = tfkd.convert(student, tmp_path / "s.tflite", calibration=train)
    assert found.audit.classes_covered == 3
    rows = tfkd.validate(found, splits.test, reference=student, targets=["host"]).rows
    expected = (student.predict(LAST["left"], verbose=0).argmax(1) == splits.test.y).mean()
    assert rows[0].accuracy == expected


def test_calibration_refuses_test_samples_but_equal_ids(heads, splits, y, tmp_path):
    shared = data.from_arrays((FIRST, y[:40]), ({name: array[:20] for name, array in FIRST.items()}, y[:20])).train
    with pytest.raises(InputError, match="must share no sample with the test split"):
        tfkd.convert(heads[0], tmp_path / "m.tflite", calibration=shared)
    ids = {name: np.arange(40) % 4 for name in ("a", "b")}
    train = data.from_arrays((ids, y[:40]), (ids, y[:40])).train
    forms = tuple(ModelInput(name, (name,), (), "int32") for name in ids)
    audit = calibration.draw(train, calibration.Source(tmp_path, forms=forms), 40, 0, "full_int8").audit
    assert audit.overlap == len(train)
    assert f"{len(train)} samples are in the test split too" in audit.findings[1]


def test_difference_takes_a_dataset_of_dicts(file, y):
    dataset = tf.data.Dataset.from_tensor_slices((LAST, y[40:])).batch(6)
    (one,) = compare(file, file, dataset).comparisons
    assert one.a.accuracy == one.b.accuracy == 0.75


PROGRAM = """
#include <stdio.h>
#include "m.h"
int main(void) {
  for (int k = 0; k < M_INPUT_2_SIZE; ++k) printf("%.9g ", (double)m_input_2[1][k]);
  printf("%d %d", m_input[1][0], M_RAW_3_SIZE);
}
"""


def test_golden_vectors_hold_every_input(file, model, splits, tmp_path):
    vectors = golden.record(file, splits.test, samples=3)
    assert vectors.input_names == ("user_id", "right", "left", "age")
    rows = np.searchsorted(splits.test.ids, vectors.id)
    for array, name in zip((vectors.input, *vectors.other_inputs), ORDER, strict=True):
        np.testing.assert_array_equal(array.reshape(3, -1), LAST[name][rows].reshape(3, -1))
    expected = model.predict([X[name][40:][rows] for name in ORDER], verbose=0)
    np.testing.assert_allclose(vectors.output, expected, rtol=1e-5, atol=1e-5)
    vectors.save(tmp_path / "m")
    assert list(np.load(tmp_path / "m.npz"))[1:9] == [
        *(f"raw{i}" for i in ("", "_1", "_2", "_3")),
        *(f"input{i}" for i in ("", "_1", "_2", "_3")),
    ]
    record = json.loads((tmp_path / "m.json").read_text())
    assert record["input_2"] == {"name": "left", "dtype": "float32", "scales": [], "zero_points": []}
    (tmp_path / "main.c").write_text(PROGRAM)
    subprocess.run(["cc", "-std=c99", "-Wno-unused", "-o", tmp_path / "main", tmp_path / "main.c"], check=True)
    printed = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True).stdout.split()
    assert np.array_equal(np.float32(printed[:4]), LAST["left"][rows[1]])
    assert printed[4:] == [str(LAST["user id"][rows[1]]), "1"]


def test_explanation_names_inputs_and_judges_the_named_output(heads, splits):
    model, converted = heads
    outputs = model.predict(LAST, verbose=0)
    places = ["host:plain"]
    with pytest.raises(ModelError, match="the 2 outputs kind, value. Name one.*--output-name NAME"):
        tfkd.explain(model, converted, splits, targets=places)
    found = tfkd.explain(model, converted, splits, teacher=model, targets=places, output="kind")
    names = [finding.layer for finding in found.layers]
    assert names[:4] == [f"input {name}" for name in ("age", "left", "right", "user_id")]
    assert {"users", "kind", "value"} <= set(names)
    assert found.layers[names.index("users")].cause == "concatenated"
    assert "users: It uses " in "\n".join(found.lines())
    accuracy = (outputs["kind"].argmax(1) == splits.test.y).mean()
    assert [stage.accuracy for stage in found.stages[:2]] == [accuracy, accuracy]
    assert found.stages[2].accuracy == pytest.approx(accuracy, abs=0.1)
    assert found.stages[2].name == "host:plain"
    json.dumps(found.to_json())


def test_stored_labels_are_those_of_the_named_inputs(model, splits, logits, tmp_path):
    store = tfkd.SoftLabels.build(tmp_path / "labels", model, splits.test.take(np.arange(20)))
    np.testing.assert_allclose(store.read(splits.test.ids), logits[40:], atol=2e-3)
    (x, _), *_ = splits.test.batches(20, soft_labels=store)
    np.testing.assert_array_equal(x.student["left"], LAST["left"])
    with pytest.raises(ModelError, match="one array. Received: the inputs 'user id'"):
        tfkd.SoftLabels.build(tmp_path / "others", model, (LAST["left"], splits.test.y))
    with pytest.raises(InputError, match="an augmentation changes samples of one input. Received.*right"):
        splits.train.batches(4, augment=data.crop_flip())


def test_distiller_finds_inputs_by_name(model, splits, y):
    """Keras takes a dictionary with other keys, or more, in the order of its keys."""
    inputs, x = joined()
    student = keras.Model({tensor.name: tensor for tensor in inputs}, keras.layers.Dense(3)(x))
    distiller = tfkd.Distiller(student, model)
    distiller.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batch = {**LAST, "zone": np.zeros(20), "a first one": np.zeros((20, 4))}
    expected = student.predict(LAST, verbose=0)
    np.testing.assert_allclose(
        distiller({name: tf.constant(array) for name, array in batch.items()}), expected, rtol=1e-5
    )
    distiller.fit(batch, y[40:], verbose=0)
    history = distiller.fit(splits.train, validation_data=splits.val, verbose=0).history
    assert np.isfinite(history["val_loss"]).all()
    renamed = {**{name: FIRST[name] for name in ("right", "age", "user id")}, "port": FIRST["left"]}
    fresh = tfkd.Distiller(student, model)
    fresh.compile("sgd", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    with pytest.raises(InputError, match="the student has the inputs.*and none of 'left' of shape"):
        fresh.fit(renamed, y[:40], verbose=0)
    with pytest.raises(
        InputError, match="values of the type int32 for the input 'user id'.*Received: float32. Convert"
    ):
        fresh.fit({**FIRST, "user id": FIRST["user id"].astype("float32")}, y[:40], verbose=0)


@pytest.fixture(scope="module")
def archive(y, tmp_path_factory):
    path = tmp_path_factory.mktemp("archive") / "pairs.npz"
    parts = {f"x_{role}/{name}": array for role, x in (("train", FIRST), ("test", LAST)) for name, array in x.items()}
    np.savez(path, **parts, y_train=y[:40], y_test=y[40:])
    return path


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        (("age", "left"), ("left", "right"), r"the same inputs\. Received: age, left, and left, right"),
        (("left",), ("right",), r"the same inputs\. Received: left, and right"),
        (("age", "left"), ("left", "age"), "must not be empty. Received: 0 samples"),
    ],
    ids=["names", "one-name", "empty"],
)
def test_wrong_archive_is_refused(train, test, message, y, tmp_path):
    parts = {f"x_train/{name}": X[name][:40] for name in train} | {f"x_test/{name}": X[name][:0] for name in test}
    np.savez(tmp_path / "a.npz", **parts, y_train=y[:40], y_test=y[:0])
    with pytest.raises(InputError, match=message):
        data.load(tmp_path / "a.npz")


def test_equal_samples_are_found_in_any_order_of_the_inputs(y):
    turned = dict(reversed(FIRST.items()))
    splits = data.from_arrays((FIRST, y[:40]), (turned, y[:40]), name="copies", validation=0)
    assert len(splits.train.overlap(splits.test)) == 40
    hashes = {data.as_split((x, y[:40]), "train").content_hash for x in (FIRST, turned)}
    assert len(hashes) == 1


def test_samples_without_an_array_are_refused(y):
    with pytest.raises(InputError, match="x_test: samples must have an array for each input. Received: an empty dict"):
        data.from_arrays((FIRST, y[:40]), ({}, y[40:]))


@pytest.mark.parametrize("names", [("left", "right"), ("left", "pairs")], ids=" ".join)
def test_samples_with_inputs_of_other_names_are_refused(names, y):
    train, test = ({name: X["left"]} if name != "pairs" else X for name in names)
    with pytest.raises(InputError, match="pairs: x_train and x_test must have the same inputs. Received: left, and "):
        data.from_arrays((train, y), (test, y), name="pairs")


def run(*arguments):
    return CliRunner().invoke(cli.app, [*map(str, arguments)])


def test_commands_take_an_archive_with_an_array_for_each_input(archive, file, heads, model, tmp_path):
    model.save(tmp_path / "m.keras")
    result = run(
        "convert",
        tmp_path / "m.keras",
        tmp_path / "n.tflite",
        "--mode",
        "float32",
        "--calibration",
        archive,
        "--golden",
        2,
    )
    assert result.exit_code == 0, result.output
    assert "input_3" in np.load(tmp_path / "n.golden.npz")
    options = ["--data", archive, "--target", "host", "--json"]
    validated = run(
        "validate", file.path, *options, "--reference", tmp_path / "m.keras", "--report", tmp_path / "r.html"
    )
    assert validated.exit_code == 0, validated.output
    assert [row["accuracy"] for row in json.loads(validated.stdout)["rows"]] == [0.75, 0.75]
    assert "75.0" in (tmp_path / "r.html").read_text()
    assert json.loads(run("diff", file.path, file.path, *options).stdout)["comparisons"][0]["a"]["accuracy"] == 0.75
    heads[0].save(tmp_path / "h.keras")
    explained = run("explain", tmp_path / "h.keras", heads[1].path, *options, "--output-name", "kind")
    assert json.loads(explained.stdout)["stages"][0]["accuracy"] is not None


def test_served_page_has_an_array_for_each_input(file, splits, tmp_path):
    phone = targets.get("browser:wait,address=127.0.0.1", litert_js=str(node_modules(tmp_path)), timeout_s=60)
    urls = queue.Queue()
    with concurrent.futures.ThreadPoolExecutor() as pool:
        start = {"most": 1, "on_start": lambda devices, live: urls.put(devices)}
        served = pool.submit(visits.serve, file, splits.test, phone, **start)
        arrays = file_inputs.quantized(file, splits.test.x, "test")
        outputs = targets.get("host:plain").run(file, arrays, latency=False).outputs
        page = Page(urls.get(timeout=60), file, arrays, list(outputs))
        status, shown = page.send(page.record())
        assert (status, dict(shown["facts"])["Accuracy"]) == (200, "75.00 %")
        found = visits.validate_visits(file, splits.test, served.result(timeout=60))
    assert [row.accuracy for row in found.rows] == [0.75, 0.75]


def test_pixels_of_one_input_are_scaled():
    image, age = keras.Input((2, 2, 3), name="image"), keras.Input((1,), name="age")
    model = keras.Model([image, age], keras.layers.Concatenate()([keras.layers.Flatten()(image), age]))
    scaled = tfkd.models.load(model, input_range={"image": (-1, 1)})
    pixels = RNG.integers(0, 256, (2, 2, 2, 3)).astype("float32")
    found = scaled([pixels, np.array([[255.0], [0.0]], "float32")]).numpy()
    np.testing.assert_allclose(found, np.c_[pixels.reshape(2, -1) / 127.5 - 1, [255, 0]], atol=1e-5)
    with pytest.raises(InputError, match="of a model with the inputs image, age must name the input"):
        tfkd.models.load(model, input_range=(0, 1))
    with pytest.raises(InputError, match="must name inputs of the model, image, age. Received: 'picture'"):
        tfkd.models.load(model, preprocess={"picture": "tf"})


def test_signature_has_the_keys_of_a_dict(tmp_path):
    """Where Keras takes a dictionary by its keys, tensors of other names must not exchange them."""
    first, second = keras.Input((2,), name="b"), keras.Input((2,), name="a")
    with pytest.warns(UserWarning, match="must match the names"):
        model = keras.Model({"a": first, "b": second}, 3 * first + second)
    converted = tfkd.convert(model, tmp_path / "m.tflite", mode="float32")
    assert signatures.inputs_in_order(converted.content) == ["a", "b"]
    x = {"a": np.array([[1, 2]], "float32"), "b": np.array([[30, 40]], "float32")}
    arrays = [x[name] for name in signatures.inputs_in_order(converted.content)]
    found = targets.get("host").run(converted, arrays, latency=False).outputs[0]
    np.testing.assert_allclose(found, 3 * x["a"] + x["b"])
    assert NamedArrays(x).shapes == {"a": (2,), "b": (2,)}
