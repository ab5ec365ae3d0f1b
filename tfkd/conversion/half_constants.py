"""Single numbers, such as an epsilon or the -1e9 of a mask, that float16 cannot hold: they stay float32.

    constant (float16) ── DEQUANTIZE ── ADD        =>        constant (float32) ── ADD

As float16, numbers beyond 65,504 become 65,504 or infinite, and those below 3e-8 become 0: a row without variance is
NaN behind a `LayerNormalization` with an epsilon of 1e-9.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion.model_editor import ModelEditor

# A smaller number has less than 5 bits in float16. A larger one than the largest may have become that one.
_SMALLEST, _LARGEST = 2.0**-20, float(np.finfo("float16").max)
_ARITHMETIC = ("ADD", "SUB", "MUL", "DIV", "MAXIMUM", "MINIMUM", "SELECT_V2", "POW")


def are_lost(content: bytes) -> bool:
    """Whether a .tflite with constants in float16 has single numbers that may be others in float32."""
    return any(_lost(ModelEditor(content)))


def restore(content: bytes, floats: bytes) -> bytes:
    """Writes single numbers that float16 cannot hold as float32.

    Args:
        content: A .tflite with constants in float16.
        floats: The same model in float32, with the same names.
    """
    editor, original = ModelEditor(content), ModelEditor(floats)
    # By the name of a result: equal constants are one tensor, and other ones may be equal in float16.
    originals = {original.tensors[int(i)].name: op for op in original.graph.operators for i in op.outputs}
    for op, position, half in list(_lost(editor)):
        tensor, same = editor.tensors[half], originals.get(editor.tensors[int(op.outputs[0])].name)
        value = _constant(original, same, position) if same and original.name(same) == editor.name(op) else None
        if value is not None and _rounded(value) == _rounded(editor.constant(half)):
            name = f"{tensor.name.decode()}/float32_{len(editor.tensors)}"
            editor.set_input(op, position, editor.new_constant(value.reshape(tensor.shape), name))
    readers = editor.readers()
    for op in list(editor.graph.operators):
        if editor.name(op) == "DEQUANTIZE" and not readers.get(int(op.outputs[0])):
            editor.remove(op)
    return editor.pack()


def _lost(editor: ModelEditor) -> Iterator[tuple[schema.OperatorT, int, int]]:
    """The ops that read a number that float16 may have changed, its position among their inputs, and its constant."""
    halves = {
        int(op.outputs[0]): int(op.inputs[0])
        for op in editor.graph.operators
        if editor.name(op) == "DEQUANTIZE" and editor.tensors[int(op.inputs[0])].type == schema.TensorType.FLOAT16
    }
    for op in editor.graph.operators:
        for position, index in enumerate(op.inputs.tolist() if editor.name(op) in _ARITHMETIC else ()):
            if index in halves and not editor.is_activation(halves[index]):
                values = editor.constant(halves[index])
                if values.size == 1 and not _SMALLEST <= abs(values[0]) < _LARGEST:
                    yield op, position, halves[index]


def _constant(editor: ModelEditor, op: schema.OperatorT, position: int) -> np.ndarray | None:
    """The constant that an op reads at a position of its inputs; None for any other tensor."""
    index = int(op.inputs[position])
    is_float = editor.tensors[index].type == schema.TensorType.FLOAT32
    return editor.constant(index) if is_float and not editor.is_activation(index) else None


def _rounded(value: np.ndarray) -> float:
    """The only number of an array in float16, limited to finite ones."""
    return float(np.clip(value, -_LARGEST, _LARGEST).astype(np.float16)[0]) if value.size == 1 else np.nan
