"""What `export-c` writes: C with a self-test, or a model for TensorFlow Lite Micro; build files; the report."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from tests.micro.trained_nets import trained
from tfkd import cli, targets
from tfkd.micro import export


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A .tflite of convolutions, pools and dense layers."""
    path = tmp_path_factory.mktemp("export") / "digits.tflite"
    path.write_bytes(trained(3))
    return path


def run_selftest(folder: Path, *flags: str) -> int:
    """Builds a self-test anew with warnings as errors and runs it; its exit status, the number of failed vectors."""
    build = [
        "make",
        "-B",
        "-C",
        str(folder),
        "selftest",
        "CC=cc",
        f"CFLAGS=-O1 -Wall -Wextra -Werror {' '.join(flags)}",
    ]
    subprocess.run(build, check=True, capture_output=True)
    return subprocess.run([folder / "selftest"]).returncode


def export_c(*arguments: object) -> tuple[str, dict]:
    """Runs `tfkd export-c`; its output and the report that it writes."""
    done = CliRunner().invoke(cli.app, ["export-c", *map(str, arguments)])
    assert done.exit_code == 0, done.output
    folder = Path(str(arguments[arguments.index("--out") + 1]))
    return done.output, json.loads((folder / "report.json").read_text())


def test_selftest_passes_and_detects_a_changed_bias(model: Path, tmp_path: Path) -> None:
    report = export.write(model, tmp_path / "out", name="digits", oracle=targets.get("tflm"))
    assert (report["golden_vectors"], report["golden_source"]) == (4, "tflm")
    assert run_selftest(tmp_path / "out") == 0
    source = tmp_path / "out" / "digits.c"
    text = source.read_text()
    start = text.index("= {\n", text.rindex("static const int32_t tfkd_digits_bias_")) + 4  # of the last layer
    end = text.index(",", start)
    source.write_text(f"{text[:start]}{int(text[start:end]) + 2_000}{text[end:]}")
    assert run_selftest(tmp_path / "out") == 4  # all vectors


def test_export_for_size_passes_its_selftest_with_less_code(model: Path, tmp_path: Path) -> None:
    for size in (False, True):
        export.write(model, tmp_path / "out", size=size, overwrite=True, oracle=targets.get("tflm"))
        assert run_selftest(tmp_path / "out") == 0
        text = (tmp_path / "out" / "model.c").read_text()
        assert ("-Os" in (tmp_path / "out" / "Makefile").read_text()) == size
        assert not size or text.count("TFKD_KERNEL void tfkd_convolution_flags") == 1
    with pytest.raises(ValueError, match="size needs format c"):
        export.write(model, tmp_path / "other", format="tflm", size=True)


def test_export_has_sources_and_build_files(model: Path, tmp_path: Path) -> None:
    report = export.write(model, tmp_path / "out", oracle=targets.get("tflm"))
    found = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    sources = {"model.c", "model.h", "model_selftest.c", "model_selftest.h"}
    assert found == sources | {"CMakeLists.txt", "Makefile", "README.md", "report.json"}
    subprocess.run(["make", "-C", tmp_path / "out"], check=True, capture_output=True)
    assert subprocess.run([tmp_path / "out" / "selftest"]).returncode == 0
    assert report["costs"]["target"] is report["costs"]["flash_bytes"] is report["costs"]["instructions"] is None


def test_format_tflm_has_the_model_and_registers_its_ops(model: Path, tmp_path: Path) -> None:
    report = export.write(model, tmp_path / "out", name="digits", format="tflm", oracle=targets.get("tflm"))
    source = (tmp_path / "out" / "digits_model.cc").read_text()
    content = bytes(int(word, 16) for word in source.split("{")[1].split("}")[0].replace(",", " ").split())
    assert content == model.read_bytes()
    header = (tmp_path / "out" / "digits_model.h").read_text()
    assert "resolver.AddConv2D()" in header
    assert "resolver.AddFullyConnected()" in header
    assert report["arena_bytes"] > 0
    assert f"k_digits_arena_bytes = {report['arena_bytes']};" in header


def test_header_compiles_as_cpp(model: Path, tmp_path: Path) -> None:
    export.write(model, tmp_path / "out")
    (tmp_path / "main.cc").write_text('#include "model.h"\nint main() { return TFKD_MODEL_INPUT_SIZE < 1; }\n')
    command = ["c++", "-Wall", "-Wextra", "-Werror", f"-I{tmp_path / 'out'}", str(tmp_path / "main.cc")]
    subprocess.run([*command, "-o", str(tmp_path / "main")], check=True)
    assert subprocess.run([tmp_path / "main"]).returncode == 0


def test_existing_folder_is_kept_without_overwrite(model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").touch()
    with pytest.raises(ValueError, match="already exists"):
        export.write(model, tmp_path / "out")
    assert (tmp_path / "out" / "mine").exists()
    for report in ("", "[]", '{"written_by": "another program"}'):
        (tmp_path / "out" / "report.json").write_text(report)
        with pytest.raises(ValueError, match=r"must be empty, or a folder that export-c wrote.*other files"):
            export.write(model, tmp_path / "out", overwrite=True)
    assert (tmp_path / "out" / "mine").exists()


@pytest.mark.parametrize("format", export.FORMATS)
def test_overwrite_replaces_what_export_c_wrote_and_no_file(format: str, model: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    export.write(model, tmp_path / "out", format=format, overwrite=True)
    (tmp_path / "out" / "old").touch()
    export.write(model, tmp_path / "out", format=format, overwrite=True)
    assert not (tmp_path / "out" / "old").exists()
    (tmp_path / "file").write_text("mine")
    with pytest.raises(ValueError, match="Received: a file"):
        export.write(model, tmp_path / "file", format=format, overwrite=True)
    assert (tmp_path / "file").read_text() == "mine"


def test_inputs_without_an_oracle_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="inputs need an oracle"):
        export.write(model, tmp_path / "out", inputs=[])


def test_command_names_the_engine_of_the_selftest(model: Path, tmp_path: Path) -> None:
    printed, report = export_c(model, "--out", tmp_path / "out")
    assert "self-test of 4 vectors from tflm" in printed
    assert report["golden_source"] == "tflm"


def test_command_without_tflite_micro_takes_the_selftest_from_an_emulated_core(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    printed, report = export_c(model, "--out", tmp_path / "out")
    assert "self-test of 4 vectors from cortex-m4" in printed
    assert report["golden_source"] == "cortex-m4"
    assert "this program, run on an emulated core (cortex-m4)" in (tmp_path / "out" / "model_selftest.c").read_text()
    assert run_selftest(tmp_path / "out") == 0


def test_command_without_an_engine_writes_c_without_a_selftest(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    monkeypatch.setitem(sys.modules, "unicorn", None)
    printed, report = export_c(model, "--out", tmp_path / "out")
    assert "no self-test" in printed
    assert (report["golden_vectors"], report["golden_source"]) == (0, None)
    assert not (tmp_path / "out" / "model_selftest.c").exists()
    subprocess.run(["make", "-C", str(tmp_path / "out"), "CC=cc"], check=True, capture_output=True)
    assert "selftest" not in (tmp_path / "out" / "CMakeLists.txt").read_text()


def test_command_without_tflite_micro_writes_format_tflm_with_an_unknown_arena(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "tflite_micro", None)
    printed, report = export_c(model, "--out", tmp_path / "out", "--format", "tflm")
    assert "arena size unknown" in printed
    assert report["arena_bytes"] is None
    assert "arena_bytes =" not in (tmp_path / "out" / "model_model.h").read_text()
