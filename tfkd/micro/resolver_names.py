"""Names of ops in TensorFlow Lite Micro's `MicroMutableOpResolver`, where `AddConv2D` registers CONV_2D.

Reference: micro_mutable_op_resolver.h of tflite-micro, commit 90b983c2 of August 2026.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tfkd.errors import ModelError

# The ops of the schema that it has. Most names are the words with capital letters, those of `_OTHER` are not.
_BUILTIN = """
ABS ADD ADD_N ARG_MAX ARG_MIN ASSIGN_VARIABLE AVERAGE_POOL_2D BATCH_MATMUL BATCH_TO_SPACE_ND BROADCAST_ARGS
BROADCAST_TO CALL_ONCE CAST CEIL CONCATENATION CONV_2D COS CUMSUM DEPTHWISE_CONV_2D DEPTH_TO_SPACE DEQUANTIZE
DIV DYNAMIC_UPDATE_SLICE ELU EMBEDDING_LOOKUP EQUAL EXP EXPAND_DIMS FILL FLOOR FLOOR_DIV FLOOR_MOD
FULLY_CONNECTED GATHER GATHER_ND GREATER GREATER_EQUAL HARD_SWISH IF L2_NORMALIZATION L2_POOL_2D LEAKY_RELU
LESS LESS_EQUAL LOG LOGICAL_AND LOGICAL_NOT LOGICAL_OR LOGISTIC LOG_SOFTMAX MAXIMUM MAX_POOL_2D MEAN MINIMUM
MIRROR_PAD MUL NEG NOT_EQUAL PACK PAD PADV2 PRELU QUANTIZE READ_VARIABLE REDUCE_ALL REDUCE_MAX REDUCE_MIN RELU
RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR REVERSE_V2 ROUND RSQRT SELECT_V2 SHAPE SIN SLICE SOFTMAX
SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUARE SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE SUB SUM
SVDF TANH TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK VAR_HANDLE WHILE ZEROS_LIKE
"""
_OTHER = {
    "AVERAGE_POOL_2D": "AveragePool2D",
    "BATCH_MATMUL": "BatchMatMul",
    "CONV_2D": "Conv2D",
    "CUMSUM": "CumSum",
    "DEPTHWISE_CONV_2D": "DepthwiseConv2D",
    "L2_POOL_2D": "L2Pool2D",
    "MAX_POOL_2D": "MaxPool2D",
    "PADV2": "PadV2",
    "UNIDIRECTIONAL_SEQUENCE_LSTM": "UnidirectionalSequenceLSTM",
    # Custom ops by their custom codes.
    "CIRCULAR_BUFFER": "CircularBuffer",
    "SignalDelay": "Delay",
    "SignalEnergy": "Energy",
    "SignalFftAutoScale": "FftAutoScale",
    "SignalFilterBank": "FilterBank",
    "SignalFilterBankLog": "FilterBankLog",
    "SignalFilterBankSpectralSubtraction": "FilterBankSpectralSubtraction",
    "SignalFilterBankSquareRoot": "FilterBankSquareRoot",
    "SignalFramer": "Framer",
    "SignalIrfft": "Irfft",
    "SignalOverlapAdd": "OverlapAdd",
    "SignalPCAN": "PCAN",
    "SignalRfft": "Rfft",
    "SignalStacker": "Stacker",
    "SignalWindow": "Window",
    "TFLM_DECODE": "Decode",
    "TFLite_Detection_PostProcess": "DetectionPostprocess",
    "ethos-u": "EthosU",
}
_NAMES = {op: "".join(word.capitalize() for word in op.split("_")) for op in _BUILTIN.split()} | _OTHER


def missing(ops: Iterable[str]) -> list[str]:
    """Those of some ops that TensorFlow Lite Micro has no kernel for; of custom ops, `ops` has the custom codes."""
    return [op for op in ops if op not in _NAMES]


def resolver_names(ops: Iterable[str]) -> Sequence[str]:
    """The methods that register some ops.

    Args:
        ops: Names in the schema; of custom ops, their custom codes.

    Returns:
        A method for each op, such as `AddConv2D`.

    Raises:
        ModelError: TensorFlow Lite Micro has no kernel for some of them.

    >>> resolver_names(["CONV_2D", "SignalWindow"])
    ['AddConv2D', 'AddWindow']
    """
    ops = list(ops)
    if lacking := missing(ops):
        raise ModelError(
            f"export-c: the model must have ops of TensorFlow Lite Micro. Received: {', '.join(lacking)}. Replace "
            "these layers, or use `--format c`, which has a few others, such as TILE."
        )
    return [f"Add{_NAMES[op]}" for op in ops]
