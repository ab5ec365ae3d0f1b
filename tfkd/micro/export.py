"""Exports a model into a folder that a firmware compiles.

Format `c`: the generated C99, a self-test and build files. Format `tflm`: the model as an array for TensorFlow Lite
Micro, the registration of its ops and build files. Both with `report.json`.

This module runs no model itself: outputs of the self-test and the arena of TensorFlow Lite Micro come from oracles
that the caller passes, since TensorFlow Lite Micro's interpreter exists for Linux on x86-64 only. Without one that runs
the model, the C has no self-test and an unknown arena is null.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tfkd import micro
from tfkd._internal import atomic
from tfkd._internal.types import InputArrays, JsonObject, JsonRecord
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError
from tfkd.micro import build_files, decoders, task_code
from tfkd.micro.costs import Core, costs_of
from tfkd.micro.interface import with_facts
from tfkd.micro.projects import ProjectOptions, project_files
from tfkd.micro.selftest import Oracle, Vectors, make_vectors, selftest, selftest_header
from tfkd.micro.sensors import camera as camera_code
from tfkd.micro.sensors import sound as sound_code
from tfkd.micro.sensors.camera import Camera
from tfkd.micro.tflm_files import tflm_files

FORMATS = ("c", "tflm")
_VERB = "tfkd export-c"


def write(
    model: str | os.PathLike[str] | TFLiteModel,
    folder: str | os.PathLike[str],
    *,
    name: str = "model",
    format: str = "c",
    project: ProjectOptions | None = None,
    size: bool = False,
    stream: bool = False,
    decode: str | None = None,
    features: JsonRecord | None = None,
    camera: Camera | None = None,
    inputs: InputArrays | None = None,
    oracle: Oracle | Sequence[Oracle] | None = None,
    core: Core | None = None,
    overwrite: bool = False,
) -> JsonObject:
    """Writes a folder that a firmware compiles, atomically.

    Args:
        model: Fully quantized .tflite.
        folder: Folder to create.
        name: C identifier in lower case, part of all public names.
        format: `c` for plain C99 without an interpreter, `tflm` for an array to run on TensorFlow Lite Micro.
        project: Kind of library to write, with an example and the decoder of the task; None for the C files with a
            README.md, CMakeLists.txt and Makefile. Format `c` only.
        size: Whether to generate the smallest code, which is a little slower; format `c` only.
        stream: Whether layers run row by row where that makes the arena smaller; format `c` only.
        decode: One of `tfkd.micro.decoders.NAMES`, for a file `<name>_decode.c` that finds objects in the output;
            None for none; format `c` only.
        features: Definition of the features of sounds that the model takes, see
            `tfkd.data.sound_features.definition`, for a file `<name>_sound.c` that computes them; None for none;
            format `c` only.
        camera: Camera, for a file `<name>_camera.c` that prepares its images; None for none; format `c` only.
        inputs: [N, ...] samples of the self-test, of the model's input dtype; four random samples by default.
        oracle: Engine that computes the expected outputs of the self-test, such as `targets.get("tflm")`, or several
            of which the first that runs the model is taken; None for C without a self-test. For the format `tflm`,
            only `tflm` itself tells the size of the arena.
        core: Emulated core, such as `targets.get("cortex-m4")`, that measures flash, stack and instructions for the
            report; None leaves them unknown. Format `c` only.
        overwrite: Whether to replace an existing folder that this function wrote.

    Returns:
        The content of `report.json`: sizes in bytes, the memory plan, the number of test vectors, the engine that
        computed them, and why each engine that was tried before it refused the model.

    Raises:
        InputError: An option is wrong, or the folder exists and must not be replaced.
        ModelError: The model is damaged or not supported.
    """
    model, folder = TFLiteModel.load(model), Path(folder)
    if format not in FORMATS:
        raise InputError(f"export-c: format must be one of {', '.join(FORMATS)}. Received: {format!r}.")
    if decode not in (None, *decoders.NAMES):
        raise InputError(f"export-c: decode must be one of {', '.join(decoders.NAMES)}. Received: {decode!r}.")
    atomic.check_replaceable(folder, "export-c", own=_wrote(folder), overwrite=overwrite)
    c_only: dict[str, object] = {"size": size, "stream": stream, "project": project, "decode": decode, "core": core}
    c_only |= {"features": features, "camera": camera}
    for option, given in c_only.items():
        if given and format != "c":
            raise InputError(
                f"export-c: {option} needs format c, got tflm: TensorFlow Lite Micro brings its own kernels. Leave the "
                "option out."
            )
    if features and camera:
        raise InputError("export-c: features and camera exclude each other. Received: both. Leave one of them out.")
    oracles = list(oracle) if isinstance(oracle, Sequence) else [oracle] if oracle else []
    if inputs is not None and not oracles:
        raise InputError(
            "export-c: inputs need an oracle that computes their outputs. Pass oracle=targets.get('tflm')."
        )
    optimize = "-Os" if size else "-O2"
    if format == "tflm":
        files, report = tflm_files(model, name, oracles)
        files |= build_files.write(files, name, optimize)
    else:
        program = micro.emit(model, name=name, size=size, stream=stream)
        added = decoders.files(program, decode) if decode else {}
        added |= sound_code.write(program, features).files if features else {}
        added |= camera_code.write(program, camera) if camera else {}
        if project:
            task_code.write(model, program, project.task, project.input_range)  # refuses before anything slow runs
        files, report, test = _c(model, program, oracles, inputs, core)
        files |= added
        if project:
            files = project_files(project, model, program, files, report, test, optimize)
        else:
            files |= build_files.write(files, name, optimize)
    files["report.json"] = json.dumps({"written_by": _VERB, **report}, indent=2) + "\n"
    atomic.write_folder(folder, files)
    return report


def _wrote(folder: Path) -> bool:
    """Whether `write` wrote a folder: its report says so."""
    try:
        report = json.loads((folder / "report.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(report, dict) and report.get("written_by") == _VERB


def _c(
    model: TFLiteModel,
    program: micro.Program,
    oracles: Sequence[Oracle],
    inputs: InputArrays | None,
    core: Core | None,
) -> tuple[dict[str, str], JsonObject, Vectors | None]:
    """The files, the report and the test vectors of the format `c`."""
    files, test = dict(program.files), None
    refusals: dict[str, str] = {}
    for oracle in oracles:
        try:
            test = make_vectors(model, program, oracle, inputs)
            break
        except ModelError as error:  # such as an op that only this generator supports
            refusals[oracle.spec] = str(error)
    if test:
        files[f"{program.name}_selftest.c"] = selftest(program, test)
        files[f"{program.name}_selftest.h"] = selftest_header(program, test)
    costs = costs_of(model, program, core)
    files[f"{program.name}.h"] = with_facts(program.files[f"{program.name}.h"], program.name, _facts(model, costs))
    report = {
        "model_sha256": model.sha256,
        "model_bytes": model.size_bytes,
        "macs": model.macs,
        "removed": {"summary": str(program.elimination), **dataclasses.asdict(program.elimination)},
        "weight_bytes": program.weight_bytes,
        "arena_bytes": program.arena_bytes,
        "state_bytes": program.state_bytes,
        "least_live_bytes": program.least_bytes,
        "arena": [
            {"buffer": buffer.name, "offset": offset, "bytes": buffer.bytes, "first": buffer.first, "last": buffer.last}
            for buffer, offset in zip(program.plan.buffers, program.plan.offsets, strict=True)
        ],
        "layers": list(program.steps),
        "float_layers": list(program.float_layers),
        "costs": costs,
        "golden_vectors": test.count if test else 0,
        "golden_source": test.oracle if test else None,
        "golden_refusals": refusals,
    }
    return files, report, test


def _facts(model: TFLiteModel, costs: JsonObject) -> dict[str, str | int]:
    """Macros of the header that say what the code was made from and what it needs."""
    facts: dict[str, str | int] = {
        "MODEL_SHA256": model.sha256,
        "TFKD_VERSION": importlib.metadata.version("tfkd"),
        "LICENSE": "Code: MIT. Weights: the license of the model.",
    }
    if costs["stack_bytes"] is not None:  # on the core of report.json; other cores need more or less
        facts["STACK_BYTES"] = costs["stack_bytes"]
    return facts
