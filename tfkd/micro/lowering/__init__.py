"""Lowers the ops of a graph to layers: calls of C kernels with their constants.

A new op takes a file in this folder with its lowering, and its line in `OPS`. A lowering checks the op's types, shapes
and options, and returns its layers; whatever it does not support raises `Unsupported`. Each output keeps the shape that
the model gives it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from tfkd.errors import ModelError
from tfkd.micro.graph import Graph, MissingOption, Op
from tfkd.micro.lowering.asymmetric import is_asymmetric, product
from tfkd.micro.lowering.axes import add_n, cast, cumulative_sum, extreme_index, l2_normalization
from tfkd.micro.lowering.binary import comparison, division, logical, prelu, select, squared_difference
from tfkd.micro.lowering.control import CONTROL, control
from tfkd.micro.lowering.elementwise import addition, elementwise
from tfkd.micro.lowering.floats import FLOATS, lower_floats
from tfkd.micro.lowering.fourier import fourier
from tfkd.micro.lowering.frames import delay, framer, overlap_add, stacker
from tfkd.micro.lowering.int16 import convolution_int16, logistic_tanh_int16, rescale, softmax_int16
from tfkd.micro.lowering.layer import Alias, Layer, Unsupported
from tfkd.micro.lowering.matrices import batch_matmul, fully_connected
from tfkd.micro.lowering.moves import (
    block,
    concatenation,
    copy,
    pack,
    pad,
    reverse,
    split,
    strided_slice,
    tile,
    transpose,
    unpack,
    view,
)
from tfkd.micro.lowering.reductions import extreme, reduction
from tfkd.micro.lowering.selections import (
    batch_to_space,
    broadcast_to,
    depth_to_space,
    fill,
    gather,
    gather_nd,
    mirror_pad,
    space_to_batch,
    space_to_depth,
    update_slice,
)
from tfkd.micro.lowering.sequences import circular_buffer, lstm, svdf
from tfkd.micro.lowering.signal import (
    auto_scale,
    energy,
    filter_bank,
    filter_bank_log,
    pcan,
    spectral_subtraction,
    square_root,
    window,
)
from tfkd.micro.lowering.tables import log_softmax, lookup, softmax
from tfkd.micro.lowering.upsampling import resize_bilinear, resize_nearest, transpose_convolution
from tfkd.micro.lowering.whole_numbers import whole_numbers
from tfkd.micro.lowering.windows import convolution, depthwise, pool

__all__ = ["FLOATS", "OPS", "lower"]

Lowering = Callable[[Graph, Op], list[Layer] | Alias]


@dataclasses.dataclass(frozen=True)
class ByType:
    """Lowerings of an op whose other types have kernels of their own.

    Args:
        int8: Lowering of int8 tensors.
        int16: Lowering where the first input or an output is int16 or int32.
        int32: Lowering where both are int32; None for that of int16.
    """

    int8: Lowering
    int16: Lowering
    int32: Lowering | None = None


# The ops that are supported, by their names in the TFLite schema.
OPS: dict[str, Lowering | ByType] = {
    "ABS": ByType(lookup, rescale),
    "ADD": ByType(addition, addition, whole_numbers),
    "ADD_N": add_n,
    "ARG_MAX": extreme_index,
    "ARG_MIN": extreme_index,
    "ASSIGN_VARIABLE": copy,
    "AVERAGE_POOL_2D": pool,
    "BATCH_MATMUL": batch_matmul,
    "BATCH_TO_SPACE_ND": batch_to_space,
    "BROADCAST_TO": broadcast_to,
    "CAST": cast,
    "CIRCULAR_BUFFER": circular_buffer,
    "CONCATENATION": concatenation,
    "CONV_2D": ByType(convolution, convolution_int16),
    "CUMSUM": cumulative_sum,
    "DEPTHWISE_CONV_2D": ByType(depthwise, convolution_int16),
    "DEPTH_TO_SPACE": depth_to_space,
    "DIV": ByType(division, division, whole_numbers),
    "DYNAMIC_UPDATE_SLICE": update_slice,
    "ELU": lookup,
    "EMBEDDING_LOOKUP": gather,
    "EQUAL": comparison,
    "EXPAND_DIMS": view,
    "FILL": fill,
    "FULLY_CONNECTED": ByType(fully_connected, convolution_int16),
    "GATHER": gather,
    "GATHER_ND": gather_nd,
    "GREATER": comparison,
    "GREATER_EQUAL": comparison,
    "HARD_SWISH": lookup,
    "L2_NORMALIZATION": l2_normalization,
    "LEAKY_RELU": ByType(lookup, rescale),
    "LESS": comparison,
    "LESS_EQUAL": comparison,
    "LOGISTIC": ByType(lookup, logistic_tanh_int16),
    "LOGICAL_AND": logical,
    "LOGICAL_NOT": logical,
    "LOGICAL_OR": logical,
    "LOG_SOFTMAX": log_softmax,
    "MAXIMUM": ByType(elementwise, elementwise, whole_numbers),
    "MAX_POOL_2D": pool,
    "MEAN": reduction,
    "MINIMUM": ByType(elementwise, elementwise, whole_numbers),
    "MIRROR_PAD": mirror_pad,
    "MUL": ByType(elementwise, elementwise, whole_numbers),
    "NOT_EQUAL": comparison,
    "PACK": pack,
    "PAD": pad,
    "PADV2": pad,
    "PRELU": prelu,
    "QUANTIZE": ByType(lookup, rescale),
    "READ_VARIABLE": copy,
    "REDUCE_ALL": extreme,
    "REDUCE_MAX": extreme,
    "REDUCE_MIN": extreme,
    "RELU": ByType(lookup, rescale),
    "RELU6": ByType(lookup, rescale),
    "RESHAPE": view,
    "RESIZE_BILINEAR": resize_bilinear,
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "REVERSE_V2": reverse,
    "RSQRT": lookup,
    "SELECT_V2": select,
    "SLICE": block,
    "SignalDelay": delay,
    "SignalEnergy": energy,
    "SignalFftAutoScale": auto_scale,
    "SignalFilterBank": filter_bank,
    "SignalFilterBankLog": filter_bank_log,
    "SignalFilterBankSpectralSubtraction": spectral_subtraction,
    "SignalFilterBankSquareRoot": square_root,
    "SignalFramer": framer,
    "SignalIrfft": fourier,
    "SignalOverlapAdd": overlap_add,
    "SignalPCAN": pcan,
    "SignalRfft": fourier,
    "SignalStacker": stacker,
    "SignalWindow": window,
    "SOFTMAX": ByType(softmax, softmax_int16),
    "SPACE_TO_BATCH_ND": space_to_batch,
    "SPACE_TO_DEPTH": space_to_depth,
    "SPLIT": split,
    "SPLIT_V": split,
    "SQUARED_DIFFERENCE": squared_difference,
    "SQUEEZE": view,
    "STRIDED_SLICE": strided_slice,
    "SUB": ByType(addition, addition, whole_numbers),
    "SUM": reduction,
    "SVDF": svdf,
    "TANH": ByType(lookup, logistic_tanh_int16),
    "TILE": tile,
    "TRANSPOSE": transpose,
    "TRANSPOSE_CONV": transpose_convolution,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm,
    "UNPACK": unpack,
    "ZEROS_LIKE": fill,
}
# Ops that no file has: passes of the generator add them.
_ADDED: dict[str, Lowering | ByType] = {"COPY": copy, **dict.fromkeys(CONTROL, control)}


def lower(graph: Graph) -> tuple[tuple[Layer, ...], dict[int, int]]:
    """Lowers all ops.

    Args:
        graph: A model.

    Returns:
        The layers in the order of the ops, and aliases: for each tensor that is a view of another one (the output of
        RESHAPE, SQUEEZE or EXPAND_DIMS) the index of that one.

    Raises:
        ModelError: The model has ops, types or options that are not supported; the message names all of them.
    """
    layers: list[Layer] = []
    aliases: dict[int, int] = {}
    problems = []
    for op in graph.ops:
        try:
            lowered = _lowered(graph, op)
        except (Unsupported, MissingOption) as problem:
            problems.append(f"{graph.label(op)}: {problem}")
        except IndexError:
            problems.append(f"{graph.label(op)}: has fewer inputs or dimensions than it needs. The file is damaged")
        else:
            if isinstance(lowered, Alias):
                aliases[op.outputs[0]] = lowered.source
            else:
                layers.extend(_specialized(graph, layer) for layer in lowered)
    if problems:
        raise ModelError("micro: the model must have supported ops only. Received:\n  " + "\n  ".join(problems))
    return tuple(layers), aliases


def _lowered(graph: Graph, op: Op) -> list[Layer] | Alias:
    lowering = _ADDED.get(op.kind) or OPS.get(op.kind)
    if _has_floats(graph, op):
        lowering = lower_floats
    if lowering is None:
        raise Unsupported(
            "is not supported. Replace the layer, or export the model for TensorFlow Lite Micro: "
            "`tfkd export-c --format tflm`"
        )
    if is_asymmetric(graph, op):
        lowering = product
    if isinstance(lowering, ByType):
        dtypes = {graph.tensors[i].dtype for i in (*op.inputs[:1], *op.outputs) if i >= 0}
        if lowering.int32 and dtypes == {"int32"}:
            lowering = lowering.int32
        else:
            lowering = lowering.int16 if {"int16", "int32"} & dtypes else lowering.int8
    lowered = lowering(graph, op)
    if not isinstance(lowered, Alias):
        _check_reads(graph, lowered)
    return lowered


def _check_reads(graph: Graph, layers: list[Layer]) -> None:
    """Refuses a kernel that would read a constant from the arena, where nothing writes it."""
    for i in (i for layer in layers for i in layer.reads if isinstance(i, int)):
        if graph.tensors[i].data is not None:
            raise Unsupported(
                f"{graph.tensors[i].name!r} must be computed from the model's inputs, is a constant. Put the result "
                "of the layer into the Keras model as a constant"
            )


def _has_floats(graph: Graph, op: Op) -> bool:
    """Whether an op reads or writes floats."""
    indices = (*op.inputs[:1], *op.outputs) if op.kind not in _ADDED else ()
    return any(graph.tensors[i].dtype == "float32" for i in indices if i >= 0)


def _specialized(graph: Graph, layer: Layer) -> Layer:
    """A layer of a generic kernel with the kernel for the type of its output."""
    dtype = graph.tensors[layer.writes].dtype
    if dtype in ("int8", "bool") or not layer.generic:
        return layer
    return dataclasses.replace(
        layer,
        kernel=f"{layer.kernel}_{dtype}",
        struct=f"{layer.struct}_{dtype}",
        source=f"{layer.source.replace('int8', dtype)}@{dtype}",
    )
