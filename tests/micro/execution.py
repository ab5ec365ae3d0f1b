"""Runs models for the tests: the generated C natively under sanitizers, and TensorFlow Lite Micro's interpreter."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TypeVar

import numpy as np

from tfkd import micro
from tfkd._internal import isolation
from tfkd.micro.c_context import CTYPES

STRICT = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Wconversion", "-Werror")
_Key = TypeVar("_Key")
SANITIZED = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-O1")


def _interpret(models: list[bytes], inputs: list[np.ndarray]) -> list[np.ndarray]:  # in a child process
    from tflite_micro import runtime

    results = []
    for content, x in zip(models, inputs, strict=True):
        try:
            interpreter = runtime.Interpreter.from_bytes(content, arena_size=1 << 20)
        except RuntimeError:
            results.append(np.zeros(0, "int8"))
            continue
        rows = []
        for sample in x:
            interpreter.set_input(sample[None], 0)
            interpreter.invoke()
            rows.append(interpreter.get_output(0).reshape(-1))
        results.append(np.stack(rows))
    return results


def interpret(models: list[bytes], inputs: list[np.ndarray]) -> list[np.ndarray]:
    """TensorFlow Lite Micro's outputs [N, values] for the samples of each model; empty for a model that it refuses."""
    return isolation.run(
        "tests.micro.execution:_interpret",
        models=models,
        inputs=inputs,
        timeout_s=300,
        what="running random graphs on tflm",
    )


def write_sources(folder: Path, programs: list[micro.Program]) -> list[str]:
    """Writes programs into a folder.

    Returns:
        The first lines of a C file that calls them.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for program in programs:
        for name, text in program.files.items():
            (folder / name).write_text(text)
    includes = [f'#include "{program.name}.c"' for program in programs]
    return ["#include <stdio.h>", *includes, "int main(void) {"]


def compile_and_run(folder: Path, main: list[str], inputs: list[np.ndarray], *flags: str) -> bytes:
    """Compiles a C file with every warning an error, and runs it with the inputs on its standard input."""
    (folder / "main.c").write_text("\n".join(main))
    command = ["cc", *STRICT, *(flags or SANITIZED), str(folder / "main.c"), "-o", str(folder / "run")]
    compiled = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert compiled.returncode == 0, compiled.stderr[-3000:]
    stdin = b"".join(x.tobytes() for x in inputs)
    done = subprocess.run([folder / "run"], input=stdin, capture_output=True, timeout=600)
    assert done.returncode == 0, done.stderr.decode()[-3000:]
    return done.stdout


def native(folder: Path, programs: list[micro.Program], inputs: list[np.ndarray], *flags: str) -> list[np.ndarray]:
    """The outputs [N, values] of programs for their samples; the state is reset before a program's first sample."""
    main = write_sources(folder, programs)
    for program, x in zip(programs, inputs, strict=True):
        n = program.name
        reset = f"tfkd_{n}_reset(&ctx);" if program.state_bytes else ""
        ctypes = [CTYPES[one.tensor.dtype] for one in (program.inputs[0], program.outputs[0])]
        main.append(
            f"{{ static tfkd_{n}_ctx ctx; {reset} static {ctypes[0]} in[TFKD_{n.upper()}_INPUT_SIZE];"
            f"static {ctypes[1]} out[TFKD_{n.upper()}_OUTPUT_SIZE]; for (int i = 0; i < {len(x)}; i++) {{"
            f"if (fread(in, 1, sizeof in, stdin) != sizeof in || tfkd_{n}_run(&ctx, in, out)) return 1;"
            f"fwrite(out, 1, sizeof out, stdout); }} }}"
        )
    printed = compile_and_run(folder, [*main, "return 0; }"], inputs, *flags)
    results, at = [], 0
    for program, x in zip(programs, inputs, strict=True):
        tensor = program.outputs[0].tensor
        rows = np.frombuffer(printed, tensor.dtype, len(x) * tensor.elements, at)
        results.append(rows.reshape(len(x), tensor.elements))
        at += results[-1].nbytes
    assert at == len(printed)
    return results


def differing(keys: Sequence[_Key], got: list[np.ndarray], expected: list[np.ndarray]) -> list[_Key]:
    """The keys of those arrays that are not equal."""
    return [key for key, a, b in zip(keys, got, expected, strict=True) if not np.array_equal(a, b)]


def run_damaged(models: Iterable[bytes], folder: Path, *, every_second_streams: bool = False) -> tuple[int, int]:
    """Runs the programs of damaged models under sanitizers; the numbers of programs and of refused models."""
    programs, inputs, refused = [], [], 0
    for i, content in enumerate(models):
        try:
            program = micro.emit(content, name=f"n{i}", stream=every_second_streams and i % 2 == 1)
        except ValueError:
            refused += 1
            continue
        assert program.arena_bytes < 1 << 24
        programs.append(program)
        size = program.inputs[0].tensor.bytes
        inputs.append(np.frombuffer(np.random.default_rng(i).bytes(size), "u1").reshape(1, -1))
    native(folder, programs, inputs)
    return len(programs), refused
