"""UNIDIRECTIONAL_SEQUENCE_LSTM, SVDF, CIRCULAR_BUFFER: ops with states, which keep their values between runs."""

from __future__ import annotations

import math

import numpy as np

from tfkd.micro import arithmetic
from tfkd.micro.graph import Graph, Op, Tensor
from tfkd.micro.lowering.custom_options import custom_options, damaged
from tfkd.micro.lowering.layer import (
    Fields,
    Layer,
    Unsupported,
    check_scale,
    constant,
    int8,
    operand,
    read_by_kernel,
    shape_text,
)
from tfkd.micro.lowering.requantization import folded_sums

_GATES = ("input", "forget", "cell", "output")


def _state(graph: Graph, op: Op, i: int, size: int, *dtypes: str) -> Tensor:
    """Input `i`, which must be a quantized variable of `size` values."""
    tensor = operand(graph, op, i)
    if not tensor.variable or tensor.data is not None or tensor.dtype not in dtypes or len(tensor.scales) != 1:
        raise Unsupported(
            f"state {tensor.name!r} must be a quantized variable of {' or '.join(dtypes)}. "
            "Convert with `tfkd convert --mode full_int8`"
        )
    check_scale(tensor)
    if tensor.elements != size:
        raise Unsupported(f"state {tensor.name!r} has {tensor.elements} values, not {size}. The file is damaged")
    return tensor


def _matrix(graph: Graph, op: Op, i: int, shape: tuple[int, int], *dtypes: str) -> tuple[np.ndarray, float]:
    """Input `i`, which must be symmetric constant weights: as int64, and their scale."""
    tensor, values = operand(graph, op, i), constant(graph, op, i, *dtypes)
    if tensor.shape != shape or len(tensor.scales) != 1 or tensor.zero_point:
        raise Unsupported(
            f"weights {tensor.name!r} must be {shape}, symmetric. Received: {tensor.shape}. Convert the model again"
        )
    return values.astype("int64"), tensor.scale


def _scaling(prefix: str, real: float) -> dict[str, int]:
    """The fields `multiplier` and `shift`, with a prefix, of a real factor."""
    multiplier, shift = arithmetic.quantize_multiplier(real)
    if shift > 30:
        raise Unsupported(
            f"a factor of {real:g} between scales is outside the supported range. Convert again with a representative "
            "calibration set"
        )
    return {f"{prefix}multiplier": multiplier, f"{prefix}shift": shift}


def lstm(graph: Graph, op: Op) -> list[Layer]:
    """UNIDIRECTIONAL_SEQUENCE_LSTM: input [1, steps, inputs], output [1, steps, units]; with TimeMajor [steps, 1, ...].

    Inputs 1 to 8 are the weights of the gates for input and hidden state, 12 to 15 the biases, 18 and 19 the states.
    """
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    if len(op.inputs) != 24 or any(op.inputs[i] >= 0 for i in (*range(9, 12), 16, 17, *range(20, 24))):
        raise Unsupported("peepholes, a projection and layer normalization are not supported. Use a Keras LSTM")
    if op.options["FusedActivationFunction"] != "tanh":
        raise Unsupported("the activation must be tanh. Use a Keras LSTM")
    if len(source.shape) != 3 or len(output.shape) != 3 or source.shape[1 if op.options["TimeMajor"] else 0] != 1:
        raise Unsupported(f"input {source.shape} must be one sequence. Convert the model again")
    steps, inputs, units = source.elements // source.shape[2], source.shape[2], output.shape[2]
    if output.elements != steps * units:
        raise Unsupported(f"{output.shape} does not fit input {source.shape}. The file is damaged")
    hidden, cell = _state(graph, op, 18, units, "int8"), _state(graph, op, 19, units, "int16")
    power = round(math.log2(cell.scale))
    if cell.scale != 2.0**power or not -20 <= power <= 0 or cell.zero_point:
        raise Unsupported(f"the scale of {cell.name!r} must be a power of two, 2^-20 to 1. Convert the model again")
    fields = _gates(graph, op, source, hidden, inputs, units)
    left = 12 + power  # left shift of the cell state to 12 fraction bits, which tanh takes
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


def _gates(graph: Graph, op: Op, source: Tensor, hidden: Tensor, inputs: int, units: int) -> Fields:
    """Fields of the gates: weights, biases with the zero points folded in, and factors of the sums to 12 fraction bits.

    `weights` is [units, 4 gates, inputs + units]; `bias` is [units, 8]; `multiplier` and `shift` have 8 values. The
    eight are input and hidden state of each gate in turn.
    """
    rows, biases, scaled = [], [], []
    for g, gate in enumerate(_GATES):
        bias = constant(graph, op, 12 + g, "int32").astype("int64").reshape(-1)
        if len(bias) != units:
            raise Unsupported(f"{len(bias)} biases for {units} units. The file is damaged")
        parts = []
        for tensor, first, depth, added in ((source, 1, inputs, bias), (hidden, 5, units, 0 * bias)):
            weights, scale = _matrix(graph, op, first + g, (units, depth), "int8")
            folded, _ = folded_sums(f"the {gate} gate", weights, added, tensor.zero_point)
            # TensorFlow Lite Micro multiplies the scales in float32, as for FULLY_CONNECTED.
            scaled.append(_scaling("", float(np.float32(tensor.scale) * np.float32(scale)) / 2.0**-12))
            parts.append(weights)
            biases.append(folded)
        rows.append(np.concatenate(parts, axis=1))
    return {
        "weights": np.stack(rows, axis=1).astype("int8"),
        "bias": np.stack(biases, axis=1),
        **{name: tuple(one[name] for one in scaled) for name in ("multiplier", "shift")},
    }


def circular_buffer(graph: Graph, op: Op) -> list[Layer]:
    """CIRCULAR_BUFFER: the last inputs [1, 1, W, C] as [1, slots, W, C], a variable; every run must compute all ops."""
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    if len(output.shape) != 4 or source.shape != (output.shape[0], 1, *output.shape[2:]) or output.shape[0] != 1:
        raise Unsupported(f"{source.shape} is no slot of {output.shape}. The file is damaged")
    if not output.variable or output.data is not None:
        raise Unsupported(f"{output.name!r} must be a variable. Convert the model again")
    # Without the option, TensorFlow Lite Micro takes it from the shapes of two models that its authors had.
    cycles = _cycles(op) or (1 if output.shape[1] in (5, 13, 25) else 2)
    if cycles != 1:
        raise Unsupported(f"it stops {cycles - 1} of {cycles} runs before the ops behind it. Use cycles_max = 1")
    depth = source.elements
    return [
        Layer(
            op,
            "circular_buffer",
            "circular_buffer",
            "tfkd_circular_buffer_params",
            {"kept": output.elements - depth, "depth": depth},
            (read_by_kernel(source),),
            output.index,
            comment=f"{shape_text(source)} -> {shape_text(output)}",
        )
    ]


def _cycles(op: Op) -> int:
    """The option `cycles_max`, 0 where it is missing: the first value of a map or vector of FlexBuffers."""
    root = custom_options(op)
    if root is None:
        return 0
    try:
        return max(0, int((root.AsMap.Values if root.IsMap else root.AsVector)[0].AsInt))
    except Exception as error:
        raise damaged(error) from None


def svdf(graph: Graph, op: Op) -> list[Layer]:
    """SVDF: input [1, inputs], output [1, units]; units * rank filters over the last `memory` inputs, a state."""
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
    if graph.input_of(op, 3) is not None:
        bias = constant(graph, op, 3, "int32").astype("int64").reshape(-1)
    state = _state(graph, op, 4, filters * memory, "int8", "int16")
    if times.dtype != state.dtype or len(bias) != output.elements:
        raise Unsupported("types or sizes of time weights, state and bias differ. The file is damaged")
    limits = np.iinfo(state.dtype)
    reach = 2 ** (8 if state.dtype == "int8" else 16)
    largest = np.abs(time).sum(axis=1).reshape(-1, rank).sum(axis=1) * reach + np.abs(bias)
    if max(np.abs(feature).sum(axis=1).max() * 255, largest.max()) >= 2**31:
        raise Unsupported("sums do not fit 32 bits. Convert again with a real calibration set")
    s = [np.float32(x) for x in (source.scale, feature_scale, state.scale, time_scale, output.scale)]
    fields: Fields = {
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
