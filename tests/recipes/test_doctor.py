"""Each fault that the doctor knows is planted, and found with its evidence; a sound recipe has no finding."""

import json
import shutil

import keras
import numpy as np
import pytest
from typer.testing import CliRunner

import tfkd
from tfkd import cli
from tfkd.data.augmentation import crop_flip
from tfkd.errors import ToolMissingError
from tfkd.recipes import data_examination, doctor, recipe, teacher_examination

DIGITS = tfkd.data.load("digits")


@keras.saving.register_keras_serializable(package="test_doctor")
class AlwaysTraining(keras.layers.Layer):
    """Runs a layer in training mode, whatever `training` is."""

    def __init__(self, layer, **options):
        super().__init__(**options)
        self.layer = keras.saving.deserialize_keras_object(layer) if isinstance(layer, dict) else layer

    def build(self, shape):
        if not self.layer.built:
            self.layer.build(shape)

    def call(self, x, training=False):
        return self.layer(x, training=True)

    def get_config(self):
        return {**super().get_config(), "layer": keras.saving.serialize_keras_object(self.layer)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, digits_teacher_file):
    """A folder with sound.keras, a trained teacher."""
    folder = tmp_path_factory.mktemp("doctor")
    shutil.copy(digits_teacher_file, folder / "sound.keras")
    return folder


@pytest.fixture(scope="module", autouse=True)
def student_examined_once():
    """Examines the same student, data, targets and limits once: each examination converts the student."""
    examine, known = doctor._examine_student, {}
    parts = {"data", "student", "conversion", "optimization", "targets", "contract", "seed"}

    def once(recipe, splits):
        key = json.dumps(recipe.model_dump(include=parts), default=str, sort_keys=True)
        if key not in known:
            known[key] = tuple(examine(recipe, splits))
        yield from known[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(doctor, "_examine_student", once)
        yield


def changed(folder, name, change):
    """Saves the sound teacher after a change of its outputs or inputs."""
    sound = keras.saving.load_model(folder / "sound.keras")
    inputs = keras.Input((8, 8, 1))
    keras.Model(inputs, change(sound, inputs)).save(folder / f"{name}.keras")
    return f"{name}.keras"


def findings(
    folder,
    teacher="sound.keras",
    *,
    declared="",
    data='name = "digits"',
    distillation="",
    contract="",
    student="digits_student",
    targets='names = ["tflm"]',
):
    path = folder / "recipe.toml"
    path.write_text(
        f'output = "{folder}/out"\n[data]\n{data}\n[teacher]\npath = "{folder}/{teacher}"\n{declared}\n'
        f'[student]\nmodel = "{student}"\n[distillation]\n{distillation}\n[targets]\n{targets}\n'
        f"[contract]\n{contract}\n"
    )
    return doctor.examine(recipe.load(path))


def only(found, severity, what):
    assert [(one.severity, one.what) for one in found] == [(severity, what)]
    return found[0].evidence


def test_sound_recipe_has_no_finding(folder):
    assert findings(folder, contract="max_bytes = 20000\nmax_arena_bytes = 20000") == []


def test_softmax_teacher_with_its_range_declared_has_no_finding(folder):
    def change(model, x):
        return keras.layers.Softmax()(model(keras.layers.Rescaling(16.0)(x)))

    teacher = changed(folder, "softmax", change)  # digits have the values 0..16
    assert findings(folder, teacher, declared="input_range = [0, 15.9375]") == []


def test_probabilities_without_an_inverse_are_found(folder):
    teacher = changed(folder, "sparsemax", lambda model, x: keras.layers.Activation("sparsemax")(model(x)))
    only(findings(folder, teacher), "error", "The teacher's outputs cannot be used.")


def test_weights_file_of_the_teacher_that_is_missing_is_found_without_data(tmp_path):
    path = tmp_path / "r.toml"
    path.write_text(
        f'output = "{tmp_path}/out"\n[data]\npath = "{tmp_path}/none"\n'
        f'[teacher]\nmodel = "resnet50"\noptions = {{ weights = "{tmp_path}/none.h5" }}\nepochs = 0\n'
        '[student]\nmodel = "digits_student"\n[targets]\nnames = ["host"]\n'
    )
    found = {one.what: one.evidence for one in doctor.examine(recipe.load(path))}
    assert set(found) == {"The data cannot be read.", "The weights file of the teacher does not exist."}
    assert found["The weights file of the teacher does not exist."] == f"{tmp_path}/none.h5"


def test_faults_of_teacher_and_student_are_found_in_one_pass(folder):
    range_fault = changed(
        folder, "range", lambda model, x: keras.layers.Activation("sparsemax")(model(keras.layers.Rescaling(255.0)(x)))
    )
    student = changed(folder, "hard", lambda model, x: keras.layers.Activation("hard_sigmoid")(model(x)))
    path = folder / "both.toml"
    path.write_text(
        f'output = "{folder}/out"\n[data]\nname = "digits"\n'
        f'[teacher]\npaths = ["{folder}/{range_fault}", "none.keras"]\n'
        f'[student]\npath = "{folder}/{student}"\n[distillation]\nalpha = 0\n[targets]\nnames = ["host:plain"]\n'
        "[contract]\nmax_bytes = 2000\n"
    )
    assert {one.what for one in doctor.examine(recipe.load(path))} == {
        "The teacher's outputs cannot be used.",
        "The teacher expects inputs of another range.",
        "The teacher cannot be loaded.",
        "The student's outputs cannot be used.",
        "The student is larger than the contract allows.",
        "The teacher is not used.",
    }


@pytest.mark.parametrize(
    ("teacher", "student", "severity"),
    [((0.95, 100), 0.95, None), ((0.9, 100), 0.94, "warning"), ((0.6, 100), 0.94, "error"), ((None, 0), 0.94, None)],
)
def test_teacher_that_is_less_accurate_than_the_student_is_found(teacher, student, severity):
    examination = teacher_examination.Examination((), *teacher)
    finding = teacher_examination.compare_with_student(examination, student, 100)
    assert (finding and finding.severity) == severity


def test_hard_sigmoid_at_the_end_of_a_student_is_found(folder):
    student = changed(folder, "sigmoid", lambda model, x: keras.layers.Activation("hard_sigmoid")(model(x)))
    path = folder / "sigmoid.toml"
    path.write_text(
        f'output = "{folder}/out"\n[data]\nname = "digits"\n[teacher]\npath = "{folder}/sound.keras"\n'
        f'[student]\npath = "{folder}/{student}"\n[targets]\nnames = ["host:plain"]\n'
    )
    found = doctor.examine(recipe.load(path))
    assert "student must return logits" in only(found, "error", "The student's outputs cannot be used.")


def test_dropout_left_on_is_found(folder):
    teacher = changed(folder, "dropout", lambda model, x: model(AlwaysTraining(keras.layers.Dropout(0.3))(x)))
    found = [one for one in findings(folder, teacher) if one.what == "The teacher runs in training mode."]
    assert found[0].severity == "error"
    assert "from call to call" in found[0].evidence


def test_normalization_over_the_batch_is_found(folder):
    teacher = changed(folder, "batch", lambda model, x: AlwaysTraining(keras.layers.BatchNormalization())(model(x)))
    found = [one for one in findings(folder, teacher) if one.what == "The teacher runs in training mode."]
    assert "with the rest of the batch" in found[-1].evidence


def test_untrained_teacher_is_no_better_than_chance(folder):
    keras.utils.set_random_seed(0)
    tfkd.models.digits_teacher((8, 8, 1), 10).save(folder / "untrained.keras")
    only(findings(folder, "untrained.keras"), "error", "The teacher is not better than a constant answer.")


def test_permuted_classes_are_found_and_the_order_is_named(folder):
    order = [1, 0, 3, 4, 2, 6, 5, 9, 7, 8]
    teacher = changed(folder, "permuted", lambda model, x: keras.ops.take(model(x), order, axis=-1))
    evidence = only(findings(folder, teacher), "error", "The teacher's classes are in another order than the labels.")
    for output, label in enumerate(order):
        assert f"label {label} is output {output}" in evidence


def test_input_of_another_range_is_found(folder):
    teacher = changed(folder, "range", lambda model, x: model(keras.layers.Rescaling(255.0)(x)))
    evidence = only(findings(folder, teacher), "error", "The teacher expects inputs of another range.")
    assert "of the same samples divided by 255, " in evidence


def test_teacher_of_another_input_is_found(folder):
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(10)]).save(folder / "other.keras")
    only(findings(folder, "other.keras"), "error", "The teacher does not fit the data.")


def arrays(folder, name, x_train, y_train, x_test, y_test):
    np.savez(folder / name, x_train=x_train, y_train=y_train, x_test=x_test, y_test=y_test)
    return f'path = "{folder / name}"'


def test_leak_between_train_and_test_is_found(folder):
    train, test = DIGITS.train, DIGITS.test
    x, y = np.concatenate([train.x, test.x[:40]]), np.concatenate([train.y, test.y[:40]])
    source = arrays(folder, "leak.npz", x, y, test.x, test.y)
    found = findings(folder, data=source)
    leaks = [one for one in found if "are in test too" in one.what]
    assert leaks
    assert not any("cannot be converted" in one.what for one in found)  # the layers are not at fault
    assert sum(int(one.evidence.split()[0]) for one in leaks) == 40


def test_photo_of_the_training_part_in_the_test_part_is_found_and_named(tmp_path):
    from tests.data.test_resemblance import scene, variants

    for part, seeds in (("train", range(12)), ("test", range(50, 54))):
        for seed in seeds:
            (tmp_path / part / "ab"[seed % 2]).mkdir(parents=True, exist_ok=True)
            scene(seed).save(tmp_path / part / "ab"[seed % 2] / f"{seed}.png")
    variants(scene(4))[1].save(tmp_path / "test" / "a" / "copy.png")
    (finding,) = data_examination.examine_resemblance(tfkd.data.load(tmp_path, validation=0))
    assert (finding.severity, finding.what) == ("warning", "Images of train resemble images of test.")
    assert finding.evidence.startswith("1 of 5 test images that were compared with 12, such as ")
    assert finding.evidence.endswith("test/a/copy.png and train/a/4.png")


def test_few_samples_of_a_class_are_found(folder):
    train, test = DIGITS.train, DIGITS.test
    keep = np.concatenate([np.flatnonzero(train.y != 3), np.flatnonzero(train.y == 3)[:10]])
    source = arrays(folder, "few.npz", train.x[keep], train.y[keep], test.x, test.y)
    evidence = only(findings(folder, data=source), "warning", "Some classes have few samples.")
    assert evidence.startswith("1 below 20: 3 (")


@pytest.mark.parametrize(
    ("per_class", "validation"), [pytest.param(3, 0.1, marks=pytest.mark.campaign), (12, 0.1), (12, 0.9)]
)
def test_data_with_few_validation_samples_is_examined(folder, per_class, validation):
    """A few samples of each class: 10, 10 or 100 for validation."""
    keep = np.concatenate([np.flatnonzero(DIGITS.train.y == label)[:per_class] for label in range(10)])
    train, test = DIGITS.train, DIGITS.test
    source = arrays(folder, "tiny.npz", train.x[keep], train.y[keep], test.x, test.y)
    found = findings(folder, data=f"{source}\nvalidation = {validation}")
    few = [one for one in found if one.what.startswith("Too few validation samples")]
    samples = tfkd.data.load(folder / "tiny.npz", validation=validation).val
    assert bool(few) == (len(samples) < 20)
    assert {one.severity for one in found} == {"warning"}


@pytest.mark.parametrize("samples", [1, 3, 15])
def test_teacher_in_training_mode_is_found_with_few_samples(folder, samples):
    teacher = keras.saving.load_model(
        folder / changed(folder, "few", lambda model, x: model(AlwaysTraining(keras.layers.Dropout(0.5))(x)))
    )
    x = DIGITS.val.x[:samples].astype("float32")
    found = list(teacher_examination._examine_mode(teacher, x, np.asarray(teacher(x))))
    assert {one.what for one in found} == {"The teacher runs in training mode."}


def test_unavailable_optional_target_is_a_warning(folder, monkeypatch):
    def fail(target):
        raise ToolMissingError("tflite-micro is not installed")

    monkeypatch.setattr("tfkd.targets.tflm.TFLM.__post_init__", fail)
    evidence = only(findings(folder, targets=""), "warning", "The target tflm is unavailable.")
    assert "not installed" in evidence
    only(
        findings(folder, targets='names = ["host"]\noptional = ["tflm"]'), "warning", "The target tflm is unavailable."
    )
    evidence = only(findings(folder, targets='names = ["tflm", "host"]'), "error", "The target tflm is unavailable.")
    assert "not installed" in evidence


def test_accelerator_that_does_not_take_the_student_is_a_warning(folder):
    targets = 'names = ["host"]\naccelerators = ["edgetpu", "gpu"]\n[conversion]\nmodes = ["float32"]\nship = "float32"'
    what = "Edge TPU does not take all of the student, by an estimate."
    assert "0 % of the multiply-accumulates there; CONV_2D" in only(findings(folder, targets=targets), "warning", what)
    with pytest.raises(ValueError, match="must be of .*edgetpu.* Received: 'edge_tpu'"):
        findings(folder, targets='accelerators = ["edge_tpu"]')


def test_unreadable_data_does_not_hide_the_other_faults(folder):
    found = findings(
        folder, "none.keras", data='path = "none.npz"', distillation="alpha = 0", targets='names = ["no_such"]'
    )
    assert {one.what for one in found} == {
        "The data cannot be read.",
        "The teacher cannot be loaded.",
        "The target no_such is unavailable.",
        "The teacher is not used.",
    }


@pytest.mark.campaign
def test_own_builder_that_ends_in_softmax_is_sound(folder, own_module):
    mine = own_module(
        "import keras\n"
        "def student(shape, classes):\n"
        "    x = keras.Input(shape)\n"
        "    y = keras.layers.Dense(classes, activation='softmax')(keras.layers.Flatten()(x))\n"
        "    return keras.Model(x, y)\n"
    )
    assert findings(folder, student=f"{mine}:student", targets='names = ["host:plain"]') == []


@pytest.mark.parametrize(
    ("distillation", "what"),
    [
        ("alpha = 0", "The teacher is not used."),
        ("alpha = 1", "The labels are not used."),
        ("temperature = 0.1", "The temperature is unusual."),
        ("temperature = 100", "The temperature is unusual."),
    ],
)
def test_unusual_settings_are_found(folder, distillation, what):
    only(findings(folder, distillation=distillation), "warning", what)


def test_student_that_breaks_the_contract_is_found_before_training(folder):
    found = findings(folder, contract="max_bytes = 2000\nmax_arena_bytes = 1000")
    assert [one.what for one in found] == [
        "The student is larger than the contract allows.",
        "The student needs more memory than the contract allows.",
    ]
    assert "the limit is 2,000" in found[0].evidence


def test_student_that_inherits_is_examined_itself_not_its_source(folder):
    """The source is a teacher of more bytes than the contract allows."""
    heir = f'digits_student"\ninherit = "{folder}/sound.keras"\nlayers = {{ block2_pointwise_bn = "LAYER" }}\n# '
    assert findings(folder, contract="max_bytes = 20000", student=heir.replace("LAYER", "conv1_bn")) == []
    evidence = only(findings(folder, student=heir.replace("LAYER", "conv9")), "error", "The student cannot be built.")
    assert "'digits_teacher' has no layer 'conv9'" in evidence


def test_optimization_that_does_not_take_the_student_is_found(folder):
    contract = '[optimization]\nmethod = "qat"\noptions = { int8_layers = ["stem"], weight_bits = 4 }'
    evidence = only(findings(folder, contract=contract), "error", "An optimization does not support the student.")
    assert "Received: 'stem'" in evidence


def test_teacher_worse_than_an_earlier_student_is_found(folder):
    (folder / "out").mkdir(exist_ok=True)
    (folder / "out" / "state.json").write_text(json.dumps({"student-alone-0": {"record": {"val_accuracy": 1.01}}}))
    try:
        only(findings(folder), "warning", "The teacher is less accurate than the student alone.")
    finally:
        (folder / "out" / "state.json").unlink()


def test_stale_labels_are_found(folder):
    teacher = keras.saving.load_model(changed(folder, "old", lambda model, x: 2 * model(x)) and folder / "old.keras")
    store = tfkd.SoftLabels.build(folder / "out" / "labels-1", teacher, DIGITS.train, augment=crop_flip(1))
    evidence = only(findings(folder), "warning", "Stored soft labels are stale.")
    assert "another teacher" in evidence
    assert store.path in evidence


def test_command_prints_findings_and_has_their_exit_status(folder):
    findings(folder)
    result = CliRunner().invoke(cli.app, ["doctor", str(folder / "recipe.toml"), "--json"])
    assert result.exit_code == 0, result.output
    findings(folder, contract="max_bytes = 2000")
    result = CliRunner().invoke(cli.app, ["doctor", str(folder / "recipe.toml")])
    assert result.exit_code == 1
    assert "error: The student is larger than the contract allows." in result.output
