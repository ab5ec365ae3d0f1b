"""Ops that keep a state from one run to the next: LSTM and SVDF."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.layer import Layer, Unsupported, constant, folded_sums, int8, operand, shape_text

_GATES = ("input", "forget", "cell", "output")


def _state(graph: Graph, op: Op, i: int, size: int, *dtypes: str) -> Tensor:
    tensor = operand(graph, op, i)
    if not tensor.variable or tensor.data is not None or tensor.dtype not in dtypes or len(tensor.scales) != 1:
        raise Unsupported(
            f"state {tensor.name!r} must be a quantized variable of {' or '.join(dtypes)}. "
            "Convert with `tfkd convert --mode full_int8`"
        )
    if tensor.elements != size:
        raise Unsupported(f"state {tensor.name!r} has {tensor.elements} values, not {size}. The file is damaged")
    return tensor


def _matrix(graph: Graph, op: Op, i: int, shape: tuple[int, int], *dtypes: str) -> tuple[np.ndarray, float]:
    """Constant weights as int64, and their step."""
    tensor, values = operand(graph, op, i), constant(graph, op, i, *dtypes)
    if tensor.shape != shape or len(tensor.scales) != 1 or tensor.zero_point:
        raise Unsupported(
            f"weights {tensor.name!r} must be {shape}, symmetric. Received: {tensor.shape}. Convert the model again"
        )
    return values.astype("int64"), tensor.scale


def _scaling(prefix: str, real: float) -> dict[str, int]:
    multiplier, shift = arithmetic.quantize_multiplier(real)
    if shift > 30:
        raise Unsupported("a scale is absurd. Convert again with a real calibration set")
    return {f"{prefix}multiplier": multiplier, f"{prefix}shift": shift}


def lstm(graph: Graph, op: Op) -> list[Layer]:
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    if len(op.inputs) != 24 or any(op.inputs[i] >= 0 for i in (*range(9, 12), 16, 17, *range(20, 24))):
        raise Unsupported("peepholes, a projection and layer normalization are not supported. Use a Keras LSTM")
    if op.options["FusedActivationFunction"] != "tanh":
        raise Unsupported("the activation must be tanh. Use a Keras LSTM")
    if len(source.shape) != 3 or len(output.shape) != 3 or source.shape[1 if op.options["TimeMajor"] else 0] != 1:
        raise Unsupported(f"input {source.shape} must be one sequence. Convert the model again")
    steps, inputs, units = source.elements // source.shape[2], source.shape[2], output.shape[2]
    if output.elements != steps * units:
        raise Unsupported(f"{output.shape} does not come out of {source.shape}. The file is damaged")
    hidden, cell = _state(graph, op, 18, units, "int8"), _state(graph, op, 19, units, "int16")
    power = round(math.log2(cell.scale))
    if cell.scale != 2.0**power or not -20 <= power <= 0 or cell.zero_point:
        raise Unsupported(f"the scale of {cell.name!r} must be a power of two, 2^-20 to 1. Convert the model again")
    fields = _gates(graph, op, source, hidden, inputs, units)
    left = 12 + power  # of the cell state, to 12 fraction bits
    fields |= {
        **_scaling("forget_", 2.0**-15 * cell.scale / cell.scale),
        **_scaling("input_", 2.0**-30 / cell.scale),
        **_scaling("out_", 2.0**-30 / hidden.scale),
        "steps": steps,
        "inputs": inputs,
        "units": units,
        "tanh_multiplier": 3 << max(0, left),
        "tanh_shift": max(0, -left),
        "clip": int(min(max(float(op.options["CellClip"]) / cell.scale, 0.0), 32767.0)),
        "out_zero_point": hidden.zero_point,
        "sigmoid": arithmetic.sigmoid_table(),
    }
    return [
        Layer(
            op,
            "lstm",
            "dot sigmoid lstm",
            "tfkd_lstm_params",
            fields,
            (source.index,),
            output.index,
            comment=f"{shape_text(source)} -> {shape_text(output)}",
            states=(hidden.index, cell.index),
        )
    ]


def _gates(graph: Graph, op: Op, source: Tensor, hidden: Tensor, inputs: int, units: int) -> dict[str, Any]:
    """Weights, biases with the zero points folded in, and how the sums are rescaled to 12 fraction bits."""
    rows, biases, scaled = [], [], []
    for g, gate in enumerate(_GATES):
        bias = constant(graph, op, 12 + g, "int32").astype("int64").reshape(-1)
        if len(bias) != units:
            raise Unsupported(f"{len(bias)} biases for {units} units. The file is damaged")
        parts = []
        for tensor, first, depth, added in ((source, 1, inputs, bias), (hidden, 5, units, 0 * bias)):
            weights, scale = _matrix(graph, op, first + g, (units, depth), "int8")
            folded, _ = folded_sums(f"the {gate} gate", weights, added, tensor.zero_point)
            # one product in float32, as for FULLY_CONNECTED
            scaled.append(_scaling("", float(np.float32(tensor.scale) * np.float32(scale)) / 2.0**-12))
            parts.append(weights)
            biases.append(folded)
        rows.append(np.concatenate(parts, axis=1))
    return {
        "weights": np.stack(rows, axis=1).astype("int8"),
        "bias": np.stack(biases, axis=1),
        **{name: tuple(one[name] for one in scaled) for name in ("multiplier", "shift")},
    }


def svdf(graph: Graph, op: Op) -> list[Layer]:
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    features, times, rank = operand(graph, op, 1), operand(graph, op, 2), int(op.options["Rank"])
    if len(op.inputs) != 5 or source.shape[:-1] != (1,) or len(times.shape) != 2 or rank < 1:
        raise Unsupported(f"input {source.shape} must be one vector. Convert the model again")
    filters, inputs, memory = features.shape[0] if features.shape else 0, source.shape[-1], times.shape[1]
    if not filters or filters % rank or output.shape != (1, filters // rank):
        raise Unsupported(f"{filters} filters of rank {rank} do not give {output.shape}. The file is damaged")
    feature, feature_scale = _matrix(graph, op, 1, (filters, inputs), "int8")
    time, time_scale = _matrix(graph, op, 2, (filters, memory), "int8", "int16")
    bias = np.zeros(filters // rank, "int64")
    if graph.of(op, 3) is not None:
        bias = constant(graph, op, 3, "int32").astype("int64").reshape(-1)
    state = _state(graph, op, 4, filters * memory, "int8", "int16")
    if times.dtype != state.dtype or len(bias) != output.elements:
        raise Unsupported("time weights, state and bias do not fit each other. The file is damaged")
    limits = np.iinfo(state.dtype)
    reach = 2 ** (8 if state.dtype == "int8" else 16)
    largest = np.abs(time).sum(axis=1).reshape(-1, rank).sum(axis=1) * reach + np.abs(bias)
    if max(np.abs(feature).sum(axis=1).max() * 255, largest.max()) >= 2**31:
        raise Unsupported("sums do not fit 32 bits. Convert again with a real calibration set")
    s = [np.float32(x) for x in (source.scale, feature_scale, state.scale, time_scale, output.scale)]
    fields: dict[str, Any] = {
        "feature": feature.astype("int8"),
        "feature_bias": (-source.zero_point * feature.sum(axis=1)).astype("int32"),
        "time": time.astype("int16"), "bias": bias.astype("int32"),
        "inputs": inputs, "units": output.elements, "rank": rank, "memory": memory,
        **_scaling("state_", float(s[0] * s[1] / s[2])), **_scaling("", float(s[2] * s[3] / s[4])),
        "least": int(limits.min), "most": int(limits.max),
        "state_zero_point": state.zero_point, "out_zero_point": output.zero_point,
    }  # fmt: skip
    kernel = "svdf" if state.dtype == "int8" else "svdf_wide"
    return [
        Layer(
            op,
            kernel,
            "dot svdf",
            "tfkd_svdf_params",
            fields,
            (source.index,),
            output.index,
            states=(state.index,),
            comment=f"{inputs} -> {filters} filters -> {output.elements}",
        )
    ]
