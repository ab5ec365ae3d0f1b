"""Resource variables become states of the program, as the variable tensors of LSTM and SVDF are.

A model reads and writes a resource variable by its name:

    VAR_HANDLE         the name, as a tensor that the ops below take first
    READ_VARIABLE      copies the variable to its output
    ASSIGN_VARIABLE    copies its second input to the variable
    CALL_ONCE          runs another subgraph before the first inference, which assigns constants: the initial values

Here each variable becomes a tensor that keeps its values between runs; READ_VARIABLE(variable) -> value and
ASSIGN_VARIABLE(value) -> variable are what remains. Where every reader of the value comes before the variable is
assigned again, it reads the variable itself, and READ_VARIABLE is left out.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from tfkd.errors import ModelError
from tfkd.micro.graph import VIEWS, Graph, Op, Tensor


def resolve(graph: Graph) -> Graph:
    """Replaces resource variables by tensors that keep their values.

    Args:
        graph: A model.

    Returns:
        The graph without VAR_HANDLE and CALL_ONCE; the tensors of the variables follow those of the file.

    Raises:
        ModelError: A variable has no name, several shapes, types or assignments, or a computed initial value.
    """
    names = _names(graph)
    if not names and not graph.bodies:
        return graph
    initial = {name: values for body in graph.bodies.values() for name, values in _assigned(body).items()}
    read = {names.get(op.inputs[0], "") for op in graph.ops if op.kind == "READ_VARIABLE"}
    tensors, states, ops = list(graph.tensors), dict[str, int](), list[Op]()
    for op in graph.ops:
        if op.kind in ("VAR_HANDLE", "CALL_ONCE"):
            continue
        if op.kind not in ("READ_VARIABLE", "ASSIGN_VARIABLE"):
            ops.append(op)
            continue
        name = names.get(op.inputs[0], "")
        value = tensors[op.outputs[0]] if op.kind == "READ_VARIABLE" else graph.input_of(op, 1)
        if not name or value is None:
            raise ModelError(f"micro: {graph.label(op)} must have a VAR_HANDLE and a value. The file is damaged.")
        if name not in read:
            continue
        if name not in states:
            states[name] = len(tensors)
            tensors.append(_state(len(tensors), name, value, initial.get(name)))
        state = tensors[states[name]]
        if (state.elements, state.dtype) != (value.elements, value.dtype):
            raise ModelError(
                f"micro: variable {name!r} must have one shape and type. Received: {state.dtype} {state.shape} and "
                f"{value.dtype} {value.shape}. Use a variable of a fixed shape."
            )
        inputs, outputs = (state.index, value.index) if op.kind == "READ_VARIABLE" else (value.index, state.index)
        ops.append(dataclasses.replace(op, inputs=(inputs,), outputs=(outputs,)))
    _check_single(tensors, ops)
    resolved = Graph(tuple(tensors), tuple(ops), graph.inputs, graph.outputs)
    return _without_copies(resolved)


def _names(graph: Graph) -> dict[int, str]:
    """The name of each variable by the tensor of its handle."""
    handles = [op for op in graph.ops if op.kind == "VAR_HANDLE"]
    return {op.outputs[0]: f"{_text(op, 'Container')}/{_text(op, 'SharedName')}".lstrip("/") for op in handles}


def _text(op: Op, name: str) -> str:
    return (op.options.get(name) or b"").decode(errors="replace")


def _assigned(body: Graph) -> dict[str, np.ndarray]:
    """The constants that a subgraph assigns to variables."""
    names, values = _names(body), {}
    for op in body.ops:
        if op.kind == "VAR_HANDLE":
            continue
        value = body.input_of(op, 1) if op.kind == "ASSIGN_VARIABLE" else None
        if value is None or value.data is None or op.inputs[0] not in names:
            raise ModelError(
                f"micro: initial values of variables must be constants. Received: {body.label(op)}. Give the "
                "variable a constant, or export the model for TensorFlow Lite Micro: `tfkd export-c --format tflm`."
            )
        values[names[op.inputs[0]]] = value.data
    return values


def _state(index: int, name: str, value: Tensor, initial: np.ndarray | None) -> Tensor:
    """The tensor of a variable, with the shape, type and quantization of a value that is read or assigned."""
    if initial is not None and (initial.size, initial.dtype.name) != (value.elements, value.dtype):
        raise ModelError(
            f"micro: variable {name!r} of {value.dtype} {value.shape} must have an initial value like it. Received: "
            f"{initial.dtype.name} {initial.shape}. The file is damaged."
        )
    return Tensor(
        index,
        name,
        value.shape,
        value.dtype,
        value.scales,
        value.zero_points,
        value.axis,
        variable=True,
        initial=initial,
    )


def _check_single(tensors: list[Tensor], ops: list[Op]) -> None:
    written = [op.outputs[0] for op in ops if op.kind == "ASSIGN_VARIABLE"]
    for i in set(written):
        if written.count(i) > 1:
            raise ModelError(
                f"micro: variable {tensors[i].name!r} must be assigned once in a run. Received: {written.count(i)} "
                "assignments. Use a variable for each."
            )


def _without_copies(graph: Graph) -> Graph:
    """Lets ops read a variable itself where its value is not needed after the variable is assigned."""
    assigned = {op.outputs[0]: n for n, op in enumerate(graph.ops) if op.kind == "ASSIGN_VARIABLE"}
    renamed: dict[int, int] = {}
    for n, op in enumerate(graph.ops):
        if op.kind != "READ_VARIABLE":
            continue
        state, value = op.inputs[0], op.outputs[0]
        end = assigned.get(state, len(graph.ops))
        same = graph.tensors[state].shape == graph.tensors[value].shape
        if same and value not in graph.outputs and (n > end or _last_reader(graph, value) < end):
            renamed[value] = state
    ops = tuple(
        dataclasses.replace(op, inputs=tuple(renamed.get(i, i) for i in op.inputs))
        for op in graph.ops
        if op.kind != "READ_VARIABLE" or op.outputs[0] not in renamed
    )
    return dataclasses.replace(graph, ops=ops)


def _last_reader(graph: Graph, index: int) -> int:
    """Position of the last op that reads a tensor or a view of it; behind all ops where it is the model's output."""
    last = len(graph.ops) if index in graph.outputs else -1
    for n, op in enumerate(graph.ops):
        if index in op.inputs:
            last = max(last, n, _last_reader(graph, op.outputs[0]) if op.kind in VIEWS else -1)
    return last
