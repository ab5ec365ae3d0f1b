"""Quantization of a float .tflite by litert-quantizer: choice of activation ranges and of precision per layer."""

from __future__ import annotations

import dataclasses
import functools
import importlib
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd._internal import isolation
from tfkd.conversion import (
    activation_ranges,
    biases,
    channel_slices,
    layer_names,
    mask_values,
    op_forms,
    refinement,
    rewriting,
    tflite_writer,
)
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.conversion.tflite_reader import OpInfo, TFLiteGraph
from tfkd.errors import InputError, ModelError

if TYPE_CHECKING:
    from litert_quantizer import qtyping, quantizer

MODES = ("dynamic_range", "full_int8", "int16x8")

# Ops that litert-quantizer calls by another name than the schema of TensorFlow Lite.
_OP_ALIASES = {"TRANSPOSE_CONV": "CONV_2D_TRANSPOSE"}


@dataclasses.dataclass(frozen=True)
class QuantizerSettings:
    """Settings of the quantizer `litert` (the package litert-quantizer).

    `keep_float`, `int16` and `int4` hold regular expressions. An op is selected where an expression is found in its
    name or in the name of a layer that was fused into it.

    Args:
        ranges: How activation ranges are computed from the calibration samples: `min_max` (all values), `percentile`
            (without the outermost values on both sides) or `mse` (smallest mean squared error of rounding and
            clipping). The range of the model's input is always `min_max`.
        percentile: Upper percentile of `ranges="percentile"`, in percent, 50..100 (exclusive); the lower one is
            100 - percentile.
        keep_float: Layers that stay in float.
        int16: Layers with 16-bit activations.
        int4: Layers with 4-bit weights: Conv2D and Dense.

    Raises:
        InputError: A value is out of range, or an expression is not a regular expression.
    """

    ranges: str = "min_max"
    percentile: float = 99.99
    keep_float: tuple[str, ...] = ()
    int16: tuple[str, ...] = ()
    int4: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.ranges not in activation_ranges.METHODS:
            raise InputError(
                f"QuantizerSettings: ranges must be one of {', '.join(activation_ranges.METHODS)}. "
                f"Received: {self.ranges!r}. Use 'min_max'."
            )
        if not 50 < self.percentile < 100:
            raise InputError(
                f"QuantizerSettings: percentile must be in 50..100 (exclusive). Received: {self.percentile}. Use 99.99."
            )
        for name in ("keep_float", "int16", "int4"):
            object.__setattr__(self, name, _checked_expressions(name, getattr(self, name)))

    def summary(self) -> str:
        """The settings as a sentence for reports."""
        ranges = f"percentile {self.percentile:g}" if self.ranges == "percentile" else self.ranges
        layers = (("float", self.keep_float), ("int16", self.int16), ("int4", self.int4))
        precisions = [f"{name} in {', '.join(expressions)}" for name, expressions in layers if expressions]
        return f"Quantized by litert-quantizer: {'; '.join([f'activation ranges by {ranges}', *precisions])}."


def _checked_expressions(name: str, expressions: str | Iterable[str]) -> tuple[str, ...]:
    if isinstance(expressions, str):
        raise InputError(
            f"QuantizerSettings: {name} must be a sequence of expressions. Received: {expressions!r}. "
            f"Use ({expressions!r},)."
        )
    for expression in expressions:
        try:
            re.compile(expression)
        except re.error as error:
            raise InputError(
                f"QuantizerSettings: {name} must hold regular expressions. Received: {expression!r}: {error}. "
                "Use '^name$' for one layer."
            ) from None
    return tuple(expressions)


def select(quantizer: str | QuantizerSettings | None, **options: Any) -> QuantizerSettings | None:
    """Returns the settings of litert-quantizer, or None where TensorFlow's own quantizer is selected.

    Args:
        quantizer: `tensorflow`, `litert` or settings; None selects the one that the options need.
        **options: Fields of `QuantizerSettings`. Default values do not require litert-quantizer.

    Raises:
        InputError: The quantizer is unknown, or `tensorflow` does not have these options.

    >>> select(None, ranges="min_max") is None
    True
    >>> select(None, ranges="mse").ranges
    'mse'
    """
    if isinstance(quantizer, QuantizerSettings):
        return quantizer
    if quantizer not in (None, "tensorflow", "litert"):
        raise InputError(
            f"convert: quantizer must be 'tensorflow', 'litert' or a tfkd.QuantizerSettings. Received: {quantizer!r}. "
            "Use 'tensorflow'."
        )
    settings = QuantizerSettings(**options)
    fields = dataclasses.fields(QuantizerSettings)
    changed = [field.name for field in fields if getattr(settings, field.name) != field.default]
    if quantizer == "tensorflow" and changed:
        raise InputError(
            f"convert: quantizer 'tensorflow' has no choice of ranges or layers. Received: {', '.join(changed)}. "
            "Use quantizer='litert'."
        )
    return settings if changed or quantizer == "litert" else None


@dataclasses.dataclass(frozen=True)
class Quantized:
    """The result of a quantization.

    Args:
        content: The .tflite file.
        kept_float: Output tensors of the ops that the settings keep in float.
        findings: Sentences on the values of layers on the calibration samples: NaN, and the farthest outliers.
        changes: Sentences on what was changed in the model, see `refinement`.
    """

    content: bytes
    kept_float: tuple[str, ...] = ()
    findings: tuple[str, ...] = ()
    changes: tuple[str, ...] = ()


def quantize(
    content: bytes,
    settings: QuantizerSettings,
    *,
    mode: str,
    samples: Samples | None,
    float_io: bool = False,
    refine: bool = False,
    rounding: str = "calibrated",
    timeout_s: float = 600.0,
    what: str = "quantizing",
) -> Quantized:
    """Quantizes a float .tflite in a child process.

    Args:
        content: The float .tflite file.
        settings: Activation ranges, and precision per layer.
        mode: `dynamic_range`, `full_int8` or `int16x8`: the precision of layers that no expression selects.
        samples: Calibration samples for `full_int8` and `int16x8`.
        float_io: Whether input and output stay in float.
        refine: Whether `refinement` may change the model for `full_int8`.
        rounding: See `refinement.refine`.
        timeout_s: Time limit in seconds.
        what: Description of the work, for messages.

    Raises:
        InputError: The mode does not fit the settings.
        ModelError: An expression matches no layer, or a layer does not support the precision.
        DeviceError: The child process crashed or timed out.
    """
    if mode not in MODES:
        raise InputError(
            f"convert: quantizer 'litert' takes the modes {', '.join(MODES)}. Received: mode={mode!r}. "
            "Use quantizer='tensorflow'."
        )
    if mode == "dynamic_range" and (settings.int16 or settings.ranges != "min_max"):
        raise InputError(
            "convert: mode 'dynamic_range' does not quantize activations. Received: int16 or ranges. Use 'full_int8'."
        )
    try:
        quantized: Quantized = isolation.run(
            "tfkd.conversion.quantizer:_quantize",
            prepare="tfkd.conversion.quantizer:_load",
            timeout_s=timeout_s,
            what=what,
            content=content,
            settings=settings,
            mode=mode,
            samples=samples,
            float_io=float_io,
            refine=refine,
            rounding=rounding,
        )
    except ModelError as error:
        raise ModelError(f"{what}: {error}") from None
    except InputError as error:
        raise InputError(f"{what}: {error}") from None
    return quantized


# The functions below run in the child process.

# Bits of activations and weights, or None for float.
_Precision = tuple[int, int] | None
# Result of `activation_ranges.find`.
_Found = tuple[dict[str, tuple[float, float]], tuple[str, ...]]


def _load() -> None:
    importlib.import_module("litert_quantizer.quantizer")


def _quantize(
    content: bytes,
    settings: QuantizerSettings,
    mode: str,
    samples: Samples | None,
    float_io: bool,
    refine: bool = False,
    rounding: str = "calibrated",
) -> Quantized:
    samples = None if samples is None else samples.of(content)
    in_int16 = mode == "int16x8" or bool(settings.int16)
    if samples is not None:
        content = mask_values.limit(content, samples, int16=in_int16)
    content = rewriting.for_litert(content, int16=in_int16)
    content, pooled = refinement.pool_by_mean(content) if mode == "full_int8" else (content, ())
    if not refine or mode != "full_int8" or samples is None:
        once = _quantize_once(content, settings, mode, _find_ranges(content, settings, mode, samples), float_io)
        return dataclasses.replace(once, changes=pooled)
    made: dict[bytes, Quantized] = {}
    found = functools.cache(lambda floats: _find_ranges(floats, settings, mode, samples))

    def quantize_once(floats: bytes, narrowed: Mapping[str, tuple[float, float]]) -> bytes:
        ranges, findings = found(floats)
        quantized = _quantize_once(floats, settings, mode, ({**ranges, **narrowed}, findings), float_io)
        made[floats] = quantized
        return quantized.content

    refined = refinement.refine(quantize_once, content, samples, ranges=settings.ranges == "min_max", rounding=rounding)
    return dataclasses.replace(made[refined.original], content=refined.content, changes=(*pooled, *refined.changes))


def _find_ranges(content: bytes, settings: QuantizerSettings, mode: str, samples: Samples | None) -> _Found:
    if samples is None:
        return {}, ()
    graph = TFLiteModel.load(content).graph
    _, precisions = _precisions(graph, settings, mode)
    int16_ops = [index for index, one in precisions.items() if one and one[0] == 16]
    in_int16 = range(len(graph.ops)) if mode == "int16x8" else int16_ops
    steps = {tensor: 2**16 for index in in_int16 for tensor in graph.ops[index].outputs}
    return activation_ranges.find(content, graph, samples, settings.ranges, settings.percentile, steps)


def _quantize_once(content: bytes, settings: QuantizerSettings, mode: str, found: _Found, float_io: bool) -> Quantized:
    graph = TFLiteModel.load(content).graph
    floats, precisions = _precisions(graph, settings, mode)
    ranges, findings = dict(found[0]), found[1]
    if mode == "full_int8" and (cut := channel_slices.separate(content, ranges)) is not content:
        content, graph = cut, TFLiteModel.load(cut).graph
        floats, precisions = _precisions(graph, settings, mode)
        for op in graph.ops:
            if op.name == "STRIDED_SLICE":
                ranges.setdefault(graph.tensors[op.outputs[0]].name, ranges[graph.tensors[op.inputs[0]].name])
    quantized = _run_quantizer(content, graph, mode, precisions, ranges, float_io)
    quantized = biases.correct(rewriting.drop_unreachable_limits(rewriting.use_general_additions(quantized)), content)
    kept_float = tuple(graph.tensors[i].name for index in floats for i in graph.ops[index].outputs)
    return Quantized(op_forms.join_casts(quantized, kept_float), kept_float, findings)


def _precisions(graph: TFLiteGraph, settings: QuantizerSettings, mode: str) -> tuple[set[int], dict[int, _Precision]]:
    """The indices of the ops that stay in float, and the precision of those that the settings select."""
    floats = layer_names.select_ops(graph, settings.keep_float, "keep_float")
    int16 = layer_names.select_ops(graph, settings.int16, "int16")
    int4 = layer_names.select_ops(graph, settings.int4, "int4")
    return floats, {
        index: None
        if index in floats
        else (16 if index in int16 or mode == "int16x8" else 8, 4 if index in int4 else 8)
        for index in sorted(floats | int16 | int4)
    }


def _run_quantizer(
    content: bytes,
    graph: TFLiteGraph,
    mode: str,
    precisions: dict[int, _Precision],
    ranges: dict[str, tuple[float, float]],
    float_io: bool,
) -> bytes:
    """Runs litert-quantizer with a precision per op index and a range per tensor name."""
    from litert_quantizer import qtyping, quantizer

    names = qtyping.TFLOperationName
    engine = quantizer.Quantizer(bytearray(content))
    if mode == "dynamic_range":
        engine.add_dynamic_config(".*", names.ALL_SUPPORTED, 8)
    else:
        for name in (names.ALL_SUPPORTED, names.BATCH_MATMUL):
            _add_static_config(engine, ".*", name, 16 if mode == "int16x8" else 8, 8)
    if float_io:
        for border in (names.INPUT, names.OUTPUT):
            engine.update_quantization_recipe(".*", border, algorithm_key="no_quantize")
    for index, precision in precisions.items():
        _set_precision(engine, graph, graph.ops[index], mode, precision)
    result = engine.quantize(
        _statistics(graph, ranges) or None, enable_progress_bar=False, enable_progress_report=False
    )
    # Constants belong inside the flatbuffer: see `tflite_writer.read`.
    return tflite_writer.write(tflite_writer.read(bytes(result.quantized_model)))


def _statistics(graph: TFLiteGraph, ranges: dict[str, tuple[float, float]]) -> dict[str, dict[str, np.ndarray]]:
    """The ranges in litert-quantizer's form.

    Where a constant is quantized in the scale of a result, it takes as many dimensions of the range as of the constant.
    Tensors that are always 0 get a range, since engines refuse scales of nearly 0.
    """
    ranks = {
        graph.tensors[op.outputs[0]].name: max(len(graph.tensors[i].shape) for i in op.inputs if graph.constants[i])
        for op in graph.ops
        if op.name in rewriting.SHARING_SCALE and any(graph.constants[i] for i in op.inputs)
    }
    return {
        name: {
            key: np.full((1,) * max(ranks.get(name, 1), 1), value, np.float32)
            for key, value in zip(("min", "max"), limits if any(limits) else (0.0, 1.0), strict=True)
        }
        for name, limits in ranges.items()
    }


def _add_static_config(
    engine: quantizer.Quantizer, scope: str, name: qtyping.TFLOperationName, activation_bits: int, weight_bits: int
) -> None:
    from litert_quantizer import qtyping

    # The kernels of BATCH_MATMUL read one scale only.
    by_tensor = name == qtyping.TFLOperationName.BATCH_MATMUL
    granularity = qtyping.QuantGranularity.TENSORWISE if by_tensor else qtyping.QuantGranularity.CHANNELWISE
    engine.add_static_config(scope, name, activation_bits, weight_bits, granularity)


def _set_precision(
    engine: quantizer.Quantizer, graph: TFLiteGraph, op: OpInfo, mode: str, precision: _Precision
) -> None:
    """Configures one op; litert-quantizer identifies it by the names of its outputs."""
    from litert_quantizer import qtyping

    names = qtyping.TFLOperationName
    name = _OP_ALIASES.get(op.name, op.name)
    scope = "^" + re.escape(";".join(graph.tensors[i].name for i in op.outputs))
    if precision is None:
        if name in names.__members__:  # ops unknown to litert-quantizer stay in float anyway
            engine.update_quantization_recipe(scope, names(name), algorithm_key="no_quantize")
        return
    activation_bits, weight_bits = precision
    try:
        if mode == "dynamic_range":
            engine.add_dynamic_config(scope, names(name), weight_bits)
        else:
            _add_static_config(engine, scope, names(name), activation_bits, weight_bits)
    except ValueError as error:
        reason = str(error).partition(" Error:")[0]  # the rest repeats the configuration
        raise ModelError(
            f"{op.name} {graph.tensors[op.outputs[0]].name!r} does not support {activation_bits}-bit activations with "
            f"{weight_bits}-bit weights: {reason} Select other layers; 4-bit weights are for Conv2D and Dense."
        ) from None
