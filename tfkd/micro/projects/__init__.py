"""Folders that are a library of Arduino, PlatformIO, Zephyr, ESP-IDF and so on as they stand.

A kind of project is one template and one line in `PROJECTS`. A template holds all files of the folder but the generated
C, which lies in `src/`: a line `=== path` starts a file. `parts.jinja` has what all share.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import re
from collections.abc import Mapping

from tfkd._internal.suggestion import suggestion
from tfkd._internal.types import JsonObject
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError
from tfkd.micro import task_code
from tfkd.micro.c_context import CTYPES, quantizer, value_type
from tfkd.micro.emitter import Program
from tfkd.micro.rendering import rendered
from tfkd.micro.selftest import Vectors, engine

# The template of each kind of project.
PROJECTS = {
    "arduino": "arduino.jinja",
    "platformio": "platformio.jinja",
    "zephyr": "zephyr.jinja",
    "esp-idf": "esp_idf.jinja",
    "cmake": "cmake.jinja",
    "stm32cube": "stm32cube.jinja",
    "makefile": "makefile.jinja",
}

_START = re.compile(r"^=== (\S+)\n", re.MULTILINE)


@dataclasses.dataclass(frozen=True)
class End:
    """An input or an output of a model in the C of an example.

    Args:
        array: Name of the array that holds it.
        ctype: C type of its values.
        prefix: Start of its macros in the header.
        quantizer: C function from a float to a value; empty where the values are no quantized numbers.
    """

    array: str
    ctype: str
    prefix: str
    quantizer: str


@dataclasses.dataclass(frozen=True)
class Project:
    """What the templates say of a model.

    Args:
        name: C identifier of the model.
        inputs: Inputs in the model's order.
        outputs: Outputs in the model's order.
        in_type: C type of the values of all inputs, or `void`.
        out_type: C type of the values of all outputs, or `void`.
        stateful: Whether the model keeps a state between runs.
        answer: Task whose decoder the header has; empty without one.
        from_bytes: Whether the header has a function from bytes to the input.
        sensor: `sound` or `camera` where there is C that prepares the input, else empty.
        vectors: Number of vectors of the self-test, 0 without one.
        engine: What computed the outputs of the self-test.
        sources: Paths of the C files.
        optimize: Optimization option of the compiler.
        arena_bytes: RAM of the context.
        stack_bytes: Deepest stack on an emulated core, or None where it is unknown.
        facts: Labels and values of the table in the README.
    """

    name: str
    inputs: tuple[End, ...]
    outputs: tuple[End, ...]
    in_type: str
    out_type: str
    stateful: bool
    answer: str
    from_bytes: bool
    sensor: str
    vectors: int
    engine: str
    sources: tuple[str, ...]
    optimize: str
    arena_bytes: int
    stack_bytes: int | None
    facts: Mapping[str, str]

    @property
    def library(self) -> tuple[str, ...]:
        """The C files without the self-test."""
        return tuple(file for file in self.sources if file != f"src/{self.name}_selftest.c")

    @property
    def upper(self) -> str:
        """The name in macros."""
        return self.name.upper()

    @property
    def pointers(self) -> bool:
        """Whether the run function takes one pointer for each input and output."""
        return not len(self.inputs) == len(self.outputs) == 1

    @property
    def stack_room(self) -> int:
        """Stack of a thread that runs the example: what `printf` needs, and twice the model's on another core."""
        return 4096 + (2 * (self.stack_bytes or 2048) + 1023) // 1024 * 1024


@dataclasses.dataclass(frozen=True)
class ProjectOptions:
    """What a project is for.

    Args:
        kind: Key of `PROJECTS`.
        task: Key of `task_code.DECODERS`: what the outputs mean.
        input_range: What the model expects for the bytes 0 and 255 of a sensor; None for 0 and 255 themselves, where
            the input has room for them.

    Raises:
        InputError: Unknown kind.
    """

    kind: str
    task: str = "classification"
    input_range: tuple[float, float] | None = None

    def __post_init__(self) -> None:
        if self.kind not in PROJECTS:
            raise InputError(
                f"export-c: project must be one of {', '.join(PROJECTS)}. Received: {self.kind!r}."
                f"{suggestion(self.kind, PROJECTS)}"
            )


def project_files(
    options: ProjectOptions,
    model: TFLiteModel,
    program: Program,
    files: Mapping[str, str],
    report: JsonObject,
    vectors: Vectors | None,
    optimize: str,
) -> dict[str, str]:
    """All files of a project by their paths.

    Args:
        options: Kind of project and task.
        model: The model.
        program: The C generated from it.
        files: C files by name; they come into `src/`.
        report: Content of `report.json`, from which the README takes the costs.
        vectors: Vectors of the self-test, or None.
        optimize: Optimization option of the compiler.

    Raises:
        InputError: An option is wrong.
    """
    code = task_code.write(model, program, options.task, options.input_range)
    project = Project(
        name=program.name,
        inputs=_ends(program, "INPUT"),
        outputs=_ends(program, "OUTPUT"),
        in_type=value_type([one.tensor for one in program.inputs]),
        out_type=value_type([one.tensor for one in program.outputs]),
        stateful=program.state_bytes > 0,
        answer=options.task if code.has_decoder else "",
        from_bytes=code.has_bytes,
        sensor=next((one for one in ("sound", "camera") if f"{program.name}_{one}.c" in files), ""),
        vectors=vectors.count if vectors else 0,
        engine=engine(vectors.oracle).strip(",") if vectors else "",
        sources=tuple(f"src/{file}" for file in sorted(files) if file.endswith(".c")),
        optimize=optimize,
        arena_bytes=program.arena_bytes,
        stack_bytes=report["costs"]["stack_bytes"],
        facts=_facts(report),
    )
    sources = {f"src/{file}": text for file, text in files.items()}
    return {**sources, f"src/{program.name}_task.h": code.text, **_rendered(options.kind, project)}


def _ends(program: Program, kind: str) -> tuple[End, ...]:
    ends = program.inputs if kind == "INPUT" else program.outputs
    tensors = [one.tensor for one in ends]
    single = len(program.inputs) == len(program.outputs) == 1
    return tuple(
        End(
            array=kind.lower() if single else f"{kind.lower()}{n}",
            ctype=CTYPES[tensor.dtype],
            prefix=f"TFKD_{program.name.upper()}_{kind}{n if len(ends) > 1 else ''}",
            quantizer=quantizer(program.name, tensors, tensor.dtype) if tensor.scales and kind == "INPUT" else "",
        )
        for n, tensor in enumerate(tensors)
    )


def _facts(report: JsonObject) -> dict[str, str]:
    """The table of the README."""
    costs = report["costs"]
    where = f" (emulated: {costs['target']}, {costs['compiler']})" if costs["compiler"] else ""
    unknown = "unknown: no emulated core measured it"
    facts = {
        "SHA-256 of the .tflite": f"`{report['model_sha256']}`",
        "tfkd": importlib.metadata.version("tfkd"),
        "License": "code: MIT; weights: the license of the model",
        "RAM of the context (arena)": f"{report['arena_bytes']:,} bytes",
        "Constants (weights and tables)": f"{report['weight_bytes']:,} bytes",
    }
    for label, name, unit in (
        ("Flash, code and constants", "flash_bytes", "bytes"),
        ("Stack", "stack_bytes", "bytes"),
        ("Instructions of one inference", "instructions", ""),
    ):
        value = costs[name]
        facts[label] = unknown if value is None else f"{value:,} {unit}".rstrip() + where
    if features := costs["features"]:
        flash, ram, stack, count = (
            f"{features[name]:,}" for name in ("flash_bytes", "ram_bytes", "stack_bytes", "instructions")
        )
        facts["Features of a sound beside it"] = (
            f"{flash} bytes of flash, {ram} of RAM, {stack} of stack; {count} instructions for the "
            f"{features['rows']} frames of an input{where}"
        )
    return facts


def _rendered(kind: str, project: Project) -> dict[str, str]:
    """The files of a kind of project beside the generated C, by their paths."""
    _, *parts = _START.split(rendered(__name__, PROJECTS[kind], {"project": project}))
    return {path: content.strip("\n") + "\n" for path, content in zip(parts[::2], parts[1::2], strict=True)}
