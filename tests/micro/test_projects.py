"""Projects of Arduino, PlatformIO, Zephyr and others: their manifests, and the code that is built from them."""

from __future__ import annotations

import configparser
import dataclasses
import json
import random
import re
import subprocess
from pathlib import Path

import numpy as np
import pytest
import system_packages
from ai_edge_litert import schema_py_generated as schema
from ruamel.yaml import YAML
from typer.testing import CliRunner

from tests.micro.execution import STRICT
from tests.micro.trained_nets import trained
from tests.random_graph import Net
from tfkd import cli, micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import costs, selftest, task_code
from tfkd.micro.projects import PROJECTS, ProjectOptions, project_files

_GCC_MISSING = system_packages.skip_reason("arm-none-eabi-gcc")


@dataclasses.dataclass(frozen=True)
class Exported:
    """A model with all that the files of a project are made from."""

    model: TFLiteModel
    program: micro.Program
    files: dict[str, str]
    report: dict
    vectors: selftest.Vectors

    def write(self, folder: Path, kind: str, **options: object) -> dict[str, str]:
        """Writes a project into a folder; its files."""
        files = project_files(
            ProjectOptions(kind, **options), self.model, self.program, self.files, self.report, self.vectors, "-O1"
        )
        for path, text in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text)
        return files


@pytest.fixture(scope="module")
def digits() -> Exported:
    """A classifier with a self-test."""
    model = TFLiteModel.load(trained(3))
    program = micro.emit(model, name="digits")
    vectors = selftest.make_vectors(model, program, targets.get("tflm"))
    files = {
        **program.files,
        "digits_selftest.c": selftest.selftest(program, vectors),
        "digits_selftest.h": selftest.selftest_header(program, vectors),
    }
    report = {
        "model_sha256": model.sha256,
        "arena_bytes": program.arena_bytes,
        "weight_bytes": program.weight_bytes,
        "costs": costs.costs_of(model, program, None),
    }
    return Exported(model, program, files, report, vectors)


@pytest.mark.parametrize("kind", PROJECTS)
def test_project_has_sources_readme_and_an_example(kind: str, digits: Exported, tmp_path: Path) -> None:
    files = digits.write(tmp_path, kind)
    assert {f"src/digits{end}" for end in (".c", ".h", "_selftest.c", "_selftest.h", "_task.h")} < set(files)
    readme = files["README.md"]
    assert "tfkd_digits_run(&context, input, output);" in readme
    assert digits.model.sha256 in readme
    assert "unknown: no emulated core measured it" in readme
    examples = [
        text for path, text in files.items() if "tfkd_digits_selftest(&context)" in text and path != "README.md"
    ]
    assert len(examples) == 1
    assert "tfkd_digits_largest(output)" in examples[0]
    assert not re.search(r"\{[{%]|[%}]\}", "".join(files[path] for path in files if not path.startswith("src/")))


def test_arduino_library_has_its_properties_and_its_sketch_runs(digits: Exported, tmp_path: Path) -> None:
    files = digits.write(tmp_path, "arduino")
    properties = configparser.ConfigParser()
    properties.read_string("[library]\n" + files["library.properties"])
    found = properties["library"]
    needed = ("name", "version", "author", "maintainer", "sentence", "paragraph", "category", "url", "architectures")
    assert all(found[key] for key in needed)
    assert found["includes"] == "digits.h"
    # The builder of Arduino includes Arduino.h before a sketch; main here calls it once.
    sketch = """#include <stdio.h>
struct Port { void begin(long) {} void print(const char *text) { fputs(text, stdout); } } Serial;
static void delay(unsigned long) {}
#include "examples/digits_example/digits_example.ino"
int main() { setup(); loop(); }
"""
    (tmp_path / "main.cc").write_text(sketch)
    sources = [str(path) for path in (tmp_path / "src").glob("*.c")]
    command = ["c++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path}", f"-I{tmp_path / 'src'}"]
    subprocess.run([*command, str(tmp_path / "main.cc"), *sources, "-o", str(tmp_path / "run")], check=True)
    printed = subprocess.run([tmp_path / "run"], capture_output=True, text=True, check=True).stdout
    assert printed.startswith("self-test: 0 of 4 vectors differ\nclass ")


def test_manifests_name_files_that_exist(digits: Exported, tmp_path: Path) -> None:
    files = digits.write(tmp_path / "pio", "platformio")
    manifest = json.loads(files["library.json"])
    for example in manifest["examples"]:
        assert all(f"{example['base']}/{file}" in files for file in example["files"])
    files = digits.write(tmp_path / "idf", "esp-idf")
    component = YAML(typ="safe").load(files["idf_component.yml"])
    assert component["version"] == "1.0.0"
    sources = re.findall(r'"(src/\w+\.c)"', files["CMakeLists.txt"])
    assert sources == ["src/digits.c", "src/digits_selftest.c"]
    (folders,) = re.findall(r'EXTRA_COMPONENT_DIRS "(.*)"', files["examples/digits_example/CMakeLists.txt"])
    where = tmp_path / "idf/examples/digits_example" / folders
    assert where.resolve() == (tmp_path / "idf").resolve()
    files = digits.write(tmp_path / "zephyr", "zephyr")
    module = YAML(typ="safe").load(files["zephyr/module.yml"])
    assert f"{module['build']['kconfig']}" in files
    assert f"{module['build']['cmake']}/CMakeLists.txt" in files
    assert {path.split("/")[0] for path in files if "sample.yaml" in path} == set(module["samples"])
    symbols = set(re.findall(r"^config (\w+)$", files["zephyr/Kconfig"], re.MULTILINE))
    used = {
        symbol
        for path in files
        if path.endswith(("CMakeLists.txt", "prj.conf"))
        for symbol in re.findall(r"CONFIG_(TFKD_\w+)", files[path])
    }
    assert used == symbols


def test_libraries_have_the_decoder_of_objects(digits: Exported, tmp_path: Path) -> None:
    decoding = dataclasses.replace(digits, files={**digits.files, "digits_decode.c": "", "digits_decode.h": ""})
    for kind, path in (
        ("cmake", "CMakeLists.txt"),
        ("zephyr", "zephyr/CMakeLists.txt"),
        ("esp-idf", "CMakeLists.txt"),
        ("stm32cube", "CMakeLists.txt"),
    ):
        assert "src/digits_decode.c" in decoding.write(tmp_path / kind, kind)[path], kind
    makefile = decoding.write(tmp_path / "make", "makefile")["Makefile"]
    assert "libtfkd_digits.a: src/digits.o src/digits_decode.o\n" in makefile


def test_makefile_builds_the_example_and_its_selftest_passes(digits: Exported, tmp_path: Path) -> None:
    digits.write(tmp_path, "makefile")
    command = ["make", "-C", str(tmp_path), "test", "CC=cc", f"CFLAGS={' '.join((*STRICT, '-O1'))}"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert "self-test: 0 of 4 vectors differ\n" in done.stdout, done.stdout + done.stderr


@pytest.mark.skipif(_GCC_MISSING is not None, reason=str(_GCC_MISSING))
def test_cmake_builds_the_library_for_a_core(digits: Exported, tmp_path: Path) -> None:
    """Also without a C library, which Debian's compiler only recommends."""
    digits.write(tmp_path, "cmake")
    for command in (
        ["cmake", "-DCMAKE_TOOLCHAIN_FILE=arm-none-eabi.cmake", "-DCPU=cortex-m4", "-B", "build"],
        ["cmake", "--build", "build", "--target", "tfkd_digits"],
    ):
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "build" / "libtfkd_digits.a").exists()


def classifier(end: str) -> TFLiteModel:
    """A model of 4 values from bytes 0..255, by one product, with or without a final op."""
    made = Net(random.Random(1))
    x = made.tensor((1, 4), scales=[1.0], zero_points=[-128])
    made.graph.inputs.append(x)
    weights, scales = made.weights((5, 4), 5, 0, per_channel=False)
    y = made.tensor((1, 5), scales=[0.07], zero_points=[10])
    made.op("FULLY_CONNECTED", [x, weights, made.bias(x, scales, 5)], [y])
    if end:
        probabilities = made.tensor((1, 5), scales=[1 / 256], zero_points=[-128])
        options = schema.SoftmaxOptionsT(beta=1.0) if end == "SOFTMAX" else None
        y = made.op(end, [y], [probabilities], options)
    return TFLiteModel.load(made.bytes(y))


def test_code_of_tasks_computes_what_numpy_computes(tmp_path: Path) -> None:
    cases = [("a", "classification", ""), ("b", "classification", "SOFTMAX"), ("c", "multi_label", ""),
             ("d", "multi_label", "LOGISTIC"), ("e", "regression", "")]  # fmt: skip
    rows = np.random.default_rng(0).integers(-128, 128, (6, 5)).astype("int8")
    rows[0] = [3, 7, 7, -1, 0]  # the first of equal ones
    lines, expected = ["#include <stdio.h>"], []
    body = [f"static const signed char rows[{rows.size}] = {{{', '.join(map(str, rows.ravel().tolist()))}}};"]
    body.append("int main(void) { int r, i; for (r = 0; r < 6; r++) { const int8_t *y = rows + 5 * r;")
    for name, task, end in cases:
        model = classifier(end)
        program = micro.emit(model, name=name)
        (tmp_path / f"{name}.h").write_text(program.files[f"{name}.h"])
        code = task_code.write(model, program, task)
        assert (code.has_bytes, code.has_decoder) == (True, True)
        (tmp_path / f"{name}_task.h").write_text(code.text)
        lines.append(f'#include "{name}_task.h"')
        body.append({
            "classification": f'printf("%d ", tfkd_{name}_largest(y)); for (i = 0; i < 5; i++) '
                              f'printf("%.9g ", (double)tfkd_{name}_probability(y, i));',
            "regression": f'for (i = 0; i < 5; i++) printf("%.9g ", (double)tfkd_{name}_value(y, i));',
        }.get(task, f'for (i = 0; i < 5; i++) printf("%d %.9g ", tfkd_{name}_positive(y, i), '
                    f"(double)tfkd_{name}_probability(y, i));"))  # fmt: skip
    body.append("} { uint8_t b[4] = {0, 1, 128, 255}; int8_t x[4]; tfkd_a_from_bytes(b, x);")
    body.append('for (i = 0; i < 4; i++) printf("%d ", x[i]); } return 0; }')
    (tmp_path / "main.c").write_text("\n".join([*lines, *body]))
    command = ["cc", "-std=c99", "-Wall", "-Wextra", "-Werror", str(tmp_path / "main.c"), "-lm"]
    subprocess.run([*command, "-o", str(tmp_path / "run")], check=True)
    printed = subprocess.run([tmp_path / "run"], capture_output=True, text=True, check=True).stdout.split()
    for row in rows.astype("float64"):
        z, p = (row - 10) * 0.07, (row + 128) / 256
        softmax = np.exp(z) / np.exp(z).sum()
        expected += [int(row.argmax()), *softmax, int(row.argmax()), *p]
        expected += [value for one in z for value in (int(one > 0), 1 / (1 + np.exp(-one)))]
        expected += [value for one in p for value in (int(one > 0.5), one)]
        expected += [*z]
    expected += [-128, -127, 0, 127]
    assert np.allclose(np.array(printed, "float64"), np.array(expected), rtol=2e-6, atol=1e-6)


def test_bytes_of_a_sensor_are_scaled_to_the_range_that_the_model_expects() -> None:
    made = Net(random.Random(1))
    x = made.tensor((1, 4), scales=[1 / 255], zero_points=[-128])
    made.graph.inputs.append(x)
    model = TFLiteModel.load(made.bytes(made.op("RELU", [x], [made.same(x, (1, 4))])))
    program = micro.emit(model)
    without = task_code.write(model, program, "regression")
    assert not without.has_bytes
    assert "the input holds 0 to 1" in without.text
    scaled = task_code.write(model, program, "regression", (0.0, 1.0))
    table = [int(value) for value in re.search(r"table\[256\] = \{(.*)\}", scaled.text)[1].split(",")]
    assert table == list(range(-128, 128))
    with pytest.raises(ValueError, match="two different numbers"):
        task_code.write(model, program, "regression", (1.0, 1.0))
    with pytest.raises(ValueError, match="holds, 0 to 1. Received: -1 and 1; 50% of the range would be clipped"):
        task_code.write(model, program, "regression", (-1.0, 1.0))
    with pytest.raises(ValueError, match="Received: 0.1 and 0; all bytes would become at most 26 values"):
        task_code.write(model, program, "regression", (0.1, 0.0))
    with pytest.raises(ValueError, match="task must be one of classification"):
        task_code.write(model, program, "clasification")


def test_classification_of_one_value_is_refused() -> None:
    made = Net(random.Random(1))
    x = made.input((1, 1))
    model = TFLiteModel.load(made.bytes(made.op("RELU", [x], [made.same(x, (1, 1))])))
    with pytest.raises(ValueError, match="two classes or more.*--task binary"):
        task_code.write(model, micro.emit(model), "classification")


@pytest.mark.parametrize(
    ("end", "task", "message"),
    [
        pytest.param("", "binary", "needs a model with one output value. Received: 5", id="binary-of-several"),
        pytest.param("SOFTMAX", "multi_label", "Received: a model that ends in SOFTMAX", id="labels-of-softmax"),
    ],
)
def test_task_that_the_outputs_do_not_fit_is_refused(end: str, task: str, message: str) -> None:
    model = classifier(end)
    with pytest.raises(ValueError, match=message):
        task_code.write(model, micro.emit(model), task)


def test_command_writes_a_project_with_the_costs_of_a_core(tmp_path: Path) -> None:
    (tmp_path / "digits.tflite").write_bytes(trained(3))
    arguments = ["export-c", str(tmp_path / "digits.tflite"), "--out", str(tmp_path / "out"), "--project", "cmake"]
    done = CliRunner().invoke(cli.app, [*arguments, "--name", "digits", "--core", "cortex-m4:nrf52840"])
    assert done.exit_code == 0, done.output
    found = json.loads((tmp_path / "out" / "report.json").read_text())["costs"]
    assert found["target"] == "cortex-m4:nrf52840"
    assert found["flash_bytes"] == found["code_bytes"] + found["constant_bytes"]
    assert set(found["evidence"].values()) == {"emulated"}
    counted = [layer["instructions"] for layer in found["layers"]]
    assert 0.5 * found["instructions"] < sum(counted) < found["instructions"]
    assert sum(layer["weight_bytes"] for layer in found["layers"]) <= found["constant_bytes"]
    header = (tmp_path / "out" / "src" / "digits.h").read_text()
    assert f"#define TFKD_DIGITS_STACK_BYTES {found['stack_bytes']}\n" in header
    assert re.search(r'#define TFKD_DIGITS_MODEL_SHA256 "[0-9a-f]{64}"\n', header)
    readme = (tmp_path / "out" / "README.md").read_text()
    assert f"{found['instructions']:,} (emulated: cortex-m4:nrf52840" in readme


@pytest.mark.parametrize(
    ("options", "message"),
    [
        pytest.param(["--project", "ardiuno"], "project must be one of arduino", id="kind"),
        pytest.param(["--task", "binary"], "--task is for projects", id="task-without-project"),
        pytest.param(["--input-range", "0,1"], "Add --project cmake or --camera", id="range-without-project"),
        pytest.param(["--core", "host"], "--core must be an emulated core", id="core"),
        pytest.param(["--project", "cmake", "--format", "tflm"], "project needs format c", id="format"),
        pytest.param(["--core", "cortex-m4", "--format", "tflm"], "core needs format c", id="core-of-tflm"),
    ],
)
def test_command_refuses_options_that_do_not_fit(options: list[str], message: str, tmp_path: Path) -> None:
    (tmp_path / "digits.tflite").write_bytes(trained(3))
    arguments = ["export-c", str(tmp_path / "digits.tflite"), "--out", str(tmp_path / "out")]
    done = CliRunner().invoke(cli.app, [*arguments, *options])
    assert done.exit_code == 2
    assert message in done.output
    assert not (tmp_path / "out").exists()


def test_help_names_all_projects_and_tasks() -> None:
    printed = CliRunner().invoke(cli.app, ["export-c", "--help"], env={"COLUMNS": "300"}).output
    for word in (*PROJECTS, *task_code.DECODERS):
        assert word in printed, word
