"""TensorFlow Lite Micro on this machine: its interpreter and reference kernels, in child processes."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform
import re
import tempfile
from typing import TYPE_CHECKING, Self

import numpy as np

from tfkd._internal import isolation
from tfkd._internal.types import InputArrays, JsonObject
from tfkd.conversion import litert, tflite_reader
from tfkd.conversion.micro_interpreter import MicroInterpreter
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError, ToolMissingError
from tfkd.targets import chunks, target
from tfkd.targets.measurement import Measurement, Memory

if TYPE_CHECKING:
    from tflite_micro import runtime

_SMALLEST_SHARD = 500
_POINTERS = "64-bit pointers: on a 32-bit device the tail of the arena is smaller, so arena_bytes is an upper bound"


@dataclasses.dataclass(frozen=True)
class TFLM(target.Target):
    """TensorFlow Lite Micro's interpreter.

    The outputs are those of its reference kernels, bit for bit as on a microcontroller. Latency is not measured.

    Args:
        chunks: Whether sequences are fed in chunks of the length of the model's input, see `tfkd.targets.chunks`.
        timeout_s: Time limit of each child process in seconds, > 0.

    Raises:
        InputError: A setting is wrong.
        ToolMissingError: The package tflite-micro is not installed.
    """

    chunks: bool = False
    timeout_s: float = 600.0

    @classmethod
    def names(cls) -> tuple[str, ...]:
        """See `tfkd.targets.Target.names`."""
        return ("tflm",)

    def __post_init__(self) -> None:
        target.check_timeout("tflm", self.timeout_s)
        if not target.installed("tflite_micro"):
            raise ToolMissingError(
                "tflm: the package tflite-micro is not installed; it exists for Linux on x86-64 only. "
                f"This is {platform.system()} on {platform.machine()}. Run `pip install --pre tflite-micro`."
            )

    @property
    def spec(self) -> str:
        """See `tfkd.targets.Target.spec`."""
        return target.described("tflm", self, "chunks")

    def in_chunks(self) -> Self:
        """See `tfkd.targets.Target.in_chunks`."""
        return dataclasses.replace(self, chunks=True)

    def run(
        self, model: str | os.PathLike[str] | bytes | TFLiteModel, inputs: InputArrays, *, latency: bool = True
    ) -> Measurement:
        """See `tfkd.targets.Target.run`; `latency` changes nothing here."""
        model = TFLiteModel.load(model)
        inputs, count = chunks.divide(model, inputs, self.spec) if self.chunks else (inputs, 1)
        arrays = target.check_inputs(model, inputs, self.spec)
        _check_sizes(model)
        parts = target.shards(arrays, least=_SMALLEST_SHARD, together=count)
        try:
            done = isolation.run_all(
                "tfkd.targets.tflm:_run",
                [{"content": model.content, "inputs": part, "chunks": count} for part in parts],
                timeout_s=self.timeout_s,
                what=f"running {model.path or 'the model'} on tflm",
                prepare="tfkd.conversion.micro_interpreter:load",
            )
        except isolation.ChildRefused as error:
            raise ModelError(
                f"tflm: TensorFlow Lite Micro does not accept the model. {_explain(str(error), model)}\n"
                f"It printed: {error}"
            ) from None
        return Measurement(
            target=self.spec,
            model_sha256=model.sha256,
            model_bytes=model.size_bytes,
            outputs=chunks.join(model, target.joined(done), count) if self.chunks else target.joined(done),
            evidence={"outputs": "emulated", "memory": "emulated"},
            memory=Memory(
                **{f"arena_{name}bytes": done[0]["arena"].get(key) for name, key in _ARENA.items()},
            ),
            setting={"kernels": "reference", **({"chunks": count} if self.chunks else {})},
            environment={
                "machine": platform.machine(),
                "tflite-micro": importlib.metadata.version("tflite-micro"),
                "note": _POINTERS,
            },
        )


def _check_sizes(model: TFLiteModel) -> None:
    """Refuses slices of variable size, for which TensorFlow Lite Micro takes the size that the file has as placeholder.

    A loop over the steps of a layer with `return_sequences=True` has such slices.
    """
    for graph in model.subgraphs:
        for op in graph.ops:
            if op.name != "SLICE" or graph.constants[op.inputs[2]]:
                continue
            output = graph.tensors[op.outputs[0]]
            if output.open_axes:
                raise ModelError(
                    f"tflm: SLICE ({output.name}) must have a constant size, since TensorFlow Lite Micro computes "
                    f"others wrong. Received: shape {output.shape} with open axes {output.open_axes}. Build GRU and "
                    "SimpleRNN layers with unroll=True, or use an LSTM without `stateful`."
                )


# What it prints about models that it does not support, and what that means.
_REASONS = (
    ("dequantize_common.cc", "It supports no float16 weights."),
    ("Hybrid models are not supported", "It supports no int8 weights with float activations."),
    ("FLOAT32 with filter type: INT8", "It supports no int8 weights with float activations."),
    ("num_inputs <= kMaxInputNum", "Its CONCATENATION takes at most 10 inputs."),
)


def _explain(error: str, model: TFLiteModel) -> str:
    """Why it refused a model, as far as that is known, and what to do, in sentences."""
    custom = tflite_reader.custom_ops(model.subgraphs)
    if custom and "op code CUSTOM" in error:
        lacking = f"It lacks one of the custom ops of the model: {', '.join(custom)}. Replace the layer."
        return tflite_reader.compiled(model.subgraphs) or lacking
    if missing := sorted(set(re.findall(r"Didn't find op for builtin opcode '(\w+)'", error))):
        return f"It does not support {', '.join(missing)}. {_remedy(model)}"
    if inside := _uint8_ops(model):
        return (
            "It supports uint8 where QUANTIZE or DEQUANTIZE convert it, not inside a model, as TensorFlow 1 quantized "
            f"models: {', '.join(inside)}. Convert with mode='full_int8', or run it on the target host."
        )
    return f"{next((reason for sign, reason in _REASONS if sign in error), '')} {_remedy(model)}".strip()


def _remedy(model: TFLiteModel) -> str:
    return "Convert with mode='full_int8', or replace the layer." if model.float_ops else "Replace the layer."


def _uint8_ops(model: TFLiteModel) -> list[str]:
    """Names of the ops that compute quantized uint8 values."""
    return sorted(
        {
            op.name
            for graph in model.subgraphs
            for op in graph.ops
            if op.name not in ("QUANTIZE", "DEQUANTIZE", "RESHAPE")
            and any(graph.tensors[i].dtype == "uint8" and graph.tensors[i].scales for i in op.outputs)
        }
    )


_ARENA = {"": "total", "head_": "head", "tail_": "tail"}


def _run(content: bytes, inputs: list[np.ndarray], chunks: int = 1) -> JsonObject:  # in the child
    runner = MicroInterpreter(TFLiteModel(content))
    rows = [
        runner.invoke([array[i : i + 1] for array in inputs], continued=i % chunks > 0) for i in range(len(inputs[0]))
    ]
    return {
        "outputs": [litert.joined(output) for output in zip(*rows, strict=True)],
        "arena": _arena(runner.interpreter),
    }


def _arena(interpreter: runtime.Interpreter) -> dict[str, int]:
    """Sizes of the parts of the arena in bytes, parsed from what the interpreter prints on file descriptor 2."""
    with tempfile.TemporaryFile() as sink:
        kept = os.dup(2)
        os.dup2(sink.fileno(), 2)
        try:
            interpreter.print_allocations()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        sink.seek(0)
        printed = sink.read().decode(errors="replace")
    return {part: int(size) for part, size in re.findall(r"Arena allocation (\w+) (\d+) bytes", printed)}
