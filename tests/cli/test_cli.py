"""The commands: exit status, output, and that they load no TensorFlow without need."""

import dataclasses
import errno
import json
import random
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import keras
import pytest
import typer.main
from typer.testing import CliRunner

import tfkd
from tests.random_ops import Ops
from tfkd import cli, models
from tfkd.cli import application
from tfkd.errors import DeviceError, InputError, ModelError, ToolMissingError
from tfkd.validation.contract import Contract

COMMANDS: dict[str, Any] = typer.main.get_command(cli.app).commands  # type: ignore[attr-defined]


def tfkd_cli(*arguments):
    return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    """A folder with student.keras (untrained) and student.tflite."""
    folder = tmp_path_factory.mktemp("cli")
    models.build("digits_student", (8, 8, 1), 10).save(folder / "student.keras")
    done = tfkd_cli("convert", folder / "student.keras", folder / "student.tflite", "--calibration", "digits")
    assert done.exit_code == 0, done.output
    return folder


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_help_of_each_command_has_an_example_and_a_text_for_each_option(name):
    result = tfkd_cli(name, "--help")
    assert result.exit_code == 0
    assert f"Example: tfkd {name}" in result.output
    assert all(parameter.help for parameter in COMMANDS[name].params)


@pytest.mark.parametrize(
    ("name", "arguments", "advice"),
    [
        ("convert", "Pass allow_mismatch=True or check=False.", "Pass --allow-mismatch or --no-check."),
        ("convert", "Pass allow_float=True.", "Pass --allow-float."),
        ("label", "Pass flip=False, image_size=(96, 64) or skip_broken=True.",
         "Pass --no-flip, --image-size 96 64 or --skip-broken."),
    ],
)  # fmt: skip
def test_advice_names_the_options_of_the_command(name, arguments, advice):
    assert application._as_options(arguments, application._options_of(name)) == advice
    accepted = {option for one in COMMANDS[name].params for option in (*one.opts, *one.secondary_opts)}
    assert {*re.findall(r"--[\w-]+", advice)} <= accepted


def test_each_command_is_a_module_in_the_order_of_the_import():
    modules = {path.stem for path in Path(cli.__file__).parent.glob("*.py")}
    shared = {path for path in modules if path.endswith("_options")} | {
        "__init__",
        "__main__",
        "application",
        "option_groups",
    }
    assert {name.replace("-", "_") for name in COMMANDS} == modules - shared
    listed = re.findall(r"^  ([a-z-]+)  ", tfkd_cli("--help").output.split("Commands:")[1], re.MULTILINE)
    assert listed[:3] == ["init", "doctor", "run"]


def test_help_loads_no_tensorflow():
    code = (
        "import sys, typer.testing, tfkd.cli as c; typer.testing.CliRunner().invoke(c.app, ['--help']);"
        "print([m for m in ('tensorflow', 'keras', 'sklearn', 'matplotlib') if m in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_validate_without_a_keras_model_loads_no_tensorflow(digits_int8):
    code = (
        "import sys, typer.testing, tfkd.cli as c; done = typer.testing.CliRunner().invoke(c.app, sys.argv[1:]);"
        "print(done.exit_code, {'tensorflow', 'keras', 'sklearn', 'scipy.stats', 'matplotlib'} & set(sys.modules))"
    )
    words = ["validate", digits_int8.path, "--target", "host", "--min-accuracy", "0"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout == "0 set()\n"


def test_version_is_printed():
    assert tfkd_cli("--version").output == f"tfkd {tfkd.__version__}\n"


def test_train_and_distill_write_models(tmp_path):
    teacher, student = tmp_path / "teacher.keras", tmp_path / "student.keras"
    bad = "--allow-bad-teacher"  # it is trained for one epoch
    trained = tfkd_cli("train", "digits_student", "--out", teacher, "--epochs", 1, "--json")
    assert trained.exit_code == 0, trained.output
    result = json.loads(trained.stdout)
    assert len(result["history"]["val_accuracy"]) == 1
    assert result["val_accuracy"] == pytest.approx(result["history"]["val_accuracy"][-1], abs=1e-6)
    done = tfkd_cli(
        "distill", "--teacher", teacher, "--student", "digits_student", "--out", student, "--epochs", 1, bad
    )
    assert done.exit_code == 0, done.output
    assert models.load(student).output_shape == (None, 10)


def test_softmax_models_of_scaled_pixels_are_distilled_and_the_softmax_comes_back(tmp_path):
    paths = {name: tmp_path / f"{name}.keras" for name in ("teacher", "student", "trained")}
    for name in ("teacher", "student"):
        models.with_softmax(models.build("digits_student", (8, 8, 1), 10)).save(paths[name])
    arguments = ("distill", "--teacher", paths["teacher"], "--student", paths["student"], "--epochs", 1)
    optimizer = ("--optimizer", "adamw", "--warmup", 0.1, "--clip-norm", 1)
    declared = ("--teacher-range", "-1,1", "--student-range", "0,1", "--output", "softmax", "--allow-bad-teacher")
    done = tfkd_cli(*arguments, "--out", paths["trained"], *optimizer, *declared)
    assert done.exit_code == 0, done.output
    layers = models.read(paths["trained"]).layers
    assert (layers[1].name, layers[1].scale, layers[-1].name) == ("input_scaling", 1 / 255, "probabilities")
    for output, ops in (((), 1), (("--output", "softmax"), 1), (("--output", "logits"), 0)):
        file = tmp_path / "model.tflite"
        made = tfkd_cli("convert", paths["trained"], file, "--mode", "float32", "--overwrite", "--json", *output)
        assert made.exit_code == 0, made.output
        assert json.loads(made.stdout)["ops"].get("SOFTMAX", 0) == ops


def test_file_of_scaled_pixels_is_converted_explained_and_compared_with_its_range(digits_files, tmp_path):
    trained = keras.saving.load_model(digits_files["student"])
    inputs = keras.Input((8, 8, 1))
    scaled = keras.Model(inputs, keras.layers.Softmax()(trained(keras.layers.Rescaling(255.0)(inputs))))
    scaled.save(tmp_path / "scaled.keras")
    declared = ("--student-range", "0,1")
    file = tmp_path / "scaled.tflite"
    made = tfkd_cli("convert", tmp_path / "scaled.keras", file, "--calibration", "digits", *declared)
    assert made.exit_code == 0, made.output
    arguments = ("validate", file, "--reference", tmp_path / "scaled.keras", "--target", "host", "--json")
    rows = json.loads(tfkd_cli(*arguments, "--alone", tmp_path / "scaled.keras", *declared).stdout)["rows"]
    assert rows[0]["accuracy"] > 0.5
    assert [row["accuracy"] for row in rows] == pytest.approx([rows[0]["accuracy"]] * len(rows), abs=0.02)
    assert rows[-1]["agreement"] > 0.97
    explained = tfkd_cli("explain", tmp_path / "scaled.keras", file, "--target", "host", *declared, "--json")
    assert explained.exit_code == 0, explained.output
    assert json.loads(explained.stdout)["stages"][0]["accuracy"] == rows[0]["accuracy"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("convert", "none.keras", "out.tflite", "--output", "sigmoid"), "--output must be logits or softmax"),
        (("convert", "none.keras", "out.tflite", "--input-shape", "96x96"), "--input-shape must be numbers > 0"),
        (
            ("train", "digits_student", "--out", "x.keras", "--optimizer", "adagrad"),
            "optimizer must be one of adam",
        ),
        (("train", "digits_student", "--out", "x.keras", "--warmup", "0.1", "--schedule", "step"), "warmup needs"),
        (("label", "--teacher", "t.keras", "--out", "x", "--teacher-range", "1"), "--teacher-range must be LOW,HIGH"),
        (("convert", "none.keras", "o.tflite", "--student-range", "1,1"), "--student-range must be LOW,HIGH"),
        (("run", "none.toml"), "none.toml: must be a recipe file"),
        (("convert", "none.keras", "out.tflite"), "none.keras"),
        (("train", "digits_studnt", "--out", "x.keras"), "Did you mean 'digits_student'"),
        (("train", "digits_student", "--out", "x.h5"), "x.h5: must be a .keras file"),
        (("validate", "none.tflite"), "none.tflite"),
        (("validate", "x.tflite", "--max-bytes", "0"), "max_bytes must be"),
        (("benchmark", "none.tflite"), "none.tflite"),
        (("report", "none", "--out", "x.html"), "none: must be a report in JSON"),
        (("run",), "Missing argument"),
    ],
)
def test_bad_input_is_status_2_without_traceback(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    result = tfkd_cli(*arguments)
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize("command", ["validate", "diff"])
def test_model_of_several_inputs_is_refused_for_data_of_one(command, tmp_path):
    made = Ops(random.Random(0))
    (tmp_path / "two.tflite").write_bytes(made.bytes(made.comparison(made.input((1, 3)), "LESS", made.input((1, 3)))))
    result = tfkd_cli(command, *[tmp_path / "two.tflite"] * (2 if command == "diff" else 1), "--data", "digits")
    assert result.exit_code == 2
    assert "must have one input and one output. Received: input shape [(1, 3), (1, 3)]" in result.stderr
    assert "in a .npz file x_test/NAME" in result.stderr


def test_existing_output_needs_overwrite(student):
    arguments = ("convert", student / "student.keras", student / "student.tflite", "--mode", "float32")
    refused = tfkd_cli(*arguments)
    assert refused.exit_code == 2
    assert "student.tflite already exists" in refused.stderr


def test_validate_status_follows_the_contract(digits_int8, tmp_path):
    arguments = ("validate", digits_int8.path, "--target", "tflm", "--min-accuracy", "50")
    page = tmp_path / "report.html"
    holds = tfkd_cli(*arguments, "--max-bytes", 100_000, "--report", page)
    assert holds.exit_code == 0, holds.output
    assert "Verdict: SHIP" in holds.output
    assert page.exists()
    broken = tfkd_cli(*arguments, "--max-bytes", 100, "--samples", 60, "--json")
    assert broken.exit_code == 1
    assert json.loads(broken.stdout)["verdict"]["status"] == "NO"
    assert json.loads(broken.stdout)["test"]["samples"] == 60
    unknown = tfkd_cli(*arguments, "--max-p90-ms", 100)
    assert unknown.exit_code == 1
    assert "Verdict: UNKNOWN" in unknown.output
    assert tfkd_cli(*arguments, "--report", page).exit_code == 2


def test_validate_of_an_untrained_model_is_no_whatever_the_contract_says(student):
    arguments = ("validate", student / "student.tflite", "--target", "tflm")
    for limits in ((), ("--max-bytes", 100_000), ("--min-accuracy", 0)):
        done = tfkd_cli(*arguments, *limits)
        assert done.exit_code == 1
        assert "student is not better than a constant answer: " in done.output


def test_validate_compares_with_teacher_and_student_alone(digits_int8, digits_files):
    arguments = ("validate", digits_int8.path, "--target", "tflm", "--max-drop-from-teacher", 50)
    unknown = tfkd_cli(*arguments)
    assert "accuracy drop from the teacher. The teacher (--teacher) is needed" in unknown.output
    files = ("--teacher", digits_files["teacher"], "--alone", digits_files["student"])
    done = tfkd_cli(*arguments, *files, "--min-gain-over-alone", 20, "--confident", "--json")
    verdict = json.loads(done.stdout)["verdict"]
    assert (verdict["status"], verdict["binding"]) == ("NO", "min_gain_over_alone")
    assert {check["name"]: check["status"] for check in verdict["checks"]}["max_drop_from_teacher"] == "holds"


def test_validate_scales_the_pixels_of_a_teacher_as_declared(digits_int8, digits_files, tmp_path):
    model = models.read(digits_files["teacher"])
    undone = keras.layers.Rescaling(255.0)
    keras.Sequential([keras.Input((8, 8, 1)), undone, model]).save(tmp_path / "scaled.keras")
    arguments = ("validate", digits_int8.path, "--target", "tflm", "--teacher", tmp_path / "scaled.keras", "--json")
    accuracy = {}
    for name, options in (("pixels", ()), ("scaled", ("--teacher-range", "0,1"))):
        done = tfkd_cli(*arguments, "--max-drop-from-teacher", 50, *options)
        accuracy[name] = json.loads(done.stdout)["rows"][0]["accuracy"]
    assert accuracy["scaled"] > 0.9
    assert accuracy["pixels"] < accuracy["scaled"]


def test_report_rewrites_a_json_report(digits_int8, tmp_path):
    source = tmp_path / "report.json"
    done = tfkd_cli("validate", digits_int8.path, "--target", "tflm", "--report", source)
    assert done.exit_code == 0, done.output
    assert tfkd_cli("report", source, "--out", tmp_path / "again.md").exit_code == 0
    assert "tflm" in (tmp_path / "again.md").read_text()
    assert tfkd_cli("report", tmp_path, "--out", tmp_path / "again.md").exit_code == 2  # it exists by now


def test_benchmark_gives_the_curve_of_a_server(student):
    done = tfkd_cli("benchmark", student / "student.tflite", "--target", "host", "--batch", "1", "--batch", "16")
    head, one, many = done.stdout.strip().splitlines()
    assert head.split() == ["model", "target", "p50", "p90", "p99", "runs", "samples/s"]
    assert re.match(r"student.tflite +host +[\d.]+ [mµ]s ", one)
    assert re.match(r"student.tflite +host,batch=16 .* [\d,]+$", many)


def test_benchmark_sets_graphs_beside_the_tflite(student, tmp_path):
    models.load(student / "student.keras").export(tmp_path / "saved", verbose=False)
    paths = (student / "student.tflite", student / "student.keras", tmp_path / "saved")
    done = tfkd_cli("benchmark", *paths, "--threads", "2", "--batch", "16", "--json")
    assert done.exit_code == 0, done.output
    runs = json.loads(done.stdout)
    assert [run["model"] for run in runs] == [str(path) for path in paths]
    assert [run["target"] for run in runs] == ["host,threads=2,batch=16", *2 * ["tensorflow,threads=2,batch=16"]]
    assert all(run["latency"]["count"] >= 50 and run["setting"]["timed_batch"] == 16 for run in runs)
    assert runs[2]["model_bytes"] == sum(one.stat().st_size for one in paths[2].rglob("*") if one.is_file())


def test_benchmark_refuses_what_is_no_graph(tmp_path):
    (tmp_path / "empty").mkdir()
    done = tfkd_cli("benchmark", tmp_path / "empty")
    assert done.exit_code == 2
    assert "is neither a .tflite, a .keras file of Keras 3 nor the folder of a SavedModel" in done.stderr
    (tmp_path / "no.keras").write_text("no")
    done = tfkd_cli("benchmark", tmp_path / "no.keras")
    assert done.exit_code == 2
    assert "no.keras is neither a .tflite, a .keras file of Keras 3" in done.stderr


def test_benchmark_gives_latency(student):
    done = tfkd_cli("benchmark", student / "student.tflite", "--json")
    assert done.exit_code == 0, done.output
    (measured,) = json.loads(done.stdout)
    assert measured["target"] == "host"
    assert measured["latency"]["count"] >= 50


def test_missing_tool_is_status_3(student, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    result = tfkd_cli("validate", student / "student.tflite", "--target", "tflm")
    assert result.exit_code == 3
    assert "pip install" in result.stderr


@pytest.mark.parametrize(
    ("error", "status", "text"),
    [
        (InputError("Pass overwrite=True."), 2, "tfkd: Pass --overwrite."),
        (ModelError("layer x is not supported"), 2, "tfkd: layer x"),
        (ToolMissingError("pip install x"), 3, "tfkd: pip install x"),
        (DeviceError("the phone is asleep"), 3, "tfkd: the phone"),
        (PermissionError(errno.EACCES, "Permission denied", "/root/x"), 2, "tfkd: /root/x: Permission denied."),
        (IsADirectoryError(errno.EISDIR, "Is a directory", "out"), 2, "tfkd: out: Is a directory."),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "tfkd: No space left on device."),
        (OSError("Can't write data (errno = 28, error message = 'No space left on device')"), 2, "No space left"),
    ],
)
def test_error_of_the_user_is_a_message(error, status, text, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("tfkd.report.rewrite", fail)
    result = tfkd_cli("report", tmp_path, "--out", tmp_path / "x.html")
    assert result.exit_code == status
    assert text in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("x"), RuntimeError("x"), OSError("x"), TypeError("x")])
def test_error_of_ours_is_status_70_with_traceback(error, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise error

    monkeypatch.setattr("tfkd.report.rewrite", fail)
    result = tfkd_cli("report", tmp_path, "--out", tmp_path / "x.html")
    assert result.exit_code == 70
    assert f"{type(error).__name__}: " in result.stderr
    assert "in fail" in result.stderr


def test_output_in_a_folder_that_is_a_file_is_status_2(student, tmp_path):
    (tmp_path / "file").touch()
    arguments = ("validate", student / "student.tflite", "--target", "host", "--report", tmp_path / "file" / "r.json")
    result = tfkd_cli(*arguments)
    assert result.exit_code == 2, result.output
    assert str(tmp_path / "file") in result.stderr
    assert "Traceback" not in result.output


@pytest.mark.parametrize(
    ("message", "text"),
    [
        ("Pass overwrite=True or keep it.", "Pass --overwrite or keep it."),
        ("Received: ranges='mean'.", "Received: --range mean."),
        ("Received: seed=-1. Use 0.", "Received: --seed -1. Use 0."),
        ("Write host,threads=4.", "Write host,threads=4."),
        ("Received: unknown=1.", "Received: unknown=1."),
    ],
)
def test_advice_is_in_terms_of_the_command_line(message, text):
    options = {"overwrite": "--overwrite", "ranges": "--range", "seed": "--seed", "threads": "--threads"}
    assert application._as_options(message, options) == text


def test_limits_are_the_fields_of_a_contract():
    for name in ("validate", "diff"):
        output = tfkd_cli(name, "--help").output
        for field in dataclasses.fields(Contract):
            assert f"--{field.name.replace('_', '-')} " in output


def test_interrupt_says_how_to_resume(tmp_path):
    (tmp_path / "r.toml").write_text(
        'output = "out"\n[data]\nname = "digits"\n[teacher]\nmodel = "digits_teacher"\nepochs = 500\n'
        '[student]\nmodel = "digits_student"\n[targets]\nnames = ["tflm"]\n'
    )
    command = [sys.executable, "-m", "tfkd.cli", "run", "r.toml"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as running:
        for line in running.stdout:
            if line.startswith("teacher 1/"):
                running.send_signal(signal.SIGINT)
                break
        _, result = running.communicate(timeout=60)
    assert running.returncode == 130, result
    assert "The same command resumes" in result
    assert "Traceback" not in result


def test_label_stores_verifies_and_is_distilled_from(student, tmp_path):
    common = (
        "--teacher",
        student / "student.keras",
        "--views",
        2,
        "--padding",
        1,
        "--no-flip",
        "--out",
        tmp_path / "l",
    )
    first = tfkd_cli("label", *common, "--shard", "0/2", "--json")
    assert first.exit_code == 0, first.output
    again = tfkd_cli("label", *common, "--json")
    assert json.loads(again.stdout)["missing"] == 0
    assert "largest divergence" in tfkd_cli("label", *common, "--verify").output
    other = tfkd_cli("label", *common, "--padding", 2)
    assert other.exit_code == 2
    assert "another augmentation" in other.stderr
    assert tfkd_cli("label", *common, "--shard", "3").exit_code == 2


def test_store_of_every_view_is_verified_without_its_number(student, tmp_path):
    common = ("--teacher", student / "student.keras", "--padding", 0, "--out", tmp_path / "l")
    made = tfkd_cli("label", *common, "--views", "all", "--json")
    assert json.loads(made.stdout)["views"] == 2
    verified = tfkd_cli("label", *common, "--verify")
    assert "largest divergence" in verified.output, verified.output


def test_convert_writes_golden_vectors_and_refuses_existing_ones(student, tmp_path):
    out = tmp_path / "m.tflite"
    arguments = ("convert", student / "student.keras", out, "--golden", 3)
    result = tfkd_cli(*arguments)
    assert result.exit_code == 2
    assert "--golden needs a data set. Received: no --calibration" in result.stderr
    result = tfkd_cli(*arguments, "--calibration", "digits", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["golden"] == [str(tmp_path / f"m.golden.{end}") for end in ("npz", "h", "json")]
    out.unlink()
    result = tfkd_cli(*arguments, "--calibration", "digits")
    assert result.exit_code == 2
    assert "m.golden.npz already exists" in result.stderr
    assert not out.exists()


def test_diff_has_the_exit_status_of_its_contract(digits_int8):
    model = digits_int8.path
    limits = ("--max-accuracy-drop", "0", "--min-agreement")
    assert tfkd_cli("diff", model, model, *limits, "100").exit_code == 0
    share = tfkd_cli("diff", model, model, *limits, "0.9")
    assert share.exit_code == 2
    assert "min_agreement is in percent now, not a share" in share.stderr
    result = tfkd_cli("diff", model, model, "--max-bytes", "100", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["comparisons"][0]["verdict"]["binding"] == "max_bytes"


def test_explain_names_layers_and_stages(student):
    result = tfkd_cli("explain", student / "student.keras", student / "student.tflite", "--target", "host", "--json")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert "conv1_conv" in [layer["layer"] for layer in found["layers"]]
    assert any("--int16 " in layer["remedy"] for layer in found["layers"])
    assert not any("QuantizerSettings" in layer["remedy"] for layer in found["layers"])
    assert [stage["name"] for stage in found["stages"]] == ["student", "host"]
    swapped = tfkd_cli("explain", student / "student.tflite", student / "student.keras")
    assert swapped.exit_code == 2


def test_convert_chooses_the_quantizer_that_its_options_need(student, tmp_path):
    out = tmp_path / "m.tflite"
    arguments = ("convert", student / "student.keras", out, "--calibration", "digits", "--int16", "^logits$", "--json")
    result = tfkd_cli(*arguments, "--keep-float", "pool", "--range", "percentile")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert [op.split()[0] for op in found["float_ops"]] == ["MEAN"]
    assert any("are clipped" in finding for finding in found["findings"])
    refused = tfkd_cli(*arguments, "--overwrite", "--quantizer", "tensorflow")
    assert refused.exit_code == 2
    assert "has no choice of ranges or layers. Received: int16" in refused.stderr


def test_convert_searches_a_mixture_and_says_each_trial(student, tmp_path):
    out = tmp_path / "m.tflite"
    arguments = ("convert", student / "student.keras", out, "--accuracy-drop", "100")
    refused = tfkd_cli(*arguments)
    assert refused.exit_code == 2
    assert "--accuracy-drop needs --calibration" in refused.stderr
    result = tfkd_cli(*arguments, "--calibration", "digits")
    assert result.exit_code == 0, result.output
    assert "int8: " in result.output
    assert "Chosen of 2 models tried: weights of 4 bits" in result.output
    assert out.exists()
