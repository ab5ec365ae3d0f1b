"""The C of the features of sounds, against those that `tfkd.data` computes."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import soundfile
import system_packages
from ai_edge_litert import schema_py_generated as schema
from typer.testing import CliRunner

from tests.micro.execution import STRICT, compile_and_run, write_sources
from tests.micro.test_camera import takes_images
from tests.random_graph import Net
from tfkd import cli, micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data import sound_features
from tfkd.data.reading import ReadingOptions
from tfkd.errors import InputError
from tfkd.micro import export
from tfkd.micro.projects import ProjectOptions
from tfkd.micro.sensors import camera, sound
from tfkd.micro.sensors.camera import Camera
from tfkd.report import microcontrollers

GCC_MISSING = system_packages.skip_reason("arm-none-eabi-gcc")

# Rate, kind, bands, coefficients, frame and hop in ms: both parities of the transform's length, odd frames, hops longer
# than a frame, the shortest and the longest transform.
DEFINITIONS = [
    (16_000, "log_mel", 40, 13, 30.0, 20.0),
    (16_000, "mfcc", 40, 10, 40.0, 20.0),
    (44_100, "mfcc", 64, 20, 25.0, 10.0),
    (8_000, "log_mel", 8, 13, 16.0, 40.0),
    (48_000, "log_mel", 80, 13, 85.0, 60.0),
    (11_025, "mfcc", 20, 20, 11.7, 11.7),
    (4_000, "log_mel", 3, 13, 4.0, 3.0),
]
IDS = [f"{kind}-{rate}-{frame:g}ms" for rate, kind, _, _, frame, _ in DEFINITIONS]
ROWS = 12
# One that the emulated cores compute too.
SMALL = (8_000, "mfcc", 20, 10, 25.0, 20.0)


def definition(case: tuple) -> dict:
    rate, kind, bands, coefficients, frame, hop = case
    options = {"features": kind, "mel_bands": bands, "frame_ms": frame, "hop_ms": hop}
    return sound_features.definition(
        ReadingOptions(**options, **({"coefficients": coefficients} if kind == "mfcc" else {})), rate
    )


def takes_features(how: dict, dtype: str, name: str) -> micro.Program:
    """The program of a model whose input takes features, int16 with a fine scale or int8."""
    return micro.emit(model_of(how, dtype), name=name)


def model_of(how: dict, dtype: str) -> bytes:
    made = Net(random.Random(0), dtype)
    fine = 2.0**-7 if how["kind"] == "mfcc" else 2.0**-9
    scale = fine if dtype == "int16" else 0.2 if how["kind"] == "mfcc" else 0.1
    shape = (1, ROWS, how.get("coefficients", how["bands"]), 1)
    x = made.tensor(shape, dtype, scales=[scale], zero_points=[40])
    made.graph.inputs.append(x)
    return made.bytes(made.op("RELU", [x], [made.same(x, shape)]))


def sounds(how: dict) -> np.ndarray:
    """int16 [5, samples]: tones in noise that swell and fade, silence, the loudest noise, steps of one, a chirp."""
    rng = np.random.default_rng(how["frame"])
    count = how["frame"] + (ROWS - 1) * how["hop"]
    t = np.arange(count) / how["sample_rate"]
    tones = sum(np.sin(2 * np.pi * hertz * t) / (i + 1) for i, hertz in enumerate((180.0, 540.0, 1_450.0)))
    swelling = 10 ** rng.uniform(-2.5, 0, ROWS)[np.arange(count) * ROWS // count]
    speech = (tones * 6_000 + rng.normal(0, 300, count)) * swelling
    loud = 32_767 * np.where(rng.uniform(size=count) < 0.5, -1, 1)
    chirp = 26_000 * np.sin(np.pi * how["sample_rate"] / 2 * t**2 / t[-1])
    return np.stack([speech, 0 * speech, loud, rng.integers(-1, 2, count), chirp]).round().astype("<i2")


def expected(how: dict, one: np.ndarray) -> np.ndarray:
    options, rate = sound_features.options_of(how)
    return sound_features.compute("", (one / 32768).astype("float32"), rate, options)


def computed(folder: Path, codes: list, programs: list, inputs: list[np.ndarray], *flags: str) -> list[np.ndarray]:
    """The inputs of the models, [sounds, rows, columns], once for all samples together and once for pieces of them."""
    main = write_sources(folder, [])
    for code in codes:
        for name, text in code.files.items():
            (folder / name).write_text(text)
    main = [f'#include "{program.name}_sound.c"' for program in programs]
    main += ["#include <stdio.h>", "#include <stdlib.h>", "int main(void) {"]
    for program, x in zip(programs, inputs, strict=True):
        n, tensor = program.name, program.inputs[0].tensor
        size, ctype = x.shape[1], f"{tensor.dtype}_t"
        main.append(
            f"{{ static tfkd_{n}_sound sound; static int16_t in[{size}]; static {ctype} out[{tensor.elements}];"
            f"int i, at, part, rows; for (i = 0; i < {2 * len(x)}; i++) {{"
            f"if (i % 2 == 0 && fread(in, sizeof *in, {size}, stdin) != {size}) return 1; tfkd_{n}_sound_reset(&sound);"
            f"for (at = 0, rows = 0; at < {size}; at += part) {{ part = i % 2 ? rand() % 97 : {size};"
            f"if (part > {size} - at) part = {size} - at; rows += tfkd_{n}_sound_add(&sound, in + at, part, out); }}"
            f"if (rows != {ROWS}) return 2; fwrite(out, sizeof *out, {tensor.elements}, stdout); }} }}"
        )
    printed = compile_and_run(folder, [*main, "return 0; }"], inputs, *flags)
    results, at = [], 0
    for program, x in zip(programs, inputs, strict=True):
        tensor = program.inputs[0].tensor
        rows = np.frombuffer(printed, tensor.dtype, 2 * len(x) * tensor.elements, at).reshape(len(x), 2, ROWS, -1)
        np.testing.assert_array_equal(rows[:, 0], rows[:, 1])
        results.append(rows[:, 0])
        at += 2 * rows[:, 0].nbytes
    return results


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[dict, np.ndarray, np.ndarray]]:
    """Of each definition and of SMALL: itself, the features of `sounds` in C and those of `tfkd.data`."""
    hows = [definition(case) for case in (*DEFINITIONS, SMALL)]
    programs = [takes_features(how, "int16" if i < len(DEFINITIONS) else "int8", f"n{i}") for i, how in enumerate(hows)]
    codes = [sound.write(program, how) for program, how in zip(programs, hows, strict=True)]
    inputs = [sounds(how) for how in hows]
    found = computed(tmp_path_factory.mktemp("sounds"), codes, programs, inputs)
    return [
        (how, programs[i].inputs[0].dequantize(values), np.stack([expected(how, one) for one in x]))
        for i, (how, values, x) in enumerate(zip(hows, found, inputs, strict=True))
    ]


@pytest.mark.parametrize("case", range(len(DEFINITIONS)), ids=IDS)
def test_features_in_c_are_those_of_the_training(case: int, features: list) -> None:
    """The noise is below -60 dB of the variance of the features, of which rounding to 1/512 is -66 dB and more."""
    how, found, wanted = features[case]
    noise = found - wanted
    assert 10 * np.log10(wanted[0].var() / (noise[0] ** 2).mean()) > 60
    assert np.abs(noise[1:]).max() < 0.03


def test_int8_features_are_the_nearest_steps(features: list) -> None:
    how, found, wanted = features[-1]
    program = takes_features(how, "int8", "n")
    steps, expected_steps = (program.inputs[0].quantize(one.astype("float32")[..., None]) for one in (found, wanted))
    difference = np.abs(steps.astype(int) - expected_steps)
    assert difference.max() <= 1
    assert (difference > 0).mean() < 0.01


@pytest.mark.parametrize("core", ["cortex-m4", pytest.param("cortex-m0plus", marks=pytest.mark.campaign)])
def test_core_starts_from_sounds_and_counts_their_features(core: str, features: list) -> None:
    """The outputs are those of the model for the features that the C computes on this machine."""
    how, found, _ = features[-1]
    model = TFLiteModel.load(model_of(how, "int8"))
    program = micro.emit(model)
    raw = program.inputs[0].quantize(found.astype("float32")[..., None])
    waves = sounds(how).astype("float32")[..., None] / 32768
    run = targets.get(core).with_features(how, waves).run(model, raw * 0)
    np.testing.assert_array_equal(run.outputs[0], np.maximum(raw, 40))
    cost = run.environment["features"]
    assert (cost["kind"], cost["rows"]) == ("mfcc", ROWS)
    code = sound.write(program, how)
    assert cost["ram_bytes"] == code.ram_bytes + ROWS * 10
    assert 2_000 < cost["flash_bytes"] < 8_000
    assert 64 < cost["stack_bytes"] < 512
    points = how["fft"] * how["fft"].bit_length() * ROWS
    assert 2 * points < cost["instructions"] < 40 * points
    if core == "cortex-m4":
        plain = targets.get(core).with_features({**how, "coefficients": 9}).run(model, raw[:1])
        assert plain.environment["features"] is None
        assert "need a model with one quantized input [1, frames, 9, 1]" in plain.environment["features_refusal"]
        record = {"name": "kws", "target": core, "measurement": plain.to_json()}
        assert "The C of the features was left out: export-c" in microcontrollers.firmware(record)["note"]
        assert plain.instructions == run.instructions
        assert plain.memory.flash_bytes == pytest.approx(run.memory.flash_bytes, abs=64)
    record = {"name": "kws", "target": core, "measurement": run.to_json()}
    table = {label: cells for label, *cells in microcontrollers.firmware(record)["lines"]}
    parts = [table[label] for label in ("mfcc features of 12 frames", "Model", "Decoder (largest output)")]
    numbers = [[int(cell.replace(",", "")) for cell in cells] for cells in (*parts, table["Together"])]
    flash, ram, stack, instructions = zip(*numbers, strict=True)
    for column in (flash, ram, instructions):
        assert column[3] == sum(column[:3])
    assert stack[3] == max(stack[:3])


def test_sounds_that_are_not_those_of_the_samples_are_refused() -> None:
    how = definition(SMALL)
    model, raw = model_of(how, "int8"), np.zeros((2, ROWS, 10, 1), "int8")
    core = targets.get("cortex-m4")
    with pytest.raises(InputError, match="sounds must be 2 of 1960 samples"):
        core.with_features(how, np.zeros((3, 2000, 1), "float32")).run(model, raw)
    with pytest.raises(InputError, match="sounds must be 2 of 1960 samples"):
        core.with_features(how, np.zeros((2, 1900, 1), "float32")).run(model, raw)


def test_validation_starts_from_recordings(tmp_path: Path) -> None:
    """Low and high tones in noise, and a model whose two outputs are sums over the frames of MFCC 1 and of minus it."""
    rng = np.random.default_rng(0)
    for label, hertz in (("high", 2_500.0), ("low", 250.0)):
        (tmp_path / "tones" / label).mkdir(parents=True)
        for i in range(15):
            t = np.arange(2_000) / 8_000
            tone = 0.3 * np.sin(2 * np.pi * hertz * rng.uniform(0.8, 1.2) * t) + rng.normal(0, 0.02, len(t))
            soundfile.write(tmp_path / "tones" / label / f"{i}.wav", tone, 8_000)
    made = Net(random.Random(0))
    x = made.tensor((1, ROWS, 10, 1), scales=[0.2], zero_points=[40])
    made.graph.inputs.append(x)
    weights = np.zeros((2, ROWS, 10), "int8")
    weights[0, :, 1], weights[1, :, 1] = -100, 100
    filters = made.tensor((2, 10 * ROWS), "int8", weights.reshape(2, -1), [0.01], [0])
    bias = made.tensor((2,), "int32", np.zeros(2, "int32"), [0.002], [0])
    y = made.tensor((1, 2), scales=[1.0], zero_points=[0])
    (tmp_path / "tones.tflite").write_bytes(
        made.bytes(made.op("FULLY_CONNECTED", [x, filters, bias], [y], schema.FullyConnectedOptionsT()))
    )
    reading = ["--features", "mfcc", "--coefficients", "10", "--mel-bands", "20", "--frame-ms", "25"]
    command = ["validate", str(tmp_path / "tones.tflite"), "--data", str(tmp_path / "tones"), "--from-sounds"]
    targets_of = ["--target", "tflm", "--target", "cortex-m4", "--report", str(tmp_path / "report.json")]
    done = CliRunner().invoke(cli.app, [*command, *reading, *targets_of])
    assert done.exit_code == 0, done.output
    tflm, core = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert (tflm["accuracy"], core["accuracy"]) == (1.0, 1.0)
    assert core["measurement"]["setting"]["input"] == "sounds"
    assert core["measurement"]["environment"]["features"]["rows"] == ROWS
    assert core["output_divergence"]["max_steps"] <= ROWS  # a step of the input in each frame, at most
    for options, message in (
        ([*command, "--target", "cortex-m4"], "--from-sounds needs sound files that are read as features"),
        ([*command, *reading, "--target", "host"], "--from-sounds needs an emulated core"),
    ):
        done = CliRunner().invoke(cli.app, options)
        assert done.exit_code == 2
        assert message in done.output


@pytest.mark.parametrize(
    ("change", "message"),
    [
        pytest.param({"fft": 1024}, "fft must be 256. Received: 1024", id="fft"),
        pytest.param({"window": "hamming"}, "window must be 'hann, periodic.*Received: 'hamming'", id="window"),
        pytest.param({"kind": "plp"}, "must be that of a features.json", id="kind"),
        pytest.param({"sample_rate": None}, "must be that of a features.json", id="rate"),
        pytest.param({"dither": 1}, "dither must be None. Received: 1", id="unknown"),
    ],
)
def test_other_features_than_those_of_tfkd_are_refused(change: dict, message: str, tmp_path: Path) -> None:
    (tmp_path / "features.json").write_text(json.dumps({**definition(SMALL), **change}))
    with pytest.raises(InputError, match=message):
        sound_features.read(tmp_path / "features.json")


def test_features_that_do_not_fit_the_model_are_refused() -> None:
    program = takes_features(definition(SMALL), "int8", "n")
    with pytest.raises(InputError, match=r"one quantized input \[1, frames, 40, 1\].*int8 \[1, 12, 10, 1\]"):
        sound.write(program, definition(DEFINITIONS[0]))
    with pytest.raises(InputError, match="frames of sounds must have 9 to 4096 samples. Received: 5000"):
        sound.write(program, {**definition((50_000, *SMALL[1:4], 100.0, 20.0))})
    with pytest.raises(InputError, match="features.json. Received"):
        sound_features.read(Path("missing.json"))


def test_project_of_a_sound_builds_and_its_code_has_no_warning(tmp_path: Path) -> None:
    how = definition(SMALL)
    options = ProjectOptions("makefile", "regression")
    export.write(model_of(how, "int8"), tmp_path / "kws", name="kws", project=options, features=how)
    folder = tmp_path / "kws"
    done = subprocess.run(
        ["make", "-C", str(folder), "test", "CC=cc", f"CFLAGS={' '.join((*STRICT, '-O1'))}"],
        capture_output=True,
        text=True,
    )
    assert "number 0: " in done.stdout, done.stdout + done.stderr
    assert "tfkd_kws_sound_add(&sound, samples, count, input)" in (folder / "README.md").read_text()


@pytest.fixture(scope="module")
def sources(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The C of a sound and of a camera."""
    folder, how = tmp_path_factory.mktemp("sources"), definition(SMALL)
    files = dict(sound.write(takes_features(how, "int8", "kws"), how).files)
    files |= camera.write(takes_images((12, 12, 3), "eye"), Camera(40, 30, "rgb565", crop="center"))
    for name, text in files.items():
        (folder / name).write_text(text)
    return [str(folder / name) for name in files if name.endswith(".c")]


COMPILERS = {
    "c++": ["c++", "-x", "c++", "-std=c++17"],
    "clang": [sys.executable, "-m", "ziglang", "cc", "-target", "thumb-freestanding-eabi", "-mcpu=cortex_m4"],
}


@pytest.mark.parametrize("compiler", COMPILERS)
def test_compiler_has_no_warning(compiler: str, sources: list[str], tmp_path: Path) -> None:
    for source in sources:
        flags = ["-Wall", "-Wextra", "-Wconversion", "-Werror", "-O1", "-c", source, "-o", str(tmp_path / "out.o")]
        done = subprocess.run([*COMPILERS[compiler], *flags], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.skipif(GCC_MISSING is not None, reason=str(GCC_MISSING))
@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m0plus"])
def test_gcc_compiles_for_a_core_without_a_library(core: str, sources: list[str], tmp_path: Path) -> None:
    """Cores without a division would call one for it."""
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-O2", f"-mcpu={core}", "-mthumb", "-ffreestanding"]
    for source in sources:
        command = ["arm-none-eabi-gcc", *flags, "-c", source, "-o", str(tmp_path / "out.o")]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        symbols = subprocess.run(["arm-none-eabi-nm", "-u", str(tmp_path / "out.o")], capture_output=True, text=True)
        assert set(symbols.stdout.replace("U ", "").split()) <= {"memcpy", "memset"}
